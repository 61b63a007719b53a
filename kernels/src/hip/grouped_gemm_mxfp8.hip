// Grouped MXFP8 GEMM: row r of Y [rows, n] is X[r / rows_per_x, first_k ...] times the transposed weight of the row's
// expert, W [experts, n, ld]. `sorted` has the rows of one expert after the other, from offsets[expert] to
// offsets[expert + 1] (moe_sort). X and W have ld columns, of which k from first_k on take part (a shard of tensor
// parallelism); scales of groups of 32 are row-major, [.., ld / 32]. Sums are float32.

#include "mfma_tile.h"
#include "mx.h"

namespace {

__device__ inline void store(bf16* to, float value) { *to = to_bf16(value); }
__device__ inline void store(float* to, float value) { *to = value; }

template <class Y>
__global__ __launch_bounds__(kTileThreads) void grouped_gemm_mxfp8_kernel(
    Y* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, const int32_t* sorted,
    const int32_t* offsets, int32_t rows_per_x, int32_t n, int32_t k, int32_t ld, int32_t first_k) {
    const int32_t expert = blockIdx.z;
    const int32_t first = offsets[expert] + static_cast<int32_t>(blockIdx.x) * kTile;
    const int32_t end = offsets[expert + 1];
    if (first >= end) return;  // the whole block
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    wq += int64_t{expert} * n * ld;
    ws += int64_t{expert} * n * (ld / kMxGroup);
#ifdef __gfx950__
    const int32_t rows = end - first, groups = k / kMxGroup;
    const auto x_place = [=](int row) { return int64_t{sorted[first + row] / rows_per_x} * ld + first_k; };
    const auto w_place = [=](int row) { return (first_column + row) * ld + first_k; };
    const auto load_x = [=](int64_t step, int row, int byte) {
        const int64_t column = step * kTileBytes + byte;
        return row < rows ? load_run(xq + x_place(row) + column, k - column) : Run{};
    };
    const auto load_w = [=](int64_t step, int row, int byte) {
        const int64_t column = step * kTileBytes + byte;
        return first_column + row < n ? load_run(wq + w_place(row) + column, k - column) : Run{};
    };
    Sums sums[kTilesAcross] = {};
    multiply_in_steps(steps_of(k), load_x, load_w, [&](int64_t step, const ByteTile& x, const ByteTile& w) {
        const int64_t group = step * (kTileBytes / kMxGroup) + lane_quarter();
        // What has no scale has codes that are zero, and the scale 1.
        const auto scale = [=](const uint8_t* scales, int64_t place) -> int {
            return group < groups ? scales[place / kMxGroup + group] : kE8m0One;
        };
        const int row = threadIdx.x / kWave * kMfmaTile + lane_row();
        const int of_x = row < rows ? scale(xs, x_place(row)) : kE8m0One;
        int of_w = 0;
        for (int number = 0; number < kTilesAcross; ++number) {
            const int column = output_column(number);
            of_w |= (first_column + column < n ? scale(ws, w_place(column)) : kE8m0One) << (8 * number);
        }
        multiply_mxfp8(sums, x, of_x, w, of_w);
    });
    each_output(sums, rows, n - first_column, [=](int row, int column, float sum) {
        store(&y[int64_t{sorted[first + row]} * n + first_column + column], sum);
    });
#else
    constexpr int kTileK = 32;
    __shared__ Tile<kTileK> x_tile;
    __shared__ Tile<kTileK> w_tile;
    const int row = threadIdx.x / kThreadsAcross * kPerThread;
    const int column = threadIdx.x % kThreadsAcross * kPerThread;

    Accumulator sum;
    for (int64_t k0 = 0; k0 < k; k0 += kTileK) {
        for (int i = threadIdx.x; i < kTile * kTileK; i += kTileThreads) {
            const int r = i / kTileK, c = i % kTileK;
            const int64_t column_of_k = first_k + k0 + c;
            float x = 0.0f, w = 0.0f;
            if (first + r < end) {
                const int64_t at = int64_t{sorted[first + r] / rows_per_x} * ld + column_of_k;
                x = decode<E4m3fn>(xq[at]) * decode_e8m0(xs[at / kMxGroup]);
            }
            if (first_column + r < n) {
                const int64_t at = (first_column + r) * ld + column_of_k;
                w = decode<E4m3fn>(wq[at]) * decode_e8m0(ws[at / kMxGroup]);
            }
            x_tile.at[c][r] = x;
            w_tile.at[c][r] = w;
        }
        __syncthreads();
        multiply_tiles<kTileK>(sum, x_tile, w_tile, row, column);
        __syncthreads();
    }
    for (int i = 0; i < kPerThread && first + row + i < end; ++i) {
        const int64_t r = sorted[first + row + i];
        for (int j = 0; j < kPerThread && first_column + column + j < n; ++j) {
            store(&y[r * n + first_column + column + j], sum.v[i][j]);
        }
    }
#endif
}

template <class Y>
int32_t launch(Y* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, const int32_t* sorted,
               const int32_t* offsets, int32_t rows, int32_t rows_per_x, int32_t experts, int32_t n, int32_t k,
               int32_t ld, int32_t first_k, hipStream_t stream) {
    if (any_null(xq, xs, wq, ws) || any_null(sorted, offsets) || any_null(y)) return kInvalidArgument;
    if (rows <= 0 || rows_per_x <= 0 || experts <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (first_k < 0 || int64_t{first_k} + k > ld) return kInvalidArgument;
    if (k % kMxGroup != 0 || ld % kMxGroup != 0 || first_k % kMxGroup != 0) return kUnsupported;
    hipLaunchKernelGGL(grouped_gemm_mxfp8_kernel<Y>, dim3(ceil_div(rows, kTile), ceil_div(n, kTile), experts),
                       dim3(kTileThreads), 0, stream, y, xq, xs, wq, ws, sorted, offsets, rows_per_x, n, k, ld,
                       first_k);
    return launch_status();
}

}  // namespace

LAUNCHER grouped_gemm_mxfp8(bf16* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws,
                            const int32_t* sorted, const int32_t* offsets, int32_t rows, int32_t rows_per_x,
                            int32_t experts, int32_t n, int32_t k, int32_t ld, int32_t first_k, hipStream_t stream) {
    return launch(y, xq, xs, wq, ws, sorted, offsets, rows, rows_per_x, experts, n, k, ld, first_k, stream);
}

LAUNCHER grouped_gemm_mxfp8_f32(float* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws,
                                const int32_t* sorted, const int32_t* offsets, int32_t rows, int32_t rows_per_x,
                                int32_t experts, int32_t n, int32_t k, int32_t ld, int32_t first_k,
                                hipStream_t stream) {
    return launch(y, xq, xs, wq, ws, sorted, offsets, rows, rows_per_x, experts, n, k, ld, first_k, stream);
}

ACCURACY_BOUND(grouped_gemm_mxfp8);
ACCURACY_BOUND(grouped_gemm_mxfp8_f32);
