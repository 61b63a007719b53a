"""Memory instructions: LDS, flat, global, scratch, buffer and scalar memory, and the atomics of each."""

import re

from . import inputs
from .floats import MODE
from .machine import M0
from .vector import Lane, Operand

KINDS = ("DS", "FLAT", "GLOBAL", "SCRATCH", "MUBUF", "SMEM")
LDS, WINDOW, PRIVATE = 8192, 4096, 256


class Access(Lane):
    """One lane's view of memory. `bytes` is what MEM stands for; an address outside of it reads zero and writes nothing."""

    def __init__(self, st):
        super().__init__(st)
        self.where, self.start, self.at = None, 0, 0
        self.OFFSET = self.OFFSET0 = self.OFFSET1 = 0
        self.ADDR = self.ADDR_BASE = self.DATA = self.DATA2 = self.RETURN_DATA = self.VDATA = self.SDATA = 0
        self.inside = True

    def address(self):
        return self.at

    def ds_address(self, address, low, high):
        return address + low + (high << 8) & 0xFFFFFFFF

    def mem_read(self, address, n):
        if not self.inside:
            return 0
        i = address - self.start
        if i < 0 or i + n > len(self.where):
            raise IndexError(f"the test's own address {address:#x} is outside")
        return int.from_bytes(self.where[i:i + n], "little")

    def mem_write(self, address, n, value):
        if not self.inside:
            return
        i = address - self.start
        if i < 0 or i + n > len(self.where):
            raise IndexError(f"the test's own address {address:#x} is outside")
        self.where[i:i + n] = int(value).to_bytes(n, "little")


class Cross(Access):
    """ds_permute and ds_bpermute, which see all lanes."""

    def vgpr_read(self, lane, n):
        return self.old[n][lane]

    def vgpr_write(self, lane, n, value):
        self.new[n][lane] = value


class MemoryForm:
    """One memory instruction with its operands."""

    def __init__(self, name, kind, arch):
        self.name, self.kind, self.arch = name, kind, arch
        self.text, self.code = "", b""
        self.srcs, self.dst = [], None
        self.vgprs, self.agprs = 16, 8
        self.extra, self.unsure = {}, set()
        self.op_sel, self.explicit_sel, self.sdwa = 0, True, None
        self.addr = self.data = self.data2 = self.saddr = self.soffset = self.rsrc = None
        self.offset = self.offset0 = self.offset1 = 0
        self.size = access_size(name)
        self.returns = False

    def finish_code(self):
        """Nothing is taken from the machine code."""

    def plain_float(self):
        return re.search(r"_F(16|32|64)|_BF16", self.name) is not None

    def prepare(self, g, st, engine):
        """Memory, and addresses inside it: a different place for each lane."""
        if self.plain_float():
            st.mode = st.mode & ~0xFF | 0xF0
        getattr(self, "prepare_" + self.kind.lower())(g, st, engine)

    def fill(self, g, n):
        """Bytes of memory: numbers of the instruction's format where it has one."""
        m = re.search(r"(BF16|F16|F32|F64|[IU]32|[IU]64)", self.name)
        base = m.group(1) if m else "B32"
        w = inputs.width(base)
        if "X2" in self.name and base == "B32":
            base, w = "B64", 64
        out = bytearray()
        while len(out) < n:
            out += inputs.one_value(g.rng, base).to_bytes(w // 8, "little")
        return out

    def slots(self, g, room, size):
        """64 different places of `size` bytes below `room`, in a random order."""
        k = list(range(min(64, room // size)))
        g.rng.shuffle(k)
        if len(k) < 64:
            k = [k[i % len(k)] for i in range(64)]
        elif g.rng.random() < 0.3:
            k.sort()
        if self.extra.get("conflict"):
            k = [x & 7 for x in k]
        return [x * size for x in k]

    def prepare_ds(self, g, st, engine):
        st.lds = self.fill(g, LDS)
        if self.addr is None or "PERMUTE" in self.name:
            st.s[M0] = st.s[M0] & 0xFFFF0000 | 4 * g.rng.randrange(0, 512)
            return
        unit = self.size
        room = LDS // 2 if not self.extra.get("two") else 64 * unit
        base = self.slots(g, room, unit)
        low = 0 if self.extra.get("two") else self.offset
        if low:
            base = [x + (-low) % unit for x in base]
        file = st.v
        ex = st.exec
        file[self.addr.number] = [x if ex >> i & 1 else g.rng.getrandbits(32) for i, x in enumerate(base)]

    def prepare_flat(self, g, st, engine):
        st.mem = self.fill(g, WINDOW)
        target = [engine.base + x for x in self.slots(g, WINDOW, max(self.size, 4))]
        if self.kind == "FLAT" and self.extra.get("aperture"):
            st.lds = self.fill(g, LDS)
            target = [engine.shared + x for x in self.slots(g, LDS, max(self.size, 4))]
        ex = st.exec
        if self.saddr is not None:
            base = engine.base - g.rng.choice((0, 0, 64, 4096))
            st.set_s64(self.saddr.number, base)
            reach = [t - base - self.offset for t in target]
            if min(reach) < 0:
                base -= 8192
                st.set_s64(self.saddr.number, base)
                reach = [t - base - self.offset for t in target]
            st.v[self.addr.number] = [r if ex >> i & 1 else g.rng.getrandbits(32) for i, r in enumerate(reach)]
            return
        full = [(t - self.offset) & (1 << 64) - 1 if ex >> i & 1 else g.rng.getrandbits(64) for i, t in enumerate(target)]
        st.v[self.addr.number] = [x & 0xFFFFFFFF for x in full]
        st.v[self.addr.number + 1] = [x >> 32 for x in full]

    prepare_global = prepare_flat

    def prepare_scratch(self, g, st, engine):
        st.lane_bytes = PRIVATE
        st.scratch = self.fill(g, 64 * PRIVATE)
        unit = max(4, self.size)
        goal = [unit * g.rng.randrange(PRIVATE // unit) for _ in range(64)]
        s = 0
        if self.addr is None:
            goal = [goal[0]] * 64
        if self.saddr is not None:
            s = goal[0] - self.offset if self.addr is None else 4 * g.rng.randrange(16)
            if s < 0:
                s = 0
            st.s[self.saddr.number] = s
        ex = st.exec
        if self.addr is not None:
            need = [x - s - self.offset for x in goal]
            st.v[self.addr.number] = [x & 0xFFFFFFFF if ex >> i & 1 else g.rng.getrandbits(32) for i, x in enumerate(need)]

    def prepare_mubuf(self, g, st, engine):
        rng = g.rng
        st.mem = self.fill(g, WINDOW)
        unit = max(4, self.size)
        s = unit * rng.randrange(0, 4)
        if self.soffset.place == "s":
            st.s[self.soffset.number] = s
        else:
            s = self.soffset.number
        stride = 0
        if self.extra["idxen"]:
            stride = unit * rng.choice((1, 1, 2))
        base = engine.base
        records = WINDOW if stride == 0 else WINDOW // stride
        if rng.random() < 0.4:
            records = records * 3 // 4 // unit * unit if stride == 0 else records * 3 // 4
        words = [base & 0xFFFFFFFF, base >> 32 & 0xFFFF | stride << 16, records, 0x00027000]
        for k, w in enumerate(words):
            st.s[self.rsrc.number + k] = w
        ex = st.exec
        regs = []
        if self.extra["idxen"]:
            count = (WINDOW - s - self.offset - unit) // stride - 1
            order = list(range(min(count, 64)))
            rng.shuffle(order)
            order = [order[i % len(order)] for i in range(64)] if not self.writes() else (order + [count + 100000] * 64)[:64]
            if rng.random() < 0.4:
                order = [x if rng.random() < 0.8 else records + rng.randrange(5) for x in order]
            regs.append(order)
        if self.extra["offen"]:
            if self.extra["idxen"]:
                regs.append([0] * 64)
            else:
                room = WINDOW - s - self.offset - unit
                k = list(range(min(room // unit, 200)))
                rng.shuffle(k)
                regs.append([x * unit for x in k[:64]] if len(k) >= 64 else [0] * 64)
                if rng.random() < 0.4:
                    regs[-1] = [x if rng.random() < 0.8 else WINDOW + unit * rng.randrange(100) for x in regs[-1]]
        for k, r in enumerate(regs):
            st.v[self.addr.number + k] = [x if ex >> i & 1 else rng.getrandbits(32) for i, x in enumerate(r)]

    def writes(self):
        return "STORE" in self.name or "ATOMIC" in self.name

    def prepare_smem(self, g, st, engine):
        rng = g.rng
        st.mem = self.fill(g, WINDOW)
        s = 0
        if self.soffset is not None:
            s = 8 * rng.randrange(32)
            st.s[self.soffset.number] = s
        base = engine.base + 8 * rng.randrange(8) - (self.offset if self.offset < 0 else 0)
        if "BUFFER" in self.name:
            base = engine.base
            words = [base & 0xFFFFFFFF, base >> 32 & 0xFFFF, WINDOW, 0x00027000]
            if rng.random() < 0.3 and "LOAD" in self.name:
                words[2] = (s + self.offset) // 64 * 64 + 64 * rng.randrange(3)
            for k, w in enumerate(words):
                st.s[self.rsrc.number + k] = w
        else:
            st.set_s64(self.rsrc.number, base)

    # ---- execution

    def run(self, lib, st):
        run = lib.function(self.kind, self.name) if "SWIZZLE" not in self.name else None
        new = st.copy()
        MODE.set(st.mode)
        MODE.forced, MODE.keep = None, False
        if "SWIZZLE" in self.name:
            return self.run_swizzle(st, new)
        if self.kind == "SMEM":
            return self.run_scalar(run, st, new)
        if "PERMUTE" in self.name:
            return self.run_cross(run, st, new)
        c = Access(new)
        c.OFFSET, c.OFFSET0, c.OFFSET1 = self.offset, self.offset0, self.offset1
        ex = st.exec
        data = self.data.lanes(st) if self.data else None
        data2 = self.data2.lanes(st) if self.data2 else None
        old = self.dst.lanes(st) if self.dst else None
        out = list(old) if old else None
        text = lib.sources[self.kind, self.name]
        raw = "ds_address" in text or "ADDR_BASE" in text or "CONDXCHG" in self.name
        for lane in range(64):
            if not ex >> lane & 1:
                continue
            c.laneId = c.laneID = lane
            c.inside = True
            self.locate(c, st, new, lane, raw)
            if data is not None:
                c.DATA = c.VDATA = data[lane]
            if data2 is not None:
                c.DATA2 = data2[lane]
            if old is not None:
                c.RETURN_DATA = old[lane]
                if self.data is None:
                    c.VDATA = old[lane]
            run(c)
            if out is not None:
                x = c.VDATA if self.data is None and "VDATA" in text else c.RETURN_DATA
                out[lane] = x & (1 << 32 * self.dst.words) - 1
        if out is not None:
            file = new.v if self.dst.place == "v" else new.a
            for k in range(self.dst.words):
                file[self.dst.number + k] = [x >> 32 * k & 0xFFFFFFFF for x in out]
        return new

    def locate(self, c, st, new, lane, raw):
        if self.kind == "DS":
            c.where, c.start = new.lds, 0
            if self.addr is not None:
                a = st.v[self.addr.number][lane]
                c.ADDR_BASE = a
                c.ADDR = a if raw else a + self.offset & 0xFFFFFFFF
            return
        if self.kind in ("FLAT", "GLOBAL"):
            if self.saddr is not None:
                a = st.s64(self.saddr.number) + st.v[self.addr.number][lane] + self.offset
            else:
                a = st.v[self.addr.number][lane] + (st.v[self.addr.number + 1][lane] << 32) + self.offset
            a &= (1 << 64) - 1
            c.at = c.ADDR = a
            if self.extra.get("aperture"):
                c.where, c.start = new.lds, self.extra["shared"]
            else:
                c.where, c.start = new.mem, self.extra["base"]
            return
        if self.kind == "SCRATCH":
            a = self.offset
            if self.addr is not None:
                a += st.v[self.addr.number][lane]
            if self.saddr is not None:
                a += st.s[self.saddr.number]
            c.at = c.ADDR = a & 0xFFFFFFFF
            c.where = new.scratch
            c.start = -lane * PRIVATE
            return
        # A buffer, as the ISA documents' chapter on untyped buffers has it.
        w = [st.s[self.rsrc.number + k] for k in range(4)]
        base, stride, records = w[0] | (w[1] & 0xFFFF) << 32, w[1] >> 16 & 0x3FFF, w[2]
        s = st.s[self.soffset.number] if self.soffset.place == "s" else self.soffset.number
        regs = [st.v[self.addr.number + k][lane] for k in range(self.extra["idxen"] + self.extra["offen"])] if self.addr else []
        index = regs.pop(0) if self.extra["idxen"] else 0
        off = self.offset + (regs.pop(0) if self.extra["offen"] else 0)
        c.where, c.start = new.mem, self.extra["base"]
        c.at = c.ADDR = base + s + off + index * stride
        if stride:
            c.inside = index < records
        else:
            c.inside = off + self.size + s <= records

    def run_cross(self, run, st, new):
        c = Cross(new)
        c.old = st.v
        c.new = {self.dst.number: list(st.v[self.dst.number])}
        c.OFFSET, c.ADDR, c.DATA0, c.VDST = self.offset, self.addr.number, self.data.number, self.dst.number
        run(c)
        new.v[self.dst.number] = c.new[self.dst.number]
        return new

    def run_swizzle(self, st, new):
        """ds_swizzle_b32 as LLVM's assembler documents its two permutations; the pseudocode is a table of prose."""
        out, o, ex = list(st.v[self.dst.number]), self.offset, st.exec
        for i in range(64):
            if o & 0x8000:
                j = i & ~3 | o >> 2 * (i & 3) & 3
            else:
                j = i & 32 | ((i & o) | o >> 5) & 31 ^ o >> 10 & 31
            if ex >> i & 1:
                out[i] = st.v[self.data.number][j] if ex >> j & 1 else 0
        new.v[self.dst.number] = out
        return new

    def run_scalar(self, run, st, new):
        c = Access(new)
        c.where, c.start = new.mem, self.extra["base"]
        a = self.offset
        if self.soffset is not None:
            a += st.s[self.soffset.number]
        c.SDATA = c.DATA = self.dst.lanes(st)
        text = self.name
        if "BUFFER" in text:
            w = [st.s[self.rsrc.number + k] for k in range(4)]
            c.at = (w[0] | (w[1] & 0xFFFF) << 32) + (a & ~3)
            limit = w[2]
            if "LOAD" in text:  # each dword has its own range check
                c.SDATA = 0
                for k in range(self.dst.words):
                    if (a & ~3) + 4 * k + 4 <= limit:
                        c.SDATA |= c.mem_read(c.at + 4 * k, 4) << 32 * k
            else:
                run(c)
        else:
            c.at = (st.s64(self.rsrc.number) + a) & ~3
            run(c)
        if "LOAD" not in text and not self.returns:
            return new
        value, words = (c.SDATA, self.dst.words) if "LOAD" in text else (c.RETURN_DATA, self.size // 4)
        for k in range(words):
            new.s[self.dst.number + k] = value >> 32 * k & 0xFFFFFFFF
        return new


def access_size(name):
    """Bytes at one address."""
    if "B96" in name or "DWORDX3" in name or "B128" in name or "DWORDX4" in name:
        return 16
    if name.startswith("DS_"):
        if "_PK_" in name:
            return 4
        if "U64" in name or "I64" in name or "B64" in name or "F64" in name:
            return 8
        if re.search(r"_[UIB]8(_|$)", name):
            return 1
        if re.search(r"_[UIB]16", name):
            return 2
        return 4
    if "BYTE" in name:
        return 1
    if "SHORT" in name:
        return 2
    if "DWORDX2" in name or "_X2" in name or "F64" in name:
        return 8
    return 4


def build(lib, rng, key, operands, arch, picker):
    """One random form of a memory instruction, or None."""
    kind, name = type(key).__name__[:-2], key.name
    f = MemoryForm(name, kind, arch)
    fl = {k: (o[0].name, o[1], o[2].name) for k, o in operands.items()}
    p = picker(rng, False)
    low = name.lower()
    place = "a" if rng.random() < 0.15 else "v"

    def register(field):
        fmt, bits, k = fl[field]
        pl = place if "ACCVGPR" in k else "v"
        w = max(1, (bits + 31) // 32)
        n = rng.randrange(0, (8 if pl == "a" else 12) - w + 1)
        if w > 1:
            n &= ~1
        base, count = inputs.split_format(fmt, bits)
        m = re.search(r"(BF16|F16|F32|F64)", name)
        if m and base[0] == "B":
            base = m.group(1)
        return Operand(pl, n, bits, base, count)

    return globals()["build_" + kind.lower()](f, rng, fl, low, register, p)


def distinct(rng, a, others):
    """Whether the address registers are none of the data's."""
    return all(o is None or o.place != a.place or a.number + a.words <= o.number or o.number + o.words <= a.number for o in others)


def build_ds(f, rng, fl, low, register, p):
    args = []
    if "vdst" in fl:
        f.dst = register("vdst")
        args.append(f.dst.name())
    if "addr" in fl:
        f.addr = register("addr")
        args.append(f.addr.name())
    if "data0" in fl:
        f.data = register("data0")
        args.append(f.data.name())
    if "data1" in fl:
        f.data2 = register("data1")
        args.append(f.data2.name())
    if "SWIZZLE" in f.name:
        f.data = f.addr
        f.srcs = [f.data]
        f.addr = None
        if f.dst.place == "a":
            return None
        f.offset = rng.choice((0x8000 | rng.getrandbits(8), rng.getrandbits(15)))
        f.text = f"{low} {', '.join(args)} offset:{f.offset}"
        return f
    if "PERMUTE" in f.name:
        if f.dst.place == "a":
            return None
        f.srcs = [f.data]
        f.offset = rng.choice((0, 0, 4, 12, 252, 1000))
        f.text = f"{low} {', '.join(args)} offset:{f.offset}"
        return f
    if f.addr is not None and not distinct(rng, f.addr, [f.data, f.data2]):
        return None
    f.srcs = [o for o in (f.data, f.data2) if o is not None]
    if re.search(r"READ2|WRITE2|WRXCHG2", f.name):
        f.extra["two"] = True
        if "ST64" in f.name:
            f.offset0, f.offset1 = rng.sample(range(0, 1 + LDS // (128 * f.size)), 2)
            f.offset1 = min(f.offset1, LDS // (64 * f.size) - 1)
            if f.offset0 == f.offset1:
                return None
        else:
            f.offset0 = rng.choice((0, 0, 64))
            f.offset1 = f.offset0 + 64
            if rng.random() < 0.5:
                f.offset0, f.offset1 = f.offset1, f.offset0
        f.offset = f.offset0 | f.offset1 << 8
        f.text = f"{low} {', '.join(args)} offset0:{f.offset0} offset1:{f.offset1}"
        return f
    f.offset = rng.choice((0, 0, 4, 8, 64, 1024, 2052))
    if f.size >= 8:
        f.offset &= ~(f.size - 1)
    if f.addr is None:
        f.offset = 4 * rng.randrange(0, 100)
    f.offset0, f.offset1 = f.offset & 255, f.offset >> 8
    if f.dst is None and re.search(r"_(ADD|SUB|MIN|MAX|AND|OR|XOR)_[UIB]\d+$", f.name) and rng.random() < 0.3:
        f.extra["conflict"] = True
    f.text = f"{low} {', '.join(args)} offset:{f.offset}"
    return f


def build_flat(f, rng, fl, low, register, p):
    atomic = "ATOMIC" in f.name
    args = []
    f.returns = atomic and rng.random() < 0.6
    if "vdst" in fl and (not atomic or f.returns):
        f.dst = register("vdst")
        args.append(f.dst.name())
    f.addr = register("addr")
    narrow = f.kind == "GLOBAL" and rng.random() < 0.5
    if narrow:
        f.addr.bits, f.addr.words = 32, 1
    args.append(f.addr.name())
    if "data" in fl:
        f.data = register("data")
        if f.dst is not None:
            pass
        args.append(f.data.name())
        f.srcs = [f.data]
        if not distinct(rng, f.addr, [f.data]):
            return None
    if f.kind == "GLOBAL":
        if narrow:
            f.saddr = p.sgpr("FMT_NUM_B64", 64, special=False)
            args.append(f.saddr.name())
        else:
            args.append("off")
        f.offset = rng.choice((0, 0, 4, 16, 4095 & ~15, -16, -4096))
    else:
        f.offset = rng.choice((0, 0, 4, 16, 4080))
        if not atomic and rng.random() < 0.25:
            f.extra["aperture"] = True
            f.offset = rng.choice((0, 16))
    if atomic and f.dst is None and re.search(r"_ATOMIC_(ADD|SUB|[SU]MIN|[SU]MAX|AND|OR|XOR)(_X2)?$", f.name) and rng.random() < 0.3:
        f.extra["conflict"] = True
    f.text = f"{low} {', '.join(args)}" + (f" offset:{f.offset}" if f.offset else "") + (" sc0" if f.returns else "")
    return f


build_global = build_flat


def build_scratch(f, rng, fl, low, register, p):
    if "vdst" in fl:
        f.dst = register("vdst")
    else:
        f.data = register("data")
        f.srcs = [f.data]
    how = rng.randrange(4)
    if how in (0, 2):
        f.addr = register("addr")
        if not distinct(rng, f.addr, [f.data]):
            return None
    if how in (1, 2):
        f.saddr = p.sgpr("FMT_NUM_B32", 32, special=False)
    f.offset = 16 * rng.randrange(0, 4) if how == 3 else rng.choice((0, 0, 4, 16, -16, 2048, -4096))
    if how == 1 and f.offset < 0:
        f.offset = 0
    if how == 1 and f.offset > 100:
        f.offset = 16
    if how == 3:
        f.offset = max(f.size, 4) * rng.randrange(0, PRIVATE // max(f.size, 4))
    a = f.addr.name() if f.addr else "off"
    s = f.saddr.name() if f.saddr else "off"
    args = [f.dst.name(), a, s] if f.dst else [a, f.data.name(), s]
    f.text = f"{low} {', '.join(args)}" + (f" offset:{f.offset}" if f.offset else "")
    return f


def build_mubuf(f, rng, fl, low, register, p):
    atomic, store = "ATOMIC" in f.name, "STORE" in f.name
    if "FORMAT" in f.name or "LDS" in f.name or f.name.startswith(("BUFFER_WBL2", "BUFFER_INV")):
        return None
    v = register("vdata")
    f.returns = atomic and rng.random() < 0.6
    if not store and not atomic:
        f.dst = v
    else:
        f.data = v
        f.srcs = [v]
        if f.returns:
            w = 1 if f.size <= 4 else 2
            f.dst = Operand(v.place, v.number, 32 * w, v.base, 1)
    f.extra["idxen"], f.extra["offen"] = rng.choice(((0, 0), (1, 0), (0, 1), (0, 1), (1, 1)))
    if f.writes() and not f.extra["idxen"] and not f.extra["offen"]:
        f.extra["offen"] = 1
    n = f.extra["idxen"] + f.extra["offen"]
    if n:
        number = 2 * rng.randrange(0, 6) if n == 2 else rng.randrange(12)
        f.addr = Operand("v", number, 32 * n, "B32", 1)
        if not distinct(rng, f.addr, [f.data]):
            return None
    f.rsrc = Operand("s", 4 * rng.randrange(0, 20), 128, "B32", 4)
    if rng.random() < 0.6:
        while True:
            f.soffset = p.sgpr("FMT_NUM_B32", 32, special=False)
            if not f.rsrc.number <= f.soffset.number < f.rsrc.number + 4:
                break
    else:
        f.soffset = Operand("const", rng.choice((0, 16, 32)), 32, "B32", 1)
        f.soffset.text = str(f.soffset.number)
    f.offset = rng.choice((0, 0, 16, 64, 256))
    a = f.addr.name() if f.addr else "off"
    mods = (" idxen" if f.extra["idxen"] else "") + (" offen" if f.extra["offen"] else "")
    mods += (f" offset:{f.offset}" if f.offset else "") + (" sc0" if f.returns else "")
    f.text = f"{low} {v.name()}, {a}, {f.rsrc.name()}, {f.soffset.name()}{mods}"
    return f


def build_smem(f, rng, fl, low, register, p):
    f.vgprs = f.agprs = 0
    f.returns = "ATOMIC" in f.name and rng.random() < 0.6
    fmt, bits, _ = fl["sdata"]
    f.dst = p.sgpr(fmt, bits, special=False)
    f.rsrc = Operand("s", 4 * rng.randrange(0, 24), 128 if "BUFFER" in f.name else 64, "B32", 4)
    f.rsrc.words = 4 if "BUFFER" in f.name else 2
    how = rng.randrange(3)
    text = ""
    if how in (1, 2):
        while True:
            f.soffset = p.sgpr("FMT_NUM_B32", 32, special=False)
            if not f.rsrc.number <= f.soffset.number < f.rsrc.number + f.rsrc.words and \
                    not f.dst.number <= f.soffset.number < f.dst.number + f.dst.words:
                break
        text = f.soffset.name()
    if how in (0, 2):
        unit = 8 if "_X2" in f.name else 4
        f.offset = unit * rng.choice((0, 1, 16, 255, 300)) if "BUFFER" in f.name or rng.random() < 0.7 else -unit * rng.randrange(1, 32)
        text = f"{text} offset:{f.offset}" if text else f"0x{f.offset:x}" if f.offset >= 0 else str(f.offset)
    if "LOAD" not in f.name and f.dst.number < f.rsrc.number + f.rsrc.words and f.rsrc.number < f.dst.number + f.dst.words:
        return None
    f.srcs = [f.dst] if "LOAD" not in f.name else []
    f.text = f"{low} {f.dst.name()}, {f.rsrc.name()}, {text}" + (" glc" if f.returns else "")
    return f
