//! ELF files: host libraries, AMD code objects and cubins. Bundles and fatbins inside them are read elsewhere.

use super::error::ReadError;
use super::target::{Target, TargetId};
use super::{CodeObject, Packing, metadata};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable, Sym as _};
use std::collections::HashSet;

pub(super) const MAGIC: &[u8] = b"\x7fELF";

/// Of the note with a code object's metadata (`NT_AMDGPU_METADATA`), whose owner is `AMDGPU`.
const METADATA_NOTE: u32 = 32;

pub(super) enum Machine {
    AmdGpu,
    Cuda,
    Host(&'static str),
    Other(u16),
}

/// A 64-bit little-endian file, linked, whose parts all lie inside it.
pub(super) struct Elf<'a> {
    data: &'a [u8],
    header: &'a FileHeader64<LE>,
    sections: SectionTable<'a, FileHeader64<LE>>,
}

/// What the dynamic linker needs to know.
pub(super) struct Dynamic<'a> {
    pub soname: Option<String>,
    pub needed: Vec<String>,
    pub functions: Vec<String>,
    pub imports: HashSet<&'a str>,
}

impl<'a> Elf<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Elf<'a>, ReadError> {
        let within = |what: &str, end: u64| {
            let available = data.len() as u64;
            let what = what.to_owned();
            if end <= available { Ok(()) } else { Err(ReadError::Truncated { what, needed: end, available }) }
        };
        within("the ELF header", size_of::<FileHeader64<LE>>() as u64)?;
        let ident = &data[4..6];
        if ident != [2, 1] {
            return Err(ReadError::ElfClass);
        }
        let header = FileHeader64::<LE>::parse(data)?;
        let table =
            |offset: u64, count: u16, size: u16| offset.saturating_add(u64::from(count) * u64::from(size));
        within("the section table", table(header.e_shoff(LE), header.e_shnum(LE), header.e_shentsize(LE)))?;
        within("the program headers", table(header.e_phoff(LE), header.e_phnum(LE), header.e_phentsize(LE)))?;
        for segment in header.program_headers(LE, data)? {
            within("a segment", segment.p_offset(LE).saturating_add(segment.p_filesz(LE)))?;
        }
        let sections = header.sections(LE, data)?;
        for section in sections.iter().filter(|s| s.sh_type(LE) != elf::SHT_NOBITS) {
            within("a section", section.sh_offset(LE).saturating_add(section.sh_size(LE)))?;
        }
        if header.e_type(LE) == elf::ET_REL {
            return Err(ReadError::NotLinked);
        }
        Ok(Elf { data, header, sections })
    }

    pub fn machine(&self) -> Machine {
        match self.header.e_machine(LE) {
            elf::EM_AMDGPU => Machine::AmdGpu,
            elf::EM_CUDA => Machine::Cuda,
            elf::EM_X86_64 => Machine::Host("x86_64"),
            elf::EM_AARCH64 => Machine::Host("aarch64"),
            elf::EM_PPC64 => Machine::Host("powerpc64le"),
            elf::EM_RISCV => Machine::Host("riscv64"),
            other => Machine::Other(other.0),
        }
    }

    /// The contents of the first section of a name.
    pub fn section(&self, name: &str) -> Result<Option<&'a [u8]>, ReadError> {
        match self.sections.section_by_name(LE, name.as_bytes()) {
            Some((_, section)) => Ok(Some(section.data(LE, self.data)?)),
            None => Ok(None),
        }
    }

    pub fn dynamic(&self) -> Result<Dynamic<'a>, ReadError> {
        // Every symbol may name the same long string: no real library comes near this.
        let mut budget = self.data.len().saturating_mul(4);
        let mut text = |bytes: &'a [u8]| {
            budget = budget
                .checked_sub(bytes.len())
                .ok_or_else(|| ReadError::Elf("its symbol names overlap beyond reason".into()))?;
            std::str::from_utf8(bytes).map_err(|_| ReadError::Elf("a symbol's name is not UTF-8".into()))
        };
        let mut found =
            Dynamic { soname: None, needed: Vec::new(), functions: Vec::new(), imports: HashSet::new() };
        let table = self.sections.dynamic_table(LE, self.data)?;
        for entry in table.iter() {
            if entry.tag == elf::DT_NEEDED {
                found.needed.push(text(table.string(entry)?)?.to_owned());
            } else if entry.tag == elf::DT_SONAME {
                found.soname = Some(text(table.string(entry)?)?.to_owned());
            }
        }
        let symbols = self.sections.symbols(LE, self.data, elf::SHT_DYNSYM)?;
        for symbol in symbols.iter() {
            if !matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK) {
                continue;
            }
            let name = text(symbols.symbol_name(LE, symbol)?)?;
            if symbol.is_undefined(LE) {
                found.imports.insert(name);
            } else if matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC)
                && !matches!(name, "_init" | "_fini")
            {
                found.functions.push(name.to_owned());
            }
        }
        found.functions.sort();
        found.functions.dedup();
        Ok(found)
    }

    pub fn amd_code_object(&self, packing: Packing) -> Result<CodeObject, ReadError> {
        let abi = self.data[8];
        // Code objects 3 to 6 are ABI versions 1 to 4.
        if abi == 0 {
            return Err(ReadError::OldAbi(abi));
        }
        let flags = self.header.e_flags(LE).0;
        let target = TargetId::from_flags(flags, abi)?;
        let note = self.metadata_note()?.ok_or(ReadError::MetadataMissing)?;
        let metadata = metadata::parse(note)?;
        if let Some(named) = metadata.target
            && named.processor != target.processor
        {
            return Err(ReadError::Metadata(format!("amdhsa.target says {named}, the ELF header {target}")));
        }
        Ok(CodeObject {
            target: Target::Amd(target),
            packing,
            size: self.data.len() as u64,
            version: Some(abi.saturating_add(2)),
            kernels: Some(metadata.kernels),
        })
    }

    /// The formats of the `printf` calls of a code object's kernels.
    pub fn printf_formats(&self) -> Result<Vec<String>, ReadError> {
        let note = self.metadata_note()?.ok_or(ReadError::MetadataMissing)?;
        Ok(metadata::parse(note)?.printf)
    }

    fn metadata_note(&self) -> Result<Option<&'a [u8]>, ReadError> {
        let mut budget = self.data.len() as u64;
        for segment in self.header.program_headers(LE, self.data)? {
            let Some(mut notes) = segment.notes(LE, self.data)? else { continue };
            budget = budget
                .checked_sub(segment.p_filesz(LE))
                .ok_or_else(|| ReadError::Elf("its note segments overlap".into()))?;
            while let Some(note) = notes.next()? {
                if note.name() == b"AMDGPU" && note.n_type(LE).0 == METADATA_NOTE {
                    return Ok(Some(note.desc()));
                }
            }
        }
        Ok(None)
    }

    /// Source of the flags' layout: LLVM's `BinaryFormat/ELF.h`, `EF_CUDA_SM`.
    pub fn cubin(&self, packing: Packing) -> CodeObject {
        const ABI_SINCE_BLACKWELL: u8 = 8;
        let flags = self.header.e_flags(LE).0;
        let sm = if self.data[8] >= ABI_SINCE_BLACKWELL { flags >> 8 & 0xff } else { flags & 0xff };
        let size = self.data.len() as u64;
        CodeObject { target: Target::Cubin { sm }, packing, size, version: None, kernels: None }
    }
}
