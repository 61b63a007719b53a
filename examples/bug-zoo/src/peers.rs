//! What the checks of other projects say of an output and its reference, by their formulas and default bounds.
//!
//! The reference is the framework's own quantised chain, rounded to the output's format: what a test in Python computes
//! that quantises by itself, multiplies in float32 and rounds.

use accuracy_core::{bf16, f16};
use anyhow::{Context as _, bail};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name and judgement of each.
type Check = fn(&Output) -> bool;

pub const CHECKS: [(&str, Check); 6] = [
    ("assert_close", Output::assert_close),
    ("allclose 5 %", Output::allclose_forgiving),
    ("calc_diff", Output::calc_diff),
    ("NMSE", Output::nmse),
    ("cos > 0.99", |output| output.cosine() > 0.99),
    ("cos > 0.999", |output| output.cosine() > 0.999),
];

/// The output of a chain and its reference.
pub struct Output {
    reference: Vec<f64>,
    out: Vec<f64>,
    /// Tolerances of torch.testing.assert_close for the output's format: relative and absolute.
    tolerance: (f64, f64),
}

impl Output {
    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> {
        self.reference.iter().copied().zip(self.out.iter().copied())
    }

    /// torch.testing.assert_close: every element within the defaults of its format; NaN is never close.
    fn assert_close(&self) -> bool {
        let (relative, absolute) = self.tolerance;
        self.pairs().all(|(r, o)| r == o || (o - r).abs() <= absolute + relative * r.abs())
    }

    /// An allclose with 1e-2 relative to the output and 1e-2 absolute, one element in twenty forgiven.
    fn allclose_forgiving(&self) -> bool {
        let far = self.pairs().filter(|&(r, o)| !(r == o || (r - o).abs() <= 1e-2 + 1e-2 * o.abs())).count();
        far as f64 <= 0.05 * self.out.len() as f64
    }

    fn dots(&self) -> (f64, f64, f64) {
        self.pairs().fold((0.0, 0.0, 0.0), |(rr, oo, ro), (r, o)| (rr + r * r, oo + o * o, ro + r * o))
    }

    /// `1 - 2 <x, y> / (|x|² + |y|²)` below 1e-3.
    fn calc_diff(&self) -> bool {
        let (rr, oo, ro) = self.dots();
        rr + oo == 0.0 || 1.0 - 2.0 * ro / (rr + oo) < 1e-3
    }

    /// `|x - y|² / |x|²` at most 5e-4, `x` being the output.
    fn nmse(&self) -> bool {
        let error: f64 = self.pairs().map(|(r, o)| (r - o) * (r - o)).sum();
        error / self.dots().1 <= 5e-4
    }

    fn cosine(&self) -> f64 {
        let (rr, oo, ro) = self.dots();
        ro / (rr * oo).sqrt()
    }
}

/// The files in a folder of kept tensors, by the identities of their cases.
pub fn outputs(dir: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        found.insert(metadata(&bytes, "case").with_context(|| path.display().to_string())?, path);
    }
    Ok(found)
}

fn metadata(bytes: &[u8], key: &str) -> anyhow::Result<String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let value = metadata.metadata().as_ref().and_then(|m| m.get(key));
    value.cloned().with_context(|| format!("no `{key}` in its metadata"))
}

/// What each check says of the end of a chain; `None` where that is quantised: these checks compare plain numbers.
pub fn judge(path: &Path) -> anyhow::Result<Option<Vec<bool>>> {
    let output = read(path).with_context(|| path.display().to_string())?;
    Ok(output.map(|output| CHECKS.iter().map(|(_, check)| check(&output)).collect()))
}

fn read(path: &Path) -> anyhow::Result<Option<Output>> {
    let bytes = std::fs::read(path)?;
    let end = metadata(&bytes, "end")?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let out = tensors.tensor(&end)?;
    let reference = tensors.tensor(&format!("{end}.quantised"))?;
    let (out, tolerance) = match out.dtype() {
        Dtype::BF16 => {
            let values = words(out.data()).map(|b| bf16::from_le_bytes(b).to_f64()).collect();
            (values, (1.6e-2, 1e-5))
        }
        Dtype::F16 => {
            let values = words(out.data()).map(|b| f16::from_le_bytes(b).to_f64()).collect();
            (values, (1e-3, 1e-5))
        }
        Dtype::F64 | Dtype::I32 => return Ok(None),
        Dtype::F32 => (words(out.data()).map(|b| f64::from(f32::from_le_bytes(b))).collect(), (1.3e-6, 1e-5)),
        other => bail!("an output of {other:?}"),
    };
    let reference = words(reference.data()).map(f64::from_le_bytes).collect();
    Ok(Some(Output { reference, out, tolerance }))
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).filter_map(|chunk| chunk.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reference: &[f64], out: &[f64]) -> Vec<bool> {
        let output = Output { reference: reference.to_vec(), out: out.to_vec(), tolerance: (1.6e-2, 1e-5) };
        CHECKS.iter().map(|(_, check)| check(&output)).collect()
    }

    #[test]
    fn equal_outputs_pass_and_nan_fails_all_but_the_forgiving() {
        let x: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(said(&x, &x), [true; 6]);
        let mut nan = x.clone();
        nan[3] = f64::NAN;
        assert_eq!(said(&x, &nan), [false, true, false, false, false, false]);
    }

    #[test]
    fn a_gain_of_two_is_invisible_to_the_cosine() {
        let x: Vec<f64> = (1..=100).map(f64::from).collect();
        let twice: Vec<f64> = x.iter().map(|x| 2.0 * x).collect();
        assert_eq!(said(&x, &twice), [false, false, false, false, true, true]);
        // 2 % is within assert_close for bfloat16 only below 1.6 %, and within NMSE and calc_diff.
        let more: Vec<f64> = x.iter().map(|x| 1.02 * x).collect();
        assert_eq!(said(&x, &more), [false, false, true, true, true, true]);
    }
}
