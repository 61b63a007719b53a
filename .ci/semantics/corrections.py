"""Where AMD's pseudocode is not what the instruction does, and what stands in for it.

Each row: a pattern of mnemonics, what is done to the pseudocode, and why. A text replaces the pseudocode whole (`{f}`
is the format in the mnemonic); a list of pairs replaces pieces of it.
"""

import re

LLVM = "LLVM's AMDGPU backend"
ISA = "the description of the instruction in the CDNA3 and CDNA4 ISA documents"
FMA_MIX = [("in[0] * in[1] + in[2]", "fma(in[0], in[1], in[2])")]

ROWS = [
    (r"V_RNDNE_(F16|F32|F64)", "D0.{f} = rndne(S0.{f})",
     f"floor(x + 0.5) rounds the sum and loses the sign of zero; {ISA}: round to nearest even"),
    (r"V_CEIL_(F16|F32|F64)", "D0.{f} = ceil(S0.{f})", "the same function in one step, so that a NaN is made quiet once"),
    (r"V_FLOOR_(F16|F32|F64)", "D0.{f} = floor(S0.{f})", "the same function in one step, so that a NaN is made quiet once"),
    (r"V_FRACT_(F16|F32|F64)", "D0.{f} = fract(S0.{f})",
     f"x - floor(x) rounds up to 1 for a small negative x; {LLVM} selects v_fract for min(x - floor(x), the largest number below 1)"),
    (r"V_FREXP_EXP_I32_(F32|F64)", "D0.i32 = frexp_exponent(S0.{f})",
     f"exponent() - bias + 1 is wrong for zero and denormals; {ISA}: S0 = significand * 2 ** exponent"),
    (r"V_FREXP_EXP_I16_(F16)", "D0.i16 = 16'I(frexp_exponent(S0.{f}))",
     f"exponent() - bias + 1 is wrong for zero and denormals; {ISA}: S0 = significand * 2 ** exponent"),
    (r"V_FREXP_MANT_(F16|F32|F64)", "D0.{f} = mantissa(S0.{f})", "the same function in one step, so that a NaN is made quiet once"),
    (r"V_RCP(?:_IFLAG)?_(F16|F32|F64)", "D0.{f} = rcp(S0.{f})", "the name of the function alone"),
    (r"V_RSQ_(F16|F32|F64)", "D0.{f} = rsq(S0.{f})", f"two roundings in the pseudocode; {ISA} gives one error for both"),
    (r"V_SIN_(F16|F32)", "D0.{f} = turn_sin(S0.{f})",
     f"the pseudocode rounds the product with 2 pi; {ISA}: arguments beyond 256 give 0"),
    (r"V_COS_(F16|F32)", "D0.{f} = turn_cos(S0.{f})",
     f"the pseudocode rounds the product with 2 pi; {ISA}: arguments beyond 256 give 1"),
    (r"V_TRIG_PREOP_(F64)", "D0.{f} = trig_preop(S0.{f}, S1[4 : 0].u32)",
     "the pseudocode's mask keeps the low 53 bits of 1,201; its comments say that the bits shifted into the whole part are kept"),
    (r"V_MIN_(F16|F32|F64)", "D0.{f} = v_min_{f}(S0.{f}, S1.{f})",
     "the same cases in the same order, with denormals flushed as MODE says (V_MIN3, V_MED3 call it by this name)"),
    (r"V_MAX_(F16|F32|F64)", "D0.{f} = v_max_{f}(S0.{f}, S1.{f})",
     "the same cases in the same order, with denormals flushed as MODE says (V_MAX3, V_MED3 call it by this name)"),
    (r"V_DIV_SCALE_F32", [("VCC = 0x0LL", "VCC = 0x0LL; D0.f32 = S0.f32"),
                          ("1.0 / 64'F(S1.f32) == DENORM.f64", "1.0F / S1.f32 == DENORM.f32"),
                          ("(S2.f32 / S1.f32 == DENORM.f32)) then\nVCC = 0x1LL;\nif S0.f32 == S1.f32 then\n"
                           "// Only scale the denominator\nD0.f32 = ldexp(S0.f32, 64)",
                           "(S2.f32 / S1.f32 == DENORM.f32)) then\nVCC = 0x1LL;\nif S0.f32 == S1.f32 then\nD0.f32 = ldexp(S0.f32, -64)")],
     "D0 is left unset where nothing is scaled; 1 / S1 is asked about in f64, where it is never denormal; a huge denominator is "
     "scaled up to infinity. See `division` in suite.py"),
    (r"V_DIV_SCALE_F64", [("VCC = 0x0LL", "VCC = 0x0LL; D0.f64 = S0.f64"),
                          ("(S2.f64 / S1.f64 == DENORM.f64)) then\nVCC = 0x1LL;\nif S0.f64 == S1.f64 then\n"
                           "// Only scale the denominator\nD0.f64 = ldexp(S0.f64, 128)",
                           "(S2.f64 / S1.f64 == DENORM.f64)) then\nVCC = 0x1LL;\nif S0.f64 == S1.f64 then\nD0.f64 = ldexp(S0.f64, -128)")],
     "D0 is left unset where nothing is scaled; a huge denominator is scaled up to infinity. See `division` in suite.py"),
    (r"V_DIV_FIXUP_(?:F32|F64)", [("elsif exponent(S1.f32) == 255 then", "elsif isNAN(64'F(S0.f32)) then"),
                                  ("elsif exponent(S1.f64) == 2047 then", "elsif isNAN(S0.f64) then")],
     "the condition for an overflow can never hold where it stands; the refinement of a quotient that is too large ends in NaN. "
     "See `division` in suite.py"),
    (r"V_DIV_FIXUP_LEGACY_F16", [("tmp = cvtToQuietNAN(64'F(S2.f16))", "tmp = 16'F(cvtToQuietNAN(64'F(S2.f16)))"),
                                 ("tmp = cvtToQuietNAN(64'F(S1.f16))", "tmp = 16'F(cvtToQuietNAN(64'F(S1.f16)))"),
                                 ("-INF : +INF", "-INF.f16 : +INF.f16"), ("-0.0 : 0.0", "-16'0.0 : 16'0.0")],
     "the branches have different formats; those of V_DIV_FIXUP_F16 are used"),
    (r"V_MAD_MIX_F32", FMA_MIX, f"{LLVM}: this opcode is v_fma_mix on gfx942 and gfx950, fused"),
    (r"V_MAD_MIX(?:LO|HI)_F16", [("f32_to_f16(in[0] * in[1] + in[2])", "mix16(in[0], in[1], in[2])")],
     f"{LLVM}: these opcodes are v_fma_mix on gfx942 and gfx950, fused; MODE's flushing of results is for the f16 result"),
    (r"V_CVT_SR_(FP8|BF8)_F32",
     "dstbyte = OPSEL[3 : 2].i32 * 8; D0[dstbyte + 7 : dstbyte].{f} = f32_to_{f}_sr(S0.f32, S1.u32)",
     "the pseudocode drops the carry out of the mantissa and rounds a second time; HIP's own amd_hip_fp8.h adds the random "
     "bits below the last place that is kept, and cuts"),
    (r"S_(?:CBRANCH_.*|BRANCH|CALL_B64)", [("SIMM16.i16 * 16'4", "32'I(SIMM16.i16) * 4")],
     f"the product would wrap at 16 bits; {LLVM} uses the whole range of 16 bits of dwords (128 KiB each way)"),
    (r"V_CMPX?_CLASS_F64", [("abs(S0.f64) > 0.0", "S0.u64[62 : 0] != 0ULL")],
     "the comparison with zero asks for the bits, not for what is left of a denormal under MODE (for f32 and f16 it is made in f64)"),
    (r"V_MAC_F16|V_MAD_(?:LEGACY_)?F16|V_MAD[AM]K_F16", [("S0.f16 * S1.f16 + D0.f16", "mad(S0.f16, S1.f16, D0.f16)"),
      ("S0.f16 * S1.f16 + S2.f16", "mad(S0.f16, S1.f16, S2.f16)"), ("S0.f16 * SIMM16.f16 + S1.f16", "mad(S0.f16, SIMM16.f16, S1.f16)"),
      ("S0.f16 * S1.f16 + SIMM16.f16", "mad(S0.f16, S1.f16, SIMM16.f16)")],
     "the product is rounded, and MODE's flushing of results is for results"),
    (r"V_PERM_B32", [("in[sel]", "in[sel.u32]")], "an index of a byte array, written with its width"),
    (r"V_CVT_OFF_F32_I4", "D0.f32 = i32_to_f32(32'I(S0.i4)) * 0.0625F",
     f"the table is not given; {ISA}: a 4-bit signed integer times 1/16"),
    (r"V_SAT_PK_U8_I16", [("tmp = 16'0;", "tmp = 16'0U;")], "the literal's kind"),
    (r"V_CVT_RPI_I32_F32", "ROUND_MODE = ROUND_NEAREST_EVEN; D0.i32 = f32_to_i32(floor(S0.f32 + 0.5F))",
     f"the sum is rounded to nearest whatever MODE says: {LLVM} has ReadsModeReg = 0 for it"),
    (r"V_PK_MOV_B32", [("S0.u32[", "S0["), ("S1.u32[", "S1[")], "a register of the pair is selected, beyond the first 32 bits"),
    (r"V_CVT_SCALEF32_F16_(?:FP8|BF8)", [("D0 = tmp.b32", "dstword = OPSEL[3].i32 * 16; D0[dstword + 15 : dstword].f16 = tmp")],
     "the comment in the pseudocode: OPSEL[3] says which half of the destination is written"),
    (r"V_DIV_FMAS_(F32|F64)", "D0.{f} = CARRY ? div_fmas(S0.{f}, S1.{f}, S2.{f}) : fma(S0.{f}, S1.{f}, S2.{f})",
     "V_DIV_SCALE scales by 2**64 (2**128) and the quotient has to be scaled back by as much, in the direction that the exponent "
     "of S2 tells; the pseudocode's 2**32 (2**64) gives wrong quotients. See `division` in suite.py"),
    (r"DS_CONDXCHG32_RTN_B64", [("declare RETURN_DATA : 32'U[2];\n", ""), ("ADDR = S0.u32;\n", ""), ("DATA = S1.u64;\n", ""),
                                ("offset = { OFFSET1, OFFSET0 };\n", "offset = 32'U({ OFFSET1, OFFSET0 });\n"),
                                ("RETURN_DATA[0] =", "RETURN_DATA[31 : 0] ="), ("RETURN_DATA[1] =", "RETURN_DATA[63 : 32] ="),
                                ("LDS[ADDR0] =", "LDS[ADDR0].u32 ="), ("LDS[ADDR1] =", "LDS[ADDR1].u32 ="),
                                ("ADDR + offset.u32", "ADDR.u32 + offset.u32")],
     "registers are named as in the other instructions"),
    (r"DS_(?:READ|WRITE)_ADDTID_B32", [("32'I({ OFFSET1, OFFSET0 } + M0[15 : 0])", "32'I(32'U({ OFFSET1, OFFSET0 }) + M0[15 : 0].u32)"),
                                       ("DATA0.u32", "DATA.u32")], "the sum is not cut at 16 bits; the operand's name is DATA"),
]


def row(name):
    base = re.sub(r"_E(32|64)$", "", name)
    for pattern, change, why in ROWS:
        m = re.fullmatch(pattern, base)
        if m:
            return m, change, why
    return None


def text(kind, name, arch, pseudocode):
    """The pseudocode to run for `name`."""
    base = re.sub(r"_E(32|64)$", "", name)
    own = next(pseudocode[n] for n in (name, base, base + "_E32", base + "_E64") if n in pseudocode)
    found = row(name)
    if found is None:
        return own
    m, change, _ = found
    if isinstance(change, str):
        return change.replace("{f}", m.group(1).lower()) if m.groups() else change
    for a, b in change:
        own = own.replace(a, b)
    return own
