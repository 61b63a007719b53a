//! Summaries of files that did not change. The key is the hash of the file's content, its path and the
//! analyser's own identity, so a stale entry cannot be found.

use std::io::Write;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::source::FileSummary;

/// Changes whenever the executable or what configures the analysis of one file does.
fn identity(guards: &[String]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(env!("CARGO_PKG_VERSION").as_bytes());
    if let Ok(exe) = std::env::current_exe()
        && let Ok(meta) = std::fs::metadata(&exe)
    {
        hash.update(&meta.len().to_le_bytes());
        if let Ok(modified) = meta.modified()
            && let Ok(age) = modified.duration_since(std::time::UNIX_EPOCH)
        {
            hash.update(&age.as_nanos().to_le_bytes());
        }
    }
    for g in guards {
        hash.update(g.as_bytes());
        hash.update(&[0]);
    }
    *hash.finalize().as_bytes()
}

pub type Key = [u8; 32];

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    identity: Key,
    /// Serialised summaries by key.
    files: Vec<(Key, Vec<u8>)>,
}

pub struct Cache {
    path: PathBuf,
    identity: Key,
    entries: FxHashMap<Key, Vec<u8>>,
}

impl Cache {
    /// Reads the cache in `folder`; one that cannot be read is empty.
    pub fn open(folder: &Path, guards: &[String]) -> Self {
        let path = folder.join("lint-cache.bin");
        let identity = identity(guards);
        let stored: Stored =
            std::fs::read(&path).ok().and_then(|b| postcard::from_bytes(&b).ok()).unwrap_or_default();
        let entries = if stored.identity == identity {
            stored.files.into_iter().collect()
        } else {
            FxHashMap::default()
        };
        Self { path, identity, entries }
    }

    pub fn key(&self, path: &str, text: &[u8]) -> Key {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.identity);
        hash.update(&(path.len() as u64).to_le_bytes());
        hash.update(path.as_bytes());
        hash.update(text);
        *hash.finalize().as_bytes()
    }

    pub fn get(&self, key: &Key) -> Option<FileSummary> {
        postcard::from_bytes(self.entries.get(key)?).ok()
    }

    /// Replaces the stored entries by those of this run, whole or not at all.
    pub fn save(&self, files: Vec<(Key, Vec<u8>)>) -> std::io::Result<()> {
        let unchanged =
            files.len() == self.entries.len() && files.iter().all(|(k, _)| self.entries.contains_key(k));
        if unchanged {
            return Ok(());
        }
        let bytes =
            postcard::to_stdvec(&Stored { identity: self.identity, files }).map_err(std::io::Error::other)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let temporary = folder.join(format!("lint-cache.{}.tmp", std::process::id()));
        std::fs::File::create(&temporary)?.write_all(&bytes)?;
        std::fs::rename(&temporary, &self.path)
    }
}
