//! What a launch has executed, and what was seen on the way.

use super::hazards::Hazard;
use super::isa::errata::Erratum;
use super::isa::{Inst, Row};
use super::loader::{Decoded, Module};
use super::scrutiny::Sightings;
use super::waits::MissingWait;
use super::wave::Wave;
use std::collections::{BTreeMap, HashMap};

/// What a launch executed.
#[derive(Clone, Debug, Default)]
pub struct Executed {
    /// Wave instructions by mnemonic.
    pub instructions: HashMap<&'static str, u64>,
    /// Where a register was used before its load was waited for, by the address of the instruction that uses it.
    pub missing_waits: BTreeMap<u64, Unawaited>,
    /// What else was seen, of a launch that is scrutinised.
    pub seen: Sightings,
    /// The executed instructions that meet a known fault of the hardware.
    pub errata: BTreeMap<u64, &'static Erratum>,
    /// The executed instructions that are too close to an executed one whose result they use.
    pub hazards: BTreeMap<u64, Hazard>,
}

/// A missing wait, and the first wave that was seen to miss it.
#[derive(Clone, Debug)]
pub struct Unawaited {
    pub missing: MissingWait,
    pub workgroup: [u32; 3],
    pub wave: u32,
}

/// Counts the executed instructions of a module.
pub struct Counts {
    executed: Vec<u64>,
    elsewhere: HashMap<&'static str, u64>,
    missing_waits: BTreeMap<u64, Unawaited>,
}

impl Counts {
    pub(super) fn new(module: &Module) -> Counts {
        Counts {
            executed: vec![0; module.instruction_count()],
            elsewhere: HashMap::new(),
            missing_waits: BTreeMap::new(),
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, first: Option<usize>, index: usize, inst: &Inst) {
        match first {
            Some(first) => self.executed[first + index] += 1,
            None => *self.elsewhere.entry(inst.row.mnemonic).or_default() += 1,
        }
    }

    #[cold]
    pub(super) fn add_missing_wait(&mut self, at: u64, missing: MissingWait, wave: &Wave) {
        let (workgroup, wave) = (wave.group.id, wave.index);
        self.missing_waits.entry(at).or_insert(Unawaited { missing, workgroup, wave });
    }

    pub(super) fn into_executed(self, module: &Module) -> Executed {
        let mut instructions = self.elsewhere;
        let executed = self.executed;
        for (decoded, count) in module.instructions().zip(&executed) {
            if let (Decoded::Inst(Inst { row: Row { mnemonic, .. }, .. }), count @ 1..) = (decoded, *count) {
                *instructions.entry(mnemonic).or_default() += count;
            }
        }
        let ran = |number: usize| executed.get(number).is_some_and(|n| *n > 0);
        let errata = module.errata().iter().filter(|(number, ..)| ran(*number));
        let errata = errata.map(|(_, at, erratum)| (*at, *erratum)).collect();
        let hazards = module.hazards().iter().filter(|(number, _, h)| ran(*number) && ran(h.first.1));
        let hazards = hazards.map(|(_, at, hazard)| (*at, *hazard)).collect();
        let missing_waits = self.missing_waits;
        Executed { instructions, missing_waits, seen: Sightings::new(), errata, hazards }
    }
}

impl Executed {
    pub fn add(&mut self, other: Executed) {
        for (mnemonic, count) in other.instructions {
            *self.instructions.entry(mnemonic).or_default() += count;
        }
        for (at, unawaited) in other.missing_waits {
            self.missing_waits.entry(at).or_insert(unawaited);
        }
        for (at, sighting) in other.seen {
            self.seen.entry(at).or_insert(sighting);
        }
        self.errata.extend(other.errata);
        self.hazards.extend(other.hazards);
    }
}
