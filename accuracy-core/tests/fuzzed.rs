//! The inputs that the fuzz targets start from, and those that once made the reader panic: it survives them all.

#[path = "../fuzz/harness.rs"]
mod harness;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 10, "{inputs} inputs in {}", folder.display());
}

#[test]
fn kept_safetensors_files_are_survived() {
    replay("safetensors", harness::safetensors);
}

#[test]
fn kept_configurations_are_survived() {
    replay("config", harness::config);
}
