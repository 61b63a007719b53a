//! One source file: its language, its text, what a front end finds in it, and the owned summary of it that
//! the repository-wide analysis (and the cache) keeps. Parsing is in the front ends, flow in [`super::flow`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ir::{Function, Import, ParamKind, Traits};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Language {
    Python,
    Cpp,
    Rust,
}

impl Language {
    /// By extension; `None` for what the lint does not read.
    pub fn of(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "py" | "pyi" => Self::Python,
            "cpp" | "cc" | "cxx" | "c" | "h" | "hpp" | "hh" | "hxx" | "cu" | "cuh" | "hip" | "inl"
            | "inc" => Self::Cpp,
            "rs" => Self::Rust,
            _ => return None,
        })
    }
}

/// What a front end finds in one file; borrows from its text.
#[derive(Debug, Default)]
pub struct Module<'a> {
    pub functions: Vec<Function<'a>>,
    pub classes: Vec<ClassDef<'a>>,
    pub imports: Vec<Import<'a>>,
    /// Module-level `name = other.function`.
    pub aliases: Vec<Import<'a>>,
    pub tables: Vec<Table>,
    /// `(real function, fake)` pairs registered by reference.
    pub fakes: Vec<(Option<String>, String)>,
    /// Preprocessor macros and the identifiers in their bodies.
    pub macros: Vec<(&'a str, Vec<&'a str>)>,
    /// Declarations without body: function name, parameter names (for unnamed parameters of definitions).
    pub declarations: Vec<(&'a str, Vec<&'a str>)>,
    /// Functions that a statement outside of all functions hands to a call.
    pub references: Vec<String>,
    /// Names of attributes that the file reads.
    pub attributes_read: rustc_hash::FxHashSet<&'a str>,
}

#[derive(Debug)]
pub struct ClassDef<'a> {
    pub name: String,
    pub bases: Vec<String>,
    pub methods: Vec<&'a str>,
}

/// A literal table whose values are functions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    pub offset: u32,
    pub members: Vec<String>,
}

/// The owned summary of one file.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileSummary {
    /// Relative to the root, with `/`.
    pub path: String,
    pub language: Language,
    pub functions: Vec<FnSummary>,
    pub classes: Vec<ClassSummary>,
    pub imports: Vec<(String, String)>,
    pub aliases: Vec<(String, String)>,
    pub tables: Vec<Vec<String>>,
    pub fakes: Vec<(Option<String>, String)>,
    pub macros: Vec<(String, Vec<String>)>,
    pub declarations: Vec<(String, Vec<String>)>,
    pub references: Vec<String>,
    pub attributes_read: Vec<String>,
    pub ignores: Vec<super::ignores::Ignore>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ClassSummary {
    pub name: String,
    pub bases: Vec<String>,
    pub methods: Vec<String>,
}

/// Keyword (if any) and the name passed to a decorator.
pub type DecoratorArgs = Vec<(Option<String>, String)>;

#[derive(Debug, Serialize, Deserialize)]
pub struct FnSummary {
    pub name: String,
    pub qualname: String,
    pub class: Option<String>,
    pub line: u32,
    pub end_line: u32,
    pub traits: Traits,
    pub decorators: Vec<(String, DecoratorArgs)>,
    pub imports: Vec<(String, String)>,
    pub params: Vec<ParamSummary>,
    pub calls: Vec<CallSummary>,
    pub drops: Vec<DropSummary>,
    /// Identifiers of a C++ body, kept where a parameter looks ignored: a macro named there may use it.
    pub identifiers: Vec<String>,
    /// The macro that is all the body consists of.
    pub only_macro: Option<String>,
    pub namespace: String,
    pub returns: Option<String>,
    /// All that the function does is to say yes.
    pub affirms: bool,
    /// The function calls `locals()`, `va_start` or the like: every parameter may be used.
    pub opaque: bool,
    pub references: Vec<String>,
    /// Parameters that a constructor keeps and does nothing else with: index and attribute.
    pub stored: Vec<(u16, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ParamSummary {
    pub name: String,
    pub kind: ParamKind,
    pub default: Option<String>,
    pub annotation: Option<String>,
    pub line: u32,
    pub column: u32,
    pub offset: u32,
    pub disowned: bool,
    pub documented: Documented,
    pub sort: Kind,
    pub fate: Fate,
    /// An `assert`, `raise` or check macro pins its value on some path.
    pub guarded: bool,
    /// Parameters that every read of this one stands under: without them it has no effect.
    pub under: Vec<u16>,
    /// The parameter that a check demands to be equal to this one.
    pub equal: Option<u16>,
    /// A property of it (`is_contiguous()`) is checked, and what does not have the property is refused.
    pub property: bool,
    /// Every read of it stands under a condition that also asks something else, so that what it asks for may be left out.
    pub hint: bool,
    /// Every read of it configures a launch: a grid, a stream, an option of the compiler.
    pub launch: bool,
    /// Memory to work in: where the caller gives none, the function allocates it without contents, and it is no part of
    /// what the function returns.
    pub scratch: bool,
    /// A warning in the log is all that happens, and only where the parameter is set.
    pub warned: bool,
    /// Decides an allocation, a dtype or a layout.
    pub shapes: bool,
    /// Calls this parameter is passed to: index into `calls`, and where it lands.
    pub forwards: Vec<(u32, Slot)>,
    /// Line of the log call, the overwriting assignment or the discarding statement.
    pub witness: Option<u32>,
    /// Locals that carry it where it looks ignored: a macro may use them.
    pub carriers: Vec<String>,
    /// Where the body passes a literal that a comment calls by this parameter's name: line and literal.
    pub stand_in: Option<(u32, String)>,
}

impl ParamSummary {
    /// A caller may leave it out, or say that there is none.
    pub fn optional(&self) -> bool {
        self.default.is_some() || self.may_be_absent()
    }

    /// A caller may say that there is none: its default or its type does.
    pub fn may_be_absent(&self) -> bool {
        let none = |d: &str| d == "None" || d == "nullptr" || d.ends_with("nullopt");
        self.default.as_deref().is_some_and(none)
            || self
                .annotation
                .as_deref()
                .is_some_and(|a| a.contains("Option") || a.contains("optional") || a.contains("None"))
    }

    /// It is yes or no.
    pub fn is_flag(&self) -> bool {
        matches!(self.default.as_deref(), Some("True" | "False" | "true" | "false"))
            || matches!(self.annotation.as_deref().map(str::trim), Some("bool" | "const bool"))
    }
}

/// What sort of thing a parameter is, by its default and its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The caller may ask for something: an option, a flag, a number with a fraction, a type. It has a default, or it may
    /// be absent.
    Choice,
    /// A whole number that every caller has to give: a size, a count, an index.
    Count,
    /// An operand that every caller has to give.
    Data,
    /// Neither type nor default is written.
    Unknown,
}

impl Kind {
    pub fn of(language: Language, default: Option<&str>, annotation: Option<&str>) -> Self {
        if default.is_some() {
            return Self::Choice;
        }
        let Some(a) = annotation.map(str::trim).filter(|a| !a.is_empty()) else { return Self::Unknown };
        let words = || a.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let has = |list: &[&str]| words().any(|w| list.contains(&w));
        let pointer = language == Language::Cpp && a.contains('*');
        // `QuantType` and `RoundMode` are sets of choices; `Buffer_Type` is a buffer.
        let names_a_kind = |w: &str| (w.ends_with("Type") || w.ends_with("Mode")) && !w.contains('_');
        let choice = match language {
            Language::Python => {
                has(&["Optional", "None", "bool", "float", "str", "Literal", "dtype", "constexpr", "Enum"])
                    || words().any(names_a_kind)
            }
            Language::Cpp => {
                !pointer
                    && (has(&[
                        "optional",
                        "Optional",
                        "bool",
                        "float",
                        "double",
                        "string",
                        "ScalarType",
                        "dtype",
                        "DataType",
                    ]) || words().any(names_a_kind))
            }
            Language::Rust => {
                has(&["Option", "bool", "f32", "f64", "DType", "str", "String"])
                    || words().any(|w| w.ends_with("DType") || w.ends_with("Mode"))
            }
        };
        if choice {
            return Self::Choice;
        }
        let whole = |w: &str| {
            matches!(w, "int" | "unsigned" | "long" | "size_t" | "usize" | "SymInt" | "index_t" | "ptrdiff_t")
                || (w.starts_with("int") || w.starts_with("uint")) && w.ends_with("_t")
                || matches!(w, "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "isize")
        };
        let only =
            words().filter(|w| !w.is_empty() && !matches!(*w, "const" | "torch" | "std" | "c10")).all(whole);
        if only && !pointer { Self::Count } else { Self::Data }
    }
}

/// What the function's own documentation says of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Documented {
    No,
    /// It is described as something that has a meaning.
    Promised,
    /// It is said to be ignored, unused or there for compatibility.
    Ignored,
    /// It is described as something that concerns the backward pass.
    Backward,
    /// It is thrown away, and a comment there gives a reason.
    Explained,
}

/// What becomes of a parameter inside its own function, calls left aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    Used,
    /// Nothing but the calls it is forwarded to can use it.
    Forwarded,
    NeverRead,
    Discarded,
    Overwritten,
    /// Only a log or print shows it.
    Logged,
    /// Only mentioned in a check that does not pin it.
    Checked,
    /// Only an error that is raised names it.
    Raised,
    /// Read, but what is computed from it goes nowhere.
    DeadEnd,
    /// Pinned by a guard and otherwise unread.
    Guarded,
}

impl Fate {
    pub fn ignored(self) -> bool {
        !matches!(self, Self::Used | Self::Forwarded | Self::Guarded)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    Position(u32),
    Keyword(String),
    /// Spread, subscripted or otherwise not bound to one parameter.
    Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct CallSummary {
    pub callee: String,
    pub line: u32,
    pub column: u32,
    pub offset: u32,
    pub args: Vec<ArgSummary>,
    pub sink: Sink,
    /// The call goes through a local that this function was stored in.
    pub handle: bool,
}

/// Where the value of a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Sink {
    Returned,
    /// A local, by its number in the function.
    Local(u32),
    /// Nowhere: the call is a statement.
    Dropped,
    /// It is part of a larger expression.
    #[default]
    Inside,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ArgSummary {
    pub slot: Slot,
    /// Index of the parameter that is passed as it is.
    pub direct: Option<u16>,
    /// Whether the call is only made where a test fixes that parameter.
    pub pinned: bool,
    pub literal: Option<String>,
}

/// Two mutually exclusive calls of which one gets the parameter and the other does not.
#[derive(Debug, Serialize, Deserialize)]
pub struct DropSummary {
    pub param: u16,
    pub honoured: u32,
    pub dropping: u32,
    /// Where the parameter lands at the honouring call.
    pub slot: Slot,
    /// Parameters that both calls get.
    pub shared: u16,
    /// Parameters that the honouring call gets and the dropping call lacks.
    pub missing: u16,
    /// The dropping call is in an exception handler or runs after a failed attempt.
    pub fallback: bool,
    /// A test on dtype or quantisation mode leads to the dropping call.
    pub mode: bool,
    /// A mention of the parameter in a test on the way, which does not pin it.
    pub mentioned: bool,
    /// The parameter that is absent, or that says that the path is for something else, on the way to the dropping call.
    pub absent: Option<String>,
}

/// Line and column lookup by byte offset.
pub struct Lines {
    starts: Vec<u32>,
}

impl Lines {
    pub fn new(text: &str) -> Self {
        let mut starts = vec![0];
        starts.extend(
            text.bytes()
                .enumerate()
                .filter(|(_, b)| *b == b'\n')
                .map(|(i, _)| u32::try_from(i + 1).unwrap_or(u32::MAX)),
        );
        Self { starts }
    }

    /// 1-based line and 1-based byte column.
    pub fn locate(&self, offset: u32) -> (u32, u32) {
        let line = self.starts.partition_point(|s| *s <= offset).max(1);
        (line as u32, offset - self.starts[line - 1] + 1)
    }
}

/// Nesting and operator chains beyond these are reported and the file passed over, since recursive
/// parsers would need stack in proportion.
const MAX_NESTING: u32 = 400;
const MAX_CHAIN: u32 = 20_000;
/// Of operators that a Rust parser recurses on (`&&&x`, `!!x`, `A<A<A<`), in one statement.
const MAX_PREFIXES: u32 = 1000;

/// Why a file cannot be analysed, and at which line.
#[derive(Debug)]
pub struct Fault {
    pub line: Option<u32>,
    pub reason: String,
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self { line: None, reason }
    }
}

/// Bounds the nesting of brackets and the length of operator chains outside strings and comments.
pub fn check_nesting(text: &str, language: Language) -> Result<(), String> {
    let b = text.as_bytes();
    let python = language == Language::Python;
    let mut chains: Vec<u32> = vec![0];
    let mut prefixes = 0u32;
    let mut line = 1u32;
    let mut i = 0;
    while i < b.len() {
        let c = b[i];
        match c {
            b'\n' => {
                line += 1;
                if chains.len() == 1 && python {
                    chains[0] = 0;
                }
            }
            b'#' if python => {
                while i < b.len() && b[i] != b'\n' {
                    i += 1;
                }
                continue;
            }
            b'/' if !python && b.get(i + 1) == Some(&b'/') => {
                while i < b.len() && b[i] != b'\n' {
                    i += 1;
                }
                continue;
            }
            b'/' if !python && b.get(i + 1) == Some(&b'*') => {
                i += 2;
                while i < b.len() && !(b[i] == b'*' && b.get(i + 1) == Some(&b'/')) {
                    line += u32::from(b[i] == b'\n');
                    i += 1;
                }
                i += 1;
            }
            b'"' | b'\'' => {
                let lifetime = !python && c == b'\'' && {
                    // A character literal closes within a few bytes; a lifetime or a digit separator does not.
                    let escaped = b.get(i + 1) == Some(&b'\\');
                    !escaped && !(2..=5).any(|n| b.get(i + n) == Some(&b'\''))
                };
                if !lifetime {
                    let triple = python && b.get(i + 1) == Some(&c) && b.get(i + 2) == Some(&c);
                    i += if triple { 3 } else { 1 };
                    while i < b.len() {
                        if b[i] == b'\\' {
                            i += 1;
                        } else if b[i] == b'\n' {
                            line += 1;
                            if python && !triple {
                                break;
                            }
                        } else if b[i] == c
                            && (!triple || (b.get(i + 1) == Some(&c) && b.get(i + 2) == Some(&c)))
                        {
                            i += if triple { 2 } else { 0 };
                            break;
                        }
                        i += 1;
                    }
                }
            }
            b'(' | b'[' | b'{' => {
                chains.push(0);
                if c == b'{' {
                    prefixes = 0;
                }
                if chains.len() as u32 > MAX_NESTING {
                    return Err(format!("brackets nested deeper than {MAX_NESTING} at line {line}"));
                }
            }
            b')' | b']' | b'}' if chains.len() > 1 => {
                chains.pop();
            }
            b'<' | b'!' | b'&' | b'*' | b'-' | b'|' if language == Language::Rust => {
                prefixes += 1;
                if prefixes > MAX_PREFIXES {
                    return Err(format!("a statement of more than {MAX_PREFIXES} operators at line {line}"));
                }
                bump(&mut chains, line)?;
            }
            b'>' if language == Language::Rust => {
                prefixes = prefixes.saturating_sub(1);
                bump(&mut chains, line)?;
            }
            b',' | b';' => {
                *chains.last_mut().expect("one level is always open") = 0;
                if c == b';' {
                    prefixes = 0;
                }
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'!' | b'.' | b'&' | b'|' | b'^' | b'<' | b'>'
            | b'=' | b'?' => {
                bump(&mut chains, line)?;
            }
            // `not`, `lambda`, `await`, `if`/`else` chains: words count as links where no separator intervenes.
            b' ' => bump(&mut chains, line)?,
            _ => {}
        }
        i += 1;
    }
    return Ok(());

    fn bump(chains: &mut [u32], line: u32) -> Result<(), String> {
        let top = chains.last_mut().expect("one level is always open");
        *top += 1;
        if *top > MAX_CHAIN {
            return Err(format!("an expression of more than {MAX_CHAIN} operators at line {line}"));
        }
        Ok(())
    }
}
