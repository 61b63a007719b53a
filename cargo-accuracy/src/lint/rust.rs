//! Rust to the neutral form, by syn. Test modules are left out; a macro's arguments are parsed where they are
//! expressions and count as mentions where they are not.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::{Expr as Rs, Item, Pat, Stmt as RsStmt};

use super::ir::{Arg, Call, Cmp, Decorator, Expr, Function, Param, ParamKind, Stmt, Traits};
use super::source::{Fault, Module};

const MAX_DEPTH: u32 = 200;

pub fn with_module<T>(text: &str, then: impl FnOnce(&Module) -> T) -> Result<T, Fault> {
    let file = syn::parse_file(text);
    let out = match file {
        Ok(file) => {
            let mut lower = Lower { text, module: Module::default(), depth: 0, modules: Vec::new() };
            for item in &file.items {
                lower.item(item, 0);
            }
            Ok(then(&lower.module))
        }
        Err(e) => Err(Fault {
            line: u32::try_from(e.span().start().line).ok(),
            reason: format!("{e}; passed over"),
        }),
    };
    // Spans of this file are not looked up again; the thread's map would only grow.
    proc_macro2::extra::invalidate_current_thread_spans();
    out
}

struct Lower<'a> {
    text: &'a str,
    module: Module<'a>,
    depth: u32,
    /// The modules around the item at hand.
    modules: Vec<&'a str>,
}

struct Owner<'a> {
    class: Option<&'a str>,
    of_trait: Option<&'a str>,
}

impl<'a> Lower<'a> {
    fn slice(&self, node: &impl Spanned) -> &'a str {
        self.text.get(node.span().byte_range()).unwrap_or("")
    }

    fn offset(node: &impl Spanned) -> u32 {
        node.span().byte_range().start as u32
    }

    fn item(&mut self, item: &Item, depth: u32) {
        if depth > 40 {
            return;
        }
        let none = Owner { class: None, of_trait: None };
        match item {
            Item::Fn(f) => self.function(&f.sig, &f.attrs, Some(&f.block), &none, f),
            Item::Impl(i) => {
                let class = Some(self.slice(&*i.self_ty).split('<').next().unwrap_or("").trim());
                let of_trait =
                    i.trait_.as_ref().and_then(|t| t.0.segments.last()).map(|s| self.slice(&s.ident));
                let owner = Owner { class, of_trait };
                for item in &i.items {
                    if let syn::ImplItem::Fn(f) = item {
                        self.function(&f.sig, &f.attrs, Some(&f.block), &owner, f);
                    }
                }
            }
            Item::Trait(t) => {
                let name = Some(self.slice(&t.ident));
                let owner = Owner { class: name, of_trait: name };
                for item in &t.items {
                    if let syn::TraitItem::Fn(f) = item
                        && f.default.is_some()
                    {
                        self.function(&f.sig, &f.attrs, f.default.as_ref(), &owner, f);
                    }
                }
            }
            Item::Mod(m) => {
                let test = m.attrs.iter().any(|a| a.path().is_ident("cfg") && self.slice(a).contains("test"));
                if let Some((_, items)) = &m.content
                    && !test
                {
                    self.modules.push(self.slice(&m.ident));
                    for item in items {
                        self.item(item, depth + 1);
                    }
                    self.modules.pop();
                }
            }
            Item::Use(u) => self.imports(&u.tree, &mut String::new(), 0),
            _ => {}
        }
    }

    /// `use a::{b, c as d}` as local names and paths; a glob is called `*`.
    fn imports(&mut self, tree: &syn::UseTree, path: &mut String, depth: u32) {
        if depth > 40 {
            return;
        }
        let before = path.len();
        let join = |path: &mut String, name: &str| {
            if !path.is_empty() {
                path.push_str("::");
            }
            path.push_str(name);
        };
        let local = match tree {
            syn::UseTree::Path(p) => {
                join(path, self.slice(&p.ident));
                self.imports(&p.tree, path, depth + 1);
                None
            }
            syn::UseTree::Name(n) => {
                join(path, self.slice(&n.ident));
                Some(self.slice(&n.ident))
            }
            syn::UseTree::Rename(r) => {
                join(path, self.slice(&r.ident));
                Some(self.slice(&r.rename))
            }
            syn::UseTree::Glob(_) => Some("*"),
            syn::UseTree::Group(g) => {
                for t in &g.items {
                    self.imports(t, path, depth + 1);
                }
                None
            }
        };
        if let Some(local) = local {
            self.module.imports.push(super::ir::Import { local, path: path.clone() });
        }
        path.truncate(before);
    }

    fn function(
        &mut self,
        sig: &syn::Signature,
        attrs: &[syn::Attribute],
        block: Option<&syn::Block>,
        owner: &Owner<'a>,
        whole: &impl Spanned,
    ) {
        let Some(block) = block else { return };
        if attrs.iter().any(|a| a.path().segments.last().is_some_and(|s| s.ident == "test")) {
            return;
        }
        let name = self.slice(&sig.ident);
        let mut params = Vec::new();
        for input in &sig.inputs {
            match input {
                syn::FnArg::Receiver(r) => params.push(Param {
                    name: "self",
                    kind: ParamKind::Receiver,
                    default: None,
                    annotation: None,
                    offset: Self::offset(r),
                    disowned: false,
                    output: false,
                }),
                syn::FnArg::Typed(t) => {
                    let (name, offset) = match &*t.pat {
                        Pat::Ident(i) => (self.slice(&i.ident), Self::offset(&i.ident)),
                        Pat::Wild(w) => ("", Self::offset(w)),
                        // Destructured: its parts are used under their own names.
                        other => ("", Self::offset(other)),
                    };
                    let ty = self.slice(&*t.ty);
                    params.push(Param {
                        name: name.trim_start_matches("r#"),
                        kind: if matches!(&*t.pat, Pat::Ident(_) | Pat::Wild(_)) {
                            ParamKind::Positional
                        } else {
                            ParamKind::Receiver
                        },
                        default: None,
                        annotation: Some(ty),
                        offset,
                        disowned: name.starts_with('_') || name.is_empty(),
                        output: ty.starts_with("&mut"),
                    });
                }
            }
        }
        let decorators = owner
            .of_trait
            .map(|t| Decorator { path: format!("impl {t}"), args: Vec::new() })
            .into_iter()
            .collect();
        let stub = block.stmts.is_empty() || (block.stmts.len() == 1 && self.gives_up(&block.stmts[0]));
        self.depth = 0;
        let body = if stub { Vec::new() } else { self.block(block, true) };
        let doc = attrs.iter().find(|a| a.path().is_ident("doc")).map(|first| {
            let last = attrs.iter().rev().find(|a| a.path().is_ident("doc")).unwrap_or(first);
            let (from, to) = (first.span().byte_range().start, last.span().byte_range().end);
            self.text.get(from..to).unwrap_or("")
        });
        let range = whole.span().byte_range();
        self.module.functions.push(Function {
            name,
            qualname: owner.class.map_or_else(|| name.to_owned(), |c| format!("{c}::{name}")),
            class: owner.class,
            params,
            decorators,
            doc,
            returns: match &sig.output {
                syn::ReturnType::Default => None,
                syn::ReturnType::Type(_, t) => Some(self.slice(&**t)),
            },
            namespace: self.modules.join("::"),
            body,
            start: Self::offset(&sig.ident),
            body_start: Self::offset(block),
            end: range.end as u32,
            traits: Traits {
                stub,
                interface: owner.of_trait.is_some(),
                method: owner.class.is_some(),
                ..Traits::default()
            },
            imports: Vec::new(),
        });
    }

    /// The only statement refuses: `bail!`, `unimplemented!`, `Err(...)`.
    fn gives_up(&self, s: &RsStmt) -> bool {
        match s {
            RsStmt::Macro(m) => is_refusal(&m.mac),
            RsStmt::Expr(Rs::Macro(m), _) => is_refusal(&m.mac),
            RsStmt::Expr(Rs::Call(c), _) => self.slice(&*c.func).ends_with("Err"),
            _ => false,
        }
    }

    fn block(&mut self, b: &syn::Block, tail: bool) -> Vec<Stmt<'a>> {
        let mut out = Vec::new();
        let n = b.stmts.len();
        for (i, s) in b.stmts.iter().enumerate() {
            self.stmt(s, tail && i + 1 == n, &mut out);
        }
        out
    }

    fn stmt(&mut self, s: &RsStmt, last: bool, out: &mut Vec<Stmt<'a>>) {
        match s {
            RsStmt::Local(l) => {
                let value = match &l.init {
                    Some(init) => {
                        let value = self.expr(&init.expr);
                        if let Some((_, diverge)) = &init.diverge {
                            let mut orelse = Vec::new();
                            self.expression_statement(diverge, false, &mut orelse);
                            out.push(Stmt::If { test: Expr::Lit("let"), then: Vec::new(), orelse });
                        }
                        value
                    }
                    None => Expr::nothing(),
                };
                if matches!(&l.pat, Pat::Wild(_)) {
                    match value {
                        value @ (Expr::Name(_) | Expr::Build(_)) => out.push(Stmt::Discard(vec![value])),
                        value => out.push(Stmt::Expr(value)),
                    }
                } else {
                    let targets = self.pattern(&l.pat);
                    out.push(Stmt::Assign { targets, value, augmented: false });
                }
            }
            RsStmt::Expr(e, semi) => self.expression_statement(e, last && semi.is_none(), out),
            RsStmt::Macro(m) => self.macro_statement(&m.mac, out),
            RsStmt::Item(item) => {
                let mut reads = Vec::new();
                self.names_in_text(self.slice(item), &mut reads);
                out.push(Stmt::Nested { name: "", reads, decorated: true });
            }
        }
    }

    /// The names that a pattern binds, as one target.
    fn pattern(&mut self, p: &Pat) -> Vec<Expr<'a>> {
        let mut names = Vec::new();
        self.bound(p, &mut names, 0);
        match names.len() {
            1 => names,
            _ => vec![Expr::Build(names)],
        }
    }

    fn bound(&self, p: &Pat, out: &mut Vec<Expr<'a>>, depth: u32) {
        if depth > MAX_DEPTH {
            return;
        }
        match p {
            Pat::Ident(i) => out.push(Expr::Name(self.slice(&i.ident))),
            Pat::Tuple(t) => t.elems.iter().for_each(|e| self.bound(e, out, depth + 1)),
            Pat::TupleStruct(t) => t.elems.iter().for_each(|e| self.bound(e, out, depth + 1)),
            Pat::Struct(s) => s.fields.iter().for_each(|f| self.bound(&f.pat, out, depth + 1)),
            Pat::Slice(s) => s.elems.iter().for_each(|e| self.bound(e, out, depth + 1)),
            Pat::Reference(r) => self.bound(&r.pat, out, depth + 1),
            Pat::Type(t) => self.bound(&t.pat, out, depth + 1),
            Pat::Paren(t) => self.bound(&t.pat, out, depth + 1),
            Pat::Or(o) => {
                if let Some(first) = o.cases.first() {
                    self.bound(first, out, depth + 1);
                }
            }
            _ => {}
        }
    }

    fn expression_statement(&mut self, e: &Rs, last: bool, out: &mut Vec<Stmt<'a>>) {
        if self.depth >= MAX_DEPTH {
            out.push(Stmt::Expr(self.mentions(e)));
            return;
        }
        let depth = self.depth;
        self.depth += 1;
        self.expression_statement_inner(e, last, out);
        // A function inside of it counts from zero.
        self.depth = depth;
    }

    fn expression_statement_inner(&mut self, e: &Rs, last: bool, out: &mut Vec<Stmt<'a>>) {
        match e {
            Rs::If(i) => {
                if let Rs::Let(l) = &*i.cond {
                    let value = self.expr(&l.expr);
                    let targets = self.pattern(&l.pat);
                    out.push(Stmt::Assign { targets, value, augmented: false });
                }
                let test = self.condition(&i.cond);
                let then = self.block(&i.then_branch, last);
                let mut orelse = Vec::new();
                if let Some((_, e)) = &i.else_branch {
                    self.expression_statement(e, last, &mut orelse);
                }
                out.push(Stmt::If { test, then, orelse });
            }
            Rs::Match(m) => {
                let subject = self.expr(&m.expr);
                let mut arms = Vec::new();
                for arm in &m.arms {
                    let mut body = Vec::new();
                    let (pat, guard) = match &arm.pat {
                        Pat::Guard(g) => (&*g.pat, Some(&g.guard)),
                        pat => (pat, None),
                    };
                    let targets = self.pattern(pat);
                    if targets.iter().any(|t| !matches!(t, Expr::Build(v) if v.is_empty())) {
                        let value = self.expr(&m.expr);
                        body.push(Stmt::Assign { targets, value, augmented: false });
                    }
                    match guard {
                        None => self.expression_statement(&arm.body, last, &mut body),
                        Some(guard) => {
                            let test = self.condition(guard);
                            let mut then = Vec::new();
                            self.expression_statement(&arm.body, last, &mut then);
                            body.push(Stmt::If { test, then, orelse: Vec::new() });
                        }
                    }
                    let wild = matches!(pat, Pat::Wild(_)) && guard.is_none();
                    arms.push(((!wild).then(|| Expr::Lit(self.slice(pat))), body));
                }
                out.push(Stmt::Switch { subject, arms });
            }
            Rs::Block(b) => {
                let body = self.block(&b.block, last);
                out.push(Stmt::Block(body));
            }
            Rs::Unsafe(u) => {
                let body = self.block(&u.block, last);
                out.push(Stmt::Block(body));
            }
            Rs::Loop(l) => {
                let body = self.block(&l.body, false);
                out.push(Stmt::Loop { head: None, target: None, body, orelse: Vec::new() });
            }
            Rs::While(w) => {
                let head = Some(self.condition(&w.cond));
                let body = self.block(&w.body, false);
                out.push(Stmt::Loop { head, target: None, body, orelse: Vec::new() });
            }
            Rs::ForLoop(f) => {
                let head = Some(self.expr(&f.expr));
                let target = self.pattern(&f.pat).into_iter().next();
                let body = self.block(&f.body, false);
                out.push(Stmt::Loop { head, target, body, orelse: Vec::new() });
            }
            Rs::Return(r) => match &r.expr {
                Some(v) => self.give_back(v, out),
                None => out.push(Stmt::Return(None)),
            },
            Rs::Break(_) | Rs::Continue(_) => out.push(Stmt::Leave),
            Rs::Assign(a) => {
                let value = self.expr(&a.right);
                if matches!(&*a.left, Rs::Infer(_)) {
                    out.push(Stmt::Discard(vec![value]));
                } else {
                    let target = self.expr(&a.left);
                    out.push(Stmt::Assign { targets: vec![target], value, augmented: false });
                }
            }
            Rs::Binary(b) if is_assignment(&b.op) => {
                let value = self.expr(&b.right);
                let target = self.expr(&b.left);
                out.push(Stmt::Assign { targets: vec![target], value, augmented: true });
            }
            Rs::Macro(m) if !last => self.macro_statement(&m.mac, out),
            Rs::Macro(m) if is_refusal(&m.mac) => self.macro_statement(&m.mac, out),
            _ if last => self.give_back(e, out),
            _ => {
                let value = self.expr(e);
                match value {
                    Expr::Name(_) => out.push(Stmt::Discard(vec![value])),
                    value => out.push(Stmt::Expr(value)),
                }
            }
        }
    }

    /// A value that leaves the function; an error is a refusal.
    fn give_back(&mut self, e: &Rs, out: &mut Vec<Stmt<'a>>) {
        let refuses = match e {
            Rs::Call(c) => matches!(self.slice(&*c.func), "Err" | "Result::Err"),
            _ => false,
        };
        let value = self.expr(e);
        out.push(if refuses { Stmt::Raise(Some(value)) } else { Stmt::Return(Some(value)) });
    }

    fn macro_statement(&mut self, m: &syn::Macro, out: &mut Vec<Stmt<'a>>) {
        let name = m.path.segments.last().map(|s| self.slice(&s.ident)).unwrap_or("");
        let args = self.macro_args(m);
        if is_refusal(m) {
            out.push(Stmt::Raise(Some(Expr::Op(args))));
            return;
        }
        match name {
            "println" | "eprintln" | "print" | "eprint" | "dbg" | "debug" | "info" | "warn" | "error"
            | "trace" => {
                let args = args.into_iter().map(|value| Arg { name: None, spread: false, value }).collect();
                out.push(Stmt::Expr(Expr::Call(Box::new(Call {
                    callee: Expr::Name("print"),
                    args,
                    offset: Self::offset(&m.path),
                }))));
            }
            "assert" | "debug_assert" | "ensure" => {
                let mut args = args.into_iter();
                if let Some(test) = args.next() {
                    out.push(Stmt::Assert { test, message: args.collect() });
                }
            }
            "assert_eq" | "debug_assert_eq" | "assert_ne" | "debug_assert_ne" => {
                let cmp = if name.ends_with("eq") { Cmp::Same } else { Cmp::Differs };
                let mut args = args.into_iter();
                if let (Some(a), Some(b)) = (args.next(), args.next()) {
                    out.push(Stmt::Assert {
                        test: Expr::Compare(cmp, Box::new((a, b))),
                        message: args.collect(),
                    });
                }
            }
            _ => {
                let call = self.macro_call(m, args);
                out.push(Stmt::Expr(call));
            }
        }
    }

    fn macro_call(&mut self, m: &syn::Macro, args: Vec<Expr<'a>>) -> Expr<'a> {
        let args = args.into_iter().map(|value| Arg { name: None, spread: true, value }).collect();
        Expr::Call(Box::new(Call {
            callee: Expr::Name(self.slice(&m.path)),
            args,
            offset: Self::offset(&m.path),
        }))
    }

    /// A macro's arguments as expressions, or every identifier in it. Format strings name variables.
    fn macro_args(&mut self, m: &syn::Macro) -> Vec<Expr<'a>> {
        let parser = syn::punctuated::Punctuated::<Rs, syn::Token![,]>::parse_terminated;
        let mut out = match m.parse_body_with(parser) {
            Ok(list) => list.iter().map(|e| self.expr(e)).collect(),
            Err(_) => {
                let mut reads = Vec::new();
                tokens(&m.tokens, self.text, &mut reads, 0);
                vec![Expr::Op(reads.into_iter().map(Expr::Name).collect())]
            }
        };
        let mut captured = Vec::new();
        format_names(self.slice(m), &mut captured);
        out.extend(captured.into_iter().map(Expr::Name));
        out
    }

    /// `if let Some(x) = p` tests `p`.
    fn condition(&mut self, e: &Rs) -> Expr<'a> {
        match e {
            Rs::Let(l) => {
                let value = self.expr(&l.expr);
                let absent = matches!(&*l.pat, Pat::Ident(i) if i.ident == "None");
                let cmp = if absent { Cmp::Same } else { Cmp::Differs };
                Expr::Compare(cmp, Box::new((value, Expr::Lit("None"))))
            }
            other => self.expr(other),
        }
    }

    fn expr(&mut self, e: &Rs) -> Expr<'a> {
        if self.depth >= MAX_DEPTH {
            return self.mentions(e);
        }
        let depth = self.depth;
        self.depth += 1;
        let out = self.expr_inner(e);
        // A function inside of it counts from zero.
        self.depth = depth;
        out
    }

    fn all<'e>(&mut self, list: impl IntoIterator<Item = &'e Rs>) -> Vec<Expr<'a>> {
        list.into_iter().map(|e| self.expr(e)).collect()
    }

    fn args<'e>(&mut self, list: impl IntoIterator<Item = &'e Rs>) -> Vec<Arg<'a>> {
        list.into_iter().map(|e| Arg { name: None, spread: false, value: self.expr(e) }).collect()
    }

    fn expr_inner(&mut self, e: &Rs) -> Expr<'a> {
        match e {
            Rs::Path(p) => match self.slice(p) {
                none @ "None" => Expr::Lit(none),
                name => Expr::Name(name),
            },
            Rs::Lit(l) => Expr::Lit(self.slice(l)),
            Rs::Field(f) => Expr::Attr(Box::new(self.expr(&f.base)), self.slice(&f.member)),
            Rs::Index(i) => Expr::Index(Box::new(self.expr(&i.expr)), Box::new(self.expr(&i.index))),
            Rs::Call(c) => {
                let callee = self.expr(&c.func);
                let args = self.args(&c.args);
                Expr::Call(Box::new(Call { callee, args, offset: Self::offset(c) }))
            }
            Rs::MethodCall(m) => {
                let receiver = self.expr(&m.receiver);
                let args = self.args(&m.args);
                let callee = Expr::Attr(Box::new(receiver), self.slice(&m.method));
                Expr::Call(Box::new(Call { callee, args, offset: Self::offset(&m.method) }))
            }
            Rs::Unary(u) => {
                let inner = self.expr(&u.expr);
                match u.op {
                    syn::UnOp::Not(_) => Expr::Not(Box::new(inner)),
                    _ if matches!(inner, Expr::Lit(_)) => Expr::Lit(self.slice(u)),
                    _ => Expr::Op(vec![inner]),
                }
            }
            Rs::Binary(b) => {
                use syn::BinOp;
                match &b.op {
                    BinOp::And(_) => Expr::And(vec![self.expr(&b.left), self.expr(&b.right)]),
                    BinOp::Or(_) => Expr::Or(vec![self.expr(&b.left), self.expr(&b.right)]),
                    BinOp::Eq(_)
                    | BinOp::Ne(_)
                    | BinOp::Lt(_)
                    | BinOp::Le(_)
                    | BinOp::Gt(_)
                    | BinOp::Ge(_) => {
                        let cmp = match &b.op {
                            BinOp::Eq(_) => Cmp::Same,
                            BinOp::Ne(_) => Cmp::Differs,
                            BinOp::Lt(_) | BinOp::Le(_) => Cmp::Below,
                            _ => Cmp::Above,
                        };
                        Expr::Compare(cmp, Box::new((self.expr(&b.left), self.expr(&b.right))))
                    }
                    op if is_assignment(op) => Expr::Let(Box::new((self.expr(&b.left), self.expr(&b.right)))),
                    _ => {
                        // Left spines without recursion.
                        let mut parts = vec![self.expr(&b.right)];
                        let mut at = &*b.left;
                        while let Rs::Binary(inner) = at {
                            parts.push(self.expr(&inner.right));
                            at = &inner.left;
                        }
                        parts.push(self.expr(at));
                        parts.reverse();
                        Expr::Op(parts)
                    }
                }
            }
            Rs::Paren(p) => self.expr(&p.expr),
            Rs::Group(g) => self.expr(&g.expr),
            Rs::Reference(r) => Expr::Op(vec![self.expr(&r.expr)]),
            Rs::Cast(c) => Expr::Op(vec![self.expr(&c.expr)]),
            Rs::Try(t) => self.expr(&t.expr),
            Rs::Await(a) => self.expr(&a.base),
            Rs::Tuple(t) => Expr::Build(self.all(&t.elems)),
            Rs::Array(a) => Expr::Build(self.all(&a.elems)),
            Rs::Repeat(r) => Expr::Build(vec![self.expr(&r.expr), self.expr(&r.len)]),
            Rs::Struct(s) => {
                let mut parts: Vec<Expr> = s.fields.iter().map(|f| self.expr(&f.expr)).collect();
                if let Some(rest) = &s.rest {
                    parts.push(self.expr(rest));
                }
                Expr::Build(parts)
            }
            Rs::Range(r) => {
                let ends = [&r.start, &r.end];
                Expr::Op(ends.into_iter().flatten().map(|e| self.expr(e)).collect())
            }
            Rs::Assign(a) => Expr::Let(Box::new((self.expr(&a.left), self.expr(&a.right)))),
            Rs::Macro(m) => {
                let args = self.macro_args(&m.mac);
                if m.mac.path.is_ident("format") || m.mac.path.is_ident("vec") {
                    return Expr::Op(args);
                }
                self.macro_call(&m.mac, args)
            }
            Rs::Closure(c) => {
                let mut reads = Vec::new();
                self.names_in_text(self.slice(&*c.body), &mut reads);
                let mut own = Vec::new();
                for p in &c.inputs {
                    self.bound(p, &mut own, 0);
                }
                let own = own
                    .into_iter()
                    .filter_map(|e| match e {
                        Expr::Name(n) => Some(n),
                        _ => None,
                    })
                    .collect();
                Expr::Closure(own, Box::new(Expr::Mentions(reads)))
            }
            // `if`, `match` and blocks as values: all that they mention decides the value.
            Rs::If(i) if i.else_branch.is_some() && i.then_branch.stmts.len() == 1 => {
                let test = self.condition(&i.cond);
                let then = self.value_of(&i.then_branch);
                let orelse = match &i.else_branch {
                    Some((_, e)) => match &**e {
                        Rs::Block(b) => self.value_of(&b.block),
                        other => self.expr(other),
                    },
                    None => Expr::nothing(),
                };
                Expr::Cond(Box::new((test, then, orelse)))
            }
            Rs::Unsafe(u) if u.block.stmts.len() == 1 => self.value_of(&u.block),
            Rs::Block(b) if b.block.stmts.len() == 1 => self.value_of(&b.block),
            _ => self.mentions(e),
        }
    }

    fn value_of(&mut self, b: &syn::Block) -> Expr<'a> {
        match b.stmts.as_slice() {
            [RsStmt::Expr(e, None)] => self.expr(e),
            _ => {
                let mut reads = Vec::new();
                self.names_in_text(self.slice(b), &mut reads);
                Expr::Mentions(reads)
            }
        }
    }

    fn mentions(&self, e: &Rs) -> Expr<'a> {
        let mut reads = Vec::new();
        self.names_in_text(self.slice(e), &mut reads);
        Expr::Mentions(reads)
    }

    fn names_in_text(&self, text: &'a str, out: &mut Vec<&'a str>) {
        out.extend(
            text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .filter(|w| !w.is_empty() && !w.starts_with(|c: char| c.is_ascii_digit())),
        );
        out.sort_unstable();
        out.dedup();
    }
}

fn is_refusal(m: &syn::Macro) -> bool {
    m.path.segments.last().is_some_and(|s| {
        let name = s.ident.to_string();
        matches!(name.as_str(), "panic" | "unimplemented" | "todo" | "bail" | "unreachable" | "compile_error")
    })
}

fn is_assignment(op: &syn::BinOp) -> bool {
    use syn::BinOp::*;
    matches!(
        op,
        AddAssign(_)
            | SubAssign(_)
            | MulAssign(_)
            | DivAssign(_)
            | RemAssign(_)
            | BitXorAssign(_)
            | BitAndAssign(_)
            | BitOrAssign(_)
            | ShlAssign(_)
            | ShrAssign(_)
    )
}

/// Identifiers in a token stream.
fn tokens<'a>(stream: &TokenStream, text: &'a str, out: &mut Vec<&'a str>, depth: u32) {
    if depth > 100 {
        return;
    }
    for t in stream.clone() {
        match t {
            TokenTree::Ident(i) => out.extend(text.get(i.span().byte_range())),
            TokenTree::Group(g) => tokens(&g.stream(), text, out, depth + 1),
            _ => {}
        }
    }
}

/// `{name}` and `{name:?}` in the format strings of a macro.
fn format_names<'a>(text: &'a str, out: &mut Vec<&'a str>) {
    if !text.contains('"') {
        return;
    }
    for part in text.split('{').skip(1) {
        let end = part.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(part.len());
        if matches!(part[end..].chars().next(), Some('}' | ':'))
            && end > 0
            && !part.starts_with(|c: char| c.is_ascii_digit())
        {
            out.push(&part[..end]);
        }
    }
}
