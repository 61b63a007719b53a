//! What a code object was compiled for, and on which devices it loads.
//!
//! Source: LLVM's user guide for the AMDGPU backend, "Processors", "Target ID" and "ELF header e_flags"; CUDA's
//! programming guide, "Application compatibility".

use std::fmt;
use std::str::FromStr;

/// Not a target id. Syntax: LLVM's user guide for the AMDGPU backend, "Target ID".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    #[error("`{0}` names no GPU: expected gfx..., such as gfx950 or gfx942:sramecc+:xnack-, or sm_90")]
    Processor(String),
    #[error("`{target}`: feature `{feature}` is none of sramecc+, sramecc-, xnack+, xnack-")]
    Feature { target: String, feature: String },
    #[error("`{target}`: feature `{feature}` is given twice")]
    FeatureTwice { target: String, feature: &'static str },
    #[error("processor number {0:#x} of the code object is not known")]
    Number(u32),
}

/// What a code object was compiled for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Amd(TargetId),
    /// Machine code for an NVIDIA compute capability; 90 is sm_90.
    Cubin {
        sm: u32,
    },
    /// NVIDIA's portable code, compiled by the driver for this compute capability and later ones.
    Ptx {
        sm: u32,
    },
    /// AMD's portable code, compiled by the runtime.
    Spirv,
}

impl Target {
    /// Whether a device of the given target runs this code. Features that either side leaves open match.
    pub fn runs_on(&self, device: &Target) -> bool {
        match (self, device) {
            (Target::Amd(code), Target::Amd(device)) => code.runs_on(device),
            (Target::Spirv, Target::Amd(_)) => true,
            // Machine code runs on later minor versions of its major version.
            (Target::Cubin { sm }, Target::Cubin { sm: device }) => sm / 10 == device / 10 && sm <= device,
            (Target::Ptx { sm }, Target::Cubin { sm: device }) => sm <= device,
            _ => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Amd(id) => id.fmt(f),
            Target::Cubin { sm } => write!(f, "sm_{sm}"),
            Target::Ptx { sm } => write!(f, "compute_{sm}"),
            Target::Spirv => f.write_str("amdgcnspirv"),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    /// `gfx950`, `gfx942:sramecc+:xnack-`, `sm_90`, `sm_90a`, `compute_90` or `amdgcnspirv`.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let number = |digits: &str| {
            let digits = digits.strip_suffix(['a', 'f']).unwrap_or(digits);
            digits.parse().map_err(|_| TargetError::Processor(text.into()))
        };
        if let Some(digits) = text.strip_prefix("sm_") {
            return Ok(Target::Cubin { sm: number(digits)? });
        }
        if let Some(digits) = text.strip_prefix("compute_") {
            return Ok(Target::Ptx { sm: number(digits)? });
        }
        if text == "amdgcnspirv" {
            return Ok(Target::Spirv);
        }
        text.parse().map(Target::Amd)
    }
}

impl serde::Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An AMD processor with its features; `None` where the code runs, or the device is, either way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId {
    pub processor: String,
    pub sramecc: Option<bool>,
    pub xnack: Option<bool>,
}

impl TargetId {
    /// Whether a device, as `gcnArchName` gives it, runs code of this target.
    pub fn runs_on(&self, device: &TargetId) -> bool {
        let open_or_equal = |code: Option<bool>, device: Option<bool>| {
            code.is_none_or(|code| device.is_none_or(|device| code == device))
        };
        (self.processor == device.processor || generic(&self.processor).contains(&device.processor.as_str()))
            && open_or_equal(self.sramecc, device.sramecc)
            && open_or_equal(self.xnack, device.xnack)
    }

    /// From the `e_flags` of a code object of ABI version 1 (code object 3) or later.
    pub(super) fn from_flags(flags: u32, abi: u8) -> Result<TargetId, TargetError> {
        let number = flags & 0xff;
        let processor = PROCESSORS
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, name)| (*name).to_owned())
            .ok_or(TargetError::Number(number))?;
        // Two bits a feature from code object 4 on: not supported, any, off, on. One bit before: off or on, where a
        // processor without the feature is off.
        let (xnack, sramecc) = if abi >= ABI_OF_CODE_OBJECT_4 {
            let feature = |bits: u32| match bits & 3 {
                2 => Some(false),
                3 => Some(true),
                _ => None,
            };
            (feature(flags >> 8), feature(flags >> 10))
        } else {
            let feature = |bit: u32| (flags & bit != 0).then_some(true);
            (feature(0x100), feature(0x200))
        };
        Ok(TargetId { processor, sramecc, xnack })
    }
}

const ABI_OF_CODE_OBJECT_4: u8 = 2;

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.processor)?;
        for (name, feature) in [("sramecc", self.sramecc), ("xnack", self.xnack)] {
            if let Some(on) = feature {
                write!(f, ":{name}{}", if on { '+' } else { '-' })?;
            }
        }
        Ok(())
    }
}

impl FromStr for TargetId {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let mut parts = text.split(':');
        let processor = parts.next().unwrap_or_default();
        let known = processor.strip_prefix("gfx").is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit())
                && rest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        });
        if !known {
            return Err(TargetError::Processor(text.into()));
        }
        let mut id = TargetId { processor: processor.into(), sramecc: None, xnack: None };
        for feature in parts {
            let error = || TargetError::Feature { target: text.into(), feature: feature.into() };
            let (name, on) = match (feature.strip_suffix('+'), feature.strip_suffix('-')) {
                (Some(name), _) => (name, true),
                (_, Some(name)) => (name, false),
                _ => return Err(error()),
            };
            let (name, slot) = match name {
                "sramecc" => ("sramecc", &mut id.sramecc),
                "xnack" => ("xnack", &mut id.xnack),
                _ => return Err(error()),
            };
            if slot.replace(on).is_some() {
                return Err(TargetError::FeatureTwice { target: text.into(), feature: name });
            }
        }
        Ok(id)
    }
}

/// The processors that code for a generic one runs on.
fn generic(processor: &str) -> &'static [&'static str] {
    match processor {
        "gfx9-generic" => &["gfx900", "gfx902", "gfx904", "gfx906", "gfx909", "gfx90c"],
        "gfx9-4-generic" => &["gfx942", "gfx950"],
        "gfx10-1-generic" => &["gfx1010", "gfx1011", "gfx1012", "gfx1013"],
        "gfx10-3-generic" => &["gfx1030", "gfx1031", "gfx1032", "gfx1033", "gfx1034", "gfx1035", "gfx1036"],
        "gfx11-generic" => {
            &["gfx1100", "gfx1101", "gfx1102", "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"]
        }
        "gfx12-generic" => &["gfx1200", "gfx1201"],
        _ => &[],
    }
}

/// `EF_AMDGPU_MACH` of each processor.
const PROCESSORS: &[(u32, &str)] = &[
    (0x20, "gfx600"),
    (0x21, "gfx601"),
    (0x22, "gfx700"),
    (0x23, "gfx701"),
    (0x24, "gfx702"),
    (0x25, "gfx703"),
    (0x26, "gfx704"),
    (0x28, "gfx801"),
    (0x29, "gfx802"),
    (0x2a, "gfx803"),
    (0x2b, "gfx810"),
    (0x2c, "gfx900"),
    (0x2d, "gfx902"),
    (0x2e, "gfx904"),
    (0x2f, "gfx906"),
    (0x30, "gfx908"),
    (0x31, "gfx909"),
    (0x32, "gfx90c"),
    (0x33, "gfx1010"),
    (0x34, "gfx1011"),
    (0x35, "gfx1012"),
    (0x36, "gfx1030"),
    (0x37, "gfx1031"),
    (0x38, "gfx1032"),
    (0x39, "gfx1033"),
    (0x3a, "gfx602"),
    (0x3b, "gfx705"),
    (0x3c, "gfx805"),
    (0x3d, "gfx1035"),
    (0x3e, "gfx1034"),
    (0x3f, "gfx90a"),
    (0x40, "gfx940"),
    (0x41, "gfx1100"),
    (0x42, "gfx1013"),
    (0x43, "gfx1150"),
    (0x44, "gfx1103"),
    (0x45, "gfx1036"),
    (0x46, "gfx1101"),
    (0x47, "gfx1102"),
    (0x48, "gfx1200"),
    (0x49, "gfx1250"),
    (0x4a, "gfx1151"),
    (0x4b, "gfx941"),
    (0x4c, "gfx942"),
    (0x4e, "gfx1201"),
    (0x4f, "gfx950"),
    (0x51, "gfx9-generic"),
    (0x52, "gfx10-1-generic"),
    (0x53, "gfx10-3-generic"),
    (0x54, "gfx11-generic"),
    (0x55, "gfx1152"),
    (0x58, "gfx1153"),
    (0x59, "gfx12-generic"),
    (0x5a, "gfx1251"),
    (0x5f, "gfx9-4-generic"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TargetId {
        text.parse().unwrap()
    }

    #[test]
    fn target_ids_are_read_and_written() {
        for text in
            ["gfx950", "gfx90a:xnack+", "gfx942:sramecc+:xnack-", "gfx9-4-generic", "sm_90", "compute_80"]
        {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!(id("gfx942:xnack-:sramecc+"), id("gfx942:sramecc+:xnack-"));
        assert_eq!("sm_90a".parse(), Ok(Target::Cubin { sm: 90 }));
        for text in ["", "gfx", "gfx942:", "gfx942:xnack", "gfx942:fast+", "sm_", "sm_x", "mi300", "gfx9 42"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        let twice = TargetError::FeatureTwice { target: "gfx942:xnack+:xnack+".into(), feature: "xnack" };
        assert_eq!("gfx942:xnack+:xnack+".parse::<TargetId>(), Err(twice));
    }

    #[test]
    fn a_feature_matters_where_both_sides_settle_it() {
        let device = id("gfx942:sramecc+:xnack-");
        for (code, runs) in [
            ("gfx942", true),
            ("gfx942:xnack-", true),
            ("gfx942:sramecc+:xnack-", true),
            ("gfx942:xnack+", false),
            ("gfx942:sramecc-", false),
            ("gfx9-4-generic:xnack-", true),
            ("gfx9-4-generic:xnack+", false),
            ("gfx9-generic", false),
            ("gfx950", false),
        ] {
            assert_eq!(id(code).runs_on(&device), runs, "{code}");
        }
        assert!(id("gfx942:xnack+").runs_on(&id("gfx942")), "the device's feature is not known");
    }

    #[test]
    fn nvidia_machine_code_is_for_a_major_version_and_ptx_for_all_later_ones() {
        let runs = |code: &str, device: &str| {
            code.parse::<Target>().unwrap().runs_on(&device.parse::<Target>().unwrap())
        };
        assert!(runs("sm_80", "sm_89") && !runs("sm_89", "sm_80") && !runs("sm_89", "sm_90"));
        assert!(runs("compute_80", "sm_100") && !runs("compute_100", "sm_90"));
        assert!(!runs("sm_90", "gfx950") && !runs("gfx950", "sm_90"));
    }

    #[test]
    fn flags_as_llvm_writes_them() {
        // llc -mcpu=gfx942, with -mattr=+xnack,+sramecc and -xnack,-sramecc; ABI version 4.
        for (flags, text) in
            [(0x54c, "gfx942"), (0xf4c, "gfx942:sramecc+:xnack+"), (0xa4c, "gfx942:sramecc-:xnack-")]
        {
            assert_eq!(TargetId::from_flags(flags, 4).unwrap().to_string(), text);
        }
        assert_eq!(TargetId::from_flags(0x130, 1).unwrap().to_string(), "gfx908:xnack+");
        assert_eq!(TargetId::from_flags(0x27, 4), Err(TargetError::Number(0x27)));
    }
}
