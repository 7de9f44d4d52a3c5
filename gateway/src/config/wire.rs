//! The check of what a Modbus wire wants: gaps, echo, RS-485, how a connection is kept.

use std::time::Duration;

use tjern_readings::configuration::Period;
use toml::Spanned;

use super::checker::{Checker, one_of, refuse_keys};
use super::file::BusFile;
use super::{Connection, Rs485};

/// A gap, a pause or a delay that is longer is a slip of the pen.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What a server may bear at most ("Modbus Messaging on TCP/IP", V1.0b, `NumberMaxOfServerTransaction`).
const IN_FLIGHT_MAX: i64 = 16;

fn wait(checker: &mut Checker<'_>, text: Option<&Spanned<String>>, name: &str) -> Duration {
    let Some(text) = text else { return Duration::ZERO };
    let Some(wait) = checker.duration(text) else { return Duration::ZERO };
    if wait > WAIT_MAX {
        checker.note(text.span(), format!("`{name}` is longer than {WAIT_MAX:?}"), "it is waited before every request");
    }
    wait
}

/// The `gap` of a bus, or of a device that has one of its own.
pub(super) fn gap(checker: &mut Checker<'_>, text: Option<&Spanned<String>>, default: Duration) -> Duration {
    if text.is_some() { wait(checker, text, "gap") } else { default }
}

pub(super) fn echo(file: &BusFile) -> bool {
    file.echo.as_ref().is_some_and(|echo| *echo.get_ref())
}

pub(super) fn rs485(checker: &mut Checker<'_>, file: &BusFile) -> Option<Rs485> {
    let is_on = file.rs485.as_ref().is_some_and(|rs485| *rs485.get_ref());
    if !is_on {
        let why = "it belongs to `rs485 = true`";
        refuse_keys!(checker, file, why, [rts_delay_before, rts_delay_after, rts, rx_during_tx]);
        return None;
    }
    let rts_delay_before = wait(checker, file.rts_delay_before.as_ref(), "rts_delay_before");
    let rts_delay_after = wait(checker, file.rts_delay_after.as_ref(), "rts_delay_after");
    let rts_inverted = file.rts.as_ref().and_then(|word| {
        checker.read(word, |word| match word {
            "normal" => Ok(false),
            "inverted" => Ok(true),
            other => Err(format!("`{other}` is no polarity; hint: {}", one_of(other, &["normal", "inverted"]))),
        })
    });
    let rx_during_tx = file.rx_during_tx.as_ref().is_some_and(|heard| *heard.get_ref());
    Some(Rs485 { rts_delay_before, rts_delay_after, rts_inverted: rts_inverted.unwrap_or(false), rx_during_tx })
}

pub(super) fn connection(checker: &mut Checker<'_>, file: &BusFile) -> Connection {
    let pause = wait(checker, file.connect_pause.as_ref(), "connect_pause");
    let idle_close = file.idle_close.as_ref().and_then(|text| checker.parse::<Period>(text)).map(Period::duration);
    Connection { pause, idle_close, in_flight: 1 }
}

/// How many requests a Modbus TCP server may be asked at once: the specification knows 1 to 16.
pub(super) fn in_flight(checker: &mut Checker<'_>, file: &BusFile) -> usize {
    let read = |number| {
        checker.whole::<usize>(number, &[1, IN_FLIGHT_MAX], "in_flight", "it is from 1 to 16, and 1 if not said")
    };
    file.in_flight.as_ref().and_then(read).unwrap_or(1)
}

/// What only a connection has.
pub(super) fn refuse_connection(checker: &mut Checker<'_>, file: &BusFile) {
    let why = "only a bus with an `address` has a connection";
    refuse_keys!(checker, file, why, [connect_pause, idle_close]);
    refuse_in_flight(checker, file);
}

/// On a serial line an answer does not say which request it is to.
pub(super) fn refuse_in_flight(checker: &mut Checker<'_>, file: &BusFile) {
    checker.refuse(file.in_flight.as_ref(), "in_flight", "on a serial line one request is asked after the other");
}

/// What only a Modbus bus has.
pub(super) fn refuse_modbus(checker: &mut Checker<'_>, file: &BusFile) {
    let why = "only a Modbus bus has it";
    refuse_keys!(checker, file, why, [gap, echo, connect_pause, idle_close, in_flight]);
    for device in &file.device {
        refuse_keys!(checker, device, why, [gap]);
    }
}

/// What only a serial port of our own has.
pub(super) fn refuse_rs485(checker: &mut Checker<'_>, file: &BusFile, why: &str) {
    refuse_keys!(checker, file, why, [rs485, rts_delay_before, rts_delay_after, rts, rx_during_tx]);
}
