//! What the upload has to say of itself, for metrics, `/health` and the gateway's own readings.
//!
//! One writer (the uploader), any readers; a snapshot is whole: its numbers belong together.
//!
//! Each question to the lake is entered here while it waits ([`UploadState::ask`]): a folder on a server that is gone gives
//! neither an answer nor an error, and a slow link an answer after minutes. Those that the uploader itself gives up in time
//! ([`UploadState::ask_for`]) are no sign that it hangs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

/// How the upload stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadSnapshot {
    /// Sealed objects that wait for the lake.
    pub waiting_batches: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// The time of the oldest reading that waits, in microseconds since 1970: of those that are sealed, and, where nothing
    /// can be sealed, of all that are on disk.
    pub oldest_waiting_us: Option<i64>,
    /// When the lake last answered as it should.
    pub last_success_us: Option<i64>,
    /// What went wrong last, without secrets; nothing once all is well again.
    pub last_error: Option<String>,
    /// Requests to the store since the start. What the store's own client repeats counts once.
    pub requests: u64,
    /// Batches that the lake took since the start.
    pub uploaded_batches: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// How long after its newest reading's time the last batch was in the lake.
    pub last_lag_us: Option<i64>,
}

/// The upload's state, shared: clones show the same.
#[derive(Debug, Clone, Default)]
pub struct UploadState(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    snapshot: Mutex<UploadSnapshot>,
    /// Since when the questions that wait do so: as many as are in flight at once.
    asked: Mutex<Vec<Question>>,
}

/// Since when a question waits, and whether it ends by itself.
type Question = (Instant, bool);

/// A question that waits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Asked<'state>(&'state UploadState, Question);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut asked = self.0.asked();
        if let Some(place) = asked.iter().position(|question| *question == self.1) {
            asked.swap_remove(place);
        }
    }
}

impl UploadState {
    /// How the upload stands now.
    #[must_use]
    pub fn snapshot(&self) -> UploadSnapshot {
        self.lock().clone()
    }

    /// A question to the lake begins to wait.
    pub(crate) fn ask(&self) -> Asked<'_> {
        self.enter((Instant::now(), false))
    }

    /// The same for one that is given up after a time.
    pub(crate) fn ask_for(&self) -> Asked<'_> {
        self.enter((Instant::now(), true))
    }

    fn enter(&self, question: Question) -> Asked<'_> {
        self.asked().push(question);
        Asked(self, question)
    }

    /// For how long the question has waited that waits longest.
    pub(crate) fn waits_for(&self) -> Option<Duration> {
        self.asked().iter().map(|(since, _)| since).min().map(Instant::elapsed)
    }

    /// The same of those that nobody gives up.
    pub(crate) fn hangs_for(&self) -> Option<Duration> {
        let endless = self.asked().iter().filter(|(_, ends)| !ends).map(|(since, _)| *since).min();
        endless.map(|since| since.elapsed())
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Question>> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_request(&self) {
        self.lock().requests += 1;
    }

    /// A batch is in the lake.
    pub(super) fn landed(&self, bytes: u64, now_us: i64, newest_us: Option<i64>) {
        let mut state = self.lock();
        state.uploaded_batches += 1;
        state.uploaded_bytes += bytes;
        state.last_success_us = Some(now_us);
        state.last_lag_us = newest_us.map(|newest_us| now_us - newest_us).or(state.last_lag_us);
    }

    /// A round ended. One in which nothing could be sealed shows nothing of the lake.
    pub(super) fn round(&self, now_us: i64, error: Option<String>, seals: bool) {
        let mut state = self.lock();
        if error.is_none() && seals {
            state.last_success_us = Some(now_us);
        }
        state.last_error = error;
    }

    /// What waits.
    pub(super) fn waiting(&self, batches: u64, bytes: u64, oldest_us: Option<i64>) {
        let mut state = self.lock();
        (state.waiting_batches, state.waiting_bytes, state.oldest_waiting_us) = (batches, bytes, oldest_us);
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn lock(&self) -> MutexGuard<'_, UploadSnapshot> {
        self.0.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_longest_is_told_until_it_ends() {
        let state = UploadState::default();
        let other = state.clone();
        assert_eq!(other.waits_for(), None);
        let first = state.ask();
        tokio::time::advance(Duration::from_secs(5)).await;
        let second = state.ask();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(other.waits_for(), Some(Duration::from_secs(7)));
        drop(first);
        assert_eq!(other.waits_for(), Some(Duration::from_secs(2)));
        drop(second);
        assert_eq!((other.waits_for(), other.hangs_for()), (None, None));
    }

    /// A large batch over a slow link may take longer than the watchdog would wait for what hangs.
    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_in_time_waits_and_does_not_hang() {
        let state = UploadState::default();
        let bounded = state.ask_for();
        tokio::time::advance(Duration::from_secs(700)).await;
        assert_eq!((state.waits_for(), state.hangs_for()), (Some(Duration::from_secs(700)), None));
        let endless = state.ask();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(state.hangs_for(), Some(Duration::from_secs(1)));
        drop((bounded, endless));
    }
}
