//! When a device that wants to be asked is asked, on a line where no answer says what it answers.
//!
//! One question at a time, and none while an answer to another may still come: after one that was not answered in
//! time the line is left alone for as long as the timeout once more, and for twice as long where it was just opened, since
//! somebody may have asked right before. A device that is still talking is not talked to, and a line that is half there is waited for,
//! for a little.
//!
//! Limits: what comes later than two timeouts after its question passes for the answer to the next. Nothing in a line of
//! text tells them apart; where a device is so late, a longer `timeout` helps. No I/O.

use std::time::Duration;

use tokio::time::Instant;

use crate::lines::pauses::LINE_PAUSE_MAX;

#[cfg(test)]
use crate::modbus::faults::{Broken, is_broken};

/// However long the timeout is: on a line that was just opened so long is listened before the first question.
const LISTEN_MAX: Duration = Duration::from_secs(10);

/// A device that said nothing for so long has said what it had to: adapters hold back what they received for no longer.
const SILENCE: Duration = Duration::from_millis(20);

/// What a device is asked, and since when that may be.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) text: String,
    timeout: Duration,
    quiet_until: Instant,
    /// Since when it was to be asked and was not, since the device talks.
    held_since: Option<Instant>,
}

impl Question {
    pub(super) fn new(text: String, timeout: Duration) -> Self {
        Self { text, timeout, quiet_until: Instant::now(), held_since: None }
    }

    /// The line was opened, and is silent for so long before what comes is the beginning of a line.
    pub(super) fn opened(&mut self, silence: Duration) {
        self.leave_alone((self.timeout * 2).min(LISTEN_MAX).max(silence));
    }

    /// A slot waited for as long as it may.
    pub(super) fn was_not_answered(&mut self) {
        self.leave_alone(self.timeout);
    }

    fn leave_alone(&mut self, time: Duration) {
        #[cfg(test)]
        if is_broken(Broken::Quiet) {
            return;
        }
        self.quiet_until = self.quiet_until.max(Instant::now() + time);
    }

    /// How long it is not asked because an answer to an earlier one may come.
    pub(super) fn quiet_left(&self) -> Duration {
        self.quiet_until.saturating_duration_since(Instant::now())
    }

    /// How long it is not asked because the device talks, which it did last at that time, or because half a line is
    /// there. A device that never falls silent is waited for no longer than an answer.
    pub(super) fn line_left(&self, heard_at: Instant, has_begun: bool) -> Duration {
        let longest = self.held_since.unwrap_or_else(Instant::now) + self.timeout;
        let pause = if has_begun { LINE_PAUSE_MAX } else { SILENCE };
        (heard_at + pause.min(self.timeout)).min(longest).saturating_duration_since(Instant::now())
    }

    /// It waits for the device's silence.
    pub(super) fn is_held(&mut self) {
        self.held_since.get_or_insert_with(Instant::now);
    }

    /// It is asked now.
    pub(super) fn is_asked(&mut self) {
        self.held_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn a_line_is_left_alone_for_as_long_as_a_late_answer_may_come() {
        let mut question = Question::new("?".into(), TIMEOUT);
        assert_eq!(question.quiet_left(), Duration::ZERO);
        question.opened(LINE_PAUSE_MAX);
        assert_eq!(question.quiet_left(), TIMEOUT * 2);
        tokio::time::advance(TIMEOUT * 3 / 2).await;
        question.was_not_answered();
        assert_eq!(question.quiet_left(), TIMEOUT);
        let mut patient = Question::new("?".into(), Duration::from_secs(60));
        patient.opened(LINE_PAUSE_MAX);
        assert_eq!(patient.quiet_left(), LISTEN_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_line_is_waited_for_and_one_that_never_ends_is_not() {
        let mut question = Question::new("?".into(), TIMEOUT);
        assert_eq!(question.line_left(Instant::now(), true), LINE_PAUSE_MAX);
        assert_eq!(question.line_left(Instant::now(), false), SILENCE);
        question.is_held();
        for _ in 0..9 {
            tokio::time::advance(TIMEOUT / 10).await;
            assert!(!question.line_left(Instant::now(), true).is_zero());
        }
        tokio::time::advance(TIMEOUT / 10).await;
        assert!(question.line_left(Instant::now(), true).is_zero());
        question.is_asked();
        assert_eq!(question.line_left(Instant::now(), true), LINE_PAUSE_MAX);
    }
}
