//! What emulation costs: lane operations per second and core, scaling over cores, memory of a workgroup.
//!
//! `emulator.sh` runs it, and beside it the repository's matrix emulated and on the host. The kernels are loops of one
//! kind of instruction (`emulator/kernels.hip`); clang compiles them first.

use accuracy_core::emulator::isa::Processor;
use accuracy_core::emulator::launch::{Launch, Shared};
use accuracy_core::emulator::loader::Module;
use accuracy_core::emulator::memory::Region;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// One kernel of the benchmark.
struct Loop {
    kernel: &'static str,
    /// What is counted, as a reader calls it.
    counted: &'static str,
    /// How often a lane does it in one round of the loop.
    per_round: u64,
    rounds: u32,
}

const LOOPS: [Loop; 5] = [
    Loop { kernel: "fma", counted: "v_fma_f32", per_round: 256, rounds: 400 },
    Loop { kernel: "packed_fma", counted: "v_pk_fma_f32 (two each)", per_round: 512, rounds: 200 },
    Loop { kernel: "integer", counted: "integer", per_round: 256, rounds: 400 },
    Loop { kernel: "lds", counted: "LDS dwords", per_round: 8, rounds: 8000 },
    Loop { kernel: "global_memory", counted: "global dwords", per_round: 8, rounds: 8000 },
];

const BLOCKS: u32 = 16;
const THREADS: u32 = 256;

fn main() {
    let module = compile();
    println!(
        "{:<24} {:>18} {:>18} {:>8}",
        "lane operations per", "second, 1 core", "second, 2 cores", "scaling"
    );
    for measured in &LOOPS {
        let [one, two] = [1, 2].map(|workers| rate(&module, measured, workers));
        println!("{:<24} {:>18.3e} {:>18.3e} {:>8.2}", measured.counted, one, two, two / one);
    }
    println!("memory of a workgroup of {THREADS} threads: {} KiB", memory_of_a_workgroup(&module));
}

/// Lane operations per second: the median of five launches.
fn rate(module: &Module, measured: &Loop, workers: usize) -> f64 {
    let mut seconds: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            launch(module, measured.kernel, measured.rounds, BLOCKS, workers);
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let operations = u64::from(BLOCKS * THREADS) * u64::from(measured.rounds) * measured.per_round;
    operations as f64 / seconds[2]
}

fn launch(module: &Module, kernel: &str, rounds: u32, blocks: u32, workers: usize) {
    let mut words = vec![0_u32; 4 * 65536];
    let start = words.as_mut_ptr().expose_provenance() as u64;
    let region = Region { start, end: start + 4 * words.len() as u64, writable: true };
    let mut arguments = Vec::new();
    if kernel == "global_memory" {
        arguments.extend(start.to_le_bytes());
    }
    arguments.extend(rounds.to_le_bytes());
    let launch = Launch {
        module,
        kernel: module.kernel(kernel).expect("the kernel is in kernels.hip"),
        blocks: [blocks, 1, 1],
        threads: [THREADS, 1, 1],
        remainder: [0; 3],
        dynamic_lds: 0,
        cooperative: false,
        arguments: &arguments,
        shared: Shared::default(),
        regions: &[region],
        workers,
    };
    launch.run().unwrap_or_else(|error| panic!("{kernel}: {error}"));
}

/// How much more memory the process has at its peak when many workgroups are resident, in KiB for each.
fn memory_of_a_workgroup(module: &Module) -> u64 {
    let before = peak();
    launch(module, "lds", 1, 256, 1);
    (peak() - before).max(1)
}

/// The process's peak of resident memory, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

fn compile() -> Module {
    let compiler = std::env::var("CLANG").unwrap_or_else(|_| "/usr/lib/llvm-22/bin/clang++".into());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/emulator/kernels.hip");
    let file = std::env::temp_dir().join(format!("emulator-bench-{}.co", std::process::id()));
    let status = Command::new(&compiler)
        .args(["-x", "hip", "-nogpuinc", "-nogpulib", "-O2", "--cuda-device-only", "--no-gpu-bundle-output"])
        .arg("--offload-arch=gfx950")
        .arg(source)
        .arg("-o")
        .arg(&file)
        .status();
    assert!(
        status.is_ok_and(|s| s.success()),
        "{compiler} does not compile the kernels; CLANG names another"
    );
    let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let _ = std::fs::remove_file(&file);
    Module::load(&bytes, Processor::Gfx950).unwrap_or_else(|error| panic!("{error}"))
}
