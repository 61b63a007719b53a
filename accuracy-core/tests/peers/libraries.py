#!/usr/bin/env python3
"""Lets the library of each scheme decode the fixtures, and compares its values with those that the reader gives.

    python3 -m venv venv
    venv/bin/pip install torch numpy safetensors gguf torchao compressed-tensors bitsandbytes amd-quark hqq auto-round ninja
    venv/bin/pip install gptqmodel
    venv/bin/python accuracy-core/tests/peers/libraries.py [LIBRARY]...

All of it runs on a CPU. `tests/checkpoints.rs` holds the reader to `expected.safetensors` bit for bit, and this holds
`expected.safetensors` to the libraries. Libraries compute in float32: a value is `exact` if it is the expected one rounded
to float32, and `rounded` if it is off by no more than the last place of two multiplications in another order. Exit
status 1 where a value is neither. A library that is not installed, or does not run here, is listed with the reason.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from safetensors import safe_open

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures/checkpoints"


def tensors(fixture, file="model.safetensors"):
    with safe_open(FIXTURES / fixture / file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}


def config(fixture):
    return json.loads((FIXTURES / fixture / "config.json").read_text())["quantization_config"]


def of_module(all_tensors, module):
    """The tensors of a module, by the rest of their names."""
    return {name.removeprefix(f"{module}."): t for name, t in all_tensors.items() if name.startswith(f"{module}.")}


def gguf_():
    import gguf

    reader = gguf.GGUFReader(FIXTURES / "gguf/model.gguf")
    for tensor in reader.tensors:
        module = tensor.name.removesuffix(".weight")
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            continue
        values = torch.from_numpy(np.ascontiguousarray(values, np.float32))
        if values.ndim == 3:
            for expert, matrix in enumerate(values):
                yield "gguf", f"{module}#{expert}", matrix
        else:
            yield "gguf", module, values


def torchao_():
    import torchao.prototype.mx_formats  # noqa: F401
    from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict

    for fixture in ["torchao", "torchao_blocks"]:
        stored, metadata = tensors(fixture)
        objects, left = unflatten_tensor_state_dict(stored, metadata)
        assert not left, left
        for name, tensor in objects.items():
            module = name.removesuffix(".weight")
            if type(tensor).__name__ == "Int4Tensor":
                # It has no method for this: its own packing and a zero point that is added, as its kernels' source says.
                codes = torch.stack([tensor.qdata << 4 >> 4, tensor.qdata >> 4], -1).reshape(tensor.shape)
                spread = lambda t: t.float().t().repeat_interleave(tensor.block_size[1], 1)
                yield fixture, module, codes.float() * spread(tensor.scale) + spread(tensor.zero_point)
                continue
            yield fixture, module, tensor.dequantize()


def compressed_tensors_():
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    formats = {
        "compressed_tensors_fp8": "float-quantized", "compressed_tensors_int8": "int-quantized",
        "compressed_tensors_int4": "pack-quantized", "compressed_tensors_pack_int8": "pack-quantized",
        "compressed_tensors_nvfp4": "nvfp4-pack-quantized",
    }
    for fixture, form in formats.items():
        stored, _ = tensors(fixture)
        schemes = QuantizationConfig.model_validate(config(fixture)).config_groups
        expected, _ = tensors(fixture, "expected.safetensors")
        for module in expected:
            of = of_module(stored, module)
            if f"{module}.weight_scale" not in stored:
                continue
            of = {name: t.float() if t.is_floating_point() and name.endswith("_scale") and t.dtype != torch.float8_e4m3fn else t
                  for name, t in of.items()}
            named = [s for s in schemes.values() if any(t == module or t in ("Linear", "re:.*") for t in s.targets)]
            scheme = (named or list(schemes.values()))[0].model_copy(deep=True)
            # One group is of all modules here, and says of some that they are symmetric which are not.
            scheme.weights.symmetric = "weight_zero_point" not in of
            columns = int(of["weight_shape"][1]) if "weight_shape" in of else 0
            if scheme.weights.group_size and columns % scheme.weights.group_size:
                yield fixture, None, f"{module}: {columns} columns are no whole groups, which this version refuses"
                continue
            if "weight_g_idx" in of and (of["weight_g_idx"] >= 0).all():
                yield fixture, None, f"{module}: this version takes no order of columns"
                continue
            if form == "nvfp4-pack-quantized":
                # Its compressor works in bfloat16: the same calls in float32.
                rows, half = of["weight_packed"].shape
                codes = unpack_fp4_from_uint8(of["weight_packed"], rows, 2 * half).float()
                scale, total = of["weight_scale"].float(), of["weight_global_scale"]
                yield fixture, module, dequantize(codes, scale, args=scheme.weights, global_scale=total, dtype=torch.float32)
                continue
            yield fixture, module, BaseCompressor.get_value_from_registry(form).decompress(of, scheme)["weight"]
    try:
        from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import sparse24_bitmask_decompress
    except ImportError:
        yield "compressed_tensors_sparse", None, "this version has no compressor for 2:4 (0.11 has)"
        return
    stored, _ = tensors("compressed_tensors_sparse")
    for module in ["half", "plain"]:
        of = of_module(stored, module)
        values = sparse24_bitmask_decompress(of["compressed"], of["bitmask"], of["shape"]).float()
        yield "compressed_tensors_sparse", module, values * of["weight_scale"].float() if "weight_scale" in of else values


def bitsandbytes_():
    import bitsandbytes.functional as functional

    for kind in ["nf4", "fp4"]:
        fixture = f"bitsandbytes_{kind}"
        stored, _ = tensors(fixture)
        for module in ["plain", "nested"]:
            state = {name.removeprefix("weight."): t for name, t in of_module(stored, module).items() if name != "weight"}
            key = f"quant_state.bitsandbytes__{kind}"
            described = json.loads(bytes(state[key].tolist())) | {"dtype": "float32"}
            state[key] = torch.tensor(list(json.dumps(described).encode()), dtype=torch.uint8)
            of = functional.QuantState.from_dict(state, device=torch.device("cpu"))
            yield fixture, module, functional.dequantize_4bit(stored[f"{module}.weight"], of)
    stored, _ = tensors("bitsandbytes_int8")
    yield "bitsandbytes_int8", "m", functional.int8_vectorwise_dequant(stored["m.weight"], stored["m.SCB"])


def quark_():
    from quark.torch.export.nn.modules.realquantizer import get_real_quantizer
    from quark.torch.quantization.config.config import QTensorConfig

    for fixture in ["quark_all", "quark_stages", "quark_fp8", "quark_mxfp4"]:
        stored, _ = tensors(fixture)
        said = config(fixture)
        expected, _ = tensors(fixture, "expected.safetensors")
        for module in [name for name in expected if not name.endswith("@at")]:
            layer = said["layer_quant_config"].get(module) if said.get("layer_quant_config") else None
            weight = (layer or said["global_quant_config"])["weight"]
            stages = weight if isinstance(weight, list) else [weight]
            of = of_module(stored, module)
            specs = [QTensorConfig.from_dict(defaults(stage)) for stage in stages]
            scales = [of.get("weight_scale")] + [of.get("weight_scale_2", of.get("weight_scale1"))]
            shapes = [tuple(s.shape) for s in scales[: len(stages)]]
            zero = of.get("weight_zero_point")
            quantizer = get_real_quantizer(
                specs if len(specs) > 1 else specs[0], None, reorder=True, real_quantized=True, float_dtype=torch.float32,
                device=torch.device("cpu"), scale_shape=shapes if len(specs) > 1 else shapes[0],
                zero_point_shape=None if zero is None or len(specs) > 1 else tuple(zero.shape),
            )
            for i, one in enumerate(quantizer if len(specs) > 1 else [quantizer]):
                scale = scales[i]
                narrow = scale.dtype in (torch.uint8, torch.float8_e8m0fnu)
                if narrow and stages[i].get("scale_format") == "e8m0":
                    one.scale = scale.view(torch.uint8)
                elif narrow:
                    # A scale of that type is a number to it: only `scale_format` makes it one of bits.
                    one.scale = torch.exp2(scale.view(torch.uint8).float() - 127)
                else:
                    one.scale = scale if scale.dtype == torch.float8_e4m3fn else scale.float()
                if getattr(one, "zero_point", None) is not None:
                    # Symmetric integers have zero points of zero, packed as the codes are.
                    packed = 8 if "int4" in stages[i]["dtype"] else 1
                    shape = (*scale.shape[:-1], scale.shape[-1] // packed)
                    one.zero_point = zero if zero is not None else torch.zeros(shape, dtype=torch.int32)
            yield fixture, module, quantizer(of["weight"])


def defaults(stage):
    """The members of a stage that Quark writes and the fixtures leave out."""
    rest = {
        "observer_cls": "PerTensorMinMaxObserver", "round_method": "half_even", "scale_type": "float", "is_scale_quant": False,
        "symmetric": True, "ch_axis": None, "group_size": None, "block_size": None, "scale_format": None,
        "scale_calculation_mode": None, "mx_element_dtype": None,
    }
    observers = {"per_channel": "PerChannelMinMaxObserver", "per_group": "PerGroupMinMaxObserver", "per_block": "PerBlock2DMinMaxObserver"}
    observer = {"observer_cls": observers.get(stage.get("qscheme"), rest["observer_cls"])}
    return rest | observer | {"ch_axis": {"per_group": -1, "per_channel": 0}.get(stage.get("qscheme"))} | stage


def hqq_():
    from hqq.core.quantize import Quantizer

    stored, _ = tensors("hqq")
    for module in ["four", "eight", "two", "across"]:
        of = of_module(stored, module)
        bits = int(of["nbits"])
        meta = {
            "nbits": bits, "group_size": int(of["group_size"]), "axis": int(of["axis"]), "shape": of["shape"].tolist(),
            "scale": of["scale"].float(), "zero": of["zero"].float(), "packing": Quantizer.bit_to_packing[bits],
            "view_as_float": False, "compute_dtype": torch.float32,
        }
        yield "hqq", module, Quantizer.dequantize(of["W_q"], meta)


def packed_linear(of, bits, group, kind, **more):
    """A linear layer of AutoRound's with these tensors, asked for the product with the unit matrix."""
    features, out = of["scales"].shape[0] * group, of["scales"].shape[1]
    layer = kind(bits=bits, group_size=group, infeatures=features, outfeatures=out, bias=False, **more)
    layer.qweight, layer.qzeros, layer.scales = of["qweight"], of["qzeros"], of["scales"].float()
    return layer(torch.eye(features)).t()


def auto_round_():
    from auto_round_extension.torch import qlinear_torch, qlinear_torch_zp

    for fixture, of_packing in [("auto_round_plain", qlinear_torch), ("auto_round_gptq", qlinear_torch_zp)]:
        stored, _ = tensors(fixture)
        said = config(fixture)
        for module in ["l.0.q_proj", "l.0.k_proj", "l.0.v_proj", "l.0.o_proj"]:
            bits = said["extra_config"].get(module, {}).get("bits", said["bits"])
            of = of_module(stored, module)
            yield fixture, module, packed_linear(of, bits, said["group_size"], of_packing.QuantLinear)


def gptqmodel_():
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    for fixture in ["gptq_v1", "gptq_v2", "gptq_int8_v1", "gptq_int8_v2"]:
        stored, _ = tensors(fixture)
        said = config(fixture)
        for module in ["in_order", "act_order"]:
            of = of_module(stored, module)
            features, out = of["g_idx"].shape[0], of["scales"].shape[1]
            layer = TorchLinear(
                bits=said["bits"], group_size=said["group_size"], sym=bool(said.get("sym")), desc_act=True,
                in_features=features, out_features=out, bias=False, pack_dtype=torch.int32, register_buffers=True,
            )
            one = sum(1 << (said["bits"] * i) for i in range(32 // said["bits"])) if fixture.endswith("v1") else 0
            zeros = (of["qzeros"].to(torch.int64) + one).to(torch.int32)
            layer.qweight, layer.qzeros, layer.scales, layer.g_idx = of["qweight"], zeros, of["scales"].float(), of["g_idx"]
            layer.post_init()
            yield fixture, module, layer.dequantize_weight().t()


LIBRARIES = {
    "gguf": gguf_, "torchao": torchao_, "compressed-tensors": compressed_tensors_, "bitsandbytes": bitsandbytes_,
    "amd-quark": quark_, "hqq": hqq_, "auto-round": auto_round_, "gptqmodel": gptqmodel_,
}


def compare(fixture, module, values):
    """How many values are exact, and how many as near as another order of rounding makes them."""
    expected, _ = tensors(fixture, "expected.safetensors")
    want = expected[module]
    got = values.detach().to(torch.float64).reshape(-1)
    at = expected.get(f"{module}@at")
    got = got[at] if at is not None else got
    want = want.reshape(-1)
    assert got.shape == want.shape, (got.shape, want.shape)
    exact = got == want.to(torch.float32).to(torch.float64)
    near = (got - want).abs() <= want.abs() * 2.0**-22
    return int(exact.sum()), int((near & ~exact).sum()), int((~near & ~exact).sum())


def main():
    chosen = sys.argv[1:] or list(LIBRARIES)
    wrong = 0
    for library in chosen:
        try:
            for fixture, module, values in LIBRARIES[library]():
                if module is None:
                    print(f"{library:20} {fixture:30} not decoded: {values}")
                    continue
                exact, rounded, off = compare(fixture, module, values)
                wrong += off
                print(f"{library:20} {fixture:30} {module:20} exact {exact:6} rounded {rounded:5} wrong {off}")
        except ImportError as error:
            print(f"{library:20} does not run here: {error}")
        except Exception as error:
            wrong += 1
            print(f"{library:20} failed: {type(error).__name__}: {error}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
