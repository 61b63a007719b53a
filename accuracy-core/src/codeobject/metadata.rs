//! The metadata of an AMD code object: a msgpack map in a note.
//!
//! Source: LLVM's user guide for the AMDGPU backend, "Code Object V3 Metadata" to "V5 Metadata".

use super::error::ReadError;
use super::target::TargetId;
use super::{Argument, Kernel};
use rmpv::ValueRef;

pub(super) struct Metadata {
    /// Absent before code object 4.
    pub target: Option<TargetId>,
    pub kernels: Vec<Kernel>,
    /// The formats of `printf` calls, as `amdhsa.printf` lists them.
    pub printf: Vec<String>,
}

/// Metadata nests four deep: kernels, kernel, arguments, argument. The reader counts two levels for a string.
const DEPTH: usize = 16;

pub(super) fn parse(note: &[u8]) -> Result<Metadata, ReadError> {
    let mut rest = note;
    let root = rmpv::decode::read_value_ref_with_max_depth(&mut rest, DEPTH)
        .map_err(|error| ReadError::Metadata(format!("not msgpack: {error}")))?;
    let root = Map::of(&root, "the metadata")?;
    // The note's owner aligns the note, so that nothing but padding can follow.
    if rest.iter().any(|b| *b != 0) {
        return Err(ReadError::Metadata(format!("{} bytes follow its map", rest.len())));
    }
    let target = match root.optional_text("amdhsa.target")? {
        None => None,
        // Architecture, vendor, system, environment (empty, or `unknown` from newer compilers), and the target.
        Some(triple) => match triple.splitn(5, '-').nth(4) {
            Some(id) => Some(id.parse()?),
            None => {
                return Err(ReadError::Metadata(format!("amdhsa.target is `{triple}`, no target triple")));
            }
        },
    };
    let kernels = root.list("amdhsa.kernels")?.unwrap_or_default();
    let kernels =
        kernels.iter().enumerate().map(|(i, kernel)| read_kernel(kernel, i)).collect::<Result<_, _>>()?;
    let format = |value: &ValueRef| match value {
        ValueRef::String(text) => Ok(text.as_str().unwrap_or_default().to_owned()),
        other => Err(root.wrong("amdhsa.printf", "a list of texts", other)),
    };
    let printf = root.list("amdhsa.printf")?.unwrap_or_default();
    let printf = printf.iter().map(format).collect::<Result<_, _>>()?;
    Ok(Metadata { target, kernels, printf })
}

fn read_kernel(value: &ValueRef, index: usize) -> Result<Kernel, ReadError> {
    let anonymous = Map::of(value, &format!("kernel {index}"))?;
    let name = anonymous.text(".name")?;
    let map = Map { what: format!("kernel `{name}`"), ..anonymous };
    let arguments = map.list(".args")?.unwrap_or_default();
    let argument = |(i, value)| {
        let map = Map::of(value, &format!("argument {i} of kernel `{name}`"))?;
        let kind = map.text(".value_kind")?;
        Ok(Argument {
            offset: map.size(".offset")?,
            size: map.size(".size")?,
            kind: kind.to_owned(),
            hidden: kind.starts_with("hidden_"),
            name: map.optional_text(".name")?.map(str::to_owned),
        })
    };
    Ok(Kernel {
        name: name.to_owned(),
        symbol: map.text(".symbol")?.to_owned(),
        kernarg_size: map.size(".kernarg_segment_size")?,
        arguments: arguments.iter().enumerate().map(argument).collect::<Result<_, ReadError>>()?,
        wavefront_size: map.optional_size(".wavefront_size")?,
        max_workgroup_size: map.optional_size(".max_flat_workgroup_size")?,
        shared_size: map.optional_size(".group_segment_fixed_size")?,
        scratch_size: map.optional_size(".private_segment_fixed_size")?,
        vgprs: map.optional_size(".vgpr_count")?,
        agprs: map.optional_size(".agpr_count")?,
        sgprs: map.optional_size(".sgpr_count")?,
        vgpr_spills: map.optional_size(".vgpr_spill_count")?,
        sgpr_spills: map.optional_size(".sgpr_spill_count")?,
    })
}

/// A map whose keys are text, with what it describes.
struct Map<'a> {
    what: String,
    entries: &'a [(ValueRef<'a>, ValueRef<'a>)],
}

impl<'a> Map<'a> {
    fn of(value: &'a ValueRef<'a>, what: &str) -> Result<Map<'a>, ReadError> {
        match value {
            ValueRef::Map(entries) => Ok(Map { what: what.to_owned(), entries }),
            other => Err(ReadError::Metadata(format!("{what} is {}, not a map", kind(other)))),
        }
    }

    fn get(&self, key: &str) -> Option<&'a ValueRef<'a>> {
        let is_key = |k: &ValueRef| matches!(k, ValueRef::String(text) if text.as_str() == Some(key));
        self.entries.iter().find(|(k, _)| is_key(k)).map(|(_, value)| value)
    }

    fn wrong(&self, key: &str, expected: &str, found: &ValueRef) -> ReadError {
        ReadError::Metadata(format!("{key} of {} is {}, not {expected}", self.what, kind(found)))
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, ReadError> {
        value.ok_or_else(|| ReadError::Metadata(format!("{} has no {key}", self.what)))
    }

    fn text(&self, key: &str) -> Result<&'a str, ReadError> {
        self.required(key, self.optional_text(key)?)
    }

    fn optional_text(&self, key: &str) -> Result<Option<&'a str>, ReadError> {
        match self.get(key) {
            None => Ok(None),
            Some(ValueRef::String(text)) if text.as_str().is_some() => Ok(text.into_str()),
            Some(other) => Err(self.wrong(key, "text", other)),
        }
    }

    fn size(&self, key: &str) -> Result<u64, ReadError> {
        self.required(key, self.optional_size(key)?)
    }

    fn optional_size(&self, key: &str) -> Result<Option<u64>, ReadError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(size) => Ok(Some(size)),
                None => Err(self.wrong(key, "a size", value)),
            },
        }
    }

    fn list(&self, key: &str) -> Result<Option<&'a [ValueRef<'a>]>, ReadError> {
        match self.get(key) {
            None => Ok(None),
            Some(ValueRef::Array(values)) => Ok(Some(values)),
            Some(other) => Err(self.wrong(key, "a list", other)),
        }
    }
}

fn kind(value: &ValueRef) -> &'static str {
    match value {
        ValueRef::Nil => "nil",
        ValueRef::Boolean(_) => "a boolean",
        ValueRef::Integer(n) if n.as_u64().is_none() => "a negative number",
        ValueRef::Integer(_) => "a number",
        ValueRef::F32(_) | ValueRef::F64(_) => "a fraction",
        ValueRef::String(text) if text.as_str().is_none() => "text that is not UTF-8",
        ValueRef::String(_) => "text",
        ValueRef::Binary(_) => "bytes",
        ValueRef::Array(_) => "a list",
        ValueRef::Map(_) => "a map",
        ValueRef::Ext(..) => "an extension",
    }
}
