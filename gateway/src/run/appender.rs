//! The one way into the spool: what the buses read, in the order in which it came.

use tjern_readings::reading::{Reading, TIMES_US};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{Task, watched};
use crate::bus::READINGS_QUEUE;
use crate::spool::Spool;
use crate::system::SystemReadings;

/// Only a reload asks, and waits for its answer.
const FLUSH_QUEUE: usize = 1;

/// The task that fills the spool.
#[derive(Debug)]
pub(super) struct Appender {
    flush: mpsc::Sender<oneshot::Sender<()>>,
    task: Task,
}

impl Appender {
    /// Begins; the sender is for the buses. It ends when the last of them has gone.
    pub(super) fn start(spool: Spool, system: Option<SystemReadings>) -> (Self, mpsc::Sender<Vec<Reading>>) {
        let (readings, received) = mpsc::channel(READINGS_QUEUE);
        let (flush, asked) = mpsc::channel(FLUSH_QUEUE);
        (Self { flush, task: watched(run((spool, system), received, asked)) }, readings)
    }

    /// Waits until everything that was sent before is in the spool.
    pub(super) async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        if self.flush.send(reply).await.is_ok() {
            // An error means that the task has failed, which is noticed elsewhere.
            let _ = done.await;
        }
    }

    pub(super) const fn ended(&self) -> &CancellationToken {
        &self.task.1
    }

    /// Waits for the end. Whether it went well.
    pub(super) async fn finish(self) -> bool {
        self.task.0.await.is_ok()
    }
}

async fn run(
    (spool, mut system): (Spool, Option<SystemReadings>),
    mut received: mpsc::Receiver<Vec<Reading>>,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        tokio::select! {
            biased;
            Some(reply) = asked.recv() => {
                while let Ok(readings) = received.try_recv() {
                    append(&spool, system.as_mut(), readings).await;
                }
                // Whoever asked may have gone.
                let _ = reply.send(());
            }
            readings = received.recv() => match readings {
                Some(readings) => append(&spool, system.as_mut(), readings).await,
                None => return,
            },
        }
    }
}

async fn append(spool: &Spool, system: Option<&mut SystemReadings>, mut readings: Vec<Reading>) {
    let came = readings.len();
    // No batch may hold such a time, and one would keep all others of its batch out of the lake.
    readings.retain(|reading| TIMES_US.contains(&reading.time_us));
    if readings.len() < came {
        error!(readings = came - readings.len(), "the clock is centuries off: these are not kept");
    }
    if let Some(system) = system {
        system.join(&mut readings);
    }
    spool.append(readings).await;
}
