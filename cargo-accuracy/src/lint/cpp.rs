//! C++, HIP and CUDA to the neutral form, by tree-sitter's CUDA grammar (a superset of its C++ grammar). It
//! tolerates errors: what does not parse still counts as a mention of the names in it. Bodies of macros are
//! kept as lists of identifiers.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;
use tree_sitter::{Node, ParseOptions, Parser, TreeCursor};

use super::ir::{Arg, Call, Cmp, Expr, Function, Param, ParamKind, Stmt, Traits};
use super::source::{Module, Table};

const MAX_DEPTH: u32 = 250;
/// A file that takes longer to parse, although the parser has had more than its share of steps for a file of that length,
/// is passed over. A busy machine alone is no reason.
const PARSE_LIMIT: Duration = Duration::from_secs(5);

pub fn with_module<T>(text: &str, then: impl FnOnce(&Module) -> T) -> Result<T, String> {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_cuda::LANGUAGE.into()).map_err(|e| e.to_string())?;
    let started = Instant::now();
    // The parser calls back every hundred steps; source has a few steps for each byte.
    let share = 2_000 + text.len() / 8;
    let mut calls = 0usize;
    let mut stop = |_: &tree_sitter::ParseState| {
        calls += 1;
        let over = calls > share && started.elapsed() > PARSE_LIMIT;
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let bytes = text.as_bytes();
    let tree = parser
        .parse_with_options(
            &mut |at, _| bytes.get(at..).unwrap_or(&[]),
            None,
            Some(ParseOptions::new().progress_callback(&mut stop)),
        )
        .ok_or_else(|| format!("not parsed within {} s", PARSE_LIMIT.as_secs()))?;
    let mut lower = Lower {
        text,
        module: Module::default(),
        depth: 0,
        locals: FxHashSet::default(),
        namespaces: Vec::new(),
    };
    lower.macros();
    lower.registered_fakes();
    lower.items(tree.root_node(), None, 0);
    Ok(then(&lower.module))
}

struct Lower<'a> {
    text: &'a str,
    module: Module<'a>,
    depth: u32,
    /// What the function declares, its parameters included.
    locals: FxHashSet<&'a str>,
    /// The namespaces around the definition at hand.
    namespaces: Vec<&'a str>,
}

/// Named children, comments left out.
fn children<'t>(node: Node<'t>) -> Vec<Node<'t>> {
    let mut cursor = node.walk();
    node.named_children(&mut cursor).filter(|n| n.kind() != "comment").collect()
}

impl<'a> Lower<'a> {
    fn slice(&self, node: Node) -> &'a str {
        self.text.get(node.byte_range()).unwrap_or("")
    }

    /// Definitions at namespace or class level.
    fn items(&mut self, node: Node, class: Option<&'a str>, depth: u32) {
        if depth > MAX_DEPTH {
            return;
        }
        let mut cursor = node.walk();
        let list: Vec<Node> = node.named_children(&mut cursor).collect();
        for n in list {
            match n.kind() {
                "function_definition" => self.function(n, class, false),
                "namespace_definition" => {
                    let name = n.child_by_field_name("name").map(|c| self.slice(c)).unwrap_or("");
                    self.namespaces.push(name);
                    self.items(n, class, depth + 1);
                    self.namespaces.pop();
                }
                "template_declaration"
                | "declaration_list"
                | "linkage_specification"
                | "preproc_ifdef"
                | "preproc_if"
                | "preproc_else"
                | "preproc_elif"
                | "field_declaration_list"
                | "ERROR"
                | "export_declaration" => self.items(n, class, depth + 1),
                "class_specifier" | "struct_specifier" | "union_specifier" => {
                    let name = n.child_by_field_name("name").map(|c| self.slice(c)).or(Some("?"));
                    if let Some(body) = n.child_by_field_name("body") {
                        self.items(body, name, depth + 1);
                    }
                }
                "declaration" | "field_declaration" => {
                    self.declaration_of_function(n);
                    // `struct S { ... } s;` and namespace-scope tables.
                    for c in children(n) {
                        match c.kind() {
                            "class_specifier" | "struct_specifier" => {
                                let name = c.child_by_field_name("name").map(|c| self.slice(c)).or(Some("?"));
                                if let Some(body) = c.child_by_field_name("body") {
                                    self.items(body, name, depth + 1);
                                }
                            }
                            "init_declarator" => self.table(c),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// A namespace-scope initialiser that names functions: a dispatch table.
    fn table(&mut self, n: Node) {
        let Some(value) = n.child_by_field_name("value") else { return };
        if value.kind() != "initializer_list" {
            return;
        }
        let members: Vec<String> = children(value)
            .iter()
            .filter_map(|c| match c.kind() {
                "identifier" => Some(self.slice(*c).to_owned()),
                "initializer_list" => children(*c)
                    .last()
                    .filter(|l| l.kind() == "identifier")
                    .map(|l| self.slice(*l).to_owned()),
                _ => None,
            })
            .collect();
        if members.len() >= 2 {
            self.module.tables.push(Table { offset: n.start_byte() as u32, members });
        }
    }

    /// Every `#define` with its continuation lines, read from the text: the parser gives up on large ones.
    fn macros(&mut self) {
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            let Some(rest) = line.trim_start().strip_prefix('#') else { continue };
            let Some(rest) = rest.trim_start().strip_prefix("define") else { continue };
            let rest = rest.trim_start();
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let (name, mut body) = rest.split_at(end);
            let mut own: Vec<&str> = Vec::new();
            if let Some(list) = body.strip_prefix('(')
                && let Some((params, after)) = list.split_once(')')
            {
                own = words(params).collect();
                body = after;
            }
            let mut ids: Vec<&'a str> = words(body).collect();
            let mut continued = line.trim_end().ends_with('\\');
            while continued {
                let Some(next) = lines.next() else { break };
                ids.extend(words(next));
                continued = next.trim_end().ends_with('\\');
            }
            ids.retain(|w| !own.contains(w));
            ids.sort_unstable();
            ids.dedup();
            self.module.macros.push((name, ids));
        }
    }

    /// Functions that are registered for tensors without data: `m.impl("name", &f)` in a block for `Meta`, or
    /// `m.impl("name", torch::kMeta, &f)`. Read from the text, since macros surround it.
    fn registered_fakes(&mut self) {
        let mut from = 0;
        while let Some(at) = self.text.get(from..).and_then(|t| t.find("_LIBRARY_IMPL")).map(|i| i + from) {
            let rest = &self.text[at..];
            let open = rest.find('{').unwrap_or(rest.len());
            let meta = words(&rest[..open]).any(|w| w == "Meta");
            let mut depth = 0u32;
            let end = rest.bytes().enumerate().skip(open).find_map(|(i, b)| {
                depth = match b {
                    b'{' => depth + 1,
                    b'}' => depth.saturating_sub(1),
                    _ => depth,
                };
                (depth == 0).then_some(i)
            });
            let end = end.unwrap_or(rest.len());
            if meta {
                self.implementations(&rest[open.min(end)..end], |_| true);
            }
            from = at + end.max(1);
        }
        self.implementations(self.text, |args| args.contains("kMeta"));
    }

    /// The last argument of each `.impl(..)` in a text whose arguments are wanted.
    fn implementations(&mut self, text: &str, wanted: impl Fn(&str) -> bool) {
        for (at, call) in text.match_indices(".impl(") {
            let rest = &text[at + call.len()..];
            let Some(args) = rest.find(';').and_then(|end| rest.get(..end)).filter(|a| a.len() < 400) else {
                continue;
            };
            if !wanted(args) {
                continue;
            }
            let last = args.rsplit(',').next().unwrap_or("");
            if let Some(name) = words(last).filter(|w| *w != "TORCH_FN").last() {
                self.module.fakes.push((None, name.to_owned()));
            }
        }
    }

    fn declaration_of_function(&mut self, n: Node) {
        let Some(d) = n.child_by_field_name("declarator") else { return };
        let Some(f) = function_declarator(d) else { return };
        let Some(list) = f.child_by_field_name("parameters") else { return };
        let params: Vec<&'a str> = self.params(list).into_iter().map(|p| p.name).collect();
        if let Some(name) = self.function_name(f)
            && !params.is_empty()
        {
            self.module.declarations.push((name.0, params));
        }
    }

    /// Last name and the class or namespace written before it.
    fn function_name(&self, f: Node) -> Option<(&'a str, Option<&'a str>)> {
        let mut n = f.child_by_field_name("declarator")?;
        let mut scope = None;
        for _ in 0..16 {
            match n.kind() {
                "qualified_identifier" => {
                    scope = n.child_by_field_name("scope").map(|s| self.slice(s)).or(scope);
                    n = n.child_by_field_name("name")?;
                }
                "template_function" | "template_method" | "template_type" => {
                    n = n.child_by_field_name("name")?
                }
                "parenthesized_declarator" | "pointer_declarator" => n = children(n).into_iter().next()?,
                "identifier" | "field_identifier" | "operator_name" | "destructor_name"
                | "type_identifier" => {
                    return Some((self.slice(n), scope));
                }
                _ => return None,
            }
        }
        None
    }

    fn function(&mut self, n: Node, class: Option<&'a str>, nested: bool) {
        let Some(declarator) = n.child_by_field_name("declarator") else { return };
        let Some(f) = function_declarator(declarator) else { return };
        let Some((name, scope)) = self.function_name(f) else { return };
        let Some(list) = f.child_by_field_name("parameters") else { return };
        let Some(body) = n.child_by_field_name("body") else { return };
        let params = self.params(list);
        let head = self.text.get(n.start_byte()..f.start_byte()).unwrap_or("");
        let tail = self.text.get(list.end_byte()..body.start_byte()).unwrap_or("");
        let device =
            ["__global__", "__device__", "DEVICE", "DINLINE", "_DEV "].iter().any(|k| head.contains(k));
        let statements = children(body);
        let initializers = children(n).into_iter().find(|c| c.kind() == "field_initializer_list");
        let computes_nothing = statements.iter().all(|s| self.is_constant_return(*s) || self.gives_up(*s));
        let refuses = statements.first().is_some_and(|s| self.gives_up(*s));
        let stub = initializers.is_none() && (computes_nothing || refuses);
        let operator = name.starts_with("operator");
        let class = class.or(scope.filter(|s| s.starts_with(char::is_uppercase)));
        let traits = Traits {
            stub,
            device,
            interface: head.contains("virtual ") || tail.contains("override") || operator,
            nested,
            method: class.is_some(),
            accessor: name.starts_with('~'),
            damaged: body.has_error(),
            ..Traits::default()
        };
        self.depth = 0;
        self.locals.clear();
        self.locals.extend(params.iter().map(|p| p.name));
        self.declare(body);
        let mut lowered = Vec::new();
        if let Some(list) = initializers {
            lowered.push(Stmt::Expr(self.mentions(list)));
        }
        if !stub {
            lowered.extend(self.block(body));
        }
        let qualname = match (class, scope) {
            (Some(c), _) => format!("{c}::{name}"),
            (None, Some(s)) => format!("{s}::{name}"),
            _ => name.to_owned(),
        };
        self.module.functions.push(Function {
            name,
            qualname,
            class,
            params,
            decorators: Vec::new(),
            doc: self.comment_before(n),
            returns: n.child_by_field_name("type").map(|t| self.slice(t)),
            namespace: self
                .namespaces
                .iter()
                .copied()
                .chain(scope)
                // A nested name may be broken over lines.
                .map(|s| s.split_whitespace().collect::<String>())
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join("::"),
            body: lowered,
            start: f.start_byte() as u32,
            body_start: body.start_byte() as u32,
            end: n.end_byte() as u32,
            traits,
            imports: Vec::new(),
        });
    }

    /// The comments right before a definition, its `template` line included.
    fn comment_before(&self, n: Node) -> Option<&'a str> {
        let mut at = n;
        while let Some(p) = at.parent().filter(|p| p.kind() == "template_declaration") {
            at = p;
        }
        let mut first = None;
        let mut below = at.start_position().row;
        let mut last = at;
        while let Some(c) = last.prev_sibling().filter(|c| c.kind() == "comment") {
            if c.end_position().row + 1 < below {
                break;
            }
            below = c.start_position().row;
            first = Some(c.start_byte());
            last = c;
        }
        self.text.get(first?..at.start_byte())
    }

    /// The left side of an assignment. A name that the function does not declare is a member or a global.
    fn target(&mut self, n: Node) -> Expr<'a> {
        match n.kind() {
            "identifier" if !self.locals.contains(self.slice(n)) => {
                Expr::Attr(Box::new(Expr::Name("this")), self.slice(n))
            }
            _ => self.expr(n),
        }
    }

    fn is_constant_return(&self, statement: Node) -> bool {
        statement.kind() == "return_statement"
            && children(statement)
                .first()
                .is_none_or(|v| matches!(v.kind(), "number_literal" | "true" | "false" | "null"))
    }

    /// Whether nothing comes after: `throw`, a macro that throws, a check that always fails.
    fn gives_up(&self, statement: Node) -> bool {
        let call = match statement.kind() {
            "throw_statement" => return true,
            "expression_statement" => children(statement).into_iter().next(),
            _ => None,
        };
        let Some(call) = call.filter(|c| c.kind() == "call_expression") else { return false };
        let Some(callee) = call.child_by_field_name("function").map(|f| self.slice(f)) else { return false };
        let throws = ["THROW", "UNREACHABLE", "NOT_IMPLEMENTED", "_ERROR", "_FATAL", "_ABORT"]
            .iter()
            .any(|k| callee.ends_with(k));
        let test = call.child_by_field_name("arguments").and_then(|a| children(a).into_iter().next());
        let fails = test.is_some_and(|t| matches!(self.slice(t), "false" | "0"));
        throws && check_kind(callee).is_none() || fails && check_kind(callee).is_some()
    }

    fn params(&self, list: Node) -> Vec<Param<'a>> {
        let mut out: Vec<Param<'a>> = Vec::new();
        let mut cursor = list.walk();
        for n in list.named_children(&mut cursor) {
            match n.kind() {
                "parameter_declaration" | "optional_parameter_declaration" => {
                    let name = n
                        .child_by_field_name("declarator")
                        .and_then(|d| declared(d))
                        .map(|d| (self.slice(d), d));
                    let ty = n.child_by_field_name("type");
                    if name.is_none() && ty.is_some_and(|t| self.slice(t) == "void") {
                        continue;
                    }
                    let text = self.slice(n);
                    out.push(Param {
                        name: name.map_or("", |n| n.0),
                        kind: ParamKind::Positional,
                        default: n.child_by_field_name("default_value").map(|d| self.slice(d)),
                        annotation: ty.map(|t| self.slice(t)),
                        offset: name.map_or(n.start_byte(), |n| n.1.start_byte()) as u32,
                        disowned: name.is_none()
                            || text.contains("maybe_unused")
                            || text.contains("__unused"),
                        output: n
                            .child_by_field_name("declarator")
                            .is_some_and(|d| d.kind() == "reference_declarator")
                            && !text.trim_start().starts_with("const "),
                    });
                }
                "variadic_parameter_declaration" | "variadic_parameter" => out.push(Param {
                    name: n
                        .child_by_field_name("declarator")
                        .and_then(declared)
                        .map_or("...", |d| self.slice(d)),
                    kind: ParamKind::VarArgs,
                    default: None,
                    annotation: None,
                    offset: n.start_byte() as u32,
                    disowned: false,
                    output: false,
                }),
                // `const float /*softcap*/`: the comment is the name.
                "comment" => {
                    let text = self.slice(n);
                    let inner = text.trim_start_matches("/*").trim_end_matches("*/").trim();
                    let identifier = !inner.is_empty()
                        && inner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                        && !inner.starts_with(|c: char| c.is_ascii_digit());
                    if text.starts_with("/*")
                        && identifier
                        && let Some(last) = out.last_mut()
                        && last.name.is_empty()
                    {
                        last.name = inner;
                    }
                }
                _ => {}
            }
        }
        out
    }

    // ---------------------------------------------------------------- statements

    fn block(&mut self, n: Node) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        for c in children(n) {
            self.stmt(c, &mut out);
        }
        out
    }

    /// A statement as a block of its own.
    fn body(&mut self, n: Node) -> Vec<Stmt<'a>> {
        if n.kind() == "compound_statement" {
            return self.block(n);
        }
        let mut out = Vec::new();
        self.stmt(n, &mut out);
        out
    }

    fn stmt(&mut self, n: Node, out: &mut Vec<Stmt<'a>>) {
        if self.depth >= MAX_DEPTH {
            out.push(Stmt::Expr(self.mentions(n)));
            return;
        }
        let depth = self.depth;
        self.depth += 1;
        self.stmt_inner(n, out);
        // A function inside of it counts from zero.
        self.depth = depth;
    }

    fn stmt_inner(&mut self, n: Node, out: &mut Vec<Stmt<'a>>) {
        match n.kind() {
            "compound_statement" => {
                let block = self.block(n);
                out.push(Stmt::Block(block));
            }
            "expression_statement" => {
                for c in children(n) {
                    self.expression_statement(c, out);
                }
            }
            "declaration" => self.local_declaration(n, out),
            "if_statement" => self.if_statement(n, out),
            "for_statement" => self.for_statement(n, out),
            "for_range_loop" => {
                let head = n.child_by_field_name("right").map(|c| self.expr(c));
                let target =
                    n.child_by_field_name("declarator").and_then(declared).map(|d| Expr::Name(self.slice(d)));
                let body = n.child_by_field_name("body").map(|b| self.body(b)).unwrap_or_default();
                out.push(Stmt::Loop { head, target, body, orelse: Vec::new() });
            }
            "while_statement" | "do_statement" => {
                let head = n
                    .child_by_field_name("condition")
                    .map(|c| c.child_by_field_name("value").unwrap_or(c))
                    .map(|c| self.expr(c));
                let body = n.child_by_field_name("body").map(|b| self.body(b)).unwrap_or_default();
                out.push(Stmt::Loop { head, target: None, body, orelse: Vec::new() });
            }
            "switch_statement" => self.switch_statement(n, out),
            "return_statement" | "co_return_statement" => {
                let value = children(n).into_iter().next().map(|c| self.expr(c));
                out.push(Stmt::Return(value));
            }
            "throw_statement" => {
                let value = children(n).into_iter().next().map(|c| self.expr(c));
                out.push(Stmt::Raise(value));
            }
            "break_statement" | "continue_statement" | "goto_statement" => out.push(Stmt::Leave),
            "try_statement" => {
                let body = n.child_by_field_name("body").map(|b| self.block(b)).unwrap_or_default();
                let handlers = children(n)
                    .into_iter()
                    .filter(|c| c.kind() == "catch_clause")
                    .map(|c| c.child_by_field_name("body").map(|b| self.block(b)).unwrap_or_default())
                    .collect();
                out.push(Stmt::Try { body, handlers, orelse: Vec::new(), finally: Vec::new() });
            }
            "preproc_ifdef" | "preproc_if" | "preproc_elif" => self.conditional_group(n, out),
            "preproc_else" => {
                let block = self.block(n);
                out.push(Stmt::Block(block));
            }
            "preproc_def" | "preproc_function_def" => {
                // A macro defined inside a body may be used anywhere in it.
                out.push(Stmt::Expr(self.mentions(n)));
            }
            "labeled_statement" | "case_statement" | "attributed_statement" => {
                for c in children(n) {
                    if !matches!(c.kind(), "statement_identifier" | "attribute_declaration") {
                        self.stmt(c, out);
                    }
                }
            }
            "function_definition" => self.function(n, None, true),
            "class_specifier" | "struct_specifier" | "union_specifier" => {
                let mut reads = Vec::new();
                self.names_in(n, &mut reads);
                out.push(Stmt::Nested { name: "", reads, decorated: true });
            }
            "using_declaration"
            | "alias_declaration"
            | "type_definition"
            | "static_assert_declaration"
            | "preproc_include"
            | "preproc_call"
            | "enum_specifier"
            | "namespace_alias_definition" => {}
            "template_declaration" => out.push(Stmt::Expr(self.mentions(n))),
            _ => self.expression_statement(n, out),
        }
    }

    /// `#if` with its `#else`, as a branch.
    fn conditional_group(&mut self, n: Node, out: &mut Vec<Stmt<'a>>) {
        let alternative = n.child_by_field_name("alternative");
        let skip = [n.child_by_field_name("name"), n.child_by_field_name("condition"), alternative];
        let mut then = Vec::new();
        for c in children(n) {
            if !skip.contains(&Some(c)) {
                self.stmt(c, &mut then);
            }
        }
        let mut orelse = Vec::new();
        if let Some(a) = alternative {
            self.stmt(a, &mut orelse);
        }
        out.push(Stmt::If { test: Expr::Lit("#if"), then, orelse });
    }

    fn switch_statement(&mut self, n: Node, out: &mut Vec<Stmt<'a>>) {
        let subject = n
            .child_by_field_name("condition")
            .map(|c| c.child_by_field_name("value").unwrap_or(c))
            .map_or(Expr::nothing(), |c| self.expr(c));
        let mut arms: Vec<(Option<Expr>, Vec<Stmt>)> = Vec::new();
        if let Some(body) = n.child_by_field_name("body") {
            for case in children(body) {
                if case.kind() != "case_statement" {
                    // A directive (`#pragma unroll`) ends the case for the parser; what follows belongs to it.
                    match arms.last_mut() {
                        Some((_, stmts)) => self.stmt(case, stmts),
                        None => self.stmt(case, out),
                    }
                    continue;
                }
                let value = case.child_by_field_name("value");
                let mut stmts = Vec::new();
                for c in children(case) {
                    if Some(c) != value {
                        self.stmt(c, &mut stmts);
                    }
                }
                let test = value.map(|v| Expr::Lit(self.slice(v)));
                arms.push((test, stmts));
            }
        }
        out.push(Stmt::Switch { subject, arms });
    }

    fn for_statement(&mut self, n: Node, out: &mut Vec<Stmt<'a>>) {
        if let Some(i) = n.child_by_field_name("initializer") {
            if i.kind() == "declaration" {
                self.local_declaration(i, out);
            } else {
                self.expression_statement(i, out);
            }
        }
        let head = n.child_by_field_name("condition").map(|c| self.expr(c));
        let mut body = n.child_by_field_name("body").map(|b| self.body(b)).unwrap_or_default();
        if let Some(u) = n.child_by_field_name("update") {
            self.expression_statement(u, &mut body);
        }
        out.push(Stmt::Loop { head, target: None, body, orelse: Vec::new() });
    }

    fn if_statement(&mut self, n: Node, out: &mut Vec<Stmt<'a>>) {
        let mut test = Expr::nothing();
        if let Some(c) = n.child_by_field_name("condition") {
            if let Some(init) = c.child_by_field_name("initializer") {
                self.stmt(init, out);
            }
            match c.child_by_field_name("value") {
                Some(v) if v.kind() == "declaration" => {
                    self.local_declaration(v, out);
                    test = v
                        .child_by_field_name("declarator")
                        .and_then(declared)
                        .map_or(test, |d| Expr::Name(self.slice(d)));
                }
                Some(v) => test = self.expr(v),
                None => test = self.expr(c),
            }
        }
        let then = n.child_by_field_name("consequence").map(|c| self.body(c)).unwrap_or_default();
        let orelse = match n.child_by_field_name("alternative") {
            Some(e) if e.kind() == "else_clause" => {
                children(e).into_iter().next().map(|c| self.body(c)).unwrap_or_default()
            }
            Some(e) => self.body(e),
            None => Vec::new(),
        };
        out.push(Stmt::If { test, then, orelse });
    }

    fn local_declaration(&mut self, n: Node, out: &mut Vec<Stmt<'a>>) {
        let ty = n.child_by_field_name("type").map_or("", |t| self.slice(t));
        let mut cursor = n.walk();
        let declarators: Vec<Node> = n.children_by_field_name("declarator", &mut cursor).collect();
        for d in declarators {
            match d.kind() {
                "init_declarator" => {
                    let Some(inner) = d.child_by_field_name("declarator") else { continue };
                    let value = d.child_by_field_name("value");
                    let value = match value {
                        None => Expr::nothing(),
                        // `T x(a, b)`: a constructor.
                        Some(v) if v.kind() == "argument_list" => Expr::Call(Box::new(Call {
                            callee: Expr::Name(last_segment(ty)),
                            args: self.arguments(v),
                            offset: d.start_byte() as u32,
                        })),
                        Some(v) => self.expr(v),
                    };
                    let targets = if inner.kind() == "structured_binding_declarator" {
                        vec![Expr::Build(
                            children(inner).iter().map(|c| Expr::Name(self.slice(*c))).collect(),
                        )]
                    } else {
                        match declared(inner) {
                            Some(name) => vec![Expr::Name(self.slice(name))],
                            None => Vec::new(),
                        }
                    };
                    out.push(Stmt::Assign { targets, value, augmented: false });
                }
                // `T x(a, b);` reads as a function declaration whose parameters are types.
                "function_declarator" => {
                    let mut reads = Vec::new();
                    self.names_in(d, &mut reads);
                    out.push(Stmt::Expr(Expr::Mentions(reads)));
                }
                _ => {
                    if let Some(name) = declared(d) {
                        out.push(Stmt::Assign {
                            targets: vec![Expr::Name(self.slice(name))],
                            value: Expr::nothing(),
                            augmented: false,
                        });
                    }
                }
            }
        }
    }

    fn expression_statement(&mut self, n: Node, out: &mut Vec<Stmt<'a>>) {
        match n.kind() {
            "assignment_expression" => {
                let Some((left, right)) = sides(n) else { return };
                let target = self.target(left);
                let value = self.expr(right);
                let augmented = n.child_by_field_name("operator").is_some_and(|o| self.slice(o) != "=");
                if matches!(&target, Expr::Attr(base, "ignore") if matches!(**base, Expr::Name("std"))) {
                    out.push(Stmt::Discard(vec![value]));
                } else {
                    out.push(Stmt::Assign { targets: vec![target], value, augmented });
                }
            }
            "cast_expression" if n.child_by_field_name("type").is_some_and(|t| self.slice(t) == "void") => {
                let value = n.child_by_field_name("value").map_or(Expr::nothing(), |v| self.expr(v));
                out.push(Stmt::Discard(vec![value]));
            }
            "call_expression" => {
                let callee = n.child_by_field_name("function").map_or("", |f| self.slice(f));
                if callee == "static_cast<void>"
                    || matches!(callee, "UNUSED" | "Q_UNUSED" | "AITER_UNUSED" | "C10_UNUSED")
                {
                    let args =
                        n.child_by_field_name("arguments").map(|a| self.arguments(a)).unwrap_or_default();
                    out.push(Stmt::Discard(args.into_iter().map(|a| a.value).collect()));
                    return;
                }
                if let Some(check) = check_kind(callee) {
                    let args =
                        n.child_by_field_name("arguments").map(|a| self.arguments(a)).unwrap_or_default();
                    self.check(check, args, out);
                    return;
                }
                let value = self.expr(n);
                out.push(Stmt::Expr(value));
                if matches!(
                    callee,
                    "abort" | "exit" | "std::abort" | "std::exit" | "std::terminate" | "__trap" | "AT_ERROR"
                ) {
                    out.push(Stmt::Raise(None));
                }
            }
            "comma_expression" => {
                if let Some((l, r)) = sides(n) {
                    self.expression_statement(l, out);
                    self.expression_statement(r, out);
                }
            }
            "binary_expression"
                if n.child_by_field_name("operator").is_some_and(|o| self.slice(o) == "<<") =>
            {
                // `stream << a << b`.
                let mut parts = Vec::new();
                let mut at = n;
                while at.kind() == "binary_expression" {
                    let Some((l, r)) = sides(at) else { break };
                    parts.push(r);
                    at = l;
                }
                let values: Vec<Expr> = parts.into_iter().map(|p| self.expr(p)).collect();
                let stream = self.slice(at);
                if stream.ends_with("cout")
                    || stream.ends_with("cerr")
                    || stream.contains("LOG")
                    || stream.ends_with("clog")
                {
                    let args =
                        values.into_iter().map(|value| Arg { name: None, spread: false, value }).collect();
                    out.push(Stmt::Expr(Expr::Call(Box::new(Call {
                        callee: Expr::Name("print"),
                        args,
                        offset: n.start_byte() as u32,
                    }))));
                } else {
                    let target = self.expr(at);
                    out.push(Stmt::Assign {
                        targets: vec![target],
                        value: Expr::Op(values),
                        augmented: true,
                    });
                }
            }
            "parenthesized_expression" => {
                for c in children(n) {
                    self.expression_statement(c, out);
                }
            }
            "identifier" => out.push(Stmt::Discard(vec![Expr::Name(self.slice(n))])),
            "update_expression" => {}
            "ERROR" => out.push(Stmt::Expr(self.mentions(n))),
            _ => {
                let value = self.expr(n);
                out.push(Stmt::Expr(value));
            }
        }
    }

    fn check(&mut self, kind: Check, mut args: Vec<Arg<'a>>, out: &mut Vec<Stmt<'a>>) {
        let rest = |args: Vec<Arg<'a>>| args.into_iter().map(|a| a.value).collect();
        match kind {
            Check::Holds => {
                if args.is_empty() {
                    return;
                }
                let test = args.remove(0).value;
                if matches!(test, Expr::Lit("false" | "0")) {
                    out.push(Stmt::Raise(Some(Expr::Op(rest(args)))));
                } else {
                    out.push(Stmt::Assert { test, message: rest(args) });
                }
            }
            Check::Compares(cmp) => {
                if args.len() < 2 {
                    return;
                }
                let a = args.remove(0).value;
                let b = args.remove(0).value;
                out.push(Stmt::Assert { test: Expr::Compare(cmp, Box::new((a, b))), message: rest(args) });
            }
        }
    }

    // ---------------------------------------------------------------- expressions

    fn arguments(&mut self, list: Node) -> Vec<Arg<'a>> {
        children(list)
            .into_iter()
            .map(|c| Arg { name: None, spread: c.kind() == "parameter_pack_expansion", value: self.expr(c) })
            .collect()
    }

    fn all(&mut self, n: Node) -> Vec<Expr<'a>> {
        children(n).into_iter().map(|c| self.expr(c)).collect()
    }

    fn field(&mut self, n: Node, name: &str) -> Expr<'a> {
        n.child_by_field_name(name).map_or(Expr::nothing(), |c| self.expr(c))
    }

    fn expr(&mut self, n: Node) -> Expr<'a> {
        if self.depth >= MAX_DEPTH {
            return self.mentions(n);
        }
        let depth = self.depth;
        self.depth += 1;
        let e = self.expr_inner(n);
        // A function inside of it counts from zero.
        self.depth = depth;
        e
    }

    fn expr_inner(&mut self, n: Node) -> Expr<'a> {
        match n.kind() {
            "identifier" => match self.slice(n) {
                name @ ("NULL" | "nullptr" | "true" | "false") => Expr::Lit(name),
                name => Expr::Name(name),
            },
            "this" => Expr::Name("this"),
            "number_literal"
            | "string_literal"
            | "char_literal"
            | "true"
            | "false"
            | "null"
            | "nullptr"
            | "raw_string_literal"
            | "concatenated_string"
            | "user_defined_literal" => Expr::Lit(self.slice(n)),
            "qualified_identifier" => Expr::Name(self.slice(n)),
            "template_function" => match n.child_by_field_name("name") {
                Some(name) => {
                    let base = self.expr(name);
                    // Values may be template arguments.
                    let mut reads = Vec::new();
                    if let Some(args) = n.child_by_field_name("arguments") {
                        self.names_in(args, &mut reads);
                    }
                    if reads.is_empty() { base } else { Expr::Index(Box::new(base), Box::new(names(reads))) }
                }
                None => Expr::nothing(),
            },
            "field_expression" => {
                let base = self.field(n, "argument");
                let name = n.child_by_field_name("field").map_or("", |f| {
                    let f = if f.kind() == "template_method" {
                        f.child_by_field_name("name").unwrap_or(f)
                    } else {
                        f
                    };
                    self.slice(f)
                });
                Expr::Attr(Box::new(base), name)
            }
            "subscript_expression" => {
                let base = self.field(n, "argument");
                let index =
                    n.child_by_field_name("indices").map_or(Expr::nothing(), |i| Expr::Op(self.all(i)));
                Expr::Index(Box::new(base), Box::new(index))
            }
            "call_expression" => {
                let callee = self.field(n, "function");
                let mut args =
                    n.child_by_field_name("arguments").map(|a| self.arguments(a)).unwrap_or_default();
                let name = match &callee {
                    Expr::Index(base, _) => base,
                    other => other,
                };
                if let (Expr::Name("static_cast" | "reinterpret_cast" | "const_cast"), 1) = (name, args.len())
                {
                    return Expr::Op(vec![args.remove(0).value]);
                }
                let launch: Vec<Expr> = children(n)
                    .into_iter()
                    .filter(|c| c.kind() == "kernel_call_syntax")
                    .flat_map(|c| self.all(c))
                    .collect();
                let callee = if launch.is_empty() {
                    callee
                } else {
                    Expr::Index(Box::new(callee), Box::new(Expr::Op(launch)))
                };
                Expr::Call(Box::new(Call { callee, args, offset: n.start_byte() as u32 }))
            }
            "parenthesized_expression"
            | "condition_clause"
            | "pointer_expression"
            | "parameter_pack_expansion"
            | "initializer_pair"
            | "compound_literal_expression" => {
                let value = n.child_by_field_name("value").or(n.child_by_field_name("argument"));
                match value {
                    Some(v) if n.kind() == "pointer_expression" => Expr::Op(vec![self.expr(v)]),
                    Some(v) => self.expr(v),
                    None => {
                        let mut parts = self.all(n);
                        if parts.len() == 1 { parts.remove(0) } else { Expr::Op(parts) }
                    }
                }
            }
            "unary_expression" => {
                let inner = self.field(n, "argument");
                match n.child_by_field_name("operator").map_or("", |o| self.slice(o)) {
                    "!" | "not" => Expr::Not(Box::new(inner)),
                    _ if matches!(inner, Expr::Lit(_)) => Expr::Lit(self.slice(n)),
                    _ => Expr::Op(vec![inner]),
                }
            }
            "update_expression" => Expr::Op(vec![self.field(n, "argument")]),
            "cast_expression" => Expr::Op(vec![self.field(n, "value")]),
            "conditional_expression" => Expr::Cond(Box::new((
                self.field(n, "condition"),
                self.field(n, "consequence"),
                self.field(n, "alternative"),
            ))),
            "assignment_expression" => {
                let Some((l, r)) = sides(n) else { return self.mentions(n) };
                Expr::Let(Box::new((self.target(l), self.expr(r))))
            }
            "binary_expression" => self.binary(n),
            "initializer_list" | "argument_list" | "subscript_argument_list" | "comma_expression" => {
                Expr::Build(self.all(n))
            }
            "lambda_expression" => {
                let mut reads = Vec::new();
                self.names_in(n, &mut reads);
                Expr::Closure(Vec::new(), Box::new(Expr::Mentions(reads)))
            }
            "new_expression" => {
                let args = n.child_by_field_name("arguments").map(|a| self.arguments(a)).unwrap_or_default();
                let ty = n.child_by_field_name("type").map_or("", |t| self.slice(t));
                Expr::Call(Box::new(Call { callee: Expr::Name(ty), args, offset: n.start_byte() as u32 }))
            }
            "delete_expression" | "co_await_expression" => Expr::Op(self.all(n)),
            "sizeof_expression"
            | "alignof_expression"
            | "type_descriptor"
            | "primitive_type"
            | "type_identifier"
            | "field_designator"
            | "field_identifier"
            | "namespace_identifier" => Expr::nothing(),
            _ => self.mentions(n),
        }
    }

    /// Left spines of binary operators without recursion.
    fn binary(&mut self, n: Node) -> Expr<'a> {
        let operator = n.child_by_field_name("operator").map_or("", |o| self.slice(o));
        match operator {
            "&&" | "and" | "||" | "or" => {
                let kind = n.child_by_field_name("operator").map_or("", |o| o.kind());
                let mut parts = Vec::new();
                let mut at = n;
                while at.kind() == "binary_expression"
                    && at.child_by_field_name("operator").is_some_and(|o| o.kind() == kind)
                {
                    let Some((l, r)) = sides(at) else { break };
                    parts.push(self.expr(r));
                    at = l;
                }
                parts.push(self.expr(at));
                parts.reverse();
                if matches!(operator, "&&" | "and") { Expr::And(parts) } else { Expr::Or(parts) }
            }
            "==" | "!=" | "<" | "<=" | ">" | ">=" => {
                let Some((l, r)) = sides(n) else { return self.mentions(n) };
                let cmp = match operator {
                    "==" => Cmp::Same,
                    "!=" => Cmp::Differs,
                    "<" | "<=" => Cmp::Below,
                    _ => Cmp::Above,
                };
                Expr::Compare(cmp, Box::new((self.expr(l), self.expr(r))))
            }
            _ => {
                let mut parts = Vec::new();
                let mut at = n;
                while at.kind() == "binary_expression" {
                    let Some((l, r)) = sides(at) else { break };
                    parts.push(self.expr(r));
                    at = l;
                }
                parts.push(self.expr(at));
                parts.reverse();
                Expr::Op(parts)
            }
        }
    }

    fn mentions(&self, n: Node) -> Expr<'a> {
        let mut reads = Vec::new();
        self.names_in(n, &mut reads);
        Expr::Mentions(reads)
    }

    /// Collects the names that a body declares.
    fn declare(&mut self, body: Node) {
        let mut found = Vec::new();
        walk(body, |n| match n.kind() {
            "structured_binding_declarator" => {
                found.extend(children(n).into_iter().filter(|c| c.kind() == "identifier"));
            }
            "declaration"
            | "for_range_loop"
            | "condition_clause"
            | "parameter_declaration"
            | "optional_parameter_declaration" => {
                let mut cursor = n.walk();
                found.extend(n.children_by_field_name("declarator", &mut cursor).filter_map(declared));
            }
            _ => {}
        });
        let text = self.text;
        self.locals.extend(found.into_iter().filter_map(|n| text.get(n.byte_range())));
    }

    /// Identifiers in a subtree, without recursion. Type names too: `T x(a)` reads `a` as a type.
    fn names_in(&self, n: Node, out: &mut Vec<&'a str>) {
        walk(n, |at| match at.kind() {
            "identifier" | "type_identifier" => out.push(self.slice(at)),
            "preproc_arg" => out.extend(words(self.slice(at))),
            _ => {}
        });
        out.sort_unstable();
        out.dedup();
    }
}

/// Calls `visit` with every node of a subtree, parents first, without recursion.
fn walk<'t>(n: Node<'t>, mut visit: impl FnMut(Node<'t>)) {
    let mut cursor: TreeCursor = n.walk();
    let mut depth = 0usize;
    loop {
        visit(cursor.node());
        if cursor.goto_first_child() {
            depth += 1;
            continue;
        }
        loop {
            if depth == 0 {
                return;
            }
            if cursor.goto_next_sibling() {
                break;
            }
            cursor.goto_parent();
            depth -= 1;
        }
    }
}

fn names(reads: Vec<&str>) -> Expr<'_> {
    Expr::Op(reads.into_iter().map(Expr::Name).collect())
}

fn sides<'t>(n: Node<'t>) -> Option<(Node<'t>, Node<'t>)> {
    Some((n.child_by_field_name("left")?, n.child_by_field_name("right")?))
}

fn last_segment(ty: &str) -> &str {
    ty.split('<').next().unwrap_or(ty).rsplit("::").next().unwrap_or(ty).trim()
}

/// The function declarator under pointers and references.
fn function_declarator(mut d: Node) -> Option<Node> {
    for _ in 0..16 {
        match d.kind() {
            "function_declarator" => {
                // `int (*f)(int)` declares a pointer.
                return match d.child_by_field_name("declarator")?.kind() {
                    "parenthesized_declarator" => None,
                    _ => Some(d),
                };
            }
            "pointer_declarator" | "reference_declarator" | "attributed_declarator" | "init_declarator" => {
                d = match d.child_by_field_name("declarator") {
                    Some(inner) => inner,
                    None => children(d).into_iter().find(|c| c.kind().ends_with("declarator"))?,
                };
            }
            _ => return None,
        }
    }
    None
}

/// The identifier that a declarator declares.
fn declared(mut d: Node) -> Option<Node> {
    for _ in 0..16 {
        match d.kind() {
            "identifier" | "field_identifier" => return Some(d),
            "pointer_declarator" | "array_declarator" | "function_declarator" | "init_declarator" => {
                d = d.child_by_field_name("declarator")?;
            }
            "reference_declarator"
            | "parenthesized_declarator"
            | "attributed_declarator"
            | "variadic_declarator" => {
                d = children(d)
                    .into_iter()
                    .find(|c| c.kind().ends_with("declarator") || c.kind() == "identifier")?;
            }
            _ => return None,
        }
    }
    None
}

enum Check {
    Holds,
    Compares(Cmp),
}

/// Check macros by the shape of their names: `TORCH_CHECK`, `AITER_ASSERT`, `TVM_FFI_ICHECK_EQ`.
fn check_kind(name: &str) -> Option<Check> {
    let name = name.rsplit("::").next().unwrap_or(name);
    if name == "assert" {
        return Some(Check::Holds);
    }
    let upper = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if !upper || !["CHECK", "ASSERT", "ENFORCE", "REQUIRE", "VERIFY"].iter().any(|k| name.contains(k)) {
        return None;
    }
    Some(match name.rsplit('_').next() {
        Some("EQ") => Check::Compares(Cmp::Same),
        Some("NE") => Check::Compares(Cmp::Differs),
        Some("LT" | "LE") => Check::Compares(Cmp::Below),
        Some("GT" | "GE") => Check::Compares(Cmp::Above),
        _ => Check::Holds,
    })
}

/// Identifiers in raw text, member names left out.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|w| w.len() > 1 && !w.starts_with(|c: char| c.is_ascii_digit()))
}
