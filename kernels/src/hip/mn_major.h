// DeepGEMM's scales of groups of 128: column-major with columns padded to 16 bytes (csrc/utils/layout.hpp).
//   float32  s[group * aligned + row], columns padded to 4 rows
//   ue8m0    four groups of a row in a word: byte 4 * (group / 4 * aligned + row) + group % 4, columns padded alike
#pragma once

#include <hip/hip_runtime.h>

#include <cstdint>

__device__ inline int64_t aligned_rows(int64_t rows) { return (rows + 3) / 4 * 4; }

__device__ inline int64_t mn_major(int64_t row, int64_t group, int64_t rows) {
    return group * aligned_rows(rows) + row;
}

__device__ inline int64_t packed_words(int64_t row, int64_t group, int64_t rows) {
    return 4 * (group / 4 * aligned_rows(rows) + row) + group % 4;
}
