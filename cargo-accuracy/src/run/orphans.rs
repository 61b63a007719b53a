//! What ends the processes of a run that is killed itself, with no time to do so.
//!
//! A test process is killed by the kernel when the plugin ends. What it has started is not; so a second process of this
//! program waits for the plugin's end, and then kills whatever has the run's folder in its environment.

use super::unix::{self, Pid};
use crate::exit::ExitCode;
use accuracy_core::env;
use anyhow::Context as _;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Name of the hidden command.
const COMMAND: &str = "end-orphans";
/// Killing one may bring up another: so often is looked.
const ROUNDS: usize = 50;

/// Flags of the hidden command.
#[derive(Clone, Debug, clap::Args)]
pub struct OrphansArgs {
    /// Folder of the run's records
    records: PathBuf,
    /// What the run has unpacked, and removes at its end
    unpacked: Option<PathBuf>,
}

/// The second process; its work is over when this is dropped.
pub struct Guard(Child);

impl Guard {
    pub fn start(records: &Path, unpacked: Option<&Path>) -> anyhow::Result<Guard> {
        // This program, even where its file has been replaced.
        let mut command = Command::new("/proc/self/exe");
        command.arg(COMMAND).arg(records).args(unpacked);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A Ctrl-C of the terminal is not for it.
        command.process_group(0);
        command.spawn().map(Guard).context("cannot start the process that ends what a killed run leaves")
    }

    pub fn pid(&self) -> Pid {
        self.0.id() as Pid
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // One byte says that there is nothing to do. Where it has gone already, there is nobody to tell.
        if let Some(mut stdin) = self.0.stdin.take() {
            let _ = stdin.write_all(b".");
        }
        let _ = self.0.wait();
    }
}

/// Waits for the end of the process at the other end of standard input.
pub fn command(args: &OrphansArgs) -> anyhow::Result<ExitCode> {
    unix::ignore_stop();
    let mut byte = [0];
    if std::io::stdin().read(&mut byte).context("cannot read standard input")? > 0 {
        return Ok(ExitCode::Correct);
    }
    let folder = args.records.to_string_lossy();
    for _ in 0..ROUNDS {
        let left = unix::with_environment(env::RECORDS, &folder);
        if left.is_empty() {
            break;
        }
        for stray in left {
            unix::kill(stray.pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if let Some(folder) = &args.unpacked {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(ExitCode::Correct)
}
