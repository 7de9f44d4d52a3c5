//! All jobs. A new one is a file in `jobs/list/`, and an entry here.

mod compact;
mod ingest;
mod publish;
mod quality;
mod register;
mod rollup;
mod vacuum;

use super::job::Job;
use super::schedule::Schedule;
use super::settings::JobSettings;

pub use vacuum::summary as vacuum_summary;

/// The two lines of jobs that run side by side. Within a line nothing overlaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// What keeps readings from waiting.
    Ingest,
    /// Everything else, in turn.
    Upkeep,
}

/// A job and when it runs.
#[derive(Debug)]
pub struct Entry {
    /// Its name: in the lake, in metrics, in the log; a part of a name, as sensor ids have them.
    pub name: String,
    /// Where it waits for its turn.
    pub line: Line,
    /// When it is due.
    pub schedule: Schedule,
    /// What it does.
    pub job: Box<dyn Job>,
}

/// The jobs of a city, those that others build on first.
#[must_use]
pub fn entries(settings: &JobSettings) -> Vec<Entry> {
    let entry = |name: &str, line, schedule: &Schedule, job: Box<dyn Job>| Entry {
        name: name.to_owned(),
        line,
        schedule: schedule.clone(),
        job,
    };
    let when = &settings.when;
    let timezone = settings.timezone.clone();
    let mut entries = vec![
        entry("ingest", Line::Ingest, &when.ingest, Box::new(ingest::Ingest::new(settings.ingest))),
        entry("register", Line::Upkeep, &when.register, Box::new(register::Register(settings.register.clone()))),
        entry("quality", Line::Upkeep, &when.quality, Box::new(quality::Quality)),
        entry("rollup", Line::Upkeep, &when.rollup, Box::new(rollup::Rollup(timezone.clone()))),
        entry("compact", Line::Upkeep, &when.compact, Box::new(compact::Compact)),
        entry("vacuum", Line::Upkeep, &when.vacuum, Box::new(vacuum::Vacuum(settings.retention))),
    ];
    entries.extend(settings.publish.iter().map(|section| {
        let name = format!("{PUBLISH}{}", section.dataset.as_str());
        let job = publish::Publish { dataset: section.dataset(), timezone: timezone.clone() };
        entry(&name, Line::Upkeep, &section.schedule(), Box::new(job))
    }));
    entries
}

/// What the names of jobs that publish begin with; the dataset's name follows.
pub const PUBLISH: &str = "publish-";
