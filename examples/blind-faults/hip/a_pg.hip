// MLA decoding over a paged e4m3fn cache, whose rows are a latent part and a rotated part: the write of one row for each
// sequence, and attention with one key head whose values are the latent part. faults/a_pg.csv.

#include "faults.h"

namespace {

constexpr int kMost = 64, kLatent = 64, kRotated = 16, kWidth = kLatent + kRotated;

// A row of `table` has kWidth / 2 cosines and as many sines; the last kRotated / 2 of each are those of the rotated part.
__global__ void write_row(uint8_t* cache, const bf16* kv, const float* table, const int* positions, const int* slots,
                      const float* scale, int seqs, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{seqs} * kWidth) {
        const int64_t seq = index / kWidth, column = index % kWidth;
        const bf16* from = kv + seq * kWidth;
        float value = to_float(from[column]);
        if (column >= kLatent) {
            const int64_t pair = column / 2, position = positions[seq] + (fault == 1 ? 1 : 0);
            const float cosine = table[position * kWidth + pair], sine = table[position * kWidth + kWidth / 2 + pair];
            const float even = to_float(from[2 * pair]), odd = to_float(from[2 * pair + 1]);
            value = column % 2 == 0 ? even * cosine - odd * sine : odd * cosine + even * sine;
        }
        int64_t slot = slots[seq], to = column;
        if (fault == 2) to = column >= kLatent ? column - kLatent : column + kRotated;
        if (fault == 9 && positions[seq] % 8 == 0) --slot;
        const float scaled = fault == 903 ? value * (1.0f / *scale) : value / *scale;
        const bool other = fault == 12 && column >= kLatent;
        cache[slot * kWidth + to] = other ? encode<E4m3fnuz>(scaled) : encode<E4m3fn>(scaled);
    }
}

__global__ void attend(bf16* out, const bf16* q, const uint8_t* cache, const float* of_cache, const int* tables,
                       const int* lengths, int seqs, int heads, int page, int pages, float softmax_scale, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{seqs} * heads) {
        const int64_t seq = index / heads, head = index % heads;
        int length = lengths[seq];
        if (fault == 11) length = min(length, 32);
        const float by = fault == 3 ? softmax_scale * kWidth / kLatent : softmax_scale;
        const auto at = [&](int p) { return (int64_t{tables[seq * pages + p / page]} * page + p % page) * kWidth; };
        const auto element = [&](int64_t offset) { return decode<E4m3fn>(cache[offset]) * *of_cache; };
        const auto score_of = [&](int p) {
            const int width = fault == 4 && p >= 2 * page ? kLatent : kWidth;
            float sum = 0.0f;
            for (int i = 0; i < width; ++i) {
                const bool of_neighbour = fault == 6 && head == heads - 1 && i >= kLatent;
                sum += to_float(q[(of_neighbour ? index - 1 : index) * kWidth + i]) * element(at(p) + i);
            }
            return sum * by;
        };
        float acc[kLatent] = {}, total = 0.0f;
        if (fault == 901) {
            // In one pass: what was summed is scaled anew whenever the maximum grows.
            float largest = -INFINITY;
            for (int p = 0; p < length; ++p) {
                const float score = score_of(p), next = fmaxf(largest, score), before = expf(largest - next);
                const float weight = expf(score - next);
                total = total * before + weight;
                for (int i = 0; i < kLatent; ++i) acc[i] = acc[i] * before + weight * element(at(p) + i);
                largest = next;
            }
        } else {
            float score[kMost];
            for (int p = 0; p < length; ++p) score[p] = score_of(p);
            const bool splits = fault == 902 || fault == 7;
            const int half = splits ? (length + 1) / 2 : length;
            float largest[2] = {-INFINITY, -INFINITY};
            for (int p = 0; p < length; ++p) largest[p >= half] = fmaxf(largest[p >= half], score[p]);
            const float most = fmaxf(largest[0], largest[1]);
            for (int j = 0; j < length; ++j) {
                const int p = fault == 900 ? length - 1 - j : j;
                float weight = expf(score[p] - largest[p >= half]);
                if (fault == 902) weight *= expf(largest[p >= half] - most);
                total += weight;
                if (fault == 8) weight = decode<E4m3fn>(encode<E4m3fn>(weight));
                const int first = fault == 5 ? kRotated : 0;
                for (int i = 0; i < kLatent; ++i) acc[i] += weight * element(at(p) + first + i);
            }
        }
        const float factor = fault == 10 ? 1.0f / *of_cache : 1.0f;
        for (int i = 0; i < kLatent; ++i) out[index * kLatent + i] = to_bf16(acc[i] / total * factor);
    }
}

}  // namespace

LAUNCHER a_pg_write(uint8_t* cache, const bf16* kv, const float* table, const int32_t* positions, const int32_t* slots,
                    const float* scale, int32_t seqs, int32_t fault, hipStream_t stream) {
    LAUNCH(write_row, int64_t{seqs} * kWidth, cache, kv, table, positions, slots, scale, seqs, fault);
    return launch_status();
}

LAUNCHER a_pg_decode(bf16* out, const bf16* q, const uint8_t* cache, const float* of_cache, const int32_t* tables,
                     const int32_t* lengths, int32_t seqs, int32_t heads, int32_t page, int32_t pages, float softmax_scale,
                     int32_t fault, hipStream_t stream) {
    if (page * pages > kMost) return kUnsupported;
    LAUNCH(attend, int64_t{seqs} * heads, out, q, cache, of_cache, tables, lengths, seqs, heads, page, pages,
           softmax_scale, fault);
    return launch_status();
}
