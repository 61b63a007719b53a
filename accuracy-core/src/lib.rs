//! The library behind `#[accuracy_test]`.
