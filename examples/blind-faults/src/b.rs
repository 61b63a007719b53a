//! Kernels of set b.
