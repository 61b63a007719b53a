// bfloat16: storage type and conversions.
#pragma once

#include <hip/hip_runtime.h>

#include <cstdint>

struct bf16 {
    uint16_t bits;
};

// N values that are loaded or stored by one instruction.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
    T v[N];
};

template <int N, class T>
__device__ inline Pack<T, N> load(const T* from) {
    return *reinterpret_cast<const Pack<T, N>*>(from);
}

__device__ inline float to_float(bf16 x) { return __uint_as_float(uint32_t{x.bits} << 16); }

// Rounds to nearest even.
__device__ inline bf16 to_bf16(float x) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return {static_cast<uint16_t>((bits >> 16) | 0x40)};  // stays NaN
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
