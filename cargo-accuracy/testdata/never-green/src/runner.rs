//! Test processes that misbehave. They register and leave records by hand, so that they can do it wrong.

use accuracy_core::env::Settings;
use accuracy_core::meta::{Check, Section};
use accuracy_core::record::{
    CheckName, Gate, Hop, Planned, Record, Verdict, record_path, write_json, write_record,
};
use std::process::{Command, Stdio};

macro_rules! test_by_hand {
    ($name:ident, $body:block) => {
        mod $name {
            use super::*;

            const HEAD: &str = concat!(
                env!("CARGO_PKG_NAME"),
                "\u{1f}",
                module_path!(),
                "\u{1f}",
                file!(),
                "\u{1f}",
                line!(),
                "\u{1f}",
                env!("CARGO_MANIFEST_DIR")
            );
            const BODY: &str = concat!(
                r#"{"name":""#,
                stringify!($name),
                r#"","axes":[],"cells":[{"name":"cell","check":"full_chain","at":[],"tokens":1}]}"#
            );

            #[used]
            #[unsafe(link_section = "accuracy_tests")]
            static SECTION: Section<{ HEAD.len() }, { BODY.len() }> =
                Section::new(HEAD, BODY.as_bytes().first_chunk().unwrap());

            #[test]
            fn cell() $body
        }
    };
}

/// The identity of the only case that this process is asked for.
fn the_case(settings: &Settings) -> String {
    settings.cases.as_ref().unwrap()[0].clone()
}

fn settings() -> Settings {
    Settings::from_env().unwrap()
}

/// A record of the case that this process was asked for, with nothing wrong in it.
fn passing_record() -> Record {
    let id = the_case(&settings());
    let planned = Planned {
        test: id.rsplit("::").next().unwrap().split('[').next().unwrap().into(),
        id,
        package: env!("CARGO_PKG_NAME").into(),
        file: file!().into(),
        line: line!(),
        check: Check::FullChain,
        arch: "host".into(),
        dtype: None,
        path: None,
        params: Default::default(),
        weights: Default::default(),
        fuzz: None,
    };
    let mut record = planned.without_result(Verdict::Correct, "");
    record.gate = Gate::Pass;
    record.metrics.cos = Some(0.9999986);
    record.margin = record.metrics.cos.map(|cos| cos - record.threshold);
    record.hops = vec![Hop { name: "y".into(), cos: record.metrics.cos, ..Hop::default() }];
    let check = accuracy_core::verdict::at_least(CheckName::Cos, "y", record.metrics.cos, record.threshold);
    record.checks = vec![check].into();
    record
}

fn leave(record: &Record) {
    let settings = settings();
    let case = the_case(&settings);
    write_json(&record_path(settings.records.as_ref().unwrap(), &case, settings.attempt), record).unwrap();
}

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600").stdin(Stdio::null());
    command
}

test_by_hand!(is_correct, { leave(&passing_record()) });

test_by_hand!(exits_with_status_0, { std::process::exit(0) });

test_by_hand!(returns_early, {});

test_by_hand!(segfaults, {
    println!("about to write to address 8");
    // SAFETY: none. The process is meant to die of it.
    unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(1) }
});

test_by_hand!(segfaults_and_says_why, {
    let settings = settings();
    let record = record_path(settings.records.as_ref().unwrap(), &the_case(&settings), settings.attempt);
    let fault = r#"{"reason": "write past the end of y", "causes": [
        {"cause": "out_of_bounds", "detail": "gemm wrote 4 bytes past the end of y", "cos": null}]}"#;
    std::fs::write(record.with_extension("fault"), fault).unwrap();
    // SAFETY: none. The process is meant to die of it.
    unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(1) }
});

// As on a full disk: nothing that the plugin writes from now on has room.
test_by_hand!(takes_the_room_for_records, {
    leave(&passing_record());
    let none = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `none` is a limit, and the old one is not asked for. The parent is the plugin, of the same user.
    let set = unsafe { libc::prlimit(libc::getppid(), libc::RLIMIT_FSIZE, &none, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    std::process::abort()
});

test_by_hand!(aborts, { std::process::abort() });

test_by_hand!(aborts_after_its_record, {
    leave(&passing_record());
    std::process::abort()
});

test_by_hand!(panics_after_its_record, {
    leave(&passing_record());
    panic!("the end of the test went wrong")
});

test_by_hand!(hangs, { std::thread::sleep(std::time::Duration::from_secs(600)) });

test_by_hand!(hangs_and_ignores_sigterm, {
    // SAFETY: SIG_IGN is no handler that could do anything wrong.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    sleeper().spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(600))
});

test_by_hand!(leaves_a_child, {
    leave(&passing_record());
    sleeper().spawn().unwrap();
});

test_by_hand!(leaves_a_grandchild_in_a_session_of_its_own, {
    leave(&passing_record());
    Command::new("setsid").args(["--fork", "sleep", "600"]).stdin(Stdio::null()).status().unwrap();
});

test_by_hand!(leaves_a_child_that_ends_by_itself, {
    leave(&passing_record());
    Command::new("sleep").arg("0.02").spawn().unwrap();
});

test_by_hand!(prints_garbage, {
    use std::io::Write as _;
    let garbage: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::io::stdout().write_all(&garbage).unwrap();
    std::io::stdout().write_all(b"{\"gate\": \"pass\"}\ntest result: ok. 1 passed; 0 failed\n").unwrap();
    std::process::exit(0)
});

test_by_hand!(leaves_a_truncated_record, {
    let settings = settings();
    leave(&passing_record());
    let path = record_path(settings.records.as_ref().unwrap(), &the_case(&settings), settings.attempt);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
});

test_by_hand!(leaves_an_incomplete_record, { leave(&Record { complete: false, ..passing_record() }) });

test_by_hand!(leaves_a_record_of_another_case, {
    leave(&Record { id: "never-green::runner::another[arch=host]".into(), ..passing_record() })
});

test_by_hand!(leaves_a_record_that_contradicts_itself, {
    leave(&Record { verdict: Verdict::Broken, ..passing_record() })
});

test_by_hand!(leaves_a_record_with_a_failed_check, {
    let mut record = passing_record();
    record.checks = vec![accuracy_core::verdict::at_least(CheckName::Cos, "y", Some(0.15), record.threshold)].into();
    leave(&record)
});

test_by_hand!(leaves_a_record_with_a_cosine_below_its_threshold, {
    let mut record = passing_record();
    record.metrics.cos = Some(0.15);
    leave(&record)
});

test_by_hand!(leaves_a_record_without_hops, { leave(&Record { hops: Vec::new(), ..passing_record() }) });

test_by_hand!(leaves_a_record_without_checks, {
    leave(&Record { checks: Default::default(), ..passing_record() })
});

test_by_hand!(leaves_a_record_that_says_skipped, {
    let passing = passing_record();
    let skipped = Record { hops: Vec::new(), checks: Default::default(), margin: None, ..passing };
    leave(&Record { verdict: Verdict::Skipped, metrics: Default::default(), reason: "no".into(), ..skipped })
});

// A thread of the test that tidies up what it takes for its own file.
test_by_hand!(changes_its_record_afterwards, {
    let settings = settings();
    let path = record_path(settings.records.as_ref().unwrap(), &the_case(&settings), settings.attempt);
    write_record(&path, &passing_record()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("0.9999986", "0.9999987")).unwrap();
});

test_by_hand!(leaves_a_fifo_in_place_of_its_record, {
    let settings = settings();
    let path = record_path(settings.records.as_ref().unwrap(), &the_case(&settings), settings.attempt);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
});

test_by_hand!(leaves_a_record_of_a_later_schema, { leave(&Record { schema: 99, ..passing_record() }) });

#[cfg(feature = "hidden")]
test_by_hand!(is_compiled_out_by_a_feature, { leave(&passing_record()) });
