"""What counts as the same: bits, except where the pseudocode leaves something open or AMD states an error."""

import re

from . import floats, inputs
from .vector import base_name

# Units in the last place that AMD allows (f64: AMD's note on v_rcp_f64 and its kin, 2**29 ulp).
ULPS = [(r"V_(RCP|RCP_IFLAG|RSQ|SQRT|EXP|LOG)_F32", 1), (r"V_(RCP|RSQ|SQRT|EXP|LOG)_F16", 1), (r"V_(RCP|RSQ|SQRT)_F64", 1 << 29)]
ABSOLUTE = [(r"V_(SIN|COS)_F32", 2.0**-19), (r"V_(SIN|COS)_F16", 2.0**-9)]


class Rules:
    """How the results of one instruction are compared."""

    def __init__(self, form):
        base = base_name(form.name)
        self.form = form
        self.ulps = next((n for p, n in ULPS if re.fullmatch(p, base)), 0)
        self.absolute = next((n for p, n in ABSOLUTE if re.fullmatch(p, base)), 0)
        d = form.dst
        self.format = self.small = None
        self.either = False
        if d is not None and d.place == "v" and not re.match(r"V_(MOV|CNDMASK|ACCVGPR|SWAP|PERM|READ|WRITE)", base):
            self.format = inputs.FORMATS.get(d.base)
            if re.match(r"V_DOT2_F32|V_DOT2C_F32|V_MAD_MIX_F32", base):
                self.format = floats.F32
            z = form.arch == "gfx942"
            self.small = {"FP8": floats.FP8Z if z else floats.FP8, "BF8": floats.BF8Z if z else floats.BF8}.get(d.base)
            # Neither AMD's text nor LLVM says whether these zero the upper half or leave it.
            self.either = base in ("V_CVT_U16_F16", "V_CVT_I16_F16", "V_CVT_NORM_I16_F16", "V_CVT_NORM_U16_F16", "V_SAT_PK_U8_I16")

    def approximate(self):
        return bool(self.ulps or self.absolute)

    def element(self, want, got):
        """Whether two numbers agree; None where only the payload of a NaN differs."""
        f = self.format
        if want == got:
            return True
        if floats.is_nan(f, want):
            return None if floats.is_nan(f, got) else False
        if self.absolute:
            a, b = floats.value(f, want), floats.value(f, got)
            return a == b or abs(a - b) <= self.absolute
        if self.ulps:
            if floats.is_nan(f, got):
                return False
            # A denormal counts as zero for these instructions, in and out.
            least = f.frac + 1 + self.ulps
            if want & (f.sign - 1) <= least and got & (f.sign - 1) <= least:
                return True
            return abs(order(f, want) - order(f, got)) <= self.ulps
        return False

    def value(self, want, got):
        """As `element`, over all the numbers of an operand."""
        d, f = self.form.dst, self.format
        if self.either and (getattr(self.form, "sdwa", None) is None or self.form.sdwa.dst == 6):
            return want & 0xFFFF == got & 0xFFFF and got >> 16 in (0, want >> 16)
        if re.match(r"V_CVT_SR_B?F16|V_CVT_SCALEF32_F16_", self.form.name):
            f = floats.BF16 if "_BF16_" in self.form.name else floats.F16
            pairs = [(want >> k & 0xFFFF, got >> k & 0xFFFF) for k in (0, 16)]
            return True if want == got else None if all(a == b or floats.is_nan(f, a) and floats.is_nan(f, b) for a, b in pairs) else False
        if self.small is not None and want != got:
            for k in range(0, 32, 8):
                a, b = want >> k & 255, got >> k & 255
                if a != b and not (floats.is_nan(self.small, a) and floats.is_nan(self.small, b)):
                    return False
            return None
        if f is None:
            return want == got
        w, state = f.width, True
        n = max(1, d.count)
        m = (1 << w) - 1
        if getattr(self.form, "sdwa", None) and self.form.sdwa.dst != 6:
            return want == got  # a part of a number is kept: its bits decide, those of a NaN too
        shift = 16 if d.bits == 16 and self.form.op_sel & 8 and not self.form.explicit_sel else 0
        for k in range(n):
            r = self.element(want >> (k * w + shift) & m, got >> (k * w + shift) & m)
            if r is False:
                return False
            if r is None:
                state = None
        rest = ~(((1 << (n * w)) - 1) << shift)
        if want & rest != got & rest:
            return False
        return state


def order(f, x):
    """Numbers as integers in their order."""
    m = x & (f.sign - 1)
    return -m if x & f.sign else m


def differences(form, rules, before, want, got, engine_pc=None):
    """(list of what differs, NaN payloads that differ, registers compared)."""
    out, payloads = [], 0
    if isinstance(got, str):
        return [f"the emulator refuses it: {got}"], 0
    for n in ("scc", "vskip", "index", "mode", "pc"):
        a, b = getattr(want, n), getattr(got, n)
        if a != b:
            out.append(f"{n}: expected {a:#x}, got {b:#x}")
    if want.s != got.s:
        for k, (a, b) in enumerate(zip(want.s, got.s)):
            if a != b:
                out.append(f"s{k}: expected {a:#010x}, got {b:#010x} (before: {before.s[k]:#010x})")
    if want.v != got.v:
        d = form.dst
        own = range(d.number, d.number + d.words) if d is not None and d.place == "v" else ()
        for k, (a, b) in enumerate(zip(want.v, got.v)):
            if a != b and k not in own:
                for i in range(64):
                    if a[i] != b[i]:
                        out.append(f"v{k} lane {i}: expected {a[i]:#010x}, got {b[i]:#010x} (before: {before.v[k][i]:#010x})")
                        break
        if own:
            a, b, old = d.lanes(want), d.lanes(got), d.lanes(before)
            for i in range(64):
                if a[i] != b[i]:
                    r = rules.value(a[i], b[i])
                    if r is None:
                        payloads += 1
                    elif r is False and i not in form.unsure:
                        out.append(f"{d.name()} lane {i}: expected {a[i]:#x}, got {b[i]:#x} (before: {old[i]:#x})")
                        if len(out) > 3:
                            break
    if want.a != got.a:
        out.append("AGPRs differ")
    for n in ("lds", "mem", "scratch"):
        a, b = getattr(want, n), getattr(got, n)
        if a != b:
            k = next(i for i in range(len(a)) if a[i] != b[i])
            out.append(f"{n} at {k:#x}: expected {a[k:k + 8].hex()}, got {b[k:k + 8].hex()}")
    return out, payloads
