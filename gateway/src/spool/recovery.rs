//! What a spool's folder holds after anything: a clean end, a power cut, a damaged disk, a copy.
//!
//! Recovery never refuses for what it finds in the files. Where the disk does not let it look (a folder that cannot
//! be listed, a lock that cannot be written) it is *due*: readings wait in memory, and it is tried again with each
//! sync. It reads each segment once, and ends with a
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
//! | a block that cannot be read | as a bad record |
//! | a segment whose inode is damaged | as one without a valid header; it stays where it is |
//! | a folder of sealed files that cannot be listed, [`ATTEMPTS_MAX`] times | moved aside, counted |
//! | segments of another epoch than the newest segment's | removed: their readings were sealed or renumbered |
//! | sealed files of the epoch that was replaced | removed: their readings were renumbered |
//! | sealed files of any other epoch | offered to the lake as they are, then the word that it is finished |

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tjern_readings::batch::{Encoder, SIZE_MAX};
use tjern_readings::clock::Clock;
use tjern_readings::keys::Bounds;
use tjern_readings::reading::Reading;
use tjern_readings::rows::Rows;
use tjern_readings::sensor::Epoch;

use super::confirms::Confirms;
use super::core::{Core, PENDING_MAX, Piece, Trouble, UNSEALED_MAX, count};
use super::disk::Disk;
use super::fresh::Fresh;
use super::kept;
use super::log::{Log, OldSegment};
use super::measured::Measured;
use super::record::Record;
use super::salvage::Salvaged;
use super::sealed::{self, SealedKind, SealedObject};
use super::segment::{Contents, Header, SEGMENT_BYTES};
use super::shelf::{GAPS_MAX, Shelf};
use super::survey::{self, Found};
use super::{Claim, SpoolSettings, locked};

/// A spool is never bounded to less: a few segments and batches must fit.
pub(crate) const MAX_BYTES_LEAST: u64 = 1 << 20;

/// A folder that cannot be listed in so many attempts never will be: the spool goes on without it.
pub(crate) const ATTEMPTS_MAX: u32 = 12;

/// Reads the folder behind `disk` and makes it ready for the next reading. Where the disk does not let it, that is
/// due, and readings wait in memory until then.
pub(crate) fn recover(disk: Arc<dyn Disk>, settings: SpoolSettings, clock: Clock) -> Core {
    match try_recover(Arc::clone(&disk), settings.clone(), clock.clone(), false) {
        Ok(core) => core,
        Err(error) => {
            let mut core = empty(disk, settings, clock, Epoch::random(), None);
            core.recovery_due = Some(1);
            core.writing.begins(&error, "the spool cannot be had; readings wait in memory");
            core
        }
    }
}

/// The same, once. `without_unlisted` is whether folders of sealed files that cannot be listed are left out: they
/// are moved aside, and what is in them waits for a person.
fn try_recover(disk: Arc<dyn Disk>, settings: SpoolSettings, clock: Clock, without_unlisted: bool) -> io::Result<Core> {
    disk.take()?;
    let mut segments = Segments::default();
    let unfinished = survey::segments(&*disk, |found, salvaged| segments.take(&*disk, &clock, found, salvaged))?;
    for path in unfinished {
        // Nothing was ever written to it.
        drop(disk.remove(&path));
    }
    let moved = if without_unlisted { move_unlisted(&*disk, &clock)? } else { 0 };
    let (mut core, foreign) = recall(disk, settings, clock, segments)?;
    core.bad_records += moved;
    core.close_former_epochs();
    if !core.finish_due {
        for path in foreign {
            drop(core.disk.remove(&path));
        }
    }
    core.begin_after_recovery();
    Ok(core)
}

/// What the folder says that there is, for looking at it: nothing can be written to this.
pub(crate) fn recall_only(
    disk: Arc<dyn Disk>,
    settings: SpoolSettings,
    clock: Clock,
    found: Vec<Found>,
) -> io::Result<Core> {
    let mut segments = Segments::default();
    for found in found {
        segments.sort_in(found, false);
    }
    Ok(recall(disk, settings, clock, segments)?.0)
}

/// Gives folders of sealed files that cannot be listed another name, and says how many that were. A folder's name
/// lies in the folder above, which can be read.
fn move_unlisted(disk: &dyn Disk, clock: &Clock) -> io::Result<u64> {
    let sealed = PathBuf::from(sealed::SEALED);
    let within = disk.list(&sealed).unwrap_or_default();
    let folders = within.iter().filter(|entry| entry.is_folder).map(|entry| sealed.join(&entry.name));
    let unlisted: Vec<PathBuf> = folders.chain([sealed.clone()]).filter(|path| disk.list(path).is_err()).collect();
    for path in &unlisted {
        let aside = PathBuf::from(format!("{}.unreadable-{}", path.display(), clock.now_us()));
        tracing::error!(path = %path.display(), aside = %aside.display(), "a folder of the spool cannot be listed: it is moved aside, and the spool goes on without it; hint: check the file system, and give it its name again while the gateway stands still");
        disk.rename(path, &aside)?;
        disk.sync_folder(path.parent().unwrap_or(Path::new("")))?;
    }
    Ok(unlisted.len() as u64)
}

/// The state that the folder's files tell, and the segments that are no part of it.
fn recall(
    disk: Arc<dyn Disk>,
    settings: SpoolSettings,
    clock: Clock,
    mut segments: Segments,
) -> io::Result<(Core, Vec<PathBuf>)> {
    segments.valid.sort_by_key(|(header, _)| header.generation);
    let Segments { valid, damaged } = segments;
    let newest = valid.last().map(|(header, _)| *header);
    let epoch = newest.map_or_else(Epoch::random, |header| header.epoch);
    let (ours, foreign): (Vec<_>, Vec<_>) = valid.into_iter().partition(|(header, _)| header.epoch == epoch);
    let mut core = empty(disk, settings, clock, epoch, newest);
    core.place_sealed_files(epoch, newest.and_then(|header| header.replaced))?;
    core.take_segments(ours);
    core.measured.begin(core.synced_seq + 1, core.settings.configuration.as_deref());
    core.look_at_damaged(damaged, newest);
    if newest.is_some() && !core.finish_due {
        core.claim = Some(Claim { epoch, first_seq: core.synced_seq + 1, run: Epoch::random() });
    }
    Ok((core, foreign.into_iter().map(|(_, found)| found.path).collect()))
}

/// The segments of a folder.
#[derive(Default)]
struct Segments {
    /// Those with a valid header; the newest last, once they are sorted.
    valid: Vec<(Header, Found)>,
    damaged: Vec<DamagedSegment>,
}

/// A segment without a valid header.
struct DamagedSegment {
    path: PathBuf,
    /// The first number that its name says.
    named_seq: i64,
    is_kept: bool,
}

impl Segments {
    /// Takes a segment, and keeps a copy of what is damaged in it while its bytes are at hand.
    fn take(&mut self, disk: &dyn Disk, clock: &Clock, found: Found, salvaged: &Salvaged) {
        let name = found.path.display();
        let kept = match &found.header {
            Some(header) => found.contents.damaged.iter().try_for_each(|range| {
                // The same damage is found at each start until the segment goes: one copy of it is enough.
                let copy = format!("{}-{name}-at-{}", header.epoch, range.start);
                kept::keep(disk, &copy, &salvaged.bytes[range.clone()])
            }),
            None if salvaged.is_lost => Err(io::Error::other("nothing of it can be read")),
            None => kept::keep(disk, &format!("{}-{name}", clock.now_us()), &salvaged.bytes),
        };
        if let Err(error) = &kept {
            tracing::warn!(path = %name, %error, "cannot keep a copy of what is damaged in a segment");
        }
        self.sort_in(found, kept.is_ok());
    }

    fn sort_in(&mut self, found: Found, is_kept: bool) {
        match found.header {
            Some(header) => self.valid.push((header, found)),
            None => self.damaged.push(DamagedSegment { path: found.path, named_seq: found.named_seq, is_kept }),
        }
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
        newest: [newest_header, None],
        segment_bytes: [(settings.max_bytes / 16).min(SEGMENT_BYTES), settings.max_bytes / 16],
        marked_to: 0,
        undecided: false,
        active: None,
        configuration: None,
        old: Vec::new(),
    };
    let mut measured = Measured::default();
    measured.begin(1, settings.configuration.as_deref());
    Core {
        shelf: Shelf {
            disk: Arc::clone(&disk),
            objects: VecDeque::new(),
            stale: Vec::new(),
            withdrawn: Vec::new(),
            gaps_max: GAPS_MAX,
        },
        disk,
        settings,
        clock,
        log,
        pending: Rows::default(),
        confirms: Confirms::default(),
        written: 0,
        pending_max: PENDING_MAX,
        synced_seq: 0,
        unsealed: VecDeque::new(),
        measured,
        encoder: Encoder::default(),
        sealed_to: 0,
        claim: None,
        batch_bytes: SIZE_MAX,
        attempted: None,
        known: Arc::default(),
        fresh: Fresh::default(),
        finish_due: false,
        recovery_due: None,
        damaged_segments: Vec::new(),
        takeover_due: false,
        writing: Trouble::default(),
        sealing: Trouble::default(),
        dropped_readings: 0,
        dropped_from_memory: 0,
        dropped_batches: 0,
        taken_readings: 0,
        set_aside_objects: 0,
        close_due: Vec::new(),
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
    /// Reads the folder, where the disk has not let it so far, and takes what waits in memory along.
    pub(crate) fn recover_if_due(&mut self) -> io::Result<()> {
        let Some(attempts) = self.recovery_due else { return Ok(()) };
        self.recovery_due = Some(attempts.saturating_add(1));
        let (disk, settings, clock) = (Arc::clone(&self.disk), self.settings.clone(), self.clock.clone());
        let mut found = try_recover(disk, settings, clock, attempts >= ATTEMPTS_MAX)?;
        {
            let mut known = locked(&self.known);
            let recalled = std::mem::take(&mut *locked(&found.known));
            let mut taken = std::mem::replace(&mut *known, recalled);
            // The slot that was read before a restart was read again after it.
            let (mut kept, measured) = (0, &mut self.measured);
            self.pending.retain(|reading| {
                let is_news = known.newest_us(&reading.sensor) != Some(reading.time_us);
                if is_news {
                    kept += 1
                } else {
                    measured.lose(kept, 1)
                }
                is_news
            });
            measured.renumber(0, found.synced_seq);
            found.measured.append(found.synced_seq + 1, std::mem::take(measured));
            taken.newest().for_each(|(sensor, time_us)| known.note_taken(sensor, time_us));
        }
        found.known = Arc::clone(&self.known);
        found.fresh = self.fresh.clone();
        found.pending = std::mem::take(&mut self.pending);
        found.confirms = std::mem::take(&mut self.confirms);
        found.confirms.begin_anew(found.pending.len());
        (found.pending_max, found.batch_bytes) = (self.pending_max, self.batch_bytes);
        found.shelf.gaps_max = self.shelf.gaps_max;
        (found.dropped_readings, found.dropped_from_memory) = (self.dropped_readings, self.dropped_from_memory);
        found.taken_readings = self.taken_readings;
        if !found.in_trouble() {
            found.writing = std::mem::take(&mut self.writing);
        }
        tracing::info!(epoch = %found.log.epoch, waiting = found.pending.len(), "the spool's folder is there, and was read");
        *self = found;
        Ok(())
    }

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

    /// Takes what the segments of the newest one's epoch hold: first what they say is sealed, then what is past it.
    fn take_segments(&mut self, segments: Vec<(Header, Found)>) {
        let firsts: Vec<i64> = segments.iter().map(|(header, _)| header.first_seq).collect();
        // Numbers from the next segment's first on were written anew there.
        let end = |index: usize| firsts[index + 1..].iter().copied().min().unwrap_or(i64::MAX);
        for (index, (header, found)) in segments.iter().enumerate() {
            let marks = found.contents.records.iter().filter_map(|(_, record)| match record {
                Record::Sealed(sealed_to) if *sealed_to < end(index) => Some(*sealed_to),
                _ => None,
            });
            self.sealed_to = marks.chain([header.sealed_to]).fold(self.sealed_to, i64::max);
            let (path, length) = (found.path.clone(), found.length);
            self.log.old.push(OldSegment { path, length, last_seq: end(index) - 1 });
            self.bad_records += found.contents.bad_records;
            self.torn_tails += u64::from(found.contents.torn_tail.is_some());
        }
        self.synced_seq = self.sealed_to;
        for (index, (header, found)) in segments.into_iter().enumerate() {
            self.cover_to(header.first_seq - 1);
            // An earlier version's log does not say it: the file of today is no word about it.
            self.measured.begin(header.first_seq, None);
            self.take_segment(found.contents, end(index));
        }
        if let Some(newest) = self.log.old.last_mut() {
            newest.last_seq = self.synced_seq;
        }
    }

    /// Takes one segment's readings with numbers below `end`. A sensor's newest time is looked for by its place in the
    /// segment's list, and not by its name: names are compared once a segment, and not once a reading.
    fn take_segment(&mut self, contents: Contents, end: i64) {
        let Contents { records, sensors, .. } = contents;
        let name =
            |place: u16| sensors[usize::from(place)].clone().expect("a record whose names are missing is damaged");
        let mut newest: Vec<Option<i64>> = vec![None; sensors.len()];
        for (first_seq, record) in records {
            let most = usize::try_from(end.saturating_sub(first_seq)).unwrap_or(0);
            match record {
                // Left-overs of what was not synced here, and written anew in the next segment, are past `most`.
                Record::Readings(mut readings) => {
                    readings.truncate(most);
                    let mut known = locked(&self.known);
                    readings.iter().for_each(|reading| known.note_synced(reading));
                    drop(known);
                    self.take_readings(first_seq, readings.into_iter());
                }
                Record::Indexed(mut readings) => {
                    readings.truncate(most);
                    for reading in &readings {
                        let newest = &mut newest[usize::from(reading.sensor)];
                        *newest = (*newest).max(Some(reading.time_us));
                    }
                    self.take_readings(
                        first_seq,
                        readings.into_iter().map(|reading| reading.named(name(reading.sensor))),
                    );
                }
                Record::Newest(entries) => {
                    let mut known = locked(&self.known);
                    entries.iter().for_each(|(sensor, time_us)| known.note_newest(sensor, *time_us));
                }
                Record::Estimated(entries) => {
                    let mut known = locked(&self.known);
                    entries.iter().for_each(|(sensor, time_us)| known.note_sure(sensor, *time_us));
                }
                Record::Configuration(configuration) => {
                    if first_seq < end {
                        self.measured.begin(first_seq, configuration.as_deref());
                    }
                }
                Record::Sealed(_) | Record::Sensors(..) => {}
            }
        }
        let mut known = locked(&self.known);
        for (sensor, time_us) in sensors.iter().zip(newest) {
            if let (Some(sensor), Some(time_us)) = (sensor, time_us) {
                known.note_newest(sensor, time_us);
            }
        }
    }

    /// Takes a record's readings past what is sealed, or known from another segment; a hole before them becomes a gap.
    fn take_readings(&mut self, first_seq: i64, readings: impl ExactSizeIterator<Item = Reading>) {
        if readings.len() == 0 {
            return;
        }
        self.cover_to(first_seq - 1);
        let known = usize::try_from((self.synced_seq + 1).saturating_sub(first_seq)).unwrap_or(0);
        let taken = readings.len().saturating_sub(known);
        if taken == 0 {
            return;
        }
        let first_seq = self.synced_seq + 1;
        self.synced_seq += count(taken);
        self.add_unsealed(first_seq, readings.skip(known).collect());
    }

    /// Covers the numbers up to `last` by a gap, where they do not count yet.
    fn cover_to(&mut self, last: i64) {
        if let Some(hole) = Bounds::new(self.synced_seq + 1, last) {
            tracing::error!(bounds = %hole, "records of the spool are damaged: a gap covers their numbers, a copy is under `kept`");
            self.unsealed.push_back(Piece::Gap(hole));
            self.synced_seq = last;
        }
    }

    /// A segment without a valid header that may be the newest ends the epoch: nobody knows which numbers it
    /// gave out.
    fn look_at_damaged(&mut self, damaged: Vec<DamagedSegment>, newest_header: Option<Header>) {
        for segment in damaged {
            self.bad_records += 1;
            tracing::error!(path = %segment.path.display(), "a segment of the spool has no valid header; a copy is under `kept`");
            let newest = newest_header.is_none_or(|header| segment.named_seq >= header.first_seq);
            self.finish_due |= newest && newest_header.is_some();
            if segment.is_kept {
                self.damaged_segments.push(segment.path);
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
                tracing::warn!(%epoch, %error, "cannot write that an epoch is finished; this is tried again");
                let last = self.shelf.last_of(epoch);
                self.close_due.extend(last.map(|last| (epoch, last)));
            }
        }
    }

    /// Begins the segment that this run writes to. Where the disk refuses it, the spool starts without, and
    /// tries again. What waits for sealing is sealed later, so that polling begins at once.
    fn begin_after_recovery(&mut self) {
        let length = self.log.next_length(&mut locked(&self.known));
        let fits = self.log.bytes() + length <= self.settings.max_bytes;
        if !fits || self.unsealed_rows() >= UNSEALED_MAX {
            self.seal_synced();
        }
        if let Err(error) = self.begin_segment() {
            self.writing.begins(&error, "the spool cannot begin a segment; readings wait in memory");
        }
    }
}
