"""Dumps inputs and outputs of a torch model's modules for `cargo accuracy triage` and `compare`.

    from accuracy_dump import dump

    with dump(model, "dumps/reference"):
        model(**inputs)                       # or model.generate(..): every pass is a step

It needs torch and safetensors, nothing else. Everything is written in the type that it has: nothing is converted.

What it writes: `accuracy_dump.rank{R}.jsonl`, one JSON object a line, and safetensors files. A tensor's line is written
before its bytes, so that after a crash it is known what was cut off. What cannot be written (sparse, complex, of a type
that safetensors lacks) is skipped, with a line that says so; the model goes on.

What runs between two passes, such as an engine's computation of logits, is dumped with the pass before it.

A pass whose predecessor is not dumped may find keys and values in a cache of transformers: attention modules then have
the inputs `past_key_values.keys` and `.values`, what the cache had before the pass.
"""

import contextlib
import fnmatch
import json
import os
import sys

import torch
from safetensors.torch import save_file

VERSION = 1

NAMES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "e4m3fn",
    torch.float8_e4m3fnuz: "e4m3fnuz",
    torch.float8_e5m2: "e5m2",
    torch.float8_e5m2fnuz: "e5m2fnuz",
    torch.bool: "bool",
    torch.uint8: "uint8",
    torch.int8: "int8",
    torch.int16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
}
for _dtype, _name in [("uint16", "uint16"), ("uint32", "uint32"), ("uint64", "uint64"), ("float8_e8m0fnu", "e8m0")]:
    if hasattr(torch, _dtype):
        NAMES[getattr(torch, _dtype)] = _name


class Dumper:
    """Hooks on a model's modules. Use `dump`, or `attach` and `close`."""

    def __init__(self, folder, *, modules="*", inputs=True, outputs=True, steps=None, rank=None, tp=None, pp=None,
                 merge=None, buffer_bytes=256 << 20):
        """
        modules: a shell pattern of module paths or a list of them; the model itself is "".
        steps: dump only these passes (a set or a range).
        rank, tp, pp: this process's ranks; torch.distributed knows the first.
        merge: {pattern of module paths: "replicated" | "sum" | ("concat", dim)}: how the ranks' outputs make one.
        buffer_bytes: bytes held in host memory before a file is written; a step ends one in any case.
        """
        self.folder = str(folder)
        self.patterns = [modules] if isinstance(modules, str) else list(modules)
        self.inputs, self.outputs, self.steps = inputs, outputs, steps
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if distributed else 0
        self.merge, self.buffer_bytes = merge or {}, buffer_bytes
        self.handles, self.step, self.depth, self.calls = [], 0, 0, {}
        self.buffer, self.buffered, self.parts, self.order = {}, 0, 0, 0
        self.unfinished, self.passes, self.between, self.skipped = False, False, False, set()
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, f"accuracy_dump.rank{self.rank}.jsonl")
        # "x": a second run in the same folder would mix with the first.
        self.manifest = open(path, "x", encoding="utf-8")
        self.line("dump", {"version": VERSION, "rank": self.rank, "tp": tp, "pp": pp, "torch": torch.__version__})

    def line(self, kind, value):
        self.manifest.write(json.dumps({kind: value}) + "\n")
        self.manifest.flush()

    def attach(self, model):
        for name, module in model.named_modules():
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns):
                self.handles.append(module.register_forward_pre_hook(self.before(name), with_kwargs=True))
                self.handles.append(module.register_forward_hook(self.after(name)))
        if not self.handles:
            raise ValueError(f"no module of the model matches {self.patterns}")
        # First in and last out: what is counted as a pass.
        self.handles.append(model.register_forward_pre_hook(self.begin, with_kwargs=True, prepend=True))
        self.handles.append(model.register_forward_hook(self.end, always_call=True))
        return self

    def wanted(self):
        return self.steps is None or self.step in self.steps

    def first(self):
        """Whether the pass before this one is not dumped."""
        return self.step == 0 or self.steps is not None and self.step - 1 not in self.steps

    def begin(self, module, args, kwargs):
        self.advance()
        self.depth += 1
        self.passes = True
        if self.depth == 1 and self.wanted():
            ids = kwargs.get("input_ids", args[0] if args else None)
            if isinstance(ids, torch.Tensor) and not ids.is_floating_point() and ids.dim() in (1, 2):
                ids = ids.detach().cpu()
                self.line("tokens", {"step": self.step, "ids": ids.reshape(-1, ids.shape[-1]).tolist()})

    def advance(self):
        """Ends the last pass: what modules do after it, outside of the model's own call, still belongs to it."""
        if self.between:
            self.write()
            self.step += 1
            self.calls.clear()
            self.parts, self.between = 0, False

    def end(self, module, args, output):
        self.depth -= 1
        if self.depth == 0:
            if self.wanted():
                self.write()
                # What a pass that raised an exception has dumped is kept, but it is not complete.
                if output is not None or sys.exc_info()[0] is None:
                    self.finish()
            self.between = True

    def finish(self):
        self.line("end", {"step": self.step})
        self.unfinished = False

    def before(self, name):
        def hook(module, args, kwargs):
            # Counted here, so that a call's input and output have one number however modules are nested.
            if self.wanted():
                call = self.calls[name] = self.calls.get(name, -1) + 1
                if self.inputs:
                    for slot, tensor in tensors({**{str(i): a for i, a in enumerate(args)}, **kwargs}):
                        self.add_or_skip(name, "input", slot, call, tensor)
                    if call == 0 and self.first():
                        for cache in [*args, *kwargs.values()]:
                            for slot, tensor in cached(module, cache):
                                self.add_or_skip(name, "input", slot, call, tensor)

        return hook

    def after(self, name):
        def hook(module, args, output):
            if self.outputs and self.wanted():
                for slot, tensor in tensors(output):
                    self.add_or_skip(name, "output", slot, self.calls.get(name, 0), tensor)

        return hook

    def value(self, name, tensor, step=None):
        """Dumps a tensor under a name of its own, from anywhere in the model's code."""
        self.advance()
        if self.wanted():
            call = self.calls[f"value {name}"] = self.calls.get(f"value {name}", -1) + 1
            self.add(name, "value", "", call, tensor)

    def add_or_skip(self, module, kind, slot, call, tensor):
        try:
            self.add(module, kind, slot, call, tensor)
        except TypeError as reason:
            entry = {"step": self.step, "call": call, "module": module, "kind": kind, "slot": slot}
            self.line("skipped", {**entry, "reason": str(reason)})
            if (module, kind, slot) not in self.skipped:
                self.skipped.add((module, kind, slot))
                what = " ".join(part for part in (module or "the model's", kind, slot) if part)
                print(f"accuracy_dump: skipped {what}: {reason}", file=sys.stderr)

    def add(self, module, kind, slot, call, tensor):
        if tensor.is_sparse or tensor.is_complex() or tensor.is_meta or tensor.dtype not in NAMES:
            raise TypeError(f"cannot dump {tensor.layout} of {tensor.dtype} on {tensor.device}")
        # A copy: what a module returns may be overwritten by the next one.
        copy = tensor.detach().to("cpu", copy=True).contiguous()
        key = f"{self.order:06}.{module}.{kind}.{slot}"
        entry = {
            "order": self.order, "step": self.step, "call": call, "module": module, "kind": kind, "slot": slot,
            "dtype": NAMES[copy.dtype], "shape": list(copy.shape), "file": self.file(), "key": key,
        }
        if kind != "input":
            for pattern, how in self.merge.items():
                if fnmatch.fnmatchcase(module, pattern):
                    entry["merge"] = {"concat": how[1] % copy.dim()} if isinstance(how, tuple) else how
        self.line("tensor", entry)
        self.unfinished = True
        self.order += 1
        self.buffer[key] = copy
        self.buffered += copy.numel() * copy.element_size()
        if self.buffered >= self.buffer_bytes:
            self.write()

    def file(self):
        return f"rank{self.rank}.step{self.step:06}.{self.parts:03}.safetensors"

    def write(self):
        if self.buffer:
            path = os.path.join(self.folder, self.file())
            save_file(self.buffer, path + ".part")
            os.replace(path + ".part", path)
            self.buffer, self.buffered = {}, 0
            self.parts += 1

    def close(self):
        for handle in self.handles:
            handle.remove()
        self.handles = []
        self.write()
        # Values that were dumped without any pass are complete now.
        if self.unfinished and not self.passes:
            self.finish()
        self.manifest.close()


def tensors(value, path=()):
    """The tensors in nested tuples, lists, dictionaries and attributes, each with its path joined by dots."""
    if isinstance(value, torch.Tensor):
        # Distributed tensors: this rank's part.
        yield ".".join(path), getattr(value, "_local_tensor", value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, (*path, str(key)))
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from tensors(item, (*path, str(i)))
    elif hasattr(value, "__dataclass_fields__"):
        for key in value.__dataclass_fields__:
            yield from tensors(getattr(value, key), (*path, key))


def cached(module, cache):
    """Keys and values that a cache has for an attention module, [sequences, heads, length, d]."""
    layers, index = getattr(cache, "layers", None), getattr(module, "layer_idx", None)
    if not isinstance(layers, list) or not isinstance(index, int) or index >= len(layers):
        return
    layer = layers[index]
    # A quantised cache holds a part of them only; a layer without attention has neither keys nor a length.
    if not getattr(layer, "is_initialized", False) or "Quantized" in type(layer).__name__:
        return
    if not isinstance(getattr(layer, "keys", None), torch.Tensor) or not hasattr(layer, "get_seq_length"):
        return
    length = int(layer.get_seq_length())
    for name in ("keys", "values"):
        held = getattr(layer, name, None)
        # A static cache has empty places at its end; a sliding one has the last positions only.
        if isinstance(held, torch.Tensor) and held.dim() == 4 and length > 0:
            yield f"past_key_values.{name}", held[:, :, :length]


@contextlib.contextmanager
def dump(model, folder, **options):
    """Dumps every pass of `model` within the block into `folder`; the options are those of `Dumper`."""
    dumper = Dumper(folder, **options).attach(model)
    try:
        yield dumper
    finally:
        dumper.close()
