// int8 GEMM with a scale per token of X and scale and zero point per channel of W, accumulated in int32:
// Y[m, n] = (sum over k of X[m, k] W[n, k] - Z[n] sum over k of X[m, k]) Sx[m] Sw[n].

#include "bf16.h"
#include "launcher.h"

namespace {

constexpr int kThreads = 128;

// The longest sum of products of -128 that int32 holds.
constexpr int32_t kMaxK = INT32_MAX / (128 * 128);

__global__ __launch_bounds__(kThreads) void gemm_a8w8_int8_zero_point_kernel(bf16* y, const int8_t* xq,
                                                                             const float* xs, const int8_t* wq,
                                                                             const float* ws, const int8_t* wz,
                                                                             int32_t n, int32_t k) {
    const int64_t row = blockIdx.x;
    const int64_t column = int64_t{blockIdx.y} * kThreads + threadIdx.x;
    if (column >= n) return;
    const int8_t* x = xq + row * k;
    const int8_t* w = wq + column * k;
    int32_t products = 0, sum_of_x = 0;
    for (int32_t i = 0; i < k; ++i) {
        products += int32_t{x[i]} * w[i];
        sum_of_x += x[i];
    }
    // The correction may exceed int32 where the products do not.
    const int64_t sum = products - int64_t{wz[column]} * sum_of_x;
    y[row * n + column] = to_bf16(static_cast<float>(sum) * (xs[row] * ws[column]));
}

}  // namespace

LAUNCHER gemm_a8w8_int8_zero_point(bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws,
                                   const int8_t* wz, int32_t m, int32_t n, int32_t k, hipStream_t stream) {
    if (any_null(y, xq, wq, wz) || any_null(xs, ws) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (k > kMaxK) return kUnsupported;
    hipLaunchKernelGGL(gemm_a8w8_int8_zero_point_kernel, dim3(m, ceil_div(n, kThreads)), dim3(kThreads), 0, stream, y,
                       xq, xs, wq, ws, wz, n, k);
    return launch_status();
}

ACCURACY_BOUND(gemm_a8w8_int8_zero_point);
