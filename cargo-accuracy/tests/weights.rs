//! `cargo accuracy weights` and `dtypes`: the real binary on checkpoints of every scheme, whole and broken.

use accuracy_core::dtype::{DType, Overflow};
use accuracy_core::weights::{NewTensor, StDtype, write};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

struct Answer {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }

    fn findings(&self) -> Vec<(String, String, String)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let findings = self.json()["findings"].as_array().unwrap().clone();
        findings.iter().map(|f| (text(&f["severity"]), text(&f["kind"]), text(&f["message"]))).collect()
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
    command.current_dir(folder).arg("accuracy").args(arguments);
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR_FORCE", "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command
}

fn answer(command: &mut Command) -> Answer {
    let output = command.output().unwrap();
    Answer {
        status: output.status.code().unwrap_or_else(|| panic!("{output:?}")),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder with the checkpoint `checkpoint`.
struct Checkpoint(TempDir);

impl Checkpoint {
    fn new(config: &str, tensors: &[NewTensor]) -> Checkpoint {
        let checkpoint = Checkpoint(tempfile::tempdir().unwrap());
        fs::create_dir(checkpoint.path()).unwrap();
        write(&checkpoint.path().join("model.safetensors"), tensors, &BTreeMap::new()).unwrap();
        if !config.is_empty() {
            fs::write(checkpoint.path().join("config.json"), config).unwrap();
        }
        checkpoint
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("checkpoint")
    }

    fn run(&self, flags: &[&str]) -> Answer {
        answer(&mut command(self.0.path(), &[&["weights", "checkpoint"], flags].concat()))
    }

    fn at_80_columns(&self, flags: &[&str]) -> Answer {
        let arguments = [&["weights", "checkpoint"], flags].concat();
        answer(command(self.0.path(), &arguments).env("COLUMNS", "80"))
    }

    /// One error of that kind, whose message, as JSON and as text, has these words; nothing else is an error.
    #[track_caller]
    fn assert_error(&self, flags: &[&str], kind: &str, words: &[&str]) {
        let json = self.run(&[flags, &["--format", "json"]].concat());
        assert_eq!(json.status, 100, "{}{}", json.stdout, json.stderr);
        let errors: Vec<_> = json.findings().into_iter().filter(|f| f.0 == "error").collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].1, kind, "{errors:?}");
        let text = self.run(flags);
        assert_eq!(text.status, 100, "{}", text.stdout);
        for word in words {
            assert!(errors[0].2.contains(word), "no {word:?} in {errors:?}");
            assert!(text.stdout.contains(word), "no {word:?} in {}", text.stdout);
        }
    }

    /// Nothing is wrong without these flags.
    #[track_caller]
    fn assert_fine(&self, flags: &[&str]) {
        let fine = self.run(flags);
        assert_eq!(fine.status, 0, "{}{}", fine.stdout, fine.stderr);
        assert!(fine.stdout.contains(" 0 missing or contradictory"), "{}", fine.stdout);
    }
}

fn tensor(name: &str, dtype: StDtype, shape: &[usize], bytes: Vec<u8>) -> NewTensor {
    NewTensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

fn fp8(name: &str, rows: usize, cols: usize) -> NewTensor {
    let bytes = (0..rows * cols).map(|i| (i % 0x7f) as u8).collect();
    tensor(name, StDtype::F8_E4M3, &[rows, cols], bytes)
}

fn f32s(name: &str, shape: &[usize], values: &[f32]) -> NewTensor {
    tensor(name, StDtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn f16s(name: &str, shape: &[usize], codes: &[u16]) -> NewTensor {
    tensor(name, StDtype::F16, shape, codes.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn bf16(name: &str, shape: &[usize]) -> NewTensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| i as f64 / 8.0).collect();
    tensor(name, StDtype::BF16, shape, DType::BF16.encode_bytes(&values, Overflow::Special))
}

const DEEPSEEK: &str = r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 2]}}"#;
const UE8M0: &str =
    r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 2], "scale_fmt": "ue8m0"}}"#;

/// Four by four in blocks of two by two.
fn blocks(scales: &[f32; 4]) -> [NewTensor; 2] {
    [fp8("m.weight", 4, 4), f32s("m.weight_scale_inv", &[2, 2], scales)]
}

const SCALES: [f32; 4] = [0.3, 0.5, 0.7, 1.1];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../accuracy-core/tests/fixtures/checkpoints")
}

#[test]
fn every_scheme_is_named_and_nothing_is_missing() {
    let mut schemes: Vec<(String, String)> = Vec::new();
    for entry in fs::read_dir(fixtures()).unwrap() {
        let folder = entry.unwrap().path();
        let files =
            ["model.safetensors.index.json", "model.safetensors", "consolidated.safetensors", "model.gguf"];
        let file = files.iter().map(|file| folder.join(file)).find(|file| file.exists()).unwrap();
        let file = file.to_str().unwrap();
        let found = answer(&mut command(&folder, &["weights", file, "--scan", "--format", "json"]));
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let kinds: Vec<String> = found.findings().into_iter().map(|f| f.1).collect();
        let (status, odd) = match name.as_str() {
            // Its config.json is left out, to be read by the tensors alone.
            "mxfp8_mxfp6" => (0, &["no_quantization_config"][..]),
            "modelopt_all" => (0, &["online_transform"; 4][..]),
            "transforms" => (0, &["online_transform"][..]),
            "gguf" => (100, &["unread_scheme"][..]),
            _ => (0, &[][..]),
        };
        assert_eq!(found.status, status, "{file}: {}", found.stdout);
        assert_eq!(kinds, odd, "{file}: {}", found.stdout);
        let json = found.json();
        let mut of: Vec<String> = json["totals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| {
                format!("{} {} {}", t["scheme"].as_str().unwrap(), t["dtype"].as_str().unwrap(), t["weights"])
            })
            .collect();
        of.sort();
        schemes.push((name, of.join(", ")));
        let bytes = |list: &str| -> u64 {
            json[list].as_array().unwrap().iter().map(|entry| entry["bytes"].as_u64().unwrap()).sum()
        };
        let header_and_padding = json["file_bytes"].as_u64().unwrap() - bytes("weights") - bytes("others");
        if file.ends_with("model.safetensors") {
            let length = fs::read(file).unwrap()[..8].try_into().map(u64::from_le_bytes).unwrap();
            assert_eq!(header_and_padding, 8 + length, "{file}: other bytes belong to no tensor");
        }
        assert!(header_and_padding < 6000, "{file}: {header_and_padding} bytes belong to no tensor");
    }
    schemes.sort();
    let schemes: Vec<(&str, &str)> = schemes.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        schemes,
        [
            ("auto_round_awq", "int4_awq uint4 1"),
            ("auto_round_gptq", AUTO_ROUND),
            ("auto_round_plain", AUTO_ROUND),
            ("awq", "int4_awq uint4 1"),
            ("bitsandbytes_fp4", "bnb_fp4 f32 2"),
            ("bitsandbytes_int8", "int8 int8 1"),
            ("bitsandbytes_nf4", "bnb_nf4 f32 2"),
            ("compressed_tensors_fp8", "fp8 e4m3fn 1, unquantized bf16 1"),
            ("compressed_tensors_int4", "int4_packed uint4 3"),
            ("compressed_tensors_int8", "int8 int8 2"),
            ("compressed_tensors_mixed", "fp8 e4m3fn 1, fp8 e4m3fn 1, nvfp4 e2m1 1, unquantized bf16 1"),
            ("compressed_tensors_nvfp4", "nvfp4 e2m1 1"),
            ("compressed_tensors_pack_int8", "int8_packed int8 3"),
            ("compressed_tensors_sparse", "fp8 e4m3fn 2, unquantized bf16 1"),
            ("deepseek_fp8", "fp8 e4m3fn 1"),
            ("deepseek_ue8m0", "fp8 e4m3fn 1"),
            ("deepseek_v4", "fp8 e4m3fn 1, mxfp4 e2m1 1, unquantized bf16 1"),
            ("fbgemm_fp8", "fp8 e4m3fn 1, unquantized bf16 1"),
            ("fp8_static", "fp8 e4m3fn 4"),
            (
                "gguf",
                "gguf_iq4_nl int8 1, gguf_mxfp4 e2m1 1, gguf_q2_k f32 1, gguf_q3_k int8 1, gguf_q4_0 uint4 2, \
                 gguf_q4_1 f32 1, gguf_q4_k f32 1, gguf_q5_0 int8 1, gguf_q5_1 f32 1, gguf_q5_k f32 1, \
                 gguf_q6_k int8 1, gguf_q8_0 int8 1, unquantized bf16 1, unquantized f16 1, unquantized f32 1"
            ),
            ("gpt_oss_mxfp4", "mxfp4 e2m1 2"),
            ("gpt_oss_original", "mxfp4 e2m1 1"),
            ("gptq_int8_v1", "int8_gptq int8 2"),
            ("gptq_int8_v2", "int8_gptq int8 2"),
            ("gptq_v1", "int4_gptq uint4 2"),
            ("gptq_v2", "int4_gptq uint4 2"),
            ("hf_fp8", "fp8 e4m3fn 1"),
            ("hqq", "hqq f32 1, hqq int8 2, hqq uint4 1"),
            ("layered", "fp8 e4m3fn 2, nvfp4 e2m1 1, unquantized bf16 1"),
            ("mistral", "fp8 e4m3fn 2, unquantized bf16 1"),
            ("modelopt_all", "fp8 e4m3fn 1, int4 int4 2, int8 int8 1, mxfp4 e2m1 1, nvfp4 e2m1 4"),
            ("modelopt_mixed", "fp8 e4m3fn 1, fp8 e4m3fn 1, nvfp4 e2m1 1"),
            ("modelopt_nvfp4", "nvfp4 e2m1 1"),
            ("mxfp8_mxfp6", "mxfp6_e2m3 e2m3 1, mxfp6_e3m2 e3m2 1, mxfp8 e5m2 1"),
            (
                "quark_all",
                "fp8 e4m3fn 1, int4_quark int4 1, int4_quark int4 1, int4_quark uint4 1, int8 int8 1, mxfp4 e2m1 1"
            ),
            ("quark_fp8", "fp8 e4m3fn 1, fp8 e4m3fn 1"),
            ("quark_mxfp4", "mxfp4 e2m1 1"),
            ("quark_stages", "int4_quark int4 1, int4_quark int4 1, nvfp4 e2m1 1"),
            ("torchao", "fp8 e4m3fn 1, int8 int8 1"),
            ("torchao_blocks", "int4 f32 1, int4 int4 1, mxfp4 e2m1 2, mxfp8 e4m3fn 2, nvfp4 e2m1 2"),
            ("transforms", "int4_packed uint4 2"),
            ("unquantized", "unquantized bf16 1, unquantized f16 1, unquantized f32 1"),
            ("w4afp8", "fp8 e4m3fn 1, int4 int4 1"),
        ]
    );
}

/// Modules of one checkpoint with several numbers of bits.
const AUTO_ROUND: &str =
    "int2_gptq int8 1, int3_gptq int8 1, int4_gptq uint4 1, int8_gptq int8 1, unquantized bf16 1";

#[test]
fn fused_tensors_say_how_many_experts_and_which_parts() {
    let file = fixtures().join("gpt_oss_mxfp4/model.safetensors");
    let json =
        answer(&mut command(&fixtures(), &["weights", file.to_str().unwrap(), "--format", "json"])).json();
    let weights = json["weights"].as_array().unwrap();
    let gate_up = &weights[1];
    assert_eq!(gate_up["name"], "model.layers.0.mlp.experts.gate_up_proj");
    assert_eq!(gate_up["experts"], 3);
    assert_eq!(gate_up["shape"], serde_json::json!([8, 64]));
    assert_eq!(gate_up["scale_shape"], serde_json::json!([8, 2]));
    assert_eq!(gate_up["parts"], serde_json::json!(["gate", "up"]));
    assert_eq!(
        gate_up["tensors"],
        serde_json::json!([
            "model.layers.0.mlp.experts.gate_up_proj_blocks",
            "model.layers.0.mlp.experts.gate_up_proj_scales"
        ])
    );
    assert_eq!(weights[0]["parts"], serde_json::json!([]));
}

#[test]
fn a_scale_of_the_wrong_shape() {
    let [weight, _] = blocks(&SCALES);
    let scale = f32s("m.weight_scale_inv", &[4, 1], &SCALES);
    let checkpoint = Checkpoint::new(DEEPSEEK, &[weight, scale]);
    checkpoint.assert_error(
        &[],
        "scale_shape",
        &["m.weight_scale_inv", "[4, 1]", "[2, 2]", "weight_block_size"],
    );
}

#[test]
fn e8m0_scales_stored_as_bytes() {
    let [weight, _] = blocks(&SCALES);
    let scale = tensor("m.weight_scale_inv", StDtype::U8, &[2, 2], vec![120, 121, 122, 123]);
    let tensors = [weight, scale];
    Checkpoint::new(DEEPSEEK, &tensors).assert_error(
        &[],
        "scale_is_bytes",
        &["U8", "\"scale_fmt\": \"ue8m0\""],
    );
    Checkpoint::new(UE8M0, &tensors).assert_fine(&["--scan"]);
}

#[test]
fn float_scales_where_the_configuration_says_ue8m0() {
    let checkpoint = Checkpoint::new(UE8M0, &blocks(&[0.5, 0.25, 0.3, 2.0]));
    // Producers store powers of two as floats, too: only the values tell.
    checkpoint.assert_fine(&[]);
    checkpoint.assert_error(&["--scan"], "scale_not_power_of_two", &["ue8m0", "index 2", "no power of two"]);
    Checkpoint::new(UE8M0, &blocks(&[0.5, 0.25, 4.0, 2.0])).assert_fine(&["--scan"]);
}

#[test]
fn a_conversion_to_fnuz_that_would_be_the_second() {
    let mut tensors = blocks(&SCALES);
    tensors[0].dtype = StDtype::F8_E4M3FNUZ;
    let checkpoint = Checkpoint::new(DEEPSEEK, &tensors);
    checkpoint.assert_fine(&["--scan"]);
    checkpoint.assert_error(&["--arch", "gfx942"], "fnuz", &["`m`", "e4m3fnuz already", "twice"]);
    checkpoint.assert_error(&["--arch", "gfx950"], "fnuz_on_ocp", &["`m`", "gfx950 reads as e4m3fn"]);
    let once = Checkpoint::new(DEEPSEEK, &blocks(&SCALES));
    once.assert_fine(&["--arch", "gfx942", "--scan"]);
    once.assert_fine(&["--arch", "gfx950", "--scan"]);
}

#[test]
fn nan_codes_that_fnuz_would_read_as_numbers() {
    let mut tensors = blocks(&SCALES);
    tensors[0].bytes[6] = 0x7f;
    let checkpoint = Checkpoint::new(DEEPSEEK, &tensors);
    checkpoint.assert_fine(&["--arch", "gfx942"]);
    checkpoint.assert_error(&["--scan"], "non_finite_codes", &["`m` has 1 NaN", "0x7f", "[1, 2]"]);
    let converted = checkpoint.run(&["--scan", "--arch", "gfx942", "--format", "json"]);
    let kinds: Vec<String> = converted.findings().into_iter().map(|f| f.1).collect();
    assert_eq!(kinds, ["non_finite_codes", "non_finite_codes"]);
    assert!(converted.findings()[1].2.contains("fnuz has finite values in their place"));
}

#[test]
fn tensors_that_contradict_the_configuration() {
    let awq = r#"{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 2}}"#;
    Checkpoint::new(awq, &blocks(&SCALES)).assert_error(
        &[],
        "contradiction",
        &["awq", "FP8 stored as F8_E4M3"],
    );
    let nothing = Checkpoint::new(DEEPSEEK, &[bf16("m.weight", &[4, 4])]);
    nothing.assert_error(&[], "nothing_quantized", &["quant_method fp8", "no weight is quantised"]);
}

#[test]
fn quantised_weights_of_which_the_configuration_does_not_speak() {
    let words = ["1 of 1 weights are quantised", "`m`: FP8 e4m3fn, f32 scales, per row", "engines go by it"];
    let scale = f32s("m.weight_scale", &[4], &SCALES);
    let tensors = [fp8("m.weight", 4, 4), scale];
    for config in [r#"{"hidden_size": 4}"#, r#"{"quantization_config": null}"#] {
        let words = [&words[..], &["config.json has no quantization_config"]].concat();
        Checkpoint::new(config, &tensors).assert_error(&[], "no_quantization_config", &words);
    }
    let none = Checkpoint::new("", &tensors);
    none.assert_error(&[], "no_quantization_config", &[&words[..], &["there is no config.json in"]].concat());
    assert!(none.run(&[]).stdout.contains("  no config.json\n"));
    // One file of a checkpoint whose configuration is elsewhere.
    let file = answer(&mut command(&none.path(), &["weights", "model.safetensors", "--format", "json"]));
    assert_eq!((file.status, file.findings()[0].0.as_str()), (0, "warning"));
    for (config, found) in [("[]", "a list"), ("null", "null"), ("3", "a number")] {
        // The weights are looked at all the same.
        let answer = Checkpoint::new(config, &tensors).run(&[]);
        assert_eq!(answer.status, 101);
        let words = format!("config.json: bad configuration: is {found}, expected a JSON object");
        assert!(answer.stdout.contains(&words), "{}", answer.stdout);
        assert!(answer.stdout.contains("1 weight, 1 missing or contradictory"), "{}", answer.stdout);
    }
    // OpenAI's own form of gpt-oss, and weights that need no configuration.
    let blocks = tensor("block.0.mlp.mlp1_weight.blocks", StDtype::U8, &[1, 2, 1, 16], vec![0x21; 32]);
    let scales = tensor("block.0.mlp.mlp1_weight.scales", StDtype::U8, &[1, 2, 1], vec![120, 121]);
    Checkpoint::new("{}", &[blocks, scales]).assert_fine(&[]);
    Checkpoint::new("", &[bf16("m.weight", &[4, 4])]).assert_fine(&[]);
}

fn i32s(name: &str, shape: &[usize], values: &[u32]) -> NewTensor {
    tensor(name, StDtype::I32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// Eight by eight in one group of columns; `zeros` are the stored zero points of its rows.
fn int4(method: &str, zeros: Option<u32>) -> Vec<NewTensor> {
    let words: Vec<u32> = (0..8).map(|i| 0x1234_5678u32.rotate_left(4 * i)).collect();
    let scales: Vec<f64> = (1..9).map(|i| f64::from(i) / 8.0).collect();
    let scales = |name: &str, dtype: (DType, StDtype), shape: &[usize]| {
        tensor(name, dtype.1, shape, dtype.0.encode_bytes(&scales, Overflow::Special))
    };
    let (f16, bf16) = ((DType::F16, StDtype::F16), (DType::BF16, StDtype::BF16));
    let (mut tensors, zero_points) = match method {
        "gptq" => (vec![i32s("m.qweight", &[1, 8], &words), scales("m.scales", f16, &[1, 8])], "m.qzeros"),
        "awq" => (vec![i32s("m.qweight", &[8, 1], &words), scales("m.scales", f16, &[1, 8])], "m.qzeros"),
        _ => (
            vec![i32s("m.weight_packed", &[8, 1], &words), scales("m.weight_scale", bf16, &[8, 1])],
            "m.weight_zero_point",
        ),
    };
    tensors.extend(zeros.map(|zeros| i32s(zero_points, &[1, 1], &[zeros])));
    tensors
}

/// `quantization_config` of compressed-tensors with these members of its only group.
fn compressed(format: &str, targets: &str, weights: &str) -> String {
    format!(
        r#"{{"quantization_config": {{"quant_method": "compressed-tensors", "format": "{format}",
            "config_groups": {{"group_0": {{"targets": {targets}, "weights": {{{weights}}}}}}}}}}}"#
    )
}

#[test]
fn zero_points_that_contradict_the_configuration() {
    let gptq = |format: &str, sym: bool, zeros: u32| {
        let config = format!(
            r#"{{"quantization_config": {{"quant_method": "gptq", "bits": 4, "group_size": 8, "sym": {sym},
                "checkpoint_format": "{format}"}}}}"#
        );
        Checkpoint::new(&config, &int4("gptq", Some(zeros)))
    };
    gptq("gptq", true, 0x7777_7777).assert_fine(&["--scan"]);
    gptq("gptq_v2", true, 0x8888_8888).assert_fine(&["--scan"]);
    gptq("gptq", false, 0x8888_8888).assert_fine(&["--scan"]);
    for (format, zeros, other, zero) in
        [("gptq", 0x8888_8888, "gptq_v2", "9"), ("gptq_v2", 0x7777_7777, "gptq", "7")]
    {
        let words = [
            "says sym true, so all zero points are 8, but by `m.qzeros`".to_owned(),
            format!("at [0, 0] is {zero}; with checkpoint_format {other} all would be right"),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // Only values tell.
        gptq(format, true, zeros).assert_fine(&[]);
        gptq(format, true, zeros).assert_error(&["--scan"], "not_symmetric", &words);
    }
    gptq("gptq", true, 0x7776_7777).assert_error(&["--scan"], "not_symmetric", &["at [4, 0] is 7"]);

    let awq =
        r#"{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 8, "zero_point": ZERO}}"#;
    let awq = |zero_point: &str, zeros: u32| {
        Checkpoint::new(&awq.replace("ZERO", zero_point), &int4("awq", Some(zeros)))
    };
    awq("true", 0x1234_5678).assert_fine(&["--scan"]);
    awq("false", 0).assert_fine(&["--scan"]);
    awq("false", 0x1234_5678).assert_error(
        &["--scan"],
        "not_symmetric",
        &["says zero_point false", "`m.qzeros`"],
    );

    let packed = |symmetric: &str, zeros: Option<u32>| {
        let weights =
            format!(r#""num_bits": 4, "type": "int", "strategy": "channel", "symmetric": {symmetric}"#);
        Checkpoint::new(&compressed("pack-quantized", r#"["Linear"]"#, &weights), &int4("ct", zeros))
    };
    packed("true", None).assert_fine(&["--scan"]);
    packed("true", Some(0x8888_8888)).assert_fine(&["--scan"]);
    packed("false", Some(0x1234_5678)).assert_fine(&["--scan"]);
    packed("false", None).assert_error(
        &[],
        "zero_points_missing",
        &["`m.weight_packed`", "m.weight_zero_point"],
    );
    packed("true", Some(0x8898_8888)).assert_error(
        &["--scan"],
        "not_symmetric",
        &["symmetric true", "[5, 0] is 9"],
    );

    let int8 = |symmetric: &str, zeros: Option<[u8; 4]>| {
        let weights =
            format!(r#""num_bits": 8, "type": "int", "strategy": "channel", "symmetric": {symmetric}"#);
        let mut tensors = vec![
            tensor("m.weight", StDtype::I8, &[4, 4], (0..16).collect()),
            f32s("m.weight_scale", &[4, 1], &SCALES),
        ];
        tensors.extend(zeros.map(|z| tensor("m.weight_zero_point", StDtype::I8, &[4, 1], z.to_vec())));
        Checkpoint::new(&compressed("int-quantized", r#"["Linear"]"#, &weights), &tensors)
    };
    int8("false", Some([1, 2, 3, 4])).assert_fine(&["--scan"]);
    int8("true", Some([0; 4])).assert_fine(&["--scan"]);
    int8("false", None).assert_error(&[], "zero_points_missing", &["m.weight_zero_point"]);
    int8("true", Some([0, 0, 3, 0])).assert_error(&["--scan"], "not_symmetric", &["at [2, 0] is 3"]);
}

#[test]
fn codes_of_eight_bits_in_words() {
    let gptq = |bits: u32, tensors: &[NewTensor]| {
        let config = r#"{"quantization_config": {"quant_method": "gptq", "group_size": 8, "sym": true, "bits": BITS}}"#;
        Checkpoint::new(&config.replace("BITS", &bits.to_string()), tensors)
    };
    let int8 = |zeros: u32| {
        let scales: Vec<f64> = (1..9).map(|i| f64::from(i) / 8.0).collect();
        let words: Vec<u32> = (0..16).map(|i| 0x0123_4567u32.wrapping_mul(2 * i + 1)).collect();
        vec![
            i32s("m.qweight", &[2, 8], &words),
            tensor("m.scales", StDtype::F16, &[1, 8], DType::F16.encode_bytes(&scales, Overflow::Special)),
            i32s("m.qzeros", &[1, 2], &[zeros; 2]),
        ]
    };
    gptq(8, &int8(0x7f7f_7f7f)).assert_fine(&["--scan"]);
    let words =
        ["all zero points are 128", "[0, 0] is 129; with checkpoint_format gptq_v2 all would be right"];
    gptq(8, &int8(0x8080_8080)).assert_error(&["--scan"], "not_symmetric", &words);
    gptq(4, &int8(0x7f7f_7f7f)).assert_error(&[], "contradiction", &["gptq with group_size", "GPTQ int8"]);
    gptq(8, &int4("gptq", Some(0x7777_7777))).assert_error(&[], "contradiction", &["bits 8", "GPTQ stored"]);
    gptq(3, &int8(0)).assert_error(&[], "contradiction", &["bits 3", "GPTQ int8"]);
    let seven = gptq(7, &int8(0x7f7f_7f7f)).run(&["--format", "json"]);
    let [(severity, kind, message)] = &seven.findings()[..] else { panic!("{}", seven.stdout) };
    assert_eq!((seven.status, severity.as_str(), kind.as_str()), (0, "warning", "unknown_word"));
    assert!(message.contains("bits `7` is not known here"), "{message}");
}

#[test]
fn targets_that_leave_out_what_is_quantised() {
    let weights = r#""num_bits": 8, "type": "float", "strategy": "channel""#;
    let checkpoint = |targets: &str, modules: &[&str]| {
        let of = |module: &&str| {
            [
                fp8(&format!("{module}.weight"), 4, 4),
                f32s(&format!("{module}.weight_scale"), &[4, 1], &SCALES),
            ]
        };
        let tensors: Vec<NewTensor> = modules.iter().flat_map(of).collect();
        Checkpoint::new(&compressed("float-quantized", targets, weights), &tensors)
    };
    let modules = ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"];
    checkpoint(r#"["re:.*gate_proj$"]"#, &modules).assert_error(
        &[],
        "untargeted",
        &["`model.layers.0.mlp.down_proj` is stored as FP8", "do not name it, as they do"],
    );
    checkpoint(r#"["Linear"]"#, &modules).assert_fine(&[]);
    checkpoint(r#"["re:.*gate_proj$", "model.layers.0.mlp.down_proj"]"#, &modules).assert_fine(&[]);
    // Where the model's modules may be called otherwise it is odd: none is named, or it is an expert.
    let expert = ["model.layers.0.mlp.gate_proj", "model.layers.0.moe.experts.3.w2"];
    for (targets, modules, count) in
        [(r#"["re:.*q_proj$"]"#, modules, 2), (r#"["re:.*gate_proj$"]"#, expert, 1)]
    {
        let found = checkpoint(targets, &modules).run(&["--format", "json"]);
        let findings: Vec<(String, String)> = found.findings().into_iter().map(|f| (f.0, f.1)).collect();
        assert_eq!(findings, vec![("warning".to_owned(), "untargeted".to_owned()); count]);
        assert_eq!(found.status, 0);
    }
    // The names of a model within another one, and of a fused projection.
    checkpoint(r#"["re:layers.*"]"#, &modules).assert_fine(&[]);
    let fused = ["model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"];
    checkpoint(r#"["re:.*gate_up_proj$", "re:.*down_proj$"]"#, &fused).assert_fine(&[]);

    let words = ["bad configuration: `targets`: `re:(unclosed` is no regular expression"];
    checkpoint(r#"["re:(unclosed"]"#, &modules).assert_error(&[], "bad_config", &words);
}

#[test]
fn a_static_input_without_its_scale() {
    let fixed = DEEPSEEK.replace("\"fp8\"", "\"fp8\", \"activation_scheme\": \"static\"");
    Checkpoint::new(&fixed, &blocks(&SCALES)).assert_error(
        &[],
        "input_scale_missing",
        &["`m` has no input_scale"],
    );
    let with = [&blocks(&SCALES)[..], &[f32s("m.input_scale", &[], &[0.5])]].concat();
    Checkpoint::new(&fixed, &with).assert_fine(&["--scan"]);
}

#[test]
fn what_is_missing() {
    let [weight, scale] = blocks(&SCALES);
    let no_scale = Checkpoint::new(DEEPSEEK, std::slice::from_ref(&weight));
    no_scale.assert_error(&[], "scale_missing", &["m.weight", "m.weight_scale_inv"]);
    let no_weight = Checkpoint::new(
        DEEPSEEK,
        &[fp8("n.weight", 2, 2), f32s("n.weight_scale_inv", &[1, 1], &[0.5]), scale],
    );
    no_weight.assert_error(&[], "orphan", &["`m.weight_scale_inv` [2, 2] has no weight"]);
    // A parameter that is merely called so, and the scales of the KV cache.
    let parameters =
        ["logit_scale", "model.layers.0.self_attn.k_scale", "model.layers.0.self_attn.v_proj.output_scale"];
    let parameters = parameters.map(|name| f32s(name, &[1], &[4.6]));
    Checkpoint::new("", &[&[bf16("m.weight", &[4, 4])][..], &parameters[..]].concat())
        .assert_fine(&["--scan"]);
    // The global scale of another scheme.
    let left_over = [weight, blocks(&SCALES)[1].clone(), f32s("m.weight_scale_2", &[1], &[1.0])];
    let left_over = Checkpoint::new(DEEPSEEK, &left_over).run(&["--format", "json"]);
    assert_eq!(left_over.status, 0);
    assert_eq!(left_over.findings()[0].1, "unused");
}

#[test]
fn scales_that_are_broken_or_prove_nothing() {
    for (value, shown) in [(f32::NAN, "NaN"), (-0.5, "-5e-1"), (f32::INFINITY, "inf")] {
        let checkpoint = Checkpoint::new(DEEPSEEK, &blocks(&[0.5, value, 0.25, 0.125]));
        checkpoint.assert_fine(&[]);
        checkpoint.assert_error(&["--scan"], "bad_scale", &["1 of 4", shown, "index 1"]);
    }
    let odd = |scales: &[f32; 4]| {
        let found = Checkpoint::new(DEEPSEEK, &blocks(scales)).run(&["--scan", "--format", "json"]);
        assert_eq!(found.status, 0, "odd is not wrong: {}", found.stdout);
        let [(severity, kind, message)] = &found.findings()[..] else { panic!("{}", found.stdout) };
        assert_eq!(severity, "warning");
        (kind.clone(), message.clone())
    };
    let (kind, message) = odd(&[0.5; 4]);
    assert_eq!(kind, "constant_scale");
    assert!(
        message.contains("all 4 are 5e-1; no test on this weight can reveal a wrong scale layout"),
        "{message}"
    );
    let zero = Checkpoint::new(DEEPSEEK, &blocks(&[0.5, 0.0, 0.25, 1.0]));
    zero.assert_fine(&[]);
    let words = "`m.weight_scale_inv`: 1 of 4 are zero over codes that are not, the first at [0, 1]";
    zero.assert_error(&["--scan"], "zero_scale", &[words]);
    // A block that holds nothing, and one of NVFP4 that is too small for its scale's format.
    let mut nothing = blocks(&[0.5, 0.25, 0.0, 1.0]);
    for (row, column) in [(2, 0), (2, 1), (3, 0), (3, 1)] {
        nothing[0].bytes[4 * row + column] = 0x80 * (column as u8);
    }
    let nothing = Checkpoint::new(DEEPSEEK, &nothing).run(&["--scan", "--format", "json"]);
    let [(severity, _, message)] = &nothing.findings()[..] else { panic!("{}", nothing.stdout) };
    assert!(severity == "warning" && message.ends_with("1 of 4 are zero, over codes of zero"), "{message}");
    let nvfp4 = [
        tensor("m.weight", StDtype::U8, &[1, 16], vec![0x21; 16]),
        tensor("m.weight_scale", StDtype::F8_E4M3, &[1, 2], vec![0, 0x38]),
        f32s("m.weight_scale_2", &[], &[0.5]),
    ];
    let config = r#"{"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}"#;
    let nvfp4 = Checkpoint::new(config, &nvfp4).run(&["--scan", "--format", "json"]);
    let [(severity, _, message)] = &nvfp4.findings()[..] else { panic!("{}", nvfp4.stdout) };
    assert!(
        severity == "warning" && message.contains("1 of 2 are zero over codes that are not"),
        "{message}"
    );
}

/// Two shards, of which the second holds the scale.
fn sharded(checkpoint: &Checkpoint) {
    let [weight, scale] = blocks(&SCALES);
    let at = |name: &str| checkpoint.path().join(name);
    fs::remove_file(at("model.safetensors")).unwrap();
    write(&at("a.safetensors"), &[weight], &BTreeMap::new()).unwrap();
    write(&at("b.safetensors"), &[scale, bf16("norm.weight", &[4])], &BTreeMap::new()).unwrap();
    let index = r#"{"weight_map": {"m.weight": "a.safetensors", "m.weight_scale_inv": "b.safetensors"}}"#;
    fs::write(at("model.safetensors.index.json"), index).unwrap();
}

#[test]
fn shards_that_are_missing_damaged_or_say_otherwise_than_the_index() {
    let checkpoint = Checkpoint::new(DEEPSEEK, &blocks(&SCALES));
    sharded(&checkpoint);
    let unlisted = checkpoint.run(&["--format", "json"]);
    assert_eq!((unlisted.status, unlisted.findings()[0].1.as_str()), (0, "unlisted"));

    let second = checkpoint.path().join("b.safetensors");
    let whole = fs::read(&second).unwrap();
    fs::write(&second, &whole[..whole.len() - 3]).unwrap();
    let damaged = checkpoint.run(&[]);
    assert_eq!(damaged.status, 101, "{}", damaged.stdout);
    assert!(damaged.stdout.contains("b.safetensors: truncated"), "{}", damaged.stdout);
    assert!(damaged.stdout.contains("2 tensors not looked at"), "{}", damaged.stdout);

    fs::remove_file(&second).unwrap();
    checkpoint.assert_error(&[], "shard_missing", &["b.safetensors, which is not in its folder; fetch it"]);

    write(&second, &[bf16("norm.weight", &[4])], &BTreeMap::new()).unwrap();
    checkpoint.assert_error(&[], "not_in_shard", &["m.weight_scale_inv", "b.safetensors"]);
}

#[test]
fn layers_that_are_not_stored_alike_are_odd() {
    let mut tensors = Vec::new();
    for layer in 0..3 {
        let name = format!("model.layers.{layer}.mlp.up_proj.weight");
        if layer == 1 {
            tensors.push(bf16(&name, &[4, 4]));
        } else {
            tensors.push(fp8(&name, 4, 4));
            tensors.push(f32s(&format!("{name}_scale_inv"), &[2, 2], &SCALES));
        }
    }
    let found = Checkpoint::new(DEEPSEEK, &tensors).run(&["--format", "json"]);
    assert_eq!(found.status, 0);
    let [(_, kind, message)] = &found.findings()[..] else { panic!("{}", found.stdout) };
    assert_eq!(kind, "mixed");
    assert!(
        message.contains("2 are FP8 e4m3fn") && message.contains("`model.layers.1.mlp.up_proj`"),
        "{message}"
    );
}

/// Names and shapes of a model like DeepSeek's: a dense layer, three with experts, one that predicts another token, and
/// a vision tower of more layers.
fn moe_model() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![12, 8]),
        ("model.norm.weight".to_owned(), vec![8]),
    ];
    for layer in 0..5 {
        let mut push = |name: &str, shape: &[usize]| {
            tensors.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        };
        push("input_layernorm.weight", &[8]);
        for (proj, shape) in [("q_a", [4, 8]), ("q_b", [16, 4]), ("o", [8, 16])] {
            push(&format!("self_attn.{proj}_proj.weight"), &shape);
        }
        if layer == 0 {
            for (proj, shape) in [("gate", [24, 8]), ("up", [24, 8]), ("down", [8, 24])] {
                push(&format!("mlp.{proj}_proj.weight"), &shape);
            }
            continue;
        }
        push("mlp.gate.weight", &[3, 8]);
        push("mlp.gate.e_score_correction_bias", &[3]);
        for expert in 0..3 {
            for (proj, shape) in [("gate", [2, 8]), ("up", [2, 8]), ("down", [8, 2])] {
                push(&format!("mlp.experts.{expert}.{proj}_proj.weight"), &shape);
            }
        }
        if layer == 4 {
            push("eh_proj.weight", &[8, 16]);
            push("shared_head.head.weight", &[12, 8]);
        }
    }
    for layer in 0..6 {
        tensors.push((format!("visual.blocks.{layer}.self_attn.q_proj.weight"), vec![6, 6]));
    }
    tensors
}

const MOE: &str = r#"{"hidden_size": 8, "intermediate_size": 24, "vocab_size": 12, "num_hidden_layers": 4,
    "num_nextn_predict_layers": 1, "first_k_dense_replace": 1, "n_routed_experts": 3}"#;

/// Of the model what has none of these words in its name.
fn model_without(config: &str, words: &[&str]) -> Checkpoint {
    let kept = moe_model().into_iter().filter(|(name, _)| !words.iter().any(|w| name.contains(w)));
    let tensors: Vec<NewTensor> = kept.map(|(name, shape)| bf16(&name, &shape)).collect();
    Checkpoint::new(config, &tensors)
}

#[test]
fn layers_that_lack_what_others_have() {
    let kinds = |checkpoint: &Checkpoint| -> Vec<(String, String)> {
        let found = checkpoint.run(&["--format", "json"]).findings();
        found.into_iter().map(|(severity, kind, _)| (severity, kind)).collect()
    };
    // Dense layers first, one that predicts another token, a tower.
    assert_eq!(kinds(&model_without(MOE, &[])), []);
    model_without(MOE, &["layers.2.self_attn.o_proj"]).assert_error(
        &[],
        "missing_weight",
        &["`model.layers.*.self_attn.o_proj` is missing in layer 2", "all else that layers 1, 3 have"],
    );
    let odd = [("warning".to_owned(), "uneven_layers".to_owned())];
    for word in
        ["layers.3.input_layernorm", "layers.1.mlp.gate.e_score_correction_bias", "blocks.5.self_attn.q"]
    {
        let found = kinds(&model_without(MOE, &[word]));
        // A block of which nothing is left is no layer.
        assert_eq!(found, if word.starts_with("blocks") { &[][..] } else { &odd }, "{word}");
    }
    // The layers of either kind are alike where config.json says that there are two.
    let types = |types: &str| MOE.replacen('{', &format!("{{\"layer_types\": {types}, "), 1);
    let no_q_b = ["layers.2.self_attn.q_b_proj"];
    let of_two_kinds = model_without(&types(r#"["full", "full", "shared", "full"]"#), &no_q_b);
    assert_eq!(kinds(&of_two_kinds), []);
    assert_eq!(kinds(&model_without(&types(r#"["full", "full", "full", "full"]"#), &no_q_b)), odd);
    // Which of two layers is right cannot be known: the one that has more, then.
    let two = ["layers.0", "layers.3", "layers.4", "visual", "layers.2.mlp.gate.weight"];
    assert_eq!(kinds(&model_without("{}", &two)), odd);
}

#[test]
fn layers_experts_and_dimensions_that_the_configuration_says() {
    let config = |key: &str, value: &str| {
        let begin = MOE.find(key).unwrap() + key.len() + 3;
        let end = begin + MOE[begin..].find([',', '}']).unwrap();
        [&MOE[..begin], value, &MOE[end..]].concat()
    };
    model_without(&config("num_hidden_layers", "8"), &[]).assert_error(
        &[],
        "missing_layers",
        &["config.json says num_hidden_layers 8", "`model.layers.*` lacks layers 5-7"],
    );
    model_without(MOE, &["layers.2."]).assert_error(
        &[],
        "missing_layers",
        &["num_hidden_layers 4", "lacks layer 2"],
    );
    model_without(MOE, &["layers.2.mlp.experts.1."]).assert_error(
        &[],
        "missing_experts",
        &["n_routed_experts 3", "`model.layers.2.mlp.experts.*` lacks 1"],
    );
    for (key, value, words) in [
        ("hidden_size", "16", "says hidden_size 16, and 11 of 11 weights have another"),
        ("intermediate_size", "32", "says intermediate_size 32, and 3 of 3 weights have another"),
        ("vocab_size", "13", "`model.embed_tokens` [12, 8] has 12 rows"),
    ] {
        model_without(&config(key, value), &[]).assert_error(&[], "dimensions", &[words]);
    }
    // Rows for tokens that are not there.
    model_without(&config("vocab_size", "11"), &[]).assert_fine(&[]);
    // Layers that serve several times, and a model whose language model has a configuration of its own.
    let shared = MOE.replacen('{', r#"{"is_encoder_decoder": true, "#, 1);
    model_without(&shared, &["layers.2."]).assert_fine(&[]);
    let nested = format!(r#"{{"hidden_size": 5, "num_hidden_layers": 50, "text_config": {MOE}}}"#);
    model_without(&nested, &[]).assert_fine(&[]);
    model_without(&nested, &["layers.3."]).assert_error(&[], "missing_layers", &["lacks layer 3"]);
}

#[test]
fn a_part_of_a_checkpoint_need_not_be_whole() {
    let whole = model_without(MOE, &["layers.1.self_attn.o_proj", "layers.3."]);
    assert_eq!(whole.run(&[]).status, 100);
    let folder = whole.path();
    // One file of several.
    fs::rename(folder.join("model.safetensors"), folder.join("model-00001-of-00002.safetensors")).unwrap();
    let file = answer(&mut command(&folder, &["weights", "model-00001-of-00002.safetensors"]));
    assert_eq!(file.status, 0, "{}", file.stdout);
    // What `cargo accuracy shard` wrote.
    let carve =
        ["shard", "--from", "checkpoint", "--tensors", "model.layers.*.self_attn.*", "--rows", "0..4"];
    let carved = answer(&mut command(whole.0.path(), &[&carve[..], &["--out", "carved"]].concat()));
    assert_eq!(carved.status, 0, "{}", carved.stderr);
    fs::copy(folder.join("config.json"), whole.0.path().join("carved/config.json")).unwrap();
    let carved = answer(&mut command(whole.0.path(), &["weights", "carved"]));
    assert_eq!(carved.status, 0, "{}", carved.stdout);
    assert!(carved.stdout.contains(" 0 odd"), "{}", carved.stdout);
}

#[test]
fn what_cannot_be_read_and_what_cannot_be_understood() {
    let folder = tempfile::tempdir().unwrap();
    let run =
        |arguments: &[&str]| answer(command(folder.path(), arguments).env("HF_HUB_CACHE", folder.path()));
    for (arguments, status, words) in [
        (&["weights", "./no/such.safetensors"][..], 101, "no such file"),
        (&["weights", "."], 101, "neither model.safetensors.index.json nor"),
        (&["weights", "org/name"], 101, "hf download org/name --revision main"),
        (&["weights", "org/name@v2"], 101, "org/name@v2 is not in the Hugging Face cache"),
        (&["weights", "name"], 2, "org/name@revision"),
        (&["weights"], 2, "CHECKPOINT"),
        (&["weights", "x", "--arch", "gfx9"], 2, "gfx942"),
        (&["dtypes", "fp8"], 2, "e4m3fnuz"),
    ] {
        let found = run(arguments);
        assert_eq!(found.status, status, "{arguments:?}: {}{}", found.stdout, found.stderr);
        assert!(found.stderr.contains(words), "{arguments:?}: {}", found.stderr);
        assert_eq!(found.stdout, "", "{arguments:?}");
    }
    // A method that is not known leaves the weights to their tensors.
    let scale = f32s("m.weight_scale", &[4, 1], &SCALES);
    let tensors = [fp8("m.weight", 4, 4), scale];
    let checkpoint = Checkpoint::new(r#"{"quantization_config": {"quant_method": "brand-new"}}"#, &tensors);
    let unknown = checkpoint.run(&["--scan", "--format", "json"]);
    let [(severity, kind, message)] = &unknown.findings()[..] else { panic!("{}", unknown.stdout) };
    assert_eq!((unknown.status, severity.as_str(), kind.as_str()), (0, "warning", "unknown_word"));
    assert!(message.contains("quant_method `brand-new` is not known here"), "{message}");
    assert_eq!(unknown.json()["totals"][0]["granularity"], "per row");
}

#[test]
fn what_is_there_in_place_of_the_weights() {
    let checkpoint = Checkpoint::new(DEEPSEEK, &blocks(&SCALES));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n";
    let page = "\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>";
    let words = [(pointer, "a Git LFS pointer, not the file itself; fetch that with `git lfs pull`")];
    let words = [&words[..], &[(page, "an HTML page, not the file itself; fetch that again")]].concat();
    for file in ["model.safetensors", "model.safetensors.index.json", "config.json"] {
        let path = checkpoint.path().join(file);
        let before = fs::read(&path);
        for (text, words) in &words {
            fs::write(&path, text).unwrap();
            let found = checkpoint.run(&[]);
            assert_eq!(found.status, 101, "{}", found.stdout);
            // A configuration does not keep the weights from being looked at.
            let told = if file == "config.json" { &found.stdout } else { &found.stderr };
            assert!(told.replace("\n  ", " ").contains(&format!("{file}: {words}")), "{told}");
        }
        match before {
            Ok(bytes) => fs::write(&path, bytes).unwrap(),
            Err(_) => fs::remove_file(&path).unwrap(),
        }
    }
    // One file of an index.
    sharded(&checkpoint);
    fs::write(checkpoint.path().join("b.safetensors"), pointer).unwrap();
    let found = checkpoint.run(&[]);
    assert_eq!(found.status, 101);
    assert!(found.stdout.contains("b.safetensors: a Git LFS pointer"), "{}", found.stdout);

    let folder = checkpoint.0.path();
    fs::write(folder.join("pytorch_model.bin"), "").unwrap();
    let run = || answer(&mut command(folder, &["weights", "."]));
    assert!(run().stderr.contains("; pytorch_model.bin is of a format that is not read"), "{}", run().stderr);
    fs::write(folder.join("model.ggml"), "").unwrap();
    assert!(run().stderr.contains("; model.ggml and 1 more are of formats"), "{}", run().stderr);
    fs::write(folder.join("model.gguf"), "GGUF").unwrap();
    assert!(run().stderr.contains("model.gguf: truncated"), "{}", run().stderr);
}

#[test]
fn a_repository_of_the_hugging_face_cache() {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--org--tiny");
    let snapshot = repository.join("snapshots/0123abcd");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "0123abcd").unwrap();
    for file in ["model.safetensors", "config.json"] {
        fs::copy(fixtures().join("hf_fp8").join(file), snapshot.join(file)).unwrap();
    }
    for spec in ["org/tiny", "org/tiny@main", "org/tiny@0123abcd"] {
        let mut command = command(cache.path(), &["weights", spec, "--format", "json"]);
        let found = answer(command.env("HF_HUB_CACHE", cache.path()));
        assert_eq!(found.status, 0, "{spec}: {}", found.stderr);
        assert_eq!(found.json()["totals"][0]["scheme"], "fp8");
    }
}

/// Three layers, of which one lacks a scale and one has a scale too many; and a stack of experts.
fn broken_model() -> Checkpoint {
    let mut tensors = vec![bf16("model.embed_tokens.weight", &[16, 8])];
    for layer in 0..3 {
        let name = |module: &str| format!("model.layers.{layer}.{module}.weight");
        tensors.push(bf16(&name("input_layernorm"), &[8]));
        for (module, rows) in [("self_attn.q_proj", 8), ("mlp.down_proj", 6)] {
            tensors.push(fp8(&name(module), rows, 8));
            if (layer, module) != (1, "mlp.down_proj") {
                let shape = [rows / 2, 4];
                let scales: Vec<f32> = (0..shape[0] * 4).map(|i| 0.01 + i as f32 / 7.0).collect();
                tensors.push(f32s(&format!("{}_scale_inv", name(module)), &shape, &scales));
            }
        }
    }
    tensors.push(f32s("model.layers.3.mlp.down_proj.weight_scale_inv", &[1, 1], &[0.5]));
    let experts =
        tensor("model.layers.2.mlp.experts.gate_up_proj", StDtype::F8_E4M3, &[2, 4, 8], vec![0x38; 64]);
    tensors.push(experts);
    let scales: Vec<f32> = (0..16).map(|i| 0.5 + i as f32).collect();
    tensors.push(f32s("model.layers.2.mlp.experts.gate_up_proj_scale_inv", &[2, 2, 4], &scales));
    Checkpoint::new(DEEPSEEK, &tensors)
}

#[test]
fn text_at_80_columns() {
    let found = broken_model().at_80_columns(&["--scan"]);
    assert_eq!(found.status, 100);
    let words = |line: &str| line.split_whitespace().map(|w| w.chars().count()).max().unwrap_or(0);
    for line in found.stdout.lines() {
        assert!(line.chars().count() <= 80 || words(line) > 60, "{line}");
        assert!(!line.ends_with(' '), "{line:?}");
    }
    insta::assert_snapshot!(found.stdout);
}

#[test]
fn text_into_a_pipe() {
    insta::assert_snapshot!(broken_model().run(&[]).stdout);
}

#[test]
fn text_of_every_weight() {
    insta::assert_snapshot!(broken_model().run(&["-v"]).stdout);
}

#[test]
fn formats_at_80_columns() {
    let folder = tempfile::tempdir().unwrap();
    let text = |arguments: &[&str]| answer(command(folder.path(), arguments).env("COLUMNS", "80")).stdout;
    insta::assert_snapshot!([text(&["dtypes"]), text(&["dtypes", "e2m1"])].join("\n"));
}

#[test]
fn every_code_of_every_format_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| answer(&mut command(folder.path(), arguments)).json();
    for &dtype in DType::ALL {
        let json = run(&["dtypes", dtype.name(), "--format", "json"]);
        assert_eq!(json["name"], dtype.name());
        assert_eq!(json["bits"], dtype.bits());
        assert_eq!(json["max"].as_f64(), Some(dtype.max()), "{dtype}");
        if dtype.bits() > 16 {
            assert!(json["codes"].is_null());
            continue;
        }
        let codes = json["codes"].as_array().unwrap();
        assert_eq!(codes.len(), 1 << dtype.bits());
        for (code, value) in codes.iter().enumerate() {
            let want = dtype.decode(code as u32);
            let same = match value {
                Value::Null => want.is_nan(),
                Value::String(text) => text.parse() == Ok(want) && want.is_infinite(),
                value => value.as_f64().unwrap().to_bits() == want.to_bits(),
            };
            assert!(same, "{dtype} {code:#x}: {value} for {want}");
        }
    }
    let all = run(&["dtypes", "--format", "json"]);
    let names: Vec<&str> =
        all["formats"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, DType::ALL.iter().map(|d| d.name()).collect::<Vec<_>>());
    let decodes =
        |arch: &str, dtype: &str| all["architectures"][arch].as_array().unwrap().contains(&dtype.into());
    assert!(decodes("gfx942", "e4m3fnuz") && !decodes("gfx942", "e4m3fn") && !decodes("gfx942", "e2m1"));
    assert!(decodes("gfx950", "e4m3fn") && !decodes("gfx950", "e4m3fnuz") && decodes("gfx950", "e8m0"));
}

#[test]
fn a_model_of_which_python_wrote_infinity_is_surveyed_bit_for_bit() {
    let layers = r#"{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "MIXED_PRECISION",
        "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"], "quantized_layers": {
        "backbone.layers.0.mixer.in_proj": {"quant_algo": "FP8"},
        "backbone.layers.1.mixer.experts.0.up_proj": {"quant_algo": "NVFP4", "group_size": 16}}}}"#;
    let experts = "backbone.layers.1.mixer.experts.0.up_proj";
    let tensors = [
        fp8("backbone.layers.0.mixer.in_proj.weight", 4, 16),
        f32s("backbone.layers.0.mixer.in_proj.weight_scale", &[], &[0.25]),
        tensor(&format!("{experts}.weight"), StDtype::U8, &[2, 16], vec![0x21; 32]),
        tensor(&format!("{experts}.weight_scale"), StDtype::F8_E4M3, &[2, 2], vec![0x38, 0x39, 0x3a, 0x3b]),
        f32s(&format!("{experts}.weight_scale_2"), &[], &[0.5]),
        bf16("lm_head.weight", &[4, 16]),
    ];
    for number in ["Infinity", "-Infinity", "NaN", "1e999"] {
        let config = format!(r#"{{"model_type": "nemotron_h", "time_step_limit": [0.0, {number}]}}"#);
        let checkpoint = Checkpoint::new(&config, &tensors);
        fs::write(checkpoint.path().join("hf_quant_config.json"), layers).unwrap();
        checkpoint.assert_fine(&["--scan"]);
        let found = checkpoint.run(&["--format", "json"]).json();
        assert_eq!(found["totals"].as_array().unwrap().len(), 3, "{found}");
    }
}

#[test]
fn a_rotation_is_said_and_never_a_weight() {
    let folder = fixtures().join("transforms");
    let text = answer(&mut command(&folder, &["weights", "model.safetensors"]));
    assert_eq!(text.status, 0, "{}", text.stdout);
    let words = "`l.0.mlp.down_proj`: y = x·W does not hold for what is stored: its input is rotated at run time (R4)";
    assert!(text.stdout.replace("\n  ", " ").contains(words), "{}", text.stdout);
    let json = answer(&mut command(&folder, &["weights", "model.safetensors", "--format", "json"])).json();
    assert_eq!(json["weights"].as_array().unwrap().len(), 2);
    let [other] = &json["others"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!(
        (other["name"].as_str(), other["what"].as_str()),
        (Some("l.0.mlp.down_proj.R4_input.weight"), Some("transform"))
    );
}

#[test]
fn a_configuration_is_found_in_whichever_part_of_the_model_has_it() {
    let nested = |place: &str| format!(r#"{{"{place}": {DEEPSEEK}}}"#);
    let twice = format!(r#"{{"thinker_config": {}}}"#, nested("text_config"));
    let capitals = DEEPSEEK.replace(r#""fp8""#, r#""FP8""#);
    for config in [nested("llm_config"), nested("language_config"), twice, capitals] {
        Checkpoint::new(&config, &blocks(&SCALES)).assert_fine(&["--scan"]);
    }
}

#[test]
fn what_cannot_be_read_is_named_by_the_scheme_that_the_configuration_says() {
    let config = r#"{"quantization_config": {"quant_method": "bitnet"}}"#;
    let weight = tensor("m.weight", StDtype::U8, &[2, 4], vec![0x21; 8]);
    Checkpoint::new(config, &[weight, f32s("m.weight_scale", &[1], &[0.5])]).assert_error(
        &[],
        "unread_scheme",
        &["`m` seems to be quant_method bitnet", "m.weight_scale"],
    );
    let int32 = tensor("m.weight", StDtype::U32, &[2, 4], (1..33).collect());
    let mlx = [int32, bf16("m.scales", &[2, 1]), bf16("m.biases", &[2, 1])];
    Checkpoint::new(r#"{"quantization": {"bits": 4}}"#, &mlx).assert_error(&[], "unread_scheme", &["MLX"]);
}

#[test]
fn other_places_and_spellings_of_the_same_claims_are_read() {
    let read = |config: &str, beside: Option<(&str, &str)>, tensors: &[NewTensor], scheme: &str| {
        let checkpoint = Checkpoint::new(config, tensors);
        if let Some((name, text)) = beside {
            fs::write(checkpoint.path().join(name), text).unwrap();
        }
        checkpoint.assert_fine(&["--scan"]);
        let found = checkpoint.run(&["--format", "json"]).json();
        assert_eq!(found["weights"][0]["scheme"], scheme, "{config}: {found}");
    };
    // GPTQ's configuration in a file of its own, and with GPTQModel's words.
    let gptq = [
        tensor("m.qweight", StDtype::I32, &[2, 8], (0..64).collect()),
        tensor("m.qzeros", StDtype::I32, &[1, 1], vec![0x77; 4]),
        f16s("m.scales", &[1, 8], &[0x3801, 0x3802, 0x3803, 0x3804, 0x3805, 0x3806, 0x3807, 0x3808]),
        tensor("m.g_idx", StDtype::I32, &[16], vec![0; 64]),
    ];
    let config = r#"{"bits": 4, "group_size": 16, "sym": false, "desc_act": false}"#;
    read("{}", Some(("quantize_config.json", config)), &gptq, "int4_gptq");
    let words =
        r#"{"quantization_config": {"method": "gptq", "format": "gptq_v2", "bits": 4, "group_size": 16}}"#;
    read(words, None, &gptq, "int4_gptq");
    // int4 of which each code has a byte.
    let int4 = r#"{"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups":
        {"g": {"weights": {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": true}, "targets": ["Linear"]}}}}"#;
    let bytes = tensor("m.weight", StDtype::I8, &[2, 4], vec![1, 2, 3, 0xf8, 5, 6, 7, 0xff]);
    read(int4, None, &[bytes.clone(), f32s("m.weight_scale", &[2, 1], &[0.5, 0.25])], "int8");
    // A member of another name.
    let elsewhere = r#"{"quant_config": {"quant_method": "fp8"}}"#;
    read(elsewhere, None, &[fp8("m.weight", 4, 16), f32s("m.weight_scale", &[], &[0.5])], "fp8");
    // Experts that share a tensor.
    let modelopt = r#"{"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}"#;
    let experts = tensor("m.experts.gate_up_proj", StDtype::F8_E4M3, &[2, 4, 8], vec![0x31; 64]);
    let scales = [
        f32s("m.experts.gate_up_proj_weight_scale", &[2], &[0.5, 0.25]),
        f32s("m.experts.gate_up_proj_input_scale", &[2], &[0.5, 0.25]),
    ];
    read(modelopt, None, &[&[experts][..], &scales].concat(), "fp8");
    // All of microscaling has exponents for scales.
    let mxfp8 = r#"{"quantization_config": {"quant_method": "mxfp8"}}"#;
    let exponents = tensor("m.weight_scale", StDtype::U8, &[4, 2], (120..128).collect());
    read(mxfp8, None, &[fp8("m.weight", 4, 64), exponents], "mxfp8");
    // An offset of zeros changes nothing; another one is not read.
    let ascend = r#"{"quantization_config": {"quant_method": "ascend"}}"#;
    let with = |offset: f32| {
        let scale = f32s("m.weight_scale", &[2, 1], &[0.5, 0.25]);
        [bytes.clone(), scale, f32s("m.weight_offset", &[2, 1], &[0.0, offset])]
    };
    read(ascend, None, &with(0.0), "int8");
    Checkpoint::new(ascend, &with(3.0)).assert_error(&[], "unread_scheme", &["m.weight_offset"]);
}

#[test]
fn codes_of_a_scheme_that_nobody_knows_are_not_passed_over() {
    let config = r#"{"quantization_config": {"quant_method": "sparkling"}}"#;
    let codes = tensor("m.shimmer", StDtype::I32, &[2, 4], (0..32).collect());
    let words = ["`m.shimmer` I32 [2, 4]", "scheme that is not read"];
    Checkpoint::new(config, &[codes, f32s("m.s_channel", &[1, 4], &[0.5; 4])]).assert_error(
        &[],
        "unread_scheme",
        &words,
    );
    let qqq = [
        tensor("m.B", StDtype::I32, &[2, 4], (0..32).collect()),
        f32s("m.s_channel", &[1, 4], &[0.5; 4]),
        f32s("m.s_group", &[1, 4], &[0.5; 4]),
    ];
    let config = config.replace("sparkling", "qqq");
    Checkpoint::new(&config, &qqq).assert_error(&[], "unread_scheme", &["`m` seems to be QQQ"]);
}
