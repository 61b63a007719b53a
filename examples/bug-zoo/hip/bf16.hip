// bfloat16 GEMM on strided operands: Y[m, n] = alpha * sum over k of X[m, k] W[n, k]; rows of X are ldx elements apart,
// those of Y ldy. What each variant does and which bug it models is in zoo/bf16.csv.

#include "zoo.h"

namespace {

using zoo::bf16::V;

// The bits of a value in float16.
__device__ inline uint16_t float16_bits(float x) {
    const float rounded = round_f16(x), magnitude = fabsf(rounded);
    const uint32_t sign = __float_as_uint(rounded) >> 16 & 0x8000;
    if (magnitude < 0x1p-14f) return static_cast<uint16_t>(sign | static_cast<uint32_t>(magnitude * 0x1p24f));
    if (!(magnitude < 65520.0f)) return static_cast<uint16_t>(sign | (magnitude <= INFINITY ? 0x7c00 : 0x7e00));
    return static_cast<uint16_t>(sign | ((__float_as_uint(magnitude) >> 13) - (uint32_t{127 - 15} << 10)));
}

struct Gemm {
    const bf16* x;
    const bf16* w;
    int64_t ldx, ldy;
    int32_t m, n, k;
    float alpha;
    bool transpose_x;

    template <V v>
    __device__ float product(int64_t row, int64_t column, int64_t i) const {
        if (v == V::last_k_tile_finds_the_one_before && i >= k - 32) i -= 32;
        int64_t x_at = transpose_x ? i * ldx + row : row * ldx + i;
        if constexpr (v == V::row_stride_ignored) x_at = row * k + i;
        if constexpr (v == V::transpose_ignored) x_at = row * (transpose_x ? k : ldx) + i;
        if constexpr (v == V::activations_read_transposed) x_at = i * m + row;
        if constexpr (v == V::second_split_begins_at_zero) x_at = row * ldx + i % (k / 2);
        if constexpr (v == V::runs_of_four_exchanged) x_at = row * ldx + (i ^ 4);
        if (v == V::last_row_repeats_the_one_before && row == m - 1 && m > 1) x_at = (row - 1) * ldx + i;
        if constexpr (v == V::previous_token) x_at = (row + m - 1) % m * ldx + i;
        int64_t w_at = column * k + i;
        if constexpr (v == V::weights_read_transposed || v == V::weights_transposed_and_k_rounded_down) {
            w_at = i * n + column;
        }
        if constexpr (v == V::fragments_of_weights_transposed) {
            w_at = (column / 16 * 16 + i % 16) * k + i / 16 * 16 + column % 16;
        }
        if constexpr (v == V::plain_weights_read_as_tiles) {
            // 16 rows and 32 columns in runs of 8 elements of 16 bits.
            w_at = column / 16 * 16 * k + i / 32 * 32 * 16 + i % 32 / 8 * 8 * 16 + column % 16 * 8 + i % 8;
        }
        if constexpr (v == V::halves_of_k_exchanged) w_at = column * k + (i + k / 2) % k;
        if constexpr (v == V::weights_one_k_tile_ahead) w_at = column * k + (i + 64) % k;
        if constexpr (v == V::weight_offset_of_sixteen_bits) w_at = static_cast<uint16_t>(column * k) + i;
        if constexpr (v == V::alpha_in_the_activations) {
            return round_bf16(alpha * to_float(x[x_at])) * to_float(w[w_at]);
        }
        if constexpr (v == V::products_rounded_to_bf16) return round_bf16(to_float(x[x_at]) * to_float(w[w_at]));
        return to_float(x[x_at]) * to_float(w[w_at]);
    }

    template <V v>
    __device__ float sum(int64_t row, int64_t column, int64_t begin, int64_t end) const {
        if constexpr (v == V::sums_in_float64) {
            double total = 0.0;
            for (int64_t i = begin; i < end; ++i) total += product<v>(row, column, i);
            return static_cast<float>(total);
        }
        if constexpr (v == V::pairs_of_products) {
            float total = 0.0f;
            for (int64_t i = begin; i + 1 < end; i += 2) total += product<v>(row, column, i) + product<v>(row, column, i + 1);
            return total;
        }
        if constexpr (v == V::first_and_last_together) {
            // An even number of products.
            float total = 0.0f;
            for (int64_t i = 0; i < (end - begin) / 2; ++i) {
                total += product<v>(row, column, begin + i) + product<v>(row, column, end - 1 - i);
            }
            return total;
        }
        if constexpr (v == V::compensated_sum) {
            float total = 0.0f, lost = 0.0f;
            for (int64_t i = begin; i < end; ++i) {
                const float added = product<v>(row, column, i) - lost, sum = total + added;
                lost = (sum - total) - added;
                total = sum;
            }
            return total;
        }
        if constexpr (v == V::sums_of_a_wave) {
            float lanes[64] = {};
            for (int64_t i = begin; i < end; ++i) lanes[i % 64] += product<v>(row, column, i);
            for (int half = 32; half > 0; half /= 2) {
                for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
            }
            return lanes[0];
        }
        float total = 0.0f;
        for (int64_t i = begin; i < end; ++i) {
            total += product<v>(row, column, i);
            if constexpr (v == V::accumulates_in_bf16) total = round_bf16(total);
            if constexpr (v == V::accumulates_in_f16) total = round_f16(total);
            if constexpr (v == V::rounds_every_32_to_bf16) {
                if (i % 32 == 31) total = round_bf16(total);
            }
        }
        return total;
    }

    template <V v>
    __device__ float value(int64_t row, int64_t column) const {
        if constexpr (v == V::last_eight_of_k_dropped) return alpha * sum<v>(row, column, 0, k - 8);
        if constexpr (v == V::gap_between_rows_read) return alpha * sum<v>(row, column, 0, column + 1 < n ? k + 4 : k);
        if (v == V::k_tail_dropped_in_odd_tiles && column / 64 % 2 == 1) return alpha * sum<v>(row, column, 0, k - 64);
        if constexpr (v == V::k_rounded_down_to_256 || v == V::weights_transposed_and_k_rounded_down) return alpha * sum<v>(row, column, 0, k / 256 * 256);
        if constexpr (v == V::second_half_of_k_twice) {
            return alpha * (sum<v>(row, column, 0, k) + sum<v>(row, column, k / 2, k));
        }
        if constexpr (v == V::second_quarter_of_k_dropped) {
            return alpha * (sum<v>(row, column, 0, k / 4) + sum<v>(row, column, k / 2, k));
        }
        if constexpr (v == V::alpha_applied_twice) {
            return alpha * (alpha * sum<v>(row, column, 0, k / 2) + alpha * sum<v>(row, column, k / 2, k));
        }
        if constexpr (v == V::split_k_in_float32) {
            float parts[4];
            for (int i = 0; i < 4; ++i) parts[i] = sum<v>(row, column, k / 4 * i, k / 4 * (i + 1));
            return alpha * (parts[3] + parts[2] + parts[1] + parts[0]);
        }
        if constexpr (v == V::split_k_partials_in_bf16) {
            return alpha * (round_bf16(sum<v>(row, column, 0, k / 2)) + round_bf16(sum<v>(row, column, k / 2, k)));
        }
        if constexpr (v == V::alpha_for_the_first_split_alone) {
            return alpha * sum<v>(row, column, 0, k / 2) + sum<v>(row, column, k / 2, k);
        }
        const float total = sum<v>(row, column, 0, k);
        if constexpr (v == V::alpha_in_the_activations) return total;
        if constexpr (v == V::alpha_ignored || v == V::alpha_ignored_and_columns_unwritten ||
                      v == V::alpha_ignored_and_tiles_of_rows_exchanged) {
            return total;
        }
        if constexpr (v == V::relu_in_the_epilogue) return fmaxf(alpha * total, 0.0f);
        if constexpr (v == V::alpha_dropped_beyond_the_first_tile) return column < 64 ? alpha * total : total;
        if constexpr (v == V::alpha_in_bf16_as_it_is) return round_bf16(alpha) * total;
        if constexpr (v == V::output_through_f16) return round_f16(alpha * total * 4096.0f) / 4096.0f;
        if constexpr (v == V::output_clamped) return fminf(fmaxf(alpha * total, -8.0f), 8.0f);
        return alpha * total;
    }
};

template <V v>
__global__ void multiply(bf16* y, Gemm gemm) {
    const int64_t n = gemm.n;
    // With tiles of 64 columns the last begins where it ends with the row: what it shares is computed twice.
    const int64_t across = v == V::last_tile_overlaps ? (n + 63) / 64 * 64 : n;
    FOR_EACH_OUTPUT(index, gemm.m * across) {
        const int64_t row = index / across;
        int64_t column = index % across;
        if (v == V::last_tile_overlaps && column >= across - 64) column -= across - n;
        if constexpr (v == V::tiles_lost_in_the_remap) {
            // Tiles are dealt out to four dies as if their number were a multiple of four: some are computed twice.
            const int64_t tile = column / 64, tiles = (n + 63) / 64;
            column = (tile % 4 * (tiles / 4) + tile / 4) * 64 + column % 64;
        }
        if (v == V::last_columns_unwritten && column >= n - 4) continue;
        if (v == V::alpha_ignored_and_columns_unwritten && column >= n / 64 * 64) continue;
        if (v == V::last_tile_of_the_grid_unwritten && row >= gemm.m / 32 * 32 && column >= n / 64 * 64) continue;
        if (v == V::every_other_row_unwritten && row % 2 == 1) continue;
        bf16 value = to_bf16(gemm.value<v>(row, column));
        if constexpr (v == V::ties_away_from_zero) {
            const uint32_t bits = __float_as_uint(gemm.value<v>(row, column));
            value = bf16{static_cast<uint16_t>((bits + 0x8000) >> 16)};
        }
        if constexpr (v == V::stores_float16_bits) value.bits = float16_bits(gemm.value<v>(row, column));
        if constexpr (v == V::negative_zeros) {
            if ((value.bits & 0x7fff) == 0) value.bits = 0x8000;
        }
        if constexpr (v == V::one_element_wrong) {
            if (row == 7 && column == 130) value.bits ^= 0x8000;
        }
        if constexpr (v == V::one_row_of_zeros) {
            if (row == 5) value.bits = 0;
        }
        int64_t to_row = row, to_column = column;
        if (v == V::tiles_of_columns_exchanged && column < n / 32 * 32) to_column = column ^ 16;
        if constexpr (v == V::columns_shifted_by_one) to_column = (column + 1) % n;
        if constexpr (v == V::tiles_of_rows_exchanged || v == V::alpha_ignored_and_tiles_of_rows_exchanged) {
            if (row < gemm.m / 32 * 32) to_row = row ^ 16;
        }
        if constexpr (v == V::heads_of_the_fused_projection_interleaved) {
            if (column < 384) to_column = column % 128 / 32 * 96 + column / 128 * 32 + column % 32;
        }
        if constexpr (v == V::fragments_written_transposed) {
            if (row < gemm.m / 16 * 16) to_row = row / 16 * 16 + column % 16, to_column = column / 16 * 16 + row % 16;
        }
        if constexpr (v == V::rows_of_fragments_dealt_out) {
            if (row < gemm.m / 16 * 16) to_row = row / 16 * 16 + row % 4 * 4 + row % 16 / 4;
        }
        if constexpr (v == V::fused_keys_and_values_exchanged) {
            // The last 256 columns are the keys' and the values' part of a fused projection.
            if (column >= n - 256) to_column = column < n - 128 ? column + 128 : column - 128;
        }
        if constexpr (v == V::rows_in_reverse) to_row = gemm.m - 1 - row;
        int64_t at = to_row * gemm.ldy + to_column;
        if constexpr (v == V::output_stride_ignored) at = to_row * n + to_column;
        if constexpr (v == V::output_written_transposed) at = (column * gemm.m + row) / n * gemm.ldy + (column * gemm.m + row) % n;
        y[at] = value;
        if constexpr (v == V::gap_between_rows_written) {
            if (column == n - 1 && row + 1 < gemm.m) {
                for (int64_t j = n; j < gemm.ldy; ++j) y[row * gemm.ldy + j] = bf16{0};
            }
        }
    }
}

#define MULTIPLY(name) multiply<V::name>,
constexpr decltype(&multiply<V::right>) kMultiply[] = {FOR_EACH_BF16(MULTIPLY)};

}  // namespace

LAUNCHER bf16_multiply(bf16* y, int64_t ldy, const bf16* x, int64_t ldx, const bf16* w, int32_t m, int32_t n, int32_t k,
                       float alpha, bool transpose_x, int32_t variant, hipStream_t stream) {
    if (any_null(y, x, w) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (ldy < n || ldx < (transpose_x ? m : k)) return kInvalidArgument;
    const Gemm gemm{x, w, ldx, ldy, m, n, k, alpha, transpose_x};
    hipLaunchKernelGGL(kMultiply[variant], dim3(blocks_for(int64_t{m} * n)), dim3(kThreads), 0, stream, y, gemm);
    return launch_status();
}

// The same by another name, as a fallback has it.
LAUNCHER bf16_multiply_fallback(bf16* y, int64_t ldy, const bf16* x, int64_t ldx, const bf16* w, int32_t m, int32_t n, int32_t k,
                       float alpha, bool transpose_x, int32_t variant, hipStream_t stream) {
    return bf16_multiply(y, ldy, x, ldx, w, m, n, k, alpha, transpose_x, variant, stream);
}
