// gemm_a16w4 without shared memory or barriers: a thread per element of the output, which sums each group by itself.

#include "int4.h"

namespace {

constexpr int kThreads = 128;

__global__ __launch_bounds__(kThreads) void gemm_a16w4_fallback_kernel(bf16* y, const bf16* x, Int4Weight w) {
    const int64_t row = blockIdx.x;
    const int64_t column = int64_t{blockIdx.y} * kThreads + threadIdx.x;
    if (column >= w.n) return;
    x += row * w.k;
    float total = 0.0f;
    for (int64_t first = 0; first < w.k; first += w.group) {
        float sum = 0.0f;
        for (int64_t i = first; i < first + w.group; ++i) sum += to_float(x[i]) * w.at(column, i);
        total += sum;
    }
    y[row * w.n + column] = to_bf16(total);
}

}  // namespace

LAUNCHER gemm_a16w4_fallback(bf16* y, const bf16* x, const uint32_t* qweight, const uint16_t* scales,
                             const uint32_t* qzeros, int32_t m, int32_t n, int32_t k, int32_t group, int32_t packing,
                             hipStream_t stream) {
    const Int4Weight w{qweight, scales, qzeros, n, k, group, packing};
    if (any_null(y, x)) return kInvalidArgument;
    if (const Status status = check_int4(w, m); status != kOk) return status;
    hipLaunchKernelGGL(gemm_a16w4_fallback_kernel, dim3(m, ceil_div(n, kThreads)), dim3(kThreads), 0, stream, y, x, w);
    return launch_status();
}

ACCURACY_BOUND(gemm_a16w4_fallback);
