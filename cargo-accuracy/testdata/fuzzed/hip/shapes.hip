// bf16 GEMMs, y[m, n] = sum over k of x[m, k] w[n, k], each of which goes wrong in some shapes alone.

#include <cstdint>
#include <cstring>

#define GEMM(name)                                                                     \
    extern "C" __attribute__((visibility("default"))) int32_t name(                    \
        uint16_t* y, uint16_t* x, uint16_t* w, int32_t m, int32_t n, int32_t k, void*)

static float to_float(uint16_t x) {
    uint32_t bits = uint32_t{x} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void multiply(uint16_t* y, uint16_t* x, uint16_t* w, int32_t m, int32_t n, int32_t k, int32_t used) {
    for (int32_t row = 0; row < m; ++row) {
        for (int32_t column = 0; column < n; ++column) {
            float sum = 0.0f;
            for (int32_t i = 0; i < used; ++i) sum += to_float(x[row * k + i]) * to_float(w[column * k + i]);
            y[row * n + column] = to_bf16(sum);
        }
    }
}

GEMM(gemm) {
    multiply(y, x, w, m, n, k, k);
    return 0;
}

// Leaves out the rows behind the last whole tile, where there are more than 33 rows.
GEMM(gemm_without_a_tail_of_rows) {
    int32_t rows = m > 33 ? m / 16 * 16 : m;
    multiply(y, x, w, rows, n, k, k);
    return 0;
}

// Reads far behind its input, in most shapes of more than 20 rows.
GEMM(gemm_that_reads_behind_large_inputs) {
    multiply(y, x, w, m, n, k, k);
    const volatile uint16_t* behind = x + int64_t{m} * k;
    if (m > 20 && m % 16 != 1) (void)behind[int64_t{1} << 32];
    return 0;
}

// Takes a K of fewer than 192 for one of 64.
GEMM(gemm_of_a_short_k) {
    multiply(y, x, w, m, n, k, k < 192 ? 64 : k);
    return 0;
}

// For whole tiles only, which it says.
GEMM(gemm_of_whole_tiles) {
    if (m % 16 != 0) return 2;
    multiply(y, x, w, m, n, k, k);
    return 0;
}

// Needs what an earlier launch leaves.
GEMM(gemm_wrong_at_first) {
    static bool ready = false;
    multiply(y, x, w, m, n, k, ready ? k : k - 32);
    ready = true;
    return 0;
}

// Keeps the largest input that it has met, and is wrong for what is much smaller.
GEMM(gemm_that_keeps_a_maximum) {
    static float most = 0.0f;
    for (int32_t i = 0; i < m * k; ++i) {
        float value = to_float(x[i]);
        if (value < 0) value = -value;
        if (value > most) most = value;
    }
    // Rows of ordinary size are cut short once a much larger one has been there.
    for (int32_t row = 0; row < m; ++row) {
        float largest = 0.0f;
        for (int32_t i = 0; i < k; ++i) {
            float value = to_float(x[row * k + i]);
            largest = largest > value ? largest : value;
        }
        multiply(y + row * n, x + row * k, w, 1, n, k, largest < most / 1e4f ? k - 32 : k);
    }
    return 0;
}
