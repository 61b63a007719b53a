//! Rust to the neutral form.
use super::source::Module;
pub fn with_module<T>(_text: &str, then: impl FnOnce(&Module) -> T) -> Result<T, String> { Ok(then(&Module::default())) }
