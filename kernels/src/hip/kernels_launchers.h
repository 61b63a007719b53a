// Launchers of the kernel library `kernels`, as Rust binds them. Written by `cargo accuracy header`; do not edit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#ifndef ACCURACY_BOUND
// After the definition of a launcher: the compiler rejects one that Rust binds otherwise.
#define ACCURACY_BOUND(launcher) \
    static_assert(accuracy::Defined<accuracy::bound::launcher, decltype(&::launcher)>::as_bound(), #launcher)

namespace accuracy {

struct Any {};  // a type of the Rust crate that is not known here
struct Half {
    unsigned char bytes[2];  // bf16 or f16, by whatever name C++ calls it
};

// Elements behind a pointer: of one size, and no floats where there are integers. A pointer to void fits any.
template <class Bound, class Actual>
constexpr bool elements_fit() {
    if constexpr (std::is_void_v<Bound> || std::is_void_v<Actual> || std::is_same_v<Bound, Any>) {
        return true;
    } else if constexpr (std::is_arithmetic_v<Bound> && std::is_arithmetic_v<Actual>) {
        return sizeof(Bound) == sizeof(Actual) && std::is_floating_point_v<Bound> == std::is_floating_point_v<Actual>;
    } else {
        return sizeof(Bound) == sizeof(Actual);
    }
}

template <class Bound, class Actual>
constexpr bool fits() {
    if constexpr (std::is_same_v<Bound, Any>) {
        return true;
    } else if constexpr (std::is_pointer_v<Bound> && std::is_pointer_v<Actual>) {
        return elements_fit<std::remove_pointer_t<Bound>, std::remove_cv_t<std::remove_pointer_t<Actual>>>();
    } else if constexpr (std::is_enum_v<Actual>) {
        return fits<Bound, std::underlying_type_t<Actual>>();
    } else if constexpr (std::is_integral_v<Bound> && std::is_integral_v<Actual>) {
        return sizeof(Bound) == sizeof(Actual) && std::is_signed_v<Bound> == std::is_signed_v<Actual> &&
               std::is_same_v<Bound, bool> == std::is_same_v<Actual, bool>;
    } else {
        return std::is_same_v<Bound, Actual>;
    }
}

template <std::size_t Index, class Bound, class Actual>
struct Parameter {
    static_assert(fits<Bound, Actual>(), "Rust binds the parameter of this Index, from 0, with another type");
};

template <class Bound, class Actual>
struct Result {
    static_assert(fits<Bound, Actual>(), "Rust binds the launcher with another result");
};

template <class Bound, class Actual>
struct Defined;

template <class R, class... P, class S, class... Q>
struct Defined<R(P...), S (*)(Q...)> {
    static constexpr bool as_bound() {
        static_assert(sizeof...(P) == sizeof...(Q), "Rust binds the launcher with another number of parameters");
        if constexpr (sizeof...(P) == sizeof...(Q)) each(std::index_sequence_for<P...>{});
        return sizeof(Result<R, S>) != 0;
    }
    template <std::size_t... Index>
    static constexpr void each(std::index_sequence<Index...>) {
        static_assert((... && (sizeof(Parameter<Index, P, Q>) != 0)) || sizeof...(P) == 0, "");
    }
};

template <class Bound, class S, class... Q>
struct Defined<Bound, S (*)(Q...) noexcept> : Defined<Bound, S (*)(Q...)> {};

}  // namespace accuracy
#endif

namespace accuracy::bound {
using add_rmsnorm_group_quant_fp8 = std::int32_t(std::uint8_t*, float*, Half*, Half*, Half*, float, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using add_rmsnorm_group_quant_fp8_fallback = std::int32_t(std::uint8_t*, float*, Half*, Half*, Half*, float, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using dynamic_mxfp4_quant = std::int32_t(std::uint8_t*, std::uint8_t*, Half*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using dynamic_mxfp4_quant_fallback = std::int32_t(std::uint8_t*, std::uint8_t*, Half*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using dynamic_mxfp8_quant = std::int32_t(std::uint8_t*, std::uint8_t*, Half*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using dynamic_mxfp8_quant_fallback = std::int32_t(std::uint8_t*, std::uint8_t*, Half*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using fp8_gemm_nt = std::int32_t(Half*, std::uint8_t*, void*, std::uint8_t*, void*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using gemm_a16w4 = std::int32_t(Half*, Half*, std::uint32_t*, std::uint16_t*, std::uint32_t*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, void*);
using gemm_a16w4_fallback = std::int32_t(Half*, Half*, std::uint32_t*, std::uint16_t*, std::uint32_t*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, void*);
using gemm_a4w4 = std::int32_t(Half*, std::uint8_t*, std::uint8_t*, std::uint8_t*, std::uint8_t*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using gemm_a8w8_blockscale = std::int32_t(Half*, std::uint8_t*, float*, std::uint8_t*, float*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using gemm_a8w8_blockscale_bpreshuffle = std::int32_t(Half*, std::uint8_t*, float*, std::uint8_t*, float*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using gemm_a8w8_fp8 = std::int32_t(Half*, std::uint8_t*, float*, std::uint8_t*, float*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using gemm_a8w8_int8 = std::int32_t(Half*, std::int8_t*, float*, std::int8_t*, float*, std::int32_t, std::int32_t, std::int32_t, void*);
using gemm_a8w8_int8_zero_point = std::int32_t(Half*, std::int8_t*, float*, std::int8_t*, float*, std::int8_t*, std::int32_t, std::int32_t, std::int32_t, void*);
using gemm_bf16 = std::int32_t(Half*, std::int64_t, Half*, std::int64_t, Half*, std::int64_t, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using gemm_bf16_fallback = std::int32_t(Half*, std::int64_t, Half*, std::int64_t, Half*, std::int64_t, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using gemm_mxfp8 = std::int32_t(Half*, std::uint8_t*, std::uint8_t*, std::uint8_t*, std::uint8_t*, std::int32_t, std::int32_t, std::int32_t, void*);
using gemm_nvfp4 = std::int32_t(Half*, std::uint8_t*, std::uint8_t*, float*, std::uint8_t*, std::uint8_t*, float*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using group_quant_fp8 = std::int32_t(std::uint8_t*, float*, Half*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using group_quant_fp8_fallback = std::int32_t(std::uint8_t*, float*, Half*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using grouped_gemm_mxfp8 = std::int32_t(Half*, std::uint8_t*, std::uint8_t*, std::uint8_t*, std::uint8_t*, std::int32_t*, std::int32_t*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, void*);
using grouped_gemm_mxfp8_f32 = std::int32_t(float*, std::uint8_t*, std::uint8_t*, std::uint8_t*, std::uint8_t*, std::int32_t*, std::int32_t*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, void*);
using moe_sort = std::int32_t(std::int32_t*, std::int32_t*, std::int32_t*, std::int32_t, std::int32_t, void*);
using moe_sort_fallback = std::int32_t(std::int32_t*, std::int32_t*, std::int32_t*, std::int32_t, std::int32_t, void*);
using moe_weighted_sum = std::int32_t(Half*, float*, float*, std::int32_t, std::int32_t, std::int32_t, void*);
using nvfp4_quant = std::int32_t(std::uint8_t*, std::uint8_t*, Half*, float*, std::int32_t, std::int32_t, bool, void*);
using nvfp4_quant_fallback = std::int32_t(std::uint8_t*, std::uint8_t*, Half*, float*, std::int32_t, std::int32_t, bool, void*);
using paged_decode = std::int32_t(Half*, Half*, std::uint8_t*, std::uint8_t*, float*, float*, std::int32_t*, std::int32_t*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, float, std::int32_t, void*);
using per_token_cast_to_fp8 = std::int32_t(std::uint8_t*, void*, Half*, std::int32_t, std::int32_t, bool, void*);
using per_token_cast_to_fp8_fallback = std::int32_t(std::uint8_t*, void*, Half*, std::int32_t, std::int32_t, bool, void*);
using rmsnorm_group_quant_fp8 = std::int32_t(std::uint8_t*, float*, Half*, Half*, float, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using rmsnorm_group_quant_fp8_fallback = std::int32_t(std::uint8_t*, float*, Half*, Half*, float, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using rope_kv_write = std::int32_t(Half*, std::uint8_t*, std::uint8_t*, Half*, Half*, Half*, float*, std::int32_t*, std::int32_t*, float*, float*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using rope_kv_write_fallback = std::int32_t(Half*, std::uint8_t*, std::uint8_t*, Half*, Half*, Half*, float*, std::int32_t*, std::int32_t*, float*, float*, std::int32_t, std::int32_t, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using sum_shards = std::int32_t(float*, float*, float*, std::int32_t, std::int32_t, void*);
using swiglu_group_quant_fp8 = std::int32_t(std::uint8_t*, float*, Half*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using swiglu_group_quant_fp8_fallback = std::int32_t(std::uint8_t*, float*, Half*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using swiglu_mxfp8_quant = std::int32_t(std::uint8_t*, std::uint8_t*, Half*, std::int32_t, std::int32_t, std::int32_t, void*);
using swiglu_mxfp8_quant_fallback = std::int32_t(std::uint8_t*, std::uint8_t*, Half*, std::int32_t, std::int32_t, std::int32_t, void*);
using token_quant_fp8 = std::int32_t(std::uint8_t*, float*, Half*, std::int32_t, std::int32_t, std::int32_t, void*);
using token_quant_fp8_fallback = std::int32_t(std::uint8_t*, float*, Half*, std::int32_t, std::int32_t, std::int32_t, void*);
using token_quant_int8 = std::int32_t(std::int8_t*, float*, Half*, std::int32_t, std::int32_t, void*);
using token_quant_int8_fallback = std::int32_t(std::int8_t*, float*, Half*, std::int32_t, std::int32_t, void*);
using topk_softmax = std::int32_t(float*, std::int32_t*, Half*, float*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
using topk_softmax_fallback = std::int32_t(float*, std::int32_t*, Half*, float*, std::int32_t, std::int32_t, std::int32_t, bool, void*);
}  // namespace accuracy::bound
