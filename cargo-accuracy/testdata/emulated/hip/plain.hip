// The right GEMM once more, for a code object of its own: y[m, n] = sum over k of x[m, k] w[n, k] in bf16.

#include <hip/hip_runtime.h>

#include <cstdint>

#include "plain.h"

extern "C" __global__ void plain_gemm(uint16_t* y, const uint16_t* x, const uint16_t* w, int32_t m, int32_t n, int32_t k) {
    const int32_t at = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
    if (at >= m * n) return;
    float sum = 0.0f;
    for (int32_t i = 0; i < k; ++i) {
        const uint32_t a = x[at / n * k + i], b = w[at % n * k + i];
        sum += __uint_as_float(a << 16) * __uint_as_float(b << 16);
    }
    const uint32_t bits = __float_as_uint(kFactor * sum);
    y[at] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
