"""Runs the benchmark and PyTorch in turn and prints the tables; see compare.sh."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

PEER = pathlib.Path(__file__).with_name("peer.py")
ROUNDS = 5
TOKENS = (1, 16, 64, 256)


def run(*command):
    """The JSON that a command prints, and how long the whole process took."""
    begin = time.perf_counter()
    output = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    return json.loads(output), time.perf_counter() - begin


def median(results, key):
    return statistics.median(result[key] for result in results)


def in_turn(**commands):
    """Each command ROUNDS times, one after the other; `process` is the time of the whole process."""
    results = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            result, process = run(*command)
            results[name].append(result | {"process": process})
    return results


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(title, *cells):
    print(f"\n{title}\n")
    row(*cells)
    row(*["---"] * len(cells))


def checks(bench, peer, folder):
    head(
        "1. One check of a layer: open, dequantise, multiply, compare (seconds, median of five)",
        "M", "ours", "all in float64", "PyTorch", "ratio", "target", "whole process", "PyTorch's", "ratio",
        "peak beyond the weight", "PyTorch's peak", "observed error", "stated",
    )
    for m in TOKENS:
        results = in_turn(
            ours=(bench, "check", folder, m),
            double=(bench, "check", folder, m, "double"),
            torch=(*peer, "check", folder, m),
        )
        ours, double, torch = (results[name] for name in ("ours", "double", "torch"))
        seconds, theirs = median(ours, "seconds"), median(torch, "seconds")
        process, their_process = median(ours, "process"), median(torch, "process")
        beyond = median(ours, "peak_bytes") - ours[0]["weight_bytes"]
        row(
            m, f"{seconds:.3f}", f"{median(double, 'seconds'):.3f}", f"{theirs:.3f}", f"{seconds / theirs:.3f}",
            "0.2" if m <= 64 else "0.4", f"{process:.3f}", f"{their_process:.2f}", f"{process / their_process:.3f}",
            f"{beyond / 1e6:.0f} MB", f"{median(torch, 'peak_bytes') / 1e6:.0f} MB",
            f"{median(ours, 'observed'):.1e}", f"{median(ours, 'stated'):.1e}",
        )


def verdict(bench, peer):
    rows, columns = 12208, 8192
    results = in_turn(ours=(bench, "verdict", rows, columns), torch=(*peer, "verdict", rows * columns))
    ours, torch = results["ours"], results["torch"]
    seconds, read = median(ours, "seconds"), median(ours, "read_seconds")
    head(
        f"2. The verdict vector of {rows * columns:,} pairs of float32 (seconds)",
        "ours", "reading alone", "share of the bandwidth", "PyTorch float64 cosine", "ratio", "PyTorch's float32 cosine",
    )
    row(
        f"{seconds:.3f}", f"{read:.3f}", f"{read / seconds:.2f}", f"{median(torch, 'seconds'):.2f}",
        f"{seconds / median(torch, 'seconds'):.3f}", f"{torch[0]['float32_cos']:.6f} (of {torch[0]['cos']:.6f})",
    )


def schemes(bench, n, k):
    names = ("fp8", "mxfp4", "int4", "int8")
    head("3. Schemes at the same shape (seconds; ratio to FP8)", "M", *names)
    for m in TOKENS:
        results = in_turn(**{name: (bench, "synthetic", name, n, k, m, "single") for name in names})
        times = {name: median(results[name], "seconds") for name in names}
        row(m, *(f"{times[name]:.3f} ({times[name] / times['fp8']:.2f})" for name in names))


def scaling(bench):
    head("4. Over a decade of each dimension", "N", "K", "M", "seconds", "per 10^9 multiply-adds", "memory beyond the weight")
    base = (4096, 4096, 32)
    for axis in range(3):
        for factor in (1, 2, 5, 10):
            shape = [size * factor if i == axis else size for i, size in enumerate(base)]
            results = in_turn(ours=(bench, "synthetic", "fp8", *shape, "single"))["ours"]
            seconds = median(results, "seconds")
            n, k, m = shape
            # What goes with M is the caller's: the activations and the output.
            beyond = median(results, "anonymous_bytes") - results[0]["weight_bytes"] - 2 * m * n
            row(n, k, m, f"{seconds:.3f}", f"{seconds / (n * k * m) * 1e9:.3f}", f"{beyond / 1e6:.1f} MB")


def main():
    bench, *shape = sys.argv[1:]
    n, k = (int(size) for size in shape) if shape else (18432, 7168)
    peer = (sys.executable, PEER)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([str(part) for part in (*peer, "make", folder, n, k, *TOKENS)], check=True)
        print(f"w [{n}, {k}], e4m3fn with 128x128 block scales; {subprocess.run(['nproc'], capture_output=True, text=True).stdout.strip()} cores")
        checks(bench, peer, folder)
    verdict(bench, peer)
    schemes(bench, n, k)
    scaling(bench)


if __name__ == "__main__":
    main()
