//! The register's files, as `register` and `ingest` of one lake have them together: whoever of them comes first registers them,
//! and the other one knows.
//!
//! Before a process ingests for the first time the register is brought to what its files say: by it a batch is kept out of the
//! common lake, or its readings fail, and what is in a table once is there. Where the files cannot be registered, what the
//! lake's own register says goes on being used; a lake that has none waits. What changes in the files later is `register`'s.

use std::sync::Arc;

use tjern_lake::Lake;
use tokio::sync::Mutex;

use crate::jobs::job::JobError;
use crate::jobs::unchanged::Unchanged;
use crate::register::{RegisterError, RegisterFiles, RegisterOutcome, is_there, register};

/// What is in the register's files.
type Texts = [Option<Vec<u8>>; 5];

/// The files, and what was in them when they were last registered.
#[derive(Debug, Clone)]
pub(super) struct Registering {
    files: RegisterFiles,
    /// Whether others register, as `[jobs] off` says.
    is_off: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    seen: Unchanged<Texts>,
    /// What `ingest` registered, and `register` has not told.
    untold: Option<RegisterOutcome>,
}

impl Registering {
    pub(super) fn new(files: RegisterFiles, is_off: bool) -> Self {
        Self { files, is_off, state: Arc::default() }
    }

    /// Registers the files, unless they are as they were; none then.
    pub(super) async fn register(&self, lake: &Lake) -> Result<Option<RegisterOutcome>, RegisterError> {
        let mut state = self.state.lock().await;
        let texts = texts(&self.files).await;
        if state.seen.since(&texts, lake.clock().now_us()) {
            return Ok(state.untold.take());
        }
        let outcome = register(lake, &self.files).await?;
        state.seen.done(texts, lake.clock().now_us());
        state.untold = None;
        Ok(Some(outcome))
    }

    /// Sees to it that there is a register, if the city has one, before anything is ingested.
    pub(super) async fn before_ingest(&self, lake: &Lake) -> Result<(), JobError> {
        if self.is_off {
            let is_said = self.files.required || texts(&self.files).await[..2].iter().any(Option::is_some);
            if !is_said || is_there(lake).await.map_err(JobError::failed)? {
                return Ok(());
            }
            return Err(JobError::wrong(
                "the lake has no register yet, and nothing is ingested without it; hint: `register` is in `[jobs] off`: whoever runs it has to run it first",
            ));
        }
        let mut state = self.state.lock().await;
        let texts = texts(&self.files).await;
        if state.seen.since(&texts, lake.clock().now_us()) {
            return Ok(());
        }
        let error = match register(lake, &self.files).await {
            Ok(outcome) => {
                state.seen.done(texts, lake.clock().now_us());
                state.untold = Some(outcome);
                return Ok(());
            }
            Err(error) => error,
        };
        if is_there(lake).await.map_err(JobError::failed)? {
            tracing::warn!(%error, "the register's files cannot be registered: batches are held against the register as it was before");
            return Ok(());
        }
        Err(failure(error, "the lake has no register yet, and nothing is ingested without it: "))
    }
}

/// Brings the register to what its files say before something other than the job `ingest` takes what has landed: what the
/// register forbids is in no table then, whoever is the first.
///
/// # Errors
/// That there is no register, and the files cannot be registered.
pub async fn register_before_ingest(lake: &Lake, files: &RegisterFiles) -> Result<(), JobError> {
    Registering::new(files.clone(), false).before_ingest(lake).await
}

async fn texts(files: &RegisterFiles) -> Texts {
    let RegisterFiles { sites, sensors, installations, events, rules, .. } = files;
    let paths = [sites, sensors, &installations.path, &events.path, &rules.path];
    let mut texts = [const { None }; 5];
    for (text, path) in texts.iter_mut().zip(paths) {
        *text = tokio::fs::read(path).await.ok();
    }
    texts
}

/// What is wrong with the register's files is the city's to mend, as a configuration is.
pub(super) fn failure(error: RegisterError, before: &str) -> JobError {
    let said = format!("{before}{error}");
    if error.is_of_the_files() { JobError::wrong(said) } else { JobError::failed(said) }
}
