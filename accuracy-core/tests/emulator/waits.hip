// Kernels whose loads the compiler waits for, for every way to load into a register. One workgroup of 64 threads each.

typedef float float16 __attribute__((ext_vector_type(16)));
typedef _Float16 half4 __attribute__((ext_vector_type(4)));

#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(64, 64))) void

static __attribute__((device)) unsigned lane() { return __builtin_amdgcn_workitem_id_x(); }

// Scalar loads of arguments, a global load that depends on one before it.
KERNEL through_a_table(float* y, const float* x, const unsigned* table) { y[lane()] = x[table[lane()]] * 2.0f; }

// Loads in a row, each used as soon as it is there.
KERNEL in_a_row(float* y, const float* x) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = sum * 0.5f + x[lane() + 64 * i];
    y[lane()] = sum;
}

// A scalar load whose address was loaded.
KERNEL scalar_chain(float* y, const float* const* x) { y[lane()] = x[0][3] + x[1][5]; }

// Through shared memory, in another order.
KERNEL through_lds(float* y, const float* x) {
    __attribute__((shared)) static float shared[64];
    shared[lane()] = x[lane()];
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
    y[lane()] = shared[63 - lane()] + shared[lane() ^ 1];
}

// A lane's value comes from another lane, by way of LDS hardware.
KERNEL permuted(float* y, const float* x) {
    const int value = __builtin_bit_cast(int, x[lane()]);
    y[lane()] = __builtin_bit_cast(float, __builtin_amdgcn_ds_bpermute(static_cast<int>((lane() ^ 5) * 4), value));
}

// Atomics that return what was there.
KERNEL counted(float* y, unsigned* x) {
    y[lane()] = static_cast<float>(__atomic_fetch_add(x + lane(), 3u, __ATOMIC_RELAXED));
}

// A matrix product of what was just loaded.
KERNEL multiplied(float* y, const half4* x) {
    float16 sum = {};
    sum = __builtin_amdgcn_mfma_f32_32x32x8f16(x[lane()], x[lane() + 64], sum, 0, 0, 0);
    for (int i = 0; i < 16; ++i) y[lane() * 16 + i] = sum[i];
}
