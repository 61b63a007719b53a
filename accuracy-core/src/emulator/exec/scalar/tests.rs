//! Values were computed by hand from the ISA's descriptions.

use super::*;
use crate::emulator::isa::{Encoding, Execute, Inst, MatrixBits, MemoryBits, Operand, Processor};
use crate::emulator::memory::{Group, Space};
use crate::emulator::wave::{Fault, Flow, GprIndex, Wave, register};

fn inst(dst: Operand, src: [Operand; 2], imm: i32) -> Inst {
    Inst {
        row: crate::emulator::isa::table::row("s_nop").unwrap(),
        execute: s_nop,
        encoding: Encoding::Sop2,
        size: 4,
        dst,
        sdst: Operand::None,
        src: [src[0], src[1], Operand::None, Operand::None],
        neg: 0,
        abs: 0,
        neg_hi: 0,
        op_sel: 0,
        op_sel_hi: 0,
        clamp: false,
        omod: 0,
        sdwa: None,
        dpp: None,
        imm,
        imm2: 0,
        memory: MemoryBits::default(),
        matrix: MatrixBits::default(),
        words: [0; 4],
    }
}

const NONE: Operand = Operand::None;

fn k(bits: u64) -> Operand {
    Operand::Constant(bits)
}

fn with_wave<T>(f: impl FnOnce(&mut Wave) -> T) -> T {
    let space = Space::new(vec![]);
    let group = Group::new(&space, vec![0; 1024].into(), [0; 3]);
    let mut wave = Wave::new(Processor::Gfx942, &group, 5, 0);
    f(&mut wave)
}

/// Runs an instruction on constants with SCC as given; gives `s[10:11]` (which held `old`) and SCC.
fn run(f: Execute, a: u64, b: u64, scc: bool, old: u64) -> (u64, bool) {
    with_wave(|wave| {
        wave.scc = scc;
        wave.set_s64(10, old);
        assert_eq!(f(wave, &inst(Operand::Scalar(10), [k(a), k(b)], 0)), Flow::Next);
        (wave.s64(10), wave.scc)
    })
}

/// What an instruction must give: its sources, SCC before, its result, SCC after.
type Case = (Execute, u64, u64, bool, u64, bool);

fn check(cases: &[Case]) {
    for (number, &(f, a, b, scc, result, scc_after)) in cases.iter().enumerate() {
        assert_eq!(run(f, a, b, scc, 0), (result, scc_after), "case {number}: {a:#x}, {b:#x}, scc {scc}");
    }
}

const TOP: u64 = 0x8000_0000;
const ONES: u64 = 0xffff_ffff;
const ALL: u64 = u64::MAX;
const TOP64: u64 = 1 << 63;

#[test]
fn additions_carry_and_overflow_into_scc() {
    check(&[
        (s_add_u32, ONES, 1, false, 0, true),
        (s_add_u32, ONES, 1, true, 0, true),
        (s_add_u32, 1, 2, true, 3, false),
        (s_addc_u32, ONES, 0, true, 0, true),
        (s_addc_u32, ONES, ONES, true, ONES, true),
        (s_addc_u32, 1, 2, true, 4, false),
        (s_sub_u32, 1, 2, false, ONES, true),
        (s_sub_u32, 2, 2, true, 0, false),
        (s_subb_u32, 2, 2, true, ONES, true),
        (s_subb_u32, 0, ONES, true, 0, true),
        (s_subb_u32, 5, 3, false, 2, false),
        (s_add_i32, 0x7fff_ffff, 1, false, TOP, true),
        (s_add_i32, ONES, 1, true, 0, false),
        (s_add_i32, TOP, TOP, false, 0, true),
        (s_sub_i32, TOP, 1, false, 0x7fff_ffff, true),
        (s_sub_i32, 0, TOP, false, TOP, true),
        (s_sub_i32, ONES, TOP, true, 0x7fff_ffff, false),
        (s_lshl1_add_u32, TOP, 5, false, 5, true),
        (s_lshl2_add_u32, 3, 5, true, 17, false),
        (s_lshl3_add_u32, 0x2000_0000, 1, false, 1, true),
        (s_lshl4_add_u32, 1, ONES, false, 15, true),
        (s_absdiff_i32, 3, 10, false, 7, true),
        (s_absdiff_i32, 3, 3, true, 0, false),
        (s_absdiff_i32, TOP, 0, false, TOP, true),
        (s_abs_i32, TOP, 0, false, TOP, true),
        (s_abs_i32, ONES, 0, false, 1, true),
        (s_abs_i32, 0, 0, true, 0, false),
    ]);
}

#[test]
fn minima_and_maxima_say_in_scc_which_source_won() {
    check(&[
        (s_min_i32, ONES, 1, false, ONES, true),
        (s_min_i32, 1, 1, true, 1, false),
        (s_min_u32, ONES, 1, true, 1, false),
        (s_max_i32, ONES, 1, true, 1, false),
        (s_max_i32, 4, 4, false, 4, true),
        (s_max_u32, ONES, 1, false, ONES, true),
    ]);
}

#[test]
fn bitwise_operations_set_scc_if_any_bit_is_set() {
    let (a, b) = (0xf0f0_f0f0_1234_0000, 0x0ff0_0ff0_00ff_ffff);
    check(&[
        (s_and_b32, 0xf0, 0x0f, true, 0, false),
        (s_and_b64, a, b, false, a & b, true),
        (s_or_b32, 0, 0, true, 0, false),
        (s_or_b64, TOP64, 0, false, TOP64, true),
        (s_xor_b32, 7, 7, true, 0, false),
        (s_xor_b64, a, b, false, 0xff00_ff00_12cb_ffff, true),
        (s_andn2_b32, 7, 2, false, 5, true),
        (s_andn2_b64, b, b, true, 0, false),
        (s_orn2_b32, 0, ONES, true, 0, false),
        (s_orn2_b64, 0, 1, false, ALL - 1, true),
        (s_nand_b32, ONES, ONES, true, 0, false),
        (s_nand_b64, 1, 1, false, ALL - 1, true),
        (s_nor_b32, 1, 2, false, 0xffff_fffc, true),
        (s_nor_b64, ALL, 0, true, 0, false),
        (s_xnor_b32, 5, 5, false, ONES, true),
        (s_xnor_b64, 0, ALL, true, 0, false),
        (s_not_b32, ONES, 0, true, 0, false),
        (s_not_b64, 0, 0, false, ALL, true),
    ]);
}

#[test]
fn shifts_take_their_amount_modulo_the_width() {
    check(&[
        (s_lshl_b32, 1, 33, false, 2, true),
        (s_lshl_b32, 1 << 31, 1, true, 0, false),
        (s_lshl_b64, 1, 63, false, TOP64, true),
        (s_lshl_b64, 1, 64, false, 1, true),
        (s_lshr_b32, TOP, 31, false, 1, true),
        (s_lshr_b32, TOP, 32, false, TOP, true),
        (s_lshr_b64, TOP64, 63, false, 1, true),
        (s_ashr_i32, TOP, 31, false, ONES, true),
        (s_ashr_i32, 1, 1, true, 0, false),
        (s_ashr_i64, TOP64, 63, false, ALL, true),
    ]);
}

#[test]
fn bit_fields_are_cut_and_made() {
    check(&[
        (s_bfm_b32, 4, 8, true, 0xf00, true),
        (s_bfm_b32, 32, 0, false, 0, false),
        (s_bfm_b32, 31, 31, false, TOP, false),
        (s_bfm_b64, 63, 1, false, ALL - 1, false),
        (s_bfm_b64, 64, 5, true, 0, true),
        (s_bfe_u32, 0xabcd_1234, 8 | 12 << 16, false, 0xd12, true),
        (s_bfe_u32, 0xabcd_1234, 8, true, 0, false),
        (s_bfe_u32, 0xabcd_1234, 4 | 32 << 16, false, 0x0abc_d123, true),
        (s_bfe_u32, 0xabcd_1234, 36 | 8 << 16, false, 0x23, true),
        (s_bfe_i32, 0x0000_0f00, 8 | 4 << 16, false, ONES, true),
        (s_bfe_i32, 0x0000_0700, 8 | 4 << 16, false, 7, true),
        (s_bfe_i32, TOP, 28 | 16 << 16, false, 0xffff_fff8, true),
        (s_bfe_i32, 0xff, 0, true, 0, false),
        (s_bfe_u64, 0xabcd_0000_0000_1234, 48 | 16 << 16, false, 0xabcd, true),
        (s_bfe_u64, 0xabcd_0000_0000_1234, 64 << 16, false, 0xabcd_0000_0000_1234, true),
        (s_bfe_i64, 0xabcd_0000_0000_1234, 60 | 4 << 16, false, ALL - 5, true),
        (s_bitreplicate_b64_b32, 0x8000_0005, 0, true, 0xc000_0000_0000_0033, true),
        (s_brev_b32, 0x8000_0001, 0, false, 0x8000_0001, false),
        (s_brev_b32, 0b1101, 0, true, 0xb000_0000, true),
        (s_brev_b64, 1, 0, false, TOP64, false),
        (s_sext_i32_i8, 0x180, 0, true, 0xffff_ff80, true),
        (s_sext_i32_i16, 0x7fff, 0, false, 0x7fff, false),
        (s_pack_ll_b32_b16, 0x1111_2222, 0x3333_4444, false, 0x4444_2222, false),
        (s_pack_lh_b32_b16, 0x1111_2222, 0x3333_4444, true, 0x3333_2222, true),
        (s_pack_hh_b32_b16, 0x1111_2222, 0x3333_4444, false, 0x3333_1111, false),
    ]);
}

#[test]
fn products_leave_scc_alone() {
    check(&[
        (s_mul_i32, ONES, 3, true, 0xffff_fffd, true),
        (s_mul_hi_u32, ONES, ONES, false, 0xffff_fffe, false),
        (s_mul_hi_i32, ONES, ONES, true, 0, true),
        (s_mul_hi_i32, TOP, 2, false, ONES, false),
        (s_cselect_b32, 1, 2, true, 1, true),
        (s_cselect_b64, 1, ALL, false, ALL, false),
    ]);
}

#[test]
fn bits_are_counted_and_found() {
    check(&[
        (s_bcnt0_i32_b32, ONES, 0, true, 0, false),
        (s_bcnt0_i32_b64, 1, 0, false, 63, true),
        (s_bcnt1_i32_b32, 0xf0, 0, false, 4, true),
        (s_bcnt1_i32_b64, ALL, 0, false, 64, true),
        (s_ff0_i32_b32, ONES, 0, true, ONES, true),
        (s_ff0_i32_b32, 0b0111, 0, false, 3, false),
        (s_ff0_i32_b64, ALL >> 1, 0, false, 63, false),
        (s_ff1_i32_b32, 0, 0, false, ONES, false),
        (s_ff1_i32_b32, 8, 0, false, 3, false),
        (s_ff1_i32_b64, TOP64, 0, false, 63, false),
        (s_flbit_i32_b32, 1, 0, false, 31, false),
        (s_flbit_i32_b32, 0, 0, false, ONES, false),
        (s_flbit_i32_b64, 1, 0, false, 63, false),
        (s_flbit_i32, ONES, 0, false, ONES, false),
        (s_flbit_i32, 0, 0, false, ONES, false),
        (s_flbit_i32, 0xfff0_0000, 0, false, 12, false),
        (s_flbit_i32, 0x4000_0000, 0, false, 1, false),
        (s_flbit_i32_i64, 1, 0, false, 63, false),
        (s_quadmask_b32, 0x8001_0010, 0, false, 0b1001_0010, true),
        (s_quadmask_b64, 0x1000_0000_0000_0000, 0, false, 0x8000, true),
        (s_wqm_b32, 0x8001_0010, 0, false, 0xf00f_00f0, true),
        (s_wqm_b64, 0, 0, true, 0, false),
        (s_wqm_b64, 0x4000_0000_0000_0001, 0, false, 0xf000_0000_0000_000f, true),
    ]);
}

#[test]
fn single_bits_of_the_destination_change() {
    assert_eq!(run(s_bitset0_b32, 33, 0, true, 0xff), (0xfd, true));
    assert_eq!(run(s_bitset1_b32, 31, 0, false, 0), (TOP, false));
    assert_eq!(run(s_bitset0_b64, 63, 0, false, ALL), (ALL >> 1, false));
    assert_eq!(run(s_bitset1_b64, 64 + 40, 0, false, 0), (1 << 40, false));
}

#[test]
fn conditional_moves_follow_scc() {
    assert_eq!(run(s_cmov_b32, 7, 0, false, 3), (3, false));
    assert_eq!(run(s_cmov_b32, 7, 0, true, 3), (7, true));
    assert_eq!(run(s_cmov_b64, ALL, 0, true, 3), (ALL, true));
}

#[test]
fn comparisons_set_scc() {
    let yes = |f, a, b| assert!(run(f, a, b, false, 0).1, "{a:#x}, {b:#x}");
    let no = |f, a, b| assert!(!run(f, a, b, true, 0).1, "{a:#x}, {b:#x}");
    yes(s_cmp_eq_i32, 4, 4);
    no(s_cmp_lg_i32, 4, 4);
    yes(s_cmp_gt_i32, 0, ONES);
    yes(s_cmp_ge_i32, 0, ONES);
    yes(s_cmp_lt_i32, TOP, 0);
    no(s_cmp_le_i32, 1, TOP);
    yes(s_cmp_eq_u32, ONES, ONES);
    yes(s_cmp_lg_u32, ONES, 0);
    yes(s_cmp_gt_u32, TOP, 0);
    no(s_cmp_ge_u32, 0, ONES);
    yes(s_cmp_lt_u32, 0, TOP);
    yes(s_cmp_le_u32, 4, 4);
    yes(s_cmp_eq_u64, TOP64, TOP64);
    yes(s_cmp_lg_u64, TOP64, 0);
    yes(s_bitcmp1_b32, TOP, 63);
    yes(s_bitcmp0_b32, TOP, 30);
    yes(s_bitcmp1_b64, TOP64, 63);
    no(s_bitcmp0_b64, TOP64, 127);
}

#[test]
fn constants_of_sopk_are_extended_as_the_comparison_is_signed() {
    with_wave(|wave| {
        wave.s[3] = ONES as u32;
        let mut compare = |f: Execute, imm: i32| {
            assert_eq!(f(wave, &inst(NONE, [Operand::Scalar(3), NONE], imm)), Flow::Next);
            wave.scc
        };
        assert!(compare(s_cmpk_eq_i32, -1));
        assert!(!compare(s_cmpk_eq_u32, 0xffff));
        assert!(compare(s_cmpk_gt_u32, 0xffff));
        assert!(compare(s_cmpk_lt_i32, 0));
        assert!(compare(s_cmpk_lg_u32, 3));
        assert!(!compare(s_cmpk_le_u32, 0xffff));

        let s3 = Operand::Scalar(3);
        wave.s[3] = 0x7fff_ffff;
        let _ = s_addk_i32(wave, &inst(s3, [NONE; 2], 1));
        assert_eq!((wave.s[3], wave.scc), (TOP as u32, true));
        let _ = s_addk_i32(wave, &inst(s3, [NONE; 2], 5));
        assert_eq!((wave.s[3], wave.scc), (TOP as u32 + 5, false));
        let _ = s_movk_i32(wave, &inst(s3, [NONE; 2], -2));
        let _ = s_mulk_i32(wave, &inst(s3, [NONE; 2], -3));
        assert_eq!(wave.s[3], 6);
        let _ = s_cmovk_i32(wave, &inst(s3, [NONE; 2], 1));
        assert_eq!(wave.s[3], 6);
    });
}

#[test]
fn saved_exec_is_what_it_was_and_scc_says_whether_a_lane_is_left() {
    let cases: [(Execute, u64); 10] = [
        (s_and_saveexec_b64, 0b1000),
        (s_or_saveexec_b64, 0b1110),
        (s_xor_saveexec_b64, 0b0110),
        (s_andn2_saveexec_b64, 0b0010),
        (s_orn2_saveexec_b64, !0b0100),
        (s_nand_saveexec_b64, !0b1000),
        (s_nor_saveexec_b64, !0b1110),
        (s_xnor_saveexec_b64, !0b0110),
        (s_andn1_saveexec_b64, 0b0100),
        (s_orn1_saveexec_b64, !0b0010),
    ];
    for (f, expected) in cases {
        with_wave(|wave| {
            wave.set_exec(0b1100);
            let _ = f(wave, &inst(Operand::Scalar(20), [k(0b1010), NONE], 0));
            assert_eq!((wave.s64(20), wave.exec(), wave.scc), (0b1100, expected, true));
        });
    }
    with_wave(|wave| {
        wave.set_exec(0b1100);
        let _ = s_andn1_wrexec_b64(wave, &inst(Operand::Scalar(20), [k(0b1010), NONE], 0));
        assert_eq!((wave.s64(20), wave.exec(), wave.scc), (0b0100, 0b0100, true));
        let _ = s_andn2_wrexec_b64(wave, &inst(Operand::Scalar(20), [k(0b0100), NONE], 0));
        assert_eq!((wave.s64(20), wave.exec(), wave.scc), (0, 0, false));
    });
}

#[test]
fn branches_count_dwords_from_the_next_instruction() {
    with_wave(|wave| {
        let mut go = |f: Execute, imm: i32| {
            wave.pc = 0x1000;
            let flow = f(wave, &inst(NONE, [NONE; 2], imm));
            (flow, wave.pc)
        };
        assert_eq!(go(s_branch, -1), (Flow::Jump, 0xffc));
        assert_eq!(go(s_branch, 0x7fff), (Flow::Jump, 0x1000 + 4 * 0x7fff));
        assert_eq!(go(s_cbranch_scc0, 2), (Flow::Jump, 0x1008));
        assert_eq!(go(s_cbranch_scc1, 2), (Flow::Next, 0x1000));
        assert_eq!(go(s_cbranch_vccz, 2), (Flow::Jump, 0x1008));
        assert_eq!(go(s_cbranch_vccnz, 2), (Flow::Next, 0x1000));
        assert_eq!(go(s_cbranch_execz, 2), (Flow::Next, 0x1000));
        assert_eq!(go(s_cbranch_execnz, 2), (Flow::Jump, 0x1008));
        assert_eq!(go(s_cbranch_cdbguser, 2), (Flow::Next, 0x1000));

        wave.pc = 0x1000;
        assert_eq!(s_call_b64(wave, &inst(Operand::Scalar(30), [NONE; 2], 4)), Flow::Jump);
        assert_eq!((wave.pc, wave.s64(30)), (0x1010, 0x1000));
        let s30 = Operand::Scalar(30);
        assert_eq!(s_swappc_b64(wave, &inst(s30, [s30, NONE], 0)), Flow::Jump);
        assert_eq!((wave.pc, wave.s64(30)), (0x1000, 0x1010));
        assert_eq!(s_setpc_b64(wave, &inst(NONE, [s30, NONE], 0)), Flow::Jump);
        assert_eq!(wave.pc, 0x1010);
        let _ = s_getpc_b64(wave, &inst(Operand::Scalar(0), [NONE; 2], 0));
        assert_eq!(wave.s64(0), 0x1010);
    });
}

#[test]
fn a_fork_runs_the_smaller_part_first_and_joins_both() {
    with_wave(|wave| {
        wave.set_exec(0b1111);
        wave.s[40] = 0;
        wave.pc = 0x104;
        let flow = s_cbranch_g_fork(wave, &inst(NONE, [k(0b0111), k(0x200)], 0));
        // One lane fails the test: it goes on here, and three wait for the target.
        assert_eq!((flow, wave.pc, wave.exec()), (Flow::Next, 0x104, 0b1000));
        wave.pc = 0x304;
        let join = inst(NONE, [Operand::Scalar(40), NONE], 0);
        assert_eq!(s_cbranch_join(wave, &join), Flow::Jump);
        assert_eq!((wave.pc, wave.exec()), (0x200, 0b0111));
        assert_eq!(s_cbranch_join(wave, &join), Flow::Next);
        let flow = s_cbranch_i_fork(wave, &inst(NONE, [k(0b0111), NONE], -2));
        assert_eq!((flow, wave.pc), (Flow::Jump, 0x1f8));
    });
}

#[test]
fn relative_moves_add_m0_and_stay_inside_the_registers() {
    with_wave(|wave| {
        for register in 0..100 {
            wave.s[register] = 1000 + register as u32;
        }
        wave.s[usize::from(register::M0)] = 7;
        let (s3, s50) = (Operand::Scalar(3), Operand::Scalar(50));
        let _ = s_movrels_b32(wave, &inst(s50, [s3, NONE], 0));
        assert_eq!(wave.s[50], 1010);
        let _ = s_movrels_b64(wave, &inst(s50, [Operand::Scalar(4), NONE], 0));
        assert_eq!(wave.s64(50), 1012 << 32 | 1011);
        let _ = s_movreld_b32(wave, &inst(s3, [k(5), NONE], 0));
        assert_eq!(wave.s[10], 5);
        let _ = s_movreld_b64(wave, &inst(Operand::Scalar(4), [k(ALL), NONE], 0));
        assert_eq!(wave.s64(11), ALL);
        wave.s[usize::from(register::M0)] = u32::MAX;
        assert_eq!(s_movrels_b32(wave, &inst(s50, [s3, NONE], 0)), Flow::Fault);
    });
}

#[test]
fn mode_is_read_and_written_bit_by_bit() {
    with_wave(|wave| {
        // hwreg(HW_REG_MODE, 4, 4): the denormals.
        let denormals = 1 | 4 << 6 | 3 << 11;
        let get = |wave: &mut Wave, imm| {
            assert_eq!(s_getreg_b32(wave, &inst(Operand::Scalar(9), [NONE; 2], imm)), Flow::Next);
            wave.s[9]
        };
        assert_eq!(get(wave, denormals), 15);
        assert_eq!(s_setreg_b32(wave, &inst(NONE, [k(0x73), NONE], denormals)), Flow::Next);
        assert_eq!(wave.mode.0, 0x330);
        let round = Inst { imm2: 0xfd, ..inst(NONE, [NONE; 2], 1 | 3 << 11) };
        assert_eq!(s_setreg_imm32_b32(wave, &round), Flow::Next);
        assert_eq!(wave.mode.0, 0x33d);

        let _ = s_set_gpr_idx_on(wave, &inst(NONE, [k(0x123), NONE], 9));
        assert_eq!((wave.gpr_index, wave.m0()), (Some(GprIndex { enable: 9 }), 0x9023));
        let _ = s_setvskip(wave, &inst(NONE, [k(4), k(2)], 0));
        assert_eq!(get(wave, 1 | 27 << 6 | 1 << 11), 3);
        let _ = s_set_gpr_idx_mode(wave, &inst(NONE, [NONE; 2], 1));
        let _ = s_set_gpr_idx_idx(wave, &inst(NONE, [k(0xff5), NONE], 0));
        assert_eq!((wave.gpr_index, wave.m0()), (Some(GprIndex { enable: 1 }), 0x10f5));
        let _ = s_set_gpr_idx_off(wave, &inst(NONE, [NONE; 2], 0));
        assert_eq!(get(wave, 1 | 27 << 6 | 1 << 11), 2);

        // LDS: 1,024 bytes are two granules of gfx942, from bit 12 on; wave 5 is the second one on SIMD 1.
        assert_eq!(get(wave, 6 | 12 << 6 | 8 << 11), 2);
        assert_eq!(get(wave, 4 | 5 << 11), 0x11);
        assert_eq!(s_getreg_b32(wave, &inst(Operand::Scalar(9), [NONE; 2], 5 | 31 << 11)), Flow::Fault);
        let fault = wave.fault.take().map(|fault| fault.to_string());
        assert!(fault.is_some_and(|text| text.contains("HW_REG_GPR_ALLOC")));
        let traps = 1 | 12 << 6;
        assert_eq!(s_setreg_b32(wave, &inst(NONE, [k(1), NONE], traps)), Flow::Fault);
    });
}

#[test]
fn waves_end_trap_wait_and_call_the_host() {
    let space = Space::new(vec![]);
    let calls = std::cell::Cell::new(0);
    let serve = || calls.set(calls.get() + 1);
    let mut group = Group::new(&space, vec![].into(), [0; 3]);
    group.host = Some(&serve);
    let mut wave = Wave::new(Processor::Gfx950, &group, 0, 0);
    let mut go = |f: Execute, imm: i32| f(&mut wave, &inst(NONE, [NONE; 2], imm));
    assert_eq!(go(s_endpgm, 0), Flow::End);
    assert_eq!(go(s_barrier, 0), Flow::Barrier);
    assert_eq!(go(s_waitcnt, 0), Flow::Next);
    assert_eq!(go(s_sleep, 1), Flow::Yield);
    assert_eq!(go(s_sendmsg, 1), Flow::Next);
    assert_eq!(go(s_setkill, 1), Flow::End);
    assert_eq!(go(s_trap, 3), Flow::Next);
    assert_eq!(go(s_sethalt, 0), Flow::Next);
    assert_eq!(go(s_sendmsg, 4), Flow::Fault);
    assert_eq!(go(s_sethalt, 1), Flow::Fault);
    assert_eq!(go(s_trap, 2), Flow::Fault);
    assert_eq!(wave.fault.as_deref(), Some(&Fault::Trap { code: 2 }));
    assert_eq!(calls.get(), 2);
}

#[test]
fn special_sources_hold_the_apertures_and_the_zero_flags() {
    use crate::emulator::isa::Special::*;
    with_wave(|wave| {
        let read = |wave: &Wave, special| read64(wave, Operand::Special(special));
        assert_eq!(read(wave, SharedBase), Some(0x0001_0000_0000_0000));
        assert_eq!(read(wave, PrivateLimit), Some(0x0002_0000_ffff_ffff));
        assert_eq!(read32(wave, Operand::Special(SharedBase)), Some(0));
        wave.set_exec(0);
        assert_eq!((read(wave, Execz), read(wave, Vccz)), (Some(1), Some(1)));
        wave.set_vcc(1 << 40);
        assert_eq!(read(wave, Vccz), Some(0));
        assert_eq!(read(wave, PopsExitingWaveId), None);
        assert_eq!(s_mov_b32(wave, &inst(Operand::Scalar(0), [Operand::Vector(0), NONE], 0)), Flow::Fault);
    });
}
