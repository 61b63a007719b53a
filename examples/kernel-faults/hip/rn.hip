// A residual that is added in place, its RMSNorm quantised to fp8 with a scale for each token, and a GEMM with a bias.
// faults/rn.csv.

#include "faults.h"

namespace {

__global__ void norm(bf16* residual, uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int m, int k,
                     int fault) {
    FOR_EACH_OUTPUT(row, m) {
        bf16* own = residual + row * k;
        const bf16* add = x + row * k;
        for (int i = 0; i < k; ++i) own[i] = to_bf16(to_float(own[i]) + to_float(add[i]));
        const auto value = [&](int i) { return to_float(own[i]) + (fault == 16 ? to_float(add[i]) : 0.0f); };
        float squares = 0.0f;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            if (fault == 12 && i % 128 >= 64) continue;
            if (fault == 41 && i >= k / 64 * 64 - 64) continue;
            squares += value(i) * value(i);
        }
        const float count = static_cast<float>(fault == 40 ? k - 1 : fault == 42 ? 512 : k);
        const float inverse = 1.0f / sqrtf(squares / count + eps);
        const auto normed = [&](int i) {
            const float of = value(i) * inverse, g = to_float(gain[fault == 43 && i > 0 ? i - 1 : i]);
            return (fault == 26 ? round_bf16(of) : of) * g;
        };
        float amax = 0.0f;
        for (int i = 0; i < k; ++i) {
            if (fault == 44 && i % 64 >= 32) continue;
            amax = fmaxf(amax, fabsf(normed(i)));
        }
        const float scale = amax > 0.0f ? amax / (fault == 25 ? 512.0f : 448.0f) : 1.0f;
        for (int i = 0; i < k; ++i) q[row * k + i] = encode<E4m3fn>(normed(i) / scale);
        s[row] = scale;
    }
}

__global__ void multiply(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                         const bf16* bias, int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        float sum = 0.0f;
        for (int i = 0; i < k; ++i) sum += decode<E4m3fn>(xq[row * k + i]) * decode<E4m3fn>(wq[column * k + i]);
        sum *= xs[fault == 45 && row >= 32 ? row - 32 : row] * ws[column];
        const int64_t at = fault == 9 ? row : fault == 46 ? column / 16 * 16 : column;
        y[index] = to_bf16((fault == 30 ? round_bf16(sum) : sum) + to_float(bias[at]));
    }
}

}  // namespace

LAUNCHER rn_norm(bf16* residual, uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int32_t m, int32_t k,
                 int32_t fault, hipStream_t stream) {
    LAUNCH(norm, m, residual, q, s, x, gain, eps, m, k, fault);
    return launch_status();
}

LAUNCHER rn_multiply(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, const bf16* bias,
                     int32_t m, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, y, xq, xs, wq, ws, bias, m, n, k, fault);
    return launch_status();
}
