//! `--emulate`: when it may be said, what it needs, and that whatever is emulated says so.

mod crates;

use crates::{Fixture, Run, never_green};
use std::path::Path;
use std::process::Command;

/// A crate that depends on accuracy-core and is never built, with a configuration.
fn unbuilt(core: &str, config: &str) -> (tempfile::TempDir, Fixture) {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "Cargo.toml",
        &format!(
            "[package]\nname = \"kernel-crate\"\nedition = \"2024\"\n\n[dependencies]\n{core}\n\n[workspace]\n"
        ),
    );
    write("src/lib.rs", "");
    write(".config/accuracy.toml", config);
    let fixture = Fixture::at(folder.path());
    (folder, fixture)
}

fn own_core() -> String {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("accuracy-core");
    format!("accuracy-core = {{ path = {core:?} }}")
}

fn with_config(config: &str, arguments: &[&str]) -> Run {
    unbuilt(&own_core(), config).1.accuracy(arguments)
}

#[track_caller]
fn assert_refused(run: &Run, told: &[&str]) {
    assert_eq!(run.status, Some(2), "{run}");
    for part in told {
        assert!(run.stderr.contains(part), "{part} is missing: {run}");
    }
}

#[test]
fn what_cannot_be_emulated_is_refused_before_anything_is_built() {
    for (arch, not) in [("host", "host"), ("sm_90", "sm_90"), ("gfx90a", "gfx90a"), ("gfx950,host", "host")] {
        let run = with_config("", &["--arch", arch, "--emulate"]);
        assert_refused(&run, &[&format!("--emulate: {not} cannot be emulated"), "--arch gfx942 or gfx950"]);
    }
    let run = with_config("arch = \"host\"", &["--emulate"]);
    assert_refused(&run, &["--emulate: host cannot be emulated"]);
    let run = with_config("arch = \"host\"\nemulate = true", &[]);
    assert_refused(&run, &["emulate = true: host cannot be emulated"]);
}

#[test]
fn an_architecture_to_emulate_is_named_and_never_guessed() {
    let run = with_config("", &["--emulate"]);
    assert_refused(&run, &["no architecture is named for kernel-crate", "--arch gfx942 or gfx950"]);
}

#[test]
fn the_runtime_of_a_device_is_refused_beside_it() {
    let run = with_config("", &["--arch", "gfx950", "--emulate", "--runtime", "hip"]);
    assert_refused(&run, &["--runtime hip", "--emulate"]);
    let run = with_config("emulate = true", &["--arch", "gfx950", "--runtime", "hip"]);
    assert_refused(&run, &["--runtime hip", "--emulate=false overrides"]);
}

#[test]
fn a_value_of_key_or_variable_that_means_nothing_is_refused() {
    let run = with_config("emulate = \"yes\"", &["--arch", "gfx950"]);
    assert_refused(&run, &["emulate = \"yes\": expected true or false"]);
    let (_folder, fixture) = unbuilt(&own_core(), "");
    let run = fixture.accuracy_with(&["--arch", "gfx950"], |command| {
        command.env("ACCURACY_EMULATE", "2");
    });
    assert_refused(&run, &["ACCURACY_EMULATE=2: expected 1 to emulate, 0 to run on a device"]);
}

#[test]
fn without_it_and_without_a_device_the_message_names_it() {
    if Path::new("/dev/kfd").exists() {
        eprintln!("skipped: this machine has a device");
        return;
    }
    for arguments in [&["--arch", "gfx950"][..], &["--arch", "gfx942", "--emulate=false"], &[]] {
        let run = with_config("", arguments);
        assert_eq!(run.status, Some(101), "{run}");
        assert!(run.stderr.contains("--emulate"), "{run}");
    }
    let run = with_config("emulate = true", &["--arch", "gfx950", "--emulate=false"]);
    assert_eq!(run.status, Some(101), "{run}");
}

#[test]
fn an_accuracy_core_without_the_feature_is_named_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("src")).unwrap();
    std::fs::write(folder.path().join("src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"accuracy-core\"\nversion = \"0.0.7\"\nedition = \"2024\"\n";
    std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    // It may be called otherwise by who depends on it.
    for core in [
        format!("accuracy-core = {{ path = {:?} }}", folder.path()),
        format!("judge = {{ package = \"accuracy-core\", path = {:?} }}", folder.path()),
    ] {
        let (_crate, fixture) = unbuilt(&core, "");
        let run = fixture.accuracy(&["--arch", "gfx950", "--emulate"]);
        assert_eq!(run.status, Some(101), "{run}");
        assert!(run.stderr.contains("depends on accuracy-core 0.0.7"), "{run}");
        assert!(run.stderr.contains("has no feature `emulate`"), "{run}");
    }
}

#[test]
fn a_run_that_is_emulated_says_so_and_how_to_run_a_case_again() {
    let run = never_green().accuracy(&[
        "--arch",
        "gfx950",
        "--emulate",
        "--jobs",
        "1",
        "::correct_by_its_attribute[",
    ]);
    // It has no library for gfx950.
    assert_eq!(run.status, Some(100), "{run}");
    let report = run.report.as_ref().unwrap();
    assert_eq!(report["emulated"], true, "{run}");
    assert!(report["device"].as_str().unwrap().starts_with("emulated gfx950"), "{run}");
    assert_eq!(report["fidelity"]["exact"], report["fidelity"]["instructions"], "{run}");
    let line = run.stdout.lines().find(|line| line.trim().starts_with("re-run: ")).unwrap();
    assert!(line.contains("--arch gfx950") && line.contains(" --emulate "), "{run}");

    let on_host = never_green().accuracy(&["--arch", "host", "::correct_by_its_attribute["]);
    let report = on_host.report.as_ref().unwrap();
    assert_eq!((&report["emulated"], report.get("fidelity")), (&false.into(), None), "{on_host}");
}

#[test]
fn an_architecture_named_for_one_run_is_not_what_the_configuration_speaks_of() {
    let (_folder, fixture) = unbuilt(&own_core(), "emulate = true");
    // Nothing is emulated on the host: that it has no test is all that is left to say.
    let run = fixture.accuracy(&["--arch", "host", "--list"]);
    assert_eq!(run.status, Some(4), "{run}");
}

fn archive(name: &str, flags: &[&str]) -> (std::path::PathBuf, String) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command: Command = never_green().plugin();
    command.args(["accuracy", "archive", "--offline", "--out"]).arg(&file).args(flags);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (file, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn an_archive_says_whether_it_can_emulate_before_it_is_unpacked() {
    let (file, said) = archive("without-emulator.tar.zst", &[]);
    assert!(said.contains("without the emulator (--emulate)"), "{said}");
    let run = never_green().run_archive(&file, &["--arch", "gfx950", "--emulate"]);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("built without the emulator"), "{run}");
    assert!(run.stderr.contains("again with `cargo accuracy archive --emulate`"), "{run}");

    let (file, said) = archive("with-emulator.tar.zst", &["--emulate"]);
    assert!(said.trim_end().ends_with(", with the emulator"), "{said}");
    let run = never_green().run_archive(&file, &["--arch", "host", "::is_correct["]);
    assert_eq!(run.status, Some(0), "{run}");
    let run = never_green().run_archive(&file, &["--arch", "gfx950", "--emulate", "::is_correct["]);
    // It holds no library for gfx950, and says so.
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("for gfx950"), "{run}");
}

#[test]
fn a_test_binary_without_the_emulator_says_so_at_once() {
    let records = tempfile::tempdir().unwrap();
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(&never_green().dir)
        .args(["test", "--offline", "--quiet", "correct_by_its_attribute"])
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("target"))
        .env("ACCURACY_ARCH", "gfx950")
        .env("ACCURACY_EMULATE", "1")
        .env("ACCURACY_RECORDS", records.path());
    let output = cargo.output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let told = std::fs::read_dir(records.path()).unwrap().any(|entry| {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        text.contains("these tests were built without the emulator")
    });
    assert!(told, "no record says it");
}
