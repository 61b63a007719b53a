#!/usr/bin/env python3
"""Compares the number formats with ml_dtypes: every code, a million random float32, every tie and its neighbours.

    python3 -m venv venv && venv/bin/pip install numpy ml_dtypes
    venv/bin/python accuracy-core/tests/peers/compare_ml_dtypes.py [--codec PATH]

Without --codec it builds and runs the example `codec` of accuracy-core with cargo. Exit status 0: no difference.
"""

import argparse
import subprocess
import sys

import ml_dtypes
import numpy as np

FORMATS = {
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2": ml_dtypes.float8_e5m2,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "bf16": ml_dtypes.bfloat16,
    "f16": np.float16,
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "int8": np.int8,
}
INTEGERS = {"int4", "uint4", "int8"}
BITS = {"bf16": 16, "f16": 16, "e3m2": 6, "e2m3": 6, "e2m1": 4, "int4": 4, "uint4": 4}


def storage(name):
    return np.uint16 if BITS.get(name, 8) == 16 else np.uint8


def codec(command, *args, stdin=b""):
    return subprocess.run([*command, *args], input=stdin, stdout=subprocess.PIPE, check=True).stdout


def decoded_by_peer(name):
    codes = np.arange(1 << BITS.get(name, 8)).astype(storage(name))
    with np.errstate(invalid="ignore"):
        return codes.view(FORMATS[name]).astype(np.float64)


def same(a, b):
    """Equal as values, signs of zeros included, any NaN like any other."""
    return (np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))


def inputs(values):
    """float32: ml_dtypes rounds a float64 to float32 first, and so twice."""
    rng = np.random.default_rng(2024)
    finite = np.unique(values[np.isfinite(values)])
    ties = (finite[1:] + finite[:-1]) / 2
    # Halfway to the value that would follow the largest.
    step = finite[-1] - finite[-2]
    edge = finite[-1] + step / 2
    marks = [finite, ties, [edge, -edge, edge + step, 2 * finite[-1], 1e38, np.inf, -np.inf]]
    with np.errstate(over="ignore"):
        marks = np.concatenate(marks).astype(np.float32)
    near = [marks, np.nextafter(marks, np.float32(np.inf)), np.nextafter(marks, np.float32(-np.inf))]
    smallest, largest = np.log2(np.abs(finite[finite != 0]).min()), np.log2(finite[-1])
    magnitudes = np.exp2(rng.uniform(smallest - 2, largest + 2, 500_000))
    signs = rng.choice([-1.0, 1.0], 500_000)
    uniform = rng.uniform(-1.2, 1.2, 500_000) * finite[-1]
    with np.errstate(over="ignore"):
        return np.concatenate([*near, magnitudes * signs, uniform, [0.0, -0.0, np.nan]]).astype(np.float32)


def known_difference(name, x, ours, theirs):
    """ml_dtypes 0.6 takes everything between 2^-127 and 2^-126 to e8m0 code 1, also where code 0 is nearer."""
    low = (x > 2.0**-127) & (x < 1.5 * 2.0**-127) & (ours == 0) & (theirs == 1)
    return low if name == "e8m0" else np.zeros(x.shape, bool)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", help="the built example")
    args = parser.parse_args()
    command = [args.codec] if args.codec else ["cargo", "run", "-q", "--release", "-p", "accuracy-core", "--example", "codec", "--"]

    failures = 0
    for name, peer in FORMATS.items():
        theirs = decoded_by_peer(name)
        ours = np.frombuffer(codec(command, "decode", name), "<f8")
        wrong = np.flatnonzero(~same(ours, theirs)) if ours.shape == theirs.shape else [-1]
        report = f"{name:9} {theirs.size:6} codes, {len(wrong)} differ"
        for code in wrong[:5]:
            report += f"\n  code {code:#x}: {ours[code]} here, {theirs[code]} there"
        failures += len(wrong)

        if name not in INTEGERS:  # ml_dtypes truncates to integers and wraps around.
            x = inputs(theirs)
            with np.errstate(all="ignore"):
                want = x.astype(peer).view(storage(name)).astype(np.uint32)
            got = np.frombuffer(codec(command, "encode", name, "special", stdin=x.astype("<f8").tobytes()), "<u4")
            nan = np.isnan(theirs)
            differ = (got != want) & ~(nan[got] & nan[want])
            known = differ & known_difference(name, x, got, want)
            wrong = np.flatnonzero(differ & ~known)
            report += f"; {x.size} floats, {len(wrong)} differ"
            if known.any():
                report += f" ({known.sum()} more where ml_dtypes does not take the nearest)"
            for i in wrong[:5]:
                report += f"\n  {x[i]!r}: {got[i]:#x} here, {want[i]:#x} there"
            failures += len(wrong)
        print(report)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
