// A residual that is added in place, and its RMSNorm in two forms: bf16 for the gate of a router, and e4m3fn in groups of 128
// whose scales are powers of two, stored by columns padded to 4 rows, for a product with weights in blocks of 128 x 128.
// faults/a_nq.csv.

#include "faults.h"

namespace {

__device__ inline float power_of_two(float scale, bool by_bits) {
    if (by_bits) return __uint_as_float((__float_as_uint(scale) + 0x7fffff) & 0x7f800000);
    int exponent;
    const float fraction = frexpf(scale, &exponent);
    return ldexpf(1.0f, fraction == 0.5f ? exponent - 1 : exponent);
}

__global__ void norm(bf16* residual, bf16* h, uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int m,
                     int k, int fault) {
    const int groups = k / kGroup, stride = fault == 3 ? m : (m + 3) / 4 * 4;
    FOR_EACH_OUTPUT(row, m) {
        bf16* own = residual + row * k;
        const bf16* add = x + row * k;
        float squares = 0.0f, parts[4] = {}, sums[512];
        for (int i = 0; i < k; ++i) {
            const float before = to_float(own[i]), sum = before + to_float(add[i]);
            own[i] = to_bf16(sum);
            sums[i] = fault == 1 ? sum : to_float(own[i]);
            const float of = fault == 10 ? before : sums[i];
            squares += of * of;
            parts[i % 4] += of * of;
        }
        if (fault == 902) squares = (parts[0] + parts[2]) + (parts[1] + parts[3]);
        const float mean = squares / static_cast<float>(k) + eps;
        const float inverse = fault == 902 ? rsqrtf(mean) : 1.0f / sqrtf(mean);
        for (int group = 0; group < groups; ++group) {
            const int from = group * kGroup;
            const auto normed = [&](int i) { return sums[from + i] * inverse * to_float(gain[from + i]); };
            float amax = 1e-4f;
            for (int i = 0; i < kGroup; ++i) {
                amax = fmaxf(amax, fabsf(fault == 6 ? sums[from + i] * inverse : normed(i)));
            }
            const float scale = power_of_two(amax / 448.0f, fault == 901);
            for (int i = 0; i < kGroup; ++i) {
                float scaled = fault == 901 ? normed(i) * (1.0f / scale) : normed(i) / scale;
                if (fault == 2 && group == groups - 1) scaled = fminf(fmaxf(scaled, -240.0f), 240.0f);
                q[row * k + from + i] = encode<E4m3fn>(scaled);
                h[row * k + from + i] = to_bf16(fault == 5 ? sums[from + i] * inverse : normed(i));
            }
            s[int64_t{group} * stride + row] = scale;
        }
    }
}

__global__ void gate(float* logits, const bf16* h, const bf16* w, int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        const int64_t from = fault == 9 && row >= m / 8 * 8 ? m / 8 * 8 : row;
        const int end = fault == 11 ? k - kGroup : k;
        float sum = 0.0f;
        for (int j = 0; j < end; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            sum += to_float(h[from * k + i]) * to_float(w[column * k + i]);
        }
        logits[index] = fault == 7 ? round_bf16(sum) : sum;
    }
}

__global__ void multiply(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int m, int n,
                         int k, int fault) {
    const int groups = k / kGroup, stride = (m + 3) / 4 * 4;
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        const int64_t of_row = fault == 11 && row >= 16 ? row - 16 : row;
        const int64_t block = fault == 8 && column >= n / kGroup * kGroup ? column / kGroup - 1 : column / kGroup;
        float sum = 0.0f;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            const int group = i / kGroup, of_group = fault == 4 ? min(i / 64, groups - 1) : group;
            sum += decode<E4m3fn>(xq[row * k + i]) * decode<E4m3fn>(wq[column * k + i]) *
                   (xs[int64_t{of_group} * stride + of_row] * ws[block * groups + group]);
        }
        y[index] = to_bf16(sum);
    }
}

}  // namespace

LAUNCHER a_nq_norm(bf16* residual, bf16* h, uint8_t* q, float* s, const bf16* x, const bf16* gain, float eps, int32_t m,
                   int32_t k, int32_t fault, hipStream_t stream) {
    if (k > 512 || k % kGroup != 0) return kUnsupported;
    LAUNCH(norm, m, residual, h, q, s, x, gain, eps, m, k, fault);
    return launch_status();
}

LAUNCHER a_nq_gate(float* logits, const bf16* h, const bf16* w, int32_t m, int32_t n, int32_t k, int32_t fault,
                   hipStream_t stream) {
    LAUNCH(gate, int64_t{m} * n, logits, h, w, m, n, k, fault);
    return launch_status();
}

LAUNCHER a_nq_multiply(bf16* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t m,
                       int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, y, xq, xs, wq, ws, m, n, k, fault);
    return launch_status();
}
