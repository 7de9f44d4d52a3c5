//! A simulated logger: it prints its lines, and takes no notice of what it is sent.

use std::io;
use std::time::Duration;

use tjern_readings::clock::Clock;
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{SimulatedLine, Terminal};
use crate::lines::nmea::checksum;

pub(super) fn start(every: Duration, lines: Vec<SimulatedLine>, clock: Clock) -> io::Result<(String, JoinHandle<()>)> {
    let Terminal { mut ours, theirs, port } = Terminal::open()?;
    let task = tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ignored = [0_u8; 64];
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let now_us = clock.now_us();
                    let text: String = lines.iter().map(|line| line.text(now_us)).collect();
                    // Nobody may be listening: what does not fit is lost, as it is on a wire.
                    let _ = ours.try_write(text.as_bytes());
                }
                received = ours.read(&mut ignored) => {
                    if received.is_err() {
                        break;
                    }
                }
            }
        }
        drop(theirs);
    });
    Ok((port, task))
}

impl SimulatedLine {
    fn text(&self, now_us: i64) -> String {
        match self {
            Self::Nmea { address, rest, signal } => {
                let body = format!("{address},{:.2},{rest}", signal.at(now_us));
                format!("${body}*{:02X}\r\n", checksum(&body))
            }
            Self::Columns { separator, signals } => {
                let columns = signals.iter().map(|signal| format!("{separator}{:.2}", signal.at(now_us)));
                format!("{}{}\r\n", now_us / 1_000_000, columns.collect::<String>())
            }
        }
    }
}
