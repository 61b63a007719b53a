//! Joins what the ranks of a tensor-parallel run wrote: as the dump declares it, else as the value's number of columns
//! in the whole model tells.

use super::value::{Found, Held, Narrow, Value, lead};
use accuracy_core::dumps::{DumpTensor, Merge};
use accuracy_core::model::{Place, Sharing};
use accuracy_core::reference::Matrix;

/// Ranks that should hold the same may differ by so many units of the last place: reductions need not be exact.
const UNITS: f64 = 8.0;

fn read(t: &DumpTensor) -> Result<Matrix, String> {
    let data = t.open().map_err(|e| format!("{}: {e}", t.id))?;
    Ok(data.matrix(0..data.rows()))
}

/// One value of the parts that ranks wrote, `None` if it is not what the place describes. `tokens`: rows of the whole
/// step, where they are known.
pub fn merge(parts: &[&DumpTensor], place: &Place, tokens: Option<usize>) -> Found<Value> {
    let first = parts[0];
    let name = first.id.to_string();
    let mut narrow = Narrow::new(first.element());
    let x = read(first)?;
    narrow.look(&x.data);
    let value = |x: Matrix, lead: Vec<usize>, held: Held| {
        Ok(Some(Value { held, ..Value::new(x, lead, narrow.precision(), name.clone()) }))
    };
    let own = || lead(first).to_vec();
    let cut = |x: &Matrix| match &place.fused {
        None => Some(x.clone()),
        Some(fused) => fused.columns(x.cols, parts.len()).map(|columns| x.columns(columns)),
    };
    if parts.len() == 1 {
        return match cut(&x) {
            Some(x) => value(x, own(), Held::Well),
            None => Ok(None),
        };
    }
    match first.merge {
        Some(Merge::Replicated) => return value(x, own(), Held::Well),
        Some(Merge::Sum) => return value(sum(parts, x)?, own(), Held::Well),
        Some(Merge::Concat(dim)) if dim + 1 == first.shape().len() => {
            let pieces = parts.iter().map(|t| read(t)).collect::<Result<Vec<_>, _>>()?;
            return value(beside(&pieces, &name)?, own(), Held::Well);
        }
        Some(Merge::Concat(dim)) => {
            return Err(format!("{name}: parts joined in dimension {dim}; only the last one is merged"));
        }
        None => {}
    }
    let mut pieces = parts.iter().map(|t| read(t)).collect::<Result<Vec<_>, _>>()?;
    if pieces.iter().any(|p| p.data.len() != x.data.len()) {
        return Err(format!("{name}: ranks with different shapes"));
    }
    let differ = apart(&pieces);
    let unit = UNITS * narrow.precision().unit();
    let all = x.data.len();
    match place.sharing {
        _ if differ == 0.0 && !matches!(place.sharing, Sharing::Columns(..)) => match cut(&x) {
            Some(x) => value(x, own(), Held::Well),
            None => Ok(None),
        },
        // Each rank has some of the tokens.
        Sharing::Whole(cols) | Sharing::Sum(cols)
            if differ > unit && x.cols == cols && tokens == Some(x.rows * parts.len()) =>
        {
            let data: Vec<f64> = pieces.into_iter().flat_map(|p| p.data).collect();
            let rows = data.len() / cols;
            value(Matrix::new(rows, cols, data), vec![rows], Held::Well)
        }
        Sharing::Whole(cols) if all.is_multiple_of(cols) => {
            value(x, own(), if differ > unit { Held::Apart } else { Held::Well })
        }
        Sharing::Sum(cols) if all.is_multiple_of(cols) => match differ > unit {
            true => value(sum(parts, x)?, own(), Held::Summands),
            false => value(x, own(), Held::Well),
        },
        Sharing::Columns(cols, unit) => {
            let rows = match &place.fused {
                Some(_) => x.rows,
                None => first.shape().first().copied().unwrap_or(1).max(1),
            };
            if place.fused.is_some() {
                let cuts: Option<Vec<Matrix>> = pieces.iter().map(&cut).collect();
                let Some(cuts) = cuts else { return Ok(None) };
                pieces = cuts;
            }
            // A value by heads, `[tokens, heads, d]`, is columns of tokens.
            let tokens = token_rows(first, &pieces[0], cols, unit, parts.len()).unwrap_or(rows);
            let each = pieces[0].data.len() / tokens.max(1);
            if each == 0 || pieces.iter().any(|p| p.data.len() != each * tokens) {
                return Ok(None);
            }
            if each == cols && parts.len() > 1 && apart(&pieces) <= unit_of(narrow.precision().unit()) {
                return value(
                    Matrix::new(tokens, cols, pieces.swap_remove(0).data),
                    vec![tokens],
                    Held::Well,
                );
            }
            // Several ranks have the same head.
            let copies = (each * parts.len()).checked_div(cols).unwrap_or(0).max(1);
            if each * parts.len() < cols || (copies > 1 && each != unit && each * parts.len() >= 2 * cols) {
                return Ok(None);
            }
            let copies = if each == unit && each * parts.len() == copies * cols { copies } else { 1 };
            let held = pieces.chunks(copies).map(apart).fold(0.0, f64::max);
            let kept: Vec<Matrix> =
                pieces.into_iter().step_by(copies).map(|p| Matrix::new(tokens, each, p.data)).collect();
            let mut x = beside(&kept, &name)?;
            // A vocabulary is padded to a multiple of the ranks.
            if x.cols > cols {
                x = x.columns(0..cols);
            }
            let apart = held > unit_of(narrow.precision().unit());
            value(x, vec![tokens], if apart { Held::Apart } else { Held::Well })
        }
        _ => Err(format!(
            "{name}: {} ranks wrote different parts and the dump does not say how they make one; dump with \
             accuracy_dump's merge= option",
            parts.len()
        )),
    }
}

fn unit_of(unit: f64) -> f64 {
    UNITS * unit
}

/// How many tokens a part has rows of: the leading dimensions that leave a rank's share of the columns.
fn token_rows(t: &DumpTensor, part: &Matrix, cols: usize, unit: usize, ranks: usize) -> Option<usize> {
    let mut rows = 1;
    let mut found = None;
    for &size in &t.shape()[..t.shape().len().saturating_sub(1)] {
        rows *= size;
        let each = part.data.len().checked_div(rows)?;
        if each * ranks == cols || each == cols || (each == unit && unit * ranks > cols) {
            found = Some(rows);
            if each * ranks == cols {
                return found;
            }
        }
    }
    found
}

/// The largest relative difference of a part from the first one.
fn apart(pieces: &[Matrix]) -> f64 {
    let Some((first, rest)) = pieces.split_first() else { return 0.0 };
    let size = first.data.iter().map(|v| v * v).sum::<f64>().sqrt();
    let off = |p: &Matrix| {
        let square = p.data.iter().zip(&first.data).map(|(a, b)| if a == b { 0.0 } else { (a - b).powi(2) });
        let off = square.sum::<f64>().sqrt();
        if off.is_nan() { f64::INFINITY } else { off / size.max(f64::MIN_POSITIVE) }
    };
    rest.iter().map(off).fold(0.0, f64::max)
}

fn sum(parts: &[&DumpTensor], mut x: Matrix) -> Result<Matrix, String> {
    for part in &parts[1..] {
        let y = read(part)?;
        if y.data.len() != x.data.len() {
            return Err(format!("{}: summands of different shapes", part.id));
        }
        x.data.iter_mut().zip(&y.data).for_each(|(a, b)| *a += b);
    }
    Ok(x)
}

fn beside(pieces: &[Matrix], name: &str) -> Result<Matrix, String> {
    let rows = pieces[0].rows;
    if pieces.iter().any(|p| p.rows != rows) {
        return Err(format!("{name}: parts with different numbers of rows"));
    }
    let cols = pieces.iter().map(|p| p.cols).sum();
    let data = (0..rows).flat_map(|r| pieces.iter().flat_map(move |p| p.row(r).to_vec())).collect();
    Ok(Matrix::new(rows, cols, data))
}
