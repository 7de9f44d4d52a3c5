//! `scan`: unit ids × baud rates × parities.
//!
//! Whoever hangs up on a unit, as some converters do where it does not answer, is connected to again for the next one. Only
//! a line on which nobody can be reached ends a scan: at once where nobody ever was, else after [`RECONNECTS`] attempts.

use std::time::{Duration, Instant};

use tjern_readings::reading::Cause;

use super::super::progress::{Progress, duration};
use super::super::target::{Ending, LineArguments, Target, word};
use super::found::{FoundPoint, FoundUnit, configuration, setting};
use super::numbers;
use super::registers::tell;
use crate::config::{BusKind, Parity};
use crate::modbus::Master;
use crate::modbus::timing::REQUEST_CHARS;
use crate::modbus::transport::{Failure, ReadRequest, Table};
use crate::say;

/// What most devices are delivered with, the most usual first.
const BAUDS: [u32; 6] = [9_600, 19_200, 38_400, 57_600, 115_200, 4_800];
const PARITIES: [Parity; 3] = [Parity::Even, Parity::None, Parity::Odd];

/// A device that is there answers within this; a scan has thousands that are not.
const TIMEOUT: Duration = Duration::from_millis(150);

/// A line that was there is tried again so often, after pauses that double from [`RECONNECT_PAUSE`]: some servers are busy for
/// a moment after they hung up.
const RECONNECTS: u32 = 5;
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// What is asked of a unit until one of it is answered with a value.
const PLACES: [(Table, u16); 4] = [(Table::Input, 0), (Table::Holding, 0), (Table::Input, 1), (Table::Holding, 1)];

/// What `scan` is told.
#[derive(Debug, clap::Args)]
pub(super) struct UnitsArguments {
    #[command(flatten)]
    line: LineArguments,
    /// Which unit ids, like `1-20,30`
    #[arg(long, value_name = "IDS", value_parser = numbers, default_value = "1-247")]
    units: std::vec::Vec<u8>,
    /// Which baud rates are tried on a port [default: that of `--baud`, or the usual six]
    #[arg(long, value_name = "BAUDS", value_delimiter = ',', conflicts_with_all = ["baud", "tcp", "rtu_tcp"])]
    bauds: Vec<u32>,
    /// Which parities are tried on a port [default: that of `--parity`, or all three]
    #[arg(long, value_name = "PARITIES", value_delimiter = ',', conflicts_with_all = ["parity", "tcp", "rtu_tcp"], value_parser = parity)]
    parities: Vec<Parity>,
}

fn parity(text: &str) -> Result<Parity, String> {
    match text {
        "none" => Ok(Parity::None),
        "even" => Ok(Parity::Even),
        "odd" => Ok(Parity::Odd),
        other => Err(format!("`{other}` is no parity: it is one of `none`, `even`, `odd`")),
    }
}

/// A setting, and who answered at it.
struct Line {
    target: Target,
    units: Vec<FoundUnit>,
    /// Units on which the connection was closed.
    hung_up: usize,
}

/// What became of a unit.
enum Found {
    /// It is there, and says no where one looks first, if it does.
    Point(FoundPoint, Option<Failure>),
    /// It is not there, as far as can be told.
    Nothing(Option<Failure>),
    /// The connection was closed on it.
    HungUp,
}

pub(super) async fn scan(arguments: UnitsArguments) -> Result<(), Ending> {
    let mut target = arguments.line.target()?.under_a_lasting_name();
    if !arguments.line.has_timeout() {
        target.timeout = TIMEOUT;
    }
    let targets = settings(&arguments, &target);
    let total = targets.len() * arguments.units.len();
    let progress = Progress::new(total as u64);
    let worst: Duration =
        targets.iter().map(silent).sum::<Duration>() * u32::try_from(arguments.units.len()).unwrap_or(1);
    say!("{} unit ids at {} settings: {} if nobody answers", arguments.units.len(), targets.len(), duration(worst));
    let (mut lines, mut met) = (Vec::new(), false);
    for (index, target) in targets.into_iter().enumerate() {
        let (master, before) = (target.master()?, (index * arguments.units.len()) as u64);
        let show = |done: usize, at: &str| progress.show(before + done as u64, at);
        lines.push(look((target, master), &arguments.units, &mut met, show, |line| tell(&progress, line)).await?);
    }
    progress.clear();
    tell(&progress, &conclusion(&lines)?)
}

/// The settings that are tried: on a port bauds and parities, elsewhere one.
fn settings(arguments: &UnitsArguments, target: &Target) -> Vec<Target> {
    let BusKind::ModbusRtu { serial, echo, .. } = &target.kind else { return vec![target.clone()] };
    let (baud, parity) = arguments.line.is_set();
    let bauds = match (arguments.bauds.as_slice(), baud) {
        ([], true) => vec![serial.baud],
        ([], false) => BAUDS.to_vec(),
        (bauds, _) => bauds.to_vec(),
    };
    let parities = match (arguments.parities.as_slice(), parity) {
        ([], true) => vec![serial.parity],
        ([], false) => PARITIES.to_vec(),
        (parities, _) => parities.to_vec(),
    };
    let with = |baud, parity| {
        let serial = crate::config::Serial { baud, parity, ..serial.clone() };
        Target { kind: BusKind::ModbusRtu { serial, echo: *echo, devices: Vec::new() }, timeout: target.timeout }
    };
    bauds.into_iter().flat_map(|baud| parities.iter().map(move |parity| with(baud, *parity))).collect()
}

/// What a unit that is not there costs.
fn silent(target: &Target) -> Duration {
    match &target.kind {
        BusKind::ModbusRtu { serial, .. } => {
            let line = serial.line();
            target.timeout + Duration::from_micros(line.chars_us(REQUEST_CHARS + 14) + line.silence_us()) + TIMEOUT / 5
        }
        _ => target.timeout * 2,
    }
}

/// Who answers at a setting. What is found is told as it is found, and where one is, shown. `met`: the line was reached before,
/// or is now.
async fn look(
    (target, mut master): (Target, Master),
    units: &[u8],
    met: &mut bool,
    show: impl Fn(usize, &str),
    tell: impl Fn(&str) -> Result<(), Ending>,
) -> Result<Line, Ending> {
    let setting = setting(&target.kind);
    let mut line = Line { target, units: Vec::new(), hung_up: 0 };
    for (done, unit) in units.iter().enumerate() {
        show(done, &format!("{setting}  unit {unit}"));
        let asked = Instant::now();
        let found = reach(&line.target, &mut master, *unit, met).await?;
        let took = format!("{:.0} ms", asked.elapsed().as_secs_f64() * 1e3);
        match found {
            Found::Point(point, failure) => {
                let (points, refused) = if failure.is_none() { (vec![point], None) } else { (Vec::new(), Some(point)) };
                let said = failure.map_or_else(|| "a value".to_owned(), |failure| failure.to_string());
                let place = format!("{}:{}", word(point.table), point.address);
                tell(&format!("# {setting}  unit {unit}  {place}  {said}  {took}"))?;
                line.units.push(FoundUnit { unit_id: *unit, points, refused });
            }
            Found::Nothing(Some(failure)) if is_of_interest(&failure) => {
                tell(&format!("# {setting}  unit {unit}  {failure}; {}", line.target.hint(&failure)))?;
            }
            Found::Nothing(_) => {}
            Found::HungUp => line.hung_up += 1,
        }
    }
    Ok(line)
}

/// Whether something was heard where no answer came.
const fn is_of_interest(failure: &Failure) -> bool {
    failure.has_strangers() || matches!(failure.cause, Cause::Crc | Cause::Malformed)
}

/// What becomes of a unit, unless nobody can be reached.
async fn reach(target: &Target, master: &mut Master, unit: u8, met: &mut bool) -> Result<Found, Ending> {
    let mut attempts = 0;
    loop {
        match ask(master, unit).await {
            Ok(found) => {
                *met = true;
                if matches!(found, Found::HungUp) {
                    master.try_at_once();
                }
                return Ok(found);
            }
            Err(_) if *met && attempts < RECONNECTS => {
                tokio::time::sleep(RECONNECT_PAUSE * 2_u32.pow(attempts)).await;
                attempts += 1;
                master.try_at_once();
            }
            Err(failure) => return Err(target.ending_of_read(unit, "the line", &failure)),
        }
    }
}

/// Where a unit answers, with a value if it has one where one looks first; an error where nobody is reached.
async fn ask(master: &mut Master, unit: u8) -> Result<Found, Failure> {
    let mut refused = None;
    for (table, address) in PLACES {
        let Some(request) = ReadRequest::new(table, address, 1) else { continue };
        match master.read(unit, request).await {
            Ok(_) => return Ok(Found::Point(FoundPoint { table, address }, None)),
            // A converter answers so for a device that is not there.
            Err(failure) if matches!(failure.cause, Cause::Exception10 | Cause::Exception11) => {
                return Ok(Found::Nothing(None));
            }
            Err(failure) if failure.is_exception() => {
                refused.get_or_insert((FoundPoint { table, address }, failure));
            }
            Err(failure) if failure.is_hang_up() && refused.is_none() => return Ok(Found::HungUp),
            Err(failure) if failure.cause == Cause::Unreachable && !failure.is_hang_up() => return Err(failure),
            Err(failure) if refused.is_none() => return Ok(Found::Nothing(Some(failure))),
            Err(_) => {
                master.try_at_once();
                break;
            }
        }
    }
    Ok(refused.map_or(Found::Nothing(None), |(point, failure)| Found::Point(point, Some(failure))))
}

/// What is told at the end: the configuration of the setting at which most answer. A line has one setting.
fn conclusion(lines: &[Line]) -> Result<String, Ending> {
    let best = lines.iter().rev().max_by_key(|line| line.units.len()).filter(|line| !line.units.is_empty());
    let Some(best) = best else { return Err(nobody(lines)) };
    let mut text = String::new();
    for line in lines.iter().filter(|line| !line.units.is_empty() && !std::ptr::eq(*line, best)) {
        let units: Vec<String> = line.units.iter().map(|unit| unit.unit_id.to_string()).collect();
        text += &format!("# at {} as well: unit {}\n", setting(&line.target.kind), units.join(", "));
    }
    Ok(format!("{text}\n{}", configuration(&best.target, &best.units)))
}

fn nobody(lines: &[Line]) -> Ending {
    let hung_up: usize = lines.iter().map(|line| line.hung_up).sum();
    let is_server = lines.iter().any(|line| !matches!(line.target.kind, BusKind::ModbusRtu { .. }));
    let hint = match (is_server, hung_up) {
        (true, 0) => {
            "the server is there: try `--timeout 1s`; some devices serve one client only: stop the gateway first"
        }
        (true, _) => {
            "the server is there: which ids are behind it, and does it let this machine in? some serve one client only: stop the gateway first"
        }
        (false, _) => "check the wires and the supply, try `--timeout 1s`, other `--bauds` and `--parities`",
    };
    let message = match hung_up {
        0 => "nobody answered".to_owned(),
        count => format!("nobody answered; the connection was closed on {count} unit ids"),
    };
    Ending::failed(message, hint)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use clap::Parser;
    use tjern_readings::configuration::ConfigText;

    use super::*;
    use crate::config::{Config, Serial};
    use crate::modbus::faults::Dial;
    use crate::modbus::faults::device::{Device, Habits, Words};
    use crate::simulate::bad_line::{Framing, LineFaults};

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        units: UnitsArguments,
    }

    fn typed(words: &[&str]) -> (UnitsArguments, Vec<Target>) {
        let arguments = Typed::try_parse_from([&["x", "--port", "/dev/ttyUSB0"], words].concat()).expect("usage").units;
        let target = Target { timeout: TIMEOUT, ..arguments.line.target().expect("a line") };
        let targets = settings(&arguments, &target);
        (arguments, targets)
    }

    fn serial(target: &Target) -> &Serial {
        match &target.kind {
            BusKind::ModbusRtu { serial, .. } => serial,
            other => panic!("{other:?}"),
        }
    }

    /// A line in memory with these units on it, which are heard at one setting only.
    fn line(units: u8) -> Dial {
        let habits = Habits::default();
        let (faults, turnaround) = (LineFaults::default(), Duration::from_millis(2));
        let moment = Arc::new(|| 0);
        Device { framing: Framing::Rtu, units, faults, seed: 1, turnaround, words: Words::OfPoll, habits, moment }
            .start()
            .0
    }

    async fn looked(target: Target, units: &[u8], is_heard: bool) -> Line {
        let mut master = target.master().expect("a line");
        if let Master::Rtu(master) = &mut master {
            master.dial = Some(line(if is_heard { 3 } else { 0 }));
        }
        let found = look((target, master), units, &mut false, |_, _| {}, |_| Ok(())).await;
        found.unwrap_or_else(|ending| panic!("{ending:?}"))
    }

    /// A device that nobody knows the settings of is heard at one of eighteen.
    #[tokio::test(start_paused = true)]
    async fn a_device_is_found_at_its_baud_rate_and_parity_and_at_no_other() {
        for (baud, parity) in [(9_600, Parity::Even), (57_600, Parity::Odd), (4_800, Parity::None)] {
            let (arguments, targets) = typed(&["--units", "1-5"]);
            let mut lines = Vec::new();
            for target in targets {
                let is_heard = (serial(&target).baud, serial(&target).parity) == (baud, parity);
                lines.push(looked(target, &arguments.units, is_heard).await);
            }
            let tried: HashSet<String> = lines.iter().map(|line| setting(&line.target.kind)).collect();
            assert_eq!((tried.len(), lines.len()), (18, 18), "each setting once: {tried:?}");
            let text = conclusion(&lines).unwrap_or_else(|ending| panic!("{ending:?}"));
            let config = Config::parse(&ConfigText::new("found.toml", &text)).unwrap_or_else(|error| panic!("{error}"));
            let BusKind::ModbusRtu { serial, devices, .. } = &config.buses()[0].kind else { panic!("{text}") };
            assert_eq!((serial.baud, serial.parity), (baud, parity), "{text}");
            assert_eq!(devices.iter().map(|device| device.unit_id).collect::<Vec<_>>(), [1, 2, 3], "{text}");
        }
    }

    #[test]
    fn what_is_named_is_all_that_is_tried() {
        let tried = |words: &[&str]| typed(words).1.iter().map(|target| setting(&target.kind)).collect::<Vec<_>>();
        let named = ["--bauds", "19200,9600", "--parities", "odd,none"];
        assert_eq!(tried(&named), ["19200 8O1", "19200 8N1", "9600 8O1", "9600 8N1"]);
        assert_eq!(tried(&["--baud", "9600", "--parity", "even"]), ["9600 8E1"]);
        assert_eq!(tried(&["--baud", "9600"]).len(), 3);
        assert_eq!(tried(&["--parity", "odd"]).len(), 6);
    }
}
