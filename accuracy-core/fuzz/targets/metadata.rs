//! Bytes as the metadata of a code object.

#![no_main]

#[path = "../codeobject.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod codeobject;

libfuzzer_sys::fuzz_target!(|input: &[u8]| codeobject::metadata(input));
