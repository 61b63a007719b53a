//! The stand-in for HIP's runtime: what a kernel library finds under the SONAMEs `libamdhip64.so.5`, `.6` and `.7`
//! when its code runs on the emulator.
//!
//! [`install`] writes a small shared object for each SONAME (`stub`), loads it, and fills in its table with the calls
//! that are emulated. A kernel library that is opened afterwards is satisfied with it, and so is this crate's own
//! device layer. Calls that are not emulated return an error, and are listed in [`take_problems`] with everything else
//! that went wrong.
//!
//! Floors, from the bottom: `status`, `names` and `stub`; [`Engine`], which the emulator implements; `problem`; `abi`
//! (the boundary to C) and `runtime` (what is known); `operation` (what streams do); one module for each kind of call.
//! What does not live here: how machine code is run.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod abi;
mod device;
mod engine;
mod graph;
mod hostcall;
mod image;
mod launch;
mod library;
mod memory;
mod modules;
mod names;
mod operation;
mod output;
mod problem;
mod properties;
mod registration;
mod runtime;
mod status;
mod streams;
mod stub;

pub use abi::Version;
pub use engine::{
    Allocation, Argument, Cause, Engine, KernelId, KernelInfo, Launch, LaunchError, LaunchErrorKind,
    LoadError, LoadErrorKind, MemoryKind, ModuleId, Processor, Service,
};
pub use library::InstallError;
pub use output::OutputError;
pub use problem::{Direction, HandleKind, Home, Problem, ShapeError, Side, What};
pub use status::Status;

use runtime::Runtime;
use std::sync::Arc;

/// Makes the stand-in the HIP runtime of this process, on an engine. Call it before anything opens a HIP runtime or a
/// library that needs one; only the first call in a process succeeds.
///
/// # Errors
/// If a HIP runtime is loaded already, or the shared objects cannot be written or loaded.
pub fn install(engine: Arc<dyn Engine>) -> Result<(), InstallError> {
    library::load_all()?;
    abi::set_current(Arc::new(Runtime::new(engine)));
    Ok(())
}

/// The problems since the last call, in the order in which they came to light. Empty where nothing is installed.
pub fn take_problems() -> Vec<Problem> {
    abi::current().map(|runtime| runtime.take_problems()).unwrap_or_default()
}

/// What kernels have printed since the last call, `assert` messages included.
pub fn take_output() -> String {
    abi::current().map(|runtime| runtime.output.take()).unwrap_or_default()
}

/// The status that every call returns since a kernel ended with a fault; `None` as long as the device works.
pub fn lost() -> Option<Status> {
    abi::current().and_then(|runtime| runtime.lost())
}

#[cfg(test)]
mod tests;
