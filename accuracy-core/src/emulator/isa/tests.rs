//! Machine code whose text and operands are known from LLVM 22.

use super::{DecodeError, Encoding, Inst, Operand, Processor, Select, Special, Unused, decode};

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn inst(words: &[u32]) -> Inst {
    let inst = decode(Processor::Gfx950, &bytes(words)).unwrap();
    assert_eq!(usize::from(inst.size), 4 * words.len(), "{inst}");
    inst
}

fn refused(words: &[u32]) -> DecodeError {
    decode(Processor::Gfx950, &bytes(words)).unwrap_err()
}

#[test]
fn one_instruction_of_each_encoding_reads_as_llvm_writes_it() {
    let cases: &[(&[u32], &str)] = &[
        (&[0x8601_ff01, 0x0000_ffff], "s_and_b32 s1, s1, 0xffff"),
        (&[0xbe84_1c00], "s_getpc_b64 s[4:5]"),
        (&[0xb004_ffff], "s_movk_i32 s4, 0xffff"),
        (&[0xba00_f801, 0x3f80_0000], "s_setreg_imm32_b32 hwreg(HW_REG_MODE), 1.0"),
        (&[0xbf11_0904], "s_set_gpr_idx_on s4, gpr_idx(SRC0,DST)"),
        (&[0xbf8c_0f70], "s_waitcnt vmcnt(0)"),
        (&[0xbf8c_cf7f], "s_waitcnt vmcnt(63) expcnt(7) lgkmcnt(15)"),
        (&[0xc006_0500, 0x0000_0010], "s_load_dwordx2 s[20:21], s[0:1], 0x10"),
        (&[0xc002_4000, 0x0a1f_fffc], "s_load_dword s0, s[0:1], s5 offset:-0x4"),
        (&[0x7e08_030c], "v_mov_b32_e32 v4, v12"),
        (&[0x0208_18f2], "v_add_f32_e32 v4, 1.0, v12"),
        (&[0x2e08_1908, 0x1122_3344], "v_fmamk_f32 v4, v8, 0x11223344, v12"),
        (&[0x3808_1908], "v_addc_co_u32_e32 v4, vcc, v8, v12, vcc"),
        (&[0x7c82_1908], "v_cmp_lt_f32_e32 vcc, v8, v12"),
        (&[0xd101_8304, 0x6002_0108], "v_add_f32_e64 v4, -|v8|, -|v0| clamp"),
        (&[0xd1e8_6a04, 0x0482_2108], "v_mad_u64_u32 v[4:5], vcc, v8, v16, v[32:33]"),
        (
            &[0x0208_18f9, 0x0605_0608],
            "v_add_f32_sdwa v4, v8, v12 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1 src1_sel:DWORD",
        ),
        (&[0x7e08_02fa, 0xff00_e408], "v_mov_b32_dpp v4, v8 quad_perm:[0,1,2,3] row_mask:0xf bank_mask:0xf"),
        (&[0xd3b1_4000, 0x1801_e502], "v_pk_mul_f32 v[0:1], v[2:3], 1.0"),
        (&[0xd3a0_0040, 0x0582_8120], "v_fma_mix_f32 v64, v32, v64, v96"),
        (&[0xd3cd_8004, 0x1c13_110c], "v_mfma_f32_16x16x16_f16 a[4:7], a[12:13], a[136:137], a[4:7]"),
        (&[0xd3ee_0000, 0x2402_0500], "v_mfma_f64_16x16x4_f64 v[0:7], v[0:1], v[2:3], v[0:7] neg:[1,0,0]"),
        (&[0xd3d9_4004, 0x1800_0108], "v_accvgpr_write_b32 a4, v8"),
        (
            &[0xd3ac_0000, 0x0002_3318, 0xd3ad_0800, 0x0452_1904],
            "v_mfma_scale_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[12:19], v[20:23], v24, v25 op_sel_hi:[0,0,0]",
        ),
        (&[0xd86e_0201, 0x0c00_0008], "ds_read2_b32 v[12:13], v8 offset0:1 offset1:2"),
        (&[0xd87a_041f, 0x0c00_0008], "ds_swizzle_b32 v12, v8 offset:swizzle(SWAP,1)"),
        (&[0xdc50_0010, 0x0400_0008], "flat_load_dword v4, v[8:9] offset:16"),
        (&[0xdc50_9fff, 0x0400_0008], "global_load_dword v4, v8, s[0:1] offset:-1"),
        (&[0xdd09_8000, 0x0cff_0408], "global_atomic_add a12, v[8:9], a4, off sc0"),
        (&[0xdc70_4010, 0x0004_0400], "scratch_store_dword off, v4, s4 offset:16"),
        (&[0xe050_3010, 0x8001_0408], "buffer_load_dword v4, v[8:9], s[4:7], 0 idxen offen offset:16"),
        (&[0xe051_1000, 0x8001_0008], "buffer_load_dword v8, s[4:7], 0 offen lds"),
        (
            &[0xea28_0000, 0x8001_0408],
            "tbuffer_load_format_x v4, off, s[4:7], 0 format:[BUF_DATA_FORMAT_16_16,BUF_NUM_FORMAT_UINT]",
        ),
    ];
    for (words, text) in cases {
        assert_eq!(inst(words).to_string(), *text);
    }
}

#[test]
fn an_inline_constant_is_what_the_operand_makes_of_it() {
    let first = |words: &[u32]| inst(words).src[0];
    // 1.0 and -1 of v_add_f32, v_add_f16, v_ceil_f64, v_pk_add_f16, v_pk_add_u16, v_pk_mul_f32, s_mov_b64
    assert_eq!(first(&[0x0208_18f2]), Operand::Constant(0x3f80_0000));
    assert_eq!(first(&[0x0208_18c1]), Operand::Constant(0xffff_ffff));
    assert_eq!(first(&[0x3e08_18f2]), Operand::Constant(0x3c00));
    assert_eq!(first(&[0x7e08_30f2]), Operand::Constant(0x3ff0_0000_0000_0000));
    assert_eq!(first(&[0x7e08_30c1]), Operand::Constant(u64::MAX));
    assert_eq!(first(&[0xd38f_4004, 0x1802_02f2]), Operand::Constant(0x3c00));
    assert_eq!(first(&[0xd38f_4004, 0x1802_02c1]), Operand::Constant(0xffff_ffff));
    assert_eq!(first(&[0xd38a_4004, 0x1802_02f2]), Operand::Constant(0x3f80_0000));
    assert_eq!(first(&[0xd3b1_4004, 0x1802_00f2]), Operand::Constant(0x3f80_0000_3f80_0000));
    assert_eq!(first(&[0xbe84_01f2]), Operand::Constant(0x3ff0_0000_0000_0000));
    // Half of v_fma_mix_f32's constants are float16, as OP_SEL_HI says.
    assert_eq!(first(&[0xd3a0_0004, 0x0402_02f2]), Operand::Constant(0x3f80_0000));
    assert_eq!(first(&[0xd3a0_0004, 0x0c02_02f2]), Operand::Constant(0x3c00));
    // 1/(2*pi) of v_mul_f32, v_mul_f16, v_cvt_f32_bf16
    assert_eq!(first(&[0x0a08_18f8]), Operand::Constant(0x3e22_f983));
    assert_eq!(first(&[0x4408_18f8]), Operand::Constant(0x3118));
    assert_eq!(first(&[0x7e08_b6f8]), Operand::Constant(0x3e22));
}

#[test]
fn a_literal_is_widened_by_the_kind_of_its_operand() {
    let first = |words: &[u32]| inst(words).src[0];
    assert_eq!(first(&[0x7e08_30ff, 0xc000_0001]), Operand::Constant(0xc000_0001_0000_0000)); // v_ceil_f64
    assert_eq!(first(&[0x7dc2_00ff, 0xffff_fffe]), Operand::Constant(0xffff_ffff_ffff_fffe)); // v_cmp_lt_i64
    assert_eq!(first(&[0x7dd2_00ff, 0xffff_fffe]), Operand::Constant(0xffff_fffe)); // v_cmp_lt_u64
    assert_eq!(first(&[0xbe84_01ff, 0xffff_fffe]), Operand::Constant(0xffff_fffe)); // s_mov_b64
}

#[test]
fn fields_of_memory_instructions_stand_where_the_conventions_say() {
    let load = inst(&[0xe050_3010, 0x8001_0408]);
    assert_eq!(load.dst, Operand::Vector(4));
    assert_eq!(load.src, [Operand::Vector(8), Operand::None, Operand::Constant(0), Operand::Scalar(4)]);
    assert_eq!((load.imm, load.memory.offen, load.memory.idxen), (16, true, true));

    let atomic = inst(&[0xdd09_8000, 0x0cff_0408]);
    assert_eq!(
        (atomic.dst, atomic.src[0], atomic.src[1]),
        (Operand::Vector(268), Operand::Vector(8), Operand::Vector(260))
    );
    assert_eq!(atomic.src[3], Operand::None);
    let without_return = inst(&[0xdd08_8000, 0x0c7f_0408]);
    assert_eq!(without_return.dst, Operand::None);

    let scalar = inst(&[0xc002_4000, 0x0a1f_fffc]);
    assert_eq!(
        (scalar.dst, scalar.src[2], scalar.src[3], scalar.imm),
        (Operand::Scalar(0), Operand::Scalar(5), Operand::Scalar(0), -4)
    );
}

#[test]
fn carries_masks_and_modifiers_stand_where_the_conventions_say() {
    let sum = inst(&[0x3808_1908]);
    assert_eq!((sum.sdst, sum.src[3]), (Operand::Scalar(106), Operand::Scalar(106)));
    let select = inst(&[0xd100_0004, 0x000a_2108]);
    assert_eq!((select.src[2], select.src[3]), (Operand::None, Operand::Scalar(2)));
    let compare = inst(&[0xd041_0002, 0x0002_1108]);
    assert_eq!((compare.encoding, compare.dst), (Encoding::Vop3, Operand::Scalar(2)));
    let part = inst(&[0x0208_18f9, 0x0605_0608]).sdwa.unwrap();
    assert_eq!(
        (part.dst, part.unused, part.src),
        (Select::Dword, Unused::Pad, [Select::Word1, Select::Dword])
    );
    let scc = inst(&[0xbe84_00fd]);
    assert_eq!(scc.src[0], Operand::Special(Special::Scc));
    let table = inst(&[0xd234_0504, 0x9482_2108]);
    assert_eq!((table.imm, table.neg, table.abs, table.omod), (0b1010_1100, 0, 0, 0));
}

#[test]
fn what_is_reserved_is_an_error() {
    let cases: &[(&[u32], &str)] = &[
        (&[0xd480_0000, 0], "gfx950 has no instruction with the word 0xd4800000"),
        (&[0xbe80_3800], "gfx950 has no instruction with opcode 0x38 in Sop1"),
        (&[0xbe84_00d1], "s_mov_b32: a source is 0xd1, which is reserved"),
        (&[0xbe84_0105], "s_mov_b64: a scalar register is 0x5, which is reserved"),
        (&[0xd101_0004, 0x0002_00ff, 1], "v_add_f32: a source is 0xff, which is reserved"),
        (&[0x7e08_3109], "v_ceil_f64: a vector register is 0x9, which is reserved"),
        (&[0x7e08_02fa, 0xff01_0008], "v_mov_b32: DPP_CTRL is 0x100, which is reserved"),
        (&[0xbf8a_0001], "s_barrier: SIMM16 is 0x1, which is reserved"),
    ];
    for (words, message) in cases {
        assert_eq!(refused(words).to_string(), *message);
    }
}

#[test]
fn instructions_of_one_processor_are_unknown_to_the_other() {
    let xf32 = bytes(&[0xd3be_0040, 0x0582_8120]);
    assert!(decode(Processor::Gfx942, &xf32).is_ok());
    assert!(decode(Processor::Gfx950, &xf32).is_err());
    let bitop = bytes(&[0xd234_0004, 0x0482_2108]);
    assert!(decode(Processor::Gfx942, &bitop).is_err());
    assert!(decode(Processor::Gfx950, &bitop).is_ok());
}

#[test]
fn an_instruction_that_is_cut_off_says_how_many_bytes_it_needs() {
    assert_eq!(
        decode(Processor::Gfx950, &[1, 2, 3]).unwrap_err(),
        DecodeError::Truncated { needed: 4, there: 3 }
    );
    let load = bytes(&[0xc006_0500, 0x0000_0010]);
    assert_eq!(
        decode(Processor::Gfx950, &load[..6]).unwrap_err(),
        DecodeError::Truncated { needed: 8, there: 6 }
    );
    let literal = bytes(&[0xbe84_00ff]);
    assert_eq!(
        decode(Processor::Gfx942, &literal).unwrap_err(),
        DecodeError::Truncated { needed: 8, there: 4 }
    );
}

#[test]
fn no_bytes_make_the_decoder_or_the_text_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut decoded = 0;
    for _ in 0..300_000 {
        let code = [random().to_le_bytes(), random().to_le_bytes()].concat();
        let length = (random() % 17) as usize;
        for processor in [Processor::Gfx942, Processor::Gfx950] {
            if let Ok(inst) = decode(processor, &code[..length]) {
                assert!(usize::from(inst.size) <= length);
                assert!(inst.to_string().starts_with(inst.row.mnemonic));
                decoded += 1;
            }
        }
    }
    assert!(decoded > 100_000, "{decoded}");
}
