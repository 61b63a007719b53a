//! Folders: the files in them, and reading those that no known producer wrote.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::DumpError;
use super::file::{self, Contents};
use super::{DumpSet, Producer, TensorId, Unread, natural};
use crate::weights::natural_cmp;

/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 6;

/// All files below a folder, by their names with numbers in order. Links to folders are not followed.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, DumpError> {
    fn visit(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DumpError> {
        let io = |e| DumpError::io(folder, e);
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            if !entry.file_type().map_err(io)?.is_dir() {
                files.push(entry.path());
            } else if depth > 0 {
                visit(&entry.path(), depth - 1, files)?;
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    visit(folder, MAX_DEPTH, &mut found)?;
    found.sort_by(|a, b| natural_cmp(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(found)
}

/// Files and what they hold, in the order given. `wanted` are read at the same time.
pub(super) fn read_all(wanted: &[PathBuf]) -> Result<Vec<Contents>, DumpError> {
    wanted.par_iter().map(|path| file::read(path)).collect()
}

/// A file, or all files of a folder. A tensor in a file of several is called by its name in there, the only one of a
/// file by the file's name; names that occur in two files are preceded by the file's.
pub(super) fn read(path: &Path) -> Result<DumpSet, DumpError> {
    let mut set = DumpSet::new(path, Producer::Files);
    let (root, wanted) = if path.is_dir() {
        let known =
            |f: &PathBuf| f.extension().is_some_and(|e| file::EXTENSIONS.iter().any(|known| e == *known));
        (path, files(path)?.into_iter().filter(known).collect())
    } else {
        (path.parent().unwrap_or(Path::new("")), vec![path.to_owned()])
    };
    let mut owners: HashMap<String, usize> = HashMap::new();
    let mut tensors = Vec::new();
    for (file, contents) in wanted.iter().zip(read_all(&wanted)?) {
        let relative = file.strip_prefix(root).unwrap_or(file).with_extension("");
        let relative = relative.to_string_lossy().into_owned();
        let name = |path: &[String]| if path.is_empty() { relative.clone() } else { path.join(".") };
        if contents.tensors.is_empty() && contents.unread.is_empty() {
            set.unread.push(Unread {
                what: file.display().to_string(),
                reason: format!("no tensor in it, but {}", contents.root),
            });
        }
        for (path, reason) in contents.unread {
            set.unread.push(Unread { what: name(&path), reason });
        }
        for found in contents.tensors {
            let name = name(&found.path);
            *owners.entry(name.clone()).or_default() += 1;
            tensors.push((name, relative.clone(), found, file));
        }
    }
    for (name, relative, found, file) in tensors {
        let name = if owners[&name] > 1 { format!("{relative}:{name}") } else { name };
        set.tensors.push(found.tensor(TensorId::value(name), file));
    }
    set.tensors.sort_by(natural);
    Ok(set)
}
