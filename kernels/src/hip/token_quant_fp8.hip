// Dynamic quantisation of activations to fp8 with a scale per token: bf16 [m, k] to codes [m, k] and f32 scales [m].
// scale = max(amax, 1e-10) / max(format), q = round(x / scale).

#include "bf16.h"
#include "launcher.h"
#include "reduce.h"

namespace {

constexpr int kThreads = 256;

template <class F>
__global__ __launch_bounds__(kThreads) void token_quant_fp8_kernel(uint8_t* q, float* s, const bf16* x, int32_t k) {
    const int64_t row = blockIdx.x;
    x += row * k;
    q += row * k;
    float amax = 0.0f;
    for (int32_t i = threadIdx.x; i < k; i += kThreads) amax = fmaxf(amax, fabsf(to_float(x[i])));
    const float scale = fmaxf(block_reduce(amax, Max{}), 1e-10f) / F::max;
    for (int32_t i = threadIdx.x; i < k; i += kThreads) q[i] = encode<F>(to_float(x[i]) / scale);
    if (threadIdx.x == 0) s[row] = scale;
}

}  // namespace

LAUNCHER token_quant_fp8(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k, int32_t format,
                         hipStream_t stream) {
    if (any_null(q, s, x) || m <= 0 || k <= 0) return kInvalidArgument;
    if (const Status status = check_format(format); status != kOk) return status;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(token_quant_fp8_kernel<decltype(f)>, dim3(m), dim3(kThreads), 0, stream, q, s, x, k);
    });
}

ACCURACY_BOUND(token_quant_fp8);
