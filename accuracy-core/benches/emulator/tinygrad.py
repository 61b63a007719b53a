#!/usr/bin/env python3
"""The benchmark's float32 product (`gemm` in kernels.hip) in the emulator of tinygrad's repository, by hand:

    accuracy-core/benches/emulator/tinygrad.py PATH_OF_TINYGRAD [CLANG]

PATH_OF_TINYGRAD is a checkout of github.com/tinygrad/tinygrad: the wheel has no emulator. CLANG (/usr/lib/llvm-22/bin/clang++)
compiles the kernel. In the first launch tinygrad compiles each instruction, so its time is printed separately; the later
launches show the emulator's speed. `emulator.rs` prints the time of the same product here.
"""

import ctypes
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

SIDE, INNER, GFX950 = 64, 256, "gfx950"


def compile_kernel(compiler, folder):
    out = folder / "kernels.co"
    source = pathlib.Path(__file__).with_name("kernels.hip")
    flags = ["-x", "hip", "-nogpuinc", "-nogpulib", "-O2", "--cuda-device-only", "--no-gpu-bundle-output"]
    subprocess.run([compiler, *flags, f"--offload-arch={GFX950}", source, "-o", out], check=True)
    return out.read_bytes()


def symbols(image):
    """Values of the symbols of a 64-bit ELF by name, and its loaded segments as (offset, address, size)."""
    (programs, sections) = struct.unpack_from("<QQ", image, 32)
    (program_size, program_count, section_size, section_count) = struct.unpack_from("<HHHH", image, 54)
    loaded, values = [], {}
    for i in range(program_count):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", image, programs + i * program_size)
        if kind == 1:
            loaded.append((offset, address, size))
    table = [struct.unpack_from("<IIQQQQIIQQ", image, sections + i * section_size) for i in range(section_count)]
    for section in table:
        if section[1] not in (2, 11):
            continue
        names = table[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, at)
            end = image.index(b"\0", names + name)
            values[image[names + name:end].decode()] = value
    return values, loaded


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.path.insert(0, sys.argv[1])
    compiler = sys.argv[2] if len(sys.argv) > 2 else "/usr/lib/llvm-22/bin/clang++"
    os.environ.setdefault("CC", compiler.removesuffix("++"))
    from test.mockgpu.amd.emu import run_asm

    with tempfile.TemporaryDirectory() as folder:
        image = compile_kernel(compiler, pathlib.Path(folder))
    values, loaded = symbols(image)
    memory = bytearray(max(address + size for _, address, size in loaded))
    for offset, address, size in loaded:
        memory[address:address + size] = image[offset:offset + size]
    descriptor = values["gemm.kd"]
    # https://llvm.org/docs/AMDGPUUsage.html#kernel-descriptor: offset of the code, then the second resource register.
    entry = descriptor + struct.unpack_from("<q", memory, descriptor + 16)[0]
    (resources,) = struct.unpack_from("<I", memory, descriptor + 52)
    # Group segment size stands in the descriptor; the emulator reads it from the register, in units of 512 bytes.
    (group,) = struct.unpack_from("<I", memory, descriptor)
    resources |= ((group + 511) // 512) << 15
    code = (ctypes.c_char * len(memory)).from_buffer(memory)

    filled = [[float((i * 7) % 11 - 5) for i in range(count)] for count in (SIDE * INNER, INNER * SIDE)]
    a, b = [(ctypes.c_float * len(numbers))(*numbers) for numbers in filled]
    c = (ctypes.c_float * (SIDE * SIDE))()
    arguments = struct.pack("<QQQII", *(ctypes.addressof(x) for x in (a, b, c)), SIDE, INNER)
    held = ctypes.create_string_buffer(arguments, 256)

    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        run_asm(
            ctypes.addressof(code) + entry, len(memory), SIDE // 16, SIDE // 16, 1, 256, 1, 1, ctypes.addressof(held),
            rsrc2=resources, arch="cdna",
        )
        seconds.append(time.perf_counter() - start)
    for i in range(SIDE * SIDE):
        row, column = divmod(i, SIDE)
        exact = sum(filled[0][row * INNER + j] * filled[1][j * SIDE + column] for j in range(INNER))
        if c[i] != exact:
            sys.exit(f"c[{row}, {column}] is {c[i]}, not {exact}")
    print(f"first launch, with compiling: {seconds[0]:.2f} s; then {1e3 * statistics.median(seconds[1:]):.2f} ms")


main()
