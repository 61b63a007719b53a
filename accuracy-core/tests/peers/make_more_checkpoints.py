#!/usr/bin/env python3
"""Writes one small checkpoint of each scheme of a single producer, as `make_checkpoints.py` does of the common ones.

    venv/bin/python accuracy-core/tests/peers/make_more_checkpoints.py accuracy-core/tests/fixtures/checkpoints

Needs numpy and ml_dtypes and shares nothing with the reader: each folder has the values as well.
"""

import json
import pathlib
import sys

import ml_dtypes
import numpy as np

import make_checkpoints as common
from make_checkpoints import (
    E4M3, RNG, Raw, e8m0, f64, fp4_bytes, fp4_values, fp8, int32_words, int32_words_of_8_bits, nibbles, save, scales,
    spread, write,
)

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def signed_nibbles(shape):
    return RNG.integers(-8, 8, shape)


def modelopt(out):
    """NVFP4 without activations, with a factor of the input, with a low-rank product; int4 along N; FP8 in blocks."""
    n, k = 8, 64
    tensors, expected, layers = {}, {}, {}

    def nvfp4(name, algorithm):
        codes, scale, total = nibbles((n, k)), np.maximum(np.abs(f64(fp8((n, k // 16)))), 0.0625).astype(E4M3), np.array(0.0173, np.float32)
        tensors[f"{name}.weight"] = fp4_bytes(codes)
        tensors[f"{name}.weight_scale"] = scale
        tensors[f"{name}.weight_scale_2"] = total
        expected[name] = fp4_values(codes) * spread(scale, 16) * f64(total)
        layers[name] = {"quant_algo": algorithm, "group_size": 16}

    nvfp4("l.0.q_proj", "W4A16_NVFP4")
    nvfp4("l.0.k_proj", "NVFP4_AWQ")
    tensors["l.0.k_proj.pre_quant_scale"] = scales((k,), ml_dtypes.bfloat16)
    nvfp4("l.0.v_proj", "NVFP4_SVD")
    tensors["l.0.v_proj.svdquant_lora_a"] = RNG.normal(size=(4, k)).astype(ml_dtypes.bfloat16)
    tensors["l.0.v_proj.svdquant_lora_b"] = RNG.normal(size=(n, 4)).astype(ml_dtypes.bfloat16)
    nvfp4("l.0.o_proj", "W4A8_NVFP4_FP8")
    tensors["l.0.o_proj.input_scale"] = scales(())
    for name, algorithm in [("l.0.gate_proj", "W4A16_AWQ"), ("l.0.up_proj", "W4A8_AWQ")]:
        # Two rows share a byte, the even one in the low nibble.
        codes, scale = signed_nibbles((n, k)), scales((n, k // 32))
        tensors[f"{name}.weight"] = ((codes[0::2] & 15) | (codes[1::2] & 15) << 4).astype(np.uint8)
        tensors[f"{name}.weight_scale"] = scale
        expected[name] = codes * spread(scale, 32)
        layers[name] = {"quant_algo": algorithm, "group_size": 32, "has_zero_point": False, "pre_quant_scale": True}
        tensors[f"{name}.pre_quant_scale"] = scales((k,), ml_dtypes.bfloat16)
    tensors["l.0.up_proj.weight_scale_2"] = scales(())
    tensors["l.0.up_proj.input_scale"] = scales(())
    codes, scale = fp8((32, 64)), scales((2, 1, 4, 1))
    tensors |= {"l.0.down_proj.weight": codes, "l.0.down_proj.weight_scale": scale}
    expected["l.0.down_proj"] = f64(codes) * np.repeat(np.repeat(f64(scale).reshape(2, 4), 16, 0), 16, 1)
    layers["l.0.down_proj"] = {"quant_algo": "FP8_PB_WO"}
    codes, scale = nibbles((n, k)), e8m0((n, k // 32))
    tensors |= {"l.0.experts.weight": fp4_bytes(codes), "l.0.experts.weight_scale": scale, "l.0.experts.input_scale": scales(())}
    expected["l.0.experts"] = fp4_values(codes) * spread(scale.view(common.E8M0), 32)
    layers["l.0.experts"] = {"quant_algo": "W4A8_MXFP4_FP8", "group_size": 32}
    codes, scale = RNG.integers(-128, 128, (n, k)).astype(np.int8), scales((n,))
    tensors |= {"l.0.gate.weight": codes, "l.0.gate.weight_scale": scale}
    expected["l.0.gate"] = f64(codes) * f64(scale)[:, None]
    layers["l.0.gate"] = {"quant_algo": "W8A16"}
    config = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None, "quantized_layers": layers}
    write(out / "modelopt_all", config, tensors, expected)


def layered(out):
    """FP8 blocks for all that is not named, NVFP4 for the experts; `ignore` is of the latter alone."""
    tensors, expected = {}, {}
    codes, scale = fp8((32, 64)), e8m0((2, 4), as_bytes=False)
    for name in ["layers.0.attn.wo_a", "layers.0.ffn.shared_experts.w1"]:
        tensors |= {f"{name}.weight": codes, f"{name}.scale": scale}
        expected[name] = f64(codes) * np.repeat(np.repeat(f64(scale), 16, 0), 16, 1)
    codes, scale, total = nibbles((8, 32)), np.maximum(np.abs(f64(fp8((8, 2)))), 0.0625).astype(E4M3), np.array(0.004, np.float32)
    name = "layers.0.ffn.experts.3.w2"
    tensors |= {f"{name}.weight": fp4_bytes(codes), f"{name}.weight_scale": scale, f"{name}.weight_scale_2": total, f"{name}.input_scale": total}
    expected[name] = fp4_values(codes) * spread(scale, 16) * f64(total)
    head = RNG.normal(size=(4, 32)).astype(ml_dtypes.bfloat16)
    tensors["head.weight"] = head
    expected["head"] = f64(head)
    weights = {"dynamic": False, "group_size": 16, "num_bits": 4, "type": "float"}
    config = {
        "quant_method": "fp8", "quant_algo": "MIXED_PRECISION", "moe_quant_algo": "NVFP4", "activation_scheme": "dynamic",
        "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [16, 16], "group_size": 16,
        "ignore": ["*.attn.*", "*.ffn.shared_experts.*", "head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": weights}},
        "quantized_layers": {"layers.0.ffn.experts": {"group_size": 16, "quant_algo": "NVFP4"}},
    }
    write(out / "layered", config, tensors, expected, {"expert_dtype": "fp4"})


def quark(out):
    """Blocks with e8m0 scales, int4 of groups and of channels, int8 of groups."""
    tensors, expected, layers = {}, {}, {}

    def layer(name, **weight):
        layers[name] = {"weight": weight | {"is_dynamic": False}, "input_tensors": None}

    codes, scale = fp8((32, 64)), e8m0((2, 4), as_bytes=False)
    tensors |= {"block.weight": codes, "block.weight_scale": scale}
    expected["block"] = f64(codes) * np.repeat(np.repeat(f64(scale), 16, 0), 16, 1)
    layer("block", dtype="fp8_e4m3", qscheme="per_block", block_size=[16, 16], scale_type="float8_e8m0fnu")

    n, k, g = 16, 64, 32
    codes, scale = signed_nibbles((n, k)), scales((k // g, n), np.float16)
    # Transposed, in AWQ's order along N.
    tensors |= {"group.weight": int32_words(codes.T & 15, AWQ_ORDER), "group.weight_scale": scale}
    expected["group"] = codes * np.repeat(f64(scale), g, 0).T
    layer("group", dtype="int4", qscheme="per_group", group_size=g, symmetric=True)

    codes, scale, zeros = nibbles((n, k)), scales((k // g, n), np.float16), nibbles((k // g, n))
    tensors |= {
        "unsigned.weight": int32_words(codes.T, AWQ_ORDER),
        "unsigned.weight_scale": scale,
        "unsigned.weight_zero_point": int32_words(zeros, AWQ_ORDER),
    }
    expected["unsigned"] = (f64(codes) - np.repeat(f64(zeros), g, 0).T) * np.repeat(f64(scale), g, 0).T
    layer("unsigned", dtype="uint4", qscheme="per_group", group_size=g, symmetric=False)

    codes, scale = signed_nibbles((n, k)), scales((n,))
    tensors |= {"channel.weight": int32_words(codes & 15, AWQ_ORDER), "channel.weight_scale": scale}
    expected["channel"] = codes * f64(scale)[:, None]
    layer("channel", dtype="int4", qscheme="per_channel", ch_axis=0, symmetric=True)

    codes, scale = RNG.integers(-128, 128, (n, k)).astype(np.int8), scales((k // g, n))
    tensors |= {"int8.weight": np.ascontiguousarray(codes.T), "int8.weight_scale": scale}
    expected["int8"] = f64(codes) * np.repeat(f64(scale), g, 0).T
    layer("int8", dtype="int8", qscheme="per_group", group_size=g, symmetric=True)
    mx = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0", "is_dynamic": False}
    codes, scale = nibbles((n, k)), e8m0((n, k // 32))
    tensors |= {"mx.weight": fp4_bytes(codes), "mx.weight_scale": scale}
    expected["mx"] = fp4_values(codes) * spread(scale.view(common.E8M0), 32)
    config = {"quant_method": "quark", "global_quant_config": {"weight": mx}, "layer_quant_config": layers, "exclude": ["lm_head"], "export": {"pack_method": "reorder"}}
    write(out / "quark_all", config, tensors, expected)


def bits_along_rows(codes, bits):
    """Codes `[R, C]` as a stream of bits down each column, the lowest first, in int32."""
    stream = (codes[:, None, :] >> np.arange(bits)[None, :, None] & 1).reshape(-1, codes.shape[1])
    words = (stream.reshape(-1, 32, codes.shape[1]).astype(np.uint64) << np.arange(32, dtype=np.uint64)[None, :, None]).sum(1)
    return np.ascontiguousarray(words.astype(np.uint32).view(np.int32))


def auto_round(out):
    """The three packings; the first with modules of other bits."""
    n, k, g = 32, 64, 32
    for folder, packing, minus in [("auto_round_gptq", "auto_round:auto_gptq", 1), ("auto_round_plain", "auto_round", 0)]:
        tensors, expected, extra = {}, {}, {}
        for name, bits in [("l.0.q_proj", 4), ("l.0.k_proj", 2), ("l.0.v_proj", 3), ("l.0.o_proj", 8)]:
            codes = RNG.integers(0, 1 << bits, (k, n))
            zeros = RNG.integers(minus, (1 << bits) + minus, (k // g, n))
            scale = scales((k // g, n), np.float16)
            tensors |= {
                f"{name}.qweight": bits_along_rows(codes, bits),
                f"{name}.qzeros": np.ascontiguousarray(bits_along_rows((zeros - minus).T, bits).T),
                f"{name}.scales": scale,
            }
            expected[name] = np.ascontiguousarray(((f64(codes) - np.repeat(zeros, g, 0)) * np.repeat(f64(scale), g, 0)).T)
            if bits != 4:
                extra[name] = {"bits": bits}
        dense = RNG.normal(size=(4, 8)).astype(ml_dtypes.bfloat16)
        tensors["l.0.gate.weight"] = dense
        expected["l.0.gate"] = f64(dense)
        extra["l.0.gate"] = {"bits": 16, "data_type": "float"}
        config = {"quant_method": "auto-round", "bits": 4, "group_size": g, "sym": False, "data_type": "int", "packing_format": packing, "extra_config": extra}
        write(out / folder, config, tensors, expected)
    codes, zeros, scale = nibbles((k, n)), nibbles((k // g, n)), scales((k // g, n), np.float16)
    tensors = {"m.qweight": int32_words(codes, AWQ_ORDER), "m.qzeros": int32_words(zeros, AWQ_ORDER), "m.scales": scale}
    values = (f64(codes) - np.repeat(f64(zeros), g, axis=0)) * np.repeat(f64(scale), g, axis=0)
    config = {"quant_method": "auto-round", "bits": 4, "group_size": g, "sym": False, "data_type": "int", "packing_format": "auto_round:auto_awq"}
    write(out / "auto_round_awq", config, tensors, {"m": np.ascontiguousarray(values.T)})


def activations(out):
    """FP8 with a stored scale of the input, under the names that producers give it."""
    tensors, expected = {}, {}
    names = [("weight_scale", "input_scale"), ("weight_scale_inv", "activation_scale"), ("weight_scale", "act_scale"), ("qscale_weight", "qscale_act")]
    for i, (of_weight, of_input) in enumerate(names):
        codes, scale = fp8((4, 8)), scales((), ml_dtypes.bfloat16)
        tensors |= {f"l.{i}.weight": codes, f"l.{i}.{of_weight}": scale, f"l.{i}.{of_input}": scales((), ml_dtypes.bfloat16)}
        expected[f"l.{i}"] = f64(codes) * f64(scale)
    config = {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None, "dequantize": False}
    write(out / "fp8_static", config, tensors, expected)


def mistral(out):
    """Mistral's own form: its names, `params.json`, and files that are called consolidated."""
    tensors, expected = {}, {}
    for name in ["layers.0.attention.wq", "layers.0.feed_forward.w2"]:
        codes, scale = fp8((4, 8)), scales((), ml_dtypes.bfloat16)
        tensors |= {f"{name}.weight": codes, f"{name}.qscale_weight": scale, f"{name}.qscale_act": scales((), ml_dtypes.bfloat16)}
        expected[name] = f64(codes) * f64(scale)
    dense = RNG.normal(size=(4, 8)).astype(ml_dtypes.bfloat16)
    tensors["output.weight"] = dense
    expected["output"] = f64(dense)
    folder = out / "mistral"
    write(folder, None, {}, expected)
    (folder / "model.safetensors").unlink()
    save(folder / "consolidated.safetensors", tensors)
    params = {"dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}}
    (folder / "params.json").write_text(json.dumps(params, indent=1) + "\n")


def sparse(out):
    """Half of each four values, and what is left of an arbitrary mask, each with a bit for every value."""
    tensors, expected = {}, {}
    n, k = 8, 32
    half = np.argsort(RNG.random((n, k // 4, 4)), -1).reshape(n, k) < 2
    for name, keep in [("half", half), ("any", RNG.random((n, k)) < 0.3)]:
        codes, scale = fp8((n, k)), scales((n, 1), ml_dtypes.bfloat16)
        kept = codes[keep]
        tensors |= {
            f"{name}.compressed": kept.reshape(n, k // 2) if name == "half" else kept,
            f"{name}.bitmask": np.packbits(keep, axis=1, bitorder="little"),
            f"{name}.shape": np.array([n, k], np.int64),
            f"{name}.weight_scale": scale,
        }
        expected[name] = np.where(keep, f64(codes), 0.0) * f64(scale)
    dense, keep = RNG.normal(size=(n, k)).astype(ml_dtypes.bfloat16), half
    tensors |= {"plain.compressed": dense[keep].reshape(n, k // 2), "plain.bitmask": np.packbits(keep, axis=1, bitorder="little"), "plain.shape": np.array([n, k], np.int64)}
    expected["plain"] = np.where(keep, f64(dense), 0.0)
    weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
    config = {
        "quant_method": "compressed-tensors", "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "sparsity_config": {"format": "sparse-24-bitmask", "sparsity_structure": "2:4", "targets": ["Linear"]},
    }
    write(out / "compressed_tensors_sparse", config, tensors, expected)


def w4afp8(out):
    """int4 experts for FP8 activations, the low nibble first, in a checkpoint of FP8 blocks."""
    codes, scale = signed_nibbles((8, 64)), scales((8, 2), ml_dtypes.bfloat16)
    packed = ((codes[:, 0::2] & 15) | (codes[:, 1::2] & 15) << 4).astype(np.uint8).view(np.int8)
    expert, dense = "l.0.mlp.experts.0.up_proj", "l.0.self_attn.o_proj"
    of_blocks, block_scale = fp8((32, 64)), scales((2, 4))
    tensors = {
        f"{expert}.weight": packed, f"{expert}.weight_scale_inv": scale, f"{expert}.input_scale": scales(()),
        f"{dense}.weight": of_blocks, f"{dense}.weight_scale_inv": block_scale,
    }
    expected = {expert: codes * spread(scale, 32), dense: f64(of_blocks) * np.repeat(np.repeat(f64(block_scale), 16, 0), 16, 1)}
    config = {"quant_method": "w4afp8", "activation_scheme": "static", "weight_block_size": [16, 16], "group_size": 32}
    write(out / "w4afp8", config, tensors, expected)


NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)
FP4 = np.array([0.0, 0.005208333333, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25], np.float32)


def bitsandbytes(out):
    n, k, block = 6, 64, 64
    for kind, table in [("nf4", NF4), ("fp4", np.concatenate([FP4, -FP4]))]:
        tensors, expected = {}, {}
        for name, nested in [("plain", False), ("nested", True)]:
            codes = nibbles(n * k)
            packed = (codes[0::2] << 4 | codes[1::2]).astype(np.uint8).reshape(-1, 1)
            state = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [n, k]}
            if nested:
                of_absmax = RNG.integers(0, 256, n * k // block).astype(np.uint8)
                table_of_absmax = np.sort(RNG.uniform(-1, 1, 256)).astype(np.float32)
                scale_of_absmax = np.array([0.37, 0.81], np.float32)
                offset = np.float32(1.25)
                group = 4
                absmax = table_of_absmax[of_absmax] * scale_of_absmax[np.arange(len(of_absmax)) // group] + offset
                state |= {"nested_blocksize": group, "nested_dtype": "float32", "nested_offset": float(offset)}
                tensors |= {f"{name}.weight.absmax": of_absmax, f"{name}.weight.nested_absmax": scale_of_absmax, f"{name}.weight.nested_quant_map": table_of_absmax}
            else:
                absmax = scales(n * k // block)
                tensors[f"{name}.weight.absmax"] = absmax
            tensors |= {
                f"{name}.weight": packed,
                f"{name}.weight.quant_map": table,
                f"{name}.weight.quant_state.bitsandbytes__{kind}": np.frombuffer(json.dumps(state).encode(), np.uint8),
            }
            values = table[codes] * np.repeat(absmax.astype(np.float32), block)
            assert values.dtype == np.float32
            expected[name] = f64(values).reshape(n, k)
        config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": True}
        write(out / f"bitsandbytes_{kind}", config, tensors, expected)
    codes, largest = RNG.integers(-127, 128, (n, k)).astype(np.int8), scales((n,)) * np.float32(90)
    tensors = {"m.weight": codes, "m.SCB": largest, "m.weight_format": np.array(0, np.uint8)}
    scale = (f64(largest) / 127).astype(np.float32)
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False, "llm_int8_threshold": 6.0}
    write(out / "bitsandbytes_int8", config, tensors, {"m": f64(codes) * f64(scale)[:, None]})


def hqq(out):
    n, k, g = 16, 64, 32
    tensors, expected = {}, {}
    for name, bits, axis in [("four", 4, 1), ("eight", 8, 1), ("two", 2, 1), ("across", 4, 0)]:
        codes = RNG.integers(0, 1 << bits, (n, k)).astype(np.uint8)
        groups = n * k // g
        scale, zero = scales(groups, np.float16), RNG.uniform(0, 1 << bits, groups).astype(np.float16)
        lines = codes.reshape(-1, g) if axis == 1 else codes.reshape(g, -1)
        step = len(lines) // (8 // bits)
        packed = np.zeros((step, lines.shape[1]), np.uint8)
        for i in range(8 // bits):
            packed |= lines[i * step : (i + 1) * step] << (8 - bits * (i + 1))
        shape = (groups, 1) if axis == 1 else (1, groups)
        values = (f64(lines) - f64(zero).reshape(shape)) * f64(scale).reshape(shape)
        if axis == 0:
            values = f64(values.astype(np.float32))
        expected[name] = values.reshape(n, k)
        tensors |= {
            f"{name}.W_q": packed, f"{name}.scale": scale.reshape(shape), f"{name}.zero": zero.reshape(shape),
            f"{name}.shape": np.array([n, k], np.int64), f"{name}.nbits": np.array([bits], np.int64),
            f"{name}.group_size": np.array([g], np.int64), f"{name}.axis": np.array([axis], np.int64),
        }
    write(out / "hqq", {"quant_method": "hqq", "quant_config": {}, "skip_modules": ["lm_head"]}, tensors, expected)


def transforms(out):
    """The input of one layer is rotated at run time; the matrix is stored beside it."""
    n, k, g = 8, 64, 32
    codes, scale = signed_nibbles((n, k)), scales((n, k // g), ml_dtypes.bfloat16)
    tensors, expected = {}, {}
    for name in ["l.0.mlp.up_proj", "l.0.mlp.down_proj"]:
        tensors |= {f"{name}.weight_packed": int32_words(codes + 8), f"{name}.weight_scale": scale, f"{name}.weight_shape": np.array([n, k], np.int64)}
        expected[name] = codes * spread(scale, g)
    tensors["l.0.mlp.down_proj.R4_input.weight"] = np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]]).astype(ml_dtypes.bfloat16)
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": g, "symmetric": True}
    apply = [{"targets": ["re:.*down_proj$"], "location": "input", "inverse": False, "ignore": []}]
    config = {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "transform_config": {"config_groups": {"R4": {"type": "hadamard", "apply": apply, "head_dim": 4}}},
    }
    write(out / "transforms", config, tensors, expected)


def torchao(out):
    """Tensors whose class the file's own metadata names."""
    n, k, g = 8, 64, 32
    tensors, expected, classes = {}, {}, {}
    codes, scale = fp8((n, k)), scales((n, 1))
    tensors |= {"fp8._weight_qdata": codes, "fp8._weight_scale": scale}
    expected["fp8"] = f64(codes) * f64(scale)
    preference = {"_type": "KernelPreference", "_data": "AUTO"}
    fp8_data = {"block_size": [1, k], "mm_config": None, "act_quant_kwargs": None, "kernel_preference": preference, "dtype": torch_dtype("float32")}
    classes["fp8"] = ("Float8Tensor", fp8_data, ["qdata", "scale"])
    codes, scale = RNG.integers(-128, 128, (n, k)).astype(np.int8), scales((n, k // g), ml_dtypes.bfloat16)
    zero = RNG.integers(-8, 8, (n, k // g)).astype(np.int8)
    tensors |= {"int._weight_qdata": codes, "int._weight_scale": scale, "int._weight_zero_point": zero}
    expected["int"] = (f64(codes) - spread(zero, g)) * spread(scale, g)
    int_data = {"target_dtype": torch_dtype("int8"), "block_size": [1, g], "dtype": torch_dtype("float32"), "activation_quantization": None}
    classes["int"] = ("IntxUnpackedToInt8Tensor", int_data, ["qdata", "scale", "zero_point"])
    folder = out / "torchao"
    write(folder, {"quant_method": "torchao", "quant_type": {"default": {"_type": "Float8WeightOnlyConfig"}}}, tensors, expected)
    describe(folder / "model.safetensors", classes)


def torch_dtype(name):
    return {"_type": "torch.dtype", "_data": name}


def describe(file, classes):
    """Writes the classes of tensors, and their other members, into the file's metadata, as torchao does."""
    metadata = {f"{name}.weight": json.dumps({"_type": kind, "_data": data, "_tensor_data_names": names}) for name, (kind, data, names) in classes.items()}
    metadata["tensor_names"] = json.dumps(sorted(metadata))
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps({"__metadata__": metadata} | json.loads(raw[8 : 8 + length]), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    file.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])


def tiles(scale):
    """Scales `[rows, groups]` in tiles of 128 rows and 4 groups, in each of which row `r` is at `r % 32, r // 32`."""
    rows, groups = -(-scale.shape[0] // 128), -(-scale.shape[1] // 4)
    out = np.zeros((rows, groups, 32, 4, 4), scale.dtype)
    for r in range(scale.shape[0]):
        for g in range(scale.shape[1]):
            out[r // 128, g // 4, r % 32, r % 128 // 32, g % 4] = scale[r, g]
    return out.reshape(32 * rows, 16 * groups)


def torchao_blocks(out):
    """int4 with and without zero points, MXFP8, MXFP4 and NVFP4, whose scales may lie in tiles."""
    n, k, g = 8, 64, 32
    tensors, expected, classes = {}, {}, {}

    def int4(name, zero, activations):
        codes, scale = signed_nibbles((n, k)), scales((k // g, n), ml_dtypes.bfloat16)
        packed = ((codes[:, 0::2] & 15) | (codes[:, 1::2] & 15) << 4).astype(np.uint8).view(np.int8)
        tensors.update({f"{name}._weight_qdata": packed, f"{name}._weight_scale": scale, f"{name}._weight_zero_point": zero})
        values = codes * np.repeat(f64(scale), g, 0).T + np.repeat(f64(zero), g, 0).T
        expected[name] = f64(values.astype(np.float32))
        classes[name] = ("Int4Tensor", {"block_size": [1, g], "shape": [n, k], "activation_dtype": torch_dtype(activations)}, ["qdata", "scale", "zero_point"])

    int4("int4", RNG.normal(size=(k // g, n)).astype(ml_dtypes.bfloat16), "bfloat16")
    int4("int4_fp8", np.zeros((k // g, n), ml_dtypes.bfloat16), "float8_e4m3fn")

    def blocks(name, kind, codes, values, scale, group, swizzled, more, data):
        tensors.update({f"{name}._weight_qdata": codes, f"{name}._weight_scale": tiles(scale) if swizzled else scale} | more)
        expected[name] = values * spread(scale, group)
        both = {"block_size": group, "orig_dtype": torch_dtype("float32"), "is_swizzled_scales": swizzled, "act_quant_kwargs": None}
        names = ["qdata", "scale"] + ["per_tensor_scale" for _ in more]
        classes[name] = (kind, both | data, names)

    mx = {"kernel_preference": {"_type": "KernelPreference", "_data": "EMULATED"}}
    # Rows and groups beyond one tile.
    for swizzled, (n, k) in [(False, (8, 64)), (True, (130, 160))]:
        of = "_tiles" if swizzled else ""
        codes = fp8((n, k))
        blocks(f"mxfp8{of}", "MXTensor", codes, f64(codes), e8m0((n, k // 32), as_bytes=False), 32, swizzled, {}, mx | {"elem_dtype": torch_dtype("float8_e4m3fn")})
        codes = nibbles((n, k))
        blocks(f"mxfp4{of}", "MXTensor", fp4_bytes(codes), fp4_values(codes), e8m0((n, k // 32), as_bytes=False), 32, swizzled, {}, mx | {"elem_dtype": torch_dtype("float4_e2m1fn_x2")})
        codes, total = nibbles((n, k)), np.array(0.25, np.float32)
        scale = np.maximum(np.abs(f64(fp8((n, k // 16)))), 0.0625).astype(E4M3)
        name = f"nvfp4{of}"
        blocks(name, "NVFP4Tensor", fp4_bytes(codes), fp4_values(codes), scale, 16, swizzled, {f"{name}._weight_per_tensor_scale": total}, {"use_triton_kernel": False})
        expected[name] = expected[name] * f64(total)
    for name in [name for name in expected if name.endswith("_tiles")]:
        at = np.sort(RNG.choice(expected[name].size, 400, replace=False))
        expected[name], expected[f"{name}@at"] = expected[name].reshape(-1)[at], at.astype(np.int64)
    folder = out / "torchao_blocks"
    write(folder, {"quant_method": "torchao", "quant_type": {"default": {"_type": "NVFP4DynamicActivationNVFP4WeightConfig"}}}, tensors, expected)
    describe(folder / "model.safetensors", classes)


def quark_stages(out):
    """FP8 with one scale, then int4 of rows or groups; FP4 of groups, whose scales are then FP8."""
    n, k, g = 16, 64, 32
    tensors, expected, layers = {}, {}, {}
    fp8_stage = {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False, "symmetric": True}
    codes, scale, of_fp8 = signed_nibbles((n, k)), scales((n,)), np.array(0.01953, np.float32)
    tensors |= {"rows.weight": int32_words(codes & 15, AWQ_ORDER), "rows.weight_scale": of_fp8, "rows.weight_scale_2": scale, "rows.weight_zero_point_2": np.zeros(n // 8, np.int32)}
    expected["rows"] = codes * f64(scale)[:, None] * f64(of_fp8)
    int4 = {"dtype": "int4", "symmetric": True, "is_dynamic": False}
    layers["rows"] = {"weight": [fp8_stage, int4 | {"qscheme": "per_channel", "ch_axis": 0}]}
    codes, scale = signed_nibbles((n, k)), scales((k // g, n), ml_dtypes.bfloat16)
    tensors |= {"groups.weight": int32_words(codes.T & 15, AWQ_ORDER), "groups.weight_scale": of_fp8, "groups.weight_scale1": scale}
    expected["groups"] = codes * np.repeat(f64(scale), g, 0).T * f64(of_fp8)
    layers["groups"] = {"weight": [fp8_stage, int4 | {"qscheme": "per_group", "group_size": g, "ch_axis": 1}]}
    codes, scale = nibbles((n, k)), np.maximum(np.abs(f64(fp8((n, k // 16)))), 0.0625).astype(E4M3)
    tensors |= {"nvfp4.weight": fp4_bytes(codes), "nvfp4.weight_scale": scale, "nvfp4.weight_scale_2": of_fp8}
    expected["nvfp4"] = fp4_values(codes) * spread(scale, 16) * f64(of_fp8)
    fp4 = {"dtype": "fp4", "qscheme": "per_group", "group_size": 16, "ch_axis": -1, "is_dynamic": False}
    layers["nvfp4"] = {"weight": [fp4, fp8_stage | {"is_scale_quant": True}]}
    config = {"quant_method": "quark", "global_quant_config": {"weight": None}, "layer_quant_config": layers, "exclude": [], "export": {"pack_method": "reorder"}}
    write(out / "quark_stages", config, tensors, expected)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = pathlib.Path(sys.argv[1])
    for make in [modelopt, layered, quark, auto_round, activations, mistral, sparse, w4afp8, bitsandbytes, hqq, transforms, torchao, torchao_blocks,
                 quark_stages]:
        make(target)
