//! Number formats against a construction from their definition, and the properties that hold for each of them.

use std::collections::BTreeMap;

use accuracy_core::arch::Arch;
use accuracy_core::dtype::{self, DType, NibbleOrder, Overflow, e8m0};
use proptest::prelude::*;

/// A finite or special value, written from the format's definition: `(-1)^s * 2^(e - bias) * 1.m`, subnormals
/// `2^(1 - bias) * 0.m`. Everything is scaled to an integer number of smallest steps first, so no rounding hides.
fn by_definition(exp_bits: u32, man_bits: u32, bias: i32, code: u32) -> f64 {
    let man = code % (1 << man_bits);
    let exp = (code >> man_bits) % (1 << exp_bits);
    let negative = code >> (man_bits + exp_bits) == 1;
    let steps: u64 = if exp == 0 { u64::from(man) } else { (u64::from(man) + (1 << man_bits)) << (exp - 1) };
    let value = steps as f64 * 2f64.powi(1 - bias - man_bits as i32);
    if negative { -value } else { value }
}

const SMALL_FLOATS: [(DType, u32, u32, i32); 7] = [
    (dtype::E4M3FN, 4, 3, 7),
    (dtype::E4M3FNUZ, 4, 3, 8),
    (dtype::E5M2, 5, 2, 15),
    (dtype::E5M2FNUZ, 5, 2, 16),
    (dtype::E3M2, 3, 2, 3),
    (dtype::E2M3, 2, 3, 1),
    (dtype::E2M1, 2, 1, 1),
];

/// What the code means, specials included.
fn expected(dtype: DType, exp_bits: u32, man_bits: u32, bias: i32, code: u32) -> f64 {
    let value = by_definition(exp_bits, man_bits, bias, code);
    match (dtype, code) {
        (dtype::E4M3FN, 0x7f | 0xff) => f64::NAN,
        (dtype::E4M3FNUZ | dtype::E5M2FNUZ, 0x80) => f64::NAN,
        (dtype::E5M2, 0x7c) => f64::INFINITY,
        (dtype::E5M2, 0xfc) => f64::NEG_INFINITY,
        (dtype::E5M2, 0x7d..=0x7f | 0xfd..=0xff) => f64::NAN,
        _ => value,
    }
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn every_small_float_code_decodes_by_definition() {
    for &dtype in DType::ALL.iter().filter(|dtype| dtype.is_float() && dtype.bits() <= 8) {
        let listed = dtype == dtype::E8M0 || SMALL_FLOATS.iter().any(|row| row.0 == dtype);
        assert!(listed, "{dtype} has no row in the table of this test");
    }
    for (dtype, exp_bits, man_bits, bias) in SMALL_FLOATS {
        let mut finite = 0;
        let mut max = 0.0;
        for code in 0..1u32 << dtype.bits() {
            let want = expected(dtype, exp_bits, man_bits, bias, code);
            let got = dtype.decode(code);
            assert!(same(got, want), "{dtype} {code:#04x}: {got} instead of {want}");
            assert_eq!(dtype.is_nan_code(code), want.is_nan(), "{dtype} {code:#04x}");
            if want.is_finite() {
                finite += 1;
                max = f64::max(max, want);
            }
        }
        assert_eq!(dtype.max(), max, "{dtype}");
        assert_eq!(dtype.min_positive(), dtype.decode(1), "{dtype}");
        let specials = match dtype {
            dtype::E4M3FN => 2,
            dtype::E5M2 => 8,
            dtype::E4M3FNUZ | dtype::E5M2FNUZ => 1,
            _ => 0,
        };
        assert_eq!(finite, (1 << dtype.bits()) - specials, "{dtype}");
    }
}

#[test]
fn e8m0_and_integers_decode_by_definition() {
    for code in 0..255u32 {
        assert_eq!(dtype::E8M0.decode(code), 2f64.powi(code as i32 - 127));
        assert_eq!(
            dtype::INT8.decode(code),
            f64::from(if code < 128 { code as i32 } else { code as i32 - 256 })
        );
    }
    assert!(dtype::E8M0.decode(255).is_nan());
    for code in 0..16u32 {
        assert_eq!(
            dtype::INT4.decode(code),
            f64::from(if code < 8 { code as i32 } else { code as i32 - 16 })
        );
        assert_eq!(dtype::UINT4.decode(code), f64::from(code));
    }
    assert_eq!(dtype::INT32.decode(0xffff_ffff), -1.0);
    assert_eq!(dtype::BF16.decode(0x3f80), 1.0);
    assert_eq!(dtype::F16.decode(0x3555), 0.333_251_953_125);
}

/// The non-negative finite codes of a float format in ascending order of value.
fn ladder(dtype: DType) -> Vec<u32> {
    let mut codes: Vec<u32> =
        (0..1u32 << (dtype.bits() - 1)).filter(|&code| dtype.decode(code).is_finite()).collect();
    codes.sort_by(|&a, &b| dtype.decode(a).total_cmp(&dtype.decode(b)));
    codes
}

/// The next f64 towards plus infinity, for positive finite values.
fn up(x: f64) -> f64 {
    f64::from_bits(x.to_bits() + 1)
}

fn down(x: f64) -> f64 {
    f64::from_bits(x.to_bits() - 1)
}

#[test]
fn ties_go_to_the_even_code_and_their_f64_neighbours_to_the_nearer() {
    for dtype in [
        dtype::E4M3FN,
        dtype::E4M3FNUZ,
        dtype::E5M2,
        dtype::E5M2FNUZ,
        dtype::E3M2,
        dtype::E2M3,
        dtype::E2M1,
        dtype::F16,
        dtype::BF16,
    ] {
        let sign = 1 << (dtype.bits() - 1);
        let fnuz = matches!(dtype, dtype::E4M3FNUZ | dtype::E5M2FNUZ);
        for pair in ladder(dtype).windows(2) {
            let (low, high) = (pair[0], pair[1]);
            let tie = (dtype.decode(low) + dtype.decode(high)) / 2.0;
            let even = if low % 2 == 0 { low } else { high };
            for (x, want) in [(tie, even), (down(tie), low), (up(tie), high)] {
                for overflow in [Overflow::Saturate, Overflow::Special] {
                    assert_eq!(dtype.encode(x, overflow), want, "{dtype} {x:e}");
                    let negative = if fnuz && want == 0 { 0 } else { want | sign };
                    assert_eq!(dtype.encode(-x, overflow), negative, "{dtype} {:e}", -x);
                }
            }
        }
    }
}

#[test]
fn overflow_starts_half_a_step_above_the_maximum() {
    // (format, first magnitude that overflows, saturated code, special code)
    for (dtype, edge, max, special) in [
        // Halfway to 480, which would have the odd code: the tie stays finite.
        (dtype::E4M3FN, up(464.0), 0x7e, 0x7f),
        (dtype::E4M3FNUZ, 248.0, 0x7f, 0x80),
        (dtype::E5M2, 61440.0, 0x7b, 0x7c),
        (dtype::E5M2FNUZ, 61440.0, 0x7f, 0x80),
        (dtype::F16, 65520.0, 0x7bff, 0x7c00),
        (dtype::BF16, f64::from(f32::from_bits(0x7f7f_8000)), 0x7f7f, 0x7f80),
        (dtype::F32, 2f64.powi(128) - 2f64.powi(103), 0x7f7f_ffff, 0x7f80_0000),
    ] {
        let sign = 1 << (dtype.bits() - 1);
        for x in [edge, edge * 1.5, edge * 4.0, 1e60, f64::MAX, f64::INFINITY] {
            assert_eq!(dtype.encode(x, Overflow::Saturate), max, "{dtype} {x:e}");
            assert_eq!(dtype.encode(-x, Overflow::Saturate), max | sign, "{dtype} {x:e}");
            assert_eq!(dtype.encode(x, Overflow::Special), special, "{dtype} {x:e}");
            assert_eq!(dtype.encode(-x, Overflow::Special), special | sign, "{dtype} {x:e}");
        }
        assert_eq!(dtype.encode(down(edge), Overflow::Special), max, "{dtype}");
    }
    for (dtype, max) in [(dtype::E3M2, 0x1f), (dtype::E2M3, 0x1f), (dtype::E2M1, 0x07)] {
        for overflow in [Overflow::Saturate, Overflow::Special] {
            assert_eq!(dtype.encode(f64::INFINITY, overflow), max, "{dtype}");
            assert_eq!(dtype.encode(-1e9, overflow), max | 1 << (dtype.bits() - 1), "{dtype}");
        }
    }
    assert_eq!(dtype::INT8.encode(127.5, Overflow::Special), 127);
    assert_eq!(dtype::INT8.encode(-1e9, Overflow::Saturate), 0x80);
    assert_eq!(dtype::INT4.encode(-9.0, Overflow::Saturate), 0x8);
    assert_eq!(dtype::UINT4.encode(-1.0, Overflow::Saturate), 0);
    assert_eq!(dtype::INT32.encode(1e12, Overflow::Saturate), 0x7fff_ffff);
}

#[test]
fn nan_encodes_as_nan_or_as_documented() {
    let want: BTreeMap<&str, u32> = BTreeMap::from([
        ("f32", 0x7fc0_0000),
        ("f16", 0x7e00),
        ("bf16", 0x7fc0),
        ("e4m3fn", 0x7f),
        ("e4m3fnuz", 0x80),
        ("e5m2", 0x7e),
        ("e5m2fnuz", 0x80),
        ("e3m2", 0x20),
        ("e2m3", 0x20),
        ("e2m1", 0x8),
        ("e8m0", 0xff),
        ("int8", 0),
        ("int4", 0),
        ("uint4", 0),
        ("int32", 0),
    ]);
    for &dtype in DType::ALL {
        for overflow in [Overflow::Saturate, Overflow::Special] {
            assert_eq!(dtype.encode(f64::NAN, overflow), want[dtype.name()], "{dtype}");
        }
        assert_eq!(dtype.decode(want[dtype.name()]).is_nan(), !dtype.nan_codes().is_empty(), "{dtype}");
    }
}

#[test]
fn integers_round_ties_to_even() {
    for (x, want) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, 0xfe), (126.5, 126)] {
        assert_eq!(dtype::INT8.encode(x, Overflow::Saturate), want, "{x}");
    }
}

#[test]
fn e8m0_nearest_floor_and_ceil_around_every_power() {
    for code in 0..=0xfeu32 {
        let power = dtype::E8M0.decode(code);
        assert_eq!((e8m0::floor(power), e8m0::ceil(power)), (code, code));
        assert_eq!(dtype::E8M0.encode(power, Overflow::Special), code);
        let next = (code + 1).min(0xfe);
        for (x, floor, ceil, nearest) in [
            (up(power), code, next, code),
            (down(1.5 * power), code, next, code),
            (1.5 * power, code, next, next),
            (down(2.0 * power), code, next, next),
        ] {
            assert_eq!(e8m0::floor(x), floor, "{x:e}");
            assert_eq!(e8m0::ceil(x), ceil, "{x:e}");
            assert_eq!(dtype::E8M0.encode(x, Overflow::Saturate), nearest, "{x:e}");
        }
    }
    assert_eq!(dtype::E8M0.encode(1.5 * 2f64.powi(127), Overflow::Special), 0xff);
    assert_eq!(dtype::E8M0.encode(0.0, Overflow::Saturate), 0x00);
    assert_eq!(dtype::E8M0.encode(0.0, Overflow::Special), 0xff);
    assert_eq!(dtype::E8M0.encode(-1.0, Overflow::Saturate), 0xff);
    assert_eq!(e8m0::floor(f64::INFINITY), 0xfe);
}

#[test]
fn e8m0_scales_of_the_producers() {
    use e8m0::Rounding::{Ceil, Even, Floor};
    // (amax, format, floor, ceil, even), worked by hand; 127 is a scale of 1.
    for (amax, element, floor, ceil, even) in [
        (6.0, dtype::E2M1, 127, 127, 127),
        (4.0, dtype::E2M1, 127, 127, 127),
        (3.0, dtype::E2M1, 126, 126, 126),
        (up(6.0), dtype::E2M1, 127, 128, 127),
        // Rounds up to 8 with one bit of significand.
        (7.0, dtype::E2M1, 127, 128, 128),
        (down(7.0), dtype::E2M1, 127, 128, 127),
        (448.0, dtype::E4M3FN, 127, 127, 127),
        (449.0, dtype::E4M3FN, 127, 128, 127),
        (480.0, dtype::E4M3FN, 127, 128, 127),
        (500.0, dtype::E4M3FN, 127, 128, 128),
        (256.0, dtype::E4M3FN, 127, 127, 127),
        (0.0, dtype::E2M1, 0, 0, 0),
        (1e-300, dtype::E2M1, 0, 0, 0),
        (f64::INFINITY, dtype::E2M1, 255, 255, 255),
        (f64::NAN, dtype::E2M1, 255, 255, 255),
    ] {
        let got = [Floor, Ceil, Even].map(|mode| e8m0::scale(amax, element, mode));
        assert_eq!(got, [floor, ceil, even], "{amax} {element}");
    }
}

#[test]
fn packing_puts_the_first_element_in_the_low_bits() {
    assert_eq!(dtype::E2M1.pack([1, 2, 3]), [0x21, 0x03]);
    assert_eq!(dtype::E2M1.codes(&[0x21, 0x43]).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(dtype::E3M2.pack([0x3f, 0, 0x3f, 0]), [0x3f, 0xf0, 0x03]);
    assert_eq!(dtype::BF16.pack([0x1234]), [0x34, 0x12]);
    assert_eq!(dtype::F32.decode_bytes(&1.5f32.to_le_bytes()), [1.5]);
}

#[test]
fn fnuz_has_half_the_value_of_every_finite_code() {
    for (dtype, target, non_finite) in [
        (dtype::E4M3FN, dtype::E4M3FNUZ, vec![0x7f, 0xff]),
        (dtype::E5M2, dtype::E5M2FNUZ, vec![0x7c, 0x7d, 0x7e, 0x7f, 0xfc, 0xfd, 0xfe, 0xff]),
    ] {
        let all: Vec<u8> = (0..=255).collect();
        let fnuz = dtype::to_fnuz(dtype, &all).unwrap();
        assert_eq!((fnuz.dtype, &fnuz.non_finite), (target, &non_finite));
        for code in all.iter().map(|&c| usize::from(c)).filter(|c| !non_finite.contains(c)) {
            let (before, after) = (dtype.decode(code as u32), target.decode(fnuz.codes[code].into()));
            assert_eq!(before, 2.0 * after, "{dtype} {code:#04x}");
        }
        assert_eq!(fnuz.codes[0x80], 0);
        assert_eq!(dtype::to_fnuz(target, &fnuz.codes), Err(dtype::FnuzError::Already(target)));
    }
    assert_eq!(dtype::to_fnuz(dtype::INT8, &[1]), Err(dtype::FnuzError::NotFp8(dtype::INT8)));
}

#[test]
fn nibble_orders_are_permutations_that_read_back() {
    // The element in each nibble, low first, of a word that packs 0 to 7.
    for (order, word) in [
        (NibbleOrder::LowFirst, 0x7654_3210),
        (NibbleOrder::Awq, 0x7531_6420),
        (NibbleOrder::Halves, 0x7362_5140),
    ] {
        assert_eq!(order.pack([0, 1, 2, 3, 4, 5, 6, 7]), word, "{order:?}");
        for element in 0..8 {
            assert_eq!(order.get(word, element), element as u32, "{order:?}");
            assert_eq!(order.elements()[order.nibble(element)], element, "{order:?}");
        }
    }
}

#[test]
fn architectures_read_what_their_instructions_do() {
    for &arch in Arch::ALL {
        assert_eq!(arch.name().parse(), Ok(arch));
        assert!([dtype::F32, dtype::BF16, dtype::INT8, dtype::INT4].iter().all(|&d| arch.native(d)));
    }
    assert!(DType::ALL.iter().all(|&d| Arch::Host.native(d)));
    // CDNA 3 reads only fnuz, everything after it only OCP.
    assert!(Arch::Gfx942.native(dtype::E4M3FNUZ) && !Arch::Gfx942.native(dtype::E4M3FN));
    for arch in [Arch::Gfx950, Arch::Gfx1201, Arch::Sm90] {
        assert!(arch.native(dtype::E4M3FN) && !arch.native(dtype::E4M3FNUZ), "{arch}");
    }
    for (arch, fp4) in
        [(Arch::Gfx942, false), (Arch::Gfx950, true), (Arch::Gfx1200, false), (Arch::Sm100, true)]
    {
        assert_eq!(arch.native(dtype::E2M1), fp4, "{arch}");
    }
    assert_eq!(Arch::Gfx90a.native_fp8(), None);
    assert_eq!(Arch::Gfx942.native_fp8(), Some(dtype::E4M3FNUZ));
    assert_eq!(Arch::Sm89.native_fp8(), Some(dtype::E4M3FN));
    assert_eq!("gfx942:sramecc+:xnack-".parse(), Ok(Arch::Gfx942));
    let message = "gfx94".parse::<Arch>().unwrap_err().to_string();
    assert!(message.contains("`gfx94`") && message.contains("gfx942, gfx950"), "{message}");
}

#[test]
fn names_parse_back_and_unknown_ones_are_listed() {
    for &dtype in DType::ALL {
        assert_eq!(dtype.name().parse(), Ok(dtype));
    }
    let message = "fp8".parse::<DType>().unwrap_err().to_string();
    assert!(message.contains("`fp8`") && message.contains("e4m3fnuz, e5m2,"), "{message}");
}

fn any_dtype() -> impl Strategy<Value = DType> {
    proptest::sample::select(DType::ALL)
}

/// Below it every value is a multiple of the smallest one; at twice as much the steps are twice as large.
#[test]
fn the_least_normal_value_is_where_steps_begin_to_grow() {
    let mut seen = 0;
    for dtype in DType::ALL.iter().copied().filter(|dtype| dtype.bits() <= 8) {
        let Some(least) = dtype.min_normal() else { continue };
        let codes = 0..1u32 << dtype.bits();
        let mut values: Vec<f64> =
            codes.map(|code| dtype.decode(code)).filter(|x| *x > 0.0 && x.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let step = dtype.min_positive();
        let below: Vec<f64> = values.iter().copied().filter(|x| *x < least).collect();
        let multiples: Vec<f64> = (1..=below.len()).map(|i| i as f64 * step).collect();
        assert_eq!(below, multiples, "{dtype}");
        assert_eq!((below.len() + 1) as f64 * step, least, "{dtype}");
        let next = values.iter().find(|x| **x > 2.0 * least);
        assert_eq!(next, Some(&(2.0 * least + 2.0 * step)), "{dtype}");
        seen += 1;
    }
    assert_eq!(seen, 7, "formats of eight bits or fewer that have subnormals");
}

proptest! {
    #[test]
    fn a_finite_code_survives_decode_and_encode(dtype in any_dtype(), code: u32) {
        let code = code & (u32::MAX >> (32 - dtype.bits()));
        let value = dtype.decode(code);
        prop_assume!(value.is_finite());
        prop_assert_eq!(dtype.encode(value, Overflow::Special), code);
        prop_assert_eq!(dtype.encode(value, Overflow::Saturate), code);
    }

    #[test]
    fn encoding_is_monotonic(dtype in any_dtype(), a in any::<f64>(), scale in -140i32..140, b in -2.0f64..2.0) {
        // Two pairs: anything against anything, and two values of like magnitude.
        for (a, b) in [(a, b), (b * 2f64.powi(scale), b * a.signum() * 2f64.powi(scale - 1))] {
            // e8m0 has no order below zero.
            let (a, b) = if dtype == dtype::E8M0 { (a.abs(), b.abs()) } else { (a, b) };
            let [x, y] = [a.min(b), a.max(b)].map(|v| dtype.decode(dtype.encode(v, Overflow::Saturate)));
            prop_assert!(x <= y, "{} {:e} {:e}: {:e} {:e}", dtype, a, b, x, y);
        }
    }

    #[test]
    fn encoding_is_within_half_a_step(dtype in any_dtype(), x in -1.0f64..1.0) {
        prop_assume!(dtype != dtype::E8M0);
        let x = x * dtype.max();
        let code = dtype.encode(x, Overflow::Saturate);
        let error = (dtype.decode(code) - x).abs();
        for near in [code.wrapping_sub(1), code.wrapping_add(1)] {
            let other = dtype.decode(near);
            prop_assert!(!(other - x).is_finite() || error <= (other - x).abs());
        }
    }

    #[test]
    fn packed_codes_read_back(dtype in any_dtype(), codes in proptest::collection::vec(any::<u32>(), 0..40)) {
        let codes: Vec<u32> = codes.iter().map(|c| c & (u32::MAX >> (32 - dtype.bits()))).collect();
        let bytes = dtype.pack(codes.iter().copied());
        prop_assert_eq!(bytes.len(), dtype.packed_len(codes.len()));
        let back: Vec<u32> = (0..codes.len()).map(|i| dtype.code_at(&bytes, i)).collect();
        prop_assert_eq!(back, codes);
    }
}
