// MXFP4 quantiser with swizzled e8m0 scales, and a GEMM that adds to its output. faults/mx.csv.

#include "faults.h"
#include "mx_quant.h"

namespace {

__global__ void quantise(uint8_t* q, uint8_t* s, const bf16* x, int m, int k, int fault) {
    const int groups = k / kMxGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * groups) {
        const int64_t row = index / groups, group = index % groups;
        const bf16* from = x + row * k + group * kMxGroup;
        uint32_t amax = 0;
        for (int i = 0; i < kMxGroup; ++i) amax = max(amax, __float_as_uint(to_float(from[i])) & 0x7fffffff);
        const int32_t rounding = fault == 41 ? kCeil : kEven;
        uint8_t scale = amax == 0 ? kE8m0One : e8m0_scale<E2m1>(amax, rounding);
        if (fault == 4) scale = max(scale, static_cast<uint8_t>(kE8m0One - 3));
        for (int i = 0; i < kMxGroup; i += 2) {
            const auto code = [&](int j) { return encode_element(E2m1{}, divide_by_e8m0(to_float(from[j]), scale)); };
            q[(row * k + group * kMxGroup + i) / 2] = static_cast<uint8_t>(code(i) | code(i + 1) << 4);
        }
        s[swizzled(row, group, groups)] = scale;
    }
}

__global__ void multiply(bf16* hidden, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, int m,
                         int n, int k, int fault) {
    const int groups = k / kMxGroup;
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        float sum = 0.0f;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j, group = i / kMxGroup;
            const int64_t a = row * k + i, b = column * k + i;
            const bool other = fault == 9 && group >= 8, swapped = fault == 40 && group >= 8;
            const float x = decode_e2m1(xq[a / 2] >> ((a % 2 != swapped) * 4) & 0xf);
            const float w = decode_e2m1(wq[b / 2] >> ((b % 2 != other) * 4) & 0xf);
            const int of = fault == 42 && group >= 8 ? group - 1 : group;
            float scale = decode_e8m0(xs[swizzled(row, group, groups)]) * decode_e8m0(ws[swizzled(column, of, groups)]);
            if (fault == 19 && scale < 0x1p-6f) scale = 0.0f;
            sum += x * w * scale;
        }
        if (fault == 25 && column == 0 && row > 0) sum *= 2.0f;
        hidden[index] = to_bf16(to_float(hidden[index]) + sum);
    }
}

}  // namespace

LAUNCHER mx_quantise(uint8_t* q, uint8_t* s, const bf16* x, int32_t m, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(quantise, int64_t{m} * (k / kMxGroup), q, s, x, m, k, fault);
    return launch_status();
}

LAUNCHER mx_multiply(bf16* hidden, const uint8_t* xq, const uint8_t* xs, const uint8_t* wq, const uint8_t* ws, int32_t m,
                     int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(multiply, int64_t{m} * n, hidden, xq, xs, wq, ws, m, n, k, fault);
    return launch_status();
}
