//! The pipeline's sections of `tjern.toml`: `[register]`, `[ingest]`, `[compact]`, `[rollup]`,
//! `[vacuum]`, `[retention]` and `[[publish]]`.
//!
//! The command line composes them into the whole file's shape. Unknown keys are errors; whatever is
//! left out has the default that stands here. Nothing here does I/O.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use serde_spanned::Spanned;
use tjern_readings::configuration::{Period, Size, Span};
use tjern_readings::sensor::{SensorId, is_part};

use crate::compact::CompactSettings;
use crate::jobs::{Cron, Schedule};
use crate::publish::{Dataset, Licence};
use crate::register::{OptionalFile, RegisterFiles};

const SITES_FILE: &str = "sites.csv";
const SENSORS_FILE: &str = "sensors.csv";
const INSTALLATIONS_FILE: &str = "installations.csv";
const EVENTS_FILE: &str = "events.csv";
const RULES_FILE: &str = "quality.csv";

/// `[register]`: where the city says what its sensors are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterSection {
    /// The file of sites, relative to the folder of `tjern.toml`.
    pub sites: Option<PathBuf>,
    /// The file of sensors, relative to the folder of `tjern.toml`.
    pub sensors: Option<PathBuf>,
    /// The file of installations, relative to the folder of `tjern.toml`.
    pub installations: Option<PathBuf>,
    /// The file of events, relative to the folder of `tjern.toml`.
    pub events: Option<PathBuf>,
    /// The file of rules of quality control, relative to the folder of `tjern.toml`.
    pub quality: Option<PathBuf>,
}

impl RegisterSection {
    /// The files meant, given the folder of `tjern.toml` and the city's time zone. Files that nobody
    /// named may be absent.
    #[must_use]
    pub fn files(&self, folder: &Path, timezone: &TimeZone) -> RegisterFiles {
        let optional = |named: Option<&Path>, name: &str| OptionalFile {
            path: folder.join(named.unwrap_or(Path::new(name))),
            required: named.is_some(),
        };
        RegisterFiles {
            sites: folder.join(self.sites.as_deref().unwrap_or(Path::new(SITES_FILE))),
            sensors: folder.join(self.sensors.as_deref().unwrap_or(Path::new(SENSORS_FILE))),
            required: self.sites.is_some() || self.sensors.is_some(),
            installations: optional(self.installations.as_deref(), INSTALLATIONS_FILE),
            events: optional(self.events.as_deref(), EVENTS_FILE),
            rules: optional(self.quality.as_deref(), RULES_FILE),
            timezone: timezone.clone(),
            may_end_all: false,
        }
    }
}

/// `[ingest]`: how landed batches become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestSection {
    /// How often ingest looks whether something is due; it asks the store for what is.
    pub every: Period,
    /// How long a hole in a source's sequence is waited for before it is passed.
    pub hole_patience: Span,
    /// How long landed batches stay after their rows are in the tables.
    pub landing_grace: Span,
}

impl Default for IngestSection {
    fn default() -> Self {
        Self {
            every: Period::from_seconds(2),
            hole_patience: Span(Period::from_seconds(60 * 60).duration()),
            landing_grace: Span(Period::from_seconds(7 * 24 * 60 * 60).duration()),
        }
    }
}

/// `[compact]`: small files into sorted ones.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompactSection {
    /// How often.
    pub every: Period,
    /// The memory that it may take.
    pub memory: Memory,
    /// The size of the files that it makes.
    pub target_size: FileSize,
    /// The folder for rows that do not fit into memory, relative to the folder of `tjern.toml`; the system's folder
    /// for temporary files where it is left out.
    pub spill: Option<PathBuf>,
}

impl Default for CompactSection {
    fn default() -> Self {
        let every = Period::from_seconds(20 * 60);
        Self { every, memory: Memory(512_000_000), target_size: FileSize(128 << 20), spill: None }
    }
}

impl CompactSection {
    /// What compaction is told, given the folder of `tjern.toml`.
    #[must_use]
    pub fn settings(&self, folder: &Path) -> CompactSettings {
        CompactSettings {
            memory_bytes: self.memory.0,
            target_bytes: self.target_size.0,
            spill_folder: self.spill.as_ref().map_or_else(std::env::temp_dir, |spill| folder.join(spill)),
            threads: crate::compact::threads(),
        }
    }
}

/// The memory that a job may take: with less than 64 MB the files that it makes would be many and small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Size")]
pub struct Memory(u64);

impl Memory {
    const LEAST: u64 = 64_000_000;

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<Size> for Memory {
    type Error = String;

    fn try_from(size: Size) -> Result<Self, String> {
        if size.0 >= Self::LEAST { Ok(Self(size.0)) } else { Err("a job's memory is at least 64MB".into()) }
    }
}

/// The size of the files that compaction makes. With less than 1 MiB they would be many and small: what it is there to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Size")]
pub struct FileSize(u64);

impl FileSize {
    const LEAST: u64 = 1 << 20;
}

impl TryFrom<Size> for FileSize {
    type Error = String;

    fn try_from(size: Size) -> Result<Self, String> {
        if size.0 >= Self::LEAST { Ok(Self(size.0)) } else { Err("a merged file's size is at least 1MiB".into()) }
    }
}

/// `[rollup]`: readings into hours and days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollupSection {
    /// How often.
    pub every: Period,
}

impl Default for RollupSection {
    fn default() -> Self {
        Self { every: Period::from_seconds(30 * 60) }
    }
}

/// `[jobs]`: what all jobs share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsSection {
    /// Where `tjern pipeline run` tells how the jobs are; nowhere where it is left out.
    pub listen: Option<SocketAddr>,
    /// By how much a run may be put off, so that not all begin at once.
    pub jitter: Span,
    /// Jobs that `tjern pipeline run` leaves to others.
    pub off: Vec<Spanned<String>>,
    /// Cron expressions in the city's time zone, which stand over a job's `every`.
    pub cron: BTreeMap<String, Spanned<Cron>>,
}

/// `[quality]`: what came through the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualitySection {
    /// How often.
    pub every: Period,
}

impl Default for QualitySection {
    fn default() -> Self {
        Self { every: Period::from_seconds(30 * 60) }
    }
}

/// `[vacuum]`: what nobody needs any more leaves the tables' folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VacuumSection {
    /// How often.
    pub every: Period,
    /// How long what was removed stays for those who still read it.
    pub retention: Retention,
}

impl Default for VacuumSection {
    fn default() -> Self {
        Self { every: Period::from_seconds(12 * 60 * 60), retention: Retention(Retention::LONGEST) }
    }
}

/// `[erase]`: what is left of erased readings goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EraseSection {
    /// How often it is looked for what has to go.
    pub every: Period,
}

impl Default for EraseSection {
    fn default() -> Self {
        Self { every: Period::from_seconds(60 * 60) }
    }
}

/// `[retention]`: how long readings stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSection {
    /// How often what is too old is removed.
    pub every: Period,
    /// How long readings stay; for ever where it is left out.
    pub readings: Option<Keep>,
}

impl Default for RetentionSection {
    fn default() -> Self {
        Self { every: daily(), readings: None }
    }
}

impl RetentionSection {
    /// How long readings stay, if not for ever.
    #[must_use]
    pub fn keep(&self) -> Option<Duration> {
        self.readings.map(Keep::duration)
    }
}

/// `[personal]`: what is different in the lake of personal readings, `personal_lake`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PersonalSection {
    /// The file with the credentials of its store, relative to the folder of `tjern.toml`. A cloud needs one: the
    /// environment's are those of the common lake, which must not reach it.
    pub credentials_file: Option<PathBuf>,
    /// How long landed batches stay; as in the common lake where it is left out.
    pub landing_grace: Option<Span>,
    /// How long readings stay; for ever where it is left out, whatever `[retention]` says.
    pub readings: Option<Keep>,
    /// How long removed files and old commits stay; as in the common lake where it is left out.
    pub vacuum_retention: Option<Retention>,
}

/// How long readings stay: a day at least. Where somebody writes `"0s"` for "no limit", everything would be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Span")]
pub struct Keep(Duration);

impl Keep {
    const SHORTEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// The duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl TryFrom<Span> for Keep {
    type Error = String;

    fn try_from(span: Span) -> Result<Self, String> {
        if span.0 >= Self::SHORTEST {
            return Ok(Self(span.0));
        }
        Err("readings stay for at least 1d, and what is older is removed for good: leave it out to keep them for ever"
            .into())
    }
}

/// How long removed files and old commits stay: from an hour, since queries read them, to a day, since
/// the tables themselves remember their removals no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Span")]
pub struct Retention(Duration);

impl Retention {
    const SHORTEST: Duration = Duration::from_secs(60 * 60);
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// The duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl TryFrom<Span> for Retention {
    type Error = String;

    fn try_from(span: Span) -> Result<Self, String> {
        if (Self::SHORTEST..=Self::LONGEST).contains(&span.0) {
            return Ok(Self(span.0));
        }
        Err("a retention is from 1h, since queries read what was removed, to 1d, since the tables remember it no longer".into())
    }
}

/// One `[[publish]]`: an open dataset.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishSection {
    /// The dataset's name: its folder under `open/`, and its files' name.
    pub dataset: DatasetName,
    /// The title in bokmål; the dataset's name where it is left out.
    pub title: Option<String>,
    /// The title in English.
    pub title_en: Option<String>,
    /// What the data are, in a sentence or two.
    pub description: Option<String>,
    /// Who publishes them.
    pub publisher: Option<String>,
    /// Under what terms they may be used.
    #[serde(default)]
    pub licence: Licence,
    /// Only sensors of this quantity.
    pub quantity: Option<String>,
    /// Only these sensors.
    pub sensors: Option<Vec<SensorId>>,
    /// How often a new release is made, where there is something new.
    #[serde(default = "daily")]
    pub every: Period,
}

/// The name of a dataset: a part of a name, as sensor ids have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetName(String);

impl DatasetName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for DatasetName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if is_part(name) {
            return Ok(Self(name.to_owned()));
        }
        Err(format!("`{name}` is no name of a dataset: 1 to 31 of a-z, 0-9, `_`, `-`, starting with a letter or digit"))
    }
}

impl<'de> Deserialize<'de> for DatasetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

const fn daily() -> Period {
    Period::from_seconds(24 * 60 * 60)
}

/// What is published where a configuration has no `[[publish]]` at all: the bathing temperatures.
#[must_use]
pub fn default_publications() -> Vec<PublishSection> {
    vec![PublishSection {
        dataset: DatasetName("badetemperatur".to_owned()),
        title: Some("Badetemperaturer".to_owned()),
        title_en: Some("Bathing temperatures".to_owned()),
        description: Some("Målte vanntemperaturer på badeplassene.".to_owned()),
        publisher: None,
        licence: Licence::default(),
        quantity: Some("water_temperature".to_owned()),
        sensors: None,
        every: daily(),
    }]
}

impl PublishSection {
    /// When a release is due.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.every.into()
    }

    /// The dataset that is meant.
    #[must_use]
    pub fn dataset(&self) -> Dataset {
        let name = self.dataset.as_str().to_owned();
        Dataset {
            title: self.title.clone().unwrap_or_else(|| name.clone()),
            name,
            title_en: self.title_en.clone(),
            description: self.description.clone(),
            publisher: self.publisher.clone(),
            licence: self.licence,
            quantity: self.quantity.clone(),
            sensors: self.sensors.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tjern_readings::configuration::{ConfigError, ConfigText};

    /// As the command line composes them.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Whole {
        #[serde(default)]
        register: RegisterSection,
        #[serde(default)]
        ingest: IngestSection,
        #[serde(default)]
        compact: CompactSection,
        #[serde(default)]
        rollup: RollupSection,
        #[serde(default)]
        vacuum: VacuumSection,
        #[serde(default)]
        retention: RetentionSection,
        #[serde(default)]
        personal: PersonalSection,
        #[serde(default = "default_publications")]
        publish: Vec<PublishSection>,
    }

    fn read(text: &str) -> Result<Whole, ConfigError> {
        ConfigText::new("tjern.toml", text).parse()
    }

    #[test]
    fn an_empty_file_has_every_default() {
        let whole = read("").expect("valid");
        assert_eq!(whole.ingest.every, "2s".parse().expect("valid"));
        assert_eq!(whole.ingest.hole_patience.0.as_secs(), 3_600);
        assert_eq!(whole.ingest.landing_grace.0.as_secs(), 604_800);
        assert_eq!(whole.compact.every, "20min".parse().expect("valid"));
        assert_eq!(whole.retention.keep(), None, "readings stay for ever");
        let compact = whole.compact.settings(Path::new("city"));
        assert_eq!((compact.memory_bytes, compact.file_bytes()), (512_000_000, 128_000_000));
        assert_eq!(whole.rollup.every, "30min".parse().expect("valid"));
        assert_eq!(whole.vacuum.retention.duration().as_secs(), 86_400);
        assert_eq!(whole.publish[0].dataset.as_str(), "badetemperatur");
        let files = whole.register.files(Path::new("city"), &TimeZone::UTC);
        assert_eq!((files.sites, files.required), (PathBuf::from("city/sites.csv"), false));
    }

    #[test]
    fn every_key_is_read() {
        let whole = read(
            "[register]\nsites = \"s.csv\"\nsensors = \"t.csv\"\n[ingest]\nevery = \"2s\"\nhole_patience = \"0s\"\n\
             landing_grace = \"1h\"\n[compact]\nevery = \"1min\"\nmemory = \"64MB\"\ntarget_size = \"8MB\"\n\
             spill = \"spill\"\n[rollup]\nevery = \"1min\"\n\
             [vacuum]\nevery = \"1d\"\nretention = \"1h\"\n[retention]\nreadings = \"3650d\"\n\
             [personal]\nreadings = \"1d\"\n[[publish]]\ndataset = \"luft\"\n\
             title = \"Luft\"\nlicence = \"NLOD-2.0\"\nquantity = \"no2\"\nevery = \"1h\"\n[[publish]]\ndataset = \"elva\"\n\
             sensors = [\"elva/level\"]\n",
        )
        .expect("valid");
        let files = whole.register.files(Path::new("city"), &TimeZone::UTC);
        assert_eq!((files.sensors, files.required), (PathBuf::from("city/t.csv"), true));
        assert_eq!(whole.ingest.hole_patience.0.as_secs(), 0);
        assert_eq!(whole.vacuum.retention.duration().as_secs(), 3_600);
        let compact = whole.compact.settings(Path::new("city"));
        assert_eq!((compact.memory_bytes, compact.file_bytes()), (64_000_000, 8_000_000));
        assert_eq!(compact.spill_folder, Path::new("city/spill"));
        assert_eq!(whole.retention.keep().map(|keep| keep.as_secs()), Some(3_650 * 86_400));
        assert_eq!(whole.personal.readings.map(|keep| keep.duration().as_secs()), Some(86_400));
        let datasets: Vec<_> = whole.publish.iter().map(PublishSection::dataset).collect();
        assert_eq!((datasets[0].title.as_str(), datasets[0].licence), ("Luft", Licence::Nlod20));
        assert_eq!((datasets[1].title.as_str(), datasets[1].licence), ("elva", Licence::CcBy40));
    }

    #[test]
    fn wrong_keys_and_values_are_named_with_their_place() {
        for (text, line, part) in [
            ("[ingest]\nevry = \"5s\"\n", 2, "unknown field `evry`"),
            ("[rollup]\nevery = \"0s\"\n", 2, "positive duration"),
            ("[compact]\nmemory = \"1MB\"\n", 2, "at least 64MB"),
            // 51 files became 9,601.
            ("[compact]\ntarget_size = \"0B\"\n", 2, "at least 1MiB"),
            ("[compact]\ntarget_size = \"1MB\"\n", 2, "at least 1MiB"),
            // Meant as "no limit", it removed every reading.
            ("[retention]\nreadings = \"0s\"\n", 2, "leave it out to keep them for ever"),
            ("[retention]\nreadings = \"1ms\"\n", 2, "at least 1d"),
            ("[retention]\nreadings = \"23h\"\n", 2, "at least 1d"),
            ("[personal]\nreadings = \"0s\"\n", 2, "leave it out to keep them for ever"),
            ("[[publish]]\ndataset = \"../x\"\n", 2, "no name of a dataset"),
            ("[[publish]]\ndataset = \"x\"\nlicence = \"WTFPL\"\n", 3, "CC-BY-4.0"),
        ] {
            let Err(ConfigError::Wrong(problems)) = read(text) else { panic!("{text} was accepted") };
            assert_eq!(problems[0].line, line, "{}", problems[0]);
            assert!(problems[0].to_string().contains(part), "{}", problems[0]);
        }
    }
}
