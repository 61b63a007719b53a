//! Bytes as `config.json`, and as `hf_quant_config.json`, beside weights of every scheme.

#![no_main]

#[path = "../harness.rs"]
#[expect(dead_code, reason = "the other target uses the rest")]
mod harness;

libfuzzer_sys::fuzz_target!(|input: &[u8]| harness::config(input));
