// Kernels whose waves or workgroups race, each next to the same kernel without the race. Lines of the accesses that race
// have the kernel's name behind them.

#define DEVICE __attribute__((device))
#define SHARED __attribute__((shared))
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(64, 256))) void

static DEVICE unsigned thread() { return __builtin_amdgcn_workitem_id_x(); }
static DEVICE unsigned block() { return __builtin_amdgcn_workgroup_id_x(); }
static DEVICE void barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

// What one wave writes in LDS is read by another.
KERNEL through_lds(float *y, float *z, const float *x, unsigned *flags) {
    SHARED static float s[256];
    s[thread()] = x[thread()];  // through_lds
    y[thread()] = s[255 - thread()];  // through_lds
}

KERNEL through_lds_ordered(float *y, float *z, const float *x, unsigned *flags) {
    SHARED static float s[256];
    s[thread()] = x[thread()];
    barrier();
    y[thread()] = s[255 - thread()];
}

// A tile is filled again while others still read it.
KERNEL tile_again(float *y, float *z, const float *x, unsigned *flags) {
    SHARED static float s[256];
    float sum = 0.0f;
    for (unsigned i = 0; i < 4; i++) {
        s[thread()] = x[256 * i + thread()];  // tile_again
        barrier();
        sum += s[255 - thread()];  // tile_again
    }
    y[thread()] = sum;
}

KERNEL tile_again_ordered(float *y, float *z, const float *x, unsigned *flags) {
    SHARED static float s[256];
    float sum = 0.0f;
    for (unsigned i = 0; i < 4; i++) {
        s[thread()] = x[256 * i + thread()];
        barrier();
        sum += s[255 - thread()];
        barrier();
    }
    y[thread()] = sum;
}

// Through global memory, within a workgroup.
KERNEL through_memory(float *y, float *z, const float *x, unsigned *flags) {
    y[thread()] = x[thread()] + 1.0f;  // through_memory
    __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent");
    z[thread()] = y[255 - thread()];  // through_memory
}

KERNEL through_memory_ordered(float *y, float *z, const float *x, unsigned *flags) {
    y[thread()] = x[thread()] + 1.0f;
    barrier();
    z[thread()] = y[255 - thread()];
}

// A workgroup reads what another one writes.
KERNEL other_block(float *y, float *z, const float *x, unsigned *flags) {
    y[64 * block() + thread()] = x[thread()] + block();  // other_block
    z[64 * block() + thread()] = y[64 * (block() ^ 1) + thread()];  // other_block
}

KERNEL other_block_ordered(float *y, float *z, const float *x, unsigned *flags) {
    y[64 * block() + thread()] = x[thread()] + block();
    z[64 * block() + thread()] = y[64 * block() + (thread() ^ 1)];
}

// Two workgroups write other values to one place.
KERNEL same_place(float *y, float *z, const float *x, unsigned *flags) {
    y[thread()] = x[thread()] + block();  // same_place
}

KERNEL same_place_ordered(float *y, float *z, const float *x, unsigned *flags) { y[thread()] = x[thread()] + 1.0f; }

// The last workgroup adds up what all have written. The ticket makes known what was waited for.
KERNEL last_block(float *y, float *z, const float *x, unsigned *flags) {
    if (thread() == 0) y[block()] = x[block()] + 1.0f;  // last_block
    unsigned ticket = 0;
    if (thread() == 0) ticket = __hip_atomic_fetch_add(flags, 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    if (thread() == 0 && ticket == 3) {
        float sum = 0.0f;
        for (unsigned i = 0; i < 4; i++) sum += y[i];  // last_block
        z[0] = sum;
    }
}

KERNEL last_block_ordered(float *y, float *z, const float *x, unsigned *flags) {
    if (thread() == 0) y[block()] = x[block()] + 1.0f;
    unsigned ticket = 0;
    if (thread() == 0) ticket = __hip_atomic_fetch_add(flags, 1u, __ATOMIC_ACQ_REL, __HIP_MEMORY_SCOPE_AGENT);
    if (thread() == 0 && ticket == 3) {
        float sum = 0.0f;
        for (unsigned i = 0; i < 4; i++) sum += y[i];
        z[0] = sum;
    }
}

// A workgroup waits for another one's flag.
KERNEL flag(float *y, float *z, const float *x, unsigned *flags) {
    if (block() == 0) {
        y[thread()] = x[thread()] + 1.0f;  // flag
        if (thread() == 0) __hip_atomic_store(flags, 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    } else {
        while (__hip_atomic_load(flags, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_AGENT) == 0u) {}
        z[thread()] = y[thread()];  // flag
    }
}

KERNEL flag_ordered(float *y, float *z, const float *x, unsigned *flags) {
    if (block() == 0) {
        y[thread()] = x[thread()] + 1.0f;
        if (thread() == 0) __hip_atomic_store(flags, 1u, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_AGENT);
    } else {
        while (__hip_atomic_load(flags, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_AGENT) == 0u) {}
        z[thread()] = y[thread()];
    }
}

// A wave waits for another wave's flag in LDS: to the machine both are plain accesses.
KERNEL flag_in_lds_ordered(float *y, float *z, const float *x, unsigned *flags) {
    SHARED static float s[64];
    SHARED static unsigned ready;
    if (thread() == 0) __hip_atomic_store(&ready, 0u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    barrier();
    if (thread() < 64) {
        s[thread()] = x[thread()];
        __hip_atomic_store(&ready, 1u, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_WORKGROUP);
    } else {
        while (__hip_atomic_load(&ready, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_WORKGROUP) == 0u) {}
        y[thread()] = s[thread() % 64];
    }
}

// Bytes of one dword belong to several threads.
KERNEL bytes(unsigned char *y, float *z, const float *x, unsigned *flags) {
    y[(2 * thread() + block()) % 255] = (unsigned char)(x[thread()] + 3 * block() + 1);  // bytes
}

KERNEL bytes_ordered(unsigned char *y, float *z, const float *x, unsigned *flags) {
    y[2 * thread() + block() % 2] = (unsigned char)(x[thread()] + 3 * block());
}

// All waves write the same value, and all add to one sum.
KERNEL agreed_ordered(float *y, float *z, const float *x, unsigned *flags) {
    SHARED static float scale;
    scale = x[5];
    barrier();
    y[256 * block() + thread()] = scale * x[thread()];
    __hip_atomic_fetch_add(flags + 1, thread(), __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

typedef __attribute__((address_space(1))) void *Global;
typedef __attribute__((address_space(3))) void *Local;

// Out of global memory straight into LDS: another wave may read it once it was waited for before the barrier.
KERNEL transfer(float *y, float *z, const float *x, unsigned *flags) {
    SHARED static float s[256];
    __builtin_amdgcn_global_load_lds((Global)(x + thread()), (Local)(s + thread() / 64 * 64), 4, 0, 0);  // transfer
    __builtin_amdgcn_s_barrier();
    y[thread()] = s[255 - thread()];  // transfer
}

KERNEL transfer_ordered(float *y, float *z, const float *x, unsigned *flags) {
    SHARED static float s[256];
    __builtin_amdgcn_global_load_lds((Global)(x + thread()), (Local)(s + thread() / 64 * 64), 4, 0, 0);
    __builtin_amdgcn_s_waitcnt(0x0f70);
    __builtin_amdgcn_s_barrier();
    y[thread()] = s[255 - thread()];
}
