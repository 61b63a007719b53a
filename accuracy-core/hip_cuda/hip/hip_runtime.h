// HIP on CUDA: the names that our kernels use, for nvcc. HIP's own headers for NVIDIA do not follow current CUDA.
//
//     nvcc -std=c++17 -O3 -arch=sm_90 -Xcompiler -fPIC -shared -x cu -I accuracy-core/hip_cuda ...
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <tuple>
#include <utility>

using hipError_t = cudaError_t;
using hipStream_t = cudaStream_t;
constexpr hipError_t hipSuccess = cudaSuccess;

inline hipError_t hipGetLastError() { return cudaGetLastError(); }
inline hipError_t hipGetDevice(int* device) { return cudaGetDevice(device); }

struct hipDeviceProp_t {
    char gcnArchName[256];  // here sm_ and the compute capability
    int warpSize;
};

inline hipError_t hipGetDeviceProperties(hipDeviceProp_t* properties, int device) {
    int major = 0, minor = 0;
    hipError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == hipSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    std::snprintf(properties->gcnArchName, sizeof properties->gcnArchName, "sm_%d%d", major, minor);
    properties->warpSize = 32;
    return error;
}

// With HIP_CUDA_SHIM launches go to a libamdhip64.so (tests/hip_on_cuda.cu), as those of a library for AMD do.
#ifdef HIP_CUDA_SHIM
extern "C" hipError_t hipLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                                      hipStream_t stream);
#endif

template <class... Parameters, class... Arguments>
void hipLaunchKernelGGL(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, hipStream_t stream,
                        Arguments&&... arguments) {
#ifdef HIP_CUDA_SHIM
    std::tuple<Parameters...> values(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
    std::apply(
        [&](auto&... value) {
            void* pointers[] = {&value..., nullptr};
            hipLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, shared_bytes, stream);
        },
        values);
#else
    kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
#endif
}

#define HIP_DYNAMIC_SHARED(type, name) extern __shared__ type name[];

// HIP's shuffles take all lanes that are active for granted, as these do.
template <class T>
__device__ T __shfl_xor(T value, int mask, int width = 32) {
    return __shfl_xor_sync(0xffffffffu, value, mask, width);
}
template <class T>
__device__ T __shfl_down(T value, unsigned delta, int width = 32) {
    return __shfl_down_sync(0xffffffffu, value, delta, width);
}
template <class T>
__device__ T __shfl_up(T value, unsigned delta, int width = 32) {
    return __shfl_up_sync(0xffffffffu, value, delta, width);
}
template <class T>
__device__ T __shfl(T value, int lane, int width = 32) {
    return __shfl_sync(0xffffffffu, value, lane, width);
}
