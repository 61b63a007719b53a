//! All of it is compiled out unless a feature is on.
#![cfg(feature = "hidden")]

#[test]
fn a_test() {}
