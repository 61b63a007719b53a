//! A code object in memory: its segments at addresses of this process, relocated, its instructions decoded.
//!
//! Source of the layouts: LLVM's user guide for the AMDGPU backend, "Code Object" and "Kernel Descriptor".

use super::hazards::{self, Hazard};
use super::isa::errata::{Erratum, erratum_of};
use super::isa::{DecodeError, Inst, Processor, decode};
use super::memory::Region;
use crate::codeobject::{self, Kernel as Described, ReadError, Target};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, Rela as _, SectionHeader as _, Sym as _};
use std::collections::{BTreeMap, HashMap};
use std::sync::{OnceLock, RwLock};

/// Why a code object cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the code object cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the code object is damaged: {0}")]
    Elf(#[from] object::Error),
    #[error("the code object is damaged: {0}")]
    Damaged(String),
    #[error("the code object is for {found}, and {wanted} is emulated: build it for {wanted}")]
    OtherProcessor { found: String, wanted: &'static str },
    #[error("the code object needs relocation type {0}, which the emulator does not have")]
    Relocation(u32),
    #[error("the code object needs `{0}`, which it does not define")]
    Undefined(String),
    #[error("kernel `{kernel}` {what}")]
    Kernel { kernel: String, what: String },
    #[error("{bytes} bytes cannot be had for the code object: {source}")]
    Memory { bytes: u64, source: std::io::Error },
}

/// Memory of this process that holds a loaded code object, given back when it is dropped.
struct Mapping {
    address: usize,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> std::io::Result<Mapping> {
        // SAFETY: an anonymous mapping at an address that the system chooses touches no other memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Mapping { address: address.expose_provenance(), len })
    }

    /// The bytes, before any kernel runs.
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this long, readable and writable, and `&mut self` says that nobody else uses it yet.
        unsafe {
            std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(self.address), self.len)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and its owner is gone.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.address), self.len) };
    }
}

/// A loaded code object.
pub struct Module {
    pub processor: Processor,
    /// What kernels may touch of it.
    pub regions: Vec<Region>,
    pub kernels: Vec<Kernel>,
    /// Address and bytes of each variable.
    pub variables: HashMap<String, (u64, u64)>,
    /// The formats of `printf` calls in device code.
    pub printf_formats: Vec<String>,
    code: Vec<Code>,
    errata: OnceLock<Vec<(usize, u64, &'static Erratum)>>,
    hazards: OnceLock<Vec<(usize, u64, Hazard)>>,
    lines: Option<super::lines::Lines>,
    /// Address of the byte that the file calls 0.
    base: u64,
    _mapping: Mapping,
}

/// A kernel of a loaded code object.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As the metadata describes it.
    pub described: Described,
    pub descriptor: Descriptor,
    /// Address of its first instruction.
    pub entry: u64,
}

/// The kernel descriptor: how a wave's registers are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Bytes of LDS, without what a launch adds.
    pub lds: u32,
    /// Bytes of scratch memory of each lane.
    pub scratch: u32,
    /// Bytes of the argument segment, the metadata's number where that is larger.
    pub kernarg: u32,
    /// Distance of the first instruction from the descriptor.
    pub entry_offset: i64,
    pub rsrc1: u32,
    pub rsrc2: u32,
    pub rsrc3: u32,
    pub properties: u16,
    pub preload: u16,
}

impl Descriptor {
    /// Bytes of a descriptor.
    pub const LEN: usize = 64;

    fn read(bytes: &[u8; Descriptor::LEN]) -> Descriptor {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let entry = u64::from(word(16)) | u64::from(word(20)) << 32;
        Descriptor {
            lds: word(0),
            scratch: word(4),
            kernarg: word(8),
            entry_offset: entry as i64,
            rsrc3: word(44),
            rsrc1: word(48),
            rsrc2: word(52),
            properties: word(56) as u16,
            preload: (word(56) >> 16) as u16,
        }
    }

    /// Vector registers of a lane, AGPRs among them.
    pub fn vector_registers(self) -> u32 {
        ((self.rsrc1 & 63) + 1) * 8
    }

    /// The first AGPR's place among the vector registers.
    pub fn accum_offset(self) -> u32 {
        ((self.rsrc3 & 63) + 1) * 4
    }

    /// MODE at the start of a wave.
    pub fn mode(self) -> u32 {
        let floats = self.rsrc1 >> 12 & 0xff;
        let dx10_clamp = self.rsrc1 >> 21 & 1;
        let ieee = self.rsrc1 >> 23 & 1;
        let fp16_overflow = self.rsrc1 >> 26 & 1;
        floats | dx10_clamp << 8 | ieee << 9 | fp16_overflow << 23
    }

    pub fn user_sgprs(self) -> u32 {
        self.rsrc2 >> 1 & 31
    }

    /// Whether bit `bit` of the kernel code properties is set.
    pub fn has(self, bit: u32) -> bool {
        self.properties >> bit & 1 != 0
    }
}

/// An executable segment.
struct Code {
    start: u64,
    /// The number of its first instruction among all of the module.
    first: usize,
    /// For each dword, the instruction that begins there, plus one; 0 for the inside of an instruction.
    index: Vec<u32>,
    instructions: Vec<Decoded>,
    /// Instructions at places that the linear sweep did not find, by their dword. Boxes are never dropped or moved
    /// before the segment is.
    found: RwLock<BTreeMap<usize, Box<[Decoded; 1]>>>,
    bytes: Vec<u8>,
}

/// An instruction, or the reason why there is none.
#[expect(
    clippy::large_enum_variant,
    reason = "almost all are instructions, which the wave reads one behind the other"
)]
pub enum Decoded {
    Inst(Inst),
    Error(DecodeError),
}

impl Module {
    /// Loads an AMDGPU ELF file.
    ///
    /// # Errors
    /// If it is damaged, for another processor, or needs what the emulator does not have.
    pub fn load(file: &[u8], processor: Processor) -> Result<Module, LoadError> {
        let described = describe(file, processor)?;
        let header = FileHeader64::<LE>::parse(file)?;
        let segments = header.program_headers(LE, file)?;
        let loaded = || segments.iter().filter(|s| s.p_type(LE) == elf::PT_LOAD && s.p_memsz(LE) > 0);
        let end = loaded().map(|s| s.p_vaddr(LE).saturating_add(s.p_memsz(LE))).max().unwrap_or(0);
        if end > LIMIT {
            return Err(LoadError::Damaged(format!("its segments end at {end:#x}")));
        }
        let len = (end as usize).max(1).next_multiple_of(4096);
        let mut mapping =
            Mapping::new(len).map_err(|source| LoadError::Memory { bytes: len as u64, source })?;
        let base = mapping.address as u64;
        let mut regions = Vec::new();
        for segment in loaded() {
            let data = segment
                .data(LE, file)
                .map_err(|()| LoadError::Damaged("a segment ends outside of the file".into()))?;
            let (at, size) = (segment.p_vaddr(LE) as usize, segment.p_memsz(LE) as usize);
            if data.len() > size {
                return Err(LoadError::Damaged("a segment is larger in the file than in memory".into()));
            }
            mapping.bytes()[at..at + data.len()].copy_from_slice(data);
            let start = base + at as u64;
            let writable = segment.p_flags(LE).0 & elf::PF_W.0 != 0;
            regions.push(Region { start, end: start + size as u64, writable });
        }
        regions.sort_by_key(|region| region.start);
        if regions.windows(2).any(|pair| pair[0].end > pair[1].start) {
            return Err(LoadError::Damaged("its segments overlap".into()));
        }
        let symbols = Symbols::read(file, header)?;
        relocate(file, header, &symbols, mapping.bytes(), base)?;
        let kernels = kernels(&described, &symbols, mapping.bytes(), base, end)?;
        let mut code: Vec<Code> = Vec::new();
        for segment in loaded().filter(|s| s.p_flags(LE).0 & elf::PF_X.0 != 0) {
            let (at, size) = (segment.p_vaddr(LE) as usize, segment.p_filesz(LE) as usize);
            let first = code.last().map_or(0, |c| c.first + c.instructions.len());
            code.push(Code::sweep(processor, first, base, at, &mapping.bytes()[at..at + size], &symbols));
        }
        let variables = symbols
            .defined
            .iter()
            .filter(|(name, s)| s.kind == elf::STT_OBJECT.0 && !name.ends_with(".kd"))
            .map(|(name, s)| (name.clone(), (base + s.value, s.size)))
            .collect();
        let printf_formats = codeobject::printf_formats(file)?;
        let lines = super::lines::Lines::read(file);
        Ok(Module {
            processor,
            regions,
            kernels,
            variables,
            printf_formats,
            code,
            errata: OnceLock::new(),
            hazards: OnceLock::new(),
            lines,
            base,
            _mapping: mapping,
        })
    }

    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.described.name == name)
    }

    /// The instruction at an address.
    pub(super) fn at(&self, pc: u64) -> Option<Place<'_>> {
        self.code.iter().find_map(|code| code.at(self.processor, pc))
    }

    /// The instruction at an address, if there is one.
    pub fn instruction(&self, pc: u64) -> Option<&Inst> {
        match self.at(pc)?.instructions.first()? {
            Decoded::Inst(inst) => Some(inst),
            Decoded::Error(_) => None,
        }
    }

    /// How many instructions the linear sweep found.
    pub(super) fn instruction_count(&self) -> usize {
        self.code.last().map_or(0, |code| code.first + code.instructions.len())
    }

    /// All of them, in the order of their numbers.
    pub(super) fn instructions(&self) -> impl Iterator<Item = &Decoded> {
        self.code.iter().flat_map(|code| &code.instructions)
    }

    /// All instructions that the linear sweep found, in the order of their addresses: number, address, instruction.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, u64, &Inst)> {
        self.code.iter().flat_map(|code| {
            (0..).zip(&code.index).filter_map(|(dword, number): (u64, &u32)| {
                let number = (*number as usize).checked_sub(1)?;
                match code.instructions.get(number)? {
                    Decoded::Inst(inst) => Some((code.first + number, code.start + 4 * dword, inst)),
                    Decoded::Error(_) => None,
                }
            })
        })
    }

    /// The instructions that meet a known fault of the hardware: number, address and fault.
    pub(super) fn errata(&self) -> &[(usize, u64, &'static Erratum)] {
        self.errata.get_or_init(|| {
            let met = self
                .code()
                .filter_map(|(number, at, inst)| Some((number, at, erratum_of(self.processor, inst)?)));
            met.collect()
        })
    }

    /// The instructions that are too close to the one whose result they use: number, address and hazard, in which the first
    /// instruction has its number, too.
    pub fn hazards(&self) -> &[(usize, u64, Hazard)] {
        self.hazards.get_or_init(|| {
            let numbers: Vec<usize> = self.code().map(|(number, ..)| number).collect();
            let code: Vec<(u64, &Inst)> = self.code().map(|(_, at, inst)| (at, inst)).collect();
            let found = hazards::find(self.processor, &code).into_iter();
            let numbered = found.map(|(place, hazard)| {
                let (at, first) = hazard.first;
                (numbers[place], code[place].0, Hazard { first: (at, numbers[first]), ..hazard })
            });
            numbered.collect()
        })
    }

    /// An address as the file counts it, which is what a disassembly shows.
    pub fn offset(&self, pc: u64) -> u64 {
        pc.wrapping_sub(self.base)
    }

    /// File and line of the source that an instruction was compiled from, where the code object says so.
    pub fn line(&self, pc: u64) -> Option<(String, u32)> {
        self.lines.as_ref()?.find(self.offset(pc))
    }

    /// Path of that file, as the compiler had it, and the line.
    pub fn source(&self, pc: u64) -> Option<(&std::path::Path, u32)> {
        self.lines.as_ref()?.path(self.offset(pc))
    }
}

/// Instructions from one address on.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub instructions: &'a [Decoded],
    /// The number of the first one among all instructions of the module; `None` for one that the sweep did not find.
    pub number: Option<usize>,
}

/// Addresses that a code object may ask for: none has gigabytes.
const LIMIT: u64 = 1 << 32;

/// What the metadata says of the kernels, once it is certain that the processor runs this code.
fn describe(file: &[u8], processor: Processor) -> Result<Vec<Described>, LoadError> {
    let contents = codeobject::read(file)?;
    let [object] = &contents.code_objects[..] else {
        return Err(LoadError::Damaged("it is no code object".into()));
    };
    if !object.target.runs_on(&Target::Amd(processor.target())) {
        let found = object.target.to_string();
        return Err(LoadError::OtherProcessor { found, wanted: processor.name() });
    }
    Ok(object.kernels.clone().unwrap_or_default())
}

struct Symbol {
    value: u64,
    size: u64,
    kind: u8,
}

#[derive(Default)]
struct Symbols {
    defined: HashMap<String, Symbol>,
    /// In the order of the dynamic symbol table: name, and value where it is defined.
    all: Vec<(String, Option<u64>)>,
    /// Where functions begin.
    functions: Vec<u64>,
}

impl Symbols {
    fn read(file: &[u8], header: &FileHeader64<LE>) -> Result<Symbols, LoadError> {
        let mut found = Symbols::default();
        let sections = header.sections(LE, file)?;
        for table in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            let symbols = sections.symbols(LE, file, table)?;
            for symbol in symbols.iter() {
                let name = String::from_utf8_lossy(symbols.symbol_name(LE, symbol)?).into_owned();
                let defined = !symbol.is_undefined(LE);
                let value = symbol.st_value(LE);
                if table == elf::SHT_DYNSYM {
                    found.all.push((name.clone(), defined.then_some(value)));
                }
                if !defined {
                    continue;
                }
                let kind = symbol.st_type().0;
                if kind == elf::STT_FUNC.0 {
                    found.functions.push(value);
                }
                if table == elf::SHT_DYNSYM {
                    let size = symbol.st_size(LE);
                    found.defined.insert(name, Symbol { value, size, kind });
                }
            }
        }
        found.functions.sort_unstable();
        found.functions.dedup();
        Ok(found)
    }
}

/// Relocations of AMDGPU that a linked code object can have.
mod relocation {
    pub const NONE: u32 = 0;
    pub const ABS64: u32 = 3;
    pub const ABS32_LO: u32 = 1;
    pub const ABS32_HI: u32 = 2;
    pub const ABS32: u32 = 6;
    pub const RELATIVE64: u32 = 13;
}

fn relocate(
    file: &[u8],
    header: &FileHeader64<LE>,
    symbols: &Symbols,
    memory: &mut [u8],
    base: u64,
) -> Result<(), LoadError> {
    for section in header.sections(LE, file)?.iter() {
        // Only what is loaded is relocated: debug sections are not.
        if section.sh_type(LE) != elf::SHT_RELA || section.sh_flags(LE).0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        let Some((entries, _)) = section.rela(LE, file)? else { continue };
        for entry in entries {
            let kind = entry.r_type(LE, false);
            let symbol = entry.r_sym(LE, false) as usize;
            let addend = entry.r_addend(LE) as u64;
            let target = || {
                let (name, value) = symbols
                    .all
                    .get(symbol)
                    .ok_or_else(|| LoadError::Damaged(format!("a relocation names symbol {symbol}")))?;
                let value = value.ok_or_else(|| LoadError::Undefined(name.clone()))?;
                Ok::<u64, LoadError>(base.wrapping_add(value).wrapping_add(addend))
            };
            let (value, len) = match kind.0 {
                relocation::NONE => continue,
                relocation::RELATIVE64 => (base.wrapping_add(addend), 8),
                relocation::ABS64 => (target()?, 8),
                relocation::ABS32 | relocation::ABS32_LO => (target()?, 4),
                relocation::ABS32_HI => (target()? >> 32, 4),
                other => return Err(LoadError::Relocation(other)),
            };
            let at = entry.r_offset(LE) as usize;
            let place = at
                .checked_add(len)
                .and_then(|end| memory.get_mut(at..end))
                .ok_or_else(|| LoadError::Damaged(format!("a relocation is at {at:#x}")))?;
            place.copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }
    Ok(())
}

fn kernels(
    described: &[Described],
    symbols: &Symbols,
    memory: &[u8],
    base: u64,
    end: u64,
) -> Result<Vec<Kernel>, LoadError> {
    let mut kernels = Vec::new();
    for kernel in described {
        let wrong = |what: String| LoadError::Kernel { kernel: kernel.name.clone(), what };
        let symbol = symbols
            .defined
            .get(&kernel.symbol)
            .ok_or_else(|| wrong(format!("has no descriptor: there is no symbol `{}`", kernel.symbol)))?;
        let bytes: &[u8; Descriptor::LEN] = usize::try_from(symbol.value)
            .ok()
            .and_then(|at| memory.get(at..at.checked_add(Descriptor::LEN)?))
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| wrong("has a descriptor outside of the code object".into()))?;
        let mut descriptor = Descriptor::read(bytes);
        // The runtime goes by the metadata: kernels written in assembly may leave the descriptor's number 0.
        descriptor.kernarg = descriptor.kernarg.max(u32::try_from(kernel.kernarg_size).unwrap_or(u32::MAX));
        let entry = symbol.value.wrapping_add_signed(descriptor.entry_offset);
        if entry >= end || entry % 4 != 0 {
            return Err(wrong(format!("begins at {entry:#x}, outside of the code object")));
        }
        kernels.push(Kernel { described: kernel.clone(), descriptor, entry: base + entry });
    }
    Ok(kernels)
}

impl Code {
    /// Decodes a segment from front to back, beginning anew at each function.
    fn sweep(
        processor: Processor,
        first: usize,
        base: u64,
        at: usize,
        bytes: &[u8],
        symbols: &Symbols,
    ) -> Code {
        let mut index = vec![0; bytes.len() / 4];
        let mut instructions = Vec::new();
        let starts: Vec<usize> = symbols
            .functions
            .iter()
            .filter_map(|value| (*value as usize).checked_sub(at))
            .filter(|start| *start < bytes.len())
            .collect();
        let mut next_start = starts.iter().copied().peekable();
        let mut offset = 0;
        while offset + 4 <= bytes.len() {
            while next_start.next_if(|start| *start <= offset).is_some() {}
            let room = next_start.peek().map_or(bytes.len(), |start| (*start).min(bytes.len()));
            let decoded = decode_at(processor, &bytes[offset..room.max(offset + 4).min(bytes.len())]);
            index[offset / 4] = instructions.len() as u32 + 1;
            offset += usize::from(decoded.size());
            instructions.push(decoded);
        }
        // Whatever runs past the end finds a word that is no instruction.
        instructions.push(decode_at(processor, &[]));
        let (found, bytes) = (RwLock::default(), bytes.to_vec());
        Code { start: base + at as u64, first, index, instructions, found, bytes }
    }

    fn at(&self, processor: Processor, pc: u64) -> Option<Place<'_>> {
        let offset = usize::try_from(pc.checked_sub(self.start)?).ok()?;
        if offset % 4 != 0 {
            return None;
        }
        match *self.index.get(offset / 4)? {
            0 => Some(Place { instructions: self.find(processor, offset), number: None }),
            n => {
                let first = n as usize - 1;
                Some(Place { instructions: &self.instructions[first..], number: Some(self.first + first) })
            }
        }
    }

    /// The instruction at a place inside of what the sweep took for one.
    fn find(&self, processor: Processor, offset: usize) -> &[Decoded] {
        let known = |found: &BTreeMap<usize, Box<[Decoded; 1]>>| {
            // SAFETY: a box stays where it is, and the map only grows as long as the segment lives.
            found.get(&offset).map(|b| unsafe { &*std::ptr::from_ref::<[Decoded]>(&b[..]) })
        };
        if let Some(place) = known(&self.found.read().unwrap_or_else(|e| e.into_inner())) {
            return place;
        }
        let mut found = self.found.write().unwrap_or_else(|e| e.into_inner());
        found.entry(offset).or_insert_with(|| Box::new([decode_at(processor, &self.bytes[offset..])]));
        known(&found).unwrap_or_default()
    }
}

impl Decoded {
    /// Bytes; a word that is no instruction has four.
    pub fn size(&self) -> u8 {
        match self {
            Decoded::Inst(inst) => inst.size,
            Decoded::Error(_) => 4,
        }
    }
}

fn decode_at(processor: Processor, bytes: &[u8]) -> Decoded {
    match decode(processor, bytes) {
        Ok(inst) => Decoded::Inst(inst),
        Err(error) => Decoded::Error(error),
    }
}
