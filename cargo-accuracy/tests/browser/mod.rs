//! A headless Chromium that is driven through its debugging pipe: pages are opened, read, and typed into as by a person.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Browser {
    process: Child,
    commands: File,
    messages: Receiver<Value>,
    next: u64,
    session: String,
    /// Loaders that have come to their end.
    loaded: Vec<String>,
    /// What the page's console has shown, errors and exceptions alone.
    pub errors: Vec<String>,
    _profile: tempfile::TempDir,
}

/// `None`, and the reason printed, where there is no Chromium.
pub fn start() -> Option<Browser> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|p| p.exists());
    match std::env::var_os("CHROMIUM").map(PathBuf::from).or(found) {
        Some(program) => Some(Browser::start(&program)),
        None => {
            eprintln!("skipped: none of {} is in PATH (Debian: apt-get install chromium)", names.join(", "));
            None
        }
    }
}

impl Browser {
    fn start(program: &Path) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let ((theirs_in, ours_out), (ours_in, theirs_out)) = (pipe(), pipe());
        let mut command = Command::new(program);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (read, write) = (theirs_in.as_raw_fd(), theirs_out.as_raw_fd());
        // SAFETY: only dup2, which may be called between fork and exec, on descriptors that are open until then.
        unsafe {
            command.pre_exec(move || {
                for (from, to) in [(read, 3), (write, 4)] {
                    if libc::dup2(from, to) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let process = command.spawn().expect("Chromium can be started");
        drop((theirs_in, theirs_out));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(File::from(ours_in)).split(0);
            while let Some(Ok(line)) = lines.next() {
                let message = serde_json::from_slice(&line).expect("the browser speaks JSON");
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Browser {
            process,
            commands: File::from(ours_out),
            messages,
            next: 0,
            session: String::new(),
            loaded: Vec::new(),
            errors: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = session["sessionId"].as_str().unwrap().into();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Page.setLifecycleEventsEnabled", json!({"enabled": true}));
        // Keys go to the page that has the focus.
        browser.call("Page.bringToFront", json!({}));
        browser.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true}));
        browser
    }

    /// Sends a command and waits for its answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        let id = self.next;
        let answer = self.until(method, |m| m["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).unwrap_or_else(|e| panic!("{what}: {e}"));
            let parameters = &message["params"];
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => {
                    self.errors.push(parameters["exceptionDetails"].to_string())
                }
                Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                    self.errors.push(parameters["args"].to_string());
                }
                Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                    self.errors.push(parameters["entry"].to_string());
                }
                Some("Page.lifecycleEvent") if parameters["name"] == "load" => {
                    self.loaded.extend(parameters["loaderId"].as_str().map(String::from));
                }
                _ => {}
            }
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Opens a file in a window of this size.
    pub fn open(&mut self, page: &Path, width: u32, height: u32, dark: bool) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features);
        // A different page first: an address that differs in its fragment alone is not loaded again.
        for url in ["about:blank", &format!("file://{}", page.display())] {
            let loader = self.call("Page.navigate", json!({"url": url}))["loaderId"].clone();
            let loader = loader.as_str().unwrap_or_else(|| panic!("{url} is not loaded"));
            // A load that is told may be that of the page before, and this one's may be told before the answer.
            while !self.loaded.iter().any(|other| other == loader) {
                self.until(url, |m| m["method"] == "Page.lifecycleEvent");
            }
        }
    }

    /// The value of an expression in the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Presses a key: a name such as `Enter`, or a character.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            "Tab" => 9,
            _ => 0,
        };
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        let down =
            json!({"type": "keyDown", "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", down);
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}),
        );
    }

    /// Types, and waits for what that leads to.
    pub fn type_text(&mut self, text: &str) {
        text.chars().for_each(|c| self.press(&c.to_string()));
        self.eval("new Promise(done => setTimeout(done, 200))");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The two ends of a pipe, well above the descriptors that the browser expects; neither outlives an exec.
fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two descriptors, and there is room for two.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0, "a pipe can be opened");
    ends.map(|end| {
        // SAFETY: the descriptor is open and nobody else's.
        let end = unsafe { OwnedFd::from_raw_fd(end) };
        // SAFETY: duplicates an open descriptor.
        let high = unsafe { libc::fcntl(end.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10) };
        assert!(high >= 10, "a descriptor can be duplicated");
        // SAFETY: it was just made.
        unsafe { OwnedFd::from_raw_fd(high) }
    })
    .into()
}
