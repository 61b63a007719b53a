//! The matrix: which cells the axes of a function span, in which order, and what each is called.

use std::collections::HashSet;

/// More than this is a mistake: no machine runs it, and rustc takes minutes.
pub const MAX_CELLS: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisKind {
    Variants,
    Paths,
    Values,
    Perf,
}

impl AxisKind {
    pub const ALL: [AxisKind; 4] = [AxisKind::Variants, AxisKind::Paths, AxisKind::Values, AxisKind::Perf];

    /// Name of the attribute, and of the kind in the metadata.
    pub fn name(self) -> &'static str {
        match self {
            AxisKind::Variants => "variants",
            AxisKind::Paths => "paths",
            AxisKind::Values => "values",
            AxisKind::Perf => "perf",
        }
    }
}

/// One parameter of the function with the labels of its values.
#[derive(Clone, Debug)]
pub struct Axis {
    pub name: String,
    pub kind: AxisKind,
    pub labels: Vec<String>,
}

/// One generated `#[test]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub name: String,
    pub check: &'static str,
    /// Index into the labels of each axis.
    pub at: Vec<usize>,
    pub tokens: usize,
    /// The axis whose values a `parameter` check compares.
    pub axis: Option<usize>,
}

/// How many cells [`cells`] makes, `usize::MAX` where that is beyond counting.
pub fn count(axes: &[Axis], tokens: &[usize]) -> usize {
    let product = |of: &dyn Fn(AxisKind) -> bool| {
        axes.iter().filter(|a| of(a.kind)).fold(1usize, |n, a| n.saturating_mul(a.labels.len()))
    };
    let all = product(&|_| true);
    let fallback = all.saturating_sub(product(&|kind| kind != AxisKind::Paths));
    let variant = all.saturating_sub(product(&|kind| kind != AxisKind::Variants));
    let compared = axes.iter().filter(|a| is_compared(a)).count();
    let parameter = product(&is_swept).saturating_mul(compared);
    let per_token = all.saturating_add(fallback).saturating_add(variant);
    per_token.saturating_mul(tokens.len()).saturating_add(parameter)
}

fn is_compared(axis: &Axis) -> bool {
    axis.kind == AxisKind::Values && axis.labels.len() >= 2
}

fn is_swept(kind: AxisKind) -> bool {
    matches!(kind, AxisKind::Variants | AxisKind::Paths)
}

/// All cells: by check, then by axis in the order of the parameters (the last varies fastest), then by tokens.
pub fn cells(axes: &[Axis], tokens: &[usize]) -> Vec<Cell> {
    let everything = combinations(axes, |_| true);
    let off_first = |at: &[usize], kind| axes.iter().zip(at).any(|(axis, &i)| axis.kind == kind && i > 0);
    let mut cells = Vec::with_capacity(count(axes, tokens).min(MAX_CELLS));
    let mut names = HashSet::new();
    let mut push = |check, at: &[usize], tokens, axis: Option<usize>| {
        let name = unique(&mut names, name(axes, check, at, tokens, axis));
        cells.push(Cell { name, check, at: at.to_vec(), tokens, axis });
    };
    for at in &everything {
        tokens.iter().for_each(|&t| push("full_chain", at, t, None));
    }
    for (check, kind) in [("fallback_vs_primary", AxisKind::Paths), ("dtype_variant", AxisKind::Variants)] {
        for at in everything.iter().filter(|at| off_first(at, kind)) {
            tokens.iter().for_each(|&t| push(check, at, t, None));
        }
    }
    let swept = combinations(axes, is_swept);
    let most = tokens.iter().copied().max().unwrap_or_default();
    for axis in (0..axes.len()).filter(|&i| is_compared(&axes[i])) {
        swept.iter().for_each(|at| push("parameter", at, most, Some(axis)));
    }
    cells
}

/// Every combination of the axes of the kinds that `varies` names, the others at their first value.
fn combinations(axes: &[Axis], varies: impl Fn(AxisKind) -> bool) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::with_capacity(axes.len())];
    for axis in axes {
        let len = if varies(axis.kind) { axis.labels.len() } else { 1 };
        all = all
            .into_iter()
            .flat_map(|at| {
                (0..len).map(move |i| {
                    let mut at = at.clone();
                    at.push(i);
                    at
                })
            })
            .collect();
    }
    all
}

/// `full_chain_dtype_e4m3fn_quant_primary_tokens_33`, `parameter_shuffle_scale_dtype_e4m3fn_tokens_128`.
fn name(axes: &[Axis], check: &str, at: &[usize], tokens: usize, compared: Option<usize>) -> String {
    let mut name = String::from(check);
    if let Some(axis) = compared {
        push_word(&mut name, &axes[axis].name);
    }
    for (axis, &i) in axes.iter().zip(at) {
        // A parameter check walks through all values by itself.
        if compared.is_none() || is_swept(axis.kind) {
            push_word(&mut name, &axis.name);
            push_word(&mut name, &axis.labels[i]);
        }
    }
    push_word(&mut name, "tokens");
    push_word(&mut name, &tokens.to_string());
    name
}

/// Appends `_` and what of `text` can stand in a snake-case identifier.
fn push_word(name: &mut String, text: &str) {
    name.push('_');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if c == '-' && chars.peek().is_some_and(char::is_ascii_digit) {
            name.push_str(if name.ends_with('_') { "minus_" } else { "_minus_" });
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    while name.ends_with('_') {
        name.pop();
    }
}

/// `name`, or with the first number behind it that no other cell has.
fn unique(names: &mut HashSet<String>, name: String) -> String {
    let mut candidate = name.clone();
    let mut n = 2;
    while !names.insert(candidate.clone()) {
        candidate = format!("{name}_{n}");
        n += 1;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(name: &str, kind: AxisKind, labels: &[&str]) -> Axis {
        Axis { name: name.into(), kind, labels: labels.iter().map(|&l| l.into()).collect() }
    }

    fn chain() -> Vec<Axis> {
        vec![
            axis("dtype", AxisKind::Variants, &["e4m3fn", "e4m3fnuz"]),
            axis("quant", AxisKind::Paths, &["primary", "fallback"]),
            axis("shuffle_scale", AxisKind::Values, &["false", "true"]),
            axis("tile", AxisKind::Perf, &["64", "128", "256"]),
        ]
    }

    fn of<'a>(cells: &'a [Cell], check: &str) -> Vec<&'a Cell> {
        cells.iter().filter(|c| c.check == check).collect()
    }

    #[test]
    fn every_check_spans_the_combinations_that_it_speaks_of() {
        let cells = cells(&chain(), &[1, 33, 128]);
        let full = of(&cells, "full_chain");
        assert_eq!(full.len(), 2 * 2 * 2 * 3 * 3);
        let distinct: HashSet<_> = full.iter().map(|c| (&c.at, c.tokens)).collect();
        assert_eq!(distinct.len(), full.len());

        let fallback = of(&cells, "fallback_vs_primary");
        assert_eq!(fallback.len(), full.len() / 2);
        assert!(fallback.iter().all(|c| c.at[1] == 1));

        let variant = of(&cells, "dtype_variant");
        assert_eq!(variant.len(), full.len() / 2);
        assert!(variant.iter().all(|c| c.at[0] == 1));

        let parameter = of(&cells, "parameter");
        assert_eq!(parameter.len(), 2 * 2);
        assert!(parameter.iter().all(|c| c.axis == Some(2) && c.at[2..] == [0, 0] && c.tokens == 128));
        assert_eq!(cells.len(), full.len() + fallback.len() + variant.len() + parameter.len());
        assert!(cells.iter().all(|c| (c.axis.is_some()) == (c.check == "parameter")));
    }

    #[test]
    fn a_cell_off_the_first_of_any_paths_axis_is_compared_with_the_primary() {
        let axes =
            [axis("quant", AxisKind::Paths, &["a", "b"]), axis("gemm", AxisKind::Paths, &["a", "b", "c"])];
        let cells = cells(&axes, &[1]);
        let at: Vec<&[usize]> = of(&cells, "fallback_vs_primary").iter().map(|c| &c.at[..]).collect();
        assert_eq!(at, [&[0, 1][..], &[0, 2], &[1, 0], &[1, 1], &[1, 2]]);
    }

    #[test]
    fn order_is_by_check_then_axes_then_tokens() {
        let axes = &chain()[..3];
        let cells = cells(axes, &[1, 33]);
        let names: Vec<&str> = cells.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(
            names[..3],
            [
                "full_chain_dtype_e4m3fn_quant_primary_shuffle_scale_false_tokens_1",
                "full_chain_dtype_e4m3fn_quant_primary_shuffle_scale_false_tokens_33",
                "full_chain_dtype_e4m3fn_quant_primary_shuffle_scale_true_tokens_1",
            ]
        );
        assert_eq!(
            names[names.len() - 4..],
            [
                "parameter_shuffle_scale_dtype_e4m3fn_quant_primary_tokens_33",
                "parameter_shuffle_scale_dtype_e4m3fn_quant_fallback_tokens_33",
                "parameter_shuffle_scale_dtype_e4m3fnuz_quant_primary_tokens_33",
                "parameter_shuffle_scale_dtype_e4m3fnuz_quant_fallback_tokens_33",
            ]
        );
    }

    #[test]
    fn a_function_without_axes_has_a_cell_for_each_number_of_tokens() {
        let cells = cells(&[], &[1, 33]);
        let names: Vec<&str> = cells.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["full_chain_tokens_1", "full_chain_tokens_33"]);
        assert!(cells.iter().all(|c| c.at.is_empty()));
    }

    #[test]
    fn a_parameter_with_one_value_is_not_compared() {
        let axes = [axis("shuffle", AxisKind::Values, &["true"]), axis("tile", AxisKind::Perf, &["1", "2"])];
        assert!(of(&cells(&axes, &[1]), "parameter").is_empty());
    }

    #[test]
    fn the_count_is_that_of_the_cells() {
        let mut axes = chain();
        axes.push(axis("gemm", AxisKind::Paths, &["a", "b", "c"]));
        axes.push(axis("transposed", AxisKind::Values, &["false", "true"]));
        for n in 0..=axes.len() {
            for tokens in [&[1][..], &[1, 33, 128]] {
                assert_eq!(count(&axes[..n], tokens), cells(&axes[..n], tokens).len(), "{n} axes");
            }
        }
    }

    #[test]
    fn counting_does_not_overflow() {
        let labels: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        let wide = Axis { name: "x".into(), kind: AxisKind::Values, labels };
        assert!(count(&vec![wide; 20], &[1, 2, 3]) > MAX_CELLS);
    }

    #[test]
    fn labels_become_identifiers_and_stay_apart() {
        let labels = ["1", "-1", "a-b", "a_b", "Layout::RowMajor", "1e-3", "é", "-0.5"];
        let axes = [axis("x", AxisKind::Perf, &labels)];
        let names: Vec<String> = cells(&axes, &[1]).into_iter().map(|c| c.name).collect();
        assert_eq!(
            names,
            [
                "full_chain_x_1_tokens_1",
                "full_chain_x_minus_1_tokens_1",
                "full_chain_x_a_b_tokens_1",
                "full_chain_x_a_b_tokens_1_2",
                "full_chain_x_layout_rowmajor_tokens_1",
                "full_chain_x_1e_minus_3_tokens_1",
                "full_chain_x_tokens_1",
                "full_chain_x_minus_0_5_tokens_1",
            ]
        );
    }

    #[test]
    fn a_number_behind_a_name_does_not_take_the_name_of_another_cell() {
        // Tokens 1 with "a b" twice sanitised alike, and a label that ends in the number itself.
        let mut names = HashSet::new();
        let given = ["x", "x", "x_2", "x", "x_2"];
        let unique: Vec<String> = given.iter().map(|&n| unique(&mut names, n.into())).collect();
        assert_eq!(unique.iter().collect::<HashSet<_>>().len(), given.len(), "{unique:?}");
    }
}
