//! The file of the times that a bus's devices told: when it is written, and what is known from it at a start.
//!
//! Invariant: no time is in the file whose reading is not on disk. Otherwise, after a power cut, what the device tells again
//! would be taken for stored, and lost. Where that is not known (`on_disk`) nothing is written: a row is stored twice then.

use std::collections::{HashMap, HashSet};
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
use crate::config::LinePoint;

/// It is written no more often than so: cards wear out. But for [`ENOUGH_ROWS`].
const PAUSE: Duration = Duration::from_secs(60);

/// After this it is written where so many rows came that a power cut would have them stored again: the first ones after a start,
/// then [`ENOUGH_ROWS`], and each time twice as many. A memory of 100,000 rows is eleven files of some kilobytes more, in a run.
const SOON: Duration = Duration::from_secs(3);

/// So many new rows do not wait for [`PAUSE`], once the first ones are written.
const ENOUGH_ROWS: u64 = 100;

/// At the end a bus waits so long for its readings to be on disk: a part of what it has before it is given up.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// A bus's file.
#[derive(Debug)]
pub(in crate::bus) struct Times {
    keeper: Keeper,
    /// Of sensors that the bus does not have, too: they may come back.
    known: HashMap<SensorId, ToldTimes>,
    on_disk: OnDisk,
    looked_at: Instant,
    /// So many rows are in the file.
    written_rows: u64,
    /// So many more do not wait.
    enough_rows: u64,
    /// What is to be written, once the readings that it tells of are on disk, and of how many rows it is.
    waiting: Option<(String, u64, oneshot::Receiver<()>)>,
    written: Option<String>,
}

impl Times {
    /// What an earlier run left, of a bus with these points. Where a sensor was on another bus, or this one had another name, its
    /// times are in that one's file.
    pub(in crate::bus) async fn load(
        folder: Option<PathBuf>,
        bus: String,
        points: &[LinePoint],
        on_disk: OnDisk,
    ) -> Self {
        let keeper = Keeper::of_times(folder, bus);
        let mut known = keeper.load_as(decode).await;
        let dated = points.iter().filter(|point| point.time.is_some()).map(|point| &point.common.sensor);
        let dated: HashSet<&SensorId> = dated.collect();
        let others = if dated.is_empty() { Vec::new() } else { keeper.load_others(decode).await };
        for (sensor, told) in others.into_iter().flatten().filter(|(sensor, _)| dated.contains(sensor)) {
            known.entry(sensor).or_default().merge(told);
        }
        Self {
            keeper,
            known,
            on_disk,
            looked_at: Instant::now(),
            written_rows: 0,
            enough_rows: 1,
            waiting: None,
            written: None,
        }
    }

    /// What it knows of a sensor.
    pub(super) fn take(&mut self, sensor: &SensorId) -> Option<ToldTimes> {
        self.known.remove(sensor)
    }

    /// Has written what is on disk, now and then. What the points tell was handed on before.
    pub(super) async fn look(&mut self, points: &[LinePointState]) {
        self.write_what_is_on_disk().await;
        let rows = points.iter().map(LinePointState::told_rows).sum();
        if self.waiting.is_some() || !self.is_time(rows) {
            return;
        }
        self.looked_at = Instant::now();
        self.waiting = self.news(points).map(|text| (text, rows, self.on_disk.ask(false)));
        self.keeper.go_on().await;
    }

    fn is_time(&self, rows: u64) -> bool {
        let waited = self.looked_at.elapsed();
        waited >= PAUSE || (waited >= SOON && self.has_enough(rows))
    }

    const fn has_enough(&self, rows: u64) -> bool {
        rows - self.written_rows >= self.enough_rows
    }

    async fn write_what_is_on_disk(&mut self) {
        let Some((text, rows, mut answer)) = self.waiting.take() else { return };
        match answer.try_recv() {
            Ok(()) => {
                if self.has_enough(rows) {
                    self.enough_rows = ENOUGH_ROWS.max(2 * self.enough_rows);
                }
                self.written_rows = rows;
                self.write(text).await;
            }
            Err(TryRecvError::Empty) => self.waiting = Some((text, rows, answer)),
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
        text_of(points, &self.known).filter(|text| self.written.as_ref() != Some(text))
    }
}

/// `None` where no device tells times of its own.
fn text_of(points: &[LinePointState], known: &HashMap<SensorId, ToldTimes>) -> Option<String> {
    let dated = || points.iter().filter(|point| point.is_dated());
    dated().next()?;
    let mut others: Vec<_> = known.iter().collect();
    others.sort_by_key(|(sensor, _)| *sensor);
    Some(encode(dated().map(|point| (&point.state.sensor, &point.told)).chain(others)))
}
