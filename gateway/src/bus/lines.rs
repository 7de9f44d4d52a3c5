//! The actor of a bus of text lines.
//!
//! A device that talks by itself is listened to all the time. At a slot, the newest line of a point
//! stands for it if it is no older than the period; if there is none, the first line within the
//! bus's timeout does; after that the reading is missing. A device that wants to be asked (`poll`)
//! is asked at the slot, and lines from before do not count. Lines that say what time they are from make
//! readings when they come (`point`).

pub(super) mod point;
mod rejected;
mod stream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::reading::Reading;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::BusContext;
use super::point::Limits;
use super::state::{BusState, DeviceCell, LineState};
use crate::config::{LinePlace, LinePoint};
use crate::grid::{LOOK_AGAIN, wait};
use crate::lines::counters::{LineCounters, LineFate};
use crate::lines::{Framing, LineSplitter};
use crate::modbus::Retry;
use point::LinePointState;
use rejected::RejectedLines;
use stream::{Place, Stream, open, receive};

/// How far a device's clock may be ahead of ours while ours is not known: the box may have been off so long.
const UNKNOWN_AHEAD_US: i64 = 366 * 86_400 * 1_000_000;

pub(super) struct Actor {
    name: String,
    place: LinePlace,
    poll: Option<String>,
    stream: Option<Box<dyn Stream>>,
    splitter: LineSplitter,
    heard_at: Instant,
    retry: Retry,
    line_is_there: Option<bool>,
    points: Vec<LinePointState>,
    limits: Limits,
    counters: Arc<LineCounters>,
    rejected: RejectedLines,
    context: BusContext,
    state: Arc<BusState>,
}

/// The points' states, and the devices that say them, in the order of the configuration.
fn points_and_devices(
    points: Vec<LinePoint>,
    limits: Limits,
    context: &BusContext,
) -> (Vec<LinePointState>, Vec<Arc<DeviceCell>>) {
    let (mut states, mut devices) = (Vec::new(), Vec::<(String, Vec<_>)>::new());
    for point in points {
        let device = point.device.clone();
        let state = LinePointState::new(point, limits, context);
        match devices.last_mut().filter(|(name, _)| *name == device) {
            Some((_, cells)) => cells.push(state.state.cell()),
            None => devices.push((device, vec![state.state.cell()])),
        }
        states.push(state);
    }
    (states, devices.into_iter().map(|(name, cells)| DeviceCell::new(&name, None, cells)).collect())
}

impl Actor {
    pub(super) fn new(
        name: String,
        (place, poll, framing): (LinePlace, Option<String>, Framing),
        points: Vec<LinePoint>,
        limits: Limits,
        context: BusContext,
    ) -> Self {
        let (points, devices) = points_and_devices(points, limits, &context);
        let state = context.states.begin(&name, "text-lines", devices);
        let counters = Arc::default();
        state.count_lines(&counters);
        Self {
            name,
            place,
            poll,
            stream: None,
            splitter: LineSplitter::new(framing),
            heard_at: Instant::now(),
            retry: Retry::default(),
            line_is_there: None,
            points,
            limits,
            counters,
            rejected: RejectedLines::default(),
            context,
            state,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.context.stop.clone();
        while !stop.is_cancelled() {
            self.state.turn();
            self.connect().await;
            let readings = self.turn().await;
            self.context.store(readings).await;
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
        debug!(bus = self.name, counts = ?self.counters.counts(), "bus stopped");
    }

    async fn connect(&mut self) {
        if self.stream.is_some() || !self.retry.may_try() {
            return;
        }
        match open(&self.place).await {
            Ok(stream) => {
                self.splitter.clear();
                self.stream = Some(stream);
                self.note_line(None);
            }
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &io::Error) {
        self.stream = None;
        self.points.iter_mut().for_each(LinePointState::forget);
        self.retry.failed();
        self.note_line(Some(error));
    }

    fn note_line(&mut self, error: Option<&io::Error>) {
        let changed = self.line_is_there.replace(error.is_none()) != Some(error.is_none());
        if !changed {
            return;
        }
        match error {
            Some(error) => {
                self.state.set_line(LineState::Missing(format!("{}: {error}", Place(&self.place))));
                warn!(bus = self.name, place = %Place(&self.place), "not reachable, trying again: {error}");
            }
            None => {
                self.state.set_line(LineState::Up);
                info!(bus = self.name, place = %Place(&self.place), "reachable");
            }
        }
    }

    /// Begins the slots that are due, and ends those that have what they need or waited long enough.
    async fn turn(&mut self) -> Vec<Reading> {
        let now_us = self.context.clock.now_us();
        let mut asks = false;
        for point in &mut self.points {
            if point.state.schedule.follow_step_back(now_us) {
                warn!(
                    bus = self.name,
                    sensor = point.state.sensor.as_str(),
                    "the clock was set back by more than a period"
                );
            }
            if point.waiting.is_none()
                && let Some(due) = point.state.schedule.due(now_us)
            {
                point.waiting = Some((due, now_us, Instant::now()));
                asks = true;
            }
        }
        if asks {
            self.ask().await;
        }
        let (is_there, asked) = (self.stream.is_some(), self.poll.is_some());
        let (limits, answered_us) = (self.limits, self.context.clock.now_us());
        let name = &self.name;
        self.points.iter_mut().filter_map(|point| point.turn(name, (is_there, asked), limits, answered_us)).collect()
    }

    /// Sends what the device wants to be sent.
    async fn ask(&mut self) {
        let (Some(text), Some(stream)) = (&self.poll, &mut self.stream) else { return };
        let sent = timeout(self.limits.timeout, stream.write_all(text.as_bytes())).await;
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
                self.lost(&error);
                return Vec::new();
            }
        };
        // A server that accepts and closes is not there: only one that sends something is.
        self.retry.succeeded();
        if self.heard_at.elapsed() >= self.limits.timeout {
            self.splitter.pause();
        }
        self.heard_at = Instant::now();
        let now_us = self.device_time_bound_us();
        let mut readings = Vec::new();
        for line in self.splitter.feed(&bytes) {
            let mut fate = LineFate::default();
            let name = &self.name;
            readings.extend(self.points.iter_mut().filter_map(|point| point.take(name, &line, now_us, &mut fate)));
            self.counters.note(fate);
            self.rejected.note(&self.name, &line, fate);
        }
        self.counters.set_dropped(self.splitter.dropped());
        readings
    }

    /// The time that a device's own is compared with. While ours is not known, a device's is better.
    fn device_time_bound_us(&self) -> i64 {
        let now_us = self.context.clock.now_us();
        if self.context.clock.is_set() { now_us } else { now_us.saturating_add(UNKNOWN_AHEAD_US) }
    }

    fn pause(&self) -> Duration {
        let now_us = self.context.clock.now_us();
        let waits = self.points.iter().map(|point| match &point.waiting {
            Some((_, _, since)) => (*since + self.limits.timeout).saturating_duration_since(Instant::now()),
            None => wait(point.state.schedule.next_us(now_us), now_us),
        });
        let retry = self.retry.until().filter(|_| self.stream.is_none());
        let retry = retry.map(|until| until.saturating_duration_since(Instant::now()));
        waits.chain(retry).min().unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
    }
}
