//! A launch once more, with other contents of what nobody wrote: registers, LDS, scratch and global memory. What it writes must not
//! depend on them.
//!
//! That follows each value exactly as the kernel computes it: what is masked away or multiplied by zero makes no difference
//! and is no finding. Memory is put back in between, and a third launch says who wrote what differs; it also shows whether
//! the launch gives the same twice at all. A launch costs twice its time like that, and more only where something is found.

use super::executed::Executed;
use super::launch::{Contents, Launch, LaunchError};
use super::scrutiny::journal::{Journal, Written};
use super::scrutiny::{Kind, Sighting, Source, What};
use super::unwritten::Unwritten;
use super::workgroup::WaveOrder;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that differ and are looked at.
const BYTES: usize = 4096;

/// Runs a launch that is scrutinised.
///
/// # Errors
/// As [`Launch::run`].
pub fn run(launch: &Launch<'_>, unwritten: &mut Unwritten) -> Result<Executed, LaunchError> {
    let (first, journal) = launch.run_journalled(Contents::USUAL, BTreeSet::new());
    let executed = first?;
    let executed = compare(launch, unwritten, executed, &journal);
    unwritten.wrote(&journal);
    Ok(executed)
}

/// Runs a launch again that has ended well, and leaves memory as it was before.
fn compare(
    launch: &Launch<'_>,
    unwritten: &Unwritten,
    mut executed: Executed,
    journal: &Journal,
) -> Executed {
    let wrote = journal.result();
    journal.undo();
    let all = Turned { unwritten, memory: true };
    let other = again(launch, Contents::OTHER, all, &wrote, journal);
    if matches!(other, Outcome::Same) || is_of_order(launch, all) {
        wrote.put_back();
        return executed;
    }
    let turned = Turned { unwritten, memory: false };
    let source = [
        (Source::Lds, Contents { lds: Contents::OTHER.lds, ..Contents::USUAL }, turned),
        (Source::Registers, Contents { registers: Contents::OTHER.registers, ..Contents::USUAL }, turned),
        (Source::Scratch, Contents { scratch: Contents::OTHER.scratch, ..Contents::USUAL }, turned),
        (Source::Memory, Contents::USUAL, Turned { memory: true, ..turned }),
    ];
    let source = source.into_iter().find_map(|(source, contents, turned)| {
        (!matches!(again(launch, contents, turned, &wrote, journal), Outcome::Same)).then_some(source)
    });
    let asked = match &other {
        Outcome::Differs(bytes) => bytes.clone(),
        _ => BTreeSet::new(),
    };
    let (third, last) = launch.run_journalled(Contents::USUAL, asked.clone());
    let same = third.is_ok()
        && wrote.differences(&last.result(), |at| last.held(at).or_else(|| journal.held(at)), 1).is_empty();
    if !same {
        // It differs from launch to launch, whatever nobody wrote.
        last.undo();
        wrote.put_back();
        return executed;
    }
    let mut found: BTreeMap<u64, Sighting> = BTreeMap::new();
    match other {
        Outcome::Stops(sighting) => {
            found.insert(
                sighting.0,
                Sighting { what: What::Uninitialised { source, address: true }, ..sighting.1 },
            );
        }
        _ => {
            for (byte, writer) in last.writers() {
                found.entry(writer.at).or_insert(Sighting {
                    what: What::Uninitialised { source, address: false },
                    workgroup: writer.who.workgroup,
                    wave: writer.who.wave,
                    lane: Some(writer.lane),
                    address: Some(*byte),
                });
            }
        }
    }
    for (at, sighting) in found {
        executed.seen.entry((at, Kind::Uninitialised)).or_insert(sighting);
    }
    executed
}

/// Whether what nobody wrote makes no difference if the waves take turns the other way round. Then a wave has read what
/// another one had yet to write: a barrier is missing, and all is written by somebody.
fn is_of_order(launch: &Launch<'_>, all: Turned<'_>) -> bool {
    let order = match launch.order {
        WaveOrder::FirstToLast => WaveOrder::LastToFirst,
        WaveOrder::LastToFirst => WaveOrder::FirstToLast,
        WaveOrder::InStep => return false,
    };
    let turned = Launch { order, scrutiny: None, ..*launch };
    let (result, journal) = turned.run_journalled(Contents::USUAL, BTreeSet::new());
    let wrote = journal.result();
    journal.undo();
    result.is_ok() && matches!(again(&turned, Contents::OTHER, all, &wrote, &journal), Outcome::Same)
}

/// The memory that nobody wrote, and whether it is to hold something else.
#[derive(Clone, Copy)]
struct Turned<'a> {
    unwritten: &'a Unwritten,
    memory: bool,
}

impl Turned<'_> {
    fn turn(self) {
        if self.memory {
            self.unwritten.turn();
        }
    }
}

/// What another launch did.
enum Outcome {
    Same,
    /// It left other bytes here.
    Differs(BTreeSet<u64>),
    /// It stopped at an instruction.
    Stops(Box<(u64, Sighting)>),
}

/// Runs the launch with other contents, and puts memory back.
fn again(
    launch: &Launch<'_>,
    contents: Contents,
    turned: Turned<'_>,
    wrote: &Written,
    first: &Journal,
) -> Outcome {
    turned.turn();
    let (result, journal) = launch.run_journalled(contents, BTreeSet::new());
    let now = journal.result();
    journal.undo();
    turned.turn();
    match result {
        Ok(_) => {
            let held = |at| journal.held(at).or_else(|| first.held(at));
            let differ = wrote.differences(&now, held, BYTES);
            if differ.is_empty() { Outcome::Same } else { Outcome::Differs(differ) }
        }
        Err(LaunchError::Stopped(stop)) => {
            let what = What::Uninitialised { source: None, address: true };
            let (workgroup, wave) = (stop.workgroup, stop.wave);
            Outcome::Stops(Box::new((stop.pc, Sighting { what, workgroup, wave, lane: None, address: None })))
        }
        // The same launch was not refused before.
        Err(LaunchError::Refused(_)) => Outcome::Same,
    }
}
