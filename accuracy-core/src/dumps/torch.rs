//! What `torch.save` writes: a zip archive of a pickle and the bytes of each storage.
//!
//! Source: `torch.serialization` and `torch._utils`. Files of torch before 1.6, and of
//! `_use_new_zipfile_serialization=False`, are a sequence of pickles instead; those are not read.

use std::collections::HashMap;

use super::data::Layout;
use super::element::Element;
use super::error::Fault;
use super::pickle::{Call, MAX_PICKLE, Object, Pickle, Value};
use super::zip::{self, Entry};

/// Containers within containers.
const MAX_DEPTH: usize = 100;
/// Values looked at: a pickle can name one container any number of times.
const MAX_VALUES: usize = 1 << 22;
/// Plain values that are kept beside the tensors, and their longest text.
const MAX_FIELDS: usize = 4096;
const MAX_TEXT: usize = 4096;

/// What a `.pt` file holds.
pub(super) struct Contents {
    pub tensors: Vec<Tensor>,
    /// Tensors that cannot be read, and why.
    pub unread: Vec<(Vec<String>, String)>,
    /// Text, numbers and truth values, by their path.
    pub fields: Vec<(Vec<String>, String)>,
    /// What the outermost object is.
    pub root: String,
}

pub(super) struct Tensor {
    /// Keys, indices and attributes that lead to it; empty where it is all that the file holds.
    pub path: Vec<String>,
    pub layout: Layout,
    pub entry: Entry,
}

/// Whether this is the old format, by the number that it begins with (`torch.serialization.MAGIC_NUMBER`).
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.")
}

pub(super) fn parse(archive: &[u8]) -> Result<Contents, Fault> {
    let entries = zip::entries(archive)?;
    let mut pickles = entries.iter().filter(|e| e.name == "data.pkl" || e.name.ends_with("/data.pkl"));
    let data = pickles.next().ok_or("no data.pkl in it: a zip archive that torch.save did not write")?;
    if pickles.next().is_some() {
        return Err("more than one data.pkl in it".into());
    }
    let prefix = &data.name[..data.name.len() - "data.pkl".len()];
    let entry = |name: &str| entries.iter().find(|e| e.name.strip_prefix(prefix) == Some(name));
    if let Some(order) = entry("byteorder") {
        let order = zip::extract(archive, order, 16)?;
        if order != b"little" {
            return Err(Fault(format!("its byte order is {}", String::from_utf8_lossy(&order))));
        }
    }
    if data.size > MAX_PICKLE {
        return Err(Fault(format!("its pickle is {} bytes, more than {MAX_PICKLE}", data.size)));
    }
    let bytes = zip::extract(archive, data, MAX_PICKLE)?;
    let pickle = Pickle::parse(&bytes)?;
    let folder = format!("{prefix}data/");
    let storages = entries.iter().filter_map(|e| Some((e.name.strip_prefix(&folder)?, e))).collect();
    let mut walk = Walk {
        pickle: &pickle,
        storages,
        path: Vec::new(),
        open: Vec::new(),
        left: MAX_VALUES,
        contents: Contents {
            tensors: Vec::new(),
            unread: Vec::new(),
            fields: Vec::new(),
            root: describe(&pickle, pickle.root),
        },
    };
    walk.value(pickle.root)?;
    Ok(walk.contents)
}

/// What a value is, in a few words.
fn describe(pickle: &Pickle, value: Value) -> String {
    match pickle.object(value) {
        None => match value {
            Value::None => "None".to_owned(),
            Value::Bool(_) => "a truth value".to_owned(),
            Value::Int(_) | Value::Float(_) => "a number".to_owned(),
            _ => "text".to_owned(),
        },
        Some(Object::Tuple(items) | Object::List(items) | Object::Set(items)) => {
            format!("{} items", items.len())
        }
        Some(Object::Dict(entries)) => format!("a dictionary of {} entries", entries.len()),
        Some(Object::Call(call)) => match pickle.global(call.function) {
            Some((module, name)) => format!("an object of {module}.{name}"),
            None => "an object".to_owned(),
        },
        Some(Object::Global(..)) => "a class or function".to_owned(),
        Some(Object::Persistent(_)) => "a storage".to_owned(),
        Some(Object::LongInt) => "a number".to_owned(),
    }
}

struct Walk<'a> {
    pickle: &'a Pickle<'a>,
    storages: HashMap<&'a str, &'a Entry>,
    path: Vec<String>,
    /// Objects that the walk is inside of: one that is met again refers to itself.
    open: Vec<Value>,
    left: usize,
    contents: Contents,
}

/// What a call stands for.
enum Meaning {
    Tensor(Layout, Entry),
    /// A tensor, but not one that can be read.
    Unread(String),
    Other,
}

impl Walk<'_> {
    fn value(&mut self, value: Value) -> Result<(), Fault> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or("more values than any dump has; shared containers count each time")?;
        let pickle = self.pickle;
        let field = match value {
            Value::Bool(b) => Some(b.to_string()),
            Value::Int(i) => Some(i.to_string()),
            Value::Float(x) => Some(x.to_string()),
            Value::Text(_) => pickle.text(value).filter(|t| t.len() <= MAX_TEXT).map(str::to_owned),
            Value::None | Value::Bytes(_) | Value::Object(_) => None,
        };
        if let Some(text) = field
            && self.contents.fields.len() < MAX_FIELDS
        {
            self.contents.fields.push((self.path.clone(), text));
        }
        let Some(object) = pickle.object(value) else { return Ok(()) };
        if self.open.contains(&value) {
            return Ok(());
        }
        if self.open.len() == MAX_DEPTH {
            return Err(Fault(format!("containers nested deeper than {MAX_DEPTH}")));
        }
        self.open.push(value);
        match object {
            Object::Tuple(items) | Object::List(items) | Object::Set(items) => self.items(items)?,
            Object::Dict(entries) => self.entries(entries)?,
            Object::Call(call) => match self.meaning(call)? {
                Meaning::Tensor(layout, entry) => {
                    self.contents.tensors.push(Tensor { path: self.path.clone(), layout, entry });
                }
                Meaning::Unread(reason) => self.contents.unread.push((self.path.clone(), reason)),
                Meaning::Other => self.inside(call)?,
            },
            Object::Global(..) | Object::Persistent(_) | Object::LongInt => {}
        }
        self.open.pop();
        Ok(())
    }

    /// An object of some class: its items, entries and attributes, and what it was made from.
    fn inside(&mut self, call: &Call) -> Result<(), Fault> {
        self.value(call.arguments)?;
        self.items(&call.items)?;
        self.entries(&call.entries)?;
        // `(dict, slots)` where a class has slots.
        let states = call.state.map_or(Vec::new(), |s| match self.pickle.object(s) {
            Some(Object::Tuple(parts)) => parts.clone(),
            _ => vec![s],
        });
        states.into_iter().try_for_each(|state| self.value(state))
    }

    fn items(&mut self, items: &[Value]) -> Result<(), Fault> {
        for (i, &item) in items.iter().enumerate() {
            self.path.push(i.to_string());
            self.value(item)?;
            self.path.pop();
        }
        Ok(())
    }

    fn entries(&mut self, entries: &[(Value, Value)]) -> Result<(), Fault> {
        for (i, &(key, value)) in entries.iter().enumerate() {
            let key = match key {
                Value::Text(_) => self.pickle.text(key).map(str::to_owned),
                Value::Int(n) => Some(n.to_string()),
                _ => None,
            };
            self.path.push(key.unwrap_or_else(|| format!("[{i}]")));
            self.value(value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn meaning(&self, call: &Call) -> Result<Meaning, Fault> {
        let Some((module, name)) = self.pickle.global(call.function) else { return Ok(Meaning::Other) };
        let arguments = self.pickle.sequence(call.arguments).unwrap_or_default();
        self.rebuild(module, name, arguments, 0)
    }

    fn rebuild(&self, module: &str, name: &str, arguments: &[Value], depth: usize) -> Result<Meaning, Fault> {
        let again = |call: &Call, arguments: Value| match self.pickle.global(call.function) {
            Some((module, name)) if depth < 8 => {
                let arguments = self.pickle.sequence(arguments).unwrap_or_default();
                self.rebuild(module, name, arguments, depth + 1)
            }
            _ => Ok(Meaning::Other),
        };
        match (module, name, arguments) {
            (
                "torch._utils",
                "_rebuild_tensor" | "_rebuild_tensor_v2",
                &[storage, offset, size, stride, ..],
            ) => self.tensor([storage, offset, size, stride], None),
            ("torch._utils", "_rebuild_tensor_v3", &[storage, offset, size, stride, _, _, dtype, ..]) => {
                self.tensor([storage, offset, size, stride], Some(dtype))
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state", &[data, ..]) => {
                match self.pickle.object(data) {
                    Some(Object::Call(call)) => again(call, call.arguments),
                    _ => Ok(Meaning::Other),
                }
            }
            // `(function, type, arguments, state)`: a subclass of Tensor.
            ("torch._tensor", "_rebuild_from_type_v2", &[function, _, arguments, ..]) => {
                match self.pickle.global(function) {
                    Some((module, name)) if depth < 8 => {
                        let arguments = self.pickle.sequence(arguments).unwrap_or_default();
                        self.rebuild(module, name, arguments, depth + 1)
                    }
                    _ => Ok(Meaning::Other),
                }
            }
            ("torch._utils", name, _) if name.starts_with("_rebuild") => {
                Ok(Meaning::Unread(format!("a tensor that torch rebuilds by `{name}`: not a dense one")))
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct", _) => {
                Ok(Meaning::Unread("a numpy array inside a pickle".to_owned()))
            }
            _ => Ok(Meaning::Other),
        }
    }

    fn tensor(
        &self,
        [storage, offset, size, stride]: [Value; 4],
        dtype: Option<Value>,
    ) -> Result<Meaning, Fault> {
        let Some(Object::Persistent(identity)) = self.pickle.object(storage) else {
            return Err("a tensor without a storage".into());
        };
        let identity = self.pickle.sequence(*identity).unwrap_or_default();
        let &[_, class, key, _, count, ..] = identity else {
            return Err("a storage without a name".into());
        };
        let key = self.pickle.text(key).ok_or("a storage without a name")?;
        let (_, class) = self.pickle.global(class).ok_or("a storage without a type")?;
        let name = match dtype {
            Some(dtype) => self.pickle.global(dtype).ok_or("a tensor without a dtype")?.1,
            None => class.strip_suffix("Storage").unwrap_or(class),
        };
        let element = match dtype {
            Some(_) => Element::of_torch(name),
            None => of_storage(name),
        };
        let Some(element) = element else {
            let what =
                if name.to_ascii_lowercase().contains("complex") { "complex elements" } else { "elements" };
            return Ok(Meaning::Unread(format!("{what} ({name})")));
        };
        let entry =
            *self.storages.get(key).ok_or_else(|| Fault(format!("its storage `{key}` is missing")))?;
        let (mut shape, mut strides) = (self.sizes(size)?, self.sizes(stride)?);
        let mut offset = self.natural(offset).ok_or("a tensor with a negative offset")?;
        if element == Element::E2M1 {
            // torch counts pairs.
            let pairs =
                |n: &mut usize| n.checked_mul(2).map(|twice| *n = twice).ok_or("a shape beyond counting");
            shape.last_mut().map(pairs).transpose()?;
            strides.iter_mut().rev().skip(1).try_for_each(pairs)?;
            pairs(&mut offset)?;
        }
        // `count` is in bytes for an untyped storage; the entry's size is what there is in any case.
        let claimed = self.natural(count).ok_or("a storage of negative size")?;
        let claimed = if dtype.is_some() {
            claimed as u64
        } else {
            (claimed as u64).saturating_mul(element.bits() as u64 / 8)
        };
        if claimed > entry.size {
            return Err(Fault(format!("storage `{key}` should have {claimed} bytes and has {}", entry.size)));
        }
        let layout = Layout::strided(element, shape, strides, offset, entry.size)?;
        Ok(Meaning::Tensor(layout, entry.clone()))
    }

    fn natural(&self, value: Value) -> Option<usize> {
        match value {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        }
    }

    /// A tuple of sizes, `torch.Size` among them.
    fn sizes(&self, value: Value) -> Result<Vec<usize>, Fault> {
        let items = match self.pickle.object(value) {
            Some(Object::Call(call)) => {
                self.pickle.sequence(call.arguments).and_then(|a| self.pickle.sequence(*a.first()?))
            }
            _ => self.pickle.sequence(value),
        };
        let items = items.ok_or("a tensor without a shape")?;
        items
            .iter()
            .map(|&n| self.natural(n).ok_or_else(|| "a shape with something else than sizes".into()))
            .collect()
    }
}

/// By the name of a typed storage, without `Storage`.
fn of_storage(name: &str) -> Option<Element> {
    Some(match name {
        "Double" => Element::F64,
        "Float" => Element::F32,
        "Half" => Element::F16,
        "BFloat16" => Element::BF16,
        "Long" => Element::I64,
        "Int" => Element::I32,
        "Short" => Element::I16,
        "Char" => Element::I8,
        "Byte" => Element::U8,
        "Bool" => Element::Bool,
        _ => return None,
    })
}
