//! Archives: what they hold runs as it does in the workspace, without cargo and without the source; damaged ones do
//! not run at all.

mod crates;

use crates::{Fixture, Run};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Kernels that go wrong and checkpoints that are damaged.
/// With one poison: how wrong what nobody wrote is depends on it.
const CASES: &[&str] = &["--arch", "host", "--poison", "7", "never-green::kernels::", "never-green::data::"];

/// What the build script leaves, and what is named on the command line.
const LIBRARIES: &str = "libfaulty_host.so, libforeign_gfx942.so, libextra_sm_90.so";

struct Archived {
    archive: PathBuf,
    /// Verdict, gate and failed checks of each case in the workspace.
    in_workspace: BTreeMap<String, Outcome>,
}

type Outcome = (String, String, Vec<String>);

fn outcomes(run: &Run) -> BTreeMap<String, Outcome> {
    run.cases().into_iter().map(|c| (c.id, (c.verdict, c.gate, c.failed_checks))).collect()
}

/// The crate `never-green` in an archive; its folder has been moved away since.
fn archived() -> &'static Archived {
    static ARCHIVED: LazyLock<Archived> = LazyLock::new(|| {
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let lock = std::fs::File::create(shared.join("archive.lock")).unwrap();
        // Under nextest every test is a process, and each of them comes here.
        lock.lock().unwrap();
        let (dir, away) =
            (shared.join("crates/never-green-archived"), shared.join("crates/never-green-away"));
        if away.exists() {
            std::fs::rename(&away, &dir).unwrap();
        }
        let fixture = Fixture::copy("never-green", "never-green-archived", |dir| {
            crates::shards::write_all(&dir.join("shards"));
        });
        assert_eq!(fixture.dir, dir);
        let in_workspace = outcomes(&fixture.accuracy(CASES));
        let archive = shared.join("archives/never-green.tar.zst");
        std::fs::create_dir_all(archive.parent().unwrap()).unwrap();
        let gpu = tempfile::tempdir().unwrap();
        for file in ["libextra_sm_90.so", "libextra.so", "README.md"] {
            std::fs::write(gpu.path().join(file), "").unwrap();
        }
        let output = fixture
            .plugin()
            .args(["accuracy", "archive", "--offline", "--out"])
            .arg(&archive)
            .arg("--library-path")
            .arg(gpu.path())
            .output()
            .expect("the plugin can be started");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{stdout}{stderr}");
        assert!(stdout.contains(LIBRARIES), "{stdout}{stderr}");
        assert!(stderr.contains("shards/absent is not there, so it is not archived"), "{stderr}");
        std::fs::rename(&dir, &away).unwrap();
        Archived { archive, in_workspace }
    });
    &ARCHIVED
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A folder with nothing of the crate in it.
fn elsewhere() -> (tempfile::TempDir, Fixture) {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::at(dir.path());
    (dir, fixture)
}

fn run(arguments: &[&str]) -> Run {
    let (_dir, fixture) = elsewhere();
    fixture.run_archive(&archived().archive, arguments)
}

#[test]
fn every_case_ends_as_in_the_workspace() {
    let run = run(CASES);
    assert_eq!(run.status, Some(100), "{run}");
    let found = outcomes(&run);
    assert!(found.len() > 20, "{run}");
    assert_eq!(found, archived().in_workspace, "{run}");
    let good = found.iter().find(|(id, _)| id.contains("kernels::correct[")).unwrap();
    assert_eq!(good.1.0, "correct", "a library and a checkpoint of the archive are read: {run}");
}

#[test]
fn flags_of_a_run_work_and_records_are_left() {
    let (dir, fixture) = elsewhere();
    let archive = &archived().archive;
    let list = |arguments: &[&str]| {
        let run =
            fixture.run_archive(archive, &[&["--arch", "host", "--list", "::data::"], arguments].concat());
        run.stdout.lines().map(String::from).collect::<Vec<_>>()
    };
    let mut parts = [list(&["--partition", "slice:1/2"]), list(&["--partition", "slice:2/2"])].concat();
    let mut all = list(&[]);
    parts.sort();
    all.sort();
    assert!(all.len() > 4);
    assert_eq!(parts, all);

    let run =
        fixture.run_archive(archive, &["--arch", "host", "--timeout", "0.5", "--jobs", "1", "::hangs["]);
    run.assert_failed("timed_out", "0.5 s");
    assert!(dir.path().join("target/accuracy/latest/manifest.json").is_file(), "{run}");
    let run = fixture.run_archive(archive, &["--arch", "host", "no_such_case["]);
    assert_eq!(run.status, Some(4), "{run}");
    let run = fixture.run_archive(archive, &["::is_correct["]);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("no architecture is named for never-green"), "{run}");
}

#[test]
fn the_command_that_a_failure_prints_runs_it_again_from_the_archive() {
    let (_dir, fixture) = elsewhere();
    let first = fixture.run_archive(&archived().archive, &["--arch", "host", "::nothing_written["]);
    let line =
        first.stdout.lines().find_map(|l| l.trim().strip_prefix("re-run: ")).expect("there is such a line");
    let script = format!("set -- {line}; printf '%s\\n' \"$@\"");
    let words = text(std::process::Command::new("sh").args(["-c", &script]).output().unwrap().stdout);
    let words: Vec<&str> = words.lines().collect();
    assert_eq!(words[0], "cargo-accuracy");
    let output = fixture.plugin().args(&words[1..]).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(100), "{line}");
    assert!(text(output.stdout).contains(&format!("'{}'", first.case().id)), "{line}");
}

#[test]
fn packages_of_the_archive_can_be_selected_and_others_are_refused() {
    assert_eq!(run(&["-p", "never-green", "--arch", "host", "::is_correct["]).status, Some(0));
    let run = run(&["-p", "kernels", "--arch", "host"]);
    assert_eq!(run.status, Some(2), "{run}");
    assert!(run.stderr.contains("is called `kernels`; there are: never-green"), "{run}");
}

#[test]
fn what_was_decided_when_it_was_built_is_refused() {
    for flag in ["--release", "--all-features", "--lib", "--locked"] {
        let run = run(&[flag]);
        assert_eq!(run.status, Some(2), "{run}");
        assert!(run.stderr.contains("cannot be used with"), "{run}");
    }
}

#[test]
fn an_architecture_without_a_library_is_an_error_that_says_which_are_there() {
    let run = run(&["--arch", "gfx950", "::is_correct["]);
    assert_eq!(run.status, Some(101), "{run}");
    for part in ["no kernel library of never-green for gfx950", LIBRARIES] {
        assert!(run.stderr.contains(part), "{run}");
    }
}

#[test]
fn a_truncated_archive_does_not_run() {
    let (dir, fixture) = elsewhere();
    let whole = std::fs::read(&archived().archive).unwrap();
    let cut = dir.path().join("cut.tar.zst");
    for eighth in 0..8 {
        let length = (whole.len() * eighth / 8).min(whole.len() - 1);
        assert_refused(&fixture, &cut, &whole[..length]);
    }
    // The checksum alone is missing.
    assert_refused(&fixture, &cut, &whole[..whole.len() - 4]);
}

#[test]
fn a_changed_byte_is_noticed() {
    let (dir, fixture) = elsewhere();
    let path = dir.path().join("changed.tar.zst");
    let whole = std::fs::read(&archived().archive).unwrap();
    for seventh in 1..7 {
        let mut changed = whole.clone();
        changed[whole.len() * seventh / 7] ^= 0x10;
        assert_refused(&fixture, &path, &changed);
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    let (dir, fixture) = elsewhere();
    let path = dir.path().join("other.tar.zst");
    assert_refused(&fixture, &path, b"\x7fELF and so on");
    assert_refused(&fixture, &path, b"");
    assert_refused(&fixture, &path, &zstd::encode_all(&b"no tar"[..], 1).unwrap());
    let run = fixture.run_archive(&dir.path().join("absent"), &["--arch", "host"]);
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains("cannot open archive"), "{run}");
}

/// Nothing of it runs, and the message names the file.
#[track_caller]
fn assert_refused(fixture: &Fixture, path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    let run = fixture.run_archive(path, &["--arch", "host", "::is_correct["]);
    assert_eq!(run.status, Some(101), "{} bytes: {run}", bytes.len());
    assert!(run.report.is_none(), "{run}");
    assert!(run.stderr.contains(path.to_str().unwrap()), "{run}");
}

/// Runs the archive after `change` has had its way with its entries, the first of which describes the others.
fn run_changed(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Run {
    let file = std::fs::File::open(&archived().archive).unwrap();
    let mut entries = Vec::new();
    for entry in tar::Archive::new(zstd::Decoder::new(file).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        entries.push((entry.path().unwrap().to_str().unwrap().to_string(), bytes));
    }
    change(&mut entries);
    let (dir, fixture) = elsewhere();
    let path = dir.path().join("changed.tar.zst");
    let encoder = zstd::Encoder::new(std::fs::File::create(&path).unwrap(), 1).unwrap();
    let mut tar = tar::Builder::new(encoder.auto_finish());
    for (path, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Not by set_path, which would refuse what some of the tests need.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, &bytes[..]).unwrap();
    }
    drop(tar.into_inner().unwrap());
    fixture.run_archive(&path, &["--arch", "host", "::kernels::correct["])
}

/// Changes the description of the archive as text.
fn run_described(from: &str, to: &str) -> Run {
    run_changed(|entries| {
        let text = text(std::mem::take(&mut entries[0].1));
        assert!(text.contains(from), "{text}");
        entries[0].1 = text.replacen(from, to, 1).into_bytes();
    })
}

#[track_caller]
fn assert_stops(run: &Run, reason: &str) {
    assert_eq!(run.status, Some(101), "{run}");
    assert!(run.stderr.contains(reason), "{reason}: {run}");
    assert!(run.report.is_none(), "{run}");
}

#[test]
fn an_archive_that_is_put_together_by_hand_runs() {
    // Or else the tests below would prove nothing.
    let run = run_changed(|_| {});
    assert_eq!(run.status, Some(0), "{run}");
}

#[test]
fn an_archive_of_another_version_is_refused() {
    assert_stops(&run_described("\"format\":1", "\"format\":2"), "has format 2");
}

#[test]
fn an_archive_for_another_machine_is_refused() {
    let machine = format!("{}-linux", std::env::consts::ARCH);
    let run = run_described(&machine, "riscv64-linux");
    assert_stops(&run, "are for riscv64-linux, and this machine is");
}

#[test]
fn an_entry_that_leads_out_of_the_folder_is_refused() {
    let run = run_described("\"path\":\"files/", "\"path\":\"../files/");
    assert_stops(&run, "leads out of it");
    let run = run_changed(|entries| entries.last_mut().unwrap().0 = "../outside".into());
    assert_stops(&run, "../outside");
}

#[test]
fn an_entry_that_is_missing_or_not_announced_is_named() {
    let run = run_changed(|entries| drop(entries.pop()));
    assert_stops(&run, "libextra_sm_90.so is missing");
    let run = run_changed(|entries| entries.push(("files/more".into(), Vec::new())));
    assert_stops(&run, "files/more, which it does not announce");
}

#[test]
fn libraries_that_still_lie_where_the_archive_was_built_are_not_taken() {
    let run = run_changed(|entries| {
        let at = entries.iter().position(|(path, _)| path.ends_with("/libfaulty_host.so")).unwrap();
        let (path, bytes) = entries.remove(at);
        let other = path.replace("libfaulty", "libother");
        let description = text(std::mem::take(&mut entries[0].1));
        entries[0].1 = description.replace(&path, &other).into_bytes();
        entries.insert(at, (other, bytes));
    });
    run.assert_failed("not_run", "kernels `faulty` were not found");
}
