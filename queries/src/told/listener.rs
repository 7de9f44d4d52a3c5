//! Asks the pipeline for the versions of its tables, again and again, for as long as the server runs.
//!
//! A question waits at the pipeline until something changes, [`Patience::wait`] at most; the next one follows. Whatever comes
//! instead of an answer (none, too late, too much, something else) is a failure: what was told is forgotten, and it is
//! asked again after pauses that grow. What is read is bounded in bytes and in time.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use tjern_lake::Versions;
use tjern_lake::versions::{Telling, TellingError};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Told;
use super::backoff::Backoff;

/// The longest answer: eight tables are 500 bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The longest state: it comes back to the pipeline in a URL.
const STATE_BYTES_MAX: usize = 2 << 10;

/// A question does not follow another one sooner, where each answer brings something new.
const APART: Duration = Duration::from_millis(100);

/// Nor sooner than this where the answer brings nothing new: somebody between does not wait.
const APART_UNCHANGED: Duration = Duration::from_secs(1);

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For something new, at the pipeline; in whole seconds.
    wait: Duration,
    /// For the whole of an answer beyond that.
    answer: Duration,
}

impl Patience {
    /// A pipeline that was cut off without a word is missed after both.
    pub(crate) const SERVER: Self = Self { wait: Duration::from_secs(10), answer: Duration::from_secs(5) };
}

/// Why nothing was told.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error(
        "it cannot be reached: {0}; hint: is `[jobs] listen` of `tjern pipeline run` at this address, and may this machine reach it?"
    )]
    Unreachable(String),
    #[error(
        "no answer came in time; hint: is `[jobs] listen` of `tjern pipeline run` at this address, or something between?"
    )]
    Late,
    #[error("it answered with status {}; hint: does `[serve] pipeline` name the `[jobs] listen` of `tjern pipeline run`?", .0.as_u16())]
    Refused(StatusCode),
    #[error("its answer is longer than {ANSWER_BYTES_MAX} bytes; hint: is that the pipeline?")]
    Long,
    #[error("its answer cannot be read: {0}; hint: is that the pipeline?")]
    Nonsense(#[from] TellingError),
}

impl From<reqwest::Error> for ListenError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let causes = std::iter::successors(std::error::Error::source(&error), |error| error.source());
        Self::Unreachable(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
    }
}

/// Who asks the pipeline.
#[derive(Debug)]
pub(crate) struct Listener {
    told: Told,
    client: Client,
}

impl Listener {
    /// Nothing is asked yet.
    pub(crate) fn new(told: Told) -> reqwest::Result<Self> {
        // The pipeline is the city's own: no proxy stands before it, and nobody sends us elsewhere.
        let client = Client::builder().no_proxy().redirect(Policy::none());
        let client = client.user_agent(concat!("tjern/", env!("CARGO_PKG_VERSION"))).build()?;
        Ok(Self { told, client })
    }

    /// Listens until `stop`.
    pub(crate) async fn listen(self, patience: Patience, stop: CancellationToken) {
        // Cut off where it stands: nothing is half done.
        let _ = stop.run_until_cancelled(ask_on(&self.client, &self.told, patience)).await;
    }
}

async fn ask_on(client: &Client, told: &Told, patience: Patience) {
    let mut known: Option<String> = None;
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let asked = timeout(patience.wait + patience.answer, ask(client, told, patience, known.as_deref())).await;
        let pause = match asked.unwrap_or(Err(ListenError::Late)) {
            Ok(Telling { state, versions }) => {
                backoff.reset();
                told.heard(&versions);
                let is_new = known.as_ref() != Some(&state);
                known = Some(state);
                if is_new { APART } else { APART_UNCHANGED }.saturating_sub(began.elapsed())
            }
            Err(error) => {
                told.lost(&error.to_string());
                // The first answer after a silence is not waited for.
                known = None;
                backoff.next_pause()
            }
        };
        sleep(pause).await;
    }
}

async fn ask(client: &Client, told: &Told, patience: Patience, known: Option<&str>) -> Result<Telling, ListenError> {
    let mut url = told.address().versions();
    if let Some(known) = known {
        url.query_pairs_mut().append_pair("after", known).append_pair("wait", &patience.wait.as_secs().to_string());
    }
    let mut response = client.get(url).send().await?;
    if response.status() != StatusCode::OK {
        return Err(ListenError::Refused(response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(ListenError::Long);
        }
    }
    let telling = Versions::hear(&body)?;
    if telling.state.len() > STATE_BYTES_MAX { Err(ListenError::Long) } else { Ok(telling) }
}

#[cfg(test)]
mod tests;
