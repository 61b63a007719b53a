//! Dispatches `cargo accuracy`'s commands.

mod lint;

use clap::Parser;

#[derive(Parser)]
#[command(bin_name = "cargo accuracy")]
enum Cli {
    Lint(lint::cli::LintArgs),
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "accuracy") {
        args.remove(1);
    }
    let Cli::Lint(args) = Cli::parse_from(args);
    lint::cli::command(args)
}
