// Products on the matrix cores of gfx942 and gfx950: 16 rows of X times 16 rows of W, over kMfmaK elements of K, added to
// four float32 sums a lane. HAS_MFMA says whether the code is compiled for such a device.
//
// Lane l holds row l % 16 of X and of W, elements kMfmaK / 4 * (l / 16) on of K; of the product it holds column l % 16,
// rows 4 * (l / 16) to 4 * (l / 16) + 3. Source: AMD's CDNA3 ISA, "Matrix Arithmetic Instructions", and, for gfx950, LLVM's
// user guide for the AMDGPU backend.
#pragma once

#include "bf16.h"
#include "fp8.h"

#if defined(__gfx942__) || defined(__gfx950__)
#define HAS_MFMA 1

using Sums = __attribute__((ext_vector_type(4))) float;

constexpr int kMfmaTile = 16;  // rows of X, and of W, that one instruction multiplies
constexpr int kLanes = 64;

// The instruction's own name for a format, and whether the device has it.
template <class F>
struct MatrixFormat {
    static constexpr bool native = false;
    static constexpr int code = 0;
};

#if defined(__gfx950__)
constexpr int kMfmaK = 128;
using Codes = __attribute__((ext_vector_type(8))) int;  // 32 codes of a lane

template <>
struct MatrixFormat<E4m3fn> {
    static constexpr bool native = true;
    static constexpr int code = 0;
};
template <>
struct MatrixFormat<E5m2> {
    static constexpr bool native = true;
    static constexpr int code = 1;
};

template <class F>
__device__ inline Sums multiply_fp8(Codes x, Codes w, Sums sums) {
    constexpr int format = MatrixFormat<F>::code;
    // The scales are 1: code 127 of e8m0 in each byte.
    return __builtin_amdgcn_mfma_scale_f32_16x16x128_f8f6f4(x, w, sums, format, format, 0, 0x7f7f7f7f, 0, 0x7f7f7f7f);
}
#else
constexpr int kMfmaK = 32;
using Codes = long;  // 8 codes of a lane

template <>
struct MatrixFormat<E4m3fnuz> {
    static constexpr bool native = true;
    static constexpr int code = 0;
};
template <>
struct MatrixFormat<E5m2fnuz> {
    static constexpr bool native = true;
    static constexpr int code = 1;
};

template <class F>
__device__ inline Sums multiply_fp8(Codes x, Codes w, Sums sums) {
    if constexpr (MatrixFormat<F>::code == 1) return __builtin_amdgcn_mfma_f32_16x16x32_bf8_bf8(x, w, sums, 0, 0, 0);
    return __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(x, w, sums, 0, 0, 0);
}
#endif
#endif
