//! Codes to values: some columns of a row of a stored weight, scaled, as float32 or float64.

use super::tile::Element;
use crate::dtype::DType;
use crate::simd::Isa;

/// Columns that share a scale where a row is decoded by vectors.
pub(super) const STEP: usize = 16;
/// Room that a decoded row needs beyond its columns: whole vectors are written.
pub(super) const OVERHANG: usize = 64;

/// The values of a format's codes.
pub(super) struct Decoder {
    dtype: DType,
    /// Of each code, for formats of up to 8 bits.
    values: Vec<f32>,
    /// The low and the high byte of the same values as bfloat16, which holds each of them.
    #[cfg(target_arch = "x86_64")]
    bytes: [[u8; 256]; 2],
}

impl Decoder {
    pub fn new(dtype: DType) -> Decoder {
        let small = dtype.bits() <= 8;
        let values: Vec<f32> =
            if small { (0..256).map(|code| dtype.decode(code) as f32).collect() } else { Vec::new() };
        Decoder {
            dtype,
            #[cfg(target_arch = "x86_64")]
            bytes: std::array::from_fn(|half| {
                let byte = |code: usize| values.get(code).map_or(0, |v| v.to_bits().to_le_bytes()[2 + half]);
                std::array::from_fn(byte)
            }),
            values,
        }
    }

    fn value(&self, code: u32) -> f32 {
        match self.values.get(code as usize) {
            Some(&value) => value,
            None => self.dtype.decode(code) as f32,
        }
    }
}

/// What the columns of a row are multiplied with: `(code - zeros[i]) * factors[i]`, where `i` is the column over
/// `step`, which is 1 or [`STEP`].
pub(super) struct Scaling<'a, E> {
    pub step: usize,
    pub factors: &'a [E],
    /// Empty where zero means zero.
    pub zeros: &'a [E],
}

/// Elements that a row can be decoded to.
pub(super) trait Decoded: Element {
    /// Decodes codes `first..first + count` of a packed row to `out[..count]`. What follows, up to [`OVERHANG`]
    /// elements, may be overwritten.
    ///
    /// # Panics
    /// If a slice is too short.
    fn decode(
        isa: Isa,
        decoder: &Decoder,
        row: &[u8],
        first: usize,
        count: usize,
        scaling: &Scaling<'_, Self>,
        out: &mut [Self],
    );
}

macro_rules! decoded {
    ($element:ty, $wide:ident) => {
        impl Decoded for $element {
            fn decode(
                isa: Isa,
                decoder: &Decoder,
                row: &[u8],
                first: usize,
                count: usize,
                scaling: &Scaling<'_, $element>,
                out: &mut [$element],
            ) {
                let steps = count.div_ceil(scaling.step);
                assert!(scaling.factors.len() >= steps, "factors");
                assert!(scaling.zeros.is_empty() || scaling.zeros.len() >= steps, "zero points");
                let bits = decoder.dtype.bits() as usize;
                #[cfg(target_arch = "x86_64")]
                if isa == Isa::Avx512
                    && matches!(bits, 4 | 8)
                    && scaling.step == STEP
                    && (first * bits).is_multiple_of(8)
                {
                    let codes = &row[first * bits / 8..(first + count) * bits / 8 + count * bits % 8 / 4];
                    assert!(out.len() >= count.next_multiple_of(64), "room for whole vectors");
                    // SAFETY: the machine has the instructions of an `Isa` that exists; the lengths were checked.
                    unsafe { avx512::$wide(decoder, bits == 4, codes, count, scaling, out) };
                    return;
                }
                let _ = isa;
                let scale = |i: usize, value: f32| {
                    let at = i / scaling.step;
                    let zero = scaling.zeros.get(at).copied().unwrap_or(0.0);
                    (<$element>::from(value) - zero) * scaling.factors[at]
                };
                let out = &mut out[..count];
                if decoder.dtype == DType::BF16 {
                    let codes = row[2 * first..].chunks_exact(2);
                    for (i, (out, code)) in out.iter_mut().zip(codes).enumerate() {
                        *out = scale(i, f32::from_bits(u32::from_le_bytes([0, 0, code[0], code[1]])));
                    }
                } else if bits == 8 {
                    for (i, (out, &code)) in out.iter_mut().zip(&row[first..first + count]).enumerate() {
                        *out = scale(i, decoder.values[usize::from(code)]);
                    }
                } else {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = scale(i, decoder.value(decoder.dtype.code_at(row, first + i)));
                    }
                }
            }
        }
    };
}
decoded!(f32, to_f32);
decoded!(f64, to_f64);

/// By lookups in tables of bytes: a code's bfloat16 is two of them.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Decoder, Scaling};
    use std::arch::x86_64::*;

    /// Where the code of a column goes, so that interleaving bytes and then words, both within lanes of 128 bits, puts
    /// the values in order: byte `16 j + 4 i + t` becomes element `4 j + t` of vector `i`.
    const ORDER: [u8; 64] = {
        let mut order = [0; 64];
        let mut at = 0;
        while at < 64 {
            let (j, i, t) = (at / 16, at % 16 / 4, at % 4);
            order[at] = (16 * i + 4 * j + t) as u8;
            at += 1;
        }
        order
    };

    /// 64 values in four vectors of bfloat16 widened to float32.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
    fn lookup(tables: &[[__m512i; 4]; 2], codes: __m512i) -> [__m512; 4] {
        let negative = _mm512_movepi8_mask(codes);
        let byte = |table: &[__m512i; 4]| {
            let low = _mm512_permutex2var_epi8(table[0], codes, table[1]);
            let high = _mm512_permutex2var_epi8(table[2], codes, table[3]);
            _mm512_mask_mov_epi8(low, negative, high)
        };
        let (low, high) = (byte(&tables[0]), byte(&tables[1]));
        let (first, second) = (_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high));
        let zero = _mm512_setzero_si512();
        [
            _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, first)),
            _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, first)),
            _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, second)),
            _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, second)),
        ]
    }

    /// 64 codes, one a byte, in [`ORDER`]; of packed ones 32 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
    fn load(codes: &[u8], packed: bool) -> __m512i {
        let codes = if packed {
            assert!(codes.len() >= 32);
            // SAFETY: 32 bytes.
            let bytes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
            // Two a byte, the low nibble first.
            let words = _mm512_cvtepu8_epi16(bytes);
            let both = _mm512_or_si512(words, _mm512_slli_epi16::<4>(words));
            _mm512_and_si512(both, _mm512_set1_epi16(0x0f0f))
        } else {
            assert!(codes.len() >= 64);
            // SAFETY: 64 bytes.
            unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
        };
        // SAFETY: 64 bytes.
        let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
        _mm512_permutexvar_epi8(order, codes)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
    fn tables(decoder: &Decoder) -> [[__m512i; 4]; 2] {
        decoder.bytes.each_ref().map(|table| {
            // SAFETY: four times 64 bytes of a table of 256.
            [0, 64, 128, 192].map(|at| unsafe { _mm512_loadu_si512(table[at..].as_ptr().cast()) })
        })
    }

    macro_rules! decode {
        ($name:ident, $element:ty, |$value:ident, $factor:ident, $zero:ident, $out:ident| $store:block) => {
            /// # Safety
            /// The machine has these instructions; `codes` hold `count` codes, `out` has room for the next multiple of
            /// 64, and `scaling` has a factor for every 16 of them, and a zero point or none.
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
            pub unsafe fn $name(
                decoder: &Decoder,
                packed: bool,
                codes: &[u8],
                count: usize,
                scaling: &Scaling<'_, $element>,
                out: &mut [$element],
            ) {
                let tables = tables(decoder);
                let chunk = if packed { 32 } else { 64 };
                let mut store = |values: [__m512; 4], first: usize, steps: usize| {
                    for i in 0..steps {
                        let ($value, $factor) = (values[i], scaling.factors[first + i]);
                        let $zero = scaling.zeros.get(first + i).copied().unwrap_or(0.0);
                        let $out = out[16 * (first + i)..][..16].as_mut_ptr();
                        $store
                    }
                };
                let whole = count / 64;
                for i in 0..whole {
                    store(lookup(&tables, load(&codes[i * chunk..][..chunk], packed)), 4 * i, 4);
                }
                if count % 64 > 0 {
                    let mut rest = [0; 64];
                    rest[..codes.len() - whole * chunk].copy_from_slice(&codes[whole * chunk..]);
                    let steps = (count % 64).div_ceil(16);
                    store(lookup(&tables, load(&rest, packed)), 4 * whole, steps);
                }
            }
        };
    }

    decode!(to_f32, f32, |value, factor, zero, out| {
        // An exact difference, and where there is no zero point the value itself.
        let value = _mm512_sub_ps(value, _mm512_set1_ps(zero));
        // SAFETY: 16 elements, of which `out` is the first.
        unsafe { _mm512_storeu_ps(out, _mm512_mul_ps(value, _mm512_set1_ps(factor))) };
    });

    decode!(to_f64, f64, |value, factor, zero, out| {
        let halves = [_mm512_castps512_ps256(value), _mm512_extractf32x8_ps::<1>(value)];
        for (half, value) in halves.into_iter().enumerate() {
            let value = _mm512_sub_pd(_mm512_cvtps_pd(value), _mm512_set1_pd(zero));
            // SAFETY: 16 elements, of which `out` is the first.
            unsafe { _mm512_storeu_pd(out.add(8 * half), _mm512_mul_pd(value, _mm512_set1_pd(factor))) };
        }
    });
}
