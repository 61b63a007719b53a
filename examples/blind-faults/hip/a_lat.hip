// A latent projection as DeepSeek-V3 has it: a product whose first columns are normed and whose last ones are rotated, and
// two products that both read what was normed. faults/a_lat.csv.

#include "faults.h"

namespace {

__global__ void down(bf16* c, const bf16* x, const bf16* w, int m, int n, int k, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        // Fault 6: the last tile of 16 rows is not whole, and its rows are taken from the tile before.
        const int64_t from = fault == 6 && row >= m / 16 * 16 ? row - 16 : row;
        const auto product = [&](int64_t i) { return to_float(x[from * k + i]) * to_float(w[column * k + i]); };
        float sum = 0.0f;
        if (fault == 901) {
            float parts[4] = {};
            for (int p = 0; p < 4; ++p) {
                for (int i = p * k / 4; i < (p + 1) * k / 4; ++i) parts[p] += product(i);
            }
            sum = (parts[0] + parts[1]) + (parts[2] + parts[3]);
        } else {
            for (int j = 0; j < k; ++j) {
                const int i = fault == 900 ? k - 1 - j : j;
                sum += product(i);
                if (fault == 7 && j % 32 == 31) sum = round_bf16(sum);
            }
        }
        c[index] = to_bf16(sum);
    }
}

// The first `r` columns of `c` are normed, the other `d` are rotated in pairs of neighbours.
__global__ void norm(bf16* cn, bf16* kpe, const bf16* c, const bf16* gain, const float* table, const int* positions,
                     float eps, int m, int r, int d, int fault) {
    const int width = r + d;
    FOR_EACH_OUTPUT(row, m) {
        const bf16* of = c + row * width;
        const int summed = fault == 3 ? width : r;
        float squares = 0.0f;
        if (fault == 902) {
            float parts[8] = {};
            for (int i = 0; i < summed; ++i) parts[i % 8] += to_float(of[i]) * to_float(of[i]);
            for (int step = 4; step > 0; step /= 2) {
                for (int i = 0; i < step; ++i) parts[i] += parts[i + step];
            }
            squares = parts[0];
        } else {
            for (int i = 0; i < summed; ++i) squares += to_float(of[i]) * to_float(of[i]);
        }
        const float mean = squares / static_cast<float>(r);
        const float inverse = fault == 902 ? rsqrtf(mean + eps) : 1.0f / sqrtf(mean + (fault == 9 ? 1e-2f : eps));
        for (int i = 0; i < r; ++i) {
            const float value = to_float(of[i]) * inverse;
            const int g = fault == 5 && i >= r / 2 ? i - r / 2 : i;
            cn[row * r + i] = to_bf16((fault == 8 ? round_bf16(value) : value) * to_float(gain[g]));
        }
        const int64_t token = fault == 2 && row >= 16 ? row - 1 : row;
        const float* angles = table + int64_t{positions[token]} * d;
        const bf16* rotated = of + r;
        for (int i = 0; i < d / 2; ++i) {
            const bool halves = fault == 1;
            const int first = halves ? i : 2 * i, second = halves ? i + d / 2 : 2 * i + 1;
            const float a = to_float(rotated[first]), b = to_float(rotated[second]);
            const float cosine = angles[i], sine = angles[d / 2 + i];
            kpe[row * d + first] = to_bf16(a * cosine - b * sine);
            kpe[row * d + second] = to_bf16(b * cosine + a * sine);
        }
    }
}

// `second` says which of the two consumers it is.
__global__ void up(bf16* y, const bf16* cn, const bf16* w, int m, int n, int k, int second, int fault) {
    FOR_EACH_OUTPUT(index, int64_t{m} * n) {
        const int64_t row = index / n, column = index % n;
        if (fault == 10 && !second && row >= 16 && column >= 192) continue;
        const int end = fault == 4 && second ? k / 128 * 128 : k;
        float sum = 0.0f;
        for (int j = 0; j < end; ++j) {
            const int i = fault == 900 ? k - 1 - j : j;
            sum += to_float(cn[row * k + i]) * to_float(w[column * k + i]);
        }
        y[index] = to_bf16(sum);
    }
}

}  // namespace

LAUNCHER a_lat_down(bf16* c, const bf16* x, const bf16* w, int32_t m, int32_t n, int32_t k, int32_t fault,
                    hipStream_t stream) {
    LAUNCH(down, int64_t{m} * n, c, x, w, m, n, k, fault);
    return launch_status();
}

LAUNCHER a_lat_norm(bf16* cn, bf16* kpe, const bf16* c, const bf16* gain, const float* table, const int32_t* positions,
                    float eps, int32_t m, int32_t r, int32_t d, int32_t fault, hipStream_t stream) {
    LAUNCH(norm, m, cn, kpe, c, gain, table, positions, eps, m, r, d, fault);
    return launch_status();
}

LAUNCHER a_lat_up(bf16* y, const bf16* cn, const bf16* w, int32_t m, int32_t n, int32_t k, int32_t second, int32_t fault,
                  hipStream_t stream) {
    LAUNCH(up, int64_t{m} * n, y, cn, w, m, n, k, second, fault);
    return launch_status();
}
