//! Python to the neutral form, by ruff's parser. Knows Python's syntax and nothing of flow or rules.

use ruff_python_ast as ast;
use ruff_python_ast::{Expr as Py, Stmt as PyStmt};
use ruff_text_size::{Ranged, TextRange};

use super::ir::{Arg, Call, Cmp, Decorator, Expr, Function, Import, Param, ParamKind, Stmt, Traits};
use super::names;
use super::source::{ClassDef, Fault, Lines, Module, Table};

/// Beyond this many nested expressions only the mentioned names are kept.
const MAX_DEPTH: u32 = 200;

/// Parses and lowers one file and hands the result to `then` while the syntax tree is alive.
pub fn with_module<T>(text: &str, then: impl FnOnce(&Module) -> T) -> Result<T, Fault> {
    let parsed = ruff_python_parser::parse_module(text).map_err(|e| {
        let (line, _) = Lines::new(text).locate(e.location.start().to_u32());
        Fault { line: Some(line), reason: format!("{}; passed over", e.error) }
    })?;
    let mut lower = Lower::new(text);
    lower.module_body(&parsed.syntax().body);
    Ok(then(&lower.module))
}

enum Scope<'a> {
    Class(&'a str),
    Function(&'a str),
}

struct Lower<'a> {
    text: &'a str,
    module: Module<'a>,
    scope: Vec<Scope<'a>>,
    depth: u32,
    /// Imports met in the function being lowered, innermost last.
    imports: Vec<Vec<Import<'a>>>,
    /// Names that the functions being lowered declare `global` or `nonlocal`.
    outer: Vec<&'a str>,
}

impl<'a> Lower<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            module: Module::default(),
            scope: Vec::new(),
            depth: 0,
            imports: Vec::new(),
            outer: Vec::new(),
        }
    }

    /// An assignment's target; a global outlives the function as an attribute does.
    fn target(&mut self, e: &'a Py) -> Expr<'a> {
        match e {
            Py::Name(n) if self.outer.contains(&n.id.as_str()) => {
                Expr::Attr(Box::new(Expr::Name("globals")), n.id.as_str())
            }
            other => self.expr(other),
        }
    }

    fn slice(&self, range: TextRange) -> &'a str {
        &self.text[range.start().to_usize()..range.end().to_usize()]
    }

    fn qualified(&self, name: &str) -> String {
        let mut out = String::new();
        for s in &self.scope {
            out.push_str(match s {
                Scope::Class(n) | Scope::Function(n) => n,
            });
            out.push('.');
        }
        out.push_str(name);
        out
    }

    fn module_body(&mut self, body: &'a [PyStmt]) {
        for stmt in body {
            match stmt {
                PyStmt::FunctionDef(f) => self.function(f),
                PyStmt::ClassDef(c) => self.class(c),
                PyStmt::Import(_) | PyStmt::ImportFrom(_) => {
                    let mut imports = Vec::new();
                    import(stmt, &mut imports);
                    self.module.imports.extend(imports);
                }
                PyStmt::If(s) => {
                    self.module_body(&s.body);
                    for clause in &s.elif_else_clauses {
                        self.module_body(&clause.body);
                    }
                }
                PyStmt::Try(s) => {
                    self.module_body(&s.body);
                    for ast::ExceptHandler::ExceptHandler(h) in &s.handlers {
                        self.module_body(&h.body);
                    }
                    self.module_body(&s.orelse);
                    self.module_body(&s.finalbody);
                }
                PyStmt::With(s) => self.module_body(&s.body),
                PyStmt::For(s) => self.module_body(&s.body),
                PyStmt::Assign(s) => {
                    self.tables(&s.value);
                    self.handed(&s.value);
                    // `TABLE_OF_ANOTHER["name"] = function`.
                    if s.targets.iter().any(|t| matches!(t, Py::Subscript(_))) {
                        self.module.references.extend(dotted(&s.value));
                    }
                    if let [Py::Name(target)] = s.targets.as_slice()
                        && let Some(path) = dotted(&s.value)
                    {
                        // `name = module.other` at module level is an alias.
                        self.module.aliases.push(Import { local: target.id.as_str(), path });
                    }
                    if let [target] = s.targets.as_slice()
                        && let Py::Call(call) = &*s.value
                        && let Py::Name(target) = target
                    {
                        self.wrapped(target.id.as_str(), call);
                    }
                }
                PyStmt::AnnAssign(s) => {
                    if let Some(value) = &s.value {
                        self.tables(value);
                        self.handed(value);
                    }
                }
                PyStmt::Expr(s) => {
                    self.tables(&s.value);
                    self.handed(&s.value);
                }
                _ => {}
            }
        }
    }

    /// `Entry(reference=f)`, `f.defvjp(forward, backward)`: who receives a function decides its signature. One that is
    /// only wrapped keeps its own.
    fn handed(&mut self, value: &'a Py) {
        match value {
            Py::Call(c) => {
                let arguments = &c.arguments;
                let values = || arguments.args.iter().chain(arguments.keywords.iter().map(|k| &k.value));
                if values().count() >= 2 {
                    self.module.references.extend(values().filter_map(dotted));
                }
                values().for_each(|v| self.listed(v));
            }
            other => self.listed(other),
        }
    }

    /// `(("name", f), ("other", g))`: a list of pairs of names and functions.
    fn listed(&mut self, value: &'a Py) {
        let elements = match value {
            Py::Tuple(t) => &t.elts,
            Py::List(l) => &l.elts,
            _ => return,
        };
        for e in elements {
            if let Py::Tuple(pair) = e
                && pair.elts.iter().any(|p| matches!(p, Py::StringLiteral(_)))
            {
                self.module.references.extend(pair.elts.iter().filter_map(dotted));
            }
        }
    }

    /// `name = wrapper(function)` keeps the function's signature under a second name.
    fn wrapped(&mut self, target: &'a str, call: &'a ast::ExprCall) {
        if call.arguments.args.len() == 1
            && call.arguments.keywords.is_empty()
            && let Some(path) = dotted(&call.arguments.args[0])
        {
            self.module.aliases.push(Import { local: target, path });
        }
    }

    fn class(&mut self, c: &'a ast::StmtClassDef) {
        let name = c.name.id.as_str();
        // `Base[Meta]` derives from `Base`.
        let base = |e: &'a Py| match e {
            Py::Subscript(s) => dotted(&s.value),
            other => dotted(other),
        };
        let bases: Vec<String> = c.arguments.iter().flat_map(|a| a.args.iter()).filter_map(base).collect();
        let methods = c
            .body
            .iter()
            .filter_map(|s| match s {
                PyStmt::FunctionDef(f) => Some(f.name.id.as_str()),
                _ => None,
            })
            .collect();
        self.module.classes.push(ClassDef { name: self.qualified(name), bases, methods });
        self.scope.push(Scope::Class(name));
        for stmt in &c.body {
            match stmt {
                PyStmt::FunctionDef(f) => self.function(f),
                PyStmt::ClassDef(c) => self.class(c),
                PyStmt::If(s) => {
                    for stmt in &s.body {
                        if let PyStmt::FunctionDef(f) = stmt {
                            self.function(f);
                        }
                    }
                }
                _ => {}
            }
        }
        self.scope.pop();
    }

    fn function(&mut self, f: &'a ast::StmtFunctionDef) {
        let name = f.name.id.as_str();
        let class = match self.scope.last() {
            Some(Scope::Class(c)) => Some(*c),
            _ => None,
        };
        let class_bases: &[String] = match class {
            Some(_) => self.module.classes.last().map_or(&[], |c| c.bases.as_slice()),
            None => &[],
        };
        let autograd = class_bases.iter().any(|b| b.ends_with("autograd.Function") || b == "Function");
        let protocol = class_bases.iter().any(|b| {
            let last = b.rsplit('.').next().unwrap_or(b);
            last == "Protocol"
        });
        let mut traits = Traits {
            nested: self.scope.iter().any(|s| matches!(s, Scope::Function(_))),
            method: class.is_some(),
            interface: protocol,
            ..Traits::default()
        };
        let mut static_method = false;
        let mut decorators = Vec::new();
        for d in &f.decorator_list {
            let (target, args) = match &d.expression {
                Py::Call(call) => (&*call.func, Some(&call.arguments)),
                other => (other, None),
            };
            let path = match target {
                Py::Call(inner) => dotted(&inner.func),
                other => dotted(other),
            }
            .unwrap_or_default();
            let last = path.rsplit('.').next().unwrap_or("");
            match last {
                "staticmethod" => static_method = true,
                "abstractmethod" | "override" => traits.interface = true,
                "overload" | "property" | "setter" | "cached_property" | "getter" => traits.accessor = true,
                "jit" | "kernel" | "autotune" | "heuristics" | "jit_kernel" | "prim_func" => {
                    traits.device |= last != "autotune" && last != "heuristics";
                }
                _ => {}
            }
            let mut names = Vec::new();
            if let Some(args) = args {
                for a in &args.args {
                    mentioned_names(a, &mut |n| names.push((None, n)));
                }
                for k in &args.keywords {
                    let key = k.arg.as_ref().map(|i| i.id.as_str());
                    mentioned_names(&k.value, &mut |n| names.push((key, n)));
                }
            }
            decorators.push(Decorator { path, args: names });
        }

        let mut params = Vec::new();
        let p = &*f.parameters;
        for (i, with) in p.posonlyargs.iter().chain(&p.args).enumerate() {
            let mut param = self.param(&with.parameter, ParamKind::Positional, with.default.as_deref());
            if i == 0 && class.is_some() && (!static_method || autograd) {
                param.kind = ParamKind::Receiver;
            }
            params.push(param);
        }
        if let Some(v) = &p.vararg {
            params.push(self.param(v, ParamKind::VarArgs, None));
        }
        for with in &p.kwonlyargs {
            params.push(self.param(&with.parameter, ParamKind::KeywordOnly, with.default.as_deref()));
        }
        if let Some(k) = &p.kwarg {
            params.push(self.param(k, ParamKind::KwArgs, None));
        }
        let doc = match f.body.first() {
            Some(PyStmt::Expr(s)) if matches!(&*s.value, Py::StringLiteral(_)) => {
                Some(self.slice(s.value.range()))
            }
            _ => None,
        };
        traits.stub = is_stub(&f.body);

        let qualname = self.qualified(name);
        let outer = std::mem::take(&mut self.outer);
        self.scope.push(Scope::Function(name));
        self.imports.push(Vec::new());
        let body = if traits.stub { Vec::new() } else { self.block(&f.body) };
        let imports = self.imports.pop().unwrap_or_default();
        self.scope.pop();
        self.outer = outer;
        self.module.functions.push(Function {
            name,
            qualname,
            class,
            params,
            decorators,
            doc,
            returns: f.returns.as_ref().map(|r| self.slice(r.range())),
            namespace: String::new(),
            body,
            start: f.name.range.start().to_u32(),
            body_start: f.body.first().map_or(f.range.start(), |s| s.range().start()).to_u32(),
            end: f.range.end().to_u32(),
            traits,
            imports,
        });
    }

    fn param(&self, p: &'a ast::Parameter, kind: ParamKind, default: Option<&'a Py>) -> Param<'a> {
        let name = p.name.id.as_str();
        Param {
            name,
            kind,
            default: default.map(|d| self.slice(d.range())),
            annotation: p.annotation.as_ref().map(|a| self.slice(a.range())),
            offset: p.range.start().to_u32(),
            disowned: super::names::disowned(name),
            output: false,
        }
    }

    /// Dictionaries and lists whose values are functions are dispatch tables; keyword arguments that name
    /// a fake or another implementation pair two functions.
    fn tables(&mut self, value: &'a Py) {
        match value {
            Py::Dict(d) => {
                let members: Vec<String> = d.items.iter().filter_map(|i| dotted(&i.value)).collect();
                if members.len() >= 2 && members.len() * 2 >= d.items.len() {
                    self.module.tables.push(Table { offset: d.range.start().to_u32(), members });
                }
            }
            Py::Call(c) => {
                let op = c.arguments.keywords.iter().find(|k| {
                    k.arg
                        .as_ref()
                        .is_some_and(|a| matches!(a.id.as_str(), "op_func" | "impl" | "func" | "fn"))
                });
                let fake = c.arguments.keywords.iter().find(|k| {
                    k.arg
                        .as_ref()
                        .is_some_and(|a| a.id.as_str().contains("fake") || a.id.as_str() == "abstract_impl")
                });
                if let Some(fake) = fake
                    && let Some(fake) = dotted(&fake.value)
                {
                    self.module.fakes.push((op.and_then(|o| dotted(&o.value)), fake));
                }
            }
            _ => {}
        }
    }

    fn block(&mut self, body: &'a [PyStmt]) -> Vec<Stmt<'a>> {
        let mut out = Vec::with_capacity(body.len());
        for s in body {
            self.stmt(s, &mut out);
        }
        out
    }

    fn stmt(&mut self, s: &'a PyStmt, out: &mut Vec<Stmt<'a>>) {
        match s {
            PyStmt::FunctionDef(f) => self.nested_function(f, out),
            PyStmt::ClassDef(c) => {
                let mut reads = Vec::new();
                for stmt in &c.body {
                    names_in_stmt(stmt, &mut |n| reads.push(n));
                }
                out.push(Stmt::Nested { name: c.name.id.as_str(), reads, decorated: true });
            }
            PyStmt::Return(r) => {
                let value = r.value.as_deref().map(|v| self.expr(v));
                out.push(Stmt::Return(value));
            }
            PyStmt::Delete(d) => {
                let targets = d.targets.iter().map(|t| self.expr(t)).collect();
                out.push(Stmt::Discard(targets));
            }
            PyStmt::Assign(a) => {
                self.tables(&a.value);
                let value = self.expr(&a.value);
                let targets: Vec<Expr> = a.targets.iter().map(|t| self.target(t)).collect();
                if let [Expr::Name("_")] = targets.as_slice() {
                    match &value {
                        Expr::Name(_) | Expr::Build(_) => out.push(Stmt::Discard(vec![value])),
                        _ => out.push(Stmt::Expr(value)),
                    }
                } else {
                    out.push(Stmt::Assign { targets, value, augmented: false });
                }
            }
            PyStmt::AugAssign(a) => {
                let value = self.expr(&a.value);
                let target = self.target(&a.target);
                out.push(Stmt::Assign { targets: vec![target], value, augmented: true });
            }
            PyStmt::AnnAssign(a) => {
                // `x: T.Tensor(shape)` without a value declares; it stores nothing.
                if let Some(value) = &a.value {
                    let value = self.expr(value);
                    let target = self.expr(&a.target);
                    out.push(Stmt::Assign { targets: vec![target], value, augmented: false });
                } else {
                    let annotation = self.expr(&a.annotation);
                    out.push(Stmt::Expr(Expr::Op(vec![annotation])));
                }
            }
            PyStmt::For(f) => {
                let head = Some(self.expr(&f.iter));
                let target = Some(self.expr(&f.target));
                let body = self.block(&f.body);
                let orelse = self.block(&f.orelse);
                out.push(Stmt::Loop { head, target, body, orelse });
            }
            PyStmt::While(w) => {
                let head = Some(self.expr(&w.test));
                let body = self.block(&w.body);
                let orelse = self.block(&w.orelse);
                out.push(Stmt::Loop { head, target: None, body, orelse });
            }
            PyStmt::If(i) => {
                let branch = self.if_statement(i);
                out.push(branch);
            }
            PyStmt::With(w) => {
                let items = w
                    .items
                    .iter()
                    .map(|i| (self.expr(&i.context_expr), i.optional_vars.as_deref().map(|v| self.expr(v))))
                    .collect();
                let body = self.block(&w.body);
                out.push(Stmt::With { items, body });
            }
            PyStmt::Match(m) => {
                let subject = self.expr(&m.subject);
                let mut arms = Vec::new();
                for case in &m.cases {
                    let guard = case.guard.as_deref().map(|g| self.expr(g));
                    arms.push((guard, self.block(&case.body)));
                }
                out.push(Stmt::Switch { subject, arms });
            }
            PyStmt::Raise(r) => {
                let exc = r.exc.as_deref().map(|e| self.expr(e));
                out.push(Stmt::Raise(exc));
            }
            PyStmt::Try(t) => {
                let body = self.block(&t.body);
                let handlers = t
                    .handlers
                    .iter()
                    .map(|ast::ExceptHandler::ExceptHandler(h)| self.block(&h.body))
                    .collect();
                let orelse = self.block(&t.orelse);
                let finally = self.block(&t.finalbody);
                out.push(Stmt::Try { body, handlers, orelse, finally });
            }
            PyStmt::Assert(a) => {
                let test = self.expr(&a.test);
                let message = a.msg.iter().map(|m| self.expr(m)).collect();
                out.push(Stmt::Assert { test, message });
            }
            PyStmt::Import(_) | PyStmt::ImportFrom(_) => {
                if let Some(imports) = self.imports.last_mut() {
                    import(s, imports);
                }
            }
            PyStmt::Expr(e) => self.expression_statement(e, out),
            PyStmt::Break(_) | PyStmt::Continue(_) => out.push(Stmt::Leave),
            PyStmt::Global(g) => self.outer.extend(g.names.iter().map(|n| n.id.as_str())),
            PyStmt::Nonlocal(g) => self.outer.extend(g.names.iter().map(|n| n.id.as_str())),
            PyStmt::Pass(_) | PyStmt::TypeAlias(_) | PyStmt::IpyEscapeCommand(_) => {}
        }
    }

    /// An expression whose value nobody takes: a call, or names that are only mentioned.
    fn expression_statement(&mut self, e: &'a ast::StmtExpr, out: &mut Vec<Stmt<'a>>) {
        if !matches!(&*e.value, Py::StringLiteral(_) | Py::EllipsisLiteral(_)) {
            self.tables(&e.value);
            let value = self.expr(&e.value);
            match value {
                Expr::Name(_) => out.push(Stmt::Discard(vec![value])),
                Expr::Build(parts) if parts.iter().all(|p| matches!(p, Expr::Name(_))) => {
                    out.push(Stmt::Discard(parts));
                }
                value => out.push(Stmt::Expr(value)),
            }
        }
    }

    /// `if` with its `elif` and `else`, as branches inside of each other.
    fn if_statement(&mut self, i: &'a ast::StmtIf) -> Stmt<'a> {
        let mut orelse = Vec::new();
        for clause in i.elif_else_clauses.iter().rev() {
            let body = self.block(&clause.body);
            orelse = match &clause.test {
                None => body,
                Some(test) => {
                    let test = self.expr(test);
                    vec![Stmt::If { test, then: body, orelse }]
                }
            };
        }
        let test = self.expr(&i.test);
        let then = self.block(&i.body);
        Stmt::If { test, then, orelse }
    }

    /// A function inside of another one: the names that it reads, and the function itself.
    fn nested_function(&mut self, f: &'a ast::StmtFunctionDef, out: &mut Vec<Stmt<'a>>) {
        let mut reads = Vec::new();
        for stmt in &f.body {
            names_in_stmt(stmt, &mut |n| reads.push(n));
        }
        let own: Vec<&str> = f.parameters.iter().map(|p| p.name().id.as_str()).collect();
        reads.retain(|r| !own.contains(r));
        // Defaults and decorators are evaluated out here: `def g(scale=scale)` reads this function's.
        for p in f.parameters.iter_non_variadic_params() {
            if let Some(d) = &p.default {
                mentioned_names(d, &mut |n| reads.push(n));
            }
        }
        for d in &f.decorator_list {
            mentioned_names(&d.expression, &mut |n| reads.push(n));
        }
        reads.sort_unstable();
        reads.dedup();
        out.push(Stmt::Nested { name: f.name.id.as_str(), reads, decorated: !f.decorator_list.is_empty() });
        self.function(f);
    }

    fn exprs<'b>(&mut self, list: impl IntoIterator<Item = &'b Py>) -> Vec<Expr<'a>>
    where
        'a: 'b,
        'b: 'a,
    {
        list.into_iter().map(|e| self.expr(e)).collect()
    }

    fn boxed(&mut self, e: &'a Py) -> Box<Expr<'a>> {
        Box::new(self.expr(e))
    }

    fn expr(&mut self, e: &'a Py) -> Expr<'a> {
        if self.depth >= MAX_DEPTH {
            let mut names = Vec::new();
            mentioned_names(e, &mut |n| names.push(n));
            return Expr::Mentions(names);
        }
        self.depth += 1;
        let out = self.expr_inner(e);
        self.depth -= 1;
        out
    }

    fn expr_inner(&mut self, e: &'a Py) -> Expr<'a> {
        match e {
            Py::Name(n) => Expr::Name(n.id.as_str()),
            Py::BoolOp(b) => {
                let values = self.exprs(&b.values);
                match b.op {
                    ast::BoolOp::And => Expr::And(values),
                    ast::BoolOp::Or => Expr::Or(values),
                }
            }
            Py::Named(n) => {
                let value = self.expr(&n.value);
                let target = self.expr(&n.target);
                Expr::Let(Box::new((target, value)))
            }
            Py::BinOp(_) => {
                // Left spines (`a + b + c`) are long in practice: walk them without recursion.
                let mut parts = Vec::new();
                let mut at = e;
                while let Py::BinOp(b) = at {
                    parts.push(self.expr(&b.right));
                    at = &b.left;
                }
                parts.push(self.expr(at));
                parts.reverse();
                Expr::Op(parts)
            }
            Py::UnaryOp(u) => match u.op {
                ast::UnaryOp::Not => Expr::Not(self.boxed(&u.operand)),
                _ if matches!(&*u.operand, Py::NumberLiteral(_)) => Expr::Lit(self.slice(u.range)),
                _ => Expr::Op(vec![self.expr(&u.operand)]),
            },
            Py::Lambda(l) => {
                let params =
                    l.parameters.iter().flat_map(|p| p.iter()).map(|p| p.name().id.as_str()).collect();
                Expr::Closure(params, self.boxed(&l.body))
            }
            Py::If(i) => Expr::Cond(Box::new((self.expr(&i.test), self.expr(&i.body), self.expr(&i.orelse)))),
            Py::Dict(d) => {
                let mut parts = Vec::with_capacity(d.items.len());
                for item in &d.items {
                    if let Some(k) = &item.key
                        && !k.is_literal_expr()
                    {
                        parts.push(self.expr(k));
                    }
                    parts.push(self.expr(&item.value));
                }
                Expr::Build(parts)
            }
            Py::Set(s) => Expr::Build(self.exprs(&s.elts)),
            Py::List(l) => Expr::Build(self.exprs(&l.elts)),
            Py::Tuple(t) => Expr::Build(self.exprs(&t.elts)),
            Py::ListComp(c) => self.comprehension(&c.generators, &[&c.elt]),
            Py::SetComp(c) => self.comprehension(&c.generators, &[&c.elt]),
            Py::Generator(c) => self.comprehension(&c.generators, &[&c.elt]),
            Py::DictComp(c) => match &c.key {
                Some(key) => self.comprehension(&c.generators, &[key, &c.value]),
                None => self.comprehension(&c.generators, &[&c.value]),
            },
            Py::Await(a) => self.expr(&a.value),
            Py::Yield(y) => match &y.value {
                Some(v) => Expr::Yield(self.boxed(v)),
                None => Expr::nothing(),
            },
            Py::YieldFrom(y) => Expr::Yield(self.boxed(&y.value)),
            Py::Compare(c) => {
                let mut all = Vec::with_capacity(c.ops.len());
                let mut left = &*c.left;
                for (op, right) in c.ops.iter().zip(c.comparators.iter()) {
                    let cmp = match op {
                        ast::CmpOp::Eq | ast::CmpOp::Is | ast::CmpOp::In => Cmp::Same,
                        ast::CmpOp::NotEq | ast::CmpOp::IsNot | ast::CmpOp::NotIn => Cmp::Differs,
                        ast::CmpOp::Lt | ast::CmpOp::LtE => Cmp::Below,
                        ast::CmpOp::Gt | ast::CmpOp::GtE => Cmp::Above,
                    };
                    all.push(Expr::Compare(cmp, Box::new((self.expr(left), self.expr(right)))));
                    left = right;
                }
                if all.len() == 1 { all.remove(0) } else { Expr::And(all) }
            }
            Py::Call(c) => {
                let callee = self.expr(&c.func);
                let mut args = Vec::with_capacity(c.arguments.args.len() + c.arguments.keywords.len());
                for a in &c.arguments.args {
                    let (spread, value) = match a {
                        Py::Starred(s) => (true, &*s.value),
                        other => (false, other),
                    };
                    args.push(Arg { name: None, spread, value: self.expr(value) });
                }
                for k in &c.arguments.keywords {
                    args.push(Arg {
                        name: k.arg.as_ref().map(|i| i.id.as_str()),
                        spread: k.arg.is_none(),
                        value: self.expr(&k.value),
                    });
                }
                Expr::Call(Box::new(Call { callee, args, offset: c.func.range().start().to_u32() }))
            }
            Py::FString(f) => {
                let mut parts = Vec::new();
                for element in f.value.elements() {
                    self.interpolation(element, &mut parts);
                }
                if parts.is_empty() { Expr::Lit(self.slice(f.range)) } else { Expr::Op(parts) }
            }
            Py::TString(t) => {
                let mut parts = Vec::new();
                for element in t.value.elements() {
                    self.interpolation(element, &mut parts);
                }
                Expr::Op(parts)
            }
            Py::StringLiteral(_)
            | Py::BytesLiteral(_)
            | Py::NumberLiteral(_)
            | Py::BooleanLiteral(_)
            | Py::NoneLiteral(_)
            | Py::EllipsisLiteral(_) => Expr::Lit(self.slice(e.range())),
            Py::Attribute(a) => {
                if a.ctx == ast::ExprContext::Load {
                    self.module.attributes_read.insert(a.attr.id.as_str());
                }
                Expr::Attr(self.boxed(&a.value), a.attr.id.as_str())
            }
            Py::Subscript(s) => Expr::Index(self.boxed(&s.value), self.boxed(&s.slice)),
            Py::Starred(s) => self.expr(&s.value),
            Py::Slice(s) => {
                let parts = [&s.lower, &s.upper, &s.step];
                Expr::Op(parts.into_iter().flatten().map(|p| self.expr(p)).collect())
            }
            Py::IpyEscapeCommand(_) => Expr::nothing(),
        }
    }

    fn interpolation(&mut self, element: &'a ast::InterpolatedStringElement, parts: &mut Vec<Expr<'a>>) {
        if let ast::InterpolatedStringElement::Interpolation(i) = element {
            parts.push(self.expr(&i.expression));
            if let Some(spec) = &i.format_spec {
                for e in &spec.elements {
                    self.interpolation(e, parts);
                }
            }
        }
    }

    fn comprehension(&mut self, generators: &'a [ast::Comprehension], built: &[&'a Py]) -> Expr<'a> {
        let generators = generators
            .iter()
            .map(|g| (self.expr(&g.target), self.expr(&g.iter), self.exprs(&g.ifs)))
            .collect();
        let built = built.iter().map(|b| self.expr(b)).collect();
        Expr::Comprehension(generators, built)
    }
}

fn dotted(e: &Py) -> Option<String> {
    match e {
        Py::Name(n) => Some(n.id.to_string()),
        Py::Attribute(a) => {
            let mut base = dotted(&a.value)?;
            base.push('.');
            base.push_str(a.attr.id.as_str());
            Some(base)
        }
        _ => None,
    }
}

fn import<'a>(s: &'a PyStmt, out: &mut Vec<Import<'a>>) {
    match s {
        PyStmt::Import(i) => {
            for alias in &i.names {
                let path = alias.name.id.as_str();
                match &alias.asname {
                    Some(name) => out.push(Import { local: name.id.as_str(), path: path.to_owned() }),
                    // `import a.b` binds `a`.
                    None => {
                        let root = path.split('.').next().unwrap_or(path);
                        out.push(Import { local: root, path: root.to_owned() });
                    }
                }
            }
        }
        PyStmt::ImportFrom(i) => {
            let mut base = ".".repeat(i.level as usize);
            if let Some(module) = &i.module {
                base.push_str(module.id.as_str());
            }
            for alias in &i.names {
                let name = alias.name.id.as_str();
                let local = alias.asname.as_ref().map_or(name, |n| n.id.as_str());
                let sep = if base.is_empty() || base.ends_with('.') { "" } else { "." };
                out.push(Import { local, path: format!("{base}{sep}{name}") });
            }
        }
        _ => {}
    }
}

/// A body that computes nothing: docstring, `...`, `pass`, `raise NotImplementedError`, a log line, a constant.
fn is_stub(body: &[PyStmt]) -> bool {
    let constant = |e: &Py| {
        matches!(e, Py::NoneLiteral(_) | Py::BooleanLiteral(_) | Py::NumberLiteral(_))
            || matches!(e, Py::StringLiteral(s) if s.value.is_empty())
    };
    body.iter().all(|s| match s {
        PyStmt::Pass(_) | PyStmt::Raise(_) => true,
        PyStmt::Expr(e) => match &*e.value {
            Py::StringLiteral(_) | Py::EllipsisLiteral(_) => true,
            Py::Call(call) => dotted(&call.func).is_some_and(|path| names::is_log(&path)),
            _ => false,
        },
        PyStmt::Return(r) => r.value.as_deref().is_none_or(constant),
        _ => false,
    })
}

/// Calls `f` with every name that an expression reads. Recursion follows the tree; the depth of trees is
/// bounded before parsing.
fn mentioned_names<'a>(e: &'a Py, f: &mut dyn FnMut(&'a str)) {
    struct Names<'f, 'a>(&'f mut dyn FnMut(&'a str));
    impl<'a> ast::visitor::Visitor<'a> for Names<'_, 'a> {
        fn visit_expr(&mut self, e: &'a Py) {
            if let Py::Name(n) = e {
                (self.0)(n.id.as_str());
            }
            ast::visitor::walk_expr(self, e);
        }
    }
    ast::visitor::Visitor::visit_expr(&mut Names(f), e);
}

fn names_in_stmt<'a>(s: &'a PyStmt, f: &mut dyn FnMut(&'a str)) {
    struct Names<'f, 'a>(&'f mut dyn FnMut(&'a str));
    impl<'a> ast::visitor::Visitor<'a> for Names<'_, 'a> {
        fn visit_expr(&mut self, e: &'a Py) {
            if let Py::Name(n) = e {
                (self.0)(n.id.as_str());
            }
            ast::visitor::walk_expr(self, e);
        }
    }
    ast::visitor::Visitor::visit_stmt(&mut Names(f), s);
}
