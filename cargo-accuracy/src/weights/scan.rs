//! What only the values of a checkpoint show, and whether an architecture can take them.

use super::survey::{Finding, Severity, Survey, Weight};
use accuracy_core::arch::Arch;
use accuracy_core::dtype::{DType, FnuzError};
use accuracy_core::weights::{Checkpoint, StoredWeight, WeightsError};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Reads every weight and adds what it finds.
pub fn values(checkpoint: &Checkpoint, survey: &mut Survey) {
    let findings: Vec<Vec<Finding>> = survey.weights.par_iter().map(|w| of_weight(checkpoint, w)).collect();
    survey.findings.extend(findings.into_iter().flatten());
    survey.scanned = true;
}

fn of_weight(checkpoint: &Checkpoint, weight: &Weight) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in weight.matrices() {
        match checkpoint.linear(&address) {
            Ok(stored) => {
                findings.extend(codes(&stored));
                findings.extend(all_zero(&stored));
                findings.extend(scales(&stored));
            }
            Err(error) => findings.push(Finding::of(&address, &error)),
        }
    }
    findings
}

fn codes(stored: &StoredWeight) -> Option<Finding> {
    let dtype = stored.dtype;
    let special = special(dtype)?;
    let of_special = count_in(dtype, &stored.codes, &special);
    if of_special == 0 {
        return None;
    }
    let count = stored.rows * stored.cols;
    let mut codes = dtype.codes(&stored.codes).enumerate();
    let (first, code) = codes.find(|(_, code)| special.iter().any(|range| range.contains(code)))?;
    let message = format!(
        "`{}` has {of_special} NaN or infinite {dtype} codes in {count}, the first ({code:#x}) at [{}, {}]",
        stored.name,
        first / stored.cols,
        first % stored.cols
    );
    Some(Finding::error("non_finite_codes", &stored.name, message))
}

/// A weight without any bit set: what a file's hole or a tensor that nobody filled looks like.
fn all_zero(stored: &StoredWeight) -> Option<Finding> {
    const CHUNK: usize = 1 << 20;
    if stored.codes.is_empty()
        || stored.codes.par_chunks(CHUNK).any(|chunk| chunk.iter().any(|byte| *byte != 0))
    {
        return None;
    }
    let message = format!("`{}`: every byte of its codes is zero; was it ever written?", stored.name);
    Some(Finding::warning("all_zero", &stored.name, message))
}

/// The codes of NaN and infinity, of either sign; twice the same range where there is no sign.
fn special(dtype: DType) -> Option<[RangeInclusive<u32>; 2]> {
    let infinities = dtype.infinity_codes();
    // Infinity comes right before the NaNs of its sign.
    let range =
        |sign: usize, nans: &RangeInclusive<u32>| infinities.map_or(*nans.start(), |i| i[sign])..=*nans.end();
    match dtype.nan_codes() {
        [positive, negative] => Some([range(0, positive), range(1, negative)]),
        [all] => Some([all.clone(), all.clone()]),
        _ => None,
    }
}

/// How many codes lie in one of two ranges: at the speed of memory, as nearly always none does.
fn count_in(dtype: DType, bytes: &[u8], ranges: &[RangeInclusive<u32>; 2]) -> usize {
    /// So many bytes stay in the first cache and can be counted where a first look has found something.
    const CHUNK: usize = 16 << 10;
    macro_rules! count {
        ($code:ty) => {{
            let [a, b] = ranges
                .each_ref()
                .map(|range| (*range.start() as $code, (range.end() - range.start()) as $code));
            let inside = move |code: &[u8; size_of::<$code>()]| {
                let code = <$code>::from_le_bytes(*code);
                (code.wrapping_sub(a.0) <= a.1) | (code.wrapping_sub(b.0) <= b.1)
            };
            move |chunk: &[u8]| -> usize {
                let (codes, _) = chunk.as_chunks::<{ size_of::<$code>() }>();
                // Of the width of a code, which makes for four times as many a vector as a count would.
                let any = codes.iter().fold(0, |any, code| any | <$code>::from(inside(code)));
                if any == 0 { 0 } else { codes.iter().filter(|code| inside(code)).count() }
            }
        }};
    }
    let chunks = bytes.par_chunks(CHUNK);
    match dtype.bits() {
        8 => chunks.map(count!(u8)).sum(),
        16 => chunks.map(count!(u16)).sum(),
        32 => chunks.map(count!(u32)).sum(),
        // Narrower formats have neither NaN nor Inf.
        _ => 0,
    }
}

fn scales(stored: &StoredWeight) -> Vec<Finding> {
    let scales = &stored.scales;
    // Its second tensor is the scale in every scheme that has one.
    let name = stored.tensors.get(1).unwrap_or(&stored.name);
    let of = if stored.name.contains('#') { format!(" of `{}`", stored.name) } else { String::new() };
    let mut findings = Vec::new();
    // Blocks of GGUF files have scales of either sign, and of a few bits, so that zero is one of them.
    let of_few_bits = stored.scheme.says_itself();
    let broken = |s: f64| !s.is_finite() || (s < 0.0 && !of_few_bits);
    if let Some(first) = scales.iter().position(|&s| broken(s)) {
        let count = scales.iter().filter(|&&s| broken(s)).count();
        let message = format!(
            "scale `{name}`{of}: {count} of {} are negative or not finite, the first is {:e} at index {first}",
            scales.len(),
            scales[first]
        );
        findings.push(Finding::error("bad_scale", &stored.name, message));
    }
    if !of_few_bits {
        findings.extend(zero_scales(stored, name, &of));
        findings.extend(subnormal_scales(stored, name, &of));
    }
    if let [first, rest @ ..] = &scales[..]
        && !rest.is_empty()
        && rest.iter().all(|s| s == first)
    {
        let message = format!(
            "scale `{name}`{of}: all {} are {first:e}; no test on this weight can reveal a wrong scale layout",
            scales.len()
        );
        findings.push(Finding::warning("constant_scale", &stored.name, message));
    }
    findings
}

/// Scales that float32 holds as denormals alone: a kernel that flushes them to zero loses what they scale.
fn subnormal_scales(stored: &StoredWeight, name: &str, of: &str) -> Option<Finding> {
    let least = f64::from(f32::MIN_POSITIVE);
    let subnormal = |s: f64| s != 0.0 && s.abs() < least;
    let first = stored.scales.iter().position(|&s| subnormal(s))?;
    let count = stored.scales.iter().filter(|&&s| subnormal(s)).count();
    let message = format!(
        "scale `{name}`{of}: {count} of {} are denormals of float32, the first is {:e} at index {first}; kernels that \
         flush denormals take them for zero",
        stored.scales.len(),
        stored.scales[first]
    );
    Some(Finding::warning("subnormal_scale", &stored.name, message))
}

/// Scales of zero. Over codes of zero they are harmless; over others a block of the weight is lost.
fn zero_scales(stored: &StoredWeight, name: &str, of: &str) -> Option<Finding> {
    let scales = &stored.scales;
    let zeros: Vec<usize> = (0..scales.len()).filter(|&cell| scales[cell] == 0.0).collect();
    if zeros.is_empty() {
        return None;
    }
    let lost: Vec<usize> = zeros.iter().copied().filter(|&cell| has_values(stored, cell)).collect();
    let Some(first) = lost.first() else {
        let message =
            format!("scale `{name}`{of}: {} of {} are zero, over codes of zero", zeros.len(), scales.len());
        return Some(Finding::warning("zero_scale", &stored.name, message));
    };
    let grid_cols = stored.grid().1;
    let message = format!(
        "scale `{name}`{of}: {} of {} are zero over codes that are not, the first at [{}, {}]",
        lost.len(),
        scales.len(),
        first / grid_cols,
        first % grid_cols
    );
    let finding = Finding::error("zero_scale", &stored.name, message);
    // In NVFP4 the scale of a small block may be too small for e4m3fn.
    let underflow = stored.scale_dtype == Some(DType::E4M3Fn);
    Some(Finding { severity: if underflow { Severity::Warning } else { Severity::Error }, ..finding })
}

/// Whether a cell of the scales' grid has codes that are not zero.
fn has_values(stored: &StoredWeight, cell: usize) -> bool {
    let (cell_rows, cell_cols) = stored.granularity.cell(stored.rows, stored.cols);
    let (row, column) = (cell / stored.grid().1, cell % stored.grid().1);
    let columns: Vec<usize> = match &stored.column_groups {
        Some(groups) => (0..stored.cols).filter(|&c| groups[c] == column).collect(),
        None => (column * cell_cols..stored.cols.min((column + 1) * cell_cols)).collect(),
    };
    let zero = stored.zero_points.get(cell).copied().unwrap_or(0.0);
    let value =
        |r: usize, c: usize| stored.dtype.decode(stored.dtype.code_at(&stored.codes, r * stored.cols + c));
    (row * cell_rows..stored.rows.min((row + 1) * cell_rows))
        .any(|r| columns.iter().any(|&c| value(r, c) != zero))
}

/// Whether each weight can be handed to kernels of `arch`. With `scan` the conversion is done, else its formats
/// are looked at.
pub fn conversions(checkpoint: &Checkpoint, survey: &mut Survey, arch: Arch, scan: bool) {
    let findings: Vec<Option<Vec<Finding>>> =
        survey.weights.par_iter().map(|weight| conversion(checkpoint, weight, arch, scan)).collect();
    let mut emulated: BTreeMap<DType, usize> = BTreeMap::new();
    for (weight, found) in survey.weights.iter().zip(findings) {
        match found {
            Some(found) => survey.findings.extend(found),
            None => *emulated.entry(weight.info.dtype).or_default() += 1,
        }
    }
    for (dtype, count) in emulated {
        let message = format!("{arch} does not decode {dtype}: kernels emulate it ({count} of the weights)");
        survey.findings.push(Finding { tensor: None, ..Finding::warning("not_native", "", message) });
    }
}

/// `None`: the format is not native and engines do not convert it.
fn conversion(checkpoint: &Checkpoint, weight: &Weight, arch: Arch, scan: bool) -> Option<Vec<Finding>> {
    let (name, dtype) = (&weight.info.name, weight.info.dtype);
    let converts = arch.native_fp8() == Some(DType::E4M3Fnuz);
    let fnuz = dtype.is_fnuz();
    if fnuz && converts {
        // An engine converts whatever FP8 a checkpoint has when it loads it here.
        let twice = WeightsError::Fnuz { weight: name.clone(), source: FnuzError::Already(dtype) };
        return Some(vec![Finding::of(name, &twice)]);
    }
    if arch.native(dtype) {
        return Some(Vec::new());
    }
    if fnuz && let Some(native) = arch.native_fp8() {
        let message = format!(
            "`{name}` is stored as {dtype}, which {arch} reads as {native}, with twice the value; \
             checkpoints are stored as e4m3fn or e5m2"
        );
        return Some(vec![Finding::error("fnuz_on_ocp", name, message)]);
    }
    if !(converts && dtype.is_fp8()) {
        return None;
    }
    let refused = |address: &String| {
        let error = checkpoint.linear(address).and_then(|stored| stored.to_fnuz()).err()?;
        // What cannot be read at all is a finding of the scan.
        matches!(error, WeightsError::NonFiniteCodes { .. } | WeightsError::ScaleOverflow { .. })
            .then(|| Finding::of(address, &error))
    };
    Some(if scan { weight.matrices().iter().filter_map(refused).collect() } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use accuracy_core::dtype::{BF16, E2M1, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, E8M0, F16, F32, INT8};

    #[test]
    fn special_codes_are_those_that_are_not_finite() {
        for dtype in [BF16, E2M1, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, E8M0, F16, INT8] {
            let special = special(dtype);
            for code in 0..1_u32 << dtype.bits() {
                let found = special.iter().flatten().any(|range| range.contains(&code));
                assert_eq!(found, !dtype.decode(code).is_finite(), "{dtype} {code:#x}");
            }
        }
    }

    #[test]
    fn every_special_code_is_counted_wherever_it_is() {
        for dtype in [E4M3FN, E4M3FNUZ, E5M2, F16, BF16, F32] {
            let ranges = special(dtype).unwrap();
            let (bytes, count) = (dtype.bits() as usize / 8, 20_000);
            let mut codes = vec![0; bytes * count];
            assert_eq!(count_in(dtype, &codes, &ranges), 0);
            for (i, at) in [0, 1, 4095, 4096, 16_384, 19_999].into_iter().enumerate() {
                let range = &ranges[i % 2];
                let code = if i % 3 == 0 { range.start() } else { range.end() };
                codes[at * bytes..][..bytes].copy_from_slice(&code.to_le_bytes()[..bytes]);
                assert_eq!(count_in(dtype, &codes, &ranges), i + 1, "{dtype} {code:#x} at {at}");
            }
        }
    }
}
