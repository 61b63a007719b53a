"""Division as LLVM writes it, instruction by instruction through the emulator: the quotients must be correctly rounded.

AMD's pseudocode of V_DIV_SCALE and V_DIV_FMAS cannot be right as it stands (see corrections.py). What they have to do is
to give, together, the quotient that IEEE 754 asks for; that is what is compared here.
"""

import random

from . import floats, inputs
from .floats import MODE
from .machine import State

F32_STEPS = """v_div_scale_f32 v2, s[10:11], v1, v1, v0
v_div_scale_f32 v3, vcc, v0, v1, v0
v_rcp_f32_e32 v4, v2
v_fma_f32 v5, -v2, v4, 1.0
v_fma_f32 v4, v5, v4, v4
v_mul_f32_e32 v5, v3, v4
v_fma_f32 v6, -v2, v5, v3
v_fma_f32 v5, v6, v4, v5
v_fma_f32 v6, -v2, v5, v3
v_div_fmas_f32 v6, v6, v4, v5
v_div_fixup_f32 v7, v6, v1, v0""".split("\n")
F64_STEPS = """v_div_scale_f64 v[4:5], s[10:11], v[2:3], v[2:3], v[0:1]
v_div_scale_f64 v[6:7], vcc, v[0:1], v[2:3], v[0:1]
v_rcp_f64_e32 v[8:9], v[4:5]
v_fma_f64 v[10:11], -v[4:5], v[8:9], 1.0
v_fma_f64 v[8:9], v[8:9], v[10:11], v[8:9]
v_fma_f64 v[10:11], -v[4:5], v[8:9], 1.0
v_fma_f64 v[8:9], v[8:9], v[10:11], v[8:9]
v_mul_f64 v[10:11], v[6:7], v[8:9]
v_fma_f64 v[12:13], -v[4:5], v[10:11], v[6:7]
v_div_fmas_f64 v[12:13], v[12:13], v[8:9], v[10:11]
v_div_fixup_f64 v[14:15], v[12:13], v[2:3], v[0:1]""".split("\n")


def pairs(rng, f, base):
    """64 numerators and denominators: of all kinds, near each other, and with quotients at the ends of the range."""
    out = []
    for _ in range(64):
        a, b = inputs.one_value(rng, base), inputs.one_value(rng, base)
        k = rng.random()
        if k < 0.4:  # any exponents, so that quotients overflow, underflow and are denormal
            a, b = rng.getrandbits(f.width), rng.getrandbits(f.width)
        elif k < 0.6:  # a quotient near the least normal number
            e = rng.randrange(1, f.emask - f.bias + 40)
            a = e << f.fb | rng.getrandbits(f.fb)
            b = min(f.emask - 1, e + f.bias - 1 + rng.randint(-f.fb - 3, 2)) << f.fb | rng.getrandbits(f.fb)
        out.append((a, b))
    return out


def check(engine, assemble, arch, vectors, seed):
    """(quotients, descriptions of those that are wrong)."""
    rng = random.Random(f"{seed} division {arch}")
    done, wrong = 0, []
    for base, f, steps, words in (("F32", floats.F32, F32_STEPS, 1), ("F64", floats.F64, F64_STEPS, 2)):
        codes = [c for c, _ in assemble(steps)]
        states, questions = [], []
        for _ in range(vectors):
            st = State()
            st.mode, st.scc, st.vskip, st.index, st.pc = 0x3F0, 0, 0, 0xFF, 0
            st.s = [0] * 128
            st.set_s64(126, (1 << 64) - 1)
            st.v, st.a = [[0] * 64 for _ in range(16)], []
            st.lds, st.mem, st.scratch, st.lane_bytes = bytearray(), bytearray(), bytearray(), 0
            q = pairs(rng, f, base)
            for k in range(words):
                st.v[k] = [a >> 32 * k & 0xFFFFFFFF for a, _ in q]
                st.v[words + k] = [b >> 32 * k & 0xFFFFFFFF for _, b in q]
            states.append(st)
            questions.append(q)
        for code, text in zip(codes, steps):
            answers = engine.run(arch, [(code, st) for st in states])
            if any(isinstance(a, str) for a in answers):
                return done, [f"{arch} {text}: {next(a for a in answers if isinstance(a, str))}"]
            states = answers
        MODE.set(0x3F0)
        at = 7 if words == 1 else 14
        for st, q in zip(states, questions):
            for i, (a, b) in enumerate(q):
                got = sum(st.v[at + k][i] << 32 * k for k in range(words))
                want = floats.divide(f, a, b)
                done += 1
                if got != want and not (floats.is_nan(f, got) and floats.is_nan(f, want)):
                    wrong.append(f"{arch} {base} {a:#x} / {b:#x}: expected {want:#x}, got {got:#x}")
    return done, wrong
