// bf16 GEMM: Y[m, n] = sum over k of X[m, k] W[n, k], accumulated in float32. Row r of a matrix starts at r times its
// leading dimension (ldy, ldx, ldw, in elements); with transpose_x, X is stored as [k, m].

#include "launcher.h"
#include "tile.h"

namespace {

constexpr int kTileK = 32;

// Neighbouring threads read neighbouring elements: along K, or, where transposed, along the rows.
template <bool Transposed>
__device__ void load_tile(Tile<kTileK>& tile, const bf16* matrix, int64_t ld, int64_t first, int32_t rows, int32_t k,
                          int64_t k0) {
    for (int i = threadIdx.x; i < kTile * kTileK; i += kTileThreads) {
        const int row = Transposed ? i % kTile : i / kTileK;
        const int column = Transposed ? i / kTile : i % kTileK;
        const int64_t r = first + row, c = k0 + column;
        tile.at[column][row] = r < rows && c < k ? to_float(matrix[Transposed ? c * ld + r : r * ld + c]) : 0.0f;
    }
}

template <bool TransposeX>
__global__ __launch_bounds__(kTileThreads) void gemm_bf16_kernel(bf16* y, int64_t ldy, const bf16* x, int64_t ldx,
                                                                 const bf16* w, int64_t ldw, int32_t m, int32_t n,
                                                                 int32_t k) {
    __shared__ Tile<kTileK> x_tile;
    __shared__ Tile<kTileK> w_tile;
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const int row = threadIdx.x / kThreadsAcross * kPerThread;
    const int column = threadIdx.x % kThreadsAcross * kPerThread;

    Accumulator sum;
    for (int64_t k0 = 0; k0 < k; k0 += kTileK) {
        load_tile<TransposeX>(x_tile, x, ldx, first_row, m, k, k0);
        load_tile<false>(w_tile, w, ldw, first_column, n, k, k0);
        __syncthreads();
        multiply_tiles<kTileK>(sum, x_tile, w_tile, row, column);
        __syncthreads();
    }
    store_tile(y, ldy, sum, first_row + row, first_column + column, m, n);
}

}  // namespace

LAUNCHER gemm_bf16(bf16* y, int64_t ldy, const bf16* x, int64_t ldx, const bf16* w, int64_t ldw, int32_t m, int32_t n,
                   int32_t k, bool transpose_x, hipStream_t stream) {
    if (any_null(y, x, w) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (ldy < n || ldw < k || ldx < (transpose_x ? m : k)) return kInvalidArgument;
    hipLaunchKernelGGL(transpose_x ? gemm_bf16_kernel<true> : gemm_bf16_kernel<false>,
                       dim3(ceil_div(m, kTile), ceil_div(n, kTile)), dim3(kTileThreads), 0, stream, y, ldy, x, ldx, w,
                       ldw, m, n, k);
    return launch_status();
}

ACCURACY_BOUND(gemm_bf16);
