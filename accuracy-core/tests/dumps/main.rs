//! Dumps that torch, numpy, transformers and our own hook wrote (see make.py) are read as they read them themselves.

mod damaged;
#[path = "../../fuzz/dumps.rs"]
mod fuzz;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use accuracy_core::dumps::{DumpError, DumpSet, Kind, Merge, Producer, Rank, TensorData, TensorId};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps")
}

fn open(name: &str) -> DumpSet {
    let set = DumpSet::open(folder().join(name));
    set.unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn fails(name: &str) -> String {
    match DumpSet::open(folder().join(name)) {
        Ok(set) => panic!("{name} is read: {:?}", set.tensors),
        Err(e) => e.to_string(),
    }
}

fn expected() -> Value {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn values(data: &TensorData) -> Vec<f64> {
    let mut all = Vec::new();
    data.read(0..data.rows(), &mut all);
    all
}

fn assert_values(found: &[f64], expected: &Value, what: &str) {
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(number).collect();
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(
        found.iter().zip(&expected).all(|(&a, &b)| same(a, b)),
        "{what}: {found:?}, expected {expected:?}"
    );
}

/// The names of a set as a person sees them, in order.
fn ids(set: &DumpSet) -> Vec<String> {
    set.tensors.iter().map(|t| t.id.to_string()).collect()
}

fn first_value(set: &DumpSet, id: &str) -> f64 {
    let tensor = set.tensors.iter().find(|t| t.id.to_string() == id);
    values(&tensor.unwrap_or_else(|| panic!("no `{id}` among {:?}", ids(set))).open().unwrap())[0]
}

#[test]
fn every_type_view_and_container_is_read_as_its_writer_reads_it() {
    let mut read = 0;
    for (file, tensors) in expected().as_object().unwrap() {
        if !file.contains('.') {
            continue;
        }
        let set = open(file);
        let stem = Path::new(file).file_stem().unwrap().to_str().unwrap();
        let found: HashMap<&str, _> = set.tensors.iter().map(|t| (t.id.module.as_str(), t)).collect();
        let tensors = tensors.as_object().unwrap();
        assert_eq!(found.len(), tensors.len(), "{file}: {:?}", found.keys());
        for (path, expected) in tensors {
            let name = if path.is_empty() { stem } else { path };
            let tensor =
                found.get(name).unwrap_or_else(|| panic!("{file}: no `{name}` in {:?}", found.keys()));
            let what = format!("{file} {name}");
            assert_eq!(tensor.element().name(), expected["dtype"].as_str().unwrap(), "{what}");
            assert_eq!(serde_json::json!(tensor.shape()), expected["shape"], "{what}");
            let data = tensor.open().unwrap();
            assert_values(&values(&data), &expected["values"], &what);
            read += 1;
            if tensor.element().is_integer() {
                let integers: Vec<f64> = data.integers().unwrap().iter().map(|&n| n as f64).collect();
                assert_values(&integers, &expected["values"], &what);
            }
        }
    }
    assert!(read > 80, "{read}");
}

#[test]
fn rows_are_the_same_in_panels_of_any_size_and_in_f32() {
    for file in ["pt/views.pt", "pt/types.pt", "pt/fp4.pt"] {
        for tensor in open(file).tensors {
            let data = tensor.open().unwrap();
            let whole = values(&data);
            for size in 1..=whole.len() + 1 {
                let mut joined = Vec::new();
                let mut narrow: Vec<f32> = Vec::new();
                for rows in data.panels(size) {
                    let matrix = data.matrix(rows.clone());
                    data.read(rows.clone(), &mut narrow);
                    assert!(
                        matrix.data.iter().zip(&narrow).all(|(&a, &b)| a as f32 == b || a.is_nan()),
                        "{}",
                        tensor.id
                    );
                    joined.extend(matrix.data);
                }
                assert_eq!(
                    joined.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    whole.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    "{} by {size}",
                    tensor.id
                );
            }
        }
    }
}

#[test]
fn raw_bytes_are_in_row_major_order() {
    let set = open("pt/views.pt");
    for tensor in &set.tensors {
        let data = tensor.open().unwrap();
        let from_raw: Vec<f64> =
            data.raw().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        assert_eq!(from_raw, values(&data), "{}", tensor.id);
    }
}

#[test]
fn what_cannot_be_read_is_listed_with_its_reason() {
    let set = open("pt/unreadable.pt");
    let reasons: Vec<String> = set.unread.iter().map(|u| format!("{}: {}", u.what, u.reason)).collect();
    assert!(reasons[0].contains("complex: complex elements"), "{reasons:?}");
    assert!(reasons[1].contains("sparse: ") && reasons[1].contains("_rebuild_sparse_tensor"), "{reasons:?}");
    assert_eq!(reasons.len(), 2);
}

#[test]
fn a_file_without_a_readable_tensor_is_an_error_that_says_what_is_in_it() {
    for (file, part) in [
        ("pt/nothing.pt", "a dictionary of 2 entries"),
        ("pt/complex.pt", "complex elements"),
        ("pt/legacy.pt", "torch before 1.6"),
        ("numpy-bad/objects.npy", "Python objects"),
        ("numpy-bad/records.npy", "records"),
        ("numpy-bad/big_endian.npy", "big-endian"),
        ("numpy-bad/complex.npy", "complex"),
        ("numpy-bad/void.npy", "bfloat16"),
        ("pt/missing.pt", "no such file"),
        ("huggingface-repr", "use_repr=False"),
    ] {
        let error = fails(file);
        assert!(error.contains(part) && error.contains(file), "{file}: {error}");
    }
}

#[test]
fn nothing_in_a_pickle_is_executed() {
    open("pt/evil.pt");
    assert!(!Path::new("executed").exists() && !folder().join("executed").exists());
}

#[test]
fn our_own_dump_has_modules_steps_calls_tokens_and_ranks() {
    let set = open("accuracy");
    assert_eq!(set.producer, Producer::Accuracy);
    assert_eq!(set.steps(), [Some(0), Some(1)]);
    assert_eq!(set.layers(), [0, 1, 2]);
    assert_eq!(set.notes, [""; 0]);
    assert_eq!(set.unread, []);
    let rank = Rank { global: Some(0), ..Rank::default() };
    assert_eq!(set.token_ids(Some(0), rank).unwrap(), Some(vec![1, 2, 3, 4]));
    assert_eq!(set.token_ids(Some(1), rank).unwrap().unwrap().len(), 1);
    let expected = expected();
    let at = |module: &str, kind, slot: &str| TensorId {
        step: Some(0),
        rank,
        layer: module.contains("layers").then_some(2),
        module: module.to_owned(),
        kind,
        slot: slot.to_owned(),
        call: 0,
    };
    for (name, id) in [
        ("model.layers.2.mlp input 0", at("model.layers.2.mlp", Kind::Input, "0")),
        ("model.layers.2.mlp output", at("model.layers.2.mlp", Kind::Output, "")),
        ("lm_head output", at("lm_head", Kind::Output, "")),
    ] {
        let tensor = set.get(&id).unwrap_or_else(|| panic!("no {id} among {:?}", ids(&set)));
        assert_values(&values(&tensor.open().unwrap()), &expected["accuracy"][name], name);
    }
    let merge = |module: &str| set.module(module).find(|t| t.id.kind == Kind::Output).unwrap().merge;
    assert_eq!(merge("model.layers.0.mlp.down_proj"), Some(Merge::Sum));
    assert_eq!(merge("model.layers.1.self_attn.q_proj"), Some(Merge::Concat(2)));
    assert_eq!(merge("model.layers.1.mlp"), None);
}

#[test]
fn our_own_hook_takes_tuples_keywords_repeats_narrow_types_and_crashes() {
    let set = open("accuracy-odd");
    assert_eq!(
        ids(&set),
        [
            "(model) input 0 (step 0, rank 3)",
            "(model) input scale (step 0, rank 3)",
            "step input 0 (step 0, rank 3)",
            "step output (step 0, rank 3)",
            "step input 0 (step 0, rank 3, call 1)",
            "step output (step 0, rank 3, call 1)",
            "(model) output codes.0 (step 0, rank 3)",
            "(model) output codes.1.0 (step 0, rank 3)",
            "(model) output scale (step 0, rank 3)",
            "named (step 1, rank 3)",
            "(model) input 0 (step 1, rank 3)",
            "step input 0 (step 1, rank 3)",
            "step output (step 1, rank 3)",
            "step input 0 (step 1, rank 3, call 1)",
            "step output (step 1, rank 3, call 1)",
        ]
    );
    assert_eq!(first_value(&set, "(model) output codes.1.0 (step 0, rank 3)"), 2.0);
    assert!(set.notes.len() == 1 && set.notes[0].contains("step 1 was cut off"), "{:?}", set.notes);
    assert_eq!(set.cut.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(set.ranks(), [Rank { global: Some(3), tp: Some(1), pp: None }]);
}

#[test]
fn the_hugging_face_debugger_leaves_inputs_of_every_layer() {
    let set = open("huggingface");
    assert_eq!(set.producer, Producer::HuggingFace);
    assert_eq!(set.layers(), [0, 1, 2]);
    let names = ids(&set);
    assert_eq!(names[0], "(model) input input_ids");
    assert_eq!(names[1], "model.embed_tokens input 0");
    for name in ["model.layers.1 input 0", "model.norm output", "lm_head output", "(model) output logits"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    assert_eq!(set.token_ids(None, Rank::default()).unwrap(), Some(vec![1, 2, 3, 4]));
    assert!(set.unread.iter().any(|u| u.what.contains("q_proj") && u.reason.contains("not there")));
}

#[test]
fn the_three_generations_of_sglangs_dumper_are_understood() {
    let first = open("sglang-1");
    assert_eq!(first.producer, Producer::SglangDumper);
    assert_eq!(
        ids(&first),
        ["hidden_states (layer 3, step 1, rank 0)", "hidden_states (layer 3, step 1, rank 1)"]
    );
    assert_eq!(first_value(&first, "hidden_states (layer 3, step 1, rank 1)"), 2.0);

    let second = open("sglang-2");
    assert_eq!(
        ids(&second),
        [
            "layer_start__hidden_states (layer 1, step 2, rank 0)",
            "layer_start__hidden_states (layer 1, step 2, rank 0, call 1)"
        ]
    );
    assert_eq!(second.notes, ["1 files hold plain values and no tensor"]);

    let third = open("sglang-3");
    assert_eq!(
        ids(&third),
        [
            "model.layers.0.mlp input 0 (step 0, rank 1)",
            "model.layers.0.mlp output (step 0, rank 1)",
            "hidden_states 0 (step 0, rank 1)",
            "hidden_states 1 (step 0, rank 1)",
            "w gradient (step 0, rank 1)",
            "input_ids (step 0, rank 1)",
        ]
    );
    assert_eq!(third.tensors[0].tags["dims"], "t h[tp]");
    let rank = Rank { global: Some(1), ..Rank::default() };
    assert_eq!(third.token_ids(Some(0), rank).unwrap(), Some(vec![5, 6]));
}

#[test]
fn sglangs_hook_puts_what_follows_the_model_into_the_next_file() {
    let set = open("sglang-hook");
    assert_eq!(set.producer, Producer::SglangHook);
    assert_eq!(set.ranks(), [Rank { global: Some(1), tp: Some(1), pp: Some(0) }]);
    let names = ids(&set);
    for name in [
        "logits_processor output (step 0, rank 1)",
        "model output (step 0, rank 1)",
        "model.layers.0.input_layernorm output 1 (step 0, rank 1)",
        "model input positions (step 1, rank 1)",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|n| n == "logits_processor output (step 1, rank 1)"));
    assert_eq!(set.token_ids(Some(1), set.ranks()[0]).unwrap(), Some(vec![5, 6]));
}

#[test]
fn msprobe_is_sorted_by_layer_and_knows_its_calls() {
    let set = open("msprobe");
    assert_eq!(set.producer, Producer::Msprobe);
    assert_eq!(
        ids(&set)[..5],
        [
            "Functional.linear output 0 (step 0, rank 0, call 4)",
            "conv output 0 (step 0, rank 0)",
            "model.layers.2.mlp input 0 (step 0, rank 0)",
            "model.layers.2.mlp output 0 (step 0, rank 0, call 1)",
            "model.layers.10.mlp input 0 (step 0, rank 0)",
        ]
    );
    assert_eq!(first_value(&set, "model.layers.10.mlp input 0 (step 0, rank 1)"), 1.0);
}

#[test]
fn a_folder_of_files_has_all_their_tensors_and_no_name_twice() {
    let set = open("numpy");
    assert_eq!(set.producer, Producer::Files);
    let mut names = ids(&set);
    assert_eq!(names.len(), 8 * 3);
    assert!(names.iter().any(|n| n == "stored:f32") && names.iter().any(|n| n == "f32:f32"), "{names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 8 * 3);
}

#[test]
fn two_runs_or_two_producers_in_one_folder_are_refused() {
    let ambiguous = |parts: &[&str]| {
        let target = tempfile::tempdir().unwrap();
        for (i, part) in parts.iter().enumerate() {
            copy(&folder().join(part), &target.path().join(i.to_string()));
        }
        match DumpSet::open(target.path()) {
            Err(DumpError::Ambiguous { reason, .. }) => reason,
            other => panic!("{parts:?}: {other:?}"),
        }
    };
    assert!(ambiguous(&["accuracy", "accuracy"]).contains("rank 0"));
    assert!(ambiguous(&["sglang-2", "sglang-2"]).contains("two runs"));
    assert!(ambiguous(&["sglang-hook", "sglang-hook"]).contains("two runs"));
    assert!(ambiguous(&["msprobe", "msprobe"]).contains("same step and rank"));
    let two = ambiguous(&["msprobe", "accuracy"]);
    assert!(two.contains("msprobe") && two.contains("accuracy"), "{two}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn seeds_of_the_fuzz_targets_and_what_they_found_are_survived() {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let replay = |target: &str, run: fn(&[u8])| {
        for entry in std::fs::read_dir(inputs.join("seeds").join(target)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            run(&std::fs::read(&path).unwrap());
        }
        let kept = inputs.join("kept").join(format!("{target}.safetensors"));
        let kept = if kept.exists() { DumpSet::open(kept).unwrap().tensors } else { Vec::new() };
        for input in &kept {
            println!("{target} {}", input.id);
            run(&input.open().unwrap().raw());
        }
        kept.len()
    };
    assert!(replay("dumps_pickle", fuzz::pickle) > 500);
    assert!(replay("dumps_files", fuzz::files) > 400);
    replay("dumps_manifest", fuzz::manifest);
}
