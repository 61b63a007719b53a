"""The twenty-line check in PyTorch: what users do today. One measurement a call, printed as a line of JSON.

peer.py make DIR N K M...   writes a checkpoint: FP8 weight with 128x128 block scales, x.M, and y.M = x.M w^T in bfloat16
peer.py check DIR M         open, dequantise to float32, multiply, float32 cosine
peer.py verdict COUNT       float64 cosine of two float32 vectors
"""

import json
import sys
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

BLOCK = 128


def dequantise(w, scales):
    n, k = w.shape
    return (w.float().view(n // BLOCK, BLOCK, k // BLOCK, BLOCK) * scales[:, None, :, None]).view(n, k)


def make(folder, n, k, tokens):
    torch.manual_seed(0)
    w = torch.randn(n, k).mul_(100).clamp_(-448, 448).to(torch.float8_e4m3fn)
    scales = torch.rand(n // BLOCK, k // BLOCK) * 1e-3 + 1e-4
    tensors = {"w.weight": w, "w.weight_scale_inv": scales}
    whole = dequantise(w, scales)
    for m in tokens:
        x = torch.randn(m, k).to(torch.bfloat16)
        tensors[f"x.{m}"] = x
        tensors[f"y.{m}"] = (x.float() @ whole.T).to(torch.bfloat16)
    save_file(tensors, f"{folder}/model.safetensors")
    quantisation = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK]}
    with open(f"{folder}/config.json", "w") as file:
        json.dump({"quantization_config": quantisation}, file)


def peak_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def check(folder, m):
    begin = time.perf_counter()
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        w = dequantise(file.get_tensor("w.weight"), file.get_tensor("w.weight_scale_inv"))
        x, y = file.get_tensor(f"x.{m}").float(), file.get_tensor(f"y.{m}").float()
    dequantised = time.perf_counter()
    reference = x @ w.T
    cos = torch.nn.functional.cosine_similarity(reference.flatten(), y.flatten(), dim=0).item()
    end = time.perf_counter()
    return {"seconds": end - begin, "dequantise": dequantised - begin, "cos": cos, "peak_bytes": peak_bytes()}


def verdict(count):
    x = torch.rand(count) * 2 - 1
    y = x + (torch.rand(count) * 2 - 1) * 0.02
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        cos = torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=0).item()
        best = min(best, time.perf_counter() - begin)
    single = torch.nn.functional.cosine_similarity(x, y, dim=0).item()
    return {"seconds": best, "cos": cos, "float32_cos": single}


def main():
    command, *arguments = sys.argv[1:]
    if command == "make":
        make(arguments[0], int(arguments[1]), int(arguments[2]), [int(m) for m in arguments[3:]])
    elif command == "check":
        print(json.dumps(check(arguments[0], int(arguments[1]))))
    elif command == "verdict":
        print(json.dumps(verdict(int(arguments[0]))))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
