//! `#[accuracy_test]` and `#[kernel_library]`.
