// A right GEMM in a library whose constructor changes how its process rounds.

#include <cfenv>
#include <cstdint>
#include <cstring>

__attribute__((constructor)) static void round_toward_zero() {
    std::fesetround(FE_TOWARDZERO);
}

static float to_float(uint16_t x) {
    uint32_t bits = uint32_t{x} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

extern "C" __attribute__((visibility("default"))) int32_t gemm_of_a_constructed_library(
    uint16_t* y, uint16_t* x, uint16_t* w, int32_t m, int32_t n, int32_t k, void*) {
    for (int32_t row = 0; row < m; ++row) {
        for (int32_t column = 0; column < n; ++column) {
            float sum = 0.0f;
            for (int32_t i = 0; i < k; ++i) sum += to_float(x[row * k + i]) * to_float(w[column * k + i]);
            uint32_t bits;
            std::memcpy(&bits, &sum, sizeof bits);
            y[row * n + column] = uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        }
    }
    return 0;
}
