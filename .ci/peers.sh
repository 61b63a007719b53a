#!/usr/bin/env bash
# Compares the number formats with ml_dtypes: all codes, a million random floats, every tie and its neighbours. Then
# writes the checkpoint fixtures again, and they must be the bytes under version control.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
venv=$target/peers
# Versions are fixed: what a peer does at the edges is part of what is compared.
packages=(numpy==2.4.6 ml_dtypes==0.6.0 gguf==0.19.0)

if [[ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]}" ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    echo "${packages[*]}" > "$venv/packages"
fi

# With all default members, as `cargo test` builds it: nothing is built again.
cargo build --quiet --example codec
"$venv/bin/python" accuracy-core/tests/peers/compare_ml_dtypes.py --codec "$target/debug/examples/codec"

fixtures=$(mktemp -d)
trap 'rm -rf "$fixtures"' EXIT
export PYTHONDONTWRITEBYTECODE=1
"$venv/bin/python" accuracy-core/tests/peers/make_checkpoints.py "$fixtures"
"$venv/bin/python" accuracy-core/tests/peers/make_more_checkpoints.py "$fixtures"
# ggml's own package decodes each type of block, too.
"$venv/bin/python" accuracy-core/tests/peers/make_gguf.py "$fixtures" --gguf
diff -r "$fixtures" accuracy-core/tests/fixtures/checkpoints
echo "checkpoint fixtures: as numpy writes them"
