//! Where the Hugging Face cache keeps a repository's files. Nothing is downloaded.

use std::path::{Path, PathBuf};

use super::WeightsError;

/// The cache's folder: `HF_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub` or
/// `~/.cache/huggingface/hub`, the first that is set.
pub fn hub_cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("HF_HUB_CACHE")
        .or_else(|| Some(set("HF_HOME")?.join("hub")))
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache/huggingface/hub"))
}

/// Splits `org/name@revision`; the revision is `main` where none is given.
pub(super) fn split(spec: &str) -> Option<(&str, &str)> {
    let (repository, revision) = spec.split_once('@').unwrap_or((spec, "main"));
    let (org, name) = repository.split_once('/')?;
    let part = |s: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !s.is_empty() && s.chars().all(allowed) && !s.starts_with('.')
    };
    let steps = revision.split('/').all(part);
    (part(org) && part(name) && steps).then_some((repository, revision))
}

/// The folder that holds the files of `repository` (`org/name`) at a branch, tag or commit.
///
/// The cache has `models--org--name/refs/<revision>`, a file with a commit, and
/// `models--org--name/snapshots/<commit>`.
///
/// # Errors
/// [`WeightsError::NotCached`], which says how to fetch it.
pub fn cached_snapshot(cache: &Path, repository: &str, revision: &str) -> Result<PathBuf, WeightsError> {
    if split(&format!("{repository}@{revision}")).is_none() {
        return Err(WeightsError::NotARepository { spec: format!("{repository}@{revision}") });
    }
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let commit = crate::files::read_text(&folder.join("refs").join(revision), crate::files::TEXT);
    let commit = commit.as_deref().map_or(revision, str::trim);
    let snapshot = folder.join("snapshots").join(commit);
    if !commit.is_empty() && !commit.contains(['/', '\\']) && commit != ".." && snapshot.is_dir() {
        return Ok(snapshot);
    }
    Err(WeightsError::NotCached {
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        cache: cache.to_owned(),
    })
}
