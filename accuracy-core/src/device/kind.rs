//! Which GPU runtimes there are. What one is asked to do is in [`super::gpu`].

use crate::arch::Arch;

/// Name of HIP's stand-in, under which kernel libraries find it, too. The emulator loads it.
pub const STAND_IN: &str = "libamdhip64.so.6";

/// Which runtime a GPU is driven by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Hip,
    Cuda,
}

impl Kind {
    /// The vendor's own runtime for an architecture; none for the host.
    pub fn of(arch: Arch) -> Option<Kind> {
        match arch.name() {
            "host" => None,
            name if name.starts_with("sm_") => Some(Kind::Cuda),
            _ => Some(Kind::Hip),
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Kind::Hip => "hip",
            Kind::Cuda => "cuda",
        }
    }

    /// The environment variables that choose devices.
    pub const fn variables(self) -> &'static str {
        match self {
            Kind::Hip => "HIP_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES",
            Kind::Cuda => "CUDA_VISIBLE_DEVICES",
        }
    }

    /// File names in the order in which they are tried.
    pub(super) const fn libraries(self) -> &'static [&'static str] {
        match self {
            Kind::Hip => &["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"],
            Kind::Cuda => &["libcuda.so.1", "libcuda.so"],
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = String;
    fn from_str(name: &str) -> Result<Kind, String> {
        [Kind::Hip, Kind::Cuda]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| format!("no GPU runtime is called `{name}`; known: hip, cuda"))
    }
}
