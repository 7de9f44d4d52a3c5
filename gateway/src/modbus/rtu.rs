//! Modbus RTU: one port a bus, and no way to tell answers apart but their shape.
//!
//! An RTU answer names neither the register nor the request it answers. So one that comes after its
//! time looks like the answer to the next request, and the value of one register becomes another's.
//! Against that stand three walls:
//!
//! 1. Before a request the line must have been silent for 3.5 characters, and after a failure at
//!    least for the bus's timeout once more; what comes meanwhile is forgotten.
//! 2. While a unit may still owe an answer, its next request is a *probe*: a read near the same
//!    place whose answer has a length that no owed answer has. Devices answer in order, so once the
//!    probe's own answer is there (or an exception), nothing earlier is to come. An answer of another
//!    length is an owed one, and is forgotten.
//! 3. An answer with another unit, function or length than asked for is refused.
//!
//! Limits: a probe costs one transaction after a failure; a unit that owes more than [`OWED_MAX`]
//! different lengths is probed with the oldest forgotten.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tjern_readings::reading::Cause;
use tokio::time::{Instant, timeout};
use tokio_modbus::client::{Context, rtu};
use tokio_modbus::slave::{Slave, SlaveContext};

use super::transport::{Answer, Failure, ReadRequest, Table, call};
use super::{Retry, SharedPort};
use crate::config::{Parity, Serial};

/// How many lengths of owed answers are remembered for a unit.
const OWED_MAX: usize = 16;

/// How often a probe may bring an owed answer instead of its own before the poll is given up.
const PROBES_MAX: usize = 3;

/// From this baud rate on the silence between frames is a fixed time.
const FAST_BAUD: u32 = 19_200;
const FAST_SILENCE: Duration = Duration::from_micros(1_750);

/// The client's end of an RS-485 line.
#[derive(Debug)]
pub struct RtuMaster {
    serial: Serial,
    timeout: Duration,
    line: Option<Line>,
    retry: Retry,
    owed: HashMap<(u8, Table), VecDeque<u16>>,
    quiet_until: Instant,
    #[cfg(test)]
    pub(crate) dial: Option<super::faults::Dial>,
}

struct Line {
    port: SharedPort,
    context: Option<Context>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Line").field("port", &self.port).finish_non_exhaustive()
    }
}

impl RtuMaster {
    /// A client on a port. Nothing is opened yet.
    #[must_use]
    pub fn new(serial: Serial, timeout: Duration) -> Self {
        let quiet_until = Instant::now();
        Self {
            serial,
            timeout,
            line: None,
            retry: Retry::default(),
            owed: HashMap::new(),
            quiet_until,
            #[cfg(test)]
            dial: None,
        }
    }

    /// One request and its answer: at most the bus's timeout and the time on the wire, a probe and
    /// the silence before them.
    ///
    /// # Errors
    /// [`Failure`] with the cause that stands in the reading.
    pub async fn read(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        for _ in 0..PROBES_MAX {
            let Some(probe) = self.probe(unit, request) else { break };
            match self.exchange(unit, probe).await {
                Ok(_) => self.settle(unit, request.table()),
                Err(failure) if failure.is_exception() => self.settle(unit, request.table()),
                Err(failure) if failure.cause == Cause::Malformed => {}
                Err(failure) => return Err(failure),
            }
        }
        if self.owes(unit, request.table()) {
            return Err(Failure::new(Cause::Malformed, "the device still sends answers to earlier requests"));
        }
        self.exchange(unit, request).await
    }

    fn owes(&self, unit: u8, table: Table) -> bool {
        self.owed.contains_key(&(unit, table))
    }

    fn settle(&mut self, unit: u8, table: Table) {
        self.owed.remove(&(unit, table));
    }

    fn owe(&mut self, unit: u8, request: ReadRequest) {
        let owed = self.owed.entry((unit, request.table())).or_default();
        let bytes = request.answer_bytes();
        owed.retain(|known| *known != bytes);
        owed.push_back(bytes);
        if owed.len() > OWED_MAX {
            owed.pop_front();
        }
    }

    /// A read near the same place that no owed answer can pass for, if one is owed at all.
    fn probe(&self, unit: u8, request: ReadRequest) -> Option<ReadRequest> {
        let owed = self.owed.get(&(unit, request.table()))?;
        let step = if request.table().is_bits() { 1 } else { 2 };
        let lengths = (1..).map(|count| count * step).take_while(|bytes| *bytes <= 250);
        let free = |bytes: &u16| !owed.contains(bytes) && *bytes != request.answer_bytes();
        lengths.filter(free).find_map(|bytes| request.with_answer_bytes(bytes))
    }

    async fn exchange(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        let (silence, patience) = (self.characters(3.5).max(self.silence_min()), self.timeout);
        let limit = self.timeout + self.characters(8.0 + 5.0 + f32::from(request.answer_bytes()));
        let quiet_until = self.quiet_until;
        let line = self.line()?;
        if super::is_broken(super::Broken::Drain) {
            // Nothing is forgotten: a canary.
        } else if let Err(error) = line.port.discard(quiet_until, silence, patience).await {
            return Err(self.lost(&error.to_string()));
        }
        line.port.take_received();
        let port = line.port.clone();
        let mut context = line.context.take().unwrap_or_else(|| rtu::attach(port.clone()));
        context.set_slave(Slave(unit));
        let result = match timeout(limit, call(&mut context, request)).await {
            Ok(result) => result,
            Err(_) => Err(no_answer(port.take_received(), self.timeout)),
        };
        self.conclude(unit, request, context, result)
    }

    fn conclude(
        &mut self,
        unit: u8,
        request: ReadRequest,
        context: Context,
        result: Result<Answer, Failure>,
    ) -> Result<Answer, Failure> {
        match &result {
            Err(failure) if failure.cause == Cause::Unreachable => return Err(self.lost(&failure.detail)),
            Err(failure) if !failure.is_exception() => {
                self.owe(unit, request);
                self.quiet_until = Instant::now() + self.timeout;
            }
            _ => {
                if let Some(line) = &mut self.line {
                    line.context = Some(context);
                }
            }
        }
        result
    }

    fn line(&mut self) -> Result<&mut Line, Failure> {
        if self.line.is_none() {
            self.line = Some(self.open()?);
        }
        self.line.as_mut().ok_or_else(|| Failure::new(Cause::Unreachable, "the port is closed"))
    }

    fn open(&mut self) -> Result<Line, Failure> {
        if !self.retry.may_try() {
            return Err(Failure::new(Cause::Unreachable, format!("{} was not there a moment ago", self.serial.port)));
        }
        #[cfg(test)]
        if let Some(dial) = &self.dial {
            self.retry.succeeded();
            return Ok(Line { port: SharedPort::over(Box::new(dial.open())), context: None });
        }
        match SharedPort::open(&self.serial) {
            Ok(port) => {
                self.retry.succeeded();
                Ok(Line { port, context: None })
            }
            Err(error) => {
                self.retry.failed();
                Err(Failure::new(Cause::Unreachable, format!("cannot open {}: {error}", self.serial.port)))
            }
        }
    }

    /// The port is closed at once, so that an adapter that is plugged in again gets its old name.
    fn lost(&mut self, detail: &str) -> Failure {
        self.line = None;
        self.retry.failed();
        Failure::new(Cause::Unreachable, format!("{} is gone: {detail}", self.serial.port))
    }

    fn silence_min(&self) -> Duration {
        if self.serial.baud > FAST_BAUD { FAST_SILENCE } else { Duration::ZERO }
    }

    /// How long so many characters take on the wire.
    fn characters(&self, count: f32) -> Duration {
        let bits = 1 + self.serial.data_bits + u8::from(self.serial.parity != Parity::None) + self.serial.stop_bits;
        Duration::from_secs_f64(f64::from(count) * f64::from(bits.max(11)) / f64::from(self.serial.baud))
    }
}

/// What a time limit that passed means: silence, or an answer that could not be read.
fn no_answer(received: usize, timeout: Duration) -> Failure {
    match received {
        0 => Failure::new(Cause::Timeout, format!("no answer within {timeout:?}")),
        1..5 => Failure::new(Cause::Malformed, format!("only {received} bytes came")),
        _ => Failure::new(Cause::Crc, format!("{received} bytes came, and no frame with a right CRC")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn master() -> RtuMaster {
        let serial = Serial { port: "/dev/null".into(), baud: 9_600, data_bits: 8, parity: Parity::None, stop_bits: 1 };
        RtuMaster::new(serial, Duration::from_millis(100))
    }

    proptest! {
        #[test]
        fn no_owed_answer_passes_for_a_probes(
            table in prop::sample::select(Table::ALL),
            asked in prop::collection::vec((any::<u16>(), 1_u16..=125), 1..40),
        ) {
            let mut master = master();
            let mut owed = Vec::new();
            for (address, count) in asked {
                let Some(request) = ReadRequest::new(table.1, address, count) else { continue };
                if let Some(probe) = master.probe(1, request) {
                    let recent: Vec<u16> = owed.iter().rev().take(OWED_MAX).copied().collect();
                    prop_assert!(!recent.contains(&probe.answer_bytes()));
                    prop_assert_ne!(probe.answer_bytes(), request.answer_bytes());
                    prop_assert_eq!(probe.table(), request.table());
                }
                master.owe(1, request);
                owed.push(request.answer_bytes());
            }
            master.settle(1, table.1);
            prop_assert_eq!(master.probe(1, ReadRequest::new(table.1, 0, 1).expect("within")), None);
        }
    }

    #[test]
    fn the_silence_is_three_and_a_half_characters() {
        assert_eq!(master().characters(3.5).as_micros(), 4_010);
    }

    #[test]
    fn damage_is_told_from_silence() {
        let causes = [0, 3, 9].map(|received| no_answer(received, Duration::ZERO).cause);
        assert_eq!(causes, [Cause::Timeout, Cause::Malformed, Cause::Crc]);
    }
}
