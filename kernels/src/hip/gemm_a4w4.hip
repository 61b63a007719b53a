// MXFP4 GEMM: Y[m, n] = sum over k of X[m, k] Sx[m, k / 32] W[n, k] Sw[n, k / 32], summed in float32.
// X is row-major, two codes a byte; W is preshuffled in tiles of 16 rows and 64 columns, cut into runs of 32 codes.
// Sw is swizzled (mx.h), Sx row-major or, with shuffle_scale, swizzled.

#include "mfma_tile.h"
#include "mx.h"

namespace {

constexpr int kTileK = 64;
constexpr int kRun = 32;  // codes that one thread decodes: a group, which is 16 bytes
constexpr int kBytes = kRun / 2;

static_assert(kTile * kTileK <= kTileThreads * kRun && kRun == kMxGroup, "a thread has one run and one scale");

// Where a run of 32 codes of W begins, in bytes.
__device__ inline int64_t preshuffled(int64_t row, int64_t column, int32_t k) {
    return (row / 16 * 16 * k + column / 64 * 64 * 16 + column % 64 / kRun * kRun * 16 + row % 16 * kRun) / 2;
}

#ifdef __gfx950__

// Scales of 16 rows, one for each of this lane's two groups: of group `lane_quarter()` of the first four groups of a
// step in byte 0, of the last four in byte 2. Groups behind the end have the scale 1, and codes that are zero.
__device__ inline int only_inside(int scales, int64_t first_group, int32_t groups) {
    constexpr int one = 0x7f7f;
    const int64_t group = first_group + lane_quarter();
    const int first = group < groups ? scales & 0xffff : one;
    return group + 4 < groups ? (scales & ~0xffff) | first : one << 16 | first;
}

// With the matrix cores' block scales. Swizzled, a lane finds those of 32 rows and 8 groups in one word: of its row in
// the first 16 rows in bytes 0 and 2, in the others in bytes 1 and 3.
__global__ __launch_bounds__(kTileThreads) void gemm_a4w4_kernel(bf16* y, const uint8_t* xq, const uint8_t* xs,
                                                                 const uint8_t* wq, const uint8_t* ws, int32_t m,
                                                                 int32_t n, int32_t k, bool shuffle_scale) {
    constexpr int kStepK = kTileBytes * 2, kStepGroups = kStepK / kMxGroup;
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
    const int32_t groups = k / kMxGroup;
    const auto load_x = [=](int64_t step, int row, int byte) {
        const int64_t r = first_row + row, column = step * kStepK + byte * 2;
        return r < m && column < k ? load<kRunBytes>(xq + (r * k + column) / 2) : Run{};
    };
    const auto load_w = [=](int64_t step, int row, int byte) {
        const int64_t r = first_column + row, column = step * kStepK + byte * 2;
        return r < n && column < k ? load<kRunBytes>(wq + preshuffled(r, column, k)) : Run{};
    };
    const auto word = [=](const uint8_t* scales, int64_t row, int64_t group) {
        int value;
        __builtin_memcpy(&value, scales + swizzled(row + lane_row(), group + lane_quarter(), groups), sizeof(value));
        return only_inside(value, group, groups);
    };
    const int64_t rows_of_wave = first_row + threadIdx.x / kWave * kMfmaTile;
    const auto x_scales = [=](int64_t group) {
        // The word begins with the first of 32 rows; a wave has the first or the last 16.
        if (shuffle_scale) return word(xs, rows_of_wave / 32 * 32, group) >> (rows_of_wave / 16 % 2 * 8);
        const int64_t row = rows_of_wave + lane_row(), mine = group + lane_quarter();
        const auto scale = [=](int64_t g) { return row < m && g < groups ? int{xs[row * groups + g]} : 0; };
        return only_inside(scale(mine) | scale(mine + 4) << 16, group, groups);
    };
    Sums sums[kTilesAcross] = {};
    const int64_t steps = (k + kStepK - 1) / kStepK;
    multiply_in_steps(steps, load_x, load_w, [&](int64_t step, const ByteTile& x, const ByteTile& w) {
        const int64_t group = step * kStepGroups;
        const int of_x = x_scales(group);
        // The buffer of scales has whole tiles of 256 rows.
        const int of_w[2] = {word(ws, first_column, group), word(ws, first_column + 32, group)};
        const Codes x_codes[2] = {codes_of_4_bits(x_row(x)), codes_of_4_bits(x_row(x) + kStepBytes)};
        for (int number = 0; number < kTilesAcross; number += 2) {
            const int scales = of_w[number / 2];
            const uint8_t *even = w_row(w, number), *odd = w_row(w, number + 1);
            Sums &a = sums[number], &b = sums[number + 1];
            a = multiply_scaled<kE2m1Code, 0, 0>(x_codes[0], of_x, codes_of_4_bits(even), scales, a);
            b = multiply_scaled<kE2m1Code, 0, 1>(x_codes[0], of_x, codes_of_4_bits(odd), scales, b);
            a = multiply_scaled<kE2m1Code, 2, 2>(x_codes[1], of_x, codes_of_4_bits(even + kStepBytes), scales, a);
            b = multiply_scaled<kE2m1Code, 2, 3>(x_codes[1], of_x, codes_of_4_bits(odd + kStepBytes), scales, b);
        }
    });
    y += first_row * n + first_column;
    each_output(sums, m - first_row, n - first_column, [=](int64_t row, int64_t column, float sum) {
        y[row * n + column] = to_bf16(sum);
    });
}

#else

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

#endif

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
