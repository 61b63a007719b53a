//! Compiles the HIP kernels that Cargo.toml names for the host architecture, so that any machine can judge their numbers.

fn main() {
    accuracy_core::build::declared();
}
