// HIP's float16: not for the host.
#error "cargo accuracy: the host has no hip/hip_fp16.h. Take float16 as a struct of a uint16_t, or _Float16 where the compiler has it. Include it behind #ifdef __HIP__, and give the host its own, or judge this source on a GPU alone; see \"What the host compiles\" in the guide, first-test"
