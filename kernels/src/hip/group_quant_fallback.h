// Quantises one group of 128 values by one thread, in two passes over the source.
#pragma once

#include "bf16.h"
#include "launcher.h"

// `value_at(i)` gives the group's i-th value.
template <class F, class ValueAt>
__device__ void quantize_group_serial(uint8_t* q, float* scale, ValueAt value_at) {
    float amax = 1e-10f;
    for (int i = 0; i < kGroup; ++i) {
        const float magnitude = fabsf(value_at(i));
        if (magnitude > amax) amax = magnitude;
    }
    *scale = amax / F::max;
    for (int i = 0; i < kGroup; ++i) q[i] = encode_by_steps<F>(value_at(i) / *scale);
}

// Distances between the scales of neighbouring rows and neighbouring groups.
struct ScaleStrides {
    int64_t row, group;
    ScaleStrides(int32_t m, int32_t groups, bool shuffle_scale)
        : row(shuffle_scale ? 1 : groups), group(shuffle_scale ? m : 1) {}
};
