//! All jobs. A new one is a file in `jobs/list/`, and an entry here.

mod checkpoint;
mod compact;
mod erase;
mod ingest;
mod publish;
mod quality;
mod register;
mod registering;
mod retention;
mod rollup;
mod vacuum;
mod watch;

use std::collections::BTreeMap;

use tjern_lake::Lake;

use super::job::Job;
use super::schedule::Schedule;
use super::settings::JobSettings;
use crate::bounds::Bounds;
use crate::erase::EraseSettings;

pub use compact::Compact;
pub use erase::{EraseOnce, EraseOrder, summary as erase_summary};
pub use registering::register_before_ingest;
pub use vacuum::summary as vacuum_summary;

/// The lines of jobs that run side by side. Within a line nothing overlaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// What keeps readings from waiting.
    Ingest,
    /// What else is done to the lake, in turn.
    Upkeep,
    /// What looks at the others.
    Watch,
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

/// The jobs of a city, those that others build on first. One that is off is among them: it can be run by a command.
#[must_use]
pub fn entries(settings: &JobSettings) -> Vec<Entry> {
    entries_named(settings, "")
}

/// The jobs of its lake of personal readings: the same but for those that publish, under names of their own.
#[must_use]
pub fn personal_entries(settings: &JobSettings) -> Vec<Entry> {
    entries_named(&JobSettings { publish: Vec::new(), ..settings.clone() }, PERSONAL)
}

/// The jobs of a lake.
#[must_use]
pub fn entries_of(lake: &Lake, settings: &JobSettings) -> Vec<Entry> {
    if lake.is_personal() { personal_entries(settings) } else { entries(settings) }
}

fn entries_named(settings: &JobSettings, prefix: &str) -> Vec<Entry> {
    let entry = |name: &str, line, schedule: &Schedule, job: Box<dyn Job>| {
        let name = format!("{prefix}{name}");
        let schedule = settings.cron.get(&name).map_or_else(|| schedule.clone(), |cron| Schedule::Cron(cron.clone()));
        Entry { name, line, schedule, job }
    };
    let when = &settings.when;
    let timezone = settings.timezone.clone();
    let bounds = Bounds::from(&settings.compact);
    let is_off = settings.off.contains(&format!("{prefix}register"));
    let files = registering::Registering::new(settings.register.clone(), is_off);
    let ingest = ingest::Ingest::new(settings.ingest, bounds.part(4), files.clone());
    let mut entries = vec![
        entry("ingest", Line::Ingest, &when.ingest, Box::new(ingest)),
        entry(
            "register",
            Line::Upkeep,
            &when.register,
            Box::new(register::Register::new(files, EraseSettings::of(settings))),
        ),
        entry("quality", Line::Upkeep, &when.quality, Box::new(quality::Quality::new(bounds.clone()))),
        entry("rollup", Line::Upkeep, &when.rollup, Box::new(rollup::Rollup::new(timezone.clone(), bounds.clone()))),
        entry("compact", Line::Upkeep, &when.compact, Box::new(Compact::new(settings.compact.clone()))),
        entry("erase", Line::Upkeep, &when.erase, Box::new(erase::Erase::new(EraseSettings::of(settings)))),
        entry("vacuum", Line::Upkeep, &when.vacuum, Box::new(vacuum::Vacuum(settings.retention))),
        entry("checkpoint", Line::Upkeep, &when.checkpoint, Box::new(checkpoint::Checkpoint)),
        entry("retention", Line::Upkeep, &when.retention, Box::new(retention::Retention(settings.keep))),
    ];
    entries.extend(settings.publish.iter().map(|section| {
        let name = format!("{PUBLISH}{}", section.dataset.as_str());
        let job = publish::Publish {
            dataset: section.dataset(),
            timezone: timezone.clone(),
            bounds: bounds.clone(),
            settings: EraseSettings::of(settings),
        };
        entry(&name, Line::Upkeep, &section.schedule(), Box::new(job))
    }));
    let watched = entries.iter().filter(|entry| !settings.off.contains(&entry.name));
    let schedules: BTreeMap<_, _> = watched.map(|entry| (entry.name.clone(), entry.schedule.clone())).collect();
    let watch = watch::Watch::new(settings.watch.clone(), schedules, bounds);
    entries.push(entry("watch", Line::Watch, &when.watch, Box::new(watch)));
    entries
}

/// What the names of jobs on the lake of personal readings begin with.
pub const PERSONAL: &str = "personal-";

/// What the names of jobs that publish begin with; the dataset's name follows.
pub const PUBLISH: &str = "publish-";
