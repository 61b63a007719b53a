// Experts are chosen by the softmax of their logits, whose largest are renormalised; tokens are permuted by their experts
// and quantised, multiplied by the weight of the expert, and permuted back. faults/c_route.csv.

#include "faults.h"

namespace {

constexpr int kMostExperts = 8, kRowsOfBlock = 16, kColumnsOfBlock = 32;

__global__ void route(float* weights, int* ids, const float* logits, int m, int experts, int topk, int fault) {
    FOR_EACH_OUTPUT(token, m) {
        const float* own = logits + token * experts;
        bool taken[kMostExperts] = {};
        float largest = -INFINITY, total = 0.0f, chosen = 0.0f;
        for (int e = 0; e < experts; ++e) largest = fmaxf(largest, own[e]);
        const auto power = [&](int e) { return fault == 8 ? exp2f(own[e] - largest) : expf(own[e] - largest); };
        for (int e = 0; e < experts; ++e) total += power(e);
        for (int s = 0; s < topk; ++s) {
            int best = -1;
            for (int e = 0; e < experts; ++e) {
                if (!taken[e] && (best < 0 || own[e] > own[best])) best = e;
            }
            taken[best] = true;
            ids[token * topk + s] = best;
            weights[token * topk + s] = fault == 901 ? power(best) : power(best) / total;
            chosen += weights[token * topk + s];
        }
        if (fault == 1 || fault == 13) continue;
        for (int s = 0; s < topk; ++s) weights[token * topk + s] /= chosen;
    }
}

// One thread: a stable sort by counting.
__global__ void sort(int* sorted, int* inverse, int* offsets, const int* ids, int rows, int experts, int fault) {
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    int count = 0;
    for (int e = 0; e < experts; ++e) {
        offsets[e] = count;
        for (int row = 0; row < rows; ++row) {
            if (ids[row] != e) continue;
            inverse[row] = count;
            sorted[count++] = row;
        }
        if (fault == 14 && e == 3) offsets[e] += 1;
    }
    offsets[experts] = count;
}

// A permuted row for each thread.
__global__ void permute(uint8_t* q, float* s, const bf16* x, const int* sorted, int m, int topk, int k, int fault) {
    FOR_EACH_OUTPUT(p, int64_t{m} * topk) {
        const int64_t token = fault == 10 ? sorted[p] % m : sorted[p] / topk;
        const bf16* own = x + token * k;
        float amax = 1e-8f;
        for (int i = 0; i < k; ++i) amax = fmaxf(amax, fabsf(to_float(own[i])));
        const float scale = amax / 448.0f, inverse = 448.0f / amax;
        for (int i = 0; i < k; ++i) {
            const float value = to_float(own[i]);
            q[p * k + i] = encode<E4m3fn>(fault == 903 ? value * inverse : value / scale);
        }
        s[p] = scale;
    }
}

__global__ void multiply(bf16* down, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                         const int* sorted, const int* offsets, int rows, int experts, int n, int k, int fault) {
    const int groups = k / kColumnsOfBlock;
    FOR_EACH_OUTPUT(index, int64_t{rows} * n) {
        const int64_t p = index / n, column = index % n;
        int expert = 0;
        while (expert + 1 < experts && (fault == 5 ? p > offsets[expert + 1] : p >= offsets[expert + 1])) ++expert;
        const int of = (fault == 6 || fault == 13) && expert == 5 ? 4 : expert;
        const float x_scale = xs[fault == 7 ? sorted[p] : p];
        const int end = fault == 11 && expert == 2 ? k - 32 : k;
        float sum = 0.0f;
        if (fault == 904) {
            // A sum for each block of K, which is scaled as a whole.
            for (int group = 0; group < groups; ++group) {
                float block = 0.0f;
                for (int i = group * kColumnsOfBlock; i < (group + 1) * kColumnsOfBlock; ++i) {
                    block += decode<E4m3fn>(xq[p * k + i]) * decode<E4m3fn>(wq[(int64_t{expert} * n + column) * k + i]);
                }
                sum = fmaf(block, ws[(int64_t{expert} * n + column) / kRowsOfBlock * groups + group], sum);
            }
        } else {
            for (int j = 0; j < end; ++j) {
                const int i = fault == 900 ? end - 1 - j : j;
                const float scale = ws[(int64_t{of} * n + column) / kRowsOfBlock * groups + i / kColumnsOfBlock];
                sum += decode<E4m3fn>(xq[p * k + i]) * decode<E4m3fn>(wq[(int64_t{expert} * n + column) * k + i]) * scale;
            }
        }
        down[index] = to_bf16(sum * x_scale);
    }
}

__global__ void combine(bf16* y, const bf16* down, const float* weights, const int* sorted, const int* inverse, int m,
                        int topk, int n, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t token = index / n, column = index % n;
        float sum = 0.0f;
        if (fault == 902) {
            // Rows in the order of their experts.
            for (int64_t p = 0; p < int64_t{m} * topk; ++p) {
                if (sorted[p] / topk == token) sum += weights[sorted[p]] * to_float(down[p * n + column]);
            }
        } else {
            for (int s = 0; s < topk; ++s) {
                const int64_t slot = token * topk + s;
                float weight = weights[fault == 4 ? token * topk + (s + 1) % topk : slot];
                if (fault == 9 && weight < 0.3f) continue;
                if (fault == 12) weight = round_bf16(weight);
                sum += weight * to_float(down[(fault == 3 ? sorted[slot] : inverse[slot]) * int64_t{n} + column]);
            }
        }
        y[index] = to_bf16(sum);
    }
}

}  // namespace

LAUNCHER c_route_choose(float* weights, int32_t* ids, const float* logits, int32_t m, int32_t experts, int32_t topk,
                        int32_t fault, hipStream_t stream) {
    if (experts > kMostExperts) return kUnsupported;
    LAUNCH(route, m, weights, ids, logits, m, experts, topk, fault);
    return launch_status();
}

LAUNCHER c_route_sort(int32_t* sorted, int32_t* inverse, int32_t* offsets, const int32_t* ids, int32_t rows,
                      int32_t experts, int32_t fault, hipStream_t stream) {
    LAUNCH(sort, 1, sorted, inverse, offsets, ids, rows, experts, fault);
    return launch_status();
}

LAUNCHER c_route_permute(uint8_t* q, float* s, const bf16* x, const int32_t* sorted, int32_t m, int32_t topk, int32_t k,
                         int32_t fault, hipStream_t stream) {
    LAUNCH(permute, int64_t{m} * topk, q, s, x, sorted, m, topk, k, fault);
    return launch_status();
}

LAUNCHER c_route_multiply(bf16* down, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                          const int32_t* sorted, const int32_t* offsets, int32_t rows, int32_t experts, int32_t n,
                          int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{rows} * n, down, xq, xs, wq, ws, sorted, offsets, rows, experts, n, k, fault);
    return launch_status();
}

LAUNCHER c_route_combine(bf16* y, const bf16* down, const float* weights, const int32_t* sorted, const int32_t* inverse,
                         int32_t m, int32_t topk, int32_t n, int32_t fault, hipStream_t stream) {
    LAUNCH(combine, int64_t{m} * n, y, down, weights, sorted, inverse, m, topk, n, fault);
    return launch_status();
}
