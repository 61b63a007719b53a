// The matrix instructions of gfx942 and gfx950 that this library uses, in one form: 16 rows of X times 16 rows of W,
// the products of a step along K added to four sums a lane. HAS_MFMA says whether the code is compiled for such a
// device.
//
// Lane l has row l % 16 of X and of W. Of each step of a row, which is kStepBytes long, quarter l / 16 is the lane's
// fragment. Of the product the lane holds column l % 16, rows 4 * (l / 16) to 4 * (l / 16) + 3.
// Sources: AMD's CDNA3 ISA, "Matrix Arithmetic Instructions", and its matrix instruction calculator; for gfx950 AMD's
// blog "Matrix Core Programming on AMD CDNA3 and CDNA4 architecture".
#pragma once

#include "bf16.h"
#include "fp8.h"

#if defined(__gfx942__) || defined(__gfx950__)
#define HAS_MFMA 1

using Sums = __attribute__((ext_vector_type(4))) float;
using IntSums = __attribute__((ext_vector_type(4))) int;

constexpr int kWave = 64;
constexpr int kMfmaTile = 16;  // rows of X, and of W, that one instruction multiplies

#if defined(__gfx950__)
using Fragment = __attribute__((ext_vector_type(4))) int;
#else
using Fragment = long;
#endif

constexpr int kFragmentBytes = sizeof(Fragment);
constexpr int kStepBytes = 4 * kFragmentBytes;

// The row that this lane has of 16, and its quarter.
__device__ inline int lane_row() { return threadIdx.x % kMfmaTile; }
__device__ inline int lane_quarter() { return threadIdx.x % kWave / kMfmaTile; }

// This lane's part of the step of a row that begins here.
__device__ inline Fragment fragment(const uint8_t* step) {
    return *reinterpret_cast<const Fragment*>(step + lane_quarter() * kFragmentBytes);
}

#if defined(__gfx950__)
constexpr int kE2m1Code = 4;  // the instructions' number of e2m1, as DeviceFormat has those of fp8

// An operand of the instructions for 128 elements of 8 bits and less.
using Codes = __attribute__((ext_vector_type(8))) int;

// Of 128 codes of 8 bits, which are two steps, a lane has its fragments of both.
__device__ inline Codes codes_of_8_bits(const uint8_t* row) {
    const Fragment a = fragment(row), b = fragment(row + kStepBytes);
    return {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
}

// 128 codes of 4 bits are one step.
__device__ inline Codes codes_of_4_bits(const uint8_t* row) {
    const Fragment a = fragment(row);
    return {a.x, a.y, a.z, a.w, 0, 0, 0, 0};
}

// With a scale for each row and 32 elements of K: e8m0, of row l % 16 and group l / 16 in lane l, in byte XByte and
// WByte.
template <int Code, int XByte, int WByte>
__device__ inline Sums multiply_scaled(Codes x, int x_scales, Codes w, int w_scales, Sums sums) {
    return __builtin_amdgcn_mfma_scale_f32_16x16x128_f8f6f4(x, w, sums, Code, Code, XByte, x_scales, WByte, w_scales);
}

constexpr int kFp8Bytes = 128;  // of a row, for one instruction

template <class F>
__device__ inline Sums multiply_fp8(const uint8_t* x, const uint8_t* w, Sums sums) {
    // 127 is e8m0's code of 1.
    constexpr int ones = 0x7f7f7f7f;
    return multiply_scaled<DeviceFormat<F>::code, 0, 0>(codes_of_8_bits(x), ones, codes_of_8_bits(w), ones, sums);
}

__device__ inline Fragment ones_of_int8() { return 0x01010101; }

__device__ inline IntSums multiply_int8(Fragment x, Fragment w, IntSums sums) {
    return __builtin_amdgcn_mfma_i32_16x16x64_i8(x, w, sums, 0, 0, 0);
}

__device__ inline Sums multiply_bf16(Fragment x, Fragment w, Sums sums) {
    using Values = __attribute__((ext_vector_type(8))) __bf16;
    const Values a = __builtin_bit_cast(Values, x), b = __builtin_bit_cast(Values, w);
    return __builtin_amdgcn_mfma_f32_16x16x32_bf16(a, b, sums, 0, 0, 0);
}
#else
constexpr int kFp8Bytes = kStepBytes;  // of a row, for one instruction

template <class F>
__device__ inline Sums multiply_fp8(const uint8_t* x, const uint8_t* w, Sums sums) {
    if constexpr (DeviceFormat<F>::code == 1) {
        return __builtin_amdgcn_mfma_f32_16x16x32_bf8_bf8(fragment(x), fragment(w), sums, 0, 0, 0);
    } else {
        return __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(fragment(x), fragment(w), sums, 0, 0, 0);
    }
}

__device__ inline Fragment ones_of_int8() { return 0x0101010101010101; }

__device__ inline IntSums multiply_int8(Fragment x, Fragment w, IntSums sums) {
    return __builtin_amdgcn_mfma_i32_16x16x32_i8(x, w, sums, 0, 0, 0);
}

__device__ inline Sums multiply_bf16(Fragment x, Fragment w, Sums sums) {
    using Values = __attribute__((ext_vector_type(4))) short;
    const Values a = __builtin_bit_cast(Values, x), b = __builtin_bit_cast(Values, w);
    return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, sums, 0, 0, 0);
}
#endif
#endif
