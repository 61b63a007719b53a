// Reductions over part of a warp and over a block, for warps of 32 and of 64.
#pragma once

#include <hip/hip_runtime.h>

constexpr int kLanes = 32;  // lanes that work on one group: half a warp of 64, or a warp of 32

// The maximum over the kLanes consecutive lanes that this one belongs to.
__device__ inline float lanes_max(float value) {
    for (int mask = kLanes / 2; mask > 0; mask /= 2) value = fmaxf(value, __shfl_xor(value, mask, kLanes));
    return value;
}

struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct Max {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Over a one-dimensional block of whole warps; every thread gets the result.
template <class Combine>
__device__ float block_reduce(float value, Combine combine) {
    __shared__ float of_warp[1024 / 32];
    for (int mask = warpSize / 2; mask > 0; mask /= 2) value = combine(value, __shfl_xor(value, mask));
    if (threadIdx.x % warpSize == 0) of_warp[threadIdx.x / warpSize] = value;
    __syncthreads();
    value = of_warp[0];
    for (unsigned warp = 1; warp < blockDim.x / warpSize; ++warp) value = combine(value, of_warp[warp]);
    __syncthreads();  // of_warp may be used again
    return value;
}
