//! The values of the registers that an instruction names, and how they are written.

use crate::emulator::isa::uses::{self, Span};
use crate::emulator::isa::{Inst, Kind, Operand, Role};
use crate::emulator::wave::{LANES, Wave};
use crate::trace::Lane;
use std::fmt::Write as _;

/// Vector registers, VGPRs and AGPRs, come before scalar ones.
const VECTORS: usize = 512;
/// Registers of one operand that are written out.
const WORDS: usize = 8;

/// The registers of one operand of an instruction, with what they hold.
pub struct Value {
    span: Span,
    kind: Kind,
    words: Vec<Word>,
}

/// One register.
struct Word {
    /// A scalar register, or the shown lane of a vector one.
    one: u32,
    /// Whether all lanes that are on have the same.
    alike: bool,
    /// All lanes, where all are shown.
    all: Option<Box<[u32; LANES]>>,
}

/// The registers that an instruction reads, or those that it writes.
pub fn read(wave: &Wave, inst: &Inst, written: bool, lanes: Lane) -> Vec<Value> {
    let spans = inst.uses.spans().iter().filter(|span| span.written == written);
    spans.map(|span| Value::read(wave, inst, *span, lanes)).collect()
}

impl Value {
    fn read(wave: &Wave, inst: &Inst, span: Span, lanes: Lane) -> Value {
        let exec = wave.exec();
        let words = span.registers().map(|register| match register.checked_sub(VECTORS) {
            Some(scalar) => Word { one: wave.s[scalar & 127], alike: true, all: None },
            None => {
                let held = &wave.v[register].0;
                let first = exec.trailing_zeros() as usize % LANES;
                let lane = if let Lane::One(lane) = lanes { usize::from(lane) % LANES } else { first };
                let mut on = (0..LANES).filter(|lane| exec >> lane & 1 != 0);
                let alike = exec != 0 && on.all(|lane| held[lane] == held[first]);
                let all = (lanes == Lane::All && !alike).then(|| Box::new(*held));
                Word { one: if alike { held[first] } else { held[lane] }, alike, all }
            }
        });
        Value { span, kind: kind(inst, span), words: words.collect() }
    }

    fn is_scalar(&self) -> bool {
        usize::from(self.span.first) >= VECTORS
    }

    /// Whether it is a scalar register of this name, or a pair of them.
    pub fn is_named(&self, name: &str) -> bool {
        self.is_scalar() && uses::name(self.span.first.into()).trim_end_matches("_lo") == name
    }

    /// `v[4:7]`, `vcc`.
    fn name(&self) -> String {
        let (first, count) = (usize::from(self.span.first), usize::from(self.span.count));
        let name = uses::name(first);
        match count {
            1 => name,
            _ if name.ends_with("_lo") => name.trim_end_matches("_lo").to_owned(),
            _ => {
                let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
                let (letter, number) = name.split_at(digits);
                match number.parse::<usize>() {
                    Ok(number) => format!("{letter}[{number}:{}]", number + count - 1),
                    Err(_) => format!("{name} and {} more", count - 1),
                }
            }
        }
    }

    /// The value as text: one line, or one for every eight lanes.
    pub fn write(&self, lanes: Lane) -> Vec<String> {
        let name = self.name();
        let words: Vec<u32> = self.words.iter().map(|word| word.one).collect();
        if self.is_scalar() {
            return vec![format!("{name} = {}", shown(self.kind, &words))];
        }
        if self.words.iter().all(|word| word.alike) {
            return vec![format!("{name}[*] = {}", shown(self.kind, &words))];
        }
        match lanes {
            Lane::One(lane) => vec![format!("{name}[{lane}] = {}", shown(self.kind, &words))],
            Lane::All => (0..LANES).step_by(4).map(|first| self.four(&name, first)).collect(),
        }
    }

    /// Four lanes of it.
    fn four(&self, name: &str, first: usize) -> String {
        let mut text = format!("{name}[{first}..{}] =", first + 3);
        for lane in first..first + 4 {
            let of = |word: &Word| word.all.as_ref().map_or(word.one, |all| all[lane]);
            let words: Vec<u32> = self.words.iter().map(of).collect();
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{}", if lane > first { " | " } else { " " }, shown(self.kind, &words));
        }
        text
    }
}

/// The meaning of the registers that an instruction names.
fn kind(inst: &Inst, span: Span) -> Kind {
    let is = |operand: Operand| match operand {
        Operand::Vector(register) => register == span.first,
        Operand::Scalar(register) => 512 + u16::from(register) == span.first,
        _ => false,
    };
    let memory = inst.encoding.is_memory();
    let (mut sources, mut has_destination) = (0, false);
    for slot in inst.row.operands {
        let operand = match slot.role {
            Role::Dst | Role::DstSrc if has_destination => inst.sdst,
            Role::Dst | Role::DstSrc => {
                has_destination = true;
                inst.dst
            }
            Role::Address => inst.src[0],
            Role::Base => inst.src[3],
            Role::Src if slot.kind == Kind::Mask => inst.src[3],
            Role::Src => {
                sources += 1;
                inst.src[if memory { sources.min(2) } else { (sources - 1).min(2) }]
            }
        };
        let writes = matches!(slot.role, Role::Dst | Role::DstSrc);
        let reads = slot.role != Role::Dst;
        if is(operand) && (span.written && writes || !span.written && reads) {
            return slot.kind;
        }
    }
    Kind::B32
}

fn half(bits: u16) -> f64 {
    half::f16::from_bits(bits).to_f64()
}

/// A value as hexadecimal digits and, where its kind says more, as a number.
fn shown(kind: Kind, words: &[u32]) -> String {
    let mut text = match words {
        [low, high] if !matches!(kind, Kind::PkF32 | Kind::PkB32) => format!("0x{high:08x}{low:08x}"),
        _ => {
            let digits: Vec<String> = words.iter().take(WORDS).map(|word| format!("0x{word:08x}")).collect();
            digits.join(" ")
        }
    };
    if words.len() > WORDS {
        text += &format!(" and {} more registers", words.len() - WORDS);
    }
    if let Some(number) = number(kind, words) {
        text += &format!(" ({number})");
    }
    text
}

/// A value as a number; `None` where its bits have no meaning of their own.
fn number(kind: Kind, words: &[u32]) -> Option<String> {
    let (first, second) = (*words.first()?, words.get(1).copied());
    let long = || Some(u64::from(second?) << 32 | u64::from(first));
    let halves = |of: fn(u16) -> f64| format!("{}, {}", of(first as u16), of((first >> 16) as u16));
    let float = |word: u32| f32::from_bits(word).to_string();
    Some(match kind {
        Kind::F32 => float(first),
        Kind::PkF32 => format!("{}, {}", float(first), float(second?)),
        Kind::F64 => f64::from_bits(long()?).to_string(),
        Kind::F16 => half(first as u16).to_string(),
        Kind::BF16 => f32::from_bits(first << 16).to_string(),
        Kind::PkF16 => halves(half),
        Kind::PkBF16 => halves(|bits| f64::from(f32::from_bits(u32::from(bits) << 16))),
        Kind::PkI16 => format!("{}, {}", first as i16, (first >> 16) as i16),
        Kind::PkU16 => format!("{}, {}", first & 0xffff, first >> 16),
        Kind::I16 => (first as i16).to_string(),
        Kind::U16 => (first & 0xffff).to_string(),
        Kind::I32 => (first as i32).to_string(),
        Kind::U32 => first.to_string(),
        Kind::I64 => (long()? as i64).to_string(),
        Kind::U64 => long()?.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_their_kind_has_them() {
        assert_eq!(shown(Kind::F32, &[0x3fc0_0000]), "0x3fc00000 (1.5)");
        assert_eq!(shown(Kind::I32, &[u32::MAX]), "0xffffffff (-1)");
        assert_eq!(shown(Kind::B32, &[7]), "0x00000007");
        assert_eq!(shown(Kind::B64, &[1, 2]), "0x0000000200000001");
        assert_eq!(shown(Kind::PkF16, &[0x3c00_4000]), "0x3c004000 (2, 1)");
        assert_eq!(shown(Kind::BF16, &[0x3fc0]), "0x00003fc0 (1.5)");
        assert!(shown(Kind::B512, &[0; 16]).ends_with(" and 8 more registers"));
    }
}
