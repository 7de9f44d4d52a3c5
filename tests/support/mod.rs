//! What tests of the whole city share: the real binary, started and ended, and a small HTTP client.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything of a city may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A city that runs. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct City {
    process: Child,
    lines: Receiver<String>,
    page: String,
    staff: String,
}

impl City {
    /// Starts the demo in a folder, on free ports, and waits until it says where its pages are.
    pub(crate) fn up(folder: &Path) -> Self {
        Self::up_with(&["--data"], folder)
    }

    /// Starts a city with these flags, the last of which takes `path`, on free ports.
    pub(crate) fn up_with(flags: &[&str], path: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tjern"))
            .args(["up", "--http", "127.0.0.1:0", "--staff", "127.0.0.1:0"])
            .args(flags)
            .arg(path)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let stdout = process.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Ends with the process, or with the test that listens.
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut city = Self { process, lines, page: String::new(), staff: String::new() };
        city.staff = city.address_after("metrics: http://");
        city.page = city.address_after("the page: http://");
        city
    }

    /// `host:port` of the residents' pages.
    pub(crate) fn page(&self) -> &str {
        &self.page
    }

    /// `host:port` of the staff's listener.
    pub(crate) fn staff(&self) -> &str {
        &self.staff
    }

    fn address_after(&self, words: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("`up` did not say {words:?}"));
            if let Some((_, rest)) = line.split_once(words) {
                return rest.trim_end_matches('/').to_owned();
            }
        }
    }

    /// Waits until something holds.
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "waited in vain for {what}");
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn interrupt_and_expect_success(mut self) {
        let pid = self.process.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -INT \"$0\"", &pid]).status().expect("a shell");
        assert!(sent.success());
        let ended = self.process.wait().expect("it ends");
        assert_eq!(ended.code(), Some(0), "{ended}");
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("it ends");
    }
}

impl Drop for City {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a command of `tjern` to its end; `path` is its last argument.
pub(crate) fn run(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tjern")).args(arguments).arg(path).output().expect("the binary runs")
}

/// What a command said.
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The body of a page that must be there.
pub(crate) fn get(address: &str, path: &str) -> io::Result<String> {
    match try_get(address, path)? {
        (200, body) => Ok(body),
        (code, body) => Err(io::Error::other(format!("{path}: {code} {body}"))),
    }
}

/// The status and the body of whatever is there.
pub(crate) fn status(address: &str, path: &str) -> (u16, String) {
    try_get(address, path).expect("an answer")
}

fn try_get(address: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no HTTP answer"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| io::Error::other("no status"))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((code, if chunked { dechunked(body) } else { body.to_owned() }))
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || rest.len() < length {
            break;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// The objects of a JSON array.
pub(crate) fn json_array(text: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}
