// Scales in tiles of 128 rows and 4 groups, as cuBLAS, TensorRT-LLM and FlashInfer swizzle them; the buffer is padded to
// whole tiles, and its padding is neither written nor read.
#pragma once

#include <hip/hip_runtime.h>

#include <cstdint>

__device__ inline int64_t swizzled_128x4(int64_t row, int64_t group, int32_t groups) {
    const int64_t tiles = (int64_t{groups} + 3) / 4;
    return (row / 128 * tiles + group / 4) * 512 + row % 32 * 16 + row % 128 / 32 * 4 + group % 4;
}

__device__ inline int64_t scale_offset_128x4(int64_t row, int64_t group, int32_t groups, bool is_sf_swizzled) {
    return is_sf_swizzled ? swizzled_128x4(row, group, groups) : row * groups + group;
}
