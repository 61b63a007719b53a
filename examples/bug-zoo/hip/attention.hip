// Decoding attention: queries and keys are rotated, keys and values written to an FP8 cache, then one query token of each
// sequence attends to its positions. What each variant does and which bug it models is in zoo/attention.csv.
//
// Layouts are those of kernels' rope.h and paged_decode.hip.

#include "rope.h"
#include "zoo.h"

namespace {

using zoo::attention::V;
using F = E4m3fn;

constexpr int kMaxLength = 64;

template <V v>
__global__ void write_cache(RopeArgs args) {
    const int32_t half = args.d / 2, all_heads = args.heads + args.kv_heads;
    FOR_EACH_OUTPUT(index, int64_t{args.tokens} * all_heads) {
        const int64_t token = index / all_heads, head = index % all_heads;
        int64_t position = args.positions[token];
        if constexpr (v == V::position_off_by_one) position = position == 0 ? 0 : position - 1;
        if constexpr (v == V::position_is_the_token) position = token;
        if constexpr (v == V::position_in_the_block) position %= 16;
        const bool is_query = head < args.heads;
        if (v == V::keys_at_the_position_before && !is_query && position > 0) --position;
        const float* cosines = args.cos_sin + position * (v == V::table_rows_of_half_the_head ? half : args.d);
        const int64_t kv_head = head - args.heads;
        const bf16* from = is_query ? args.q + (token * args.heads + head) * args.d
                                    : (v == V::keys_and_values_exchanged ? args.v : args.k) +
                                          (token * args.kv_heads + kv_head) * args.d;
        int64_t slot = args.slots[token];
        if constexpr (v == V::slot_of_the_position) slot = args.positions[token];
        const int64_t in_cache = (slot * args.kv_heads + kv_head) * args.d;
        const bool other = v == V::other_style || v == V::other_style_and_cache_as_fnuz;
        const bool ignored = v == V::style_ignored || (v == V::style_ignored_for_keys && !is_query);
        const bool neox = v != V::pairs_whatever_the_style && (other ? !args.neox : ignored || args.neox);
        for (int32_t i = 0; i < half; ++i) {
            const int32_t first = neox ? i : 2 * i, second = neox ? i + half : 2 * i + 1;
            const float a = to_float(from[first]), b = to_float(from[second]);
            float c = cosines[i], s = cosines[half + i];
            if constexpr (v == V::rotated_backwards) s = -s;
            if (v == V::last_heads_not_rotated && is_query && head >= args.heads / 2) c = 1.0f, s = 0.0f;
            if constexpr (v == V::angles_of_another_theta) {
                const float exponent = static_cast<float>(i) / static_cast<float>(half);
                const float angle = static_cast<float>(position) * powf(5e5f, -exponent);
                c = cosf(angle), s = sinf(angle);
            }
            if constexpr (v == V::table_in_bf16) c = round_bf16(c), s = round_bf16(s);
            if constexpr (v == V::other_style_and_key_scale_ignored) {
                // Only the frequencies differ: those of the pairs of the other style.
                c = cosines[i / 2], s = cosines[half + i / 2];
            }
            if constexpr (v == V::cosine_and_sine_exchanged) exchange(c, s);
            if constexpr (v == V::table_read_as_pairs) c = cosines[2 * i], s = cosines[2 * i + 1];
            if constexpr (v == V::half_of_the_head_rotated) {
                if (i >= half / 2) c = 1.0f, s = 0.0f;
            }
            if constexpr (v == V::queries_not_rotated) {
                if (is_query) c = 1.0f, s = 0.0f;
            }
            if constexpr (v == V::factor_in_the_angles) c *= 1.2f, s *= 1.2f;
            if constexpr (v == V::keys_not_rotated) {
                if (!is_query) c = 1.0f, s = 0.0f;
            }
            const float rotated_a = a * c - b * s;
            const float rotated_b = v == V::fused_rotation ? fmaf(a, s, b * c) : b * c + a * s;
            const bool pairs = v == V::rotated_halves_stored_as_pairs;
            const int32_t to_first = pairs ? 2 * i : first, to_second = pairs ? 2 * i + 1 : second;
            if (is_query) {
                bf16* to = args.q_out + (token * args.heads + head) * args.d;
                to[to_first] = to_bf16(rotated_a);
                to[to_second] = to_bf16(rotated_b);
                continue;
            }
            const float k_scale = v == V::keys_written_without_their_scale ? 1.0f : *args.k_scale;
            float v_scale = *args.v_scale;
            if constexpr (v == V::values_scaled_as_keys) v_scale = k_scale;
            using KeyFormat = std::conditional_t<v == V::keys_written_as_fnuz, E4m3fnuz, F>;
            args.k_cache[in_cache + to_first] = encode<KeyFormat>(rotated_a / k_scale);
            args.k_cache[in_cache + to_second] = encode<KeyFormat>(rotated_b / k_scale);
            const bf16* value = (v == V::keys_and_values_exchanged ? args.k : args.v) +
                                (token * args.kv_heads + kv_head) * args.d;
            if constexpr (v == V::values_rotated_as_keys) {
                const float at_first = to_float(value[first]), at_second = to_float(value[second]);
                args.v_cache[in_cache + first] = encode<F>((at_first * c - at_second * s) / v_scale);
                args.v_cache[in_cache + second] = encode<F>((at_second * c + at_first * s) / v_scale);
                continue;
            }
            for (const int32_t j : {i, half + i}) {
                if (v == V::values_of_the_second_half_not_written && j >= half) continue;
                using ValueFormat = std::conditional_t<v == V::values_written_as_fnuz, E4m3fnuz, F>;
                args.v_cache[in_cache + j] = encode<ValueFormat>(to_float(value[j]) / v_scale);
            }
        }
    }
}

struct Decode {
    const bf16* q;
    const uint8_t* k_cache;
    const uint8_t* v_cache;
    const float* k_scale;
    const float* v_scale;
    const int32_t* block_tables;
    const int32_t* seq_lens;
    int32_t seqs, heads, kv_heads, d, block, max_blocks;
    float scale;
    int32_t launch;
};

template <V v>
__device__ float value_of(uint8_t code) {
    if constexpr (v == V::cache_read_as_e5m2) return decode<E5m2>(code);
    const bool fnuz = v == V::cache_read_as_fnuz || v == V::other_style_and_cache_as_fnuz;
    return fnuz ? decode<E4m3fnuz>(code) : decode<F>(code);
}

template <V v>
__global__ void attend(bf16* out, Decode args) {
    const int32_t heads = args.heads, d = args.d;
    float probabilities[kMaxLength];
    [[maybe_unused]] float scores[kMaxLength];
    FOR_EACH_OUTPUT(index, int64_t{args.seqs} * heads) {
        const int64_t seq = index / heads, head = index % heads;
        int64_t kv_head = head / (heads / args.kv_heads);
        if constexpr (v == V::key_heads_tiled) kv_head = head % args.kv_heads;
        if constexpr (v == V::first_key_head_for_all) kv_head = 0;
        int32_t length = args.seq_lens[seq];
        if constexpr (v == V::last_position_left_out) length = length > 1 ? length - 1 : length;
        if constexpr (v == V::one_position_too_many) length = min(length + 1, args.block * args.max_blocks);
        if constexpr (v == V::partial_block_left_out) {
            if (length > args.block) length = length / args.block * args.block;
        }
        if constexpr (v == V::window_of_32) length = length > 32 ? 32 : length;
        if constexpr (v == V::whole_blocks_attended) length = (length + args.block - 1) / args.block * args.block;
        const int32_t* table = args.block_tables + (v == V::blocks_of_the_first_sequence ? 0 : seq) * args.max_blocks;
        const bf16* query = args.q + index * d;
        const auto in_cache = [&](int32_t p) {
            const int32_t page = v == V::page_before ? max(p / args.block - 1, 0) : p / args.block;
            return ((int64_t{table[page]} * args.block + p % args.block) * args.kv_heads + kv_head) * d;
        };
        const auto value_in_cache = [&](int32_t p) {
            if constexpr (v == V::values_read_head_first) {
                return ((int64_t{table[p / args.block]} * args.kv_heads + kv_head) * args.block + p % args.block) * d;
            }
            return in_cache(p);
        };
        float k_scale = *args.k_scale, v_scale = *args.v_scale;
        if constexpr (v == V::value_scale_ignored) v_scale = 1.0f;
        if (v == V::last_head_without_the_value_scale && head == heads - 1) v_scale = 1.0f;
        [[maybe_unused]] float key_by = 1.0f, value_by = 1.0f;
        if constexpr (v == V::cache_scaled_first) exchange(k_scale, key_by), exchange(v_scale, value_by);
        if constexpr (v == V::key_scale_ignored || v == V::other_style_and_key_scale_ignored) k_scale = 1.0f;
        if constexpr (v == V::scales_exchanged) exchange(k_scale, v_scale);
        if constexpr (v == V::value_scale_applied_twice) v_scale *= v_scale;
        if constexpr (v == V::value_scale_divided) v_scale = 1.0f / v_scale;
        float scale = args.scale;
        if constexpr (v == V::scale_applied_twice) scale *= args.scale;
        if constexpr (v == V::scale_of_the_head_size) scale = 1.0f / sqrtf(static_cast<float>(d));
        // Of more than one block the first has a pass of its own, and its part is not combined with the others.
        int32_t begin = v == V::first_block_left_out && length > args.block ? args.block : 0;
        if constexpr (v == V::newest_sixteen_alone) begin = max(length - 16, 0);
        float largest = -INFINITY;
        for (int32_t p = begin; p < length; ++p) {
            float score = 0.0f;
            const int32_t depth = v == V::last_16_of_the_head_left_out ? d - 16 : d;
            for (int32_t i = 0; i < depth; ++i) {
                float q = to_float(query[i]);
                if constexpr (v == V::scale_in_the_queries) q = round_bf16(q * scale);
                float key = value_of<v>(args.k_cache[in_cache(p) + i]);
                if constexpr (v == V::cache_scaled_first) key *= key_by;
                score += q * key;
                if constexpr (v == V::scores_in_bf16) score = round_bf16(score);
            }
            probabilities[p] = v == V::scale_in_the_queries ? score * k_scale : score * (k_scale * scale);
            if constexpr (v == V::soft_cap_of_five) probabilities[p] = 5.0f * tanhf(probabilities[p] / 5.0f);
            largest = fmaxf(largest, probabilities[p]);
            if constexpr (v == V::online_softmax || v == V::two_parts_combined || v == V::parts_averaged) {
                scores[p] = probabilities[p];
            }
        }
        float sum = 0.0f;
        float so_far = -INFINITY;
        for (int32_t p = begin; p < length; ++p) {
            if (v == V::running_maximum_not_rescaled && p % args.block == 0) {
                for (int32_t i = p; i < min(p + args.block, length); ++i) so_far = fmaxf(so_far, probabilities[i]);
            }
            const float maximum = v == V::maximum_in_bf16 ? round_bf16(largest) : largest;
            const float above = probabilities[p] - (v == V::running_maximum_not_rescaled ? so_far : maximum);
            probabilities[p] = v == V::exponential_of_base_two ? exp2f(above * 1.44269504f) : expf(above);
            if constexpr (v == V::softmax_of_base_two) probabilities[p] = exp2f(above);
            // Some heads read the sum before the second half of the positions is in it.
            if (v == V::sum_without_a_barrier && index % 5 == args.launch % 5 && p >= (length + 1) / 2) continue;
            sum += probabilities[p];
        }
        if constexpr (v == V::padding_in_the_sum) {
            sum += static_cast<float>((args.block - length % args.block) % args.block) * expf(-largest);
        }
        if constexpr (v == V::online_softmax) {
            largest = -INFINITY, sum = 0.0f;
            for (int32_t p = 0; p < length; ++p) {
                if (p % args.block == 0) {
                    float above = largest;
                    for (int32_t i = p; i < min(p + args.block, length); ++i) above = fmaxf(above, scores[i]);
                    const float down = expf(largest - above);
                    for (int32_t i = 0; i < p; ++i) probabilities[i] *= down;
                    sum *= down, largest = above;
                }
                probabilities[p] = expf(scores[p] - largest);
                sum += probabilities[p];
            }
        }
        if constexpr (v == V::two_parts_combined || v == V::parts_averaged) {
            // What the second half of the positions adds is summed by a block of its own.
            const int32_t begins[3] = {0, (length + 1) / 2, length};
            const int32_t parts = length > 1 ? 2 : 1;
            float maxima[2] = {-INFINITY, -INFINITY}, sums[2] = {};
            for (int part = 0; part < parts; ++part) {
                for (int32_t p = begins[part]; p < begins[part + 1]; ++p) maxima[part] = fmaxf(maxima[part], scores[p]);
                for (int32_t p = begins[part]; p < begins[part + 1]; ++p) {
                    probabilities[p] = expf(scores[p] - maxima[part]);
                    sums[part] += probabilities[p];
                }
            }
            sum = 0.0f;
            for (int part = 0; part < parts; ++part) sum += sums[part] * expf(maxima[part] - largest);
            for (int part = 0; part < parts; ++part) {
                const float by = v == V::parts_averaged ? sum / (sums[part] * static_cast<float>(parts))
                                                        : expf(maxima[part] - largest);
                for (int32_t p = begins[part]; p < begins[part + 1]; ++p) probabilities[p] *= by;
            }
        }
        if constexpr (v == V::sink_in_the_sum) sum += expf(-largest);
        for (int32_t i = 0; i < d; ++i) {
            float total = 0.0f;
            for (int32_t step = begin; step < length; ++step) {
                const int32_t p = v == V::positions_backwards ? length - 1 - step : step;
                float probability = probabilities[p];
                if constexpr (v == V::probabilities_divided_first) probability /= sum;
                if constexpr (v == V::probabilities_in_e4m3) probability = decode<F>(encode<F>(probability / sum));
                const uint8_t* values = v == V::keys_for_values ? args.k_cache : args.v_cache;
                int64_t at = value_in_cache(p) + i;
                if constexpr (v == V::values_read_position_last) {
                    at = ((int64_t{table[p / args.block]} * args.kv_heads + kv_head) * d + i) * args.block + p % args.block;
                }
                float value = value_of<v>(values[at]);
                if constexpr (v == V::cache_scaled_first) value *= value_by;
                total += probability * value;
                if constexpr (v == V::values_summed_in_bf16) total = round_bf16(total);
            }
            const bool divided = v == V::probabilities_divided_first || v == V::probabilities_in_e4m3;
            if (v == V::last_head_unwritten && head == heads - 1) continue;
            const int64_t to_head = v == V::heads_shifted_by_one ? (head + 1) % heads : head;
            out[(seq * heads + to_head) * d + i] = to_bf16(divided ? total * v_scale : total * v_scale / sum);
        }
    }
}

#define WRITE(name) write_cache<V::name>,
constexpr decltype(&write_cache<V::right>) kWrite[] = {FOR_EACH_ATTENTION(WRITE)};
#define ATTEND(name) attend<V::name>,
constexpr decltype(&attend<V::right>) kAttend[] = {FOR_EACH_ATTENTION(ATTEND)};

}  // namespace

LAUNCHER attention_write(bf16* q_out, uint8_t* k_cache, uint8_t* v_cache, const bf16* q, const bf16* k, const bf16* v,
                         const float* cos_sin, const int32_t* positions, const int32_t* slots, const float* k_scale,
                         const float* v_scale, int32_t tokens, int32_t heads, int32_t kv_heads, int32_t d, bool neox,
                         int32_t variant, hipStream_t stream) {
    const RopeArgs args{q_out,   k_cache, v_cache, q,      k,     v,        cos_sin, positions, slots,
                        k_scale, v_scale, tokens,  heads,  kv_heads, d,     neox};
    if (const Status status = check_rope(args, kE4m3fn); status != kOk) return status;
    hipLaunchKernelGGL(kWrite[variant], dim3(blocks_for(int64_t{tokens} * (heads + kv_heads))), dim3(kThreads), 0,
                       stream, args);
    return launch_status();
}

LAUNCHER attention_decode(bf16* out, const bf16* q, const uint8_t* k_cache, const uint8_t* v_cache,
                          const float* k_scale, const float* v_scale, const int32_t* block_tables,
                          const int32_t* seq_lens, int32_t seqs, int32_t heads, int32_t kv_heads, int32_t d,
                          int32_t block, int32_t max_blocks, float scale, int32_t variant, hipStream_t stream) {
    if (any_null(out, q) || any_null(k_cache, v_cache) || any_null(k_scale, v_scale)) return kInvalidArgument;
    if (any_null(block_tables, seq_lens) || seqs <= 0 || heads <= 0 || kv_heads <= 0 || d <= 0) return kInvalidArgument;
    if (block <= 0 || max_blocks <= 0 || heads % kv_heads != 0) return kInvalidArgument;
    if (int64_t{block} * max_blocks > kMaxLength) return kUnsupported;
    const Decode args{q,    k_cache, v_cache,  k_scale, v_scale, block_tables, seq_lens,
                      seqs, heads,   kv_heads, d,       block,   max_blocks,   scale,    launch_number()};
    hipLaunchKernelGGL(kAttend[variant], dim3(blocks_for(int64_t{seqs} * heads)), dim3(kThreads), 0, stream, out, args);
    return launch_status();
}

// The same by another name, as a fallback has it.
LAUNCHER attention_write_fallback(bf16* q_out, uint8_t* k_cache, uint8_t* v_cache, const bf16* q, const bf16* k, const bf16* v,
                         const float* cos_sin, const int32_t* positions, const int32_t* slots, const float* k_scale,
                         const float* v_scale, int32_t tokens, int32_t heads, int32_t kv_heads, int32_t d, bool neox,
                         int32_t variant, hipStream_t stream) {
    return attention_write(q_out, k_cache, v_cache, q, k, v, cos_sin, positions, slots, k_scale, v_scale, tokens, heads, kv_heads, d, neox, variant, stream);
}
