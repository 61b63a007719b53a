// The end of a model: the last token of each sequence is gathered and normed, the vocabulary's product is made in two shards,
// and sampling takes the probabilities at a temperature and the likeliest token. faults/a_lm.csv.

#include "faults.h"

namespace {

__device__ float kept[64];

__global__ void gather_norm(bf16* normed, const bf16* hidden, const int* last, const bf16* gain, float eps, int seqs, int k,
                            int fault) {
    FOR_EACH_OUTPUT(seq, seqs) {
        const bf16* of = hidden + int64_t{fault == 1 ? last[seq] - 1 : last[seq]} * k;
        float squares = 0.0f;
        for (int i = 0; i < k; ++i) squares += to_float(of[i]) * to_float(of[i]);
        float inverse = 1.0f / sqrtf(squares / static_cast<float>(k) + eps);
        if (fault == 11) {
            if (kept[seq] == 0.0f) kept[seq] = inverse;
            inverse = kept[seq];
        }
        for (int i = 0; i < k; ++i) {
            const float by = to_float(gain[i]);
            normed[seq * k + i] = to_bf16(to_float(of[i]) * inverse * (fault == 2 ? 1.0f + by : by));
        }
    }
}

// Columns `from` to `to` of the logits.
__global__ void head(float* logits, const bf16* normed, const bf16* w, int seqs, int vocabulary, int k, int from, int to,
                     int fault) {
    FOR_EACH_OUTPUT(index, int64_t{seqs} * (to - from)) {
        const int64_t seq = index / (to - from), column = from + index % (to - from);
        const bf16* x = normed + (fault == 4 && seq >= 16 ? 0 : seq) * k;
        const bf16* weights = w + (fault == 3 && from > 0 ? column - 8 : column) * k;
        float sum = 0.0f;
        if (fault == 901) {
            float lanes[8] = {};
            for (int i = 0; i < k; i += 8) {
                const auto a = load<8>(x + i), b = load<8>(weights + i);
                for (int l = 0; l < 8; ++l) lanes[l] += to_float(a.v[l]) * to_float(b.v[l]);
            }
            for (int step = 4; step > 0; step /= 2) {
                for (int l = 0; l < step; ++l) lanes[l] += lanes[l + step];
            }
            sum = lanes[0];
        } else {
            const int end = fault == 5 && column >= 320 ? k / 2 : k;
            for (int j = 0; j < end; ++j) {
                const int i = fault == 900 ? k - 1 - j : j;
                sum += to_float(x[i]) * to_float(weights[i]);
                if (fault == 6 && j % 64 == 63) sum = round_bf16(sum);
            }
        }
        logits[seq * vocabulary + column] = sum;
    }
}

__global__ void sample(float* probabilities, int* ids, const float* logits, int seqs, int vocabulary, int shard, float by,
                       int fault) {
    FOR_EACH_OUTPUT(seq, seqs) {
        const float* of = logits + seq * vocabulary;
        int best = fault == 903 ? vocabulary - 1 : 0;
        for (int j = 1; j < (fault == 9 ? shard : vocabulary); ++j) {
            const int i = fault == 903 ? vocabulary - 1 - j : j;
            if (fault == 903 ? of[i] >= of[best] : of[i] > of[best]) best = i;
        }
        ids[seq] = fault == 10 && best >= shard ? best - shard : best;
        const auto scaled = [&](int i) { return fault == 7 ? of[i] : of[i] * by; };
        float largest = -INFINITY, total = 0.0f;
        if (fault == 902) {
            for (int i = 0; i < vocabulary; ++i) {
                const float next = fmaxf(largest, scaled(i));
                total = total * expf(largest - next) + expf(scaled(i) - next);
                largest = next;
            }
        } else {
            for (int i = 0; i < vocabulary; ++i) largest = fmaxf(largest, scaled(i));
            for (int i = 0; i < (fault == 8 ? vocabulary / 128 * 128 : vocabulary); ++i) total += expf(scaled(i) - largest);
        }
        const float inverse = 1.0f / total;
        for (int i = 0; i < vocabulary; ++i) {
            const float value = expf(scaled(i) - largest);
            probabilities[seq * vocabulary + i] = fault == 902 ? value * inverse : value / total;
        }
    }
}

}  // namespace

LAUNCHER a_lm_gather_norm(bf16* normed, const bf16* hidden, const int32_t* last, const bf16* gain, float eps, int32_t seqs,
                          int32_t k, int32_t fault, hipStream_t stream) {
    if (seqs > 64) return kUnsupported;
    LAUNCH(gather_norm, seqs, normed, hidden, last, gain, eps, seqs, k, fault);
    return launch_status();
}

LAUNCHER a_lm_head(float* logits, const bf16* normed, const bf16* w, int32_t seqs, int32_t vocabulary, int32_t k,
                   int32_t from, int32_t to, int32_t fault, hipStream_t stream) {
    if (k % 8 != 0) return kUnsupported;
    LAUNCH(head, int64_t{seqs} * (to - from), logits, normed, w, seqs, vocabulary, k, from, to, fault);
    return launch_status();
}

LAUNCHER a_lm_sample(float* probabilities, int32_t* ids, const float* logits, int32_t seqs, int32_t vocabulary,
                     int32_t shard, float by, int32_t fault, hipStream_t stream) {
    LAUNCH(sample, seqs, probabilities, ids, logits, seqs, vocabulary, shard, by, fault);
    return launch_status();
}
