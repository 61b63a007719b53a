// The inner product of fp8 GEMMs with scales for 128 elements of K or more: Y[m, n] = sum over k of
// X[m, k] Sx(m, k / 128) W[n, k] Sw(n, k / 128), summed in float32. Where W's codes lie and what the scales are is given.
#pragma once

#include "launcher.h"
#include "mfma_tile.h"

constexpr int kTileK = 64;
constexpr int kBytes = 16;  // codes per load

static_assert(kGroup % kTileK == 0, "a tile has one group of K");
static_assert(kTile * kTileK == kTileThreads * kBytes, "every thread loads once per tile");

// Where the run of kBytes codes begins that has (row, column) first.
struct RowMajor {
    __device__ int64_t operator()(int64_t row, int64_t column, int32_t k) const { return row * k + column; }
};
// aiter's shuffle_weight(layout=(16, 16)): tiles of 16 rows and 32 columns, cut into runs of 16 codes.
struct Preshuffled16x16 {
    __device__ int64_t operator()(int64_t row, int64_t column, int32_t k) const {
        return row / 16 * 16 * k + column / 32 * 32 * 16 + column % 32 / kBytes * kBytes * 16 + row % 16 * kBytes;
    }
};

#ifdef HAS_MFMA

static_assert(kTileBytes == kGroup, "a step has one group of K");

// On the matrix cores, whose sums of a group are scaled and added in float32.
template <class F, class RunOfW, class XScale, class WScale>
__global__ __launch_bounds__(kTileThreads) void gemm_blockscale_kernel(bf16* y, const uint8_t* xq, XScale x_scale,
                                                                       const uint8_t* wq, WScale w_scale, int32_t m,
                                                                       int32_t n, int32_t k) {
    if constexpr (DeviceFormat<F>::native) {
        const int64_t first_row = int64_t{blockIdx.x} * kTile;
        const int64_t first_column = int64_t{blockIdx.y} * kTile;
        const auto load_x = [=](int64_t group, int row, int byte) {
            if (first_row + row >= m) return Run{};
            return load<kBytes>(xq + RowMajor{}(first_row + row, group * kGroup + byte, k));
        };
        const auto load_w = [=](int64_t group, int row, int byte) {
            if (first_column + row >= n) return Run{};
            return load<kBytes>(wq + RunOfW{}(first_column + row, group * kGroup + byte, k));
        };
        Sums sums[kTilesAcross] = {};
        multiply_in_steps(k / kGroup, load_x, load_w, [&](int64_t group, const ByteTile& x, const ByteTile& w) {
            float of_row[4] = {};
            for (int i = 0; i < 4; ++i) {
                const int64_t row = first_row + output_row() + i;
                if (row < m) of_row[i] = x_scale(row, group);
            }
            for (int number = 0; number < kTilesAcross; ++number) {
                Sums of_group = {};
                for (int byte = 0; byte < kGroup; byte += kFp8Bytes) {
                    of_group = multiply_fp8<F>(x_row(x) + byte, w_row(w, number) + byte, of_group);
                }
                const int64_t column = first_column + output_column(number);
                const float of_column = column < n ? w_scale(column, group) : 0.0f;
                for (int i = 0; i < 4; ++i) {
                    const float scale = of_row[i] * of_column;
                    sums[number][i] += of_group[i] * scale;
                }
            }
        });
        y += first_row * n + first_column;
        each_output(sums, m - first_row, n - first_column, [=](int64_t row, int64_t column, float sum) {
            y[row * n + column] = to_bf16(sum);
        });
    } else {
        __builtin_trap();  // check_format refuses the formats that the device lacks
    }
}

#else

template <class F, class RunAt>
__device__ void load_tile(Tile<kTileK>& tile, const uint8_t* codes, int64_t first, int32_t rows, int32_t k, int64_t k0,
                          RunAt run_at) {
    const int row = threadIdx.x / (kTileK / kBytes);
    const int column = threadIdx.x % (kTileK / kBytes) * kBytes;
    Pack<uint8_t, kBytes> packed = {};
    if (first + row < rows) packed = load<kBytes>(codes + run_at(first + row, k0 + column, k));
    float values[kBytes];
    for (int i = 0; i < kBytes; ++i) values[i] = decode<F>(packed.v[i]);
    for (int i = 0; i < kBytes; ++i) tile.at[column + i][row] = values[i];
}

template <class F, class RunOfW, class XScale, class WScale>
__global__ __launch_bounds__(kTileThreads) void gemm_blockscale_kernel(bf16* y, const uint8_t* xq, XScale x_scale,
                                                                       const uint8_t* wq, WScale w_scale, int32_t m,
                                                                       int32_t n, int32_t k) {
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
            load_tile<F>(x_tile, xq, first_row, m, k, k0, RowMajor{});
            load_tile<F>(w_tile, wq, first_column, n, k, k0, RunOfW{});
            __syncthreads();
            multiply_tiles<kTileK>(of_group, x_tile, w_tile, row, column);
            __syncthreads();
        }
        float of_column[kPerThread] = {};
        for (int j = 0; j < kPerThread; ++j) {
            const int64_t c = first_column + column + j;
            if (c < n) of_column[j] = w_scale(c, group);
        }
        for (int i = 0; i < kPerThread && first_row + row + i < m; ++i) {
            const float of_row = x_scale(first_row + row + i, group);
            for (int j = 0; j < kPerThread; ++j) {
                const float scale = of_row * of_column[j];
                sum.v[i][j] += of_group.v[i][j] * scale;
            }
        }
    }
    store_tile(y, n, sum, first_row + row, first_column + column, m, n);
}

#endif

// The checks that are left are those of the scales.
template <class RunOfW, class XScale, class WScale>
int32_t gemm_blockscale(bf16* y, const uint8_t* xq, XScale x_scale, const uint8_t* wq, WScale w_scale, int32_t m,
                        int32_t n, int32_t k, int32_t format, hipStream_t stream) {
    if (any_null(y, xq, wq) || n <= 0) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    if (!is_aligned(xq, kBytes) || !is_aligned(wq, kBytes)) return kUnsupported;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL((gemm_blockscale_kernel<decltype(f), RunOfW, XScale, WScale>),
                           dim3(ceil_div(m, kTile), ceil_div(n, kTile)), dim3(kTileThreads), 0, stream, y, xq, x_scale,
                           wq, w_scale, m, n, k);
    });
}
