//! How long an RTU line is waited for: for an answer, for the silence before a request, for what comes too late.

use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tjern_readings::reading::Cause;
use tokio_modbus::client::Context;

use super::super::timing::{ANSWER_CHARS, Line, REQUEST_CHARS};
use super::super::transport::{Answer, Failure, ReadRequest, call};
use super::super::wire::{LUMP, Progress, Wire, now};
use super::RtuMaster;

impl RtuMaster {
    /// The answer, or why none came: its time is over, or as many bytes as it has came and are none.
    pub(super) async fn wait(
        &self,
        wire: &Wire,
        context: &mut Context,
        request: ReadRequest,
    ) -> Result<Answer, Failure> {
        let request_us = self.speed.chars_us(REQUEST_CHARS) + self.speed.answer_us(&request);
        let limit = self.manners.timeout + Duration::from_micros(request_us);
        // The line's thread gives up by itself; this is for one that hangs in the kernel.
        let never_sent = now() + self.silence_max() + self.manners.timeout * 2 + limit;
        let mut answer = pin!(call(context, request));
        let mut timer = pin!(tokio::time::sleep_until(never_sent.into()));
        std::future::poll_fn(|task| {
            loop {
                if let Poll::Ready(result) = answer.as_mut().poll(task) {
                    return Poll::Ready(result);
                }
                let progress = wire.progress();
                let due = match progress.sent {
                    None => never_sent,
                    Some(sent) if progress.is_damaged => (sent + limit).min(progress.active + LUMP),
                    Some(sent) => sent + limit,
                };
                if now() >= due {
                    return Poll::Ready(Err(no_answer(progress, self.manners.timeout)));
                }
                timer.as_mut().reset(due.into());
                ready!(timer.as_mut().poll(task));
            }
        })
        .await
    }

    /// The silence before a request: 3.5 characters, and what this device and the last one want. Where answers were owed,
    /// more may follow the one that was heard, with pauses in between as an adapter makes them.
    pub(super) fn silence(&self, unit: u8) -> Duration {
        if !self.drains() {
            return Duration::ZERO;
        }
        let gap = |unit: &u8| self.manners.gaps.get(unit).copied().unwrap_or_default();
        let gaps = gap(&unit).max(self.last_unit.as_ref().map(gap).unwrap_or_default());
        let lumps = if self.was_probed { LUMP } else { Duration::ZERO };
        gaps.max(lumps).max(Duration::from_micros(self.speed.silence_us()))
    }

    pub(super) fn silence_max(&self) -> Duration {
        let gap = self.manners.gaps.values().max().copied().unwrap_or_default();
        gap.max(LUMP).max(Duration::from_micros(self.speed.silence_us()))
    }

    /// How long the line is listened to after a failure: an answer that had begun is over then, also
    /// where an adapter held it back. Never as long as the timeout once more.
    pub(super) fn drain(&self, request: ReadRequest) -> Duration {
        if !self.drains() {
            return Duration::ZERO;
        }
        drain(self.speed, request.answer_bytes(), self.manners.timeout)
    }
}

/// How long an answer with so much data is on its way once it has begun: no longer than the timeout.
pub(super) fn drain(speed: Line, bytes: u16, timeout: Duration) -> Duration {
    let chars_us = speed.chars_us(ANSWER_CHARS + u64::from(bytes));
    (Duration::from_micros(chars_us) + LUMP).min(timeout)
}

/// What a time limit that passed means: silence, or an answer that could not be read.
pub(super) fn no_answer(progress: Progress, timeout: Duration) -> Failure {
    let strangers = progress.passed.strangers;
    match (progress.sent, progress.unread) {
        (None, _) => Failure::new(Cause::Unreachable, "the port took no request"),
        (Some(_), 0) if strangers > 0 => {
            Failure::new(Cause::Timeout, format!("no answer within {timeout:?}, and {strangers} to something else"))
        }
        (Some(_), 0) => Failure::new(Cause::Timeout, format!("no answer within {timeout:?}")),
        (Some(_), unread @ 1..5) => Failure::new(Cause::Malformed, format!("only {unread} bytes came")),
        (Some(_), unread) => Failure::new(Cause::Crc, format!("{unread} bytes came, and no frame with a right CRC")),
    }
}
