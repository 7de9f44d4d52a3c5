//! The actor of a bus of text lines.
//!
//! A device that talks by itself is listened to all the time. At a slot, the newest line of a point
//! stands for it if it is no older than the period; if there is none, the first line within the
//! bus's timeout does; after that the reading is missing. A device that wants to be asked (`poll`)
//! is asked at the slot, and lines from before do not count.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::reading::{Cause, Reading};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::BusContext;
use super::point::{FAILURES_TO_DOWN, Limits, PointState};
use super::state::{BusState, DeviceCell};
use crate::config::{LineField, LinePlace, LinePoint};
use crate::grid::{Due, LOOK_AGAIN, wait};
use crate::lines::{self, LineSplitter};
use crate::modbus::{Retry, open_serial};

/// What is received in one go.
const READ_BUFFER: usize = 1_024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) struct Actor {
    name: String,
    place: LinePlace,
    poll: Option<String>,
    stream: Option<Box<dyn Stream>>,
    splitter: LineSplitter,
    retry: Retry,
    line_is_there: Option<bool>,
    points: Vec<LinePointState>,
    limits: Limits,
    context: BusContext,
    state: Arc<BusState>,
}

struct LinePointState {
    state: PointState,
    field: LineField,
    latest: Option<Latest>,
    /// The slot that waits for a line, since when.
    waiting: Option<(Due, i64, Instant)>,
}

/// What the newest line said.
struct Latest {
    result: Result<f64, Cause>,
    at: Instant,
}

impl Actor {
    pub(super) fn new(
        name: String,
        (place, poll, terminator): (LinePlace, Option<String>, String),
        points: Vec<LinePoint>,
        limits: Limits,
        context: BusContext,
    ) -> Self {
        let points: Vec<_> = points
            .into_iter()
            .map(|point| LinePointState {
                state: PointState::new(point.common, limits, &context),
                field: point.field,
                latest: None,
                waiting: None,
            })
            .collect();
        let splitter = LineSplitter::new(&terminator);
        let cells = points.iter().map(|point: &LinePointState| point.state.cell()).collect();
        let state = context.states.begin(&name, "text-lines", vec![DeviceCell::new(&name, None, cells)]);
        Self {
            name,
            place,
            poll,
            stream: None,
            splitter,
            retry: Retry::default(),
            line_is_there: None,
            points,
            limits,
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
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                received = receive(&mut self.stream) => self.take(received),
            }
        }
        debug!(bus = self.name, dropped = self.splitter.dropped(), "bus stopped");
    }

    async fn connect(&mut self) {
        if self.stream.is_some() || !self.retry.may_try() {
            return;
        }
        match open(&self.place).await {
            Ok(stream) => {
                self.retry.succeeded();
                self.splitter.clear();
                self.stream = Some(stream);
                self.note_line(None);
            }
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &io::Error) {
        self.stream = None;
        // What was heard before says nothing about a slot that comes after.
        self.points.iter_mut().for_each(|point| point.latest = None);
        self.retry.failed();
        self.note_line(Some(error));
    }

    fn note_line(&mut self, error: Option<&io::Error>) {
        let changed = self.line_is_there.replace(error.is_none()) != Some(error.is_none());
        match error {
            Some(error) if changed => {
                warn!(bus = self.name, place = %Place(&self.place), "not reachable, trying again: {error}")
            }
            None if changed => info!(bus = self.name, place = %Place(&self.place), "reachable"),
            _ => {}
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

    fn take(&mut self, received: io::Result<Vec<u8>>) {
        match received {
            Ok(bytes) => {
                for line in self.splitter.feed(&bytes) {
                    self.points.iter_mut().for_each(|point| point.take(&line));
                }
            }
            Err(error) => self.lost(&error),
        }
    }

    fn pause(&self) -> Duration {
        let now_us = self.context.clock.now_us();
        let waits = self.points.iter().map(|point| match &point.waiting {
            Some((_, _, since)) => (*since + self.limits.timeout).saturating_duration_since(Instant::now()),
            None => wait(point.state.schedule.next_us(now_us), now_us),
        });
        let retry = self.retry.until().map(|until| until.saturating_duration_since(Instant::now()));
        waits.chain(retry).min().unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
    }
}

impl LinePointState {
    fn take(&mut self, line: &str) {
        let Some(result) = lines::read(&self.field, line) else { return };
        // A line that says nothing does not push out one that did and is still good.
        let keeps = result.is_err()
            && self.latest.as_ref().is_some_and(|latest| latest.result.is_ok() && latest.at.elapsed() < self.every());
        if !keeps {
            self.latest = Some(Latest { result, at: Instant::now() });
        }
    }

    fn every(&self) -> Duration {
        Duration::from_micros(self.state.schedule.grid().every_us().unsigned_abs())
    }

    fn turn(&mut self, bus: &str, (is_there, asked): (bool, bool), limits: Limits, now_us: i64) -> Option<Reading> {
        let (due, asked_us, since) = self.waiting?;
        let oldest = if asked { since } else { since.checked_sub(self.every()).unwrap_or(since) };
        let usable = self.latest.as_ref().filter(|latest| latest.at >= oldest);
        let waited = since.elapsed() >= limits.timeout;
        let raw = match usable.map(|latest| latest.result) {
            Some(Ok(value)) => Ok(value),
            Some(Err(cause)) if waited => Err(cause),
            _ if !is_there => Err(Cause::Unreachable),
            _ if !waited => return None,
            // A device that talks by itself may not have talked yet: that is no failure.
            _ if due.first && !asked => {
                self.waiting = None;
                self.state.schedule.begin(due);
                return None;
            }
            _ => Err(Cause::Timeout),
        };
        self.waiting = None;
        let failed_before = self.state.failures();
        let reading = self.state.conclude(due, raw, asked_us, now_us);
        self.note_change(bus, failed_before);
        reading
    }

    fn note_change(&self, bus: &str, failed_before: u32) {
        let sensor = self.state.sensor.as_str();
        match self.state.failures() {
            0 if failed_before >= FAILURES_TO_DOWN => info!(bus, sensor, "values again"),
            FAILURES_TO_DOWN if failed_before < FAILURES_TO_DOWN => {
                warn!(bus, sensor, "down: no value {FAILURES_TO_DOWN} times in a row")
            }
            _ => {}
        }
    }
}

/// Waits for ever where nothing is open: the caller waits for other things too.
async fn receive(stream: &mut Option<Box<dyn Stream>>) -> io::Result<Vec<u8>> {
    let Some(stream) = stream else { return std::future::pending().await };
    let mut buffer = vec![0; READ_BUFFER];
    let count = stream.read(&mut buffer).await?;
    buffer.truncate(count);
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(buffer) }
}

async fn open(place: &LinePlace) -> io::Result<Box<dyn Stream>> {
    match place {
        LinePlace::Serial(serial) => Ok(Box::new(open_serial(serial)?)),
        LinePlace::Tcp(address) => Ok(Box::new(timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??)),
    }
}

struct Place<'place>(&'place LinePlace);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            LinePlace::Serial(serial) => formatter.write_str(&serial.port),
            LinePlace::Tcp(address) => formatter.write_str(address),
        }
    }
}
