//! Small checkpoints of every scheme, written with numpy by `peers/make_checkpoints.py`, give the values that it
//! wrote down, bit for bit.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use accuracy_core::dtype::{DType, FnuzError};
use accuracy_core::quant::Granularity;
use accuracy_core::weights::{
    Block, Carve, Checkpoint, GlobalScale, Scheme, StDtype, WeightsError, cached_snapshot, write,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

/// The checkpoint without `expected.safetensors`, which lies in the same folder.
fn open(name: &str) -> Checkpoint {
    let folder = fixture(name);
    let files =
        ["model.safetensors.index.json", "model.safetensors", "consolidated.safetensors", "model.gguf"];
    let file = files.iter().map(|file| folder.join(file)).find(|file| file.exists()).unwrap();
    Checkpoint::open(&file).unwrap()
}

fn f64s(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect()
}

/// Every value of every address in the fixture, compared; the number of addresses.
fn check(name: &str) -> usize {
    let checkpoint = open(name);
    let expected = Checkpoint::open(&fixture(name).join("expected.safetensors")).unwrap();
    let mut addresses = 0;
    for address in expected.names().filter(|n| !n.ends_with("@at")) {
        let want = expected.raw(address).unwrap();
        assert_eq!(want.dtype, StDtype::F64);
        let weight = checkpoint.linear(address).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = weight.values();
        assert_eq!(values.len(), weight.rows * weight.cols, "{name} {address}");
        let got: Vec<f64> = match expected.raw(&format!("{address}@at")) {
            Ok(at) => {
                let indices = at.bytes.as_chunks::<8>().0.iter().map(|&b| u64::from_le_bytes(b) as usize);
                indices.map(|i| values[i]).collect()
            }
            Err(_) => {
                assert_eq!(want.shape, [weight.rows, weight.cols], "{name} {address}");
                values
            }
        };
        let want = f64s(want.bytes);
        assert_eq!(got.len(), want.len(), "{name} {address}");
        assert!(want.iter().any(|&v| v != want[0]), "{name} {address}: constant values prove nothing");
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert_eq!(g.to_bits(), w.to_bits(), "{name} {address} [{i}]: {g} instead of {w}");
        }
        addresses += 1;
    }
    addresses
}

#[test]
fn every_scheme_gives_the_values_numpy_wrote() {
    let mut folders: Vec<String> = std::fs::read_dir(fixture(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let counts: Vec<(String, usize)> = folders.into_iter().map(|f| (f.clone(), check(&f))).collect();
    let counts: Vec<(&str, usize)> = counts.iter().map(|(f, n)| (f.as_str(), *n)).collect();
    assert_eq!(
        counts,
        [
            ("auto_round_awq", 1),
            ("auto_round_gptq", 5),
            ("auto_round_plain", 5),
            ("awq", 1),
            ("bitsandbytes_fp4", 2),
            ("bitsandbytes_int8", 1),
            ("bitsandbytes_nf4", 2),
            ("compressed_tensors_fp8", 2),
            ("compressed_tensors_int4", 3),
            ("compressed_tensors_int8", 2),
            ("compressed_tensors_mixed", 4),
            ("compressed_tensors_nvfp4", 1),
            ("compressed_tensors_pack_int8", 3),
            ("compressed_tensors_sparse", 3),
            ("deepseek_fp8", 1),
            ("deepseek_ue8m0", 1),
            ("deepseek_v4", 3),
            ("fbgemm_fp8", 2),
            ("fp8_static", 4),
            ("gguf", 17),
            ("gpt_oss_mxfp4", 8),
            ("gpt_oss_original", 2),
            ("gptq_int8_v1", 2),
            ("gptq_int8_v2", 2),
            ("gptq_v1", 2),
            ("gptq_v2", 2),
            ("hf_fp8", 1),
            ("hqq", 4),
            ("layered", 4),
            ("mistral", 3),
            ("modelopt_all", 9),
            ("modelopt_mixed", 3),
            ("modelopt_nvfp4", 1),
            ("mxfp8_mxfp6", 3),
            ("quark_all", 6),
            ("quark_fp8", 2),
            ("quark_mxfp4", 1),
            ("quark_stages", 3),
            ("torchao", 2),
            ("torchao_blocks", 8),
            ("transforms", 2),
            ("unquantized", 8),
            ("w4afp8", 2),
        ]
    );
}

#[test]
fn schemes_are_recognised() {
    let is = |fixture: &str, address: &str| {
        let info = open(fixture).describe(address).unwrap();
        (info.scheme, info.dtype, info.granularity, info.scale_dtype)
    };
    let group = Granularity::Group;
    let fp4 = DType::E2M1;
    for (fixture, address, want) in [
        ("awq", "m", (Scheme::Awq, DType::U4, group(32), Some(DType::F16))),
        ("gptq_int8_v1", "act_order", (Scheme::GptqInt8, DType::I8, group(32), Some(DType::F16))),
        (
            "compressed_tensors_pack_int8",
            "filled",
            (Scheme::PackedInt8, DType::I8, group(32), Some(DType::BF16)),
        ),
        ("gptq_v1", "act_order", (Scheme::Gptq, DType::U4, group(32), Some(DType::F16))),
        (
            "compressed_tensors_int4",
            "symmetric",
            (Scheme::PackedInt4, DType::U4, group(32), Some(DType::BF16)),
        ),
        ("compressed_tensors_fp8", "m", (Scheme::Fp8, DType::E4M3Fn, Granularity::Row, Some(DType::BF16))),
        ("quark_fp8", "a", (Scheme::Fp8, DType::E4M3Fn, Granularity::Tensor, Some(DType::F32))),
        ("compressed_tensors_nvfp4", "m", (Scheme::Nvfp4, fp4, group(16), Some(DType::E4M3Fn))),
        ("quark_mxfp4", "m", (Scheme::Mxfp4, fp4, group(32), Some(DType::E8M0))),
        (
            "gpt_oss_mxfp4",
            "model.layers.0.mlp.experts.down_proj#0",
            (Scheme::Mxfp4, fp4, group(32), Some(DType::E8M0)),
        ),
        ("mxfp8_mxfp6", "m", (Scheme::Mxfp8, DType::E5M2, group(32), Some(DType::E8M0))),
        ("mxfp8_mxfp6", "b", (Scheme::Mxfp6E3M2, DType::E3M2, group(32), Some(DType::E8M0))),
        (
            "unquantized",
            "model.layers.0.mlp.down_proj",
            (Scheme::Unquantized, DType::F32, Granularity::Tensor, None),
        ),
    ] {
        assert_eq!(is(fixture, address), want, "{fixture} {address}");
    }
}

#[test]
fn schemes_of_single_producers_are_recognised() {
    for (fixture, address, scheme, dtype) in [
        ("auto_round_gptq", "l.0.k_proj", Scheme::GptqInt2, DType::I8),
        ("auto_round_gptq", "l.0.v_proj", Scheme::GptqInt3, DType::I8),
        ("auto_round_plain", "l.0.o_proj", Scheme::GptqInt8, DType::I8),
        ("auto_round_awq", "m", Scheme::Awq, DType::U4),
        ("modelopt_all", "l.0.gate_proj", Scheme::Int4, DType::I4),
        ("modelopt_all", "l.0.k_proj", Scheme::Nvfp4, DType::E2M1),
        ("quark_all", "group", Scheme::QuarkInt4, DType::I4),
        ("quark_all", "unsigned", Scheme::QuarkInt4, DType::U4),
        ("quark_stages", "rows", Scheme::QuarkInt4, DType::I4),
        ("quark_stages", "nvfp4", Scheme::Nvfp4, DType::E2M1),
        ("torchao_blocks", "int4", Scheme::Int4, DType::F32),
        ("torchao_blocks", "int4_fp8", Scheme::Int4, DType::I4),
        ("torchao_blocks", "mxfp8_tiles", Scheme::Mxfp8, DType::E4M3Fn),
        ("torchao_blocks", "mxfp4", Scheme::Mxfp4, DType::E2M1),
        ("torchao_blocks", "nvfp4_tiles", Scheme::Nvfp4, DType::E2M1),
        ("w4afp8", "l.0.mlp.experts.0.up_proj", Scheme::Int4, DType::I4),
        ("bitsandbytes_nf4", "nested", Scheme::BnbNf4, DType::F32),
        ("hqq", "four", Scheme::Hqq, DType::U4),
        ("hqq", "across", Scheme::Hqq, DType::F32),
        ("gguf", "blk.0.q4_0", Scheme::Gguf(Block::Q4_0), DType::U4),
        ("gguf", "blk.0.q4_k", Scheme::Gguf(Block::Q4K), DType::F32),
        ("gguf", "blk.0.mxfp4", Scheme::Gguf(Block::Mxfp4), DType::E2M1),
    ] {
        let info = open(fixture).describe(address).unwrap();
        assert_eq!((info.scheme, info.dtype), (scheme, dtype), "{fixture} {address}");
    }
}

#[test]
fn scales_of_inputs_are_found_under_every_name() {
    for (fixture, module, scale) in [
        ("fp8_static", "l.0", "l.0.input_scale"),
        ("fp8_static", "l.1", "l.1.activation_scale"),
        ("fp8_static", "l.2", "l.2.act_scale"),
        ("mistral", "layers.0.attention.wq", "layers.0.attention.wq.qscale_act"),
    ] {
        let info = open(fixture).describe(module).unwrap();
        assert_eq!((info.static_input, info.input_scale.as_deref()), (true, Some(scale)), "{fixture}");
    }
}

#[test]
fn what_is_done_at_run_time_is_said_and_no_weight() {
    let transforms = open("transforms");
    let of = |module: &str| transforms.describe(module).unwrap().online;
    assert!(of("l.0.mlp.up_proj").is_empty());
    let [rotation] = &of("l.0.mlp.down_proj")[..] else { panic!("{:?}", of("l.0.mlp.down_proj")) };
    assert!(rotation.rotates() && rotation.to_string().contains("input is rotated at run time (R4)"));
    assert_eq!(transforms.modules(), ["l.0.mlp.down_proj", "l.0.mlp.up_proj"]);
    let matched: Vec<String> = transforms.matches("**").unwrap().into_iter().map(|m| m.name).collect();
    assert!(matched.iter().all(|name| !name.contains("R4")), "{matched:?}");

    let modelopt = open("modelopt_all");
    let factors = &modelopt.describe("l.0.k_proj").unwrap().online;
    assert!(!factors[0].rotates() && factors[0].to_string().contains("`l.0.k_proj.pre_quant_scale`"));
    let low_rank = &modelopt.describe("l.0.v_proj").unwrap().online;
    assert!(low_rank[0].to_string().contains("low-rank"), "{low_rank:?}");
    assert!(modelopt.describe("l.0.q_proj").unwrap().online.is_empty());
}

#[test]
fn a_gguf_type_that_is_not_read_is_refused_by_name() {
    let error = open("gguf").linear("blk.0.unread").unwrap_err();
    assert!(matches!(&error, WeightsError::Unread { seems, .. } if seems == "GGUF IQ1_S"), "{error}");
    assert!(error.to_string().contains("blk.0.unread") && error.to_string().contains("Q4_K"), "{error}");
}

#[test]
fn what_is_particular_to_a_scheme_is_kept() {
    let gptq = open("gptq_v1");
    assert!(gptq.linear("in_order").unwrap().column_groups.is_none());
    assert_eq!(gptq.linear("act_order").unwrap().column_groups.unwrap().len(), 64);

    let modelopt = open("modelopt_nvfp4");
    let weight = modelopt.linear("m").unwrap();
    let Some(GlobalScale::Multiply(global)) = weight.global_scale else {
        panic!("{:?}", weight.global_scale)
    };
    assert_eq!(global, f64::from(0.00231f32));
    assert_eq!(weight.effective_scales()[0], weight.scales[0] * global);
    assert!(matches!(
        open("compressed_tensors_nvfp4").linear("m").unwrap().global_scale,
        Some(GlobalScale::Divide(_))
    ));
    assert_eq!(
        weight.tensors,
        ["m.weight", "m.weight_scale", "m.weight_scale_2"],
        "input scales are no part of a weight"
    );
}

/// Engines multiply the scales of int4 behind FP8 in float32 when they load them.
#[test]
fn two_levels_of_float_scales_become_one() {
    let checkpoint = open("quark_stages");
    let weight = checkpoint.linear("rows").unwrap();
    let Some(GlobalScale::Multiply(of_fp8)) = weight.global_scale else {
        panic!("{:?}", weight.global_scale)
    };
    let one = weight.in_one_level().unwrap();
    assert_eq!(one.global_scale, None);
    for (one, &two) in one.scales.iter().zip(&weight.scales) {
        assert_eq!(*one, f64::from(two as f32 * of_fp8 as f32));
    }
    // The scales of NVFP4's groups are FP8, which the product is not.
    assert!(checkpoint.linear("nvfp4").unwrap().in_one_level().is_none());
}

#[test]
fn modules_and_orphans() {
    let gpt_oss = open("gpt_oss_mxfp4");
    let experts = "model.layers.0.mlp.experts";
    assert_eq!(gpt_oss.modules(), [format!("{experts}.down_proj"), format!("{experts}.gate_up_proj")]);
    for name in ["gpt_oss_mxfp4", "deepseek_fp8", "gptq_v2", "compressed_tensors_nvfp4", "hf_fp8"] {
        assert_eq!(open(name).orphans(), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn converting_to_fnuz_keeps_every_value_and_is_refused_twice() {
    for (name, address) in
        [("deepseek_fp8", "model.layers.0.self_attn.kv_a_proj_with_mqa"), ("mxfp8_mxfp6", "m")]
    {
        let checkpoint = open(name);
        let stored = checkpoint.linear(address).unwrap();
        let fnuz = stored.to_fnuz().unwrap();
        assert_eq!(stored.values(), fnuz.values());
        assert!(!fnuz.codes.contains(&0x80) && stored.codes.contains(&0x80), "0x80 has to come up");
        let twice = fnuz.to_fnuz().unwrap_err();
        assert!(matches!(twice, WeightsError::Fnuz { source: FnuzError::Already(_), .. }), "{twice}");
        assert!(twice.to_string().contains("twice"), "{twice}");
    }
    let int8 = open("compressed_tensors_int8");
    let error = int8.linear("symmetric").unwrap().to_fnuz().unwrap_err();
    assert!(matches!(error, WeightsError::Fnuz { source: FnuzError::NotFp8(DType::I8), .. }), "{error}");
}

#[test]
fn fnuz_is_refused_where_it_would_change_values() {
    let checkpoint = open("mxfp8_mxfp6");
    let stored = checkpoint.linear("m").unwrap();
    let mut with_nan = stored.clone();
    with_nan.codes.to_mut()[5] = 0x7e;
    let error = with_nan.to_fnuz().unwrap_err();
    assert!(matches!(error, WeightsError::NonFiniteCodes { count: 1, first: 5, .. }), "{error}");
    let mut top = stored;
    top.scales[1] = 2f64.powi(127);
    assert!(matches!(top.to_fnuz(), Err(WeightsError::ScaleOverflow { .. })));
}

#[test]
fn the_hugging_face_cache_resolves_branches_and_commits() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--org--tiny-fp8");
    let snapshot = folder.join("snapshots/0123abcd");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(folder.join("refs/pr")).unwrap();
    fs::write(folder.join("refs/main"), "0123abcd\n").unwrap();
    fs::write(folder.join("refs/pr/1"), "ffffffff").unwrap();
    fs::copy(fixture("hf_fp8").join("model.safetensors"), snapshot.join("model.safetensors")).unwrap();
    for revision in ["main", "0123abcd"] {
        let path = cached_snapshot(cache.path(), "org/tiny-fp8", revision).unwrap();
        assert_eq!(path, snapshot);
        assert!(Checkpoint::open(&path).unwrap().linear("m").is_ok());
    }
    for (repository, revision) in [("org/tiny-fp8", "pr/1"), ("org/tiny-fp8", "v2"), ("org/other", "main")] {
        let error = cached_snapshot(cache.path(), repository, revision).unwrap_err();
        assert!(matches!(error, WeightsError::NotCached { .. }), "{error}");
        let hint = format!("hf download {repository} --revision {revision}");
        assert!(error.to_string().contains(&hint), "{error}");
    }
    for (repository, revision) in
        [("org", "main"), ("../x/y", "main"), ("org/name", "../../x"), ("org/", "main")]
    {
        let error = cached_snapshot(cache.path(), repository, revision).unwrap_err();
        assert!(matches!(error, WeightsError::NotARepository { .. }), "{error}");
    }
}

#[test]
fn a_name_that_is_neither_path_nor_repository() {
    let error = |spec: &str| Checkpoint::open_named(spec).unwrap_err();
    assert!(matches!(error("no-such-thing"), WeightsError::NotARepository { .. }));
    assert!(matches!(error("./no/such/model.safetensors"), WeightsError::NotFound { .. }));
    assert!(matches!(error("org-that-is-not/cached"), WeightsError::NotCached { .. }));
}

/// A part of one weight of a fixture: experts where several share its tensor, rows, columns.
type Cut = (&'static str, &'static str, Option<Range<usize>>, Range<usize>, Range<usize>);

fn cuts() -> Vec<Cut> {
    let layer = "model.layers.0.self_attn.kv_a_proj_with_mqa";
    vec![
        ("auto_round_awq", "m", None, 8..16, 32..64),
        ("auto_round_gptq", "l.0.q_proj", None, 8..16, 32..64),
        ("auto_round_gptq", "l.0.v_proj", None, 0..32, 0..64),
        ("auto_round_plain", "l.0.q_proj", None, 0..8, 0..32),
        ("awq", "m", None, 8..16, 32..64),
        ("bitsandbytes_fp4", "plain", None, 0..6, 0..64),
        ("bitsandbytes_int8", "m", None, 1..3, 3..9),
        ("bitsandbytes_nf4", "nested", None, 0..6, 0..64),
        ("compressed_tensors_fp8", "m", None, 3..5, 5..20),
        ("compressed_tensors_int4", "act_order", None, 3..14, 0..64),
        ("compressed_tensors_int4", "asymmetric", None, 8..16, 32..64),
        ("compressed_tensors_int4", "symmetric", None, 3..7, 32..64),
        ("compressed_tensors_int8", "asymmetric", None, 2..7, 1..24),
        ("compressed_tensors_int8", "symmetric", None, 1..2, 0..9),
        ("compressed_tensors_mixed", "l.0.mlp.up_proj", None, 2..5, 16..32),
        ("compressed_tensors_nvfp4", "m", None, 1..3, 16..48),
        ("compressed_tensors_pack_int8", "asymmetric", None, 4..12, 32..64),
        ("compressed_tensors_pack_int8", "filled", None, 3..7, 32..62),
        ("compressed_tensors_pack_int8", "symmetric", None, 3..7, 32..64),
        ("compressed_tensors_sparse", "half", None, 0..8, 0..32),
        ("compressed_tensors_sparse", "plain", None, 0..8, 0..32),
        ("deepseek_fp8", layer, None, 128..130, 0..128),
        ("deepseek_fp8", layer, None, 0..128, 128..140),
        ("deepseek_ue8m0", layer, None, 0..4, 128..140),
        ("deepseek_v4", "layers.0.ffn.experts.0.w1", None, 1..3, 32..64),
        ("deepseek_v4", "layers.0.attn.wo_a", None, 128..130, 0..16),
        ("fbgemm_fp8", "l.0.mlp.gate_proj", None, 1..3, 3..9),
        ("fp8_static", "l.1", None, 1..3, 2..5),
        ("gpt_oss_mxfp4", "model.layers.0.mlp.experts.gate_up_proj", Some(1..3), 2..6, 32..64),
        ("gpt_oss_mxfp4", "model.layers.0.mlp.experts.down_proj", Some(2..3), 1..4, 0..32),
        ("gpt_oss_original", "block.0.mlp.mlp1_weight", Some(0..2), 1..3, 0..32),
        ("gptq_int8_v1", "in_order", None, 4..12, 32..64),
        ("gptq_int8_v1", "act_order", None, 0..4, 0..64),
        ("gptq_int8_v2", "in_order", None, 8..16, 0..32),
        ("gptq_v1", "in_order", None, 8..16, 32..64),
        ("gptq_v1", "act_order", None, 0..8, 0..64),
        ("gptq_v2", "in_order", None, 8..16, 0..32),
        ("hf_fp8", "m", None, 1..3, 3..9),
        ("hqq", "four", None, 0..16, 0..64),
        ("layered", "layers.0.attn.wo_a", None, 0..16, 16..32),
        ("layered", "layers.0.ffn.experts.3.w2", None, 1..3, 16..32),
        ("mistral", "layers.0.attention.wq", None, 1..3, 2..5),
        ("modelopt_all", "l.0.down_proj", None, 0..16, 16..48),
        ("modelopt_all", "l.0.gate_proj", None, 0..8, 0..64),
        ("modelopt_all", "l.0.k_proj", None, 1..3, 16..32),
        ("modelopt_mixed", "l.0.self_attn.o_proj", None, 1..3, 3..9),
        ("modelopt_nvfp4", "m", None, 5..8, 32..64),
        ("mxfp8_mxfp6", "a", None, 1..3, 32..64),
        ("mxfp8_mxfp6", "b", None, 0..1, 0..32),
        ("mxfp8_mxfp6", "m", None, 2..4, 32..64),
        ("quark_all", "block", None, 16..32, 16..48),
        ("quark_all", "unsigned", None, 0..16, 0..64),
        ("quark_fp8", "a", None, 1..3, 3..9),
        ("quark_fp8", "b", None, 1..3, 3..9),
        ("quark_mxfp4", "m", None, 2..5, 32..96),
        ("quark_stages", "rows", None, 0..16, 0..64),
        ("quark_stages", "nvfp4", None, 1..3, 16..32),
        ("torchao", "int", None, 3..7, 32..64),
        ("torchao_blocks", "int4", None, 0..8, 0..64),
        ("torchao_blocks", "int4_fp8", None, 0..8, 0..64),
        ("torchao_blocks", "mxfp4", None, 3..7, 32..64),
        ("torchao_blocks", "mxfp8_tiles", None, 0..130, 0..160),
        ("torchao_blocks", "nvfp4", None, 3..7, 32..64),
        ("transforms", "l.0.mlp.up_proj", None, 3..7, 32..64),
        ("unquantized", "model.layers.0.mlp.down_proj", None, 1..3, 1..3),
        ("w4afp8", "l.0.mlp.experts.0.up_proj", None, 1..3, 32..64),
    ]
}

#[test]
fn a_part_of_every_scheme_reads_back_as_that_part_of_the_whole() {
    for (name, module, experts, rows, columns) in cuts() {
        let whole = open(name);
        let part =
            Carve { experts: experts.clone(), rows: Some(rows.clone()), columns: Some(columns.clone()) };
        let tensors = whole.carve(module, &part).unwrap_or_else(|e| panic!("{name}: {e}"));
        let dir = tempfile::tempdir().unwrap();
        let descriptions = whole.descriptions(&[module.to_owned()]);
        write(&dir.path().join("model.safetensors"), &tensors, &descriptions).unwrap();
        let config = fixture(name).join("config.json");
        if config.exists() {
            fs::copy(config, dir.path().join("config.json")).unwrap();
        }
        let cut = Checkpoint::open(dir.path()).unwrap();
        let info = whole.describe(module).unwrap();
        assert_eq!(experts.is_some(), info.experts.is_some(), "{name} {module}");
        let matrices = match experts {
            Some(experts) => experts.enumerate().map(|(i, e)| (format!("#{i}"), format!("#{e}"))).collect(),
            None => vec![(String::new(), String::new())],
        };
        for (to, from) in matrices {
            let read = cut.linear(&format!("{module}{to}")).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(
                (read.rows, read.cols, read.scheme),
                (rows.len(), columns.len(), info.scheme),
                "{name}"
            );
            let from = whole.linear(&format!("{module}{from}")).unwrap();
            let of_row = |r: usize| from.values()[r * from.cols..][columns.clone()].to_vec();
            let want: Vec<u64> = rows.clone().flat_map(of_row).map(f64::to_bits).collect();
            assert_eq!(
                read.values().into_iter().map(f64::to_bits).collect::<Vec<_>>(),
                want,
                "{name} {module}"
            );
        }
        assert_eq!(cut.orphans(), Vec::<&str>::new(), "{name} {module}");
    }
    let covered: BTreeSet<&str> = cuts().iter().map(|cut| cut.0).collect();
    let fixtures = fs::read_dir(fixture("")).unwrap().count();
    // Blocks of a GGUF file have no form in safetensors.
    assert_eq!(covered.len(), fixtures - 1, "a fixture of which no part is taken");
    let refused = open("gguf").carve("blk.0.q4_0", &Carve::default()).unwrap_err();
    assert!(refused.to_string().contains("no form in safetensors"), "{refused}");
}

#[test]
fn the_scales_of_a_layers_input_come_with_its_weight() {
    let names = |name: &str, module: &str| -> Vec<String> {
        open(name).carve(module, &Carve::default()).unwrap().into_iter().map(|t| t.name).collect()
    };
    assert_eq!(names("hf_fp8", "m"), ["m.weight", "m.weight_scale", "m.input_scale"]);
    assert_eq!(
        names("compressed_tensors_nvfp4", "m"),
        ["m.weight_packed", "m.weight_scale", "m.weight_global_scale", "m.input_global_scale"]
    );
}

#[test]
fn a_part_that_cuts_through_scales_or_words_is_refused() {
    let refused = |name: &str, module: &str, part: Carve, words: &[&str]| {
        let error = open(name).carve(module, &part).unwrap_err();
        assert!(matches!(error, WeightsError::BadPart { .. }), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "no {word:?} in {error}");
        }
    };
    let rows = |rows| Carve { rows: Some(rows), ..Carve::default() };
    let columns = |columns| Carve { columns: Some(columns), ..Carve::default() };
    let layer = "model.layers.0.self_attn.kv_a_proj_with_mqa";
    refused("awq", "m", rows(4..16), &["m.qweight", "multiple of 8"]);
    refused("awq", "m", columns(16..64), &["m.scales", "multiple of 32"]);
    refused("gptq_v1", "in_order", columns(0..4), &["in_order.qweight", "multiple of 8"]);
    refused("gptq_v1", "act_order", columns(0..32), &["act_order.g_idx", "take all columns"]);
    refused("deepseek_fp8", layer, rows(5..130), &["weight_scale_inv", "multiple of 128"]);
    refused("quark_mxfp4", "m", columns(0..16), &["m.weight_scale", "multiple of 32"]);
    refused("modelopt_nvfp4", "m", columns(1..64), &["`m.weight`", "multiple of 2"]);
    refused("hf_fp8", "m", rows(4..9), &["rows 4..9", "8"]);
    refused("hf_fp8", "m", rows(4..4), &["rows 4..4"]);
    refused("hf_fp8", "m", Carve { experts: Some(0..1), ..Carve::default() }, &["not of experts"]);
    refused("hf_fp8", "m#0..2", Carve::default(), &["#"]);
    let experts = Carve { experts: Some(1..4), ..Carve::default() };
    refused("gpt_oss_mxfp4", "model.layers.0.mlp.experts.down_proj", experts, &["experts 1..4"]);
}
