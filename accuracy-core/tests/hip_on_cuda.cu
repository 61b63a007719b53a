// HIP's runtime interface on top of CUDA's: a libamdhip64.so for machines with an NVIDIA GPU, on which the code path for
// AMD then runs for real. Only for tests; the calls are those that accuracy_core::device makes, and the launches of
// kernel libraries that are built with -DHIP_CUDA_SHIM (hip_cuda/hip/hip_runtime.h).
//
//     nvcc -shared -cudart shared -Xcompiler -fPIC -o libamdhip64.so accuracy-core/tests/hip_on_cuda.cu -lcuda
//     LD_LIBRARY_PATH=. cargo accuracy --arch sm_90 --runtime hip

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#define API extern "C" __attribute__((visibility("default"))) int

// HIP's own variable chooses among the devices that CUDA shows.
__attribute__((constructor)) static void choose_devices() {
    const char* visible = std::getenv("HIP_VISIBLE_DEVICES");
    if (visible) setenv("CUDA_VISIBLE_DEVICES", visible, 1);
}

// Status codes differ above a few common ones; success is 0 in both.
API hipGetDeviceCount(int* count) { return cudaGetDeviceCount(count); }
API hipSetDevice(int device) { return cudaSetDevice(device); }
API hipMalloc(void** pointer, size_t bytes) { return cudaMalloc(pointer, bytes); }
API hipFree(void* pointer) { return cudaFree(pointer); }
API hipDeviceSynchronize() { return cudaDeviceSynchronize(); }
API hipStreamCreateWithFlags(void** stream, unsigned flags) {
    return cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(stream), flags);
}

// Kinds have the same numbers: 1 to the device, 2 from it.
API hipMemcpy(void* to, const void* from, size_t bytes, int kind) {
    return cudaMemcpy(to, from, bytes, static_cast<cudaMemcpyKind>(kind));
}

API hipDeviceTotalMem(size_t* bytes, int device) {
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error == cudaSuccess) *bytes = properties.totalGlobalMem;
    return error;
}

API hipDeviceGetName(char* name, int size, int device) {
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error == cudaSuccess) std::snprintf(name, size, "%s", properties.name);
    return error;
}

// The structure of HIP 6: the name first, gcnArchName at byte 1160, 1472 bytes in all.
API hipGetDevicePropertiesR0600(char* structure, int device) {
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error != cudaSuccess) return error;
    std::memset(structure, 0, 1472);
    std::snprintf(structure, 256, "%s", properties.name);
    std::snprintf(structure + 1160, 256, "sm_%d%d", properties.major, properties.minor);
    return 0;
}

extern "C" __attribute__((visibility("default"))) const char* hipGetErrorName(int error) {
    return cudaGetErrorName(static_cast<cudaError_t>(error));
}

API hipLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                    cudaStream_t stream) {
    return cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}

extern "C" __attribute__((visibility("default"))) const char* hipKernelNameRefByPtr(const void* kernel, cudaStream_t) {
    const char* name = nullptr;
    return cudaFuncGetName(&name, kernel) == cudaSuccess ? name : nullptr;
}

API hipModuleLoadData(CUmodule* module, const void* image) { return cuModuleLoadData(module, image); }
API hipModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    return cuModuleGetFunction(function, module, name);
}
API hipModuleLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void** arguments,
                          void** extra) {
    return cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, arguments,
                          extra);
}
extern "C" __attribute__((visibility("default"))) const char* hipKernelNameRef(CUfunction function) {
    const char* name = nullptr;
    return cuFuncGetName(&name, function) == CUDA_SUCCESS ? name : nullptr;
}
