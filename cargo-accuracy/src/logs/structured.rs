//! Lines that are JSON objects, as loggers and containers write them, turned into the text that they stand for.

use memchr::{memchr, memmem};
use serde_json::{Map, Value};

/// Objects within objects: a container's line holds an engine's, which holds its message.
const MAX_DEPTH: usize = 3;

/// Bytes that may stand before an object in its line.
const MAX_PREFIX: usize = 120;

/// Where loggers keep what was said, from the most to the least telling place.
const MESSAGE: &[&[&str]] = &[
    &["message"],
    &["msg"],
    &["fields", "message"],
    &["record", "message"],
    &["jsonPayload", "message"],
    &["data", "message"],
    &["log"],
    &["event"],
    &["text"],
    &["body"],
    &["textPayload"],
    &["@message"],
    &["@m"],
    &["MESSAGE"],
];
const LEVEL: &[&[&str]] = &[
    &["level"],
    &["levelname"],
    &["severity"],
    &["severity_text"],
    &["severityText"],
    &["log_level"],
    &["loglevel"],
    &["lvl"],
    &["log.level"],
    &["log", "level"],
    &["record", "level", "name"],
    &["jsonPayload", "level"],
    &["@l"],
];
const TARGET: &[&[&str]] = &[
    &["target"],
    &["logger"],
    &["logger_name"],
    &["log.logger"],
    &["log", "logger"],
    &["name"],
    &["record", "name"],
    &["fields", "target"],
    &["SYSLOG_IDENTIFIER"],
];
const TIME: &[&[&str]] = &[
    &["timestamp"],
    &["time"],
    &["asctime"],
    &["ts"],
    &["@timestamp"],
    &["datetime"],
    &["record", "time", "repr"],
    &["@t"],
];
const FILE: &[&[&str]] = &[&["filename"], &["pathname"], &["file"], &["record", "file", "name"]];
const LINE: &[&[&str]] = &[&["lineno"], &["line_number"], &["line"], &["record", "line"]];
/// What was raised; its last lines say most.
const RAISED: &[&[&str]] = &[
    &["exc_info"],
    &["exc_text"],
    &["exception"],
    &["traceback"],
    &["stack_trace"],
    &["stack_info"],
    &["stack"],
    &["error", "stack_trace"],
    &["fields", "error"],
    &["error"],
];

/// Writes the block to `plain` with each line of JSON as text, and to `numbers` which line of the block each line of
/// `plain` is. No object begins before `from`. Returns false, and writes nothing of use, where no line is JSON.
pub fn read(block: &[u8], from: usize, plain: &mut Vec<u8>, numbers: &mut Vec<u64>) -> bool {
    plain.clear();
    numbers.clear();
    let Some(first) = memmem::find(&block[from..], b"{\"").map(|at| from + at) else { return false };
    let mut any = false;
    let mut rest = block;
    let (mut number, mut at) = (0, 0);
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let (line, after) = rest.split_at(end);
        let said = if at + end > first { text_of(line) } else { None };
        match said {
            Some(text) => {
                any = true;
                for said in text.lines() {
                    plain.extend(said.as_bytes());
                    plain.push(b'\n');
                    numbers.push(number);
                }
            }
            None => {
                plain.extend(line);
                numbers.push(number);
            }
        }
        number += 1;
        at += end;
        rest = after;
    }
    any
}

/// What a line says that is an object, with or without a container's words before it.
fn text_of(line: &[u8]) -> Option<String> {
    let line = line.trim_ascii_end();
    if !line.ends_with(b"}") {
        return None;
    }
    let start = memmem::find(line, b"{\"")?;
    // A time, a container or a host stands before it, and never what a user wrote.
    let before = &line[..start];
    if before.len() > MAX_PREFIX || before.iter().any(|b| b"'\"(=,".contains(b)) {
        return None;
    }
    let object: Map<String, Value> = serde_json::from_slice(&line[start..]).ok()?;
    said(&object, 0)
}

fn said(object: &Map<String, Value>, depth: usize) -> Option<String> {
    let text = |places: &[&[&str]]| places.iter().find_map(|path| at(object, path)?.as_str());
    let (level, target, time) = (text(LEVEL), text(TARGET), text(TIME));
    let timed = time.is_some() || TIME.iter().any(|path| at(object, path).is_some_and(Value::is_number));
    let message = text(MESSAGE).filter(|_| level.is_some() || timed)?.trim_end();
    // A container's line holds the line of what runs in it.
    let inner = message.starts_with('{').then(|| serde_json::from_str(message).ok()).flatten();
    if let Some(inner) = inner.filter(|_| depth < MAX_DEPTH).and_then(|inner| said(&inner, depth + 1)) {
        return Some(inner);
    }
    let mut line = String::new();
    if let Some(level) = level {
        line.extend(time.iter().flat_map(|time| [time, " "]));
        line += &level.to_uppercase();
        let place = text(FILE).zip(LINE.iter().find_map(|path| at(object, path)?.as_u64()));
        if let Some((file, number)) = place {
            line += &format!(" [{}:{number}]", file.rsplit('/').next().unwrap_or(file));
        }
        line.extend(target.iter().flat_map(|target| [" ", target, ":"]));
        line.push(' ');
    }
    line += message;
    if let Some(raised) = text(RAISED).filter(|raised| *raised != message) {
        line.push('\n');
        line += raised.trim_end();
    }
    // A line that says nothing stays a line.
    Some(if line.is_empty() { " ".to_owned() } else { line })
}

fn at<'a>(object: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(object.get(*first)?, |value, key| value.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<String> {
        text_of(line.as_bytes())
    }

    #[test]
    fn what_loggers_and_containers_write_is_read_as_text() {
        for (line, text) in [
            (
                r#"{"timestamp":"2026-01-08T07:20:52Z","level":"WARN","fields":{"message":"no \"flash\""},"target":"text_generation_launcher"}"#,
                "2026-01-08T07:20:52Z WARN text_generation_launcher: no \"flash\"",
            ),
            (
                r#"{"asctime": "x", "levelname": "WARNING", "name": "vllm.a", "filename": "/v/a.py", "lineno": 7, "message": "m"}"#,
                "x WARNING [a.py:7] vllm.a: m",
            ),
            (
                r#"{"log":"WARNING 02-11 10:11:02 [a.py:1] m\n","stream":"stderr","time":"2026-01-08T07:20:52Z"}"#,
                "WARNING 02-11 10:11:02 [a.py:1] m",
            ),
            (
                r#"2026-01-08T07:20:52Z stderr F {"ts": 1.5, "level": "error", "msg": "bad", "exc_info": "Traceback\n  x\nOSError: y"}"#,
                "ERROR bad\nTraceback\n  x\nOSError: y",
            ),
            (
                r#"{"log":"{\"time\":\"t\",\"level\":\"info\",\"event\":\"in\"}","stream":"stdout","time":"u"}"#,
                "t INFO in",
            ),
            (
                r#"{"text":"whole","record":{"message":"m","level":{"name":"INFO"},"name":"n","time":{"repr":"t"}}}"#,
                "t INFO n: m",
            ),
        ] {
            assert_eq!(of(line).as_deref(), Some(text), "{line}");
        }
    }

    #[test]
    fn other_objects_and_other_lines_stay_as_they_are() {
        for line in [
            r#"{"model":"m","prompt":"p","message":"no time and no level"}"#,
            r#"INFO 02-11 10:11:02 [a.py:1] args {"level": "high"}"#,
            r#"{"timestamp":"t","level":"WARN","fields":{"message":"cut"#,
            r#"Receive: obj=GenerateReqInput(text='{"level":"error","message":"NaN in the logits"}"#,
            "{'timestamp': 't'}",
            "}",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn every_line_of_a_message_knows_the_line_that_it_stands_in() {
        let block = b"one\n{\"level\":\"error\",\"msg\":\"a\\nb\"}\n{\"level\":\"info\",\"msg\":\"\"}\nfour";
        let (mut plain, mut numbers) = (Vec::new(), Vec::new());
        assert!(read(block, 0, &mut plain, &mut numbers));
        assert_eq!(String::from_utf8(plain.clone()).unwrap(), "one\nERROR a\nb\nINFO \nfour");
        assert_eq!(numbers, [0, 1, 1, 2, 3]);
        assert!(!read(b"one\ntwo\n", 0, &mut plain, &mut numbers));
    }
}
