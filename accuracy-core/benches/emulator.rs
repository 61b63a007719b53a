//! What emulation costs: lane operations per second and core, scaling over cores, two products, memory of a workgroup.
//!
//! Most kernels are loops of one kind of instruction (`emulator/kernels.hip`); clang compiles them first. `emulator.sh`
//! runs it, and then the repository's matrix on the host and emulated. `emulator/tinygrad.py` runs the float32 product in
//! another emulator.

use accuracy_core::emulator::isa::Processor;
use accuracy_core::emulator::launch::Launch;
use accuracy_core::emulator::loader::Module;
use accuracy_core::emulator::memory::Region;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

#[path = "emulator/fp8.rs"]
mod fp8;

/// One kernel of the benchmark.
struct Loop {
    kernel: &'static str,
    /// What is counted, as a reader calls it.
    counted: &'static str,
    /// How often a lane does it in one round of the loop.
    per_round: u64,
    rounds: u32,
}

const LOOPS: [Loop; 7] = [
    Loop { kernel: "fma", counted: "v_fma_f32", per_round: 256, rounds: 400 },
    Loop { kernel: "packed_fma", counted: "v_pk_fma_f32 (two each)", per_round: 512, rounds: 200 },
    Loop { kernel: "integer", counted: "integer", per_round: 256, rounds: 400 },
    Loop { kernel: "lds", counted: "LDS dwords", per_round: 8, rounds: 8000 },
    Loop { kernel: "lds_flat", counted: "LDS dwords, flat", per_round: 8, rounds: 8000 },
    Loop { kernel: "lds_rows", counted: "LDS dwords, rows of 4", per_round: 20, rounds: 4000 },
    Loop { kernel: "global_memory", counted: "global dwords", per_round: 8, rounds: 8000 },
];

const BLOCKS: u32 = 16;
const THREADS: u32 = 256;

/// Rows and columns of the product, and the length of its sums.
const SIDE: u32 = 64;
const INNER: u32 = 256;

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
    println!("a float32 product of {SIDE} x {SIDE} x {INNER}, 1 core: {:.2} ms", 1e3 * product(&module));
    let [m, n, k] = fp8::SHAPE;
    let (emulated, host) = fp8::seconds(&[1, 2]);
    println!(
        "an FP8 product of {n} x {k} for {m} rows: {:.2} s on 1 core, {:.2} s on 2; the host's loop: {host:.2} s",
        emulated[0], emulated[1]
    );
    println!("memory of a workgroup of {THREADS} threads: {} KiB", memory_of_a_workgroup(&module));
}

/// Seconds that something takes: the median of five times.
fn median(mut f: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[2]
}

/// Lane operations per second.
fn rate(module: &Module, measured: &Loop, workers: usize) -> f64 {
    let operations = u64::from(BLOCKS * THREADS) * u64::from(measured.rounds) * measured.per_round;
    operations as f64 / median(|| launch(module, measured.kernel, measured.rounds, BLOCKS, workers))
}

fn run(launch: &Launch<'_>, what: &str) {
    launch.run().unwrap_or_else(|error| panic!("{what}: {error}"));
}

fn launch(module: &Module, kernel: &str, rounds: u32, blocks: u32, workers: usize) {
    let mut words = vec![0_u32; 4 * 65536];
    let start = words.as_mut_ptr().expose_provenance() as u64;
    let region = Region { start, end: start + 4 * words.len() as u64, writable: true };
    let mut arguments = Vec::new();
    if ["global_memory", "all_resident"].contains(&kernel) {
        arguments.extend(start.to_le_bytes());
    }
    arguments.extend(rounds.to_le_bytes());
    let launched = module.kernel(kernel).expect("the kernel is in kernels.hip");
    let launch = Launch {
        arguments: &arguments,
        regions: &[region],
        workers,
        ..Launch::new(module, launched, [blocks, 1, 1], [THREADS, 1, 1])
    };
    run(&launch, kernel);
}

/// Seconds of one product on one core, whose result must be right.
fn product(module: &Module) -> f64 {
    let [a, b] = [SIDE * INNER, INNER * SIDE]
        .map(|len| (0..len).map(|i| ((i * 7) % 11) as f32 - 5.0).collect::<Vec<f32>>());
    let mut c = vec![f32::NAN; (SIDE * SIDE) as usize];
    let regions = [(&a, false), (&b, false), (&c, true)].map(|(values, writable)| {
        let start = values.as_ptr().expose_provenance() as u64;
        Region { start, end: start + 4 * values.len() as u64, writable }
    });
    // The kernel writes through this pointer.
    let _ = c.as_mut_ptr().expose_provenance();
    let mut arguments: Vec<u8> = regions.iter().flat_map(|region| region.start.to_le_bytes()).collect();
    arguments.extend([SIDE, INNER].iter().flat_map(|n| n.to_le_bytes()));
    let kernel = module.kernel("gemm").expect("the kernel is in kernels.hip");
    let launch = Launch {
        arguments: &arguments,
        regions: &regions,
        workers: 1,
        ..Launch::new(module, kernel, [SIDE / 16, SIDE / 16, 1], [256, 1, 1])
    };
    let seconds = median(|| run(&launch, "gemm"));
    for (i, value) in c.iter().enumerate() {
        let [row, column] = [i / SIDE as usize, i % SIDE as usize];
        let exact: f32 =
            (0..INNER as usize).map(|j| a[row * INNER as usize + j] * b[j * SIDE as usize + column]).sum();
        assert!(*value == exact, "c[{row}, {column}] is {value}, not {exact}");
    }
    seconds
}

/// KiB that the process has more at its peak for each workgroup that is resident: 256 of them wait for one another.
fn memory_of_a_workgroup(module: &Module) -> u64 {
    const RESIDENT: u32 = 256;
    let before = peak();
    launch(module, "all_resident", RESIDENT, RESIDENT, 1);
    (peak() - before) / u64::from(RESIDENT)
}

/// The process's peak of resident memory, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

/// The kernels: out of the code object that the first argument names, or compiled here.
fn compile() -> Module {
    if let Some(path) = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')) {
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        return Module::load(&bytes, Processor::Gfx950).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    compiled("kernels.hip", &["-O2", "-nogpuinc"])
}

/// A source beside this one, compiled for gfx950 without AMD's device libraries.
fn compiled(source: &str, flags: &[&str]) -> Module {
    let compiler = std::env::var("CLANG").unwrap_or_else(|_| "/usr/lib/llvm-22/bin/clang++".into());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/emulator").join(source);
    let file = std::env::temp_dir().join(format!("emulator-bench-{}.co", std::process::id()));
    let status = Command::new(&compiler)
        .args(["-x", "hip", "-nogpulib", "--cuda-device-only", "--no-gpu-bundle-output"])
        .arg("--offload-arch=gfx950")
        .args(flags)
        .arg(path)
        .arg("-o")
        .arg(&file)
        .status();
    assert!(status.is_ok_and(|s| s.success()), "{compiler} does not compile {source}; CLANG names another");
    let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let _ = std::fs::remove_file(&file);
    Module::load(&bytes, Processor::Gfx950).unwrap_or_else(|error| panic!("{error}"))
}
