// silu(gate) * up of gate_up [m, 2k], a row of which holds its gate, then its up, quantised to e4m3 in groups of 128 with
// row-major scales. What each variant does and which bug it models is in zoo/swiglu.csv.

#include "zoo.h"

namespace {

using zoo::swiglu::V;

template <V v>
__device__ float activation(float x) {
    if constexpr (v == V::silu_of_half_the_gate) return 0.5f * x / (1.0f + expf(-0.5f * x));
    if constexpr (v == V::gelu_for_silu) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    if constexpr (v == V::relu_for_silu) return fmaxf(x, 0.0f);
    if constexpr (v == V::activation_left_out) return x;
    if constexpr (v == V::sigmoid_for_silu) return 1.0f / (1.0f + expf(-x));
    if constexpr (v == V::alpha_of_1_702) return x / (1.0f + expf(-1.702f * x));
    if constexpr (v == V::exp2_for_exp) return x / (1.0f + exp2f(-x));
    if constexpr (v == V::exponential_of_base_two) return x / (1.0f + exp2f(-x * 1.44269504f));
    if constexpr (v == V::silu_by_tanh) return 0.5f * x * (1.0f + tanhf(0.5f * x));
    if constexpr (v == V::sigmoid_by_sign) {
        const float small = expf(-fabsf(x));
        return x * (x >= 0.0f ? 1.0f / (1.0f + small) : small / (1.0f + small));
    }
    return x / (1.0f + expf(-x));
}

template <V v>
__device__ float value(const bf16* gate_up, int64_t row, int64_t i, int32_t k) {
    const bf16* from = gate_up + row * 2 * k;
    int64_t gate_at = i, up_at = k + i;
    if constexpr (v == V::gate_and_up_exchanged) exchange(gate_at, up_at);
    if constexpr (v == V::read_as_alternating) gate_at = 2 * i, up_at = 2 * i + 1;
    if constexpr (v == V::alternating_up_first) gate_at = 2 * i + 1, up_at = 2 * i;
    if constexpr (v == V::read_in_blocks_of_64) gate_at = i / 64 * 128 + i % 64, up_at = gate_at + 64;
    if constexpr (v == V::read_in_blocks_of_128) gate_at = i / 128 * 256 + i % 128, up_at = gate_at + 128;
    if constexpr (v == V::read_in_blocks_of_16) gate_at = i / 16 * 32 + i % 16, up_at = gate_at + 16;
    if (v == V::exchanged_in_the_last_group && i >= k - kGroup) exchange(gate_at, up_at);
    if (v == V::exchanged_beyond_16_tokens && row >= 16) exchange(gate_at, up_at);
    if constexpr (v == V::up_is_gate) up_at = gate_at;
    if constexpr (v == V::up_begins_a_tile_late) up_at = k + (i + 64) % k;
    if constexpr (v == V::up_rows_half_as_far) up_at = k + i - row * k;
    float gate = to_float(from[gate_at]), up = to_float(from[up_at]);
    if constexpr (v == V::limit_of_seven) gate = fminf(gate, 7.0f), up = fminf(fmaxf(up, -7.0f), 7.0f);
    if constexpr (v == V::limit_of_ten_thousand) gate = fminf(gate, 1e4f), up = fminf(fmaxf(up, -1e4f), 1e4f);
    if constexpr (v == V::up_plus_one) up += 1.0f;
    if constexpr (v == V::up_left_out) up = 1.0f;
    if constexpr (v == V::silu_of_the_product) return activation<v>(gate * up);
    if constexpr (v == V::sigmoid_multiplied_last) return gate * up * (1.0f / (1.0f + expf(-gate)));
    const float activated = activation<v>(gate);
    if constexpr (v == V::up_activated_too) return activated * activation<v>(up);
    if constexpr (v == V::rounded_in_between_as_declared) return round_bf16(activated) * up;
    return activated * up;
}

template <V v>
__global__ void quantise(uint8_t* q, float* s, const bf16* gate_up, int32_t m, int32_t k, int32_t launch) {
    const int64_t groups = k / kGroup;
    FOR_EACH_OUTPUT(index, m * groups) {
        const int64_t row = index / groups, first = index % groups * kGroup;
        float amax = 0.0f;
        for (int i = 0; i < kGroup; ++i) {
            // Some groups read the largest magnitude before the second half of their lanes have compared theirs.
            if (v == V::amax_without_a_barrier && i >= kGroup / 2 && index % 5 == launch % 5) break;
            float magnitude = fabsf(value<v>(gate_up, row, first + i, k));
            if constexpr (v == V::amax_of_the_activated_gate) {
                magnitude = fabsf(activation<v>(to_float(gate_up[row * 2 * k + first + i])));
            }
            amax = fmaxf(amax, magnitude);
        }
        using F = std::conditional_t<v == V::written_as_fnuz, E4m3fnuz, E4m3fn>;
        const float scale = (v == V::no_epsilon ? amax : fmaxf(amax, 1e-10f)) / F::max;
        for (int i = 0; i < kGroup; ++i) {
            if (v == V::last_group_not_quantised && first == k - kGroup) break;
            using Written = std::conditional_t<v == V::written_as_e5m2, E5m2, F>;
            const float x = value<v>(gate_up, row, first + i, k);
            q[row * k + first + i] = encode<Written>(v == V::multiplies_by_the_reciprocal ? x * (1.0f / scale) : x / scale);
        }
        s[index] = v == V::scale_written_inverted ? 1.0f / scale : scale;
    }
}

#define QUANTISE(name) quantise<V::name>,
constexpr decltype(&quantise<V::right>) kQuantise[] = {FOR_EACH_SWIGLU(QUANTISE)};

}  // namespace

LAUNCHER swiglu_quantise(uint8_t* q, float* s, const bf16* gate_up, int32_t m, int32_t k, int32_t variant,
                         hipStream_t stream) {
    if (any_null(q) || any_null(s) || any_null(gate_up) || m <= 0 || k <= 0) return kInvalidArgument;
    if (k % kGroup != 0) return kUnsupported;
    hipLaunchKernelGGL(kQuantise[variant], dim3(blocks_for(int64_t{m} * (k / kGroup))), dim3(kThreads), 0, stream, q, s,
                       gate_up, m, k, launch_number());
    return launch_status();
}
