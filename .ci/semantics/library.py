"""The functions that the pseudocode calls, and the functions made from it."""

import math
import re

from . import corrections, floats
from .floats import MODE
from .language import FORMATS, Compiler, Unsupported, is_float, mask, suffix


def sx(x, w):
    x &= (1 << w) - 1
    return x - (1 << w) if x >> (w - 1) else x


def reverse(x, w):
    return int(bin(x & mask(w))[2:].zfill(w)[::-1], 2)


def subtract(f, a, b):
    return floats.add(f, a, b ^ f.sign) if not floats.is_nan(f, b) else floats.add(f, a, b)


def unequal(f, a, b):
    x, y = floats.compared(f, a), floats.compared(f, b)
    return x < y or x > y


def signext_from_bit(x, w, n):
    return sx(x & mask(n), n) if 0 < n < w else 0 if n == 0 else x


def exponent(f, x):
    return x >> f.fb & f.emask


def frexp_mantissa(f, x):
    """The fraction in [0.5, 1) of a number; zeros, infinities and NaN are as they are."""
    x = floats.flush(f, x)
    if floats.is_nan(f, x):
        return floats.quieted(f, x)
    if floats.is_inf(f, x) or floats.is_zero(f, x):
        return x
    m, _ = floats.parts(f, x)
    return floats.pack(f, m < 0, abs(m), -abs(m).bit_length(), floats.NEAREST)


def frexp_exponent(f, x):
    x = floats.flush(f, x)
    if floats.is_nan(f, x) or floats.is_inf(f, x) or floats.is_zero(f, x):
        return 0
    m, e = floats.parts(f, x)
    return abs(m).bit_length() + e


def fract(f, x):
    """x - floor(x), at most the largest number below one."""
    x = floats.flush(f, x)
    if floats.is_nan(f, x):
        return floats.quieted(f, x)
    if floats.is_inf(f, x):
        return f.nan
    y = floats.add(f, x, floats.neg(f, floats.integral(f, x, floats.DOWN)))
    return y if y & f.sign else min(y, (f.bias << f.fb) - 1)


def mix16(a, b, c):
    """A fused multiply-add of f32 that is converted to f16; between the two nothing is flushed."""
    den = MODE.den32
    MODE.den32 = den | 2
    r = floats.fma(floats.F32, a, b, c)
    MODE.den32 = den
    return floats.convert(floats.F32, floats.F16, r, flushing=False)


def mad(f, a, b, c):
    """a * b, rounded, plus c, rounded; the product is not flushed."""
    a, b = floats.flush(f, a), floats.flush(f, b)
    MODE.keep = True
    p = floats.mul(f, a, b)
    MODE.keep = False
    c = floats.flush(f, c)
    den, MODE.den64 = MODE.den64, MODE.den64 | 1
    r = floats.add(f, p, c)
    MODE.den64 = den
    return r


def minimum_number(f, a, b):
    if MODE.ieee and floats.is_signalling(f, a):
        return floats.quieted(f, a)
    if MODE.ieee and floats.is_signalling(f, b):
        return floats.quieted(f, b)
    if floats.is_nan(f, a):
        return b
    if floats.is_nan(f, b):
        return a
    x, y = floats.value(f, a), floats.value(f, b)
    if x == y:
        return a if a & f.sign else b
    return a if x < y else b


def maximum_number(f, a, b):
    if MODE.ieee and floats.is_signalling(f, a):
        return floats.quieted(f, a)
    if MODE.ieee and floats.is_signalling(f, b):
        return floats.quieted(f, b)
    if floats.is_nan(f, a):
        return b
    if floats.is_nan(f, b):
        return a
    x, y = floats.value(f, a), floats.value(f, b)
    if x == y:
        return b if a & f.sign else a
    return a if x > y else b


def minimum(f, a, b):
    """IEEE 754-2019 minimum: NaN if either is, and -0 is below +0."""
    if floats.is_nan(f, a) or floats.is_nan(f, b):
        return floats.nan_of(f, a, b)
    x, y = floats.value(f, a), floats.value(f, b)
    if x == y:
        return a if a & f.sign else b
    return a if x < y else b


def maximum(f, a, b):
    if floats.is_nan(f, a) or floats.is_nan(f, b):
        return floats.nan_of(f, a, b)
    x, y = floats.value(f, a), floats.value(f, b)
    if x == y:
        return b if a & f.sign else a
    return a if x > y else b


def first_one(x):
    return (x & -x).bit_length() - 1 if x else -1


def div_fmas(f, a, b, c):
    """The last refinement of a scaled quotient: a fused multiply-add, scaled before it is rounded."""
    power = 64 if f is floats.F32 else 128
    c = floats.flush(f, c)
    n = power if exponent(f, c) > f.bias else -power
    if any(floats.is_nan(f, x) or floats.is_inf(f, x) for x in (a, b, c)):
        return floats.fma(f, a, b, c)
    a, b = floats.flush(f, a), floats.flush(f, b)
    (ma, ea), (mb, eb), (mc, ec) = floats.parts(f, a), floats.parts(f, b), floats.parts(f, c)
    low = min(ea + eb, ec)
    total = (ma * mb << (ea + eb - low)) + (mc << (ec - low))
    return floats.result(f, total, low + n, floats.sum_sign(f, (a ^ b) & f.sign, c & f.sign))


def special(src, dst, x):
    """What a NaN or an infinity becomes in a small format."""
    s = dst.sign if x & src.sign and dst.kind != "fnuz" else 0
    if dst.kind == "finite":
        return s | dst.max
    if floats.is_nan(src, x) or dst.kind != "ieee":
        return s | dst.nan
    return s | dst.inf


def with_scale(src, dst, x, scale, divide):
    """Converts `x` times (or divided by) 2**(scale - 127), rounding once to nearest even, saturating."""
    if scale == 255:  # NaN as a block scale
        return special(src, dst, x & src.sign | src.nan if src.nan is not None else x) if dst.kind != "ieee" else \
            dst.nan | (dst.sign if x & src.sign else 0)
    if floats.is_nan(src, x) or floats.is_inf(src, x):
        return special(src, dst, x)
    s = x & src.sign
    m, e = floats.parts(src, x)
    if m == 0:
        return dst.sign if s and dst.kind != "fnuz" else 0
    e += (127 - scale) if divide else scale - 127
    return floats.pack(dst, m < 0, abs(m), e, floats.NEAREST, True)


def stochastic(src, dst, x, random, scale=127):
    """Converts with the upper bits of `random` added below the last place that is kept, then cut."""
    if scale == 255:
        x = x & src.sign | src.nan
    if floats.is_nan(src, x) or floats.is_inf(src, x):
        return special(src, dst, x)
    s = x & src.sign
    m, e = floats.parts(src, x)
    e += 127 - scale
    if m == 0:
        return dst.sign if s and dst.kind != "fnuz" else 0
    a = abs(m)
    q = max(e + a.bit_length() - dst.fb - 1, dst.least)
    n = src.fb - dst.fb  # one unit of the result's last place is 2**n of these
    shift = e - q + n
    a = a << shift if shift >= 0 else a >> -shift
    cut = a + (random >> (32 - n)) >> n
    return floats.pack(dst, m < 0, cut, q, floats.NEAREST, True)


def no_denormal(f, x):
    """The operand of an f32 function that takes denormals for zeros whatever MODE says."""
    return x & f.sign if f is floats.F32 and floats.is_denormal(f, x) else floats.flush(f, x)


def log2(f, x):
    x = no_denormal(f, x)
    if floats.is_nan(f, x):
        return floats.quieted(f, x)
    if floats.is_zero(f, x):
        return f.sign | f.inf
    if x & f.sign:
        return f.nan
    if floats.is_inf(f, x):
        return x
    return near(f, math.log2(floats.value(f, x)))


def exp2(f, x):
    x = no_denormal(f, x)
    if floats.is_nan(f, x):
        return floats.quieted(f, x)
    v = floats.value(f, x)
    if v > 2000:
        return f.inf
    if v < -2000:
        return 0
    m, e = math.frexp(2.0 ** (v - math.floor(v)))
    return exact_scaled(f, m, e + math.floor(v))


def exact_scaled(f, m, e):
    n, d = m.as_integer_ratio()
    return floats.pack(f, n < 0, abs(n), e - (d.bit_length() - 1), floats.NEAREST)


def near(f, v):
    if math.isnan(v):
        return f.nan
    if math.isinf(v):
        return f.inf | (f.sign if v < 0 else 0)
    if v == 0:
        return f.sign if math.copysign(1, v) < 0 else 0
    return exact_scaled(f, v, 0)


def square_root(f, x):
    x = floats.flush(f, x)
    if floats.is_nan(f, x):
        return floats.quieted(f, x)
    if floats.is_zero(f, x):
        return x
    if x & f.sign:
        return f.nan
    if floats.is_inf(f, x):
        return x
    m, e = floats.parts(f, x)
    k = 130 + (e & 1)
    m <<= k
    r = math.isqrt(m)
    return floats.pack(f, False, r << 1 | (r * r != m), (e - k) // 2 - 1, floats.NEAREST)


def reciprocal(f, x):
    x = no_denormal(f, x)
    return floats.divide(f, f.bias << f.fb, x)


def reciprocal_root(f, x):
    x = no_denormal(f, x)
    if floats.is_nan(f, x):
        return floats.quieted(f, x)
    if floats.is_zero(f, x):
        return x & f.sign | f.inf
    if x & f.sign:
        return f.nan
    if floats.is_inf(f, x):
        return 0
    m, e = floats.parts(f, x)
    # 1 / sqrt(m * 2**e), with e even: 2**k / sqrt(m << ...) by an integer root of the quotient.
    if e & 1:
        m, e = m << 1, e - 1
    k = 2 * (f.fb + m.bit_length() + 40)
    q = (1 << k) // m
    r = math.isqrt(q)
    return floats.pack(f, False, r << 1 | 1 if r * r * m != 1 << k else r << 1, -(k // 2) - e // 2 - 1, floats.NEAREST)


def turn(f, x, which):
    """sin or cos of 2 pi x."""
    x = no_denormal(f, x)
    if floats.is_nan(f, x):
        return floats.quieted(f, x)
    if floats.is_inf(f, x):
        return f.nan
    v = floats.value(f, x)
    if abs(v) > 256:
        return 0 if which == "sin" else f.bias << f.fb
    r = math.fmod(v, 1.0)
    y = math.sin(2 * math.pi * r) if which == "sin" else math.cos(2 * math.pi * r)
    return near(f, y)


def trig_preop(f, x, segment):
    """v_trig_preop_f64: 53 bits of 2/pi, from bit 1200 down, beginning at `segment` * 53 and the exponent's surplus."""
    e = exponent(f, x)
    shift = segment * 53
    if e > 1077:
        shift += e - 1077
    bits = (TWO_OVER_PI << shift) >> (1201 - 53) & mask(53) if shift < 1201 + 53 else 0
    scale = -53 - shift
    if e >= 1968:
        scale += 128
    return floats.pack(f, False, bits, scale, MODE.rounding(f), MODE.output_denormals(f)) if bits else 0


def two_over_pi():
    """The 1,201 bits of 2/pi after the binary point, by Machin's formula."""
    p = 1400

    def arctan_inverse(n):
        total, term, k, s = 0, (1 << p) // n, 1, 1
        while term:
            total += s * (term // k)
            term //= n * n
            k += 2
            s = -s
        return total

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))
    return (2 << (p + 1201)) // pi


TWO_OVER_PI = two_over_pi()


class Sub:
    """The operands of an instruction that another one's pseudocode calls."""

    def __init__(self, *values):
        self.S0 = self.S1 = self.S2 = self.D0 = 0
        for k, v in enumerate(values):
            setattr(self, f"S{k}", v)


class Library:
    """Pseudocode by mnemonic, compiled for one architecture."""

    def __init__(self, pseudocode, arch):
        self.pseudocode, self.arch = {k.name: v for k, v in pseudocode.items()}, arch
        self.widths, self.cache, self.sources = {}, {}, {}
        self.space = {k: v for k, v in globals().items() if not k.startswith("_")}
        self.space.update({k: getattr(floats, k) for k in dir(floats) if not k.startswith("_")})
        if arch == "gfx942":  # its eight-bit formats are the FNUZ ones
            self.space["FP8"], self.space["BF8"] = floats.FP8Z, floats.BF8Z
        self.space["fma"] = floats.fma

    def function(self, kind, name, saturate=False):
        """The function of the instruction `name` of the encoding `kind` (VOP3, DS, ...)."""
        key = (kind, name, "saturate") if saturate else (kind, name)
        if key not in self.cache:
            text = corrections.text(kind, name, self.arch, self.pseudocode)
            source = Compiler(rewrite(kind, name, text), self, name, saturate).compile()
            self.sources[key] = source
            scope = dict(self.space)
            scope["library"] = self
            exec(compile(source, f"<{name}>", "exec"), scope)
            self.cache[key] = scope["run"]
        return self.cache[key]

    def sub(self, name, *values):
        run = self.function("VOP", name)
        c = Sub(*values)
        run(c)
        return c.D0

    def call(self, compiler, name, values):
        x = [v[0] for v in values]
        t = [v[1] for v in values]
        f = FORMATS.get(t[0]) if t else None
        if name == "fma":
            return f"fma({f}, {x[0]}, {x[1]}, {x[2]})", t[0]
        if name == "div_fmas":
            return f"div_fmas({f}, {x[0]}, {x[1]}, {x[2]})", t[0]
        if name == "mix16":
            return f"mix16({x[0]}, {x[1]}, {x[2]})", ("f", 16)
        if name == "mad":
            return f"mad({f}, {x[0]}, {x[1]}, {x[2]})", t[0]
        simple = {"floor": "DOWN", "trunc": "ZERO", "ceil": "UP", "rndne": "NEAREST"}
        if name in simple:
            return f"integral({f}, {x[0]}, {simple[name]})", t[0]
        if name == "fract":
            return f"fract({f}, {x[0]})", t[0]
        if name == "abs":
            return f"({x[0]} & ({f}.sign - 1))", t[0]
        if name == "sign":
            return f"({x[0]} >> {t[0][1] - 1} & 1)", ("u", 1)
        if name == "exponent":
            return f"exponent({f}, {x[0]})", ("i", 32)
        if name in ("frexp_exponent",):
            return f"frexp_exponent({f}, {x[0]})", ("i", 32)
        if name == "mantissa":
            return f"frexp_mantissa({f}, {x[0]})", t[0]
        if name == "ldexp":
            return f"scale({f}, {x[0]}, {x[1]})", t[0]
        if name == "isNAN":
            return f"is_nan({f}, {x[0]})", ("u", 1)
        if name == "isSignalNAN":
            return f"is_signalling({f}, {x[0]})", ("u", 1)
        if name == "isQuietNAN":
            return f"(is_nan({f}, {x[0]}) and not is_signalling({f}, {x[0]}))", ("u", 1)
        if name == "cvtToQuietNAN":
            return f"quieted({f}, {x[0]})", t[0]
        if name in ("sqrt", "log2"):
            return f"{'square_root' if name == 'sqrt' else name}({f}, no_denormal({f}, {x[0]}))", t[0]
        if name in ("rcp", "rsq"):
            return f"{'reciprocal' if name == 'rcp' else 'reciprocal_root'}({f}, {x[0]})", t[0]
        if name == "pow":
            return f"exp2({FORMATS[t[1]]}, {x[1]})", t[1]
        if name in ("turn_sin", "turn_cos"):
            return f"turn({f}, {x[0]}, {name[5:]!r})", t[0]
        if name == "trig_preop":
            return f"trig_preop({f}, {x[0]}, {x[1]})", t[0]
        if name == "div_scale":
            return f"c.div_scale({FORMATS[t[0]]}, {x[0]}, {x[1]}, {x[2]})", t[0]
        if name == "signext":
            return x[0], ("i", 64)
        if name == "signext_from_bit":
            return f"signext_from_bit({x[0]}, {t[0][1]}, {x[1]})", t[0]
        if name == "bitCount":
            return f"({x[0]}).bit_count()", ("u", 32)
        if name == "s_ff1_i32_b64":
            return f"first_one({x[0]})", ("i", 32)
        if name == "HwRegWriteMask":
            return f"c.write_mask({x[0]})", ("i", 32)
        if name == "CalcDsAddr":
            return f"c.ds_address({x[0]}, {x[1]}, {x[2]})", ("u", 32)
        m = re.match(r"v_(min|max|med|minimum|maximum)(3?)_(f16|f32|f64|[iu](?:16|32))$", name)
        if m:
            return self.extremum(m.group(1), m.group(2), suffix(m.group(3)), x)
        if name in ("v_sad_u8", "v_msad_u8", "v_prng_b32"):
            return f"library.sub({name.upper()!r}, {', '.join(compiler.raw(a, b) for a, b in values)})", ("u", 32)
        return self.conversion(name, x, t)

    def extremum(self, what, three, ty, x):
        if is_float(ty):
            f = FORMATS[ty]
            fn = {"min": "minimum_number", "max": "maximum_number"}.get(what, what)
            inner = f"{fn}({f}, {x[0]}, {x[1]})"
            return (f"{fn}({f}, {inner}, {x[2]})" if three else inner), ty
        return f"{what}({', '.join(x)})", ty

    def conversion(self, name, x, t):
        m = re.match(r"(bf|fp|f|[iu])(\d+)_to_(bf|fp|f|[iu])(\d+|[su]?norm)(_sr|_SR)?(_scale)?$", name)
        if m is None:
            m = re.match(r"(f)(\d+)_to_(s|u)(norm)()()$", name)
        if m is None:
            raise Unsupported(f"the function {name}")
        a = (m.group(1), int(m.group(2)))
        if m.group(4) == "norm":
            signed = m.group(3) == "s"
            return f"to_norm({FORMATS[a]}, {x[0]}, {signed})", ("i" if signed else "u", 16)
        b = (m.group(3), int(m.group(4)))
        sr, scaled = m.group(5), m.group(6)
        if sr:
            scale = x[2] if scaled else "127"
            return f"stochastic({FORMATS[a]}, {FORMATS[b]}, {x[0]}, {x[1]}, {scale})", b
        if scaled:
            down = FORMATS[b] in ("FP8", "BF8", "FP6", "BF6", "FP4")
            return f"with_scale({FORMATS[a]}, {FORMATS[b]}, {x[0]}, {x[1]}, {down})", b
        if is_float(a) and is_float(b):
            return f"convert({FORMATS[a]}, {FORMATS[b]}, {x[0]})", b
        if is_float(a):
            w = b[1]
            low, high = (-(1 << (w - 1)), mask(w - 1)) if b[0] == "i" else (0, mask(w))
            return f"to_int({FORMATS[a]}, {x[0]}, {low}, {high})", b
        if is_float(b):
            return f"from_int({FORMATS[b]}, {x[0]})", b
        if b[1] >= a[1]:
            return x[0], b
        low, high = (-(1 << (b[1] - 1)), mask(b[1] - 1)) if b[0] == "i" else (0, mask(b[1]))
        return f"max({low}, min({high}, {x[0]}))", b


def rewrite(kind, name, text):
    """Names of a lane's own registers, where the pseudocode indexes the whole wave's."""
    text = text.replace("HwRegWriteMask(hwRegId, WAVE_STATUS.PRIV)", "HwRegWriteMask(hwRegId)")
    if kind.startswith("VOP"):
        text = text.replace("VGPR[laneId][VDST.u32]", "D0").replace("VGPR[laneId][SRC0.u32]", "S0")
        text = text.replace("EXEC.u64[laneId] = D0.u64[laneId]", "CARRY").replace("D0.u64[laneId]", "CARRY")
        text = text.replace("VCC.u64[laneId]", "CARRY").replace("D1.u1", "CARRY.u1").replace("D1.i1", "CARRY.u1")
        text = re.sub(r"TTBL = \{[^}]*\};", "", text)
        text = re.sub(r"\bD\.b", "D0.b", text)
        text = text.replace("VCC = 0x0LL", "CARRY = 0U").replace("VCC = 0x1LL", "CARRY = 1U")
    return text
