//! The language-neutral form of a function that every front end produces: structured statements and
//! expressions, reduced to what data flow needs. Nothing here knows a language or a rule.

/// One function with its body. Strings borrow from the source text (or from the arena of its front end).
#[derive(Debug)]
pub struct Function<'a> {
    pub name: &'a str,
    /// Name within the file, enclosing classes and functions included: `Class.method`.
    pub qualname: String,
    pub class: Option<&'a str>,
    pub params: Vec<Param<'a>>,
    pub decorators: Vec<Decorator<'a>>,
    pub doc: Option<&'a str>,
    /// The return type as it is written.
    pub returns: Option<&'a str>,
    /// The enclosing namespaces or modules, as they are written: `ck::detail`.
    pub namespace: String,
    pub body: Vec<Stmt<'a>>,
    /// Byte offsets of the definition (its name) and of its last character.
    pub start: u32,
    /// Where the body begins.
    pub body_start: u32,
    pub end: u32,
    pub traits: Traits,
    /// Imports made inside the function: local name and dotted path.
    pub imports: Vec<Import<'a>>,
}

/// Facts about a function that a front end reads off its definition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traits {
    /// The body does nothing: `...`, `pass`, a docstring, `raise NotImplementedError`, a declaration.
    pub stub: bool,
    /// Runs on the device: `@triton.jit`, `__global__`, `__device__`.
    pub device: bool,
    /// Overrides or is meant to be overridden: abstract, virtual, `@override`, a trait's method.
    pub interface: bool,
    /// Defined inside another function.
    pub nested: bool,
    /// A method (its class is known).
    pub method: bool,
    /// A property, setter or overload stub.
    pub accessor: bool,
    /// Parts of the body did not parse: only what the text never mentions is certain.
    pub damaged: bool,
    /// Only answers a question or refuses: every value that it returns is a truth value, or it returns none and raises.
    pub answers: bool,
    /// Does nothing but write to a log.
    pub reports: bool,
    /// Returns numbers, a plan or a choice, and has nothing that it could write results to.
    pub chooses: bool,
    /// All that it returns is what it is given.
    pub passes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ParamKind {
    Positional,
    KeywordOnly,
    /// `*args`
    VarArgs,
    /// `**kwargs`
    KwArgs,
    /// `self`, `cls`, `&self`, and the `ctx` of an autograd function.
    Receiver,
}

#[derive(Debug)]
pub struct Param<'a> {
    pub name: &'a str,
    pub kind: ParamKind,
    pub default: Option<&'a str>,
    pub annotation: Option<&'a str>,
    pub offset: u32,
    /// The definition itself says that the parameter is not used: `_x`, unnamed, `[[maybe_unused]]`.
    pub disowned: bool,
    /// A reference or pointer to something that may be written: assigning it is an output.
    pub output: bool,
}

#[derive(Debug)]
pub struct Decorator<'a> {
    pub path: String,
    /// Functions and names passed to the decorator: `gen_fake=f`, `{..: g}`.
    pub args: Vec<(Option<&'a str>, &'a str)>,
}

#[derive(Debug, Clone)]
pub struct Import<'a> {
    pub local: &'a str,
    /// Dotted path; leading dots are relative levels as Python writes them.
    pub path: String,
}

#[derive(Debug)]
pub enum Stmt<'a> {
    Expr(Expr<'a>),
    Assign {
        targets: Vec<Expr<'a>>,
        value: Expr<'a>,
        augmented: bool,
    },
    If {
        test: Expr<'a>,
        then: Vec<Stmt<'a>>,
        orelse: Vec<Stmt<'a>>,
    },
    Switch {
        subject: Expr<'a>,
        arms: Vec<(Option<Expr<'a>>, Vec<Stmt<'a>>)>,
    },
    Loop {
        head: Option<Expr<'a>>,
        target: Option<Expr<'a>>,
        body: Vec<Stmt<'a>>,
        orelse: Vec<Stmt<'a>>,
    },
    Try {
        body: Vec<Stmt<'a>>,
        handlers: Vec<Vec<Stmt<'a>>>,
        orelse: Vec<Stmt<'a>>,
        finally: Vec<Stmt<'a>>,
    },
    With {
        items: Vec<(Expr<'a>, Option<Expr<'a>>)>,
        body: Vec<Stmt<'a>>,
    },
    Return(Option<Expr<'a>>),
    Raise(Option<Expr<'a>>),
    /// `break` and `continue`.
    Leave,
    Assert {
        test: Expr<'a>,
        message: Vec<Expr<'a>>,
    },
    /// `del x`, `(void)x`, `let _ = x`.
    Discard(Vec<Expr<'a>>),
    Block(Vec<Stmt<'a>>),
    /// A function or class defined here; `reads` are the names its body mentions.
    Nested {
        name: &'a str,
        reads: Vec<&'a str>,
        decorated: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cmp {
    /// `==`, `is`, `in`: the value is one of a known few where this holds.
    Same,
    /// `!=`, `is not`, `not in`.
    Differs,
    /// `<`, `<=`: bounded above.
    Below,
    /// `>`, `>=`.
    Above,
}

#[derive(Debug)]
pub enum Expr<'a> {
    Name(&'a str),
    /// A literal, by its text; `None`, `nullptr`, `true` are literals.
    Lit(&'a str),
    Attr(Box<Expr<'a>>, &'a str),
    Index(Box<Expr<'a>>, Box<Expr<'a>>),
    Call(Box<Call<'a>>),
    Not(Box<Expr<'a>>),
    And(Vec<Expr<'a>>),
    Or(Vec<Expr<'a>>),
    Compare(Cmp, Box<(Expr<'a>, Expr<'a>)>),
    Cond(Box<(Expr<'a>, Expr<'a>, Expr<'a>)>),
    /// Generators (target, source, conditions), then what is built.
    Comprehension(Vec<(Expr<'a>, Expr<'a>, Vec<Expr<'a>>)>, Vec<Expr<'a>>),
    /// Parameters and body of an anonymous function.
    Closure(Vec<&'a str>, Box<Expr<'a>>),
    /// An assignment used as an expression.
    Let(Box<(Expr<'a>, Expr<'a>)>),
    /// `yield x`, `co_await x`.
    Yield(Box<Expr<'a>>),
    /// A container built here: list, dict, tuple, struct or aggregate initialiser.
    Build(Vec<Expr<'a>>),
    /// Any other operator over its operands.
    Op(Vec<Expr<'a>>),
    /// Names mentioned somewhere in text that was not lowered (an unparsable or too deeply nested part).
    Mentions(Vec<&'a str>),
}

#[derive(Debug)]
pub struct Call<'a> {
    pub callee: Expr<'a>,
    pub args: Vec<Arg<'a>>,
    pub offset: u32,
}

#[derive(Debug)]
pub struct Arg<'a> {
    pub name: Option<&'a str>,
    /// `*x` or `**x`.
    pub spread: bool,
    pub value: Expr<'a>,
}

impl<'a> Expr<'a> {
    pub fn nothing() -> Self {
        Self::Op(Vec::new())
    }

    /// `a.b.c` of names and attributes, or nothing where a part is computed.
    pub fn dotted(&self) -> Option<String> {
        match self {
            Self::Name(name) => Some((*name).to_owned()),
            Self::Attr(base, name) => {
                let mut path = base.dotted()?;
                path.push('.');
                path.push_str(name);
                Some(path)
            }
            _ => None,
        }
    }

    /// The variable at the root of attributes, subscripts and method calls.
    pub fn root(&self) -> Option<&'a str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Attr(base, _) | Self::Index(base, _) => base.root(),
            Self::Call(call) => match &call.callee {
                Self::Attr(base, _) => base.root(),
                _ => None,
            },
            Self::Op(parts) if parts.len() == 1 => parts[0].root(),
            _ => None,
        }
    }

    pub fn is_literal(&self) -> bool {
        match self {
            Self::Lit(_) => true,
            Self::Op(parts) | Self::Build(parts) => !parts.is_empty() && parts.iter().all(Self::is_literal),
            _ => false,
        }
    }
}
