// Fused SwiGLU and group quantisation: silu(gate) · up in float32, then quantised as group_quant_fp8 does.
// gate_up is bf16 [m, 2k]: a row holds its gate, then its up.

#include "group_quant.h"

namespace {

constexpr int kGroupsPerBlock = 4;

template <class F>
__global__ __launch_bounds__(kGroupsPerBlock* kLanes) void swiglu_group_quant_fp8_kernel(uint8_t* q, float* s,
                                                                                         const bf16* gate_up, int32_t m,
                                                                                         int32_t k,
                                                                                         bool shuffle_scale) {
    const int64_t row = blockIdx.x;
    const int32_t groups = k / kGroup;
    const int32_t group = blockIdx.y * kGroupsPerBlock + threadIdx.x / kLanes;
    const int lane = threadIdx.x % kLanes;
    if (group >= groups) return;
    const bf16* gate = gate_up + row * 2 * k + group * kGroup + lane * kPerLane;
    const Pack<bf16, kPerLane> g = load<kPerLane>(gate);
    const Pack<bf16, kPerLane> u = load<kPerLane>(gate + k);
    float values[kPerLane];
    for (int i = 0; i < kPerLane; ++i) {
        const float x = to_float(g.v[i]);
        values[i] = x / (1.0f + expf(-x)) * to_float(u.v[i]);
    }
    quantize_group<F>(q + row * k + group * kGroup, s + scale_offset(row, group, m, groups, shuffle_scale), values,
                      lane);
}

}  // namespace

LAUNCHER swiglu_group_quant_fp8(uint8_t* q, float* s, const bf16* gate_up, int32_t m, int32_t k, int32_t format,
                                bool shuffle_scale, hipStream_t stream) {
    if (any_null(q, s, gate_up)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    if (!is_aligned(gate_up, sizeof(Pack<bf16, kPerLane>)) || !is_aligned(q, kPerLane)) return kUnsupported;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(swiglu_group_quant_fp8_kernel<decltype(f)>, dim3(m, ceil_div(k / kGroup, kGroupsPerBlock)),
                           dim3(kGroupsPerBlock * kLanes), 0, stream, q, s, gate_up, m, k, shuffle_scale);
    });
}

ACCURACY_BOUND(swiglu_group_quant_fp8);
