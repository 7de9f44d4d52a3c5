//! The actor of a bus of text lines.
//!
//! A device that talks by itself is listened to all the time. At a slot, the newest line of a point
//! stands for it if it is no older than the period and no slot had it; if there is none, the first line
//! within the slot's patience does (`point`); after that the reading is missing. A device that wants to be asked (`poll`)
//! is asked at the slot, and lines from before do not count; `question` says when it may be. Where its first answer of a slot does
//! not come, or says nothing, it is asked once more. Lines that say what time they are from make
//! readings when they come (`point`).
//!
//! A device does not wait for somebody to listen: what comes before a new connection was silent for a while is the rest
//! of a line, and no value (`lines::pauses`).

#[cfg(test)]
mod faults;
pub(super) mod point;
mod print_out;
mod question;
mod rejected;
mod remembered;
pub(crate) mod standing;
pub(super) mod stored_times;
mod stream;
#[cfg(test)]
mod tests;
mod times;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tjern_readings::reading::Reading;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::BusContext;
use super::line_news::{LineNews, News};
use super::point::{Limits, PointState};
use super::state::{BusState, DeviceCell, LineState};
use crate::config::{LinePlace, LinePoint};
use crate::grid::steps::{Step, Steps};
use crate::grid::{LOOK_AGAIN, wait};
use crate::lines::counters::{LineCounters, LineFate};
use crate::lines::pauses::{LINE_PAUSE_MAX, line_pause, silence_at_start};
use crate::lines::{Framing, LineSplitter};
use crate::modbus::Retry;
#[cfg(test)]
use crate::modbus::faults::{Broken, is_broken};
use point::{DeviceChecksums, LinePointState, Now};
use print_out::{End, Heard};
use question::Question;
use rejected::RejectedLines;
use stream::{Place, Stream, open, receive};
pub(super) use times::Times;

/// What is received between two questions is taken in so many pieces at most.
const RECEIVED_MAX: usize = 64;

/// Two questions and the silences after them take so many timeouts: shorter periods leave no time for a second one.
const AGAIN_PERIODS: u32 = 5;

/// How far a device's clock may be ahead of ours while ours is not known: the box may have been off so long.
const UNKNOWN_AHEAD_US: i64 = 366 * 86_400 * 1_000_000;

pub(super) struct Actor {
    name: String,
    place: LinePlace,
    question: Option<Question>,
    stream: Option<Box<dyn Stream>>,
    splitter: LineSplitter,
    heard_at: Instant,
    /// Nothing was heard since the line was opened: what comes first is half a line, unless silence until then is heard.
    half_until: Option<Instant>,
    retry: Retry,
    line_news: LineNews,
    points: Vec<LinePointState>,
    times: Times,
    limits: Limits,
    steps: Steps,
    counters: Arc<LineCounters>,
    rejected: RejectedLines,
    context: BusContext,
    state: Arc<BusState>,
    #[cfg(test)]
    dial: Option<crate::modbus::faults::Dial>,
}

/// The points' states, and the devices that say them, in the order of the configuration.
fn points_and_devices(
    points: Vec<LinePoint>,
    limits: Limits,
    (context, times): (&BusContext, &mut Times),
) -> (Vec<LinePointState>, Vec<Arc<DeviceCell>>) {
    let (mut states, mut devices) = (Vec::with_capacity(points.len()), Vec::new());
    let mut points = points.into_iter().peekable();
    while let Some(first) = points.next() {
        let device = first.device.clone();
        let own: Vec<LinePoint> =
            std::iter::once(first).chain(std::iter::from_fn(|| points.next_if(|next| next.device == device))).collect();
        let shown = own.iter().map(|point| PointState::shown(&point.common)).collect();
        let (cell, checksums) = (DeviceCell::new(&device, None, shown), DeviceChecksums::default());
        for (place, point) in own.into_iter().enumerate() {
            let kept = times.take(&point.common.sensor);
            let shared = ((Arc::clone(&cell), place), checksums.clone());
            states.push(LinePointState::new(point, shared, limits, context, kept));
        }
        devices.push(cell);
    }
    (states, devices)
}

impl Actor {
    pub(super) fn new(
        name: String,
        (place, poll, framing): (LinePlace, Option<String>, Framing),
        (points, mut times): (Vec<LinePoint>, Times),
        limits: Limits,
        context: BusContext,
    ) -> Self {
        let (points, devices) = points_and_devices(points, limits, (&context, &mut times));
        let state = context.states.begin(&name, "text-lines", devices);
        let counters = Arc::default();
        state.count_lines(&counters);
        Self {
            name,
            place,
            question: poll.map(|text| Question::new(text, limits.timeout)),
            stream: None,
            splitter: LineSplitter::new(framing),
            heard_at: Instant::now(),
            half_until: None,
            retry: Retry::default(),
            line_news: LineNews::default(),
            points,
            times,
            limits,
            steps: Steps::default(),
            counters,
            rejected: RejectedLines::default(),
            context,
            state,
            #[cfg(test)]
            dial: None,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.context.stop.clone();
        while !stop.is_cancelled() {
            self.state.turn();
            self.connect().await;
            let readings = self.turn().await;
            self.context.store(readings).await;
            self.times.look(&self.points).await;
            let pause = self.pause();
            let received = tokio::select! {
                () = stop.cancelled() => None,
                () = tokio::time::sleep(pause) => None,
                received = receive(&mut self.stream) => Some(received),
            };
            if let Some(received) = received {
                let readings = self.take(received);
                self.context.store(readings).await;
            }
        }
        let readings = self.settle(Some(End::Cut));
        self.context.store(readings).await;
        self.times.end(&self.points).await;
        debug!(bus = self.name, counts = ?self.counters.counts(), "bus stopped");
    }

    async fn connect(&mut self) {
        if self.stream.is_some() || !self.retry.may_try() {
            return;
        }
        let began = Instant::now();
        match self.open().await {
            Ok(stream) => {
                self.splitter.begin_anew();
                let may_be_half = !self.points.iter().all(LinePointState::is_sentence);
                let silence = silence_at_start(&self.place, began.elapsed());
                self.half_until = may_be_half.then(|| Instant::now() + silence);
                self.stream = Some(stream);
                self.question.iter_mut().for_each(|question| question.opened(silence));
                self.note_line(None);
            }
            Err(error) => self.lost(&error),
        }
    }

    async fn open(&mut self) -> io::Result<Box<dyn Stream>> {
        #[cfg(test)]
        if let Some(dial) = &self.dial {
            return Ok(Box::new(dial.open()));
        }
        open(&self.place).await
    }

    fn lost(&mut self, error: &io::Error) {
        (self.stream, self.half_until) = (None, None);
        self.points.iter_mut().for_each(LinePointState::forget);
        self.retry.failed();
        self.note_line(Some(error));
    }

    fn note_line(&mut self, error: Option<&io::Error>) {
        let place = Place(&self.place);
        let line = error.map_or(LineState::Up, |error| LineState::Missing(format!("{place}: {error}")));
        match (self.line_news.note(&line), error) {
            (News::Nothing, _) => return,
            (News::Known, _) => {}
            (News::OtherReason, Some(error)) => {
                warn!(bus = self.name, %place, "trying again, for another reason now: {error}");
            }
            (_, Some(error)) => warn!(bus = self.name, %place, "not reachable, trying again: {error}"),
            (_, None) => info!(bus = self.name, %place, "reachable"),
        }
        self.state.set_line(line);
    }

    /// Begins the slots that are due, and ends those that have what they need or waited long enough.
    async fn turn(&mut self) -> Vec<Reading> {
        let now_us = self.context.clock.now_us();
        self.follow(now_us);
        let mut readings = self.hear_silence();
        readings.extend(self.hear_what_came());
        readings.extend(self.hear_the_end());
        if self.may_begin(now_us) {
            if self.question.is_some() {
                let is_silent = self.heard_at.elapsed() >= LINE_PAUSE_MAX.min(self.limits.timeout);
                readings.extend(self.settle(Some(if is_silent { End::Whole } else { End::Cut })));
            }
            self.begin(now_us);
            self.ask().await;
        }
        let now = self.now();
        let limits = self.limits;
        let mut unanswered = false;
        for point in &mut self.points {
            let patience = point.patience(limits.timeout, now.asked);
            let waited = point.waiting.as_ref().is_some_and(|(_, _, since)| since.elapsed() >= patience);
            readings.extend(point.turn(&self.name, now, limits));
            unanswered |= waited && point.waiting.is_none();
        }
        if let Some(question) = self.question.as_mut().filter(|_| unanswered) {
            question.was_not_answered();
        }
        readings
    }

    fn now(&self) -> Now {
        let period_us = self.points.iter().map(|point| point.state.schedule.grid().every_us()).min();
        let every = Duration::from_micros(period_us.unwrap_or_default().unsigned_abs());
        Now {
            is_there: self.stream.is_some(),
            asked: self.question.is_some(),
            may_ask_again: every >= self.limits.timeout * AGAIN_PERIODS,
            time_us: self.context.clock.now_us(),
        }
    }

    /// Where the clock was set, points go on from the time that it says.
    fn follow(&mut self, now_us: i64) {
        let step = self.steps.look(now_us, Instant::now());
        for point in &mut self.points {
            if let Some(Step::Forward(by_us)) = step {
                point.state.schedule.follow_step_forward(now_us, by_us);
            }
            if point.follow_step_back(now_us) {
                let sensor = point.state.sensor.as_str();
                warn!(bus = self.name, sensor, "the clock was set back by more than a period");
            }
        }
    }

    /// What silence says, if there was one: a line that begins now is whole, and one of a fixed length that began ended. What
    /// came while nobody looked was no silence: where the box was busy, a line's second half may wait in the port's buffer.
    fn hear_silence(&mut self) -> Vec<Reading> {
        let is_started = self.half_until.is_some_and(|until| Instant::now() >= until);
        let is_paused = self.pause_left().is_some_and(|left| left.is_zero());
        if !is_started && !is_paused {
            return Vec::new();
        }
        if let Some(received) = receive(&mut self.stream).now_or_never() {
            return self.take(received);
        }
        if is_started {
            self.half_until = None;
        }
        if is_paused {
            let held = self.splitter.pause();
            return self.hear(held);
        }
        Vec::new()
    }

    /// What the end of a print-out says, if it ended: lines whose times come twice wait for it.
    fn hear_the_end(&mut self) -> Vec<Reading> {
        if self.end_left().is_none_or(|left| !left.is_zero()) {
            return Vec::new();
        }
        // What came while nobody looked was no silence.
        match receive(&mut self.stream).now_or_never() {
            Some(received) => self.take(received),
            None => self.settle(Some(End::Whole)),
        }
    }

    /// How long it is until silence says that a print-out ended.
    fn end_left(&self) -> Option<Duration> {
        let is_printing = self.points.iter().any(LinePointState::is_printing);
        is_printing.then(|| self.limits.timeout.saturating_sub(self.heard_at.elapsed()))
    }

    /// What became of lines that waited for those after them; all of them where a print-out ends.
    fn settle(&mut self, end: Option<End>) -> Vec<Reading> {
        let (heard, mut fate, mut readings) = (self.heard(), LineFate::default(), Vec::new());
        for point in &mut self.points {
            readings.extend(point.settle(&self.name, end, heard, &mut fate));
        }
        self.counters.note_values(fate);
        if let Some(moments) = fate.undecided_at {
            self.rejected.note(&self.name, &moments.to_string(), fate);
        }
        readings
    }

    /// How long it is until a pause says something about what came.
    fn pause_left(&self) -> Option<Duration> {
        // Where it is asked the next question tells answers apart, and a device may think within one.
        let timeout = self.limits.timeout;
        let pause = if self.question.is_some() { timeout } else { line_pause(&self.place, timeout) };
        self.splitter.waits_for_a_pause().then(|| pause.saturating_sub(self.heard_at.elapsed()))
    }

    /// What was received before a question is no answer to it, and is taken before it is asked.
    fn hear_what_came(&mut self) -> Vec<Reading> {
        let mut readings = Vec::new();
        if self.question.is_none() || !self.is_due() {
            return readings;
        }
        #[cfg(test)]
        if is_broken(Broken::Leftovers) {
            return readings;
        }
        for _ in 0..RECEIVED_MAX {
            let Some(received) = receive(&mut self.stream).now_or_never() else { break };
            readings.extend(self.take(received));
        }
        readings
    }

    fn is_due(&self) -> bool {
        let now_us = self.context.clock.now_us();
        self.points.iter().any(|point| point.waiting.is_none() && point.state.schedule.due(now_us).is_some())
    }

    /// Whether slots may begin now: at once where nothing is asked, or nobody is there to be.
    fn may_begin(&mut self, now_us: i64) -> bool {
        let held = self.held();
        let is_due = |point: &LinePointState| point.waiting.is_none() && point.state.schedule.due(now_us).is_some();
        let (Some(question), true) = (&mut self.question, self.stream.is_some()) else { return true };
        let asks = self.points.iter().any(is_due);
        if asks && question.quiet_left().is_zero() && held.is_some_and(|left| !left.is_zero()) {
            question.is_held();
        }
        asks && held == Some(Duration::ZERO)
    }

    /// How long the question is held back; `None` while it waits for an answer.
    fn held(&self) -> Option<Duration> {
        let Some(question) = self.question.as_ref().filter(|_| self.stream.is_some()) else {
            return Some(Duration::ZERO);
        };
        if self.points.iter().any(|point| point.waiting.is_some()) {
            return None;
        }
        let line_left = question.line_left(self.heard_at, self.splitter.has_begun());
        #[cfg(test)]
        let line_left = if is_broken(Broken::Leftovers) { Duration::ZERO } else { line_left };
        Some(question.quiet_left().max(line_left))
    }

    fn begin(&mut self, now_us: i64) {
        let since = Instant::now();
        let asks = self.question.is_some();
        for point in self.points.iter_mut().filter(|point| point.waiting.is_none()) {
            if let Some(due) = point.state.schedule.due(now_us) {
                point.waiting = Some((due, now_us, since));
                if asks {
                    point.forget();
                }
            }
        }
    }

    /// Sends what the device wants to be sent. Half a line that is there belongs to no answer.
    async fn ask(&mut self) {
        let (Some(question), Some(stream)) = (&mut self.question, &mut self.stream) else { return };
        question.is_asked();
        let may_go_on = !question.line_left(self.heard_at, true).is_zero();
        #[cfg(test)]
        let kept = is_broken(Broken::Leftovers).then(|| self.splitter.clone());
        self.splitter.give_up(may_go_on);
        #[cfg(test)]
        kept.into_iter().for_each(|kept| self.splitter = kept);
        let sent = timeout(self.limits.timeout, stream.write_all(question.text.as_bytes())).await;
        let error = match sent {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.lost(&error);
    }

    fn take(&mut self, received: io::Result<Vec<u8>>) -> Vec<Reading> {
        let bytes = match received {
            Ok(bytes) => bytes,
            Err(error) => {
                // The end of a connection is one of what came over it, too: some make one for each print-out.
                let is_whole = error.kind() == io::ErrorKind::UnexpectedEof && !self.splitter.has_begun();
                let held = self.splitter.pause();
                let mut readings = self.hear(held);
                readings.extend(self.settle(Some(if is_whole { End::Whole } else { End::Cut })));
                self.lost(&error);
                return readings;
            }
        };
        // It was silent, or the box was.
        let ended = (self.heard_at.elapsed() >= self.limits.timeout).then_some(End::Cut);
        let mut readings = ended.map_or_else(Vec::new, |end| self.settle(Some(end)));
        if self.half_until.take().is_some() {
            self.splitter.begin_in_the_middle();
        }
        // A server that accepts and closes is not there: only one that sends something is.
        self.retry.succeeded();
        self.heard_at = Instant::now();
        let lines = self.splitter.feed(&bytes);
        readings.extend(self.hear(lines));
        readings
    }

    fn hear(&mut self, lines: Vec<String>) -> Vec<Reading> {
        let heard = self.heard();
        let mut readings = Vec::new();
        for line in lines {
            let mut fate = LineFate::default();
            let name = &self.name;
            readings.extend(self.points.iter_mut().filter_map(|point| point.take(name, &line, heard, &mut fate)));
            self.counters.note(fate);
            self.rejected.note(&self.name, &line, fate);
        }
        self.counters.set_dropped(self.splitter.dropped());
        readings.extend(self.settle(None));
        readings
    }

    /// What a device's own time is compared with. While ours is not known, a device's is better.
    fn heard(&self) -> Heard {
        let now_us = Some(self.context.clock.now_us()).filter(|_| self.context.clock.is_set());
        let bound_us = now_us.unwrap_or_else(|| self.context.clock.now_us().saturating_add(UNKNOWN_AHEAD_US));
        Heard { bound_us, now_us, asked: self.question.is_some() }
    }

    fn pause(&self) -> Duration {
        let now_us = self.context.clock.now_us();
        let held = self.held();
        let waits = self.points.iter().filter_map(|point| match (&point.waiting, point.state.schedule.due(now_us)) {
            (Some((_, _, since)), _) => {
                let patience = point.patience(self.limits.timeout, self.question.is_some());
                Some((*since + patience).saturating_duration_since(Instant::now()))
            }
            (None, Some(_)) => held,
            (None, None) => Some(wait(point.state.schedule.next_us(now_us), now_us)),
        });
        let retry = self.retry.until().filter(|_| self.stream.is_none());
        let retry = retry.map(|until| until.saturating_duration_since(Instant::now()));
        let silence = self.half_until.map(|until| until.saturating_duration_since(Instant::now()));
        waits
            .chain(retry)
            .chain(silence)
            .chain(self.pause_left())
            .chain(self.end_left())
            .min()
            .unwrap_or(LOOK_AGAIN)
            .min(LOOK_AGAIN)
    }
}
