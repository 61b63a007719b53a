// int8 with a smoothing factor and a scale for each token for most columns, and the outlier columns in bf16.
// faults/c_out.csv.

#include "faults.h"

namespace {

// The smoothing factor of outlier columns is zero.
__global__ void quantise(int8_t* q, float* s, const bf16* x, const bf16* smooth, int m, int k, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        const bf16* own = x + row * k;
        const auto value = [&](int i) {
            float factor = to_float(smooth[i]);
            if (fault == 1 && factor == 0.0f) factor = 1.0f;
            if (fault == 14 && factor != 0.0f) factor = 1.0f / factor;
            return to_float(own[i]) * factor;
        };
        float amax = 1e-8f;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            amax = fmaxf(amax, fabsf(fault == 4 ? to_float(own[i]) : value(i)));
        }
        const float scale = amax / (fault == 5 ? 160.0f : 127.0f), inverse = 127.0f / amax;
        for (int i = 0; i < k; ++i) q[row * k + i] = to_int8(fault == 901 ? value(i) * inverse : value(i) / scale);
        s[row] = scale;
    }
}

__global__ void pick(bf16* picked, const bf16* x, const int* columns, int m, int k, int count, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * count) {
        int64_t row = index / count, column = columns[index % count];
        if (fault == 3) column = columns[index % count] + 1;
        if (fault == 9 && row >= 32) row -= 32;
        picked[index] = x[row * k + column];
    }
}

__global__ void multiply(bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws,
                         const bf16* picked, const bf16* wo, int m, int n, int k, int count, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        if (fault == 12 && row >= m / 4 * 4) continue;
        int64_t of = column;
        if (fault == 8 || fault == 13) of = column / 16 * 16;
        const float scale = xs[row] * ws[of];
        float product;
        if (fault == 902 || fault == 6) {
            // K in tiles of 32, each of which is added as a float.
            product = 0.0f;
            for (int from = 0; from < k; from += 32) {
                int tile = 0;
                for (int i = from; i < from + 32; ++i) tile += xq[row * k + i] * wq[column * k + i];
                product += static_cast<float>(tile);
                if (fault == 6) product = round_bf16(product);
            }
        } else if (fault == 903) {
            // Every fourth element in a lane of its own.
            int lane[4] = {};
            for (int i = 0; i < k; ++i) lane[i % 4] += xq[row * k + i] * wq[column * k + i];
            product = static_cast<float>((lane[0] + lane[2]) + (lane[1] + lane[3]));
        } else {
            int sum = 0;
            for (int i = 0; i < k; ++i) sum += xq[row * k + i] * wq[column * k + i];
            product = static_cast<float>(sum);
        }
        float outliers = 0.0f;
        const int seen = fault == 2 || fault == 13 ? count / 16 * 16 : count;
        for (int j = 0; j < seen; ++j) {
            const int i = fault == 900 ? seen - 1 - j : j;
            int64_t weight = column * count + i;
            if (fault == 10) weight = int64_t{i} * n + column;
            outliers += to_float(picked[row * count + i]) * to_float(wo[weight]);
        }
        float value = product * scale + outliers;
        if (fault == 7) value = (product + outliers) * scale;
        if (fault == 900) value = outliers + product * scale;
        y[index] = fault == 11 ? truncated(value) : to_bf16(value);
    }
}

}  // namespace

LAUNCHER c_out_quantise(int8_t* q, float* s, const bf16* x, const bf16* smooth, int32_t m, int32_t k, int32_t fault,
                        hipStream_t stream) {
    LAUNCH(quantise, m, q, s, x, smooth, m, k, fault);
    return launch_status();
}

LAUNCHER c_out_pick(bf16* picked, const bf16* x, const int32_t* columns, int32_t m, int32_t k, int32_t count,
                    int32_t fault, hipStream_t stream) {
    LAUNCH(pick, int64_t{m} * count, picked, x, columns, m, k, count, fault);
    return launch_status();
}

LAUNCHER c_out_multiply(bf16* y, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws,
                        const bf16* picked, const bf16* wo, int32_t m, int32_t n, int32_t k, int32_t count,
                        int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, y, xq, xs, wq, ws, picked, wo, m, n, k, count, fault);
    return launch_status();
}
