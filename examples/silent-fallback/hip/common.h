#pragma once

#include <hip/hip_runtime.h>

#include <cstdint>

#define LAUNCHER extern "C" __attribute__((visibility("default"))) int32_t

// A launcher returns 0, 1 for an argument it cannot take, or 2 where the launch failed.
enum : int32_t { kOk = 0, kInvalidArgument = 1, kLaunchFailed = 2 };

constexpr int kGroup = 128;
constexpr float kFp8Max = 448.0f;

struct bf16 {
    uint16_t bits;
};

__device__ inline float to_float(bf16 x) { return __uint_as_float(uint32_t{x.bits} << 16); }

__device__ inline bf16 to_bf16(float x) {
    const uint32_t bits = __float_as_uint(x);
    if (isnan(x)) return {0x7fc0};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// fp8 e4m3fn, rounded to nearest even; |x| is at most 448.
__device__ inline uint8_t to_fp8(float x) {
    const uint8_t sign = signbit(x) ? 0x80 : 0;
    if (isnan(x)) return sign | 0x7f;
    const float magnitude = fminf(fabsf(x), kFp8Max);
    const int exponent = max(ilogbf(magnitude), -6);
    const int mantissa = static_cast<int>(rintf(ldexpf(magnitude, 3 - exponent)));
    return sign | static_cast<uint8_t>((exponent + 6) * 8 + mantissa);
}

__device__ inline float from_fp8(uint8_t code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    if ((code & 0x7f) == 0x7f) return NAN;
    const float magnitude = exponent == 0 ? ldexpf(mantissa, -9) : ldexpf(8 + mantissa, exponent - 10);
    return code & 0x80 ? -magnitude : magnitude;
}

inline int32_t launch_status() { return hipGetLastError() == hipSuccess ? kOk : kLaunchFailed; }
