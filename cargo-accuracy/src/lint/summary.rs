//! From a file's text to its [`FileSummary`]: picks the front end, runs the flow analysis on each function
//! and keeps what the repository-wide stage needs.

use super::flow;
use super::ir::{Expr, Function, Stmt};
use super::source::{
    ClassSummary, Documented, Fate, Fault, FileSummary, FnSummary, Kind, Language, Lines, Module,
    ParamSummary, check_nesting,
};
use super::{cpp, ignores, python, rust};

/// Parses and analyses one file. The error says why the file cannot be read.
pub fn summarise(
    path: &str,
    text: &str,
    language: Language,
    guards: &[String],
) -> Result<FileSummary, Fault> {
    check_nesting(text, language)?;
    let build = |module: &Module| collect(path, text, language, module, guards);
    match language {
        Language::Python => python::with_module(text, build),
        Language::Cpp => cpp::with_module(text, build).map_err(Fault::from),
        Language::Rust => rust::with_module(text, build),
    }
}

fn collect(path: &str, text: &str, language: Language, module: &Module, guards: &[String]) -> FileSummary {
    let lines = Lines::new(text);
    let own =
        |v: &[super::ir::Import]| v.iter().map(|i| (i.local.to_owned(), i.path.clone())).collect::<Vec<_>>();
    FileSummary {
        path: path.to_owned(),
        language,
        functions: module.functions.iter().map(|f| function(f, text, &lines, language, guards)).collect(),
        classes: module
            .classes
            .iter()
            .map(|c| ClassSummary {
                name: c.name.clone(),
                bases: c.bases.clone(),
                methods: c.methods.iter().map(|m| (*m).to_owned()).collect(),
            })
            .collect(),
        imports: own(&module.imports),
        aliases: own(&module.aliases),
        tables: module.tables.iter().map(|t| t.members.clone()).collect(),
        fakes: module.fakes.clone(),
        macros: module
            .macros
            .iter()
            .map(|(n, ids)| ((*n).to_owned(), ids.iter().map(|i| (*i).to_owned()).collect()))
            .collect(),
        declarations: module
            .declarations
            .iter()
            .map(|(n, p)| ((*n).to_owned(), p.iter().map(|i| (*i).to_owned()).collect()))
            .collect(),
        references: module.references.clone(),
        attributes_read: module.attributes_read.iter().map(|a| (*a).to_owned()).collect(),
        ignores: ignores::scan(text, language == Language::Python),
    }
}

fn function(f: &Function, text: &str, lines: &Lines, language: Language, guards: &[String]) -> FnSummary {
    let analysis = flow::analyse(f, guards);
    let mut params: Vec<ParamSummary> = f
        .params
        .iter()
        .zip(analysis.params)
        .map(|(p, flow)| {
            let (line, column) = lines.locate(p.offset);
            ParamSummary {
                name: p.name.to_owned(),
                kind: p.kind,
                default: p.default.map(str::to_owned),
                annotation: p.annotation.map(|a| a.chars().take(120).collect()),
                line,
                column,
                offset: p.offset,
                disowned: p.disowned,
                documented: match flow.witness {
                    Some(_)
                        if matches!(flow.fate, Fate::Discarded | Fate::Logged)
                            && discarded_with_reason(f, text, p.name) =>
                    {
                        Documented::Ignored
                    }
                    Some(_) if flow.fate == Fate::Discarded && gives_reason(f, text, p.name) => {
                        Documented::Explained
                    }
                    _ => documented(f, text, p),
                },
                sort: Kind::of(language, p.default, p.annotation),
                fate: flow.fate,
                guarded: flow.guarded,
                shapes: flow.shapes,
                under: flow.under,
                equal: flow.equal,
                property: flow.property,
                launch: flow.launch,
                hint: flow.hint,
                scratch: flow.scratch,
                warned: flow.warned,
                forwards: flow.forwards,
                stand_in: None,
                carriers: if language == Language::Cpp { flow.carriers } else { Vec::new() },
                witness: flow.witness.map(|o| lines.locate(o).0),
            }
        })
        .collect();
    let suspicious = params.iter().any(|p| p.fate.ignored());
    let identifiers = if language == Language::Cpp && suspicious && !f.traits.stub {
        let found = identifiers(text.get(f.body_start as usize..f.end as usize).unwrap_or(""));
        for p in &mut params {
            let named = found.iter().any(|w| *w == p.name);
            // The parser stumbled over something that names it.
            let unsure = f.traits.damaged
                && matches!(
                    p.fate,
                    Fate::DeadEnd | Fate::Checked | Fate::Raised | Fate::Logged | Fate::Overwritten
                );
            if named && (unsure || p.fate == Fate::NeverRead) {
                p.fate = Fate::Used;
            }
            if p.fate == Fate::NeverRead {
                p.stand_in = stand_in(text, f.body_start as usize..f.end as usize, &p.name)
                    .map(|(offset, literal)| (lines.locate(offset).0, literal));
            }
        }
        found.into_iter().map(str::to_owned).collect()
    } else {
        Vec::new()
    };
    let calls = analysis
        .calls
        .into_iter()
        .map(|mut c| {
            (c.line, c.column) = lines.locate(c.offset);
            c
        })
        .collect();
    FnSummary {
        name: f.name.to_owned(),
        qualname: f.qualname.clone(),
        class: f.class.map(str::to_owned),
        line: lines.locate(f.start).0,
        end_line: lines.locate(f.end).0,
        traits: super::ir::Traits {
            answers: answers(f, language) || analysis.answers && !f.traits.stub,
            reports: analysis.reports,
            passes: analysis.passes && !f.traits.stub,
            chooses: chooses(f, language) || analysis.chooses && !f.traits.stub,
            ..f.traits
        },
        only_macro: only_macro(f, text),
        affirms: affirms(f, text),
        namespace: f.namespace.clone(),
        returns: f.returns.map(|r| r.chars().take(80).collect()),
        decorators: f
            .decorators
            .iter()
            .map(|d| {
                (
                    d.path.clone(),
                    d.args.iter().map(|(k, v)| (k.map(str::to_owned), (*v).to_owned())).collect(),
                )
            })
            .collect(),
        imports: f.imports.iter().map(|i| (i.local.to_owned(), i.path.clone())).collect(),
        params,
        calls,
        drops: analysis.drops,
        identifiers,
        opaque: analysis.opaque,
        references: analysis.references,
        stored: analysis.stored,
    }
}

/// What the documentation says of a parameter: the text from each mention of its name to the end of that paragraph or
/// entry, and the comment beside its declaration.
fn documented(f: &Function, text: &str, p: &super::ir::Param) -> Documented {
    let beside = text.get(p.offset as usize..).and_then(|t| t.lines().next()).unwrap_or("");
    let comment = beside.split_once(['#']).or(beside.split_once("//"));
    if let Some((code, comment)) = comment
        && commas(code) <= 1
        && says_ignored(comment)
    {
        return Documented::Ignored;
    }
    if heading(f, text, p).is_some_and(says_ignored) {
        return Documented::Ignored;
    }
    let Some(doc) = f.doc.filter(|_| p.name.len() >= 2) else { return Documented::No };
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut found = Documented::No;
    for (i, _) in doc.match_indices(p.name) {
        let rest = &doc[i + p.name.len()..];
        if word(doc[..i].chars().next_back()) || word(rest.chars().next()) {
            continue;
        }
        let entry = entry(rest, f);
        if says_ignored(entry) {
            return Documented::Ignored;
        }
        let backward = entry.contains("backward") && !f.name.contains("backward") && !f.name.contains("bwd");
        if backward {
            found = Documented::Backward;
        } else if found == Documented::No {
            found = Documented::Promised;
        }
    }
    found
}

/// The comment on a line of its own above a declaration: it speaks of the parameters below it up to the next such comment.
fn heading<'t>(f: &Function, text: &'t str, p: &super::ir::Param) -> Option<&'t str> {
    let before = text.get(f.start as usize..p.offset as usize)?;
    let comment = |line: &'t str| {
        let line = line.trim_start();
        line.strip_prefix('#').or_else(|| line.strip_prefix("//"))
    };
    // The last of the lines is the beginning of the parameter's own.
    before.rsplit('\n').skip(1).take_while(|line| !line.trim().is_empty()).take(40).find_map(comment)
}

/// Commas outside of brackets: a comment in a line that declares several parameters speaks of none of them alone.
fn commas(code: &str) -> usize {
    let mut depth = 0i32;
    code.chars()
        .filter(|c| {
            depth +=
                i32::from(matches!(c, '(' | '[' | '{' | '<')) - i32::from(matches!(c, ')' | ']' | '}' | '>'));
            *c == ',' && depth <= 0
        })
        .count()
}

/// Whether the comment above or beside a statement that discards says that this is meant.
fn discarded_with_reason(f: &Function, text: &str, name: &str) -> bool {
    comments_of_discard(f, text, name).into_iter().any(says_ignored)
}

/// Whether a comment of some words stands above or beside the statement that discards a parameter.
fn gives_reason(f: &Function, text: &str, name: &str) -> bool {
    let words = |c: &str| c.split_whitespace().filter(|w| w.chars().any(char::is_alphabetic)).count();
    comments_of_discard(f, text, name).into_iter().any(|c| words(c) >= 3)
}

/// The comments above and beside the statement that discards a parameter, without their marks.
fn comments_of_discard<'t>(f: &Function, text: &'t str, name: &str) -> Vec<&'t str> {
    let body = text.get(f.body_start as usize..f.end as usize).unwrap_or("");
    let discards = |line: &str| {
        let line = line.trim_start();
        let thrown =
            ["(void)", "del ", "_ = ", "static_cast<void>"].iter().find_map(|s| line.strip_prefix(s));
        let code = thrown.map(|t| t.split('#').next().unwrap_or(t).split("//").next().unwrap_or(t));
        code.is_some_and(|c| c.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == name))
    };
    let mut at = 0;
    let found = body.split_inclusive('\n').find_map(|line| {
        let start = at;
        at += line.len();
        discards(line).then_some(start)
    });
    let Some(at) = found else { return Vec::new() };
    let (before, rest) = body.split_at(at);
    let rest = rest.lines().next().unwrap_or("");
    let beside = rest.split_once("//").or(rest.split_once('#')).map_or("", |c| c.1);
    // What follows the last line break is the statement itself.
    let lines = before.rsplit('\n').skip(1);
    let above = lines
        .map(str::trim)
        .take_while(|l| {
            l.starts_with("//") || l.starts_with('#') || l.starts_with('*') || l.starts_with("(void)")
        })
        .take(6)
        .filter(|l| !l.starts_with("(void)"))
        .map(|l| l.trim_start_matches(['/', '#', '*']));
    std::iter::once(beside).chain(above).collect()
}

/// The part of a documentation that belongs to a mention: up to the next paragraph or the next entry of a list of
/// parameters.
fn entry<'d>(rest: &'d str, f: &Function) -> &'d str {
    let mut end = 0;
    for line in rest.split_inclusive('\n') {
        let start = line.trim_start_matches([' ', '\t', '/', '*', '-', ':', '@', '`', '\\']);
        let tagged = start.strip_prefix("param ").or(start.strip_prefix("param[in] "));
        let start = tagged.unwrap_or(start);
        let word = start.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or("");
        // A name within a sentence begins no entry: `x` and `y` are ignored.
        let after = start.get(word.len()..).unwrap_or("").trim_start_matches(['`', '*', ' ']);
        let begins = tagged.is_some() || after.starts_with([':', '(', '[', '-', '\u{2013}', '=']);
        let next = end > 0 && (start.trim().is_empty() || begins && f.params.iter().any(|p| p.name == word));
        if next || end > 400 {
            break;
        }
        end += line.len();
    }
    rest.get(..end.min(600)).unwrap_or(rest.get(..end).unwrap_or(rest))
}

/// Words by which a documentation says that a parameter has no effect.
fn says_ignored(text: &str) -> bool {
    const WORDS: [&str; 17] = [
        "no-op",
        "noop",
        "unsupported",
        "not supported",
        "not implemented",
        "ignored",
        "unused",
        "not used",
        "no effect",
        "compatibility",
        "compat)",
        "parity",
        "placeholder",
        "reserved for",
        "not read",
        "kept for",
        "dummy",
    ];
    let lower = text.to_lowercase();
    WORDS.iter().any(|w| lower.contains(w)) || lower.contains("matches the") && lower.contains("signature")
}

/// The declared result is a truth value, and there is nothing to write to.
fn answers(f: &Function, language: Language) -> bool {
    match (f.returns, language) {
        (Some(r), Language::Cpp) => r == "bool" && !f.params.iter().any(|p| p.output || writable(p)),
        (Some(r), _) => r == "bool" || r.starts_with("tuple[bool") || r.starts_with("Tuple[bool"),
        (None, _) => false,
    }
}

/// A C++ parameter that results can be written through.
fn writable(p: &super::ir::Param) -> bool {
    p.annotation.is_some_and(|a| a.contains('*') && !a.contains("const")) || p.output
}

/// The declared result is numbers, names or a plan. A function that computes returns tensors, or nothing where it
/// writes through what it is given.
fn chooses(f: &Function, language: Language) -> bool {
    let Some(r) = f.returns else { return false };
    let r = r.trim();
    match language {
        Language::Python => {
            let scalars = ["int", "str", "dict", "Dict", "bool", "tuple", "Tuple", "list", "List"];
            let words = r
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .filter(|w| !w.is_empty() && !w.chars().all(|c| c.is_ascii_digit()));
            let mut n = 0;
            words
                .inspect(|_| n += 1)
                .all(|w| scalars.contains(&w) || matches!(w, "Any" | "None" | "Optional"))
                && n > 0
                && !matches!(r, "None" | "Any" | "dict" | "Dict" | "list" | "tuple")
        }
        Language::Cpp => {
            let plain = !r.contains('*') && !r.contains('&');
            let computes =
                ["Tensor", "tensor", "array", "void", "auto", "Error", "Status", "status", "Result"];
            // A macro before the return type hides it.
            let shouted = r.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            let status = matches!(r, "int" | "bool" | "int32_t") || shouted;
            plain
                && !status
                && !computes.iter().any(|c| r.contains(c))
                && !f.traits.device
                && !f.params.iter().any(|p| p.output || writable(p))
                && !matches!(r, "float" | "double" | "half" | "T" | "__half" | "bf16" | "__nv_bfloat16")
        }
        Language::Rust => matches!(r, "usize" | "u32" | "u64" | "i32" | "String" | "&str" | "&'static str"),
    }
}

/// Whether all that a function does is to return true.
fn affirms(f: &Function, text: &str) -> bool {
    // The body of a Python function that returns a constant is not kept.
    let constant = f.traits.stub
        && text
            .get(f.start as usize..text.len().min(f.end as usize + 1))
            .or_else(|| text.get(f.start as usize..f.end as usize))
            .is_some_and(|t| t.trim_end().ends_with("return True"));
    constant || matches!(f.body.as_slice(), [Stmt::Return(Some(Expr::Lit("True" | "true")))])
}

/// The macro that a body consists of: `{ NOT_BUILT("gemm"); }`.
fn only_macro(f: &Function, text: &str) -> Option<String> {
    let body = text.get(f.body_start as usize..f.end as usize)?;
    let body = body.trim().strip_prefix('{')?.trim_start();
    let end = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
    let (name, rest) = body.split_at(end);
    let single = rest.trim_start().starts_with('(')
        && rest
            .rsplit_once(')')
            .is_some_and(|(_, tail)| tail.trim_matches([' ', ';', '}', '\n', '\r', '\t']).is_empty())
        && rest.matches(';').count() <= 1;
    let shouted =
        name.len() > 2 && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    (single && shouted).then(|| name.to_owned())
}

/// A literal argument beside a comment that consists of the parameter's name: `false, // deterministic`.
fn stand_in(text: &str, body: std::ops::Range<usize>, name: &str) -> Option<(u32, String)> {
    if name.len() < 3 {
        return None;
    }
    let mut offset = body.start;
    for line in text.get(body)?.split_inclusive('\n') {
        if let Some((code, comment)) = line.split_once("//")
            && comment.trim() == name
        {
            let literal = code.trim().trim_end_matches(',').trim();
            let is_literal = matches!(literal, "true" | "false" | "nullptr" | "std::nullopt" | "{}")
                || literal.starts_with(|c: char| c.is_ascii_digit() || c == '-')
                    && !literal.contains(['(', ' ']);
            if is_literal {
                return Some((offset as u32, literal.to_owned()));
            }
        }
        offset += line.len();
    }
    None
}

/// Identifiers of a C++ body outside comments, members (`x.name`) left out.
fn identifiers(body: &str) -> Vec<&str> {
    let b = body.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < b.len() {
        match b[i] {
            b'/' if b.get(i + 1) == Some(&b'/') => {
                while i < b.len() && b[i] != b'\n' {
                    i += 1;
                }
            }
            b'/' if b.get(i + 1) == Some(&b'*') => {
                i += 2;
                while i < b.len() && !(b[i] == b'*' && b.get(i + 1) == Some(&b'/')) {
                    i += 1;
                }
                i += 2;
            }
            b'"' => {
                i += 1;
                while i < b.len() && b[i] != b'"' && b[i] != b'\n' {
                    i += if b[i] == b'\\' { 2 } else { 1 };
                }
                i += 1;
            }
            c if c.is_ascii_alphabetic() || c == b'_' => {
                let start = i;
                while i < b.len() && (b[i].is_ascii_alphanumeric() || b[i] == b'_') {
                    i += 1;
                }
                let member = start > 0 && b[start - 1] == b'.'
                    || start > 1 && b[start - 1] == b'>' && b[start - 2] == b'-';
                if !member {
                    out.push(&body[start..i]);
                }
            }
            c if c.is_ascii_digit() => {
                while i < b.len() && (b[i].is_ascii_alphanumeric() || b[i] == b'_' || b[i] == b'.') {
                    i += 1;
                }
            }
            _ => i += 1,
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// FNV-1a: short and stable over versions, for fingerprints.
pub fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
