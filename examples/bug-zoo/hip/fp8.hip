// Activations quantised to e4m3 in groups of 128, then a GEMM with weights in 128 x 128 blocks. What each variant does
// and which bug it models is in zoo/fp8.csv.
//
// x [m, k] in bf16, xq [m, k], xs [m, k / 128] or, shuffled, column-major; wq [n, k], ws [ceil(n / 128), k / 128].

#include "zoo.h"

namespace {

using zoo::fp8::V;

template <V v>
constexpr bool is_fnuz = v == V::converted_to_fnuz_twice || v == V::fnuz_as_declared ||
                         v == V::fnuz_weights_read_as_fn || v == V::fnuz_scales_to_448 ||
                         v == V::activation_scales_doubled_for_fnuz;
template <V v>
using Format = std::conditional_t<is_fnuz<v>, E4m3fnuz, E4m3fn>;

// e5m2 is the upper byte of a float16.
__device__ inline float to_float_e5m2(uint8_t code) {
    const int exponent = code >> 2 & 31, mantissa = code & 3;
    const float magnitude = exponent == 0    ? ldexpf(static_cast<float>(mantissa), -16)
                            : exponent == 31 ? (mantissa == 0 ? INFINITY : NAN)
                                             : ldexpf(static_cast<float>(4 + mantissa), exponent - 17);
    return code & 0x80 ? -magnitude : magnitude;
}

// The code of a scaled value, mostly as the format has it.
template <V v>
__device__ uint8_t code_of(float x) {
    using F = Format<v>;
    if constexpr (v == V::encodes_as_fnuz) return encode<E4m3fnuz>(x);
    if constexpr (v == V::encodes_as_e5m2) return encode<E5m2>(x);
    if constexpr (v == V::encodes_by_steps) return encode_by_steps<F>(x);
    if constexpr (v == V::encodes_truncating) {
        const uint8_t code = encode<F>(x);
        return fabsf(decode<F>(code)) > fabsf(x) ? code - 1 : code;
    }
    if constexpr (v == V::ties_away_from_zero) {
        const uint8_t code = encode<F>(x);
        const bool tie = code % 128 < F::max_code && fabsf(x) * 2.0f == fabsf(decode<F>(code)) + fabsf(decode<F>(code + 1));
        return tie ? code + 1 : code;
    }
    if constexpr (v == V::overflows_to_nan) {
        // Where rounding leaves the last binade nothing saturates.
        if (fabsf(x) >= 448.0f) return 0x7f;
    }
    return encode<F>(x);
}

template <V v>
__global__ void quantise(uint8_t* q, float* s, bf16* x, int32_t m, int32_t k, bool shuffle_scale) {
    using F = Format<v>;
    const int64_t groups = k / kGroup;
    FOR_EACH_OUTPUT(index, m * groups) {
        const int64_t row = index / groups, group = index % groups;
        bf16* from = x + row * k + group * kGroup;
        float amax = 0.0f;
        for (int i = 0; i < kGroup; ++i) {
            const float value = to_float(from[i]);
            if (v == V::amax_of_half_a_group && i >= kGroup / 2) break;
            amax = fmaxf(amax, v == V::amax_without_sign ? value : fabsf(value));
        }
        float max = F::max;
        if constexpr (v == V::scales_to_240) max = 240.0f;
        // The maximum as host code sees it, where no device's macro is defined.
        if constexpr (v == V::fnuz_scales_to_448) max = 448.0f;
        if constexpr (v == V::scale_upper_bound) amax = fminf(amax, 2.0f);
        const float floored = v == V::no_epsilon || v == V::scale_zero_for_zeros ? amax : fmaxf(amax, 1e-10f);
        float scale = v == V::multiplies_by_the_reciprocal ? floored * (1.0f / max) : floored / max;
        const float stored = v == V::scale_written_inverted ? 1.0f / scale
                             : v == V::scale_for_240_codes_for_448 ? floored / 240.0f
                             : v == V::scale_is_the_largest_magnitude ? floored
                             : v == V::scale_rounded_to_bf16       ? round_bf16(scale)
                             : v == V::scale_one_for_zeros && amax == 0.0f ? 1.0f
                                                                   : scale;
        if constexpr (v == V::encodes_as_fnuz) scale = floored / 240.0f;
        if constexpr (v == V::codes_made_for_a_power_of_two) scale = exp2f(ceilf(log2f(scale)));
        const float reciprocal = 1.0f / scale;
        for (int i = 0; i < kGroup; ++i) {
            float value = to_float(from[i]);
            if constexpr (v == V::cast_to_e4m3_before_the_scale) value = decode<F>(encode<F>(value));
            float scaled = v == V::multiplies_by_the_reciprocal ? value * reciprocal : value / scale;
            if (v == V::scale_zero_for_zeros && amax == 0.0f) scaled = 0.0f;
            if constexpr (v == V::codes_half_as_large) scaled *= 0.5f;
            if constexpr (v == V::cast_without_their_scale) scaled = value;
            if constexpr (v == V::normalises_its_input) from[i] = to_bf16(scaled);
            int64_t at = row * k + group * kGroup + i;
            if constexpr (v == V::activations_written_transposed) at = (group * kGroup + i) * m + row;
            if (v == V::last_row_not_quantised && row >= m / 32 * 32) continue;
            q[at] = code_of<v>(scaled);
        }
        if (v == V::last_scale_unwritten && group >= groups / 2 * 2) continue;
        bool column_major = shuffle_scale;
        if constexpr (v == V::scales_written_row_major || v == V::row_major_scales_and_last_tile) column_major = false;
        if constexpr (v == V::scales_written_column_major) column_major = true;
        int64_t at = column_major ? group * m + row : row * groups + group;
        if constexpr (v == V::scales_column_major_within_tiles) {
            const int64_t first = row / 32 * 32, rows = m - first < 32 ? m - first : 32;
            at = first * groups + group * rows + row % 32;
        }
        if constexpr (v == V::scale_padding_written) {
            if (group == groups - 1 && row == m - 1) s[m * groups] = 0.0f;
        }
        s[at] = stored;
    }
}

struct Gemm {
    const uint8_t* xq;
    const float* xs;
    const uint8_t* wq;
    const float* ws;
    int32_t m, n, k;
    bool shuffle_scale;

    template <V v>
    __device__ float x(int64_t row, int64_t i) const {
        if constexpr (v == V::rows_shifted_by_one) row = (row + 1) % m;
        if constexpr (v == V::k_rounded_up_to_256) {
            // A buffer load beyond the end gives 0.
            if (row * k + i >= int64_t{m} * k) return 0.0f;
        }
        const uint8_t code = xq[row * k + i];
        if constexpr (v == V::activations_read_as_fnuz || v == V::row_major_scales_and_fnuz ||
                      v == V::activations_as_fnuz_and_last_tile_dropped || v == V::weight_scales_divided_and_fnuz) {
            return decode<E4m3fnuz>(code);
        }
        if (v == V::last_row_read_as_fnuz && row >= m / 32 * 32) return decode<E4m3fnuz>(code);
        if (v == V::last_k_tile_read_as_fnuz && i / kGroup == k / kGroup - 1) return decode<E4m3fnuz>(code);
        if constexpr (v == V::negative_zeros_are_nan) {
            if (code == 0x80) return NAN;
        }
        return decode<Format<v>>(code);
    }

    template <V v>
    __device__ float w(int64_t column, int64_t i) const {
        int64_t at = column * k + i;
        if constexpr (v == V::weights_read_transposed) at = i * n + column;
        if constexpr (v == V::plain_weights_read_as_tiles || v == V::reads_preshuffled_weights) {
            // Tiles of 16 rows and 32 columns in runs of 16 codes.
            at = column / 16 * 16 * k + i / 32 * 32 * 16 + i % 32 / 16 * 16 * 16 + column % 16 * 16 + i % 16;
        }
        if constexpr (v == V::weights_read_as_tiles_of_32_rows) {
            // Tiles of 32 rows instead of 16; what is no whole tile of them is in tiles of 16.
            const int64_t rows = column < n / 32 * 32 ? 32 : 16;
            at = column / rows * rows * k + i / 32 * 32 * rows + i % 32 / 16 * 16 * rows + column % rows * 16 + i % 16;
        }
        if constexpr (v == V::last_tile_of_weights_in_another_order) {
            // Runs 0, 2, 1, 3 of 16 codes.
            const int64_t run = i % 64 / 16;
            if (i / kGroup == k / kGroup - 1 && (run == 1 || run == 2)) at += run == 1 ? 16 : -16;
        }
        if constexpr (v == V::weights_swizzled_in_shared_memory) {
            // Rows of 128 bytes: the run of 16 is that of the exclusive or with the row in its tile of 8.
            at = column * k + i / 128 * 128 + (i % 128 / 16 ^ column % 8) * 16 + i % 16;
        }
        if constexpr (v == V::second_tile_of_weights_is_stale) {
            if (i / kGroup == 1) at -= kGroup;
        }
        if constexpr (v == V::k_rounded_up_to_256) {
            if (at >= int64_t{n} * k) return 0.0f;
        }
        const uint8_t code = wq[at];
        if (v == V::last_columns_read_as_fnuz && column >= n / kGroup * kGroup) return decode<E4m3fnuz>(code);
        if constexpr (v == V::weights_read_as_e5m2) return to_float_e5m2(code);
        if constexpr (v == V::fnuz_weights_read_as_fn) return decode<E4m3fn>(code);
        if constexpr (v == V::weights_read_as_fnuz || v == V::weight_scales_transposed_and_fnuz ||
                      v == V::row_major_scales_and_fnuz_weights || v == V::activation_scales_ignored_and_fnuz_weights) {
            return decode<E4m3fnuz>(code);
        }
        return decode<Format<v>>(code);
    }

    template <V v>
    __device__ float x_scale(int64_t row, int64_t group) const {
        const int64_t groups = k / kGroup;
        if constexpr (v == V::activation_scales_ignored || v == V::activation_scales_ignored_and_fnuz_weights) return 1.0f;
        if constexpr (v == V::k_rounded_up_to_256) {
            if (row * groups + group >= m * groups) return 0.0f;
        }
        if constexpr (v == V::two_tokens_share_a_scale) row &= ~int64_t{1};
        if constexpr (v == V::activation_scales_read_in_tiles_of_16) {
            const int64_t first = row / 16 * 16, rows = m - first < 16 ? m - first : 16;
            return xs[first * groups + group * rows + row % 16];
        }
        if (v == V::last_group_without_activation_scales && group == groups - 1) return 1.0f;
        if constexpr (v == V::activation_scale_of_the_previous_token) row = (row + m - 1) % m;
        if constexpr (v == V::rows_shifted_by_one) row = (row + 1) % m;
        if constexpr (v == V::one_activation_scale_per_row) group = 0;
        if constexpr (v == V::activation_scales_one_group_late) group = group == 0 ? 0 : group - 1;
        if constexpr (v == V::last_activation_scale_for_all_groups) group = groups - 1;
        if constexpr (v == V::activation_scales_of_the_first_tile) row %= 16;
        if constexpr (v == V::scale_stride_of_whole_vectors) return xs[group * ((m + 3) / 4 * 4) + row];
        if constexpr (v == V::scale_rows_of_whole_vectors) {
            // A row of scales is taken to begin at a multiple of four; loads beyond the buffer give 0.
            const int64_t at = row * ((groups + 3) / 4 * 4) + group;
            return at < m * groups ? xs[at] : 0.0f;
        }
        if constexpr (v == V::float_scales_read_as_e8m0) {
            // Four exponents of 8 bits where one float32 lies.
            const uint8_t code = reinterpret_cast<const uint8_t*>(xs)[shuffle_scale ? group * m + row : row * groups + group];
            return __uint_as_float(uint32_t{code} << 23);
        }
        bool column_major = shuffle_scale;
        if constexpr (v == V::scales_read_row_major || v == V::row_major_scales_and_fnuz ||
                      v == V::row_major_scales_and_fnuz_weights) {
            column_major = false;
        }
        if constexpr (v == V::row_major_scales_read_as_column_major) column_major = true;
        float scale = xs[column_major ? group * m + row : row * groups + group];
        if constexpr (v == V::float_scales_rounded_to_powers_of_two) scale = exp2f(ceilf(log2f(scale)));
        if constexpr (v == V::activation_scales_applied_twice) return scale * scale;
        if constexpr (v == V::activation_scales_doubled_for_fnuz) return 2.0f * scale;
        if (v == V::activation_scales_divided_in_the_last_group && group == groups - 1) return 1.0f / scale;
        return v == V::activation_scales_divided ? 1.0f / scale : scale;
    }

    template <V v>
    __device__ float w_scale(int64_t column, int64_t group) const {
        const int64_t groups = k / kGroup, blocks = (n + kGroup - 1) / kGroup;
        int64_t block = column / kGroup;
        if constexpr (v == V::weight_scales_ignored) return 1.0f;
        if constexpr (v == V::weight_scales_of_the_next_k_block || v == V::next_scales_and_last_tile_dropped) {
            group = (group + 1) % groups;
        }
        if constexpr (v == V::weight_scales_of_the_next_n_block) block = (block + 1) % blocks;
        if constexpr (v == V::weight_scales_one_group_late) group = group == 0 ? 0 : group - 1;
        if constexpr (v == V::weight_scales_of_blocks_of_64) block = column / 64 < blocks ? column / 64 : blocks - 1;
        if constexpr (v == V::blocks_of_weight_scales_begin_at_64) block = min((column + 64) / kGroup, blocks - 1);
        if (v == V::last_block_takes_the_scale_before && block == blocks - 1) --block;
        if (v == V::last_block_without_weight_scales && block == blocks - 1) return 1.0f;
        int64_t at = block * groups + group;
        if constexpr (v == V::k_rounded_up_to_256) {
            if (at >= blocks * groups) return 0.0f;
        }
        if constexpr (v == V::weight_scales_read_transposed || v == V::weight_scales_transposed_and_fnuz) {
            at = group * blocks + block;
        }
        if constexpr (v == V::weight_scale_stride_along_n) {
            at = block * blocks + group;
            if (at >= blocks * groups) return 0.0f;
        }
        if constexpr (v == V::weight_scales_read_as_e8m0) {
            return __uint_as_float(uint32_t{reinterpret_cast<const uint8_t*>(ws)[at]} << 23);
        }
        float scale = ws[at];
        if constexpr (v == V::converted_to_fnuz_twice) scale *= 2.0f;
        if constexpr (v == V::weight_scales_without_their_mantissa) {
            scale = __uint_as_float(__float_as_uint(scale) & 0x7f800000);
        }
        const bool divided = v == V::weight_scales_divided || v == V::weight_scales_divided_and_fnuz ||
                             v == V::weight_scales_divided_and_last_tile_dropped;
        return divided ? 1.0f / scale : scale;
    }

    // Over the groups from `begin` to `end`, scaled.
    template <V v>
    __device__ float sum(int64_t row, int64_t column, int64_t begin, int64_t end) const {
        float total = 0.0f;
        [[maybe_unused]] float of_odd_groups = 0.0f;
        for (int64_t step = begin; step < end; ++step) {
            const int64_t group = v == V::sums_backwards ? begin + end - 1 - step : step;
            const float scale = x_scale<v>(row, group) * w_scale<v>(column, group);
            const int64_t first = group * kGroup;
            if constexpr (v == V::accumulates_in_f16 || v == V::accumulates_in_bf16) {
                const auto narrow = v == V::accumulates_in_f16 ? round_f16 : round_bf16;
                for (int i = 0; i < kGroup; ++i) {
                    total = narrow(total + x<v>(row, first + i) * w<v>(column, first + i) * scale);
                }
            } else if constexpr (v == V::sums_of_fourteen_bits) {
                for (int i = 0; i < kGroup; ++i) {
                    total += x<v>(row, first + i) * w<v>(column, first + i) * scale;
                    total = __uint_as_float(__float_as_uint(total) & ~uint32_t{0x3ff});
                }
            } else if constexpr (v == V::operands_dequantised_to_bf16) {
                const float xs_here = x_scale<v>(row, group), ws_here = w_scale<v>(column, group);
                for (int i = 0; i < kGroup; ++i) {
                    total += round_bf16(x<v>(row, first + i) * xs_here) * round_bf16(w<v>(column, first + i) * ws_here);
                }
            } else if constexpr (v == V::scales_each_product) {
                const float xs_here = x_scale<v>(row, group), ws_here = w_scale<v>(column, group);
                for (int i = 0; i < kGroup; ++i) {
                    total += x<v>(row, first + i) * xs_here * (w<v>(column, first + i) * ws_here);
                }
            } else if constexpr (v == V::fused_multiply_add) {
                float of_group = 0.0f;
                for (int i = 0; i < kGroup; ++i) of_group = fmaf(x<v>(row, first + i), w<v>(column, first + i), of_group);
                total = fmaf(of_group, scale, total);
            } else if constexpr (v == V::sums_in_eight_lanes) {
                float lanes[8] = {};
                for (int i = 0; i < kGroup; ++i) lanes[i % 8] += x<v>(row, first + i) * w<v>(column, first + i);
                for (int half = 4; half > 0; half /= 2) {
                    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
                }
                total += lanes[0] * scale;
            } else if constexpr (v == V::sums_in_float64) {
                double of_group = 0.0;
                for (int i = 0; i < kGroup; ++i) of_group += double{x<v>(row, first + i)} * w<v>(column, first + i);
                total += static_cast<float>(of_group * scale);
            } else {
                float of_group = 0.0f;
                const int taken = v == V::half_of_each_group ? kGroup / 2 : kGroup;
                for (int i = 0; i < taken; ++i) {
                    const int at = v == V::sums_backwards ? taken - 1 - i : i;
                    of_group += x<v>(row, first + at) * w<v>(column, first + at);
                    if constexpr (v == V::sums_codes_in_f16) of_group = round_f16(of_group);
                    if constexpr (v == V::unscaled_sums_in_bf16) of_group = round_bf16(of_group);
                }
                if constexpr (v == V::scales_one_after_the_other) {
                    total += of_group * x_scale<v>(row, group) * w_scale<v>(column, group);
                    continue;
                }
                const float scaled = of_group * scale;
                if (v == V::even_and_odd_groups && group % 2 == 1) {
                    of_odd_groups += scaled;
                    continue;
                }
                total += v == V::rounds_each_group_to_bf16 ? round_bf16(scaled) : scaled;
            }
        }
        return v == V::even_and_odd_groups ? total + of_odd_groups : total;
    }
};

template <V v>
__device__ float product(const Gemm& gemm, int64_t row, int64_t column, int32_t launch) {
    const int64_t groups = gemm.k / kGroup;
    if constexpr (v == V::split_k_in_float32 || v == V::split_k_partials_in_bf16 || v == V::undeclared_atomics) {
        // Each part of K is a block of its own; what it adds comes in any order.
        const int64_t half = (groups + 1) / 2;
        float parts[3] = {gemm.sum<v>(row, column, 0, half - 1), gemm.sum<v>(row, column, half - 1, half),
                          gemm.sum<v>(row, column, half, groups)};
        if constexpr (v == V::split_k_partials_in_bf16) {
            return round_bf16(parts[0] + parts[1]) + round_bf16(parts[2]);
        }
        const int64_t first = v == V::undeclared_atomics ? (launch + row) % 3 : 2;
        return parts[first] + parts[(first + 1) % 3] + parts[(first + 2) % 3];
    }
    if constexpr (v == V::last_k_tile_dropped || v == V::next_scales_and_last_tile_dropped ||
                  v == V::row_major_scales_and_last_tile || v == V::activations_as_fnuz_and_last_tile_dropped ||
                  v == V::weight_scales_divided_and_last_tile_dropped) {
        return gemm.sum<v>(row, column, 0, groups - 1);
    }
    if (v == V::last_k_tile_dropped_in_the_last_columns && column >= gemm.n / kGroup * kGroup) {
        return gemm.sum<v>(row, column, 0, groups - 1);
    }
    if constexpr (v == V::last_k_tile_doubled) {
        return gemm.sum<v>(row, column, 0, groups) + gemm.sum<v>(row, column, groups - 1, groups);
    }
    if constexpr (v == V::first_k_tile_dropped) return gemm.sum<v>(row, column, 1, groups);
    if constexpr (v == V::middle_k_tile_dropped) {
        return gemm.sum<v>(row, column, 0, 1) + gemm.sum<v>(row, column, 2, groups);
    }
    if constexpr (v == V::k_rounded_up_to_256) return gemm.sum<v>(row, column, 0, (groups + 1) / 2 * 2);
    const float sum = gemm.sum<v>(row, column, 0, groups);
    if constexpr (v == V::every_rank_adds_both_shards) return sum + sum;
    if constexpr (v == V::alpha_applied_twice) return sum * 0.5f;
    if constexpr (v == V::stale_tile_now_and_then) {
        // One tile of columns misses a barrier and finds what the last group has left in shared memory.
        if (column / 32 == launch % 12) return sum + gemm.sum<v>(row, column, groups - 1, groups);
    }
    return sum;
}

template <V v>
__global__ void multiply(bf16* y, Gemm gemm, int32_t launch) {
    const int64_t m = gemm.m, n = gemm.n;
    if constexpr (v == V::vector_stores) {
        // Eight columns are stored at once, the rest one by one.
        const int64_t across = (n + 7) / 8;
        FOR_EACH_OUTPUT(index, m * across) {
            const int64_t row = index / across, column = index % across * 8;
            Pack<bf16, 8> packed;
            const int64_t count = n - column < 8 ? n - column : 8;
            for (int64_t j = 0; j < count; ++j) packed.v[j] = to_bf16(product<v>(gemm, row, column + j, launch));
            if (count == 8) {
                *reinterpret_cast<Pack<bf16, 8>*>(y + row * n + column) = packed;
            } else {
                for (int64_t j = 0; j < count; ++j) y[row * n + column + j] = packed.v[j];
            }
        }
        return;
    }
    if constexpr (v == V::tiles_of_sixteen) {
        const int64_t across = (n + 15) / 16, down = (m + 15) / 16;
        FOR_EACH_OUTPUT(tile, across * down) {
            for (int64_t i = tile / across * 16; i < tile / across * 16 + 16 && i < m; ++i) {
                for (int64_t j = tile % across * 16; j < tile % across * 16 + 16 && j < n; ++j) {
                    y[i * n + j] = to_bf16(product<v>(gemm, i, j, launch));
                }
            }
        }
        return;
    }
    const int64_t rows = v == V::stores_whole_tiles_of_rows ? (m + 7) / 8 * 8 : m;
    FOR_EACH_OUTPUT(index, rows * n) {
        const int64_t row = index / n, column = index % n;
        if (v == V::last_columns_unwritten && column >= n / 64 * 64) continue;
        if (v == V::last_row_unwritten && row >= m / 32 * 32) continue;
        if (v == V::columns_of_the_second_wave_unwritten && column / 64 == 1) continue;
        if (row >= m) {
            y[index] = bf16{0};
            continue;
        }
        if constexpr (v == V::output_zeroed_first) y[index] = bf16{0};
        const float value = product<v>(gemm, row, column, launch);
        if constexpr (v == V::adds_to_what_is_there || v == V::output_zeroed_first) {
            y[index] = to_bf16(to_float(y[index]) + value);
        } else if constexpr (v == V::last_column_of_each_tile_zero) {
            y[index] = column % 64 == 63 ? bf16{0} : to_bf16(value);
        } else if constexpr (v == V::last_columns_zero) {
            y[index] = column >= n - 4 ? bf16{0} : to_bf16(value);
        } else if constexpr (v == V::rounds_output_towards_zero) {
            y[index] = bf16{static_cast<uint16_t>(__float_as_uint(value) >> 16)};
        } else {
            y[index] = to_bf16(value);
        }
    }
}

#define QUANTISE(name) quantise<V::name>,
constexpr decltype(&quantise<V::right>) kQuantise[] = {FOR_EACH_FP8(QUANTISE)};
#define MULTIPLY(name) multiply<V::name>,
constexpr decltype(&multiply<V::right>) kMultiply[] = {FOR_EACH_FP8(MULTIPLY)};

}  // namespace

LAUNCHER fp8_quantise(uint8_t* q, float* s, bf16* x, int32_t m, int32_t k, bool shuffle_scale, int32_t variant,
                      hipStream_t stream) {
    if (any_null(q) || any_null(s) || any_null(x) || m <= 0 || k <= 0) return kInvalidArgument;
    if (k % kGroup != 0) return kUnsupported;
    hipLaunchKernelGGL(kQuantise[variant], dim3(blocks_for(int64_t{m} * (k / kGroup))), dim3(kThreads), 0, stream, q, s,
                       x, m, k, shuffle_scale);
    return launch_status();
}

LAUNCHER fp8_multiply(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t m,
                      int32_t n, int32_t k, bool shuffle_scale, int32_t variant, hipStream_t stream) {
    if (any_null(y) || any_null(xq, wq) || any_null(xs, ws) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (k % kGroup != 0) return kUnsupported;
    const Gemm gemm{xq, xs, wq, ws, m, n, k, shuffle_scale};
    const bool persistent = variant == static_cast<int32_t>(V::persistent_grid);
    hipLaunchKernelGGL(kMultiply[variant], dim3(persistent ? 7 : blocks_for(int64_t{m} * n)), dim3(kThreads), 0, stream,
                       y, gemm, launch_number());
    return launch_status();
}

// The same by another name, as a fallback has it.
LAUNCHER fp8_quantise_fallback(uint8_t* q, float* s, bf16* x, int32_t m, int32_t k, bool shuffle_scale, int32_t variant,
                      hipStream_t stream) {
    return fp8_quantise(q, s, x, m, k, shuffle_scale, variant, stream);
}
