//! Checkpoints for the tests: a good one, and one for each way to be damaged.

use accuracy_core::weights::{NewTensor, StDtype, write};
use std::collections::BTreeMap;
use std::path::Path;

const ROWS: usize = 48;
const COLS: usize = 256;

/// A checkpoint with a weight for each of so many layers.
pub fn write_layers(dir: &Path, layers: usize) {
    let weights: Vec<NewTensor> =
        (0..layers).map(|i| bf16(&format!("layers.{i}.up_proj.weight"), &[ROWS, COLS], random)).collect();
    folder(&dir.join("layers"), &weights, None);
}

/// A checkpoint of a weight that slices of both dimensions can be taken of.
pub fn write_sliceable(dir: &Path) {
    folder(&dir.join("good"), &[bf16("up_proj.weight", &[ROWS, 384], random)], None);
}

/// Writes all of them into `dir`, a folder each.
pub fn write_all(dir: &Path) {
    let up_proj = bf16("up_proj.weight", &[ROWS, COLS], random);
    folder(&dir.join("good"), &[up_proj], None);
    write_layers(dir, 3);

    let odd = [
        NewTensor {
            name: "integers.weight".into(),
            dtype: StDtype::I64,
            shape: vec![ROWS, COLS],
            bytes: vec![1; ROWS * COLS * 8],
        },
        bf16("cube.weight", &[4, ROWS, COLS], random),
        bf16("constant.weight", &[ROWS, COLS], |_| 0.5),
    ];
    folder(&dir.join("odd"), &odd, None);

    let config = serde_json::json!({"quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"
    }});
    let codes = NewTensor {
        name: "up_proj.weight".into(),
        dtype: StDtype::F8_E4M3,
        shape: vec![ROWS, COLS],
        bytes: (0..ROWS * COLS).map(|i| (random(i) * 64.0) as i8 as u8 & 0x7f).map(|b| b.min(0x7e)).collect(),
    };
    let scales = |shape: [usize; 2]| NewTensor {
        name: "up_proj.weight_scale_inv".into(),
        dtype: StDtype::F32,
        shape: shape.into(),
        bytes: (0..shape[0] * shape[1]).flat_map(|i| (0.01 + i as f32 / 256.0).to_le_bytes()).collect(),
    };
    folder(&dir.join("scale-missing"), std::slice::from_ref(&codes), Some(&config));
    folder(&dir.join("scale-of-wrong-shape"), &[codes, scales([2, 1])], Some(&config));

    let good = std::fs::read(dir.join("good/model.safetensors")).unwrap();
    damaged(&dir.join("truncated"), &good[..good.len() - 1000]);
    let mut absurd = good;
    absurd[..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    damaged(&dir.join("absurd-header"), &absurd);
}

fn folder(dir: &Path, tensors: &[NewTensor], config: Option<&serde_json::Value>) {
    std::fs::create_dir_all(dir).unwrap();
    write(&dir.join("model.safetensors"), tensors, &BTreeMap::new()).unwrap();
    if let Some(config) = config {
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    }
}

fn damaged(dir: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

fn bf16(name: &str, shape: &[usize], value: impl Fn(usize) -> f32) -> NewTensor {
    let elements: usize = shape.iter().product();
    // The upper half of a float32 is a bfloat16.
    let bytes = (0..elements).flat_map(|i| ((value(i).to_bits() >> 16) as u16).to_le_bytes()).collect();
    NewTensor { name: name.into(), dtype: StDtype::BF16, shape: shape.into(), bytes }
}

/// The same numbers each time, from -1 to 1.
fn random(i: usize) -> f32 {
    let mut x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x >> 40) as f32 / (1u64 << 23) as f32) - 1.0
}
