//! How a failure is told, and with which exit status: one clear line (a configuration's with its
//! place), no backtrace.

use std::fmt::Display;
use std::process::ExitCode;
use tjern_gateway::say;

/// Something failed: the lake, a job, a port.
pub(crate) const FAILED: u8 = 1;
/// The usage or the configuration is wrong; nothing was started.
pub(crate) const WRONG: u8 = 2;

/// A failure and its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    status: u8,
}

impl Failure {
    /// The usage or the configuration is wrong.
    pub(crate) fn wrong(error: impl Display) -> Self {
        Self { text: error.to_string(), status: WRONG }
    }

    /// Something failed.
    pub(crate) fn failed(error: impl Display) -> Self {
        Self { text: error.to_string(), status: FAILED }
    }

    /// What failed.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is the usage, or the configuration, that is wrong.
    pub(crate) const fn is_of_the_usage(&self) -> bool {
        self.status == WRONG
    }

    /// Says it on stderr.
    pub(crate) fn tell(&self) -> ExitCode {
        tell(&self.text, self.status)
    }
}

/// Says what is wrong on stderr. Errors of a configuration come with their own heading.
pub(crate) fn tell(error: &dyn Display, status: u8) -> ExitCode {
    let text = error.to_string();
    if text.starts_with("error: ") {
        say!("{text}");
    } else {
        say!("error: {text}");
    }
    ExitCode::from(status)
}
