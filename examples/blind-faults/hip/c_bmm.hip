// Latent attention's products by head: queries by each head's up-projection, what comes out in e4m3 with a scale for each
// head of a token, and its product with a second weight that is stored transposed, into strided rows. faults/c_bmm.csv.

#include "faults.h"

namespace {

__global__ void absorb(bf16* latent, const bf16* q, const bf16* w, int m, int heads, int d, int r, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * heads * r) {
        const int64_t row = index / r, column = index % r, token = row / heads;
        int64_t head = row % heads;
        const bf16* from = q + row * d;
        if (fault == 3) from = q + (head * m + token) * d;
        if (fault == 1 && head == heads - 1) head -= 1;
        const bf16* by = w + (head * r + column) * d;
        float sum = 0.0f;
        if (fault == 901) {
            float lane[4] = {};
            for (int i = 0; i < d; i += 4) {
                const auto a = load<4>(from + i), b = load<4>(by + i);
                for (int l = 0; l < 4; ++l) lane[l] += to_float(a.v[l]) * to_float(b.v[l]);
            }
            sum = (lane[0] + lane[2]) + (lane[1] + lane[3]);
        } else {
            const int end = fault == 5 ? d / 32 * 32 : d;
            for (int j = 0; j < end; ++j) {
                const int i = fault == 900 ? end - 1 - j : j;
                sum += to_float(from[i]) * to_float(by[i]);
                if (fault == 7) sum = round_bf16(sum);
            }
        }
        latent[index] = to_bf16(sum);
    }
}

__global__ void quantise(uint8_t* q, float* s, const bf16* x, int m, int heads, int r, int fault) {
    FOR_EACH_OUTPUT(row, int64_t{m} * heads) {
        float amax = 1e-8f;
        const int seen = fault == 10 ? 32 : r;
        for (int i = 0; i < seen; ++i) amax = fmaxf(amax, fabsf(to_float(x[row * r + i])));
        const float scale = amax / 448.0f, inverse = 1.0f / scale;
        for (int i = 0; i < r; ++i) {
            const float value = to_float(x[row * r + i]);
            q[row * r + i] = encode<E4m3fn>(fault == 902 ? value * inverse : value / scale);
        }
        s[fault == 6 ? row % heads * m + row / heads : row] = scale;
    }
}

// The weight of a head is stored as r by d.
__global__ void project(bf16* out, int64_t stride, const uint8_t* xq, const float* xs, const uint8_t* wq,
                        const float* ws, int m, int heads, int r, int d, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * heads * d) {
        const int64_t row = index / d, column = index % d, head = row % heads;
        const uint8_t* w = wq + head * r * d;
        float sum = 0.0f, second = 0.0f;
        for (int j = 0; j < r; ++j) {
            const int i = fault == 900 ? r - 1 - j : j;
            const float b = decode<E4m3fn>(w[fault == 2 || fault == 13 ? column * r + i : int64_t{i} * d + column]);
            const float term = decode<E4m3fn>(xq[row * r + i]) * b;
            if (fault == 903 && i >= r / 2) {
                second += term;
            } else {
                sum += term;
            }
            if (fault == 14 && head == 0 && i < 8) sum += term;
        }
        int64_t of = head;
        if (fault == 4 && head >= 3) of = 2;
        float x_scale = xs[row], w_scale = ws[of];
        if (fault == 8 && head == heads - 1) w_scale = 1.0f;
        if (fault == 11 && row > 0) x_scale = xs[row - 1];
        if (fault == 13 && head % 2 == 1) x_scale = xs[row - 1];
        float value = (sum + second) * (x_scale * w_scale);
        if (fault == 12) value = sum * w_scale / x_scale;
        out[row * (fault == 9 ? d : stride) + column] = to_bf16(value);
    }
}

}  // namespace

LAUNCHER c_bmm_absorb(bf16* latent, const bf16* q, const bf16* w, int32_t m, int32_t heads, int32_t d, int32_t r,
                      int32_t fault, hipStream_t stream) {
    LAUNCH(absorb, int64_t{m} * heads * r, latent, q, w, m, heads, d, r, fault);
    return launch_status();
}

LAUNCHER c_bmm_quantise(uint8_t* q, float* s, const bf16* x, int32_t m, int32_t heads, int32_t r, int32_t fault,
                        hipStream_t stream) {
    LAUNCH(quantise, int64_t{m} * heads, q, s, x, m, heads, r, fault);
    return launch_status();
}

LAUNCHER c_bmm_project(bf16* out, int64_t stride, const uint8_t* xq, const float* xs, const uint8_t* wq,
                       const float* ws, int32_t m, int32_t heads, int32_t r, int32_t d, int32_t fault,
                       hipStream_t stream) {
    LAUNCH(project, int64_t{m} * heads * d, out, stride, xq, xs, wq, ws, m, heads, r, d, fault);
    return launch_status();
}
