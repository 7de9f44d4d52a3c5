//! `scan`: unit ids × baud rates × parities.

use std::time::{Duration, Instant};

use tjern_readings::reading::Cause;

use super::super::progress::{Progress, duration};
use super::super::target::{Ending, LineArguments, Target, hint, word};
use super::found::{FoundPoint, FoundUnit, configuration, setting};
use super::numbers;
use super::registers::tell;
use crate::config::{BusKind, Parity};
use crate::modbus::Master;
use crate::modbus::timing::REQUEST_CHARS;
use crate::modbus::transport::{Failure, ReadRequest, Table};

/// What most devices are delivered with, the most usual first.
const BAUDS: [u32; 6] = [9_600, 19_200, 38_400, 57_600, 115_200, 4_800];
const PARITIES: [Parity; 3] = [Parity::Even, Parity::None, Parity::Odd];

/// A device that is there answers within this; a scan has thousands that are not.
const TIMEOUT: Duration = Duration::from_millis(150);

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
    eprintln!(
        "{} unit ids at {} settings: {} if nobody answers",
        arguments.units.len(),
        targets.len(),
        duration(worst)
    );
    let mut lines = Vec::new();
    for (index, target) in targets.into_iter().enumerate() {
        let mut line = Line { target, units: Vec::new() };
        look(&mut line, &arguments.units, (&progress, (index * arguments.units.len()) as u64)).await?;
        lines.push(line);
    }
    progress.clear();
    conclude(&progress, &lines)
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

async fn look(line: &mut Line, units: &[u8], (progress, before): (&Progress, u64)) -> Result<(), Ending> {
    let mut master = line.target.master()?;
    let setting = setting(&line.target.kind);
    for (done, unit) in units.iter().enumerate() {
        progress.show(before + done as u64, &format!("{setting}  unit {unit}"));
        let asked = Instant::now();
        let (point, failure) = ask(&line.target, &mut master, *unit).await?;
        let took = format!("{:.0} ms", asked.elapsed().as_secs_f64() * 1e3);
        match (point, failure) {
            (Some(point), failure) => {
                let said = failure.map_or_else(|| "a value".to_owned(), |failure| failure.to_string());
                let place = format!("{}:{}", word(point.table), point.address);
                tell(progress, &format!("# {setting}  unit {unit}  {place}  {said}  {took}"))?;
                line.units.push(FoundUnit { unit_id: *unit, points: vec![point] });
            }
            (None, Some(failure)) if matches!(failure.cause, Cause::Crc | Cause::Malformed) => {
                tell(
                    progress,
                    &format!("# {setting}  unit {unit}  {failure}; {}", hint(failure.cause, &line.target.kind)),
                )?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}

/// Where a unit answers, with a value if it has one where one looks first.
async fn ask(target: &Target, master: &mut Master, unit: u8) -> Result<(Option<FoundPoint>, Option<Failure>), Ending> {
    let mut refused = None;
    for (table, address) in PLACES {
        let Some(request) = ReadRequest::new(table, address, 1) else { continue };
        match master.read(unit, request).await {
            Ok(_) => return Ok((Some(FoundPoint { table, address }), None)),
            // A converter answers so for a device that is not there.
            Err(failure) if matches!(failure.cause, Cause::Exception10 | Cause::Exception11) => {
                return Ok((None, None));
            }
            Err(failure) if failure.is_exception() => {
                refused.get_or_insert((FoundPoint { table, address }, failure));
            }
            Err(failure) if failure.cause == Cause::Unreachable => {
                return Err(target.ending_of_read(unit, "the line", &failure));
            }
            Err(failure) if refused.is_none() => return Ok((None, Some(failure))),
            Err(_) => break,
        }
    }
    Ok(refused.map_or((None, None), |(point, failure)| (Some(point), Some(failure))))
}

fn conclude(progress: &Progress, lines: &[Line]) -> Result<(), Ending> {
    // A line has one setting. Where units answer at several, the one with the most is the configuration.
    let Some(best) = lines.iter().rev().max_by_key(|line| line.units.len()).filter(|line| !line.units.is_empty())
    else {
        let hint = match lines.first().map(|line| &line.target.kind) {
            Some(BusKind::ModbusTcp { .. } | BusKind::ModbusRtuTcp { .. }) => {
                "the server is there: try `--timeout 1s`; some devices serve one client only: stop the gateway first"
            }
            _ => "check the wires and the supply, try `--timeout 1s`, other `--bauds` and `--parities`",
        };
        return Err(Ending::failed("nobody answered", hint));
    };
    for line in lines.iter().filter(|line| !line.units.is_empty() && !std::ptr::eq(*line, best)) {
        let units: Vec<String> = line.units.iter().map(|unit| unit.unit_id.to_string()).collect();
        tell(progress, &format!("# at {} as well: unit {}", setting(&line.target.kind), units.join(", ")))?;
    }
    let target = Target { timeout: best.target.timeout, kind: best.target.kind.clone() };
    tell(progress, &format!("\n{}", configuration(&target, &best.units)))
}
