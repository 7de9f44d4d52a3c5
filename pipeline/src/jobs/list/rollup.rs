//! `rollup`: readings into hours and days.

use async_trait::async_trait;
use jiff::tz::TimeZone;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::jobs::job::{Done, Job, JobError};
use crate::rollup::rollup;

/// With the city's time zone.
#[derive(Debug)]
pub(super) struct Rollup(pub(super) TimeZone);

#[async_trait]
impl Job for Rollup {
    fn undone(&self) -> &'static str {
        "hours and days are computed by the queries that ask for them, which takes longer"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let outcome = rollup(lake, &self.0).await.map_err(JobError::failed)?;
        let (hourly, daily) = (outcome.hourly.rows_computed, outcome.daily.rows_computed);
        let done = Done::new(format!("{hourly} hourly and {daily} daily rows"));
        Ok(done.with("hourly_rows", hourly).with("daily_rows", daily).worked(hourly + daily > 0))
    }
}
