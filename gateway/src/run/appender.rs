//! The one way into the spool: what the buses read, in the order in which it came.

use tjern_readings::reading::Reading;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Task, watched};
use crate::bus::READINGS_QUEUE;
use crate::dating::{Dater, Sensors};
use crate::grid::LOOK_AGAIN;

/// Only a reload asks, and waits for its answer.
const FLUSH_QUEUE: usize = 1;

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

    /// Waits until everything that was sent before is in the spool. What comes after is of these sensors.
    pub(super) async fn flush(&self, sensors: Sensors) {
        let (reply, done) = oneshot::channel();
        if self.flush.send(Flush { sensors, reply }).await.is_ok() {
            // An error means that the task has failed, which is noticed elsewhere.
            let _ = done.await;
        }
    }

    pub(super) const fn ended(&self) -> &CancellationToken {
        &self.task.1
    }

    /// Waits for the end. Whether it went well.
    pub(crate) async fn finish(self) -> bool {
        self.task.0.await.is_ok()
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
