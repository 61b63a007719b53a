//! `cargo accuracy completions`: completion scripts for shells.
//!
//! A script for `cargo-accuracy ...` alone would be of little use, as people write `cargo accuracy ...`. zsh's completion
//! of cargo calls the function `_cargo-accuracy` by itself; bash and fish get some lines more.

use crate::exit::ExitCode;
use clap_complete::{Shell, generate};
use std::io::Write as _;

pub const EXAMPLES: &str = "\
Examples:
  cargo accuracy completions bash > ~/.cargo-accuracy.bash
      and in ~/.bashrc: source ~/.cargo-accuracy.bash
  cargo accuracy completions zsh > ~/.zfunc/_cargo-accuracy
      and in ~/.zshrc, before compinit: fpath+=~/.zfunc
  cargo accuracy completions fish > ~/.config/fish/conf.d/accuracy.fish";

#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    pub shell: Supported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Supported {
    Bash,
    Zsh,
    Fish,
}

pub fn command(args: &CompletionsArgs, cli: clap::Command) -> anyhow::Result<ExitCode> {
    // Without the commands that only the program itself gives.
    let shown: Vec<_> = cli.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
    let (arguments, groups) = (cli.get_arguments().cloned(), cli.get_groups().cloned());
    let mut cli = clap::Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .args(arguments.collect::<Vec<_>>())
        .groups(groups.collect::<Vec<_>>())
        .subcommands(shown);
    let script = match args.shell {
        // The generator for bash loses the subcommands of a program with a hyphen in its name.
        Supported::Bash => {
            let script = generated(Shell::Bash, &mut cli, "cargo_accuracy");
            let (functions, _registration) = script.rsplit_once("\nif [[").unwrap_or((&script, ""));
            format!("{functions}{BASH}")
        }
        Supported::Zsh => generated(Shell::Zsh, &mut cli, PROGRAM),
        Supported::Fish => generated(Shell::Fish, &mut cli, PROGRAM) + FISH,
    };
    std::io::stdout().write_all(script.as_bytes())?;
    Ok(ExitCode::Correct)
}

const PROGRAM: &str = "cargo-accuracy";

fn generated(shell: Shell, cli: &mut clap::Command, name: &str) -> String {
    let mut script = Vec::new();
    generate(shell, cli, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

const BASH: &str = r#"
complete -F _cargo_accuracy -o bashdefault -o default cargo-accuracy

# `cargo accuracy ...`: the words behind `cargo`, completed as those of cargo-accuracy.
_cargo_accuracy_as_subcommand() {
    if [[ ${COMP_WORDS[1]} == accuracy && $COMP_CWORD -ge 2 ]]; then
        COMP_WORDS=(cargo-accuracy "${COMP_WORDS[@]:2}")
        COMP_CWORD=$((COMP_CWORD - 1))
        _cargo_accuracy cargo-accuracy "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    elif [[ -n $_cargo_accuracy_before ]]; then
        "$_cargo_accuracy_before" "$@"
    elif [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "accuracy bench build check clean doc run test" -- "${COMP_WORDS[1]}"))
    fi
}
if ! complete -p cargo 2>/dev/null | grep -q _cargo_accuracy_as_subcommand; then
    # bash-completion loads what completes cargo when it is first asked for.
    declare -F _completion_loader >/dev/null && _completion_loader cargo 2>/dev/null
    _cargo_accuracy_before=$(complete -p cargo 2>/dev/null | sed -n 's/.*-F \([^ ]*\).*/\1/p')
    complete -F _cargo_accuracy_as_subcommand -o bashdefault -o default cargo
fi
"#;

const FISH: &str = r#"
# `cargo accuracy ...`: the words behind `cargo`, completed as those of cargo-accuracy.
function __cargo_accuracy_as_subcommand
    set -l words (commandline -opc)
    complete -C "cargo-accuracy $(string join ' ' -- (string escape -- $words[3..])) $(commandline -ct)"
end
complete -c cargo -n '__fish_use_subcommand' -f -a accuracy -d 'Judge the numbers of inference kernels'
complete -c cargo -n '__fish_seen_subcommand_from accuracy' -f -a '(__cargo_accuracy_as_subcommand)'
"#;
