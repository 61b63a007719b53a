"""Exact binary floating point on integers: every rounding mode, denormal setting and format that the instructions use.

A number is its bits. Each operation computes the exact result as an integer times a power of two and rounds once.
"""

import math

NEAREST, UP, DOWN, ZERO = 0, 1, 2, 3


class Format:
    """A binary format: width of exponent and fraction, bias, and what its top exponent means.

    `kind` is "ieee" (top exponent: infinities and NaN), "fn" (only all ones is NaN), "fnuz" (only 0x80 is NaN) or
    "finite" (neither infinity nor NaN).
    """

    def __init__(self, name, exponent, fraction, kind="ieee", bias=None):
        self.name, self.eb, self.fb, self.kind = name, exponent, fraction, kind
        self.width = 1 + exponent + fraction
        self.bias = bias if bias is not None else (1 << (exponent - 1)) - 1
        self.sign = 1 << (self.width - 1)
        self.frac = (1 << fraction) - 1
        self.emask = (1 << exponent) - 1
        self.least = 1 - self.bias - fraction  # exponent of the least significant bit of a subnormal number
        self.inf = self.emask << fraction
        self.quiet = 1 << (fraction - 1) if fraction else 0
        self.nan = {"ieee": self.inf | self.quiet, "fn": self.sign - 1, "fnuz": self.sign, "finite": None}[kind]
        if kind == "ieee":
            self.max = self.inf - 1
        elif kind == "fn":
            self.max = self.sign - 2
        else:
            self.max = self.sign - 1


F16 = Format("f16", 5, 10)
BF16 = Format("bf16", 8, 7)
F32 = Format("f32", 8, 23)
F64 = Format("f64", 11, 52)
FP8 = Format("fp8", 4, 3, "fn")
BF8 = Format("bf8", 5, 2)
FP8Z = Format("fp8z", 4, 3, "fnuz", 8)
BF8Z = Format("bf8z", 5, 2, "fnuz", 16)
FP6 = Format("fp6", 2, 3, "finite", 1)
BF6 = Format("bf6", 3, 2, "finite", 3)
FP4 = Format("fp4", 2, 1, "finite", 1)


class Mode:
    """The MODE register's floating-point part, as the running instruction sees it."""

    def __init__(self):
        self.set(0xF0)

    def set(self, mode):
        self.round32, self.round64 = mode & 3, mode >> 2 & 3
        self.den32, self.den64 = mode >> 4 & 3, mode >> 6 & 3
        self.dx10, self.ieee = mode >> 8 & 1, mode >> 9 & 1
        self.forced = None  # a rounding mode that the pseudocode sets
        self.keep = False  # True: denormals are kept whatever MODE says

    def rounding(self, f):
        if self.forced is not None:
            return self.forced
        return self.round32 if f is F32 else self.round64

    def input_denormals(self, f):
        return self.keep or f in NEVER_FLUSHED or (self.den32 if f is F32 else self.den64) & 1

    def output_denormals(self, f):
        return self.keep or f in NEVER_FLUSHED or (self.den32 if f is F32 else self.den64) >> 1 & 1


NEVER_FLUSHED = (BF16, FP8, BF8, FP8Z, BF8Z, FP6, BF6, FP4)
MODE = Mode()


def is_nan(f, x):
    if f.kind == "ieee":
        return x & (f.sign - 1) > f.inf
    if f.kind == "fn":
        return x & (f.sign - 1) == f.nan
    return f.kind == "fnuz" and x == f.nan


def is_inf(f, x):
    return f.kind == "ieee" and x & (f.sign - 1) == f.inf


def is_signalling(f, x):
    return is_nan(f, x) and f.kind == "ieee" and not x & f.quiet


def is_zero(f, x):
    return x & (f.sign - 1) == 0 and not (f.kind == "fnuz" and x == f.sign)


def is_denormal(f, x):
    return 0 < x & (f.sign - 1) <= f.frac


def quieted(f, x):
    return x | f.quiet if f.kind == "ieee" else f.nan


def flush(f, x):
    """The operand `x` as the arithmetic sees it: a denormal number is a zero with its sign where MODE says so."""
    if is_denormal(f, x) and not MODE.input_denormals(f):
        return x & f.sign
    return x


def parts(f, x):
    """A finite number as (signed integer, exponent): x = m * 2**e."""
    e = x >> f.fb & f.emask
    m = x & f.frac
    if e:
        m |= f.frac + 1
        e -= 1
    return (-m if x & f.sign else m), e + f.least


def pack(f, negative, m, e, rounding, denormals=True, saturate=False):
    """Rounds the exact value m * 2**e (m >= 0) to `f`."""
    s = f.sign if negative and f.kind != "fnuz" else 0
    if m == 0:
        return s
    negsign = f.sign if negative else 0
    n = m.bit_length()
    q = max(e + n - f.fb - 1, f.least)  # exponent of the result's last place
    shift = q - e
    if shift > 0:
        r = m >> shift
        rest = m & ((1 << shift) - 1)
        if rest:
            if rounding == NEAREST:
                half = 1 << (shift - 1)
                if rest > half or (rest == half and r & 1):
                    r += 1
            elif (rounding == UP and not negative) or (rounding == DOWN and negative):
                r += 1
    else:
        r = m << -shift
    if r >> (f.fb + 1):
        r >>= 1
        q += 1
    if r <= f.frac:  # subnormal
        if not denormals or r == 0:
            return s
        return negsign | r
    biased = q - f.least + 1
    bits = (biased << f.fb) + (r - f.frac - 1)
    if bits > f.max:
        if f.kind == "finite" or saturate:
            return negsign | f.max
        away = rounding == NEAREST or (rounding == UP and not negative) or (rounding == DOWN and negative)
        if f.kind == "ieee":
            return negsign | (f.inf if away else f.max)
        return (f.nan | (negsign if f.kind == "fn" else 0)) if away else negsign | f.max
    return negsign | bits


def result(f, m, e, zero_sign=0):
    """Rounds the exact signed value m * 2**e as MODE says; `zero_sign` is the sign of an exact zero."""
    if m == 0:
        return f.sign if zero_sign else 0
    return pack(f, m < 0, abs(m), e, MODE.rounding(f), MODE.output_denormals(f))


def nan_of(f, *operands):
    """The NaN that an operation with these operands gives: the first NaN, made quiet (the payload is not compared)."""
    for x in operands:
        if is_nan(f, x):
            return quieted(f, x)
    return f.nan


def add(f, a, b):
    a, b = flush(f, a), flush(f, b)
    if is_nan(f, a) or is_nan(f, b):
        return nan_of(f, a, b)
    if is_inf(f, a):
        return f.nan if is_inf(f, b) and a != b else a
    if is_inf(f, b):
        return b
    (ma, ea), (mb, eb) = parts(f, a), parts(f, b)
    e = min(ea, eb)
    m = (ma << (ea - e)) + (mb << (eb - e))
    return result(f, m, e, sum_sign(f, a & f.sign, b & f.sign))


def sum_sign(f, sa, sb):
    """Sign of an exact zero that is the sum of two terms with these signs."""
    if sa and sb:
        return 1
    if sa or sb:
        return MODE.rounding(f) == DOWN
    return 0


def neg(f, a):
    return a ^ f.sign


def mul(f, a, b):
    a, b = flush(f, a), flush(f, b)
    if is_nan(f, a) or is_nan(f, b):
        return nan_of(f, a, b)
    s = (a ^ b) & f.sign
    if is_inf(f, a) or is_inf(f, b):
        return f.nan if is_zero(f, a) or is_zero(f, b) else f.inf | s
    (ma, ea), (mb, eb) = parts(f, a), parts(f, b)
    return result(f, ma * mb, ea + eb, s)


def fma(f, a, b, c):
    a, b, c = flush(f, a), flush(f, b), flush(f, c)
    if is_nan(f, a) or is_nan(f, b) or is_nan(f, c):
        return nan_of(f, a, b, c)
    s = (a ^ b) & f.sign
    if is_inf(f, a) or is_inf(f, b):
        if is_zero(f, a) or is_zero(f, b) or (is_inf(f, c) and c & f.sign != s):
            return f.nan
        return f.inf | s
    if is_inf(f, c):
        return c
    (ma, ea), (mb, eb), (mc, ec) = parts(f, a), parts(f, b), parts(f, c)
    m, e = ma * mb, ea + eb
    low = min(e, ec)
    total = (m << (e - low)) + (mc << (ec - low))
    return result(f, total, low, sum_sign(f, s, c & f.sign))


def divide(f, a, b):
    """a / b, rounded once (used for what is compared within an error, and by the conditions of v_div_scale)."""
    if is_nan(f, a) or is_nan(f, b):
        return nan_of(f, a, b)
    s = (a ^ b) & f.sign
    if is_inf(f, a):
        return f.nan if is_inf(f, b) else f.inf | s
    if is_inf(f, b):
        return s
    if is_zero(f, b):
        return f.nan if is_zero(f, a) else f.inf | s
    (ma, ea), (mb, eb) = parts(f, a), parts(f, b)
    if ma == 0:
        return s
    k = f.fb + 8 + max(0, mb.bit_length() - abs(ma).bit_length())
    k += 60
    q, r = divmod(abs(ma) << k, abs(mb))
    return pack(f, bool(s), q << 1 | (r != 0), ea - eb - k - 1, NEAREST)


def scale(f, a, n):
    """a * 2**n, rounded once (ldexp)."""
    a = flush(f, a)
    if is_nan(f, a):
        return nan_of(f, a)
    if is_inf(f, a) or is_zero(f, a):
        return a
    m, e = parts(f, a)
    n = max(-100000, min(100000, n))
    return result(f, m, e + n)


def convert(src, dst, a, flushing=True):
    """From one format to another, as MODE says."""
    if flushing:
        a = flush(src, a)
    if is_nan(src, a):
        if dst.kind != "ieee":
            return dst.nan | (dst.sign if a & src.sign and dst.kind == "fn" else 0)
        s = dst.sign if a & src.sign and src.kind == "ieee" else 0
        if src.kind != "ieee":
            return dst.nan | s
        p = a & src.frac
        p = p << (dst.fb - src.fb) if dst.fb >= src.fb else p >> (src.fb - dst.fb)
        return s | dst.inf | dst.quiet | p
    s = a & src.sign
    if is_inf(src, a):
        return (dst.sign if s else 0) | (dst.inf if dst.kind == "ieee" else dst.nan)
    m, e = parts(src, a)
    return result(dst, m, e, s) if m else (dst.sign if s and dst.kind != "fnuz" else 0)


def widen(src, dst, a):
    """An exact change to a wider format; a signalling NaN stays one (the pseudocode asks about it afterwards)."""
    if is_nan(src, a) and src.kind == "ieee":
        return (dst.sign if a & src.sign else 0) | dst.inf | (a & src.frac) << (dst.fb - src.fb)
    if is_inf(src, a):
        return (dst.sign if a & src.sign else 0) | dst.inf
    m, e = parts(src, a)
    if m == 0:
        return dst.sign if a & src.sign else 0
    return pack(dst, m < 0, abs(m), e, NEAREST)


def narrow(src, dst, a):
    """Back from the wider format of a value that was widened: only NaN and exact values occur."""
    if is_nan(src, a):
        return (dst.sign if a & src.sign else 0) | dst.inf | (a & src.frac) >> (src.fb - dst.fb)
    if is_inf(src, a):
        return (dst.sign if a & src.sign else 0) | dst.inf
    m, e = parts(src, a)
    if m == 0:
        return dst.sign if a & src.sign else 0
    return pack(dst, m < 0, abs(m), e, MODE.rounding(dst))


def value(f, a):
    """The number as a Python float (exact for every format here); NaN for NaN."""
    if is_nan(f, a):
        return math.nan
    if is_inf(f, a):
        return -math.inf if a & f.sign else math.inf
    m, e = parts(f, a)
    if m == 0 and a & f.sign:
        return -0.0
    return math.ldexp(m, e)


def flush_result(f, a):
    """A result whose bits were chosen, not rounded (a minimum, say), as MODE leaves it."""
    return a & f.sign if is_denormal(f, a) and not MODE.output_denormals(f) else a


def compared(f, a):
    """The number as comparisons see it: denormals flushed as MODE says."""
    return value(f, flush(f, a))


def from_int(f, n):
    return result(f, n, 0)


def to_int(f, a, low, high, rounding=ZERO):
    """To an integer, saturating; NaN gives 0."""
    a = flush(f, a)
    if is_nan(f, a):
        return 0
    if is_inf(f, a):
        return low if a & f.sign else high
    return max(low, min(high, rounded_int(f, a, rounding)))


def rounded_int(f, a, rounding):
    m, e = parts(f, a)
    if e >= 0:
        return m << e
    q, r = m >> -e, m & ((1 << -e) - 1)  # q is the floor
    if r == 0:
        return q
    if rounding == NEAREST:
        half = 1 << (-e - 1)
        return q + (r > half or (r == half and q & 1))
    if rounding == UP or (rounding == ZERO and m < 0):
        return q + 1
    return q


def integral(f, a, rounding):
    """Rounds to an integral value in the same format, keeping the sign of zero."""
    a = flush(f, a)
    if is_nan(f, a):
        return nan_of(f, a)
    if is_inf(f, a):
        return a
    n = rounded_int(f, a, rounding)
    if n == 0:
        return a & f.sign
    return pack(f, n < 0, abs(n), 0, NEAREST)


def to_norm(f, a, signed):
    """To a normalised 16-bit integer: round to nearest of x * 32767 (65535), clamped."""
    a = flush(f, a)
    if is_nan(f, a):
        return 0
    top = 32767 if signed else 65535
    low = -top if signed else 0
    if is_inf(f, a):
        return low if a & f.sign else top
    m, e = parts(f, a)
    m *= top
    if e >= 0:
        n = m << e
    else:
        q, r = m >> -e, m & ((1 << -e) - 1)
        half = 1 << (-e - 1)
        n = q + (r > half or (r == half and q & 1))
    return max(low, min(top, n))
