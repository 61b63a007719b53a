//! `transformers.model_debugging_utils.model_addition_debugger_context(use_repr=False)`: a tree of calls in JSON, and a
//! safetensors file with one tensor, `data`, for each input and output.
//!
//! The tree leaves out all layers but the first and the last unless told otherwise, while their files are written all
//! the same, so files are found by their names and the tree gives their order. Outputs are kept of modules without
//! children and of the model alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::DumpError;
use super::folder::read_all;
use super::{DumpSet, Kind, Producer, TensorId, Unread};
use crate::weights::natural_cmp;

const SUFFIX: &str = "_debug_tree_FULL_TENSORS.json";

pub(super) fn is_tree(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SUFFIX))
}

pub(super) fn read(path: &Path) -> Result<DumpSet, DumpError> {
    let mut set = DumpSet::new(path, Producer::HuggingFace);
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| DumpError::io(path, e))? {
        files.push(entry.map_err(|e| DumpError::io(path, e))?.path());
    }
    let trees: Vec<&PathBuf> = files.iter().filter(|f| is_tree(f)).collect();
    let [tree] = trees[..] else {
        return Err(DumpError::Ambiguous {
            path: path.to_owned(),
            reason: format!("{} files end in {SUFFIX}, which is one for each model; one is due", trees.len()),
        });
    };
    let model = file_name(tree).strip_suffix(SUFFIX).unwrap_or_default().to_owned();
    let (order, printed) = order(tree)?;
    let tensor = |f: &PathBuf| f.extension().is_some_and(|e| e == "safetensors");
    let mut wanted: Vec<PathBuf> = files.into_iter().filter(tensor).collect();
    if wanted.is_empty() && printed > 0 {
        return Err(DumpError::Unsupported {
            path: path.to_owned(),
            what: format!("{printed} tensors printed as text"),
            hint: "dump again with model_addition_debugger_context(.., use_repr=False)",
        });
    }
    wanted.sort_by(|a, b| {
        let key = |f: &PathBuf| order.get(&file_name(f)).map_or(usize::MAX, |place| place.first);
        key(a).cmp(&key(b)).then_with(|| natural_cmp(&file_name(a), &file_name(b)))
    });
    for (file, contents) in wanted.iter().zip(read_all(&wanted)?) {
        let name = file_name(file);
        let id = id(&model, &name).map_err(|reason| DumpError::Name {
            path: path.to_owned(),
            producer: "the Hugging Face model debugger",
            name: name.clone(),
            reason,
        })?;
        let times = order.get(&name).map_or(1, |place| place.times);
        if times > 1 {
            let reason = format!("called {times} times; only the last one is left in {name}");
            set.unread.push(Unread { what: id.to_string(), reason });
        }
        for found in contents.tensors {
            if found.path != ["data"] {
                let reason =
                    format!("a tensor called `{}` in {name}, where `data` is due", found.path.join("."));
                set.unread.push(Unread { what: id.to_string(), reason });
                continue;
            }
            set.tensors.push(found.tensor(id.clone(), file));
        }
    }
    let mut missing: Vec<&String> =
        order.keys().filter(|name| !wanted.iter().any(|file| file_name(file) == **name)).collect();
    missing.sort_by(|a, b| natural_cmp(a, b));
    let reason = "the tree names this file, which is not there";
    set.unread.extend(missing.into_iter().map(|name| Unread { what: name.clone(), reason: reason.into() }));
    set.notes.push(
        "outputs of modules that have children are not in it; see the inputs of those that follow".to_owned(),
    );
    Ok(set)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where in the tree a file is named.
struct Place {
    first: usize,
    times: usize,
}

/// The files that the tree names, and how many tensors it has printed instead.
fn order(tree: &Path) -> Result<(HashMap<String, Place>, usize), DumpError> {
    fn visit(value: &Value, order: &mut HashMap<String, Place>, printed: &mut usize) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| visit(item, order, printed)),
            // Inputs come before children, those before outputs, whatever their order in the file.
            Value::Object(fields) if fields.contains_key("module_path") => {
                for part in ["inputs", "children", "outputs"] {
                    fields.get(part).into_iter().for_each(|part| visit(part, order, printed));
                }
            }
            Value::Object(fields) => match (fields.get("value"), fields.get("dtype")) {
                (Some(Value::String(file)), Some(_)) => {
                    let next = order.len();
                    let name = file.trim_start_matches("./").to_owned();
                    order.entry(name).or_insert(Place { first: next, times: 0 }).times += 1;
                }
                (Some(Value::Array(_)), Some(_)) => *printed += 1,
                _ => fields.values().for_each(|field| visit(field, order, printed)),
            },
            _ => {}
        }
    }
    let bytes = crate::files::read(tree, crate::files::LIST).map_err(|e| DumpError::io(tree, e))?;
    let value = serde_json::from_slice(&bytes).map_err(|e| DumpError::Damaged {
        path: tree.to_owned(),
        format: "tree of calls",
        reason: e.to_string(),
    })?;
    let (mut order, mut printed) = (HashMap::new(), 0);
    visit(&value, &mut order, &mut printed);
    Ok((order, printed))
}

/// `{Model}.{module}_inputs_args_0`, `_inputs_kwargs_{name}`, `_outputs` or `_outputs_{slot}`.
fn id(model: &str, file: &str) -> Result<TensorId, String> {
    let stem = file.strip_suffix(".safetensors").unwrap_or(file);
    let rest = stem.strip_prefix(model).ok_or_else(|| format!("it does not begin with {model}"))?;
    let marks =
        [("_inputs_args_", Kind::Input), ("_inputs_kwargs_", Kind::Input), ("_outputs", Kind::Output)];
    let splits = marks.iter().flat_map(|(mark, kind)| {
        rest.match_indices(mark).map(move |(at, _)| (&rest[..at], &rest[at + mark.len()..], *kind))
    });
    let fits = |(module, slot, kind): &(&str, &str, Kind)| {
        (module.is_empty() || module.starts_with('.'))
            && (*kind == Kind::Input || slot.is_empty() || slot.starts_with('_'))
    };
    match splits.filter(fits).collect::<Vec<_>>()[..] {
        [] => Err("neither an input nor an output".to_owned()),
        [(module, slot, kind)] => Ok(TensorId::of_module(
            module.trim_start_matches('.'),
            kind,
            if kind == Kind::Output { slot.trim_start_matches('_') } else { slot },
        )),
        [..] => Err("more than one way to read it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_split_in_one_way_or_refused() {
        let parsed = |file| id("LlamaForCausalLM", file).map(|i| (i.module, i.kind, i.slot, i.layer));
        for (file, module, kind, slot, layer) in [
            ("LlamaForCausalLM_inputs_kwargs_input_ids.safetensors", "", Kind::Input, "input_ids", None),
            (
                "LlamaForCausalLM.model.layers.1_inputs_args_0.safetensors",
                "model.layers.1",
                Kind::Input,
                "0",
                Some(1),
            ),
            ("LlamaForCausalLM.lm_head_outputs.safetensors", "lm_head", Kind::Output, "", None),
            (
                "LlamaForCausalLM.model.rotary_emb_outputs_1.safetensors",
                "model.rotary_emb",
                Kind::Output,
                "1",
                None,
            ),
        ] {
            assert_eq!(parsed(file), Ok((module.into(), kind, slot.into(), layer)), "{file}");
        }
        for bad in [
            "Other.x_outputs.safetensors",
            "LlamaForCausalLM.x.safetensors",
            "LlamaForCausalLM.a_outputs_b_outputs_0.safetensors",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
