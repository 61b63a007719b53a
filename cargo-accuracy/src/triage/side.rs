//! One of the two dumps: finding a value of the plan in it, ranks merged and summands added.

use accuracy_core::dumps::{DumpSet, DumpTensor, Element, Kind, Merge, TensorData, TensorId};
use accuracy_core::model::ops::Precision;
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
    index: HashMap<(String, Kind), Vec<usize>>,
    /// Positions of the step's tokens, where they are recorded.
    pub positions: Option<Vec<i64>>,
    /// A recorded mask `[sequences, length]` of all that is attended to, 0 where nothing is to be seen, and its shape.
    pub mask: Option<(Vec<i64>, [usize; 2])>,
    /// The step's tokens that are padding.
    hidden: Hidden,
    /// Tokens of each sequence in this step.
    length: Option<usize>,
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
    values: HashMap<(String, Kind, &'static str), Rc<Made>>,
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
}

/// A value that was found.
#[derive(Clone, Debug)]
pub struct Value {
    pub x: Matrix,
    /// The dimensions before the last.
    pub lead: Vec<usize>,
    /// The narrowest format that holds all of it.
    pub precision: Precision,
    /// Where it is, for people.
    pub place: String,
}

impl Value {
    /// The same values as rows of `cols` columns.
    pub fn reshaped(self, cols: usize) -> Result<Value, String> {
        let len = self.x.data.len();
        if cols == 0 || !len.is_multiple_of(cols) {
            return Err(format!("{}: {len} values make no rows of {cols}", self.place));
        }
        Ok(Value { x: Matrix::new(len / cols, cols, self.x.data), ..self })
    }
}

/// A value that is read a few rows at a time: it need not fit in memory.
#[derive(Debug)]
pub struct View {
    source: Source,
    /// Rows that are read as zeros; empty for none.
    hidden: Vec<bool>,
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
        View { source: Source::Whole(value), hidden: Vec::new(), rows, cols, place }
    }

    /// Decodes some rows into `out`, which is overwritten. Rows of padding are zeros.
    pub fn read(&self, rows: Range<usize>, out: &mut Vec<f64>) {
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
        for row in rows.clone().filter(|&row| self.is_hidden(row)) {
            let at = (row - rows.start) * self.cols;
            out[at..at + self.cols].fill(0.0);
        }
    }

    /// Whether a row is of padding.
    pub fn is_hidden(&self, row: usize) -> bool {
        self.hidden.get(row).copied().unwrap_or(false)
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
        Value { x, lead: Vec::new(), precision, place: self.place }.reshaped(cols).map(View::whole)
    }
}

/// A value, nothing of that name, or why it cannot be used.
pub type Found<T> = Result<Option<T>, String>;

impl Side {
    /// With the steps before it, back to the one that starts at position 0.
    pub fn new(set: &Arc<DumpSet>, step: Option<u64>) -> Side {
        let mut side = Side::at_step(set.clone(), step);
        let mut earlier: Vec<Option<u64>> = set.steps().into_iter().filter(|s| *s < step).collect();
        let mut oldest = &side;
        let mut history: Vec<Side> = Vec::new();
        while oldest.continues() {
            let Some(step) = earlier.pop() else { break };
            history.push(Side::at_step(set.clone(), step));
            oldest = &history[history.len() - 1];
        }
        history.reverse();
        side.history = history;
        side
    }

    /// The first of the steps that it is computed of.
    pub fn oldest(&self) -> &Side {
        self.history.first().unwrap_or(self)
    }

    /// Whether no token is a sequence's first.
    pub fn continues(&self) -> bool {
        self.positions.as_ref().and_then(|p| p.iter().min()).is_some_and(|&p| p > 0)
    }

    fn at_step(set: Arc<DumpSet>, step: Option<u64>) -> Side {
        let mut index: HashMap<(String, Kind), Vec<usize>> = HashMap::new();
        for (i, t) in set.tensors.iter().enumerate() {
            if t.id.step == step && t.id.call == 0 {
                index.entry((t.id.module.clone(), t.id.kind)).or_default().push(i);
            }
        }
        let mut side = Side {
            set,
            step,
            index,
            positions: None,
            mask: None,
            hidden: Hidden::default(),
            length: None,
            history: Vec::new(),
            precision: Precision::BF16,
            made: RefCell::default(),
        };
        let slots: &[&str] = &["position_ids", "positions", "1"];
        let places = ["model.rotary_emb", "model", ""].map(|m| Place::new(m, Kind::Input, slots));
        let positions = side.integers(&Site(places.to_vec())).ok().flatten();
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

    /// All parts of a slot, one a rank.
    fn parts(&self, module: &str, kind: Kind, slots: &[&str]) -> Vec<&DumpTensor> {
        let Some(found) = self.index.get(&(module.to_owned(), kind)) else { return Vec::new() };
        let tensors = || found.iter().map(|&i| &self.set.tensors[i]);
        let slot = slots.iter().find(|s| tensors().any(|t| t.id.slot == **s));
        slot.map_or(Vec::new(), |slot| tensors().filter(|t| t.id.slot == *slot).collect())
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
    pub fn keep(&self, index: usize, op: &Op, exact: Matrix, noisy: Matrix, extra: &[f64]) {
        let mut ops: BTreeSet<usize> = self.through().into_iter().collect();
        if op.kind != OpKind::Copy {
            ops.insert(index);
        }
        let lead = op.inputs.iter().find_map(|site| {
            let value = self.load(site).ok().flatten().map(|v| v.lead).or_else(|| {
                let chain = self.made.borrow();
                site.0.iter().find_map(|p| chain.values.get(&key(p))).map(|made| made.lead.clone())
            });
            value.filter(|lead| lead.iter().product::<usize>() == exact.rows)
        });
        let lead = lead.unwrap_or_else(|| vec![exact.rows]);
        let extra = extra.iter().copied().fold(0.0, f64::max);
        let made = Rc::new(Made { exact, noisy, lead, extra, ops });
        for place in op.output.0.iter().filter(|p| p.columns.is_none()) {
            self.made.borrow_mut().values.insert(key(place), made.clone());
        }
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
        Ok(Some(Value { x, lead, precision: self.precision, place: place.module.clone() }))
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
                [part] if place.columns.is_none() => part,
                _ => match self.at(place)? {
                    Some(value) => {
                        let hidden = self.hidden(&value.lead);
                        return Ok(Some(View { hidden, ..View::whole(value) }));
                    }
                    None => continue,
                },
            };
            let open = |t: &DumpTensor| t.open().map_err(|e| format!("{}: {e}", t.id));
            let plus = match place.plus.map(|slot| self.parts(&place.module, place.kind, &[slot])) {
                None => None,
                Some(second) => match second[..] {
                    [second] if second.shape() == part.shape() => Some(open(second)?),
                    _ => continue,
                },
            };
            let data = open(part)?;
            let (rows, cols) = (data.rows(), data.cols());
            let added = if plus.is_some() { " + residual" } else { "" };
            let place = format!("{}{added}", part.id);
            let hidden = self.hidden(lead(part));
            return Ok(Some(View { source: Source::Mapped(data, plus), hidden, rows, cols, place }));
        }
        Ok(None)
    }

    /// One tensor of the dump, to be read by rows.
    pub fn view_of(&self, tensor: &DumpTensor) -> Result<View, String> {
        let data = tensor.open().map_err(|e| format!("{}: {e}", tensor.id))?;
        let (rows, cols, place) = (data.rows(), data.cols(), tensor.id.to_string());
        Ok(View { source: Source::Mapped(data, None), hidden: self.hidden(lead(tensor)), rows, cols, place })
    }

    /// What enters the module that an output is of.
    pub fn enters(&self, output: &TensorId) -> Option<TensorData> {
        let parts = self.parts(&output.module, Kind::Input, &["", "0", "hidden_states"]);
        parts.into_iter().find(|t| t.id.rank == output.rank)?.open().ok()
    }

    /// All parts of a place, if they are floats.
    fn floats(&self, place: &Place) -> Vec<&DumpTensor> {
        let mut parts = self.parts(&place.module, place.kind, place.slots);
        parts.retain(|t| !t.element().is_integer() && t.element() != Element::Bool);
        parts
    }

    fn at(&self, place: &Place) -> Found<Value> {
        let parts = self.floats(place);
        if parts.is_empty() {
            return Ok(None);
        }
        let mut value = merge(&parts)?;
        if let Some(slot) = place.plus {
            let second = self.parts(&place.module, place.kind, &[slot]);
            let Some(second) = Some(second).filter(|s| !s.is_empty() && s[0].shape() == parts[0].shape())
            else {
                return Ok(None);
            };
            let second = merge(&second)?;
            value.x.data.iter_mut().zip(&second.x.data).for_each(|(a, b)| *a += b);
            value.place += " + residual";
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

    /// The shape of a value of any type.
    pub fn shape(&self, place: &Place) -> Option<&[usize]> {
        self.parts(&place.module, place.kind, place.slots).first().map(|t| t.shape())
    }

    /// Integers and their shape.
    pub fn integers(&self, site: &Site) -> Found<(Vec<i64>, Vec<usize>)> {
        for place in &site.0 {
            let parts = self.parts(&place.module, place.kind, place.slots);
            let Some(tensor) = parts.first().filter(|t| t.element().is_integer()) else { continue };
            let data = tensor.open().map_err(|e| e.to_string())?;
            return Ok(data.integers().map(|ids| (ids, tensor.shape().to_vec())));
        }
        Ok(None)
    }

    /// Token ids, and the rows that each sequence of `rows` tokens has.
    pub fn tokens(&self) -> Found<Vec<i64>> {
        let rank = self.set.ranks().first().copied().unwrap_or_default();
        self.set.token_ids(self.step, rank).map_err(|e| e.to_string())
    }

    /// Rows of each sequence: from the leading dimensions `[sequences, length]`, else from the recorded lists of ids,
    /// else one.
    pub fn sequences(&self, value: &Value) -> Vec<Range<usize>> {
        let rows = value.lead.iter().product::<usize>();
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

/// A tensor's dimensions before the last.
pub fn lead(tensor: &DumpTensor) -> &[usize] {
    &tensor.shape()[..tensor.shape().len().saturating_sub(1)]
}

fn key(place: &Place) -> (String, Kind, &'static str) {
    (place.module.clone(), place.kind, place.slots.first().copied().unwrap_or_default())
}

/// Joins what several ranks wrote, as their manifest declares it.
fn merge(parts: &[&DumpTensor]) -> Result<Value, String> {
    let first = parts[0];
    let place = first.id.to_string();
    let read = |t: &DumpTensor| {
        let data = t.open().map_err(|e| format!("{}: {e}", t.id))?;
        Ok::<Matrix, String>(data.matrix(0..data.rows()))
    };
    let lead = lead(first).to_vec();
    let mut x = read(first)?;
    let mut narrow = Narrow::new(first.element());
    narrow.look(&x.data);
    let precision = narrow.precision();
    match first.merge {
        _ if parts.len() == 1 => {}
        Some(Merge::Replicated) => {}
        Some(Merge::Sum) => {
            for part in &parts[1..] {
                let part = read(part)?;
                if part.data.len() != x.data.len() {
                    return Err(format!("{place}: summands of different shapes"));
                }
                x.data.iter_mut().zip(&part.data).for_each(|(a, b)| *a += b);
            }
        }
        Some(Merge::Concat(dim)) if dim + 1 == first.shape().len() => {
            let mut pieces = vec![x];
            for part in &parts[1..] {
                pieces.push(read(part)?);
            }
            let rows = pieces[0].rows;
            if pieces.iter().any(|p| p.rows != rows) {
                return Err(format!("{place}: parts with different numbers of rows"));
            }
            let cols = pieces.iter().map(|p| p.cols).sum();
            let data = (0..rows).flat_map(|r| pieces.iter().flat_map(move |p| p.row(r).to_vec())).collect();
            x = Matrix::new(rows, cols, data);
        }
        Some(Merge::Concat(dim)) => {
            return Err(format!("{place}: parts joined in dimension {dim}; only the last one is merged"));
        }
        None => {
            let bytes = |t: &DumpTensor| t.open().map(|d| d.raw().into_owned()).map_err(|e| e.to_string());
            let same = bytes(first)?;
            for part in &parts[1..] {
                if bytes(part)? != same {
                    return Err(format!(
                        "{place}: {} ranks wrote different parts and the dump does not say how they make one; dump \
                         with accuracy_dump's merge= option",
                        parts.len()
                    ));
                }
            }
        }
    }
    Ok(Value { x, lead, precision, place })
}

/// Finds the narrowest of bf16, f16 and f32 that holds every value: what was computed in bf16 is often stored in f32.
struct Narrow {
    bf16: bool,
    f16: bool,
    wide: Precision,
}

impl Narrow {
    fn new(element: Element) -> Narrow {
        let (narrower, wide) = match element {
            Element::F32 | Element::F64 => (true, Precision::F32),
            Element::F16 => (false, Precision::F16),
            _ => (false, Precision::BF16),
        };
        Narrow { bf16: narrower, f16: narrower, wide }
    }

    /// Whether no further value can change the answer.
    fn decided(&self) -> bool {
        !self.bf16 && !self.f16
    }

    fn look(&mut self, values: &[f64]) {
        let held = |p: Precision| values.iter().all(|&v| v.is_nan() || p.round(v) == v);
        self.bf16 = self.bf16 && held(Precision::BF16);
        self.f16 = self.f16 && held(Precision::F16);
    }

    fn precision(&self) -> Precision {
        if self.bf16 {
            Precision::BF16
        } else if self.f16 {
            Precision::F16
        } else {
            self.wide
        }
    }
}
