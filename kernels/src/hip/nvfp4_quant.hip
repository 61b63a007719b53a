// Quantisation to NVFP4 under a given tensor-wide scale: bf16 [m, k] to codes [m, k], two a byte, and e4m3fn scales of
// groups of 16, row-major [m, k / 16] or, with is_sf_swizzled, in tiles of 128 x 4. scale = amax / 6 * global; a group
// whose scale rounds to zero has codes of zero.

#include "mx_quant.h"
#include "nvfp4.h"

namespace {

constexpr int kNvLanes = 4;
constexpr int kNvPerLane = kNvGroup / kNvLanes;

static_assert(kNvPerLane == kMxPerLane, "a lane encodes as many values of either");

__global__ __launch_bounds__(kMxThreads) void nvfp4_quant_kernel(uint8_t* q, uint8_t* s, const bf16* x,
                                                                 const float* global, int64_t m, int32_t k,
                                                                 bool is_sf_swizzled) {
    const int64_t index = (int64_t{blockIdx.x} * kMxThreads + threadIdx.x) / kNvLanes;
    const int32_t groups = k / kNvGroup;
    const int lane = threadIdx.x % kNvLanes;
    if (index >= m * groups) return;
    const int64_t row = index / groups, group = index % groups;
    const int64_t first = row * k + group * kNvGroup + lane * kNvPerLane;
    const Pack<bf16, kNvPerLane> packed = load<kNvPerLane>(x + first);
    // As integers NaN and infinity are larger than any number.
    uint32_t amax = 0;
    for (int i = 0; i < kNvPerLane; ++i) amax = max(amax, __float_as_uint(to_float(packed.v[i])) & 0x7fffffff);
    for (int mask = kNvLanes / 2; mask > 0; mask /= 2) amax = max(amax, __shfl_xor(amax, mask, kNvLanes));
    const uint8_t code = encode<E4m3fn>(__uint_as_float(amax) * *global / E2m1::max);
    const float scale = decode<E4m3fn>(code);
    const float inverse = scale == 0.0f ? 0.0f : *global / scale;
    Pack<float, kNvPerLane> scaled;
    for (int i = 0; i < kNvPerLane; ++i) scaled.v[i] = to_float(packed.v[i]) * inverse;
    const Pack<uint8_t, kNvPerLane / 2> codes = encode_lane(E2m1{}, scaled, kE8m0One);
    *reinterpret_cast<Pack<uint8_t, kNvPerLane / 2>*>(q + first / 2) = codes;
    if (lane == 0) s[scale_offset_128x4(row, group, groups, is_sf_swizzled)] = code;
}

}  // namespace

LAUNCHER nvfp4_quant(uint8_t* q, uint8_t* s, const bf16* x, const float* global, int32_t m, int32_t k,
                     bool is_sf_swizzled, hipStream_t stream) {
    if (any_null(q, s, x, global)) return kInvalidArgument;
    if (const Status status = check_nvfp4(m, k); status != kOk) return status;
    if (!is_aligned(x, sizeof(Pack<bf16, kNvPerLane>)) || !is_aligned(q, kNvPerLane / 2)) return kUnsupported;
    const int64_t threads = int64_t{m} * (k / kNvGroup) * kNvLanes;
    hipLaunchKernelGGL(nvfp4_quant_kernel, dim3(static_cast<uint32_t>((threads + kMxThreads - 1) / kMxThreads)),
                       dim3(kMxThreads), 0, stream, q, s, x, global, int64_t{m}, k, is_sf_swizzled);
    return launch_status();
}

ACCURACY_BOUND(nvfp4_quant);
