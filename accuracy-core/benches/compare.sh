#!/usr/bin/env bash
# What a check costs beside PyTorch's: both on the same file, in turn, five times, medians.
#
#   accuracy-core/benches/compare.sh [N K]
#
# PyTorch comes from PyPI into target/bench-venv unless PYTHON names a python that has torch, safetensors and numpy.
# Needs 2 GB of memory for PyTorch, and 150 MB of disk in TMPDIR for the checkpoint.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ -z ${PYTHON:-} ]]; then
    venv=target/bench-venv
    [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet torch==2.15.0 safetensors numpy
    PYTHON=$venv/bin/python
fi
bench=$(cargo bench -p accuracy-core --bench reference --no-run --message-format=json |
    "$PYTHON" -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "reference":
        print(message["executable"])')
exec "$PYTHON" accuracy-core/benches/compare.py "$bench" "$@"
