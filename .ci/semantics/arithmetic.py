"""The evaluator's own arithmetic against numpy's, where numpy has it: a check of the reference itself."""

import random

import numpy as np

from . import floats, inputs, library
from .floats import MODE

TYPES = {"F16": (np.float16, np.uint16), "F32": (np.float32, np.uint32), "F64": (np.float64, np.uint64)}


def number(base, bits):
    t, u = TYPES[base]
    return np.array([bits], dtype=u).view(t)


def bits(base, x):
    _, u = TYPES[base]
    return int(x.view(u)[0])


def same(f, a, b):
    return a == b or (floats.is_nan(f, a) and floats.is_nan(f, b))


def check(count=4000, seed=7):
    """The number of comparisons; raises where one fails."""
    rng = random.Random(seed)
    MODE.set(0xF0)
    done = 0
    with np.errstate(all="ignore"):
        for base in ("F16", "F32", "F64"):
            f = inputs.FORMATS[base]
            for _ in range(count):
                a, b = inputs.one_value(rng, base), inputs.one_value(rng, base)
                x, y = number(base, a), number(base, b)
                pairs = [("add", floats.add(f, a, b), bits(base, x + y)), ("multiply", floats.mul(f, a, b), bits(base, x * y)),
                         ("divide", floats.divide(f, a, b), bits(base, x / y)), ("sqrt", library.square_root(f, a), bits(base, np.sqrt(x))),
                         ("rint", floats.integral(f, a, floats.NEAREST), bits(base, np.rint(x))),
                         ("floor", floats.integral(f, a, floats.DOWN), bits(base, np.floor(x))),
                         ("fma of one", floats.fma(f, a, f.bias << f.fb, b), bits(base, x + y)),
                         ("fma and zero", floats.fma(f, a, b, f.sign), bits(base, x * y + number(base, f.sign)))]
                for other in ("F16", "F32", "F64"):
                    if other != base:
                        g = inputs.FORMATS[other]
                        got = floats.convert(f, g, a)
                        want = bits(other, x.astype(TYPES[other][0]))
                        if not same(g, got, want):
                            raise AssertionError(f"{base} to {other} of {a:#x}: {got:#x}, numpy has {want:#x}")
                for what, got, want in pairs:
                    done += 1
                    if not same(f, got, want):
                        raise AssertionError(f"{what} in {base} of {a:#x}, {b:#x}: {got:#x}, numpy has {want:#x}")
            directed(rng, f, base, count // 4)
    return done


def directed(rng, f, base, count):
    """Rounding up and down encloses the exact sum and product, and differs by one place where it is not exact."""
    for _ in range(count):
        a, b = inputs.one_value(rng, base), inputs.one_value(rng, base)
        for op in (floats.add, floats.mul):
            results = []
            for r in range(4):
                MODE.set(0xF0 | r | r << 2)
                results.append(op(f, a, b))
            MODE.set(0xF0)
            if any(floats.is_nan(f, x) for x in results):
                continue
            nearest, up, down, zero = (floats.value(f, x) for x in results)
            if not (down <= nearest <= up and zero in (down, up) and abs(zero) == min(abs(down), abs(up))):
                raise AssertionError(f"rounding modes of {a:#x}, {b:#x} in {base}: {[hex(x) for x in results]}")
            if down != up and library_order(f, results[1]) - library_order(f, results[2]) != 1:
                raise AssertionError(f"rounding up and down are not neighbours: {a:#x}, {b:#x} in {base}")


def library_order(f, x):
    m = x & (f.sign - 1)
    return -m if x & f.sign else m
