//! One of the two dumps: finding a value of the plan in it, ranks merged and summands added. How tokens lie in it is
//! [`layout`](super::layout)'s, how ranks share a value [`ranks`](super::ranks)'.

use super::layout::{Layout, Link, chains};
use super::ranks::merge;
use super::value::{Found, Held, Narrow, Value, lead};
use accuracy_core::dumps::{DumpSet, DumpTensor, Element, Kind, Rank, TensorData, TensorId};
use accuracy_core::model::ops::Precision;
use accuracy_core::model::place::Names;
use accuracy_core::model::{Op, OpKind, Place, Site};
use accuracy_core::reference::Matrix;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// A dump, at one step.
#[derive(Debug)]
pub struct Side {
    pub set: Arc<DumpSet>,
    pub step: Option<u64>,
    index: HashMap<(String, Kind, usize), Vec<usize>>,
    /// Token ids that it is asked for in place of the dump's.
    ids: Option<Vec<i64>>,
    /// Positions of the step's tokens, where they are recorded.
    pub positions: Option<Vec<i64>>,
    /// A recorded mask `[sequences, length]` of all that is attended to, 0 where nothing is to be seen, and its shape.
    pub mask: Option<(Vec<i64>, [usize; 2])>,
    /// The step's tokens that are padding.
    hidden: Hidden,
    /// Tokens of each sequence in this step.
    pub length: Option<usize>,
    /// How the tokens of sequences that follow each other in one row lie; `None`: they have a dimension of their own.
    pub layout: Option<Layout>,
    /// Of each sequence of the layout, where its earlier tokens are; `None` where they are not in the dump.
    pub chains: Vec<Option<Vec<Link>>>,
    /// Rows of tokens in the order in which both dumps have them, and how many rows there are; `None`: as they are.
    order: Option<(Vec<usize>, usize)>,
    /// The steps before it whose keys and values are still in the cache, the first one first.
    pub history: Vec<Side>,
    /// The format that the model computes in, where a value that is not dumped does not show it.
    pub precision: Precision,
    made: RefCell<Chain>,
}

/// Tokens of one step that a mask hides: what a model makes of them has no right answer.
#[derive(Debug, Default)]
struct Hidden {
    /// Of all tokens, `[sequences, length]`; empty for none.
    tokens: Vec<bool>,
    /// Of all that is attended to, the cache's tokens and the step's.
    attended: Vec<bool>,
    sequences: usize,
}

/// Values of one layer that are not in the dump, computed from those that are.
#[derive(Debug, Default)]
struct Chain {
    values: HashMap<(String, Kind, &'static str, usize), Rc<Made>>,
    /// What the operation that is being replayed has taken of them.
    used: Vec<Rc<Made>>,
    /// The operation was replayed as if nothing came before the step's tokens, which the dump does not show.
    alone: bool,
}

#[derive(Debug)]
struct Made {
    exact: Matrix,
    noisy: Matrix,
    lead: Vec<usize>,
    /// Relative error of the worst row from accumulation in f32.
    extra: f64,
    /// Operations that it took, by their numbers in the plan; copies are not counted.
    ops: BTreeSet<usize>,
    /// Tokens for which rounding decides it; empty for none.
    undecided: Vec<bool>,
}

/// What a replay computed for a value that is not in the dump.
#[derive(Debug)]
pub struct Computed {
    pub exact: Matrix,
    pub noisy: Matrix,
    pub extra: Vec<f64>,
    pub undecided: Vec<bool>,
}

/// A value that is read a few rows at a time: it need not fit in memory.
#[derive(Debug)]
pub struct View {
    source: Source,
    /// Rows that are read as zeros; empty for none.
    hidden: Vec<bool>,
    /// The rows that are read, where these are not all of them in their order.
    order: Option<Vec<usize>>,
    pub rows: usize,
    pub cols: usize,
    /// Where it is, for people.
    pub place: String,
}

#[derive(Debug)]
enum Source {
    /// A tensor of the dump, and one that is added to it.
    Mapped(TensorData, Option<TensorData>),
    Whole(Value),
}

/// Values that are read at a time to find their format.
const PANEL: usize = 1 << 16;

impl View {
    fn whole(value: Value) -> View {
        let (rows, cols, place) = (value.x.rows, value.x.cols, value.place.clone());
        View { source: Source::Whole(value), hidden: Vec::new(), order: None, rows, cols, place }
    }

    /// Decodes some rows into `out`, which is overwritten. Rows of padding are zeros.
    pub fn read(&self, rows: Range<usize>, out: &mut Vec<f64>) {
        let Some(order) = &self.order else { return self.read_as_stored(rows, out) };
        let mut row: Vec<f64> = Vec::new();
        out.clear();
        for &at in &order[rows] {
            self.read_as_stored(at..at + 1, &mut row);
            out.extend_from_slice(&row);
        }
    }

    fn read_as_stored(&self, rows: Range<usize>, out: &mut Vec<f64>) {
        match &self.source {
            Source::Mapped(data, plus) => {
                data.read(rows.clone(), out);
                if let Some(plus) = plus {
                    let mut second: Vec<f64> = Vec::new();
                    plus.read(rows.clone(), &mut second);
                    out.iter_mut().zip(&second).for_each(|(a, b)| *a += b);
                }
            }
            Source::Whole(value) => {
                out.clear();
                out.extend_from_slice(&value.x.data[rows.start * self.cols..rows.end * self.cols]);
            }
        }
        for row in rows.clone().filter(|&row| self.hidden.get(row).copied().unwrap_or(false)) {
            let at = (row - rows.start) * self.cols;
            out[at..at + self.cols].fill(0.0);
        }
    }

    /// Whether a row is of padding.
    pub fn is_hidden(&self, row: usize) -> bool {
        let row = self.order.as_ref().map_or(row, |order| order[row]);
        self.hidden.get(row).copied().unwrap_or(false)
    }

    /// These rows of it alone.
    pub fn picked(mut self, rows: &[usize]) -> View {
        let picked = rows.iter().map(|&r| self.order.as_ref().map_or(r, |order| order[r])).collect();
        self.order = Some(picked);
        self.rows = rows.len();
        self
    }

    /// The narrowest format that holds all of it.
    pub fn precision(&self) -> Precision {
        let data = match &self.source {
            Source::Whole(value) => return value.precision,
            Source::Mapped(data, _) => data,
        };
        let mut narrow = Narrow::new(data.element());
        let mut values: Vec<f64> = Vec::new();
        for rows in data.panels(PANEL) {
            if narrow.decided() {
                break;
            }
            data.read(rows, &mut values);
            narrow.look(&values);
        }
        narrow.precision()
    }

    /// The same values as rows of `cols` columns.
    pub fn reshaped(self, cols: usize) -> Result<View, String> {
        if self.cols == cols {
            return Ok(self);
        }
        let mut data = Vec::new();
        self.read(0..self.rows, &mut data);
        let precision = self.precision();
        let x = Matrix::new(self.rows, self.cols, data);
        Value::new(x, Vec::new(), precision, self.place).reshaped(cols).map(View::whole)
    }
}

impl Side {
    /// With the steps before it, back to the one that starts at position 0.
    pub fn new(set: &Arc<DumpSet>, step: Option<u64>) -> Side {
        let mut side = Side::at_step(set.clone(), step);
        side.remember();
        side
    }

    /// Looks for the steps before it whose keys and values it attends to.
    fn remember(&mut self) {
        let step = self.step;
        let mut earlier: Vec<Option<u64>> = self.set.steps().into_iter().filter(|s| *s < step).collect();
        let mut history: Vec<Side> = Vec::new();
        if self.layout.is_some() {
            while self.open_chains(&history)
                && let Some(step) = earlier.pop()
            {
                history.push(Side::at_step(self.set.clone(), step));
            }
            history.reverse();
            self.link(&history);
        } else {
            let mut oldest = &*self;
            while oldest.continues() {
                let Some(step) = earlier.pop() else { break };
                history.push(Side::at_step(self.set.clone(), step));
                oldest = &history[history.len() - 1];
            }
            history.reverse();
        }
        self.history = history;
    }

    /// Whether some sequence has tokens before those in the steps, the latest first.
    fn open_chains(&self, latest_first: &[Side]) -> bool {
        let layouts: Vec<&Layout> = latest_first.iter().rev().filter_map(|s| s.layout.as_ref()).collect();
        self.layout.clone().is_some_and(|mut own| chains(&mut own, &layouts).contains(&None))
    }

    fn link(&mut self, history: &[Side]) {
        // Sequences that are one token each cannot be told from one by positions alone: the steps before tell.
        let empty = Layout::default();
        let layouts: Vec<&Layout> = history.iter().map(|s| s.layout.as_ref().unwrap_or(&empty)).collect();
        if let Some(own) = &mut self.layout {
            self.chains = chains(own, &layouts);
        }
    }

    /// The first of the steps that it is computed of.
    pub fn oldest(&self) -> &Side {
        self.history.first().unwrap_or(self)
    }

    /// Whether no token is a sequence's first.
    pub fn continues(&self) -> bool {
        if let Some(layout) = &self.layout {
            return layout.sequences.iter().any(|s| s.start > 0);
        }
        self.positions.as_ref().and_then(|p| p.iter().min()).is_some_and(|&p| p > 0)
    }

    /// Some rows at the end are no tokens: a graph of a fixed size has them.
    pub fn cut(&mut self, tokens: usize) {
        if let Some(layout) = &mut self.layout {
            layout.cut(tokens);
            self.hide_rest();
            self.remember();
        }
    }

    /// Hides rows behind the last token.
    fn hide_rest(&mut self) {
        let Some(layout) = self.layout.as_ref().filter(|l| l.tokens() < l.rows) else { return };
        let tokens = (0..layout.rows).map(|row| row >= layout.tokens()).collect();
        self.hidden = Hidden { tokens, attended: Vec::new(), sequences: 0 };
    }

    /// From now on rows of tokens are read in this order, and the others are not.
    pub fn arrange(&mut self, rows: Vec<usize>, of: usize) {
        self.order = Some((rows, of));
    }

    /// The tokens of each sequence and their rows, without padding.
    pub fn by_sequence(&self) -> Found<Vec<(Vec<i64>, Vec<usize>)>> {
        let Some(ids) = self.tokens()? else { return Ok(None) };
        let ranges: Vec<Range<usize>> = match &self.layout {
            Some(layout) => layout.sequences.iter().map(|s| s.rows.clone()).collect(),
            None => {
                let lengths = self.lists();
                let per = self.length.filter(|&n| n > 0 && ids.len().is_multiple_of(n)).unwrap_or(ids.len());
                let lengths = match lengths.iter().sum::<usize>() == ids.len() {
                    true => lengths,
                    false => vec![per; ids.len() / per.max(1)],
                };
                let mut at = 0;
                lengths
                    .into_iter()
                    .map(|n| {
                        at += n;
                        at - n..at
                    })
                    .collect()
            }
        };
        let hidden = |row: usize| self.hidden.tokens.get(row).copied().unwrap_or(false);
        let shown = |range: Range<usize>| -> (Vec<i64>, Vec<usize>) {
            range.filter(|&row| !hidden(row)).filter_map(|row| Some((*ids.get(row)?, row))).unzip()
        };
        Ok(Some(ranges.into_iter().map(shown).collect()))
    }

    /// Rows of a value in the order of both dumps, if it has rows for all tokens.
    fn ordered(&self, view: View) -> View {
        match &self.order {
            Some((order, of)) if view.rows > 0 && view.rows.is_multiple_of(*of) => {
                let each = view.rows / of;
                let rows: Vec<usize> = order.iter().flat_map(|&t| t * each..(t + 1) * each).collect();
                view.picked(&rows)
            }
            _ => view,
        }
    }

    /// How many ranks share the model's values.
    pub fn ranks(&self) -> usize {
        let mut all: BTreeSet<Rank> = BTreeSet::new();
        all.extend(self.index.values().flatten().map(|&i| self.set.tensors[i].id.rank));
        all.len()
    }

    /// The last row of each sequence among the ordered ones.
    pub fn ends(&self) -> Vec<usize> {
        let sequences = self.by_sequence().ok().flatten().unwrap_or_default();
        let ends = sequences.iter().filter_map(|(_, rows)| rows.last().copied());
        match &self.order {
            None => ends.collect(),
            Some((order, _)) => ends.filter_map(|end| order.iter().position(|&r| r == end)).collect(),
        }
    }

    /// Nothing but tokens, of sequences that follow each other in one row: all else is to be computed.
    pub fn alone(&self, ids: Vec<i64>, lengths: &[usize]) -> Side {
        let positions: Vec<i64> = lengths.iter().flat_map(|&n| 0..n as i64).collect();
        let layout = Layout::of(&positions, lengths);
        Side {
            set: self.set.clone(),
            step: self.step,
            index: HashMap::new(),
            ids: Some(ids),
            positions: Some(positions),
            mask: None,
            hidden: Hidden::default(),
            length: None,
            chains: vec![Some(Vec::new()); lengths.len()],
            layout: Some(layout),
            order: None,
            history: Vec::new(),
            precision: self.precision,
            made: RefCell::default(),
        }
    }

    /// Forgets what was made but for one value.
    pub fn keep_only(&self, site: &Site) {
        let chain = &mut *self.made.borrow_mut();
        let kept: Vec<_> = site.0.iter().map(key).collect();
        chain.values.retain(|key, _| kept.contains(key));
        chain.used.clear();
    }

    fn at_step(set: Arc<DumpSet>, step: Option<u64>) -> Side {
        // Ranks that have other requests are another model's replica: of these the first is looked at.
        let ids = |rank: Rank| set.token_ids(step, rank).ok().flatten();
        let all = set.ranks();
        let first = all.iter().find_map(|&rank| ids(rank));
        let other = |rank: &Rank| matches!((ids(*rank), &first), (Some(own), Some(first)) if own != *first);
        let ours: BTreeSet<Rank> = all.iter().copied().filter(|rank| !other(rank)).collect();
        let mut index: HashMap<(String, Kind, usize), Vec<usize>> = HashMap::new();
        for (i, t) in set.tensors.iter().enumerate() {
            if t.id.step == step && ours.contains(&t.id.rank) {
                index.entry((t.id.module.clone(), t.id.kind, t.id.call)).or_default().push(i);
            }
        }
        let mut side = Side {
            set,
            step,
            index,
            ids: None,
            positions: None,
            mask: None,
            hidden: Hidden::default(),
            length: None,
            layout: None,
            chains: Vec::new(),
            order: None,
            history: Vec::new(),
            precision: Precision::BF16,
            made: RefCell::default(),
        };
        let places = [
            ("model.rotary_emb", ["position_ids", "1"].as_slice()),
            ("model", &["position_ids", "positions", "1"]),
            ("", &["position_ids", "positions", "1"]),
            ("model.language_model", &["position_ids", "positions", "1"]),
            ("model.layers.0", &["positions", "0", "position_ids"]),
            ("language_model.model.rotary_emb", &["position_ids", "1"]),
            ("language_model.model", &["position_ids", "positions", "1"]),
            ("model.layers.0.self_attn", &["positions", "0"]),
            ("model.layers.0.self_attn.rotary_emb", &["0"]),
        ];
        let places = places.map(|(m, slots)| Place::new(m, Kind::Input, slots));
        let positions = side.integers(&Site(places.to_vec())).ok().flatten();
        if let Some((at, [_])) = positions.as_ref().map(|(at, shape)| (at, &shape[..])) {
            side.layout = Some(Layout::of(at, &side.lengths(at.len())));
            side.hide_rest();
        }
        let length = positions.as_ref().filter(|p| p.1.len() == 2).map(|p| p.1[1]);
        side.length = length.or_else(|| side.lists().first().copied());
        side.positions = positions.map(|found| found.0);
        let places = ["model", "", "encoder"].map(|m| Place::new(m, Kind::Input, &["attention_mask"]));
        if let Ok(Some((mask, shape))) = side.integers(&Site(places.to_vec()))
            && let Ok(shape) = <[usize; 2]>::try_from(shape)
        {
            side.hide(mask, shape);
        }
        side
    }

    /// Takes a mask of the same question: 0 where nothing is to be seen.
    pub fn hide(&mut self, mask: Vec<i64>, [sequences, columns]: [usize; 2]) {
        let length = self.length.unwrap_or(columns);
        if columns == 0 || length > columns {
            return;
        }
        let attended: Vec<bool> = mask.iter().map(|&m| m == 0).collect();
        // The step's tokens are the end of what is attended to.
        let tokens: Vec<bool> =
            attended.chunks(columns).flat_map(|row| &row[columns - length..]).copied().collect();
        if attended.contains(&true) && tokens.contains(&false) {
            self.hidden = Hidden { tokens, attended, sequences };
        }
        self.mask = Some((mask, [sequences, columns]));
    }

    /// Rows of a value that are of padding, by its dimensions before the last; empty for none.
    pub fn hidden(&self, lead: &[usize]) -> Vec<bool> {
        let Hidden { tokens, sequences, .. } = &self.hidden;
        let rows = lead.iter().product::<usize>();
        let of = match lead {
            _ if tokens.is_empty() || rows == 0 => return Vec::new(),
            [first, ..] if *first == tokens.len() => tokens,
            [first, second, ..] if first == sequences && first * second == tokens.len() => tokens,
            // `[sequences, 1, length]`
            [first, ..] if first == sequences && rows == tokens.len() => tokens,
            _ => return Vec::new(),
        };
        (0..rows).map(|r| of[r / (rows / of.len())]).collect()
    }

    /// Whether a value with these dimensions before the last is of all that is attended to, some of it padding.
    pub fn is_of_padding_too(&self, lead: &[usize]) -> bool {
        let Hidden { tokens, attended, .. } = &self.hidden;
        let rows = lead.iter().product::<usize>();
        attended.contains(&true) && rows == attended.len() && rows != tokens.len()
    }

    /// Lengths of the sequences that lie in `rows` rows, as an engine records them for its attention; else none.
    fn lengths(&self, rows: usize) -> Vec<usize> {
        let here = self.set.tensors.iter().filter(|t| t.id.step == self.step && t.element().is_integer());
        let named = |t: &DumpTensor, names: &[&str]| {
            let slot = if t.id.kind == Kind::Value { &t.id.module } else { &t.id.slot };
            names.contains(&slot.rsplit('.').next().unwrap_or(slot))
        };
        for t in here {
            let (each, sums) = (named(t, SEQUENCE_LENGTHS), named(t, SEQUENCE_STARTS));
            if !each && !sums {
                continue;
            }
            let Some(found) = t.open().ok().and_then(|data| data.integers()) else { continue };
            let found: Vec<usize> = found.into_iter().filter_map(|n| usize::try_from(n).ok()).collect();
            let lengths: Vec<usize> = match each {
                true => found,
                false => found.windows(2).map(|w| w[1].saturating_sub(w[0])).collect(),
            };
            if (1..=rows).contains(&lengths.iter().sum::<usize>()) {
                return lengths.into_iter().filter(|&n| n > 0).collect();
            }
        }
        let lists = self.lists();
        if lists.len() > 1 && lists.iter().sum::<usize>() == rows { lists } else { Vec::new() }
    }

    /// All parts of the first slot that has an element of the kind that is wanted, one a rank.
    fn parts(&self, place: &Place, slots: Names, wanted: fn(Element) -> bool) -> Vec<&DumpTensor> {
        let key = (place.module.clone(), place.kind, place.call);
        let has = |call: usize| self.index.contains_key(&(place.module.clone(), place.kind, call));
        let given = |module: &String| self.index.contains_key(&(module.clone(), Kind::Output, 0));
        if !place.beside.as_ref().is_none_or(given) {
            return Vec::new();
        }
        if place.calls.is_some_and(|n| n == 0 || !has(n - 1) || has(n)) {
            return Vec::new();
        }
        if place.unlike.as_ref().is_some_and(|module| self.gives_the_same(&place.module, module)) {
            return Vec::new();
        }
        let Some(found) = self.index.get(&key) else { return Vec::new() };
        let slot = |s: &str| found.iter().any(|&i| self.set.tensors[i].id.slot == s);
        if !place.with.is_empty() && !place.with.iter().any(|s| slot(s)) {
            return Vec::new();
        }
        let tensors = || found.iter().map(|&i| &self.set.tensors[i]).filter(|t| wanted(t.element()));
        let Some(slot) = slots.iter().find(|s| tensors().any(|t| t.id.slot == **s)) else {
            return Vec::new();
        };
        let mut parts: Vec<&DumpTensor> = tensors().filter(|t| t.id.slot == *slot).collect();
        // Of replicas that have other requests, the first one.
        let mut seen: BTreeSet<u32> = BTreeSet::new();
        parts.retain(|t| t.id.rank.tp.is_none_or(|tp| seen.insert(tp)));
        parts
    }

    /// Whether the outputs of two modules are the same values.
    fn gives_the_same(&self, module: &str, other: &str) -> bool {
        let outputs = |module: &str| -> Vec<&DumpTensor> {
            let found = self.index.get(&(module.to_owned(), Kind::Output, 0));
            let tensors = found.into_iter().flatten().map(|&i| &self.set.tensors[i]);
            tensors.filter(|t| is_float(t.element())).collect()
        };
        let (own, theirs) = (outputs(module), outputs(other));
        // A module that gives several values has each of them apart.
        let (Some(a), Some(b)) =
            (own.first(), theirs.iter().find(|t| own.first().is_some_and(|o| o.id.rank == t.id.rank)))
        else {
            return false;
        };
        let alone = own.iter().filter(|t| t.id.rank == a.id.rank).count() == 1;
        alone
            && a.element() == b.element()
            && matches!((a.open(), b.open()), (Ok(a), Ok(b)) if a.raw() == b.raw())
    }

    /// Rows of all tokens of an engine's step.
    fn rows(&self) -> Option<usize> {
        self.layout.as_ref().map(|l| l.rows)
    }

    /// A value of floats.
    pub fn load(&self, site: &Site) -> Found<Value> {
        for place in &site.0 {
            if let Some(value) = self.at(place)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Forgets what was made of another layer's values.
    pub fn forget(&self) {
        *self.made.borrow_mut() = Chain::default();
    }

    /// Another operation is replayed: nothing has been used for it yet.
    pub fn begin(&self) {
        let chain = &mut *self.made.borrow_mut();
        chain.used.clear();
        chain.alone = false;
    }

    /// The operation is replayed as if nothing came before the step's tokens.
    pub fn suppose_alone(&self) {
        self.made.borrow_mut().alone = true;
    }

    /// Whether that was supposed.
    pub fn is_alone(&self) -> bool {
        self.made.borrow().alone
    }

    /// Keeps an operation's output that is not in the dump.
    pub fn keep(&self, index: usize, op: &Op, site: &Site, made: Computed) {
        let mut ops: BTreeSet<usize> = self.through().into_iter().collect();
        if op.kind != OpKind::Copy {
            ops.insert(index);
        }
        let lead = op.inputs.iter().find_map(|site| {
            let value = self.load(site).ok().flatten().map(|v| v.lead).or_else(|| {
                let chain = self.made.borrow();
                site.0.iter().find_map(|p| chain.values.get(&key(p))).map(|made| made.lead.clone())
            });
            value.filter(|lead| lead.iter().product::<usize>() == made.exact.rows)
        });
        let lead = lead.unwrap_or_else(|| vec![made.exact.rows]);
        let extra = made.extra.iter().copied().fold(0.0, f64::max);
        let mut undecided = self.undecided();
        if undecided.is_empty() {
            undecided = made.undecided;
        } else {
            undecided.iter_mut().zip(&made.undecided).for_each(|(a, b)| *a |= b);
        }
        let made = Rc::new(Made { exact: made.exact, noisy: made.noisy, lead, extra, ops, undecided });
        for place in site.0.iter().filter(|p| p.columns.is_none() && p.fused.is_none()) {
            self.made.borrow_mut().values.insert(key(place), made.clone());
        }
    }

    /// Tokens for which rounding decides what was made for the operation that is replayed.
    pub fn undecided(&self) -> Vec<bool> {
        let chain = self.made.borrow();
        let mut all: Vec<bool> = Vec::new();
        for made in &chain.used {
            all.resize(all.len().max(made.undecided.len()), false);
            all.iter_mut().zip(&made.undecided).for_each(|(a, b)| *a |= b);
        }
        all
    }

    /// A value that was kept, exact or with rounding.
    pub fn made(&self, site: &Site, p: Precision) -> Found<Value> {
        let chain = &mut *self.made.borrow_mut();
        let Some((place, made)) = site.0.iter().find_map(|p| Some((p, chain.values.get(&key(p))?.clone())))
        else {
            return Ok(None);
        };
        let x = if p == Precision::Exact { &made.exact } else { &made.noisy };
        let x = match &place.columns {
            None => x.clone(),
            Some(columns) if columns.end <= x.cols => x.columns(columns.clone()),
            Some(columns) => {
                return Err(format!("{}: {} columns, expected {}", place.module, x.cols, columns.end));
            }
        };
        let lead = made.lead.clone();
        chain.used.push(made);
        Ok(Some(Value::new(x, lead, self.precision, place.module.clone())))
    }

    /// The operations whose outputs were made for the one that is replayed.
    pub fn through(&self) -> Vec<usize> {
        let chain = self.made.borrow();
        let all: BTreeSet<usize> = chain.used.iter().flat_map(|m| m.ops.iter().copied()).collect();
        all.into_iter().collect()
    }

    /// What they may be off by from accumulation in f32.
    pub fn inherited(&self) -> f64 {
        self.made.borrow().used.iter().map(|m| m.extra).fold(0.0, f64::max)
    }

    /// A value of floats, to be read by rows. What must be merged or cut first is loaded.
    pub fn view(&self, site: &Site) -> Found<View> {
        for place in &site.0 {
            let parts = self.floats(place);
            let part = match parts[..] {
                [part] if place.columns.is_none() && place.fused.is_none() && place.stacked.is_none() => part,
                _ => match self.at(place)? {
                    Some(value) => {
                        let hidden = self.hidden(&value.lead);
                        return Ok(Some(self.ordered(View { hidden, ..View::whole(value) })));
                    }
                    None => continue,
                },
            };
            let open = |t: &DumpTensor| t.open().map_err(|e| format!("{}: {e}", t.id));
            let plus = match place.plus {
                [] => None,
                _ => match self.second(place, part)[..] {
                    [second] => Some(open(second)?),
                    _ => continue,
                },
            };
            let data = open(part)?;
            let (rows, cols) = (data.rows(), data.cols());
            let added = if plus.is_some() { " + residual" } else { "" };
            let place = format!("{}{added}", part.id);
            let hidden = self.hidden(lead(part));
            let source = Source::Mapped(data, plus);
            return Ok(Some(self.ordered(View { source, hidden, order: None, rows, cols, place })));
        }
        Ok(None)
    }

    /// One tensor of the dump, to be read by rows.
    pub fn view_of(&self, tensor: &DumpTensor) -> Result<View, String> {
        let data = tensor.open().map_err(|e| format!("{}: {e}", tensor.id))?;
        let (rows, cols, place) = (data.rows(), data.cols(), tensor.id.to_string());
        let (source, hidden) = (Source::Mapped(data, None), self.hidden(lead(tensor)));
        Ok(self.ordered(View { source, hidden, order: None, rows, cols, place }))
    }

    /// What enters the module that an output is of.
    pub fn enters(&self, output: &TensorId) -> Option<TensorData> {
        let place = Place::new(&output.module, Kind::Input, &["", "0", "hidden_states"]);
        let parts = self.parts(&place, place.slots, |_| true);
        parts.into_iter().find(|t| t.id.rank == output.rank)?.open().ok()
    }

    /// All parts of a place, if they are floats.
    fn floats(&self, place: &Place) -> Vec<&DumpTensor> {
        self.parts(place, place.slots, is_float)
    }

    /// What is added to the value of a place.
    fn second(&self, place: &Place, first: &DumpTensor) -> Vec<&DumpTensor> {
        let slots = place.plus.iter().position(|s| {
            *s != first.id.slot && {
                let found = self.parts(place, std::slice::from_ref(s), is_float);
                found.first().is_some_and(|t| t.shape() == first.shape())
            }
        });
        slots.map_or(Vec::new(), |at| self.parts(place, &place.plus[at..=at], is_float))
    }

    fn at(&self, place: &Place) -> Found<Value> {
        let parts = self.floats(place);
        if parts.is_empty() {
            return Ok(None);
        }
        let Some(mut value) = merge(&parts, place, self.rows())? else { return Ok(None) };
        if !place.plus.is_empty() {
            let second = self.second(place, parts[0]);
            if second.is_empty() {
                return Ok(None);
            }
            // The first summand may be a rank's part still; the stream is whole everywhere.
            let Some(second) = merge(&second, place, self.rows())? else { return Ok(None) };
            value.x.data.iter_mut().zip(&second.x.data).for_each(|(a, b)| *a += b);
            value.place += " + residual";
            if second.held == Held::Apart {
                value.held = Held::Apart;
            }
        }
        if let Some(parts) = place.stacked {
            value = self.added(value, parts)?;
        }
        if let Some(columns) = &place.columns {
            if columns.end > value.x.cols {
                return Err(format!(
                    "{}: {} columns, expected at least {}",
                    value.place, value.x.cols, columns.end
                ));
            }
            value.x = value.x.columns(columns.clone());
        }
        Ok(Some(value))
    }

    /// The sum of as many parts, each with a row for each token, if the value has them.
    fn added(&self, value: Value, parts: usize) -> Result<Value, String> {
        let tokens = self.tokens()?.map_or(0, |ids| ids.len());
        if parts < 2 || tokens == 0 || value.x.rows != parts * tokens {
            return Ok(value);
        }
        let cols = value.x.cols;
        let mut sum = Matrix::zeros(tokens, cols);
        for part in value.x.data.chunks_exact(tokens * cols) {
            sum.data.iter_mut().zip(part).for_each(|(to, v)| *to += v);
        }
        Ok(Value { x: sum, lead: vec![tokens], ..value })
    }

    /// The shape of a value of any type.
    pub fn shape(&self, place: &Place) -> Option<&[usize]> {
        self.parts(place, place.slots, |_| true).first().map(|t| t.shape())
    }

    /// Integers and their shape.
    pub fn integers(&self, site: &Site) -> Found<(Vec<i64>, Vec<usize>)> {
        for place in &site.0 {
            let parts = self.parts(place, place.slots, |e| e.is_integer());
            let Some(tensor) = parts.first() else { continue };
            let data = tensor.open().map_err(|e| e.to_string())?;
            return Ok(data.integers().map(|ids| (ids, tensor.shape().to_vec())));
        }
        Ok(None)
    }

    /// Token ids, and the rows that each sequence of `rows` tokens has.
    pub fn tokens(&self) -> Found<Vec<i64>> {
        if let Some(ids) = &self.ids {
            return Ok(Some(ids.clone()));
        }
        let rank = self.set.ranks().first().copied().unwrap_or_default();
        self.set.token_ids(self.step, rank).map_err(|e| e.to_string())
    }

    /// Rows of each sequence: from the leading dimensions `[sequences, length]`, else from the recorded lists of ids,
    /// else one.
    pub fn sequences(&self, value: &Value) -> Vec<Range<usize>> {
        let rows = value.lead.iter().product::<usize>();
        if let Some(layout) = self.layout.as_ref().filter(|l| l.rows == rows || l.rows == value.x.rows) {
            return layout.sequences.iter().map(|s| s.rows.clone()).collect();
        }
        if let [count, length] = value.lead[..]
            && length > 0
        {
            return (0..count).map(|i| i * length..(i + 1) * length).collect();
        }
        let lengths = self.lists();
        if lengths.iter().sum::<usize>() == rows {
            let mut start = 0;
            let range = |n: &usize| {
                start += n;
                start - n..start
            };
            return lengths.iter().map(range).collect();
        }
        std::iter::once(0..rows).collect()
    }

    /// How many tokens a value has rows of, whose columns are heads of `d` or several of them.
    pub fn tokens_of(&self, value: &Value, d: usize) -> usize {
        match (&self.layout, &value.lead[..]) {
            (Some(layout), [first, ..]) if *first == layout.rows => *first,
            (_, lead) if value.x.cols == d && lead.len() > 1 => lead[..lead.len() - 1].iter().product(),
            _ => value.x.rows,
        }
    }

    /// Lengths of the recorded lists of ids.
    fn lists(&self) -> Vec<usize> {
        let rank = self.set.ranks().first().and_then(|r| r.global);
        let lists = self.set.tokens.get(&(self.step.unwrap_or(0), rank));
        lists.map_or(Vec::new(), |l| l.iter().map(Vec::len).collect())
    }

    /// Of all `rows` that are attended to, those of padding; empty for none.
    pub fn padding(&self, rows: usize) -> Vec<bool> {
        let mask = self.mask.as_ref().filter(|(mask, _)| mask.len() == rows);
        mask.map_or(Vec::new(), |(mask, _)| mask.iter().map(|&m| m == 0).collect())
    }
}

/// Names under which engines record how long the sequences of a batch are, and where they start.
const SEQUENCE_LENGTHS: &[&str] = &["extend_seq_lens", "query_lens", "seq_lens_q"];
const SEQUENCE_STARTS: &[&str] =
    &["query_start_loc", "cu_seqlens", "cu_seqlens_q", "cu_seq_lens", "qo_indptr"];

fn is_float(element: Element) -> bool {
    !element.is_integer() && element != Element::Bool
}

fn key(place: &Place) -> (String, Kind, &'static str, usize) {
    (place.module.clone(), place.kind, place.slots.first().copied().unwrap_or_default(), place.call)
}
