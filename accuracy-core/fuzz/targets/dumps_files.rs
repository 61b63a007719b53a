//! Bytes as `.pt`, `.npz` and `.npy` files.

#![no_main]

#[path = "../dumps.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod dumps;

libfuzzer_sys::fuzz_target!(|input: &[u8]| dumps::files(input));
