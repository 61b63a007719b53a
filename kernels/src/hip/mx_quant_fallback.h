// Quantises a group of 32 values by one thread, in two passes over the source.
#pragma once

#include "mx.h"

constexpr int kMxThreads = 64;

// The code by arithmetic: how many steps of its binade is the value away from zero?
template <class E>
__device__ inline uint8_t encode_mx_by_steps(float x) {
    constexpr uint32_t sign_bit = E::per_byte == 2 ? 8 : 0x80;
    if (isnan(x)) return E::per_byte == 2 ? 0 : 0x7f;
    const float magnitude = fminf(fabsf(x), E::max);
    const int exponent = max(ilogbf(magnitude), 1 - E::bias);
    const int steps = static_cast<int>(rintf(ldexpf(magnitude, E::mantissa - exponent)));
    const uint32_t code = static_cast<uint32_t>(((exponent + E::bias - 1) << E::mantissa) + steps);
    return static_cast<uint8_t>(code | (signbit(x) ? sign_bit : 0));
}

// `value_at(row, column)` gives one value.
template <class E, class ValueAt>
__device__ inline void mx_quantize_serial(uint8_t* q, uint8_t* s, int64_t rows, int32_t k, int32_t rounding,
                                          bool shuffle_scale, ValueAt value_at) {
    const int32_t groups = k / kMxGroup;
    const int64_t index = int64_t{blockIdx.x} * kMxThreads + threadIdx.x;
    if (index >= rows * groups) return;
    const int64_t row = index / groups, group = index % groups, first = group * kMxGroup;
    uint32_t amax = 0;
    for (int i = 0; i < kMxGroup; ++i) {
        const uint32_t magnitude = __float_as_uint(value_at(row, first + i)) & 0x7fffffff;
        if (magnitude > amax) amax = magnitude;
    }
    const uint8_t scale = e8m0_scale<E>(amax, rounding);
    s[mx_scale_offset(row, group, groups, shuffle_scale)] = scale;
    for (int i = 0; i < kMxGroup; i += E::per_byte) {
        uint32_t byte = 0;
        for (int j = 0; j < E::per_byte; ++j) {
            byte |= uint32_t{encode_mx_by_steps<E>(divide_by_e8m0(value_at(row, first + i + j), scale))} << (4 * j);
        }
        q[(row * k + first + i) / E::per_byte] = static_cast<uint8_t>(byte);
    }
}

inline uint32_t mx_blocks(int64_t rows, int32_t k) {
    return static_cast<uint32_t>((rows * (k / kMxGroup) + kMxThreads - 1) / kMxThreads);
}

inline Status check_mx(int64_t rows, int32_t k, int32_t rounding) {
    if (rows <= 0 || k <= 0 || rounding < kFloor || rounding > kEven) return kInvalidArgument;
    return k % kMxGroup == 0 ? kOk : kUnsupported;
}
