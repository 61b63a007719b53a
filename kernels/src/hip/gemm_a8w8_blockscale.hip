// Block-scaled fp8 GEMM: Y[m, n] = sum over k of X[m, k] Sx[m, k / 128] W[n, k] Sw[n / 128, k / 128].
// Sx is row-major [m, k / 128], or, with shuffle_scale, column-major; Sw is row-major [ceil(n / 128), k / 128]. W is
// row-major or, in gemm_a8w8_blockscale_bpreshuffle, preshuffled in tiles of 16 x 32.

#include "gemm_blockscale.h"

namespace {

struct XScale {
    const float* s;
    int32_t m, groups;
    bool shuffle_scale;
    __device__ float operator()(int64_t r, int64_t group) const {
        return s[shuffle_scale ? group * m + r : r * groups + group];
    }
};

struct WScale {
    const float* s;
    int32_t groups;
    __device__ float operator()(int64_t row, int64_t group) const { return s[row / kGroup * groups + group]; }
};

template <class RunOfW>
int32_t gemm(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t m, int32_t n,
             int32_t k, int32_t format, bool shuffle_scale, hipStream_t stream) {
    if (any_null(xs, ws)) return kInvalidArgument;
    const XScale x_scale{xs, m, k / kGroup, shuffle_scale};
    return gemm_blockscale<RunOfW>(y, xq, x_scale, wq, WScale{ws, k / kGroup}, m, n, k, format, stream);
}

}  // namespace

LAUNCHER gemm_a8w8_blockscale(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                              int32_t m, int32_t n, int32_t k, int32_t format, bool shuffle_scale,
                              hipStream_t stream) {
    return gemm<RowMajor>(y, xq, xs, wq, ws, m, n, k, format, shuffle_scale, stream);
}

LAUNCHER gemm_a8w8_blockscale_bpreshuffle(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq,
                                          const float* ws, int32_t m, int32_t n, int32_t k, int32_t format,
                                          bool shuffle_scale, hipStream_t stream) {
    if (n > 0 && n % 16 != 0) return kUnsupported;
    return gemm<Preshuffled16x16>(y, xq, xs, wq, ws, m, n, k, format, shuffle_scale, stream);
}

ACCURACY_BOUND(gemm_a8w8_blockscale);
ACCURACY_BOUND(gemm_a8w8_blockscale_bpreshuffle);
