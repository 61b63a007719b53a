"""Machine instructions with random operands for each instruction that has pseudocode, as assembly text."""

import re

from . import corrections, inputs, memory, scalar
from .machine import EXEC, M0, VCC
from .vector import Dpp, Form, Operand, Sdwa, base_name, constant, dpp_functions

# Integer instructions whose clamp bit stops a result at the ends of its type.
INTEGER_CLAMP = re.compile(r"V_(PK_)?(ADD|SUB|SUBREV|MAD)_[IU](16|32)$|V_MAD_[IU]32_[IU](16|24)$|V_DOT[248]_[IU]32_[IU]\d+$|V_SAD_U(8|16|32)$"
                           r"|V_PK_(ADD|SUB|MAD)_[IU]16$")
DPP = list(dpp_functions())
# Names that LLVM spells otherwise.
SPELLING = {"v_mad_mix_f32": "v_fma_mix_f32", "v_mad_mixlo_f16": "v_fma_mixlo_f16", "v_mad_mixhi_f16": "v_fma_mixhi_f16"}


def fields(lib, name, operands):
    """{field: (format, bits, kind)} of an instruction."""
    return {f: (o[0].name, o[1], o[2].name) for f, o in operands.items()}


class Picker:
    """Registers for the operands of one form."""

    def __init__(self, rng, big):
        self.rng = rng
        self.count = 96 if big else 16
        self.at = 0
        self.big = big

    def vgpr(self, fmt, bits, place="v"):
        base, n = inputs.split_format(fmt, bits)
        w = max(1, (bits + 31) // 32)
        if self.big:
            number = (self.at + 1) // 2 * 2 if w > 1 else self.at
            self.at = number + w
        elif w == 1:
            number = self.rng.randrange(12)
        else:
            number = 2 * self.rng.randrange(0, (self.count - w) // 2 + 1)
        return Operand(place, number, bits, base, n)

    def sgpr(self, fmt, bits, special=True):
        base, n = inputs.split_format(fmt, bits)
        w = max(1, (bits + 31) // 32)
        align = 1 if w == 1 else 2 if w == 2 else 4
        k = self.rng.random()
        if special and w <= 2 and k < 0.15:
            number = self.rng.choice((VCC, EXEC) if w == 2 else (VCC, VCC + 1, M0, EXEC, EXEC + 1))
        else:
            number = align * self.rng.randrange(0, (100 - w) // align)
        return Operand("s", number, bits, base, n)


def vector_source(p, fmt, bits, kind, literal, scalar=True):
    rng = p.rng
    base, n = inputs.split_format(fmt, bits)
    if kind.startswith("OPR_VGPR") or kind == "OPR_SRC_VGPR":
        return p.vgpr(fmt, bits)
    k = rng.random()
    if k < 0.6 or bits > 64 or not scalar:
        return p.vgpr(fmt, bits)
    if k < 0.78:
        return p.sgpr(fmt, bits)
    if k < 0.9 or not literal or bits > 32 or n > 1:
        if n > 1 and bits == 32 and base not in ("F16", "I16", "U16", "B16"):
            return p.vgpr(fmt, bits)
        if base in ("FP8", "BF8", "FP6", "BF6", "FP4", "BF16"):
            return p.vgpr(fmt, bits)
        if n > 1 and bits == 64:
            o = constant(rng, 32, base)
            o.bits, o.count = 64, n
            return o
        packed_int = n > 1 and base != "F16"
        o = constant(rng, bits // n if n > 1 and not packed_int else bits, base)
        while packed_int and "." in o.text:
            o = constant(rng, bits, base)
        o.bits, o.count = bits, n
        if n > 1 and "." not in o.text:
            o.number = int(o.text) & 0xFFFFFFFF
        return o
    o = Operand("literal", inputs.register(rng, base, 1, min(32, bits)), bits, base, n)
    o.text = f"0x{o.number:x}"
    return o


def integer_base(base):
    return base[0] in "IUB" and base != "BF16" and base not in ("BF8", "BF6")


def vop(lib, rng, key, operands, arch):
    """One random form of a VOP1, VOP2, VOPC, VOP3, VOP3SD or VOP3P instruction, or None."""
    kind = type(key).__name__[:-2]
    name = key.name
    fl = fields(lib, name, operands)
    total = sum(max(1, (o[1] + 31) // 32) for o in fl.values())
    p = Picker(rng, total > 10)
    form = Form(name, kind, arch)
    form.vgprs = p.count
    base = base_name(name)
    low = base.lower()
    mnemonic = SPELLING.get(low, low)
    wide = name.endswith("_E64") and f"{base}_E32" in lib.pseudocode
    short = name.endswith("_E32")
    dst, mask = None, None
    if "vdst" in fl:
        fmt, bits, k = fl["vdst"]
        if k in ("OPR_SREG", "OPR_SREG_NOVCC", "OPR_SDST"):
            dst = p.sgpr(fmt, bits, special=False)
        else:
            dst = p.vgpr(fmt, bits)
    names = [f for f in ("src0", "src1", "vsrc1", "src2") if f in fl]
    carry = "CARRY" if base in ("V_ADDC_CO_U32", "V_SUBB_CO_U32", "V_SUBBREV_CO_U32", "V_CNDMASK_B32", "V_DIV_FMAS_F32",
                                "V_DIV_FMAS_F64") else None
    madk = re.search(r"(MADMK|FMAMK|MADAK|FMAAK)", base)
    srcs = []
    for f in names:
        fmt, bits, k = fl[f]
        if f == "src2" and (k == "OPR_SREG" or base in ("V_CNDMASK_B32", "V_ADDC_CO_U32", "V_SUBB_CO_U32", "V_SUBBREV_CO_U32")):
            continue
        srcs.append(vector_source(p, fmt, bits, k, short and not madk, scalar=True))
    if base in ("V_WRITELANE_B32",):
        srcs = [p.sgpr("FMT_NUM_B32", 32), constant(rng, 32, "B32")]
        srcs[1].text = str(rng.randrange(64))
        srcs[1].number = int(srcs[1].text)
        if rng.random() < 0.5:
            srcs = [constant(rng, 32, "B32"), p.sgpr("FMT_NUM_B32", 32)]
    if base == "V_READLANE_B32":
        srcs[1] = p.sgpr("FMT_NUM_B32", 32)
        if rng.random() < 0.5:
            srcs[1] = constant(rng, 32, "B32")
            srcs[1].text = str(rng.randrange(64))
            srcs[1].number = int(srcs[1].text)
    if kind == "VOPC" or base.startswith(("V_CMP_", "V_CMPX_")):
        form.mask_dst = VCC if kind == "VOPC" else dst.number
        mask, dst = ("vcc" if kind == "VOPC" else dst.name()), None
    form.srcs, form.dst = srcs, dst
    text = corrections.text(kind, name, arch, lib.pseudocode)
    form.explicit_sel = "OPSEL" in text and not base.startswith(("V_MAC_F16", "V_MAD_LEGACY", "V_FMA_LEGACY", "V_DIV_FIXUP_LEGACY")) \
        or base.startswith(("V_CVT_SCALEF32", "V_CVT_SR", "V_CVT_F32_FP8", "V_CVT_F32_BF8", "V_CVT_PK_F32"))
    args = []
    if dst is not None:
        args.append(dst.name())
    elif mask is not None:
        args.append(mask)
    if kind == "VOP3SD":
        s = p.sgpr("FMT_NUM_M64", 64, special=False) if rng.random() < 0.6 else Operand("s", VCC, 64, "B64", 1)
        form.mask_dst = s.number
        args.append(s.name())
    elif "_CO_U32" in base and kind == "VOP2":
        form.mask_dst = VCC
        args.append("vcc")
    three = kind in ("VOP3", "VOP3SD")
    texts = []
    for k, o in enumerate(srcs):
        t = o.name()
        if three and o.base in ("F16", "F32", "F64") and o.count == 1 and not base.startswith(("V_LDEXP_F16", "V_CVT_SCALEF32")) \
                and o.place != "literal" and not re.search(r"_CLASS_|CVT_SR|PRNG|PACK_B32", base):
            if rng.random() < 0.3 and kind == "VOP3":  # VOP3SD has no room for it, and LLVM drops it silently
                form.abs[k] = 1
                t = f"|{t}|"
            if rng.random() < 0.3:
                form.neg[k] = 1
                t = f"neg({t})" if o.place == "const" else f"-{t}"
        texts.append(t)
    args += texts
    if carry and kind == "VOP2":
        form.carry_in = VCC
        args.append("vcc")
    elif carry and base.startswith("V_DIV_FMAS"):
        form.carry_in = VCC
    elif carry:
        s = p.sgpr("FMT_NUM_M64", 64, special=False) if rng.random() < 0.6 else Operand("s", VCC, 64, "B64", 1)
        form.carry_in = s.number
        args.append(s.name())
    if madk:
        value = inputs.register(rng, "F16" if "F16" in base else "F32", 1, 16 if "F16" in base else 32)
        form.simm32 = value
        args.insert(2 if madk.group(1).endswith("MK") else 3, f"0x{value:x}")
    tail = modifiers(form, rng, three, srcs, dst)
    if kind == "VOP3P":
        packed_selection(form, rng, base, srcs, tail)
    suffix = "_e64" if wide else "_e32" if short and not madk and not base.startswith(("V_SWAP", "V_READFIRSTLANE")) else ""
    form.text = f"{mnemonic}{suffix} {', '.join(args)} {' '.join(tail)}".strip()
    if kind in ("VOP1", "VOP2", "VOPC") and short and not madk and total <= 10 and not base.startswith(("V_SWAP", "V_READFIRST", "V_PERMLANE")):
        if rng.random() < 0.3 or base.startswith(("V_CVT_F32_FP8", "V_CVT_F32_BF8", "V_CVT_PK_F32")) and rng.random() < 0.7:
            if rng.random() < 0.5 or base.startswith(("V_CVT_F32_FP8", "V_CVT_F32_BF8", "V_CVT_PK_F32")):
                sdwa(form, rng, p, mnemonic, args, base)
            else:
                dpp(form, rng, p, mnemonic, args, fl)
    return form


def modifiers(form, rng, three, srcs, dst):
    """clamp, omod, op_sel and the table of v_bitop3: sets them in the form, and gives their text."""
    base, kind, tail = base_name(form.name), form.kind, []
    float_dst = dst is not None and dst.base in ("F16", "F32", "F64") and base not in ("V_MOV_B32",)
    if three and float_dst and not base.startswith(("V_CVT_SCALEF32", "V_CVT_SR", "V_CVT_F32_BF16")):
        if rng.random() < 0.2:
            form.clamp = 1
            tail.append("clamp")
        if rng.random() < 0.2 and base not in ("V_CVT_PKRTZ_F16_F32",):
            form.omod = rng.randint(1, 3)
            tail.append(("mul:2", "mul:4", "div:2")[form.omod - 1])
    if kind in ("VOP3", "VOP3P") and INTEGER_CLAMP.match(base) and rng.random() < 0.3:
        form.clamp = form.saturate = 1
        tail.append("clamp")
    if base.startswith("V_BITOP3"):
        form.ttbl = rng.getrandbits(8)
        tail.append(f"bitop3:0x{form.ttbl:x}")
    if three and (form.explicit_sel or any(o.bits == 16 for o in srcs) or (dst is not None and dst.bits == 16)) and rng.random() < 0.6 \
            and not base.startswith("V_CMP"):
        n = 4 if base.startswith(("V_CVT_SR_FP8", "V_CVT_SR_BF8")) or form.explicit_sel and rng.random() < 0.5 else len(srcs) + 1
        sel = [rng.getrandbits(1) for _ in range(n)]
        for k, o in enumerate(srcs):
            own = form.explicit_sel or o.bits != 16
            if k < len(sel) and (o.place == "const" or own and "SCALEF32" not in base):
                sel[k] = 0
        tail.append("op_sel:[" + ",".join(map(str, sel)) + "]")
    return tail


def packed_selection(form, rng, base, srcs, tail):
    """op_sel, op_sel_hi, neg_lo and neg_hi of a VOP3P instruction."""
    n = len(srcs)
    if base.startswith("V_PK_MOV"):
        form.explicit_sel = True
        form.op_sel = rng.getrandbits(2)
        for k, o in enumerate(srcs):
            if o.place == "const":
                form.op_sel &= ~(1 << k)
        tail.append(f"op_sel:[{form.op_sel & 1},{form.op_sel >> 1}]")
        return
    if base.startswith("V_MAD_MIX"):
        form.explicit_sel = True
        form.op_sel_hi = rng.getrandbits(3)
        form.op_sel = rng.getrandbits(3)
        for k, o in enumerate(srcs):
            if o.place == "const":
                form.op_sel &= ~(1 << k)
                form.op_sel_hi &= ~(1 << k)
                o.number, o.text = (o.number, o.text)
        tail.append("op_sel:[" + ",".join(str(form.op_sel >> k & 1) for k in range(n)) + "]")
        tail.append("op_sel_hi:[" + ",".join(str(form.op_sel_hi >> k & 1) for k in range(n)) + "]")
        mods = True
    else:
        form.packed = srcs[0].count == 2 and srcs[1].count == 2
        if not form.packed:
            return
        if rng.random() < 0.7 or any(o.place == "const" for o in srcs):
            form.op_sel, form.op_sel_hi = rng.getrandbits(n), rng.getrandbits(n)
            for k, o in enumerate(srcs):
                if o.place == "const" and (o.base not in ("I16", "U16", "B16") or "." in o.text) or o.count != 2:
                    form.op_sel &= ~(1 << k)
                    form.op_sel_hi &= ~(1 << k)
            tail.append("op_sel:[" + ",".join(str(form.op_sel >> k & 1) for k in range(n)) + "]")
            tail.append("op_sel_hi:[" + ",".join(str(form.op_sel_hi >> k & 1) for k in range(n)) + "]")
        else:
            form.op_sel_hi = (1 << n) - 1
        mods = srcs[0].base in ("F16", "F32") and not base.startswith("V_DOT")
    if mods and rng.random() < 0.5:
        for k in range(n):
            form.neg[k], form.abs[k] = rng.getrandbits(1), rng.getrandbits(1)
        tail.append("neg_lo:[" + ",".join(map(str, form.neg[:n])) + "]")
        tail.append("neg_hi:[" + ",".join(map(str, form.abs[:n])) + "]")
    if form.dst.base in ("F16", "F32") and rng.random() < 0.25:
        form.clamp = 1
        tail.append("clamp")


def sdwa(form, rng, p, mnemonic, args, base):
    """Turns a form into its SDWA one."""
    s = Sdwa()
    srcs = form.srcs
    for o in srcs:
        if o.place in ("const", "literal"):
            return
        if o.words > 1:
            return
    tail = []
    texts = []
    for k, o in enumerate(srcs):
        s.sel[k] = rng.randrange(7)
        t = o.name()
        if base.startswith(("V_CVT_F32_FP8", "V_CVT_F32_BF8")):
            s.sel[k] = rng.randrange(4)
        elif base.startswith("V_CVT_PK_F32"):
            s.sel[k] = rng.choice((4, 5))
        elif integer_base(o.base) and rng.random() < 0.3:
            s.sext[k] = 1
            t = f"sext({t})"
        elif o.base in ("F16", "F32") and o.count == 1:
            if rng.random() < 0.3:
                form.abs[k], t = 1, f"|{t}|"
            if rng.random() < 0.3:
                form.neg[k], t = 1, f"-{t}"
        texts.append(t)
        tail.append(f"src{k}_sel:{Sdwa.NAMES[s.sel[k]]}")
    if form.dst is not None and form.dst.words == 1 and not re.match(r"V_(RCP|RSQ|SQRT|EXP|LOG|SIN|COS)", base):
        s.dst, s.unused = rng.randrange(7), rng.randrange(3)
        tail.insert(0, f"dst_unused:{('UNUSED_PAD', 'UNUSED_SEXT', 'UNUSED_PRESERVE')[s.unused]}")
        tail.insert(0, f"dst_sel:{Sdwa.NAMES[s.dst]}")
    head = args[: len(args) - len(srcs) - (args[-1] == "vcc" and form.carry_in is not None)]
    end = ["vcc"] if args[-1] == "vcc" and form.carry_in is not None else []
    form.sdwa = s
    form.text = f"{mnemonic}_sdwa {', '.join(head + texts + end)} {' '.join(tail)}"
    if base.startswith(("V_CVT_F32_FP8", "V_CVT_F32_BF8", "V_CVT_PK_F32")):
        form.extra["selects itself"] = True


def dpp(form, rng, p, mnemonic, args, fl):
    """Turns a form into its DPP one."""
    for o in form.srcs:
        if o.words > 1 or o.place not in ("v",):
            return
    if form.dst is not None and form.dst.words > 1:
        return
    text, function = rng.choice(DPP)
    rows = 15 if rng.random() < 0.5 else rng.getrandbits(4)
    banks = 15 if rng.random() < 0.5 else rng.getrandbits(4)
    zero = rng.random() < 0.5
    form.dpp = Dpp(text, function, rows, banks, zero)
    form.text = f"{mnemonic}_dpp {', '.join(args)} {text} row_mask:0x{rows:x} bank_mask:0x{banks:x}" + (" bound_ctrl:1" if zero else "")


MEMORY = memory.KINDS


def form(lib, rng, key, operands, arch):
    """One random form of any instruction, or None where this draw gives none."""
    kind = type(key).__name__[:-2]
    if kind in ("SOP1", "SOP2", "SOPC", "SOPK", "SOPP"):
        return scalar.scalar(lib, rng, key, operands, arch, Picker)
    if kind.startswith("VOP"):
        return vop(lib, rng, key, operands, arch)
    return memory.build(lib, rng, key, operands, arch, Picker)
