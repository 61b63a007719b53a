// Queries and keys as Llama 4 has them: pairs (2i, 2i + 1) of the first part of a head are rotated, the head is divided by
// the root of its mean square, and queries are multiplied with a temperature of their position. A row is a head of a token.
// The table has cosines, then sines; beyond the rotated part it says cosine 1 and sine 0. faults/b_l4.csv.

#include "faults.h"

namespace {

constexpr int kHead = 64;

// `factors` is null for keys.
__global__ void rotate(bf16* out, const bf16* x, const float* table, const int* positions, const float* factors, int rows,
                       int heads, int rotated, float eps, int fault) {
    FOR_EACH_OUTPUT(row, rows) {
        const bool queries = factors != nullptr;
        int position = positions[fault == 3 ? row / heads : row];
        if (fault == 11 && !queries) ++position;
        float head[kHead];
        for (int i = 0; i < kHead; ++i) head[i] = to_float(x[row * kHead + i]);
        const auto sum_of_squares = [&] {
            float squares = 0.0f;
            for (int i = 0; i < (fault == 6 ? rotated : kHead); ++i) squares += head[i] * head[i];
            return squares;
        };
        float squares = fault == 901 ? sum_of_squares() : 0.0f;
        const int pairs = fault == 4 ? kHead / 2 : rotated / 2;
        const bool skipped = (fault == 5 && queries && row % heads == heads - 1) || (fault == 14 && !queries && row % heads == 1);
        for (int p = 0; p < pairs && !skipped; ++p) {
            int of = fault == 4 ? p % (rotated / 2) : p;
            if (fault == 15) of = p / 2;
            float c = table[position * kHead + of], s = table[position * kHead + kHead / 2 + of];
            if (fault == 2) s = -s;
            if (fault == 13 && row / heads >= 8) {
                const float t = c;
                c = s;
                s = t;
            }
            const int i = fault == 1 ? p : 2 * p, j = fault == 1 ? p + rotated / 2 : 2 * p + 1;
            const float a = head[i], b = head[j];
            head[i] = a * c - b * s;
            head[j] = fault == 7 ? b * c - a * s : fault == 900 ? fmaf(a, s, b * c) : b * c + a * s;
        }
        if (fault == 10) {
            for (float& h : head) h = round_bf16(h);
        }
        if (fault != 901) squares = sum_of_squares();
        const float mean = squares / static_cast<float>(fault == 6 ? rotated : kHead);
        float inverse = fault == 902 ? rsqrtf(mean + eps) : 1.0f / sqrtf(mean + eps);
        if (fault == 8) inverse = 1.0f / sqrtf(squares + eps);
        if (queries && fault != 9) inverse *= factors[fault == 12 && row > 0 ? row - 1 : row];
        for (int i = 0; i < kHead; ++i) out[row * kHead + i] = to_bf16(head[i] * inverse);
    }
}

}  // namespace

LAUNCHER b_l4_rotate(bf16* out, const bf16* x, const float* table, const int32_t* positions, const float* factors,
                     int32_t rows, int32_t heads, int32_t rotated, float eps, int32_t fault, hipStream_t stream) {
    LAUNCH(rotate, rows, out, x, table, positions, factors, rows, heads, rotated, eps, fault);
    return launch_status();
}
