"""Values for registers: borders of every format, ties, and random bits."""

from . import floats

FORMATS = {"F16": floats.F16, "BF16": floats.BF16, "F32": floats.F32, "F64": floats.F64}
WIDTHS = {"FP8": 8, "BF8": 8, "FP6": 6, "BF6": 6, "FP4": 4}


def float_edges(f):
    """Zeros, denormals, borders, halves of units, infinities and NaN of both kinds, with both signs."""
    one = f.bias << f.fb
    out = [0, 1, 2, f.frac, f.frac + 1, f.frac + 2, f.frac >> 1, one, one - 1, one + 1, one - (1 << f.fb), one + (1 << f.fb),
           one + (1 << (f.fb - 1)), f.max, f.max - 1, f.inf, f.inf | f.quiet, f.inf | f.quiet | 1, f.inf | 1,
           f.inf | (f.quiet >> 1), f.inf | f.frac, one + (f.fb << f.fb), one + ((f.fb + 1) << f.fb) + 1,
           one + (7 << f.fb) + 1, one - (7 << f.fb), f.max - (1 << f.fb)]
    for n in (0.25, 0.75, 1.5, 2.5, 3.5, 3.0, 7.0, 127.0, 128.0, 255.0, 256.0, 255.5, 32767.0, 32768.0, 65535.0, 65504.0,
              65520.0, 65536.0, 448.0, 464.0, 480.0, 57344.0, 61440.0, 6.0, 240.0, 2147483647.0, 2147483648.0, 4294967295.0,
              4294967296.0, 0.1, 0.15915494309189535, 100.5, 1e-5, 1e10):
        m, d = n.as_integer_ratio()
        out.append(floats.pack(f, False, m, 1 - d.bit_length(), floats.NEAREST))
    return [x | s for x in out for s in (0, f.sign)]


def int_edges(w):
    top = 1 << w
    out = {0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 32, 33, 63, 64, 127, 128, 255, 256, top - 1, top - 2, top >> 1, (top >> 1) - 1,
           (top >> 1) + 1, top // 3, top - top // 3, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x800000, 0x7FFFFF, 0xFFFFFF, 0x80FF7F00,
           0x00010001, 0x80008000, 0x7FFF7FFF, 0xFF00, 0x0B0A0908, 0x0C0D0E0F}
    return sorted(x for x in out if x < top)


EDGES = {n: float_edges(f) for n, f in FORMATS.items()}
INT_EDGES = {}


def one_value(rng, base):
    """A random value of a base format such as F32, I16 or B64."""
    if base in FORMATS:
        f = FORMATS[base]
        k = rng.random()
        if k < 0.35:
            return rng.choice(EDGES[base])
        if k < 0.6:
            return rng.getrandbits(f.width)
        # Near one, so that sums and products stay finite; few bits, so that ties occur.
        span = min(f.bias - 1, rng.choice((1, 3, 12, 30)))
        e = f.bias + rng.randint(-span, span)
        m = rng.getrandbits(f.fb)
        if k < 0.8:
            m &= ~((1 << rng.randint(0, f.fb)) - 1)
        return rng.getrandbits(1) << (f.width - 1) | e << f.fb | m
    if base in WIDTHS:
        return rng.getrandbits(WIDTHS[base])
    w = int(base[1:])
    if w not in INT_EDGES:
        INT_EDGES[w] = int_edges(w)
    k = rng.random()
    if k < 0.4:
        return rng.choice(INT_EDGES[w])
    if k < 0.55:
        return rng.getrandbits(min(w, 7))
    if k < 0.65:
        return (1 << w) - 1 - rng.getrandbits(min(w, 7))
    return rng.getrandbits(w)


def split_format(fmt, bits):
    """(base, count) of a format's name in operands.py, such as NUM_PK2_F16."""
    name = fmt.replace("FMT_", "").replace("NUM_", "")
    count = 1
    if name.startswith("PK"):
        n, name = name[2:].split("_", 1)
        count = int(n)
    if name in ("ANY", "BUF", "M64", "RSRC_SCRATCH", "RSRC_SCALAR", "RSRC_TYPED"):
        return f"B{bits}", 1
    return name, count


def width(base):
    if base in FORMATS:
        return FORMATS[base].width
    return WIDTHS.get(base) or int(base[1:])


def register(rng, base, count, bits):
    """`bits` bits filled with values of a format."""
    w = width(base)
    out, at = 0, 0
    while at < bits:
        out |= one_value(rng, base) << at
        at += w
    return out & ((1 << bits) - 1)


def exec_mask(rng):
    k = rng.random()
    if k < 0.5:
        return (1 << 64) - 1
    if k < 0.8:
        return rng.getrandbits(64)
    if k < 0.9:
        return rng.getrandbits(64) & rng.getrandbits(64) & rng.getrandbits(64)
    if k < 0.95:
        return 1 << rng.randrange(64)
    return rng.choice((0, 0xFFFFFFFF, 0xFFFFFFFF00000000, (1 << 64) - 2))


def mode(rng, plain=0.35):
    """MODE: rounding, denormals, DX10_CLAMP and IEEE; as compilers have it in some cases."""
    if rng.random() < plain:
        return 0x3F0
    return rng.getrandbits(10)
