// int8 GEMM with a scale per token of X and scale and zero point per channel of W, accumulated in int32:
// Y[m, n] = (sum over k of X[m, k] W[n, k] - Z[n] sum over k of X[m, k]) Sx[m] Sw[n].

#include "gemm_int8.h"

namespace {

__global__ __launch_bounds__(kTileThreads) void gemm_a8w8_int8_zero_point_kernel(
    bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws, const int8_t* wz, int32_t m,
    int32_t n, int32_t k) {
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const auto store = [=](int64_t row, int64_t column, int32_t products, int32_t sum_of_x) {
        // The correction may exceed int32 where the products do not.
        const int64_t sum = products - int64_t{wz[column]} * sum_of_x;
        y[row * n + column] = to_bf16(static_cast<float>(sum) * (xs[row] * ws[column]));
    };
#ifdef HAS_MFMA
    const Int8Sums sums = multiply_int8_tile<true>(xq, wq, first_row, first_column, m, n, k);
    each_output(sums.products, m - first_row, n - first_column, [=](int row, int column, int32_t products) {
        store(first_row + row, first_column + column, products, sums.of_x[row % 4]);
    });
#else
    for (int i = threadIdx.x; i < kTile * kTile; i += kTileThreads) {
        const int64_t row = first_row + i / kTile, column = first_column + i % kTile;
        if (row >= m || column >= n) continue;
        const int8_t* x = xq + row * k;
        const int8_t* w = wq + column * k;
        int32_t products = 0, sum_of_x = 0;
        for (int32_t j = 0; j < k; ++j) {
            products += int32_t{x[j]} * w[j];
            sum_of_x += x[j];
        }
        store(row, column, products, sum_of_x);
    }
#endif
}

}  // namespace

LAUNCHER gemm_a8w8_int8_zero_point(bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws,
                                   const int8_t* wz, int32_t m, int32_t n, int32_t k, hipStream_t stream) {
    if (any_null(y, xq, wq, wz) || any_null(xs, ws) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (k > kMaxK) return kUnsupported;
    hipLaunchKernelGGL(gemm_a8w8_int8_zero_point_kernel, dim3(ceil_div(m, kTile), ceil_div(n, kTile)),
                       dim3(kTileThreads), 0, stream, y, xq, xs, wq, ws, wz, m, n, k);
    return launch_status();
}

ACCURACY_BOUND(gemm_a8w8_int8_zero_point);
