//! Architectures that kernels are built for, and which number formats each reads natively.

use std::fmt;
use std::str::FromStr;

use crate::dtype::{self, DType};

/// An architecture. `Host` is the CPU that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    Host,
    Gfx90a,
    Gfx942,
    Gfx950,
    Gfx1200,
    Gfx1201,
    Gfx1250,
    Sm89,
    Sm90,
    Sm100,
}

const OCP_FP8: &[DType] = &[dtype::E4M3FN, dtype::E5M2];
const FNUZ_FP8: &[DType] = &[dtype::E4M3FNUZ, dtype::E5M2FNUZ];
const MX: &[DType] = &[dtype::E4M3FN, dtype::E5M2, dtype::E3M2, dtype::E2M3, dtype::E2M1, dtype::E8M0];

impl Arch {
    pub const ALL: &[Arch] = &[
        Arch::Host,
        Arch::Gfx90a,
        Arch::Gfx942,
        Arch::Gfx950,
        Arch::Gfx1200,
        Arch::Gfx1201,
        Arch::Gfx1250,
        Arch::Sm89,
        Arch::Sm90,
        Arch::Sm100,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Arch::Host => "host",
            Arch::Gfx90a => "gfx90a",
            Arch::Gfx942 => "gfx942",
            Arch::Gfx950 => "gfx950",
            Arch::Gfx1200 => "gfx1200",
            Arch::Gfx1201 => "gfx1201",
            Arch::Gfx1250 => "gfx1250",
            Arch::Sm89 => "sm_89",
            Arch::Sm90 => "sm_90",
            Arch::Sm100 => "sm_100",
        }
    }

    /// The formats of 8 bits and less whose values the architecture's conversion or matrix instructions read.
    ///
    /// Sources: AMD CDNA 3, CDNA 4 and RDNA 4 instruction set references, HIP's table of FP8 formats, PTX ISA `cvt`
    /// and `mma`.
    fn small_floats(self) -> &'static [DType] {
        match self {
            Arch::Host => DType::ALL,
            Arch::Gfx90a => &[],
            Arch::Gfx942 => FNUZ_FP8,
            Arch::Gfx950 | Arch::Gfx1250 | Arch::Sm100 => MX,
            Arch::Gfx1200 | Arch::Gfx1201 | Arch::Sm89 | Arch::Sm90 => OCP_FP8,
        }
    }

    /// Whether kernels of this architecture read the format without emulating it.
    ///
    /// f32, f16 and bf16 are native everywhere, and so are the integers: nibbles are unpacked with ordinary
    /// integer instructions. The host decodes every format in software.
    pub fn native(self, dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
            || dtype.is_integer()
            || self.small_floats().contains(&dtype)
    }

    /// Whether the emulator runs this architecture's code.
    pub const fn can_be_emulated(self) -> bool {
        matches!(self, Arch::Gfx942 | Arch::Gfx950)
    }

    /// The architectures whose code the emulator runs.
    pub fn emulated() -> impl Iterator<Item = Arch> {
        Arch::ALL.iter().copied().filter(|arch| arch.can_be_emulated())
    }

    /// The e4m3 variant of the architecture's FP8 instructions, if it has any. Checkpoints store e4m3fn; where this
    /// says e4m3fnuz an engine converts on loading.
    pub fn native_fp8(self) -> Option<DType> {
        [DType::E4M3Fn, DType::E4M3Fnuz].into_iter().find(|&d| self.small_floats().contains(&d))
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no [`Arch`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no architecture is called `{0}`; known: {known}", known = known_names())]
pub struct UnknownArch(pub String);

fn known_names() -> String {
    Arch::ALL.iter().map(|a| a.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Arch {
    type Err = UnknownArch;

    /// A name as [`Arch::name`] gives it, or as HIP reports it, with target features: `gfx942:sramecc+:xnack-`.
    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        let plain = match name.split_once(':') {
            Some((processor, _)) if processor.starts_with("gfx") => processor,
            _ => name,
        };
        Arch::ALL.iter().copied().find(|a| a.name() == plain).ok_or_else(|| UnknownArch(name.to_owned()))
    }
}
