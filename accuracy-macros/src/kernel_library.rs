//! What `#[kernel_library]` and `#[code_object]` turn an `unsafe extern "C"` block into.

use crate::errors::Errors;
use crate::json;
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use std::collections::{HashMap, HashSet};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{
    Attribute, Expr, ExprLit, FnArg, ForeignItem, ForeignItemFn, ItemForeignMod, Lit, LitStr, Meta,
    MetaNameValue, Pat, ReturnType, Safety, Type,
};

/// What a block binds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Binds {
    /// Launchers of a shared library.
    Launchers,
    /// Kernels of a code object.
    Kernels,
}

impl Binds {
    fn attribute(self) -> &'static str {
        match self {
            Binds::Launchers => "kernel_library",
            Binds::Kernels => "code_object",
        }
    }
}

pub fn expand(binds: Binds, attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let library = library_name(binds, attribute, &mut errors);
    let block = match syn::parse2::<ItemForeignMod>(item.clone()) {
        Ok(block) => block,
        Err(error) => {
            let attribute = binds.attribute();
            let message = format!("{attribute} goes on an `unsafe extern \"C\" {{ .. }}` block: {error}");
            errors.at_span(error.span(), message);
            let errors = errors.to_tokens();
            return quote!(#errors #item);
        }
    };
    check_block(&block, &mut errors);
    let launchers = launchers(binds, &block, &mut errors);
    let library = library.unwrap_or_default();
    let bindings = bindings(binds, &block, &library, &launchers, errors.is_empty());
    let errors = errors.to_tokens();
    quote!(#errors #bindings)
}

/// The user's place for errors, the macro's context so that lints leave it alone.
fn at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

fn library_name(binds: Binds, attribute: TokenStream, errors: &mut Errors) -> Option<String> {
    let Ok(literal) = syn::parse2::<LitStr>(attribute.clone()) else {
        let message = match binds {
            Binds::Launchers => "expected the library's name, as in `#[kernel_library(\"quant_gemm\")]`",
            Binds::Kernels => {
                "expected the code object's name without its architecture, as in `#[code_object(\"matmul\")]`"
            }
        };
        if attribute.is_empty() {
            errors.at_span(Span::call_site(), message);
        } else {
            errors.at(attribute, message);
        }
        return None;
    };
    let name = literal.value();
    let stem = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = match binds {
        Binds::Launchers => {
            let stem = stem.split_once(".so").map_or(stem, |(stem, _)| stem);
            stem.strip_prefix("lib").filter(|rest| !rest.is_empty()).unwrap_or(stem)
        }
        Binds::Kernels => [".hsaco", ".co", ".cubin"]
            .into_iter()
            .find_map(|extension| stem.strip_suffix(extension))
            .unwrap_or(stem),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
    if name.is_empty() {
        errors.at(literal, "the library's name is empty");
    } else if name.contains(['/', '\\']) {
        errors.at(
            literal,
            format!(
                "a library is looked for by its name, in the folder of each architecture: write \"{stem}\""
            ),
        );
    } else if stem != name {
        let added = match binds {
            Binds::Launchers => "`lib` and `.so` are",
            Binds::Kernels => "the file's extension is",
        };
        errors.at(literal, format!("{added} added to the name: write \"{stem}\""));
    } else if !name.chars().all(allowed) {
        errors.at(literal, "a library's name is made of letters, digits, `_`, `-`, `+` and `.`");
    }
    Some(name)
}

fn check_block(block: &ItemForeignMod, errors: &mut Errors) {
    match &block.abi.name {
        Some(name) if name.value() == "C" => {}
        Some(name) => errors.at(name, "launchers have the C ABI: write `extern \"C\"`"),
        None => errors.at(&block.abi, "launchers have the C ABI: write `extern \"C\"`"),
    }
    if block.unsafety.is_none() {
        errors.at(
            &block.abi,
            "write `unsafe extern \"C\"`: that the signatures are the library's is for you to promise",
        );
    }
    for attribute in &block.attrs {
        if attribute.path().is_ident("link") {
            errors.at(
                attribute,
                "the library is opened at run time, one for each architecture: remove `#[link]`",
            );
        }
    }
    if block.items.is_empty() {
        errors.at_span(block.brace_token.span.join(), "this block binds no launcher");
    }
}

/// A function of the block whose signature can be bound.
struct Launcher<'a> {
    function: &'a ForeignItemFn,
    symbol: String,
    /// A regular expression for the kernel that it has to launch.
    expected: Option<String>,
    alias: Ident,
    parameters: Vec<(&'a Ident, &'a Type)>,
}

fn launchers<'a>(binds: Binds, block: &'a ItemForeignMod, errors: &mut Errors) -> Vec<Launcher<'a>> {
    let mut types = TypeNames::default();
    types.visit_item_foreign_mod(block);
    let mut names = HashSet::new();
    let mut aliases: HashMap<String, &Ident> = HashMap::new();
    let mut launchers = Vec::new();
    for item in &block.items {
        let function = match item {
            ForeignItem::Fn(function) => function,
            ForeignItem::Static(item) => {
                errors.at(item, "only launchers can be bound, no statics");
                continue;
            }
            ForeignItem::Type(item) => {
                errors.at(item, "only launchers can be bound, no types");
                continue;
            }
            other => {
                errors.at(other, "only launchers can be bound: `fn name(argument: Type) -> Status;`");
                continue;
            }
        };
        let name = &function.sig.ident;
        if !names.insert(name.unraw().to_string()) {
            errors.at(name, format!("launcher `{name}` is bound twice"));
            continue;
        }
        let parameters = parameters(function, errors);
        check_return(binds, function, errors);
        let symbol = link_name(function, errors).unwrap_or_else(|| name.unraw().to_string());
        let expected = expected_kernel(binds, function, errors);
        let camel = camel_case(&name.unraw().to_string());
        if !camel.starts_with(|c: char| c.is_alphabetic()) {
            errors.at(name, "no type can be named after this launcher: bind it under another name with `#[link_name = \"..\"]`");
            continue;
        }
        if types.0.contains(&camel) {
            errors.at(name, format!("the alias of `{name}`, `{camel}`, would hide the type `{camel}` of this block: bind it under another name with `#[link_name = \"{symbol}\"]`"));
            continue;
        }
        if let Some(other) = aliases.insert(camel.clone(), name) {
            errors.at(name, format!("`{name}` and `{other}` would both have the alias `{camel}`: bind one under another name with `#[link_name = \"{symbol}\"]`"));
            continue;
        }
        if let Some(parameters) = parameters {
            let alias = Ident::new(&camel, at(name.span()));
            launchers.push(Launcher { function, symbol, expected, alias, parameters });
        }
    }
    launchers
}

/// The names that types of a block begin with.
#[derive(Default)]
struct TypeNames(HashSet<String>);

impl<'a> Visit<'a> for TypeNames {
    fn visit_type_path(&mut self, ty: &'a syn::TypePath) {
        if let Some(first) = ty.path.segments.first() {
            self.0.insert(first.ident.to_string());
        }
        syn::visit::visit_type_path(self, ty);
    }
}

fn parameters<'a>(function: &'a ForeignItemFn, errors: &mut Errors) -> Option<Vec<(&'a Ident, &'a Type)>> {
    let sig = &function.sig;
    let mut sound = true;
    if let Some(token) = &sig.asyncness {
        errors.at(token, "a launcher cannot be async");
    }
    if let Some(token) = &sig.constness {
        errors.at(token, "a launcher cannot be const");
    }
    if let Some(abi) = &sig.abi {
        errors.at(abi, "the block gives the ABI already");
    }
    if !sig.generics.params.is_empty() {
        errors.at(&sig.generics, "a launcher cannot be generic: bind each instance by a name of its own");
        sound = false;
    }
    if let Some(clause) = &sig.generics.where_clause {
        errors.at(clause, "a launcher cannot have a where clause");
        sound = false;
    }
    if let Some(variadic) = &sig.variadic {
        errors.at(variadic, "a variadic launcher cannot be bound: its arguments could not be checked");
        sound = false;
    }
    let mut parameters = Vec::new();
    let mut names = HashSet::new();
    for input in &sig.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                errors.at(receiver, "a launcher has no `self`");
                sound = false;
            }
            FnArg::Typed(typed) => match &*typed.pat {
                Pat::Ident(p) if p.by_ref.is_none() && p.mutability.is_none() && p.subpat.is_none() => {
                    if !names.insert(p.ident.to_string()) {
                        errors.at(&p.ident, format!("parameter `{}` is given twice", p.ident));
                        sound = false;
                    }
                    if let Some(attribute) = typed.attrs.first() {
                        errors.at(attribute, "a launcher's parameters take no attributes");
                    }
                    parameters.push((&p.ident, &*typed.ty));
                }
                pattern => {
                    errors.at(pattern, "a launcher's parameter needs a plain name: reports speak of it");
                    sound = false;
                }
            },
        }
    }
    sound.then_some(parameters)
}

fn check_return(binds: Binds, function: &ForeignItemFn, errors: &mut Errors) {
    let ReturnType::Type(_, ty) = &function.sig.output else { return };
    if binds == Binds::Kernels {
        errors.at(ty, "a kernel returns nothing");
        return;
    }
    let known = match &**ty {
        Type::Path(path) if path.qself.is_none() => path
            .path
            .segments
            .last()
            .is_some_and(|s| s.arguments.is_none() && (s.ident == "Status" || s.ident == "i32")),
        Type::Tuple(tuple) => tuple.elems.is_empty(),
        _ => false,
    };
    if !known {
        errors.at(ty, "a launcher returns `Status`, `i32` (0 is success) or nothing");
    }
}

fn link_name(function: &ForeignItemFn, errors: &mut Errors) -> Option<String> {
    let attribute = function.attrs.iter().find(|a| a.path().is_ident("link_name"))?;
    if let Meta::NameValue(pair) = &attribute.meta
        && let Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) = &pair.value
        && !name.value().is_empty()
        && !name.value().contains('\0')
    {
        return Some(name.value());
    }
    errors.at(attribute, "write `#[link_name = \"symbol\"]`");
    None
}

/// `#[expect_kernel = "regex"]`: what the name of a kernel that this launcher launches has to match.
fn expected_kernel(binds: Binds, function: &ForeignItemFn, errors: &mut Errors) -> Option<String> {
    let attribute = function.attrs.iter().find(|a| a.path().is_ident("expect_kernel"))?;
    if binds == Binds::Kernels {
        errors.at(attribute, "this is the kernel itself: only a launcher may launch another");
        return None;
    }
    let Meta::NameValue(MetaNameValue { value: Expr::Lit(ExprLit { lit: Lit::Str(regex), .. }), .. }) =
        &attribute.meta
    else {
        errors.at(
            attribute,
            "write `#[expect_kernel = \"gemm_.*\"]`, a regular expression for a kernel's name",
        );
        return None;
    };
    if let Err(error) = regex_lite::Regex::new(&regex.value()) {
        errors.at(regex, format!("this is no regular expression: {error}"));
    }
    Some(regex.value())
}

/// `group_quant_fp8` as `GroupQuantFp8`.
fn camel_case(name: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    name.split('_').map(word).collect()
}

/// The library, the wrappers and the aliases. After an error the bindings are still there, as far as they can be, but
/// call nothing: what is missing or does not fit would only be one more error.
fn bindings(
    binds: Binds,
    block: &ItemForeignMod,
    library: &str,
    launchers: &[Launcher],
    sound: bool,
) -> TokenStream {
    let Some(first) = launchers.first() else { return TokenStream::new() };
    // Several blocks of a module may bind the same library, none the same launcher.
    let library_static = format_ident!(
        "__LIBRARY_OF_{}",
        first.function.sig.ident.unraw().to_string().to_uppercase(),
        span = Span::call_site()
    );
    let inherited: Vec<&Attribute> =
        block.attrs.iter().filter(|a| !a.path().is_ident("doc") && !a.path().is_ident("link")).collect();
    let bindings = launchers
        .iter()
        .map(|launcher| binding(binds, launcher, library, &library_static, &inherited, sound));
    let ty = match binds {
        Binds::Launchers => quote!(::accuracy_core::library::KernelLibrary),
        Binds::Kernels => quote!(::accuracy_core::library::CodeObject),
    };
    // A function that is left out under a condition would be looked for all the same.
    let conditional = launchers.iter().any(|l| l.function.attrs.iter().any(|a| a.path().is_ident("cfg")));
    let metadata = (sound && !conditional).then(|| metadata(binds, library, launchers, &inherited));
    quote! {
        #(#inherited)*
        static #library_static: #ty =
            #ty::new(
                #library,
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_MANIFEST_DIR"),
                ::core::option_env!("OUT_DIR"),
            );
        #(#bindings)*
        #metadata
    }
}

/// What the plugin reads of the block in a test binary.
fn metadata(binds: Binds, library: &str, launchers: &[Launcher], inherited: &[&Attribute]) -> TokenStream {
    let functions = launchers.iter().map(|launcher| {
        let names = launcher.parameters.iter().map(|(name, _)| json::string(&name.unraw().to_string()));
        json::array([json::string(&launcher.symbol), json::array(names)])
    });
    let body = json::object([
        ("kind", Some(json::string(binds.attribute()))),
        ("name", Some(json::string(library))),
        ("functions", Some(json::array(functions))),
    ]);
    let body_len = Literal::usize_unsuffixed(body.len());
    let body = Literal::byte_string(body.as_bytes());
    let types: Vec<&Type> = launchers.iter().flat_map(|l| l.parameters.iter().map(|(_, ty)| *ty)).collect();
    let size_count = Literal::usize_unsuffixed(types.len());
    quote! {
        #(#inherited)*
        const _: () = {
            const HEAD: &str = ::core::concat!(
                ::core::env!("CARGO_PKG_NAME"), "\u{1f}", ::core::env!("CARGO_MANIFEST_DIR")
            );
            const OUT: &str = match ::core::option_env!("OUT_DIR") {
                ::core::option::Option::Some(folder) => folder,
                ::core::option::Option::None => "",
            };
            #[used]
            #[unsafe(link_section = "accuracy_bindings")]
            static META: ::accuracy_core::meta::bindings::Section<
                { HEAD.len() }, #body_len, { OUT.len() }, #size_count,
            > = ::accuracy_core::meta::bindings::Section::new(
                HEAD, #body, OUT, [#(::core::mem::size_of::<#types>()),*],
            );
        };
    }
}

fn binding(
    binds: Binds,
    launcher: &Launcher,
    library: &str,
    library_static: &Ident,
    inherited: &[&Attribute],
    sound: bool,
) -> TokenStream {
    let Launcher { function, symbol, expected, alias, parameters } = launcher;
    let ForeignItemFn { attrs, vis, sig, .. } = function;
    let name = &sig.ident;
    let kept: Vec<&Attribute> = attrs
        .iter()
        .filter(|a| !a.path().is_ident("link_name") && !a.path().is_ident("expect_kernel"))
        .collect();
    let expecting = expected.as_ref().map(|regex| quote!(.expecting(#regex)));
    let cfgs: Vec<&&Attribute> = kept.iter().filter(|a| a.path().is_ident("cfg")).collect();
    let (names, types): (Vec<&Ident>, Vec<&Type>) = parameters.iter().copied().unzip();
    let texts = names.iter().map(|name| name.unraw().to_string());
    let output = &sig.output;
    let safety = match &sig.safety {
        Safety::Safe(_) => None,
        _ => Some(quote!(unsafe)),
    };
    let described = kept.iter().any(|a| a.path().is_ident("doc"));
    let summary = match binds {
        Binds::Launchers => format!("Calls the launcher `{symbol}` of the kernel library `{library}`."),
        Binds::Kernels => format!("Launches the kernel `{symbol}` of the code object `{library}`."),
    };
    let summary = (!described).then(|| quote!(#[doc = #summary]));
    let errors = match binds {
        Binds::Launchers => {
            " # Errors\n\n The library or its symbol is missing, or the launcher's status is not success."
        }
        Binds::Kernels => {
            " # Errors\n\n The code object or the kernel is missing, takes other parameters, or is not launched."
        }
    };
    let contract = safety.is_some().then(|| {
        let text = " # Safety\n\n Every pointer must be valid for what the launcher does with it, until the stream has done it.";
        quote!(#[doc = ""] #[doc = #text])
    });
    let alias_doc = format!("Type of [`{0}`], and of every other path with its signature.", name.unraw());
    // The launcher's report takes each argument as a trait object; a type that has none is the user's mistake.
    let arguments = parameters
        .iter()
        .map(|(name, ty)| quote_spanned!(at(ty.span())=> &#name as &dyn ::accuracy_core::library::LaunchArg));
    let entry = Ident::new("entry", Span::mixed_site());
    let status = Ident::new("status", Span::mixed_site());
    let grid = Ident::new("grid", Span::mixed_site());
    let (grid_parameter, grid_type) = match binds {
        Binds::Launchers => (None, None),
        Binds::Kernels => (
            Some(quote!(#grid: ::accuracy_core::library::Grid,)),
            Some(quote!(::accuracy_core::library::Grid,)),
        ),
    };
    let body = if !sound {
        quote!(::core::unimplemented!())
    } else if binds == Binds::Kernels {
        quote! {
            static KERNEL: ::accuracy_core::library::Kernel =
                ::accuracy_core::library::Kernel::new(&#library_static, #symbol, &[#(#texts),*]);
            unsafe { KERNEL.launch(#grid, &[#(#arguments),*]) }
        }
    } else {
        quote! {
            static LAUNCHER: ::accuracy_core::library::Launcher =
                ::accuracy_core::library::Launcher::new(&#library_static, #symbol, &[#(#texts),*])
                #expecting;
            let #entry = unsafe { LAUNCHER.symbol::<unsafe extern "C" fn(#(#types),*) #output>() }?;
            LAUNCHER.launching(&[#(#arguments),*]);
            let #status = unsafe { #entry(#(#names),*) };
            LAUNCHER.returned(#status)?;
            ::core::result::Result::Ok(())
        }
    };
    quote! {
        #(#inherited)*
        #(#kept)*
        #summary
        #[doc = ""]
        #[doc = #errors]
        #contract
        // Without tests nothing calls a private binding.
        #[cfg_attr(not(test), allow(dead_code))]
        #[allow(clippy::too_many_arguments)]
        #vis #safety fn #name(#grid_parameter #(#names: #types),*) -> ::accuracy_core::Result<()> {
            #body
        }

        #(#inherited)*
        #(#cfgs)*
        #[doc = #alias_doc]
        #[allow(dead_code)]
        #vis type #alias = #safety fn(#grid_type #(#names: #types),*) -> ::accuracy_core::Result<()>;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_camel_case() {
        for (name, alias) in [
            ("group_quant_fp8", "GroupQuantFp8"),
            ("gemm", "Gemm"),
            ("gemm_a8w8_blockscale", "GemmA8w8Blockscale"),
            ("_gemm__fast_", "GemmFast"),
            ("_8bit", "8bit"),
            ("___", ""),
        ] {
            assert_eq!(camel_case(name), alias);
        }
    }
}
