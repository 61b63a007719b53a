//! The device layer and the scheduling of devices on runtimes that are made here: HIP's and CUDA's interfaces on the
//! host's memory, with devices, memory and errors as a test wants them.

#[path = "../crates/mod.rs"]
mod crates;

use crates::{Fixture, Run, shards};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

const MI300: &str = "gfx942:sramecc+:xnack-";

/// The crate `device-faults`, and folders with runtimes and its library for what they claim to be.
struct Machine {
    fixture: Fixture,
    folder: PathBuf,
}

fn cc(compiler: &str, flags: &[&str], source: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let mut command = Command::new(compiler);
    command.args(["-O1", "-fPIC", "-shared"]).arg(source).args(flags).arg("-o").arg(to);
    let output = command.output().unwrap_or_else(|e| panic!("{compiler}: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

static MACHINE: LazyLock<Machine> = LazyLock::new(|| {
    let fixture = Fixture::copy("device-faults", "device-faults-fake", |dir| {
        shards::write_all(&dir.join("shards"));
    });
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Under nextest every test is a process, and each of them comes here.
    let folder = tempfile::tempdir().unwrap().keep();
    let runtime = here.join("tests/devices/runtime.c");
    let soname = |name: &str| format!("-Wl,-soname,{name}");
    let (hip, cuda) = (soname("libamdhip64.so.6"), soname("libcuda.so.1"));
    cc("cc", &["-Wall", "-Wextra", "-Werror", &hip], &runtime, &folder.join("hip6/libamdhip64.so.6"));
    cc("cc", &["-DOLD_PROPERTIES", &hip], &runtime, &folder.join("hip5/libamdhip64.so.5"));
    cc("cc", &["-DCUDA", &cuda], &runtime, &folder.join("cuda/libcuda.so.1"));
    let headers = here.join("../accuracy-core/hip_host");
    let faults = here.join("testdata/device-faults/hip/faults.hip");
    let link = |arch: &str, library: PathBuf| {
        let source = folder.join(format!("faults_{arch}.cpp"));
        std::fs::copy(&faults, &source).unwrap();
        let (headers, library) = (headers.to_str().unwrap(), library.to_str().unwrap());
        let flags = ["-std=c++17", "-fvisibility=hidden", "-isystem", headers, "-Wl,--no-as-needed", library];
        cc("c++", &flags, &source, &folder.join(format!("kernels/libfaults_{arch}.so")));
    };
    link("gfx942", folder.join("hip6/libamdhip64.so.6"));
    link("sm_90", folder.join("cuda/libcuda.so.1"));
    Machine { fixture, folder }
});

/// A run on the machine with a runtime (`hip5`, `hip6` or `cuda`) and what its variables say.
fn run(runtime: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let machine = &*MACHINE;
    machine.fixture.accuracy_with(arguments, |command| {
        command
            .env("LD_LIBRARY_PATH", machine.folder.join(runtime))
            .env("ACCURACY_LIBRARY_PATH", machine.folder.join("kernels"))
            .env_remove("HIP_VISIBLE_DEVICES")
            .env_remove("CUDA_VISIBLE_DEVICES")
            .envs(variables.iter().copied());
    })
}

const CORRECT: [&str; 3] = ["--arch", "gfx942", "tests::correct["];

#[test]
fn a_case_runs_through_hip_with_either_structure_of_properties() {
    for runtime in ["hip5", "hip6"] {
        let run = run(runtime, &[("FAKE_GPUS", MI300)], &CORRECT);
        assert_eq!(run.status, Some(0), "{runtime}: {run}");
        assert_eq!(run.case().verdict, "correct", "{run}");
        let device = run.report.as_ref().unwrap()["device"].to_string();
        assert!(device.contains(MI300) && device.contains("libamdhip64.so."), "{device}");
    }
}

#[test]
fn a_case_runs_through_cuda() {
    let run = run("cuda", &[("FAKE_GPUS", "sm_90")], &["--arch", "sm_90", "tests::correct["]);
    assert_eq!(run.status, Some(0), "{run}");
    assert_eq!(run.case().verdict, "correct", "{run}");
}

#[test]
fn without_an_architecture_the_visible_devices_is_taken_and_never_the_cpu() {
    for (runtime, gpu, arch) in [("hip6", MI300, "gfx942"), ("cuda", "sm_90", "sm_90")] {
        let run = run(runtime, &[("FAKE_GPUS", gpu)], &["tests::correct["]);
        assert_eq!(run.status, Some(0), "{run}");
        assert!(run.case().id.contains(&format!("arch={arch},")), "{run}");
    }
    let run = run("hip6", &[], &["tests::correct["]);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("no GPU is visible, and the CPU is never taken silently"), "{run}");
}

#[test]
fn what_goes_wrong_on_a_device_is_caught_through_either_runtime() {
    for (runtime, gpu, arch) in [("hip6", MI300, "gfx942"), ("cuda", "sm_90", "sm_90")] {
        for (test, check) in [
            ("nothing_written", "unwritten"),
            ("past_the_end", "guards"),
            ("input_modified", "inputs_unchanged"),
        ] {
            let filter = format!("tests::{test}[");
            let run = run(runtime, &[("FAKE_GPUS", gpu)], &["--arch", arch, &filter]);
            assert_eq!(run.status, Some(100), "{run}");
            assert!(run.case().failed_checks.iter().any(|c| c == check), "{run}");
        }
    }
}

#[test]
fn without_a_device_the_runtime_and_the_way_out_are_named() {
    for (runtime, arch, library) in
        [("hip6", "gfx942", "libamdhip64.so.6"), ("cuda", "sm_90", "libcuda.so.1")]
    {
        let run = run(runtime, &[], &["--arch", arch, "tests::correct["]);
        assert_eq!(run.status, Some(101), "{run}");
        for part in [library, "reports no device (FakeNoDevice)", "--arch host", "VISIBLE_DEVICES"] {
            assert!(run.stderr.contains(part), "{part}: {run}");
        }
        assert!(run.report.is_none(), "{run}");
    }
}

#[test]
fn a_device_of_another_architecture_is_named() {
    let run = run("hip6", &[("FAKE_GPUS", "gfx90a:sramecc+:xnack-")], &CORRECT);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("0: Fake 0 (gfx90a:sramecc+:xnack-)"), "{run}");
    assert!(run.stderr.contains("use --arch gfx90a"), "{run}");
}

#[test]
fn a_call_that_fails_is_named_with_its_status() {
    for (runtime, gpu, arch, call) in [
        ("hip6", MI300, "gfx942", "hipMalloc"),
        ("hip6", MI300, "gfx942", "hipMemcpy"),
        ("hip6", MI300, "gfx942", "hipStreamCreateWithFlags"),
        ("cuda", "sm_90", "sm_90", "cuMemAlloc_v2"),
        ("cuda", "sm_90", "sm_90", "cuMemcpyDtoH_v2"),
        ("cuda", "sm_90", "sm_90", "cuDevicePrimaryCtxRetain"),
    ] {
        let fails = format!("{call}=2");
        let variables = [("FAKE_GPUS", gpu), ("FAKE_GPU_FAILS", fails.as_str())];
        let run = run(runtime, &variables, &["--arch", arch, "--isolation", "case", "tests::correct["]);
        assert_eq!(run.status, Some(100), "{run}");
        let case = run.case();
        assert!(case.gate == "fail" && case.verdict != "correct", "{case:?}");
        assert!(case.reason.contains(&format!("{call} failed: FakeOutOfMemory (2)")), "{case:?}");
    }
}

#[test]
fn a_call_that_fails_before_there_is_a_case_is_named_too() {
    let variables = [("FAKE_GPUS", MI300), ("FAKE_GPU_FAILS", "hipGetDeviceProperties=3")];
    let run = run("hip6", &variables, &CORRECT);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("hipGetDeviceProperties failed: FakeError (3)"), "{run}");
}

/// Cases that neither crash nor hang.
const SOME: [&str; 8] = [
    "--arch",
    "gfx942",
    // How wrong what nobody wrote is depends on it.
    "--poison",
    "7",
    "tests::correct",
    "tests::nothing_written",
    "tests::past_the_end",
    "tests::last_column",
];

#[test]
fn two_devices_share_the_cases_and_devices_chooses_among_them() {
    let two = format!("{MI300},{MI300}");
    let both = run("hip6", &[("FAKE_GPUS", &two)], &SOME);
    assert_eq!(both.status, Some(100), "{both}");
    let device = both.report.as_ref().unwrap()["device"].to_string();
    assert_eq!(device.matches("Fake").count(), 2, "{device}");

    let second = run("hip6", &[("FAKE_GPUS", &two)], &[&SOME[..], &["--devices", "1"]].concat());
    let device = second.report.as_ref().unwrap()["device"].to_string();
    assert!(device.contains("Fake 1") && !device.contains("Fake 0"), "{device}");
    let verdicts = |run: &Run| run.cases().into_iter().map(|c| (c.id, c.verdict)).collect::<Vec<_>>();
    assert_eq!(verdicts(&both), verdicts(&second));

    let third = run("hip6", &[("FAKE_GPUS", &two)], &[&SOME[..], &["--devices", "2"]].concat());
    assert_eq!(third.status, Some(2), "{third}");
    assert!(third.stderr.contains("--devices 2: there is none; visible are"), "{third}");
}

#[test]
fn a_device_that_no_longer_answers_leaves_the_pool() {
    let two = format!("{MI300},{MI300}");
    let variables = [("FAKE_GPUS", two.as_str()), ("FAKE_GPU_LOST", "1")];
    let run = run("hip6", &variables, &[&SOME[..], &["--jobs", "2"]].concat());
    assert_eq!(run.status, Some(100), "{run}");
    assert!(run.stderr.contains("device 1 (Fake 1, gfx942:sramecc+:xnack-) no longer answers"), "{run}");
    assert!(!run.stderr.contains("device 0 (Fake 0"), "{run}");
    // What the lost device cannot have done the other one has.
    let cases = run.cases();
    assert!(cases.iter().filter(|c| c.verdict != "crashed").count() >= 4, "{run}");
    assert!(cases.iter().filter(|c| c.verdict == "crashed").count() <= 1, "{run}");
    let reason = cases.iter().find(|c| c.verdict == "crashed").map(|c| c.reason.clone());
    assert!(
        reason.is_none_or(|r| r.contains("hipDeviceSynchronize failed: FakeLaunchFailure (719)")),
        "{run}"
    );
}

#[test]
fn when_the_only_device_is_lost_the_rest_is_not_run() {
    let variables = [("FAKE_GPUS", MI300), ("FAKE_GPU_LOST", "0")];
    let run = run("hip6", &variables, &[&SOME[..], &["--jobs", "1", "--isolation", "case"]].concat());
    let says = "no longer answers and runs nothing more: to a new process it reports hipDeviceSynchronize failed: \
                FakeLaunchFailure (719)";
    assert!(run.stderr.contains(says), "{run}");
    assert_eq!(run.status, Some(100), "{run}");
    let cases = run.cases();
    assert_eq!(cases.iter().filter(|c| c.verdict == "crashed").count(), 1, "{run}");
    assert!(cases.iter().filter(|c| c.verdict == "not_run").count() >= 4, "{run}");
    assert!(cases.iter().all(|c| c.gate == "fail"), "{run}");
}

#[test]
fn a_case_that_declares_more_memory_than_there_is_does_not_start() {
    let memory = |bytes| [("FAKE_GPUS", MI300), ("FAKE_GPU_MEMORY", bytes)];
    let filter = ["--arch", "gfx942", "tests::needs_a_gibibyte["];
    let small = run("hip6", &memory("536870912"), &filter);
    small.assert_failed("not_run", "it declares to need 1.0 GiB, and the largest device has 0.5 GiB");
    let large = run("hip6", &memory("2147483648"), &filter);
    assert_eq!(large.status, Some(0), "{large}");
}

#[test]
fn a_library_without_code_for_the_device_is_told_before_anything_runs() {
    let machine = &*MACHINE;
    // What the build script made for the host, under the name of a build for the device.
    let wrong = machine.folder.join("wrong");
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../accuracy-core/hip_host");
    let source = machine.folder.join("faults_gfx942.cpp");
    let flags = ["-std=c++17", "-isystem", headers.to_str().unwrap()];
    cc("c++", &flags, &source, &wrong.join("libfaults_gfx942.so"));
    let told = |library_path: &Path| {
        machine.fixture.accuracy_with(&CORRECT, |command| {
            command
                .env("LD_LIBRARY_PATH", machine.folder.join("hip6"))
                .env("ACCURACY_LIBRARY_PATH", library_path)
                .env("FAKE_GPUS", MI300);
        })
    };
    let host = told(&wrong);
    assert_eq!(host.status, Some(101), "{host}");
    for part in ["has code for the CPU", "only, and the run needs gfx942"] {
        assert!(host.stderr.contains(part), "{host}");
    }
    std::fs::write(wrong.join("libfaults_gfx942.so"), "not a library").unwrap();
    let random = told(&wrong);
    assert_eq!(random.status, Some(101), "{random}");
    assert!(random.stderr.contains("libfaults_gfx942.so cannot be read"), "{random}");
}
