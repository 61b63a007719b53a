//! Where the wrong elements of a hop come from: what flowed into them on the emulated device, beside what the declaration
//! computes them from.
//!
//! A few wrong elements and a few right ones are looked at. What each wrong one took that the declaration does not read, or
//! did not take that it reads, is the cause if no right one has such a difference.

mod claim;

use crate::case::{Attempt, Captured, Part};
use crate::device::emulation::{self, Answer, Asked, Taken};
use crate::judge::{Given, JudgedHop};
use crate::quant::quantize;
use crate::record::{Block, Cause, Elements, Origin};
use crate::reference::reads::{Reads, Rect};
use crate::reference::{BufferId, Expr, eval};
use crate::symbol::readable;
use crate::words::Words;
use claim::{Checked, Claim};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Wrong elements, and right ones, that are looked at.
const ELEMENTS: usize = 3;
/// Blocks of elements that a record has.
const BLOCKS: usize = 64;

/// Where elements of a hop come from, and the cause that follows from it.
#[derive(Default)]
pub struct Origins {
    pub elements: Vec<Origin>,
    /// The difference from the declaration that all wrong elements share, and no right one has.
    pub cause: Option<Cause>,
}

/// An element of a part of a buffer.
type Element = (Part, usize, usize);

/// Says where wrong elements of a hop come from. `run` runs the chain once more on the same inputs, and says whether that
/// ended well.
pub fn look(attempt: &Attempt, judged: &JudgedHop, run: impl FnMut() -> bool) -> Origins {
    let buffer = attempt.buffer(judged.id);
    let Some(source) = &buffer.source else { return Origins::default() };
    let given = Given::new(attempt);
    let chosen = choose(buffer, judged, source, &given);
    if !chosen.iter().any(|(_, wrong)| *wrong) {
        return Origins::default();
    }
    let mut layouts = Layouts { attempt, known: HashMap::new() };
    let mut elements = Vec::new();
    let mut asked = Vec::new();
    for &(element @ (part, r, c), wrong) in &chosen {
        let Some(layout) = layouts.get(judged.id, part) else { continue };
        let Some(offset) = layout.offsets.get(&(r, c)).and_then(|of| of.first()).copied() else { continue };
        let (offset, bytes) = (offset, layout.bytes);
        asked.push(Asked { buffer: part.name(layouts.name(judged.id)), offset, bytes });
        elements.push((element, wrong));
    }
    let targets = Part::ALL.iter().map(|part| part.name(layouts.name(judged.id))).collect();
    let Some(answers) = emulation::ask(targets, asked, run) else { return Origins::default() };
    let found: Vec<Flow> = elements
        .iter()
        .zip(answers)
        .map(|(&(element, wrong), answer)| {
            let declared = declared(buffer, source, element, &given, &mut layouts);
            let mut flow = Flow::new(element, wrong, answer, declared, &mut layouts);
            if wrong && flow.answer.not_followed.is_empty() {
                let (extra, missing) = (&flow.extra, &flow.missing);
                flow.claim = Checked { buffer, source, element, extra, missing }.claim(&given, &mut layouts);
            }
            flow
        })
        .collect();
    let name = layouts.name(judged.id);
    let cause = cause(name, &found, &mut layouts);
    let elements = found.into_iter().map(|flow| flow.origin(name, &mut layouts)).collect();
    Origins { elements, cause }
}

/// Wrong elements and right ones near them, the worst first.
fn choose(buffer: &Captured, judged: &JudgedHop, source: &Expr, given: &Given<'_>) -> Vec<(Element, bool)> {
    let mut chosen = Vec::new();
    match (buffer.scheme, buffer.quantized()) {
        (Some(scheme), Some(written)) => {
            let expected = quantize(&eval(source, given), &scheme, buffer.factor);
            let grid = scheme.granularity.grid(buffer.rows, buffer.cols);
            if scheme.static_scale.is_none() {
                chosen.extend(of_part(Part::Scales, &expected.scales, &written.scales, grid, 0.2));
            }
            let values =
                |codes: &[u32]| -> Vec<f64> { codes.iter().map(|code| buffer.dtype.decode(*code)).collect() };
            let (expected, written) = (values(&expected.codes), values(&written.codes));
            // A code may be a step off where the scale is.
            let shape = (buffer.rows, buffer.cols);
            chosen.extend(of_part(Part::Elements, &expected, &written, shape, 0.3));
        }
        _ => {
            let out = buffer.value();
            let shape = (buffer.rows, buffer.cols);
            chosen.extend(of_part(Part::Elements, &judged.reference.data, &out.data, shape, 0.05));
        }
    }
    chosen
}

/// Elements of one part that are wrong by more than a share of what they should be, and right ones.
fn of_part(
    part: Part,
    expected: &[f64],
    written: &[f64],
    (rows, cols): (usize, usize),
    share: f64,
) -> Vec<(Element, bool)> {
    let finite = || expected.iter().filter(|x| x.is_finite());
    let rms = (finite().map(|x| x * x).sum::<f64>() / finite().count().max(1) as f64).sqrt();
    let error = |i: usize| match (expected[i], written[i]) {
        (a, b) if a == b || a.is_nan() && b.is_nan() => 0.0,
        (a, b) if a.is_finite() && b.is_finite() => (a - b).abs() / (a.abs() + 0.1 * rms),
        _ => f64::INFINITY,
    };
    let count = rows * cols;
    if count == 0 || written.len() < count || expected.len() < count {
        return Vec::new();
    }
    let mut wrong: Vec<usize> = (0..count).filter(|i| error(*i) > share).collect();
    wrong.sort_by(|a, b| error(*b).total_cmp(&error(*a)).then(a.cmp(b)));
    // Of a row and of a column only one, as long as there are others.
    let mut worst: Vec<usize> = Vec::new();
    for apart in [true, false] {
        for &i in &wrong {
            let shares = |j: &usize| i / cols == j / cols || i % cols == j % cols;
            let fits = if apart { !worst.iter().any(shares) } else { !worst.contains(&i) };
            if worst.len() < ELEMENTS && fits {
                worst.push(i);
            }
        }
    }
    // Relative to the element itself: relative to the largest ones, a small element that is quite wrong would count as right.
    let is_right = |i: &usize| match (expected[*i], written[*i]) {
        (a, b) if a.is_nan() => b.is_nan(),
        (a, b) => a == b || (a - b).abs() <= share / 20.0 * a.abs(),
    };
    // The right elements nearest to the wrong ones differ least from them in how they were computed.
    let mut right: Vec<usize> = Vec::new();
    for &i in &worst {
        let distance = |j: usize| {
            let (r, c) = ((i / cols).abs_diff(j / cols), (i % cols).abs_diff(j % cols));
            (usize::from(r > 0) + usize::from(c > 0), r + c)
        };
        let near = (0..count).filter(|j| is_right(j) && !right.contains(j)).min_by_key(|j| distance(*j));
        right.extend(near);
    }
    let element = |i: &usize| (part, i / cols, i % cols);
    let wrong = worst.iter().map(|i| (element(i), true));
    wrong.chain(right.iter().map(|i| (element(i), false))).collect()
}

/// How the elements of a part lie in memory, and which lie at an offset.
struct Layout {
    bytes: u64,
    shape: [u64; 2],
    offsets: HashMap<(usize, usize), Vec<u64>>,
    elements: HashMap<u64, Vec<(usize, usize)>>,
}

struct Layouts<'a> {
    attempt: &'a Attempt,
    known: HashMap<(BufferId, Part), Option<Layout>>,
}

/// Elements of a part beyond which none of them is told from another.
const MOST: usize = 1 << 24;

impl<'a> Layouts<'a> {
    fn get(&mut self, id: BufferId, part: Part) -> Option<&Layout> {
        let attempt = self.attempt;
        let make = || {
            let places = attempt.buffer(id).places(part).filter(|places| places.indices.len() <= MOST)?;
            let bytes = places.bytes() as u64;
            let shape = [places.rows as u64, places.cols as u64];
            let mut layout = Layout { bytes, shape, offsets: HashMap::new(), elements: HashMap::new() };
            for r in 0..places.rows {
                for c in 0..places.cols {
                    let offsets: Vec<u64> = places.offsets(r, c).collect();
                    offsets.iter().for_each(|at| layout.elements.entry(*at).or_default().push((r, c)));
                    layout.offsets.insert((r, c), offsets);
                }
            }
            Some(layout)
        };
        self.known.entry((id, part)).or_insert_with(make).as_ref()
    }

    /// The buffer by which a test names the memory of this one: the one before an update in place.
    fn memory(&self, id: BufferId) -> BufferId {
        self.attempt.buffer(id).lies_in
    }

    /// The name of a buffer's memory.
    fn name(&self, id: BufferId) -> &'a str {
        &self.attempt.buffer(self.memory(id)).name
    }

    /// The part of a buffer that has this name.
    fn find(&self, name: &str) -> Option<(BufferId, Part)> {
        let ids = (0..self.attempt.buffers.len()).map(BufferId);
        let mut all = ids.flat_map(|id| Part::ALL.map(|part| (id, part)));
        all.find(|(id, part)| part.name(&self.attempt.buffer(*id).name) == name)
    }

    /// The elements that lie at some bytes of a part, in their order; `None` where that is not known.
    fn list(&mut self, (id, part): (BufferId, Part), offsets: &BTreeSet<u64>) -> Option<Vec<(usize, usize)>> {
        let layout = self.get(id, part)?;
        let all: BTreeSet<(usize, usize)> =
            offsets.iter().filter_map(|at| layout.elements.get(at)).flatten().copied().collect();
        (!all.is_empty()).then(|| all.into_iter().collect())
    }

    /// Bytes of a part, as elements.
    fn elements(&mut self, (id, part): (BufferId, Part), offsets: &BTreeSet<u64>) -> Elements {
        let buffer = part.name(self.name(id));
        let mut all: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut shape = None;
        if let Some(layout) = self.get(id, part) {
            all.extend(offsets.iter().filter_map(|at| layout.elements.get(at)).flatten());
            shape = Some(layout.shape);
        }
        // What lies where no element is, or in an order that is not known, has no row and column.
        let count = if all.is_empty() { offsets.len() } else { all.len() } as u64;
        Elements { buffer, count, blocks: blocks(&all), shape }
    }
}

/// The first blocks of some elements: runs of columns, then rows with the same runs.
fn blocks(elements: &BTreeSet<(usize, usize)>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut runs: BTreeMap<usize, Vec<[u64; 2]>> = BTreeMap::new();
    for &(r, c) in elements {
        let runs = runs.entry(r).or_default();
        match runs.last_mut() {
            Some([_, last]) if *last + 1 == c as u64 => *last += 1,
            _ => runs.push([c as u64; 2]),
        }
    }
    for (r, runs) in runs {
        let r = r as u64;
        for columns in runs {
            let above = blocks.iter_mut().find(|b| b.columns == columns && b.rows[1] + 1 == r);
            match above {
                Some(block) => block.rows[1] = r,
                None => blocks.push(Block { rows: [r; 2], columns }),
            }
        }
    }
    blocks.truncate(BLOCKS);
    blocks
}

/// Bytes of parts of buffers.
type Bytes = BTreeMap<(BufferId, Part), BTreeSet<u64>>;

/// What the declaration computes an element from.
#[derive(Default)]
struct Declared {
    values: Bytes,
    steering: Bytes,
    /// Parts of which any byte may be read.
    any: BTreeSet<BufferId>,
}

fn declared(
    buffer: &Captured,
    source: &Expr,
    (part, r, c): Element,
    given: &Given<'_>,
    layouts: &mut Layouts<'_>,
) -> Declared {
    let at = match (buffer.scheme, part) {
        (None, _) => Rect::new(r..r + 1, c..c + 1),
        (Some(scheme), _) => {
            let (rows, cols) = (buffer.rows, buffer.cols);
            let (cell_rows, cell_cols) = scheme.granularity.cell(rows, cols);
            let (gr, gc) = if part == Part::Elements { (r / cell_rows, c / cell_cols) } else { (r, c) };
            match scheme.static_scale {
                Some(_) if part == Part::Elements => Rect::new(r..r + 1, c..c + 1),
                _ => Rect::new(
                    gr * cell_rows..((gr + 1) * cell_rows).min(rows),
                    gc * cell_cols..((gc + 1) * cell_cols).min(cols),
                ),
            }
        }
    };
    let reads = Reads::of(source, at, given);
    let any = reads.any.into_iter().map(|id| layouts.memory(id)).collect();
    let mut declared = Declared { any, ..Declared::default() };
    for (of, into) in [(reads.values, &mut declared.values), (reads.steering, &mut declared.steering)] {
        for (id, rects) in of {
            for rect in rects {
                add(layouts, id, &rect, into);
            }
        }
    }
    if buffer.factor != 1.0 {
        // The framework gives the factor to the kernel.
        declared.any.insert(buffer.lies_in);
    }
    declared
}

/// Adds the bytes of some values of a buffer: elements, and what is stored beside them.
fn add(layouts: &mut Layouts<'_>, id: BufferId, rect: &Rect, into: &mut Bytes) {
    let id = layouts.memory(id);
    let buffer = layouts.attempt.buffer(id);
    let (cell_rows, cell_cols) =
        buffer.scheme.map_or((1, 1), |scheme| scheme.granularity.cell(buffer.rows, buffer.cols));
    for part in Part::ALL {
        let Some(layout) = layouts.get(id, part) else { continue };
        let (rows, cols) = match part {
            Part::Elements => (rect.rows(), rect.cols()),
            Part::Scales | Part::ZeroPoints => (
                rect.rows.0 / cell_rows..rect.rows.1.div_ceil(cell_rows),
                rect.cols.0 / cell_cols..rect.cols.1.div_ceil(cell_cols),
            ),
            Part::GlobalScale => (0..1, 0..1),
        };
        let of = into.entry((id, part)).or_default();
        for r in rows {
            for c in cols.clone() {
                of.extend(layout.offsets.get(&(r, c)).into_iter().flatten());
            }
        }
    }
}

/// What flowed into an element, beside what is declared.
struct Flow {
    element: Element,
    wrong: bool,
    answer: Answer,
    took: Bytes,
    steered_by: Bytes,
    declared: Declared,
    extra: Bytes,
    missing: Bytes,
    /// Whether what it took gives what was written.
    claim: Claim,
}

impl Flow {
    fn new(
        element: Element,
        wrong: bool,
        mut answer: Answer,
        declared: Declared,
        layouts: &mut Layouts<'_>,
    ) -> Flow {
        let named = |all: &[Taken]| -> Bytes {
            all.iter()
                .filter_map(|taken| Some((layouts.find(&taken.buffer)?, taken.offsets.clone())))
                .collect()
        };
        let (took, steered_by) = (named(&answer.took), named(&answer.steered_by));
        for (id, part) in took.keys() {
            if layouts.get(*id, *part).is_none() {
                let name = part.name(layouts.name(*id));
                answer.not_followed.push(format!("in which order the elements of `{name}` lie"));
            }
        }
        let empty = BTreeSet::new();
        let mut extra = Bytes::new();
        for (key, bytes) in took.iter().filter(|((id, _), _)| !declared.any.contains(id)) {
            let reads = declared.values.get(key).unwrap_or(&empty);
            let steers = declared.steering.get(key).unwrap_or(&empty);
            let more: BTreeSet<u64> = bytes
                .iter()
                .filter(|byte| !reads.contains(byte) && !steers.contains(byte))
                .copied()
                .collect();
            if !more.is_empty() {
                extra.insert(*key, more);
            }
        }
        let mut missing = Bytes::new();
        for (key, bytes) in declared.values.iter().filter(|((id, _), _)| !declared.any.contains(id)) {
            let (values, through) = (took.get(key).unwrap_or(&empty), steered_by.get(key).unwrap_or(&empty));
            let less: BTreeSet<u64> = bytes
                .iter()
                .filter(|byte| !values.contains(byte) && !through.contains(byte))
                .copied()
                .collect();
            if !less.is_empty() {
                missing.insert(*key, less);
            }
        }
        let claim = Claim::Unknown;
        Flow { element, wrong, answer, took, steered_by, declared, extra, missing, claim }
    }

    fn origin(self, buffer: &str, layouts: &mut Layouts<'_>) -> Origin {
        let mut elements = |bytes: &Bytes| -> Vec<Elements> {
            bytes.iter().map(|(key, offsets)| layouts.elements(*key, offsets)).collect()
        };
        let (part, row, column) = self.element;
        Origin {
            buffer: part.name(buffer),
            row: row as u64,
            column: column as u64,
            wrong: self.wrong,
            took: elements(&self.took),
            steered_by: elements(&self.steered_by),
            declared: elements(&self.declared.values),
            extra: elements(&self.extra),
            missing: elements(&self.missing),
            computed: match self.claim {
                Claim::Confirmed => Some(true),
                Claim::Refuted => Some(false),
                Claim::Unknown => None,
            },
            writer: self.answer.writer,
            not_followed: self.answer.not_followed,
        }
    }
}

/// The difference that all wrong elements of one part have, and no right one.
fn cause(buffer: &str, flows: &[Flow], layouts: &mut Layouts<'_>) -> Option<Cause> {
    Part::ALL.iter().find_map(|part| {
        let of_part: Vec<&Flow> = flows.iter().filter(|flow| flow.element.0 == *part).collect();
        cause_of(buffer, *part, &of_part, layouts)
    })
}

/// Whether a difference is certain to be the cause. What was taken has to give what was written, where that can be computed.
/// Otherwise there have to be right elements beside the wrong ones, for a difference may be one that does no harm.
fn is_certain(claims: &[Claim], right: usize) -> bool {
    claims.len() > 1
        && match claims.iter().all(|claim| *claim == Claim::Confirmed) {
            true => true,
            false => !claims.contains(&Claim::Refuted) && right > 1,
        }
}

fn cause_of(buffer: &str, part: Part, flows: &[&Flow], layouts: &mut Layouts<'_>) -> Option<Cause> {
    let (wrong, right): (Vec<&Flow>, Vec<&Flow>) = flows.iter().copied().partition(|flow| flow.wrong);
    // What is not known of one of them might be what makes it right or wrong.
    if wrong.is_empty()
        || flows.iter().any(|flow| !flow.answer.not_followed.is_empty() || flow.answer.writer.is_none())
    {
        return None;
    }
    // Parts of buffers of which every wrong element takes too much, or too little, and no right one does.
    let differs = |of: fn(&Flow) -> &Bytes| -> BTreeSet<(BufferId, Part)> {
        let mut keys: BTreeSet<(BufferId, Part)> = of(wrong[0]).keys().copied().collect();
        keys.retain(|key| {
            wrong.iter().all(|flow| of(flow).contains_key(key))
                && !right.iter().any(|flow| of(flow).contains_key(key))
        });
        keys
    };
    let (extra, missing) = (differs(|flow| &flow.extra), differs(|flow| &flow.missing));
    if extra.is_empty() && missing.is_empty() {
        return None;
    }
    let first = wrong[0];
    let writer = first.answer.writer.as_ref()?;
    let line = match (&writer.file, writer.line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        _ => String::new(),
    };
    let mut named = |keys: &BTreeSet<(BufferId, Part)>, of: &Bytes| -> Vec<String> {
        let of_key = |key: &(BufferId, Part)| Some(layouts.elements(*key, of.get(key)?).to_string());
        keys.iter().filter_map(of_key).collect()
    };
    let (took, left) = (named(&extra, &first.extra), named(&missing, &first.missing));
    let difference = match (took.is_empty(), left.is_empty()) {
        (false, false) => format!("takes {} for {}", took.join(", "), left.join(", ")),
        (false, true) => format!("also takes {}", took.join(", ")),
        (true, _) => format!("does not take {}", left.join(", ")),
    };
    let (_, r, c) = first.element;
    let name = part.name(buffer);
    let claims: Vec<Claim> = wrong.iter().map(|flow| flow.claim).collect();
    let computed = match claims.iter().all(|claim| *claim == Claim::Confirmed) {
        true => ", which gives what it wrote",
        false => "",
    };
    let counted = format!(
        "so it is with {} wrong elements that were looked at, and with none of {} right ones",
        wrong.len(),
        right.len()
    );
    let mut operands: BTreeSet<BufferId> = extra.iter().chain(&missing).map(|(id, _)| *id).collect();
    let operand = operands.pop_first().filter(|_| operands.is_empty());
    Some(Cause {
        cause: if extra.is_empty() { "elements_left_out" } else { "other_elements" }.into(),
        detail: format!(
            "`{}`{line} {difference} in {name}[{r}, {c}]{computed}; {counted}",
            readable(&writer.kernel)
        ),
        what: Words::takes(format!("other elements than declared for `{name}`")),
        operand: operand.map(|id| layouts.name(id).to_owned()),
        confident: is_certain(&claims, right.len()),
        ..Cause::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_told_as_blocks() {
        let elements = BTreeSet::from([(1, 4), (1, 5), (2, 4), (2, 5), (3, 9)]);
        let expected = [Block { rows: [1, 2], columns: [4, 5] }, Block { rows: [3, 3], columns: [9, 9] }];
        assert_eq!(blocks(&elements), expected);
        let all = Elements { buffer: "xs".into(), count: 7, blocks: blocks(&elements), shape: None };
        assert_eq!(all.to_string(), "xs[1..2, 4..5], xs[3, 9] and 2 more elements of xs");
    }

    #[test]
    fn the_worst_elements_are_looked_at_and_right_ones_beside_them() {
        let expected = vec![1.0; 12];
        let mut written = expected.clone();
        (written[1], written[2], written[6]) = (3.0, 9.0, 2.0);
        let chosen = of_part(Part::Elements, &expected, &written, (3, 4), 0.05);
        let wrong: Vec<Element> = chosen.iter().filter(|(_, wrong)| *wrong).map(|(e, _)| *e).collect();
        assert_eq!(wrong, [(Part::Elements, 0, 2), (Part::Elements, 0, 1), (Part::Elements, 1, 2)]);
        let right: Vec<Element> = chosen.iter().filter(|(_, wrong)| !wrong).map(|(e, _)| *e).collect();
        assert_eq!(right, [(Part::Elements, 0, 3), (Part::Elements, 0, 0), (Part::Elements, 1, 1)]);
    }

    #[test]
    fn a_claim_is_certain_if_it_gives_what_was_written_or_right_elements_speak_for_it() {
        use Claim::{Confirmed, Refuted, Unknown};
        assert!(is_certain(&[Confirmed, Confirmed], 0));
        assert!(is_certain(&[Unknown, Unknown, Confirmed], 2));
        assert!(!is_certain(&[Unknown, Unknown], 1));
        assert!(!is_certain(&[Confirmed], 3));
        assert!(!is_certain(&[Confirmed, Refuted], 3));
    }

    #[test]
    fn a_small_element_is_right_by_its_own_size() {
        let expected = vec![100.0, 100.0, 1e-3, 2e-3];
        let written = vec![900.0, 100.0, 2e-3, 2e-3];
        let chosen = of_part(Part::Elements, &expected, &written, (4, 1), 0.05);
        let right: Vec<usize> = chosen.iter().filter(|(_, wrong)| !wrong).map(|((_, r, _), _)| *r).collect();
        assert_eq!(right, [1], "row 2 is off by its whole size");
    }
}
