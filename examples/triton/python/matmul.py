"""A matrix product in Triton, compiled ahead of time: lib/matmul_sm_90.cubin and lib/matmul_gfx950.hsaco.

Needs triton 3.4 or later and no GPU: `python python/matmul.py`. What a launch needs to know beside the arguments
(threads of a block, shared memory) is printed; src/lib.rs has it as constants.
"""

import pathlib

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

BLOCK = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32}
TARGETS = {"sm_90": (GPUTarget("cuda", 90, 32), "cubin"), "gfx950": (GPUTarget("hip", "gfx950", 64), "hsaco")}
POINTERS = ("y", "x", "w")


@triton.jit
def matmul(y, x, w, m, n, k, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """y [m, n] = x [m, k] @ w [n, k].T, in bf16 with float32 sums."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, k, BLOCK_K):
        at = start + inner
        a = tl.load(x + rows[:, None] * k + at[None, :], (rows[:, None] < m) & (at[None, :] < k), 0.0)
        b = tl.load(w + cols[None, :] * k + at[:, None], (cols[None, :] < n) & (at[:, None] < k), 0.0)
        total = tl.dot(a, b, total)
    out = y + rows[:, None] * n + cols[None, :]
    tl.store(out, total.to(tl.bfloat16), (rows[:, None] < m) & (cols[None, :] < n))


def main():
    lib = pathlib.Path(__file__).parent.parent / "lib"
    lib.mkdir(exist_ok=True)
    signature = {name: "*bf16" if name in POINTERS else "i32" for name in matmul.arg_names}
    signature |= {name: "constexpr" for name in BLOCK}
    for arch, (target, extension) in TARGETS.items():
        compiled = triton.compile(ASTSource(matmul, signature, BLOCK), target=target, options={"num_warps": 4})
        path = lib / f"matmul_{arch}.{extension}"
        path.write_bytes(compiled.asm[extension])
        about = compiled.metadata
        threads = about.num_warps * target.warp_size
        print(f"{path.name}: kernel {about.name}, {threads} threads, {about.shared} bytes of shared memory")


main()
