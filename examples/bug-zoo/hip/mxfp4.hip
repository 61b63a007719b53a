// Activations quantised to MXFP4, then a GEMM with MXFP4 weights in preshuffled tiles; e8m0 scales of groups of 32 lie as
// the matrix cores read them. What each variant does and which bug it models is in zoo/mxfp4.csv.

#include "mx_quant.h"
#include "zoo.h"

namespace {

using zoo::mxfp4::V;

// Where the scale of (row, group) is: swizzled (mx.h), or row-major.
__device__ int64_t scale_at(int64_t row, int64_t group, int32_t groups, bool shuffle_scale) {
    return mx_scale_offset(row, group, groups, shuffle_scale);
}

template <V v>
__global__ void quantise(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t rounding,
                         bool shuffle_scale) {
    const int32_t groups = k / kMxGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * groups) {
        const int64_t row = index / groups, group = index % groups;
        const bf16* from = x + row * k + group * kMxGroup;
        uint32_t amax = 0;
        for (int i = 0; i < kMxGroup; ++i) {
            if (v == V::amax_of_half_a_group && i >= kMxGroup / 2) break;
            amax = max(amax, __float_as_uint(to_float(from[i])) & 0x7fffffff);
        }
        if constexpr (v == V::scales_of_the_largest_group) {
            for (int i = 0; i < k; ++i) amax = max(amax, __float_as_uint(to_float(x[row * k + i])) & 0x7fffffff);
        }
        int32_t rule = rounding;
        if constexpr (v == V::scales_rounded_down) rule = kFloor;
        if constexpr (v == V::scales_rounded_up) rule = kCeil;
        if constexpr (v == V::scales_always_rounded_to_even) rule = kEven;
        uint8_t scale = e8m0_scale<E2m1>(amax, rule);
        if (amax == 0) {
            if constexpr (v == V::scale_one_for_zeros) scale = 127;
            if constexpr (v == V::scale_nan_for_zeros) scale = 255;
        }
        if constexpr (v == V::codes_half_as_large) scale += amax != 0;
        uint8_t* to = q + (row * k + group * kMxGroup) / 2;
        for (int i = 0; i < kMxGroup; i += 2) {
            uint8_t pair[2];
            for (int j = 0; j < 2; ++j) {
                const float scaled = divide_by_e8m0(to_float(from[i + j]), scale);
                pair[j] = encode_element(E2m1{}, scaled);
                if (v == V::zeros_without_sign && pair[j] == 8) pair[j] = 0;
                if constexpr (v == V::codes_saturate_at_four) {
                    if ((pair[j] & 7) == 7) --pair[j];
                }
                if constexpr (v == V::codes_rounded_towards_zero) {
                    if (decode_e2m1(pair[j] & 7) > fabsf(scaled)) --pair[j];
                }
            }
            const bool high_first = v == V::nibbles_written_high_first;
            to[i / 2] = static_cast<uint8_t>(pair[high_first] | pair[!high_first] << 4);
        }
        if constexpr (v == V::codes_half_as_large) scale -= amax != 0;
        if constexpr (v == V::scale_codes_one_too_high) ++scale;
        const bool shuffled = shuffle_scale && v != V::scales_written_row_major;
        int64_t at = scale_at(row, group, groups, shuffled);
        if constexpr (v == V::scales_written_without_padded_stride) {
            at = row / 32 * 32 * groups + group / 8 * 256 + group % 4 * 64 + row % 16 * 4 + group % 8 / 4 * 2 + row % 32 / 16;
        }
        s[at] = v == V::scale_written_inverted ? 254 - scale : scale;
    }
    if constexpr (v == V::padding_written) {
        // Rows and groups up to those that the layout pads to.
        const int64_t padded = (groups + 7) / 8 * 8, rows = (int64_t{m} + 255) / 256 * 256;
        FOR_EACH_OUTPUT(index, rows * padded) {
            const int64_t row = index / padded, group = index % padded;
            if (row >= m || group >= groups) s[swizzled(row, group, groups)] = 127;
        }
    }
}

struct Gemm {
    const uint8_t* xq;
    const uint8_t* xs;
    const uint8_t* wq;
    const uint8_t* ws;
    int32_t m, n, k;
    bool shuffle_scale;
    int32_t launch;

    __device__ static uint8_t nibble(const uint8_t* codes, int64_t element, bool high_first) {
        return codes[element / 2] >> ((element % 2 != high_first) * 4) & 0xf;
    }

    template <V v>
    __device__ static float value_of(uint8_t code) {
        constexpr float table[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                     -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
        if constexpr (v == V::decodes_by_table) return table[code];
        if constexpr (v == V::subnormals_flushed) return code % 8 == 1 ? 0.0f : decode_e2m1(code);
        if constexpr (v == V::signs_dropped) return decode_e2m1(code & 7);
        if constexpr (v == V::decodes_as_int4) return static_cast<float>(code >= 8 ? code - 16 : code);
        return decode_e2m1(code);
    }

    template <V v>
    __device__ float x(int64_t row, int64_t i) const {
        if constexpr (v == V::low_nibbles_are_the_first_half_of_a_group) {
            const uint8_t byte = xq[(row * k + i / kMxGroup * kMxGroup) / 2 + i % (kMxGroup / 2)];
            return value_of<v>(i % kMxGroup < kMxGroup / 2 ? byte & 0xf : byte >> 4);
        }
        // The first of eight codes in the highest bits of a word.
        if constexpr (v == V::codes_of_words_reversed) i ^= 7;
        return value_of<v>(nibble(xq, row * k + i, v == V::activations_read_high_first));
    }

    template <V v>
    __device__ float w(int64_t column, int64_t i) const {
        int64_t at = column / 16 * 16 * k + i / 64 * 64 * 16 + i % 64 / 32 * 32 * 16 + column % 16 * 32 + i % 32;
        if constexpr (v == V::preshuffled_weights_read_plainly) at = column * k + i;
        if constexpr (v == V::tiles_of_8_bit_codes) {
            // The order of codes that are a byte each.
            at = column / 16 * 16 * k + i / 32 * 32 * 16 + i % 32 / 16 * 16 * 16 + column % 16 * 16 + i % 16;
        }
        if constexpr (v == V::tiles_of_32_rows) {
            const int64_t rows = column < n / 32 * 32 ? 32 : 16;
            at = column / rows * rows * k + i / 64 * 64 * rows + i % 64 / 32 * 32 * rows + column % rows * 32 + i % 32;
        }
        if constexpr (v == V::tiles_of_weights_along_n) {
            at = i / 64 * 64 * n + column / 16 * 16 * 64 + i % 64 / 32 * 32 * 16 + column % 16 * 32 + i % 32;
        }
        const bool high_first = v == V::weights_read_high_first || v == V::next_scales_and_high_first ||
                                v == V::row_major_scales_and_high_first ||
                                (v == V::last_k_tile_high_first && i >= k - 64) ||
                                (v == V::high_first_beyond_256_columns && column >= 256);
        if constexpr (v == V::low_nibbles_taken_twice) at &= ~int64_t{1};
        return value_of<v>(nibble(wq, at, high_first));
    }

    template <V v>
    __device__ float x_scale(int64_t row, int64_t group) const {
        const int32_t groups = k / kMxGroup;
        if constexpr (v == V::activation_scales_ignored) return 1.0f;
        if (v == V::second_wave_without_activation_scales && row / 16 == 1) return 1.0f;
        if constexpr (v == V::activation_scales_of_the_next_group) group = (group + 1) % groups;
        if constexpr (v == V::activation_scales_of_the_next_token) row = (row + 1) % m;
        if constexpr (v == V::one_activation_scale_for_two_groups) group &= ~int64_t{1};
        // One wave does not wait for its scales and finds those of the group before.
        if (v == V::scales_not_waited_for && row / 8 == launch % 4 && group > 0) --group;
        bool shuffled = shuffle_scale;
        if constexpr (v == V::activation_scales_read_row_major || v == V::row_major_scales_and_bias ||
                      v == V::row_major_scales_and_high_first) {
            shuffled = false;
        }
        int64_t at = scale_at(row, group, groups, shuffled);
        if constexpr (v == V::activation_scales_read_as_n32k4) {
            at = row / 32 * 32 * ((groups + 3) / 4 * 4) + group / 4 * 128 + row % 32 * 4 + group % 4;
        }
        if constexpr (v == V::bytes_of_scale_words_exchanged) {
            at = row / 32 * 32 * ((groups + 7) / 8 * 8) + group / 8 * 256 + group % 4 * 64 + row % 16 * 4 +
                 row % 32 / 16 * 2 + group % 8 / 4;
        }
        if constexpr (v == V::row_major_scales_read_as_column_major) at = group * m + row;
        const uint8_t code = xs[at];
        if constexpr (v == V::bias_of_126_for_both) return 2.0f * decode_e8m0(code);
        if (v == V::bias_of_126_in_the_second_wave && row / 16 == 1) return 2.0f * decode_e8m0(code);
        if constexpr (v == V::bias_of_126 || v == V::row_major_scales_and_bias) return 2.0f * decode_e8m0(code);
        if constexpr (v == V::activation_scales_inverted) return decode_e8m0(254 - code);
        return decode_e8m0(code);
    }

    template <V v>
    __device__ float w_scale(int64_t column, int64_t group) const {
        const int32_t groups = k / kMxGroup;
        if constexpr (v == V::weight_scales_ignored) return 1.0f;
        if constexpr (v == V::weight_scales_of_the_next_group || v == V::next_scales_and_high_first) {
            group = (group + 1) % groups;
        }
        if (v == V::weight_scales_ignored_in_the_last_k_tile && group >= groups / 8 * 8) return 1.0f;
        if constexpr (v == V::weight_scales_of_the_first_of_16_rows) column = column / 16 * 16;
        // Which byte of the four a lane holds is fixed.
        if constexpr (v == V::scale_byte_of_the_groups_before) group &= ~int64_t{4};
        if constexpr (v == V::weight_scales_of_the_next_row) column = (column + 1) % n;
        if constexpr (v == V::halves_of_tiles_of_scales_exchanged) {
            if (column < n / 32 * 32) column ^= 16;
        }
        int64_t at = swizzled(column, group, groups);
        if constexpr (v == V::weight_scales_read_row_major || v == V::row_major_weight_scales_and_k_rounded_down) {
            at = column * groups + group;
        }
        if constexpr (v == V::scale_stride_not_padded) {
            at = column / 32 * 32 * groups + group / 8 * 256 + group % 4 * 64 + column % 16 * 4 + group % 8 / 4 * 2 +
                 column % 32 / 16;
        }
        if constexpr (v == V::scales_read_as_n32k4) {
            const int64_t padded = (groups + 3) / 4 * 4;
            at = column / 32 * 32 * padded + group / 4 * 128 + column % 32 * 4 + group % 4;
        }
        if constexpr (v == V::weight_scales_read_as_128x4) {
            const int64_t padded = (groups + 3) / 4 * 4;
            at = column / 128 * 128 * padded + group / 4 * 512 + column % 32 * 16 + column % 128 / 32 * 4 + group % 4;
        }
        if constexpr (v == V::last_rows_not_swizzled) {
            if (column >= n / 32 * 32) at = column / 32 * 32 * ((groups + 7) / 8 * 8) + column % 32 * groups + group;
        }
        const uint8_t code = ws[at];
        if constexpr (v == V::weight_scales_of_nvfp4) return decode<E4m3fn>(code);
        if constexpr (v == V::bias_of_128_for_weights) return 0.5f * decode_e8m0(code);
        if constexpr (v == V::bias_of_126_for_both) return 2.0f * decode_e8m0(code);
        return v == V::weight_scales_inverted ? decode_e8m0(254 - code) : decode_e8m0(code);
    }

    template <V v>
    __device__ float sum(int64_t row, int64_t column) const {
        const int64_t groups = k / kMxGroup;
        float total = 0.0f, of_first_part = 0.0f;
        int64_t end = groups;
        if constexpr (v == V::k_rounded_down_to_256 || v == V::row_major_weight_scales_and_k_rounded_down) {
            end = groups / 8 * 8;
        }
        constexpr bool split = v == V::split_k_in_float32 || v == V::split_k_partials_in_bf16;
        for (int64_t step = 0; step < end; ++step) {
            if (split && step == end / 2) of_first_part = total, total = 0.0f;
            const int64_t group = v == V::sums_backwards ? end - 1 - step : step;
            const float scale = x_scale<v>(row, group) * w_scale<v>(column, group);
            float of_group = 0.0f;
            if constexpr (v == V::sums_in_integers) {
                // Twice a value is an integer.
                int32_t of_integers = 0;
                for (int i = 0; i < kMxGroup; ++i) {
                    const float a = x<v>(row, group * kMxGroup + i), b = w<v>(column, group * kMxGroup + i);
                    of_integers += static_cast<int32_t>(2.0f * a) * static_cast<int32_t>(2.0f * b);
                }
                total += static_cast<float>(of_integers) * (0.25f * scale);
                continue;
            }
            for (int i = 0; i < kMxGroup; ++i) {
                const float a = x<v>(row, group * kMxGroup + i), b = w<v>(column, group * kMxGroup + i);
                of_group = v == V::fused_multiply_add ? fmaf(a, b, of_group) : of_group + a * b;
            }
            if constexpr (v == V::scales_in_the_products) {
                const float xs_here = x_scale<v>(row, group), ws_here = w_scale<v>(column, group);
                for (int i = 0; i < kMxGroup; ++i) {
                    const int64_t at = group * kMxGroup + i;
                    total += x<v>(row, at) * xs_here * (w<v>(column, at) * ws_here);
                }
                continue;
            }
            if constexpr (v == V::exponents_added) {
                total += ldexpf(of_group, ilogbf(x_scale<v>(row, group)) + ilogbf(w_scale<v>(column, group)));
                continue;
            }
            total += of_group * scale;
            if constexpr (v == V::accumulates_in_bf16) total = round_bf16(total);
            if constexpr (v == V::accumulates_in_f16) total = round_f16(total);
        }
        if constexpr (v == V::split_k_partials_in_bf16) return round_bf16(of_first_part) + round_bf16(total);
        return split ? of_first_part + total : total;
    }
};

template <V v>
__global__ void multiply(bf16* y, Gemm gemm) {
    const int64_t n = gemm.n;
    FOR_EACH_OUTPUT(index, gemm.m * n) {
        if (v == V::last_columns_unwritten && index % n >= n / 32 * 32) continue;
        y[index] = to_bf16(gemm.sum<v>(index / n, index % n));
    }
}

#define QUANTISE(name) quantise<V::name>,
constexpr decltype(&quantise<V::right>) kQuantise[] = {FOR_EACH_MXFP4(QUANTISE)};
#define MULTIPLY(name) multiply<V::name>,
constexpr decltype(&multiply<V::right>) kMultiply[] = {FOR_EACH_MXFP4(MULTIPLY)};

}  // namespace

LAUNCHER mxfp4_quantise(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t rounding,
                        bool shuffle_scale, int32_t variant, hipStream_t stream) {
    if (any_null(q, s) || any_null(x)) return kInvalidArgument;
    if (const Status status = check_mx(m, k, rounding); status != kOk) return status;
    hipLaunchKernelGGL(kQuantise[variant], dim3(blocks_for(int64_t{m} * (k / kMxGroup))), dim3(kThreads), 0, stream, q,
                       s, x, m, k, rounding, shuffle_scale);
    return launch_status();
}

LAUNCHER mxfp4_multiply(bf16* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, int32_t m,
                        int32_t n, int32_t k, bool shuffle_scale, int32_t variant, hipStream_t stream) {
    if (any_null(y) || any_null(xq, wq, xs, ws) || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    if (k % 64 != 0 || n % 16 != 0) return kUnsupported;
    const Gemm gemm{xq, xs, wq, ws, m, n, k, shuffle_scale, launch_number()};
    hipLaunchKernelGGL(kMultiply[variant], dim3(blocks_for(int64_t{m} * n)), dim3(kThreads), 0, stream, y, gemm);
    return launch_status();
}
