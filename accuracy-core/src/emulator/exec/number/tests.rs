use super::*;

/// A sequence of numbers that looks random and is the same every time.
pub(in crate::emulator::exec) struct Sequence(pub u64);

impl Sequence {
    pub(in crate::emulator::exec) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Any bits, or bits near a boundary of the format.
    pub(in crate::emulator::exec) fn float(&mut self, format: Format) -> u64 {
        let all = format.sign() | (format.sign() - 1);
        let random = self.next() & all;
        let sign = self.next() & format.sign();
        let boundary = match self.next() % 12 {
            0 => 0,
            1 => 1 << format.fraction,
            2 => format.infinity(),
            3 => (format.bias() as u64) << format.fraction,
            4 => format.nan(),
            // A small exponent, and one near that of 1.
            5 => random & ((3 << format.fraction) - 1),
            6 | 7 => {
                let exponent = (format.bias() as u64).wrapping_add(random >> format.fraction & 15);
                exponent.wrapping_sub(8) << format.fraction | random & ((1 << format.fraction) - 1)
            }
            _ => return random,
        };
        (boundary.wrapping_add(self.next() % 5).wrapping_sub(2) & (format.sign() - 1)) | sign
    }
}

fn same32(soft: u64, hard: f32) -> bool {
    soft == u64::from(hard.to_bits()) || Format::F32.is_nan(soft) && hard.is_nan()
}

fn same64(soft: u64, hard: f64) -> bool {
    soft == hard.to_bits() || Format::F64.is_nan(soft) && hard.is_nan()
}

#[test]
fn float32_arithmetic_is_that_of_this_machine() {
    let mut sequence = Sequence(1);
    let nearest = Round::NearestEven;
    for _ in 0..400_000 {
        let bits = [(); 3].map(|()| sequence.float(Format::F32));
        let [x, y, z] = bits;
        let [a, b, c] = bits.map(|bits| f32::from_bits(bits as u32));
        assert!(same32(add(Format::F32, x, y, nearest), a + b), "{a:e} + {b:e}");
        assert!(same32(mul(Format::F32, x, y, nearest), a * b), "{a:e} * {b:e}");
        assert!(same32(div(Format::F32, x, y, nearest), a / b), "{a:e} / {b:e}");
        assert!(same32(fma(Format::F32, x, y, z, nearest), a.mul_add(b, c)), "{a:e} * {b:e} + {c:e}");
        assert!(same32(sqrt(Format::F32, x, nearest), a.sqrt()), "root of {a:e}");
    }
}

#[test]
fn float64_arithmetic_is_that_of_this_machine() {
    let mut sequence = Sequence(2);
    let nearest = Round::NearestEven;
    for _ in 0..400_000 {
        let bits = [(); 3].map(|()| sequence.float(Format::F64));
        let [x, y, z] = bits;
        let [a, b, c] = bits.map(f64::from_bits);
        assert!(same64(add(Format::F64, x, y, nearest), a + b), "{a:e} + {b:e}");
        assert!(same64(mul(Format::F64, x, y, nearest), a * b), "{a:e} * {b:e}");
        assert!(same64(div(Format::F64, x, y, nearest), a / b), "{a:e} / {b:e}");
        assert!(same64(fma(Format::F64, x, y, z, nearest), a.mul_add(b, c)), "{a:e} * {b:e} + {c:e}");
        assert!(same64(sqrt(Format::F64, x, nearest), a.sqrt()), "root of {a:e}");
        assert!(same32(convert(Format::F64, Format::F32, x, nearest), a as f32), "{a:e} as float32");
    }
}

/// The next float upward.
fn next_up(format: Format, bits: u64) -> u64 {
    if format.is_zero(bits) {
        1
    } else if format.is_negative(bits) {
        bits - 1
    } else {
        bits + 1
    }
}

#[test]
fn directed_roundings_enclose_the_exact_value() {
    let mut sequence = Sequence(3);
    let f32 = Format::F32;
    for _ in 0..400_000 {
        let (x, y) = (sequence.float(f32), sequence.float(f32));
        let exact = f64::from(f32::from_bits(x as u32)) * f64::from(f32::from_bits(y as u32));
        if !exact.is_finite() || exact == 0.0 {
            continue;
        }
        let value = |bits: u64| f64::from(f32::from_bits(bits as u32));
        let [up, down, zero] = [Round::Up, Round::Down, Round::TowardZero].map(|mode| mul(f32, x, y, mode));
        assert!(value(down) <= exact && exact <= value(up), "{exact:e}");
        let zero_expected = if exact < 0.0 { up } else { down };
        assert_eq!(zero, zero_expected, "{exact:e}");
        let exactly = value(down) == exact;
        let neighbours = up == next_up(f32, down) || f32.is_zero(up) && down == f32.sign() | 1;
        assert!(if exactly { up == down } else { neighbours }, "{exact:e}: {down:x} {up:x}");
    }
}

#[test]
fn a_sum_rounded_down_is_the_greatest_float_that_is_not_above_it() {
    let mut sequence = Sequence(4);
    let f16 = Format::F16;
    let value = |bits: u64| f64::from(half::f16::from_bits(bits as u16).to_f32());
    for _ in 0..400_000 {
        let (x, y) = (sequence.float(f16), sequence.float(f16));
        // Sums of float16 are exact in float64.
        let exact = value(x) + value(y);
        if !exact.is_finite() || exact == 0.0 {
            continue;
        }
        let (up, down) = (add(f16, x, y, Round::Up), add(f16, x, y, Round::Down));
        assert!(value(down) <= exact && exact <= value(up), "{exact:e}");
        if up != down {
            let neighbours = up == next_up(f16, down) || f16.is_zero(up) && down == f16.sign() | 1;
            assert!(neighbours, "{exact:e}: {down:x} {up:x}");
        }
    }
}

#[test]
fn every_float16_converts_to_float32_and_back() {
    for bits in 0..=0xffff_u16 {
        let wide = convert(Format::F16, Format::F32, u64::from(bits), Round::NearestEven);
        let expected = half::f16::from_bits(bits).to_f32();
        assert!(same32(wide, expected), "{bits:#x}");
        let back = convert(Format::F32, Format::F16, wide, Round::NearestEven);
        let quiet = if Format::F16.is_nan(u64::from(bits)) { bits | 0x200 } else { bits };
        assert_eq!(back, u64::from(quiet), "{bits:#x}");
    }
}

#[test]
fn float32_to_float16_and_bfloat16_is_that_of_the_half_crate() {
    let mut sequence = Sequence(5);
    for i in 0..1_000_000 {
        // Half of them near the middle between two float16.
        let bits = if i % 2 == 0 {
            sequence.float(Format::F32)
        } else {
            let half = sequence.next() & 0xffff;
            let wide = convert(Format::F16, Format::F32, half, Round::NearestEven);
            wide.wrapping_add(0x1000).wrapping_add(sequence.next() % 3).wrapping_sub(1)
        } as u32;
        let value = f32::from_bits(bits);
        if value.is_nan() {
            continue;
        }
        let nearest = Round::NearestEven;
        let to16 = convert(Format::F32, Format::F16, u64::from(bits), nearest);
        assert_eq!(to16, u64::from(half::f16::from_f32(value).to_bits()), "{value:e}");
        let to_bf = convert(Format::F32, Format::BF16, u64::from(bits), nearest);
        assert_eq!(to_bf, u64::from(half::bf16::from_f32(value).to_bits()), "{value:e}");
    }
}

#[test]
fn integers_and_floats_convert_as_rust_casts() {
    let mut sequence = Sequence(6);
    for _ in 0..400_000 {
        let bits = sequence.float(Format::F64);
        let x = f64::from_bits(bits);
        let zero = Round::TowardZero;
        assert_eq!(
            to_integer(Format::F64, bits, zero, i64::from(i32::MIN), i64::from(i32::MAX)),
            i64::from(x as i32)
        );
        assert_eq!(to_integer(Format::F64, bits, zero, 0, i64::from(u32::MAX)), i64::from(x as u32));
        let integer = sequence.next() as i64;
        let float = from_integer(Format::F32, i128::from(integer), Round::NearestEven);
        assert_eq!(float, u64::from((integer as f32).to_bits()));
    }
}

#[test]
fn rounding_to_an_integer_is_that_of_rust() {
    let mut sequence = Sequence(7);
    for _ in 0..400_000 {
        let bits = sequence.float(Format::F32);
        let x = f32::from_bits(bits as u32);
        let integral = |mode| integral(Format::F32, bits, mode);
        assert!(same32(integral(Round::TowardZero), x.trunc()), "{x:e}");
        assert!(same32(integral(Round::Up), x.ceil()), "{x:e}");
        assert!(same32(integral(Round::Down), x.floor()), "{x:e}");
        assert!(same32(integral(Round::NearestEven), x.round_ties_even()), "{x:e}");
    }
}

#[test]
fn a_nan_keeps_its_payload_and_the_first_one_wins() {
    let (first, second) = (0xff80_1234, 0x7fc0_4321);
    assert_eq!(add(Format::F32, first, second, Round::NearestEven), 0xffc0_1234);
    assert_eq!(fma(Format::F32, second, first, 0, Round::NearestEven), second);
    let infinity = Format::F32.infinity();
    assert_eq!(mul(Format::F32, 0, infinity, Round::NearestEven), 0x7fc0_0000);
    assert_eq!(add(Format::F32, infinity, infinity | 1 << 31, Round::NearestEven), 0x7fc0_0000);
}

#[test]
fn frexp_and_ldexp_are_inverse() {
    let mut sequence = Sequence(8);
    for _ in 0..100_000 {
        let bits = sequence.float(Format::F64);
        if !f64::from_bits(bits).is_finite() || Format::F64.is_zero(bits) {
            continue;
        }
        let (exponent, significand) = frexp(Format::F64, bits);
        let magnitude = f64::from_bits(significand).abs();
        assert!((0.5..1.0).contains(&magnitude), "{magnitude}");
        assert_eq!(ldexp(Format::F64, significand, exponent, Round::NearestEven), bits);
    }
}
