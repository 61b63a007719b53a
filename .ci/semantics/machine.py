"""The state of a wave before and after one instruction, and the executable that runs the emulator on it.

The executable (`accuracy-core/examples/execute.rs`) first writes a greeting of 48 bytes, all numbers little-endian:
the eight letters `EXECUTE1`, then five u64: the address at which each instruction stands, the address and the size of
the memory window, the base of the flat addresses that mean LDS, the base of those that mean scratch. It then answers
each request until its input ends.

Request: u32 size of what follows; u8 architecture (0 gfx942, 1 gfx950), u8 SCC, u8 VSKIP, u8 length of the code; u32
MODE; u32 number of VGPRs, u32 number of AGPRs, u32 bytes of LDS, u32 bytes of memory (from the window's address on),
u32 bytes of scratch for each lane; 16 bytes of code, padded with zeros; 128 u32 scalar registers by their number in
machine code (VCC 106, M0 124, EXEC 126); the VGPRs from v0 on and the AGPRs from a0 on, 64 u32 each; LDS; memory;
scratch, lane after lane.

Answer: u32 size of what follows; u8 status. Status 0: u8 SCC, u8 VSKIP, u8 bits of vector register indexing (0xff
when it is off), u32 MODE, u64 program counter, then scalar registers, VGPRs, AGPRs, LDS, memory and scratch as in the
request. Any other status: the fault as text in UTF-8.
"""

import struct
import subprocess
import threading

import numpy as np

ARCHS = ("gfx942", "gfx950")
VCC, M0, EXEC = 106, 124, 126


class State:
    """Everything that one instruction can read or write."""

    __slots__ = ("mode", "scc", "vskip", "index", "s", "v", "a", "lds", "mem", "scratch", "lane_bytes", "pc")

    def copy(self):
        new = State()
        new.mode, new.scc, new.vskip, new.index, new.pc = self.mode, self.scc, self.vskip, self.index, self.pc
        new.s = list(self.s)
        new.v = list(self.v)  # registers are replaced whole, never changed in place
        new.a = list(self.a)
        new.lds, new.mem, new.scratch = bytearray(self.lds), bytearray(self.mem), bytearray(self.scratch)
        new.lane_bytes = self.lane_bytes
        return new

    def s64(self, r):
        return self.s[r] | self.s[r + 1] << 32

    def set_s64(self, r, value):
        self.s[r], self.s[r + 1] = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF

    @property
    def exec(self):
        return self.s64(EXEC)


def request(arch, code, st):
    body = struct.pack("<BBBBIIIIII", ARCHS.index(arch), int(st.scc), int(st.vskip), len(code), st.mode, len(st.v),
                       len(st.a), len(st.lds), len(st.mem), st.lane_bytes)
    body += code.ljust(16, b"\0") + np.array(st.s, dtype="<u4").tobytes()
    if st.v:
        body += np.array(st.v, dtype="<u4").tobytes()
    if st.a:
        body += np.array(st.a, dtype="<u4").tobytes()
    body += bytes(st.lds) + bytes(st.mem) + bytes(st.scratch)
    return struct.pack("<I", len(body)) + body


def answer(body, st):
    """The state in an answer, shaped as the request's state was; or the text of a fault."""
    if body[0] != 0:
        return body[1:].decode("utf-8", "replace")
    new = State()
    new.scc, new.vskip, new.index, new.mode, new.pc = struct.unpack_from("<xBBBIQ", body)
    at = 16
    words = np.frombuffer(body, dtype="<u4", count=128 + 64 * (len(st.v) + len(st.a)), offset=at)
    new.s = words[:128].tolist()
    lanes = words[128:].reshape(-1, 64)
    new.v, new.a = lanes[: len(st.v)].tolist(), lanes[len(st.v):].tolist()
    at += 4 * len(words)
    new.lds = bytearray(body[at:at + len(st.lds)])
    at += len(st.lds)
    new.mem = bytearray(body[at:at + len(st.mem)])
    at += len(st.mem)
    new.scratch = bytearray(body[at:at + len(st.scratch)])
    new.lane_bytes = st.lane_bytes
    return new


class Engine:
    """The emulator's process."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        greeting = self.read(48)
        if greeting[:8] != b"EXECUTE1":
            raise RuntimeError(f"{path} is not the executable that machine.py describes")
        self.code, self.base, self.size, self.shared, self.private = struct.unpack("<5Q", greeting[8:])

    def read(self, n):
        data = self.process.stdout.read(n)
        if len(data) != n:
            raise RuntimeError(f"the emulator's process ended (status {self.process.wait()}) instead of answering")
        return data

    def run(self, arch, jobs):
        """Answers for a list of (code, state), in order."""
        data = b"".join(request(arch, code, st) for code, st in jobs)
        writer = threading.Thread(target=self.write, args=(data,))
        writer.start()
        out = []
        for _, st in jobs:
            (size,) = struct.unpack("<I", self.read(4))
            out.append(answer(self.read(size), st))
        writer.join()
        return out

    def write(self, data):
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the reader reports it

    def close(self):
        self.process.stdin.close()
        self.process.wait()
