// fp8 GEMM with a scale for each token of X and output channel of W, both float32:
// Y[m, n] = (sum over k of X[m, k] W[n, k]) Sx[m] Sw[n]. W is row-major or, preshuffled, in tiles of 16 x 32.

#include "gemm_blockscale.h"

namespace {

struct OfRow {
    const float* s;
    __device__ float operator()(int64_t row, int64_t) const { return s[row]; }
};

}  // namespace

LAUNCHER gemm_a8w8_fp8(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t m,
                       int32_t n, int32_t k, int32_t format, bool preshuffled, hipStream_t stream) {
    if (any_null(xs, ws)) return kInvalidArgument;
    if (!preshuffled) return gemm_blockscale<RowMajor>(y, xq, OfRow{xs}, wq, OfRow{ws}, m, n, k, format, stream);
    if (n > 0 && n % 16 != 0) return kUnsupported;
    return gemm_blockscale<Preshuffled16x16>(y, xq, OfRow{xs}, wq, OfRow{ws}, m, n, k, format, stream);
}

ACCURACY_BOUND(gemm_a8w8_fp8);
