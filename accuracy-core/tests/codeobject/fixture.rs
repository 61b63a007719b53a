//! Kernel libraries and code objects, written byte by byte: small enough to break in every way.

use rmpv::Value;
use std::io::Write as _;

pub const AMDGPU: u16 = 224;
pub const CUDA: u16 = 190;
pub const X86_64: u16 = 62;

pub const GFX942: u32 = 0x54c;
pub const GFX950: u32 = 0x54f;

/// An ELF file: its header's fields, sections (name, type, contents) and a note segment.
#[derive(Clone)]
pub struct Elf {
    pub machine: u16,
    pub kind: u16,
    pub abi: u8,
    pub flags: u32,
    pub sections: Vec<(&'static str, u32, Vec<u8>)>,
    pub notes: Option<Vec<u8>>,
}

pub const PROGBITS: u32 = 1;
const STRTAB: u32 = 3;
const DYNAMIC: u32 = 6;
const DYNSYM: u32 = 11;

impl Elf {
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0; 64];
        let segments = u16::from(self.notes.is_some());
        if let Some(notes) = &self.notes {
            let offset = 64 + 56;
            file.extend([4u32, 4].iter().flat_map(|n| n.to_le_bytes()));
            let length = notes.len() as u64;
            file.extend(
                [offset, offset, offset, length, length, 4].iter().flat_map(|n: &u64| n.to_le_bytes()),
            );
            file.extend(notes);
        }
        let mut names = vec![0];
        let mut headers = vec![0; 64];
        let mut section =
            |file: &mut Vec<u8>, names: &mut Vec<u8>, name: &str, kind: u32, contents: &[u8]| {
                file.resize(file.len().next_multiple_of(8), 0);
                // Symbols and dynamic entries take their strings from the first section.
                let (link, entry) = match kind {
                    DYNSYM => (1u32, 24u64),
                    DYNAMIC => (1, 16),
                    _ => (0, 0),
                };
                headers.extend((names.len() as u32).to_le_bytes());
                headers.extend(kind.to_le_bytes());
                let (offset, length) = (file.len() as u64, contents.len() as u64);
                headers.extend([0, 0, offset, length].iter().flat_map(|n| n.to_le_bytes()));
                headers.extend(link.to_le_bytes());
                headers.extend(0u32.to_le_bytes());
                headers.extend([8, entry].iter().flat_map(|n| n.to_le_bytes()));
                names.extend(name.as_bytes());
                names.push(0);
                file.extend(contents);
            };
        for (name, kind, contents) in &self.sections {
            section(&mut file, &mut names, name, *kind, contents);
        }
        let strings = [&names[..], b".shstrtab\0"].concat();
        section(&mut file, &mut names, ".shstrtab", STRTAB, &strings);
        file.resize(file.len().next_multiple_of(8), 0);
        let table = file.len() as u64;
        file.extend(&headers);

        file[..16].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 64, self.abi, 0, 0, 0, 0, 0, 0, 0]);
        file[16..18].copy_from_slice(&self.kind.to_le_bytes());
        file[18..20].copy_from_slice(&self.machine.to_le_bytes());
        file[20..24].copy_from_slice(&1u32.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[40..48].copy_from_slice(&table.to_le_bytes());
        file[48..52].copy_from_slice(&self.flags.to_le_bytes());
        let count = self.sections.len() as u16 + 2;
        for (i, n) in [64, 56, segments, 64, count, count - 1].into_iter().enumerate() {
            file[52 + 2 * i..54 + 2 * i].copy_from_slice(&n.to_le_bytes());
        }
        file
    }
}

/// A note of the owner `AMDGPU`, as a note segment holds it.
pub fn note(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    note.extend([7, contents.len() as u32, kind].iter().flat_map(|n| n.to_le_bytes()));
    note.extend(b"AMDGPU\0\0");
    note.extend(contents);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

pub fn msgpack(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

/// Of a kernel with these arguments: name, offset, size, value kind.
pub fn kernel(name: &str, arguments: &[(Option<&str>, u64, u64, &str)]) -> Value {
    let argument = |(name, offset, size, kind): &(Option<&str>, u64, u64, &str)| {
        let mut entries =
            vec![(".offset", (*offset).into()), (".size", (*size).into()), (".value_kind", (*kind).into())];
        entries.extend(name.map(|name| (".name", name.into())));
        map(entries)
    };
    let end = arguments.iter().map(|(_, offset, size, _)| offset + size).max().unwrap_or(0);
    map([
        (".name", name.into()),
        (".symbol", format!("{name}.kd").into()),
        (".kernarg_segment_size", end.into()),
        (".args", Value::Array(arguments.iter().map(argument).collect())),
        (".group_segment_fixed_size", 17408.into()),
        (".private_segment_fixed_size", 0.into()),
        (".wavefront_size", 64.into()),
        (".max_flat_workgroup_size", 256.into()),
        (".vgpr_count", 72.into()),
    ])
}

pub fn metadata(target: &str, kernels: Vec<Value>) -> Value {
    map([
        ("amdhsa.version", Value::Array(vec![1.into(), 2.into()])),
        ("amdhsa.target", format!("amdgcn-amd-amdhsa--{target}").into()),
        ("amdhsa.kernels", Value::Array(kernels)),
    ])
}

pub fn code_object(flags: u32, metadata: &Value) -> Elf {
    let notes = Some(note(32, &msgpack(metadata)));
    Elf { machine: AMDGPU, kind: 3, abi: 4, flags, sections: Vec::new(), notes }
}

/// The kernel `scale(float* y, int n)` for gfx942 or gfx950.
pub fn scale(target: &str) -> Vec<u8> {
    let flags = if target == "gfx942" { GFX942 } else { GFX950 };
    let arguments =
        [(Some("y"), 0, 8, "global_buffer"), (None, 8, 4, "by_value"), (None, 16, 4, "hidden_block_count_x")];
    code_object(flags, &metadata(target, vec![kernel("scale", &arguments)])).bytes()
}

/// A plain bundle; its entries begin at multiples of 16.
pub fn bundle(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let header = 32 + entries.iter().map(|(id, _)| 24 + id.len()).sum::<usize>();
    let mut offset = header.next_multiple_of(16);
    let mut bytes = [&b"__CLANG_OFFLOAD_BUNDLE__"[..], &(entries.len() as u64).to_le_bytes()].concat();
    for (id, code) in entries {
        bytes.extend([offset, code.len(), id.len()].iter().flat_map(|n| (*n as u64).to_le_bytes()));
        bytes.extend(id.as_bytes());
        offset = (offset + code.len()).next_multiple_of(16);
    }
    for (_, code) in entries {
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes.extend(code);
    }
    bytes
}

/// A bundle as clang writes it: an empty entry for the host, then one for each target.
pub fn bundle_of(targets: &[&str]) -> Vec<u8> {
    let ids: Vec<String> = targets.iter().map(|t| format!("hipv4-amdgcn-amd-amdhsa--{t}")).collect();
    let mut entries = vec![("host-x86_64-unknown-linux-gnu-", Vec::new())];
    entries.extend(ids.iter().zip(targets).map(|(id, t)| (id.as_str(), scale(t))));
    bundle(&entries)
}

pub const ZLIB: u16 = 0;
pub const ZSTD: u16 = 1;

/// `plain` as a compressed bundle with a header of the given version.
pub fn compressed(version: u16, method: u16, plain: &[u8]) -> Vec<u8> {
    let packed = match method {
        ZLIB => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(plain, 3).unwrap(),
    };
    compressed_claiming(version, method, plain.len() as u64, &packed)
}

pub fn compressed_claiming(version: u16, method: u16, claimed: u64, packed: &[u8]) -> Vec<u8> {
    let mut bytes = b"CCOB".to_vec();
    bytes.extend([version, method].iter().flat_map(|n| n.to_le_bytes()));
    match version {
        1 => bytes.extend((claimed as u32).to_le_bytes()),
        2 => bytes.extend([24 + packed.len() as u32, claimed as u32].iter().flat_map(|n| n.to_le_bytes())),
        _ => bytes.extend([32 + packed.len() as u64, claimed].iter().flat_map(|n| n.to_le_bytes())),
    }
    bytes.extend(0x0123_4567_89ab_cdef_u64.to_le_bytes());
    bytes.extend(packed);
    bytes
}

/// A shared library: what it exports, imports and needs, and further sections.
pub fn library(
    functions: &[&str],
    imports: &[&str],
    needed: &[&str],
    sections: &[(&'static str, &[u8])],
) -> Vec<u8> {
    let mut strings = vec![0];
    let mut string = |text: &str| {
        let at = strings.len() as u32;
        strings.extend(text.as_bytes());
        strings.push(0);
        at
    };
    let mut symbols = vec![0; 24];
    let defined = functions.iter().map(|name| (name, 1u16)).chain(imports.iter().map(|name| (name, 0)));
    for (name, section) in defined {
        symbols.extend(string(name).to_le_bytes());
        symbols.extend([0x12, 0]);
        symbols.extend(section.to_le_bytes());
        symbols.extend([0; 16]);
    }
    let mut dynamic = Vec::new();
    let soname = [(14, "libfixture.so.1")];
    for (tag, name) in needed.iter().map(|name| (1u64, *name)).chain(soname) {
        dynamic.extend([tag, string(name).into()].iter().flat_map(|n| n.to_le_bytes()));
    }
    dynamic.extend([0; 16]);
    let mut all =
        vec![(".dynstr", STRTAB, strings), (".dynsym", DYNSYM, symbols), (".dynamic", DYNAMIC, dynamic)];
    all.extend(sections.iter().map(|(name, contents)| (*name, PROGBITS, contents.to_vec())));
    Elf { machine: X86_64, kind: 3, abi: 0, flags: 0, sections: all, notes: None }.bytes()
}

/// A library as clang makes it of two sources for gfx942 and gfx950.
pub fn hip_library() -> Vec<u8> {
    let mut fatbin = bundle_of(&["gfx942", "gfx950"]);
    fatbin.resize(fatbin.len().next_multiple_of(4096), 0);
    fatbin.extend(bundle_of(&["gfx942", "gfx950"]));
    hip_library_with(&fatbin)
}

pub fn hip_library_with(fatbin: &[u8]) -> Vec<u8> {
    let functions = ["scale", "_ZN5torch6launchEv", "_init", "add"];
    let imports = ["__hipRegisterFatBinary", "hipLaunchKernel"];
    library(&functions, &imports, &["libamdhip64.so.6", "libc.so.6"], &[(".hip_fatbin", fatbin)])
}

/// An NVIDIA fatbin: kind (1 PTX, 2 cubin) and compute capability of each entry.
pub fn fatbin(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, sm) in entries {
        let mut header = vec![0; 64];
        header[0..2].copy_from_slice(&kind.to_le_bytes());
        header[4..8].copy_from_slice(&64u32.to_le_bytes());
        header[8..16].copy_from_slice(&24u64.to_le_bytes());
        header[28..32].copy_from_slice(&sm.to_le_bytes());
        body.extend(header);
        body.extend([0xab; 24]);
    }
    let mut bytes = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}

pub fn cubin(abi: u8, flags: u32) -> Vec<u8> {
    Elf { machine: CUDA, kind: 2, abi, flags, sections: Vec::new(), notes: None }.bytes()
}
