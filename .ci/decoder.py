#!/usr/bin/env python3
"""Compares the emulator's decoder with LLVM's disassembler, on real code and on every instruction of the table.

    .ci/decoder.py [--seed N] [--instances N] [FILE...]

FILEs are code objects, or libraries and bundles that hold some. Every instruction in them has to have the mnemonic,
operands, modifiers and size that `llvm-objdump -d` prints. Then every opcode of every encoding gets random operands and
modifiers: the two have to agree on whether that is an instruction, and on its text. Where LLVM takes what the
architecture reserves, the decoder is stricter: `strictness` lists it.

Needs LLVM 22: `llvm-objdump` (LLVM_PREFIX names another place than /usr/lib/llvm-22) and its library (LIBLLVM names
another than libLLVM.so.22.1).
"""

import argparse
import collections
import ctypes
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

PREFIX = pathlib.Path(os.environ.get("LLVM_PREFIX", "/usr/lib/llvm-22"))
PROCESSORS = ("gfx942", "gfx950")
ROOT = pathlib.Path(__file__).resolve().parent.parent


def example():
    """Builds the example that disassembles, and returns its path. `cargo test` builds it with the same features: without `-p`."""
    subprocess.run(["cargo", "build", "--quiet", "--example", "disassemble"], cwd=ROOT, check=True)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/examples/disassemble"


# ---------------------------------------------------------------------------------------------------------------------
# Real code


def split_bundles(data):
    """The bundles that lie one after another, each as long as it says."""
    at = 0
    while at < len(data):
        if data[at : at + 4] == b"CCOB":
            version = int.from_bytes(data[at + 4 : at + 6], "little")
            size = int.from_bytes(data[at + 8 : at + (16 if version >= 3 else 12)], "little")
        elif data[at : at + 24] == b"__CLANG_OFFLOAD_BUNDLE__":
            size, entry = 0, at + 32
            for _ in range(int.from_bytes(data[at + 24 : at + 32], "little")):
                offset, length, name = struct.unpack_from("<QQQ", data, entry)
                size, entry = max(size, offset + length), entry + 24 + name
        elif data[at] == 0:
            at += 1
            continue
        else:
            sys.exit(f"no bundle begins at byte {at:#x}, but {data[at : at + 8]!r}")
        yield data[at : at + size]
        at += size


class Comparison:
    def __init__(self, disassemble):
        self.disassemble = disassemble
        self.files = self.instructions = 0
        self.mnemonics = collections.Counter()
        self.differences = []

    def code_objects(self, path, folder):
        """The code objects for the two processors in a file."""
        data = path.read_bytes()
        if data[18:20] == b"\xe0\x00":  # e_machine is EM_AMDGPU
            return [path]
        place = pathlib.Path(tempfile.mkdtemp(dir=folder))
        if data.startswith(b"\x7fELF"):
            copy = [PREFIX / "bin/llvm-objcopy", "-O", "binary", "--only-section=.hip_fatbin", path, place / "bundles"]
            subprocess.run(copy, check=True)
            data = (place / "bundles").read_bytes()
        found = []
        for number, bundle in enumerate(split_bundles(data)):
            (place / "bundle").write_bytes(bundle)
            tool = [PREFIX / "bin/clang-offload-bundler", "--type=o", f"--input={place / 'bundle'}"]
            listed = subprocess.run([*tool, "--list"], check=True, stdout=subprocess.PIPE, text=True).stdout
            for target in listed.split():
                if target.rpartition("-")[2].split(":")[0] in PROCESSORS:
                    part = place / f"{number}-{target}"
                    output = ["--unbundle", f"--targets={target}", f"--output={part}"]
                    subprocess.run([*tool, *output], check=True)
                    found.append(part)
        if not found:
            sys.exit(f"{path} holds no code for {' or '.join(PROCESSORS)}")
        return found

    def file(self, path):
        """Compares the instructions of a code object."""
        ours = subprocess.run([self.disassemble, path], check=True, stdout=subprocess.PIPE, text=True).stdout
        ours = {address: (size, text) for address, size, text in (line.split(" ", 2) for line in ours.splitlines())}
        theirs = subprocess.run(
            [PREFIX / "bin/llvm-objdump", "-d", path], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        symbols = {}
        before = self.instructions
        branches = []
        for line in theirs.splitlines():
            text, separator, place = line.rpartition("// ")
            if not separator or not line.startswith("\t"):
                if symbol := re.fullmatch(r"([0-9a-f]{16}) <(.+)>:", line):
                    symbols[symbol[2]] = int(symbol[1], 16)
                continue
            address, _, words = place.partition(": ")
            # After the words of a branch comes its target in angle brackets.
            text, address, words = text.strip(), int(address, 16), words.partition("<")[0].split()
            self.instructions += 1
            self.mnemonics[text.split(" ", 1)[0]] += 1
            got = ours.get(f"{address:x}")
            if got != (str(4 * len(words)), text):
                branches.append((address, text, words, got))
        for address, text, words, got in branches:
            if not self.is_same_branch(address, text, words, got, symbols):
                self.differences.append(f"{path} at {address:#x}: llvm-objdump has `{text}`, the decoder {got}")
        if self.instructions == before:
            sys.exit(f"llvm-objdump finds no instruction in {path}")
        self.files += 1

    @staticmethod
    def is_same_branch(address, text, words, got, symbols):
        """Whether objdump has put the name of a symbol in place of the number of a branch."""
        mnemonic, _, label = text.rpartition(" ")
        if got is None or label not in symbols or len(words) != 1 or got[0] != "4":
            return False
        ours, _, number = got[1].rpartition(" ")
        distance = int(words[0][4:], 16)
        distance -= (distance & 0x8000) << 1
        return ours == mnemonic and int(number) == distance & 0xFFFF and symbols[label] == address + 4 + 4 * distance


# ---------------------------------------------------------------------------------------------------------------------
# Every instruction


class Llvm:
    """LLVM's disassembler, through its C interface."""

    def __init__(self):
        library = ctypes.CDLL(os.environ.get("LIBLLVM", "libLLVM.so.22.1"))
        for part in ("TargetInfo", "Target", "TargetMC", "Disassembler"):
            getattr(library, f"LLVMInitializeAMDGPU{part}")()
        library.LLVMCreateDisasmCPU.restype = ctypes.c_void_p
        library.LLVMCreateDisasmCPU.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int] + [
            ctypes.c_void_p
        ] * 2
        library.LLVMDisasmInstruction.restype = ctypes.c_size_t
        library.LLVMDisasmInstruction.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64]
        library.LLVMDisasmInstruction.argtypes += [ctypes.c_char_p, ctypes.c_size_t]
        library.LLVMSetDisasmOptions.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self.library = library
        self.contexts = {}
        for processor in PROCESSORS:
            context = library.LLVMCreateDisasmCPU(b"amdgcn-amd-amdhsa", processor.encode(), None, 0, None, None)
            library.LLVMSetDisasmOptions(context, 2)  # Immediates in hexadecimal, as llvm-objdump has them.
            self.contexts[processor] = context

    def one(self, processor, code):
        buffer = ctypes.create_string_buffer(512)
        size = self.library.LLVMDisasmInstruction(self.contexts[processor], code, len(code), 0, buffer, 512)
        return size, buffer.value.decode().strip() if size else ""

    def all(self, items):
        """Size and text for each item. In a child process, since some reserved encodings end LLVM."""
        results = []
        while len(results) < len(items):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                with os.fdopen(writer, "w", buffering=1) as pipe:
                    for processor, code in items[len(results) :]:
                        size, text = self.one(processor, code)
                        pipe.write(f"{size}\t{text}\n")
                os._exit(0)
            os.close(writer)
            with os.fdopen(reader) as pipe:
                for line in pipe:
                    size, text = line.rstrip("\n").split("\t", 1)
                    results.append((int(size), text))
            os.waitpid(child, 0)
            if len(results) < len(items):
                results.append((0, ""))
        return results


def strictness(code, size, text):
    """Why the decoder takes no instruction where LLVM does, or None if it has to take it."""
    first = struct.unpack("<I", code[:4])[0]
    if size == 0:
        return "none"
    if "/*" in text:
        return "an operand of a class that the instruction does not have"
    if "Warning" in text:
        return "a scalar register that is not aligned"
    if re.search(r"\bnull\b|src_flat_scratch_base", text):
        return "a source that gfx9 does not have"
    if first >> 26 == 0b110100 and size == 12:
        return "VOP3 with a literal"
    if re.match(r"v_cmpx?_", text) and first >> 26 == 0b110100 and first & 0xFF >= 128:
        return "a comparison whose destination is no register"
    if first & 0xFF == 249 and size == 8 and code[5] >> 3 & 3 == 3:
        return "a reserved DST_UNUSED"
    follower = struct.unpack("<I", code[8:12])[0]
    if text.startswith("v_mfma_ld_scale") and follower >> 16 in (0xD3AD, 0xD3AE) and follower >> 11 & 15 == 1:
        return "scales before a reserved matrix instruction"
    if re.match(r"v_readlane|v_readfirstlane", text) and re.match(r"\w+ (src_|-|\d)", text):
        return "a scalar destination that is no register"
    if re.match(r"v_(cndmask|addc|subb|subbrev)\w*_e64 .*, (v\[\d+:\d+\]|src_\w+|-?[\d.]+)( clamp)?$", text):
        return "a mask that is no pair of scalar registers"
    if "_f8f6f4" in text and re.search(r"(cbsz|blgp):[567]", text):
        return "a reserved format"
    if re.match(r"v_(read|swap|permlane|s?mfma|accvgpr_(mov|read)|cvt_scalef32_sr_pk_fp4_f32)\w* .*src_", text):
        return "a scalar source where a vector register has to be"
    if re.match(r"s_(setpc|rfe|movrels|cbranch_join)\w* .*src_", text):
        return "a source that is no register"
    if re.match(r"(global|scratch)_load_lds.* exec( |$)", text):
        return "EXEC as a base"
    if any(int(last) > 255 for last in re.findall(r"[va]\[\d+:(\d+)\]", text)):
        return "a register beyond the last"
    if re.match(r"v_(nop|clrexcp)$", text):
        return "SDWA or DPP of an instruction without operands"
    return None


def is_missed(text):
    """Whether LLVM has no decoding for what its assembler and the architecture have: atomics with AGPRs."""
    return re.match(r"(flat|global)_atomic_(add|min|max|pk_add)_f\d+ a.* sc0", text) is not None


class Row:
    def __init__(self, line):
        self.encoding, opcode, self.processors, self.mnemonic, long, *operands = line.split()
        self.opcode, self.long = int(opcode), None if long == "none" else int(long)
        self.operands = [tuple(operand.split(":")) for operand in operands]
        self.has_carry = self.operands[1:2] == [("Dst", "Mask")]
        self.sources = sum(role in ("Src", "DstSrc") for role, _ in self.operands[1:])
        if self.mnemonic == "v_mfma_ld_scale_b32":
            self.sources = 2

    def has(self, *roles):
        return any(role in roles for role, _ in self.operands)


class Generator:
    """Random machine code, most of which is valid."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def bits(self, count):
        return self.random.getrandbits(count)

    def pick(self, *choices):
        return self.random.choice(choices)

    def even(self, end=250):
        return self.random.randrange(0, end, 2)

    def scalar(self):
        return self.pick(self.random.randrange(0, 100, 4), 106, 126, 124, self.bits(7))

    def source8(self):
        some = (106, 108, 120, 124, 126, 128, 160, 192, 193, 208, 240, 248, 253, 255)
        return self.pick(self.random.randrange(0, 102, 4), self.random.randrange(102), self.pick(*some), self.bits(8))

    def source9(self):
        some = (106, 124, 126, 128, 129, 192, 193, 208, 240, 242, 248, 251, 253, 235)
        registers = (256 + self.even(), 256 + self.bits(8), self.random.randrange(0, 102, 4))
        return self.pick(*registers, self.pick(*some), self.bits(9))

    def code(self, encoding, opcode, row):
        """Words for an opcode; `row` is None if the table has none."""
        words = getattr(self, encoding.lower())(opcode, row)
        tail = (self.pick(self.bits(32), self.bits(6), 0x3F800000, 0x3C00, 0xFFFFFFFF), 0xBF800000, 0xBF800000)
        return struct.pack("<7I", *(words + list(tail) + [0xBF800000] * 4)[:7])[:16]

    def sop1(self, opcode, _):
        return [0xBE800000 | opcode << 8 | self.scalar() << 16 | self.source8()]

    def sop2(self, opcode, _):
        return [0x80000000 | opcode << 23 | self.scalar() << 16 | self.source8() << 8 | self.source8()]

    def sopk(self, opcode, _):
        return [0xB0000000 | opcode << 23 | self.scalar() << 16 | self.bits(16)]

    def sopc(self, opcode, _):
        return [0xBF000000 | opcode << 16 | self.source8() << 8 | self.source8()]

    def sopp(self, opcode, _):
        return [0xBF800000 | opcode << 16 | self.pick(0, 1, self.bits(16))]

    def smem(self, opcode, _):
        form = self.pick(0x20000, 0x20000, 0x24000, 0x4000, 0, 0x30000)
        data = self.pick(self.random.randrange(0, 96, 4), 106)
        low = 0xC0000000 | opcode << 18 | form | data << 6 | self.random.randrange(0, 50, 2)
        return [low, self.bits(21) | self.pick(0, self.random.randrange(100)) << 25]

    def short(self, word):
        """VOP1, VOP2, VOPC: the first source, and the second word of SDWA or DPP."""
        kind = self.pick("sdwa", "dpp", "literal", "plain", "plain", "plain")
        if kind == "plain":
            return [word | self.source9()]
        if kind == "literal":
            return [word | 255]
        if kind == "dpp":
            known = (self.random.randrange(0x101, 0x130), 0x130, 0x138, 0x140, 0x141, 0x142, 0x143)
            control = self.pick(self.bits(8), self.pick(*known), 0x150 + self.bits(4))
            flag = self.pick(0, 0, *(1 << bit for bit in range(19, 24)))
            return [word | 250, self.even() | control << 8 | flag | self.bits(8) << 24]
        is_comparison, is_single = word >> 25 == 0b0111110, word >> 25 == 0b0111111
        second = self.even() | self.random.randrange(7) << 16
        if not is_single:
            second |= self.random.randrange(7) << 24
        if is_comparison:
            second |= self.pick(0, 0x80 | self.even(100), 0x80 | 106) << 8
        else:
            second |= self.random.randrange(7) << 8 | self.random.randrange(3) << 11
        second |= self.pick(0, 0, 0, *(1 << bit for bit in (13, 14, 15, 19, 20, 21, 23, 27, 28, 29, 31)))
        if second >> 23 & 1:
            second = second & ~0xFF | self.pick(self.random.randrange(102), 106, 124, 126)
        return [word | 249, second]

    def vop1(self, opcode, row):
        if row and not row.operands:
            return [0x7E000000 | opcode << 9]
        return self.short(0x7E000000 | self.even() << 17 | opcode << 9)

    def vop2(self, opcode, _):
        return self.short(opcode << 25 | self.even() << 17 | self.even() << 9)

    def vopc(self, opcode, _):
        return self.short(0x7C000000 | opcode << 17 | self.even() << 9)

    def vop3(self, opcode, row):
        sources = row.sources if row else 3
        fields = [self.source9() if at < sources or self.bits(5) == 0 else 0 for at in range(3)]
        low = self.pick(0, 0, 0, self.bits(3) << 8, self.bits(4) << 11, 1 << 15)
        if row and row.has_carry:
            low = self.pick(self.even(100), 106) << 8 | self.pick(0, 0, 1 << 15)
        high = self.pick(0, 0, 0, self.bits(2) << 27, self.bits(3) << 29)
        destination = self.pick(self.even(100), self.even(), 106)
        if row and not row.operands:
            return [0xD0000000 | opcode << 16, 0]
        return [0xD0000000 | opcode << 16 | destination | low, fields[0] | fields[1] << 9 | fields[2] << 18 | high]

    def vop3p(self, opcode, row):
        sources = row.sources if row else 3
        fields = [self.source9() if at < sources or self.bits(5) == 0 else 0 for at in range(3)]
        low = self.even() if row is None or row.has("Dst", "DstSrc") else 0
        low |= self.pick(0, 0, self.bits(3) << 8) | self.pick(0, self.bits(sources) << 11)
        low |= self.pick(0, 1 << 14, 1 << 14) | self.pick(0, 0, 0, 1 << 15)
        high = self.pick(3, 3, 3, self.bits(2)) << 27 | self.pick(0, 0, self.bits(sources) << 29)
        return [0xD3800000 | opcode << 16 | low, fields[0] | fields[1] << 9 | fields[2] << 18 | high, 0xBF800000]

    def mai(self, opcode, row):
        def vector():
            return 256 + self.even(224)

        fields = [vector(), vector(), self.pick(vector(), vector(), 128, 242, 193, 248, self.source9())]
        if row and "accvgpr" in row.mnemonic:
            fields = [self.pick(vector(), self.source9()), 0, 0]
        low = self.pick(0, 0, self.bits(3) << 8, self.bits(4) << 11, 1 << 15, 1 << 15 | self.bits(3) << 8)
        high = self.bits(2) << 27 | self.pick(0, 0, self.bits(3)) << 29
        low |= 0xD3800000 | opcode << 16 | self.even(224)
        return [low, fields[0] | fields[1] << 9 | fields[2] << 18 | high]

    def vop3px2(self, opcode, row):
        low, high = self.mai(opcode, row)
        low = low & ~(15 << 11) | self.pick(1, 1, 1, 1, 0, 3) << 11
        prefix = 0xD3AC0000 | self.bits(2) << 11 | self.pick(0, 0, 0, 1 << 14)
        scales = self.pick(256 + self.bits(8), self.source9()) | (256 + self.bits(8)) << 9 | self.bits(2) << 27
        return [prefix, scales | self.pick(0, 0, 0, self.source9()) << 18, low, high]

    def ds(self, opcode, row):
        count = sum(role == "Src" for role, _ in row.operands) if row else 2
        data = [self.even(240) if at < count or self.bits(5) == 0 else 0 for at in range(2)]
        destination = self.even(240) if row is None or row.has("Dst", "DstSrc") else 0
        address = self.bits(8) if row is None or row.has("Address") else 0
        is_global = self.pick(0, 0, 0, 1) if row is None or "gws" not in row.mnemonic else self.pick(1, 1, 1, 0)
        low = self.pick(0, 0, 1) << 25 | is_global << 16 | self.pick(0, self.bits(16), self.bits(5))
        if row and row.mnemonic == "ds_nop":
            low = 0
        return [0xD8000000 | opcode << 17 | low, destination << 24 | data[1] << 16 | data[0] << 8 | address]

    def memory(self, opcode, segment):
        base = 0 if segment == 0 else self.pick(0x7F, 0x7F, self.even(102), 106, self.bits(7))
        low = self.bits(1) << 16 | self.pick(0, 0, 1) << 17 | self.pick(0, 0, 1) << 25
        low |= self.pick(0, self.bits(12 if segment == 0 else 13))
        if segment == 1:
            low |= self.bits(1) << 13
        high = self.even() << 24 | self.pick(0, 0, 0, 1) << 23 | base << 16 | self.even() << 8 | self.even()
        return [0xDC000000 | opcode << 18 | segment << 14 | low, high]

    def flat(self, opcode, _):
        return self.memory(opcode, 0)

    def scratch(self, opcode, _):
        return self.memory(opcode, 1)

    def buffer_operands(self):
        offset = self.pick(128, 128, self.random.randrange(102), 124, 129, 193, self.random.randrange(255))
        resource = self.random.randrange(25)
        return offset << 24 | self.pick(0, 0, 0, 1) << 23 | resource << 16 | self.even() << 8 | self.even()

    def mubuf(self, opcode, _):
        low = self.bits(4) << 12 | self.pick(0, 0, 0, 1) << 16 | self.pick(0, 0, 1) << 17
        return [0xE0000000 | opcode << 18 | low | self.pick(0, self.bits(12)), self.buffer_operands()]

    def mtbuf(self, opcode, _):
        low = self.bits(3) << 12 | self.bits(7) << 19 | self.pick(0, self.bits(12))
        return [0xE8000000 | opcode << 15 | low, self.buffer_operands() | self.bits(2) << 21]


setattr(Generator, "global", lambda self, opcode, _: self.memory(opcode, 2))

# Opcodes of each encoding; those of SOPK that are other encodings are left out.
OPCODES = {
    "Sop1": 256, "Sop2": 96, "Sopk": 29, "Sopc": 128, "Sopp": 128, "Smem": 256, "Vop1": 256, "Vop2": 62, "Vopc": 256,
    "Vop3": 896, "Vop3p": 128, "Mai": 128, "Vop3px2": 128, "Ds": 256, "Flat": 128, "Global": 128, "Scratch": 128,
    "Mubuf": 128, "Mtbuf": 16,
}  # fmt: skip


def every_instruction(disassemble, seed, instances):
    """Compares random instances of every opcode, and returns how many rows were compared and the differences."""
    lines = subprocess.run([disassemble, "--rows"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    rows = [Row(line) for line in lines]
    table = {}
    for row in rows:
        if row.encoding not in ("Vop3", "Vop3b"):
            table[row.encoding, row.opcode] = row
        if row.long is not None:
            table["Vop3", row.long] = row
    generator = Generator(seed)
    items, origins = [], []
    for encoding, count in OPCODES.items():
        for opcode in range(count):
            if encoding in ("Vop3p", "Mai") and (("Mai", opcode) in table) != (encoding == "Mai"):
                continue
            row = table.get((encoding, opcode))
            for processor in PROCESSORS:
                for _ in range(instances if row else 2):
                    items.append((processor, generator.code(encoding, opcode, row)))
                    origins.append((encoding, row.mnemonic if row else None, processor))
    given = "".join(f"{processor} {code.hex()}\n" for processor, code in items)
    ours = subprocess.run([disassemble, "--words"], input=given, check=True, stdout=subprocess.PIPE, text=True).stdout
    ours = [line.split("\t", 1) for line in ours.splitlines()]
    theirs = Llvm().all(items)
    counts, stricter, differences, seen = collections.Counter(), collections.Counter(), [], set()
    for (processor, code), origin, (our_size, our_text), (size, text) in zip(items, origins, ours, theirs, strict=True):
        our_size = int(our_size)
        reason = strictness(code, size, text)
        if our_size and (our_size, our_text) == (size, text):
            counts["same text"] += 1
            seen.add(origin)
        elif not our_size and reason:
            counts["no instruction"] += 1
            stricter[reason] += reason != "none"
        elif our_size and not size and is_missed(our_text):
            counts["not in LLVM's disassembler"] += 1
        else:
            difference = f"LLVM has `{text}` ({size} bytes), the decoder `{our_text}` ({our_size} bytes)"
            differences.append(f"{processor} {code.hex()}: {difference}")
    wanted = set()
    for (encoding, _), row in table.items():
        for processor in PROCESSORS:
            if row.processors in ("both", processor):
                wanted.add((encoding, row.mnemonic, processor))
    return rows, counts, stricter, differences, sorted(wanted - seen)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--instances", type=int, default=40, help="of each opcode (%(default)s)")
    arguments = parser.parse_args()
    disassemble = example()
    failed = False

    comparison = Comparison(disassemble)
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.files:
            for code_object in comparison.code_objects(path, folder):
                comparison.file(code_object)
    if arguments.files:
        print(
            f"{comparison.files} code objects: {comparison.instructions} instructions of {len(comparison.mnemonics)}"
            f" mnemonics compared, {len(comparison.differences)} differ"
        )
        print("\n".join(comparison.differences[:40]))
        failed |= bool(comparison.differences)

    rows, counts, stricter, differences, unseen = every_instruction(disassemble, arguments.seed, arguments.instances)
    print(f"{len(rows)} rows, {sum(counts.values()) + len(differences)} random instances: {dict(counts)}")
    print(f"LLVM takes, the decoder refuses: {dict(stricter)}")
    print(f"{len(differences)} differ; {len(unseen)} rows and forms without a valid instance")
    print("\n".join(differences[:40]))
    print("\n".join(" ".join(origin) for origin in unseen[:40]))
    failed |= bool(differences or unseen)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
