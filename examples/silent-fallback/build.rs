//! Compiles the kernels for the host architecture.

fn main() {
    accuracy_core::build::HostLibrary::new("silent_fallback")
        .file("hip/quant.hip")
        .file("hip/gemm.hip")
        .compile();
}
