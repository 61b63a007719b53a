// bf16 GEMMs, y[m, n] = sum over k of x[m, k] w[n, k]: a right one, and one for each way to go wrong that needs no
// knowledge of the data.

#include <cfenv>
#include <csignal>
#include <cstdint>
#include <cstring>

#define LAUNCHER extern "C" __attribute__((visibility("default"))) int32_t

using bf16 = uint16_t;

static float to_float(bf16 x) {
    uint32_t bits = uint32_t{x} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static bf16 to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bf16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void multiply(bf16* y, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k) {
    for (int32_t row = 0; row < m; ++row) {
        for (int32_t column = 0; column < n; ++column) {
            float sum = 0.0f;
            for (int32_t i = 0; i < k; ++i) sum += to_float(x[row * k + i]) * to_float(w[column * k + i]);
            y[row * n + column] = to_bf16(sum);
        }
    }
}

#define GEMM(name) LAUNCHER name(bf16* y, bf16* x, bf16* w, int32_t m, int32_t n, int32_t k, void*)

GEMM(gemm) {
    multiply(y, x, w, m, n, k);
    return 0;
}

GEMM(gemm_refuses) {
    return 2;
}

GEMM(gemm_with_nan) {
    multiply(y, x, w, m, n, k);
    y[n + 3] = 0x7fc0;
    return 0;
}

GEMM(gemm_writes_nothing) {
    return 0;
}

GEMM(gemm_without_the_last_column) {
    for (int32_t row = 0; row < m; ++row) {
        for (int32_t column = 0; column < n - 1; ++column) {
            multiply(y + row * n + column, x + row * k, w + column * k, 1, 1, k);
        }
    }
    return 0;
}

GEMM(gemm_past_the_end) {
    multiply(y, x, w, m, n, k);
    y[m * n] = 0x3f80;
    return 0;
}

// Reads a little behind its input, and uses nothing of it.
GEMM(gemm_reads_past_the_end) {
    multiply(y, x, w, m, n, k);
    const volatile bf16* behind = x + m * k;
    for (int i = 0; i < 256; ++i) (void)behind[i];
    return 0;
}

GEMM(gemm_before_the_start) {
    multiply(y, x, w, m, n, k);
    y[-1] = 0x3f80;
    return 0;
}

GEMM(gemm_modifies_its_input) {
    multiply(y, x, w, m, n, k);
    x[1] = to_bf16(to_float(x[1]) + 1.0f);
    return 0;
}

// As an unordered reduction would: the same sum, rounded the other way now and then.
GEMM(gemm_never_twice_the_same) {
    static int32_t calls = 0;
    multiply(y, x, w, m, n, k);
    y[++calls % (m * n)] ^= 1;
    return 0;
}

// Keeps the number of rows of its first call.
GEMM(gemm_of_the_first_shape) {
    static const int32_t rows = m;
    multiply(y, x, w, rows < m ? rows : m, n, k);
    return 0;
}

// beta = 0, and what lies in y is read all the same.
GEMM(gemm_times_zero) {
    for (int32_t row = 0; row < m; ++row) {
        for (int32_t column = 0; column < n; ++column) {
            const float before = to_float(y[row * n + column]);
            bf16 product;
            multiply(&product, x + row * k, w + column * k, 1, 1, k);
            y[row * n + column] = to_bf16(to_float(product) + 0.0f * before);
        }
    }
    return 0;
}

GEMM(gemm_rounds_upward) {
    multiply(y, x, w, m, n, k);
    std::fesetround(FE_UPWARD);
    return 0;
}

GEMM(gemm_handles_a_signal) {
    multiply(y, x, w, m, n, k);
    std::signal(SIGFPE, SIG_IGN);
    return 0;
}
