// cuBLASLt's FP8 GEMM with block scales, as a launcher. cuBLASLt is column-major: y [m, n] row-major is its D [n, m],
// W [n, k] its transposed A, X [m, k] its B. Scales: 128x128 blocks of A with K innermost, 1x128 groups of B with the
// row of X innermost (cuBLAS documentation, "Scaling Factors Layouts").

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace {

enum Status : int32_t { kOk = 0, kInvalidArgument = 1, kUnsupported = 2, kLaunchFailed = 3 };

constexpr size_t kWorkspaceBytes = 32 << 20;

struct Library {
    cublasLtHandle_t handle = nullptr;
    void* workspace = nullptr;
    bool ready = cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS &&
                 cudaMalloc(&workspace, kWorkspaceBytes) == cudaSuccess;
};

// Destroys what it has been given, whatever happens in between.
template <class T, cublasStatus_t (*Destroy)(T)>
struct Owned {
    T value = nullptr;
    ~Owned() {
        if (value) Destroy(value);
    }
};

template <class T>
bool set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, T value) {
    return cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int32_t cublaslt_gemm_a8w8_blockscale(
    void* y, const uint8_t* xq, const float* xs, const uint8_t* wq, const float* ws, int32_t m, int32_t n, int32_t k,
    int32_t format, bool shuffle_scale, cudaStream_t stream) {
    if (!y || !xq || !xs || !wq || !ws || m <= 0 || n <= 0 || k <= 0) return kInvalidArgument;
    // A row of W's scales is padded to a multiple of four, which only such a K makes no difference to.
    if (format != 0 || !shuffle_scale || k % 512 != 0 || n % 128 != 0 || m % 4 != 0) return kUnsupported;
    static Library library;
    if (!library.ready) return kLaunchFailed;

    Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> desc;
    if (cublasLtMatmulDescCreate(&desc.value, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
        !set(desc.value, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T) ||
        !set(desc.value, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F) ||
        !set(desc.value, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F) ||
        !set(desc.value, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, ws) ||
        !set(desc.value, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, xs)) {
        return kLaunchFailed;
    }
    Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy> a, b, d;
    if (cublasLtMatrixLayoutCreate(&a.value, CUDA_R_8F_E4M3, k, n, k) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatrixLayoutCreate(&b.value, CUDA_R_8F_E4M3, k, m, k) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatrixLayoutCreate(&d.value, CUDA_R_16BF, n, m, n) != CUBLAS_STATUS_SUCCESS) {
        return kLaunchFailed;
    }
    Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference;
    size_t bytes = kWorkspaceBytes;
    if (cublasLtMatmulPreferenceCreate(&preference.value) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulPreferenceSetAttribute(preference.value, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                             sizeof bytes) != CUBLAS_STATUS_SUCCESS) {
        return kLaunchFailed;
    }
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    if (cublasLtMatmulAlgoGetHeuristic(library.handle, desc.value, a.value, b.value, d.value, d.value,
                                       preference.value, 1, &best, &found) != CUBLAS_STATUS_SUCCESS ||
        found == 0) {
        return kUnsupported;
    }
    const float alpha = 1.0f, beta = 0.0f;
    const cublasStatus_t status =
        cublasLtMatmul(library.handle, desc.value, &alpha, wq, a.value, xq, b.value, &beta, y, d.value, y, d.value,
                       &best.algo, library.workspace, kWorkspaceBytes, stream);
    return status == CUBLAS_STATUS_SUCCESS ? kOk : kLaunchFailed;
}
