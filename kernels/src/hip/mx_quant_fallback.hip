// The quantisers of mx_quant.hip without warp operations or vector loads: a thread per group.

#include "mx_quant_fallback.h"

namespace {

template <class E>
__global__ void mx_quant_fallback_kernel(uint8_t* q, uint8_t* s, const bf16* x, int64_t m, int32_t k, int32_t rounding,
                                         bool shuffle_scale) {
    mx_quantize_serial<E>(q, s, m, k, rounding, shuffle_scale,
                          [=](int64_t row, int64_t column) { return to_float(x[row * k + column]); });
}

__global__ void swiglu_mxfp8_quant_fallback_kernel(uint8_t* q, uint8_t* s, const bf16* gate_up, int64_t m, int32_t k,
                                                   int32_t rounding) {
    mx_quantize_serial<MxE4m3>(q, s, m, k, rounding, false, [=](int64_t row, int64_t column) {
        const bf16* gate = gate_up + row * 2 * k + column;
        const float x = to_float(gate[0]);
        // The exponential is of -|x|, so it cannot overflow.
        const float e = expf(-fabsf(x));
        return x * (x < 0.0f ? e : 1.0f) / (1.0f + e) * to_float(gate[k]);
    });
}

template <class E>
int32_t quantize(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t rounding, bool shuffle_scale,
                 hipStream_t stream) {
    if (any_null(q, s, x)) return kInvalidArgument;
    if (const Status status = check_mx(m, k, rounding); status != kOk) return status;
    hipLaunchKernelGGL(mx_quant_fallback_kernel<E>, dim3(mx_blocks(m, k)), dim3(kMxThreads), 0, stream, q, s, x, m, k,
                       rounding, shuffle_scale);
    return launch_status();
}

}  // namespace

LAUNCHER dynamic_mxfp4_quant_fallback(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t rounding,
                                      bool shuffle_scale, hipStream_t stream) {
    return quantize<E2m1>(q, s, x, m, k, rounding, shuffle_scale, stream);
}

LAUNCHER dynamic_mxfp8_quant_fallback(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t rounding,
                                      bool shuffle_scale, hipStream_t stream) {
    return quantize<MxE4m3>(q, s, x, m, k, rounding, shuffle_scale, stream);
}

LAUNCHER swiglu_mxfp8_quant_fallback(uint8_t* q, uint8_t* s, const bf16* gate_up, int32_t m, int32_t k,
                                     int32_t rounding, hipStream_t stream) {
    if (any_null(q, s, gate_up)) return kInvalidArgument;
    if (const Status status = check_mx(m, k, rounding); status != kOk) return status;
    hipLaunchKernelGGL(swiglu_mxfp8_quant_fallback_kernel, dim3(mx_blocks(m, k)), dim3(kMxThreads), 0, stream, q, s,
                       gate_up, m, k, rounding);
    return launch_status();
}

ACCURACY_BOUND(dynamic_mxfp4_quant_fallback);
ACCURACY_BOUND(dynamic_mxfp8_quant_fallback);
ACCURACY_BOUND(swiglu_mxfp8_quant_fallback);
