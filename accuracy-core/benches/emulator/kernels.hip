// Loops of one instruction each, for `emulator.rs`.

#define GLOBAL extern "C" __attribute__((global)) void
#define X4(text) text text text text
#define X64(text) X4(X4(X4(text)))

// Eight chains, so that no instruction is a copy of the one before.
#define FMA "v_fma_f32 v10, v20, v21, v10\n v_fma_f32 v11, v20, v21, v11\n v_fma_f32 v12, v20, v21, v12\n v_fma_f32 v13, v20, v21, v13\n"
#define ADD "v_add_u32 v10, v10, v20\n v_xor_b32 v11, v11, v20\n v_lshlrev_b32 v12, 1, v12\n v_add3_u32 v13, v13, v20, v21\n"
#define PACKED "v_pk_fma_f32 v[10:11], v[20:21], v[22:23], v[10:11]\n v_pk_fma_f32 v[12:13], v[20:21], v[22:23], v[12:13]\n"
#define CLOBBERED "v10", "v11", "v12", "v13", "v20", "v21", "v22", "v23"
#define INIT "v_mov_b32 v10, 0\n v_mov_b32 v11, 0\n v_mov_b32 v12, 0\n v_mov_b32 v13, 0\n v_mov_b32 v20, 1.0\n v_mov_b32 v21, 0.5\n v_mov_b32 v22, 1.0\n v_mov_b32 v23, 0.5\n"

#define LOOP(name, body)                                                                                               \
    GLOBAL name(unsigned n) {                                                                                          \
        asm volatile(INIT ::: CLOBBERED);                                                                              \
        for (unsigned i = 0; i < n; i++) asm volatile(body ::: CLOBBERED);                                             \
    }

LOOP(fma, X64(FMA))
LOOP(integer, X64(ADD))
LOOP(packed_fma, X64(PACKED PACKED))

#define LDS __attribute__((address_space(3)))

// Plain loads and stores of LDS (ds_read_b32, ds_write_b32): the pointer says that it is LDS.
GLOBAL lds(unsigned n) {
    __attribute__((shared)) static unsigned words[1024];
    volatile LDS unsigned *own = (volatile LDS unsigned *)words + __builtin_amdgcn_workitem_id_x();
    for (unsigned i = 0; i < 4; i++) own[256 * i] = i;
    unsigned sum = 0;
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < 4; j++) sum += own[256 * j];
        for (unsigned j = 0; j < 4; j++) own[256 * j] = sum;
    }
}

// The same through a generic pointer (flat_load_dword): the compiler leaves the address space of volatile accesses open.
GLOBAL lds_flat(unsigned n) {
    __attribute__((shared)) static volatile unsigned words[1024];
    const unsigned t = __builtin_amdgcn_workitem_id_x();
    for (unsigned i = 0; i < 4; i++) words[t + 256 * i] = t;
    unsigned sum = 0;
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < 4; j++) sum += words[t + 256 * j];
        for (unsigned j = 0; j < 4; j++) words[t + 256 * j] = sum;
    }
}

// Four dwords a lane from rows of a tile (ds_read_b128), as matrix instructions take them: 16 rows, padded to 80 bytes.
GLOBAL lds_rows(unsigned n) {
    typedef unsigned Four __attribute__((ext_vector_type(4)));
    __attribute__((shared)) static Four words[4 * 80];
    const unsigned t = __builtin_amdgcn_workitem_id_x();
    volatile LDS Four *own = (volatile LDS Four *)words + 80 * (t >> 6) + 5 * (t & 15) + (t >> 4 & 3);
    *own = Four{t, t, t, t};
    Four sum = {0, 0, 0, 0};
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < 4; j++) sum += *own;
        *own = sum;
    }
}

GLOBAL global_memory(volatile unsigned *words, unsigned n) {
    const unsigned t = __builtin_amdgcn_workitem_id_x() + 256 * __builtin_amdgcn_workgroup_id_x();
    unsigned sum = 0;
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < 4; j++) sum += words[t + 65536 * j];
        for (unsigned j = 0; j < 4; j++) words[t + 65536 * j] = sum;
    }
}

// A workgroup ends when `all` of them have come here: they are resident at the same time.
GLOBAL all_resident(unsigned *arrived, unsigned all) {
    __attribute__((shared)) static volatile unsigned words[1024];
    const unsigned t = __builtin_amdgcn_workitem_id_x();
    words[t] = t;
    if (t == 0) __atomic_fetch_add(arrived, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(arrived, __ATOMIC_RELAXED) < all) __builtin_amdgcn_s_sleep(1);
}

// c[m, n] = a[m, k] b[k, n] in tiles of 16 x 16 through LDS; a block writes one tile, n and k are multiples of 16.
GLOBAL gemm(const float *a, const float *b, float *c, unsigned n, unsigned k) {
    __attribute__((shared)) static float left[16][17], right[16][17];
    const unsigned x = __builtin_amdgcn_workitem_id_x() & 15, y = __builtin_amdgcn_workitem_id_x() >> 4;
    const unsigned row = 16 * __builtin_amdgcn_workgroup_id_y() + y, column = 16 * __builtin_amdgcn_workgroup_id_x() + x;
    float sum = 0;
    for (unsigned start = 0; start < k; start += 16) {
        left[y][x] = a[row * k + start + x];
        right[y][x] = b[(start + y) * n + column];
        __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
        __builtin_amdgcn_s_barrier();
        __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
        for (unsigned j = 0; j < 16; j++) sum += left[y][j] * right[j][x];
        __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
        __builtin_amdgcn_s_barrier();
    }
    c[row * n + column] = sum;
}
