//! From a file's text to its [`FileSummary`]: picks the front end, runs the flow analysis on each function
//! and keeps what the repository-wide stage needs.

use super::flow;
use super::ir::Function;
use super::source::{
    ClassSummary, Fate, FileSummary, FnSummary, Language, Lines, Module, ParamSummary, check_nesting,
};
use super::{cpp, ignores, python, rust};

/// Parses and analyses one file. The error says why the file cannot be read.
pub fn summarise(
    path: &str,
    text: &str,
    language: Language,
    guards: &[String],
) -> Result<FileSummary, String> {
    check_nesting(text, language)?;
    let build = |module: &Module| collect(path, text, language, module, guards);
    match language {
        Language::Python => python::with_module(text, build),
        Language::Cpp => cpp::with_module(text, build),
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
                documented: f.doc.is_some_and(|d| mentions(d, p.name)),
                fate: flow.fate,
                guarded: flow.guarded,
                shapes: flow.shapes,
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
        traits: f.traits,
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

/// `name` occurs in `text` as a word.
fn mentions(text: &str, name: &str) -> bool {
    if name.len() < 2 {
        return false;
    }
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(name)
        .any(|(i, _)| !word(text[..i].chars().next_back()) && !word(text[i + name.len()..].chars().next()))
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
