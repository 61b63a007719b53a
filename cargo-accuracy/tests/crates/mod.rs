//! Small crates on which the tests run the real binary.
#![allow(dead_code, reason = "each test executable uses a part of it")]

pub mod shards;

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const PLUGIN: &str = env!("CARGO_BIN_EXE_cargo-accuracy");

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in a folder of the repository")
}

/// A crate of `testdata`, copied to where it can be built.
pub struct Fixture {
    pub dir: PathBuf,
    /// Shared by all fixtures, so that accuracy-core is built once.
    target: PathBuf,
}

/// The crate `never-green`, built once for each test executable.
pub fn never_green() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
        Fixture::copy("never-green", "never-green", |dir| shards::write_all(&dir.join("shards")))
    });
    &FIXTURE
}

/// Cargo names what it builds by package and profile, not by folder: two copies of a crate would take each other's
/// binaries for their own. So each has a profile that no other has.
fn profile_of(copy: &str, manifest: &str) -> String {
    let package =
        manifest.lines().find_map(|l| l.strip_prefix("name = ")).expect("the manifest names its package");
    let number = copy.bytes().fold(0, |n: u32, b| n.wrapping_mul(31).wrapping_add(u32::from(b)));
    format!("\n[profile.dev.package.{package}]\ncodegen-units = {}\n", 16 + number % 9973)
}

impl Fixture {
    /// Copies `testdata/<name>` to a folder called `copy`, and beside it what `prepare` writes. The copy stays in one
    /// place, so that cargo need not build it again when nothing has changed.
    pub fn copy(name: &str, copy: &str, prepare: impl FnOnce(&Path)) -> Fixture {
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Under nextest every test is a process of its own, and prepares the same folder.
        let lock = std::fs::File::create(shared.join("fixtures.lock")).unwrap();
        lock.lock().unwrap();
        let dir = shared.join("crates").join(copy);
        // Under nextest every test is a process, and each of them comes here.
        std::fs::create_dir_all(shared.join("crates")).unwrap();
        let lock = std::fs::File::create(shared.join("crates").join("lock")).unwrap();
        lock.lock().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        copy_folder(&source, &dir);
        // It is a repository: otherwise the lint of each run would index all of this one around it.
        std::fs::create_dir_all(dir.join(".git")).unwrap();
        let core = repository().join("accuracy-core");
        let manifest = dir.join("Cargo.toml");
        let text = std::fs::read_to_string(source.join("Cargo.toml")).unwrap();
        let text = text.replace("../../../accuracy-core", core.to_str().unwrap());
        let text = format!("{text}{}", profile_of(copy, &text));
        write_if_changed(&manifest, text.as_bytes());
        // Cargo takes what it needs of it, so nothing is looked up on the network.
        let lockfile = dir.join("Cargo.lock");
        if !lockfile.exists() || newer(&repository().join("Cargo.lock"), &lockfile) {
            std::fs::copy(repository().join("Cargo.lock"), &lockfile).unwrap();
        }
        let prepared = tempfile::tempdir().unwrap();
        prepare(prepared.path());
        copy_folder(prepared.path(), &dir);
        let fixture = Fixture { dir, target: shared.join("target") };
        let status = fixture
            .command("cargo")
            .args(["test", "--no-run", "--tests", "--offline", "--quiet"])
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "{name} does not build");
        fixture
    }

    /// A crate that is already there, with a target folder of its own.
    pub fn at(dir: &Path) -> Fixture {
        Fixture { dir: dir.into(), target: dir.join("target") }
    }

    /// A crate that is already there, with the target folder of all fixtures.
    pub fn in_shared_target(dir: &Path) -> Fixture {
        Fixture { dir: dir.into(), target: Path::new(env!("CARGO_TARGET_TMPDIR")).join("target") }
    }

    /// cargo itself.
    pub fn cargo(&self, arguments: &[&str]) -> std::process::Output {
        self.command("cargo").args(arguments).output().expect("cargo can be started")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env("CARGO_TARGET_DIR", &self.target).stdin(Stdio::null());
        // What the outer cargo and a person's shell say is not for the inner one.
        for (name, _) in std::env::vars() {
            let inherited =
                ["CARGO_PKG_", "CARGO_MANIFEST_", "ACCURACY_"].iter().any(|p| name.starts_with(p));
            if inherited || ["COLUMNS", "NO_COLOR", "LD_LIBRARY_PATH"].contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command
    }

    /// `cargo accuracy` in the crate's folder.
    pub fn accuracy(&self, arguments: &[&str]) -> Run {
        self.accuracy_with(arguments, |_| {})
    }

    /// `cargo accuracy report` in the crate's folder.
    pub fn report(&self, arguments: &[&str]) -> Run {
        self.start_command("report", &[], arguments, |_| {}).finish()
    }

    /// The plugin alone, for a command that writes no report.
    pub fn plugin(&self) -> Command {
        self.command(PLUGIN)
    }

    /// `run --archive` in this folder, on what could be a machine without cargo.
    pub fn run_archive(&self, archive: &Path, arguments: &[&str]) -> Run {
        let archive = archive.to_str().unwrap();
        let temporary = self.dir.join("temporary");
        std::fs::create_dir_all(&temporary).unwrap();
        let change = |command: &mut Command| {
            command.env("PATH", "/nowhere").env_remove("CARGO").env("TMPDIR", &temporary);
        };
        let run = self.start_command("run", &["--archive", archive], arguments, change).finish();
        assert_eq!(
            std::fs::read_dir(&temporary).unwrap().count(),
            0,
            "what was unpacked is still there: {run}"
        );
        run
    }

    /// `cargo accuracy`, after `change` has had its way with the command.
    pub fn accuracy_with(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Run {
        self.start(arguments, change).finish()
    }

    /// Plain `cargo test`, leaving its records in a folder.
    pub fn cargo_test(&self, arguments: &[&str], records: &Path) -> std::process::ExitStatus {
        let mut command = self.command("cargo");
        command.args(["test", "--offline", "--quiet"]).args(arguments).env("ACCURACY_RECORDS", records);
        command.output().expect("cargo can be started").status
    }

    /// Plain `cargo test`, as a person starts it.
    pub fn cargo_test_with(
        &self,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> std::process::Output {
        let mut command = self.command("cargo");
        command.args(["test", "--offline", "--quiet"]).args(arguments);
        change(&mut command);
        command.output().expect("cargo can be started")
    }

    /// The same, but does not wait for its end.
    pub fn start(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        self.start_command("run", &["--offline"], arguments, change)
    }

    /// `run` of an archive, which needs no cargo.
    pub fn start_archived(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        self.start_command("run", &[], arguments, change)
    }

    fn start_command(
        &self,
        name: &str,
        flags: &[&str],
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Running {
        self.spawn(name, flags, arguments, |command| {
            change(command);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        })
    }

    /// A run on a terminal of its own, as if a person had started it there.
    pub fn start_on_terminal(&self, arguments: &[&str]) -> (Running, Terminal) {
        let (terminal, other_end) = Terminal::open();
        let running = self.spawn("run", &["--offline"], arguments, |command| {
            let end = || Stdio::from(other_end.try_clone().unwrap());
            command.stdin(end()).stdout(end()).stderr(end());
            let own_session = || {
                // SAFETY: both calls take plain integers and are async-signal-safe.
                match unsafe { libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 } {
                    true => Ok(()),
                    false => Err(std::io::Error::last_os_error()),
                }
            };
            // SAFETY: between fork and exec the closure makes two system calls.
            unsafe { command.pre_exec(own_session) };
        });
        (running, terminal)
    }

    fn spawn(
        &self,
        name: &str,
        flags: &[&str],
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Running {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let json = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("reports")
            .join(format!("{}-{number}.json", std::process::id()));
        let mut command = self.command(PLUGIN);
        command
            .args(["accuracy", name])
            .args(flags)
            .args(arguments)
            .arg("--report")
            .arg(format!("json={}", json.display()));
        // By this the processes that a run has left are known.
        let mark = format!("{}-{number}", std::process::id());
        command.env("NEVER_GREEN_RUN", &mark);
        change(&mut command);
        let child = command.spawn().expect("the plugin can be started");
        Running { child, json, mark }
    }

    /// The folder in which a run has left its records.
    pub fn folder_of(&self, run: &Run) -> PathBuf {
        let own = format!("-{}", run.pid);
        let entries = std::fs::read_dir(self.target.join("accuracy")).unwrap();
        let mut found = entries.map(|e| e.unwrap().path()).filter(|path| {
            path.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with("run-") && name.ends_with(&own)
            })
        });
        found.next().unwrap_or_else(|| panic!("no folder of process {}: {run}", run.pid))
    }
}

/// The end of a terminal at which the person sits.
pub struct Terminal {
    file: std::fs::File,
}

impl Terminal {
    /// Both ends.
    fn open() -> (Terminal, std::fs::File) {
        let (mut person, mut program) = (0, 0);
        let null = std::ptr::null_mut();
        // SAFETY: both descriptors are written to locals; nothing else is asked for or given.
        let opened = unsafe { libc::openpty(&mut person, &mut program, null, null.cast(), null.cast()) };
        assert_eq!(opened, 0, "no terminal: {}", std::io::Error::last_os_error());
        for fd in [person, program] {
            // SAFETY: the descriptor has just been opened.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: openpty has just opened both, and nothing else owns them.
        unsafe {
            (Terminal { file: std::fs::File::from_raw_fd(person) }, std::fs::File::from_raw_fd(program))
        }
    }

    pub fn press(&mut self, key: u8) {
        self.file.write_all(&[key]).unwrap();
    }

    /// Whether it echoes and edits lines, and whether Ctrl-C is a signal: its local modes.
    pub fn modes(&self) -> libc::tcflag_t {
        // SAFETY: a zeroed termios is valid, and tcgetattr writes one.
        unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(self.file.as_raw_fd(), &mut modes), 0);
            modes.c_lflag
        }
    }

    /// All that appeared on it, once the last program has closed its end.
    pub fn text(mut self) -> String {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        // The end is an error (EIO).
        while let Ok(n @ 1..) = self.file.read(&mut buffer) {
            bytes.extend(&buffer[..n]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A run of the plugin that is under way.
pub struct Running {
    child: Child,
    json: PathBuf,
    mark: String,
}

impl Running {
    /// Sends the plugin, and nothing but it, a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes plain integers. The child has not been waited for, so its identity is its own.
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(sent, 0);
    }

    /// Waits until the plugin runs a test process with this in its command line, and says which it is.
    pub fn wait_for_case(&self, argument: &str) -> u32 {
        for _ in 0..1200 {
            let found = processes_of(&self.mark).into_iter().find(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                *pid != self.child.id() && line.split(|b| *b == 0).any(|word| word == argument.as_bytes())
            });
            if let Some(pid) = found {
                return pid;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{argument} has not been started in a minute");
    }

    pub fn finish(self) -> Run {
        let Running { child, json, mark } = self;
        let pid = child.id();
        let output = child.wait_with_output().expect("the plugin can be waited for");
        let report = std::fs::read(&json).ok().map(|text| serde_json::from_slice(&text).unwrap());
        let _ = std::fs::remove_file(&json);
        Run {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            report,
            pid,
            mark,
        }
    }
}

/// What one run of the plugin said.
pub struct Run {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// `--report json=`, if the run came to it.
    pub report: Option<serde_json::Value>,
    /// The plugin's process.
    pub pid: u32,
    mark: String,
}

/// What the report says of one case.
#[derive(Debug)]
pub struct Case {
    pub id: String,
    pub verdict: String,
    pub gate: String,
    pub reason: String,
    pub failed_checks: Vec<String>,
    pub causes: Vec<String>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit status {:?}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

impl Run {
    pub fn cases(&self) -> Vec<Case> {
        let report = self.report.as_ref().unwrap_or_else(|| panic!("no report was written: {self}"));
        let texts = |value: &serde_json::Value, key: Option<&str>| -> Vec<String> {
            let text = |v: &serde_json::Value| v.as_str().unwrap().to_string();
            value.as_array().unwrap().iter().map(|v| key.map_or_else(|| text(v), |k| text(&v[k]))).collect()
        };
        let cases = report["cases"].as_array().expect("cases is a list");
        cases
            .iter()
            .map(|case| {
                let text =
                    |key: &str| case[key].as_str().unwrap_or_else(|| panic!("{key}: {case}")).to_string();
                Case {
                    id: text("id"),
                    verdict: text("verdict"),
                    gate: text("gate"),
                    reason: text("reason"),
                    failed_checks: texts(&case["failed_checks"], None),
                    causes: texts(&case["causes"], Some("cause")),
                }
            })
            .collect()
    }

    /// The only case of the run.
    pub fn case(&self) -> Case {
        let mut cases = self.cases();
        assert_eq!(cases.len(), 1, "{self}");
        cases.remove(0)
    }

    pub fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or("")
    }

    /// The run has one case; it fails the gate with this verdict, and its reason says so.
    #[track_caller]
    pub fn assert_failed(&self, verdict: &str, reason: &str) {
        assert_eq!(self.status, Some(100), "{self}");
        let case = self.case();
        assert_eq!((case.gate.as_str(), case.verdict.as_str()), ("fail", verdict), "{case:?}\n{self}");
        assert!(case.reason.contains(reason), "the reason lacks {reason:?}: {case:?}");
        let printed = self.stdout.contains(reason.lines().next().unwrap_or(""));
        assert!(printed, "{reason:?} is not printed: {self}");
        assert!(self.stdout.contains(&format!("'{}'", case.id)), "no command re-runs the case: {self}");
        assert_eq!(self.last_line(), "0 passed, 1 failed, 0 skipped");
    }

    /// No process of this run is alive.
    #[track_caller]
    pub fn assert_nothing_left_running(&self) {
        assert_eq!(processes_of(&self.mark), [0; 0], "still running");
    }

    /// The same a little later: where the plugin itself was killed, somebody else ends what it left.
    #[track_caller]
    pub fn assert_soon_nothing_left_running(&self) {
        for _ in 0..100 {
            if processes_of(&self.mark).is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        self.assert_nothing_left_running();
    }
}

/// Processes whose environment has the mark of a run.
fn processes_of(mark: &str) -> Vec<u32> {
    let mark = format!("NEVER_GREEN_RUN={mark}");
    let marked = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|entry| entry == mark.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(marked).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else if entry.file_name() != "Cargo.toml" || !copy.exists() || newer(&path, &copy) {
            write_if_changed(&copy, &std::fs::read(&path).unwrap());
        }
    }
}

fn newer(one: &Path, other: &Path) -> bool {
    let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
    modified(one) > modified(other)
}

/// Cargo goes by the time of the last change.
fn write_if_changed(path: &Path, bytes: &[u8]) {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return;
    }
    std::fs::write(path, bytes).unwrap();
}
