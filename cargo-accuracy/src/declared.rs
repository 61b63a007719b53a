//! What the sources of a package say by their attributes: kernel libraries, code objects, tests and their checkpoints.
//! Read without building anything, for commands that look at a package before it builds.

use proc_macro2::{TokenStream, TokenTree};
use std::path::{Path, PathBuf};
use syn::spanned::Spanned as _;
use syn::visit::Visit;

/// Everything that a package declares.
#[derive(Debug, Default)]
pub struct Declared {
    pub libraries: Vec<Library>,
    pub tests: Vec<Test>,
    /// HIP and CUDA sources.
    pub kernels: Vec<PathBuf>,
    /// Files that are no Rust that this program can read, with the parser's words.
    pub unread: Vec<(PathBuf, String)>,
}

/// `#[kernel_library("name")]` or `#[code_object("name")]`.
#[derive(Debug, PartialEq)]
pub struct Library {
    pub name: String,
    pub code_object: bool,
    pub at: Place,
}

/// `#[accuracy_test(..)]`.
#[derive(Debug, PartialEq)]
pub struct Test {
    pub name: String,
    pub checkpoint: Option<String>,
    pub activations: Option<String>,
    pub at: Place,
    /// Line of the function's name, which is what a test executable says of it.
    pub name_line: usize,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub file: PathBuf,
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Declared {
    /// Reads the sources under a package's folder, those of packages inside it left out.
    pub fn of(package: &Path) -> Declared {
        let mut declared = Declared::default();
        let root = package.to_path_buf();
        let own = move |entry: &ignore::DirEntry| {
            let dir = entry.file_type().is_some_and(|t| t.is_dir());
            let nested = dir && entry.path() != root && entry.path().join("Cargo.toml").exists();
            !nested && (!dir || entry.file_name() != "target")
        };
        let walk = ignore::WalkBuilder::new(package).sort_by_file_path(Ord::cmp).filter_entry(own).build();
        for entry in walk.flatten().filter(|e| e.file_type().is_some_and(|t| t.is_file())) {
            let path = entry.into_path();
            match path.extension().and_then(|e| e.to_str()) {
                Some("hip" | "cu") => declared.kernels.push(path),
                Some("rs") => match accuracy_core::files::read_text(&path, accuracy_core::files::TEXT)
                    .map_err(|e| e.to_string())
                {
                    Ok(text) => declared.read(&path, &text),
                    Err(error) => declared.unread.push((path, error)),
                },
                _ => {}
            }
        }
        declared
    }

    fn read(&mut self, path: &Path, text: &str) {
        // Most files of a package hold neither, and need not be parsed.
        if !["accuracy_test", "kernel_library", "code_object"].iter().any(|word| text.contains(word)) {
            return;
        }
        match syn::parse_file(text) {
            Ok(file) => Reader { path, declared: self }.visit_file(&file),
            Err(error) => self.unread.push((path.into(), error.to_string())),
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    declared: &'a mut Declared,
}

impl Reader<'_> {
    fn at(&self, attribute: &syn::Attribute) -> Place {
        Place { file: self.path.into(), line: attribute.span().start().line }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        for attribute in &item.attrs {
            let code_object = named(attribute, "code_object");
            if (code_object || named(attribute, "kernel_library"))
                && let Ok(name) = attribute.parse_args::<syn::LitStr>()
            {
                let at = self.at(attribute);
                self.declared.libraries.push(Library { name: name.value(), code_object, at });
            }
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        for attribute in item.attrs.iter().filter(|a| named(a, "accuracy_test")) {
            let tokens = match &attribute.meta {
                syn::Meta::List(list) => list.tokens.clone(),
                _ => TokenStream::new(),
            };
            let text = |key| string_after(key, tokens.clone());
            self.declared.tests.push(Test {
                name: item.sig.ident.to_string(),
                checkpoint: text("checkpoint"),
                activations: text("activations"),
                at: self.at(attribute),
                name_line: item.sig.ident.span().start().line,
            });
        }
    }
}

fn named(attribute: &syn::Attribute, name: &str) -> bool {
    attribute.path().segments.last().is_some_and(|segment| segment.ident == name)
}

/// The string literal of `key = "..."` at the top of an attribute's arguments.
fn string_after(key: &str, tokens: TokenStream) -> Option<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens.windows(3).find_map(|three| match three {
        [TokenTree::Ident(name), TokenTree::Punct(equals), TokenTree::Literal(value)]
            if *name == key && equals.as_char() == '=' =>
        {
            match syn::Lit::new(value.clone()) {
                syn::Lit::Str(text) => Some(text.value()),
                _ => None,
            }
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_where_they_stand() {
        let mut declared = Declared::default();
        declared.read(
            Path::new("src/lib.rs"),
            r#"
            #[accuracy_core::kernel_library("gemm")]
            unsafe extern "C" { fn f(); }
            #[code_object("matmul")]
            unsafe extern "C" { fn g(); }
            mod tests {
                #[accuracy_test(weights = { w = "checkpoint" }, checkpoint = "shards/tiny", tokens = [1])]
                fn chain(cx: &mut Case) -> Result<Tensor> { todo() }
                #[accuracy_test]
                fn rope(cx: &mut Case) -> Result<Tensor> { todo() }
            }
            "#,
        );
        let names: Vec<_> = declared.libraries.iter().map(|l| (l.name.as_str(), l.code_object)).collect();
        assert_eq!(names, [("gemm", false), ("matmul", true)]);
        assert_eq!(declared.libraries[0].at.to_string(), "src/lib.rs:2");
        let tests: Vec<_> =
            declared.tests.iter().map(|t| (t.name.as_str(), t.checkpoint.as_deref())).collect();
        assert_eq!(tests, [("chain", Some("shards/tiny")), ("rope", None)]);
    }

    #[test]
    fn a_file_that_does_not_parse_is_named_and_one_without_attributes_is_not_read() {
        let mut declared = Declared::default();
        declared.read(Path::new("a.rs"), "fn (");
        declared.read(Path::new("b.rs"), "#[accuracy_test fn (");
        let files: Vec<_> = declared.unread.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(files, ["b.rs"]);
    }
}
