// Routing of a mixture of experts. topk_softmax: softmax over logits [m, experts] + bias [experts], the topk largest of
// each token in descending order (of equals the lower expert), their weights divided by their sum with renormalize.
// moe_sort: the rows 0 to count - 1, token * topk + slot, in the order of their experts and within an expert ascending,
// and where each expert's begin: offsets [experts + 1].

#include "moe_route.h"
#include "reduce.h"

namespace {

constexpr int kTokens = 4;  // tokens of a block

// A token has kLanes lanes, one for each expert.
__global__ __launch_bounds__(kTokens* kLanes) void topk_softmax_kernel(float* weights, int32_t* ids, const bf16* logits,
                                                                       const float* bias, int32_t m, int32_t experts,
                                                                       int32_t topk, bool renormalize) {
    const int64_t token = int64_t{blockIdx.x} * kTokens + threadIdx.x / kLanes;
    const int lane = threadIdx.x % kLanes;
    if (token >= m) return;
    const bool has_expert = lane < experts;
    const float logit = has_expert ? to_float(logits[token * experts + lane]) + bias[lane] : -INFINITY;
    const float e = expf(logit - lanes_max(logit));
    float sum = e;
    for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += __shfl_xor(sum, mask, kLanes);
    float left = has_expert ? logit : -INFINITY;
    bool taken = !has_expert;
    float mine = 0.0f, chosen = 0.0f;
    int slot = -1;
    for (int i = 0; i < topk; ++i) {
        const float best = lanes_max(left);
        int winner = !taken && left == best ? lane : kLanes;
        for (int mask = kLanes / 2; mask > 0; mask /= 2) winner = min(winner, __shfl_xor(winner, mask, kLanes));
        const float weight = __shfl(e / sum, winner, kLanes);
        chosen += weight;
        if (lane == winner) {
            taken = true;
            left = -INFINITY;
            slot = i;
            mine = weight;
        }
    }
    if (slot < 0) return;
    ids[token * topk + slot] = lane;
    weights[token * topk + slot] = renormalize ? mine / chosen : mine;
}

constexpr int kSortThreads = 256;

// A thread counts and places the rows of one expert.
__global__ __launch_bounds__(kSortThreads) void moe_sort_kernel(int32_t* rows, int32_t* offsets, const int32_t* ids,
                                                                int32_t count, int32_t experts) {
    __shared__ int32_t counts[kSortThreads];
    const int32_t expert = threadIdx.x;
    int32_t mine = 0;
    if (expert < experts) {
        for (int32_t i = 0; i < count; ++i) mine += ids[i] == expert;
    }
    counts[expert] = mine;
    __syncthreads();
    if (expert >= experts) return;
    int32_t at = 0;
    for (int32_t e = 0; e < expert; ++e) at += counts[e];
    offsets[expert] = at;
    if (expert == experts - 1) offsets[experts] = at + mine;
    for (int32_t i = 0; i < count; ++i) {
        if (ids[i] == expert) rows[at++] = i;
    }
}

}  // namespace

LAUNCHER topk_softmax(float* weights, int32_t* ids, const bf16* logits, const float* bias, int32_t m, int32_t experts,
                      int32_t topk, bool renormalize, hipStream_t stream) {
    if (any_null(weights, bias) || any_null(ids) || any_null(logits)) return kInvalidArgument;
    if (const Status status = check_topk(m, experts, topk); status != kOk) return status;
    if (experts > kLanes) return kUnsupported;
    hipLaunchKernelGGL(topk_softmax_kernel, dim3(ceil_div(m, kTokens)), dim3(kTokens * kLanes), 0, stream, weights, ids,
                       logits, bias, m, experts, topk, renormalize);
    return launch_status();
}

LAUNCHER moe_sort(int32_t* rows, int32_t* offsets, const int32_t* ids, int32_t count, int32_t experts,
                  hipStream_t stream) {
    if (any_null(rows, offsets, ids) || count <= 0 || experts <= 0) return kInvalidArgument;
    if (experts > kSortThreads) return kUnsupported;
    hipLaunchKernelGGL(moe_sort_kernel, dim3(1), dim3(kSortThreads), 0, stream, rows, offsets, ids, count, experts);
    return launch_status();
}

ACCURACY_BOUND(topk_softmax);
ACCURACY_BOUND(moe_sort);
