// The end of a mixture of experts: Y[m, n] = sum over slots of weights[m, slot] (A[m * topk + slot, n] + B[..]), A and
// B being the partial sums of two shards of tensor parallelism; B may be null.

#include "bf16.h"
#include "launcher.h"

namespace {

constexpr int kThreads = 128;

__global__ __launch_bounds__(kThreads) void moe_weighted_sum_kernel(bf16* y, const float* weights, const float* a,
                                                                    const float* b, int32_t n, int32_t topk) {
    const int64_t token = blockIdx.x;
    const int64_t column = int64_t{blockIdx.y} * kThreads + threadIdx.x;
    if (column >= n) return;
    float sum = 0.0f;
    for (int64_t slot = token * topk; slot < (token + 1) * topk; ++slot) {
        const int64_t at = slot * n + column;
        sum += weights[slot] * (b == nullptr ? a[at] : a[at] + b[at]);
    }
    y[token * n + column] = to_bf16(sum);
}

}  // namespace

LAUNCHER moe_weighted_sum(bf16* y, const float* weights, const float* a, const float* b, int32_t m, int32_t n,
                          int32_t topk, hipStream_t stream) {
    if (any_null(y) || any_null(weights, a) || m <= 0 || n <= 0 || topk <= 0) return kInvalidArgument;
    hipLaunchKernelGGL(moe_weighted_sum_kernel, dim3(m, ceil_div(n, kThreads)), dim3(kThreads), 0, stream, y, weights,
                       a, b, n, topk);
    return launch_status();
}
