//! What the fuzz targets found worth keeping, and what once made the reader panic: it survives all of it.

#[path = "../fuzz/harness.rs"]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use accuracy_core::weights::Checkpoint;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut inputs = 0;
    for entry in fs::read_dir(fuzz().join("seeds").join(target)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 10, "{inputs} seeds of {target}");

    let kept = Checkpoint::open(&fuzz().join("kept").join(format!("{target}.safetensors"))).unwrap();
    assert!(kept.names().count() > 100, "{target}");
    for name in kept.names() {
        println!("{name}");
        run(kept.raw(name).unwrap().bytes);
    }
}

#[test]
fn safetensors_files_are_survived() {
    replay("safetensors", harness::safetensors);
}

#[test]
fn configurations_are_survived() {
    replay("config", harness::config);
}
