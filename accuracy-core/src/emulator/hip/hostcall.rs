//! The buffer through which waves call the host, and the host's side of it.
//!
//! A wave takes a packet, writes a service number and, for each active lane, 8 numbers, marks the packet as ready and
//! waits until the host has answered. Device libraries have had two layouts of the buffer: packets on two stacks (up
//! to ROCm 7.2 and in LLVM's packages), and a phase bit for each packet on either side (since 2026). A code object of
//! the second kind has a variable that the first has not, [`PHASES_MARK`].
//!
//! Source: ROCm's device libraries, `hostcall_impl.cl`; HSA's `amd_signal_t`.

use super::engine::{Engine, MemoryKind};
use super::output::{Output, OutputError, formatted_message};
use std::collections::HashMap;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, PoisonError};

/// The variable that only code objects with the second layout have.
pub(super) const PHASES_MARK: &str = "last_signal_time";

/// Packets of each layout: a power of two, and more than the waves that are resident at once.
const PACKETS: usize = 1 << 14;

const LANES: usize = 64;
/// Bytes of a packet's numbers: 8 of 8 bytes for each lane.
const PAYLOAD: usize = LANES * 64;
const STACK_HEADER: usize = 24;
const PHASE_HEADER: usize = 16;
/// Bytes for the buffer's own structure of either layout, the signal and its mailbox.
const CONTROL: usize = 4096;

/// Where the parts lie in the one mapping.
const STACKS: usize = 0;
const PHASES: usize = 256;
const SIGNAL: usize = 512;
const MAILBOX: usize = 640;
const STACK_HEADERS: usize = CONTROL;
const PHASE_HEADERS: usize = STACK_HEADERS + PACKETS * STACK_HEADER;
const DEVICE_PHASES: usize = PHASE_HEADERS + PACKETS * PHASE_HEADER;
const HOST_PHASES: usize = DEVICE_PHASES + PACKETS * 4;
const OCCUPIED: usize = HOST_PHASES + PACKETS * 4;
const STACK_PAYLOADS: usize = OCCUPIED + PACKETS / 8;
const PHASE_PAYLOADS: usize = STACK_PAYLOADS + PACKETS * PAYLOAD;
const BYTES: usize = PHASE_PAYLOADS + PACKETS * PAYLOAD;

/// Fields of the structure with stacks, in bytes from its start.
const FREE_STACK: usize = STACKS + 24;
const READY_STACK: usize = STACKS + 32;

const SERVICE_PRINTF: u32 = 2;
const SERVICE_DEVICE_MEMORY: u32 = 3;

/// The buffer, which lasts as long as the process: only pages that are used take memory.
pub(super) struct Hostcall {
    base: usize,
    messages: Mutex<Messages>,
}

/// Messages that waves have begun and not ended.
#[derive(Default)]
struct Messages {
    begun: HashMap<u64, Vec<u64>>,
    last: u64,
    /// What went to the standard error stream, where `assert` writes.
    errors: String,
}

impl Hostcall {
    /// Maps and fills in a buffer, for kernels of this engine. `None` where there is no memory.
    pub fn new(engine: &dyn Engine) -> Option<Hostcall> {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        let hostcall = Hostcall { base: base.expose_provenance(), messages: Mutex::default() };
        hostcall.fill_in();
        engine.map_host(hostcall.base, BYTES);
        Some(hostcall)
    }

    /// The buffer's address, in either layout.
    pub fn address(&self, stacks: bool) -> usize {
        self.base + if stacks { STACKS } else { PHASES }
    }

    fn u64(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(8) && at + 8 <= BYTES);
        // SAFETY: every caller's place lies inside of the mapping, which lasts, and is aligned; kernels access it by
        // atomic operations or while they own the packet.
        unsafe { AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(self.base + at)) }
    }

    fn u32(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at.is_multiple_of(4) && at + 4 <= BYTES);
        // SAFETY: as for `u64`.
        unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(self.base + at)) }
    }

    fn fill_in(&self) {
        let put = |at: usize, value: u64| self.u64(at).store(value, Relaxed);
        let address = |at: usize| (self.base + at) as u64;
        // Headers, payloads, signal, free packets, ready packets, mask of indices.
        put(STACKS, address(STACK_HEADERS));
        put(STACKS + 8, address(STACK_PAYLOADS));
        put(STACKS + 16, address(SIGNAL));
        put(STACKS + 40, PACKETS as u64 - 1);
        // A link is an index and, above it, a tag; both are never 0 at once. The packet with index 0 ends the list.
        let mut next = PACKETS as u64;
        for packet in 1..PACKETS {
            put(STACK_HEADERS + packet * STACK_HEADER, next);
            next = packet as u64;
        }
        put(FREE_STACK, next);
        // Phases of the device and the host, occupied packets, headers, payloads, signal, number of packets.
        for (i, part) in [DEVICE_PHASES, HOST_PHASES, OCCUPIED, PHASE_HEADERS, PHASE_PAYLOADS, SIGNAL]
            .into_iter()
            .enumerate()
        {
            put(PHASES + 8 * i, address(part));
        }
        put(PHASES + 48, PACKETS as u64);
        // amd_signal_t: kind (user), value, mailbox, event. With a mailbox the wave sends an interrupt.
        put(SIGNAL, 1);
        put(SIGNAL + 16, address(MAILBOX));
        put(SIGNAL + 24, 1);
    }

    /// Answers every packet that is ready. Returns whether there was one.
    pub fn serve(&self, engine: &dyn Engine, output: &Output) -> Result<bool, OutputError> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let stacks = self.serve_stacks(engine, output, &mut messages)?;
        let phases = self.serve_phases(engine, output, &mut messages)?;
        Ok(stacks || phases)
    }

    /// What kernels have written to the standard error stream since the last call.
    pub fn take_errors(&self) -> String {
        std::mem::take(&mut self.messages.lock().unwrap_or_else(PoisonError::into_inner).errors)
    }

    fn serve_stacks(
        &self,
        engine: &dyn Engine,
        output: &Output,
        messages: &mut Messages,
    ) -> Result<bool, OutputError> {
        let mut link = self.u64(READY_STACK).swap(0, Acquire);
        let any = link != 0;
        // A wave waits for its packet, so that a list has each packet once at most.
        for _ in 0..PACKETS {
            if link == 0 {
                break;
            }
            let packet = (link & (PACKETS as u64 - 1)) as usize;
            let header = STACK_HEADERS + packet * STACK_HEADER;
            link = self.u64(header).load(Relaxed);
            let (lanes, service) = (self.u64(header + 8).load(Relaxed), self.u32(header + 16).load(Relaxed));
            let answered =
                self.answer(STACK_PAYLOADS + packet * PAYLOAD, lanes, service, engine, output, messages);
            // Bit 0 of the control word: the packet waits for the host. It is taken back also after an error, so that
            // the wave ends.
            self.u32(header + 20).fetch_and(!1, Release);
            answered?;
        }
        Ok(any)
    }

    fn serve_phases(
        &self,
        engine: &dyn Engine,
        output: &Output,
        messages: &mut Messages,
    ) -> Result<bool, OutputError> {
        let mut any = false;
        for group in 0..PACKETS / 32 {
            let occupied = self.u32(OCCUPIED + group * 4).load(Acquire);
            for bit in (0..32).filter(|bit| occupied >> bit & 1 != 0) {
                let packet = group * 32 + bit;
                let device = self.u32(DEVICE_PHASES + packet * 4).load(Acquire);
                let host = self.u32(HOST_PHASES + packet * 4);
                if device == host.load(Relaxed) {
                    continue;
                }
                any = true;
                let header = PHASE_HEADERS + packet * PHASE_HEADER;
                let (lanes, service) = (self.u64(header).load(Relaxed), self.u32(header + 8).load(Relaxed));
                let answered =
                    self.answer(PHASE_PAYLOADS + packet * PAYLOAD, lanes, service, engine, output, messages);
                host.store(device, Release);
                answered?;
            }
        }
        Ok(any)
    }

    /// Answers the lanes of one packet.
    fn answer(
        &self,
        payload: usize,
        lanes: u64,
        service: u32,
        engine: &dyn Engine,
        output: &Output,
        messages: &mut Messages,
    ) -> Result<(), OutputError> {
        for lane in (0..LANES).filter(|lane| lanes >> lane & 1 != 0) {
            let slot = payload + lane * 64;
            let numbers: [u64; 8] = std::array::from_fn(|i| self.u64(slot + 8 * i).load(Relaxed));
            let answer = match service {
                SERVICE_PRINTF => messages.take(numbers, output)?,
                SERVICE_DEVICE_MEMORY => device_memory(numbers, engine),
                service => return Err(OutputError::Service { service }),
            };
            self.u64(slot).store(answer, Relaxed);
        }
        std::sync::atomic::fence(AcqRel);
        Ok(())
    }
}

/// Allocates as many bytes as the second number says, or frees the address that the first one is.
fn device_memory(numbers: [u64; 8], engine: &dyn Engine) -> u64 {
    match (usize::try_from(numbers[0]), usize::try_from(numbers[1])) {
        (Ok(0), Ok(bytes)) if bytes > 0 => {
            engine.allocate(bytes, MemoryKind::Device).map_or(0, |address| address as u64)
        }
        (Ok(address), _) if address > 0 => {
            engine.free(address);
            numbers[0]
        }
        _ => 0,
    }
}

impl Messages {
    /// Takes a part of a message. The first number describes it: bit 0 begins the message, bit 1 ends it, bits 5 to 7
    /// are how many numbers follow, the bits above are the message's number. Returns what the wave gets back: the
    /// description with the number filled in, or how many bytes were printed.
    fn take(&mut self, numbers: [u64; 8], output: &Output) -> Result<u64, OutputError> {
        const BEGIN: u64 = 1;
        const END: u64 = 2;
        /// The message goes to the standard error stream.
        const TO_ERRORS: u64 = 1;
        let mut description = numbers[0];
        if description & BEGIN != 0 {
            self.last += 1;
            self.begun.insert(self.last, Vec::new());
            description = description & !BEGIN & 0xff | self.last << 8;
        }
        let number = description >> 8;
        let count = (description >> 5 & 7) as usize;
        let message = self.begun.get_mut(&number).ok_or(OutputError::Message { number })?;
        message.extend(&numbers[1..1 + count]);
        if description & END == 0 {
            return Ok(description);
        }
        let message = self.begun.remove(&number).unwrap_or_default();
        // The first number says where the text goes; the format and its arguments follow.
        let Some((control, text)) = message.split_first() else { return Ok(0) };
        let bytes: Vec<u8> = text.iter().flat_map(|number| number.to_le_bytes()).collect();
        let text = formatted_message(&bytes);
        output.print(&text);
        if control & TO_ERRORS != 0 {
            self.errors.push_str(&text);
        }
        Ok(text.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Notes;
    use super::*;

    /// What a wave writes for `printf("n = %d\n", lane)` of lanes 0 and 3, in one part.
    fn part(lane: u64) -> [u64; 8] {
        let text = |at: usize| {
            let mut bytes = [0; 16];
            bytes[..7].copy_from_slice(b"n = %d\n");
            u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
        };
        // Begins and ends; three numbers: control, format, argument.
        [1 | 2 | 3 << 5, 0, text(0), lane, 0, 0, 0, 0]
    }

    #[test]
    fn a_packet_on_the_stack_is_answered_and_given_back() {
        let engine = Notes::default();
        let (hostcall, output) = (Hostcall::new(&engine).unwrap(), Output::default());
        // A wave takes the first free packet and puts it on the ready stack.
        let link = hostcall.u64(FREE_STACK).load(Relaxed);
        let packet = link as usize & (PACKETS - 1);
        let header = STACK_HEADERS + packet * STACK_HEADER;
        hostcall.u64(FREE_STACK).store(hostcall.u64(header).load(Relaxed), Relaxed);
        for lane in [0, 3] {
            for (i, number) in part(lane).into_iter().enumerate() {
                let at = STACK_PAYLOADS + packet * PAYLOAD + lane as usize * 64 + 8 * i;
                hostcall.u64(at).store(number, Relaxed);
            }
        }
        hostcall.u64(header).store(0, Relaxed);
        hostcall.u64(header + 8).store(0b1001, Relaxed);
        hostcall.u32(header + 16).store(SERVICE_PRINTF, Relaxed);
        hostcall.u32(header + 20).store(1, Relaxed);
        hostcall.u64(READY_STACK).store(link, Relaxed);

        assert_eq!(hostcall.serve(&engine, &output), Ok(true));
        assert_eq!(output.take(), "n = 0\nn = 3\n");
        assert_eq!(hostcall.u32(header + 20).load(Relaxed), 0);
        assert_eq!(hostcall.u64(STACK_PAYLOADS + packet * PAYLOAD).load(Relaxed), 6);
        assert_eq!(hostcall.serve(&engine, &output), Ok(false));
    }

    #[test]
    fn a_packet_with_phases_is_answered_and_an_unknown_service_is_named() {
        let engine = Notes::default();
        let (hostcall, output) = (Hostcall::new(&engine).unwrap(), Output::default());
        let send = |packet: usize, service: u32| {
            hostcall.u32(OCCUPIED + packet / 32 * 4).fetch_or(1 << (packet % 32), Relaxed);
            for (i, number) in part(1).into_iter().enumerate() {
                hostcall.u64(PHASE_PAYLOADS + packet * PAYLOAD + 64 + 8 * i).store(number, Relaxed);
            }
            hostcall.u64(PHASE_HEADERS + packet * PHASE_HEADER).store(0b10, Relaxed);
            hostcall.u32(PHASE_HEADERS + packet * PHASE_HEADER + 8).store(service, Relaxed);
            hostcall.u32(DEVICE_PHASES + packet * 4).fetch_xor(1, Relaxed);
        };
        send(77, SERVICE_PRINTF);
        assert_eq!(hostcall.serve(&engine, &output), Ok(true));
        assert_eq!(output.take(), "n = 1\n");
        assert_eq!(hostcall.u32(HOST_PHASES + 77 * 4).load(Relaxed), 1);
        send(0, 9);
        assert_eq!(hostcall.serve(&engine, &output), Err(OutputError::Service { service: 9 }));
        // The wave goes on all the same.
        assert_eq!(hostcall.u32(HOST_PHASES).load(Relaxed), 1);
    }

    #[test]
    fn a_message_in_parts_is_put_together_and_one_to_the_error_stream_is_kept() {
        let output = Output::default();
        let mut messages = Messages::default();
        let begun = messages.take([1 | 1 << 5, 1, 0, 0, 0, 0, 0, 0], &output).unwrap();
        let format = u64::from_le_bytes(*b"%s:%u\n\0\0");
        let part = messages.take([begun & !0xe0 | 1 << 5, format, 0, 0, 0, 0, 0, 0], &output).unwrap();
        let file = u64::from_le_bytes(*b"a.hip\0\0\0");
        let end = messages.take([part & !0xe0 | 2 | 2 << 5, file, 12, 0, 0, 0, 0, 0], &output).unwrap();
        assert_eq!((end, output.take().as_str(), messages.errors.as_str()), (9, "a.hip:12\n", "a.hip:12\n"));
        let unknown = messages.take([2 | 99 << 8, 0, 0, 0, 0, 0, 0, 0], &output);
        assert_eq!(unknown, Err(OutputError::Message { number: 99 }));
    }
}
