// Attention of one query token of each sequence over a paged fp8 cache with a scale for each key head; with a window and
// a sink for each head where they are given. faults/att.csv and faults/window.csv.

#include "faults.h"

namespace {

constexpr int kMost = 64, kHead = 32;

__global__ void attend(bf16* out, const bf16* q, const uint8_t* k_cache, const uint8_t* v_cache, const float* k_scale,
                       const float* v_scale, const int* tables, const int* lengths, const float* sinks, int seqs,
                       int heads, int kv_heads, int page, int pages, int window, float scale, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{seqs} * heads) {
        const int64_t seq = index / heads, head = index % heads, kv = head / (heads / kv_heads);
        int length = lengths[fault == 43 ? (seq + 1) % seqs : seq];
        if (fault == 21) length = (length + page - 1) / page * page;
        int from = window > 0 && length > window ? length - window : 0;
        if (fault == 14) from = 1;
        if (fault == 51) from = length > window + 1 ? length - window - 1 : 0;
        if (fault == 55) from = from / page * page;
        if (fault == 60 && from > 0) ++from;
        int stride = pages;
        if (fault == 4) stride = pages - 1;
        if (fault == 41) stride = pages + 1;
        const auto slot = [&](int p, bool stale) {
            int64_t entry = seq * stride + p / page;
            if (stale) --entry;
            if (fault == 40 && p / page == (length - 1) / page) entry = seq * stride;
            if (entry >= int64_t{seqs} * pages) entry = 0;
            return int64_t{tables[entry]} * page + p % page;
        };
        const auto element = [&](const uint8_t* cache, int64_t at, int i) {
            return decode<E4m3fn>(cache[(at * kv_heads + kv) * kHead + i]);
        };
        const int64_t of_keys = fault == 21 ? head % kv_heads : kv;
        float score[kMost], largest = sinks ? sinks[head] : -INFINITY;
        if (fault == 54) largest *= scale;
        if (fault == 61) largest = sinks[(head + 1) % heads];
        const float sink = largest;
        for (int p = from; p < length; ++p) {
            const int64_t at = slot(p, fault == 42 && p / page == 1);
            float sum = 0.0f;
            for (int i = 0; i < kHead; ++i) sum += to_float(q[index * kHead + i]) * element(k_cache, at, i);
            score[p] = sum * k_scale[of_keys] * scale;
            largest = fmaxf(largest, score[p]);
        }
        float total = sinks && fault != 62 ? expf(sink - largest) : 0.0f, acc[kHead] = {};
        for (int j = from; j < length; ++j) {
            const int p = fault == 900 ? length - 1 - (j - from) : j;
            const bool stale = (fault == 9 || fault == 22) && p / page == 2;
            const int64_t at = slot(fault == 44 && p > from ? p - 1 : p, stale);
            const float weight = expf(score[p] - largest);
            total += weight;
            for (int i = 0; i < kHead; ++i) acc[i] += weight * element(v_cache, at, i);
        }
        float factor = v_scale[kv] / total;
        if (fault == 22 && head == heads - 1) factor *= v_scale[kv];
        for (int i = 0; i < kHead; ++i) out[index * kHead + i] = to_bf16(acc[i] * factor);
    }
}

}  // namespace

LAUNCHER att_decode(bf16* out, const bf16* q, const uint8_t* k_cache, const uint8_t* v_cache, const float* k_scale,
                    const float* v_scale, const int32_t* tables, const int32_t* lengths, const float* sinks,
                    int32_t seqs, int32_t heads, int32_t kv_heads, int32_t page, int32_t pages, int32_t window,
                    float scale, int32_t fault, hipStream_t stream) {
    LAUNCH(attend, int64_t{seqs} * heads, out, q, k_cache, v_cache, k_scale, v_scale, tables, lengths, sinks, seqs,
           heads, kv_heads, page, pages, window, scale, fault);
    return launch_status();
}
