"""Scalar instructions: operands, and one instruction on the scalar registers."""

from . import inputs
from .machine import EXEC, M0
from .vector import Lane, Operand, constant


class Scalar(Lane):
    """What the pseudocode of a scalar instruction reads and writes."""

    def sgpr_read(self, n, words):
        return sum(self.st.s[n + k] << 32 * k for k in range(words))

    def sgpr_write(self, n, words, value):
        for k in range(words):
            self.st.s[n + k] = value >> 32 * k & 0xFFFFFFFF

    def hwreg(self, n):
        return self.st.mode

    def hwreg_write(self, n, value):
        self.st.mode = value

    def write_mask(self, n):
        return -1

    def set_mode(self, field, value):
        if field != "GPR_IDX_EN":
            raise NotImplementedError(field)
        self.gpr_index = value


class ScalarForm:
    """One scalar instruction with its operands."""

    def __init__(self, name, kind, arch):
        self.name, self.kind, self.arch = name, kind, arch
        self.text, self.code, self.srcs, self.dst = "", b"", [], None
        self.simm16 = 0
        self.vgprs = self.agprs = 0
        self.extra = {}
        self.unsure = set()

    def finish_code(self):
        """Nothing is taken from the machine code."""

    def prepare(self, generator, st, engine):
        """Keeps indices of scalar registers within them."""
        if "MOVREL" in self.name:
            n = self.dst.number if "MOVRELD" in self.name else self.srcs[0].number
            st.s[M0] = 2 * generator.rng.randrange(0, (98 - n) // 2) if n < 96 else 0
        if self.name in ("S_SETPC_B64", "S_SWAPPC_B64"):
            for o in self.srcs:
                if o.place == "s":
                    st.s[o.number] &= ~3

    def run(self, lib, st, pc):
        run = lib.function(self.kind, self.name)
        new = st.copy()
        c = Scalar(new)
        c.gpr_index = None
        c.SIMM16, c.SIMM32, c.PC, c.VSKIP = self.simm16, self.extra.get("simm32", 0), pc, st.vskip
        c.VCCZ, c.EXECZ = int(c.VCC == 0), int(c.EXEC == 0)
        values = [o.lanes(st) for o in self.srcs]
        if self.kind == "SOPK" and self.srcs == [] and self.name not in ("S_GETREG_B32",):
            values = [self.simm16]
        if self.name.startswith("S_CMPK"):
            values = [self.dst.lanes(st), self.simm16]
        if self.name == "S_SETREG_B32":
            values = [self.dst.lanes(st)]
        c.S0 = values[0] if values else 0
        c.S1 = values[1] if len(values) > 1 else 0
        if self.srcs and self.srcs[0].place == "s":
            c.SRC0 = self.srcs[0].number
        if len(self.srcs) > 1:
            c.SRC1 = self.srcs[1].number
        if self.dst is not None:
            c.DST = self.dst.number
            c.D0 = self.dst.lanes(st)
        before = c.EXEC, c.M0
        run(c)
        new.scc, new.vskip = int(bool(c.SCC)), int(bool(c.VSKIP))
        if c.EXEC != before[0]:
            new.set_s64(EXEC, c.EXEC)
        if c.M0 != before[1]:
            new.s[M0] = c.M0
        if self.dst is not None and not self.name.startswith(("S_CMPK", "S_SETREG", "S_MOVRELD")):
            for k in range(self.dst.words):
                new.s[self.dst.number + k] = c.D0 >> 32 * k & 0xFFFFFFFF
        if c.gpr_index is not None:
            new.index = new.s[M0] >> 12 & 15 if c.gpr_index else 0xFF
        jumps = "c.PC = PC" in lib.sources[self.kind, self.name]
        new.pc = c.PC & (1 << 64) - 1 if jumps else pc + len(self.code)
        return new


def source(p, fmt, bits, kind):
    rng = p.rng
    base, n = inputs.split_format(fmt, bits)
    k = rng.random()
    if k < 0.7 or kind in ("OPR_SREG",) or n > 1:
        return p.sgpr(fmt, bits)
    if k < 0.85 or "NOLIT" in kind:
        o = constant(rng, 64 if bits == 64 else 32, "I32")
        while "." in o.text:
            o = constant(rng, 64 if bits == 64 else 32, "I32")
        o.bits = bits
        return o
    o = Operand("literal", inputs.one_value(rng, "I32"), bits, base, n)
    o.text = f"0x{o.number:x}"
    if bits == 64 and base == "I64" and o.number >> 31:
        o.number |= 0xFFFFFFFF00000000
    return o


def scalar(lib, rng, key, operands, arch, picker):
    """One random form of a SOP1, SOP2, SOPC, SOPK or SOPP instruction."""
    kind, name = type(key).__name__[:-2], key.name
    f = ScalarForm(name, kind, arch)
    fl = {k: (o[0].name, o[1], o[2].name) for k, o in operands.items()}
    low = name.lower()
    p = picker(rng, False)
    args = []
    if "sdst" in fl:
        fmt, bits, _ = fl["sdst"]
        own = "EXEC" in name or "MOVREL" in name
        f.dst = p.sgpr(fmt, bits, special=not own)
        args.append(f.dst.name())
    for s in ("ssrc0", "ssrc1"):
        if s in fl:
            fmt, bits, k = fl[s]
            if k == "OPR_SIMM4":
                o = Operand("const", rng.randrange(16), 32, "B32", 1)
                o.text = str(o.number)
            elif name.startswith("S_MOVRELS"):
                o = p.sgpr(fmt, bits, special=False)
            else:
                o = source(p, fmt, bits, k)
            f.srcs.append(o)
            args.append(o.name())
    if name in ("S_GETREG_B32", "S_SETREG_B32", "S_SETREG_IMM32_B32"):
        offset = rng.randrange(10)
        size = rng.randint(1, 10 - offset)
        f.simm16 = 1 | offset << 6 | (size - 1) << 11
        reg = f"hwreg(HW_REG_MODE, {offset}, {size})"
        if name == "S_GETREG_B32":
            args = [f.dst.name(), reg]
        elif name == "S_SETREG_B32":
            args = [reg, f.dst.name()]
        else:
            f.extra["simm32"] = rng.getrandbits(32)
            args = [reg, f"0x{f.extra['simm32']:x}"]
    elif "simm16" in fl:
        f.simm16 = inputs.one_value(rng, "B16")
        if name in ("S_NOP", "S_SET_GPR_IDX_MODE"):
            f.simm16 = rng.randrange(16)
        if name == "S_SET_GPR_IDX_ON":
            f.simm16 = rng.randrange(16)
        args.append(str(f.simm16) if not name.startswith("S_CMPK") or not name.endswith("I32") else str(f.simm16))
    f.text = f"{low} {', '.join(args)}".strip()
    return f
