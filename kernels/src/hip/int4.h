// Weights of 4 bits with zero points, W[n, k] = (code - zero) * scale for groups of columns, in two packings of eight
// codes a word:
//   kAwq               codes [k, n / 8] along n in AutoAWQ's order, zeros [groups, n / 8] likewise, scales [groups, n]
//   kCompressedTensors codes [n, k / 8] along k, zeros [n / 8, groups] along n, both low first, scales [n, groups]
#pragma once

#include "bf16.h"
#include "launcher.h"

enum Packing : int32_t { kAwq = 0, kCompressedTensors = 1 };

struct Int4Weight {
    const uint32_t* codes;
    const bf16* scales;
    const uint32_t* zeros;
    int32_t n, k, group, packing;

    // Even elements of a word are in its low half, odd ones in its high half.
    static __device__ int awq_nibble(int64_t element) { return static_cast<int>(element / 2 + element % 2 * 4); }

    __device__ float at(int64_t row, int64_t column) const {
        const int64_t g = column / group, groups = k / group;
        uint32_t code, zero;
        float scale;
        if (packing == kAwq) {
            const int shift = 4 * awq_nibble(row % 8);
            code = codes[column * (n / 8) + row / 8] >> shift & 0xf;
            zero = zeros[g * (n / 8) + row / 8] >> shift & 0xf;
            scale = to_float(scales[g * n + row]);
        } else {
            code = codes[row * (k / 8) + column / 8] >> (4 * (column % 8)) & 0xf;
            zero = zeros[row / 8 * groups + g] >> (4 * (row % 8)) & 0xf;
            scale = to_float(scales[row * groups + g]);
        }
        return static_cast<float>(static_cast<int32_t>(code) - static_cast<int32_t>(zero)) * scale;
    }
};

inline Status check_int4(int32_t m, int32_t n, int32_t k, int32_t group, int32_t packing) {
    if (m <= 0 || n <= 0 || k <= 0 || group <= 0) return kInvalidArgument;
    if (packing != kAwq && packing != kCompressedTensors) return kInvalidArgument;
    return k % group == 0 && k % 8 == 0 && n % 8 == 0 ? kOk : kUnsupported;
}
