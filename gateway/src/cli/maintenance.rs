//! `maintenance`: which sensors somebody is working on.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tjern_readings::clock::{Clock, SECOND_US};
use tjern_readings::configuration::{Period, nearest};
use tjern_readings::sensor::SensorId;

use super::{FAILED, WRONG, load, utc};
use crate::config::Config;
use crate::maintenance::{self, MaintenanceError, SensorPattern, Window};

/// What `maintenance` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway maintenance on --config landfall-01.toml --sensor landfalltjern/water_temperature --for 1h\n  \
    tjern-gateway maintenance on --config landfall-01.toml --sensor 'landfalltjern/*' --for 30min\n  \
    tjern-gateway maintenance off --config landfall-01.toml\n  tjern-gateway maintenance list --config landfall-01.toml\n\n\
    It works with and without a running gateway, which sees a change within a second.\n\
    Exit status: 0 when it is done, 1 when it failed, 2 for a wrong configuration or a sensor that it does not have."
)]
pub struct MaintenanceArguments {
    #[command(subcommand)]
    command: MaintenanceCommand,
}

#[derive(Debug, Subcommand)]
enum MaintenanceCommand {
    /// From now on, readings of these sensors are marked: quality 4, cause `maintenance`
    On {
        #[command(flatten)]
        place: ConfigArgument,
        /// A sensor's id, or all of a place: `place/*`; may be given several times
        #[arg(long, value_name = "SENSOR", required = true)]
        sensor: Vec<SensorPattern>,
        /// For how long, like 30min or 2h
        #[arg(long = "for", value_name = "DURATION")]
        duration: Period,
    },
    /// It is over: of these sensors, or of all where none is named
    Off {
        #[command(flatten)]
        place: ConfigArgument,
        /// As it was given to `on`
        #[arg(long, value_name = "SENSOR")]
        sensor: Vec<SensorPattern>,
    },
    /// What is under maintenance, until when
    List {
        #[command(flatten)]
        place: ConfigArgument,
    },
}

#[derive(Debug, Args)]
struct ConfigArgument {
    /// The gateway's configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Writes down, or shows, what is under maintenance.
pub(super) fn execute(arguments: MaintenanceArguments) -> ExitCode {
    let place = match &arguments.command {
        MaintenanceCommand::On { place, .. }
        | MaintenanceCommand::Off { place, .. }
        | MaintenanceCommand::List { place } => place,
    };
    let config = match load(&place.config) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let now_us = Clock::system().now_us();
    let done = match arguments.command {
        MaintenanceCommand::On { sensor, duration, .. } => {
            if let Some(problem) = sensor.iter().find_map(|sensor| unknown(&config, sensor)) {
                eprintln!("error: {problem}");
                return ExitCode::from(WRONG);
            }
            begin(&config, sensor, now_us, now_us.saturating_add(duration.micros()))
        }
        MaintenanceCommand::Off { sensor, .. } => end(&config, &sensor, now_us),
        MaintenanceCommand::List { .. } => list(&config, now_us),
    };
    match done {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// What is wrong with sensors that no bus has.
fn unknown(config: &Config, pattern: &SensorPattern) -> Option<String> {
    if config.sensors().any(|sensor| pattern.matches(sensor)) {
        return None;
    }
    let wrong = pattern.to_string();
    let hint = match nearest(&wrong, config.sensors().map(SensorId::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "the sensors are those of the configuration's points".to_owned(),
    };
    Some(format!("no point of `{}` has the sensor `{wrong}`; hint: {hint}", config.path().display()))
}

fn begin(config: &Config, sensors: Vec<SensorPattern>, now_us: i64, until_us: i64) -> Result<String, MaintenanceError> {
    let dir = &config.spool().dir;
    let mut windows = maintenance::read(dir)?;
    let mut told = String::new();
    for sensor in sensors {
        told += &format!("{sensor}: under maintenance until {}\n", utc(until_us));
        maintenance::begin(&mut windows, sensor, now_us, until_us);
    }
    maintenance::write(dir, &windows, now_us)?;
    Ok(told)
}

fn end(config: &Config, sensors: &[SensorPattern], now_us: i64) -> Result<String, MaintenanceError> {
    let dir = &config.spool().dir;
    let mut windows = maintenance::read(dir)?;
    let ended = match sensors {
        [] => maintenance::end(&mut windows, None, now_us),
        some => some.iter().map(|sensor| maintenance::end(&mut windows, Some(sensor), now_us)).sum(),
    };
    if ended == 0 {
        return Ok("nothing was under maintenance\n".to_owned());
    }
    maintenance::write(dir, &windows, now_us)?;
    Ok(format!("{ended} ended\n"))
}

fn list(config: &Config, now_us: i64) -> Result<String, MaintenanceError> {
    let mut windows = maintenance::read(&config.spool().dir)?;
    windows.retain(|window| window.until_us > now_us);
    if windows.is_empty() {
        return Ok("nothing is under maintenance\n".to_owned());
    }
    let line = |Window { sensors, from_us, until_us }: &Window| {
        let left_min = (until_us - now_us).div_euclid(60 * SECOND_US);
        format!("{sensors}: from {} until {} ({left_min} min left)\n", utc(*from_us), utc(*until_us))
    };
    Ok(windows.iter().map(line).collect())
}
