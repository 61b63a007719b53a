//! The library behind `#[accuracy_test]`.

#[cfg(feature = "runtime")]
pub mod arch;
#[cfg(feature = "runtime")]
pub mod dtype;
#[cfg(feature = "runtime")]
pub mod env;
#[cfg(feature = "runtime")]
pub mod layout;
#[cfg(feature = "runtime")]
pub mod meta;
#[cfg(feature = "runtime")]
pub mod plan;
#[cfg(feature = "runtime")]
pub mod quant;
#[cfg(feature = "runtime")]
pub mod record;
