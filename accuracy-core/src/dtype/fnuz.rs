//! OCP FP8 codes as gfx942 reads them: what engines do to a checkpoint's weights when they load them there.

use super::DType;

/// FP8 codes in a `fnuz` format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fnuz {
    pub dtype: DType,
    /// Each stands for half the value it had, so scales are to be doubled.
    pub codes: Vec<u8>,
    /// Where there was a NaN or an infinity. These codes are finite in `fnuz`, so they have a wrong value now.
    pub non_finite: Vec<usize>,
}

/// Why codes cannot be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FnuzError {
    #[error("the codes are {0} already: converting them twice would halve their values")]
    Already(DType),
    #[error("{0} has no fnuz form; e4m3fn and e5m2 have")]
    NotFp8(DType),
}

/// Takes e4m3fn to e4m3fnuz, and e5m2 to e5m2fnuz: the same bits, but negative zero (`0x80`, the NaN of `fnuz`)
/// becomes zero.
///
/// The exponent's bias is one larger in `fnuz`, so each finite code, subnormals included, has exactly half its value
/// (arXiv:2206.02915 against the OCP specification).
///
/// # Errors
/// Any other format. `fnuz` is refused with an error of its own.
pub fn to_fnuz(dtype: DType, codes: &[u8]) -> Result<Fnuz, FnuzError> {
    if dtype.is_fnuz() {
        return Err(FnuzError::Already(dtype));
    }
    let target = dtype.twin().ok_or(FnuzError::NotFp8(dtype))?;
    let finite = |code: u8| dtype.decode(code.into()).is_finite();
    let non_finite = codes.iter().enumerate().filter(|&(_, &code)| !finite(code)).map(|(i, _)| i).collect();
    let codes = codes.iter().map(|&code| if code == 0x80 { 0 } else { code }).collect();
    Ok(Fnuz { dtype: target, codes, non_finite })
}
