// MX formats (OCP Microscaling Formats 1.0): groups of 32 elements along K share an e8m0 scale, 2^(code - 127).
#pragma once

#include "bf16.h"
#include "launcher.h"

constexpr int32_t kMxGroup = 32;
constexpr uint8_t kE8m0One = 127;  // the code of 1

// Element formats. e2m1 has ±{0, 0.5, 1, 1.5, 2, 3, 4, 6} and is packed two a byte, the first in the low nibble.
struct E2m1 {
    static constexpr int mantissa = 1, bias = 1, max_exponent = 2;
    static constexpr float max = 6.0f;
    static constexpr int per_byte = 2;
};
struct MxE4m3 : E4m3fn {
    static constexpr int max_exponent = 8;
    static constexpr int per_byte = 1;
};

// How the exact scale is rounded to a power of two: producers differ.
enum ScaleRounding : int32_t {
    kFloor = 0,  // 2^(floor(log2(amax)) - max_exponent), OCP MX section 6.3: large elements saturate
    kCeil = 1,   // 2^ceil(log2(amax / max))
    kEven = 2,   // kFloor, of amax rounded half up to the element's significand
};

__device__ inline float decode_e2m1(uint32_t code) {
    const uint32_t magnitude = code & 7;
    // Exponent and mantissa at their place in a float; a power of two makes up for the bias, in subnormals too.
    const float value = __uint_as_float(magnitude << 22) * __uint_as_float(uint32_t{127 + 127 - E2m1::bias} << 23);
    return code & 8 ? -value : value;
}

__device__ inline float decode_e8m0(uint8_t code) {
    if (code == 0xff) return __uint_as_float(0x7fc00000);
    return __uint_as_float(code == 0 ? 0x00400000 : uint32_t{code} << 23);
}

// The scale's code from the bits of the largest magnitude; as integers NaN and infinity are larger than any number.
template <class E>
__device__ inline uint8_t e8m0_scale(uint32_t amax, int32_t rounding) {
    if (amax >= 0x7f800000) return 0xff;
    if (rounding == kEven) amax += 1u << (23 - E::mantissa - 1);
    int32_t code = static_cast<int32_t>(amax >> 23) - E::max_exponent;
    const uint32_t fraction_of_max = __float_as_uint(E::max) & 0x7fffff;
    if (rounding == kCeil && (amax & 0x7fffff) > fraction_of_max) ++code;
    return static_cast<uint8_t>(max(0, min(code, 254)));
}

// x divided by the scale: a product with a power of two, exact but for underflow.
__device__ inline float divide_by_e8m0(float x, uint8_t scale) { return ldexpf(x, 127 - scale); }

// The tile of 32 rows and 8 groups that V_MFMA_SCALE_F32_16X16X128 reads; the buffer is padded to 256 rows and 8
// groups, and its padding is not written.
__device__ inline int64_t swizzled(int64_t row, int64_t group, int32_t groups) {
    const int64_t padded = (int64_t{groups} + 7) / 8 * 8;
    return row / 32 * 32 * padded + group / 8 * 256 + group % 4 * 64 + row % 16 * 4 + group % 8 / 4 * 2 +
           row % 32 / 16;
}

__device__ inline int64_t mx_scale_offset(int64_t row, int64_t group, int32_t groups, bool shuffle_scale) {
    return shuffle_scale ? swizzled(row, group, groups) : row * groups + group;
}
