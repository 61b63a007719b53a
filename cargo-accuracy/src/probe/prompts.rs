//! The prompts: the crate's own in `prompts.toml`, and the user's.

use crate::exit::usage;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::PathBuf;

const BUILT_IN: &str = include_str!("prompts.toml");

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    pub id: String,
    /// `knowledge`, `arithmetic`, `coherence`, `not_garbage`, or what the user calls it.
    #[serde(default)]
    pub kind: String,
    pub prompt: String,
    /// One of these is the right answer.
    #[serde(default)]
    pub expect: Vec<String>,
    #[serde(default = "max_tokens")]
    pub max_tokens: u32,
}

fn max_tokens() -> u32 {
    16
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    prompt: Vec<Prompt>,
}

/// The built-in prompts, unless `own_only`, and those of the files.
pub fn load(files: &[PathBuf], own_only: bool) -> anyhow::Result<Vec<Prompt>> {
    let mut prompts = if own_only { Vec::new() } else { parse(BUILT_IN).context("the built-in prompts")? };
    for path in files {
        let text = accuracy_core::files::read_text(path, accuracy_core::files::TEXT)
            .with_context(|| format!("cannot read {}", path.display()))?;
        for prompt in parse(&text).map_err(|e| usage(format!("{}: {e}", path.display())))? {
            prompts.retain(|p| p.id != prompt.id);
            prompts.push(prompt);
        }
    }
    if prompts.is_empty() {
        return Err(usage("no prompt is left to ask"));
    }
    Ok(prompts)
}

fn parse(text: &str) -> anyhow::Result<Vec<Prompt>> {
    let file: File = toml::from_str(text)?;
    let mut seen = HashSet::new();
    for prompt in &file.prompt {
        let id = &prompt.id;
        anyhow::ensure!(seen.insert(id), "prompt `{id}` is there twice");
        anyhow::ensure!(!prompt.prompt.is_empty(), "prompt `{id}` is empty");
        anyhow::ensure!(prompt.max_tokens > 0, "prompt `{id}` asks for no token");
        anyhow::ensure!(
            prompt.expect.iter().all(|e| !e.trim().is_empty()),
            "prompt `{id}` expects an empty answer"
        );
    }
    Ok(file.prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_prompts_cover_each_kind_and_hide_their_answers() {
        let prompts = load(&[], false).unwrap();
        for kind in ["knowledge", "arithmetic", "coherence", "not_garbage"] {
            assert!(prompts.iter().any(|p| p.kind == kind), "{kind}");
        }
    }

    #[test]
    fn mistakes_in_a_file_are_named() {
        for (bad, part) in [
            ("[[prompt]]\nid='a'\nprompt=''", "`a` is empty"),
            ("[[prompt]]\nid='a'\nprompt='x'\n[[prompt]]\nid='a'\nprompt='x'", "twice"),
            ("[[prompt]]\nid='a'\nprompt='x'\nexpect=[' ']", "empty answer"),
            ("[[prompt]]\nid='a'\nprompt='x'\nmax_tokens=0", "no token"),
            ("[[prompt]]\nid='a'\nprompt='x'\nexpected=['y']", "expected"),
        ] {
            assert!(parse(bad).unwrap_err().to_string().contains(part), "{bad}");
        }
    }
}
