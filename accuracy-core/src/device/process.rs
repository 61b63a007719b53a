//! The state of a thread and its process on which computed numbers depend: how floats are rounded, the locale, and which
//! signals are handled.
//!
//! A launcher runs in the process of the test. If it rounds upwards from then on, so do the framework's own quantiser and
//! its reference, and wrong numbers look right. So the state is read before each launcher and compared and put back after
//! it.

use std::ffi::{CStr, CString};
use std::fmt;

/// One piece of that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    Rounding,
    /// Whether results that are denormal become zero.
    FlushToZero,
    /// Whether operands that are denormal count as zero.
    DenormalsAreZero,
    /// Rounding and precision of the x87 unit, in which `long double` is computed.
    X87Rounding,
    X87Precision,
    /// Which exceptions of floating-point arithmetic end the process.
    FloatTraps,
    /// The process's locale, which decides how numbers are read and printed.
    Locale,
    /// The thread's own locale.
    ThreadLocale,
    /// What happens when this signal arrives.
    Handler(i32),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setting::Rounding => "the rounding mode",
            Setting::FlushToZero => "flush-to-zero",
            Setting::DenormalsAreZero => "denormals-are-zero",
            Setting::X87Rounding => "the rounding mode of the x87 unit",
            Setting::X87Precision => "the precision of the x87 unit",
            Setting::FloatTraps => "the floating-point traps",
            Setting::Locale => "the locale",
            Setting::ThreadLocale => "the thread's locale",
            Setting::Handler(signal) => {
                return write!(f, "the handler of {}", signal_name(*signal));
            }
        })
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGBUS => "SIGBUS",
        libc::SIGCHLD => "SIGCHLD",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        other => return format!("signal {other}"),
    };
    name.into()
}

/// A setting that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub setting: Setting,
    pub from: String,
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.setting, self.from, self.to)
    }
}

/// The control registers of the floating-point units. Their exception flags are left out: every computation sets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Floats {
    /// MXCSR without its flags; FPCR on aarch64.
    control: u64,
    /// The x87 unit's control word.
    x87: u16,
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use super::{Floats, Setting};

    /// Rounding to nearest, no flushing, every exception masked; 64 bits of precision in the x87 unit.
    pub const DEFAULT: Floats = Floats { control: 0x1f80, x87: 0x037f };
    const FLAGS: u32 = 0x3f;

    pub fn read() -> Floats {
        let (mut control, mut x87) = (0u32, 0u16);
        // SAFETY: both instructions store a control register to a local of its size.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &mut control, options(nostack, preserves_flags));
            std::arch::asm!("fnstcw [{}]", in(reg) &mut x87, options(nostack, preserves_flags));
        }
        Floats { control: u64::from(control & !FLAGS), x87 }
    }

    pub fn write(floats: Floats) {
        let (control, x87) = (floats.control as u32, floats.x87);
        // SAFETY: the values were read from these registers, or are those that a process starts with.
        unsafe {
            std::arch::asm!("ldmxcsr [{}]", in(reg) &control, options(nostack, preserves_flags));
            std::arch::asm!("fldcw [{}]", in(reg) &x87, options(nostack, preserves_flags));
        }
    }

    const ROUNDING: [&str; 4] = ["to nearest", "downward", "upward", "toward zero"];

    pub fn describe(floats: Floats) -> Vec<(Setting, String)> {
        let bit = |at: u32| if floats.control >> at & 1 == 1 { "on" } else { "off" };
        let rounding = |bits: u64| ROUNDING[bits as usize & 3].to_owned();
        let precision = match floats.x87 >> 8 & 3 {
            0 => "24 bits",
            2 => "53 bits",
            3 => "64 bits",
            _ => "a reserved value",
        };
        let traps = !(floats.control >> 7) & 0x3f | u64::from(!floats.x87 & 0x3f);
        vec![
            (Setting::Rounding, rounding(floats.control >> 13)),
            (Setting::FlushToZero, bit(15).into()),
            (Setting::DenormalsAreZero, bit(6).into()),
            (Setting::X87Rounding, rounding(u64::from(floats.x87 >> 10))),
            (Setting::X87Precision, precision.into()),
            (Setting::FloatTraps, if traps == 0 { "none".into() } else { format!("{traps:#x}") }),
        ]
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use super::{Floats, Setting};

    /// Rounding to nearest, no flushing, no traps.
    pub const DEFAULT: Floats = Floats { control: 0, x87: 0 };

    pub fn read() -> Floats {
        let control: u64;
        // SAFETY: reads a control register that every program may read.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack)) };
        Floats { control, x87: 0 }
    }

    pub fn write(floats: Floats) {
        // SAFETY: the value was read from this register, or is the one that a process starts with.
        unsafe { std::arch::asm!("msr fpcr, {}", in(reg) floats.control, options(nomem, nostack)) };
    }

    pub fn describe(floats: Floats) -> Vec<(Setting, String)> {
        let bit = |at: u32| if floats.control >> at & 1 == 1 { "on" } else { "off" };
        let rounding = ["to nearest", "upward", "downward", "toward zero"];
        let traps = floats.control >> 8 & 0x9f;
        vec![
            (Setting::Rounding, rounding[(floats.control >> 22) as usize & 3].into()),
            (Setting::FlushToZero, bit(24).into()),
            (Setting::DenormalsAreZero, bit(0).into()),
            (Setting::FloatTraps, if traps == 0 { "none".into() } else { format!("{traps:#x}") }),
        ]
    }
}

/// What happens when a signal arrives.
#[derive(Clone, Copy, Debug)]
struct Handler {
    signal: i32,
    action: libc::sigaction,
}

impl PartialEq for Handler {
    fn eq(&self, other: &Handler) -> bool {
        // The C library sets this flag on whatever is installed, so an action that was read and put back has it.
        const SA_RESTORER: libc::c_int = 0x0400_0000;
        let flags = |handler: &Handler| handler.action.sa_flags & !SA_RESTORER;
        self.signal == other.signal
            && self.action.sa_sigaction == other.action.sa_sigaction
            && flags(self) == flags(other)
    }
}

impl Handler {
    fn describe(&self) -> String {
        match self.action.sa_sigaction {
            libc::SIG_DFL => "the default".into(),
            libc::SIG_IGN => "ignoring it".into(),
            address => format!("a function at {address:#x}"),
        }
    }
}

/// The signals that a process can handle. The C library keeps 32 and 33 to itself.
fn signals() -> impl Iterator<Item = i32> {
    const LAST: i32 = 64;
    (1..=LAST).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, 32, 33].contains(signal))
}

/// The state of this thread and process at some time.
#[derive(Clone, Debug)]
pub struct State {
    floats: Floats,
    locale: CString,
    thread_locale: libc::locale_t,
    handlers: Vec<Handler>,
}

impl State {
    /// Reads it.
    pub fn now() -> State {
        // SAFETY: with a null pointer setlocale only reads; its answer is a string that lives to the next change.
        let locale = unsafe {
            let name = libc::setlocale(libc::LC_ALL, std::ptr::null());
            if name.is_null() { CString::default() } else { CStr::from_ptr(name).to_owned() }
        };
        // SAFETY: with a null handle uselocale only reads.
        let thread_locale = unsafe { libc::uselocale(std::ptr::null_mut()) };
        let handlers = signals().filter_map(|signal| {
            // SAFETY: an action of zeros is a valid one, and with a null pointer sigaction only reads into it.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                let read = libc::sigaction(signal, std::ptr::null(), &mut action) == 0;
                read.then_some(Handler { signal, action })
            }
        });
        State { floats: registers::read(), locale, thread_locale, handlers: handlers.collect() }
    }

    /// Whether nothing has changed since.
    fn holds(&self, now: &State) -> bool {
        self.floats == now.floats
            && self.locale == now.locale
            && self.thread_locale == now.thread_locale
            && self.handlers == now.handlers
    }

    /// Puts it back, and says what has changed since it was read.
    pub fn restore(&self) -> Vec<Change> {
        let now = State::now();
        if self.holds(&now) {
            return Vec::new();
        }
        let mut changes = changed_floats(self.floats, now.floats);
        registers::write(self.floats);
        let text = |name: &CStr| format!("`{}`", name.to_string_lossy());
        if self.locale != now.locale {
            let (from, to) = (text(&self.locale), text(&now.locale));
            changes.push(Change { setting: Setting::Locale, from, to });
            // SAFETY: the name is a string that setlocale itself has given.
            unsafe { libc::setlocale(libc::LC_ALL, self.locale.as_ptr()) };
        }
        if self.thread_locale != now.thread_locale {
            let name = |handle: libc::locale_t| format!("{:#x}", handle as usize);
            let (from, to) = (name(self.thread_locale), name(now.thread_locale));
            changes.push(Change { setting: Setting::ThreadLocale, from, to });
            // SAFETY: the handle was this thread's own.
            unsafe { libc::uselocale(self.thread_locale) };
        }
        for (before, now) in self.handlers.iter().zip(&now.handlers).filter(|(before, now)| before != now) {
            let setting = Setting::Handler(before.signal);
            changes.push(Change { setting, from: before.describe(), to: now.describe() });
            // SAFETY: the action was in force before.
            unsafe { libc::sigaction(before.signal, &before.action, std::ptr::null_mut()) };
        }
        changes
    }
}

/// Gives this thread the floating-point state that a process starts with, in which the reference is computed. Says what was
/// other than that.
pub fn reset_floats() -> Vec<Change> {
    let now = registers::read();
    if now == registers::DEFAULT {
        return Vec::new();
    }
    registers::write(registers::DEFAULT);
    changed_floats(registers::DEFAULT, now)
}

fn changed_floats(before: Floats, now: Floats) -> Vec<Change> {
    let pairs = registers::describe(before).into_iter().zip(registers::describe(now));
    pairs
        .filter(|((_, from), (_, to))| from != to)
        .map(|((setting, from), (_, to))| Change { setting, from, to })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_named_and_put_back() {
        let before = State::now();
        assert_eq!(before.restore(), []);
        // SAFETY: ignoring a signal that nobody sends harms nobody, and it is put back.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        let changes = before.restore();
        let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["the handler of SIGUSR2 from the default to ignoring it"]);
        assert_eq!(before.restore(), []);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_control_bit_of_the_float_units_is_a_setting_of_its_own() {
        let before = State::now();
        let rounded_up = |floats: Floats| Floats { control: floats.control | 0x4000, ..floats };
        for (change, told) in [
            (&rounded_up as &dyn Fn(Floats) -> Floats, "the rounding mode from to nearest to upward"),
            (&|f| Floats { control: f.control | 0x8000, ..f }, "flush-to-zero from off to on"),
            (&|f| Floats { control: f.control | 0x40, ..f }, "denormals-are-zero from off to on"),
            (
                &|f| Floats { x87: f.x87 & !0x300, ..f },
                "the precision of the x87 unit from 64 bits to 24 bits",
            ),
            (
                &|f| Floats { x87: f.x87 | 0xc00, ..f },
                "the rounding mode of the x87 unit from to nearest to toward zero",
            ),
        ] {
            registers::write(change(registers::read()));
            let changes: Vec<String> = before.restore().iter().map(ToString::to_string).collect();
            assert_eq!(changes, [told]);
        }
        registers::write(rounded_up(registers::DEFAULT));
        assert_eq!(reset_floats().len(), 1);
        assert_eq!(reset_floats(), []);
    }
}
