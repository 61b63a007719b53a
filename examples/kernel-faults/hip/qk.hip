// RMSNorm of each head, rotation of the first part of it, and the write of keys and values to fp8 caches. faults/qk.csv.

#include "faults.h"

namespace {

constexpr int kHead = 48, kRotated = 24;

// One head of one token, normed and rotated: table rows are 12 cosines and 12 sines.
__device__ void turned(float* out, const bf16* x, const bf16* gain, const float* table, float eps, int fault) {
    float squares = 0.0f;
    for (int i = 0; i < kHead; ++i) {
        if (fault == 41 && i >= 32) continue;
        squares += to_float(x[i]) * to_float(x[i]);
    }
    const float inverse = 1.0f / sqrtf(squares / kHead + eps);
    float normed[kHead];
    for (int i = 0; i < kHead; ++i) {
        normed[i] = to_float(x[i]) * inverse * to_float(gain[i]);
        if (fault == 24) normed[i] = round_bf16(normed[i]);
        out[i] = normed[i];
    }
    const int half = kRotated / 2, apart = fault == 21 ? kHead / 2 : half;
    for (int i = 0; i < half; ++i) {
        const float c = table[i], s = table[half + i], a = normed[i], b = normed[i + apart];
        out[i] = a * c - b * s;
        out[i + apart] = b * c + a * s;
    }
}

__global__ void write(bf16* q_out, uint8_t* k_cache, uint8_t* v_cache, const bf16* q, const bf16* k, const bf16* v,
                      const bf16* q_gain, const bf16* k_gain, const float* table, const int* positions,
                      const int* slots, const float* k_scale, const float* v_scale, float eps, int tokens, int heads,
                      int kv_heads, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{tokens} * (heads + 2 * kv_heads)) {
        const int64_t token = index / (heads + 2 * kv_heads), head = index % (heads + 2 * kv_heads);
        const float* row = table + positions[token] * kRotated;
        float out[kHead];
        if (head < heads) {
            const int64_t at = (token * heads + head) * kHead;
            turned(out, q + at, q_gain, row, eps, fault);
            for (int i = 0; i < kHead; ++i) q_out[at + i] = to_bf16(out[i]);
            continue;
        }
        int64_t slot = slots[token];
        if (fault == 22 && slot < 0) slot = 0;
        if (slot < 0) continue;
        const bool is_key = head < heads + kv_heads;
        const int64_t h = (head - heads) % kv_heads, at = (token * kv_heads + h) * kHead;
        uint8_t* to = (is_key ? k_cache : v_cache) + (slot * kv_heads + h) * kHead;
        const float scale = is_key || fault == 21 || fault == 40 ? *k_scale : *v_scale;
        if (is_key) turned(out, k + at, fault == 22 ? q_gain : k_gain, fault == 42 ? row + kRotated : row, eps, fault);
        for (int i = 0; i < kHead; ++i) to[i] = encode<E4m3fn>((is_key ? out[i] : to_float(v[at + i])) / scale);
    }
}

}  // namespace

LAUNCHER qk_write(bf16* q_out, uint8_t* k_cache, uint8_t* v_cache, const bf16* q, const bf16* k, const bf16* v,
                  const bf16* q_gain, const bf16* k_gain, const float* table, const int32_t* positions,
                  const int32_t* slots, const float* k_scale, const float* v_scale, float eps, int32_t tokens,
                  int32_t heads, int32_t kv_heads, int32_t fault, hipStream_t stream) {
    LAUNCH(write, int64_t{tokens} * (heads + 2 * kv_heads), q_out, k_cache, v_cache, q, k, v, q_gain, k_gain, table,
           positions, slots, k_scale, v_scale, eps, tokens, heads, kv_heads, fault);
    return launch_status();
}
