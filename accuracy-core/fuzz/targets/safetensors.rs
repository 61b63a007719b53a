//! Bytes as a safetensors file, its header or an index.

#![no_main]

#[path = "../harness.rs"]
#[expect(dead_code, reason = "the other target uses the rest")]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::safetensors(input));
