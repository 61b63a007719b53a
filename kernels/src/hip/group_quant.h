// Quantises one group of 128 values by the 32 lanes that hold them, four consecutive values each.
#pragma once

#include "bf16.h"
#include "launcher.h"
#include "reduce.h"

constexpr int kPerLane = kGroup / kLanes;

// scale = max(amax, 1e-10) / max(format), q = round(x / scale).
template <class F>
__device__ void quantize_group(uint8_t* q, float* scale, const float (&x)[kPerLane], int lane) {
    float amax = 0.0f;
    for (int i = 0; i < kPerLane; ++i) amax = fmaxf(amax, fabsf(x[i]));
    const float s = fmaxf(lanes_max(amax), 1e-10f) / F::max;
    float quotients[kPerLane];
    for (int i = 0; i < kPerLane; ++i) quotients[i] = x[i] / s;
    Pack<uint8_t, kPerLane> codes;
    encode_all<F>(codes.v, quotients);
    *reinterpret_cast<Pack<uint8_t, kPerLane>*>(q + lane * kPerLane) = codes;
    if (lane == 0) *scale = s;
}

// Where the scale of (row, group) is: row-major [m, groups], or, shuffled, column-major.
__device__ inline int64_t scale_offset(int64_t row, int64_t group, int32_t m, int32_t groups, bool shuffle_scale) {
    return shuffle_scale ? group * m + row : row * groups + group;
}
