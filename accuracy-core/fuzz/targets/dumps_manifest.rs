//! Bytes as the manifest of a dump, and as the tree of one.

#![no_main]

#[path = "../dumps.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod dumps;

libfuzzer_sys::fuzz_target!(|input: &[u8]| dumps::manifest(input));
