"""Vector ALU instructions: what an operand is, and one instruction over the lanes of a wave."""

import re

from . import floats, inputs, library
from .floats import MODE
from .machine import EXEC, M0, VCC

INLINE_FLOATS = {"0.5": 0.5, "-0.5": -0.5, "1.0": 1.0, "-1.0": -1.0, "2.0": 2.0, "-2.0": -2.0, "4.0": 4.0, "-4.0": -4.0,
                 "0.15915494": None}
TWO_PI_INVERSE = {16: 0x3118, 32: 0x3E22F983, 64: 0x3FC45F306DC9C882}


class Operand:
    """A register or a constant. `place` is v, a, s, const or literal; `bits` the operand's size."""

    def __init__(self, place, number, bits, base, count):
        self.place, self.number, self.bits, self.base, self.count = place, number, bits, base, count
        self.words = max(1, (bits + 31) // 32)
        self.text = ""

    def name(self):
        if self.place in ("const", "literal"):
            return self.text
        n, w = self.number, self.words
        if self.place == "s" and n >= 106:
            pair = {VCC: "vcc", EXEC: "exec"}
            low = {106: "vcc_lo", 107: "vcc_hi", M0: "m0", 126: "exec_lo", 127: "exec_hi"}
            return low[n] if w == 1 else pair[n]
        return f"{self.place}{n}" if w == 1 else f"{self.place}[{n}:{n + w - 1}]"

    def lanes(self, st):
        """The operand's bits: a list of 64, or one number for all lanes."""
        if self.place in ("const", "literal"):
            return self.number
        if self.place == "s":
            return sum(st.s[self.number + k] << 32 * k for k in range(self.words))
        file = st.v if self.place == "v" else st.a
        if self.words == 1:
            return file[self.number]
        regs = file[self.number:self.number + self.words]
        out = list(regs[0])
        for k, r in enumerate(regs[1:], 1):
            for i in range(64):
                out[i] |= r[i] << 32 * k
        return out


def constant(rng, bits, base):
    """An inline constant: its text and its bits as an operand of this size and format."""
    o = Operand("const", 0, bits, base, 1)
    w = 16 if bits <= 16 else 32 if bits <= 32 else 64
    is_float = base in ("F16", "F32", "F64")
    if is_float and rng.random() < 0.7 or (w == 32 and rng.random() < 0.2):
        o.text = rng.choice(list(INLINE_FLOATS))
        v = INLINE_FLOATS[o.text]
        f = {16: floats.F16, 32: floats.F32, 64: floats.F64}[w]
        if v is None:
            o.number = TWO_PI_INVERSE[w]
            o.text = {16: "0.15915494", 32: "0.15915494", 64: "0.15915494309189532"}[w]
        else:
            m, d = v.as_integer_ratio()
            o.number = floats.pack(f, m < 0, abs(m), 1 - d.bit_length(), floats.NEAREST)
        return o
    n = rng.choice((0, 1, 2, 3, 5, 8, 16, 31, 32, 63, 64, -1, -2, -8, -16))
    o.text, o.number = str(n), n & ((1 << w) - 1)
    return o


class Lane:
    """The registers of one lane, by the names that the pseudocode uses."""

    def __init__(self, st):
        self.st = st
        self.S0 = self.S1 = self.S2 = self.D0 = 0
        self.CARRY = 0
        self.SIMM32 = self.SIMM16 = 0
        self.OPSEL = self.OPSEL_HI = self.TTBL = 0
        self.SDWA_SRC0_SEL = 0
        self.laneId = self.laneID = 0
        self.EXEC, self.M0, self.VCC, self.SCC = st.exec, st.s[M0], st.s64(VCC), st.scc
        self.unsure = False

    def underflow(self, f):
        self.unsure = True
        return 0

    def overflow(self, f):
        self.unsure = True
        return f.inf


class Wave(Lane):
    """An instruction that sees the registers of all lanes."""

    def vgpr_read(self, lane, n):
        return self.st.v[n][lane]

    def vgpr_write(self, lane, n, value):
        self.out.setdefault(n, list(self.st.v[n]))
        self.out[n][lane] = value
        self.st.v[n] = self.out[n]


# How the upper half of a register is left by an instruction with a 16-bit result.
ZEROES = ("CVT_F16_F32 CVT_F16_U16 CVT_F16_I16 RCP_F16 RSQ_F16 SQRT_F16 LOG_F16 EXP_F16 SIN_F16 COS_F16 FLOOR_F16 CEIL_F16 "
          "TRUNC_F16 RNDNE_F16 FRACT_F16 FREXP_MANT_F16 FREXP_EXP_I16_F16 LDEXP_F16 LSHLREV_B16 LSHRREV_B16 ASHRREV_I16 "
          "ADD_U16 SUB_U16 SUBREV_U16 MUL_LO_U16 ADD_F16 SUB_F16 SUBREV_F16 MUL_F16 MAX_F16 MIN_F16 MAX_U16 MIN_U16 MAX_I16 "
          "MIN_I16 MAD_LEGACY_F16 MAD_LEGACY_U16 MAD_LEGACY_I16 FMA_LEGACY_F16 DIV_FIXUP_LEGACY_F16").split()
ZEROES = {"V_" + n for n in ZEROES}  # llvm/lib/Target/AMDGPU/GCNSubtarget.cpp, zeroesHigh16BitsOfDest
PRESERVES = set("V_MAC_F16 V_MAD_F16 V_MAD_U16 V_MAD_I16 V_FMA_F16 V_DIV_FIXUP_F16 V_MAD_MIXLO_F16 V_MAD_MIXHI_F16".split())


# Where MODE's denormals mean nothing: bits are moved or asked about.
NO_FLUSH = re.compile(r"V_(MOV|CNDMASK|CMPX?_CLASS|SWAP|READ|WRITE|CVT_SCALEF32|CVT_F32_(FP8|BF8|BF16)|CVT_PK_F32|PERM|BITOP3|LDEXP"
                      r"|MAC_F16|MAD_|MADMK|MADAK|DOT2|FMA_MIX|TRIG_PREOP|CVT_PK_(FP8|BF8)|CVT_PK_F16_F32|CVT_PK_BF16)")


def base_name(name):
    for s in ("_E32", "_E64"):
        if name.endswith(s):
            return name[:-4]
    return name


def each(f, n, x, change):
    """Applies a change to each of n numbers in x; bits above them stay."""
    m = (1 << f.width) - 1
    out = x >> n * f.width << n * f.width
    for k in range(n):
        out |= change(f, x >> k * f.width & m) << k * f.width
    return out


def modify(x, o, absolute, negative):
    """|x|, -x of an operand's value."""
    sign = 1 << (o.bits - 1)
    if absolute:
        x &= ~sign
    if negative:
        x ^= sign
    return x


def output(f, x, omod, clamp):
    """The output modifiers of a floating-point result."""
    if omod and not MODE.ieee and not MODE.output_denormals(f):
        if not floats.is_nan(f, x) and not floats.is_inf(f, x):
            m, e = floats.parts(f, x)
            # The exponent changes: what overflows is infinite in every rounding mode.
            x = floats.pack(f, m < 0, abs(m), e + (1, 2, -1)[omod - 1], floats.NEAREST, False) if m else 0
            if floats.is_zero(f, x):
                x = 0  # the sign of zero is lost
    if clamp:
        if floats.is_nan(f, x):
            return 0 if MODE.dx10 else x
        if x & f.sign:
            return 0
        one = f.bias << f.fb
        return min(x, one)
    return x


class Form:
    """One machine instruction with its operands, and how it runs on a state."""

    fields = ()

    def __init__(self, name, kind, arch):
        self.name, self.kind, self.arch = name, kind, arch
        self.text, self.code = "", b""
        self.srcs, self.dst, self.mask_dst, self.carry_in = [], None, None, None
        self.neg, self.abs = [0] * 3, [0] * 3
        self.clamp = self.omod = self.saturate = 0
        self.op_sel, self.op_sel_hi = 0, 7
        self.explicit_sel = self.packed = False
        self.simm32 = self.ttbl = 0
        self.sdwa = self.dpp = None
        self.vgprs, self.agprs = 16, 0
        self.extra = {}

    def finish_code(self):
        """Takes from the machine code what its text only names: the selection bits of VOP3."""
        if self.kind in ("VOP3",):
            self.op_sel = self.code[1] >> 3 & 15

    def prepare(self, generator, st, engine):
        """Registers are all that is needed."""
        if "BF16" in self.name and "DOT2" in self.name:
            st.mode = 0x3F0

    def source(self, st, k):
        """The values of source k in all lanes, after selection and modifiers."""
        o = self.srcs[k]
        x = o.lanes(st)
        x = list(x) if isinstance(x, list) else [x] * 64
        if self.dpp and k == 0:
            x, self.dpp_off = self.dpp.select(x, st.exec)
        if self.sdwa and k < 2 and "selects itself" not in self.extra:
            x = [self.sdwa.source(k, v) for v in x]
        if self.packed and o.count == 2:
            x = [self.pack_select(k, v, o) for v in x]
        elif o.bits == 16 and o.place != "const" and (not self.explicit_sel or k == 0 and "SCALEF32_SR" in self.name):
            shift = 16 * (self.op_sel >> k & 1)
            x = [v >> shift & 0xFFFF for v in x]
        if not self.packed and (self.neg[k] or self.abs[k]):
            x = [modify(v, o, self.abs[k], self.neg[k]) for v in x]
        f = inputs.FORMATS.get(o.base)
        if f is not None and not NO_FLUSH.match(self.name) and not MODE.input_denormals(f):
            x = [each(f, max(1, o.count), v, floats.flush) for v in x]
        return x

    def pack_select(self, k, v, o):
        """Two halves chosen by op_sel and op_sel_hi, each with its sign changed as neg_lo and neg_hi say."""
        h = o.bits // 2
        m = (1 << h) - 1
        low = v >> (h * (self.op_sel >> k & 1)) & m
        high = v >> (h * (self.op_sel_hi >> k & 1)) & m
        if self.neg[k]:
            low ^= 1 << (h - 1)
        if self.abs[k]:  # neg_hi has its place in the encoding
            high ^= 1 << (h - 1)
        return high << h | low

    def run(self, lib, st):
        """The state after the instruction. `self.unsure` has the places that the pseudocode leaves open."""
        run = lib.function(self.kind, self.name, bool(self.saturate))
        new = st.copy()
        MODE.set(st.mode)
        MODE.forced = None
        MODE.keep = False
        if "BF16" in self.name and "DOT2" in self.name:
            MODE.set(0x3F0)  # AMD does not say how MODE acts on them; prepare() gives them this MODE
        mix = "MAD_MIX" in self.name
        self.unsure, self.dpp_off = set(), 0
        if self.name.startswith(("V_SWAP", "V_PERMLANE", "V_READLANE", "V_WRITELANE", "V_READFIRSTLANE")):
            return self.run_wave(run, new)
        n = len(self.srcs)
        sources = [self.mix_source(st, k) if mix else self.source(st, k) for k in range(n)]
        c = Lane(st)
        c.OPSEL, c.OPSEL_HI, c.TTBL, c.SIMM32 = self.op_sel, self.op_sel_hi, self.ttbl, self.simm32
        c.SIMM16 = self.simm32 & 0xFFFF
        if self.sdwa:
            c.SDWA_SRC0_SEL = self.sdwa.sel[0]
        carry = st.s64(self.carry_in) if self.carry_in is not None else 0
        old = self.dst.lanes(st) if self.dst is not None else None
        out = list(old) if old is not None else None
        lanes = 0
        ex = st.exec
        for lane in range(64):
            if not ex >> lane & 1 or self.dpp_off >> lane & 1:
                continue
            c.laneId = c.laneID = lane
            if n > 0:
                c.S0 = sources[0][lane]
            if n > 1:
                c.S1 = sources[1][lane]
            if n > 2:
                c.S2 = sources[2][lane]
            if old is not None:
                c.D0 = old[lane]
                if self.dst.bits == 16 and self.op_sel & 8 and not self.explicit_sel:
                    c.D0 = old[lane] >> 16
            c.CARRY = carry >> lane & 1
            c.unsure = False
            run(c)
            if c.CARRY:
                lanes |= 1 << lane
            if old is not None:
                out[lane] = self.finish(c.D0, old[lane])
            if c.unsure:
                self.unsure.add(lane)
        if self.mask_dst is not None:
            new.set_s64(self.mask_dst, lanes)
            if "CMPX" in self.name:
                new.set_s64(EXEC, lanes)
        if out is not None:
            for k in range(self.dst.words):
                new.v[self.dst.number + k] = [x >> 32 * k & 0xFFFFFFFF for x in out]
        MODE.forced = None
        return new

    def mix_source(self, st, k):
        """A source of v_fma_mix: the pseudocode chooses the half; neg_hi means the absolute value there."""
        o = self.srcs[k]
        x = o.lanes(st)
        x = list(x) if isinstance(x, list) else [x] * 64
        half = self.op_sel_hi >> k & 1
        sign = 0x80008000 if half else 1 << 31
        if self.abs[k]:
            x = [v & ~sign for v in x]
        if self.neg[k]:
            x = [v ^ sign for v in x]
        return x

    def finish(self, x, old):
        """What an output of the pseudocode becomes in the register."""
        d = self.dst
        name = base_name(self.name)
        f = inputs.FORMATS.get(d.base)
        if name == "V_PACK_B32_F16":
            return each(floats.F16, 2, x, floats.flush_result)
        if f is not None and not NO_FLUSH.match(name) and not name.startswith("V_CVT_SR") and not MODE.output_denormals(f):
            x = each(f, max(1, d.count), x, floats.flush_result)
        if "MIXHI" in name and self.clamp:
            x = x & 0xFFFF | output(f, x >> 16, 0, 1) << 16
        elif f is not None and (self.omod or self.clamp):
            x = each(f, max(1, d.count), x, lambda f, v: output(f, v, self.omod, self.clamp))
        if self.sdwa and d.words == 1:
            if d.bits == 16:
                x &= 0xFFFF
                if self.sdwa.dst == 6 and name not in ZEROES:
                    x |= old & ~0xFFFF
            return self.sdwa.destination(x, old)
        if d.bits == 16 and not self.explicit_sel:
            x &= 0xFFFF
            if "MIXHI" in name:
                return x
            if self.op_sel & 8:
                return old & 0xFFFF | x << 16
            if name in ZEROES:
                return x
            return old & ~0xFFFF | x
        return x & ((1 << 32 * d.words) - 1)

    def run_wave(self, run, new):
        c = Wave(new)
        c.out = {}
        srcs = self.srcs
        c.SRC0 = srcs[0].number
        c.VDST = self.dst.number
        name = base_name(self.name)
        if name == "V_SWAP_B32":
            ex = new.exec
            a, b = list(new.v[self.dst.number]), list(new.v[srcs[0].number])
            for i in range(64):
                if ex >> i & 1:
                    a[i], b[i] = b[i], a[i]
            if self.dst.number != srcs[0].number:
                new.v[self.dst.number], new.v[srcs[0].number] = a, b
            return new
        if name in ("V_READLANE_B32", "V_READFIRSTLANE_B32"):
            if len(srcs) > 1:
                c.S1 = srcs[1].lanes(new)
            run(c)
            new.s[self.dst.number] = c.D0
            return new
        if name == "V_WRITELANE_B32":
            c.S0, c.S1 = srcs[0].lanes(new), srcs[1].lanes(new)
        run(c)
        return new


class Sdwa:
    """Selection of bytes and words of 32-bit sources and results."""

    NAMES = ["BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "WORD_0", "WORD_1", "DWORD"]

    def __init__(self):
        self.sel, self.sext, self.dst, self.unused = [6, 6], [0, 0], 6, 0

    @staticmethod
    def pick(v, sel, sext):
        if sel == 6:
            return v
        w = 8 if sel < 4 else 16
        x = v >> (8 * sel if sel < 4 else 16 * (sel - 4)) & ((1 << w) - 1)
        return library.sx(x, w) & 0xFFFFFFFF if sext else x

    def source(self, k, v):
        return self.pick(v, self.sel[k], self.sext[k])

    def destination(self, x, old):
        if self.dst == 6:
            return x & 0xFFFFFFFF
        w = 8 if self.dst < 4 else 16
        at = 8 * self.dst if self.dst < 4 else 16 * (self.dst - 4)
        x &= (1 << w) - 1
        if self.unused == 2:  # preserve
            return old & ~(((1 << w) - 1) << at) | x << at
        if self.unused == 1:  # sign extension above, zeros below
            return library.sx(x, w) << at & 0xFFFFFFFF
        return x << at


class Dpp:
    """Source 0 from another lane."""

    def __init__(self, text, function, rows, banks, zero):
        self.text, self.function, self.rows, self.banks, self.zero = text, function, rows, banks, zero

    def select(self, x, ex):
        """(the values, the lanes that are not written)."""
        out, off = [0] * 64, 0
        for lane in range(64):
            if not self.rows >> (lane // 16) & 1 or not self.banks >> (lane % 16 // 4) & 1:
                off |= 1 << lane
                continue
            src = self.function(lane)
            if src is None or not ex >> src & 1:
                if not self.zero:
                    off |= 1 << lane
            else:
                out[lane] = x[src]
        return out, off


def dpp_functions():
    """(text, lane -> lane that it reads, or None), for each kind of movement."""
    yield "quad_perm:[1,0,3,2]", lambda i: i & ~3 | (1, 0, 3, 2)[i & 3]
    yield "quad_perm:[3,3,1,0]", lambda i: i & ~3 | (3, 3, 1, 0)[i & 3]
    for n in (1, 4, 15):
        yield f"row_shl:{n}", lambda i, n=n: i + n if i % 16 + n < 16 else None
        yield f"row_shr:{n}", lambda i, n=n: i - n if i % 16 >= n else None
        yield f"row_ror:{n}", lambda i, n=n: i // 16 * 16 + (i - n) % 16
    yield "wave_shl:1", lambda i: i + 1 if i < 63 else None
    yield "wave_rol:1", lambda i: (i + 1) % 64
    yield "wave_shr:1", lambda i: i - 1 if i > 0 else None
    yield "wave_ror:1", lambda i: (i - 1) % 64
    yield "row_mirror", lambda i: i // 16 * 16 + 15 - i % 16
    yield "row_half_mirror", lambda i: i // 8 * 8 + 7 - i % 8
    yield "row_bcast:15", lambda i: i // 16 * 16 - 1 if i >= 16 else None
    yield "row_bcast:31", lambda i: 31 if i >= 32 else None
    yield "row_newbcast:3", lambda i: i // 16 * 16 + 3
