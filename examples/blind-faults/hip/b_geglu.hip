// The tanh form of GELU of the gate times up, int8 with one calibrated scale, and an int8 GEMM with a scale for each output
// channel and a bias. faults/b_geglu.csv.

#include "faults.h"

namespace {

constexpr float kRoot = 0.7978845608f, kCubic = 0.044715f;  // the root of 2 / pi

__device__ inline float gelu_tanh(float x, float root, float cubic, bool by_tanh) {
    const float inner = root * (x + cubic * x * x * x);
    if (by_tanh) return 0.5f * x * (1.0f + tanhf(inner));
    return x / (1.0f + expf(-2.0f * inner));
}

__device__ inline int8_t saturated_int8(float x) {
    return static_cast<int8_t>(fminf(fmaxf(rintf(x), -127.0f), 127.0f));
}

__global__ void activate(int8_t* q, const bf16* gate_up, const float* scale, int m, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * k) {
        int64_t row = index / k, column = index % k;
        const bf16* from = gate_up + row * 2 * k;
        float gate = to_float(from[column]), up = to_float(from[k + column]);
        if (fault == 3) gate = to_float(from[k + column]), up = to_float(from[column]);
        if (fault == 4 && column >= 256) up = to_float(from[k + column - 1]);
        float value = gelu_tanh(gate, fault == 2 ? 0.5641895835f : kRoot, fault == 14 ? 0.44715f : kCubic, fault != 900);
        if (fault == 1) value = 0.5f * gate * (1.0f + erff(gate * 0.70710678f));
        if (fault == 12 && column >= 256) value = gate;
        value *= up;
        const float by = *scale;
        if (fault == 901) {
            q[index] = saturated_int8(value * (1.0f / by));
        } else if (fault == 5) {
            q[index] = saturated_int8(value * by);
        } else if (fault == 6) {
            q[index] = static_cast<int8_t>(static_cast<int64_t>(rintf(value / by)));
        } else if (fault == 7) {
            q[index] = saturated_int8(truncf(value / by));
        } else {
            q[index] = saturated_int8(value / by);
        }
    }
}

__global__ void multiply(bf16* y, const int8_t* q, const float* scale, const int8_t* w, const float* ws,
                         const bf16* bias, int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        int64_t row = index / n;
        const int64_t column = index % n;
        if (fault == 11 && row >= 32) row = 32;
        int32_t sum = 0;
        float blocks = 0.0f;
        for (int i = 0; i < k; ++i) {
            if (fault == 13 && column >= 128 && i >= 256) break;
            sum += int32_t{q[row * k + i]} * int32_t{w[column * k + i]};
            if (fault == 9) sum = min(max(sum, -32768), 32767);
            if (fault == 902 && (i % 64 == 63 || i == k - 1)) {
                blocks += static_cast<float>(sum);
                sum = 0;
            }
        }
        float product = fault == 902 ? blocks : static_cast<float>(sum);
        const float of_column = ws[fault == 8 ? column / 16 * 16 : column];
        const float b = to_float(bias[column]);
        if (fault == 10) product += b;
        product *= (fault == 15 ? 1.0f : *scale) * of_column;
        if (fault == 16) product *= *scale;
        y[index] = to_bf16(fault == 10 ? product : product + b);
    }
}

}  // namespace

LAUNCHER b_geglu_activate(int8_t* q, const bf16* gate_up, const float* scale, int32_t m, int32_t k, int32_t fault,
                          hipStream_t stream) {
    LAUNCH(activate, int64_t{m} * k, q, gate_up, scale, m, k, fault);
    return launch_status();
}

LAUNCHER b_geglu_multiply(bf16* y, const int8_t* q, const float* scale, const int8_t* w, const float* ws,
                          const bf16* bias, int32_t m, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, y, q, scale, w, ws, bias, m, n, k, fault);
    return launch_status();
}
