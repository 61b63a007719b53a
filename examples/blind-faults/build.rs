//! Compiles the kernels that Cargo.toml names for the host architecture.

fn main() {
    accuracy_core::build::declared();
}
