//! Bytes to records. It believes nothing: what is not whole is no record, and no count asks for more memory than there are bytes.

use tjern_readings::reading::{Quality, Reading};

use super::{
    FRAME_BYTES, HAS_CAUSE, HAS_LAG, HAS_VALUE, Indexed, KIND_CONFIGURATION, KIND_ESTIMATED, KIND_INDEXED, KIND_NEWEST,
    KIND_READINGS, KIND_SEALED, KIND_SENSORS, NO_TIME_US, PAYLOAD_MAX, Record, checksum,
};

/// A record that was found whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Its first number; for records without numbers, the one that comes next.
    pub(crate) first_seq: i64,
    /// What it says; `None` for a whole record of a kind that this version does not know.
    pub(crate) record: Option<Record>,
    /// How many bytes it takes.
    pub(crate) length: usize,
}

/// The first number that the bytes claim, if their length makes sense: cheap, for looking ahead.
pub(crate) fn claimed_seq(bytes: &[u8]) -> Option<i64> {
    let length = u32::from_le_bytes(fixed(bytes, 0)?) as usize;
    let plausible = (1..=PAYLOAD_MAX).contains(&length) && bytes.len() >= FRAME_BYTES + length;
    plausible.then(|| fixed(bytes, 8).map(i64::from_le_bytes)).flatten()
}

/// Reads the record at the start of `bytes`; `None` if there is no whole one.
pub(crate) fn decode(bytes: &[u8]) -> Option<Found> {
    let first_seq = claimed_seq(bytes)?;
    let length = u32::from_le_bytes(fixed(bytes, 0)?) as usize;
    let payload = &bytes[FRAME_BYTES..FRAME_BYTES + length];
    if checksum(&bytes[..4], &bytes[8..FRAME_BYTES], payload) != u32::from_le_bytes(fixed(bytes, 4)?) {
        return None;
    }
    Some(Found { first_seq, record: decode_payload(payload), length: FRAME_BYTES + length })
}

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

pub(super) fn decode_payload(payload: &[u8]) -> Option<Record> {
    let mut rest = Rest(payload);
    let record = match rest.byte()? {
        KIND_READINGS => {
            let count = u16::from_le_bytes(rest.take()?);
            Record::Readings((0..count).map(|_| rest.reading()).collect::<Option<_>>()?)
        }
        KIND_NEWEST => {
            let count = u16::from_le_bytes(rest.take()?);
            let mut entry = || Some((rest.text()?.parse().ok()?, i64::from_le_bytes(rest.take()?)));
            Record::Newest((0..count).map(|_| entry()).collect::<Option<_>>()?)
        }
        KIND_ESTIMATED => {
            let count = u16::from_le_bytes(rest.take()?);
            let mut entry = || {
                let (sensor, time_us) = (rest.text()?.parse().ok()?, i64::from_le_bytes(rest.take()?));
                Some((sensor, Some(time_us).filter(|time_us| *time_us != NO_TIME_US)))
            };
            Record::Estimated((0..count).map(|_| entry()).collect::<Option<_>>()?)
        }
        KIND_SEALED => Record::Sealed(i64::from_le_bytes(rest.take()?)),
        KIND_SENSORS => {
            let (first, count) = (u16::from_le_bytes(rest.take()?), u16::from_le_bytes(rest.take()?));
            let names = (0..count).map(|_| rest.text()?.parse().ok()).collect::<Option<_>>()?;
            Record::Sensors(first, names)
        }
        KIND_INDEXED => Record::Indexed(rest.indexed()?),
        KIND_CONFIGURATION => {
            let text = rest.text()?;
            Record::Configuration((!text.is_empty()).then(|| text.to_owned()))
        }
        _ => return None,
    };
    rest.0.is_empty().then_some(record)
}

/// What is not yet read of a payload.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn difference(&mut self) -> Option<i64> {
        let mut zigzag = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        None
    }

    fn indexed(&mut self) -> Option<Vec<Indexed>> {
        let count = u16::from_le_bytes(self.take()?);
        let (mut time_us, mut sensor) = (i64::from_le_bytes(self.take()?), 0_i64);
        // A reading takes ten bytes at least: a count that lies asks for no more memory than that.
        let mut found = Vec::with_capacity(usize::from(count).min(self.0.len() / 10));
        for _ in 0..count {
            sensor = sensor.checked_add(self.difference()?)?;
            time_us = time_us.wrapping_add(self.difference()?);
            let value = f64::from_bits(u64::from_le_bytes(self.take()?));
            found.push(Indexed { sensor: u16::try_from(sensor).ok()?, time_us, value });
        }
        Some(found)
    }

    fn reading(&mut self) -> Option<Reading> {
        let sensor = self.text()?.parse().ok()?;
        let time_us = i64::from_le_bytes(self.take()?);
        let flags = self.byte()?;
        let quality = Quality::from_code(i8::from_le_bytes(self.take()?))?;
        let value = if flags & HAS_VALUE == 0 { None } else { Some(f64::from_bits(u64::from_le_bytes(self.take()?))) };
        let cause = if flags & HAS_CAUSE == 0 { None } else { Some(self.text()?.parse().ok()?) };
        let lag_ms = if flags & HAS_LAG == 0 { None } else { Some(i32::from_le_bytes(self.take()?)) };
        Some(Reading { sensor, time_us, value, quality, cause, lag_ms })
    }
}
