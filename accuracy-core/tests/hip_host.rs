//! Builds a kernel library for the host and looks at it from inside its kernels.
#![cfg(all(feature = "build", feature = "runtime"))]

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use accuracy_core::build::HostLibrary;
use libloading::Library;

const WARP: usize = 64;
const INVALID_VALUE: i32 = 1;
const INVALID_CONFIGURATION: i32 = 9;

fn host_library(name: &str, out_dir: &Path) -> HostLibrary {
    let arch = std::env::consts::ARCH;
    HostLibrary::new(name).out_dir(out_dir).target(format!("{arch}-unknown-linux-gnu"))
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = host_library("test", folder.path())
            .file(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hip_host.hip"))
            .flag("-Wextra")
            .flag("-Werror")
            .compile();
        // SAFETY: the library was built above and runs no code of its own when loaded.
        unsafe { Library::new(path) }.unwrap()
    })
}

/// Calls `launch_$name` with arguments of the types given.
macro_rules! launch {
    ($name:literal, $($argument:expr => $type:ty),*) => {{
        // SAFETY: the types are those of the launcher in hip_host.hip.
        let launcher = unsafe { library().get::<unsafe extern "C" fn($($type),*) -> i32>(concat!("launch_", $name)) };
        let launcher = launcher.unwrap();
        // SAFETY: the buffers passed here have an element for every thread that writes.
        unsafe { launcher($($argument),*) }
    }};
}

const GRID: [u32; 3] = [3, 2, 4];
const BLOCKS: [[u32; 3]; 6] = [[1, 1, 1], [64, 1, 1], [70, 1, 1], [1024, 1, 1], [5, 3, 7], [16, 16, 1]];

fn count(dim: [u32; 3]) -> usize {
    dim.iter().product::<u32>() as usize
}

#[test]
fn every_thread_of_every_block_runs_once() {
    for block in BLOCKS {
        let mut out = vec![0u32; count(GRID) * count(block)];
        assert_eq!(
            launch!("count_visits", out.as_mut_ptr() => *mut u32, GRID.as_ptr() => *const u32, block.as_ptr() => *const u32),
            0
        );
        assert!(out.iter().all(|&visits| visits == 1), "{block:?}");
    }
}

#[test]
fn a_block_finds_nothing_of_the_last_one_and_a_thread_nothing_of_another() {
    const BLOCKS: usize = 5;
    const THREADS: usize = 70;
    for launch in 0..3 {
        let (mut shared, mut own) = (vec![0u32; BLOCKS], vec![0u32; BLOCKS * THREADS]);
        assert_eq!(
            launch!("what_is_left", shared.as_mut_ptr() => *mut u32, own.as_mut_ptr() => *mut u32, BLOCKS as i32 => i32, THREADS as i32 => i32),
            0
        );
        // What is shared memory is known once a block has written to it.
        let known = if launch == 0 { &shared[1..] } else { &shared[..] };
        assert!(known.iter().all(|&word| word == u32::MAX), "launch {launch}: {shared:x?}");
        assert!(own.iter().all(|&word| word == u32::MAX), "launch {launch}: {own:x?}");
    }
}

#[test]
fn barriers_order_shared_memory_on_several_host_threads() {
    let rotate = || {
        for block in BLOCKS {
            let (threads, rounds) = (count(block), 5);
            let mut out = vec![0u32; count(GRID) * threads];
            assert_eq!(
                launch!("rotate_in_block", out.as_mut_ptr() => *mut u32, GRID.as_ptr() => *const u32, block.as_ptr() => *const u32, rounds => i32),
                0
            );
            for (i, &value) in out.iter().enumerate() {
                let first = i / threads * threads;
                assert_eq!(value as usize, first + (i - first + rounds as usize) % threads, "{block:?}");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(rotate);
        }
    });
}

#[test]
fn warp_operations_exchange_values_between_lanes() {
    let threads = 2 * WARP + 22;
    let mut out = vec![0i32; 10 * threads];
    assert_eq!(launch!("warp_operations", out.as_mut_ptr() => *mut i32, threads as i32 => i32), 0);
    for thread in 0..threads {
        let (lane, first) = (thread % WARP, thread / WARP * WARP);
        let live = WARP.min(threads - first);
        // A lane that does not exist reads as all bits set.
        let lane_at = |source: usize| if source < first + live { source as i32 } else { -1 };
        let row = |row: usize| out[row * threads + thread];
        assert_eq!(row(0), lane_at(thread / 16 * 16 + 3), "shfl, thread {thread}");
        assert_eq!(row(1), lane_at(thread ^ 5), "shfl_xor, thread {thread}");
        let up = if lane % 32 >= 3 { thread - 3 } else { thread };
        assert_eq!(row(2), lane_at(up), "shfl_up, thread {thread}");
        let down = if lane % 32 + 7 < 32 { thread + 7 } else { thread };
        assert_eq!(row(3), lane_at(down), "shfl_down, thread {thread}");
        assert_eq!(row(4), 2 * (thread as i32 ^ 1) + 1, "shfl_xor of doubles, thread {thread}");
        assert_eq!(row(5), live.div_ceil(3) as i32, "ballot, thread {thread}");
        assert_eq!(row(6), 1 + 2 + 4 * i32::from(live < WARP), "any and all, thread {thread}");
        let votes: usize =
            (0..=lane % 4).map(|round| (0..live).filter(|lane| lane % 4 >= round).count()).sum();
        assert_eq!(row(7), votes as i32, "ballot in a divergent loop, thread {thread}");
        assert_eq!(row(8), live as i32, "ballot behind the loop, thread {thread}");
        if thread < 32 {
            assert_eq!(row(9), -1, "a lane that takes no part, thread {thread}");
        }
    }
}

#[test]
fn dynamic_shared_memory_starts_as_nan_and_is_limited() {
    let mut out = vec![0f32; 100];
    let sum = |out: &mut [f32], bytes: i32| launch!("sum_dynamic_shared", out.as_mut_ptr() => *mut f32, 100 => i32, bytes => i32);
    assert_eq!(sum(&mut out, 400), 0);
    assert!(out[0].is_nan());
    assert!(out[1..].iter().all(|&sum| sum == (1..100).sum::<i32>() as f32));
    assert_eq!(sum(&mut out, 64 * 1024 + 1), INVALID_VALUE);
}

#[test]
fn a_launch_that_no_device_takes_is_refused() {
    let mut out = [0u32; 1];
    for (grid, block) in [
        ([0, 1, 1], [1, 1, 1]),
        ([1, 1, 1], [1025, 1, 1]),
        ([1, 1, 1], [1, 0, 1]),
        ([1, 65537, 1], [1, 1, 1]),
    ] {
        let status = launch!("count_visits", out.as_mut_ptr() => *mut u32, grid.as_ptr() => *const u32, block.as_ptr() => *const u32);
        assert_eq!(status, INVALID_CONFIGURATION, "{grid:?} {block:?}");
    }
    assert_eq!(out, [0]);
}

#[test]
fn a_barrier_that_not_all_threads_reach_is_reported_and_aborts() {
    const CHILD: &str = "HIP_HOST_DIVERGENT";
    if let Ok(return_early) = std::env::var(CHILD) {
        launch!("divergent", return_early == "true" => bool);
        return;
    }
    for (return_early, expected) in
        [("true", "thread (100, 0, 0) has returned"), ("false", "thread (100, 0, 0) waits at")]
    {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_barrier_that_not_all_threads_reach_is_reported_and_aborts", "--nocapture"])
            .env(CHILD, return_early)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(stderr.contains("divergent __syncthreads() in block (0, 0, 0)"), "{stderr}");
        assert!(stderr.contains("100 of 128 reached") && stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn only_marked_functions_are_exported() {
    // SAFETY: looked up, not called.
    let symbol = unsafe { library().get::<unsafe extern "C" fn() -> i32>("not_marked_for_export") };
    assert!(symbol.is_err());
}

#[test]
fn hip_that_the_host_does_not_compile_is_told_with_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = "#include <hip/hip_runtime_api.h>\n__global__ void kernel(float* x) {";
    for (source, part) in [
        (
            format!("{kernel} }}\nvoid launch(float* x) {{ kernel<<<1, 64, 0, nullptr>>>(x); }}"),
            "hipLaunchKernelGGL(",
        ),
        (format!("{kernel} extern __shared__ float s[]; x[0] = s[0]; }}"), "HIP_DYNAMIC_SHARED("),
        ("#include <hip/hip_bf16.h>".into(), "a struct of a uint16_t"),
        ("#include <hip/hip_bfloat16.h>".into(), "a struct of a uint16_t"),
        ("#include <hip/hip_fp16.h>".into(), "a struct of a uint16_t"),
        ("#include <hip/hip_fp8.h>".into(), "fp8 codes as uint8_t"),
        ("#include <hip/hip_cooperative_groups.h>".into(), "__shfl*"),
    ] {
        let file = folder.path().join("foreign.hip");
        std::fs::write(&file, &source).unwrap();
        let error = host_library("foreign", folder.path()).file(file).try_compile().unwrap_err().to_string();
        assert!(error.contains(part), "{source}: {error}");
    }
    // Each is there for a GPU alone.
    let guarded = folder.path().join("guarded.hip");
    std::fs::write(&guarded, "#ifdef __HIP__\n#include <hip/hip_fp8.h>\n#endif\nint here;\n").unwrap();
    host_library("guarded", folder.path()).file(guarded).try_compile().unwrap();
}

#[test]
fn build_errors_name_the_file_and_show_the_compiler_s_message() {
    let folder = tempfile::tempdir().unwrap();
    let build = |source: &Path| {
        host_library("broken", folder.path()).file(source).try_compile().unwrap_err().to_string()
    };

    let missing = folder.path().join("missing.hip");
    let error = build(&missing);
    assert!(error.contains("missing.hip` of kernel library `broken`"), "{error}");

    let invalid = folder.path().join("invalid.hip");
    std::fs::write(&invalid, "#include <hip/hip_runtime.h>\n__global__ void kernel() { int x = ; }\n")
        .unwrap();
    let error = build(&invalid);
    assert!(error.contains("invalid.hip:2:") && error.contains("-ffp-contract=off"), "{error}");

    let unresolved = folder.path().join("unresolved.hip");
    let source = "void nowhere();\nextern \"C\" __attribute__((visibility(\"default\"))) void launch() { nowhere(); }\n";
    std::fs::write(&unresolved, source).unwrap();
    let error = build(&unresolved);
    assert!(error.contains("nowhere"), "{error}");

    let error = host_library("empty", folder.path()).try_compile().unwrap_err().to_string();
    assert!(error.contains("`empty` has no sources"), "{error}");
}
