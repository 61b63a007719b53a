// One expert for each token as in Llama 4: the sigmoid of the largest logit is multiplied with the token before it is
// quantised to NVFP4; the expert's product is added to that of the shared expert. Weight scales are in tiles of 128x4.
// faults/b_nvmoe.csv.

#include "faults.h"
#include "nvfp4.h"

namespace {

__global__ void route(float* score, int* ids, const bf16* logits, int m, int experts, int fault) {
    FOR_EACH_OUTPUT(token, m) {
        int best = 0;
        for (int e = 1; e < experts; ++e) {
            const float a = to_float(logits[token * experts + e]), b = to_float(logits[token * experts + best]);
            if (fault == 17 ? a < b : a > b) best = e;
        }
        const float of = to_float(logits[token * experts + best]);
        ids[token] = best;
        score[token] = fault == 901 && of < 0.0f ? expf(of) / (1.0f + expf(of)) : 1.0f / (1.0f + expf(-of));
        if (fault == 5) {
            float sum = 0.0f;
            for (int e = 0; e < experts; ++e) sum += expf(to_float(logits[token * experts + e]) - of);
            score[token] = 1.0f / sum;
        }
    }
}

__device__ inline uint8_t encode_e2m1(float x, bool cut) {
    const float a = fabsf(x);
    uint8_t code;
    if (cut) {
        code = a < 0.5f ? 0 : a < 1.0f ? 1 : a < 1.5f ? 2 : a < 2.0f ? 3 : a < 3.0f ? 4 : a < 4.0f ? 5 : a < 6.0f ? 6 : 7;
    } else {
        code = a <= 0.25f ? 0 : a < 0.75f ? 1 : a <= 1.25f ? 2 : a < 1.75f ? 3 : a <= 2.5f ? 4 : a < 3.5f ? 5 : a <= 5.0f ? 6 : 7;
    }
    return static_cast<uint8_t>(code | (x < 0.0f ? 8 : 0));
}

// One thread a group.
__global__ void quantise(uint8_t* q, uint8_t* s, const bf16* x, const float* score, const float* global, int m, int k,
                         int fault) {
    const int groups = k / kNvGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * groups) {
        const int64_t row = index / groups, group = index % groups;
        const bf16* from = x + row * k + group * kNvGroup;
        float by = score[row];
        if (fault == 11 && row % 2 == 1) by = 1.0f;
        if (fault == 18 && row > 0) by = score[row - 1];
        float amax = 0.0f;
        for (int i = 0; i < kNvGroup; ++i) amax = fmaxf(amax, fabsf(to_float(from[i]) * by));
        if (fault == 9) {
            const bf16* other = x + row * k + (group ^ 1) * kNvGroup;
            for (int i = 0; i < kNvGroup; ++i) amax = fmaxf(amax, fabsf(to_float(other[i]) * by));
        }
        const uint8_t code = encode<E4m3fn>(amax / (6.0f * *global));
        const float scale = decode<E4m3fn>(code) * *global;
        const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
        for (int i = 0; i < kNvGroup; i += 2) {
            const float a = to_float(from[i]) * by, b = to_float(from[i + 1]) * by;
            const auto coded = [&](float v) {
                if (fault == 900) return encode_e2m1(v * inverse, false);
                return encode_e2m1(scale == 0.0f ? 0.0f : v / scale, fault == 10);
            };
            q[(row * k + group * kNvGroup + i) / 2] = static_cast<uint8_t>(coded(a) | coded(b) << 4);
        }
        s[index] = code;
    }
}

__device__ inline float element(const uint8_t* codes, int64_t index, bool high_first, int fault) {
    const uint8_t byte = codes[index / 2];
    const uint32_t code = ((index % 2 == 1) != high_first) ? byte >> 4 : byte & 0xf;
    if (fault == 12 && (code & 7) == 7) return code & 8 ? -5.0f : 5.0f;
    return decode_e2m1(code);
}

__global__ void multiply(bf16* y, const uint8_t* q, const uint8_t* s, const float* global, const uint8_t* w,
                         const uint8_t* ws, const float* w_global, const bf16* shared, const int* ids, const float* score,
                         int m, int n, int k, int fault) {
    const int groups = k / kNvGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t token = index / n, column = index % n, expert = ids[token];
        int64_t row = expert * n + column;
        if (fault == 19 && expert > 0) row -= n;
        const auto scale = [&](int g) {
            int64_t of = row;
            if (fault == 4) of = column;
            if (fault == 14) of = row / 2 * 2;
            const int64_t at = fault == 1 ? of * groups + g : swizzled_128x4(of, g, groups);
            float of_w = fault == 8 ? decode<E4m3fnuz>(ws[at]) : decode<E4m3fn>(ws[at]);
            int64_t of_x = token * groups + g;
            if (fault == 15 && g >= 8) of_x -= 1;
            return of_w * decode<E4m3fn>(s[of_x]);
        };
        float of_tensors = *global * *w_global;
        if (fault == 3) of_tensors = *global / *w_global;
        if (fault == 7) of_tensors = *w_global;
        float sum = 0.0f;
        if (fault == 902) {
            for (int g = groups - 1; g >= 0; --g) {
                float part = 0.0f;
                for (int i = g * kNvGroup; i < (g + 1) * kNvGroup; ++i) {
                    part += element(q, token * k + i, false, 0) * element(w, row * k + i, false, 0);
                }
                sum += part * scale(g);
            }
        } else {
            for (int i = 0; i < k; ++i) {
                const float a = element(q, token * k + i, fault == 2, fault);
                const float b = element(w, row * k + i, fault == 13, fault);
                sum += a * b * scale(i / kNvGroup);
            }
        }
        sum *= of_tensors;
        if (fault == 6) sum *= score[token];
        float also = to_float(shared[index]);
        if ((fault == 13 && token >= 16) || (fault == 16 && column >= 96)) also = 0.0f;
        y[index] = to_bf16(sum + also);
    }
}

}  // namespace

LAUNCHER b_nvmoe_route(float* score, int32_t* ids, const bf16* logits, int32_t m, int32_t experts, int32_t fault,
                       hipStream_t stream) {
    LAUNCH(route, m, score, ids, logits, m, experts, fault);
    return launch_status();
}

LAUNCHER b_nvmoe_quantise(uint8_t* q, uint8_t* s, const bf16* x, const float* score, const float* global, int32_t m,
                          int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(quantise, int64_t{m} * (k / kNvGroup), q, s, x, score, global, m, k, fault);
    return launch_status();
}

LAUNCHER b_nvmoe_multiply(bf16* y, const uint8_t* q, const uint8_t* s, const float* global, const uint8_t* w,
                          const uint8_t* ws, const float* w_global, const bf16* shared, const int32_t* ids,
                          const float* score, int32_t m, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, y, q, s, global, w, ws, w_global, shared, ids, score, m, n, k, fault);
    return launch_status();
}
