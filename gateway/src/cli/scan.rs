//! `scan`: who is on a line, at which speed, and what they hold; a ready configuration at the end.
//!
//! What is written to stdout is a configuration as a whole: what was found stands in comments, so that
//! `scan … > found.toml` can be used as it is.

mod found;
mod registers;
mod units;

use std::process::ExitCode;

/// What `scan` is told.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  tjern-gateway scan --port /dev/ttyUSB0 > found.toml\n  \
    tjern-gateway scan --port /dev/ttyUSB0 --units 1-20 --bauds 9600,19200 --parities even,none\n  \
    tjern-gateway scan --tcp 10.0.3.7:502\n  \
    tjern-gateway scan registers --port /dev/ttyUSB0 --baud 9600 --unit-id 1 input:0-200\n\n\
    It only reads. Where a gateway runs on this machine its ports, and lines behind `--rtu-tcp`, are not asked: stop it first.\n\
    One on another machine, or in a container, is not noticed: then answers to it may pass for answers to the scan.\n\
    What it finds goes to stdout as a configuration, progress to stderr;\n\
    a device that refuses what it is asked stands in it as a comment, with the command that finds what it has.\n\
    Exit status: 0, 1 where nothing was found, 2 for wrong usage or a wrong configuration."
)]
pub struct ScanArguments {
    #[command(subcommand)]
    what: Option<ScanWhat>,
    #[command(flatten)]
    units: units::UnitsArguments,
}

#[derive(Debug, clap::Subcommand)]
enum ScanWhat {
    /// Which registers a device has: they are asked for one by one, since a block hides the holes
    Registers(registers::RegistersArguments),
}

/// Looks who is there.
pub(super) async fn execute(arguments: ScanArguments) -> ExitCode {
    let result = match arguments.what {
        Some(ScanWhat::Registers(registers)) => Box::pin(registers::scan(registers)).await,
        None => Box::pin(units::scan(arguments.units)).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(ending) => ending.tell(),
    }
}

/// A word or a range of words: `1-20,30`.
fn numbers(text: &str) -> Result<Vec<u8>, String> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u8>().map_err(|_| format!("`{text}` is no unit id (0 to 255)"));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(format!("`{part}` ends before it begins"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_ids_are_numbers_and_ranges() {
        assert_eq!(numbers("1-3,7"), Ok(vec![1, 2, 3, 7]));
        for wrong in ["", "1-", "3-1", "256", "a"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
    }
}
