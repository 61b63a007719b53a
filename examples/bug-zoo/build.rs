//! Compiles the kernels that Cargo.toml names for the host architecture. The variants of each chain are the rows of a table
//! in `zoo/`; `hip/variants.h` has them for the kernels, and a test says whether it still does.

fn main() {
    accuracy_core::build::declared();
}
