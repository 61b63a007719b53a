//! What a test says about a parameter: which values a guard or a branch pins. A mention pins nothing.

use super::{Bits, Flow, names};
use crate::lint::ir::{Cmp, Expr};

impl<'a> Flow<'_, 'a> {
    /// Parameters whose value a test fixes where it has the given outcome. `strict` is for guards: only a
    /// comparison that leaves one harmless value counts; for branches any test of the parameter itself does.
    pub(super) fn pins(&self, e: &Expr<'a>, outcome: bool, strict: bool, depth: u32) -> Bits {
        if depth > 40 {
            return Bits::EMPTY;
        }
        let rec = |e: &Expr<'a>, o: bool| self.pins(e, o, strict, depth + 1);
        match e {
            Expr::Name(name) => match self.vars.get(name) {
                Some(&v) if (v as usize) < self.function.params.len() => {
                    if self.env[v as usize].own.has(v as usize) { Bits::one(v as usize) } else { Bits::EMPTY }
                }
                Some(v) => {
                    let by_test = match self.tests.get(v) {
                        Some(test) if depth < 6 => rec(test, outcome),
                        _ => Bits::EMPTY,
                    };
                    // A flag that was computed from a parameter approves it.
                    if outcome && !strict { by_test.or(self.env[*v as usize].all) } else { by_test }
                }
                None => Bits::EMPTY,
            },
            Expr::Not(inner) => rec(inner, !outcome),
            Expr::And(v) | Expr::Or(v) => {
                let every = matches!(e, Expr::And(_)) == outcome;
                let mut parts = v.iter().map(|x| rec(x, outcome));
                let first = parts.next().unwrap_or_default();
                parts.fold(first, |a, b| if every { a.or(b) } else { a.and(b) })
            }
            Expr::Op(parts) if parts.len() == 1 => rec(&parts[0], outcome),
            Expr::Compare(cmp, sides) => {
                let (left, right) = (&sides.0, &sides.1);
                let (param, other, cmp) = match (self.direct_value(left), self.direct_value(right)) {
                    (Some(p), None) => (p, right, *cmp),
                    (None, Some(p)) => {
                        let flipped = match cmp {
                            Cmp::Below => Cmp::Above,
                            Cmp::Above => Cmp::Below,
                            same => *same,
                        };
                        (p, left, flipped)
                    }
                    // Two parameters compared fix neither for good, but a branch on it honours both.
                    (Some(a), Some(b)) if !strict => return Bits::one(a).or(Bits::one(b)),
                    _ => return Bits::EMPTY,
                };
                let pinned = Bits::one(param);
                let none = matches!(other, Expr::Lit("None" | "nullptr" | "NULL"))
                    || other.dotted().is_some_and(|d| d.ends_with("nullopt"));
                let fixes = match (cmp, outcome) {
                    (Cmp::Same, true) | (Cmp::Differs, false) => !strict || self.constant(other),
                    (Cmp::Same, false) | (Cmp::Differs, true) => !strict && !none,
                    (Cmp::Below, true) | (Cmp::Above, false) => !strict || self.constant(other),
                    (Cmp::Below, false) | (Cmp::Above, true) => !strict,
                };
                if fixes { pinned } else { Bits::EMPTY }
            }
            Expr::Call(c) => {
                let path = c.callee.dotted().unwrap_or_default();
                let last = path.rsplit(['.', ':']).next().unwrap_or("");
                if matches!(last, "any" | "all") && c.args.len() == 1 {
                    if (last == "all") != outcome {
                        return Bits::EMPTY;
                    }
                    let mut bits = Bits::EMPTY;
                    if let Expr::Comprehension(generators, _) = &c.args[0].value {
                        for (_, source, _) in generators {
                            if let Expr::Build(items) = source {
                                for i in items {
                                    bits = bits.or(self.direct_value(i).map_or(Bits::EMPTY, Bits::one));
                                }
                            }
                        }
                    } else if let Expr::Build(items) = &c.args[0].value {
                        for i in items {
                            bits = bits.or(rec(i, outcome));
                        }
                    }
                    return bits;
                }
                if let Expr::Attr(base, "has_value" | "defined" | "is_none") = &c.callee {
                    // `p.has_value()`: absent where false.
                    let absent = !outcome == !matches!(&c.callee, Expr::Attr(_, "is_none"));
                    return match self.direct_value(base) {
                        Some(p) if absent => Bits::one(p),
                        _ => Bits::EMPTY,
                    };
                }
                if strict || matches!(last, "isinstance" | "hasattr" | "len" | "callable" | "getattr") {
                    if last == "bool" || last == "int" {
                        return c.args.first().map_or(Bits::EMPTY, |a| rec(&a.value, outcome));
                    }
                    return Bits::EMPTY;
                }
                // A local function that looks at the parameter.
                if let Expr::Name(n) = &c.callee
                    && let Some(v) = self.local(n)
                    && outcome
                {
                    return self.env[v as usize].all;
                }
                // A predicate approves its arguments; its refusal says little about any one of many.
                if outcome || c.args.len() <= 2 {
                    c.args
                        .iter()
                        .filter_map(|a| self.direct_value(&a.value))
                        .fold(Bits::EMPTY, |b, p| b.or(Bits::one(p)))
                } else {
                    Bits::EMPTY
                }
            }
            _ => Bits::EMPTY,
        }
    }

    /// What a check says of parameters beside the values that it fixes: two that have to be equal, and properties that
    /// have to hold. `outcome` is what the test has to be for the function to go on.
    pub(super) fn relate(&mut self, e: &Expr<'a>, outcome: bool, depth: u32) {
        if depth > 40 || self.mute > 0 {
            return;
        }
        match e {
            Expr::Not(inner) => self.relate(inner, !outcome, depth + 1),
            Expr::And(v) | Expr::Or(v) if matches!(e, Expr::And(_)) == outcome => {
                for x in v {
                    self.relate(x, outcome, depth + 1);
                }
            }
            Expr::And(_) | Expr::Or(_) => {}
            Expr::Op(parts) if parts.len() == 1 => self.relate(&parts[0], outcome, depth + 1),
            Expr::Compare(cmp, sides) => {
                let equal = matches!((cmp, outcome), (Cmp::Same, true) | (Cmp::Differs, false));
                if let (true, Some(a), Some(b)) =
                    (equal, self.direct_value(&sides.0), self.direct_value(&sides.1))
                {
                    self.equal.push((a, b));
                }
            }
            Expr::Call(c) => {
                if let Expr::Attr(base, property) = &c.callee
                    && outcome
                    && c.args.is_empty()
                    && property.starts_with("is_")
                    && let Some(p) = self.direct_value(base)
                {
                    self.properties = self.properties.or(Bits::one(p));
                }
            }
            _ => {}
        }
    }

    /// Parameters that something else than a constant is compared with by order. If the comparison decides about an error, the
    /// parameter is a limit that is kept.
    pub(super) fn limits(&self, test: &Expr<'a>, depth: u32) -> Bits {
        let rec = |e: &Expr<'a>| self.limits(e, depth + 1);
        match test {
            _ if depth > 40 => Bits::EMPTY,
            Expr::Not(inner) => rec(inner),
            Expr::And(v) | Expr::Or(v) => v.iter().map(rec).fold(Bits::EMPTY, Bits::or),
            Expr::Op(parts) if parts.len() == 1 => rec(&parts[0]),
            Expr::Compare(Cmp::Below | Cmp::Above, sides) => {
                let (left, right) = (self.direct_value(&sides.0), self.direct_value(&sides.1));
                match (left, right) {
                    (Some(p), None) if !self.constant(&sides.1) => Bits::one(p),
                    (None, Some(p)) if !self.constant(&sides.0) => Bits::one(p),
                    _ => Bits::EMPTY,
                }
            }
            _ => Bits::EMPTY,
        }
    }

    /// Parameters of whose presence a conjunction asks together with a call that no parameter decides: `p is not None and
    /// available()`. Where the call says no, `p` has no effect.
    pub(super) fn asked_together(&self, test: &Expr<'a>) -> Bits {
        let Expr::And(parts) = test else { return Bits::EMPTY };
        let mut asked = Bits::EMPTY;
        let mut elsewhere = false;
        for part in parts {
            match part {
                Expr::Call(c)
                    if self.bits_of(&c.callee).is_empty()
                        && c.args.iter().all(|a| self.bits_of(&a.value).is_empty()) =>
                {
                    elsewhere = true;
                }
                other => asked = asked.or(self.pins(other, false, false, 0)),
            }
        }
        if elsewhere { asked } else { Bits::EMPTY }
    }

    /// The parameters that an expression mentions.
    fn bits_of(&self, e: &Expr<'a>) -> Bits {
        let mut names = Vec::new();
        super::collect_names(e, &mut names, 0);
        names
            .iter()
            .filter_map(|n| self.vars.get(n))
            .fold(Bits::EMPTY, |all, v| all.or(self.env[*v as usize].all))
    }

    /// Like [`Self::direct`], but only for the parameter itself, not a part of it.
    pub(super) fn direct_value(&self, e: &Expr<'a>) -> Option<usize> {
        match e {
            Expr::Name(name) => {
                let v = *self.vars.get(name)? as usize;
                (v < self.function.params.len() && self.env[v].own.has(v)).then_some(v)
            }
            Expr::Op(parts) if parts.len() == 1 => self.direct_value(&parts[0]),
            Expr::Call(c) => match &c.callee {
                Expr::Name(f) if names::is_cast(f) && c.args.len() == 1 => {
                    self.direct_value(&c.args[0].value)
                }
                Expr::Attr(base, "value" | "get" | "lower" | "item") if c.args.is_empty() => {
                    self.direct_value(base)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// A value that no parameter decides: literal, enum member, tuple of those.
    pub(super) fn constant(&self, e: &Expr<'a>) -> bool {
        match e {
            Expr::Lit(_) => true,
            Expr::Name(n) => match self.vars.get(n) {
                Some(v) => self.env[*v as usize].all.is_empty(),
                None => true,
            },
            Expr::Attr(base, _) => self.constant(base),
            Expr::Build(v) | Expr::Op(v) => v.iter().all(|x| self.constant(x)),
            Expr::Call(c) => {
                c.args.iter().all(|a| self.constant(&a.value))
                    && match &c.callee {
                        Expr::Attr(base, _) => self.constant(base),
                        _ => true,
                    }
            }
            _ => false,
        }
    }
}
