// Dynamic quantisation of activations to int8 with a scale per token: bf16 [m, k] to codes [m, k] and f32 scales [m].
// scale = max(amax, 1e-10) / 127, q = round to nearest even of x / scale, within [-127, 127].

#include "bf16.h"
#include "launcher.h"
#include "reduce.h"

namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void token_quant_int8_kernel(int8_t* q, float* s, const bf16* x, int32_t k) {
    const int64_t row = blockIdx.x;
    x += row * k;
    q += row * k;
    float amax = 0.0f;
    for (int32_t i = threadIdx.x; i < k; i += kThreads) amax = fmaxf(amax, fabsf(to_float(x[i])));
    const float scale = fmaxf(block_reduce(amax, Max{}), 1e-10f) / 127.0f;
    for (int32_t i = threadIdx.x; i < k; i += kThreads) {
        q[i] = static_cast<int8_t>(fminf(fmaxf(rintf(to_float(x[i]) / scale), -127.0f), 127.0f));
    }
    if (threadIdx.x == 0) s[row] = scale;
}

}  // namespace

LAUNCHER token_quant_int8(int8_t* q, float* s, const bf16* x, int32_t m, int32_t k, hipStream_t stream) {
    if (any_null(q, s, x) || m <= 0 || k <= 0) return kInvalidArgument;
    hipLaunchKernelGGL(token_quant_int8_kernel, dim3(m), dim3(kThreads), 0, stream, q, s, x, k);
    return launch_status();
}

ACCURACY_BOUND(token_quant_int8);
