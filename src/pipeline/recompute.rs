//! `tjern pipeline recompute`: a sensor was configured wrongly; its readings are computed again.
//!
//! The gateway's room knows how a configuration makes values, the pipeline's which readings there are: this
//! joins the two.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};
use tjern_gateway::value as gateway;
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::correct::again::Pending;
use tjern_pipeline::correct::recompute::{Again, Formula, Formulas, RecomputeOutcome, recompute_within};
use tjern_pipeline::import::ImportMap;
use tjern_readings::configuration::ConfigText;
use tjern_readings::sensor::SensorId;

use super::change::{self, AuthorArguments, LakeArguments, PeriodArguments, quoted, utc, value};
use super::job::Workplace;
use crate::failure::Failure;
use tjern_gateway::say;

/// What `recompute` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern pipeline recompute --sensor landfalltjern/water_temperature --from 2026-04-01 --to 2026-07-01 \\\n      \
    --scale 0.01 --reason \"the manual says hundredths\" --config tjern.toml\n  \
    tjern pipeline recompute --sensor elva/level --from 2026-04-01 --to 2026-07-01 --order cdab --dry-run --config tjern.toml\n\n\
    What is not given was right: it is taken from the configuration that each reading was measured under. The readings\n\
    get a higher revision; what was before stays in `readings`. Doing it again changes nothing.\n\n\
    stdout: readings that were left as they are, as CSV with the reason; with --dry-run also what would change.\n\
    Exit status: 0 all were computed, 1 failed, some were left or there is no reading, 2 wrong usage or configuration."
)]
pub(crate) struct RecomputeArguments {
    #[command(flatten)]
    period: PeriodArguments,
    /// What raw numbers should have been multiplied by
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    scale: Option<f64>,
    /// What should have been added then
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    offset: Option<f64>,
    /// In which order the bytes should have been read, like `cdab`
    #[arg(long, value_name = "ORDER")]
    order: Option<String>,
    /// Only write what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    author: AuthorArguments,
    #[command(flatten)]
    lake: LakeArguments,
}

/// Computes a sensor's readings again.
pub(crate) async fn execute(arguments: &RecomputeArguments) -> Result<(), Failure> {
    let formulas = arguments.formulas()?;
    let author = arguments.author.author_of(arguments.dry_run)?;
    let Workplace { city, lake, stop } = change::open_or_look(&arguments.lake, arguments.dry_run).await?;
    let period = arguments.period.period(&city.timezone)?;
    let bounds = Bounds::from(&city.jobs.compact);
    let working = Box::pin(recompute_within(&lake, &period, &formulas, &author, arguments.dry_run, &bounds));
    let Some(done) = stop.run_until_cancelled(working).await else {
        return Err(Failure::failed("interrupted; hint: run it again, what is done is not done twice"));
    };
    let outcome = done.map_err(Failure::failed)?;
    if outcome.readings == 0 {
        return Err(Failure::failed(format!("recompute: `{}` has no reading in this period", period.sensor)));
    }
    write(period.sensor.as_str(), &outcome).map_err(Failure::failed)?;
    let said = said(&outcome, arguments.dry_run);
    if !outcome.left.is_empty() {
        return Err(Failure::failed(format!("recompute: {said}; hint: stdout has what was left, and why")));
    }
    say!("recompute: {said}");
    Ok(())
}

fn said(outcome: &RecomputeOutcome, dry_run: bool) -> String {
    let RecomputeOutcome { readings, corrected, already, without_value, left, .. } = outcome;
    let done = if dry_run { "would be corrected" } else { "were corrected" };
    format!(
        "of {readings} readings {corrected} {done}, {already} were right already, {without_value} have no value, {} are left as they are",
        left.len()
    )
}

fn write(sensor: &str, outcome: &RecomputeOutcome) -> std::io::Result<()> {
    if outcome.left.is_empty() && outcome.would_change.is_empty() {
        return Ok(());
    }
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(stdout, "sensor,time,before,after,left")?;
    for changed in &outcome.would_change {
        writeln!(stdout, "{sensor},{},{},{},", utc(changed.time_us), value(changed.before), value(changed.after))?;
    }
    for left in &outcome.left {
        writeln!(stdout, "{sensor},{},{},,{}", utc(left.time_us), value(left.value), quoted(&left.reason))?;
    }
    stdout.flush()
}

impl RecomputeArguments {
    fn formulas(&self) -> Result<FromConfigurations, Failure> {
        if self.scale.is_none() && self.offset.is_none() && self.order.is_none() {
            return Err(Failure::wrong("nothing is to be changed; hint: give --scale, --offset or --order"));
        }
        if self.scale.is_some_and(|scale| !scale.is_finite() || scale == 0.0)
            || self.offset.is_some_and(|offset| !offset.is_finite())
        {
            return Err(Failure::wrong("--scale is finite and not zero, --offset is finite"));
        }
        let order = self.order.as_deref().map(str::parse).transpose();
        let order = order.map_err(|error| Failure::wrong(format!("--order: {error}")))?;
        let change = gateway::Change { scale: self.scale, offset: self.offset, order };
        Ok(FromConfigurations { change, order: self.order.clone() })
    }
}

/// The formulas of gateways' configurations, and of the maps of imports.
pub(super) struct FromConfigurations {
    change: gateway::Change,
    order: Option<String>,
}

impl Formulas for FromConfigurations {
    fn formula(&self, configuration: &str, sensor: &SensorId) -> Result<Formula, String> {
        if let Ok(map) = ImportMap::read(&ConfigText::new("the map of an import", configuration)) {
            return self.of_import(&map, sensor);
        }
        let formula = self.change.formula(configuration, sensor).map_err(|error| error.to_string())?;
        Ok(Box::new(move |stored| match formula.again(stored) {
            Ok(gateway::Again::Value(value)) => Ok(Again::Value(value)),
            Ok(gateway::Again::Missing(cause)) => Ok(Again::Missing(cause)),
            Ok(gateway::Again::AsItIs) => Ok(Again::AsItIs),
            Err(reason) => Err(reason.to_string()),
        }))
    }

    fn words(&self) -> Value {
        json!({ "scale": self.change.scale, "offset": self.change.offset, "order": self.order })
    }
}

impl FromConfigurations {
    /// The formulas that the record of a recomputation asks for; none where it cannot be read.
    pub(super) fn of_record(record: &Pending) -> Option<Self> {
        let number = |name: &str| record.word(name).and_then(Value::as_f64);
        let order = record.word("order").and_then(Value::as_str).map(str::to_owned);
        let parsed = order.as_deref().map(str::parse).transpose().ok()?;
        let change = gateway::Change { scale: number("scale"), offset: number("offset"), order: parsed };
        Some(Self { change, order })
    }

    fn of_import(&self, map: &ImportMap, sensor: &SensorId) -> Result<Formula, String> {
        if self.order.is_some() {
            return Err("it was imported from a file, which has no order of bytes".to_owned());
        }
        let before = map.scaling(sensor).ok_or("the map of its import has no column for this sensor")?;
        let after = self.change.scaling(before);
        Ok(Box::new(move |stored| {
            let Ok(value) = stored else { return Ok(Again::AsItIs) };
            let raw = if before.is_identity() { Some(value) } else { before.nearest_raw(value) };
            let raw = raw.ok_or("no number of the file gives this value by the map in force")?;
            let value = after.apply(raw);
            if value.is_finite() { Ok(Again::Value(value)) } else { Err(format!("it would be {value}")) }
        }))
    }
}
