//! A kernel crate with a planted bug: `group_quant_fp8_fallback` accepts `shuffle_scale` and ignores it.
