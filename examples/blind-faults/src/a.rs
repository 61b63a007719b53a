//! Kernels of set a.
