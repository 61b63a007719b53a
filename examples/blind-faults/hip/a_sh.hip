// A shared expert in e4m3fnuz: groups of 128 of the activations, weights in blocks of 128 x 128, SwiGLU in between, and a
// result that is added to the routed experts' in place. faults/a_sh.csv.

#include "faults.h"

namespace {

using F = E4m3fnuz;

// Codes and scale of one group.
template <class Value>
__device__ void quantise_group(uint8_t* codes, float* scale, Value value, float most, int fault) {
    const bool by_reciprocal = fault == 902;
    float amax = 1e-10f, nan = 0.0f;
    for (int i = 0; i < kGroup; ++i) {
        const float magnitude = fabsf(value(i));
        if (magnitude != magnitude) nan = magnitude;
        amax = fmaxf(amax, magnitude);
    }
    if (fault == 905) amax += nan;
    const float of = by_reciprocal ? amax * (1.0f / most) : amax / most, inverse = 1.0f / of;
    for (int i = 0; i < kGroup; ++i) codes[i] = encode<F>(by_reciprocal ? value(i) * inverse : value(i) / of);
    *scale = of;
}

// Scales are column-major.
__global__ void quantise(uint8_t* q, float* s, const bf16* x, int m, int k, int fault) {
    const int groups = k / kGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * groups) {
        const int64_t row = index / groups, group = index % groups;
        const bf16* from = x + row * k + group * kGroup;
        const auto value = [&](int i) { return to_float(from[i]); };
        quantise_group(q + row * k + group * kGroup, s + group * m + row, value, fault == 2 ? 448.0f : F::max,
                       fault);
    }
}

__global__ void gate_up(bf16* gu, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int m, int n,
                        int k, int fault) {
    const int groups = k / kGroup, blocks = n / kGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n, block = column / kGroup;
        const auto scale = [&](int64_t group) {
            int64_t of_row = group * m + row;
            if (fault == 4) of_row = min(group * ((m + 3) / 4 * 4) + row, int64_t{groups} * m - 1);
            return xs[of_row] * ws[fault == 3 ? group * blocks + block : block * groups + group];
        };
        const auto weight = [&](int64_t i) {
            const uint8_t code = wq[column * k + i];
            return fault == 1 && column >= n / 2 ? decode<E4m3fn>(code) : decode<F>(code);
        };
        float sum = 0.0f;
        if (fault == 901) {
            for (int group = 0; group < groups; ++group) {
                float part = 0.0f;
                for (int i = 0; i < kGroup; ++i) {
                    const int64_t at = group * kGroup + i;
                    part += decode<F>(xq[row * k + at]) * weight(at);
                }
                sum += part * scale(group);
            }
        } else {
            for (int j = 0; j < k; ++j) {
                const int i = fault == 900 ? k - 1 - j : j;
                sum += decode<F>(xq[row * k + i]) * weight(i) * scale(i / kGroup);
            }
        }
        gu[index] = to_bf16(sum);
    }
}

// Gate and up are the halves of a row; scales are row-major.
__global__ void activate(uint8_t* hq, float* hs, const bf16* gu, int m, int k, int fault) {
    const int groups = k / kGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * groups) {
        const int64_t row = index / groups, group = index % groups;
        const bf16* from = gu + row * 2 * k + group * kGroup;
        const bool swapped = fault == 6 || (fault == 12 && group == 1);
        const auto value = [&](int i) {
            const float gate = to_float(from[swapped ? i + k : i]), up = to_float(from[swapped ? i : i + k]);
            float of = gate / (1.0f + expf(-gate));
            if (fault == 7) of = gate / (1.0f + expf(-1.702f * gate));
            if (fault == 903) of = gate * (1.0f / (1.0f + exp2f(-1.4426950408889634f * gate)));
            return fault == 8 ? round_bf16(of * up) : of * up;
        };
        quantise_group(hq + row * k + group * kGroup, hs + index, value, F::max, fault);
    }
}

__global__ void down(bf16* y, const uint8_t* hq, const float* hs, const uint8_t* wq, const float* ws, int m, int n, int k,
                     int fault) {
    const int groups = k / kGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        if (fault == 11 && row >= m / 8 * 8) continue;
        int64_t block = column / kGroup;
        if (fault == 12 && block == n / kGroup) --block;
        float sum = 0.0f, lanes[2] = {};
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            const int group = i / kGroup, of_row = fault == 5 && row >= 16 ? 0 : group;
            const float term = decode<F>(hq[row * k + i]) * decode<F>(wq[column * k + i]) * hs[row * groups + of_row] *
                               ws[block * groups + group];
            sum += term;
            lanes[i / 16 % 2] += term;
            if (fault == 10 && j % 64 == 63) sum = round_bf16(sum);
        }
        if (fault == 904) sum = lanes[0] + lanes[1];
        float routed = to_float(y[index]);
        if (fault == 9 && column >= n / kGroup * kGroup) routed *= 2.0f;
        y[index] = to_bf16(sum + routed);
    }
}

}  // namespace

LAUNCHER a_sh_quantise(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(quantise, int64_t{m} * (k / kGroup), q, s, x, m, k, fault);
    return launch_status();
}

LAUNCHER a_sh_gate_up(bf16* gu, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t m,
                      int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(gate_up, int64_t{m} * n, gu, xq, xs, wq, ws, m, n, k, fault);
    return launch_status();
}

LAUNCHER a_sh_activate(uint8_t* hq, float* hs, const bf16* gu, int32_t m, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(activate, int64_t{m} * (k / kGroup), hq, hs, gu, m, k, fault);
    return launch_status();
}

LAUNCHER a_sh_down(bf16* y, const uint8_t* hq, const float* hs, const uint8_t* wq, const float* ws, int32_t m, int32_t n,
                   int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(down, int64_t{m} * n, y, hq, hs, wq, ws, m, n, k, fault);
    return launch_status();
}
