// Per-token group quantisation to fp8 e4m3fn: bf16 x [m, k] to q [m, k] and a float scale for each group of 128.

#include "common.h"

constexpr int kWave = 64;

// One wave per group. Scales are [m, k / 128], or [k / 128, m] where shuffle_scale.
__global__ void group_quant_kernel(uint8_t* q, float* s, const bf16* x, int m, int k, bool shuffle_scale) {
    const int row = blockIdx.x, group = blockIdx.y, groups = k / kGroup;
    const int64_t first = int64_t{row} * k + group * kGroup;
    float amax = 0.0f;
    for (int i = threadIdx.x; i < kGroup; i += kWave) amax = fmaxf(amax, fabsf(to_float(x[first + i])));
    for (int mask = kWave / 2; mask > 0; mask /= 2) amax = fmaxf(amax, __shfl_xor(amax, mask));
    const float scale = fmaxf(amax, 1e-10f) / kFp8Max;
    for (int i = threadIdx.x; i < kGroup; i += kWave) q[first + i] = to_fp8(to_float(x[first + i]) / scale);
    if (threadIdx.x == 0) s[shuffle_scale ? int64_t{group} * m + row : int64_t{row} * groups + group] = scale;
}

// For devices without the wave kernel: one thread per group.
__global__ void group_quant_fallback_kernel(uint8_t* q, float* s, const bf16* x, int64_t groups) {
    const int64_t group = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (group >= groups) return;
    x += group * kGroup;
    q += group * kGroup;
    float amax = 1e-10f;
    for (int i = 0; i < kGroup; ++i) amax = fmaxf(amax, fabsf(to_float(x[i])));
    s[group] = amax / kFp8Max;
    for (int i = 0; i < kGroup; ++i) q[i] = to_fp8(to_float(x[i]) / s[group]);
}

LAUNCHER group_quant_fp8(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k, bool shuffle_scale,
                         hipStream_t stream) {
    if (!q || !s || !x || m <= 0 || k <= 0) return kInvalidArgument;
    if (k % kGroup != 0) return kUnsupported;
    hipLaunchKernelGGL(group_quant_kernel, dim3(m, k / kGroup), dim3(kWave), 0, stream, q, s, x, m, k,
                       shuffle_scale);
    return launch_status();
}

LAUNCHER group_quant_fp8_fallback(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k, bool shuffle_scale,
                                  hipStream_t stream) {
    if (!q || !s || !x || m <= 0 || k <= 0) return kInvalidArgument;
    if (k % kGroup != 0) return kUnsupported;
    const int64_t groups = int64_t{m} * (k / kGroup);
    hipLaunchKernelGGL(group_quant_fallback_kernel, dim3((groups + 63) / 64), dim3(64), 0, stream, q, s, x, groups);
    return launch_status();
}
