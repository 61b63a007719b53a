//! `--mapping`: operations of a model whose architecture is not known, as TOML.
//!
//! ```toml
//! layers = 12
//! stream = "transformer.h.{layer}"          # the module of a layer; its input is the residual stream
//! final_norm = "transformer.ln_f"
//!
//! [[op]]
//! name = "ln_1"                              # what reports call it
//! kind = "layer_norm"                        # rms_norm, layer_norm, linear, silu, gelu, gelu_tanh, relu, swiglu, sum
//! module = "transformer.h.{layer}.ln_1"      # of norms, linears and activations
//! eps = 1e-5
//!
//! [[op]]
//! name = "residual"
//! kind = "sum"
//! inputs = ["transformer.h.{layer}:input", "transformer.h.{layer}.attn:output"]
//! output = "transformer.h.{layer}.ln_2:input"
//! ```
//!
//! `weight` names the checkpoint's module where it is another than the model's.

use crate::exit::usage;
use accuracy_core::model::{Activation, Op, OpKind, Plan, Site};
use serde::Deserialize;
use std::path::Path;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    layers: usize,
    stream: String,
    final_norm: Option<String>,
    op: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    kind: String,
    module: Option<String>,
    weight: Option<String>,
    eps: Option<f64>,
    #[serde(default)]
    inputs: Vec<String>,
    output: Option<String>,
}

/// Reads a mapping file.
///
/// # Errors
/// It cannot be read or parsed, or an operation lacks what its kind needs.
pub fn read(path: &Path) -> anyhow::Result<Plan> {
    let text = accuracy_core::files::read_text(path, accuracy_core::files::TEXT)
        .map_err(|e| usage(format!("{}: {e}", path.display())))?;
    parse(&text).map_err(|e| usage(format!("{}: {e}", path.display())))
}

fn parse(text: &str) -> Result<Plan, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
    if file.layers == 0 || file.layers > 10_000 || !file.stream.contains("{layer}") {
        return Err("expected 1 to 10000 layers and `{layer}` in `stream`".to_owned());
    }
    let mut ops = Vec::new();
    for layer in 0..file.layers {
        for entry in &file.op {
            ops.push(entry.op(layer).map_err(|e| format!("op `{}`: {e}", entry.name))?);
        }
    }
    let module = |layer: usize| file.stream.replace("{layer}", &layer.to_string());
    let modules: Vec<String> = (0..file.layers).map(module).collect();
    let mut stream: Vec<Site> = modules.iter().map(Site::input).collect();
    let mut last = Site::output(&modules[file.layers - 1]);
    if let Some(norm) = &file.final_norm {
        last.0.extend(Site::input(norm).0);
    }
    stream.push(last);
    Ok(Plan {
        ops,
        stream,
        branches: vec![Vec::new(); file.layers],
        modules,
        logits: Site::output("lm_head"),
    })
}

impl Entry {
    fn op(&self, layer: usize) -> Result<Op, String> {
        let fill = |text: &str| text.replace("{layer}", &layer.to_string());
        let site = |text: &str| match text.rsplit_once(':') {
            Some((module, "input")) => Ok(Site::input(fill(module))),
            Some((module, "output")) => Ok(Site::output(fill(module))),
            _ => Err(format!("`{text}`: expected MODULE:input or MODULE:output")),
        };
        let module = || self.module.as_deref().map(fill).ok_or("`module` is missing");
        let weight = || self.weight.as_deref().map(fill).map_or_else(module, Ok);
        let kind = match self.kind.as_str() {
            "rms_norm" | "layer_norm" => {
                let weight = weight()?;
                let bias = (self.kind == "layer_norm").then(|| format!("{weight}.bias"));
                OpKind::Norm {
                    weight,
                    bias,
                    eps: self.eps.ok_or("`eps` is missing")?,
                    width: None,
                    one_plus: false,
                }
            }
            "linear" => OpKind::Linear { weight: weight()? },
            "silu" => OpKind::Activation(Activation::Silu),
            "gelu" => OpKind::Activation(Activation::Gelu),
            "gelu_tanh" => OpKind::Activation(Activation::GeluTanh),
            "relu" => OpKind::Activation(Activation::Relu),
            "swiglu" => OpKind::Gated(Activation::Silu),
            "sum" => OpKind::Sum { scale: 1.0 },
            "copy" => OpKind::Copy,
            other => {
                return Err(format!(
                    "kind `{other}`; known: rms_norm, layer_norm, linear, silu, gelu, gelu_tanh, relu, swiglu, sum, copy"
                ));
            }
        };
        let inputs = match &self.inputs[..] {
            [] => vec![Site::input(module()?)],
            inputs => inputs.iter().map(|i| site(i)).collect::<Result<_, _>>()?,
        };
        let wanted = if matches!(kind, OpKind::Gated(_)) { 2 } else { 1 };
        if inputs.len() < wanted {
            return Err(format!("{wanted} inputs are needed"));
        }
        let output = match &self.output {
            Some(output) => site(output)?,
            None => Site::output(module()?),
        };
        Ok(Op {
            name: self.name.clone(),
            layer: Some(layer),
            kind,
            inputs,
            output,
            last: false,
            of_experts: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_made_for_each_layer_and_mistakes_are_named() {
        let text = "layers = 2\nstream = \"h.{layer}\"\n[[op]]\nname = \"fc\"\nkind = \"linear\"\nmodule = \"h.{layer}.fc\"\n";
        let plan = parse(text).unwrap();
        assert_eq!(plan.ops.len(), 2);
        assert_eq!(plan.ops[1].kind, OpKind::Linear { weight: "h.1.fc".into() });
        assert_eq!(plan.stream.len(), 3);
        for (from, to, message) in [
            ("linear", "conv", "op `fc`: kind `conv`"),
            ("module", "modul", "unknown field"),
            ("layers = 2", "layers = 0", "1 to 10000 layers"),
            ("kind = \"linear\"", "kind = \"rms_norm\"", "op `fc`: `eps` is missing"),
        ] {
            let error = parse(&text.replace(from, to)).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
