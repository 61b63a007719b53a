// Kernels that the emulator's tests run. They need no header of HIP, so that clang alone compiles them.

#define GLOBAL extern "C" __attribute__((global)) void
#define SHARED __attribute__((shared))
#define DEVICE __attribute__((device))

DEVICE static unsigned thread() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE static unsigned block() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE static unsigned index(unsigned threads) { return block() * threads + thread(); }

GLOBAL add_one(float *y, const float *x, int n) {
    const unsigned i = index(256);
    if (i < n) y[i] = x[i] + 1.0f;
}

// One sum for each block of 256 threads, by halves in LDS.
GLOBAL block_sum(float *y, const float *x) {
    SHARED static float part[256];
    const unsigned t = thread();
    part[t] = x[index(256)];
    __builtin_amdgcn_s_barrier();
    for (unsigned half = 128; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "workgroup");
        __builtin_amdgcn_s_barrier();
    }
    if (t == 0) y[block()] = part[0];
}

// Each block adds its number plus one.
GLOBAL count(unsigned *total) {
    if (thread() == 0) __hip_atomic_fetch_add(total, block() + 1, __ATOMIC_SEQ_CST, __HIP_MEMORY_SCOPE_AGENT);
}

GLOBAL count_float(float *total) {
    __hip_atomic_fetch_add(total, 1.0f, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

// Every block but the last waits until the last one has raised the flag.
GLOBAL wait_for_the_last(unsigned *flag, unsigned *seen, unsigned blocks) {
    if (thread() != 0) return;
    if (block() == blocks - 1) {
        __hip_atomic_store(flag, 7u, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_AGENT);
    } else {
        while (__hip_atomic_load(flag, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_AGENT) != 7u) __builtin_amdgcn_s_sleep(1);
    }
    seen[block()] = 1;
}

GLOBAL wait_for_nobody(unsigned *flag) {
    while (__hip_atomic_load(flag, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_AGENT) != 7u) {
    }
}

GLOBAL read_null(float *y, const float *x) { y[thread()] = x[thread()]; }

GLOBAL write_at(float *y, long at) { y[at] = 1.0f; }

GLOBAL endless(unsigned *y, unsigned step) {
    unsigned n = 0;
    while (true) {
        n += step | 1;
        if (n == 0) *y += 1;
    }
}

DEVICE __attribute__((noinline)) unsigned deeper(unsigned n, volatile unsigned *p) {
    volatile unsigned room[64];
    room[n % 64] = *p;
    return n == 0 ? room[0] : deeper(n - 1, p) + room[n % 64];
}

GLOBAL recurse(unsigned *y, unsigned n) { y[1] = deeper(n, y); }

GLOBAL big_lds(float *y) {
    SHARED static float part[16000];
    part[thread()] = y[thread()];
    __builtin_amdgcn_s_barrier();
    y[thread()] = part[63 - thread()];
}

GLOBAL trap(unsigned *y) {
    if (*y == 0) __builtin_trap();
}

// Values that depend on the float modes and on every lane: a division, a square root, an exponential.
GLOBAL functions(float *y, const float *x) {
    const unsigned i = thread();
    y[i] = 1.0f / x[i];
    y[64 + i] = __builtin_sqrtf(x[i]);
    y[128 + i] = __builtin_amdgcn_exp2f(x[i]);
    y[192 + i] = (float)(int)x[i];
}

DEVICE unsigned table[4] = {3, 1, 4, 1};

GLOBAL read_table(unsigned *y) { y[thread()] = table[thread() % 4]; }

struct Triple {
    double a;
    int b;
    unsigned short c;
};

GLOBAL arguments(double *y, Triple t, unsigned char d, long e) {
    y[0] = t.a;
    y[1] = t.b;
    y[2] = t.c;
    y[3] = d;
    y[4] = e;
}
