#!/usr/bin/env python3
"""Writes a GGUF file with a tensor of each type that is read and one that is not, and the values they hold.

    venv/bin/python accuracy-core/tests/peers/make_gguf.py accuracy-core/tests/fixtures/checkpoints [--gguf]

Needs numpy and ml_dtypes and shares nothing with the reader. With `--gguf` ggml's own Python package decodes every
tensor as well, and must give the same float32 values.
"""

import pathlib
import struct
import sys

import ml_dtypes
import numpy as np

from make_checkpoints import save

RNG = np.random.default_rng(11)
ROWS = 3
NON_LINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def halves(b):
    """[blocks, 16] bytes: the low nibbles, then the high ones."""
    return np.concatenate([b & 15, b >> 4], axis=-1).astype(np.float64)


def half(b, at):
    return b[:, at : at + 2].copy().view(np.float16).astype(np.float64)


def fifth(b):
    """[blocks, 4] bytes: 32 bits."""
    return np.unpackbits(b, axis=-1, bitorder="little").astype(np.float64)


def q4_0(b):
    return half(b, 0) * (halves(b[:, 2:18]) - 8)


def q4_1(b):
    return half(b, 0) * halves(b[:, 4:20]) + half(b, 2)


def q5_0(b):
    return half(b, 0) * (halves(b[:, 6:22]) + 16 * fifth(b[:, 2:6]) - 16)


def q5_1(b):
    return half(b, 0) * (halves(b[:, 8:24]) + 16 * fifth(b[:, 4:8])) + half(b, 2)


def q8_0(b):
    return half(b, 0) * b[:, 2:34].view(np.int8).astype(np.float64)


def iq4_nl(b):
    return half(b, 0) * NON_LINEAR[halves(b[:, 2:18]).astype(int)]


def mxfp4(b):
    return np.exp2(b[:, :1].astype(np.float64) - 127) * E2M1[halves(b[:, 1:17]).astype(int)]


def pairs(b, n):
    """[blocks, 64] bytes of four two-bit codes: of each 32 bytes first all lowest codes, then the next."""
    parts = b.reshape(len(b), 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3
    return parts.reshape(len(b), 256)[:, :n].astype(np.float64)


def q2_k(b):
    scale, minimum = b[:, :16] & 15, b[:, :16] >> 4
    spread = lambda x: np.repeat(x.astype(np.float64), 16, axis=1)
    return half(b, 80) * spread(scale) * pairs(b[:, 16:80], 256) - half(b, 82) * spread(minimum)


def q3_k(b):
    high = b[:, None, :32] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    codes = pairs(b[:, 32:96], 256) - 4 * (1 - high.reshape(len(b), 256).astype(np.float64))
    packed = b[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    top = np.concatenate([packed[:, 8:] >> s & 3 for s in (0, 2, 4, 6)], axis=1)
    scale = (low | top << 4).astype(np.float64) - 32
    return half(b, 108) * np.repeat(scale, 16, axis=1) * codes


def six_bits(packed):
    scale = np.concatenate([packed[:, :4] & 63, packed[:, 8:] & 15 | packed[:, :4] >> 6 << 4], axis=1)
    minimum = np.concatenate([packed[:, 4:8] & 63, packed[:, 8:] >> 4 | packed[:, 4:8] >> 6 << 4], axis=1)
    return scale.astype(np.float64), minimum.astype(np.float64)


def nibbles_of_64(b):
    parts = b.reshape(len(b), 4, 1, 32) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & 15
    return parts.reshape(len(b), 256).astype(np.float64)


def q4_k(b):
    scale, minimum = six_bits(b[:, 4:16])
    return half(b, 0) * np.repeat(scale, 32, 1) * nibbles_of_64(b[:, 16:]) - half(b, 2) * np.repeat(minimum, 32, 1)


def q5_k(b):
    scale, minimum = six_bits(b[:, 4:16])
    high = (b[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1).reshape(len(b), 256)
    codes = nibbles_of_64(b[:, 48:]) + 16 * high.astype(np.float64)
    return half(b, 0) * np.repeat(scale, 32, 1) * codes - half(b, 2) * np.repeat(minimum, 32, 1)


def q6_k(b):
    low = b[:, :128].reshape(len(b), 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & 15
    top = b[:, 128:192].reshape(len(b), 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3
    codes = low.reshape(len(b), 256).astype(np.float64) + 16 * top.reshape(len(b), 256) - 32
    return half(b, 208) * np.repeat(b[:, 192:208].view(np.int8).astype(np.float64), 16, 1) * codes


# Number of the type, elements and bytes of a block, where float16 factors lie, how it decodes.
TYPES = {
    "q4_0": (2, 32, 18, [0], q4_0),
    "q4_1": (3, 32, 20, [0, 2], q4_1),
    "q5_0": (6, 32, 22, [0], q5_0),
    "q5_1": (7, 32, 24, [0, 2], q5_1),
    "q8_0": (8, 32, 34, [0], q8_0),
    "q2_k": (10, 256, 84, [80, 82], q2_k),
    "q3_k": (11, 256, 110, [108], q3_k),
    "q4_k": (12, 256, 144, [0, 2], q4_k),
    "q5_k": (13, 256, 176, [0, 2], q5_k),
    "q6_k": (14, 256, 210, [208], q6_k),
    "iq4_nl": (20, 32, 18, [0], iq4_nl),
    "mxfp4": (39, 32, 17, [], mxfp4),
}


def blocks(size, count, factors, is_mxfp4):
    data = RNG.integers(0, 256, (count, size)).astype(np.uint8)
    for at in factors:
        data[:, at : at + 2] = RNG.uniform(-0.2, 0.2, (count, 1)).astype(np.float16).view(np.uint8)
    if is_mxfp4:
        data[:, 0] = RNG.integers(117, 133, count)
    return data


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def main(out):
    tensors, expected = [], {}
    for name, (number, elements, size, factors, decode) in TYPES.items():
        columns = 512 if elements == 256 else 64
        data = blocks(size, ROWS * columns // elements, factors, name == "mxfp4")
        tensors.append((f"blk.0.{name}.weight", [columns, ROWS], number, data.tobytes()))
        # Formats with a minimum are decoded in float32, the others exactly.
        values = decode(data).reshape(ROWS, columns)
        with_minimum = name in ("q4_1", "q5_1", "q2_k", "q4_k", "q5_k")
        expected[f"blk.0.{name}"] = values.astype(np.float32).astype(np.float64) if with_minimum else values
    for name, number, dtype in [("f32", 0, np.float32), ("f16", 1, np.float16), ("bf16", 30, ml_dtypes.bfloat16)]:
        values = RNG.normal(size=(ROWS, 40)).astype(dtype)
        tensors.append((f"blk.0.{name}.weight", [40, ROWS], number, values.tobytes()))
        expected[f"blk.0.{name}"] = values.astype(np.float64)
    experts = blocks(18, 2 * 4 * 64 // 32, [0], False)
    tensors.append(("blk.0.ffn_up_exps.weight", [64, 4, 2], 2, experts.tobytes()))
    for e, values in enumerate(q4_0(experts).reshape(2, 4, 64)):
        expected[f"blk.0.ffn_up_exps#{e}"] = values
    tensors.append(("blk.0.unread.weight", [256, 1], 19, bytes(50)))
    pairs_ = [
        ("general.architecture", 8, text("llama")),
        ("llama.embedding_length", 4, struct.pack("<I", 64)),
        ("llama.attention.head_count", 4, struct.pack("<I", 4)),
        ("llama.rope.freq_base", 6, struct.pack("<f", 1e4)),
        ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc")),
        ("general.alignment", 4, struct.pack("<I", 64)),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs_))
    head += b"".join(text(key) + struct.pack("<I", kind) + value for key, kind, value in pairs_)
    data = b""
    for name, shape, number, raw in tensors:
        data += bytes(-len(data) % 64)
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, len(data))
        data += raw
    head += bytes(-len(head) % 64)
    folder = out / "gguf"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.gguf").write_bytes(head + data)
    save(folder / "expected.safetensors", expected)
    return folder / "model.gguf", expected


def compare(path, expected):
    """ggml's own Python package on the same file."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    compared = 0
    for tensor in GGUFReader(path).tensors:
        module = tensor.name.removesuffix(".weight")
        if module.endswith("unread"):
            continue
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        ours = expected[module] if module in expected else np.stack([expected[f"{module}#{e}"] for e in range(2)])
        assert np.array_equal(values.reshape(ours.shape), ours.astype(np.float32)), module
        compared += 1
    print(f"gguf: {compared} tensors as ggml's Python package decodes them")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    written = main(pathlib.Path(sys.argv[1]))
    if "--gguf" in sys.argv:
        compare(*written)
