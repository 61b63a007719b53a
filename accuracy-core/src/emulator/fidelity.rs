//! How close to the hardware an instruction is computed.

use super::exec::matrix;
use super::isa::{Mark, Row, table};
use super::processor::Processor;

/// Whether an instruction's result is a model of what the hardware gives, rather than what AMD documents bit for bit.
pub fn is_modelled(processor: Processor, mnemonic: &str) -> bool {
    table::row(mnemonic).is_some_and(|row| row_is_modelled(processor, row))
}

/// The same for a row of the table.
pub fn row_is_modelled(processor: Processor, row: &Row) -> bool {
    row.is(Mark::Modelled) || matrix::fidelity(processor, row.mnemonic) == Some(matrix::Fidelity::Modelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocals_and_matrix_cores_that_are_not_published_are_a_model() {
        for (mnemonic, on_gfx942, on_gfx950) in [
            ("v_add_f32", false, false),
            ("v_rcp_f32", true, true),
            ("v_mfma_f32_16x16x16_f16", false, true),
            ("v_mfma_i32_16x16x32_i8", false, false),
        ] {
            assert_eq!(is_modelled(Processor::Gfx942, mnemonic), on_gfx942, "{mnemonic}");
            assert_eq!(is_modelled(Processor::Gfx950, mnemonic), on_gfx950, "{mnemonic}");
        }
    }
}
