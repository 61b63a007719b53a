// A fused gate and up projection with 4-bit weights that have zero points, silu(gate) * up in MXFP8 with shuffled scales,
// and the down projection in MXFP8. faults/c_gu.csv.

#include "faults.h"

namespace {

constexpr int kCells = 32;

__device__ inline int nibble(const uint8_t* packed, int64_t at, bool high_first) {
    return packed[at / 2] >> ((at % 2 == 1) != high_first ? 4 : 0) & 15;
}

__device__ inline float power_of_two(uint8_t code) { return ldexpf(1.0f, code - 127); }

// Where the scale of a row and a group lies: tiles of 32 rows and 8 groups.
__device__ inline int64_t shuffled(int64_t r, int64_t g, int groups) {
    const int64_t padded = (groups + 7) / 8 * 8;
    return r / 32 * 32 * padded + g / 8 * 256 + g % 4 * 64 + r % 16 * 4 + g % 8 / 4 * 2 + r % 32 / 16;
}

__global__ void project(bf16* h, const bf16* x, const uint8_t* w, const float* ws, const uint8_t* zeros, int m, int n,
                        int k, int fault) {
    const int groups = k / kCells;
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        float sum = 0.0f;
        if (fault == 901) {
            for (int g = 0; g < groups; ++g) {
                const int zero = nibble(zeros, column * groups + g, false);
                float group = 0.0f;
                for (int i = g * kCells; i < (g + 1) * kCells; ++i) {
                    group += to_float(x[row * k + i]) * static_cast<float>(nibble(w, column * k + i, false) - zero);
                }
                sum += group * ws[column * groups + g];
            }
        } else {
            for (int j = 0; j < k; ++j) {
                const int i = fault == 900 ? k - 1 - j : j, g = i / kCells;
                int zero = nibble(zeros, column * groups + g, fault == 3);
                if (fault == 4) zero += 1;
                const int code = nibble(w, column * k + i, fault == 2);
                const float scale = ws[column * groups + (fault == 10 ? g / 2 * 2 : g)];
                sum += to_float(x[row * k + i]) * (static_cast<float>(code - zero) * scale);
            }
        }
        h[index] = to_bf16(sum);
    }
}

// A thread for each group.
__global__ void activate(uint8_t* q, uint8_t* s, const bf16* h, int m, int k, int fault) {
    const int groups = k / kCells;
    FOR_EACH_OUTPUT(index, int64_t{m} * groups) {
        const int64_t row = index / groups, group = index % groups;
        const bf16* from = h + row * 2 * k + group * kCells;
        const auto value = [&](int i) {
            float gate = to_float(from[i]), up = to_float(from[k + i]);
            if (fault == 1) {
                const float other = gate;
                gate = up;
                up = other;
            }
            if (fault == 9) return 0.5f * gate * (1.0f + erff(gate * 0.70710678f)) * up;
            return gate / (1.0f + expf(-gate)) * up;
        };
        float amax = 0.0f;
        for (int i = 0; i < kCells; ++i) amax = fmaxf(amax, fabsf(value(i)));
        const float exact = amax / 448.0f;
        int exponent = -127;
        if (fault == 902) {
            // The exponent's bits, and one more if there is a mantissa.
            const uint32_t bits = __float_as_uint(exact);
            if (bits > 0x00800000) exponent = static_cast<int>(bits >> 23) - 127 + ((bits & 0x7fffff) != 0 ? 1 : 0);
        } else if (amax > 0.0f) {
            const float fraction = frexpf(exact, &exponent);
            if (fraction == 0.5f || fault == 7) --exponent;
        }
        exponent = max(exponent, -127);
        const float scale = ldexpf(1.0f, exponent);
        for (int i = 0; i < kCells; ++i) q[row * k + group * kCells + i] = encode<E4m3fn>(value(i) / scale);
        s[fault == 5 ? index : shuffled(row, group, groups)] = static_cast<uint8_t>(exponent + 127);
    }
}

__global__ void down(bf16* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, int m, int n,
                     int k, int fault) {
    const int groups = k / kCells;
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        float part[2] = {};
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j, g = i / kCells;
            const int64_t of_row = fault == 6 ? row % 16 : row;
            float scale = power_of_two(xs[shuffled(of_row, fault == 11 && g == 2 ? 1 : g, groups)]) *
                          power_of_two(ws[column * groups + g]);
            if (fault == 8 && column >= 48) scale *= 0.5f;
            if (fault == 13 && g == 1) scale = power_of_two(xs[shuffled(of_row, g, groups)]);
            float& sum = part[fault == 903 && i >= k / 2 ? 1 : 0];
            sum += decode<E4m3fn>(xq[row * k + i]) * decode<E4m3fn>(wq[column * k + i]) * scale;
            if (fault == 12) sum = round_bf16(sum);
        }
        y[index] = to_bf16(part[0] + part[1]);
    }
}

}  // namespace

LAUNCHER c_gu_project(bf16* h, const bf16* x, const uint8_t* w, const float* ws, const uint8_t* zeros, int32_t m,
                      int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(project, int64_t{m} * n, h, x, w, ws, zeros, m, n, k, fault);
    return launch_status();
}

LAUNCHER c_gu_activate(uint8_t* q, uint8_t* s, const bf16* h, int32_t m, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(activate, int64_t{m} * (k / kCells), q, s, h, m, k, fault);
    return launch_status();
}

LAUNCHER c_gu_down(bf16* y, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, int32_t m,
                   int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(down, int64_t{m} * n, y, xq, xs, wq, ws, m, n, k, fault);
    return launch_status();
}
