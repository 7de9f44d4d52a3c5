//! `scan registers`: each address by itself. A block that is refused hides the addresses in it that are there,
//! and one that is answered hides those that are not.

use tjern_readings::reading::Cause;

use super::super::progress::Progress;
use super::super::target::{Addresses, Ending, LineArguments, word};
use super::found::{FoundPoint, FoundUnit, configuration};
use crate::modbus::Master;
use crate::modbus::transport::{Answer, ReadRequest};

/// After so many addresses in a row without any answer, the device is not there; unless it still answers where it did, and
/// is silent where it has nothing.
const SILENCES_MAX: u32 = 3;

/// What `scan registers` is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tjern-gateway scan registers --port /dev/ttyUSB0 --baud 9600 --unit-id 1 input:0-200 > found.toml"
)]
pub(super) struct RegistersArguments {
    #[command(flatten)]
    line: LineArguments,
    /// The device's address on the line
    #[arg(long, value_name = "ID")]
    unit_id: u8,
    /// The table and the addresses, like `input:0-200`
    #[arg(value_name = "REGISTERS")]
    registers: Addresses,
}

pub(super) async fn scan(arguments: RegistersArguments) -> Result<(), Ending> {
    let target = arguments.line.target()?.under_a_lasting_name();
    let mut master = target.master()?;
    let (unit, Addresses { table, first, last }) = (arguments.unit_id, arguments.registers);
    let progress = Progress::new(u64::from(last - first) + 1);
    let (mut points, mut silences, mut answers) = (Vec::new(), 0, 0);
    for (done, address) in (first..=last).enumerate() {
        progress.show(done as u64, &format!("{}:{address}", word(table)));
        let Some(request) = ReadRequest::new(table, address, 1) else { continue };
        let place = format!("{}:{address}", word(table));
        let said = match master.read(unit, request).await {
            Ok(answer) => {
                points.push(FoundPoint { table, address });
                shown(&answer)
            }
            // Not there, as most are.
            Err(failure) if [Cause::Exception2, Cause::Exception3].contains(&failure.cause) => {
                (answers, silences) = (answers + 1, 0);
                continue;
            }
            Err(failure) if failure.is_exception() => failure.to_string(),
            Err(failure) => {
                silences += 1;
                // Some converters hang up where a device is silent.
                master.try_at_once();
                let is_gone = failure.cause == Cause::Unreachable && !failure.is_hang_up()
                    || silences >= SILENCES_MAX && !still_answers(&mut master, unit, points.last()).await;
                if is_gone {
                    progress.clear();
                    return Err(target.ending_of_read(unit, &place, &failure));
                }
                silences %= SILENCES_MAX;
                tell(&progress, &format!("# {place}  {failure}"))?;
                continue;
            }
        };
        (answers, silences) = (answers + 1, 0);
        tell(&progress, &format!("# {place}  {said}"))?;
    }
    progress.clear();
    if points.is_empty() {
        let message = format!("unit {unit} has none of {}:{first}-{last} ({answers} refused)", word(table));
        return Err(Ending::failed(message, "try another table, or other addresses"));
    }
    tell(&progress, &format!("\n{}", configuration(&target, &[FoundUnit { unit_id: unit, points, refused: None }])))
}

/// Whether the device has what it had.
async fn still_answers(master: &mut Master, unit: u8, found: Option<&FoundPoint>) -> bool {
    match found.and_then(|point| ReadRequest::new(point.table, point.address, 1)) {
        Some(request) => master.read(unit, request).await.is_ok(),
        None => false,
    }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Bits(bits) => bits.first().map(|bit| u8::from(*bit).to_string()).unwrap_or_default(),
        Answer::Registers(registers) => registers
            .first()
            .map(|register| format!("{register:04x}  {register}  {}", register.cast_signed()))
            .unwrap_or_default(),
    }
}

/// A line of data; the bar stands below it again.
pub(super) fn tell(progress: &Progress, line: &str) -> Result<(), Ending> {
    progress.clear();
    super::super::tell(&format!("{line}\n")).map_err(|error| Ending::untold(&error))
}
