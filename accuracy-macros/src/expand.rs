//! What `#[accuracy_test]` turns a function into.
//!
//! Beside the function: one that picks the arguments of a cell by their indices and calls it, in the user's own
//! scope, and a module of the function's name with the metadata, one static table entry and a thin `#[test]` for
//! each cell. What is written once for each cell decides how long a matrix takes to compile.

use crate::attribute::{self, Attribute};
use crate::cells::{self, Axis, Cell};
use crate::errors::Errors;
use crate::function::{self, Parameter, axis_label};
use crate::json;
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{FnArg, ItemFn, ReturnType};

pub fn accuracy_test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let mut function = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.at_span(error.span(), format!("accuracy_test goes on a function: {error}"));
            let errors = errors.to_tokens();
            return quote!(#errors #item);
        }
    };
    let attribute = attribute::parse(attribute, &mut errors);
    let parameters = function::parse(&mut function, &mut errors);
    function::check_matrix(&function, &attribute, &parameters, &mut errors);
    if !errors.is_empty() {
        // Without the function every use of it would be one more error, as a const one with a body that is not.
        function.sig.constness = None;
        let errors = errors.to_tokens();
        return quote!(#errors #[cfg(test)] #function);
    }
    let axes: Vec<Axis> = parameters.iter().map(|p| p.axis.clone()).collect();
    let cells = cells::cells(&axes, &attribute.tokens);
    let body = body(&function, &attribute, &axes, &cells);
    expand(&function, &parameters, &cells, &body)
}

/// The user's place for the editor and for errors, the macro's context so that lints leave it alone.
fn at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

fn expand(function: &ItemFn, parameters: &[Parameter], cells: &[Cell], body: &str) -> TokenStream {
    let name = &function.sig.ident;
    let cfgs: Vec<_> = function.attrs.iter().filter(|a| a.path().is_ident("cfg")).collect();
    let call = format_ident!("__{name}_call", span = Span::call_site());
    let call_fn = call_fn(function, parameters, &call);
    let module = Ident::new(&name.to_string(), at(name.span()));
    // `line!` is that of its own token.
    let line = quote_spanned!(name.span()=> ::core::line!());
    let body_len = Literal::usize_unsuffixed(body.len());
    let body = Literal::byte_string(body.as_bytes());
    let tests = cells.iter().enumerate().map(|(i, cell)| {
        let name = Ident::new(&cell.name, at(name.span()));
        let i = Literal::usize_unsuffixed(i);
        quote!(#[::core::prelude::v1::test] fn #name() { TEST.run(#i) })
    });
    // A change of a file that values come from compiles the test anew.
    let files = parameters.iter().filter_map(|p| p.file.as_ref()).map(|file| {
        quote!(
            const _: &str =
                ::core::include_str!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", #file));
        )
    });
    quote! {
        #[cfg(test)]
        #function

        #(#cfgs)*
        #[cfg(test)]
        #call_fn

        #(#cfgs)*
        #[cfg(test)]
        mod #module {
            const HEAD: &str = ::core::concat!(
                ::core::env!("CARGO_PKG_NAME"), "\u{1f}",
                ::core::module_path!(), "\u{1f}",
                ::core::file!(), "\u{1f}",
                #line, "\u{1f}",
                ::core::env!("CARGO_MANIFEST_DIR")
            );
            #[used]
            #[unsafe(link_section = "accuracy_tests")]
            static META: ::accuracy_core::meta::Section<{ HEAD.len() }, #body_len> =
                ::accuracy_core::meta::Section::new(HEAD, #body);
            static TEST: ::accuracy_core::harness::Test =
                ::accuracy_core::harness::Test::new(|| META.bytes(), super::#call);
            #(#files)*
            #(#tests)*
        }
    }
}

/// `fn __name_call(case, indices)`: calls the function with the values that the indices name.
fn call_fn(function: &ItemFn, parameters: &[Parameter], call: &Ident) -> TokenStream {
    let case_type = match function.sig.inputs.first() {
        Some(FnArg::Typed(typed)) => typed.ty.span(),
        _ => Span::call_site(),
    };
    // Locals of the macro's own, which no expression of the user sees.
    let local = |text: &str| Ident::new(text, Span::mixed_site());
    let case = Ident::new("case", Span::mixed_site().located_at(case_type));
    let (indices, value) = (local("indices"), local("value"));
    let arguments: Vec<Ident> = (0..parameters.len()).map(|i| local(&format!("axis_{i}"))).collect();
    let picks = parameters.iter().zip(&arguments).enumerate().map(|(i, (parameter, argument))| {
        let i = Literal::usize_unsuffixed(i);
        let ty = &parameter.ty;
        // A type for each arm: a wrong value is then wrong by itself, not against the arm before it.
        let arms = parameter.values.iter().enumerate().map(|(at, expression)| {
            let at = Literal::usize_unsuffixed(at);
            quote!(#at => { let #value: #ty = #expression; #value })
        });
        quote! {
            let #argument = match #indices[#i] { #(#arms)* _ => ::core::unreachable!() };
        }
    });
    let result = match &function.sig.output {
        ReturnType::Type(_, ty) => ty.span(),
        ReturnType::Default => Span::call_site(),
    };
    let name = Ident::new(&function.sig.ident.to_string(), at(result));
    let result = quote_spanned!(at(result)=> #name(#case #(, #arguments)*));
    quote! {
        #[doc(hidden)]
        fn #call(#case: &mut ::accuracy_core::Case, #indices: &[usize]) -> ::accuracy_core::Result<::accuracy_core::Tensor> {
            #(#picks)*
            #result
        }
    }
}

/// The JSON of `accuracy_core::meta::Body`.
fn body(function: &ItemFn, attribute: &Attribute, axes: &[Axis], cells: &[Cell]) -> String {
    let name = &function.sig.ident;
    let (takes_n, takes_k) = function::takes_shape(function.block.to_token_stream());
    let yes = |is: bool| is.then(|| "true".to_owned());
    let strings = |texts: &[String]| json::array(texts.iter().map(|t| json::string(t)));
    let pair = |a: &str, b: &str| json::array([json::string(a), json::string(b)]);
    let axis = |axis: &Axis| {
        json::object([
            ("name", Some(json::string(&axis.name))),
            ("kind", Some(json::string(axis.kind.name()))),
            ("labels", Some(strings(&axis.labels))),
        ])
    };
    let cell = |cell: &Cell| {
        json::object([
            ("name", Some(json::string(&cell.name))),
            ("check", Some(json::string(cell.check))),
            ("at", Some(json::array(cell.at.iter().map(usize::to_string)))),
            ("tokens", Some(cell.tokens.to_string())),
            ("axis", cell.axis.map(|i| i.to_string())),
        ])
    };
    let known = |known: &attribute::KnownFailure| {
        let at = known.at.iter().map(|(name, value)| {
            let label = axes.iter().find(|a| *name == a.name).map(|axis| axis_label(axis, value));
            pair(&name.to_string(), &label.unwrap_or_default())
        });
        json::object([
            ("arch", known.arch.as_deref().map(json::string)),
            ("at", Some(json::array(at))),
            ("reason", Some(json::string(&known.reason))),
        ])
    };
    let nondeterministic = attribute.nondeterministic.as_ref().map(|(reason, bound)| {
        json::object([("reason", Some(json::string(reason))), ("bound", Some(format!("{bound:?}")))])
    });
    let weights = attribute.weights.iter().map(|role| pair(&role.name.to_string(), &role.pattern));
    json::object([
        ("name", Some(json::string(&name.to_string()))),
        ("checkpoint", attribute.checkpoint.as_deref().map(json::string)),
        ("weights", Some(json::array(weights))),
        (
            "archs",
            (!attribute.archs.is_empty())
                .then(|| json::array(attribute.archs.iter().map(|arch| json::string(arch)))),
        ),
        ("activations", attribute.activations.as_deref().map(json::string)),
        ("axes", Some(json::array(axes.iter().map(axis)))),
        ("cells", Some(json::array(cells.iter().map(cell)))),
        ("known_failures", Some(json::array(attribute.known_failures.iter().map(known)))),
        ("nondeterministic", nondeterministic),
        (
            "benign",
            (!attribute.benign.is_empty()).then(|| {
                json::array(attribute.benign.iter().map(|(finding, reason)| {
                    json::object([
                        ("finding", Some(json::string(finding))),
                        ("reason", Some(json::string(reason))),
                    ])
                }))
            }),
        ),
        (
            "fuzz",
            attribute.fuzz.map(|(first, last)| {
                json::object([("first", Some(first.to_string())), ("last", Some(last.to_string()))])
            }),
        ),
        ("takes_n", yes(takes_n)),
        ("takes_k", yes(takes_k)),
        ("memory", attribute.memory.map(|bytes| bytes.to_string())),
        ("min_cos", attribute.min_cos.map(|x| format!("{x:?}"))),
        ("seed", Some(attribute.seed.to_string())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body_of(attribute: TokenStream, item: TokenStream) -> Value {
        let mut errors = Errors::default();
        let mut function: ItemFn = syn::parse2(item).unwrap();
        let attribute = attribute::parse(attribute, &mut errors);
        let parameters = function::parse(&mut function, &mut errors);
        function::check_matrix(&function, &attribute, &parameters, &mut errors);
        assert!(errors.is_empty(), "{}", errors.to_tokens());
        let axes: Vec<Axis> = parameters.iter().map(|p| p.axis.clone()).collect();
        let cells = cells::cells(&axes, &attribute.tokens);
        serde_json::from_str(&body(&function, &attribute, &axes, &cells)).unwrap()
    }

    #[test]
    fn the_metadata_says_what_attribute_and_parameters_say() {
        let mut body = body_of(
            quote! {
                checkpoint = "shards/x",
                weights = { w = "layer.{layer}.{part}", g = "layer.{layer}.norm" },
                tokens = [1, 33],
                archs = ["host", "gfx942"],
                activations = "file.safetensors#tensor",
                min_cos = 1,
                memory = "1.5 GiB",
                seed = 0xff,
                known_failure(arch = "gfx942", quant = fallback, dtype = INT8, mode = "a, \"b\"", tile = -1, reason = "x\ny"),
                known_failure(reason = "everywhere"),
                nondeterministic(reason = "atomics", bound = 1e-3),
                benign(finding = "missing_wait", reason = "long before"),
            },
            quote! {
                fn chain(
                    cx: &mut Case,
                    #[variants(INT8, E4M3FN)] dtype: DType,
                    #[paths(primary = f, fallback = g::<u8, 4>)] quant: Quant,
                    #[values("a, \"b\"", "c")] mut mode: &str,
                    #[perf(64, -1, Layout::RowMajor)] tile: i32,
                ) -> Result<Tensor> {}
            },
        );
        let Value::Array(cells) = body["cells"].take() else { panic!("{body}") };
        assert_eq!(cells.len(), 2 * 2 * 2 * 3 * 2 * 2 + 2 * 2);
        assert_eq!(
            cells[1],
            json!({
                "name": "full_chain_dtype_int8_quant_primary_mode_a_b_tile_64_tokens_33",
                "check": "full_chain", "at": [0, 0, 0, 0], "tokens": 33,
            })
        );
        assert_eq!(
            cells[cells.len() - 1],
            json!({
                "name": "parameter_mode_dtype_e4m3fn_quant_fallback_tokens_33",
                "check": "parameter", "at": [1, 1, 0, 0], "tokens": 33, "axis": 2,
            })
        );
        assert_eq!(
            body,
            json!({
                "name": "chain",
                "checkpoint": "shards/x",
                "weights": [["w", "layer.{layer}.{part}"], ["g", "layer.{layer}.norm"]],
                "archs": ["host", "gfx942"],
                "activations": "file.safetensors#tensor",
                "axes": [
                    {"name": "dtype", "kind": "variants", "labels": ["int8", "e4m3fn"]},
                    {"name": "quant", "kind": "paths", "labels": ["primary", "fallback"]},
                    {"name": "mode", "kind": "values", "labels": ["a, \"b\"", "c"]},
                    {"name": "tile", "kind": "perf", "labels": ["64", "-1", "Layout::RowMajor"]},
                ],
                "cells": null,
                "known_failures": [
                    {
                        "arch": "gfx942",
                        "at": [["quant", "fallback"], ["dtype", "int8"], ["mode", "a, \"b\""], ["tile", "-1"]],
                        "reason": "x\ny",
                    },
                    {"at": [], "reason": "everywhere"},
                ],
                "nondeterministic": {"reason": "atomics", "bound": 1e-3},
                "benign": [{"finding": "missing_wait", "reason": "long before"}],
                "memory": 1_610_612_736_u64,
                "min_cos": 1.0,
                "seed": 255,
            })
        );
    }

    #[test]
    fn drawn_token_counts_have_a_listed_one_beside_them_and_a_body_says_what_it_takes_of_a_shape() {
        let of = |range: TokenStream, body: TokenStream| {
            body_of(quote!(tokens = fuzz(#range)), quote!(fn f(cx: &mut Case) -> Result<Tensor> { #body }))
        };
        for (range, listed, first, last) in
            [(quote!(1..=4096), 33, 1, 4096), (quote!(64..129), 64, 64, 128), (quote!(2..=9), 9, 2, 9)]
        {
            let body = of(range, quote!());
            assert_eq!(body["fuzz"], json!({"first": first, "last": last}));
            let tokens: Vec<&Value> =
                body["cells"].as_array().unwrap().iter().map(|c| &c["tokens"]).collect();
            assert_eq!(tokens, [listed]);
        }
        for (body, n, k) in [
            (quote!(let (m, n, k) = cx.shape()?;), true, true),
            (quote!(let (m, _, k) = cx.shape()?;), false, true),
            (
                quote!(if x {
                    let (_m, mut n, _) = cx.shape().unwrap();
                }),
                true,
                false,
            ),
            (quote!(let (m, _n, _k) = cx.shape()?;), false, false),
            (quote!(let (m, n, k) = w.sizes();), false, false),
        ] {
            let found = of(quote!(1..=2), body.clone());
            let of = |key: &str| found.get(key).is_some_and(|value| *value == json!(true));
            assert_eq!((of("takes_n"), of("takes_k")), (n, k), "{body}");
        }
    }

    #[test]
    fn what_is_not_given_has_its_default_or_is_left_out() {
        let mut body = body_of(
            quote!(),
            quote!(
                fn bare(cx: &mut Case) -> Result<Tensor> {}
            ),
        );
        let Value::Array(cells) = body["cells"].take() else { panic!("{body}") };
        let tokens: Vec<&Value> = cells.iter().map(|cell| &cell["tokens"]).collect();
        assert_eq!(tokens, [1, 33, 128]);
        let rest = json!({"name": "bare", "weights": [], "axes": [], "cells": null, "known_failures": [], "seed": 0});
        assert_eq!(body, rest);
    }
}
