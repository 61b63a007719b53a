// Prefill of sequences of different lengths, one after the other: causal, with a window, scores capped by a tanh, and a
// sink for each head. faults/b_prefill.csv.

#include "faults.h"

namespace {

constexpr int kHead = 32, kMost = 64, kBlock = 4;

__global__ void attend(bf16* out, const bf16* q, const bf16* k, const bf16* v, const int* starts, const float* sinks,
                       int seqs, int tokens, int heads, int kv_heads, int window, float scale, float cap, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{tokens} * heads) {
        const int token = static_cast<int>(index / heads), head = static_cast<int>(index % heads);
        const int kv = fault == 8 ? head % kv_heads : head / (heads / kv_heads);
        int start = 0;
        for (int s = 0; s < seqs; ++s) {
            if (starts[s] <= token) start = starts[s];
        }
        const int reach = fault == 5 ? window + 1 : fault == 14 ? window - 1 : window;
        int from = token + 1 - reach;
        const int lowest = fault == 7 ? 0 : start;
        if (from < lowest) from = lowest;
        if (fault == 15 && token >= 32) from = start;
        int to = token + 1;
        if (fault == 6 && token > start) to = token;
        float score[kMost], largest = -INFINITY;
        for (int p = from; p < to; ++p) {
            float dot = 0.0f;
            const int width = fault == 13 && head == heads - 1 ? kHead - 8 : kHead;
            for (int i = 0; i < width; ++i) {
                dot += to_float(q[index * kHead + i]) * to_float(k[(int64_t{p} * kv_heads + kv) * kHead + i]);
            }
            float s = dot * scale;
            if (fault == 2) {
                s = cap * tanhf(dot / cap) * scale;
            } else if (fault != 1) {
                s = cap * tanhf(s / cap);
            }
            if (fault == 16) s *= scale;
            score[p - from] = s;
            largest = fmaxf(largest, s);
        }
        float sink = sinks[fault == 4 ? head / 2 : head];
        if (fault == 11) sink = cap * tanhf(sink / cap);
        if (fault != 900 && fault != 10) largest = fmaxf(largest, sink);
        float total = 0.0f, acc[kHead] = {};
        if (fault == 900 || fault == 10) {
            // Online: the maximum of the blocks so far, by which what was summed is rescaled.
            float running = sink;
            total = 1.0f;
            for (int b = from; b < to; b += kBlock) {
                const int end = b + kBlock < to ? b + kBlock : to;
                float next = running;
                for (int p = b; p < end; ++p) next = fmaxf(next, score[p - from]);
                const float factor = expf(running - next);
                total *= factor;
                if (fault != 10) {
                    for (float& a : acc) a *= factor;
                }
                running = next;
                for (int p = b; p < end; ++p) {
                    const float weight = expf(score[p - from] - running);
                    total += weight;
                    for (int i = 0; i < kHead; ++i) acc[i] += weight * to_float(v[(int64_t{p} * kv_heads + kv) * kHead + i]);
                }
            }
        } else {
            total = fault == 3 ? 0.0f : expf(sink - largest);
            for (int j = from; j < to; ++j) {
                const int p = fault == 902 ? from + to - 1 - j : j;
                float weight = fault == 901 ? exp2f((score[p - from] - largest) * 1.4426950408889634f)
                                            : expf(score[p - from] - largest);
                total += weight;
                if (fault == 12) weight = round_bf16(weight);
                const int of = fault == 9 && p > from ? p - 1 : p;
                for (int i = 0; i < kHead; ++i) acc[i] += weight * to_float(v[(int64_t{of} * kv_heads + kv) * kHead + i]);
            }
        }
        for (int i = 0; i < kHead; ++i) out[index * kHead + i] = to_bf16(acc[i] / total);
    }
}

}  // namespace

LAUNCHER b_prefill_attend(bf16* out, const bf16* q, const bf16* k, const bf16* v, const int32_t* starts,
                          const float* sinks, int32_t seqs, int32_t tokens, int32_t heads, int32_t kv_heads,
                          int32_t window, float scale, float cap, int32_t fault, hipStream_t stream) {
    LAUNCH(attend, int64_t{tokens} * heads, out, q, k, v, starts, sinks, seqs, tokens, heads, kv_heads, window, scale, cap,
           fault);
    return launch_status();
}
