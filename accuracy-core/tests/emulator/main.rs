//! Kernels that clang compiled for gfx942 and gfx950, executed: what they write, how workgroups wait for one another, and
//! what becomes of kernels that do what they must not.

mod compile;
mod planted;
mod provenance;
mod races;
mod scrutiny;
mod trace;
mod waits;

use accuracy_core::emulator::WaveOrder;
use accuracy_core::emulator::executed::Executed;
use accuracy_core::emulator::isa::Processor;
use accuracy_core::emulator::launch::{Launch, LaunchError, Refused, Watched};
use accuracy_core::emulator::loader::{LoadError, Module};
use accuracy_core::emulator::memory::Region;
use accuracy_core::emulator::wave::Fault;

const PROCESSORS: [Processor; 2] = [Processor::Gfx942, Processor::Gfx950];

/// A kernel with its arguments, as a test launches it.
struct Run<'a> {
    module: &'a Module,
    kernel: &'a str,
    blocks: u32,
    threads: u32,
    arguments: Vec<u8>,
    regions: Vec<Region>,
    workers: usize,
    dynamic_lds: u32,
    cooperative: bool,
    order: WaveOrder,
    scrutiny: Option<Watched>,
}

impl<'a> Run<'a> {
    fn new(module: &'a Module, kernel: &'a str, blocks: u32, threads: u32) -> Run<'a> {
        let (arguments, regions) = (Vec::new(), Vec::new());
        Run {
            module,
            kernel,
            blocks,
            threads,
            arguments,
            regions,
            workers: 2,
            dynamic_lds: 0,
            cooperative: false,
            order: WaveOrder::default(),
            scrutiny: None,
        }
    }

    /// Adds a buffer that the kernel may write.
    fn buffer<T>(mut self, data: &mut [T]) -> Self {
        let start = data.as_mut_ptr().expose_provenance() as u64;
        self.regions.push(Region { start, end: start + size_of_val(data) as u64, writable: true });
        self.value(start)
    }

    /// Adds a value behind those that are there, aligned as C has it.
    fn value<T: Copy>(mut self, value: T) -> Self {
        let at = self.arguments.len().next_multiple_of(align_of::<T>());
        self.arguments.resize(at + size_of::<T>(), 0);
        // SAFETY: the bytes were just made, and a plain value has that many.
        unsafe { self.arguments.as_mut_ptr().add(at).cast::<T>().write_unaligned(value) };
        self
    }

    fn run(&self) -> Result<u64, LaunchError> {
        self.execute().map(|executed| executed.instructions.values().sum())
    }

    fn execute(&self) -> Result<Executed, LaunchError> {
        let kernel = self.module.kernel(self.kernel).expect("the kernel is in kernels.hip");
        let launch = Launch {
            dynamic_lds: self.dynamic_lds,
            cooperative: self.cooperative,
            order: self.order,
            arguments: &self.arguments,
            regions: &self.regions,
            workers: self.workers,
            scrutiny: self.scrutiny.clone(),
            ..Launch::new(self.module, kernel, [self.blocks, 1, 1], [self.threads, 1, 1])
        };
        launch.run()
    }

    /// The fault that ends the launch, and the line of the source that it names.
    fn fault(&self) -> (Fault, Option<u32>) {
        match self.run() {
            Err(LaunchError::Stopped(stop)) => {
                let line = self.module.line(stop.pc).map(|(_, line)| line);
                (stop.fault, line)
            }
            other => panic!("the kernel should fail: {other:?}"),
        }
    }
}

/// Calls `test` with the module of each architecture.
fn each(test: impl Fn(&Module)) {
    for processor in PROCESSORS {
        if let Some(file) = compile::code_object(processor) {
            test(&Module::load(file, processor).unwrap());
        }
    }
}

/// The line of `kernels.hip` that has this text.
fn line_of(text: &str) -> Option<u32> {
    let source = include_str!("kernels.hip");
    source.lines().position(|line| line.contains(text)).map(|at| at as u32 + 1)
}

#[test]
fn a_kernel_writes_what_its_source_says_and_nothing_behind_its_last_element() {
    each(|module| {
        let mut x: Vec<f32> = (0..1000).map(|i| i as f32 * 0.5).collect();
        let mut y = vec![-1.0_f32; 1024];
        let run = Run::new(module, "add_one", 4, 256).buffer(&mut y).buffer(&mut x).value(1000_i32);
        assert!(run.run().unwrap() > 100);
        assert!(y[..1000].iter().zip(&x).all(|(y, x)| *y == x + 1.0));
        assert!(y[1000..].iter().all(|y| *y == -1.0));
    });
}

#[test]
fn waves_of_a_workgroup_exchange_values_through_lds_and_barriers() {
    each(|module| {
        let mut x: Vec<f32> = (0..2048).map(|i| (i % 37) as f32).collect();
        let mut y = vec![0.0_f32; 8];
        Run::new(module, "block_sum", 8, 256).buffer(&mut y).buffer(&mut x).run().unwrap();
        let sums: Vec<f32> = x.chunks(256).map(|chunk| chunk.iter().sum()).collect();
        assert_eq!(y, sums);
    });
}

#[test]
fn a_missing_barrier_shows_unless_the_waves_keep_in_step() {
    each(|module| {
        let sums = |order: WaveOrder| {
            let mut y = vec![0_u32; 256];
            let run = Run::new(module, "exchange_twice", 1, 256).buffer(&mut y);
            Run { order, ..run }.run().unwrap();
            y
        };
        let first = sums(WaveOrder::FirstToLast);
        assert!(first[..64].iter().all(|sum| *sum == 10), "{first:?}");
        assert!(first[64..].iter().all(|sum| *sum != 10), "{first:?}");
        assert_ne!(sums(WaveOrder::LastToFirst), first);
        assert!(sums(WaveOrder::InStep).iter().all(|sum| *sum == 10));
    });
}

#[test]
fn atomics_of_all_workgroups_on_all_threads_add_up() {
    each(|module| {
        let (mut total, mut float) = (vec![0_u32], vec![0.0_f32]);
        Run::new(module, "count", 500, 64).buffer(&mut total).run().unwrap();
        Run::new(module, "count_float", 100, 64).buffer(&mut float).run().unwrap();
        assert_eq!((total[0], float[0]), (500 * 501 / 2, 6400.0));
    });
}

#[test]
fn workgroups_that_wait_for_a_later_one_end_with_one_worker_and_with_two() {
    each(|module| {
        for workers in [1, 2] {
            let (mut flag, mut seen) = (vec![0_u32], vec![0_u32; 50]);
            let mut run = Run::new(module, "wait_for_the_last", 50, 64);
            run.workers = workers;
            run.buffer(&mut flag).buffer(&mut seen).value(50_u32).run().unwrap();
            assert_eq!(seen, vec![1; 50]);
        }
    });
}

#[test]
fn waiting_for_a_workgroup_that_has_no_room_on_the_device_is_a_deadlock() {
    each(|module| {
        let blocks = 40_000;
        let (mut flag, mut seen) = (vec![0_u32], vec![0_u32; blocks as usize]);
        let run = Run::new(module, "wait_for_the_last", blocks, 64).buffer(&mut flag).buffer(&mut seen);
        let (fault, line) = run.value(blocks).fault();
        assert_eq!(
            (fault, line),
            (
                Fault::Deadlock,
                line_of(
                    "while (__hip_atomic_load(flag, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_AGENT) != 7u) __builtin"
                )
            )
        );
    });
}

#[test]
fn waiting_for_what_nobody_writes_is_a_deadlock() {
    each(|module| {
        // Where there are several workers, one of them may find nothing to start, and be gone.
        for workers in [1, 2, 3] {
            let mut flag = vec![0_u32];
            let mut run = Run::new(module, "wait_for_nobody", 3, 64);
            run.workers = workers;
            let (fault, _) = run.buffer(&mut flag).fault();
            assert_eq!(fault, Fault::Deadlock);
        }
    });
}

#[test]
fn a_loop_whose_state_is_in_memory_gets_on() {
    each(|module| {
        let mut y = vec![0_u32; 64];
        Run::new(module, "count_in_memory", 1, 64).buffer(&mut y).value(200_000_u32).run().unwrap();
        assert_eq!(y, [200_000; 64]);
        let mut y = vec![0_u32];
        Run::new(module, "count_by_atomics", 2, 64).buffer(&mut y).value(1_000_000_u32).run().unwrap();
        assert!(y[0] > 1_000_000, "{}", y[0]);
    });
}

#[test]
fn a_lock_that_nobody_gives_back_is_a_deadlock() {
    each(|module| {
        let mut lock = vec![1_u32];
        let (fault, _) = Run::new(module, "take_a_lock", 2, 64).buffer(&mut lock).fault();
        assert_eq!(fault, Fault::Deadlock);
    });
}

#[test]
fn a_null_pointer_is_named_with_the_line_that_reads_it() {
    each(|module| {
        let mut y = vec![0.0_f32; 64];
        let (fault, line) = Run::new(module, "read_null", 1, 64).buffer(&mut y).value(0_u64).fault();
        assert!(matches!(fault, Fault::Memory { .. }), "{fault}");
        assert!(fault.to_string().contains("null pointer"), "{fault}");
        assert_eq!(line, line_of("GLOBAL read_null"));
    });
}

#[test]
fn a_write_behind_a_buffer_is_an_error_that_says_how_far_behind() {
    each(|module| {
        let mut y = vec![0.0_f32; 64];
        let (fault, line) = Run::new(module, "write_at", 1, 1).buffer(&mut y).value(70_i64).fault();
        assert!(fault.to_string().contains("24 bytes"), "{fault}");
        assert_eq!(line, line_of("GLOBAL write_at"));
        assert_eq!(y, vec![0.0; 64]);
    });
}

#[test]
fn a_recursion_deeper_than_the_scratch_memory_is_an_error() {
    each(|module| {
        let mut y = vec![1_u32; 2];
        let run = Run::new(module, "recurse", 1, 64).buffer(&mut y).value(1_000_000_u32);
        let (fault, _) = run.fault();
        assert!(fault.to_string().contains("scratch"), "{fault}");
    });
}

#[test]
fn a_trap_ends_the_launch_with_its_code() {
    each(|module| {
        let mut y = vec![0_u32];
        let (fault, _) = Run::new(module, "trap", 1, 64).buffer(&mut y).fault();
        assert_eq!(fault, Fault::Trap { code: 2 });
    });
}

#[test]
fn launches_that_the_device_would_refuse_are_refused_with_the_numbers() {
    each(|module| {
        let refused = |run: &Run| match run.run() {
            Err(LaunchError::Refused(refused)) => refused,
            other => panic!("the launch should be refused: {other:?}"),
        };
        let mut y = vec![0.0_f32; 64];
        let mut run = Run::new(module, "big_lds", 1, 64).buffer(&mut y);
        run.dynamic_lds = 100 << 10;
        let needed = 64_000 + (100 << 10);
        let (has, processor) = (module.processor.lds_bytes(), module.processor.name());
        assert_eq!(refused(&run), Refused::Lds { needed, has, processor });
        run.dynamic_lds = 0;
        run.run().unwrap();
        run.blocks = 0;
        assert_eq!(refused(&run), Refused::Grid([0, 1, 1]));
        run.blocks = u32::MAX;
        assert_eq!(refused(&run), Refused::Grid([u32::MAX, 1, 1]));
        (run.blocks, run.threads) = (1, 1025);
        assert!(matches!(refused(&run), Refused::Threads { count: 1025, most: 1024, .. }));
        run.threads = 0;
        assert!(matches!(refused(&run), Refused::Threads { count: 0, .. }));
        run.threads = 64;
        run.arguments.resize(10_000, 0);
        assert!(matches!(refused(&run), Refused::Arguments { given: 10_000, .. }));
    });
}

#[test]
fn a_kernel_that_declares_more_scratch_memory_than_a_wave_can_have_is_refused() {
    each(|module| {
        let mut kernel = module.kernel("read_table").expect("the kernel is in kernels.hip").clone();
        kernel.descriptor.scratch = 32 << 20;
        let launch = Launch { arguments: &[0; 8], ..Launch::new(module, &kernel, [1, 1, 1], [64, 1, 1]) };
        let refused = Refused::Scratch { kernel: "read_table".into(), needed: 32 << 20, most: 16 << 20 };
        match launch.run() {
            Err(LaunchError::Refused(found)) => assert_eq!(found, refused),
            other => panic!("the launch should be refused: {other:?}"),
        }
    });
}

#[test]
fn arguments_of_every_size_arrive_where_the_kernel_reads_them() {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Triple {
        a: f64,
        b: i32,
        c: u16,
    }
    each(|module| {
        let mut y = vec![0.0_f64; 5];
        let triple = Triple { a: 0.25, b: -7, c: 65_000 };
        let run = Run::new(module, "arguments", 1, 1).buffer(&mut y);
        run.value(triple).value(200_u8).value(-(1_i64 << 40)).run().unwrap();
        assert_eq!(y, [0.25, -7.0, 65_000.0, 200.0, -(2_f64.powi(40))]);
    });
}

#[test]
fn variables_of_a_code_object_are_relocated_and_readable() {
    each(|module| {
        let mut y = vec![0_u32; 64];
        Run::new(module, "read_table", 1, 64).buffer(&mut y).run().unwrap();
        assert!(y.iter().enumerate().all(|(i, y)| *y == [3, 1, 4, 1][i % 4]));
        let (address, bytes) = module.variables["table"];
        assert_eq!(bytes, 16);
        assert!(module.regions.iter().any(|r| r.writable && (r.start..r.end).contains(&address)));
    });
}

#[test]
fn divisions_and_roots_are_rounded_correctly_whatever_the_launcher_did_to_the_float_control() {
    each(|module| {
        let mut x: Vec<f32> = (1..=64).map(|i| i as f32 * 1.37 - 20.0).collect();
        let mut y = vec![0.0_f32; 256];
        Run::new(module, "functions", 1, 64).buffer(&mut y).buffer(&mut x).run().unwrap();
        for (i, x) in x.iter().enumerate() {
            assert_eq!(y[i].to_bits(), (1.0 / x).to_bits(), "1 / {x}");
            assert!(
                if *x < 0.0 { y[64 + i].is_nan() } else { y[64 + i] == x.sqrt() },
                "sqrt {x}: {}",
                y[64 + i]
            );
            let exact = f64::from(*x).exp2();
            assert!((f64::from(y[128 + i]) / exact - 1.0).abs() < 1.3e-7, "exp2 {x}");
            assert_eq!(y[192 + i], x.trunc());
        }
    });
}

#[test]
fn the_workgroups_of_a_cooperative_launch_meet_at_the_barrier_of_the_grid() {
    each(|module| {
        for workers in [1, 2] {
            let mut numbers = vec![u32::MAX; 37];
            let mut run =
                Run::new(module, "hand_on", 37, 128).buffer(&mut numbers).value(37_u32).value(5_u32);
            (run.workers, run.cooperative) = (workers, true);
            run.run().unwrap();
            assert!(numbers.iter().enumerate().all(|(i, n)| *n == (i as u32 + 5) % 37), "{numbers:?}");
        }
    });
}

/// More workers than processors: a worker that has waited is often not awake yet when the others have opened a barrier.
#[test]
fn a_barrier_of_the_grid_that_opens_is_no_deadlock_for_workers_that_sleep() {
    each(|module| {
        for _ in 0..20 {
            let mut numbers = vec![u32::MAX; 37];
            let mut run =
                Run::new(module, "hand_on", 37, 64).buffer(&mut numbers).value(37_u32).value(60_u32);
            (run.workers, run.cooperative) = (9, true);
            run.run().unwrap();
            assert!(numbers.iter().enumerate().all(|(i, n)| *n == (i as u32 + 60) % 37), "{numbers:?}");
        }
    });
}

#[test]
fn the_barrier_of_the_grid_needs_a_cooperative_launch() {
    each(|module| {
        let mut numbers = vec![0_u32; 2];
        let run = Run::new(module, "hand_on", 2, 64).buffer(&mut numbers).value(2_u32).value(1_u32);
        let (fault, _) = run.fault();
        assert!(
            matches!(&fault, Fault::Illegal(text) if text.contains("hipLaunchCooperativeKernel")),
            "{fault}"
        );
    });
}

#[test]
fn one_worker_and_two_give_the_same_bytes() {
    each(|module| {
        let sums = [1, 2].map(|workers| {
            let mut x: Vec<f32> = (0..256 * 64).map(|i| ((i * 7919) % 1013) as f32 * 0.01).collect();
            let mut y = vec![0.0_f32; 64];
            let mut run = Run::new(module, "block_sum", 64, 256).buffer(&mut y).buffer(&mut x);
            run.workers = workers;
            run.run().unwrap();
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        assert_eq!(sums[0], sums[1]);
    });
}

#[test]
fn a_code_object_for_the_other_architecture_is_refused_by_both_names() {
    let (Some(file), Some(_)) =
        (compile::code_object(Processor::Gfx942), compile::code_object(Processor::Gfx950))
    else {
        return;
    };
    match Module::load(file, Processor::Gfx950) {
        Err(LoadError::OtherProcessor { found, wanted }) => {
            assert!(found.starts_with("gfx942") && wanted == "gfx950", "{found}, {wanted}");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn damaged_code_objects_are_errors_and_never_a_panic() {
    let Some(file) = compile::code_object(Processor::Gfx950) else { return };
    for len in (0..file.len()).step_by(97) {
        assert!(Module::load(&file[..len], Processor::Gfx950).is_err(), "cut at {len}");
    }
    // Every byte of the headers, and some of the rest, set to what does most harm.
    let places = (0..4096).chain((4096..file.len()).step_by(61));
    for at in places.filter(|at| *at < file.len()) {
        for value in [0, 0x7f, 0xff] {
            let mut damaged = file.to_vec();
            damaged[at] = value;
            let _ = Module::load(&damaged, Processor::Gfx950);
        }
    }
}
