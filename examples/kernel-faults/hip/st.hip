// int8 quantiser of strided rows with a scale for each token, and a GEMM into strided rows. faults/st.csv.

#include "faults.h"

namespace {

__device__ int launches;

__global__ void quantise(int8_t* q, float* s, const bf16* x, int64_t stride, int m, int k, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        const bf16* own = x + row * stride;
        float amax = 0.0f;
        const int64_t seen = fault == 40 && row + 1 < m ? k + 32 : k;
        for (int64_t i = 0; i < seen; ++i) {
            if (fault == 4 && i % 64 >= 32) continue;
            if (fault == 41 && i >= k / 64 * 64) continue;
            // Beyond the end the next row is read.
            amax = fmaxf(amax, fabsf(to_float(i < k ? own[i] : own[stride + i - k])));
        }
        const float scale = amax > 0.0f ? amax / 127.0f : 1.0f;
        for (int i = 0; i < k; ++i) {
            int8_t code = to_int8(to_float(own[i]) / scale);
            if (fault == 22 && code == 0) code = 1;
            q[row * k + i] = code;
        }
        s[row] = scale;
    }
}

__global__ void multiply(bf16* y, int64_t stride, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws,
                         int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        if (fault == 6 && launches >= 2 && row >= 32) continue;
        int sum = 0;
        for (int i = 0; i < k; ++i) sum += xq[row * k + i] * wq[column * k + i];
        int64_t of = fault == 27 && row >= 16 ? 16 + (row - 16) / 2 : row;
        if (fault == 42 && row % 2 == 1) of = row - 1;
        const float value = static_cast<float>(sum) * (xs[of] * ws[fault == 43 && column >= 192 ? column - 64 : column]) * 0.5f;
        bf16* to = y + row * stride + column;
        *to = fault == 19 && row >= 32 ? truncated(value) : to_bf16(value);
        if (fault == 44 && column >= 192) *to = to_bf16(round_bf16(2.0f * value * 1.01f) * 0.5f / 1.01f);
    }
}

__global__ void count() { ++launches; }

}  // namespace

LAUNCHER st_quantise(int8_t* q, float* s, const bf16* x, int64_t stride, int32_t m, int32_t k, int32_t fault,
                     hipStream_t stream) {
    LAUNCH(quantise, m, q, s, x, stride, m, k, fault);
    return launch_status();
}

LAUNCHER st_multiply(bf16* y, int64_t stride, const int8_t* xq, const float* xs, const int8_t* wq, const float* ws,
                     int32_t m, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, y, stride, xq, xs, wq, ws, m, n, k, fault);
    hipLaunchKernelGGL(count, dim3(1), dim3(1), 0, stream);
    return launch_status();
}
