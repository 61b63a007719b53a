"""Tiny models of the architectures that triage replays: random weights, real transformers code.

    python models.py OUT [NAME...]

writes OUT/NAME/checkpoint and dumps of one pass over two sequences, OUT/NAME/bf16 and OUT/NAME/f32. It needs torch and
transformers. `live.py` plants faults in the same models. The folders beside it were written by

    python models.py --fixtures fixtures llama qwen3_moe deepseek_v3 gpt_oss bert
    python models.py --passes fixtures

The second writes other passes of the same models: OUT/NAME/PASS-bf16 and OUT/NAME/PASS-f32.
"""

import argparse
import pathlib
import sys

import torch
import transformers as tf

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "hooks"))
from accuracy_dump import dump  # noqa: E402

tf.logging.set_verbosity_error()
tf.logging.disable_progress_bar()

VOCAB = 96
COMMON = dict(vocab_size=VOCAB, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=8.0, beta_fast=32.0, beta_slow=1.0,
            original_max_position_embeddings=32)


def config(name, layers=4, small=False):
    hidden, wide = (32, 48) if small else (64, 96)
    d = hidden // 4
    if name == "llama":
        return tf.LlamaConfig(**COMMON, hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers,
                              num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters=LLAMA3,
                              tie_word_embeddings=False)
    if name == "qwen3":
        return tf.Qwen3Config(**COMMON, hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers, head_dim=d + 8,
                              num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
                              tie_word_embeddings=True)
    if name == "qwen3_moe":
        return tf.Qwen3MoeConfig(**COMMON, hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers, head_dim=d + 8,
                                 num_attention_heads=4, num_key_value_heads=2, num_experts=hidden // 8, num_experts_per_tok=2,
                                 moe_intermediate_size=32, norm_topk_prob=True, mlp_only_layers=[1],
                                 tie_word_embeddings=False)
    if name == "deepseek_v3":
        return tf.DeepseekV3Config(**COMMON, hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers,
                                   num_attention_heads=4, num_key_value_heads=4, q_lora_rank=32, kv_lora_rank=24,
                                   qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16, n_routed_experts=16,
                                   num_experts_per_tok=4, n_group=4, topk_group=2, moe_intermediate_size=24,
                                   n_shared_experts=1, routed_scaling_factor=2.5, first_k_dense_replace=1,
                                   rope_parameters=YARN | dict(mscale=1.0, mscale_all_dim=1.0),
                                   tie_word_embeddings=False)
    if name == "deepseek_v32":
        return tf.DeepseekV32Config(**COMMON, hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers,
                                    num_attention_heads=4, num_key_value_heads=4, q_lora_rank=32, kv_lora_rank=24,
                                    qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16, n_routed_experts=16,
                                    num_experts_per_tok=4, n_group=4, topk_group=2, moe_intermediate_size=24,
                                    n_shared_experts=1, routed_scaling_factor=2.5, first_k_dense_replace=1,
                                    index_topk=6, index_head_dim=16, index_n_heads=4,
                                    rope_parameters=YARN | dict(mscale=1.0, mscale_all_dim=1.0),
                                    tie_word_embeddings=False)
    if name == "gpt_oss":
        return tf.GptOssConfig(**COMMON, hidden_size=hidden, intermediate_size=wide // 2, num_hidden_layers=layers, head_dim=d,
                               num_attention_heads=4, num_key_value_heads=2, num_local_experts=hidden // 8,
                               num_experts_per_tok=2, sliding_window=8, swiglu_limit=2.0, rms_norm_eps=1e-5,
                               rope_parameters=YARN | dict(truncate=False), tie_word_embeddings=False)
    if name == "bert":
        return tf.BertConfig(vocab_size=VOCAB, hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers,
                             num_attention_heads=4, max_position_embeddings=64)
    shape = COMMON | dict(hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers, num_attention_heads=4,
                          num_key_value_heads=2, tie_word_embeddings=False)
    experts = dict(num_experts_per_tok=2, moe_intermediate_size=32)
    if name == "qwen2":
        return tf.Qwen2Config(**shape)
    if name == "mistral":
        return tf.MistralConfig(**shape, sliding_window=8, head_dim=d)
    if name == "mixtral":
        return tf.MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2)
    if name == "gemma2":
        return tf.Gemma2Config(**shape, head_dim=d, query_pre_attn_scalar=24, sliding_window=8,
                               attn_logit_softcapping=5.0, final_logit_softcapping=3.0)
    if name == "gemma3":
        return tf.Gemma3TextConfig(**shape, head_dim=d, query_pre_attn_scalar=24, sliding_window=8)
    if name == "phi3":
        return tf.Phi3Config(**shape)
    if name == "glm4":
        return tf.Glm4Config(**shape, head_dim=d, attention_bias=True)
    if name == "glm4_moe":
        return tf.Glm4MoeConfig(**shape, **experts, head_dim=d, n_routed_experts=8, n_group=2, topk_group=1,
                                n_shared_experts=1, routed_scaling_factor=1.5, first_k_dense_replace=1,
                                use_qk_norm=True)
    if name == "olmo2":
        return tf.Olmo2Config(**shape)
    if name == "granite":
        return tf.GraniteConfig(**shape, embedding_multiplier=6.0, residual_multiplier=0.4, logits_scaling=4.0,
                                attention_multiplier=0.2)
    if name == "qwen3_next":
        kinds = ["linear_attention"] * (layers - 1) + ["full_attention"]
        return tf.Qwen3NextConfig(**shape, **experts, head_dim=d, num_experts=8, norm_topk_prob=True, layer_types=kinds,
                                  shared_expert_intermediate_size=24, linear_num_key_heads=2, linear_num_value_heads=4,
                                  linear_key_head_dim=d, linear_value_head_dim=d, linear_conv_kernel_dim=4)
    if name == "minimax_m2":
        return tf.MiniMaxM2Config(**shape, head_dim=d, num_local_experts=4, num_experts_per_tok=2, rotary_dim=d // 2)
    if name == "llama4":
        # The second half of the layers has neither rotation nor chunks, and queries that are scaled within a few tokens.
        return tf.Llama4TextConfig(**shape | dict(intermediate_size=32), head_dim=d, intermediate_size_mlp=wide, num_local_experts=4,
                                   num_experts_per_tok=2, interleave_moe_layer_step=2, use_qk_norm=True,
                                   no_rope_layers=[1] * (layers // 2) + [0] * (layers - layers // 2), attention_chunk_size=8, floor_scale=4,
                                   attn_scale=0.3, rope_parameters=LLAMA3)
    if name == "nemotron_h":
        kinds = ["linear_attention", "moe", "full_attention", "mlp", "linear_attention", "moe"][:max(layers, 4)]
        del shape["num_hidden_layers"]
        return tf.NemotronHConfig(**shape, **experts, head_dim=d, layers_block_type=kinds, ssm_state_size=8, mamba_num_heads=4,
                                  mamba_head_dim=d, n_groups=2, chunk_size=8, n_routed_experts=8, n_group=2, topk_group=1,
                                  moe_shared_expert_intermediate_size=24, routed_scaling_factor=1.5, moe_latent_size=24)
    raise SystemExit(f"no model is called {name}")


# A folder with a real encoder of BERT's architecture: what `minilm` stands for.
ENCODER = None
NAMES = ["llama", "qwen3", "qwen3_moe", "deepseek_v3", "gpt_oss", "bert", "qwen2", "mistral", "mixtral", "gemma2", "gemma3",
         "phi3", "glm4", "glm4_moe", "olmo2", "granite", "minimax_m2", "qwen3_next", "llama4", "nemotron_h", "deepseek_v32"]


def build(name, seed=0, dtype=torch.float32, layers=4, attention="eager", small=False):
    if name == "minilm":
        return rounded(tf.AutoModel.from_pretrained(ENCODER, dtype=torch.float32, attn_implementation=attention), dtype)
    torch.manual_seed(seed)
    kind = tf.AutoModel if name == "bert" else tf.AutoModelForCausalLM
    model = kind.from_config(config(name, layers, small), attn_implementation=attention)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, p in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" in path or "embed_scale" in path or not p.is_floating_point():
                continue
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in path.lower() and not path.endswith("bias"):
                p.copy_(1 + 0.3 * noise)
            elif "correction_bias" in path:
                p.copy_(0.1 * noise)
            elif "embed" in path:
                p.copy_(0.02 * noise)
            elif "sinks" in path:
                p.copy_(noise)
            elif p.dim() == 1 or path.endswith("_bias"):
                p.copy_(0.3 * noise)
            else:
                # Of experts of gpt-oss and Llama 4, the inner dimension is the middle one.
                fan_in = p.shape[1] if name in ("gpt_oss", "llama4") and p.dim() == 3 else p.shape[-1]
                p.copy_(noise * (2.0 if "gate" in path or "q_" in path or "k_" in path else 1.0) / fan_in**0.5)
    return rounded(model, dtype)


def rounded(model, dtype):
    # Stored in bfloat16, so that runs in bfloat16 and float32 have the same weights. Frequencies stay in float32, as
    # they do when a checkpoint is loaded: `model.to` would round them, too.
    frequencies = {path: b.clone() for path, b in model.named_buffers() if "inv_freq" in path or "embed_scale" in path}
    model = model.to(torch.bfloat16).to(dtype).eval()
    for path, b in model.named_buffers():
        if path in frequencies:
            b.data = frequencies[path]
    return model


def tokens(seed=0, batch=2, length=24, vocab=range(3, VOCAB)):
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randint(vocab.start, vocab.stop, (batch, length), generator=generator)


def run(model, ids, folder, **options):
    with torch.no_grad(), dump(model, folder, **options):
        model(input_ids=ids, **({} if model.config.model_type == "bert" else {"use_cache": False}))


def decoding(model, folder):
    # Only a later pass is dumped: what the ones before it left is in the cache.
    ids = tokens(batch=2, length=5)
    with torch.no_grad(), dump(model, folder, steps={1}):
        cache = tf.DynamicCache(config=model.config)
        model(input_ids=ids, past_key_values=cache, use_cache=True)
        model(input_ids=ids[:, :2] + 1, past_key_values=cache, use_cache=True)


def static(model, folder):
    # Two passes over a cache that has empty places.
    ids = tokens(batch=1, length=5)
    with torch.no_grad(), dump(model, folder):
        cache = tf.StaticCache(config=model.config, max_cache_len=9)
        model(input_ids=ids[:, :4], past_key_values=cache, use_cache=True)
        model(input_ids=ids[:, 4:], past_key_values=cache, use_cache=True)


def offset(model, folder):
    # Positions that do not begin at 0, and nothing before them; only the head's last row is computed.
    with torch.no_grad(), dump(model, folder):
        model(input_ids=tokens(batch=1, length=5), position_ids=torch.arange(40, 45)[None], use_cache=False,
              logits_to_keep=1)


def padded(model, folder):
    ids = tokens(batch=2, length=6)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad(), dump(model, folder):
        model(input_ids=ids * mask, attention_mask=mask, use_cache=False)


PASSES = {"decoding": (decoding, ["llama", "deepseek_v3"]), "static": (static, ["deepseek_v3"]),
          "offset": (offset, ["llama"]), "padded": (padded, ["qwen3_moe"])}


def write_passes(out):
    for label, (run_pass, names) in PASSES.items():
        for name in names:
            for kind, dtype, attention in [("f32", torch.float32, "eager"), ("bf16", torch.bfloat16, "sdpa")]:
                model = build(name, dtype=dtype, layers=2, attention=attention, small=True)
                run_pass(model, out / name / f"{label}-{kind}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--fixtures", action="store_true", help="small ones, in bfloat16 and float32")
    parser.add_argument("--passes", action="store_true", help="other passes of the small ones")
    args = parser.parse_args()
    if args.passes:
        return write_passes(args.out)
    for name in args.names:
        folder = args.out / name
        shape = dict(layers=2, small=True) if args.fixtures else {}
        build(name, dtype=torch.bfloat16, **shape).save_pretrained(folder / "checkpoint")
        ids = tokens(batch=1, length=10) if args.fixtures else tokens()
        run(build(name, dtype=torch.bfloat16, **shape), ids, folder / "bf16")
        run(build(name, **shape), ids, folder / "f32")


if __name__ == "__main__":
    main()
