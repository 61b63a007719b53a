//! Bytes as the pickle of a `.pt` file.

#![no_main]

#[path = "../dumps.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod dumps;

libfuzzer_sys::fuzz_target!(|input: &[u8]| dumps::pickle(input));
