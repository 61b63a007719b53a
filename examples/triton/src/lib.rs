//! A Triton kernel without Triton: `python/matmul.py` compiles it ahead of time, here its code object is launched.

use accuracy_core::prelude::*;

#[code_object("matmul")]
unsafe extern "C" {
    /// `y [m, n] = x [m, k] w [n, k]ᵀ` in bf16. The last two parameters are Triton's own: memory for the whole grid, and
    /// for profiling, of which this kernel uses none.
    #[link_name = "matmul"]
    fn kernel(
        y: DevPtr<bf16>,
        x: DevPtr<bf16>,
        w: DevPtr<bf16>,
        m: i32,
        n: i32,
        k: i32,
        global_scratch: DevPtr<u8>,
        profile_scratch: DevPtr<u8>,
    );
}

/// `BLOCK_M` and `BLOCK_N` of `python/matmul.py`.
const BLOCK: i32 = 32;

/// Launches the kernel on as many blocks as `y` needs, with what `python/matmul.py` prints for the architecture.
///
/// # Errors
/// As of any launch.
///
/// # Safety
/// `y`, `x` and `w` must hold `[m, n]`, `[m, k]` and `[n, k]` elements.
#[expect(clippy::too_many_arguments, reason = "a launch's arguments")]
pub unsafe fn matmul(
    arch: Arch,
    y: DevPtr<bf16>,
    x: DevPtr<bf16>,
    w: DevPtr<bf16>,
    m: i32,
    n: i32,
    k: i32,
    stream: Stream,
) -> Result<()> {
    let (threads, shared) = match arch {
        Arch::Sm90 => (128, 4096),
        Arch::Gfx950 => (256, 8192),
        other => return Err(Error::msg(format!("the kernel was not compiled for {other}"))),
    };
    let blocks = [(m + BLOCK - 1) / BLOCK, (n + BLOCK - 1) / BLOCK, 1].map(|count| count as u32);
    let grid = Grid { blocks, threads: [threads, 1, 1], shared, stream };
    // SAFETY: the caller vouches for the three buffers; the two scratch memories have no bytes.
    unsafe { kernel(grid, y, x, w, m, n, k, DevPtr::null(), DevPtr::null()) }
}
