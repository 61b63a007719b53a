// bf16 GEMM: Y[m, n] = sum over k of X[m, k] W[n, k], accumulated in float32. Row r of a matrix starts at r times its
// leading dimension (ldy, ldx, ldw, in elements); with transpose_x, X is stored as [k, m].

#include "launcher.h"
#include "mfma_tile.h"

namespace {

#ifdef HAS_MFMA

// Eight elements of row `row` of a matrix of `rows`, from a column on; what lies outside is zero.
template <bool Transposed>
__device__ inline Run load_elements(const bf16* matrix, int64_t ld, int64_t row, int64_t rows, int64_t column,
                                    int32_t k) {
    if (row >= rows) return {};
    if constexpr (!Transposed) return load_run(matrix + row * ld + column, (k - column) * int64_t{sizeof(bf16)});
    Pack<bf16, kRunBytes / sizeof(bf16)> elements = {};
    for (int i = 0; i < int{kRunBytes / sizeof(bf16)}; ++i) {
        if (column + i < k) elements.v[i] = matrix[(column + i) * ld + row];
    }
    return __builtin_bit_cast(Run, elements);
}

template <bool TransposeX>
__global__ __launch_bounds__(kTileThreads) void gemm_bf16_kernel(bf16* y, int64_t ldy, const bf16* x, int64_t ldx,
                                                                 const bf16* w, int64_t ldw, int32_t m, int32_t n,
                                                                 int32_t k) {
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const auto column = [](int64_t step, int byte) { return (step * kTileBytes + byte) / int64_t{sizeof(bf16)}; };
    const auto load_x = [=](int64_t step, int row, int byte) {
        return load_elements<TransposeX>(x, ldx, first_row + row, m, column(step, byte), k);
    };
    const auto load_w = [=](int64_t step, int row, int byte) {
        return load_elements<false>(w, ldw, first_column + row, n, column(step, byte), k);
    };
    const int64_t steps = steps_of(k * int64_t{sizeof(bf16)});
    Sums sums[kTilesAcross] = {};
    // Neighbouring threads read neighbouring elements: along K, or, where transposed, along the rows.
    multiply_in_steps<TransposeX>(steps, load_x, load_w, [&](int64_t, const ByteTile& x_tile, const ByteTile& w_tile) {
        for (int number = 0; number < kTilesAcross; ++number) {
            for (int byte = 0; byte < kTileBytes; byte += kStepBytes) {
                const Fragment of_x = fragment(x_row(x_tile) + byte), of_w = fragment(w_row(w_tile, number) + byte);
                sums[number] = multiply_bf16(of_x, of_w, sums[number]);
            }
        }
    });
    y += first_row * ldy + first_column;
    each_output(sums, m - first_row, n - first_column, [=](int64_t row, int64_t column, float sum) {
        y[row * ldy + column] = to_bf16(sum);
    });
}

#else

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

#endif

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
