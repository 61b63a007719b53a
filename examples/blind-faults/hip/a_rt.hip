// Routing as DeepSeek-V3 has it (sigmoid scores, a bias for the selection alone, groups of experts), the order of slots by
// experts, and the weighted sum of each token's slots to which a shared expert is added. faults/a_rt.csv.

#include "faults.h"

namespace {

constexpr int kExperts = 16, kGroups = 4, kMostSlots = 8;

__global__ void route(float* weights, int* ids, const float* logits, const float* bias, int m, int experts, int groups,
                      int chosen, int topk, float factor, int fault) {
    const int size = experts / groups;
    FOR_EACH_OUTPUT(row, m) {
        float score[kExperts], choice[kExperts], of_group[kGroups];
        for (int e = 0; e < experts; ++e) {
            const float x = logits[row * experts + e];
            score[e] = fault == 901 ? 0.5f * tanhf(0.5f * x) + 0.5f : 1.0f / (1.0f + expf(-x));
            choice[e] = score[e] + bias[e];
            if (fault == 11 && e >= experts - size) choice[e] = score[e];
        }
        for (int g = 0; g < groups; ++g) {
            float first = -INFINITY, second = -INFINITY;
            for (int i = 0; i < size; ++i) {
                const float value = choice[g * size + i];
                if (value > first) {
                    second = first;
                    first = value;
                } else if (value > second) {
                    second = value;
                }
            }
            of_group[g] = fault == 1 ? first : first + second;
        }
        bool open[kGroups] = {};
        for (int c = 0; c < (fault == 5 ? chosen + 1 : chosen); ++c) {
            int best = -1;
            for (int g = 0; g < groups; ++g) {
                if (!open[g] && (best < 0 || of_group[g] > of_group[best])) best = g;
            }
            open[best] = true;
        }
        for (int e = 0; e < experts; ++e) {
            if (!open[e / size]) choice[e] = -INFINITY;
        }
        int taken[kMostSlots];
        float sum = 0.0f;
        for (int s = 0; s < topk; ++s) {
            int best = 0;
            for (int e = 1; e < experts; ++e) {
                if (choice[e] > choice[best]) best = e;
            }
            taken[s] = best;
            choice[best] = -INFINITY;
            if (fault == 3 && s == topk - 1) continue;
            sum += fault == 2 ? score[best] + bias[best] : score[best];
        }
        for (int s = 0; s < topk; ++s) {
            const int e = taken[s];
            const float value = fault == 2 ? score[e] + bias[e] : score[e];
            ids[row * topk + s] = e;
            const float by = fault == 4 ? 1.0f : factor;
            weights[row * topk + s] = fault == 901 ? value * (by / sum) : value / sum * by;
        }
    }
}

// One thread counts, as the smallest launch does.
__global__ void sort(int* sorted, int* offsets, const int* ids, int rows, int experts, int fault) {
    FOR_EACH_OUTPUT(thread, 1) {
        int count[kExperts + 1] = {};
        for (int r = 0; r < rows; ++r) ++count[ids[r] + 1];
        for (int e = 0; e < experts; ++e) count[e + 1] += count[e];
        for (int e = 0; e <= experts; ++e) offsets[thread + e] = count[fault == 6 && e < experts ? e + 1 : e];
        for (int r = 0; r < rows; ++r) sorted[count[ids[r]]++] = r;
    }
}

__global__ void combine(bf16* y, const bf16* down, const float* weights, const bf16* shared, int m, int n, int topk,
                        int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t token = index / n, column = index % n;
        const int64_t of_shared = fault == 8 && token >= 16 ? token - 16 : token;
        const float addend = to_float(shared[of_shared * n + column]);
        float sum = fault == 902 ? addend : 0.0f;
        for (int j = 0; j < topk; ++j) {
            const int s = fault == 900 ? topk - 1 - j : j;
            const int of_weight = fault == 9 && column >= 64 ? (s + 1) % topk : s;
            const float value = to_float(down[(token * topk + s) * n + column]), weight = weights[token * topk + of_weight];
            sum = fault == 902 ? fmaf(value, weight, sum) : sum + value * weight;
            if (fault == 7) sum += addend;
        }
        if (fault == 10) sum = round_bf16(sum);
        const bool added = fault == 7 || fault == 902 || (fault == 11 && token % 2 == 1);
        y[index] = to_bf16(added ? sum : sum + addend);
    }
}

}  // namespace

LAUNCHER a_rt_route(float* weights, int32_t* ids, const float* logits, const float* bias, int32_t m, int32_t experts,
                    int32_t groups, int32_t chosen, int32_t topk, float factor, int32_t fault, hipStream_t stream) {
    if (experts > kExperts || groups > kGroups || topk > kMostSlots) return kUnsupported;
    LAUNCH(route, m, weights, ids, logits, bias, m, experts, groups, chosen, topk, factor, fault);
    return launch_status();
}

LAUNCHER a_rt_sort(int32_t* sorted, int32_t* offsets, const int32_t* ids, int32_t rows, int32_t experts, int32_t fault,
                   hipStream_t stream) {
    if (experts > kExperts) return kUnsupported;
    LAUNCH(sort, 1, sorted, offsets, ids, rows, experts, fault);
    return launch_status();
}

LAUNCHER a_rt_combine(bf16* y, const bf16* down, const float* weights, const bf16* shared, int32_t m, int32_t n,
                      int32_t topk, int32_t fault, hipStream_t stream) {
    LAUNCH(combine, int64_t{m} * n, y, down, weights, shared, m, n, topk, fault);
    return launch_status();
}
