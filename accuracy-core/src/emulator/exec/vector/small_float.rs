//! Floats of 8, 6 and 4 bits, with and without a block scale.
//!
//! gfx942 has the FNUZ forms of the 8-bit formats, gfx950 those of the Open Compute Project. A value that is too large
//! becomes infinity or NaN, or the greatest number where MODE has FP16_OVFL; formats without infinity and NaN always
//! saturate.

use super::convert::{dithered, to_bf16};
use super::float::{narrowed, widened};
use super::lanes::{choose, map1, map2, map3, write64};
use super::operands::{Form, Rest, Room, begin, old, raw, source, write, write16};
use crate::emulator::exec::number::{self, Format};
use crate::emulator::isa::{Inst, Processor};
use crate::emulator::wave::{Flow, LANES, Lanes, Round, Wave};

/// What the highest codes of a format mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Top {
    /// Numbers.
    Numbers,
    /// Numbers; negative zero is NaN.
    Fnuz,
    /// The highest code is NaN; there is no infinity.
    Nan,
    /// The highest exponent is infinity and NaN.
    Infinity,
}

#[derive(Clone, Copy)]
struct Small {
    fraction: u32,
    exponent: u32,
    bias: u32,
    top: Top,
}

const FP8_FNUZ: Small = Small { fraction: 3, exponent: 4, bias: 8, top: Top::Fnuz };
const BF8_FNUZ: Small = Small { fraction: 2, exponent: 5, bias: 16, top: Top::Fnuz };
const FP8: Small = Small { fraction: 3, exponent: 4, bias: 7, top: Top::Nan };
const BF8: Small = Small { fraction: 2, exponent: 5, bias: 15, top: Top::Infinity };
const FP6: Small = Small { fraction: 3, exponent: 2, bias: 1, top: Top::Numbers };
const BF6: Small = Small { fraction: 2, exponent: 3, bias: 3, top: Top::Numbers };
const FP4: Small = Small { fraction: 1, exponent: 2, bias: 1, top: Top::Numbers };

impl Small {
    #[inline(always)]
    fn sign(self) -> u32 {
        1 << (self.fraction + self.exponent)
    }

    /// The code of the greatest number.
    #[inline(always)]
    fn greatest(self) -> u32 {
        match self.top {
            Top::Numbers | Top::Fnuz => self.sign() - 1,
            Top::Nan => self.sign() - 2,
            Top::Infinity => self.infinity() - 1,
        }
    }

    /// The highest exponent with a fraction of zero.
    #[inline(always)]
    fn infinity(self) -> u32 {
        self.sign() - (1 << self.fraction)
    }

    #[inline(always)]
    fn nan(self, negative: bool) -> u32 {
        let sign = choose(negative, self.sign(), 0);
        match self.top {
            Top::Fnuz => self.sign(),
            Top::Numbers | Top::Nan | Top::Infinity => sign | (self.sign() - 1),
        }
    }

    /// The NaN of a conversion with a scale: AMD's reference clears the last bit where a format has infinity.
    #[inline(always)]
    fn scaled_nan(self, negative: bool) -> u32 {
        self.nan(negative) - u32::from(self.top == Top::Infinity)
    }

    /// The code of a finite value that is too large.
    #[inline(always)]
    fn overflow(self, saturate: bool) -> u32 {
        if saturate {
            return self.greatest();
        }
        match self.top {
            Top::Numbers => self.greatest(),
            Top::Infinity => self.infinity(),
            // Negative zero, and its sign is taken off where it is put on.
            Top::Fnuz => self.sign(),
            Top::Nan => self.sign() - 1,
        }
    }

    /// The code of an infinity.
    #[inline(always)]
    fn of_infinity(self) -> u32 {
        self.overflow(false)
    }

    /// A magnitude code with its sign. FNUZ has no negative zero but NaN.
    #[inline(always)]
    fn signed(self, code: u32, negative: bool) -> u32 {
        let unsigned = (self.top == Top::Fnuz) & ((code == 0) | (code == self.sign()));
        code | choose(negative & !unsigned, self.sign(), 0)
    }

    /// Rounds a float32 to nearest even.
    #[inline(always)]
    fn encode(self, x: f32, saturate: bool) -> u32 {
        let bits = x.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        let negative = bits >> 31 != 0;
        let shift = 23 - self.fraction;
        let least = (128 - self.bias) << 23;
        let half = (1 << (shift - 1)) - 1 + (magnitude >> shift & 1);
        let normal = magnitude.wrapping_sub((127 - self.bias) << 23).wrapping_add(half) >> shift;
        // A number whose last bit is the least denormal: adding it leaves the code in the low bits, rounded.
        let anchor = (127 + 24 - self.bias - self.fraction) << 23;
        let small = (f32::from_bits(magnitude) + f32::from_bits(anchor)).to_bits().wrapping_sub(anchor);
        let code = choose(magnitude < least, small, normal);
        let over = (code > self.greatest()) | (magnitude >= 0x7f00_0000);
        let code = choose(over, self.overflow(saturate), code);
        let code = choose(magnitude == 0x7f80_0000, self.of_infinity(), code);
        let out = self.signed(code, negative);
        choose(magnitude > 0x7f80_0000, self.nan(negative), out)
    }

    /// Rounds a float of `from` with `random`, after dividing it by `2^(scale - 127)`.
    fn encode_stochastic(
        self,
        from: Format,
        bits: u32,
        scale: Option<u32>,
        random: u32,
        saturate: bool,
    ) -> u32 {
        let bits = u64::from(bits);
        let negative = from.is_negative(bits);
        if from.is_nan(bits) || scale == Some(255) {
            return if scale.is_some() { self.scaled_nan(negative) } else { self.nan(negative) };
        }
        let scale = scale.unwrap_or(127) as i32;
        if from.is_infinite(bits) {
            return self.signed(self.of_infinity(), negative);
        }
        // One more bit of exponent leaves room above the greatest number; it shifts the bias.
        let roomy = Format { fraction: self.fraction, exponent: self.exponent + 1 };
        let x = from.split(bits);
        let exponent = x.exponent - (scale - 127) + self.bias as i32 - roomy.bias();
        let x = dithered(roomy, from.fraction, number::Exact { exponent, ..x }, random);
        let code = number::round(roomy, x, Round::TowardZero) as u32 & (roomy.sign() as u32 - 1);
        let code = if code > self.greatest() { self.overflow(saturate) } else { code };
        self.signed(code, negative)
    }

    /// The value of a code, times `factor`.
    #[inline(always)]
    fn decode(self, code: u32, factor: f32) -> f32 {
        let magnitude = code & (self.sign() - 1);
        let sign = if code & self.sign() != 0 { 1 << 31 } else { 0 };
        let rebias = f32::from_bits((254 - self.bias) << 23);
        let value = f32::from_bits(magnitude << (23 - self.fraction)) * rebias * factor;
        let nan = match self.top {
            Top::Numbers => false,
            Top::Fnuz => code == self.sign(),
            Top::Nan => magnitude == self.sign() - 1,
            Top::Infinity => magnitude > self.infinity(),
        };
        let infinite = self.top == Top::Infinity && magnitude == self.infinity();
        let bits = if infinite { 0x7f80_0000 } else { value.to_bits() };
        let out = bits | sign;
        let sign = if self.top == Top::Fnuz { 0 } else { sign };
        f32::from_bits(if nan || factor.is_nan() { 0x7fc0_0000 | sign } else { out })
    }
}

/// FP16_OVFL of MODE.
fn saturates(wave: &Wave) -> bool {
    wave.mode.0 >> 23 & 1 != 0
}

fn fp8(wave: &Wave) -> Small {
    if wave.processor == Processor::Gfx942 { FP8_FNUZ } else { FP8 }
}

fn bf8(wave: &Wave) -> Small {
    if wave.processor == Processor::Gfx942 { BF8_FNUZ } else { BF8 }
}

/// Decodes with the format as a constant, so that the loop has no branch.
fn decode_lanes(small: Small, codes: &Lanes) -> Lanes {
    macro_rules! of {
        ($format:ident) => {
            map1(codes, |code| $format.decode(code & (2 * $format.sign() - 1), 1.0).to_bits())
        };
    }
    match (small.fraction, small.top) {
        (3, Top::Fnuz) => of!(FP8_FNUZ),
        (_, Top::Fnuz) => of!(BF8_FNUZ),
        (3, _) => of!(FP8),
        _ => of!(BF8),
    }
}

fn encode_lanes(small: Small, values: &Lanes, saturate: bool) -> Lanes {
    macro_rules! of {
        ($format:ident) => {
            map1(values, |x| $format.encode(f32::from_bits(x), saturate))
        };
    }
    match (small.fraction, small.top) {
        (3, Top::Fnuz) => of!(FP8_FNUZ),
        (_, Top::Fnuz) => of!(BF8_FNUZ),
        (3, _) => of!(FP8),
        _ => of!(BF8),
    }
}

fn to_float32(wave: &mut Wave, inst: &Inst, small: Small) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let mut out = decode_lanes(small, source(wave, inst, 0, 0, Form::B32, &mut room));
    super::float::finish32(wave, inst, &mut out);
    write(wave, inst, 0, &out);
    Flow::Next
}

pub fn v_cvt_f32_fp8(wave: &mut Wave, inst: &Inst) -> Flow {
    let small = fp8(wave);
    to_float32(wave, inst, small)
}

pub fn v_cvt_f32_bf8(wave: &mut Wave, inst: &Inst) -> Flow {
    let small = bf8(wave);
    to_float32(wave, inst, small)
}

/// The lower two bytes of the source as two float32. SDWA or `op_sel` may select the upper word.
fn to_float32_pair(wave: &mut Wave, inst: &Inst, small: Small) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut room = Room::uninit();
    let word = source(wave, inst, 0, 0, Form::B16, &mut room);
    let mut low = decode_lanes(small, word);
    let mut high = decode_lanes(small, &map1(word, |x| x >> 8));
    super::float::finish32(wave, inst, &mut low);
    super::float::finish32(wave, inst, &mut high);
    // SDWA selects a part of the source and nothing of the two destinations.
    let whole = Inst { sdwa: None, ..inst.clone() };
    write64(wave, &whole, &[low, high]);
    Flow::Next
}

pub fn v_cvt_pk_f32_fp8(wave: &mut Wave, inst: &Inst) -> Flow {
    let small = fp8(wave);
    to_float32_pair(wave, inst, small)
}

pub fn v_cvt_pk_f32_bf8(wave: &mut Wave, inst: &Inst) -> Flow {
    let small = bf8(wave);
    to_float32_pair(wave, inst, small)
}

/// Two float32 as two bytes, in the half of the destination that `op_sel` says.
fn from_float32_pair(wave: &mut Wave, inst: &Inst, small: Small) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let saturate = saturates(wave);
    let low = encode_lanes(small, source(wave, inst, 0, 0, Form::F32, x), saturate);
    let high = encode_lanes(small, source(wave, inst, 1, 0, Form::F32, y), saturate);
    let mut out = map2(&low, &high, |low, high| low | high << 8);
    write16(wave, inst, Rest::Kept, &mut out);
    Flow::Next
}

pub fn v_cvt_pk_fp8_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    let small = fp8(wave);
    from_float32_pair(wave, inst, small)
}

pub fn v_cvt_pk_bf8_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    let small = bf8(wave);
    from_float32_pair(wave, inst, small)
}

/// Writes one byte of the destination, the one that `op_sel` names in its upper two bits.
fn write_byte(wave: &mut Wave, inst: &Inst, bytes: &Lanes) {
    let shift = 8 * u32::from(inst.op_sel >> 2 & 3);
    let mut room = Room::uninit();
    let out = map2(old(wave, inst, 0, &mut room), bytes, |old, byte| {
        old & !(0xff << shift) | (byte & 0xff) << shift
    });
    write(wave, inst, 0, &out);
}

/// Stochastic rounding of one value to one byte. `scaled` says whether S2 holds a scale.
fn stochastic_byte(wave: &mut Wave, inst: &Inst, from: Format, small: Small, scaled: bool) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::SIGNED32, x);
    let random = source(wave, inst, 1, 0, Form::B32, y);
    let scale = source(wave, inst, 2, 0, Form::B32, z);
    let saturate = saturates(wave);
    // `op_sel` bit 0 picks the half of a 16-bit source.
    let shift = if from.fraction < 23 && inst.op_sel & 1 != 0 { 16 } else { 0 };
    let mask = if from.fraction < 23 { 0xffff } else { u32::MAX };
    let out = map3(a, random, scale, |a, random, scale| {
        let exponent = scaled.then_some(scale >> 23 & 0xff);
        small.encode_stochastic(from, a >> shift & mask, exponent, random, saturate)
    });
    write_byte(wave, inst, &out);
    Flow::Next
}

macro_rules! stochastic_byte {
    ($($name:ident: $from:ident, |$wave:ident| $small:expr, $scaled:literal;)*) => {$(
        pub fn $name($wave: &mut Wave, inst: &Inst) -> Flow {
            let small = $small;
            stochastic_byte($wave, inst, Format::$from, small, $scaled)
        }
    )*};
}

stochastic_byte! {
    v_cvt_sr_fp8_f32: F32, |wave| fp8(wave), false;
    v_cvt_sr_bf8_f32: F32, |wave| bf8(wave), false;
    v_cvt_scalef32_sr_fp8_f32: F32, |wave| FP8, true;
    v_cvt_scalef32_sr_bf8_f32: F32, |wave| BF8, true;
    v_cvt_scalef32_sr_fp8_f16: F16, |wave| FP8, true;
    v_cvt_scalef32_sr_bf8_f16: F16, |wave| BF8, true;
    v_cvt_scalef32_sr_fp8_bf16: BF16, |wave| FP8, true;
    v_cvt_scalef32_sr_bf8_bf16: BF16, |wave| BF8, true;
}

/// `2^(exponent - 127)`; NaN for 255.
#[inline(always)]
fn power_of(exponent: u32) -> f32 {
    let normal = exponent << 23 & 0x7f80_0000;
    let bits = choose(exponent == 0, 0x0040_0000, normal);
    f32::from_bits(choose(exponent == 255, 0x7fc0_0000, bits))
}

/// `2^(e - 127)` for the exponent `e` of a float32; NaN for the highest one.
#[inline(always)]
fn power(scale: u32) -> f32 {
    power_of(scale >> 23 & 0xff)
}

/// `2^(127 - e)` for the exponent `e` of a float32; NaN for the highest one.
#[inline(always)]
fn inverse_power(scale: u32) -> f32 {
    let exponent = scale >> 23 & 0xff;
    power_of(choose(exponent == 255, 255, 254_u32.wrapping_sub(exponent)))
}

/// Rounds `x` divided by a scale. What leaves the range of float32 is far outside of the small formats' too.
#[inline(always)]
fn encode_scaled(small: Small, x: f32, scale: u32, saturate: bool) -> u32 {
    let y = x * inverse_power(scale);
    let left = y.is_infinite() & x.is_finite();
    let y = f32::from_bits(choose(left, y.to_bits().wrapping_sub(1), y.to_bits()));
    choose(y.is_nan(), small.scaled_nan(x.is_sign_negative()), small.encode(y, saturate))
}

/// A float16 or bfloat16 as float32.
#[inline(always)]
fn value_of(from: Format, bits: u32) -> f32 {
    if from == Format::F32 {
        f32::from_bits(bits)
    } else if from == Format::F16 {
        widened(bits & 0xffff)
    } else {
        f32::from_bits(bits << 16)
    }
}

/// A float32 as `to`; a NaN of 16 bits has all bits of its fraction set.
#[inline(always)]
fn bits_of(to: Format, x: f32) -> u32 {
    if to == Format::F32 {
        return x.to_bits();
    }
    if x.is_nan() {
        return x.to_bits() >> 16 & 0x8000 | 0x7fff;
    }
    if to == Format::F16 { narrowed(x) } else { to_bf16(x.to_bits()) }
}

/// The two values that are packed: two float32 sources, or the halves of one. The scale follows them.
#[inline(always)]
fn encoded_pair(wave: &Wave, inst: &Inst, from: Format, small: Small) -> Lanes {
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let saturate = saturates(wave);
    let bits = small.fraction + small.exponent + 1;
    let a = source(wave, inst, 0, 0, Form::SIGNED32, x);
    let b = source(wave, inst, 1, 0, Form::SIGNED32, y);
    if from == Format::F32 {
        let scale = source(wave, inst, 2, 0, Form::B32, z);
        return map3(a, b, scale, |a, b, scale| {
            let [a, b] = [a, b].map(|x| encode_scaled(small, f32::from_bits(x), scale, saturate));
            a | b << bits
        });
    }
    map2(a, b, |a, scale| {
        let [low, high] =
            [a & 0xffff, a >> 16].map(|x| encode_scaled(small, value_of(from, x), scale, saturate));
        low | high << bits
    })
}

/// Two values as two bytes, into the half of the destination that `op_sel` says.
#[inline(always)]
fn scaled_pair_to_bytes(wave: &mut Wave, inst: &Inst, from: Format, small: Small) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut out = encoded_pair(wave, inst, from, small);
    write16(wave, inst, Rest::Kept, &mut out);
    Flow::Next
}

/// Two values as two nibbles, into the byte of the destination that `op_sel` says.
#[inline(always)]
fn scaled_pair_to_byte(wave: &mut Wave, inst: &Inst, from: Format) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let out = encoded_pair(wave, inst, from, FP4);
    write_byte(wave, inst, &out);
    Flow::Next
}

macro_rules! scaled_to_small {
    ($($name:ident: $from:ident, $small:ident;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            scaled_pair_to_bytes(wave, inst, Format::$from, $small)
        }
    )*};
}

scaled_to_small! {
    v_cvt_scalef32_pk_fp8_f32: F32, FP8;
    v_cvt_scalef32_pk_bf8_f32: F32, BF8;
    v_cvt_scalef32_pk_fp8_f16: F16, FP8;
    v_cvt_scalef32_pk_bf8_f16: F16, BF8;
    v_cvt_scalef32_pk_fp8_bf16: BF16, FP8;
    v_cvt_scalef32_pk_bf8_bf16: BF16, BF8;
}

pub fn v_cvt_scalef32_pk_fp4_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    // As `scaled_pair_to_byte`, in a form whose loop has no call: models of 4 bits do little else.
    #[inline(always)]
    fn lane(a: u32, b: u32, scale: u32) -> u32 {
        let code = |x: u32| encode_scaled(FP4, f32::from_bits(x), scale, true);
        code(a) | code(b) << 4
    }
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 3];
    let [x, y, z] = &mut rooms;
    let a = source(wave, inst, 0, 0, Form::SIGNED32, x);
    let b = source(wave, inst, 1, 0, Form::SIGNED32, y);
    let out = map3(a, b, source(wave, inst, 2, 0, Form::B32, z), lane);
    write_byte(wave, inst, &out);
    Flow::Next
}

pub fn v_cvt_scalef32_pk_fp4_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    scaled_pair_to_byte(wave, inst, Format::F16)
}

pub fn v_cvt_scalef32_pk_fp4_bf16(wave: &mut Wave, inst: &Inst) -> Flow {
    scaled_pair_to_byte(wave, inst, Format::BF16)
}

/// The next number of `v_prng_b32`.
#[inline(always)]
fn next_random(x: u32) -> u32 {
    x << 1 ^ if x >> 31 != 0 { 197 } else { 0 }
}

/// Value `i` of a source with many, in one lane.
fn element(sources: &[Lanes], from: Format, i: usize, lane: usize) -> u32 {
    if from == Format::F32 {
        return sources[i].0[lane];
    }
    sources[i / 2].0[lane] >> (16 * (i & 1)) & 0xffff
}

/// Registers of source `i`.
fn registers(wave: &Wave, inst: &Inst, i: usize, count: usize) -> Vec<Lanes> {
    (0..count)
        .map(|word| {
            let mut room = Room::uninit();
            *raw(wave, inst.src[i], word as u16, &mut room)
        })
        .collect()
}

/// Two values with stochastic rounding as nibbles; the second one takes the next random number.
fn stochastic_nibbles(wave: &mut Wave, inst: &Inst, from: Format) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let values = registers(wave, inst, 0, if from == Format::F32 { 2 } else { 1 });
    let [random, scale] = [1, 2].map(|i| registers(wave, inst, i, 1)[0]);
    let mut out = Lanes::ZERO;
    for lane in 0..LANES {
        let exponent = Some(scale.0[lane] >> 23 & 0xff);
        let first = random.0[lane];
        let low = element(&values, from, 0, lane);
        let high = element(&values, from, 1, lane);
        let low = FP4.encode_stochastic(from, low, exponent, first, true);
        let high = FP4.encode_stochastic(from, high, exponent, next_random(first), true);
        out.0[lane] = low | high << 4;
    }
    write_byte(wave, inst, &out);
    Flow::Next
}

pub fn v_cvt_scalef32_sr_pk_fp4_f32(wave: &mut Wave, inst: &Inst) -> Flow {
    stochastic_nibbles(wave, inst, Format::F32)
}

pub fn v_cvt_scalef32_sr_pk_fp4_f16(wave: &mut Wave, inst: &Inst) -> Flow {
    stochastic_nibbles(wave, inst, Format::F16)
}

pub fn v_cvt_scalef32_sr_pk_fp4_bf16(wave: &mut Wave, inst: &Inst) -> Flow {
    stochastic_nibbles(wave, inst, Format::BF16)
}

/// The part of S0 that `op_sel` names, `bits` wide, and the scale in S1.
fn scaled_source(wave: &Wave, inst: &Inst, bits: u32) -> [Lanes; 2] {
    let mut rooms = [Room::uninit(); 2];
    let [x, y] = &mut rooms;
    let part = if bits == 16 { inst.op_sel & 1 } else { inst.op_sel & 3 };
    let shift = bits * u32::from(part);
    let codes = map1(source(wave, inst, 0, 0, Form::B32, x), |x| x >> shift);
    [codes, *source(wave, inst, 1, 0, Form::B32, y)]
}

/// The two values of a pair of codes, times the scale.
#[inline(always)]
fn decoded_pair(wave: &Wave, inst: &Inst, small: Small, to: Format) -> [Lanes; 2] {
    let bits = small.fraction + small.exponent + 1;
    let [codes, scale] = scaled_source(wave, inst, 2 * bits);
    let part = |shift: u32| {
        map2(&codes, &scale, |codes, scale| {
            bits_of(to, small.decode(codes >> shift & (2 * small.sign() - 1), power(scale)))
        })
    };
    [part(0), part(bits)]
}

#[inline(always)]
fn scaled_pair_to_floats(wave: &mut Wave, inst: &Inst, small: Small, to: Format) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let [low, high] = decoded_pair(wave, inst, small, to);
    if to == Format::F32 {
        write64(wave, inst, &[low, high]);
    } else {
        write(wave, inst, 0, &map2(&low, &high, |low, high| low | high << 16));
    }
    Flow::Next
}

macro_rules! scaled_to_floats {
    ($($name:ident: $small:ident, $to:ident;)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            scaled_pair_to_floats(wave, inst, $small, Format::$to)
        }
    )*};
}

scaled_to_floats! {
    v_cvt_scalef32_pk_f32_fp8: FP8, F32;
    v_cvt_scalef32_pk_f32_bf8: BF8, F32;
    v_cvt_scalef32_pk_f32_fp4: FP4, F32;
    v_cvt_scalef32_pk_f16_fp8: FP8, F16;
    v_cvt_scalef32_pk_f16_bf8: BF8, F16;
    v_cvt_scalef32_pk_f16_fp4: FP4, F16;
    v_cvt_scalef32_pk_bf16_fp8: FP8, BF16;
    v_cvt_scalef32_pk_bf16_bf8: BF8, BF16;
    v_cvt_scalef32_pk_bf16_fp4: FP4, BF16;
}

/// One code, times the scale, as float32, or as float16 into the half of the destination that `op_sel` says.
fn scaled_byte_to_float(wave: &mut Wave, inst: &Inst, small: Small, to: Format) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let [codes, scale] = scaled_source(wave, inst, 8);
    let mut out = map2(&codes, &scale, |code, scale| bits_of(to, small.decode(code & 0xff, power(scale))));
    if to == Format::F32 {
        write(wave, inst, 0, &out);
    } else {
        write16(wave, inst, Rest::Kept, &mut out);
    }
    Flow::Next
}

pub fn v_cvt_scalef32_f32_fp8(wave: &mut Wave, inst: &Inst) -> Flow {
    scaled_byte_to_float(wave, inst, FP8, Format::F32)
}

pub fn v_cvt_scalef32_f32_bf8(wave: &mut Wave, inst: &Inst) -> Flow {
    scaled_byte_to_float(wave, inst, BF8, Format::F32)
}

pub fn v_cvt_scalef32_f16_fp8(wave: &mut Wave, inst: &Inst) -> Flow {
    scaled_byte_to_float(wave, inst, FP8, Format::F16)
}

pub fn v_cvt_scalef32_f16_bf8(wave: &mut Wave, inst: &Inst) -> Flow {
    scaled_byte_to_float(wave, inst, BF8, Format::F16)
}

/// Codes of 6 bits one after the other in six registers.
fn pack_six(codes: impl Fn(usize) -> u32) -> [u32; 6] {
    let mut out = [0; 6];
    for i in 0..32 {
        let (word, shift) = (6 * i / 32, 6 * i % 32);
        let code = u64::from(codes(i) & 63) << shift;
        out[word] |= code as u32;
        if shift > 26 {
            out[word + 1] |= (code >> 32) as u32;
        }
    }
    out
}

/// Code `i` of 32 in six registers.
fn unpack_six(words: &[Lanes], lane: usize, i: usize) -> u32 {
    let (word, shift) = (6 * i / 32, 6 * i % 32);
    let low = u64::from(words[word].0[lane]);
    let high = words.get(word + 1).map_or(0, |next| u64::from(next.0[lane]));
    ((high << 32 | low) >> shift) as u32 & 63
}

/// Writes six registers, lane by lane.
fn write_six(wave: &mut Wave, inst: &Inst, codes: impl Fn(usize) -> [u32; 6]) {
    let mut out = [Lanes::ZERO; 6];
    for lane in 0..LANES {
        let words = codes(lane);
        for (out, word) in out.iter_mut().zip(words) {
            out.0[lane] = word;
        }
    }
    for (word, out) in out.iter().enumerate() {
        write(wave, inst, word as u16, out);
    }
}

/// 32 values as codes of 6 bits.
fn scaled_to_six(wave: &mut Wave, inst: &Inst, from: Format, small: Small) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let values = registers(wave, inst, 0, 16);
    let scale = registers(wave, inst, 1, 1)[0];
    write_six(wave, inst, |lane| {
        pack_six(|i| {
            let value = value_of(from, element(&values, from, i, lane));
            encode_scaled(small, value, scale.0[lane], true)
        })
    });
    Flow::Next
}

/// Twice 16 float32, taken in turn from two sources, as codes of 6 bits.
fn interleaved_to_six(wave: &mut Wave, inst: &Inst, small: Small) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let values = [registers(wave, inst, 0, 16), registers(wave, inst, 1, 16)];
    let scale = registers(wave, inst, 2, 1)[0];
    write_six(wave, inst, |lane| {
        pack_six(|i| {
            let value = f32::from_bits(values[i & 1][i / 2].0[lane]);
            encode_scaled(small, value, scale.0[lane], true)
        })
    });
    Flow::Next
}

/// 32 values as codes of 6 bits with stochastic rounding, each with the next random number.
fn stochastic_to_six(wave: &mut Wave, inst: &Inst, from: Format, small: Small) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let values = registers(wave, inst, 0, if from == Format::F32 { 32 } else { 16 });
    let [random, scale] = [1, 2].map(|i| registers(wave, inst, i, 1)[0]);
    write_six(wave, inst, |lane| {
        let exponent = Some(scale.0[lane] >> 23 & 0xff);
        let mut codes = [0; 32];
        let mut seed = random.0[lane];
        for (i, code) in codes.iter_mut().enumerate() {
            let value = element(&values, from, i, lane);
            *code = small.encode_stochastic(from, value, exponent, seed, true);
            seed = next_random(seed);
        }
        pack_six(|i| codes[i])
    });
    Flow::Next
}

/// 32 codes of 6 bits, times the scale, as floats.
fn scaled_from_six(wave: &mut Wave, inst: &Inst, small: Small, to: Format) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let codes = registers(wave, inst, 0, 6);
    let scale = registers(wave, inst, 1, 1)[0];
    let mut out = vec![Lanes::ZERO; if to == Format::F32 { 32 } else { 16 }];
    for lane in 0..LANES {
        let factor = power(scale.0[lane]);
        for i in 0..32 {
            let value = bits_of(to, small.decode(unpack_six(&codes, lane, i), factor));
            if to == Format::F32 {
                out[i].0[lane] = value;
            } else {
                out[i / 2].0[lane] |= value << (16 * (i & 1));
            }
        }
    }
    for (word, out) in out.iter().enumerate() {
        write(wave, inst, word as u16, out);
    }
    Flow::Next
}

macro_rules! six {
    ($($name:ident: $function:ident($($arg:expr),*);)*) => {$(
        pub fn $name(wave: &mut Wave, inst: &Inst) -> Flow {
            $function(wave, inst, $($arg),*)
        }
    )*};
}

six! {
    v_cvt_scalef32_2xpk16_fp6_f32: interleaved_to_six(FP6);
    v_cvt_scalef32_2xpk16_bf6_f32: interleaved_to_six(BF6);
    v_cvt_scalef32_pk32_fp6_f16: scaled_to_six(Format::F16, FP6);
    v_cvt_scalef32_pk32_fp6_bf16: scaled_to_six(Format::BF16, FP6);
    v_cvt_scalef32_pk32_bf6_f16: scaled_to_six(Format::F16, BF6);
    v_cvt_scalef32_pk32_bf6_bf16: scaled_to_six(Format::BF16, BF6);
    v_cvt_scalef32_sr_pk32_fp6_f32: stochastic_to_six(Format::F32, FP6);
    v_cvt_scalef32_sr_pk32_bf6_f32: stochastic_to_six(Format::F32, BF6);
    v_cvt_scalef32_sr_pk32_fp6_f16: stochastic_to_six(Format::F16, FP6);
    v_cvt_scalef32_sr_pk32_fp6_bf16: stochastic_to_six(Format::BF16, FP6);
    v_cvt_scalef32_sr_pk32_bf6_f16: stochastic_to_six(Format::F16, BF6);
    v_cvt_scalef32_sr_pk32_bf6_bf16: stochastic_to_six(Format::BF16, BF6);
    v_cvt_scalef32_pk32_f32_fp6: scaled_from_six(FP6, Format::F32);
    v_cvt_scalef32_pk32_f32_bf6: scaled_from_six(BF6, Format::F32);
    v_cvt_scalef32_pk32_f16_fp6: scaled_from_six(FP6, Format::F16);
    v_cvt_scalef32_pk32_f16_bf6: scaled_from_six(BF6, Format::F16);
    v_cvt_scalef32_pk32_bf16_fp6: scaled_from_six(FP6, Format::BF16);
    v_cvt_scalef32_pk32_bf16_bf6: scaled_from_six(BF6, Format::BF16);
}
