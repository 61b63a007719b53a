//! Which code depends on which branch: from a branch up to the place where its ways meet again.
//!
//! A value that is written there, or that would have been written on the other way, depends on the branch's condition.

use crate::emulator::isa::uses::COUNT;
use crate::emulator::isa::{Encoding, Inst, Mark};
use crate::emulator::loader::Module;
use std::collections::{BTreeSet, HashMap};

/// The code that one branch decides about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Address at which its ways meet; none where they meet only at the end.
    pub join: Option<u64>,
    /// Registers that are written on one of its ways, by their numbers in [`crate::emulator::isa::uses`].
    pub written: Vec<usize>,
    /// Whether memory is written on one of them.
    pub stores: bool,
}

/// Instructions that are executed one after the other.
struct Block {
    first: u64,
    /// Places of its instructions in the code.
    code: std::ops::Range<usize>,
    next: Vec<usize>,
}

/// The branches of a module.
pub struct Branches {
    blocks: Vec<Block>,
    /// For each block the one through which every way from it goes.
    meets: Vec<Option<usize>>,
    /// For each instruction the registers that it writes, and whether it writes memory.
    writes: Vec<(Vec<usize>, bool)>,
    known: HashMap<u64, Region>,
}

/// How code goes on behind an instruction.
enum Goes {
    On,
    To(u64),
    Either(u64),
    Away,
}

fn goes(at: u64, inst: &Inst) -> Goes {
    let name = inst.row.mnemonic;
    let behind = at + u64::from(inst.size);
    let to = || behind.wrapping_add_signed(4 * i64::from(inst.imm));
    match name {
        "s_branch" => Goes::To(to()),
        "s_endpgm" | "s_setpc_b64" => Goes::Away,
        _ if inst.encoding == Encoding::Sopp && name.starts_with("s_cbranch_") => Goes::Either(to()),
        _ => Goes::On,
    }
}

impl Branches {
    pub fn of(module: &Module) -> Branches {
        let code: Vec<(u64, &Inst)> = module.code().map(|(_, at, inst)| (at, inst)).collect();
        let mut starts: BTreeSet<u64> = code.first().map(|(at, _)| *at).into_iter().collect();
        for (i, (at, inst)) in code.iter().enumerate() {
            let goes = goes(*at, inst);
            if let Goes::To(to) | Goes::Either(to) = goes {
                starts.insert(to);
            }
            let behind = at + u64::from(inst.size);
            let gap = code.get(i + 1).is_some_and(|(next, _)| *next != behind);
            if !matches!(goes, Goes::On) || gap {
                starts.extend(code.get(i + 1).map(|(next, _)| *next));
            }
        }
        let place = |at: u64| code.binary_search_by_key(&at, |(at, _)| *at).ok();
        let mut blocks: Vec<Block> = Vec::new();
        for at in starts {
            let Some(first) = place(at) else { continue };
            if let Some(last) = blocks.last_mut() {
                last.code.end = first;
            }
            blocks.push(Block { first: at, code: first..code.len(), next: Vec::new() });
        }
        let of: HashMap<u64, usize> = blocks.iter().enumerate().map(|(i, block)| (block.first, i)).collect();
        for block in &mut blocks {
            let Some((at, inst)) = block.code.clone().last().map(|last| code[last]) else { continue };
            let behind = at + u64::from(inst.size);
            let next = match goes(at, inst) {
                Goes::On => vec![behind],
                Goes::To(to) => vec![to],
                Goes::Either(to) => vec![behind, to],
                Goes::Away => Vec::new(),
            };
            block.next = next.iter().filter_map(|at| of.get(at).copied()).collect();
        }
        let next: Vec<&[usize]> = blocks.iter().map(|block| &block.next[..]).collect();
        let meets = meets(&next);
        let writes = code.iter().map(|(_, inst)| writes(inst)).collect();
        Branches { blocks, meets, writes, known: HashMap::new() }
    }

    /// The code that a branch at an address decides about.
    pub fn region(&mut self, at: u64) -> Region {
        if let Some(region) = self.known.get(&at) {
            return region.clone();
        }
        let region = self.find(at);
        self.known.insert(at, region.clone());
        region
    }

    fn find(&self, at: u64) -> Region {
        let after = self.blocks.partition_point(|block| block.first <= at);
        let Some(branch) = after.checked_sub(1) else { return Region::default() };
        let join = self.meets.get(branch).copied().flatten();
        let mut seen = vec![false; self.blocks.len()];
        let mut open = self.blocks[branch].next.clone();
        let (mut written, mut stores) = ([false; COUNT], false);
        while let Some(block) = open.pop() {
            if Some(block) == join || std::mem::replace(&mut seen[block], true) {
                continue;
            }
            for place in self.blocks[block].code.clone() {
                let (registers, writes_memory) = &self.writes[place];
                registers.iter().for_each(|register| written[*register] = true);
                stores |= *writes_memory;
            }
            open.extend(&self.blocks[block].next);
        }
        let written = (0..COUNT).filter(|register| written[*register]).collect();
        Region { join: join.map(|block| self.blocks[block].first), written, stores }
    }
}

fn writes(inst: &Inst) -> (Vec<usize>, bool) {
    let spans = inst.uses.spans().iter().filter(|span| span.written);
    let registers = spans.flat_map(|span| span.registers()).collect();
    let memory = inst.encoding.is_memory();
    (registers, memory && (inst.row.mnemonic.contains("store") || inst.row.is(Mark::Atomic)))
}

/// For each node the nearest one through which every way from it to an end goes: its immediate post-dominator.
///
/// Source of the method: Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm", 2001.
fn meets(next: &[&[usize]]) -> Vec<Option<usize>> {
    let end = next.len();
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); end + 1];
    for (node, after) in next.iter().enumerate() {
        after.iter().for_each(|to| before[*to].push(node));
        if after.is_empty() {
            before[end].push(node);
        }
    }
    // The nodes from which an end is reached, those that are nearest to it last.
    let mut number = vec![usize::MAX; end + 1];
    let mut order = Vec::new();
    let mut open = vec![(end, 0)];
    let mut seen = vec![false; end + 1];
    seen[end] = true;
    while let Some((node, at)) = open.pop() {
        match before[node].get(at) {
            Some(&from) => {
                open.push((node, at + 1));
                if !std::mem::replace(&mut seen[from], true) {
                    open.push((from, 0));
                }
            }
            None => {
                number[node] = order.len();
                order.push(node);
            }
        }
    }
    let mut found: Vec<Option<usize>> = vec![None; end + 1];
    found[end] = Some(end);
    let common = |found: &[Option<usize>], mut a: usize, mut b: usize| {
        while a != b {
            while number[a] < number[b] {
                a = found[a].unwrap_or(end);
            }
            while number[b] < number[a] {
                b = found[b].unwrap_or(end);
            }
        }
        a
    };
    let mut changes = true;
    while changes {
        changes = false;
        for &node in order.iter().rev().filter(|node| **node != end) {
            let after: &[usize] = if next[node].is_empty() { &[end] } else { next[node] };
            let known = after.iter().copied().filter(|to| found[*to].is_some());
            let meets = known.reduce(|a, b| common(&found, a, b));
            if meets.is_some() && found[node] != meets {
                found[node] = meets;
                changes = true;
            }
        }
    }
    found.truncate(end);
    found.into_iter().map(|meets| meets.filter(|node| *node != end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_meet_where_all_of_them_go_through() {
        // 0 goes to 1 or 2, which meet at 3; 3 goes round to 0 or on to 4.
        let next: [&[usize]; 5] = [&[1, 2], &[3], &[3], &[0, 4], &[]];
        assert_eq!(meets(&next), [Some(3), Some(3), Some(3), Some(4), None]);
    }

    #[test]
    fn ways_that_end_apart_never_meet() {
        let next: [&[usize]; 4] = [&[1, 2], &[], &[3], &[]];
        assert_eq!(meets(&next), [None, None, Some(3), None]);
        // A circle without a way out has no end.
        let circle: [&[usize]; 3] = [&[1, 2], &[1], &[]];
        assert_eq!(meets(&circle)[1], None);
    }
}
