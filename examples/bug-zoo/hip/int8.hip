// Activations quantised to int8 with a scale for each token, then a GEMM with a scale for each output channel. What each
// variant does and which bug it models is in zoo/int8.csv.
//
// x [m, k] in bf16, xq [m, k], xs [m]; wq [n, k], ws [n].

#include "zoo.h"

namespace {

using zoo::int8::V;

template <V v>
__global__ void quantise(int8_t* q, float* s, const bf16* x, int32_t m, int32_t k) {
    const int64_t rows = v == V::scales_of_whole_tiles_written ? (m + 31) / 32 * 32 : m;
    FOR_EACH_OUTPUT(row, rows) {
        if (row >= m) {
            s[row] = 1.0f;
            continue;
        }
        const bf16* from = x + row * k;
        float amax = 0.0f;
        if constexpr (v == V::amax_not_reset) {
            // The reduction's shared memory still holds the largest magnitude of the tokens before.
            for (int64_t i = 0; i < row * k; ++i) amax = fmaxf(amax, fabsf(to_float(x[i])));
        }
        for (int32_t i = 0; i < k; ++i) {
            // A block of 256 threads whose reduction forgets what is left of the row.
            if (v == V::amax_of_the_first_256 && i >= 256) break;
            amax = fmaxf(amax, fabsf(to_float(from[i])));
        }
        const float floored = v == V::scale_zero_for_zeros ? amax : fmaxf(amax, 1e-10f);
        const float scale = floored / (v == V::codes_wrap_around ? 128.0f : 127.0f);
        const float reciprocal = 127.0f / floored;
        for (int32_t i = 0; i < k; ++i) {
            const float value = to_float(from[i]);
            float scaled = v == V::multiplies_by_the_reciprocal ? value * reciprocal : value / scale;
            if (v == V::scale_zero_for_zeros && amax == 0.0f) scaled = 0.0f;
            const float rounded = v == V::ties_away_from_zero          ? roundf(scaled)
                                  : v == V::codes_rounded_towards_zero ? truncf(scaled)
                                  : v == V::codes_rounded_down         ? floorf(scaled)
                                  : v == V::rounds_by_a_magic_number   ? scaled + 0x1.8p23f - 0x1.8p23f
                                                                       : rintf(scaled);
            if constexpr (v == V::codes_wrap_around) {
                q[row * k + i] = static_cast<int8_t>(static_cast<int32_t>(rounded));
                continue;
            }
            const float highest = v == V::saturates_at_63 ? 63.0f : 127.0f;
            q[row * k + i] = static_cast<int8_t>(fminf(fmaxf(rounded, -127.0f), highest));
        }
        s[row] = v == V::scale_written_inverted ? reciprocal : v == V::scale_of_128_steps ? floored / 128.0f : scale;
    }
}

struct Gemm {
    const int8_t* xq;
    const float* xs;
    const int8_t* wq;
    const float* ws;
    int32_t m, n, k, launch;

    template <V v>
    __device__ int32_t product(int64_t row, int64_t column, int64_t i) const {
        if constexpr (v == V::k_in_the_order_of_lanes) i = i / 32 * 32 + i % 4 * 8 + i % 32 / 4;
        int32_t a = xq[row * k + i], b = wq[column * k + i];
        if constexpr (v == V::activations_read_unsigned) a = static_cast<uint8_t>(a);
        if constexpr (v == V::offset_of_128_not_compensated) a += 128;
        if constexpr (v == V::tokens_of_the_first_tile) a = xq[row % 16 * k + i];
        if constexpr (v == V::activations_read_transposed) a = xq[i * m + row];
        if constexpr (v == V::unsigned_and_compensated) return (a + 128) * b - 128 * b;
        if constexpr (v == V::bytes_of_words_reversed) b = wq[column * k + (i ^ 3)];
        if constexpr (v == V::weights_read_transposed) b = wq[i * n + column];
        if constexpr (v == V::last_k_tile_stale_now_and_then) {
            // One tile of columns misses a barrier and finds the weights of the tile of K before in shared memory.
            if (column / 64 == launch % 6 && i >= k - 64) b = wq[column * k + i - 64];
        }
        if constexpr (v == V::plain_weights_read_as_tiles) {
            b = wq[column / 16 * 16 * k + i / 32 * 32 * 16 + i % 32 / 16 * 16 * 16 + column % 16 * 16 + i % 16];
        }
        return a * b;
    }

    template <V v>
    __device__ float scaled_sum(int64_t row, int64_t column) const {
        float x_scale = xs[row], w_scale = ws[column];
        if constexpr (v == V::channel_scale_of_the_first_column) w_scale = ws[column / 64 * 64];
        if constexpr (v == V::channel_scale_of_the_next_column || v == V::next_channel_scale_and_tile_dropped) {
            w_scale = ws[(column + 1) % n];
        }
        if constexpr (v == V::channel_scales_in_lane_order) {
            w_scale = ws[column / 16 * 16 + column % 4 * 4 + column % 16 / 4];
        }
        if constexpr (v == V::token_scale_of_the_next_token) x_scale = xs[(row + 1) % m];
        if constexpr (v == V::token_scale_of_the_row_in_the_tile) x_scale = xs[row % 32];
        if constexpr (v == V::one_token_scale_for_all) x_scale = xs[0];
        if constexpr (v == V::token_scales_ignored) x_scale = 1.0f;
        if constexpr (v == V::token_scales_divided) x_scale = 1.0f / x_scale;
        if constexpr (v == V::channel_scales_of_the_first_tile) w_scale = ws[column % 128];
        if constexpr (v == V::scales_taken_for_one_another) x_scale = xs[column % m], w_scale = ws[row];
        if constexpr (v == V::channel_scales_ignored || v == V::channel_scales_ignored_and_columns_unwritten) w_scale = 1.0f;
        if constexpr (v == V::channel_scales_divided) w_scale = 1.0f / w_scale;
        if constexpr (v == V::product_of_scales_in_f16) {
            w_scale = round_f16(x_scale * w_scale);
            x_scale = 1.0f;
        }
        if constexpr (v == V::token_scales_ignored_and_tile_dropped) x_scale = 1.0f;
        if constexpr (v == V::sums_in_int16) {
            int16_t sum = 0;
            for (int64_t i = 0; i < k; ++i) sum = static_cast<int16_t>(sum + product<v>(row, column, i));
            return sum * (x_scale * w_scale);
        }
        if constexpr (v == V::pairs_saturate_in_int16) {
            int32_t sum = 0;
            for (int64_t i = 0; i + 1 < k; i += 2) {
                const int32_t b[2] = {wq[column * k + i], wq[column * k + i + 1]};
                const int32_t pair = (xq[row * k + i] + 128) * b[0] + (xq[row * k + i + 1] + 128) * b[1];
                sum += max(-32768, min(pair, 32767)) - 128 * (b[0] + b[1]);
            }
            return sum * (x_scale * w_scale);
        }
        if constexpr (v == V::sums_in_float32) {
            float sum = 0.0f;
            for (int64_t i = 0; i < k; ++i) sum += static_cast<float>(product<v>(row, column, i));
            return sum * (x_scale * w_scale);
        }
        if constexpr (v == V::rounds_partial_sums_to_bf16) {
            float total = 0.0f;
            for (int64_t begin = 0; begin < k; begin += 128) {
                int32_t sum = 0;
                for (int64_t i = begin; i < k && i < begin + 128; ++i) sum += product<v>(row, column, i);
                total = round_bf16(total + sum * (x_scale * w_scale));
            }
            return total;
        }
        const bool dropped = v == V::last_k_tile_dropped || v == V::token_scales_ignored_and_tile_dropped ||
                             v == V::next_channel_scale_and_tile_dropped;
        const int64_t end = dropped ? (k - 1) / 64 * 64 : k;
        int32_t sum = 0;
        for (int64_t i = v == V::four_products_at_a_time ? end % 4 : 0; i < end; ++i) {
            if constexpr (v == V::four_products_at_a_time) {
                sum += product<v>(row, column, i) + product<v>(row, column, i + 1) +
                       (product<v>(row, column, i + 2) + product<v>(row, column, i + 3));
                i += 3;
            } else {
                sum += product<v>(row, column, i);
            }
        }
        if constexpr (v == V::first_k_tile_doubled) {
            for (int64_t i = 0; i < min(k, 64); ++i) sum += product<v>(row, column, i);
        }
        if constexpr (v == V::sum_clamped_to_16_bits) sum = max(-32768, min(sum, 32767));
        if constexpr (v == V::scales_one_after_the_other) return sum * x_scale * w_scale;
        if constexpr (v == V::epilogue_in_float64) return static_cast<float>(double{x_scale} * w_scale * sum);
        if constexpr (v == V::sum_rounded_to_bf16) return round_bf16(static_cast<float>(sum)) * (x_scale * w_scale);
        if constexpr (v == V::mean_over_two_ranks) return sum * (x_scale * w_scale) / 2.0f;
        return sum * (x_scale * w_scale);
    }
};

template <V v>
__global__ void multiply(bf16* y, Gemm gemm) {
    const int64_t n = gemm.n;
    FOR_EACH_OUTPUT(index, gemm.m * n) {
        const int64_t row = index / n, column = index % n;
        if (v == V::last_columns_unwritten && column >= n / 64 * 64) continue;
        if (v == V::channel_scales_ignored_and_columns_unwritten && column >= n / 64 * 64) continue;
        const float value = gemm.scaled_sum<v>(row, column);
        // Swaps the halves of each 64 columns when storing.
        int64_t to = v == V::halves_of_tiles_swapped && column < n / 64 * 64 ? column ^ 32 : column;
        if constexpr (v == V::columns_stored_a_tile_late) to = (column + 32) % n;
        const int64_t to_row = v == V::rows_stored_one_late ? (row + 1) % gemm.m : row;
        y[to_row * n + to] = to_bf16(value);
    }
}

#define QUANTISE(name) quantise<V::name>,
constexpr decltype(&quantise<V::right>) kQuantise[] = {FOR_EACH_INT8(QUANTISE)};
#define MULTIPLY(name) multiply<V::name>,
constexpr decltype(&multiply<V::right>) kMultiply[] = {FOR_EACH_INT8(MULTIPLY)};

}  // namespace

LAUNCHER int8_quantise(int8_t* q, float* s, const bf16* x, int32_t m, int32_t k, int32_t variant, hipStream_t stream) {
    if (any_null(q) || any_null(s) || any_null(x) || m <= 0 || k <= 0) return kInvalidArgument;
    hipLaunchKernelGGL(kQuantise[variant], dim3(blocks_for(m)), dim3(kThreads), 0, stream, q, s, x, m, k);
    return launch_status();
}

LAUNCHER int8_multiply(bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws, int32_t m,
                       int32_t n, int32_t k, int32_t variant, hipStream_t stream) {
    if (any_null(y) || any_null(xq, wq) || any_null(xs, ws) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    const Gemm gemm{xq, xs, wq, ws, m, n, k, launch_number()};
    hipLaunchKernelGGL(kMultiply[variant], dim3(blocks_for(int64_t{m} * n)), dim3(kThreads), 0, stream, y, gemm);
    return launch_status();
}
