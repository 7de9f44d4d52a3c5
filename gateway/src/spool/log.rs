//! The log: the segments of the current epoch, of which the newest is written and the others wait until
//! all they hold is sealed.
//!
//! Invariants:
//! - A segment is on disk with its name before anything is written to it, and before an older one goes.
//! - A segment that gave an error is never written again: what was not synced in it is written anew to
//!   the next, which begins with the first number that was not synced. Numbers of a segment from the
//!   next segment's first number on do not count.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tjern_readings::sensor::{Epoch, SensorId};

use super::disk::{Disk, Whose};
use super::known_sensors::KnownSensors;
use super::locked;
use super::record::{self, SENSORS_MAX, SNAPSHOT_MAX};
use super::segment::{HEADER_BYTES, Header, SUFFIX, Segment};

/// A segment has room for at least so many times what it begins with.
const SNAPSHOTS: u64 = 4;

/// A segment that is no longer written.
#[derive(Debug)]
pub(crate) struct OldSegment {
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
    /// The last number that it holds.
    pub(crate) last_seq: i64,
}

/// The segments of the current epoch.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) epoch: Epoch,
    /// The epoch that this one took over from.
    pub(crate) replaced: Option<Epoch>,
    /// The generation of the newest segment.
    pub(crate) generation: u64,
    /// The header of the newest segment that is on disk, as far as this process knows, and of one that may be: its making failed.
    pub(crate) newest: [Option<Header>; 2],
    /// How long a segment is made where that is enough, and how long at most.
    pub(crate) segment_bytes: [u64; 2],
    /// The segments on disk say that every number up to this one is sealed.
    pub(crate) marked_to: i64,
    /// An epoch's first segment failed after it may have got its name: until a newer one is on disk, nobody
    /// knows which epoch the next start finds.
    pub(crate) undecided: bool,
    pub(crate) active: Option<Segment>,
    /// Under which configuration readings were measured that are written next, as the segment says.
    pub(crate) configuration: Option<String>,
    pub(crate) old: Vec<OldSegment>,
}

impl Log {
    /// The space that the segments take.
    pub(crate) fn bytes(&self) -> u64 {
        let old: u64 = self.old.iter().map(|segment| segment.length).sum();
        old + self.active.as_ref().map_or(0, |segment| segment.length)
    }

    /// What the next segment sets free, once it says that all up to `sealed_to` is sealed.
    pub(crate) fn freed_by_next(&self, synced_seq: i64, sealed_to: i64) -> u64 {
        let old = self.old.iter().filter(|old| old.last_seq <= sealed_to).map(|old| old.length);
        let active = self.active.iter().filter(|_| synced_seq <= sealed_to).map(|segment| segment.length);
        old.chain(active).sum()
    }

    /// How long the next segment is made: so long that what it begins with, the names of all sensors, is a small part.
    pub(crate) fn next_length(&self, known: &mut KnownSensors) -> u64 {
        let [least, most] = self.segment_bytes;
        (SNAPSHOTS * known.snapshot_bytes() as u64).clamp(least, most)
    }

    /// Whether a record of so many bytes fits into the segment that is written.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.active.as_ref().is_some_and(|segment| segment.has_room(bytes))
    }

    /// Writes records that fit.
    pub(crate) fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.active.as_mut().ok_or_else(no_segment)?.write(records)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.active.as_mut().ok_or_else(no_segment)?.sync()
    }

    /// Leaves the segment that is written; `synced_seq` is the last number that counts in it.
    pub(crate) fn leave(&mut self, synced_seq: i64) {
        if let Some(segment) = self.active.take() {
            self.old.push(OldSegment { path: segment.path, length: segment.length, last_seq: synced_seq });
        }
    }

    /// Begins the next segment of the epoch. Everything written before must be synced. `known` is locked before and after
    /// the disk is at work, and not meanwhile: buses ask for it.
    pub(crate) fn begin_segment(
        &mut self,
        first_seq: i64,
        sealed_to: i64,
        known: &Mutex<KnownSensors>,
        configuration: Option<&str>,
    ) -> io::Result<()> {
        self.leave(first_seq - 1);
        self.generation += 1;
        let Self { epoch, generation, replaced, .. } = *self;
        let header = Header { epoch, first_seq, generation, sealed_to, replaced };
        let (length, (records, sensors)) = {
            let mut known = locked(known);
            (self.next_length(&mut known), snapshot(first_seq, &mut known, configuration))
        };
        self.newest[1] = Some(header);
        let segment = Segment::create(&*self.disk, &header, &records, length)?;
        self.newest = [Some(header), None];
        // One of this name held nothing that was acknowledged, and has just been replaced.
        self.old.retain(|old| old.path != segment.path);
        self.active = Some(segment);
        self.configuration = configuration.map(str::to_owned);
        locked(known).list(&sensors);
        self.marked_to = sealed_to;
        self.undecided = false;
        Ok(())
    }

    /// Begins an epoch with its first segment, after which nothing of the former one counts.
    pub(crate) fn begin_epoch(
        &mut self,
        epoch: Epoch,
        replaced: Option<Epoch>,
        sealed_to: i64,
        known: &Mutex<KnownSensors>,
        configuration: Option<&str>,
    ) -> io::Result<()> {
        let former = (self.epoch, self.replaced);
        (self.epoch, self.replaced) = (epoch, replaced);
        if let Err(error) = self.begin_segment(sealed_to + 1, sealed_to, known, configuration) {
            (self.epoch, self.replaced) = former;
            self.undecided = true;
            return Err(error);
        }
        for old in std::mem::take(&mut self.old) {
            self.remove(&old.path);
        }
        Ok(())
    }

    /// Whose a folder is, by its segments. Each start on a folder begins one with a generation of its own: where the newest is the one
    /// that was begun here, nobody went on with it.
    pub(crate) fn whose(&self, seen: &dyn Disk) -> io::Result<Whose> {
        let folder = seen.list(Path::new(""))?;
        let segments: Vec<_> = folder.iter().filter(|entry| entry.name.ends_with(SUFFIX)).collect();
        let mut newest: Option<Header> = None;
        for segment in &segments {
            let header = Header::decode(&seen.read_part(Path::new(&segment.name), 0, HEADER_BYTES)?);
            newest = newest.into_iter().chain(header).max_by_key(|header| header.generation);
        }
        Ok(match newest {
            None if segments.is_empty() => Whose::Nobodys,
            Some(_) if self.newest.contains(&newest) => Whose::Ours,
            _ => Whose::Anothers,
        })
    }

    /// Says on disk that every number up to `sealed_to` is in a sealed file.
    pub(crate) fn mark(&mut self, next_seq: i64, sealed_to: i64) -> io::Result<()> {
        self.write(&record::encode_sealed(next_seq, sealed_to))?;
        self.sync()?;
        self.marked_to = sealed_to;
        Ok(())
    }

    /// Removes the segments that hold nothing but what is marked as sealed.
    pub(crate) fn remove_sealed(&mut self) {
        if self.active.is_none() {
            return;
        }
        let (sealed, rest) = std::mem::take(&mut self.old).into_iter().partition(|old| old.last_seq <= self.marked_to);
        self.old = rest;
        let sealed: Vec<OldSegment> = sealed;
        for segment in sealed {
            self.remove(&segment.path);
        }
    }

    /// A segment that stays behind does no harm: it is ignored at the next start, and removed then.
    fn remove(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a segment that is no longer needed");
        }
    }
}

fn no_segment() -> io::Error {
    io::Error::other("there is no segment to write to")
}

/// What the log knows, as records for the start of a segment: the newest times, which of them were estimated, then the
/// list of its sensors and the configuration that is in force, twice, so that a bad sector does not cost the names of what follows.
fn snapshot(first_seq: i64, known: &mut KnownSensors, configuration: Option<&str>) -> (Vec<u8>, Vec<SensorId>) {
    let mut entries: Vec<_> = known.synced().map(|(sensor, time_us)| (sensor.clone(), time_us)).collect();
    entries.sort();
    let mut records = Vec::new();
    for chunk in entries.chunks(SNAPSHOT_MAX) {
        records.extend(record::encode_newest(first_seq, chunk));
    }
    let mut sure: Vec<_> = known.estimated().map(|(sensor, time_us)| (sensor.clone(), time_us)).collect();
    sure.sort();
    for chunk in sure.chunks(SNAPSHOT_MAX) {
        records.extend(record::encode_estimated(first_seq, chunk));
    }
    let sensors: Vec<SensorId> = entries.into_iter().map(|(sensor, _)| sensor).take(SENSORS_MAX).collect();
    for _ in 0..2 {
        for (first, chunk) in (0..=u16::MAX).step_by(SNAPSHOT_MAX).zip(sensors.chunks(SNAPSHOT_MAX)) {
            records.extend(record::encode_sensors(first_seq, first, chunk));
        }
        if configuration.is_some() {
            records.extend(record::encode_configuration(first_seq, configuration));
        }
    }
    (records, sensors)
}
