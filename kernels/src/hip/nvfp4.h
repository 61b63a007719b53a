// NVFP4: groups of 16 e2m1 elements along K share an e4m3fn scale, and the tensor a float32 one. The latter is stored as
// its reciprocal, 448 * 6 / amax of the tensor: value = element * scale / global.
#pragma once

#include "mx.h"
#include "swizzle_128x4.h"

constexpr int32_t kNvGroup = 16;

inline Status check_nvfp4(int32_t m, int32_t k) {
    if (m <= 0 || k <= 0) return kInvalidArgument;
    return k % kNvGroup == 0 ? kOk : kUnsupported;
}
