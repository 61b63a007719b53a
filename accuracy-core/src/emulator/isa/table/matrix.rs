//! Packed vector instructions, and matrix instructions.

use super::rows;

rows! {
    VOP3P Vop3p
    0x000 v_pk_mad_i16 both [Dst PkI16, Src PkI16, Src PkI16, Src PkI16];
    0x001 v_pk_mul_lo_u16 both [Dst PkU16, Src PkU16, Src PkU16];
    0x002 v_pk_add_i16 both [Dst PkI16, Src PkI16, Src PkI16];
    0x003 v_pk_sub_i16 both [Dst PkI16, Src PkI16, Src PkI16];
    0x004 v_pk_lshlrev_b16 both [Dst PkU16, Src PkU16, Src PkU16];
    0x005 v_pk_lshrrev_b16 both [Dst PkU16, Src PkU16, Src PkU16];
    0x006 v_pk_ashrrev_i16 both [Dst PkI16, Src PkU16, Src PkI16];
    0x007 v_pk_max_i16 both [Dst PkI16, Src PkI16, Src PkI16];
    0x008 v_pk_min_i16 both [Dst PkI16, Src PkI16, Src PkI16];
    0x009 v_pk_mad_u16 both [Dst PkU16, Src PkU16, Src PkU16, Src PkU16];
    0x00a v_pk_add_u16 both [Dst PkU16, Src PkU16, Src PkU16];
    0x00b v_pk_sub_u16 both [Dst PkU16, Src PkU16, Src PkU16];
    0x00c v_pk_max_u16 both [Dst PkU16, Src PkU16, Src PkU16];
    0x00d v_pk_min_u16 both [Dst PkU16, Src PkU16, Src PkU16];
    0x00e v_pk_fma_f16 both [Dst PkF16, Src PkF16, Src PkF16, Src PkF16];
    0x00f v_pk_add_f16 both [Dst PkF16, Src PkF16, Src PkF16];
    0x010 v_pk_mul_f16 both [Dst PkF16, Src PkF16, Src PkF16];
    0x011 v_pk_min_f16 both [Dst PkF16, Src PkF16, Src PkF16];
    0x012 v_pk_max_f16 both [Dst PkF16, Src PkF16, Src PkF16];
    0x01a v_dot2_f32_bf16 gfx950 [Dst F32, Src PkBF16, Src PkBF16, Src F32];
    0x01b v_pk_minimum3_f16 gfx950 [Dst PkF16, Src PkF16, Src PkF16, Src PkF16];
    0x01c v_pk_maximum3_f16 gfx950 [Dst PkF16, Src PkF16, Src PkF16, Src PkF16];
    0x020 v_fma_mix_f32 both [Dst F32, Src F32, Src F32, Src F32];
    0x021 v_fma_mixlo_f16 both [DstSrc F16, Src F32, Src F32, Src F32];
    0x022 v_fma_mixhi_f16 both [DstSrc F16, Src F32, Src F32, Src F32];
    0x023 v_dot2_f32_f16 both [Dst F32, Src PkF16, Src PkF16, Src F32];
    0x026 v_dot2_i32_i16 both [Dst I32, Src PkI16, Src PkI16, Src I32];
    0x027 v_dot2_u32_u16 both [Dst U32, Src PkU16, Src PkU16, Src U32];
    0x028 v_dot4_i32_i8 both [Dst I32, Src I32, Src I32, Src I32];
    0x029 v_dot4_u32_u8 both [Dst U32, Src U32, Src U32, Src U32];
    0x02a v_dot8_i32_i4 both [Dst I32, Src I32, Src I32, Src I32];
    0x02b v_dot8_u32_u4 both [Dst U32, Src U32, Src U32, Src U32];
    0x02c v_mfma_ld_scale_b32 gfx950 [Src B32, Src B32];
    0x030 v_pk_fma_f32 both [Dst PkF32, Src PkF32, Src PkF32, Src PkF32];
    0x031 v_pk_mul_f32 both [Dst PkF32, Src PkF32, Src PkF32];
    0x032 v_pk_add_f32 both [Dst PkF32, Src PkF32, Src PkF32];
    0x033 v_pk_mov_b32 both [Dst PkB32, Src PkB32, Src PkB32];
}

rows! {
    MAI Mai
    0x02d v_mfma_f32_16x16x128_f8f6f4 gfx950 [Dst B128, Src B256, Src B256, Src B128];
    0x02e v_mfma_f32_32x32x64_f8f6f4 gfx950 [Dst B512, Src B256, Src B256, Src B512];
    0x035 v_mfma_f32_16x16x32_bf16 gfx950 [Dst B128, Src B128, Src B128, Src B128];
    0x036 v_mfma_i32_16x16x64_i8 gfx950 [Dst B128, Src B128, Src B128, Src B128];
    0x037 v_mfma_f32_32x32x16_bf16 gfx950 [Dst B512, Src B128, Src B128, Src B512];
    0x038 v_mfma_i32_32x32x32_i8 gfx950 [Dst B512, Src B128, Src B128, Src B512];
    0x039 v_smfmac_f32_16x16x64_bf16 gfx950 [DstSrc B128, Src B128, Src B256, Src B32];
    0x03a v_smfmac_i32_16x16x128_i8 gfx950 [DstSrc B128, Src B128, Src B256, Src B32];
    0x03b v_smfmac_f32_16x16x128_bf8_bf8 gfx950 [DstSrc B128, Src B128, Src B256, Src B32];
    0x03c v_smfmac_f32_16x16x128_bf8_fp8 gfx950 [DstSrc B128, Src B128, Src B256, Src B32];
    0x03d v_smfmac_f32_16x16x128_fp8_bf8 gfx950 [DstSrc B128, Src B128, Src B256, Src B32];
    0x03e v_mfma_f32_16x16x8_xf32 gfx942 [Dst B128, Src B64, Src B64, Src B128];
    0x03f v_mfma_f32_32x32x4_xf32 gfx942 [Dst B512, Src B64, Src B64, Src B512];
    0x040 v_mfma_f32_32x32x1_2b_f32 both [Dst B1024, Src F32, Src F32, Src B1024];
    0x041 v_mfma_f32_16x16x1_4b_f32 both [Dst B512, Src F32, Src F32, Src B512];
    0x042 v_mfma_f32_4x4x1_16b_f32 both [Dst B128, Src F32, Src F32, Src B128];
    0x043 v_smfmac_f32_16x16x128_fp8_fp8 gfx950 [DstSrc B128, Src B128, Src B256, Src B32];
    0x044 v_mfma_f32_32x32x2_f32 both [Dst B512, Src F32, Src F32, Src B512];
    0x045 v_mfma_f32_16x16x4_f32 both [Dst B128, Src F32, Src F32, Src B128];
    0x046 v_smfmac_f32_32x32x32_bf16 gfx950 [DstSrc B512, Src B128, Src B256, Src B32];
    0x047 v_smfmac_i32_32x32x64_i8 gfx950 [DstSrc B512, Src B128, Src B256, Src B32];
    0x048 v_mfma_f32_32x32x4_2b_f16 both [Dst B1024, Src B64, Src B64, Src B1024];
    0x049 v_mfma_f32_16x16x4_4b_f16 both [Dst B512, Src B64, Src B64, Src B512];
    0x04a v_mfma_f32_4x4x4_16b_f16 both [Dst B128, Src B64, Src B64, Src B128];
    0x04b v_smfmac_f32_32x32x64_bf8_bf8 gfx950 [DstSrc B512, Src B128, Src B256, Src B32];
    0x04c v_mfma_f32_32x32x8_f16 both [Dst B512, Src B64, Src B64, Src B512];
    0x04d v_mfma_f32_16x16x16_f16 both [Dst B128, Src B64, Src B64, Src B128];
    0x04e v_smfmac_f32_32x32x64_bf8_fp8 gfx950 [DstSrc B512, Src B128, Src B256, Src B32];
    0x04f v_smfmac_f32_32x32x64_fp8_bf8 gfx950 [DstSrc B512, Src B128, Src B256, Src B32];
    0x050 v_mfma_i32_32x32x4_2b_i8 both [Dst B1024, Src I32, Src I32, Src B1024];
    0x051 v_mfma_i32_16x16x4_4b_i8 both [Dst B512, Src I32, Src I32, Src B512];
    0x052 v_mfma_i32_4x4x4_16b_i8 both [Dst B128, Src I32, Src I32, Src B128];
    0x053 v_smfmac_f32_32x32x64_fp8_fp8 gfx950 [DstSrc B512, Src B128, Src B256, Src B32];
    0x054 v_mfma_f32_16x16x32_f16 gfx950 [Dst B128, Src B128, Src B128, Src B128];
    0x055 v_mfma_f32_32x32x16_f16 gfx950 [Dst B512, Src B128, Src B128, Src B512];
    0x056 v_mfma_i32_32x32x16_i8 both [Dst B512, Src B64, Src B64, Src B512];
    0x057 v_mfma_i32_16x16x32_i8 both [Dst B128, Src B64, Src B64, Src B128];
    0x058 v_accvgpr_read_b32 both [Dst B32, Src B32];
    0x059 v_accvgpr_write_b32 both [Dst B32, Src B32];
    0x05a v_smfmac_f32_16x16x64_f16 gfx950 [DstSrc B128, Src B128, Src B256, Src B32];
    0x05b v_smfmac_f32_32x32x32_f16 gfx950 [DstSrc B512, Src B128, Src B256, Src B32];
    0x05d v_mfma_f32_32x32x4_2b_bf16 both [Dst B1024, Src B64, Src B64, Src B1024];
    0x05e v_mfma_f32_16x16x4_4b_bf16 both [Dst B512, Src B64, Src B64, Src B512];
    0x05f v_mfma_f32_4x4x4_16b_bf16 both [Dst B128, Src B64, Src B64, Src B128];
    0x060 v_mfma_f32_32x32x8_bf16 both [Dst B512, Src B64, Src B64, Src B512];
    0x061 v_mfma_f32_16x16x16_bf16 both [Dst B128, Src B64, Src B64, Src B128];
    0x062 v_smfmac_f32_16x16x32_f16 both [DstSrc B128, Src B64, Src B128, Src B32];
    0x064 v_smfmac_f32_32x32x16_f16 both [DstSrc B512, Src B64, Src B128, Src B32];
    0x066 v_smfmac_f32_16x16x32_bf16 both [DstSrc B128, Src B64, Src B128, Src B32];
    0x068 v_smfmac_f32_32x32x16_bf16 both [DstSrc B512, Src B64, Src B128, Src B32];
    0x06a v_smfmac_i32_16x16x64_i8 both [DstSrc B128, Src B64, Src B128, Src B32];
    0x06c v_smfmac_i32_32x32x32_i8 both [DstSrc B512, Src B64, Src B128, Src B32];
    0x06e v_mfma_f64_16x16x4_f64 both [Dst F64x4, Src F64, Src F64, Src F64x4];
    0x06f v_mfma_f64_4x4x4_4b_f64 both [Dst F64, Src F64, Src F64, Src F64];
    0x070 v_mfma_f32_16x16x32_bf8_bf8 both [Dst B128, Src B64, Src B64, Src B128];
    0x071 v_mfma_f32_16x16x32_bf8_fp8 both [Dst B128, Src B64, Src B64, Src B128];
    0x072 v_mfma_f32_16x16x32_fp8_bf8 both [Dst B128, Src B64, Src B64, Src B128];
    0x073 v_mfma_f32_16x16x32_fp8_fp8 both [Dst B128, Src B64, Src B64, Src B128];
    0x074 v_mfma_f32_32x32x16_bf8_bf8 both [Dst B512, Src B64, Src B64, Src B512];
    0x075 v_mfma_f32_32x32x16_bf8_fp8 both [Dst B512, Src B64, Src B64, Src B512];
    0x076 v_mfma_f32_32x32x16_fp8_bf8 both [Dst B512, Src B64, Src B64, Src B512];
    0x077 v_mfma_f32_32x32x16_fp8_fp8 both [Dst B512, Src B64, Src B64, Src B512];
    0x078 v_smfmac_f32_16x16x64_bf8_bf8 both [DstSrc B128, Src B64, Src B128, Src B32];
    0x079 v_smfmac_f32_16x16x64_bf8_fp8 both [DstSrc B128, Src B64, Src B128, Src B32];
    0x07a v_smfmac_f32_16x16x64_fp8_bf8 both [DstSrc B128, Src B64, Src B128, Src B32];
    0x07b v_smfmac_f32_16x16x64_fp8_fp8 both [DstSrc B128, Src B64, Src B128, Src B32];
    0x07c v_smfmac_f32_32x32x32_bf8_bf8 both [DstSrc B512, Src B64, Src B128, Src B32];
    0x07d v_smfmac_f32_32x32x32_bf8_fp8 both [DstSrc B512, Src B64, Src B128, Src B32];
    0x07e v_smfmac_f32_32x32x32_fp8_bf8 both [DstSrc B512, Src B64, Src B128, Src B32];
    0x07f v_smfmac_f32_32x32x32_fp8_fp8 both [DstSrc B512, Src B64, Src B128, Src B32];
}

rows! {
    VOP3PX2 Vop3px2
    0x02d v_mfma_scale_f32_16x16x128_f8f6f4 gfx950 [Dst B128, Src B256, Src B256, Src B128, Src B32, Src B32];
    0x02e v_mfma_scale_f32_32x32x64_f8f6f4 gfx950 [Dst B512, Src B256, Src B256, Src B512, Src B32, Src B32];
}
