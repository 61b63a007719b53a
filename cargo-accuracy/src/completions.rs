//! `cargo accuracy completions`: completion scripts for shells.
//!
//! A script for `cargo-accuracy ...` alone would be of little use, as people write `cargo accuracy ...`. zsh's completion
//! of cargo calls the function `_cargo-accuracy` by itself; bash and fish get some lines more.

use crate::exit::ExitCode;
use clap_complete::{Shell, generate};
use std::io::Write as _;

pub const EXAMPLES: &str = "\
Examples:
  cargo accuracy completions bash > ~/.local/share/bash-completion/completions/cargo-accuracy
      and in ~/.bashrc, for `cargo accuracy`: source ~/.local/share/bash-completion/completions/cargo-accuracy
  cargo accuracy completions zsh > ~/.zfunc/_cargo-accuracy      with ~/.zfunc in fpath before compinit
  cargo accuracy completions fish > ~/.config/fish/conf.d/cargo-accuracy.fish";

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

pub fn command(args: &CompletionsArgs, mut cli: clap::Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let (shell, more) = match args.shell {
        Supported::Bash => (Shell::Bash, BASH),
        Supported::Zsh => (Shell::Zsh, ""),
        Supported::Fish => (Shell::Fish, FISH),
    };
    // Scripts are for the program; clap would take the two words of `cargo accuracy` for its name.
    cli = cli.bin_name("cargo-accuracy");
    generate(shell, &mut cli, "cargo-accuracy", &mut script);
    script.extend(more.as_bytes());
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::Correct)
}

const BASH: &str = r#"
# `cargo accuracy ...`: the words without `cargo`, completed as those of cargo-accuracy.
_cargo_accuracy_as_subcommand() {
    if [[ ${COMP_WORDS[1]} == accuracy && $COMP_CWORD -ge 2 ]]; then
        COMP_WORDS=(cargo-accuracy "${COMP_WORDS[@]:2}")
        COMP_CWORD=$((COMP_CWORD - 1))
        _cargo-accuracy cargo-accuracy "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
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
    complete -F _cargo_accuracy_as_subcommand -o nosort -o bashdefault -o default cargo
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
