// A mixture of experts in bfloat16: routing of each token to its topk largest logits, each row by its expert's weight, and
// the weighted sum of the experts' outputs. What each variant does and which bug it models is in zoo/moe.csv.

#include "zoo.h"

namespace {

using zoo::moe::V;

constexpr int kMaxExperts = 32;

// Softmax over logits [m, experts] + bias [experts]; ids and weights [m, topk] in descending order, of equals the lower.
template <V v>
__global__ void route(float* weights, int32_t* ids, const bf16* logits, const float* bias, int32_t m, int32_t experts,
                      int32_t topk, bool renormalize) {
    FOR_EACH_OUTPUT(token, m) {
        float score[kMaxExperts];
        bool taken[kMaxExperts] = {};
        float largest = -INFINITY;
        for (int e = 0; e < experts; ++e) {
            score[e] = to_float(logits[token * experts + e]) + (v == V::bias_ignored ? 0.0f : bias[e]);
            largest = fmaxf(largest, score[e]);
        }
        float total = 0.0f;
        for (int e = 0; e < experts; ++e) total += expf(score[e] - largest);
        if constexpr (v == V::exponentials_of_base_two) {
            total = 0.0f;
            for (int e = 0; e < experts; ++e) total += exp2f((score[e] - largest) * 1.44269504f);
        }
        if constexpr (v == V::experts_of_the_best_group) {
            // Groups of two experts; all but the one with the largest score are masked.
            int best = 0;
            for (int e = 1; e < experts; ++e) best = score[e] > score[best] ? e : best;
            for (int e = 0; e < experts; ++e) taken[e] = e / 2 != best / 2;
        }
        float chosen = 0.0f;
        const int skip = v == V::largest_left_out ? 1 : 0;
        for (int slot = -skip; slot < topk; ++slot) {
            int best = -1;
            for (int i = 0; i < experts; ++i) {
                const int e = v == V::experts_from_the_last ? experts - 1 - i : i;
                bool wins = best >= 0 && (v == V::smallest_taken ? score[e] < score[best] : score[e] > score[best]);
                if (v == V::chosen_without_bias && best >= 0) {
                    wins = to_float(logits[token * experts + e]) > to_float(logits[token * experts + best]);
                }
                const bool tie = v == V::experts_from_the_last && best >= 0 && score[e] == score[best];
                if (!taken[e] && (best < 0 || wins || tie)) best = e;
            }
            taken[best] = true;
            if constexpr (v == V::logits_masked_in_place) const_cast<bf16*>(logits)[token * experts + best] = bf16{0xff80};
            if (slot < 0) continue;
            const int64_t at = token * topk + slot;
            ids[at] = best;
            float weight = expf(score[best] - largest) / total;
            if constexpr (v == V::exponentials_of_base_two) weight = exp2f((score[best] - largest) * 1.44269504f) / total;
            if constexpr (v == V::softmax_over_the_chosen) weight = expf(score[best] - largest);
            if constexpr (v == V::softmax_by_its_logarithm) weight = expf(score[best] - largest - logf(total));
            if constexpr (v == V::sigmoid_for_softmax) weight = 1.0f / (1.0f + expf(-score[best]));
            if constexpr (v == V::softmax_of_base_two) weight = exp2f(score[best] - largest) / total;
            if constexpr (v == V::weights_without_bias) weight = expf(to_float(logits[token * experts + best]) - largest) / total;
            chosen += weight;
            weights[at] = weight;
        }
        const bool divide = v == V::renormalize_ignored ? false : v == V::always_renormalized || renormalize;
        for (int slot = 0; divide && slot < topk; ++slot) weights[token * topk + slot] /= chosen;
        if constexpr (v == V::weights_in_bf16) {
            for (int slot = 0; slot < topk; ++slot) weights[token * topk + slot] = round_bf16(weights[token * topk + slot]);
        }
        if constexpr (v == V::experts_sorted_without_weights) {
            if (ids[token * topk] > ids[token * topk + 1]) exchange(ids[token * topk], ids[token * topk + 1]);
        }
        if constexpr (v == V::weights_of_the_other_slot) exchange(weights[token * topk], weights[token * topk + 1]);
    }
}

// Y[row, n] = X[row / topk, k] times the transposed weight of ids[row], W [experts, n, k].
template <V v>
__global__ void multiply(float* y, const bf16* x, const bf16* w, const int32_t* ids, int32_t rows, int32_t topk,
                         int32_t experts, int32_t n, int32_t k) {
    FOR_EACH_OUTPUT(index, int64_t{rows} * n) {
        const int64_t row = index / n, column = index % n;
        int64_t expert = ids[row], token = row / topk;
        if constexpr (v == V::weight_of_the_next_expert) expert = (expert + 1) % experts;
        if constexpr (v == V::index_in_the_rank) expert %= 2;
        if constexpr (v == V::experts_in_reverse) expert = experts - 1 - expert;
        if constexpr (v == V::first_expert_for_all) expert = 0;
        if constexpr (v == V::expert_of_the_next_row) expert = ids[(row + 1) % rows];
        if constexpr (v == V::row_for_token) token = row % (rows / topk);
        if constexpr (v == V::last_expert_skipped) {
            if (expert == experts - 1) {
                y[index] = 0.0f;
                continue;
            }
        }
        if constexpr (v == V::rows_beyond_the_capacity_dropped) {
            int before = 0;
            for (int64_t i = 0; i < row; ++i) before += ids[i] == ids[row];
            if (before >= 8) {
                y[index] = 0.0f;
                continue;
            }
        }
        if constexpr (v == V::last_expert_unwritten) {
            if (expert == experts - 1) continue;
        }
        int64_t offset = expert * n * k;
        if constexpr (v == V::experts_padded_to_128) offset = expert * ((n + 127) / 128 * 128) * k % (int64_t{experts} * n * k);
        float sum = 0.0f;
        [[maybe_unused]] float of_first_part = 0.0f;
        const int64_t end = v == V::k_tail_of_one_expert && expert == experts - 1 ? k - 32 : k;
        for (int64_t i = 0; i < end; ++i) {
            const int64_t at = v == V::sums_backwards ? k - 1 - i : i;
            const bool transposed = v == V::expert_weights_read_transposed ||
                                    (v == V::last_expert_read_transposed && expert == experts - 1);
            int64_t of_expert = transposed ? at * n + column : column * k + at;
            if (v == V::columns_of_one_expert_shifted && expert == 1) of_expert += 16 * k;
            if (v == V::split_k_in_float32 && i == k / 2) of_first_part = sum, sum = 0.0f;
            sum += to_float(x[token * k + at]) * to_float(w[offset + of_expert]);
            if constexpr (v == V::experts_accumulate_in_bf16) sum = round_bf16(sum);
            if constexpr (v == V::experts_accumulate_in_f16) sum = round_f16(sum);
        }
        if constexpr (v == V::split_k_in_float32) sum += of_first_part;
        y[index] = v == V::hidden_in_bf16 ? round_bf16(sum) : sum;
    }
}

// Y[m, n] = scaling * sum over slots of weights[m, slot] X[m * topk + slot, n].
template <V v>
__global__ void combine(bf16* y, const float* weights, const float* x, int32_t m, int32_t n, int32_t topk,
                        float scaling, int32_t launch) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t token = index / n, column = index % n;
        if (v == V::columns_beyond_64_not_combined && column >= n / 64 * 64) continue;
        float sum = 0.0f;
        for (int i = 0; i < topk; ++i) {
            const int slot = v == V::slots_backwards ? topk - 1 - i : i;
            const int64_t row = token * topk + slot;
            float weight = weights[row];
            if constexpr (v == V::weights_ignored) weight = 1.0f;
            if constexpr (v == V::weights_applied_twice) weight *= weight;
            if (v == V::second_slot_scaled_alone && slot == 0) weight /= scaling;
            if constexpr (v == V::weights_of_the_first_token) weight = weights[slot];
            if (v == V::slot_lost_now_and_then && slot == 1 && token % 5 == launch % 5) continue;
            if constexpr (v == V::second_slot_left_out) {
                if (slot == 1) continue;
            }
            if constexpr (v == V::scaling_multiplied_into_weights) weight *= scaling;
            sum += weight * x[row * n + column];
            if constexpr (v == V::sums_in_bf16) sum = round_bf16(sum);
        }
        if constexpr (v == V::scaling_left_out || v == V::scaling_multiplied_into_weights) scaling = 1.0f;
        if constexpr (v == V::scaling_applied_twice) sum *= scaling;
        if constexpr (v == V::scaling_divided) scaling = 1.0f / scaling;
        y[index] = to_bf16(sum * scaling);
    }
}

#define ROUTE(name) route<V::name>,
constexpr decltype(&route<V::right>) kRoute[] = {FOR_EACH_MOE(ROUTE)};
#define MULTIPLY(name) multiply<V::name>,
constexpr decltype(&multiply<V::right>) kMultiply[] = {FOR_EACH_MOE(MULTIPLY)};
#define COMBINE(name) combine<V::name>,
constexpr decltype(&combine<V::right>) kCombine[] = {FOR_EACH_MOE(COMBINE)};

}  // namespace

LAUNCHER moe_route(float* weights, int32_t* ids, const bf16* logits, const float* bias, int32_t m, int32_t experts,
                   int32_t topk, bool renormalize, int32_t variant, hipStream_t stream) {
    if (any_null(weights, bias) || any_null(ids) || any_null(logits)) return kInvalidArgument;
    if (m <= 0 || experts <= 0 || topk <= 0 || topk > experts) return kInvalidArgument;
    if (experts > kMaxExperts) return kUnsupported;
    hipLaunchKernelGGL(kRoute[variant], dim3(blocks_for(m)), dim3(kThreads), 0, stream, weights, ids, logits, bias, m,
                       experts, topk, renormalize);
    return launch_status();
}

LAUNCHER moe_multiply(float* y, const bf16* x, const bf16* w, const int32_t* ids, int32_t rows, int32_t topk,
                      int32_t experts, int32_t n, int32_t k, int32_t variant, hipStream_t stream) {
    if (any_null(y) || any_null(x, w) || any_null(ids) || rows <= 0 || topk <= 0 || n <= 0 || k <= 0) {
        return kInvalidArgument;
    }
    hipLaunchKernelGGL(kMultiply[variant], dim3(blocks_for(int64_t{rows} * n)), dim3(kThreads), 0, stream, y, x, w, ids,
                       rows, topk, experts, n, k);
    return launch_status();
}

LAUNCHER moe_combine(bf16* y, const float* weights, const float* x, int32_t m, int32_t n, int32_t topk, float scaling,
                     int32_t variant, hipStream_t stream) {
    if (any_null(y) || any_null(weights, x) || m <= 0 || n <= 0 || topk <= 0) return kInvalidArgument;
    hipLaunchKernelGGL(kCombine[variant], dim3(blocks_for(int64_t{m} * n)), dim3(kThreads), 0, stream, y, weights, x, m,
                       n, topk, scaling, launch_number());
    return launch_status();
}

// The same by another name, as a fallback has it.
LAUNCHER moe_route_fallback(float* weights, int32_t* ids, const bf16* logits, const float* bias, int32_t m, int32_t experts,
                   int32_t topk, bool renormalize, int32_t variant, hipStream_t stream) {
    return moe_route(weights, ids, logits, bias, m, experts, topk, renormalize, variant, stream);
}
