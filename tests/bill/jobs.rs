//! All jobs of the pipeline, with the intervals of a configuration that says nothing of them, run as the daemon runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use tjern_lake::Lake;
use tjern_pipeline::compact::CompactSettings;
use tjern_pipeline::config::{
    CompactSection, EraseSection, IngestSection, QualitySection, RetentionSection, RollupSection, VacuumSection,
    default_publications,
};
use tjern_pipeline::ingest::IngestSettings;
use tjern_pipeline::jobs::once::once;
use tjern_pipeline::jobs::{Entry, JobSettings, Run, Schedule, Schedules, entries, record};
use tjern_pipeline::register::RegisterFiles;
use tjern_pipeline::watch::WatchSection;
use tjern_readings::store::RequestCounts;
use tokio_util::sync::CancellationToken;

use crate::place::NOW_US;

/// A hole is waited for an hour, landed batches stay a week.
pub(crate) const INGEST: IngestSettings =
    IngestSettings { hole_patience: Duration::from_secs(3_600), landing_grace: Duration::from_secs(7 * 24 * 3_600) };

/// A job and when it is due next, as the daemon keeps them.
pub(crate) struct Due {
    entry: Entry,
    every_us: i64,
    pub(crate) next_us: i64,
    last: Option<Run>,
    written: Option<Run>,
}

/// All jobs, with the intervals of a configuration that says nothing of them.
pub(crate) fn jobs(files: RegisterFiles, folder: &Path, lake: &Lake) -> Vec<Due> {
    let every = |section: tjern_readings::configuration::Period| Schedule::from(section);
    let settings = JobSettings {
        when: Schedules {
            ingest: every(IngestSection::default().every),
            register: Schedule::Every(Duration::from_secs(60)),
            quality: every(QualitySection::default().every),
            rollup: every(RollupSection::default().every),
            compact: every(CompactSection::default().every),
            erase: every(EraseSection::default().every),
            vacuum: every(VacuumSection::default().every),
            watch: every(WatchSection::default().every),
            checkpoint: Schedule::Every(Duration::from_secs(6 * 3_600)),
            retention: every(RetentionSection::default().every),
        },
        cron: BTreeMap::new(),
        off: BTreeSet::new(),
        jitter: Duration::ZERO,
        listen: None,
        watch: WatchSection::default().settings(folder, lake.store().url(), &TimeZone::UTC).expect("no secrets"),
        ingest: INGEST,
        compact: CompactSettings::default(),
        keep: None,
        retention: Duration::from_secs(86_400),
        register: files,
        publish: default_publications(),
        timezone: TimeZone::UTC,
    };
    let due = |entry: Entry| {
        let Schedule::Every(every) = entry.schedule else { unreachable!("no cron expression is given") };
        let every_us = i64::try_from(every.as_micros()).expect("small");
        Due { entry, every_us, next_us: NOW_US, last: None, written: None }
    };
    entries(&settings).into_iter().map(due).collect()
}

/// Runs a job as the daemon does, and writes down how it went. What it cost, and what that record of it cost.
pub(crate) async fn run(lake: &Lake, due: &mut Due) -> [(String, RequestCounts); 2] {
    let before = lake.store().requests();
    let never = CancellationToken::new();
    let done = Box::pin(once(&due.entry.name, due.entry.job.as_mut(), lake, due.last.as_ref(), &never)).await;
    assert!(done.error.is_none(), "{}: {:?}", due.entry.name, done.error);
    let worked = lake.store().requests();
    if done.run.is_news(due.written.as_ref()) {
        record::write(lake, &done.run).await.expect("written");
        due.written = Some(done.run.clone());
    }
    due.last = Some(done.run);
    due.next_us += due.every_us;
    let written = lake.store().requests().since(&worked);
    [(due.entry.name.clone(), worked.since(&before)), ("records of jobs".to_owned(), written)]
}
