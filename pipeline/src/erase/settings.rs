//! What erasing has to know of the city.

use jiff::tz::TimeZone;

use crate::compact::CompactSettings;
use crate::config::PublishSection;
use crate::ingest::IngestSettings;
use crate::jobs::JobSettings;
use crate::publish::Dataset;

/// How what has landed is ingested, files are written, days are cut and datasets are made anew.
#[derive(Debug, Clone)]
pub struct EraseSettings {
    /// How ingest behaves.
    pub ingest: IngestSettings,
    /// The size of the files that are written.
    pub compact: CompactSettings,
    /// The open datasets.
    pub datasets: Vec<Dataset>,
    /// The city's time zone.
    pub timezone: TimeZone,
}

impl EraseSettings {
    /// As the jobs are told.
    #[must_use]
    pub fn of(jobs: &JobSettings) -> Self {
        Self {
            ingest: jobs.ingest,
            compact: jobs.compact.clone(),
            datasets: jobs.publish.iter().map(PublishSection::dataset).collect(),
            timezone: jobs.timezone.clone(),
        }
    }
}
