//! What is wrong with a spool's files, each with its place: `tjern-gateway spool verify`.
//!
//! Every byte is covered by something: a header's and a record's CRC, a batch's checksum, the zeros that must
//! stand everywhere else. What a power cut leaves (a torn tail, an unfinished file) is worth a note and is not
//! wrong; what lies there that the spool did not write, either.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tjern_readings::batch;
use tjern_readings::sensor::Epoch;

use super::disk::{Disk, Entry, LOCK};
use super::kept::KEPT;
use super::look::Finding;
use super::salvage::Salvaged;
use super::sealed::{self, SEALED, SealedKind, SealedObject};
use super::segment::{HEADER_BYTES, RECORDS_AT};
use super::survey::Found;
use crate::maintenance;
use crate::upload::known_lake;

/// Folders of the gateway that are no part of this log: what waits for the clock (a spool of its own, and the same
/// emptied), what was learned about devices, and configurations that the lake may not have.
const BESIDE: [&str; 4] = ["undated", "undated.moved", "learned", "configurations"];

fn finding(path: &Path, offset: usize, what: impl Into<String>, is_wrong: bool) -> Finding {
    Finding { path: path.to_owned(), offset: offset as u64, what: what.into(), is_wrong }
}

/// What is to be said of a segment.
pub(super) fn segment(found: &Found, salvaged: &Salvaged) -> Vec<Finding> {
    let wrong = |offset, what: String| finding(&found.path, offset, what, true);
    let mut findings: Vec<_> = salvaged
        .unreadable
        .iter()
        .map(|range| wrong(range.start, format!("{} bytes cannot be read", range.len())))
        .collect();
    let Some(header) = found.header else {
        findings.push(wrong(0, "no valid header: the segment's readings are lost, its bytes are kept".to_owned()));
        return findings;
    };
    let block = &salvaged.bytes[HEADER_BYTES..RECORDS_AT.min(salvaged.bytes.len())];
    if let Some(place) = block.iter().position(|byte| *byte != 0) {
        findings.push(wrong(HEADER_BYTES + place, "something behind the header where zeros belong".to_owned()));
    }
    if header.first_seq != found.named_seq {
        findings.push(wrong(0, format!("the header says {} where the name says another number", header.first_seq)));
    }
    let damaged = found.contents.damaged.iter();
    findings.extend(damaged.map(|range| wrong(range.start, format!("no whole record in {} bytes", range.len()))));
    findings.extend(found.contents.torn_tail.iter().map(|range| {
        let what = format!("a torn tail of {} bytes, as a power cut leaves it", range.len());
        finding(&found.path, range.start, what, false)
    }));
    findings
}

/// A file that was never finished.
pub(super) fn unfinished(path: PathBuf) -> Finding {
    finding(&path, 0, "an unfinished file, as a power cut leaves it; the next start removes it", false)
}

/// Everything but the segments.
pub(super) fn folders(disk: &dyn Disk, findings: &mut Vec<Finding>, bytes_read: &mut u64) {
    let known = |entry: &Entry| {
        let name = entry.name.as_str();
        let is_segment = name.ends_with(".segment") || name.ends_with(".segment.new");
        match entry.is_folder {
            true => [SEALED, KEPT].contains(&name) || BESIDE.contains(&name),
            false => [LOCK, maintenance::FILE, known_lake::FILE].contains(&name) || is_segment,
        }
    };
    strangers(disk, Path::new(""), known, findings);
    let folders = disk.list(Path::new(SEALED)).unwrap_or_default();
    strangers(disk, Path::new(SEALED), |entry| entry.is_folder && epoch_of(&entry.name).is_some(), findings);
    for entry in folders.iter().filter(|entry| entry.is_folder) {
        if let Some(epoch) = epoch_of(&entry.name) {
            epoch_folder(disk, &Path::new(SEALED).join(&entry.name), epoch, findings, bytes_read);
        }
    }
}

fn epoch_of(name: &str) -> Option<Epoch> {
    name.strip_suffix(".renewing").unwrap_or(name).parse().ok()
}

fn strangers(disk: &dyn Disk, folder: &Path, known: impl Fn(&Entry) -> bool, findings: &mut Vec<Finding>) {
    match disk.list(folder) {
        Ok(entries) => findings.extend(entries.iter().filter(|entry| !known(entry)).map(|entry| {
            finding(&folder.join(&entry.name), 0, "nothing that the spool wrote; it is left alone", false)
        })),
        Err(error) => findings.push(finding(folder, 0, format!("cannot be listed: {error}"), true)),
    }
}

fn epoch_folder(disk: &dyn Disk, folder: &Path, epoch: Epoch, findings: &mut Vec<Finding>, bytes_read: &mut u64) {
    let mut objects = Vec::new();
    for entry in disk.list(folder).unwrap_or_default() {
        match sealed::parse_name(&entry.name) {
            Some((kind, bounds)) => objects.push(SealedObject { epoch, bounds, kind, length: entry.length }),
            None if entry.name.ends_with(".new") => findings.push(unfinished(folder.join(&entry.name))),
            None => findings.push(finding(
                &folder.join(&entry.name),
                0,
                "nothing that the spool wrote; it is left alone",
                false,
            )),
        }
    }
    for object in &objects {
        let path = folder.join(sealed::file_name(object.kind, object.bounds));
        match disk.read(&path) {
            Ok(bytes) => {
                *bytes_read += bytes.len() as u64;
                findings.extend(check(object, &bytes).map(|what| finding(&path, 0, what, true)));
            }
            // It left for the lake.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => findings.push(finding(&path, 0, format!("cannot be read: {error}"), true)),
        }
    }
    overlaps(folder, objects, findings);
}

/// What is wrong with a sealed file's bytes.
fn check(object: &SealedObject, bytes: &[u8]) -> Option<String> {
    let bounds = object.bounds;
    match object.kind {
        SealedKind::Batch => match batch::decode(bytes) {
            Err(error) => Some(error.to_string()),
            Ok(batch) if (batch.header.epoch, batch.header.bounds) != (object.epoch, bounds) => {
                Some(format!("the batch is {} of epoch {}", batch.header.bounds, batch.header.epoch))
            }
            Ok(_) => None,
        },
        SealedKind::Gap => {
            let head =
                format!("{{\"format\":1,\"first_seq\":{},\"last_seq\":{},\"reason\":\"", bounds.first, bounds.last);
            let is_well = bytes.starts_with(head.as_bytes()) && bytes.ends_with(b"}\n");
            (!is_well).then(|| "no gap with the numbers that the name says".to_owned())
        }
        SealedKind::Closed => {
            let is_well = bytes == format!("{}\n", bounds.last).as_bytes();
            (!is_well).then(|| "not the number that the name says".to_owned())
        }
    }
}

/// A number that stands in two files would be in the lake twice. A gap beside its batch was never sent.
fn overlaps(folder: &Path, mut objects: Vec<SealedObject>, findings: &mut Vec<Finding>) {
    objects.retain(|object| object.kind != SealedKind::Closed);
    objects.sort_by_key(|object| (object.bounds, object.kind));
    for pair in objects.windows(2) {
        let [before, after] = pair else { continue };
        if before.bounds.overlaps(after.bounds) && before.bounds != after.bounds {
            let path = folder.join(sealed::file_name(after.kind, after.bounds));
            findings.push(finding(&path, 0, format!("its numbers overlap those of {}", before.bounds), true));
        }
    }
}
