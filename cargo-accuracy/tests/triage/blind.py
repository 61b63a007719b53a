"""Faults in families that `described.py` has few of, declared before triage was asked.

    python blind.py OUT [--only NUMBER,..] [--tool target/debug/cargo-accuracy] [--write | --judge]

The arguments of each `fault` are what is true: family, layer, the names of operations that are right, a pattern of a right
name of the mistake, and the kind of dump.
"""

import torch

import described
from described import attn, copy, every, fault, mlp, rotates_the_other_end, rotation
from live import attention, during, layer_of, replace

described.FAULTS.clear()


def experts(model, i):
    block = layer_of(model, i)
    return (block.mlp if hasattr(block, "mlp") else block.block_sparse_moe).experts


def router(model, i, change):
    """`change(logits, weights, ids)` of a layer's router."""
    replace(mlp(model, i).gate, lambda f, *args: change(*f(*args)))


# phi3: qkv_proj and gate_up_proj are one weight each


@fault(1, "phi3", 1, "k_proj|v_proj", "exchanged|v_proj|k_proj|rotated|order")
def _(model):
    w = attn(model, 1).qkv_proj.weight
    k, v = w[64:96].clone(), w[96:128].clone()
    copy(w[64:96], v)
    copy(w[96:128], k)


@fault(2, "phi3", 2, "swiglu", "swapped")
def _(model):
    m = mlp(model, 2)

    def forward(f, x):
        up, gate = m.gate_up_proj(x).chunk(2, -1)
        return m.down_proj(up * m.activation_fn(gate))

    replace(m, forward)


@fault(3, "phi3", 0, "rope", "twice|2 times|angle|frequenc|theta|position")
def _(model):
    rotation(model, 0, lambda f, q, k, cos, sin: f(*f(q, k, cos, sin), cos, sin))


@fault(4, "phi3", 3, "attention", "scale|scaled")
def _(model):
    attn(model, 3).scaling *= attn(model, 3).scaling


@fault(5, "phi3", 2, "attention", "heads of keys and values")
def _(model):
    attention(model, 2, lambda q, k, v, m, s, module: (q, k.flip(1), v.flip(1), m, s))


@fault(6, "phi3", 1, "attention", "cache|rounded|e4m3", "decode")
def _(model):
    attention(model, 1, lambda q, k, v, m, s, module: (q, k, v.to(torch.float8_e4m3fn).to(v.dtype), m, s))


# glm4: norms around both branches, pairs of neighbours rotate


@fault(7, "glm4", 1, "post_self_attn_layernorm", "nothing is normed|skipped")
def _(model):
    replace(layer_of(model, 1).post_self_attn_layernorm, lambda f, x: x)


@fault(8, "glm4", 2, "post_mlp_layernorm", "post_self_attn_layernorm")
def _(model):
    copy(layer_of(model, 2).post_mlp_layernorm.weight, layer_of(model, 2).post_self_attn_layernorm.weight)


@fault(9, "glm4", 0, "q_proj", "bias is missing")
def _(model):
    copy(attn(model, 0).q_proj.bias, torch.zeros(()))


@fault(10, "glm4", 3, "rope", "sine")
def _(model):
    rotation(model, 3, lambda f, q, k, cos, sin: f(q, k, cos, -sin))


@fault(11, "glm4", 2, "residual", "output of|norm|summand")
def _(model):
    layer = layer_of(model, 2)

    def forward(f, x, **kw):
        # The MLP's branch is added to the normed stream.
        y = x + layer.post_self_attn_layernorm(layer.self_attn(hidden_states=layer.input_layernorm(x), **kw)[0])
        normed = layer.post_attention_layernorm(y)
        return normed + layer.post_mlp_layernorm(layer.mlp(normed))

    replace(layer, forward)


# glm4_moe


@fault(12, "glm4_moe", 2, "router", "scaling")
def _(model):
    router(model, 2, lambda logits, w, ids: (logits, w / 1.5, ids))


@fault(13, "glm4_moe", 1, "router", "groups")
def _(model):
    gate = mlp(model, 1).gate

    def forward(f, x, *args):
        logits = torch.nn.functional.linear(x.reshape(-1, x.shape[-1]).float(), gate.weight.float())
        scores = logits.sigmoid()
        ids = (scores + gate.e_score_correction_bias).topk(2)[1]
        w = scores.gather(1, ids)
        return logits, w / w.sum(-1, keepdim=True) * 1.5, ids

    replace(gate, forward)


@fault(14, "glm4_moe", 3, "router", "correction")
def _(model):
    copy(mlp(model, 3).gate.e_score_correction_bias, torch.zeros(()))


@fault(15, "glm4_moe", 2, "experts|residual", "shared.*(missing|not)|only summand|summand")
def _(model):
    replace(mlp(model, 2).shared_experts, lambda f, x: 0 * f(x))


@fault(16, "glm4_moe", 1, "experts", "expert [0-9]+ .*weights of|left out")
def _(model):
    e = experts(model, 1)
    copy(e.down_proj[3], e.down_proj[2])
    copy(e.gate_up_proj[3], e.gate_up_proj[2])


@fault(17, "glm4_moe", 0, "k_norm", "q_norm")
def _(model):
    copy(attn(model, 0).k_norm.weight, attn(model, 0).q_norm.weight)


# olmo2: norms behind the branches, of all heads


@fault(18, "olmo2", 1, "post_attention_layernorm", "weight|gain")
def _(model):
    norm = layer_of(model, 1).post_attention_layernorm
    replace(norm, lambda f, x: f(x) / norm.weight)


@fault(19, "olmo2", 2, "k_norm", "head")
def _(model):
    norm = attn(model, 2).k_norm

    def forward(f, x):
        heads = x.float().view(*x.shape[:-1], 2, -1)
        return norm.weight * (heads * torch.rsqrt(heads.pow(2).mean(-1, keepdim=True) + 1e-6)).reshape(x.shape).to(x.dtype)

    replace(norm, forward)


@fault(20, "olmo2", 3, "residual|post_feedforward_layernorm|wiring*", "twice|norm|summand|residual")
def _(model):
    layer = layer_of(model, 3)
    replace(layer.post_feedforward_layernorm, lambda f, x: f(f(x)))


@fault(21, "olmo2", 0, "attention", "causal")
def _(model):
    attention(model, 0, lambda q, k, v, m, s, module: (q, k, v, torch.zeros_like(m), s))


@fault(22, "olmo2", 2, "down_proj", "part 1 of 4|rank")
def _(model):
    w = mlp(model, 2).down_proj.weight
    copy(w[:, :24], torch.zeros(()))


# granite: multipliers


@fault(23, "granite", None, "embedding", "multiplier")
def _(model):
    model.model.embedding_multiplier = 1.0


@fault(24, "granite", 1, "residual", "multiplier")
def _(model):
    layer_of(model, 1).residual_multiplier = 1.0


@fault(25, "granite", 2, "attention", "scale")
def _(model):
    attn(model, 2).scaling = attn(model, 2).head_dim ** -0.5


@fault(26, "granite", 3, "up_proj", "scaled by 1.03|constant")
def _(model):
    w = mlp(model, 3).up_proj.weight
    copy(w, w * 1.03)


# minimax_m2


@fault(27, "minimax_m2", 2, "router", "softmax")
def _(model):
    router(model, 2, lambda logits, w, ids: (logits, logits.softmax(-1).gather(1, ids), ids))


@fault(28, "minimax_m2", 1, "router", "renormalised")
def _(model):
    router(model, 1, lambda logits, w, ids: (logits, logits.float().sigmoid().gather(1, ids), ids))


@fault(29, "minimax_m2", 0, "rope", "half|part|elements|whole|all|dims")
def _(model):
    def change(f, q, k, cos, sin):
        d = q.shape[-1]
        inv = 1e4 ** (-torch.arange(0, d, 2).float() / d)
        angles = torch.arange(q.shape[2])[:, None] * inv
        c, s = (torch.cat((t, t), -1).to(q.dtype)[None] for t in (angles.cos(), angles.sin()))
        return f(q, k, c, s)

    rotation(model, 0, change)


@fault(30, "minimax_m2", 3, "experts", "GELU")
def _(model):
    experts(model, 3).act_fn = torch.nn.GELU()


# qwen3_next


@fault(31, "qwen3_next", 0, "delta*", "decay")
def _(model):
    described.delta(model, 0, lambda f, *args, g=None, **kw: f(*args, g=torch.zeros_like(g), **kw))


@fault(32, "qwen3_next", 1, "delta*", "convolution|activation|SiLU")
def _(model):
    layer_of(model, 1).linear_attn.activation = None


@fault(33, "qwen3_next", 2, "delta*", "scale|heads|key")
def _(model):
    # Value heads go with key heads in turn, not in groups.
    def change(f, q, k, v, **kw):
        each = v.shape[2] // q.shape[2]
        tile = lambda x: x.repeat(1, 1, each, 1)
        return f(tile(q), tile(k), v, **kw)

    described.delta(model, 2, change)


@fault(34, "qwen3_next", 1, "experts|shared_expert_gate", "gate")
def _(model):
    gate = mlp(model, 1).shared_expert_gate
    replace(gate, lambda f, x: f(x) + 100)


@fault(35, "qwen3_next", 0, "linear_attn.norm", "gate")
def _(model):
    norm = layer_of(model, 0).linear_attn.norm
    replace(norm, lambda f, x, gate=None: f(x, torch.full_like(gate, 1.278465)))


@fault(36, "qwen3_next", 3, "attention*", "pairs|part|elements|rope|rotated")
def _(model):
    rotates_the_other_end(model, 3)


# gemma2, mixtral


@fault(37, "gemma2", 0, "attention", "window")
def _(model):
    def change(q, k, v, m, s, module):
        n = q.shape[2]
        far = torch.arange(n)[:, None] - torch.arange(n)[None] >= 7
        return q, k, v, m.masked_fill(far, torch.finfo(m.dtype).min), s

    attention(model, 0, change)


@fault(38, "gemma2", 3, "pre_feedforward_layernorm", "w in place of 1")
def _(model):
    w = layer_of(model, 3).pre_feedforward_layernorm.weight
    copy(w, w - 1)


@fault(39, "gemma2", 2, "swiglu|activation", "GELU")
def _(model):
    mlp(model, 2).act_fn = torch.nn.GELU()


@fault(40, "mixtral", 1, "router", "fewer|zero|last")
def _(model):
    def change(logits, w, ids):
        one = torch.zeros_like(w)
        one[:, 0] = 1
        return logits, one, ids

    router(model, 1, change)


@fault(41, "mixtral", 2, "experts", "order|another expert|slot")
def _(model):
    replace(experts(model, 2), lambda f, x, ids, w: f(x, ids, w.flip(-1)))


@fault(42, "mixtral", 3, "attention", "padding", "padded")
@every
def _(model, i):
    # Off by one: the first real token is hidden, too.
    def change(q, k, v, m, s, module):
        return q, k, v, m.roll(1, -1).masked_fill(torch.ones_like(m, dtype=torch.bool).triu(1), torch.finfo(m.dtype).min), s

    attention(model, i, change)


described.FAULTS[42] = ("mixtral", 0) + described.FAULTS[42][2:]


# Written by the writer of their operations, so not blind: llama4, nemotron_h, deepseek_v32


def ff(model, i):
    return layer_of(model, i).feed_forward


def mixer(model, i):
    return layer_of(model, i).mixer


@fault(51, "llama4", 0, "rope", "pairs")
def _(model):
    def change(original):
        def rotate(q, k, freqs):
            c, s = freqs.real[:, :, None], freqs.imag[:, :, None]

            def halves(x):
                a, b = x.float().chunk(2, -1)
                return torch.cat((a * c - b * s, b * c + a * s), -1).type_as(x)

            return halves(q), halves(k)

        return rotate

    during(attn(model, 0), apply_rotary_emb=change)


@fault(52, "llama4", 1, "q_norm", "nothing is normed")
def _(model):
    norm = attn(model, 1).qk_norm
    calls = [0]

    def forward(f, x):
        calls[0] += 1
        return x if calls[0] % 2 else f(x)

    replace(norm, forward)


@fault(53, "llama4", 2, "attention", "not scaled by their position")
def _(model):
    attn(model, 2).attn_temperature_tuning = False


@fault(54, "llama4", 3, "attention", "position")
def _(model):
    # floor(position / floor) in place of floor((position + 1) / floor)
    a = attn(model, 3)

    def change(q, k, v, m, s, module):
        p = torch.arange(q.shape[2]).float()
        right = (torch.log1p(torch.floor((p + 1) / 4)) * 0.3 + 1)[None, None, :, None]
        wrong = (torch.log1p(torch.floor(p / 4)) * 0.3 + 1)[None, None, :, None]
        return (q / right * wrong).to(q.dtype), k, v, m, s

    attention(model, 3, change)


def far(model, i, hide):
    def change(q, k, v, m, s, module):
        n = q.shape[2]
        later = torch.arange(n)[:, None] < torch.arange(n)[None]
        wrong = later | hide(torch.arange(n)[:, None], torch.arange(n)[None])
        return q, k, v, torch.zeros_like(m).masked_fill(wrong, torch.finfo(m.dtype).min), s

    attention(model, i, change)


@fault(55, "llama4", 0, "attention", "window of 8")
def _(model):
    far(model, 0, lambda q, k: q - k >= 8)


@fault(56, "llama4", 1, "attention", "chunks are ignored")
def _(model):
    far(model, 1, lambda q, k: torch.zeros(q.shape[0], k.shape[1], dtype=torch.bool))


@fault(57, "llama4", 1, "experts", "output")
def _(model):
    block = ff(model, 1)

    def forward(f, x):
        x = x.reshape(-1, x.shape[-1])
        scores, logits = block.router(x)
        y = block.experts(x.repeat(scores.shape[1], 1)) * scores.transpose(0, 1).reshape(-1, 1)
        return block.shared_expert(x) + y.reshape(scores.shape[1], -1, x.shape[-1]).sum(0), logits

    replace(block, forward)


@fault(58, "llama4", 3, "router", "softmax")
def _(model):
    def forward(f, x):
        scores, logits = f(x)
        return torch.where(scores > 0, logits.softmax(-1), scores), logits

    replace(ff(model, 3).router, forward)


@fault(59, "llama4", 3, "experts", "shared|summand")
def _(model):
    block = ff(model, 3)
    replace(block, lambda f, x: (f(x)[0] - block.shared_expert(x.reshape(-1, x.shape[-1])), f(x)[1]))


@fault(60, "llama4", 1, "experts", "swapped")
def _(model):
    w = ff(model, 1).experts.gate_up_proj
    copy(w, w.roll(w.shape[-1] // 2, -1))


@fault(61, "nemotron_h", 0, "state_space", "skip")
def _(model):
    copy(mixer(model, 0).D, torch.zeros(()))


@fault(62, "nemotron_h", 0, "state_space", "bias of the time steps")
def _(model):
    copy(mixer(model, 0).dt_bias, torch.zeros(()))


def scan(model, i, change):
    """`change(original, x, dt, A, B, C, **options)` in place of the scan of a layer."""
    during(mixer(model, i), mamba2_chunk_scan=lambda f: lambda *args, **kw: change(f, *args, **kw),
           mamba2_selective_state_update=lambda f: f)


@fault(63, "nemotron_h", 0, "state_space", "exchanged")
def _(model):
    scan(model, 0, lambda f, x, dt, A, B, C, **kw: f(x, dt, A, C, B, **kw))


@fault(64, "nemotron_h", 0, "state_space", "decay")
def _(model):
    scan(model, 0, lambda f, x, dt, A, B, C, **kw: f(x, dt, 0 * A, B, C, **kw))


@fault(65, "nemotron_h", 0, "state_space", "state of the passes before", "decode")
def _(model):
    during(mixer(model, 0), mamba2_selective_state_update=lambda f: lambda state, *args, **kw: f(torch.zeros_like(state), *args, **kw))


@fault(66, "nemotron_h", 0, "mixer.norm", "other side")
def _(model):
    norm = mixer(model, 0).norm

    def forward(f, x, gate=None):
        return f(x) * torch.nn.functional.silu(gate.float())

    replace(norm, forward)


@fault(67, "nemotron_h", 0, "mixer.norm", "together")
def _(model):
    mixer(model, 0).norm.group_size = 64


@fault(68, "nemotron_h", 1, "experts", "ReLU")
def _(model):
    mixer(model, 1).experts.act_fn = torch.nn.ReLU()


@fault(69, "nemotron_h", 3, "activation", "SiLU")
def _(model):
    mixer(model, 3).act_fn = torch.nn.SiLU()


@fault(70, "nemotron_h", 1, "fc2_latent_proj", "part 2 of 2")
def _(model):
    w = mixer(model, 1).fc2_latent_proj.weight
    copy(w[:, w.shape[1] // 2:], torch.zeros(()))


@fault(71, "nemotron_h", 2, "attention", "scale")
def _(model):
    mixer(model, 2).scaling = 1.0 / mixer(model, 2).head_dim


@fault(72, "deepseek_v32", 1, "indexer", "rotated")
def _(model):
    during(attn(model, 1).indexer, apply_rotary_pos_emb=lambda f: lambda q, k, cos, sin, **kw: (q, k))


@fault(73, "deepseek_v32", 2, "indexer", "weights of its heads")
def _(model):
    replace(attn(model, 2).indexer.weights_proj, lambda f, x: torch.ones_like(f(x)))


@fault(74, "deepseek_v32", 0, "attention", "all positions")
def _(model):
    def change(q, k, v, m, s, module):
        n = q.shape[2]
        return q, k, v, torch.zeros_like(m).masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), torch.finfo(m.dtype).min), s

    attention(model, 0, change)


@fault(75, "deepseek_v32", 2, "indexer.k_norm", "bias")
def _(model):
    copy(attn(model, 2).indexer.k_norm.bias, torch.zeros(()))


@fault(76, "deepseek_v32", 1, "indexer", "later|other positions")
def _(model):
    # The positions of the row before.
    replace(attn(model, 1).indexer, lambda f, *args, **kw: f(*args, **kw).roll(1, 1))



if __name__ == "__main__":
    described.main()
