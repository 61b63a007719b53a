//! What the targets for dumps do with an input.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use accuracy_core::dumps::DumpSet;

/// What is read of a tensor: a fuzzer's input may repeat a byte for ever.
const MAX_VALUES: usize = 1 << 16;

/// Bytes as the pickle of a `.pt` file with two storages.
pub fn pickle(input: &[u8]) {
    check(&file("x.pt", &archive(&[("a/data.pkl", input), ("a/data/0", &[7; 64]), ("a/data/1", &[0; 8])])));
}

/// The first byte says what the rest is: `p` a whole `.pt` file, `z` an `.npz`, `n` an `.npy`, `a` an array in an `.npz`.
pub fn files(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    match kind {
        b'p' => check(&file("x.pt", rest)),
        b'z' => check(&file("x.npz", rest)),
        b'n' => check(&file("x.npy", rest)),
        b'a' => check(&file("x.npz", &archive(&[("a.npy", rest)]))),
        _ => {}
    }
}

/// The first byte says what the rest is: `m` the manifest of our own dump beside its files, `t` the tree of a dump of the
/// Hugging Face model debugger.
pub fn manifest(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    let dumps = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dumps =
        if dumps.ends_with("fuzz") { dumps.join("../tests/dumps") } else { dumps.join("tests/dumps") };
    let (source, name) = match kind {
        b'm' => ("accuracy-odd", "accuracy_dump.rank3.jsonl"),
        b't' => ("huggingface", "LlamaForCausalLM_debug_tree_FULL_TENSORS.json"),
        _ => return,
    };
    let target = folder().join(source);
    if !target.exists() {
        fs::create_dir(&target).unwrap();
        for entry in fs::read_dir(dumps.join(source)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
        }
    }
    fs::write(target.join(name), rest).unwrap();
    check(&target);
}

/// An error is fine, if it says something; a panic is not. What is read has the size that was promised.
fn check(path: &Path) {
    let set = match DumpSet::open(path) {
        Ok(set) => set,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut values: Vec<f32> = Vec::new();
    for tensor in &set.tensors {
        assert!(!tensor.id.to_string().is_empty());
        let Ok(data) = tensor.open() else { continue };
        let count: usize = tensor.shape().iter().product();
        assert_eq!(data.rows() * data.cols(), count);
        if count > MAX_VALUES {
            continue;
        }
        let mut read = 0;
        for rows in data.panels(100) {
            data.read(rows, &mut values);
            read += values.len();
        }
        assert_eq!(read, count, "{}", tensor.id);
        assert_eq!(data.raw().len(), (count * tensor.element().bits()).div_ceil(8));
        if let Some(integers) = data.integers() {
            assert_eq!(integers.len(), count);
        }
        let _ = data.compare(&data);
    }
    for step in set.steps() {
        for rank in set.ranks() {
            let _ = set.token_ids(step, rank);
        }
    }
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A folder of this thread's own, in memory where the system has a place for that.
fn folder() -> PathBuf {
    thread_local!(static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() });
    let memory = Path::new("/dev/shm");
    let create = || if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    FOLDER.with(|folder| folder.get_or_init(|| create().unwrap()).path().to_owned())
}

/// A stored zip archive with these entries.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for _ in 0..2 {
            common.extend((bytes.len() as u32).to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend(*bytes);
    }
    let start = file.len() as u32;
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        file.extend((entries.len() as u16).to_le_bytes());
    }
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}
