// What the kernels of the zoo share. A variant is a template argument: the fault is compiled into its own kernel.
#pragma once

#include "bf16.h"
#include "launcher.h"
#include "variants.h"

constexpr int kThreads = 64;

// One thread an output, each block several times over where the grid is smaller than the work (a persistent kernel).
#define FOR_EACH_OUTPUT(index, count)                                                                   \
    for (int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x; index < static_cast<int64_t>(count); \
         index += int64_t{gridDim.x} * kThreads)

inline uint32_t blocks_for(int64_t count) { return static_cast<uint32_t>((count + kThreads - 1) / kThreads); }

// Rounded to float16, with its subnormals and its overflow to infinity.
__device__ inline float round_f16(float x) {
    const float magnitude = fabsf(x);
    if (!(magnitude < 65520.0f)) return magnitude <= INFINITY ? copysignf(INFINITY, x) : x;
    if (magnitude < 0x1p-14f) return rintf(x * 0x1p24f) * 0x1p-24f;
    const uint32_t bits = __float_as_uint(x);
    return __uint_as_float((bits + 0xfff + (bits >> 13 & 1)) & ~uint32_t{0x1fff});
}

template <typename T>
__device__ inline void exchange(T& a, T& b) {
    const T kept = a;
    a = b;
    b = kept;
}

__device__ inline float round_bf16(float x) { return to_float(to_bf16(x)); }

// The number of this launch. On a GPU the scheduler decides in which order blocks and atomics come, and no two launches
// need agree; the host runs blocks in order, so what depends on that order is drawn from this number instead.
inline int32_t launch_number() {
    static int32_t count = 0;
    return count++;
}
