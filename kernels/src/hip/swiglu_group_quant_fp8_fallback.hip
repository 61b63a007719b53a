// swiglu_group_quant_fp8 without warp operations or vector loads: a thread per group, which computes every product
// twice. The exponential is of -|gate|, so it cannot overflow.

#include "group_quant_fallback.h"

namespace {

constexpr int kThreads = 64;

template <class F>
__global__ void swiglu_group_quant_fp8_fallback_kernel(uint8_t* q, float* s, const bf16* gate_up, int64_t total,
                                                       int32_t groups, ScaleStrides strides) {
    const int64_t index = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (index >= total) return;
    const int64_t row = index / groups, group = index % groups, k = int64_t{groups} * kGroup;
    const bf16* gate = gate_up + row * 2 * k + group * kGroup;
    const bf16* up = gate + k;
    quantize_group_serial<F>(q + index * kGroup, s + row * strides.row + group * strides.group, [=](int i) {
        const float x = to_float(gate[i]);
        const float e = expf(-fabsf(x));
        return x * (x < 0.0f ? e : 1.0f) / (1.0f + e) * to_float(up[i]);
    });
}

}  // namespace

LAUNCHER swiglu_group_quant_fp8_fallback(uint8_t* q, float* s, const bf16* gate_up, int32_t m, int32_t k,
                                         int32_t format, bool shuffle_scale, hipStream_t stream) {
    if (any_null(q, s, gate_up)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    const int32_t groups = k / kGroup;
    const int64_t total = int64_t{m} * groups;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(swiglu_group_quant_fp8_fallback_kernel<decltype(f)>,
                           dim3(static_cast<uint32_t>((total + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream,
                           q, s, gate_up, total, groups, ScaleStrides(m, groups, shuffle_scale));
    });
}

ACCURACY_BOUND(swiglu_group_quant_fp8_fallback);
