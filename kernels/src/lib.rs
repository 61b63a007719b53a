//! HIP kernels and their bindings.
