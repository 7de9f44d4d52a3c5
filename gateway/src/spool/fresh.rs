//! What this process knows of the batches that it sealed lately: the checksum of their bytes, and their times.
//!
//! Before a batch is sent it must be known that the disk has kept it. Decoding it shows that, and costs as much as
//! making it did. Of a batch that was sealed a moment ago the bytes' CRC-32C is still known: where what was read has
//! the same, it is what was encoded. What is not known here (after a restart, or of what waited behind
//! [`FRESH_MAX`] others) is decoded. No I/O.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tjern_readings::keys::Bounds;
use tjern_readings::sensor::Epoch;

use super::locked;
use super::sealed::{SealedKind, SealedObject};

/// Of so many batches it is known.
const FRESH_MAX: usize = 256;

/// What is known of batches. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fresh(Arc<Mutex<VecDeque<Known>>>);

#[derive(Debug, Clone, Copy)]
struct Known {
    epoch: Epoch,
    bounds: Bounds,
    length: u64,
    crc32c: u32,
    oldest_us: i64,
    newest_us: i64,
}

impl Fresh {
    /// A batch was sealed: these bytes, with times from the oldest to the newest.
    pub(crate) fn add(&self, epoch: Epoch, bounds: Bounds, bytes: &[u8], (oldest_us, newest_us): (i64, i64)) {
        let crc32c = crc32c::crc32c(bytes);
        let mut known = locked(&self.0);
        known.truncate(FRESH_MAX - 1);
        known.push_front(Known { epoch, bounds, length: bytes.len() as u64, crc32c, oldest_us, newest_us });
    }

    /// The oldest and the newest time of a batch, where it is known.
    pub(crate) fn times_us(&self, object: &SealedObject) -> Option<(i64, i64)> {
        self.find(object).map(|known| (known.oldest_us, known.newest_us))
    }

    /// The same where these are the batch's bytes, too.
    pub(crate) fn confirm(&self, object: &SealedObject, bytes: &[u8]) -> Option<(i64, i64)> {
        let known = self.find(object)?;
        let is_same = bytes.len() as u64 == known.length && crc32c::crc32c(bytes) == known.crc32c;
        is_same.then_some((known.oldest_us, known.newest_us))
    }

    fn find(&self, object: &SealedObject) -> Option<Known> {
        let is_it = |known: &&Known| known.epoch == object.epoch && known.bounds == object.bounds;
        let known = locked(&self.0).iter().find(is_it).copied()?;
        (object.kind == SealedKind::Batch && object.length == known.length).then_some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(first: i64, bytes: &[u8]) -> SealedObject {
        let bounds = Bounds { first, last: first + 1 };
        let epoch = Epoch::from_bytes([7; 16]);
        SealedObject { epoch, bounds, kind: SealedKind::Batch, length: bytes.len() as u64 }
    }

    /// A bit that the disk turned, or a file of another length, is for the decoder to judge.
    #[test]
    fn only_the_bytes_that_were_sealed_are_confirmed() {
        let (fresh, bytes) = (Fresh::default(), b"a batch".as_slice());
        let sealed = object(1, bytes);
        fresh.add(sealed.epoch, sealed.bounds, bytes, (4, 9));
        assert_eq!(fresh.confirm(&sealed, bytes), Some((4, 9)));
        for place in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[place] ^= 1;
            assert_eq!(fresh.confirm(&sealed, &damaged), None, "byte {place}");
            assert_eq!(fresh.confirm(&sealed, &bytes[..place]), None, "{place} bytes");
        }
        assert_eq!(fresh.confirm(&object(3, bytes), bytes), None);
        assert_eq!(fresh.confirm(&SealedObject { epoch: Epoch::from_bytes([8; 16]), ..sealed.clone() }, bytes), None);
        assert_eq!(fresh.confirm(&SealedObject { kind: SealedKind::Gap, ..sealed }, bytes), None);
    }

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let fresh = Fresh::default();
        let sealed: Vec<_> = (0..=FRESH_MAX as i64).map(|number| object(1 + 2 * number, b"x")).collect();
        sealed.iter().for_each(|object| fresh.add(object.epoch, object.bounds, b"x", (4, 9)));
        let known: Vec<bool> = sealed.iter().map(|object| fresh.times_us(object).is_some()).collect();
        assert_eq!((known.iter().filter(|known| **known).count(), known[0]), (FRESH_MAX, false));
    }
}
