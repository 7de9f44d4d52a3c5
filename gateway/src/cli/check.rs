//! `check`: all that is wrong or odd with a configuration, and nothing started.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tjern_readings::clock::Clock;
use tjern_readings::configuration::{Problem, Severity};

use super::{FAILED, load, shown, tell_or_fail};
use crate::bus::load::{BusLoad, Measured, reckon};
use crate::config::{Config, aliases};
use crate::ports;
use crate::say;
use crate::upload::PlainLake;

/// What `check` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway check --config landfall-01.toml\n  tjern-gateway check --config landfall-01.toml && systemctl reload tjern-gateway\n\n\
    Warnings are told and do not fail.\n\
    Exit status: 0 when it can run, 1 when a bus is asked for more than its wire can carry or two have one port, 2 for a wrong configuration."
)]
pub struct CheckArguments {
    /// The gateway's configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Tells problems on stderr, and on stdout what there is where nothing is wrong.
pub(super) fn execute(arguments: &CheckArguments) -> ExitCode {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let mut problems = config.warnings().to_vec();
    problems.extend(missing_ports(&config, &ports::present(Path::new("/"))));
    problems.extend(passing_names(&config, Path::new("/")));
    problems.extend(ports_twice(&config));
    problems.extend(without_tls(&config));
    problems.extend(overloads(&config, Clock::system().now_us()));
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems.iter().for_each(|problem| say!("{}", shown(problem)));
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        return ExitCode::from(FAILED);
    }
    let told = tell_or_fail(&format!("{}\n", summary(&config, problems.len())));
    told.err().unwrap_or(ExitCode::SUCCESS)
}

fn summary(config: &Config, warnings: usize) -> String {
    let count = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let parts = [
        count(config.buses().len(), "bus", "buses"),
        count(config.device_count(), "device", "devices"),
        count(config.sensors().count(), "point", "points"),
    ];
    let warnings = if warnings == 0 { String::new() } else { format!(", {}", count(warnings, "warning", "warnings")) };
    format!("ok: {}{warnings}", parts.join(", "))
}

/// A port that is not there now may be there later: an adapter is plugged in when it is.
fn missing_ports(config: &Config, present: &[String]) -> Vec<Problem> {
    let named: BTreeSet<&str> = config.ports().collect();
    let missing = named.into_iter().filter(|port| !Path::new(port).exists());
    let problem = |port: &str| {
        let hint = match present {
            [] => "there is no serial port here; is the adapter plugged in?".to_owned(),
            some => format!("there are {}", some.iter().map(|port| format!("`{port}`")).collect::<Vec<_>>().join(", ")),
        };
        config.port_problem(port, Severity::Warning, format!("the port `{port}` does not exist here"), hint)
    };
    missing.map(problem).collect()
}

/// A port under a name that another adapter may have after the next start.
fn passing_names(config: &Config, root: &Path) -> Vec<Problem> {
    let named: BTreeSet<&str> = config.ports().collect();
    let problem = |port: &str| {
        let lasting = ports::lasting(root, port);
        let hint = format!("write `{lasting}`: that name stays when adapters change places");
        let message = format!("the port `{port}` has a name that may change");
        (lasting != port).then(|| config.port_problem(port, Severity::Warning, message, hint))
    };
    named.into_iter().filter_map(problem).collect()
}

/// Two buses on one port under two names: the second finds it taken.
fn ports_twice(config: &Config) -> Vec<Problem> {
    let problem = |(port, first): (&str, &str)| {
        let message = format!("the port `{port}` is `{first}` under another name");
        config.port_problem(port, Severity::Error, message, "put the devices under one bus".to_owned())
    };
    aliases(config.ports()).into_iter().map(problem).collect()
}

/// A lake on another machine over plain HTTP, as the environment here and the file of credentials say.
fn without_tls(config: &Config) -> Option<Problem> {
    let plain = PlainLake::of(config.lake(), config.upload().credentials_file.clone())?;
    Some(config.lake_problem(Severity::Warning, plain.to_string(), PlainLake::HINT.to_owned()))
}

/// Buses that are asked for more than their wires can carry, or nearly so: as `plan` reckons it, from a
/// line's speed and from what `run` has measured.
fn overloads(config: &Config, now_us: i64) -> Vec<Problem> {
    let folder = config.spool().dir.join("learned");
    let loads = config.buses().iter().map(|bus| reckon(bus, &Measured::load(&folder, &bus.name, now_us)));
    loads.filter(BusLoad::is_high).map(|load| overload(config, &load)).collect()
}

fn overload(config: &Config, load: &BusLoad) -> Problem {
    let percent = load.share.unwrap_or_default() * 100.0;
    let (severity, what) = match load.is_too_much() {
        true => (Severity::Error, "more than it can do"),
        false => (Severity::Warning, "nearly all that it can do: a failure or two, and slots are missed"),
    };
    let at_least = if load.is_at_least { "at least " } else { "" };
    let message = format!("this bus is asked for {what}: {at_least}{percent:.0} % of its time");
    let shortest = load.shortest.map_or_else(String::new, |shortest| {
        format!("; reading all its points once takes {at_least}{:.2} s", shortest.as_secs_f64())
    });
    let hint = format!("longer `every`, a faster line, or fewer points{shortest}; `plan` shows the requests");
    config.bus_problem(&load.bus, severity, message, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tjern_readings::configuration::ConfigText;

    #[test]
    fn a_port_that_is_not_there_is_told_with_those_that_are() {
        let text = "version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"s\"\n[[bus]]\nname = \"b\"\nkind = \"modbus-rtu\"\nport = \"/dev/no-such-port\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n[[bus.device.point]]\nsensor = \"a/b\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1h\"\n";
        let config = Config::parse(&ConfigText::new("g.toml", text)).expect("good");
        let [problem] = &missing_ports(&config, &["/dev/serial/by-id/usb-FTDI-0".to_owned()])[..] else {
            panic!("one problem");
        };
        assert_eq!((problem.line, problem.severity), (9, Severity::Warning));
        assert_eq!(problem.hint.as_deref(), Some("there are `/dev/serial/by-id/usb-FTDI-0`"));
        assert_eq!(summary(&config, 1), "ok: 1 bus, 1 device, 1 point, 1 warning");
        assert!(passing_names(&config, Path::new("/")).is_empty(), "of what is not there nothing is known");
    }

    /// Two adapters changed places at a start, and each bus asked the other's devices.
    #[test]
    fn a_name_that_may_change_is_told_with_one_that_stays() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(root.path().join("dev/serial/by-id")).expect("created");
        std::fs::write(root.path().join("dev/ttyUSB1"), "").expect("written");
        let by_id = root.path().join("dev/serial/by-id/usb-FTDI-A5");
        std::os::unix::fs::symlink(root.path().join("dev/ttyUSB1"), by_id).expect("linked");
        let text = "version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"s\"\n[[bus]]\nname = \"b\"\nkind = \"modbus-rtu\"\nport = \"/dev/ttyUSB1\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n[[bus.device.point]]\nsensor = \"a/b\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1h\"\n";
        let config = Config::parse(&ConfigText::new("g.toml", text)).expect("good");
        let [problem] = &passing_names(&config, root.path())[..] else { panic!("one problem") };
        assert_eq!((problem.line, problem.severity), (9, Severity::Warning));
        assert!(
            problem.hint.as_deref().is_some_and(|hint| hint.contains("/dev/serial/by-id/usb-FTDI-A5")),
            "{problem:?}"
        );
    }

    /// The one that came second was told at run time that its port is busy, for ever.
    #[test]
    fn one_port_under_two_names_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let (plain, by_id) = (folder.path().join("ttyUSB0"), folder.path().join("by-id"));
        std::fs::write(&plain, "").expect("written");
        std::os::unix::fs::symlink(&plain, &by_id).expect("linked");
        let mut text = "version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"s\"\n".to_owned();
        for (name, port) in [("a", &plain), ("b", &by_id)] {
            text += &format!(
                "[[bus]]\nname = \"{name}\"\nkind = \"modbus-rtu\"\nport = \"{}\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n[[bus.device.point]]\nsensor = \"{name}/b\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1h\"\n",
                port.display()
            );
        }
        let config = Config::parse(&ConfigText::new("g.toml", text)).expect("good as far as it is written");
        let [problem] = &ports_twice(&config)[..] else { panic!("one problem") };
        assert_eq!((problem.line, problem.severity), (21, Severity::Error));
        assert!(problem.message.contains("under another name"), "{}", problem.message);
    }
}
