// The end of a mixture of experts: Y[m, n] = sum over slots of weights[m, slot] X[m * topk + slot, n]. Before it, with
// tensor parallelism, the sum of two shards' partial sums, which their devices exchange.

#include "bf16.h"
#include "launcher.h"

namespace {

constexpr int kThreads = 128;

__global__ __launch_bounds__(kThreads) void sum_shards_kernel(float* y, const float* a, const float* b, int64_t count) {
    const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (i < count) y[i] = a[i] + b[i];
}

__global__ __launch_bounds__(kThreads) void moe_weighted_sum_kernel(bf16* y, const float* weights, const float* x,
                                                                    int32_t n, int32_t topk) {
    const int64_t token = blockIdx.x;
    const int64_t column = int64_t{blockIdx.y} * kThreads + threadIdx.x;
    if (column >= n) return;
    float sum = 0.0f;
    for (int64_t slot = token * topk; slot < (token + 1) * topk; ++slot) sum += weights[slot] * x[slot * n + column];
    y[token * n + column] = to_bf16(sum);
}

}  // namespace

LAUNCHER sum_shards(float* y, const float* a, const float* b, int32_t rows, int32_t n, hipStream_t stream) {
    if (any_null(y, a, b) || rows <= 0 || n <= 0) return kInvalidArgument;
    const int64_t count = int64_t{rows} * n;
    hipLaunchKernelGGL(sum_shards_kernel, dim3(static_cast<uint32_t>((count + kThreads - 1) / kThreads)),
                       dim3(kThreads), 0, stream, y, a, b, count);
    return launch_status();
}

LAUNCHER moe_weighted_sum(bf16* y, const float* weights, const float* x, int32_t m, int32_t n, int32_t topk,
                          hipStream_t stream) {
    if (any_null(y, weights, x) || m <= 0 || n <= 0 || topk <= 0) return kInvalidArgument;
    hipLaunchKernelGGL(moe_weighted_sum_kernel, dim3(m, ceil_div(n, kThreads)), dim3(kThreads), 0, stream, y, weights,
                       x, n, topk);
    return launch_status();
}

ACCURACY_BOUND(sum_shards);
ACCURACY_BOUND(moe_weighted_sum);
