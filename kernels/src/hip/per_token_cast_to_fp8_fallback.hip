// per_token_cast_to_fp8 without warp operations or vector loads: a thread per group.

#include "bf16.h"
#include "launcher.h"
#include "mn_major.h"
#include "mx.h"

namespace {

constexpr int kThreads = 64;

__global__ void per_token_cast_to_fp8_fallback_kernel(uint8_t* q, void* s, const bf16* x, int32_t m, int32_t groups,
                                                      bool ue8m0) {
    const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    if (index >= int64_t{m} * groups) return;
    const int64_t row = index / groups, group = index % groups;
    x += index * kGroup;
    q += index * kGroup;
    float amax = 1e-4f;
    for (int i = 0; i < kGroup; ++i) {
        const float magnitude = fabsf(to_float(x[i]));
        if (magnitude > amax) amax = magnitude;
    }
    float scale = amax / E4m3fn::max;
    if (ue8m0) {
        // The next power of two: the exponent, and one more where there is a fraction.
        const uint32_t bits = __float_as_uint(scale);
        const uint32_t exponent = (bits >> 23) + ((bits & 0x7fffff) != 0);
        scale = __uint_as_float(exponent << 23);
        static_cast<uint8_t*>(s)[packed_words(row, group, m)] = static_cast<uint8_t>(exponent);
    } else {
        static_cast<float*>(s)[mn_major(row, group, m)] = scale;
    }
    for (int i = 0; i < kGroup; ++i) q[i] = encode_by_steps<E4m3fn>(to_float(x[i]) / scale);
}

}  // namespace

LAUNCHER per_token_cast_to_fp8_fallback(uint8_t* q, void* s, const bf16* x, int32_t m, int32_t k, bool ue8m0,
                                        hipStream_t stream) {
    if (any_null(q, s, x)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, kE4m3fn); status != kOk) return status;
    const int64_t total = int64_t{m} * (k / kGroup);
    hipLaunchKernelGGL(per_token_cast_to_fp8_fallback_kernel,
                       dim3(static_cast<uint32_t>((total + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream, q, s,
                       x, m, k / kGroup, ue8m0);
    return launch_status();
}

ACCURACY_BOUND(per_token_cast_to_fp8_fallback);
