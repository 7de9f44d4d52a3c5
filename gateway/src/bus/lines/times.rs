//! The file of the times that a bus's devices told: when it is written, and what is known from it at a start.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tjern_readings::sensor::SensorId;
use tokio::time::Instant;

use super::super::learned::Keeper;
use super::point::LinePointState;
use super::stored_times::{ToldTimes, decode, encode};

/// What is written was taken at least so long ago: the spool has synced it by then. And no more often: cards wear out.
const AGE: Duration = Duration::from_secs(60);

/// A bus's file.
#[derive(Debug)]
pub(in crate::bus) struct Times {
    keeper: Keeper,
    known: HashMap<SensorId, ToldTimes>,
    looked_at: Instant,
    /// What is to be written, once it is old enough.
    aging: Option<String>,
    written: Option<String>,
}

impl Times {
    /// What an earlier run left.
    pub(in crate::bus) async fn load(folder: Option<PathBuf>, bus: String) -> Self {
        let keeper = Keeper::of_times(folder, bus);
        let known = keeper.load_as(decode).await;
        Self { keeper, known, looked_at: Instant::now(), aging: None, written: None }
    }

    /// What it knows of a sensor.
    pub(super) fn take(&mut self, sensor: &SensorId) -> Option<ToldTimes> {
        self.known.remove(sensor)
    }

    /// Has written what is old enough, now and then.
    pub(super) async fn look(&mut self, points: &[LinePointState]) {
        if self.looked_at.elapsed() < AGE {
            return;
        }
        self.looked_at = Instant::now();
        let aged = std::mem::replace(&mut self.aging, text_of(points));
        match aged {
            Some(aged) if self.written.as_ref() != Some(&aged) => {
                self.keeper.keep_text(aged.clone()).await;
                self.written = Some(aged);
            }
            _ => self.keeper.go_on().await,
        }
    }

    /// Writes all: the spool syncs what it has when its buses have ended.
    pub(super) async fn end(&mut self, points: &[LinePointState]) {
        if let Some(text) = text_of(points).filter(|text| self.written.as_ref() != Some(text)) {
            self.keeper.keep_text(text).await;
        }
        self.keeper.end().await;
    }
}

/// `None` where no device tells times of its own.
fn text_of(points: &[LinePointState]) -> Option<String> {
    let dated = || points.iter().filter(|point| point.is_dated());
    dated().next()?;
    Some(encode(dated().map(|point| (&point.state.sensor, &point.told))))
}
