//! The project's HIP kernels. Their sources are in `src/hip`, one for every architecture; each launcher has C linkage
//! and returns a status, as `src/hip/launcher.h` says. The build script compiles them for the host.
