//! `--report html=FILE` in a real browser: that the script fills the page, that a keyboard is enough, and that no name in
//! a record becomes markup. Skipped, with the reason, where there is no Chromium.

mod browser;
mod many;

use accuracy_core::record::{Gate, Record, read_record, record_path, write_json};
use browser::Browser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The page of a folder of records.
fn page(records: &Path, name: &str) -> PathBuf {
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.html"));
    let output = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["report", "-q"])
        .arg(records)
        .arg("--report")
        .arg(format!("html={}", page.display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(100), "{}", String::from_utf8_lossy(&output.stderr));
    page
}

/// Under the name of the test: another one may be writing a page of as many cases.
fn of_many(count: usize) -> PathBuf {
    let folder = tempfile::tempdir().unwrap();
    many::write(folder.path(), count);
    let thread = std::thread::current();
    page(folder.path(), &format!("{}-{count}", thread.name().expect("a test's thread has its name")))
}

fn text(browser: &mut Browser, selector: &str) -> String {
    let value = browser.eval(&format!("document.querySelector({}).innerText", json!(selector)));
    value.as_str().unwrap_or_default().into()
}

/// Whether anything is wider than the window.
fn overflows(browser: &mut Browser) -> Value {
    browser.eval("document.documentElement.scrollWidth > innerWidth")
}

#[test]
fn the_script_fills_the_table_and_the_case() {
    let Some(mut browser) = browser::start() else { return };
    for (count, rows) in [(10, 10), (5_000, 100)] {
        let page = of_many(count);
        for (width, dark) in [(1400, false), (400, true)] {
            browser.open(&page, width, 900, dark);
            assert!(text(&mut browser, "h1").starts_with("Failed: "), "{count}");
            assert_eq!(browser.eval("document.querySelectorAll('#rows tr').length"), rows, "{count}");
            assert_eq!(overflows(&mut browser), false, "{count} cases at {width}");
            // What failed comes first, and opens with everything that is known of it.
            browser.eval("document.querySelector('#rows a').click()");
            let detail = text(&mut browser, "#detail");
            assert!(detail.contains("cargo accuracy -p kernels --arch gfx950"), "{detail}");
            assert_eq!(overflows(&mut browser), false, "{count} cases at {width}, one open");
        }
        assert_eq!(browser.errors, [""; 0], "{count}");
    }
}

#[test]
fn a_keyboard_is_enough() {
    let Some(mut browser) = browser::start() else { return };
    browser.open(&of_many(5_000), 1400, 900, false);
    browser.press("/");
    assert_eq!(browser.eval("document.activeElement.id"), "find");
    browser.type_text("scale_layout tokens=33 -mxfp4");
    let shown = text(&mut browser, "#shown");
    assert!(shown.ends_with(" of 5,000 cases") && !shown.starts_with("0 "), "{shown}");
    let all = "[...document.querySelectorAll('#rows tr')].every(tr => tr.innerText.includes('tokens=33') && !tr.innerText.includes('mxfp4'))";
    assert_eq!(browser.eval(all), true);
    browser.press("ArrowDown");
    browser.press("ArrowDown");
    let row = "document.activeElement.closest('tr')?.rowIndex";
    assert_eq!(browser.eval(row), 2);
    browser.press("Enter");
    assert_eq!(browser.eval("document.activeElement.id"), "detail");
    let detail = text(&mut browser, "#detail");
    for part in [
        "scale_layout",
        "Hop by hop",
        "broke first: cos",
        "Where the error is",
        "Elements by error",
        "Failed checks",
    ] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    // The picture is read tile by tile.
    browser.eval("document.querySelector('.map svg').focus()");
    let before = text(&mut browser, ".readout");
    browser.press("ArrowLeft");
    let after = text(&mut browser, ".readout");
    assert!(before.starts_with("rows ") && after.starts_with("rows ") && before != after, "{before} {after}");
    browser.press("Escape");
    assert_eq!(browser.eval("document.getElementById('detail').hidden"), true);
    assert_eq!(browser.eval(row), 2, "back to where the reader was");
    // Sorting by a column, with the lowest cosine first, then the highest.
    browser.eval("document.querySelector('#sort-cos button').focus()");
    let cosines = "[...document.querySelectorAll('#rows .c-cos')].map(td => Number(td.innerText))";
    for (key, sign) in [("ascending", 1.0), ("descending", -1.0)] {
        browser.press("Enter");
        assert_eq!(browser.eval("document.querySelector('#sort-cos').getAttribute('aria-sort')"), key);
        let list: Vec<f64> = serde_json::from_value(browser.eval(cosines)).unwrap();
        assert!(list.len() > 3 && list.is_sorted_by(|a, b| sign * a <= sign * b), "{list:?}");
    }
    assert_eq!(browser.errors, [""; 0]);
}

#[test]
fn thousands_of_rows_stay_fast() {
    let Some(mut browser) = browser::start() else { return };
    browser.open(&of_many(5_000), 1400, 900, false);
    let sorting = "(() => { const start = performance.now(); document.querySelector('#sort-case button').click(); \
                   document.body.offsetHeight; return performance.now() - start; })()";
    let took = browser.eval(sorting).as_f64().unwrap();
    assert!(took < 1_000.0, "sorting by identity took {took} ms");
}

#[test]
fn no_name_becomes_markup() {
    let Some(mut browser) = browser::start() else { return };
    let hostile = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!-- ' \" & \u{2028}";
    let folder = tempfile::tempdir().unwrap();
    let good = tempfile::tempdir().unwrap();
    let ids = many::write(good.path(), 2 * many::FAILING);
    let mut record: Record = ids
        .iter()
        .filter_map(|id| read_record(&record_path(good.path(), id, 0)).ok())
        .find(|r| r.gate == Gate::Fail && !r.causes.is_empty())
        .unwrap();
    record.id = format!("k::t{hostile}[w={hostile}]");
    record.reason = hostile.into();
    record.file = hostile.into();
    record.package = hostile.into();
    record.arch = hostile.into();
    record.causes[0].detail = hostile.into();
    record.causes[0].cause = hostile.into();
    record.hops[0].name = hostile.into();
    record.hops[0].kernel = Some(hostile.into());
    let mut checks = serde_json::to_value(&record.checks).unwrap();
    checks[0]["detail"] = hostile.into();
    record.checks = serde_json::from_value(checks).unwrap();
    record.weights = [(hostile.to_string(), hostile.to_string())].into();
    record.known_failure = Some(hostile.into());
    write_json(&record_path(folder.path(), &record.id, 0), &record).unwrap();
    many::announce(folder.path(), Vec::new());

    let page = page(folder.path(), "report-hostile");
    browser.open(&page, 1400, 900, false);
    browser.eval("document.querySelector('#rows a').click()");
    browser.eval("new Promise(done => setTimeout(done, 300))");
    let title = browser.eval("document.title");
    assert!(title.as_str().unwrap().starts_with("Failed"), "{title}");
    assert_eq!(browser.eval("document.querySelectorAll('img').length"), 0);
    assert_eq!(browser.eval("document.querySelectorAll('script').length"), 2);
    let detail = browser.eval("document.getElementById('detail').textContent");
    assert!(detail.as_str().unwrap().matches("onerror").count() >= 8, "{detail}");
    assert_eq!(browser.errors, [""; 0]);
}

#[test]
fn triage_draws_cosine_by_layer() {
    let Some(mut browser) = browser::start() else { return };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/triage/fixtures/llama");
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("triage.html");
    let output = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["triage", "--all-layers", "-q", "--reference"])
        .arg(fixtures.join("f32"))
        .arg("--candidate")
        .arg(fixtures.join("bf16"))
        .arg("--checkpoint")
        .arg(fixtures.join("checkpoint"))
        .arg("--report")
        .arg(format!("html={}", page.display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for (width, dark) in [(1400, false), (400, true)] {
        browser.open(&page, width, 900, dark);
        assert_eq!(text(&mut browser, "h1"), "No fault found");
        assert!(text(&mut browser, ".steps").contains("same input?"));
        let points = browser.eval("document.querySelectorAll('.chart .point').length").as_u64().unwrap();
        assert!(points >= 8, "{points} marks");
        assert_eq!(overflows(&mut browser), false, "{width}");
    }
    assert_eq!(browser.errors, [""; 0]);
}

#[test]
fn the_page_asks_nothing_of_a_network() {
    let Some(mut browser) = browser::start() else { return };
    browser.open(&of_many(10), 1400, 900, false);
    let asked = browser.eval("performance.getEntriesByType('resource').map(entry => entry.name)");
    assert_eq!(asked, json!([]));
    // Nor could it: its policy refuses whatever is not in it.
    let refused = "new Promise(done => { const image = new Image(); image.onload = () => done(false); image.onerror = () => done(true); image.src = 'http://127.0.0.1:9/'; })";
    browser.errors.clear();
    assert_eq!(browser.eval(refused), true);
    assert!(browser.errors.iter().any(|e| e.contains("Content Security Policy")), "{:?}", browser.errors);
}
