//! Where values of a model are found in a dump: modules, slots, parts of fused tensors, and how ranks share them.
//!
//! The tables of names at the end are what is known of transformers', vLLM's, SGLang's and ATOM's modules.

use crate::dumps::Kind;
use std::ops::Range;

/// Names under which something appears, the most usual one first.
pub type Names = &'static [&'static str];

/// Slots under which a module's first argument or result appears. Engines pass positions before the hidden states, so
/// that these are the first slot that holds floats.
const FIRST: Names = &["", "0", "hidden_states", "1"];

/// One of several values that lie side by side in the columns of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fused {
    /// Columns of each value. If ranks share the tensor, each of them has a part of every value.
    pub widths: Vec<usize>,
    /// A rank never has fewer columns of a value than this: a head of keys that several ranks share is repeated.
    pub unit: usize,
    pub index: usize,
}

impl Fused {
    /// The columns of the value in a tensor of `cols` columns that one of `ranks` ranks wrote. `None` if the widths do
    /// not add up to `cols`.
    pub fn columns(&self, cols: usize, ranks: usize) -> Option<Range<usize>> {
        let local = |&width: &usize| match width / ranks {
            part if part >= self.unit && width.is_multiple_of(ranks) => part,
            _ => self.unit.min(width),
        };
        let parts: Vec<usize> = self.widths.iter().map(local).collect();
        let start = parts[..self.index].iter().sum::<usize>();
        (parts.iter().sum::<usize>() == cols).then(|| start..start + parts[self.index])
    }
}

/// How the ranks of a tensor-parallel run share a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nothing is known: the dump has to say, or all ranks have the same bytes.
    Unknown,
    /// All ranks have the whole value of so many columns.
    Whole(usize),
    /// Each rank has some of so many columns. A rank never has fewer than the second number.
    Columns(usize, usize),
    /// A sum over ranks of so many columns. An engine may add the parts at once or later.
    Sum(usize),
}

/// One place where a value may be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub module: String,
    pub kind: Kind,
    /// Any one of these slots.
    pub slots: Names,
    /// A second slot that is added: the residual that engines' layers pass along. Empty for none.
    pub plus: Names,
    /// These columns of it only.
    pub columns: Option<Range<usize>>,
    /// The value is one of several in the tensor.
    pub fused: Option<Fused>,
    /// Which call of the module within a pass. Layers may share one module.
    pub call: usize,
    /// The dump has to have so many calls of it: one that keeps the last one alone does not say whose it is.
    pub calls: Option<usize>,
    /// The dump has to have an output of this module: without it, the place means something else.
    pub beside: Option<String>,
    /// The module has to have one of these slots, too: without it, the place means something else.
    pub with: Names,
    /// The tensor may have as many times the rows of the tokens, a part for each expert, which are added.
    pub stacked: Option<usize>,
    /// Output of this module must be another value: where both are one, the place means something else.
    pub unlike: Option<String>,
    pub sharing: Sharing,
}

impl Place {
    pub fn new(module: impl Into<String>, kind: Kind, slots: Names) -> Place {
        Place {
            module: module.into(),
            kind,
            slots,
            plus: &[],
            columns: None,
            fused: None,
            call: 0,
            calls: None,
            beside: None,
            with: &[],
            stacked: None,
            unlike: None,
            sharing: Sharing::Unknown,
        }
    }
}

/// A value of the model: places to look for it, the best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Site(pub Vec<Place>);

impl Site {
    pub fn input(module: impl Into<String>) -> Site {
        Site::slot(module, Kind::Input, FIRST)
    }

    pub fn output(module: impl Into<String>) -> Site {
        Site::slot(module, Kind::Output, FIRST)
    }

    pub fn slot(module: impl Into<String>, kind: Kind, slots: Names) -> Site {
        Site(vec![Place::new(module, kind, slots)])
    }

    /// Where else it may be.
    pub fn or(mut self, other: Site) -> Site {
        self.0.extend(other.0);
        self
    }

    /// The first place of each of several sites, then the second ones, and so on.
    pub fn any(sites: impl IntoIterator<Item = Site>) -> Site {
        sites.into_iter().fold(Site::default(), Site::or)
    }

    fn each(mut self, change: impl Fn(&mut Place)) -> Site {
        self.0.iter_mut().for_each(change);
        self
    }

    pub fn columns(self, columns: Range<usize>) -> Site {
        self.each(|p| p.columns = Some(columns.clone()))
    }

    pub fn plus(self, slots: Names) -> Site {
        self.each(|p| p.plus = slots)
    }

    pub fn fused(self, widths: &[usize], unit: usize, index: usize) -> Site {
        self.each(|p| p.fused = Some(Fused { widths: widths.to_vec(), unit, index }))
    }

    pub fn call(self, call: usize, of: usize) -> Site {
        self.each(|p| (p.call, p.calls) = (call, Some(of)))
    }

    pub fn beside(self, module: &str) -> Site {
        self.each(|p| p.beside = Some(module.to_owned()))
    }

    pub fn with(self, slots: Names) -> Site {
        self.each(|p| p.with = slots)
    }

    pub fn stacked(self, experts: usize) -> Site {
        self.each(|p| p.stacked = Some(experts))
    }

    pub fn unlike(self, module: &str) -> Site {
        self.each(|p| p.unlike = Some(module.to_owned()))
    }

    pub fn shared(self, sharing: Sharing) -> Site {
        self.each(|p| p.sharing = sharing)
    }
}

/// Slots under which an attention module is given cosines and sines.
pub const GIVEN_COS: Names = &["position_embeddings.0", "position_embeddings_0"];
pub const GIVEN_SIN: Names = &["position_embeddings.1", "position_embeddings_1"];

/// Second inputs of engines' norms, which add both, and second outputs of norms and layers: the residual stream.
pub const RESIDUAL: Names = &["residual", "1"];
/// Engines' layers get positions, hidden states and the residual; SGLang's get the batch before the residual.
pub const LAYER_RESIDUAL: Names = &["residual", "2", "3"];

/// Projections that engines, and some checkpoints, keep as one.
pub const FUSED_QKV: Names = &["qkv_proj", "query_key_value", "qkv", "W_pack"];
pub const FUSED_GATE_UP: Names = &["gate_up_proj", "gate_up"];
pub const FUSED_LATENT: Names = &["fused_qkv_a_proj_with_mqa", "fused_qkv_a_proj"];

/// The module that computes logits with the head's weight, for the last row of each sequence: its argument and result.
pub const LOGITS: &str = "logits_processor";
pub const LOGITS_INPUT: Names = &["1", "hidden_states"];
pub const LOGITS_OUTPUT: Names = &["", "0", "next_token_logits", "1"];

/// What a module that attends is given, in engines after the rotation.
pub const ATTENDS: Names = &["attn", "mla_attn", "attn_mqa"];
pub const ATTEND_Q: Names = &["0", "query", "q"];
pub const ATTEND_K: Names = &["1", "key", "k"];

/// What experts give. Where the shared expert runs among them, its output comes first.
pub const EXPERTS_OUTPUT: Names = &["1", "", "0"];

/// Experts of tokens and their weights, as arguments of the experts' module or results of the router's.
pub const EXPERT_IDS: Names =
    &["1", "router_indices", "top_k_index", "selected_experts", "1.1", "topk_output.1", "topk.1"];
pub const EXPERT_WEIGHTS: Names =
    &["2", "routing_weights", "top_k_weights", "1.0", "topk_output.0", "topk.0"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_has_its_part_of_each_fused_value_and_a_repeated_head() {
        let fused = |index| Fused { widths: vec![64, 32, 32], unit: 16, index };
        // One rank has everything, two have two kv heads' halves, four share two kv heads.
        assert_eq!(fused(1).columns(128, 1), Some(64..96));
        assert_eq!(fused(1).columns(64, 2), Some(32..48));
        assert_eq!(fused(2).columns(48, 4), Some(32..48));
        assert_eq!(fused(0).columns(50, 4), None);
    }
}
