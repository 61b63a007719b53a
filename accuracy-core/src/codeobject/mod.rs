//! What a kernel library or a code object holds: for which GPUs, which kernels with which arguments, and which
//! launchers. Nothing is loaded or run, and any bytes are safe to read: what is damaged is an error.
//!
//! Read are shared libraries with code for AMD GPUs (`.hip_fatbin`, plain and compressed bundles) and for NVIDIA's
//! (`.nv_fatbin`, by architecture), and the same without a library around it: `.hsaco` and `.co` code objects, `.hipfb`
//! bundles, `.cubin` and `.fatbin` files.

mod bundle;
mod elf;
mod error;
mod fatbin;
mod metadata;
mod target;

pub use bundle::{Entry as BundleEntry, entries as bundle_entries, starts as is_bundle};
pub use error::{Begins, ReadError};
pub use target::{Target, TargetError, TargetId};

use elf::{Dynamic, Elf};
use serde::Serialize;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    pub form: Form,
    /// The part that the CPU runs; `None` where the file has none.
    pub host: Option<HostPart>,
    /// In the order of the file. A library has one for each source and architecture, unless its device code was linked
    /// too (`-fgpu-rdc`). Empty for a library without code for a GPU.
    pub code_objects: Vec<CodeObject>,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A shared library or an executable for the CPU.
    Library,
    /// A code object for one GPU, with nothing around it: `.hsaco`, `.co`, `.cubin`.
    CodeObject,
    /// Offload bundles with nothing around them: `.hipfb`.
    Bundle,
    /// An NVIDIA fatbin with nothing around it.
    Fatbin,
}

/// The part of a library that the CPU runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostPart {
    /// The CPU's architecture, as LLVM names it.
    pub machine: &'static str,
    pub soname: Option<String>,
    /// Libraries that the dynamic linker loads with this one (`DT_NEEDED`).
    pub needed: Vec<String>,
    /// Exported functions of C linkage, sorted: what a binding can call by its plain name.
    pub launchers: Vec<String>,
    /// Exported functions whose names begin with an underscore, sorted: those of C++ linkage, and what compilers add.
    pub other_functions: Vec<String>,
}

/// Code for one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeObject {
    pub target: Target,
    pub packing: Packing,
    /// Bytes, uncompressed where that is known.
    pub size: u64,
    /// Version of the code object format of an AMD code object, as `-mcode-object-version` counts.
    pub version: Option<u8>,
    /// `None` where kernels are not read: in NVIDIA's and in portable code.
    pub kernels: Option<Vec<Kernel>>,
}

/// What is around a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    Bare,
    Bundle,
    ZlibBundle,
    ZstdBundle,
    Fatbin,
}

/// A kernel, as the metadata of its code object describes it. A size that the metadata leaves out is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// The name that launches use; mangled where it is a C++ function.
    pub name: String,
    /// The symbol of the kernel's descriptor.
    pub symbol: String,
    /// Bytes of all arguments together, hidden ones and padding included.
    pub kernarg_size: u64,
    /// In the order of the metadata: explicit arguments, then hidden ones.
    pub arguments: Vec<Argument>,
    pub wavefront_size: Option<u64>,
    /// The most threads that a block may have.
    pub max_workgroup_size: Option<u64>,
    /// Bytes of shared memory (LDS), without what a launch adds.
    pub shared_size: Option<u64>,
    /// Bytes of scratch memory of each thread.
    pub scratch_size: Option<u64>,
    pub vgprs: Option<u64>,
    pub agprs: Option<u64>,
    pub sgprs: Option<u64>,
    pub vgpr_spills: Option<u64>,
    pub sgpr_spills: Option<u64>,
}

impl Kernel {
    /// The arguments that a launch passes.
    pub fn explicit(&self) -> impl Iterator<Item = &Argument> {
        self.arguments.iter().filter(|a| !a.hidden)
    }
}

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// Where it lies in the kernel's argument segment, in bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// `by_value`, `global_buffer`, `hidden_block_count_x`, ...: the metadata's `.value_kind`.
    pub kind: String,
    /// The parameter's name, where the compiler kept it.
    pub name: Option<String>,
    /// Whether the compiler added it and the runtime fills it in: a launch does not pass it.
    pub hidden: bool,
}

/// A segment of a code object that holds instructions.
#[derive(Clone, Debug)]
pub struct MachineCode<'a> {
    /// The address of its first byte, as a disassembly shows it.
    pub address: u64,
    pub code: &'a [u8],
    /// Where functions begin in it, kernels among them, sorted by address.
    pub functions: Vec<Function>,
}

/// A function of a code object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub address: u64,
    pub name: String,
}

/// The segments of an AMD code object that hold instructions.
///
/// # Errors
/// If the bytes are no such code object, or damaged.
pub fn machine_code(code_object: &[u8]) -> Result<Vec<MachineCode<'_>>, ReadError> {
    Elf::parse(code_object)?.machine_code()
}

/// Takes the code for a GPU, and goes on unless it returns an error.
type CodeVisitor<'a> = dyn FnMut(&Target, &[u8]) -> Result<(), ReadError> + 'a;

/// Gives each AMD code object of a kernel library, bundle or code object to `visitor`, with the target that it was built
/// for. Code for other GPUs is left out.
///
/// # Errors
/// As [`read`], and what `visitor` returns.
pub fn visit(bytes: &[u8], visitor: &mut CodeVisitor<'_>) -> Result<(), ReadError> {
    if bundle::starts(bytes) {
        return bundle::visit_code(bytes, visitor);
    }
    if !bytes.starts_with(elf::MAGIC) {
        return Ok(());
    }
    let elf = Elf::parse(bytes)?;
    match elf.machine() {
        elf::Machine::AmdGpu => visitor(&elf.amd_code_object(Packing::Bare)?.target, bytes),
        elf::Machine::Host(_) => match elf.section(".hip_fatbin")? {
            Some(bundles) => bundle::visit_code(bundles, visitor).map_err(|error| error.at(".hip_fatbin")),
            None => Ok(()),
        },
        elf::Machine::Cuda | elf::Machine::Other(_) => Ok(()),
    }
}

/// Reads a kernel library or code object.
///
/// Time and memory are bounded by the size of `bytes`, and by a fixed multiple of it for compressed bundles.
///
/// # Errors
/// For a file that is of no known form or damaged. A host library with no code for a GPU is none: its `code_objects` is
/// empty.
pub fn read(bytes: &[u8]) -> Result<Contents, ReadError> {
    if bytes.is_empty() {
        return Err(ReadError::Empty);
    }
    if bytes.starts_with(elf::MAGIC) {
        let elf = Elf::parse(bytes)?;
        return match elf.machine() {
            elf::Machine::AmdGpu => code_object(elf.amd_code_object(Packing::Bare)?),
            elf::Machine::Cuda => code_object(elf.cubin(Packing::Bare)),
            elf::Machine::Host(machine) => library(&elf, machine),
            elf::Machine::Other(machine) => Err(ReadError::Machine { machine }),
        };
    }
    if bundle::starts(bytes) {
        let code_objects = bundle::read_all(bytes)?;
        return Ok(Contents { form: Form::Bundle, host: None, code_objects });
    }
    if bytes.starts_with(fatbin::MAGIC) {
        let code_objects = fatbin::read_all(bytes)?;
        return Ok(Contents { form: Form::Fatbin, host: None, code_objects });
    }
    Err(ReadError::Unrecognised { begins: Begins::of(bytes), resembles: resembles(bytes) })
}

/// The formats of the `printf` calls in the kernels of an AMD code object (`amdhsa.printf`), in the order of its metadata.
///
/// # Errors
/// If the bytes are no such code object, or damaged.
pub fn printf_formats(code_object: &[u8]) -> Result<Vec<String>, ReadError> {
    Elf::parse(code_object)?.printf_formats()
}

fn code_object(code_object: CodeObject) -> Result<Contents, ReadError> {
    Ok(Contents { form: Form::CodeObject, host: None, code_objects: vec![code_object] })
}

fn library(elf: &Elf, machine: &'static str) -> Result<Contents, ReadError> {
    let dynamic = elf.dynamic()?;
    let elsewhere = elf.section(".rocm_kpack_ref")?.is_some();
    let mut code_objects = Vec::new();
    for (section, registers, read) in [
        (".hip_fatbin", "__hipRegisterFatBinary", bundle::read_all as fn(&[u8]) -> _),
        (".nv_fatbin", "__cudaRegisterFatBinary", fatbin::read_all),
    ] {
        match elf.section(section)? {
            None if !dynamic.imports.contains(registers) => {}
            Some(data) if data.iter().any(|b| *b != 0) => {
                code_objects.extend(read(data).map_err(|error| error.at(section))?);
            }
            _ if elsewhere => return Err(ReadError::Kpack),
            None => return Err(ReadError::FatbinMissing { section }),
            Some(_) => return Err(ReadError::FatbinEmpty { section }),
        }
    }
    let Dynamic { soname, needed, functions, .. } = dynamic;
    let (other_functions, launchers) = functions.into_iter().partition(|name| name.starts_with('_'));
    let host = HostPart { machine, soname, needed, launchers, other_functions };
    Ok(Contents { form: Form::Library, host: Some(host), code_objects })
}

/// What a file that cannot be read may be instead, for its error message.
fn resembles(bytes: &[u8]) -> &'static str {
    let known: [(&[u8], &str); 8] = [
        (b"version https://git-lfs", ": a Git LFS pointer, fetch the file with `git lfs pull`"),
        (b"!<arch>\n", ": a static library, link it into a shared one"),
        (b"BC\xc0\xde", ": LLVM bitcode, compile and link it"),
        (b"\x10\xff\x10\xad", ": an LLVM offload binary, link it"),
        (b"MZ", ": a Windows library"),
        (b"\x1f\x8b", ": a gzip archive"),
        (b"\x28\xb5\x2f\xfd", ": zstd data without a bundle's header"),
        (b"PK\x03\x04", ": a zip archive"),
    ];
    known.iter().find(|(magic, _)| bytes.starts_with(magic)).map_or("", |(_, text)| text)
}
