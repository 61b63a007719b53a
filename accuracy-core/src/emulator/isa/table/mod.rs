//! The table of all instructions, one line for each.
//!
//! A line has the opcode, LLVM's mnemonic, the processors that have it (`both`, or one of them), and the operands in
//! the order of the text. The mnemonic is the name of the function in [`exec`](crate::emulator::exec) as well.
//!
//! Lines of VOP1, VOP2, VOPC and VOP3 say what the other bits of VOP3 mean, one letter each:
//!
//! | letter | meaning |
//! | --- | --- |
//! | `0` `1` `2` | this source can be negated and its absolute value taken |
//! | `x` `y` `z` | those bits of source 0, 1, 2 are accepted and have no effect |
//! | `s` | OP_SEL selects halves; `S`: but the bit of the third source has to be zero |
//! | `r` | OP_SEL has no effect; the bit of the third source has to be zero |
//! | `c` | the result can be clamped |
//! | `m` | the result can be multiplied (output modifier) |
//! | `b` | the bits of the modifiers are the truth table of `v_bitop3` |
//!
//! and which other encodings those of VOP1, VOP2 and VOPC have: `l` VOP3, `s` SDWA, `d` DPP.

use std::sync::LazyLock;

use super::{Encoding, Forms, Modifiers, OpSel, Processor, Row};

mod compare;
mod matrix;
mod memory;
mod scalar;
mod vector;

/// Writes a static slice of [`Row`]s.
macro_rules! rows {
    (
        $name:ident $encoding:ident
        $($opcode:literal $mnemonic:ident $processors:ident $($modifiers:literal $($forms:literal)?)?
            [$($role:ident $kind:ident),*];)*
    ) => {
        pub static $name: &[crate::emulator::isa::Row] = &[$(
            crate::emulator::isa::Row {
                mnemonic: stringify!($mnemonic),
                encoding: crate::emulator::isa::Encoding::$encoding,
                opcode: $opcode,
                processors: crate::emulator::isa::table::rows!(@processors $processors),
                modifiers: crate::emulator::isa::table::modifiers(concat!("", $($modifiers)?)),
                forms: crate::emulator::isa::table::forms(concat!("", $($($forms)?)?)),
                operands: &[$(crate::emulator::isa::Slot {
                    role: crate::emulator::isa::Role::$role,
                    kind: crate::emulator::isa::Kind::$kind,
                }),*],
                execute: crate::emulator::exec::$mnemonic,
            },
        )*];
    };
    (@processors both) => { crate::emulator::isa::Processors::Both };
    (@processors gfx942) => { crate::emulator::isa::Processors::Only(crate::emulator::isa::Processor::Gfx942) };
    (@processors gfx950) => { crate::emulator::isa::Processors::Only(crate::emulator::isa::Processor::Gfx950) };
}
use rows;

/// The modifiers that `letters` name.
const fn modifiers(letters: &str) -> Modifiers {
    let letters = letters.as_bytes();
    let mut modifiers =
        Modifiers { float: 0, ignored: 0, op_sel: OpSel::Ignored, clamp: false, omod: false, bitop: false };
    let mut at = 0;
    while at < letters.len() {
        match letters[at] {
            b'0'..=b'2' => modifiers.float |= 1 << (letters[at] - b'0'),
            b'x'..=b'z' => modifiers.ignored |= 1 << (letters[at] - b'x'),
            b's' => modifiers.op_sel = OpSel::Used,
            b'S' => modifiers.op_sel = OpSel::UsedButThird,
            b'r' => modifiers.op_sel = OpSel::IgnoredButThird,
            b'c' => modifiers.clamp = true,
            b'm' => modifiers.omod = true,
            b'b' => {
                modifiers.bitop = true;
                modifiers.op_sel = OpSel::Zero;
            }
            _ => panic!("an unknown letter for a modifier"),
        }
        at += 1;
    }
    modifiers
}

/// The encodings that `letters` name.
const fn forms(letters: &str) -> Forms {
    let letters = letters.as_bytes();
    let mut forms = Forms { long: false, sdwa: false, dpp: false };
    let mut at = 0;
    while at < letters.len() {
        match letters[at] {
            b'l' => forms.long = true,
            b's' => forms.sdwa = true,
            b'd' => forms.dpp = true,
            _ => panic!("an unknown letter for an encoding"),
        }
        at += 1;
    }
    forms
}

/// All rows, encoding by encoding.
pub static TABLES: &[&[Row]] = &[
    scalar::SOP1,
    scalar::SOP2,
    scalar::SOPK,
    scalar::SOPC,
    scalar::SOPP,
    scalar::SMEM,
    vector::VOP1,
    vector::VOP2,
    compare::VOPC,
    vector::VOP3,
    vector::VOP3B,
    matrix::VOP3P,
    matrix::MAI,
    matrix::VOP3PX2,
    memory::DS,
    memory::FLAT,
    memory::GLOBAL,
    memory::SCRATCH,
    memory::MUBUF,
    memory::MTBUF,
];

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The row of a mnemonic without `_e32` and the like.
pub fn row(mnemonic: &str) -> Option<&'static Row> {
    all().find(|row| row.mnemonic == mnemonic)
}

/// Distance between the opcode of a short encoding and its opcode in VOP3.
pub const fn long_offset(encoding: Encoding) -> u16 {
    match encoding {
        Encoding::Vop1 => 0x140,
        Encoding::Vop2 => 0x100,
        _ => 0,
    }
}

/// Whether the VOP3 form has a scalar destination in place of `abs` and `op_sel`.
pub fn has_scalar_destination(row: &Row) -> bool {
    use super::{Kind, Role, Slot};
    const MASK: Slot = Slot { role: Role::Dst, kind: Kind::Mask };
    row.operands.len() > 1 && row.operands[1] == MASK
}

/// Rows by what a decoder reads: a group of encodings and an opcode.
struct Lookup {
    /// For each of two processors and each encoding, rows by opcode.
    by_encoding: Vec<Vec<Option<&'static Row>>>,
}

const ENCODINGS: usize = 20;

fn slot(processor: Processor, encoding: Encoding) -> usize {
    encoding as usize + if processor == Processor::Gfx950 { ENCODINGS } else { 0 }
}

static LOOKUP: LazyLock<Lookup> = LazyLock::new(|| {
    let mut by_encoding = vec![Vec::new(); 2 * ENCODINGS];
    let mut put = |processor, encoding, opcode: u16, row| {
        let of: &mut Vec<_> = &mut by_encoding[slot(processor, encoding)];
        let at = usize::from(opcode);
        if of.len() <= at {
            of.resize(at + 1, None);
        }
        of[at] = Some(row);
    };
    for row in all() {
        for processor in [Processor::Gfx942, Processor::Gfx950] {
            if !row.processors.have(processor) {
                continue;
            }
            put(processor, row.encoding, row.opcode, row);
            if row.forms.long || row.encoding == Encoding::Vop3b {
                // The decoder finds VOP3B under VOP3, from which its prefix does not differ.
                put(processor, Encoding::Vop3, row.opcode + long_offset(row.encoding), row);
            }
        }
    }
    Lookup { by_encoding }
});

/// The row with `opcode` in `encoding`. For VOP3, that is the opcode of the long form.
pub fn find(processor: Processor, encoding: Encoding, opcode: u32) -> Option<&'static Row> {
    *LOOKUP.by_encoding[slot(processor, encoding)].get(usize::try_from(opcode).ok()?)?
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn no_two_instructions_of_a_processor_have_the_same_opcode() {
        for processor in [Processor::Gfx942, Processor::Gfx950] {
            let mut seen = HashMap::new();
            for row in all().filter(|row| row.processors.have(processor)) {
                // MAI shares its prefix with VOP3P, VOP3B with VOP3.
                let place = match row.encoding {
                    Encoding::Mai => Encoding::Vop3p,
                    Encoding::Vop3b => Encoding::Vop3,
                    encoding => encoding,
                };
                let mut places = vec![(place, row.opcode)];
                if row.forms.long {
                    places.push((Encoding::Vop3, row.opcode + long_offset(row.encoding)));
                }
                for place in places {
                    let other = seen.insert(place, row.mnemonic);
                    assert_eq!(other, None, "{place:?} is {} as well", row.mnemonic);
                }
            }
        }
    }

    #[test]
    fn every_mnemonic_stands_in_the_table_once() {
        let mut seen = HashMap::new();
        for row in all() {
            assert_eq!(seen.insert(row.mnemonic, row.encoding), None, "{}", row.mnemonic);
        }
        assert_eq!(seen.len(), 1250);
    }

    #[test]
    fn instructions_of_vop1_vop2_and_vopc_have_a_long_form_but_for_those_listed_here() {
        let without: Vec<_> = all()
            .filter(|row| matches!(row.encoding, Encoding::Vop1 | Encoding::Vop2 | Encoding::Vopc))
            .filter(|row| !row.forms.long)
            .map(|row| row.mnemonic)
            .collect();
        let expected = [
            "v_readfirstlane_b32",
            "v_swap_b32",
            "v_accvgpr_mov_b32",
            "v_fmamk_f32",
            "v_fmaak_f32",
            "v_madmk_f16",
            "v_madak_f16",
        ];
        assert_eq!(without, expected);
    }

    #[test]
    fn the_decoder_finds_every_row_by_its_opcode() {
        for row in all().filter(|row| row.encoding != Encoding::Vop3b) {
            for processor in [Processor::Gfx942, Processor::Gfx950] {
                let found = find(processor, row.encoding, u32::from(row.opcode)).map(|row| row.mnemonic);
                assert_eq!(found, row.processors.have(processor).then_some(row.mnemonic));
            }
        }
    }

    #[test]
    fn operands_that_negate_are_floats_or_bits() {
        for row in all() {
            let sources = row.operands.iter().skip(1).filter(|slot| slot.kind != super::super::Kind::Mask);
            for (source, slot) in sources.enumerate().take(3) {
                let negates = row.modifiers.float >> source & 1 != 0;
                let can = slot.kind.is_float() || row.mnemonic == "v_cndmask_b32";
                assert!(!negates || can, "{} source {source}", row.mnemonic);
            }
        }
    }
}
