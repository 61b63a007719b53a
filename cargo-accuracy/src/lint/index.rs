//! The functions of a repository and how names lead to them: modules, imports and re-exports, classes and
//! their bases, dispatch tables, fakes. An import from outside the repository stays unknown.

use rustc_hash::{FxHashMap, FxHashSet};

use super::config::Names;
use super::ir::ParamKind;
use super::names;
use super::source::{CallSummary, FileSummary, FnSummary, Language, ParamSummary, Slot};

pub type FnId = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Function(FnId),
    Class(u32, u32),
    Module(u32),
}

/// A function that does the same job as another.
#[derive(Debug, Clone, Copy)]
pub struct Twin {
    pub id: FnId,
    /// Its name has a word more or less, beyond those that say where it runs.
    pub near: bool,
}

pub struct Index<'s> {
    pub files: &'s [FileSummary],
    /// All functions: file and position in it.
    pub functions: Vec<(u32, u32)>,
    modules: FxHashMap<String, u32>,
    module_name: Vec<String>,
    by_name: Vec<FxHashMap<&'s str, FnId>>,
    classes: Vec<FxHashMap<&'s str, u32>>,
    /// C++ and Rust functions with a body, by their last name.
    global: FxHashMap<(Language, &'s str), Vec<FnId>>,
    /// Functions with the same bag of words once backend words are gone.
    stems: FxHashMap<(Language, String), Vec<FnId>>,
    pub stem_of: Vec<(String, bool)>,
    /// Names of the files without folder, extension and backend words.
    file_stem: Vec<String>,
    /// Members of one dispatch table or `forward_*` family.
    pub families: FxHashMap<FnId, Vec<FnId>>,
    /// Function to its fake, and the reverse.
    pub fake_of: FxHashMap<FnId, FnId>,
    pub real_of: FxHashMap<FnId, FnId>,
    /// Functions handed to a decorator: they mirror the decorated function's signature.
    pub mirrors: FxHashSet<FnId>,
    pub macros: FxHashMap<&'s str, Vec<&'s [String]>>,
    /// Methods that override one of a base class.
    pub overrides: FxHashSet<FnId>,
    /// A base class's method to the methods that override it.
    pub overridden: FxHashMap<FnId, Vec<FnId>>,
    /// Methods that implement one method of a base class or of a trait: the others of each.
    pub siblings: FxHashMap<FnId, Vec<FnId>>,
    /// Methods whose name and parameters another, unrelated class has too, where a base outside of the repository is all
    /// that they have in common: layers of one protocol.
    pub layers: FxHashSet<FnId>,
    /// Methods whose name and parameters at least two other classes have, too: callers know none of them.
    pub protocols: FxHashSet<FnId>,
    /// Methods of classes that have subclasses here.
    pub inherited: FxHashSet<FnId>,
    /// Functions whose bag of words is this one and one word more.
    shrunk: FxHashMap<(Language, String), Vec<FnId>>,
    /// What files and folders are called: the modules that a path may start with.
    components: FxHashSet<String>,

    /// Functions that are passed around as values: their signature is someone else's.
    pub callbacks: FxHashSet<FnId>,
}

impl<'s> Index<'s> {
    pub fn new(files: &'s [FileSummary], config: &Names) -> Self {
        let mut functions = Vec::new();
        let mut modules = FxHashMap::default();
        let mut module_name = Vec::with_capacity(files.len());
        let mut by_name = Vec::with_capacity(files.len());
        let mut classes = Vec::with_capacity(files.len());
        let mut global: FxHashMap<(Language, &str), Vec<FnId>> = FxHashMap::default();
        let mut macros: FxHashMap<&str, Vec<&[String]>> = FxHashMap::default();
        let packages: FxHashSet<&str> =
            files.iter().filter_map(|f| f.path.strip_suffix("/__init__.py")).collect();
        for (i, file) in files.iter().enumerate() {
            let mut names: FxHashMap<&str, FnId> = FxHashMap::default();
            for (j, f) in file.functions.iter().enumerate() {
                let id = functions.len() as FnId;
                functions.push((i as u32, j as u32));
                // The first definition with a body stands for the name.
                match names.entry(f.qualname.as_str()) {
                    std::collections::hash_map::Entry::Vacant(e) => {
                        e.insert(id);
                    }
                    std::collections::hash_map::Entry::Occupied(mut e) => {
                        let old = functions[*e.get() as usize].1;
                        if file.functions[old as usize].traits.stub && !f.traits.stub {
                            e.insert(id);
                        }
                    }
                }
                if file.language != Language::Python {
                    global.entry((file.language, f.name.as_str())).or_default().push(id);
                }
            }
            by_name.push(names);
            classes.push(file.classes.iter().enumerate().map(|(j, c)| (c.name.as_str(), j as u32)).collect());
            let mut name = String::new();
            if file.language == Language::Python {
                let (full, short) = module_names(&file.path, &packages);
                modules.entry(full.clone()).or_insert(i as u32);
                modules.entry(short).or_insert(i as u32);
                name = full;
            }
            module_name.push(name);
            for (name, ids) in &file.macros {
                macros.entry(name.as_str()).or_default().push(ids);
            }
        }
        let stem_of = stems_of(files, &functions, config);
        let file_stem = files.iter().map(|f| {
            let name = f.path.rsplit('/').next().unwrap_or(&f.path);
            names::stem(name.split('.').next().unwrap_or(name), config).0
        });
        let mut stems: FxHashMap<(Language, String), Vec<FnId>> = FxHashMap::default();
        for (id, (stem, _)) in stem_of.iter().enumerate() {
            if !stem.is_empty() {
                let language = files[functions[id].0 as usize].language;
                stems.entry((language, stem.clone())).or_default().push(id as FnId);
            }
        }
        let mut shrunk: FxHashMap<(Language, String), Vec<FnId>> = FxHashMap::default();
        for (id, (stem, _)) in stem_of.iter().enumerate() {
            let language = files[functions[id].0 as usize].language;
            for less in with_a_word_less(stem) {
                shrunk.entry((language, less)).or_default().push(id as FnId);
            }
        }
        let components = files
            .iter()
            .flat_map(|f| f.path.split('/'))
            .map(|c| c.split('.').next().unwrap_or(c).replace('-', "_"))
            .collect();
        let mut index = Self {
            files,
            functions,
            modules,
            module_name,
            by_name,
            classes,
            global,
            stems,
            stem_of,
            file_stem: file_stem.collect(),
            families: FxHashMap::default(),
            fake_of: FxHashMap::default(),
            real_of: FxHashMap::default(),
            mirrors: FxHashSet::default(),
            macros,
            overrides: FxHashSet::default(),
            overridden: FxHashMap::default(),
            siblings: FxHashMap::default(),
            layers: FxHashSet::default(),
            protocols: FxHashSet::default(),
            inherited: FxHashSet::default(),
            shrunk,
            components,
            callbacks: FxHashSet::default(),
        };
        index.relate();
        index
    }

    pub fn function(&self, id: FnId) -> &'s FnSummary {
        let (file, at) = self.functions[id as usize];
        &self.files[file as usize].functions[at as usize]
    }

    pub fn file(&self, id: FnId) -> &'s FileSummary {
        &self.files[self.functions[id as usize].0 as usize]
    }

    pub fn ids(&self) -> impl Iterator<Item = FnId> + use<> {
        0..self.functions.len() as FnId
    }

    pub fn dotted(&self, id: FnId) -> String {
        let module = &self.module_name[self.functions[id as usize].0 as usize];
        let name = &self.function(id).qualname;
        if module.is_empty() { name.clone() } else { format!("{module}.{name}") }
    }

    pub fn by_dotted(&self, path: &str) -> Option<FnId> {
        match self.absolute(path, 0)? {
            Target::Function(id) => Some(id),
            _ => None,
        }
    }

    /// Dispatch tables, families of methods, fakes, mirrors and overrides.
    fn relate(&mut self) {
        let mut families: FxHashMap<FnId, Vec<FnId>> = FxHashMap::default();
        let mut fakes = Vec::new();
        let mut mirrors = Vec::new();
        for (i, file) in self.files.iter().enumerate() {
            self.tables_of(i as u32, file, &mut families);
            self.backends_of(i, file, &mut families);
            for (real, fake) in &file.fakes {
                if let Some(Target::Function(fake)) = self.in_module(i as u32, fake, 0) {
                    let real = real.as_ref().and_then(|r| match self.in_module(i as u32, r, 0) {
                        Some(Target::Function(id)) => Some(id),
                        _ => None,
                    });
                    fakes.push((real, fake));
                }
            }
        }
        let mut siblings = self.implementations();
        self.callbacks = self.passed_around();
        for id in self.ids() {
            let f = self.function(id);
            let file = self.functions[id as usize].0;
            for (path, args) in &f.decorators {
                let last = path.rsplit('.').next().unwrap_or(path);
                for (key, name) in args {
                    let Some(key) = key else { continue };
                    if let Some(Target::Function(other)) = self.in_module(file, name, 0)
                        && other != id
                    {
                        if key.contains("fake") || key.contains("abstract") || key.contains("meta") {
                            fakes.push((Some(id), other));
                        }
                        mirrors.push(other);
                    }
                }
                if last.contains("fake") || last == "impl_abstract" || last == "register_meta" {
                    fakes.push((None, id));
                }
            }
            let words = names::words(&f.name);
            if words.iter().any(|w| w == "fake" || w == "meta" && words.len() > 2 && words.last() == Some(w))
            {
                fakes.push((None, id));
            }
            if let Some(class) = &f.class {
                let file_index = file as usize;
                if let Some(c) = self.classes[file_index].get(class_of(f, class).as_str())
                    && self.base_has(file, *c, &f.name, 0)
                {
                    self.overrides.insert(id);
                }
            }
        }
        self.inherit(&mut siblings);
        for (real, fake) in fakes {
            let real = real.or_else(|| self.real_by_name(fake));
            if let Some(real) = real.filter(|r| *r != fake) {
                self.fake_of.entry(real).or_insert(fake);
                self.real_of.entry(fake).or_insert(real);
            } else {
                self.real_of.entry(fake).or_insert(fake);
            }
        }
        self.mirrors.extend(mirrors);
        for members in families.values_mut() {
            members.sort_unstable();
            members.dedup();
        }
        self.families = families;
    }

    /// Functions that stand beside each other in a dispatch table.
    fn tables_of(&self, i: u32, file: &FileSummary, families: &mut FxHashMap<FnId, Vec<FnId>>) {
        for table in &file.tables {
            let mut members: Vec<FnId> = table
                .iter()
                .filter_map(|m| match self.in_module(i, m, 0)? {
                    Target::Function(id) => Some(id),
                    _ => None,
                })
                .collect();
            members.sort_unstable();
            members.dedup();
            link(families, &members);
        }
    }

    /// `forward_native`, `forward_hip`, ... of one class.
    fn backends_of(&self, i: usize, file: &FileSummary, families: &mut FxHashMap<FnId, Vec<FnId>>) {
        for class in &file.classes {
            let mut groups: FxHashMap<&str, Vec<FnId>> = FxHashMap::default();
            for m in &class.methods {
                // What follows says where it runs: `forward_native`, not `forward_abstract` or `forward_prefill`.
                let (base, rest) = m.split_once('_').unwrap_or((m, ""));
                if base == "forward" && !rest.is_empty() && rest.split('_').any(names::is_backend) {
                    let qualified = format!("{}.{m}", class.name);
                    if let Some(id) = self.by_name[i].get(qualified.as_str()) {
                        groups.entry(base).or_default().push(*id);
                    }
                }
            }
            groups.values().for_each(|members| link(families, members));
        }
    }

    /// Implementations of one trait's method.
    fn implementations(&self) -> FxHashMap<FnId, Vec<FnId>> {
        let mut implementations: FxHashMap<(&str, &str), Vec<FnId>> = FxHashMap::default();
        for id in self.ids() {
            let f = self.function(id);
            if let Some(of_trait) = f.decorators.iter().find_map(|(path, _)| path.strip_prefix("impl ")) {
                implementations.entry((of_trait, f.name.as_str())).or_default().push(id);
            }
        }
        let mut siblings: FxHashMap<FnId, Vec<FnId>> = FxHashMap::default();
        implementations.values().for_each(|members| link(&mut siblings, members));
        siblings
    }

    /// Functions that are passed around as values.
    fn passed_around(&self) -> FxHashSet<FnId> {
        let mut callbacks = FxHashSet::default();
        for (i, file) in self.files.iter().enumerate() {
            for name in &file.references {
                if let Some(Target::Function(id)) = self.in_module(i as u32, name, 0) {
                    callbacks.insert(id);
                }
            }
        }
        for id in self.ids() {
            let f = self.function(id);
            let file = self.functions[id as usize].0;
            for name in &f.references {
                let target = match f.imports.iter().rev().find(|(n, _)| n == name) {
                    Some((_, path)) => self.import(file, path, 0),
                    None => self.in_module(file, name, 0),
                };
                if let Some(Target::Function(other)) = target {
                    callbacks.insert(other);
                }
            }
        }
        callbacks
    }

    /// Overridden methods, implementations of one base method, and layers of one protocol.
    fn inherit(&mut self, siblings: &mut FxHashMap<FnId, Vec<FnId>>) {
        let mut groups: FxHashMap<(u32, u32, &str), Vec<FnId>> = FxHashMap::default();
        let mut protocols: FxHashMap<(&str, Vec<&str>), Vec<FnId>> = FxHashMap::default();
        let mut external: FxHashSet<FnId> = FxHashSet::default();
        let mut parents: FxHashSet<(u32, u32)> = FxHashSet::default();
        for (i, file) in self.files.iter().enumerate() {
            for (k, class) in file.classes.iter().enumerate() {
                let mut bases = Vec::new();
                let closed = self.ancestors(i as u32, k as u32, 0, &mut bases);
                parents.extend(bases.iter().copied());
                for m in &class.methods {
                    let qualified = format!("{}.{m}", class.name);
                    let Some(id) = self.by_name[i].get(qualified.as_str()).copied() else { continue };
                    let mut root = None;
                    for (bf, bk) in &bases {
                        let base = &self.files[*bf as usize].classes[*bk as usize];
                        if base.methods.iter().any(|b| b == m) {
                            root = Some((*bf, *bk));
                            let name = format!("{}.{m}", base.name);
                            if let Some(b) = self.by_name[*bf as usize].get(name.as_str()) {
                                self.overridden.entry(*b).or_default().push(id);
                            }
                        }
                    }
                    if let Some((bf, bk)) = root {
                        groups.entry((bf, bk, m.as_str())).or_default().push(id);
                    } else {
                        let params: Vec<&str> =
                            self.function(id).params.iter().skip(1).map(|p| p.name.as_str()).collect();
                        if params.len() >= 2 && !closed && !class.bases.is_empty() {
                            external.insert(id);
                        }
                        if params.len() >= 2 {
                            protocols.entry((m.as_str(), params)).or_default().push(id);
                        }
                    }
                }
            }
        }
        for (file, class) in parents {
            let class = &self.files[file as usize].classes[class as usize];
            for m in &class.methods {
                let qualified = format!("{}.{m}", class.name);
                self.inherited.extend(self.by_name[file as usize].get(qualified.as_str()).copied());
            }
        }
        for members in groups.values().filter(|m| m.len() >= 2) {
            for m in members {
                siblings.entry(*m).or_default().extend(members.iter().filter(|o| *o != m));
            }
        }
        for members in protocols.values().filter(|m| m.len() >= 2) {
            let layers: Vec<FnId> = members.iter().copied().filter(|m| external.contains(m)).collect();
            if layers.len() >= 2 {
                self.layers.extend(layers);
            }
            // Without a common base three classes of one signature are a protocol. Two may be a copy, and so may be classes of
            // one name.
            let names: FxHashSet<Option<&str>> =
                members.iter().map(|m| self.function(*m).class.as_deref()).collect();
            if names.len() >= 3 {
                self.protocols.extend(members);
            }
        }
        for members in siblings.values_mut() {
            members.sort_unstable();
            members.dedup();
        }
        self.siblings = std::mem::take(siblings);
    }

    /// The classes of the repository that a class derives from; whether all of its bases are among them.
    fn ancestors(&self, file: u32, class: u32, depth: u32, out: &mut Vec<(u32, u32)>) -> bool {
        if depth > 8 {
            return false;
        }
        let mut closed = true;
        for b in &self.files[file as usize].classes[class as usize].bases {
            match self.in_module(file, b, 0) {
                Some(Target::Class(f, k)) => {
                    if !out.contains(&(f, k)) {
                        out.push((f, k));
                        closed &= self.ancestors(f, k, depth + 1, out);
                    }
                }
                _ => closed &= matches!(b.as_str(), "object" | "ABC" | "abc.ABC" | "Protocol" | "Generic"),
            }
        }
        closed
    }

    /// The function whose name is a fake's name without the word that says so.
    fn real_by_name(&self, fake: FnId) -> Option<FnId> {
        let f = self.function(fake);
        let file = self.functions[fake as usize].0 as usize;
        let bag = |name: &str| {
            let mut w = names::words(name);
            w.retain(|w| {
                !matches!(w.as_str(), "fake" | "tensor" | "tensors" | "meta" | "gen" | "impl" | "abstract")
            });
            w
        };
        let wanted = bag(&f.name);
        self.by_name[file]
            .iter()
            .filter(|(n, id)| **id != fake && !n.contains("fake") && bag(n) == wanted)
            .map(|(_, id)| *id)
            .min()
    }

    fn base_has(&self, file: u32, class: u32, method: &str, depth: u32) -> bool {
        if depth > 8 {
            return false;
        }
        let c = &self.files[file as usize].classes[class as usize];
        c.bases.iter().any(|b| match self.in_module(file, b, 0) {
            Some(Target::Class(f, k)) => {
                self.files[f as usize].classes[k as usize].methods.iter().any(|m| m == method)
                    || self.base_has(f, k, method, depth + 1)
            }
            // A base from elsewhere may declare anything public.
            _ => {
                !matches!(b.as_str(), "object" | "ABC" | "nn.Module" | "torch.nn.Module" | "Enum")
                    && !method.starts_with('_')
                    && depth == 0
                    && !b.ends_with("autograd.Function")
                    && !b.ends_with("CustomOp")
            }
        })
    }

    fn method(&self, file: u32, class: u32, name: &str, depth: u32) -> Option<FnId> {
        if depth > 8 {
            return None;
        }
        let c = &self.files[file as usize].classes[class as usize];
        let qualified = format!("{}.{name}", c.name);
        if let Some(id) = self.by_name[file as usize].get(qualified.as_str()) {
            return Some(*id);
        }
        c.bases.iter().find_map(|b| match self.in_module(file, b, 0)? {
            Target::Class(f, k) => self.method(f, k, name, depth + 1),
            _ => None,
        })
    }

    /// Follows a dotted name from inside a module.
    pub fn in_module(&self, file: u32, path: &str, depth: u32) -> Option<Target> {
        if depth > 12 {
            return None;
        }
        let (head, rest) = match path.split_once('.') {
            Some((h, r)) => (h, Some(r)),
            None => (path, None),
        };
        let target = self.name_in(file, head, depth)?;
        match rest {
            None => Some(target),
            Some(rest) => self.member(target, rest, depth + 1),
        }
    }

    fn name_in(&self, file: u32, name: &str, depth: u32) -> Option<Target> {
        let f = file as usize;
        if let Some(id) = self.by_name[f].get(name) {
            return Some(Target::Function(*id));
        }
        if let Some(c) = self.classes[f].get(name) {
            return Some(Target::Class(file, *c));
        }
        let source = &self.files[f];
        if let Some((_, path)) = source.aliases.iter().find(|(n, p)| n == name && p != name)
            && let Some(t) = self.in_module(file, path, depth + 1)
        {
            return Some(t);
        }
        if let Some((_, path)) = source.imports.iter().rev().find(|(n, _)| n == name) {
            return self.import(file, path, depth + 1);
        }
        for (_, path) in source.imports.iter().filter(|(n, _)| n == "*") {
            let module = path.strip_suffix(".*").or(path.strip_suffix('*')).unwrap_or(path);
            if let Some(Target::Module(m)) = self.import(file, module, depth + 1)
                && m != file
                && !name.starts_with('_')
                && let Some(t) = self.name_in(m, name, depth + 1)
            {
                return Some(t);
            }
        }
        // A submodule of a package.
        if source.path.ends_with("__init__.py") {
            let path = format!("{}.{name}", self.module_name[f]);
            if let Some(m) = self.modules.get(&path) {
                return Some(Target::Module(*m));
            }
        }
        None
    }

    /// An import path as written in `file`.
    fn import(&self, file: u32, path: &str, depth: u32) -> Option<Target> {
        if depth > 12 {
            return None;
        }
        let trimmed = path.trim_start_matches('.');
        let levels = path.len() - trimmed.len();
        if levels == 0 {
            return self.absolute(path, depth);
        }
        let mut base = self.module_name[file as usize].as_str();
        let package = self.files[file as usize].path.ends_with("__init__.py");
        for _ in 0..levels - usize::from(package) {
            base = base.rsplit_once('.').map_or("", |p| p.0);
        }
        let full = match (base.is_empty(), trimmed.is_empty()) {
            (true, _) => trimmed.to_owned(),
            (false, true) => base.to_owned(),
            (false, false) => format!("{base}.{trimmed}"),
        };
        self.absolute(&full, depth)
    }

    fn absolute(&self, path: &str, depth: u32) -> Option<Target> {
        if depth > 12 {
            return None;
        }
        let mut at = path.len();
        loop {
            if let Some(m) = self.modules.get(&path[..at]) {
                let target = Target::Module(*m);
                return if at == path.len() {
                    Some(target)
                } else {
                    self.member(target, &path[at + 1..], depth + 1)
                };
            }
            at = path[..at].rfind('.')?;
        }
    }

    fn member(&self, target: Target, rest: &str, depth: u32) -> Option<Target> {
        if depth > 12 {
            return None;
        }
        match target {
            Target::Module(m) => self.in_module(m, rest, depth + 1).or_else(|| {
                let path = format!("{}.{rest}", self.module_name[m as usize]);
                let submodule = self.modules.contains_key(path.split_once('.').map_or("", |_| path.as_str()));
                submodule.then(|| Target::Module(self.modules[&path])).or_else(|| {
                    // `package.module.function` where the package does not import the module.
                    let (head, tail) = rest.split_once('.')?;
                    let module = self.modules.get(&format!("{}.{head}", self.module_name[m as usize]))?;
                    self.in_module(*module, tail, depth + 1)
                })
            }),
            Target::Class(file, class) => {
                let (head, tail) = rest.split_once('.').map_or((rest, None), |(h, t)| (h, Some(t)));
                if tail.is_some() {
                    return None;
                }
                // `Function.apply(...)` of autograd runs `forward`.
                let name = if head == "apply" { "forward" } else { head };
                self.method(file, class, name, 0)
                    .or_else(|| self.method(file, class, head, 0))
                    .map(Target::Function)
            }
            Target::Function(_) => None,
        }
    }

    /// The function that a call inside `caller` reaches, if it is in the repository.
    pub fn callee(&self, caller: FnId, call: &CallSummary) -> Option<FnId> {
        let file = self.functions[caller as usize].0;
        let f = self.function(caller);
        if self.files[file as usize].language != Language::Python {
            return self.global_callee(caller, call);
        }
        if call.callee.is_empty() || call.callee.starts_with('?') {
            return None;
        }
        let (head, rest) = match call.callee.split_once('.') {
            Some((h, r)) => (h, Some(r)),
            None => (call.callee.as_str(), None),
        };
        let target = if matches!(head, "self" | "cls" | "super") && f.class.is_some() {
            let class = class_of(f, f.class.as_deref().unwrap_or(""));
            let c = *self.classes[file as usize].get(class.as_str())?;
            let name = rest?;
            if name.contains('.') {
                return None;
            }
            Target::Function(self.method(file, c, name, 0)?)
        } else if f.params.iter().any(|p| p.name == head) {
            // A parameter hides the module's name.
            return None;
        } else if let Some((_, path)) = f.imports.iter().rev().find(|(n, _)| n == head) {
            let target = self.import(file, path, 0)?;
            match rest {
                None => target,
                Some(rest) => self.member(target, rest, 0)?,
            }
        } else {
            self.in_module(file, &call.callee, 0)?
        };
        match target {
            Target::Function(id) => Some(id),
            Target::Class(file, class) => self.method(file, class, "__init__", 0),
            Target::Module(_) => None,
        }
    }

    /// What a call in C++ or Rust names: by its qualifier, if it has one, or among the functions that are in scope.
    fn global_callee(&self, caller: FnId, call: &CallSummary) -> Option<FnId> {
        let file = self.functions[caller as usize].0;
        let language = self.files[file as usize].language;
        let f = self.function(caller);
        let path = without_generics(&call.callee);
        let (qualifier, name) = match path.rsplit_once("::") {
            Some((q, n)) => (Some(q), n),
            None => (None, path.as_str()),
        };
        if let Some((receiver, method)) = name.rsplit_once('.') {
            // What `x.map(f)` reaches depends on the type of `x`, which is not known; `self` is the type at hand.
            let own = if language == Language::Rust { "self" } else { "this" };
            let class = f.class.as_deref().filter(|_| qualifier.is_none() && receiver == own)?;
            return self.one_of(caller, call, method, |_, c| c.class.as_deref() == Some(class));
        }
        match language {
            Language::Rust => self.rust_callee(caller, call, qualifier, name, 0),
            _ => self.cpp_callee(caller, call, qualifier, name),
        }
    }

    fn rust_callee(
        &self,
        caller: FnId,
        call: &CallSummary,
        qualifier: Option<&str>,
        name: &str,
        depth: u32,
    ) -> Option<FnId> {
        let file = self.functions[caller as usize].0;
        let f = self.function(caller);
        let source = &self.files[file as usize];
        let Some(qualifier) = qualifier else {
            if let Some(id) = self.one_of(caller, call, name, |id, c| {
                self.functions[id as usize].0 == file && c.class.is_none() && c.namespace == f.namespace
            }) {
                return Some(id);
            }
            if let Some((_, path)) = source.imports.iter().rev().find(|(n, _)| n == name) {
                let (q, n) = path.rsplit_once("::")?;
                return if depth < 2 { self.rust_callee(caller, call, Some(q), n, depth + 1) } else { None };
            }
            let glob = source.imports.iter().any(|(n, p)| n == "*" && self.is_local_path(p));
            return if glob { self.one_of(caller, call, name, |_, c| c.class.is_none()) } else { None };
        };
        let last = qualifier.rsplit("::").next().unwrap_or(qualifier);
        match qualifier {
            "Self" => {
                let class = f.class.as_deref()?;
                return self.one_of(caller, call, name, |_, c| c.class.as_deref() == Some(class));
            }
            "self" => {
                return self.one_of(caller, call, name, |id, c| {
                    self.functions[id as usize].0 == file && c.class.is_none()
                });
            }
            _ => {}
        }
        let first = qualifier.split("::").next().unwrap_or(qualifier);
        if let Some((_, path)) = source.imports.iter().rev().find(|(n, _)| n == first)
            && path != qualifier
            && depth < 2
        {
            let full = format!("{path}{}", &qualifier[first.len()..]);
            return self.rust_callee(caller, call, Some(&full), name, depth + 1);
        }
        if !self.is_local_path(qualifier) {
            return None;
        }
        if matches!(last, "crate" | "super") {
            return self.one_of(caller, call, name, |id, c| id != caller && c.class.is_none());
        }
        self.one_of(caller, call, name, |id, c| match &c.class {
            Some(class) => class == last,
            None => self.lives_in(id, c, last),
        })
    }

    /// Whether a Rust path starts at this repository: `crate`, `super`, or the name of a file, a folder or a type.
    fn is_local_path(&self, path: &str) -> bool {
        let first = path.split("::").next().unwrap_or(path);
        matches!(first, "crate" | "self" | "super")
            || self.components.contains(first)
            || first.starts_with(char::is_uppercase) && !path.contains("::")
    }

    /// A function without a class is in the module or namespace of this name.
    fn lives_in(&self, id: FnId, f: &FnSummary, module: &str) -> bool {
        if f.namespace.rsplit("::").next() == Some(module) && !f.namespace.is_empty() {
            return true;
        }
        let mut parts = self.file(id).path.rsplit('/');
        let stem = parts.next().and_then(|n| n.split('.').next()).unwrap_or("");
        let stem = match stem {
            "mod" | "lib" | "main" => {
                parts.next().map_or("", |p| if p == "src" { parts.next().unwrap_or("") } else { p })
            }
            other => other,
        };
        stem == module || stem.replace('-', "_") == module
    }

    fn cpp_callee(
        &self,
        caller: FnId,
        call: &CallSummary,
        qualifier: Option<&str>,
        name: &str,
    ) -> Option<FnId> {
        let f = self.function(caller);
        let Some(qualifier) = qualifier else {
            let found = self.one_of(caller, call, name, |_, c| c.class.is_none() || c.class == f.class)?;
            // An overload or a specialisation elsewhere may be what is meant.
            let others = self.global.get(&(Language::Cpp, name)).map_or(0, Vec::len);
            return (found != caller || others == 1).then_some(found);
        };
        let last = qualifier.rsplit("::").next().unwrap_or(qualifier);
        if matches!(qualifier, "std") || qualifier.starts_with("std::") {
            return None;
        }
        self.one_of(caller, call, name, |_, c| match &c.class {
            Some(class) => class == last,
            None => {
                last.is_empty() || c.namespace.rsplit("::").next() == Some(last) && !c.namespace.is_empty()
            }
        })
    }

    /// The one function of this name that takes the call's arguments and is in scope: of the same file, or else of the
    /// whole repository.
    fn one_of(
        &self,
        caller: FnId,
        call: &CallSummary,
        name: &str,
        in_scope: impl Fn(FnId, &FnSummary) -> bool,
    ) -> Option<FnId> {
        let file = self.functions[caller as usize].0;
        let language = self.files[file as usize].language;
        let all = self.global.get(&(language, name))?;
        let by_hand = !call.callee.contains('.');
        let fits = |id: &FnId| {
            let f = self.function(*id);
            let own = |p: &&ParamSummary| p.kind != ParamKind::Receiver;
            let n = f.params.iter().filter(own).count();
            let required = f.params.iter().filter(own).filter(|p| p.default.is_none()).count();
            // `ops::attention(..)` is not the method `attention`; `Type::method(x, ..)` passes the receiver by hand.
            let receiver = n < f.params.len();
            if language == Language::Rust && receiver && by_hand {
                return false;
            }
            (required..=n).contains(&call.args.len()) && !f.traits.stub
        };
        let mut found: Vec<FnId> =
            all.iter().copied().filter(|id| in_scope(*id, self.function(*id))).filter(fits).collect();
        if found.len() > 1 {
            let here: Vec<FnId> =
                found.iter().copied().filter(|id| self.functions[*id as usize].0 == file).collect();
            if !here.is_empty() {
                found = here;
            }
        }
        match found.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// What a call may reach where several functions of one name in the caller's file take its arguments: overloads and
    /// specialisations, of which the types decide.
    pub fn overloads(&self, caller: FnId, call: &CallSummary) -> Vec<FnId> {
        let file = self.functions[caller as usize].0;
        if self.files[file as usize].language != Language::Cpp || call.callee.contains(['.', ':']) {
            return Vec::new();
        }
        let name = without_generics(&call.callee);
        let Some(all) = self.global.get(&(Language::Cpp, name.as_str())) else { return Vec::new() };
        let fits = |id: &FnId| {
            let f = self.function(*id);
            let required = f.params.iter().filter(|p| p.default.is_none()).count();
            self.functions[*id as usize].0 == file
                && *id != caller
                && f.class.is_none()
                && !f.traits.stub
                && (required..=f.params.len()).contains(&call.args.len())
        };
        all.iter().copied().filter(fits).take(16).collect()
    }

    /// The methods of a method's class, its own and those that it inherits here, itself left out.
    pub fn beside(&self, id: FnId) -> Vec<FnId> {
        let f = self.function(id);
        let file = self.functions[id as usize].0;
        let Some((class, _)) = f.qualname.rsplit_once('.') else { return Vec::new() };
        let mut classes = Vec::new();
        if let Some(k) = self.classes[file as usize].get(class) {
            classes.push((file, *k));
            self.ancestors(file, *k, 0, &mut classes);
        }
        let mut out = Vec::new();
        let mut seen: FxHashSet<&str> = FxHashSet::default();
        for (file, k) in classes {
            let c = &self.files[file as usize].classes[k as usize];
            // What a class overrides is not that of its bases.
            for m in c.methods.iter().filter(|m| seen.insert(m.as_str())) {
                let name = format!("{}.{m}", c.name);
                out.extend(self.by_name[file as usize].get(name.as_str()).filter(|m| **m != id));
            }
        }
        out
    }

    /// A function of the same name and the same parameters in another file is handed on as a value or registered: whoever
    /// takes the one takes the other.
    pub fn stands_in_for_handed(&self, id: FnId) -> bool {
        let f = self.function(id);
        let key = (self.file(id).language, self.stem_of[id as usize].0.clone());
        let names = |g: &FnSummary| g.params.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        f.class.is_none()
            && self.stems.get(&key).is_some_and(|all| {
                all.iter().any(|o| {
                    let g = self.function(*o);
                    *o != id
                        && g.name == f.name
                        && self.callbacks.contains(o)
                        && self.functions[*o as usize].0 != self.functions[id as usize].0
                        && names(g) == names(f)
                })
            })
    }

    /// The callee's parameter that an argument lands in.
    pub fn bind(&self, callee: FnId, call: &CallSummary, slot: &Slot) -> Option<usize> {
        let f = self.function(callee);
        match slot {
            Slot::Keyword(name) => f
                .params
                .iter()
                .position(|p| p.name == *name && !matches!(p.kind, ParamKind::VarArgs | ParamKind::KwArgs)),
            Slot::Position(i) => {
                // `Class.method(obj, ...)` passes the receiver by hand.
                let explicit = f.traits.method
                    && f.params.first().is_some_and(|p| p.kind == ParamKind::Receiver)
                    && f.class.as_deref().is_some_and(|c| call.callee.rsplit('.').nth(1) == Some(c))
                    && f.params[0].name == "self";
                let mut positional = f
                    .params
                    .iter()
                    .enumerate()
                    .filter(|(_, p)| explicit || p.kind != ParamKind::Receiver)
                    .take_while(|(_, p)| {
                        !matches!(p.kind, ParamKind::VarArgs | ParamKind::KeywordOnly | ParamKind::KwArgs)
                    });
                positional.nth(*i as usize).map(|(i, _)| i)
            }
            Slot::Unknown => None,
        }
    }

    /// Functions that do the same job elsewhere, the nearest first: equal names but for words that say where they run, or
    /// one word more, and most parameters shared. Methods are twins only where their classes belong together. Every C++
    /// source may have its own `gemm_kernel`: kernels of one name are twins only in files whose names are alike too.
    pub fn twins(&self, id: FnId) -> Vec<Twin> {
        let f = self.function(id);
        let file = self.functions[id as usize].0;
        let language = self.file(id).language;
        let key = (language, self.stem_of[id as usize].0.clone());
        let mut out: Vec<Twin> = Vec::new();
        let mut add = |ids: &[FnId], near: bool| {
            for o in ids {
                if *o != id && self.alike(id, f, *o, near) && !out.iter().any(|t| t.id == *o) {
                    // Overloads, specialisations and definitions under a condition: one name, several signatures.
                    let overload =
                        self.functions[*o as usize].0 == file && self.function(*o).qualname == f.qualname;
                    out.push(Twin { id: *o, near: near || overload });
                }
            }
        };
        if !key.1.is_empty() {
            add(self.stems.get(&key).map_or(&[], Vec::as_slice), false);
            add(self.shrunk.get(&key).map_or(&[], Vec::as_slice), true);
            for less in with_a_word_less(&key.1) {
                add(self.stems.get(&(language, less)).map_or(&[], Vec::as_slice), true);
            }
        }
        let distance = |t: FnId| {
            let (mine, theirs) = (&self.files[file as usize].path, &self.file(t).path);
            let common = mine.split('/').zip(theirs.split('/')).take_while(|(a, b)| a == b).count();
            std::cmp::Reverse(common)
        };
        out.sort_by_key(|t| (t.near, self.functions[t.id as usize].0 != file, distance(t.id), t.id));
        out
    }

    /// Whether `other` does the same job as `f`, given that their names are alike.
    fn alike(&self, id: FnId, f: &FnSummary, other_id: FnId, near: bool) -> bool {
        let other = self.function(other_id);
        let language = self.file(id).language;
        if other.traits.stub && language != Language::Python || other.traits.nested {
            return false;
        }
        if other.traits.device != f.traits.device && language != Language::Cpp
            || other.traits.answers != f.traits.answers
            || other.traits.reports
        {
            return false;
        }
        let home = |id: FnId| &self.file_stem[self.functions[id as usize].0 as usize];
        // Every model has its `Model::new`: constructors belong together where their files do.
        let constructs = |f: &FnSummary| {
            f.name == "__init__"
                || f.name == "new"
                || f.name.starts_with("new_")
                || f.name.starts_with("from_")
                || f.class.as_deref() == Some(f.name.as_str())
        };
        if f.class.is_some() && constructs(f) && home(other_id) != home(id) {
            return false;
        }
        if language == Language::Cpp && f.traits.device && other.name == f.name && home(other_id) != home(id)
        {
            return false;
        }
        if f.class.is_some() != other.class.is_some() {
            return false;
        }
        // The classes are alike, or else the names would not be; with another word they have to be one.
        let one_class =
            self.functions[id as usize].0 == self.functions[other_id as usize].0 && f.class == other.class;
        if near && f.class.is_some() && !one_class {
            return false;
        }
        let names = |f: &'s FnSummary| -> Vec<&'s str> {
            f.params.iter().filter(|p| p.kind != ParamKind::Receiver).map(|p| p.name.as_str()).collect()
        };
        let (mine, theirs) = (names(self.function(id)), names(other));
        let shared = mine.iter().filter(|m| !m.is_empty() && theirs.contains(m)).count();
        let smaller = mine.len().min(theirs.len());
        if near {
            let larger = mine.len().max(theirs.len());
            shared >= 4 && shared * 4 >= smaller * 3 && shared * 2 >= larger
        } else {
            shared >= 2 && shared * 2 >= smaller
        }
    }

    /// C++ functions of this name.
    pub fn native(&self, name: &'s str) -> impl Iterator<Item = FnId> + '_ {
        self.global.get(&(Language::Cpp, name)).into_iter().flatten().copied()
    }

    pub fn is_fake(&self, id: FnId) -> bool {
        self.real_of.contains_key(&id)
    }
}

/// The bags of words with one word less than this one, where that word does not make another job of it.
fn with_a_word_less(stem: &str) -> Vec<String> {
    let (class, bag) = match stem.split_once('.') {
        Some((class, bag)) => (Some(class), bag),
        None => (None, stem),
    };
    let words: Vec<&str> = bag.split('_').collect();
    if words.len() < 2 {
        return Vec::new();
    }
    (0..words.len())
        .filter(|skip| !names::changes_job(words[*skip]))
        .map(|skip| {
            let rest: Vec<&str> =
                words.iter().enumerate().filter(|(i, _)| *i != skip).map(|(_, w)| *w).collect();
            match class {
                Some(class) => format!("{class}.{}", rest.join("_")),
                None => rest.join("_"),
            }
        })
        .collect()
}

/// A path without the arguments of templates and generics: `a::f` of `a::f::<T>` and of `a::f<T>`.
pub fn without_generics(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut depth = 0u32;
    for c in path.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            c if depth == 0 && !c.is_whitespace() => out.push(c),
            _ => {}
        }
    }
    while let Some(at) = out.find("::::") {
        out.replace_range(at..at + 2, "");
    }
    out.trim_end_matches(':').to_owned()
}

/// The qualified name of a method's class.
fn class_of(f: &FnSummary, class: &str) -> String {
    match f.qualname.rsplit_once('.') {
        Some((prefix, _)) if prefix.ends_with(class) => prefix.to_owned(),
        _ => class.to_owned(),
    }
}

pub fn param<'s>(f: &'s FnSummary, name: &str, config: &Names) -> Option<(usize, &'s ParamSummary)> {
    f.params
        .iter()
        .enumerate()
        .find(|(_, p)| p.name == name)
        .or_else(|| f.params.iter().enumerate().find(|(_, p)| names::same_quantity(&p.name, name, config)))
}

/// The names under which a Python file is imported: from the root, and from the folder around its topmost package.
fn module_names(path: &str, packages: &FxHashSet<&str>) -> (String, String) {
    let path = path.strip_suffix(".py").or(path.strip_suffix(".pyi")).unwrap_or(path);
    let path = path.strip_suffix("/__init__").unwrap_or(path);
    let mut top = path;
    let mut at = path.rsplit_once('/').map(|p| p.0);
    while let Some(dir) = at {
        if !packages.contains(dir) {
            break;
        }
        top = dir;
        at = dir.rsplit_once('/').map(|p| p.0);
    }
    let strip = top.rsplit_once('/').map_or(0, |p| p.0.len() + 1);
    (path.trim_start_matches('/').replace('/', "."), path[strip..].replace('/', "."))
}

/// The name of each function without words that say where it runs, and whether there were any. Methods are alike only
/// where their classes are.
fn stems_of(files: &[FileSummary], functions: &[(u32, u32)], config: &Names) -> Vec<(String, bool)> {
    let stem_of = |&(file, at): &(u32, u32)| {
        let f = &files[file as usize].functions[at as usize];
        let (stem, stripped) = names::stem(&f.name, config);
        let mut bag: Vec<&str> = stem.split('_').collect();
        bag.sort_unstable();
        let stem = bag.join("_");
        match &f.class {
            Some(class) if !stem.is_empty() => {
                let bare = names::stem(class, config).0;
                let class = if bare.is_empty() { format!("{class}@{file}") } else { bare };
                (format!("{class}.{stem}"), stripped)
            }
            _ => (stem, stripped),
        }
    };
    functions.iter().map(stem_of).collect()
}

/// Each of them is alike to all others.
fn link(families: &mut FxHashMap<FnId, Vec<FnId>>, members: &[FnId]) {
    if members.len() >= 2 {
        for m in members {
            families.entry(*m).or_default().extend(members.iter().filter(|o| *o != m));
        }
    }
}
