//! A pickle as data: what it would build, without building it.
//!
//! All opcodes of protocols 0 to 5 are read, but those for out-of-band buffers and extension registries. A call of
//! whatever function is kept as a [`Call`]: nothing is imported, nothing is executed. Source: the comments of CPython's
//! `pickletools`.

use std::collections::HashMap;

use super::error::Fault;

/// Longest pickle that is read; tensors' bytes are not in it. Each byte adds at most one value and one object.
pub(super) const MAX_PICKLE: u64 = 16 << 20;

/// A value: small ones in place, text and bytes as ranges of the pickle, the rest in [`Pickle::objects`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Span),
    Bytes(Span),
    Object(u32),
}

/// A range of the pickle's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Set(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A class or function by module and name.
    Global(Span, Span),
    Call(Box<Call>),
    /// Something that lies outside of the pickle, by its identity: a storage in torch's files.
    Persistent(Value),
    /// An integer of more than 64 bits.
    LongInt,
}

/// What calling `function` with `arguments` would make, and what would then be put into it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub function: Value,
    pub arguments: Value,
    pub items: Vec<Value>,
    pub entries: Vec<(Value, Value)>,
    pub state: Option<Value>,
}

#[derive(Debug)]
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    objects: Vec<Object>,
    pub root: Value,
}

impl<'a> Pickle<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Pickle<'a>, Fault> {
        if bytes.len() as u64 > MAX_PICKLE {
            return Err(Fault(format!("a pickle of {} bytes, more than {MAX_PICKLE}", bytes.len())));
        }
        let mut machine = Machine {
            bytes,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            objects: Vec::new(),
        };
        let root =
            machine.run().map_err(|Fault(reason)| Fault(format!("pickle, byte {}: {reason}", machine.at)))?;
        Ok(Pickle { bytes, objects: machine.objects, root })
    }

    pub fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(i) => self.objects.get(i as usize),
            _ => None,
        }
    }

    pub fn text(&self, value: Value) -> Option<&'a str> {
        match value {
            Value::Text(span) => self.slice(span),
            _ => None,
        }
    }

    fn slice(&self, span: Span) -> Option<&'a str> {
        std::str::from_utf8(&self.bytes[span.start as usize..span.end as usize]).ok()
    }

    /// `(module, name)` of a class or function.
    pub fn global(&self, value: Value) -> Option<(&'a str, &'a str)> {
        match self.object(value)? {
            Object::Global(module, name) => Some((self.slice(*module)?, self.slice(*name)?)),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn sequence(&self, value: Value) -> Option<&[Value]> {
        match self.object(value)? {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    objects: Vec<Object>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value, Fault> {
        loop {
            let opcode = self.take(1)?[0];
            match opcode {
                b'.' => return self.pop(),
                0x80 => {
                    let version = self.take(1)?[0];
                    if version > 5 {
                        return Err(Fault(format!("protocol {version}; up to 5 is known")));
                    }
                }
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    // Pops a mark where that is what lies on top.
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => drop(self.since_mark()?),
                b'2' => {
                    let top = self.peek()?;
                    self.stack.push(top);
                }
                b'N' => self.stack.push(Value::None),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => {
                    let b = self.take(4)?;
                    self.stack.push(Value::Int(i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()));
                }
                0x8a => {
                    let n = self.length(1)?;
                    self.long(n)?;
                }
                0x8b => {
                    let n = self.length(4)?;
                    self.long(n)?;
                }
                b'I' | b'L' => self.decimal()?,
                b'F' => {
                    let (text, _) = self.line()?;
                    let value = text.parse().map_err(|_| Fault(format!("`{text}` is no float")))?;
                    self.stack.push(Value::Float(value));
                }
                b'G' => {
                    let b = self.take(8)?;
                    self.stack.push(Value::Float(f64::from_be_bytes(std::array::from_fn(|i| b[i]))));
                }
                b'X' => self.string(4, Value::Text)?,
                0x8c => self.string(1, Value::Text)?,
                0x8d => self.string(8, Value::Text)?,
                b'T' | b'B' => self.string(4, Value::Bytes)?,
                b'U' | b'C' => self.string(1, Value::Bytes)?,
                0x8e | 0x96 => self.string(8, Value::Bytes)?,
                b'V' => {
                    let (_, span) = self.line()?;
                    self.stack.push(Value::Text(span));
                }
                b'S' => {
                    let (_, span) = self.line()?;
                    self.stack.push(Value::Bytes(span));
                }
                b')' => self.push(Object::Tuple(Vec::new())),
                b']' => self.push(Object::List(Vec::new())),
                b'}' => self.push(Object::Dict(Vec::new())),
                0x8f => self.push(Object::Set(Vec::new())),
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Object::Tuple(items));
                }
                b'l' => {
                    let items = self.since_mark()?;
                    self.push(Object::List(items));
                }
                0x91 => {
                    let items = self.since_mark()?;
                    self.push(Object::Set(items));
                }
                b'd' => {
                    let entries = pairs(self.since_mark()?)?;
                    self.push(Object::Dict(entries));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.since_mark()?;
                    self.extend(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(vec![(key, value)])?;
                }
                b'u' => {
                    let entries = pairs(self.since_mark()?)?;
                    self.insert(entries)?;
                }
                b'b' => {
                    let state = self.pop()?;
                    let top = self.peek()?;
                    // The state of anything but an object of a class (torch's dictionaries have one) is of no use.
                    if let Object::Call(call) = self.object_mut(top)? {
                        call.state = Some(state);
                    }
                }
                b'c' => {
                    let (_, module) = self.line()?;
                    let (_, name) = self.line()?;
                    self.push(Object::Global(module, name));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return Err("a class whose name is no text".into());
                    };
                    self.push(Object::Global(module, name));
                }
                b'R' | 0x81 => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.call(function, arguments);
                }
                0x92 => {
                    let (keywords, positional, class) = (self.pop()?, self.pop()?, self.pop()?);
                    let arguments = self.add(Object::Tuple(vec![positional, keywords]));
                    self.call(class, arguments);
                }
                b'o' => {
                    let mut items = self.since_mark()?;
                    if items.is_empty() {
                        return Err("an object without a class".into());
                    }
                    let class = items.remove(0);
                    let arguments = self.add(Object::Tuple(items));
                    self.call(class, arguments);
                }
                b'i' => {
                    let (_, module) = self.line()?;
                    let (_, name) = self.line()?;
                    let items = self.since_mark()?;
                    let class = self.add(Object::Global(module, name));
                    let arguments = self.add(Object::Tuple(items));
                    self.call(class, arguments);
                }
                b'Q' => {
                    let identity = self.pop()?;
                    self.push(Object::Persistent(identity));
                }
                b'P' => {
                    let (_, identity) = self.line()?;
                    self.push(Object::Persistent(Value::Text(identity)));
                }
                b'q' => {
                    let key = self.take(1)?[0].into();
                    self.remember(key)?;
                }
                b'r' => {
                    let key = self.length(4)? as u32;
                    self.remember(key)?;
                }
                b'p' => {
                    let key = self.line_number()?;
                    self.remember(key)?;
                }
                0x94 => {
                    let key = self.memo.len() as u32;
                    self.remember(key)?;
                }
                b'h' => {
                    let key = self.take(1)?[0].into();
                    self.recall(key)?;
                }
                b'j' => {
                    let key = self.length(4)? as u32;
                    self.recall(key)?;
                }
                b'g' => {
                    let key = self.line_number()?;
                    self.recall(key)?;
                }
                0x82..=0x84 => {
                    return Err("an extension code, which only the program that wrote it knows".into());
                }
                0x97 | 0x98 => return Err("a buffer that lies outside of the pickle".into()),
                other => return Err(Fault(format!("{other:#04x} is no opcode"))),
            }
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len()).ok_or("it ends here")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Up to the line's end, as text without surrounding space, and where that text is.
    fn line(&mut self) -> Result<(&'a str, Span), Fault> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or("a line without an end")?;
        let span = Span { start: self.at as u32, end: (self.at + end) as u32 };
        self.at += end + 1;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| Fault::from("a line that is no text"))?;
        Ok((text.trim(), span))
    }

    fn line_number(&mut self) -> Result<u32, Fault> {
        let (text, _) = self.line()?;
        text.parse().map_err(|_| Fault(format!("`{text}` is no index")))
    }

    /// An unsigned little-endian number of `n` bytes.
    fn length(&mut self, n: usize) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        bytes[..n].copy_from_slice(self.take(n)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn integer(&mut self, n: usize) -> Result<(), Fault> {
        let value = self.length(n)?;
        self.stack.push(Value::Int(value as i64));
        Ok(())
    }

    /// A two's complement integer of `n` bytes.
    fn long(&mut self, n: u64) -> Result<(), Fault> {
        let bytes = self.take(usize::try_from(n).unwrap_or(usize::MAX))?;
        if bytes.len() > 8 {
            self.push(Object::LongInt);
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn decimal(&mut self) -> Result<(), Fault> {
        let (text, _) = self.line()?;
        match text {
            "00" => self.stack.push(Value::Bool(false)),
            "01" => self.stack.push(Value::Bool(true)),
            _ => match text.trim_end_matches('L').parse() {
                Ok(value) => self.stack.push(Value::Int(value)),
                Err(_) if text.bytes().all(|b| b.is_ascii_digit() || b"-L".contains(&b)) => {
                    self.push(Object::LongInt);
                }
                Err(_) => return Err(Fault(format!("`{text}` is no integer"))),
            },
        }
        Ok(())
    }

    fn string(&mut self, bytes_of_length: usize, kind: fn(Span) -> Value) -> Result<(), Fault> {
        let n = self.length(bytes_of_length)?;
        let start = self.at as u32;
        self.take(usize::try_from(n).unwrap_or(usize::MAX))?;
        self.stack.push(kind(Span { start, end: self.at as u32 }));
        Ok(())
    }

    fn add(&mut self, object: Object) -> Value {
        self.objects.push(object);
        Value::Object((self.objects.len() - 1) as u32)
    }

    fn push(&mut self, object: Object) {
        let value = self.add(object);
        self.stack.push(value);
    }

    fn call(&mut self, function: Value, arguments: Value) {
        let call = Call { function, arguments, items: Vec::new(), entries: Vec::new(), state: None };
        self.push(Object::Call(Box::new(call)));
    }

    fn tuple(&mut self, n: usize) -> Result<(), Fault> {
        let from = self.stack.len().checked_sub(n).filter(|&from| from >= self.floor());
        let items = self.stack.split_off(from.ok_or("the stack is empty")?);
        self.push(Object::Tuple(items));
        Ok(())
    }

    /// The height that the stack cannot sink below.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn peek(&self) -> Result<Value, Fault> {
        self.stack
            .last()
            .filter(|_| self.stack.len() > self.floor())
            .copied()
            .ok_or_else(|| "the stack is empty".into())
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn object_mut(&mut self, value: Value) -> Result<&mut Object, Fault> {
        match value {
            Value::Object(i) => Ok(&mut self.objects[i as usize]),
            _ => Err("a plain value where a container was expected".into()),
        }
    }

    fn extend(&mut self, new: Vec<Value>) -> Result<(), Fault> {
        let top = self.peek()?;
        match self.object_mut(top)? {
            Object::List(items) | Object::Set(items) => items.extend(new),
            Object::Call(call) => call.items.extend(new),
            _ => return Err("items added to something that has none".into()),
        }
        Ok(())
    }

    fn insert(&mut self, new: Vec<(Value, Value)>) -> Result<(), Fault> {
        let top = self.peek()?;
        match self.object_mut(top)? {
            Object::Dict(entries) => entries.extend(new),
            Object::Call(call) => call.entries.extend(new),
            _ => return Err("entries added to something that has none".into()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), Fault> {
        let top = self.peek()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Fault> {
        let value = *self.memo.get(&key).ok_or_else(|| Fault(format!("nothing was remembered as {key}")))?;
        self.stack.push(value);
        Ok(())
    }
}

fn pairs(flat: Vec<Value>) -> Result<Vec<(Value, Value)>, Fault> {
    match flat.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key without a value".into()),
    }
}
