#!/usr/bin/env python3
"""Compares the emulator with AMD's pseudocode, instruction by instruction.

    cargo build --example execute
    .ci/semantics.py target/debug/examples/execute [--quick] [--only V_ADD_F32,S_BFE] [--arch gfx950] [--seed N]

The evaluator in `.ci/semantics/` shares nothing with the emulator: `language.py` turns the pseudocode into Python,
`floats.py` computes floating point exactly, `forms.py`, `scalar.py` and `memory.py` make instructions as text, which
llvm-mc of LLVM 22 turns into machine code, `inputs.py` draws the values, and `machine.py` describes how the example
`execute` is asked. Where the pseudocode is not what the instruction does, `corrections.py` says what is used instead
and why. The pseudocode itself comes from PyPI's `tinygrad`, which has it from AMD's documents; nothing of it is kept
here.

Exit status: 0 if everything agrees, 1 if something differs. Without EXECUTABLE the pseudocode is run and nothing is
compared.
"""

import argparse
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ["tinygrad==0.14.0", "numpy>=1.26,<3"]


def install(folder):
    """Puts the packages into a folder, once."""
    done = os.path.join(folder, "complete")
    if not os.path.exists(done):
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade", "--target", folder]
        subprocess.run(command + PACKAGES, check=True)
        open(done, "w").close()
    sys.path.insert(0, folder)


def main():
    p = argparse.ArgumentParser(description="Compares the emulator with AMD's pseudocode, instruction by instruction.")
    p.add_argument("executable", nargs="?", help="accuracy-core's example `execute`, built with optimisation")
    p.add_argument("--quick", action="store_true", help="fewer vectors, for each change")
    p.add_argument("--only", help="mnemonics, as V_ADD_F32,S_BFE, or how they begin")
    p.add_argument("--arch", choices=("gfx942", "gfx950"))
    p.add_argument("--kind", help="one encoding, as VOP3P")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=0, help="forms of each instruction on each architecture")
    p.add_argument("--states", type=int, default=0, help="states for each form")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--list", action="store_true", help="list everything that is not compared, and the corrections")
    p.add_argument("--show", type=int, default=2, help="how many differences of each instruction are shown")
    p.add_argument("--packages", default=os.path.join(HERE, "..", "target", "semantics"), help="folder for packages from PyPI")
    p.add_argument("--llvm-mc", default=os.environ.get("LLVM_MC", "/usr/lib/llvm-22/bin/llvm-mc"))
    args = p.parse_args()
    install(args.packages)
    sys.path.insert(0, HERE)
    sys.pycache_prefix = os.path.join(args.packages, "compiled")
    from semantics import suite

    return suite.run(args)


if __name__ == "__main__":
    sys.exit(main())
