// token_quant_fp8 without warp operations or shared memory: a thread per token.

#include "bf16.h"
#include "launcher.h"

namespace {

constexpr int kThreads = 64;

template <class F>
__global__ void token_quant_fp8_fallback_kernel(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k) {
    const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (row >= m) return;
    float amax = 1e-10f;
    for (int64_t i = row * k; i < (row + 1) * k; ++i) {
        const float magnitude = fabsf(to_float(x[i]));
        if (magnitude > amax) amax = magnitude;
    }
    const float scale = amax / F::max;
    s[row] = scale;
    for (int64_t i = row * k; i < (row + 1) * k; ++i) q[i] = encode_by_steps<F>(to_float(x[i]) / scale);
}

}  // namespace

LAUNCHER token_quant_fp8_fallback(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k, int32_t format,
                                  hipStream_t stream) {
    if (any_null(q, s, x) || m <= 0 || k <= 0) return kInvalidArgument;
    if (const Status status = check_format(format); status != kOk) return status;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(token_quant_fp8_fallback_kernel<decltype(f)>, dim3(ceil_div(m, kThreads)), dim3(kThreads), 0,
                           stream, q, s, x, m, k);
    });
}

ACCURACY_BOUND(token_quant_fp8_fallback);
