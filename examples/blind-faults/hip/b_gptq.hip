// bfloat16 by GPTQ weights in groups of 64 with zero points, in act-order: column i of the weight goes with activation
// order[i]. Parts of K are added to a float32 workspace of zeros; the bias is added where it is rounded. faults/b_gptq.csv.

#include "faults.h"
#include "int4.h"

namespace {

constexpr int kGroupOf = 64;

struct Weight {
    const uint32_t* codes;
    const uint16_t* scales;
    const uint32_t* zeros;
    int n, k, fault;

    __device__ int code(int64_t row, int64_t column) const {
        int nibble = static_cast<int>(column % 8);
        if (fault == 10) nibble = 7 - nibble;
        return static_cast<int>(codes[column / 8 * n + row] >> (4 * nibble) & 0xf);
    }
    __device__ int zero(int64_t row, int64_t group) const {
        if (fault == 4) return 8;
        if (fault == 18) row = row / 8 * 8;
        int z = static_cast<int>(zeros[(group * n + row) / 8] >> (4 * (row % 8)) & 0xf);
        if (fault == 3) ++z;
        return z;
    }
    __device__ float scale(int64_t row, int64_t group) const {
        if (fault == 5) return f16_to_float(scales[row * (k / kGroupOf) + group]);
        if (fault == 13 && row % 2 == 1) --row;
        return f16_to_float(scales[group * n + row]);
    }
    __device__ float at(int64_t row, int64_t column) const {
        const int64_t group = column / kGroupOf;
        if (fault == 9) return static_cast<float>(code(row, column)) * scale(row, group) - static_cast<float>(zero(row, group));
        return static_cast<float>(code(row, column) - zero(row, group)) * scale(row, group);
    }
};

// Columns `from` to `to`.
__global__ void multiply(float* acc, const bf16* x, Weight w, const int* order, int m, int from, int to, bool store) {
    FOR_EACH_OUTPUT(index, int64_t{m} * w.n) {
        const int64_t row = index / w.n, column = index % w.n;
        float sum = 0.0f;
        for (int i = from; i < to; ++i) {
            int64_t of = order[i];
            if (w.fault == 2) of = i;
            if (w.fault == 16 && i >= 192) of = i;
            if (w.fault == 1) {
                for (of = 0; order[of] != i;) ++of;
            }
            sum += to_float(x[row * w.k + of]) * w.at(column, i);
        }
        if (store) {
            acc[index] = sum;
        } else {
            atomicAdd(acc + index, sum);
        }
    }
}

// Eight codes of a word at once, all of K.
__global__ void multiply_words(float* acc, const bf16* x, Weight w, const int* order, int m) {
    FOR_EACH_OUTPUT(index, int64_t{m} * w.n) {
        const int64_t row = index / w.n, column = index % w.n;
        float sum = 0.0f;
        for (int i = 0; i < w.k; i += 8) {
            uint32_t word = w.codes[i / 8 * w.n + column];
            const int zero = w.zero(column, i / kGroupOf);
            float part = 0.0f;
            for (int j = 0; j < 8; ++j, word >>= 4) {
                part += to_float(x[row * w.k + order[i + j]]) * static_cast<float>(static_cast<int>(word & 0xf) - zero);
            }
            sum += part * w.scale(column, i / kGroupOf);
        }
        acc[index] += sum;
    }
}

__global__ void finish(bf16* y, const float* acc, const bf16* bias, int m, int n, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        if (fault == 12 && row >= 32) continue;
        float b = to_float(bias[column]);
        if (fault == 8) b *= 2.0f;
        if (fault == 14 && column >= 128) b = to_float(bias[column - 128]);
        y[index] = to_bf16(acc[index] + b);
    }
}

}  // namespace

LAUNCHER b_gptq_multiply(float* acc, const bf16* x, const uint8_t* w, const uint16_t* ws, const uint8_t* zeros,
                         const int32_t* order, int32_t m, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    const Weight weight{reinterpret_cast<const uint32_t*>(w), ws, reinterpret_cast<const uint32_t*>(zeros), n, k, fault};
    if (fault == 902) {
        LAUNCH(multiply_words, int64_t{m} * n, acc, x, weight, order, m);
        return launch_status();
    }
    const int splits = fault == 901 ? 1 : fault == 900 ? 4 : 2, part = k / splits;
    for (int s = 0; s < splits; ++s) {
        int from = s * part;
        if (fault == 6 && s > 0) from += kGroupOf;
        if (fault == 7 && s > 0) from -= kGroupOf;
        LAUNCH(multiply, int64_t{m} * n, acc, x, weight, order, m, from, (s + 1) * part, fault == 11);
    }
    return launch_status();
}

LAUNCHER b_gptq_finish(bf16* y, const float* acc, const bf16* bias, int32_t m, int32_t n, int32_t fault,
                       hipStream_t stream) {
    LAUNCH(finish, int64_t{m} * n, y, acc, bias, m, n, fault);
    return launch_status();
}
