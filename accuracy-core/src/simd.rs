//! Which vector instructions this machine has; what is computed with them is in [`crate::reference::stream`] and
//! [`crate::metrics`].

use std::sync::OnceLock;

/// A set of vector instructions that inner loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, DQ, VL and VBMI: 512 bits, and lookups in tables of 128 bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA: 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Advanced SIMD: 128 bits.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// What the compiler makes of loops over arrays.
    Plain,
}

impl Isa {
    /// The widest one that this machine has.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::available()[0])
    }

    /// All that this machine has, the widest first.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("fma")
            {
                found.push(Isa::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Isa::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            found.push(Isa::Neon);
        }
        found.push(Isa::Plain);
        found
    }
}

/// Brings the cache line of an address that is soon read into the second-level cache.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    // SAFETY: a hint, which every x86-64 has; it reads nothing and takes any address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Compiles a loop once for each set of instructions: `multiversion!(isa, name, [generics], (arguments) -> type)` calls
/// the `#[inline(always)]` function `name` from a function that may use them.
macro_rules! multiversion {
    ($isa:expr, $name:ident, [$($generic:ident: $bound:path),*], ($($arg:ident: $type:ty),*) -> $ret:ty) => {{
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx512 => {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma")]
                fn wide<$($generic: $bound),*>($($arg: $type),*) -> $ret {
                    $name($($arg),*)
                }
                // SAFETY: an `Isa` is only made where the machine has its instructions.
                unsafe { wide($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx2 => {
                #[target_feature(enable = "avx2,fma")]
                fn wide<$($generic: $bound),*>($($arg: $type),*) -> $ret {
                    $name($($arg),*)
                }
                // SAFETY: as above.
                unsafe { wide($($arg),*) }
            }
            // What the others need the target has anyway.
            _ => $name($($arg),*),
        }
    }};
}
pub(crate) use multiversion;
