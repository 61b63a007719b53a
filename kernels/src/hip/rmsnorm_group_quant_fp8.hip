// Fused RMSNorm and group quantisation: y = x / sqrt(mean(x²) + eps) · gain in float32, with no rounding in between,
// then quantised as group_quant_fp8 does. The add_ variant first adds x to the residual, in place and rounded to bf16,
// and normalises what the residual then holds.

#include "group_quant.h"

namespace {

constexpr int kThreads = 256;

// `source` is x, or, with Add, the residual.
template <class F, bool Add>
__global__ __launch_bounds__(kThreads) void rmsnorm_group_quant_fp8_kernel(uint8_t* q, float* s, const bf16* x,
                                                                           bf16* residual, const bf16* gain, float eps,
                                                                           int32_t m, int32_t k, bool shuffle_scale) {
    const int64_t row = blockIdx.x;
    const int32_t groups = k / kGroup;
    x += row * k;
    q += row * k;
    if (Add) residual += row * k;
    const bf16* source = Add ? residual : x;

    float squares = 0.0f;
    for (int32_t i = threadIdx.x * kPerLane; i < k; i += kThreads * kPerLane) {
        Pack<bf16, kPerLane> packed = load<kPerLane>(x + i);
        if (Add) {
            const Pack<bf16, kPerLane> old = load<kPerLane>(residual + i);
            for (int j = 0; j < kPerLane; ++j) packed.v[j] = to_bf16(to_float(old.v[j]) + to_float(packed.v[j]));
            *reinterpret_cast<Pack<bf16, kPerLane>*>(residual + i) = packed;
        }
        for (int j = 0; j < kPerLane; ++j) squares += to_float(packed.v[j]) * to_float(packed.v[j]);
    }
    const float rms_inverse = rsqrtf(block_reduce(squares, Sum{}) / k + eps);

    const int lane = threadIdx.x % kLanes;
    for (int32_t group = threadIdx.x / kLanes; group < groups; group += kThreads / kLanes) {
        const int32_t first = group * kGroup + lane * kPerLane;
        const Pack<bf16, kPerLane> packed = load<kPerLane>(source + first);
        const Pack<bf16, kPerLane> g = load<kPerLane>(gain + first);
        float values[kPerLane];
        for (int i = 0; i < kPerLane; ++i) values[i] = to_float(packed.v[i]) * rms_inverse * to_float(g.v[i]);
        quantize_group<F>(q + group * kGroup, s + scale_offset(row, group, m, groups, shuffle_scale), values, lane);
    }
}

template <bool Add>
int32_t launch(uint8_t* q, float* s, const bf16* x, bf16* residual, const bf16* gain, float eps, int32_t m, int32_t k,
               int32_t format, bool shuffle_scale, hipStream_t stream) {
    if (any_null(q, s, x, gain) || (Add && any_null(residual)) || !(eps >= 0.0f)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    constexpr size_t vector = sizeof(Pack<bf16, kPerLane>);
    if (!is_aligned(x, vector) || !is_aligned(residual, vector) || !is_aligned(gain, vector) ||
        !is_aligned(q, kPerLane)) {
        return kUnsupported;
    }
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL((rmsnorm_group_quant_fp8_kernel<decltype(f), Add>), dim3(m), dim3(kThreads), 0, stream, q, s,
                           x, residual, gain, eps, m, k, shuffle_scale);
    });
}

}  // namespace

LAUNCHER rmsnorm_group_quant_fp8(uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int32_t m, int32_t k,
                                 int32_t format, bool shuffle_scale, hipStream_t stream) {
    return launch<false>(q, s, x, nullptr, gain, eps, m, k, format, shuffle_scale, stream);
}

LAUNCHER add_rmsnorm_group_quant_fp8(uint8_t* q, float* s, bf16* residual, const bf16* x, const bf16* gain, float eps,
                                     int32_t m, int32_t k, int32_t format, bool shuffle_scale, hipStream_t stream) {
    return launch<true>(q, s, x, residual, gain, eps, m, k, format, shuffle_scale, stream);
}

ACCURACY_BOUND(rmsnorm_group_quant_fp8);
ACCURACY_BOUND(add_rmsnorm_group_quant_fp8);
