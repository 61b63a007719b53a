//! Data flow inside one function: what becomes of each parameter, which calls it reaches, and which of two
//! mutually exclusive calls drops it. Works on the neutral form; resolution of callees is elsewhere.
//!
//! Every variable carries the set of parameters its value derives from. A parameter is *used* where such a
//! value is returned, stored where it outlives the function, decides a branch that does something, or is
//! passed to a call. Reads by logs, by messages of exceptions and by checks are kept apart.

use rustc_hash::FxHashMap;

use super::ir::{Call, Expr, Function, Stmt};
use super::names;
use super::source::{ArgSummary, CallSummary, DropSummary, Fate, Sink, Slot};

mod guards;
mod pairs;

/// A set of up to 256 parameters; those beyond are taken as used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bits([u64; 4]);

impl Bits {
    pub const MAX: usize = 256;
    pub const EMPTY: Self = Self([0; 4]);

    pub fn one(i: usize) -> Self {
        let mut b = Self::EMPTY;
        if i < Self::MAX {
            b.0[i / 64] = 1 << (i % 64);
        }
        b
    }
    pub fn has(self, i: usize) -> bool {
        i < Self::MAX && self.0[i / 64] >> (i % 64) & 1 == 1
    }
    pub fn or(self, o: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | o.0[i]))
    }
    pub fn and(self, o: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & o.0[i]))
    }
    pub fn minus(self, o: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !o.0[i]))
    }
    pub fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }
    pub fn len(self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }
    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(w, mut bits)| {
            std::iter::from_fn(move || {
                let i = bits.trailing_zeros() as usize;
                (bits != 0).then(|| {
                    bits &= bits - 1;
                    w * 64 + i
                })
            })
        })
    }
}

/// The parameters that reach an effect, and those that are only read by a log, a check, a message, a guard or a discard.
#[derive(Clone, Copy, Default)]
struct Ends {
    effect: Bits,
    log: Bits,
    check: Bits,
    raise: Bits,
    guard: Bits,
    discard: Bits,
}

/// What a value derives from: through operators and pure calls only, and through any call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Value {
    /// What is lost if the value is. Arguments of a call are not: the call had them.
    own: Bits,
    /// What decided which value it is.
    implied: Bits,
    all: Bits,
}

impl Value {
    const NONE: Self = Self { own: Bits::EMPTY, implied: Bits::EMPTY, all: Bits::EMPTY };

    /// The same influence, as what decides rather than what is computed.
    fn decides(self) -> Self {
        Self { own: Bits::EMPTY, implied: self.own.or(self.implied), all: self.all }
    }

    fn or(self, o: Self) -> Self {
        Self { own: self.own.or(o.own), implied: self.implied.or(o.implied), all: self.all.or(o.all) }
    }
}

type PathId = u32;

/// One arm on the way to a statement. The chain of parents is the statement's path condition.
struct PathNode<'a> {
    parent: PathId,
    depth: u32,
    node: u32,
    arm: u32,
    terminates: bool,
    handler: bool,
    /// Ends by raising: what is called here is no other way to the result.
    gives_up: bool,
    /// Parameters that the test of this arm fixes.
    pins: Bits,
    /// Parameters that its test mentions.
    mentions: Bits,
    /// Names in the test.
    names: Vec<&'a str>,
    /// `if not v` / `if v is None`: taken where an attempt that sets `v` failed.
    failed: Option<u32>,
    order: u32,
    mode: bool,
    /// What follows a check: its condition says nothing about the way here.
    check: bool,
    /// Parameters that the tests on the way here mention, checks left aside.
    context: Bits,
    /// Parameters that the way here asks about together with something that is no parameter.
    hints: Bits,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum UseKind {
    /// Returned, yielded, stored in something that outlives the call.
    Effect,
    /// Decides a branch that does something; the branch's node.
    Control(u32),
    /// An argument of the call with this index.
    Argument(u32),
    Log,
    Check,
    /// In an error that is raised.
    Raise,
    Guard,
    Discard,
    /// Captured by a local function that is called, or decided which value is used.
    Captured,
}

/// An assignment of a local.
struct Assigned {
    var: u32,
    path: PathId,
    /// The value is a constant: a flag.
    constant: bool,
    /// The value is one of several constants, or a truth value.
    choice: bool,
    /// The value is memory without contents.
    empty: bool,
    /// The parameter that the value is, or is a part of.
    of: Option<usize>,
    /// The calls in the assigned value, as a range of events.
    calls: (usize, usize),
}

struct Use {
    bits: Bits,
    kind: UseKind,
    path: PathId,
    order: u32,
    offset: u32,
}

struct CallEvent<'a> {
    callee: String,
    args: Vec<ArgEvent<'a>>,
    path: PathId,
    order: u32,
    offset: u32,
    /// Everything that reaches the call.
    bits: Bits,
    direct: Bits,
    top_level: bool,
    sink: Sink,
    /// The local that the callee is read from.
    handle: Option<u32>,
}

struct ArgEvent<'a> {
    slot: Slot,
    direct: Option<usize>,
    bits: Bits,
    literal: Option<&'a str>,
}

pub struct Analysis {
    pub params: Vec<ParamFlow>,
    pub calls: Vec<CallSummary>,
    pub drops: Vec<DropSummary>,
    pub opaque: bool,
    /// Global names used as values: passed as arguments or assigned, not called.
    pub references: Vec<String>,
    /// Attributes of the receiver that a constructor sets to a parameter.
    pub stored: Vec<(u16, String)>,
    pub answers: bool,
    pub reports: bool,
    /// All that is returned is parameters as they are, constants and functions, and nothing is called.
    pub passes: bool,
    /// Nothing is computed: what is returned is tuples or tables of constants that the function chose.
    pub chooses: bool,
}

pub struct ParamFlow {
    pub fate: Fate,
    pub guarded: bool,
    pub shapes: bool,
    pub under: Vec<u16>,
    pub equal: Option<u16>,
    pub property: bool,
    pub launch: bool,
    pub hint: bool,
    pub scratch: bool,
    pub warned: bool,
    pub forwards: Vec<(u32, Slot)>,
    pub witness: Option<u32>,
    /// Locals that carried it.
    pub carriers: Vec<String>,
}

struct Flow<'f, 'a> {
    function: &'f Function<'a>,
    guards: &'f [String],
    vars: FxHashMap<&'a str, u32>,
    env: Vec<Value>,
    /// Values that a local built itself: storing into them does not leave the function.
    fresh: Vec<bool>,
    journal: Vec<(u32, Value)>,
    journalling: u32,
    paths: Vec<PathNode<'a>>,
    path: PathId,
    nodes: u32,
    order: u32,
    uses: Vec<Use>,
    calls: Vec<CallEvent<'a>>,
    /// Boolean locals and the expression they were last assigned.
    tests: FxHashMap<u32, &'f Expr<'a>>,
    assigned: Vec<Assigned>,
    /// Guards that hold only together with something else: parameters, other names in the test.
    partial: Vec<(Bits, Vec<&'a str>)>,
    read: Bits,
    read_original: Bits,
    shapes: Bits,
    /// Nothing is recorded while positive (first pass over a loop body, repeated comprehension).
    mute: u32,
    /// Inside a log call or an exception's message.
    quiet: u32,
    call_depth: u32,
    loop_depth: u32,
    depth: u32,
    effects: u32,
    logs: u32,
    raises: u32,
    opaque: bool,
    overwritten: Vec<Option<u32>>,
    /// Everything that each variable ever carried.
    carried: Vec<Bits>,
    last_offset: u32,
    references: Vec<&'a str>,
    stored: Vec<(u16, String)>,
    /// Parameters that every read so far of a parameter stands under; `None` before the first.
    under: Vec<Option<Bits>>,
    /// Parameters in the conditions inside of the expression at hand.
    conditions: Vec<Bits>,
    /// Pairs of parameters that a check demands to be equal.
    equal: Vec<(usize, usize)>,
    /// Parameters of which a property is checked.
    properties: Bits,
    /// Inside the configuration of a launch.
    launching: u32,
    /// Parameters that are read elsewhere than in the configuration of a launch.
    value_read: Bits,
    /// Parameters asked about, in the test at hand, together with something that is no parameter.
    hinting: Bits,
    /// Parameters that are read elsewhere than under such a test.
    unhinted: Bits,
    sink: Sink,
    /// Functions and classes that each local was set to: path, whether it was constructed, and where.
    held: FxHashMap<u32, Vec<(String, bool, PathId)>>,
    returned: u32,
    returned_other: u32,
    statement_calls: u32,
    /// Variables that a returned expression mentions.
    returned_vars: rustc_hash::FxHashSet<u32>,
    /// Returned values that are parameters as they are, constants, functions, or tuples of those.
    returned_as_is: u32,
    /// Returned tuples and tables of which at least half of the entries are constants.
    returned_choices: u32,
    /// Warnings in the log so far.
    warnings: u32,
    /// Parameters that decide whether the log gets a warning, and nothing else.
    warned: Bits,
}

/// `guards` are functions whose first argument must hold, beside those that the front ends know.
pub fn analyse(function: &Function, guards: &[String]) -> Analysis {
    let mut flow = Flow {
        function,
        guards,
        vars: FxHashMap::default(),
        env: Vec::new(),
        fresh: Vec::new(),
        journal: Vec::new(),
        journalling: 0,
        paths: vec![PathNode {
            parent: 0,
            depth: 0,
            node: 0,
            arm: 0,
            terminates: false,
            handler: false,
            gives_up: false,
            pins: Bits::EMPTY,
            mentions: Bits::EMPTY,
            names: Vec::new(),
            failed: None,
            order: 0,
            mode: false,
            check: false,
            context: Bits::EMPTY,
            hints: Bits::EMPTY,
        }],
        path: 0,
        nodes: 1,
        order: 0,
        uses: Vec::new(),
        calls: Vec::new(),
        tests: FxHashMap::default(),
        assigned: Vec::new(),
        partial: Vec::new(),
        read: Bits::EMPTY,
        read_original: Bits::EMPTY,
        shapes: Bits::EMPTY,
        mute: 0,
        quiet: 0,
        call_depth: 0,
        loop_depth: 0,
        depth: 0,
        effects: 0,
        logs: 0,
        raises: 0,
        opaque: false,
        overwritten: vec![None; function.params.len()],
        carried: Vec::new(),
        last_offset: function.start,
        references: Vec::new(),
        stored: Vec::new(),
        under: vec![None; function.params.len()],
        conditions: Vec::new(),
        equal: Vec::new(),
        properties: Bits::EMPTY,
        launching: 0,
        value_read: Bits::EMPTY,
        hinting: Bits::EMPTY,
        unhinted: Bits::EMPTY,
        sink: Sink::Inside,
        held: FxHashMap::default(),
        returned: 0,
        returned_other: 0,
        statement_calls: 0,
        returned_vars: rustc_hash::FxHashSet::default(),
        returned_as_is: 0,
        returned_choices: 0,
        warnings: 0,
        warned: Bits::EMPTY,
    };
    for (i, p) in function.params.iter().enumerate() {
        flow.vars.insert(p.name, i as u32);
        flow.env.push(Value { own: Bits::one(i), implied: Bits::EMPTY, all: Bits::one(i) });
        flow.fresh.push(false);
    }
    // An unnamed parameter (an empty name) cannot be read.
    flow.vars.remove("");
    flow.block(&function.body);
    flow.finish()
}

const MAX_STMT_DEPTH: u32 = 300;

impl<'f, 'a> Flow<'f, 'a> {
    fn var(&mut self, name: &'a str) -> u32 {
        let next = self.env.len() as u32;
        let id = *self.vars.entry(name).or_insert(next);
        if id == next {
            self.env.push(Value::NONE);
            self.fresh.push(false);
        }
        id
    }

    fn set(&mut self, var: u32, value: Value) {
        if self.journalling > 0 {
            self.journal.push((var, self.env[var as usize]));
        }
        self.env[var as usize] = value;
        if self.carried.len() <= var as usize {
            self.carried.resize(var as usize + 1, Bits::EMPTY);
        }
        let carried = &mut self.carried[var as usize];
        *carried = carried.or(value.all).or(value.implied);
    }

    /// A use of a value. What it owes to calls is theirs, but for drops the path matters, not the way.
    fn used(&mut self, kind: UseKind, value: Value) {
        self.record(kind, value.own);
        if matches!(kind, UseKind::Effect | UseKind::Control(_)) {
            self.record(UseKind::Captured, value.implied.minus(value.own));
        }
    }

    fn record(&mut self, kind: UseKind, bits: Bits) {
        if self.mute > 0 || bits.is_empty() {
            return;
        }
        let kind = if self.quiet > 0 && !matches!(kind, UseKind::Guard) { UseKind::Log } else { kind };
        self.uses.push(Use { bits, kind, path: self.path, order: self.order, offset: self.last_offset });
    }

    fn push_path(&mut self, node: u32, arm: u32, test: Option<(&'f Expr<'a>, bool)>) -> PathId {
        let mut entry = PathNode {
            parent: self.path,
            depth: self.paths[self.path as usize].depth + 1,
            node,
            arm,
            terminates: false,
            handler: false,
            gives_up: false,
            pins: Bits::EMPTY,
            mentions: Bits::EMPTY,
            names: Vec::new(),
            failed: None,
            order: self.order,
            mode: false,
            check: false,
            context: self.paths[self.path as usize].context,
            hints: self.paths[self.path as usize].hints,
        };
        if let Some((test, polarity)) = test {
            entry.pins = self.pins(test, polarity, false, 0);
            collect_names(test, &mut entry.names, 0);
            for name in &entry.names {
                if let Some(v) = self.vars.get(name) {
                    entry.mentions = entry.mentions.or(self.env[*v as usize].all);
                }
            }
            entry.mode = entry.names.iter().any(|n| names::is_mode(n));
            entry.failed = self.failed_attempt(test, polarity);
            entry.context = entry.context.or(entry.mentions);
            if polarity {
                entry.hints = entry.hints.or(self.asked_together(test));
            }
        }
        self.paths.push(entry);
        (self.paths.len() - 1) as PathId
    }

    /// The local whose absence this test establishes: `not v`, `v is None`.
    fn failed_attempt(&self, test: &Expr<'a>, polarity: bool) -> Option<u32> {
        match test {
            Expr::Not(inner) => match &**inner {
                Expr::Name(n) if polarity => self.local(n),
                _ => None,
            },
            Expr::Name(n) if !polarity => self.local(n),
            Expr::Compare(cmp, sides) => {
                let same = matches!(cmp, super::ir::Cmp::Same) == polarity;
                match (&sides.0, &sides.1) {
                    (Expr::Name(n), Expr::Lit("None" | "nullptr" | "False" | "false")) if same => {
                        self.local(n)
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn local(&self, name: &str) -> Option<u32> {
        self.vars.get(name).copied().filter(|v| *v as usize >= self.function.params.len())
    }

    // ---------------------------------------------------------------- statements

    /// Returns whether control never reaches the end of the block.
    fn block(&mut self, stmts: &'f [Stmt<'a>]) -> bool {
        let entry = self.path;
        let mut terminated = false;
        self.depth += 1;
        if self.depth > MAX_STMT_DEPTH {
            // Too deep to follow: everything that is still alive may be used there.
            self.opaque = true;
        } else {
            for s in stmts {
                if self.stmt(s) {
                    terminated = true;
                    break;
                }
            }
        }
        self.depth -= 1;
        if terminated {
            // Paths pushed for the rest of this block end with it.
            let mut at = self.path;
            while at != entry {
                self.paths[at as usize].terminates = true;
                at = self.paths[at as usize].parent;
            }
        }
        self.path = entry;
        terminated
    }

    /// Runs `body` as an arm; returns whether it terminates and what it changed (variable, value).
    fn arm(&mut self, path: PathId, body: &'f [Stmt<'a>]) -> (bool, Vec<(u32, Value)>) {
        let outer = self.path;
        let mark = self.journal.len();
        self.journalling += 1;
        self.path = path;
        let terminated = self.block(body);
        self.paths[path as usize].terminates |= terminated;
        self.path = outer;
        self.journalling -= 1;
        // Undo, keeping the final value of everything that changed.
        let mut changed: Vec<(u32, Value)> = Vec::new();
        let mut seen = rustc_hash::FxHashSet::default();
        while self.journal.len() > mark {
            let (var, old) = self.journal.pop().expect("longer than the mark");
            if seen.insert(var) {
                changed.push((var, self.env[var as usize]));
            }
            self.env[var as usize] = old;
        }
        (terminated, changed)
    }

    /// Joins arms: a variable holds what any arm that falls through leaves in it. `falls` says whether
    /// there is a way past all arms.
    fn join(&mut self, arms: Vec<(bool, Vec<(u32, Value)>)>, falls: bool, implicit: Value) {
        let live = arms.iter().filter(|a| !a.0).count() + usize::from(falls);
        let mut merged: FxHashMap<u32, (Value, usize)> = FxHashMap::default();
        for (terminated, changed) in arms {
            if terminated {
                continue;
            }
            for (var, bits) in changed {
                let entry = merged.entry(var).or_insert((Value::NONE, 0));
                entry.0 = entry.0.or(bits);
                entry.1 += 1;
            }
        }
        let mut merged: Vec<_> = merged.into_iter().collect();
        merged.sort_unstable_by_key(|m| m.0);
        for (var, (bits, count)) in merged {
            let mut bits = bits.or(implicit.decides());
            if count < live {
                bits = bits.or(self.env[var as usize]);
            }
            self.set(var, bits);
        }
    }

    fn stmt(&mut self, s: &'f Stmt<'a>) -> bool {
        self.order += 1;
        match s {
            Stmt::Expr(e) => {
                self.statement_expr(e);
                false
            }
            Stmt::Assign { targets, value, augmented } => {
                self.assign(targets, value, *augmented);
                false
            }
            Stmt::If { test, then, orelse } => self.branch(test, then, orelse),
            Stmt::Switch { subject, arms } => self.switch(subject, arms),
            Stmt::Loop { head, target, body, orelse } => {
                self.rounds(head.as_ref(), target.as_ref(), body, orelse);
                false
            }
            Stmt::Try { body, handlers, orelse, finally } => self.try_stmt(body, handlers, orelse, finally),
            Stmt::With { items, body } => {
                for (e, target) in items {
                    let bits = self.eval(e);
                    if let Some(t) = target {
                        self.store(t, bits, false);
                    }
                }
                self.inline(body)
            }
            Stmt::Return(value) => {
                self.returns(value.as_ref());
                true
            }
            Stmt::Raise(value) => {
                if let Some(v) = value {
                    self.quiet += 1;
                    let bits = self.eval(v);
                    self.quiet -= 1;
                    self.record(UseKind::Raise, bits.all.or(bits.implied));
                }
                self.raises += 1;
                true
            }
            Stmt::Leave => {
                self.effects += 1;
                false
            }
            Stmt::Assert { test, message } => {
                self.asserts(test, message);
                false
            }
            Stmt::Discard(values) => {
                for v in values {
                    let bits = match v {
                        Expr::Name(n) => self.read_name(n),
                        other => self.eval(other),
                    };
                    let whole = matches!(v, Expr::Name(_));
                    self.used(if whole { UseKind::Discard } else { UseKind::Effect }, bits);
                }
                false
            }
            Stmt::Block(body) => self.inline(body),
            Stmt::Nested { name, reads, decorated } => {
                let mut bits = Value::NONE;
                for r in reads {
                    if matches!(*r, "locals" | "vars") {
                        self.opaque = true;
                    }
                    bits = bits.or(self.read_name(r));
                }
                if *decorated {
                    self.used(UseKind::Effect, bits);
                }
                let var = self.var(name);
                self.set(var, bits);
                false
            }
        }
    }

    /// An assertion, which holds for the rest of its block.
    fn asserts(&mut self, test: &'f Expr<'a>, message: &'f [Expr<'a>]) {
        let bits = self.eval(test);
        let pins = self.pins(test, true, true, 0);
        self.record(UseKind::Guard, pins);
        self.record(UseKind::Check, bits.own.minus(pins));
        self.partial_guard(test, pins);
        self.relate(test, true, 0);
        self.quiet += 1;
        for m in message {
            self.eval(m);
        }
        self.quiet -= 1;
        self.raises += 1;
        // What the assertion fixes holds for the rest of the block.
        let node = self.next_node();
        let path = self.push_path(node, 0, Some((test, true)));
        self.paths[path as usize].pins = pins;
        self.paths[path as usize].check = true;
        self.paths[path as usize].context = self.paths[self.path as usize].context;
        self.path = path;
    }

    /// A `return`, and how its value is made.
    fn returns(&mut self, value: Option<&'f Expr<'a>>) {
        if let Some(v) = value {
            self.sink = Sink::Returned;
            let bits = self.eval(v);
            self.sink = Sink::Inside;
            let mut mentioned = Vec::new();
            collect_names(v, &mut mentioned, 0);
            self.returned_vars.extend(mentioned.iter().filter_map(|n| self.vars.get(n)));
            if let Expr::Build(parts) = v {
                let chosen = parts.iter().filter(|p| self.is_choice(p, 0)).count();
                self.returned_choices += u32::from(parts.len() >= 2 && chosen * 2 >= parts.len());
            }
            self.returned_as_is += u32::from(self.is_as_given(v));
            self.used(UseKind::Effect, bits);
            self.returned += 1;
            self.returned_other += u32::from(!is_truth(v));
        }
        self.effects += 1;
    }

    /// A loop: its head, two rounds of its body, and what follows where nothing left it.
    fn rounds(
        &mut self,
        head: Option<&'f Expr<'a>>,
        target: Option<&'f Expr<'a>>,
        body: &'f [Stmt<'a>],
        orelse: &'f [Stmt<'a>],
    ) {
        let node = self.next_node();
        let bits = head.map_or(Value::NONE, |h| self.eval(h));
        if let Some(t) = target {
            self.store(t, bits, false);
        }
        let path = self.push_path(node, 0, None);
        if self.loop_depth < 3 {
            // Values carried from one round to the next: a silent first round.
            self.mute += 1;
            self.loop_depth += 1;
            let first = self.arm(path, body);
            self.join(vec![first], true, bits);
            self.loop_depth -= 1;
            self.mute -= 1;
        }
        self.loop_depth += 1;
        let round = self.arm(path, body);
        self.loop_depth -= 1;
        self.paths[path as usize].terminates = false;
        let changed = !round.1.is_empty();
        self.join(vec![(false, round.1)], true, bits);
        if !body.is_empty() || changed {
            self.used(UseKind::Control(node), bits);
        }
        self.effects += 1;
        let outer = self.path;
        self.path = self.push_path(node, 1, None);
        self.block(orelse);
        self.path = outer;
    }

    /// A `switch` or `match`: whether no arm goes on.
    fn switch(&mut self, subject: &'f Expr<'a>, arms: &'f [(Option<Expr<'a>>, Vec<Stmt<'a>>)]) -> bool {
        let bits = self.eval(subject);
        let node = self.next_node();
        let direct = self.direct(subject).map_or(Bits::EMPTY, Bits::one);
        let (effects, raises, logs) = (self.effects, self.raises, self.logs);
        let mut results = Vec::new();
        let mut default = false;
        for (i, (guard, body)) in arms.iter().enumerate() {
            let path = self.push_path(node, i as u32, guard.as_ref().map(|g| (g, true)));
            self.paths[path as usize].pins = self.paths[path as usize].pins.or(direct);
            let subject_names = &mut self.paths[path as usize].names;
            collect_names(subject, subject_names, 0);
            let mode = subject_names.iter().any(|n| names::is_mode(n));
            self.paths[path as usize].mode |= mode;
            if let Some(g) = guard {
                let outer = std::mem::replace(&mut self.path, path);
                let g = self.eval(g);
                self.path = outer;
                self.used(UseKind::Control(node), g);
            } else {
                default = true;
            }
            results.push(self.arm(path, body));
        }
        let all = !results.is_empty() && default && results.iter().all(|r| r.0);
        self.consume_test(None, bits, Bits::EMPTY, node, (effects, raises, logs));
        self.join(results, true, bits);
        all
    }

    /// A block that is no branch: assertions and early exits in it hold for what follows.
    fn inline(&mut self, body: &'f [Stmt<'a>]) -> bool {
        self.depth += 1;
        let mut terminated = false;
        if self.depth > MAX_STMT_DEPTH {
            self.opaque = true;
        } else {
            for s in body {
                if self.stmt(s) {
                    terminated = true;
                    break;
                }
            }
        }
        self.depth -= 1;
        terminated
    }

    fn next_node(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes
    }

    fn branch(&mut self, test: &'f Expr<'a>, then: &'f [Stmt<'a>], orelse: &'f [Stmt<'a>]) -> bool {
        let asked = self.asked_together(test);
        let outer = std::mem::replace(&mut self.hinting, asked);
        let bits = self.eval(test);
        self.hinting = outer;
        let node = self.next_node();
        let (effects, raises, logs) = (self.effects, self.raises, self.logs);
        let warnings = self.warnings;
        let yes = self.push_path(node, 0, Some((test, true)));
        let raises_before = self.raises;
        let effects_before = self.effects;
        let first = self.arm(yes, then);
        let then_raises = first.0 && self.raises > raises_before && self.effects == effects_before;
        let no = self.push_path(node, 1, Some((test, false)));
        let second = self.arm(no, orelse);

        let guard = if then_raises { self.pins(test, false, true, 0) } else { Bits::EMPTY };
        if then_raises {
            self.record(UseKind::Guard, guard);
            self.partial_guard(test, guard);
            self.relate(test, false, 0);
        }
        self.consume_test(Some(test), bits, guard, node, (effects, raises, logs));
        if self.warnings > warnings && self.effects == effects && self.raises == raises {
            self.warned = self.warned.or(bits.own);
        }

        let (t1, t2) = (first.0, second.0);
        self.join(vec![first, second], false, bits);
        match (t1, t2) {
            (true, true) => true,
            (true, false) => {
                // The rest of the block runs where the test failed.
                let path = self.push_path(node, 1, Some((test, false)));
                if then_raises {
                    self.paths[path as usize].pins = self.paths[path as usize].pins.or(guard);
                    self.paths[path as usize].check = true;
                    self.paths[path as usize].context = self.paths[self.path as usize].context;
                }
                self.path = path;
                false
            }
            (false, true) => {
                self.path = self.push_path(node, 0, Some((test, true)));
                false
            }
            (false, false) => false,
        }
    }

    /// Classifies what a branch does with the values its test reads, given how many effects, errors and log calls there
    /// were before it.
    fn consume_test(
        &mut self,
        test: Option<&Expr<'a>>,
        bits: Value,
        guard: Bits,
        node: u32,
        (effects, raises, logs): (u32, u32, u32),
    ) {
        if self.effects > effects {
            self.record(UseKind::Control(node), bits.own.minus(guard));
            self.record(UseKind::Captured, bits.implied);
        } else if self.raises > raises {
            let limits = test.map_or(Bits::EMPTY, |t| self.limits(t, 0));
            self.record(UseKind::Effect, limits.minus(guard));
            self.record(UseKind::Check, bits.own.minus(guard).minus(limits));
        } else if self.logs > logs {
            self.record(UseKind::Log, bits.own);
        }
    }

    fn partial_guard(&mut self, test: &Expr<'a>, whole: Bits) {
        if self.mute > 0 {
            return;
        }
        let mut all = Vec::new();
        collect_names(test, &mut all, 0);
        let mut mentioned = Bits::EMPTY;
        for n in &all {
            if let Some(v) = self.vars.get(n) {
                mentioned = mentioned.or(self.env[*v as usize].all);
            }
        }
        let params = mentioned.minus(whole);
        if !params.is_empty() {
            self.partial.push((params, all));
        }
    }

    fn try_stmt(
        &mut self,
        body: &'f [Stmt<'a>],
        handlers: &'f [Vec<Stmt<'a>>],
        orelse: &'f [Stmt<'a>],
        finally: &'f [Stmt<'a>],
    ) -> bool {
        let node = self.next_node();
        let path = self.push_path(node, 0, None);
        let mut first = self.arm(path, body);
        let body_terminated = first.0;
        // The body may fail anywhere: handlers see its assignments and what was there before.
        self.join(vec![(false, first.1.clone())], true, Value::NONE);
        let mut arms = Vec::new();
        for (i, h) in handlers.iter().enumerate() {
            let path = self.push_path(node, i as u32 + 1, None);
            self.paths[path as usize].handler = true;
            self.paths[path as usize].gives_up = matches!(h.last(), Some(Stmt::Raise(_)));
            arms.push(self.arm(path, h));
        }
        let handlers_terminate = arms.iter().all(|a| a.0);
        if !body_terminated && !orelse.is_empty() {
            let path = self.push_path(node, 0, None);
            let second = self.arm(path, orelse);
            first.0 |= second.0;
            arms.push(second);
        }
        self.join(arms, true, Value::NONE);
        if self.inline(finally) {
            return true;
        }
        match (first.0, handlers_terminate) {
            (true, true) => true,
            (true, false) => {
                self.path = self.push_path(node, 1, None);
                self.paths[self.path as usize].handler = true;
                false
            }
            _ => false,
        }
    }

    fn is_guard(&self, call: &Call<'a>) -> bool {
        !self.guards.is_empty()
            && !call.args.is_empty()
            && call.callee.dotted().is_some_and(|path| {
                let last = path.rsplit(['.', ':']).next().unwrap_or(&path);
                self.guards.iter().any(|g| g == last)
            })
    }

    fn statement_expr(&mut self, e: &'f Expr<'a>) {
        match e {
            Expr::Call(call) if self.is_guard(call) => {
                let test = &call.args[0].value;
                let bits = self.eval(test);
                let pins = self.pins(test, true, true, 0);
                self.record(UseKind::Guard, pins);
                self.record(UseKind::Check, bits.own.minus(pins));
                self.relate(test, true, 0);
                self.raises += 1;
            }
            Expr::Call(call) => {
                let quiet_call = is_log(&call.callee);
                self.sink = Sink::Dropped;
                let bits = self.call(call, true);
                self.sink = Sink::Inside;
                if !quiet_call {
                    self.statement_calls += 1;
                    // A method called for its effect on its receiver (`p.zero_()`).
                    if let Expr::Attr(base, _) = &call.callee {
                        let base_bits = self.peek(base);
                        self.used(UseKind::Effect, base_bits);
                        if let Some(root) = base.root()
                            && let Some(&v) = self.vars.get(root)
                        {
                            let merged = self.env[v as usize].or(bits);
                            self.set(v, merged);
                        }
                    }
                    self.effects += 1;
                }
            }
            Expr::Let(_) | Expr::Yield(_) => {
                self.eval(e);
            }
            // C++: `a ? f() : g()`, `x << y`, `++x`; a bare computation has no effect of its own.
            other => {
                let bits = self.eval(other);
                if has_call(other) {
                    self.effects += 1;
                    self.used(UseKind::Effect, bits);
                } else if matches!(other, Expr::Mentions(_)) {
                    self.effects += 1;
                }
            }
        }
    }

    fn assign(&mut self, targets: &'f [Expr<'a>], value: &'f Expr<'a>, augmented: bool) {
        let simple = match targets {
            [Expr::Name(n)] if !augmented => Some(*n),
            _ => None,
        };
        // `x = x` and `p = f(p)` are not uses by themselves: the value lives on in the variable.
        let before = self.calls.len();
        self.sink = simple.map_or(Sink::Inside, |name| Sink::Local(self.var(name)));
        let bits = self.eval_value(value, true);
        self.sink = Sink::Inside;
        let calls = (before, self.calls.len());
        self.reference(value);
        for t in targets {
            self.store(t, bits, augmented);
        }
        if let Some(name) = simple {
            let var = self.var(name);
            if self.mute == 0 {
                self.assigned.push(Assigned {
                    var,
                    path: self.path,
                    constant: value.is_literal(),
                    choice: self.is_choice(value, 0),
                    empty: is_empty_memory(value),
                    of: self.direct(value),
                    calls,
                });
                self.tests.insert(var, value);
                self.hold(var, value);
            }
            let built = match value {
                Expr::Build(_) | Expr::Comprehension(..) => true,
                Expr::Op(parts) => parts.is_empty(),
                Expr::Call(c) => c.callee.dotted().is_some_and(|d| {
                    matches!(
                        d.rsplit(['.', ':']).next(),
                        Some("dict" | "list" | "set" | "defaultdict" | "OrderedDict")
                    )
                }),
                _ => false,
            };
            self.fresh[var as usize] = built && var as usize >= self.function.params.len();
        }
    }

    fn store(&mut self, target: &'f Expr<'a>, bits: Value, augmented: bool) {
        match target {
            Expr::Name(n) => {
                let var = self.var(n);
                let old = self.env[var as usize];
                if augmented {
                    // `out += bias` changes a tensor that came in.
                    if !old.own.is_empty() {
                        self.used(UseKind::Effect, bits);
                    }
                    self.set(var, old.or(bits));
                } else {
                    let i = var as usize;
                    if i < self.function.params.len()
                        && old.own.has(i)
                        && !bits.own.has(i)
                        && !self.function.params[i].output
                        && self.mute == 0
                        && self.overwritten[i].is_none()
                    {
                        self.overwritten[i] = Some(self.last_offset);
                    }
                    if self.function.params.get(i).is_some_and(|p| p.output) {
                        self.used(UseKind::Effect, bits.or(old));
                        self.effects += 1;
                        self.set(var, bits.or(old));
                        return;
                    }
                    self.set(var, bits);
                }
            }
            Expr::Build(parts) => {
                for p in parts {
                    self.store(p, bits, augmented);
                }
            }
            Expr::Attr(base, _) | Expr::Index(base, _) => {
                if let (Expr::Attr(_, name), Expr::Name("self"), "__init__") =
                    (target, &**base, self.function.name)
                    && bits.own.len() == 1
                    && self.mute == 0
                    && let Some(p) = bits.own.iter().next()
                {
                    self.stored.push((p as u16, (*name).to_owned()));
                }
                if let Expr::Index(_, index) = target {
                    let i = self.eval(index);
                    self.store_into(base, bits.or(i));
                } else {
                    self.store_into(base, bits);
                }
            }
            Expr::Op(parts) if parts.len() == 1 => match &parts[0] {
                // C++ `*p = v`: a store through a pointer.
                inner @ (Expr::Name(_) | Expr::Call(_) | Expr::Op(_)) => self.store_into(inner, bits),
                inner => self.store(inner, bits, augmented),
            },
            other => {
                let more = self.eval(other);
                self.effects += 1;
                self.used(UseKind::Effect, bits.or(more));
            }
        }
    }

    /// A store into a part of `base`.
    fn store_into(&mut self, base: &'f Expr<'a>, bits: Value) {
        let base_bits = self.eval(base);
        let root = base.root().and_then(|r| self.vars.get(r).copied());
        match root {
            Some(v) if self.fresh[v as usize] => {
                let merged = self.env[v as usize].or(bits);
                self.set(v, merged);
            }
            _ => {
                self.effects += 1;
                self.used(UseKind::Effect, bits.or(base_bits));
                if let Some(v) = root {
                    let merged = self.env[v as usize].or(bits);
                    self.set(v, merged);
                }
            }
        }
    }

    // ---------------------------------------------------------------- expressions

    fn read_name(&mut self, name: &str) -> Value {
        match self.vars.get(name) {
            None => Value::NONE,
            Some(&v) => {
                let bits = self.env[v as usize];
                if self.mute == 0 {
                    self.read = self.read.or(bits.own);
                    if self.launching == 0 {
                        self.value_read = self.value_read.or(bits.own);
                    }
                    let i = v as usize;
                    if i < self.function.params.len() && bits.own.has(i) {
                        self.read_original = self.read_original.or(Bits::one(i));
                        if !self.hinting.or(self.paths[self.path as usize].hints).has(i) {
                            self.unhinted = self.unhinted.or(Bits::one(i));
                        }
                        let context = self
                            .conditions
                            .iter()
                            .fold(self.paths[self.path as usize].context, |all, c| all.or(*c))
                            .minus(Bits::one(i));
                        self.under[i] = Some(self.under[i].map_or(context, |before| before.and(context)));
                    }
                }
                bits
            }
        }
    }

    /// Bits of an expression without recording anything.
    fn peek(&mut self, e: &'f Expr<'a>) -> Value {
        self.mute += 1;
        let bits = self.eval(e);
        self.mute -= 1;
        bits
    }

    fn eval_value(&mut self, e: &'f Expr<'a>, assigned: bool) -> Value {
        match e {
            Expr::Call(call) => self.call(call, assigned),
            // `out = f(x)[0]`, `out = f(x).view(...)`.
            Expr::Index(base, index) => {
                let b = self.eval_value(base, assigned);
                b.or(self.eval(index))
            }
            Expr::Attr(base, _) => self.eval_value(base, assigned),
            other => self.eval(other),
        }
    }

    fn eval(&mut self, e: &'f Expr<'a>) -> Value {
        match e {
            Expr::Name(n) => self.read_name(n),
            Expr::Lit(_) => Value::NONE,
            Expr::Attr(base, _) => self.eval(base),
            Expr::Index(base, index) => {
                let b = self.eval(base);
                b.or(self.eval(index))
            }
            Expr::Call(call) => self.call(call, true),
            Expr::Not(inner) => self.eval(inner),
            Expr::And(v) => {
                let mut bits = Value::NONE;
                let outer = self.conditions.len();
                for x in v {
                    let b = self.eval(x);
                    self.conditions.push(b.all);
                    bits = bits.or(b);
                }
                self.conditions.truncate(outer);
                bits
            }
            Expr::Or(v) | Expr::Op(v) | Expr::Build(v) => {
                let mut bits = Value::NONE;
                for x in v {
                    bits = bits.or(self.eval(x));
                }
                bits
            }
            Expr::Compare(_, sides) => {
                let a = self.eval(&sides.0);
                a.or(self.eval(&sides.1))
            }
            Expr::Cond(parts) => {
                let t = self.eval(&parts.0);
                self.conditions.push(t.all);
                let a = self.eval(&parts.1);
                let b = self.eval(&parts.2);
                self.conditions.pop();
                t.or(a).or(b)
            }
            Expr::Comprehension(generators, built) => {
                let mut bits = Value::NONE;
                for (target, source, conditions) in generators {
                    let b = self.eval(source);
                    self.store(target, b, false);
                    bits = bits.or(b);
                    for c in conditions {
                        bits = bits.or(self.eval(c));
                    }
                }
                for b in built {
                    bits = bits.or(self.eval(b));
                }
                bits
            }
            Expr::Closure(params, body) => {
                // Captured values live in the closure; its own parameters hide outer names.
                let saved: Vec<(u32, Value)> = params
                    .iter()
                    .filter_map(|p| self.vars.get(p).copied())
                    .map(|v| (v, self.env[v as usize]))
                    .collect();
                for (v, _) in &saved {
                    self.env[*v as usize] = Value::NONE;
                }
                let mut all = Vec::new();
                collect_names(body, &mut all, 0);
                let mut bits = Value::NONE;
                for n in all {
                    bits = bits.or(self.read_name(n));
                }
                for (v, b) in saved {
                    self.env[v as usize] = b;
                }
                bits
            }
            Expr::Let(parts) => {
                let bits = self.eval(&parts.1);
                self.store(&parts.0, bits, false);
                bits
            }
            Expr::Yield(inner) => {
                let bits = self.eval(inner);
                self.effects += 1;
                self.used(UseKind::Effect, bits);
                bits
            }
            Expr::Mentions(list) => {
                let mut bits = Value::NONE;
                for n in list {
                    bits = bits.or(self.read_name(n));
                }
                self.used(UseKind::Effect, bits);
                bits
            }
        }
    }

    fn call(&mut self, call: &'f Call<'a>, top_level: bool) -> Value {
        if self.mute == 0 {
            self.last_offset = call.offset;
        }
        if is_log(&call.callee) {
            self.quiet += 1;
            self.logs += 1;
            self.warnings += u32::from(call.callee.dotted().is_some_and(|path| names::is_warning(&path)));
            for a in &call.args {
                let bits = self.eval(&a.value);
                self.record(UseKind::Log, bits.own);
            }
            self.quiet -= 1;
            return Value::NONE;
        }
        let sink = if self.call_depth == 0 { std::mem::take(&mut self.sink) } else { Sink::Inside };
        let (path, receiver) = self.callee(&call.callee);
        let last = path.rsplit(['.', ':']).next().unwrap_or("");
        if matches!(path.as_str(), "locals" | "vars" | "eval" | "exec") || last == "va_start" {
            self.opaque = true;
        }
        let pure =
            names::is_pure(&path, last, !receiver.all.is_empty() || matches!(&call.callee, Expr::Attr(..)));
        let mut bits = receiver;
        let mut args = Vec::with_capacity(call.args.len());
        let mut direct = Bits::EMPTY;
        self.call_depth += 1;
        for (i, a) in call.args.iter().enumerate() {
            let option = a.name.is_some_and(names::is_launch_option);
            self.launching += u32::from(option);
            let b = self.eval(&a.value);
            self.launching -= u32::from(option);
            self.reference(&a.value);
            bits = bits.or(b);
            let d = self.direct(&a.value);
            if let Some(d) = d {
                direct = direct.or(Bits::one(d));
            }
            let slot = match a.name {
                _ if a.spread => Slot::Unknown,
                Some(n) => Slot::Keyword(n.to_owned()),
                None => Slot::Position(i as u32),
            };
            let literal = match &a.value {
                Expr::Lit(l) => Some(*l),
                Expr::Op(v) if a.value.is_literal() && v.len() == 1 => match &v[0] {
                    Expr::Lit(l) => Some(*l),
                    _ => None,
                },
                _ => None,
            };
            args.push(ArgEvent { slot, direct: d, bits: b.own, literal });
        }
        // A positional argument after `*spread` lands nowhere known.
        let mut spread = false;
        for (a, event) in call.args.iter().zip(&mut args) {
            if spread && matches!(event.slot, Slot::Position(_)) {
                event.slot = Slot::Unknown;
            }
            spread |= a.spread && a.name.is_none();
        }
        self.call_depth -= 1;
        if names::shapes_output(last) {
            self.shapes = self.shapes.or(bits.own);
        } else {
            for a in &args {
                if matches!(&a.slot, Slot::Keyword(k) if k == "dtype" || k == "out_dtype") {
                    self.shapes = self.shapes.or(a.bits);
                }
            }
        }
        if pure || self.quiet > 0 || self.mute > 0 {
            return bits;
        }
        let index = self.calls.len() as u32;
        for a in &args {
            self.record(UseKind::Argument(index), a.bits);
        }
        self.record(UseKind::Captured, bits.implied);
        // What selects or configures the callee (`kernel[grid]`, a local function's captures) is used.
        match &call.callee {
            Expr::Attr(..) => {}
            Expr::Name(_) => self.record(UseKind::Captured, receiver.own),
            _ => self.used(UseKind::Effect, receiver),
        }
        self.order += 1;
        self.calls.push(CallEvent {
            callee: path,
            args,
            path: self.path,
            order: self.order,
            offset: call.offset,
            bits: bits.all,
            direct,
            top_level: top_level && self.call_depth == 0,
            sink,
            handle: match &call.callee {
                Expr::Name(n) => self.local(n),
                _ => None,
            },
        });
        // Methods hand on what they are called on; arguments belong to the call now.
        if matches!(&call.callee, Expr::Attr(..)) {
            Value { all: bits.all, ..receiver }
        } else {
            Value { all: bits.all, ..Value::NONE }
        }
    }

    fn reference(&mut self, e: &Expr<'a>) {
        match e {
            Expr::Name(n) if self.mute == 0 && !self.vars.contains_key(n) => self.references.push(n),
            Expr::Attr(base, n)
                if self.mute == 0 && base.root().is_some_and(|r| !self.vars.contains_key(r)) =>
            {
                self.references.push(n);
            }
            Expr::Cond(parts) => {
                self.reference(&parts.1);
                self.reference(&parts.2);
            }
            Expr::Build(parts) => {
                for p in parts {
                    self.reference(p);
                }
            }
            _ => {}
        }
    }

    /// The callee's dotted path (empty where computed) and the parameters that reach its receiver.
    fn callee(&mut self, e: &'f Expr<'a>) -> (String, Value) {
        match e {
            // `kernel[grid](...)`.
            Expr::Index(base, index) => {
                let (path, bits) = self.callee(base);
                self.launching += 1;
                let index = self.eval(index);
                self.launching -= 1;
                (path, bits.or(index))
            }
            Expr::Name(n) => {
                let path = self.through(n);
                // What a local holds is no function of the module, whatever that is called.
                let hidden = path == *n && self.local(n).is_some();
                (if hidden { format!("?.{n}") } else { path }, self.read_name(n))
            }
            Expr::Attr(base, name) => {
                let bits = self.eval(base);
                match base.dotted() {
                    Some(mut path) => {
                        path.push('.');
                        path.push_str(name);
                        (path, bits)
                    }
                    None => (format!("?.{name}"), bits),
                }
            }
            other => (String::new(), self.eval(other)),
        }
    }

    /// A local that holds a function under another name: `f = module.kernel`.
    fn through(&self, name: &str) -> String {
        if let Some(v) = self.local(name)
            && let Some(e) = self.tests.get(&v)
            && let Some(path) = e.dotted()
            && self.assigned.iter().filter(|a| a.var == v).count() == 1
        {
            return path;
        }
        name.to_owned()
    }

    /// The parameter that an expression passes on as it is, casts and fallbacks to a default included.
    fn direct(&self, e: &Expr<'a>) -> Option<usize> {
        let n = self.function.params.len();
        match e {
            Expr::Name(name) => {
                let v = *self.vars.get(name)? as usize;
                if v < n && self.env[v].own.has(v) {
                    Some(v)
                } else if v >= n && self.env[v].own.len() == 1 {
                    // A local that carries one parameter only.
                    self.env[v].own.iter().next()
                } else {
                    None
                }
            }
            Expr::Op(parts) if parts.len() == 1 => self.direct(&parts[0]),
            Expr::Index(base, _) => self.direct(base),
            Expr::Attr(base, "data" | "value" | "T") => self.direct(base),
            Expr::Or(parts) => self.direct(parts.first()?),
            Expr::Cond(parts) => self.direct(&parts.1).or_else(|| self.direct(&parts.2)),
            Expr::Call(c) => match &c.callee {
                Expr::Attr(base, m) if names::passes_through(m) => self.direct(base),
                Expr::Name(f) if names::is_cast(f) && c.args.len() == 1 => self.direct(&c.args[0].value),
                Expr::Attr(..) => {
                    let path = c.callee.dotted()?;
                    (names::is_cast(&path) && c.args.len() == 1).then(|| self.direct(&c.args[0].value))?
                }
                _ => None,
            },
            _ => None,
        }
    }

    // ---------------------------------------------------------------- verdict

    fn finish(self) -> Analysis {
        let n = self.function.params.len();
        let mut params = Vec::with_capacity(n);
        let ends = self.ends();
        let mut forwards: Vec<Vec<(u32, Slot)>> = vec![Vec::new(); n];
        for (i, c) in self.calls.iter().enumerate() {
            for a in &c.args {
                for p in a.bits.iter().take_while(|p| *p < n) {
                    // A value computed from several parameters does not bind one of them.
                    let slot =
                        if a.direct == Some(p) || a.bits.len() == 1 { a.slot.clone() } else { Slot::Unknown };
                    forwards[p].push((i as u32, slot));
                }
            }
        }
        let handed_on =
            (0..n).filter(|i| !forwards[*i].is_empty()).fold(Bits::EMPTY, |all, i| all.or(Bits::one(i)));
        for (i, forwards) in forwards.iter_mut().enumerate() {
            let fate = self.fate(i, &ends, !forwards.is_empty());
            let equal = self.equal.iter().find_map(|(a, b)| match (*a == i, *b == i) {
                (true, _) => Some(*b),
                (_, true) => Some(*a),
                _ => None,
            });
            let partner = equal.filter(|o| ends.effect.has(*o) || handed_on.has(*o));
            let fate = if fate.ignored() && partner.is_some() { Fate::Guarded } else { fate };
            let witness = match fate {
                Fate::Overwritten | Fate::Forwarded => self.overwritten[i],
                Fate::Logged => self.first(i, UseKind::Log),
                Fate::Discarded => self.first(i, UseKind::Discard),
                Fate::Checked => self.first(i, UseKind::Check),
                Fate::Raised => self.first(i, UseKind::Raise),
                _ => None,
            };
            let carriers = if fate.ignored() && fate != Fate::NeverRead {
                self.vars
                    .iter()
                    .filter(|(_, v)| self.carried.get(**v as usize).is_some_and(|b| b.has(i)))
                    .map(|(n, _)| (*n).to_owned())
                    .collect()
            } else {
                Vec::new()
            };
            params.push(ParamFlow {
                carriers,
                fate,
                guarded: ends.guard.has(i),
                shapes: self.shapes.has(i),
                under: self.under[i]
                    .unwrap_or_default()
                    .iter()
                    .take_while(|q| *q < n)
                    .map(|q| q as u16)
                    .collect(),
                equal: partner.map(|o| o as u16),
                property: self.properties.has(i),
                launch: self.read.has(i) && !self.value_read.has(i),
                hint: self.read_original.has(i) && !self.unhinted.has(i),
                scratch: self.is_scratch(i),
                warned: self.warned.has(i),
                forwards: std::mem::take(forwards),
                witness,
            });
        }
        // Kept, and nothing else done with it.
        let mut stored = self.stored.clone();
        stored.retain(|(p, _)| {
            !self
                .uses
                .iter()
                .any(|u| u.bits.has(*p as usize) && !matches!(u.kind, UseKind::Effect | UseKind::Guard))
        });
        let drops = if self.opaque { Vec::new() } else { self.drops() };
        let opaque = self.opaque;
        let mut references: Vec<String> = self.references.iter().map(|r| (*r).to_owned()).collect();
        references.sort_unstable();
        references.dedup();
        let calls = self.summarise_calls(ends.guard);
        let answers = self.returned_other == 0
            && self.statement_calls == 0
            && (self.returned > 0 || self.raises > 0 && self.effects == 0);
        let reports = self.logs > 0
            && self.returned == 0
            && self.statement_calls == 0
            && !self.uses.iter().any(|u| matches!(u.kind, UseKind::Effect));
        let chooses = self.returned > 0
            && self.returned_choices == self.returned
            && self.statement_calls == 0
            && self.calls.iter().all(|c| names::is_whole_number(&c.callee));
        let passes = self.returned > 0
            && self.returned_as_is == self.returned
            && self.statement_calls == 0
            && self.calls.is_empty();
        Analysis { params, calls, drops, opaque, references, stored, answers, reports, passes, chooses }
    }

    /// Which parameters end where.
    fn ends(&self) -> Ends {
        let mut ends = Ends::default();
        for u in &self.uses {
            let of = match u.kind {
                UseKind::Effect | UseKind::Control(_) | UseKind::Captured => &mut ends.effect,
                UseKind::Log => &mut ends.log,
                UseKind::Check => &mut ends.check,
                UseKind::Raise => &mut ends.raise,
                UseKind::Guard => &mut ends.guard,
                UseKind::Discard => &mut ends.discard,
                UseKind::Argument(_) => continue,
            };
            *of = of.or(u.bits);
        }
        ends
    }

    /// Where a parameter comes to at best.
    fn fate(&self, i: usize, ends: &Ends, forwarded: bool) -> Fate {
        if i >= Bits::MAX || self.opaque || ends.effect.has(i) {
            Fate::Used
        } else if forwarded {
            Fate::Forwarded
        } else if ends.guard.has(i) {
            Fate::Guarded
        } else if ends.log.has(i) {
            Fate::Logged
        } else if ends.discard.has(i) {
            Fate::Discarded
        } else if ends.check.has(i) {
            Fate::Checked
        } else if ends.raise.has(i) {
            Fate::Raised
        } else if self.overwritten[i].is_some() && !self.read_original.has(i) {
            Fate::Overwritten
        } else if self.read.has(i) {
            Fate::DeadEnd
        } else if self.function.params[i].disowned {
            Fate::Discarded
        } else {
            Fate::NeverRead
        }
    }

    /// Whether an expression is a parameter as it came in, a constant, a function, or a tuple of those.
    fn is_as_given(&self, e: &Expr<'a>) -> bool {
        match e {
            Expr::Lit(_) | Expr::Closure(..) => true,
            Expr::Name(n) => self.vars.get(n).is_some_and(|v| {
                let v = *v as usize;
                v < self.function.params.len() && self.env[v].own.has(v) && self.env[v].own.len() == 1
            }),
            Expr::Build(parts) => parts.iter().all(|p| self.is_as_given(p)),
            _ => false,
        }
    }

    /// Whether an expression is a constant, one of several constants, or a truth value.
    fn is_choice(&self, e: &Expr<'a>, depth: u32) -> bool {
        if depth > 40 {
            return false;
        }
        match e {
            Expr::Lit(_) | Expr::Not(_) | Expr::Compare(..) => true,
            Expr::And(v) | Expr::Or(v) => v.iter().any(|x| self.is_choice(x, depth + 1)),
            Expr::Op(v) => !v.is_empty() && v.iter().all(|x| self.is_choice(x, depth + 1)),
            Expr::Cond(parts) => self.is_choice(&parts.1, depth + 1) && self.is_choice(&parts.2, depth + 1),
            Expr::Name(n) => self.local(n).is_some_and(|v| {
                let mut values = self.assigned.iter().filter(|a| a.var == v).peekable();
                values.peek().is_some() && values.all(|a| a.choice)
            }),
            _ => false,
        }
    }

    /// Whether a parameter is memory to work in: a variable that holds it, or what was allocated without contents, and
    /// that is not returned. What the caller wrote there cannot matter, then, and what the function writes is not asked for.
    fn is_scratch(&self, param: usize) -> bool {
        let holds = |var: u32| {
            var as usize == param || self.assigned.iter().any(|a| a.var == var && a.of == Some(param))
        };
        self.read.has(param)
            && self.assigned.iter().any(|a| a.empty && !self.returned_vars.contains(&a.var) && holds(a.var))
    }

    /// The calls as callers and rules see them. A call through a local also counts as a call of each function that the
    /// local was set to, under the conditions of that assignment.
    fn summarise_calls(&self, guard: Bits) -> Vec<CallSummary> {
        let pins = |mut path: PathId| {
            let mut pinned = guard;
            while path != 0 {
                pinned = pinned.or(self.paths[path as usize].pins);
                path = self.paths[path as usize].parent;
            }
            pinned
        };
        let summary = |c: &CallEvent, callee: String, pinned: Bits, handle: bool| CallSummary {
            callee,
            line: 0,
            column: 0,
            offset: c.offset,
            args: c
                .args
                .iter()
                .map(|a| ArgSummary {
                    slot: a.slot.clone(),
                    direct: a.direct.map(|d| d as u16),
                    pinned: a.direct.is_some_and(|d| pinned.has(d)),
                    literal: a.literal.map(str::to_owned),
                })
                .collect(),
            sink: c.sink,
            handle,
        };
        let mut out: Vec<CallSummary> =
            self.calls.iter().map(|c| summary(c, c.callee.clone(), pins(c.path), false)).collect();
        for c in &self.calls {
            let Some(held) = c.handle.and_then(|v| self.held.get(&v)) else { continue };
            for (path, constructed, at) in held {
                let callee = if *constructed { format!("{path}.__call__") } else { path.clone() };
                if callee != c.callee && out.len() < 4 * self.calls.len() + 16 {
                    out.push(summary(c, callee, pins(c.path).or(pins(*at)), true));
                }
            }
        }
        out
    }

    /// Remembers which function or class a local is set to.
    fn hold(&mut self, var: u32, value: &Expr<'a>) {
        let entry = match value {
            Expr::Call(c) => c.callee.dotted().map(|path| (path, true)),
            Expr::Name(n) if self.vars.contains_key(n) => None,
            other => other.dotted().map(|path| (path, false)),
        };
        if let Some((path, constructed)) = entry {
            let held = self.held.entry(var).or_default();
            if held.len() < 8 {
                held.push((path, constructed, self.path));
            }
        }
    }

    fn first(&self, param: usize, kind: UseKind) -> Option<u32> {
        self.uses.iter().find(|u| u.kind == kind && u.bits.has(param)).map(|u| u.offset)
    }
}

/// A truth value by its form: a comparison, a negation, a literal, or a combination of those.
fn is_truth(e: &Expr) -> bool {
    match e {
        Expr::Not(_) | Expr::Compare(..) => true,
        Expr::Lit(l) => matches!(*l, "True" | "False" | "true" | "false"),
        Expr::And(v) | Expr::Or(v) => v.iter().any(is_truth),
        Expr::Build(v) => v.first().is_some_and(is_truth) && v.len() == 2,
        Expr::Call(c) => matches!(&c.callee, Expr::Name("bool" | "isinstance" | "all" | "any" | "hasattr")),
        _ => false,
    }
}

/// Memory that is allocated without contents, in one of the arms of the expression at least.
fn is_empty_memory(e: &Expr) -> bool {
    match e {
        Expr::Call(c) => match &c.callee {
            Expr::Attr(_, name) | Expr::Name(name) => names::allocates_empty(name),
            _ => false,
        },
        Expr::Cond(parts) => is_empty_memory(&parts.1) || is_empty_memory(&parts.2),
        Expr::Or(parts) => parts.iter().any(is_empty_memory),
        Expr::Op(parts) if parts.len() == 1 => is_empty_memory(&parts[0]),
        _ => false,
    }
}

fn is_log(callee: &Expr) -> bool {
    let Some(path) = callee.dotted() else { return false };
    names::is_log(&path)
}

fn has_call(e: &Expr) -> bool {
    match e {
        Expr::Call(_) => true,
        Expr::Op(v) | Expr::Build(v) | Expr::And(v) | Expr::Or(v) => v.iter().any(has_call),
        Expr::Cond(p) => has_call(&p.0) || has_call(&p.1) || has_call(&p.2),
        Expr::Attr(b, _) | Expr::Not(b) => has_call(b),
        Expr::Index(b, i) => has_call(b) || has_call(i),
        Expr::Compare(_, s) => has_call(&s.0) || has_call(&s.1),
        Expr::Comprehension(..) => true,
        _ => false,
    }
}

/// Names, attributes and string literals that an expression mentions.
fn collect_names<'a>(e: &Expr<'a>, out: &mut Vec<&'a str>, depth: u32) {
    if depth > 250 || out.len() > 4000 {
        return;
    }
    let d = depth + 1;
    match e {
        Expr::Name(n) => out.push(n),
        Expr::Lit(_) => {}
        Expr::Attr(b, n) => {
            collect_names(b, out, d);
            out.push(n);
        }
        Expr::Index(a, b) => {
            collect_names(a, out, d);
            collect_names(b, out, d);
        }
        Expr::Call(c) => {
            collect_names(&c.callee, out, d);
            for a in &c.args {
                collect_names(&a.value, out, d);
            }
        }
        Expr::Not(b) | Expr::Yield(b) | Expr::Closure(_, b) => collect_names(b, out, d),
        Expr::And(v) | Expr::Or(v) | Expr::Op(v) | Expr::Build(v) => {
            for x in v {
                collect_names(x, out, d);
            }
        }
        Expr::Compare(_, s) | Expr::Let(s) => {
            collect_names(&s.0, out, d);
            collect_names(&s.1, out, d);
        }
        Expr::Cond(p) => {
            collect_names(&p.0, out, d);
            collect_names(&p.1, out, d);
            collect_names(&p.2, out, d);
        }
        Expr::Comprehension(generators, built) => {
            for (t, s, c) in generators {
                collect_names(t, out, d);
                collect_names(s, out, d);
                for x in c {
                    collect_names(x, out, d);
                }
            }
            for b in built {
                collect_names(b, out, d);
            }
        }
        Expr::Mentions(v) => out.extend(v),
    }
}
