//! The checkpoint reader on files written here: what it reads, and the error of each way to be broken.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use accuracy_core::dtype::{self, Overflow};
use accuracy_core::quant::Granularity;
use accuracy_core::weights::{Checkpoint, NewTensor, Scheme, StDtype, StoredWeight, WeightsError, write};
use proptest::prelude::*;
use tempfile::TempDir;

fn tensor(name: &str, dtype: StDtype, shape: &[usize], bytes: Vec<u8>) -> NewTensor {
    NewTensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A folder with one file `model.safetensors` and, where given, `config.json`.
fn folder(config: &str, tensors: &[NewTensor]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("model.safetensors"), tensors, &BTreeMap::new()).unwrap();
    if !config.is_empty() {
        fs::write(dir.path().join("config.json"), config).unwrap();
    }
    dir
}

fn open(dir: &TempDir) -> Checkpoint {
    Checkpoint::open(dir.path()).unwrap()
}

fn error(dir: &TempDir, module: &str) -> WeightsError {
    open(dir).linear(module).unwrap_err()
}

const DEEPSEEK: &str = r#"{"quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
    "weight_block_size": [128, 128], "activation_scheme": "dynamic"}}"#;

/// Codes that walk through every finite e4m3fn value.
fn codes(count: usize) -> Vec<u8> {
    (0..count).map(|i| ((i * 7 + i / 256) % 0x7f) as u8 | if i % 3 == 0 { 0x80 } else { 0 }).collect()
}

#[test]
fn deepseek_blocks_multiply_and_edge_blocks_are_partial() {
    let (rows, cols) = (130, 300);
    let codes = codes(rows * cols);
    let scales: Vec<f32> = (0..6).map(|i| 0.1 + i as f32 * 0.37).collect();
    let dir = folder(
        DEEPSEEK,
        &[
            tensor("a.weight", StDtype::F8_E4M3, &[rows, cols], codes.clone()),
            tensor("a.weight_scale_inv", StDtype::F32, &[2, 3], f32s(&scales)),
        ],
    );
    let checkpoint = open(&dir);
    for name in ["a", "a.weight"] {
        let weight = checkpoint.linear(name).unwrap();
        assert_eq!((weight.rows, weight.cols), (rows, cols));
        assert_eq!(weight.granularity, Granularity::Block(128, 128));
        assert_eq!(weight.scale_dtype, Some(dtype::F32));
        assert_eq!(weight.tensors, ["a.weight", "a.weight_scale_inv"]);
        let values = weight.values();
        for r in 0..rows {
            for c in 0..cols {
                let scale = f64::from(scales[(r / 128) * 3 + c / 128]);
                let want = dtype::E4M3FN.decode(u32::from(codes[r * cols + c])) * scale;
                assert_eq!(values[r * cols + c], want, "{r} {c}");
            }
        }
    }
}

#[test]
fn the_paths_of_a_checkpoint_are_those_that_reading_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["a.safetensors", "b.safetensors", "config.json", "tokenizer.json", "README.md"] {
        fs::write(at(name), "").unwrap();
    }
    let names = |path: &Path| -> Vec<String> {
        let files = Checkpoint::paths(path).unwrap();
        files.iter().map(|f| f.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(dir.path()), ["a.safetensors", "b.safetensors", "config.json"]);
    assert_eq!(names(&at("b.safetensors")), ["b.safetensors", "config.json"]);
    let index = "model.safetensors.index.json";
    fs::write(at(index), r#"{"weight_map": {"x": "b.safetensors", "y": "absent.safetensors"}}"#).unwrap();
    for path in [dir.path().to_owned(), at(index)] {
        assert_eq!(names(&path), ["b.safetensors", "config.json", index]);
    }
    fs::write(at(index), r#"{"weight_map": {"x": "../b.safetensors"}}"#).unwrap();
    assert_eq!(names(dir.path()), ["config.json", index]);
    assert!(matches!(Checkpoint::paths(&at("absent")), Err(WeightsError::NotFound { .. })));
}

/// A 4x6 weight of small integers with those scales, read without a configuration.
fn small(stored: StDtype, scale: NewTensor, extra: &[NewTensor]) -> TempDir {
    let values: Vec<f64> = (0..24).map(|i| f64::from(i) - 12.0).collect();
    let dtype = if stored == StDtype::I8 { dtype::INT8 } else { dtype::E4M3FN };
    let codes = dtype.encode_bytes(&values, Overflow::Special);
    let mut tensors = vec![tensor("m.weight", stored, &[4, 6], codes), scale];
    tensors.extend_from_slice(extra);
    folder("", &tensors)
}

fn check_small(weight: &StoredWeight, scale: impl Fn(usize, usize) -> f64) {
    let codes = dtype_values(weight);
    let values = weight.values();
    for r in 0..4 {
        for c in 0..6 {
            assert_eq!(values[r * 6 + c], codes[r * 6 + c] * scale(r, c), "{r} {c}");
        }
    }
}

fn dtype_values(weight: &StoredWeight) -> Vec<f64> {
    let values = weight.dtype.decode_bytes(&weight.codes);
    assert_eq!(values.len(), 24);
    values
}

#[test]
fn scales_per_tensor_channel_and_group_are_told_apart_by_shape() {
    for stored in [StDtype::F8_E4M3, StDtype::I8] {
        for shape in [&[][..], &[1], &[1, 1]] {
            let dir = small(stored, tensor("m.weight_scale", StDtype::F32, shape, f32s(&[0.3])), &[]);
            let checkpoint = open(&dir);
            let weight = checkpoint.linear("m").unwrap();
            assert_eq!(weight.granularity, Granularity::Tensor);
            check_small(&weight, |_, _| f64::from(0.3f32));
        }
        let channel = [0.1f32, 0.2, 0.4, 0.7];
        for shape in [&[4][..], &[4, 1]] {
            let dir = small(stored, tensor("m.weight_scale", StDtype::F32, shape, f32s(&channel)), &[]);
            let checkpoint = open(&dir);
            let weight = checkpoint.linear("m").unwrap();
            assert_eq!(weight.granularity, Granularity::Row);
            check_small(&weight, |r, _| f64::from(channel[r]));
        }
        let group: Vec<f32> = (0..12).map(|i| i as f32 + 0.5).collect();
        let dir = small(stored, tensor("m.weight_scale", StDtype::F32, &[4, 3], f32s(&group)), &[]);
        let checkpoint = open(&dir);
        let weight = checkpoint.linear("m").unwrap();
        assert_eq!(weight.granularity, Granularity::Group(2));
        check_small(&weight, |r, c| f64::from(group[r * 3 + c / 2]));
    }
}

#[test]
fn int8_zero_points_are_subtracted() {
    let zeros = tensor("m.weight_zero_point", StDtype::I8, &[4, 1], vec![3, 0, 0x80, 0xff]);
    let scale = tensor("m.weight_scale", StDtype::F32, &[4, 1], f32s(&[1.0, 2.0, 0.5, 4.0]));
    let dir = small(StDtype::I8, scale, &[zeros]);
    let checkpoint = open(&dir);
    let weight = checkpoint.linear("m").unwrap();
    assert_eq!(weight.zero_points, [3.0, 0.0, -128.0, -1.0]);
    let values = weight.values();
    assert_eq!(values[0], -12.0 - 3.0);
    assert_eq!(values[6], -6.0 * 2.0);
    assert_eq!(values[12], 128.0 * 0.5);
    assert_eq!(values[23], (11.0 + 1.0) * 4.0);
}

#[test]
fn unquantized_weights_and_vectors_decode_exactly() {
    let values = [1.0, -0.5, 3.140625, 65280.0, 2f64.powi(-120), 0.0];
    let mut tensors = Vec::new();
    for (dtype, stored) in
        [(dtype::F32, StDtype::F32), (dtype::BF16, StDtype::BF16), (dtype::F16, StDtype::F16)]
    {
        let bytes = dtype.encode_bytes(&values, Overflow::Special);
        tensors.push(tensor(&format!("{dtype}.weight"), stored, &[2, 3], bytes.clone()));
        tensors.push(tensor(&format!("{dtype}_norm.weight"), stored, &[6], bytes));
    }
    let dir = folder("", &tensors);
    let checkpoint = open(&dir);
    for dtype in [dtype::F32, dtype::BF16, dtype::F16] {
        let want: Vec<f64> =
            values.iter().map(|&v| dtype.decode(dtype.encode(v, Overflow::Special))).collect();
        let weight = checkpoint.linear(dtype.name()).unwrap();
        assert_eq!((weight.scheme, weight.dtype, weight.scales.len()), (Scheme::Unquantized, dtype, 0));
        assert_eq!(weight.values(), want);
        for name in [format!("{dtype}_norm"), format!("{dtype}_norm.weight")] {
            assert_eq!(checkpoint.vector(&name).unwrap(), want);
        }
    }
    assert!(matches!(checkpoint.vector("f32"), Err(WeightsError::WrongShape { .. })));
    assert!(matches!(checkpoint.linear("f32_norm"), Err(WeightsError::WrongShape { .. })));
}

/// A checkpoint of two shards, the scale in the other one than the weight.
fn sharded() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let weight = tensor("l.0.a.weight", StDtype::F8_E4M3, &[2, 4], codes(8));
    let scale = tensor("l.0.a.weight_scale_inv", StDtype::F32, &[1, 1], f32s(&[0.25]));
    write(&at("model-00001-of-00002.safetensors"), &[weight], &BTreeMap::new()).unwrap();
    write(&at("model-00002-of-00002.safetensors"), &[scale], &BTreeMap::new()).unwrap();
    let index = r#"{"weight_map": {"l.0.a.weight": "model-00001-of-00002.safetensors",
        "l.0.a.weight_scale_inv": "model-00002-of-00002.safetensors"}}"#;
    fs::write(at("model.safetensors.index.json"), index).unwrap();
    fs::write(at("config.json"), DEEPSEEK).unwrap();
    dir
}

#[test]
fn a_scale_in_another_shard_is_found() {
    let dir = sharded();
    for path in [dir.path().to_owned(), dir.path().join("model.safetensors.index.json")] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.path(), path);
        assert_eq!(checkpoint.linear("l.0.a").unwrap().scales, [0.25]);
    }
}

#[test]
fn shards_are_opened_only_when_used() {
    let dir = sharded();
    fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    let checkpoint = open(&dir);
    assert_eq!(checkpoint.names().count(), 2);
    assert_eq!(checkpoint.raw("l.0.a.weight").unwrap().shape, [2, 4]);
    let error = checkpoint.linear("l.0.a").unwrap_err();
    assert!(matches!(error, WeightsError::ShardMissing { .. }), "{error}");
    assert!(error.to_string().contains("model-00002-of-00002.safetensors"), "{error}");
}

#[test]
fn an_index_that_its_shards_do_not_bear_out() {
    let dir = sharded();
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map": {"x.weight": "model-00001-of-00002.safetensors"}}"#).unwrap();
    assert!(matches!(error(&dir, "x"), WeightsError::NotInShard { .. }));
    for broken in [
        "",
        "[]",
        "{}",
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": {"a": 1}}"#,
        r#"{"weight_map": {"a": "../x.safetensors"}}"#,
        r#"{"weight_map": {"a": "/x.safetensors"}}"#,
        r#"{"weight_map": {"a": ""}}"#,
    ] {
        fs::write(&index, broken).unwrap();
        let error = Checkpoint::open(dir.path()).unwrap_err();
        assert!(matches!(error, WeightsError::BadIndex { .. }), "{broken}: {error}");
    }
}

#[test]
fn missing_and_empty_paths() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(dir.path()), Err(WeightsError::NoWeights { .. })));
    let absent = Checkpoint::open(&dir.path().join("absent"));
    assert!(matches!(absent, Err(WeightsError::NotFound { .. })));
}

fn open_bytes(bytes: &[u8]) -> Result<Checkpoint, WeightsError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path)
}

fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn broken_files_each_have_their_error() {
    use WeightsError::*;
    let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert!(open_bytes(&with_header(good, 8)).is_ok());
    assert!(matches!(open_bytes(&[]), Err(Truncated { expected: 8, found: 0, .. })));
    assert!(matches!(open_bytes(&[1, 2, 3]), Err(Truncated { .. })));
    assert!(matches!(open_bytes(&with_header(good, 5)), Err(Truncated { .. })));
    assert!(matches!(open_bytes(&with_header(good, 9)), Err(TrailingBytes { .. })));
    for length in [u64::MAX, 100_000_001, 1 << 40, 100] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(matches!(open_bytes(&bytes), Err(HeaderTooLong { .. })), "{length}");
    }
    for header in ["", "hello", "{\"a\":", "\u{1}"] {
        assert!(matches!(open_bytes(&with_header(header, 0)), Err(HeaderNotJson { .. })), "{header}");
    }
    let mut not_utf8 = with_header("{\"aa\":1}", 0);
    not_utf8[10] = 0xff;
    assert!(matches!(open_bytes(&not_utf8), Err(HeaderNotJson { .. })));
    for header in [
        "[]",
        r#"{"a":1}"#,
        r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"b":1}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"shape":[2]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2]}}"#,
    ] {
        let error = open_bytes(&with_header(header, 8)).unwrap_err();
        assert!(matches!(error, BadHeader { .. }), "{header}: {error}");
    }
}

#[test]
fn every_prefix_of_a_file_is_an_error_and_no_panic() {
    let dir = folder("", &[tensor("a.weight", StDtype::F32, &[2, 2], f32s(&[1.0, 2.0, 3.0, 4.0]))]);
    let whole = fs::read(dir.path().join("model.safetensors")).unwrap();
    for end in 0..whole.len() {
        assert!(open_bytes(&whole[..end]).is_err(), "{end} bytes");
    }
    assert!(open_bytes(&whole).is_ok());
}

#[test]
fn a_missing_tensor_names_its_nearest() {
    let values = f32s(&[0.0; 4]);
    let names = ["l.0.mlp.gate_proj.weight", "l.0.mlp.up_proj.weight", "norm.weight"];
    let tensors: Vec<_> = names.iter().map(|n| tensor(n, StDtype::F32, &[2, 2], values.clone())).collect();
    let dir = folder("", &tensors);
    let error = error(&dir, "l.0.mlp.gate_prj");
    let WeightsError::TensorMissing { nearest, .. } = &error else { panic!("{error}") };
    assert_eq!(nearest[0], "l.0.mlp.gate_proj.weight");
    assert!(error.to_string().contains("`l.0.mlp.gate_prj.weight`"), "{error}");
}

#[test]
fn scales_that_are_missing_or_wrong_each_have_their_error() {
    let weight = || tensor("m.weight", StDtype::F8_E4M3, &[256, 256], codes(256 * 256));
    let scale = |shape: &[usize]| {
        let count = shape.iter().product::<usize>();
        tensor("m.weight_scale_inv", StDtype::F32, shape, f32s(&vec![0.3; count]))
    };

    let missing = error(&folder(DEEPSEEK, &[weight()]), "m");
    assert!(matches!(missing, WeightsError::ScaleMissing { .. }), "{missing}");
    assert!(missing.to_string().contains("m.weight_scale_inv"), "{missing}");

    for shape in [&[3, 2][..], &[2, 2, 1], &[4], &[1], &[256, 1]] {
        let wrong = error(&folder(DEEPSEEK, &[weight(), scale(shape)]), "m");
        assert!(matches!(wrong, WeightsError::ScaleShape { .. }), "{shape:?}: {wrong}");
        assert!(wrong.to_string().contains("weight_block_size [128, 128]"), "{wrong}");
    }
    let without = error(&folder("", &[weight(), scale(&[3, 3])]), "m");
    assert!(matches!(without, WeightsError::ScaleShape { .. }), "{without}");

    let no_block = r#"{"quantization_config": {"quant_method": "fp8"}}"#;
    let blocks = error(&folder(no_block, &[weight(), scale(&[2, 2])]), "m");
    assert!(matches!(blocks, WeightsError::ScaleShape { .. }), "{blocks}");

    let integer = tensor("m.weight_scale", StDtype::I32, &[1], vec![1, 0, 0, 0]);
    let wrong = error(&folder("", &[weight(), integer]), "m");
    assert!(matches!(wrong, WeightsError::WrongDtype { .. }), "{wrong}");

    let both = [weight(), scale(&[2, 2]), tensor("m.weight_scale", StDtype::F32, &[1], f32s(&[1.0]))];
    assert!(matches!(error(&folder(DEEPSEEK, &both), "m"), WeightsError::Ambiguous { .. }));

    let bf16 = tensor("m.weight", StDtype::BF16, &[2, 2], vec![0; 8]);
    let odd = error(&folder(DEEPSEEK, &[bf16, scale(&[1, 1])]), "m");
    assert!(matches!(odd, WeightsError::Ambiguous { .. }), "{odd}");
}

#[test]
fn e8m0_scales_and_what_contradicts_them() {
    let ue8m0 = DEEPSEEK.replace("\"fmt\"", "\"scale_fmt\": \"ue8m0\", \"fmt\"");
    let weight = || tensor("m.weight", StDtype::F8_E4M3, &[256, 128], codes(256 * 128));
    let bytes = |dtype| tensor("m.weight_scale_inv", dtype, &[2, 1], vec![120, 130]);
    for (config, scale) in [
        (ue8m0.as_str(), bytes(StDtype::U8)),
        (ue8m0.as_str(), bytes(StDtype::F8_E8M0)),
        (DEEPSEEK, bytes(StDtype::F8_E8M0)),
        (ue8m0.as_str(), tensor("m.weight_scale_inv", StDtype::F32, &[2, 1], f32s(&[0.0078125, 8.0]))),
    ] {
        let dir = folder(config, &[weight(), scale]);
        assert_eq!(open(&dir).linear("m").unwrap().scales, [0.0078125, 8.0]);
    }
    let unsaid = error(&folder(DEEPSEEK, &[weight(), bytes(StDtype::U8)]), "m");
    assert!(matches!(unsaid, WeightsError::ScaleIsBytes { .. }), "{unsaid}");
    let float = tensor("m.weight_scale_inv", StDtype::F32, &[2, 1], f32s(&[0.5, 0.3]));
    let uneven = error(&folder(&ue8m0, &[weight(), float]), "m");
    assert!(matches!(uneven, WeightsError::ScaleNotPowerOfTwo { index: 1, .. }), "{uneven}");
}

#[test]
fn a_configuration_that_contradicts_the_tensors_names_both() {
    let weight = tensor("m.weight", StDtype::F8_E4M3, &[2, 2], codes(4));
    let scale = tensor("m.weight_scale", StDtype::F32, &[1], f32s(&[0.5]));
    let awq = r#"{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}"#;
    let message = error(&folder(awq, &[weight.clone(), scale.clone()]), "m").to_string();
    assert!(message.contains("awq") && message.contains("F8_E4M3"), "{message}");

    let skipped = r#"{"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": ["m"]}}"#;
    let message = error(&folder(skipped, &[weight, scale]), "m").to_string();
    assert!(message.contains("`m` is not quantised"), "{message}");
}

/// A weight of FP8 with a scale for the tensor, one with a scale a row, and one of NVFP4.
fn mixed(config: &str, modules: [&str; 3]) -> Checkpoint {
    let [a, b, c] = modules;
    let dir = folder(
        config,
        &[
            tensor(&format!("{a}.weight"), StDtype::F8_E4M3, &[16, 32], codes(512)),
            tensor(&format!("{a}.weight_scale"), StDtype::F32, &[1], f32s(&[0.5])),
            tensor(&format!("{b}.weight"), StDtype::F8_E4M3, &[16, 32], codes(512)),
            tensor(&format!("{b}.weight_scale"), StDtype::F32, &[16, 1], f32s(&[0.25; 16])),
            tensor(&format!("{c}.weight_packed"), StDtype::U8, &[16, 16], vec![0x21; 256]),
            tensor(&format!("{c}.weight_scale"), StDtype::F8_E4M3, &[16, 2], vec![0x38; 32]),
            tensor(&format!("{c}.weight_global_scale"), StDtype::F32, &[1], f32s(&[2.0])),
        ],
    );
    open(&dir)
}

#[test]
fn a_configuration_of_several_groups_speaks_of_each_module_by_name_pattern_or_class() {
    let group = |targets: &str, weights: &str| format!(r#"{{"targets": {targets}, "weights": {weights}}}"#);
    let fp8 = |strategy: &str| format!(r#"{{"num_bits": 8, "type": "float", "strategy": "{strategy}"}}"#);
    let nvfp4 = r#"{"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}"#;
    let config = |first: &str, ignore: &str| {
        format!(
            r#"{{"quantization_config": {{"quant_method": "compressed-tensors", "ignore": {ignore}, "config_groups": {{
                "a": {}, "b": {}, "c": {}}}}}}}"#,
            group(first, &fp8("tensor")),
            group(r#"["Linear"]"#, &fp8("channel")),
            group(r#"["re:.*mlp\\.(up|down)_proj$"]"#, nvfp4),
        )
    };
    let modules = ["l.0.self_attn.o_proj", "l.0.mlp.gate_proj", "l.0.mlp.up_proj"];
    let first = r#"["l.0.self_attn.o_proj"]"#;
    let good = mixed(&config(first, r#"["lm_head", "re:.*norm$"]"#), modules);
    let granularity = |module: &str| good.linear(module).unwrap().granularity;
    let found = modules.map(granularity);
    assert_eq!(found, [Granularity::Tensor, Granularity::Row, Granularity::Group(16)]);

    // The same tensors under a configuration that means others.
    let other = mixed(&config(r#"["re:.*o_proj", "re:.*gate_proj"]"#, "[]"), modules);
    assert!(other.linear(modules[0]).is_ok());
    let wrong = other.linear(modules[1]).unwrap_err();
    assert!(matches!(wrong, WeightsError::ScaleShape { .. }), "{wrong}");
    assert!(wrong.to_string().contains("group `a`") && !wrong.to_string().contains("group `b`"), "{wrong}");
    let swapped = mixed(&config(first, "[]"), [modules[0], modules[2], modules[1]]);
    let wrong = swapped.linear(modules[2]).unwrap_err();
    assert!(matches!(wrong, WeightsError::Contradiction { .. }), "{wrong}");
    assert!(wrong.to_string().contains("group `c`"), "{wrong}");

    for ignore in [r#"["re:.*mlp.*"]"#, r#"["l.0.mlp"]"#, r#"["l.0.mlp.gate_proj"]"#] {
        let ignored = mixed(&config(first, ignore), modules);
        assert!(ignored.linear(modules[0]).is_ok());
        let wrong = ignored.linear(modules[1]).unwrap_err().to_string();
        assert!(wrong.contains("is not quantised"), "{ignore}: {wrong}");
    }
}

#[test]
fn modelopt_and_quark_name_their_layers() {
    let modules = ["l.0.attn.o_proj", "l.0.mlp.gate_proj", "l.0.mlp.up_proj"];
    let modelopt = |of_gate: &str| {
        format!(
            r#"{{"quantization_config": {{"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
            "exclude_modules": ["*router*"], "quantized_layers": {{"l.0.attn.o_proj": {{"quant_algo": "FP8"}},
            "l.0.mlp.gate_proj": {{"quant_algo": "{of_gate}"}},
            "l.0.mlp.up_proj": {{"quant_algo": "NVFP4", "group_size": 16}}}}}}}}"#
        )
    };
    let good = mixed(&modelopt("FP8_PER_CHANNEL_PER_TOKEN"), modules);
    for module in modules {
        good.linear(module).unwrap();
    }
    assert_eq!(
        good.claims().collect::<Vec<_>>(),
        ["ModelOpt FP8", "ModelOpt FP8 per channel", "ModelOpt NVFP4"]
    );
    let wrong = mixed(&modelopt("FP8"), modules).linear(modules[1]).unwrap_err();
    assert!(matches!(wrong, WeightsError::ScaleShape { .. }), "{wrong}");

    // Only the KV cache is quantised.
    let kv = r#"{"quantization_config": {"quant_method": "modelopt", "quant_algo": null, "kv_cache_quant_algo": "FP8"}}"#;
    let bf16 = tensor("m.weight", StDtype::BF16, &[2, 2], vec![0; 8]);
    assert!(open(&folder(kv, &[bf16])).linear("m").is_ok());

    let quark = |layers: &str| {
        format!(
            r#"{{"quantization_config": {{"quant_method": "quark", "exclude": ["*lm_head"],
            "global_quant_config": {{"weight": {{"dtype": "fp8_e4m3", "qscheme": "per_tensor"}}}},
            "layer_quant_config": {{{layers}}}}}}}"#
        )
    };
    let of_gate = r#""*.gate_proj": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_channel"}}"#;
    assert_eq!(mixed(&quark(of_gate), modules).linear(modules[1]).unwrap().granularity, Granularity::Row);
    let wrong = mixed(&quark(""), modules).linear(modules[1]).unwrap_err();
    assert!(wrong.to_string().contains("per_tensor"), "{wrong}");
}

#[test]
fn the_scale_of_a_layers_input_is_described() {
    let weight = || tensor("m.weight", StDtype::F8_E4M3, &[2, 2], codes(4));
    let scale = || tensor("m.weight_scale", StDtype::F32, &[], f32s(&[0.5]));
    let input = tensor("m.input_scale", StDtype::F32, &[], f32s(&[0.125]));
    let config = |scheme: &str| {
        format!(r#"{{"quantization_config": {{"quant_method": "fp8", "activation_scheme": "{scheme}"}}}}"#)
    };
    let with = open(&folder(&config("static"), &[weight(), scale(), input]));
    let info = with.describe("m").unwrap();
    assert_eq!((info.static_input, info.input_scale.as_deref()), (true, Some("m.input_scale")));
    assert_eq!(with.vector("m.input_scale").unwrap(), [0.125]);
    let without = open(&folder(&config("static"), &[weight(), scale()])).describe("m").unwrap();
    assert_eq!((without.static_input, without.input_scale), (true, None));
    let dynamic = open(&folder(&config("dynamic"), &[weight(), scale()])).describe("m").unwrap();
    assert_eq!((dynamic.static_input, dynamic.input_scale), (false, None));
}

#[test]
fn scales_of_a_kv_cache_are_vectors_of_one() {
    let values = || f32s(&[0.25]);
    let names = ["l.0.self_attn.k_scale", "l.0.self_attn.k_proj.k_scale", "l.0.self_attn.q_proj.input_scale"];
    let mut tensors: Vec<_> = names.iter().map(|n| tensor(n, StDtype::F32, &[], values())).collect();
    tensors.push(tensor("l.0.self_attn.q_proj.weight", StDtype::F8_E4M3, &[2, 2], codes(4)));
    tensors.push(tensor("l.0.self_attn.q_proj.weight_scale", StDtype::F32, &[1], values()));
    let checkpoint = open(&folder("", &tensors));
    let matched = |pattern: &str| -> Vec<String> {
        checkpoint.matches(pattern).unwrap().into_iter().map(|m| m.name).collect()
    };
    assert_eq!(matched("l.{n}.self_attn.*"), ["l.0.self_attn.k_scale", "l.0.self_attn.q_proj"]);
    assert_eq!(checkpoint.vector("l.0.self_attn.k_scale").unwrap(), [0.25]);
    assert_eq!(checkpoint.orphans(), Vec::<&str>::new());
}

#[test]
fn deepseek_v4_packs_the_experts_fp4_into_int8() {
    let ue8m0 = DEEPSEEK.replace("\"fmt\"", "\"scale_fmt\": \"ue8m0\", \"fmt\"");
    let config = ue8m0.replacen('{', "{\"expert_dtype\": \"fp4\", ", 1);
    let tensors = [
        tensor("ffn.experts.0.w1.weight", StDtype::I8, &[2, 32], vec![0x21; 64]),
        tensor("ffn.experts.0.w1.scale", StDtype::F8_E8M0, &[2, 2], vec![127, 128, 126, 127]),
        tensor("attn.wo_a.weight", StDtype::F8_E4M3, &[256, 128], codes(256 * 128)),
        tensor("attn.wo_a.scale", StDtype::F8_E8M0, &[2, 1], vec![120, 130]),
        // A norm's weight is called like a scale.
        tensor("attn.norm.scale", StDtype::F32, &[2], f32s(&[1.0, 2.0])),
    ];
    let checkpoint = open(&folder(&config, &tensors));
    let expert = checkpoint.linear("ffn.experts.0.w1").unwrap();
    assert_eq!((expert.scheme, expert.rows, expert.cols), (Scheme::Mxfp4, 2, 64));
    let values = expert.values();
    assert_eq!((&values[..2], &values[32..34], values[64]), (&[0.5, 1.0][..], &[1.0, 2.0][..], 0.25));
    assert_eq!(checkpoint.linear("attn.wo_a").unwrap().scales, [2f64.powi(-7), 8.0]);
    assert_eq!(checkpoint.orphans(), Vec::<&str>::new());
    assert_eq!(checkpoint.vector("attn.norm.scale").unwrap(), [1.0, 2.0]);
    let names: Vec<String> = checkpoint.matches("attn.{a}").unwrap().into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["attn.wo_a"]);
    let unsaid = open(&folder(&ue8m0, &tensors)).linear("ffn.experts.0.w1").unwrap_err();
    assert!(matches!(unsaid, WeightsError::Contradiction { .. }), "{unsaid}");
}

#[test]
fn lm_head_shares_the_embedding_where_the_configuration_says_so() {
    let embedding = tensor("model.embed_tokens.weight", StDtype::F32, &[2, 2], f32s(&[1.0, 2.0, 3.0, 4.0]));
    let norm = tensor("model.norm.weight", StDtype::F32, &[2], f32s(&[1.0, 1.0]));
    let tensors = [embedding, norm];
    let tied = r#"{"text_config": {"tie_word_embeddings": true}}"#;
    let checkpoint = open(&folder(tied, &tensors));
    let head = checkpoint.linear("lm_head").unwrap();
    assert_eq!(
        (head.values(), head.tensors),
        (vec![1.0, 2.0, 3.0, 4.0], vec!["model.embed_tokens.weight".to_owned()])
    );
    assert_eq!(checkpoint.linear("lm_head#1..2").unwrap().values(), [3.0, 4.0]);
    for config in ["", r#"{"tie_word_embeddings": false}"#] {
        let error = error(&folder(config, &tensors), "lm_head");
        assert!(matches!(error, WeightsError::TensorMissing { .. }), "{error}");
    }
    let head = tensor("lm_head.weight", StDtype::F32, &[1, 1], f32s(&[9.0]));
    assert_eq!(
        open(&folder(tied, &[&tensors[..], &[head]].concat())).linear("lm_head").unwrap().values(),
        [9.0]
    );
}

/// q, k and v of two heads of two rows, one of them for keys; gate and up; two experts: in each scheme the part is
/// that of the whole.
#[test]
fn parts_of_fused_weights_are_parts_of_the_whole_in_every_scheme() {
    let (rows, cols) = (8, 32);
    let half = |n: usize| -> Vec<u8> { (0..n).map(|i| (i * 37 + 11) as u8).collect() };
    let fp32 = |n: usize| f32s(&(0..n).map(|i| 0.5 + i as f32 / 3.0).collect::<Vec<_>>());
    let exponents = |n: usize| -> Vec<u8> { (0..n).map(|i| 120 + (i % 9) as u8).collect() };
    let e4m3 = |n: usize| -> Vec<u8> { (0..n).map(|i| 0x30 + (i % 23) as u8).collect() };
    type Tensors = Vec<(&'static str, StDtype, Vec<usize>, Vec<u8>)>;
    let schemes: Vec<(&str, Tensors)> = vec![
        ("unquantised", vec![(".weight", StDtype::F32, vec![rows, cols], fp32(rows * cols))]),
        (
            "fp8 block",
            vec![
                (".weight", StDtype::F8_E4M3, vec![rows, cols], codes(rows * cols)),
                (".weight_scale_inv", StDtype::F32, vec![4, 2], fp32(8)),
            ],
        ),
        (
            "fp8 channel",
            vec![
                (".weight", StDtype::F8_E4M3, vec![rows, cols], codes(rows * cols)),
                (".weight_scale", StDtype::F32, vec![rows, 1], fp32(rows)),
            ],
        ),
        (
            "int8",
            vec![
                (".weight", StDtype::I8, vec![rows, cols], half(rows * cols)),
                (".weight_scale", StDtype::F32, vec![rows, 1], fp32(rows)),
                (".weight_zero_point", StDtype::I8, vec![rows, 1], half(rows)),
            ],
        ),
        (
            "mxfp4",
            vec![
                (".weight", StDtype::U8, vec![rows, cols / 2], half(rows * cols / 2)),
                (".weight_scale", StDtype::U8, vec![rows, 1], exponents(rows)),
            ],
        ),
        (
            "nvfp4",
            vec![
                (".weight_packed", StDtype::U8, vec![rows, cols / 2], half(rows * cols / 2)),
                (".weight_scale", StDtype::F8_E4M3, vec![rows, 2], e4m3(rows * 2)),
                (".weight_global_scale", StDtype::F32, vec![1], f32s(&[3.0])),
            ],
        ),
        (
            "packed int4",
            vec![
                (".weight_packed", StDtype::I32, vec![rows, cols / 8], half(rows * cols / 2)),
                (".weight_scale", StDtype::F32, vec![rows, 2], fp32(rows * 2)),
                (".weight_zero_point", StDtype::I32, vec![1, 2], half(8)),
            ],
        ),
        (
            "awq",
            vec![
                (".qweight", StDtype::I32, vec![cols, rows / 8], half(rows * cols / 2)),
                (".qzeros", StDtype::I32, vec![2, rows / 8], half(8)),
                (".scales", StDtype::F16, vec![2, rows], f16s(2 * rows)),
            ],
        ),
        (
            "gptq",
            vec![
                (".qweight", StDtype::I32, vec![cols / 8, rows], half(rows * cols / 2)),
                (".qzeros", StDtype::I32, vec![2, rows / 8], half(8)),
                (".scales", StDtype::F16, vec![2, rows], f16s(2 * rows)),
            ],
        ),
    ];
    for (scheme, parts) in schemes {
        let quantization = match scheme {
            "gptq" => r#", "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 16}"#,
            "fp8 block" => {
                r#", "quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 16]}"#
            }
            _ => "",
        };
        let config =
            format!(r#"{{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2{quantization}}}"#);
        let tensors: Vec<NewTensor> = ["attn.qkv_proj", "mlp.gate_up_proj"]
            .iter()
            .flat_map(|module| {
                let named = |(e, d, s, b): &(&str, StDtype, Vec<usize>, Vec<u8>)| {
                    tensor(&format!("{module}{e}"), *d, s, b.clone())
                };
                parts.iter().map(named).collect::<Vec<_>>()
            })
            .collect();
        let checkpoint = open(&folder(&config, &tensors));
        for (address, range) in [
            ("attn.qkv_proj#q", 0..4),
            ("attn.qkv_proj#k", 4..6),
            ("attn.qkv_proj#v", 6..8),
            ("mlp.gate_up_proj#gate", 0..4),
            ("mlp.gate_up_proj#up", 4..8),
            ("attn.qkv_proj#2..6", 2..6),
        ] {
            let whole = checkpoint.linear(address.split_once('#').unwrap().0).unwrap();
            let part = checkpoint.linear(address).unwrap_or_else(|e| panic!("{scheme}: {e}"));
            let want = whole.values()[range.start * cols..range.end * cols].to_vec();
            assert!(want.iter().any(|&v| v != want[0]), "{scheme}");
            assert_eq!(part.values(), want, "{scheme} {address}");
        }

        // The same tensors stacked: two experts, of which the second has other codes.
        if matches!(scheme, "packed int4" | "awq" | "gptq" | "nvfp4") {
            continue;
        }
        let stacked: Vec<NewTensor> = parts
            .iter()
            .map(|(ending, dtype, shape, bytes)| {
                let name = format!("mlp.experts.gate_up_proj{}", ending.strip_prefix(".weight").unwrap());
                let second: Vec<u8> = bytes.iter().copied().rev().collect();
                let second =
                    if ending.contains("scale") || *dtype == StDtype::F32 { bytes.clone() } else { second };
                tensor(&name, *dtype, &[&[2], &shape[..]].concat(), [bytes.clone(), second].concat())
            })
            .collect();
        let single = open(&folder(&config, &tensors)).linear("mlp.gate_up_proj").unwrap().values();
        let experts = open(&folder(&config, &stacked));
        assert_eq!(experts.linear("mlp.experts.gate_up_proj#0").unwrap().values(), single, "{scheme}");
        let up = experts.linear("mlp.experts.gate_up_proj#1.up").unwrap().values();
        let second = experts.linear("mlp.experts.gate_up_proj#1").unwrap().values();
        assert_eq!(up, second[4 * cols..], "{scheme}");
        assert!(scheme == "unquantised" || second != single, "{scheme}");
    }
}

#[test]
fn q_k_and_v_that_are_interleaved_are_not_addressed_by_name() {
    let config =
        r#"{"model_type": "internlm2", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2}"#;
    let dir = folder(config, &[tensor("wqkv.weight", StDtype::F32, &[8, 2], f32s(&[1.0; 16]))]);
    let error = error(&dir, "wqkv#q");
    assert!(error.to_string().contains("internlm2 interleaves"), "{error}");
    assert_eq!(open(&dir).describe("wqkv").unwrap().parts, <[&str; 0]>::default());
    assert!(open(&dir).linear("wqkv#0..4").is_ok());
}

/// An FP8 weight that its tensors alone describe.
fn fp8_by_itself() -> [NewTensor; 2] {
    [
        tensor("m.weight", StDtype::F8_E4M3, &[2, 2], codes(4)),
        tensor("m.weight_scale", StDtype::F32, &[1], f32s(&[0.5])),
    ]
}

#[test]
fn what_is_damaged_in_a_configuration_is_listed_and_weights_are_read() {
    let tensors = fp8_by_itself();
    for config in ["not json", "[]", "null", "3", "{\"a\": 1,}"] {
        let checkpoint = open(&folder(config, &tensors));
        let [problem] = checkpoint.configuration_problems() else {
            panic!("{config}: {:?}", checkpoint.configuration_problems())
        };
        assert!(matches!(problem, WeightsError::ConfigUnreadable { .. }), "{config}: {problem}");
        assert!(problem.to_string().contains("config.json"), "{problem}");
        assert_eq!(checkpoint.linear("m").unwrap().scales, [0.5], "{config}");
    }
    for config in [
        r#"{"quantization_config": {}}"#,
        r#"{"quantization_config": 5}"#,
        r#"{"quantization_config": {"quant_method": 5}}"#,
        r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}}"#,
        r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]}}"#,
        r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": "128"}}"#,
        r#"{"quantization_config": {"quant_method": "compressed-tensors"}}"#,
        r#"{"quantization_config": {"quant_method": "quark"}}"#,
        r#"{"quantization_config": {"quant_method": "modelopt"}}"#,
        r#"{"quantization_config": {"quant_method": "fp8", "ignored_layers": ["re:(unclosed"]}}"#,
    ] {
        let checkpoint = open(&folder(config, &tensors));
        let problems = checkpoint.configuration_problems();
        assert!(!problems.is_empty(), "{config}");
        for problem in problems {
            assert!(matches!(problem, WeightsError::BadConfig { .. }), "{config}: {problem}");
            assert!(problem.to_string().contains("config.json"), "{problem}");
        }
        assert_eq!(checkpoint.linear("m").unwrap().scales, [0.5], "{config}");
    }
}

#[test]
fn words_that_are_not_known_are_listed_and_their_modules_read_by_tensors() {
    let modelopt = r#"{"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
        "quantized_layers": {"m": {"quant_algo": "W3A5_NEW"}, "n": {"quant_algo": "W3A5_NEW"}}}"#;
    let quark = r#"{"quant_method": "quark",
        "global_quant_config": {"weight": {"dtype": "fp7", "qscheme": "per_spiral"}}}"#;
    let group = r#"{"quant_method": "compressed-tensors", "config_groups":
        {"g": {"targets": ["Linear"], "weights": {"num_bits": 5, "type": "posit", "strategy": "tensor"}}}}"#;
    for (quantization, words) in [
        (r#"{"quant_method": "new"}"#, &[("quant_method", "new")][..]),
        (r#"{"quant_method": "modelopt", "quant_algo": "Q5"}"#, &[("quant_algo", "Q5")]),
        (modelopt, &[("quant_algo", "W3A5_NEW")]),
        (quark, &[("qscheme", "per_spiral"), ("dtype", "fp7")]),
        (group, &[("config group g", "5-bit posit in format ")]),
        (r#"{"quant_method": "gptq", "bits": 5}"#, &[("bits", "5")]),
        (
            r#"{"quant_method": "gptq", "checkpoint_format": "marlin", "bits": 6}"#,
            &[("checkpoint_format", "marlin"), ("bits", "6")],
        ),
        (r#"{"quant_method": "awq", "version": "gemv"}"#, &[("version", "gemv")]),
        (r#"{"quant_method": "auto-round", "packing_format": "other"}"#, &[("packing_format", "other")]),
        (r#"{"quant_method": "fp8", "fmt": "e5m2"}"#, &[("fmt", "e5m2")]),
    ] {
        let config = format!(r#"{{"quantization_config": {quantization}}}"#);
        let checkpoint = open(&folder(&config, &fp8_by_itself()));
        assert!(checkpoint.configuration_problems().is_empty(), "{config}");
        let found: Vec<(&str, &str)> =
            checkpoint.unknown_words().iter().map(|u| (u.key.as_str(), u.word.as_str())).collect();
        assert_eq!(found, words, "{config}");
        let weight = checkpoint.linear("m").unwrap_or_else(|e| panic!("{config}: {e}"));
        assert_eq!((weight.scheme, weight.scales), (Scheme::Fp8, vec![0.5]), "{config}");
    }
    let config = format!(r#"{{"quantization_config": {modelopt}}}"#);
    let words = open(&folder(&config, &fp8_by_itself())).unknown_words()[0].to_string();
    assert!(words.contains("quant_algo `W3A5_NEW` is not known here, so `m` and 1 more are read"), "{words}");
}

#[test]
fn numbers_that_only_python_writes_leave_a_configuration_readable() {
    let config = DEEPSEEK.replacen('{', r#"{"time_step_limit": [0.0, Infinity, -Infinity, NaN], "#, 1);
    let checkpoint = open(&folder(&config, &fp8_by_itself()));
    assert!(checkpoint.configuration_problems().is_empty());
    assert_eq!(checkpoint.claims().count(), 1);
}

#[test]
fn only_the_weight_that_no_scheme_fits_is_refused() {
    let config = r#"{"quantization_config": {"quant_method": "new"}}"#;
    let [weight, scale] = fp8_by_itself();
    let codebooks = tensor("a.codebooks", StDtype::F16, &[1, 2, 1, 2], vec![0; 8]);
    let of_it = tensor("a.codes", StDtype::I8, &[2, 2, 1], vec![0; 4]);
    let gptq = [
        tensor("q.qweight", StDtype::I32, &[1, 8], i32s(8)),
        tensor("q.qzeros", StDtype::I32, &[1, 1], i32s(1)),
        tensor("q.scales", StDtype::F16, &[1, 8], f16s(8)),
    ];
    let checkpoint = open(&folder(config, &[&[weight, scale, codebooks, of_it][..], &gptq].concat()));
    assert!(checkpoint.linear("m").is_ok());
    let error = checkpoint.linear("a").unwrap_err();
    assert!(matches!(&error, WeightsError::Unread { seems, .. } if seems == "AQLM"), "{error}");
    assert_eq!(checkpoint.foreign_module("a.codebooks"), Some("a"));
    assert!(matches!(checkpoint.linear("q"), Err(WeightsError::Ambiguous { .. })));
}

#[test]
fn zero_points_in_the_middle_tell_gptqs_versions_apart() {
    for (zeros, minus_one) in [(0x7777_7777u32, true), (0x8888_8888, false)] {
        let tensors = [
            tensor("m.qweight", StDtype::I32, &[4, 8], i32s(32)),
            tensor("m.qzeros", StDtype::I32, &[2, 1], [zeros.to_le_bytes(); 2].concat()),
            tensor("m.scales", StDtype::F16, &[2, 8], f16s(16)),
        ];
        let checkpoint = open(&folder("", &tensors));
        assert_eq!(checkpoint.linear("m").unwrap().zero_points, [8.0; 16], "{minus_one}");
    }
}

#[test]
fn the_configuration_is_found_where_producers_put_it() {
    let weight = tensor("m.weight", StDtype::F8_E4M3, &[2, 2], codes(4));
    let channel = tensor("m.weight_scale", StDtype::F32, &[2], f32s(&[0.5, 2.0]));
    let dir = folder("", &[weight, channel]);
    assert_eq!(open(&dir).linear("m").unwrap().granularity, Granularity::Row);
    // Each of these says "per tensor", which the scale is not.
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write(
        "hf_quant_config.json",
        r#"{"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}"#,
    );
    let message = error(&dir, "m").to_string();
    assert!(message.contains("ModelOpt FP8") && message.contains("[1] (per tensor)"), "{message}");
    write("config.json", r#"{"hidden_size": 2}"#);
    assert!(matches!(error(&dir, "m"), WeightsError::ScaleShape { .. }));
    write("hf_quant_config.json", "{}");
    let checkpoint = open(&dir);
    let [empty] = checkpoint.configuration_problems() else { panic!("one problem") };
    assert!(
        matches!(empty, WeightsError::BadConfig { path, .. } if path.ends_with("hf_quant_config.json")),
        "{empty}"
    );
    fs::remove_file(dir.path().join("hf_quant_config.json")).unwrap();
    for key in ["quantization_config", "compression_config"] {
        let group = r#"{"weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}}"#;
        let quantization =
            format!(r#"{{"quant_method": "compressed-tensors", "config_groups": {{"g": {group}}}}}"#);
        for config in [
            format!(r#"{{"{key}": {quantization}}}"#),
            format!(r#"{{"{key}": null, "text_config": {{"{key}": {quantization}}}}}"#),
        ] {
            write("config.json", &config);
            let message = error(&dir, "m").to_string();
            assert!(message.contains("group `g`"), "{message}");
        }
    }
}

#[test]
fn patterns_match_modules_and_tensors_in_natural_order() {
    let mut tensors = Vec::new();
    for layer in [0, 2, 10] {
        for name in ["attn.q.weight", "attn.q.bias", "attn.k.weight", "attn.k.weight_scale", "ln.weight"] {
            tensors.push(tensor(&format!("h.{layer}.{name}"), StDtype::F32, &[1], f32s(&[1.0])));
        }
    }
    let dir = folder("", &tensors);
    let checkpoint = open(&dir);
    let names = |pattern: &str| -> Vec<String> {
        checkpoint.matches(pattern).unwrap().into_iter().map(|m| m.name).collect()
    };
    assert_eq!(names("h.{layer}.attn.q"), ["h.0.attn.q", "h.2.attn.q", "h.10.attn.q"]);
    assert_eq!(names("h.2.attn.{proj}"), ["h.2.attn.k", "h.2.attn.q"]);
    assert_eq!(names("h.2.attn.*.weight"), ["h.2.attn.k.weight", "h.2.attn.q.weight"]);
    assert_eq!(names("h.2.attn.q.{what}"), ["h.2.attn.q.bias", "h.2.attn.q.weight"]);
    assert_eq!(names("h.{a}.mlp.{b}"), Vec::<String>::new());
    let first = &checkpoint.matches("h.{layer}.attn.{proj}").unwrap()[0];
    assert_eq!(first.name, "h.0.attn.k");
    assert_eq!((first.captures["layer"].as_str(), first.captures["proj"].as_str()), ("0", "k"));
    assert!(matches!(checkpoint.matches("h.{"), Err(WeightsError::BadPattern { .. })));
}

#[test]
fn written_files_are_reproducible_and_read_by_the_safetensors_crate() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = BTreeMap::from([("b", "2"), ("a", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    let tensors = [
        tensor("z", StDtype::F32, &[2], f32s(&[1.0, 2.0])),
        tensor("a", StDtype::U8, &[3, 1], vec![1, 2, 3]),
        tensor("e", StDtype::BF16, &[0, 4], vec![]),
    ];
    let paths = ["1", "2"].map(|n| dir.path().join(n));
    for path in &paths {
        write(path, &tensors, &metadata).unwrap();
    }
    let bytes = fs::read(&paths[0]).unwrap();
    assert_eq!(bytes, fs::read(&paths[1]).unwrap());
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.tensor("a").unwrap().data(), [1, 2, 3]);
    assert_eq!(read.tensor("z").unwrap().shape(), [2]);
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["b"], "2");

    let path: &Path = &paths[0];
    let short = [tensor("z", StDtype::F32, &[2], vec![0; 7])];
    assert!(matches!(write(path, &short, &metadata), Err(WeightsError::WrongShape { .. })));
    let twice = [tensors[1].clone(), tensors[1].clone()];
    assert!(matches!(write(path, &twice, &metadata), Err(WeightsError::BadHeader { .. })));
}

fn i32s(count: usize) -> Vec<u8> {
    (0..count as u32).flat_map(|i| (i.wrapping_mul(0x9e37_79b9)).to_le_bytes()).collect()
}

fn f16s(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (0x3000 + i as u16).to_le_bytes()).collect()
}

const GPTQ: &str = r#"{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 16}}"#;

/// N = 8, K = 32 in two groups; each tensor can be left out or replaced.
fn gptq(config: &str, change: impl Fn(&mut Vec<NewTensor>)) -> Result<f64, WeightsError> {
    let mut tensors = vec![
        tensor("m.qweight", StDtype::I32, &[4, 8], i32s(32)),
        tensor("m.qzeros", StDtype::I32, &[2, 1], i32s(2)),
        tensor("m.scales", StDtype::F16, &[2, 8], f16s(16)),
        tensor("m.g_idx", StDtype::I32, &[32], (0..32u32).flat_map(|k| (k / 16).to_le_bytes()).collect()),
    ];
    change(&mut tensors);
    let dir = folder(config, &tensors);
    open(&dir).linear("m").map(|weight| weight.values().iter().sum())
}

#[test]
fn gptq_that_is_broken_or_leaves_a_question_open() {
    use WeightsError::*;
    assert!(gptq(GPTQ, |_| ()).is_ok());
    let open_question = gptq("", |_| ()).unwrap_err();
    assert!(matches!(open_question, Ambiguous { .. }), "{open_question}");
    assert!(open_question.to_string().contains("gptq_v2"), "{open_question}");

    let no_zeros = gptq(GPTQ, |t| drop(t.remove(1))).unwrap_err();
    assert!(matches!(no_zeros, ZeroPointsMissing { .. }), "{no_zeros}");
    assert!(matches!(gptq(GPTQ, |t| drop(t.remove(2))), Err(ScaleMissing { .. })));
    assert!(gptq(GPTQ, |t| drop(t.remove(3))).is_ok(), "g_idx is optional");

    let far = gptq(GPTQ, |t| t[3].bytes[20] = 2).unwrap_err();
    assert!(matches!(far, BadValue { index: 5, value: 2, .. }), "{far}");
    let negative = gptq(GPTQ, |t| t[3].bytes[0..4].fill(0xff)).unwrap_err();
    assert!(matches!(negative, BadValue { index: 0, value: -1, .. }), "{negative}");

    let groups = gptq(&GPTQ.replace("16", "8"), |_| ()).unwrap_err();
    assert!(matches!(groups, ScaleShape { .. }), "{groups}");
    assert!(groups.to_string().contains("group_size 8"), "{groups}");
    let shape = gptq(GPTQ, |t| t[2] = tensor("m.scales", StDtype::F16, &[2, 4], f16s(8))).unwrap_err();
    assert!(matches!(shape, ScaleShape { .. }), "{shape}");
    let zeros = gptq(GPTQ, |t| t[1] = tensor("m.qzeros", StDtype::I32, &[1, 1], i32s(1))).unwrap_err();
    assert!(matches!(zeros, WrongShape { .. }), "{zeros}");
    let dtype = gptq(GPTQ, |t| t[0].dtype = StDtype::U32).unwrap_err();
    assert!(matches!(dtype, WrongDtype { .. }), "{dtype}");
    let scale = gptq(GPTQ, |t| t[2] = tensor("m.scales", StDtype::I8, &[2, 8], vec![1; 16])).unwrap_err();
    assert!(matches!(scale, WrongDtype { .. }), "{scale}");

    let awq = GPTQ.replace("gptq", "awq");
    let message = gptq(&awq, |_| ()).unwrap_err().to_string();
    assert!(message.contains("awq") && message.contains("GPTQ"), "{message}");
}

#[test]
fn pack_quantized_keeps_k_that_does_not_fill_its_words() {
    // K = 20 in three words, four nibbles of padding in each row.
    let mut shape = Vec::from(3i64.to_le_bytes());
    shape.extend(20i64.to_le_bytes());
    let words = i32s(9);
    let tensors = |k: u8| {
        let mut shape = shape.clone();
        shape[8] = k;
        [
            tensor("m.weight_packed", StDtype::I32, &[3, 3], words.clone()),
            tensor("m.weight_shape", StDtype::I64, &[2], shape),
            tensor("m.weight_scale", StDtype::BF16, &[3, 1], vec![0x80, 0x3f, 0x00, 0x40, 0x80, 0x40]),
        ]
    };
    let dir = folder("", &tensors(20));
    let checkpoint = open(&dir);
    let weight = checkpoint.linear("m").unwrap();
    assert_eq!((weight.rows, weight.cols, weight.granularity), (3, 20, Granularity::Row));
    let values = weight.values();
    for (r, scale) in [1.0, 2.0, 4.0].into_iter().enumerate() {
        for c in 0..20 {
            let word = &words[4 * (3 * r + c / 8)..][..4];
            let word = u32::from_le_bytes(word.try_into().unwrap());
            let nibble = (word >> (4 * (c % 8))) & 15;
            assert_eq!(values[20 * r + c], (f64::from(nibble) - 8.0) * scale, "{r} {c}");
        }
    }
    let wrong = error(&folder("", &tensors(25)), "m");
    assert!(matches!(wrong, WeightsError::WrongShape { .. }), "{wrong}");
    assert!(wrong.to_string().contains("m.weight_shape"), "{wrong}");
}

#[test]
fn fp4_that_is_broken_or_contradicts_itself() {
    use WeightsError::*;
    let weight = || tensor("m.weight", StDtype::U8, &[4, 32], vec![0x21; 128]);
    let mx =
        |shape: &[usize], dtype| tensor("m.weight_scale", dtype, shape, vec![127; shape.iter().product()]);
    let mxfp4 = folder("", &[weight(), mx(&[4, 2], StDtype::U8)]);
    assert_eq!(open(&mxfp4).linear("m").unwrap().values()[..2], [0.5, 1.0]);

    assert!(matches!(error(&folder("", &[weight()]), "m"), ScaleMissing { .. }));
    let shape = error(&folder("", &[weight(), mx(&[4, 4], StDtype::U8)]), "m");
    assert!(matches!(shape, ScaleShape { .. }), "{shape}");
    let float = tensor("m.weight_scale", StDtype::F32, &[4, 2], f32s(&[1.0; 8]));
    assert!(matches!(error(&folder("", &[weight(), float]), "m"), WrongDtype { .. }));

    let nv = || mx(&[4, 4], StDtype::F8_E4M3);
    let global = |name: &str, value| tensor(name, StDtype::F32, &[], f32s(&[value]));
    let missing = error(&folder("", &[weight(), nv()]), "m");
    assert!(matches!(missing, ScaleMissing { .. }), "{missing}");
    assert!(missing.to_string().contains("m.weight_scale_2"), "{missing}");
    let both = [weight(), nv(), global("m.weight_scale_2", 1.0), global("m.weight_global_scale", 1.0)];
    assert!(matches!(error(&folder("", &both), "m"), Ambiguous { .. }));
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let bad = error(&folder("", &[weight(), nv(), global("m.weight_scale_2", value)]), "m");
        assert!(matches!(bad, BadScale { .. }), "{value}: {bad}");
    }
    let two = tensor("m.weight_scale_2", StDtype::F32, &[2], f32s(&[1.0, 1.0]));
    assert!(matches!(error(&folder("", &[weight(), nv(), two]), "m"), ScaleShape { .. }));

    let modelopt = r#"{"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}"#;
    let message = error(&folder(modelopt, &[weight(), mx(&[4, 2], StDtype::U8)]), "m").to_string();
    assert!(message.contains("ModelOpt NVFP4") && message.contains("MXFP4"), "{message}");
    let group = modelopt.replace("\"NVFP4\"", "\"NVFP4\", \"group_size\": 32");
    let other = [weight(), nv(), global("m.weight_scale_2", 1.0)];
    assert!(matches!(error(&folder(&group, &other), "m"), Contradiction { .. }));
}

#[test]
fn parts_that_do_not_exist_say_so() {
    let experts = tensor("e.w", StDtype::F32, &[2, 3, 4], f32s(&[1.0; 24]));
    let scaled = tensor("s.weight", StDtype::F8_E4M3, &[2, 2, 2], codes(8));
    let scale = tensor("s.weight_scale", StDtype::F32, &[1], f32s(&[1.0]));
    let blocks = [
        tensor("b.weight", StDtype::F8_E4M3, &[256, 128], codes(256 * 128)),
        tensor("b.weight_scale_inv", StDtype::F32, &[2, 1], f32s(&[1.0, 2.0])),
    ];
    let gpt_oss = [
        tensor("g.w_blocks", StDtype::U8, &[2, 3, 1, 16], vec![0; 96]),
        tensor("g.w_scales", StDtype::U8, &[2, 3, 1], vec![127; 6]),
    ];
    let dir = folder("", &[&[experts, scaled, scale], &blocks[..], &gpt_oss[..]].concat());
    let checkpoint = open(&dir);
    assert_eq!(checkpoint.linear("e.w#1").unwrap().rows, 3);
    assert_eq!(checkpoint.linear("b#128..256").unwrap().scales, [2.0]);
    assert_eq!(checkpoint.linear("b#128..130").unwrap().rows, 2);
    for address in ["e.w", "g.w"] {
        let whole = checkpoint.linear(address).unwrap_err();
        assert!(matches!(whole, WeightsError::WrongShape { .. }), "{whole}");
        assert!(whole.to_string().contains(&format!("`{address}#0`")), "{whole}");
    }
    for address in [
        "e.w#2",
        "e.w#x",
        "e.w#0.gate",
        "e.w#0.q",
        "e.w#0.2..4",
        "e.w#0.2..2",
        "s#0",
        "b#5..10",
        "b#127",
        "b#k",
        "g.w#0.up",
        "g.w#2",
    ] {
        let error = checkpoint.linear(address).map(|w| w.rows).unwrap_err();
        let refused = matches!(error, WeightsError::BadPart { .. })
            || address == "b#127" && matches!(error, WeightsError::WrongShape { .. });
        assert!(refused, "{address}: {error}");
    }
}

#[test]
fn attention_heads_that_overflow_are_no_parts() {
    let qkv = tensor("qkv.weight", StDtype::F32, &[4, 2], f32s(&[1.0; 8]));
    for (heads, head_dim) in
        [("1", "9223372036854775809"), ("18446744073709551615", "2"), ("1", "6148914691236517206")]
    {
        let config = format!(r#"{{"num_attention_heads": {heads}, "head_dim": {head_dim}}}"#);
        let dir = folder(&config, std::slice::from_ref(&qkv));
        assert!(matches!(error(&dir, "qkv#k"), WeightsError::BadPart { .. }), "{config}");
        assert_eq!(open(&dir).describe("qkv").unwrap().parts, <[&str; 0]>::default(), "{config}");
    }
}

#[test]
fn experts_that_share_a_tensor_are_described_together() {
    let tensors = [
        tensor("e.gate_up_proj", StDtype::F8_E4M3, &[3, 4, 8], codes(96)),
        tensor("e.gate_up_proj_scale_inv", StDtype::F32, &[3, 2, 4], f32s(&[0.5; 24])),
    ];
    let config = DEEPSEEK.replace("128, 128", "2, 2");
    let dir = folder(&config, &tensors);
    let info = open(&dir).describe("e.gate_up_proj").unwrap();
    assert_eq!((info.experts, info.rows, info.cols), (Some(3), 4, 8));
    assert_eq!(info.parts, ["gate", "up"]);
    assert_eq!(open(&dir).describe("e.gate_up_proj#2").unwrap().experts, Some(3));
    assert_eq!(open(&dir).linear("e.gate_up_proj#2.up").unwrap().rows, 2);
}

#[test]
fn two_weights_of_one_module_and_an_empty_one() {
    let weight = tensor("m.weight", StDtype::F32, &[1, 1], f32s(&[0.0]));
    let packed = tensor("m.qweight", StDtype::I32, &[1, 1], vec![0; 4]);
    let two = error(&folder("", &[weight, packed]), "m");
    assert!(matches!(two, WeightsError::TwoWeights { .. }), "{two}");
    let empty = tensor("m.weight", StDtype::U8, &[0, 1 << 62], vec![]);
    assert!(matches!(error(&folder("", &[empty]), "m"), WeightsError::WrongShape { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever dtypes and shapes the tensors of a module have: a weight of the right size, or an error.
    #[test]
    fn no_combination_of_tensors_panics(
        config in proptest::sample::select(CONFIGS),
        picked in proptest::collection::vec(
            (
                proptest::sample::select(NAMES),
                proptest::sample::select(DTYPES),
                proptest::collection::vec(proptest::sample::select(&[0usize, 1, 2, 4, 8, 16, 32, 64][..]), 0..4),
            ),
            1..5,
        ),
        part in proptest::sample::select(&["", "#0", "#1.up", "#q", "#0..2", "#gate"][..]),
        fill: u8,
    ) {
        let mut tensors: Vec<NewTensor> = Vec::new();
        for (name, dtype, shape) in picked {
            let bits = shape.iter().product::<usize>() * dtype.bitsize();
            if bits % 8 == 0 && tensors.iter().all(|t| t.name != name) {
                let bytes = (0..bits / 8).map(|i| fill.wrapping_mul(i as u8)).collect();
                tensors.push(tensor(name, dtype, &shape, bytes));
            }
        }
        prop_assume!(!tensors.is_empty());
        let dir = folder(config, &tensors);
        let checkpoint = open(&dir);
        let _ = (checkpoint.modules(), checkpoint.orphans(), checkpoint.matches("{a}.{b}").unwrap());
        for module in ["m", "m.weight", "n"] {
            if let Ok(weight) = checkpoint.linear(&format!("{module}{part}")) {
                prop_assert_eq!(weight.values().len(), weight.rows * weight.cols);
                prop_assert_eq!(weight.codes.len(), weight.dtype.packed_len(weight.rows * weight.cols));
                let (rows, cols) = weight.grid();
                prop_assert!(weight.scales.is_empty() || weight.scales.len() == rows * cols);
            }
            let _ = checkpoint.vector(module);
        }
    }

    #[test]
    fn no_bytes_panic_as_header_index_or_configuration(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..300, byte: u8) {
        let _ = open_bytes(&bytes);
        let _ = open_bytes(&with_header(&String::from_utf8_lossy(&bytes), 8));
        // One byte of a good folder changed.
        let dir = sharded();
        for file in ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"] {
            let path = dir.path().join(file);
            let mut content = fs::read(&path).unwrap();
            let i = at % content.len();
            content[i] = byte;
            fs::write(&path, content).unwrap();
        }
        if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
            let _ = checkpoint.linear("l.0.a").map(|w| w.values());
        }
    }
}

const CONFIGS: &[&str] = &[
    "",
    DEEPSEEK,
    GPTQ,
    r#"{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": -1}}"#,
    r#"{"num_attention_heads": 2, "head_dim": 1, "num_key_value_heads": 1, "hidden_size": 2}"#,
    r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [18446744073709551615, 1]}}"#,
    r#"{"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":
        {"g": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 3}}}}}"#,
];

const NAMES: &[&str] = &[
    "m",
    "m.weight",
    "m.qweight",
    "m.weight_packed",
    "m.blocks",
    "m_blocks",
    "m.weight_scale",
    "m.weight_scale_inv",
    "m.weight_scale_2",
    "m.weight_global_scale",
    "m.weight_zero_point",
    "m.weight_shape",
    "m.weight_g_idx",
    "m.qzeros",
    "m.scales",
    "m_scales",
    "m.g_idx",
    "n",
];

const DTYPES: &[StDtype] = &[
    StDtype::F32,
    StDtype::F16,
    StDtype::BF16,
    StDtype::F8_E4M3,
    StDtype::F8_E5M2,
    StDtype::F8_E8M0,
    StDtype::F8_E4M3FNUZ,
    StDtype::F6_E2M3,
    StDtype::F4,
    StDtype::U8,
    StDtype::I8,
    StDtype::I32,
    StDtype::I64,
    StDtype::F64,
    StDtype::BOOL,
];
