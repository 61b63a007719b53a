//! Compiles the kernels, and puts a library where only another architecture's is.

fn main() {
    let library = accuracy_core::build::HostLibrary::new("faulty").file("hip/faulty.hip").compile();
    accuracy_core::build::HostLibrary::new("constructed").file("hip/constructed.hip").compile();
    std::fs::copy(&library, library.with_file_name("libforeign_gfx942.so")).expect("a library can be copied");
}
