// HIP's cooperative groups: not for the host.
#error "cargo accuracy: the host has no hip/hip_cooperative_groups.h. Take __syncthreads and __shfl*. Include it behind #ifdef __HIP__, and give the host its own, or judge this source on a GPU alone; see \"What the host compiles\" in the guide, first-test"
