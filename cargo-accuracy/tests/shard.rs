//! `cargo accuracy shard` on a small checkpoint: what it writes means what was asked for.

use accuracy_core::dtype::DType;
use accuracy_core::weights::{Checkpoint, NewTensor, StDtype, write};
use std::collections::BTreeSet;
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
    assert_eq!(names, ["layers.0.up.bias", "layers.0.up.weight", "layers.0.up.weight_scale_inv"]);
    assert_eq!(checkpoint.raw(names[1]).unwrap().dtype, StDtype::F8_E4M3);
    assert_eq!(checkpoint.raw(names[2]).unwrap().shape, [2, 3]);
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

/// The raw tensor `layers.0.up.{ending}`, of that dtype and shape.
fn raw(checkpoint: &Checkpoint, ending: &str, dtype: StDtype, shape: &[usize]) -> Vec<u8> {
    let tensor = checkpoint.raw(&format!("layers.0.up.{ending}")).unwrap();
    assert_eq!((tensor.dtype, tensor.shape), (dtype, shape), "{ending}");
    tensor.bytes.to_vec()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
}

fn nibble(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 2] >> (4 * (index % 2)) & 15
}

fn e2m1(code: u8) -> f64 {
    let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// The reader gives what the convention says, bit for bit; and that is near to what was quantised: each element off by
/// no more than `step` of its group's scale, each group's largest magnitude met or saturated.
#[track_caller]
fn assert_means(
    checkpoint: &Checkpoint,
    step: f64,
    value: impl Fn(usize, usize) -> f64,
    scale: impl Fn(usize, usize) -> f64,
) {
    let read = checkpoint.linear("layers.0.up").unwrap().values();
    for (i, (&read, original)) in read.iter().zip(original()).enumerate() {
        let (row, column) = (i / COLS, i % COLS);
        assert_eq!(read.to_bits(), value(row, column).to_bits(), "element {i}: {read} for {original}");
        let off = (read - original).abs() / scale(row, column);
        assert!(off <= step, "element {i}: {read} for {original}, {off} of the scale {}", scale(row, column));
    }
}

#[test]
fn mxfp4_is_stored_as_quark_stores_it() {
    let (_dir, checkpoint) = carved(&["--to", "mxfp4"]);
    let codes = raw(&checkpoint, "weight", StDtype::U8, &[ROWS, COLS / 2]);
    let scales = raw(&checkpoint, "weight_scale", StDtype::U8, &[ROWS, COLS / 32]);
    let scale = |row, column| 2f64.powi(i32::from(scales[row * (COLS / 32) + column / 32]) - 127);
    // The scale is rounded, too: a maximum of up to 7 scales saturates at 6.
    assert_means(&checkpoint, 1.0, |r, c| e2m1(nibble(&codes, r * COLS + c)) * scale(r, c), scale);
    let config = checkpoint.quantization_config().unwrap();
    assert_eq!(
        (&config["quant_method"], &config["global_quant_config"]["weight"]["dtype"]),
        (&"quark".into(), &"fp4".into())
    );
}

#[test]
fn mxfp8_has_a_power_of_two_for_each_group() {
    let (_dir, checkpoint) = carved(&["--to", "mxfp8"]);
    let codes = raw(&checkpoint, "weight", StDtype::F8_E4M3, &[ROWS, COLS]);
    let scales = raw(&checkpoint, "weight_scale", StDtype::U8, &[ROWS, COLS / 32]);
    let scale = |row, column| 2f64.powi(i32::from(scales[row * (COLS / 32) + column / 32]) - 127);
    let value = |r: usize, c: usize| DType::E4M3Fn.decode(codes[r * COLS + c].into()) * scale(r, c);
    assert_means(&checkpoint, 32.0, value, scale);
}

#[test]
fn nvfp4_divides_by_its_global_scale_or_as_modelopt_multiplies() {
    for (to, codes, global) in
        [("nvfp4", "weight_packed", "weight_global_scale"), ("nvfp4-modelopt", "weight", "weight_scale_2")]
    {
        let (_dir, checkpoint) = carved(&["--to", to]);
        let codes = raw(&checkpoint, codes, StDtype::U8, &[ROWS, COLS / 2]);
        let scales = raw(&checkpoint, "weight_scale", StDtype::F8_E4M3, &[ROWS, COLS / 16]);
        let global = f32::from_le_bytes(raw(&checkpoint, global, StDtype::F32, &[1]).try_into().unwrap());
        let global = |x: f64| if to == "nvfp4" { x / f64::from(global) } else { x * f64::from(global) };
        let of_group = |r: usize, c: usize| DType::E4M3Fn.decode(scales[r * (COLS / 16) + c / 16].into());
        let value = |r: usize, c: usize| global(e2m1(nibble(&codes, r * COLS + c)) * of_group(r, c));
        let magnitudes: Vec<f64> = original().iter().map(|v| v.abs()).collect();
        let largest = magnitudes.iter().copied().fold(0.0, f64::max);
        assert!(
            (global(448.0 * 6.0) / largest - 1.0).abs() < 1e-6,
            "the largest scale is the format's maximum"
        );
        // Groups far below the largest have scales of few bits, or none: the smallest that e4m3 has is 2^-9.
        let floor = global(2f64.powi(-9));
        assert_means(&checkpoint, 1.5, value, |r, c| global(of_group(r, c)).max(floor * 4.0));
    }
}

#[test]
fn awq_packs_along_n_in_its_own_order() {
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let (_dir, checkpoint) = carved(&["--to", "int4-awq", "--group-size", "64"]);
    let codes = words(&raw(&checkpoint, "qweight", StDtype::I32, &[COLS, ROWS / 8]));
    let zeros = words(&raw(&checkpoint, "qzeros", StDtype::I32, &[COLS / 64, ROWS / 8]));
    let scales = raw(&checkpoint, "scales", StDtype::F16, &[COLS / 64, ROWS]);
    let element = |word: u32, row: usize| {
        let place = ORDER.iter().position(|&e| e == row % 8).unwrap();
        f64::from(word >> (4 * place) & 15)
    };
    let scale = |r: usize, c: usize| DType::F16.decode(DType::F16.code_at(&scales, c / 64 * ROWS + r));
    let value = |r: usize, c: usize| {
        let code = element(codes[c * (ROWS / 8) + r / 8], r);
        (code - element(zeros[c / 64 * (ROWS / 8) + r / 8], r)) * scale(r, c)
    };
    // Half a step, and another half where the zero point is rounded.
    assert_means(&checkpoint, 1.0, value, scale);
    let different: BTreeSet<u32> = zeros.iter().map(|word| word & 15).collect();
    assert!(different.len() > 2, "{different:?}");
    assert_eq!(checkpoint.quantization_config().unwrap()["group_size"], 64);
}

#[test]
fn gptq_packs_along_k_and_stores_zero_points_minus_one() {
    let (_dir, checkpoint) = carved(&["--to", "int4-gptq", "--group-size", "64"]);
    let codes = words(&raw(&checkpoint, "qweight", StDtype::I32, &[COLS / 8, ROWS]));
    let zeros = words(&raw(&checkpoint, "qzeros", StDtype::I32, &[COLS / 64, ROWS / 8]));
    let scales = raw(&checkpoint, "scales", StDtype::F16, &[COLS / 64, ROWS]);
    let groups = words(&raw(&checkpoint, "g_idx", StDtype::I32, &[COLS]));
    assert!(groups.iter().enumerate().all(|(c, &g)| g as usize == c / 64));
    assert!(zeros.iter().all(|&word| word == 0x7777_7777), "symmetric");
    let scale = |r: usize, c: usize| DType::F16.decode(DType::F16.code_at(&scales, c / 64 * ROWS + r));
    let value =
        |r: usize, c: usize| (f64::from(codes[c / 8 * ROWS + r] >> (4 * (c % 8)) & 15) - 8.0) * scale(r, c);
    assert_means(&checkpoint, 0.51, value, scale);
}

#[test]
fn compressed_tensors_packs_along_k_with_zero_points_along_n() {
    let (_dir, checkpoint) = carved(&["--to", "int4-pack", "--group-size", "64"]);
    let codes = words(&raw(&checkpoint, "weight_packed", StDtype::I32, &[ROWS, COLS / 8]));
    let zeros = words(&raw(&checkpoint, "weight_zero_point", StDtype::I32, &[ROWS / 8, COLS / 64]));
    let scales = raw(&checkpoint, "weight_scale", StDtype::BF16, &[ROWS, COLS / 64]);
    let shape = raw(&checkpoint, "weight_shape", StDtype::I64, &[2]);
    assert_eq!(words(&shape), [ROWS as u32, 0, COLS as u32, 0]);
    let scale =
        |r: usize, c: usize| DType::BF16.decode(DType::BF16.code_at(&scales, r * (COLS / 64) + c / 64));
    let value = |r: usize, c: usize| {
        let code = f64::from(codes[r * (COLS / 8) + c / 8] >> (4 * (c % 8)) & 15);
        (code - f64::from(zeros[r / 8 * (COLS / 64) + c / 64] >> (4 * (r % 8)) & 15)) * scale(r, c)
    };
    assert_means(&checkpoint, 1.02, value, scale);
}

#[test]
fn nothing_is_odd_about_what_is_written() {
    for to in [
        "f32",
        "bf16",
        "fp8-block",
        "fp8-token",
        "fp8-tensor",
        "mxfp8",
        "mxfp4",
        "nvfp4",
        "nvfp4-modelopt",
        "int8-channel",
        "int4-awq",
        "int4-gptq",
        "int4-pack",
    ] {
        let group: &[&str] = if to.starts_with("int4") { &["--group-size", "64"] } else { &[] };
        let (dir, _) = carved(&[&["--to", to], group].concat());
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
        let output = command
            .arg("weights")
            .arg(dir.path().join("out"))
            .args(["--scan", "--format", "json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{to}: {}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["weights"].as_array().unwrap().len(), 1, "{to}");
        assert_eq!(json["findings"].as_array().unwrap().len(), 0, "{to}: {}", json["findings"]);
    }
}

#[test]
fn rows_and_columns_are_taken_of_what_is_kept_and_of_what_is_converted() {
    let (dir, first) = carved(&["--to", "int4-awq", "--group-size", "64"]);
    let whole = first.linear("layers.0.up").unwrap().values();
    let from = dir.path().join("out");
    let part = ["--tensors", "*.0.up", "--rows", "8..24", "--columns", "64..192"];
    let wanted = |values: &[f64]| -> Vec<f64> {
        (8..24).flat_map(|r| &values[r * COLS..][64..192]).copied().collect()
    };
    for (name, flags) in [("kept", &[][..]), ("converted", &["--to", "f32"])] {
        let out = dir.path().join(name);
        let output = shard(&from, &out, &[&part[..], flags].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read = Checkpoint::open(&out).unwrap().linear("layers.0.up").unwrap().values();
        assert_eq!(read, wanted(&whole), "{name}");
        let bias: Vec<f64> = (8..24).map(f64::from).collect();
        assert_eq!(Checkpoint::open(&out).unwrap().vector("layers.0.up.bias").unwrap(), bias, "{name}");
    }
    let cut = shard(&from, &dir.path().join("cut"), &["--tensors", "*.0.up", "--columns", "0..32"]);
    let text = String::from_utf8_lossy(&cut.stderr);
    assert_eq!(cut.status.code(), Some(101), "{text}");
    assert!(text.contains("multiple of 64"), "{text}");
}

/// Two layers of fused experts as gpt-oss has them, a norm, counters, and the scale of a KV cache.
fn experts(dir: &Path) -> PathBuf {
    let path = dir.join("moe");
    std::fs::create_dir(&path).unwrap();
    let bytes = |name: &str, dtype: StDtype, shape: &[usize], first: u8| NewTensor {
        name: name.into(),
        dtype,
        shape: shape.into(),
        bytes: (0..shape.iter().product::<usize>() * dtype.bitsize() / 8)
            .map(|i| first + (i as u8).wrapping_mul(37) % 16)
            .collect(),
    };
    let tensors = [
        bytes("l.0.experts.gate_up_proj_blocks", StDtype::U8, &[4, 6, 2, 16], 0x31),
        bytes("l.0.experts.gate_up_proj_scales", StDtype::U8, &[4, 6, 2], 118),
        bytes("l.0.experts.gate_up_proj_bias", StDtype::BF16, &[4, 6], 0x30),
        bytes("l.0.router.weight", StDtype::BF16, &[4, 64], 0x30),
        bytes("l.0.norm.weight", StDtype::BF16, &[64], 0x30),
        bytes("l.0.position_ids", StDtype::I64, &[1, 8], 0),
        bytes("l.0.attn.k_scale", StDtype::F32, &[], 0x30),
    ];
    write(&path.join("model.safetensors"), &tensors, &Default::default()).unwrap();
    let config = r#"{"hidden_size": 64, "vocab_size": 9, "text_config": {"num_attention_heads": 4},
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["l.0.router"]}}"#;
    std::fs::write(path.join("config.json"), config).unwrap();
    path
}

#[test]
fn experts_are_taken_out_of_the_tensor_they_share() {
    let dir = tempfile::tempdir().unwrap();
    let from = experts(dir.path());
    let whole = Checkpoint::open(&from).unwrap();
    let value = |expert: usize| whole.linear(&format!("l.0.experts.gate_up_proj#{expert}")).unwrap().values();

    let kept = dir.path().join("kept");
    let output =
        shard(&from, &kept, &["--tensors", "l.0.*", "--tensors", "l.0.{a}.{b}", "--experts", "1..3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kept = Checkpoint::open(&kept).unwrap();
    assert_eq!(kept.names().count(), 7, "{:?}", kept.names().collect::<Vec<_>>());
    assert_eq!(kept.raw("l.0.experts.gate_up_proj_blocks").unwrap().shape, [2, 6, 2, 16]);
    for expert in [1, 2] {
        let read = kept.linear(&format!("l.0.experts.gate_up_proj#{}", expert - 1)).unwrap().values();
        assert_eq!(read, value(expert));
    }
    let bias = |c: &Checkpoint| c.raw("l.0.experts.gate_up_proj_bias").unwrap().bytes.to_vec();
    assert_eq!(bias(&kept), bias(&whole)[12..36]);
    assert_eq!(kept.raw("l.0.position_ids").unwrap().bytes, whole.raw("l.0.position_ids").unwrap().bytes);
    assert_eq!(kept.vector("l.0.attn.k_scale").unwrap().len(), 1);
    assert_eq!(kept.config()["hidden_size"], 64);
    assert_eq!(kept.config()["num_attention_heads"], 4);
    assert_eq!(kept.quantization_config(), whole.quantization_config());

    let converted = dir.path().join("converted");
    let output =
        shard(&from, &converted, &["--tensors", "l.0.experts.*", "--experts", "2..4", "--to", "nvfp4"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let converted = Checkpoint::open(&converted).unwrap();
    assert_eq!(converted.raw("l.0.experts.gate_up_proj_bias").unwrap().shape, [2, 6]);
    assert_eq!(converted.modules(), ["l.0.experts.0.gate_up_proj", "l.0.experts.1.gate_up_proj"]);
    let (a, b) = (converted.linear("l.0.experts.1.gate_up_proj").unwrap().values(), value(3));
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    assert!(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt() > 0.99);
}

#[test]
fn a_bias_comes_with_its_module_and_has_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let names = |from: &Path, flags: &[&str]| -> Vec<String> {
        let out = tempfile::tempdir().unwrap();
        let output = shard(from, out.path(), flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Checkpoint::open(out.path()).unwrap().names().map(str::to_owned).collect()
    };
    let from = source(dir.path());
    let both = ["layers.0.up.bias", "layers.0.up.weight"];
    assert_eq!(names(&from, &["--tensors", "layers.0.up"]), both);
    assert_eq!(names(&from, &["--tensors", "layers.0.up.weight"]), both[1..]);
    let all = names(&from, &["--tensors", "layers.0.*"]);
    assert_eq!(all.iter().filter(|name| name.ends_with("bias")).count(), 1, "{all:?}");

    let moe = dir.path().join("cut");
    let flags = ["--tensors", "l.0.experts.gate_up_proj", "--experts", "1..3", "--rows", "2..4"];
    let output = shard(&experts(dir.path()), &moe, &flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (cut, whole) = (Checkpoint::open(&moe).unwrap(), Checkpoint::open(&dir.path().join("moe")).unwrap());
    let bias = |c: &Checkpoint| c.raw("l.0.experts.gate_up_proj_bias").unwrap().bytes.to_vec();
    assert_eq!(cut.raw("l.0.experts.gate_up_proj_bias").unwrap().shape, [2, 2]);
    // Two bytes an element, six rows an expert.
    assert_eq!(bias(&cut), [&bias(&whole)[16..20], &bias(&whole)[28..32]].concat());

    let zeros = |name: &str, shape: &[usize]| NewTensor {
        name: name.into(),
        dtype: StDtype::F32,
        shape: shape.into(),
        bytes: vec![0; 4 * shape.iter().product::<usize>()],
    };
    let path = dir.path().join("uneven.safetensors");
    write(&path, &[zeros("m.weight", &[4, 4]), zeros("m.bias", &[3])], &Default::default()).unwrap();
    let refused = shard(&path, &dir.path().join("uneven"), &["--tensors", "m", "--rows", "0..2"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(101), "{text}");
    assert!(text.contains("m.bias [3], the bias of m [4, 4]"), "{text}");
}

#[test]
fn everything_is_taken_and_values_that_are_none_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let from = source(dir.path());
    let taken = |name: &str, flags: &[&str]| {
        let output = shard(&from, &dir.path().join(name), flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    taken("all", &["--tensors", "**"]);
    assert_eq!(Checkpoint::open(&dir.path().join("all")).unwrap().names().count(), 5);
    taken("some", &["--tensors", "**.{part}.bias"]);
    assert_eq!(Checkpoint::open(&dir.path().join("some")).unwrap().names().count(), 1);
    for (name, flags, became) in
        [("copy", &[][..], "copied as unquantised"), ("bf16", &["--to", "bf16"], "bf16")]
    {
        let text = taken(name, &[&["--tensors", "layers.0.odd"], flags].concat());
        let line = format!("layers.0.odd [2, 2] {became}, 1 NaN or infinite values\n");
        assert!(text.starts_with(&line), "{text}");
        let read = Checkpoint::open(&dir.path().join(name)).unwrap().linear("layers.0.odd").unwrap().values();
        assert!(read[3].is_nan() && read[..3] == [1.0; 3], "{read:?}");
    }
    // A scale is listed, but comes with its weight.
    taken("fp8", &["--tensors", "layers.0.up", "--to", "fp8-block"]);
    let scale = ["--tensors", "layers.0.up.weight_scale_inv"];
    let refused = shard(&dir.path().join("fp8"), &dir.path().join("scale"), &scale);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("a scale comes with its weight: name \"layers.0.up\""), "{text}");
}

#[test]
fn what_the_configuration_says_elsewhere_is_kept_too() {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../accuracy-core/tests/fixtures/checkpoints/deepseek_v4");
    let file = fixture.join("model.safetensors");
    let whole = Checkpoint::open(&file).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let names = ["layers.{l}.ffn.experts.{e}.w1", "layers.{l}.attn.wo_a", "model.embed_tokens"];
    let tensors: Vec<&str> = names.iter().flat_map(|name| ["--tensors", name]).collect();
    for (to, kept) in [(&[][..], true), (&["--to", "bf16"], false)] {
        let out = dir.path().join(kept.to_string());
        let output = shard(&file, &out, &[&tensors[..], to].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let checkpoint = Checkpoint::open(&out).unwrap();
        assert_eq!(checkpoint.config().get("expert_dtype").is_some(), kept);
        for module in ["layers.0.ffn.experts.0.w1", "layers.0.attn.wo_a", "lm_head"] {
            let (read, want) =
                (checkpoint.linear(module).unwrap().values(), whole.linear(module).unwrap().values());
            assert_eq!(read, want, "{module}: all of these are bfloat16 numbers");
        }
    }
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
    refused(&["--tensors", "*"], 2, &["`*` stops at a dot, `**` does not", "4 modules", "layers.0.up"]);
    refused(&["--tensors", "layers.0.odd", "--to", "fp8-block"], 101, &["layers.0.odd", "row 1, column 1"]);
    refused(&["--tensors", "layers.0.up", "--to", "fp7"], 2, &["fp7", "fp8-block"]);
    let up = |flags: &[&str], status: i32, parts: &[&str]| {
        refused(&[&["--tensors", "layers.0.up"], flags].concat(), status, parts);
    };
    up(&["--to", "int4-awq"], 2, &["[200, 320]", "128 columns", "--group-size"]);
    up(&["--to", "mxfp4", "--columns", "0..48"], 2, &["[200, 48]", "32 columns"]);
    up(&["--to", "mxfp4", "--group-size", "32"], 2, &["--group-size is for --to int4-awq"]);
    up(&["--rows", "0..201"], 101, &["rows 0..201", "200"]);
    up(&["--rows", "7..7"], 2, &["7..7 is empty"]);
    up(&["--experts", "0..1"], 2, &["none of the tensors is shared by several experts"]);
    refused(&[], 2, &["--tensors"]);
    assert!(!dir.path().join("out").exists(), "nothing is written before everything is read");

    std::fs::create_dir(dir.path().join("out")).unwrap();
    std::fs::write(dir.path().join("out/old.safetensors"), "").unwrap();
    refused(&["--tensors", "layers.0.up"], 2, &["old.safetensors is there already"]);
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../accuracy-core/tests/fixtures/checkpoints").join(name)
}

/// The values of a fixture's modules, as its script wrote them down.
fn expected(name: &str, module: &str) -> Vec<f32> {
    let file = Checkpoint::open(&fixture(name).join("expected.safetensors")).unwrap();
    let bytes = file.raw(module).unwrap().bytes.to_vec();
    bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect()
}

#[test]
fn only_the_tensors_that_cannot_be_taken_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f32");
    // Of a rotated input nothing would be left to say so.
    let from = fixture("transforms").join("model.safetensors");
    let output = shard(&from, &out, &["--tensors", "**", "--to", "f32"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{text}");
    assert!(text.contains("not taken: `l.0.mlp.down_proj`: y = x·W does not hold"), "{text}");
    let written = Checkpoint::open(&out).unwrap();
    assert_eq!(written.names().collect::<Vec<_>>(), ["l.0.mlp.up_proj.weight"]);
    let values: Vec<f32> =
        written.linear("l.0.mlp.up_proj").unwrap().values().iter().map(|&v| v as f32).collect();
    assert_eq!(values, expected("transforms", "l.0.mlp.up_proj"));
    // As it is stored the rotation comes along, and is said.
    let stored = dir.path().join("stored");
    let output = shard(&from, &stored, &["--tensors", "l.0.mlp.down_proj"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stored = Checkpoint::open(&stored).unwrap();
    assert!(stored.raw("l.0.mlp.down_proj.R4_input.weight").is_ok());
    assert!(stored.describe("l.0.mlp.down_proj").unwrap().online[0].rotates());
    // Alone it is an error.
    let alone = shard(&from, &dir.path().join("no"), &["--tensors", "l.0.mlp.down_proj", "--to", "f32"]);
    assert_eq!(alone.status.code(), Some(101));
}

#[test]
fn blocks_of_a_gguf_file_are_converted_and_a_type_that_is_not_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out) = (fixture("gguf").join("model.gguf"), dir.path().join("f32"));
    let output = shard(&from, &out, &["--tensors", "blk.0.*", "--to", "f32"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{text}");
    assert!(text.contains("`blk.0.unread` seems to be GGUF IQ1_S, which is not read"), "{text}");
    let written = Checkpoint::open(&out).unwrap();
    for module in ["q4_0", "q5_k", "q6_k", "iq4_nl", "mxfp4", "bf16"].map(|name| format!("blk.0.{name}")) {
        let values: Vec<f32> = written.linear(&module).unwrap().values().iter().map(|&v| v as f32).collect();
        assert_eq!(values, expected("gguf", &module), "{module}");
    }
    let stored = shard(&from, &dir.path().join("no"), &["--tensors", "blk.0.q4_0"]);
    assert!(String::from_utf8_lossy(&stored.stderr).contains("GGUF Q4_0 has no form in safetensors"));
}

#[test]
fn a_factor_of_the_input_stays_beside_the_converted_weight() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("f32");
    let from = fixture("modelopt_all").join("model.safetensors");
    let output = shard(&from, &out, &["--tensors", "**", "--to", "f32"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = Checkpoint::open(&out).unwrap();
    for module in ["l.0.gate_proj", "l.0.k_proj", "l.0.down_proj", "l.0.experts"] {
        let weight = written.linear(module).unwrap();
        let values: Vec<f32> = weight.values().iter().map(|&v| v as f32).collect();
        assert_eq!(values, expected("modelopt_all", module), "{module}");
    }
    assert!(written.raw("l.0.gate_proj.pre_quant_scale").is_ok());
    assert!(!written.describe("l.0.gate_proj").unwrap().online.is_empty());
}
