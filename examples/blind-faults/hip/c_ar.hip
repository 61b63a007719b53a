// Three ranks quantise their part of K and multiply it with theirs of the weights, and what they leave is added to the
// residual, which is normed. faults/c_ar.csv.

#include "faults.h"

namespace {

constexpr int kRanks = 3;

// `k` columns from `at` on of rows of `stride`.
__global__ void quantise(uint8_t* q, float* s, const bf16* x, int stride, int at, int m, int k, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        const bf16* own = x + row * stride + at;
        float amax = 1e-8f;
        for (int i = 0; i < k; ++i) amax = fmaxf(amax, fabsf(to_float(own[i])));
        const float scale = amax / 448.0f, inverse = 448.0f / amax;
        for (int i = 0; i < k; ++i) {
            const float value = to_float(own[i]);
            q[row * k + i] = encode<E4m3fn>(fault == 902 ? value * inverse : value / scale);
        }
        s[row] = scale;
    }
}

// `other_*` are those of the rank before, or of the last one.
__global__ void multiply(bf16* p, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                         const float* other_xs, const uint8_t* other_wq, int rank, int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        const uint8_t* w = fault == 8 && rank == 1 && column >= 128 ? other_wq : wq;
        float sum = 0.0f, tail = 0.0f;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            const uint8_t code = w[column * k + i];
            const float b = fault == 9 && rank == 2 && (code & 0x7f) != 0 ? decode<E4m3fnuz>(code) : decode<E4m3fn>(code);
            const float product = decode<E4m3fn>(xq[row * k + i]) * b;
            if (fault == 903 && i >= k / 2) {
                tail += product;
            } else {
                sum += product;
            }
            if (fault == 11 && rank == 0) sum = round_bf16(sum);
        }
        float scale = xs[row];
        if ((fault == 4 || fault == 12) && rank == 1) scale = other_xs[row];
        p[index] = to_bf16((sum + tail) * (scale * ws[column]));
    }
}

// A thread for each row.
__global__ void reduce_and_norm(bf16* y, bf16* residual, const bf16* p0, const bf16* p1, const bf16* p2,
                                const bf16* gain, float eps, int m, int n, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        const bf16* parts[kRanks] = {p0 + row * n, p1 + row * n, p2 + row * n};
        bf16* own = residual + row * n;
        float squares = 0.0f;
        for (int j = 0; j < n; ++j) {
            const int i = fault == 900 ? n - 1 - j : j;
            const float before = to_float(own[i]);
            float sum;
            if (fault == 901) {
                sum = before + (to_float(parts[0][i]) + (to_float(parts[1][i]) + to_float(parts[2][i])));
            } else {
                sum = 0.0f;
                for (int r = 0; r < kRanks; ++r) {
                    const int rank = fault == 900 ? kRanks - 1 - r : r;
                    if (fault == 1 && rank == 2 && row >= 16) continue;
                    if (fault == 12 && rank == 2) continue;
                    sum += to_float(parts[rank][i]);
                    if (fault == 2) sum += before;
                    if (fault == 3) sum = round_bf16(sum);
                }
                if (fault != 2) sum += before;
            }
            own[i] = to_bf16(sum);
            float normed = to_float(own[i]);
            if (fault == 5) normed = round_bf16(sum - before);
            squares += normed * normed;
            y[row * n + i] = to_bf16(normed);
        }
        const float mean = squares / (fault == 6 ? 256.0f : static_cast<float>(n));
        const float inverse = 1.0f / sqrtf(mean + (fault == 7 ? 1e-6f : eps));
        for (int i = 0; i < n; ++i) {
            const float factor = fault == 10 ? 1.0f + to_float(gain[i]) : to_float(gain[fault == 13 ? i / 2 * 2 : i]);
            y[row * n + i] = to_bf16(to_float(y[row * n + i]) * inverse * factor);
        }
    }
}

}  // namespace

LAUNCHER c_ar_quantise(uint8_t* q, float* s, const bf16* x, int32_t stride, int32_t at, int32_t m, int32_t k,
                       int32_t fault, hipStream_t stream) {
    LAUNCH(quantise, m, q, s, x, stride, at, m, k, fault);
    return launch_status();
}

LAUNCHER c_ar_multiply(bf16* p, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                       const float* other_xs, const uint8_t* other_wq, int32_t rank, int32_t m, int32_t n, int32_t k,
                       int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, p, xq, xs, wq, ws, other_xs, other_wq, rank, m, n, k, fault);
    return launch_status();
}

LAUNCHER c_ar_norm(bf16* y, bf16* residual, const bf16* p0, const bf16* p1, const bf16* p2, const bf16* gain, float eps,
                   int32_t m, int32_t n, int32_t fault, hipStream_t stream) {
    LAUNCH(reduce_and_norm, m, y, residual, p0, p1, p2, gain, eps, m, n, fault);
    return launch_status();
}
