//! What the commands share that change what is stored: whose readings, of when, and who does it.

use std::path::PathBuf;

use clap::Args;
use jiff::tz::TimeZone;
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::recompute::Period;
use tjern_pipeline::times::moment;
use tjern_readings::sensor::SensorId;

use super::job::{JobArguments, Workplace};
use crate::failure::Failure;

/// Which lake is changed.
#[derive(Debug, Args)]
pub(crate) struct LakeArguments {
    /// The configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Change the lake of personal readings (`personal_lake`)
    #[arg(long)]
    personal: bool,
}

/// A city's lake, ready to be worked on.
pub(crate) async fn open(lake: &LakeArguments) -> Result<Workplace, Failure> {
    let LakeArguments { config, personal } = lake;
    Workplace::open(&JobArguments { config: config.clone(), personal: *personal, json: false }).await
}

/// The same; of a dry run without the right to write.
pub(crate) async fn open_or_look(lake: &LakeArguments, dry_run: bool) -> Result<Workplace, Failure> {
    if !dry_run {
        return open(lake).await;
    }
    let LakeArguments { config, personal } = lake;
    Workplace::look(&JobArguments { config: config.clone(), personal: *personal, json: false }).await
}

/// Which readings.
#[derive(Debug, Args)]
pub(crate) struct PeriodArguments {
    /// Of which sensor
    #[arg(long, value_name = "ID")]
    sensor: SensorId,
    /// From this time on: with an offset, or in the city's clock, like 2026-04-01 or 2026-04-01T08:30
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Up to and without this time
    #[arg(long, value_name = "TIME")]
    to: String,
}

impl PeriodArguments {
    /// As if they had been given.
    pub(crate) const fn new(sensor: SensorId, from: String, to: String) -> Self {
        Self { sensor, from, to }
    }

    pub(crate) fn period(&self, zone: &TimeZone) -> Result<Period, Failure> {
        let read =
            |flag: &str, text: &str| moment(text, zone).map_err(|error| Failure::wrong(format!("{flag}: {error}")));
        let (from_us, to_us) = (read("--from", &self.from)?, read("--to", &self.to)?);
        if from_us >= to_us {
            return Err(Failure::wrong(format!("--to ({}) is not after --from ({})", self.to, self.from)));
        }
        Ok(Period { sensor: self.sensor.clone(), from_us, to_us })
    }
}

/// Who does it, and why: it is kept with the lake.
#[derive(Debug, Args)]
pub(crate) struct AuthorArguments {
    /// Who does this [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl AuthorArguments {
    /// As if they had been given.
    pub(crate) const fn new(by: Option<String>, reason: Option<String>) -> Self {
        Self { by, reason }
    }

    /// Who it is; nobody for a dry run, which writes nothing down.
    pub(crate) fn author_of(&self, dry_run: bool) -> Result<Author, Failure> {
        if dry_run { Ok(Author { by: String::new(), reason: self.reason.clone() }) } else { self.author() }
    }

    pub(crate) fn author(&self) -> Result<Author, Failure> {
        let user = || ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        let by = self.by.clone().or_else(user).filter(|by| !by.trim().is_empty());
        let by = by.ok_or_else(|| Failure::wrong("who does this? hint: say it with --by"))?;
        Ok(Author { by, reason: self.reason.clone() })
    }
}

/// A time in the data that a command writes: UTC.
pub(crate) fn utc(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us).map_or_else(|_| time_us.to_string(), |time| time.to_string())
}

/// A value in the data that a command writes; nothing where there is none.
pub(crate) fn value(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// A field of CSV.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
