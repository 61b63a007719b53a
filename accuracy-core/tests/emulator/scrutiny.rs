//! Kernels of `scrutiny.hip`: each fault is found at its line, and the same kernel without it has none.

use super::{PROCESSORS, Run, compile};
use accuracy_core::emulator::WaveOrder;
use accuracy_core::emulator::executed::Executed;
use accuracy_core::emulator::isa::Processor;
use accuracy_core::emulator::launch::{Launch, Watched};
use accuracy_core::emulator::loader::Module;
use accuracy_core::emulator::provenance::{Answer, Asked, Question, ask};
use accuracy_core::emulator::rerun;
use accuracy_core::emulator::scrutiny::barriers::{Barriers, Wrong};
use accuracy_core::emulator::scrutiny::declared::{Declared, Outside, Rows};
use accuracy_core::emulator::scrutiny::{Does, Kind, Source, What};
use accuracy_core::emulator::unwritten::Unwritten;
use std::sync::Arc;
use std::time::Instant;

const SOURCE: &str = include_str!("scrutiny.hip");

/// Kernels with a fault, their threads, and what is told of them. Each has another one, `.._right`, without.
pub const FAULTS: [(&str, u32, Kind); 12] = [
    ("lds_tail", 128, Kind::Uninitialised),
    ("lds_sum", 128, Kind::Uninitialised),
    ("accumulator", 128, Kind::Uninitialised),
    ("scratch", 128, Kind::Uninitialised),
    ("address", 64, Kind::Uninitialised),
    ("in_place", 128, Kind::Uninitialised),
    ("round_the_barrier", 256, Kind::Barrier),
    ("loop_of_waves", 256, Kind::Barrier),
    ("some_threads", 128, Kind::Divergence),
    ("behind", 64, Kind::OutOfBounds),
    ("padding", 128, Kind::OutOfBounds),
    ("clamped", 64, Kind::Clamped),
];

/// Runs a kernel with as many threads as elements, in a buffer `y` that is declared to have as many, in rows of 48 where the
/// kernel is about padding.
fn run(module: &Module, kernel: &str, threads: u32, order: WaveOrder) -> Executed {
    let mut y = vec![-1.0_f32; 1024];
    let mut x: Vec<f32> = (0..1024).map(|i| (i % 29) as f32 * 0.5 + 1.0).collect();
    let start = y.as_ptr().expose_provenance() as u64;
    let whole = (start, start + 4096);
    let wide = kernel.starts_with("loop_of_waves");
    let (runs, columns, elements) = match kernel.starts_with("padding") {
        true => (2, 48, 112),
        false if wide => (1, 1024, 1024),
        false => (1, u64::from(threads), u64::from(threads)),
    };
    let rows =
        Rows { runs, bits: 32 * columns, stride: 32 * columns.max(64), element: 32, transposed: false };
    let declared = Declared {
        name: "y".into(),
        start,
        bytes: 4 * elements,
        around: whole,
        rows: Some(rows),
        element: 32,
    };
    let run = Run::new(module, kernel, 1, threads)
        .buffer(&mut y)
        .buffer(&mut x)
        .value(if kernel.starts_with("scratch") { 10 } else { threads as i32 });
    let launch = Launch {
        order,
        arguments: &run.arguments,
        regions: &run.regions,
        scrutiny: Some(Watched { declared: Arc::new(vec![declared]), ..Watched::default() }),
        ..Launch::new(module, module.kernel(kernel).unwrap(), [1; 3], [threads, 1, 1])
    };
    let mut unwritten = Unwritten::default();
    unwritten.allocated(start as usize, 4096);
    if kernel.starts_with("in_place") {
        // The kernel adds to what is there; right, where the first half was given.
        unwritten.set(start, 4 * u64::from(threads), kernel.ends_with("_right"));
    }
    let executed = rerun::run(&launch, &mut unwritten).unwrap();
    assert!(y[..threads as usize / 2].iter().any(|value| *value != -1.0), "{kernel} leaves what it wrote");
    executed
}

fn lines(module: &Module, executed: &Executed) -> Vec<(Kind, Option<u32>)> {
    executed.seen.keys().map(|(at, kind)| (*kind, module.line(*at).map(|(_, line)| line))).collect()
}

/// The most memory that this process has had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}

/// The line of the source that ends with a kernel's name.
fn marked(kernel: &str) -> Option<u32> {
    let found = SOURCE.lines().position(|text| text.ends_with(&format!("// {kernel}")));
    found.map(|at| at as u32 + 1)
}

fn each(test: impl Fn(&Module)) {
    for processor in PROCESSORS {
        let Some(file) = compile::hip(processor, "scrutiny.hip", &["-O2", "-g"]) else { return };
        test(&Module::load(&file, processor).unwrap());
    }
}

#[test]
fn each_fault_is_found_at_its_line_and_the_kernel_without_it_has_none() {
    each(|module| {
        for order in [WaveOrder::FirstToLast, WaveOrder::LastToFirst] {
            for (kernel, threads, kind) in FAULTS {
                let found = lines(module, &run(module, kernel, threads, order));
                assert_eq!(found, [(kind, marked(kernel))], "{kernel} on {:?}, {order:?}", module.processor);
                let right = format!("{kernel}_right");
                let found = lines(module, &run(module, &right, threads, order));
                assert!(found.is_empty(), "{right} on {:?}, {order:?}: {found:?}", module.processor);
            }
        }
    });
}

#[test]
fn a_finding_says_what_nobody_wrote_and_which_element_is_outside() {
    each(|module| {
        let seen = |kernel, threads| {
            let executed = run(module, kernel, threads, WaveOrder::FirstToLast);
            executed.seen.into_values().next().unwrap()
        };
        for (kernel, source) in [
            ("lds_tail", Source::Lds),
            ("accumulator", Source::Registers),
            ("scratch", Source::Scratch),
            ("in_place", Source::Memory),
        ] {
            let sighting = seen(kernel, 128);
            assert_eq!(
                sighting.what,
                What::Uninitialised { source: Some(source), address: false },
                "{kernel}"
            );
        }
        // Its last thread alone takes what nobody wrote.
        let tail = seen("lds_tail", 128);
        assert_eq!((tail.wave, tail.lane), (1, Some(63)));
        let behind = seen("behind", 64);
        let outside = Outside::Behind { name: "y".into(), distance: 0, partly: false };
        assert_eq!(behind.what, What::OutOfBounds { outside, does: Does::Writes, bytes: 4 });
        assert_eq!((behind.wave, behind.lane), (0, Some(63)));
        let padding = seen("padding", 128);
        let outside = Outside::Padding { name: "y".into(), run: 0, distance: 0, transposed: false };
        assert_eq!(padding.what, What::OutOfBounds { outside, does: Does::Writes, bytes: 4 });
        assert_eq!(padding.lane, Some(48));
    });
}

#[test]
fn an_instruction_with_a_known_fault_is_told_where_the_processor_has_the_fault() {
    each(|module| {
        let executed = run(module, "broadcast", 64, WaveOrder::FirstToLast);
        let names: Vec<_> = executed.errata.values().map(|erratum| erratum.name).collect();
        let expected: &[&str] = match module.processor {
            Processor::Gfx950 => &["packed-fma-high-broadcast"],
            Processor::Gfx942 => &[],
        };
        assert_eq!(names, expected);
        assert!(executed.seen.is_empty());
    });
}

#[test]
fn waves_that_wait_at_two_barriers_are_told_apart_from_those_at_one() {
    let (here, there) = (0x100, 0x200);
    let mut barriers = Barriers::default();
    for wave in 0..4 {
        barriers.comes(0, wave, here, u64::MAX);
    }
    assert_eq!(barriers.meet(0, 0), None);
    barriers.comes(0, 2, there, u64::MAX);
    assert_eq!(barriers.meet(0, 0), Some((here, 0, Wrong::Elsewhere { wave: 2, other: there })));
    // A wave that has ended waits nowhere.
    assert_eq!(barriers.meet(0, 1 << 2), None);
}

#[test]
fn a_right_product_has_no_finding_and_runs_as_it_does_without_scrutiny() {
    each(|module| {
        let n = 128_usize;
        let mut y = vec![-1.0_f32; n * n];
        let mut x: Vec<f32> = (0..n * n).map(|i| (i % 29) as f32 * 0.5 + 1.0).collect();
        let blocks = (n / 16 * n / 16) as u32;
        let run = Run::new(module, "gemm", blocks, 256).buffer(&mut y).buffer(&mut x).value(n as i32);
        let launch = |scrutiny| Launch {
            arguments: &run.arguments,
            regions: &run.regions,
            scrutiny,
            ..Launch::new(module, module.kernel("gemm").unwrap(), [blocks, 1, 1], [256, 1, 1])
        };
        let timed = |name: &str, f: &dyn Fn() -> Executed| {
            let began = Instant::now();
            let executed = f();
            let seconds = began.elapsed().as_secs_f64();
            eprintln!("{:?}, {name}: {seconds:.3} s, {} MiB at the most so far", module.processor, peak());
            executed
        };
        let plain = timed("plain", &|| launch(None).run().unwrap());
        let with = |races| Some(Watched { races, ..Watched::default() });
        let again = |races| rerun::run(&launch(with(races)), &mut Unwritten::default()).unwrap();
        for executed in [timed("with findings", &|| again(false)), timed("with races", &|| again(true))] {
            assert!(executed.seen.is_empty(), "{:?}", executed.seen);
            assert_eq!(executed.instructions, plain.instructions);
        }
        let named = |name: &str, data: &[f32]| {
            let start = data.as_ptr().expose_provenance() as u64;
            let (bytes, around) = (4 * data.len() as u64, (start, start + 4 * data.len() as u64));
            Declared { name: name.into(), start, bytes, around, rows: None, element: 32 }
        };
        let mut declared = [named("y", &y), named("x", &x)];
        declared.sort_by_key(|buffer| buffer.start);
        let asked = |i: usize| Asked { buffer: "y".into(), offset: (i * 2053 * 4) as u64, bytes: 4 };
        let question = Question { targets: vec!["y".into()], elements: (0..6).map(asked).collect() };
        timed("with provenance", &|| {
            let answers = ask(&question, |mut tracking| {
                tracking.begin_launch(module, &declared);
                let (result, followed) = launch(None).run_followed(tracking);
                result.unwrap();
                let mut tracking = followed.unwrap();
                tracking.end_launch(|at| (String::new(), String::new(), at, None));
                Some(tracking)
            });
            // A row and a column, which share an element where they cross.
            let took = |answer: &Answer| answer.took.iter().map(|of| of.offsets.len()).sum::<usize>();
            assert!(answers.unwrap().iter().all(|answer| (2 * n - 1..=2 * n).contains(&took(answer))));
            Executed::default()
        });
        let expected: f32 = (0..n).map(|k| x[k] * x[k * n]).sum();
        assert!((y[0] - expected).abs() < 1e-3 * expected, "{} is not {expected}", y[0]);
    });
}
