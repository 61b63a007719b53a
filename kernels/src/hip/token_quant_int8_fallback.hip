// token_quant_int8 without warp operations or shared memory: a thread per token.

#include "bf16.h"
#include "launcher.h"

namespace {

constexpr int kThreads = 64;

__global__ void token_quant_int8_fallback_kernel(int8_t* q, float* s, const bf16* x, int32_t m, int32_t k) {
    const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (row >= m) return;
    float amax = 1e-10f;
    for (int64_t i = row * k; i < (row + 1) * k; ++i) {
        const float magnitude = fabsf(to_float(x[i]));
        if (magnitude > amax) amax = magnitude;
    }
    const float scale = amax / 127.0f;
    s[row] = scale;
    // Adding 1.5 * 2^23 leaves no bits for a fraction: the addition rounds to nearest even, and the integer is the
    // difference of the bits.
    const float magic = 12582912.0f;
    for (int64_t i = row * k; i < (row + 1) * k; ++i) {
        const float scaled = fmaxf(-127.0f, fminf(127.0f, to_float(x[i]) / scale));
        q[i] = static_cast<int8_t>(__float_as_int(scaled + magic) - __float_as_int(magic));
    }
}

}  // namespace

LAUNCHER token_quant_int8_fallback(int8_t* q, float* s, const bf16* x, int32_t m, int32_t k, hipStream_t stream) {
    if (any_null(q, s, x) || m <= 0 || k <= 0) return kInvalidArgument;
    hipLaunchKernelGGL(token_quant_int8_fallback_kernel, dim3(ceil_div(m, kThreads)), dim3(kThreads), 0, stream, q, s,
                       x, m, k);
    return launch_status();
}

ACCURACY_BOUND(token_quant_int8_fallback);
