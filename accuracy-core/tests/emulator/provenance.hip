// Kernels of which is asked what flows into their elements, each next to one that takes other elements (`.._wrong`).

#define DEVICE __attribute__((device))
#define SHARED __attribute__((shared))
#define KERNEL extern "C" __attribute__((global, amdgpu_flat_work_group_size(64, 64))) void

static DEVICE unsigned thread() { return __builtin_amdgcn_workitem_id_x(); }
static DEVICE unsigned block() { return __builtin_amdgcn_workgroup_id_x(); }
static DEVICE unsigned bits(float x) { return __builtin_bit_cast(unsigned, x); }
#define barrier()                                                                                                      \
    (__builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"), __builtin_amdgcn_s_barrier(),                              \
     __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup"))

// y[r, c] = x[r, c] * s[r], with rows of 64.
KERNEL scaled(float *y, const float *x, const float *s) {
    const unsigned i = block() * 64 + thread();
    y[i] = x[i] * s[block()];  // scaled
}

KERNEL scaled_wrong(float *y, const float *x, const float *s) {
    const unsigned i = block() * 64 + thread();
    y[i] = x[i] * s[block() + 1];
}

// y[r] = sum of x[r, k] * w[k] over 40.
KERNEL dot(float *y, const float *x, const float *w) {
    float sum = 0;
    for (int k = 0; k < 40; ++k) sum += x[thread() * 40 + k] * w[k];
    y[thread()] = sum;
}

KERNEL dot_wrong(float *y, const float *x, const float *w) {
    float sum = 0;
    for (int k = 0; k < 32; ++k) sum += x[thread() * 40 + k] * w[k];
    y[thread()] = sum;
}

// y[r, c] = x[r, c] * w[expert[r], c].
KERNEL routed(float *y, const float *x, const float *w, const int *expert) {
    const unsigned i = block() * 64 + thread();
    y[i] = x[i] * w[expert[block()] * 64 + thread()];
}

KERNEL routed_wrong(float *y, const float *x, const float *w, const int *expert) {
    const unsigned i = block() * 64 + thread();
    y[i] = x[i] * w[(expert[block()] ^ 1) * 64 + thread()];
}

// y = a * b.
KERNEL product(float *y, const float *a, const float *b) { y[thread()] = a[thread()] * b[thread()]; }
KERNEL product_wrong(float *y, const float *a, const float *b) { y[thread()] = a[thread()] * a[thread()]; }

// The other way round, through LDS.
KERNEL reversed(float *y, const float *x) {
    SHARED static volatile float s[64];
    s[thread()] = x[thread()];
    barrier();
    y[thread()] = s[63 - thread()];
}

KERNEL reversed_wrong(float *y, const float *x) {
    SHARED static volatile float s[64];
    s[thread()] = x[thread()];
    barrier();
    y[thread()] = s[(64 - thread()) & 63];
}

// Y = A B with A of 16 rows and 4 columns, B of 4 rows and 16 columns, on the matrix cores.
typedef float float4 __attribute__((ext_vector_type(4)));

static DEVICE void matrix_of(float *y, const float *a, const float *b, unsigned row) {
    const unsigned t = thread();
    const float4 d = __builtin_amdgcn_mfma_f32_16x16x4f32(a[row * 4 + t / 16], b[t / 16 * 16 + t % 16], float4{}, 0, 0, 0);
    for (unsigned r = 0; r < 4; ++r) y[(4 * (t / 16) + r) * 16 + t % 16] = d[r];
}

KERNEL matrix(float *y, const float *a, const float *b) { matrix_of(y, a, b, thread() % 16); }
KERNEL matrix_wrong(float *y, const float *a, const float *b) { matrix_of(y, a, b, (thread() + 1) % 16); }

// Two elements of 16 bits in a dword.
KERNEL packed(unsigned *y, const float *x) {
    y[thread()] = bits(x[2 * thread()]) >> 16 | bits(x[2 * thread() + 1]) & 0xffff0000;
}

KERNEL packed_wrong(unsigned *y, const float *x) {
    y[thread()] = bits(x[2 * thread() + 1]) >> 16 | bits(x[2 * thread()]) & 0xffff0000;
}

// The largest of 16 lanes, by values that go from lane to lane.
KERNEL largest(float *y, const float *x) {
    float m = x[thread()];
    for (unsigned by = 8; by > 0; by /= 2) {
        const int from = (thread() ^ by) * 4;
        m = __builtin_fmaxf(m, __builtin_bit_cast(float, __builtin_amdgcn_ds_bpermute(from, bits(m))));
    }
    y[thread()] = m;
}

// Lane 3 gives nothing.
KERNEL largest_wrong(float *y, const float *x) {
    float m = thread() == 3 ? 0.0f : x[thread()];
    for (unsigned by = 8; by > 0; by /= 2) {
        const int from = (thread() ^ by) * 4;
        m = __builtin_fmaxf(m, __builtin_bit_cast(float, __builtin_amdgcn_ds_bpermute(from, bits(m))));
    }
    y[thread()] = m;
}

// Workgroups leave parts in memory that no test declares; another launch sums them.
KERNEL parts(float *y, const float *x, float *scratch) { scratch[block() * 64 + thread()] = x[block() * 64 + thread()]; }

KERNEL sum(float *y, const float *x, float *scratch) {
    float all = 0;
    for (int i = 0; i < 3; ++i) all += scratch[i * 64 + thread()];
    y[thread()] = all;
}

KERNEL sum_wrong(float *y, const float *x, float *scratch) {
    float all = 0;
    for (int i = 0; i < 2; ++i) all += scratch[i * 64 + thread()];
    y[thread()] = all;
}

// Workgroups add to the same elements.
KERNEL added(float *y, const float *x) {
    __hip_atomic_fetch_add(y + thread(), x[block() * 64 + thread()], __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

// Workgroups add to the same elements of memory that no test declares; another launch reads them.
KERNEL add_to_scratch(float *y, const float *x, float *scratch) {
    __hip_atomic_fetch_add(scratch + thread(), x[block() * 64 + thread()], __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

KERNEL from_scratch(float *y, const float *x, float *scratch) { y[thread()] = scratch[thread()]; }

// y = x where the flag of the row is set, else 1: by a branch of the whole wave, and of each thread.
KERNEL branched(float *y, const float *x, const int *flag) {
    float value = 1.0f;
    if (__builtin_amdgcn_readfirstlane(flag[block()]) != 0) {
        value = x[thread()];
        asm volatile("; kept a branch");
    }
    y[block() * 64 + thread()] = value;
}

KERNEL branched_by_thread(float *y, const float *x, const int *flag) {
    float value = 1.0f;
    if (flag[thread()] != 0) {
        value = x[thread()] + 2.0f;
        asm volatile("; kept a branch" : "+v"(value));
    }
    y[thread()] = value;
}

// Nothing that is loaded decides: the last thread leaves early.
KERNEL bounded(float *y, const float *x, const int *flag) {
    if (thread() >= 63) return;
    y[thread()] = x[thread()] + static_cast<float>(flag[thread()]);
}
