//! Attention: from a cache, over several sequences, in a latent space.

use super::mistakes::{Mistake, Moved, SinksMistake};
use super::rope::{pairs_apart, pairs_together, tokens_before_heads, tokens_first};
use super::{Replay, Stop, dumped, need};
use crate::triage::cache::{KEYS, VALUES, attention_module};
use crate::triage::judge::rows_of;
use crate::triage::layout::Link;
use crate::triage::side::Side;
use crate::triage::value::Value;
use accuracy_core::dtype::Overflow;
use accuracy_core::dumps::Kind;
use accuracy_core::model::config::{Attention, Mla};
use accuracy_core::model::ops::{self, Chosen, Chunk, Heads, Mask, Precision, Weights};
use accuracy_core::model::{ModelConfig, Op, OpKind, Place, QkNorm, Site};
use accuracy_core::reference::Matrix;
use accuracy_core::reference::model::RopeStyle;
use std::ops::Range;

/// Heads of tokens, and which rows are a sequence.
type Sequences = (Heads, Vec<Range<usize>>);

/// All heads, and the rows of each sequence's keys and of its queries.
type Gathered = (Heads, Vec<Range<usize>>, Vec<Range<usize>>);

impl Replay<'_> {
    pub(super) fn attention(
        &self,
        side: &Side,
        op: &Op,
        sinks: Option<&str>,
        p: Precision,
        mistake: &Mistake,
    ) -> Result<Matrix, Stop> {
        let config = self.config.ok_or_else(|| Stop::Unusable("attention needs a config.json".into()))?;
        let mut form = config.attention.clone();
        let OpKind::Attention { window, chunk, chosen, .. } = &op.kind else {
            unreachable!("asked of attention")
        };
        let (heads, sequences, queries) = if side.layout.is_some() {
            self.gathered(side, op, config, p, mistake)?
        } else {
            // A step that continues others attends to their keys and values.
            let first = side.oldest();
            let mut parts = Vec::new();
            if first.continues() {
                match self.cached(first, op, config)? {
                    Some(earlier) => parts.push(earlier),
                    None => self.starts(first, op, config)?,
                }
            }
            let mut start =
                parts.first().map_or(Vec::new(), |(_, ranges)| ranges.iter().map(Range::len).collect());
            for step in side.history.iter().chain([side]) {
                let part = self.heads(step, op, config, &start, p, mistake)?;
                start.resize(part.1.len(), 0);
                start.iter_mut().zip(&part.1).for_each(|(start, range)| *start += range.len());
                parts.push(part);
            }
            let queries = parts[parts.len() - 1].1.clone();
            let (heads, sequences) = join(parts)?;
            (heads, sequences, queries)
        };
        let padding = side.padding(heads.k.rows);
        let chunk = mistake.chunk.unwrap_or(*chunk);
        let first = match chunk {
            None => Vec::new(),
            Some(_) => first_keys(side, &sequences, &queries, &padding)?,
        };
        let padding = match mistake.padding {
            Some(wrong) => wrong.of(&padding, &sequences),
            None => padding,
        };
        let chosen = match chosen.as_ref().filter(|_| !mistake.unchosen) {
            Some(site) => self.chosen_keys(side, site, &sequences, heads.q.rows)?,
            None => None,
        };
        form.scale *= mistake.scale;
        let mask = Mask {
            sequences: &sequences,
            queries: &queries,
            causal: form.causal && !mistake.not_causal,
            window: mistake.window.unwrap_or(*window),
            chunk: chunk.map(|size| Chunk { size, first: &first }),
            padding: &padding,
            chosen: chosen.as_ref().map(|(each, keys)| Chosen { each: *each, keys }),
            strict: mistake.strict,
        };
        let mut sinks = sinks.map(|s| Weights(self.checkpoint).vector(s)).transpose()?;
        match (mistake.sinks, &mut sinks) {
            (Some(SinksMistake::Missing), _) => sinks = None,
            (Some(SinksMistake::Rolled(by)), Some(all)) if by < all.len() => all.rotate_left(by),
            (Some(SinksMistake::Scaled), Some(all)) => all.iter_mut().for_each(|s| *s *= form.scale),
            (Some(SinksMistake::Binary), Some(all)) => {
                all.iter_mut().for_each(|s| *s *= std::f64::consts::LN_2);
            }
            _ => {}
        }
        if mistake.no_cap {
            form.cap = None;
        }
        let mut heads = heads;
        for (x, (by, d)) in [&mut heads.q, &mut heads.k, &mut heads.v]
            .into_iter()
            .zip(mistake.rolled.into_iter().zip([form.key_dim, form.key_dim, form.value_dim]))
        {
            if by > 0 {
                *x = Moved::Rolled(by * d).of(x);
            }
        }
        if let Some((format, [keys, values])) = mistake.cache {
            let stored = |x: f64| format.decode(format.encode(x, Overflow::Saturate));
            if keys {
                heads.k = heads.k.map(stored);
            }
            if values {
                heads.v = heads.v.map(stored);
            }
        }
        Ok(ops::attention(&heads, &form, &mask, sinks.as_deref(), mistake.tiled, p))
    }

    /// The keys that each query sees, and how many these are. None where all positions are few enough to be chosen.
    fn chosen_keys(
        &self,
        side: &Side,
        site: &Site,
        sequences: &[Range<usize>],
        queries: usize,
    ) -> Result<Option<(usize, Vec<i64>)>, Stop> {
        let longest = sequences.iter().map(Range::len).max().unwrap_or(0);
        let most = self.config.and_then(|c| c.attention.indexer).map_or(0, |indexer| indexer.topk);
        match side.integers(site).map_err(Stop::Unusable)? {
            Some((keys, shape)) => {
                let each = shape.last().copied().unwrap_or(0);
                if keys.len() != each * queries {
                    return Err(Stop::Unusable(format!("{} chosen keys of {queries} queries", keys.len())));
                }
                Ok(Some((each, keys)))
            }
            None if longest <= most => Ok(None),
            None => Err(Stop::Missing("the chosen positions".to_owned())),
        }
    }

    /// Heads of a step of an engine, whose sequences follow each other in one row, with the keys and values of their
    /// earlier tokens: all rows, and those of each sequence's keys and of its queries.
    fn gathered(
        &self,
        side: &Side,
        op: &Op,
        config: &ModelConfig,
        p: Precision,
        mistake: &Mistake,
    ) -> Result<Gathered, Stop> {
        let layout = side.layout.as_ref().ok_or(Stop::NoCache)?;
        let chains: Vec<&Vec<Link>> =
            side.chains.iter().map(|c| c.as_ref().ok_or(Stop::NoCache)).collect::<Result<_, _>>()?;
        let own = self.heads(side, op, config, &[], p, mistake)?.0;
        if own.q.rows < layout.tokens() || own.k.rows < layout.tokens() {
            return Err(Stop::Unusable(format!("{} queries of {} tokens", own.q.rows, layout.tokens())));
        }
        let mut earlier: Vec<Option<Heads>> = Vec::new();
        for (i, step) in side.history.iter().enumerate() {
            let used = chains.iter().any(|links| links.iter().any(|link| link.0 == i));
            let heads = used.then(|| self.heads(step, op, config, &[], p, mistake)).transpose()?;
            earlier.push(heads.map(|h| h.0));
        }
        let (mut k, mut v) = (Vec::new(), Vec::new());
        let (mut keys, mut queries) = (Vec::new(), Vec::new());
        let mut count = 0;
        let mut take = |heads: &Heads, rows: Range<usize>| {
            count += rows.len();
            for row in rows {
                k.extend_from_slice(heads.k.row(row));
                v.extend_from_slice(heads.v.row(row));
            }
            count
        };
        let mut start = 0;
        for (sequence, links) in layout.sequences.iter().zip(chains) {
            for (step, rows) in links {
                let Some(heads) = earlier[*step].as_ref().filter(|h| rows.end <= h.k.rows) else {
                    return Err(Stop::NoCache);
                };
                take(heads, rows.clone());
            }
            let end = take(&own, sequence.rows.clone());
            keys.push(start..end);
            queries.push(sequence.rows.clone());
            start = end;
        }
        let (k, v) = (Matrix::new(start, own.k.cols, k), Matrix::new(start, own.v.cols, v));
        Ok((Heads { q: own.q, k, v }, keys, queries))
    }

    /// Keys and values that the cache had before a step, as accuracy_dump.py writes them: `[sequences, heads, length, d]`.
    /// Of latent attention these are latents and rotated parts; the keys and values made of them are `kv_b_proj`'s.
    fn cached(&self, side: &Side, op: &Op, config: &ModelConfig) -> Result<Option<Sequences>, Stop> {
        let form = &config.attention;
        let load = |slots: &'static [&'static str]| {
            let place = Place::new(attention_module(op), Kind::Input, slots);
            side.load(&Site(vec![place])).map_err(Stop::Unusable)
        };
        let (Some(k), Some(v)) = (load(KEYS)?, load(VALUES)?) else { return Ok(None) };
        let (&[sequences, _, length], true) = (&k.lead[..], k.lead == v.lead) else {
            return Err(Stop::Unusable(format!("{} {:?}, {} {:?}", k.place, k.lead, v.place, v.lead)));
        };
        let ranges: Vec<Range<usize>> = (0..sequences).map(|s| s * length..(s + 1) * length).collect();
        let q = Matrix::zeros(0, form.heads * form.key_dim);
        let (k, v) = match form.mla {
            None => (tokens_first(&k), tokens_first(&v)),
            Some(mla) => {
                let kv = need(side, &op.inputs[1], Precision::Exact)?;
                let kv = kv.reshaped(form.heads * (mla.nope + form.value_dim)).map_err(Stop::Unusable)?.x;
                let own = own_rows(&kv, &ranges, &[])?;
                let mut rotated = tokens_first(&v);
                if self.rope_of(op).is_some_and(|r| r.style == RopeStyle::GptJ) {
                    pairs_together(&mut rotated);
                }
                expanded(form, mla, &rows_of(&kv, &own), &rotated)?
            }
        };
        let wide = |m: &Matrix, d: usize| m.cols == form.kv_heads * d;
        if !wide(&k, form.key_dim) || !wide(&v, form.value_dim) {
            return Err(Stop::Unusable(format!("a cache of {} and {} columns", k.cols, v.cols)));
        }
        Ok(Some((Heads { q, k, v }, ranges)))
    }

    /// Whether a step's tokens have none before them, though their positions do not begin at 0: by its mask `[.., queries,
    /// keys]`, or by the keys that latent attention makes. Where neither tells, it is supposed.
    fn starts(&self, side: &Side, op: &Op, config: &ModelConfig) -> Result<(), Stop> {
        let mask = side.shape(&Place::new(attention_module(op), Kind::Input, &["attention_mask"]));
        if let Some(&[.., queries, keys]) = mask {
            return if queries == keys { Ok(()) } else { Err(Stop::NoCache) };
        }
        if let Some(mla) = config.attention.mla {
            let width = config.attention.heads * (mla.nope + config.attention.value_dim);
            let rows = |site: &Site, width: usize| {
                let value = side.load(site).map_err(Stop::Unusable)?;
                Ok::<_, Stop>(value.map(|v| v.x.data.len() / width))
            };
            let keys = rows(&op.inputs[1], width)?;
            if let (Some(keys), Some(tokens)) = (keys, rows(&op.inputs[2], mla.kv_lora + mla.rope)?) {
                return if keys == tokens { Ok(()) } else { Err(Stop::NoCache) };
            }
        }
        side.suppose_alone();
        Ok(())
    }

    /// Rotated queries and keys, and values, of one step; and the rows of each sequence. `start`: how many tokens each
    /// sequence has before it, none where it is empty.
    fn heads(
        &self,
        side: &Side,
        op: &Op,
        config: &ModelConfig,
        start: &[usize],
        p: Precision,
        mistake: &Mistake,
    ) -> Result<(Heads, Vec<Range<usize>>), Stop> {
        let form = &config.attention;
        let q = tokens_before_heads(side, need(side, &op.inputs[0], p)?, form.heads);
        let token = Value { lead: q.lead.clone(), ..q.clone() };
        let mut q = q.reshaped(form.heads * form.key_dim).map_err(Stop::Unusable)?.x;
        let tokens = q.rows;
        let lead = match token.lead[..] {
            // `[sequences, length, heads]` of a norm by heads.
            [a, b, heads] if heads == form.heads => vec![a, b],
            _ => token.lead.clone(),
        };
        let sequences = side.sequences(&Value { lead, ..token });
        let own = self.rope_of(op);
        let style = mistake.style.or(own.map(|r| r.style)).unwrap_or(RopeStyle::Neox);
        let style_k = mistake.style_k.unwrap_or(style);
        let turn = |x: &mut Matrix, d: usize, range: Range<usize>, shift: f64, style| -> Result<(), Stop> {
            let Some(rope) = own else { return Ok(()) };
            let (cos, sin) = self.angles(side, op, rope, &sequences, tokens, shift, mistake)?;
            let (cos, sin) = (p.apply(cos), p.apply(sin));
            if cos.cols < range.len() / 2 {
                return Err(Stop::Unusable(format!("{} angles for {} elements", cos.cols, range.len())));
            }
            ops::rotate(x, d, range, (&cos, &sin), style, p);
            Ok(())
        };
        let done = self.after_rotation(side, op, tokens)?;
        let Some(mla) = form.mla else {
            let read = |i: usize, d: usize| -> Result<Matrix, Stop> {
                let value = tokens_before_heads(side, need(side, &op.inputs[i], p)?, form.kv_heads);
                let value = value.reshaped(form.kv_heads * d).map_err(Stop::Unusable)?;
                match value.x.rows == tokens {
                    true => Ok(value.x),
                    false => Err(Stop::Unusable(format!(
                        "{}: {} rows, expected {tokens}",
                        value.place, value.x.rows
                    ))),
                }
            };
            let v = read(2, form.value_dim)?;
            if let Some([q, k]) = done {
                return Ok((Heads { q, k, v }, sequences));
            }
            let mut k = read(1, form.key_dim)?;
            let dims = mistake.table.as_ref().or(own).map_or(0, |r| r.dims);
            let part = mistake.part(dims, form.key_dim);
            if mistake.norm_last {
                (q, k) =
                    (self.before_norm(side, op, "q_norm", &q)?, self.before_norm(side, op, "k_norm", &k)?);
            }
            if mistake.rotate_q {
                turn(&mut q, form.key_dim, part.clone(), mistake.q_shift, style)?;
            }
            if mistake.rotate_k {
                turn(&mut k, form.key_dim, part, 0.0, style_k)?;
            }
            if mistake.norm_last {
                (q, k) = (self.normed(op, "q_norm", &q, p)?, self.normed(op, "k_norm", &k, p)?);
            }
            if form.qk_norm == QkNorm::Unit && own.is_some() && !mistake.no_unit_norm {
                let ones = vec![1.0; form.key_dim];
                q = ops::norm(&q, &ones, None, config.norm_eps, p);
                k = ops::norm(&k, &ones, None, config.norm_eps, p);
            }
            if let Some(temperature) = form.temperature.filter(|_| own.is_none() && !mistake.no_temperature) {
                let shift = mistake.q_shift;
                let positions = counted(side, &sequences, start, tokens);
                for (row, position) in positions.into_iter().enumerate() {
                    let factor = temperature.at(position + shift);
                    q.row_mut(row).iter_mut().for_each(|v| *v = p.round(*v * factor));
                }
            }
            return Ok((Heads { q, k, v }, sequences));
        };
        let kv = match need(side, &op.inputs[1], p) {
            // What attends to latents expands nothing: of an earlier step it is computed from the latents here.
            Err(Stop::Missing(_)) => {
                let module = attention_module(op);
                let latents = dumped(side, &Site::output(format!("{module}.kv_a_layernorm")))?;
                let latents = latents.reshaped(mla.kv_lora).map_err(Stop::Unusable)?.x;
                Weights(self.checkpoint).linear(&format!("{module}.kv_b_proj"), &latents, p)?.y
            }
            found => {
                let width = form.heads * (mla.nope + form.value_dim);
                found?.reshaped(width).map_err(Stop::Unusable)?.x
            }
        };
        let latent =
            need(side, &op.inputs[2], p)?.reshaped(mla.kv_lora + mla.rope).map_err(Stop::Unusable)?.x;
        if latent.rows != tokens || kv.rows < tokens {
            return Err(Stop::Unusable(format!("{tokens} queries, {} keys", kv.rows)));
        }
        // Rows behind the last token are a graph's of a fixed size.
        let own = match kv.rows == tokens {
            true => (0..tokens).collect(),
            false => own_rows(&kv, &sequences, start)?,
        };
        let mut rotated = latent.columns(mla.kv_lora..mla.kv_lora + mla.rope);
        let d = form.key_dim;
        if mistake.rotate_q {
            turn(&mut q, d, mla.nope..d, mistake.q_shift, style)?;
        }
        if mistake.rotate_k {
            turn(&mut rotated, mla.rope, 0..mla.rope, 0.0, style_k)?;
            if style_k != style {
                // Scores take elements of queries and keys in one order.
                match style {
                    RopeStyle::GptJ => pairs_together(&mut rotated),
                    RopeStyle::Neox => pairs_apart(&mut rotated),
                }
            }
        }
        let (k, v) = expanded(form, mla, &rows_of(&kv, &own), &rotated)?;
        Ok((Heads { q, k, v }, sequences))
    }

    /// Queries or keys before their norm, shaped like those after it.
    fn before_norm(&self, side: &Side, op: &Op, norm: &str, like: &Matrix) -> Result<Matrix, Stop> {
        let value = dumped(side, &Site::input(format!("{}.{norm}", attention_module(op))))?;
        let value = value.reshaped(like.cols).map_err(Stop::Unusable)?;
        if value.x.rows == like.rows { Ok(value.x) } else { Err(Stop::Missing(format!("{norm} input"))) }
    }

    /// The norm of queries or keys.
    fn normed(&self, op: &Op, norm: &str, x: &Matrix, p: Precision) -> Result<Matrix, Stop> {
        let config = self.config.ok_or_else(|| Stop::Unusable("a norm needs a config.json".into()))?;
        let mut w = Weights(self.checkpoint).vector(&format!("{}.{norm}", attention_module(op)))?;
        if config.form.one_plus {
            w.iter_mut().for_each(|w| *w += 1.0);
        }
        if w.is_empty() || !x.cols.is_multiple_of(w.len()) {
            return Err(Stop::Unusable(format!("{norm} has {} values", w.len())));
        }
        Ok(ops::norm(x, &w, None, config.norm_eps, p))
    }
}

/// The position of each token: as an engine records it, else counted from its sequence's first row.
fn counted(side: &Side, sequences: &[Range<usize>], start: &[usize], tokens: usize) -> Vec<f64> {
    let recorded = side.positions.as_ref().filter(|p| side.layout.is_some() && p.len() == tokens);
    let mut all: Vec<f64> = (0..tokens).map(|t| recorded.map_or(0.0, |p| p[t] as f64)).collect();
    if recorded.is_none() {
        for (number, sequence) in sequences.iter().enumerate() {
            let before = start.get(number).copied().unwrap_or(0);
            for t in sequence.clone().filter(|&t| t < tokens) {
                all[t] = (before + t - sequence.start) as f64;
            }
        }
    }
    all
}

/// Where the first key of each sequence is, counted from the sequence's first token. A cache may have left out the first
/// ones; padding is before the first token.
fn first_keys(
    side: &Side,
    sequences: &[Range<usize>],
    queries: &[Range<usize>],
    padding: &[bool],
) -> Result<Vec<i64>, Stop> {
    let of_rows = side.positions.as_ref().filter(|p| !p.is_empty());
    let shared = of_rows.is_some_and(|p| queries.iter().all(|q| q.len() == p.len()));
    sequences
        .iter()
        .zip(queries)
        .map(|(keys, own)| {
            let before = keys.clone().take_while(|&row| padding.get(row).copied().unwrap_or(false)).count();
            if !padding.is_empty() {
                return Ok(-(before as i64));
            }
            let at = if shared { 0 } else { own.start };
            match of_rows.and_then(|p| p.get(at)) {
                Some(position) => Ok(position - (keys.len() - own.len()) as i64),
                None if side.continues() => Err(Stop::NoCache),
                None => Ok(0),
            }
        })
        .collect()
}

/// The rows of latent attention's expanded keys and values that are of a step's tokens. With a cache, transformers
/// expands the latents of all positions again, and of a static one its empty places, too.
fn own_rows(kv: &Matrix, sequences: &[Range<usize>], start: &[usize]) -> Result<Vec<usize>, Stop> {
    let tokens = sequences.iter().map(Range::len).sum::<usize>();
    if kv.rows == tokens {
        return Ok((0..tokens).collect());
    }
    let per = kv.rows / sequences.len().max(1);
    let start = |s: usize| start.get(s).copied().unwrap_or(0);
    if kv.rows != per * sequences.len() || sequences.iter().enumerate().any(|(s, r)| start(s) + r.len() > per)
    {
        return Err(Stop::Unusable(format!("{tokens} queries, {} keys", kv.rows)));
    }
    let rows =
        sequences.iter().enumerate().flat_map(|(s, r)| s * per + start(s)..s * per + start(s) + r.len());
    Ok(rows.collect())
}

/// Keys and values of all heads from latent attention's: the part that is not rotated from `kv`, the rotated one the same
/// for all heads.
fn expanded(form: &Attention, mla: Mla, kv: &Matrix, rotated: &Matrix) -> Result<(Matrix, Matrix), Stop> {
    let (d, width) = (form.key_dim, mla.nope + form.value_dim);
    if rotated.rows != kv.rows || rotated.cols != mla.rope {
        return Err(Stop::Unusable(format!(
            "{}x{} rotated keys for {} tokens of {}",
            rotated.rows, rotated.cols, kv.rows, mla.rope
        )));
    }
    let mut k = Matrix::zeros(kv.rows, form.heads * d);
    let mut v = Matrix::zeros(kv.rows, form.heads * form.value_dim);
    for t in 0..kv.rows {
        for h in 0..form.heads {
            let from = &kv.row(t)[h * width..(h + 1) * width];
            let key = &mut k.row_mut(t)[h * d..(h + 1) * d];
            key[..mla.nope].copy_from_slice(&from[..mla.nope]);
            key[mla.nope..].copy_from_slice(rotated.row(t));
            let values = &mut v.row_mut(t)[h * form.value_dim..(h + 1) * form.value_dim];
            values.copy_from_slice(&from[mla.nope..]);
        }
    }
    Ok((k, v))
}

/// Keys and values of the steps of a generation one after the other in each sequence, with the queries of the last step;
/// and the rows of each sequence's keys.
fn join(parts: Vec<Sequences>) -> Result<Sequences, Stop> {
    let [.., (last, queries)] = &parts[..] else { unreachable!("a step at least") };
    if parts.iter().any(|p| p.1.len() != queries.len()) {
        return Err(Stop::Unusable("steps of one generation with different numbers of sequences".to_owned()));
    }
    let (mut sequences, mut order) = (Vec::new(), Vec::new());
    for s in 0..queries.len() {
        let start = order.len();
        for (step, (_, ranges)) in parts.iter().enumerate() {
            order.extend(ranges[s].clone().map(|row| (step, row)));
        }
        sequences.push(start..order.len());
    }
    let gather = |of: &dyn Fn(&Heads) -> &Matrix| {
        let cols = of(last).cols;
        let data = order.iter().flat_map(|&(step, row)| of(&parts[step].0).row(row).to_vec()).collect();
        Matrix::new(order.len(), cols, data)
    };
    Ok((Heads { q: last.q.clone(), k: gather(&|h| &h.k), v: gather(&|h| &h.v) }, sequences))
}
