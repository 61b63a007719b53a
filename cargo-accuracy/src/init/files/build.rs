//! Compiles the HIP kernels for the host architecture, so that any machine can judge their numbers.

fn main() {
    accuracy_core::build::HostLibrary::new("{{library}}").file("src/hip/first.hip").compile();
}
