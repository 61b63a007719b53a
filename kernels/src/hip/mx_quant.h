// Quantises groups of 32 values by the 8 lanes that hold them, four consecutive values each.
#pragma once

#include "mx.h"

constexpr int kMxLanes = 8;
constexpr int kMxPerLane = kMxGroup / kMxLanes;
constexpr int kMxThreads = 256;

__device__ inline uint8_t encode_element(MxE4m3, float x) { return encode<E4m3fn>(x); }

// To nearest, ties to the even code, by counting the midpoints below.
__device__ inline uint8_t encode_element(E2m1, float x) {
    const float a = fabsf(x);
    const int code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) + (a >= 3.5f) + (a > 5.0f);
    return static_cast<uint8_t>(code | (signbit(x) ? 8 : 0));
}

#ifdef __gfx950__

// The codes of a lane's values, by instructions that divide by the scale: they read the exponent of a float.
__device__ inline Pack<uint8_t, kMxPerLane> encode_lane(MxE4m3, const Pack<float, kMxPerLane>& x, uint8_t scale) {
    using Halves = __attribute__((ext_vector_type(2))) short;
    const float exponent = __uint_as_float(uint32_t{scale} << 23), largest = MxE4m3::max * decode_e8m0(scale);
    float values[kMxPerLane];
    for (int i = 0; i < kMxPerLane; ++i) values[i] = saturated(x.v[i], largest);
    Halves word = {};
    word = __builtin_amdgcn_cvt_scalef32_pk_fp8_f32(word, values[0], values[1], exponent, false);
    word = __builtin_amdgcn_cvt_scalef32_pk_fp8_f32(word, values[2], values[3], exponent, true);
    return __builtin_bit_cast(Pack<uint8_t, kMxPerLane>, word);
}

__device__ inline Pack<uint8_t, kMxPerLane / 2> encode_lane(E2m1, const Pack<float, kMxPerLane>& x, uint8_t scale) {
    const float exponent = __uint_as_float(uint32_t{scale} << 23);
    uint32_t word = __builtin_amdgcn_cvt_scalef32_pk_fp4_f32(0, x.v[0], x.v[1], exponent, 0);
    word = __builtin_amdgcn_cvt_scalef32_pk_fp4_f32(word, x.v[2], x.v[3], exponent, 1);
    return __builtin_bit_cast(Pack<uint8_t, kMxPerLane / 2>, static_cast<uint16_t>(word));
}

#else

// The codes of a lane's values.
template <class E>
__device__ inline Pack<uint8_t, kMxPerLane / E::per_byte> encode_lane(E, const Pack<float, kMxPerLane>& x,
                                                                      uint8_t scale) {
    Pack<uint8_t, kMxPerLane / E::per_byte> codes = {};
    for (int i = 0; i < kMxPerLane; ++i) {
        const uint8_t code = encode_element(E{}, divide_by_e8m0(x.v[i], scale));
        codes.v[i / E::per_byte] |= static_cast<uint8_t>(code << (i % E::per_byte * 4));
    }
    return codes;
}

#endif

// `values_of(row, column)` gives the lane's values from a column on.
template <class E, class ValuesOf>
__device__ inline void mx_quantize(uint8_t* q, uint8_t* s, int64_t rows, int32_t k, int32_t rounding,
                                   bool shuffle_scale, ValuesOf values_of) {
    const int64_t index = (int64_t{blockIdx.x} * kMxThreads + threadIdx.x) / kMxLanes;
    const int32_t groups = k / kMxGroup;
    const int lane = threadIdx.x % kMxLanes;
    if (index >= rows * groups) return;
    const int64_t row = index / groups, group = index % groups;
    const int64_t column = group * kMxGroup + lane * kMxPerLane;
    const Pack<float, kMxPerLane> x = values_of(row, column);
    uint32_t amax = 0;
    for (int i = 0; i < kMxPerLane; ++i) amax = max(amax, __float_as_uint(x.v[i]) & 0x7fffffff);
    for (int mask = kMxLanes / 2; mask > 0; mask /= 2) amax = max(amax, __shfl_xor(amax, mask, kMxLanes));
    const uint8_t scale = e8m0_scale<E>(amax, rounding);
    const Pack<uint8_t, kMxPerLane / E::per_byte> codes = encode_lane(E{}, x, scale);
    *reinterpret_cast<Pack<uint8_t, kMxPerLane / E::per_byte>*>(q + (row * k + column) / E::per_byte) = codes;
    if (lane == 0) s[mx_scale_offset(row, group, groups, shuffle_scale)] = scale;
}

inline uint32_t mx_blocks(int64_t rows, int32_t k) {
    return static_cast<uint32_t>((rows * (k / kMxGroup) * kMxLanes + kMxThreads - 1) / kMxThreads);
}

inline Status check_mx(int64_t rows, int32_t k, int32_t rounding) {
    if (rows <= 0 || k <= 0 || rounding < kFloor || rounding > kEven) return kInvalidArgument;
    return k % kMxGroup == 0 ? kOk : kUnsupported;
}
