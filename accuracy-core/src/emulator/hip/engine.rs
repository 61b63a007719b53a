//! What HIP's stand-in needs from the engine that runs the machine code.

use crate::codeobject;
use crate::emulator::WaveOrder;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

pub use crate::emulator::processor::Processor;

/// A code object that the engine has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(pub u64);

/// A kernel of a loaded code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelId(pub u64);

/// Where an allocation is, in HIP's terms. All of it lies in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryKind {
    Device,
    Host,
    Managed,
}

/// A live allocation of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Its first address.
    pub start: usize,
    pub bytes: usize,
    pub kind: MemoryKind,
}

/// A kernel, as the metadata of its code object describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelInfo {
    /// The name that launches use; mangled where it is a C++ function.
    pub name: String,
    /// In the order of the metadata.
    pub arguments: Vec<Argument>,
    /// Bytes of all arguments together, hidden ones and padding included.
    pub kernarg_bytes: usize,
    /// Vector registers of a lane, accumulation registers included.
    pub vgprs: u32,
    pub agprs: u32,
    pub sgprs: u32,
    /// Bytes of LDS that the kernel declares itself.
    pub static_lds: u32,
    /// Bytes of scratch memory of a lane.
    pub scratch_bytes: u32,
    /// The most work-items that a workgroup may have.
    pub max_workgroup_size: u32,
}

/// An argument in the kernel's argument segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Bytes from the segment's start.
    pub offset: usize,
    pub bytes: usize,
    /// The metadata's `.value_kind`: `by_value`, `global_buffer`, `hidden_block_count_x`, ...
    pub kind: String,
    /// The parameter's name, where the metadata has it.
    pub name: Option<String>,
}

impl Argument {
    /// Whether it only fills a gap: kernels in assembly list their gaps as arguments of this name, and launchers leave
    /// the last one out.
    pub fn padding(&self) -> bool {
        self.name.as_deref() == Some("pad")
    }

    /// Whether the runtime fills it in: a launch does not pass it.
    pub fn hidden(&self) -> bool {
        self.kind.starts_with("hidden_")
    }
}

impl KernelInfo {
    /// The arguments that a launch passes.
    pub fn explicit(&self) -> impl Iterator<Item = &Argument> {
        self.arguments.iter().filter(|argument| !argument.hidden())
    }

    /// Bytes of the argument segment that the explicit arguments take.
    pub fn explicit_bytes(&self) -> usize {
        self.explicit().map(|a| a.offset.saturating_add(a.bytes)).max().unwrap_or(0)
    }

    /// Bytes of the argument segment that a launch has to pass.
    pub fn needed_bytes(&self) -> usize {
        let needed = self.explicit().filter(|argument| !argument.padding());
        needed.map(|a| a.offset.saturating_add(a.bytes)).max().unwrap_or(0)
    }

    /// Whether the kernel has a hidden argument of this kind.
    pub fn has_hidden(&self, kind: &str) -> bool {
        self.arguments.iter().any(|argument| argument.kind == kind)
    }
}

impl From<&codeobject::Kernel> for KernelInfo {
    /// A size that the metadata leaves out is 0, and the largest workgroup is then that of the device.
    fn from(kernel: &codeobject::Kernel) -> Self {
        let number = |size: Option<u64>| size.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX));
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        KernelInfo {
            name: kernel.name.clone(),
            arguments: kernel
                .arguments
                .iter()
                .map(|a| Argument {
                    offset: bytes(a.offset),
                    bytes: bytes(a.size),
                    kind: a.kind.clone(),
                    name: a.name.clone(),
                })
                .collect(),
            kernarg_bytes: bytes(kernel.kernarg_size),
            vgprs: number(kernel.vgprs),
            agprs: number(kernel.agprs),
            sgprs: number(kernel.sgprs),
            static_lds: number(kernel.shared_size),
            scratch_bytes: number(kernel.scratch_size),
            max_workgroup_size: kernel.max_workgroup_size.map_or(1024, |n| number(Some(n))),
        }
    }
}

/// What a kernel is launched with.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    pub kernel: KernelId,
    /// Whole workgroups along x, y and z.
    pub blocks: [u32; 3],
    /// Work-items of the last, partial workgroup along x, y and z; 0 where all are whole. Only launches that count
    /// work-items (`hipExtModuleLaunchKernel`) have any.
    pub remainder: [u32; 3],
    /// Work-items of a workgroup along x, y and z.
    pub threads: [u32; 3],
    /// Bytes of LDS beside what the kernel declares itself.
    pub dynamic_lds: u32,
    /// The start of the argument segment: every explicit argument at its offset, none of the hidden ones.
    pub arguments: &'a [u8],
    /// Whether all workgroups must be resident at once, and may wait for each other.
    pub cooperative: bool,
    /// The order in which the waves of a workgroup take turns.
    pub order: WaveOrder,
    /// `hidden_printf_buffer`; 0 if the kernel has none.
    pub printf_buffer: usize,
    /// `hidden_hostcall_buffer`; 0 if the kernel has none.
    pub hostcall_buffer: usize,
    /// Answers the calls that the kernel makes to the host.
    pub service: &'a dyn Service,
}

impl fmt::Debug for Launch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("kernel", &self.kernel)
            .field("blocks", &self.blocks)
            .field("remainder", &self.remainder)
            .field("threads", &self.threads)
            .field("dynamic_lds", &self.dynamic_lds)
            .field("arguments", &self.arguments)
            .field("cooperative", &self.cooperative)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// The host's side of calls that a kernel makes while it runs.
pub trait Service: Sync {
    /// Answers what is waiting in the hostcall buffer. The engine calls it when a wave executes `s_sendmsg` with the
    /// interrupt message, and whenever no wave makes progress. Returns whether anything was waiting.
    fn serve(&self) -> bool;
}

/// The error underneath one of the engine, which the stand-in only passes on.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a code object cannot be loaded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct LoadError {
    pub kind: LoadErrorKind,
    pub cause: Cause,
}

/// What is wrong with a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadErrorKind {
    /// It is no code object, or damaged.
    Invalid,
    /// It was compiled for another processor.
    OtherProcessor,
    /// There is not enough memory for it.
    Memory,
}

/// Why a launch failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct LaunchError {
    pub kind: LaunchErrorKind,
    pub cause: Cause,
}

/// What happened to a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchErrorKind {
    /// It cannot run with this grid, workgroup, LDS or arguments; nothing ran. Later launches may.
    Configuration,
    /// It needs more registers, LDS or scratch memory than there is; nothing ran. Later launches may.
    Resources,
    /// A cooperative launch has more workgroups than can be resident at once; nothing ran. Later launches may.
    CooperativeTooLarge,
    /// The kernel accessed memory that is not its own. The device is lost to the process.
    IllegalAddress,
    /// The kernel called `assert` and it failed. The device is lost to the process.
    Assert,
    /// The kernel trapped, waited forever or executed what the engine does not cover. The device is lost to the
    /// process.
    Failure,
}

/// The engine, as HIP's stand-in drives it. Launches run to their end inside [`Engine::launch`].
pub trait Engine: Send + Sync {
    /// The processor that is emulated.
    fn processor(&self) -> Processor;

    /// Loads an AMDGPU ELF file.
    ///
    /// # Errors
    /// If it is damaged or compiled for another processor.
    fn load(&self, code_object: &[u8]) -> Result<ModuleId, LoadError>;

    fn unload(&self, module: ModuleId);

    /// The kernel of this name.
    fn kernel(&self, module: ModuleId, name: &str) -> Option<KernelId>;

    /// How many kernels a code object has.
    fn kernel_count(&self, module: ModuleId) -> usize;

    fn kernel_info(&self, kernel: KernelId) -> KernelInfo;

    /// Address and bytes of a global variable.
    fn variable(&self, module: ModuleId, name: &str) -> Option<(usize, usize)>;

    /// The entries of `amdhsa.printf` in the code object's metadata.
    fn printf_formats(&self, module: ModuleId) -> Vec<String>;

    /// Allocates memory and returns its address in this process. Zero bytes are never asked for.
    fn allocate(&self, bytes: usize, kind: MemoryKind) -> Option<usize>;

    /// Frees the allocation that starts at this address. `false` if there is none.
    fn free(&self, address: usize) -> bool;

    /// The live allocation that holds this address.
    fn allocation(&self, address: usize) -> Option<Allocation>;

    /// The runtime has written memory, at the host's wish.
    fn host_writes(&self, address: usize, bytes: usize) {
        let _ = (address, bytes);
    }

    /// The runtime has copied memory, at the host's wish.
    fn host_copies(&self, _from: usize, to: usize, bytes: usize) {
        self.host_writes(to, bytes);
    }

    /// Lets kernels access host memory that the engine did not allocate.
    fn map_host(&self, address: usize, bytes: usize);

    fn unmap_host(&self, address: usize);

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// If it cannot start, or ends with a fault.
    fn launch(&self, launch: &Launch) -> Result<(), LaunchError>;
}
