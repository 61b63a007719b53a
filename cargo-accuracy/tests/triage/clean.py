"""Clean pairs over families and kinds of dumps: triage must not blame any of them.

    python clean.py OUT [--tool target/debug/cargo-accuracy] [--only WORD] [--seeds 2]

Prints a line for each pair that is not "agrees" and fails if one is a fault.
"""

import argparse
import collections
import json
import pathlib
import shutil

import torch

import described
import engines
import models
from live import triage

DENSE = ["llama", "qwen2", "qwen3", "mistral"]
FLASH = [n for n in models.NAMES if n not in ("bert", "gpt_oss", "gemma2")]


def transformers_kinds():
    for name in models.NAMES:
        for kind in ("eager", "sdpa", "padded", "decode"):
            if kind == "sdpa" and name not in FLASH or kind == "decode" and name == "bert":
                continue
            yield f"{name}-{kind}", (name, kind)


def engine_kinds():
    for name in [*DENSE, "qwen3_moe", "deepseek_v3"]:
        for style in ("vllm", "sglang"):
            for ranks in (1, 2, 4):
                for steps in (0, 2):
                    yield f"{name}-{style}-tp{ranks}-{'decode' if steps else 'prefill'}", (name, style, ranks, steps)


def prompts(seed, uneven):
    both = models.tokens(seed, 2, 12).tolist()
    if uneven:
        both[1] = both[1][:8]
    return both


def write_transformers(folder, name, kind, seed):
    sdpa = "sdpa" if kind == "sdpa" else "eager"
    models.build(name, seed=seed, dtype=torch.bfloat16).save_pretrained(folder / "checkpoint")
    for part, dtype, attention in [("reference", torch.float32, "eager"), ("candidate", torch.bfloat16, sdpa)]:
        described.run(models.build(name, seed=seed, dtype=dtype, attention=attention), "prefill" if kind in ("eager", "sdpa") else kind,
                      folder / part)


GROUP = 8


def int4(w):
    """Codes of 4 bits and a scale in bfloat16 for each group of a row."""
    groups = w.reshape(*w.shape[:-1], -1, GROUP)
    scales = (groups.abs().amax(-1, keepdim=True) / 7).to(torch.bfloat16).float().clamp(min=1e-6)
    codes = (groups / scales).round().clamp(-8, 7)
    return codes.reshape(w.shape).int(), scales[..., 0], (codes * scales).reshape(w.shape)


def packed(codes):
    """Eight codes in each word, the first in the lowest bits, counted from -8."""
    parts = (codes.long() + 8).reshape(codes.shape[0], -1, 8)
    words = (parts << (4 * torch.arange(8))).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def write_int4(folder, name, kind, seed):
    """Experts of a checkpoint in 4 bits; both runs have what these decode to."""
    from safetensors.torch import load_file, save_file

    checkpoint = folder / "checkpoint"
    models.build(name, seed=seed, dtype=torch.bfloat16).save_pretrained(checkpoint)
    tensors, ignored = {}, []
    for key, w in load_file(checkpoint / "model.safetensors").items():
        base, _, leaf = key.rpartition(".")
        if ".experts." in key:
            codes, scales, _ = int4(w.float())
            tensors |= {f"{base}.weight_packed": packed(codes), f"{base}.weight_scale": scales.to(torch.bfloat16),
                        f"{base}.weight_shape": torch.tensor(w.shape)}
            continue
        tensors[key] = w
        if leaf == "weight" and w.dim() == 2:
            ignored.append(base)
    save_file(tensors, checkpoint / "model.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
    config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ignored,
                                     "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    for part, dtype, attention in [("reference", torch.float32, "eager"), ("candidate", torch.bfloat16, "sdpa")]:
        model = models.build(name, seed=seed, attention=attention)
        with torch.no_grad():
            for path, p in model.named_parameters():
                if ".experts." in path:
                    p.copy_(int4(p)[2])
        frequencies = {path: b.clone() for path, b in model.named_buffers() if "inv_freq" in path}
        model = model.to(dtype)
        for path, b in model.named_buffers():
            if path in frequencies:
                b.data = frequencies[path]
        described.run(model, kind, folder / part)


def write_fp8(folder, seed):
    described.save("llama_fp8", folder / "checkpoint")
    described.run(described.build("llama_fp8", torch.float32), "prefill", folder / "reference")
    described.run(described.candidate("llama_fp8", lambda model: None), "prefill", folder / "candidate")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tool", default="target/debug/cargo-accuracy")
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    pairs = []
    for seed in range(args.seeds):
        pairs += [(f"{name}-{seed}", lambda f, k=kind, s=seed: write_transformers(f, *k, s)) for name, kind in transformers_kinds()]
        for i, (name, kind) in enumerate(engine_kinds()):
            def write(f, k=kind, s=seed, i=i):
                model, style, ranks, steps = k
                engines.write(f, model, style, ranks, prompts(s, i % 2 == 1), steps, s, pad=3 * (i % 3 == 2))

            pairs.append((f"{name}-{seed}", write))
        for name in ("qwen3_moe", "deepseek_v3"):
            for kind in ("prefill", "padded", "decode"):
                pairs.append((f"{name}_int4-{kind}-{seed}", lambda f, n=name, k=kind, s=seed: write_int4(f, n, k, s)))
        pairs.append((f"llama_fp8-{seed}", lambda f, s=seed: write_fp8(f, s)))
    verdicts = collections.Counter()
    for name, write in pairs:
        if args.only not in name:
            continue
        folder = args.out / name
        if not (folder / "candidate").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                write(folder)
            except Exception as error:
                print(f"{name}: not written: {type(error).__name__}: {error}", flush=True)
                shutil.rmtree(folder, ignore_errors=True)
                continue
        _, report = triage(args.tool, folder / "reference", folder / "candidate", folder / "checkpoint")
        verdicts[report["verdict"]] += 1
        if report["verdict"] != "agrees":
            print(f"{name}: {report['verdict']} {report['guilty']}", flush=True)
            for step in report["steps"]:
                if step["status"] in ("inconclusive", "fault"):
                    print("   ", step["question"], step["evidence"], flush=True)
    print(dict(verdicts))
    if verdicts["fault"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
