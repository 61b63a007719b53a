//! `cargo accuracy header`: what `#[kernel_library]` binds, as a C++ header with which a launcher's source is checked.
//!
//! Bindings are read from Rust sources, so that a header is there before anything is built. Blocks that a macro of the
//! crate makes are not seen. What the types are is only known by their names: one of the crate's own fits anything.

use crate::exit::ExitCode;
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use syn::ext::IdentExt as _;
use syn::visit::Visit;
use syn::{
    FnArg, ForeignItem, ForeignItemFn, GenericArgument, ItemForeignMod, PathArguments, ReturnType, Type,
};

/// What every header begins with: how types of Rust and C++ are compared.
const COMPARISON: &str = include_str!("launchers.h");

/// Flags of `cargo accuracy header`.
#[derive(Clone, Debug, clap::Args)]
pub struct HeaderArgs {
    /// Rust files or folders that contain `#[kernel_library]` blocks [default: src and tests]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Folder to which one header for each library is written: {library}_launchers.h
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Write nothing; end with status 100 if a header is missing or out of date
    #[arg(long)]
    pub check: bool,
}

pub fn command(args: HeaderArgs) -> anyhow::Result<ExitCode> {
    let paths = if args.paths.is_empty() { of_package(Path::new("")) } else { args.paths };
    let headers = headers(&paths)?;
    if headers.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let looked =
            if paths.is_empty() { "src or tests, of which neither is here" } else { &paths.join(", ") };
        anyhow::bail!("no #[kernel_library] block in {looked}: name the files or folders that have one");
    }
    let mut code = ExitCode::Correct;
    for (file, text) in headers {
        let path = args.out.join(file);
        if !args.check {
            write_if_changed(&path, &text)?;
            writeln!(crate::screen::stdout(), "{}", path.display())?;
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            crate::inspect::problem(&format!(
                "{} is missing, or is not what is bound: `cargo accuracy header` writes it",
                path.display()
            ));
            code = ExitCode::Failed;
        }
    }
    Ok(code)
}

/// Leaves a file alone that says the same already, so that nothing is built again for it.
pub fn write_if_changed(path: &Path, text: &str) -> anyhow::Result<()> {
    if std::fs::read_to_string(path).ok().as_deref() == Some(text) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Where the bindings of a package are looked for: kernels are bound by the library, or only by its tests.
pub fn of_package(dir: &Path) -> Vec<PathBuf> {
    let folders = ["src", "tests"].map(|folder| dir.join(folder));
    folders.into_iter().filter(|folder| folder.is_dir()).collect()
}

/// The headers of all libraries that Rust sources bind, by file name. Packages inside a folder are left out.
///
/// # Errors
/// If a file cannot be read, or has the attribute's name and is not Rust.
pub fn headers(paths: &[PathBuf]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut bindings = Bindings::default();
    for path in paths {
        let own = |entry: &ignore::DirEntry| entry.depth() == 0 || !entry.path().join("Cargo.toml").exists();
        let walk = ignore::WalkBuilder::new(path).sort_by_file_path(Path::cmp).filter_entry(own).build();
        for entry in walk {
            let entry = entry.with_context(|| format!("cannot read {}", path.display()))?;
            let file = entry.path();
            if !file.is_file() || file != path && file.extension().is_none_or(|e| e != "rs") {
                continue;
            }
            let text = accuracy_core::files::read_text(file, accuracy_core::files::TEXT)
                .with_context(|| format!("cannot read {}", file.display()))?;
            // Most files hold none, and some are no Rust on purpose: what a compiler is to reject.
            if !text.contains("kernel_library") {
                continue;
            }
            let parsed = syn::parse_file(&text).with_context(|| format!("{} is not Rust", file.display()))?;
            bindings.visit_file(&parsed);
        }
    }
    let headers = bindings.libraries.into_iter();
    Ok(headers
        .map(|(library, launchers)| (format!("{library}_launchers.h"), render(&library, &launchers)))
        .collect())
}

fn render(library: &str, launchers: &BTreeSet<(String, String)>) -> String {
    let mut text = format!(
        "// Launchers of the kernel library `{library}`, as Rust binds them. Written by `cargo accuracy header`; do not edit.\n\
         {COMPARISON}namespace accuracy::bound {{\n"
    );
    for (name, signature) in launchers {
        let _ = writeln!(text, "using {name} = {signature};");
    }
    text + "}  // namespace accuracy::bound\n"
}

/// Symbol and C++ function type of each launcher, by library.
#[derive(Default)]
struct Bindings {
    libraries: BTreeMap<String, BTreeSet<(String, String)>>,
}

impl<'a> Visit<'a> for Bindings {
    fn visit_item_foreign_mod(&mut self, block: &'a ItemForeignMod) {
        let is_ours = |path: &syn::Path| path.segments.last().is_some_and(|s| s.ident == "kernel_library");
        let attribute = block.attrs.iter().find(|a| is_ours(a.path()));
        let Some(library) = attribute.and_then(|a| a.parse_args::<syn::LitStr>().ok()) else { return };
        let launchers = self.libraries.entry(library.value()).or_default();
        for item in &block.items {
            if let ForeignItem::Fn(function) = item
                && let Some(symbol) = symbol(function)
            {
                launchers.insert((symbol, signature(function)));
            }
        }
    }
}

/// The launcher's name in C++, where it is one of C++.
fn symbol(function: &ForeignItemFn) -> Option<String> {
    let linked = function.attrs.iter().find(|a| a.path().is_ident("link_name")).map(|a| match &a.meta {
        syn::Meta::NameValue(pair) => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. }) => name.value(),
            _ => String::new(),
        },
        _ => String::new(),
    });
    let name = linked.unwrap_or_else(|| function.sig.ident.unraw().to_string());
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(name)
}

fn signature(function: &ForeignItemFn) -> String {
    let result = match &function.sig.output {
        ReturnType::Default => "void".into(),
        ReturnType::Type(_, ty) => match &**ty {
            Type::Tuple(tuple) if tuple.elems.is_empty() => "void".into(),
            ty => cpp_type(ty),
        },
    };
    let parameters: Vec<String> = function
        .sig
        .inputs
        .iter()
        .map(|input| match input {
            FnArg::Typed(typed) => cpp_type(&typed.ty),
            FnArg::Receiver(_) => "Any".into(),
        })
        .collect();
    format!("{result}({})", parameters.join(", "))
}

fn cpp_type(ty: &Type) -> String {
    let Type::Path(path) = ty else { return "Any".into() };
    let Some(last) = path.path.segments.last() else { return "Any".into() };
    let name = last.ident.unraw().to_string();
    let known = match name.as_str() {
        "bool" => "bool",
        "i8" | "c_schar" => "std::int8_t",
        "u8" | "c_uchar" => "std::uint8_t",
        "i16" | "c_short" => "std::int16_t",
        "u16" | "c_ushort" => "std::uint16_t",
        "i32" | "c_int" | "Status" => "std::int32_t",
        "u32" | "c_uint" => "std::uint32_t",
        "i64" | "c_longlong" => "std::int64_t",
        "u64" | "c_ulonglong" => "std::uint64_t",
        "isize" => "std::ptrdiff_t",
        "usize" => "std::size_t",
        "f32" | "c_float" => "float",
        "f64" | "c_double" => "double",
        "bf16" | "f16" => "Half",
        "c_void" => "void",
        "Stream" => "void*",
        "DevPtr" => {
            let element = match &last.arguments {
                PathArguments::AngleBracketed(arguments) => arguments.args.first(),
                _ => None,
            };
            return match element {
                Some(GenericArgument::Type(element)) => format!("{}*", cpp_type(element)),
                _ => "void*".into(),
            };
        }
        _ => "Any",
    };
    known.into()
}
