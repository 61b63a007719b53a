// GEMMs, y[m, n] = sum over k of x[m, k] w[n, k] in bf16: a right one, and one for each way in which a kernel goes wrong
// on a device. One thread computes one element.

#include <hip/hip_runtime.h>

#include <cstdint>

#define EXPORT extern "C" __attribute__((visibility("default")))
#define LAUNCHER(name) \
    EXPORT int32_t name(bf16* y, bf16* x, bf16* w, int32_t m, int32_t n, int32_t k, hipStream_t stream)

using bf16 = uint16_t;

namespace {

constexpr uint32_t kThreads = 64;

__device__ inline float to_float(bf16 x) { return __uint_as_float(uint32_t{x} << 16); }

__device__ inline bf16 to_bf16(float x) {
    const uint32_t bits = __float_as_uint(x);
    return static_cast<bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Element `at` of the product, over the elements of K from `from` to `to`.
__device__ inline float product(const bf16* x, const bf16* w, int32_t n, int32_t k, int32_t at, int32_t from, int32_t to) {
    float sum = 0.0f;
    for (int32_t i = from; i < to; ++i) sum += to_float(x[at / n * k + i]) * to_float(w[at % n * k + i]);
    return sum;
}

__device__ inline int32_t thread() { return static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x); }

__global__ void gemm_kernel(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    if (thread() < m * n) y[thread()] = to_bf16(product(x, w, n, k, thread(), 0, k));
}

__global__ void fast_gemm_kernel(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    if (thread() < m * n) y[thread()] = to_bf16(product(x, w, n, k, thread(), 0, k));
}

__global__ void all_but_the_last_column(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    if (thread() < m * n && thread() % n < n - 1) y[thread()] = to_bf16(product(x, w, n, k, thread(), 0, k));
}

__global__ void write_at(bf16* y, int32_t at) { y[at] = 0x3f80; }

__global__ void add_to(bf16* x, float value) { *x = to_bf16(to_float(*x) + value); }

__global__ void zero(float* y, int32_t count) {
    if (thread() < count) y[thread()] = 0.0f;
}

// Split along K into `parts`, which add up in the order in which they arrive.
__global__ void add_parts(float* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k, int32_t parts) {
    const int32_t at = thread() % (m * n), part = thread() / (m * n);
    if (part < parts) atomicAdd(y + at, product(x, w, n, k, at, k * part / parts, k * (part + 1) / parts));
}

// beta = 0, and what lies in y is read all the same.
__global__ void add_to_zero_times_before(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    if (thread() >= m * n) return;
    const float before = to_float(y[thread()]);
    y[thread()] = to_bf16(product(x, w, n, k, thread(), 0, k) + 0.0f * before);
}

__global__ void store(volatile uint32_t* address) { *address = 1; }

// Waits for memory to change that nobody writes. A loop without such a read may be optimised away.
__global__ void never_ends(const volatile bf16* x) {
    const bf16 before = *x;
    while (*x == before) {
    }
}

dim3 blocks(int32_t threads) { return dim3((threads + kThreads - 1) / kThreads); }

void gemm_on(hipStream_t stream, bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    hipLaunchKernelGGL(gemm_kernel, blocks(m * n), dim3(kThreads), 0, stream, y, x, w, m, n, k);
}

int32_t status() { return hipGetLastError() == hipSuccess ? 0 : 3; }

}  // namespace

LAUNCHER(gemm) {
    gemm_on(stream, y, x, w, m, n, k);
    return status();
}

// The same kernel as `gemm`, under another name.
LAUNCHER(gemm_by_another_name) {
    gemm_on(stream, y, x, w, m, n, k);
    return status();
}

// Takes the fast kernel for shapes that it knows, which these are not.
LAUNCHER(gemm_that_falls_back) {
    if (m % 64 == 0 && n % 64 == 0) {
        hipLaunchKernelGGL(fast_gemm_kernel, blocks(m * n), dim3(kThreads), 0, stream, y, x, w, m, n, k);
    } else {
        gemm_on(stream, y, x, w, m, n, k);
    }
    return status();
}

LAUNCHER(gemm_writes_nothing) {
    hipLaunchKernelGGL(gemm_kernel, blocks(m * n), dim3(kThreads), 0, stream, y, x, w, 0, n, k);
    return status();
}

LAUNCHER(gemm_without_the_last_column) {
    hipLaunchKernelGGL(all_but_the_last_column, blocks(m * n), dim3(kThreads), 0, stream, y, x, w, m, n, k);
    return status();
}

// Keeps the grid of its first call.
LAUNCHER(gemm_in_the_first_grid) {
    static const dim3 grid = blocks(m * n);
    hipLaunchKernelGGL(gemm_kernel, grid, dim3(kThreads), 0, stream, y, x, w, m, n, k);
    return status();
}

LAUNCHER(gemm_times_zero) {
    hipLaunchKernelGGL(add_to_zero_times_before, blocks(m * n), dim3(kThreads), 0, stream, y, x, w, m, n, k);
    return status();
}

LAUNCHER(gemm_past_the_end) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(write_at, dim3(1), dim3(1), 0, stream, y, m * n);
    return status();
}

LAUNCHER(gemm_before_the_start) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(write_at, dim3(1), dim3(1), 0, stream, y, -1);
    return status();
}

LAUNCHER(gemm_modifies_its_input) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(add_to, dim3(1), dim3(1), 0, stream, x + 1, 1.0f);
    return status();
}

LAUNCHER(gemm_stores_to_an_illegal_address) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(store, dim3(1), dim3(1), 0, stream, reinterpret_cast<volatile uint32_t*>(uintptr_t{64}));
    return status();
}

LAUNCHER(gemm_never_ends) {
    gemm_on(stream, y, x, w, m, n, k);
    hipLaunchKernelGGL(never_ends, dim3(1), dim3(1), 0, stream, x);
    return status();
}

// More threads in a block than any device has.
LAUNCHER(gemm_in_a_block_too_large) {
    hipLaunchKernelGGL(gemm_kernel, dim3(1), dim3(2048), 0, stream, y, x, w, m, n, k);
    return status();
}

EXPORT int32_t gemm_by_atomic_sums(float* y, bf16* x, bf16* w, int32_t m, int32_t n, int32_t k, hipStream_t stream) {
    const int32_t parts = k / 2;
    hipLaunchKernelGGL(zero, blocks(m * n), dim3(kThreads), 0, stream, y, m * n);
    hipLaunchKernelGGL(add_parts, blocks(m * n * parts), dim3(kThreads), 0, stream, y, x, w, m, n, k, parts);
    return status();
}
