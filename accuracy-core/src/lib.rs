//! The library behind `#[accuracy_test]`.

#[cfg(feature = "runtime")]
pub mod arch;
#[cfg(feature = "runtime")]
pub mod dtype;
#[cfg(feature = "runtime")]
pub mod layout;
#[cfg(feature = "runtime")]
pub mod quant;
#[cfg(feature = "runtime")]
pub mod weights;
