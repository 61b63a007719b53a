//! From the cells of a test to its sub-cases: one for each tensor that a weight pattern matches in the checkpoint.
//!
//! The plugin and the test process both call [`expand`], so that what is announced, what runs and what is recorded
//! go by the same identities.

use crate::arch::Arch;
use crate::dtype::DType;
use crate::fuzz::{self, Drawn, Extent, NotDrawn, Shape, Space};
use crate::identity::Identity;
use crate::meta::{Axis, AxisKind, Cell, Check, KnownFailure, TestMeta};
use crate::record::{Planned, file_stem};
use crate::weights::{Checkpoint, WeightsError};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One thing to run: a cell of the matrix with its tensors.
#[derive(Clone, Debug)]
pub struct SubCase {
    pub planned: Planned,
    /// Index into the test's cells: of a drawn case, the cell of its chain that runs it.
    pub cell: usize,
    /// Number of tokens: the cell's own, or what was drawn.
    pub tokens: usize,
    /// Why it is not run on this architecture, if it is not.
    pub skip: Option<String>,
}

/// Why a test's matrix cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("test {test} names weights {roles} but no checkpoint: add checkpoint = \"<folder or file>\"")]
    NoCheckpoint { test: String, roles: String },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("no tensor of {} matches {role}; it holds {held}", .role.checkpoint.display())]
    NoMatch { role: Box<Role>, held: Box<str> },
    #[error("{count} tensors of {} match {role}: name the difference with a capture", .role.checkpoint.display())]
    Ambiguous { role: Box<Role>, count: usize },
    #[error("test {test}: {label:?} is no number format that this version knows: {known}")]
    UnknownVariant { test: String, label: String, known: String },
    #[error("test {test}: `archs` names {name:?}, which is no architecture that this version knows: {known}")]
    UnknownArch { test: String, name: String, known: String },
    #[error(
        "test {test}: {arch} decodes none of its variants ({variants}) natively; add one that it does, or say known_failure(arch = \"{arch}\", reason = \"..\") if there can be none"
    )]
    NoNativeVariant { test: String, arch: Arch, variants: String },
}

/// The role of a test whose pattern does not lead to one tensor.
#[derive(Debug)]
pub struct Role {
    pub test: String,
    pub role: String,
    pub pattern: String,
    /// Captures that earlier roles decided, `name=text`.
    pub with: String,
    pub checkpoint: PathBuf,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} (weight {:?} of {})", self.pattern, self.role, self.test)?;
        if !self.with.is_empty() {
            write!(f, " with {}", self.with)?;
        }
        Ok(())
    }
}

/// All sub-cases of a test on an architecture, in the order of its cells and, within one, of the tensors.
pub fn expand(meta: &TestMeta, arch: Arch) -> Result<Vec<SubCase>, PlanError> {
    let bindings = bindings(meta)?;
    let elsewhere = elsewhere(meta, arch)?;
    let variant_axes: Vec<usize> =
        (0..meta.body.axes.len()).filter(|&i| meta.body.axes[i].kind == AxisKind::Variants).collect();
    for &axis in variant_axes.iter().filter(|_| elsewhere.is_none()) {
        let axis = &meta.body.axes[axis];
        let mut native = false;
        for label in &axis.labels {
            native |= arch.native(variant(meta, label)?);
        }
        // A test that says so of the whole architecture has all its cases skipped.
        let said = |failure: &KnownFailure| {
            failure.at.is_empty() && failure.arch.as_ref().is_some_and(|name| name == arch.name())
        };
        if !native && !meta.body.known_failures.iter().any(said) {
            return Err(PlanError::NoNativeVariant {
                test: meta.path(),
                arch,
                variants: axis.labels.join(", "),
            });
        }
    }
    let mut cases = Vec::with_capacity(meta.body.cells.len() * bindings.len());
    for (index, cell) in meta.body.cells.iter().enumerate() {
        let mut skip = elsewhere.clone();
        for &axis in variant_axes.iter().filter(|_| elsewhere.is_none()) {
            let dtype = variant(meta, &meta.body.axes[axis].labels[cell.at[axis]])?;
            if !arch.native(dtype) {
                skip = Some(format!("{arch} does not decode {dtype} natively"));
            } else if cell.check == Check::DtypeVariant
                && first_native(&meta.body.axes[axis], arch) == Some(cell.at[axis])
            {
                skip = Some(format!(
                    "{dtype} is the first variant that {arch} decodes natively: nothing to compare with"
                ));
            }
        }
        for weights in &bindings {
            cases.push(SubCase {
                planned: planned(meta, cell, arch, weights),
                cell: index,
                tokens: cell.tokens,
                skip: skip.clone(),
            });
        }
    }
    Ok(cases)
}

/// Why a test is not run on an architecture at all, if it names others.
fn elsewhere(meta: &TestMeta, arch: Arch) -> Result<Option<String>, PlanError> {
    let mut archs = Vec::new();
    for name in &meta.body.archs {
        let known = name.parse::<Arch>().map_err(|_| PlanError::UnknownArch {
            test: meta.path(),
            name: name.clone(),
            known: Arch::ALL.iter().map(|arch| arch.name()).collect::<Vec<_>>().join(", "),
        });
        archs.push(known?);
    }
    let runs = archs.is_empty() || archs.contains(&arch);
    Ok((!runs).then(|| format!("the test is for {} alone", meta.body.archs.join(" and "))))
}

/// The first variant of an axis that an architecture decodes natively: what other variants are compared with.
pub fn first_native(axis: &Axis, arch: Arch) -> Option<usize> {
    axis.labels.iter().position(|label| label.parse().is_ok_and(|dtype| arch.native(dtype)))
}

fn variant(meta: &TestMeta, label: &str) -> Result<DType, PlanError> {
    label.parse().map_err(|_| PlanError::UnknownVariant {
        test: meta.path(),
        label: label.into(),
        known: DType::ALL.iter().map(|d| d.name()).collect::<Vec<_>>().join(", "),
    })
}

/// The case as the manifest announces it, for one binding of the weights.
pub fn planned(meta: &TestMeta, cell: &Cell, arch: Arch, weights: &BTreeMap<String, String>) -> Planned {
    let body = &meta.body;
    let compared = cell.axis;
    let label = |i: usize| body.axes[i].labels[cell.at[i]].clone();
    let mut id = Identity::new(meta.path());
    id.push("check", cell.check.name());
    id.push("arch", arch.name());
    let mut params = BTreeMap::new();
    let (mut dtype, mut paths) = (None, Vec::new());
    for (i, Axis { name, kind, .. }) in body.axes.iter().enumerate() {
        if compared == Some(i) {
            id.push("parameter", name);
            continue;
        }
        let value = label(i);
        // A parameter check walks through the values of the other parameters by itself.
        if cell.check == Check::Parameter && matches!(kind, AxisKind::Values | AxisKind::Perf) {
            continue;
        }
        id.push(name, value.clone());
        match kind {
            AxisKind::Variants => dtype = dtype.or(Some(value)),
            AxisKind::Paths => paths.push((name.clone(), value, cell.at[i])),
            AxisKind::Values | AxisKind::Perf => {
                params.insert(name.clone(), value);
            }
        }
    }
    id.push("tokens", cell.tokens.to_string());
    for (role, tensor) in weights {
        id.push(role, tensor);
    }
    let path = match &paths[..] {
        [] => None,
        [(_, label, _)] => Some(label.clone()),
        many => Some(many.iter().map(|(n, l, _)| format!("{n}={l}")).collect::<Vec<_>>().join(",")),
    };
    Planned {
        id: id.to_string(),
        package: meta.package.clone(),
        test: body.name.clone(),
        file: meta.file.clone(),
        line: meta.line,
        check: cell.check,
        arch: arch.to_string(),
        dtype,
        path,
        params,
        weights: weights.clone(),
        fuzz: None,
    }
}

/// Drawn cases of a test: `count` for each of its chains, which is a combination of its parameters, in turn with each of its
/// tensors. Without a number there are some only where the test asks for them by `tokens = fuzz(..)`. `listed` is what
/// [`expand`] gives, `seed` replaces the test's own.
pub fn drawn(
    meta: &TestMeta,
    listed: &[SubCase],
    count: Option<usize>,
    seed: Option<u64>,
) -> Result<Vec<SubCase>, PlanError> {
    let Some(count) = count.or(meta.body.fuzz.map(|_| fuzz::DRAWS)) else { return Ok(Vec::new()) };
    let checkpoint = checkpoint(meta)?;
    let mut chains: Vec<Vec<&SubCase>> = Vec::new();
    for case in listed.iter().filter(|case| hosts(meta, case)) {
        match chains.last_mut().filter(|chain| chain[0].cell == case.cell) {
            Some(chain) => chain.push(case),
            None => chains.push(vec![case]),
        }
    }
    let mut cases = Vec::new();
    for chain in chains {
        let spaces: Vec<Space> =
            chain.iter().map(|case| space(meta, checkpoint.as_ref(), &case.planned.weights)).collect();
        // Each chain and tensor has its own shapes, so that a matrix meets more of them.
        let of_host = |case: &SubCase| u64::from_str_radix(&file_stem(&case.planned.id), 16).unwrap_or(0);
        let of_tensor: Vec<Vec<Shape>> = chain
            .iter()
            .zip(&spaces)
            .enumerate()
            .map(|(i, (case, space))| {
                let count = (count + chain.len() - 1 - i) / chain.len();
                fuzz::draw(space, count, seed.unwrap_or(meta.body.seed) ^ of_host(case))
            })
            .collect();
        cases.extend((0..count).map(|i| {
            let tensor = i % chain.len();
            redrawn(chain[tensor], of_tensor[tensor][i / chain.len()])
        }));
    }
    Ok(cases)
}

/// The drawn case that an identity describes; `None` where it is no case of this test, or a listed one.
///
/// # Errors
/// If the identity says that the case is drawn, and not how.
pub fn by_identity(meta: &TestMeta, listed: &[SubCase], id: &str) -> Result<Option<SubCase>, NotDrawn> {
    let identity = Identity::of(id);
    let Some(drawn) = identity.get(fuzz::COORDINATE).filter(|_| identity.path() == meta.path()) else {
        return Ok(None);
    };
    let drawn: Drawn = drawn.parse()?;
    let tokens = identity.get("tokens").and_then(|tokens| tokens.parse().ok());
    let Some(tokens) = tokens.filter(|tokens| (1..=i32::MAX as usize).contains(tokens)) else {
        return Ok(None);
    };
    let mut cases = listed.iter().filter(|case| hosts(meta, case)).map(|case| redrawn(case, (tokens, drawn)));
    Ok(cases.find(|case| case.planned.id == id))
}

/// Whether drawn cases run in the place of this listed one: the first of its chain that runs here.
fn hosts(meta: &TestMeta, case: &SubCase) -> bool {
    let cells = &meta.body.cells;
    let own = &cells[case.cell];
    let first = cells.iter().position(|cell| cell.check == own.check && cell.at == own.at);
    own.check == Check::FullChain && case.skip.is_none() && first == Some(case.cell)
}

fn redrawn(case: &SubCase, shape: Shape) -> SubCase {
    SubCase { planned: case.planned.redrawn(shape), tokens: shape.0, ..case.clone() }
}

/// The shapes from which cases of a test are drawn, with these tensors. Without `tokens = fuzz(..)` they have from one to as
/// many tokens as the largest listed case.
pub fn space_of(meta: &TestMeta, weights: &BTreeMap<String, String>) -> Result<Space, PlanError> {
    Ok(space(meta, checkpoint(meta)?.as_ref(), weights))
}

fn checkpoint(meta: &TestMeta) -> Result<Option<Checkpoint>, PlanError> {
    let path = meta.body.checkpoint.as_ref();
    Ok(path.map(|path| Checkpoint::open(&meta.manifest_dir.join(path))).transpose()?)
}

fn space(meta: &TestMeta, checkpoint: Option<&Checkpoint>, weights: &BTreeMap<String, String>) -> Space {
    let body = &meta.body;
    let most = body.cells.iter().map(|cell| cell.tokens).max().unwrap_or(1);
    let tokens = body.fuzz.map_or(1..=most, |range| range.first..=range.last);
    let slices = checkpoint.filter(|_| body.takes_n || body.takes_k);
    let (n, k) = slices.and_then(|checkpoint| extents(checkpoint, weights)).unwrap_or_default();
    Space { tokens, n: n.filter(|_| body.takes_n), k: k.filter(|_| body.takes_k) }
}

/// The slices of a test's only matrix. There are none of experts, of a weight whose columns or codes have another order, and
/// where a vector belongs to neither dimension or could belong to both.
fn extents(
    checkpoint: &Checkpoint,
    weights: &BTreeMap<String, String>,
) -> Option<(Option<Extent>, Option<Extent>)> {
    let mut matrix = None;
    let mut vectors = Vec::new();
    for tensor in weights.values() {
        match checkpoint.raw(tensor) {
            Ok(raw) if raw.shape.len() == 1 => vectors.push(raw.shape[0]),
            Ok(raw) if raw.shape.len() > 2 => return None,
            _ => {
                let info = checkpoint.describe(tensor).ok()?;
                if info.experts.is_some() || info.stored_otherwise || matrix.is_some() {
                    return None;
                }
                matrix = Some(info);
            }
        }
    }
    let info = matrix?;
    let (rows, cols) = info.granularity.cell(info.rows, info.cols);
    let belongs = |length: &usize| (*length == info.rows) != (*length == info.cols);
    vectors.iter().all(belongs).then(|| (Extent::new(info.rows, rows), Extent::new(info.cols, cols)))
}

/// What a test declares about the failure of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known<'a> {
    pub failure: &'a KnownFailure,
    /// Whether a success is unexpected. A parameter check walks through the values of parameters by itself, so that
    /// a failure declared for one value may or may not show in it.
    pub certain: bool,
}

/// The known failure that speaks of this cell, or of a case that was `drawn` for it, if there is one.
pub fn known_failure<'a>(meta: &'a TestMeta, cell: &Cell, arch: Arch, drawn: bool) -> Option<Known<'a>> {
    meta.body.known_failures.iter().find_map(|failure| {
        if failure.arch.as_ref().is_some_and(|a| *a != arch.to_string()) {
            return None;
        }
        // A drawn shape may be one at which it does not fail.
        let mut certain = !drawn;
        for (name, label) in &failure.at {
            let (axis, &at) = meta.body.axes.iter().zip(&cell.at).find(|(axis, _)| axis.name == *name)?;
            if cell.check == Check::Parameter && matches!(axis.kind, AxisKind::Values | AxisKind::Perf) {
                certain = false;
            } else if axis.labels[at] != *label {
                return None;
            }
        }
        Some(Known { failure, certain })
    })
}

/// Every way to bind the roles to tensors such that a capture of the same name has the same text.
fn bindings(meta: &TestMeta) -> Result<Vec<BTreeMap<String, String>>, PlanError> {
    let body = &meta.body;
    if body.weights.is_empty() {
        return Ok(vec![BTreeMap::new()]);
    }
    let Some(checkpoint) = &body.checkpoint else {
        return Err(PlanError::NoCheckpoint {
            test: meta.path(),
            roles: body.weights.iter().map(|(role, _)| role.as_str()).collect::<Vec<_>>().join(", "),
        });
    };
    let checkpoint = Checkpoint::open(&meta.manifest_dir.join(checkpoint))?;
    let mut found: Vec<(BTreeMap<String, String>, BTreeMap<String, String>)> = vec![Default::default()];
    for (i, (role, pattern)) in body.weights.iter().enumerate() {
        let matches = checkpoint.matches(pattern)?;
        let mut next = Vec::new();
        for (bound, captures) in &found {
            let fitting: Vec<_> = matches
                .iter()
                .filter(|m| m.captures.iter().all(|(k, v)| captures.get(k).is_none_or(|c| c == v)))
                .collect();
            let at = || {
                Box::new(Role {
                    test: meta.path(),
                    role: role.clone(),
                    pattern: pattern.clone(),
                    with: captures.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", "),
                    checkpoint: checkpoint.path().into(),
                })
            };
            if fitting.is_empty() {
                return Err(PlanError::NoMatch { role: at(), held: sample(checkpoint.names()).into() });
            }
            // The first role spans the sub-cases; a later one must be decided by the captures it shares.
            if i > 0 && fitting.len() > 1 {
                return Err(PlanError::Ambiguous { role: at(), count: fitting.len() });
            }
            for hit in fitting {
                let (mut bound, mut captures) = (bound.clone(), captures.clone());
                bound.insert(role.clone(), hit.name.clone());
                captures.extend(hit.captures.iter().map(|(k, v)| (k.clone(), v.clone())));
                next.push((bound, captures));
            }
        }
        found = next;
    }
    Ok(found.into_iter().map(|(bound, _)| bound).collect())
}

fn sample<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let shown = names.iter().take(4).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "no tensor".into(),
        n if n > 4 => format!("{n} tensors ({shown}, ...)"),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Body;

    fn test(archs: &[&str], variants: &[&str]) -> TestMeta {
        let axis = Axis {
            name: "dtype".into(),
            kind: AxisKind::Variants,
            labels: variants.iter().map(ToString::to_string).collect(),
        };
        let cell = Cell { name: "c".into(), check: Check::FullChain, at: vec![0], tokens: 1, axis: None };
        let body = Body {
            name: "t".into(),
            archs: archs.iter().map(ToString::to_string).collect(),
            axes: vec![axis],
            cells: vec![cell],
            ..Body::default()
        };
        TestMeta {
            package: "p".into(),
            module: "p::m".into(),
            file: "tests/m.rs".into(),
            line: 1,
            manifest_dir: PathBuf::new(),
            can_emulate: false,
            body,
        }
    }

    #[test]
    fn values_with_commas_are_whole_coordinates() {
        let mut meta = test(&[], &["e4m3fn"]);
        meta.body.axes = vec![Axis {
            name: "tile".into(),
            kind: AxisKind::Values,
            labels: ["(64,128)", "(64,256)", "x,tokens=3"].map(String::from).to_vec(),
        }];
        meta.body.cells = (0..3)
            .map(|at| Cell {
                name: format!("c{at}"),
                check: Check::FullChain,
                at: vec![at],
                tokens: 1,
                axis: None,
            })
            .collect();
        let cases = expand(&meta, Arch::Host).unwrap();
        assert_eq!(cases[0].planned.id, "p::m::t[check=full_chain,arch=host,tile=(64,128),tokens=1]");
        for (case, label) in cases.iter().zip(&meta.body.axes[0].labels) {
            let identity = Identity::of(&case.planned.id);
            assert_eq!(identity.get("tile"), Some(label.as_str()));
            assert_eq!(case.planned.params["tile"], *label);
            assert_eq!((identity.get("tokens"), identity.coordinates().count()), (Some("1"), 4));
        }
    }

    #[test]
    fn drawn_cases_stand_in_for_a_listed_one_and_their_identities_make_them_again() {
        let mut meta = test(&[], &["e4m3fn", "int8"]);
        let cell = |at: usize, tokens: usize, check: Check| Cell {
            name: format!("c{at}_{tokens}"),
            check,
            at: vec![at],
            tokens,
            axis: None,
        };
        meta.body.cells = vec![
            cell(0, 5, Check::FullChain),
            cell(0, 9, Check::FullChain),
            cell(1, 5, Check::FullChain),
            cell(1, 5, Check::DtypeVariant),
        ];
        let listed = expand(&meta, Arch::Host).unwrap();
        assert!(drawn(&meta, &listed, None, None).unwrap().is_empty(), "nobody asks for any");
        let all = drawn(&meta, &listed, Some(6), None).unwrap();
        assert_eq!(
            all.iter().map(|case| case.cell).collect::<Vec<_>>(),
            [0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2]
        );
        let shapes = |cell: usize| -> Vec<(usize, Option<Drawn>)> {
            let of_cell = all.iter().filter(|case| case.cell == cell);
            of_cell.map(|case| (case.tokens, case.planned.fuzz)).collect()
        };
        assert_ne!(shapes(0), shapes(2), "each chain meets its own shapes");
        for case in &all {
            assert!((1..=9).contains(&case.tokens), "up to the largest that is listed");
            let identity = Identity::of(&case.planned.id);
            assert_eq!(identity.get("tokens"), Some(case.tokens.to_string().as_str()));
            assert_eq!(identity.get(fuzz::COORDINATE).unwrap().parse(), Ok(case.planned.fuzz.unwrap()));
            let again = by_identity(&meta, &listed, &case.planned.id).unwrap().unwrap();
            assert_eq!((again.cell, again.tokens, &again.planned), (case.cell, case.tokens, &case.planned));
        }
        assert_eq!(
            drawn(&meta, &listed, Some(6), None).unwrap().iter().map(|c| &c.planned.id).collect::<Vec<_>>(),
            all.iter().map(|case| &case.planned.id).collect::<Vec<_>>()
        );
        assert_ne!(drawn(&meta, &listed, Some(6), Some(1)).unwrap()[1].planned.id, all[1].planned.id);
        // A listed case, one of another test, and one that describes nothing.
        assert!(by_identity(&meta, &listed, &listed[0].planned.id).unwrap().is_none());
        let id = all[0].planned.id.as_str();
        assert!(by_identity(&meta, &listed, &id.replace("::t[", "::u[")).unwrap().is_none());
        let odd = id.replace(&all[0].planned.fuzz.unwrap().to_string(), "1:odd");
        assert_eq!(by_identity(&meta, &listed, &odd).unwrap_err(), NotDrawn("1:odd".into()));
        // The attribute asks for some, of its own range.
        meta.body.fuzz = Some(crate::meta::TokenRange { first: 64, last: 70 });
        let asked = drawn(&meta, &listed, None, None).unwrap();
        assert_eq!(asked.len(), 2 * fuzz::DRAWS);
        assert!(asked.iter().all(|case| (64..=70).contains(&case.tokens)));
    }

    fn skips(archs: &[&str], variants: &[&str], arch: Arch) -> Option<String> {
        expand(&test(archs, variants), arch).unwrap().remove(0).skip
    }

    #[test]
    fn a_test_runs_on_the_architectures_that_it_names_and_is_skipped_on_others() {
        assert_eq!(skips(&[], &["e4m3fn"], Arch::Gfx950), None);
        assert_eq!(skips(&["gfx950"], &["e4m3fn"], Arch::Gfx950), None);
        let skip = skips(&["gfx942", "gfx950"], &["e4m3fn"], Arch::Host);
        assert_eq!(skip.as_deref(), Some("the test is for gfx942 and gfx950 alone"));
        // Its formats are not asked for where it does not run.
        assert!(skips(&["gfx950"], &["e4m3fn"], Arch::Gfx942).is_some());
        assert!(matches!(
            expand(&test(&["gfx940"], &["e4m3fn"]), Arch::Host),
            Err(PlanError::UnknownArch { name, .. }) if name == "gfx940"
        ));
    }
}
