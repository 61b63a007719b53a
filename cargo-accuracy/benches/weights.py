#!/usr/bin/env python3
"""How long `cargo accuracy weights` takes on a checkpoint of 100,000 tensors in 200 files, and with how much memory.

    python3 -m venv venv && venv/bin/pip install numpy safetensors
    cargo build --release -p cargo-accuracy
    venv/bin/python cargo-accuracy/benches/weights.py target/release/cargo-accuracy

The checkpoint has DeepSeek's names, shapes and FP8 blocks. Its files have their full size (some 680 GB), but only
headers are written: the data are holes, which take no room on disk. The peer is the safetensors package for Python,
which opens every file and asks each tensor's dtype and shape; it says nothing about schemes or what is missing.
Exit status 1 where the fastest run of `weights` takes a second or more, any takes 200 MB or more, or it does not find
what was put in.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

FILES, TENSORS, RUNS = 200, 100_000, 5
MOST_SECONDS, MOST_BYTES = 1.0, 200_000_000
BLOCK = 128
EXPERT = [("gate_proj", 2048, 7168), ("up_proj", 2048, 7168), ("down_proj", 7168, 2048)]

PEER = """
import pathlib, sys
from safetensors import safe_open
count = 0
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors")):
    with safe_open(path, "numpy") as file:
        for name in file.keys():
            tensor = file.get_slice(name)
            tensor.get_shape(), tensor.get_dtype()
            count += 1
print(count)
"""


def tensors():
    """Name, dtype, shape and bytes of 100,000 tensors: 256 experts a layer, and a norm."""
    made = 0
    for layer in range(1000):
        for expert in range(256):
            for proj, rows, cols in EXPERT:
                if made + 3 > TENSORS:
                    for i in range(TENSORS - made):
                        yield f"model.layers.{layer}.norm_{i}.weight", "BF16", [7168], 2 * 7168
                    return
                name = f"model.layers.{layer}.mlp.experts.{expert}.{proj}.weight"
                grid = [-(-rows // BLOCK), -(-cols // BLOCK)]
                yield name, "F8_E4M3", [rows, cols], rows * cols
                yield f"{name}_scale_inv", "F32", grid, 4 * grid[0] * grid[1]
                made += 2


def write(folder):
    everything = list(tensors())
    assert len(everything) == TENSORS
    each = TENSORS // FILES
    weight_map, total = {}, 0
    for i in range(FILES):
        name = f"model-{i + 1:05}-of-{FILES:05}.safetensors"
        header, end = {}, 0
        for tensor, dtype, shape, size in everything[i * each : (i + 1) * each]:
            header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            weight_map[tensor] = name
            end += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / name, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        total += end
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]}
    layers = 1 + max(int(name.split(".")[2]) for name, *_ in everything)
    model = {"num_hidden_layers": layers, "quantization_config": config}
    (folder / "config.json").write_text(json.dumps(model))
    return sum(dtype == "F8_E4M3" for _, dtype, _, _ in everything), total


def measure(command):
    """Seconds of the fastest and the slowest of several runs, the least processor time, the most memory, the output."""
    seconds, processor, memory, output = [], [], 0, b""
    for _ in range(RUNS):
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - began)
        processor.append(usage.ru_utime + usage.ru_stime)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command[0]} ended with {process.returncode}")
        memory = max(memory, usage.ru_maxrss * 1024)
    return min(seconds), max(seconds), min(processor), memory, output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="the built cargo-accuracy")
    parser.add_argument("--folder", help="where the checkpoint is written [default: the system's temporary folder]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        weights, total = write(pathlib.Path(folder))
        print(f"{TENSORS} tensors in {FILES} files, {total / 1e9:.0f} GB, {weights} of them FP8 weights; {RUNS} runs each")
        print(f"{'':40} {'fastest':>9} {'slowest':>9} {'processor':>10} {'resident':>10}")
        commands = {
            "cargo accuracy weights": [args.binary, "weights", folder],
            "cargo accuracy weights --format json": [args.binary, "weights", folder, "--format", "json"],
            "safetensors for Python, tensors listed": [sys.executable, "-c", PEER, folder],
        }
        measured = {what: measure(command) for what, command in commands.items()}
        failed = False
        for what, (fastest, slowest, processor, memory, _) in measured.items():
            print(f"{what:40} {fastest:7.2f} s {slowest:7.2f} s {processor:8.2f} s {memory / 1e6:7.0f} MB")
            if what.startswith("cargo"):
                failed |= fastest >= MOST_SECONDS or memory >= MOST_BYTES
        found = json.loads(measured["cargo accuracy weights --format json"][-1])
        quantized = [w for w in found["weights"] if w["scheme"] == "fp8" and w["granularity"] == "block 128x128"]
        assert int(measured["safetensors for Python, tensors listed"][-1]) == TENSORS
        if len(quantized) != weights or found["findings"] or found["tensors"] != TENSORS:
            print(f"found {len(quantized)} weights of {weights}, and {found['findings'][:3]}")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
