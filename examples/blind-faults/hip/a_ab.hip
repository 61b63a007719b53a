// The products of MLA that are made for each head: queries into the latent space, and what comes back from there in e4m3fnuz
// with a scale for each head of a token, by weights with a scale for each output channel. Rows are heads of tokens.
// faults/a_ab.csv.

#include "faults.h"

namespace {

using F = E4m3fnuz;

__global__ void absorb(bf16* latent, const bf16* q, const bf16* w, int rows, int heads, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{rows} * n) {
        const int64_t row = index / n, column = index % n;
        const int64_t head = fault == 1 ? row / (rows / heads) : row % heads;
        const bf16* x = q + row * k;
        const bf16* of = w + head * n * k;
        float sum = 0.0f;
        if (fault == 901) {
            float lanes[4] = {};
            for (int i = 0; i < k; i += 4) {
                const auto a = load<4>(x + i), b = load<4>(of + column * k + i);
                for (int l = 0; l < 4; ++l) lanes[l] += to_float(a.v[l]) * to_float(b.v[l]);
            }
            sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        } else {
            const int end = fault == 8 ? k / 32 * 32 : k;
            for (int j = 0; j < end; ++j) {
                const int i = fault == 900 ? k - 1 - j : j;
                sum += to_float(x[i]) * to_float(of[fault == 2 ? int64_t{i} * n + column : column * k + i]);
            }
        }
        latent[index] = to_bf16(sum);
    }
}

__global__ void quantise(uint8_t* q, float* s, const bf16* latent, int rows, int heads, int k, int fault) {
    FOR_EACH_OUTPUT(row, rows) {
        const bf16* of = latent + row * k;
        float amax = 0.0f;
        for (int i = 0; i < (fault == 10 ? 64 : k); ++i) amax = fmaxf(amax, fabsf(to_float(of[i])));
        if (fault == 3) {
            const bf16* token = latent + row / heads * heads * k;
            for (int i = 0; i < heads * k; ++i) amax = fmaxf(amax, fabsf(to_float(token[i])));
        }
        const float exact = fault == 902 ? amax * (1.0f / F::max) : amax / F::max;
        const float scale = amax > 0.0f ? exact : 1.0f, inverse = 1.0f / scale;
        for (int i = 0; i < k; ++i) {
            const float scaled = fault == 902 ? to_float(of[i]) * inverse : to_float(of[i]) / scale;
            uint8_t code = encode<F>(scaled);
            if (fault == 7) {
                code = encode<E4m3fn>(scaled);
                if (code == 0x80) code = 0;
            }
            q[row * k + i] = code;
        }
        s[row] = fault == 5 ? inverse : scale;
    }
}

__global__ void expand(bf16* v, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int rows, int heads,
                       int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{rows} * n) {
        const int64_t row = index / n, column = index % n, head = row % heads;
        const int64_t of_weight = fault == 9 && head == 2 ? column ^ 16 : column;
        float sum = 0.0f;
        for (int j = 0; j < k; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            sum += decode<F>(xq[row * k + i]) * decode<F>(wq[(head * n + of_weight) * k + i]);
        }
        const float of_row = fault == 6 && head == heads - 1 ? 1.0f : xs[row];
        v[index] = to_bf16(sum * of_row * ws[fault == 4 ? column : head * n + of_weight]);
    }
}

}  // namespace

LAUNCHER a_ab_absorb(bf16* latent, const bf16* q, const bf16* w, int32_t rows, int32_t heads, int32_t n, int32_t k,
                     int32_t fault, hipStream_t stream) {
    if (k % 4 != 0) return kUnsupported;
    LAUNCH(absorb, int64_t{rows} * n, latent, q, w, rows, heads, n, k, fault);
    return launch_status();
}

LAUNCHER a_ab_quantise(uint8_t* q, float* s, const bf16* latent, int32_t rows, int32_t heads, int32_t k, int32_t fault,
                       hipStream_t stream) {
    LAUNCH(quantise, rows, q, s, latent, rows, heads, k, fault);
    return launch_status();
}

LAUNCHER a_ab_expand(bf16* v, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t rows,
                     int32_t heads, int32_t n, int32_t k, int32_t fault, hipStream_t stream) {
    LAUNCH(expand, int64_t{rows} * n, v, xq, xs, wq, ws, rows, heads, n, k, fault);
    return launch_status();
}
