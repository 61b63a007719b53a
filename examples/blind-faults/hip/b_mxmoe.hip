// Experts as gpt-oss has them: the softmax of the chosen logits, MXFP4 weights whose gate and up rows alternate, biases, a
// clamped SwiGLU, a down projection with a bias, and the weighted sum. faults/b_mxmoe.csv.

#include "faults.h"
#include "mx.h"

namespace {

constexpr int kMostExperts = 8, kMostSlots = 4;
constexpr float kAlpha = 1.702f;

__global__ void route(float* weights, int* ids, const bf16* logits, int m, int experts, int topk, int fault) {
    FOR_EACH_OUTPUT(token, m) {
        float of[kMostExperts];
        bool taken[kMostExperts] = {};
        for (int e = 0; e < experts; ++e) of[e] = to_float(logits[token * experts + e]);
        float chosen[kMostSlots];
        for (int s = 0; s < topk; ++s) {
            int best = -1;
            for (int e = 0; e < experts; ++e) {
                if (taken[e]) continue;
                if (best < 0 || of[e] > of[best] || (fault == 1 && of[e] == of[best])) best = e;
            }
            taken[best] = true;
            ids[token * topk + s] = best;
            chosen[s] = of[best];
        }
        float largest = chosen[0], sum = 0.0f;
        if (fault == 2) {
            for (int e = 0; e < experts; ++e) sum += expf(of[e] - largest);
        } else if (fault == 900) {
            for (int s = topk - 1; s >= 0; --s) sum += expf(chosen[s] - largest);
        } else {
            for (int s = 0; s < topk; ++s) sum += expf(chosen[s] - largest);
        }
        for (int s = 0; s < topk; ++s) weights[token * topk + s] = expf(chosen[s] - largest) / sum;
    }
}

__device__ inline float nibble(const uint8_t* codes, int64_t index, bool high_first) {
    const uint8_t byte = codes[index / 2];
    const bool high = (index % 2 == 1) != high_first;
    return decode_e2m1(high ? byte >> 4 : byte & 0xf);
}

// Row `slot` of `raw` is its token by the rows of its expert, of which the even ones are the gate's.
__global__ void project_up(bf16* raw, const bf16* x, const uint8_t* w, const uint8_t* ws, const bf16* bias,
                           const int* ids, int m, int topk, int n, int k, int fault) {
    const int groups = k / kMxGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * topk * n) {
        const int64_t slot = index / n, column = index % n, expert = ids[slot];
        const int64_t token = fault == 3 ? slot % m : slot / topk;
        const int64_t row = expert * n + column;
        const int end = fault == 4 ? k / 64 * 64 : k;
        const auto scale = [&](int g) {
            if (fault == 5) return decode_e8m0(ws[expert * n * groups + int64_t{g} * n + column]);
            return decode_e8m0(ws[row * groups + g]);
        };
        float sum = 0.0f;
        if (fault == 900) {
            for (int g = 0; g < groups; ++g) {
                float of_group = 0.0f;
                for (int i = g * kMxGroup; i < (g + 1) * kMxGroup; ++i) {
                    of_group += to_float(x[token * k + i]) * nibble(w, row * k + i, false);
                }
                sum += of_group * scale(g);
            }
        } else {
            for (int j = 0; j < end; ++j) {
                const int i = fault == 901 ? k - 1 - j : j;
                sum += to_float(x[token * k + i]) * (nibble(w, row * k + i, false) * scale(i / kMxGroup));
            }
        }
        raw[index] = to_bf16(sum + to_float(bias[row]));
    }
}

__global__ void activate(bf16* h, const bf16* raw, int rows, int inner, float limit, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{rows} * inner) {
        const int64_t row = index / inner, column = index % inner;
        const bf16* from = raw + row * 2 * inner;
        float gate = to_float(from[2 * column]), up = to_float(from[2 * column + 1]);
        if (fault == 6) gate = to_float(from[column]), up = to_float(from[inner + column]);
        if (fault == 7) gate = to_float(from[2 * column + 1]), up = to_float(from[2 * column]);
        if (fault != 8) gate = fminf(gate, limit);
        if (fault == 9) gate = fmaxf(gate, -limit);
        up = fminf(up, limit);
        if (fault != 10) up = fmaxf(up, -limit);
        const float alpha = fault == 11 ? 1.0f : kAlpha;
        const float glu = gate / (1.0f + expf(-alpha * gate));
        float value = (up + 1.0f) * glu;
        if (fault == 12) value = up * glu;
        if (fault == 902) value = up * glu + glu;
        h[index] = to_bf16(value);
    }
}

__global__ void project_down(bf16* d, const bf16* h, const uint8_t* w, const uint8_t* ws, const bf16* bias,
                             const int* ids, int m, int topk, int n, int k, int fault) {
    const int groups = k / kMxGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * topk * n) {
        const int64_t slot = index / n, column = index % n, expert = ids[slot], row = expert * n + column;
        const float factor = fault == 13 ? 0.5f : 1.0f;
        float sum = 0.0f;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 901 ? k - 1 - j : j;
            const float scale = decode_e8m0(ws[row * groups + i / kMxGroup]) * factor;
            sum += to_float(h[slot * k + i]) * (nibble(w, row * k + i, fault == 14) * scale);
        }
        int64_t of_bias = row;
        if (fault == 15 && expert > 0) of_bias = row - n;
        if (fault != 16 || slot % topk == 0) sum += to_float(bias[of_bias]);
        d[index] = to_bf16(sum);
    }
}

__global__ void combine(bf16* y, const bf16* d, const float* weights, int m, int n, int topk, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t token = index / n, column = index % n;
        float sum = 0.0f;
        for (int t = 0; t < topk; ++t) {
            const int s = fault == 902 ? topk - 1 - t : t;
            const float of_slot = to_float(d[(token * topk + s) * n + column]) * weights[token * topk + s];
            sum += fault == 17 ? round_bf16(of_slot) : of_slot;
            if (fault == 17) sum = round_bf16(sum);
        }
        y[index] = to_bf16(sum);
    }
}

}  // namespace

LAUNCHER b_mxmoe_route(float* weights, int32_t* ids, const bf16* logits, int32_t m, int32_t experts, int32_t topk,
                       int32_t fault, hipStream_t stream) {
    LAUNCH(route, m, weights, ids, logits, m, experts, topk, fault);
    return launch_status();
}

LAUNCHER b_mxmoe_up(bf16* raw, const bf16* x, const uint8_t* w, const uint8_t* ws, const bf16* bias, const int32_t* ids,
                    int32_t m, int32_t topk, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(project_up, int64_t{m} * topk * n, raw, x, w, ws, bias, ids, m, topk, n, k, fault);
    return launch_status();
}

LAUNCHER b_mxmoe_activate(bf16* h, const bf16* raw, int32_t rows, int32_t inner, float limit, int32_t fault,
                          hipStream_t stream) {
    LAUNCH(activate, int64_t{rows} * inner, h, raw, rows, inner, limit, fault);
    return launch_status();
}

LAUNCHER b_mxmoe_down(bf16* d, const bf16* h, const uint8_t* w, const uint8_t* ws, const bf16* bias, const int32_t* ids,
                      int32_t m, int32_t topk, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(project_down, int64_t{m} * topk * n, d, h, w, ws, bias, ids, m, topk, n, k, fault);
    return launch_status();
}

LAUNCHER b_mxmoe_combine(bf16* y, const bf16* d, const float* weights, int32_t m, int32_t n, int32_t topk,
                         int32_t fault, hipStream_t stream) {
    LAUNCH(combine, int64_t{m} * n, y, d, weights, m, n, topk, fault);
    return launch_status();
}
