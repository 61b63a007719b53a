// The inner product of int8 GEMMs, summed in int32.
#pragma once

#include "launcher.h"
#include "mfma_tile.h"

// The longest sum of products of -128 that int32 holds.
constexpr int32_t kMaxK = INT32_MAX / (128 * 128);

#ifdef HAS_MFMA

struct Int8Sums {
    IntSums products[kTilesAcross] = {};
    IntSums of_x = {};  // of the elements in the lane's four rows of X
};

// On the matrix cores: 64 rows of X from `first_row` on by 64 rows of W.
template <bool WithSumsOfX>
__device__ inline Int8Sums multiply_int8_tile(const int8_t* xq, const int8_t* wq, int64_t first_row,
                                              int64_t first_column, int32_t m, int32_t n, int32_t k) {
    const auto load_codes = [=](const int8_t* codes, int64_t row, int64_t rows, int64_t column) {
        return load_run(codes + row * k + column, row < rows ? k - column : 0);
    };
    const auto load_x = [=](int64_t step, int row, int byte) {
        return load_codes(xq, first_row + row, m, step * kTileBytes + byte);
    };
    const auto load_w = [=](int64_t step, int row, int byte) {
        return load_codes(wq, first_column + row, n, step * kTileBytes + byte);
    };
    Int8Sums sums;
    multiply_in_steps(steps_of(k), load_x, load_w, [&](int64_t, const ByteTile& x, const ByteTile& w) {
        for (int byte = 0; byte < kTileBytes; byte += kStepBytes) {
            const Fragment of_x = fragment(x_row(x) + byte);
            for (int number = 0; number < kTilesAcross; ++number) {
                const Fragment of_w = fragment(w_row(w, number) + byte);
                sums.products[number] = multiply_int8(of_x, of_w, sums.products[number]);
            }
            if (WithSumsOfX) sums.of_x = multiply_int8(of_x, ones_of_int8(), sums.of_x);
        }
    });
    return sums;
}

#endif
