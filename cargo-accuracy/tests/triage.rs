//! `cargo accuracy triage`: the real binary on dumps that transformers' models left (`tests/triage/models.py`).

use accuracy_core::weights::{Checkpoint, NewTensor, write};
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

/// A copy of a model's dump in float32 with one tensor changed.
fn changed(model: &str, module: &str, kind: &str, change: impl Fn(&mut Vec<f32>)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture(model, "f32");
    let mut keys = Vec::new();
    for entry in fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        let to = folder.path().join(path.file_name().unwrap());
        if path.extension().is_some_and(|e| e == "jsonl") {
            for line in fs::read_to_string(&path).unwrap().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                if line["tensor"]["module"] == module && line["tensor"]["kind"] == kind {
                    keys.push(line["tensor"]["key"].as_str().unwrap().to_owned());
                }
            }
            fs::copy(&path, &to).unwrap();
        }
    }
    assert!(!keys.is_empty(), "{module} {kind} is not in the dump");
    for entry in fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let file = Checkpoint::open(&path).unwrap();
            let tensors: Vec<NewTensor> = file
                .names()
                .map(|name| {
                    let raw = file.raw(name).unwrap();
                    let mut bytes = raw.bytes.to_vec();
                    if keys.iter().any(|k| k == name) {
                        let mut values: Vec<f32> = bytes
                            .chunks_exact(4)
                            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                            .collect();
                        change(&mut values);
                        bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    }
                    NewTensor { name: name.to_owned(), dtype: raw.dtype, shape: raw.shape.to_vec(), bytes }
                })
                .collect();
            write(&folder.path().join(path.file_name().unwrap()), &tensors, &BTreeMap::new()).unwrap();
        }
    }
    folder
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
    let at = text.find("\"ids\": [[").unwrap() + 9;
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
