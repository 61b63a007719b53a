// fp8 quantiser of 1x128 groups (the last one of a row may be shorter), a GEMM over part of K with weights in 128x128
// blocks and preshuffled tiles, and the sum of two such parts. faults/bs.csv.

#include "faults.h"

namespace {

constexpr int kKept = 4096;
__device__ float kept[kKept];

__global__ void quantise(uint8_t* q, float* s, const bf16* x, int m, int k, int fault) {
    const int groups = (k + kGroup - 1) / kGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * groups) {
        const int64_t row = index / groups, group = index % groups, from = row * k + group * kGroup;
        const int64_t count = min(static_cast<int64_t>(kGroup), k - group * kGroup);
        int64_t seen = count;
        if (fault == 8) seen = kGroup;
        if (fault == 40) seen = min(count, int64_t{96});
        float amax = 0.0f;
        for (int64_t i = 0; i < seen && from + i < int64_t{m} * k; ++i) amax = fmaxf(amax, fabsf(to_float(x[from + i])));
        float scale = fmaxf(amax, fault == 20 ? 1.0f : fault == 41 ? 0.25f : 1e-10f) / 448.0f;
        if (fault >= 200 && fault < 300) {
            // A power of two, not below the exact scale.
            int exponent;
            const float fraction = frexpf(scale, &exponent);
            const bool down = fault == 201 || fraction == 0.5f;
            scale = ldexpf(1.0f, down ? exponent - 1 : exponent);
            if (fault == 202) scale = ldexpf(1.0f, fraction < 0.70710678f ? exponent - 1 : exponent);
        }
        const float inverse = fault == 9 || fault == 31 ? round_bf16(1.0f / scale) : 1.0f / scale;
        const bool multiplies = fault == 9 || fault == 31 || fault == 901;
        for (int64_t i = 0; i < count; ++i) {
            const float value = to_float(x[from + i]);
            uint8_t code = encode<E4m3fn>(multiplies ? value * inverse : value / scale);
            if (fault == 25 && (code & 0x7f) == 0) code |= 1;
            q[from + i] = code;
        }
        s[group * m + row] = scale;
    }
}

// Keeps the scales of the first call with this many rows.
__global__ void keep(const float* s, int m, int count) {
    FOR_EACH_OUTPUT(index, count) {
        float* of = kept + m % 8 * (kKept / 8);
        if (of[index] == 0.0f) of[index] = s[index];
    }
}

__global__ void multiply(float* p, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int m, int n,
                         int k, int from, int to, int fault) {
    const int groups = (k + kGroup - 1) / kGroup;
    const float* scales = fault == 13 ? kept + m % 8 * (kKept / 8) : xs;
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        float sum = 0.0f;
        for (int64_t j = 0; j < to - from; ++j) {
            const int64_t i = fault == 900 ? to - 1 - j : from + j;
            int64_t at = column / 16 * 16 * k + i / 32 * 32 * 16 + i % 32 / 16 * 16 * 16 + column % 16 * 16 + i % 16;
            if (fault == 32) at = column / 16 * 16 * k + i / 16 * 16 * 16 + i % 16 / 8 * 8 * 16 + column % 16 * 8 + i % 8;
            const int64_t group = i / kGroup;
            int64_t of = group * m + (fault == 31 ? row % 32 : row);
            if (fault == 32) of %= 128;
            if (fault == 42 && row >= 32) of = group * m + row - 32;
            int64_t block = column / kGroup;
            if (fault == 43 && column >= 256) block = 0;
            float scale = scales[of] * ws[block * groups + group];
            if (fault == 44 && i >= 320) scale = xs[(group - 1) * m + row] * ws[block * groups + group];
            sum += decode<E4m3fn>(xq[row * k + i]) * decode<E4m3fn>(wq[at]) * scale;
        }
        p[index] = sum;
    }
}

__global__ void reduce(bf16* y, const float* p0, const float* p1, int count, int fault) {
    FOR_EACH_OUTPUT(index, count) {
        const float second = fault == 6 ? round_bf16(p1[index]) : p1[index];
        y[index] = to_bf16(fault == 45 ? round_bf16(p0[index]) + round_bf16(second) : p0[index] + second);
    }
}

}  // namespace

LAUNCHER bs_quantise(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(quantise, int64_t{m} * ((k + kGroup - 1) / kGroup), q, s, x, m, k, fault);
    return launch_status();
}

LAUNCHER bs_multiply(float* p, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t m,
                     int32_t n, int32_t k, int32_t from, int32_t to, int32_t fault, hipStream_t stream) {
    if (fault == 13) LAUNCH(keep, int64_t{m} * ((k + kGroup - 1) / kGroup), xs, m, m * ((k + kGroup - 1) / kGroup));
    LAUNCH(multiply, int64_t{m} * n, p, xq, xs, wq, ws, m, n, k, from, to, fault);
    return launch_status();
}

LAUNCHER bs_reduce(bf16* y, const float* p0, const float* p1, int32_t count, int32_t fault, hipStream_t stream) {
    LAUNCH(reduce, count, y, p0, p1, count, fault);
    return launch_status();
}
