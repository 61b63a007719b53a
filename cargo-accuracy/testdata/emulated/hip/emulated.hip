// GEMMs, y[m, n] = sum over k of x[m, k] w[n, k] in bf16: a right one, and one for each way in which a kernel or a launch
// goes wrong. One thread computes one element.

#include <dlfcn.h>
#include <hip/hip_runtime.h>

#include <cassert>
#include <cstdint>

#define LAUNCHER(name) \
    extern "C" __attribute__((visibility("default"))) int32_t name( \
        bf16* y, bf16* x, bf16* w, int32_t m, int32_t n, int32_t k, hipStream_t stream)

using bf16 = uint16_t;

namespace {

constexpr uint32_t kThreads = 64;

__device__ inline float to_float(bf16 x) { return __uint_as_float(uint32_t{x} << 16); }

__device__ inline bf16 to_bf16(float x) {
    const uint32_t bits = __float_as_uint(x);
    return static_cast<bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ inline int32_t thread() { return static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x); }

__device__ inline void element(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    const int32_t at = thread();
    if (at >= m * n) return;
    float sum = 0.0f;
    for (int32_t i = 0; i < k; ++i) sum += to_float(x[at / n * k + i]) * to_float(w[at % n * k + i]);
    y[at] = to_bf16(sum);
}

__global__ void gemm_kernel(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    element(y, x, w, m, n, k);
}

__global__ void fast_gemm_kernel(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    element(y, x, w, m, n, k);
}

__global__ void write_at(bf16* y, int64_t at) { y[at] = 0x3f80; }

__global__ void read_null(bf16* y, const volatile bf16* nothing) {
    y[0] = nothing[threadIdx.x];  // reads through null
}

// Hand-written, and without the wait that a compiler would put in: the device may multiply what was in the register.
__global__ void reads_too_early(bf16* y) {
    uint32_t loaded;
    asm volatile(
        "global_load_ushort %0, %1, off\n"
        "v_mov_b32 %0, %0\n"  // reads too early
        "s_waitcnt vmcnt(0)"
        : "=&v"(loaded)
        : "v"(y)
        : "memory");
    if (threadIdx.x == 0) y[0] = static_cast<bf16>(loaded);
}

// The second wave takes what the first one has written, which it may not have done yet.
__global__ void takes_without_barrier(bf16* y) {
    __shared__ volatile bf16 shared[2 * kThreads];
    shared[threadIdx.x] = y[0];
    const bf16 taken = shared[threadIdx.x % kThreads];
    if (threadIdx.x == kThreads) y[0] = taken;
}

// Counts, so that it is no wait for somebody else.
__global__ void never_ends(volatile bf16* y) {
    for (uint32_t i = 1; i != 0; i += 2) *y = static_cast<bf16>(i);
}

// Waits for memory to change that nobody writes.
__global__ void waits_for_nobody(const volatile bf16* x) {
    const bf16 before = *x;
    while (*x == before) {
    }
}

__device__ __attribute__((noinline)) int32_t deeper(volatile bf16* y, int32_t depth) {
    volatile int32_t frame[64];
    frame[depth & 63] = depth;
    if (*y == 0x1234) return depth;
    return deeper(y, depth + 1) + frame[(depth + 1) & 63];
}

__global__ void calls_itself(bf16* y) { *y = static_cast<bf16>(deeper(y, 0)); }

__global__ void uses_lds(bf16* y, int32_t count) {
    extern __shared__ bf16 shared[];
    for (int32_t i = 0; i < count; ++i) shared[i] = y[i];
    y[0] = shared[count - 1];
}

__global__ void prints(const bf16* y) {
    if (threadIdx.x < 2) printf("thread %d has %d\n", thread(), static_cast<int>(y[0] != 0xffff));
}

__global__ void asserts(const bf16* y) { assert(y == nullptr && "y is never null"); }

__global__ void traps() { __builtin_trap(); }

// y += x in place, x from so many rows below: right with 0.
template <int kRows>
__global__ void add_kernel(bf16* y, const bf16* x, int32_t m, int32_t k) {
    const int32_t at = thread();
    if (at < m * k) y[at] = to_bf16(to_float(y[at]) + to_float(x[(at / k + kRows) % m * k + at % k]));
}

// The GEMM of rows of x from so many rows below.
template <int kRows>
__global__ void gemm_of_rows_kernel(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    const int32_t at = thread();
    if (at >= m * n) return;
    const int32_t row = (at / n + kRows) % m;
    float sum = 0.0f;
    for (int32_t i = 0; i < k; ++i) sum += to_float(x[row * k + i]) * to_float(w[at % n * k + i]);
    y[at] = to_bf16(sum);
}

dim3 blocks(int32_t threads) { return dim3((threads + kThreads - 1) / kThreads); }

void gemm_on(hipStream_t stream, bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    hipLaunchKernelGGL(gemm_kernel, blocks(m * n), dim3(kThreads), 0, stream, y, x, w, m, n, k);
}

}  // namespace

// None of those that fail says so by its status: that they are not green is not their doing.
LAUNCHER(gemm) {
    gemm_on(stream, y, x, w, m, n, k);
    return hipGetLastError() == hipSuccess ? 0 : 3;
}

// Takes the fast kernel for shapes that it knows, which these are not.
LAUNCHER(gemm_that_falls_back) {
    if (m % 64 == 0 && n % 64 == 0) {
        hipLaunchKernelGGL(fast_gemm_kernel, blocks(m * n), dim3(kThreads), 0, stream, y, x, w, m, n, k);
    } else {
        gemm_on(stream, y, x, w, m, n, k);
    }
    return 0;
}

// Into the guard, where the memory is there.
LAUNCHER(add) {
    hipLaunchKernelGGL(add_kernel<0>, blocks(m * k), dim3(kThreads), 0, stream, y, x, m, k);
    return 0;
}

LAUNCHER(add_next_row) {
    hipLaunchKernelGGL(add_kernel<1>, blocks(m * k), dim3(kThreads), 0, stream, y, x, m, k);
    return 0;
}

LAUNCHER(gemm_of_next_row) {
    hipLaunchKernelGGL(gemm_of_rows_kernel<1>, blocks(m * n), dim3(kThreads), 0, stream, y, x, w, m, n, k);
    return 0;
}

LAUNCHER(gemm_past_the_end) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(write_at, dim3(1), dim3(1), 0, stream, y, int64_t{m} * n);
    return 0;
}

LAUNCHER(gemm_that_reads_too_early) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(reads_too_early, dim3(1), dim3(kThreads), 0, stream, y);
    return 0;
}

LAUNCHER(gemm_without_a_barrier) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(takes_without_barrier, dim3(1), dim3(2 * kThreads), 0, stream, y);
    return 0;
}

LAUNCHER(gemm_reads_null) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(read_null, dim3(1), dim3(kThreads), 0, stream, y, static_cast<const bf16*>(nullptr));
    return 0;
}

LAUNCHER(gemm_writes_far_behind) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(write_at, dim3(1), dim3(1), 0, stream, y, int64_t{1} << 32);
    return 0;
}

LAUNCHER(gemm_never_ends) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(never_ends, dim3(1), dim3(1), 0, stream, y);
    return 0;
}

LAUNCHER(gemm_waits_for_nobody) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(waits_for_nobody, dim3(2), dim3(1), 0, stream, x);
    return 0;
}

LAUNCHER(gemm_calls_itself_forever) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(calls_itself, dim3(1), dim3(1), 0, stream, y);
    return 0;
}

LAUNCHER(gemm_in_no_block) {
    hipLaunchKernelGGL(gemm_kernel, dim3(0), dim3(kThreads), 0, stream, y, x, w, m, n, k);
    gemm_on(stream, y, x, w, m, n, k);
    return 0;
}

// 2^32 threads along x.
LAUNCHER(gemm_in_too_many_blocks) {
    hipLaunchKernelGGL(gemm_kernel, dim3(1 << 26), dim3(kThreads), 0, stream, y, x, w, m, n, k);
    gemm_on(stream, y, x, w, m, n, k);
    return 0;
}

LAUNCHER(gemm_in_a_block_too_large) {
    hipLaunchKernelGGL(gemm_kernel, dim3(1), dim3(2048), 0, stream, y, x, w, m, n, k);
    gemm_on(stream, y, x, w, m, n, k);
    return 0;
}

// More than gfx950 has, and gfx942.
LAUNCHER(gemm_with_too_much_lds) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(uses_lds, dim3(1), dim3(1), 164000, stream, y, 1);
    return 0;
}

LAUNCHER(gemm_with_an_ipc_handle) {
    hipIpcMemHandle_t handle;
    (void)hipIpcGetMemHandle(&handle, y);
    gemm_on(stream, y, x, w, m, n, k);
    return 0;
}

// The buffer of arguments ends in the middle of those that the kernel takes.
LAUNCHER(gemm_with_half_its_arguments) {
    gemm_on(stream, y, x, w, m, n, k);
    // Headers and runtimes older than ROCm 6 do not have it.
    using Find = hipError_t (*)(hipFunction_t*, const void*);
    void* runtime = dlopen("libamdhip64.so.5", RTLD_NOLOAD | RTLD_LAZY);
    const auto find = reinterpret_cast<Find>(dlsym(runtime, "hipGetFuncBySymbol"));
    hipFunction_t function;
    (void)find(&function, reinterpret_cast<const void*>(gemm_kernel));
    const void* arguments[] = {y, x};
    size_t bytes = sizeof(arguments);
    void* extra[] = {HIP_LAUNCH_PARAM_BUFFER_POINTER, arguments, HIP_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                     HIP_LAUNCH_PARAM_END};
    (void)hipModuleLaunchKernel(function, 1, 1, 1, kThreads, 1, 1, 0, stream, nullptr, extra);
    return 0;
}

LAUNCHER(gemm_that_prints) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(prints, dim3(1), dim3(kThreads), 0, stream, y);
    return 0;
}

LAUNCHER(gemm_that_asserts) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(asserts, dim3(1), dim3(1), 0, stream, y);
    return 0;
}

LAUNCHER(gemm_that_traps) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(traps, dim3(1), dim3(1), 0, stream);
    return 0;
}
