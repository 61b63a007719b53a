// Weights of 4 bits, W[n, k] = (code - zero) * scale for groups of columns, in three packings of eight codes a word:
//   kAwq               codes [k, n / 8] along n in AutoAWQ's order, zeros [groups, n / 8] likewise, f16 scales [groups, n]
//   kCompressedTensors codes [n, k / 8] along k, zeros [n / 8, groups] along n, both low first, bf16 scales [n, groups]
//   kGptq              codes [k / 8, n] along k, low first, f16 scales [groups, n]; symmetric, the zero point is 8
#pragma once

#include "bf16.h"
#include "launcher.h"

enum Packing : int32_t { kAwq = 0, kCompressedTensors = 1, kGptq = 2 };

// A code's exponent and mantissa at their place in a float are too small by a power of two, subnormals too.
__device__ inline float f16_to_float(uint16_t bits) {
    uint32_t magnitude = __float_as_uint(__uint_as_float((bits & 0x7fffu) << 13) * 0x1p112f);
    if ((bits & 0x7c00) == 0x7c00) magnitude |= 0x7f800000;
    return __uint_as_float(magnitude | (bits & 0x8000u) << 16);
}

struct Int4Weight {
    const uint32_t* codes;
    const uint16_t* scales;
    const uint32_t* zeros;
    int32_t n, k, group, packing;

    // Even elements of a word are in its low half, odd ones in its high half.
    static __device__ int awq_nibble(int64_t element) { return static_cast<int>(element / 2 + element % 2 * 4); }

    __device__ float at(int64_t row, int64_t column) const {
        const int64_t g = column / group, groups = k / group;
        uint32_t code, zero;
        float scale;
        if (packing == kCompressedTensors) {
            code = codes[row * (k / 8) + column / 8] >> (4 * (column % 8)) & 0xf;
            zero = zeros[row / 8 * groups + g] >> (4 * (row % 8)) & 0xf;
            scale = to_float(bf16{scales[row * groups + g]});
        } else {
            scale = f16_to_float(scales[g * n + row]);
            if (packing == kAwq) {
                const int shift = 4 * awq_nibble(row % 8);
                code = codes[column * (n / 8) + row / 8] >> shift & 0xf;
                zero = zeros[g * (n / 8) + row / 8] >> shift & 0xf;
            } else {
                code = codes[column / 8 * n + row] >> (4 * (column % 8)) & 0xf;
                zero = 8;
            }
        }
        return static_cast<float>(static_cast<int32_t>(code) - static_cast<int32_t>(zero)) * scale;
    }
};

// GPTQ's zero points are not read: there must be none.
inline Status check_int4(const Int4Weight& w, int32_t m) {
    if (any_null(w.codes, w.scales) || m <= 0 || w.n <= 0 || w.k <= 0 || w.group <= 0) return kInvalidArgument;
    if (w.packing < kAwq || w.packing > kGptq || (w.zeros == nullptr) != (w.packing == kGptq)) return kInvalidArgument;
    return w.k % w.group == 0 && w.k % 8 == 0 && w.n % 8 == 0 ? kOk : kUnsupported;
}
