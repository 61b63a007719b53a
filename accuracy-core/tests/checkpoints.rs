//! Small checkpoints of every scheme, written with numpy by `peers/make_checkpoints.py`, give the values that it
//! wrote down, bit for bit.

use std::fs;
use std::path::{Path, PathBuf};

use accuracy_core::dtype::{DType, FnuzError};
use accuracy_core::quant::Granularity;
use accuracy_core::weights::{Checkpoint, GlobalScale, Scheme, StDtype, WeightsError, cached_snapshot};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

/// The checkpoint without `expected.safetensors`, which lies in the same folder.
fn open(name: &str) -> Checkpoint {
    let folder = fixture(name);
    let index = folder.join("model.safetensors.index.json");
    let file = if index.exists() { index } else { folder.join("model.safetensors") };
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
            ("awq", 1),
            ("compressed_tensors_fp8", 2),
            ("compressed_tensors_int4", 3),
            ("compressed_tensors_int8", 2),
            ("compressed_tensors_nvfp4", 1),
            ("deepseek_fp8", 1),
            ("deepseek_ue8m0", 1),
            ("gpt_oss_mxfp4", 8),
            ("gpt_oss_original", 2),
            ("gptq_v1", 2),
            ("gptq_v2", 2),
            ("hf_fp8", 1),
            ("modelopt_nvfp4", 1),
            ("mxfp8_mxfp6", 3),
            ("quark_fp8", 2),
            ("quark_mxfp4", 1),
            ("unquantized", 8),
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
