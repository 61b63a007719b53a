//! The arguments of `#[accuracy_test(..)]`.

use crate::errors::Errors;
use crate::pattern;
use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::HashSet;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, ExprLit, Lit, LitStr, RangeLimits, Token, UnOp, token};

const KEYS: &str = "checkpoint, weights, tokens, archs, activations, min_cos, memory, seed, known_failure, nondeterministic, benign";

/// Names that stand in a case's identity or in `known_failure` by themselves.
pub const RESERVED: [&str; 6] = ["arch", "check", "fuzz", "parameter", "reason", "tokens"];

/// The largest number of tokens: launchers take 32-bit sizes.
const MAX_TOKENS: u64 = i32::MAX as u64;

pub struct Attribute {
    pub checkpoint: Option<String>,
    pub weights: Vec<Role>,
    pub tokens: Vec<usize>,
    /// First and last of the token counts from which cases are drawn.
    pub fuzz: Option<(usize, usize)>,
    /// Architectures that the test is for; none: for all of them.
    pub archs: Vec<String>,
    pub activations: Option<String>,
    pub min_cos: Option<f64>,
    /// Bytes of device memory that a case needs.
    pub memory: Option<u64>,
    pub seed: u64,
    pub known_failures: Vec<KnownFailure>,
    pub nondeterministic: Option<(String, f64)>,
    /// Kinds of the emulator's findings that do no harm, with the reasons.
    pub benign: Vec<(String, String)>,
}

/// A weight by the name that the test knows it by.
pub struct Role {
    pub name: Ident,
    pub pattern: String,
}

pub struct KnownFailure {
    pub arch: Option<String>,
    /// Axis and label, not yet compared with those of the function.
    pub at: Vec<(Ident, Expr)>,
    pub reason: String,
}

/// `key = value`, `key(..)`.
pub struct Entry {
    pub key: Ident,
    pub value: Value,
}

pub enum Value {
    Assigned(TokenStream),
    List(TokenStream),
}

impl Entry {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let Ok(key) = input.call(Ident::parse_any) else {
            return Err(input.error("expected a name here, as in `name = value`"));
        };
        if input.peek(token::Paren) {
            let group: Group = input.parse()?;
            if !input.is_empty() {
                return Err(input.error("expected `,`"));
            }
            return Ok(Entry { key, value: Value::List(group.stream()) });
        }
        if !input.peek(Token![=]) {
            let tokens = key.to_token_stream();
            return Err(syn::Error::new_spanned(tokens, format!("`{key}` needs a value: `{key} = ..`")));
        }
        let equals: Token![=] = input.parse()?;
        let value: TokenStream = input.parse()?;
        if value.is_empty() {
            return Err(syn::Error::new_spanned(equals, format!("expected a value for `{key}` after `=`")));
        }
        Ok(Entry { key, value: Value::Assigned(value) })
    }
}

/// The entries of a comma-separated list, each parsed by itself so that one mistake does not hide the next.
pub fn entries(tokens: TokenStream, errors: &mut Errors) -> Vec<Entry> {
    let mut pieces = vec![TokenStream::new()];
    for tree in tokens {
        match &tree {
            TokenTree::Punct(comma) if comma.as_char() == ',' => {
                if pieces.last().is_some_and(TokenStream::is_empty) {
                    errors.at(comma, "expected a name before this comma");
                }
                pieces.push(TokenStream::new());
            }
            _ => pieces.last_mut().unwrap_or(&mut TokenStream::new()).extend([tree]),
        }
    }
    pieces
        .into_iter()
        .filter(|piece| !piece.is_empty())
        .filter_map(|piece| errors.ok(Parser::parse2(Entry::parse, piece)))
        .collect()
}

/// `key = value`: the value's tokens, or an error that shows the right form.
pub fn assigned(entry: &Entry, example: &str, errors: &mut Errors) -> Option<TokenStream> {
    match &entry.value {
        Value::Assigned(value) => Some(value.clone()),
        Value::List(_) => {
            errors.at(&entry.key, format!("write `{} = {example}`", entry.key));
            None
        }
    }
}

fn list(entry: &Entry, example: &str, errors: &mut Errors) -> Option<TokenStream> {
    match &entry.value {
        Value::List(inside) => Some(inside.clone()),
        Value::Assigned(_) => {
            errors.at(&entry.key, format!("write `{}({example})`", entry.key));
            None
        }
    }
}

pub fn parse(tokens: TokenStream, errors: &mut Errors) -> Attribute {
    let mut attribute = Attribute {
        checkpoint: None,
        weights: Vec::new(),
        tokens: vec![1, 33, 128],
        fuzz: None,
        archs: Vec::new(),
        activations: None,
        min_cos: None,
        memory: None,
        seed: 0,
        known_failures: Vec::new(),
        nondeterministic: None,
        benign: Vec::new(),
    };
    let mut seen = HashSet::new();
    let (mut checkpoint_key, mut weights_key) = (None, None);
    for entry in entries(tokens, errors) {
        let key = &entry.key;
        let name = key.to_string();
        if !matches!(&*name, "known_failure" | "benign") && !seen.insert(name.clone()) {
            errors.at(key, format!("`{name}` is given twice"));
            continue;
        }
        match name.as_str() {
            "checkpoint" => {
                attribute.checkpoint = text(&entry, "\"shards/tiny\"", errors);
                checkpoint_key = Some(entry.key);
            }
            "weights" => {
                attribute.weights = weights(&entry, errors);
                weights_key = Some(entry.key);
            }
            "tokens" => match token_counts(&entry, errors) {
                Some(Tokens::Listed(list)) => attribute.tokens = list,
                Some(Tokens::Drawn { first, last }) => {
                    attribute.tokens = vec![LISTED_BESIDE_DRAWN.clamp(first, last)];
                    attribute.fuzz = Some((first, last));
                }
                None => {}
            },
            "archs" => attribute.archs = archs_list(&entry, errors).unwrap_or_default(),
            "activations" => attribute.activations = activations(&entry, errors),
            "min_cos" => {
                let range = |x: f64| x > 0.0 && x <= 1.0;
                attribute.min_cos = number(&entry, "0.9995", "a cosine above 0 and at most 1", range, errors);
            }
            "memory" => attribute.memory = memory(&entry, errors),
            "seed" => attribute.seed = seed(&entry, errors).unwrap_or(0),
            "known_failure" => attribute.known_failures.extend(known_failure(&entry, errors)),
            "nondeterministic" => attribute.nondeterministic = nondeterministic(&entry, errors),
            "benign" => attribute.benign.extend(benign(&entry, errors)),
            _ => errors.at(key, format!("`{name}` is no key of accuracy_test; known are {KEYS}")),
        }
    }
    match (checkpoint_key, weights_key) {
        (None, Some(key)) => {
            errors.at(key, "weights come from a checkpoint: add `checkpoint = \"<folder or file>\"`")
        }
        (Some(key), None) => errors
            .at(key, "nothing is read from this checkpoint: add `weights = { w = \"<module pattern>\" }`"),
        _ => {}
    }
    attribute
}

/// A string that is not empty.
fn text(entry: &Entry, example: &str, errors: &mut Errors) -> Option<String> {
    let value = assigned(entry, example, errors)?;
    let Ok(literal) = syn::parse2::<LitStr>(value.clone()) else {
        errors.at(value, format!("`{}` takes a string, such as {example}", entry.key));
        return None;
    };
    if literal.value().trim().is_empty() {
        errors.at(literal, format!("`{}` is empty", entry.key));
        return None;
    }
    Some(literal.value())
}

fn activations(entry: &Entry, errors: &mut Errors) -> Option<String> {
    let value = text(entry, "\"recorded.safetensors#tensor\"", errors)?;
    match value.split_once('#') {
        Some((file, tensor)) if file.ends_with(".safetensors") && !tensor.is_empty() => Some(value),
        _ => {
            if let Value::Assigned(tokens) = &entry.value {
                errors
                    .at(tokens, "expected a file and a tensor in it, as in \"recorded.safetensors#tensor\"");
            }
            None
        }
    }
}

/// A number literal, negative ones included so that the error can speak of the range.
fn number(
    entry: &Entry,
    example: &str,
    what: &str,
    range: impl Fn(f64) -> bool,
    errors: &mut Errors,
) -> Option<f64> {
    let value = assigned(entry, example, errors)?;
    match syn::parse2::<Expr>(value.clone()).ok().as_ref().and_then(number_literal) {
        Some(x) if range(x) => Some(x),
        _ => {
            errors.at(value, format!("`{}` takes {what}, such as {example}", entry.key));
            None
        }
    }
}

fn number_literal(expr: &Expr) -> Option<f64> {
    match peel(expr) {
        Expr::Lit(ExprLit { lit: Lit::Float(x), .. }) => x.base10_parse().ok(),
        Expr::Lit(ExprLit { lit: Lit::Int(x), .. }) => x.base10_parse().ok(),
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => number_literal(&unary.expr).map(|x| -x),
        _ => None,
    }
}

/// Without the invisible group that a `macro_rules` fragment stands in.
pub fn peel(expr: &Expr) -> &Expr {
    match expr {
        Expr::Group(group) => peel(&group.expr),
        expr => expr,
    }
}

fn integer(expr: &Expr) -> Option<u64> {
    match peel(expr) {
        Expr::Lit(ExprLit { lit: Lit::Int(x), .. }) => x.base10_parse().ok(),
        _ => None,
    }
}

fn seed(entry: &Entry, errors: &mut Errors) -> Option<u64> {
    let value = assigned(entry, "7", errors)?;
    let seed = syn::parse2::<Expr>(value.clone()).ok().as_ref().and_then(integer);
    if seed.is_none() {
        errors.at(value, "`seed` takes an integer of 64 bits without a sign, such as 7");
    }
    seed
}

/// What `tokens` says.
enum Tokens {
    Listed(Vec<usize>),
    Drawn { first: usize, last: usize },
}

/// The token count that a test has beside those that are drawn: whether it could see each fault is shown by a listed case,
/// and checks that compare two paths have one. It is no multiple of a tile.
const LISTED_BESIDE_DRAWN: usize = 33;

fn token_counts(entry: &Entry, errors: &mut Errors) -> Option<Tokens> {
    let example = "[1, 33, 128]";
    let value = assigned(entry, example, errors)?;
    let array = match syn::parse2::<Expr>(value.clone()).map(|expr| peel(&expr).clone()) {
        Ok(Expr::Array(array)) => array,
        Ok(Expr::Call(call)) if matches!(&*call.func, Expr::Path(path) if path.path.is_ident("fuzz")) => {
            let range = match (call.args.first(), call.args.len()) {
                (Some(range), 1) => token_range(range),
                _ => None,
            };
            if range.is_none() {
                errors.at(
                    call,
                    format!(
                        "`fuzz` takes a range of token counts from 1 to {MAX_TOKENS}, such as fuzz(1..=4096)"
                    ),
                );
            }
            return range.map(|(first, last)| Tokens::Drawn { first, last });
        }
        _ => {
            errors.at(
                value,
                format!("`tokens` takes a list of numbers, such as {example}, or a range to draw from, such as fuzz(1..=4096)"),
            );
            return None;
        }
    };
    if array.elems.is_empty() {
        errors.at(value, "`tokens` is empty: no cell would run");
        return None;
    }
    let mut list = Vec::new();
    for element in &array.elems {
        let n = integer(element).filter(|n| (1..=MAX_TOKENS).contains(n));
        match n.and_then(|n| usize::try_from(n).ok()) {
            Some(n) if list.contains(&n) => errors.at(element, format!("{n} stands twice in `tokens`")),
            Some(n) => list.push(n),
            None => errors.at(element, format!("a number of tokens is an integer from 1 to {MAX_TOKENS}")),
        }
    }
    Some(Tokens::Listed(list))
}

/// First and last of a range of token counts that is not empty.
fn token_range(expr: &Expr) -> Option<(usize, usize)> {
    let Expr::Range(range) = peel(expr) else { return None };
    let first = integer(range.start.as_deref()?)?;
    let end = integer(range.end.as_deref()?)?;
    let last = if matches!(range.limits, RangeLimits::Closed(_)) { end } else { end.checked_sub(1)? };
    let within = first >= 1 && first <= last && last <= MAX_TOKENS;
    within.then(|| Some((usize::try_from(first).ok()?, usize::try_from(last).ok()?))).flatten()
}

fn archs_list(entry: &Entry, errors: &mut Errors) -> Option<Vec<String>> {
    let example = "[\"gfx942\", \"gfx950\"]";
    let value = assigned(entry, example, errors)?;
    let Ok(Expr::Array(array)) = syn::parse2::<Expr>(value.clone()) else {
        errors.at(value, format!("`archs` takes a list of architectures, such as {example}"));
        return None;
    };
    if array.elems.is_empty() {
        errors.at(value, "`archs` is empty: no cell would run");
        return None;
    }
    let mut list = Vec::new();
    for element in &array.elems {
        match element {
            Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) if list.contains(&name.value()) => {
                errors.at(element, format!("{:?} stands twice in `archs`", name.value()));
            }
            Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) if !name.value().trim().is_empty() => {
                list.push(name.value());
            }
            _ => errors.at(element, "an architecture is a string, such as \"gfx942\""),
        }
    }
    Some(list)
}

fn weights(entry: &Entry, errors: &mut Errors) -> Vec<Role> {
    let example = "{ w = \"model.layers.{layer}.mlp.up_proj\" }";
    let Some(value) = assigned(entry, example, errors) else { return Vec::new() };
    let mut trees = value.clone().into_iter();
    let inside = match (trees.next(), trees.next()) {
        (Some(TokenTree::Group(group)), None) if group.delimiter() == proc_macro2::Delimiter::Brace => {
            group.stream()
        }
        _ => {
            errors.at(value, format!("`weights` takes roles with their patterns, such as {example}"));
            return Vec::new();
        }
    };
    if inside.is_empty() {
        errors.at(value, "`weights` names no role");
        return Vec::new();
    }
    let mut roles: Vec<Role> = Vec::new();
    // The first role ranges over tensors, a later one must be decided by what the first captured.
    let mut first: Option<Vec<String>> = None;
    for entry in entries(inside, errors) {
        let name = entry.key.unraw();
        if RESERVED.contains(&name.to_string().as_str()) {
            errors.at(
                &entry.key,
                format!("`{name}` has a meaning of its own in a case's identity: rename the role"),
            );
        }
        if roles.iter().any(|role| role.name == name) {
            errors.at(&entry.key, format!("role `{name}` is given twice"));
        }
        let example = "\"model.layers.{layer}.mlp.up_proj\"";
        let Some(value) = assigned(&entry, example, errors) else { continue };
        let Ok(literal) = syn::parse2::<LitStr>(value.clone()) else {
            errors.at(value, format!("a role takes a pattern, such as {example}"));
            continue;
        };
        let pattern = literal.value();
        match pattern::captures(&pattern) {
            Err(why) => errors.at(&literal, why),
            Ok(names) => match &first {
                None => first = Some(names.into_iter().map(String::from).collect()),
                Some(first) => {
                    for unknown in names.iter().filter(|n| !first.iter().any(|f| f == *n)) {
                        let known = match &first[..] {
                            [] => "which captures nothing".into(),
                            names => format!("which captures {}", names.join(", ")),
                        };
                        errors.at(
                            &literal,
                            format!("`{{{unknown}}}` is not captured by the first role, {known}: it would not say which tensor goes with which"),
                        );
                    }
                }
            },
        }
        roles.push(Role { name, pattern });
    }
    roles
}

/// `"24 GiB"` as bytes.
fn memory(entry: &Entry, errors: &mut Errors) -> Option<u64> {
    const UNITS: [(&str, u64); 3] = [("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let value = assigned(entry, "\"24 GiB\"", errors)?;
    let bytes = |text: &str| {
        let (unit, scale) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        let bytes = number * *scale as f64;
        (bytes >= 1.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
    };
    let bytes = syn::parse2::<LitStr>(value.clone()).ok().and_then(|literal| bytes(literal.value().trim()));
    if bytes.is_none() {
        errors.at(value, "`memory` takes a size in MiB, GiB or TiB, such as \"24 GiB\"");
    }
    bytes
}

fn known_failure(entry: &Entry, errors: &mut Errors) -> Option<KnownFailure> {
    let inside = list(entry, "arch = \"gfx942\", reason = \"..\"", errors)?;
    let mut known = KnownFailure { arch: None, at: Vec::new(), reason: String::new() };
    let mut seen = HashSet::new();
    for entry in entries(inside, errors) {
        if !seen.insert(entry.key.to_string()) {
            errors.at(&entry.key, format!("`{}` is given twice", entry.key));
            continue;
        }
        match entry.key.to_string().as_str() {
            "arch" => known.arch = text(&entry, "\"gfx942\"", errors),
            "reason" => known.reason = text(&entry, "\"..\"", errors).unwrap_or_default(),
            _ => {
                let Some(value) = assigned(&entry, "<label>", errors) else { continue };
                known.at.extend(errors.ok(syn::parse2::<Expr>(value)).map(|value| (entry.key, value)));
            }
        }
    }
    if !seen.contains("reason") {
        errors.at(&entry.key, "a known failure needs a reason: add `reason = \"..\"`");
    }
    Some(known)
}

/// The findings of the emulator that a test can declare to be benign, as reports name them.
const FINDINGS: [&str; 7] =
    ["out_of_bounds", "uninitialised", "race", "missing_wait", "barrier", "divergence", "erratum"];

/// Gives `take` each key of a list such as `benign(..)` that is known there, once, and returns those that were given.
fn keys_of(
    list: &str,
    inside: TokenStream,
    known: [&str; 2],
    errors: &mut Errors,
    mut take: impl FnMut(&Entry, &str, &mut Errors),
) -> HashSet<String> {
    let mut seen = HashSet::new();
    for entry in entries(inside, errors) {
        let key = entry.key.to_string();
        if !seen.insert(key.clone()) {
            errors.at(&entry.key, format!("`{key}` is given twice"));
        } else if known.contains(&&*key) {
            take(&entry, &key, errors);
        } else {
            errors.at(&entry.key, format!("`{key}` is no key of {list}; known are {}", known.join(", ")));
        }
    }
    seen
}

fn benign(entry: &Entry, errors: &mut Errors) -> Option<(String, String)> {
    let inside = list(entry, "finding = \"missing_wait\", reason = \"..\"", errors)?;
    let (mut finding, mut reason) = (None, None);
    let seen = keys_of("benign", inside, ["finding", "reason"], errors, |entry, key, errors| match key {
        "finding" => {
            finding = text(entry, "\"missing_wait\"", errors).map(|name| (entry.key.clone(), name));
        }
        _ => reason = text(entry, "\"..\"", errors),
    });
    for needed in ["finding", "reason"].into_iter().filter(|key| !seen.contains(*key)) {
        errors.at(&entry.key, format!("say which finding does no harm, and why: add `{needed} = \"..\"`"));
    }
    let (key, finding) = finding?;
    if !FINDINGS.contains(&&*finding) {
        errors.at(&key, format!("`{finding}` is no finding; known are {}", FINDINGS.join(", ")));
        return None;
    }
    Some((finding, reason?))
}

fn nondeterministic(entry: &Entry, errors: &mut Errors) -> Option<(String, f64)> {
    let inside = list(entry, "reason = \"..\", bound = 1e-3", errors)?;
    let (mut reason, mut bound) = (None, None);
    let seen =
        keys_of("nondeterministic", inside, ["reason", "bound"], errors, |entry, key, errors| match key {
            "reason" => reason = text(entry, "\"..\"", errors),
            _ => {
                let range = |x: f64| x > 0.0 && x.is_finite();
                bound = number(entry, "1e-3", "a relative L2 above 0", range, errors);
            }
        });
    if !seen.contains("reason") {
        errors.at(&entry.key, "say why repeats may differ: add `reason = \"..\"`");
    }
    if !seen.contains("bound") {
        errors.at(&entry.key, "say by which relative L2 repeats may differ: add `bound = 1e-3`");
    }
    Some((reason?, bound?))
}
