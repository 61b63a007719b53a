//! The rules, one file each. A rule's documentation is the comment at the top of its file, which
//! `lint --explain` prints.

use super::config::Level;
use super::effects::Reason;
use super::evidence::{Context, Contract, Evidence, Excuse, Witness};
use super::finding::{Finding, Place, Severity, Shown};
use super::index::FnId;

mod sp001;
mod sp002;
mod sp003;
mod sp004;
mod sp005;
mod sp006;
mod sp007;
mod sp101;
mod sp102;
mod sp103;
mod sp201;
mod sp202;
mod sp203;
mod sp204;
mod sp205;
mod sp206;

pub struct Rule {
    pub code: &'static str,
    /// Reads after "allow".
    pub name: &'static str,
    pub summary: &'static str,
    pub level: Level,
    /// Precision for SARIF: high, medium or low.
    pub precision: &'static str,
    pub source: &'static str,
    pub check: fn(&Context, &mut Vec<Finding>),
}

pub const ALL: &[&Rule] = &[
    &sp001::RULE,
    &sp002::RULE,
    &sp003::RULE,
    &sp004::RULE,
    &sp005::RULE,
    &sp006::RULE,
    &sp007::RULE,
    &sp101::RULE,
    &sp102::RULE,
    &sp103::RULE,
    &sp201::RULE,
    &sp202::RULE,
    &sp203::RULE,
    &sp204::RULE,
    &sp205::RULE,
    &sp206::RULE,
];

pub fn by_code(code: &str) -> Option<&'static Rule> {
    ALL.iter().find(|r| r.code.eq_ignore_ascii_case(code) || r.name.eq_ignore_ascii_case(code)).copied()
}

impl Rule {
    /// The documentation: the `//!` lines of the rule's file.
    pub fn documentation(&self) -> String {
        self.source
            .lines()
            .take_while(|l| l.starts_with("//!"))
            .map(|l| l.trim_start_matches("//!").strip_prefix(' ').unwrap_or(l.trim_start_matches("//!")))
            .fold(String::new(), |mut out, l| {
                out.push_str(l);
                out.push('\n');
                out
            })
    }
}

/// One suspected parameter, as a rule hands it over.
pub struct Suspect<'a> {
    pub id: FnId,
    pub param: usize,
    pub rule: &'static Rule,
    /// Where it shows; the parameter itself by default.
    pub at: Option<(u32, u32)>,
    pub message: String,
    pub help: String,
    pub callee: Option<&'a str>,
    pub twin: Option<FnId>,
    pub related: Vec<Place>,
    pub code_flow: Vec<Place>,
    pub evidence: Evidence,
}

impl Context<'_> {
    pub fn report(&self, s: Suspect, out: &mut Vec<Finding>) {
        let f = self.index.function(s.id);
        let file = self.index.file(s.id);
        let p = &f.params[s.param];
        let (line, column) = s.at.unwrap_or((p.line, p.column));
        let fingerprint = format!(
            "{:016x}",
            super::summary::fnv(&format!(
                "{}|{}|{}|{}|{}",
                s.rule.code,
                file.path,
                f.qualname,
                p.name,
                s.callee.unwrap_or("")
            ))
        );
        let severity = s.evidence.severity();
        let shown = self.shown(&s);
        let mut message = s.message;
        for (i, d) in shown.disagrees.iter().enumerate() {
            if !matches!(
                s.evidence.witnesses[i],
                Witness::OtherArm | Witness::CalleeHas | Witness::Default | Witness::Literal
            ) {
                message.push_str("; ");
                message.push_str(d);
            }
        }
        if severity == Severity::Note
            && let Some(why) = shown.excuses.first()
        {
            message.push_str("; but ");
            message.push_str(why);
        }
        out.push(Finding {
            rule: s.rule.code,
            severity,
            path: file.path.clone(),
            line,
            column,
            function: f.qualname.clone(),
            parameter: p.name.clone(),
            message,
            help: s.help,
            confidence: s.evidence.confidence(),
            evidence: shown,
            order: s.evidence.order * 10 + s.evidence.meaning as i32,
            fingerprint,
            callee: s.callee.map(str::to_owned),
            twin: s.twin.map(|t| self.index.dotted(t)),
            related: s.related,
            code_flow: s.code_flow,
            apart: None,
            confirmed: false,
            suppressed: None,
            span: (f.line, f.end_line),
            twin_span: s.twin.map(|t| {
                let o = self.index.function(t);
                (self.index.file(t).path.clone(), o.line, o.end_line)
            }),
        });
    }

    pub fn place(&self, id: FnId, param: Option<usize>, message: String) -> Place {
        let f = self.index.function(id);
        let path = self.index.file(id).path.clone();
        let (line, column) = param.map_or((f.line, 1), |p| (f.params[p].line, f.params[p].column));
        Place { path, line, column, message }
    }

    pub fn call_place(&self, id: FnId, call: u32, message: String) -> Place {
        let f = self.index.function(id);
        let c = &f.calls[call as usize];
        Place { path: self.index.file(id).path.clone(), line: c.line, column: c.column, message }
    }

    /// Reports the suspects of one local rule: those with this reason and no honouring counterpart.
    pub fn local(
        &self,
        rule: &'static Rule,
        out: &mut Vec<Finding>,
        wanted: impl Fn(&Reason) -> bool,
        message: impl Fn(&str, &str) -> String,
    ) {
        for (id, param, reason, e) in &self.suspects {
            let (id, param) = (*id, *param);
            if !wanted(reason) {
                continue;
            }
            if e.twin().is_some() || e.family().is_some() {
                continue;
            }
            let f = self.index.function(id);
            let p = &f.params[param];
            let mut related = Vec::new();
            if let Some(line) = p.witness {
                related.push(Place {
                    path: self.index.file(id).path.clone(),
                    line,
                    column: 1,
                    message: format!("all that happens to `{}`", p.name),
                });
            }
            self.report(
                Suspect {
                    id,
                    param,
                    rule,
                    at: None,
                    message: message(&p.name, &f.qualname),
                    help: help(&p.name),
                    callee: None,
                    twin: None,
                    related,
                    code_flow: Vec::new(),
                    evidence: e.clone(),
                },
                out,
            );
        }
    }

    /// A function of a message: by its name, and by its file where the name is that of the function at hand.
    pub fn named(&self, id: FnId, beside: FnId) -> String {
        let (f, g) = (self.index.function(id), self.index.function(beside));
        if f.qualname == g.qualname {
            format!("`{}` in {}", f.qualname, self.index.file(id).path)
        } else {
            format!("`{}`", f.qualname)
        }
    }

    fn witness(&self, w: &Witness, id: FnId, param: usize) -> String {
        let f = self.index.function(id);
        let p = &f.params[param].name;
        match w {
            Witness::Family(t) => format!("{} of the same dispatch honours it", self.named(*t, id)),
            Witness::Siblings(t, n, all) => {
                let of =
                    if *all == 1 { String::new() } else { format!(" ({n} of {all} implementations do)") };
                format!("{} honours it{of}", self.named(*t, id))
            }
            Witness::Twin(t) => format!("its twin {} honours it", self.named(*t, id)),
            Witness::Near(t) => format!("{}, which does the same job, honours it", self.named(*t, id)),
            Witness::Documented => "its documentation promises it".to_owned(),
            Witness::Refused(q) => format!("`{}` is checked, `{p}` is not", f.params[*q].name),
            Witness::Caller(c, line) => {
                format!("`{}` (line {line}) passes it", self.index.function(*c).qualname)
            }
            Witness::Custom(n, all) => {
                format!("{n} of {all} functions here that take a `{p}` honour it")
            }
            Witness::Affirmed(m) => {
                format!("`{}` says that it is supported", self.index.function(*m).qualname)
            }
            Witness::Literal => "a literal stands in its place".to_owned(),
            Witness::Asked => "the configuration asks for it".to_owned(),
            Witness::OtherArm => "another path hands it on".to_owned(),
            Witness::Default | Witness::CalleeHas => "the function that is called here has it".to_owned(),
        }
    }

    fn shown(&self, s: &Suspect) -> Shown {
        Shown {
            proven: s.message.clone(),
            disagrees: s.evidence.witnesses.iter().map(|w| self.witness(w, s.id, s.param)).collect(),
            excuses: s.evidence.excuses.iter().map(excuse).collect(),
            kind: s.evidence.sort,
        }
    }
}

/// An excuse in words.
fn excuse(e: &Excuse) -> String {
    match e {
        Excuse::SaysSo => "its documentation says that it is ignored".to_owned(),
        Excuse::Contract(c) => match c {
            Contract::Override => "the signature is that of the method it overrides",
            Contract::Hook => "a subclass overrides the method",
            Contract::Layer => "unrelated classes share the signature",
            Contract::Protocol => "several classes share the signature",
            Contract::Callback => "the function is passed around as a value",
            Contract::Handed => "the function is only passed on as a value, for another's signature",
            Contract::Registered => "the function is registered for another's signature",
            Contract::Kernel => "it is a kernel, and its launcher decides what it gets",
            Contract::Nested => "it is a local function",
        }
        .to_owned(),
        Excuse::Inert(q) => format!("it belongs to `{q}`, which is refused here"),
        Excuse::Carried(q) => format!("`{q}` carries it"),
        Excuse::Callers => "every caller fixes it or leaves it at its default".to_owned(),
        Excuse::Verified => "a check beside the function looks at it first".to_owned(),
        Excuse::Property => "its properties are checked".to_owned(),
        Excuse::Answers => "the function only answers a question".to_owned(),
        Excuse::Chooses => "the function returns a choice, no data".to_owned(),
        Excuse::Reports => "the function only writes to the log".to_owned(),
        Excuse::Scratch => "where it is honoured it is memory to work in".to_owned(),
        Excuse::Backward => "its documentation says that it concerns the backward pass".to_owned(),
        Excuse::Warned => "a warning in the log says so".to_owned(),
        Excuse::Explained => "a comment gives a reason".to_owned(),
        Excuse::Passes => "the function returns what it is given".to_owned(),
        Excuse::Launch => "where it is honoured it configures a launch".to_owned(),
        Excuse::Tuning => "it tunes a launch or belongs to the machinery around it".to_owned(),
        Excuse::Measure => "it is a measure: a count, a stride, an offset".to_owned(),
        Excuse::Tool => "the file is a tool beside the product".to_owned(),
        Excuse::Mode(q) if q.is_empty() => "in this mode there is none of it".to_owned(),
        Excuse::Mode(q) => format!("on this path `{q}` says that there is none"),
        Excuse::Checked => "it is only shown or checked".to_owned(),
        Excuse::Reported => "the function that ignores it is reported itself".to_owned(),
        Excuse::Hint => "where it is honoured it is a hint".to_owned(),
        Excuse::Idle => "the function looks at none of its parameters".to_owned(),
        Excuse::Fixed => "the call passes a value of its own choice".to_owned(),
        Excuse::Internal => "the function is internal, and this callee has no such parameter".to_owned(),
        Excuse::Steps => "the two calls are steps of one job".to_owned(),
        Excuse::Unlike => "the two calls have little in common".to_owned(),
    }
}

/// The fix, in every message.
pub fn help(param: &str) -> String {
    format!("implement `{param}`, forward it, or raise when it is not the default")
}

/// What a reason says about a parameter, in words.
pub fn describe_reason(reason: &Reason) -> &'static str {
    use super::source::Fate;
    match reason {
        Reason::Local(Fate::NeverRead) => "never reads it",
        Reason::Local(Fate::Discarded) => "discards it",
        Reason::Local(Fate::Overwritten) => "overwrites it before any read",
        Reason::Local(Fate::Logged) => "only logs it",
        Reason::Local(Fate::Raised) => "only names it in an error",
        Reason::Local(Fate::Checked) => "only checks it",
        Reason::Local(Fate::DeadEnd) => "computes something from it that goes nowhere",
        Reason::Local(_) => "ignores it",
        Reason::Recursion => "only passes it to itself",
        Reason::Forwarded { .. } => "only forwards it to functions that ignore it",
        Reason::Swallowed { .. } => "passes it on as a keyword that is swallowed",
    }
}

/// A callee as it is written in messages.
pub fn short(callee: &str) -> &str {
    if callee.is_empty() { "the call" } else { callee.trim_start_matches("?.") }
}
