// Experts as DeepGEMM's contiguous grouped product takes them: rows are gathered by expert while they are quantised to e4m3fn,
// each expert's filled up to a multiple of 8, multiplied by their expert's weight in blocks of 128 x 128, and summed for each
// token by routing weights. faults/a_gg.csv.

#include "faults.h"

namespace {

// Scales are column-major.
__global__ void gather_quantise(uint8_t* q, float* s, const bf16* x, const int* tokens, int rows, int k, int fault) {
    const int groups = k / kGroup;
    FOR_EACH_OUTPUT(index, int64_t{rows} * groups) {
        const int64_t row = index / groups, group = index % groups;
        const int64_t token = fault == 7 || fault == 11 ? tokens[row] % 16 : tokens[row];
        const bf16* from = x + token * k + group * kGroup;
        float amax = 1e-4f;
        for (int i = 0; i < kGroup; ++i) amax = fmaxf(amax, fabsf(to_float(from[i])));
        const float scale = amax / 448.0f, inverse = 1.0f / scale;
        for (int i = 0; i < kGroup; ++i) {
            const float value = to_float(from[i]);
            q[row * k + group * kGroup + i] = encode<E4m3fn>(fault == 903 ? value * inverse : value / scale);
        }
        s[group * rows + row] = scale;
    }
}

__global__ void multiply(bf16* up, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                         const int* experts, int rows, int n, int k, int count, int fault) {
    const int groups = k / kGroup, blocks = n / kGroup;
    FOR_EACH_OUTPUT(index, int64_t{rows} * n) {
        const int64_t row = index / n, column = index % n;
        const int64_t expert = experts[fault == 1 ? row / 16 * 16 : row];
        if (fault == 8 && expert == count - 1 && row % 8 >= 4 && column >= n / 2) continue;
        const int64_t of_weight = fault == 10 && expert == 2 && column >= kGroup ? column - kGroup : column;
        const uint8_t* weights = wq + (expert * n + of_weight) * k;
        const float* scales = ws + expert * blocks * groups;
        const int64_t block = column / kGroup;
        const auto scale = [&](int group) {
            const int64_t of_row = (fault == 3 && row >= 32 ? 0 : group) * int64_t{rows} + row;
            return xs[of_row] * scales[fault == 2 ? group * blocks + block : block * groups + group];
        };
        const auto weight = [&](int i) {
            const uint8_t code = weights[i];
            if (fault == 12 && expert == 1) return code == 0x80 ? 0.0f : decode<E4m3fnuz>(code);
            return decode<E4m3fn>(code);
        };
        float sum = 0.0f;
        if (fault == 901) {
            for (int group = 0; group < groups; ++group) {
                float part = 0.0f;
                for (int i = group * kGroup; i < (group + 1) * kGroup; ++i) part += decode<E4m3fn>(xq[row * k + i]) * weight(i);
                sum += part * scale(group);
            }
        } else {
            for (int j = 0; j < k; ++j) {
                const int i = fault == 900 ? k - 1 - j : j;
                sum += decode<E4m3fn>(xq[row * k + i]) * weight(i) * scale(i / kGroup);
            }
        }
        up[index] = to_bf16(sum);
    }
}

__global__ void combine(bf16* y, const bf16* up, const int* places, const float* weights, int m, int n, int topk,
                        int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t token = index / n, column = index % n;
        float total = 0.0f;
        for (int s = 0; s < topk; ++s) total += weights[token * topk + s];
        const bool again = fault == 5 || fault == 11;
        float sum = 0.0f;
        for (int j = 0; j < topk; ++j) {
            const int s = fault == 902 ? topk - 1 - j : j;
            int64_t place = places[token * topk + s];
            if (fault == 6 && token % 2 == 1 && s == 1) place = places[token * topk] + 1;
            const float weight = weights[fault == 4 ? s * m + token : token * topk + s];
            const float value = to_float(up[place * n + column]);
            sum = fault == 902 ? fmaf(value, weight, sum) : sum + value * (again ? weight / total : weight);
        }
        y[index] = to_bf16(sum);
    }
}

}  // namespace

LAUNCHER a_gg_quantise(uint8_t* q, float* s, const bf16* x, const int32_t* tokens, int32_t rows, int32_t k, int32_t fault,
                       hipStream_t stream) {
    LAUNCH(gather_quantise, int64_t{rows} * (k / kGroup), q, s, x, tokens, rows, k, fault);
    return launch_status();
}

LAUNCHER a_gg_multiply(bf16* up, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                       const int32_t* experts, int32_t rows, int32_t n, int32_t k, int32_t count, int32_t fault,
                       hipStream_t stream) {
    LAUNCH(multiply, int64_t{rows} * n, up, xq, xs, wq, ws, experts, rows, n, k, count, fault);
    return launch_status();
}

LAUNCHER a_gg_combine(bf16* y, const bf16* up, const int32_t* places, const float* weights, int32_t m, int32_t n,
                      int32_t topk, int32_t fault, hipStream_t stream) {
    LAUNCH(combine, int64_t{m} * n, y, up, places, weights, m, n, topk, fault);
    return launch_status();
}
