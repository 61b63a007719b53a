// The routing of moe_route.hip by one thread for each token, and by a single thread for all rows.

#include "moe_route.h"

namespace {

constexpr int kThreads = 64;

__global__ void topk_softmax_fallback_kernel(float* weights, int32_t* ids, const bf16* logits, const float* bias,
                                             int32_t m, int32_t experts, int32_t topk, bool renormalize) {
    const int64_t token = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (token >= m) return;
    const bf16* row = logits + token * experts;
    weights += token * topk;
    ids += token * topk;
    // The largest logit that is not taken yet; of equals the one of the lower expert.
    for (int32_t slot = 0; slot < topk; ++slot) {
        int32_t best = -1;
        float best_logit = -INFINITY;
        for (int32_t e = 0; e < experts; ++e) {
            const float logit = to_float(row[e]) + bias[e];
            bool taken = false;
            for (int32_t s = 0; s < slot; ++s) taken = taken || ids[s] == e;
            if (!taken && (best < 0 || logit > best_logit)) {
                best = e;
                best_logit = logit;
            }
        }
        ids[slot] = best;
        weights[slot] = best_logit;
    }
    const float largest = weights[0];
    float sum = 0.0f, chosen = 0.0f;
    for (int32_t e = 0; e < experts; ++e) sum += expf(to_float(row[e]) + bias[e] - largest);
    for (int32_t s = 0; s < topk; ++s) chosen += expf(weights[s] - largest);
    for (int32_t s = 0; s < topk; ++s) weights[s] = expf(weights[s] - largest) / (renormalize ? chosen : sum);
}

__global__ void moe_sort_fallback_kernel(int32_t* rows, int32_t* offsets, const int32_t* ids, int32_t count,
                                         int32_t experts) {
    int32_t at = 0;
    for (int32_t e = 0; e < experts; ++e) {
        offsets[e] = at;
        for (int32_t i = 0; i < count; ++i) {
            if (ids[i] == e) rows[at++] = i;
        }
    }
    offsets[experts] = at;
}

}  // namespace

LAUNCHER topk_softmax_fallback(float* weights, int32_t* ids, const bf16* logits, const float* bias, int32_t m,
                               int32_t experts, int32_t topk, bool renormalize, hipStream_t stream) {
    if (any_null(weights, bias) || any_null(ids) || any_null(logits)) return kInvalidArgument;
    if (const Status status = check_topk(m, experts, topk); status != kOk) return status;
    hipLaunchKernelGGL(topk_softmax_fallback_kernel, dim3(ceil_div(m, kThreads)), dim3(kThreads), 0, stream, weights,
                       ids, logits, bias, m, experts, topk, renormalize);
    return launch_status();
}

LAUNCHER moe_sort_fallback(int32_t* rows, int32_t* offsets, const int32_t* ids, int32_t count, int32_t experts,
                           hipStream_t stream) {
    if (any_null(rows, offsets, ids) || count <= 0 || experts <= 0) return kInvalidArgument;
    hipLaunchKernelGGL(moe_sort_fallback_kernel, dim3(1), dim3(1), 0, stream, rows, offsets, ids, count, experts);
    return launch_status();
}

ACCURACY_BOUND(topk_softmax_fallback);
ACCURACY_BOUND(moe_sort_fallback);
