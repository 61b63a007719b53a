//! Kernels of set c.
