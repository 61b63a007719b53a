//! `--emulate` from sources to verdicts: the tool compiles a crate's kernels for gfx950, and its tests run that machine code.
//! Right kernels are green, and each that goes wrong is reported as itself, with all else unharmed.
//!
//! Without a compiler for AMD GPUs the tests say that they are skipped, or fail if `ACCURACY_REQUIRE_GPU_KERNELS` is set,
//! as it is in CI.

mod crates;

use crates::{Case, Fixture, Run, shards};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Programs by which a compiler for AMD GPUs is known.
const COMPILERS: [&str; 2] = ["hipcc", "/usr/lib/llvm-22/bin/clang-22"];
const EMULATE: [&str; 5] = ["--arch", "gfx950", "--emulate", "--timeout", "60"];

/// The crate `emulated`; `None`, and a line that says why, where nothing compiles its kernels.
fn emulated(test: &str) -> Option<&'static Fixture> {
    static FIXTURE: LazyLock<Option<Fixture>> = LazyLock::new(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there =
            |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        COMPILERS
            .iter()
            .any(there)
            .then(|| Fixture::copy("emulated", "emulated", |dir| shards::write_all(&dir.join("shards"))))
    });
    if FIXTURE.is_none() {
        let reason = format!("neither of {} is on this machine", COMPILERS.join(", "));
        assert!(std::env::var_os("ACCURACY_REQUIRE_GPU_KERNELS").is_none(), "{reason}");
        // Not eprintln!, which the test harness keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    }
    FIXTURE.as_ref()
}

/// The library that a build for an architecture leaves.
fn build(fixture: &Fixture, arch: &str) -> PathBuf {
    let output = fixture.plugin().args(["accuracy", "build", "--arch", arch]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn run(fixture: &Fixture, arguments: &[&str]) -> Run {
    fixture.accuracy(&[&EMULATE, arguments].concat())
}

/// The only case of a test that fails with this verdict; the reason has all these parts, and the run goes on to its end.
#[track_caller]
fn fails(fixture: &Fixture, test: &str, verdict: &str, parts: &[&str]) -> Case {
    let run = run(fixture, &[&format!("::{test}[")]);
    let reason = run.case().reason;
    run.assert_failed(verdict, reason.lines().next().unwrap_or(""));
    for part in parts {
        assert!(reason.contains(part), "the reason of {test} lacks {part:?}: {run}");
    }
    run.assert_nothing_left_running();
    run.case()
}

/// `hip/emulated.hip:` and the number of the line in which this stands.
fn line_with(text: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/emulated/hip/emulated.hip");
    let source = std::fs::read_to_string(source).unwrap();
    let number = source.lines().position(|line| line.contains(text));
    format!("emulated.hip:{}", number.unwrap_or_else(|| panic!("no line with {text}")) + 1)
}

#[test]
fn a_right_kernel_is_green_and_the_report_says_how_it_ran() {
    let Some(fixture) = emulated("a_right_kernel_is_green_and_the_report_says_how_it_ran") else { return };
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().to_str().unwrap();
    let run = run(fixture, &["--keep-tensors", kept, "::correct["]);
    assert_eq!(run.status, Some(0), "{run}");
    let case = run.case();
    assert_eq!((case.gate.as_str(), case.verdict.as_str()), ("pass", "correct"), "{run}");
    let report = run.report.as_ref().unwrap();
    assert_eq!(report["emulated"], true, "{run}");
    assert!(report["device"].as_str().unwrap().starts_with("emulated gfx950"), "{run}");
    let instructions = report["fidelity"]["instructions"].as_u64().unwrap();
    assert!(instructions > 1000, "{instructions} instructions: {run}");
    // What it divides integers by.
    assert_eq!(report["fidelity"]["modelled"], serde_json::json!(["v_rcp_iflag_f32"]), "{run}");
    let files: Vec<_> = walk(folder.path());
    assert!(files.iter().any(|file| file.extension().is_some_and(|e| e == "safetensors")), "{files:?}");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_launcher_that_falls_back_inside_itself_is_found_out() {
    let Some(fixture) = emulated("a_launcher_that_falls_back_inside_itself_is_found_out") else { return };
    let run = run(fixture, &["::falls_back["]);
    assert_eq!(run.status, Some(100), "{run}");
    let case = run.case();
    assert_eq!(case.failed_checks, ["kernel"], "{run}");
    assert!(case.reason.contains("gemm_kernel") && case.reason.contains("fast_gemm"), "{run}");
}

#[test]
fn the_other_architecture_runs_its_own_code() {
    let Some(fixture) = emulated("the_other_architecture_runs_its_own_code") else { return };
    let run = fixture.accuracy(&["--arch", "gfx942", "--emulate", "--timeout", "60", "::correct["]);
    assert_eq!((run.status, run.case().verdict.as_str()), (Some(0), "correct"), "{run}");
    let device = run.report.as_ref().unwrap()["device"].as_str().unwrap();
    assert!(device.starts_with("emulated gfx942"), "{run}");
    let run = fixture.accuracy(&["--arch", "gfx942", "--emulate", "--timeout", "60", "::falls_back["]);
    assert_eq!((run.status, run.case().failed_checks), (Some(100), vec!["kernel".to_owned()]), "{run}");
}

#[test]
fn a_write_just_past_the_end_damages_a_guard() {
    let Some(fixture) = emulated("a_write_just_past_the_end_damages_a_guard") else { return };
    let run = run(fixture, &["::past_the_end["]);
    assert_eq!(
        (run.status, run.case().failed_checks),
        (Some(100), names(&["guards", "out_of_bounds"])),
        "{run}"
    );
    let finding = &run.report.as_ref().unwrap()["cases"][0]["findings"][0];
    assert_eq!((&finding["kind"], &finding["buffer"]), (&"out_of_bounds".into(), &"y".into()), "{run}");
    assert!(finding["lane"].is_u64() && finding["line"].is_u64(), "{run}");
}

#[test]
fn a_register_that_is_read_before_its_load_was_waited_for_is_found() {
    let Some(fixture) = emulated("a_register_that_is_read_before_its_load_was_waited_for_is_found") else {
        return;
    };
    let run = run(fixture, &["::missing_wait["]);
    assert_eq!((run.status, run.case().failed_checks), (Some(100), vec!["missing_wait".to_owned()]), "{run}");
    let finding = &run.report.as_ref().unwrap()["cases"][0]["findings"][0];
    assert_eq!(finding["mnemonic"], "v_mov_b32", "{run}");
    assert_eq!((&finding["severity"], &finding["wave"]), (&"error".into(), &0.into()), "{run}");
    assert!(finding["detail"].as_str().unwrap().contains("global_load_ushort"), "{run}");
}

#[test]
fn a_missing_barrier_is_named() {
    let Some(fixture) = emulated("a_missing_barrier_is_named") else { return };
    let run = run(fixture, &["::no_barrier["]);
    assert_eq!((run.status, run.case().failed_checks), (Some(100), vec!["repeat".to_owned()]), "{run}");
    assert_eq!(run.case().causes, ["nondeterministic"], "{run}");
    assert!(run.stdout.contains("no barrier in between"), "{run}");
}

#[test]
fn a_race_is_told_where_it_is_asked_for() {
    let Some(fixture) = emulated("a_race_is_told_where_it_is_asked_for") else { return };
    let racy = run(fixture, &["--race", "::no_barrier["]);
    assert_eq!((racy.status, racy.case().failed_checks), (Some(100), names(&["repeat", "race"])), "{racy}");
    let finding = &racy.report.as_ref().unwrap()["cases"][0]["findings"][0];
    assert_eq!((&finding["kind"], &finding["severity"]), (&"race".into(), &"error".into()), "{racy}");
    let right = run(fixture, &["--race", "::correct["]);
    assert_eq!(
        (right.status, &right.report.as_ref().unwrap()["cases"][0]["findings"]),
        (Some(0), &serde_json::json!([])),
        "{right}"
    );
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

/// The names of the buffers in lists of elements.
fn buffers(elements: &serde_json::Value) -> Vec<&str> {
    elements.as_array().unwrap().iter().map(|of| of["buffer"].as_str().unwrap()).collect()
}

#[test]
fn elements_of_a_buffer_that_is_updated_in_place_are_told_by_its_name_and_kernels_readably() {
    let test = "elements_of_a_buffer_that_is_updated_in_place_are_told_by_its_name_and_kernels_readably";
    let Some(fixture) = emulated(test) else { return };
    let right = run(fixture, &["::added_in_place["]);
    assert_eq!(right.status, Some(0), "{right}");
    for (test, buffer, took, other) in [
        ("another_row_added_in_place", "hidden", &["x", "hidden"][..], "x"),
        ("another_row_of_the_sum", "y", &["w", "hidden"][..], "hidden"),
    ] {
        let run = run(fixture, &[&format!("::{test}[")]);
        assert_eq!(run.status, Some(100), "{run}");
        let origins = run.report.as_ref().unwrap()["cases"][0]["origins"].as_array().unwrap().clone();
        let wrong: Vec<_> = origins.iter().filter(|origin| origin["wrong"] == true).collect();
        assert!(!wrong.is_empty(), "{run}");
        for origin in wrong {
            assert_eq!(origin["buffer"], buffer, "{run}");
            let named: BTreeSet<&str> = buffers(&origin["took"]).into_iter().collect();
            assert_eq!(named, took.iter().copied().collect(), "{run}");
            assert_eq!((buffers(&origin["extra"]), buffers(&origin["missing"])), (vec![other], vec![other]));
            assert!(origin["not_followed"].is_null() && origin["computed"] == true, "{run}");
        }
        let told: Vec<&str> = run.stdout.lines().filter(|line| line.contains("was written by")).collect();
        assert!(!told.is_empty() && !told.iter().any(|line| line.contains("(updated)")), "{run}");
        assert!(told.iter().all(|line| line.contains("_kernel<1>`")), "{run}");
    }
}

#[test]
fn an_access_to_memory_of_nobody_names_kernel_instruction_and_line() {
    let Some(fixture) = emulated("an_access_to_memory_of_nobody_names_kernel_instruction_and_line") else {
        return;
    };
    let line = line_with("reads through null");
    let parts = [
        "kernel (anonymous namespace)::read_null: lane 0 reads 2 bytes at 0x0, which is a null pointer",
        "flat_load_ushort",
        &line,
    ];
    let case = fails(fixture, "null_read", "crashed", &parts);
    assert_eq!(case.causes, ["out_of_bounds"]);
    let line = line_with("void write_at");
    let parts =
        ["kernel (anonymous namespace)::write_at: lane 0 writes 2 bytes", "global_store_short", &line];
    let case = fails(fixture, "far_write", "crashed", &parts);
    assert_eq!(case.causes, ["out_of_bounds"]);
}

#[test]
fn a_kernel_that_never_ends_is_stopped_by_the_time_limit() {
    let Some(fixture) = emulated("a_kernel_that_never_ends_is_stopped_by_the_time_limit") else { return };
    let run = fixture.accuracy(&["--arch", "gfx950", "--emulate", "--timeout", "10", "::never_ends["]);
    assert_eq!(run.status, Some(100), "{run}");
    assert_eq!(run.case().verdict, "timed_out", "{run}");
    run.assert_nothing_left_running();
}

#[test]
fn a_wait_for_nobody_is_a_deadlock() {
    let Some(fixture) = emulated("a_wait_for_nobody_is_a_deadlock") else { return };
    let parts = ["waits_for_nobody", "wait for something that none of them writes"];
    fails(fixture, "deadlock", "crashed", &parts);
}

#[test]
fn recursion_without_end_runs_out_of_scratch_memory() {
    let Some(fixture) = emulated("recursion_without_end_runs_out_of_scratch_memory") else { return };
    fails(
        fixture,
        "recursion",
        "crashed",
        &["calls_itself", "the lane's scratch has 16384 bytes", "scratch_store"],
    );
}

#[test]
fn a_launch_that_no_device_takes_is_told_with_its_numbers() {
    let Some(fixture) = emulated("a_launch_that_no_device_takes_is_told_with_its_numbers") else { return };
    for (test, parts) in [
        ("no_block", ["gemm_kernel", "0 x 1 x 1 workgroups", "a dimension is 0"]),
        ("too_many_blocks", ["gemm_kernel", "67108864 x 1 x 1 workgroups", "2^32 work-items"]),
        ("block_too_large", ["gemm_kernel", "2048 x 1 x 1 work-items", "the kernel allows 1024"]),
        ("too_much_lds", ["uses_lds", "164000 bytes of LDS", "163840"]),
        ("half_its_arguments", ["gemm_kernel", "takes 36 bytes", "a buffer of 16 bytes"]),
    ] {
        fails(fixture, test, "crashed", &parts);
    }
}

#[test]
fn a_call_that_is_not_emulated_is_named() {
    let Some(fixture) = emulated("a_call_that_is_not_emulated_is_named") else { return };
    fails(fixture, "ipc_handle", "crashed", &["hipIpcGetMemHandle", "is not emulated"]);
}

#[test]
fn what_kernels_print_and_assert_reaches_the_report() {
    let Some(fixture) = emulated("what_kernels_print_and_assert_reaches_the_report") else { return };
    let printed = run(fixture, &["::prints["]);
    assert_eq!(printed.status, Some(0), "{printed}");
    for line in ["thread 0 has 1", "thread 1 has 1"] {
        assert!(printed.report.as_ref().unwrap().to_string().contains(line), "{printed}");
    }
    fails(fixture, "asserts", "crashed", &["asserts", "y is never null", "emulated.hip"]);
    fails(fixture, "traps", "crashed", &["traps", "trapped"]);
}

#[test]
fn a_library_of_another_architecture_in_place_is_told_before_it_runs() {
    let Some(fixture) = emulated("a_library_of_another_architecture_in_place_is_told_before_it_runs") else {
        return;
    };
    let library = build(fixture, "gfx942");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(library, folder.path().join("libemulated_gfx950.so")).unwrap();
    let run = fixture.accuracy_with(&[&EMULATE[..], &["::correct["]].concat(), |command| {
        command.env("ACCURACY_LIBRARY_PATH", folder.path()).env("ACCURACY_LIBRARY_WINS", "1");
    });
    assert_eq!(run.status, Some(101), "{run}");
    for part in ["nothing ran", "libemulated_gfx950.so", "has no code for gfx950", "it has gfx942"] {
        assert!(run.stderr.contains(part), "{part} is missing: {run}");
    }
}

#[test]
fn damaged_machine_code_fails_every_case_and_is_named() {
    let Some(fixture) = emulated("damaged_machine_code_fails_every_case_and_is_named") else { return };
    let whole = std::fs::read(build(fixture, "gfx950")).unwrap();
    let inside = whole.windows(4).skip(1).position(|bytes| bytes == b"\x7fELF").unwrap() + 1;
    for (what, at, damage) in [
        ("program headers far behind the end", 32, u64::MAX.to_le_bytes()),
        ("a type that no code object has", 16, [0xff; 8]),
        ("section headers in the middle of nowhere", 40, (1_u64 << 40).to_le_bytes()),
    ] {
        let mut damaged = whole.clone();
        damaged[inside + at..inside + at + 8].copy_from_slice(&damage);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libemulated_gfx950.so"), damaged).unwrap();
        let run = fixture.accuracy_with(&[&EMULATE[..], &["::correct["]].concat(), |command| {
            command.env("ACCURACY_LIBRARY_PATH", folder.path()).env("ACCURACY_LIBRARY_WINS", "1");
        });
        assert!(matches!(run.status, Some(100 | 101)), "{what}: {run}");
        assert!(run.stderr.contains("libemulated_gfx950.so"), "{what}: {run}");
        assert!(!run.stderr.contains("panicked"), "{what}: {run}");
    }
}

#[test]
fn a_trace_shows_the_instructions_of_the_first_wave_and_the_verdict_stays() {
    let Some(fixture) = emulated("a_trace_shows_the_instructions_of_the_first_wave_and_the_verdict_stays")
    else {
        return;
    };
    let traced = fixture.accuracy(&[&EMULATE[..], &["--trace", "::correct[", "--trace-most", "5"]].concat());
    assert_eq!((traced.status, traced.case().verdict.as_str()), (Some(0), "correct"), "{traced}");
    let written = &traced.report.as_ref().unwrap()["cases"][0]["trace"]["written"];
    assert_eq!((&written["instructions"], &written["wave"]), (&5.into(), &0.into()), "{traced}");
    assert!(traced.stdout.contains("gemm_kernel, launch 1, workgroup (0, 0, 0)"), "{traced}");
    assert!(traced.stdout.contains("emulated.hip:"), "{traced}");
    // A kernel that broke the device cannot be run once more in the same process.
    let outside = fixture.accuracy(&[&EMULATE[..], &["--trace", "::far_write["]].concat());
    assert_eq!(outside.status, Some(101), "{outside}");
    assert!(outside.stdout.contains("there is no trace of emulated::tests::far_write"), "{outside}");
}

#[test]
fn a_trace_that_cannot_be_is_an_error_that_says_why() {
    let Some(fixture) = emulated("a_trace_that_cannot_be_is_an_error_that_says_why") else { return };
    for (arguments, status, parts) in [
        (&["--trace", "::no_such_case["][..], 2, &["--trace: `::no_such_case[` matched none of"][..]),
        (&["--trace", "tokens="], 2, &["--trace shows one case", "give the whole identity of one of them"]),
        (&["--trace", "::correct[", "--trace-wave", "9"], 101, &["wave 9 was asked for", "gemm_kernel"]),
        (
            &["--trace", "::correct[", "--trace-kernel", "absent"],
            101,
            &["no kernel was launched whose name contains `absent`", "gemm_kernel"],
        ),
        (&["--trace-wave", "0"], 2, &["--trace"]),
        (&["--trace", "::correct[", "--trace-lane", "64"], 2, &["the number of a lane, 0 to 63"]),
    ] {
        let run = fixture.accuracy(&[&EMULATE[..], arguments].concat());
        assert_eq!(run.status, Some(status), "{arguments:?}: {run}");
        for part in parts {
            assert!(run.stderr.contains(part) || run.stdout.contains(part), "{part} is missing: {run}");
        }
    }
    let on_host = fixture.accuracy(&["--arch", "host", "--trace", "::correct["]);
    assert_eq!(on_host.status, Some(2), "{on_host}");
    assert!(on_host.stderr.contains("add --emulate"), "{on_host}");
}

#[test]
fn thirty_two_processes_at_once_all_pass() {
    let Some(fixture) = emulated("thirty_two_processes_at_once_all_pass") else { return };
    let run = run(fixture, &["--jobs", "32", "--isolation", "case", "::side_by_side["]);
    assert_eq!(run.status, Some(0), "{run}");
    let cases = run.cases();
    assert_eq!(cases.len(), 32, "{run}");
    assert!(cases.iter().all(|case| case.verdict == "correct"), "{run}");
}

#[test]
fn an_archive_with_the_emulator_runs_where_there_is_no_compiler() {
    let Some(fixture) = emulated("an_archive_with_the_emulator_runs_where_there_is_no_compiler") else {
        return;
    };
    build(fixture, "gfx950");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated.tar.zst");
    let mut command = fixture.plugin();
    command.args(["accuracy", "archive", "--offline", "--emulate", "--out"]).arg(&file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = fixture.run_archive(&file, &["--arch", "gfx950", "--emulate", "::correct["]);
    assert_eq!((run.status, run.case().verdict.as_str()), (Some(0), "correct"), "{run}");
    assert_eq!(run.report.as_ref().unwrap()["emulated"], true, "{run}");
}

#[test]
fn a_code_object_is_never_older_than_its_sources() {
    let Some(fixture) = emulated("a_code_object_is_never_older_than_its_sources") else { return };
    let mut command = fixture.plugin();
    command.args(["accuracy", "build", "--arch", "gfx950", "--code-object", "plain"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let test = ["::of_a_code_object["];
    let right = run(fixture, &test);
    let header = fixture.dir.join("hip/plain.h");
    let text = std::fs::read_to_string(&header).unwrap();
    let time = header.metadata().unwrap().modified().unwrap();
    // Of the object's headers, contents alone decide, as for libraries.
    let write = |text: &str| {
        std::fs::write(&header, text).unwrap();
        std::fs::File::options().write(true).open(&header).unwrap().set_modified(time).unwrap();
    };
    write(&text.replace("1.0f", "1.5f"));
    let wrong = run(fixture, &test);
    write(&text);
    let again = run(fixture, &test);
    assert_eq!((right.status, right.case().verdict.as_str()), (Some(0), "correct"), "{right}");
    assert_eq!(wrong.status, Some(100), "{wrong}");
    assert!(wrong.case().failed_checks.iter().any(|check| check == "gain"), "{wrong}");
    assert_eq!((again.status, again.case().verdict.as_str()), (Some(0), "correct"), "{again}");
}
