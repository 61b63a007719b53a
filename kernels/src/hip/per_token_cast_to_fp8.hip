// Dynamic quantisation of activations to e4m3fn in groups of 128, the scales as DeepGEMM takes them (mn_major.h):
// scale = max(amax, 1e-4) / 448, with ue8m0 rounded up to a power of two.

#include "group_quant.h"
#include "mn_major.h"
#include "mx.h"

namespace {

constexpr int kGroupsPerBlock = 4;

__global__ __launch_bounds__(kGroupsPerBlock* kLanes) void per_token_cast_to_fp8_kernel(uint8_t* q, float* s,
                                                                                        uint8_t* exponents,
                                                                                        const bf16* x, int32_t m,
                                                                                        int32_t groups) {
    const int64_t row = blockIdx.x;
    const int32_t group = blockIdx.y * kGroupsPerBlock + threadIdx.x / kLanes;
    const int lane = threadIdx.x % kLanes;
    if (group >= groups) return;
    const int64_t first = (row * groups + group) * kGroup + lane * kPerLane;
    const Pack<bf16, kPerLane> packed = load<kPerLane>(x + first);
    float amax = 0.0f;
    for (int i = 0; i < kPerLane; ++i) amax = fmaxf(amax, fabsf(to_float(packed.v[i])));
    amax = fmaxf(lanes_max(amax), 1e-4f);
    float quotients[kPerLane];
    if (exponents) {
        const uint8_t scale = e8m0_scale<MxE4m3>(__float_as_uint(amax), kCeil);
        for (int i = 0; i < kPerLane; ++i) quotients[i] = divide_by_e8m0(to_float(packed.v[i]), scale);
        if (lane == 0) exponents[packed_words(row, group, m)] = scale;
    } else {
        const float scale = amax / E4m3fn::max;
        for (int i = 0; i < kPerLane; ++i) quotients[i] = to_float(packed.v[i]) / scale;
        if (lane == 0) s[mn_major(row, group, m)] = scale;
    }
    Pack<uint8_t, kPerLane> codes;
    encode_all<E4m3fn>(codes.v, quotients);
    *reinterpret_cast<Pack<uint8_t, kPerLane>*>(q + first) = codes;
}

}  // namespace

LAUNCHER per_token_cast_to_fp8(uint8_t* q, void* s, const bf16* x, int32_t m, int32_t k, bool ue8m0,
                               hipStream_t stream) {
    if (any_null(q, s, x)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, kE4m3fn); status != kOk) return status;
    if (!is_aligned(x, sizeof(Pack<bf16, kPerLane>)) || !is_aligned(q, kPerLane)) return kUnsupported;
    const int32_t groups = k / kGroup;
    hipLaunchKernelGGL(per_token_cast_to_fp8_kernel, dim3(m, ceil_div(groups, kGroupsPerBlock)),
                       dim3(kGroupsPerBlock * kLanes), 0, stream, q, static_cast<float*>(s),
                       ue8m0 ? static_cast<uint8_t*>(s) : nullptr, x, m, groups);
    return launch_status();
}

ACCURACY_BOUND(per_token_cast_to_fp8);
