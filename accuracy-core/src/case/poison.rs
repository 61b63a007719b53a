//! What memory holds before a kernel writes to it.
//!
//! [`Poison::plain`] is one byte, which is a finite number in every format: an element that was not written is then a wrong
//! number, and not the end of all numbers after it. A second run has its complement, so that no element holds both unless
//! nobody wrote it. [`Poison::special`] is made of each format's NaN and infinities: a kernel that reads what nobody wrote
//! shows there even where it multiplies by zero. All of it is drawn anew for each run, so that a kernel which happens to fit
//! one poison does not fit the next.

use crate::dtype::DType;

/// Bytes that are finite numbers in every format, none of them small. In 8 bits each is a valid code, so one run under one
/// of them does not show what was not written.
const BYTES: [u8; 8] = [0xa5, 0x96, 0xc3, 0xb4, 0x5a, 0x69, 0x3c, 0x4b];

/// The bytes with which the framework fills a buffer before a kernel writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poison {
    byte: u8,
    /// Where special values are wanted: what their order and payloads are drawn with.
    special: Option<u64>,
}

impl Poison {
    /// This byte everywhere.
    pub const fn of_byte(byte: u8) -> Poison {
        Poison { byte, special: None }
    }

    /// A finite number everywhere.
    pub fn plain(seed: u64) -> Poison {
        Poison::of_byte(BYTES[mixed(seed) as usize % BYTES.len()])
    }

    /// The complement of every byte.
    pub const fn complement(self) -> Poison {
        Poison::of_byte(!self.byte)
    }

    /// NaN and the infinities by turns; in a format that has none of them, the complement of [`Poison::plain`].
    pub fn special(seed: u64) -> Poison {
        Poison { byte: !Poison::plain(seed).byte, special: Some(seed) }
    }

    /// The byte that fills memory without a number format, such as guard bands.
    pub fn byte(self) -> u8 {
        self.byte
    }

    /// The codes that elements hold by turns; none where they hold the byte.
    fn codes(self, dtype: DType) -> Vec<u32> {
        let Some(seed) = self.special else { return Vec::new() };
        // Codes that share bytes have no specials.
        let mut codes = Vec::new();
        for (i, range) in dtype.nan_codes().iter().enumerate() {
            let span = u64::from(range.end() - range.start()) + 1;
            codes.push(range.start() + (mixed(seed ^ (i as u64 + 1)) % span) as u32);
        }
        codes.extend(dtype.infinity_codes().into_iter().flatten());
        let first = (mixed(!seed) % codes.len().max(1) as u64) as usize;
        codes.rotate_left(first);
        codes
    }

    /// The bytes that repeat from the start of a buffer of this format.
    pub fn pattern(self, dtype: DType) -> Vec<u8> {
        match &self.codes(dtype)[..] {
            [] => vec![self.byte],
            codes => dtype.pack(codes.iter().copied()),
        }
    }

    /// Fills a part of a buffer that begins this many bytes from its start.
    pub fn fill(self, dtype: DType, offset: usize, bytes: &mut [u8]) {
        let mut pattern = self.pattern(dtype);
        if let [byte] = pattern[..] {
            bytes.fill(byte);
            return;
        }
        let turn = offset % pattern.len();
        pattern.rotate_left(turn);
        for chunk in bytes.chunks_mut(pattern.len()) {
            chunk.copy_from_slice(&pattern[..chunk.len()]);
        }
    }

    /// Which of these elements, or bytes where several share one, may never have been written: they hold what the poison
    /// puts into one.
    pub fn held(self, dtype: DType) -> impl Fn(&[u8]) -> bool {
        let size = (dtype.bits() as usize / 8).max(1);
        let pattern = self.pattern(dtype);
        let whole = pattern.len() >= size;
        move |element: &[u8]| match whole {
            true => pattern.chunks(size).any(|code| code == element),
            false => element.iter().all(|byte| *byte == pattern[0]),
        }
    }
}

/// Spreads the bits of a seed (the finaliser of SplitMix64).
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_poison_is_finite_in_every_format() {
        for byte in BYTES {
            for &dtype in DType::ALL {
                let bytes = [byte; 12];
                for value in dtype.decode_bytes(&bytes) {
                    assert!(value.is_finite(), "{byte:#x} in {dtype}");
                }
            }
        }
    }

    #[test]
    fn a_special_poison_has_every_kind_of_special_value_of_a_format() {
        for seed in 0..50 {
            for &dtype in DType::ALL {
                let mut bytes = [0; 48];
                Poison::special(seed).fill(dtype, 0, &mut bytes);
                let values = dtype.decode_bytes(&bytes);
                let has = |found: fn(&f64) -> bool| values.iter().any(found);
                assert_eq!(has(|x| x.is_nan()), !dtype.nan_codes().is_empty(), "{dtype}");
                let infinite = dtype.infinity_codes().is_some();
                assert_eq!(has(|x| *x == f64::INFINITY), infinite, "{dtype}");
                assert_eq!(has(|x| *x == f64::NEG_INFINITY), infinite, "{dtype}");
                if !dtype.nan_codes().is_empty() {
                    assert!(values.iter().all(|x| !x.is_finite()), "{dtype}: {values:?}");
                }
            }
        }
    }

    #[test]
    fn no_element_holds_both_poisons_of_a_run() {
        for seed in 0..50 {
            for &dtype in DType::ALL {
                let size = (dtype.bits() as usize / 8).max(1);
                let filled = |poison: Poison| {
                    let mut bytes = vec![0; 60];
                    // In two parts, the second beginning anywhere.
                    let (first, second) = bytes.split_at_mut(7);
                    poison.fill(dtype, 0, first);
                    poison.fill(dtype, 7, second);
                    bytes
                };
                let (plain, special) = (Poison::plain(seed), Poison::special(seed));
                let (a, b) = (filled(plain), filled(special));
                let (in_plain, in_special) = (plain.held(dtype), special.held(dtype));
                for (a, b) in a.chunks_exact(size).zip(b.chunks_exact(size)) {
                    assert!(in_plain(a) && in_special(b) && !in_plain(b) && !in_special(a), "{dtype}");
                }
            }
        }
    }

    #[test]
    fn runs_differ_in_their_poison() {
        let of = |dtype: DType| (0..64).map(|seed| Poison::special(seed).pattern(dtype)).collect::<Vec<_>>();
        let distinct = |mut all: Vec<Vec<u8>>| {
            all.sort();
            all.dedup();
            all.len()
        };
        assert!(distinct(of(DType::BF16)) > 16);
        assert!(
            distinct((0..64).map(|seed| Poison::plain(seed).pattern(DType::I8)).collect()) == BYTES.len()
        );
    }
}
