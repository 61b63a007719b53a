// What every launcher of this library shares: status codes and the checks of its arguments.
//
// A launcher has C linkage, enqueues on `stream`, its last argument, and returns a Status. It refuses what it does not
// support; it never launches on arguments that it would have to ignore or could misread. ACCURACY_BOUND behind its
// definition compares its parameters with those that Rust binds.
#pragma once

#include <hip/hip_runtime.h>

#include <cstdint>
#include <cstring>

#include "fp8.h"
#include "kernels_launchers.h"

#define LAUNCHER extern "C" __attribute__((visibility("default"))) int32_t

enum Status : int32_t {
    kOk = 0,
    kInvalidArgument = 1,  // null pointer, size that is not positive, stride below the row, unknown format
    kUnsupported = 2,      // valid, but not done by this kernel: group size, alignment, format foreign to the device
    kLaunchFailed = 3,     // the runtime refused the launch
};

constexpr int32_t kGroup = 128;  // elements of K that share a scale

template <class... T>
bool any_null(const T*... pointers) {
    return (... || (pointers == nullptr));
}

inline bool is_aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

inline int32_t ceil_div(int32_t a, int32_t b) { return a / b + (a % b != 0); }

inline int32_t launch_status() { return hipGetLastError() == hipSuccess ? kOk : kLaunchFailed; }

inline bool starts_with(const char* text, const char* prefix) {
    return std::strncmp(text, prefix, std::strlen(prefix)) == 0;
}

// Whether the current device's own instructions decode the format; the bytes of one variant are valid, and mean
// something else, in the other. gfx94x has the FNUZ variants only, later parts the OCP ones only; the host decodes all.
inline Status check_format(int32_t format) {
    if (format < kE4m3fn || format > kE5m2fnuz) return kInvalidArgument;
    int device = 0;
    hipDeviceProp_t properties;
    if (hipGetDevice(&device) != hipSuccess || hipGetDeviceProperties(&properties, device) != hipSuccess) {
        return kLaunchFailed;
    }
    const char* arch = properties.gcnArchName;
    const bool fnuz = format == kE4m3fnuz || format == kE5m2fnuz;
    if (starts_with(arch, "host")) return kOk;
    if (starts_with(arch, "gfx94")) return fnuz ? kOk : kUnsupported;
    for (const char* ocp : {"gfx950", "gfx12", "sm_89", "sm_90", "sm_100"}) {
        if (starts_with(arch, ocp)) return fnuz ? kUnsupported : kOk;
    }
    return kUnsupported;
}

// The checks that all launchers with groups of K in fp8 have in common.
inline Status check_groups(int32_t m, int32_t k, int32_t format) {
    if (m <= 0 || k <= 0) return kInvalidArgument;
    if (k % kGroup != 0) return kUnsupported;
    return check_format(format);
}

// Calls `launch` with the type of a checked format.
template <class Launch>
int32_t launch_with_format(int32_t format, Launch launch) {
    switch (format) {
        case kE4m3fn: launch(E4m3fn{}); break;
        case kE4m3fnuz: launch(E4m3fnuz{}); break;
        case kE5m2: launch(E5m2{}); break;
        case kE5m2fnuz: launch(E5m2fnuz{}); break;
        default: return kInvalidArgument;
    }
    return launch_status();
}
