//! Speed of instructions: `cargo test --release vector::bench -- --ignored --nocapture`.

use std::time::Instant;

use super::tests::{instruction, with_wave};
use crate::emulator::isa::{Execute, Inst, Operand};

/// Nanoseconds of one execution for a whole wave.
fn time(inst: &Inst) -> f64 {
    with_wave(|wave| {
        for register in 0..16 {
            for lane in 0..64 {
                wave.v[register].0[lane] = (1.0 + register as f32 + lane as f32 / 64.0).to_bits();
            }
        }
        let rounds = 500;
        let mut best = f64::INFINITY;
        for _ in 0..200 {
            let start = Instant::now();
            for _ in 0..rounds {
                assert_eq!(
                    (inst.execute)(wave, std::hint::black_box(inst)),
                    crate::emulator::wave::Flow::Next
                );
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds));
        }
        best
    })
}

#[test]
#[ignore = "a benchmark"]
fn nanoseconds_of_a_wave() {
    macro_rules! all {
        ($($name:ident)*) => { [$((stringify!($name), super::$name as Execute)),*] };
    }
    let all = all! {
        v_fma_f32 v_fmac_f32 v_add_f32 v_mul_f32 v_max_f32 v_max3_f32 v_med3_f32 v_pk_fma_f32 v_pk_mul_f32
        v_mov_b32 v_mov_b64 v_cndmask_b32 v_add_u32 v_add3_u32 v_lshlrev_b32 v_and_b32 v_bfe_u32 v_perm_b32
        v_lshl_add_u64 v_mad_u64_u32 v_mul_lo_u32 v_mul_hi_u32 v_add_co_u32 v_addc_co_u32 v_mbcnt_lo_u32_b32
        v_cmp_gt_u32 v_cmp_gt_f32 v_cmp_ne_u16 v_cmp_gt_i64 v_cmp_lt_u64 v_cvt_f32_u32 v_cvt_i32_f32 v_cvt_u32_f32
        v_cvt_f16_f32 v_cvt_f32_f16 v_cvt_pkrtz_f16_f32 v_cvt_pk_bf16_f32 v_cvt_pk_fp8_f32 v_cvt_pk_f32_fp8
        v_cvt_scalef32_pk_fp4_f32 v_fma_f16 v_pk_fma_f16 v_pk_add_f16 v_dot2_f32_f16 v_dot4_i32_i8 v_fma_f64
        v_add_f64 v_rcp_f32 v_exp_f32 v_log_f32 v_sin_f32 v_rsq_f32 v_sqrt_f32 v_ldexp_f32 v_rndne_f32
        v_frexp_exp_i32_f32 v_div_scale_f32 v_div_fmas_f32 v_div_fixup_f32 v_div_scale_f64 v_readlane_b32
        v_bitop3_b32 v_permlane16_swap_b32 v_fma_mix_f32 v_lshlrev_b64
    };
    for (name, execute) in all {
        let vector = Inst {
            dst: Operand::Vector(20),
            sdst: Operand::Scalar(30),
            src: [Operand::Vector(2), Operand::Vector(4), Operand::Vector(6), Operand::Scalar(106)],
            op_sel_hi: 7,
            ..instruction(execute)
        };
        let vector = if name.starts_with("v_cmp") || name == "v_readlane_b32" {
            Inst { dst: Operand::Scalar(40), ..vector }
        } else {
            vector
        };
        let scalar =
            Inst { src: [Operand::Scalar(8), vector.src[1], vector.src[2], vector.src[3]], ..vector.clone() };
        println!("{name:28} {:7.1} ns, with a scalar {:7.1} ns", time(&vector), time(&scalar));
    }
}
