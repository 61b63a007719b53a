//! What is known of a suspected parameter: who disagrees with ignoring it, and what could excuse it. Severity follows
//! from those by the table in [`judge`], which the guide and `lint --explain` show. Names are read where they relate
//! two things (a length and its tensor, a scale and the mode that has scales); they decide the order of findings, not
//! their severity.

use rayon::prelude::*;

use super::config::{Confidence, LintConfig};
use super::effects::{Effects, Reason, aborts};
use super::finding::Severity;
use super::index::{FnId, Index, param, without_generics};
use super::ir::ParamKind;
use super::names::{self, Meaning};
use super::source::{Documented, Fate, FnSummary, Kind, Language, ParamSummary};

/// Everything a rule reads.
pub struct Context<'s> {
    pub index: &'s Index<'s>,
    pub effects: &'s Effects,
    pub config: &'s LintConfig,
    /// Parameters that a function worth reporting ignores, in the order of the source, and what is known of each.
    pub suspects: Vec<(FnId, usize, &'s Reason, Evidence)>,
}

/// Who says that the parameter matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    /// A member of the same dispatch table or `forward_*` family honours it.
    Family(FnId),
    /// Other implementations of the same method honour it: one of them, how many do, and of how many.
    Siblings(FnId, usize, usize),
    /// A function that does the same job honours it.
    Twin(FnId),
    /// A function whose name has a word more or less honours it.
    Near(FnId),
    /// The function's documentation describes it.
    Documented,
    /// Another parameter of the function is refused where it is not supported; this one is not.
    Refused(usize),
    /// A caller passes something other than the default: the caller and the line of the call.
    Caller(FnId, u32),
    /// Most functions of the repository that take a parameter of this name honour it: how many do, and of how many.
    Custom(usize, usize),
    /// A call passes a literal where a comment or the callee names the parameter.
    Literal,
    /// Another path through the function hands it on.
    OtherArm,
    /// A method beside the function says that the parameter is supported.
    Affirmed(FnId),
    /// The configuration asks for findings of this rule.
    Asked,
    /// The callee on this path has the parameter, and its default takes over.
    CalleeHas,
    /// The callee on this path has the parameter, and a literal is passed for it, or little else is passed on.
    Default,
}

/// Why ignoring the parameter may be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Excuse {
    /// Its documentation, or a comment beside it, says that it is ignored.
    SaysSo,
    /// The signature is not the function's choice.
    Contract(Contract),
    /// Without another parameter, which is refused or absent here, it has no effect.
    Inert(String),
    /// Another operand carries what it says.
    Carried(String),
    /// Every caller that is known refuses or fixes it, or leaves it at its default.
    Callers,
    /// A check beside this function looks at it and decides whether the function is called.
    Verified,
    /// Properties of it are checked, and what does not have them is refused.
    Property,
    /// The function answers a question; what it does not look at is no reason for a no.
    Answers,
    /// The function returns numbers or a plan, no data.
    Chooses,
    /// The function only writes to the log.
    Reports,
    /// Where it is honoured it is memory to work in.
    Scratch,
    /// Its documentation says that it concerns the backward pass.
    Backward,
    /// A warning in the log says that it is left out.
    Warned,
    /// A comment beside the statement that throws it away gives a reason.
    Explained,
    /// The function returns what it is given.
    Passes,
    /// Where it is honoured, it configures a launch: results do not depend on it.
    Launch,
    /// It tunes a launch or belongs to the machinery around it: warps, a stream, a workspace.
    Tuning,
    /// It is a measure: a count, a stride, an offset.
    Measure,
    /// A tool that runs beside the product: a tuner, a generator, an example.
    Tool,
    /// On this path there is none of what it belongs to.
    Mode(String),
    /// Where it is honoured it is a hint: what it asks for is left out there, too, if something else says no.
    Hint,
    /// It is only shown or checked: what a name or a message is for.
    Checked,
    /// The function at the end of the way is reported itself.
    Reported,
    /// The function looks at none of its parameters.
    Idle,
    /// The call passes a value of its own choice.
    Fixed,
    /// The function is internal, and the callee on this path has no such parameter.
    Internal,
    /// The two calls are steps of one job, no alternatives.
    Steps,
    /// The calls have too little in common to be alternatives.
    Unlike,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// It overrides a method of a base class or implements a trait.
    Override,
    /// Subclasses override it and use the parameter.
    Hook,
    /// Unrelated classes share its signature: layers of one protocol.
    Layer,
    /// Several classes without a common base share its signature.
    Protocol,
    /// It is passed around as a value.
    Callback,
    /// It is passed around as a value, and nobody here calls it by its name: who receives it decides its signature.
    Handed,
    /// It is registered for an operator or another function.
    Registered,
    /// It runs on the device, and its launcher decides what it gets.
    Kernel,
    /// It is defined inside of another function.
    Nested,
}

#[derive(Debug, Clone)]
pub struct Evidence {
    pub meaning: Meaning,
    pub sort: Kind,
    /// The caller may leave it out, or may say that there is none: it has a default, or its type has an empty value.
    pub optional: bool,
    /// The caller may say that there is none.
    pub absent: bool,
    /// It has a default.
    pub defaulted: bool,
    /// The function may be called from anywhere.
    pub public: bool,
    pub witnesses: Vec<Witness>,
    pub excuses: Vec<Excuse>,
    /// Where the finding stands among others of its severity.
    pub order: i32,
}

impl Evidence {
    /// The function that honours the parameter, of a dispatch table or of one base method.
    pub fn family(&self) -> Option<FnId> {
        self.witnesses.iter().find_map(|w| match w {
            Witness::Family(id) | Witness::Siblings(id, ..) => Some(*id),
            _ => None,
        })
    }

    /// The function elsewhere that honours the parameter.
    pub fn twin(&self) -> Option<FnId> {
        self.witnesses.iter().find_map(|w| match w {
            Witness::Twin(id) | Witness::Near(id) => Some(*id),
            _ => None,
        })
    }

    pub fn severity(&self) -> Severity {
        judge(self)
    }

    pub fn confidence(&self) -> Confidence {
        match self.severity() {
            Severity::Error => Confidence::High,
            Severity::Warning => Confidence::Medium,
            Severity::Note => Confidence::Low,
        }
    }
}

/// The table of evidence, as `lint --explain` prints it. The guide has the same table.
pub const TABLE: &str = "\
Severity follows from evidence. That a parameter is ignored is proven for every finding; the rest is who disagrees, whether
a caller chooses the parameter (it has a default, may be absent, is a flag, a fraction or a type), and what excuses it.

  who disagrees                                               option    operand, whole number
  a twin, the same dispatch, a callee left at its default     error     warning or note
  a near twin, the other arm, its documentation, a
  neighbour that is refused, a caller that passes something
  else than the default, implementations of the same method   warning   note
  the custom of the repository, or nobody                     warning or note
  anything above, but excused                                 note      note

A twin or a dispatch speaks where at least half of its members honour the parameter or refuse it. Where two severities
stand, the name decides. With a name that says nothing of numbers, two calls are alternatives only where both give the
function's result or another parameter is lost with it.

Excuses: a signature fixed by a contract (an override, a hook, a callback, a registered function, a kernel, a layer);
refused, absent, equal or inert on this path; carried by another operand; said to be ignored by the documentation; only
checked or shown; memory to work in; a flag that chose the way; refused by callers or their callers; a function that
answers, plans or reports; an internal function that chooses among callees. A function that is handed on as a value or that
returns what it is given, a warning in the log, and a discard beside a comment that gives a reason make a warning of an
error.
";

/// What the table says of one suspected parameter.
pub fn judge(e: &Evidence) -> Severity {
    let any = |f: &dyn Fn(&Witness) -> bool| e.witnesses.iter().any(f);
    let option = matches!(e.sort, Kind::Choice | Kind::Unknown);
    let telling = e.meaning >= Meaning::Numeric;
    // Whoever implements the same method, or stands in the same table, has the same contract.
    let same_contract = any(&|w| matches!(w, Witness::Family(_) | Witness::Siblings(..)));
    let twin = any(&|w| matches!(w, Witness::Twin(_)));
    let promised = any(&|w| matches!(w, Witness::Documented));
    let strong = any(&strong);
    let excused = e.excuses.iter().any(|x| match x {
        Excuse::Contract(Contract::Layer | Contract::Kernel | Contract::Nested | Contract::Hook) => true,
        Excuse::Contract(Contract::Callback | Contract::Protocol) => !same_contract && !twin,
        // Whoever receives the function may call it as its twin is called, or as its documentation says.
        Excuse::Contract(Contract::Handed) => !same_contract && !(telling && (twin || promised)),
        Excuse::Contract(_) => !same_contract,
        Excuse::Checked | Excuse::Measure => !strong,
        // Who reads the log, or the source, is told; and a function that returns what it is given may be meant to.
        Excuse::Warned | Excuse::Explained | Excuse::Passes => false,
        _ => true,
    });
    if excused {
        return Severity::Note;
    }
    if strong {
        let whole = !e.excuses.contains(&Excuse::Checked) && !e.excuses.contains(&Excuse::Measure);
        // Where nothing says what it is, the name does.
        let option = e.sort == Kind::Choice || e.sort == Kind::Unknown && telling;
        let passed_on = [Contract::Handed, Contract::Callback].map(Excuse::Contract);
        let handed = passed_on.iter().any(|x| e.excuses.contains(x)) && !same_contract
            || e.excuses.iter().any(|x| matches!(x, Excuse::Warned | Excuse::Explained | Excuse::Passes));
        return match (option && whole, telling) {
            (true, _) if handed => Severity::Warning,
            (true, _) => Severity::Error,
            (false, true) => Severity::Warning,
            (false, false) if option => Severity::Warning,
            (false, false) => Severity::Note,
        };
    }
    let customary = any(&|w| matches!(w, Witness::Custom(..)));
    if !option {
        let missed = telling && e.sort == Kind::Data && customary && promised;
        return if missed { Severity::Warning } else { Severity::Note };
    }
    let heard = any(&|w| match w {
        // A few implementations are a closed set; among many the signature serves those that need it. What every caller
        // has to pass is passed to those that have no use for it, too.
        Witness::Siblings(_, do_it, all) => {
            e.optional && e.sort == Kind::Choice && (telling || *all <= 3 && do_it == all && *all >= 2)
        }
        // One parameter is checked and another is not: inside of a library both may be plumbing.
        Witness::Refused(_) => {
            telling
                || e.public && e.sort == Kind::Choice && (e.absent || !e.defaulted)
                || any(&|w| matches!(w, Witness::Near(_) | Witness::Caller(..) | Witness::Documented))
        }
        // The documentation of a helper is no promise to a caller from elsewhere.
        Witness::Documented => telling || e.public || e.optional,
        // One word more may be another job: what its callers have to pass anyway is passed to both.
        Witness::Near(_) => telling || e.optional,
        Witness::OtherArm
        | Witness::Caller(..)
        | Witness::Literal
        | Witness::Asked
        | Witness::Affirmed(_)
        | Witness::Default => true,
        _ => false,
    });
    // Nobody but the name and the custom of the repository speaks.
    let alone = e.public
        && match e.sort {
            Kind::Choice => telling && customary || e.meaning == Meaning::Semantic,
            Kind::Unknown => e.meaning == Meaning::Semantic,
            Kind::Count | Kind::Data => false,
        };
    if heard || alone { Severity::Warning } else { Severity::Note }
}

/// A witness that decides more than the others.
fn strong(w: &Witness) -> bool {
    matches!(w, Witness::Family(_) | Witness::Twin(_) | Witness::CalleeHas)
}

impl<'s> Context<'s> {
    pub fn new(index: &'s Index<'s>, effects: &'s Effects, config: &'s LintConfig) -> Self {
        let mut cx = Self { index, effects, config, suspects: Vec::new() };
        let mut all: Vec<_> = effects
            .all()
            .filter(|(id, p, _)| {
                let param = &index.function(*id).params[*p];
                !matches!(param.kind, ParamKind::Receiver | ParamKind::VarArgs | ParamKind::KwArgs)
                    && !param.name.is_empty()
                    && cx.reportable(*id)
            })
            .collect();
        all.sort_by_key(|(id, p, _)| (*id, *p));
        cx.suspects = all
            .into_par_iter()
            .map(|(id, p, reason)| (id, p, reason, cx.evidence(id, p, Some(reason))))
            .collect();
        cx
    }

    /// Whether findings inside this function make sense at all.
    pub fn reportable(&self, id: FnId) -> bool {
        let f = self.index.function(id);
        let t = f.traits;
        let name = f.name.as_str();
        let alone =
            t.interface && !self.index.families.contains_key(&id) && !self.index.siblings.contains_key(&id);
        if t.stub
            || t.accessor
            || alone
            || f.opaque
            || aborts(self.index, f)
            || self.index.is_fake(id)
            || self.index.mirrors.contains(&id)
        {
            return false;
        }
        if name.starts_with("__") && name.ends_with("__") && name != "__init__" && name != "__call__" {
            return false;
        }
        if matches!(name, "backward" | "setup_context" | "jvp" | "vjp" | "symbolic" | "main")
            || name.starts_with("test_")
        {
            return false;
        }
        let guards = &self.config.guards.decorators;
        !f.decorators.iter().any(|(path, args)| {
            let last = path.rsplit('.').next().unwrap_or(path);
            guards.iter().any(|g| g == last) || last.contains("requirement") && !args.is_empty()
        })
    }

    /// What is known of a parameter that a whole function ignores.
    pub fn evidence(&self, id: FnId, p: usize, reason: Option<&Reason>) -> Evidence {
        let meaning = names::meaning(&self.index.function(id).params[p].name, &self.config.names);
        let mut witnesses = self.witnesses(id, p, reason);
        let excuses = self.excuses(id, p, reason, &witnesses);
        // A discard says that somebody knew: without a counterpart that honours the parameter it is no finding.
        let thrown = match reason {
            Some(Reason::Forwarded { .. }) => self.fate_at_the_end(id, p) == Some(Fate::Discarded),
            reason => matches!(reason, Some(Reason::Local(Fate::Discarded))),
        };
        if thrown && !witnesses.iter().any(counterpart) {
            witnesses.clear();
        }
        let order = 10 * i32::from(witnesses.iter().any(strong))
            + 3 * witnesses.len() as i32
            + match meaning {
                Meaning::Semantic => 6,
                Meaning::Numeric => 4,
                Meaning::Neutral => 2,
                Meaning::Tuning => 0,
            };
        let f = self.index.function(id);
        let public = !f.name.starts_with('_') && !matches!(reason, Some(Reason::Local(Fate::Discarded)));
        Evidence {
            meaning,
            sort: f.params[p].sort,
            optional: f.params[p].optional(),
            absent: f.params[p].may_be_absent(),
            defaulted: f.params[p].default.is_some(),
            public,
            witnesses,
            excuses,
            order,
        }
    }

    fn honouring(&self, other: FnId, name: &str) -> Option<usize> {
        let o = self.index.function(other);
        if self.index.is_fake(other) {
            return None;
        }
        param(o, name, &self.config.names)
            .filter(|(i, q)| q.kind != ParamKind::Receiver && self.effects.honours(self.index, other, *i))
            .map(|(i, _)| i)
    }

    /// The first of these functions that honours a parameter of this name, if at least half of those that take one honour
    /// it or refuse what they cannot do.
    fn most_honour(&self, members: &[FnId], name: &str) -> Option<FnId> {
        let mut first = None;
        let (mut mind, mut all) = (0usize, 0usize);
        for m in members {
            let f = self.index.function(*m);
            let Some((i, q)) = param(f, name, &self.config.names) else { continue };
            if f.traits.stub || self.index.is_fake(*m) || q.kind == ParamKind::Receiver {
                continue;
            }
            all += 1;
            if self.effects.honours(self.index, *m, i) {
                first = first.or(Some(*m));
                mind += 1;
            } else {
                mind += usize::from(q.guarded);
            }
        }
        first.filter(|_| mind * 2 >= all)
    }

    /// What becomes of the parameter where the chain of calls that it is forwarded along ends.
    fn fate_at_the_end(&self, id: FnId, p: usize) -> Option<Fate> {
        let (mut at, mut param) = (id, p);
        for _ in 0..16 {
            match self.effects.ignored(at, param)? {
                Reason::Forwarded { callee, param: next, .. } => (at, param) = (*callee, *next as usize),
                Reason::Local(fate) => return Some(*fate),
                _ => return None,
            }
        }
        None
    }

    /// The function at the end of a chain of calls is reported for what it does not do, so that whoever forwards to it is
    /// one fault with it.
    fn reported_at_the_end(&self, id: FnId, p: usize) -> bool {
        let (mut at, mut param) = (id, p);
        for _ in 0..16 {
            match self.effects.ignored(at, param) {
                Some(Reason::Forwarded { callee, param: next, .. }) => {
                    (at, param) = (*callee, *next as usize)
                }
                Some(reason) => {
                    return at != id
                        && self.reportable(at)
                        && self.evidence(at, param, Some(reason)).severity() != Severity::Note;
                }
                None => return false,
            }
        }
        false
    }

    fn witnesses(&self, id: FnId, p: usize, reason: Option<&Reason>) -> Vec<Witness> {
        let f = self.index.function(id);
        let parameter = &f.params[p];
        let mut out = Vec::new();
        let honours = |other: FnId| self.honouring(other, &parameter.name).is_some();
        if let Some(m) = self.index.families.get(&id).and_then(|m| self.most_honour(m, &parameter.name)) {
            out.push(Witness::Family(m));
        }
        let bare = parameter.name.trim_start_matches('_');
        let declares = |g: &FnSummary| g.params.iter().position(|q| q.name.trim_start_matches('_') == bare);
        // Implementations of one method are twins of each other only as far as they agree.
        let mut agree = true;
        if let Some(members) = self.index.siblings.get(&id) {
            // A signature that most implementations have no use for is a convention.
            let able: Vec<FnId> = members
                .iter()
                .copied()
                .filter(|m| {
                    let g = self.index.function(*m);
                    !g.traits.stub && !aborts(self.index, g) && declares(g).is_some()
                })
                .collect();
            let do_it: Vec<FnId> = able
                .iter()
                .copied()
                .filter(|m| {
                    declares(self.index.function(*m)).is_some_and(|i| self.effects.honours(self.index, *m, i))
                })
                .collect();
            agree = able.len() < 4 || do_it.len() * 4 >= able.len() * 3;
            if let Some(first) = do_it.first()
                && do_it.len() * 2 > able.len()
            {
                out.push(Witness::Siblings(*first, do_it.len(), able.len()));
            }
        }
        // What wraps the function is no twin of it: it may do itself what the function leaves out.
        let wraps = |other: FnId| self.wraps(other, id);
        let explicit = self.configured_pair(id).filter(|t| honours(*t));
        if let Some(t) = explicit {
            out.push(Witness::Twin(t));
        } else {
            let twins = self.index.twins(id);
            if let Some(t) = twins.iter().find(|t| honours(t.id) && !wraps(t.id)) {
                let exact: Vec<FnId> =
                    twins.iter().filter(|t| !t.near && !wraps(t.id)).map(|t| t.id).take(64).collect();
                // What one of many twins does is that one's own.
                let agreed = self.most_honour(&exact, &parameter.name).is_some();
                let telling = names::meaning(&parameter.name, &self.config.names) >= Meaning::Numeric;
                if t.near || !agreed && telling || agreed && !agree {
                    out.push(Witness::Near(t.id));
                } else if agreed {
                    out.push(Witness::Twin(t.id));
                }
            }
        }
        if parameter.documented == Documented::Promised {
            out.push(Witness::Documented);
        }
        out.extend(self.affirmed_beside(id, &parameter.name).map(Witness::Affirmed));
        if !parameter.disowned
            && let Some((i, _)) = f.params.iter().enumerate().find(|(i, q)| {
                *i != p
                    && q.guarded
                    && q.sort == Kind::Choice
                    && !names::belong_together(&q.name, &parameter.name)
            })
        {
            out.push(Witness::Refused(i));
        }
        if parameter.default.is_some()
            && let Some((caller, line)) = self.passing_caller(id, p)
        {
            out.push(Witness::Caller(caller, line));
        }
        if let Some(Reason::Forwarded { callee, param, .. }) = reason {
            let end = &self.index.function(*callee).params[*param as usize];
            if end.documented == Documented::Promised && parameter.documented == Documented::No {
                out.push(Witness::Documented);
            }
        }
        if let Some((honoured, all)) = self.effects.customs.get(parameter.name.as_str())
            && *honoured >= 4
            && honoured * 5 >= all * 4
        {
            out.push(Witness::Custom(*honoured, *all));
        }
        if parameter.stand_in.is_some() {
            out.push(Witness::Literal);
        }
        out
    }

    /// Whether `other` calls the function: by what its calls resolve to, or, where overloads leave that open, by the bare
    /// name.
    fn wraps(&self, other: FnId, id: FnId) -> bool {
        let f = self.index.function(id);
        self.index.function(other).calls.iter().enumerate().any(|(i, c)| {
            match self.effects.callee(other, i as u32) {
                Some(callee) => callee == id,
                None => {
                    let path = without_generics(&c.callee);
                    f.class.is_none()
                        && !path.contains('.')
                        && path.rsplit("::").next() == Some(f.name.as_str())
                }
            }
        })
    }

    /// A caller that passes something else than the default.
    fn passing_caller(&self, id: FnId, p: usize) -> Option<(FnId, u32)> {
        let f = self.index.function(id);
        self.effects.callers(id).iter().find_map(|(caller, call)| {
            let c = &self.index.function(*caller).calls[*call as usize];
            if *caller == id || c.handle {
                return None;
            }
            c.args
                .iter()
                .find(|a| self.index.bind(id, c, &a.slot) == Some(p))
                .filter(|a| !a.pinned && a.literal != f.params[p].default)
                .map(|_| (*caller, c.line))
        })
    }

    fn excuses(&self, id: FnId, p: usize, reason: Option<&Reason>, witnesses: &[Witness]) -> Vec<Excuse> {
        let f = self.index.function(id);
        let parameter = &f.params[p];
        let mut out = Vec::new();
        match parameter.documented {
            Documented::Ignored => out.push(Excuse::SaysSo),
            Documented::Backward => out.push(Excuse::Backward),
            Documented::Explained => out.push(Excuse::Explained),
            Documented::No | Documented::Promised => {}
        }
        if parameter.warned && matches!(reason, Some(Reason::Local(Fate::Logged))) {
            out.push(Excuse::Warned);
        }
        if let Some(c) = self.contract(id) {
            out.push(Excuse::Contract(c));
        }
        let counterpart = witnesses.iter().find_map(|w| match w {
            Witness::Family(t) | Witness::Siblings(t, ..) | Witness::Twin(t) | Witness::Near(t) => Some(*t),
            _ => None,
        });
        if let Some(q) = counterpart.and_then(|t| self.inert_beside(f, parameter, t)) {
            out.push(Excuse::Inert(q));
        }
        if let Some((_, q)) = f.params.iter().enumerate().find(|(i, q)| {
            // Where the quantised format itself is refused, its scales have nothing to scale.
            let scales = names::selects_quantisation(&q.name) && names::is_quantisation(&parameter.name);
            *i != p && q.guarded && (scales || names::belong_together(&q.name, &parameter.name))
        }) {
            out.push(Excuse::Inert(q.name.clone()));
        }
        if let Some(q) = self.carried(id, p) {
            out.push(Excuse::Carried(q));
        }
        let seen = !self.index.families.contains_key(&id) && !self.index.callbacks.contains(&id);
        if seen && self.effects.guarded_by_callers(self.index, id, p) {
            out.push(Excuse::Callers);
        }
        let callers = self.effects.callers(id);
        let verified_above =
            || !callers.is_empty() && callers.iter().all(|(c, _)| self.verified_beside(*c, &parameter.name));
        if self.verified_beside(id, &parameter.name) || verified_above() {
            out.push(Excuse::Verified);
        }
        if parameter.property {
            out.push(Excuse::Property);
        }
        let fate = match reason {
            Some(Reason::Forwarded { .. }) => self.fate_at_the_end(id, p),
            Some(Reason::Local(fate)) => Some(*fate),
            _ => None,
        };
        let telling = names::meaning(&parameter.name, &self.config.names) >= Meaning::Numeric;
        if matches!(fate, Some(Fate::Checked | Fate::Raised)) || fate == Some(Fate::Logged) && !telling {
            out.push(Excuse::Checked);
        }
        if f.traits.answers || names::is_predicate(&f.name) {
            out.push(Excuse::Answers);
        }
        if f.traits.chooses {
            out.push(Excuse::Chooses);
        }
        if f.traits.passes {
            out.push(Excuse::Passes);
        }
        if f.traits.reports {
            out.push(Excuse::Reports);
        }
        let there = counterpart.and_then(|t| {
            param(self.index.function(t), &parameter.name, &self.config.names).map(|q| (t, q.1))
        });
        if let Some((t, q)) = there {
            if q.launch || self.only_chooses(t, q) {
                out.push(Excuse::Launch);
            }
            if q.hint {
                out.push(Excuse::Hint);
            }
            if q.scratch {
                out.push(Excuse::Scratch);
            }
        }
        let own = f.params.iter().filter(|q| q.kind != ParamKind::Receiver).count();
        // What a base class does with nothing, a subclass may do with something.
        if (own >= 2 || self.index.inherited.contains(&id))
            && (0..f.params.len())
                .all(|i| f.params[i].kind == ParamKind::Receiver || self.effects.ignored(id, i).is_some())
        {
            out.push(Excuse::Idle);
        }
        out.extend(self.tuning(&parameter.name));
        if self.index.file(id).language == Language::Python && names::is_tool(&self.index.file(id).path) {
            out.push(Excuse::Tool);
        }
        if matches!(reason, Some(Reason::Forwarded { .. }))
            && witnesses.iter().all(|w| matches!(w, Witness::Custom(..)))
            && self.reported_at_the_end(id, p)
        {
            out.push(Excuse::Reported);
        }
        if let Some(Reason::Forwarded { callee, param, .. }) = reason {
            let end = self.index.function(*callee);
            let q = &end.params[*param as usize];
            if q.property {
                out.push(Excuse::Property);
            }
            if end.traits.answers {
                out.push(Excuse::Answers);
            }
            if end.traits.reports {
                out.push(Excuse::Reports);
            }
            if end.traits.chooses {
                out.push(Excuse::Chooses);
            }
        }
        out
    }

    /// Every call that gets the parameter returns a choice, such as the configuration of a launch, and nothing else reads it.
    fn only_chooses(&self, id: FnId, q: &ParamSummary) -> bool {
        q.fate == Fate::Forwarded
            && q.forwards.iter().all(|(call, _)| {
                self.effects.callee(id, *call).is_some_and(|c| self.index.function(c).traits.chooses)
            })
    }

    /// What a name that sizes or tunes excuses.
    pub fn tuning(&self, name: &str) -> Option<Excuse> {
        let tuning = names::meaning(name, &self.config.names) == Meaning::Tuning;
        let measure =
            names::is_measure(name) && !names::divides_work(name) && !self.config.names.is_perf(name);
        tuning.then_some(if measure { Excuse::Measure } else { Excuse::Tuning })
    }

    /// Why the signature is not the function's choice.
    pub fn contract(&self, id: FnId) -> Option<Contract> {
        let f = self.index.function(id);
        if f.traits.device {
            return Some(Contract::Kernel);
        }
        if f.traits.nested {
            return Some(Contract::Nested);
        }
        if self.index.layers.contains(&id) {
            return Some(Contract::Layer);
        }
        if self.index.overridden.contains_key(&id) {
            return Some(Contract::Hook);
        }
        if self.index.overrides.contains(&id) || f.traits.interface {
            return Some(Contract::Override);
        }
        let registers = |(path, args): &(String, super::source::DecoratorArgs)| {
            let last = path.rsplit('.').next().unwrap_or(path);
            names::words(path)
                .iter()
                .any(|w| matches!(w.as_str(), "register" | "registers" | "registry" | "implements" | "hook"))
                || !args.is_empty() && matches!(last, "impl" | "override" | "lowering" | "handles" | "rule")
        };
        if f.decorators.iter().any(registers) {
            return Some(Contract::Registered);
        }
        if self.index.callbacks.contains(&id) {
            let called = !self.effects.callers(id).is_empty();
            return Some(if called { Contract::Callback } else { Contract::Handed });
        }
        if self.index.stands_in_for_handed(id) {
            return Some(Contract::Handed);
        }
        self.index.protocols.contains(&id).then_some(Contract::Protocol)
    }

    /// In the counterpart, every read of the parameter stands under another one, which is refused here.
    fn inert_beside(&self, f: &FnSummary, parameter: &ParamSummary, counterpart: FnId) -> Option<String> {
        let t = self.index.function(counterpart);
        let (_, theirs) = param(t, &parameter.name, &self.config.names)?;
        theirs.under.iter().find_map(|q| {
            let name = &t.params[*q as usize].name;
            let (_, own) = param(f, name, &self.config.names)?;
            (own.guarded && own.name != parameter.name).then(|| own.name.clone())
        })
    }

    /// Another operand, which is used, says what the parameter says: the same values on the host, the tensor of which it
    /// is a length or a stride, cumulative lengths.
    fn carried(&self, id: FnId, p: usize) -> Option<String> {
        let f = self.index.function(id);
        let name = &f.params[p].name;
        f.params.iter().enumerate().find_map(|(i, q)| {
            (i != p
                && q.kind != ParamKind::Receiver
                && names::carries(&q.name, name)
                && self.effects.honours(self.index, id, i))
            .then(|| q.name.clone())
        })
    }

    /// Whether the class has a method that decides when this one is called: one that looks at the parameter
    /// (`can_forward(x)` beside `forward(x)`), or one that says of what the parameter is about whether it is supported
    /// (`supports_mask` beside `apply(mask)`). A method that says yes to everything decides nothing.
    fn verified_beside(&self, id: FnId, parameter: &str) -> bool {
        let f = self.index.function(id);
        let about = names::words(parameter);
        self.index.beside(id).into_iter().any(|m| {
            let g = self.index.function(m);
            let decides = g.traits.answers || names::is_predicate(&g.name);
            if g.name == f.name || !decides {
                return false;
            }
            let looks = g.name.contains(&f.name)
                && g.params.iter().any(|q| q.name == parameter && q.fate == Fate::Used);
            let words = names::words(&g.name);
            let says = !g.affirms
                && names::is_predicate(&g.name)
                && !about.is_empty()
                && about.iter().all(|w| words.contains(w));
            looks || says
        })
    }

    /// A method beside this one whose name is about the parameter, and that says yes to everything.
    fn affirmed_beside(&self, id: FnId, parameter: &str) -> Option<FnId> {
        let about = names::words(parameter);
        self.index.beside(id).into_iter().find(|m| {
            let g = self.index.function(*m);
            let words = names::words(&g.name);
            g.affirms
                && names::is_predicate(&g.name)
                && !about.is_empty()
                && about.iter().all(|w| words.contains(w))
        })
    }

    fn configured_pair(&self, id: FnId) -> Option<FnId> {
        if self.config.pairs.is_empty() {
            return None;
        }
        let name = self.index.dotted(id);
        let pairs = &self.config.pairs;
        let other = pairs
            .get(&name)
            .cloned()
            .or_else(|| pairs.iter().find(|(_, v)| **v == name).map(|(k, _)| k.clone()))?;
        self.index.by_dotted(&other)
    }
}

fn counterpart(w: &Witness) -> bool {
    matches!(w, Witness::Family(_) | Witness::Siblings(..) | Witness::Twin(_) | Witness::Near(_))
}
