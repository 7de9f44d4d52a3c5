//! What a job is: a thing that works once, to the end, says what it did, and can be stopped anywhere.
//!
//! A job that fails leaves nothing that anybody has to clean up: its next run goes on from what is in the
//! lake. That is the job's own duty; nothing here can see to it.

use std::fmt::{self, Display};

use async_trait::async_trait;
use serde_json::{Map, Value};
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

/// A job of the pipeline.
#[async_trait]
pub trait Job: fmt::Debug + Send {
    /// What is left undone when it fails, as it shall be told: "no new reading is in the tables".
    fn undone(&self) -> &'static str;

    /// Whether it looks at `stop` itself, so that it can give a lease back. The others are dropped wherever
    /// they wait, by the daemon and by the command.
    fn heeds_stop(&self) -> bool {
        false
    }

    /// Says that it is run once and never again: what a daemon leaves to the next run is done in this one.
    fn runs_once_only(&mut self) {}

    /// Works once, to the end.
    ///
    /// # Errors
    /// [`JobError`], with whose turn it is to do something.
    async fn run(&mut self, lake: &Lake, stop: &CancellationToken) -> Result<Done, JobError>;
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Done {
    /// In a sentence, for people.
    pub said: String,
    /// In numbers, for programs: part of the documented output of `--json`.
    pub did: Map<String, Value>,
    /// Whether there was anything to do. Where there was not, the log says nothing.
    pub worked: bool,
    /// Whether another process is at it, so that nothing was done here.
    pub held_elsewhere: bool,
}

impl Done {
    /// A run that had something to do, and what it says of it.
    #[must_use]
    pub fn new(said: impl Into<String>) -> Self {
        Self { said: said.into(), worked: true, ..Self::default() }
    }

    /// Adds a number (or a list) for programs.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.did.insert(name.to_owned(), value.into());
        self
    }

    /// Whether there was anything to do.
    #[must_use]
    pub fn worked(self, worked: bool) -> Self {
        Self { worked, ..self }
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum JobError {
    /// The lake, or another machine, did not do what it was asked. The next run tries again.
    #[error("{0}")]
    Failed(String),
    /// A part could not be done, and all the rest was: the next run is due as if it had gone well.
    #[error("{error}")]
    Partly {
        /// Why the part could not be done.
        error: String,
        /// What was done.
        done: Box<Done>,
    },
    /// Its lake cannot be worked on, by this job or any other: it cannot be written, or its store is careless.
    #[error("{0}")]
    NotReady(String),
    /// The city's own files are wrong, and stay so until somebody mends them.
    #[error("{0}")]
    Wrong(String),
    /// It was told to stop before it was done.
    #[error("interrupted; what was not done is done by the next run")]
    Interrupted,
}

impl JobError {
    /// Something did not work.
    pub fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Somebody has to mend something.
    pub fn wrong(error: impl Display) -> Self {
        Self::Wrong(error.to_string())
    }
}
