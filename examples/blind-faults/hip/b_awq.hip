// A projection with the norms before and after it that Gemma has: RMSNorm by 1 + gain, bfloat16 by AWQ weights in groups
// of 32, RMSNorm by 1 + gain, added to the residual. faults/b_awq.csv.

#include "faults.h"
#include "int4.h"

namespace {

constexpr int kInt4Group = 32;

// One thread a row.
__global__ void norm_before(bf16* y, const bf16* x, const bf16* gain, float eps, int m, int k, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        float squares = 0.0f;
        for (int j = 0; j < k; ++j) {
            const float v = to_float(x[row * k + (fault == 902 ? k - 1 - j : j)]);
            squares += v * v;
        }
        const float inverse = 1.0f / sqrtf(squares / static_cast<float>(k) + eps);
        for (int i = 0; i < k; ++i) {
            const float g = to_float(gain[i]);
            y[row * k + i] = to_bf16(to_float(x[row * k + i]) * inverse * (fault == 1 ? g : 1.0f + g));
        }
    }
}

__device__ inline int awq_shift(int64_t element) { return 4 * static_cast<int>(element / 2 + element % 2 * 4); }

__global__ void multiply(bf16* y, const bf16* x, const uint32_t* w, const uint16_t* ws, const uint32_t* zeros, int m,
                         int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        const auto code = [&](int64_t i) {
            int64_t at = i * n + column;
            if (fault == 2) at = column * k + i;
            const int shift = fault == 3 ? 4 * static_cast<int>(at % 8) : awq_shift(at % 8);
            return static_cast<int>(w[at / 8] >> shift & 0xf);
        };
        const auto zero = [&](int64_t g) {
            int64_t of = column;
            if (fault == 4 && column >= 192) of = column - 64;
            if (fault == 5 && g > 0) --g;
            const int shift = fault == 6 ? 4 * static_cast<int>(of % 8) : awq_shift(of % 8);
            int z = static_cast<int>(zeros[(g * n + of) / 8] >> shift & 0xf);
            if (fault == 7 || fault == 15) ++z;
            return z;
        };
        const auto scale = [&](int64_t g) {
            if (fault == 8) g /= 2;
            return f16_to_float(ws[g * n + column]);
        };
        const int groups = k / kInt4Group;
        float sum = 0.0f;
        if (fault == 9) {
            for (int g = 0; g < groups; ++g) {
                float part = 0.0f;
                for (int i = g * kInt4Group; i < (g + 1) * kInt4Group; ++i) {
                    part += to_float(x[row * k + i]) * static_cast<float>(code(i) - zero(g)) * scale(g);
                }
                sum = round_bf16(sum + part);
            }
        } else if (fault == 900) {
            for (int g = groups - 1; g >= 0; --g) {
                float part = 0.0f;
                for (int i = g * kInt4Group; i < (g + 1) * kInt4Group; ++i) {
                    part += to_float(x[row * k + i]) * static_cast<float>(code(i) - zero(g));
                }
                sum += part * scale(g);
            }
        } else if (fault == 901) {
            for (int g = 0; g < groups; ++g) {
                float part = 0.0f, of_x = 0.0f;
                for (int i = g * kInt4Group; i < (g + 1) * kInt4Group; ++i) {
                    part += to_float(x[row * k + i]) * static_cast<float>(code(i));
                    of_x += to_float(x[row * k + i]);
                }
                sum += (part - of_x * static_cast<float>(zero(g))) * scale(g);
            }
        } else {
            for (int i = 0; i < k; ++i) {
                const int g = i / kInt4Group;
                sum += to_float(x[row * k + i]) * (static_cast<float>(code(i) - zero(g)) * scale(g));
            }
        }
        y[index] = to_bf16(sum);
    }
}

__global__ void norm_after(bf16* residual, const bf16* y, const bf16* gain, float eps, int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        float squares = 0.0f;
        for (int i = 0; i < n; ++i) {
            const float v = to_float(y[row * n + i]);
            squares += v * v;
        }
        const float inverse = 1.0f / sqrtf(squares / static_cast<float>(fault == 10 ? k : n) + eps);
        for (int i = 0; i < n; ++i) {
            float before = to_float(residual[row * n + i]);
            if (fault == 11 && row >= 32) before = 0.0f;
            if (fault == 15 && i >= 192) before = 0.0f;
            if (fault == 12) before *= 2.0f;
            const float g = to_float(gain[fault == 13 && i > 0 ? i - 1 : i]);
            residual[row * n + i] = to_bf16(before + to_float(y[row * n + i]) * inverse * (1.0f + g));
        }
    }
}

}  // namespace

LAUNCHER b_awq_norm(bf16* y, const bf16* x, const bf16* gain, float eps, int32_t m, int32_t k, int32_t fault,
                    hipStream_t stream) {
    LAUNCH(norm_before, m, y, x, gain, eps, m, k, fault);
    return launch_status();
}

LAUNCHER b_awq_multiply(bf16* y, const bf16* x, const uint8_t* w, const uint16_t* ws, const uint8_t* zeros, int32_t m,
                        int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, y, x, reinterpret_cast<const uint32_t*>(w), ws,
           reinterpret_cast<const uint32_t*>(zeros), m, n, k, fault);
    return launch_status();
}

LAUNCHER b_awq_add(bf16* residual, const bf16* y, const bf16* gain, float eps, int32_t m, int32_t n, int32_t k,
                   int32_t fault, hipStream_t stream) {
    LAUNCH(norm_after, m, residual, y, gain, eps, m, n, k, fault);
    return launch_status();
}
