// HIP's older bfloat16: not for the host.
#error "cargo accuracy: the host has no hip/hip_bfloat16.h. Take bfloat16 as a struct of a uint16_t, as the kernels of 'cargo accuracy init' do. Include it behind #ifdef __HIP__, and give the host its own, or judge this source on a GPU alone; see \"What the host compiles\" in the guide, first-test"
