//! The library behind `#[accuracy_test]`.

#[cfg(feature = "runtime")]
pub mod quant;
