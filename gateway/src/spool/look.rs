//! A spool as people see it: what a start would find, with nothing changed, also while a gateway has it.
//!
//! Recovery's own code reads the folder. What leaves for the lake meanwhile may be missing here, and nothing is
//! there twice.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::keys::Bounds;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SensorId, SourceName};

use super::core::{Core, Piece};
use super::disk::{Disk, Onlooker};
use super::sealed::{self, SealedKind, SealedObject};
use super::survey::{self, Found};
use super::{SpoolError, SpoolSettings, locked, recovery, verify};

/// A segment of the log.
#[derive(Debug, Clone)]
pub struct SegmentLook {
    /// Its file, relative to the spool's folder.
    pub path: PathBuf,
    /// Whose numbers these are; `None` where the header is damaged.
    pub epoch: Option<Epoch>,
    /// The first number that it may hold.
    pub first_seq: i64,
    /// How many readings were found in it.
    pub readings: usize,
    /// What it takes of the disk.
    pub length: u64,
    /// When it was last written, in µs since 1970 UTC.
    pub modified_us: Option<i64>,
    /// Damaged records in it.
    pub bad_records: u64,
    /// Whether something unfinished lies behind its last record, as after a power cut.
    pub has_torn_tail: bool,
}

/// What `verify` has to say of a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the spool's folder.
    pub path: PathBuf,
    /// Where in it, from 0.
    pub offset: u64,
    /// What was found.
    pub what: String,
    /// Whether something is wrong, or this is only worth a note.
    pub is_wrong: bool,
}

/// What is in a spool.
#[derive(Debug)]
pub struct SpoolLook {
    disk: Arc<Onlooker>,
    core: Core,
    segments: Vec<SegmentLook>,
    findings: Vec<Finding>,
    bytes_read: u64,
}

impl SpoolLook {
    /// Looks at the spool in a folder.
    ///
    /// # Errors
    /// [`SpoolError::Folder`] where the folder is not there, or cannot be listed.
    pub fn at(dir: &Path) -> Result<Self, SpoolError> {
        // What a start would say of damage is no news of this process: `verify` tells it in its own words.
        let silent = tracing::subscriber::NoSubscriber::default();
        let look = || tracing::subscriber::with_default(silent, || Self::over(Arc::new(Onlooker::at(dir)?)));
        look().map_err(|source| SpoolError::Folder { path: dir.to_owned(), source })
    }

    /// Whether nothing was found that a spool has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.findings.is_empty() && self.core.shelf.objects.is_empty()
    }

    fn over(disk: Arc<Onlooker>) -> std::io::Result<Self> {
        let (mut all, mut segments, mut findings, mut bytes_read) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let unfinished = survey::segments(&*disk, |found, salvaged| {
            findings.extend(verify::segment(&found, salvaged));
            bytes_read += found.length;
            segments.push(describe(&found));
            all.push(found);
        })?;
        findings.extend(unfinished.into_iter().map(verify::unfinished));
        segments.sort_by_key(|segment| (segment.epoch, segment.first_seq));
        let settings = SpoolSettings {
            dir: PathBuf::new(),
            max_bytes: u64::MAX,
            sync_every: Duration::ZERO,
            source: "looked-at".parse().map_err(std::io::Error::other)?,
            configuration: None,
        };
        let shared: Arc<dyn Disk> = Arc::<Onlooker>::clone(&disk);
        let core = recovery::recall_only(shared, settings, Clock::manual(0), all)?;
        Ok(Self { disk, core, segments, findings, bytes_read })
    }

    /// The epoch that goes on at the next start; a random one where there is none.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.core.log.epoch
    }

    /// The log, in the order of the numbers.
    #[must_use]
    pub fn segments(&self) -> &[SegmentLook] {
        &self.segments
    }

    /// The sealed files that wait for the lake, oldest first, with the moment that each was made.
    #[must_use]
    pub fn sealed(&self) -> Vec<(SealedObject, Option<i64>)> {
        let mut times = HashMap::new();
        for folder in self.core.shelf.objects.iter().map(|object| sealed::folder(object.epoch)) {
            times.entry(folder.clone()).or_insert_with(|| {
                let entries = self.disk.list(&folder).unwrap_or_default();
                entries.into_iter().map(|entry| (entry.name, entry.modified_us)).collect::<HashMap<_, _>>()
            });
        }
        let modified_us = |object: &SealedObject| {
            let path = object.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            times.get(&sealed::folder(object.epoch)).and_then(|folder| folder.get(&name).copied().flatten())
        };
        self.core.shelf.objects.iter().map(|object| (object.clone(), modified_us(object))).collect()
    }

    /// What is on disk and not sealed: how many readings, and between which numbers.
    #[must_use]
    pub fn unsealed(&self) -> (usize, Option<Bounds>) {
        let rows = self.core.unsealed_rows();
        (rows, Bounds::new(self.core.sealed_to + 1, self.core.synced_seq))
    }

    /// The newest time that was dated by a clock that was believed, of these sensors: what the next start holds its clock against.
    #[must_use]
    pub fn newest_sure_us(&self, of: impl Fn(&SensorId) -> bool) -> Option<i64> {
        locked(&self.core.known).sure_us(of)
    }

    /// Numbers whose records are damaged: the next start covers them by a gap.
    #[must_use]
    pub fn lost(&self) -> Vec<Bounds> {
        let gap = |piece: &Piece| match piece {
            Piece::Gap(bounds) => Some(*bounds),
            Piece::Readings { .. } => None,
        };
        self.core.unsealed.iter().filter_map(gap).collect()
    }

    /// The bytes of a sealed file; `None` where it has left meanwhile.
    ///
    /// # Errors
    /// [`SpoolError::Read`] where it cannot be read.
    pub fn bytes(&self, object: &SealedObject) -> Result<Option<Bytes>, SpoolError> {
        let path = object.path();
        match self.disk.read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SpoolError::Read { path, source }),
        }
    }

    /// Who sent what is here, as the first batch that can be read says it.
    #[must_use]
    pub fn source(&self) -> Option<SourceName> {
        let batches = self.core.shelf.objects.iter().filter(|object| object.kind == SealedKind::Batch);
        batches
            .filter_map(|object| self.bytes(object).ok().flatten())
            .find_map(|bytes| batch::decode(&bytes).ok().map(|batch| batch.header.source))
    }

    /// Gives every reading in the order of the epochs and numbers, as long as `each` does not end that. What
    /// cannot be read is left out, and named.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn each_reading<E>(
        &self,
        mut each: impl FnMut(Epoch, i64, &Reading) -> Result<(), E>,
    ) -> Result<Vec<Finding>, E> {
        let mut left_out = Vec::new();
        for object in self.core.shelf.objects.iter().filter(|object| object.kind == SealedKind::Batch) {
            let wrong = |what: String| Finding { path: object.path(), offset: 0, what, is_wrong: true };
            let bytes = match self.bytes(object) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(error) => {
                    left_out.push(wrong(error.to_string()));
                    continue;
                }
            };
            match batch::decode(&bytes).and_then(|batch| batch.readings()) {
                Ok(readings) => give(&mut each, object.epoch, object.bounds.first, readings.into_iter())?,
                Err(error) => left_out.push(wrong(error.to_string())),
            }
        }
        for piece in &self.core.unsealed {
            if let Piece::Readings { first_seq, readings } = piece {
                give(&mut each, self.core.log.epoch, *first_seq, readings.iter())?;
            }
        }
        Ok(left_out)
    }

    /// Checks every byte: everything that is found, and how many bytes were read.
    #[must_use]
    pub fn verify(&self) -> (Vec<Finding>, u64) {
        let mut findings = self.findings.clone();
        let mut bytes_read = self.bytes_read;
        verify::folders(&*self.disk, &mut findings, &mut bytes_read);
        findings.sort_by(|one, other| (&one.path, one.offset).cmp(&(&other.path, other.offset)));
        (findings, bytes_read)
    }
}

fn give<E>(
    each: &mut impl FnMut(Epoch, i64, &Reading) -> Result<(), E>,
    epoch: Epoch,
    first_seq: i64,
    mut readings: impl Iterator<Item = Reading>,
) -> Result<(), E> {
    (first_seq..).zip(&mut readings).try_for_each(|(seq, reading)| each(epoch, seq, &reading))
}

fn describe(found: &Found) -> SegmentLook {
    let readings = found.contents.records.iter().map(|(_, record)| record.count());
    SegmentLook {
        path: found.path.clone(),
        epoch: found.header.map(|header| header.epoch),
        first_seq: found.header.map_or(found.named_seq, |header| header.first_seq),
        readings: usize::try_from(readings.sum::<i64>()).unwrap_or(usize::MAX),
        length: found.length,
        modified_us: found.modified_us,
        bad_records: found.contents.bad_records,
        has_torn_tail: found.contents.torn_tail.is_some(),
    }
}
