// gemm_bf16 without shared memory or barriers: a thread per element of the output, which sums its products in eight
// interleaved parts.

#include "bf16.h"
#include "launcher.h"

namespace {

constexpr int kThreads = 128;
constexpr int kParts = 8;

__global__ __launch_bounds__(kThreads) void gemm_bf16_fallback_kernel(bf16* y, int64_t ldy, const bf16* x,
                                                                      int64_t x_row, int64_t x_column, const bf16* w,
                                                                      int64_t ldw, int32_t n, int32_t k) {
    const int64_t row = blockIdx.x;
    const int64_t column = int64_t{blockIdx.y} * kThreads + threadIdx.x;
    if (column >= n) return;
    x += row * x_row;
    w += column * ldw;
    float parts[kParts] = {};
    int64_t i = 0;
    for (; i + kParts <= k; i += kParts) {
        for (int p = 0; p < kParts; ++p) parts[p] += to_float(x[(i + p) * x_column]) * to_float(w[i + p]);
    }
    for (; i < k; ++i) parts[0] += to_float(x[i * x_column]) * to_float(w[i]);
    for (int width = kParts / 2; width > 0; width /= 2) {
        for (int p = 0; p < width; ++p) parts[p] += parts[p + width];
    }
    y[row * ldy + column] = to_bf16(parts[0]);
}

}  // namespace

LAUNCHER gemm_bf16_fallback(bf16* y, int64_t ldy, const bf16* x, int64_t ldx, const bf16* w, int64_t ldw, int32_t m,
                            int32_t n, int32_t k, bool transpose_x, hipStream_t stream) {
    if (any_null(y, x, w) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (ldy < n || ldw < k || ldx < (transpose_x ? m : k)) return kInvalidArgument;
    const int64_t x_row = transpose_x ? 1 : ldx, x_column = transpose_x ? ldx : 1;
    hipLaunchKernelGGL(gemm_bf16_fallback_kernel, dim3(m, ceil_div(n, kThreads)), dim3(kThreads), 0, stream, y, ldy, x,
                       x_row, x_column, w, ldw, n, k);
    return launch_status();
}

ACCURACY_BOUND(gemm_bf16_fallback);
