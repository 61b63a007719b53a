//! Codes to values: some columns of a row of a stored weight, scaled, as float32 or float64.

use super::tile::Element;
use crate::dtype::DType;
use crate::simd::Isa;

/// Columns that share a scale where a row is decoded by vectors: this many or a multiple.
pub(super) const STEP: usize = 16;
/// Columns that are decoded at a time: a row's room is a multiple.
pub(super) const CHUNK: usize = 64;

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

    /// The value of a code, by its definition.
    pub fn value(&self, code: u32) -> f64 {
        self.values.get(code as usize).map_or_else(|| self.dtype.decode(code), |&value| f64::from(value))
    }
}

/// What the columns of a row are multiplied with: `(code - zeros[i]) * factors[i]`, where `i` is the column over
/// `step`, which is 1 or [`STEP`] times a power of two.
pub(super) struct Scaling<'a, E> {
    pub step: usize,
    pub factors: &'a [E],
    /// Empty where zero means zero.
    pub zeros: &'a [E],
}

/// Elements that a row can be decoded to.
pub(super) trait Decoded: Element {
    /// Decodes codes `first..first + count` of a packed row to `out[..count]`. What follows, up to the next multiple
    /// of [`CHUNK`], may be overwritten.
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
                    && scaling.step >= STEP
                    && (first * bits).is_multiple_of(8)
                {
                    let codes = &row[first * bits / 8..((first + count) * bits).div_ceil(8)];
                    assert!(out.len() >= count.next_multiple_of(CHUNK), "room for whole vectors");
                    // SAFETY: the machine has the instructions of an `Isa` that exists; the lengths were checked.
                    unsafe { avx512::$wide(decoder, bits == 4, codes, count, scaling, out) };
                    return;
                }
                let _ = isa;
                for (i, out) in out[..count].chunks_mut(scaling.step).enumerate() {
                    let (start, factor) = (first + i * scaling.step, scaling.factors[i]);
                    let zero = scaling.zeros.get(i).copied().unwrap_or(0.0);
                    let scale = |value: f32| (<$element>::from(value) - zero) * factor;
                    if decoder.dtype == DType::BF16 {
                        for (out, code) in out.iter_mut().zip(row[2 * start..].chunks_exact(2)) {
                            *out = scale(f32::from_bits(u32::from_le_bytes([0, 0, code[0], code[1]])));
                        }
                    } else if bits == 8 {
                        for (out, &code) in out.iter_mut().zip(&row[start..]) {
                            *out = scale(decoder.values[usize::from(code)]);
                        }
                    } else if bits == 4 {
                        for (at, out) in (start..).zip(out) {
                            *out = scale(decoder.values[usize::from(row[at / 2] >> (at % 2 * 4) & 15)]);
                        }
                    } else {
                        for (at, out) in (start..).zip(out) {
                            *out = scale(decoder.value(decoder.dtype.code_at(row, at)) as f32);
                        }
                    }
                }
            }
        }
    };
}
decoded!(f32, to_f32);
decoded!(f64, to_f64);

/// By lookups in tables that fit into registers: 16 float32, or 256 bfloat16 as bytes.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{CHUNK, Decoder, STEP, Scaling};
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

    /// 64 values of one byte each.
    struct Bytes {
        order: __m512i,
        low: [__m512i; 4],
        high: [__m512i; 4],
    }

    impl Bytes {
        const LEN: usize = 64;

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
        fn new(decoder: &Decoder) -> Bytes {
            // SAFETY: 64 bytes each: a quarter of a table of 256, and the order.
            let load = |bytes: &[u8; 256], at: usize| unsafe {
                _mm512_loadu_si512(bytes[at..at + 64].as_ptr().cast())
            };
            let [low, high] = &decoder.bytes;
            Bytes {
                // SAFETY: as above.
                order: unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) },
                low: [load(low, 0), load(low, 64), load(low, 128), load(low, 192)],
                high: [load(high, 0), load(high, 64), load(high, 128), load(high, 192)],
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
        fn values(&self, codes: &[u8; Bytes::LEN]) -> [__m512; 4] {
            // SAFETY: 64 bytes.
            let codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
            let codes = _mm512_permutexvar_epi8(self.order, codes);
            let negative = _mm512_movepi8_mask(codes);
            let byte = |table: &[__m512i; 4]| {
                let low = _mm512_permutex2var_epi8(table[0], codes, table[1]);
                let high = _mm512_permutex2var_epi8(table[2], codes, table[3]);
                _mm512_mask_mov_epi8(low, negative, high)
            };
            let (low, high) = (byte(&self.low), byte(&self.high));
            let (first, second) = (_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high));
            let zero = _mm512_setzero_si512();
            [
                _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, first)),
                _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, first)),
                _mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, second)),
                _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, second)),
            ]
        }
    }

    /// 64 values of two a byte, the low nibble first.
    struct Nibbles {
        /// Which 32 bits of eight codes an element is in, for the first 16 elements.
        word: __m512i,
        shift: __m512i,
        table: __m512,
    }

    impl Nibbles {
        const LEN: usize = 32;

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
        fn new(decoder: &Decoder) -> Nibbles {
            let table = &decoder.values[..16];
            Nibbles {
                word: _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                shift: _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28),
                // SAFETY: 16 elements.
                table: unsafe { _mm512_loadu_ps(table.as_ptr()) },
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
        fn values(&self, codes: &[u8; Nibbles::LEN]) -> [__m512; 4] {
            // SAFETY: 32 bytes.
            let codes = _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) });
            let part = |i: i32| {
                let words =
                    _mm512_permutexvar_epi32(_mm512_add_epi32(self.word, _mm512_set1_epi32(2 * i)), codes);
                // Of an index into 16 elements, the lowest four bits count.
                _mm512_permutexvar_ps(_mm512_srlv_epi32(words, self.shift), self.table)
            };
            [part(0), part(1), part(2), part(3)]
        }
    }

    macro_rules! decode {
        ($name:ident, $element:ty, |$value:ident, $factor:ident, $zero:ident, $out:ident| $store:block) => {
            /// # Safety
            /// The machine has these instructions; `codes` hold `count` codes, `out` has room for the next multiple of
            /// [`CHUNK`], and `scaling` has a factor for every `step` of them, and a zero point or none.
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
            pub unsafe fn $name(
                decoder: &Decoder,
                packed: bool,
                codes: &[u8],
                count: usize,
                scaling: &Scaling<'_, $element>,
                out: &mut [$element],
            ) {
                let shift = (scaling.step / STEP).trailing_zeros();
                // Not a closure: those are not always inlined, and vectors then pass through memory.
                macro_rules! store {
                    ($values:expr, $first:expr, $steps:expr) => {
                        for (i, $value) in $values.into_iter().enumerate().take($steps) {
                            let at = ($first + i) >> shift;
                            let ($factor, $zero) = (scaling.factors[at], scaling.zeros.get(at).copied());
                            let $out = out[STEP * ($first + i)..][..STEP].as_mut_ptr();
                            $store
                        }
                    };
                }
                let steps = count.div_ceil(STEP);
                macro_rules! all {
                    ($table:ident) => {{
                        let table = $table::new(decoder);
                        let (chunks, rest) = codes.as_chunks::<{ $table::LEN }>();
                        for (i, codes) in chunks.iter().enumerate() {
                            store!(table.values(codes), CHUNK / STEP * i, CHUNK / STEP);
                        }
                        if !rest.is_empty() {
                            let first = CHUNK / STEP * chunks.len();
                            let mut last = [0; $table::LEN];
                            last[..rest.len()].copy_from_slice(rest);
                            store!(table.values(&last), first, steps - first);
                        }
                    }};
                }
                if packed { all!(Nibbles) } else { all!(Bytes) }
            }
        };
    }

    decode!(to_f32, f32, |value, factor, zero, out| {
        // An exact difference.
        let value = match zero {
            Some(zero) => _mm512_sub_ps(value, _mm512_set1_ps(zero)),
            None => value,
        };
        // SAFETY: 16 elements, of which `out` is the first.
        unsafe { _mm512_storeu_ps(out, _mm512_mul_ps(value, _mm512_set1_ps(factor))) };
    });

    decode!(to_f64, f64, |value, factor, zero, out| {
        let halves = [_mm512_castps512_ps256(value), _mm512_extractf32x8_ps::<1>(value)];
        for (half, value) in halves.into_iter().enumerate() {
            let value = _mm512_sub_pd(_mm512_cvtps_pd(value), _mm512_set1_pd(zero.unwrap_or(0.0)));
            // SAFETY: 16 elements, of which `out` is the first.
            unsafe { _mm512_storeu_pd(out.add(8 * half), _mm512_mul_pd(value, _mm512_set1_pd(factor))) };
        }
    });
}
