// MXFP4 GEMM: Y[m, n] = sum over k of X[m, k] Sx[m, k / 32] W[n, k] Sw[n, k / 32], summed in float32.
// X is row-major, two codes a byte; W is preshuffled in tiles of 16 rows and 64 columns, cut into runs of 32 codes.
// Sw is swizzled (mx.h), Sx row-major or, with shuffle_scale, swizzled.

#include "mx.h"
#include "tile.h"

namespace {

constexpr int kTileK = 64;
constexpr int kRun = 32;  // codes that one thread decodes: a group, which is 16 bytes
constexpr int kBytes = kRun / 2;

static_assert(kTile * kTileK <= kTileThreads * kRun && kRun == kMxGroup, "a thread has one run and one scale");

// Where a run of 32 codes of W begins, in bytes.
__device__ inline int64_t preshuffled(int64_t row, int64_t column, int32_t k) {
    return (row / 16 * 16 * k + column / 64 * 64 * 16 + column % 64 / kRun * kRun * 16 + row % 16 * kRun) / 2;
}

template <class RunAt, class ScaleAt>
__device__ inline void load_tile(Tile<kTileK>& tile, const uint8_t* codes, const uint8_t* scales, int64_t first,
                                 int32_t rows, int64_t k0, RunAt run_at, ScaleAt scale_at) {
    const int run = threadIdx.x;
    if (run >= kTile * kTileK / kRun) return;
    const int row = run / (kTileK / kRun), column = run % (kTileK / kRun) * kRun;
    Pack<uint8_t, kBytes> packed = {};
    float scale = 0.0f;
    if (first + row < rows) {
        packed = load<kBytes>(codes + run_at(first + row, k0 + column));
        scale = decode_e8m0(scales[scale_at(first + row, (k0 + column) / kMxGroup)]);
    }
    for (int i = 0; i < kRun; ++i) tile.at[column + i][row] = decode_e2m1(packed.v[i / 2] >> (i % 2 * 4)) * scale;
}

__global__ __launch_bounds__(kTileThreads) void gemm_a4w4_kernel(bf16* y, const uint8_t* xq, const uint8_t* xs,
                                                                 const uint8_t* wq, const uint8_t* ws, int32_t m,
                                                                 int32_t n, int32_t k, bool shuffle_scale) {
    __shared__ Tile<kTileK> x_tile;
    __shared__ Tile<kTileK> w_tile;
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const int row = threadIdx.x / kThreadsAcross * kPerThread;
    const int column = threadIdx.x % kThreadsAcross * kPerThread;
    const int32_t groups = k / kMxGroup;

    Accumulator sum;
    for (int64_t k0 = 0; k0 < k; k0 += kTileK) {
        load_tile(x_tile, xq, xs, first_row, m, k0, [=](int64_t r, int64_t c) { return (r * k + c) / 2; },
                  [=](int64_t r, int64_t g) { return mx_scale_offset(r, g, groups, shuffle_scale); });
        load_tile(w_tile, wq, ws, first_column, n, k0, [=](int64_t r, int64_t c) { return preshuffled(r, c, k); },
                  [=](int64_t r, int64_t g) { return swizzled(r, g, groups); });
        __syncthreads();
        multiply_tiles<kTileK>(sum, x_tile, w_tile, row, column);
        __syncthreads();
    }
    store_tile(y, n, sum, first_row + row, first_column + column, m, n);
}

}  // namespace

LAUNCHER gemm_a4w4(bf16* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, int32_t m,
                   int32_t n, int32_t k, bool shuffle_scale, hipStream_t stream) {
    if (any_null(y, xq, xs, wq, ws) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (k % kTileK != 0 || n % 16 != 0) return kUnsupported;
    if (!is_aligned(xq, kBytes) || !is_aligned(wq, kBytes)) return kUnsupported;
    hipLaunchKernelGGL(gemm_a4w4_kernel, dim3(ceil_div(m, kTile), ceil_div(n, kTile)), dim3(kTileThreads), 0, stream,
                       y, xq, xs, wq, ws, m, n, k, shuffle_scale);
    return launch_status();
}

ACCURACY_BOUND(gemm_a4w4);
