//! Every way to get an attribute wrong is a compile error at the user's own token.
//!
//! `TRYBUILD=overwrite cargo test -p accuracy-macros --test compile_fail` writes the expected output anew.

#[test]
fn mistakes_are_errors_at_their_tokens() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
