// rmsnorm_group_quant_fp8 and add_rmsnorm_group_quant_fp8 without warp operations or vector loads. The add is a kernel
// of its own, element by element; the norm sums squares over a tree in shared memory, and a thread quantises a group.

#include "group_quant_fallback.h"

namespace {

constexpr int kThreads = 64;

__global__ void add_kernel(bf16* residual, const bf16* x, int64_t total) {
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < total) residual[i] = to_bf16(to_float(residual[i]) + to_float(x[i]));
}

template <class F>
__global__ void rmsnorm_group_quant_fp8_fallback_kernel(uint8_t* q, float* s, const bf16* x, const bf16* gain,
                                                        float eps, int32_t k, ScaleStrides strides) {
    __shared__ float squares[kThreads];
    const int64_t row = blockIdx.x;
    x += row * k;
    q += row * k;

    float sum = 0.0f;
    for (int32_t i = threadIdx.x; i < k; i += kThreads) sum += to_float(x[i]) * to_float(x[i]);
    squares[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = kThreads / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) squares[threadIdx.x] += squares[threadIdx.x + half];
        __syncthreads();
    }
    const float rms = sqrtf(squares[0] / k + eps);

    for (int32_t group = threadIdx.x; group < k / kGroup; group += kThreads) {
        const int32_t first = group * kGroup;
        quantize_group_serial<F>(q + first, s + row * strides.row + group * strides.group, [=](int i) {
            return to_float(x[first + i]) / rms * to_float(gain[first + i]);
        });
    }
}

int32_t launch(uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int32_t m, int32_t k, int32_t format,
               bool shuffle_scale, hipStream_t stream) {
    return launch_with_format(format, [&](auto f) {
        hipLaunchKernelGGL(rmsnorm_group_quant_fp8_fallback_kernel<decltype(f)>, dim3(m), dim3(kThreads), 0, stream, q,
                           s, x, gain, eps, k, ScaleStrides(m, k / kGroup, shuffle_scale));
    });
}

}  // namespace

LAUNCHER rmsnorm_group_quant_fp8_fallback(uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int32_t m,
                                          int32_t k, int32_t format, bool shuffle_scale, hipStream_t stream) {
    if (any_null(q, s, x, gain) || !(eps >= 0.0f)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    return launch(q, s, x, gain, eps, m, k, format, shuffle_scale, stream);
}

LAUNCHER add_rmsnorm_group_quant_fp8_fallback(uint8_t* q, float* s, bf16* residual, const bf16* x, const bf16* gain,
                                              float eps, int32_t m, int32_t k, int32_t format, bool shuffle_scale,
                                              hipStream_t stream) {
    if (any_null(q, s, residual, x, gain) || !(eps >= 0.0f)) return kInvalidArgument;
    if (const Status status = check_groups(m, k, format); status != kOk) return status;
    const int64_t total = int64_t{m} * k;
    hipLaunchKernelGGL(add_kernel, dim3(static_cast<uint32_t>((total + 255) / 256)), dim3(256), 0, stream, residual, x,
                       total);
    if (const int32_t status = launch_status(); status != kOk) return status;
    return launch(q, s, residual, gain, eps, m, k, format, shuffle_scale, stream);
}

ACCURACY_BOUND(rmsnorm_group_quant_fp8_fallback);
ACCURACY_BOUND(add_rmsnorm_group_quant_fp8_fallback);
