// Dynamic quantisation of activations to fp8 with a scale per token and group of 128: bf16 [m, k] to codes [m, k] and
// f32 scales [m, k / 128], column-major where shuffle_scale.

#include "group_quant.h"

namespace {

constexpr int kGroupsPerBlock = 4;

template <class F>
__global__ __launch_bounds__(kGroupsPerBlock* kLanes) void group_quant_fp8_kernel(uint8_t* q, float* s, const bf16* x,
                                                                                  int32_t m, int32_t groups,
                                                                                  bool shuffle_scale) {
    const int64_t row = blockIdx.x;
    const int32_t group = blockIdx.y * kGroupsPerBlock + threadIdx.x / kLanes;
    const int lane = threadIdx.x % kLanes;
    if (group >= groups) return;
    const int64_t first = (row * groups + group) * kGroup;
    const Pack<bf16, kPerLane> packed = load<kPerLane>(x + first + lane * kPerLane);
    float values[kPerLane];
    for (int i = 0; i < kPerLane; ++i) values[i] = to_float(packed.v[i]);
    quantize_group<F>(q + first, s + scale_offset(row, group, m, groups, shuffle_scale), values, lane);
}

}  // namespace

LAUNCHER group_quant_fp8(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k, int32_t format,
                         bool shuffle_scale, hipStream_t stream) {
    if (any_null(q, s, x)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    if (!is_aligned(x, sizeof(Pack<bf16, kPerLane>)) || !is_aligned(q, kPerLane)) return kUnsupported;
    const int32_t groups = k / kGroup;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(group_quant_fp8_kernel<decltype(f)>, dim3(m, ceil_div(groups, kGroupsPerBlock)),
                           dim3(kGroupsPerBlock * kLanes), 0, stream, q, s, x, m, groups, shuffle_scale);
    });
}

ACCURACY_BOUND(group_quant_fp8);
