// LayerNorm times a smoothing factor quantised to int8 with a scale for each token, then an int8 GEMM whose weights have
// zero points, with bias and GELU. faults/sq.csv.

#include "faults.h"

namespace {

__global__ void norm(int8_t* q, float* s, const bf16* x, const bf16* gain, const bf16* bias, const bf16* smooth,
                     float eps, int m, int k, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        const bf16* own = x + row * k;
        float sum = 0.0f, squares = 0.0f, deviations = 0.0f;
        const int seen = fault == 42 ? k / 2 : k;
        for (int i = 0; i < seen; ++i) sum += to_float(own[i]);
        const float mean = sum / static_cast<float>(fault == 42 ? seen : k);
        for (int i = 0; i < k; ++i) {
            const float value = to_float(own[i]);
            squares += value * value;
            deviations += (value - mean) * (value - mean);
        }
        float variance = deviations / static_cast<float>(fault == 4 ? k - 1 : k);
        if (fault == 5) variance = squares / static_cast<float>(k);
        const float inverse = 1.0f / sqrtf(variance + eps);
        const auto value = [&](int i) {
            const float normed = (to_float(own[i]) - (fault == 23 ? 0.0f : mean)) * inverse * to_float(gain[i]);
            const float b = to_float(bias[i]), f = to_float(smooth[fault == 43 && i > 0 ? i - 1 : i]);
            if (fault == 24) return normed * f + b;
            return fault == 6 ? (normed + b) / f : (normed + b) * f;
        };
        float amax = 0.0f;
        for (int i = 0; i < k; ++i) amax = fmaxf(amax, fabsf(value(i)));
        const float scale = amax > 0.0f ? amax / 127.0f : 1.0f;
        for (int i = 0; i < k; ++i) q[row * k + i] = to_int8(value(i) / scale);
        s[row] = scale;
    }
}

__global__ void multiply(bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws,
                         const int8_t* zeros, const bf16* bias, int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        int dot = 0, total = 0;
        const int64_t summed = fault == 19 && row % 2 == 1 ? row - 1 : row;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            dot += xq[row * k + i] * wq[column * k + i];
            if (fault == 1 && i >= k / 64 * 64) continue;
            if (fault == 44 && i < 16) continue;
            total += xq[summed * k + i];
        }
        int zero = zeros[fault == 40 ? (column + 1) % n : column];
        if (fault == 21 && column >= 192) zero = 0;
        if (fault == 41 && row >= 32) zero = 0;
        const float scale = xs[row] * ws[column];
        float value = static_cast<float>(dot - zero * total) * scale;
        if (fault == 2) value = static_cast<float>(dot) * scale - static_cast<float>(zero * total) * ws[column];
        value += to_float(bias[column]);
        float gelu = 0.5f * value * (1.0f + erff(value * 0.70710678f));
        if (fault == 3 || fault == 21) {
            gelu = 0.5f * value * (1.0f + tanhf(0.79788456f * (value + 0.044715f * value * value * value)));
        }
        y[index] = to_bf16(gelu);
    }
}

}  // namespace

LAUNCHER sq_norm(int8_t* q, float* s, const bf16* x, const bf16* gain, const bf16* bias, const bf16* smooth, float eps,
                 int32_t m, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(norm, m, q, s, x, gain, bias, smooth, eps, m, k, fault);
    return launch_status();
}

LAUNCHER sq_multiply(bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws, const int8_t* zeros,
                     const bf16* bias, int32_t m, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, y, xq, xs, wq, ws, zeros, bias, m, n, k, fault);
    return launch_status();
}
