//! What the jobs are told by the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::cron::Cron;
use super::schedule::Schedule;
use crate::compact::CompactSettings;
use crate::config::PublishSection;
use crate::ingest::IngestSettings;
use crate::register::RegisterFiles;
use crate::watch::WatchSettings;

/// What to run, and when.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// When each job is due.
    pub when: Schedules,
    /// The cron expressions that stand over that, by job.
    pub cron: BTreeMap<String, Cron>,
    /// Jobs that the daemon does not run: somebody else does.
    pub off: BTreeSet<String>,
    /// By how much a run may be put off, so that not all begin at once.
    pub jitter: Duration,
    /// Where the daemon tells how the jobs are.
    pub listen: Option<SocketAddr>,
    /// How ingest behaves.
    pub ingest: IngestSettings,
    /// What merging files may take, and what it makes.
    pub compact: CompactSettings,
    /// How long readings stay, if not for ever.
    pub keep: Option<Duration>,
    /// How long what nobody needs stays before it is removed.
    pub retention: Duration,
    /// The register's files.
    pub register: RegisterFiles,
    /// The open datasets.
    pub publish: Vec<PublishSection>,
    /// What is watched, and who is told.
    pub watch: WatchSettings,
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
    /// What is left of erased readings is removed.
    pub erase: Schedule,
    /// What nobody needs any more is removed.
    pub vacuum: Schedule,
    /// It is looked for what is wrong.
    pub watch: Schedule,
    /// Logs get a checkpoint where theirs is old.
    pub checkpoint: Schedule,
    /// Readings that are too old are removed.
    pub retention: Schedule,
}
