// Weight-only int4 GEMM: Y[m, n] = sum over k of X[m, k] W[n, k], X in bf16, W as int4.h has it, summed in float32.

#include "int4.h"
#include "tile.h"

namespace {

constexpr int kTileK = 32;

__global__ __launch_bounds__(kTileThreads) void gemm_a16w4_kernel(bf16* y, const bf16* x, Int4Weight w, int32_t m) {
    __shared__ Tile<kTileK> x_tile;
    __shared__ Tile<kTileK> w_tile;
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const int row = threadIdx.x / kThreadsAcross * kPerThread;
    const int column = threadIdx.x % kThreadsAcross * kPerThread;

    Accumulator sum;
    for (int64_t k0 = 0; k0 < w.k; k0 += kTileK) {
        for (int i = threadIdx.x; i < kTile * kTileK; i += kTileThreads) {
            const int r = i / kTileK, c = i % kTileK;
            const bool inside = k0 + c < w.k;
            x_tile.at[c][r] = inside && first_row + r < m ? to_float(x[(first_row + r) * w.k + k0 + c]) : 0.0f;
            w_tile.at[c][r] = inside && first_column + r < w.n ? w.at(first_column + r, k0 + c) : 0.0f;
        }
        __syncthreads();
        multiply_tiles<kTileK>(sum, x_tile, w_tile, row, column);
        __syncthreads();
    }
    store_tile(y, w.n, sum, first_row + row, first_column + column, m, w.n);
}

}  // namespace

LAUNCHER gemm_a16w4(bf16* y, const bf16* x, const uint32_t* qweight, const uint16_t* scales, const uint32_t* qzeros,
                    int32_t m, int32_t n, int32_t k, int32_t group, int32_t packing, hipStream_t stream) {
    const Int4Weight w{qweight, scales, qzeros, n, k, group, packing};
    if (any_null(y, x)) return kInvalidArgument;
    if (const Status status = check_int4(w, m); status != kOk) return status;
    hipLaunchKernelGGL(gemm_a16w4_kernel, dim3(ceil_div(m, kTile), ceil_div(n, kTile)), dim3(kTileThreads), 0, stream,
                       y, x, w, m);
    return launch_status();
}

ACCURACY_BOUND(gemm_a16w4);
