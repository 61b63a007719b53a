// The last tokens of each sequence attend to a paged bfloat16 cache: keys [pages, heads, d / 8, positions, 8], values
// [pages, positions, heads, d]; a window, and a sink for each head. faults/b_chunk.csv.

#include "faults.h"

namespace {

constexpr int kHead = 32, kMost = 64, kVector = 8;

__global__ void attend(bf16* out, const bf16* q, const bf16* keys, const bf16* values, const int* tables,
                       const int* lengths, const float* sinks, int seqs, int queries, int heads, int kv_heads, int page,
                       int pages, int window, float scale, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{seqs} * queries * heads) {
        const int64_t row = index / heads, head = index % heads, seq = row / queries, query = row % queries;
        const int64_t kv = head / (heads / kv_heads);
        const int length = lengths[seq];
        int position = length - queries + static_cast<int>(query);
        if (fault == 3) position = length - 1;
        if (fault == 4 && query == 0 && position > 0) --position;
        int from = position + 1 - window;
        if (from < 0 || fault == 6) from = 0;
        if (fault == 12 && query > 0) from = length - queries + 1 > window ? length - queries + 1 - window : 0;
        const auto slot = [&](int p) {
            int64_t of = seq;
            if (fault == 5 && p / page == (length - 1) / page) of = (seq + 1) % seqs;
            return int64_t{tables[of * pages + p / page]} * page + p % page;
        };
        const auto key = [&](int64_t at, int i) {
            if (fault == 1) return to_float(keys[(at * kv_heads + kv) * kHead + i]);
            const int x = fault == 2 ? 16 : kVector;
            const int64_t block = (at / page * kv_heads + kv) * page * kHead;
            return to_float(keys[block + i / x * page * x + at % page * x + i % x]);
        };
        float score[kMost], largest = -INFINITY;
        for (int p = from; p <= position; ++p) {
            float dot = 0.0f;
            for (int j = 0; j < kHead; ++j) {
                const int i = fault == 901 ? kHead - 1 - j : j;
                dot += to_float(q[index * kHead + i]) * key(slot(p), i);
            }
            score[p] = dot * (fault == 10 ? 0.17677669f : scale);
            largest = fmaxf(largest, score[p]);
        }
        const float sink = sinks[fault == 13 ? kv : head];
        // Two parts of the positions, each with its own maximum, which are joined.
        const int parts = fault == 900 || fault == 7 || fault == 8 ? 2 : 1;
        const int middle = parts == 2 ? (from + position + 1) / 2 : position + 1;
        float total = 0.0f, acc[kHead] = {}, joined = -INFINITY;
        for (int part = 0; part < parts; ++part) {
            const int begin = part == 0 ? from : middle, end = part == 0 ? middle : position + 1;
            float own = -INFINITY, sum = 0.0f, of[kHead] = {};
            if (part == 0 || fault == 7) own = sink;
            for (int p = begin; p < end; ++p) own = fmaxf(own, score[p]);
            if (part == 0 || fault == 7) sum = expf(sink - own);
            if (fault == 9) sum = 0.0f;
            for (int p = begin; p < end; ++p) {
                const float weight = expf(score[p] - own);
                sum += weight;
                const int64_t at = slot(fault == 11 && p % page == page - 1 ? p - 1 : p);
                for (int i = 0; i < kHead; ++i) of[i] += weight * to_float(values[(at * kv_heads + kv) * kHead + i]);
            }
            const float next = fmaxf(joined, own);
            const float before = part == 0 ? 0.0f : fault == 8 ? 1.0f : expf(joined - next);
            const float now = fault == 8 ? 1.0f : expf(own - next);
            total = total * before + sum * now;
            for (int i = 0; i < kHead; ++i) acc[i] = acc[i] * before + of[i] * now;
            joined = next;
        }
        for (int i = 0; i < kHead; ++i) out[index * kHead + i] = to_bf16(acc[i] / total);
    }
}

}  // namespace

LAUNCHER b_chunk_attend(bf16* out, const bf16* q, const bf16* keys, const bf16* values, const int32_t* tables,
                        const int32_t* lengths, const float* sinks, int32_t seqs, int32_t queries, int32_t heads,
                        int32_t kv_heads, int32_t page, int32_t pages, int32_t window, float scale, int32_t fault,
                        hipStream_t stream) {
    LAUNCH(attend, int64_t{seqs} * queries * heads, out, q, keys, values, tables, lengths, sinks, seqs, queries, heads,
           kv_heads, page, pages, window, scale, fault);
    return launch_status();
}
