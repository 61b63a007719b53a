// Decoding attention over a paged FP8 KV cache: one query token for each sequence, out [seqs, heads, d] in bf16.
// Position p of a sequence is in slot block_table[p / block] * block + p % block of the caches [slots, kv_heads, d].
// Query head h attends to key head h / (heads / kv_heads). Softmax and sums are float32.

#include "bf16.h"
#include "launcher.h"
#include "reduce.h"

namespace {

constexpr int kThreads = 64;
constexpr int kMaxTokens = 4096;

// A block for each sequence and head: its threads take a position each, then an element each.
template <class F>
__global__ __launch_bounds__(kThreads) void paged_decode_kernel(bf16* out, const bf16* q, const uint8_t* k_cache,
                                                                const uint8_t* v_cache, const float* k_scale,
                                                                const float* v_scale, const int32_t* block_tables,
                                                                const int32_t* seq_lens, int32_t heads,
                                                                int32_t kv_heads, int32_t d, int32_t block,
                                                                int32_t max_blocks, float scale) {
    __shared__ float probabilities[kMaxTokens];
    const int64_t seq = blockIdx.x, head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const int32_t length = seq_lens[seq];
    const int32_t* table = block_tables + seq * max_blocks;
    const bf16* query = q + (seq * heads + head) * d;
    const auto in_cache = [=](int32_t p) {
        return ((int64_t{table[p / block]} * block + p % block) * kv_heads + kv_head) * d;
    };
    float largest = -INFINITY;
    for (int32_t p = threadIdx.x; p < length; p += kThreads) {
        const uint8_t* key = k_cache + in_cache(p);
        float score = 0.0f;
        for (int32_t i = 0; i < d; ++i) score += to_float(query[i]) * decode<F>(key[i]);
        score *= *k_scale * scale;
        probabilities[p] = score;
        largest = fmaxf(largest, score);
    }
    largest = block_reduce(largest, Max{});
    float sum = 0.0f;
    for (int32_t p = threadIdx.x; p < length; p += kThreads) {
        probabilities[p] = expf(probabilities[p] - largest);
        sum += probabilities[p];
    }
    sum = block_reduce(sum, Sum{});
    for (int32_t i = threadIdx.x; i < d; i += kThreads) {
        float total = 0.0f;
        for (int32_t p = 0; p < length; ++p) total += probabilities[p] * decode<F>(v_cache[in_cache(p) + i]);
        out[(seq * heads + head) * d + i] = to_bf16(total * *v_scale / sum);
    }
}

}  // namespace

LAUNCHER paged_decode(bf16* out, const bf16* q, const uint8_t* k_cache, const uint8_t* v_cache, const float* k_scale,
                      const float* v_scale, const int32_t* block_tables, const int32_t* seq_lens, int32_t seqs,
                      int32_t heads, int32_t kv_heads, int32_t d, int32_t block, int32_t max_blocks, float scale,
                      int32_t format, hipStream_t stream) {
    if (any_null(out, q) || any_null(k_cache, v_cache) || any_null(k_scale, v_scale)) return kInvalidArgument;
    if (any_null(block_tables, seq_lens) || seqs <= 0 || heads <= 0 || kv_heads <= 0 || d <= 0) return kInvalidArgument;
    if (block <= 0 || max_blocks <= 0 || heads % kv_heads != 0) return kInvalidArgument;
    if (int64_t{block} * max_blocks > kMaxTokens) return kUnsupported;
    if (const Status status = check_format(format); status != kOk) return status;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(paged_decode_kernel<decltype(f)>, dim3(seqs, heads), dim3(kThreads), 0, stream, out, q,
                           k_cache, v_cache, k_scale, v_scale, block_tables, seq_lens, heads, kv_heads, d, block,
                           max_blocks, scale);
    });
}

ACCURACY_BOUND(paged_decode);
