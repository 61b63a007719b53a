//! Reports as their consumers read them: JSON by its published schema, SARIF by that of OASIS, JUnit by a reader of it,
//! Markdown and annotations by GitHub's limits; of every kind of record, and of very many.

mod many;

use accuracy_core::record::{
    Emulated, Fidelity, Finding, FindingKind, Gate, read_record, record_path, write_json,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Renders a folder of records, beside it.
fn render(records: &Path, formats: &[&str]) -> impl Fn(&str) -> String + use<> {
    let folder = records.parent().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"));
    command.args(["report", "-q"]).arg(records);
    for format in formats {
        command.arg("--report").arg(format!("{format}={}", folder.join(format).display()));
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(100), "{}", String::from_utf8_lossy(&output.stderr));
    move |format| std::fs::read_to_string(folder.join(format)).unwrap()
}

/// The schema as the tool prints it. For other readers unknown fields are allowed; here every field has to be told.
fn strict_schema() -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_cargo-accuracy")).args(["report", "--schema"]).output().unwrap();
    assert!(output.status.success());
    let mut schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    fn close(value: &mut Value) {
        if let Value::Object(map) = value {
            if map.contains_key("properties") && map.get("type").is_some_and(|t| t == "object") {
                map.insert("additionalProperties".into(), false.into());
            }
            map.values_mut().for_each(close);
        } else if let Value::Array(list) = value {
            list.iter_mut().for_each(close);
        }
    }
    close(&mut schema);
    schema
}

fn assert_valid(schema: &Value, document: &Value) {
    let validator = jsonschema::validator_for(schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(document).take(5).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// What an emulator adds to a record.
fn emulate(records: &Path) {
    for entry in std::fs::read_dir(records).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("manifest") || name == "run.json" || !name.ends_with(".json") {
            continue;
        }
        let mut record = read_record(&path).unwrap();
        record.device = Some(format!("emulated {}", record.arch));
        let modelled = BTreeSet::from(["v_exp_f32".to_owned()]);
        let fidelity = Fidelity { exact: 900, modelled, instructions: 1_000 };
        let output = vec!["a line that <a kernel> printed".to_owned()];
        record.emulated = Some(Box::new(Emulated { fidelity, output }));
        let finding = Finding {
            kind: FindingKind::MissingWait,
            kernel: "gemm".into(),
            mnemonic: "v_add_f32".into(),
            offset: 16,
            file: None,
            line: None,
            severity: accuracy_core::record::Severity::Note,
            block: None,
            wave: None,
            lane: None,
            buffer: None,
            row: None,
            column: None,
            detail: "v1 is read before the load of it has ended".into(),
        };
        record.findings = Some(vec![finding]);
        write_json(&path, &record).unwrap();
    }
}

#[test]
fn every_report_of_an_emulated_run_says_that_it_was_emulated() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    many::write(&records, 40);
    emulate(&records);
    let of = render(&records, &["json", "junit", "markdown", "html"]);
    let report: Value = serde_json::from_str(&of("json")).unwrap();
    assert_valid(&strict_schema(), &report);
    assert_eq!(report["emulated"], true);
    let cases = report["cases"].as_array().unwrap();
    let told = cases.iter().filter(|case| case["emulated"].is_object()).count() as u64;
    assert!(told > 0);
    assert_eq!(
        report["fidelity"],
        json!({"exact": 900 * told, "modelled": ["v_exp_f32"], "instructions": 1000 * told})
    );
    let finding = cases.iter().find_map(|case| case["findings"].get(0)).unwrap();
    assert_eq!((&finding["kind"], &finding["line"]), (&json!("missing_wait"), &Value::Null));
    let line = "modelled: v_exp_f32";
    for (format, parts) in [
        ("junit", ["[[PROPERTY|emulated=true]]", "[[PROPERTY|finding=missing_wait in `gemm` at v_add_f32"]),
        ("markdown", [line, "Findings of the emulator"]),
        ("html", [line, "findings of the emulator"]),
    ] {
        let text = of(format);
        for part in parts {
            assert!(text.contains(part), "{format}: {part}");
        }
    }
}

#[test]
fn json_is_as_its_published_schema_says() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    many::write(&records, 400);
    let report: Value = serde_json::from_str(&render(&records, &["json"])("json")).unwrap();
    let schema = strict_schema();
    assert_valid(&schema, &report);
    assert_eq!(report["cases"].as_array().unwrap().len(), 400);
    // It would have told a wrong one.
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (pointer, wrong) in [
        ("/schema", json!(2)),
        ("/cases/0/verdict", json!("fine")),
        ("/cases/0/metrics/cos", json!("0.9")),
        ("/summary/failed", json!(-1)),
        ("/cases/0/hops", json!([{"name": "xq"}])),
    ] {
        let mut report = report.clone();
        *report.pointer_mut(pointer).unwrap() = wrong;
        assert!(!validator.is_valid(&report), "{pointer}");
    }
}

#[test]
fn sarif_is_as_oasis_says_and_as_code_scanning_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    many::write(&records, 400);
    let report: Value = serde_json::from_str(&render(&records, &["sarif"])("sarif")).unwrap();
    let mut schema: Value = serde_json::from_str(include_str!("schemas/sarif-2.1.0.json")).unwrap();
    // A bracket too many makes it no regular expression; it is about languages, which this tool does not name.
    for of in ["run", "toolComponent"] {
        let language = schema.pointer_mut(&format!("/definitions/{of}/properties/language")).unwrap();
        assert!(language.as_object_mut().unwrap().remove("pattern").is_some(), "{of}");
    }
    assert_valid(&schema, &report);
    let results = report["runs"][0]["results"].as_array().unwrap();
    assert!(results.len() > 5, "{}", results.len());
    let mut fingerprints = std::collections::BTreeSet::new();
    for result in results {
        let place = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        let uri = place.as_str().unwrap();
        assert!(!uri.starts_with('/') && !uri.contains(':') && !uri.contains('\\'), "{uri} is not relative");
        assert!(fingerprints.insert(result["partialFingerprints"].to_string()), "told twice: {result}");
        assert!(result["ruleIndex"].is_u64() && result["message"]["text"].is_string(), "{result}");
    }
    assert!(!jsonschema::is_valid(&schema, &json!({"version": "2.1.0", "runs": [{"results": []}]})));
}

#[test]
fn junit_counts_and_tells_apart_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    many::write(&records, 400);
    let render = render(&records, &["json", "junit"]);
    let report = quick_junit::Report::deserialize_from_str(&render("junit")).unwrap();
    let json: Value = serde_json::from_str(&render("json")).unwrap();
    let mut identities = std::collections::BTreeSet::new();
    for suite in &report.test_suites {
        assert_eq!(suite.tests, suite.test_cases.len(), "{}", suite.name.as_str());
        for case in &suite.test_cases {
            let class = case.classname.as_ref().unwrap().as_str().to_owned();
            assert!(identities.insert((class, case.name.as_str().to_owned())), "{case:?} is there twice");
        }
    }
    let failed = json["summary"]["failed"].as_u64().unwrap() as usize;
    assert_eq!((report.tests, report.failures + report.errors), (400, failed));
    assert!(report.errors > 0 && report.failures > 0, "crashes are errors, wrong numbers failures");
}

/// Elements of `junit-10.xsd` of Jenkins' xUnit plugin, which refuses a report with any other: name, attributes that it
/// has to have, attributes that it may have, elements in it.
type Element = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
const JENKINS: [Element; 7] = [
    ("testsuites", &[], &["name", "time", "tests", "failures", "errors"], &["testsuite"]),
    (
        "testsuite",
        &["name", "tests", "failures", "errors"],
        &["skipped", "time", "file", "timestamp", "hostname", "id", "package", "group", "log", "url"],
        &["testsuite", "properties", "testcase", "system-out", "system-err"],
    ),
    (
        "testcase",
        &["name"],
        &["time", "classname", "group"],
        &["skipped", "error", "failure", "system-out", "system-err"],
    ),
    ("skipped", &[], &["type", "message"], &[]),
    ("error", &[], &["type", "message"], &[]),
    ("failure", &[], &["type", "message"], &[]),
    ("system-out", &[], &[], &[]),
];

/// The first thing that Jenkins would refuse.
fn refused(xml: &str) -> Option<String> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut open: Vec<&Element> = Vec::new();
    loop {
        let event = reader.read_event().unwrap();
        let (start, empty) = match &event {
            quick_xml::events::Event::Start(start) => (start, false),
            quick_xml::events::Event::Empty(start) => (start, true),
            quick_xml::events::Event::End(_) => {
                open.pop();
                continue;
            }
            quick_xml::events::Event::Eof => return None,
            _ => continue,
        };
        let name = String::from_utf8(start.name().as_ref().to_vec()).unwrap();
        if open.last().is_some_and(|(.., inner)| !inner.contains(&name.as_str())) {
            return Some(format!("<{name}> in <{}>", open.last().unwrap().0));
        }
        let element = JENKINS.iter().find(|element| element.0 == name)?;
        let attributes = start.attributes().map(|a| a.unwrap());
        let attributes: std::collections::BTreeMap<String, String> = attributes
            .map(|a| {
                (
                    String::from_utf8(a.key.as_ref().to_vec()).unwrap(),
                    String::from_utf8_lossy(&a.value).into(),
                )
            })
            .collect();
        for (attribute, value) in &attributes {
            if !element.1.contains(&attribute.as_str()) && !element.2.contains(&attribute.as_str()) {
                return Some(format!("{attribute} of <{name}>"));
            }
            if attribute == "time" && (value.parse::<f64>().is_err() || value.contains(['e', '-'])) {
                return Some(format!("time {value}"));
            }
        }
        if let Some(missing) = element.1.iter().find(|needed| !attributes.contains_key(**needed)) {
            return Some(format!("<{name}> without {missing}"));
        }
        if !empty {
            open.push(element);
        }
    }
}

#[test]
fn junit_is_as_the_strictest_of_its_readers_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    many::write(&records, 400);
    let xml = render(&records, &["junit"])("junit");
    assert_eq!(refused(&xml), None);
    for (right, wrong) in [
        ("<testcase name", "<testcase file=\"a.rs\" name"),
        ("<system-out>", "<properties></properties><system-out>"),
        ("<testsuite name=", "<testsuite title="),
        (" time=\"0.", " time=\"-0."),
    ] {
        assert!(xml.contains(right), "{right}");
        assert!(refused(&xml.replacen(right, wrong, 1)).is_some(), "{wrong}");
    }
    // The metrics are there all the same, a line each.
    let report = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    let cases = report.test_suites.iter().flat_map(|suite| &suite.test_cases);
    let with_cosine = cases.filter(|case| {
        let output = case.system_out.as_ref().map_or("", |text| text.as_str());
        output.lines().all(|line| line.starts_with("[[PROPERTY|") && line.ends_with("]]"))
            && output.contains("[[PROPERTY|cos=0.99")
    });
    assert!(with_cosine.count() > 200);
}

#[test]
fn fifty_thousand_failures_fit_where_github_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let few = folder.path().join("few");
    let ids = many::write(&few, 200);
    let mut failing = ids.iter().filter_map(|id| read_record(&record_path(&few, id, 0)).ok());
    let failing = failing.find(|r| r.gate == Gate::Fail && !r.causes.is_empty()).unwrap();
    let records = folder.path().join("records");
    many::announce(&records, Vec::new());
    for i in 0..50_000 {
        let mut record = failing.clone();
        record.id = format!("k::test_{}[arch=gfx950,w=layers.{i}]", i % 300);
        record.hops.iter_mut().for_each(|hop| hop.error_map = None);
        (record.power, record.checks) = Default::default();
        write_json(&record_path(&records, &record.id, 0), &record).unwrap();
    }
    let render = render(&records, &["markdown", "github"]);
    let markdown = render("markdown");
    assert!(markdown.len() < 60_000, "{}", markdown.len());
    assert!(markdown.starts_with("### ❌ Accuracy: 0 passed, 50000 failed"), "{}", &markdown[..200]);
    assert!(markdown.contains("more failing cases are in the other reports"));
    assert_eq!(markdown.matches("<details>").count(), markdown.matches("</details>").count());
    assert_eq!(render("github").lines().count(), 10);
}
