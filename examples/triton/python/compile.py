"""Kernels in Triton, compiled ahead of time: lib/KERNEL_ARCH.hsaco for gfx942 and gfx950, lib/matmul_sm_90.cubin.

Needs triton 3.4 or later and no GPU: `python python/compile.py`. What a launch needs to know beside the arguments
(threads of a block, shared memory) is printed; src/lib.rs has it as constants.
"""

import pathlib

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "gfx942": (GPUTarget("hip", "gfx942", 64), "hsaco"),
    "gfx950": (GPUTarget("hip", "gfx950", 64), "hsaco"),
    "sm_90": (GPUTarget("cuda", 90, 32), "cubin"),
}


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


@triton.jit
def softmax(y, x, n, BLOCK: tl.constexpr):
    """y [m, n] = the softmax of each row of x [m, n], in bf16; n is at most BLOCK."""
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    scores = tl.load(x + row * n + at, at < n, float("-inf")).to(tl.float32)
    powers = tl.exp(scores - tl.max(scores, 0))
    tl.store(y + row * n + at, (powers / tl.sum(powers, 0)).to(tl.bfloat16), at < n)


@triton.jit
def fp8_quant(codes, scales, x, k, MAX: tl.constexpr, BLOCK: tl.constexpr):
    """Each row of x [m, k] as fp8 codes and a scale; k is at most BLOCK."""
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    values = tl.load(x + row * k + at, at < k, 0.0).to(tl.float32)
    amax = tl.max(tl.abs(values), 0)
    scale = tl.where(amax == 0, 1.0, tl.div_rn(amax, MAX))
    scaled = tl.clamp(tl.div_rn(values, tl.broadcast_to(scale, (BLOCK,))), -MAX, MAX)
    tl.store(codes + row * k + at, scaled.to(codes.dtype.element_ty), at < k)
    tl.store(scales + row, scale)


@triton.jit
def fp8_matmul(y, x, xs, w, ws, m, n, k, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """y [m, n] = x [m, k] @ w [n, k].T in bf16, of fp8 codes with a scale for each row of x and of w."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, k, BLOCK_K):
        at = start + tl.arange(0, BLOCK_K)
        a = tl.load(x + rows[:, None] * k + at[None, :], (rows[:, None] < m) & (at[None, :] < k), 0.0)
        b = tl.load(w + cols[None, :] * k + at[:, None], (cols[None, :] < n) & (at[:, None] < k), 0.0)
        total = tl.dot(a, b, total)
    scales = tl.load(xs + rows, rows < m, 0.0)[:, None] * tl.load(ws + cols, cols < n, 0.0)[None, :]
    out = y + rows[:, None] * n + cols[None, :]
    tl.store(out, (total * scales).to(tl.bfloat16), (rows[:, None] < m) & (cols[None, :] < n))


@triton.jit
def mxfp8_quant(codes, scales, x, k, GROUPS: tl.constexpr):
    """x [m, k] as e4m3fn codes with an e8m0 scale for each 32 columns, rounded as AMD Quark's "even" does."""
    row = tl.program_id(0)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    at = group[:, None] * 32 + tl.arange(0, 32)[None, :]
    values = tl.load(x + row * k + at, at < k, 0.0).to(tl.float32)
    amax = tl.max(tl.abs(values), 1)
    # Half of the last bit that a significand of 3 bits has, then the exponent, less that of the largest code.
    exponent = ((amax.to(tl.int32, bitcast=True) + 0x80000) >> 23) & 0xFF
    scale = tl.where(amax == 0, 127, tl.maximum(exponent - 8, 0))
    inverse = ((254 - scale) << 23).to(tl.float32, bitcast=True)
    scaled = tl.clamp(values * inverse[:, None], -448.0, 448.0)
    tl.store(codes + row * k + at, scaled.to(tl.float8e4nv), at < k)
    tl.store(scales + row * (k // 32) + group, scale.to(tl.uint8), group < k // 32)


@triton.jit
def mx_matmul(
    y, x, xs, w, ws, m, n, k, FORMAT: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):
    """y [m, n] = x [m, k] @ w [n, k].T in bf16, of codes with an e8m0 scale for each 32 of k: x is e4m3fn, w FORMAT, of
    which a byte holds PACKED."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, k, BLOCK_K):
        at = start + tl.arange(0, BLOCK_K)
        a = tl.load(x + rows[:, None] * k + at[None, :], (rows[:, None] < m) & (at[None, :] < k), 0.0)
        byte = start // PACKED + tl.arange(0, BLOCK_K // PACKED)
        inside = (cols[None, :] < n) & (byte[:, None] < k // PACKED)
        b = tl.load(w + cols[None, :] * (k // PACKED) + byte[:, None], inside, 0.0)
        group = start // 32 + tl.arange(0, BLOCK_K // 32)
        valid = group[None, :] < k // 32
        a_scales = tl.load(xs + rows[:, None] * (k // 32) + group[None, :], (rows[:, None] < m) & valid, 127)
        b_scales = tl.load(ws + cols[:, None] * (k // 32) + group[None, :], (cols[:, None] < n) & valid, 127)
        total = tl.dot_scaled(a, a_scales, "e4m3", b, b_scales, FORMAT, total)
    out = y + rows[:, None] * n + cols[None, :]
    tl.store(out, total.to(tl.bfloat16), (rows[:, None] < m) & (cols[None, :] < n))


def kernels(arch):
    """The kernels of an architecture: the name of the file, the function, types of its pointers, constants."""
    blocks = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32}
    yield "matmul", matmul, {"y": "bf16", "x": "bf16", "w": "bf16"}, blocks
    if arch == "sm_90":
        return
    yield "softmax", softmax, {"y": "bf16", "x": "bf16"}, {"BLOCK": 2048}
    # The variant of e4m3 that the architecture's instructions read.
    fp8, largest = ("fp8e4b8", 240.0) if arch == "gfx942" else ("fp8e4nv", 448.0)
    quant = {"codes": fp8, "scales": "fp32", "x": "bf16"}
    yield "fp8_quant", fp8_quant, quant, {"MAX": largest, "BLOCK": 512}
    deep = blocks | {"BLOCK_K": 128}
    operands = {"y": "bf16", "x": fp8, "xs": "fp32", "w": fp8, "ws": "fp32"}
    yield "fp8_matmul", fp8_matmul, operands, deep
    # gfx942 has neither the formats nor the scales: Triton multiplies in bf16 there.
    yield "mxfp8_quant", mxfp8_quant, {"codes": "fp8e4nv", "scales": "u8", "x": "bf16"}, {"GROUPS": 4}
    operands = {"y": "bf16", "x": "fp8e4nv", "xs": "u8", "ws": "u8"}
    mxfp8 = operands | {"w": "fp8e4nv"}
    yield "mxfp8_matmul", mx_matmul, mxfp8, deep | {"FORMAT": "e4m3", "PACKED": 1}
    yield "mxfp4_matmul", mx_matmul, operands | {"w": "u8"}, deep | {"FORMAT": "e2m1", "PACKED": 2}


def main():
    lib = pathlib.Path(__file__).parent.parent / "lib"
    lib.mkdir(exist_ok=True)
    for arch, (target, extension) in TARGETS.items():
        for name, function, pointers, constants in kernels(arch):
            signature = {arg: f"*{pointers[arg]}" if arg in pointers else "i32" for arg in function.arg_names}
            signature |= {arg: "constexpr" for arg in constants}
            source = ASTSource(function, signature, constants)
            compiled = triton.compile(source, target=target, options={"num_warps": 4})
            path = lib / f"{name}_{arch}.{extension}"
            path.write_bytes(compiled.asm[extension])
            about = compiled.metadata
            threads = about.num_warps * target.warp_size
            print(f"{path.name}: kernel {about.name}, {threads} threads, {about.shared} bytes of shared memory", flush=True)


main()
