//! What erasing has to know of the city.

use jiff::tz::TimeZone;

use crate::compact::CompactSettings;
use crate::config::PublishSection;
use crate::ingest::IngestSettings;
use crate::jobs::JobSettings;
use crate::jobs::list::PERSONAL;
use crate::publish::Dataset;
use crate::register::RegisterFiles;

/// How what has landed is ingested, files are written, days are cut and datasets are made anew.
#[derive(Debug, Clone)]
pub struct EraseSettings {
    /// How ingest behaves.
    pub ingest: IngestSettings,
    /// The register's files, which come before anything is ingested; none where others register.
    pub register: Option<RegisterFiles>,
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
        let is_off = jobs.off.iter().any(|job| job.strip_prefix(PERSONAL).unwrap_or(job) == "register");
        Self {
            ingest: jobs.ingest,
            register: (!is_off).then(|| jobs.register.clone()),
            compact: jobs.compact.clone(),
            datasets: jobs.publish.iter().map(PublishSection::dataset).collect(),
            timezone: jobs.timezone.clone(),
        }
    }
}
