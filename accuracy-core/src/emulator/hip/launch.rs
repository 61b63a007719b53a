//! Every way to launch a kernel, and how its arguments come into one segment.

#![expect(non_snake_case, reason = "the names are those of HIP's headers")]

use super::abi::{Dim3, Entry, In, calls};
use super::engine::KernelInfo;
use super::operation::{KernelLaunch, Operation};
use super::problem::{Failure, What};
use super::runtime::{Function, Runtime};
use super::status::Status;
use std::cell::RefCell;
use std::sync::Arc;

/// The argument segment of a launch, from a pointer to each argument (`arguments`) or from a buffer (`extra`).
pub(super) fn arguments(
    info: &KernelInfo,
    arguments: In<usize>,
    extra: In<usize>,
) -> Result<Vec<u8>, Failure> {
    if !extra.is_null() {
        return from_buffer(info, extra);
    }
    let takes = info.explicit().count();
    let kernel = || info.name.clone();
    let invalid = |what| Failure::new(Status::InvalidValue, what);
    if takes == 0 && info.kernarg_bytes > 0 && info.arguments.is_empty() && !arguments.is_null() {
        return Err(invalid(What::UnknownArguments { kernel: kernel(), bytes: info.kernarg_bytes }));
    }
    if takes > 0 && arguments.is_null() {
        return Err(invalid(What::NoArguments { kernel: kernel(), takes }));
    }
    let mut segment = vec![0; info.explicit_bytes().min(info.kernarg_bytes)];
    for (index, argument) in info.explicit().enumerate() {
        let end = argument.offset.saturating_add(argument.bytes);
        let Some(place) = segment.get_mut(argument.offset..end) else {
            let bytes = info.kernarg_bytes;
            return Err(invalid(What::Metadata { kernel: kernel(), index, end, bytes }));
        };
        let address = arguments.at(index)?;
        if address == 0 {
            return Err(invalid(What::NullArgument { kernel: kernel(), takes, index }));
        }
        // SAFETY: the caller passes a pointer to each of the kernel's arguments, whose size the metadata has.
        let value = unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(address), argument.bytes)
        };
        place.copy_from_slice(value);
    }
    Ok(segment)
}

/// The buffer that an `extra` list names.
fn from_buffer(info: &KernelInfo, extra: In<usize>) -> Result<Vec<u8>, Failure> {
    /// `HIP_LAUNCH_PARAM_BUFFER_POINTER`, `_BUFFER_SIZE` (a pointer to the size) and `_END`.
    const POINTER: usize = 1;
    const SIZE: usize = 2;
    const END: usize = 3;
    let (mut buffer, mut size, mut at) = (0, In::<usize>::none(), 0);
    loop {
        match extra.at(at)? {
            END => break,
            POINTER => buffer = extra.at(at + 1)?,
            SIZE => size = In::from_address(extra.at(at + 1)?),
            key => return Err(Failure::new(Status::InvalidValue, What::Extra { key })),
        }
        at += 2;
    }
    let passed = if size.is_null() { 0 } else { size.get()? };
    let (takes, all) = if info.arguments.is_empty() {
        (info.kernarg_bytes, info.kernarg_bytes)
    } else {
        (info.needed_bytes(), info.explicit_bytes())
    };
    // Launchers round their structures up; hidden arguments follow in the segment.
    let most = info.kernarg_bytes.max(takes).next_multiple_of(16);
    if passed < takes || passed > most || (takes > 0 && buffer == 0) {
        let kernel = info.name.clone();
        return Err(Failure::new(Status::InvalidValue, What::ArgumentBytes { kernel, takes, passed }));
    }
    if passed == 0 || buffer == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the caller passes a buffer and says how long it is.
    let bytes =
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(buffer), passed) };
    let mut segment = bytes[..all.min(passed)].to_vec();
    segment.resize(all, 0);
    Ok(segment)
}

/// A launch of whole workgroups.
pub(super) fn whole(
    function: Arc<Function>,
    blocks: [u32; 3],
    threads: [u32; 3],
    dynamic_lds: u32,
    arguments: Vec<u8>,
) -> KernelLaunch {
    let order = crate::emulator::wave_order();
    let (remainder, cooperative) = ([0; 3], false);
    KernelLaunch { function, blocks, remainder, threads, dynamic_lds, arguments, cooperative, order }
}

/// Who launches, on what and how.
struct Request {
    call: &'static str,
    stream: usize,
    cooperative: bool,
    /// Events that are recorded before and after.
    events: [usize; 2],
}

impl Request {
    fn new(call: &'static str, stream: usize) -> Request {
        Request { call, stream, cooperative: false, events: [0; 2] }
    }
}

fn lds(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Runtime {
    /// Launches on behalf of a caller.
    fn request(&self, request: Request, launch: KernelLaunch) -> Result<(), Failure> {
        let stream = self.stream(request.stream)?;
        let launch = KernelLaunch { cooperative: request.cooperative, ..launch };
        self.check_shape(&launch)?;
        self.record_if_any(request.events[0])?;
        self.submit(stream, Operation::Launch(launch), request.call)?;
        self.record_if_any(request.events[1])
    }

    /// Launches the kernel that a host function stands for.
    fn launch_host(
        &self,
        request: Request,
        function: usize,
        (blocks, threads): (Dim3, Dim3),
        shared: usize,
        pointers: In<usize>,
    ) -> Result<(), Failure> {
        let function = self.host_function(function)?;
        let segment = arguments(&function.info, pointers, In::none())?;
        self.request(request, whole(function, blocks.into(), threads.into(), lds(shared), segment))
    }

    /// Launches a kernel of a module.
    fn launch_module(
        &self,
        request: Request,
        function: usize,
        (blocks, threads): ([u32; 3], [u32; 3]),
        shared: u32,
        (pointers, extra): (In<usize>, In<usize>),
    ) -> Result<(), Failure> {
        let function = self.function(function)?;
        let segment = arguments(&function.info, pointers, extra)?;
        self.request(request, whole(function, blocks, threads, shared, segment))
    }

    /// Launches a kernel of a module over a number of work-items.
    fn launch_items(
        &self,
        request: Request,
        function: usize,
        (items, threads): ([u32; 3], [u32; 3]),
        shared: usize,
        (pointers, extra): (In<usize>, In<usize>),
    ) -> Result<(), Failure> {
        let function = self.function(function)?;
        let segment = arguments(&function.info, pointers, extra)?;
        let blocks = std::array::from_fn(|i| items[i].checked_div(threads[i]).unwrap_or(0));
        let remainder = std::array::from_fn(|i| items[i].checked_rem(threads[i]).unwrap_or(0));
        let launch = whole(function, blocks, threads, lds(shared), segment);
        self.request(request, KernelLaunch { remainder, ..launch })
    }
}

/// `hipLaunchParams`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LaunchParams {
    function: usize,
    blocks: Dim3,
    threads: Dim3,
    arguments: In<usize>,
    shared: usize,
    stream: usize,
}

/// `hipFunctionLaunchParams`.
#[repr(C)]
#[derive(Clone, Copy)]
struct FunctionLaunchParams {
    function: usize,
    blocks: [u32; 3],
    threads: [u32; 3],
    shared: u32,
    stream: usize,
    arguments: In<usize>,
}

/// `hipLaunchConfig_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LaunchConfig {
    blocks: Dim3,
    threads: Dim3,
    shared: usize,
    stream: usize,
    attributes: In<LaunchAttribute>,
    count: u32,
}

/// `HIP_LAUNCH_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DriverLaunchConfig {
    blocks: [u32; 3],
    threads: [u32; 3],
    shared: u32,
    stream: usize,
    attributes: In<LaunchAttribute>,
    count: u32,
}

/// `hipLaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LaunchAttribute {
    id: u32,
    _pad: u32,
    value: [u32; 16],
}

/// Whether the attributes ask for a cooperative launch.
fn cooperative(attributes: In<LaunchAttribute>, count: u32) -> Result<bool, Failure> {
    const COOPERATIVE: u32 = 2;
    /// What changes no result: where data is cached, priorities, how to wait and domains of synchronisation.
    const IGNORED: [u32; 5] = [1, 3, 8, 9, 10];
    let mut together = false;
    for attribute in attributes.array(count as usize)? {
        match attribute.id {
            COOPERATIVE => together = attribute.value[0] != 0,
            id if IGNORED.contains(&id) => {}
            _ => {
                let what = What::UnemulatedUse { what: "this attribute of a launch" };
                return Err(Failure::new(Status::NotSupported, what));
            }
        }
    }
    Ok(together)
}

calls! { entries, Fails, runtime;
    hipLaunchKernel = "hipLaunchKernel_spt" (
        function: usize, blocks: Dim3, threads: Dim3, arguments: In<usize>, shared: usize, stream: usize,
    ) {
        let request = Request::new("hipLaunchKernel", stream);
        runtime.launch_host(request, function, (blocks, threads), shared, arguments)
    }
    hipExtLaunchKernel(
        function: usize, blocks: Dim3, threads: Dim3, arguments: In<usize>, shared: usize, stream: usize,
        start: usize, stop: usize, _flags: i32,
    ) {
        let request = Request { events: [start, stop], ..Request::new("hipExtLaunchKernel", stream) };
        runtime.launch_host(request, function, (blocks, threads), shared, arguments)
    }
    hipLaunchCooperativeKernel = "hipLaunchCooperativeKernel_spt" (
        function: usize, blocks: Dim3, threads: Dim3, arguments: In<usize>, shared: u32, stream: usize,
    ) {
        let request = Request { cooperative: true, ..Request::new("hipLaunchCooperativeKernel", stream) };
        runtime.launch_host(request, function, (blocks, threads), shared as usize, arguments)
    }
    hipLaunchCooperativeKernelMultiDevice(list: In<LaunchParams>, devices: i32, _flags: u32) {
        if devices != 1 {
            return Err(Status::InvalidValue.into());
        }
        let LaunchParams { function, blocks, threads, arguments, shared, stream } = list.get()?;
        let call = "hipLaunchCooperativeKernelMultiDevice";
        let request = Request { cooperative: true, ..Request::new(call, stream) };
        runtime.launch_host(request, function, (blocks, threads), shared, arguments)
    }
    hipExtLaunchMultiKernelMultiDevice(list: In<LaunchParams>, devices: i32, _flags: u32) {
        if devices != 1 {
            return Err(Status::InvalidValue.into());
        }
        let LaunchParams { function, blocks, threads, arguments, shared, stream } = list.get()?;
        let request = Request::new("hipExtLaunchMultiKernelMultiDevice", stream);
        runtime.launch_host(request, function, (blocks, threads), shared, arguments)
    }
    hipLaunchKernelExC(config: In<LaunchConfig>, function: usize, arguments: In<usize>) {
        let LaunchConfig { blocks, threads, shared, stream, attributes, count } = config.get()?;
        let cooperative = cooperative(attributes, count)?;
        let request = Request { cooperative, ..Request::new("hipLaunchKernelExC", stream) };
        runtime.launch_host(request, function, (blocks, threads), shared, arguments)
    }
    hipDrvLaunchKernelEx(config: In<DriverLaunchConfig>, function: usize, arguments: In<usize>, extra: In<usize>) {
        let DriverLaunchConfig { blocks, threads, shared, stream, attributes, count } = config.get()?;
        let cooperative = cooperative(attributes, count)?;
        let request = Request { cooperative, ..Request::new("hipDrvLaunchKernelEx", stream) };
        runtime.launch_module(request, function, (blocks, threads), shared, (arguments, extra))
    }
    hipModuleLaunchKernel(
        function: usize, bx: u32, by: u32, bz: u32, tx: u32, ty: u32, tz: u32, shared: u32, stream: usize,
        arguments: In<usize>, extra: In<usize>,
    ) {
        let request = Request::new("hipModuleLaunchKernel", stream);
        let shape = ([bx, by, bz], [tx, ty, tz]);
        runtime.launch_module(request, function, shape, shared, (arguments, extra))
    }
    hipModuleLaunchCooperativeKernel(
        function: usize, bx: u32, by: u32, bz: u32, tx: u32, ty: u32, tz: u32, shared: u32, stream: usize,
        arguments: In<usize>,
    ) {
        let request = Request { cooperative: true, ..Request::new("hipModuleLaunchCooperativeKernel", stream) };
        let shape = ([bx, by, bz], [tx, ty, tz]);
        runtime.launch_module(request, function, shape, shared, (arguments, In::none()))
    }
    hipModuleLaunchCooperativeKernelMultiDevice(list: In<FunctionLaunchParams>, devices: u32, _flags: u32) {
        if devices != 1 {
            return Err(Status::InvalidValue.into());
        }
        let FunctionLaunchParams { function, blocks, threads, shared, stream, arguments } = list.get()?;
        let call = "hipModuleLaunchCooperativeKernelMultiDevice";
        let request = Request { cooperative: true, ..Request::new(call, stream) };
        runtime.launch_module(request, function, (blocks, threads), shared, (arguments, In::none()))
    }
    hipExtModuleLaunchKernel =
        "_Z24hipExtModuleLaunchKernelP18ihipModuleSymbol_tjjjjjjmP12ihipStream_tPPvS4_P11ihipEvent_tS6_j"
    (
        function: usize, gx: u32, gy: u32, gz: u32, tx: u32, ty: u32, tz: u32, shared: usize, stream: usize,
        arguments: In<usize>, extra: In<usize>, start: usize, stop: usize, _flags: u32,
    ) {
        let request = Request { events: [start, stop], ..Request::new("hipExtModuleLaunchKernel", stream) };
        let shape = ([gx, gy, gz], [tx, ty, tz]);
        runtime.launch_items(request, function, shape, shared, (arguments, extra))
    }
    hipHccModuleLaunchKernel =
        "_Z24hipHccModuleLaunchKernelP18ihipModuleSymbol_tjjjjjjmP12ihipStream_tPPvS4_P11ihipEvent_tS6_"
    (
        function: usize, gx: u32, gy: u32, gz: u32, tx: u32, ty: u32, tz: u32, shared: usize, stream: usize,
        arguments: In<usize>, extra: In<usize>, start: usize, stop: usize,
    ) {
        let request = Request { events: [start, stop], ..Request::new("hipHccModuleLaunchKernel", stream) };
        let shape = ([gx, gy, gz], [tx, ty, tz]);
        runtime.launch_items(request, function, shape, shared, (arguments, extra))
    }
    __hipPushCallConfiguration(blocks: Dim3, threads: Dim3, shared: usize, stream: usize) {
        CONFIGURED.with_borrow_mut(|stack| {
            stack.push(Configured { blocks, threads, shared, stream, arguments: Vec::new() });
        });
        Ok(())
    }
    __hipPopCallConfiguration(
        blocks: super::abi::Out<Dim3>, threads: super::abi::Out<Dim3>, shared: super::abi::Out<usize>,
        stream: super::abi::Out<usize>,
    ) {
        let top = CONFIGURED.with_borrow_mut(Vec::pop).ok_or(Status::MissingConfiguration)?;
        blocks.put(top.blocks)?;
        threads.put(top.threads)?;
        shared.put(top.shared)?;
        stream.put(top.stream)
    }
    hipConfigureCall(blocks: Dim3, threads: Dim3, shared: usize, stream: usize) {
        CONFIGURED.with_borrow_mut(|stack| {
            stack.push(Configured { blocks, threads, shared, stream, arguments: Vec::new() });
        });
        Ok(())
    }
    hipSetupArgument(value: In<u8>, bytes: usize, offset: usize) {
        /// No kernel has more arguments.
        const MOST: usize = 1 << 16;
        let value = value.array(bytes.min(MOST))?;
        let end = offset.checked_add(bytes).filter(|end| *end <= MOST).ok_or(Status::InvalidValue)?;
        CONFIGURED.with_borrow_mut(|stack| {
            let top = stack.last_mut().ok_or(Status::MissingConfiguration)?;
            if top.arguments.len() < end {
                top.arguments.resize(end, 0);
            }
            top.arguments[offset..end].copy_from_slice(&value);
            Ok(())
        })
    }
    hipLaunchByPtr(function: usize) {
        let top = CONFIGURED.with_borrow_mut(Vec::pop).ok_or(Status::MissingConfiguration)?;
        let function = runtime.host_function(function)?;
        let (takes, passed) = (function.info.explicit_bytes(), top.arguments.len());
        if passed < takes {
            let kernel = function.info.name.clone();
            return Err(Failure::new(Status::InvalidValue, What::ArgumentBytes { kernel, takes, passed }));
        }
        let mut segment = top.arguments;
        segment.truncate(takes);
        let launch = whole(function, top.blocks.into(), top.threads.into(), lds(top.shared), segment);
        runtime.request(Request::new("hipLaunchByPtr", top.stream), launch)
    }
}

/// A launch that `<<<>>>` has begun.
struct Configured {
    blocks: Dim3,
    threads: Dim3,
    shared: usize,
    stream: usize,
    arguments: Vec<u8>,
}

thread_local! {
    static CONFIGURED: RefCell<Vec<Configured>> = const { RefCell::new(Vec::new()) };
}

/// Conversions that old compilers call; they launch nothing, but come from the same library.
extern "C" fn float_to_half(value: f32) -> u16 {
    half::f16::from_f32(value).to_bits()
}

extern "C" fn half_to_float(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

/// Calls that do not return a status.
pub(super) fn other_entries() -> Vec<Entry> {
    vec![
        Entry { name: "__gnu_f2h_ieee", addresses: [float_to_half as *const () as usize; 3] },
        Entry { name: "__gnu_h2f_ieee", addresses: [half_to_float as *const () as usize; 3] },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// As a C compiler has them with HIP 5.2's headers; the configurations as in ROCm 7's.
    #[test]
    fn structures_of_launches_lie_as_the_headers_have_them() {
        assert_eq!(size_of::<LaunchParams>(), 56);
        assert_eq!(offset_of!(LaunchParams, blocks), 8);
        assert_eq!(offset_of!(LaunchParams, arguments), 32);
        assert_eq!(offset_of!(LaunchParams, stream), 48);
        assert_eq!((size_of::<LaunchConfig>(), size_of::<DriverLaunchConfig>()), (56, 56));
        assert_eq!(offset_of!(LaunchConfig, shared), 24);
        assert_eq!(offset_of!(LaunchConfig, attributes), 40);
        assert_eq!(offset_of!(DriverLaunchConfig, shared), 24);
        assert_eq!(offset_of!(DriverLaunchConfig, stream), 32);
        assert_eq!(offset_of!(DriverLaunchConfig, count), 48);
        assert_eq!((size_of::<LaunchAttribute>(), offset_of!(LaunchAttribute, value)), (72, 8));
    }
}
