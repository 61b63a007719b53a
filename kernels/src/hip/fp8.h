// The fp8 formats: parameters, decoding, and encoding with round-to-nearest-even and saturation, by the device's own
// instructions where it has the format. Formulas follow the OCP 8-bit floating point specification (e4m3fn, e5m2) and
// the FNUZ variants: no infinity, no negative zero, whose code is the only NaN, and a bias one higher.
#pragma once

#include <hip/hip_runtime.h>

#include <cstdint>

enum Format : int32_t { kE4m3fn = 0, kE4m3fnuz = 1, kE5m2 = 2, kE5m2fnuz = 3 };

struct E4m3fn {
    static constexpr int mantissa = 3, bias = 7;
    static constexpr bool fnuz = false;
    static constexpr float max = 448.0f;
    static constexpr uint32_t max_code = 0x7e, first_nan = 0x7f;
};
struct E4m3fnuz {
    static constexpr int mantissa = 3, bias = 8;
    static constexpr bool fnuz = true;
    static constexpr float max = 240.0f;
    static constexpr uint32_t max_code = 0x7f, first_nan = 0x80;
};
struct E5m2 {
    static constexpr int mantissa = 2, bias = 15;
    static constexpr bool fnuz = false;
    static constexpr float max = 57344.0f;
    static constexpr uint32_t max_code = 0x7b, first_nan = 0x7d;
};
struct E5m2fnuz {
    static constexpr int mantissa = 2, bias = 16;
    static constexpr bool fnuz = true;
    static constexpr float max = 57344.0f;
    static constexpr uint32_t max_code = 0x7f, first_nan = 0x80;
};

// Whether the device that this is compiled for has conversions and products of a format, and their number of it.
template <class F>
struct DeviceFormat {
    static constexpr bool native = false;
    static constexpr int code = 0;
};

#if defined(__gfx942__) || defined(__gfx950__)
#define HAS_FP8_CONVERSIONS 1

template <int Code>
struct NativeFormat {
    static constexpr bool native = true;
    static constexpr int code = Code;
};

#if defined(__gfx950__)
template <>
struct DeviceFormat<E4m3fn> : NativeFormat<0> {};
template <>
struct DeviceFormat<E5m2> : NativeFormat<1> {};
#else
template <>
struct DeviceFormat<E4m3fnuz> : NativeFormat<0> {};
template <>
struct DeviceFormat<E5m2fnuz> : NativeFormat<1> {};
#endif

template <class F>
__device__ inline float decode_natively(uint8_t code) {
    if constexpr (DeviceFormat<F>::code == 0) {
        return __builtin_amdgcn_cvt_f32_fp8(code, 0);
    } else {
        return __builtin_amdgcn_cvt_f32_bf8(code, 0);
    }
}

// What conversions by instruction do not do themselves; NaN stays.
__device__ inline float saturated(float x, float max) { return x != x ? x : __builtin_amdgcn_fmed3f(x, max, -max); }

// Replaces the lower or the upper two codes of a word.
template <class F, bool Upper>
__device__ inline int encode_pair_natively(float a, float b, int word) {
    if constexpr (DeviceFormat<F>::code == 0) {
        return __builtin_amdgcn_cvt_pk_fp8_f32(saturated(a, F::max), saturated(b, F::max), word, Upper);
    } else {
        return __builtin_amdgcn_cvt_pk_bf8_f32(saturated(a, F::max), saturated(b, F::max), word, Upper);
    }
}
#endif

template <class F>
__device__ inline uint8_t fp8_nan(uint32_t sign) {
    return static_cast<uint8_t>(F::fnuz ? 0x80 : sign | 0x7f);
}

template <class F>
__device__ inline float decode_by_arithmetic(uint8_t code) {
    const uint32_t magnitude = code & 0x7f;
    // The code's exponent and mantissa at their place in a float are too small by a power of two, subnormals too.
    const float rebias = __uint_as_float(uint32_t{127 + 127 - F::bias} << 23);
    uint32_t bits = __float_as_uint(__uint_as_float(magnitude << (23 - F::mantissa)) * rebias);
    if (!F::fnuz) {
        if (magnitude > F::max_code) bits = 0x7f800000;     // infinity, in e5m2
        if (magnitude >= F::first_nan) bits = 0x7fc00000;
    } else if (code == 0x80) {
        return __uint_as_float(0x7fc00000);
    }
    return __uint_as_float(bits | uint32_t{code & 0x80u} << 24);
}

template <class F>
__device__ inline float decode(uint8_t code) {
#ifdef HAS_FP8_CONVERSIONS
    if constexpr (DeviceFormat<F>::native) return decode_natively<F>(code);
#endif
    return decode_by_arithmetic<F>(code);
}

// On the bits of the float: drops the mantissa's tail of normal results, and lets an addition round subnormal ones.
template <class F>
__device__ inline uint8_t encode_by_bits(float x) {
    constexpr int shift = 23 - F::mantissa;
    constexpr uint32_t first_normal = uint32_t{127 + 1 - F::bias} << 23;
    constexpr uint32_t ulp_at_subnormal_step = uint32_t{127 + 1 - F::bias + shift} << 23;  // 2^23 subnormal steps
    const uint32_t bits = __float_as_uint(x);
    const uint32_t sign = bits >> 24 & 0x80;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return fp8_nan<F>(sign);
    uint32_t code;
    if (__uint_as_float(magnitude) >= F::max) {
        code = F::max_code;
    } else if (magnitude >= first_normal) {
        const uint32_t tail = (1u << (shift - 1)) - 1 + (magnitude >> shift & 1);
        code = ((magnitude + tail) >> shift) - (uint32_t{127 - F::bias} << F::mantissa);
    } else {
        code = __float_as_uint(__uint_as_float(magnitude) + __uint_as_float(ulp_at_subnormal_step)) -
               ulp_at_subnormal_step;
    }
    if (F::fnuz && code == 0) return 0;
    return static_cast<uint8_t>(sign | code);
}

// Encodes N values, a multiple of 4.
template <class F, int N>
__device__ inline void encode_all(uint8_t (&codes)[N], const float (&x)[N]) {
    static_assert(N % 4 == 0, "a word has four codes");
#ifdef HAS_FP8_CONVERSIONS
    if constexpr (DeviceFormat<F>::native) {
        for (int i = 0; i < N; i += 4) {
            int word = encode_pair_natively<F, false>(x[i], x[i + 1], 0);
            word = encode_pair_natively<F, true>(x[i + 2], x[i + 3], word);
            __builtin_memcpy(codes + i, &word, sizeof(word));
        }
        return;
    }
#endif
    for (int i = 0; i < N; ++i) codes[i] = encode_by_bits<F>(x[i]);
}

template <class F>
__device__ inline uint8_t encode(float x) {
#ifdef HAS_FP8_CONVERSIONS
    if constexpr (DeviceFormat<F>::native) return static_cast<uint8_t>(encode_pair_natively<F, false>(x, x, 0));
#endif
    return encode_by_bits<F>(x);
}

// The same, by arithmetic: how many steps of its binade is the value away from zero?
template <class F>
__device__ inline uint8_t encode_by_steps(float x) {
    const uint32_t sign = signbit(x) ? 0x80 : 0;
    if (isnan(x)) return fp8_nan<F>(sign);
    const float magnitude = fminf(fabsf(x), F::max);
    const int exponent = max(ilogbf(magnitude), 1 - F::bias);
    const int steps = static_cast<int>(rintf(ldexpf(magnitude, F::mantissa - exponent)));
    // A normal number has 2^mantissa steps more than its mantissa field says, which makes up for the missing one in
    // the exponent.
    const uint32_t code = static_cast<uint32_t>(((exponent + F::bias - 1) << F::mantissa) + steps);
    if (F::fnuz && code == 0) return 0;
    return static_cast<uint8_t>(sign | code);
}
