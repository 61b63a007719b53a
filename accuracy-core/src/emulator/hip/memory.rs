//! Memory: allocated, freed, copied, set and asked about.

#![expect(non_snake_case, reason = "the names are those of HIP's headers")]

use super::abi::{Entry, In, Out, Version, calls};
use super::engine::MemoryKind;
use super::operation::{Copy, Fill, Operation, Pattern, Place, Size};
use super::problem::{Direction, Failure, HandleKind, Home, Side, What};
use super::runtime::{Pool, Runtime};
use super::status::Status;

/// Bytes to which the rows of `hipMallocPitch` are aligned.
const PITCH: usize = 256;

/// Free and total memory of this machine, in bytes: device memory lies in it.
pub(super) fn machine_memory() -> (usize, usize) {
    // SAFETY: sysconf takes plain numbers.
    let (free, total, page) = unsafe {
        (
            libc::sysconf(libc::_SC_AVPHYS_PAGES),
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let bytes = |pages: i64| usize::try_from(pages.saturating_mul(page)).unwrap_or(0);
    (bytes(free), bytes(total))
}

/// The direction that a `hipMemcpyKind` names.
pub(super) fn direction(kind: i32) -> Result<Direction, Failure> {
    /// `hipMemcpyDeviceToDeviceNoCU`.
    const WITHOUT_COMPUTE_UNITS: i32 = 1024;
    match kind {
        0 => Ok(Direction::HostToHost),
        1 => Ok(Direction::HostToDevice),
        2 => Ok(Direction::DeviceToHost),
        3 | WITHOUT_COMPUTE_UNITS => Ok(Direction::DeviceToDevice),
        4 => Ok(Direction::Default),
        _ => Err(Status::InvalidMemcpyDirection.into()),
    }
}

/// `hipPitchedPtr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PitchedPtr {
    address: usize,
    pitch: usize,
    x: usize,
    y: usize,
}

/// `hipExtent` and `hipPos`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Extent {
    x: usize,
    y: usize,
    z: usize,
}

/// `hipMemcpy3DParms`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Copy3D {
    from_array: usize,
    from_position: Extent,
    from: PitchedPtr,
    to_array: usize,
    to_position: Extent,
    to: PitchedPtr,
    extent: Extent,
    kind: i32,
}

fn arrays() -> Failure {
    Failure::new(Status::NotSupported, What::UnemulatedUse { what: "a HIP array (hipArray_t)" })
}

/// The place at a position of pitched memory.
fn position(memory: PitchedPtr, at: Extent) -> Result<Place, Failure> {
    let plane = memory.pitch.checked_mul(memory.y).ok_or(Status::InvalidValue)?;
    let offset = || {
        let rows = memory.pitch.checked_mul(at.y)?;
        let planes = plane.checked_mul(at.z)?;
        memory.address.checked_add(at.x)?.checked_add(rows)?.checked_add(planes)
    };
    Ok(Place { address: offset().ok_or(Status::InvalidValue)?, pitch: memory.pitch, plane })
}

impl Copy3D {
    pub fn copy(&self) -> Result<Copy, Failure> {
        if self.from_array != 0 || self.to_array != 0 {
            return Err(arrays());
        }
        let size = Size { row: self.extent.x, rows: self.extent.y, planes: self.extent.z };
        if size.rows > 1 && (self.from.pitch < size.row || self.to.pitch < size.row) {
            return Err(Status::InvalidPitchValue.into());
        }
        Ok(Copy {
            to: position(self.to, self.to_position)?,
            from: position(self.from, self.from_position)?,
            size,
            direction: direction(self.kind)?,
        })
    }
}

/// `hip_Memcpy2D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Param2D {
    from: Param2DSide,
    to: Param2DSide,
    width: usize,
    height: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Param2DSide {
    x: usize,
    y: usize,
    kind: u32,
    host: usize,
    device: usize,
    array: usize,
    pitch: usize,
}

/// `HIP_MEMCPY3D`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Param3D {
    from: Param3DSide,
    to: Param3DSide,
    width: usize,
    height: usize,
    depth: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Param3DSide {
    x: usize,
    y: usize,
    z: usize,
    level: usize,
    kind: u32,
    host: usize,
    device: usize,
    array: usize,
    pitch: usize,
    height: usize,
}

/// `HIP_MEMCPY3D` of HIP 5, with shorter numbers.
#[repr(C)]
#[derive(Clone, Copy)]
struct OldParam3D {
    from: OldParam3DSide,
    to: OldParam3DSide,
    width: u32,
    height: u32,
    depth: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct OldParam3DSide {
    x: u32,
    y: u32,
    z: u32,
    level: u32,
    kind: u32,
    host: usize,
    device: usize,
    array: usize,
    pitch: u32,
    height: u32,
}

impl From<OldParam3D> for Param3D {
    fn from(copy: OldParam3D) -> Self {
        let side = |side: OldParam3DSide| Param3DSide {
            x: side.x as usize,
            y: side.y as usize,
            z: side.z as usize,
            level: side.level as usize,
            kind: side.kind,
            host: side.host,
            device: side.device,
            array: side.array,
            pitch: side.pitch as usize,
            height: side.height as usize,
        };
        Param3D {
            from: side(copy.from),
            to: side(copy.to),
            width: copy.width as usize,
            height: copy.height as usize,
            depth: copy.depth as usize,
        }
    }
}

/// Reads a `HIP_MEMCPY3D` of this version.
fn driver_copy(copy: In<Param3D>, version: Version) -> Result<Copy, Failure> {
    let copy = match version {
        Version::V5 => In::<OldParam3D>::of(copy).get()?.into(),
        Version::V6 | Version::V7 => copy.get()?,
    };
    copy.copy(version)
}

/// A `hipMemoryType`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MemoryType {
    Unregistered,
    Host,
    Device,
    Managed,
    Array,
    Unified,
}

impl MemoryType {
    /// Its number: HIP 6 renumbered it.
    fn number(self, version: Version) -> u32 {
        if version == Version::V5 {
            match self {
                MemoryType::Host | MemoryType::Unregistered => 0,
                MemoryType::Device => 1,
                MemoryType::Array => 2,
                MemoryType::Unified => 3,
                MemoryType::Managed => 4,
            }
        } else {
            match self {
                MemoryType::Unregistered => 0,
                MemoryType::Host => 1,
                MemoryType::Device => 2,
                MemoryType::Managed => 3,
                MemoryType::Array => 10,
                MemoryType::Unified => 11,
            }
        }
    }

    /// The type of a number that a caller passed.
    fn of(number: u32, version: Version) -> Result<MemoryType, Failure> {
        use MemoryType::{Array, Device, Host, Managed, Unified, Unregistered};
        [Host, Device, Managed, Array, Unified, Unregistered]
            .into_iter()
            .find(|kind| kind.number(version) == number)
            .ok_or_else(|| Status::InvalidValue.into())
    }

    fn is_device(self) -> bool {
        matches!(self, MemoryType::Device | MemoryType::Managed)
    }
}

/// The place of a side of a driver copy, and its type.
fn driver_place(side: Param3DSide, version: Version) -> Result<(Place, MemoryType), Failure> {
    let kind = MemoryType::of(side.kind, version)?;
    let address = match kind {
        MemoryType::Array => return Err(arrays()),
        MemoryType::Host | MemoryType::Unregistered => side.host,
        MemoryType::Device | MemoryType::Managed | MemoryType::Unified => side.device,
    };
    let memory = PitchedPtr { address, pitch: side.pitch, x: 0, y: side.height };
    Ok((position(memory, Extent { x: side.x, y: side.y, z: side.z })?, kind))
}

impl Param3D {
    fn copy(&self, version: Version) -> Result<Copy, Failure> {
        let (from, from_kind) = driver_place(self.from, version)?;
        let (to, to_kind) = driver_place(self.to, version)?;
        let direction = match (from_kind.is_device(), to_kind.is_device()) {
            _ if from_kind == MemoryType::Unified || to_kind == MemoryType::Unified => Direction::Default,
            (false, false) => Direction::HostToHost,
            (false, true) => Direction::HostToDevice,
            (true, false) => Direction::DeviceToHost,
            (true, true) => Direction::DeviceToDevice,
        };
        let size = Size { row: self.width, rows: self.height, planes: self.depth };
        Ok(Copy { to, from, size, direction })
    }
}

impl From<Param2D> for Param3D {
    fn from(copy: Param2D) -> Self {
        let side = |side: Param2DSide| {
            let Param2DSide { x, y, kind, host, device, array, pitch } = side;
            Param3DSide { x, y, z: 0, level: 0, kind, host, device, array, pitch, height: 0 }
        };
        Param3D { from: side(copy.from), to: side(copy.to), width: copy.width, height: copy.height, depth: 1 }
    }
}

impl Runtime {
    fn allocate(&self, out: Out<usize>, bytes: usize, kind: MemoryKind, flags: u32) -> Result<(), Failure> {
        if out.address() == 0 {
            return Err(Status::InvalidValue.into());
        }
        if bytes == 0 {
            return out.put(0);
        }
        let address = self.engine.allocate(bytes, kind).ok_or(Status::OutOfMemory)?;
        self.state().flags.insert(address, flags);
        out.put(address)
    }

    fn free(&self, address: usize) -> Result<(), Failure> {
        if address == 0 {
            return Ok(());
        }
        if !self.engine.free(address) {
            return Err(Failure::new(Status::InvalidValue, What::Free { address }));
        }
        self.state().flags.remove(&address);
        Ok(())
    }

    fn pitched(&self, out: Out<usize>, pitch: Out<usize>, [x, y, z]: [usize; 3]) -> Result<usize, Failure> {
        if out.address() == 0 {
            return Err(Status::InvalidValue.into());
        }
        let row = x.checked_next_multiple_of(PITCH).ok_or(Status::OutOfMemory)?;
        let bytes = row.checked_mul(y).and_then(|plane| plane.checked_mul(z)).ok_or(Status::OutOfMemory)?;
        pitch.offer(row);
        self.allocate(out, bytes, MemoryKind::Device, 0)?;
        Ok(row)
    }

    fn submit_copy(&self, stream: usize, copy: Copy, call: &'static str) -> Result<(), Failure> {
        let stream = self.stream(stream)?;
        self.submit(stream, Operation::Copy(copy), call)
    }

    fn submit_fill(&self, stream: usize, fill: Fill, call: &'static str) -> Result<(), Failure> {
        let stream = self.stream(stream)?;
        self.submit(stream, Operation::Fill(fill), call)
    }

    /// A copy to or from a device variable: its address, with `bytes` at `offset` inside of it.
    fn symbol(&self, side: Side, symbol: usize, offset: usize, bytes: usize) -> Result<usize, Failure> {
        let (address, size) = self.host_variable(symbol)?;
        match offset.checked_add(bytes) {
            Some(end) if end <= size => Ok(address + offset),
            _ => Err(Failure::new(
                Status::InvalidValue,
                What::Range {
                    side,
                    address: address.saturating_add(offset),
                    bytes,
                    left: size.saturating_sub(offset),
                    allocation: size,
                },
            )),
        }
    }
}

fn copy_line(to: usize, from: usize, bytes: usize, direction: Direction) -> Copy {
    Copy { to: Place::line(to), from: Place::line(from), size: Size::line(bytes), direction }
}

fn copy_2d(
    (to, to_pitch): (usize, usize),
    (from, from_pitch): (usize, usize),
    width: usize,
    height: usize,
    kind: i32,
) -> Result<Copy, Failure> {
    if height > 0 && width > to_pitch.min(from_pitch) {
        return Err(Status::InvalidPitchValue.into());
    }
    Ok(Copy {
        to: Place { address: to, pitch: to_pitch, plane: 0 },
        from: Place { address: from, pitch: from_pitch, plane: 0 },
        size: Size { row: width, rows: height, planes: 1 },
        direction: direction(kind)?,
    })
}

fn fill_line(to: usize, element: usize, value: u32, count: usize) -> Result<Fill, Failure> {
    let bytes = count.checked_mul(element).ok_or(Status::InvalidValue)?;
    Ok(Fill { to: Place::line(to), pattern: Pattern::of(value, element), size: Size::line(bytes) })
}

fn fill_2d(
    (to, pitch): (usize, usize),
    element: usize,
    value: u32,
    width: usize,
    height: usize,
) -> Result<Fill, Failure> {
    let row = width.checked_mul(element).ok_or(Status::InvalidValue)?;
    if height > 1 && row > pitch {
        return Err(Status::InvalidValue.into());
    }
    let size = Size { row, rows: height, planes: 1 };
    Ok(Fill { to: Place { address: to, pitch, plane: 0 }, pattern: Pattern::of(value, element), size })
}

fn fill_3d(memory: PitchedPtr, value: i32, extent: Extent) -> Result<Fill, Failure> {
    let to = position(memory, Extent { x: 0, y: 0, z: 0 })?;
    let size = Size { row: extent.x, rows: extent.y, planes: extent.z };
    Ok(Fill { to, pattern: Pattern::of(value as u32, 1), size })
}

calls! { entries, Fails, runtime;
    hipMalloc(address: Out<usize>, bytes: usize) {
        runtime.allocate(address, bytes, MemoryKind::Device, 0)
    }
    hipExtMallocWithFlags(address: Out<usize>, bytes: usize, flags: u32) {
        runtime.allocate(address, bytes, MemoryKind::Device, flags)
    }
    hipMallocManaged(address: Out<usize>, bytes: usize, flags: u32) {
        if bytes == 0 || !matches!(flags, 1 | 2) {
            return Err(Status::InvalidValue.into());
        }
        runtime.allocate(address, bytes, MemoryKind::Managed, flags)
    }
    hipHostMalloc(address: Out<usize>, bytes: usize, flags: u32) {
        runtime.allocate(address, bytes, MemoryKind::Host, flags)
    }
    hipHostAlloc(address: Out<usize>, bytes: usize, flags: u32) {
        runtime.allocate(address, bytes, MemoryKind::Host, flags)
    }
    hipExtHostAlloc(address: Out<usize>, bytes: usize, flags: u32) {
        runtime.allocate(address, bytes, MemoryKind::Host, flags)
    }
    hipMallocHost = "hipMemAllocHost" (address: Out<usize>, bytes: usize) {
        runtime.allocate(address, bytes, MemoryKind::Host, 0)
    }
    hipMallocPitch(address: Out<usize>, pitch: Out<usize>, width: usize, height: usize) {
        runtime.pitched(address, pitch, [width, height, 1]).map(drop)
    }
    hipMemAllocPitch(address: Out<usize>, pitch: Out<usize>, width: usize, height: usize, _element: u32) {
        runtime.pitched(address, pitch, [width, height, 1]).map(drop)
    }
    hipMalloc3D(memory: Out<PitchedPtr>, extent: Extent) {
        let mut address = 0_usize;
        let pitch = runtime.pitched(Out::to(&mut address), Out::none(), [extent.x, extent.y, extent.z])?;
        memory.put(PitchedPtr { address, pitch, x: extent.x, y: extent.y })
    }
    hipMallocAsync(address: Out<usize>, bytes: usize, stream: usize) {
        runtime.stream(stream)?;
        runtime.allocate(address, bytes, MemoryKind::Device, 0)
    }
    hipMallocFromPoolAsync(address: Out<usize>, bytes: usize, pool: usize, stream: usize) {
        runtime.pool(pool)?;
        runtime.stream(stream)?;
        runtime.allocate(address, bytes, MemoryKind::Device, 0)
    }
    hipFree = "hipFreeHost" (address: usize) {
        runtime.free(address)
    }
    hipHostFree(address: usize) {
        runtime.free(address)
    }
    hipFreeAsync(address: usize, stream: usize) {
        runtime.stream(stream)?;
        if address == 0 {
            return Err(Status::InvalidValue.into());
        }
        runtime.free(address)
    }
    hipHostRegister(address: usize, bytes: usize, flags: u32) {
        if address == 0 || bytes == 0 || address.checked_add(bytes).is_none() {
            return Err(Status::InvalidValue.into());
        }
        if runtime.memory(address).is_some() {
            return Err(Status::HostMemoryAlreadyRegistered.into());
        }
        runtime.state().registered.insert(address, (bytes, flags));
        runtime.engine.map_host(address, bytes);
        Ok(())
    }
    hipHostUnregister(address: usize) {
        if runtime.state().registered.remove(&address).is_none() {
            return Err(Status::HostMemoryNotRegistered.into());
        }
        runtime.engine.unmap_host(address);
        Ok(())
    }
    hipHostGetDevicePointer(device: Out<usize>, host: usize, flags: u32) {
        match runtime.memory(host) {
            Some((_, Home::Pinned | Home::Managed)) if flags == 0 => device.put(host),
            _ => Err(Status::InvalidValue.into()),
        }
    }
    hipHostGetFlags(flags: Out<u32>, address: usize) {
        let Some((allocation, Home::Pinned)) = runtime.memory(address) else {
            return Err(Status::InvalidValue.into());
        };
        let state = runtime.state();
        let registered = state.registered.get(&allocation.start).map(|(_, flags)| *flags);
        flags.put(registered.or_else(|| state.flags.get(&allocation.start).copied()).unwrap_or(0))
    }
    hipMemGetAddressRange(base: Out<usize>, bytes: Out<usize>, address: usize) {
        let (allocation, _) = runtime.memory(address).ok_or(Status::NotFound)?;
        base.offer(allocation.start);
        bytes.offer(allocation.bytes);
        Ok(())
    }
    hipMemPtrGetInfo(address: usize, bytes: Out<usize>) {
        let (allocation, _) = runtime.memory(address).ok_or(Status::InvalidValue)?;
        bytes.put(allocation.bytes)
    }
    hipMemGetInfo(free: Out<usize>, total: Out<usize>) {
        let (left, all) = machine_memory();
        free.put(left)?;
        total.put(all)
    }
    hipMemcpy = "hipMemcpy_spt" (to: usize, from: usize, bytes: usize, kind: i32) {
        let copy = copy_line(to, from, bytes, direction(kind)?);
        runtime.perform(&Operation::Copy(copy), "hipMemcpy")
    }
    hipMemcpyAsync = "hipMemcpyAsync_spt" (to: usize, from: usize, bytes: usize, kind: i32, stream: usize) {
        runtime.submit_copy(stream, copy_line(to, from, bytes, direction(kind)?), "hipMemcpyAsync")
    }
    hipMemcpyWithStream(to: usize, from: usize, bytes: usize, kind: i32, stream: usize) {
        runtime.submit_copy(stream, copy_line(to, from, bytes, direction(kind)?), "hipMemcpyWithStream")
    }
    hipMemcpyHtoD(to: usize, from: usize, bytes: usize) {
        let copy = copy_line(to, from, bytes, Direction::HostToDevice);
        runtime.perform(&Operation::Copy(copy), "hipMemcpyHtoD")
    }
    hipMemcpyDtoH(to: usize, from: usize, bytes: usize) {
        let copy = copy_line(to, from, bytes, Direction::DeviceToHost);
        runtime.perform(&Operation::Copy(copy), "hipMemcpyDtoH")
    }
    hipMemcpyDtoD(to: usize, from: usize, bytes: usize) {
        let copy = copy_line(to, from, bytes, Direction::DeviceToDevice);
        runtime.perform(&Operation::Copy(copy), "hipMemcpyDtoD")
    }
    hipMemcpyHtoDAsync(to: usize, from: usize, bytes: usize, stream: usize) {
        let copy = copy_line(to, from, bytes, Direction::HostToDevice);
        runtime.submit_copy(stream, copy, "hipMemcpyHtoDAsync")
    }
    hipMemcpyDtoHAsync(to: usize, from: usize, bytes: usize, stream: usize) {
        let copy = copy_line(to, from, bytes, Direction::DeviceToHost);
        runtime.submit_copy(stream, copy, "hipMemcpyDtoHAsync")
    }
    hipMemcpyDtoDAsync(to: usize, from: usize, bytes: usize, stream: usize) {
        let copy = copy_line(to, from, bytes, Direction::DeviceToDevice);
        runtime.submit_copy(stream, copy, "hipMemcpyDtoDAsync")
    }
    hipMemcpyPeer(to: usize, to_device: i32, from: usize, from_device: i32, bytes: usize) {
        runtime.device(to_device)?;
        runtime.device(from_device)?;
        let copy = copy_line(to, from, bytes, Direction::DeviceToDevice);
        runtime.perform(&Operation::Copy(copy), "hipMemcpyPeer")
    }
    hipMemcpyPeerAsync(to: usize, to_device: i32, from: usize, from_device: i32, bytes: usize, stream: usize) {
        runtime.device(to_device)?;
        runtime.device(from_device)?;
        let copy = copy_line(to, from, bytes, Direction::DeviceToDevice);
        runtime.submit_copy(stream, copy, "hipMemcpyPeerAsync")
    }
    hipMemcpy2D = "hipMemcpy2D_spt" (
        to: usize, to_pitch: usize, from: usize, from_pitch: usize, width: usize, height: usize, kind: i32,
    ) {
        let copy = copy_2d((to, to_pitch), (from, from_pitch), width, height, kind)?;
        runtime.perform(&Operation::Copy(copy), "hipMemcpy2D")
    }
    hipMemcpy2DAsync = "hipMemcpy2DAsync_spt" (
        to: usize, to_pitch: usize, from: usize, from_pitch: usize, width: usize, height: usize, kind: i32,
        stream: usize,
    ) {
        let copy = copy_2d((to, to_pitch), (from, from_pitch), width, height, kind)?;
        runtime.submit_copy(stream, copy, "hipMemcpy2DAsync")
    }
    hipMemcpy3D = "hipMemcpy3D_spt" (copy: In<Copy3D>) {
        runtime.perform(&Operation::Copy(copy.get()?.copy()?), "hipMemcpy3D")
    }
    hipMemcpy3DAsync = "hipMemcpy3DAsync_spt" (copy: In<Copy3D>, stream: usize) {
        runtime.submit_copy(stream, copy.get()?.copy()?, "hipMemcpy3DAsync")
    }
    hipMemcpyToSymbol = "hipMemcpyToSymbol_spt" (symbol: usize, from: usize, bytes: usize, offset: usize, kind: i32) {
        let to = runtime.symbol(Side::Destination, symbol, offset, bytes)?;
        let copy = copy_line(to, from, bytes, direction(kind)?);
        runtime.perform(&Operation::Copy(copy), "hipMemcpyToSymbol")
    }
    hipMemcpyToSymbolAsync = "hipMemcpyToSymbolAsync_spt" (
        symbol: usize, from: usize, bytes: usize, offset: usize, kind: i32, stream: usize,
    ) {
        let to = runtime.symbol(Side::Destination, symbol, offset, bytes)?;
        runtime.submit_copy(stream, copy_line(to, from, bytes, direction(kind)?), "hipMemcpyToSymbolAsync")
    }
    hipMemcpyFromSymbol = "hipMemcpyFromSymbol_spt" (to: usize, symbol: usize, bytes: usize, offset: usize, kind: i32) {
        let from = runtime.symbol(Side::Source, symbol, offset, bytes)?;
        let copy = copy_line(to, from, bytes, direction(kind)?);
        runtime.perform(&Operation::Copy(copy), "hipMemcpyFromSymbol")
    }
    hipMemcpyFromSymbolAsync = "hipMemcpyFromSymbolAsync_spt" (
        to: usize, symbol: usize, bytes: usize, offset: usize, kind: i32, stream: usize,
    ) {
        let from = runtime.symbol(Side::Source, symbol, offset, bytes)?;
        runtime.submit_copy(stream, copy_line(to, from, bytes, direction(kind)?), "hipMemcpyFromSymbolAsync")
    }
    hipGetSymbolAddress(address: Out<usize>, symbol: usize) {
        address.put(runtime.host_variable(symbol)?.0)
    }
    hipGetSymbolSize(bytes: Out<usize>, symbol: usize) {
        bytes.put(runtime.host_variable(symbol)?.1)
    }
    hipMemset = "hipMemset_spt" (to: usize, value: i32, bytes: usize) {
        runtime.perform(&Operation::Fill(fill_line(to, 1, value as u32, bytes)?), "hipMemset")
    }
    hipMemsetAsync = "hipMemsetAsync_spt" (to: usize, value: i32, bytes: usize, stream: usize) {
        runtime.submit_fill(stream, fill_line(to, 1, value as u32, bytes)?, "hipMemsetAsync")
    }
    hipMemsetD8(to: usize, value: u8, count: usize) {
        runtime.perform(&Operation::Fill(fill_line(to, 1, value.into(), count)?), "hipMemsetD8")
    }
    hipMemsetD8Async(to: usize, value: u8, count: usize, stream: usize) {
        runtime.submit_fill(stream, fill_line(to, 1, value.into(), count)?, "hipMemsetD8Async")
    }
    hipMemsetD16(to: usize, value: u16, count: usize) {
        runtime.perform(&Operation::Fill(fill_line(to, 2, value.into(), count)?), "hipMemsetD16")
    }
    hipMemsetD16Async(to: usize, value: u16, count: usize, stream: usize) {
        runtime.submit_fill(stream, fill_line(to, 2, value.into(), count)?, "hipMemsetD16Async")
    }
    hipMemsetD32(to: usize, value: u32, count: usize) {
        runtime.perform(&Operation::Fill(fill_line(to, 4, value, count)?), "hipMemsetD32")
    }
    hipMemsetD32Async(to: usize, value: u32, count: usize, stream: usize) {
        runtime.submit_fill(stream, fill_line(to, 4, value, count)?, "hipMemsetD32Async")
    }
    hipMemset2D = "hipMemset2D_spt" (to: usize, pitch: usize, value: i32, width: usize, height: usize) {
        let fill = fill_2d((to, pitch), 1, value as u32, width, height)?;
        runtime.perform(&Operation::Fill(fill), "hipMemset2D")
    }
    hipMemset2DAsync = "hipMemset2DAsync_spt" (
        to: usize, pitch: usize, value: i32, width: usize, height: usize, stream: usize,
    ) {
        runtime.submit_fill(stream, fill_2d((to, pitch), 1, value as u32, width, height)?, "hipMemset2DAsync")
    }
    hipMemsetD2D8(to: usize, pitch: usize, value: u8, width: usize, height: usize) {
        let fill = fill_2d((to, pitch), 1, value.into(), width, height)?;
        runtime.perform(&Operation::Fill(fill), "hipMemsetD2D8")
    }
    hipMemsetD2D8Async(to: usize, pitch: usize, value: u8, width: usize, height: usize, stream: usize) {
        runtime.submit_fill(stream, fill_2d((to, pitch), 1, value.into(), width, height)?, "hipMemsetD2D8Async")
    }
    hipMemsetD2D16(to: usize, pitch: usize, value: u16, width: usize, height: usize) {
        let fill = fill_2d((to, pitch), 2, value.into(), width, height)?;
        runtime.perform(&Operation::Fill(fill), "hipMemsetD2D16")
    }
    hipMemsetD2D16Async(to: usize, pitch: usize, value: u16, width: usize, height: usize, stream: usize) {
        runtime.submit_fill(stream, fill_2d((to, pitch), 2, value.into(), width, height)?, "hipMemsetD2D16Async")
    }
    hipMemsetD2D32(to: usize, pitch: usize, value: u32, width: usize, height: usize) {
        let fill = fill_2d((to, pitch), 4, value, width, height)?;
        runtime.perform(&Operation::Fill(fill), "hipMemsetD2D32")
    }
    hipMemsetD2D32Async(to: usize, pitch: usize, value: u32, width: usize, height: usize, stream: usize) {
        runtime.submit_fill(stream, fill_2d((to, pitch), 4, value, width, height)?, "hipMemsetD2D32Async")
    }
    hipMemset3D = "hipMemset3D_spt" (memory: PitchedPtr, value: i32, extent: Extent) {
        runtime.perform(&Operation::Fill(fill_3d(memory, value, extent)?), "hipMemset3D")
    }
    hipMemset3DAsync = "hipMemset3DAsync_spt" (memory: PitchedPtr, value: i32, extent: Extent, stream: usize) {
        runtime.submit_fill(stream, fill_3d(memory, value, extent)?, "hipMemset3DAsync")
    }
    hipMemAdvise(_address: usize, _bytes: usize, _advice: i32, _device: i32) {
        // Where managed memory lies changes no result.
        Ok(())
    }
    hipMemAdvise_v2(_address: usize, _bytes: usize, _advice: i32, _location: u64) {
        Ok(())
    }
    hipMemPrefetchAsync_v2(_address: usize, _bytes: usize, _location: u64, _flags: u32, stream: usize) {
        runtime.stream(stream).map(drop)
    }
    hipMemPrefetchAsync(_address: usize, _bytes: usize, _device: i32, stream: usize) {
        runtime.stream(stream).map(drop)
    }
    hipDeviceGetDefaultMemPool(pool: Out<usize>, device: i32) {
        runtime.device(device)?;
        pool.put(DEFAULT_POOL)
    }
    hipDeviceGetMemPool(pool: Out<usize>, device: i32) {
        runtime.device(device)?;
        pool.put(DEFAULT_POOL)
    }
    hipDeviceSetMemPool(device: i32, pool: usize) {
        runtime.device(device)?;
        runtime.pool(pool).map(drop)
    }
    hipMemPoolCreate(pool: Out<usize>, properties: In<u8>) {
        properties.get()?;
        let mut state = runtime.state();
        let handle = state.handle();
        state.pools.insert(handle, Pool::default());
        pool.put(handle)
    }
    hipMemPoolDestroy(pool: usize) {
        let removed = runtime.state().pools.remove(&pool);
        removed.map(drop).ok_or_else(|| Failure::handle(HandleKind::MemoryPool, pool))
    }
    hipMemPoolTrimTo(pool: usize, _bytes: usize) {
        runtime.pool(pool).map(drop)
    }
    hipMemPoolSetAccess(pool: usize, _list: In<u8>, _count: usize) {
        runtime.pool(pool).map(drop)
    }
    hipMemPoolSetAttribute(pool: usize, attribute: u32, value: In<u64>) {
        let mut settings = runtime.pool(pool)?;
        match attribute {
            1..=3 => settings.reuse[attribute as usize - 1] = In::<i32>::of(value).get()?,
            4 => settings.release_threshold = value.get()?,
            // The marks of the most memory in use can be set to 0 alone; none is kept.
            6 | 8 if value.get()? == 0 => {}
            _ => return Err(Status::InvalidValue.into()),
        }
        runtime.state().pools.insert(pool, settings);
        Ok(())
    }
    hipMemPoolGetAttribute(pool: usize, attribute: u32, value: Out<u64>) {
        let settings = runtime.pool(pool)?;
        match attribute {
            1..=3 => Out::<i32>::of(value).put(settings.reuse[attribute as usize - 1]),
            4 => value.put(settings.release_threshold),
            5..=8 => {
                let what = What::UnemulatedUse { what: "the amount of memory that a pool has in use" };
                Err(Failure::new(Status::NotSupported, what))
            }
            _ => Err(Status::InvalidValue.into()),
        }
    }
}

/// The handle of the device's default pool.
const DEFAULT_POOL: usize = 0x00a1_ffff_0000_0000;

impl Runtime {
    fn pool(&self, handle: usize) -> Result<Pool, Failure> {
        match self.state().pools.get(&handle) {
            Some(pool) => Ok(*pool),
            None if handle == DEFAULT_POOL => Ok(Pool { reuse: [1; 3], release_threshold: 0 }),
            None => Err(Failure::handle(HandleKind::MemoryPool, handle)),
        }
    }
}

/// `hipPointerAttribute_t`: `memoryType` of HIP 5 is `type` of HIP 6, with other numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct PointerAttributes {
    pub kind: u32,
    pub device: i32,
    pub device_address: usize,
    pub host_address: usize,
    pub managed: i32,
    pub flags: u32,
}

fn pointer_attributes(
    runtime: &Runtime,
    version: Version,
    address: usize,
) -> Result<PointerAttributes, Failure> {
    let Some((allocation, home)) = runtime.memory(address) else {
        if version == Version::V5 {
            return Err(Status::InvalidValue.into());
        }
        let kind = MemoryType::Unregistered.number(version);
        return Ok(PointerAttributes {
            kind,
            device: -2,
            device_address: 0,
            host_address: 0,
            managed: 0,
            flags: 0,
        });
    };
    let state = runtime.state();
    let registered = state.registered.get(&allocation.start).map(|(_, flags)| *flags);
    let flags = registered.or_else(|| state.flags.get(&allocation.start).copied()).unwrap_or(0);
    let kind = match home {
        Home::Device => MemoryType::Device,
        Home::Managed => MemoryType::Managed,
        Home::Pinned | Home::Pageable => MemoryType::Host,
    };
    Ok(PointerAttributes {
        kind: kind.number(version),
        device: 0,
        device_address: address,
        host_address: if home == Home::Device { 0 } else { address },
        managed: i32::from(home == Home::Managed),
        flags,
    })
}

extern "C" fn pointer_get_attributes<const V: u8>(attributes: Out<PointerAttributes>, address: usize) -> i32 {
    super::abi::call("hipPointerGetAttributes", super::abi::AfterFault::Fails, |runtime| {
        if address == 0 {
            return Err(Status::InvalidValue.into());
        }
        attributes.put(pointer_attributes(runtime, Version::of(V), address)?)
    })
}

/// Writes one attribute of a pointer, numbered as `hipPointer_attribute`.
fn pointer_attribute(
    runtime: &Runtime,
    version: Version,
    out: Out<usize>,
    attribute: u32,
    address: usize,
) -> Result<(), Failure> {
    let all = pointer_attributes(runtime, version, address)?;
    let allocation = runtime.memory(address).map(|(allocation, _)| allocation);
    let known = |value: usize| if allocation.is_some() { Ok(value) } else { Err(Status::InvalidValue) };
    match attribute {
        2 => Out::<u32>::of(out).put(all.kind),
        3 => out.put(known(all.device_address)?),
        4 => out.put(known(all.host_address)?),
        7 => out.put(known(allocation.map_or(0, |a| a.start))?),
        8 => Out::<u8>::of(out).put(all.managed as u8),
        9 => Out::<i32>::of(out).put(all.device),
        11 => out.put(known(allocation.map_or(0, |a| a.start))?),
        12 => out.put(known(allocation.map_or(0, |a| a.bytes))?),
        13 => Out::<u8>::of(out).put(u8::from(allocation.is_some())),
        _ => Err(Failure::new(
            Status::NotSupported,
            What::UnemulatedUse { what: "this attribute of a pointer" },
        )),
    }
}

extern "C" fn pointer_get_attribute<const V: u8>(out: Out<usize>, attribute: u32, address: usize) -> i32 {
    super::abi::call("hipPointerGetAttribute", super::abi::AfterFault::Fails, |runtime| {
        pointer_attribute(runtime, Version::of(V), out, attribute, address)
    })
}

extern "C" fn drv_pointer_get_attributes<const V: u8>(
    count: u32,
    attributes: In<u32>,
    data: In<Out<usize>>,
    address: usize,
) -> i32 {
    super::abi::call("hipDrvPointerGetAttributes", super::abi::AfterFault::Fails, |runtime| {
        for i in 0..count as usize {
            pointer_attribute(runtime, Version::of(V), data.at(i)?, attributes.at(i)?, address)?;
        }
        Ok(())
    })
}

extern "C" fn memcpy_param_2d<const V: u8>(copy: In<Param2D>) -> i32 {
    super::abi::call("hipMemcpyParam2D", super::abi::AfterFault::Fails, |runtime| {
        let copy = Param3D::from(copy.get()?).copy(Version::of(V))?;
        runtime.perform(&Operation::Copy(copy), "hipMemcpyParam2D")
    })
}

extern "C" fn memcpy_param_2d_async<const V: u8>(copy: In<Param2D>, stream: usize) -> i32 {
    super::abi::call("hipMemcpyParam2DAsync", super::abi::AfterFault::Fails, |runtime| {
        let copy = Param3D::from(copy.get()?).copy(Version::of(V))?;
        runtime.submit_copy(stream, copy, "hipMemcpyParam2DAsync")
    })
}

extern "C" fn memcpy_3d_driver<const V: u8>(copy: In<Param3D>) -> i32 {
    super::abi::call("hipDrvMemcpy3D", super::abi::AfterFault::Fails, |runtime| {
        runtime.perform(&Operation::Copy(driver_copy(copy, Version::of(V))?), "hipDrvMemcpy3D")
    })
}

extern "C" fn memcpy_3d_driver_async<const V: u8>(copy: In<Param3D>, stream: usize) -> i32 {
    super::abi::call("hipDrvMemcpy3DAsync", super::abi::AfterFault::Fails, |runtime| {
        runtime.submit_copy(stream, driver_copy(copy, Version::of(V))?, "hipDrvMemcpy3DAsync")
    })
}

/// An entry whose function depends on HIP's version.
macro_rules! versioned {
    ($name:literal, $function:ident) => {
        Entry {
            name: $name,
            addresses: [
                $function::<5> as *const () as usize,
                $function::<6> as *const () as usize,
                $function::<7> as *const () as usize,
            ],
        }
    };
}
pub(super) use versioned;

/// Calls whose structures or numbers depend on HIP's version.
pub(super) fn versioned_entries() -> Vec<Entry> {
    vec![
        versioned!("hipPointerGetAttributes", pointer_get_attributes),
        versioned!("hipPointerGetAttribute", pointer_get_attribute),
        versioned!("hipDrvPointerGetAttributes", drv_pointer_get_attributes),
        versioned!("hipMemcpyParam2D", memcpy_param_2d),
        versioned!("hipMemcpyParam2DAsync", memcpy_param_2d_async),
        versioned!("hipDrvMemcpy2DUnaligned", memcpy_param_2d),
        versioned!("hipDrvMemcpy3D", memcpy_3d_driver),
        versioned!("hipDrvMemcpy3DAsync", memcpy_3d_driver_async),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// As a C compiler has them with HIP 5.2's headers; `HIP_MEMCPY3D` of HIP 6 as ROCm 7's.
    #[test]
    fn structures_of_copies_lie_as_the_headers_have_them() {
        assert_eq!((size_of::<Copy3D>(), size_of::<PitchedPtr>()), (160, 32));
        assert_eq!(offset_of!(Copy3D, from_position), 8);
        assert_eq!(offset_of!(Copy3D, from), 32);
        assert_eq!(offset_of!(Copy3D, to_array), 64);
        assert_eq!(offset_of!(Copy3D, to_position), 72);
        assert_eq!(offset_of!(Copy3D, to), 96);
        assert_eq!(offset_of!(Copy3D, extent), 128);
        assert_eq!(offset_of!(Copy3D, kind), 152);

        assert_eq!(size_of::<Param2D>(), 128);
        assert_eq!(offset_of!(Param2DSide, kind), 16);
        assert_eq!(offset_of!(Param2DSide, host), 24);
        assert_eq!(offset_of!(Param2DSide, pitch), 48);
        assert_eq!(offset_of!(Param2D, to), 56);
        assert_eq!(offset_of!(Param2D, width), 112);

        assert_eq!(size_of::<OldParam3D>(), 128);
        assert_eq!(offset_of!(OldParam3DSide, kind), 16);
        assert_eq!(offset_of!(OldParam3DSide, host), 24);
        assert_eq!(offset_of!(OldParam3DSide, pitch), 48);
        assert_eq!(offset_of!(OldParam3DSide, height), 52);
        assert_eq!(offset_of!(OldParam3D, to), 56);
        assert_eq!(offset_of!(OldParam3D, width), 112);
        assert_eq!(offset_of!(OldParam3D, depth), 120);

        assert_eq!(size_of::<Param3D>(), 184);
        assert_eq!(offset_of!(Param3DSide, kind), 32);
        assert_eq!(offset_of!(Param3DSide, host), 40);
        assert_eq!(offset_of!(Param3DSide, pitch), 64);
        assert_eq!(offset_of!(Param3D, to), 80);
        assert_eq!(offset_of!(Param3D, width), 160);

        assert_eq!(size_of::<PointerAttributes>(), 32);
        assert_eq!(offset_of!(PointerAttributes, device_address), 8);
        assert_eq!(offset_of!(PointerAttributes, host_address), 16);
        assert_eq!(offset_of!(PointerAttributes, managed), 24);
        assert_eq!(offset_of!(PointerAttributes, flags), 28);
    }
}
