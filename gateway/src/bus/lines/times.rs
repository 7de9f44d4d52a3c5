//! The file of the times that a bus's devices told: when it is written, and what is known from it at a start.
//!
//! Invariant: no time is in the file whose reading is not on disk. Otherwise, after a power cut, what the device tells again
//! would be taken for stored, and lost. Where that is not known (`on_disk`) nothing is written: a row is stored twice then.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tjern_readings::sensor::SensorId;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, timeout};

use super::super::learned::Keeper;
use super::super::on_disk::OnDisk;
use super::point::LinePointState;
use super::stored_times::{ToldTimes, decode, encode};

/// It is written no more often than so: cards wear out.
const PAUSE: Duration = Duration::from_secs(60);

/// At the end a bus waits so long for its readings to be on disk: a part of what it has before it is given up.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// A bus's file.
#[derive(Debug)]
pub(in crate::bus) struct Times {
    keeper: Keeper,
    known: HashMap<SensorId, ToldTimes>,
    on_disk: OnDisk,
    looked_at: Instant,
    /// What is to be written, once the readings that it tells of are on disk.
    waiting: Option<(String, oneshot::Receiver<()>)>,
    written: Option<String>,
}

impl Times {
    /// What an earlier run left.
    pub(in crate::bus) async fn load(folder: Option<PathBuf>, bus: String, on_disk: OnDisk) -> Self {
        let keeper = Keeper::of_times(folder, bus);
        let known = keeper.load_as(decode).await;
        Self { keeper, known, on_disk, looked_at: Instant::now(), waiting: None, written: None }
    }

    /// What it knows of a sensor.
    pub(super) fn take(&mut self, sensor: &SensorId) -> Option<ToldTimes> {
        self.known.remove(sensor)
    }

    /// Has written what is on disk, now and then. What the points tell was handed on before.
    pub(super) async fn look(&mut self, points: &[LinePointState]) {
        self.write_what_is_on_disk().await;
        if self.waiting.is_some() || self.looked_at.elapsed() < PAUSE {
            return;
        }
        self.looked_at = Instant::now();
        self.waiting = self.news(points).map(|text| (text, self.on_disk.ask(false)));
        self.keeper.go_on().await;
    }

    async fn write_what_is_on_disk(&mut self) {
        let Some((text, mut answer)) = self.waiting.take() else { return };
        match answer.try_recv() {
            Ok(()) => self.write(text).await,
            Err(TryRecvError::Empty) => self.waiting = Some((text, answer)),
            // It is asked again, with what was told meanwhile.
            Err(TryRecvError::Closed) => {}
        }
    }

    /// Writes all that is on disk within [`END_PATIENCE`].
    pub(super) async fn end(&mut self, points: &[LinePointState]) {
        self.waiting = None;
        if let Some(text) = self.news(points)
            && let Ok(Ok(())) = timeout(END_PATIENCE, self.on_disk.ask(true)).await
        {
            self.write(text).await;
        }
        self.keeper.end().await;
    }

    async fn write(&mut self, text: String) {
        self.keeper.keep_text(text.clone()).await;
        self.written = Some(text);
    }

    /// What the file does not say yet.
    fn news(&self, points: &[LinePointState]) -> Option<String> {
        text_of(points).filter(|text| self.written.as_ref() != Some(text))
    }
}

/// `None` where no device tells times of its own.
fn text_of(points: &[LinePointState]) -> Option<String> {
    let dated = || points.iter().filter(|point| point.is_dated());
    dated().next()?;
    Some(encode(dated().map(|point| (&point.state.sensor, &point.told))))
}
