//! What merging and rendering a large run costs: 50,000 case records, every format, in seconds and in memory.
//!
//! `cargo bench -p cargo-accuracy --bench report [-- COUNT]`; fails beyond 5 s or 400 MB.

#[path = "../tests/many/mod.rs"]
mod many;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

const SECONDS: f64 = 5.0;
const MEGABYTES: f64 = 400.0;
const FORMATS: [&str; 6] = ["json", "junit", "markdown", "html", "sarif", "github"];

fn main() {
    let count = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(50_000);
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    many::write(&records, count);
    let sizes = std::fs::read_dir(&records).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    println!("{count} cases, records of {:.0} MB", sizes.sum::<u64>() as f64 / 1e6);
    let mut worst: (f64, f64) = (0.0, 0.0);
    for formats in FORMATS.iter().map(std::slice::from_ref).chain([&[][..], &FORMATS[..]]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
        command.arg("report").arg(&records).stdout(Stdio::null()).stderr(Stdio::inherit());
        let paths = formats.iter().map(|format| (format, folder.path().join(format)));
        let paths: Vec<_> = paths.collect();
        for (format, path) in &paths {
            command.arg("--report").arg(format!("{format}={}", path.display()));
        }
        let (status, seconds, megabytes) = measure(&mut command);
        assert_eq!(status, 100, "the report has failing cases");
        let written: u64 = paths.iter().map(|(_, path)| std::fs::metadata(path).unwrap().len()).sum();
        let name = match formats {
            [] => "text alone".to_owned(),
            [one] => format!("text, {one}"),
            _ => "all of them".to_owned(),
        };
        println!("{name:16} {seconds:6.2} s  {megabytes:6.0} MB  writes {:6.1} MB", written as f64 / 1e6);
        worst = (worst.0.max(seconds), worst.1.max(megabytes));
    }
    assert!(worst.0 < SECONDS && worst.1 < MEGABYTES, "more than {SECONDS} s or {MEGABYTES} MB");
}

/// Exit status, wall-clock seconds and the most memory that was resident.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells its memory")]
fn measure(command: &mut Command) -> (i32, f64, f64) {
    let start = Instant::now();
    let child = command.process_group(0).spawn().unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both places are writable, the child is ours and nobody else waits for it.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, child.id() as libc::pid_t, "the child is waited for");
    // SAFETY: wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    (libc::WEXITSTATUS(status), start.elapsed().as_secs_f64(), usage.ru_maxrss as f64 / 1024.0)
}
