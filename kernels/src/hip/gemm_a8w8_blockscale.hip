// Block-scaled fp8 GEMM: Y[m, n] = sum over k of X[m, k] Sx[m, k / 128] W[n, k] Sw[n / 128, k / 128].
// Sx is row-major [m, k / 128], or, with shuffle_scale, column-major; Sw is row-major [ceil(n / 128), k / 128].

#include "launcher.h"
#include "tile.h"

namespace {

constexpr int kTileK = 64;
constexpr int kBytes = 16;  // codes per load

static_assert(kGroup % kTileK == 0 && kGroup % kTile == 0, "a tile has one scale of W and one group of K");
static_assert(kTile * kTileK == kTileThreads * kBytes, "every thread loads once per tile");

template <class F>
__device__ void load_tile(Tile<kTileK>& tile, const uint8_t* codes, int64_t first, int32_t rows, int32_t k, int k0) {
    const int row = threadIdx.x / (kTileK / kBytes);
    const int column = threadIdx.x % (kTileK / kBytes) * kBytes;
    Pack<uint8_t, kBytes> packed = {};
    if (first + row < rows) packed = load<kBytes>(codes + (first + row) * k + k0 + column);
    float values[kBytes];
    for (int i = 0; i < kBytes; ++i) values[i] = decode<F>(packed.v[i]);
    for (int i = 0; i < kBytes; ++i) tile.at[column + i][row] = values[i];
}

template <class F>
__global__ __launch_bounds__(kTileThreads) void gemm_a8w8_blockscale_kernel(
    bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t m, int32_t n, int32_t k,
    bool shuffle_scale) {
    __shared__ Tile<kTileK> x_tile;
    __shared__ Tile<kTileK> w_tile;
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const int row = threadIdx.x / kThreadsAcross * kPerThread;
    const int column = threadIdx.x % kThreadsAcross * kPerThread;
    const int64_t groups = k / kGroup;

    Accumulator sum;
    for (int64_t group = 0; group < groups; ++group) {
        Accumulator of_group;
        for (int64_t k0 = group * kGroup; k0 < (group + 1) * kGroup; k0 += kTileK) {
            load_tile<F>(x_tile, xq, first_row, m, k, k0);
            load_tile<F>(w_tile, wq, first_column, n, k, k0);
            __syncthreads();
            multiply_tiles<kTileK>(of_group, x_tile, w_tile, row, column);
            __syncthreads();
        }
        const float w_scale = ws[first_column / kGroup * groups + group];
        for (int i = 0; i < kPerThread; ++i) {
            const int64_t r = first_row + row + i;
            if (r >= m) break;
            const float scale = xs[shuffle_scale ? group * m + r : r * groups + group] * w_scale;
            for (int j = 0; j < kPerThread; ++j) sum.v[i][j] += of_group.v[i][j] * scale;
        }
    }
    store_tile(y, n, sum, first_row + row, first_column + column, m, n);
}

}  // namespace

LAUNCHER gemm_a8w8_blockscale(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                              int32_t m, int32_t n, int32_t k, int32_t format, bool shuffle_scale,
                              hipStream_t stream) {
    if (any_null(y, xq, xs, wq, ws) || n <= 0) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    if (!is_aligned(xq, kBytes) || !is_aligned(wq, kBytes)) return kUnsupported;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(gemm_a8w8_blockscale_kernel<decltype(f)>, dim3(ceil_div(m, kTile), ceil_div(n, kTile)),
                           dim3(kTileThreads), 0, stream, y, xq, xs, wq, ws, m, n, k, shuffle_scale);
    });
}
