//! The one way into the spool: what the buses read, in the order in which it came.

use std::time::Duration;

use tjern_readings::rows::Rows;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Task, watched};
use crate::bus::{LeftBehind, READINGS_QUEUE};
use crate::dating::{Dater, Sensors};
use crate::grid::LOOK_AGAIN;

/// Only a reload asks, and waits for its answer.
const FLUSH_QUEUE: usize = 1;

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
}

/// What a reload asks for, between the end of the buses that change and the beginning of their successors.
#[derive(Debug)]
struct Flush {
    /// Those of the new configuration.
    sensors: Sensors,
    reply: oneshot::Sender<()>,
}

impl Appender {
    /// Begins; the sender is for the buses, and what they leave behind. It ends when the last of them has gone.
    pub(crate) fn start(dater: Dater) -> (Self, mpsc::Sender<Rows>, LeftBehind) {
        let (readings, received) = mpsc::channel(READINGS_QUEUE);
        let (flush, asked) = mpsc::channel(FLUSH_QUEUE);
        let left = LeftBehind::default();
        let inbox = Inbox { received, left: left.clone(), passing: 0 };
        (Self { flush, task: watched(run(dater, inbox, asked)), left: left.clone() }, readings, left)
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
    async fn pass(&mut self, readings: Rows, dater: &mut Dater) {
        self.passing = readings.len();
        dater.take(readings).await;
        self.passing = 0;
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

async fn run(mut dater: Dater, mut inbox: Inbox, mut asked: mpsc::Receiver<Flush>) {
    loop {
        tokio::select! {
            biased;
            Some(Flush { sensors, reply }) = asked.recv() => {
                while let Ok(readings) = inbox.received.try_recv() {
                    inbox.pass(readings, &mut dater).await;
                }
                inbox.pass_left(&mut dater).await;
                dater.set_sensors(sensors);
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
            readings = inbox.received.recv() => match readings {
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
