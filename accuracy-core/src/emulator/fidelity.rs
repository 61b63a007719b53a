//! How close to the hardware an instruction is computed.

use super::exec::matrix;
use super::processor::Processor;

/// Instructions whose results AMD bounds by an error and does not document bit for bit. Here they are rounded correctly, or
/// nearly so; a device may give a neighbouring value.
const BOUNDED: [&str; 25] = [
    "v_cos_f16",
    "v_cos_f32",
    "v_exp_f16",
    "v_exp_f32",
    "v_exp_legacy_f32",
    "v_log_f16",
    "v_log_f32",
    "v_log_legacy_f32",
    "v_rcp_f16",
    "v_rcp_f32",
    "v_rcp_f64",
    "v_rcp_iflag_f32",
    "v_rsq_f16",
    "v_rsq_f32",
    "v_rsq_f64",
    "v_sin_f16",
    "v_sin_f32",
    "v_sqrt_f16",
    "v_sqrt_f32",
    "v_sqrt_f64",
    "v_dot2_f32_f16",
    "v_dot2_f32_bf16",
    "v_dot2c_f32_f16",
    "v_dot2c_f32_bf16",
    "v_trig_preop_f64",
];

/// Whether an instruction's arithmetic is a model of what the hardware does, rather than what AMD documents bit for bit.
pub fn is_modelled(processor: Processor, mnemonic: &str) -> bool {
    BOUNDED.contains(&mnemonic) || matrix::fidelity(processor, mnemonic) == Some(matrix::Fidelity::Modelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::isa::table;

    #[test]
    fn every_instruction_of_the_list_is_in_the_table() {
        for name in BOUNDED {
            assert!(table::row(name).is_some(), "{name} is no instruction");
        }
    }
}
