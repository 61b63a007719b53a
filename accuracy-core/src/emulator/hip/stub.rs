//! Writes the shared object that stands for `libamdhip64.so.N`: no compiler and no linker is on the machine.
//!
//! The object exports every name of HIP's runtime. Behind each is a jump through a table of addresses in the object's
//! data, which the test process fills in once the object is loaded (symbol [`TABLE`]). An entry that is not filled in
//! leads to a second piece of code, which passes the name's index to the handler that entry 0 of the table holds.
//!
//! Libraries ask for HIP's names with versions (`hip_4.2` and later), and glibc stops the process if the object that
//! they name has no version table at all. This one has a table in which every name is of the base version, which
//! serves every request. A table only counts in an object that defines or needs a version: it needs the oldest one of
//! libc.
//!
//! Source: the System V ABI's generic part (ELF-64, dynamic linking, `DT_HASH`), the processor supplements for x86-64
//! and AArch64, and the Linux Standard Base, "Symbol Versioning".

/// The symbol of the table: 8 bytes for the handler, then 8 for each name.
pub const TABLE: &str = "accuracy_hip_table";

/// A processor that the object runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The processor that this process runs on, if objects can be written for it.
    pub const fn host() -> Option<Machine> {
        if cfg!(target_arch = "x86_64") {
            Some(Machine::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Machine::Aarch64)
        } else {
            None
        }
    }

    /// `e_machine`.
    const fn number(self) -> u16 {
        match self {
            Machine::X86_64 => 62,
            Machine::Aarch64 => 183,
        }
    }

    /// The relocation that adds the load address: `R_X86_64_RELATIVE`, `R_AARCH64_RELATIVE`.
    const fn relative(self) -> u64 {
        match self {
            Machine::X86_64 => 8,
            Machine::Aarch64 => 1027,
        }
    }

    /// The oldest version of libc's symbols.
    const fn libc_version(self) -> &'static str {
        match self {
            Machine::X86_64 => "GLIBC_2.2.5",
            Machine::Aarch64 => "GLIBC_2.17",
        }
    }

    /// Code at `at` that jumps to the address that is stored at `entry`.
    fn jump(self, at: u64, entry: u64) -> [u8; PIECE] {
        let mut code = [0; PIECE];
        match self {
            Machine::X86_64 => {
                // endbr64; jmp [rip + distance]; int3 up to the end.
                let distance = entry.wrapping_sub(at + 10) as u32;
                code = [0xcc; PIECE];
                code[..4].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa]);
                code[4..6].copy_from_slice(&[0xff, 0x25]);
                code[6..10].copy_from_slice(&distance.to_le_bytes());
            }
            Machine::Aarch64 => {
                // bti c, where it is known; adrp and ldr x16; br x16.
                let words = [0xd503_245f, adrp_x16(at + 4, entry), ldr_x16(entry), 0xd61f_0200];
                put_words(&mut code, words);
            }
        }
        code
    }

    /// Code at `at` that calls the handler, whose address is stored at `handler`, with `index`.
    fn trap(self, at: u64, handler: u64, index: u16) -> [u8; PIECE] {
        let mut code = [0xcc; PIECE];
        match self {
            Machine::X86_64 => {
                // endbr64; mov edi, index; jmp [rip + distance].
                let distance = handler.wrapping_sub(at + 15) as u32;
                code[..4].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa]);
                code[4] = 0xbf;
                code[5..9].copy_from_slice(&u32::from(index).to_le_bytes());
                code[9..11].copy_from_slice(&[0xff, 0x25]);
                code[11..15].copy_from_slice(&distance.to_le_bytes());
            }
            Machine::Aarch64 => {
                // movz w0, index; adrp and ldr x16; br x16.
                let movz = 0x5280_0000 | u32::from(index) << 5;
                put_words(&mut code, [movz, adrp_x16(at + 4, handler), ldr_x16(handler), 0xd61f_0200]);
            }
        }
        code
    }
}

fn put_words(code: &mut [u8; PIECE], words: [u32; 4]) {
    for (bytes, word) in code.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// `adrp x16` at `at`, for the page of `target`.
fn adrp_x16(at: u64, target: u64) -> u32 {
    let pages = ((target >> 12) as i64 - (at >> 12) as i64) as u32;
    0x9000_0010 | (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5
}

/// `ldr x16, [x16, offset in the page of target]`.
fn ldr_x16(target: u64) -> u32 {
    0xf940_0210 | ((target as u32 & 0xfff) / 8) << 10
}

/// Bytes of each piece of code.
const PIECE: usize = 16;

/// Distance of the segments' addresses: the largest page that either processor's kernel has.
const PAGE: u64 = 0x1_0000;

const EHDR: usize = 64;
const PHDR: usize = 56;
const SHDR: usize = 64;
const SYM: usize = 24;
const RELA: usize = 24;
const SEGMENTS: usize = 5;

/// Bytes with numbers appended in little-endian order.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(&mut self, values: &[u16]) {
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    fn u32(&mut self, values: &[u32]) {
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    fn u64(&mut self, values: &[u64]) {
        self.0.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    /// Appends text and its terminating zero, and returns where it begins.
    fn text(&mut self, text: &str) -> u32 {
        let at = self.0.len() as u32;
        self.0.extend(text.as_bytes());
        self.0.push(0);
        at
    }

    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }
}

/// Where a part of the file lies.
#[derive(Clone, Copy, Default)]
struct Part {
    offset: u64,
    address: u64,
    size: u64,
}

impl Part {
    /// A part behind `offset`, aligned to 16 bytes, whose addresses are `bias` above its offsets.
    fn after(offset: u64, bias: u64, size: usize) -> Part {
        let offset = offset.next_multiple_of(16);
        Part { offset, address: offset + bias, size: size as u64 }
    }

    fn end(self) -> u64 {
        self.offset + self.size
    }
}

/// The parts of the file, in its order.
struct Plan {
    dynsym: Part,
    dynstr: Part,
    hash: Part,
    versym: Part,
    verneed: Part,
    rela: Part,
    text: Part,
    dynamic: Part,
    table: Part,
    shstrtab: Part,
    sections: Part,
}

const DYNAMIC_ENTRIES: usize = 15;
const SECTIONS: [&str; 11] = [
    "",
    ".dynsym",
    ".dynstr",
    ".hash",
    ".gnu.version",
    ".gnu.version_r",
    ".rela.dyn",
    ".text",
    ".dynamic",
    ".data",
    ".shstrtab",
];

impl Plan {
    fn new(names: usize, strings: usize, section_names: usize) -> Plan {
        let symbols = names + 2;
        let dynsym = Part::after((EHDR + SEGMENTS * PHDR) as u64, 0, symbols * SYM);
        let dynstr = Part::after(dynsym.end(), 0, strings);
        let hash = Part::after(dynstr.end(), 0, 4 * (2 + buckets(names) + symbols));
        let versym = Part::after(hash.end(), 0, 2 * symbols);
        let verneed = Part::after(versym.end(), 0, 32);
        let rela = Part::after(verneed.end(), 0, names * RELA);
        let text = Part::after(rela.end(), PAGE, 2 * PIECE * names);
        let dynamic = Part::after(text.end(), 2 * PAGE, DYNAMIC_ENTRIES * 16);
        let table = Part::after(dynamic.end(), 2 * PAGE, 8 * (names + 1));
        let shstrtab = Part::after(table.end(), 0, section_names);
        let sections = Part::after(shstrtab.end(), 0, SECTIONS.len() * SHDR);
        Plan { dynsym, dynstr, hash, versym, verneed, rela, text, dynamic, table, shstrtab, sections }
    }

    /// The code behind a name.
    fn jump(&self, name: usize) -> u64 {
        self.text.address + (2 * PIECE * name) as u64
    }

    /// The code that a name's entry leads to until it is filled in.
    fn trap(&self, name: usize) -> u64 {
        self.jump(name) + PIECE as u64
    }

    fn entry(&self, name: usize) -> u64 {
        self.table.address + 8 * (name as u64 + 1)
    }
}

fn buckets(names: usize) -> usize {
    names.max(1)
}

/// The hash function of `DT_HASH`.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0_u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}

/// Writes the shared object with this `DT_SONAME` and these exported functions, at most 65,535 of them.
pub fn write(machine: Machine, soname: &str, names: &[&str]) -> Vec<u8> {
    let mut strings = Bytes(vec![0]);
    let soname = strings.text(soname);
    let mut symbols: Vec<(u32, &str)> = names.iter().map(|name| (strings.text(name), *name)).collect();
    symbols.push((strings.text(TABLE), TABLE));
    let libc = [strings.text("libc.so.6"), strings.text(machine.libc_version())];
    let mut section_names = Bytes(Vec::new());
    let section_at: Vec<u32> = SECTIONS.iter().map(|name| section_names.text(name)).collect();
    let plan = Plan::new(names.len(), strings.0.len(), section_names.0.len());

    let mut file = Bytes::default();
    header(&mut file, machine, &plan);
    program_headers(&mut file, &plan);
    place(&mut file, plan.dynsym, &symbol_table(&plan, &symbols));
    place(&mut file, plan.dynstr, &strings.0);
    place(&mut file, plan.hash, &hash_table(names.len(), &symbols));
    place(&mut file, plan.versym, &versions(symbols.len()));
    place(&mut file, plan.verneed, &needed_version(machine, libc));
    place(&mut file, plan.rela, &relocations(machine, &plan, names.len()));
    place(&mut file, plan.text, &code(machine, &plan, names.len()));
    place(&mut file, plan.dynamic, &dynamic(&plan, soname, names.len()));
    place(&mut file, plan.table, &vec![0; plan.table.size as usize]);
    place(&mut file, plan.shstrtab, &section_names.0);
    place(&mut file, plan.sections, &section_headers(&plan, &section_at));
    file.0
}

/// Appends a part at the offset that the plan has for it.
fn place(file: &mut Bytes, part: Part, bytes: &[u8]) {
    file.align(16);
    debug_assert_eq!((file.0.len() as u64, bytes.len() as u64), (part.offset, part.size));
    file.0.extend(bytes);
}

fn header(file: &mut Bytes, machine: Machine, plan: &Plan) {
    file.0.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    const ET_DYN: u16 = 3;
    file.u16(&[ET_DYN, machine.number()]);
    file.u32(&[1]);
    file.u64(&[0, EHDR as u64, plan.sections.offset]);
    file.u32(&[0]);
    let count = SECTIONS.len() as u16;
    file.u16(&[EHDR as u16, PHDR as u16, SEGMENTS as u16, SHDR as u16, count, count - 1]);
}

fn program_headers(file: &mut Bytes, plan: &Plan) {
    const PT_LOAD: u32 = 1;
    const PT_DYNAMIC: u32 = 2;
    const PT_GNU_STACK: u32 = 0x6474_e551;
    const X: u32 = 1;
    const W: u32 = 2;
    const R: u32 = 4;
    let read = Part { offset: 0, address: 0, size: plan.rela.end() };
    let data = Part { size: plan.table.end() - plan.dynamic.offset, ..plan.dynamic };
    let segments = [
        (PT_LOAD, R, read, PAGE),
        (PT_LOAD, R | X, plan.text, PAGE),
        (PT_LOAD, R | W, data, PAGE),
        (PT_DYNAMIC, R | W, plan.dynamic, 8),
        (PT_GNU_STACK, R | W, Part::default(), 16),
    ];
    for (kind, flags, part, align) in segments {
        file.u32(&[kind, flags]);
        file.u64(&[part.offset, part.address, part.address, part.size, part.size, align]);
    }
}

fn symbol_table(plan: &Plan, symbols: &[(u32, &str)]) -> Vec<u8> {
    const GLOBAL_FUNCTION: u16 = 1 << 4 | 2;
    const GLOBAL_OBJECT: u16 = 1 << 4 | 1;
    const TEXT: u16 = 7;
    const DATA: u16 = 9;
    let mut table = Bytes(vec![0; SYM]);
    for (i, (name, text)) in symbols.iter().enumerate() {
        table.u32(&[*name]);
        if *text == TABLE {
            table.u16(&[GLOBAL_OBJECT, DATA]);
            table.u64(&[plan.table.address, plan.table.size]);
        } else {
            table.u16(&[GLOBAL_FUNCTION, TEXT]);
            table.u64(&[plan.jump(i), PIECE as u64]);
        }
    }
    table.0
}

fn hash_table(names: usize, symbols: &[(u32, &str)]) -> Vec<u8> {
    let count = buckets(names);
    let mut heads = vec![0_u32; count];
    let mut chains = vec![0_u32; symbols.len() + 1];
    for (i, (_, name)) in symbols.iter().enumerate() {
        let head = &mut heads[hash(name) as usize % count];
        chains[i + 1] = std::mem::replace(head, i as u32 + 1);
    }
    let mut table = Bytes::default();
    table.u32(&[count as u32, chains.len() as u32]);
    table.u32(&heads);
    table.u32(&chains);
    table.0
}

/// The version of each symbol: the base version, which serves a request for any.
fn versions(symbols: usize) -> Vec<u8> {
    const LOCAL: u16 = 0;
    const BASE: u16 = 1;
    let mut table = Bytes::default();
    table.u16(&[LOCAL]);
    table.u16(&vec![BASE; symbols]);
    table.0
}

/// One needed version, of libc, whose file name and version are at these places of the strings.
fn needed_version(machine: Machine, [file, version]: [u32; 2]) -> Vec<u8> {
    /// The first number behind local and base.
    const INDEX: u16 = 2;
    let mut table = Bytes::default();
    // vn_version, vn_cnt, vn_file, vn_aux, vn_next.
    table.u16(&[1, 1]);
    table.u32(&[file, 16, 0]);
    // vna_hash, vna_flags, vna_other, vna_name, vna_next.
    table.u32(&[hash(machine.libc_version())]);
    table.u16(&[0, INDEX]);
    table.u32(&[version, 0]);
    table.0
}

fn relocations(machine: Machine, plan: &Plan, names: usize) -> Vec<u8> {
    let mut table = Bytes::default();
    for i in 0..names {
        table.u64(&[plan.entry(i), machine.relative(), plan.trap(i)]);
    }
    table.0
}

fn code(machine: Machine, plan: &Plan, names: usize) -> Vec<u8> {
    let mut code = Vec::with_capacity(2 * PIECE * names);
    for i in 0..names {
        code.extend(machine.jump(plan.jump(i), plan.entry(i)));
        code.extend(machine.trap(plan.trap(i), plan.table.address, i as u16));
    }
    code
}

fn dynamic(plan: &Plan, soname: u32, names: usize) -> Vec<u8> {
    let entries: [(u64, u64); DYNAMIC_ENTRIES] = [
        (14, u64::from(soname)),             // DT_SONAME
        (4, plan.hash.address),              // DT_HASH
        (5, plan.dynstr.address),            // DT_STRTAB
        (6, plan.dynsym.address),            // DT_SYMTAB
        (10, plan.dynstr.size),              // DT_STRSZ
        (11, SYM as u64),                    // DT_SYMENT
        (7, plan.rela.address),              // DT_RELA
        (8, plan.rela.size),                 // DT_RELASZ
        (9, RELA as u64),                    // DT_RELAENT
        (0x6fff_fff9, names as u64),         // DT_RELACOUNT
        (0x6fff_fff0, plan.versym.address),  // DT_VERSYM
        (0x6fff_fffe, plan.verneed.address), // DT_VERNEED
        (0x6fff_ffff, 1),                    // DT_VERNEEDNUM
        (0x6fff_fffb, 1 | 8),                // DT_FLAGS_1: DF_1_NOW, DF_1_NODELETE
        (0, 0),
    ];
    let mut bytes = Bytes::default();
    entries.iter().for_each(|(tag, value)| bytes.u64(&[*tag, *value]));
    bytes.0
}

fn section_headers(plan: &Plan, names: &[u32]) -> Vec<u8> {
    const ALLOC: u64 = 2;
    const WRITE: u64 = 1;
    const EXEC: u64 = 4;
    const DYNSYM: u32 = 1;
    const DYNSTR: u32 = 2;
    // Kind, flags, part, link, info, entry size.
    let sections = [
        (0, 0, Part::default(), 0, 0, 0),
        (11, ALLOC, plan.dynsym, DYNSTR, 1, SYM),
        (3, ALLOC, plan.dynstr, 0, 0, 0),
        (5, ALLOC, plan.hash, DYNSYM, 0, 4),
        (0x6fff_ffff, ALLOC, plan.versym, DYNSYM, 0, 2),
        (0x6fff_fffe, ALLOC, plan.verneed, DYNSTR, 1, 0),
        (4, ALLOC, plan.rela, DYNSYM, 0, RELA),
        (1, ALLOC | EXEC, plan.text, 0, 0, 0),
        (6, ALLOC | WRITE, plan.dynamic, DYNSTR, 0, 16),
        (1, ALLOC | WRITE, plan.table, 0, 0, 0),
        (3, 0, Part { address: 0, ..plan.shstrtab }, 0, 0, 0),
    ];
    let mut bytes = Bytes::default();
    for ((kind, flags, part, link, info, entry), name) in sections.into_iter().zip(names) {
        bytes.u32(&[*name, kind]);
        bytes.u64(&[flags, part.address, part.offset, part.size]);
        bytes.u32(&[link, info]);
        bytes.u64(&[if kind == 0 { 0 } else { 16 }, entry as u64]);
    }
    bytes.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::elf::FileHeader;
    use object::{Endianness, Object, ObjectSection, ObjectSymbol};

    const NAMES: [&str; 3] = ["hipMalloc", "hipFree", "hipLaunchKernel"];

    #[test]
    fn the_object_has_its_soname_its_names_and_no_page_that_is_written_and_run() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let file = write(machine, "libamdhip64.so.6", &NAMES);
            let header = object::elf::FileHeader64::<Endianness>::parse(&*file).unwrap();
            let endian = header.endian().unwrap();
            assert_eq!(header.e_machine(endian).0, machine.number());
            for segment in header.program_headers(endian, &*file).unwrap() {
                let flags = segment.p_flags.get(endian).0;
                assert_ne!(flags & 3, 3, "written and run");
                assert_eq!(segment.p_offset.get(endian) % 4096, segment.p_vaddr.get(endian) % 4096);
            }
            let object = object::File::parse(&*file).unwrap();
            let mut names: Vec<_> =
                object.dynamic_symbols().map(|symbol| symbol.name().unwrap().to_owned()).collect();
            names.sort();
            assert_eq!(names, ["accuracy_hip_table", "hipFree", "hipLaunchKernel", "hipMalloc"]);
            let text = object.section_by_name(".text").unwrap();
            for symbol in object.dynamic_symbols().filter(|symbol| symbol.name() != Ok(TABLE)) {
                assert!((text.address()..text.address() + text.size()).contains(&symbol.address()));
                assert!(symbol.is_definition());
            }
            let dynamic = object.section_by_name(".dynamic").unwrap().data().unwrap().to_owned();
            let entries: Vec<(u64, u64)> = dynamic
                .chunks_exact(16)
                .map(|entry| {
                    let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
                    (number(0), number(8))
                })
                .collect();
            let soname = entries.iter().find(|(tag, _)| *tag == 14).unwrap().1 as usize;
            let strings = object.section_by_name(".dynstr").unwrap().data().unwrap();
            assert!(strings[soname..].starts_with(b"libamdhip64.so.6\0"));
            assert_eq!(entries.last(), Some(&(0, 0)));
        }
    }

    /// Every name is in the chain of its bucket, as a loader walks it.
    #[test]
    fn every_name_is_found_by_its_hash() {
        let names: Vec<String> = (0..500).map(|i| format!("hipCall{i}")).collect();
        let symbols: Vec<(u32, &str)> = names.iter().map(|name| (0, name.as_str())).collect();
        let table = hash_table(symbols.len(), &symbols);
        let word = |i: usize| u32::from_le_bytes(table[4 * i..4 * i + 4].try_into().unwrap()) as usize;
        let buckets = word(0);
        for (i, (_, name)) in symbols.iter().enumerate() {
            let mut at = word(2 + hash(name) as usize % buckets);
            while at != i + 1 {
                assert_ne!(at, 0, "{name} is in no chain");
                at = word(2 + buckets + at);
            }
        }
        // The System V ABI's function, of a name whose hash has high bits.
        assert_eq!(hash("printf"), 0x077905a6);
    }

    /// The bytes of the code, as LLVM's disassembler reads them.
    #[test]
    fn code_jumps_through_the_table() {
        let x86 = Machine::X86_64.jump(0x1000, 0x3020);
        assert_eq!(x86[..10], [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0x16, 0x20, 0, 0]);
        let trap = Machine::X86_64.trap(0x1010, 0x3000, 7);
        assert_eq!(trap[4..15], [0xbf, 7, 0, 0, 0, 0xff, 0x25, 0xe1, 0x1f, 0, 0]);
        let word = |code: &[u8], i: usize| u32::from_le_bytes(code[4 * i..4 * i + 4].try_into().unwrap());
        // bti c; adrp x16, 2 pages on; ldr x16, [x16, #32]; br x16.
        let arm = Machine::Aarch64.jump(0x1000, 0x3020);
        assert_eq!([0, 1, 2, 3].map(|i| word(&arm, i)), [0xd503245f, 0xd0000010, 0xf9401210, 0xd61f0200]);
        // mov w0, #7; adrp x16, 2 pages on; ldr x16, [x16]; br x16.
        let arm = Machine::Aarch64.trap(0x1010, 0x3000, 7);
        assert_eq!([0, 1, 2, 3].map(|i| word(&arm, i)), [0x528000e0, 0xd0000010, 0xf9400210, 0xd61f0200]);
    }
}
