// x / sqrt(mean(x²) + eps) * gain over each row of x [m, k], quantised to e4m3 in groups of 128 with row-major scales.
// What each variant does and which bug it models is in zoo/norm.csv.

#include "zoo.h"

namespace {

using zoo::norm::V;

// What LayerNorm subtracts and RMSNorm does not.
template <V v>
__device__ float mean(const bf16* x, int32_t k) {
    if constexpr (v != V::layer_norm_for_rms_norm) return 0.0f;
    float sum = 0.0f;
    for (int32_t i = 0; i < k; ++i) sum += to_float(x[i]);
    return sum / static_cast<float>(k);
}

template <V v>
__device__ float inverse_root(const bf16* x, int32_t k, float eps, bool early) {
    float largest = 0.0f;
    if constexpr (v == V::squares_of_scaled_values) {
        for (int32_t i = 0; i < k; ++i) largest = fmaxf(largest, fabsf(to_float(x[i])));
    }
    const float unit = largest > 0.0f ? largest : 1.0f;
    float squares = 0.0f;
    [[maybe_unused]] float lanes[64] = {};
    int32_t end = v == V::squares_of_the_first_256 ? 256 : k;
    if (v == V::reduction_without_a_barrier && early) end = k / 2;
    for (int32_t i = 0; i < end; ++i) {
        const float value = (to_float(x[v == V::sums_backwards ? k - 1 - i : i]) - mean<v>(x, k)) / unit;
        if constexpr (v == V::squares_in_64_lanes) {
            lanes[i % 64] += value * value;
            continue;
        }
        squares += value * value;
        if constexpr (v == V::squares_summed_in_bf16) squares = round_bf16(squares);
        if constexpr (v == V::squares_summed_in_f16) squares = round_f16(squares);
    }
    if constexpr (v == V::squares_in_64_lanes) {
        for (int half = 32; half > 0; half /= 2) {
            for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
        }
        squares = lanes[0];
    }
    if constexpr (v == V::epsilon_left_out) eps = 0.0f;
    if constexpr (v == V::epsilon_of_1e_5) eps = 1e-5f;
    if constexpr (v == V::squares_in_float64) {
        double total = 0.0;
        for (int32_t i = 0; i < k; ++i) total += double{to_float(x[i])} * to_float(x[i]);
        squares = static_cast<float>(total);
    }
    float count = static_cast<float>(k);
    if constexpr (v == V::mean_over_256) count = 256.0f;
    if constexpr (v == V::sum_for_mean) count = 1.0f;
    if constexpr (v == V::mean_over_one_less) count -= 1.0f;
    if constexpr (v == V::squares_of_scaled_values) return 1.0f / sqrtf(squares / count * unit * unit + eps);
    if constexpr (v == V::epsilon_outside_the_root) return 1.0f / (sqrtf(squares / count) + eps);
    if constexpr (v == V::reciprocal_root) return rsqrtf(squares * (1.0f / count) + eps);
    return 1.0f / sqrtf(squares / count + eps);
}

template <V v>
__device__ float value(const bf16* x, const bf16* gain, int64_t i, float inverse, float mean) {
    float g = to_float(gain[v == V::weight_of_the_first_group ? i % kGroup : i]);
    if constexpr (v == V::weight_left_out) g = 1.0f;
    if constexpr (v == V::weight_read_as_float16) {
        const uint32_t bits = gain[i].bits;
        g = ldexpf(static_cast<float>(1024 + (bits & 1023)), static_cast<int>(bits >> 10 & 31) - 25);
        if (bits >> 15) g = -g;
    }
    if (v == V::weight_left_out_beyond_256 && i >= 256) g = 1.0f;
    if constexpr (v == V::weight_plus_one) g += 1.0f;
    if constexpr (v == V::weight_of_the_previous_column) g = to_float(gain[i == 0 ? i : i - 1]);
    if constexpr (v == V::weight_applied_twice) g *= g;
    const float normed = (to_float(x[i]) - mean) * inverse;
    if constexpr (v == V::rounded_in_between_as_declared) return round_bf16(normed) * g;
    if constexpr (v == V::weight_times_root_first) return to_float(x[i]) * (inverse * g);
    return normed * g;
}

template <V v>
__global__ void quantise(uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int32_t m, int32_t k,
                         int32_t launch) {
    FOR_EACH_OUTPUT(row, m) {
        const int64_t of = v == V::root_of_the_first_of_four_rows ? row / 4 * 4 : row;
        // Some blocks read the sum of squares before the second half of their waves have added theirs.
        const bool early = row % 7 == launch % 7;
        const float inverse = inverse_root<v>(x + of * k, k, eps, early), centre = mean<v>(x + row * k, k);
        float before = 1.0f;
        for (int32_t group = 0; group < k / kGroup; ++group) {
            const int64_t first = group * kGroup;
            float amax = 0.0f;
            for (int i = 0; i < kGroup; ++i) amax = fmaxf(amax, fabsf(value<v>(x + row * k, gain, first + i, inverse, centre)));
            float scale = (v == V::no_floor_under_the_scale ? amax : fmaxf(amax, 1e-10f)) / E4m3fn::max;
            if constexpr (v == V::scales_of_powers_of_two) scale = exp2f(ceilf(log2f(scale)));
            const bool stale = v == V::last_codes_for_the_scale_before && group == k / kGroup - 1;
            const float made_for = stale ? before : scale;
            for (int i = 0; i < kGroup; ++i) {
                const float normed = value<v>(x + row * k, gain, first + i, inverse, centre);
                float scaled = normed / made_for;
                if constexpr (v == V::codes_clamped_to_240) scaled = fminf(fmaxf(scaled, -240.0f), 240.0f);
                q[row * k + first + i] = v == V::returns_zeros ? 0 : encode<E4m3fn>(scaled);
            }
            before = scale;
            int64_t at = row * (k / kGroup) + group;
            if constexpr (v == V::scales_written_column_major) at = int64_t{group} * m + row;
            if constexpr (v == V::scales_stored_a_row_late) at = (row + 1) % m * (k / kGroup) + group;
            s[at] = v == V::returns_zeros              ? 0.0f
                    : v == V::stored_scale_is_for_240 ? scale * (E4m3fn::max / E4m3fnuz::max)
                                                      : scale;
        }
    }
}

#define QUANTISE(name) quantise<V::name>,
constexpr decltype(&quantise<V::right>) kQuantise[] = {FOR_EACH_NORM(QUANTISE)};

}  // namespace

LAUNCHER norm_quantise(uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int32_t m, int32_t k,
                       int32_t variant, hipStream_t stream) {
    if (any_null(q) || any_null(s) || any_null(x, gain) || m <= 0 || k <= 0) return kInvalidArgument;
    if (k % kGroup != 0) return kUnsupported;
    hipLaunchKernelGGL(kQuantise[variant], dim3(blocks_for(m)), dim3(kThreads), 0, stream, q, s, x, gain, eps, m, k,
                       launch_number());
    return launch_status();
}
