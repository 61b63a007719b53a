// GEMMs whose scales lie in tiles of 128 x 4, summed in float32:
//   gemm_nvfp4   Y[m, n] = sum over k of X[m, k] Sx[m, k / 16] W[n, k] Sw[n, k / 16] / (Gx Gw), e2m1 and e4m3fn
//   gemm_mxfp8   Y[m, n] = sum over k of X[m, k] Sx[m, k / 32] W[n, k] Sw[n, k / 32], e4m3fn and e8m0
// Codes are row-major. The scales of W are swizzled, those of X, too, with is_sf_swizzled, else row-major.

#include <type_traits>

#include "mfma_tile.h"
#include "nvfp4.h"

namespace {

constexpr int kTileK = 32;
constexpr int kRun = 16;  // codes that one thread decodes

struct Nvfp4 {
    static constexpr int group = kNvGroup, per_byte = 2;
    static __device__ float element(const Pack<uint8_t, 8>& run, int i) {
        return decode_e2m1(run.v[i / 2] >> (i % 2 * 4));
    }
    static __device__ float scale(uint8_t code) { return decode<E4m3fn>(code); }
};

struct Mxfp8 {
    static constexpr int group = kMxGroup, per_byte = 1;
    static __device__ float element(const Pack<uint8_t, 16>& run, int i) { return decode<E4m3fn>(run.v[i]); }
    static __device__ float scale(uint8_t code) { return decode_e8m0(code); }
};

template <class T>
__device__ inline void load_tile(Tile<kTileK>& tile, const uint8_t* codes, const uint8_t* scales, int64_t first,
                                 int32_t rows, int64_t k0, int32_t k, bool is_sf_swizzled) {
    constexpr int bytes = kRun / T::per_byte;
    const int run = threadIdx.x;
    if (run >= kTile * kTileK / kRun) return;
    const int row = run / (kTileK / kRun), column = run % (kTileK / kRun) * kRun;
    Pack<uint8_t, bytes> packed = {};
    float scale = 0.0f;
    if (first + row < rows) {
        packed = load<bytes>(codes + ((first + row) * k + k0 + column) / T::per_byte);
        const int64_t group = (k0 + column) / T::group;
        scale = T::scale(scales[scale_offset_128x4(first + row, group, k / T::group, is_sf_swizzled)]);
    }
    for (int i = 0; i < kRun; ++i) tile.at[column + i][row] = T::element(packed, i) * scale;
}

#ifdef __gfx950__

__device__ inline void gemm_mxfp8_tile(bf16* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq,
                                       const uint8_t* ws, int64_t first_row, int64_t first_column, int32_t m, int32_t n,
                                       int32_t k, bool is_sf_swizzled) {
    const int32_t groups = k / kMxGroup;
    const auto load_codes = [=](const uint8_t* codes, int64_t row, int64_t rows, int64_t column) {
        return row < rows && column < k ? load<kRunBytes>(codes + row * k + column) : Run{};
    };
    const auto load_x = [=](int64_t step, int row, int byte) {
        return load_codes(xq, first_row + row, m, step * kTileBytes + byte);
    };
    const auto load_w = [=](int64_t step, int row, int byte) {
        return load_codes(wq, first_column + row, n, step * kTileBytes + byte);
    };
    // What has no scale has codes that are zero, and the scale 1.
    const auto scale = [=](const uint8_t* scales, int64_t row, int64_t rows, int64_t step, bool tiled) -> int {
        const int64_t group = step * (kTileBytes / kMxGroup) + lane_quarter();
        return row < rows && group < groups ? scales[scale_offset_128x4(row, group, groups, tiled)] : kE8m0One;
    };
    Sums sums[kTilesAcross] = {};
    multiply_in_steps(steps_of(k), load_x, load_w, [&](int64_t step, const ByteTile& x, const ByteTile& w) {
        const int64_t row = first_row + threadIdx.x / kWave * kMfmaTile + lane_row();
        const int of_x = scale(xs, row, m, step, is_sf_swizzled);
        int of_w = 0;
        for (int number = 0; number < kTilesAcross; ++number) {
            of_w |= scale(ws, first_column + output_column(number), n, step, true) << (8 * number);
        }
        multiply_mxfp8(sums, x, of_x, w, of_w);
    });
    y += first_row * n + first_column;
    each_output(sums, m - first_row, n - first_column, [=](int64_t row, int64_t column, float sum) {
        y[row * n + column] = to_bf16(sum);
    });
}

#endif

// `x_global` and `w_global` are null where scales have one level.
template <class T>
__global__ __launch_bounds__(kTileThreads) void gemm_swizzled_kernel(bf16* y, const uint8_t* xq, const uint8_t* xs,
                                                                     const float* x_global, const uint8_t* wq,
                                                                     const uint8_t* ws, const float* w_global,
                                                                     int32_t m, int32_t n, int32_t k,
                                                                     bool is_sf_swizzled) {
    const int64_t first_row = int64_t{blockIdx.x} * kTile;
    const int64_t first_column = int64_t{blockIdx.y} * kTile;
#ifdef __gfx950__
    if constexpr (std::is_same_v<T, Mxfp8>) {
        gemm_mxfp8_tile(y, xq, xs, wq, ws, first_row, first_column, m, n, k, is_sf_swizzled);
        return;
    }
#endif
    __shared__ Tile<kTileK> x_tile;
    __shared__ Tile<kTileK> w_tile;
    const int row = threadIdx.x / kThreadsAcross * kPerThread;
    const int column = threadIdx.x % kThreadsAcross * kPerThread;

    Accumulator sum;
    for (int64_t k0 = 0; k0 < k; k0 += kTileK) {
        load_tile<T>(x_tile, xq, xs, first_row, m, k0, k, is_sf_swizzled);
        load_tile<T>(w_tile, wq, ws, first_column, n, k0, k, true);
        __syncthreads();
        multiply_tiles<kTileK>(sum, x_tile, w_tile, row, column);
        __syncthreads();
    }
    const float alpha = x_global ? 1.0f / *x_global / *w_global : 1.0f;
    for (int i = 0; i < kPerThread; ++i) {
        for (int j = 0; j < kPerThread; ++j) sum.v[i][j] *= alpha;
    }
    store_tile(y, n, sum, first_row + row, first_column + column, m, n);
}

template <class T>
int32_t gemm(bf16* y, const uint8_t* xq, const uint8_t* xs, const float* x_global, const uint8_t* wq,
             const uint8_t* ws, const float* w_global, int32_t m, int32_t n, int32_t k, bool is_sf_swizzled,
             hipStream_t stream) {
    if (any_null(y, xq, xs, wq, ws) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    constexpr int bytes = kRun / T::per_byte;
    if (k % kTileK != 0 || !is_aligned(xq, bytes) || !is_aligned(wq, bytes)) return kUnsupported;
    hipLaunchKernelGGL(gemm_swizzled_kernel<T>, dim3(ceil_div(m, kTile), ceil_div(n, kTile)), dim3(kTileThreads), 0,
                       stream, y, xq, xs, x_global, wq, ws, w_global, m, n, k, is_sf_swizzled);
    return launch_status();
}

}  // namespace

LAUNCHER gemm_nvfp4(bf16* y, const uint8_t* xq, const uint8_t* xs, const float* x_global, const uint8_t* wq,
                    const uint8_t* ws, const float* w_global, int32_t m, int32_t n, int32_t k, bool is_sf_swizzled,
                    hipStream_t stream) {
    if (any_null(x_global, w_global)) return kInvalidArgument;
    return gemm<Nvfp4>(y, xq, xs, x_global, wq, ws, w_global, m, n, k, is_sf_swizzled, stream);
}

LAUNCHER gemm_mxfp8(bf16* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, int32_t m,
                    int32_t n, int32_t k, hipStream_t stream) {
    return gemm<Mxfp8>(y, xq, xs, nullptr, wq, ws, nullptr, m, n, k, false, stream);
}

ACCURACY_BOUND(gemm_nvfp4);
ACCURACY_BOUND(gemm_mxfp8);
