//! Checks the claim that an element was computed from other elements than declared: the declared expression is computed from
//! those that the kernel took, and compared with what it wrote.

use super::{Bytes, Element, Layouts};
use crate::case::{Captured, Part};
use crate::judge::Given;
use crate::quant::quantize;
use crate::reference::stream::{Precision, Product, Weight};
use crate::reference::{BufferId, Evaluation, Expr, Matrix, eval};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How near a computed value has to be to the written one, relative to it: a result, a scale, a code.
const RESULT: f64 = 0.02;
const SCALE: f64 = 0.05;
const CODE: f64 = 0.13;
/// A claim explains an element if this many times less is left of its error.
const EXPLAINS: f64 = 4.0;
/// Elements of the buffers that an expression reads, beyond which it is not computed again.
const MOST: usize = 1 << 24;

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The elements that were taken give the value that was written.
    Confirmed,
    /// They do not.
    Refuted,
    /// Nothing says how the elements that were taken are put together.
    Unknown,
}

/// An element of a hop, and how it was computed.
pub struct Checked<'a> {
    pub buffer: &'a Captured,
    pub source: &'a Expr,
    pub element: Element,
    /// Elements that it took and are not declared, and the other way round.
    pub extra: &'a Bytes,
    pub missing: &'a Bytes,
}

impl Checked<'_> {
    pub fn claim(&self, given: &Given<'_>, layouts: &mut Layouts<'_>) -> Claim {
        if self.missing.is_empty() {
            return Claim::Unknown;
        }
        let buffers = self.source.buffers();
        let size = |id: &BufferId| {
            let buffer = layouts.attempt.buffer(*id);
            buffer.rows * buffer.cols
        };
        if buffers.iter().map(size).sum::<usize>() > MOST {
            return Claim::Unknown;
        }
        let Some(candidates) = self.candidates(given, layouts) else { return Claim::Unknown };
        let (Some(written), Some(declared)) = (self.written(), self.value(given)) else {
            return Claim::Unknown;
        };
        let explains = |taken: HashMap<BufferId, Arc<Matrix>>| {
            self.value(&Taken { given, taken }).is_some_and(|value| self.is_near(value, written, declared))
        };
        if candidates.into_iter().any(explains) { Claim::Confirmed } else { Claim::Refuted }
    }

    fn is_near(&self, value: f64, written: f64, declared: f64) -> bool {
        let share = match (self.element.0, self.buffer.scheme.is_some()) {
            (Part::Elements, false) => RESULT,
            (Part::Elements, true) => CODE,
            _ => SCALE,
        };
        let error = |value: f64| (value - written).abs();
        value.is_finite()
            && error(value) <= share * written.abs()
            && EXPLAINS * error(value) <= error(declared)
    }

    /// The value that the kernel wrote: of codes what they stand for without their scale.
    fn written(&self) -> Option<f64> {
        let (part, r, c) = self.element;
        self.of_part(part, (r, c), self.buffer.quantized().as_ref(), || Arc::new(self.buffer.value()))
    }

    /// The value of the element, with buffers as `with` has them.
    fn value(&self, with: &dyn Evaluation) -> Option<f64> {
        let (part, r, c) = self.element;
        let values = eval(self.source, with);
        let codes = self.buffer.scheme.map(|scheme| quantize(&values, &scheme, self.buffer.factor));
        self.of_part(part, (r, c), codes.as_ref(), || values)
    }

    fn of_part(
        &self,
        part: Part,
        (r, c): (usize, usize),
        codes: Option<&crate::quant::Quantized>,
        values: impl FnOnce() -> Arc<Matrix>,
    ) -> Option<f64> {
        let Captured { rows, cols, dtype, .. } = *self.buffer;
        match (part, codes) {
            (Part::Elements, None) => values().data.get(r * cols + c).copied(),
            (Part::Elements, Some(codes)) => codes.codes.get(r * cols + c).map(|code| dtype.decode(*code)),
            (Part::Scales, Some(codes)) => {
                let (_, grid_cols) = codes.granularity.grid(rows, cols);
                codes.scales.get(r * grid_cols + c).copied()
            }
            _ => None,
        }
    }

    /// The ways in which what was taken may stand for what is declared; `None` where none is known.
    fn candidates(
        &self,
        given: &Given<'_>,
        layouts: &mut Layouts<'_>,
    ) -> Option<Vec<HashMap<BufferId, Arc<Matrix>>>> {
        let keys: BTreeSet<(BufferId, Part)> =
            self.missing.keys().chain(self.extra.keys()).copied().collect();
        if self.extra.is_empty() {
            return self.left_out(given, layouts);
        }
        // One after the other, each element that is declared was taken from where another one lies.
        let mut taken: HashMap<BufferId, Arc<Matrix>> = HashMap::new();
        for key @ (memory, part) in keys {
            let id = self.read_as(memory, layouts)?;
            let declared = layouts.list(key, self.missing.get(&key)?)?;
            let other = layouts.list(key, self.extra.get(&key)?)?;
            if declared.len() != other.len() {
                return None;
            }
            let known = taken.get(&id).cloned().unwrap_or_else(|| given.buffer(id));
            let mut matrix = Matrix::clone(&known);
            let buffer = layouts.attempt.buffer(id);
            let (original, scales) = (given.buffer(id), Scales::new(buffer));
            for (to, from) in declared.into_iter().zip(other) {
                let by = match part {
                    Part::Elements => {
                        original.data.get(from.0 * buffer.cols + from.1)? / scales.of_element(from)
                    }
                    _ => scales.of_cell(from),
                };
                scales.replace(buffer, part, &mut matrix, to, by)?;
            }
            taken.insert(id, Arc::new(matrix));
        }
        Some(vec![taken])
    }

    /// The buffer as which the expression reads some memory: an update in place gives the same memory to two of them. `None` if
    /// it reads both, because what was taken may then stand for either.
    fn read_as(&self, memory: BufferId, layouts: &Layouts<'_>) -> Option<BufferId> {
        let buffers = self.source.buffers();
        let mut in_memory = buffers.into_iter().filter(|id| layouts.memory(*id) == memory);
        match (in_memory.next(), in_memory.next()) {
            (None, _) => Some(memory),
            (only, None) => only,
            (Some(_), Some(_)) => None,
        }
    }

    /// Nothing took the place of what was left out: it counts as zero, a scale also as one, and an operand as another one of
    /// its shape.
    fn left_out(
        &self,
        given: &Given<'_>,
        layouts: &mut Layouts<'_>,
    ) -> Option<Vec<HashMap<BufferId, Arc<Matrix>>>> {
        let mut all = Vec::new();
        for neutral in [0.0, 1.0] {
            let mut taken: HashMap<BufferId, Arc<Matrix>> = HashMap::new();
            for (key @ (memory, part), bytes) in self.missing {
                let id = self.read_as(*memory, layouts)?;
                let known = taken.get(&id).cloned().unwrap_or_else(|| given.buffer(id));
                let mut matrix = Matrix::clone(&known);
                let buffer = layouts.attempt.buffer(id);
                let scales = Scales::new(buffer);
                for at in layouts.list(*key, bytes)? {
                    let by = match part {
                        Part::Elements => neutral / scales.of_element(at),
                        _ => neutral,
                    };
                    scales.replace(buffer, *part, &mut matrix, at, by)?;
                }
                taken.insert(id, Arc::new(matrix));
            }
            all.push(taken);
        }
        if let [(memory, Part::Elements)] = self.missing.keys().copied().collect::<Vec<_>>()[..] {
            let id = self.read_as(memory, layouts)?;
            let shape = |id: BufferId| {
                let buffer = layouts.attempt.buffer(id);
                (buffer.rows, buffer.cols)
            };
            let others =
                self.source.buffers().into_iter().filter(|other| *other != id && shape(*other) == shape(id));
            all.extend(others.map(|other| HashMap::from([(id, given.buffer(other))])));
        }
        Some(all)
    }
}

/// The scales of a buffer; one where it has none.
struct Scales {
    of: Option<crate::quant::Quantized>,
    cell: (usize, usize),
    columns: usize,
}

impl Scales {
    fn new(buffer: &Captured) -> Scales {
        let granularity = buffer.scheme.map(|scheme| scheme.granularity);
        let cell = granularity.map_or((1, 1), |granularity| granularity.cell(buffer.rows, buffer.cols));
        let columns =
            granularity.map_or(buffer.cols, |granularity| granularity.grid(buffer.rows, buffer.cols).1);
        Scales { of: buffer.quantized(), cell, columns }
    }

    fn of_cell(&self, (r, c): (usize, usize)) -> f64 {
        self.of.as_ref().map_or(1.0, |of| of.scales.get(r * self.columns + c).copied().unwrap_or(f64::NAN))
    }

    fn of_element(&self, (r, c): (usize, usize)) -> f64 {
        self.of_cell((r / self.cell.0, c / self.cell.1))
    }

    /// Puts another element, in units of its scale, or another scale in the place of one. `None` for other parts, of which it
    /// is not known how they are put together with elements.
    fn replace(
        &self,
        buffer: &Captured,
        part: Part,
        matrix: &mut Matrix,
        to: (usize, usize),
        by: f64,
    ) -> Option<()> {
        match part {
            Part::Elements => {
                *matrix.data.get_mut(to.0 * buffer.cols + to.1)? = by * self.of_element(to);
            }
            Part::Scales => {
                let factor = by / self.of_cell(to);
                let (rows, cols) = self.cell;
                for r in to.0 * rows..((to.0 + 1) * rows).min(buffer.rows) {
                    for c in to.1 * cols..((to.1 + 1) * cols).min(buffer.cols) {
                        *matrix.data.get_mut(r * buffer.cols + c)? *= factor;
                    }
                }
            }
            Part::ZeroPoints | Part::GlobalScale => return None,
        }
        Some(())
    }
}

/// Values as they were given, but for some buffers.
struct Taken<'a, 'g> {
    given: &'a Given<'g>,
    taken: HashMap<BufferId, Arc<Matrix>>,
}

impl Evaluation for Taken<'_, '_> {
    fn buffer(&self, id: BufferId) -> Arc<Matrix> {
        self.taken.get(&id).cloned().unwrap_or_else(|| self.given.buffer(id))
    }

    fn stored(&self, id: BufferId) -> Option<Weight<'_>> {
        if self.taken.contains_key(&id) { None } else { self.given.stored(id) }
    }

    fn precision(&self) -> Precision {
        self.given.precision()
    }

    fn note(&self, product: &Product) {
        self.given.note(product);
    }

    fn is_index(&self, id: BufferId) -> bool {
        self.given.is_index(id)
    }
}
