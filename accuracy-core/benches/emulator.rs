//! What emulation costs: lane operations per second and core, scaling over cores, memory of a workgroup.
//!
//! The kernels are loops of one kind of instruction (`emulator/kernels.hip`); clang compiles them first. `emulator.sh`
//! runs it, and then the repository's matrix on the host and emulated. `emulator/tinygrad.py` runs the same product in
//! another emulator.

use accuracy_core::emulator::isa::Processor;
use accuracy_core::emulator::launch::Launch;
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
    launch.run().unwrap_or_else(|error| panic!("{kernel}: {error}"));
}

/// Seconds of one product on one core: the median of five launches, whose result must be right.
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
    let mut seconds: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let launch = Launch {
                arguments: &arguments,
                regions: &regions,
                workers: 1,
                ..Launch::new(module, kernel, [SIDE / 16, SIDE / 16, 1], [256, 1, 1])
            };
            launch.run().unwrap_or_else(|error| panic!("gemm: {error}"));
            start.elapsed().as_secs_f64()
        })
        .collect();
    for (i, value) in c.iter().enumerate() {
        let [row, column] = [i / SIDE as usize, i % SIDE as usize];
        let exact: f32 =
            (0..INNER as usize).map(|j| a[row * INNER as usize + j] * b[j * SIDE as usize + column]).sum();
        assert!(*value == exact, "c[{row}, {column}] is {value}, not {exact}");
    }
    seconds.sort_by(f64::total_cmp);
    seconds[2]
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
