//! Streams and events. Work runs inside the call that asks for it, so streams are always idle and events always done.

#![expect(non_snake_case, reason = "the names are those of HIP's headers")]

use super::abi::{Out, calls};
use super::operation::{Fill, HostCall, Operation, Pattern, Place, Size};
use super::problem::{Failure, HandleKind, What};
use super::runtime::{Event, Runtime, Stream};
use super::status::Status;
use std::ffi::{c_int, c_void};
use std::time::Instant;

/// The default stream: the null handle.
const DEFAULT: usize = 0;
/// `hipStreamLegacy`: the default stream too.
const LEGACY: usize = 1;
/// `hipStreamPerThread`.
const PER_THREAD: usize = 2;

/// `hipStreamNonBlocking`.
const NON_BLOCKING: u32 = 1;
/// `hipEventDisableTiming`.
const DISABLE_TIMING: u32 = 2;

/// Lowest and highest priority of a stream.
const PRIORITIES: (i32, i32) = (1, -1);

impl Runtime {
    /// The stream that a handle stands for.
    pub fn stream(&self, handle: usize) -> Result<usize, Failure> {
        match handle {
            DEFAULT | LEGACY => Ok(DEFAULT),
            PER_THREAD => Ok(PER_THREAD),
            _ if self.state().streams.contains_key(&handle) => Ok(handle),
            _ => Err(Failure::handle(HandleKind::Stream, handle)),
        }
    }

    fn stream_properties(&self, handle: usize) -> Result<Stream, Failure> {
        let handle = self.stream(handle)?;
        let default = Stream { flags: 0, priority: 0, id: handle as u64 };
        Ok(self.state().streams.get(&handle).copied().unwrap_or(default))
    }

    fn new_stream(&self, stream: Out<usize>, flags: u32, priority: i32) -> Result<(), Failure> {
        if flags & !NON_BLOCKING != 0 {
            return Err(Status::InvalidValue.into());
        }
        let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
        let mut state = self.state();
        let handle = state.handle();
        state.streams.insert(handle, Stream { flags, priority, id: handle as u64 });
        stream.put(handle)
    }

    fn new_event(&self, event: Out<usize>, flags: u32) -> Result<(), Failure> {
        let mut state = self.state();
        let handle = state.handle();
        state.events.insert(handle, Event { flags, recorded: None, capture: None });
        event.put(handle)
    }

    fn event(&self, handle: usize) -> Result<Event, Failure> {
        self.state().events.get(&handle).copied().ok_or_else(|| Failure::handle(HandleKind::Event, handle))
    }

    /// Notes when an event was recorded.
    pub fn record(&self, handle: usize) -> Result<(), Failure> {
        let mut state = self.state();
        let event =
            state.events.get_mut(&handle).ok_or_else(|| Failure::handle(HandleKind::Event, handle))?;
        event.recorded = Some(Instant::now());
        event.capture = None;
        Ok(())
    }

    /// Checks that a value in memory is what the stream shall wait for: nothing that runs later could write it.
    fn await_value(
        &self,
        stream: usize,
        (address, bytes): (usize, usize),
        value: u64,
        flags: u32,
        mask: u64,
    ) -> Result<(), Failure> {
        let refused = |what| Failure::new(Status::NotSupported, What::UnemulatedUse { what });
        if self.state().capture_of(stream).is_some() {
            return Err(refused("a captured wait for a value"));
        }
        let (allocation, _) = self.memory(address).ok_or(Status::InvalidValue)?;
        if !address.is_multiple_of(bytes) || allocation.start + allocation.bytes - address < bytes {
            return Err(Status::InvalidValue.into());
        }
        let place = std::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the allocation has as many bytes there, and the address is aligned.
        let found = unsafe {
            match bytes {
                4 => u64::from(place.cast::<u32>().read_volatile()),
                _ => place.cast::<u64>().read_volatile(),
            }
        } & mask;
        let difference = if bytes == 4 {
            i64::from((found as u32).wrapping_sub(value as u32) as i32)
        } else {
            found.wrapping_sub(value) as i64
        };
        let holds = match flags {
            0 => difference >= 0,
            1 => found == value & mask,
            2 => found & value != 0,
            3 => !(found | value) & mask != 0,
            _ => return Err(Status::InvalidValue.into()),
        };
        if holds { Ok(()) } else { Err(refused("waiting for a value that is written later")) }
    }

    /// Records an event that the caller may leave out.
    pub fn record_if_any(&self, handle: usize) -> Result<(), Failure> {
        if handle == 0 { Ok(()) } else { self.record(handle) }
    }
}

/// Writes a number of 4 or 8 bytes.
fn write(address: usize, bytes: usize, value: u64) -> Operation {
    let pattern = Pattern { bytes: value.to_le_bytes(), length: bytes };
    Operation::Fill(Fill { to: Place::line(address), pattern, size: Size::line(bytes) })
}

/// `hipStreamCallback_t`.
type Callback = extern "C" fn(usize, c_int, *mut c_void);

calls! { entries, Fails, runtime;
    hipStreamCreate(stream: Out<usize>) {
        runtime.new_stream(stream, 0, 0)
    }
    hipStreamCreateWithFlags(stream: Out<usize>, flags: u32) {
        runtime.new_stream(stream, flags, 0)
    }
    hipStreamCreateWithPriority(stream: Out<usize>, flags: u32, priority: i32) {
        runtime.new_stream(stream, flags, priority)
    }
    hipExtStreamCreateWithCUMask(stream: Out<usize>, words: u32, mask: super::abi::In<u32>) {
        // Which compute units a kernel runs on changes no result.
        mask.array(words as usize)?;
        runtime.new_stream(stream, 0, 0)
    }
    hipDeviceGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        least.offer(PRIORITIES.0);
        greatest.offer(PRIORITIES.1);
        Ok(())
    }
    hipStreamDestroy(stream: usize) {
        if matches!(stream, DEFAULT | LEGACY | PER_THREAD) {
            return Err(Status::InvalidHandle.into());
        }
        let mut state = runtime.state();
        state.captures.remove(&stream);
        state.streams.remove(&stream).map(drop).ok_or_else(|| Failure::handle(HandleKind::Stream, stream))
    }
    hipStreamSynchronize = "hipStreamSynchronize_spt" (stream: usize) {
        let stream = runtime.stream(stream)?;
        if runtime.state().capture_of(stream).is_some() {
            return Err(Status::StreamCaptureUnsupported.into());
        }
        Ok(())
    }
    hipStreamQuery = "hipStreamQuery_spt" (stream: usize) {
        let stream = runtime.stream(stream)?;
        if runtime.state().capture_of(stream).is_some() {
            return Err(Status::StreamCaptureUnsupported.into());
        }
        Ok(())
    }
    hipStreamGetFlags = "hipStreamGetFlags_spt" (stream: usize, flags: Out<u32>) {
        flags.put(runtime.stream_properties(stream)?.flags)
    }
    hipStreamGetPriority = "hipStreamGetPriority_spt" (stream: usize, priority: Out<i32>) {
        priority.put(runtime.stream_properties(stream)?.priority)
    }
    hipStreamGetId(stream: usize, id: Out<u64>) {
        id.put(runtime.stream_properties(stream)?.id)
    }
    hipStreamGetDevice(stream: usize, device: Out<i32>) {
        runtime.stream(stream)?;
        device.put(0)
    }
    hipStreamWaitEvent = "hipStreamWaitEvent_spt" (stream: usize, event: usize, _flags: u32) {
        let stream = runtime.stream(stream)?;
        runtime.event(event)?;
        runtime.submit(stream, Operation::Wait { event }, "hipStreamWaitEvent")
    }
    hipStreamAttachMemAsync(stream: usize, _address: usize, _bytes: usize, _flags: u32) {
        runtime.stream(stream).map(drop)
    }
    hipLaunchHostFunc = "hipLaunchHostFunc_spt" (
        stream: usize, function: Option<extern "C" fn(*mut c_void)>, data: usize,
    ) {
        let stream = runtime.stream(stream)?;
        let function = function.ok_or(Status::InvalidValue)?;
        runtime.submit(stream, Operation::Host(HostCall { function, data }), "hipLaunchHostFunc")
    }
    hipStreamAddCallback = "hipStreamAddCallback_spt" (
        stream: usize, callback: Option<Callback>, data: *mut c_void, _flags: u32,
    ) {
        let handle = stream;
        let stream = runtime.stream(stream)?;
        if runtime.state().capture_of(stream).is_some() {
            return Err(Status::StreamCaptureUnsupported.into());
        }
        callback.ok_or(Status::InvalidValue)?(handle, Status::Success.code(), data);
        Ok(())
    }
    hipStreamWriteValue32(stream: usize, address: usize, value: u32, _flags: u32) {
        let stream = runtime.stream(stream)?;
        runtime.submit(stream, write(address, 4, value.into()), "hipStreamWriteValue32")
    }
    hipStreamWriteValue64(stream: usize, address: usize, value: u64, _flags: u32) {
        let stream = runtime.stream(stream)?;
        runtime.submit(stream, write(address, 8, value), "hipStreamWriteValue64")
    }
    hipStreamWaitValue32(stream: usize, address: usize, value: u32, flags: u32, mask: u32) {
        let stream = runtime.stream(stream)?;
        runtime.await_value(stream, (address, 4), value.into(), flags, mask.into())
    }
    hipStreamWaitValue64(stream: usize, address: usize, value: u64, flags: u32, mask: u64) {
        let stream = runtime.stream(stream)?;
        runtime.await_value(stream, (address, 8), value, flags, mask)
    }
    hipStreamCopyAttributes(to: usize, from: usize) {
        runtime.stream(to)?;
        runtime.stream(from).map(drop)
    }
    hipEventCreate(event: Out<usize>) {
        runtime.new_event(event, 0)
    }
    hipEventCreateWithFlags(event: Out<usize>, flags: u32) {
        runtime.new_event(event, flags)
    }
    hipEventDestroy(event: usize) {
        let removed = runtime.state().events.remove(&event);
        removed.map(drop).ok_or_else(|| Failure::handle(HandleKind::Event, event))
    }
    hipEventRecord = "hipEventRecord_spt" (event: usize, stream: usize) {
        let stream = runtime.stream(stream)?;
        runtime.event(event)?;
        runtime.submit(stream, Operation::Record { event }, "hipEventRecord")
    }
    hipEventRecordWithFlags(event: usize, stream: usize, _flags: u32) {
        let stream = runtime.stream(stream)?;
        runtime.event(event)?;
        runtime.submit(stream, Operation::Record { event }, "hipEventRecordWithFlags")
    }
    hipEventSynchronize(event: usize) {
        match runtime.event(event)?.capture {
            Some(_) => Err(Status::CapturedEvent.into()),
            None => Ok(()),
        }
    }
    hipEventQuery(event: usize) {
        match runtime.event(event)?.capture {
            Some(_) => Err(Status::CapturedEvent.into()),
            None => Ok(()),
        }
    }
    hipEventElapsedTime(milliseconds: Out<f32>, start: usize, stop: usize) {
        let (start, stop) = (runtime.event(start)?, runtime.event(stop)?);
        let (Some(from), Some(to)) = (start.recorded, stop.recorded) else {
            return Err(Status::InvalidHandle.into());
        };
        if (start.flags | stop.flags) & DISABLE_TIMING != 0 {
            return Err(Status::InvalidHandle.into());
        }
        let seconds = match to.checked_duration_since(from) {
            Some(elapsed) => elapsed.as_secs_f32(),
            None => -from.duration_since(to).as_secs_f32(),
        };
        milliseconds.put(seconds * 1000.0)
    }
}

/// `hipGetStreamDeviceId`: the device of a stream, or -1.
extern "C" fn stream_device(stream: usize) -> c_int {
    super::abi::guarded("hipGetStreamDeviceId", -1, |runtime| runtime.stream(stream).map_or(-1, |_| 0))
}

/// Calls that do not return a status.
pub(super) fn other_entries() -> Vec<super::abi::Entry> {
    vec![super::abi::Entry {
        name: "hipGetStreamDeviceId",
        addresses: [stream_device as *const () as usize; 3],
    }]
}
