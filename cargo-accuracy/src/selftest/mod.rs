//! `cargo accuracy selftest`: plants every known fault in a workspace's chains and shows which checks see it.
//!
//! The faults are planted in the reference, not in the kernels: what the checks say of them is what they would have said
//! of a kernel that has the fault. So it tests the checks and the tests' data, whatever the kernels do.
//!
//! This is the command; a run with planted faults is in [`crate::run`], and [`table`] renders what it found.

pub mod table;

use crate::exit::ExitCode;
use crate::run::{self, RunArgs};

pub fn command(args: RunArgs) -> anyhow::Result<ExitCode> {
    let args = RunArgs { selftest: true, no_lint: true, ..args };
    run::command(args)
}
