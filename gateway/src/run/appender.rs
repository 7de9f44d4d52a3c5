//! The one way into the spool: what the buses read, in the order in which it came.
//!
//! What comes soon after something else waits for [`GATHER`] in the queue, and is passed on together: a bus that is answered
//! hundreds of times a second wakes two tasks some times a second, and not for each answer. A bus that begins anew has to know what
//! was read before: it begins behind a flush, or after a pause that is longer.

use std::time::Duration;

use tjern_readings::rows::Rows;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Task, watched};
use crate::bus::{Asked, LeftBehind, OnDisk, READINGS_QUEUE};
use crate::dating::{Dater, Sensors};
use crate::grid::LOOK_AGAIN;

/// Only a reload asks, and waits for its answer.
const FLUSH_QUEUE: usize = 1;

/// So long after readings were passed on others are: a part of the time for which the spool gathers anyway.
const GATHER: Duration = Duration::from_millis(50);

/// A disk that does not answer must not keep a gateway from ending, or from taking over a configuration.
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// The task that fills the spool.
#[derive(Debug)]
pub(crate) struct Appender {
    flush: mpsc::Sender<Flush>,
    task: Task,
    left: LeftBehind,
}

/// What comes from the buses. Dropped before all of it was passed on, it says how many readings are lost.
struct Inbox {
    received: mpsc::Receiver<Rows>,
    left: LeftBehind,
    /// Readings that are being passed on.
    passing: usize,
    /// Until then what comes waits for more.
    gathers_until: Instant,
}

/// What a reload asks for, between the end of the buses that change and the beginning of their successors.
#[derive(Debug)]
struct Flush {
    /// Those of the new configuration.
    sensors: Sensors,
    reply: oneshot::Sender<()>,
}

impl Appender {
    /// Begins; the sender is for the buses, and what they leave behind, and whom they ask whether it is on disk. It ends
    /// when the last of the senders has gone.
    pub(crate) fn start(dater: Dater) -> (Self, mpsc::Sender<Rows>, LeftBehind, OnDisk) {
        let (readings, received) = mpsc::channel(READINGS_QUEUE);
        let (flush, flushes) = mpsc::channel(FLUSH_QUEUE);
        let (on_disk, asked) = OnDisk::asked();
        let left = LeftBehind::default();
        let inbox = Inbox { received, left: left.clone(), passing: 0, gathers_until: Instant::now() };
        let task = watched(run(dater, inbox, flushes, asked));
        (Self { flush, task, left: left.clone() }, readings, left, on_disk)
    }

    /// Waits until everything that was sent before is in the spool, but no longer than until `stop`, or
    /// [`DISK_PATIENCE`]. What comes after is of these sensors.
    pub(crate) async fn flush(&self, sensors: Sensors, stop: &CancellationToken) {
        let (reply, done) = oneshot::channel();
        let flushing = async {
            if self.flush.send(Flush { sensors, reply }).await.is_ok() {
                // An error means that the task has failed, which is noticed elsewhere.
                let _ = done.await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            flushed = timeout(DISK_PATIENCE, flushing) => if flushed.is_err() {
                warn!("what was read is not in the spool within {DISK_PATIENCE:?}; the reload goes on; hint: is the disk failing?");
            },
        }
    }

    pub(super) const fn ended(&self) -> &CancellationToken {
        &self.task.1
    }

    /// Waits for the end, no longer than [`DISK_PATIENCE`]. Whether it went well.
    pub(crate) async fn finish(self) -> bool {
        let went_well = matches!(timeout(DISK_PATIENCE, self.task.0).await, Ok(Ok(())));
        // Where the task is there no more, nobody else takes them.
        tell_of_lost(self.left.take().len());
        went_well
    }
}

impl Inbox {
    /// What has come once it is time, or what comes next; `None` where nobody is left to send any. Dropped before it is
    /// done, it has taken nothing.
    async fn next(&mut self) -> Option<Rows> {
        if self.gathers_until > Instant::now() {
            sleep_until(self.gathers_until).await;
        }
        let first = self.received.recv().await?;
        self.gathers_until = Instant::now() + GATHER;
        Some(self.with_more(first))
    }

    /// These, and all that came behind them.
    fn with_more(&mut self, mut readings: Rows) -> Rows {
        while let Ok(more) = self.received.try_recv() {
            readings.append(more);
        }
        readings
    }

    async fn pass(&mut self, readings: Rows, dater: &mut Dater) {
        self.passing = readings.len();
        dater.take(readings).await;
        self.passing = 0;
    }

    /// Passes on all that came so far.
    async fn pass_all(&mut self, dater: &mut Dater) {
        let readings = self.with_more(Rows::default());
        self.pass(readings, dater).await;
        self.pass_left(dater).await;
    }

    /// Passes on what buses had in hand when they were given up.
    async fn pass_left(&mut self, dater: &mut Dater) {
        let left = self.left.take();
        if !left.is_empty() {
            self.pass(left, dater).await;
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut lost = self.passing;
        while let Ok(readings) = self.received.try_recv() {
            lost += readings.len();
        }
        tell_of_lost(lost);
    }
}

/// They have no numbers yet, so that no gap can say it.
fn tell_of_lost(readings: usize) {
    if readings > 0 {
        error!(readings, "these were read and did not reach the spool: they are lost");
    }
}

async fn run(mut dater: Dater, mut inbox: Inbox, mut flushes: mpsc::Receiver<Flush>, mut asked: mpsc::Receiver<Asked>) {
    loop {
        tokio::select! {
            biased;
            Some(Flush { sensors, reply }) = flushes.recv() => {
                inbox.pass_all(&mut dater).await;
                dater.set_sensors(sensors).await;
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
            Some(Asked { at_once, reply }) = asked.recv() => {
                inbox.pass_all(&mut dater).await;
                dater.confirm(at_once, reply).await;
            }
            readings = inbox.next() => match readings {
                Some(readings) => {
                    inbox.pass(readings, &mut dater).await;
                    // A bus that a reload gave up may have been a moment later than the reload.
                    inbox.pass_left(&mut dater).await;
                }
                None => break,
            },
            () = tokio::time::sleep(LOOK_AGAIN), if dater.is_waiting() => dater.look().await,
        }
    }
    inbox.pass_left(&mut dater).await;
    dater.end().await;
}

#[cfg(test)]
mod tests {
    use tjern_readings::reading::Reading;
    use tokio::time::sleep;

    use super::*;

    /// What waits for more is neither late nor out of its order, and what comes after a pause does not wait.
    #[tokio::test(start_paused = true)]
    async fn what_comes_soon_after_something_else_is_passed_on_together() {
        const APART: Duration = Duration::from_millis(10);
        let (sender, received) = mpsc::channel(READINGS_QUEUE);
        let mut inbox = Inbox { received, left: LeftBehind::default(), passing: 0, gathers_until: Instant::now() };
        let began = Instant::now();
        tokio::spawn(async move {
            for number in 0..100_u32 {
                let sensor = "mast/gust".parse().expect("valid");
                sender.send(vec![Reading::of(sensor, 1, f64::from(number))].into()).await.expect("it listens");
                sleep(APART).await;
            }
        });
        let (mut times, mut next) = (Vec::new(), 0_u32);
        while let Some(readings) = inbox.next().await {
            times.push(began.elapsed());
            for reading in readings {
                assert_eq!(reading.value, Some(f64::from(next)), "in their order");
                let waited = began.elapsed().saturating_sub(APART * next);
                assert!(waited <= GATHER + Duration::from_millis(1), "{next} waited for {waited:?}");
                next += 1;
            }
        }
        assert_eq!((next, times[0]), (100, Duration::ZERO));
        assert!(times.len() <= 21, "{} times", times.len());
    }
}
