// group_quant_fp8 without warp operations or vector loads: a thread per group.

#include "group_quant_fallback.h"

namespace {

constexpr int kThreads = 64;

template <class F>
__global__ void group_quant_fp8_fallback_kernel(uint8_t* q, float* s, const bf16* x, int64_t total, int32_t groups,
                                                ScaleStrides strides) {
    const int64_t index = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (index >= total) return;
    const bf16* source = x + index * kGroup;
    quantize_group_serial<F>(q + index * kGroup, s + index / groups * strides.row + index % groups * strides.group,
                             [=](int i) { return to_float(source[i]); });
}

}  // namespace

LAUNCHER group_quant_fp8_fallback(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k, int32_t format,
                                  bool shuffle_scale, hipStream_t stream) {
    if (any_null(q, s, x)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    const int32_t groups = k / kGroup;
    const int64_t total = int64_t{m} * groups;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(group_quant_fp8_fallback_kernel<decltype(f)>,
                           dim3(static_cast<uint32_t>((total + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream,
                           q, s, x, total, groups, ScaleStrides(m, groups, shuffle_scale));
    });
}

ACCURACY_BOUND(group_quant_fp8_fallback);
