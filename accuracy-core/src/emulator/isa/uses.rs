//! Which registers an instruction names: those that it reads and those that it writes.

use super::{Encoding, Inst, Kind, Mark, Operand, Role};

/// Numbers of registers: 256 VGPRs, 256 AGPRs, then 128 scalar registers.
pub const COUNT: usize = 512 + 128;

/// The registers of one operand, one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Number of the first, below [`COUNT`].
    pub first: u16,
    pub count: u8,
    pub written: bool,
}

impl Span {
    /// The registers that an operand of so many names, if it names any.
    fn of(operand: Operand, count: u16, written: bool) -> Option<Span> {
        let (first, end) = match operand {
            Operand::Vector(first) => (first, 512),
            Operand::Scalar(first) => (512 + u16::from(first), COUNT as u16),
            Operand::None | Operand::Constant(_) | Operand::Special(_) => return None,
        };
        let count = count.min(end.saturating_sub(first));
        (count > 0).then_some(Span { first, count: count as u8, written })
    }

    /// One bit for each of its registers' numbers, modulo 64.
    fn folded(self) -> u64 {
        self.registers().fold(0, |bits, register| bits | 1 << (register % 64))
    }

    /// The numbers of its registers.
    pub fn registers(self) -> std::ops::Range<usize> {
        usize::from(self.first)..usize::from(self.first) + usize::from(self.count)
    }
}

/// How a register is called in machine code that is written as text.
pub fn name(register: usize) -> String {
    match register {
        0..256 => format!("v{register}"),
        256..512 => format!("a{}", register - 256),
        _ => match register - 512 {
            n @ 0..102 => format!("s{n}"),
            106 => "vcc_lo".into(),
            107 => "vcc_hi".into(),
            124 => "m0".into(),
            126 => "exec_lo".into(),
            127 => "exec_hi".into(),
            n => format!("scalar register {n}"),
        },
    }
}

/// The registers that an instruction names. Those that it uses without naming them, such as EXEC, are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    spans: [Span; 8],
    len: u8,
    /// See [`Span::folded`]: those of all spans.
    folded: u64,
}

impl Uses {
    /// What a decoded instruction names.
    pub fn of(inst: &Inst) -> Uses {
        let mut uses = Uses::default();
        let mut sources = 0;
        let mut has_destination = false;
        for slot in inst.row.operands {
            let count = slot.kind.registers();
            match slot.role {
                Role::Dst | Role::DstSrc if has_destination => uses.add(inst.sdst, count, true),
                Role::Dst | Role::DstSrc => {
                    has_destination = true;
                    uses.add(inst.dst, count, true);
                    if slot.role == Role::DstSrc && !inst.encoding.is_memory() {
                        uses.add(inst.dst, count, false);
                    }
                    if inst.row.is(Mark::Atomic) {
                        uses.add(inst.src[1], count, false);
                    }
                }
                Role::Address => uses.add(inst.src[0], address(inst, count), false),
                Role::Base => uses.add(inst.src[3], count, false),
                Role::Src if inst.encoding.is_memory() => {
                    sources += 1;
                    uses.add(inst.src[sources.min(2)], count, false);
                }
                Role::Src if slot.kind == Kind::Mask => uses.add(inst.src[3], count, false),
                Role::Src if sources > 2 => {
                    uses.add(inst.matrix.scale[(sources - 3).min(1)], count, false);
                    sources += 1;
                }
                Role::Src => {
                    uses.add(inst.src[sources], source(inst, sources, count), false);
                    sources += 1;
                }
            }
        }
        match inst.encoding {
            Encoding::Global => uses.add(inst.src[3], 2, false),
            Encoding::Scratch => uses.add(inst.src[3], 1, false),
            // The scalar offset.
            Encoding::Smem | Encoding::Mubuf | Encoding::Mtbuf => uses.add(inst.src[2], 1, false),
            _ => {}
        }
        uses
    }

    fn add(&mut self, operand: Operand, count: u16, written: bool) {
        if let Some(span) = Span::of(operand, count, written)
            && !self.spans().contains(&span)
            && let Some(place) = self.spans.get_mut(usize::from(self.len))
        {
            *place = span;
            self.len += 1;
            self.folded |= span.folded();
        }
    }

    /// One bit for each number of a register, modulo 64. Two that have no bit in common have no register in common.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    pub fn spans(&self) -> &[Span] {
        &self.spans[..usize::from(self.len)]
    }
}

/// Registers of a vector address: without a scalar base, what the row says.
fn address(inst: &Inst, count: u16) -> u16 {
    match inst.encoding {
        Encoding::Mubuf | Encoding::Mtbuf => u16::from(inst.memory.offen) + u16::from(inst.memory.idxen),
        Encoding::Global | Encoding::Scratch if inst.src[3] != Operand::None => 1,
        _ => count,
    }
}

/// Registers of a source: those of a matrix may depend on its format.
fn source(inst: &Inst, index: usize, count: u16) -> u16 {
    let format = match index {
        0 => inst.matrix.cbsz,
        1 => inst.matrix.blgp,
        _ => return count,
    };
    match format {
        2 | 3 if inst.row.is(Mark::Formats) => 6,
        4 if inst.row.is(Mark::Formats) => 4,
        _ => count,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Processor, decode};
    use super::*;

    fn spans(words: &[u32]) -> Vec<(String, u8, bool)> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(16, 0);
        let inst = decode(Processor::Gfx950, &bytes).unwrap();
        inst.uses.spans().iter().map(|s| (name(s.first.into()), s.count, s.written)).collect()
    }

    #[test]
    fn loads_name_their_address_and_their_destination() {
        // global_load_dwordx4 v[4:7], v[2:3], off
        assert_eq!(spans(&[0xdc5c_8000, 0x047f_0002]), [("v4".into(), 4, true), ("v2".into(), 2, false)]);
        // global_load_dword v4, v2, s[6:7]
        assert_eq!(
            spans(&[0xdc50_8000, 0x0406_0002]),
            [("v4".into(), 1, true), ("v2".into(), 1, false), ("s6".into(), 2, false)]
        );
        // s_load_dwordx2 s[4:5], s[0:1], 0x10
        assert_eq!(spans(&[0xc006_0100, 0x10]), [("s4".into(), 2, true), ("s0".into(), 2, false)]);
        // ds_read_b64 v[2:3], v1
        assert_eq!(spans(&[0xd8ec_0000, 0x0200_0001]), [("v2".into(), 2, true), ("v1".into(), 1, false)]);
    }

    #[test]
    fn arithmetic_names_sources_and_destination() {
        // v_add_f32_e32 v0, v1, v2
        assert_eq!(
            spans(&[0x0200_0501]),
            [("v0".into(), 1, true), ("v1".into(), 1, false), ("v2".into(), 1, false)]
        );
        // v_fmac_f32_e32 v0, v1, v2 reads what it writes
        assert!(spans(&[0x7600_0501]).contains(&("v0".into(), 1, false)));
    }
}
