//! Compiles the kernels that Cargo.toml names for the host architecture.

fn main() {
    // For the tests that compile the kernels once more, with faults in them.
    println!("cargo:rustc-env=KERNELS_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    accuracy_core::build::declared();
}
