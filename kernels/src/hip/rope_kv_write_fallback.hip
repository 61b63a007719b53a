// rope_kv_write element by element: a thread computes one element of q, k or v by itself.

#include "rope.h"

namespace {

constexpr int kThreads = 128;

__device__ inline float rotated(const RopeArgs& args, const bf16* head, int64_t token, int32_t i) {
    const int32_t half = args.d / 2;
    const float* cosines = args.cos_sin + int64_t{args.positions[token]} * args.d;
    const bool is_second = args.neox ? i >= half : i % 2 == 1;
    const int32_t pair = args.neox ? i % half : i / 2;
    const int32_t distance = args.neox ? half : 1;
    const float x = to_float(head[i]);
    const float other = to_float(head[is_second ? i - distance : i + distance]);
    return x * cosines[pair] + (is_second ? other : -other) * cosines[half + pair];
}

template <class F>
__global__ void rope_kv_write_fallback_kernel(RopeArgs args) {
    const int32_t queries = args.heads * args.d, keys = args.kv_heads * args.d;
    const int64_t token = blockIdx.x;
    const int32_t at = blockIdx.y * kThreads + threadIdx.x;
    const int64_t slot = args.slots[token];
    if (at < queries) {
        const bf16* head = args.q + token * queries + at / args.d * args.d;
        args.q_out[token * queries + at] = to_bf16(rotated(args, head, token, at % args.d));
    } else if (at < queries + keys) {
        const int32_t i = at - queries;
        const bf16* head = args.k + token * keys + i / args.d * args.d;
        const float key = rotated(args, head, token, i % args.d);
        args.k_cache[slot * keys + i] = encode_by_steps<F>(key / *args.k_scale);
    } else if (at < queries + 2 * keys) {
        const int32_t i = at - queries - keys;
        args.v_cache[slot * keys + i] = encode_by_steps<F>(to_float(args.v[token * keys + i]) / *args.v_scale);
    }
}

}  // namespace

LAUNCHER rope_kv_write_fallback(bf16* q_out, uint8_t* k_cache, uint8_t* v_cache, const bf16* q, const bf16* k,
                                const bf16* v, const float* cos_sin, const int32_t* positions, const int32_t* slots,
                                const float* k_scale, const float* v_scale, int32_t tokens, int32_t heads,
                                int32_t kv_heads, int32_t d, int32_t format, bool neox, hipStream_t stream) {
    const RopeArgs args{q_out, k_cache, v_cache, q,    k,        v, cos_sin, positions, slots, k_scale, v_scale,
                        tokens, heads,  kv_heads, d, neox};
    if (const Status status = check_rope(args, format); status != kOk) return status;
    const int32_t elements = (heads + 2 * kv_heads) * d;
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(rope_kv_write_fallback_kernel<decltype(f)>, dim3(tokens, ceil_div(elements, kThreads)),
                           dim3(kThreads), 0, stream, args);
    });
}

ACCURACY_BOUND(rope_kv_write_fallback);
