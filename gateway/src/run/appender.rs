//! The one way into the spool: what the buses read, in the order in which it came.

use std::time::Duration;

use tjern_readings::reading::Reading;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Task, watched};
use crate::bus::READINGS_QUEUE;
use crate::dating::{Dater, Sensors};
use crate::grid::LOOK_AGAIN;

/// Only a reload asks, and waits for its answer.
const FLUSH_QUEUE: usize = 1;

/// A disk that does not answer must not keep a gateway from ending, or from taking over a configuration.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// The task that fills the spool.
#[derive(Debug)]
pub(crate) struct Appender {
    flush: mpsc::Sender<Flush>,
    task: Task,
}

/// What a reload asks for, between the end of the buses that change and the beginning of their successors.
#[derive(Debug)]
struct Flush {
    /// Those of the new configuration.
    sensors: Sensors,
    reply: oneshot::Sender<()>,
}

impl Appender {
    /// Begins; the sender is for the buses. It ends when the last of them has gone.
    pub(crate) fn start(dater: Dater) -> (Self, mpsc::Sender<Vec<Reading>>) {
        let (readings, received) = mpsc::channel(READINGS_QUEUE);
        let (flush, asked) = mpsc::channel(FLUSH_QUEUE);
        (Self { flush, task: watched(run(dater, received, asked)) }, readings)
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
        matches!(timeout(DISK_PATIENCE, self.task.0).await, Ok(Ok(())))
    }
}

async fn run(mut dater: Dater, mut received: mpsc::Receiver<Vec<Reading>>, mut asked: mpsc::Receiver<Flush>) {
    loop {
        tokio::select! {
            biased;
            Some(Flush { sensors, reply }) = asked.recv() => {
                while let Ok(readings) = received.try_recv() {
                    dater.take(readings).await;
                }
                dater.set_sensors(sensors);
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
            readings = received.recv() => match readings {
                Some(readings) => dater.take(readings).await,
                None => break,
            },
            () = tokio::time::sleep(LOOK_AGAIN), if dater.is_waiting() => dater.look().await,
        }
    }
    dater.end().await;
}
