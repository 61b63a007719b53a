//! A place holder to compile against, until the engine is here.

use crate::arch::Arch;
use crate::device::emulation::Told;

/// Why no device can be emulated.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    #[error("the emulator of {0} is not in this build")]
    NotThere(Arch),
}

/// Loads HIP's stand-in under the names that kernel libraries need, with one device of this architecture.
pub fn install(arch: Arch) -> Result<(), EmulatorError> {
    let file = std::env::var_os("ACCURACY_STAND_IN").ok_or(EmulatorError::NotThere(arch))?;
    // SAFETY: the file is a runtime that a test has made.
    let library = unsafe { libloading::Library::new(file) }.map_err(|_| EmulatorError::NotThere(arch))?;
    std::mem::forget(library);
    Ok(())
}

/// Takes what is to be said of everything that ran since the last call.
pub fn take_report() -> Told {
    Told::default()
}
