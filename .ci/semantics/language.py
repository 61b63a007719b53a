"""Reads AMD's pseudocode and turns each instruction into a Python function.

Every expression has a static type (kind and width), so that what an addition wraps at, or what a shift drops, is
known when the function is made. Values are Python integers: unsigned and raw bits as they are, signed ones negative
where they are, floating-point numbers as their bits.
"""

import re

from . import floats

TOKEN = re.compile(
    r"""\s*(?:
    (?P<cast>\d+'(?:BF|[IUBF])(?=\())
  | (?P<type>\d+'(?:BF|[IUBF])\b)
  | (?P<sized>\d+'0x[0-9a-fA-F]+|\d+'\d+\.\d+|\d+'\d+[UIF]?)
  | (?P<number>0x[0-9a-fA-F]+(?:ULL|LL|U)?|\d+\.\d+F?|\d+(?:ULL|LL|U)?)
  | (?P<name>[A-Za-z_][A-Za-z_0-9]*)
  | (?P<op>\*\*|<<|>>|<=|>=|<>|==|!=|&&|\|\||\+:|\+=|-=|[-+*/%&|^~!<>=?:;,.(){}\[\]])
)""",
    re.X,
)
KEYWORDS = {"if", "then", "elsif", "else", "endif", "for", "do", "endfor", "declare", "break", "return", "lambda"}
SUFFIX = re.compile(r"(bf|fp|f|u|i|b)(\d+)$")
REGISTERS = {"S0", "S1", "S2", "D0", "SCC", "EXEC", "M0", "PC", "CARRY", "SIMM16", "SIMM32", "RETURN_DATA", "VDATA",
             "SDATA", "DATA", "DATA2", "OFFSET", "OFFSET0", "OFFSET1", "ADDR", "ADDR_BASE", "OPSEL", "OPSEL_HI", "VCC",
             "VSKIP", "laneId", "laneID", "SRC0", "SRC1", "VDST", "DST", "SDWA_SRC0_SEL", "TTBL", "DATA0", "VCCZ", "EXECZ"}
REGISTER_TYPE = {"SCC": ("u", 1), "CARRY": ("u", 1), "EXEC": ("u", 64), "M0": ("u", 32), "PC": ("i", 64),
                 "SIMM16": ("i", 16), "SIMM32": ("u", 32), "laneId": ("u", 32), "laneID": ("u", 32), "TTBL": ("b", 8),
                 "VCC": ("u", 64), "VSKIP": ("u", 1), "OPSEL": ("u", 4), "OPSEL_HI": ("u", 3), "OFFSET": ("u", 16),
                 "OFFSET0": ("u", 8), "OFFSET1": ("u", 8), "SDWA_SRC0_SEL": ("b", 3), "VCCZ": ("u", 1), "EXECZ": ("u", 1)}
NUMBERS = {"BYTE0": 0, "BYTE1": 1, "BYTE2": 2, "BYTE3": 3, "WORD0": 4, "WORD1": 5}
FORMATS = {("f", 16): "F16", ("f", 32): "F32", ("f", 64): "F64", ("bf", 16): "BF16", ("fp", 8): "FP8", ("bf", 8): "BF8",
           ("fp", 6): "FP6", ("bf", 6): "BF6", ("fp", 4): "FP4"}


class Unsupported(Exception):
    """The pseudocode has something that this evaluator does not execute."""


def tokens(text):
    text = re.sub(r"//[^\n]*", "", text)
    out, at = [], 0
    text = text.rstrip()
    while at < len(text):
        m = TOKEN.match(text, at)
        if not m:
            raise Unsupported(f"no token at {text[at:at + 20]!r}")
        out.append((m.lastgroup, m.group(m.lastgroup)))
        at = m.end()
    out.append(("end", ""))
    return out


class Parser:
    """A recursive descent parser: statements and expressions as nested tuples."""

    LEVELS = [["||"], ["&&"], ["|"], ["^"], ["&"], ["==", "!=", "<>"], ["<", "<=", ">", ">="], ["<<", ">>"], ["+", "-"],
              ["*", "/", "%"]]

    def __init__(self, text):
        self.t, self.i = tokens(text), 0

    def peek(self, k=0):
        return self.t[min(self.i + k, len(self.t) - 1)][1]

    def take(self, want=None):
        v = self.t[self.i][1]
        if want is not None and v != want:
            raise Unsupported(f"expected {want!r}, found {v!r}")
        self.i += 1
        return v

    def accept(self, v):
        if self.peek() == v:
            self.i += 1
            return True
        return False

    def block(self, ends):
        out = []
        while True:
            while self.accept(";"):
                pass
            if self.peek() in ends or self.t[self.i][0] == "end":
                return out
            out.append(self.statement())

    def statement(self):
        w = self.peek()
        if w == "if":
            return self.conditional()
        if w == "for":
            self.take()
            name = self.take()
            self.take("in")
            a = self.expression()
            self.take(":")
            b = self.expression()
            self.take("do")
            body = self.block({"endfor"})
            self.take("endfor")
            return ("for", name, a, b, body)
        if w == "declare":
            self.take()
            name = self.take()
            self.take(":")
            kind, ty = self.t[self.i]
            if kind != "type":
                raise Unsupported("declaration without a type")
            self.take()
            dims = None
            if self.accept("["):
                dims = int(self.take())
                self.take("]")
            return ("declare", name, cast_type(ty), dims)
        if w == "break":
            self.take()
            return ("break",)
        if w == "return":
            self.take()
            return ("return", self.expression())
        left = self.expression()
        if self.peek() in ("+=", "-="):
            op = self.take()[0]
            return ("assign", left, ("bin", op, left, self.expression()))
        if self.accept("="):
            if self.peek() == "lambda":
                return self.function(left)
            right = self.expression()
            if self.accept("="):
                value = self.expression()
                return ("both", [("assign", right, value), ("assign", left, right)])
            return ("assign", left, right)
        return ("call_only", left)

    def conditional(self):
        self.take("if")
        arms = [(self.expression(), (self.take("then"), self.block({"elsif", "else", "endif"}))[1])]
        other = []
        while True:
            if self.accept("elsif"):
                c = self.expression()
                self.take("then")
                arms.append((c, self.block({"elsif", "else", "endif"})))
            elif self.accept("else"):
                other = self.block({"endif"})
            else:
                self.take("endif")
                return ("if", arms, other)

    def function(self, left):
        self.take("lambda")
        self.take("(")
        names = [self.take()]
        while self.accept(","):
            names.append(self.take())
        self.take(")")
        self.take("(")
        if self.peek() in ("if", "declare", "for", "return"):
            body = self.block({")"})
        else:
            body = [("return", self.expression())]
        self.take(")")
        return ("lambda", left[1], names, body)

    def expression(self):
        c = self.binary(0)
        if self.accept("?"):
            a = self.expression()
            self.take(":")
            return ("cond", c, a, self.expression())
        return c

    def binary(self, level):
        if level == len(self.LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.peek() in self.LEVELS[level]:
            op = self.take()
            left = ("bin", op, left, self.binary(level + 1))
        return left

    def unary(self):
        if self.peek() in ("-", "+", "~", "!"):
            op = self.take()
            return ("un", op, self.unary())
        base = self.postfix()
        if self.accept("**"):
            return ("bin", "**", base, self.unary())
        return base

    def postfix(self):
        e = self.primary()
        while True:
            if self.accept("."):
                e = ("mem", e, self.take())
            elif self.accept("["):
                a = self.expression()
                if self.accept(":"):
                    e = ("slice", e, a, self.expression())
                elif self.accept("+:"):
                    n = self.expression()
                    e = ("part", e, a, n)
                else:
                    e = ("index", e, a)
                self.take("]")
            else:
                return e

    def primary(self):
        kind, v = self.t[self.i]
        if kind in ("number", "sized"):
            self.i += 1
            return ("num", v)
        if kind == "cast":
            self.i += 1
            self.take("(")
            e = self.expression()
            self.take(")")
            return ("cast", cast_type(v), e)
        if v == "(":
            self.i += 1
            e = self.expression()
            self.take(")")
            return e
        if v == "{":
            self.i += 1
            items = [self.expression()]
            while self.accept(","):
                items.append(self.expression())
            self.take("}")
            return ("concat", items)
        if kind == "name" and (v not in KEYWORDS):
            self.i += 1
            if self.peek() == "(":
                self.i += 1
                args = []
                while not self.accept(")"):
                    args.append(self.expression())
                    self.accept(",")
                return ("call", v, args)
            return ("name", v)
        raise Unsupported(f"cannot read {v!r}")


def cast_type(text):
    n, k = text.split("'")
    return ({"I": "i", "U": "u", "B": "b", "F": "f", "BF": "bf"}[k], int(n))


def mask(w):
    return (1 << w) - 1


def is_float(t):
    return t in FORMATS


def is_int(t):
    return t[0] in ("u", "i", "b", "s")


class Compiler:
    """Turns one instruction's pseudocode into the source of a Python function of a context `c`."""

    def __init__(self, text, library, name, saturate=False):
        self.text, self.library, self.name = text, library, name
        self.saturate = saturate  # integer results do not wrap; they stop at the ends of their type (the clamp bit)
        self.vars, self.arrays, self.lambdas = {}, {}, {}
        self.used, self.written = set(), set()
        self.prelude, self.serial, self.zeroes = [], 0, set()

    def compile(self):
        tree = Parser(self.text).block(set())
        body = self.statements(tree, 1)
        lines = list(self.prelude) + [f"def run(c):"]
        for r in sorted(self.used | self.written):
            lines.append(f" {r} = c.{r}")
        lines += [f" {z} = 0" for z in sorted(self.zeroes)]
        lines += body or [" pass"]
        for r in sorted(self.written):
            lines.append(f" c.{r} = {r}")
        return "\n".join(lines)

    # ---- statements

    def statements(self, body, depth):
        out = []
        for s in body:
            out += self.statement(s, depth)
        return out

    def statement(self, s, d):
        pad = " " * d
        if s[0] == "assign":
            return [pad + line for line in self.assign(s[1], s[2])]
        if s[0] == "both":
            return [line for x in s[1] for line in self.statement(x, d)]
        if s[0] == "if":
            out = []
            for k, (c, body) in enumerate(s[1]):
                out.append(f"{pad}{'if' if k == 0 else 'elif'} {self.rvalue(c)[0]}:")
                out += self.statements(body, d + 1) or [pad + " pass"]
            if s[2]:
                out.append(pad + "else:")
                out += self.statements(s[2], d + 1)
            return out
        if s[0] == "for":
            _, name, a, b, body = s
            (x, tx), (y, _) = self.rvalue(a), self.rvalue(b)
            self.vars.setdefault(name, tx)
            return [f"{pad}for {local(name)} in range({x}, {y} + 1):"] + (self.statements(body, d + 1) or [pad + " pass"])
        if s[0] == "declare":
            _, name, ty, dims = s
            if name in REGISTERS:
                return []
            if dims:
                self.arrays[name] = ty
                if name == "S":
                    return [pad + "v_S = [c.S0, c.S1, c.S2]"]
                return [f"{pad}{local(name)} = [0] * {dims}"]
            self.vars[name] = ty
            return [f"{pad}{local(name)} = 0"]
        if s[0] == "break":
            return [pad + "break"]
        if s[0] == "lambda":
            self.lambdas[s[1]] = (s[2], s[3])
            return []
        if s[0] == "return":
            x, t = self.rvalue(s[1])
            if self.vars.get("return") is None:
                self.vars["return"] = plain(t)
            return [f"{pad}return {self.convert(x, t, self.vars['return'])}"]
        if s[0] == "call_only" and s[1][0] == "call" and s[1][1] == "nop":
            return [pad + "pass"]
        raise Unsupported(f"statement {s[0]}")

    def assign(self, target, value):
        if target[0] == "concat":
            x, t = self.rvalue(value)
            out = [f"t_all = {self.raw(x, t)}"]
            at = 0
            for item in reversed(target[1]):
                w = self.width_of(item)
                out += self.store(item, f"(t_all >> {at}) & {mask(w)}", ("b", w))
                at += w
            return out
        if target == ("name", "ROUND_MODE"):
            return [f"MODE.forced = {self.rvalue(value)[0]}"]
        if target == ("name", "prev_mode"):
            return []
        x, t = self.rvalue(value)
        return self.store(target, x, t)

    def width_of(self, item):
        if item[0] == "mem":
            return suffix(item[2])[1]
        if item[0] == "name":
            return (REGISTER_TYPE.get(item[1]) or self.vars[item[1]])[1]
        raise Unsupported("width of a concatenated target")

    def store(self, target, x, t):
        """Lines that put a value of type `t` into `target`."""
        if target[0] == "name":
            n = target[1]
            if n in self.arrays:
                raise Unsupported("assignment of an array")
            if n in REGISTERS:
                self.written.add(n)
                ty = REGISTER_TYPE.get(n)
                if ty is None:
                    return [f"{n} = {self.raw(x, t)}"]
                return [f"{n} = {self.raw(self.convert(x, t, ty), ty)}"]
            ty = self.vars.setdefault(n, plain(t))
            return [f"{local(n)} = {self.raw(self.convert(x, t, ty), ty)}"]
        if target[0] == "mem" and target[1][0] == "name" and target[1][1] == "WAVE_MODE":
            return [f"c.set_mode({target[2]!r}, {self.raw(x, t)})"]
        root, lo, ty = self.place(target)
        if self.saturate and ty[0] in "iu" and t[0] in "iu":
            low, high = (-(1 << (ty[1] - 1)), mask(ty[1] - 1)) if ty[0] == "i" else (0, mask(ty[1]))
            v = f"(max({low}, min({high}, {x})) & {mask(ty[1])})"
        else:
            v = self.raw(self.convert(x, t, ty), ty)
            if self.saturate:
                v = f"({v} & {mask(ty[1])})"
        if root[0] == "memory":
            return [f"c.mem_write({root[1]}, {ty[1] // 8}, {v})"]
        if root[0] == "hwreg":
            return [f"c.hwreg_write({root[1]}, {v})"]
        if root[0] == "sgpr":
            return [f"c.sgpr_write({root[1]}, {ty[1] // 32}, {v})"]
        if root[0] == "vgpr":
            if lo != "0":
                raise Unsupported("part of another lane's register")
            return [f"c.vgpr_write({root[1]}, {root[2]}, {v})"]
        if root[0] == "element":
            return [f"{root[1]} = {v}"]
        n = root[1]
        if n in REGISTERS:
            self.written.add(n)
            name = n
        else:
            name = local(n)
            if n not in self.vars:
                self.vars[n] = ("b", 0)
                self.zeroes.add(name)
        if lo == "0":
            return [f"{name} = {name} & ~{mask(ty[1])} | {v}"]
        return [f"t_lo = {lo}; {name} = {name} & ~({mask(ty[1])} << t_lo) | ({v}) << t_lo"]

    def place(self, e):
        """(root, first bit, type) of what an assignment writes."""
        if e[0] == "mem":
            ty = suffix(e[2])
            root, lo, _ = self.place(e[1])
            return root, lo, ty
        if e[0] == "name":
            if e[1] in self.arrays:
                raise Unsupported("array as a place")
            ty = REGISTER_TYPE.get(e[1]) or self.vars.get(e[1]) or ("b", 32)
            return ("var", e[1]), "0", ty
        if e[0] == "slice":
            root, lo, _ = self.place(e[1])
            first, width = self.bounds(e[2], e[3])
            return root, add(lo, first), ("b", width)
        if e[0] == "index":
            base = e[1]
            if base == ("name", "MEM") or base == ("name", "LDS"):
                return ("memory", self.rvalue(e[2])[0]), "0", ("b", 32)
            if base == ("name", "HW_REGISTERS"):
                return ("hwreg", self.rvalue(e[2])[0]), "0", ("b", 32)
            if base == ("name", "SGPR"):
                return ("sgpr", self.rvalue(e[2])[0]), "0", ("b", 32)
            if base[0] == "index" and base[1] == ("name", "VGPR"):
                return ("vgpr", self.rvalue(base[2])[0], self.rvalue(e[2])[0]), "0", ("b", 32)
            if base[0] == "name" and base[1] in self.arrays:
                return ("element", f"{local(base[1])}[{self.rvalue(e[2])[0]}]"), "0", self.arrays[base[1]]
            root, lo, _ = self.place(base)
            return root, add(lo, self.rvalue(e[2])[0]), ("u", 1)
        raise Unsupported(f"cannot assign to {e[0]}")

    def bounds(self, hi, lo):
        """(first bit as source, width) of [hi : lo]."""
        a, b = constant(hi), constant(lo)
        if a is not None and b is not None:
            return str(b), a - b + 1
        ah, bh = split(hi), split(lo)
        if ah[0] != bh[0]:
            raise Unsupported("a slice of unknown width")
        return self.rvalue(lo)[0], ah[1] - bh[1] + 1

    # ---- expressions: (source, type)

    def rvalue(self, e):
        return getattr(self, "e_" + e[0])(e)

    def e_num(self, e):
        return number(e[1])

    def e_name(self, e):
        n = e[1]
        if n in NUMBERS:
            return str(NUMBERS[n]), ("b", 3)
        if n == "ROUND_NEAREST_EVEN":
            return "0", ("b", 32)
        if n == "ROUND_TOWARD_ZERO":
            return "3", ("b", 32)
        if n == "prev_mode":
            return "None", ("b", 32)
        if n == "INF":
            return "F64.inf", ("f", 64)
        m = re.match(r"(UNDERFLOW|OVERFLOW)_F(16|32|64)$", n)
        if m:
            f = "F" + m.group(2)
            return f"c.{m.group(1).lower()}({f})", ("f", int(m.group(2)))
        if n in REGISTERS and n not in self.vars:
            self.used.add(n)
            ty = REGISTER_TYPE.get(n, ("b", self.library.widths.get((self.name, n), 32)))
            return self.typed(n, ty), ty
        if n in self.vars:
            return self.typed(local(n), self.vars[n]), self.vars[n]
        raise Unsupported(f"the name {n}")

    def typed(self, raw, ty):
        if ty[0] == "i" and not (self.saturate and raw.startswith("v_")):
            return f"sx({raw}, {ty[1]})"
        return raw

    def raw_of(self, e):
        """The raw bits of an expression, where a part of them is taken."""
        if e[0] == "name":
            n = e[1]
            if n in self.vars:
                return local(n)
            if n in REGISTERS:
                self.used.add(n)
                return n
        x, t = self.rvalue(e)
        return self.raw(x, t)

    def e_mem(self, e):
        base, s = e[1], e[2]
        if base[0] == "name":
            if base[1] == "WAVE_MODE":
                if s == "IEEE":
                    return "MODE.ieee", ("u", 1)
                raise Unsupported(f"WAVE_MODE.{s}")
            if base[1] == "INST":
                raise Unsupported("INST")
            if base[1] in ("WAVE_STATUS",):
                raise Unsupported(base[1])
            if base[1] in ("INF", "NAN"):
                t = suffix(s)
                return f"{FORMATS[t]}.{base[1].lower()}", t
        ty = suffix(s)
        if base[0] == "index":
            if base[1] in (("name", "MEM"), ("name", "LDS")):
                return self.typed(f"c.mem_read({self.rvalue(base[2])[0]}, {ty[1] // 8})", ty), ty
            if base[1] == ("name", "SGPR"):
                return self.typed(f"c.sgpr_read({self.rvalue(base[2])[0]}, {ty[1] // 32})", ty), ty
        if base[0] in ("name",):
            n = base[1]
            declared = self.vars.get(n) or REGISTER_TYPE.get(n)
            raw = self.raw_of(base)
            if declared and declared[0] == "i" and declared[1] < ty[1]:
                return self.convert(f"sx({raw}, {declared[1]})", declared, ty), ty
            if declared and is_float(declared) and is_float(ty) and declared != ty:
                return self.convert(raw, declared, ty), ty
            return self.typed(f"({raw} & {mask(ty[1])})", ty), ty
        x, t = self.rvalue(base)
        if t == ty:
            return x, t
        if is_float(t) and is_float(ty):
            return self.convert(x, t, ty), ty
        if t[0] == "i" and t[1] < ty[1]:
            return self.convert(x, t, ty), ty
        return self.typed(f"({self.raw(x, t)} & {mask(ty[1])})", ty), ty

    def e_slice(self, e):
        a, b = constant(e[2]), constant(e[3])
        raw = self.raw_of(e[1])
        if a is not None and b is not None and a < b:
            w = b - a + 1
            return f"reverse({raw}, {w})", ("s", w)
        first, width = self.bounds(e[2], e[3])
        if first == "0":
            return f"({raw} & {mask(width)})", ("s", width)
        return f"({raw} >> ({first}) & {mask(width)})", ("s", width)

    def e_part(self, e):
        n = constant(e[3])
        return f"({self.raw_of(e[1])} >> ({self.rvalue(e[2])[0]}) & {mask(n)})", ("s", n)

    def e_index(self, e):
        base = e[1]
        if base == ("name", "MEM") or base == ("name", "LDS"):
            return f"c.mem_read({self.rvalue(e[2])[0]}, 4)", ("b", 32)
        if base[0] == "index" and base[1] == ("name", "VGPR"):
            return f"c.vgpr_read({self.rvalue(base[2])[0]}, {self.rvalue(e[2])[0]})", ("b", 32)
        if base[0] == "name" and base[1] in self.arrays:
            ty = self.arrays[base[1]]
            return self.typed(f"{local(base[1])}[{self.rvalue(e[2])[0]}]", ty), ty
        if base == ("name", "HW_REGISTERS"):
            return f"c.hwreg({self.rvalue(e[2])[0]})", ("b", 32)
        return f"({self.raw_of(base)} >> ({self.rvalue(e[2])[0]}) & 1)", ("s", 1)

    def e_cast(self, e):
        x, t = self.rvalue(e[2])
        to = e[1]
        if t[0] == "x":
            return x, ("x", to[1])
        if is_float(to) and is_float(t):
            if to == t:
                return x, to
            f, g = FORMATS[t], FORMATS[to]
            return f"{'widen' if to[1] > t[1] else 'narrow'}({f}, {g}, {x})", to
        return self.convert(x, t, to), to

    def convert(self, x, t, to):
        """`x` of type `t` as type `to`, as an assignment does it."""
        if t == to:
            return x
        if is_float(to):
            if is_float(t):
                return f"convert({FORMATS[t]}, {FORMATS[to]}, {x})"
            return f"({self.raw(x, t)} & {mask(to[1])})"
        if t[0] == "x":
            raise Unsupported("a power as a value")
        if is_float(t):
            return self.typed(f"({x} & {mask(to[1])})", to)
        if self.saturate and t[0] in "iu" and to[0] in "iu" and t[1] <= to[1]:
            return x
        if to[0] == "i":
            if t[0] == "i" and t[1] <= to[1]:
                return x
            if t[0] != "i" and t[1] < to[1]:
                return x
            return f"sx({x}, {to[1]})"
        if to[1] == 0:
            return self.raw(x, t)
        if t[0] != "i" and t[1] <= to[1] and t[1] != 0:
            return x
        return f"(({x}) & {mask(to[1])})"

    def raw(self, x, t):
        if t[0] == "i" and not self.saturate:
            return f"(({x}) & {mask(t[1])})"
        return x

    def e_concat(self, e):
        out, at = [], 0
        for item in reversed(e[1]):
            x, t = self.rvalue(item)
            out.append(f"(({self.raw(x, t)}) << {at})" if at else f"({self.raw(x, t)})")
            at += t[1]
        return "(" + " | ".join(reversed(out)) + ")", ("b", at)

    def e_un(self, e):
        x, t = self.rvalue(e[2])
        op = e[1]
        if op == "!":
            return f"(not {x})", ("u", 1)
        if op == "+":
            return x, t
        if is_float(t):
            return f"({x} ^ {FORMATS[t]}.sign)", t
        t = promoted(t)
        if op == "-":
            return self.wrap(f"-({x})", t), t
        return self.wrap(f"~({x})", t), t

    def wrap(self, x, t):
        if self.saturate:
            return f"({x})"
        return f"sx({x}, {t[1]})" if t[0] == "i" else f"(({x}) & {mask(t[1])})"

    def e_cond(self, e):
        c, _ = self.rvalue(e[1])
        (a, ta), (b, tb) = self.rvalue(e[2]), self.rvalue(e[3])
        if is_float(ta) or is_float(tb):
            t = ta if is_float(ta) else tb
            if is_float(ta) and is_float(tb) and ta != tb:
                raise Unsupported("two formats in one choice")
        else:
            t = common(ta, tb)
        return f"({self.convert(a, ta, t)} if {c} else {self.convert(b, tb, t)})", t

    def e_bin(self, e):
        op = e[1]
        if op in ("&&", "||"):
            return f"({self.rvalue(e[2])[0]} {'and' if op == '&&' else 'or'} {self.rvalue(e[3])[0]})", ("u", 1)
        if op == "==" and e[3][0] == "mem" and e[3][1] == ("name", "DENORM"):
            x, t = self.rvalue(e[2])
            return f"is_denormal({FORMATS[t]}, {x})", ("u", 1)
        if op == "**":
            x, t = self.rvalue(e[2])
            n, _ = self.rvalue(e[3])
            return n, ("x", t[1])  # the base is two everywhere
        (a, ta), (b, tb) = self.rvalue(e[2]), self.rvalue(e[3])
        if ta[0] == "x" or tb[0] == "x":
            (n, (f, tf)) = (a, (b, tb)) if ta[0] == "x" else (b, (a, ta))
            return f"scale({FORMATS[tf]}, {f}, {n})", tf
        if is_float(ta) or is_float(tb):
            return self.float_binary(op, a, ta, b, tb)
        if op in ("==", "!=", "<>", "<", "<=", ">", ">="):
            t = common(ta, tb)
            py = {"<>": "!="}.get(op, op)
            return f"({self.convert(a, ta, t)} {py} {self.convert(b, tb, t)})", ("u", 1)
        if op in ("<<", ">>"):
            ta = promoted(ta)
            if op == ">>":
                return f"(({a}) >> ({b}))", ta
            return self.wrap(f"({a}) << ({b})", ta), ta
        t = common(ta, tb)
        py = {"/": "//"}.get(op, op)
        x, y = self.convert(a, ta, t), self.convert(b, tb, t)
        if op in "&|^":
            return f"(({x}) {py} ({y}))", t
        return self.wrap(f"({x}) {py} ({y})", t), t

    def float_binary(self, op, a, ta, b, tb):
        if not is_float(ta) or not is_float(tb) or ta != tb:
            wide = ta if is_float(ta) and (not is_float(tb) or ta[1] >= tb[1]) else tb
            if not is_float(ta):
                a = self.convert(a, ta, wide)
            elif ta != wide:
                a = f"widen({FORMATS[ta]}, {FORMATS[wide]}, {a})"
            if not is_float(tb):
                b = self.convert(b, tb, wide)
            elif tb != wide:
                b = f"widen({FORMATS[tb]}, {FORMATS[wide]}, {b})"
            ta = wide
        f = FORMATS[ta]
        if op in ("<", "<=", ">", ">=", "==", "!="):
            return f"(compared({f}, {a}) {op} compared({f}, {b}))", ("u", 1)
        if op == "<>":
            return f"unequal({f}, {a}, {b})", ("u", 1)
        name = {"+": "add", "-": "subtract", "*": "mul", "/": "divide"}[op]
        return f"{name}({f}, {a}, {b})", ta

    def e_call(self, e):
        _, name, args = e
        if name in self.lambdas:
            return self.call_lambda(name, args)
        if name.startswith("Calc") and name != "CalcDsAddr":
            return "c.address()", ("u", 64)
        values = [self.rvalue(a) for a in args]
        return self.library.call(self, name, values)

    def call_lambda(self, name, args):
        values = [self.rvalue(a) for a in args]
        params, body = self.lambdas[name]
        self.serial += 1
        inner = Compiler("", self.library, self.name, self.saturate)
        inner.serial = self.serial * 100
        types = [plain(t) if t[0] != "s" else ("u", max(t[1], 8)) for _, t in values]
        # A parameter keeps more bits than the slice that it gets, so that differences do not wrap.
        types = [("u", 32) if t[0] == "u" and t[1] <= 32 else t for t in types]
        inner.vars = dict(zip(params, types))
        lines = inner.statements(body, 1)
        fn = f"lambda_{name}_{self.serial}"
        self.prelude += inner.prelude
        self.prelude.append(f"def {fn}({', '.join(local(p) for p in params)}):")
        self.prelude += [f" {z} = 0" for z in sorted(inner.zeroes)]
        self.prelude += lines
        call = ", ".join(self.raw(x, t) for x, t in values)
        ret = inner.vars["return"]
        return f"{fn}({call})", ret


def local(n):
    return "v_" + n


def plain(t):
    return ("u", t[1]) if t[0] == "s" else t


def promoted(t):
    if t[0] == "s":
        return ("u", 32 if t[1] <= 32 else 64 if t[1] <= 64 else t[1])
    return ("u", t[1]) if t[0] == "b" else t


def common(a, b):
    a, b = promoted(a), promoted(b)
    w = max(a[1], b[1])
    return ("i" if a[0] == "i" and b[0] == "i" else "u", w)


def add(a, b):
    return b if a == "0" else a if b == "0" else f"{a} + {b}"


def suffix(s):
    m = SUFFIX.match(s)
    if not m:
        raise Unsupported(f"the suffix .{s}")
    k, w = m.group(1), int(m.group(2))
    if k == "fp":
        return ("fp", w)
    return (k, w)


def constant(e):
    if e[0] == "num":
        x, t = number(e[1])
        return int(x, 0) if is_int(t) else None
    return None


def split(e):
    """An expression as (rest, constant)."""
    if e[0] == "bin" and e[1] == "+" and constant(e[3]) is not None:
        return e[2], constant(e[3])
    return e, 0


def number(v):
    if "'" in v:
        w, d = v.split("'")
        w = int(w)
        if "." in d:
            f = {16: floats.F16, 32: floats.F32, 64: floats.F64}[w]
            return str(encode(f, float(d))), ("f", w)
        kind = "i"  # takes the kind of what it is combined with
        if d[-1] in "UI" and not d.startswith("0x"):
            kind, d = d[-1].lower(), d[:-1]
        return str(int(d, 0)), (kind, w)
    if "." in v:
        if v.endswith("F"):
            return str(encode(floats.F32, float(v[:-1]))), ("f", 32)
        return str(encode(floats.F64, float(v))), ("f", 64)
    for s, t in (("ULL", ("u", 64)), ("LL", ("i", 64)), ("U", ("u", 32))):
        if v.endswith(s):
            return str(int(v[: -len(s)], 0)), t
    n = int(v, 0)
    return str(n), ("i", 32 if n < 1 << 31 else 64)


def encode(f, x):
    m, e = x.as_integer_ratio()
    return floats.pack(f, x < 0, abs(m), 1 - e.bit_length(), floats.NEAREST)
