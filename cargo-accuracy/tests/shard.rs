//! `cargo accuracy shard` on a small checkpoint: what it writes means what was asked for.

use accuracy_core::weights::{Checkpoint, NewTensor, StDtype, write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Neither is a multiple of a block.
const ROWS: usize = 200;
const COLS: usize = 320;

/// A checkpoint with two matrices in float32, a norm, a bias, and a matrix with a NaN.
fn source(dir: &Path) -> PathBuf {
    let tensor = |name: &str, shape: &[usize], value: &dyn Fn(usize) -> f32| NewTensor {
        name: name.into(),
        dtype: StDtype::F32,
        shape: shape.into(),
        bytes: (0..shape.iter().product()).flat_map(|i| value(i).to_le_bytes()).collect(),
    };
    let path = dir.join("source.safetensors");
    let tensors = [
        tensor("layers.0.up.weight", &[ROWS, COLS], &weight),
        tensor("layers.0.up.bias", &[ROWS], &|i| i as f32),
        tensor("layers.0.down.weight", &[COLS, ROWS], &|i| weight(i + 7)),
        tensor("layers.0.norm.weight", &[COLS], &|i| 1.0 + weight(i)),
        tensor("layers.0.odd.weight", &[2, 2], &|i| if i == 3 { f32::NAN } else { 1.0 }),
    ];
    write(&path, &tensors, &Default::default()).unwrap();
    path
}

/// Blocks of very different magnitude, both signs, a block of zeros.
fn weight(i: usize) -> f32 {
    let (row, column) = (i / COLS, i % COLS);
    if row < 128 && column < 128 {
        return 0.0;
    }
    let noise = ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    noise * if column >= 256 { 100.0 } else { 0.01 }
}

fn shard(from: &Path, out: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
    command.arg("shard").arg("--from").arg(from).arg("--out").arg(out).args(flags).output().unwrap()
}

fn carved(flags: &[&str]) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = shard(&source(dir.path()), &out, &[&["--tensors", "layers.{n}.up"], flags].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checkpoint = Checkpoint::open(&out).unwrap();
    (dir, checkpoint)
}

fn original() -> Vec<f64> {
    (0..ROWS * COLS).map(|i| f64::from(weight(i))).collect()
}

/// The float32 scales that cells of this shape should have, computed from the definition.
fn scales(cell: (usize, usize), max: f32) -> Vec<f64> {
    let mut scales = Vec::new();
    for first_row in (0..ROWS).step_by(cell.0) {
        for first_column in (0..COLS).step_by(cell.1) {
            let mut amax = 0.0f32;
            for row in first_row..(first_row + cell.0).min(ROWS) {
                for column in first_column..(first_column + cell.1).min(COLS) {
                    amax = amax.max(weight(row * COLS + column).abs());
                }
            }
            // A cell of zeros has scale 1.
            scales.push(if amax == 0.0 { 1.0 } else { f64::from(amax / max) });
        }
    }
    scales
}

/// Half a unit in the last place of the largest binade of a format is the most that an element may be off.
fn assert_close(checkpoint: &Checkpoint, cell: (usize, usize), max: f32, half_unit: f64) {
    let stored = checkpoint.linear("layers.0.up").unwrap();
    let expected = scales(cell, max);
    assert_eq!(stored.scales, expected);
    let columns = COLS.div_ceil(cell.1);
    for (i, (value, original)) in stored.values().iter().zip(original()).enumerate() {
        let scale = expected[i / COLS / cell.0 * columns + i % COLS / cell.1];
        let error = (value - original).abs();
        assert!(error <= half_unit * scale * (1.0 + 1e-6), "element {i}: {value} for {original}");
    }
}

#[test]
fn fp8_blocks_have_the_scales_of_their_blocks() {
    let (_dir, checkpoint) = carved(&["--to", "fp8-block"]);
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(names, ["layers.0.up.weight", "layers.0.up.weight_scale_inv"]);
    assert_eq!(checkpoint.raw(names[0]).unwrap().dtype, StDtype::F8_E4M3);
    assert_eq!(checkpoint.raw(names[1]).unwrap().shape, [2, 3]);
    assert_close(&checkpoint, (128, 128), 448.0, 16.0);
}

#[test]
fn fp8_channels_have_a_scale_each() {
    let (_dir, checkpoint) = carved(&["--to", "fp8-token"]);
    assert_eq!(checkpoint.raw("layers.0.up.weight_scale").unwrap().shape, [ROWS, 1]);
    assert_close(&checkpoint, (1, COLS), 448.0, 16.0);
}

#[test]
fn an_fp8_tensor_has_one_scale() {
    let (_dir, checkpoint) = carved(&["--to", "fp8-tensor"]);
    assert_eq!(checkpoint.raw("layers.0.up.weight_scale").unwrap().shape, [1]);
    assert_close(&checkpoint, (ROWS, COLS), 448.0, 16.0);
}

#[test]
fn int8_channels_have_a_scale_each() {
    let (_dir, checkpoint) = carved(&["--to", "int8-channel"]);
    assert_eq!(checkpoint.raw("layers.0.up.weight").unwrap().dtype, StDtype::I8);
    assert_close(&checkpoint, (1, COLS), 127.0, 0.5);
}

#[test]
fn float32_keeps_every_value_and_bfloat16_rounds_to_nearest_even() {
    let (_dir, checkpoint) = carved(&["--to", "f32"]);
    assert_eq!(checkpoint.linear("layers.0.up").unwrap().values(), original());
    let (_dir, checkpoint) = carved(&["--to", "bf16"]);
    let nearest = |value: f64| {
        let bits = (value as f32).to_bits();
        f64::from(f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
    };
    let expected: Vec<f64> = original().into_iter().map(nearest).collect();
    assert_eq!(checkpoint.linear("layers.0.up").unwrap().values(), expected);
}

#[test]
fn vectors_stay_as_they_are_and_everything_fits_into_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let flags = ["--tensors", "layers.0.norm", "--tensors", "layers.0.down", "--tensors", "layers.0.up.*"];
    let output =
        shard(&source(dir.path()), &out, &[&flags[..], &["--to", "f32", "--max-file-size", "1"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!out.join("model.safetensors.index.json").exists(), "half a MiB is one file");

    let long = dir.path().join("long");
    let path = dir.path().join("large.safetensors");
    let large = |name: &str| NewTensor {
        name: name.into(),
        dtype: StDtype::F32,
        shape: vec![400, 500],
        bytes: (0..200_000u32).flat_map(|i| (i as f32).to_le_bytes()).collect(),
    };
    write(&path, &[large("a.weight"), large("b.weight")], &Default::default()).unwrap();
    let output = shard(&path, &long, &["--tensors", "*", "--to", "f32", "--max-file-size", "1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(long.join("model-00001-of-00002.safetensors").exists());
    let index = std::fs::read_to_string(long.join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["weight_map"]["b.weight"], "model-00002-of-00002.safetensors");
    assert_eq!(index["metadata"]["total_size"], 1_600_000);
    assert_eq!(Checkpoint::open(&long).unwrap().linear("b").unwrap().values()[199_999], 199_999.0);

    let checkpoint = Checkpoint::open(&out).unwrap();
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(
        names,
        ["layers.0.down.weight", "layers.0.norm.weight", "layers.0.up.bias", "layers.0.up.weight"]
    );
    let norm: Vec<f64> = (0..COLS).map(|i| f64::from(1.0 + weight(i))).collect();
    assert_eq!(checkpoint.vector("layers.0.norm").unwrap(), norm);
}

#[test]
fn a_quantised_shard_can_be_carved_again_or_taken_back() {
    let (dir, first) = carved(&["--to", "fp8-block"]);
    let from = dir.path().join("out");
    let values = first.linear("layers.0.up").unwrap().values();
    for (name, flags) in
        [("copy", &["--tensors", "*.0.up"][..]), ("back", &["--tensors", "*.0.up", "--to", "f32"])]
    {
        let out = dir.path().join(name);
        let output = shard(&from, &out, flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let again = Checkpoint::open(&out).unwrap().linear("layers.0.up").unwrap().values();
        let float32: Vec<f64> = values.iter().map(|v| f64::from(*v as f32)).collect();
        assert_eq!(again, if name == "copy" { values.clone() } else { float32 }, "{name}");
    }
}

#[test]
fn the_header_says_where_the_tensors_came_from() {
    let (dir, _) = carved(&["--to", "bf16"]);
    let header = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        serde_json::from_slice::<serde_json::Value>(&bytes[8..8 + length]).unwrap()
    };
    let metadata = &header(&dir.path().join("out/model.safetensors"))["__metadata__"];
    let sum = Command::new("sha256sum").arg(dir.path().join("source.safetensors")).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap();
    assert_eq!(metadata["source source.safetensors sha256"], sum.split_whitespace().next().unwrap());
    let command = metadata["command"].as_str().unwrap();
    assert!(command.starts_with("cargo accuracy shard --from "), "{command}");
    assert!(command.ends_with("--tensors 'layers.{n}.up' --to bf16"), "{command}");
}

#[test]
fn what_cannot_be_carved_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let from = source(dir.path());
    let refused = |flags: &[&str], status: i32, parts: &[&str]| {
        let output = shard(&from, &dir.path().join("out"), flags);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    };
    refused(&["--tensors", "layers.0.gate"], 2, &["\"layers.0.gate\" matches nothing", "source.safetensors"]);
    refused(&["--tensors", "layers.0.odd", "--to", "fp8-block"], 101, &["layers.0.odd", "row 1, column 1"]);
    refused(&["--tensors", "layers.0.up", "--to", "fp7"], 2, &["fp7", "fp8-block"]);
    refused(&[], 2, &["--tensors"]);
    assert!(!dir.path().join("out").exists(), "nothing is written before everything is read");

    std::fs::create_dir(dir.path().join("out")).unwrap();
    std::fs::write(dir.path().join("out/old.safetensors"), "").unwrap();
    refused(&["--tensors", "layers.0.up"], 2, &["old.safetensors is there already"]);
}
