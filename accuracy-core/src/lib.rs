//! The library behind `#[accuracy_test]`.

#[cfg(feature = "build")]
pub mod build;
