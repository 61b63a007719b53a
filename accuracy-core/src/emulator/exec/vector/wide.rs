//! Compiles a loop over lanes for this machine's AVX2 and FMA beside what every processor has.

/// Whether this machine has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn is_wide() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Calls an `#[inline(always)]` function from one that may use AVX2 and FMA, where this machine has them.
macro_rules! widest {
    ([$($generic:ident: $bound:path),*] $name:ident($($arg:ident: $type:ty),*) -> $ret:ty) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn wide_version<$($generic: $bound),*>($($arg: $type),*) -> $ret {
            $name($($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        if crate::emulator::exec::vector::wide::is_wide() {
            // SAFETY: `is_wide` says that this machine has the instructions.
            return unsafe { wide_version($($arg),*) };
        }
        $name($($arg),*)
    }};
}
pub(super) use widest;
