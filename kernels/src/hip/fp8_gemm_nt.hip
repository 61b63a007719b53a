// fp8 GEMM with scales as DeepGEMM takes them, both operands e4m3fn and row-major. With float32 scales (sm_90) those of
// X [m, k / 128] are MN-major, those of W [ceil(n / 128), k / 128] row-major. With ue8m0 (sm_100) both operands have a
// scale for each row and group, packed into words.

#include "gemm_blockscale.h"
#include "mn_major.h"
#include "mx.h"

namespace {

struct MnMajor {
    const float* s;
    int32_t m;
    __device__ float operator()(int64_t row, int64_t group) const { return s[mn_major(row, group, m)]; }
};

struct Block {
    const float* s;
    int32_t groups;
    __device__ float operator()(int64_t row, int64_t group) const { return s[row / kGroup * groups + group]; }
};

struct PackedWords {
    const uint8_t* s;
    int32_t rows;
    __device__ float operator()(int64_t row, int64_t group) const {
        return decode_e8m0(s[packed_words(row, group, rows)]);
    }
};

}  // namespace

LAUNCHER fp8_gemm_nt(bf16* y, const uint8_t* xq, const void* xs, const uint8_t* wq, const void* ws, int32_t m,
                     int32_t n, int32_t k, bool ue8m0, hipStream_t stream) {
    if (any_null(xs, ws)) return kInvalidArgument;
    if (ue8m0) {
        const PackedWords x_scale{static_cast<const uint8_t*>(xs), m}, w_scale{static_cast<const uint8_t*>(ws), n};
        return gemm_blockscale<RowMajor>(y, xq, x_scale, wq, w_scale, m, n, k, kE4m3fn, stream);
    }
    const MnMajor x_scale{static_cast<const float*>(xs), m};
    const Block w_scale{static_cast<const float*>(ws), k / kGroup};
    return gemm_blockscale<RowMajor>(y, xq, x_scale, wq, w_scale, m, n, k, kE4m3fn, stream);
}

ACCURACY_BOUND(fp8_gemm_nt);
