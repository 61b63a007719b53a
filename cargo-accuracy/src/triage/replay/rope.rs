//! Rotary embeddings: tables, rotations, and what is wrong with them.

use super::causes::best;
use super::mistakes::{Mistake, backwards, other_tables, tables};
use super::{Cause, Replay, Stop, dumped, need};
use crate::triage::cache::attention_module;
use crate::triage::fits::rounded;
use crate::triage::judge::{Judged, error_shown, judge_shown};
use crate::triage::side::Side;
use crate::triage::value::Value;
use accuracy_core::dumps::Kind;
use accuracy_core::model::ops::{self, Precision};
use accuracy_core::model::place::{GIVEN_COS, GIVEN_SIN, Names};
use accuracy_core::model::{Op, OpKind, Place, Rope, Site};
use accuracy_core::reference::Matrix;
use std::ops::Range;

impl Replay<'_> {
    /// Heads after the rotation, of an engine that rotates in a module of its own.
    pub(super) fn rotated(
        &self,
        side: &Side,
        op: &Op,
        rope: usize,
        p: Precision,
        mistake: &Mistake,
    ) -> Result<Matrix, Stop> {
        let config = self.config.ok_or_else(|| Stop::Unusable("rotation needs a config.json".into()))?;
        let d = config.attention.key_dim;
        let x = need(side, &op.inputs[0], p)?;
        let width = x.x.data.len() / side.tokens_of(&x, d).max(1);
        let mut x = x.reshaped(width).map_err(Stop::Unusable)?;
        let rope = mistake.table.as_ref().map_or_else(|| self.rope(rope), Ok)?;
        let mut positions = self.positions_of(side, &x, mistake.q_shift);
        if mistake.rounded {
            positions.iter_mut().for_each(|p| *p = rounded(*p));
        }
        let table = table(rope, &positions);
        let half = rope.dims / 2;
        let (cos, sin) = (p.apply(table.columns(0..half)), p.apply(table.columns(half..2 * half)));
        let style = mistake.style.unwrap_or(rope.style);
        if mistake.rotate_q {
            ops::rotate(&mut x.x, d, mistake.part(rope.dims, d), (&cos, &sin), style, p);
        }
        Ok(x.x)
    }

    /// The position of each row of an engine's value.
    fn positions_of(&self, side: &Side, x: &Value, shift: f64) -> Vec<f64> {
        let recorded = side.positions.as_ref().filter(|p| !p.is_empty());
        let position = |t: usize| recorded.map_or(t as f64, |p| p[t % p.len()] as f64);
        (0..x.x.rows).map(|t| position(t) + shift).collect()
    }

    pub(super) fn rope(&self, index: usize) -> Result<&Rope, Stop> {
        let rope = self.config.and_then(|c| c.rope(Some(index)));
        rope.ok_or_else(|| Stop::Unusable("the configuration describes no rotary embedding".into()))
    }

    /// Cosines and sines beside each other, against those of the configuration.
    pub(super) fn rope_table(&self, side: &Side, op: &Op, rope: usize) -> Result<Judged, Stop> {
        let rope = self.rope(rope)?;
        let (cos, positions) = self.given_table(side, op, rope)?;
        let p = cos.precision;
        let exact = table(rope, &positions);
        let found = cos.x;
        let noisy = p.apply(exact.clone());
        // Angles are products in f32, so that an error of a unit in the angle shows in cosine and sine.
        let extra = positions.iter().map(|p| 4.0 * Precision::F32.unit() * (1.0 + p)).collect::<Vec<_>>();
        let hidden = side.hidden(&cos.lead);
        let judged = judge_shown([&exact, &noisy, &found], p.unit(), &extra, &hidden);
        Ok(judged)
    }

    pub(super) fn rope_of(&self, op: &Op) -> Option<&Rope> {
        match &op.kind {
            OpKind::Attention { rope, .. } => self.config?.rope(*rope),
            OpKind::Rotate { rope } | OpKind::UnitNorm { rope, .. } => self.config?.rope(Some(*rope)),
            _ => None,
        }
    }

    /// Queries and keys that an engine's dump has after the rotation.
    pub(super) fn after_rotation(
        &self,
        side: &Side,
        op: &Op,
        tokens: usize,
    ) -> Result<Option<[Matrix; 2]>, Stop> {
        let OpKind::Attention { rotated, .. } = &op.kind else { return Ok(None) };
        let Some(form) = self.config.map(|c| &c.attention) else { return Ok(None) };
        let fits = |m: &Matrix, heads: usize| m.rows == tokens && m.cols == heads * form.key_dim;
        let [q, k] = &rotated[..] else { return Ok(None) };
        let load = |site: &Site| -> Result<Option<Matrix>, Stop> {
            let Some(value) = side.load(site).map_err(Stop::Unusable)? else { return Ok(None) };
            let cols = value.x.data.len() / tokens.max(1);
            Ok(Some(value.reshaped(cols).map_err(Stop::Unusable)?.x))
        };
        Ok(match (load(q)?, load(k)?) {
            (Some(q), Some(k)) if fits(&q, form.heads) && fits(&k, form.kv_heads) => Some([q, k]),
            _ => None,
        })
    }

    /// Cosines and sines for each token: those that the layer was given, else those of its positions.
    #[expect(clippy::too_many_arguments, reason = "one place that knows where angles may come from")]
    pub(super) fn angles(
        &self,
        side: &Side,
        op: &Op,
        rope: &Rope,
        sequences: &[Range<usize>],
        tokens: usize,
        shift: f64,
        mistake: &Mistake,
    ) -> Result<(Matrix, Matrix), Stop> {
        let half = mistake.table.as_ref().unwrap_or(rope).dims / 2;
        if shift == 0.0 && mistake.table.is_none() && !mistake.rounded {
            let given = |slot: Names, other: Names| {
                if self.config.is_some_and(|c| c.ropes.len() > 1) {
                    return Site::slot(attention_module(op), Kind::Input, slot);
                }
                Site(vec![
                    Place::new(attention_module(op), Kind::Input, slot),
                    Place::new("model.rotary_emb", Kind::Output, other),
                ])
            };
            let cos = side.load(&given(GIVEN_COS, &["0"])).map_err(Stop::Unusable)?;
            let sin = side.load(&given(GIVEN_SIN, &["1"])).map_err(Stop::Unusable)?;
            if let (Some(cos), Some(sin)) = (cos, sin)
                && cos.x.cols >= half
                && cos.x.rows > 0
                && tokens.is_multiple_of(cos.x.rows)
            {
                let spread = |m: &Matrix| {
                    let data = (0..tokens).flat_map(|t| m.row(t % m.rows)[..half].to_vec()).collect();
                    Matrix::new(tokens, half, data)
                };
                return Ok((spread(&cos.x), spread(&sin.x)));
            }
        }
        let rope = mistake.table.as_ref().unwrap_or(rope);
        let recorded = |t: usize| match &side.positions {
            // One row of positions may be all sequences'.
            Some(p) if !p.is_empty() && tokens.is_multiple_of(p.len()) => Some(p[t % p.len()] as f64),
            _ => None,
        };
        let mut positions: Vec<f64> = (0..tokens).map(|t| recorded(t).unwrap_or(0.0) + shift).collect();
        for s in sequences {
            for t in s.clone().filter(|&t| t < tokens && recorded(t).is_none()) {
                positions[t] = (t - s.start) as f64 + shift;
            }
        }
        if mistake.rounded {
            positions.iter_mut().for_each(|p| *p = rounded(*p));
        }
        let table = table(rope, &positions);
        Ok((table.columns(0..half), table.columns(half..2 * half)))
    }

    pub(super) fn table_causes(&self, side: &Side, op: &Op, rope: usize, judged: &Judged) -> Option<Cause> {
        let own = self.rope(rope).ok()?;
        let (found, at) = self.given_table(side, op, own).ok()?;
        let hidden = side.hidden(&found.lead);
        let mut tried: Vec<(String, Matrix)> = Vec::new();
        for shift in [-1.0, 1.0] {
            let moved: Vec<f64> = at.iter().map(|p| p + shift).collect();
            tried.push((format!("positions are off by {shift}"), table(own, &moved)));
        }
        let near: Vec<f64> = at.iter().map(|&p| rounded(p)).collect();
        tried.push(("positions are rounded to bf16".to_owned(), table(own, &near)));
        let others = self.config.map_or(Vec::new(), |c| other_tables(c, own));
        let back = ("the sign of the sine is flipped".to_owned(), backwards(own));
        let all = others.into_iter().chain(tables(own)).chain(std::iter::once(back));
        tried.extend(all.map(|(detail, other)| (detail, table(&other, &at))));
        let tried = tried.into_iter().filter(|(_, made)| made.cols == found.x.cols);
        best(tried.map(|(detail, made)| (None, detail, error_shown(&made, &found.x, &hidden))), judged)
    }

    /// Cosines and sines of a dump beside each other, and the positions that they are of.
    fn given_table(&self, side: &Side, op: &Op, rope: &Rope) -> Result<(Value, Vec<f64>), Stop> {
        let cos = dumped(side, &op.output)?;
        let sine =
            |p: &Place| Place { slots: if p.slots == ["0"] { &["1"] } else { GIVEN_SIN }, ..p.clone() };
        let sin = dumped(side, &Site(op.output.0.iter().map(sine).collect()))?;
        let half = rope.dims / 2;
        if cos.x.cols < half || cos.x.cols != sin.x.cols || cos.x.rows != sin.x.rows {
            return Err(Stop::Unusable(format!("{}: {} columns, expected {half}", cos.place, cos.x.cols)));
        }
        let positions = positions(side, &op.inputs[0], cos.x.rows)?;
        let x = beside(&cos.x.columns(0..half), &sin.x.columns(0..half));
        Ok((Value { x, ..cos }, positions))
    }
}

/// Rotated pairs as `(2i, 2i+1)`, from transformers' `(i, i + d/2)`, which it moves them to as it rotates them.
pub(super) fn pairs_together(x: &mut Matrix) {
    let cols = x.cols.max(1);
    for row in x.data.chunks_exact_mut(cols) {
        let moved: Vec<f64> = (0..cols).map(|c| row[c / 2 + c % 2 * (cols / 2)]).collect();
        row.copy_from_slice(&moved);
    }
}

/// The other way round.
pub(super) fn pairs_apart(x: &mut Matrix) {
    let cols = x.cols.max(1);
    for row in x.data.chunks_exact_mut(cols) {
        let half = (cols / 2).max(1);
        let moved: Vec<f64> = (0..cols).map(|c| row[c % half * 2 + c / half]).collect();
        row.copy_from_slice(&moved);
    }
}

fn positions(side: &Side, site: &Site, rows: usize) -> Result<Vec<f64>, Stop> {
    match side.integers(site).map_err(Stop::Unusable)? {
        Some((ids, _)) if ids.len() == rows => Ok(ids.iter().map(|&i| i as f64).collect()),
        _ => Ok(match &side.positions {
            Some(all) if !all.is_empty() && rows.is_multiple_of(all.len()) => {
                (0..rows).map(|i| all[i % all.len()] as f64).collect()
            }
            Some(all) if rows > 0 && all.len().is_multiple_of(rows) => {
                all[..rows].iter().map(|&p| p as f64).collect()
            }
            _ => (0..rows).map(|i| i as f64).collect(),
        }),
    }
}

pub(super) fn table(rope: &Rope, positions: &[f64]) -> Matrix {
    let rows = positions.iter().flat_map(|&p| {
        let (cos, sin) = rope.angles(p);
        cos.into_iter().chain(sin)
    });
    Matrix::new(positions.len(), rope.dims / 2 * 2, rows.collect())
}

pub(super) fn beside(a: &Matrix, b: &Matrix) -> Matrix {
    let data =
        (0..a.rows).flat_map(|r| a.row(r).iter().chain(b.row(r)).copied().collect::<Vec<_>>()).collect();
    Matrix::new(a.rows, a.cols + b.cols, data)
}

/// A value by heads as rows of tokens. Some models norm heads that are before the tokens already.
pub(super) fn tokens_before_heads(side: &Side, value: Value, heads: usize) -> Value {
    match value.lead[..] {
        [sequences, h, length] if h == heads && side.length == Some(length) && length != heads => {
            let lead = vec![sequences, length];
            Value { x: tokens_first(&value), lead, ..value }
        }
        _ => value,
    }
}

/// `[sequences, heads, length, d]` as rows of tokens.
pub(super) fn tokens_first(value: &Value) -> Matrix {
    let &[sequences, heads, length] = &value.lead[..] else { return value.x.clone() };
    let d = value.x.cols;
    let mut out = Matrix::zeros(sequences * length, heads * d);
    for (row, from) in value.x.data.chunks_exact(d.max(1)).enumerate() {
        let (s, h, t) = (row / length / heads, row / length % heads, row % length);
        out.row_mut(s * length + t)[h * d..(h + 1) * d].copy_from_slice(from);
    }
    out
}
