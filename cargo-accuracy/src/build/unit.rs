//! One file that a command makes of others, made again only when something of it has changed.
//!
//! What it was made of is a hash beside it: of the command, the compiler and the contents of every input, headers
//! included as the compiler lists them. Times of files say nothing: they change with every checkout.

use super::compiler::Compiler;
use accuracy_core::files;
use anyhow::Context as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub struct Unit {
    pub command: Command,
    /// Those that the command names.
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
}

impl Unit {
    /// Runs the command, unless its output is what it would make.
    pub fn bring_up_to_date(&self, compiler: &Compiler) -> anyhow::Result<()> {
        let stamp = self.stamp();
        let known = std::fs::read_to_string(&stamp).ok();
        if self.output.is_file() && known.is_some() && known == self.state(compiler) {
            return Ok(());
        }
        // One that was made before is not taken for the outcome of a command that fails, or is interrupted.
        for stale in [&stamp, &self.output] {
            match std::fs::remove_file(stale) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("cannot remove {}", stale.display()));
                }
                _ => {}
            }
        }
        let mut command = Command::new(self.command.get_program());
        command.args(self.command.get_args());
        if let Some(dir) = self.command.get_current_dir() {
            command.current_dir(dir);
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.words()))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if !output.status.success() {
            let hints = if compiler.host { accuracy_core::build::hints(&said) } else { Vec::new() };
            let hints: String = hints.iter().map(|hint| format!("\nhint: {hint}")).collect();
            anyhow::bail!("{} ended with {}\n{}{hints}", self.words(), output.status, said.trim_end());
        }
        if !said.trim().is_empty() {
            crate::say!("{}", said.trim_end());
        }
        let state = self.state(compiler).with_context(|| format!("{} left no output", self.words()))?;
        std::fs::write(&stamp, state).with_context(|| format!("cannot write {}", stamp.display()))
    }

    fn stamp(&self) -> PathBuf {
        let mut name = self.output.clone().into_os_string();
        name.push(".made-of");
        name.into()
    }

    fn words(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// A hash of everything that decides what the output is; `None` where one of the inputs cannot be read.
    fn state(&self, compiler: &Compiler) -> Option<String> {
        let mut inputs = self.inputs.clone();
        let dir = self.command.get_current_dir();
        if let Ok(rule) = std::fs::read_to_string(self.output.with_extension("d")) {
            let listed = accuracy_core::build::prerequisites(&rule).into_iter().map(PathBuf::from);
            inputs.extend(listed.map(|path| dir.map_or(path.clone(), |dir| dir.join(&path))));
        }
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(self.words().as_bytes());
        add(compiler.identity.as_bytes());
        inputs.sort();
        inputs.dedup();
        for input in inputs {
            add(input.as_os_str().as_encoded_bytes());
            add(&files::read(&input, files::LIBRARY).ok()?);
        }
        Some(hasher.finalize().to_hex().to_string())
    }
}
