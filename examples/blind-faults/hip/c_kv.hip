// A chunk of prefill: queries and keys are rotated, keys go to a paged int8 cache and values to a paged e4m3 cache, each
// with a scale for each head of a token, and the chunk attends to the caches. faults/c_kv.csv.

#include "faults.h"

namespace {

constexpr int kHeadSize = 32, kPage = 16, kRun = 8, kMost = 64;

// Where element `i` of a head lies in the cache of values.
__device__ inline int64_t value_at(int64_t slot, int64_t head, int64_t i, int kv_heads, int run) {
    const int64_t within = slot % kPage;
    return (slot / kPage) * kPage * kv_heads * kHeadSize + head * kPage * kHeadSize + within / run * run * kHeadSize +
           i * run + within % run;
}

__device__ inline int64_t key_scale_at(int64_t slot, int64_t head, int kv_heads) {
    return (slot / kPage) * kPage * kv_heads + head * kPage + slot % kPage;
}

// One head of a token, rotated by its position.
__device__ inline void rotate(float* to, const bf16* from, const float* table, int position, bool adjacent) {
    constexpr int half = kHeadSize / 2;
    const float* angles = table + int64_t{position} * kHeadSize;
    for (int i = 0; i < half; ++i) {
        const int first = adjacent ? 2 * i : i, second = adjacent ? 2 * i + 1 : i + half;
        const float a = to_float(from[first]), b = to_float(from[second]);
        to[first] = a * angles[i] - b * angles[half + i];
        to[second] = b * angles[i] + a * angles[half + i];
    }
}

__global__ void rotate_queries(bf16* to, const bf16* q, const float* table, const int* positions, int tokens, int heads,
                               int chunk, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{tokens} * heads) {
        const int64_t token = index / heads;
        const int position = fault == 2 ? static_cast<int>(token) % chunk : positions[token];
        float rotated[kHeadSize];
        rotate(rotated, q + index * kHeadSize, table, position, false);
        for (int i = 0; i < kHeadSize; ++i) to[index * kHeadSize + i] = to_bf16(rotated[i]);
    }
}

__global__ void write_cache(int8_t* k_cache, float* k_scales, uint8_t* v_cache, float* v_scales, const bf16* k,
                            const bf16* v, const float* table, const int* positions, const int* slots, int tokens,
                            int kv_heads, int chunk, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{tokens} * kv_heads) {
        const int64_t token = index / kv_heads, head = index % kv_heads;
        int64_t slot = slots[token];
        if (fault == 8) slot = slots[token / chunk * chunk] + token % chunk;
        float key[kHeadSize], key_amax = 1e-6f, value_amax = 1e-6f;
        rotate(key, k + index * kHeadSize, table, positions[token], fault == 1);
        for (int i = 0; i < kHeadSize; ++i) {
            key_amax = fmaxf(key_amax, fabsf(key[i]));
            if (fault == 9 && i >= 24) continue;
            value_amax = fmaxf(value_amax, fabsf(to_float(v[index * kHeadSize + i])));
        }
        const float key_scale = key_amax / 127.0f, value_scale = value_amax / 448.0f;
        const float key_inverse = 1.0f / key_scale, value_inverse = 1.0f / value_scale;
        for (int i = 0; i < kHeadSize; ++i) {
            const float x = to_float(v[index * kHeadSize + i]);
            const float scaled = fault == 902 ? key[i] * key_inverse : key[i] / key_scale;
            k_cache[(slot * kv_heads + head) * kHeadSize + i] =
                fault == 10 ? static_cast<int8_t>(scaled) : to_int8(scaled);
            v_cache[value_at(slot, head, i, kv_heads, fault == 11 ? 16 : kRun)] =
                encode<E4m3fn>(fault == 902 ? x * value_inverse : x / value_scale);
        }
        k_scales[fault == 3 ? slot * kv_heads + head : key_scale_at(slot, head, kv_heads)] = key_scale;
        v_scales[slot * kv_heads + head] = value_scale;
    }
}

__global__ void attend(bf16* out, const bf16* q, const int8_t* k_cache, const float* k_scales, const uint8_t* v_cache,
                       const float* v_scales, const int* tables, const int* lengths, int tokens, int heads,
                       int kv_heads, int chunk, int pages, float scale, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{tokens} * heads) {
        const int64_t token = index / heads, head = index % heads, seq = token / chunk;
        int64_t kv = head / (heads / kv_heads);
        if (fault == 12) kv = head % kv_heads;
        const int length = lengths[seq], own = length - chunk + static_cast<int>(token % chunk);
        int seen = own + 1;
        if (fault == 6) seen = own;
        if (fault == 7) seen = length;
        if (fault == 13) scale = 0.17677669f;
        const auto slot = [&](int p) { return int64_t{tables[seq * pages + p / kPage]} * kPage + p % kPage; };
        const auto key_score = [&](int p) {
            float sum = 0.0f;
            for (int j = 0; j < kHeadSize; ++j) {
                const int i = fault == 900 ? kHeadSize - 1 - j : j;
                sum += to_float(q[index * kHeadSize + i]) *
                       static_cast<float>(k_cache[(slot(p) * kv_heads + kv) * kHeadSize + i]);
            }
            int64_t of = kv;
            if (fault == 4) of = 0;
            return sum * k_scales[key_scale_at(slot(p), of, kv_heads)] * scale;
        };
        const auto value = [&](int p, int i) {
            const uint8_t code = v_cache[value_at(slot(p), kv, i, kv_heads, kRun)];
            const float decoded = fault == 5 && code != 0x80 ? decode<E4m3fnuz>(code) : decode<E4m3fn>(code);
            int64_t of = slot(p) * kv_heads + kv;
            if (fault == 14) of = (slot(p) / kPage * kPage) * kv_heads + kv;
            return decoded * v_scales[of];
        };
        float acc[kHeadSize] = {}, total = 0.0f;
        if (fault == 901) {
            // Pages one after another, each with its own maximum.
            float largest = -INFINITY;
            for (int from = 0; from < seen; from += kPage) {
                float score[kPage], block = largest;
                const int count = min(kPage, seen - from);
                for (int p = 0; p < count; ++p) block = fmaxf(block, score[p] = key_score(from + p));
                const float shrunk = expf(largest - block);
                total *= shrunk;
                for (float& x : acc) x *= shrunk;
                largest = block;
                for (int p = 0; p < count; ++p) {
                    const float weight = expf(score[p] - largest);
                    total += weight;
                    for (int i = 0; i < kHeadSize; ++i) acc[i] += weight * value(from + p, i);
                }
            }
        } else {
            float score[kMost], largest = -INFINITY;
            for (int p = 0; p < seen; ++p) largest = fmaxf(largest, score[p] = key_score(p));
            for (int j = 0; j < seen; ++j) {
                const int p = fault == 900 ? seen - 1 - j : j;
                float weight = expf(score[p] - largest);
                // Fault 15: the third page counts in the sum that is divided by, and its values are left out.
                total += weight;
                if (fault == 15 && p >= 32) continue;
                for (int i = 0; i < kHeadSize; ++i) acc[i] += weight * value(p, i);
            }
        }
        for (int i = 0; i < kHeadSize; ++i) out[index * kHeadSize + i] = to_bf16(acc[i] / total);
    }
}

}  // namespace

LAUNCHER c_kv_rotate(bf16* to, const bf16* q, const float* table, const int32_t* positions, int32_t tokens,
                     int32_t heads, int32_t chunk, int32_t fault, hipStream_t stream) {
    LAUNCH(rotate_queries, int64_t{tokens} * heads, to, q, table, positions, tokens, heads, chunk, fault);
    return launch_status();
}

LAUNCHER c_kv_write(int8_t* k_cache, float* k_scales, uint8_t* v_cache, float* v_scales, const bf16* k, const bf16* v,
                    const float* table, const int32_t* positions, const int32_t* slots, int32_t tokens,
                    int32_t kv_heads, int32_t chunk, int32_t fault, hipStream_t stream) {
    LAUNCH(write_cache, int64_t{tokens} * kv_heads, k_cache, k_scales, v_cache, v_scales, k, v, table, positions, slots,
           tokens, kv_heads, chunk, fault);
    return launch_status();
}

LAUNCHER c_kv_attend(bf16* out, const bf16* q, const int8_t* k_cache, const float* k_scales, const uint8_t* v_cache,
                     const float* v_scales, const int32_t* tables, const int32_t* lengths, int32_t tokens,
                     int32_t heads, int32_t kv_heads, int32_t chunk, int32_t pages, float scale, int32_t fault,
                     hipStream_t stream) {
    LAUNCH(attend, int64_t{tokens} * heads, out, q, k_cache, k_scales, v_cache, v_scales, tables, lengths, tokens,
           heads, kv_heads, chunk, pages, scale, fault);
    return launch_status();
}
