//! The rules, one file each. A rule's documentation is the comment at the top of its file, which
//! `lint --explain` prints.

use super::config::Level;
use super::effects::Reason;
use super::evidence::{Context, Evidence};
use super::finding::{Finding, Place, Severity};
use super::index::FnId;
use super::ir::ParamKind;
use super::names::Meaning;

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
    pub severity: Severity,
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
        out.push(Finding {
            rule: s.rule.code,
            severity: s.severity,
            path: file.path.clone(),
            line,
            column,
            function: f.qualname.clone(),
            parameter: p.name.clone(),
            message: s.message,
            help: s.help,
            confidence: s.evidence.confidence(),
            score: s.evidence.score,
            fingerprint,
            callee: s.callee.map(str::to_owned),
            twin: s.twin.map(|t| self.index.dotted(t)),
            related: s.related,
            code_flow: s.code_flow,
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

    /// Ignored parameters of functions that are worth reporting, in the order of the source.
    pub fn suspects(&self) -> Vec<(FnId, usize, &Reason)> {
        let mut all: Vec<_> = self
            .effects
            .all()
            .filter(|(id, p, _)| {
                let f = self.index.function(*id);
                let param = &f.params[*p];
                !matches!(param.kind, ParamKind::Receiver | ParamKind::VarArgs | ParamKind::KwArgs)
                    && !param.name.is_empty()
                    && self.reportable(*id)
            })
            .collect();
        all.sort_by_key(|(id, p, _)| (*id, *p));
        all
    }

    /// Severity of a parameter that its own function ignores, without a counterpart that honours it.
    pub fn alone(&self, e: &Evidence) -> Severity {
        if e.meaning >= Meaning::Numeric && e.score >= 3 { Severity::Warning } else { Severity::Note }
    }

    /// Reports the suspects of one local rule: those with this reason and no honouring counterpart.
    pub fn local(
        &self,
        rule: &'static Rule,
        out: &mut Vec<Finding>,
        wanted: impl Fn(&Reason) -> bool,
        message: impl Fn(&str, &str) -> String,
    ) {
        for (id, param, reason) in self.suspects() {
            if !wanted(reason) {
                continue;
            }
            let e = self.evidence(id, param, Some(reason));
            if e.twin.is_some() || e.family.is_some() {
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
            let mut text = message(&p.name, &f.qualname);
            self.describe(&e, id, param, &mut text);
            self.report(
                Suspect {
                    id,
                    param,
                    rule,
                    severity: self.alone(&e),
                    at: None,
                    message: text,
                    help: help(&p.name),
                    callee: None,
                    twin: None,
                    related,
                    code_flow: Vec::new(),
                    evidence: e,
                },
                out,
            );
        }
    }

    /// Adds what makes the case stronger.
    pub fn describe(&self, e: &Evidence, id: FnId, param: usize, text: &mut String) {
        let f = self.index.function(id);
        if e.documented {
            text.push_str("; its documentation promises it");
        }
        if e.sibling_guarded
            && let Some(q) = f.params.iter().enumerate().find(|(i, q)| *i != param && q.guarded)
        {
            text.push_str(&format!("; `{}` is checked, `{}` is not", q.1.name, f.params[param].name));
        }
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
