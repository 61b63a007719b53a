//! Compiles the kernels.

fn main() {
    accuracy_core::build::HostLibrary::new("shapes").file("hip/shapes.hip").compile();
}
