// nvfp4_quant without warp operations or vector loads: a thread per group.

#include "mx_quant_fallback.h"
#include "nvfp4.h"

namespace {

__global__ void nvfp4_quant_fallback_kernel(uint8_t* q, uint8_t* s, const bf16* x, const float* global, int64_t m,
                                            int32_t k, bool is_sf_swizzled) {
    const int32_t groups = k / kNvGroup;
    const int64_t index = int64_t{blockIdx.x} * kMxThreads + threadIdx.x;
    if (index >= m * groups) return;
    x += index * kNvGroup;
    float amax = 0.0f;
    for (int i = 0; i < kNvGroup; ++i) {
        const float magnitude = fabsf(to_float(x[i]));
        if (!(magnitude <= amax)) amax = magnitude;  // NaN stays
    }
    const uint8_t code = encode_by_steps<E4m3fn>(amax / E2m1::max * *global);
    s[scale_offset_128x4(index / groups, index % groups, groups, is_sf_swizzled)] = code;
    const float step = decode_by_arithmetic<E4m3fn>(code) / *global;
    for (int i = 0; i < kNvGroup; i += 2) {
        uint32_t byte = 0;
        for (int j = 0; j < 2 && step != 0.0f; ++j) {
            byte |= uint32_t{encode_mx_by_steps<E2m1>(to_float(x[i + j]) / step)} << (4 * j);
        }
        q[(index * kNvGroup + i) / 2] = static_cast<uint8_t>(byte);
    }
}

}  // namespace

LAUNCHER nvfp4_quant_fallback(uint8_t* q, uint8_t* s, const bf16* x, const float* global, int32_t m, int32_t k,
                              bool is_sf_swizzled, hipStream_t stream) {
    if (any_null(q, s, x, global)) return kInvalidArgument;
    if (const Status status = check_nvfp4(m, k); status != kOk) return status;
    const int64_t total = int64_t{m} * (k / kNvGroup);
    hipLaunchKernelGGL(nvfp4_quant_fallback_kernel, dim3(static_cast<uint32_t>((total + kMxThreads - 1) / kMxThreads)),
                       dim3(kMxThreads), 0, stream, q, s, x, global, int64_t{m}, k, is_sf_swizzled);
    return launch_status();
}

ACCURACY_BOUND(nvfp4_quant_fallback);
