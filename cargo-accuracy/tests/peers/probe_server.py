"""`cargo accuracy probe` against a real server: `transformers serve` on loopback with a tiny random model.

    pip install torch accelerate "transformers[serving]"; python probe_server.py path/to/cargo-accuracy

The model knows nothing, so that its answers are wrong; what is checked is that every prompt is answered, repeats itself,
and agrees with a reference, which is the same server.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def make(folder):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.add_special_tokens({"eos_token": "<eos>", "pad_token": "<pad>"})
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id)
    LlamaForCausalLM(config).save_pretrained(folder)


def main(tool):
    with tempfile.TemporaryDirectory() as folder:
        model = str(pathlib.Path(folder) / "tiny")
        make(model)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        code = "from transformers.cli.transformers import main; main()"
        command = [sys.executable, "-c", code, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        server = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""})
        try:
            for _ in range(240):
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, "the server has ended"
                time.sleep(0.5)
            url = f"http://127.0.0.1:{port}"
            done = subprocess.run(
                [tool, "accuracy", "probe", "--url", url, "--reference-url", url, "--model", model, "--report", "json=-"],
                stdout=subprocess.PIPE, text=True,
            )
            report = json.loads(done.stdout)
        finally:
            server.terminate()
            server.wait(30)
    # No answer is right on either side, which proves nothing.
    assert done.returncode == 100, done.returncode
    prompts = report["prompts"]
    assert len(prompts) >= 11
    for prompt in prompts:
        assert prompt["verdict"] != "error", prompt
        assert prompt["deterministic"] is True, prompt
        assert prompt["reference"]["first_difference"] is None, prompt
    # Wrong here and wrong there: upstream, and no failure of the candidate's.
    assert all(not p["failures"] for p in prompts), [p["failures"] for p in prompts]
    assert "wrong on both servers" in report["conclusion"], report["conclusion"]
    print(f"{len(prompts)} prompts answered by transformers serve, none failed, verdicts:",
          sorted({p["verdict"] for p in prompts}))


main(sys.argv[1])
