//! Takes each `s_waitcnt` that the compiler has put into a kernel out again, one at a time: what the kernel computes is the
//! same here, and the register that is used too early has to be found.

use super::{PROCESSORS, Run, compile};
use accuracy_core::emulator::launch::Launch;
use accuracy_core::emulator::loader::Module;

/// The kernels of `waits.hip`.
const KERNELS: [&str; 7] =
    ["through_a_table", "in_a_row", "scalar_chain", "through_lds", "permuted", "counted", "multiplied"];

/// The mnemonics of instructions that use a register too early, when the kernel runs.
fn missing(module: &Module, kernel: &str) -> Vec<&'static str> {
    let mut y = vec![0.0_f32; 64 * 16];
    let mut x: Vec<f32> = (0..64 * 16).map(|i| i as f32).collect();
    let mut table: Vec<u32> = (0..64).map(|i| i * 7 % 64).collect();
    let mut pointers = [x.as_ptr().expose_provenance() as u64; 2];
    let run = Run::new(module, kernel, 1, 64).buffer(&mut y);
    let run = match kernel {
        "scalar_chain" => {
            let run = run.buffer(&mut pointers);
            // The rows that the pointers name are the kernel's, too.
            let arguments = run.arguments.clone();
            let mut run = run.buffer(&mut x);
            run.arguments = arguments;
            run
        }
        "through_a_table" => run.buffer(&mut x).buffer(&mut table),
        _ => run.buffer(&mut x),
    };
    let kernel = module.kernel(run.kernel).unwrap();
    let launch = Launch {
        arguments: &run.arguments,
        regions: &run.regions,
        ..Launch::new(module, kernel, [1; 3], [64, 1, 1])
    };
    let executed = launch.run().unwrap();
    executed.missing_waits.keys().map(|at| module.instruction(*at).unwrap().row.mnemonic).collect()
}

/// The text without one of its lines.
fn without(lines: &[&str], line: usize) -> String {
    let rest = lines.iter().enumerate().filter(|(i, _)| *i != line).map(|(_, text)| *text);
    rest.flat_map(|text| [text, "\n"]).collect()
}

#[test]
fn every_wait_of_a_compiled_kernel_is_missed_when_it_is_gone() {
    for processor in PROCESSORS {
        let Some(text) = compile::assembly(processor) else { return };
        let lines: Vec<&str> = text.lines().collect();
        let whole = compile::assemble(processor, &text);
        let module = Module::load(&whole, processor).unwrap();
        for kernel in KERNELS {
            assert_eq!(missing(&module, kernel), [""; 0], "{kernel} on {}", processor.name());
        }
        let (mut found, mut kernel) = (0, "");
        for (at, line) in lines.iter().enumerate() {
            if let Some(name) = KERNELS.iter().find(|name| line.starts_with(&format!("{name}:"))) {
                kernel = name;
            }
            // Behind a store into LDS it orders memory between lanes, and guards no register.
            let guards = !lines[..at].last().is_some_and(|before| before.trim().starts_with("ds_write"));
            if !line.trim().starts_with("s_waitcnt") || !guards {
                continue;
            }
            let file = compile::assemble(processor, &without(&lines, at));
            let module = Module::load(&file, processor).unwrap();
            let missed = missing(&module, kernel);
            assert!(
                !missed.is_empty(),
                "{}: line {}, {}, of {kernel}",
                processor.name(),
                at + 1,
                line.trim()
            );
            found += 1;
        }
        assert!(found >= 20, "{found} waits on {}", processor.name());
    }
}
