//! `sniff`: listens to an RTU line and tells who asks what, who answers, and when.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tjern_readings::configuration::parse_duration;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::target::{Ending, PortArguments, hint_of_line};
use super::{FAILED, stop_on_signals, tell};
use crate::config::BusKind;
use crate::modbus::open_serial;
use crate::modbus::sniff::{Heard, Sniffer, Tally, What, asked};
use crate::say;
use tjern_readings::reading::Cause;

/// How often it is looked whether a frame broke off.
const LOOK: Duration = Duration::from_millis(50);

/// So many values of an answer are shown.
const VALUES_SHOWN: usize = 16;

/// What `sniff` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tjern-gateway sniff --port /dev/ttyUSB0 --baud 9600 --parity even\n  \
    tjern-gateway sniff --port /dev/ttyUSB0 --baud 19200 --for 1min\n\n\
    It sends nothing. Each line: seconds since the start, silence before, unit, what it is.\n\
    It ends with Ctrl-C, after `--for`, or after `--frames`; counts go to stderr.\n\
    Exit status: 0, 1 where no frame was heard or the port is gone, 2 for wrong usage.")]
pub struct SniffArguments {
    #[command(flatten)]
    line: PortArguments,
    /// Ends after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Ends after so many frames
    #[arg(long, value_name = "COUNT")]
    frames: Option<u64>,
}

/// Listens until it is told to end.
pub(super) async fn execute(arguments: SniffArguments) -> ExitCode {
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(&stop) {
        return Ending::failed(format!("cannot listen for signals: {error}"), "").tell();
    }
    match Box::pin(listen(&arguments, stop)).await {
        Ok(tally) => {
            say!("{}", summary(tally));
            let heard = tally.requests + tally.answers + tally.exceptions;
            if heard > 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Err(ending) => ending.tell(),
    }
}

async fn listen(arguments: &SniffArguments, stop: CancellationToken) -> Result<Tally, Ending> {
    let target = arguments.line.target()?;
    let BusKind::ModbusRtu { serial, .. } = &target.kind else {
        return Err(Ending::wrong("only a serial port can be listened to", "write `--port /dev/ttyUSB0`"));
    };
    let unreachable = |error: std::io::Error, what: &str| {
        Ending::failed(format!("{what} {}: {error}", serial.port), hint_of_line(Cause::Unreachable))
    };
    let mut stream = open_serial(serial).map_err(|error| unreachable(error, "cannot open"))?;
    let (mut sniffer, start, mut frames) = (Sniffer::default(), Instant::now(), 0);
    let end = arguments.duration.map(|duration| start + duration);
    let mut bytes = [0; 512];
    loop {
        let look = Instant::now() + LOOK;
        let wake = end.map_or(look, |end| end.min(look));
        let (heard, is_over) = tokio::select! {
            () = stop.cancelled() => (sniffer.end(), true),
            () = tokio::time::sleep_until(wake.into()) => {
                let now = Instant::now();
                if end.is_some_and(|end| now >= end) { (sniffer.end(), true) } else { (sniffer.pause(now), false) }
            }
            count = stream.read(&mut bytes) => match count {
                Ok(count) if count > 0 => (sniffer.feed(&bytes[..count], Instant::now()), false),
                Ok(_) => return Err(unreachable(std::io::ErrorKind::UnexpectedEof.into(), "lost")),
                Err(error) => return Err(unreachable(error, "lost")),
            },
        };
        for heard in &heard {
            frames += 1;
            tell(&format!("{}\n", line(heard, start))).map_err(|error| Ending::untold(&error))?;
        }
        if is_over || arguments.frames.is_some_and(|most| frames >= most) {
            return Ok(sniffer.tally());
        }
    }
}

fn milliseconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3))
}

fn line(heard: &Heard, start: Instant) -> String {
    let [unit, function, ..] = heard.frame[..] else { return String::new() };
    let at = heard.first.saturating_duration_since(start).as_secs_f64();
    let gap = milliseconds(heard.gap);
    let what = match heard.what {
        What::Request => format!("request    {}", place(asked(&heard.frame))),
        What::Echo => "echo".to_owned(),
        What::Answer { turnaround, asked } => {
            format!("answer     {}  after {}  {}", place(asked), milliseconds(turnaround), values(&heard.frame))
        }
        What::Exception { turnaround, code } => format!("exception  {code}  after {}", milliseconds(turnaround)),
    };
    format!("{at:11.4}  {gap:>10}  unit {unit:3}  function {:3}  {what}", function & 0x7F).trim_end().to_owned()
}

fn place(asked: Option<(u16, u16)>) -> String {
    asked.map_or_else(|| "-".to_owned(), |(address, count)| format!("address {address} count {count}"))
}

/// What an answer to a read holds, as far as a line holds it.
fn values(frame: &[u8]) -> String {
    let Some(data) = frame.get(3..frame.len().saturating_sub(2)) else { return String::new() };
    let words: Vec<String> = match frame[1] {
        1 | 2 => data.iter().map(|byte| format!("{byte:08b}")).collect(),
        3 | 4 => data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]).to_string()).collect(),
        _ => return String::new(),
    };
    let more = if words.len() > VALUES_SHOWN { " …" } else { "" };
    format!("[{}{more}]", words.iter().take(VALUES_SHOWN).cloned().collect::<Vec<_>>().join(" "))
}

fn summary(tally: Tally) -> String {
    let Tally { requests, answers, exceptions, echoes, unanswered, unasked, broken, foreign_bytes } = tally;
    let mut text = format!(
        "{requests} requests, {answers} answers, {exceptions} exceptions, {unanswered} without an answer, \
         {unasked} answers to nothing heard, {echoes} echoes, {broken} broken or foreign ({foreign_bytes} bytes)"
    );
    if requests + answers + exceptions == 0 {
        text += if foreign_bytes > 0 {
            "\nhint: something talks, and not so: try other `--baud` and `--parity`"
        } else {
            "\nhint: nobody talks: check the wires, and that a master is running"
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modbus::frame_crc;

    fn framed(body: &[u8]) -> Vec<u8> {
        [body, &frame_crc(body).to_le_bytes()].concat()
    }

    #[test]
    fn a_line_says_who_what_and_when() {
        let (mut sniffer, start) = (Sniffer::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut heard = sniffer.feed(&framed(&[5, 4, 0, 7, 0, 2]), at(1_500));
        heard.extend(sniffer.feed(&framed(&[5, 4, 4, 0, 9, 1, 0]), at(1_512)));
        heard.extend(sniffer.feed(&framed(&[5, 0x84, 2]), at(1_550)));
        let lines: Vec<String> = heard.iter().map(|heard| line(heard, start)).collect();
        assert_eq!(
            lines,
            [
                "     1.5000           -  unit   5  function   4  request    address 7 count 2",
                "     1.5120     12.0 ms  unit   5  function   4  answer     address 7 count 2  after 12.0 ms  [9 256]",
                "     1.5500     38.0 ms  unit   5  function   4  exception  2  after -",
            ]
        );
        assert!(summary(sniffer.tally()).starts_with("1 requests, 1 answers, 1 exceptions, 0 without"));
    }
}
