//! `cargo accuracy probe` as a process, against servers that are written here: a right one, and every kind of wrong one.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a server writes for the n-th request of this path with this body, straight to the socket.
type Handler = Arc<dyn Fn(&mut TcpStream, usize, &str, &Value) + Send + Sync>;

/// A server of `/v1/completions` on a port of the system's choice, as long as the tests run.
fn serve(handler: impl Fn(&mut TcpStream, usize, &Value) + Send + Sync + 'static) -> String {
    serve_all(move |stream, n, path, body| match path {
        "/v1/completions" => handler(stream, n, body),
        _ => reply(stream, "404 Not Found", "application/json", br#"{"message": "no such model"}"#),
    })
}

/// A server of every path.
fn serve_all(handler: impl Fn(&mut TcpStream, usize, &str, &Value) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handler: Handler = Arc::new(handler);
    let count = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (handler, count) = (handler.clone(), count.clone());
            std::thread::spawn(move || {
                let mut stream = stream;
                if let Some((path, body)) = request(&stream) {
                    let asked = if path.ends_with("/models") { 0 } else { 1 };
                    handler(&mut stream, count.fetch_add(asked, Ordering::SeqCst), &path, &body);
                }
            });
        }
    });
    url
}

fn request(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
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
    if length == 0 {
        return Some((path, Value::Null));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, serde_json::from_slice(&body).ok()?))
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

/// Text as it was before it was broken into lines.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
        let text = run(&["--url", &url, "--timeout", "5", "--patience", "1"], 101);
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
fn a_refused_connection_is_tried_again_and_a_failing_server_for_a_while() {
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
    let said = run(&["--url", &url, "--patience", "0"], 101);
    assert_eq!(requests.load(Ordering::SeqCst), 11, "without patience one request a prompt");
    assert!(flat(&said).contains("see its log"), "{said}");
    requests.store(0, Ordering::SeqCst);
    run(&["--url", &url, "--patience", "2"], 101);
    // Half a second and one more are waited for, once.
    assert_eq!(requests.load(Ordering::SeqCst), 13);
}

/// What a report says that must not be said of a server that only fails or refuses.
const OF_KERNELS: [&str; 5] = ["a race", "memory that nobody wrote", "garbage", "prefill", "accuracy tests"];

fn says_nothing_of_kernels(report: &Value) {
    let conclusion = report["conclusion"].as_str().unwrap_or_default();
    for word in OF_KERNELS {
        assert!(!conclusion.contains(word), "{word} in {conclusion}");
    }
    assert_eq!(report["failed"], 0, "{report}");
}

/// A status with one more header.
fn status_with(stream: &mut TcpStream, status: &str, header: &str) {
    let body = r#"{"error": {"message": "Rate limit reached for requests"}}"#;
    let head = format!(
        "HTTP/1.1 {status}\r\n{header}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

#[test]
fn a_server_that_limits_its_rate_is_waited_for() {
    let url = serve(|stream, n, body| match n % 2 {
        0 => status_with(stream, "429 Too Many Requests", "retry-after: 0.1"),
        _ => text(stream, right(&prompt(body))),
    });
    let report = json_of(&["--url", &url, "--concurrency", "1"], 0);
    says_nothing_of_kernels(&report);
    assert_eq!(report["unanswered"], 0);
    assert_eq!(of(&report, "story")["deterministic"], true);
    assert!(report["remarks"][0].as_str().unwrap().contains("status 429"), "{report}");

    // One that goes on is given up when patience ends, and nothing is concluded from it.
    let url = serve(|stream, _, _| status_with(stream, "429 Too Many Requests", "retry-after: 1"));
    let start = Instant::now();
    let said = run(&["--url", &url, "--patience", "2"], 101);
    assert!(start.elapsed() < Duration::from_secs(20));
    let said = flat(&said);
    assert!(said.contains("still so after") && said.contains("says nothing of the kernels"), "{said}");

    // One that wants more than there is patience for is not waited for at all.
    let url = serve(|stream, _, _| status_with(stream, "429 Too Many Requests", "retry-after: 3600"));
    let start = Instant::now();
    let said = run(&["--url", &url, "--patience", "5"], 101);
    assert!(start.elapsed() < Duration::from_secs(5));
    let said = flat(&said);
    assert!(said.contains("left alone for 3600 s") && said.contains("--patience 3600"), "{said}");
}

#[test]
fn a_server_that_loads_its_model_or_fails_for_a_moment_is_waited_for() {
    for status in ["503 Service Unavailable", "500 Internal Server Error", "502 Bad Gateway"] {
        let url = serve(move |stream, n, body| match n < 2 {
            true => reply(stream, status, "application/json", br#"{"error": {"message": "Loading model"}}"#),
            false => text(stream, right(&prompt(body))),
        });
        let report = json_of(&["--url", &url], 0);
        says_nothing_of_kernels(&report);
        assert!(report["remarks"][0].as_str().unwrap().contains("waited for"), "{report}");
    }
}

#[test]
fn a_server_that_fails_now_and_then_is_no_race() {
    // Each answer is the same; the second question of one prompt fails for good.
    let url = serve(|stream, n, body| match n == 1 {
        true => reply(
            stream,
            "400 Bad Request",
            "application/json",
            br#"{"error": {"message": "no", "param": "prompt"}}"#,
        ),
        false => text(stream, right(&prompt(body))),
    });
    let report = json_of(&["--url", &url], 101);
    says_nothing_of_kernels(&report);
    assert_eq!(report["unanswered"], 1);
    assert_eq!(of(&report, "capital-france")["verdict"], "exact");
    assert_eq!(of(&report, "capital-france")["deterministic"], Value::Null);
}

#[test]
fn what_a_server_refuses_is_left_out_and_said() {
    let refuse = |field: &'static str, body: &'static str| {
        serve(move |stream, _, asked| match asked.get(field).is_some() {
            true => reply(stream, "400 Bad Request", "application/json", body.as_bytes()),
            false => text(stream, right(&prompt(asked))),
        })
    };
    for (url, named) in [
        (refuse("seed", r#"{"error": {"message": "Unsupported parameter", "param": "seed"}}"#), "seed"),
        (
            refuse(
                "seed",
                r#"{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}"#,
            ),
            "seed",
        ),
        (refuse("logprobs", r#"{"error": "`logprobs` is not supported"}"#), "logprobs"),
        // It does not say which.
        (refuse("seed", r#"{"error": {"message": "Extra inputs are not permitted"}}"#), "seed"),
    ] {
        let report = json_of(&["--url", &url], 0);
        let remarks = report["remarks"].to_string();
        assert!(remarks.contains(&format!("refuses {named}")) && remarks.contains("left out"), "{remarks}");
        says_nothing_of_kernels(&report);
    }

    // Without a temperature answers may differ, and that is no race.
    let url = serve(|stream, n, asked| match asked.get("temperature") {
        Some(_) => reply(
            stream,
            "400 Bad Request",
            "application/json",
            br#"{"error": {"message": "no", "param": "temperature"}}"#,
        ),
        None => text(stream, &format!("{} And {n}.", right(&prompt(asked)))),
    });
    let report = json_of(&["--url", &url], 0);
    says_nothing_of_kernels(&report);
    assert_eq!(of(&report, "capital-france")["deterministic"], Value::Null);
    assert!(report["remarks"].to_string().contains("not compared"), "{report}");

    // One that refuses everything is told by what it said first.
    let url = serve(|s, _, _| {
        reply(s, "400 Bad Request", "application/json", br#"{"error": {"message": "go away"}}"#)
    });
    assert!(run(&["--url", &url], 101).contains("status 400: go away"));
}

#[test]
fn a_server_that_wants_a_model_is_given_its_only_one() {
    let wants = |names: &'static [&'static str]| {
        serve_all(move |stream, _, path, body| {
            if path == "/v1/models" {
                let list: Vec<Value> = names.iter().map(|id| json!({"id": id})).collect();
                return reply(
                    stream,
                    "200 OK",
                    "application/json",
                    json!({"data": list}).to_string().as_bytes(),
                );
            }
            match names.iter().any(|name| body["model"] == *name) {
                true => text(stream, right(&prompt(body))),
                false => reply(
                    stream,
                    "404 Not Found",
                    "application/json",
                    br#"{"error": {"message": "The model does not exist."}}"#,
                ),
            }
        })
    };
    let report = json_of(&["--url", &wants(&["org/name"])], 0);
    assert!(report["remarks"].to_string().contains("org/name"), "{report}");
    let two = wants(&["org/a", "org/b"]);
    let said = run(&["--url", &two], 101);
    assert!(flat(&said).contains("serves org/a, org/b: give one of them as --model"), "{said}");
    run(&["--url", &two, "--model", "org/b"], 0);
}

/// An answer of a chat, with a thought where there is one.
fn chat(stream: &mut TcpStream, answer: &str, thought: Option<&str>) {
    let body = json!({"choices": [{"message": {"role": "assistant", "content": answer, "reasoning_content": thought},
        "finish_reason": "stop"}]});
    reply(stream, "200 OK", "application/json", body.to_string().as_bytes());
}

#[test]
fn a_server_of_chat_alone_is_asked_that_way() {
    for refusal in [
        r#"{"detail": "Not Found"}"#,
        r#"{"error": {"message": "This model only supports /v1/chat/completions"}}"#,
    ] {
        let url = serve_all(move |stream, _, path, body| match path {
            "/v1/chat/completions" => {
                assert_eq!(body["messages"][0]["role"], "user");
                assert!(body["max_tokens"].as_u64().unwrap() >= 64, "{body}");
                chat(stream, right(body["messages"][0]["content"].as_str().unwrap()).trim(), Some("Hm."));
            }
            _ => reply(stream, "404 Not Found", "application/json", refusal.as_bytes()),
        });
        let report = json_of(&["--url", &url], 0);
        assert!(report["remarks"][0].as_str().unwrap().contains("/v1/chat/completions"), "{report}");
        assert!(report["url"].as_str().unwrap().ends_with("/v1/chat/completions"), "{report}");
        let report = json_of(&["--url", &url, "--chat"], 0);
        assert_eq!(report["remarks"], json!([]));
    }
    // One without either is told by both.
    let url =
        serve_all(|s, _, _, _| reply(s, "404 Not Found", "application/json", br#"{"detail": "Not Found"}"#));
    let said = run(&["--url", &url], 101);
    assert!(flat(&said).contains("neither /v1/completions nor /v1/chat/completions"), "{said}");
}

/// What a server answers, whatever it is asked.
type Answers = Box<dyn Fn(&mut TcpStream) + Send + Sync>;

#[test]
fn thinking_is_no_answer_and_no_garbage() {
    // The whole answer stands where the parser puts thoughts.
    let url = serve(|stream, _, body| {
        let body = json!({"choices": [{"text": "", "reasoning_content": right(&prompt(body)), "finish_reason": "length"}]});
        reply(stream, "200 OK", "application/json", body.to_string().as_bytes());
    });
    let report = json_of(&["--url", &url], 0);
    says_nothing_of_kernels(&report);
    let france = of(&report, "capital-france");
    assert_eq!((&france["verdict"], &france["text"]), (&json!("exact"), &json!("")));
    assert!(france["notes"][0].as_str().unwrap().contains("reasoning_content"), "{france}");

    // The thought is cut before it comes to an answer.
    let thought =
        "<think>\nOkay, the user wrote an incomplete sentence. Let me think about what comes next and about";
    let cut: [(Answers, &str); 2] = [
        (Box::new(move |stream| text(stream, thought)), "<think>"),
        (
            Box::new(|stream| {
                let body = json!({"choices": [{"text": "", "message": {"content": null, "reasoning": "The user asks something."},
                    "finish_reason": "length"}]});
                reply(stream, "200 OK", "application/json", body.to_string().as_bytes());
            }),
            "reasoning",
        ),
    ];
    for (answer, place) in cut {
        let url = serve(move |stream, _, _| answer(stream));
        let report = json_of(&["--url", &url], 101);
        says_nothing_of_kernels(&report);
        let france = of(&report, "capital-france");
        assert_eq!(france["verdict"], "thinking");
        assert!(france["unanswered"][0].as_str().unwrap().contains(place), "{france}");
        let conclusion = report["conclusion"].as_str().unwrap();
        assert!(conclusion.contains("--max-tokens 2048"), "{conclusion}");
    }

    // With as many tokens as that takes, the answer behind the thought counts.
    let url = serve(move |stream, _, body| match body["max_tokens"] == 2048 && body["extra"]["a"] == 1 {
        true => text(stream, &format!("<think>Hm.</think>{}", right(&prompt(body)))),
        false => text(stream, thought),
    });
    run(&["--url", &url, "--max-tokens", "2048", "--body", r#"{"extra": {"a": 1}}"#], 0);
    run(&["--url", &url, "--body", "[]"], 2);
    // A thought of garbage is garbage.
    let url = serve(|stream, _, _| text(stream, "<think>!!!!!!!!!!!!!!!!!!!!"));
    assert_eq!(of(&json_of(&["--url", &url], 100), "capital-france")["verdict"], "garbage");
}

/// An answer as events, one for each word.
fn stream_words(stream: &mut TcpStream, answer: &str, close: bool) {
    let mut body = String::from(": ping\n\n");
    for word in answer.split_inclusive(' ') {
        body += &format!("data: {}\n\n", json!({"choices": [{"text": word, "finish_reason": null}]}));
    }
    body += &format!(
        "data: {}\n\ndata: [DONE]\n\n",
        json!({"choices": [{"text": "", "finish_reason": "length"}]})
    );
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    if !close {
        // What is over is not waited for.
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn streams_are_read_where_that_is_all_there_is() {
    for close in [true, false] {
        let url = serve(move |stream, _, body| stream_words(stream, right(&prompt(body)), close));
        let report = json_of(&["--url", &url, "--timeout", "20"], 0);
        assert!(report["remarks"].to_string().contains("streams"), "{report}");
        assert_eq!(of(&report, "capital-france")["text"], " Paris, a city on the Seine.");
    }
    let url = serve(|stream, _, body| match body["stream"] == true {
        true => stream_words(stream, right(&prompt(body)), true),
        false => reply(
            stream,
            "400 Bad Request",
            "application/json",
            br#"{"error": {"message": "Only streaming is supported"}}"#,
        ),
    });
    let report = json_of(&["--url", &url], 0);
    assert!(report["remarks"].to_string().contains("only streams"), "{report}");
}

#[test]
fn a_time_out_is_the_servers_and_not_the_kernels() {
    let url = serve(|stream, n, body| {
        if n == 4 {
            std::thread::sleep(Duration::from_secs(10));
        }
        text(stream, right(&prompt(body)));
    });
    let report = json_of(&["--url", &url, "--timeout", "1"], 101);
    says_nothing_of_kernels(&report);
    assert_eq!(report["unanswered"], 1);
    assert!(report["conclusion"].as_str().unwrap().contains("--timeout"), "{report}");
}

#[test]
fn servers_that_are_asked_in_different_ways_are_not_compared_word_by_word() {
    let plain = serve(|stream, _, body| text(stream, right(&prompt(body))));
    let only_chat = serve_all(|stream, _, path, body| match path {
        "/v1/chat/completions" => {
            let answer = right(body["messages"][0]["content"].as_str().unwrap());
            chat(stream, &format!("{} Indeed", answer.trim()), None);
        }
        _ => reply(stream, "404 Not Found", "application/json", br#"{"detail": "Not Found"}"#),
    });
    let report = json_of(&["--url", &plain, "--reference-url", &only_chat], 0);
    assert_eq!(of(&report, "story")["reference"]["first_difference"], Value::Null);
    assert!(report["conclusion"].as_str().unwrap().contains("--chat"), "{report}");
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
fn answers_of_several_servers_are_not_compared() {
    for key in ["model", "system_fingerprint"] {
        let url = serve(move |stream, n, body| {
            let answer = format!("{}{}", right(&prompt(body)), ["", " Indeed."][n % 2]);
            let mut body = json!({"choices": [{"text": answer, "finish_reason": "length", "index": 0}]});
            body[key] = json!(["one", "two"][n % 2]);
            reply(stream, "200 OK", "application/json", body.to_string().as_bytes());
        });
        let shown = flat(&run(&["--url", &url, "--concurrency", "1"], 101));
        assert!(shown.contains("behind this address are several servers"), "{key}: {shown}");
        assert!(!shown.contains("a race"), "{key}: {shown}");
    }
}

#[test]
fn an_answer_that_the_server_ended_is_no_word_on_the_kernels() {
    let url = serve(|stream, _, _| {
        let body = json!({"choices": [{"text": " P", "finish_reason": "abort", "index": 0}]});
        reply(stream, "200 OK", "application/json", body.to_string().as_bytes());
    });
    let shown = flat(&run(&["--url", &url], 101));
    assert!(shown.contains("ended the answer itself (finish_reason `abort`)"), "{shown}");
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
