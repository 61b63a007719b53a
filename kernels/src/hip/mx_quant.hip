// Dynamic quantisation to MXFP4 (e2m1) and MXFP8 (e4m3): bf16 [m, k] to codes [m, k] and e8m0 scales of groups of 32,
// row-major [m, k / 32] or, with shuffle_scale, in the swizzled order of mx.h; and the same of silu(gate) · up of
// gate_up [m, 2k], a row of which holds its gate, then its up.

#include "mx_quant.h"

namespace {

template <class E>
__global__ __launch_bounds__(kMxThreads) void mx_quant_kernel(uint8_t* q, uint8_t* s, const bf16* x, int64_t m,
                                                              int32_t k, int32_t rounding, bool shuffle_scale) {
    mx_quantize<E>(q, s, m, k, rounding, shuffle_scale, [=](int64_t row, int64_t column) {
        const Pack<bf16, kMxPerLane> packed = load<kMxPerLane>(x + row * k + column);
        Pack<float, kMxPerLane> values;
        for (int i = 0; i < kMxPerLane; ++i) values.v[i] = to_float(packed.v[i]);
        return values;
    });
}

__global__ __launch_bounds__(kMxThreads) void swiglu_mxfp8_quant_kernel(uint8_t* q, uint8_t* s, const bf16* gate_up,
                                                                        int64_t m, int32_t k, int32_t rounding) {
    mx_quantize<MxE4m3>(q, s, m, k, rounding, false, [=](int64_t row, int64_t column) {
        const bf16* gate = gate_up + row * 2 * k + column;
        const Pack<bf16, kMxPerLane> g = load<kMxPerLane>(gate);
        const Pack<bf16, kMxPerLane> u = load<kMxPerLane>(gate + k);
        Pack<float, kMxPerLane> values;
        for (int i = 0; i < kMxPerLane; ++i) {
            const float value = to_float(g.v[i]);
            values.v[i] = value / (1.0f + expf(-value)) * to_float(u.v[i]);
        }
        return values;
    });
}

template <class E>
int32_t quantize(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t rounding, bool shuffle_scale,
                 hipStream_t stream) {
    if (any_null(q, s, x)) return kInvalidArgument;
    if (const Status status = check_mx(m, k, rounding); status != kOk) return status;
    if (!is_aligned(x, sizeof(Pack<bf16, kMxPerLane>)) || !is_aligned(q, kMxPerLane / E::per_byte)) return kUnsupported;
    hipLaunchKernelGGL(mx_quant_kernel<E>, dim3(mx_blocks(m, k)), dim3(kMxThreads), 0, stream, q, s, x, m, k, rounding,
                       shuffle_scale);
    return launch_status();
}

}  // namespace

LAUNCHER dynamic_mxfp4_quant(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t rounding,
                             bool shuffle_scale, hipStream_t stream) {
    return quantize<E2m1>(q, s, x, m, k, rounding, shuffle_scale, stream);
}

LAUNCHER dynamic_mxfp8_quant(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t rounding,
                             bool shuffle_scale, hipStream_t stream) {
    return quantize<MxE4m3>(q, s, x, m, k, rounding, shuffle_scale, stream);
}

LAUNCHER swiglu_mxfp8_quant(uint8_t* q, uint8_t* s, const bf16* gate_up, int32_t m, int32_t k, int32_t rounding,
                            hipStream_t stream) {
    if (any_null(q, s, gate_up)) return kInvalidArgument;
    if (const Status status = check_mx(m, k, rounding); status != kOk) return status;
    if (!is_aligned(gate_up, sizeof(Pack<bf16, kMxPerLane>)) || !is_aligned(q, kMxPerLane)) return kUnsupported;
    hipLaunchKernelGGL(swiglu_mxfp8_quant_kernel, dim3(mx_blocks(m, k)), dim3(kMxThreads), 0, stream, q, s, gate_up, m,
                       k, rounding);
    return launch_status();
}

ACCURACY_BOUND(dynamic_mxfp4_quant);
ACCURACY_BOUND(dynamic_mxfp8_quant);
ACCURACY_BOUND(swiglu_mxfp8_quant);
