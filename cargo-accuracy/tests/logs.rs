//! `cargo accuracy logs` as a process.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const LOG: &str = "\
INFO 07-16 15:30:27 [model_runner.py:302] Model loading took 40.45 GiB
[aiter] import [module_gemm_a8w8_blockscale] under /opt/aiter/jit/module_gemm_a8w8_blockscale.so
[aiter] \u{1b}[31mfailed jit build [module_quant]\u{1b}[0m\u{2193}\u{2193}\u{2193}
-->[History]: Traceback (most recent call last):
[aiter] shape is M:64, N:2112, K:7168, not found tuned config in /tmp/a8w8.csv, will use default config!
[aiter] shape is M:64, N:2112, K:7168, not found tuned config in /tmp/a8w8.csv, will use default config!
INFO:     Application startup complete.
";
const QUIET: &str = "\
INFO 07-16 15:30:27 [model_runner.py:302] Model loading took 40.45 GiB
INFO:     Application startup complete.
INFO:     127.0.0.1 - \"GET /health HTTP/1.1\" 200 OK
";

fn logs(arguments: &[&str], stdin: &[u8], folder: &Path) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["accuracy", "logs"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A tool that has refused its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn run(arguments: &[&str], stdin: &str, status: i32) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("server.log"), LOG).unwrap();
    std::fs::write(folder.path().join("quiet.log"), QUIET).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(LOG.as_bytes()).unwrap();
    // Two members, as `cat a.gz b.gz` makes them.
    let member = gz.finish().unwrap();
    std::fs::write(folder.path().join("server.log.gz"), [member.clone(), member].concat()).unwrap();
    std::fs::write(folder.path().join("empty.log"), "").unwrap();
    std::fs::write(folder.path().join("cut.gz"), [0x1f, 0x8b, 8, 0, 1]).unwrap();
    let rules = "[[rule]]\nid = 'health'\nseverity = 'error'\npattern = 'GET /(?P<what>\\w+)'\n";
    std::fs::write(folder.path().join("ours.toml"), rules).unwrap();
    let output = logs(arguments, stdin.as_bytes(), folder.path());
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    text
}

#[test]
fn a_failed_build_fails_and_is_shown_in_context() {
    let text = run(&["server.log"], "", 100);
    for part in [
        "error aiter-jit-build-failed (AITER), 1 time",
        "module_quant 1x",
        "first at server.log:3",
        "  > [aiter] failed jit build [module_quant]",
        "    -->[History]",
        "note aiter-untuned (AITER), 2 times",
        "7 lines of server.log: 1 error, 0 warnings, 2 notes",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn standard_input_and_gzip_are_read_like_files() {
    assert!(run(&["-"], LOG, 100).contains("first at standard input:3"));
    assert!(run(&["server.log.gz"], "", 100).contains("14 lines of server.log.gz: 2 errors"));
    assert!(run(&["cut.gz"], "", 101).contains("cut.gz"));
    run(&["missing.log"], "", 101);
}

#[test]
fn a_quiet_log_passes_and_an_empty_one_proves_nothing() {
    run(&["quiet.log"], "", 0);
    run(&["empty.log"], "", 4);
    run(&["-"], "", 4);
}

#[test]
fn a_log_of_nobody_who_is_known_is_said_to_be_that() {
    // A web server's lines, as an engine has them, too, are no engine's.
    let others =
        "INFO:     Application startup complete.\nINFO:     127.0.0.1 - \"GET /health HTTP/1.1\" 200 OK\n";
    let nginx = "2026/01/08 10:00:00 [error] 31#31: *1 upstream timed out (110: Connection timed out)\n";
    let engine =
        "2026-01-08 10:00:00,123 - lmengine - WARNING - turbomind.py:213 - kernel for fp8 is missing\n";
    for log in [others, nginx, engine] {
        let text = run(&["-"], log, 4);
        assert!(text.contains("unknown producer: standard input: none of its"), "{text}");
        assert!(text.contains("vLLM, SGLang") && text.contains("logs --rules"), "{text}");
    }
    // What was asked for and seen is an answer; so is what a rule of the user's finds.
    run(&["-", "--expect", "startup complete"], others, 0);
    assert!(!run(&["-", "--rules", "ours.toml"], others, 100).contains("unknown"));
    run(&["-", "--rules", "ours.toml", "--own-rules-only"], nginx, 0);
    // One log that is known is enough, and the other is named.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.log"), QUIET).unwrap();
    std::fs::write(folder.path().join("b.log"), nginx).unwrap();
    let output = logs(&["a.log", "b.log", "--report", "json=-"], b"", folder.path());
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["read"][0]["producers"], serde_json::json!(["vLLM"]));
    assert_eq!((&report["read"][0]["unknown"], &report["read"][1]["unknown"]), (&false.into(), &true.into()));
}

#[test]
fn lines_of_json_are_read_as_what_they_say() {
    let tgi = r#"{"timestamp":"2026-01-08T07:20:52Z","level":"WARN","fields":{"message":"Could not import Flash Attention enabled models: no \"flash_attn\""},"target":"text_generation_launcher"}"#;
    let docker = r#"{"log":"\u001b[31m[aiter] failed jit build [module_quant]\u001b[0m\n","stream":"stderr","time":"2026-01-08T07:20:52Z"}"#;
    let vllm = r#"{"asctime":"x","levelname":"WARNING","name":"vllm.fp8","message":"Weight-only FP8 compression will be used","exc_info":"Traceback\nImportError: libx.so: undefined symbol: y"}"#;
    let asked = r#"{"asctime":"x","levelname":"INFO","name":"vllm.logger","message":"Received request cmpl-1: prompt: 'NaN in the logits'"}"#;
    let log = format!("{tgi}\n{docker}\nplain {{\"a\": 1}}\n{vllm}\n{asked}\n");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("server.log"), log).unwrap();
    let output =
        logs(&["server.log", "--expect", "fp8: Weight-only", "--report", "json=-"], b"", folder.path());
    assert_eq!(output.status.code(), Some(100));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["lines"], 5);
    let found: Vec<(&str, u64)> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["rule"].as_str().unwrap(), f["first"]["line"].as_u64().unwrap()))
        .collect();
    // Errors first.
    assert_eq!(
        found,
        [
            ("aiter-jit-build-failed", 2),
            ("library-not-loaded", 4),
            ("tgi-import-failed", 1),
            ("vllm-weight-only", 4)
        ]
    );
    let text = report["findings"][2]["first"]["text"].as_str().unwrap();
    assert!(
        text.ends_with("no \"flash_attn\"") && text.contains("WARN text_generation_launcher: "),
        "{text}"
    );
    assert_eq!(report["expected"][0]["no_proof"]["rule"], "vllm-weight-only");
}

/// Severity, kind and line of what is found in a log, errors first.
fn found(log: &str, status: i32) -> Vec<(String, String, u64)> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("server.log"), log).unwrap();
    let output = logs(&["server.log", "--report", "json=-"], b"", folder.path());
    assert_eq!(output.status.code(), Some(status), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|f| (text(&f["severity"]), text(&f["kind"]), f["first"]["line"].as_u64().unwrap())).collect()
}

#[test]
fn dispatch_emulation_missing_libraries_and_imports_are_found_as_they_are_reported() {
    let of = |expected: &[(&str, &str, u64)]| -> Vec<(String, String, u64)> {
        expected.iter().map(|(s, k, l)| ((*s).to_owned(), (*k).to_owned(), *l)).collect()
    };
    let dispatch = "\
[aiter] [fused_moe] using 2stage default for (256, 16, 6144, 768, 128, 8, 'ActivationType.Silu', 'QuantType.per_1x32', True, False)
[aiter] [fused_moe] no tuned FlyDSL config for ('gfx950', 256, 2, 4096, 384, 64, 4), using heuristic FlyDSL fallback (kn1='one', kn2='two')
[aiter] [fused_moe] using 2stage (kernelName1='one', kernelName2='two') for ('gfx950', 256, 4, 4096, 512, 64, 6)
[aiter] Fmoe tuning not support for ('gfx950', 256, 4096, 2048, 192, 64, 8, 'QuantType.per_Tensor', True, False)
";
    let expected = of(&[
        ("warning", "falling_back", 2),
        ("note", "tuned_config_missing", 1),
        ("note", "tuned_config_missing", 4),
    ]);
    assert_eq!(found(dispatch, 0), expected);

    let start = "INFO 09-12 08:01:10 [__init__.py:216] Automatically detected platform rocm.\n";
    let no_library = "\nrocBLAS error: Cannot read /opt/rocm/lib/rocblas/library/TensileLibrary.dat: No such file or directory for \
                      GPU arch : gfx1036\n List of available TensileLibrary Files : \n\"/opt/x/TensileLibrary_lazy_gfx942.dat\"\n";
    assert_eq!(found(&format!("{start}{no_library}"), 100), of(&[("error", "kernel_not_found", 3)]));
    let tensile = format!("{start}rocBLAS warning: hipBlasLT failed, falling back to tensile. \n");
    assert_eq!(found(&tensile, 0), of(&[("warning", "falling_back", 2)]));
    let module = "hipModuleLoad failed: /opt/rocm/lib/hipblaslt/library/gfx942/Kernels.so-000-gfx942.hsaco\n error: file not found\n";
    assert_eq!(found(module, 100), of(&[("error", "kernel_not_found", 1)]));

    let emulated = format!(
        "{start}(Worker_TP0 pid=7) WARNING 02-11 10:11:02 [quark_ocp_mx.py:118] No native MXFP4 here. Simulated weight \
         dequantization and activation QDQ will be used, with the linear layers computed in high precision.\n\
         (Worker_TP0 pid=7) WARNING 02-11 10:11:05 [marlin_utils_fp4.py:117] Your GPU does not have native support for FP4 \
         computation but FP4 quantization is being used. Weight-only FP4 compression will be used leveraging the Marlin \
         kernel.\n"
    );
    assert_eq!(found(&emulated, 0), of(&[("warning", "falling_back", 2), ("warning", "falling_back", 3)]));

    let imports = "\
2026-01-08T07:20:49.33Z  WARN text_generation_launcher: Could not import Flash Attention enabled models: it is not installed.
2026-01-08T07:20:49.34Z  WARN text_generation_launcher: Could not import Mamba: No module named 'mamba_ssm'
2026-01-08T07:20:49.35Z  WARN text_generation_launcher: We're not using custom kernels.
2026-01-08T07:20:50.35Z  WARN text_generation_launcher: Disabling exllama because desc_act=True
2026-01-08T07:20:51.35Z  INFO text_generation_launcher: Using Attention = flashdecoding
";
    let json = r#"{"timestamp":"2026-01-08T07:20:52.3Z","level":"WARN","fields":{"message":"Couldn't load flash gptj variant: x"},"target":"text_generation_launcher"}"#;
    let falls = |line| ("warning", "falling_back", line);
    assert_eq!(found(&format!("{imports}{json}\n"), 0), of(&[falls(1), falls(4), falls(6)]));
}

#[test]
fn what_is_harmless_is_not_first() {
    let log = "INFO 07-16 15:30:27 [a.py:1] x\n[aiter] shape is M:64, N:2112, K:7168, not found tuned config in /tmp/a8w8.csv, will use default config!\n\
               WARNING 07-16 15:30:30 [marlin_utils_fp8.py:97] Weight-only FP8 compression will be used leveraging the Marlin kernel.\n\
               [aiter] failed jit build [module_quant]\n";
    let text = run(&["-", "--context", "0"], log, 100);
    let text = text.split("\nerror").nth(1).unwrap_or_else(|| panic!("{text}"));
    let (warning, note) = (text.find("\nwarning").unwrap(), text.find("\nnote").unwrap());
    assert!(warning < note, "{text}");
}

#[test]
fn what_is_expected_must_be_seen() {
    let text = run(&["quiet.log", "--expect", "startup complete", "--expect", "GET /health"], "", 0);
    assert!(text.contains("seen startup complete"), "{text}");
    let text = run(&["quiet.log", "--expect", "module_gemm_\\w+"], "", 100);
    assert!(text.contains("NOT SEEN module_gemm_"), "{text}");
    run(&["quiet.log", "--expect", "("], "", 2);
}

#[test]
fn rules_and_the_gate_are_the_users() {
    assert!(run(&["quiet.log", "--rules", "ours.toml"], "", 100).contains("health 1x"));
    run(&["server.log", "--rules", "ours.toml", "--own-rules-only"], "", 0);
    assert!(run(&["server.log", "--own-rules-only"], "", 2).contains("there is no rule to look for"));
    run(&["quiet.log", "--rules", "missing.toml"], "", 101);
    for list in [&["--list-rules"][..], &["--rules"]] {
        let text = run(list, "", 0);
        assert!(
            text.contains("weights-not-loaded") && text.starts_with("known producers of lines"),
            "{text}"
        );
        for producer in
            ["vLLM", "SGLang", "ATOM", "text-generation-inference", "llama.cpp", "AITER", "rocBLAS", "FlyDSL"]
        {
            assert!(text.contains(&format!("\n  {producer} ")), "{producer} in {text}");
        }
    }
    assert!(run(&["--list-rules", "--rules", "ours.toml"], "", 0).contains("health"));
    run(&[], "", 2);
    // No log is read, so that none may seem to have passed.
    run(&["--rules", "ours.toml"], "", 2);
    run(&["server.log", "--rules"], "", 2);
    run(&["server.log", "--list-rules"], "", 2);
}

#[test]
fn the_report_has_counts_places_and_expectations() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("server.log"), LOG).unwrap();
    let output = logs(&["server.log", "--expect", "nothing", "--report", "json=-"], b"", folder.path());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["lines"], &report["failed"]), (&7.into(), &true.into()));
    let untuned = &report["findings"][1];
    assert_eq!((&untuned["rule"], &untuned["count"]), (&"aiter-untuned".into(), &2.into()));
    assert_eq!(untuned["what"], "M:64, N:2112, K:7168");
    assert_eq!(untuned["first"]["line"], 5);
    assert_eq!(report["expected"][0]["seen"], false);
}

/// Memory and speed on a log that is far larger than a block: `ACCURACY_LOG_MB=1000 cargo test --release ... -- --ignored`.
#[test]
#[ignore = "writes a large file"]
fn a_large_log_is_read_quickly_in_constant_memory() {
    let megabytes: usize = std::env::var("ACCURACY_LOG_MB").map_or(200, |v| v.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.log");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let mut written = 0;
    for i in 0.. {
        let line = format!(
            "(Worker_TP{} pid=89{}) INFO 07-16 15:30:{:02} [loggers.py:{i}] Engine 000: Avg prompt throughput: {}.4 tokens/s, \
             Running: 3 reqs, Waiting: 0 reqs, GPU KV cache usage: 1.2%\n",
            i % 8,
            i % 8,
            i % 60,
            i % 997
        );
        file.write_all(line.as_bytes()).unwrap();
        written += line.len();
        if i % 5000 == 0 {
            file.write_all(LOG.as_bytes()).unwrap();
        }
        if written > megabytes << 20 {
            break;
        }
    }
    file.flush().unwrap();
    let start = std::time::Instant::now();
    let output = logs(&["large.log", "--expect", "module_gemm_a8w8_\\w+"], b"", folder.path());
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(output.status.code(), Some(100));
    println!("{written} bytes in {seconds:.2} s: {:.0} MB/s", written as f64 / 1e6 / seconds);
    assert!(written as f64 / 1e6 / seconds > 100.0);
}

#[test]
fn what_comes_through_a_pipe_is_told_before_its_end() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["accuracy", "logs", "--expect", "startup complete", "-"])
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = child.stdin.take().unwrap();
    let (send, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reader =
        std::thread::spawn(move || stdout.lines().for_each(|line| send.send(line.unwrap()).unwrap()));
    let next = || lines.recv_timeout(Duration::from_secs(60)).expect("a line while the log is written");
    server.write_all(b"starting\n[aiter] failed jit build [module_quant]\n").unwrap();
    let found = next();
    let wanted = "standard input:2: error aiter-jit-build-failed: [aiter] failed jit build [module_quant]";
    assert_eq!(found, wanted);
    server.write_all(b"INFO:     Application startup complete.\n").unwrap();
    assert_eq!(next(), "standard input:3: seen startup complete");
    drop(server);
    assert_eq!(child.wait().unwrap().code(), Some(100));
    reader.join().unwrap();
    let rest: Vec<String> = lines.iter().collect();
    assert!(rest.iter().any(|l| l.contains("3 lines of standard input: 1 error")), "{rest:?}");
}
