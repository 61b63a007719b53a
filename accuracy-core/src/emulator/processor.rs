//! The processors whose code can be executed, and what is known of their devices.

use crate::codeobject::TargetId;
use std::fmt;

/// A processor that can be emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Processor {
    /// CDNA3: MI300A, MI300X, MI325X.
    Gfx942,
    /// CDNA4: MI350X, MI355X.
    Gfx950,
}

impl Processor {
    /// LLVM's name of the processor, without features.
    pub const fn name(self) -> &'static str {
        match self {
            Processor::Gfx942 => "gfx942",
            Processor::Gfx950 => "gfx950",
        }
    }

    /// The name with the features that the devices have: they correct errors in their memories, and do not retry page
    /// faults.
    pub fn target(self) -> TargetId {
        TargetId { processor: self.name().into(), sramecc: Some(true), xnack: Some(false) }
    }

    /// The same as text, the name with the features that the devices have: `gcnArchName` of the device properties.
    pub const fn target_id(self) -> &'static str {
        match self {
            Processor::Gfx942 => "gfx942:sramecc+:xnack-",
            Processor::Gfx950 => "gfx950:sramecc+:xnack-",
        }
    }

    /// The device's name. It says that no such device is there.
    pub const fn product(self) -> &'static str {
        match self {
            Processor::Gfx942 => "emulated gfx942",
            Processor::Gfx950 => "emulated gfx950",
        }
    }

    /// Compute units of the largest device: MI300X, MI355X.
    pub const fn compute_units(self) -> u32 {
        match self {
            Processor::Gfx942 => 304,
            Processor::Gfx950 => 256,
        }
    }

    /// Bytes of LDS of a compute unit, which one workgroup may use whole.
    pub const fn lds_bytes(self) -> u32 {
        match self {
            Processor::Gfx942 => 64 << 10,
            Processor::Gfx950 => 160 << 10,
        }
    }

    /// The granule in which LDS is allocated, in bytes.
    pub const fn lds_granule(self) -> u32 {
        match self {
            Processor::Gfx942 => 512,
            Processor::Gfx950 => 1280,
        }
    }

    /// Compute capability, as HIP counts it: 9.4 and 9.5.
    pub const fn capability(self) -> (i32, i32) {
        match self {
            Processor::Gfx942 => (9, 4),
            Processor::Gfx950 => (9, 5),
        }
    }

    /// Highest clock of the compute units, in kHz.
    pub const fn clock_khz(self) -> i32 {
        match self {
            Processor::Gfx942 => 2_100_000,
            Processor::Gfx950 => 2_400_000,
        }
    }

    /// Clock of the memory, in kHz.
    pub const fn memory_clock_khz(self) -> i32 {
        match self {
            Processor::Gfx942 => 1_300_000,
            Processor::Gfx950 => 2_000_000,
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
