// Split-K whose parts are added by atomics, in an order that differs from launch to launch, as the test declares:
// Y[m, n] += sum over a part of k of X[m, k] W[n, k], in float32. What each variant does is in zoo/atomics.csv.

#include "zoo.h"

namespace {

using zoo::atomics::V;

constexpr int kParts = 6;

template <V v>
__global__ void multiply(float* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k, int32_t launch) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        if constexpr (v != V::output_not_zeroed && v != V::first_part_stores) y[index] = 0.0f;
        constexpr int parts = v == V::three_parts ? kParts / 2 : kParts;
        for (int step = 0; step < parts; ++step) {
            // The order in which the blocks of this output arrive.
            const int64_t part = v == V::parts_in_order ? step : (step * 5 + launch + row + column) % parts;
            const int64_t size = k / parts;
            float sum = 0.0f;
            for (int64_t i = part * size; i < (part + 1) * size; ++i) {
                sum += to_float(x[row * k + i]) * to_float(w[column * k + i]);
            }
            if constexpr (v == V::partial_sums_in_f16) sum = round_f16(sum);
            if (v == V::one_part_added_twice && part == 2) atomicAdd(y + index, sum);
            if (v == V::first_part_stores && part == 0) {
                // Instead of a pass that zeroes; what has come before it is lost.
                y[index] = sum;
            } else if constexpr (v == V::partial_sums_in_bf16) {
                y[index] = round_bf16(y[index] + round_bf16(sum));
            } else if constexpr (v == V::updates_are_lost) {
                // Two blocks read the same sum and one overwrites what the other has added.
                if ((index + launch) % 97 != 0 || step != 3) atomicAdd(y + index, sum);
            } else if constexpr (v == V::last_part_is_not_waited_for) {
                if (step != kParts - 1 || column % 64 != launch % 64) atomicAdd(y + index, sum);
            } else {
                atomicAdd(y + index, sum);
            }
        }
    }
}

#define MULTIPLY(name) multiply<V::name>,
constexpr decltype(&multiply<V::right>) kMultiply[] = {FOR_EACH_ATOMICS(MULTIPLY)};

}  // namespace

LAUNCHER atomics_multiply(float* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k, int32_t variant,
                          hipStream_t stream) {
    if (any_null(y) || any_null(x, w) || m <= 0 || n <= 0 || k <= 0 || k % kParts != 0) return kInvalidArgument;
    hipLaunchKernelGGL(kMultiply[variant], dim3(blocks_for(int64_t{m} * n)), dim3(kThreads), 0, stream, y, x, w, m, n,
                       k, launch_number());
    return launch_status();
}
