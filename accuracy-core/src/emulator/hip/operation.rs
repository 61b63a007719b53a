//! What streams do: launches, copies, sets and calls to the host. An operation runs inside the call that asks for it,
//! or, on a stream that is being captured, becomes a node of a graph.

use super::engine::{Launch, LaunchError, LaunchErrorKind};
use super::graph::Graph;
use super::output::Hostcalls;
use super::problem::{Direction, Failure, Home, ShapeError, Side, What};
use super::runtime::{Function, Runtime};
use super::status::Status;
use crate::emulator::WaveOrder;
use std::ffi::c_void;
use std::sync::Arc;

/// Work for a stream.
#[derive(Clone)]
pub(super) enum Operation {
    Launch(KernelLaunch),
    Copy(Copy),
    Fill(Fill),
    /// A function of the host.
    Host(HostCall),
    Record {
        event: usize,
    },
    Wait {
        event: usize,
    },
    Child(Graph),
    Empty,
}

#[derive(Clone)]
pub(super) struct KernelLaunch {
    pub function: Arc<Function>,
    pub blocks: [u32; 3],
    pub remainder: [u32; 3],
    pub threads: [u32; 3],
    pub dynamic_lds: u32,
    pub arguments: Vec<u8>,
    pub cooperative: bool,
    /// Whether the waves of a workgroup keep in step.
    pub order: WaveOrder,
}

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub address: usize,
    /// Bytes from one row to the next.
    pub pitch: usize,
    /// Bytes from one plane to the next.
    pub plane: usize,
}

impl Place {
    /// Bytes in a row.
    pub fn line(address: usize) -> Place {
        Place { address, pitch: 0, plane: 0 }
    }
}

/// How much is copied or filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Bytes of a row.
    pub row: usize,
    pub rows: usize,
    pub planes: usize,
}

impl Size {
    pub fn line(bytes: usize) -> Size {
        Size { row: bytes, rows: 1, planes: 1 }
    }

    fn is_empty(self) -> bool {
        self.row == 0 || self.rows == 0 || self.planes == 0
    }

    /// Bytes from the first to behind the last at `place`; `None` where that is no number.
    fn span(self, place: Place) -> Option<usize> {
        let rows = place.pitch.checked_mul(self.rows - 1)?;
        let planes = place.plane.checked_mul(self.planes - 1)?;
        let span = rows.checked_add(planes)?.checked_add(self.row)?;
        place.address.checked_add(span).map(|_| span)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub to: Place,
    pub from: Place,
    pub size: Size,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    pub to: Place,
    pub pattern: Pattern,
    pub size: Size,
}

/// The bytes that a fill repeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    pub bytes: [u8; 8],
    /// How many of them are repeated: 1, 2, 4 or 8.
    pub length: usize,
}

impl Pattern {
    /// The low bytes of a number.
    pub fn of(value: u32, length: usize) -> Pattern {
        Pattern { bytes: u64::from(value).to_le_bytes(), length }
    }
}

/// A function of the host that a stream calls.
#[derive(Clone, Copy)]
pub(super) struct HostCall {
    pub function: extern "C" fn(*mut c_void),
    /// Address of what the function is called with.
    pub data: usize,
}

impl Runtime {
    /// Runs an operation, or adds it to the graph that the stream is captured into.
    pub fn submit(&self, stream: usize, operation: Operation, call: &'static str) -> Result<(), Failure> {
        match self.capture(stream, operation)? {
            // Captured.
            None => Ok(()),
            Some(operation) => self.perform(&operation, call),
        }
    }

    /// Runs an operation.
    pub fn perform(&self, operation: &Operation, call: &'static str) -> Result<(), Failure> {
        match operation {
            Operation::Launch(launch) => self.launch(launch),
            Operation::Copy(copy) => self.copy(copy, call),
            Operation::Fill(fill) => self.fill(fill),
            Operation::Host(host) => {
                (host.function)(std::ptr::with_exposed_provenance_mut(host.data));
                Ok(())
            }
            Operation::Record { event } => self.record(*event),
            Operation::Child(graph) => self.perform_graph(graph, call),
            Operation::Wait { .. } | Operation::Empty => Ok(()),
        }
    }

    /// Checks the shape of a launch, as the runtime does before it reaches the device.
    pub fn check_shape(&self, launch: &KernelLaunch) -> Result<(), Failure> {
        let KernelLaunch { function, blocks, remainder, threads, dynamic_lds, .. } = launch;
        let info = &function.info;
        let most_lds = self.engine.processor().lds_bytes();
        let lds = u64::from(info.static_lds) + u64::from(*dynamic_lds);
        let size = threads.iter().map(|n| u64::from(*n)).product::<u64>();
        let items = |i: usize| u64::from(blocks[i]) * u64::from(threads[i]) + u64::from(remainder[i]);
        let most = info.max_workgroup_size.min(1024);
        let (status, reason) = if threads.contains(&0) || (0..3).any(|i| items(i) == 0) {
            (Status::InvalidConfiguration, ShapeError::Zero)
        } else if (0..3).any(|i| items(i) > u64::from(u32::MAX)) {
            (Status::InvalidConfiguration, ShapeError::Grid)
        } else if size > u64::from(most) {
            let status = if size > 1024 { Status::InvalidConfiguration } else { Status::LaunchFailure };
            (status, ShapeError::Workgroup { threads: size, most })
        } else if lds > u64::from(most_lds) {
            (Status::InvalidValue, ShapeError::Lds { bytes: lds, most: most_lds })
        } else {
            return Ok(());
        };
        let kernel = info.name.clone();
        Err(Failure::new(status, What::Shape { kernel, blocks: *blocks, threads: *threads, reason }))
    }

    fn launch(&self, launch: &KernelLaunch) -> Result<(), Failure> {
        self.check_shape(launch)?;
        let info = &launch.function.info;
        let hostcalls = Hostcalls::new(self, launch.function.module, info)?;
        let printf = self.output.printf_buffer(self, info)?;
        let result = self.engine.launch(&Launch {
            kernel: launch.function.kernel,
            blocks: launch.blocks,
            remainder: launch.remainder,
            threads: launch.threads,
            dynamic_lds: launch.dynamic_lds,
            arguments: &launch.arguments,
            cooperative: launch.cooperative,
            order: launch.order,
            printf_buffer: printf.address(),
            hostcall_buffer: hostcalls.address(),
            service: &hostcalls,
        });
        // What a kernel prints before it fails says the most.
        let served = hostcalls.finish();
        let printed = printf.finish(self, launch.function.module);
        let assertion = hostcalls.take_errors();
        if let Err(error) = result {
            return Err(self.failed(&info.name, error, assertion));
        }
        served.and(printed)
    }

    /// What a failed launch means for the caller, and for the calls after it.
    fn failed(&self, kernel: &str, error: LaunchError, assertion: Option<String>) -> Failure {
        let kernel = kernel.to_owned();
        match (error.kind, assertion) {
            // A kernel whose assertion fails writes a message and traps.
            (LaunchErrorKind::Assert | LaunchErrorKind::Failure, Some(message)) => {
                self.lose(Status::Assert);
                Failure::new(Status::Assert, What::Assert { kernel, message })
            }
            (kind, _) => {
                let (status, lost) = match kind {
                    LaunchErrorKind::Configuration => (Status::InvalidConfiguration, false),
                    LaunchErrorKind::Resources => (Status::LaunchOutOfResources, false),
                    LaunchErrorKind::CooperativeTooLarge => (Status::CooperativeLaunchTooLarge, false),
                    LaunchErrorKind::IllegalAddress => (Status::IllegalAddress, true),
                    LaunchErrorKind::Assert => (Status::Assert, true),
                    LaunchErrorKind::Failure => (Status::LaunchFailure, true),
                };
                if lost {
                    self.lose(status);
                }
                Failure::new(status, What::Kernel { kernel, error })
            }
        }
    }

    fn copy(&self, copy: &Copy, call: &'static str) -> Result<(), Failure> {
        let Copy { to, from, size, direction } = *copy;
        if size.is_empty() {
            return Ok(());
        }
        let written = self.check(to, size, Side::Destination)?;
        let read = self.check(from, size, Side::Source)?;
        if let Some((side, address, found)) = mismatch(direction, (to.address, written), (from.address, read))
        {
            let what = What::Direction { direction, side, address, found };
            if (written, read) == (Home::Pageable, Home::Pageable) {
                return Err(Failure::new(Status::InvalidValue, what));
            }
            self.note(call, what);
        }
        for plane in 0..size.planes {
            for row in 0..size.rows {
                let at = |place: Place| place.address + plane * place.plane + row * place.pitch;
                // SAFETY: both sides were checked: they lie inside allocations, or are host memory that the caller
                // vouches for. They may overlap.
                unsafe {
                    std::ptr::copy(
                        std::ptr::with_exposed_provenance::<u8>(at(from)),
                        std::ptr::with_exposed_provenance_mut::<u8>(at(to)),
                        size.row,
                    );
                }
                self.engine.host_copies(at(from), at(to), size.row);
            }
        }
        Ok(())
    }

    fn fill(&self, fill: &Fill) -> Result<(), Failure> {
        let Fill { to, pattern, size } = *fill;
        if size.is_empty() {
            return Ok(());
        }
        if self.check(to, size, Side::Destination)? == Home::Pageable {
            let what = What::Address { side: Side::Destination, address: to.address };
            return Err(Failure::new(Status::InvalidValue, what));
        }
        let pattern = &pattern.bytes[..pattern.length];
        for plane in 0..size.planes {
            for row in 0..size.rows {
                let at = to.address + plane * to.plane + row * to.pitch;
                self.engine.host_writes(at, size.row);
                // SAFETY: the range was checked to lie inside an allocation; bytes have no alignment.
                let bytes = unsafe {
                    std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut::<u8>(at), size.row)
                };
                match pattern {
                    [byte] => bytes.fill(*byte),
                    pattern => {
                        bytes.chunks_exact_mut(pattern.len()).for_each(|e| e.copy_from_slice(pattern));
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that a range lies inside one allocation, if it begins in any, and says what memory it is.
    fn check(&self, place: Place, size: Size, side: Side) -> Result<Home, Failure> {
        /// Nothing is mapped below.
        const LOWEST: usize = 0x1_0000;
        let Place { address, .. } = place;
        let invalid = |what| Failure::new(Status::InvalidValue, what);
        let bytes = size.span(place).ok_or_else(|| invalid(What::Address { side, address }))?;
        let Some((allocation, home)) = self.memory(address) else {
            if address < LOWEST {
                return Err(invalid(What::Address { side, address }));
            }
            return Ok(Home::Pageable);
        };
        let left = allocation.bytes - (address - allocation.start);
        if bytes > left {
            let allocation = allocation.bytes;
            return Err(invalid(What::Range { side, address, bytes, left, allocation }));
        }
        Ok(home)
    }
}

/// The side that is not what the direction says.
fn mismatch(direction: Direction, to: (usize, Home), from: (usize, Home)) -> Option<(Side, usize, Home)> {
    let device = |home| home != Home::Pageable;
    let host = |home| home != Home::Device;
    let (to_fits, from_fits) = match direction {
        Direction::HostToHost => (host(to.1), host(from.1)),
        Direction::HostToDevice => (device(to.1), host(from.1)),
        Direction::DeviceToHost => (host(to.1), device(from.1)),
        Direction::DeviceToDevice => (device(to.1), device(from.1)),
        Direction::Default => (true, true),
    };
    if !to_fits {
        Some((Side::Destination, to.0, to.1))
    } else if !from_fits {
        Some((Side::Source, from.0, from.1))
    } else {
        None
    }
}
