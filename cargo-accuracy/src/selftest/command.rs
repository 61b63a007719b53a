//! The command: a run with planted faults. It stands above runs, which use the rest of this folder.

use crate::exit::ExitCode;
use crate::run::{self, RunArgs};

pub fn command(args: RunArgs) -> anyhow::Result<ExitCode> {
    let args = RunArgs { selftest: true, no_lint: true, ..args };
    run::command(args)
}
