//! `cargo accuracy triage`: the real binary on dumps that transformers' models left (`tests/triage/models.py`).

use accuracy_core::weights::{Checkpoint, NewTensor, StDtype, write};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const MODELS: [&str; 5] = ["llama", "qwen3_moe", "deepseek_v3", "gpt_oss", "bert"];

fn fixture(model: &str, what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/triage/fixtures").join(model).join(what)
}

struct Answer {
    status: i32,
    text: String,
    json: Value,
}

impl Answer {
    fn step(&self, question: &str) -> &Value {
        let steps = self.json["steps"].as_array().unwrap();
        steps
            .iter()
            .find(|s| s["question"] == question)
            .unwrap_or_else(|| panic!("{question}: {}", self.text))
    }
}

fn run(arguments: &[&str]) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
    command.args(["accuracy", "triage"]).args(arguments).env("COLUMNS", "80").env("NO_COLOR", "1");
    let output = command.arg("--report").arg(format!("json={}", report.display())).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let json = fs::read(&report).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
    Answer { status: output.status.code().unwrap(), text, json }
}

fn triage(model: &str, reference: &Path, candidate: &Path, more: &[&str]) -> Answer {
    let checkpoint = fixture(model, "checkpoint");
    let paths = [reference, candidate, &checkpoint].map(|p| p.to_str().unwrap());
    let mut arguments = vec!["--reference", paths[0], "--candidate", paths[1], "--checkpoint", paths[2]];
    arguments.extend(more);
    run(&arguments)
}

/// A copy of a dump. `edit` gets each tensor's line of the manifest and the tensor, and says whether to keep it.
fn edited(from: &Path, mut edit: impl FnMut(&mut Value, &mut NewTensor) -> bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = fs::read_to_string(from.join(MANIFEST)).unwrap();
    let mut open: BTreeMap<String, Checkpoint> = BTreeMap::new();
    let mut files: BTreeMap<String, Vec<NewTensor>> = BTreeMap::new();
    let mut lines = String::new();
    for line in manifest.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if let Some(entry) = line.get_mut("tensor") {
            let (file, key) = (entry["file"].as_str().unwrap().to_owned(), entry["key"].as_str().unwrap());
            let source =
                open.entry(file.clone()).or_insert_with(|| Checkpoint::open(&from.join(&file)).unwrap());
            let raw = source.raw(key).unwrap();
            let (shape, bytes) = (raw.shape.to_vec(), raw.bytes.to_vec());
            let mut tensor = NewTensor { name: key.to_owned(), dtype: raw.dtype, shape, bytes };
            if !edit(entry, &mut tensor) {
                continue;
            }
            entry["shape"] = tensor.shape.clone().into();
            files.entry(file).or_default().push(tensor);
        }
        lines += &format!("{line}\n");
    }
    fs::write(folder.path().join(MANIFEST), lines).unwrap();
    for (file, tensors) in files {
        write(&folder.path().join(file), &tensors, &BTreeMap::new()).unwrap();
    }
    folder
}

const MANIFEST: &str = "accuracy_dump.rank0.jsonl";

fn is(entry: &Value, module: &str, kind: &str) -> bool {
    entry["module"] == module && entry["kind"] == kind
}

fn floats(tensor: &NewTensor) -> Vec<f32> {
    tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn set(tensor: &mut NewTensor, values: &[f32]) {
    tensor.bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
}

/// A copy of a model's dump in float32 with one tensor changed.
fn changed(model: &str, module: &str, kind: &str, change: impl Fn(&mut Vec<f32>)) -> TempDir {
    changed_in(&fixture(model, "f32"), module, kind, change)
}

/// The same of any dump in float32.
fn changed_in(from: &Path, module: &str, kind: &str, change: impl Fn(&mut Vec<f32>)) -> TempDir {
    let mut found = false;
    let folder = edited(from, |entry, tensor| {
        if is(entry, module, kind) && tensor.dtype == StDtype::F32 {
            let mut values = floats(tensor);
            change(&mut values);
            set(tensor, &values);
            found = true;
        }
        true
    });
    assert!(found, "{module} {kind} is not in the dump");
    folder
}

/// What most engines' dumpers give: whole layers, the embedding and the head.
fn is_outer(entry: &Value) -> bool {
    let module = entry["module"].as_str().unwrap();
    let name = module.rsplit('.').next().unwrap();
    module.is_empty()
        || ["embed_tokens", "embeddings", "norm", "lm_head"].contains(&name)
        || name.bytes().all(|b| b.is_ascii_digit())
}

fn outer(from: &Path) -> TempDir {
    edited(from, |entry, _| is_outer(entry))
}

/// The replay itself: what transformers computed in either format is what we compute, operation by operation.
#[test]
fn every_operation_of_every_model_is_replayed_to_within_rounding() {
    for model in MODELS {
        let answer = triage(model, &fixture(model, "f32"), &fixture(model, "bf16"), &["--all-layers"]);
        assert_eq!(answer.status, 0, "{model}: {}", answer.text);
        assert_eq!(answer.json["verdict"], "agrees");
        let ops = answer.json["ops"].as_array().unwrap();
        let mut names = BTreeSet::new();
        for op in ops.iter().filter(|op| op["status"] != "not_replayed") {
            assert_eq!(op["status"], "right", "{model}: {op}");
            names.insert(op["op"].as_str().unwrap());
        }
        let expected: &[&str] = match model {
            "llama" => &[
                "embedding",
                "rope",
                "input_layernorm",
                "q_proj",
                "k_proj",
                "v_proj",
                "attention",
                "o_proj",
                "residual",
                "post_attention_layernorm",
                "gate_proj",
                "up_proj",
                "swiglu",
                "down_proj",
                "norm",
                "lm_head",
            ],
            "qwen3_moe" => &["q_norm", "k_norm", "router", "experts", "swiglu"],
            "deepseek_v3" => &[
                "q_a_proj",
                "q_a_layernorm",
                "q_b_proj",
                "kv_a_proj_with_mqa",
                "kv_a_layernorm",
                "kv_b_proj",
                "attention",
                "router",
                "experts",
                "swiglu",
            ],
            "gpt_oss" => &["attention", "router", "experts"],
            _ => &[
                "query",
                "key",
                "value",
                "attention",
                "output.LayerNorm",
                "activation",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
                "residual",
            ],
        };
        for name in expected {
            assert!(names.contains(name), "{model}: {name} was not replayed: {names:?}");
        }
        // In float32 the replay agrees to float32's rounding, which bf16 alone could not show.
        let tight = |op: &&Value| op["reference"]["bound"].as_f64().is_some_and(|b| b < 1e-4);
        assert!(ops.iter().filter(tight).count() > ops.len() / 2, "{model}");
    }
}

#[test]
fn an_operation_that_is_off_is_named_with_its_layer_and_what_is_odd() {
    let scaled = |factor: f32| move |v: &mut Vec<f32>| v.iter_mut().for_each(|v| *v *= factor);
    for (model, module, op, layer, note) in [
        ("llama", "model.layers.1.self_attn.o_proj", "o_proj", 1, "scaled by 2.0"),
        ("qwen3_moe", "model.layers.0.mlp.experts", "experts", 0, "scaled by 2.0"),
        ("deepseek_v3", "model.layers.1.self_attn.kv_a_layernorm", "kv_a_layernorm", 1, "scaled by 2.0"),
        ("gpt_oss", "model.layers.0.self_attn.v_proj", "v_proj", 0, "scaled by 2.0"),
        ("bert", "encoder.layer.1.intermediate.dense", "intermediate.dense", 1, "scaled by 2.0"),
    ] {
        let candidate = changed(model, module, "output", scaled(2.0));
        let answer = triage(model, &fixture(model, "bf16"), candidate.path(), &[]);
        assert_eq!(answer.status, 100, "{model}: {}", answer.text);
        let guilty = &answer.json["guilty"];
        assert_eq!(
            (&guilty["op"], &guilty["layer"]),
            (&Value::from(op), &Value::from(layer)),
            "{}",
            answer.text
        );
        assert!(guilty["detail"].as_str().unwrap().contains(note), "{guilty}");
    }
}

#[test]
fn a_page_shows_the_bad_layer_wherever_it_speaks_of_layers() {
    let candidate = changed("llama", "model.layers.1.self_attn.o_proj", "output", |v| {
        v.iter_mut().for_each(|v| *v *= 2.0)
    });
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("triage.html");
    let sink = format!("html={}", page.display());
    triage("llama", &fixture("llama", "bf16"), candidate.path(), &["--report", &sink]);
    let page = fs::read_to_string(page).unwrap();
    for part in [
        "<span class=\"word\">Fault</span>: layer 1, o_proj</h1>",
        "<title>layer 1: bad</title>",
        "<tr class=\"blamed\"><td class=\"num\"><span class=\"badge bad\">bad</span> 1</td>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let labels: Vec<&str> = page.split("<text class=\"bad\"").skip(1).collect();
    assert!(labels.len() == 1 && labels[0].contains("\">1</text>"), "{labels:?}");
    assert_eq!(page.matches("class=\"blamed\"").count(), 1);
}

#[test]
fn the_side_that_is_wrong_is_named_not_the_other() {
    let reference = changed("llama", "model.layers.0.mlp.up_proj", "output", |v| v.reverse());
    let answer = triage("llama", reference.path(), &fixture("llama", "bf16"), &[]);
    assert_eq!(answer.status, 101, "{}", answer.text);
    let ops = answer.json["ops"].as_array().unwrap();
    let wrong: Vec<&Value> = ops.iter().filter(|o| o["status"] == "reference_wrong").collect();
    assert_eq!(wrong[0]["op"], "up_proj");
    let step = answer.step("which operation?");
    assert!(step["evidence"].to_string().contains("wrong first in layer 0, up_proj"), "{step}");
    assert!(step["next"].as_str().unwrap().contains("swapped"), "{step}");
    assert_eq!(answer.json["guilty"], Value::Null);
}

#[test]
fn unwritten_columns_and_single_tokens_are_told_apart() {
    let columns = changed("llama", "model.layers.0.mlp.gate_proj", "output", |v| {
        v.chunks_exact_mut(48).for_each(|row| row[44..].fill(0.0));
    });
    let answer = triage("llama", &fixture("llama", "bf16"), columns.path(), &[]);
    let detail = answer.json["guilty"]["detail"].as_str().unwrap();
    assert!(detail.contains("4 of 48 columns are zero (44 to 47)"), "{detail}");
    let token = changed("llama", "model.layers.0.mlp.gate_proj", "output", |v| v[3 * 48..4 * 48].reverse());
    let answer = triage("llama", &fixture("llama", "bf16"), token.path(), &[]);
    let detail = answer.json["guilty"]["detail"].as_str().unwrap();
    assert!(detail.contains("1 of 10 tokens are wrong, worst 3"), "{detail}");
}

#[test]
fn a_nan_is_a_fault() {
    let candidate = changed("llama", "model.layers.1.mlp.down_proj", "output", |v| v[5] = f32::NAN);
    let answer = triage("llama", &fixture("llama", "bf16"), candidate.path(), &[]);
    assert_eq!(answer.status, 100);
    assert_eq!(answer.json["guilty"]["op"], "down_proj");
    assert_eq!(answer.json["guilty"]["detail"], "1 value is NaN or infinite and should not be");
}

#[test]
fn without_a_checkpoint_the_first_value_that_jumps_is_named() {
    let candidate = changed("llama", "model.layers.1.mlp.down_proj", "output", |v| v.reverse());
    let reference = fixture("llama", "bf16");
    let paths = [reference.to_str().unwrap(), candidate.path().to_str().unwrap()];
    let answer = run(&["--reference", paths[0], "--candidate", paths[1]]);
    assert_eq!(answer.status, 100, "{}", answer.text);
    assert_eq!(answer.json["guilty"]["layer"], 1);
    assert!(answer.json["guilty"]["op"].as_str().unwrap().contains("down_proj"), "{}", answer.json["guilty"]);
    assert!(answer.text.contains("give --checkpoint"), "{}", answer.text);
}

#[test]
fn dumps_of_other_tokens_are_not_compared() {
    let copy = changed("llama", "model.layers.0", "output", |_| {});
    let manifest = copy.path().join("accuracy_dump.rank0.jsonl");
    let text = fs::read_to_string(&manifest).unwrap();
    let at = text.find("\"ids\":[[").unwrap() + 8;
    fs::write(&manifest, text[..at].to_owned() + "7" + &text[at..]).unwrap();
    let answer = triage("llama", &fixture("llama", "bf16"), copy.path(), &[]);
    assert_eq!(answer.status, 101, "{}", answer.text);
    assert_eq!(answer.step("same input?")["status"], "inconclusive");
    assert!(answer.text.contains("they differ from 0 on"), "{}", answer.text);
}

#[test]
fn one_dump_given_twice_proves_nothing() {
    let reference = fixture("llama", "bf16");
    let answer = triage("llama", &reference, &reference, &[]);
    assert_eq!(answer.status, 101, "{}", answer.text);
    let copy = changed("llama", "model.layers.0", "output", |_| {});
    let answer = triage("llama", &fixture("llama", "f32"), copy.path(), &[]);
    assert_eq!(answer.status, 101);
    assert!(answer.text.contains("--allow-identical"), "{}", answer.text);
    let answer =
        triage("llama", &fixture("llama", "f32"), copy.path(), &["--allow-identical", "--all-layers"]);
    assert_eq!(answer.status, 0, "{}", answer.text);
}

#[test]
fn a_stale_layer_is_caught() {
    let values = std::cell::RefCell::new(Vec::new());
    changed("bert", "encoder.layer.0.output.dense", "output", |v| *values.borrow_mut() = v.clone());
    let stale = changed("bert", "encoder.layer.1.output.dense", "output", |v| *v = values.borrow().clone());
    let answer = triage("bert", &fixture("bert", "bf16"), stale.path(), &[]);
    let evidence = answer.step("dumps fresh?")["evidence"].to_string();
    assert!(evidence.contains("encoder.layer.1.output.dense output"), "{evidence}");
    assert!(evidence.contains("has the bytes of layer 0"), "{evidence}");
}

#[test]
fn a_mapping_file_replays_a_model_that_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture("bert", "checkpoint").join(file), folder.path().join(file)).unwrap();
    }
    let config = folder.path().join("config.json");
    let text =
        fs::read_to_string(&config).unwrap().replace("\"model_type\": \"bert\"", "\"model_type\": \"novel\"");
    fs::write(&config, text).unwrap();
    let candidate = changed("bert", "encoder.layer.1.intermediate.dense", "output", |v| v.reverse());
    let reference = fixture("bert", "bf16");
    let paths = [&reference, candidate.path(), folder.path()].map(|p: &Path| p.to_str().unwrap().to_owned());
    let base = ["--reference", &paths[0], "--candidate", &paths[1], "--checkpoint", &paths[2]];
    let answer = run(&base);
    assert!(answer.text.contains("`novel` is not known"), "{}", answer.text);
    for question in ["model known?", "which operation?"] {
        assert!(answer.step(question)["next"].as_str().unwrap().contains("--mapping"), "{}", answer.text);
    }

    let mapping = folder.path().join("ops.toml");
    let ops = r#"
        layers = 2
        stream = "encoder.layer.{layer}"

        [[op]]
        name = "up"
        kind = "linear"
        module = "encoder.layer.{layer}.intermediate.dense"

        [[op]]
        name = "act"
        kind = "gelu"
        inputs = ["encoder.layer.{layer}.intermediate.dense:output"]
        output = "encoder.layer.{layer}.output.dense:input"
    "#;
    fs::write(&mapping, ops).unwrap();
    let mut arguments = base.to_vec();
    let mapping = mapping.to_str().unwrap();
    arguments.extend(["--mapping", mapping]);
    let answer = run(&arguments);
    assert_eq!(answer.status, 100, "{}", answer.text);
    assert_eq!((&answer.json["guilty"]["op"], &answer.json["guilty"]["layer"]), (&"up".into(), &1.into()));
}

#[test]
fn a_clean_dump_in_parts_does_not_pass() {
    for model in MODELS {
        let candidate = outer(&fixture(model, "bf16"));
        let answer = triage(model, &fixture(model, "f32"), candidate.path(), &[]);
        assert_eq!(answer.status, 101, "{model}: {}", answer.text);
        let step = answer.step("which operation?");
        assert_eq!(step["status"], "inconclusive", "{model}: {}", answer.text);
        assert!(step["next"].as_str().unwrap().contains("dump inputs and outputs of"), "{step}");
        assert!(step["evidence"].to_string().contains("not replayed whole: layers 0, 1"), "{step}");
    }
}

#[test]
fn a_layer_that_is_wrong_as_a_whole_is_named_from_its_input_and_output() {
    let wrong = changed("llama", "model.layers.1", "output", |v| v.iter_mut().for_each(|v| *v *= 1.3));
    let candidate = outer(wrong.path());
    let answer = triage("llama", &fixture("llama", "bf16"), candidate.path(), &[]);
    assert_eq!(answer.status, 100, "{}", answer.text);
    assert_eq!(answer.json["guilty"]["layer"], 1);
    let op = answer.json["guilty"]["op"].as_str().unwrap();
    assert_eq!(op, "one of 13 operations, input_layernorm to residual");
}

#[test]
fn outputs_alone_are_enough_where_the_next_one_shows_what_is_missing() {
    for model in ["llama", "qwen3_moe", "deepseek_v3", "gpt_oss"] {
        let outputs = |what: &str| edited(&fixture(model, what), |entry, _| entry["kind"] == "output");
        let (reference, candidate) = (outputs("f32"), outputs("bf16"));
        for reference in [fixture(model, "f32").as_path(), reference.path()] {
            let answer = triage(model, reference, candidate.path(), &[]);
            assert_ne!(answer.status, 100, "{model}: {}", answer.text);
        }
    }
    let wrong = changed("llama", "model.layers.0.mlp.down_proj", "output", |v| v.reverse());
    let candidate = edited(wrong.path(), |entry, _| entry["kind"] == "output");
    let answer = triage("llama", &fixture("llama", "bf16"), candidate.path(), &[]);
    assert_eq!(answer.status, 100, "{}", answer.text);
    assert_eq!(answer.json["guilty"]["op"], "swiglu or down_proj");
}

#[test]
fn changed_tokens_are_not_ok_unless_everything_was_replayed() {
    let wrong = changed("llama", "lm_head", "output", |v| v.iter_mut().for_each(|v| *v = -*v));
    let candidate = edited(wrong.path(), |entry, _| is_outer(entry) && entry["module"] != "model.norm");
    let answer = triage("llama", &fixture("llama", "bf16"), candidate.path(), &[]);
    assert_ne!(answer.status, 0, "{}", answer.text);
    assert_ne!(answer.step("does it matter?")["status"], "ok", "{}", answer.text);
}

#[test]
fn a_dump_that_was_cut_off_is_named() {
    let copy = edited(&fixture("llama", "bf16"), |_, _| true);
    let manifest = copy.path().join(MANIFEST);
    let text = fs::read_to_string(&manifest).unwrap();
    let without_end = text[..text.trim_end().rfind('\n').unwrap() + 1].to_owned();
    let half = text[..text.len() / 2].to_owned();
    for (text, why) in [(without_end, "it has no `end`"), (half, "its last line is half a JSON object")] {
        fs::write(&manifest, text).unwrap();
        let answer = triage("llama", &fixture("llama", "f32"), copy.path(), &[]);
        assert_eq!(answer.status, 101, "{}", answer.text);
        let step = answer.step("dumps fresh?");
        assert_eq!(step["status"], "inconclusive", "{}", answer.text);
        assert!(step["evidence"].to_string().contains(why), "{step}");
    }
    let answer = triage("llama", &fixture("llama", "f32"), copy.path(), &[]);
    let step = answer.step("layers apart?");
    assert_eq!(step["status"], "inconclusive", "{}", answer.text);
    assert!(step["evidence"].to_string().contains("not compared: layer 1"), "{step}");
}

/// The dump's step 0 again as step 1, with the tensors of another dump.
fn with_step_1(from: &Path, second: &Path) -> TempDir {
    let folder = edited(from, |_, _| true);
    let mut manifest = fs::read_to_string(folder.path().join(MANIFEST)).unwrap();
    for line in fs::read_to_string(second.join(MANIFEST)).unwrap().lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for kind in ["tensor", "tokens", "end"] {
            let Some(entry) = line.get_mut(kind) else { continue };
            entry["step"] = 1.into();
            if kind == "tensor" {
                let file = entry["file"].as_str().unwrap().to_owned();
                fs::copy(second.join(&file), folder.path().join(format!("second.{file}"))).unwrap();
                entry["file"] = format!("second.{file}").into();
            }
            manifest += &format!("{line}\n");
        }
    }
    fs::write(folder.path().join(MANIFEST), manifest).unwrap();
    folder
}

#[test]
fn a_fault_of_a_later_pass_is_found_there() {
    let (f32, bf16) = (fixture("llama", "f32"), fixture("llama", "bf16"));
    let reference = with_step_1(&f32, &bf16);
    let clean = with_step_1(&bf16, &f32);
    let answer = triage("llama", reference.path(), clean.path(), &[]);
    assert_eq!(answer.status, 0, "{}", answer.text);
    assert!(answer.text.contains("2 steps in both dumps; looked at: 0, 1"), "{}", answer.text);

    let wrong = changed("llama", "model.layers.1.self_attn.k_proj", "output", |v| v.reverse());
    let candidate = with_step_1(&bf16, wrong.path());
    let answer = triage("llama", reference.path(), candidate.path(), &[]);
    assert_eq!(answer.status, 100, "{}", answer.text);
    assert_eq!((&answer.json["step"], &answer.json["guilty"]["op"]), (&1.into(), &"k_proj".into()));
    assert!(answer.text.contains("FAULT: step 1, layer 1, k_proj"), "{}", answer.text);
    let answer = triage("llama", reference.path(), candidate.path(), &["--step", "0"]);
    assert_eq!(answer.status, 0, "{}", answer.text);
}

#[test]
fn a_router_that_takes_another_number_of_experts_is_the_fault() {
    let candidate = edited(&fixture("qwen3_moe", "bf16"), |entry, tensor| {
        let slot = entry["slot"].as_str().unwrap();
        let of_router = is(entry, "model.layers.0.mlp.gate", "output")
            || is(entry, "model.layers.0.mlp.experts", "input");
        if of_router && ["1", "2"].contains(&slot) {
            let half = tensor.bytes.len() / tensor.shape[0] / 2;
            tensor.bytes = tensor.bytes.chunks_exact(2 * half).flat_map(|row| row[..half].to_vec()).collect();
            tensor.shape[1] /= 2;
        }
        true
    });
    let answer = triage("qwen3_moe", &fixture("qwen3_moe", "f32"), candidate.path(), &[]);
    assert_eq!(answer.status, 100, "{}", answer.text);
    let guilty = &answer.json["guilty"];
    assert_eq!((&guilty["layer"], &guilty["op"]), (&0.into(), &"router".into()));
    let detail = guilty["detail"].as_str().unwrap();
    assert!(detail.contains("each token goes to 1, the configuration says 2 experts"), "{detail}");
}

#[test]
fn a_layer_that_does_nothing_is_the_fault_and_no_stale_dump() {
    let mut input = Vec::new();
    let candidate = edited(&fixture("llama", "f32"), |entry, tensor| {
        if is(entry, "model.layers.1", "input") && tensor.shape == [1, 10, 32] {
            input = tensor.bytes.clone();
        }
        if is(entry, "model.layers.1", "output") || is(entry, "model.norm", "input") {
            tensor.bytes = input.clone();
        }
        !entry["module"].as_str().unwrap().starts_with("model.layers.1.")
    });
    let answer = triage("llama", &fixture("llama", "bf16"), candidate.path(), &[]);
    assert_eq!(answer.status, 100, "{}", answer.text);
    let guilty = &answer.json["guilty"];
    assert_eq!((&guilty["layer"], &guilty["op"]), (&1.into(), &"the whole layer is skipped".into()));
    assert_eq!(answer.step("dumps fresh?")["status"], "ok", "{}", answer.text);
}

#[test]
fn another_models_dump_or_checkpoint_is_named() {
    let narrow = edited(&fixture("llama", "bf16"), |_, tensor| {
        if tensor.shape == [1, 10, 32] {
            tensor.shape = vec![1, 20, 16];
        }
        true
    });
    let answer = triage("llama", &fixture("llama", "f32"), narrow.path(), &[]);
    assert_eq!(answer.status, 101, "{}", answer.text);
    let evidence = answer.step("same model?")["evidence"].to_string();
    assert!(evidence.contains("has 32 columns in the reference"), "{evidence}");

    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture("llama", "checkpoint").join(file), folder.path().join(file)).unwrap();
    }
    let config = folder.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")).unwrap();
    let paths = [fixture("llama", "f32"), fixture("llama", "bf16"), folder.path().to_owned()];
    let paths = paths.each_ref().map(|p| p.to_str().unwrap());
    let answer = run(&["--reference", paths[0], "--candidate", paths[1], "--checkpoint", paths[2]]);
    assert_eq!(answer.status, 101, "{}", answer.text);
    let evidence = answer.step("same model?")["evidence"].to_string();
    assert!(evidence.contains("there is a layer 1, the checkpoint has 1 layer"), "{evidence}");
}

#[test]
fn clean_pairs_without_a_checkpoint_raise_no_alarm_nor_does_a_flipped_choice_of_experts() {
    let bare = |reference: &Path, candidate: &Path| {
        run(&["--reference", reference.to_str().unwrap(), "--candidate", candidate.to_str().unwrap()])
    };
    for model in MODELS {
        let candidate = outer(&fixture(model, "bf16"));
        for candidate in [fixture(model, "bf16").as_path(), candidate.path()] {
            let answer = bare(&fixture(model, "f32"), candidate);
            assert_eq!(answer.status, 101, "{model}: {}", answer.text);
        }
    }
    let flipped = edited(&fixture("qwen3_moe", "f32"), |entry, tensor| {
        if is(entry, "model.layers.0.mlp.gate", "output") && entry["slot"] == "2" {
            let first = i64::from_le_bytes(tensor.bytes[..8].try_into().unwrap());
            let second = i64::from_le_bytes(tensor.bytes[8..16].try_into().unwrap());
            let other = (0..4).find(|&e| e != first && e != second).unwrap();
            tensor.bytes[..8].copy_from_slice(&other.to_le_bytes());
        }
        if is(entry, "model.layers.0.mlp.experts", "output") {
            let mut values = floats(tensor);
            values[..32].reverse();
            set(tensor, &values);
        }
        true
    });
    let answer = bare(&fixture("qwen3_moe", "bf16"), flipped.path());
    assert_eq!(answer.status, 101, "{}", answer.text);
    let evidence = answer.step("which operation?")["evidence"].to_string();
    assert!(evidence.contains("other experts, or in another order, for 1 of 10 tokens"), "{evidence}");
}

fn all_are_right(answer: &Answer) {
    assert_eq!(answer.status, 0, "{}", answer.text);
    for op in answer.json["ops"].as_array().unwrap() {
        assert_eq!(op["status"], "right", "{op}");
    }
}

#[test]
fn passes_that_do_not_begin_a_sequence_are_replayed_with_their_attention() {
    for (model, pass) in [
        ("llama", "decoding"),
        ("deepseek_v3", "decoding"),
        ("deepseek_v3", "static"),
        // With `logits_to_keep`: the head sees the last row alone.
        ("llama", "offset"),
    ] {
        let [f32, bf16] = ["f32", "bf16"].map(|format| fixture(model, &format!("{pass}-{format}")));
        all_are_right(&triage(model, &f32, &bf16, &["--all-layers"]));
        let attention = "model.layers.1.self_attn.o_proj";
        let wrong = changed_in(&f32, attention, "input", |v| v.reverse());
        let answer = triage(model, &bf16, wrong.path(), &[]);
        assert_eq!(answer.status, 100, "{model}, {pass}: {}", answer.text);
        let guilty = &answer.json["guilty"];
        assert_eq!(
            (&guilty["layer"], &guilty["op"]),
            (&1.into(), &"attention".into()),
            "{pass}: {}",
            answer.text
        );
    }
    let row = changed_in(&fixture("llama", "offset-f32"), "lm_head", "input", |v| v[0] += 1.0);
    let answer = triage("llama", &fixture("llama", "offset-bf16"), row.path(), &[]);
    assert_eq!(answer.json["guilty"]["op"], "wiring model.norm -> lm_head input", "{}", answer.text);
}

fn without(from: &Path, slot: &str) -> TempDir {
    edited(from, |entry, _| !entry["slot"].as_str().unwrap().contains(slot))
}

#[test]
fn a_reference_that_is_right_proves_that_nothing_came_before() {
    let reference = without(&fixture("llama", "offset-f32"), "attention_mask");
    let bf16 = fixture("llama", "offset-bf16");
    all_are_right(&triage("llama", reference.path(), &bf16, &["--all-layers"]));
    let wrong = changed_in(reference.path(), "model.layers.1.self_attn.o_proj", "input", |v| v.reverse());
    let answer = triage("llama", &bf16, wrong.path(), &[]);
    assert_eq!((answer.status, &answer.json["guilty"]["op"]), (100, &"attention".into()), "{}", answer.text);
    // Nobody shows it.
    let answer = triage("llama", wrong.path(), &bf16, &[]);
    assert_eq!(answer.status, 101, "{}", answer.text);
}

#[test]
fn attention_to_what_the_dump_does_not_have_is_inconclusive_with_the_reason() {
    let (f32, bf16) = (fixture("llama", "decoding-f32"), fixture("llama", "decoding-bf16"));
    let bare = |from: &Path| without(from, "past_key_values");
    let (reference, candidate) = (bare(&f32), bare(&bf16));
    let unmasked = |from: &Path| without(from, "attention_mask");
    let (masks, none) =
        ([reference.path(), candidate.path()], [reference.path(), candidate.path()].map(unmasked));
    for [reference, candidate] in [masks, none.each_ref().map(TempDir::path)] {
        let answer = triage("llama", reference, candidate, &[]);
        assert_eq!(answer.status, 101, "{}", answer.text);
        let step = answer.step("which operation?");
        let reason = "attention of layers 0, 1: keys and values of earlier positions are not in the dump";
        assert!(step["evidence"].to_string().contains(reason), "{step}");
        assert!(step["next"].as_str().unwrap().contains("dump the passes before this one"), "{step}");
    }
}

#[test]
fn a_cache_that_earlier_passes_left_otherwise_is_no_agreement() {
    // The order of tokens in a cache does not matter to attention.
    let candidate = edited(&fixture("llama", "decoding-f32"), |entry, tensor| {
        if entry["slot"].as_str().unwrap().contains("past_key_values") {
            let d = 4 * tensor.shape[3];
            let heads = tensor.bytes.chunks_exact(d * tensor.shape[2]);
            let reversed = heads.flat_map(|head| head.rchunks_exact(d).flatten().copied());
            tensor.bytes = reversed.collect();
        }
        true
    });
    let answer = triage("llama", &fixture("llama", "decoding-bf16"), candidate.path(), &[]);
    assert_eq!(answer.status, 101, "{}", answer.text);
    let step = answer.step("which operation?");
    assert!(step["evidence"].to_string().contains("the cache that the pass found is"), "{step}");
    let ops = answer.json["ops"].as_array().unwrap();
    assert!(ops.iter().all(|op| op["status"] == "right"), "{}", answer.text);
}

#[test]
fn rows_that_the_mask_hides_have_no_right_answer() {
    let (f32, bf16) = (fixture("qwen3_moe", "padded-f32"), fixture("qwen3_moe", "padded-bf16"));
    let answer = triage("qwen3_moe", &f32, &bf16, &["--all-layers"]);
    all_are_right(&answer);
    assert!(answer.text.contains("of 8 positions"), "{}", answer.text);
    let bare = ["--reference", f32.to_str().unwrap(), "--candidate", bf16.to_str().unwrap()];
    assert_eq!(run(&bare).status, 101);

    let attention = "model.layers.0.self_attn.o_proj";
    let columns = 64;
    let hidden = changed_in(&f32, attention, "input", |v| {
        assert_eq!(v.len(), 12 * columns);
        v[..columns].fill(7.0);
    });
    // A token's choice of experts, too.
    let hidden = edited(hidden.path(), |entry, tensor| {
        if is(entry, "model.layers.0.mlp.gate", "output") && entry["slot"] == "1" {
            tensor.bytes[..8].reverse();
        }
        true
    });
    let answer = triage("qwen3_moe", &bf16, hidden.path(), &[]);
    let wrong = |op: &&Value| op["op"] == "attention" || op["op"] == "router";
    let ops = answer.json["ops"].as_array().unwrap();
    assert!(ops.iter().filter(wrong).all(|op| op["status"] == "right"), "{}", answer.text);

    // NaN is not harmless anywhere: attention may add it, times 0, to what is shown.
    let nan = changed_in(&f32, "model.layers.1.input_layernorm", "output", |v| v[3] = f32::NAN);
    let answer = triage("qwen3_moe", &bf16, nan.path(), &[]);
    let guilty = &answer.json["guilty"];
    assert_eq!((&guilty["layer"], &guilty["op"]), (&1.into(), &"input_layernorm".into()), "{}", answer.text);

    // A dump without the mask has the other's; one with another mask is another question.
    let maskless = edited(&bf16, |entry, _| !entry["slot"].as_str().unwrap().contains("attention_mask"));
    all_are_right(&triage("qwen3_moe", &f32, maskless.path(), &[]));
    let other = edited(&bf16, |entry, tensor| {
        if entry["slot"] == "attention_mask" && tensor.shape == [2, 6] {
            tensor.bytes.fill(0);
        }
        true
    });
    let answer = triage("qwen3_moe", &f32, other.path(), &[]);
    assert_eq!(answer.status, 101, "{}", answer.text);
    assert_eq!(answer.step("same padding?")["status"], "inconclusive");

    let shown = changed_in(&f32, attention, "input", |v| v[8 * columns..9 * columns].reverse());
    let answer = triage("qwen3_moe", &bf16, shown.path(), &[]);
    let guilty = &answer.json["guilty"];
    assert_eq!((&guilty["layer"], &guilty["op"]), (&0.into(), &"attention".into()), "{}", answer.text);
    let detail = guilty["detail"].as_str().unwrap();
    assert!(detail.contains("1 of 8 tokens are wrong, worst 8"), "{detail}");
}

#[test]
fn dumps_without_a_common_value_have_nothing_in_common() {
    let other = edited(&fixture("llama", "bf16"), |entry, _| {
        let head = is(entry, "lm_head", "output");
        entry["module"] = "somewhere.else".into();
        head
    });
    let answer = triage("llama", &fixture("llama", "f32"), other.path(), &[]);
    assert_eq!((answer.status, &answer.json["verdict"]), (4, &"nothing_in_common".into()), "{}", answer.text);
}

#[test]
fn a_weight_that_the_checkpoint_lacks_is_not_asked_of_the_dumps() {
    let folder = tempfile::tempdir().unwrap();
    let own = fixture("llama", "checkpoint");
    fs::copy(own.join("config.json"), folder.path().join("config.json")).unwrap();
    let weights = Checkpoint::open(&own).unwrap();
    let kept = weights.names().filter(|name| *name != "model.layers.1.mlp.up_proj.weight").map(|name| {
        let raw = weights.raw(name).unwrap();
        let (shape, bytes) = (raw.shape.to_vec(), raw.bytes.to_vec());
        NewTensor { name: name.to_owned(), dtype: raw.dtype, shape, bytes }
    });
    let kept: Vec<NewTensor> = kept.collect();
    write(&folder.path().join("model.safetensors"), &kept, &BTreeMap::new()).unwrap();
    let paths = [fixture("llama", "f32"), fixture("llama", "bf16"), folder.path().to_owned()];
    let paths = paths.each_ref().map(|p| p.to_str().unwrap());
    let answer = run(&["--reference", paths[0], "--candidate", paths[1], "--checkpoint", paths[2]]);
    assert_eq!(answer.status, 101, "{}", answer.text);
    let step = answer.step("which operation?");
    assert!(step["evidence"].to_string().contains("no tensor `model.layers.1.mlp.up_proj.weight`"), "{step}");
    assert!(step["next"].as_str().unwrap().contains("mend what is named above"), "{step}");
}

#[test]
fn an_operation_that_cannot_be_replayed_is_named_with_its_layer() {
    let narrow = edited(&fixture("qwen3_moe", "bf16"), |entry, tensor| {
        if is(entry, "model.layers.0.mlp.gate", "output") && entry["slot"] == "0" {
            tensor.shape[1] -= 1;
            tensor.bytes.truncate(tensor.shape.iter().product::<usize>() * 2);
        }
        true
    });
    let answer = triage("qwen3_moe", &fixture("qwen3_moe", "f32"), narrow.path(), &[]);
    let evidence = answer.step("which operation?")["evidence"].to_string();
    assert!(evidence.contains("INCONCLUSIVE layer 0, router: 10x3 logits"), "{evidence}");
}

#[test]
fn the_weight_of_another_layer_is_recognised() {
    let weights = Checkpoint::open(&fixture("llama", "checkpoint")).unwrap();
    let norm = |layer: usize| weights.vector(&format!("model.layers.{layer}.input_layernorm")).unwrap();
    let (own, other) = (norm(1), norm(0));
    let candidate = changed("llama", "model.layers.1.input_layernorm", "output", |v| {
        v.iter_mut().enumerate().for_each(|(i, v)| *v *= (other[i % 32] / own[i % 32]) as f32);
    });
    let answer = triage("llama", &fixture("llama", "bf16"), candidate.path(), &[]);
    let detail = answer.json["guilty"]["detail"].as_str().unwrap();
    assert!(detail.contains("explained: the weight is layer 0's"), "{detail}");
}

#[test]
fn files_without_their_manifest_and_a_caches_folders_are_named() {
    let copy = edited(&fixture("llama", "bf16"), |_, _| true);
    fs::remove_file(copy.path().join(MANIFEST)).unwrap();
    let answer = triage("llama", &fixture("llama", "f32"), copy.path(), &[]);
    assert_eq!(answer.status, 101);
    assert!(answer.text.contains("copy accuracy_dump.rank*.jsonl, too"), "{}", answer.text);

    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    let paths = [fixture("llama", "f32"), fixture("llama", "bf16")];
    let base = ["--reference", paths[0].to_str().unwrap(), "--candidate", paths[1].to_str().unwrap()];
    let with =
        |checkpoint: &Path| run(&[&base[..], &["--checkpoint", checkpoint.to_str().unwrap()]].concat());
    let answer = with(cache.path());
    assert!(answer.text.contains("give a folder in its snapshots/"), "{}", answer.text);
    std::os::unix::fs::symlink("../../blobs/gone", snapshot.join("model.safetensors")).unwrap();
    let answer = with(&snapshot);
    assert!(answer.text.contains("a link to ../../blobs/gone, which is not there"), "{}", answer.text);
}

#[test]
fn help_names_the_reports_that_triage_writes() {
    let answer = run(&["--help"]);
    assert!(answer.text.contains("formats: json, html"), "{}", answer.text);
    assert!(!answer.text.contains("junit"), "{}", answer.text);
}

#[test]
fn bad_input_is_named() {
    let reference = fixture("llama", "bf16");
    let path = reference.to_str().unwrap();
    let answer = run(&["--reference", path, "--candidate", "no/such/dump"]);
    assert_eq!(answer.status, 101);
    assert!(answer.text.contains("no/such/dump"), "{}", answer.text);
    let answer = triage("llama", &reference, &fixture("llama", "f32"), &["--step", "7"]);
    assert_eq!(answer.status, 2);
    assert!(answer.text.contains("the reference has no step 7; it has 0"), "{}", answer.text);
}

#[test]
fn what_a_person_reads() {
    let candidate = changed("llama", "model.layers.1.self_attn.o_proj", "output", |v| {
        v.iter_mut().for_each(|v| *v *= 2.0);
    });
    let answer = triage("llama", &fixture("llama", "bf16"), candidate.path(), &[]);
    assert!(answer.text.lines().all(|l| l.chars().count() <= 80), "{}", answer.text);
    for line in [
        "which operation?        FAULT",
        "FAULT: layer 1, o_proj",
        "right but for a constant: scaled by 2.0000",
    ] {
        assert!(answer.text.contains(line), "{line}: {}", answer.text);
    }
}

/// The parts of an engine's dump that all ranks wrote, with one tensor of one rank changed.
fn changed_rank(
    from: &Path,
    rank: usize,
    module: &str,
    kind: &str,
    change: impl Fn(&mut Vec<f32>),
) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let manifest = fs::read_to_string(from.join(format!("accuracy_dump.rank{rank}.jsonl"))).unwrap();
    let lines = manifest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let entries: Vec<Value> = lines.filter_map(|line| line.get("tensor").cloned()).collect();
    let file = entries[0]["file"].as_str().unwrap();
    let source = Checkpoint::open(&from.join(file)).unwrap();
    let mut found = false;
    let mut tensors = Vec::new();
    for entry in entries.iter().filter(|entry| entry["file"] == file) {
        let name = entry["key"].as_str().unwrap();
        let raw = source.raw(name).unwrap();
        let mut bytes = raw.bytes.to_vec();
        if is(entry, module, kind) && raw.dtype == StDtype::BF16 {
            let wide = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
            let mut values: Vec<f32> = bytes.chunks_exact(2).map(wide).collect();
            change(&mut values);
            bytes = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
            found = true;
        }
        tensors.push(NewTensor { name: name.to_owned(), dtype: raw.dtype, shape: raw.shape.to_vec(), bytes });
    }
    assert!(found, "{module} {kind} is not in the dump");
    write(&folder.path().join(file), &tensors, &BTreeMap::new()).unwrap();
    folder
}

fn engine(name: &str) -> PathBuf {
    fixture("llama", name)
}

fn against_engine(name: &str, candidate: &Path) -> Answer {
    let paths = [engine(name).join("reference"), candidate.to_owned(), fixture("llama", "checkpoint")];
    let paths = paths.each_ref().map(|p| p.to_str().unwrap());
    run(&["--reference", paths[0], "--candidate", paths[1], "--checkpoint", paths[2], "--all-layers"])
}

#[test]
fn clean_dumps_in_the_shape_of_engines_agree_with_transformers() {
    // One rank with a step of decoding, and two ranks; prompts of different lengths in one row.
    for (name, ops) in [
        ("vllm", &["rope", "attention", "lm_head", "q_proj", "swiglu"]),
        ("sglang", &["rope", "o_proj", "lm_head", "k_proj", "embedding"]),
    ] {
        let answer = against_engine(name, &engine(name).join("candidate"));
        assert_eq!(answer.json["verdict"], "agrees", "{name}: {}", answer.text);
        for op in ops {
            let mut all = answer.json["ops"].as_array().unwrap().iter();
            assert!(all.any(|o| o["op"] == **op && o["status"] == "right"), "{name}, {op}: {}", answer.text);
        }
    }
}

#[test]
fn a_wrong_value_of_an_engine_is_found_where_it_is() {
    for (name, rank, module, kind, op) in [
        ("vllm", 0, "model.layers.1.self_attn.o_proj", "input", "attention"),
        ("vllm", 0, "model.layers.1.mlp.down_proj", "input", "swiglu"),
        (
            "vllm",
            0,
            "model.layers.1.self_attn.attn",
            "output",
            "wiring self_attn.attn -> self_attn.o_proj input",
        ),
        ("sglang", 1, "model.layers.0.self_attn.qkv_proj", "output", "q_proj"),
    ] {
        let wrong = changed_rank(&engine(name).join("candidate"), rank, module, kind, |v| v.reverse());
        // What follows was computed from the right value, so that the wiring behind it differs, too.
        let answer = against_engine(name, wrong.path());
        assert_eq!(answer.json["verdict"], "fault", "{name}, {module}: {}", answer.text);
        let names: Vec<&Value> = answer.json["ops"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|o| o["status"] == "candidate_wrong")
            .map(|o| &o["op"])
            .collect();
        assert!(names.contains(&&op.into()), "{name}, {module}: {}", answer.text);
    }
}

#[test]
fn ranks_that_should_have_the_same_and_do_not_are_a_fault() {
    let candidate = engine("sglang").join("candidate");
    let wrong = changed_rank(&candidate, 1, "model.layers.1.post_attention_layernorm", "output", |v| {
        v.iter_mut().for_each(|v| *v *= 1.5);
    });
    let answer = against_engine("sglang", wrong.path());
    assert_eq!(answer.json["verdict"], "fault", "{}", answer.text);
    let guilty = &answer.json["guilty"];
    assert_eq!(
        (&guilty["layer"], &guilty["op"]),
        (&1.into(), &"post_attention_layernorm".into()),
        "{}",
        answer.text
    );
    assert!(guilty["detail"].as_str().unwrap().contains("the ranks have different values"), "{guilty}");
}

/// Each family computes what transformers computes, operation by operation, in both formats.
#[test]
fn every_operation_of_other_families_is_replayed_to_within_rounding() {
    for (model, expected) in [
        ("gemma2", "logits"),
        ("gemma3", "q_norm"),
        ("glm4", "post_mlp_layernorm"),
        ("glm4_moe", "experts"),
        ("olmo2", "post_feedforward_layernorm"),
        ("granite", "logits"),
        ("phi3", "k_proj"),
        ("mixtral", "router"),
        ("minimax_m2", "k_norm"),
        ("qwen3_next", "delta_rule"),
        ("qwen3_next", "linear_attn.norm"),
        ("qwen3_next", "shared_expert_gate"),
        ("llama4", "q_norm"),
        ("llama4", "experts"),
        ("nemotron_h", "state_space"),
        ("nemotron_h", "mixer.norm"),
        ("nemotron_h", "fc2_latent_proj"),
        ("deepseek_v32", "indexer"),
    ] {
        let answer = triage(model, &fixture(model, "f32"), &fixture(model, "bf16"), &["--all-layers"]);
        all_are_right(&answer);
        let names: BTreeSet<&str> =
            answer.json["ops"].as_array().unwrap().iter().map(|op| op["op"].as_str().unwrap()).collect();
        for name in ["embedding", "attention", "residual", "lm_head", expected] {
            assert!(names.contains(name), "{model}: {name} was not replayed: {names:?}");
        }
    }
}

#[test]
fn what_is_recognised_of_an_unknown_model_is_replayed_and_never_agrees_alone() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = fixture("gemma2", "checkpoint");
    fs::copy(checkpoint.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let config = fs::read_to_string(checkpoint.join("config.json")).unwrap();
    let config = config.replace("\"model_type\": \"gemma2\"", "\"model_type\": \"novel\"");
    fs::write(folder.path().join("config.json"), config).unwrap();
    let against = |candidate: &Path| {
        let reference = fixture("gemma2", "f32");
        let paths = [&reference, candidate, folder.path()].map(|p| p.to_str().unwrap().to_owned());
        run(&["--reference", &paths[0], "--candidate", &paths[1], "--checkpoint", &paths[2]])
    };
    let answer = against(&fixture("gemma2", "bf16"));
    assert_eq!(answer.json["verdict"], "inconclusive", "{}", answer.text);
    let ops = answer.json["ops"].as_array().unwrap();
    let right: BTreeSet<&str> =
        ops.iter().filter(|o| o["status"] == "right").map(|o| o["op"].as_str().unwrap()).collect();
    for name in ["input_layernorm", "self_attn.q_proj", "mlp.down_proj", "lm_head"] {
        assert!(right.contains(name), "{name}: {right:?}");
    }
    for (module, op) in [
        ("model.layers.1.mlp.up_proj", "mlp.up_proj"),
        ("model.layers.0.pre_feedforward_layernorm", "pre_feedforward_layernorm"),
    ] {
        let wrong = changed_in(&fixture("gemma2", "f32"), module, "output", |v| v.reverse());
        let paths = [fixture("gemma2", "bf16"), wrong.path().to_owned(), folder.path().to_owned()];
        let paths = paths.each_ref().map(|p| p.to_str().unwrap());
        let answer = run(&["--reference", paths[0], "--candidate", paths[1], "--checkpoint", paths[2]]);
        assert_eq!(answer.json["guilty"]["op"], op, "{}", answer.text);
    }
}

fn against_latent(name: &str, candidate: &Path) -> Answer {
    let folder = fixture("deepseek_v3", name);
    let paths = [folder.join("reference"), candidate.to_owned(), fixture("deepseek_v3", "checkpoint")];
    let paths = paths.each_ref().map(|p| p.to_str().unwrap());
    run(&["--reference", paths[0], "--candidate", paths[1], "--checkpoint", paths[2], "--all-layers"])
}

/// vLLM's experts run gate and shared expert themselves and give the sum, SGLang's block applies the factor of the routing
/// weights at its end; both attend to latents, and experts are split between the ranks.
#[test]
fn clean_dumps_of_latent_attention_and_split_experts_agree_with_transformers() {
    for (name, ops) in [
        ("vllm", &["kv_a_proj_with_mqa", "kv_a_layernorm", "attention", "o_proj", "experts"]),
        ("sglang", &["q_a_proj", "q_b_proj", "attention", "router", "experts"]),
    ] {
        let answer = against_latent(name, &fixture("deepseek_v3", name).join("candidate"));
        assert_eq!(answer.json["verdict"], "agrees", "{name}: {}", answer.text);
        for op in ops {
            let mut all = answer.json["ops"].as_array().unwrap().iter();
            assert!(all.any(|o| o["op"] == **op && o["status"] == "right"), "{name}, {op}: {}", answer.text);
        }
    }
}

#[test]
fn a_factor_of_routing_weights_that_is_applied_late_hides_no_fault() {
    let candidate = fixture("deepseek_v3", "sglang").join("candidate");
    let mut wrong = candidate;
    // Both ranks: what they have in common is wrong in both.
    let mut kept = Vec::new();
    for rank in [0, 1] {
        let next = changed_rank(&wrong, rank, "model.layers.1.mlp", "output", |v| {
            v.iter_mut().for_each(|v| *v *= 1.5);
        });
        wrong = next.path().to_owned();
        kept.push(next);
    }
    let answer = against_latent("sglang", &wrong);
    assert_eq!(answer.json["verdict"], "fault", "{}", answer.text);
    assert_eq!(
        (&answer.json["guilty"]["layer"], &answer.json["guilty"]["op"]),
        (&1.into(), &"experts".into()),
        "{}",
        answer.text
    );
}

/// What a product wrote tells its mistake by itself.
#[test]
fn mistakes_that_are_fitted_are_told() {
    let values = |module: &str| {
        let taken = std::cell::RefCell::new(Vec::new());
        changed("llama", module, "output", |v| *taken.borrow_mut() = v.clone());
        taken.into_inner()
    };
    let v_proj = values("model.layers.1.self_attn.v_proj");
    let scaled = |v: &mut Vec<f32>| {
        v.chunks_exact_mut(48).for_each(|row| row[3..9].iter_mut().for_each(|x| *x *= 1.4));
    };
    // Heads of 8 columns, two of them keys'.
    let exchanged = |v: &mut Vec<f32>| {
        let rows = v.chunks_exact_mut(16).zip(v_proj.chunks_exact(16));
        rows.for_each(|(row, other)| row[8..].copy_from_slice(&other[8..]));
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<f32>);
    let cases: [(&str, Change<'_>, &str); 2] = [
        ("model.layers.1.mlp.gate_proj", &scaled, "columns 3 to 8 are scaled by 1.4000"),
        ("model.layers.1.self_attn.k_proj", &exchanged, "columns 8 to 15 are v_proj's columns 8 to 15"),
    ];
    for (module, change, told) in cases {
        let candidate = changed("llama", module, "output", change);
        let answer = triage("llama", &fixture("llama", "bf16"), candidate.path(), &[]);
        let detail = answer.json["guilty"]["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("explained: {told}")), "{module}: {detail}");
    }
}
