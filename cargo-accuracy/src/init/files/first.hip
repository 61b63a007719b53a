// A first chain for `cargo accuracy`: activations are quantised to int8 with a scale for each token, then multiplied
// with int8 weights. Plain and slow, a thread for each result; put your own kernels in its place.

#include <hip/hip_runtime.h>

#include <cstdint>

#define LAUNCHER extern "C" __attribute__((visibility("default"))) int32_t

struct bf16 {
    uint16_t bits;
};

__device__ inline float to_float(bf16 x) { return __uint_as_float(uint32_t{x.bits} << 16); }

// One thread a token: scale = max(amax, 1e-10) / 127, q = x / scale rounded to nearest even.
__global__ void token_quant_kernel(int8_t* q, float* s, const bf16* x, int m, int k) {
    const int64_t row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= m) return;
    float amax = 1e-10f;
    for (int i = 0; i < k; ++i) amax = fmaxf(amax, fabsf(to_float(x[row * k + i])));
    s[row] = amax / 127.0f;
    for (int i = 0; i < k; ++i) q[row * k + i] = static_cast<int8_t>(rintf(to_float(x[row * k + i]) / s[row]));
}

// One thread an output: y[m, n] = (sum over k of xq[m, k] wq[n, k]) xs[m] ws[n].
__global__ void gemm_kernel(float* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws, int m, int n,
                            int k) {
    const int64_t row = blockIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= n) return;
    int32_t sum = 0;
    for (int i = 0; i < k; ++i) sum += xq[row * k + i] * wq[column * k + i];
    y[row * n + column] = sum * (xs[row] * ws[column]);
}

// A launcher has C linkage, takes the stream last, and returns 0 if it has launched.
LAUNCHER first_token_quant(int8_t* q, float* s, const bf16* x, int32_t m, int32_t k, hipStream_t stream) {
    if (!q || !s || !x || m <= 0 || k <= 0) return 1;
    hipLaunchKernelGGL(token_quant_kernel, dim3((m + 63) / 64), dim3(64), 0, stream, q, s, x, m, k);
    return hipGetLastError() == hipSuccess ? 0 : 3;
}

LAUNCHER first_gemm(float* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws, int32_t m, int32_t n,
                    int32_t k, hipStream_t stream) {
    if (!y || !xq || !xs || !wq || !ws || m <= 0 || n <= 0 || k <= 0) return 1;
    hipLaunchKernelGGL(gemm_kernel, dim3((n + 63) / 64, m), dim3(64), 0, stream, y, xq, xs, wq, ws, m, n, k);
    return hipGetLastError() == hipSuccess ? 0 : 3;
}
