//! A gateway that is listened to, at the most talkative.

#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test binary uses its own share")]

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A gateway's configuration, without a bus.
pub fn config(root: &Path, lake: &str, more: &str) -> String {
    let root = root.display();
    format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"{lake}\"\n[spool]\ndir = \"{root}/spool\"\n[upload]\nevery = \"1s\"\n{more}"
    )
}

/// The real program at the most talkative, with these variables.
pub fn program(words: &[&str], config: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.args(words).arg("--config").arg(config).env("RUST_LOG", "trace").env("NO_COLOR", "1").kill_on_drop(true);
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// All that a command says that ends by itself.
pub async fn ended(words: &[&str], config: &Path, variables: &[(&str, &str)]) -> String {
    let output = timeout(PATIENCE, program(words, config, variables).output()).await;
    let Output { stdout, stderr, .. } = output.expect("it ends in time").expect("it starts");
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

/// A gateway that is listened to.
pub struct Talking {
    child: Child,
    log: BufReader<ChildStderr>,
    said: String,
}

impl Talking {
    pub fn start(config: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = program(&["run"], config, variables).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, log, said: String::new() }
    }

    /// Listens until a line has this in it, and gives that line.
    pub async fn until(&mut self, words: &str) -> String {
        let said = &mut self.said;
        let reading = async {
            let mut line = Vec::new();
            while self.log.read_until(b'\n', &mut line).await.expect("readable") > 0 {
                let text = String::from_utf8_lossy(&line).into_owned();
                said.push_str(&text);
                if text.contains(words) {
                    return Some(text);
                }
                line.clear();
            }
            None
        };
        match timeout(PATIENCE, reading).await.ok().flatten() {
            Some(line) => line,
            None => panic!("it did not say {words:?}:\n{said}"),
        }
    }

    /// Ends it, and gives all that it said.
    pub async fn end(mut self) -> String {
        // It may have ended by itself.
        let _ = self.child.kill().await;
        let mut rest = Vec::new();
        self.log.read_to_end(&mut rest).await.expect("readable");
        self.child.stdout.take().expect("piped").read_to_end(&mut rest).await.expect("readable");
        self.said + &String::from_utf8_lossy(&rest)
    }
}

/// Runs the gateway with these variables until it says this, or ends; gives all that it said.
pub async fn said(config: &Path, variables: &[(&str, &str)], until: &str) -> String {
    let mut gateway = Talking::start(config, variables);
    gateway.until(until).await;
    gateway.end().await
}
