//! What a spool's folder holds after anything: a clean end, a power cut, a damaged disk, a copy.
//!
//! Recovery never refuses for what it finds in the files. It reads each segment once, and ends with a
//! state in which:
//! - every record that was synced counts, and each number once: in a sealed file, in `unsealed`, or in a
//!   gap where its record was damaged;
//! - the next number is past every number that counts, and past all that was ever sealed;
//! - nothing is appended to a segment of a former run: a torn tail stays where it is and is ignored.
//!
//! | found | done |
//! |---|---|
//! | no segment at all | a new epoch |
//! | no segment with a valid header, or a damaged one that may be the newest | copy kept, the old epoch finished, a new one |
//! | a damaged header in the middle | copy kept, its numbers covered by a gap |
//! | a bad record followed by whole ones | stepped over, its numbers covered by a gap |
//! | a bad record at the end of a segment | the end |
//! | segments of another epoch than the newest segment's | removed: their readings were sealed or renumbered |
//! | sealed files of the epoch that was replaced | removed: their readings were renumbered |
//! | sealed files of any other epoch | offered to the lake as they are, then the word that it is finished |

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tjern_readings::batch::SIZE_MAX;
use tjern_readings::clock::Clock;
use tjern_readings::keys::Bounds;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SensorId};

use super::SpoolSettings;
use super::core::{Core, Piece, Trouble, count, note_newest};
use super::disk::Disk;
use super::log::{Log, OldSegment};
use super::record::Record;
use super::sealed::{self, SealedKind, SealedObject};
use super::segment::{self, Contents, Header, SEGMENT_BYTES};
use super::shelf::Shelf;

/// A spool is never bounded to less: a few segments and batches must fit.
pub(crate) const MAX_BYTES_LEAST: u64 = 1 << 20;

/// Reads the folder behind `disk` and makes it ready for the next reading.
pub(crate) fn recover(disk: Arc<dyn Disk>, settings: SpoolSettings, clock: Clock) -> io::Result<Core> {
    let Segments { valid, damaged } = Segments::find(&*disk)?;
    let newest = valid.last().map(|found| found.header);
    let epoch = newest.map_or_else(Epoch::random, |header| header.epoch);
    let (ours, foreign): (Vec<_>, Vec<_>) = valid.into_iter().partition(|found| found.header.epoch == epoch);
    let mut core = empty(disk, settings, clock, epoch, newest);
    core.place_sealed_files(epoch, newest.and_then(|header| header.replaced))?;
    core.take_segments(ours);
    core.look_at_damaged(damaged, newest);
    core.close_former_epochs();
    if !core.finish_due {
        for found in foreign {
            drop(core.disk.remove(&found.path));
        }
    }
    // Where the disk refuses the first segment, the spool starts without, and tries again.
    core.sync_after_recovery();
    Ok(core)
}

/// The segments of a folder.
struct Segments {
    /// Those with a valid header, the newest last.
    valid: Vec<Found>,
    /// The others, with the first number that their name says.
    damaged: Vec<(PathBuf, i64)>,
}

/// A segment that was read.
struct Found {
    path: PathBuf,
    header: Header,
    contents: Contents,
    length: u64,
}

impl Segments {
    fn find(disk: &dyn Disk) -> io::Result<Self> {
        let mut segments = Self { valid: Vec::new(), damaged: Vec::new() };
        for entry in disk.list(Path::new(""))? {
            let path = PathBuf::from(&entry.name);
            if entry.name.ends_with(".segment.new") {
                // Never finished, so nothing was ever written to it.
                drop(disk.remove(&path));
                continue;
            }
            let Some(number) = entry.name.strip_suffix(".segment").and_then(|digits| digits.parse().ok()) else {
                continue;
            };
            let bytes = disk.read(&path).unwrap_or_default();
            match Header::decode(&bytes) {
                Some(header) => {
                    let contents = segment::read(&bytes, header.first_seq);
                    segments.valid.push(Found { path, header, contents, length: bytes.len() as u64 });
                }
                None => segments.damaged.push((path, number)),
            }
        }
        segments.valid.sort_by_key(|found| found.header.generation);
        Ok(segments)
    }
}

fn empty(
    disk: Arc<dyn Disk>,
    settings: SpoolSettings,
    clock: Clock,
    epoch: Epoch,
    newest_header: Option<Header>,
) -> Core {
    let log = Log {
        disk: Arc::clone(&disk),
        epoch,
        replaced: newest_header.and_then(|header| header.replaced),
        generation: newest_header.map_or(0, |header| header.generation),
        segment_bytes: (settings.max_bytes / 16).min(SEGMENT_BYTES),
        marked_to: 0,
        undecided: false,
        active: None,
        old: Vec::new(),
    };
    Core {
        shelf: Shelf { disk: Arc::clone(&disk), objects: VecDeque::new(), half_dropped: Vec::new() },
        disk,
        settings,
        clock,
        log,
        pending: VecDeque::new(),
        written: 0,
        synced_seq: 0,
        unsealed: VecDeque::new(),
        sealed_to: 0,
        batch_bytes: SIZE_MAX,
        attempted: None,
        newest: HashMap::new(),
        finish_due: false,
        damaged_segments: Vec::new(),
        takeover_due: false,
        writing: Trouble::default(),
        sealing: Trouble::default(),
        dropped_readings: 0,
        dropped_batches: 0,
        torn_tails: 0,
        bad_records: 0,
    }
}

/// Removes a folder that does not count; one that stays is ignored at the next start as well.
fn forget(disk: &dyn Disk, folder: &Path) {
    if let Err(error) = disk.remove_folder(folder) {
        tracing::warn!(path = %folder.display(), %error, "cannot remove a folder that is no longer needed");
    }
}

impl Core {
    /// Finds the sealed files, and ends a takeover that was cut off.
    fn place_sealed_files(&mut self, epoch: Epoch, replaced: Option<Epoch>) -> io::Result<()> {
        let disk = Arc::clone(&self.disk);
        self.takeover_due = replaced.is_some();
        let (whole, renewing) = sealed::epochs(&*disk)?;
        for found in whole.into_iter().filter(|found| *found != epoch) {
            if Some(found) != replaced {
                self.shelf.objects.extend(sealed::list(&*disk, &sealed::folder(found), found)?);
            }
        }
        for begun in renewing {
            if begun == epoch {
                self.take_sealed(sealed::list(&*disk, &sealed::renewing_folder(epoch), epoch)?);
            } else {
                forget(&*disk, &sealed::renewing_folder(begun));
            }
        }
        if let Err(error) = self.complete_renewal() {
            self.sealing.begins(&error, "the spool cannot end the takeover of an epoch");
        }
        if !self.takeover_due {
            self.shelf.objects.retain(|object| object.epoch != epoch);
            self.take_sealed(sealed::list(&*disk, &sealed::folder(epoch), epoch)?);
        }
        Ok(())
    }

    fn take_sealed(&mut self, objects: Vec<SealedObject>) {
        self.sealed_to = objects.iter().map(|object| object.bounds.last).max().unwrap_or(0);
        self.shelf.objects.extend(objects.into_iter().filter(|object| object.kind != SealedKind::Closed));
    }

    /// Takes what the segments of the newest one's epoch hold.
    fn take_segments(&mut self, segments: Vec<Found>) {
        let firsts: Vec<i64> = segments.iter().map(|found| found.header.first_seq).collect();
        let mut records = Vec::new();
        for (index, found) in segments.into_iter().enumerate() {
            // Numbers from the next segment's first on were written anew there.
            let end = firsts[index + 1..].iter().copied().min().unwrap_or(i64::MAX);
            records.push((found.header.first_seq, Vec::new()));
            self.sealed_to = self.sealed_to.max(found.header.sealed_to);
            self.log.old.push(OldSegment { path: found.path.clone(), length: found.length, last_seq: end - 1 });
            self.take_segment(found, end, &mut records);
        }
        self.synced_seq = self.sealed_to;
        self.take_records(records);
        if let Some(newest) = self.log.old.last_mut() {
            newest.last_seq = self.synced_seq;
        }
    }

    /// Takes one segment's readings with numbers below `end`.
    fn take_segment(&mut self, found: Found, end: i64, records: &mut Vec<(i64, Vec<Reading>)>) {
        self.bad_records += found.contents.bad_records;
        self.torn_tails += u64::from(found.contents.torn_tail);
        if found.contents.bad_records > 0
            && let Err(error) = self.disk.read(&found.path).and_then(|bytes| self.keep_aside(&found.path, &bytes))
        {
            tracing::warn!(path = %found.path.display(), %error, "cannot keep a copy of a segment with bad records");
        }
        for (first_seq, record) in found.contents.records {
            match record {
                // Left-overs of what was not synced here, and written anew in the next segment.
                Record::Readings(_) if first_seq >= end => {}
                Record::Readings(mut readings) => {
                    readings.truncate(usize::try_from(end.saturating_sub(first_seq)).unwrap_or(0));
                    readings.iter().for_each(|reading| note_newest(&mut self.newest, reading));
                    records.push((first_seq, readings));
                }
                Record::Newest(entries) => entries.into_iter().for_each(|entry| self.note_snapshot(entry)),
                Record::Sealed(sealed_to) if sealed_to < end => self.sealed_to = sealed_to.max(self.sealed_to),
                Record::Sealed(_) => {}
            }
        }
    }

    fn note_snapshot(&mut self, (sensor, time_us): (SensorId, i64)) {
        let newest = self.newest.entry(sensor).or_insert(time_us);
        *newest = time_us.max(*newest);
    }

    /// Takes readings past what is sealed, in the order of their numbers; a hole becomes a gap.
    fn take_records(&mut self, records: Vec<(i64, Vec<Reading>)>) {
        for (first_seq, mut readings) in records {
            self.cover_to(first_seq - 1);
            let known = (self.synced_seq + 1).saturating_sub(first_seq);
            readings.drain(..usize::try_from(known).unwrap_or(0).min(readings.len()));
            if readings.is_empty() {
                continue;
            }
            let first_seq = self.synced_seq + 1;
            self.synced_seq += count(readings.len());
            match self.unsealed.back_mut() {
                Some(Piece::Readings { readings: before, .. }) => before.append(&mut readings),
                _ => self.unsealed.push_back(Piece::Readings { first_seq, readings }),
            }
        }
    }

    /// Covers the numbers up to `last` by a gap, where they do not count yet.
    fn cover_to(&mut self, last: i64) {
        if let Some(hole) = Bounds::new(self.synced_seq + 1, last) {
            tracing::error!(bounds = %hole, "records of the spool are damaged: a gap covers their numbers, a copy is under `kept`");
            self.unsealed.push_back(Piece::Gap(hole));
            self.synced_seq = last;
        }
    }

    /// Keeps copies of segments without a valid header. One that may be the newest ends the epoch: nobody
    /// knows which numbers it gave out.
    fn look_at_damaged(&mut self, damaged: Vec<(PathBuf, i64)>, newest_header: Option<Header>) {
        for (path, number) in damaged {
            self.bad_records += 1;
            tracing::error!(path = %path.display(), "a segment of the spool has no valid header; a copy is under `kept`");
            let kept = self.disk.read(&path).and_then(|bytes| self.keep_aside(&path, &bytes));
            let newest = newest_header.is_none_or(|header| number >= header.first_seq);
            self.finish_due |= newest && newest_header.is_some();
            if kept.is_ok() {
                self.damaged_segments.push(path);
            }
        }
        if !self.finish_due {
            self.forget_damaged();
        }
    }

    /// Epochs that only wait for their last files get the word that they are finished, behind those.
    fn close_former_epochs(&mut self) {
        let mut former: Vec<Epoch> = self.shelf.objects.iter().map(|object| object.epoch).collect();
        former.dedup();
        former.retain(|epoch| *epoch != self.log.epoch);
        for epoch in former {
            if let Err(error) = self.close_epoch(epoch) {
                tracing::warn!(%epoch, %error, "cannot write that an epoch is finished; the next start tries again");
            }
        }
    }

    fn sync_after_recovery(&mut self) {
        if !self.finish_due
            && let Err(error) = self.begin_segment()
        {
            self.writing.begins(&error, "the spool cannot begin a segment; readings wait in memory");
        }
        self.sync();
    }
}
