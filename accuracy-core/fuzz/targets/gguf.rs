//! Bytes behind the magic of a GGUF file.

#![no_main]

#[path = "../harness.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::gguf(input));
