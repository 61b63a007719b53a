"""Dumps in the shape that inference engines give them, of the tiny models of `models.py`.

    python engines.py OUT [--name llama] [--style vllm] [--ranks 2] [--fault NAME]

writes OUT/reference, what transformers computes in float32, and OUT/candidate, what an engine's model code computes in
bfloat16: tokens of all sequences in one row, fused projections, layers that pass hidden states and residual apart,
norms that add both, a head that is read and never called, and ranks that hold parts. `vllm` and `sglang` differ in the
arguments of layers, in the module that rotates and in who computes logits when. The folders `fixtures/*/vllm*` and
`fixtures/*/sglang*` were written by

    python engines.py --fixtures fixtures
"""

import argparse
import dataclasses
import pathlib
import shutil
import threading

import torch
import torch.nn.functional as F
from torch import nn

import models
from accuracy_dump import Dumper, dump

FAULTS = {}


def fault(name, layer, *ops):
    def register(change):
        FAULTS[name] = (layer, set(ops), change)
        return change

    return register


class Group:
    """Ranks as threads that exchange tensors."""

    def __init__(self, size):
        self.size, self.slots, self.barrier = size, [None] * size, threading.Barrier(size)

    def exchange(self, rank, x):
        self.slots[rank] = x
        self.barrier.wait()
        parts = [p.clone() for p in self.slots]
        self.barrier.wait()
        return parts

    def reduce(self, rank, x):
        return x if self.size == 1 else torch.stack([p.float() for p in self.exchange(rank, x)]).sum(0).to(x.dtype)

    def gather(self, rank, x):
        return x if self.size == 1 else torch.cat(self.exchange(rank, x), -1)


@dataclasses.dataclass
class ForwardBatch:
    batch_size: int
    seq_lens: torch.Tensor
    extend_seq_lens: torch.Tensor


class Column(nn.Module):
    """A linear whose output's columns are this rank's."""

    def __init__(self, weights, biases=None):
        super().__init__()
        self.weight = nn.Parameter(torch.cat(weights), False)
        self.bias = nn.Parameter(torch.cat(biases), False) if biases else None

    def forward(self, x):
        return F.linear(x, self.weight, self.bias), None


class Row(nn.Module):
    """A linear whose input's columns are this rank's; the parts of the output are summed."""

    def __init__(self, group, rank, weight, bias=None):
        super().__init__()
        self.group, self.rank = group, rank
        self.weight = nn.Parameter(weight, False)
        self.bias = nn.Parameter(bias, False) if bias is not None else None

    def forward(self, x):
        y = self.group.reduce(self.rank, F.linear(x, self.weight))
        return (y if self.bias is None else y + self.bias), None


class RMSNorm(nn.Module):
    def __init__(self, weight, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(weight, False), eps

    def forward(self, x, residual=None):
        wide = x.float()
        if residual is not None:
            wide = wide + residual.float()
            residual = wide.to(x.dtype)
        y = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight.float()).to(x.dtype)
        return y if residual is None else (y, residual)


class Rotary(nn.Module):
    def __init__(self, inv_freq, factor, dim):
        super().__init__()
        self.inv_freq, self.factor, self.dim = inv_freq.float(), factor, dim

    def forward(self, positions, q, k):
        angles = positions[:, None].float() * self.inv_freq
        # The cache of cosines is float32; the rotation is rounded once.
        cos, sin = angles.cos()[:, None] * self.factor, angles.sin()[:, None] * self.factor

        def turn(x):
            heads = x.view(x.shape[0], -1, self.dim).float()
            half = self.inv_freq.shape[0]
            a, b, rest = heads[..., :half], heads[..., half:2 * half], heads[..., 2 * half:]
            return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1).view(x.shape).to(x.dtype)

        return turn(q), turn(k)


class Attention(nn.Module):
    """Attends with a cache that the caller does not see."""

    def __init__(self, heads, kv_heads, d, scale, window):
        super().__init__()
        self.heads, self.kv_heads, self.d, self.scale, self.window = heads, kv_heads, d, scale, window
        self.cache = {}

    def forward(self, q, k, v, batch=None):
        lengths, out = CONTEXT.lengths, torch.empty_like(q)
        start = 0
        for sequence, length in lengths.items():
            rows = slice(start, start + length)
            start += length
            new = [x[rows].view(length, self.kv_heads, self.d) for x in (k, v)]
            old = self.cache.get(sequence)
            keys, values = (torch.cat(p) for p in zip(old, new)) if old else new
            self.cache[sequence] = (keys, values)
            group = self.heads // self.kv_heads
            keys = keys.repeat_interleave(group, 1).transpose(0, 1).float()
            values = values.repeat_interleave(group, 1).transpose(0, 1).float()
            scores = q[rows].view(length, self.heads, self.d).transpose(0, 1).float() @ keys.transpose(1, 2) * self.scale
            at = torch.arange(keys.shape[1] - length, keys.shape[1])[:, None] - torch.arange(keys.shape[1])[None]
            hidden = (at < 0) | ((at >= self.window) if self.window else torch.zeros_like(at, dtype=torch.bool))
            weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            out[rows] = (weights @ values).transpose(0, 1).reshape(length, -1).to(q.dtype)
        out[start:] = 0
        return out


class Context(threading.local):
    lengths = {}


CONTEXT = Context()


class SiluAndMul(nn.Module):
    def forward(self, x):
        gate, up = x.chunk(2, -1)
        return (F.silu(gate.float()) * up.float()).to(x.dtype)


class TopK(nn.Module):
    def __init__(self, k, renormalise):
        super().__init__()
        self.k, self.renormalise = k, renormalise

    def forward(self, hidden, logits):
        weights, ids = logits.float().softmax(-1).topk(self.k, -1)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights, ids.to(torch.int32), logits


class FusedMoE(nn.Module):
    """Experts whose inner dimension is split between the ranks."""

    def __init__(self, group, rank, gate_up, down, k, renormalise):
        super().__init__()
        self.group, self.rank, self.topk = group, rank, (k, renormalise)
        self.gate_up, self.down = gate_up, down

    def forward(self, hidden_states, router_logits=None, topk=None):
        k, renormalise = self.topk
        weights, ids, _ = topk or TopK.forward(TopK(k, renormalise), hidden_states, router_logits)
        out = torch.zeros_like(hidden_states, dtype=torch.float32)
        for t in range(hidden_states.shape[0]):
            for w, e in zip(weights[t], ids[t].tolist()):
                inner = SiluAndMul.forward(None, F.linear(hidden_states[t], self.gate_up[e]))
                out[t] += w * F.linear(inner, self.down[e]).float()
        return self.group.reduce(self.rank, out.to(hidden_states.dtype))


class GroupedTopK(nn.Module):
    """DeepSeek's choice; the routing weights' factor is left to what uses them."""

    def __init__(self, config, correction):
        super().__init__()
        self.c, self.correction = config, correction

    def forward(self, hidden, logits):
        c = self.c
        scores = logits.float().sigmoid()
        choice = scores + self.correction.float()
        groups = choice.view(-1, c.n_group, choice.shape[-1] // c.n_group)
        kept = groups.topk(2, -1)[0].sum(-1).topk(c.topk_group, -1)[1]
        mask = torch.zeros(groups.shape[:2]).scatter_(1, kept, 1).bool()[..., None].expand_as(groups).reshape(choice.shape)
        ids = choice.masked_fill(~mask, float("-inf")).topk(c.num_experts_per_tok, -1)[1]
        weights = scores.gather(1, ids)
        if c.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights, ids.to(torch.int32), logits


class LocalExperts(nn.Module):
    """Experts that are split between the ranks, each whole: the others' are another rank's."""

    def __init__(self, group, rank, gate_up, down, choose, shared=None, gate=None, factor=1.0):
        super().__init__()
        self.group, self.rank, self.choose, self.factor = group, rank, [choose], factor
        self.gate_up, self.down, self.inside = gate_up, down, [shared, gate]

    def forward(self, hidden_states, router_logits=None, topk=None):
        shared, gate = self.inside
        if topk is None:
            logits = gate(hidden_states)[0] if gate is not None else router_logits
            topk = self.choose[0].forward(hidden_states, logits)
        weights, ids, _ = topk
        each = -(-len(self.gate_up) // self.group.size)
        mine = range(self.rank * each, (self.rank + 1) * each)
        out = torch.zeros_like(hidden_states, dtype=torch.float32)
        for t in range(hidden_states.shape[0]):
            for w, e in zip(weights[t], ids[t].tolist()):
                if e in mine:
                    inner = SiluAndMul.forward(None, F.linear(hidden_states[t], self.gate_up[e]))
                    out[t] += w * F.linear(inner, self.down[e]).float()
        out = (out * self.factor).to(hidden_states.dtype)
        if shared is not None:
            # Every rank has a part of the shared expert, and the sum over ranks is of both.
            out = out + shared(hidden_states)
        return self.group.reduce(self.rank, out)


class DeepseekMoe(nn.Module):
    """vLLM's experts call gate and shared expert themselves; SGLang's block does, and applies the factor at the end."""

    def __init__(self, style, gate, choose, experts, shared, factor):
        super().__init__()
        self.style, self.factor = style, factor
        self.gate, self.shared_experts, self.experts = gate, shared, experts
        if style == "sglang":
            self.topk = choose

    def forward(self, x):
        if self.style == "vllm":
            return self.experts(hidden_states=x, router_logits=x)
        routed = self.experts(x, topk=self.topk(x, self.gate(x)[0])) * self.factor
        return routed + self.shared_experts(x)


class AbsorbedAttention(nn.Module):
    """Attends to latents: keys are expanded into the queries, and values after the sum."""

    def __init__(self, heads, c, scale):
        super().__init__()
        self.heads, self.c, self.scale, self.cache = heads, c, scale, {}

    def forward(self, q, latent, batch=None):
        c, start, out = self.c, 0, q.new_empty(q.shape[0], self.heads, self.c.kv_lora_rank)
        for sequence, length in CONTEXT.lengths.items():
            rows = slice(start, start + length)
            start += length
            old = self.cache.get(sequence)
            keys = torch.cat((old, latent[rows])) if old is not None else latent[rows]
            self.cache[sequence] = keys
            scores = torch.einsum("thd,sd->hts", q[rows].float(), keys.float()) * self.scale
            at = torch.arange(keys.shape[0] - length, keys.shape[0])[:, None] - torch.arange(keys.shape[0])[None]
            weights = scores.masked_fill(at < 0, float("-inf")).softmax(-1)
            out[rows] = torch.einsum("hts,sd->thd", weights, keys[:, :c.kv_lora_rank].float()).to(q.dtype)
        out[start:] = 0
        return out


class LatentAttention(nn.Module):
    def __init__(self, style, c, rotary, heads, **modules):
        super().__init__()
        self.style, self.c, self.heads, self.rotary = style, c, heads, [rotary]
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, positions, hidden_states, forward_batch=None):
        c = self.c
        fused = self.fused_qkv_a_proj_with_mqa if self.style == "sglang" else self.fused_qkv_a_proj
        q, latent = fused(hidden_states)[0].split([c.q_lora_rank, c.kv_lora_rank + c.qk_rope_head_dim], -1)
        q = self.q_b_proj(self.q_a_layernorm(q))[0].view(-1, self.heads, c.qk_nope_head_dim + c.qk_rope_head_dim)
        narrow, k_pe = latent.split([c.kv_lora_rank, c.qk_rope_head_dim], -1)
        narrow = self.kv_a_layernorm(narrow.contiguous())
        q_nope, q_pe = q.split([c.qk_nope_head_dim, c.qk_rope_head_dim], -1)
        q_pe, k_pe = self.rotary[0](positions, q_pe, k_pe[:, None])
        w = self.kv_b_proj.weight.view(self.heads, c.qk_nope_head_dim + c.v_head_dim, c.kv_lora_rank)
        q = torch.cat((torch.einsum("thd,hdc->thc", q_nope, w[:, :c.qk_nope_head_dim]), q_pe), -1)
        more = () if forward_batch is None else (forward_batch,)
        attend = self.attn_mqa if self.style == "sglang" else self.mla_attn
        out = attend(q, torch.cat((narrow, k_pe[:, 0]), -1), *more)
        return self.o_proj(torch.einsum("thc,hdc->thd", out, w[:, c.qk_nope_head_dim:]).reshape(len(out), -1))[0]


class Pairs(nn.Module):
    """Rotates neighbouring elements."""

    def __init__(self, inv_freq, factor):
        super().__init__()
        self.inv_freq, self.factor = inv_freq.float(), factor

    def forward(self, positions, *all_heads):
        angles = positions[:, None].float() * self.inv_freq
        cos, sin = angles.cos()[:, None] * self.factor, angles.sin()[:, None] * self.factor

        def turn(x):
            a, b = x[..., 0::2].float(), x[..., 1::2].float()
            return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2).to(x.dtype)

        return tuple(turn(x) for x in all_heads)


class MoeBlock(nn.Module):
    def __init__(self, style, gate, experts):
        super().__init__()
        self.gate, self.experts, self.style = Column([gate]), experts, style
        if style == "sglang":
            self.topk = TopK(*experts.topk)

    def forward(self, x):
        logits, _ = self.gate(x)
        if self.style == "sglang":
            return self.experts(x, topk=self.topk(x, logits))
        return self.experts(hidden_states=x, router_logits=logits)


class Mlp(nn.Module):
    def __init__(self, gate_up, down):
        super().__init__()
        self.gate_up_proj, self.down_proj, self.act_fn = gate_up, down, SiluAndMul()

    def forward(self, x):
        gate_up, _ = self.gate_up_proj(x)
        return self.down_proj(self.act_fn(gate_up))[0]


class SelfAttention(nn.Module):
    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, positions, hidden_states, forward_batch=None):
        qkv, _ = self.qkv_proj(hidden_states)
        a = self.attn
        q, k, v = qkv.split([a.heads * a.d, a.kv_heads * a.d, a.kv_heads * a.d], -1)
        if hasattr(self, "q_norm"):
            q = self.q_norm(q.reshape(q.shape[0], a.heads, a.d)).view(q.shape)
            k = self.k_norm(k.reshape(k.shape[0], a.kv_heads, a.d)).view(k.shape)
        q, k = self.rotary_emb(positions, q, k)
        more = () if forward_batch is None else (forward_batch,)
        return self.o_proj(a(q, k, v, *more))[0]


class Layer(nn.Module):
    def __init__(self, norm1, attention, norm2, mlp):
        super().__init__()
        self.input_layernorm, self.self_attn, self.post_attention_layernorm, self.mlp = norm1, attention, norm2, mlp

    def forward(self, positions, hidden_states, *rest):
        batch = {"forward_batch": rest[0]} if len(rest) == 2 else {}
        residual = rest[-1]
        if residual is None:
            residual, hidden_states = hidden_states, self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        hidden_states = self.self_attn(positions=positions, hidden_states=hidden_states, **batch)
        hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
        return self.mlp(hidden_states), residual


class Embedding(nn.Module):
    """A part of the vocabulary."""

    def __init__(self, group, rank, weight, first):
        super().__init__()
        self.group, self.rank, self.first = group, rank, first
        self.weight = nn.Parameter(weight, False)

    def forward(self, ids):
        mine = (ids >= self.first) & (ids < self.first + self.weight.shape[0])
        rows = self.weight[torch.where(mine, ids - self.first, 0)] * mine[:, None]
        return self.group.reduce(self.rank, rows)


class Logits(nn.Module):
    def __init__(self, group, rank):
        super().__init__()
        self.group, self.rank = group, rank

    def forward(self, *args):
        head, hidden = (args[2], args[1]) if len(args) == 4 else args
        if len(args) == 4:
            ends = torch.cumsum(args[3].extend_seq_lens, 0) - 1
            hidden = hidden[ends]
        return self.group.gather(self.rank, F.linear(hidden, head.weight)).float()


class Model(nn.Module):
    def __init__(self, embed, layers, norm):
        super().__init__()
        self.embed_tokens, self.layers, self.norm = embed, nn.ModuleList(layers), norm

    def forward(self, input_ids, positions, *batch):
        hidden, residual = self.embed_tokens(input_ids), None
        for layer in self.layers:
            hidden, residual = layer(positions, hidden, *batch, residual)
        return self.norm(hidden, residual)[0]


class ForCausalLM(nn.Module):
    def __init__(self, style, model, head, logits):
        super().__init__()
        self.model, self.lm_head, self.logits_processor, self.style = model, head, logits, style

    def forward(self, input_ids, positions, forward_batch=None):
        if self.style == "vllm":
            return self.model(input_ids, positions)
        hidden = self.model(input_ids, positions, forward_batch)
        return self.logits_processor(input_ids, hidden, self.lm_head, forward_batch)


def deepseek_layer(hf, style, group, rank, i, state):
    """Attention and MLP of a DeepSeek-V3 layer; experts are split between the ranks."""
    c, ranks = hf.config, group.size
    at, attn = f"model.layers.{i}.", f"model.layers.{i}.self_attn."
    rows = lambda name: state[name].chunk(ranks, 0)[rank]
    cols = lambda name: state[name].chunk(ranks, 1)[rank]
    alone = Group(1)
    rotary = Pairs(hf.model.rotary_emb.inv_freq, float(hf.model.rotary_emb.attention_scaling))
    names = {"sglang": ("fused_qkv_a_proj_with_mqa", "attn_mqa"), "vllm": ("fused_qkv_a_proj", "mla_attn")}[style]
    local = AbsorbedAttention(c.num_attention_heads // ranks, c, hf.model.layers[i].self_attn.scaling)
    attention = LatentAttention(style, c, rotary, c.num_attention_heads // ranks, **{
        names[0]: Column([state[attn + "q_a_proj.weight"], state[attn + "kv_a_proj_with_mqa.weight"]]),
        "q_a_layernorm": RMSNorm(state[attn + "q_a_layernorm.weight"], 1e-6), "q_b_proj": Column([rows(attn + "q_b_proj.weight")]),
        "kv_a_layernorm": RMSNorm(state[attn + "kv_a_layernorm.weight"], 1e-6), "kv_b_proj": Column([rows(attn + "kv_b_proj.weight")]),
        names[1]: local, "o_proj": Row(group, rank, cols(attn + "o_proj.weight"))})

    def dense(mlp, group):
        gate_up = Column([rows(f"{mlp}{n}_proj.weight") for n in ("gate", "up")])
        return Mlp(gate_up, Row(group, rank, cols(mlp + "down_proj.weight")))

    mlp = at + "mlp."
    if mlp + "gate.weight" not in state:
        return attention, dense(mlp, group)
    fused, down = state[mlp + "experts.gate_up_proj"], state[mlp + "experts.down_proj"]
    choose = GroupedTopK(c, state[mlp + "gate.e_score_correction_bias"])
    gate, inside = Column([state[mlp + "gate.weight"]]), style == "vllm"
    # vLLM's sum over ranks is of routed and shared experts together.
    shared = dense(mlp + "shared_experts.", alone if inside else group)
    factor = c.routed_scaling_factor
    experts = LocalExperts(group, rank, list(fused), list(down), choose, *((shared, gate, factor) if inside else ()))
    return attention, DeepseekMoe(style, gate, choose, experts, shared, factor)


def engine(hf, style, group, rank, window=None):
    """An engine's model with the weights of one of transformers."""
    c, state = hf.config, {k: v.to(torch.bfloat16) for k, v in hf.state_dict().items()}
    heads, kv, ranks = c.num_attention_heads, c.num_key_value_heads, group.size
    d = getattr(c, "head_dim", None) or c.hidden_size // heads

    def rows(name, parts=ranks, part=rank):
        return state[name].chunk(parts, 0)[part] if name in state else None

    def cols(name):
        return state[name].chunk(ranks, 1)[rank]

    rotary = Rotary(hf.model.rotary_emb.inv_freq, float(hf.model.rotary_emb.attention_scaling), d)
    layers = []
    for i in range(c.num_hidden_layers):
        at = f"model.layers.{i}."
        norm = [RMSNorm(state[f"{at}{n}.weight"], c.rms_norm_eps) for n in ("input_layernorm", "post_attention_layernorm")]
        if c.model_type == "deepseek_v3":
            attention, mlp = deepseek_layer(hf, style, group, rank, i, state)
            layers.append(Layer(norm[0], attention, norm[1], mlp))
            continue
        attn, mlp = at + "self_attn.", at + "mlp."
        split = {"q": (ranks, rank), "k": (min(ranks, kv), rank * min(ranks, kv) // ranks)}
        split["v"] = split["k"]
        parts = [rows(f"{attn}{n}_proj.weight", *split[n]) for n in "qkv"]
        biases = [rows(f"{attn}{n}_proj.bias", *split[n]) for n in "qkv"]
        local = Attention(heads // ranks, max(1, kv // ranks), d, d ** -0.5, window)
        modules = dict(qkv_proj=Column(parts, biases if biases[0] is not None else None), rotary_emb=rotary, attn=local,
                       o_proj=Row(group, rank, cols(attn + "o_proj.weight")))
        if attn + "q_norm.weight" in state:
            modules |= {n: RMSNorm(state[f"{attn}{n}.weight"], c.rms_norm_eps) for n in ("q_norm", "k_norm")}
        if mlp + "gate.weight" in state:
            experts = range(c.num_experts)
            fused = state.get(mlp + "experts.gate_up_proj")
            if fused is not None:
                gate_up = [torch.cat([h.chunk(ranks)[rank] for h in fused[e].chunk(2)]) for e in experts]
                down = [state[mlp + "experts.down_proj"][e].chunk(ranks, 1)[rank] for e in experts]
            else:
                gate_up = [torch.cat([rows(f"{mlp}experts.{e}.{n}_proj.weight") for n in ("gate", "up")]) for e in experts]
                down = [cols(f"{mlp}experts.{e}.down_proj.weight") for e in experts]
            moe = FusedMoE(group, rank, gate_up, down, c.num_experts_per_tok, c.norm_topk_prob)
            block = MoeBlock(style, state[mlp + "gate.weight"], moe)
        else:
            gate_up = Column([rows(f"{mlp}{n}_proj.weight") for n in ("gate", "up")])
            block = Mlp(gate_up, Row(group, rank, cols(mlp + "down_proj.weight")))
        layers.append(Layer(norm[0], SelfAttention(**modules), norm[1], block))
    table = rows("model.embed_tokens.weight")
    embed = Embedding(group, rank, table, rank * table.shape[0])
    head = nn.Module()
    head.weight = nn.Parameter(rows("lm_head.weight") if not c.tie_word_embeddings else table, False)
    final = RMSNorm(state["model.norm.weight"], c.rms_norm_eps)
    return ForCausalLM(style, Model(embed, layers, final), head, Logits(group, rank))


def run_engine(model, dumper, prompts, steps, pad=0):
    """A prefill of all prompts, then `steps` tokens each that are given."""
    done = [0] * len(prompts)
    for step in range(1 + steps):
        chunks = [p[:len(p) - steps] if step == 0 else p[len(p) - steps + step - 1:len(p) - steps + step] for p in prompts]
        CONTEXT.lengths = {i: len(c) for i, c in enumerate(chunks)}
        ids = torch.tensor(sum(chunks, []) + [0] * pad)
        positions = torch.tensor(sum((list(range(d, d + len(c))) for d, c in zip(done, chunks)), []) + [0] * pad)
        done = [d + len(c) for d, c in zip(done, chunks)]
        lengths = torch.tensor([len(c) for c in chunks])
        if model.style == "vllm":
            hidden = model(input_ids=ids, positions=positions)
            model.logits_processor(model.lm_head, hidden[torch.cumsum(lengths, 0) - 1])
        else:
            model(ids, positions, ForwardBatch(len(chunks), torch.tensor(done), lengths))


def run_reference(hf, folder, prompts, steps, options):
    """The same by transformers, prompts of one length or padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    even = bool((mask == 1).all())
    with torch.no_grad(), dump(hf, folder, **options):
        cache = None
        for step in range(1 + steps):
            end = longest - steps + step
            now = slice(0, end) if step == 0 else slice(end - 1, end)
            more = {} if even else {"attention_mask": mask[:, :end], "position_ids": positions[:, now]}
            out = hf(input_ids=ids[:, now], past_key_values=cache, use_cache=steps > 0, **more)
            cache = out.past_key_values if steps > 0 else None


def write(out, name="llama", style="vllm", ranks=1, prompts=None, steps=0, seed=0, plant=None, layers=4, small=False,
          pad=0, options=None, reference=True):
    hf = models.build(name, seed=seed, layers=layers, small=small)
    prompts = prompts or models.tokens(seed, 2, 12).tolist()
    out.mkdir(parents=True, exist_ok=True)
    window = getattr(hf.config, "sliding_window", None) if name == "mistral" else None
    if reference:
        models.build(name, seed=seed, dtype=torch.bfloat16, layers=layers, small=small).save_pretrained(out / "checkpoint")
        run_reference(hf, out / "reference", prompts, steps, options or {})
    group, errors = Group(ranks), []

    def work(rank):
        try:
            model = engine(hf, style, group, rank, window)
            if plant:
                plant(model, rank, group)
            dumper = Dumper(out / "candidate", rank=rank, tp=rank, **(options or {})).attach(model)
            with torch.no_grad():
                run_engine(model, dumper, prompts, steps, pad)
            dumper.close()
        except BaseException as error:
            errors.append(error)
            group.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    if errors:
        raise errors[0]


def replace(module, forward):
    original = module.forward
    module.forward = lambda *args, **kwargs: forward(original, *args, **kwargs)


# Faults. Of each: the layer and the names of operations that count as right.


@fault("clean", None)
def _(model, rank, group):
    pass


@fault("rank missing in o_proj", 2, "o_proj")
def _(model, rank, group):
    o = model.model.layers[2].self_attn.o_proj
    if rank == 1 or group.size == 1:
        with torch.no_grad():
            o.weight[:, : o.weight.shape[1] if group.size > 1 else o.weight.shape[1] // 2] = 0


@fault("sum over ranks missing in down_proj", 1, "down_proj", "residual")
def _(model, rank, group):
    down = model.model.layers[1].mlp.down_proj
    down.group = Group(1)


@fault("sum over ranks twice in o_proj", 1, "o_proj")
def _(model, rank, group):
    replace(model.model.layers[1].self_attn.o_proj, lambda f, x: (group.reduce(rank, f(x)[0]), None))


@fault("gate and up swapped", 3, "gate_proj", "up_proj", "swiglu")
def _(model, rank, group):
    replace(model.model.layers[3].mlp.act_fn, lambda f, x: f(torch.cat(x.chunk(2, -1)[::-1], -1)))


@fault("rope position off by one for keys", 1, "rope")
def _(model, rank, group):
    rotary = model.model.layers[1].self_attn.rotary_emb
    other = Rotary(rotary.inv_freq, rotary.factor, rotary.dim)
    replace(other, lambda f, p, q, k: (f(p, q, k)[0], f(p + 1, q, k)[1]))
    model.model.layers[1].self_attn.rotary_emb = other


@fault("attention scale", 2, "attention")
def _(model, rank, group):
    model.model.layers[2].self_attn.attn.scale *= 1.5


@fault("residual dropped in fused norm", 2, "residual", "post_attention_layernorm")
def _(model, rank, group):
    replace(model.model.layers[2].post_attention_layernorm, lambda f, x, r: (f(x, r * 0)[0], f(x, r)[1]))


@fault("final norm without residual", None, "norm")
def _(model, rank, group):
    replace(model.model.norm, lambda f, x, r: f(x, r * 0))


@fault("vocabulary shards exchanged", None, "lm_head")
def _(model, rank, group):
    if group.size == 1:
        replace(model.logits_processor, lambda f, *a: f(*a).roll(1, -1))
    else:
        replace(model.logits_processor, lambda f, *a: torch.cat(f(*a).chunk(group.size, -1)[::-1], -1))


@fault("kv heads exchanged", 1, "attention", "k_proj", "v_proj")
def _(model, rank, group):
    a = model.model.layers[1].self_attn.attn
    replace(a, lambda f, q, k, v, *b: f(q, k.roll(a.d // 2 if a.kv_heads == 1 else a.d, -1), v, *b))


@fault("lm_head reads another row", None, "lm_head", "wiring")
def _(model, rank, group):
    def forward(f, *args):
        args = list(args)
        args[1] = args[1].roll(1, 0)
        return f(*args)

    replace(model.logits_processor, forward)


# Of experts that are split between ranks, in a DeepSeek.


def split(model):
    return model.model.layers[2].mlp.experts


@fault("experts of one rank missing", 2, "experts")
def _(model, rank, group):
    if rank == group.size - 1:
        experts = split(model)
        experts.down = [torch.zeros_like(w) for w in experts.down]


@fault("map of experts off by one", 2, "experts")
def _(model, rank, group):
    experts = split(model)
    experts.gate_up, experts.down = experts.gate_up[1:] + experts.gate_up[:1], experts.down[1:] + experts.down[:1]


@fault("sum over ranks' experts missing", 2, "experts", "residual")
def _(model, rank, group):
    split(model).group = type("Alone", (), {"size": group.size, "reduce": lambda self, rank, x: x})()


@fault("sum over ranks' experts twice", 2, "experts")
def _(model, rank, group):
    replace(split(model), lambda f, *a, **kw: group.reduce(rank, f(*a, **kw)))


@fault("one expert on two ranks", 2, "experts")
def _(model, rank, group):
    # What two ranks compute is added twice.
    if rank == 0:
        experts = split(model)
        experts.down[0] = 2 * experts.down[0]


def fixtures(out):
    small = dict(layers=2, small=True, prompts=[p[:n] for p, n in zip(models.tokens(0, 2, 7).tolist(), (7, 5))])
    for name, style, ranks, steps in [("llama", "vllm", 1, 1), ("llama", "sglang", 2, 0), ("deepseek_v3", "vllm", 1, 1),
                                      ("deepseek_v3", "sglang", 2, 0)]:
        write(out / name / style, name, style, ranks, steps=steps, **small)
        # It is the one of the model's other fixtures.
        shutil.rmtree(out / name / style / "checkpoint")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--name", default="llama")
    parser.add_argument("--style", default="vllm", choices=["vllm", "sglang"])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pad", type=int, default=0)
    parser.add_argument("--uneven", action="store_true", help="prompts of different lengths")
    parser.add_argument("--fault", default="clean", choices=FAULTS)
    parser.add_argument("--fixtures", action="store_true")
    args = parser.parse_args()
    if args.fixtures:
        return fixtures(args.out)
    prompts = models.tokens(args.seed, 2, 12).tolist()
    if args.uneven:
        prompts[1] = prompts[1][:8]
    write(args.out, args.name, args.style, args.ranks, prompts, args.steps, args.seed, FAULTS[args.fault][2], pad=args.pad)


if __name__ == "__main__":
    main()
