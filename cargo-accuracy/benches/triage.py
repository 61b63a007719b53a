#!/usr/bin/env python3
"""How long `cargo accuracy triage` takes on two dumps of 61 layers with four tensors each, 2 GB a dump, and with how
much memory.

    python3 -m venv venv && venv/bin/pip install torch safetensors numpy
    cargo build --release -p cargo-accuracy
    venv/bin/python cargo-accuracy/benches/triage.py target/release/cargo-accuracy

Each layer has its input, the outputs of attention and MLP, and its own output: bfloat16, hidden size 7168. The
candidate is the reference with rounding noise, and one layer's attention is of the neighbouring token. Three peers, on
the same files in the same run: reading every byte, and the usual script (load both, subtract the residual stream,
cosine in float32) with PyTorch. Needs 4 GB of disk in TMPDIR. Exit status 1 where the layer is not named.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

LAYERS, HIDDEN, TOKENS, BAD, RUNS = 61, 7168, 572, 37, 3

PEER = """
import json, pathlib, sys
import torch
from safetensors import safe_open
def load(folder):
    folder = pathlib.Path(folder)
    index = {}
    for line in open(folder / "accuracy_dump.rank0.jsonl"):
        entry = json.loads(line).get("tensor")
        if entry:
            index[entry["module"], entry["kind"]] = entry
    files = {}
    def get(key):
        entry = index[key]
        if entry["file"] not in files:
            files[entry["file"]] = safe_open(folder / entry["file"], "pt")
        return files[entry["file"]].get_tensor(entry["key"]).float().flatten()
    return get
a, b = (load(f) for f in sys.argv[1:])
cos = torch.nn.functional.cosine_similarity
worst = []
for i in range(%d):
    module = f"model.layers.{i}"
    for branch in ("self_attn", "mlp"):
        key = (f"{module}.{branch}", "output")
        worst.append((cos(a(key), b(key), dim=0).item(), i, branch))
    pairs = [(get((module, "output")) - get((module, "input"))) for get in (a, b)]
    worst.append((cos(*pairs, dim=0).item(), i, "layer"))
print(min(worst))
""" % LAYERS


def write(folder):
    """Both dumps, layer by layer. In a process of its own: a child's peak counts what its parent held at the fork."""
    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "hooks"))
    from accuracy_dump import Dumper

    generator = torch.Generator().manual_seed(0)
    dumps = [Dumper(folder / name, rank=0) for name in ("reference", "candidate")]
    ids = [[(7 * i) % 1000 for i in range(TOKENS)]]
    for dump in dumps:
        dump.line("tokens", {"step": 0, "ids": ids})

    def noise(scale):
        return scale * torch.randn(1, TOKENS, HIDDEN, generator=generator)

    stream = noise(1.0)
    for layer in range(LAYERS):
        attention, mlp = noise(0.3), noise(0.3)
        after = stream + attention + mlp
        values = [("input", "", stream), ("output", ".self_attn", attention), ("output", ".mlp", mlp),
                  ("output", "", after)]
        for kind, branch, value in values:
            wrong = value.roll(1, 1) if layer == BAD and branch == ".self_attn" else value
            for dump, tensor in zip(dumps, (value, wrong * (1 + noise(2e-3)))):
                dump.add(f"model.layers.{layer}{branch}", kind, "hidden_states" if kind == "input" else "0", 0,
                         tensor.to(torch.bfloat16))
        stream = after
    for dump in dumps:
        dump.passes = True
        dump.write()
        dump.finish()
        dump.close()


def measured(command):
    start = time.perf_counter()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    return time.perf_counter() - start, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status), out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        return write(args.write)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run([sys.executable, __file__, args.tool, "--write", folder], check=True)
        reference, candidate = folder / "reference", folder / "candidate"
        files = sorted(folder.glob("*/*.safetensors"))
        size = sum(f.stat().st_size for f in files)
        triage = [args.tool.resolve(), "triage", "--reference", reference, "--candidate", candidate, "--report", "json=-"]
        commands = {
            "reading every byte (cat)": ["cat", *files],
            "cargo accuracy triage": [*triage, "--quiet"],
            "PyTorch script, float32": [sys.executable, "-c", PEER, reference, candidate],
        }
        print(f"two dumps, {size / 1e9:.1f} GB together, {LAYERS} layers; median of {RUNS} runs in turn")
        print(f"{'':26} {'seconds':>8} {'GB/s':>6} {'peak resident':>14}")
        results = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                if name.startswith("reading"):
                    start = time.perf_counter()
                    subprocess.run([str(c) for c in command], stdout=subprocess.DEVNULL, check=True)
                    results[name].append((time.perf_counter() - start, 0, 0, b""))
                else:
                    results[name].append(measured(command))
        for name, runs in results.items():
            seconds, memory = statistics.median(r[0] for r in runs), max(r[1] for r in runs)
            resident = f"{memory / 1e6:11.0f} MB" if memory else ""
            print(f"{name:26} {seconds:8.2f} {size / seconds / 1e9:6.2f} {resident:>14}")
        status, out = results["cargo accuracy triage"][-1][2:]
        report = json.loads(out)
        bad = report["bad_layers"]
        print(f"triage: exit status {status}, bad layers {bad}")
        print(f"PyTorch: {results['PyTorch script, float32'][-1][3].decode().strip()}")
        return 0 if bad == [BAD] else 1


if __name__ == "__main__":
    sys.exit(main())
