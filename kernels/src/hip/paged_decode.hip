// Decoding attention over a paged FP8 KV cache: one query token for each sequence, out [seqs, heads, d] in bf16.
// Position p of a sequence is in slot block_table[p / block] * block + p % block of the caches [slots, kv_heads, d].
// Query head h attends to key head h / (heads / kv_heads). Softmax and sums are float32.

#include "bf16.h"
#include "launcher.h"
#include "mfma.h"
#include "reduce.h"

namespace {

constexpr int kThreads = 64;
constexpr int kMaxTokens = 4096;

#ifdef HAS_MFMA

constexpr int kHeads = kMfmaTile;          // query heads that a wave takes, all of one key head
constexpr int kPositions = 2 * kMfmaTile;  // that are looked at between two updates of the softmax
constexpr int kColumns = 8 * kMfmaTile;    // of V, whose sums are in registers
constexpr int kTilesOfPositions = kPositions / kMfmaTile, kTilesOfColumns = kColumns / kMfmaTile;

static_assert(kThreads == kWave, "no wave waits for another");

// A lane's elements of a step of `queries` or of a key: those from `column` on, of which the ones behind d are zero.
constexpr int kOfFragment = kFragmentBytes / sizeof(bf16);

__device__ inline Fragment fragment_of_query(const bf16* query, int32_t column, int32_t d) {
    Pack<bf16, kOfFragment> values = {};
    for (int i = 0; i < kOfFragment; ++i) {
        if (column + i < d) values.v[i] = query[column + i];
    }
    return __builtin_bit_cast(Fragment, values);
}

template <class F>
__device__ inline Fragment fragment_of_key(const uint8_t* key, int32_t column, int32_t d) {
    Pack<bf16, kOfFragment> values = {};
    for (int i = 0; i < kOfFragment; ++i) {
        if (column + i < d) values.v[i] = to_bf16(decode<F>(key[column + i]));  // exact
    }
    return __builtin_bit_cast(Fragment, values);
}

// The combination over the 16 lanes that hold one row of a product.
template <class Combine>
__device__ inline float over_row(float value, Combine combine) {
    for (int mask = kMfmaTile / 2; mask > 0; mask /= 2) value = combine(value, __shfl_xor(value, mask));
    return value;
}

// Up to 16 query heads of one key head. Scores are products in bf16, which holds every value of fp8; probabilities and
// V are multiplied in float32. The softmax goes along: where a larger score turns up, what was summed before is scaled
// down.
template <class F, class InCache>
__device__ inline void attend(bf16* out, const bf16* q, int heads, const uint8_t* k_cache, const uint8_t* v_cache,
                              float score_scale, float v_scale, int32_t length, int32_t d, int32_t first_column,
                              InCache in_cache) {
    __shared__ float probabilities[kHeads][kPositions + 1];
    float largest[4], sum[4] = {};
    for (float& l : largest) l = -INFINITY;
    Sums totals[kTilesOfColumns] = {};
    for (int32_t first = 0; first < length; first += kPositions) {
        Sums scores[kTilesOfPositions] = {};
        for (int32_t step = 0; step < d; step += 4 * kOfFragment) {
            const int32_t column = step + lane_quarter() * kOfFragment;
            Fragment query = {};
            if (lane_row() < heads) query = fragment_of_query(q + int64_t{lane_row()} * d, column, d);
            for (int tile = 0; tile < kTilesOfPositions; ++tile) {
                const int32_t position = first + tile * kMfmaTile + lane_row();
                Fragment key = {};
                if (position < length) key = fragment_of_key<F>(k_cache + in_cache(position), column, d);
                scores[tile] = multiply_bf16(query, key, scores[tile]);
            }
        }
        for (int i = 0; i < 4; ++i) {
            float most = largest[i];
            for (int tile = 0; tile < kTilesOfPositions; ++tile) {
                const bool inside = first + tile * kMfmaTile + lane_row() < length;
                scores[tile][i] = inside ? scores[tile][i] * score_scale : -INFINITY;
                most = fmaxf(most, scores[tile][i]);
            }
            most = over_row(most, Max{});
            const float shrink = expf(largest[i] - most);
            float of_row = 0.0f;
            for (int tile = 0; tile < kTilesOfPositions; ++tile) {
                const float probability = expf(scores[tile][i] - most);
                probabilities[lane_quarter() * 4 + i][tile * kMfmaTile + lane_row()] = probability;
                of_row += probability;
            }
            sum[i] = sum[i] * shrink + over_row(of_row, Sum{});
            for (int tile = 0; tile < kTilesOfColumns; ++tile) totals[tile][i] *= shrink;
            largest[i] = most;
        }
        __syncthreads();
        for (int step = 0; step < kPositions; step += 4) {
            const int32_t position = first + step + lane_quarter();
            const float probability = probabilities[lane_row()][step + lane_quarter()];
            const uint8_t* value = v_cache + (position < length ? in_cache(position) : 0);
            for (int tile = 0; tile < kTilesOfColumns; ++tile) {
                const int32_t column = first_column + tile * kMfmaTile + lane_row();
                const float v = position < length && column < d ? decode<F>(value[column]) : 0.0f;
                totals[tile] = __builtin_amdgcn_mfma_f32_16x16x4f32(probability, v, totals[tile], 0, 0, 0);
            }
        }
        __syncthreads();
    }
    for (int tile = 0; tile < kTilesOfColumns; ++tile) {
        const int32_t column = first_column + tile * kMfmaTile + lane_row();
        for (int i = 0; i < 4; ++i) {
            const int row = lane_quarter() * 4 + i;
            if (row < heads && column < d) out[int64_t{row} * d + column] = to_bf16(totals[tile][i] * v_scale / sum[i]);
        }
    }
}

#endif

// A block for each sequence and head: its threads take a position each, then an element each. With matrix cores a block
// takes up to 16 heads of one key head, and the others have nothing to do.
template <class F>
__global__ __launch_bounds__(kThreads) void paged_decode_kernel(bf16* out, const bf16* q, const uint8_t* k_cache,
                                                                const uint8_t* v_cache, const float* k_scale,
                                                                const float* v_scale, const int32_t* block_tables,
                                                                const int32_t* seq_lens, int32_t heads,
                                                                int32_t kv_heads, int32_t d, int32_t block,
                                                                int32_t max_blocks, float scale) {
    const int64_t seq = blockIdx.x;
    const int32_t length = seq_lens[seq];
    const int32_t* table = block_tables + seq * max_blocks;
    const int32_t heads_of_key = heads / kv_heads;
    const auto in_cache = [=](int32_t p, int64_t kv_head) {
        return ((int64_t{table[p / block]} * block + p % block) * kv_heads + kv_head) * d;
    };
#ifdef HAS_MFMA
    if constexpr (DeviceFormat<F>::native) {
        const int32_t tiles = (heads_of_key + kHeads - 1) / kHeads, tile = blockIdx.y % tiles;
        const int64_t kv_head = blockIdx.y / tiles;
        if (kv_head >= kv_heads) return;
        const int64_t first = (seq * heads + kv_head * heads_of_key + tile * kHeads) * d;
        const auto of_head = [=](int32_t p) { return in_cache(p, kv_head); };
        for (int32_t column = 0; column < d; column += kColumns) {
            attend<F>(out + first, q + first, min(heads_of_key - tile * kHeads, kHeads), k_cache, v_cache,
                      *k_scale * scale, *v_scale, length, d, column, of_head);
        }
    } else {
        __builtin_trap();  // check_format refuses the formats that the device lacks
    }
#else
    __shared__ float probabilities[kMaxTokens];
    const int64_t head = blockIdx.y, kv_head = head / heads_of_key;
    const bf16* query = q + (seq * heads + head) * d;
    float largest = -INFINITY;
    for (int32_t p = threadIdx.x; p < length; p += kThreads) {
        const uint8_t* key = k_cache + in_cache(p, kv_head);
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
        for (int32_t p = 0; p < length; ++p) total += probabilities[p] * decode<F>(v_cache[in_cache(p, kv_head) + i]);
        out[(seq * heads + head) * d + i] = to_bf16(total * *v_scale / sum);
    }
#endif
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
