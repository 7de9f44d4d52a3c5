//! A segment: a preallocated file of records behind a header of one block.
//!
//! [`read`] is a pure function of a file's bytes and reads each of them once, but for a look-ahead after
//! a damaged record. [`Segment`] writes; it never writes at the same place twice, so that nothing that
//! was synced is ever in the way of what comes. After an error a segment is left for good.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tjern_readings::sensor::{Epoch, SensorId};

use super::disk::{BLOCK_BYTES, Disk, DiskFile};
use super::record::{self, Found, Record};

/// The version of the format that is written. Every version from 1 on is read.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Where records begin: a block of its own for the header, so that no later write touches it.
pub(crate) const RECORDS_AT: usize = 4096;

/// The length of a segment, where the spool's bound leaves room for it and few sensors are to be named in it.
pub(crate) const SEGMENT_BYTES: u64 = 1 << 20;

const MAGIC: &[u8; 8] = b"TJERNSPL";
/// The length of the header in its block.
pub(crate) const HEADER_BYTES: usize = 96;

/// What the name of each ends with.
pub(crate) const SUFFIX: &str = ".segment";

/// How far a number behind a damaged record may lie from the one that was expected. A segment holds
/// fewer readings than this.
const SEQ_REACH: i64 = 1 << 20;

/// What stands in a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whose numbers these are.
    pub(crate) epoch: Epoch,
    /// The first number that the segment may hold.
    pub(crate) first_seq: i64,
    /// Counts the segments of this folder, over all epochs: the highest is the newest.
    pub(crate) generation: u64,
    /// Every number of the epoch up to this one was in a sealed file when the segment was made.
    pub(crate) sealed_to: i64,
    /// The epoch whose unsent readings were given new numbers in this one.
    pub(crate) replaced: Option<Epoch>,
}

impl Header {
    /// The header's bytes, without the zeros that fill its block.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |range: Range<usize>, field: &[u8]| bytes[range].copy_from_slice(field);
        put(0..8, MAGIC);
        put(8..12, &FORMAT_VERSION.to_le_bytes());
        put(12..16, &(RECORDS_AT as u32).to_le_bytes());
        put(16..32, self.epoch.as_bytes());
        put(32..40, &self.first_seq.to_le_bytes());
        put(40..48, &self.generation.to_le_bytes());
        put(48..56, &self.sealed_to.to_le_bytes());
        put(56..72, &self.replaced.map_or([0; 16], |epoch| *epoch.as_bytes()));
        let checksum = crc32c::crc32c(&bytes[..92]);
        bytes[92..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` where there is no valid one of a version that is known.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| header[at + index]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| header[at + index]));
        let epoch = |at: usize| -> [u8; 16] { std::array::from_fn(|index| header[at + index]) };
        let valid = &header[..8] == MAGIC
            && half(92) == crc32c::crc32c(&header[..92])
            && half(8) == FORMAT_VERSION
            && half(12) as usize == RECORDS_AT;
        let replaced = epoch(56);
        valid.then_some(Self {
            epoch: Epoch::from_bytes(epoch(16)),
            first_seq: i64::try_from(number(32)).ok().filter(|first| *first >= 1)?,
            generation: number(40),
            sealed_to: i64::try_from(number(48)).ok()?,
            replaced: (replaced != [0; 16]).then(|| Epoch::from_bytes(replaced)),
        })
    }
}

/// The name of the segment that begins with this number.
pub(crate) fn file_name(first_seq: i64) -> String {
    format!("{first_seq:020}{SUFFIX}")
}

/// What a segment's bytes hold.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The whole records, with their first numbers, in the order of the file.
    pub(crate) records: Vec<(i64, Record)>,
    /// The segment's list of sensors, by their places: each place that a record tells of is there.
    pub(crate) sensors: Vec<Option<SensorId>>,
    /// Damaged records that were stepped over, and whole ones of an unknown kind.
    pub(crate) bad_records: u64,
    /// Where they lie.
    pub(crate) damaged: Vec<Range<usize>>,
    /// What was found behind the last whole record.
    pub(crate) torn_tail: Option<Range<usize>>,
}

impl Contents {
    /// Notes damage before this number. Where the word was that another configuration holds from here on is not known.
    fn step_over(&mut self, range: Range<usize>, seq: i64) {
        self.bad_records += 1;
        self.damaged.push(range);
        self.records.push((seq, Record::Configuration(None)));
    }

    /// Takes a part of the list in. What stands at a place already stays: the list is written twice, alike.
    fn list(&mut self, first: u16, names: &[SensorId]) {
        let (first, end) = (usize::from(first), usize::from(first) + names.len());
        self.sensors.resize(self.sensors.len().max(end), None);
        for (place, name) in self.sensors[first..end].iter_mut().zip(names) {
            place.get_or_insert_with(|| name.clone());
        }
    }

    /// Whether a record can be understood: the list may have been damaged.
    fn has_names_of(&self, record: &Record) -> bool {
        let Record::Indexed(readings) = record else { return true };
        readings.iter().all(|reading| self.sensors.get(usize::from(reading.sensor)).is_some_and(Option::is_some))
    }

    /// The records with the sensors' names in them instead of their places.
    #[cfg(test)]
    pub(crate) fn named(&self) -> Vec<(i64, Record)> {
        let name = |place: u16| self.sensors[usize::from(place)].clone().expect("it was looked for");
        let named = |record: &Record| match record {
            Record::Indexed(readings) => {
                let readings = readings.iter().map(|reading| reading.named(name(reading.sensor)));
                Record::Readings(readings.collect())
            }
            other => other.clone(),
        };
        self.records.iter().map(|(first, record)| (*first, named(record))).collect()
    }
}

/// Reads the records behind a valid header. What could not be read of the file is zeros in `bytes`, and
/// named by `unreadable`.
pub(crate) fn read(bytes: &[u8], unreadable: &[Range<usize>], first_seq: i64) -> Contents {
    let mut contents = Contents::default();
    // Most of a segment is zeros that were never written; a record can end in zeros, but not begin there.
    let written = written_end(bytes);
    let end = unreadable.iter().map(|range| range.end).fold(written, usize::max);
    let (mut at, mut expected) = (RECORDS_AT, first_seq);
    while let Some((offset, found)) = next_record(bytes, at..end, expected) {
        let is_padding = found.first_seq == expected && bytes[at..offset].iter().all(|byte| *byte == 0);
        if offset > at && !(is_padding && is_whole(unreadable, &(at..offset))) {
            contents.step_over(at..offset, found.first_seq);
        }
        at = offset + found.length;
        match found.record.filter(|record| contents.has_names_of(record)) {
            Some(record) => {
                if let Record::Sensors(first, names) = &record {
                    contents.list(*first, names);
                }
                expected = found.first_seq + record.count();
                contents.records.push((found.first_seq, record));
            }
            None => contents.step_over(offset..at, found.first_seq),
        }
    }
    if !is_whole(unreadable, &(at..end)) {
        contents.step_over(at..end, expected);
    } else if at < end {
        contents.torn_tail = Some(at..end);
    }
    contents
}

/// Where the zeros begin that a file ends in.
fn written_end(bytes: &[u8]) -> usize {
    const ZEROS: [u8; RECORDS_AT] = [0; RECORDS_AT];
    let (mut end, mut blocks) = (bytes.len(), bytes.rchunks(RECORDS_AT));
    while let Some(block) = blocks.next().filter(|block| *block == &ZEROS[..block.len()]) {
        end -= block.len();
    }
    bytes[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn is_whole(unreadable: &[Range<usize>], range: &Range<usize>) -> bool {
    unreadable.iter().all(|lost| lost.end <= range.start || lost.start >= range.end)
}

/// The first whole record that begins within `range` and does not go back in the numbers.
fn next_record(bytes: &[u8], mut range: Range<usize>, expected: i64) -> Option<(usize, Found)> {
    let follows = |seq: i64| (expected..expected.saturating_add(SEQ_REACH)).contains(&seq);
    range.find_map(|offset| {
        let rest = &bytes[offset..];
        record::claimed_seq(rest).filter(|seq| follows(*seq))?;
        Some((offset, record::decode(rest)?))
    })
}

/// A segment that is being written.
#[derive(Debug)]
pub(crate) struct Segment {
    file: Box<dyn DiskFile>,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// How much of the disk it has.
    pub(crate) length: u64,
    at: u64,
    /// Whether everything that was written is synced.
    is_synced: bool,
}

impl Segment {
    /// Creates a segment that begins with these records, on disk with its name when this returns.
    pub(crate) fn create(disk: &dyn Disk, header: &Header, records: &[u8], room: u64) -> io::Result<Self> {
        let path = PathBuf::from(file_name(header.first_seq));
        let staged = PathBuf::from(format!("{}.new", path.display()));
        let at = RECORDS_AT as u64 + records.len() as u64;
        let length = room.max(at + (record::FRAME_BYTES + record::PAYLOAD_MAX) as u64 * 2);
        let mut file = disk.preallocate(&staged, length)?;
        file.write_at(&header.encode(), 0)?;
        if !records.is_empty() {
            file.write_at(records, RECORDS_AT as u64)?;
        }
        file.sync()?;
        disk.rename(&staged, &path)?;
        disk.sync_folder(Path::new(""))?;
        Ok(Self { file, path, length, at, is_synced: true })
    }

    /// Whether a record of so many bytes still fits.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.place(bytes) + bytes as u64 <= self.length
    }

    /// Where the next record begins: behind the last one, or in the next block, if it is the first since a
    /// sync and would have that sync write two blocks instead of one.
    fn place(&self, bytes: usize) -> u64 {
        let (bytes, room) = (bytes as u64, BLOCK_BYTES - self.at % BLOCK_BYTES);
        let pads = self.is_synced && room < bytes && bytes <= BLOCK_BYTES;
        self.at + if pads { room } else { 0 }
    }

    /// Writes records behind the last one.
    pub(crate) fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.at = self.place(records.len());
        self.is_synced = false;
        self.file.write_at(records, self.at)?;
        self.at += records.len() as u64;
        Ok(())
    }

    /// Makes the records durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.is_synced = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tjern_readings::reading::Reading;

    fn header() -> Header {
        Header {
            epoch: Epoch::from_bytes([7; 16]),
            first_seq: 41,
            generation: 3,
            sealed_to: 40,
            replaced: Some(Epoch::from_bytes([9; 16])),
        }
    }

    fn record_of(first_seq: i64, count: i64) -> Vec<u8> {
        let readings: Vec<_> =
            (0..count).map(|index| Reading::of("mast/wind_speed".parse().expect("valid"), index, 1.5)).collect();
        record::encode_readings(first_seq, readings.iter())
    }

    /// A file with these records behind its header, and room left.
    fn file(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = header().encode().to_vec();
        bytes.resize(RECORDS_AT, 0);
        bytes.extend(records.iter().flatten());
        bytes.resize(bytes.len() + 1000, 0);
        bytes
    }

    fn numbers(contents: &Contents) -> Vec<i64> {
        contents.records.iter().flat_map(|(first, record)| *first..*first + record.count()).collect()
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_a_damaged_one_is_none() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Some(header()));
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(Header::decode(&damaged), None, "byte {at}");
        }
    }

    #[test]
    fn a_tail_torn_at_any_byte_leaves_the_records_before_it() {
        let whole = file(&[record_of(41, 3), record_of(44, 2)]);
        let second = RECORDS_AT + record_of(41, 3).len();
        let end = second + record_of(44, 2).len();
        for cut in RECORDS_AT..end {
            let contents = read(&whole[..cut], &[], 41);
            assert_eq!(numbers(&contents), if cut < second { vec![] } else { vec![41, 42, 43] }, "cut at {cut}");
        }
        let contents = read(&whole, &[], 41);
        assert_eq!((numbers(&contents), contents.torn_tail, contents.bad_records), ((41..46).collect(), None, 0));
    }

    #[test]
    fn a_bad_record_is_stepped_over() {
        let first = record_of(41, 3).len();
        let second = record_of(44, 2).len();
        for damaged in RECORDS_AT + first..RECORDS_AT + first + second {
            let mut bytes = file(&[record_of(41, 3), record_of(44, 2), record_of(46, 1)]);
            bytes[damaged] ^= 0x55;
            let contents = read(&bytes, &[], 41);
            assert_eq!(numbers(&contents), [41, 42, 43, 46], "byte {damaged}");
            assert_eq!((contents.bad_records, contents.torn_tail), (1, None));
        }
    }

    #[test]
    fn a_record_that_goes_back_in_the_numbers_is_not_believed() {
        let contents = read(&file(&[record_of(41, 3), record_of(42, 1)]), &[], 41);
        assert_eq!((numbers(&contents), contents.torn_tail.is_some()), (vec![41, 42, 43], true));
    }
    /// A group of records may begin in the next block: the zeros before it are no damage, unless numbers are
    /// missing there.
    #[test]
    fn padding_to_the_next_block_is_no_damage() {
        let mut bytes = file(&[record_of(41, 3)]);
        bytes.truncate(RECORDS_AT + record_of(41, 3).len());
        bytes.resize(RECORDS_AT * 2, 0);
        let (followed, holed) = ([bytes.clone(), record_of(44, 2)].concat(), [bytes, record_of(46, 2)].concat());
        let contents = read(&followed, &[], 41);
        assert_eq!((numbers(&contents), contents.bad_records), ((41..46).collect(), 0));
        let contents = read(&holed, &[], 41);
        assert_eq!((numbers(&contents), contents.bad_records), (vec![41, 42, 43, 46, 47], 1));
    }

    /// A list of sensors stands in a segment twice: a bad sector in one of them costs nothing, and where both
    /// are gone a reading is lost rather than given to another sensor.
    #[test]
    fn readings_by_place_need_one_list_of_their_sensors() {
        let sensors: Vec<SensorId> =
            ["mast/gust", "mast/wind_speed"].iter().map(|name| name.parse().expect("valid")).collect();
        let mut known = record::tests::listed(&sensors);
        let list = record::encode_sensors(41, 0, &sensors);
        let some = [Reading::of(sensors[1].clone(), 7, 1.5), Reading::of(sensors[0].clone(), 7, 2.5)];
        let mut indexed = Vec::new();
        let count = record::encode_next(&mut indexed, 41, &mut some.as_slice().into(), &mut known);
        assert_eq!(count, 2);
        let whole = file(&[list.clone(), list.clone(), indexed]);
        for damaged in [vec![], vec![20], vec![list.len() + 20]] {
            let mut bytes = whole.clone();
            damaged.iter().for_each(|at| bytes[RECORDS_AT + at] ^= 1);
            let contents = read(&bytes, &[], 41);
            assert_eq!(contents.named().last(), Some(&(41, Record::Readings(some.to_vec()))), "{damaged:?}");
        }
        let mut bytes = whole;
        bytes[RECORDS_AT + 20] ^= 1;
        bytes[RECORDS_AT + list.len() + 20] ^= 1;
        let contents = read(&bytes, &[], 41);
        assert_eq!((numbers(&contents), contents.bad_records), (vec![], 2));
    }

    /// What lies in a block that cannot be read is lost, and nothing else; behind the last record it is damage
    /// and not a torn tail.
    #[test]
    fn an_unreadable_block_is_stepped_over() {
        let first = record_of(41, 200);
        assert!(first.len() > 4096);
        let mut bytes = file(&[first.clone(), record_of(241, 2)]);
        bytes[RECORDS_AT..RECORDS_AT + 4096].fill(0);
        let lost = RECORDS_AT..RECORDS_AT + 4096;
        let contents = read(&bytes, &[lost], 41);
        assert_eq!((numbers(&contents), contents.bad_records), (vec![241, 242], 1));
        let whole = file(&[first]);
        let tail = whole.len() - 100..whole.len();
        let contents = read(&whole, &[tail], 41);
        assert_eq!((numbers(&contents).len(), contents.bad_records, contents.torn_tail), (200, 1, None));
    }
}
