// int8 GEMM with a scale per token of X and per channel of W, accumulated in int32:
// Y[m, n] = (sum over k of X[m, k] W[n, k]) Sx[m] Sw[n].

#include "gemm_int8.h"

namespace {

// The product's sum with its scales.
__device__ inline bf16 scaled(int32_t sum, float x_scale, float w_scale) { return to_bf16(sum * (x_scale * w_scale)); }

#ifdef HAS_MFMA

__global__ __launch_bounds__(kTileThreads) void gemm_a8w8_int8_kernel(bf16* y, const int8_t* xq, const float* xs,
                                                                      const int8_t* wq, const float* ws, int32_t m,
                                                                      int32_t n, int32_t k) {
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const Int8Sums sums = multiply_int8_tile<false>(xq, wq, first_row, first_column, m, n, k);
    each_output(sums.products, m - first_row, n - first_column, [=](int row, int column, int32_t sum) {
        const int64_t r = first_row + row, c = first_column + column;
        y[r * n + c] = scaled(sum, xs[r], ws[c]);
    });
}

#else

constexpr int kTileK = 64;
constexpr int kAcross = 16;  // threads along either side of the output tile

// Rows are padded by one bank of 32 bits, so that threads of a warp read different banks.
using Int16Tile = int16_t[kTile][kTileK + 2];

__device__ void load_tile(Int16Tile& tile, const int8_t* codes, int64_t first, int32_t rows, int32_t k, int32_t k0) {
    for (int i = threadIdx.x; i < kTile * kTileK; i += kTileThreads) {
        const int row = i / kTileK, column = i % kTileK;
        const bool inside = first + row < rows && k0 + column < k;
        tile[row][column] = inside ? codes[(first + row) * k + k0 + column] : 0;
    }
}

__global__ __launch_bounds__(kTileThreads) void gemm_a8w8_int8_kernel(bf16* y, const int8_t* xq, const float* xs,
                                                                      const int8_t* wq, const float* ws, int32_t m,
                                                                      int32_t n, int32_t k) {
    __shared__ Int16Tile x_tile;
    __shared__ Int16Tile w_tile;
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const int tx = threadIdx.x % kAcross, ty = threadIdx.x / kAcross;

    int32_t sum[kPerThread][kPerThread] = {};
    for (int32_t k0 = 0; k0 < k; k0 += kTileK) {
        load_tile(x_tile, xq, first_row, m, k, k0);
        load_tile(w_tile, wq, first_column, n, k, k0);
        __syncthreads();
        for (int i = 0; i < kPerThread; ++i) {
            for (int j = 0; j < kPerThread; ++j) {
                const int16_t* a = x_tile[ty + i * kAcross];
                const int16_t* b = w_tile[tx + j * kAcross];
                for (int kk = 0; kk < kTileK; ++kk) sum[i][j] += a[kk] * b[kk];
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < kPerThread; ++i) {
        const int64_t row = first_row + ty + i * kAcross;
        for (int j = 0; j < kPerThread; ++j) {
            const int64_t column = first_column + tx + j * kAcross;
            if (row < m && column < n) y[row * n + column] = scaled(sum[i][j], xs[row], ws[column]);
        }
    }
}

#endif

}  // namespace

LAUNCHER gemm_a8w8_int8(bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws, int32_t m,
                        int32_t n, int32_t k, hipStream_t stream) {
    if (any_null(y, xq, xs, wq, ws) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (k > kMaxK) return kUnsupported;
    hipLaunchKernelGGL(gemm_a8w8_int8_kernel, dim3(ceil_div(m, kTile), ceil_div(n, kTile)), dim3(kTileThreads), 0,
                       stream, y, xq, xs, wq, ws, m, n, k);
    return launch_status();
}

ACCURACY_BOUND(gemm_a8w8_int8);
