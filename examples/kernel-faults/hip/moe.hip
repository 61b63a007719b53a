// silu(gate) * up quantised to fp8 in groups of 64, a grouped GEMM over slots that are sorted by expert and padded to
// blocks of four, times the routing weight, and the sum of each token's slots. faults/moe.csv.

#include "faults.h"

namespace {

constexpr int kCols = 64, kRows = 32, kBlock = 4;

__global__ void activate(uint8_t* q, float* s, const bf16* gate_up, int rows, int k, int fault) {
    const int groups = k / kCols;
    FOR_EACH_OUTPUT(index, int64_t{rows} * groups) {
        const int64_t row = index / groups, group = index % groups;
        const bf16* from = gate_up + row * 2 * k + group * kCols;
        const auto value = [&](int i) {
            const float gate = to_float(from[i]), up = to_float(from[k + i]);
            return gate / (1.0f + expf(-gate)) * up;
        };
        float amax = 0.0f;
        for (int i = 0; i < kCols; ++i) {
            if (fault == 26 && group == groups - 1 && i > 0) break;
            if (fault == 46 && group == 1 && i >= kCols / 2) break;
            amax = fmaxf(amax, fabsf(value(i)));
        }
        const float scale = amax > 0.0f ? amax / 448.0f : 1.0f;
        for (int i = 0; i < kCols; ++i) q[row * k + group * kCols + i] = encode<E4m3fn>(value(i) / scale);
        s[index] = scale;
    }
}

// `sorted` has the slots by expert, each expert's filled up to whole blocks with -1.
__global__ void multiply(bf16* down, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                         const float* weights, const int* ids, const int* sorted, int positions, int n, int k, int topk,
                         int fault) {
    const int groups = k / kCols;
    FOR_EACH_OUTPUT(index, int64_t{positions} * n) {
        const int64_t position = index / n, column = index % n, slot = sorted[position];
        if (slot < 0) continue;
        const int64_t expert = ids[slot], first = sorted[position / kBlock * kBlock];
        int64_t row = fault == 27 && expert == 1 ? first : slot;
        if (fault == 47 && expert == 2 && position % kBlock == kBlock - 1) row = sorted[position - 1];
        int64_t begin = expert * n * k;
        if (fault == 6) begin %= 1 << 16;
        if (fault == 44 && expert == 2) begin = 0;
        int64_t scales = fault == 29 && expert == 4 ? 0 : expert;
        if (fault == 41 && expert == 3) scales = 2;
        const int64_t scale_row = fault == 42 ? first : row;
        float sum = 0.0f;
        for (int j = 0; j < k; ++j) {
            const int64_t i = fault == 900 ? k - 1 - j : j;
            const float scale = xs[scale_row * groups + i / kCols] * ws[(scales * n + column) / kRows * groups + i / kCols];
            sum += decode<E4m3fn>(xq[row * k + i]) * decode<E4m3fn>(wq[begin + column * k + i]) * scale;
        }
        int64_t weight = slot;
        if (fault == 2) {
            weight = 0;
            for (int p = 0; p < position; ++p) weight += sorted[p] >= 0;
        }
        if (fault == 30) weight = slot / topk * topk;
        if (fault == 43) weight = slot / topk * topk + (slot + 1) % topk;
        float factor = weights[weight];
        if (fault == 31) factor = round_bf16(factor);
        down[slot * n + column] = to_bf16((fault == 13 ? round_bf16(sum) : sum) * factor);
    }
}

__global__ void combine(bf16* y, const bf16* down, int m, int n, int topk, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t token = index / n, column = index % n;
        float sum = 0.0f;
        for (int s = 0; s < topk; ++s) {
            int64_t row = fault == 15 ? int64_t{s} * m + token : token * topk + s;
            if (fault == 45 && s == topk - 1 && token % 2 == 1) continue;
            sum += to_float(down[row * n + column]);
            if (fault == 14) sum = round_bf16(sum);
        }
        y[index] = to_bf16(sum);
    }
}

}  // namespace

LAUNCHER moe_activate(uint8_t* q, float* s, const bf16* gate_up, int32_t rows, int32_t k, int32_t fault,
                      hipStream_t stream) {
    LAUNCH(activate, int64_t{rows} * (k / kCols), q, s, gate_up, rows, k, fault);
    return launch_status();
}

LAUNCHER moe_multiply(bf16* down, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                      const float* weights, const int32_t* ids, const int32_t* sorted, int32_t positions, int32_t n,
                      int32_t k, int32_t topk, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{positions} * n, down, xq, xs, wq, ws, weights, ids, sorted, positions, n, k, topk, fault);
    return launch_status();
}

LAUNCHER moe_combine(bf16* y, const bf16* down, int32_t m, int32_t n, int32_t topk, int32_t fault, hipStream_t stream) {
    LAUNCH(combine, int64_t{m} * n, y, down, m, n, topk, fault);
    return launch_status();
}
