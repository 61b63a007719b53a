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
fn gguf_files_are_survived() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/gguf/model.gguf");
    let file = fs::read(fixture).unwrap();
    let whole = file.strip_prefix(b"GGUF").unwrap();
    harness::gguf(whole);
    // Cut off in its header, and with a byte of it changed.
    let header = 1800.min(whole.len());
    for at in (0..header).step_by(7) {
        harness::gguf(&whole[..at]);
        for change in [0xff, 0x80, 0x01] {
            let mut damaged = whole.to_vec();
            damaged[at] ^= change;
            harness::gguf(&damaged);
        }
    }
}

#[test]
fn configurations_are_survived() {
    replay("config", harness::config);
}
