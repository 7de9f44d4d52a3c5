//! `rollup`: readings into hours and days.

use async_trait::async_trait;
use jiff::tz::TimeZone;
use tjern_lake::{Lake, Table, TableName};
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::correct::utc;
use crate::jobs::job::{Done, Job, JobError};
use crate::jobs::unchanged::{LOOK, Unchanged};
use crate::rollup::{LEASE, rollup_within};

/// With the city's time zone, what it may take, and the version of `readings` that it saw last.
#[derive(Debug)]
pub(super) struct Rollup {
    timezone: TimeZone,
    bounds: Bounds,
    seen: Unchanged<i64>,
}

impl Rollup {
    pub(super) fn new(timezone: TimeZone, bounds: Bounds) -> Self {
        Self { timezone, bounds, seen: Unchanged::default() }
    }
}

#[async_trait]
impl Job for Rollup {
    fn undone(&self) -> &'static str {
        "hours and days are those of the last run: what came since is not in them"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let readings = Table::open_within(lake, TableName::Readings, LOOK).await.map_err(JobError::failed)?;
        let version = readings.map_or(-1, |table| table.version());
        if self.seen.since(&version, lake.clock().now_us()) {
            return Ok(Done::new("no new reading since the last run").worked(false));
        }
        let outcome = rollup_within(lake, &self.timezone, &self.bounds).await.map_err(JobError::failed)?;
        if outcome.held_elsewhere {
            let seconds = LEASE.as_secs();
            let said = format!("another process is at it, or erases (or was killed at it less than {seconds} s ago)");
            return Ok(Done { held_elsewhere: true, ..Done::new(said).worked(false) });
        }
        self.seen.done(version, lake.clock().now_us());
        let (hourly, daily) = (outcome.hourly.rows_computed, outcome.daily.rows_computed);
        let read = outcome.hourly.readings_read + outcome.daily.readings_read;
        let left_out = outcome.hourly.left_out + outcome.daily.left_out;
        let mut said = format!("{hourly} hourly and {daily} daily rows");
        if left_out > 0 {
            said.push_str(&format!("; {left_out} windows are closed, and what came late for them is not in them"));
        }
        if let Some(from_us) = outcome.daily.overlapping_from_us {
            let closed = utc(from_us);
            said.push_str(&format!(
                "; the closed day of another time zone that began at {closed} reaches into the first open one: readings of both count twice in `daily`"
            ));
        }
        let done = Done::new(said).with("hourly_rows", hourly).with("daily_rows", daily);
        let done = done.with("readings_read", read).with("windows_left_out", left_out);
        Ok(done.worked(hourly + daily > 0))
    }
}
