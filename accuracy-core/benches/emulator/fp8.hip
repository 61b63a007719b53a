// The block-scaled FP8 product of the package `kernels`, for `fp8.rs`: without AMD's device libraries, of which the kernel
// needs no more than this.

#include "gemm_a8w8_blockscale.hip"

extern "C" __device__ size_t __ockl_get_group_id(unsigned axis) {
    return axis == 0 ? __builtin_amdgcn_workgroup_id_x() : __builtin_amdgcn_workgroup_id_y();
}
extern "C" __device__ size_t __ockl_get_local_id(unsigned) { return __builtin_amdgcn_workitem_id_x(); }
extern "C" __device__ void __atomic_work_item_fence(__cl_mem_fence_flags, __memory_order, __memory_scope) {
    __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "workgroup");
}
