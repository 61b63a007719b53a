// Block-scaled fp8 e4m3fn GEMM: y[m, n] = sum over k of x[m, k] xs[m, k / 128] w[n, k] ws[n / 128, k / 128].
// xs is row-major, or column-major where shuffle_scale.

#include "common.h"

constexpr int kTile = 16;

// One thread per output; a tile of 16 rows and 16 columns takes a group of K at a time.
__global__ void gemm_kernel(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int m,
                            int n, int k, bool shuffle_scale) {
    __shared__ float x_tile[kTile][kGroup + 1];
    __shared__ float w_tile[kTile][kGroup + 1];
    const int64_t row = blockIdx.x * kTile + threadIdx.y, column = blockIdx.y * kTile + threadIdx.x;
    const int64_t w_row = blockIdx.y * kTile + threadIdx.y;
    const int groups = k / kGroup;
    float sum = 0.0f;
    for (int group = 0; group < groups; ++group) {
        for (int i = threadIdx.x; i < kGroup; i += kTile) {
            x_tile[threadIdx.y][i] = row < m ? from_fp8(xq[row * k + group * kGroup + i]) : 0.0f;
            w_tile[threadIdx.y][i] = w_row < n ? from_fp8(wq[w_row * k + group * kGroup + i]) : 0.0f;
        }
        __syncthreads();
        if (row < m && column < n) {
            float product = 0.0f;
            for (int i = 0; i < kGroup; ++i) product += x_tile[threadIdx.y][i] * w_tile[threadIdx.x][i];
            const float x_scale = xs[shuffle_scale ? int64_t{group} * m + row : row * groups + group];
            sum += product * x_scale * ws[column / kGroup * groups + group];
        }
        __syncthreads();
    }
    if (row < m && column < n) y[row * n + column] = to_bf16(sum);
}

LAUNCHER gemm_a8w8_blockscale(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                              int32_t m, int32_t n, int32_t k, bool shuffle_scale, hipStream_t stream) {
    if (!y || !xq || !xs || !wq || !ws || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (k % kGroup != 0) return kUnsupported;
    hipLaunchKernelGGL(gemm_kernel, dim3((m + kTile - 1) / kTile, (n + kTile - 1) / kTile), dim3(kTile, kTile), 0,
                       stream, y, xq, xs, wq, ws, m, n, k, shuffle_scale);
    return launch_status();
}
