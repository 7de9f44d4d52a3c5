//! `maintenance`: which sensors somebody is working on.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tjern_readings::clock::SECOND_US;
use tjern_readings::configuration::{Period, nearest};
use tjern_readings::sensor::SensorId;

use super::{FAILED, WRONG, load, tell_or_fail, utc};
use crate::clock::{Witness, known_us};
use crate::config::Config;
use crate::maintenance::{self, MaintenanceError, Now, SensorPattern, Window};
use crate::say;

/// What `maintenance` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway maintenance on --config landfall-01.toml --sensor landfalltjern/water_temperature --for 1h\n  \
    tjern-gateway maintenance on --config landfall-01.toml --sensor 'landfalltjern/*' --for 30min\n  \
    tjern-gateway maintenance off --config landfall-01.toml\n  tjern-gateway maintenance list --config landfall-01.toml\n\n\
    It works with and without a running gateway, which sees a change with the next reading.\n\
    Exit status: 0 when it is done, 1 when it failed or a sensor that was named to `off` still is under maintenance by another\n\
    window, 2 for a wrong configuration or a sensor that it does not have."
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
    let now = Now::of_machine();
    let done = match arguments.command {
        MaintenanceCommand::On { sensor, duration, .. } => {
            if let Some(problem) = sensor.iter().find_map(|sensor| unknown(&config, sensor)) {
                say!("error: {problem}");
                return ExitCode::from(WRONG);
            }
            begin(&config, sensor, &now, duration.micros()).map(Done::all)
        }
        MaintenanceCommand::Off { sensor, .. } => end(&config, &sensor, &now),
        MaintenanceCommand::List { .. } => list(&config, &now).map(Done::all),
    };
    match done {
        Ok(Done { told, left }) => {
            if let Err(status) = tell_or_fail(&told) {
                return status;
            }
            left.iter().for_each(|left| say!("error: {left}"));
            if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Err(error) => {
            say!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// What was done, and what was asked for and is not.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    told: String,
    left: Vec<String>,
}

impl Done {
    const fn all(told: String) -> Self {
        Self { told, left: Vec::new() }
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

fn begin(config: &Config, sensors: Vec<SensorPattern>, now: &Now, for_us: i64) -> Result<String, MaintenanceError> {
    let is_known = || config.clock().trusted || Witness::system().believes(now.clock_us, known_us(None, now.clock_us));
    if now.since_boot.is_none() && !is_known() {
        return Err(MaintenanceError::ClockUnknown);
    }
    maintenance::change(&config.spool().dir, now, |windows| {
        let mut told = String::new();
        let (until, minutes) = (utc(now.clock_us.saturating_add(for_us)), minutes(for_us));
        for sensor in sensors {
            told +=
                &format!("{sensor}: under maintenance until {until} by this machine's clock, {minutes} min from now\n");
            maintenance::begin(windows, sensor, now, for_us);
        }
        (true, told)
    })
}

fn end(config: &Config, sensors: &[SensorPattern], now: &Now) -> Result<Done, MaintenanceError> {
    if !config.spool().dir.is_dir() {
        return Ok(end_of(&mut Vec::new(), sensors, now).1);
    }
    maintenance::change(&config.spool().dir, now, |windows| {
        let (ended, done) = end_of(windows, sensors, now);
        (ended > 0, done)
    })
}

/// Ends what was named, or all. A sensor that another open window holds is still under maintenance, and whoever
/// ended it must not believe that its readings count again.
fn end_of(windows: &mut Vec<Window>, sensors: &[SensorPattern], now: &Now) -> (usize, Done) {
    if sensors.is_empty() {
        let ended = maintenance::end(windows, None, now);
        let told = if ended == 0 { "nothing was under maintenance\n".to_owned() } else { format!("{ended} ended\n") };
        return (ended, Done::all(told));
    }
    let ended_of = |sensor| maintenance::end(windows, Some(sensor), now);
    let ended: Vec<usize> = sensors.iter().map(ended_of).collect();
    let count: usize = ended.iter().sum();
    let mut done = Done::all(if count > 0 { format!("{count} ended\n") } else { String::new() });
    for (sensor, ended) in sensors.iter().zip(ended) {
        let open = windows.iter().filter(|window| window.left_us(now) > 0).map(|window| window.sensors.to_string());
        let named = sensor.to_string();
        match open.into_iter().find_map(|other| Some((still(&named, &other)?, other))) {
            Some((what, other)) => {
                done.left.push(format!("{what}; hint: `maintenance off --sensor '{other}'`"));
            }
            None if ended == 0 => done.told += &format!("`{named}` was not under maintenance\n"),
            None => {}
        }
    }
    (count, done)
}

/// What is still under maintenance of what was named, if an open window has it, or some of it.
fn still(named: &str, open: &str) -> Option<String> {
    let covers = |pattern: &str, other: &str| pattern.strip_suffix('*').is_some_and(|place| other.starts_with(place));
    if covers(open, named) {
        return Some(format!("`{named}` is still under maintenance by `{open}`"));
    }
    covers(named, open).then(|| format!("`{open}` of `{named}` is still under maintenance"))
}

fn list(config: &Config, now: &Now) -> Result<String, MaintenanceError> {
    let mut windows = maintenance::read(&config.spool().dir)?;
    windows.retain(|window| window.left_us(now) > 0);
    if windows.is_empty() {
        return Ok("nothing is under maintenance\n".to_owned());
    }
    let line = |window: &Window| {
        let (Window { sensors, from_us, until_us, .. }, left_min) = (window, minutes(window.left_us(now)));
        format!("{sensors}: from {} until {} ({left_min} min left)\n", utc(*from_us), utc(*until_us))
    };
    Ok(windows.iter().map(line).collect())
}

/// Whole minutes, begun ones counted: what is not over is never told as 0 minutes left.
const fn minutes(left_us: i64) -> i64 {
    let minute_us = 60 * SECOND_US;
    left_us / minute_us + (left_us % minute_us > 0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sensors: &str) -> Window {
        Window { sensors: sensors.parse().expect("a pattern"), from_us: 0, until_us: 100, since_boot: None }
    }

    fn off(windows: &[&str], sensor: &str) -> (usize, Done) {
        let mut windows: Vec<Window> = windows.iter().map(|sensors| window(sensors)).collect();
        end_of(&mut windows, &[sensor.parse().expect("a pattern")], &Now { clock_us: 50, since_boot: None })
    }

    #[test]
    fn who_ends_a_sensor_learns_that_another_window_still_holds_it() {
        let done = |told: &str, left: &[&str]| Done {
            told: told.to_owned(),
            left: left.iter().map(|left| (*left).to_owned()).collect(),
        };
        let held = "`tarn/a` is still under maintenance by `tarn/*`; hint: `maintenance off --sensor 'tarn/*'`";
        assert_eq!(off(&["tarn/*"], "tarn/a"), (0, done("", &[held])));
        assert_eq!(off(&["tarn/*", "tarn/a"], "tarn/a"), (1, done("1 ended\n", &[held])));
        let part = "`tarn/a` of `tarn/*` is still under maintenance; hint: `maintenance off --sensor 'tarn/a'`";
        assert_eq!(off(&["tarn/a"], "tarn/*"), (0, done("", &[part])));
        assert_eq!(off(&["tarn/a"], "tarn/a"), (1, done("1 ended\n", &[])));
        assert_eq!(off(&["tarn/a", "tar/*"], "tarn/b"), (0, done("`tarn/b` was not under maintenance\n", &[])));
    }

    #[test]
    fn what_is_not_over_is_not_told_as_no_minutes_left() {
        assert_eq!([1, 60 * SECOND_US, 60 * SECOND_US + 1].map(minutes), [1, 1, 2]);
    }
}
