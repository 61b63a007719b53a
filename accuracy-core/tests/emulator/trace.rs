//! Traces of a wave: what they show of kernels in `provenance.hip` and `kernels.hip`, how much, and what is told where there is
//! nothing to show.

use super::{PROCESSORS, Run, compile};
use accuracy_core::emulator::launch::Launch;
use accuracy_core::emulator::loader::Module;
use accuracy_core::emulator::scrutiny::declared::{Declared, Rows};
use accuracy_core::emulator::trace::{Choice, Launching, Problem, Trace, Tracer, Until, Which};
use accuracy_core::trace::{Lane, Range};

const SOURCE: &str = include_str!("provenance.hip");

fn choice() -> Choice {
    Choice {
        kernel: None,
        launch: Which::Nth(1),
        block: [0; 3],
        wave: 0,
        lanes: Lane::One(5),
        range: None,
        most: 400,
        until: None,
    }
}

/// Runs `scaled` of four workgroups twice, with rows of 64 in `y` and `x`.
fn traced(module: &Module, choice: Choice) -> Result<Trace, Problem> {
    let mut tracer = Box::new(Tracer::new(choice));
    let mut y = vec![0.0_f32; 256];
    let mut x: Vec<f32> = (0..256).map(|i| i as f32).collect();
    let mut s = [2.0_f32, 3.0, 4.0, 5.0, 6.0];
    let named = |name: &str, data: &[f32], rows: u64| {
        let start = data.as_ptr().expose_provenance() as u64;
        let bytes = 4 * data.len() as u64;
        let bits = 8 * bytes / rows;
        let rows = Rows { runs: rows, bits, stride: bits, element: 32, transposed: false };
        let around = (start, start + bytes);
        Declared { name: name.into(), start, bytes, around, rows: Some(rows), element: 32 }
    };
    let mut declared = vec![named("y", &y, 4), named("x", &x, 4), named("s", &s, 1)];
    declared.sort_by_key(|buffer| buffer.start);
    for _ in 0..2 {
        let run = Run::new(module, "scaled", 4, 64).buffer(&mut y).buffer(&mut x).buffer(&mut s);
        let kernel = module.kernel("scaled").unwrap();
        let (blocks, threads) = ([4, 1, 1], [64, 1, 1]);
        let launch = Launch {
            arguments: &run.arguments,
            regions: &run.regions,
            ..Launch::new(module, kernel, blocks, threads)
        };
        let launching =
            Launching { module, kernel, readable: "scaled", blocks, threads, declared: &declared };
        if tracer.begin_launch(&launching) {
            let (result, traced) = launch.run_traced(tracer);
            result.unwrap();
            tracer = traced.unwrap();
            tracer.end_launch(&launching, None);
        } else {
            launch.run().unwrap();
        }
    }
    assert_eq!(y[65], 65.0 * 3.0, "a traced launch computes what it does otherwise");
    tracer.into_found()
}

fn each(test: impl Fn(&Module)) {
    for processor in PROCESSORS {
        let Some(file) = compile::hip(processor, "provenance.hip", &["-O2", "-g"]) else { return };
        test(&Module::load(&file, processor).unwrap());
    }
}

#[test]
fn a_trace_has_source_lines_instructions_values_and_elements() {
    each(|module| {
        let trace = traced(module, Choice { block: [1, 0, 0], ..choice() }).unwrap();
        let text = &trace.text;
        assert!(
            text.starts_with("kernel scaled, launch 1, workgroup (1, 0, 0) of [4, 1, 1], wave 0\n"),
            "{text}"
        );
        let line = SOURCE.lines().position(|line| line.ends_with("// scaled")).unwrap();
        let source = SOURCE.lines().nth(line).unwrap();
        assert!(text.contains(&format!("provenance.hip:{}  {source}\n", line + 1)), "{text}");
        // Lane 5 of the second workgroup: x[1, 5] is 69.
        assert!(text.contains("lane 5 reads 4 bytes at x[1, 5]"), "{text}");
        assert!(text.contains("lane 5 writes 4 bytes at y[1, 5]"), "{text}");
        assert!(text.contains("64 accesses in all: y[1, 0] to y[1, 63]"), "{text}");
        assert!(text.contains("(207)"), "the product of 69 and 3: {text}");
        assert!(text.contains("exec = 0xffffffffffffffff, 64 lanes are on"), "{text}");
        assert!(text.contains("-> ") && text.contains("s_endpgm"), "{text}");
        assert_eq!((trace.left_out, trace.block, trace.wave), (0, [1, 0, 0], 0));
        assert_eq!(trace.instructions, text.lines().filter(|l| l.starts_with("0x")).count() as u64);
    });
}

#[test]
fn all_lanes_are_shown_where_that_is_wanted() {
    each(|module| {
        let text = traced(module, Choice { lanes: Lane::All, ..choice() }).unwrap().text;
        assert!(text.contains("[60..63] = "), "{text}");
        assert!(text.contains("lane 63 writes 4 bytes at y[0, 63]"), "{text}");
    });
}

#[test]
fn a_range_and_a_number_bound_what_is_shown() {
    each(|module| {
        let whole = traced(module, choice()).unwrap();
        let few = traced(module, Choice { most: 3, ..choice() }).unwrap();
        assert_eq!((few.instructions, few.left_out), (3, whole.instructions - 3));
        assert!(few.text.ends_with(&format!("... {} more instructions are not shown\n", few.left_out)));
        let line = SOURCE.lines().position(|line| line.ends_with("// scaled")).unwrap() as u32 + 1;
        let range = Range::Lines { file: "provenance.hip".into(), first: line, last: line };
        let lines = traced(module, Choice { range: Some(range), ..choice() }).unwrap();
        assert!(lines.instructions > 0 && lines.instructions < whole.instructions, "{}", lines.text);
        assert!(!lines.text.contains("s_endpgm"), "{}", lines.text);
        let first = traced(module, Choice { range: Some(Range::Offsets { first: 0, last: 0 }), ..choice() });
        assert_eq!(first.unwrap().instructions, 1);
    });
}

#[test]
fn a_trace_ends_with_the_instruction_that_wrote_the_element() {
    each(|module| {
        let entry = module.kernel("scaled").unwrap().entry;
        let store = (0..).map(|i| 4 * i).find(|offset| {
            module.instruction(entry + offset).is_some_and(|inst| inst.row.mnemonic.contains("store"))
        });
        let offset = store.unwrap();
        let until = |element| Some(Until { offset, element });
        let last = Choice { most: 4, until: until(Some(("y".into(), 0, 9))), ..choice() };
        let trace = traced(module, last).unwrap();
        assert_eq!(trace.instructions, 4);
        let instructions: Vec<&str> = trace.text.lines().filter(|line| line.starts_with("0x")).collect();
        assert!(instructions[3].contains("store"), "{}", trace.text);
        assert!(trace.text.contains("instructions are not shown"), "{}", trace.text);
        // The element of another workgroup is not written by this wave: then its last instructions are shown.
        let other = Choice { most: 4, until: until(Some(("y".into(), 3, 9))), ..choice() };
        let trace = traced(module, other).unwrap();
        assert!(trace.text.contains("s_endpgm"), "{}", trace.text);
    });
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    each(|module| {
        let told = |choice| traced(module, choice).unwrap_err().to_string();
        let kernel = told(Choice { kernel: Some("absent".into()), ..choice() });
        assert_eq!(
            kernel,
            "no kernel was launched whose name contains `absent`; launched were `scaled` (2 times)"
        );
        let launch = told(Choice { launch: Which::Nth(3), ..choice() });
        assert_eq!(launch, "launch 3 was asked for, and there were 2: `scaled` (2 times)");
        let block = told(Choice { block: [4, 0, 0], ..choice() });
        assert!(
            block.contains("workgroup [4, 0, 0] was asked for") && block.contains("[4, 1, 1]"),
            "{block}"
        );
        let wave = told(Choice { wave: 1, ..choice() });
        assert!(wave.contains("wave 1 was asked for, and a workgroup of `scaled` has 1"), "{wave}");
        let range = Range::Offsets { first: 0x9000, last: 0x9001 };
        let range = told(Choice { range: Some(range), ..choice() });
        assert!(range.contains("no instruction in offsets 0x9000 to 0x9001"), "{range}");
        let second = traced(module, Choice { launch: Which::OfRun(1), ..choice() }).unwrap();
        assert!(second.text.contains("launch 2 of the run"), "{}", second.text);
    });
    let nothing = Tracer::new(choice()).into_found().unwrap_err();
    assert_eq!(nothing, Problem::NoLaunch);
}
