//! Modbus RTU, on a port or over TCP: one line a bus, and no way to tell answers apart but their shape.
//!
//! An RTU answer names neither the register nor the request it answers. So one that comes after its
//! time looks like the answer to the next request, and the value of one register becomes another's.
//! Against that stand three walls:
//!
//! 1. Before a request the line must have been silent for 3.5 characters (and a device's `gap`). After a
//!    failure it is listened to for as long as the answer takes on the wire and an adapter may hold it back;
//!    what comes meanwhile is forgotten. That is bounded, so that a dead device does not cost the others
//!    a second timeout.
//! 2. While a unit may still owe an answer it is asked what no owed answer can pass for, if need be a *probe* that
//!    serves nobody (`owed`). A request whose connection broke is owed as one that was not answered: a converter may have
//!    passed it on. A unit that answers no probe is *knocked* at: asked for what is wanted of it, and believed the second
//!    time, if the line was silent in between for as long as any answer may take.
//! 3. An answer with another unit, function or length than asked for is passed over (see `wire`), and
//!    what is let through is held against the request once more.
//! 4. An answer beside which another one came, or bytes that are no noise, before it or before a frame could not go on any more behind it, is
//!    not believed: a converter may have sent an old one in front of the new. Its unit then owes one. Where copies of answers
//!    come alone, a while after them, each is waited for (`copies`).
//!
//! A new master knows nothing of what was asked before its time, by an earlier run or before a reload: it listens for
//! as long as an answer may take, at most [`LISTEN_MAX`], before its first request, and takes every unit to owe an answer.
//!
//! Limits: an old answer that a converter sends once more by itself, in time and in the new one's place, is an answer to
//! anybody, if it has the same unit, function and length, and none came before where it is known for what it is. A probe costs one transaction after a failure, and one or two a unit and table after a start; to knock costs
//! two more timeouts. What a unit sends later than two timeouts after a start is one answer at most. Where others talk all
//! the time, who answers no probe is not believed.

use std::time::{Duration, Instant};

use tjern_readings::reading::Cause;
use tokio_modbus::client::rtu;
use tokio_modbus::slave::{Slave, SlaveContext};
use tracing::{debug, warn};

use super::answering::Answering;
use super::far_line::FarLine;
use super::owed::Debts;
use super::parked::Parked;
use super::stats::WireStats;
use super::timing::Line;
use super::transport::{Answer, Failure, ReadRequest};
use super::wire::{Progress, now};
use super::{Manners, Retry};

mod asking;
mod canary;
mod place;
mod waiting;

#[cfg(test)]
use canary::Careless;
use place::Connected;
pub use place::RtuPlace;
use waiting::drain;

/// However long the timeout is: a new master listens for so long before its first request, and no longer.
const LISTEN_MAX: Duration = Duration::from_secs(2);

/// The data of the longest answer.
const ANSWER_BYTES_MAX: u16 = 250;

/// So few bytes are no answer of anybody: noise, as drivers make it that are switched on and off.
const NOISE_MAX: usize = 4;

/// The client's end of an RS-485 line.
#[derive(Debug)]
pub struct RtuMaster {
    place: RtuPlace,
    /// Where a server passes on what is asked: nobody else on this machine asks there.
    far_line: FarLine,
    speed: Line,
    manners: Manners,
    line: Parked<Connected>,
    retry: Retry,
    answering: Answering,
    pub(super) owed: Debts,
    /// So long after its answer a copy of it may come, as far as was noticed.
    copies_after: Option<Duration>,
    /// Whether the last read asked for more than what it was asked for.
    was_probed: bool,
    /// Bytes that came in the last exchange and were not its answer.
    strange: usize,
    quiet_until: Instant,
    last_unit: Option<u8>,
    echo_told: bool,
    doubt_told: bool,
    stats: WireStats,
    #[cfg(test)]
    pub(super) careless: Careless,
    #[cfg(test)]
    pub(crate) dial: Option<super::faults::Dial>,
}

impl RtuMaster {
    /// A client on a line. Nothing is opened yet.
    #[must_use]
    pub fn new(place: RtuPlace, manners: Manners) -> Self {
        let speed = place.line();
        let listens = manners.timeout.min(LISTEN_MAX) + drain(speed, ANSWER_BYTES_MAX, manners.timeout);
        Self {
            speed,
            line: Parked::new(manners.connection.idle_close),
            place,
            far_line: FarLine::default(),
            manners,
            retry: Retry::default(),
            answering: Answering::default(),
            owed: Debts::of_a_strange_line(),
            copies_after: None,
            was_probed: false,
            strange: 0,
            quiet_until: now() + listens,
            last_unit: None,
            echo_told: false,
            doubt_told: false,
            stats: WireStats::default(),
            #[cfg(test)]
            careless: Careless::default(),
            #[cfg(test)]
            dial: None,
        }
    }

    /// The same for one that asks a unit for what is wanted of it before any probe.
    pub(super) fn asking_first(self) -> Self {
        Self { owed: self.owed.asking_first(), ..self }
    }

    /// The same for a line on which nothing was asked before.
    #[cfg(test)]
    pub(super) fn on_a_fresh_line(self) -> Self {
        Self { owed: Debts::of_a_fresh_line(), quiet_until: now(), ..self }
    }

    /// How long the line will be left alone from now on.
    pub(super) fn quiet_left(&self) -> Duration {
        self.quiet_until.saturating_duration_since(now())
    }

    /// Whether the last read took more than its own request: it says nothing about how long its device takes.
    pub(super) const fn was_probed(&self) -> bool {
        self.was_probed
    }

    /// What happens on the line, counted.
    #[must_use]
    pub fn stats(&self) -> WireStats {
        self.stats.clone()
    }

    /// The next request connects, whoever hung up a moment ago.
    pub(super) fn try_at_once(&mut self) {
        self.retry.succeeded();
    }

    /// What a new connection costs before its first request; nothing while there is one, or on a port.
    pub(super) fn connect_pause(&self) -> Duration {
        if self.line.is_there() { Duration::ZERO } else { self.manners.connection.pause }
    }

    /// One request and its answer: at most the bus's timeout and the time on the wire, a probe and
    /// the silence before them.
    ///
    /// # Errors
    /// [`Failure`] with the cause that stands in the reading.
    pub async fn read(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        self.was_probed = false;
        let reused = self.is_reused();
        match self.ask(unit, request).await {
            // A server may close a connection that was idle for long: that says nothing about it.
            Err(failure) if reused && failure.cause == Cause::Unreachable && !failure.is_babble() => {
                self.ask(unit, request).await
            }
            other => other,
        }
    }

    fn is_reused(&self) -> bool {
        self.place.is_server() && self.line.is_there()
    }

    async fn exchange(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        let reused = self.is_reused();
        let mut line = match self.line.take() {
            Some(line) => line,
            None => self.open().await?,
        };
        line.wire.remember_copies(self.copies_after);
        // Also where it ends before its request is sent: what is then known is of this exchange and of no other.
        line.wire.begin(self.silence(unit), self.manners.timeout);
        let result = match line.wire.forget_until(self.quiet_until).await {
            Ok(_) => self.transact(&mut line, unit, request).await,
            Err(error) => Err(Failure::new(Cause::Unreachable, error.to_string())),
        };
        self.last_unit = Some(unit);
        let progress = line.wire.progress();
        self.note_passed(progress);
        self.strange = progress.strange;
        self.copies_after = progress.copies_after;
        if result.as_ref().is_err_and(Failure::is_doubt) {
            self.note_doubt();
        }
        // Noise that harmed no answer yet is told too.
        if let Some(errors) = line.wire.line_errors() {
            self.stats.set_hardware(errors);
        }
        match &result {
            // It is there: to open it anew would not silence it.
            Err(failure) if failure.is_babble() => {}
            Err(failure) if failure.cause == Cause::Unreachable => {
                self.lost(unit, request, progress.may_be_sent && !self.forgets_sent());
                // The line is closed at once, so that an adapter that is plugged in again gets its old name.
                drop(line);
                return Err(self.hung_up(unit, failure, reused));
            }
            Err(failure) if !failure.is_exception() => {
                self.lost(unit, request, true);
                if failure.cause == Cause::Timeout {
                    self.answering.was_silent(unit);
                }
            }
            _ => {
                self.retry.succeeded();
                self.answering.answered(unit);
            }
        }
        self.line.park(line);
        result
    }

    /// The line was closed. A server that was connected to anew and closes again is not there, if that is not one unit's doing.
    fn hung_up(&mut self, unit: u8, failure: &Failure, reused: bool) -> Failure {
        let gone = Failure::new(Cause::Unreachable, format!("{} is gone: {}", self.place, failure.detail));
        let gone = if self.place.is_server() { gone.by_hang_up() } else { gone };
        if self.place.is_server() && self.answering.hung_up(&[unit]) {
            return gone.of_unit();
        }
        // One that was idle for long may be closed at any time.
        if !reused {
            self.retry.failed();
        }
        gone
    }

    /// No answer came to what may be on the wire: one may still come, over this connection or another.
    fn lost(&mut self, unit: u8, request: ReadRequest, may_be_sent: bool) {
        if may_be_sent {
            let was_silent = self.strange <= NOISE_MAX;
            self.owed.lost(unit, request, (was_silent, now()));
            self.quiet_until = now() + self.drain(request);
        }
    }

    async fn transact(&self, line: &mut Connected, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        line.wire.begin(self.silence(unit), self.manners.timeout);
        let mut context = line.context.take().unwrap_or_else(|| rtu::attach(line.wire.clone()));
        context.set_slave(Slave(unit));
        let mut result = self.wait(&line.wire, &mut context, request).await;
        if self.drains() && result.as_ref().err().is_none_or(Failure::is_exception) {
            // Until no frame goes on. The rest of the silence is for what the answer says: it would be lost to the line.
            let silence = Duration::from_micros(self.speed.break_us());
            line.wire.hear_out(silence, now() + self.drain(request)).await;
            result = self.believed(result, line.wire.progress());
        }
        if result.as_ref().err().is_none_or(Failure::is_exception) {
            line.context = Some(context);
        }
        result
    }

    /// The answer, if nothing came beside it that may be the answer as well.
    fn believed(&self, result: Result<Answer, Failure>, progress: Progress) -> Result<Answer, Failure> {
        let noise = usize::try_from(progress.passed.noise).unwrap_or(usize::MAX).saturating_add(progress.unread);
        if self.believes_any() || !progress.has_rival && !progress.notices_copies && noise <= NOISE_MAX {
            return result;
        }
        let beside = match progress {
            Progress { has_rival: true, .. } => "another answer".to_owned(),
            Progress { notices_copies: true, .. } => "a copy of an earlier answer".to_owned(),
            _ => format!("{noise} bytes of no frame"),
        };
        Err(Failure::new(Cause::Malformed, format!("{beside} came with the answer: neither is believed")).by_doubt())
    }

    /// Counted each time, told once.
    fn note_doubt(&mut self) {
        self.stats.doubted();
        if !std::mem::replace(&mut self.doubt_told, true) {
            warn!(line = %self.place, "more than the answer came, and it is not believed; hint: a converter that repeats answers, another master, or noise on the line? `line_errors_total` counts on");
        }
    }

    fn note_passed(&mut self, progress: Progress) {
        let mut passed = progress.passed;
        passed.noise += progress.unread as u64;
        self.stats.passed(passed);
        progress.babble.into_iter().for_each(|bytes| self.stats.never_silent(bytes));
        if passed.echoes > 0 && !self.manners.echo && !self.echo_told {
            warn!(line = %self.place, "the line echoes what is sent; hint: write `echo = true` on the bus");
            self.echo_told = true;
        }
        if passed.strangers + passed.noise > 0 {
            debug!(line = %self.place, strangers = passed.strangers, noise = passed.noise, "passed over");
        }
    }
}

#[cfg(test)]
#[path = "rtu/tests.rs"]
mod tests;
