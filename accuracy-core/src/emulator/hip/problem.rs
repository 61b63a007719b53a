//! What went wrong in calls of the stand-in, for the harness to report.

use super::engine::{LaunchError, LaunchErrorKind, LoadError};
use super::status::Status;
use crate::codeobject::ReadError;
use crate::symbol::readable;
use std::fmt;

/// Something that a launcher or a kernel did, and that a test's report should show.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call}: {what}")]
pub struct Problem {
    /// The HIP call in which it came to light.
    pub call: &'static str,
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum What {
    #[error(
        "this call of HIP's runtime is not emulated; it returned hipErrorNotSupported or null. Run this kernel on a GPU, or avoid the call"
    )]
    Unemulated,
    #[error("{what} is not emulated; the call returned hipErrorNotSupported")]
    UnemulatedUse { what: &'static str },
    #[error("kernel {}: {error}",
        readable(.kernel))]
    Kernel { kernel: String, error: LaunchError },
    #[error("kernel {} stopped at an assertion: {}", readable(.kernel), .message.trim_end())]
    Assert { kernel: String, message: String },
    #[error(
        "the {side} is {bytes} bytes at {address:#x}, but only {left} bytes of its allocation ({allocation} bytes) are left from there"
    )]
    Range { side: Side, address: usize, bytes: usize, left: usize, allocation: usize },
    #[error(
        "the {side} at {address:#x} is no memory that HIP has allocated or registered, and no host memory"
    )]
    Address { side: Side, address: usize },
    #[error(
        "the direction is {direction}, but the {side} at {address:#x} is {found}. HIP goes by the addresses; other runtimes fail"
    )]
    Direction { direction: Direction, side: Side, address: usize, found: Home },
    #[error("no allocation starts at {address:#x}: it was freed before, or was never allocated")]
    Free { address: usize },
    #[error("the code object was not loaded: {0}")]
    Load(LoadError),
    #[error("the bundle of code objects cannot be read: {0}")]
    Bundle(ReadError),
    #[error("no code object is for {device}; there are: {}", list(.found))]
    NoBinary { device: &'static str, found: Vec<String> },
    #[error(
        "the fat binary begins with {found:#010x}, not with the magic number of a HIP fat binary (0x48495046)"
    )]
    FatBinary { found: u32 },
    #[error("the code object has no kernel {}",
        readable(.kernel))]
    NoKernel { kernel: String },
    #[error("the code object has no variable {variable}")]
    NoVariable { variable: String },
    #[error("the host function at {address:#x} was never registered as a kernel")]
    NotAKernel { address: usize },
    #[error("the host variable at {address:#x} was never registered as a device variable")]
    NotAVariable { address: usize },
    #[error("kernel {} takes {takes} bytes of arguments, but the launch passes a buffer of {passed} bytes",
        readable(.kernel))]
    ArgumentBytes { kernel: String, takes: usize, passed: usize },
    #[error("kernel {} takes {takes} arguments, but the launch passes none",
        readable(.kernel))]
    NoArguments { kernel: String, takes: usize },
    #[error("kernel {} takes {takes} arguments, but the pointer to argument {index} is null",
        readable(.kernel))]
    NullArgument { kernel: String, takes: usize, index: usize },
    #[error(
        "kernel {} has {bytes} bytes of arguments, but its metadata lists none: pass them as one buffer (HIP_LAUNCH_PARAM_BUFFER_POINTER)",
        readable(.kernel)
    )]
    UnknownArguments { kernel: String, bytes: usize },
    #[error("kernel {}: argument {index} ends at byte {end} of an argument segment of {bytes}",
        readable(.kernel))]
    Metadata { kernel: String, index: usize, end: usize, bytes: usize },
    #[error("the launch's `extra` list has the unknown key {key}")]
    Extra { key: usize },
    #[error("kernel {} cannot be launched with {}: {reason}", readable(.kernel), Shape(.blocks, .threads))]
    Shape { kernel: String, blocks: [u32; 3], threads: [u32; 3], reason: ShapeError },
    #[error("{handle:#x} is no {kind}: it was destroyed before, or comes from another runtime")]
    Handle { kind: HandleKind, handle: usize },
    #[error("the stand-in panicked: {message}. Please report this")]
    Panic { message: String },
    #[error("the kernel's printf or host call cannot be read: {0}")]
    Output(super::output::OutputError),
}

impl What {
    /// Whether the runtime only answered a request so: nothing happened, the launcher was told, and it may do something
    /// else instead.
    pub fn is_answer(&self) -> bool {
        match self {
            What::Kernel { error, .. } => matches!(
                error.kind,
                LaunchErrorKind::Configuration
                    | LaunchErrorKind::Resources
                    | LaunchErrorKind::CooperativeTooLarge
            ),
            What::Unemulated
            | What::UnemulatedUse { .. }
            | What::Assert { .. }
            | What::Direction { .. }
            | What::Output(_)
            | What::Panic { .. } => false,
            _ => true,
        }
    }

    /// Whether it is the answer to a question whether something is there, which its status alone tells.
    pub fn is_lookup(&self) -> bool {
        matches!(self, What::NoKernel { .. } | What::NoVariable { .. })
    }
}

/// Why a grid or a workgroup cannot be launched.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShapeError {
    #[error("a dimension is 0")]
    Zero,
    #[error("the grid has 2^32 work-items or more along one dimension")]
    Grid,
    #[error("a workgroup has {threads} work-items, and the kernel allows {most}")]
    Workgroup { threads: u64, most: u32 },
    #[error("it needs {bytes} bytes of LDS, and a workgroup can have {most}")]
    Lds { bytes: u64, most: u32 },
}

/// A side of a copy, or what is written or freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Destination => "destination",
        })
    }
}

/// `hipMemcpyKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    HostToHost,
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
    /// By the addresses.
    Default,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::HostToHost => "hipMemcpyHostToHost",
            Direction::HostToDevice => "hipMemcpyHostToDevice",
            Direction::DeviceToHost => "hipMemcpyDeviceToHost",
            Direction::DeviceToDevice => "hipMemcpyDeviceToDevice",
            Direction::Default => "hipMemcpyDefault",
        })
    }
}

/// What memory is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Device,
    /// Of `hipHostMalloc` and `hipHostRegister`.
    Pinned,
    Managed,
    /// Host memory that the runtime knows nothing of.
    Pageable,
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Home::Device => "device memory",
            Home::Pinned => "pinned host memory",
            Home::Managed => "managed memory",
            Home::Pageable => "host memory that was not allocated by HIP",
        })
    }
}

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleKind {
    Stream,
    Event,
    Module,
    Function,
    Graph,
    GraphNode,
    GraphExec,
    MemoryPool,
    Context,
    FatBinary,
    Library,
}

impl fmt::Display for HandleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandleKind::Stream => "stream (hipStream_t)",
            HandleKind::Event => "event (hipEvent_t)",
            HandleKind::Module => "module (hipModule_t)",
            HandleKind::Function => "kernel of a module (hipFunction_t)",
            HandleKind::Graph => "graph (hipGraph_t)",
            HandleKind::GraphNode => "node of a graph (hipGraphNode_t)",
            HandleKind::GraphExec => "graph that can be launched (hipGraphExec_t)",
            HandleKind::MemoryPool => "memory pool (hipMemPool_t)",
            HandleKind::Context => "context (hipCtx_t)",
            HandleKind::FatBinary => "registered fat binary",
            HandleKind::Library => "library (hipLibrary_t)",
        })
    }
}

/// The blocks and threads of a launch, for a message.
struct Shape<'a>(&'a [u32; 3], &'a [u32; 3]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([x, y, z], [a, b, c]) = (self.0, self.1);
        write!(f, "a grid of {x} x {y} x {z} workgroups of {a} x {b} x {c} work-items")
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Why a call failed: what it returns, and what the report shows.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub status: Status,
    pub problem: Option<Box<What>>,
}

impl Failure {
    /// A failure that the report shows.
    pub fn new(status: Status, what: What) -> Failure {
        Failure { status, problem: Some(Box::new(what)) }
    }

    pub fn handle(kind: HandleKind, handle: usize) -> Failure {
        Failure::new(Status::InvalidHandle, What::Handle { kind, handle })
    }
}

impl From<Status> for Failure {
    /// A failure that only the caller sees: what programs ask on purpose.
    fn from(status: Status) -> Self {
        Failure { status, problem: None }
    }
}
