//! Says which buffer a memory fault was next to, before the process dies of it.
//!
//! A kernel on the host that strays into an inaccessible page gets SIGSEGV. The handler looks the address up among
//! the live buffers, writes one JSON line where the runner looks for it, and lets the signal take its course.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, Once};

const SLOTS: usize = 256;
const NAME: usize = 48;

/// Read by the signal handler: plain atomics, no locks, no allocation.
struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    /// Bounds of the mapping; an end of 0 marks a free slot.
    map_start: AtomicUsize,
    map_end: AtomicUsize,
    name: [AtomicUsize; NAME],
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        map_start: AtomicUsize::new(0),
        map_end: AtomicUsize::new(0),
        name: [const { AtomicUsize::new(0) }; NAME],
    }
}; SLOTS];
static REGISTER: Mutex<()> = Mutex::new(());
static REPORT: AtomicPtr<libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
static INSTALL: Once = Once::new();

/// A buffer that is known to the handler; none where the table is full, which costs only the explanation.
#[derive(Debug)]
pub struct Region(Option<usize>);

/// Makes a buffer known.
pub fn register(name: &str, start: usize, len: usize, map_start: usize, map_end: usize) -> Region {
    let _guard = REGISTER.lock().unwrap_or_else(|e| e.into_inner());
    let Some(index) = TABLE.iter().position(|slot| slot.map_end.load(SeqCst) == 0) else {
        return Region(None);
    };
    let slot = &TABLE[index];
    slot.start.store(start, SeqCst);
    slot.len.store(len, SeqCst);
    slot.map_start.store(map_start, SeqCst);
    for (i, cell) in slot.name.iter().enumerate() {
        // Only what can stand in a JSON string without an escape.
        let byte =
            name.as_bytes().get(i).copied().filter(|b| b.is_ascii_alphanumeric() || b"_-. ".contains(b));
        cell.store(byte.map_or(0, usize::from), SeqCst);
    }
    slot.map_end.store(map_end, SeqCst);
    Region(Some(index))
}

/// Forgets a buffer.
pub fn unregister(region: &Region) {
    if let Some(index) = region.0 {
        TABLE[index].map_end.store(0, SeqCst);
    }
}

/// Installs the handler and says where its line goes. Called before each case; the last path counts.
pub fn report_to(path: &Path) {
    if let Ok(path) = CString::new(path.as_os_str().as_bytes()) {
        // Leaked on purpose: the handler may be reading the old one.
        REPORT.store(path.into_raw(), SeqCst);
    }
    INSTALL.call_once(|| {
        // SAFETY: the action is zeroed and then filled; the handler calls only functions that are safe in a signal
        // handler. SA_ONSTACK uses the alternate stack that std gives every thread.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        }
    });
}

/// Address and length of the name of the launcher that is running; zeros where none is.
static LAUNCHER: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Says which launcher is about to be called. Launchers are called on one thread at a time.
pub fn launching(name: &'static str) {
    LAUNCHER[0].store(0, SeqCst);
    LAUNCHER[1].store(name.len(), SeqCst);
    LAUNCHER[0].store(name.as_ptr().expose_provenance(), SeqCst);
}

/// Says that the launcher has returned.
pub fn returned() {
    LAUNCHER[0].store(0, SeqCst);
}

/// How a faulting address relates to a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Near {
    /// It is in the buffer's mapping.
    Mapped,
    /// It is where an element of the buffer would be looked for by an index that has lost its upper bits.
    Wrapped,
    /// No other buffer is nearer.
    Nearest,
}

/// Sizes of elements in bytes: an index that wraps around is off by 2^32 of them.
const ELEMENTS: [usize; 4] = [1, 2, 4, 8];

/// The buffer that an access was meant for. Called by the signal handler.
fn find(address: usize) -> Option<(&'static Slot, Near)> {
    let live = || TABLE.iter().filter(|slot| slot.map_end.load(SeqCst) != 0);
    let contents = |slot: &Slot| {
        let start = slot.start.load(SeqCst);
        start..start + slot.len.load(SeqCst)
    };
    let mapped = |slot: &&Slot| (slot.map_start.load(SeqCst)..slot.map_end.load(SeqCst)).contains(&address);
    if let Some(slot) = live().find(mapped) {
        return Some((slot, Near::Mapped));
    }
    // An index of 32 bits with a sign is off by 2^32 elements where it becomes negative.
    let wrapped =
        |slot: &&Slot| ELEMENTS.iter().any(|size| contents(slot).contains(&address.wrapping_add(size << 32)));
    if let Some(slot) = live().find(wrapped) {
        return Some((slot, Near::Wrapped));
    }
    let distance = |slot: &&Slot| {
        let contents = contents(slot);
        contents.start.saturating_sub(address).max(address.saturating_sub(contents.end))
    };
    live().min_by_key(distance).map(|slot| (slot, Near::Nearest))
}

/// A line that is put together without allocating.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        for &b in text {
            if self.len < self.bytes.len() {
                self.bytes[self.len] = b;
                self.len += 1;
            }
        }
    }

    fn name(&mut self, slot: &Slot) {
        for cell in &slot.name {
            match cell.load(SeqCst) {
                0 => break,
                byte => self.push(&[byte as u8]),
            }
        }
    }

    /// Which launcher was running, if one was.
    fn launcher(&mut self) {
        let (start, len) = (LAUNCHER[0].load(SeqCst), LAUNCHER[1].load(SeqCst));
        if start != 0 {
            self.push(b", by launcher `");
            // SAFETY: both numbers are of one `&'static str`, or of two while another thread changes them; then the shorter
            // length is read, of bytes that live as long as the program.
            let name = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), len) };
            self.push(name);
            self.push(b"`");
        }
    }

    fn number(&mut self, mut value: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo to an SA_SIGINFO handler.
    let address = unsafe { (*info).si_addr() } as usize;
    if let Some((slot, near)) = find(address) {
        let (start, len) = (slot.start.load(SeqCst), slot.len.load(SeqCst));
        let mut line = Line { bytes: [0; 512], len: 0 };
        line.push(b"{\"reason\":\"memory access ");
        if address >= start + len {
            line.number(address - (start + len));
            line.push(b" bytes past the end of `");
        } else {
            line.number(start.saturating_sub(address));
            line.push(b" bytes before the start of `");
        }
        line.name(slot);
        line.push(b"` (");
        line.number(len);
        line.push(match near {
            Near::Mapped => b" bytes)".as_slice(),
            Near::Wrapped => b" bytes), where an index leads that wraps around at 32 bits".as_slice(),
            Near::Nearest => b" bytes), the nearest buffer".as_slice(),
        });
        line.launcher();
        line.push(b"\",\"causes\":[{\"cause\":\"out_of_bounds\",\"detail\":\"");
        line.push(match near {
            Near::Mapped => b"a kernel reads or writes outside of `".as_slice(),
            Near::Wrapped => {
                b"an index wraps around at 32 bits, in a kernel that reads or writes `".as_slice()
            }
            Near::Nearest => b"a kernel reads or writes outside of all buffers, nearest to `".as_slice(),
        });
        line.name(slot);
        line.push(b"`\",\"cos\":null,\"confident\":");
        line.push(if matches!(near, Near::Nearest) { b"false".as_slice() } else { b"true".as_slice() });
        line.push(b"}]}\n");
        let path = REPORT.load(SeqCst);
        // SAFETY: open, write and close are async-signal-safe; the path is a leaked C string or null, and the line
        // is a local array.
        unsafe {
            libc::write(2, line.bytes.as_ptr().cast(), line.len);
            if !path.is_null() {
                let file = libc::open(path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, 0o644);
                if file >= 0 {
                    libc::write(file, line.bytes.as_ptr().cast(), line.len);
                    libc::close(file);
                }
            }
        }
    }
    // A fault of the CPU happens again on return, now with the default action; a signal that was sent does not.
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        if (*info).si_code <= 0 {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_outside_of_all_mappings_is_told_by_the_buffer_that_it_was_meant_for() {
        // No process has memory there; other tests register where they do.
        const FAR: usize = 0x4000_0000_0000_0000;
        let (start, len) = (FAR + (64 << 32), 3 << 32);
        let region = register("strided", start, len, start - 4096, start + len + 4096);
        let found =
            |address: usize| find(address).map(|(slot, near)| (slot.start.load(SeqCst) == start, near));
        assert_eq!(found(start + 5), Some((true, Near::Mapped)));
        assert_eq!(found(start - 1), Some((true, Near::Mapped)));
        // Element 2^31 + 7 of two bytes, by an index with a sign.
        assert_eq!(found(start + 2 * ((1 << 31) + 7) - (2 << 32)), Some((true, Near::Wrapped)));
        assert_eq!(found(start + len + (1 << 40)), Some((true, Near::Nearest)));
        assert_eq!(found(FAR), Some((true, Near::Nearest)));
        unregister(&region);
        assert!(found(start + 5).is_none_or(|(own, near)| !own && near != Near::Mapped));
    }
}
