//! A value of a dump: its elements, how the ranks hold it, and the narrowest format that holds it.

use accuracy_core::dumps::{DumpTensor, Element};
use accuracy_core::model::ops::Precision;
use accuracy_core::reference::Matrix;

/// A value, nothing of that name, or why it cannot be used.
pub type Found<T> = Result<Option<T>, String>;

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
    /// What the ranks that wrote it have of it.
    pub held: Held,
}

/// How the ranks' parts of a value agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// As they should.
    #[default]
    Well,
    /// Each rank has a summand.
    Summands,
    /// They should be equal and are not.
    Apart,
}

impl Value {
    pub fn new(x: Matrix, lead: Vec<usize>, precision: Precision, place: String) -> Value {
        Value { x, lead, precision, place, held: Held::Well }
    }

    /// The same values as rows of `cols` columns.
    pub fn reshaped(self, cols: usize) -> Result<Value, String> {
        let len = self.x.data.len();
        if cols == 0 || !len.is_multiple_of(cols) {
            return Err(format!("{}: {len} values make no rows of {cols}", self.place));
        }
        Ok(Value { x: Matrix::new(len / cols, cols, self.x.data), ..self })
    }
}

/// A tensor's dimensions before the last.
pub fn lead(tensor: &DumpTensor) -> &[usize] {
    &tensor.shape()[..tensor.shape().len().saturating_sub(1)]
}

/// Finds the narrowest of bf16, f16 and f32 that holds every value: what was computed in bf16 is often stored in f32.
pub struct Narrow {
    bf16: bool,
    f16: bool,
    wide: Precision,
}

impl Narrow {
    pub fn new(element: Element) -> Narrow {
        let (narrower, wide) = match element {
            Element::F32 | Element::F64 => (true, Precision::F32),
            Element::F16 => (false, Precision::F16),
            _ => (false, Precision::BF16),
        };
        Narrow { bf16: narrower, f16: narrower, wide }
    }

    /// Whether no further value can change the answer.
    pub fn decided(&self) -> bool {
        !self.bf16 && !self.f16
    }

    pub fn look(&mut self, values: &[f64]) {
        let held = |p: Precision| values.iter().all(|&v| v.is_nan() || p.round(v) == v);
        self.bf16 = self.bf16 && held(Precision::BF16);
        self.f16 = self.f16 && held(Precision::F16);
    }

    pub fn precision(&self) -> Precision {
        if self.bf16 {
            Precision::BF16
        } else if self.f16 {
            Precision::F16
        } else {
            self.wide
        }
    }
}
