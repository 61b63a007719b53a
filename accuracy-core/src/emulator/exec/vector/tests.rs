//! Vector instructions against independent computations.

use super::*;
use crate::emulator::exec::number::tests::Sequence;
use crate::emulator::exec::number::{self, Format};
use crate::emulator::isa::{Dpp, Encoding, Execute, Inst, Operand, Processor, Sdwa, Select, Special, Unused};
use crate::emulator::memory::{Group, Space};
use crate::emulator::wave::{Flow, GprIndex, LANES, Lanes, Mode, Round, Wave};

/// An instruction without operands and modifiers.
pub(super) fn instruction(execute: Execute) -> Inst {
    Inst { execute, size: 8, ..Inst::new(crate::emulator::isa::table::row("v_nop").unwrap(), Encoding::Vop3) }
}

/// `v20 = f(v2, v4, v6, vcc)`; pairs of registers do not overlap.
fn on_vectors(execute: Execute) -> Inst {
    Inst {
        dst: Operand::Vector(20),
        sdst: Operand::Scalar(30),
        src: [Operand::Vector(2), Operand::Vector(4), Operand::Vector(6), Operand::Scalar(106)],
        op_sel_hi: 7,
        ..instruction(execute)
    }
}

/// Gives a function a wave of gfx942 whose registers are zero.
pub(super) fn with_wave<T>(f: impl FnOnce(&mut Wave) -> T) -> T {
    let space = Space::default();
    let group = Group::new(&space, vec![0; 1024].into_boxed_slice(), [0; 3]);
    let mut wave = Wave::new(Processor::Gfx942, &group, 0, 0);
    f(&mut wave)
}

fn run(wave: &mut Wave, inst: &Inst) {
    assert_eq!((inst.execute)(wave, inst), Flow::Next);
}

/// The result of an instruction for one value of each source, in lane 0.
fn one(execute: Execute, sources: [u32; 3]) -> u32 {
    with_wave(|wave| {
        for (i, source) in sources.into_iter().enumerate() {
            wave.v[2 + 2 * i] = Lanes::splat(source);
        }
        run(wave, &on_vectors(execute));
        wave.v[20].0[0]
    })
}

fn fill(wave: &mut Wave, register: usize, mut value: impl FnMut() -> u32) {
    wave.v[register].0.iter_mut().for_each(|lane| *lane = value());
}

fn word(wave: &Wave, register: usize, lane: usize) -> u64 {
    u64::from(wave.v[register + 1].0[lane]) << 32 | u64::from(wave.v[register].0[lane])
}

type Exact = fn(Format, u64, u64, u64, Round) -> u64;

/// The fast arithmetic of an instruction against integer arithmetic, in all modes of rounding, NaN payloads too.
fn agrees(format: Format, seed: u64, execute: Execute, exact: Exact) {
    let mut sequence = Sequence(seed);
    with_wave(|wave| {
        for mode in 0..4 {
            wave.mode = Mode(0x3f0 | mode | mode << 2);
            let rounding = if format == Format::F32 { wave.mode.round32() } else { wave.mode.round64_16() };
            for _ in 0..if mode == 0 { 2_000 } else { 50 } {
                let values: Vec<[u64; 3]> =
                    (0..LANES).map(|_| [(); 3].map(|()| sequence.float(format))).collect();
                for (lane, values) in values.iter().enumerate() {
                    for (i, value) in values.iter().enumerate() {
                        wave.v[2 + 2 * i].0[lane] = *value as u32;
                        wave.v[3 + 2 * i].0[lane] = (*value >> 32) as u32;
                    }
                }
                run(wave, &on_vectors(execute));
                for (lane, [a, b, c]) in values.into_iter().enumerate() {
                    let found = word(wave, 20, lane) & (format.sign() | (format.sign() - 1));
                    let expected = exact(format, a, b, c, rounding);
                    assert_eq!(found, expected, "{a:x} {b:x} {c:x} {rounding:?}");
                }
            }
        }
    });
}

#[test]
fn float32_instructions_agree_with_integer_arithmetic() {
    let f32 = Format::F32;
    agrees(f32, 1, v_add_f32, |f, a, b, _, mode| number::add(f, a, b, mode));
    agrees(f32, 2, v_mul_f32, |f, a, b, _, mode| number::mul(f, a, b, mode));
    agrees(f32, 3, v_fma_f32, number::fma);
    agrees(f32, 4, v_rndne_f32, |f, a, _, _, _| number::integral(f, a, Round::NearestEven));
    agrees(f32, 5, v_ceil_f32, |f, a, _, _, _| number::integral(f, a, Round::Up));
    agrees(f32, 6, v_ldexp_f32, |f, a, b, _, mode| number::ldexp(f, a, b as u32 as i32, mode));
}

#[test]
fn float64_instructions_agree_with_integer_arithmetic() {
    let f64 = Format::F64;
    agrees(f64, 1, v_add_f64, |f, a, b, _, mode| number::add(f, a, b, mode));
    agrees(f64, 2, v_mul_f64, |f, a, b, _, mode| number::mul(f, a, b, mode));
    agrees(f64, 3, v_fma_f64, number::fma);
    agrees(f64, 4, v_floor_f64, |f, a, _, _, _| number::integral(f, a, Round::Down));
}

#[test]
fn float16_instructions_agree_with_integer_arithmetic() {
    let f16 = Format::F16;
    agrees(f16, 1, v_add_f16, |f, a, b, _, mode| number::add(f, a, b, mode));
    agrees(f16, 2, v_mul_f16, |f, a, b, _, mode| number::mul(f, a, b, mode));
    agrees(f16, 3, v_fma_legacy_f16, number::fma);
    agrees(f16, 4, v_trunc_f16, |f, a, _, _, _| number::integral(f, a, Round::TowardZero));
    agrees(f16, 5, v_mad_legacy_f16, |f, a, b, c, mode| {
        if !f.is_nan(a) && !f.is_nan(b) && f.is_nan(c) {
            return c | f.quiet();
        }
        number::add(f, number::mul(f, a, b, mode), c, mode)
    });
}

#[test]
fn every_float16_widens_and_every_boundary_narrows() {
    with_wave(|wave| {
        for first in (0..0x1_0000).step_by(LANES) {
            let mut next = first;
            fill(wave, 2, || {
                next += 1;
                next - 1
            });
            run(wave, &on_vectors(v_cvt_f32_f16));
            for lane in 0..LANES {
                let half = u64::from(first) + lane as u64;
                let wide = number::convert(Format::F16, Format::F32, half, Round::NearestEven);
                assert_eq!(u64::from(wave.v[20].0[lane]), wide, "{half:x}");
            }
        }
        let mut sequence = Sequence(9);
        for round in 0..4 {
            wave.mode = Mode(0x3f0 | round << 2);
            let mode = wave.mode.round64_16();
            for first in (0..0x1_0000_u64).step_by(LANES) {
                let mut half = first;
                // A float16, or half way to the next one, and one bit beside it.
                fill(wave, 2, || {
                    let wide = number::convert(Format::F16, Format::F32, half, Round::NearestEven) as u32;
                    half += 1;
                    let beside = (sequence.next() % 3) as u32;
                    let middle = if sequence.next() & 1 == 0 { 0x1000 } else { 0 };
                    wide.wrapping_add(middle).wrapping_add(beside).wrapping_sub(1)
                });
                fill(wave, 4, || sequence.float(Format::F32) as u32);
                let sources = [wave.v[2], wave.v[4]];
                for (i, source) in sources.iter().enumerate() {
                    let from = Operand::Vector(2 + 2 * i as u16);
                    run(wave, &Inst { src: [from; 4], ..on_vectors(v_cvt_f16_f32) });
                    let nearest = wave.v[20];
                    run(wave, &Inst { src: [from; 4], ..on_vectors(v_cvt_pkrtz_f16_f32) });
                    for lane in 0..LANES {
                        let x = u64::from(source.0[lane]);
                        let expected = number::convert(Format::F32, Format::F16, x, mode);
                        assert_eq!(u64::from(nearest.0[lane]), expected, "{x:x} {mode:?}");
                        let expected = number::convert(Format::F32, Format::F16, x, Round::TowardZero);
                        assert_eq!(u64::from(wave.v[20].0[lane]), expected << 16 | expected, "{x:x}");
                    }
                }
            }
        }
    });
}

#[test]
fn float32_converts_to_integers_as_rust_casts() {
    let mut sequence = Sequence(10);
    with_wave(|wave| {
        for _ in 0..5_000 {
            fill(wave, 2, || sequence.float(Format::F32) as u32 ^ ((sequence.next() & 1) as u32) << 30);
            run(wave, &on_vectors(v_cvt_i32_f32));
            let signed = wave.v[20];
            run(wave, &on_vectors(v_cvt_u32_f32));
            for lane in 0..LANES {
                let x = f32::from_bits(wave.v[2].0[lane]);
                assert_eq!(signed.0[lane] as i32, x as i32, "{x:e}");
                assert_eq!(wave.v[20].0[lane], x as u32, "{x:e}");
            }
        }
    });
    for x in
        [2_147_483_520.0_f32, 2_147_483_648.0, -2_147_483_648.0, 4_294_967_040.0, 4_294_967_296.0, -0.9, 1e30]
    {
        assert_eq!(one(v_cvt_i32_f32, [x.to_bits(), 0, 0]) as i32, x as i32);
        assert_eq!(one(v_cvt_u32_f32, [x.to_bits(), 0, 0]), x as u32);
    }
}

/// The compiler's division of float32: `num / den`.
fn divided32(wave: &mut Wave, num: u16, den: u16) {
    let v = Operand::Vector;
    let step = |wave: &mut Wave, execute: Execute, dst: u16, src: [Operand; 3], neg: u8, sdst: Operand| {
        let src = [src[0], src[1], src[2], Operand::Scalar(106)];
        run(wave, &Inst { dst: v(dst), sdst, src, neg, ..instruction(execute) });
    };
    let (none, vcc, unused) = (Operand::None, Operand::Scalar(106), Operand::Scalar(30));
    let one = Operand::Constant(0x3f80_0000);
    step(wave, v_div_scale_f32, 30, [v(den), v(den), v(num)], 0, unused);
    step(wave, v_div_scale_f32, 31, [v(num), v(den), v(num)], 0, vcc);
    step(wave, v_rcp_f32, 32, [v(30), none, none], 0, none);
    step(wave, v_fma_f32, 33, [v(30), v(32), one], 1, none);
    step(wave, v_fma_f32, 34, [v(33), v(32), v(32)], 0, none);
    step(wave, v_mul_f32, 35, [v(31), v(34), none], 0, none);
    step(wave, v_fma_f32, 36, [v(30), v(35), v(31)], 1, none);
    step(wave, v_fma_f32, 37, [v(36), v(34), v(35)], 0, none);
    step(wave, v_fma_f32, 38, [v(30), v(37), v(31)], 1, none);
    step(wave, v_div_fmas_f32, 39, [v(38), v(34), v(37)], 0, none);
    step(wave, v_div_fixup_f32, 20, [v(39), v(den), v(num)], 0, none);
}

#[test]
fn the_compilers_division_of_float32_is_correctly_rounded() {
    let mut sequence = Sequence(11);
    with_wave(|wave| {
        for _ in 0..3_000 {
            fill(wave, 2, || sequence.float(Format::F32) as u32);
            fill(wave, 4, || sequence.float(Format::F32) as u32);
            divided32(wave, 2, 4);
            for lane in 0..LANES {
                let (a, b) = (f32::from_bits(wave.v[2].0[lane]), f32::from_bits(wave.v[4].0[lane]));
                let (found, expected) = (f32::from_bits(wave.v[20].0[lane]), a / b);
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(same, "{a:e} / {b:e} = {expected:e}, not {found:e}");
            }
        }
    });
}

/// The compiler's division of float64, with register pairs.
fn divided64(wave: &mut Wave, num: u16, den: u16) {
    let v = Operand::Vector;
    let step = |wave: &mut Wave, execute: Execute, dst: u16, src: [Operand; 3], neg: u8, sdst: Operand| {
        let src = [src[0], src[1], src[2], Operand::Scalar(106)];
        run(wave, &Inst { dst: v(dst), sdst, src, neg, ..instruction(execute) });
    };
    let (none, vcc, unused) = (Operand::None, Operand::Scalar(106), Operand::Scalar(30));
    let one = Operand::Constant(1.0_f64.to_bits());
    step(wave, v_div_scale_f64, 30, [v(den), v(den), v(num)], 0, unused);
    step(wave, v_rcp_f64, 32, [v(30), none, none], 0, none);
    step(wave, v_fma_f64, 34, [v(30), v(32), one], 1, none);
    step(wave, v_fma_f64, 32, [v(32), v(34), v(32)], 0, none);
    step(wave, v_fma_f64, 34, [v(30), v(32), one], 1, none);
    step(wave, v_fma_f64, 32, [v(32), v(34), v(32)], 0, none);
    step(wave, v_div_scale_f64, 36, [v(num), v(den), v(num)], 0, vcc);
    step(wave, v_mul_f64, 38, [v(36), v(32), none], 0, none);
    step(wave, v_fma_f64, 34, [v(30), v(38), v(36)], 1, none);
    step(wave, v_div_fmas_f64, 40, [v(34), v(32), v(38)], 0, none);
    step(wave, v_div_fixup_f64, 20, [v(40), v(den), v(num)], 0, none);
}

#[test]
fn the_compilers_division_of_float64_is_correctly_rounded() {
    let mut sequence = Sequence(12);
    with_wave(|wave| {
        for _ in 0..3_000 {
            for lane in 0..LANES {
                for register in [2, 4] {
                    let value = sequence.float(Format::F64);
                    wave.v[register].0[lane] = value as u32;
                    wave.v[register + 1].0[lane] = (value >> 32) as u32;
                }
            }
            divided64(wave, 2, 4);
            for lane in 0..LANES {
                let (a, b) = (f64::from_bits(word(wave, 2, lane)), f64::from_bits(word(wave, 4, lane)));
                let (found, expected) = (f64::from_bits(word(wave, 20, lane)), a / b);
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(same, "{a:e} / {b:e} = {expected:e}, not {found:e}");
            }
        }
    });
}

/// Distance in units of the last place of float32.
fn ulps(found: f32, exact: f64) -> f64 {
    let unit = 2.0_f64.powi((exact.abs().log2().floor() as i32).max(-126) - 23);
    (f64::from(found) - exact).abs() / unit
}

#[test]
fn transcendental_functions_are_rounded_once() {
    let mut sequence = Sequence(13);
    type Case = (Execute, fn(f64) -> f64, f64, f64);
    let cases: [Case; 6] = [
        (v_exp_f32, f64::exp2, -125.0, 127.0),
        (v_log_f32, f64::log2, 1e-37, 1e37),
        (v_rcp_f32, |x| 1.0 / x, 1e-30, 1e30),
        (v_rsq_f32, |x| 1.0 / x.sqrt(), 1e-37, 1e37),
        (v_sqrt_f32, f64::sqrt, 1e-37, 1e37),
        (v_log_f32, f64::log2, 0.99, 1.01),
    ];
    with_wave(|wave| {
        for (execute, function, least, most) in cases {
            for _ in 0..500 {
                fill(wave, 2, || {
                    let part = sequence.next() as f64 / u64::MAX as f64;
                    let x = if least > 0.0 {
                        (least.ln() + part * (most / least).ln()).exp()
                    } else {
                        least + part * (most - least)
                    };
                    (x as f32).to_bits()
                });
                run(wave, &on_vectors(execute));
                for lane in 0..LANES {
                    let x = f32::from_bits(wave.v[2].0[lane]);
                    let found = f32::from_bits(wave.v[20].0[lane]);
                    let exact = function(f64::from(x));
                    assert!(exact == 0.0 && found == 0.0 || ulps(found, exact) < 0.50001, "{x:e}: {found:e}");
                }
            }
        }
    });
}

#[test]
fn sine_and_cosine_take_turns_and_end_at_256() {
    let mut sequence = Sequence(14);
    with_wave(|wave| {
        for _ in 0..500 {
            fill(wave, 2, || ((sequence.next() as f64 / u64::MAX as f64 - 0.5) as f32 * 8.0).to_bits());
            run(wave, &on_vectors(v_sin_f32));
            let sines = wave.v[20];
            run(wave, &on_vectors(v_cos_f32));
            for lane in 0..LANES {
                let x = f64::from(f32::from_bits(wave.v[2].0[lane]));
                let turn = (x - x.round()) * std::f64::consts::TAU;
                let (sine, cosine) = (f32::from_bits(sines.0[lane]), f32::from_bits(wave.v[20].0[lane]));
                assert!((f64::from(sine) - turn.sin()).abs() < 6e-8, "{x}");
                assert!((f64::from(cosine) - turn.cos()).abs() < 6e-8, "{x}");
            }
        }
    });
    assert_eq!(one(v_sin_f32, [257.25_f32.to_bits(), 0, 0]), 0);
    assert_eq!(one(v_cos_f32, [(-300.0_f32).to_bits(), 0, 0]), 1.0_f32.to_bits());
    assert_eq!(one(v_sin_f32, [0x7f80_0000, 0, 0]), 0x7fc0_0000);
}

#[test]
fn transcendental_functions_flush_denormals_whatever_the_mode_says() {
    let denormal = 0x0000_0123;
    assert_eq!(one(v_rcp_f32, [denormal, 0, 0]), 0x7f80_0000);
    assert_eq!(one(v_rcp_f32, [2.0_f32.powi(127).to_bits() | 1, 0, 0]), 0);
    assert_eq!(one(v_log_f32, [denormal, 0, 0]), 0xff80_0000);
    assert_eq!(one(v_exp_f32, [(-140.0_f32).to_bits(), 0, 0]), 0);
    assert_eq!(one(v_sqrt_f32, [0x8000_0001, 0, 0]), 0x8000_0000);
    assert_eq!(one(v_log_f32, [0xbf80_0000, 0, 0]), 0x7fc0_0000);
    assert_eq!(one(v_rsq_f32, [0x8000_0000, 0, 0]), 0xff80_0000);
}

#[test]
fn lanes_that_do_not_execute_keep_their_values() {
    with_wave(|wave| {
        wave.set_exec(0x0f0f_0000_ffff_1234);
        wave.v[20] = Lanes::splat(77);
        wave.v[2] = Lanes::splat(5);
        wave.v[4] = Lanes::splat(6);
        run(wave, &on_vectors(v_add_u32));
        for lane in 0..LANES {
            let on = 0x0f0f_0000_ffff_1234_u64 >> lane & 1 != 0;
            assert_eq!(wave.v[20].0[lane], if on { 11 } else { 77 }, "lane {lane}");
        }
        // A comparison gives zero for them.
        run(wave, &Inst { dst: Operand::Scalar(40), ..on_vectors(v_cmp_lt_u32) });
        assert_eq!(wave.s64(40), 0x0f0f_0000_ffff_1234);
        run(wave, &Inst { dst: Operand::Scalar(106), ..on_vectors(v_cmpx_gt_u32) });
        assert_eq!((wave.vcc(), wave.exec()), (0, 0));
    });
}

#[test]
fn comparisons_put_each_lane_into_its_bit() {
    let mut sequence = Sequence(15);
    with_wave(|wave| {
        for _ in 0..200 {
            fill(wave, 2, || sequence.float(Format::F32) as u32);
            fill(wave, 4, || sequence.float(Format::F32) as u32);
            fill(wave, 3, || (sequence.next() & 1) as u32);
            fill(wave, 5, || (sequence.next() & 1) as u32);
            let mask = |wave: &mut Wave, execute: Execute| {
                run(wave, &Inst { dst: Operand::Scalar(40), ..on_vectors(execute) });
                wave.s64(40)
            };
            let found = [v_cmp_lt_f32 as Execute, v_cmp_nge_f32, v_cmp_gt_i64, v_cmp_ne_u16]
                .map(|execute| mask(wave, execute));
            for lane in 0..LANES {
                let (a, b) = (f32::from_bits(wave.v[2].0[lane]), f32::from_bits(wave.v[4].0[lane]));
                let (x, y) = (word(wave, 2, lane) as i64, word(wave, 4, lane) as i64);
                let ordered = a.partial_cmp(&b);
                let expected = [
                    ordered.is_some_and(std::cmp::Ordering::is_lt),
                    !ordered.is_some_and(std::cmp::Ordering::is_ge),
                    x > y,
                    x as u16 != y as u16,
                ];
                assert_eq!(found.map(|mask| mask >> lane & 1 != 0), expected, "{a:e} {b:e}");
            }
        }
    });
}

#[test]
fn a_carry_is_added_and_given_on() {
    let mut sequence = Sequence(16);
    with_wave(|wave| {
        for _ in 0..500 {
            fill(wave, 2, || (sequence.next() % 3) as u32);
            fill(wave, 4, || u32::MAX - (sequence.next() % 3) as u32);
            let carry = sequence.next();
            wave.set_vcc(carry);
            run(wave, &on_vectors(v_addc_co_u32));
            let (sums, carries) = (wave.v[20], wave.s64(30));
            run(wave, &on_vectors(v_subb_co_u32));
            for lane in 0..LANES {
                let (a, b) = (u64::from(wave.v[2].0[lane]), u64::from(wave.v[4].0[lane]));
                let bit = carry >> lane & 1;
                assert_eq!(u64::from(sums.0[lane]) | (carries >> lane & 1) << 32, a + b + bit);
                let borrowed = wave.s64(30) >> lane & 1;
                let difference = i128::from(a) - i128::from(b) - i128::from(bit);
                assert_eq!(i128::from(wave.v[20].0[lane]) - (i128::from(borrowed) << 32), difference);
            }
        }
    });
}

#[test]
fn products_and_shifts_of_64_bits_are_exact() {
    let mut sequence = Sequence(17);
    with_wave(|wave| {
        for _ in 0..500 {
            for register in 2..8 {
                let mask = if sequence.next() & 1 == 0 { u32::MAX } else { 0xff };
                fill(wave, register, || sequence.next() as u32 & mask);
            }
            let mut results = |execute: Execute| {
                run(wave, &on_vectors(execute));
                let values: Vec<u64> = (0..LANES).map(|lane| word(wave, 20, lane)).collect();
                (values, wave.s64(30))
            };
            let unsigned = results(v_mad_u64_u32);
            let signed = results(v_mad_i64_i32);
            let shifted = results(v_lshl_add_u64).0;
            let right = results(v_ashrrev_i64).0;
            for lane in 0..LANES {
                let (a, b, c) = (wave.v[2].0[lane], wave.v[4].0[lane], word(wave, 6, lane));
                let sum = u128::from(a) * u128::from(b) + u128::from(c);
                assert_eq!(u128::from(unsigned.0[lane]) | u128::from(unsigned.1 >> lane & 1) << 64, sum);
                let sum = i128::from(a as i32) * i128::from(b as i32) + i128::from(c as i64);
                assert_eq!(signed.0[lane], sum as u64);
                assert_eq!(signed.1 >> lane & 1 != 0, sum < 0);
                assert_eq!(shifted[lane], (word(wave, 2, lane) << (b & 7)).wrapping_add(c));
                assert_eq!(right[lane] as i64, word(wave, 4, lane) as i64 >> (a & 63));
            }
        }
    });
}

#[test]
fn clamp_saturates_integers() {
    let clamped = |execute: Execute, sources: [u32; 3]| {
        with_wave(|wave| {
            for (i, source) in sources.into_iter().enumerate() {
                wave.v[2 + 2 * i] = Lanes::splat(source);
            }
            run(wave, &Inst { clamp: true, ..on_vectors(execute) });
            wave.v[20].0[0]
        })
    };
    assert_eq!(clamped(v_add_u32, [u32::MAX, 2, 0]), u32::MAX);
    assert_eq!(clamped(v_sub_u32, [1, 2, 0]), 0);
    assert_eq!(clamped(v_add_i32, [i32::MAX as u32, 1, 0]), i32::MAX as u32);
    assert_eq!(clamped(v_sub_i32, [i32::MIN as u32, 1, 0]), i32::MIN as u32);
    assert_eq!(clamped(v_mad_i32_i24, [0x7f_ffff, 0x7f_ffff, 9]), i32::MAX as u32);
    assert_eq!(clamped(v_add_u16, [0xffff, 0xffff, 0]), 0xffff);
    assert_eq!(clamped(v_mad_i16, [0x8000, 0x7fff, 0]), 0x8000);
    assert_eq!(clamped(v_pk_add_u16, [0xffff_0001, 0x0002_0001, 0]), 0xffff_0002);
    assert_eq!(clamped(v_dot4_i32_i8, [0x7f7f_7f7f, 0x7f7f_7f7f, i32::MAX as u32]), i32::MAX as u32);
    // Floats go into [0, 1], and NaN to zero.
    assert_eq!(clamped(v_add_f32, [3.0_f32.to_bits(), 0, 0]), 1.0_f32.to_bits());
    assert_eq!(clamped(v_add_f32, [0xc000_0000, 0, 0]), 0);
    assert_eq!(clamped(v_add_f32, [0x7fc0_0001, 0, 0]), 0);
}

#[test]
fn bits_are_moved_as_the_document_says() {
    assert_eq!(one(v_bfe_u32, [0xabcd_1234, 8, 12]), 0xd12);
    assert_eq!(one(v_bfe_u32, [u32::MAX, 0, 32]), 0);
    assert_eq!(one(v_bfe_i32, [0x0000_0f00, 8, 4]), u32::MAX);
    assert_eq!(one(v_bfe_i32, [0x8000_0000, 28, 8]), 0xffff_fff8);
    assert_eq!(one(v_alignbit_b32, [0x1122_3344, 0x5566_7788, 8]), 0x4455_6677);
    assert_eq!(one(v_perm_b32, [0x8822_3344, 0x5566_7788, 0x0c0b_0a03]), 0x00ff_0055);
    assert_eq!(one(v_perm_b32, [0x1122_3344, 0x5566_7788, 0x0d07_0400]), 0xff11_4488);
    assert_eq!(one(v_ffbh_i32, [0xffff_0000, 0, 0]), 16);
    assert_eq!(one(v_ffbh_i32, [u32::MAX, 0, 0]), u32::MAX);
    assert_eq!(one(v_lshlrev_b32, [33, 1, 0]), 2);
    assert_eq!(one(v_mul_hi_i32_i24, [0xff80_0000, 0x7f_ffff, 0]), 0xffff_c000);
    assert_eq!(one(v_med3_i32, [5, -3_i32 as u32, 2]), 2);
    assert_eq!(one(v_sad_u8, [0x0102_0304, 0x0400_0402, 10]), 18);
    assert_eq!(one(v_bfm_b32, [4, 8, 0]), 0xf00);
    let mask = with_wave(|wave| {
        let inst = Inst { imm: 0b1110_1000, ..on_vectors(v_bitop3_b32) };
        wave.v[2] = Lanes::splat(0b1111_0000);
        wave.v[4] = Lanes::splat(0b1100_1100);
        wave.v[6] = Lanes::splat(0b1010_1010);
        run(wave, &inst);
        wave.v[20].0[3]
    });
    // The sources count through the table: the result is the table itself.
    assert_eq!(mask & 0xff, 0b1110_1000);
}

#[test]
fn minimum_and_maximum_follow_the_ieee_bit() {
    let (signalling, quiet, two) = (0x7f80_0001, 0x7fc0_0001, 2.0_f32.to_bits());
    assert_eq!(one(v_min_f32, [quiet, two, 0]), two);
    assert_eq!(one(v_max_f32, [two, quiet, 0]), two);
    assert_eq!(one(v_min_f32, [signalling, two, 0]), signalling | 0x40_0000);
    assert_eq!(one(v_min_f32, [0, 0x8000_0000, 0]), 0x8000_0000);
    assert_eq!(one(v_max_f32, [0x8000_0000, 0, 0]), 0);
    assert_eq!(one(v_max3_f32, [two, quiet, 0x4040_0000]), 0x4040_0000);
    assert_eq!(one(v_med3_f32, [0x4040_0000, two, 0x3f80_0000]), two);
    assert_eq!(one(v_med3_f32, [two, quiet, 0x3f80_0000]), 0x3f80_0000);
    assert_eq!(one(v_maximum3_f32, [two, quiet, 0x3f80_0000]), quiet);
    let without_ieee = with_wave(|wave| {
        wave.mode = Mode(0x1f0);
        wave.v[2] = Lanes::splat(signalling);
        wave.v[4] = Lanes::splat(two);
        run(wave, &on_vectors(v_min_f32));
        wave.v[20].0[0]
    });
    assert_eq!(without_ieee, two);
}

#[test]
fn modifiers_change_sources_and_results() {
    with_wave(|wave| {
        wave.v[2] = Lanes::splat(3.0_f32.to_bits());
        wave.v[4] = Lanes::splat((-5.0_f32).to_bits());
        wave.v[6] = Lanes::splat(1.0_f32.to_bits());
        let value = |wave: &mut Wave, inst: Inst| {
            run(wave, &inst);
            f32::from_bits(wave.v[20].0[5])
        };
        let fma = on_vectors(v_fma_f32);
        assert_eq!(value(wave, Inst { neg: 1, ..fma.clone() }), 16.0);
        assert_eq!(value(wave, Inst { abs: 2, ..fma.clone() }), 16.0);
        assert_eq!(value(wave, Inst { abs: 2, neg: 6, ..fma.clone() }), -16.0);
        // Output modifiers count only where denormals are flushed and IEEE is off.
        assert_eq!(value(wave, Inst { omod: 1, ..fma.clone() }), -14.0);
        wave.mode = Mode(0x1c0);
        assert_eq!(value(wave, Inst { omod: 1, ..fma.clone() }), -28.0);
        assert_eq!(value(wave, Inst { omod: 3, ..fma.clone() }), -7.0);
    });
}

#[test]
fn denormals_are_flushed_where_mode_says_so() {
    let sum = |mode: u32, a: u32, b: u32| {
        with_wave(|wave| {
            wave.mode = Mode(mode);
            wave.v[2] = Lanes::splat(a);
            wave.v[4] = Lanes::splat(b);
            run(wave, &on_vectors(v_add_f32));
            wave.v[20].0[0]
        })
    };
    assert_eq!(sum(0x3f0, 1, 1), 2);
    assert_eq!(sum(0x3c0, 1, 1), 0);
    assert_eq!(sum(0x3c0, 0x8000_0001, 0x8000_0001), 0x8000_0000);
    // Sources are kept, results are not: 2^-126 minus 2^-127.
    assert_eq!(sum(0x3d0, 0x0080_0000, 0x8040_0000), 0);
    // The other way around.
    assert_eq!(sum(0x3e0, 0x0080_0000, 0x8040_0000), 0x0080_0000);
}

#[test]
fn sdwa_selects_extends_and_preserves() {
    let sdwa = Sdwa {
        dst: Select::Byte2,
        unused: Unused::Preserve,
        src: [Select::Byte1, Select::Word1],
        sext: [true, false],
    };
    with_wave(|wave| {
        wave.v[2] = Lanes::splat(0x1234_f056);
        wave.v[4] = Lanes::splat(0x0021_9999);
        wave.v[20] = Lanes::splat(0xaabb_ccdd);
        let add = Inst { sdwa: Some(sdwa), ..on_vectors(v_add_u32) };
        run(wave, &add);
        // -16 + 33 = 17.
        assert_eq!(wave.v[20].0[7], 0xaa11_ccdd);
        run(wave, &Inst { sdwa: Some(Sdwa { unused: Unused::Pad, ..sdwa }), ..add.clone() });
        assert_eq!(wave.v[20].0[7], 0x0011_0000);
        wave.v[4] = Lanes::splat(0);
        run(wave, &Inst { sdwa: Some(Sdwa { unused: Unused::SignExtend, ..sdwa }), ..add.clone() });
        assert_eq!(wave.v[20].0[7], 0xfff0_0000);
    });
}

#[test]
fn op_sel_takes_and_writes_upper_halves() {
    with_wave(|wave| {
        wave.v[2] = Lanes::splat(0x0005_0001);
        wave.v[4] = Lanes::splat(0x0007_0002);
        wave.v[20] = Lanes::splat(0xaaaa_bbbb);
        run(wave, &Inst { op_sel: 0b1001, ..on_vectors(v_add_i16) });
        assert_eq!(wave.v[20].0[0], 0x0007_bbbb);
        run(wave, &Inst { op_sel: 0b0010, ..on_vectors(v_add_i16) });
        assert_eq!(wave.v[20].0[0], 0x0007_0008);
        // An instruction that GFX8 had clears the other half.
        run(wave, &on_vectors(v_add_u16));
        assert_eq!(wave.v[20].0[0], 3);
    });
}

/// The lanes that each lane reads, written down from the document's tables.
#[test]
fn dpp_moves_lanes_as_its_control_says() {
    let move_by = |control: u16, bound_ctrl: bool| {
        with_wave(|wave| {
            let mut next = 0;
            fill(wave, 2, || {
                next += 1;
                99 + next
            });
            wave.v[20] = Lanes::splat(7);
            let dpp = Dpp { control, row_mask: 15, bank_mask: 15, bound_ctrl };
            run(wave, &Inst { dpp: Some(dpp), ..on_vectors(v_mov_b32) });
            wave.v[20].0.map(|value| if value < 100 { -i64::from(value) } else { i64::from(value) - 100 })
        })
    };
    let quad = move_by(0b00_01_10_11, false);
    assert_eq!(&quad[4..8], &[7, 6, 5, 4]);
    let shl = move_by(0x101, false);
    assert_eq!((shl[0], shl[14], shl[15], shl[16]), (1, 15, -7, 17));
    let shr = move_by(0x112, true);
    assert_eq!((shr[0], shr[1], shr[2], shr[17], shr[18]), (0, 0, 0, 0, 16));
    let ror = move_by(0x121, false);
    assert_eq!((ror[0], ror[1], ror[16]), (15, 0, 31));
    assert_eq!((move_by(0x130, false)[15], move_by(0x130, false)[63]), (16, -7));
    assert_eq!((move_by(0x134, false)[63], move_by(0x138, false)[16]), (0, 15));
    assert_eq!((move_by(0x13c, false)[0], move_by(0x140, false)[16]), (63, 31));
    assert_eq!((move_by(0x141, false)[8], move_by(0x141, false)[0]), (15, 7));
    let broadcast = move_by(0x142, false);
    assert_eq!((broadcast[5], broadcast[16], broadcast[63]), (-7, 15, 47));
    let broadcast = move_by(0x143, false);
    assert_eq!((broadcast[31], broadcast[32], broadcast[63]), (-7, 31, 31));
    assert_eq!((move_by(0x153, false)[0], move_by(0x153, false)[40]), (3, 35));
}

#[test]
fn dpp_leaves_out_rows_banks_and_lanes_that_do_not_execute() {
    with_wave(|wave| {
        wave.set_exec(!0 ^ 1 << 3);
        wave.v[2] = Lanes::splat(50);
        wave.v[20] = Lanes::splat(7);
        let dpp = Dpp { control: 0x101, row_mask: 0b0011, bank_mask: 0b0101, bound_ctrl: false };
        run(wave, &Inst { dpp: Some(dpp), ..on_vectors(v_mov_b32) });
        // Lane 2 would read lane 3, which is off.
        let written: Vec<usize> = (0..LANES).filter(|&lane| wave.v[20].0[lane] == 50).collect();
        assert_eq!(written, [0, 1, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]);
    });
}

#[test]
fn an_unknown_dpp_control_is_an_error() {
    with_wave(|wave| {
        let dpp = Dpp { control: 0x1ff, row_mask: 15, bank_mask: 15, bound_ctrl: false };
        let inst = Inst { dpp: Some(dpp), ..on_vectors(v_mov_b32) };
        assert_eq!((inst.execute)(wave, &inst), Flow::Fault);
        let fault = wave.fault.take().map(|fault| fault.to_string());
        assert_eq!(fault.as_deref(), Some("the emulator has no v_nop (dpp_ctrl 0x1ff)"));
    });
}

#[test]
fn register_indexing_adds_m0_and_skipping_does_nothing() {
    with_wave(|wave| {
        wave.s[124] = 3;
        wave.v[5] = Lanes::splat(11);
        wave.v[2] = Lanes::splat(1);
        wave.v[4] = Lanes::splat(2);
        wave.gpr_index = Some(GprIndex { enable: 0b1001 });
        run(wave, &on_vectors(v_add_u32));
        assert_eq!((wave.v[23].0[0], wave.v[20].0[0]), (13, 0));
        assert_eq!(wave.gpr_index, Some(GprIndex { enable: 0b1001 }));
        // The table of v_bitop3 survives: here it is S0 and S1.
        run(wave, &Inst { imm: 0xc0, ..on_vectors(v_bitop3_b32) });
        assert_eq!(wave.v[23].0[0], 11 & 2);
        wave.s[124] = 250;
        let add = on_vectors(v_add_u32);
        assert_eq!((add.execute)(wave, &add), Flow::Fault);
    });
}

#[test]
fn special_scalars_are_sources_too() {
    with_wave(|wave| {
        wave.scc = true;
        let src = [Operand::Special(Special::Scc), Operand::Vector(4), Operand::None, Operand::None];
        run(wave, &Inst { src, ..on_vectors(v_add_u32) });
        assert_eq!(wave.v[20].0[9], 1);
    });
}

#[test]
fn lanes_are_read_and_written_whatever_exec_says() {
    with_wave(|wave| {
        let mut next = 0;
        fill(wave, 2, || {
            next += 1;
            next
        });
        wave.set_exec(0xff00);
        wave.s[9] = 40;
        let scalar = |index: usize| Operand::Scalar(index as u8);
        let src = [Operand::Vector(2), scalar(9), Operand::None, Operand::None];
        run(wave, &Inst { dst: scalar(50), src, ..instruction(v_readlane_b32) });
        run(wave, &Inst { dst: scalar(51), src, ..instruction(v_readfirstlane_b32) });
        assert_eq!((wave.s[50], wave.s[51]), (41, 9));
        let src = [Operand::Constant(77), scalar(9), Operand::None, Operand::None];
        run(wave, &Inst { src, ..on_vectors(v_writelane_b32) });
        assert_eq!(wave.v[20].0[40], 77);
        run(wave, &on_vectors(v_mbcnt_lo_u32_b32));
        assert_eq!(wave.v[20].0[10], (11_u32 & 0x3ff).count_ones());
    });
}

#[test]
fn permlane_swaps_exchange_odd_rows_with_even_ones() {
    with_wave(|wave| {
        for (width, execute) in [(16, v_permlane16_swap_b32 as Execute), (32, v_permlane32_swap_b32)] {
            let mut next = 0;
            fill(wave, 20, || {
                next += 1;
                next - 1
            });
            fill(wave, 2, || {
                next += 1;
                next - 1
            });
            run(wave, &on_vectors(execute));
            for lane in 0..LANES {
                let even = lane & width == 0;
                let first = if even { lane } else { 64 + lane - width };
                let second = if even { lane + width } else { 64 + lane };
                assert_eq!(
                    (wave.v[20].0[lane], wave.v[2].0[lane]),
                    (first as u32, second as u32),
                    "lane {lane}"
                );
            }
        }
    });
}

#[test]
fn packed_float32_takes_the_registers_that_op_sel_names() {
    with_wave(|wave| {
        for (register, value) in [(2, 2.0_f32), (3, 3.0), (4, 5.0), (5, 7.0), (6, 100.0), (7, 200.0)] {
            wave.v[register] = Lanes::splat(value.to_bits());
        }
        let value = |wave: &mut Wave, inst: Inst| {
            run(wave, &inst);
            (f32::from_bits(wave.v[20].0[1]), f32::from_bits(wave.v[21].0[1]))
        };
        let fma = on_vectors(v_pk_fma_f32);
        assert_eq!(value(wave, fma.clone()), (110.0, 221.0));
        assert_eq!(value(wave, Inst { op_sel: 1, op_sel_hi: 6, ..fma.clone() }), (115.0, 214.0));
        assert_eq!(value(wave, Inst { neg: 4, neg_hi: 1, ..fma.clone() }), (-90.0, 179.0));
        assert_eq!(value(wave, Inst { op_sel: 1, ..on_vectors(v_pk_mov_b32) }), (3.0, 5.0));
        // A destination that is also a source.
        assert_eq!(
            value(wave, Inst { src: [fma.src[0], fma.src[1], Operand::Vector(20), Operand::None], ..fma }),
            (13.0, 26.0)
        );
    });
}

#[test]
fn a_dot_product_flushes_between_its_sums() {
    let half = |x: f32| u32::from(half::f16::from_f32(x).to_bits());
    let sum = |mode: u32, start: u32, sources: [u32; 2]| {
        with_wave(|wave| {
            wave.mode = Mode(0x300 | mode);
            (wave.v[2], wave.v[4]) = (Lanes::splat(sources[0]), Lanes::splat(sources[1]));
            [v_dot2_f32_f16 as Execute, v_dot2c_f32_f16].map(|execute| {
                (wave.v[6], wave.v[20]) = (Lanes::splat(start), Lanes::splat(start));
                run(wave, &on_vectors(execute));
                wave.v[20].0[0]
            })
        })
    };
    let (denormal, negative_zero) = (1, 1 << 31);
    // The second product is -0: rounding down, it makes the zero of a flushed sum negative, and leaves a denormal alone.
    let sources = [half(0.0) | half(-0.0) << 16, half(0.0) | half(1.0) << 16];
    let (down, keep, flush_out) = (2, 0xf0, 0xd0);
    assert_eq!(sum(keep | down, denormal, sources), [denormal; 2]);
    assert_eq!(sum(flush_out | down, denormal, sources), [negative_zero; 2]);
}

#[test]
fn packed_halves_and_dot_products() {
    let half = |x: f32| u32::from(half::f16::from_f32(x).to_bits());
    let pair = |low: f32, high: f32| half(low) | half(high) << 16;
    assert_eq!(one(v_pk_add_f16, [pair(1.0, 2.0), pair(0.5, -4.0), 0]), pair(1.5, -2.0));
    assert_eq!(one(v_pk_fma_f16, [pair(3.0, 2.0), pair(0.5, -4.0), pair(1.0, 10.0)]), pair(2.5, 2.0));
    let sum = one(v_dot2_f32_f16, [pair(3.0, 2.0), pair(0.5, -4.0), 1.0_f32.to_bits()]);
    assert_eq!(f32::from_bits(sum), -5.5);
    assert_eq!(one(v_dot4_i32_i8, [0xff02_0304, 0x0105_0607, 100]), 100 - 1 + 10 + 18 + 28);
    assert_eq!(one(v_dot8_u32_u4, [0x1234_5678, 0x1111_1111, 1]), 37);
    assert_eq!(one(v_dot2_i32_i16, [0xffff_0002, 0x0003_0004, 1]), 6);
    with_wave(|wave| {
        wave.v[2] = Lanes::splat(pair(3.0, 2.0));
        wave.v[4] = Lanes::splat(0.5_f32.to_bits());
        wave.v[6] = Lanes::splat(pair(1.0, 7.0));
        wave.v[20] = Lanes::splat(0x1111_2222);
        let mix = Inst { op_sel: 0b101, op_sel_hi: 0b101, ..on_vectors(v_fma_mix_f32) };
        run(wave, &mix);
        assert_eq!(f32::from_bits(wave.v[20].0[0]), 8.0);
        wave.v[20] = Lanes::splat(0x1111_2222);
        run(wave, &Inst { execute: v_fma_mixhi_f16, ..mix });
        assert_eq!(wave.v[20].0[0], half(8.0) << 16 | 0x2222);
    });
}

/// A format of few bits as its document describes it: bits of exponent and fraction, bias, codes that are no numbers.
struct Table {
    exponent: u32,
    fraction: u32,
    bias: i32,
    special: fn(u32) -> bool,
}

impl Table {
    /// The value of a code; `None` for NaN and infinity.
    fn value(&self, code: u32) -> Option<f64> {
        let fraction = f64::from(code & ((1 << self.fraction) - 1)) / f64::from(1_u32 << self.fraction);
        let exponent = (code >> self.fraction & ((1 << self.exponent) - 1)) as i32;
        let sign = if code >> (self.fraction + self.exponent) != 0 { -1.0 } else { 1.0 };
        let magnitude = if exponent == 0 {
            fraction * 2.0_f64.powi(1 - self.bias)
        } else {
            (1.0 + fraction) * 2.0_f64.powi(exponent - self.bias)
        };
        (!(self.special)(code)).then_some(sign * magnitude)
    }

    /// The nearest code to a value in range; ties go to the even one.
    fn nearest(&self, x: f64) -> u32 {
        let codes = 0..1 << (self.fraction + self.exponent);
        let best = codes
            .filter_map(|code| self.value(code).map(|value| (code, (value - x.abs()).abs())))
            .min_by(|a, b| a.1.total_cmp(&b.1).then((a.0 & 1).cmp(&(b.0 & 1))));
        best.map_or(0, |(code, _)| code)
    }

    fn greatest(&self) -> f64 {
        let codes = 0..1 << (self.fraction + self.exponent);
        codes.filter_map(|code| self.value(code)).fold(0.0, f64::max)
    }
}

const FNUZ8: Table = Table { exponent: 4, fraction: 3, bias: 8, special: |code| code == 0x80 };
const FNUZ5: Table = Table { exponent: 5, fraction: 2, bias: 16, special: |code| code == 0x80 };
const OCP8: Table = Table { exponent: 4, fraction: 3, bias: 7, special: |code| code & 0x7f == 0x7f };
const OCP5: Table = Table { exponent: 5, fraction: 2, bias: 15, special: |code| code & 0x7f >= 0x7c };
const OCP4: Table = Table { exponent: 2, fraction: 1, bias: 1, special: |_| false };
const OCP6: Table = Table { exponent: 2, fraction: 3, bias: 1, special: |_| false };
const OCP6B: Table = Table { exponent: 3, fraction: 2, bias: 3, special: |_| false };

#[test]
fn every_code_of_8_bits_has_its_documented_value() {
    let cases: [(Processor, Execute, Table); 4] = [
        (Processor::Gfx942, v_cvt_f32_fp8, FNUZ8),
        (Processor::Gfx942, v_cvt_f32_bf8, FNUZ5),
        (Processor::Gfx950, v_cvt_f32_fp8, OCP8),
        (Processor::Gfx950, v_cvt_f32_bf8, OCP5),
    ];
    with_wave(|wave| {
        for (processor, execute, table) in cases {
            wave.processor = processor;
            for code in 0..256 {
                wave.v[2] = Lanes::splat(code);
                run(wave, &on_vectors(execute));
                let found = f32::from_bits(wave.v[20].0[0]);
                match table.value(code) {
                    Some(value) => assert_eq!(f64::from(found).to_bits(), value.to_bits(), "{code:x}"),
                    None if processor == Processor::Gfx950 && code & 3 == 0 => assert!(found.is_infinite()),
                    None => assert!(found.is_nan(), "{code:x}"),
                }
            }
        }
    });
}

#[test]
fn floats_round_to_the_nearest_code_of_8_bits() {
    let cases: [(Processor, Execute, Table, u32); 4] = [
        (Processor::Gfx942, v_cvt_pk_fp8_f32, FNUZ8, 0x80),
        (Processor::Gfx942, v_cvt_pk_bf8_f32, FNUZ5, 0x80),
        (Processor::Gfx950, v_cvt_pk_fp8_f32, OCP8, 0x7f),
        (Processor::Gfx950, v_cvt_pk_bf8_f32, OCP5, 0x7c),
    ];
    let mut sequence = Sequence(18);
    with_wave(|wave| {
        for (processor, execute, table, over) in cases {
            wave.processor = processor;
            let greatest = table.greatest();
            for saturate in [false, true] {
                wave.mode = Mode(0x3f0 | u32::from(saturate) << 23);
                for _ in 0..60 {
                    fill(wave, 2, || near_a_code(&mut sequence, &table));
                    run(wave, &on_vectors(execute));
                    for lane in 0..LANES {
                        let x = f32::from_bits(wave.v[2].0[lane]);
                        let found = wave.v[20].0[lane] & 0xff;
                        // Half of the distance to the code that would follow.
                        let step = greatest - table.value(table.nearest(greatest) - 1).unwrap_or(0.0);
                        let end = greatest + step / 2.0;
                        let odd = table.nearest(greatest) & 1 != 0;
                        let beyond = f64::from(x.abs()) > end || f64::from(x.abs()) == end && odd;
                        let code = match (beyond, saturate) {
                            (true, false) => over,
                            (true, true) => table.nearest(greatest),
                            (false, _) => table.nearest(f64::from(x)),
                        };
                        let fnuz = processor == Processor::Gfx942;
                        let signed = x.is_sign_negative() && !(fnuz && (code == 0 || code == 0x80));
                        assert_eq!(found, code | u32::from(signed) << 7, "{x:e} {saturate}");
                    }
                }
            }
        }
    });
}

/// A float32 at a code, between two codes, or beside one of these; sometimes beyond the greatest.
fn near_a_code(sequence: &mut Sequence, table: &Table) -> u32 {
    let codes = 1 << (table.fraction + table.exponent);
    let code = (sequence.next() % u64::from(codes)) as u32;
    let value = table.value(code).unwrap_or(table.greatest() * 1.5);
    let next = table.value(code + 1).filter(|_| code + 1 < codes).unwrap_or(value * 1.25);
    let x = if sequence.next() & 1 == 0 { value } else { f64::midpoint(value, next) } as f32;
    let bits = x.to_bits().wrapping_add((sequence.next() % 3) as u32).saturating_sub(1);
    bits & 0x7fff_ffff | (sequence.next() as u32 & 1) << 31
}

#[test]
fn block_scaled_codes_of_4_bits_round_and_saturate() {
    let mut sequence = Sequence(19);
    with_wave(|wave| {
        for _ in 0..500 {
            let power = (sequence.next() % 40) as i32 - 20;
            let scale = 2.0_f32.powi(power);
            fill(wave, 2, || (f32::from_bits(near_a_code(&mut sequence, &OCP4)) * scale).to_bits());
            fill(wave, 4, || (f32::from_bits(near_a_code(&mut sequence, &OCP4)) * scale).to_bits());
            // Only the exponent of the scale counts.
            wave.v[6] = Lanes::splat((scale * 1.75).to_bits());
            run(wave, &Inst { op_sel: 0b1000, ..on_vectors(v_cvt_scalef32_pk_fp4_f32) });
            for lane in 0..LANES {
                let code = |register: usize| {
                    let x = f64::from(f32::from_bits(wave.v[register].0[lane])) / f64::from(scale);
                    OCP4.nearest(x.abs().min(6.0)) | u32::from(x.is_sign_negative()) << 3
                };
                assert_eq!(wave.v[20].0[lane] >> 16 & 0xff, code(2) | code(4) << 4);
            }
        }
    });
}

#[test]
fn codes_of_6_bits_are_packed_one_after_the_other() {
    let cases: [(Execute, Execute, Table); 2] = [
        (v_cvt_scalef32_pk32_bf6_f16, v_cvt_scalef32_pk32_f16_bf6, OCP6B),
        (v_cvt_scalef32_pk32_fp6_f16, v_cvt_scalef32_pk32_f16_fp6, OCP6),
    ];
    with_wave(|wave| {
        for (narrow, widen, table) in cases {
            let values: Vec<f64> = (0..32).map(|code| table.value(code).unwrap_or(0.0)).collect();
            for i in 0..16 {
                let half = |x: f64| u32::from(half::f16::from_f64(x * 4.0).to_bits());
                wave.v[100 + i] = Lanes::splat(half(values[2 * i]) | half(values[2 * i + 1]) << 16);
            }
            wave.v[60] = Lanes::splat(4.0_f32.to_bits());
            let src = [Operand::Vector(100), Operand::Vector(60), Operand::None, Operand::None];
            run(wave, &Inst { src, dst: Operand::Vector(80), ..instruction(narrow) });
            for code in 0..32_usize {
                let bits = (0..6).fold(0, |bits, bit| {
                    let place = 6 * code + bit;
                    bits | (wave.v[80 + place / 32].0[3] >> (place % 32) & 1) << bit
                });
                assert_eq!(bits, code as u32);
            }
            let src = [Operand::Vector(80), Operand::Vector(60), Operand::None, Operand::None];
            run(wave, &Inst { src, dst: Operand::Vector(140), ..instruction(widen) });
            for i in 0..16 {
                assert_eq!(wave.v[140 + i].0[9], wave.v[100 + i].0[9]);
            }
        }
    });
}

#[test]
fn stochastic_rounding_goes_up_as_often_as_the_rest_says() {
    with_wave(|wave| {
        // 1 + 5/16 of the distance to the next code of fp8, 1.125.
        wave.v[2] = Lanes::splat((1.0_f32 + 0.125 * 5.0 / 16.0).to_bits());
        let mut up = 0;
        for high in 0..16_u32 {
            wave.v[4] = Lanes::splat(high << 28 | 0x0fff_ffff);
            run(wave, &Inst { op_sel: 0b0100, ..on_vectors(v_cvt_sr_fp8_f32) });
            let code = wave.v[20].0[0] >> 8 & 0xff;
            assert!(code == 0x40 || code == 0x41, "{code:x}");
            up += code & 1;
        }
        assert_eq!(up, 5);
    });
    // bfloat16: the lower half of the float32 is the rest.
    assert_eq!(one(v_cvt_sr_bf16_f32, [0x3f80_4000, 0xbfff_0000, 0]) & 0xffff, 0x3f80);
    assert_eq!(one(v_cvt_sr_bf16_f32, [0x3f80_4000, 0xc000_0000, 0]) & 0xffff, 0x3f81);
}

#[test]
fn trig_preop_gives_the_bits_of_two_over_pi() {
    let segment = |exponent: i32, segment: u32| {
        with_wave(|wave| {
            let value = 2.0_f64.powi(exponent).to_bits();
            wave.v[2] = Lanes::splat(value as u32);
            wave.v[3] = Lanes::splat((value >> 32) as u32);
            wave.v[4] = Lanes::splat(segment);
            run(wave, &on_vectors(v_trig_preop_f64));
            f64::from_bits(word(wave, 20, 0))
        })
    };
    let sum = segment(3, 0) + segment(3, 1);
    assert_eq!(sum, std::f64::consts::FRAC_2_PI);
    assert!(segment(3, 1) < 2.0_f64.powi(-53));
    // The first segment is cut off, where the constant is rounded up.
    assert_eq!(segment(3, 0), std::f64::consts::FRAC_2_PI.next_down());
}

#[test]
fn classes_of_floats_are_told_from_their_bits() {
    let values = [
        0x7f80_0001,
        0x7fc0_0000,
        0xff80_0000,
        0xbf80_0000,
        0x8000_0001,
        0x8000_0000,
        0,
        1,
        0x3f80_0000,
        0x7f80_0000,
    ];
    with_wave(|wave| {
        for (class, value) in values.into_iter().enumerate() {
            wave.v[2] = Lanes::splat(value);
            for mask in 0..10 {
                wave.v[4] = Lanes::splat(1 << mask);
                run(wave, &Inst { dst: Operand::Scalar(40), ..on_vectors(v_cmp_class_f32) });
                assert_eq!(wave.s64(40) != 0, class == mask, "{value:x} {mask}");
            }
        }
    });
}

#[test]
fn fract_stays_below_one() {
    assert_eq!(one(v_fract_f32, [(-1e-10_f32).to_bits(), 0, 0]), 0x3f7f_ffff);
    assert_eq!(one(v_fract_f32, [2.75_f32.to_bits(), 0, 0]), 0.75_f32.to_bits());
    assert_eq!(one(v_fract_f16, [0x8001, 0, 0]), 0x3bff);
    assert_eq!(one(v_fract_f32, [0x7f80_0000, 0, 0]), 0x7fc0_0000);
}

#[test]
fn fp16_ovfl_makes_an_overflow_the_greatest_float16() {
    with_wave(|wave| {
        wave.v[2] = Lanes::splat(0x7bff);
        wave.v[4] = Lanes::splat(0x7bff);
        run(wave, &on_vectors(v_add_f16));
        assert_eq!(wave.v[20].0[0], 0x7c00);
        wave.mode = Mode(0x3f0 | 1 << 23);
        run(wave, &on_vectors(v_add_f16));
        assert_eq!(wave.v[20].0[0], 0x7bff);
        // An infinity that was there before stays.
        wave.v[4] = Lanes::splat(0xfc00);
        run(wave, &on_vectors(v_add_f16));
        assert_eq!(wave.v[20].0[0], 0xfc00);
        wave.v[2] = Lanes::splat(1e9_f32.to_bits());
        run(wave, &on_vectors(v_cvt_f16_f32));
        assert_eq!(wave.v[20].0[0], 0x7bff);
    });
}

#[test]
fn a_permutation_is_the_same_with_a_scalar_selector() {
    let mut sequence = Sequence(20);
    with_wave(|wave| {
        for _ in 0..2_000 {
            for register in [2, 4] {
                fill(wave, register, || sequence.next() as u32);
            }
            let selectors = u32::from_le_bytes([(); 4].map(|()| (sequence.next() % 15) as u8));
            wave.v[6] = Lanes::splat(selectors);
            wave.s[9] = selectors;
            run(wave, &on_vectors(v_perm_b32));
            let expected = wave.v[20];
            let inst = on_vectors(v_perm_b32);
            let src = [inst.src[0], inst.src[1], Operand::Scalar(9), Operand::None];
            run(wave, &Inst { src, ..inst });
            assert_eq!(wave.v[20], expected, "{selectors:x}");
        }
    });
}
