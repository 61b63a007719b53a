//! What kernels print: `printf` and `assert`.

use super::engine::{KernelInfo, ModuleId, Service};
use super::problem::Failure;
use super::runtime::Runtime;
use std::sync::Mutex;

/// Bytes of the buffer into which the kernels of a launch print.
pub(super) const PRINTF_BYTES: usize = 4 << 20;

/// Why what a kernel printed cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutputError {
    #[error("its buffer cannot be allocated")]
    Memory,
}

/// Text that kernels have printed.
#[derive(Default)]
pub(super) struct Output {
    text: Mutex<String>,
}

impl Output {
    pub fn take(&self) -> String {
        std::mem::take(&mut self.text.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub fn printf_buffer(&self, _runtime: &Runtime, _info: &KernelInfo) -> Result<Printf, Failure> {
        Ok(Printf)
    }
}

pub(super) struct Printf;
impl Printf {
    pub fn address(&self) -> usize {
        0
    }
    pub fn finish(self, _runtime: &Runtime, _module: ModuleId) -> Result<(), Failure> {
        Ok(())
    }
}

pub(super) struct Hostcalls;
impl Hostcalls {
    pub fn new(_runtime: &Runtime, _info: &KernelInfo) -> Result<Hostcalls, Failure> {
        Ok(Hostcalls)
    }
    pub fn address(&self) -> usize {
        0
    }
    pub fn finish(&self) -> Result<(), Failure> {
        Ok(())
    }
}
impl Service for Hostcalls {
    fn serve(&self) -> bool {
        false
    }
}
