"""Builds the instructions, runs both sides, and reports."""

import multiprocessing
import random
import re
import subprocess
import time
from collections import Counter, defaultdict

import numpy as np

from . import arithmetic, compare, corrections, division, forms, inputs
from .language import Unsupported
from .library import Library
from .machine import ARCHS, EXEC, M0, VCC, Engine, State

SCALAR = ("SOP1", "SOP2", "SOPC", "SOPK", "SOPP")
VECTOR = ("VOP1", "VOP2", "VOPC", "VOP3", "VOP3SD", "VOP3P")
# Instructions that the pseudocode cannot show, and the proof that they have otherwise.
ELSEWHERE = [
    (r"V_S?MFMAC?_", "the matrix instructions' own proof"),
    (r"S_(WAITCNT|SLEEP|NOP)$", "they change no register; unit tests of the emulator"),
    (r"S_(TRAP|RFE_B64|CBRANCH_CDBG.*)$", "none: a trap handler does not exist in the emulator, which reports them"),
    (r"(T?BUFFER_(LOAD|STORE)_FORMAT)", "none: ConvertFromFormat is not given; unit tests of the emulator"),
    (r"S_SCRATCH_", "none: compilers do not use scalar access to scratch"),
    (r"S_CBRANCH_(JOIN|G_FORK|I_FORK)$", "none: compilers have not used them since GFX9"),
]
# Instructions without pseudocode.
UNWRITTEN = [
    (r"V_S?MFMAC?_|V_ACCVGPR", "AMD gives no pseudocode that runs: the matrix instructions' own proof"),
    (r"DS_READ_B\d+_TR_|GLOBAL_LOAD_LDS|SCRATCH_LOAD_LDS|DS_APPEND|DS_CONSUME|DS_NOP", "AMD gives no pseudocode: unit tests of the emulator"),
    (r"S_(MEMTIME|MEMREALTIME|SETPRIO|SENDMSG|SENDMSGHALT|SETHALT|SETKILL|BARRIER|ENDPGM|ICACHE_INV|DCACHE_.*|INCPERFLEVEL|DECPERFLEVEL)$",
     "no registers to compare: unit tests of the emulator"),
    (r"S_ATC_PROBE|S_RFE_RESTORE|S_SET_VALU_COEXEC|V_SCREEN_PARTITION|V_(EXP|LOG)_LEGACY", "AMD gives no pseudocode: none"),
]


def tables():
    """AMD's pseudocode and operands, from the package."""
    from tinygrad.runtime.autogen.amd.cdna.operands import OPERANDS
    from tinygrad.runtime.autogen.amd.cdna.str_pcode import PCODE

    return PCODE, OPERANDS


def assemble(llvm_mc, arch, lines):
    """The machine code of each line, or None for a line that the assembler refuses, and its reason."""
    p = subprocess.run([llvm_mc, "-triple", "amdgcn-amd-amdhsa", f"-mcpu={arch}", "-show-encoding"], input="\n".join(lines) + "\n",
                       capture_output=True, text=True)
    refused = {}
    for m in re.finditer(r"^<stdin>:(\d+):\d+: error: (.*)$", p.stderr, re.M):
        refused[int(m.group(1)) - 1] = m.group(2)
    codes = [bytes(int(x, 16) for x in m.group(1).split(",")) for m in re.finditer(r"encoding: \[([^\]]*)\]", p.stdout)]
    if len(codes) + len(refused) != len(lines):
        raise RuntimeError(f"llvm-mc gave {len(codes)} encodings and {len(refused)} errors for {len(lines)} lines\n{p.stderr[:500]}")
    out, k = [], 0
    for i in range(len(lines)):
        if i in refused:
            out.append((None, refused[i]))
        else:
            out.append((codes[k], ""))
            k += 1
    return out


def all_names(pcode, operands):
    """Every instruction that has pseudocode, and the VOP3 forms that share another encoding's."""
    names = {k.name for k in pcode}
    out = list(pcode)
    for k in operands:
        if k.name not in names and k.name.endswith("_E64") and k.name[:-4] + "_E32" in names:
            out.append(k)
    return out


def build(args, pcode, operands):
    """The forms for each (kind, name, arch), the instructions that are left out with the reason."""
    made, left = defaultdict(list), {}
    for arch in [args.arch] if args.arch else ARCHS:
        lib = Library(pcode, arch)
        todo = []
        for key in all_names(pcode, operands):
            kind = type(key).__name__[:-2]
            if args.only and not key.name.startswith(tuple(args.only.upper().split(","))):
                continue
            if args.kind and kind != args.kind:
                continue
            reason = next((why for pattern, why in ELSEWHERE if re.match(pattern, key.name)), None)
            if reason is None and kind not in SCALAR + VECTOR + forms.MEMORY:
                reason = "not written"
            if reason is None:
                try:
                    if "SWIZZLE" not in key.name:
                        lib.function(kind, key.name)
                except Unsupported as e:
                    reason = f"the evaluator does not execute it: {e}"
            if reason is not None:
                left[kind, key.name, arch] = reason
                continue
            todo.append((kind, key, args.count or (3 if args.quick else 10), random.Random(f"{args.seed} {arch} {kind} {key.name}")))
        why = defaultdict(Counter)
        for _ in range(4):  # some of what is drawn is not legal, and the assembler says so
            drawn = []
            for kind, key, want, rng in todo:
                for _ in range(max(0, want - len(made[kind, key.name, arch])) * 3 // 2):
                    f = forms.form(lib, rng, key, operands.get(key, {}), arch)
                    if f is not None:
                        drawn.append((want, f))
            for (want, f), (code, error) in zip(drawn, assemble(args.llvm_mc, arch, [f.text for _, f in drawn])):
                there = made[f.kind, f.name, arch]
                if code is None:
                    why[f.kind, f.name][error] += 1
                elif len(there) < want:
                    f.code = code
                    f.finish_code()
                    there.append(f)
        for kind, key, _, _ in todo:
            if not made[kind, key.name, arch]:
                del made[kind, key.name, arch]
                reasons = why[kind, key.name].most_common(1)
                left[kind, key.name, arch] = "llvm-mc does not assemble it: " + (reasons[0][0] if reasons else "no form")
    return made, left


class Generator:
    """States for a form."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.np = np.random.default_rng(abs(hash(seed)) % (1 << 32))

    def state(self, form, engine):
        rng = self.rng
        st = State()
        st.mode, st.scc, st.vskip, st.index, st.pc = inputs.mode(rng), rng.getrandbits(1), 0, 0xFF, 0
        st.s = self.np.integers(0, 1 << 32, 128, dtype=np.uint64).tolist()
        st.v = self.np.integers(0, 1 << 32, (form.vgprs, 64), dtype=np.uint64).tolist()
        st.a = self.np.integers(0, 1 << 32, (form.agprs, 64), dtype=np.uint64).tolist()
        st.lds, st.mem, st.scratch, st.lane_bytes = bytearray(), bytearray(), bytearray(), 0
        st.set_s64(EXEC, inputs.exec_mask(rng))
        st.set_s64(VCC, rng.choice((0, (1 << 64) - 1, rng.getrandbits(64), rng.getrandbits(64))))
        done = set()
        operands = list(form.srcs)
        if form.dst is not None:
            operands.append(form.dst)
        for o in operands:
            if o.place == "s" and o.number < 106:
                v = inputs.register(rng, o.base, o.count, 32 * o.words)
                for k in range(o.words):
                    st.s[o.number + k] = v >> 32 * k & 0xFFFFFFFF
            elif o.place in "va" and (o.place, o.number) not in done:
                self.fill(st.v if o.place == "v" else st.a, o)
                done.add((o.place, o.number))
        if len(form.srcs) > 1:
            self.relate(st, form.srcs)
        form.prepare(self, st, engine)
        return st

    def fill(self, file, o):
        rng = self.rng
        values = [inputs.register(rng, o.base, o.count, 32 * o.words) for _ in range(64)]
        for k in range(o.words):
            file[o.number + k] = [v >> 32 * k & 0xFFFFFFFF for v in values]

    def relate(self, st, srcs):
        """Makes some lanes of one source equal, or opposite, to another's."""
        rng = self.rng
        regs = [o for o in srcs if o.place == "v"]
        for b in regs[1:]:
            a = regs[0]
            if a.words != b.words or a.number == b.number:
                continue
            for i in range(64):
                if rng.random() < 0.12:
                    flip = (1 << (b.bits - 1) % 32) if rng.random() < 0.5 else 0
                    for k in range(a.words):
                        st.v[b.number + k][i] = st.v[a.number + k][i] ^ (flip if k == a.words - 1 else 0)


def work(number):
    """Runs one instruction on one architecture: what was compared, and what differs."""
    (kind, name, arch), batch = TASKS[number]
    args = CONTEXT["args"]
    lib, engine = CONTEXT["lib"][arch], CONTEXT["engine"]
    for form in batch:
        form.extra.update(base=engine.base, shared=engine.shared)
    states = args.states or (2 if args.quick else 6)
    if kind in SCALAR:
        states *= 8
    gen = Generator(f"{args.seed} {arch} {kind} {name}")
    vectors = payloads = unsure = 0
    shown, bad = [], 0
    start = time.time()
    for form in batch:
        rules = compare.Rules(form)
        jobs, wants = [], []
        for _ in range(states):
            st = gen.state(form, engine)
            if kind in SCALAR:
                want = form.run(lib, st, engine.code)
            else:
                want = form.run(lib, st)
                want.pc = engine.code + len(form.code)
            jobs.append((form.code, st))
            wants.append((want, set(form.unsure)))
        for (_, st), (want, open_), got in zip(jobs, wants, engine.run(arch, jobs)):
            vectors += 1
            form.unsure = open_
            unsure += len(open_)
            if got is None:
                continue
            diff, nans = compare.differences(form, rules, st, want, got)
            payloads += nans
            if diff:
                bad += 1
                if len(shown) < args.show:
                    shown.append(describe(form, st, diff))
    return (kind, name, arch), vectors, payloads, unsure, bad, shown, time.time() - start, len(batch)


def describe(form, st, diff):
    code = " ".join(f"{b:02x}" for b in form.code)
    lines = [f"{form.arch} {form.text}   [{code}]  MODE {st.mode:#x} SCC {st.scc} EXEC {st.exec:#x} VCC {st.s64(VCC):#x} M0 {st.s[M0]:#x}"]
    for d in diff[:3]:
        lines.append("    " + d)
        m = re.search(r"lane (\d+)", d)
        if m:
            i = int(m.group(1))
            for k, o in enumerate(form.srcs):
                v = o.lanes(st)
                v = v[i] if isinstance(v, list) else v
                lines.append(f"      source {k} {o.name()}: {v:#x}")
        elif form.kind in SCALAR:
            for k, o in enumerate(form.srcs):
                lines.append(f"      source {k} {o.name()}: {o.lanes(st):#x}")
    return "\n".join(lines)


CONTEXT = {}
TASKS = []  # set before the workers are forked


def start(args, pcode):
    CONTEXT["lib"] = {a: Library(pcode, a) for a in ARCHS}
    CONTEXT["engine"] = Engine(args.executable) if args.executable else Echo()
    CONTEXT["args"] = args


class Echo:
    """Stands in for the emulator where only the evaluator is tried: nothing is compared."""

    code, base, size, shared, private = 0x1000, 0x200000, 1 << 16, 0x1000000000000, 0x2000000000000

    def run(self, arch, jobs):
        return [None] * len(jobs)


def run(args):
    begin = time.time()
    print(f"the evaluator's arithmetic: {arithmetic.check()} operations as numpy has them")
    if not args.executable:
        print("no executable is given: the pseudocode is run, and nothing is compared")
    pcode, operands = tables()
    made, left = build(args, pcode, operands)
    print(f"{len(made)} instructions of both architectures assembled in {time.time() - begin:.0f} s", flush=True)
    TASKS.extend(made.items())
    random.Random(args.seed).shuffle(TASKS)
    tasks = range(len(TASKS))
    context = multiprocessing.get_context("fork")
    results = []
    if args.jobs == 1:
        start(args, pcode)
        results = [work(t) for t in tasks]
    else:
        with context.Pool(args.jobs, start, (args, pcode)) as pool:
            results = list(pool.imap_unordered(work, tasks, chunksize=4))
    wrong = divisions(args)
    for key in operands:
        if not any(k[1] == key.name for k in left) and not any(k[1] == key.name for k in made):
            why = next((w for pattern, w in UNWRITTEN if re.match(pattern, key.name)), None)
            if why and not args.only:
                left[type(key).__name__[:-2], key.name, "both"] = why
    return max(report(args, results, left, time.time() - begin), int(bool(wrong)))


def divisions(args):
    """Quotients through the emulator; prints what is wrong."""
    if not args.executable or args.only or args.kind:
        return []
    engine, wrong, done = Engine(args.executable), [], 0
    for arch in [args.arch] if args.arch else ARCHS:
        n, bad = division.check(engine, lambda lines, arch=arch: assemble(args.llvm_mc, arch, lines), arch, 20 if args.quick else 100, args.seed)
        done += n
        wrong += bad
    engine.close()
    print(f"division as LLVM writes it: {done} quotients, {len(wrong)} of them not correctly rounded")
    for line in wrong[:10]:
        print("  " + line)
    return wrong


def report(args, results, left, seconds):
    results.sort(key=lambda r: r[0])
    by = defaultdict(lambda: [0, 0, 0, 0, 0, 0])
    for (kind, name, arch), vectors, payloads, unsure, bad, shown, _, n in results:
        row = by[kind]
        row[0] += 1
        row[1] += n
        row[2] += vectors
        row[3] += payloads
        row[4] += bool(bad)
        row[5] += bad
        if bad:
            print(f"{arch} {name}: {bad} of {vectors} vectors differ")
            for s in shown:
                print("  " + s.replace("\n", "\n  "))
    print(f"\n{'encoding':8} {'instructions':>12} {'forms':>7} {'vectors':>8} {'NaN payloads':>12} {'wrong':>6} {'vectors wrong':>13}")
    total = [0] * 6
    for kind in sorted(by):
        r = by[kind]
        total = [a + b for a, b in zip(total, r)]
        print(f"{kind:8} {r[0]:12} {r[1]:7} {r[2]:8} {r[3]:12} {r[4]:6} {r[5]:13}")
    print(f"{'all':8} {total[0]:12} {total[1]:7} {total[2]:8} {total[3]:12} {total[4]:6} {total[5]:13}")
    reasons = defaultdict(list)
    for (kind, name, arch), why in left.items():
        reasons[why].append(f"{name} ({arch})")
    print(f"\nNot compared: {len(left)} (an instruction counts once for each architecture)")
    for why, names in sorted(reasons.items(), key=lambda x: -len(x[1])):
        print(f"  {len(names)}: {why}" + (": " + ", ".join(sorted(names)) if args.list else f": {', '.join(sorted(names)[:3])}..."))
    corrected = {name for (_, name, _), *_ in results if corrections.row(name)}
    print(f"\nCorrected pseudocode: {len(corrected)} mnemonics" + ("" if args.list else " (--list shows the reasons)"))
    if args.list:
        for pattern, _, why in corrections.ROWS:
            print(f"  {pattern}: {why}")
    print(f"{seconds:.0f} s")
    slow = sorted(results, key=lambda r: -r[6])[:5]
    print("slowest: " + ", ".join(f"{r[0][1]} {r[6]:.1f} s" for r in slow))
    return 1 if total[5] else 0
