// Smoothed activations in e4m3fnuz, a GEMM that leaves slices of K in a workspace of its own, and a reduction that scales,
// adds a bias and updates the residual in place. faults/c_sk.csv.

#include "faults.h"

namespace {

constexpr int kSlice = 96, kMostSlices = 5, kMostRows = 64, kMostColumns = 128;
constexpr int kTileRows = 16, kTileColumns = 32, kWorkers = 7;

__device__ float workspace[kMostSlices * kMostRows * kMostColumns];

__global__ void quantise(uint8_t* q, float* s, const bf16* x, const bf16* smooth, int m, int k, int fault) {
    FOR_EACH_OUTPUT(row, m) {
        const auto value = [&](int i) {
            const float factor = to_float(smooth[fault == 13 && i % 2 == 1 ? i - 1 : i]), own = to_float(x[row * k + i]);
            return fault == 9 ? own / factor : own * factor;
        };
        float amax = 1e-8f;
        for (int i = 0; i < k; ++i) amax = fmaxf(amax, fabsf(value(i)));
        const float scale = amax / 224.0f;
        const float divisor = fault == 7 ? amax / 240.0f : scale;
        const float inverse = 1.0f / scale;
        for (int i = 0; i < k; ++i) {
            q[row * k + i] = encode<E4m3fnuz>(fault == 904 ? value(i) * inverse : value(i) / divisor);
        }
        s[row] = scale;
    }
}

__device__ inline float product(const uint8_t* xq, const uint8_t* wq, int64_t row, int64_t column, int k, int from, int to,
                                int fault) {
    float sum = 0.0f;
    for (int i = from; i < to; ++i) {
        const uint8_t code = xq[row * k + i];
        const float a = fault == 8 && i >= 3 * kSlice ? decode<E4m3fn>(code) : decode<E4m3fnuz>(code);
        sum += a * decode<E4m3fnuz>(wq[column * k + i]);
    }
    return sum;
}

// A slice for each part of K.
__global__ void multiply(const uint8_t* xq, const uint8_t* wq, int m, int n, int k, int slice, int slices, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{slices} * m * n) {
        const int64_t part = index / (int64_t{m} * n), row = index / n % m, column = index % n;
        const int from = static_cast<int>(part) * slice;
        int to = min(k, from + slice);
        if (fault == 2) to = min(k, to + 16);
        if (fault == 12 && to == k) to = k - 16;
        float sum = product(xq, wq, row, column, k, from, to, fault);
        if (fault == 4) sum = round_bf16(sum);
        if (fault == 3) sum += workspace[index];
        workspace[index] = sum;
    }
}

__global__ void clear(int count) {
    FOR_EACH_OUTPUT(index, count) workspace[index] = 0.0f;
}

// Stream-K: each worker takes an equal share of all slices of all tiles, and leaves the sum over its slices of a tile in
// the place of the first of them.
__global__ void multiply_streamed(const uint8_t* xq, const uint8_t* wq, int m, int n, int k, int slices, int fault) {
    const int tiles_n = (n + kTileColumns - 1) / kTileColumns;
    const int units = (m + kTileRows - 1) / kTileRows * tiles_n * slices;
    FOR_EACH_OUTPUT(worker, kWorkers) {
        const int end = static_cast<int>((worker + 1) * units / kWorkers);
        for (int unit = static_cast<int>(worker * units / kWorkers); unit < end;) {
            const int tile = unit / slices, first = unit % slices, last = min(slices, first + end - unit);
            for (int r = 0; r < kTileRows; ++r) {
                for (int c = 0; c < kTileColumns; ++c) {
                    const int64_t row = tile / tiles_n * kTileRows + r, column = tile % tiles_n * kTileColumns + c;
                    if (row >= m || column >= n) continue;
                    workspace[(int64_t{first} * m + row) * n + column] =
                        product(xq, wq, row, column, k, first * kSlice, min(k, last * kSlice), fault);
                }
            }
            unit += last - first;
        }
    }
}

__global__ void reduce(bf16* hidden, const float* xs, const float* ws, const bf16* bias, float alpha, int m, int n,
                       int slices, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        const int seen = fault == 1 && column >= 64 ? slices - 1 : slices;
        const float before = to_float(hidden[index]), addend = to_float(bias[fault == 14 ? column / 8 * 8 : column]);
        float sum = 0.0f;
        for (int j = 0; j < seen; ++j) {
            const int part = fault == 900 ? seen - 1 - j : j;
            int64_t from = column;
            // The tile to the right, or the first.
            if (fault == 10 && part == 2) from = (column + kTileColumns) % n;
            sum += workspace[(int64_t{part} * m + row) * n + from];
        }
        int64_t of = column;
        if (fault == 12 && column >= 64) of = column - 1;
        const float scaled = sum * (xs[row] * ws[of]);
        float value = scaled * alpha + addend + before;
        if (fault == 903) value = (before + addend) + scaled * alpha;
        if (fault == 5) value = scaled * alpha + static_cast<float>(slices) * addend + before;
        if (fault == 6 && row >= 32) value = scaled * alpha + addend;
        if (fault == 11) value = (scaled + addend) * alpha + before;
        hidden[index] = to_bf16(value);
    }
}

}  // namespace

LAUNCHER c_sk_quantise(uint8_t* q, float* s, const bf16* x, const bf16* smooth, int32_t m, int32_t k, int32_t fault,
                       hipStream_t stream) {
    LAUNCH(quantise, m, q, s, x, smooth, m, k, fault);
    return launch_status();
}

LAUNCHER c_sk_multiply(bf16* hidden, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws,
                       const bf16* bias, float alpha, int32_t m, int32_t n, int32_t k, int32_t fault,
                       hipStream_t stream) {
    if (m > kMostRows || n > kMostColumns || k > kMostSlices * kSlice) return kUnsupported;
    int slice = kSlice;
    if (fault == 901) slice = 160;
    if (fault == 903) slice = k;
    const int slices = (k + slice - 1) / slice;
    if (fault == 902) {
        LAUNCH(clear, slices * m * n, slices * m * n);
        LAUNCH(multiply_streamed, kWorkers, xq, wq, m, n, k, slices, fault);
    } else {
        LAUNCH(multiply, int64_t{slices} * m * n, xq, wq, m, n, k, slice, slices, fault);
    }
    LAUNCH(reduce, int64_t{m} * n, hidden, xs, ws, bias, alpha, m, n, slices, fault);
    return launch_status();
}
