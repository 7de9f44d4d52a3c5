//! What the jobs are told by the configuration.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::schedule::Schedule;
use crate::config::PublishSection;
use crate::ingest::IngestSettings;
use crate::register::RegisterFiles;

/// What to run, and when.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// When each job is due.
    pub when: Schedules,
    /// How ingest behaves.
    pub ingest: IngestSettings,
    /// How long what nobody needs stays before it is removed.
    pub retention: Duration,
    /// The register's files.
    pub register: RegisterFiles,
    /// The open datasets.
    pub publish: Vec<PublishSection>,
    /// The city's time zone.
    pub timezone: TimeZone,
}

/// When each job is due.
#[derive(Debug, Clone)]
pub struct Schedules {
    /// The landing zone is looked at.
    pub ingest: Schedule,
    /// The register's files are looked at.
    pub register: Schedule,
    /// What came is tested.
    pub quality: Schedule,
    /// Hours and days are summed up.
    pub rollup: Schedule,
    /// Files are merged.
    pub compact: Schedule,
    /// What nobody needs any more is removed.
    pub vacuum: Schedule,
}
