//! `doctor`: what on this machine would keep a gateway from its work, and what to do about it.
//!
//! It changes nothing and opens no port, and reads the spool's log as a start would: a running gateway does not notice it. No secret is shown.

mod behind;
mod disk;
mod inside;
mod locks;
mod machine;
mod port;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tjern_readings::clock::Clock;

use super::{FAILED, has_colors, load, tell_or_fail};
use crate::config::{Config, aliases};
use crate::ports;
use crate::upload::{PlainLake, Probe, known_lake, probe};

/// What `doctor` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway doctor --config landfall-01.toml\n  tjern-gateway doctor --config landfall-01.toml --format json\n\n\
    Run it as the gateway's user: permissions are those of whoever asks, and root may do everything. As the packaged unit's:\n  \
    systemd-run --pipe --wait -p DynamicUser=yes -p User=tjern-gateway -p StateDirectory=tjern -p SupplementaryGroups=dialout \\\n    \
    tjern-gateway doctor --config /etc/tjern/gateway.toml\n\
    Exit status: 0 when nothing fails, 1 when something does, 2 for a wrong configuration."
)]
pub struct DoctorArguments {
    /// The gateway's configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A line each for people, or one JSON document for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    state: State,
    what: String,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>, says: impl Into<String>) -> Self {
        Self { state: State::Ok, what: what.into(), says: says.into(), hint: None }
    }

    fn warn(what: impl Into<String>, says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { state: State::Warn, what: what.into(), says: says.into(), hint: Some(hint.into()) }
    }

    fn fail(what: impl Into<String>, says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { state: State::Fail, what: what.into(), says: says.into(), hint: Some(hint.into()) }
    }

    fn line(&self, colored: bool) -> String {
        let (word, color) = match self.state {
            State::Ok => ("ok  ", "32"),
            State::Warn => ("warn", "33"),
            State::Fail => ("fail", "31"),
        };
        let word = if colored { format!("\x1b[{color}m{word}\x1b[0m") } else { word.to_owned() };
        match &self.hint {
            Some(hint) => format!("{word} {}: {}; hint: {hint}", self.what, self.says),
            None => format!("{word} {}: {}", self.what, self.says),
        }
    }
}

/// Looks at everything, and shows it on stdout.
pub(super) async fn execute(arguments: DoctorArguments) -> ExitCode {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let findings = examine(&config).await;
    if let Err(status) = tell_or_fail(&shown(&findings, arguments.format)) {
        return status;
    }
    let fails = findings.iter().any(|finding| finding.state == State::Fail);
    if fails { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

async fn examine(config: &Config) -> Vec<Finding> {
    let root = Path::new("/");
    let present = ports::present(root);
    let mut findings: Vec<Finding> = machine::asker(root).into_iter().collect();
    findings.extend(config.ports().map(|name| port::examine(root, name, &present)));
    findings.extend(aliases(config.ports()).into_iter().map(port::twice));
    findings.push(machine::clock(root, Clock::system().now_us()));
    findings.extend(behind::examine(root, config, Clock::system().now_us()));
    findings.push(disk::examine(config.spool()));
    findings.push(disk::spool(root, &config.spool().dir));
    findings.extend(inside::examine(config.spool(), Clock::system().now_us()));
    let is_local = config.lake().local_folder().is_some() || config.lake().url().scheme() == "memory";
    if !is_local {
        findings.push(machine::certificates(root, std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)));
    }
    findings.extend(without_tls(config));
    findings.push(lake(config).await);
    findings
}

/// A lake on another machine over plain HTTP works, and anybody on the way can read and answer.
fn without_tls(config: &Config) -> Option<Finding> {
    let plain = PlainLake::of(config.lake(), config.upload().credentials_file.clone())?;
    Some(Finding::warn("tls", plain.to_string(), PlainLake::HINT))
}

async fn lake(config: &Config) -> Finding {
    let what = format!("lake {}", config.lake());
    if let Err(error) = known_lake::check(&config.spool().dir.join(known_lake::FILE), config.lake()) {
        let text = error.to_string();
        let (says, hint) = text.split_once("; hint: ").unwrap_or((&text, ""));
        return Finding::fail(what, says, hint);
    }
    // Opening a folder creates it, and this shall change nothing.
    if let Some(folder) = config.lake().local_folder().filter(|folder| !folder.exists()) {
        return disk::missing_lake(what, &folder);
    }
    match probe(config.lake(), config.gateway(), config.upload().credentials_file.clone()).await {
        Probe::Reached { has_landed: true } => Finding::ok(what, "it can be reached, and has readings of this gateway"),
        Probe::Reached { has_landed: false } => {
            Finding::ok(what, "it can be reached; nothing of this gateway is there")
        }
        Probe::Failed { reason, hint } => Finding::fail(what, reason, hint),
    }
}

fn shown(findings: &[Finding], format: Format) -> String {
    match format {
        // Texts and a word each: nothing in them that JSON cannot have.
        Format::Json => serde_json::to_string_pretty(findings).unwrap_or_default() + "\n",
        Format::Text => {
            let colored = has_colors(&io::stdout());
            findings.iter().map(|finding| finding.line(colored) + "\n").collect()
        }
    }
}
