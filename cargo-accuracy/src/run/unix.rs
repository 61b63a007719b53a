//! What the runner asks of the operating system beyond `std`: signals as file events, process groups, and the
//! processes that a test left behind.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// Identity of a process.
pub type Pid = i32;

/// Writing end of the pipe that the signal handler writes to.
static WAKE: AtomicI32 = AtomicI32::new(-1);

const HANDLED: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Signals that ended a wait, counted since they were last asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caught {
    /// SIGINT, SIGTERM or SIGHUP: somebody wants this process to stop.
    pub stop: u32,
}

/// Turns SIGCHLD, SIGINT, SIGTERM and SIGHUP into bytes in a pipe that one can wait for.
#[derive(Debug)]
pub struct Signals {
    read: OwnedFd,
    _write: OwnedFd,
}

impl Signals {
    /// Installs the handlers. There is one pipe a process, so this is called once.
    pub fn install() -> io::Result<Signals> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two descriptors that pipe2 writes.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: pipe2 has just opened both descriptors and nothing else owns them.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
        WAKE.store(write.as_raw_fd(), Ordering::SeqCst);
        for signal in HANDLED {
            // SAFETY: a zeroed sigaction is valid, and the handler does nothing but an async-signal-safe write.
            let installed = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &action, std::ptr::null_mut())
            };
            if installed != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Signals { read, _write: write })
    }

    /// Waits until a child ends, a signal asks to stop, or the time is over.
    pub fn wait(&self, timeout: Duration) -> Caught {
        let mut poll = libc::pollfd { fd: self.read.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // Rounded up, so that a deadline has passed when poll says so.
        let milliseconds = i32::try_from(timeout.as_millis() + 1).unwrap_or(i32::MAX);
        // SAFETY: `poll` is one valid pollfd for as long as the call takes.
        unsafe { libc::poll(&mut poll, 1, milliseconds) };
        let mut caught = Caught::default();
        let mut bytes = [0u8; 256];
        loop {
            // SAFETY: the buffer is as long as said. The descriptor does not block.
            let n = unsafe { libc::read(self.read.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            let Ok(n) = usize::try_from(n) else { break };
            caught.stop += bytes[..n].iter().filter(|b| i32::from(**b) != libc::SIGCHLD).count() as u32;
            if n < bytes.len() {
                break;
            }
        }
        caught
    }
}

impl Drop for Signals {
    /// What comes after the cases ends by a signal as any program does.
    fn drop(&mut self) {
        for signal in HANDLED {
            // SAFETY: SIG_DFL is no handler that could do anything wrong.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        WAKE.store(-1, Ordering::SeqCst);
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: write is async-signal-safe and the byte lives on this stack; errno is put back for the code that was
    // interrupted. A full pipe already wakes the reader.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(WAKE.load(Ordering::SeqCst), (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Makes this process the parent of what its descendants abandon, so that nothing escapes by forking twice.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: this option takes plain integers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A write beyond the limit of a file's size (`ulimit -f`) becomes an error, as on a full disk, in place of a signal.
/// Processes that are started inherit this.
pub fn report_size_limit() {
    // SAFETY: SIG_IGN is no handler that could do anything wrong.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Lets nothing but the end of its own work end this process.
pub fn ignore_stop() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is no handler that could do anything wrong.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The process that a command starts is killed when this thread ends, however it ends.
pub fn die_together(command: &mut Command) {
    let parent = std::process::id();
    let tie = move || {
        // SAFETY: these calls take plain integers and are async-signal-safe.
        let (set, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before that.
        if now as u32 == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec the closure makes two system calls, and neither allocates nor locks.
    unsafe { command.pre_exec(tie) };
}

/// Sends a signal to every process of a group; `false` where there is none.
pub fn signal_group(group: Pid, signal: i32) -> bool {
    debug_assert!(group > 1);
    // SAFETY: kill takes plain integers. `group` was the identity of a child of ours.
    unsafe { libc::kill(-group, signal) == 0 }
}

/// Whether a group has a process, be it one that ended and that nobody waited for.
pub fn group_exists(group: Pid) -> bool {
    signal_group(group, 0)
}

/// Kills one process.
pub fn kill(pid: Pid) {
    debug_assert!(pid > 1);
    // SAFETY: kill takes plain integers. `pid` is a child of ours that nobody has waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Collects a child that was adopted, if it has ended.
fn reap(pid: Pid) -> bool {
    // SAFETY: waitpid may be given no place for the status.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) == pid }
}

/// A process that is still there though its test has ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stray {
    pub pid: Pid,
    pub group: Pid,
    pub name: String,
}

impl std::fmt::Display for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pid, self.name)
    }
}

/// Living processes that this one has adopted; those that have ended are collected on the way. `own` are the
/// children that it started itself.
pub fn adopted(own: &BTreeSet<Pid>) -> Vec<Stray> {
    children().into_iter().filter(|pid| !own.contains(pid) && !reap(*pid)).filter_map(stray).collect()
}

/// Living processes of a group. Looks at every process there is, so it is for when something is left.
pub fn group_members(group: Pid) -> Vec<Stray> {
    processes().filter_map(stray).filter(|s| s.group == group).collect()
}

/// An environment variable of another process, as it was when it began.
pub fn environment_of(pid: Pid, name: &str) -> Option<String> {
    value_in(&environment(pid)?, name)
}

fn environment(pid: Pid) -> Option<Vec<u8>> {
    std::fs::read(format!("/proc/{pid}/environ")).ok()
}

fn value_in(environment: &[u8], name: &str) -> Option<String> {
    environment
        .split(|&b| b == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// The same of a child that may just be about to become another program: until its memory is laid out, it seems to have no
/// environment at all, and that is waited for.
pub fn environment_of_child(pid: Pid, name: &str) -> Option<String> {
    const TRIES: usize = 50;
    let mut bytes = environment(pid)?;
    for _ in 0..TRIES {
        if !bytes.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        bytes = environment(pid)?;
    }
    value_in(&bytes, name)
}

/// Living processes that have this in their environment.
pub fn with_environment(name: &str, value: &str) -> Vec<Stray> {
    let own = std::process::id() as Pid;
    processes()
        .filter(|pid| *pid != own && environment_of(*pid, name).as_deref() == Some(value))
        .filter_map(stray)
        .collect()
}

fn processes() -> impl Iterator<Item = Pid> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn children() -> Vec<Pid> {
    let listed = || -> Option<Vec<Pid>> {
        let mut pids = Vec::new();
        for task in std::fs::read_dir("/proc/self/task").ok()? {
            let text = std::fs::read_to_string(task.ok()?.path().join("children")).ok()?;
            pids.extend(text.split_whitespace().filter_map(|word| word.parse::<Pid>().ok()));
        }
        Some(pids)
    };
    // A kernel without CONFIG_PROC_CHILDREN does not have the file.
    listed().unwrap_or_else(|| {
        let own = std::process::id() as Pid;
        processes().filter(|pid| stat(*pid).is_some_and(|s| s.parent == own)).collect()
    })
}

struct Stat {
    name: String,
    state: char,
    parent: Pid,
    group: Pid,
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state ppid pgrp ...`; the name may hold spaces and parentheses.
    let (head, tail) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    Some(Stat {
        name: name.into(),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}

fn stray(pid: Pid) -> Option<Stray> {
    let stat = stat(pid)?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(Stray { pid, group: stat.group, name: stat.name })
}
