// GEMMs on the matrix cores: a block of four waves multiplies 64 rows of X by 64 rows of W, 128 bytes of each row at a
// time. Each wave has 16 rows of X and all of W. While it multiplies one tile, the next is on its way from global
// memory.
#pragma once

#include "mfma.h"
#include "tile.h"

#ifdef HAS_MFMA

constexpr int kTileBytes = 128;  // of a row
constexpr int kRunBytes = 16;    // that a thread moves at once
constexpr int kTilesAcross = kTile / kMfmaTile;
constexpr int kRunsOfRow = kTileBytes / kRunBytes;
constexpr int kRunsOfThread = kTile * kRunsOfRow / kTileThreads;

static_assert(kTileThreads == kTilesAcross * kWave, "a wave has 16 rows of X");

using Run = Pack<uint8_t, kRunBytes>;

// Rows are padded, so that the lanes that read a fragment of 16 rows spread over the banks.
struct ByteTile {
    alignas(kRunBytes) uint8_t at[kTile][kTileBytes + kRunBytes];
};

struct Runs {
    Run v[kRunsOfThread];
};

// The run that begins here, of which `left` bytes exist; the others are zero.
__device__ inline Run load_run(const void* from, int64_t left) {
    Run run = {};
    if (left >= kRunBytes) {
        __builtin_memcpy(&run, from, kRunBytes);  // may be unaligned
    } else {
        for (int i = 0; i < left; ++i) run.v[i] = static_cast<const uint8_t*>(from)[i];
    }
    return run;
}

// Calls `each` with the place of every run of this thread: its number, its row and where it begins in the row. Threads
// that follow each other have runs of one row or, AlongRows, of rows that follow each other.
template <bool AlongRows, class Each>
__device__ inline void each_run(Each each) {
    for (int i = 0; i < kRunsOfThread; ++i) {
        const int run = threadIdx.x + i * kTileThreads;
        const int row = AlongRows ? run % kTile : run / kRunsOfRow;
        each(i, row, (AlongRows ? run / kTile : run % kRunsOfRow) * kRunBytes);
    }
}

// Steps of kTileBytes in a row.
__device__ inline int64_t steps_of(int64_t bytes) { return (bytes + kTileBytes - 1) / kTileBytes; }

// `load_x(step, row, byte)` and `load_w` give the run of a row that begins `byte` bytes into a step of kTileBytes;
// `multiply(step, x, w)` is called with every pair of tiles.
template <bool AlongRowsOfX = false, class LoadX, class LoadW, class Multiply>
__device__ inline void multiply_in_steps(int64_t steps, LoadX load_x, LoadW load_w, Multiply multiply) {
    __shared__ ByteTile x_tiles[2];
    __shared__ ByteTile w_tiles[2];
    Runs x, w;
    const auto load_step = [&](int64_t step) {
        each_run<AlongRowsOfX>([&](int i, int row, int byte) { x.v[i] = load_x(step, row, byte); });
        each_run<false>([&](int i, int row, int byte) { w.v[i] = load_w(step, row, byte); });
    };
    const auto store = [](ByteTile& tile, int row, int byte, const Run& run) {
        *reinterpret_cast<Run*>(&tile.at[row][byte]) = run;
    };
    load_step(0);
    for (int64_t step = 0; step < steps; ++step) {
        ByteTile& x_tile = x_tiles[step % 2];
        ByteTile& w_tile = w_tiles[step % 2];
        each_run<AlongRowsOfX>([&](int i, int row, int byte) { store(x_tile, row, byte, x.v[i]); });
        each_run<false>([&](int i, int row, int byte) { store(w_tile, row, byte, w.v[i]); });
        // One barrier a step is enough: every wave has read the pair that is overwritten next before it comes here.
        __syncthreads();
        if (step + 1 < steps) load_step(step + 1);
        multiply(step, x_tile, w_tile);
    }
}

// The rows of this lane: of X, and of the 16 rows of W with this number.
__device__ inline const uint8_t* x_row(const ByteTile& tile) {
    return tile.at[threadIdx.x / kWave * kMfmaTile + lane_row()];
}
__device__ inline const uint8_t* w_row(const ByteTile& tile, int number) {
    return tile.at[number * kMfmaTile + lane_row()];
}

// The first of the four rows of the product, and the column in a tile of W, that this lane holds.
__device__ inline int output_row() { return threadIdx.x / kWave * kMfmaTile + lane_quarter() * 4; }
__device__ inline int output_column(int number) { return number * kMfmaTile + lane_row(); }

// Calls `store(row, column, sum)` with every sum of the lane that is inside the output.
template <class S, class Store>
__device__ inline void each_output(const S (&sums)[kTilesAcross], int64_t rows, int64_t columns, Store store) {
    for (int number = 0; number < kTilesAcross; ++number) {
        for (int i = 0; i < 4; ++i) {
            const int row = output_row() + i, column = output_column(number);
            if (row < rows && column < columns) store(row, column, sums[number][i]);
        }
    }
}

#ifdef __gfx950__

// One step of MXFP8: 128 columns, four groups. `x_scales` and `w_scales` have one of this lane's row and group in each
// byte that is used: those of X in byte 0, those of the 16 rows of W with number i in byte i.
__device__ inline void multiply_mxfp8(Sums (&sums)[kTilesAcross], const ByteTile& x, int x_scales, const ByteTile& w,
                                      int w_scales) {
    constexpr int e4m3 = DeviceFormat<E4m3fn>::code;
    static_assert(kTilesAcross == 4, "a byte of the scales for each");
    const Codes codes = codes_of_8_bits(x_row(x));
    sums[0] = multiply_scaled<e4m3, 0, 0>(codes, x_scales, codes_of_8_bits(w_row(w, 0)), w_scales, sums[0]);
    sums[1] = multiply_scaled<e4m3, 0, 1>(codes, x_scales, codes_of_8_bits(w_row(w, 1)), w_scales, sums[1]);
    sums[2] = multiply_scaled<e4m3, 0, 2>(codes, x_scales, codes_of_8_bits(w_row(w, 2)), w_scales, sums[2]);
    sums[3] = multiply_scaled<e4m3, 0, 3>(codes, x_scales, codes_of_8_bits(w_row(w, 3)), w_scales, sums[3]);
}

#endif
#endif
