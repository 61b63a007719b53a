"""Makes the dumps beside this file, and what is in them as torch and numpy read it: expected.json.

    pip install torch transformers numpy safetensors; python make.py

Everything is small and from a fixed seed. SGLang and msprobe are not needed: their files are written here under the
names that they give (sglang/srt/debug_utils/dumper.py and tensor_dump_forward_hook.py; msprobe's dump guide).
"""

import collections
import json
import os
import pathlib
import re
import shutil
import sys
import zipfile

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "cargo-accuracy" / "hooks"))
EXPECTED = {}

NAMES = {
    torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "e4m3fn", torch.float8_e4m3fnuz: "e4m3fnuz", torch.float8_e5m2: "e5m2",
    torch.float8_e5m2fnuz: "e5m2fnuz", torch.float8_e8m0fnu: "e8m0", torch.bool: "bool", torch.uint8: "uint8",
    torch.int8: "int8", torch.uint16: "uint16", torch.int16: "int16", torch.uint32: "uint32", torch.int32: "int32",
    torch.uint64: "uint64", torch.int64: "int64",
}


def number(x):
    x = float(x)
    return x if np.isfinite(x) else repr(x)


def note(file, **tensors):
    """What a reader should find in a file, by path within it."""
    EXPECTED[file] = {
        path: {"dtype": NAMES[t.dtype], "shape": list(t.shape), "values": [number(x) for x in t.to(torch.float64).flatten()]}
        for path, t in tensors.items()
    }


def folder(name):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def every_type():
    x = torch.tensor([[0.0, -0.5, 1.0], [2.0, -3.0, 448.0]])
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.25, 1e-3, 60000.0])
    types = {NAMES[t]: x.to(t) for t in NAMES if t.is_floating_point and t is not torch.float8_e8m0fnu}
    types["e8m0"] = torch.tensor([0, 127, 130, 254, 255], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    types |= {f"{NAMES[t]}_special": special.to(t) for t in (torch.float16, torch.bfloat16, torch.float8_e5m2)}
    types["bool"] = torch.tensor([True, False, True])
    types["uint8"] = torch.tensor([0, 255], dtype=torch.uint8)
    types["int8"] = torch.tensor([-128, 127], dtype=torch.int8)
    types["uint16"] = torch.tensor([0, 65535], dtype=torch.uint16)
    types["int16"] = torch.tensor([-32768, 5], dtype=torch.int16)
    types["uint32"] = torch.tensor([0, 2**32 - 1], dtype=torch.uint32)
    types["int32"] = torch.tensor([-(2**31), 7], dtype=torch.int32)
    types["uint64"] = torch.tensor([0, 2**53], dtype=torch.uint64)
    types["int64"] = torch.tensor([-1, 2**53], dtype=torch.int64)
    return types


class Fields:
    """A class that the reader does not know."""

    def __init__(self):
        self.logits = torch.arange(4.0)
        self.inner = {"k": [torch.ones(1)]}


Pair = collections.namedtuple("Pair", "left right")


def pt():
    out = folder("pt")
    types = every_type()
    torch.save(types, out / "types.pt")
    note("pt/types.pt", **types)

    base = torch.arange(24.0).reshape(4, 6)
    views = {
        "whole": base, "transposed": base.t(), "columns": base[:, 1:6:2], "rows": base[1:3], "scalar": base[2, 3],
        "expanded": base[0, :2].expand(3, 2), "empty": base[:0], "permuted": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
    }
    torch.save(views, out / "views.pt")
    note("pt/views.pt", **views)

    torch.save(torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), out / "bare.pt")
    note("pt/bare.pt", **{"": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)})

    one, two, three = torch.ones(2), torch.full((2,), 2.0), torch.full((1,), 3.0)
    nested = {
        "list": [one, (two, None, 1.5, "text")], "ordered": collections.OrderedDict(a=three), 7: {"b": one},
        "parameter": torch.nn.Parameter(two), "size": torch.Size([1, 2]), "dtype": torch.float32,
        "device": torch.device("cpu"), "pair": Pair(one, three), "object": Fields(), "big": 1 << 80,
        "default": collections.defaultdict(list, c=[two]), "set": {1, 2},
    }
    torch.save(nested, out / "nested.pt")
    note("pt/nested.pt", **{
        "list.0": one, "list.1.0": two, "ordered.a": three, "7.b": one, "parameter": two.clone(), "pair.0": one, "pair.1": three,
        "object.logits": torch.arange(4.0), "object.inner.k.0": torch.ones(1), "default.c.0": two,
    })

    torch.save({"complex": torch.ones(2, dtype=torch.complex64), "sparse": torch.eye(2).to_sparse(), "dense": one}, out / "unreadable.pt")
    note("pt/unreadable.pt", dense=one)
    torch.save({"text": "no tensor", "n": [1, 2]}, out / "nothing.pt")
    torch.save({"complex": torch.ones(2, dtype=torch.complex64)}, out / "complex.pt")
    torch.save({"x": one}, out / "legacy.pt", _use_new_zipfile_serialization=False)

    # float4_e2m1fn_x2 counts pairs; the reader counts values.
    packed = torch.tensor([[0x21, 0xF7], [0x08, 0x65]], dtype=torch.uint8)
    torch.save({"fp4": packed.view(torch.float4_e2m1fn_x2)}, out / "fp4.pt")
    lut = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    values = [(-1 if c & 8 else 1) * lut[c & 7] for b in packed.flatten().tolist() for c in (b & 15, b >> 4)]
    EXPECTED["pt/fp4.pt"] = {"fp4": {"dtype": "e2m1", "shape": [2, 4], "values": values}}

    # Calls a function when unpickled by Python; here it is an opaque value beside a tensor.
    class Evil:
        def __reduce__(self):
            return os.system, ("touch executed",)

    torch.save({"evil": Evil(), "x": one}, out / "evil.pt")
    note("pt/evil.pt", x=one)

    # zip64 sizes and a deflated pickle, as other writers of zip archives make them.
    with zipfile.ZipFile(out / "bare.pt") as source, zipfile.ZipFile(out / "zip64.pt", "w") as target:
        for info in source.infolist():
            method = zipfile.ZIP_DEFLATED if info.filename.endswith(("data.pkl", "data/0")) else zipfile.ZIP_STORED
            fresh = zipfile.ZipInfo(info.filename)
            fresh.compress_type = method
            with target.open(fresh, "w", force_zip64=True) as entry:
                entry.write(source.read(info))
    note("pt/zip64.pt", **{"": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)})


def numpy_files():
    out = folder("numpy")
    arrays = {
        "f64": np.linspace(-1, 1, 5), "f32": np.arange(6, dtype=np.float32).reshape(2, 3), "f16": np.array([[1.5], [np.inf]], np.float16),
        "bool": np.array([True, False]), "i8": np.array([-1], np.int8), "u16": np.array([65535], np.uint16),
        "i64": np.array(3, np.int64), "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    }
    for name, array in arrays.items():
        np.save(out / f"{name}.npy", array)
        note(f"numpy/{name}.npy", **{"": torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))})
    for name, save in (("stored.npz", np.savez), ("deflated.npz", np.savez_compressed)):
        save(out / name, **arrays)
        note(f"numpy/{name}", **{k: torch.from_numpy(np.ascontiguousarray(a).reshape(a.shape)) for k, a in arrays.items()})
    bad = folder("numpy-bad")
    np.save(bad / "objects.npy", np.array([{}], object))
    np.save(bad / "records.npy", np.zeros(2, [("a", "<f4"), ("b", "<i4")]))
    np.save(bad / "big_endian.npy", np.arange(2, dtype=">f4"))
    np.save(bad / "complex.npy", np.ones(2, np.complex64))
    np.save(bad / "void.npy", np.zeros(2, "V2"))


def safetensors():
    out = folder("safetensors")
    save_file({k: v.contiguous() for k, v in every_type().items()}, out / "types.safetensors")
    note("safetensors/types.safetensors", **every_type())


def sglang():
    x, y = torch.arange(6.0).reshape(2, 3), torch.full((2, 3), 2.0)
    out = folder("sglang-1")
    for rank, tensor in ((0, x), (1, y)):
        run = out / f"sglang_dump_17000000{rank}.25_{rank}"
        run.mkdir()
        torch.save(tensor, run / "forward_pass_id=1___name=hidden_states___layer_id=3.pt")
    run = folder("sglang-2") / "sglang_dump_1700000000.5"
    run.mkdir()
    for index, (name, tensor) in enumerate([("layer_start__hidden_states", x), ("layer_start__hidden_states", y), ("positions", None)]):
        torch.save(tensor, run / f"forward_pass_id=2___rank=0___name={name}___dump_index={index + 9}___layer_id=1.pt")
    run = folder("sglang-3") / "dump_1700000000"
    run.mkdir()
    for index, (name, value) in enumerate([
        ("non_intrusive__model.layers.0.mlp.inputs.0", x), ("non_intrusive__model.layers.0.mlp.output", y),
        ("hidden_states", (x, y)), ("grad__w", y), ("input_ids", torch.tensor([5, 6])),
    ]):
        tags = {"step": 0, "rank": 1, "dump_index": index + 1, "name": name, "recompute_status": "disabled"}
        if "mlp" in name:
            tags["layer_id"] = 0
        meta = {**tags, "world_size": 2, "dims": "t h[tp]"}
        torch.save({"value": value, "meta": meta}, run / ("___".join(f"{k}={v}" for k, v in tags.items()) + ".pt"))
    run = folder("sglang-hook") / "TP1_PP0_Rank1_pid4711"
    run.mkdir()
    layer = {
        "model.embed_tokens": x, "model.layers.0.input_layernorm": [x, y], "model.layers.0.mlp.down_proj": y,
        "model.forward_batch_info.input_ids": torch.tensor([5, 6]), "model.forward_batch_info.positions": torch.tensor([0, 1]),
    }
    torch.save(layer, run / "Pass00000.pt")
    torch.save({"model": x + 1, "logits_processor": y + 1, **layer}, run / "Pass00001.pt")


def msprobe():
    out = folder("msprobe")
    for rank in (0, 1):
        data = out / "step0" / f"rank{rank}" / "dump_tensor_data"
        data.mkdir(parents=True)
        names = ["Module.model.layers.10.mlp.Mlp.forward.0.input.0", "Module.model.layers.2.mlp.Mlp.forward.0.input.0",
                 "Module.model.layers.2.mlp.Mlp.forward.1.output.0", "Functional.linear.4.forward.output.0"]
        for i, name in enumerate(names):
            torch.save(torch.full((2,), float(i + rank)), data / f"{name}.pt")
        (data.parent / "dump.json").write_text(json.dumps({"task": "tensor", "level": "mix", "data": {}}))
    np.save(out / "step0" / "rank0" / "dump_tensor_data" / "Cell.conv.Conv2d.0.forward.output.0.npy", np.ones(3, np.float32))


def models():
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.model_debugging_utils import model_addition_debugger_context

    from accuracy_dump import Dumper, dump

    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
                         num_key_value_heads=1, vocab_size=32, max_position_embeddings=32)
    model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        with model_addition_debugger_context(model, debug_path=str(folder("huggingface")), use_repr=False):
            model.forward(input_ids=ids, use_cache=False)
        small = torch.nn.Sequential(torch.nn.Linear(2, 2))
        with model_addition_debugger_context(small, debug_path=str(folder("huggingface-repr"))):
            small.forward(torch.ones(1, 2))
        # The rest only makes the repository larger; one file that the tree names is missing now.
        kept = re.compile(r"[A-Za-z]+((\.model\.(embed_tokens|norm|layers\.\d)|\.lm_head)?_(inputs|outputs)_?.*|.*\.layers\..*\.down_proj_outputs)\.safetensors")
        for file in [*(HERE / "huggingface").iterdir(), *(HERE / "huggingface-repr").iterdir()]:
            if file.suffix == ".safetensors" and not kept.fullmatch(file.name) or file.name.endswith("SUMMARY.json"):
                file.unlink()
        out = folder("accuracy")
        out.rmdir()
        chosen = ["", "model.embed_tokens", "model.layers.*", "lm_head"]
        with dump(model, out, modules=chosen, merge={"*.mlp.down_proj": "sum", "*.q_proj": ("concat", -1)}):
            model.generate(ids, min_new_tokens=2, max_new_tokens=2, do_sample=False)
        seen = {}
        hook = model.model.layers[2].mlp.register_forward_hook(lambda m, a, o: seen.update(mlp=(a[0], o)))
        logits = model(ids, use_cache=False).logits
        hook.remove()
    EXPECTED["accuracy"] = {
        "model.layers.2.mlp input 0": [number(v) for v in seen["mlp"][0].to(torch.float64).flatten()],
        "model.layers.2.mlp output": [number(v) for v in seen["mlp"][1].to(torch.float64).flatten()],
        "lm_head output": [number(v) for v in logits.to(torch.float64)[:, -1].flatten()],
    }

    class Odd(torch.nn.Module):
        """Tuples, keywords, repeated calls, quantised types and a crash."""

        def __init__(self):
            super().__init__()
            self.step = torch.nn.Identity()

        def forward(self, x, *, scale=None, crash=False):
            a, b = self.step(x), self.step(x + 1)
            if crash:
                raise RuntimeError("crash")
            return {"codes": (a.to(torch.float8_e4m3fn), [b.to(torch.float8_e5m2fnuz)]), "scale": scale}

    odd = Odd()
    out = folder("accuracy-odd")
    out.rmdir()
    dumper = Dumper(out, rank=3, tp=1).attach(odd)
    odd(torch.tensor([[1.0, -2.0]]), scale=torch.ones(1, dtype=torch.uint16))
    dumper.value("named", torch.tensor([4], dtype=torch.int8))
    try:
        odd(torch.tensor([[1.0, -2.0]]), crash=True)
    except RuntimeError:
        pass
    dumper.close()


for make in (pt, numpy_files, safetensors, sglang, msprobe, models):
    make()
(HERE / "expected.json").write_text(json.dumps(EXPECTED, separators=(",", ":")).replace('},"', '},\n"') + "\n")
