//! Compiles the kernels for the host; those for a GPU come from a compiler for it.

fn main() {
    accuracy_core::build::HostLibrary::new("faults").file("hip/faults.hip").compile();
}
