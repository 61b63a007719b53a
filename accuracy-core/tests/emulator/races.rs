//! Kernels of `races.hip`: the race is found at the lines that make it, and the same kernel without it has none, whichever
//! wave comes first.

use super::{PROCESSORS, Run, compile};
use accuracy_core::emulator::WaveOrder;
use accuracy_core::emulator::launch::Watched;
use accuracy_core::emulator::loader::Module;
use accuracy_core::emulator::scrutiny::What;
use std::collections::BTreeSet;

const SOURCE: &str = include_str!("races.hip");

/// Kernels with a race, with their workgroups and threads. Each has another one, `.._ordered`, without.
pub const RACES: [(&str, u32, u32); 9] = [
    ("through_lds", 1, 256),
    ("tile_again", 1, 256),
    ("through_memory", 1, 256),
    ("other_block", 2, 64),
    ("same_place", 2, 64),
    ("last_block", 4, 64),
    ("flag", 2, 64),
    ("bytes", 2, 128),
    ("transfer", 1, 256),
];

/// Kernels that others mistake for a race.
const ORDERED: [(&str, u32, u32); 2] = [("flag_in_lds_ordered", 1, 128), ("agreed_ordered", 2, 256)];

/// The lines of the accesses that race.
fn races(module: &Module, (kernel, blocks, threads): (&str, u32, u32), order: WaveOrder) -> BTreeSet<u32> {
    let (mut y, mut z) = (vec![-1.0_f32; 4096], vec![-1.0_f32; 4096]);
    let mut x: Vec<f32> = (0..4096).map(|i| i as f32 * 0.5).collect();
    let mut flags = [0_u32; 4];
    let mut run = Run::new(module, kernel, blocks, threads).buffer(&mut y).buffer(&mut z);
    run.order = order;
    run.scrutiny = Some(Watched { races: true, ..Watched::default() });
    let executed = run.buffer(&mut x).buffer(&mut flags).execute().unwrap();
    let line = |at| module.line(at).map(|(_, line)| line);
    let lines = |((at, _), seen): (&(u64, _), &_)| match seen {
        What::Race(race) => [line(*at), line(race.other)],
        other => panic!("{kernel}: {other:?}"),
    };
    executed.seen.iter().map(|(at, seen)| (at, &seen.what)).flat_map(lines).flatten().collect()
}

/// The lines of the source that end with a kernel's name.
fn marked(kernel: &str) -> BTreeSet<u32> {
    let lines = SOURCE.lines().zip(1..).filter(|(text, _)| text.ends_with(&format!("// {kernel}")));
    lines.map(|(_, number)| number).collect()
}

#[test]
fn a_race_is_found_at_the_lines_that_make_it_and_none_where_something_orders_the_waves() {
    for processor in PROCESSORS {
        let Some(file) = compile::hip(processor, "races.hip", &["-O2", "-g"]) else { return };
        let module = Module::load(&file, processor).unwrap();
        for order in [WaveOrder::FirstToLast, WaveOrder::LastToFirst] {
            for (kernel, blocks, threads) in RACES {
                let found = races(&module, (kernel, blocks, threads), order);
                assert_eq!(found, marked(kernel), "{kernel} on {}, {order:?}", processor.name());
                let ordered = format!("{kernel}_ordered");
                let found = races(&module, (&ordered, blocks, threads), order);
                assert_eq!(found, BTreeSet::new(), "{ordered} on {}, {order:?}", processor.name());
            }
            for kernel in ORDERED {
                assert_eq!(races(&module, kernel, order), BTreeSet::new(), "{kernel:?}, {order:?}");
            }
        }
    }
}
