//! `plan`: what the gateway will ask, and whether its buses can do it.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tjern_readings::clock::Clock;

use super::{FAILED, load, tell_or_fail};
use crate::bus::load::{BusLoad, Measured, PlannedRequest, reckon};
use crate::config::{Bus, BusKind};
use crate::modbus::transport::Table;
use crate::say;

/// What `plan` is told.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tjern-gateway plan --config landfall-01.toml\n\n\
    Reckoned from a line's speed, the pauses that are configured, and what `run` has measured and found refused; never guessed.\n\
    Exit status: 0, 1 where a bus is asked for more than it can do, 2 for a wrong configuration.")]
pub struct PlanArguments {
    /// The gateway's configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Prints the plan of every bus; status 1 where one is asked for more than it can do.
pub(super) fn execute(arguments: &PlanArguments) -> ExitCode {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let (folder, now_us) = (config.spool().dir.join("learned"), Clock::system().now_us());
    let mut too_much = false;
    for bus in config.buses() {
        let load = reckon(bus, &Measured::load(&folder, &bus.name, now_us));
        if let Err(status) = tell_or_fail(&describe(bus, &load)) {
            return status;
        }
        too_much |= load.is_too_much();
        if load.is_too_much() {
            say!(
                "error: bus `{}` is asked for more than it can do; hint: longer `every`, a faster line, or fewer points",
                bus.name
            );
        } else if load.is_high() {
            say!("warning: bus `{}` is nearly full: a failure or two, and slots are missed", bus.name);
        }
    }
    if too_much { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

fn describe(bus: &Bus, load: &BusLoad) -> String {
    let mut text = format!("bus {}\n", bus.name);
    if let BusKind::TextLines { points, .. } = &bus.kind {
        // Writing to a text does not fail.
        let _ = writeln!(text, "  {} points from lines of text: nothing is planned", points.len());
        return text;
    }
    for one in &load.requests {
        let _ = writeln!(text, "  {}", request(one));
    }
    let at_least = if load.is_at_least { "at least " } else { "" };
    let _ = match (load.share, load.shortest) {
        (Some(share), Some(shortest)) => {
            let percent = share * 100.0;
            writeln!(text, "  load {at_least}{percent:.1} %, shortest period {at_least}{}", time(shortest))
        }
        _ => writeln!(text, "  load not known: a device on TCP was not measured yet, which `run` does"),
    };
    text
}

fn request(one: &PlannedRequest) -> String {
    let table = Table::ALL.iter().find(|(_, table)| *table == one.request.table()).map_or("", |(word, _)| word);
    let place = format!("{table}:{}", one.request.address());
    let (device, count, points) =
        (format!("{} (unit {})", one.device, one.unit_id), one.request.count(), one.sensors.len());
    let takes = one.time.map_or_else(|| "not known".to_owned(), time);
    let every = time(one.every);
    let refused = if one.is_refused { ", refused until now" } else { "" };
    format!("{device:<24} {place:<16} count {count:<4} points {points:<4} every {every:<10} takes {takes}{refused}")
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 120.0 => format!("{seconds:.2} s"),
        seconds if seconds < 2.0 * 3_600.0 => format!("{:.1} min", seconds / 60.0),
        seconds if seconds < 2.0 * 86_400.0 => format!("{:.1} h", seconds / 3_600.0),
        seconds => format!("{:.1} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_a_unit_that_a_person_counts_in() {
        let shown = |seconds| time(Duration::from_secs(seconds));
        assert_eq!([60, 3_600, 6 * 3_600, 36_500 * 86_400].map(shown), ["60.00 s", "60.0 min", "6.0 h", "36500.0 d"]);
    }
}
