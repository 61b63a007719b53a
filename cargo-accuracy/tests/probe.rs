//! `cargo accuracy probe` as a process, against servers that are written here: a right one, and every kind of wrong one.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a server writes for the n-th request with this body, straight to the socket.
type Handler = Arc<dyn Fn(&mut TcpStream, usize, &Value) + Send + Sync>;

/// A server on a port of the system's choice, as long as the tests run.
fn serve(handler: impl Fn(&mut TcpStream, usize, &Value) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handler: Handler = Arc::new(handler);
    let count = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (handler, count) = (handler.clone(), count.clone());
            std::thread::spawn(move || {
                let mut stream = stream;
                if let Some(body) = request(&stream) {
                    handler(&mut stream, count.fetch_add(1, Ordering::SeqCst), &body);
                }
            });
        }
    });
    url
}

fn request(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    assert!(line.starts_with("POST /v1/completions "), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

fn reply(stream: &mut TcpStream, status: &str, content_type: &str, body: &[u8]) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    // The client may be gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn text(stream: &mut TcpStream, text: &str) {
    let body = json!({"choices": [{"text": text, "finish_reason": "length", "index": 0}]});
    reply(stream, "200 OK", "application/json", body.to_string().as_bytes());
}

/// What a model would say.
fn right(prompt: &str) -> &'static str {
    [
        ("France", " Paris, a city on the Seine."),
        ("freezes at", " 0 degrees Celsius."),
        ("opposite", " cold."),
        ("Thursday", " Friday, Saturday, Sunday"),
        ("2 + 2", " 4"),
        ("6, 7,", " 8, 9, 10"),
        ("5 times 4", " 20."),
        ("Once upon", " a fisherman who went out to sea each morning and came home with the tide."),
        ("tuple", " a list can be changed after it was made, and a tuple cannot."),
        ("lighthouse", " red."),
        ("def add", " a + b"),
    ]
    .into_iter()
    .find(|(key, _)| prompt.contains(key))
    .unwrap_or_else(|| panic!("no answer to {prompt}"))
    .1
}

fn prompt(body: &Value) -> String {
    body["prompt"].as_str().unwrap().to_owned()
}

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-accuracy"))
        .args(["accuracy", "probe"])
        .args(arguments)
        .env("COLUMNS", "120")
        .env_remove("OPENAI_API_KEY")
        .output()
        .unwrap()
}

fn run(arguments: &[&str], status: i32) -> String {
    let output = probe(arguments);
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    text
}

fn json_of(arguments: &[&str], status: i32) -> Value {
    let output = probe(&[arguments, &["--report", "json=-"]].concat());
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn of<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["prompts"].as_array().unwrap().iter().find(|p| p["id"] == id).unwrap()
}

#[test]
fn a_right_server_passes_and_is_asked_as_the_protocol_has_it() {
    let url = serve(|stream, _, body| {
        assert_eq!(
            (&body["temperature"], &body["stream"], &body["seed"]),
            (&json!(0), &json!(false), &json!(7))
        );
        assert_eq!(body["model"], "m");
        text(stream, right(&prompt(body)));
    });
    let report = json_of(&["--url", &url, "--model", "m", "--seed", "7"], 0);
    assert_eq!(report["failed"], 0);
    assert_eq!(of(&report, "capital-france")["verdict"], "exact");
    assert_eq!(of(&report, "story")["verdict"], "plausible");
    assert_eq!(of(&report, "story")["deterministic"], true);
    assert_eq!(of(&report, "story")["batch_invariant"], true);
    let text = run(&["--url", &format!("{url}/v1"), "--model", "m", "--seed", "7"], 0);
    assert!(text.contains("11 prompts asked of"), "{text}");
}

#[test]
fn garbage_and_wrong_answers_fail() {
    let url = serve(|stream, _, body| {
        let prompt = prompt(body);
        text(
            stream,
            if prompt.contains("France") {
                "!!!!!!!!!!!!!!!!"
            } else if prompt.contains("2 + 2") {
                " 5"
            } else {
                right(&prompt)
            },
        );
    });
    let report = json_of(&["--url", &url], 100);
    assert_eq!(report["failed"], 2);
    assert_eq!(of(&report, "capital-france")["verdict"], "garbage");
    assert_eq!(of(&report, "addition")["verdict"], "plausible");
    let text = run(&["--url", &url], 100);
    assert!(text.contains("garbage: `!` 16 times in a row"), "{text}");
    assert!(text.contains("1 of 11 answers are garbage"), "{text}");
}

#[test]
fn every_way_to_answer_wrongly_is_named_and_none_hangs() {
    let big = Arc::new(json!({"choices": [{"text": "x".repeat(10 << 20)}]}).to_string());
    let half = r#"{"choices": [{"text": " Par"#;
    let cases: Vec<(&str, String)> = vec![
        (
            "status 500: broken",
            serve(|s, _, _| {
                reply(
                    s,
                    "500 Internal Server Error",
                    "application/json",
                    br#"{"error": {"message": "broken"}}"#,
                )
            }),
        ),
        (
            "broken or no completion: EOF",
            serve(move |s, _, _| reply(s, "200 OK", "application/json", half.as_bytes())),
        ),
        (
            "no completion: missing field `choices`",
            serve(|s, _, _| reply(s, "200 OK", "application/json", b"{}")),
        ),
        (
            "`choices` is empty",
            serve(|s, _, _| reply(s, "200 OK", "application/json", br#"{"choices": []}"#)),
        ),
        (
            "event stream",
            serve(|s, _, _| {
                reply(s, "200 OK", "text/event-stream", b"data: {\"choices\": [{\"text\": \"P\"}]}\n\n")
            }),
        ),
        ("answered without a content type", serve(|s, _, _| reply(s, "200 OK", "", b"{}"))),
        (
            "and does it know this --model?",
            serve(|s, _, _| {
                reply(s, "404 Not Found", "application/json", b"{\"message\": \"no such model\"}")
            }),
        ),
        ("--api-key-env", serve(|s, _, _| reply(s, "401 Unauthorized", "application/json", b"{}"))),
        (
            "answered as `text/html` instead",
            serve(|s, _, _| reply(s, "200 OK", "text/html", b"<html>login</html>")),
        ),
        ("more than 4 MiB", serve(move |s, _, _| reply(s, "200 OK", "application/json", big.as_bytes()))),
        (
            "closed the connection",
            serve(|s, _, _| {
                let _ = s.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 400\r\n\r\n{\"choices\": [");
            }),
        ),
        ("closed the connection", serve(|_, _, _| ())),
        ("status 302", serve(|s, _, _| reply(s, "302 Found", "text/plain", b"elsewhere"))),
    ];
    for (part, url) in cases {
        let start = Instant::now();
        let text = run(&["--url", &url, "--timeout", "5"], 101);
        assert!(text.contains(part), "{part} in {text}");
        assert!(start.elapsed() < Duration::from_secs(60), "{part}");
    }
}

#[test]
fn a_server_that_hangs_is_given_up_after_two_prompts() {
    let url = serve(|_, _, _| std::thread::sleep(Duration::from_secs(600)));
    let trickle = serve(|s, _, _| {
        let _ = s.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n",
        );
        while s.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for url in [url, trickle] {
        let start = Instant::now();
        let text = run(&["--url", &url, "--timeout", "1"], 101);
        assert!(text.contains("no answer within 1 s") && text.contains("not asked"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn only_a_refused_connection_is_tried_again() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = run(&["--url", &format!("http://127.0.0.1:{port}")], 101);
    assert!(text.contains("cannot connect") && text.contains("Is the server up"), "{text}");
    assert!(text.lines().count() < 8, "one cause is told once: {text}");

    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    let url = serve(move |s, _, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        reply(s, "500 Internal Server Error", "application/json", b"{}");
    });
    run(&["--url", &url], 101);
    assert_eq!(requests.load(Ordering::SeqCst), 11, "one request a prompt");
}

#[test]
fn a_server_without_log_probabilities_is_asked_without_them() {
    let url = serve(|stream, _, body| {
        if body.get("logprobs").is_some() {
            reply(
                stream,
                "422 Unprocessable Entity",
                "application/json",
                br#"{"detail": "unexpected fields: logprobs"}"#,
            );
        } else {
            text(stream, right(&prompt(body)));
        }
    });
    run(&["--url", &url], 0);
}

#[test]
fn an_answer_that_changes_fails_and_one_that_changes_in_a_batch_is_told() {
    let url = serve(|stream, n, body| {
        let answer = right(&prompt(body));
        text(stream, &if n == 1 { format!("{answer} indeed") } else { answer.to_owned() });
    });
    let report = json_of(&["--url", &url], 100);
    assert_eq!(of(&report, "capital-france")["deterministic"], false);
    assert_eq!(report["failed"], 1);

    // The first 33 requests ask 11 prompts alone.
    let url = serve(|stream, n, body| {
        let prompt = prompt(body);
        let answer = right(&prompt);
        match n < 33 || !(prompt.contains("France") || prompt.contains("Once")) {
            true => text(stream, answer),
            false => text(stream, if prompt.contains("France") { "   " } else { " a sailor." }),
        }
    });
    let report = json_of(&["--url", &url], 100);
    assert_eq!(of(&report, "story")["batch_invariant"], false);
    assert_eq!(of(&report, "story")["failures"], json!([]));
    assert_eq!(
        of(&report, "capital-france")["failures"],
        json!(["right alone and garbage among other requests"])
    );
}

/// One token a word, with alternatives.
fn with_tokens(stream: &mut TcpStream, answer: &str, alternatives: &[(&str, f64)]) {
    let tokens: Vec<&str> = answer.split_inclusive(' ').collect();
    let top: Vec<Value> = tokens
        .iter()
        .map(|t| {
            let mut top = serde_json::Map::new();
            top.insert((*t).to_owned(), json!(-0.1));
            top.extend(alternatives.iter().map(|(t, p)| ((*t).to_owned(), json!(p))));
            Value::Object(top)
        })
        .collect();
    let logprobs = json!({"tokens": tokens, "token_logprobs": vec![-0.1; tokens.len()], "top_logprobs": top});
    let body = json!({"choices": [{"text": answer, "finish_reason": "length", "logprobs": logprobs}]});
    reply(stream, "200 OK", "application/json; charset=utf-8", body.to_string().as_bytes());
}

#[test]
fn a_reference_tells_upstream_prefill_and_near_ties_apart() {
    let reference = serve(|stream, _, body| {
        let prompt = prompt(body);
        // Wrong about the sum, as the candidate is.
        let answer = if prompt.contains("2 + 2") { " 5" } else { right(&prompt) };
        with_tokens(stream, answer, &[("a farmer ", -0.2), (" An old", -4.0)]);
    });
    let candidate = serve(|stream, _, body| {
        let prompt = prompt(body);
        let answer = if prompt.contains("2 + 2") {
            " 6"
        } else if prompt.contains("Once") {
            " a farmer who went out"
        } else if prompt.contains("tuple") {
            "An old answer that differs from the first token on"
        } else {
            right(&prompt)
        };
        with_tokens(stream, answer, &[]);
    });
    let report = json_of(&["--url", &candidate, "--reference-url", &reference], 100);
    let sum = of(&report, "addition");
    assert_eq!(sum["failures"], json!([]), "{sum}");
    assert!(sum["notes"][0].as_str().unwrap().contains("upstream"), "{sum}");
    let prefill = of(&report, "explanation");
    assert_eq!(prefill["reference"]["first_difference"]["phase"], "prefill");
    assert!(prefill["failures"][0].as_str().unwrap().contains("nats less likely"), "{prefill}");
    let decode = of(&report, "story");
    assert_eq!(decode["reference"]["first_difference"]["phase"], "decode");
    assert!(report["conclusion"].as_str().unwrap().contains("prefill"), "{}", report["conclusion"]);
}

#[test]
fn a_reference_that_does_not_answer_or_is_wrong_is_no_proof() {
    let good = serve(|stream, _, body| text(stream, right(&prompt(body))));
    let html = serve(|s, _, _| reply(s, "200 OK", "text/html", b"<html>login</html>"));
    let off_topic = serve(|s, _, _| text(s, " a small town by the sea, and it is quiet"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for silent in [html, format!("http://127.0.0.1:{port}")] {
        let said = run(&["--url", &good, "--reference-url", &silent], 101);
        assert!(said.contains("The reference at") && said.contains("answered nothing"), "{said}");
    }
    let report = json_of(&["--url", &good, "--reference-url", &off_topic], 0);
    let conclusion = report["conclusion"].as_str().unwrap();
    assert!(conclusion.contains("wrong at the reference") && !conclusion.contains("prefill"), "{conclusion}");
    // Texts that any prompt may go on with are no answers to those that have one.
    let report = json_of(&["--url", &off_topic, "--reference-url", &off_topic], 100);
    assert!(report["conclusion"].as_str().unwrap().contains("proves nothing"), "{}", report["conclusion"]);
}

#[test]
fn answers_that_change_are_no_prefill_of_another_kind() {
    let asked = AtomicUsize::new(0);
    let changing = serve(move |stream, _, body| {
        let n = asked.fetch_add(1, Ordering::SeqCst);
        let answer = right(&prompt(body));
        text(stream, if n.is_multiple_of(2) { " no idea of it" } else { answer });
    });
    let good = serve(|stream, _, body| text(stream, right(&prompt(body))));
    let report = json_of(&["--url", &changing, "--reference-url", &good, "--concurrency", "1"], 100);
    let conclusion = report["conclusion"].as_str().unwrap();
    assert!(conclusion.contains("a race") && !conclusion.contains("prefill"), "{conclusion}");
}

#[test]
fn no_password_is_printed() {
    let good = serve(|stream, _, body| text(stream, right(&prompt(body))));
    let said = run(&["--url", &good.replace("http://", "http://me:secret@")], 0);
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_model_that_knows_nothing_proves_nothing() {
    let url = serve(|stream, _, _| text(stream, "\u{1}\u{2}"));
    let report = json_of(&["--url", &url, "--reference-url", &url], 100);
    assert_eq!(report["failed"], 0);
    assert!(report["conclusion"].as_str().unwrap().contains("proves nothing"), "{}", report["conclusion"]);
}

#[test]
fn prompts_are_the_users_and_wrong_flags_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.toml");
    std::fs::write(&path, "[[prompt]]\nid='ours'\nprompt='Our product is called'\nexpect=['Widget']\n")
        .unwrap();
    let path = path.to_str().unwrap();
    let url = serve(|stream, _, _| text(stream, " Widget"));
    let report = json_of(&["--url", &url, "--prompts", path, "--own-prompts-only"], 0);
    assert_eq!(report["prompts"].as_array().unwrap().len(), 1);
    for bad in [
        &["--url", "127.0.0.1:1"][..],
        &["--url", "https://127.0.0.1:1"],
        &["--url", "http://"],
        &["--url", &url, "--own-prompts-only"],
        &["--url", &url, "--timeout", "0"],
        &[],
    ] {
        run(bad, 2);
    }
    std::fs::write(path, "[[prompt]]\nid='a'\nprompt='x'\nmax_token=1\n").unwrap();
    assert!(run(&["--url", &url, "--prompts", path], 2).contains("max_token"));
}
