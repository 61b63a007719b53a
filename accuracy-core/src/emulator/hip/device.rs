//! The device: one, the emulated processor. Versions, properties, limits, contexts and errors.

#![expect(non_snake_case, reason = "the names are those of HIP's headers")]

use super::abi::{self, Entry, In, Out, Text, Version, calls};
use super::memory::{machine_memory, versioned};
use super::problem::{Failure, What};
use super::properties::{PropertiesR0000, PropertiesR0600, attribute, uuid};
use super::runtime::Runtime;
use super::status::Status;
use std::ffi::{CStr, c_char, c_int};

/// The one context: contexts of HIP stand for devices.
const CONTEXT: usize = 0x00a1_fffe_0000_0000;
const PCI_ID: &CStr = c"0000:00:00.0";

impl Runtime {
    /// Checks the number of a device.
    pub fn device(&self, device: c_int) -> Result<(), Failure> {
        if device == 0 { Ok(()) } else { Err(Status::InvalidDevice.into()) }
    }
}

/// Copies text with its terminating zero into a place of `length` bytes, as far as it fits.
fn put_text(text: &[u8], out: Out<c_char>, length: c_int) -> Result<(), Failure> {
    let room = usize::try_from(length).ok().filter(|room| *room > 0).ok_or(Status::InvalidValue)?;
    for (i, byte) in text.iter().take(room - 1).chain([&0]).enumerate() {
        out.put_at(i, *byte as c_char)?;
    }
    Ok(())
}

calls! { entries, Fails, runtime;
    hipInit(flags: u32) {
        if flags == 0 { Ok(()) } else { Err(Status::InvalidValue.into()) }
    }
    hipGetDeviceCount(count: Out<c_int>) {
        count.put(1)
    }
    hipGetDevice(device: Out<c_int>) {
        device.put(0)
    }
    hipSetDevice(device: c_int) {
        runtime.device(device)
    }
    hipSetValidDevices(list: In<c_int>, count: c_int) {
        let list = list.array(usize::try_from(count).map_err(|_| Status::InvalidValue)?)?;
        list.into_iter().try_for_each(|device| runtime.device(device))
    }
    hipDeviceGet(device: Out<c_int>, ordinal: c_int) {
        runtime.device(ordinal)?;
        device.put(0)
    }
    hipDeviceGetName(name: Out<c_char>, length: c_int, device: c_int) {
        runtime.device(device)?;
        put_text(runtime.engine.processor().product().as_bytes(), name, length)
    }
    hipDeviceGetUuid(id: Out<[u8; 16]>, device: c_int) {
        runtime.device(device)?;
        let text = uuid(runtime.engine.processor()).as_bytes();
        id.put(text.first_chunk().copied().unwrap_or_default())
    }
    hipDeviceTotalMem(bytes: Out<usize>, device: c_int) {
        runtime.device(device)?;
        bytes.put(machine_memory().1)
    }
    hipDeviceComputeCapability(major: Out<c_int>, minor: Out<c_int>, device: c_int) {
        runtime.device(device)?;
        let capability = runtime.engine.processor().capability();
        major.put(capability.0)?;
        minor.put(capability.1)
    }
    hipDeviceGetAttribute(value: Out<c_int>, number: u32, device: c_int) {
        runtime.device(device)?;
        value.put(attribute(runtime.engine.processor(), number).ok_or(Status::InvalidValue)?)
    }
    hipGetDeviceProperties = "hipGetDevicePropertiesR0000" (properties: Out<PropertiesR0000>, device: c_int) {
        runtime.device(device)?;
        properties.put(PropertiesR0000::of(runtime.engine.processor()))
    }
    hipGetDevicePropertiesR0600(properties: Out<PropertiesR0600>, device: c_int) {
        runtime.device(device)?;
        properties.put(PropertiesR0600::of(runtime.engine.processor()))
    }
    hipChooseDevice = "hipChooseDeviceR0000" (device: Out<c_int>, properties: In<u8>) {
        properties.get()?;
        device.put(0)
    }
    hipChooseDeviceR0600(device: Out<c_int>, properties: In<u8>) {
        properties.get()?;
        device.put(0)
    }
    hipDeviceGetPCIBusId(id: Out<c_char>, length: c_int, device: c_int) {
        runtime.device(device)?;
        put_text(PCI_ID.to_bytes(), id, length)
    }
    hipDeviceGetByPCIBusId(device: Out<c_int>, id: Text) {
        if id.read()?.as_bytes() != PCI_ID.to_bytes() {
            return Err(Status::InvalidValue.into());
        }
        device.put(0)
    }
    hipDeviceGetP2PAttribute(_value: Out<c_int>, _attribute: u32, from: c_int, to: c_int) {
        runtime.device(from)?;
        runtime.device(to)?;
        // The two have to be different devices.
        Err(Status::InvalidDevice.into())
    }
    hipDeviceCanAccessPeer(can: Out<c_int>, device: c_int, peer: c_int) {
        runtime.device(device)?;
        runtime.device(peer)?;
        can.put(0)
    }
    hipDeviceEnablePeerAccess(peer: c_int, flags: u32) {
        runtime.device(peer)?;
        let _ = flags;
        Err(Status::InvalidDevice.into())
    }
    hipDeviceDisablePeerAccess(peer: c_int) {
        runtime.device(peer)?;
        Err(Status::PeerAccessNotEnabled.into())
    }
    hipExtGetLinkTypeAndHopCount(device: c_int, peer: c_int, _kind: Out<u32>, _hops: Out<u32>) {
        runtime.device(device)?;
        runtime.device(peer)?;
        Err(Status::InvalidDevice.into())
    }
    hipDeviceSynchronize = "hipCtxSynchronize" () {
        Ok(())
    }
    hipDeviceGetLimit(value: Out<usize>, limit: u32) {
        // Stack size of a work-item, printf's buffer, the heap of malloc in kernels.
        value.put(match limit {
            0 => 1024,
            1 => super::output::PRINTF_BYTES,
            2 => 8 << 20,
            _ => return Err(Status::UnsupportedLimit.into()),
        })
    }
    hipDeviceSetLimit(limit: u32, _bytes: usize) {
        match limit {
            // Scratch memory is as large as each kernel says, and printf's buffer is large; a kernel that allocates
            // memory makes its own error.
            0..=2 => Ok(()),
            _ => Err(Status::UnsupportedLimit.into()),
        }
    }
    hipDeviceGetCacheConfig = "hipCtxGetCacheConfig" (config: Out<u32>) {
        config.put(0)
    }
    hipDeviceSetCacheConfig = "hipCtxSetCacheConfig" (_config: u32) {
        Ok(())
    }
    hipDeviceGetSharedMemConfig = "hipCtxGetSharedMemConfig" (config: Out<u32>) {
        config.put(1)
    }
    hipDeviceSetSharedMemConfig = "hipCtxSetSharedMemConfig" (_config: u32) {
        Ok(())
    }
    hipGetDeviceFlags = "hipCtxGetFlags" (flags: Out<u32>) {
        flags.put(0)
    }
    hipSetDeviceFlags(_flags: u32) {
        Ok(())
    }
    hipDeviceGraphMemTrim(device: c_int) {
        runtime.device(device)
    }
    hipCtxCreate(context: Out<usize>, _flags: u32, device: c_int) {
        runtime.device(device)?;
        context.put(CONTEXT)
    }
    hipCtxDestroy(context: usize) {
        known_context(context)
    }
    hipCtxGetCurrent = "hipCtxPopCurrent" (context: Out<usize>) {
        context.put(CONTEXT)
    }
    hipCtxSetCurrent = "hipCtxPushCurrent" (context: usize) {
        known_context(context)
    }
    hipCtxGetDevice(device: Out<c_int>) {
        device.put(0)
    }
    hipCtxEnablePeerAccess(context: usize, _flags: u32) {
        known_context(context)
    }
    hipCtxDisablePeerAccess(context: usize) {
        known_context(context)
    }
    hipDevicePrimaryCtxRetain(context: Out<usize>, device: c_int) {
        runtime.device(device)?;
        context.put(CONTEXT)
    }
    hipDevicePrimaryCtxRelease = "hipDevicePrimaryCtxReset" (device: c_int) {
        runtime.device(device)
    }
    hipDevicePrimaryCtxGetState(device: c_int, flags: Out<u32>, active: Out<c_int>) {
        runtime.device(device)?;
        flags.offer(0);
        active.offer(1);
        Ok(())
    }
    hipDevicePrimaryCtxSetFlags(device: c_int, _flags: u32) {
        runtime.device(device)?;
        Err(Status::ContextAlreadyInUse.into())
    }
    hipDeviceReset() {
        // It would free the memory that the test's tensors are in.
        let what = What::UnemulatedUse { what: "resetting the device, which the test shares with the launcher," };
        Err(Failure::new(Status::NotSupported, what))
    }
    hipProfilerStart = "hipProfilerStop" () {
        Ok(())
    }
}

calls! { version_entries, Works, runtime;
    hipDrvGetErrorName(code: c_int, name: Out<*const c_char>) {
        match Status::of(code) {
            Some(status) => name.put(status.name().as_ptr()),
            None => Err(Status::InvalidValue.into()),
        }
    }
    hipDrvGetErrorString(code: c_int, text: Out<*const c_char>) {
        match Status::of(code) {
            Some(status) => text.put(status.text().as_ptr()),
            None => Err(Status::InvalidValue.into()),
        }
    }
}

fn known_context(context: usize) -> Result<(), Failure> {
    if matches!(context, 0 | CONTEXT) { Ok(()) } else { Err(Status::InvalidContext.into()) }
}

extern "C" fn version<const V: u8>(number: Out<c_int>) -> c_int {
    abi::call("hipRuntimeGetVersion", abi::AfterFault::Works, |_| number.put(Version::of(V).number()))
}

extern "C" fn context_version<const V: u8>(context: usize, number: Out<c_int>) -> c_int {
    abi::call("hipCtxGetApiVersion", abi::AfterFault::Works, |_| {
        known_context(context)?;
        number.put(Version::of(V).number())
    })
}

pub(super) fn versioned_entries() -> Vec<Entry> {
    vec![
        versioned!("hipRuntimeGetVersion", version),
        versioned!("hipDriverGetVersion", version),
        versioned!("hipCtxGetApiVersion", context_version),
    ]
}

/// The device's own error, if a kernel has failed, before what calls left behind.
fn lost() -> Option<Status> {
    abi::current().and_then(|runtime| runtime.lost())
}

extern "C" fn get_last_error() -> c_int {
    let last = abi::take_last_error();
    lost().unwrap_or(last).code()
}

extern "C" fn peek_at_last_error() -> c_int {
    lost().unwrap_or_else(abi::last_error).code()
}

extern "C" fn ext_get_last_error() -> c_int {
    let last = abi::take_last_call();
    lost().unwrap_or(last).code()
}

extern "C" fn error_name(code: c_int) -> *const c_char {
    Status::of(code).map_or(c"hipErrorUnknown", Status::name).as_ptr()
}

extern "C" fn error_text(code: c_int) -> *const c_char {
    Status::of(code).map_or(c"unknown error", Status::text).as_ptr()
}

/// `hipChannelFormatDesc`.
#[repr(C)]
struct ChannelFormat {
    bits: [c_int; 4],
    kind: u32,
}

/// `hipCreateChannelDesc` only puts its arguments together.
extern "C" fn channel_format(x: c_int, y: c_int, z: c_int, w: c_int, kind: u32) -> ChannelFormat {
    ChannelFormat { bits: [x, y, z, w], kind }
}

/// Calls that do not return a status, or set none.
pub(super) fn other_entries() -> Vec<Entry> {
    let entry = |name, function: *const ()| Entry { name, addresses: [function as usize; 3] };
    vec![
        entry("hipGetLastError", get_last_error as *const ()),
        entry("hipPeekAtLastError", peek_at_last_error as *const ()),
        entry("hipExtGetLastError", ext_get_last_error as *const ()),
        entry("hipGetErrorName", error_name as *const ()),
        entry("hipGetErrorString", error_text as *const ()),
        entry("hipCreateChannelDesc", channel_format as *const ()),
    ]
}
