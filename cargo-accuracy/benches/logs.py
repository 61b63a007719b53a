#!/usr/bin/env python3
"""How long `cargo accuracy logs` takes on a server's log of 1 GB, and with how much memory.

    cargo build --release -p cargo-accuracy
    python3 cargo-accuracy/benches/logs.py target/release/cargo-accuracy

Lines as vLLM, SGLang and AITER write them, one in 100,000 of which a rule is about. The peers, on the same file in the same
run: GNU grep counting lines with any of the rules' fixed texts, which says neither which rule nor how often each, and
reading alone. Needs 1 GB of disk in TMPDIR and Python 3.11. Exit status 1 where the slowest run takes three seconds or more, or the
findings are not those that were written.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import tomllib

SIZE, RUNS = 1_000_000_000, 3
RULES = pathlib.Path(__file__).parents[1] / "src" / "logs" / "rules"
ORDINARY = [
    "INFO 11-20 08:{m:02}:{s:02} [loggers.py:123] Engine 000: Avg prompt throughput: {x}.3 tokens/s, Running: {m} reqs, "
    "Waiting: 0 reqs, GPU KV cache usage: {s}.1%, Prefix cache hit rate: 0.0%",
    'INFO:     10.0.0.{s}:4{x} - "POST /v1/completions HTTP/1.1" 200 OK',
    "[2026-11-20 08:{m:02}:{s:02} TP0] Decode batch. #running-req: {m}, #token: {x}, token usage: 0.{s:02}, gen throughput "
    "(token/s): {x}.71, #queue-req: 0",
    "[aiter] [fused_moe] using 2stage (kernelName1='moe1', kernelName2='moe2') for ({m}, 256, 7168, 2048, {s}, 8)",
    "DEBUG 11-20 08:{m:02}:{s:02} [scheduler.py:211] scheduled {x} tokens for request cmpl-{x}{m}{s}-0",
]
ODD = {
    "aiter-jit-build-failed": "[aiter] failed jit build [module_quant]",
    "aiter-other-arch": "[aiter] [module_quant] prebuilt .so targets ['gfx942'] but not the running arch gfx950; rebuilding",
}


def write(path):
    """The log, and how often each rule has to be found in it."""
    rng = random.Random(0)
    block = "".join(
        rng.choice(ORDINARY).format(m=rng.randrange(60), s=rng.randrange(60), x=rng.randrange(9999)) + "\n"
        for _ in range(99_999)
    ).encode()
    written, count = 0, dict.fromkeys(ODD, 0)
    with open(path, "wb") as out:
        while written < SIZE:
            rule = rng.choice(list(ODD))
            count[rule] += 1
            written += out.write(block) + out.write((ODD[rule] + "\n").encode())
    return count


def measured(command):
    start = time.perf_counter()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    return time.perf_counter() - start, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime, out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        expected = write(folder / "server.log")
        rules = [rule for file in RULES.glob("*.toml") for rule in tomllib.loads(file.read_text()).get("rule", [])]
        texts = folder / "texts"
        texts.write_text("".join(text + "\n" for rule in rules for text in rule.get("contains", [])))
        log = folder / "server.log"
        commands = {
            "cargo accuracy logs": [args.tool.resolve(), "logs", "--report", "json=-", "--quiet", log],
            "grep -c -F, all texts": ["grep", "-c", "-F", "-f", texts, log],
            "reading alone (wc -c)": ["sh", "-c", f"cat {log} | wc -c"],
        }
        print(f"{log.stat().st_size / 1e9:.2f} GB, {len(rules)} rules; {RUNS} runs in turn")
        print(f"{'':24} {'fastest':>8} {'slowest':>8} {'processor':>10} {'resident':>9}")
        results = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                results[name].append(measured(command))
        for name, runs in results.items():
            seconds = [r[0] for r in runs]
            print(f"{name:24} {min(seconds):6.2f} s {max(seconds):6.2f} s {min(r[2] for r in runs):8.2f} s "
                  f"{max(r[1] for r in runs) / 1e6:6.0f} MB")
        mine = results["cargo accuracy logs"]
        found = {f["rule"]: f["count"] for f in json.loads(mine[-1][3])["findings"]}
        print(f"found {found}")
        return 0 if found == expected and max(r[0] for r in mine) < 3 else 1


if __name__ == "__main__":
    sys.exit(main())
