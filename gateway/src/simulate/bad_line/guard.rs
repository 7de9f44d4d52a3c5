//! What damage on an RTU line could be taken for a frame that nobody sent.
//!
//! CRC-16 lets one damaged frame in 65 536 through, and a receiver that looks for a frame at every byte sees
//! many. So the guard looks at the wire as the most eager receiver would: wherever a unit, a read's
//! function and a count stand, it computes the CRC. It remembers the last [`FRAME_MAX`] bytes, since a
//! truncated answer and the next can make a frame together.

/// The longest frame of the specification.
const FRAME_MAX: usize = 256;

/// Unit, function, count before the data; the CRC after it.
const AROUND: usize = 5;

/// The last bytes on a wire, and where in them a frame begins that a device sent.
#[derive(Debug, Default)]
pub struct Guard {
    bytes: Vec<u8>,
    genuine: Vec<usize>,
    /// Up to here some of the bytes are of no whole frame.
    damaged: usize,
}

impl Guard {
    /// Whether these frames (the length of each, and whether it is whole) may follow what was on the wire; if so
    /// they are taken for sent.
    pub fn admits(&mut self, bytes: &[u8], frames: &[(usize, bool)]) -> bool {
        let (known, genuine_known) = (self.bytes.len(), self.genuine.len());
        let (mut start, damaged_known) = (known, self.damaged);
        for (length, whole) in frames {
            if *whole {
                self.genuine.push(start);
            } else {
                self.damaged = start + length;
            }
            start += length;
        }
        self.bytes.extend_from_slice(bytes);
        let admitted = self.damaged == 0 || !(0..self.bytes.len()).any(|place| self.is_forged(place, known));
        if !admitted {
            self.bytes.truncate(known);
            self.genuine.truncate(genuine_known);
            self.damaged = damaged_known;
        }
        self.shorten();
        admitted
    }

    /// The wire is cut: nothing after it joins what was before.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether a frame that nobody sent begins here and ends in what is new.
    fn is_forged(&self, place: usize, known: usize) -> bool {
        let Some([_, function, count]) = self.bytes[place..].first_chunk::<3>() else { return false };
        let end = match *function {
            1..=4 => place + usize::from(*count) + AROUND,
            // An exception: its code stands where the count does.
            0x81..=0x84 => place + AROUND,
            _ => return false,
        };
        if end <= known || end > self.bytes.len() || self.genuine.contains(&place) {
            return false;
        }
        crc(&self.bytes[place..end - 2]) == self.bytes[end - 2..end]
    }

    fn shorten(&mut self) {
        let surplus = self.bytes.len().saturating_sub(FRAME_MAX);
        self.bytes.drain(..surplus);
        self.damaged = self.damaged.saturating_sub(surplus);
        self.genuine.retain_mut(|start| {
            let stays = *start >= surplus;
            *start = start.saturating_sub(surplus);
            stays
        });
    }
}

/// CRC-16 as it stands at a frame's end (MODBUS over serial line, V1.02, section 6.2.2): polynomial 0xA001,
/// reflected, from 0xFFFF, low byte first.
#[must_use]
pub fn crc(bytes: &[u8]) -> [u8; 2] {
    let entry = |crc: u16, byte: u8| crc >> 8 ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)];
    bytes.iter().fold(0xFFFF_u16, |crc, byte| entry(crc, *byte)).to_le_bytes()
}

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0_u16; 256];
    let mut index = 0_u16;
    while index < 256 {
        let (mut crc, mut bit) = (index, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(data: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 4, u8::try_from(data.len()).expect("short")];
        frame.extend(data);
        frame.extend(crc(&frame));
        frame
    }

    #[test]
    fn the_crc_is_the_specifications() {
        // The check value of CRC-16/MODBUS.
        assert_eq!(crc(b"123456789"), 0x4B37_u16.to_le_bytes());
    }

    /// A forged frame is noticed wherever it comes from: damage, or two halves that meet.
    #[test]
    fn what_passes_for_a_frame_and_is_none_is_not_let_through() {
        let forged = frame(&[9, 9]);
        let mut guard = Guard::default();
        assert!(guard.admits(&forged, &[(forged.len(), true)]), "a device sent it");
        assert!(!guard.admits(&forged, &[(forged.len(), false)]), "nobody sent it");
        let (head, tail) = forged.split_at(4);
        assert!(guard.admits(head, &[(head.len(), false)]));
        assert!(!guard.admits(tail, &[(tail.len(), false)]), "it makes a frame of the half before it");
        guard.forget();
        assert!(guard.admits(tail, &[(tail.len(), false)]));
    }
}
