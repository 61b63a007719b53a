//! Code objects as launchers and libraries hand them over: an address whose bytes say themselves how long they are.

use super::engine::{LoadError, LoadErrorKind, ModuleId, Processor};
use super::hostcall::PHASES_MARK;
use super::problem::{Failure, What};
use super::runtime::Runtime;
use super::status::Status;
use crate::codeobject::{self, ReadError, Target, TargetId};

/// The wrapper that compilers put around a bundle: magic number, version, address of the bundle, unused.
const WRAPPER_MAGIC: u32 = 0x4849_5046;

/// The bytes from `address` on that are mapped and readable, up to `most`.
pub(super) fn readable(address: usize, most: usize) -> usize {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return 0 };
    let mut end = address;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some((from, to)) = fields.next().and_then(|range| range.split_once('-')) else { continue };
        let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)) else {
            continue;
        };
        let can_be_read = fields.next().is_some_and(|rights| rights.starts_with('r'));
        if from <= end && end < to && can_be_read {
            end = to;
        }
        if end - address >= most {
            break;
        }
    }
    (end - address).min(most)
}

/// The address of the bundle inside the wrapper at `address`.
pub(super) fn unwrap(address: usize) -> Result<usize, Failure> {
    let invalid = |found| Failure::new(Status::InvalidImage, What::FatBinary { found });
    if readable(address, 24) < 24 {
        return Err(invalid(0));
    }
    // SAFETY: 24 bytes are readable there.
    let (magic, bundle) = unsafe {
        let at = std::ptr::with_exposed_provenance::<u8>(address);
        (at.cast::<u32>().read_unaligned(), at.add(8).cast::<usize>().read_unaligned())
    };
    if magic == WRAPPER_MAGIC { Ok(bundle) } else { Err(invalid(magic)) }
}

/// Loads the code object, bundle or wrapper at this address, `bytes` long or as long as it says.
pub(super) fn load(runtime: &Runtime, address: usize, bytes: Option<usize>) -> Result<ModuleId, Failure> {
    if address == 0 {
        return Err(Status::InvalidValue.into());
    }
    let length = bytes.unwrap_or_else(|| readable(address, usize::MAX));
    if length < 64 {
        return Err(Failure::new(
            Status::InvalidImage,
            What::Bundle(ReadError::Truncated {
                what: "the image".into(),
                needed: 64,
                available: length as u64,
            }),
        ));
    }
    // SAFETY: the bytes are readable, and whoever passed the address keeps them while the call lasts.
    let image =
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(address), length) };
    load_bytes(runtime, image)
}

/// Loads the code object that `image` begins with; what follows it is ignored.
pub(super) fn load_bytes(runtime: &Runtime, image: &[u8]) -> Result<ModuleId, Failure> {
    if let Some(magic) = image.first_chunk::<4>()
        && u32::from_le_bytes(*magic) == WRAPPER_MAGIC
    {
        let bundle = unwrap(image.as_ptr().expose_provenance())?;
        return load(runtime, bundle, None);
    }
    let chosen = match codeobject::is_bundle(image) {
        true => Some(choose(image, runtime.engine.processor())?),
        false => None,
    };
    let code = chosen.as_deref().unwrap_or_else(|| elf(image));
    let module = runtime.engine.load(code).map_err(|error: LoadError| {
        let status = match error.kind {
            LoadErrorKind::Invalid => Status::InvalidImage,
            LoadErrorKind::OtherProcessor => Status::NoBinaryForGpu,
            LoadErrorKind::Memory => Status::OutOfMemory,
        };
        Failure::new(status, What::Load(error))
    })?;
    // The symbol is local, so that only the code object's own strings have it.
    let mark = PHASES_MARK.as_bytes();
    if code.windows(mark.len()).any(|bytes| bytes == mark) {
        runtime.state().phases.insert(module);
    }
    Ok(module)
}

/// The code object of a bundle for this processor: one for the processor itself, or else one for a generic target that
/// it belongs to. Features that the code object asks for must be those of the device.
pub(super) fn choose(bundle: &[u8], processor: Processor) -> Result<Vec<u8>, Failure> {
    let entries = codeobject::bundle_entries(bundle)
        .map_err(|error| Failure::new(Status::InvalidImage, What::Bundle(error)))?;
    let device = processor.target_id();
    let found = entries.iter().map(|entry| entry.target.to_string()).collect();
    let fits = |target: &Target| match (target, device.parse::<TargetId>()) {
        (Target::Amd(code), Ok(device)) if code.runs_on(&device) => {
            // The processor itself goes before a generic one.
            Some(code.processor != device.processor)
        }
        _ => None,
    };
    let best = entries
        .into_iter()
        .filter_map(|entry| fits(&entry.target).map(|generic| (generic, entry)))
        .min_by_key(|(generic, _)| *generic);
    match best {
        Some((_, entry)) => Ok(entry.code),
        None => Err(Failure::new(Status::NoBinaryForGpu, What::NoBinary { device, found })),
    }
}

/// The ELF file that `image` begins with: as far as its headers say that it reaches. What is no ELF file stays whole,
/// for the engine to refuse.
fn elf(image: &[u8]) -> &[u8] {
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = image.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let table = |offset: usize, entry: usize, count: usize, place: usize, size: usize| -> Option<usize> {
        let (start, step, entries) = (number(offset, 8)?, number(entry, 2)?, number(count, 2)?);
        let mut end = start.checked_add(step * entries)?;
        for i in 0..entries {
            let header = start.checked_add(i * step)?;
            let (from, bytes) =
                (number(header.checked_add(place)?, 8)?, number(header.checked_add(size)?, 8)?);
            end = end.max(from.checked_add(bytes)?);
        }
        Some(end)
    };
    if !image.starts_with(b"\x7fELF") {
        return image;
    }
    // Program headers: e_phoff, e_phentsize, e_phnum, p_offset, p_filesz.
    let segments = table(0x20, 0x36, 0x38, 0x08, 0x20);
    // The section headers (e_shoff, e_shentsize, e_shnum) are the last part of a file that a linker wrote.
    let sections = match (number(0x28, 8), number(0x3a, 2), number(0x3c, 2)) {
        (Some(start), Some(step), Some(count)) => start.checked_add(step * count),
        _ => None,
    };
    match (segments, sections) {
        (Some(segments), Some(sections)) => &image[..segments.max(sections).min(image.len())],
        _ => image,
    }
}
