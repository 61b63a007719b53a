#!/usr/bin/env python3
"""Writes one small checkpoint of each scheme, named and packed as its producer does, and the values it holds.

    venv/bin/python accuracy-core/tests/peers/make_checkpoints.py accuracy-core/tests/fixtures/checkpoints

Needs numpy and ml_dtypes and shares nothing with the reader. Each folder has `expected.safetensors`: for an address
that the reader takes, the dequantised values as F64 `[N, K]`; for a large weight `<address>@at` lists the flat indices
that `<address>` holds the values of. Bytes are the same on each run.
"""

import json
import pathlib
import sys

import ml_dtypes
import numpy as np

RNG = np.random.default_rng(7)
E4M3, E5M2, E8M0, E2M1 = (
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e8m0fnu,
    ml_dtypes.float4_e2m1fn,
)
TAGS = {
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(E4M3): "F8_E4M3",
    np.dtype(E5M2): "F8_E5M2",
    np.dtype(E8M0): "F8_E8M0",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int8): "I8",
    np.dtype(np.int32): "I32",
    np.dtype(np.int64): "I64",
}


class Raw:
    """Bytes under a safetensors dtype that numpy has not."""

    def __init__(self, tag, shape, data):
        self.tag, self.shape, self.data = tag, shape, data


def save(path, tensors):
    header, data, at = {}, b"", 0
    for name, tensor in tensors.items():
        if isinstance(tensor, Raw):
            tag, shape, raw = tensor.tag, tensor.shape, tensor.data
        else:
            tag, shape, raw = TAGS[tensor.dtype], list(tensor.shape), np.ascontiguousarray(tensor).tobytes()
        header[name] = {"dtype": tag, "shape": shape, "data_offsets": [at, at + len(raw)]}
        data, at = data + raw, at + len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write(folder, quantization, shards, expected, model=None):
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(model or {})
    if quantization:
        config["quantization_config"] = quantization
    if config:
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if isinstance(shards, dict):
        save(folder / "model.safetensors", shards)
    else:
        weight_map = {}
        for i, tensors in enumerate(shards, 1):
            name = f"model-{i:05}-of-{len(shards):05}.safetensors"
            save(folder / name, tensors)
            weight_map |= dict.fromkeys(tensors, name)
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    save(folder / "expected.safetensors", {k: np.asarray(v) for k, v in expected.items()})


def f64(x):
    return np.asarray(x).astype(np.float64)


def some(values, address):
    """The corners and 200 other values of a large weight."""
    rows, cols = values.shape
    corners = [0, cols - 1, (rows - 1) * cols, rows * cols - 1]
    at = np.unique(np.concatenate([corners, RNG.integers(0, values.size, 200)])).astype(np.int64)
    return {f"{address}@at": at, address: values.reshape(-1)[at]}


def fp8(shape, dtype=E4M3):
    """All finite codes come up."""
    codes = RNG.integers(0, 256, shape).astype(np.uint8)
    values = f64(codes.view(dtype))
    return np.where(np.isfinite(values), codes, 0x38).astype(np.uint8).view(dtype)


def scales(shape, dtype=np.float32):
    """No two alike, no powers of two."""
    return np.exp2(RNG.uniform(-9, 3, shape)).astype(dtype)


def e8m0(shape, as_bytes=True):
    codes = RNG.integers(117, 133, shape).astype(np.uint8)
    return codes if as_bytes else codes.view(E8M0)


def nibbles(shape):
    return RNG.integers(0, 16, shape).astype(np.uint8)


def fp4_bytes(codes):
    return (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8)


def fp4_values(codes):
    return f64(codes.view(E2M1))


def spread(scale, group):
    return np.repeat(f64(scale), group, axis=-1)


def int32_words(codes, order=range(8)):
    """Eight nibbles of the last axis in a word: nibble j holds element order[j]."""
    codes = codes.reshape(*codes.shape[:-1], -1, 8).astype(np.uint32)
    words = np.zeros(codes.shape[:-1], np.uint32)
    for nibble, element in enumerate(order):
        words |= codes[..., element] << np.uint32(4 * nibble)
    return words.view(np.int32)


def int32_words_of_8_bits(codes):
    """Four codes of the last axis in a word, low first."""
    return np.ascontiguousarray(codes.astype(np.uint8)).view("<i4")


def deepseek(out):
    codes, scale = fp8((130, 140)), scales((2, 2))
    values = f64(codes) * f64(scale)[np.arange(130)[:, None] // 128, np.arange(140)[None] // 128]
    norm = RNG.normal(size=16).astype(ml_dtypes.bfloat16)
    name = "model.layers.0.self_attn.kv_a_proj_with_mqa"
    config = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    shards = [{f"{name}.weight": codes, "model.norm.weight": norm}, {f"{name}.weight_scale_inv": scale}]
    write(out / "deepseek_fp8", config, shards, some(values, name))

    codes, scale = fp8((4, 140)), e8m0((1, 2), as_bytes=False)
    values = f64(codes) * np.repeat(f64(scale), 128, axis=1)[:, :140]
    tensors = {f"{name}.weight": codes, f"{name}.weight_scale_inv": scale}
    write(out / "deepseek_ue8m0", config | {"scale_fmt": "ue8m0"}, tensors, {name: values})


def fp8_others(out):
    codes, scale = fp8((8, 24)), scales(())
    tensors = {"m.weight": codes, "m.weight_scale": scale, "m.input_scale": scales(())}
    config = {"quant_method": "fp8", "activation_scheme": "static"}
    write(out / "hf_fp8", config, tensors, {"m": f64(codes) * f64(scale)})

    codes, scale = fp8((8, 24)), scales((8, 1), ml_dtypes.bfloat16)
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}}
    config = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    tensors = {"m.weight": codes, "m.weight_scale": scale, "lm_head.weight": RNG.normal(size=(4, 4)).astype(ml_dtypes.bfloat16)}
    expected = {"m": f64(codes) * f64(scale), "lm_head": f64(tensors["lm_head.weight"])}
    write(out / "compressed_tensors_fp8", config, tensors, expected)

    tensor, channel = scales(()), scales((8,))
    codes = [fp8((8, 24)), fp8((8, 24))]
    tensors = {
        "a.weight": codes[0],
        "a.weight_scale": tensor,
        "a.input_scale": scales(()),
        "b.weight": codes[1],
        "b.weight_scale": channel,
    }
    spec = {"dtype": "fp8_e4m3", "is_dynamic": False, "qscheme": "per_tensor", "ch_axis": None, "group_size": None}
    config = {
        "quant_method": "quark",
        "export": {"kv_cache_group": [], "pack_method": "reorder", "weight_format": "real_quantized"},
        "global_quant_config": {"weight": spec, "input_tensors": spec, "bias": None, "output_tensors": None},
        "layer_quant_config": {"*b": {"weight": spec | {"qscheme": "per_channel", "ch_axis": 0}}},
        "layer_type_quant_config": {},
        "exclude": ["lm_head"],
    }
    expected = {"a": f64(codes[0]) * f64(tensor), "b": f64(codes[1]) * f64(channel)[:, None]}
    write(out / "quark_fp8", config, tensors, expected)


def int8(out):
    codes = RNG.integers(-128, 128, (8, 24)).astype(np.int8)
    zero = RNG.integers(-128, 128, (8, 1)).astype(np.int8)
    scale = scales((8, 1))
    weights = {"num_bits": 8, "type": "int", "strategy": "channel"}
    config = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    tensors = {
        "symmetric.weight": codes,
        "symmetric.weight_scale": scale,
        "asymmetric.weight": codes,
        "asymmetric.weight_scale": scale,
        "asymmetric.weight_zero_point": zero,
    }
    expected = {"symmetric": f64(codes) * f64(scale), "asymmetric": (f64(codes) - f64(zero)) * f64(scale)}
    write(out / "compressed_tensors_int8", config, tensors, expected)


def pack_quantized(out):
    n, k, g = 16, 64, 32
    tensors, expected = {}, {}
    shape = np.array([n, k], np.int64)
    for name in ["symmetric", "asymmetric", "act_order"]:
        signed = RNG.integers(-8, 8, (n, k))
        zero = RNG.integers(-8, 8, (n, k // g)) if name == "asymmetric" else np.zeros((n, k // g), int)
        scale = scales((n, k // g), ml_dtypes.bfloat16)
        groups = RNG.permutation(k) // g if name == "act_order" else np.arange(k) // g
        tensors |= {
            f"{name}.weight_packed": int32_words(signed + 8),
            f"{name}.weight_scale": scale,
            f"{name}.weight_shape": shape,
        }
        if name == "asymmetric":
            tensors[f"{name}.weight_zero_point"] = np.ascontiguousarray(int32_words((zero + 8).T).T)
        if name == "act_order":
            tensors[f"{name}.weight_g_idx"] = groups.astype(np.int32)
        expected[name] = (signed - zero[:, groups]) * f64(scale)[:, groups]
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": g}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    write(out / "compressed_tensors_int4", config, tensors, expected)


def nvfp4(out):
    n, k = 8, 64
    codes, scale, total = nibbles((n, k)), fp8((n, k // 16)), np.array([1337.7], np.float32)
    scale = np.abs(f64(scale)).astype(E4M3)
    product = fp4_values(codes) * spread(scale, 16)
    tensors = {"m.weight_packed": fp4_bytes(codes), "m.weight_scale": scale, "m.weight_global_scale": total, "m.input_global_scale": total}
    weights = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    config = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    write(out / "compressed_tensors_nvfp4", config, tensors, {"m": product / f64(total)})

    total = np.array(0.00231, np.float32)
    tensors = {"m.weight": fp4_bytes(codes), "m.weight_scale": scale, "m.weight_scale_2": total, "m.input_scale": total}
    config = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head", "*router*"]}
    write(out / "modelopt_nvfp4", config, tensors, {"m": product * f64(total)})


def mx(out):
    n, k = 8, 96
    codes, scale = nibbles((n, k)), e8m0((n, k // 32))
    spec = {"dtype": "fp4", "is_dynamic": False, "qscheme": "per_group", "ch_axis": -1, "group_size": 32, "scale_format": "e8m0"}
    config = {
        "quant_method": "quark",
        "export": {"kv_cache_group": [], "pack_method": "reorder"},
        "global_quant_config": {"weight": spec, "input_tensors": spec | {"is_dynamic": True}},
        "exclude": ["lm_head"],
    }
    tensors = {"m.weight": fp4_bytes(codes), "m.weight_scale": scale}
    write(out / "quark_mxfp4", config, tensors, {"m": fp4_values(codes) * spread(scale.view(E8M0), 32)})

    experts, hidden, inner = 3, 64, 4
    name = "model.layers.0.mlp.experts"
    tensors, expected = {}, {}
    for proj, rows, cols in [("gate_up_proj", 2 * inner, hidden), ("down_proj", 4, 32)]:
        codes, scale = nibbles((experts, rows, cols)), e8m0((experts, rows, cols // 32))
        tensors |= {
            f"{name}.{proj}_blocks": fp4_bytes(codes).reshape(experts, rows, cols // 32, 16),
            f"{name}.{proj}_scales": scale,
            f"{name}.{proj}_bias": RNG.normal(size=(experts, rows)).astype(ml_dtypes.bfloat16),
        }
        values = fp4_values(codes) * spread(scale.view(E8M0), 32)
        for e in range(experts):
            expected[f"{name}.{proj}#{e}"] = values[e]
        if proj == "gate_up_proj":
            expected[f"{name}.{proj}#1.gate"] = values[1, 0::2]
            expected[f"{name}.{proj}#1.up"] = values[1, 1::2]
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.embed_tokens", "lm_head"]}
    write(out / "gpt_oss_mxfp4", config, tensors, expected)

    codes, scale = nibbles((experts, 4, 32)), e8m0((experts, 4, 1))
    tensors = {
        "block.0.mlp.mlp1_weight.blocks": fp4_bytes(codes).reshape(experts, 4, 1, 16),
        "block.0.mlp.mlp1_weight.scales": scale,
    }
    values = fp4_values(codes) * spread(scale.view(E8M0), 32)
    write(out / "gpt_oss_original", None, tensors, {"block.0.mlp.mlp1_weight#2": values[2], "block.0.mlp.mlp1_weight#0.up": values[0, 1::2]})

    codes, scale = fp8((4, 64), E5M2), e8m0((4, 2), as_bytes=False)
    tensors = {"m.weight": codes, "m.weight_scale": scale}
    expected = {"m": f64(codes) * spread(scale, 32)}
    for name, dtype, tag in [("a", ml_dtypes.float6_e2m3fn, "F6_E2M3"), ("b", ml_dtypes.float6_e3m2fn, "F6_E3M2")]:
        codes, scale = RNG.integers(0, 64, (4, 64)).astype(np.uint8), e8m0((4, 2))
        bits = np.unpackbits(codes[..., None], axis=-1, count=6, bitorder="little").reshape(-1)
        tensors |= {f"{name}.weight": Raw(tag, [4, 64], np.packbits(bits, bitorder="little").tobytes()), f"{name}.weight_scale": scale}
        expected[name] = f64(codes.view(dtype)) * spread(scale.view(E8M0), 32)
    write(out / "mxfp8_mxfp6", None, tensors, expected)


def gptq(out, bits=4, prefix="gptq"):
    n, k, g = 16, 64, 32
    packed = int32_words if bits == 4 else int32_words_of_8_bits
    for version, minus, checkpoint_format in [("v1", 1, "gptq"), ("v2", 0, "gptq_v2")]:
        tensors, expected = {}, {}
        for name in ["in_order", "act_order"]:
            codes = RNG.integers(0, 1 << bits, (k, n))
            # What is stored has to fit into a code.
            zeros = RNG.integers(minus, (1 << bits) + minus, (k // g, n))
            scale = scales((k // g, n), np.float16)
            groups = RNG.permutation(k) // g if name == "act_order" else np.arange(k) // g
            tensors |= {
                f"{name}.qweight": np.ascontiguousarray(packed(codes.T).T),
                f"{name}.qzeros": packed(zeros - minus),
                f"{name}.scales": scale,
                f"{name}.g_idx": groups.astype(np.int32),
            }
            expected[name] = ((f64(codes) - zeros[groups]) * f64(scale)[groups]).T
        config = {"quant_method": "gptq", "bits": bits, "group_size": g, "desc_act": True, "sym": False, "checkpoint_format": checkpoint_format}
        write(out / f"{prefix}_{version}", config, tensors, {a: np.ascontiguousarray(v) for a, v in expected.items()})


def eight_bits(out):
    gptq(out, 8, "gptq_int8")
    n, g = 16, 32
    tensors, expected = {}, {}
    for name, k in [("symmetric", 64), ("asymmetric", 64), ("filled", 62)]:
        signed = RNG.integers(-128, 128, (n, k))
        groups = -(-k // g)
        zero = RNG.integers(-128, 128, (n, groups)) if name == "asymmetric" else np.zeros((n, groups), int)
        scale = scales((n, groups), ml_dtypes.bfloat16)
        filled = np.pad(signed, ((0, 0), (0, -k % 4)), constant_values=-128)
        tensors |= {
            f"{name}.weight_packed": int32_words_of_8_bits(filled + 128),
            f"{name}.weight_scale": scale,
            f"{name}.weight_shape": np.array([n, k], np.int64),
        }
        if name == "asymmetric":
            tensors[f"{name}.weight_zero_point"] = np.ascontiguousarray(int32_words_of_8_bits((zero + 128).T).T)
        of = np.arange(k) // g
        expected[name] = (signed - zero[:, of]) * f64(scale)[:, of]
    weights = {"num_bits": 8, "type": "int", "strategy": "group", "group_size": g}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    write(out / "compressed_tensors_pack_int8", config, tensors, expected)


def awq(out):
    n, k, g = 16, 64, 32
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    codes, zeros, scale = nibbles((k, n)), nibbles((k // g, n)), scales((k // g, n), np.float16)
    tensors = {"m.qweight": int32_words(codes, order), "m.qzeros": int32_words(zeros, order), "m.scales": scale}
    values = (f64(codes) - np.repeat(f64(zeros), g, axis=0)) * np.repeat(f64(scale), g, axis=0)
    config = {"quant_method": "awq", "bits": 4, "group_size": g, "zero_point": True, "version": "gemm", "modules_to_not_convert": None}
    write(out / "awq", config, tensors, {"m": np.ascontiguousarray(values.T)})


def unquantized(out):
    layer = "model.layers.0"
    qkv = RNG.normal(size=(4 * 4 + 2 * 2 * 4, 16)).astype(ml_dtypes.bfloat16)
    gate_up = RNG.normal(size=(12, 16)).astype(np.float16)
    down = RNG.normal(size=(16, 6)).astype(np.float32)
    tensors = {
        f"{layer}.self_attn.qkv_proj.weight": qkv,
        f"{layer}.mlp.gate_up_proj.weight": gate_up,
        f"{layer}.mlp.down_proj.weight": down,
    }
    model = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    expected = {
        f"{layer}.self_attn.qkv_proj": f64(qkv),
        f"{layer}.self_attn.qkv_proj#q": f64(qkv[:16]),
        f"{layer}.self_attn.qkv_proj#k": f64(qkv[16:24]),
        f"{layer}.self_attn.qkv_proj#v": f64(qkv[24:]),
        f"{layer}.mlp.gate_up_proj#gate": f64(gate_up[:6]),
        f"{layer}.mlp.gate_up_proj#up": f64(gate_up[6:]),
        f"{layer}.mlp.down_proj": f64(down),
        f"{layer}.mlp.down_proj#3..7": f64(down[3:7]),
    }
    write(out / "unquantized", None, tensors, expected, model)


def mixed(out):
    """Several schemes in one checkpoint, told apart by the modules' names."""
    fp8_tensors, fp8_values = {}, {}
    for name, shape in [("l.0.self_attn.o_proj", ()), ("l.0.mlp.gate_proj", (8, 1))]:
        codes, scale = fp8((8, 32)), scales(shape)
        fp8_tensors |= {f"{name}.weight": codes, f"{name}.weight_scale": scale}
        fp8_values[name] = f64(codes) * f64(scale)
    codes, scale = nibbles((8, 32)), np.abs(f64(fp8((8, 2)))).astype(E4M3)
    product = fp4_values(codes) * spread(scale, 16)
    up, total = "l.0.mlp.up_proj", np.array([211.3], np.float32)
    head = RNG.normal(size=(4, 32)).astype(ml_dtypes.bfloat16)

    def group(targets, bits, strategy, **more):
        return {"targets": targets, "weights": {"num_bits": bits, "type": "float", "strategy": strategy} | more}

    config = {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "ignore": ["re:.*lm_head"],
        "config_groups": {
            "group_0": group(["re:.*self_attn.*"], 8, "tensor"),
            "group_1": group(["Linear"], 8, "channel"),
            "group_2": group([up], 4, "tensor_group", group_size=16),
        },
    }
    tensors = fp8_tensors | {
        f"{up}.weight_packed": fp4_bytes(codes),
        f"{up}.weight_scale": scale,
        f"{up}.weight_global_scale": total,
        "lm_head.weight": head,
    }
    expected = fp8_values | {up: product / f64(total), "lm_head": f64(head)}
    write(out / "compressed_tensors_mixed", config, tensors, expected)

    total = np.array(0.0173, np.float32)
    kv = {f"l.0.self_attn.{proj}_proj.{proj}_scale": scales(()) for proj in "kv"}
    tensors = fp8_tensors | kv | {f"{up}.weight": fp4_bytes(codes), f"{up}.weight_scale": scale, f"{up}.weight_scale_2": total}
    config = {
        "quant_method": "modelopt",
        "quant_algo": "MIXED_PRECISION",
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["*lm_head*"],
        "quantized_layers": {
            "l.0.self_attn.o_proj": {"quant_algo": "FP8"},
            "l.0.mlp.gate_proj": {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
            up: {"quant_algo": "NVFP4", "group_size": 16},
        },
    }
    write(out / "modelopt_mixed", config, tensors, fp8_values | {up: product * f64(total)})

    gate = "l.0.mlp.gate_proj"
    config = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head", "l.0.self_attn.o_proj"]}
    tensors = {n: t for n, t in fp8_tensors.items() if gate in n} | {"lm_head.weight": head}
    write(out / "fbgemm_fp8", config, tensors, {gate: fp8_values[gate], "lm_head": f64(head)})

    # DeepSeek-V4: routed experts in FP4, two codes in an int8; the rest in FP8 blocks.
    expert, wo, embed = "layers.0.ffn.experts.0.w1", "layers.0.attn.wo_a", "model.embed_tokens"
    codes, scale = nibbles((4, 64)), e8m0((4, 2), as_bytes=False)
    wo_codes, wo_scale = fp8((130, 16)), e8m0((2, 1), as_bytes=False)
    embedding = RNG.normal(size=(4, 8)).astype(ml_dtypes.bfloat16)
    tensors = {
        f"{expert}.weight": fp4_bytes(codes).view(np.int8),
        f"{expert}.scale": scale,
        f"{wo}.weight": wo_codes,
        f"{wo}.scale": wo_scale,
        "layers.0.norm.scale": RNG.normal(size=16).astype(np.float32),
        f"{embed}.weight": embedding,
    }
    config = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "scale_fmt": "ue8m0"}
    expected = {
        expert: fp4_values(codes) * spread(scale, 32),
        "lm_head": f64(embedding),
    } | some(f64(wo_codes) * np.repeat(f64(wo_scale), 128, axis=0)[:130], wo)
    write(out / "deepseek_v4", config, tensors, expected, {"expert_dtype": "fp4", "tie_word_embeddings": True})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = pathlib.Path(sys.argv[1])
    for make in [deepseek, fp8_others, int8, pack_quantized, nvfp4, mx, gptq, awq, unquantized, mixed, eight_bits]:
        make(target)
