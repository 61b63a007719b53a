// The inner product of GEMMs with float32 accumulation: a block of 256 threads multiplies a 64 × kTileK tile of X by
// one of W, both decoded to float in shared memory with K outermost. Thread (tx, ty) holds rows 4 ty to 4 ty + 3 and
// columns 4 tx to 4 tx + 3 of the product.
#pragma once

#include "bf16.h"

constexpr int kTile = 64;       // rows and columns of the output
constexpr int kTileThreads = 256;
constexpr int kPerThread = 4;
constexpr int kThreadsAcross = kTile / kPerThread;

template <int K>
struct alignas(sizeof(Pack<float, kPerThread>)) Tile {
    float at[K][kTile + kPerThread];  // padded so that stores along K spread over the banks
};

struct Accumulator {
    float v[kPerThread][kPerThread] = {};
};

template <int K>
__device__ inline void multiply_tiles(Accumulator& sum, const Tile<K>& x, const Tile<K>& w, int row, int column) {
    for (int k = 0; k < K; ++k) {
        const Pack<float, kPerThread> a = load<kPerThread>(&x.at[k][row]);
        const Pack<float, kPerThread> b = load<kPerThread>(&w.at[k][column]);
        for (int i = 0; i < kPerThread; ++i) {
            for (int j = 0; j < kPerThread; ++j) sum.v[i][j] += a.v[i] * b.v[j];
        }
    }
}

__device__ inline void store_tile(bf16* y, int64_t ldy, const Accumulator& sum, int64_t row, int64_t column, int32_t m,
                                  int32_t n) {
    for (int i = 0; i < kPerThread && row + i < m; ++i) {
        for (int j = 0; j < kPerThread && column + j < n; ++j) y[(row + i) * ldy + column + j] = to_bf16(sum.v[i][j]);
    }
}
