// Rotates q and k of each token, and writes k and v, divided by their scales, to the token's slot of the FP8 caches
// [slots, kv_heads, d]. q is rounded to bf16, k to FP8 alone.

#include "rope.h"

namespace {

constexpr int kThreads = 64;

// A block for each token and head: the query heads, then the key heads. A thread rotates one pair at a time.
template <class F>
__global__ __launch_bounds__(kThreads) void rope_kv_write_kernel(RopeArgs args) {
    const int64_t token = blockIdx.x;
    const int32_t head = blockIdx.y, half = args.d / 2;
    const float* cosines = args.cos_sin + int64_t{args.positions[token]} * args.d;
    const bool is_query = head < args.heads;
    const int64_t kv_head = head - args.heads;
    const bf16* from = is_query ? args.q + (token * args.heads + head) * args.d
                                : args.k + (token * args.kv_heads + kv_head) * args.d;
    const int64_t in_cache = (int64_t{args.slots[token]} * args.kv_heads + kv_head) * args.d;
    for (int32_t i = threadIdx.x; i < half; i += kThreads) {
        const int32_t first = args.neox ? i : 2 * i, second = args.neox ? i + half : 2 * i + 1;
        const float a = to_float(from[first]), b = to_float(from[second]);
        const float c = cosines[i], s = cosines[half + i];
        const float rotated_a = a * c - b * s, rotated_b = b * c + a * s;
        if (is_query) {
            bf16* to = args.q_out + (token * args.heads + head) * args.d;
            to[first] = to_bf16(rotated_a);
            to[second] = to_bf16(rotated_b);
            continue;
        }
        args.k_cache[in_cache + first] = encode<F>(rotated_a / *args.k_scale);
        args.k_cache[in_cache + second] = encode<F>(rotated_b / *args.k_scale);
        const bf16* value = args.v + (token * args.kv_heads + kv_head) * args.d;
        args.v_cache[in_cache + i] = encode<F>(to_float(value[i]) / *args.v_scale);
        args.v_cache[in_cache + half + i] = encode<F>(to_float(value[half + i]) / *args.v_scale);
    }
}

}  // namespace

LAUNCHER rope_kv_write(bf16* q_out, uint8_t* k_cache, uint8_t* v_cache, const bf16* q, const bf16* k, const bf16* v,
                       const float* cos_sin, const int32_t* positions, const int32_t* slots, const float* k_scale,
                       const float* v_scale, int32_t tokens, int32_t heads, int32_t kv_heads, int32_t d,
                       int32_t format, bool neox, hipStream_t stream) {
    const RopeArgs args{q_out, k_cache, v_cache, q,    k,        v, cos_sin, positions, slots, k_scale, v_scale,
                        tokens, heads,  kv_heads, d, neox};
    if (const Status status = check_rope(args, format); status != kOk) return status;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(rope_kv_write_kernel<decltype(f)>, dim3(tokens, heads + kv_heads), dim3(kThreads), 0, stream,
                           args);
    });
}

ACCURACY_BOUND(rope_kv_write);
