//! Values of a dump that cannot be what they claim.

use super::side::Side;
use accuracy_core::dumps::{DumpTensor, Kind};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Outputs of layers that have the bytes of another layer's, and outputs that are constant.
pub fn repeated(side: &Side) -> Result<(Vec<String>, Vec<String>), String> {
    let mut seen: HashMap<(u64, String), &DumpTensor> = HashMap::new();
    let (mut stale, mut constant) = (Vec::new(), Vec::new());
    for tensor in &side.set.tensors {
        let id = &tensor.id;
        let Some(layer) = id.layer.filter(|_| id.kind == Kind::Output && id.step == side.step) else {
            continue;
        };
        let count = tensor.shape().iter().product::<usize>();
        if tensor.element().is_integer() || count < 16 {
            continue;
        }
        let data = tensor.open().map_err(|e| format!("{id}: {e}"))?;
        let bytes = data.raw();
        let size = (bytes.len() / count).max(1);
        let same = |bytes: &[u8]| bytes.chunks_exact(size).all(|c| c == &bytes[..size]);
        if same(&bytes[..bytes.len().min(4096) / size * size]) && same(&bytes) {
            constant.push(format!("{id} is constant"));
            continue;
        }
        let role = id.module.replace(&layer.to_string(), "{layer}") + &id.slot;
        match seen.entry((sample(&bytes), role)) {
            Entry::Vacant(place) => {
                place.insert(tensor);
            }
            Entry::Occupied(other) => {
                let first = other.get();
                let data = first.open().map_err(|e| format!("{}: {e}", first.id))?;
                // A layer that does nothing is no stale dump: its own input has the bytes, too.
                let passed = |t: &DumpTensor| side.enters(&t.id).is_some_and(|input| input.raw() == bytes);
                // A token that sees but one position weighs it with 1 in every layer.
                let told = || {
                    tensor
                        .open()
                        .is_ok_and(|d| d.matrix(0..d.rows()).data.iter().any(|v| *v != 0.0 && *v != 1.0))
                };
                let same = first.id.layer != id.layer && data.raw() == bytes;
                if same && !passed(tensor) && !passed(first) && told() {
                    let layer = first.id.layer.unwrap_or(0);
                    stale.push(format!("{id} has the bytes of layer {layer}"));
                }
            }
        }
    }
    stale.truncate(4);
    constant.truncate(4);
    Ok((stale, constant))
}

/// A hash of a few windows of a tensor's bytes.
fn sample(bytes: &[u8]) -> u64 {
    const WINDOW: usize = 4096;
    let mut hasher = DefaultHasher::new();
    let step = (bytes.len() / 16).max(WINDOW);
    for start in (0..bytes.len()).step_by(step) {
        bytes[start..(start + WINDOW).min(bytes.len())].hash(&mut hasher);
    }
    (bytes.len(), hasher.finish()).hash(&mut hasher);
    hasher.finish()
}
