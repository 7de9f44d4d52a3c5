//! What a request costs its bus, in time.
//!
//! On a serial line a read takes 8 characters for the request, 5 and the data for the answer, a silence of 3.5
//! characters before each (`modbus::timing`) and the device's turnaround. Reading over
//! a hole of H registers so pays where 2H characters take less than 13 characters, two silences and a turnaround.
//! On TCP the wire costs next to nothing: a request costs what its device was measured to take. No I/O, no clock.

use std::time::Duration;

use crate::config::{BusKind, ReadLimits};
use crate::modbus::timing::{ANSWER_CHARS, Line, REQUEST_CHARS};
use crate::modbus::transport::{ReadRequest, Table};

/// On TCP a byte costs no time that could be told. It costs something, so that of two plans with equally many
/// requests the one that reads less is taken.
const TCP_BYTE_NS: u64 = 1;

/// A device that was not measured is taken to need this: only to choose between plans, never to reckon a load.
const TURNAROUND_GUESS_RTU: Duration = Duration::from_millis(5);
const TURNAROUND_GUESS_TCP: Duration = Duration::from_millis(2);

/// On TCP nearly every hole pays; past this many registers a request reads mostly what nobody asked for.
const TCP_HOLE_MAX: u16 = 100;

/// A bus's wire, as far as its pace goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wire {
    byte_ns: u64,
    silence_ns: u64,
    is_serial: bool,
}

impl Wire {
    /// That of a kind of bus.
    pub(crate) fn of(kind: &BusKind) -> Self {
        match kind {
            BusKind::ModbusRtu { serial, .. } => Self::line(serial.line()),
            // The far line is the bottleneck; the way to it is part of what is measured as turnaround.
            BusKind::ModbusRtuTcp { baud, .. } => Self::line(Line::rtu(*baud)),
            BusKind::ModbusTcp { .. } | BusKind::TextLines { .. } => Self::TCP,
        }
    }

    pub(crate) const TCP: Self = Self { byte_ns: TCP_BYTE_NS, silence_ns: 0, is_serial: false };

    pub(crate) const fn line(line: Line) -> Self {
        Self { byte_ns: line.char_time_ns(), silence_ns: line.silence_us() * 1_000, is_serial: true }
    }

    /// Whether the line's own speed says what a request takes at least.
    pub(crate) const fn is_serial(self) -> bool {
        self.is_serial
    }

    /// The silence before a request.
    pub(crate) const fn silence(self) -> Duration {
        Duration::from_nanos(self.silence_ns)
    }

    /// What everything but the data and the device's own time takes.
    const fn overhead_ns(self) -> u64 {
        if self.is_serial { (REQUEST_CHARS + ANSWER_CHARS) * self.byte_ns + 2 * self.silence_ns } else { 0 }
    }

    /// How long a read takes on the wire, without the device's own time.
    pub(crate) fn time(self, request: ReadRequest) -> Duration {
        Duration::from_nanos(self.overhead_ns() + u64::from(request.answer_bytes()) * self.byte_ns)
    }
}

/// What decides which points share a request: the costs and limits of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Costs {
    byte_ns: u64,
    request_ns: u64,
    limits: ReadLimits,
    is_serial: bool,
}

impl Costs {
    /// Those of a device; its turnaround where it was measured.
    pub(crate) fn new(wire: Wire, limits: ReadLimits, turnaround: Option<Duration>) -> Self {
        let guess = if wire.is_serial { TURNAROUND_GUESS_RTU } else { TURNAROUND_GUESS_TCP };
        let turnaround_ns = u64::try_from(turnaround.unwrap_or(guess).as_nanos()).unwrap_or(u64::MAX >> 1);
        let request_ns = wire.overhead_ns().saturating_add(turnaround_ns);
        Self { byte_ns: wire.byte_ns, request_ns, limits, is_serial: wire.is_serial }
    }

    /// What a read of so much costs, in nanoseconds.
    pub(crate) fn request_ns(&self, table: Table, count: u16) -> u64 {
        self.request_ns.saturating_add(u64::from(table.answer_bytes(count)) * self.byte_ns)
    }

    /// The most that one request may ask this device for.
    pub(crate) fn count_max(&self, table: Table) -> u16 {
        let limit = if table.is_bits() { self.limits.max_bits } else { self.limits.max_registers };
        limit.min(table.count_max())
    }

    /// So many addresses that nobody asked for may lie between two points of a request.
    pub(crate) fn hole_max(&self, table: Table) -> u16 {
        let default = if self.is_serial { u16::MAX } else { TCP_HOLE_MAX };
        let hole_max = self.limits.max_hole.unwrap_or(default);
        // A limit counts registers; in a table of bits sixteen of them take as many bytes.
        if table.is_bits() { hole_max.saturating_mul(16) } else { hole_max }
    }
}

/// A device's own time to answer, as it was measured: smoothed, over answers only, the wire's time left out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turnaround {
    smoothed_us: Option<f64>,
    samples: u32,
    /// What plans are made with: it follows in steps, so that they do not change with every answer.
    planned_us: Option<f64>,
    /// The same, as it is asked for several times a request.
    planned: Option<Duration>,
}

/// Of a new sample: so much goes into the smoothed figure.
const SMOOTHING: f64 = 0.125;
/// A plan is made anew once the figure is off by more than this share.
const PLANNED_OFF: f64 = 0.25;
/// From so many answers on the figure is worth keeping.
const SAMPLES_KEPT: u32 = 16;

impl Turnaround {
    /// One that was kept from before.
    pub(crate) fn kept(turnaround: Option<Duration>) -> Self {
        let smoothed_us = turnaround.map(|turnaround| turnaround.as_secs_f64() * 1e6);
        let samples = if smoothed_us.is_some() { SAMPLES_KEPT } else { 0 };
        let mut turnaround = Self { smoothed_us, samples, ..Self::default() };
        turnaround.plan_with(smoothed_us);
        turnaround
    }

    /// Takes an answer; whether plans are to be made anew.
    pub(crate) fn note(&mut self, took: Duration) -> bool {
        let sample_us = took.as_secs_f64() * 1e6;
        let before_us = self.smoothed_us.unwrap_or(sample_us);
        let smoothed_us = before_us + (sample_us - before_us) * SMOOTHING;
        (self.smoothed_us, self.samples) = (Some(smoothed_us), self.samples.saturating_add(1));
        let off = self.planned_us.is_none_or(|planned_us| (smoothed_us - planned_us).abs() > planned_us * PLANNED_OFF);
        if off {
            self.plan_with(Some(smoothed_us));
        }
        off
    }

    fn plan_with(&mut self, smoothed_us: Option<f64>) {
        self.planned_us = smoothed_us;
        self.planned = smoothed_us.map(|planned_us| Duration::from_secs_f64(planned_us.max(0.0) / 1e6));
    }

    /// What plans are made with.
    pub(crate) const fn planned(&self) -> Option<Duration> {
        self.planned
    }

    /// The figure, once it is worth keeping.
    pub(crate) fn settled(&self) -> Option<Duration> {
        self.planned().filter(|_| self.samples >= SAMPLES_KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(baud: u32) -> Wire {
        Wire::line(Line::rtu(baud))
    }

    /// The largest hole that is cheaper than a request of its own.
    fn hole(baud: u32, turnaround_ms: u64) -> u64 {
        let costs = Costs::new(line(baud), ReadLimits::default(), Some(Duration::from_millis(turnaround_ms)));
        let two = 2 * costs.request_ns(Table::Input, 1);
        (1..).find(|hole| costs.request_ns(Table::Input, 2) + hole * 2 * costs.byte_ns >= two).unwrap_or(0) - 1
    }

    #[test]
    fn a_hole_is_worth_what_the_specification_says() {
        // H < (13 characters + 2 × t3.5 + turnaround) / 2 characters, worked out by hand.
        assert_eq!([hole(9_600, 5), hole(9_600, 20), hole(9_600, 50)], [12, 18, 31]);
        assert_eq!([hole(19_200, 5), hole(19_200, 20), hole(115_200, 5)], [14, 27, 51]);
    }

    #[test]
    fn a_read_takes_what_the_physics_of_the_line_allow() {
        let read = |count| ReadRequest::new(Table::Input, 0, count).expect("within");
        // 125 registers at 9600: 263 characters and two silences, 309 ms.
        assert_eq!(line(9_600).time(read(125)).as_millis(), 309);
        assert_eq!(line(115_200).time(read(1)).as_micros(), 4_932);
    }
}
