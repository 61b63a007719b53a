//! Reciprocals, roots, exponentials, logarithms and sine.
//!
//! AMD states an error bound for these and not their bits. Here they are computed in float64 and rounded once, which
//! is the exactly rounded value in nearly all cases. The polynomials are this module's, so that the result is the
//! same on every machine. Those of float32 flush denormal sources and results whatever MODE says, as the hardware does.

use super::float::{finish16, finish32, finish64, float_map, narrowed, overflow_to_greatest, widened};
use super::lanes::{float64_source, map1, wide_map2, write64};
use super::operands::{Form, Rest, Room, begin, source, write, write16};
use crate::emulator::exec::number::{self, Format};
use crate::emulator::isa::Inst;
use crate::emulator::wave::{Flow, Lanes, Wave};

/// Adding and subtracting this rounds a float64 to an integer.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// The value of a polynomial whose constant term comes first. The fused multiply-add is the same on every machine.
#[inline(always)]
fn horner<const N: usize>(terms: &[f64; N], x: f64) -> f64 {
    let mut sum = terms[N - 1];
    for i in (0..N - 1).rev() {
        sum = sum.mul_add(x, terms[i]);
    }
    sum
}

/// 2 to the power of `x`.
#[inline(always)]
fn exp2(x: f64) -> f64 {
    let x = if x > 1100.0 { 1100.0 } else { x };
    let x = if x < -1100.0 { -1100.0 } else { x };
    let shifted = x + ROUNDER;
    let whole = shifted - ROUNDER;
    let y = (x - whole) * std::f64::consts::LN_2;
    // The series of the exponential function; |y| is at most 0.35.
    const TERMS: [f64; 14] = [
        1.0,
        1.0,
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5_040.0,
        1.0 / 40_320.0,
        1.0 / 362_880.0,
        1.0 / 3_628_800.0,
        1.0 / 39_916_800.0,
        1.0 / 479_001_600.0,
        1.0 / 6_227_020_800.0,
    ];
    let power = horner(&TERMS, y);
    // Two steps, since the exponent alone may be out of range.
    let n = shifted.to_bits() as u32 as i32;
    let half = n >> 1;
    let scale = |n: i32| f64::from_bits(((n + 1023) as u64) << 52);
    power * scale(half) * scale(n - half)
}

/// The logarithm to base 2 of a positive normal number.
#[inline(always)]
fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    // Significand in [sqrt(1/2), sqrt(2)).
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let offset = bits.wrapping_sub(ROOT_HALF);
    let exponent = (offset as i64 >> 52) as i32;
    let significand = f64::from_bits(bits.wrapping_sub((i64::from(exponent) << 52) as u64));
    let s = (significand - 1.0) / (significand + 1.0);
    let square = s * s;
    const TERMS: [f64; 11] = [
        1.0,
        1.0 / 3.0,
        1.0 / 5.0,
        1.0 / 7.0,
        1.0 / 9.0,
        1.0 / 11.0,
        1.0 / 13.0,
        1.0 / 15.0,
        1.0 / 17.0,
        1.0 / 19.0,
        1.0 / 21.0,
    ];
    let series = horner(&TERMS, square);
    f64::from(exponent) + 2.0 * std::f64::consts::LOG2_E * s * series
}

/// The sine of `x` turns, |x| at most 2^20.
#[inline(always)]
fn sine(x: f64) -> f64 {
    let turn = x - ((x + ROUNDER) - ROUNDER);
    // Into a quarter turn around zero: sin(π - y) = sin(y).
    let near = if turn > 0.25 { 0.5 - turn } else { turn };
    let near = if near < -0.25 { -0.5 - near } else { near };
    let y = near * std::f64::consts::TAU;
    let square = y * y;
    const TERMS: [f64; 11] = [
        1.0,
        -1.0 / 6.0,
        1.0 / 120.0,
        -1.0 / 5_040.0,
        1.0 / 362_880.0,
        -1.0 / 39_916_800.0,
        1.0 / 6_227_020_800.0,
        -1.0 / 1_307_674_368_000.0,
        1.0 / 355_687_428_096_000.0,
        -1.0 / 121_645_100_408_832_000.0,
        1.0 / 51_090_942_171_709_440_000.0,
    ];
    y * horner(&TERMS, square)
}

/// Zero of the same sign for a denormal.
#[inline(always)]
fn without_denormals(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 1 << 31 } else { bits })
}

#[inline(always)]
fn exp32(x: f32) -> f32 {
    exp2(f64::from(x)) as f32
}

#[inline(always)]
fn log32(x: f32) -> f32 {
    let value = log2(f64::from(x)) as f32;
    let value = if x == f32::INFINITY { x } else { value };
    let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
    if x < 0.0 || x.is_nan() { f32::NAN } else { value }
}

/// The hardware's domain is 256 turns; beyond it sine is 0 and cosine is 1.
#[inline(always)]
fn sin32(x: f32) -> f32 {
    let value = sine(f64::from(x)) as f32;
    // The sine of a zero has its sign.
    let value = if x == 0.0 { x } else { value };
    let value = if x.abs() > 256.0 { 0.0 } else { value };
    if x.is_finite() { value } else { f32::NAN }
}

#[inline(always)]
fn cos32(x: f32) -> f32 {
    let value = sine(f64::from(x) + 0.25) as f32;
    let value = if x.abs() > 256.0 { 1.0 } else { value };
    if x.is_finite() { value } else { f32::NAN }
}

#[inline(always)]
fn rsq32(x: f32) -> f32 {
    (1.0 / f64::from(x).sqrt()) as f32
}

/// The NaN of a function of one source: that of the source, quiet, or the default one.
fn nan32(x: u32) -> u32 {
    if x & 0x7fff_ffff > 0x7f80_0000 { x | 0x40_0000 } else { 0x7fc0_0000 }
}

fn mend_nan(out: &mut Lanes, a: &Lanes) {
    for (out, a) in out.0.iter_mut().zip(&a.0) {
        if *out & 0x7fff_ffff > 0x7f80_0000 {
            *out = nan32(*a);
        }
    }
}

macro_rules! function32 {
    ($($(#[$doc:meta])* $name:ident: |$a:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut room = Room::uninit();
            let a = source(wave, inst, 0, 0, Form::F32, &mut room);
            #[inline(always)]
            fn lane($a: f32, _: f32, _: f32) -> f32 {
                let $a = without_denormals($a);
                without_denormals($body)
            }
            let mut result = Room::uninit();
            let (out, nan) = float_map(a, a, a, lane, &mut result);
            if nan {
                mend_nan(out, a);
            }
            finish32(wave, inst, out);
            write(wave, inst, 0, out);
            Flow::Next
        }
    )*};
}

function32! {
    v_rcp_f32: |a| 1.0 / a;
    /// As `v_rcp_f32`; it differs in the exceptions that it raises.
    v_rcp_iflag_f32: |a| 1.0 / a;
    v_rsq_f32: |a| rsq32(a);
    v_sqrt_f32: |a| a.sqrt();
    v_exp_f32: |a| exp32(a);
    v_exp_legacy_f32: |a| exp32(a);
    v_log_f32: |a| log32(a);
    v_log_legacy_f32: |a| log32(a);
    v_sin_f32: |a| sin32(a);
    v_cos_f32: |a| cos32(a);
}

macro_rules! function16 {
    ($($name:ident: |$a:ident| $body:expr;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut room = Room::uninit();
            let half = source(wave, inst, 0, 0, Form::F16, &mut room);
            let a = map1(half, |a| widened(a & 0xffff).to_bits());
            #[inline(always)]
            fn lane($a: f32, _: f32, _: f32) -> f32 {
                $body
            }
            let mut result = Room::uninit();
            let (out, nan) = float_map(&a, &a, &a, lane, &mut result);
            if nan {
                mend_nan(out, &a);
            }
            let mut out = map1(out, |x| narrowed(f32::from_bits(x)));
            overflow_to_greatest(wave, &mut out, |lane| a.0[lane] & 0x7fff_ffff != 0x7f80_0000);
            finish16(wave, inst, &mut out);
            write16(wave, inst, Rest::Cleared, &mut out);
            Flow::Next
        }
    )*};
}

function16! {
    v_rcp_f16: |a| 1.0 / a;
    v_rsq_f16: |a| rsq32(a);
    v_sqrt_f16: |a| a.sqrt();
    v_exp_f16: |a| exp32(a);
    v_log_f16: |a| log32(a);
    v_sin_f16: |a| sin32(a);
    v_cos_f16: |a| cos32(a);
}

macro_rules! function64 {
    ($($(#[$doc:meta])* $name:ident: |$a:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            if let Some(flow) = begin(wave, inst) {
                return flow;
            }
            let mut rooms = [[Room::uninit(); 2]; 2];
            let [x, spare] = &mut rooms;
            let a = float64_source(wave, inst, 0, x, spare);
            let mut out = super::lanes::wide_map1(a, |bits| {
                let $a = f64::from_bits(bits);
                let value: f64 = $body;
                let nan = if Format::F64.is_nan(bits) { bits | Format::F64.quiet() } else { Format::F64.nan() };
                if value.is_nan() { nan } else { value.to_bits() }
            });
            finish64(wave, inst, &mut out);
            write64(wave, inst, &out);
            Flow::Next
        }
    )*};
}

function64! {
    /// The hardware gives a first guess; this is the rounded value.
    v_rcp_f64: |a| 1.0 / a;
    /// The hardware gives a first guess; this is within 1 ulp.
    v_rsq_f64: |a| 1.0 / a.sqrt();
    /// The hardware gives a first guess; this is the rounded value.
    v_sqrt_f64: |a| a.sqrt();
}

/// The bits of 2/π behind the binary point, the highest first, and zeros.
const TWO_OVER_PI: [u64; 22] = [
    0xa2f9_836e_4e44_1529,
    0xfc27_57d1_f534_ddc0,
    0xdb62_9599_3c43_9041,
    0xfe51_63ab_debb_c561,
    0xb724_6e3a_424d_d2e0,
    0x0649_2eea_09d1_921c,
    0xfe1d_eb1c_b129_a73e,
    0xe882_35f5_2ebb_4484,
    0xe99c_7026_b45f_7e41,
    0x3991_d639_8353_39f4,
    0x9c84_5f8b_bdf9_283b,
    0x1ff8_97ff_de05_980f,
    0xef2f_118b_5a0a_6d1f,
    0x6d36_7ecf_27cb_09b7,
    0x4f46_3f66_9e5f_ea2d,
    0x7527_bac7_ebe5_f17b,
    0x3d07_39f7_8a52_92ea,
    0x6bfb_5fb1_1f8d_5d08,
    0x5603_3046_fc7b_6bab,
    0xf0cf_bc20_9af4_361d,
    0xa9e3_9161_5ee6_1b08,
    0x6599_855f_14a0_6840,
];

/// 53 bits of 2/π for the reduction of the arguments of sine and cosine: those from bit 53 * S1 on, further if S0 is
/// large.
pub fn v_trig_preop_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 2];
    let mut room = Room::uninit();
    let [x, spare] = &mut rooms;
    let a = float64_source(wave, inst, 0, x, spare);
    let segment = source(wave, inst, 1, 0, Form::B32, &mut room);
    let mode = wave.mode.round64_16();
    let mut out = wide_map2(a, [segment, segment], |a, segment| {
        let exponent = Format::F64.biased(a);
        let shift = (segment as i32 & 31) * 53 + (exponent - 1077).max(0);
        let value = Format::F64.split((two_over_pi(shift as usize) as f64).to_bits());
        let scale = -53 - shift + if exponent >= 1968 { 128 } else { 0 };
        number::round(Format::F64, number::Exact { exponent: value.exponent + scale, ..value }, mode)
    });
    finish64(wave, inst, &mut out);
    write64(wave, inst, &out);
    Flow::Next
}

/// 53 bits of 2/π from a bit on; only 1201 of them are there.
fn two_over_pi(from: usize) -> u64 {
    (from..from + 53).fold(0, |bits, i| {
        let there = i < 1201;
        let word = TWO_OVER_PI.get(i / 64).copied().unwrap_or(0);
        bits << 1 | (word >> (63 - i % 64) & u64::from(there))
    })
}
