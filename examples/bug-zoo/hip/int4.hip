// Weight-only int4 with zero points: Y[m, n] = sum over k of X[m, k] (code - zero) * scale, X in bf16, in two packings
// (those of kernels' int4.h, scales in bf16 in both). What each variant does and which bug it models is in zoo/int4.csv.

#include "int4.h"
#include "zoo.h"

namespace {

using zoo::int4::V;

struct Packed {
    const uint32_t* codes;
    const bf16* scales;
    const uint32_t* zeros;
    int32_t n, k, group, packing;
};

struct Gemm {
    const bf16* x;
    Packed packed;
    int32_t m, launch;

    template <V v>
    __device__ static uint32_t nibble(uint32_t word, int64_t element, bool awq) {
        int64_t place = awq ? Int4Weight::awq_nibble(element) : element;
        if constexpr (v == V::awq_read_in_sequence || v == V::awq_in_sequence_and_next_scales ||
                      v == V::awq_in_sequence_and_zeros_minus_one) {
            place = element;
        }
        if constexpr (v == V::sequence_read_as_awq || v == V::sequence_as_awq_and_zeros_plus_one) {
            place = Int4Weight::awq_nibble(element);
        }
        // A byte holds an element of the first half of eight and one of the second.
        if constexpr (v == V::halves_of_words_in_turn) place = element < 4 ? 2 * element : 2 * (element - 4) + 1;
        if constexpr (v == V::nibbles_read_high_first) place = element ^ 1;
        if constexpr (v == V::nibbles_of_words_reversed) place = 7 - element;
        // The element of a nibble for the nibble of an element.
        if constexpr (v == V::awq_order_inverted) place = element < 4 ? 2 * element : 2 * (element - 4) + 1;
        return word >> (4 * place) & 0xf;
    }

    template <V v>
    __device__ float w(int64_t row, int64_t column) const {
        const int32_t n = packed.n, k = packed.k;
        const int64_t groups = k / packed.group;
        const bool awq = packed.packing == kAwq;
        int64_t g = column / packed.group, g_scale = g, g_zero = g;
        if constexpr (v == V::scales_of_the_next_group || v == V::awq_in_sequence_and_next_scales) {
            g_scale = (g + 1) % groups;
        }
        if constexpr (v == V::groups_of_half_the_size) g_scale = min(column / (packed.group / 2), groups - 1);
        if constexpr (v == V::zeros_of_the_next_group) g_zero = (g + 1) % groups;
        if constexpr (v == V::zeros_of_the_first_group) g_zero = 0;
        if constexpr (v == V::zeros_minus_one_and_next_scales) g_scale = (g + 1) % groups;
        int64_t word = awq ? column * (n / 8) + row / 8 : row * (k / 8) + column / 8;
        if constexpr (v == V::words_read_transposed) word = row / 8 * k + column;
        uint32_t code = nibble<v>(packed.codes[word], awq ? row % 8 : column % 8, awq);
        if constexpr (v == V::words_packed_along_k) {
            code = nibble<v>(packed.codes[column / 8 * n + row], column % 8, false);
        }
        const int64_t zero_row = v == V::zero_points_of_the_next_row ? (row + 1) % n : row;
        int64_t zero_word = awq ? g_zero * (n / 8) + zero_row / 8 : zero_row / 8 * groups + g_zero;
        if constexpr (v == V::zero_points_read_transposed) zero_word = row / 8 * groups + g_zero;
        // Zero points are packed along n in both.
        int32_t zero = static_cast<int32_t>(nibble<v>(packed.zeros[zero_word], zero_row % 8, awq));
        if constexpr (v == V::zero_points_in_sequence) {
            zero = static_cast<int32_t>(packed.zeros[zero_word] >> 4 * (row % 8) & 0xf);
        }
        if constexpr (v == V::zero_points_minus_one || v == V::zeros_minus_one_and_next_scales ||
                      v == V::awq_in_sequence_and_zeros_minus_one) {
            zero -= 1;
        }
        if constexpr (v == V::zero_points_high_first) {
            zero = static_cast<int32_t>(packed.zeros[zero_word] >> 4 * (row % 8 ^ 1) & 0xf);
        }
        if (v == V::last_group_of_zero_points_minus_one && g == groups - 1) zero -= 1;
        if constexpr (v == V::zero_points_plus_one || v == V::sequence_as_awq_and_zeros_plus_one) zero += 1;
        if constexpr (v == V::zero_points_of_eight) zero = 8;
        if constexpr (v == V::zero_points_of_seven) zero = 7;
        if constexpr (v == V::zero_points_ignored || v == V::zero_points_ignored_and_last_tile_dropped) zero = 0;
        int64_t at = awq ? g_scale * n + row : row * groups + g_scale;
        if (v == V::scales_in_marlin_order && row < n / 64 * 64) {
            at = g_scale * n + row / 64 * 64 + row % 8 * 8 + row % 64 / 8;
        }
        if constexpr (v == V::scales_of_the_next_row) at = awq ? g * n + (row + 1) % n : (row + 1) % n * groups + g;
        if constexpr (v == V::scales_read_transposed) at = awq ? row * groups + g : g * n + row;
        float scale = to_float(packed.scales[at]);
        if constexpr (v == V::scales_read_as_float16) {
            const uint32_t bits = packed.scales[at].bits;
            scale = ldexpf(static_cast<float>(1024 + (bits & 1023)), static_cast<int>(bits >> 10 & 31) - 25);
            if (bits >> 15) scale = -scale;
        }
        if constexpr (v == V::codes_read_as_signed) {
            return static_cast<float>(static_cast<int32_t>(code ^ 8) - 8) * scale;
        }
        if constexpr (v == V::scales_ignored) scale = 1.0f;
        if constexpr (v == V::scales_divided) scale = 1.0f / scale;
        if constexpr (v == V::zero_points_not_scaled) {
            return static_cast<float>(code) * scale - static_cast<float>(zero);
        }
        if constexpr (v == V::codes_through_float16) {
            // A code in the mantissa of 1024 is 1024 + code.
            const float above = round_f16(1024.0f + static_cast<float>(code));
            return (above - round_f16(1024.0f + static_cast<float>(zero))) * scale;
        }
        if constexpr (v == V::codes_in_the_high_nibble) {
            // Masked and not shifted: sixteen times as large.
            return static_cast<float>(static_cast<int32_t>(code << 4) - zero * 16) * (0.0625f * scale);
        }
        if constexpr (v == V::differences_saturate_in_four_bits) {
            return static_cast<float>(max(-8, min(static_cast<int32_t>(code) - zero, 7))) * scale;
        }
        const float value = static_cast<float>(static_cast<int32_t>(code) - zero) * scale;
        if constexpr (v == V::weights_rounded_to_bf16_as_declared) return round_bf16(value);
        if constexpr (v == V::weights_rounded_to_e4m3) return decode<E4m3fn>(encode<E4m3fn>(value));
        if constexpr (v == V::code_times_scale_minus_zero_times_scale) {
            return static_cast<float>(code) * scale - static_cast<float>(zero) * scale;
        }
        return value;
    }

    template <V v>
    __device__ float sum(int64_t row, int64_t column) const {
        const int32_t k = packed.k;
        const bool dropped = v == V::last_k_tile_dropped || v == V::zero_points_ignored_and_last_tile_dropped;
        const int64_t end = dropped ? k - packed.group : v == V::last_word_of_k_dropped ? k - 8 : k;
        if constexpr (v == V::packs_of_eight_in_bf16) {
            float total = 0.0f;
            for (int64_t begin = 0; begin < end; begin += 8) {
                float pack = 0.0f;
                for (int64_t i = begin; i < begin + 8; ++i) pack = round_bf16(pack + to_float(x[row * k + i]) * w<v>(column, i));
                total += pack;
            }
            return total;
        }
        if constexpr (v == V::split_k_in_float32) {
            float parts[3] = {};
            for (int64_t i = 0; i < end; ++i) parts[i / (end / 3)] += to_float(x[row * k + i]) * w<v>(column, i);
            return parts[2] + parts[0] + parts[1];
        }
        if constexpr (v == V::atomics_in_bf16) {
            // Each group of K is a block of its own; what it adds comes in any order, and the output is bfloat16.
            const int64_t parts = k / packed.group;
            float total = 0.0f;
            for (int64_t step = 0; step < parts; ++step) {
                const int64_t begin = (step + launch + row + column) % parts * packed.group;
                float part = 0.0f;
                for (int64_t i = begin; i < begin + packed.group; ++i) part += to_float(x[row * k + i]) * w<v>(column, i);
                total = round_bf16(total + round_bf16(part));
            }
            return total;
        }
        if constexpr (v == V::partial_sums_in_bf16) {
            float total = 0.0f;
            for (int64_t begin = 0; begin < end; begin += 64) {
                float part = 0.0f;
                for (int64_t i = begin; i < begin + 64; ++i) part += to_float(x[row * k + i]) * w<v>(column, i);
                total = round_bf16(total + round_bf16(part));
            }
            return total;
        }
        if constexpr (v == V::zero_points_by_sums_of_activations || v == V::unscaled_sums_in_f16) {
            // AWQ packing. The zero point is the same for all of a group's products.
            const int32_t n = packed.n;
            float total = 0.0f;
            for (int64_t g = 0; g < k / packed.group; ++g) {
                float with_codes = 0.0f, activations = 0.0f;
                for (int64_t i = g * packed.group; i < (g + 1) * packed.group; ++i) {
                    const uint32_t code = nibble<v>(packed.codes[i * (n / 8) + column / 8], column % 8, true);
                    with_codes += to_float(x[row * k + i]) * static_cast<float>(code);
                    activations += to_float(x[row * k + i]);
                    if constexpr (v == V::unscaled_sums_in_f16) {
                        with_codes = round_f16(with_codes), activations = round_f16(activations);
                    }
                }
                const uint32_t zero = nibble<v>(packed.zeros[g * (n / 8) + column / 8], column % 8, true);
                const float without_zero = with_codes - static_cast<float>(zero) * activations;
                total += without_zero * to_float(packed.scales[g * n + column]);
            }
            return total;
        }
        if constexpr (v == V::sums_of_four || v == V::fourth_partial_sum_lost) {
            float lanes[4] = {};
            for (int64_t i = 0; i < end; ++i) lanes[i % 4] += to_float(x[row * k + i]) * w<v>(column, i);
            if constexpr (v == V::fourth_partial_sum_lost) return lanes[0] + lanes[1] + lanes[2];
            return lanes[0] + lanes[1] + (lanes[2] + lanes[3]);
        }
        float total = 0.0f;
        for (int64_t i = 0; i < end; ++i) {
            const int64_t x_at = v == V::activations_read_transposed ? i * m + row : row * k + i;
            const float product = to_float(x[x_at]) * w<v>(column, i);
            total = v == V::accumulates_in_f16 ? round_f16(total + product) : total + product;
        }
        return total;
    }
};

template <V v>
__global__ void multiply(bf16* y, Gemm gemm) {
    const int64_t n = gemm.packed.n;
    FOR_EACH_OUTPUT(index, gemm.m * n) {
        if (v == V::second_of_four_waves_unwritten && index % n / 16 % 4 == 1) continue;
        y[index] = to_bf16(gemm.sum<v>(index / n, index % n));
    }
}

#define MULTIPLY(name) multiply<V::name>,
constexpr decltype(&multiply<V::right>) kMultiply[] = {FOR_EACH_INT4(MULTIPLY)};

}  // namespace

LAUNCHER int4_multiply(bf16* y, const bf16* x, const uint32_t* qweight, const bf16* scales, const uint32_t* qzeros,
                       int32_t m, int32_t n, int32_t k, int32_t group, int32_t packing, int32_t variant,
                       hipStream_t stream) {
    if (any_null(y, x, scales) || any_null(qweight, qzeros)) return kInvalidArgument;
    if (m <= 0 || n <= 0 || k <= 0 || group <= 0 || packing < kAwq || packing > kCompressedTensors) return kInvalidArgument;
    if (k % group != 0 || k % 8 != 0 || n % 8 != 0) return kUnsupported;
    const Gemm gemm{x, {qweight, scales, qzeros, n, k, group, packing}, m, launch_number()};
    hipLaunchKernelGGL(kMultiply[variant], dim3(blocks_for(int64_t{m} * n)), dim3(kThreads), 0, stream, y, gemm);
    return launch_status();
}
