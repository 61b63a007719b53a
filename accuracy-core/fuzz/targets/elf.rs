//! Bytes as an ELF file: a kernel library, a code object or a cubin.

#![no_main]

#[path = "../codeobject.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod codeobject;

libfuzzer_sys::fuzz_target!(|input: &[u8]| codeobject::elf(input));
