//! RTU frames in a stream of bytes: found by their length and their CRC, never by silence.
//!
//! A USB adapter hands bytes over in lumps of 16 ms, so pauses say nothing about where a frame begins
//! or ends; its function and its counts do, and the CRC holds them to it. No I/O.
//!
//! Limits: functions with a shape of their own (7, 8, 11, 12, 17, 20 to 24, 43) are known only as far as
//! their length can be told from their first bytes.

/// The longest frame that the specification allows.
pub(crate) const FRAME_MAX: usize = 256;

/// A frame without data: unit, function, CRC.
const FRAME_MIN: usize = 4;

/// An exception: unit, function, code, CRC.
const EXCEPTION: usize = 5;

/// CRC-16/MODBUS (MODBUS over serial line, V1.02, section 6.2.2), a byte at a time.
const CRC_TABLE: [u16; 256] = {
    let mut table = [0_u16; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u16;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// The CRC of these bytes; on the wire its low byte comes first.
pub(crate) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| crc >> 8 ^ CRC_TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

/// Whether this is a frame with the right CRC.
pub(crate) fn is_whole(frame: &[u8]) -> bool {
    frame.len() >= FRAME_MIN
        && frame.split_last_chunk::<2>().is_some_and(|(body, sent)| crc(body).to_le_bytes() == *sent)
}

/// How long a frame is that begins with these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// So long.
    Known(usize),
    /// More bytes would tell.
    Open,
    /// No frame of this kind begins so.
    None,
}

impl Length {
    fn at(bytes: &[u8], index: usize, length: impl Fn(usize) -> usize) -> Self {
        match bytes.get(index) {
            Some(count) if length(usize::from(*count)) <= FRAME_MAX => Self::Known(length(usize::from(*count))),
            Some(_) => Self::None,
            None => Self::Open,
        }
    }

    /// The frame, if all of it is here and its CRC is right.
    pub(crate) fn whole(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Known(length) => bytes.get(..length).filter(|frame| is_whole(frame)).map(<[u8]>::len),
            Self::Open | Self::None => None,
        }
    }

    /// Whether more bytes could make it one.
    pub(crate) fn may_become(self, bytes: &[u8]) -> bool {
        match self {
            Self::Known(length) => bytes.len() < length,
            Self::Open => true,
            Self::None => false,
        }
    }
}

/// How long a request is that begins so.
pub(crate) fn request_length(bytes: &[u8]) -> Length {
    match bytes.get(1) {
        None => Length::Open,
        Some(1..=6 | 8) => Length::Known(8),
        Some(7 | 11 | 12 | 17) => Length::Known(4),
        Some(15 | 16) => Length::at(bytes, 6, |count| 9 + count),
        Some(20 | 21) => Length::at(bytes, 2, |count| 5 + count),
        Some(22) => Length::Known(10),
        Some(23) => Length::at(bytes, 10, |count| 13 + count),
        Some(24) => Length::Known(6),
        Some(43) => Length::Known(7),
        Some(_) => Length::None,
    }
}

/// How long an answer is that begins so.
pub(crate) fn answer_length(bytes: &[u8]) -> Length {
    match bytes.get(1) {
        None => Length::Open,
        Some(1..=4 | 12 | 17 | 20 | 21 | 23) => Length::at(bytes, 2, |count| 5 + count),
        Some(5 | 6 | 8 | 11 | 15 | 16) => Length::Known(8),
        Some(7) => Length::Known(EXCEPTION),
        Some(22) => Length::Known(10),
        Some(0x81..=0xAB) => Length::Known(EXCEPTION),
        Some(_) => Length::None,
    }
}

/// The answer that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    request: [u8; 8],
    length: usize,
}

/// What was found on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Passed {
    /// The request itself, heard back.
    pub(super) echoes: u64,
    /// Whole frames that answer something else.
    pub(super) strangers: u64,
    /// Bytes that belong to no frame.
    pub(super) noise: u64,
}

impl Expected {
    /// What a request asks for; `None` for anything but one of the four reads.
    pub(super) fn to(request: &[u8]) -> Option<Self> {
        let request: [u8; 8] = request.try_into().ok()?;
        let count = usize::from(u16::from_be_bytes([request[4], request[5]]));
        let data = match request[1] {
            1 | 2 => count.div_ceil(8),
            3 | 4 => count * 2,
            _ => return None,
        };
        is_whole(&request).then_some(Self { request, length: EXCEPTION + data })
    }

    /// Whether such a frame is no answer to it.
    pub(super) fn is_none_of(&self, frame: &[u8]) -> bool {
        self.answer(frame).is_none()
    }

    /// How many bytes the answer has.
    pub(super) const fn length(&self) -> usize {
        self.length
    }

    /// Whether this begins with the answer, and how long that is. Bytes equal to the request are what was
    /// sent, heard back, and never an answer.
    fn answer(&self, bytes: &[u8]) -> Option<usize> {
        let [unit, function, ..] = self.request;
        let length = match *bytes {
            [first, second, count, ..] if (first, second) == (unit, function) => {
                (EXCEPTION + usize::from(count) == self.length).then_some(self.length)?
            }
            [first, second, ..] if (first, second) == (unit, function | 0x80) => EXCEPTION,
            _ => return None,
        };
        let frame = bytes.get(..length)?;
        (frame != self.request && is_whole(frame)).then_some(length)
    }

    /// Whether more bytes could make this the answer.
    fn may_become_answer(&self, bytes: &[u8]) -> bool {
        let [unit, function, ..] = self.request;
        match *bytes {
            [first] => first == unit,
            [first, second] => first == unit && (second == function || second == function | 0x80),
            [first, second, count, ..] if (first, second) == (unit, function) => {
                EXCEPTION + usize::from(count) == self.length && bytes.len() < self.length
            }
            [first, second, ..] => (first, second) == (unit, function | 0x80) && bytes.len() < EXCEPTION,
            [] => false,
        }
    }

    /// Whether the answer may have begun somewhere in this.
    pub(super) fn may_begin_in(&self, bytes: &[u8]) -> bool {
        (0..bytes.len()).any(|start| self.may_become_answer(&bytes[start..]))
    }

    /// Takes the answer out of what was received. What comes before it, and every whole frame that is
    /// something else, is taken out too; the rest stays for more to come. Inside what may still become
    /// the answer no stranger is looked for: among 250 bytes of data one can seem to be there.
    pub(super) fn take(&self, received: &mut Vec<u8>, passed: &mut Passed) -> Option<Vec<u8>> {
        let (mut start, mut begun) = (0, false);
        while start < received.len() {
            let rest = &received[start..];
            if let Some(length) = self.answer(rest) {
                let frame = rest[..length].to_vec();
                passed.noise += start as u64;
                received.drain(..start + length);
                return Some(frame);
            }
            begun |= self.may_become_answer(rest);
            if rest.starts_with(&self.request) {
                begun = false;
                passed.echoes += 1;
                received.drain(start..start + self.request.len());
            } else if let Some(length) = answer_length(rest).whole(rest).filter(|_| !begun) {
                passed.strangers += 1;
                received.drain(start..start + length);
            } else {
                start += 1;
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "frame/tests.rs"]
mod tests;
