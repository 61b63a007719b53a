// Kernels that show what a HIP kernel sees on the host; hip_host.rs says what they should see.

#include <hip/hip_runtime.h>

#define LAUNCHER extern "C" __attribute__((visibility("default"))) int32_t

namespace {

__device__ uint32_t thread_in_block() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

__device__ uint32_t first_of_block() {
    return blockDim.x * blockDim.y * blockDim.z * (blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
}

__global__ void count_visits(uint32_t* out) { atomicAdd(&out[first_of_block() + thread_in_block()], 1u); }

// Every round moves the block's values by one thread, through shared memory.
__global__ void rotate_in_block(uint32_t* out, int rounds) {
    __shared__ uint32_t values[1024];
    const uint32_t thread = thread_in_block(), threads = blockDim.x * blockDim.y * blockDim.z;
    uint32_t value = first_of_block() + thread;
    for (int round = 0; round < rounds; ++round) {
        values[thread] = value;
        __syncthreads();
        value = values[(thread + 1) % threads];
        __syncthreads();
    }
    out[first_of_block() + thread] = value;
}

// What a block finds in shared memory, and a thread in its own, before anything of it is set. The barrier of the compiler
// keeps it from making anything of that.
__global__ void what_is_left(uint32_t* shared, uint32_t* own) {
    __shared__ uint32_t values[8];
    uint32_t registers[8];
    __asm__ volatile("" : : "r"(registers), "r"(values) : "memory");
    shared[blockIdx.x] = values[3];
    own[first_of_block() + thread_in_block()] = registers[3];
    __asm__ volatile("" : : "r"(registers), "r"(values) : "memory");
    if (threadIdx.x + 1 == blockDim.x) values[3] = 7 + blockIdx.x;
    registers[3] = 42 + threadIdx.x;
    __asm__ volatile("" : : "r"(registers), "r"(values) : "memory");
}

__global__ void warp_operations(int* out) {
    const int thread = threadIdx.x, lane = thread % warpSize;
    int* row = out + thread;
    const auto put = [&](int value) {
        *row = value;
        row += blockDim.x;
    };
    put(__shfl(thread, 3, 16));
    put(__shfl_xor(thread, 5));
    put(__shfl_up(thread, 3, 32));
    put(__shfl_down(thread, 7, 32));
    put(static_cast<int>(2.0 * __shfl_xor(thread + 0.5, 1)));
    put(__popcll(__ballot(lane % 3 == 0)));
    put(__any(lane == 9) + 2 * __all(lane < 64) + 4 * __all(lane < 63));
    // A quarter of the lanes leaves the loop in each round, and waits behind it.
    int votes = 0;
    for (int round = 0; round <= lane % 4; ++round) votes += __popcll(__ballot(1));
    put(votes);
    put(__popcll(__ballot(1)));
    // The upper half of the block takes no part.
    if (thread < 32) put(__shfl_xor(thread, 32));
}

__global__ void sum_dynamic_shared(float* out, int count) {
    HIP_DYNAMIC_SHARED(float, values);
    if (threadIdx.x > 0) values[threadIdx.x] = threadIdx.x;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 1; i < count; ++i) sum += values[i];
    out[threadIdx.x] = threadIdx.x == 0 ? values[0] : sum;
}

__global__ void returns_before_barrier() {
    if (threadIdx.x >= 100) return;
    __syncthreads();
}

__global__ void two_barriers() {
    if (threadIdx.x < 100) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

}  // namespace

LAUNCHER launch_count_visits(uint32_t* out, const uint32_t* g, const uint32_t* b) {
    hipLaunchKernelGGL(count_visits, dim3(g[0], g[1], g[2]), dim3(b[0], b[1], b[2]), 0, nullptr, out);
    return hipGetLastError();
}

LAUNCHER launch_rotate_in_block(uint32_t* out, const uint32_t* g, const uint32_t* b, int rounds) {
    hipLaunchKernelGGL(rotate_in_block, dim3(g[0], g[1], g[2]), dim3(b[0], b[1], b[2]), 0, nullptr, out, rounds);
    return hipGetLastError();
}

LAUNCHER launch_what_is_left(uint32_t* shared, uint32_t* own, int blocks, int threads) {
    hipLaunchKernelGGL(what_is_left, dim3(blocks), dim3(threads), 0, nullptr, shared, own);
    return hipGetLastError();
}

LAUNCHER launch_warp_operations(int* out, int threads) {
    hipLaunchKernelGGL(warp_operations, dim3(1), dim3(threads), 0, nullptr, out);
    return hipGetLastError();
}

LAUNCHER launch_sum_dynamic_shared(float* out, int count, int bytes) {
    hipLaunchKernelGGL(sum_dynamic_shared, dim3(1), dim3(count), bytes, nullptr, out, count);
    return hipGetLastError();
}

LAUNCHER launch_divergent(bool return_early) {
    hipLaunchKernelGGL(return_early ? returns_before_barrier : two_barriers, dim3(1), dim3(128), 0, nullptr);
    return hipGetLastError();
}

extern "C" int32_t not_marked_for_export() { return 0; }
