// Rotary embedding and the FP8 KV cache: what the primary and the fallback share.
//
// A head of d elements is rotated in pairs, (i, i + d / 2) with neox, (2i, 2i + 1) without (GPT-J), by the angle of its
// position, whose cosines and sines are cos_sin [positions, d]: d / 2 cosines, then d / 2 sines.
#pragma once

#include "bf16.h"
#include "launcher.h"

struct RopeArgs {
    bf16* q_out;
    uint8_t* k_cache;
    uint8_t* v_cache;
    const bf16* q;
    const bf16* k;
    const bf16* v;
    const float* cos_sin;
    const int32_t* positions;
    const int32_t* slots;
    const float* k_scale;
    const float* v_scale;
    int32_t tokens, heads, kv_heads, d;
    bool neox;

    bool any_missing() const {
        return any_null(q_out, q, k, v) || any_null(k_cache, v_cache) || any_null(cos_sin, k_scale, v_scale) ||
               any_null(positions, slots);
    }
};

inline Status check_rope(const RopeArgs& args, int32_t format) {
    if (args.any_missing()) return kInvalidArgument;
    if (args.tokens <= 0 || args.heads <= 0 || args.kv_heads <= 0 || args.d <= 0) return kInvalidArgument;
    if (args.heads % args.kv_heads != 0) return kInvalidArgument;
    if (args.d % 2 != 0) return kUnsupported;
    return check_format(format);
}
