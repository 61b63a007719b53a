//! How a quantiser makes a code of a value: what it divides by, how it rounds, where it writes.

use super::orders::Place;
use super::rules::Rule;
use super::{COLS, Fault, Found, PARTLY, Producer, ROWS, scales, spread};
use crate::diagnose::codes;
use crate::diagnose::hypothesis::Change;
use crate::diagnose::map::Map;
use crate::diagnose::reading::Reading;
use crate::diagnose::sampled::all;
use crate::diagnose::scales::Rounding;
use crate::dtype::{BF16, DType, E8M0, F16, Overflow};
use crate::judge::DIVISION;
use crate::reference::Matrix;
use crate::words::Words;
use std::rc::Rc;

/// Wrong codes that are too few to tell a way of coding by.
const FEW: usize = 4;

/// How a kernel makes a code of a value that was divided by its scale.
pub(super) struct Coding {
    cause: &'static str,
    what: Words,
    /// What the value is rounded to before it is divided.
    first: Option<DType>,
    /// Which scale it divides by.
    by: By,
    /// The value that the code stands for.
    value: Rc<dyn Fn(f64) -> f64>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum By {
    /// The one that is found in memory.
    Written,
    /// The one that should be there.
    Right,
    /// Of the cells that are given: (rows, groups) further.
    Other(isize, isize),
    /// None.
    One,
    /// The inverse of the right one: it multiplies.
    Inverse,
    /// The right one, rounded.
    Rounded(Rounding),
    /// The one that is found in memory: it multiplies with its inverse, rounded to this format.
    InverseIn(DType),
}

impl<'a> Producer<'a, '_> {
    /// The nearest code of the value divided by one scale or another.
    pub(super) fn right_coding(&self, by: By) -> Coding {
        Coding { cause: "", what: Words::default(), first: None, by, value: self.nearest() }
    }

    /// The nearest code's value.
    fn nearest(&self) -> Rc<dyn Fn(f64) -> f64> {
        let scheme = self.scheme;
        Rc::new(move |x| scheme.dtype.decode(scheme.code_of(x)))
    }

    /// Whether the code of an element is not what the coding makes of its value.
    pub(super) fn code_wrong(
        &self,
        (r, c): (usize, usize),
        coding: &Coding,
        reading: &Reading<'a>,
        place: &Place<'a>,
        rule: &Rule,
        value: &Matrix,
    ) -> bool {
        let (gr, gc) = (r / self.cell.0, c / self.cell.1);
        let (rows, groups) = self.grid;
        let right = |r: usize, g: usize| {
            let (low, high) = (rule.scale)(value, r, g);
            (low + high) / 2.0
        };
        let code = (reading.codes)(r, &[c])[0].map_or(f64::NAN, |code| self.scheme.dtype.decode(code));
        let fits = |scale: f64| {
            if scale == 0.0 || scale.is_nan() {
                return true;
            }
            let coded = |sign: f64| {
                let x = value.row(r)[c] * (1.0 + sign * self.uncertainty);
                let x = coding.first.map_or(x, |to| to.decode(to.encode(x, Overflow::Saturate)));
                (coding.value)(x / (scale * self.buffer.factor) * (1.0 + sign * DIVISION))
            };
            let (a, b) = (coded(-1.0), coded(1.0));
            (a.min(b) <= code && code <= a.max(b)) || (code.is_nan() && (a.is_nan() || b.is_nan()))
        };
        let scale = match coding.by {
            By::Written => (place.at)(gr, gc),
            // A magnitude at the end of a step has either power of two, and none between them.
            By::Right if self.scheme.scale_dtype == E8M0 => {
                let (low, high) = (rule.scale)(value, gr, gc);
                return [low, high].into_iter().all(|scale| !fits(scale));
            }
            By::Right => right(gr, gc),
            By::Other(dr, dg) => {
                let step = |i: usize, by: isize, n: usize| (i as isize + by).rem_euclid(n as isize) as usize;
                right(step(gr, dr, rows), step(gc, dg, groups))
            }
            By::One => 1.0,
            By::Inverse => 1.0 / right(gr, gc),
            By::Rounded(to) => to.of(right(gr, gc)),
            By::InverseIn(to) => 1.0 / to.nearest(1.0 / (place.at)(gr, gc)),
        };
        !fits(scale)
    }

    /// Ways of coding that quantisers have by mistake.
    fn codings(&self) -> Vec<Coding> {
        let mut codings = Codings { producer: self, found: Vec::new() };
        codings.other_scales();
        codings.directions();
        codings.cuts();
        codings.factors();
        codings.formats();
        codings.least_codes();
        codings.roundings();
        codings.found
    }

    /// What explains the codes, given where the scales are.
    pub(super) fn explain_codes(
        &self,
        map: &Map,
        place: &Place<'a>,
        right: &Rule,
        own: &Reading<'a>,
    ) -> Found {
        let nothing = Found { score: 1.0, ..Found::default() };
        let default = self.right_coding(By::Written);
        let given = self.right_coding(By::Right);
        let wrong_rows = map.wrong_rows();
        let rows = spread(&wrong_rows, 2 * ROWS);
        let mut elements: Vec<(usize, usize)> = Vec::new();
        for &r in &rows {
            let wrong: Vec<usize> = (0..map.cols).filter(|&c| map.is_wrong(r, c)).collect();
            elements.extend(spread(&wrong, COLS).into_iter().map(|c| (r, c)));
        }
        let others: Vec<(usize, usize)> = spread(&all(map.rows), 2 * ROWS)
            .into_iter()
            .flat_map(|r| spread(&all(map.cols), COLS / 2).into_iter().map(move |c| (r, c)))
            .filter(|&(r, c)| !map.is_wrong(r, c) && !self.unsteady[r * map.cols + c])
            .collect();
        let bad = |elements: &[(usize, usize)], coding: &Coding, reading: &Reading<'a>| {
            let wrong =
                |at: &&(usize, usize)| self.code_wrong(**at, coding, reading, place, right, &self.value);
            elements.iter().filter(wrong).count()
        };
        // Right as they are, under the scales as they were found, or under the right ones.
        if bad(&elements, &default, own) == 0 || bad(&elements, &given, own) == 0 {
            let all_right = |coding: &Coding| self.left(map, true, coding, own, place, right) == 0;
            if all_right(&default) || all_right(&given) {
                return nothing;
            }
        }
        // What is wrong with the codes by themselves: what changes nothing of that explains nothing.
        let wrong_there = |wrong: bool| {
            let of = |coding: &Coding| self.left(map, wrong, coding, own, place, right);
            of(&default).min(of(&given))
        };
        let (wrong_inside, wrong_outside) = (wrong_there(true), wrong_there(false));
        if wrong_inside == 0 {
            return nothing;
        }
        let mut candidates: Vec<(f64, Coding, Reading<'a>, bool)> = Vec::new();
        let mut consider = |coding: Coding, reading: &Reading<'a>| {
            let (wrong, other) = (bad(&elements, &coding, reading), bad(&others, &coding, reading));
            let score = 1.0 - wrong as f64 / elements.len().max(1) as f64;
            candidates.push((score, coding, reading.clone(), other > 0));
        };
        for coding in self.codings() {
            consider(coding, own);
        }
        for hypothesis in codes::places(self.id, self.buffer, self.attempt.setup.poison.byte()) {
            let Change::Codes(codes) = &hypothesis.change else { continue };
            let mut reading = own.clone();
            reading.codes = codes.clone();
            for by in [By::Written, By::Right] {
                let (cause, what) = (hypothesis.cause, hypothesis.what.of_writer());
                consider(Coding { cause, what, first: None, by, value: self.nearest() }, &reading);
            }
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.3.cmp(&b.3)));
        let mut best = Found { few: wrong_inside < FEW, ..Found::default() };
        for (score, coding, reading, in_region) in candidates.iter().take(4) {
            if *score < PARTLY {
                break;
            }
            let left = self.left(map, true, coding, reading, place, right) as f64;
            let score = match *in_region {
                true => 1.0 - left / wrong_inside as f64,
                false => {
                    let outside = self.left(map, false, coding, reading, place, right) as f64;
                    1.0 - (left + outside) / (wrong_inside + wrong_outside) as f64
                }
            };
            let fault = Fault { cause: coding.cause, what: coding.what.clone(), there_only: *in_region };
            let first = best.causes.first();
            let other = |known: &Fault| known.cause != fault.cause && (known.there_only || !fault.there_only);
            if score > best.score {
                best = Found { causes: vec![fault], score, rivals: Vec::new(), few: best.few };
            } else if score == best.score && first.is_some_and(other) {
                best.rivals.push(fault);
            }
        }
        best
    }

    /// Elements whose codes a coding does not explain, of the wrong ones or of the others.
    fn left(
        &self,
        map: &Map,
        wrong: bool,
        coding: &Coding,
        reading: &Reading<'a>,
        place: &Place<'a>,
        rule: &Rule,
    ) -> usize {
        let mut count = 0;
        for r in 0..map.rows {
            for c in 0..map.cols {
                let look = map.is_wrong(r, c) == wrong && !self.unsteady[r * map.cols + c];
                count +=
                    usize::from(look && self.code_wrong((r, c), coding, reading, place, rule, &self.value));
            }
        }
        count
    }
}

/// Other formats of as many bits.
fn of_as_many_bits(dtype: DType) -> Vec<DType> {
    let all: &[DType] = match dtype.bits() {
        8 => &[DType::E4M3Fn, DType::E4M3Fnuz, DType::E5M2, DType::E5M2Fnuz, DType::I8],
        4 => &[DType::E2M1, DType::I4, DType::U4],
        _ => &[],
    };
    all.iter().copied().filter(|other| *other != dtype).collect()
}

/// Ways of coding that a quantiser may have by mistake.
struct Codings<'p, 'a, 'w> {
    producer: &'p Producer<'a, 'w>,
    found: Vec<Coding>,
}

impl Codings<'_, '_, '_> {
    fn add(&mut self, cause: &'static str, what: String, by: By, value: Rc<dyn Fn(f64) -> f64>) {
        self.found.push(Coding { cause, what: what.into(), first: None, by, value });
    }

    /// The finite values of the format's codes, ascending.
    fn values(&self) -> Rc<Vec<f64>> {
        let dtype = self.producer.scheme.dtype;
        let mut values: Vec<f64> = (0..1u32 << dtype.bits().min(8)).map(|code| dtype.decode(code)).collect();
        values.retain(|x| x.is_finite());
        values.sort_by(f64::total_cmp);
        Rc::new(values)
    }

    /// Codes that are divided by other scales.
    fn other_scales(&mut self) {
        let producer = self.producer;
        let name = &producer.buffer.name;
        let nearest = producer.nearest();
        for (cause, words, by) in [
            ("scale_missing", "without dividing by the scales", By::One),
            ("scale_inverted", "by multiplying with the scales", By::Inverse),
            ("scale_neighbour", "with the scale of the next group", By::Other(0, 1)),
            ("scale_neighbour", "with the scale of the previous group", By::Other(0, -1)),
            ("scale_neighbour", "with the scale of the next row", By::Other(1, 0)),
            ("scale_neighbour", "with the scale of the previous row", By::Other(-1, 0)),
        ] {
            self.add(cause, format!("quantises `{name}` {words}"), by, nearest.clone());
        }
    }

    /// Codes that are not the nearest.
    fn directions(&mut self) {
        let producer = self.producer;
        let name = &producer.buffer.name;
        let nearest = producer.nearest();
        let values = self.values();
        let nearest_of = nearest.clone();
        let step = move |x: f64, toward: fn(f64, f64) -> bool| {
            let near = nearest_of(x);
            if !toward(near, x) {
                return near;
            }
            // The neighbour on the other side of x.
            let below = values.partition_point(|v| *v <= x);
            let at = if near > x { below.checked_sub(1) } else { Some(below) };
            at.and_then(|at| values.get(at)).copied().unwrap_or(near)
        };
        for (words, toward) in [
            ("truncates", (|near: f64, x: f64| near.abs() > x.abs()) as fn(f64, f64) -> bool),
            ("rounds down", |near, x| near > x),
            ("rounds up", |near, x| near < x),
            ("rounds away from zero", |near, x| near.abs() < x.abs()),
        ] {
            for by in [By::Written, By::Right] {
                let step = step.clone();
                let what = format!("{words} the codes of `{name}` instead of rounding to nearest");
                self.add("rounding", what, by, Rc::new(move |x| step(x, toward)));
            }
        }
    }

    /// Codes that are cut off, or not, at the end of the range.
    fn cuts(&mut self) {
        let producer = self.producer;
        let name = &producer.buffer.name;
        let scheme = producer.scheme;
        let dtype = producer.scheme.dtype;
        let nearest = producer.nearest();
        let values = self.values();
        let last_step = values[values.len() - 1] - values[values.len() - 2];
        // The largest that is written, and others that formats have.
        let codes = dtype.codes(&producer.buffer.data).map(|code| dtype.decode(code).abs());
        let largest = codes.filter(|x| x.is_finite()).fold(0.0, f64::max);
        for most in [largest, 448.0, 240.0, 224.0, 127.0, 120.0, 64.0, 63.0, 7.0, 6.0, 4.0] {
            if most < scheme.max && most > 0.0 {
                for by in [By::Written, By::Right] {
                    let nearest = nearest.clone();
                    self.add(
                        "overflow",
                        format!("cuts the codes of `{name}` at {most}, the largest is {}", scheme.max),
                        by,
                        Rc::new(move |x: f64| nearest(x.clamp(-most, most))),
                    );
                }
            }
        }
        let wrap = move |x: f64| match dtype.is_integer() {
            true => dtype.decode((x.round_ties_even() as i64 & ((1 << dtype.bits()) - 1)) as u32),
            false => dtype.decode(dtype.encode(x, Overflow::Special)),
        };
        self.add("overflow", format!("does not saturate the codes of `{name}`"), By::Written, Rc::new(wrap));
        // What rounds to a code that there is not.
        let (near, beyond) = (nearest.clone(), dtype.max() + last_step / 2.0);
        self.add(
            "overflow",
            format!("writes 0 for values of `{name}` beyond the largest code"),
            By::Written,
            Rc::new(move |x| if x.abs() >= beyond { 0.0 } else { near(x) }),
        );
    }

    /// Codes of other values: in another format, times a factor, without their end.
    fn factors(&mut self) {
        let producer = self.producer;
        let name = &producer.buffer.name;
        let scheme = producer.scheme;
        let dtype = producer.scheme.dtype;
        let nearest = producer.nearest();
        let others = of_as_many_bits(dtype);
        for &other in &others {
            for by in [By::Written, By::Right] {
                self.add(
                    "fp8_variant",
                    format!("writes the codes of `{name}` as {other}, declared is {dtype}"),
                    by,
                    Rc::new(move |x| dtype.decode(other.encode(x, Overflow::Saturate))),
                );
            }
        }
        for (times, words) in [(2.0, "twice"), (0.5, "half"), (4.0, "four times"), (0.25, "a quarter of")] {
            for by in [By::Written, By::Right] {
                let nearest = nearest.clone();
                let what = format!("writes codes of `{name}` that stand for {words} the values");
                self.add("gain", what, by, Rc::new(move |x| nearest(times * x)));
            }
        }
        for most in [127.0, 120.0, 64.0, 63.0, 240.0, 224.0, 7.0, 6.0, 4.0, 3.0] {
            if most < scheme.max {
                let (up, down) = (nearest.clone(), nearest.clone());
                let what =
                    format!("cuts positive codes of `{name}` at {most}, the largest is {}", scheme.max);
                self.add("overflow", what, By::Written, Rc::new(move |x| up(x.min(most))));
                let what =
                    format!("cuts negative codes of `{name}` at -{most}, the largest is {}", scheme.max);
                self.add("overflow", what, By::Written, Rc::new(move |x| down(x.max(-most))));
            }
        }
        if dtype.is_fp8() {
            let (near, exact) = (nearest.clone(), nearest.clone());
            let what = format!("writes NaN or Inf for the largest magnitudes of `{name}`");
            let nan = move |x: f64| if near(x).abs() >= scheme.max { f64::NAN } else { near(x) };
            self.add("overflow", what, By::Written, Rc::new(nan));
            let what = format!("writes NaN for magnitudes of `{name}` from {} on", scheme.max);
            let nan = move |x: f64| if x.abs() >= scheme.max { f64::NAN } else { exact(x) };
            self.add("overflow", what, By::Written, Rc::new(nan));
        }
    }

    /// Codes of another format under the scale that suits it, or of another tensor, or rounded on their way.
    fn formats(&mut self) {
        let producer = self.producer;
        let name = &producer.buffer.name;
        let scheme = producer.scheme;
        let dtype = producer.scheme.dtype;
        let nearest = producer.nearest();
        let others = of_as_many_bits(dtype);
        for &other in others.iter().filter(|o| dtype.is_fp8() && o.is_fp8()) {
            let ratio = other.max() / scheme.max;
            for by in [By::Written, By::Right] {
                let what = format!(
                    "scales `{name}` to {} and writes codes of {other}, declared is {dtype} with {}",
                    other.max(),
                    scheme.max
                );
                let value = move |x: f64| dtype.decode(other.encode(x * ratio, Overflow::Saturate));
                self.add("fp8_variant", what, by, Rc::new(value));
            }
        }
        // The one scale of another tensor.
        if let Some(own) = scales::of_tensor(producer.buffer) {
            for other in producer.attempt.buffers.iter().filter(|b| b.name != *name) {
                let Some(ratio) = scales::of_tensor(other).map(|s| own / s).filter(|r| *r != 1.0) else {
                    continue;
                };
                let nearest = nearest.clone();
                let what = format!("divides `{name}` by the scale of `{}`", other.name);
                self.add("scale_neighbour", what, By::Written, Rc::new(move |x| nearest(ratio * x)));
            }
        }
        for &other in others.iter().filter(|_| dtype.is_fp8()) {
            let what = format!(
                "writes the codes of `{name}` as {other} that does not saturate, declared is {dtype}"
            );
            self.add(
                "fp8_variant",
                what,
                By::Written,
                Rc::new(move |x| dtype.decode(other.encode(x, Overflow::Special))),
            );
        }
        for to in [BF16, F16] {
            let nearest = nearest.clone();
            self.add(
                "rounding",
                format!("rounds the values of `{name}` to {to} between scaling and coding"),
                By::Written,
                Rc::new(move |x| nearest(to.decode(to.encode(x, Overflow::Special)))),
            );
        }
    }

    /// What becomes of the smallest values, and of signs.
    fn least_codes(&mut self) {
        let producer = self.producer;
        let name = &producer.buffer.name;
        let dtype = producer.scheme.dtype;
        let nearest = producer.nearest();
        let positive = self.values().iter().copied().filter(|x| *x > 0.0).fold(f64::INFINITY, f64::min);
        if let Some(least) = dtype.min_normal() {
            let of = nearest.clone();
            let what = format!("writes 0 for the subnormals of `{name}`");
            let value = move |x| match of(x) {
                code if code.abs() < least => 0.0,
                code => code,
            };
            self.add("rounding", what, By::Written, Rc::new(value));
        }
        if positive.is_finite() {
            let of = nearest.clone();
            let away = move |x: f64| match of(x) {
                0.0 => positive.copysign(x),
                code => code,
            };
            let what = format!("writes the least code of `{name}`, {positive}, for what rounds to zero");
            self.add("rounding", what, By::Written, Rc::new(away));
            let of = nearest.clone();
            let up = move |x: f64| if of(x) == 0.0 { positive } else { of(x) };
            self.add(
                "rounding",
                format!("writes {positive} for the zeros of `{name}`"),
                By::Written,
                Rc::new(up),
            );
        }
        let of = nearest.clone();
        self.add(
            "rounding",
            format!("loses the signs of `{name}`"),
            By::Written,
            Rc::new(move |x| of(x.abs())),
        );
        let of = nearest.clone();
        self.add(
            "gain",
            format!("writes `{name}` with the wrong sign"),
            By::Written,
            Rc::new(move |x| of(-x)),
        );
        self.add("unwritten", format!("leaves the codes of `{name}` zero"), By::Written, Rc::new(|_| 0.0));
    }

    /// Scales and values that are rounded before codes are made.
    fn roundings(&mut self) {
        let producer = self.producer;
        let name = &producer.buffer.name;
        let scheme = producer.scheme;
        let dtype = producer.scheme.dtype;
        let nearest = producer.nearest();
        let others = of_as_many_bits(dtype);
        if scheme.scale_dtype != E8M0 {
            for to in [BF16, F16] {
                let what = format!("multiplies `{name}` with the inverse of its scales, rounded to {to}");
                self.add("rounding", what, By::InverseIn(to), nearest.clone());
            }
            for to in Rounding::ALL {
                let what =
                    format!("divides `{name}` by its scales rounded {to}, and stores them as they are");
                self.add("rounding", what, By::Rounded(to), nearest.clone());
            }
        }
        for first in [dtype, BF16, F16].into_iter().chain(others.iter().copied()) {
            if first.is_integer() || first.bits() < dtype.bits() {
                continue;
            }
            for by in [By::Written, By::Right] {
                let what = format!("rounds the values of `{name}` to {first} before it scales them");
                self.found.push(Coding {
                    cause: "rounding",
                    what: what.into(),
                    first: Some(first),
                    by,
                    value: nearest.clone(),
                });
            }
        }
    }
}
