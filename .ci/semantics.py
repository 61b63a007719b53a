#!/usr/bin/env python3
"""Compares the emulator with AMD's pseudocode, instruction by instruction.

Usage: .ci/semantics.py EXECUTABLE [--quick] [--only MNEMONIC] [--arch ARCH] [--seed N] [--count N] [--list]

EXECUTABLE is accuracy-core's example `execute`, built with optimisation. The pseudocode is in PyPI's `tinygrad` (its
version is below), installed into a temporary folder; llvm-mc of LLVM 22 turns text into machine code. Exit status 1
if anything differs.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from semantics import suite  # noqa: E402


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("executable", nargs="?", help="the example `execute`; without it nothing is compared (self-check)")
    p.add_argument("--quick", action="store_true", help="a fifth of the vectors, for each change")
    p.add_argument("--only", help="mnemonics, as V_ADD_F32,S_BFE, or how they begin")
    p.add_argument("--arch", choices=("gfx942", "gfx950"))
    p.add_argument("--kind", help="one encoding, as VOP3P")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=0, help="forms for each instruction and architecture")
    p.add_argument("--states", type=int, default=0, help="states for each form")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--list", action="store_true", help="list what cannot be compared")
    p.add_argument("--show", type=int, default=2, help="mismatches shown for each instruction")
    p.add_argument("--tinygrad", help="a folder that has the package, instead of an installation")
    p.add_argument("--llvm-mc", default=os.environ.get("LLVM_MC", "/usr/lib/llvm-22/bin/llvm-mc"))
    return suite.run(p.parse_args())


if __name__ == "__main__":
    sys.exit(main())
