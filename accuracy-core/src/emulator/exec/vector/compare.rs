//! Comparisons: one bit for each lane that executes, into a pair of scalar registers. `v_cmpx` writes EXEC as well.

use super::float::widened;
use super::integer::gather;
use super::lanes::{float64_source, widest};
use super::operands::{Form, Room, begin, source, source64, writers};
use crate::emulator::exec::number::Format;
use crate::emulator::isa::{Inst, Operand};
use crate::emulator::wave::{Flow, LANES, Lanes, Wave};

type Answers = [u8; LANES];

#[inline(always)]
fn compare_loop<F: Fn(u32, u32) -> bool>(a: &Lanes, b: &Lanes, f: F) -> Answers {
    let mut out = [0; LANES];
    for (i, answer) in out.iter_mut().enumerate() {
        *answer = u8::from(f(a.0[i], b.0[i]));
    }
    out
}

fn compare_map<F: Fn(u32, u32) -> bool>(a: &Lanes, b: &Lanes, f: F) -> Answers {
    widest!([F: Fn(u32, u32) -> bool] compare_loop(a: &Lanes, b: &Lanes, f: F) -> Answers)
}

#[inline(always)]
fn compare_loop64<F: Fn(u64, u64) -> bool>(a: [&Lanes; 2], b: [&Lanes; 2], f: F) -> Answers {
    let word = |x: [&Lanes; 2], i: usize| u64::from(x[1].0[i]) << 32 | u64::from(x[0].0[i]);
    let mut out = [0; LANES];
    for (i, answer) in out.iter_mut().enumerate() {
        *answer = u8::from(f(word(a, i), word(b, i)));
    }
    out
}

fn compare_map64<F: Fn(u64, u64) -> bool>(a: [&Lanes; 2], b: [&Lanes; 2], f: F) -> Answers {
    widest!([F: Fn(u64, u64) -> bool] compare_loop64(a: [&Lanes; 2], b: [&Lanes; 2], f: F) -> Answers)
}

/// Writes the answers of the lanes that execute; zero for the others.
fn answer(wave: &mut Wave, inst: &Inst, answers: &Answers, to_exec: bool) -> Flow {
    let bits = gather(answers) & writers(wave, inst);
    if let Operand::Scalar(first) = inst.dst {
        wave.set_s64(first, bits);
    }
    if to_exec {
        wave.set_exec(bits);
    }
    Flow::Next
}

#[inline(always)]
fn compare32<F: Fn(u32, u32) -> bool>(wave: &mut Wave, inst: &Inst, forms: [Form; 2], x: bool, f: F) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let [first, second] = &mut rooms;
    let a = source(wave, inst, 0, 0, forms[0], first);
    let b = source(wave, inst, 1, 0, forms[1], second);
    let answers = compare_map(a, b, f);
    answer(wave, inst, &answers, x)
}

#[inline(always)]
fn compare64<F: Fn(u64, u64) -> bool>(wave: &mut Wave, inst: &Inst, float: bool, x: bool, f: F) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [[Room::uninit(); 2]; 4];
    let [first, second, spare_first, spare_second] = &mut rooms;
    let (a, b) = if float {
        (
            float64_source(wave, inst, 0, first, spare_first),
            float64_source(wave, inst, 1, second, spare_second),
        )
    } else {
        (source64(wave, inst, 0, false, first), source64(wave, inst, 1, false, second))
    };
    let answers = compare_map64(a, b, f);
    answer(wave, inst, &answers, x)
}

macro_rules! compare {
    ($form:expr, |$x:ident| $view:expr; $($cmp:ident, $cmpx:ident: |$a:ident, $b:ident| $body:expr;)*) => {$(
        pub fn $cmp(wave: &mut Wave, inst: &Inst) -> Flow {
            let view = |$x: u32| $view;
            compare32(wave, inst, [$form; 2], false, |a, b| {
                let ($a, $b) = (view(a), view(b));
                $body
            })
        }

        pub fn $cmpx(wave: &mut Wave, inst: &Inst) -> Flow {
            let view = |$x: u32| $view;
            compare32(wave, inst, [$form; 2], true, |a, b| {
                let ($a, $b) = (view(a), view(b));
                $body
            })
        }
    )*};
}

macro_rules! compare_wide {
    ($float:literal, |$x:ident| $view:expr; $($cmp:ident, $cmpx:ident: |$a:ident, $b:ident| $body:expr;)*) => {$(
        pub fn $cmp(wave: &mut Wave, inst: &Inst) -> Flow {
            let view = |$x: u64| $view;
            compare64(wave, inst, $float, false, |a, b| {
                let ($a, $b) = (view(a), view(b));
                $body
            })
        }

        pub fn $cmpx(wave: &mut Wave, inst: &Inst) -> Flow {
            let view = |$x: u64| $view;
            compare64(wave, inst, $float, true, |a, b| {
                let ($a, $b) = (view(a), view(b));
                $body
            })
        }
    )*};
}

/// The opposite of a comparison, which is true with a NaN.
#[inline(always)]
fn not(answer: bool) -> bool {
    !answer
}

compare! {
    Form::F32, |x| f32::from_bits(x);
    v_cmp_f_f32, v_cmpx_f_f32: |_a, _b| false;
    v_cmp_lt_f32, v_cmpx_lt_f32: |a, b| a < b;
    v_cmp_eq_f32, v_cmpx_eq_f32: |a, b| a == b;
    v_cmp_le_f32, v_cmpx_le_f32: |a, b| a <= b;
    v_cmp_gt_f32, v_cmpx_gt_f32: |a, b| a > b;
    v_cmp_lg_f32, v_cmpx_lg_f32: |a, b| (a < b) ^ (a > b);
    v_cmp_ge_f32, v_cmpx_ge_f32: |a, b| a >= b;
    v_cmp_o_f32, v_cmpx_o_f32: |a, b| !a.is_nan() && !b.is_nan();
    v_cmp_u_f32, v_cmpx_u_f32: |a, b| a.is_nan() || b.is_nan();
    v_cmp_nge_f32, v_cmpx_nge_f32: |a, b| not(a >= b);
    v_cmp_nlg_f32, v_cmpx_nlg_f32: |a, b| not((a < b) ^ (a > b));
    v_cmp_ngt_f32, v_cmpx_ngt_f32: |a, b| not(a > b);
    v_cmp_nle_f32, v_cmpx_nle_f32: |a, b| not(a <= b);
    v_cmp_neq_f32, v_cmpx_neq_f32: |a, b| a != b;
    v_cmp_nlt_f32, v_cmpx_nlt_f32: |a, b| not(a < b);
    v_cmp_tru_f32, v_cmpx_tru_f32: |_a, _b| true;
}

compare! {
    Form::F16, |x| widened(x & 0xffff);
    v_cmp_f_f16, v_cmpx_f_f16: |_a, _b| false;
    v_cmp_lt_f16, v_cmpx_lt_f16: |a, b| a < b;
    v_cmp_eq_f16, v_cmpx_eq_f16: |a, b| a == b;
    v_cmp_le_f16, v_cmpx_le_f16: |a, b| a <= b;
    v_cmp_gt_f16, v_cmpx_gt_f16: |a, b| a > b;
    v_cmp_lg_f16, v_cmpx_lg_f16: |a, b| (a < b) ^ (a > b);
    v_cmp_ge_f16, v_cmpx_ge_f16: |a, b| a >= b;
    v_cmp_o_f16, v_cmpx_o_f16: |a, b| !a.is_nan() && !b.is_nan();
    v_cmp_u_f16, v_cmpx_u_f16: |a, b| a.is_nan() || b.is_nan();
    v_cmp_nge_f16, v_cmpx_nge_f16: |a, b| not(a >= b);
    v_cmp_nlg_f16, v_cmpx_nlg_f16: |a, b| not((a < b) ^ (a > b));
    v_cmp_ngt_f16, v_cmpx_ngt_f16: |a, b| not(a > b);
    v_cmp_nle_f16, v_cmpx_nle_f16: |a, b| not(a <= b);
    v_cmp_neq_f16, v_cmpx_neq_f16: |a, b| a != b;
    v_cmp_nlt_f16, v_cmpx_nlt_f16: |a, b| not(a < b);
    v_cmp_tru_f16, v_cmpx_tru_f16: |_a, _b| true;
}

compare_wide! {
    true, |x| f64::from_bits(x);
    v_cmp_f_f64, v_cmpx_f_f64: |_a, _b| false;
    v_cmp_lt_f64, v_cmpx_lt_f64: |a, b| a < b;
    v_cmp_eq_f64, v_cmpx_eq_f64: |a, b| a == b;
    v_cmp_le_f64, v_cmpx_le_f64: |a, b| a <= b;
    v_cmp_gt_f64, v_cmpx_gt_f64: |a, b| a > b;
    v_cmp_lg_f64, v_cmpx_lg_f64: |a, b| (a < b) ^ (a > b);
    v_cmp_ge_f64, v_cmpx_ge_f64: |a, b| a >= b;
    v_cmp_o_f64, v_cmpx_o_f64: |a, b| !a.is_nan() && !b.is_nan();
    v_cmp_u_f64, v_cmpx_u_f64: |a, b| a.is_nan() || b.is_nan();
    v_cmp_nge_f64, v_cmpx_nge_f64: |a, b| not(a >= b);
    v_cmp_nlg_f64, v_cmpx_nlg_f64: |a, b| not((a < b) ^ (a > b));
    v_cmp_ngt_f64, v_cmpx_ngt_f64: |a, b| not(a > b);
    v_cmp_nle_f64, v_cmpx_nle_f64: |a, b| not(a <= b);
    v_cmp_neq_f64, v_cmpx_neq_f64: |a, b| a != b;
    v_cmp_nlt_f64, v_cmpx_nlt_f64: |a, b| not(a < b);
    v_cmp_tru_f64, v_cmpx_tru_f64: |_a, _b| true;
}

compare! {
    Form::B32, |x| x as i32;
    v_cmp_f_i32, v_cmpx_f_i32: |_a, _b| false;
    v_cmp_lt_i32, v_cmpx_lt_i32: |a, b| a < b;
    v_cmp_eq_i32, v_cmpx_eq_i32: |a, b| a == b;
    v_cmp_le_i32, v_cmpx_le_i32: |a, b| a <= b;
    v_cmp_gt_i32, v_cmpx_gt_i32: |a, b| a > b;
    v_cmp_ne_i32, v_cmpx_ne_i32: |a, b| a != b;
    v_cmp_ge_i32, v_cmpx_ge_i32: |a, b| a >= b;
    v_cmp_t_i32, v_cmpx_t_i32: |_a, _b| true;
}

compare! {
    Form::B32, |x| x;
    v_cmp_f_u32, v_cmpx_f_u32: |_a, _b| false;
    v_cmp_lt_u32, v_cmpx_lt_u32: |a, b| a < b;
    v_cmp_eq_u32, v_cmpx_eq_u32: |a, b| a == b;
    v_cmp_le_u32, v_cmpx_le_u32: |a, b| a <= b;
    v_cmp_gt_u32, v_cmpx_gt_u32: |a, b| a > b;
    v_cmp_ne_u32, v_cmpx_ne_u32: |a, b| a != b;
    v_cmp_ge_u32, v_cmpx_ge_u32: |a, b| a >= b;
    v_cmp_t_u32, v_cmpx_t_u32: |_a, _b| true;
}

compare! {
    Form::B16, |x| x as i16;
    v_cmp_f_i16, v_cmpx_f_i16: |_a, _b| false;
    v_cmp_lt_i16, v_cmpx_lt_i16: |a, b| a < b;
    v_cmp_eq_i16, v_cmpx_eq_i16: |a, b| a == b;
    v_cmp_le_i16, v_cmpx_le_i16: |a, b| a <= b;
    v_cmp_gt_i16, v_cmpx_gt_i16: |a, b| a > b;
    v_cmp_ne_i16, v_cmpx_ne_i16: |a, b| a != b;
    v_cmp_ge_i16, v_cmpx_ge_i16: |a, b| a >= b;
    v_cmp_t_i16, v_cmpx_t_i16: |_a, _b| true;
}

compare! {
    Form::B16, |x| x as u16;
    v_cmp_f_u16, v_cmpx_f_u16: |_a, _b| false;
    v_cmp_lt_u16, v_cmpx_lt_u16: |a, b| a < b;
    v_cmp_eq_u16, v_cmpx_eq_u16: |a, b| a == b;
    v_cmp_le_u16, v_cmpx_le_u16: |a, b| a <= b;
    v_cmp_gt_u16, v_cmpx_gt_u16: |a, b| a > b;
    v_cmp_ne_u16, v_cmpx_ne_u16: |a, b| a != b;
    v_cmp_ge_u16, v_cmpx_ge_u16: |a, b| a >= b;
    v_cmp_t_u16, v_cmpx_t_u16: |_a, _b| true;
}

compare_wide! {
    false, |x| x as i64;
    v_cmp_f_i64, v_cmpx_f_i64: |_a, _b| false;
    v_cmp_lt_i64, v_cmpx_lt_i64: |a, b| a < b;
    v_cmp_eq_i64, v_cmpx_eq_i64: |a, b| a == b;
    v_cmp_le_i64, v_cmpx_le_i64: |a, b| a <= b;
    v_cmp_gt_i64, v_cmpx_gt_i64: |a, b| a > b;
    v_cmp_ne_i64, v_cmpx_ne_i64: |a, b| a != b;
    v_cmp_ge_i64, v_cmpx_ge_i64: |a, b| a >= b;
    v_cmp_t_i64, v_cmpx_t_i64: |_a, _b| true;
}

compare_wide! {
    false, |x| x;
    v_cmp_f_u64, v_cmpx_f_u64: |_a, _b| false;
    v_cmp_lt_u64, v_cmpx_lt_u64: |a, b| a < b;
    v_cmp_eq_u64, v_cmpx_eq_u64: |a, b| a == b;
    v_cmp_le_u64, v_cmpx_le_u64: |a, b| a <= b;
    v_cmp_gt_u64, v_cmpx_gt_u64: |a, b| a > b;
    v_cmp_ne_u64, v_cmpx_ne_u64: |a, b| a != b;
    v_cmp_ge_u64, v_cmpx_ge_u64: |a, b| a >= b;
    v_cmp_t_u64, v_cmpx_t_u64: |_a, _b| true;
}

/// Whether a float is of one of the classes whose bits `classes` has.
#[inline(always)]
fn is_class(format: Format, x: u64, classes: u32) -> bool {
    let negative = format.is_negative(x);
    let class = if format.is_signalling(x) {
        0
    } else if format.is_nan(x) {
        1
    } else if format.is_infinite(x) {
        if negative { 2 } else { 9 }
    } else if format.is_zero(x) {
        if negative { 5 } else { 6 }
    } else if format.is_denormal(x) {
        if negative { 4 } else { 7 }
    } else if negative {
        3
    } else {
        8
    };
    classes >> class & 1 != 0
}

macro_rules! class {
    ($($cmp:ident, $x:literal, $format:ident, $form:ident, $mask:literal;)*) => {$(
        pub fn $cmp(wave: &mut Wave, inst: &Inst) -> Flow {
            compare32(wave, inst, [Form::$form, Form::B32], $x, |a, classes| {
                is_class(Format::$format, u64::from(a & $mask), classes)
            })
        }
    )*};
}

// Classes are told from the bits: denormals are not flushed first.
class! {
    v_cmp_class_f32, false, F32, SIGNED32, 0xffff_ffff;
    v_cmpx_class_f32, true, F32, SIGNED32, 0xffff_ffff;
    v_cmp_class_f16, false, F16, SIGNED16, 0xffff;
    v_cmpx_class_f16, true, F16, SIGNED16, 0xffff;
}

fn class64(wave: &mut Wave, inst: &Inst, x: bool) -> Flow {
    if let Some(flow) = begin(wave, inst) {
        return flow;
    }
    let mut rooms = [Room::uninit(); 2];
    let mut room = Room::uninit();
    let a = source64(wave, inst, 0, true, &mut rooms);
    let classes = source(wave, inst, 1, 0, Form::B32, &mut room);
    let answers = compare_map64(a, [classes, classes], |a, classes| is_class(Format::F64, a, classes as u32));
    answer(wave, inst, &answers, x)
}

pub fn v_cmp_class_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    class64(wave, inst, false)
}

pub fn v_cmpx_class_f64(wave: &mut Wave, inst: &Inst) -> Flow {
    class64(wave, inst, true)
}
