//! The annotated function: what it may look like, and the axes that its parameters are.

use crate::attribute::{Attribute, RESERVED, peel};
use crate::cells::{self, Axis, AxisKind, MAX_CELLS};
use crate::csv;
use crate::errors::Errors;
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use std::collections::HashSet;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, ExprLit, FnArg, ItemFn, Lit, LitStr, Meta, Pat, PatType, ReturnType, Safety, Token, Type};

/// One axis with the tokens of its values.
pub struct Parameter {
    pub axis: Axis,
    pub ty: Type,
    /// An expression for each label.
    pub values: Vec<TokenStream>,
    /// The file that they come from, relative to the package.
    pub file: Option<LitStr>,
}

/// Checks the function and takes the axes' attributes off its parameters.
pub fn parse(function: &mut ItemFn, errors: &mut Errors) -> Vec<Parameter> {
    check_signature(function, errors);
    check_attributes(function, errors);
    let mut inputs = function.sig.inputs.iter_mut();
    match inputs.next() {
        None => errors.at(
            &function.sig.ident,
            "the first parameter is the case: `cx: &mut Case`; this function has none",
        ),
        Some(FnArg::Receiver(receiver)) => {
            errors.at(receiver, "a method cannot be an accuracy test: make it a function")
        }
        Some(FnArg::Typed(first)) => {
            let attributes = std::mem::take(&mut first.attrs);
            match attributes.iter().find(|a| kind(a).is_some()) {
                Some(attribute) => {
                    errors.at(attribute, "the first parameter is the case, `cx: &mut Case`, and no axis")
                }
                None if !is_mutable_reference(&first.ty) => {
                    errors.at(&first.ty, "the first parameter is the case: `&mut Case`")
                }
                None => {}
            }
            first.attrs = attributes.into_iter().filter(|a| kind(a).is_none()).collect();
        }
    }
    let mut names = HashSet::new();
    let mut parameters = Vec::new();
    for input in inputs {
        if let FnArg::Typed(typed) = input
            && let Some(parameter) = parameter(typed, errors)
        {
            if !names.insert(parameter.axis.name.clone()) {
                errors.at(&typed.pat, format!("parameter `{}` is given twice", parameter.axis.name));
            }
            parameters.push(parameter);
        }
    }
    parameters
}

fn is_mutable_reference(ty: &Type) -> bool {
    match ty {
        Type::Group(group) => is_mutable_reference(&group.elem),
        Type::Reference(reference) => reference.mutability.is_some(),
        _ => false,
    }
}

fn check_signature(function: &ItemFn, errors: &mut Errors) {
    let sig = &function.sig;
    if let Some(token) = &sig.asyncness {
        errors.at(token, "an accuracy test cannot be async");
    }
    if let Some(token) = &sig.constness {
        errors.at(token, "an accuracy test cannot be const");
    }
    match &sig.safety {
        Safety::Unsafe(token) => errors.at(
            token,
            "an accuracy test cannot be unsafe: put `unsafe { .. }` around the calls of launchers",
        ),
        Safety::Safe(token) => errors.at(token, "`safe` has no place here"),
        Safety::Default => {}
    }
    if let Some(abi) = &sig.abi {
        errors.at(abi, "an accuracy test is a Rust function: remove the ABI");
    }
    if !sig.generics.params.is_empty() {
        errors.at(&sig.generics, "an accuracy test cannot be generic: an axis is a parameter with values");
    }
    if let Some(clause) = &sig.generics.where_clause {
        errors.at(clause, "an accuracy test cannot have a where clause");
    }
    if let Some(variadic) = &sig.variadic {
        errors.at(variadic, "an accuracy test cannot be variadic");
    }
    if let ReturnType::Default = sig.output {
        errors.at(&sig.ident, "an accuracy test returns its last output: add `-> Result<Tensor>`");
    }
    if sig.ident != sig.ident.unraw() {
        errors.at(&sig.ident, "the tests stand in a module of this name: choose one that is no keyword");
    }
}

fn check_attributes(function: &mut ItemFn, errors: &mut Errors) {
    function.attrs.retain(|attribute| {
        let conditional = attribute.path().is_ident("cfg_attr").then(|| {
            attribute
                .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
                .map(|metas| metas.into_iter().skip(1).collect::<Vec<_>>())
                .unwrap_or_default()
        });
        let mut keep = true;
        for meta in conditional.unwrap_or_else(|| vec![attribute.meta.clone()]) {
            let Some(last) = meta.path().segments.last().map(|s| s.ident.to_string()) else { continue };
            let message = match last.as_str() {
                "ignore" => {
                    "an accuracy test is not ignored: say `known_failure(.., reason = \"..\")`, whose success is reported"
                }
                "should_panic" => "say `known_failure(.., reason = \"..\")` for what is expected to fail",
                "test" => "accuracy_test makes the `#[test]`s by itself: remove this",
                "accuracy_test" => "accuracy_test is given twice",
                _ => continue,
            };
            errors.at(&meta, message);
            keep = false;
        }
        keep
    });
}

fn kind(attribute: &syn::Attribute) -> Option<AxisKind> {
    AxisKind::ALL.into_iter().find(|kind| attribute.path().is_ident(kind.name()))
}

/// One parameter behind the case, its attributes taken off but for those on lints.
fn parameter(typed: &mut PatType, errors: &mut Errors) -> Option<Parameter> {
    let mut axis = None;
    let mut kept = Vec::new();
    let mut wrong = false;
    for attribute in std::mem::take(&mut typed.attrs) {
        let path = attribute.path();
        if let Some(kind) = kind(&attribute) {
            if let Some((_, first)) = &axis {
                let first: &syn::Attribute = first;
                errors
                    .at(&attribute, format!("a parameter is one axis: it has `#[{}]` already", name(first)));
            } else {
                axis = Some((kind, attribute));
            }
        } else if ["allow", "expect", "warn", "deny", "forbid"].iter().any(|lint| path.is_ident(lint)) {
            kept.push(attribute);
        } else {
            wrong = true;
            errors.at(
                &attribute,
                format!(
                    "`#[{}]` is no attribute of a parameter; known are variants, paths, values, perf",
                    name(&attribute)
                ),
            );
        }
    }
    typed.attrs = kept;
    let Pat::Ident(pattern) = &*typed.pat else {
        errors.at(&typed.pat, "an axis needs a plain name: it stands in the identity of each case");
        return None;
    };
    if pattern.by_ref.is_some() || pattern.subpat.is_some() {
        errors.at(pattern, "an axis needs a plain name: it stands in the identity of each case");
    }
    let ident = pattern.ident.unraw();
    if RESERVED.contains(&ident.to_string().as_str()) {
        errors.at(
            &pattern.ident,
            format!("`{ident}` has a meaning of its own in a case's identity: rename the parameter"),
        );
    }
    if let Type::ImplTrait(ty) = &*typed.ty {
        errors.at(ty, "a parameter needs a type of its own, such as the binding's alias");
    }
    let Some((kind, attribute)) = axis else {
        if !wrong {
            errors.at(
                &*typed,
                format!(
                    "parameter `{ident}` needs its values: one of `#[variants(..)]`, `#[paths(..)]`, `#[values(..)]`, `#[perf(..)]`"
                ),
            );
        }
        return None;
    };
    let (file, values) = match &attribute.meta {
        Meta::List(list)
            if matches!(kind, AxisKind::Values | AxisKind::Perf) && csv::is_meant(&list.tokens) =>
        {
            let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
            let read = csv::read(list.tokens.clone(), package.as_ref(), errors)?;
            let at = read.file.to_token_stream();
            let values = read.values.into_iter().map(|(label, value)| (label, at.clone(), value)).collect();
            (Some(read.file), values)
        }
        _ => (None, values(kind, &attribute, errors)?),
    };
    let mut labels: Vec<String> = Vec::new();
    let mut tokens = Vec::new();
    for (label, at, value) in values {
        if labels.contains(&label) {
            errors.at(at, format!("`{label}` stands twice in `#[{}]`", kind.name()));
            continue;
        }
        labels.push(label);
        tokens.push(value);
    }
    let axis = Axis { name: ident.to_string(), kind, labels };
    Some(Parameter { axis, ty: (*typed.ty).clone(), values: tokens, file })
}

fn name(attribute: &syn::Attribute) -> String {
    attribute.path().to_token_stream().to_string().replace(' ', "")
}

/// Label, the tokens that it was written as, and the value's expression.
type Labelled = (String, TokenStream, TokenStream);

fn values(kind: AxisKind, attribute: &syn::Attribute, errors: &mut Errors) -> Option<Vec<Labelled>> {
    let example = match kind {
        AxisKind::Variants => "variants(E4M3FN, E4M3FNUZ)",
        AxisKind::Paths => "paths(primary = f, fallback = g)",
        AxisKind::Values => "values(false, true)",
        AxisKind::Perf => "perf(64, 128)",
    };
    let Meta::List(list) = &attribute.meta else {
        errors.at(attribute, format!("write `#[{example}]`"));
        return None;
    };
    if list.tokens.is_empty() {
        errors.at(attribute, format!("`#[{}]` is empty: write `#[{example}]`", kind.name()));
        return None;
    }
    if kind == AxisKind::Paths {
        return paths(attribute, errors);
    }
    let listed = errors.ok(attribute.parse_args_with(Punctuated::<Expr, Token![,]>::parse_terminated))?;
    let mut values = Vec::new();
    for value in listed {
        let tokens = value.to_token_stream();
        if kind == AxisKind::Variants {
            let Some(format) = plain_name(&value) else {
                errors.at(&value, "expected the name of a number format, such as E4M3FN");
                continue;
            };
            values.push((variant_label(format), tokens.clone(), quote!(::accuracy_core::dtype::#format)));
        } else {
            let label = label(&value);
            if label.is_empty() || label.chars().any(char::is_control) {
                errors.at(&value, "an empty or unprintable value cannot stand in the identity of a case");
            }
            values.push((label, tokens.clone(), tokens));
        }
    }
    Some(values)
}

/// `primary = f`
struct PathValue {
    label: Ident,
    function: Expr,
}

impl Parse for PathValue {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let Ok(label) = input.call(Ident::parse_any) else {
            return Err(input.error("expected a path's name here, as in `fallback = g`"));
        };
        if !input.peek(Token![=]) {
            return Err(syn::Error::new_spanned(
                &label,
                format!("path `{label}` needs its function: `{label} = f`"),
            ));
        }
        let equals: Token![=] = input.parse()?;
        if input.is_empty() || input.peek(Token![,]) {
            return Err(syn::Error::new_spanned(
                equals,
                format!("expected the function of path `{label}` after `=`"),
            ));
        }
        Ok(PathValue { label, function: input.parse()? })
    }
}

fn paths(attribute: &syn::Attribute, errors: &mut Errors) -> Option<Vec<Labelled>> {
    let listed = errors.ok(attribute.parse_args_with(Punctuated::<PathValue, Token![,]>::parse_terminated))?;
    let mut seen = HashSet::new();
    let mut values = Vec::new();
    for PathValue { label, function } in listed {
        let tokens = function.to_token_stream();
        // A comparison of a function with itself finds nothing.
        if !seen.insert(tokens.to_string()) {
            errors.at(&function, "this function is a path already: compared with itself it shows nothing");
        }
        values.push((label.unraw().to_string(), label.to_token_stream(), tokens));
    }
    Some(values)
}

fn plain_name(expr: &Expr) -> Option<&Ident> {
    match peel(expr) {
        Expr::Path(path) if path.attrs.is_empty() => path.path.get_ident(),
        _ => None,
    }
}

fn variant_label(format: &Ident) -> String {
    format.to_string().to_lowercase()
}

/// A value as its label: the text of its tokens without spaces, a string without its quotes.
fn label(expr: &Expr) -> String {
    match peel(expr) {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => text.value(),
        expr => expr.to_token_stream().to_string().split_whitespace().collect(),
    }
}

/// What only attribute and function together can tell: axes and labels of known failures, clashes, size.
pub fn check_matrix(function: &ItemFn, attribute: &Attribute, parameters: &[Parameter], errors: &mut Errors) {
    for role in &attribute.weights {
        if parameters.iter().any(|p| role.name == p.axis.name) {
            errors.at(
                &role.name,
                format!(
                    "`{}` is both a role and a parameter: the identity of a case needs them apart",
                    role.name
                ),
            );
        }
    }
    let has_parameter = |name: &Ident| {
        function.sig.inputs.iter().skip(1).any(
            |input| matches!(input, FnArg::Typed(typed) if matches!(&*typed.pat, Pat::Ident(p) if p.ident == *name)),
        )
    };
    let listed = |names: Vec<&str>| if names.is_empty() { "none".into() } else { names.join(", ") };
    for known in &attribute.known_failures {
        for (name, value) in &known.at {
            let Some(parameter) = parameters.iter().find(|p| *name == p.axis.name) else {
                // A parameter that could not be read has its own error.
                if !has_parameter(name) {
                    let axes = listed(parameters.iter().map(|p| p.axis.name.as_str()).collect());
                    errors.at(name, format!("`{name}` is no parameter of this function; known are arch, reason and the parameters: {axes}"));
                }
                continue;
            };
            let label = axis_label(&parameter.axis, value);
            if !parameter.axis.labels.contains(&label) {
                let labels = listed(parameter.axis.labels.iter().map(String::as_str).collect());
                errors.at(value, format!("`{name}` has no value `{label}`; it has {labels}"));
            }
        }
    }
    let axes: Vec<Axis> = parameters.iter().map(|p| p.axis.clone()).collect();
    let count = cells::count(&axes, &attribute.tokens);
    if count > MAX_CELLS {
        errors.at(
            &function.sig.ident,
            format!(
                "this matrix has {count} cells, at most {MAX_CELLS} are allowed: split it or drop values"
            ),
        );
    }
}

/// Whether a function takes N and K from `cx.shape()`, as in `let (m, n, k) = cx.shape()?;`: then it follows a slice of its
/// weight. A name that begins with `_` is not used.
pub fn takes_shape(body: TokenStream) -> (bool, bool) {
    let trees: Vec<TokenTree> = body.into_iter().collect();
    let mut takes = (false, false);
    for (i, tree) in trees.iter().enumerate() {
        let TokenTree::Group(group) = tree else { continue };
        let inside = takes_shape(group.stream());
        takes = (takes.0 || inside.0, takes.1 || inside.1);
        let is = |at: usize, text: &str| trees.get(at).is_some_and(|tree| tree.to_string() == text);
        let asks = i > 0 && is(i - 1, "let") && is(i + 1, "=") && is(i + 3, ".") && is(i + 4, "shape");
        if !asks {
            continue;
        }
        let names: Vec<TokenTree> = group.stream().into_iter().collect();
        let parts = names.split(|tree| tree.to_string() == ",");
        let used: Vec<bool> =
            parts.map(|part| part.last().is_some_and(|name| !name.to_string().starts_with('_'))).collect();
        if let [_, n, k, ..] = used[..] {
            takes = (takes.0 || n, takes.1 || k);
        }
    }
    takes
}

/// The label that a value stands for on an axis.
pub fn axis_label(axis: &Axis, value: &Expr) -> String {
    match (axis.kind, plain_name(value)) {
        (AxisKind::Variants, Some(format)) => variant_label(format),
        _ => label(value),
    }
}
