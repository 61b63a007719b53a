// HIP's fp8: not for the host.
#error "cargo accuracy: the host has no hip/hip_fp8.h. Take fp8 codes as uint8_t, and decode them by their bits. Include it behind #ifdef __HIP__, and give the host its own, or judge this source on a GPU alone; see \"What the host compiles\" in the guide, first-test"
