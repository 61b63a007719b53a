//! Known faults of the hardware: which instructions meet them, and how a build avoids them.
//!
//! A fault is one row of [`ERRATA`]. [`super::super::examine`] finds the instructions of a code object; the
//! executor computes what the instruction is documented to do, and never the fault.

use super::{Inst, Processor, Processors};

/// A fault of the hardware that an instruction can meet.
#[derive(Debug)]
pub struct Erratum {
    /// A short name, the same in text and in JSON.
    pub name: &'static str,
    pub processors: Processors,
    pub mnemonic: &'static str,
    /// The form of the instruction that meets the fault, as a disassembly shows it.
    pub form: &'static str,
    /// Whether an instruction with this mnemonic has that form.
    has_form: fn(&Inst) -> bool,
    /// What the hardware does wrong. The message puts "the instruction" before it.
    pub effect: &'static str,
    /// The compiler's flag with which the instruction is not made.
    pub avoided_by: &'static str,
    /// Where the fault is described.
    pub source: &'static str,
}

/// All known faults.
pub static ERRATA: &[Erratum] = &[Erratum {
    name: "packed-fma-high-broadcast",
    processors: Processors::Only(Processor::Gfx950),
    mnemonic: "v_pk_fma_f32",
    form: "op_sel:[0,1,0] with op_sel_hi:[*,1,*], which takes the high half of the second source for both results",
    // OP_SEL_HI is not written where it is [1,1,1]; its second bit is what makes the two results share the half.
    has_form: |inst| inst.op_sel & 7 == 0b010 && inst.op_sel_hi & 0b010 != 0,
    effect: "now and then does not add to the low result, which so lacks whole products",
    avoided_by: "-Xclang -target-feature -Xclang -packed-fp32-ops",
    source: "https://github.com/ROCm/rocMLIR/pull/2459",
}];

/// The fault that an instruction meets on a processor.
pub fn erratum_of(processor: Processor, inst: &Inst) -> Option<&'static Erratum> {
    ERRATA.iter().find(|erratum| {
        erratum.mnemonic == inst.row.mnemonic
            && erratum.processors.have(processor)
            && (erratum.has_form)(inst)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{decode, table};
    use super::*;

    fn found(processor: Processor, words: [u32; 2]) -> Option<&'static str> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let inst = decode(processor, &bytes).unwrap();
        assert_eq!(inst.row.mnemonic, "v_pk_fma_f32");
        erratum_of(processor, &inst).map(|erratum| erratum.name)
    }

    #[test]
    fn only_a_packed_fma_that_broadcasts_the_high_half_of_its_second_source_meets_its_erratum() {
        // v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[0:1] with OP_SEL and OP_SEL_HI.
        let code = |op_sel: u32, op_sel_hi: u32| {
            [0xd3b0_0000 | op_sel << 11 | (op_sel_hi >> 2) << 14, 0x0402_0902 | (op_sel_hi & 3) << 27]
        };
        for op_sel in 0..8 {
            for op_sel_hi in 0..8 {
                let words = code(op_sel, op_sel_hi);
                let expected =
                    (op_sel == 0b010 && op_sel_hi & 0b010 != 0).then_some("packed-fma-high-broadcast");
                assert_eq!(found(Processor::Gfx950, words), expected, "{op_sel:03b} {op_sel_hi:03b}");
                assert_eq!(found(Processor::Gfx942, words), None);
            }
        }
    }

    #[test]
    fn every_erratum_is_of_an_instruction_that_its_processors_have() {
        for erratum in ERRATA {
            let row = table::row(erratum.mnemonic)
                .unwrap_or_else(|| panic!("{} is no instruction", erratum.mnemonic));
            for processor in [Processor::Gfx942, Processor::Gfx950] {
                assert!(
                    !erratum.processors.have(processor) || row.processors.have(processor),
                    "{}",
                    erratum.name
                );
            }
        }
    }
}
