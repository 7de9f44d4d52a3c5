//! What the wire itself allows: how long characters, silences and transactions take. No I/O.
//!
//! Formulas: MODBUS over serial line, V1.02, sections 2.5.1.1 (an RTU character has 11 bits, with parity or a
//! second stop bit in its place) and 2.5.1 (frames are parted by 3.5 characters of silence, above 19,200 baud
//! by 1.750 ms; within a frame there are 1.5 at most, above 19,200 baud 0.750 ms). A read's request has 8 characters and its answer 5 and the data, whatever is read.
//!
//! Limits: a port that hands its bytes over in lumps (USB adapters: up to 16 ms) adds time of its own, which is
//! in nobody's formula; it shows as turnaround where one is measured.

use super::transport::ReadRequest;

/// A read's request: unit, function, address, count, CRC.
pub const REQUEST_CHARS: u64 = 8;

/// An answer without its data: unit, function, count of bytes, CRC.
pub const ANSWER_CHARS: u64 = 5;

/// From this baud rate on the silence between frames is a fixed time.
const FAST_BAUD: u32 = 19_200;
const FAST_SILENCE_US: u64 = 1_750;
const FAST_BREAK_US: u64 = 750;

/// How fast a serial line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// Bits a second, never zero.
    pub baud: u32,
    /// A start bit, the data bits, the parity bit if there is one, the stop bits.
    pub bits_per_char: u32,
}

impl Line {
    /// A line with characters as the specification of Modbus RTU has them: 11 bits.
    #[must_use]
    pub const fn rtu(baud: u32) -> Self {
        Self { baud, bits_per_char: 11 }
    }

    /// How long one character takes, rounded up.
    #[must_use]
    pub const fn char_time_ns(self) -> u64 {
        (self.bits_per_char as u64 * 1_000_000_000).div_ceil(self.baud as u64)
    }

    /// How long so many characters take, rounded up.
    #[must_use]
    pub const fn chars_us(self, count: u64) -> u64 {
        (count * self.bits_per_char as u64 * 1_000_000).div_ceil(self.baud as u64)
    }

    /// The silence before a frame: 3.5 characters (of 11 bits, also where they have 10: devices reckon so),
    /// and a fixed time on fast lines.
    #[must_use]
    pub const fn silence_us(self) -> u64 {
        if self.baud > FAST_BAUD {
            return FAST_SILENCE_US;
        }
        self.half_chars_us(7)
    }

    /// The silence after which a frame does not go on: 1.5 characters, and a fixed time on fast lines.
    #[must_use]
    pub const fn break_us(self) -> u64 {
        if self.baud > FAST_BAUD { FAST_BREAK_US } else { self.half_chars_us(3) }
    }

    /// So many halves of a character of 11 bits or more.
    const fn half_chars_us(self, halves: u64) -> u64 {
        let bits = if self.bits_per_char < 11 { 11 } else { self.bits_per_char };
        (halves * bits as u64 * 1_000_000).div_ceil(2 * self.baud as u64)
    }

    /// How long the answer to a read is on the wire.
    #[must_use]
    pub const fn answer_us(self, request: &ReadRequest) -> u64 {
        self.chars_us(ANSWER_CHARS + request.answer_bytes() as u64)
    }

    /// How long a read takes of the line: the silence before the request, the request, the device's
    /// turnaround, the silence before the answer, the answer.
    #[must_use]
    pub const fn read_us(self, request: &ReadRequest, turnaround_us: u64) -> u64 {
        self.chars_us(REQUEST_CHARS + ANSWER_CHARS + request.answer_bytes() as u64)
            + 2 * self.silence_us()
            + turnaround_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modbus::transport::Table;

    fn reads_a_second(baud: u32, count: u16, turnaround_ms: u64) -> f64 {
        let request = ReadRequest::new(Table::Input, 0, count).expect("within");
        let read_us = Line::rtu(baud).read_us(&request, turnaround_ms * 1_000);
        1e6 / f64::from(u32::try_from(read_us).expect("a short time"))
    }

    /// Reads a second by baud rate and registers, each at 0, 10 and 30 ms of turnaround: what no gateway can do
    /// better on that line.
    #[test]
    fn the_physical_limit_of_a_bus() {
        const COUNTS: [u16; 5] = [1, 2, 10, 50, 125];
        type Row = (u32, [[f64; 3]; 5]);
        let table: [Row; 4] = [
            (9_600, [[40.0, 28.0, 18.0], [36.0, 27.0, 17.0], [22.0, 18.0, 13.0], [7.3, 6.8, 6.0], [3.2, 3.1, 2.9]]),
            (19_200, [[79.0, 44.0, 24.0], [73.0, 42.0, 23.0], [44.0, 30.0, 19.0], [14.5, 12.7, 10.0], [6.5, 6.1, 5.4]]),
            (
                38_400,
                [[128.0, 56.0, 27.0], [120.0, 54.0, 26.0], [77.0, 44.0, 23.0], [28.0, 22.0, 15.0], [12.7, 11.3, 9.2]],
            ),
            (
                115_200,
                [[203.0, 67.0, 29.0], [195.0, 66.0, 28.0], [150.0, 60.0, 27.0], [70.0, 41.0, 23.0], [35.0, 26.0, 17.0]],
            ),
        ];
        for (baud, row) in table {
            for (count, expected) in COUNTS.into_iter().zip(row) {
                for (turnaround_ms, expected) in [0, 10, 30].into_iter().zip(expected) {
                    let got = reads_a_second(baud, count, turnaround_ms);
                    // The table has two digits, or three.
                    let close = (got - expected).abs() <= if expected < 10.0 { 0.051 } else { 0.6 };
                    assert!(close, "{baud} baud, {count} registers, {turnaround_ms} ms: {got:.2}, not {expected}");
                }
            }
        }
        let registers = [9_600, 19_200, 38_400, 115_200].map(|baud| (reads_a_second(baud, 125, 10) * 125.0).round());
        assert_eq!(registers, [391.0, 759.0, 1_407.0, 3_237.0]);
    }

    #[test]
    fn silences_are_characters_or_fixed_times() {
        let silences = [9_600, 19_200, 19_201, 115_200].map(|baud| Line::rtu(baud).silence_us());
        assert_eq!(silences, [4_011, 2_006, 1_750, 1_750]);
        let breaks = [9_600, 19_200, 19_201, 115_200].map(|baud| Line::rtu(baud).break_us());
        assert_eq!(breaks, [1_719, 860, 750, 750]);
        assert_eq!(Line { baud: 9_600, bits_per_char: 10 }.char_time_ns(), 1_041_667);
    }

    #[test]
    fn bits_come_eight_to_a_character() {
        let read_us = |count| Line::rtu(9_600).read_us(&ReadRequest::new(Table::Coil, 0, count).expect("within"), 0);
        assert_eq!(read_us(1), read_us(8));
        assert!(read_us(9) > read_us(8));
    }
}
