#!/usr/bin/env python3
"""The emulator's matrix instructions against an implementation in integers that shares nothing with it.

    matrix.py check ENGINE [--tiles N] [--whole N] [--seed S] [--only WORD]    bit for bit against the rules below
    matrix.py mmasim ENGINE [--tiles N] [--only WORD]              against PyPI's mmasim (CDNA3; needs torch)
    matrix.py layouts CALCULATOR                                   layouts against AMD's matrix_calculator.py

ENGINE is the example `matrix` of accuracy-core. `check` computes all results of the first tiles, and those of every
eighth row and fourth column, chosen at random, of the others. It writes one line for each instruction and ends with status 1
after a difference. The layouts of this script are what `check` packs its tiles with, so `layouts` proves both.

The rules (established for CDNA3 by MMA-Sim, arXiv:2511.10909; for CDNA4 they are a model):

- float64, float32: fused multiply-adds over k. int8: exact, modulo 2^32.
- Others: groups of 8 products (xf32: 4; fp8 and smaller: 16). A factor is s * 2^e with s in [1, 2), or a subnormal with
  the least e. A product has the exponent e_a + e_b and is not normalised. Products are cut off at 24 bits below the
  largest exponent, and summed. The sum is aligned with the accumulator and floored at 32 bits, the accumulator at 24.
  Their sum is normalised (least exponent -126), floored at 31 bits, and rounded to nearest even to float32. A product
  of 2^128 or more is infinite.
- fp8 and smaller: products of even and odd k in two sums, which are aligned with each other and floored at 24 bits; an
  accumulator whose exponent is more than 25 below that of the sum is zero.
- Block scales add to the exponents of the products.
"""

import argparse
import ctypes
import importlib.util
import subprocess
import sys
import time

import numpy as np

LANES = 64
NAN32 = 0x7FC00000
NAN64 = 0x7FF8000000000000

# --- Instructions -------------------------------------------------------------------------------------------------


class Instruction:
    """One line of `matrix list`."""

    def __init__(self, line):
        words = line.split()
        self.processor, self.name = words[:2]
        self.m, self.n, self.k, self.blocks = map(int, words[2:6])
        self.a, self.b = words[6:8]
        self.sparse, self.scaled = (word == "true" for word in words[8:10])
        self.fidelity = words[10]
        self.output = {"F64": "f64", "I8": "i32"}.get(self.a, "f32")


SELECTED = ["Fp8", "Bf8", "Fp6", "Bf6", "Fp4"]
BITS = {"F64": 64, "F32": 32, "Xf32": 32, "F16": 16, "Bf16": 16, "Fp8": 8, "Bf8": 8, "I8": 8, "Fp6": 6, "Bf6": 6, "Fp4": 4}

# --- Layouts ------------------------------------------------------------------------------------------------------


def input_place(rows, k_size, blocks, bits, b, i, k):
    """Lane and element within it of A[b][i][k], or of B[b][k][i] where `rows` are columns. Arrays are welcome."""
    groups = LANES // (rows * blocks)
    per_lane = k_size // groups
    # Operands of 256 bits a lane come in two halves of 128 bits, each of which holds half of all k.
    chunk = per_lane // 2 if per_lane * bits == 256 else per_lane
    half, within = np.divmod(k, chunk * groups)
    group, offset = np.divmod(within, chunk)
    return group * rows * blocks + b * rows + i, half * chunk + offset


def output_place(inst, b, i, j):
    """Lane and element (a register, or a pair of them for float64) of D[b][i][j]."""
    height = 1 if inst.output == "f64" else 4
    across = LANES // inst.n
    in_register = -(-LANES * height // (inst.m * inst.n))
    element = b * (inst.m * inst.n // LANES) + i // (height * across) * height + i % height
    lane = b % in_register * inst.n + i // height % across * in_register * inst.n + j
    return lane, element


def blgp_lane(blgp, lane):
    """The lane whose B a lane gets."""
    table = {
        0: lane,
        1: lane & 31,
        2: lane | 32,
        3: (lane + 16) & 63,
        4: lane & 15,
        5: (lane & 15) + 16,
        6: (lane & 15) + 32,
        7: (lane & 15) + 48,
    }
    return table[blgp]


def pack(codes, lane, element, bits, registers):
    """Codes [tile, ...] at lanes and elements [...] as registers [tile, register, lane]."""
    tiles = codes.shape[0]
    flat = codes.reshape(tiles, -1)
    lane, element = lane.reshape(-1), element.reshape(-1)
    if bits >= 8:
        stream = np.zeros((tiles, LANES, registers * 32 // bits), f"<u{bits // 8}")
        stream[:, lane, element] = flat
        words = stream.view("<u4")
    else:
        stream = np.zeros((tiles, LANES, registers * 32), np.uint8)
        for bit in range(bits):
            stream[:, lane, element * bits + bit] = (flat >> np.uint64(bit) & np.uint64(1)).astype(np.uint8)
        words = np.packbits(stream, axis=2, bitorder="little").view("<u4")
    return np.ascontiguousarray(words.transpose(0, 2, 1))


# --- Formats ------------------------------------------------------------------------------------------------------


def decode(kind, processor, codes):
    """Codes as (s, e, bits below the point of s, NaN, infinite); s carries the sign."""
    codes = codes.astype(np.int64)
    if kind in ("F32", "Xf32"):
        codes = codes >> 13 << 13 if kind == "Xf32" else codes
        exponent_bits, fraction, bias = 8, 23, 127
    else:
        exponent_bits, fraction, bias = {
            "F16": (5, 10, 15),
            "Bf16": (8, 7, 127),
            "Fp8": (4, 3, 7),
            "Bf8": (5, 2, 15),
            "Fp6": (2, 3, 1),
            "Bf6": (3, 2, 3),
            "Fp4": (2, 1, 1),
        }[kind]
    sign = codes >> (exponent_bits + fraction) & 1
    field = codes >> fraction & ((1 << exponent_bits) - 1)
    low = codes & ((1 << fraction) - 1)
    nan = np.zeros(codes.shape, bool)
    infinite = np.zeros(codes.shape, bool)
    if kind in ("F32", "Xf32", "F16", "Bf16") or (kind == "Bf8" and processor == "gfx950"):
        top = field == (1 << exponent_bits) - 1
        nan, infinite = top & (low != 0), top & (low == 0)
    elif kind in ("Fp8", "Bf8") and processor == "gfx942":
        bias += 1
        nan = (sign == 1) & (field == 0) & (low == 0)
    elif kind == "Fp8":
        nan = (field == 15) & (low == 7)
    significand = np.where(field > 0, low | 1 << fraction, low)
    significand = np.where(sign == 1, -significand, significand)
    significand = np.where(nan | infinite, 0, significand)
    # An infinity keeps its sign in the significand of the flag below.
    infinite = np.where(infinite, np.where(sign == 1, -1, 1), 0)
    exponent = np.maximum(field, 1) - bias
    if kind == "Xf32":
        significand, fraction = significand // (1 << 13), 10
    return significand, exponent, fraction, nan, infinite


# --- Arithmetic ---------------------------------------------------------------------------------------------------

ZERO = -100000  # exponent of nothing


def bit_length(x):
    """Bits of non-negative integers below 2^62."""
    # float64 is exact up to 2^53, and all that comes here is below.
    return np.frexp(x.astype(np.float64))[1].astype(np.int64)


def shift_down(x, by):
    return x >> np.minimum(by, 62)


def to_float32(x, q):
    """x * 2^q to nearest even, as bits; x is below 2^53."""
    magnitude = np.abs(x)
    exponent = np.maximum(q + bit_length(magnitude) - 1, -126)
    drop = exponent - 23 - q
    down = np.clip(drop, 0, 62)
    kept = magnitude >> down
    rest = magnitude - (kept << down)
    half = np.where(drop > 0, np.int64(1) << np.clip(down - 1, 0, 62), 1)
    up = (drop > 0) & ((rest > half) | ((rest == half) & (kept & 1 == 1)))
    kept = np.where(drop > 0, kept + up, magnitude << np.clip(-drop, 0, 40))
    bits = ((exponent + 126) << 23) + kept
    bits = np.where(kept == 0, 0, np.minimum(bits, 0x7F800000))
    return np.where(x < 0, bits | 1 << 31, bits).astype(np.uint32)


def cut_sum(p, e, fraction, axis=-1):
    """Products p * 2^(e - fraction), cut off at 24 bits below the largest exponent: their sum and that exponent."""
    e = np.where(p == 0, ZERO, e)
    largest = e.max(axis=axis)
    away = np.abs(p) << (24 - fraction)
    away = shift_down(away, np.expand_dims(largest, axis) - e)
    return np.where(p < 0, -away, away).sum(axis=axis), largest


def add_group(s, e, c, drops):
    """Adds s * 2^(e - 24) to float32 bits c."""
    field = c.astype(np.int64) >> 23 & 255
    significand = c.astype(np.int64) & 0x7FFFFF
    significand = np.where(field > 0, significand | 1 << 23, significand)
    significand = np.where(c >> 31 == 1, -significand, significand)
    c_exponent = np.maximum(field, 1) - 127
    top = np.maximum(e, c_exponent)
    s = shift_down(s << 8, top - e)
    own = shift_down(significand << 1, top - c_exponent) << 8
    if drops:
        own = np.where(c_exponent < top - 25, 0, own)
    total = s + own
    exponent = np.maximum(top - 32 + bit_length(np.abs(total)) - 1, -126)
    lost = np.maximum(exponent - 31 - (top - 32), 0)
    return to_float32(total >> lost, top - 32 + lost)


def small_floats(inst, kinds, a, b, c, scale):
    """Groups of products. a [tile, block, m, n or 1, k], b [tile, block, m or 1, n, k], scale likewise or None."""
    sa, ea, fa, nan_a, inf_a = decode(kinds[0], inst.processor, a)
    sb, eb, fb, nan_b, inf_b = decode(kinds[1], inst.processor, b)
    eight = kinds[0] not in ("F16", "Bf16", "Xf32")
    length = 16 if eight else 4 if kinds[0] == "Xf32" else 8
    for k in range(0, a.shape[-1], length):
        g = slice(k, k + length)
        p, e = sa[..., g] * sb[..., g], ea[..., g] + eb[..., g]
        nan = nan_a[..., g] | nan_b[..., g]
        nan = nan | ((inf_a[..., g] != 0) & (sb[..., g] == 0) & (inf_b[..., g] == 0))
        nan = nan | ((inf_b[..., g] != 0) & (sa[..., g] == 0) & (inf_a[..., g] == 0))
        # The sign of an infinite product.
        sign_a = np.where(inf_a[..., g] != 0, inf_a[..., g], np.sign(sa[..., g]))
        sign_b = np.where(inf_b[..., g] != 0, inf_b[..., g], np.sign(sb[..., g]))
        infinite = np.where((inf_a[..., g] != 0) | (inf_b[..., g] != 0), sign_a * sign_b, 0)
        if not eight:
            over = (p != 0) & (e + bit_length(np.abs(p)) - 1 - fa - fb >= 128)
            infinite = np.where(over, np.sign(p), infinite)
            p = np.where(over, 0, p)
        if eight:
            (s0, e0), (s1, e1) = (cut_sum(p[..., h::2], e[..., h::2], fa + fb) for h in (0, 1))
            top = np.maximum(e0, e1)
            s, top = shift_down(s0, top - e0) + shift_down(s1, top - e1), top
        else:
            s, top = cut_sum(p, e, fa + fb)
        nan = nan.any(axis=-1)
        if scale is not None:
            shift, nan_scale = scale[0][..., k // 32], scale[1][..., k // 32]
            top = np.where(top == ZERO, ZERO, top + shift)
            nan = nan | nan_scale
        result = add_group(s, top, c, eight)
        up, down = (infinite > 0).any(axis=-1), (infinite < 0).any(axis=-1)
        c_nan = (c & 0x7FFFFFFF) > 0x7F800000
        up, down = up | (c == 0x7F800000), down | (c == 0xFF800000)
        result = np.where(up, 0x7F800000, np.where(down, 0xFF800000, result))
        c = np.where(nan | c_nan | (up & down), NAN32, result).astype(np.uint32)
    return c


def float32_chain(a, b, c):
    """Fused multiply-adds: the product is exact in float64, the sum is rounded to odd there and then to float32."""
    with np.errstate(all="ignore"):
        a, b = a.view(np.float32).astype(np.float64), b.view(np.float32).astype(np.float64)
        c = c.view(np.float32)
        for k in range(a.shape[-1]):
            p, q = a[..., k] * b[..., k], c.astype(np.float64)
            s = p + q
            t = s - p
            error = (p - (s - t)) + (q - t)
            inexact = np.isfinite(s) & np.isfinite(error) & (error != 0) & (s.view(np.int64) & 1 == 0)
            # One unit towards the exact sum, which makes the last bit odd.
            toward = np.where((error > 0) == (s > 0), 1, -1)
            s = np.where(inexact, (s.view(np.int64) + toward).view(np.float64), s)
            c = s.astype(np.float32)
    bits = c.view(np.uint32)
    return np.where(np.isnan(c), NAN32, bits).astype(np.uint32)


def float64_chain(a, b, c):
    libm = ctypes.CDLL("libm.so.6")
    libm.fma.restype, libm.fma.argtypes = ctypes.c_double, [ctypes.c_double] * 3
    a, b = np.broadcast_arrays(a.view(np.float64), b.view(np.float64))
    c = c.view(np.float64)
    for k in range(a.shape[-1]):
        sums = list(map(libm.fma, a[..., k].ravel().tolist(), b[..., k].ravel().tolist(), c.ravel().tolist()))
        c = np.array(sums).reshape(c.shape)
    return np.where(np.isnan(c), NAN64, c.view(np.uint64)).astype(np.uint64)


def integers(a, b, c):
    a, b = (x.astype(np.uint8).view(np.int8).astype(np.int64) for x in (a, b))
    total = (a * b).sum(axis=-1) + c.astype(np.int64)
    return (total & 0xFFFFFFFF).astype(np.uint32)


# --- Tiles --------------------------------------------------------------------------------------------------------


def random_codes(rng, kind, shape):
    """Codes in several styles, one for each tile: any, of similar size, huge and tiny, subnormal, with NaN and Inf."""
    bits = BITS[kind]
    any_code = rng.integers(0, 1 << 64 if bits == 64 else 1 << bits, shape, np.uint64)
    if kind == "I8":
        return any_code
    fraction, exponent_bits = {
        "F64": (52, 11), "F32": (23, 8), "Xf32": (23, 8), "F16": (10, 5), "Bf16": (7, 8), "Fp8": (3, 4), "Bf8": (2, 5),
        "Fp6": (3, 2), "Bf6": (2, 3), "Fp4": (1, 2),
    }[kind]
    tiles = shape[0]
    most = (1 << exponent_bits) - 1
    style = rng.integers(0, 8, tiles)
    field = np.empty(shape, np.int64)
    for which in range(8):
        here = style == which
        size = (int(here.sum()),) + shape[1:]
        one_each = (size[0],) + (1,) * (len(shape) - 1)
        if which == 0:
            field[here] = rng.integers(0, most, one_each) + rng.integers(-3, 4, size)
        elif which == 1:
            extreme = rng.integers(0, 6, size)
            field[here] = np.where(extreme < 3, extreme, most - extreme + 2)
        elif which == 2:
            field[here] = rng.integers(0, most, size)
        elif which == 3:
            field[here] = 0
        else:
            reach = 12 if which == 4 else 3
            field[here] = (most >> 1) + rng.integers(-reach, reach + 1, size)
    field = np.clip(field, 0, most - 1)
    column = style.reshape((tiles,) + (1,) * (len(shape) - 1))
    # Few significant bits make ties and cancellation.
    low = any_code & np.uint64((1 << fraction) - 1)
    few = rng.integers(0, 3, column.shape) == 0
    low = np.where(few, low >> np.uint64(fraction - 1) << np.uint64(fraction - 1), low)
    sign = any_code >> np.uint64(bits - 1) << np.uint64(bits - 1)
    codes = sign | field.astype(np.uint64) << np.uint64(fraction) | low
    dice = rng.integers(0, 256, shape, np.uint8)
    codes = np.where(dice < 13, np.uint64(0), codes)
    codes = np.where(column == 7, any_code, codes)
    if bits >= 16:
        # Most tiles have neither NaN nor Inf, or all results would be NaN.
        chance = rng.random(column.shape)
        infinity = sign | np.uint64(most << fraction)
        nan = infinity | np.uint64(1 << (fraction - 1)) | low
        codes = np.where((dice == 255) & (chance < 0.3), infinity, codes)
        codes = np.where((dice == 254) & (chance < 0.1), nan, codes)
        top = (codes >> np.uint64(fraction) & np.uint64(most) == most) & (dice < 254)
        codes = np.where(top & (chance > 0.1), codes ^ np.uint64(1 << fraction), codes)
    elif kind in ("Fp8", "Bf8"):
        # No NaN in most tiles: 0x80 of FNUZ, the upper codes of OCP.
        clean = rng.random(column.shape) < 0.85
        bad = (codes == 0x80) | (codes & np.uint64(0x7F) >= (0x7F if kind == "Fp8" else 0x7C))
        codes = np.where(clean & bad, np.uint64(0x38), codes)
    return codes


def random_c(rng, inst, shape, a, b):
    kind = {"f64": "F64", "i32": None, "f32": "F32"}[inst.output]
    if kind is None:
        return rng.integers(0, 1 << 32, shape, np.uint64).astype(np.uint32)
    c = random_codes(rng, kind, shape)
    return c if kind == "F64" else c.astype(np.uint32)


class Tiles:
    """Random tiles of one instruction with its modifiers, as matrices and as registers."""

    def __init__(self, inst, rng, tiles, settings):
        self.inst, self.settings = inst, settings
        m, n, k, blocks = inst.m, inst.n, inst.k, inst.blocks
        if inst.a == "Selected":
            self.kinds = SELECTED[settings["cbsz"]], SELECTED[settings["blgp"]]
        else:
            self.kinds = inst.a, inst.b
        stored = k // 2 if inst.sparse else k
        a = random_codes(rng, self.kinds[0], (tiles, blocks, m, stored))
        b = random_codes(rng, self.kinds[1], (tiles, blocks, n, k))
        self.cancel(rng, a, b, stored)
        c = random_c(rng, inst, (tiles, blocks, m, n), a, b)
        self.a, self.b, self.c = a, b, c
        self.parts = [self.input(a, self.kinds[0], m, stored), self.input(b, self.kinds[1], n, k), self.output(c)]
        self.index = self.scales = None
        if inst.sparse:
            self.index = self.indices(rng, tiles, stored)
        if inst.scaled:
            self.scales = [self.scale(rng, tiles, rows, side) for rows, side in ((m, "scale_a"), (n, "scale_b"))]

    def cancel(self, rng, a, b, stored):
        """In a fifth of the tiles, the second half of the products is the first one negated, all but one of them."""
        if stored < 2 or self.inst.output == "i32" or self.inst.sparse:
            return
        chosen = rng.random(a.shape[0]) < 0.2
        half = stored // 2
        sign = np.uint64(1 << (BITS[self.kinds[0]] - 1))
        negated = a[chosen, ..., :half] ^ sign
        if BITS[self.kinds[0]] == 8:
            negated = np.where(negated == 0x80, np.uint64(0), negated)
        a[chosen, ..., half : 2 * half] = negated
        b[chosen, ..., half : 2 * half] = b[chosen, ..., :half]
        a[chosen, ..., half] = 0

    def input(self, codes, kind, rows, k_size):
        bits, blocks = BITS[kind], self.inst.blocks
        b, i, k = np.meshgrid(np.arange(blocks), np.arange(rows), np.arange(k_size), indexing="ij")
        lane, element = input_place(rows, k_size, blocks, bits, b, i, k)
        registers = -(-k_size * rows * blocks // LANES * bits // 32)
        return pack(codes, lane, element, bits, registers)

    def output_lanes(self):
        inst = self.inst
        b, i, j = np.meshgrid(np.arange(inst.blocks), np.arange(inst.m), np.arange(inst.n), indexing="ij")
        return output_place(inst, b, i, j)

    def output(self, c):
        lane, element = self.output_lanes()
        bits = 64 if self.inst.output == "f64" else 32
        registers = self.inst.m * self.inst.n * self.inst.blocks // LANES * bits // 32
        return pack(c, lane, element, bits, registers)

    def unpack(self, registers):
        """D's registers [tile, register, lane] as a matrix [tile, block, m, n]."""
        lane, element = self.output_lanes()
        if self.inst.output == "f64":
            low, high = registers[:, 2 * element, lane], registers[:, 2 * element + 1, lane]
            return high.astype(np.uint64) << np.uint64(32) | low
        return registers[:, element, lane]

    def indices(self, rng, tiles, stored):
        """Which two of four consecutive elements A holds [tile, m, stored]."""
        inst, settings = self.inst, self.settings
        two = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
        chosen = two[rng.integers(0, 6, (tiles, inst.m, stored // 2))].reshape(tiles, inst.m, stored)
        i, k = np.meshgrid(np.arange(inst.m), np.arange(stored), indexing="ij")
        lane, element = input_place(inst.m, stored, 1, BITS[self.kinds[0]], 0, i, k)
        per_lane = stored * inst.m // LANES
        register = rng.integers(0, 1 << 32, (tiles, LANES), np.uint64)
        start = 2 * per_lane * settings["abid"] if settings["cbsz"] == 0 else 0
        for e in range(per_lane):
            at = np.uint64(2 * e + start)
            here = element.reshape(-1) == e
            values = chosen.reshape(tiles, -1)[:, here].astype(np.uint64)
            lanes = lane.reshape(-1)[here]
            register[:, lanes] = register[:, lanes] & ~(np.uint64(3) << at) | values << at
        self.parts.append(register.astype(np.uint32)[:, None, :])
        return chosen

    def scale(self, rng, tiles, rows, side):
        """E8M0 codes [tile, rows, k / 32]."""
        blocks = self.inst.k // 32
        spread = np.where(rng.random((tiles, 1, 1)) < 0.7, 6, 127)
        codes = 127 + rng.integers(-1000000, 1000001, (tiles, rows, blocks)) * spread // 1000000
        codes = np.where((rng.random(codes.shape) < 0.01) & (rng.random((tiles, 1, 1)) < 0.2), 255, codes)
        lanes = rng.integers(0, 1 << 32, (tiles, LANES), np.uint64)
        at = np.uint64(8 * self.settings[side])
        i, s = np.meshgrid(np.arange(rows), np.arange(blocks), indexing="ij")
        where = (s * rows + i).reshape(-1)
        values = codes.reshape(tiles, -1).astype(np.uint64)
        lanes[:, where] = lanes[:, where] & ~(np.uint64(255) << at) | values << at
        self.parts.append(lanes.astype(np.uint32)[:, None, :])
        return codes

    def matrices(self):
        """A [tile, block, m, n or 1, k] and B [tile, block, m or 1, n, k] as the instruction takes them."""
        inst, settings = self.inst, self.settings
        a, b = self.a, self.b
        if inst.a != "Selected" and not inst.sparse and settings["cbsz"]:
            size = 1 << settings["cbsz"]
            a = a[:, np.arange(inst.blocks) // size * size + settings["abid"]]
        if inst.a != "Selected" and settings["blgp"]:
            # Each lane gets another's registers: find what B is then.
            bb, j, k = np.meshgrid(np.arange(inst.blocks), np.arange(inst.n), np.arange(inst.k), indexing="ij")
            bits = BITS[self.kinds[1]]
            lane, element = input_place(inst.n, inst.k, inst.blocks, bits, bb, j, k)
            held = np.zeros((LANES, element.max() + 1, 3), np.int64)
            held[lane, element] = np.stack([bb, j, k], axis=-1)
            other = held[blgp_lane(settings["blgp"], lane), element]
            b = b[:, other[..., 0], other[..., 1], other[..., 2]]
        a, b = a[:, :, :, None, :], b[:, :, None, :, :]
        if inst.sparse:
            dense = np.arange(self.index.shape[-1]) // 2 * 4 + self.index
            b = np.take_along_axis(b[:, 0], dense[:, :, None, :], axis=-1)[:, None]
        return a, b

    def expected(self, rows, columns):
        """D[tile, block, rows, columns]."""
        inst = self.inst
        a, b = self.matrices()
        a, c = a[:, :, rows], self.c[:, :, rows][..., columns]
        b = b[:, :, rows] if b.shape[2] > 1 else b
        b = b[:, :, :, columns]
        if inst.output == "i32":
            return integers(a, b, c)
        if inst.output == "f64":
            neg = self.settings["neg"]
            flip = [np.uint64((neg >> bit & 1) << 63) for bit in range(3)]
            return float64_chain(a ^ flip[0], b ^ flip[1], c ^ flip[2])
        if inst.a == "F32":
            return float32_chain(a.astype(np.uint32), b.astype(np.uint32), c)
        scale = None
        if inst.scaled:
            codes_a = self.scales[0][:, None, rows, None, :]
            codes_b = self.scales[1][:, None, None, columns, :]
            scale = codes_a + codes_b - 254, (codes_a == 255) | (codes_b == 255)
        return small_floats(inst, self.kinds, a, b, c, scale)

    def engine(self, engine):
        """What the emulator computes."""
        tiles = self.a.shape[0]
        data = np.concatenate([part.reshape(tiles, -1) for part in self.parts], axis=1).astype("<u4").tobytes()
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        command = [engine, "run", self.inst.processor, self.inst.name, *settings]
        done = subprocess.run(command, input=data, capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.decode()}")
        return self.unpack(np.frombuffer(done.stdout, "<u4").reshape(tiles, -1, LANES))


def settings_of(inst, rng):
    """Modifiers that the instruction has, chosen at random."""
    found = dict(cbsz=0, abid=0, blgp=0, neg=0, scale_a=0, scale_b=0)
    if inst.a == "Selected":
        found["cbsz"], found["blgp"] = (int(x) for x in rng.integers(0, 5, 2))
        found["scale_a"], found["scale_b"] = (int(x) for x in rng.integers(0, 4, 2))
    elif inst.sparse:
        sets = 32 // (inst.k * inst.m // LANES)
        found["cbsz"] = int(rng.integers(0, 2))
        found["abid"] = int(rng.integers(0, sets))
    elif inst.output == "f64":
        found["neg"] = int(rng.integers(0, 8))
    elif inst.blocks > 1 or inst.a == "F32":
        found["cbsz"] = int(rng.integers(0, inst.blocks.bit_length()))
        found["abid"] = int(rng.integers(0, 1 << found["cbsz"]))
        found["blgp"] = int(rng.integers(0, 8))
    return found


# --- Commands -----------------------------------------------------------------------------------------------------


def instructions(engine, only):
    lines = subprocess.run([engine, "list"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    found = [Instruction(line) for line in lines]
    return [inst for inst in found if not only or only in f"{inst.processor} {inst.name}"]


def check(args):
    wrong = 0
    for inst in instructions(args.engine, args.only):
        start = time.time()
        rng = np.random.default_rng(args.seed)
        # As many at once as fit in the cache, each lot with modifiers of its own.
        lot = max(1, min(args.tiles, 3_000_000 // (inst.m * inst.n * inst.k * inst.blocks)))
        different, results, nans, infinities, left = 0, 0, 0, 0, args.tiles
        while left:
            # The first tiles are compared whole and have no modifiers.
            begun = args.tiles - left
            whole = begun < args.whole
            count = min(lot if whole else 8 * lot, left, args.whole - begun if whole else left)
            left -= count
            settings = settings_of(inst, rng) if begun else dict.fromkeys(settings_of(inst, rng), 0)
            tiles = Tiles(inst, rng, count, settings)
            rows, columns = np.arange(inst.m), np.arange(inst.n)
            if not whole and inst.m > 4:
                rows = np.sort(rng.choice(inst.m, inst.m // 8, replace=False))
                columns = np.sort(rng.choice(inst.n, inst.n // 4, replace=False))
            expected, found = tiles.expected(rows, columns), tiles.engine(args.engine)[:, :, rows][..., columns]
            bad = (expected != found).any(axis=(1, 2, 3))
            if bad.any() and not different:
                tile = np.flatnonzero(bad)[0]
                block, i, j = np.argwhere(expected[tile] != found[tile])[0]
                at = f"tile {tile} block {block} row {rows[i]} column {columns[j]}, {settings}"
                print(f"  {inst.name}: {expected[tile, block, i, j]:#x} expected, {found[tile, block, i, j]:#x} found: {at}")
            different += int(bad.sum())
            results += expected.size
            if inst.output != "i32":
                values = expected.view(np.float64 if inst.output == "f64" else np.float32)
                nans += int(np.isnan(values).sum())
                infinities += int(np.isinf(values).sum())
        took = time.time() - start
        print(
            f"{inst.processor} {inst.name}: {args.tiles} tiles, {results} results, {different} tiles differ"
            f" (NaN {100 * nans / results:.1f} %, Inf {100 * infinities / results:.1f} %, {took:.0f} s)",
            flush=True,
        )
        wrong += different > 0
    return wrong


def mmasim(args):
    import torch
    from mmasim.amd import MFMA
    from mmasim.amd.isa_mfma import cdna3_mfma_suffix

    kinds = {
        "F64": (torch.float64, np.int64), "F32": (torch.float32, np.int32), "Xf32": (torch.float32, np.int32),
        "F16": (torch.float16, np.int16), "Bf16": (torch.bfloat16, np.int16), "Fp8": (torch.float8_e4m3fnuz, np.uint8),
        "Bf8": (torch.float8_e5m2fnuz, np.uint8),
    }

    def tensor(codes, kind):
        dtype, carrier = kinds[kind]
        width = np.dtype(carrier).itemsize * 8
        raw = (codes & np.uint64(2**width - 1)).astype(f"u{width // 8}").view(carrier)
        return torch.from_numpy(raw.copy()).view(dtype)

    wrong = 0
    for inst in instructions(args.engine, args.only):
        suffix = inst.name.removeprefix("v_mfma_")
        if inst.processor != "gfx942" or suffix not in cdna3_mfma_suffix:
            continue
        model = MFMA("CDNA3", suffix)
        rng = np.random.default_rng(args.seed + 1)
        tiles = Tiles(inst, rng, args.tiles, dict.fromkeys(settings_of(inst, rng), 0))
        found = tiles.engine(args.engine)
        a, b = tiles.matrices()
        shape = found.shape + (a.shape[-1],)
        a, b = (np.broadcast_to(x, shape).reshape(-1, shape[-1]) for x in (a, b))
        c_kind = "F64" if inst.output == "f64" else "F32"
        c = tensor(tiles.c.astype(np.uint64).reshape(-1), c_kind)
        # The dot product is what one element of the result is; leading dimensions are free.
        d = model.dpa(tensor(a, inst.a), tensor(b, inst.b), c).numpy()
        found = found.reshape(-1).view(d.dtype)
        same = (found.view(f"u{d.itemsize}") == d.view(f"u{d.itemsize}")) | (np.isnan(found) & np.isnan(d))
        # Its FP8 sum takes the exponent of an infinite or NaN accumulator from frexp, which gives none, and so leaves the
        # accumulator out beside products of 2^25 and more. IEEE's sum, which is not finite then, says that it is right here.
        ieee = (tensor(a, inst.a).double() * tensor(b, inst.b).double()).sum(-1) + c.double()
        left_out = ~same & np.isfinite(d) & ~np.isfinite(ieee.numpy()) & ~np.isfinite(found)
        same |= left_out
        different = int((~same).sum())
        beside = f", {left_out.sum()} without the accumulator that is not finite there" if left_out.any() else ""
        print(f"{inst.name}: {args.tiles} tiles, {len(d)} results, {different} differ from mmasim{beside}", flush=True)
        if different:
            at = np.flatnonzero(~same)[0]
            print(f"  {d[at]!r} expected, {found[at]!r} found")
        wrong += different > 0
    return wrong


def layouts(args):
    spec = importlib.util.spec_from_file_location("matrix_calculator", args.calculator)
    calculator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calculator)
    tables = [v for v in vars(calculator).values() if isinstance(v, dict) and isinstance(v.get("cdna3"), dict)]
    wrong = 0
    for name, info in tables[0]["cdna3"].items():
        kind = {
            "fp64": "F64", "fp32": "F32", "xf32": "Xf32", "fp16": "F16", "bf16": "Bf16", "int8": "I8",
            "amd_fp8": "Fp8", "amd_bf8": "Bf8",
        }[info["in_type"]]
        sparse = info["sparse"]
        line = f"gfx942 {name} {info['m']} {info['n']} {info['k']} {info['blocks']} {kind} {kind}"
        inst = Instruction(f"{line} {str(sparse).lower()} false Exact")
        ask = calculator.InstCalcGfx9(name, {**info, "arch": "cdna3"}, 64)
        bits, compared, different = BITS[kind], 0, 0
        cases = [(0, 0, 0)]
        if info["cbsz_abid"] and not sparse:
            cases += [(c, a, 0) for c in range(1, inst.blocks.bit_length()) for a in range(1 << c)]
        if info["cbsz_abid"] and sparse:
            cases += [(c, a, 0) for c in range(2) for a in range(32 // (inst.k * inst.m // LANES))]
        if info["blgp"] and kind != "F64":
            cases += [(0, 0, blgp) for blgp in range(1, 8)]
        for cbsz, abid, blgp in cases:
            for matrix in "abdk" if sparse else "abd":
                for block in range(inst.blocks):
                    for at in places(inst, matrix):
                        compared += 1
                        _, register, lanes = ask._get_reg_lanes(
                            matrix, at.get("i", 0), at.get("j", 0), at.get("k", 0), block,
                            cbsz if matrix in "ak" else 0, abid if matrix in "ak" else 0, blgp if matrix == "b" else 0, 0,
                        )
                        ours = our_place(inst, matrix, block, at, bits, cbsz, abid, blgp)
                        if (register, lanes) != ours:
                            if not different:
                                print(f"  {name} {matrix} {at} block {block}: {register} {lanes}, here {ours}")
                            different += 1
        print(f"{name}: {compared} places, {different} differ", flush=True)
        wrong += different > 0
    return wrong


def places(inst, matrix):
    if matrix == "d":
        return [dict(i=i, j=j) for i in range(inst.m) for j in range(inst.n)]
    if matrix == "b":
        return [dict(j=j, k=k) for j in range(inst.n) for k in range(inst.k)]
    return [dict(i=i, k=k) for i in range(inst.m) for k in range(inst.k)]


def our_place(inst, matrix, block, at, bits, cbsz, abid, blgp):
    """Register and lanes as the calculator writes them."""
    if matrix == "d":
        lane, element = output_place(inst, block, at["i"], at["j"])
        return (f"v[{2 * element + 1}:{2 * element}]" if inst.output == "f64" else f"v{element}"), [lane]
    if matrix == "b":
        lane, element = input_place(inst.n, inst.k, inst.blocks, bits, block, at["j"], at["k"])
        lane = blgp_lane(blgp, lane)
    else:
        k, size = (at["k"] // 2, inst.k // 2) if inst.sparse else (at["k"], inst.k)
        if not inst.sparse and cbsz:
            block = block >> cbsz << cbsz | abid
        lane, element = input_place(inst.m, size, inst.blocks, bits, block, at["i"], k)
    if matrix == "k":
        start = 2 * (inst.k * inst.m // 2 // LANES) * abid if cbsz == 0 else 0
        low = int(start + element // 2 * 4)
        return f"v0.[{low + 3}:{low}]", [lane]
    if bits == 64:
        return f"v[{2 * element + 1}:{2 * element}]", [lane]
    if bits == 32:
        return f"v{element}", [lane]
    register, within = divmod(int(element), 32 // bits)
    if inst.sparse and matrix == "a":
        # The calculator names the pair of elements that four values of k are stored in.
        pair = within // 2
        return (f"v{register}" if bits == 16 else f"v{register}.[{16 * pair + 15}:{16 * pair}]"), [lane]
    return f"v{register}.[{bits * within + bits - 1}:{bits * within}]", [lane]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run, tiles in (("check", check, 10_000), ("mmasim", mmasim, 200)):
        command = commands.add_parser(name)
        command.add_argument("engine")
        command.add_argument("--tiles", type=int, default=tiles)
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--whole", type=int, default=100, help="tiles of which all results are compared")
        command.add_argument("--only", help="instructions whose processor and name contain this")
        command.set_defaults(run=run)
    command = commands.add_parser("layouts")
    command.add_argument("calculator")
    command.set_defaults(run=layouts)
    args = parser.parse_args()
    sys.exit(1 if args.run(args) else 0)


if __name__ == "__main__":
    main()
