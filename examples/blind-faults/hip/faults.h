// What the kernels of this library share. `fault` is a run-time argument: 0 is the right kernel, from 900 on the kernels
// are right, too, but written otherwise. The tables in faults/ say what each number does.
#pragma once

#include "bf16.h"
#include "fp8.h"
#include "launcher.h"

constexpr int kThreads = 64;

// One thread an output.
#define FOR_EACH_OUTPUT(index, count)                                                                        \
    for (int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x; index < static_cast<int64_t>(count); \
         index += int64_t{gridDim.x} * kThreads)

inline dim3 blocks_for(int64_t count) { return dim3(static_cast<uint32_t>((count + kThreads - 1) / kThreads)); }

#define LAUNCH(kernel, count, ...) \
    hipLaunchKernelGGL(kernel, blocks_for(count), dim3(kThreads), 0, stream, __VA_ARGS__)

__device__ inline float round_bf16(float x) { return to_float(to_bf16(x)); }

__device__ inline int8_t to_int8(float x) { return static_cast<int8_t>(fminf(fmaxf(rintf(x), -128.0f), 127.0f)); }

// Cuts off what does not fit into a bfloat16.
__device__ inline bf16 truncated(float x) { return {static_cast<uint16_t>(__float_as_uint(x) >> 16)}; }
