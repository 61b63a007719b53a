//! `cargo accuracy`: builds, runs and judges `#[accuracy_test]` cases.
//!
//! One folder a command; [`cli`] has the command line, [`exit`] the exit statuses.

mod archive;
mod baseline;
mod build;
mod cli;
mod compare;
mod completions;
mod config;
mod declared;
mod doctor;
mod dtypes;
mod exit;
mod header;
mod init;
mod inspect;
mod invocation;
mod lint;
mod logs;
mod output;
mod probe;
mod report;
mod run;
mod screen;
mod selftest;
mod shard;
mod triage;
mod weights;

use clap::Parser as _;
use exit::{ExitCode, UsageError};

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse_from(invocation::arguments(std::env::args_os()));
    match cli.dispatch() {
        Ok(code) => code.into(),
        Err(error) if broken_pipe(&error) => ExitCode::Correct.into(),
        Err(error) => {
            crate::say!("{}error{:#}: {}", report::style::BAD, report::style::BAD, exit::chain(&error));
            let code = if error.is::<UsageError>() { ExitCode::Usage } else { ExitCode::Unfinished };
            code.into()
        }
    }
}

/// A reader such as `head` that has seen enough is no error.
fn broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
