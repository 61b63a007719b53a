// Kernels that do what no number shows, each next to the same kernel without the fault (`.._right`). The line at which the
// fault is told has the kernel's name behind it.

#define DEVICE __attribute__((device))
#define SHARED __attribute__((shared))
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(64, 256))) void

static DEVICE unsigned thread() { return __builtin_amdgcn_workitem_id_x(); }
// A macro, so that its line is the one at which it is used.
#define barrier()                                                                                                      \
    (__builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"), __builtin_amdgcn_s_barrier(),                              \
     __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup"))


// The last element of LDS is never written.
KERNEL lds_tail(float *y, const float *x, int n) {
    SHARED static volatile float s[128];
    if (thread() < n - 1) s[thread()] = x[thread()];
    barrier();
    y[thread()] = thread() < n ? s[thread()] : 0.0f;  // lds_tail
}

KERNEL lds_tail_right(float *y, const float *x, int n) {
    SHARED static volatile float s[128];
    if (thread() < n - 1) s[thread()] = x[thread()];
    barrier();
    // What is read and masked away is no fault.
    const float value = s[thread()];
    y[thread()] = thread() < n - 1 ? value : 0.0f;
}

// The sum begins with what is in LDS.
KERNEL lds_sum(float *y, const float *x, int n) {
    SHARED static volatile float sum;
    if (thread() == 0) sum = sum + x[0];
    barrier();
    y[thread()] = sum * x[thread()];  // lds_sum
}

KERNEL lds_sum_right(float *y, const float *x, int n) {
    SHARED static volatile float sum;
    if (thread() == 0) sum = 0.0f;
    barrier();
    if (thread() == 0) sum = sum + x[0];
    barrier();
    y[thread()] = sum * x[thread()];
}

// An accumulator that is not set to zero.
KERNEL accumulator(float *y, const float *x, int n) {
    float sum;
    asm volatile("; %0 is whatever it is" : "=v"(sum));
    for (int i = 0; i < 4; i++) sum += x[thread() + i];
    y[thread()] = sum;  // accumulator
}

KERNEL accumulator_right(float *y, const float *x, int n) {
    float sum;
    asm volatile("v_mov_b32 %0, 0" : "=v"(sum));
    for (int i = 0; i < 4; i++) sum += x[thread() + i];
    y[thread()] = sum;
}

// Private memory of a thread.
KERNEL scratch(float *y, const float *x, int n) {
    volatile float room[16];
    for (int i = 0; i < n % 16; i++) room[i] = x[i];
    y[thread()] = room[thread() % 16];  // scratch
}

KERNEL scratch_right(float *y, const float *x, int n) {
    volatile float room[16];
    for (int i = 0; i < 16; i++) room[i] = x[i];
    y[thread()] = room[thread() % 16];
}

// What is written depends on where a number leads that nobody wrote.
KERNEL address(float *y, const float *x, int n) {
    SHARED static volatile unsigned index[64];
    y[thread()] = x[index[thread() % 64] & 1023];
    y[thread()] += 1.0f;  // address
}

KERNEL address_right(float *y, const float *x, int n) {
    SHARED static volatile unsigned index[64];
    index[thread() % 64] = thread() % 64;
    y[thread()] = x[index[thread() % 64] & 1023];
    y[thread()] += 1.0f;
}

// A sum goes on from what is in memory.
KERNEL in_place(float *y, const float *x, int n) {
    y[thread()] += x[thread()];  // in_place
}

KERNEL in_place_right(float *y, const float *x, int n) { y[thread()] += x[thread()]; }

// Whole waves go round the barrier, and on.
KERNEL round_the_barrier(float *y, const float *x, int n) {
    SHARED static volatile float s[256];
    s[thread()] = x[thread()];
    if (__builtin_amdgcn_readfirstlane(thread() / 64) != 1) barrier();  // round_the_barrier
    y[thread()] = s[thread()];
}

KERNEL round_the_barrier_right(float *y, const float *x, int n) {
    SHARED static volatile float s[256];
    s[thread()] = x[thread()];
    // A wave may leave early.
    if (__builtin_amdgcn_readfirstlane(thread() / 64) == 1) return;
    barrier();
    y[thread()] = s[thread()];
}

// A loop with a barrier that some waves go round more often.
KERNEL loop_of_waves(float *y, const float *x, int n) {
    SHARED static volatile float s[256];
    const int times = __builtin_amdgcn_readfirstlane(thread() / 64) + 1;
    for (int i = 0; i < times; i++) {
        s[thread()] = x[thread() + i];
        barrier();  // loop_of_waves
        y[thread()] = s[thread()] + i;
    }
    y[256 + thread()] = 1.0f;
}

KERNEL loop_of_waves_right(float *y, const float *x, int n) {
    SHARED static volatile float s[256];
    for (int i = 0; i < n / 64; i++) {
        s[thread()] = x[thread() + i];
        barrier();
        y[thread()] = s[thread()] + i;
    }
}

// Only some threads of a wave come to the barrier.
KERNEL some_threads(float *y, const float *x, int n) {
    SHARED static volatile float s[256];
    s[thread()] = x[thread()];
    if (thread() % 64 < 40) barrier();  // some_threads
    y[thread()] = s[thread()];
}

KERNEL some_threads_right(float *y, const float *x, int n) {
    SHARED static volatile float s[256];
    // Threads may leave early.
    if (thread() % 64 >= 40) return;
    s[thread()] = x[thread()];
    barrier();
    y[thread()] = s[thread()];
}

typedef float float2 __attribute__((ext_vector_type(2)));

// An instruction that some devices compute wrongly.
KERNEL broadcast(float *y, const float *x, int n) {
    float2 sum = {0.0f, 0.0f};
    const float2 a = {x[thread()], x[thread() + 1]};
    asm volatile("v_pk_fma_f32 %0, %1, %1, %0 op_sel:[0,1,0] op_sel_hi:[1,1,1]" : "+v"(sum) : "v"(a));
    y[thread()] = sum.x + sum.y;
}

// Past the end of the declared buffer, in the same allocation.
KERNEL behind(float *y, const float *x, int n) {
    y[thread() + 1] = x[thread()];  // behind
}

KERNEL behind_right(float *y, const float *x, int n) { y[thread()] = x[thread()]; }

// Rows of 48 elements, 64 apart: a kernel that takes 64 of each writes the padding.
KERNEL padding(float *y, const float *x, int n) {
    y[thread()] = x[thread()];  // padding
}

KERNEL padding_right(float *y, const float *x, int n) {
    if (thread() % 64 < 48) y[thread()] = x[thread()];
}

// Lanes behind the end of the resource load zero.
KERNEL clamped(float *y, const float *x, int n) {
    const __amdgpu_buffer_rsrc_t r = __builtin_amdgcn_make_buffer_rsrc((void *)x, 0, 4 * (n - 1), 0x27000);
    y[thread()] = __builtin_bit_cast(float, __builtin_amdgcn_raw_buffer_load_b32(r, 4 * thread(), 0, 0));  // clamped
}

KERNEL clamped_right(float *y, const float *x, int n) {
    const __amdgpu_buffer_rsrc_t r = __builtin_amdgcn_make_buffer_rsrc((void *)x, 0, 4096, 0x27000);
    y[thread()] = __builtin_bit_cast(float, __builtin_amdgcn_raw_buffer_load_b32(r, 4 * thread(), 0, 0));
}

// y = x * x, square matrices of n rows, by tiles of 16: a workgroup of 256 threads for each tile of y.
KERNEL gemm(float *y, const float *x, int n) {
    SHARED static float a[16][16];
    SHARED static float b[16][16];
    const int row = thread() / 16, column = thread() % 16;
    const int top = 16 * (__builtin_amdgcn_workgroup_id_x() / (n / 16)), left = 16 * (__builtin_amdgcn_workgroup_id_x() % (n / 16));
    float sum = 0.0f;
    for (int k = 0; k < n; k += 16) {
        a[row][column] = x[(top + row) * n + k + column];
        b[row][column] = x[(k + row) * n + left + column];
        barrier();
#pragma unroll
        for (int i = 0; i < 16; i++) sum += a[row][i] * b[i][column];
        barrier();
    }
    y[(top + row) * n + left + column] = sum;
}
