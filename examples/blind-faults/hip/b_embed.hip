// Rows of an embedding times a factor, RMSNorm by 1 + gain, and logits by the same table, capped by a tanh, in float32.
// faults/b_embed.csv.

#include "faults.h"

namespace {

__global__ void gather(bf16* h, const bf16* table, const int* ids, float factor, int m, int vocabulary, int d, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * d) {
        const int64_t token = index / d, column = index % d;
        int64_t id = ids[token];
        if (fault == 3 && id >= vocabulary / 2) id = 0;
        if (fault == 4 && token >= 32) id = ids[31];
        if (fault == 1) factor = sqrtf(static_cast<float>(d));
        if (fault == 2) factor = 1.0f;
        h[index] = to_bf16(to_float(table[id * d + column]) * factor);
    }
}

// One thread a row.
__global__ void norm(bf16* y, const bf16* h, const bf16* gain, float eps, int m, int d, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        float squares = 0.0f, mean = 0.0f;
        if (fault == 13) {
            for (int i = 0; i < d; ++i) mean += to_float(h[row * d + i]) / static_cast<float>(d);
        }
        const int end = fault == 14 ? d / 64 * 64 : d;
        for (int i = 0; i < end; ++i) {
            const float v = to_float(h[row * d + i]) - mean;
            squares += v * v;
        }
        const float under = squares / static_cast<float>(d) + eps;
        const float inverse = fault == 900 ? rsqrtf(under) : fault == 15 ? 1.0f / under : 1.0f / sqrtf(under);
        for (int i = 0; i < d; ++i) {
            float g = 1.0f + to_float(gain[i]);
            if (fault == 5) g = to_float(gain[i]);
            if (fault == 7) g = round_bf16(g);
            y[row * d + i] = to_bf16((to_float(h[row * d + i]) - mean) * inverse * g);
        }
    }
}

__global__ void project(float* logits, const bf16* x, const bf16* table, float cap, int m, int vocabulary, int d,
                        int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * vocabulary) {
        const int64_t row = index / vocabulary, column = index % vocabulary;
        const int end = fault == 11 ? d / 32 * 32 : d;
        float sum = 0.0f;
        if (fault == 901) {
            float parts[4] = {};
            for (int i = 0; i < d; ++i) parts[i % 4] += to_float(x[row * d + i]) * to_float(table[column * d + i]);
            sum = (parts[0] + parts[1]) + (parts[2] + parts[3]);
        } else {
            for (int i = 0; i < end; ++i) {
                const int64_t at = fault == 12 ? int64_t{i} * vocabulary + column : column * d + i;
                sum += to_float(x[row * d + i]) * to_float(table[at]);
            }
        }
        const float by = fault == 9 ? 50.0f : cap;
        const bool capped = fault != 8 && (fault != 10 || column < 256);
        if (fault == 6) sum = round_bf16(sum);
        logits[index] = capped ? by * tanhf(sum / by) : sum;
    }
}

}  // namespace

LAUNCHER b_embed_gather(bf16* h, const bf16* table, const int32_t* ids, float factor, int32_t m, int32_t vocabulary,
                        int32_t d, int32_t fault, hipStream_t stream) {
    LAUNCH(gather, int64_t{m} * d, h, table, ids, factor, m, vocabulary, d, fault);
    return launch_status();
}

LAUNCHER b_embed_norm(bf16* y, const bf16* h, const bf16* gain, float eps, int32_t m, int32_t d, int32_t fault,
                      hipStream_t stream) {
    LAUNCH(norm, m, y, h, gain, eps, m, d, fault);
    return launch_status();
}

LAUNCHER b_embed_project(float* logits, const bf16* x, const bf16* table, float cap, int32_t m, int32_t vocabulary,
                         int32_t d, int32_t fault, hipStream_t stream) {
    LAUNCH(project, int64_t{m} * vocabulary, logits, x, table, cap, m, vocabulary, d, fault);
    return launch_status();
}
