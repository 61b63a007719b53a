//! What kernels print: `printf` and the message of `assert`, in both forms that compilers make.
//!
//! *Buffered*: the kernel writes records into the buffer of `hidden_printf_buffer`, which are read when it has ended.
//! *Host calls*: a wave writes a packet into the buffer of `hidden_hostcall_buffer` and waits for the answer; the
//! engine calls [`Service::serve`] meanwhile.
//!
//! Source: ROCm's device libraries (`ockl`, `hostcall_impl.cl`) and LLVM's `AMDGPUEmitPrintf`, for the layouts.

use super::engine::{KernelInfo, MemoryKind, ModuleId, Service};
use super::hostcall::Hostcall;
use super::problem::{Failure, What};
use super::runtime::Runtime;
use super::status::Status;
use std::ffi::{c_char, c_int};
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes of the buffer into which the kernels of a launch print, its header included.
pub(super) const PRINTF_BYTES: usize = 4 << 20;

/// Bytes of text that are kept; a kernel that prints more is cut off.
const MOST_TEXT: usize = 16 << 20;

/// The widest field and the most digits that a conversion may ask for: `%1000000000d` is a mistake.
const MOST_WIDTH: u64 = 1 << 16;

/// Why what a kernel printed cannot be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OutputError {
    #[error("there is no memory for the buffer that kernels print into")]
    Memory,
    #[error("a record of the printf buffer has {bytes} bytes, and {left} are left")]
    Record { bytes: usize, left: usize },
    #[error("the code object has no format string with the hash {hash:#x}")]
    Format { hash: u64 },
    #[error("a message of a host call was never begun (number {number})")]
    Message { number: u64 },
    #[error(
        "the kernel asks for host service {service}, which is not emulated: printf (2) and device memory (3) are"
    )]
    Service { service: u32 },
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        let status = match error {
            OutputError::Memory => Status::OutOfMemory,
            _ => Status::LaunchFailure,
        };
        Failure::new(status, What::Output(error))
    }
}

/// Text that kernels have printed.
#[derive(Default)]
pub(super) struct Output {
    text: Mutex<String>,
    /// Made when the first kernel with host calls is launched; `None` where there was no memory for it.
    hostcall: OnceLock<Option<Arc<Hostcall>>>,
}

impl Output {
    pub fn take(&self) -> String {
        std::mem::take(&mut self.text.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub fn print(&self, text: &str) {
        const CUT: &str = "\n[the rest of what the kernels printed is left out]\n";
        let mut all = self.text.lock().unwrap_or_else(|e| e.into_inner());
        if all.len() + text.len() <= MOST_TEXT {
            all.push_str(text);
        } else if !all.ends_with(CUT) {
            all.push_str(CUT);
        }
    }

    /// The buffer of a launch, if the kernel prints into one.
    pub fn printf_buffer(&self, runtime: &Runtime, info: &KernelInfo) -> Result<Printf, Failure> {
        if !info.has_hidden("hidden_printf_buffer") {
            return Ok(Printf { address: 0 });
        }
        let address = runtime.engine.allocate(PRINTF_BYTES, MemoryKind::Host).ok_or(OutputError::Memory)?;
        let header = [0_u32, (PRINTF_BYTES - HEADER) as u32];
        // SAFETY: the engine has just allocated more bytes than that.
        unsafe {
            std::ptr::with_exposed_provenance_mut::<[u32; 2]>(address).write_unaligned(header);
        }
        Ok(Printf { address })
    }

    /// The buffer of host calls, if the kernel makes any.
    fn hostcall(&self, runtime: &Runtime, info: &KernelInfo) -> Result<Option<Arc<Hostcall>>, Failure> {
        if !info.has_hidden("hidden_hostcall_buffer") {
            return Ok(None);
        }
        let made = self.hostcall.get_or_init(|| Hostcall::new(&*runtime.engine).map(Arc::new));
        made.clone().map(Some).ok_or_else(|| OutputError::Memory.into())
    }
}

/// The printf buffer begins with how many bytes are used and how many there are.
const HEADER: usize = 8;

/// The printf buffer of one launch; address 0 where the kernel needs none.
pub(super) struct Printf {
    address: usize,
}

impl Printf {
    pub fn address(&self) -> usize {
        self.address
    }

    /// Prints what the kernel has left in the buffer, and frees it.
    pub fn finish(self, runtime: &Runtime, module: ModuleId) -> Result<(), Failure> {
        if self.address == 0 {
            return Ok(());
        }
        // SAFETY: the buffer was allocated by `printf_buffer` with this many bytes, and the kernel has ended.
        let buffer = unsafe {
            std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(self.address), PRINTF_BYTES)
        };
        let used = (word(buffer, 0) as usize).min(PRINTF_BYTES - HEADER);
        let read = || -> Result<(), OutputError> {
            if used == 0 {
                return Ok(());
            }
            let entries = runtime.engine.printf_formats(module);
            records(&buffer[HEADER..HEADER + used], &formats(&entries), |text| runtime.output.print(text))
        };
        let result = read();
        runtime.engine.free(self.address);
        Ok(result?)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn doubleword(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

/// The format strings by their hashes. The metadata has them as `0:0:HASH,FORMAT`.
fn formats(entries: &[String]) -> Vec<(u64, &str)> {
    let parse = |entry: &'_ str| -> Option<(u64, usize)> {
        let hash = entry.splitn(3, ':').nth(2)?.split_once(',')?.0;
        let begins = entry.len() - entry.splitn(3, ':').nth(2)?.len() + hash.len() + 1;
        Some((u64::from_str_radix(hash, 16).ok()?, begins))
    };
    entries.iter().filter_map(|entry| parse(entry).map(|(hash, begins)| (hash, &entry[begins..]))).collect()
}

/// Reads the records of a printf buffer.
fn records(
    mut bytes: &[u8],
    formats: &[(u64, &str)],
    mut print: impl FnMut(&str),
) -> Result<(), OutputError> {
    /// The first word of a record: the format is constant and given by its hash; above, the record's bytes.
    const CONSTANT: u32 = 2;
    while bytes.len() >= 4 {
        let control = word(bytes, 0);
        let length = (control >> 2) as usize;
        if length < 4 || length > bytes.len() {
            return Err(OutputError::Record { bytes: length, left: bytes.len() });
        }
        let (record, rest) = bytes.split_at(length);
        let body = &record[4..];
        if control & CONSTANT != 0 {
            if body.len() < 8 {
                return Err(OutputError::Record { bytes: length, left: bytes.len() });
            }
            let hash = doubleword(body, 0);
            let format = formats.iter().find(|(known, _)| *known == hash);
            let (_, format) = format.ok_or(OutputError::Format { hash })?;
            print(&formatted(format.as_bytes(), &body[8..]));
        } else {
            print(&formatted_message(body));
        }
        bytes = rest;
    }
    Ok(())
}

/// Formats a message that begins with its format string.
pub(super) fn formatted_message(message: &[u8]) -> String {
    let (format, arguments) = take_string(message);
    formatted(format, arguments)
}

/// A string that fills whole groups of 8 bytes with its terminating zero, and what follows it.
fn take_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let padded = (length + 1).next_multiple_of(8).min(bytes.len());
    (&bytes[..length], &bytes[padded..])
}

/// A conversion of a format string, without its `%`.
struct Conversion<'a> {
    /// Flags, width and precision, as they stand.
    before: &'a [u8],
    /// `hh`, `l`, ...
    length: &'a [u8],
    kind: u8,
}

impl<'a> Conversion<'a> {
    /// Reads the conversion behind a `%`, and returns what follows it.
    fn read(text: &'a [u8]) -> Option<(Conversion<'a>, &'a [u8])> {
        let span = |from: usize, allowed: &[u8]| {
            text[from..].iter().take_while(|byte| allowed.contains(byte)).count() + from
        };
        let flags = span(0, b"-+ #0'");
        let width = span(flags, b"0123456789*.");
        let length = span(width, b"hlLjztq");
        let kind = *text.get(length)?;
        let conversion = Conversion { before: &text[..width], length: &text[width..length], kind };
        b"diouxXcfFeEgGaAspn".contains(&kind).then_some((conversion, &text[length + 1..]))
    }

    /// The conversion for C's `snprintf`, with this length and with each `*` replaced by its argument.
    fn spec(&self, length: &str, stars: &[c_int]) -> Vec<u8> {
        let mut spec = b"%".to_vec();
        let mut stars = stars.iter();
        for byte in self.before {
            match byte {
                b'*' => spec.extend(stars.next().copied().unwrap_or(0).to_string().into_bytes()),
                byte => spec.push(*byte),
            }
        }
        spec.extend(length.as_bytes());
        spec.extend([self.kind, 0]);
        spec
    }
}

/// The 64 bits of an integer, cut to the C type that the conversion names.
fn cut(value: u64, length: &[u8], signed: bool) -> u64 {
    match (length, signed) {
        (b"hh", true) => i64::from(value as i8) as u64,
        (b"hh", false) => u64::from(value as u8),
        (b"h", true) => i64::from(value as i16) as u64,
        (b"h", false) => u64::from(value as u16),
        (b"", true) => i64::from(value as i32) as u64,
        (b"", false) => u64::from(value as u32),
        _ => value,
    }
}

/// Formats as C's `printf` does. `arguments` has 8 bytes for each number, and strings padded to groups of 8. A
/// conversion without an argument ends the text.
fn formatted(format: &[u8], mut arguments: &[u8]) -> String {
    let mut text = Vec::new();
    let mut rest = format;
    while let Some(percent) = rest.iter().position(|byte| *byte == b'%') {
        text.extend(&rest[..percent]);
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix(b"%") {
            text.push(b'%');
            rest = after;
            continue;
        }
        let Some((conversion, after)) = Conversion::read(rest) else {
            // No conversion that C has: the text stays as it is.
            text.push(b'%');
            continue;
        };
        let mut number = || {
            let (value, left) = arguments.split_first_chunk::<8>()?;
            arguments = left;
            Some(u64::from_le_bytes(*value))
        };
        let stars = conversion.before.iter().filter(|byte| **byte == b'*').count();
        let stars: Option<Vec<c_int>> = (0..stars).map(|_| number().map(|n| n as c_int)).collect();
        let Some(stars) = stars else { return lossy(&text) };
        if conversion.kind == b's' {
            let (string, left) = take_string(arguments);
            arguments = left;
            text.extend(print_string(&conversion.spec("", &stars), string));
        } else {
            let Some(value) = number() else { return lossy(&text) };
            text.extend(print_number(&conversion, &stars, value));
        }
        rest = after;
    }
    text.extend(rest);
    lossy(&text)
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Formats a number with C's `snprintf`.
fn print_number(conversion: &Conversion, stars: &[c_int], value: u64) -> Vec<u8> {
    let signed = matches!(conversion.kind, b'd' | b'i');
    match conversion.kind {
        // Nothing is written into a kernel's memory.
        b'n' => Vec::new(),
        b'c' => print(&conversion.spec("", stars), |out, room, spec| {
            // SAFETY: the conversion takes an int; `out` has room for as many bytes as is said.
            unsafe { libc::snprintf(out, room, spec, value as c_int) }
        }),
        b'd' | b'i' | b'o' | b'u' | b'x' | b'X' => {
            let value = cut(value, conversion.length, signed);
            print(&conversion.spec("ll", stars), |out, room, spec| {
                // SAFETY: the conversion takes 64 bits; `out` has room for as many bytes as is said.
                unsafe { libc::snprintf(out, room, spec, value) }
            })
        }
        b'p' => print(&conversion.spec("", stars), |out, room, spec| {
            let pointer = std::ptr::without_provenance::<u8>(value as usize);
            // SAFETY: the conversion takes a pointer, which it does not follow; `out` has room for as many bytes as is
            // said.
            unsafe { libc::snprintf(out, room, spec, pointer) }
        }),
        _ => print(&conversion.spec("", stars), |out, room, spec| {
            // SAFETY: the other conversions take a double; `out` has room for as many bytes as is said.
            unsafe { libc::snprintf(out, room, spec, f64::from_bits(value)) }
        }),
    }
}

fn print_string(spec: &[u8], string: &[u8]) -> Vec<u8> {
    let string = [string, &[0]].concat();
    print(spec, |out, room, spec| {
        // SAFETY: the conversion takes a C string; `out` has room for as many bytes as is said.
        unsafe { libc::snprintf(out, room, spec, string.as_ptr()) }
    })
}

/// Calls C's `snprintf` twice: for the length and for the text. A conversion that is too wide prints its own text.
fn print(spec: &[u8], snprintf: impl Fn(*mut c_char, usize, *const c_char) -> c_int) -> Vec<u8> {
    let format = spec.as_ptr().cast();
    let refused = || spec[..spec.len() - 1].to_vec();
    let numbers = spec.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let width = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    if numbers.map(width).any(|width| width.is_none_or(|width| width > MOST_WIDTH)) {
        return refused();
    }
    let Ok(length) = usize::try_from(snprintf(std::ptr::null_mut(), 0, format)) else { return refused() };
    let mut text = vec![0_u8; length + 1];
    snprintf(text.as_mut_ptr().cast(), text.len(), format);
    text.truncate(length);
    text
}

/// The host calls of one launch.
pub(super) struct Hostcalls<'a> {
    runtime: &'a Runtime,
    buffer: Option<Arc<Hostcall>>,
    /// The layout that the code object's device library uses.
    stacks: bool,
    failed: Mutex<Option<OutputError>>,
}

impl<'a> Hostcalls<'a> {
    pub fn new(runtime: &'a Runtime, module: ModuleId, info: &KernelInfo) -> Result<Self, Failure> {
        let buffer = runtime.output.hostcall(runtime, info)?;
        let stacks = !runtime.state().phases.contains(&module);
        Ok(Hostcalls { runtime, buffer, stacks, failed: Mutex::default() })
    }

    /// `hidden_hostcall_buffer`.
    pub fn address(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.address(self.stacks))
    }

    /// What the kernel has written to the standard error stream: the message of a failed `assert`.
    pub fn take_errors(&self) -> Option<String> {
        self.buffer.as_ref().map(|buffer| buffer.take_errors()).filter(|text| !text.is_empty())
    }

    /// Answers what is left, and says what went wrong.
    pub fn finish(&self) -> Result<(), Failure> {
        self.serve();
        let failed = self.failed.lock().unwrap_or_else(|e| e.into_inner()).take();
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Service for Hostcalls<'_> {
    fn serve(&self) -> bool {
        let Some(buffer) = &self.buffer else { return false };
        let served = buffer.serve(&*self.runtime.engine, &self.runtime.output);
        served.unwrap_or_else(|error| {
            self.failed.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(value: u64) -> Vec<u8> {
        value.to_le_bytes().to_vec()
    }

    fn string(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn a_format_prints_as_c_prints_it() {
        let arguments = [
            argument(-5_i64 as u64),
            argument(1.5_f64.to_bits()),
            string("abcdefgh"),
            argument(0xffff_ffff_ffff_ffff),
            argument(6),
            argument(2),
            argument(2.71_f64.to_bits()),
            argument(u64::from(b'z')),
        ]
        .concat();
        let text = formatted(b"%d|%5.2f|%s|%x|%% %*.*f|%c|%llx", &arguments);
        // The last conversion has no argument.
        assert_eq!(text, "-5| 1.50|abcdefgh|ffffffff|%   2.71|z|");
        assert_eq!(
            formatted(b"%hhd %lu", &[argument(0x1ff), argument(u64::MAX)].concat()),
            "-1 18446744073709551615"
        );
    }

    #[test]
    fn a_conversion_that_would_print_a_gigabyte_is_not_carried_out() {
        assert_eq!(formatted(b"%1000000000d", &argument(1)), "%1000000000lld");
    }

    #[test]
    fn records_with_a_constant_and_with_their_own_format_are_read() {
        let entries = vec!["0:0:deadbeef01234567,x = %d, y: %s\n".to_owned()];
        let formats = formats(&entries);
        let constant =
            [0xdead_beef_0123_4567_u64.to_le_bytes().to_vec(), argument(7), string("seven")].concat();
        let own = [string("own %u\n"), argument(9)].concat();
        let mut buffer = Vec::new();
        for (body, flag) in [(&constant, 2), (&own, 0)] {
            buffer.extend(((body.len() as u32 + 4) << 2 | flag).to_le_bytes());
            buffer.extend(body);
        }
        let mut text = String::new();
        records(&buffer, &formats, |part| text.push_str(part)).unwrap();
        assert_eq!(text, "x = 7, y: seven\nown 9\n");

        let unknown = records(&buffer, &[], |_| {});
        assert_eq!(unknown, Err(OutputError::Format { hash: 0xdead_beef_0123_4567 }));
        buffer[0..4].copy_from_slice(&(4000_u32 << 2).to_le_bytes());
        let left = buffer.len();
        assert_eq!(records(&buffer, &formats, |_| {}), Err(OutputError::Record { bytes: 4000, left }));
    }
}
