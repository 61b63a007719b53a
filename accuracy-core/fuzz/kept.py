#!/usr/bin/env python3
"""Inputs of a fuzz target in one file: `kept.py pack FOLDER FILE` and `kept.py unpack FILE FOLDER`.

The file is a safetensors file with a tensor of bytes for each input, so that any reader opens it.
"""

import hashlib
import json
import pathlib
import sys


def pack(folder, path):
    inputs = {hashlib.sha1(data).hexdigest(): data for data in (p.read_bytes() for p in sorted(folder.iterdir())) if data}
    header, end = {}, 0
    for name, data in sorted(inputs.items()):
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, data in sorted(inputs.items())))


def unpack(path, folder):
    folder.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, tensor in json.loads(data[8:start]).items():
        begin, end = tensor["data_offsets"]
        (folder / name).write_bytes(data[start + begin : start + end])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pack", folder, path]:
            pack(pathlib.Path(folder), pathlib.Path(path))
        case ["unpack", path, folder]:
            unpack(pathlib.Path(path), pathlib.Path(folder))
        case _:
            sys.exit(__doc__)
