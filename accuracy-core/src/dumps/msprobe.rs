//! msprobe (MindStudio): `step{N}/rank{R}/dump_tensor_data/{name}.pt` or `.npy`, each one tensor.
//!
//! A module's tensor is called `Module.{path}.{Class}.forward.{call}.{input|output|parameters}.{slot}` (MindSpore says
//! `Cell`), in older versions with the call before `forward`; an API's `{type}.{name}.{call}.forward.{..}`.

use std::path::{Path, PathBuf};

use super::error::DumpError;
use super::folder::{files, read_all};
use super::names::number;
use super::{DumpSet, Kind, Producer, Rank, TensorId, Unread, natural};

const DATA: &str = "dump_tensor_data";

pub(super) fn is_dumped(path: &Path) -> bool {
    let tensor = path.extension().is_some_and(|e| e == "pt" || e == "npy");
    tensor && path.parent().and_then(Path::file_name).is_some_and(|name| name == DATA)
}

pub(super) fn read(path: &Path) -> Result<DumpSet, DumpError> {
    let mut set = DumpSet::new(path, Producer::Msprobe);
    let wanted: Vec<PathBuf> = files(path)?.into_iter().filter(|f| is_dumped(f)).collect();
    let mut processes: Vec<(Option<u64>, Rank, &Path)> = Vec::new();
    for (file, contents) in wanted.iter().zip(read_all(&wanted)?) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let folder = file.parent().unwrap_or(path);
        let (step, rank) = place(folder);
        if !processes.iter().any(|p| p.2 == folder) {
            if let Some(other) = processes.iter().find(|p| (p.0, p.1) == (step, rank)) {
                return Err(DumpError::Ambiguous {
                    path: path.to_owned(),
                    reason: format!(
                        "{} and {} are of the same step and rank; name one of the folders",
                        other.2.display(),
                        folder.display()
                    ),
                });
            }
            processes.push((step, rank, folder));
        }
        let id = id(&stem).ok_or_else(|| DumpError::Name {
            path: folder.to_owned(),
            producer: "msprobe",
            name: stem.clone().into_owned(),
            reason: "neither forward nor backward with a call's number, or what it is of the call is missing"
                .into(),
        })?;
        let id = TensorId { step, rank, ..id };
        for (_, reason) in contents.unread {
            set.unread.push(Unread { what: id.to_string(), reason });
        }
        for found in contents.tensors {
            let slot: Vec<&str> = Some(&*id.slot)
                .filter(|s| !s.is_empty())
                .into_iter()
                .chain(found.path.iter().map(|s| &**s))
                .collect();
            let id = TensorId { slot: slot.join("."), ..id.clone() };
            set.tensors.push(found.tensor(id, file));
        }
    }
    set.tensors.sort_by(natural);
    Ok(set)
}

/// Step and rank, by the names of the folders around the data.
fn place(folder: &Path) -> (Option<u64>, Rank) {
    let names = folder
        .ancestors()
        .skip(1)
        .take(2)
        .filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned()));
    let (mut step, mut rank) = (None, Rank::default());
    for name in names {
        step = step.or(number(&name, "step"));
        rank.global = rank.global.or(number(&name, "rank"));
    }
    (step, rank)
}

fn id(stem: &str) -> Option<TensorId> {
    let parts: Vec<&str> = stem.split('.').collect();
    let at = parts.iter().position(|p| matches!(*p, "forward" | "backward" | "parameters_grad"))?;
    let is_module = matches!(parts[0], "Module" | "Cell");
    let before = &parts[..at];
    let (owner, call, rest) =
        match (before.last()?.parse::<usize>(), parts.get(at + 1).map(|p| p.parse::<usize>())) {
            (Ok(call), _) => (&before[..at - 1], call, &parts[at + 1..]),
            (Err(_), Some(Ok(call))) => (before, call, &parts[at + 2..]),
            // A gradient of a parameter is of all calls.
            (Err(_), _) if parts[at] == "parameters_grad" => (before, 0, &parts[at..]),
            _ => return None,
        };
    let module = if is_module { owner.get(1..owner.len().checked_sub(1)?)? } else { owner };
    let (what, slot) = rest.split_first()?;
    let kind = match (*what, parts[at]) {
        ("input" | "output" | "kwargs" | "parameters", "backward") | ("parameters_grad", _) => Kind::Gradient,
        ("input" | "kwargs", _) => Kind::Input,
        ("output", _) => Kind::Output,
        ("parameters", _) => Kind::Parameter,
        _ => return None,
    };
    let slot = if parts[at] == "backward" { rest.join(".") } else { slot.join(".") };
    Some(TensorId { call, ..TensorId::of_module(module.join("."), kind, slot) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_orders_and_of_apis_are_understood() {
        let parsed = |stem| id(stem).map(|i| (i.module, i.kind, i.slot, i.call));
        let layer = "model.layers.0.mlp".to_owned();
        for (stem, expected) in [
            ("Module.model.layers.0.mlp.Mlp.forward.2.input.0", (layer.clone(), Kind::Input, "0", 2)),
            ("Module.model.layers.0.mlp.Mlp.2.forward.output.0.1", (layer.clone(), Kind::Output, "0.1", 2)),
            ("Module.model.layers.0.mlp.Mlp.forward.0.kwargs.mask", (layer.clone(), Kind::Input, "mask", 0)),
            ("Cell.conv1.Conv2d.forward.0.parameters.bias", ("conv1".into(), Kind::Parameter, "bias", 0)),
            ("Functional.linear.5.forward.output.0", ("Functional.linear".into(), Kind::Output, "0", 5)),
            ("Module.a.B.backward.1.input.0", ("a".into(), Kind::Gradient, "input.0", 1)),
            ("Module.a.B.parameters_grad.weight", ("a".into(), Kind::Gradient, "weight", 0)),
        ] {
            let (module, kind, slot, call) = expected;
            assert_eq!(parsed(stem), Some((module, kind, slot.to_owned(), call)), "{stem}");
        }
        for bad in
            ["", "Module", "forward", "Module.forward.0.input", "Module.a.B.forward.input.0", "a.b.c.0"]
        {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
