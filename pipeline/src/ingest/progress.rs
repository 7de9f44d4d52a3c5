//! How the progress of every stream stands in the application transactions of `readings`.
//!
//! | application | number |
//! |---|---|
//! | `<source>/<epoch>` | the watermark |
//! | `<source>/<epoch>/<first>-<last>` | the last number of a batch that filled something passed |
//! | `:open/<source>/<epoch>/<first>-<last>` | 1 a hole, 2 a gap that the gateway made, 3 from before a replay, 4 a hole that a person accepted, 0 no longer open |
//! | `:dropped/<source>/<epoch>` | when a gap was passed last, or a hole became one, in microseconds since 1970 |
//! | `:closed/<source>/<epoch>` | the last number of an epoch that its gateway finished, once everything up to it was taken or passed |
//! | `:refused/<why>/<source>/…` | what was ingested and refused: `refused` |
//! | `:late/<source>/<epoch>/…` | what was taken long after it had landed: `late` |
//! | `ingest` | counts ingest's commits, so that of two at once one is refused |

use std::collections::{BTreeSet, HashMap};

use tjern_readings::keys::Bounds;
use tjern_readings::sensor::{Epoch, SourceName};

use super::landing::Stream;
use super::sequence::Progress;
use super::{OpenRun, late};

/// Moved by every commit of ingest.
pub(crate) const INGEST: &str = "ingest";

/// What stands before open runs. No source has such a name.
pub(super) const OPEN: &str = ":open/";

/// What stands before streams whose gateway dropped readings.
const DROPPED: &str = ":dropped/";

/// What stands before finished epochs.
const CLOSED: &str = ":closed/";

/// What an open run of numbers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    Closed = 0,
    Hole = 1,
    Gap = 2,
    /// Below what lay in the landing zone when the table was built anew: nobody waits for it, and it is taken if it comes.
    BeforeReplay = 3,
    /// A hole of which a person said that it will never be filled: nobody is told of it, and it is taken if it comes.
    Accepted = 4,
}

pub(super) fn watermark((source, epoch): &Stream) -> String {
    watermark_of(source, *epoch)
}

pub(super) fn watermark_of(source: &SourceName, epoch: Epoch) -> String {
    format!("{source}/{epoch}")
}

pub(super) fn filled((source, epoch): &Stream, bounds: Bounds) -> String {
    format!("{source}/{epoch}/{bounds}")
}

pub(super) fn open((source, epoch): &Stream, bounds: Bounds) -> String {
    format!("{OPEN}{source}/{epoch}/{bounds}")
}

pub(super) fn dropped((source, epoch): &Stream) -> String {
    format!("{DROPPED}{source}/{epoch}")
}

pub(super) fn closed((source, epoch): &Stream) -> String {
    format!("{CLOSED}{source}/{epoch}")
}

/// The stream that a transaction says is finished.
pub(super) fn finished(app_id: &str) -> Option<Stream> {
    stream_of(app_id.strip_prefix(CLOSED)?.split_once('/')?)
}

fn stream_of((source, epoch): (&str, &str)) -> Option<Stream> {
    Some((source.parse().ok()?, epoch.parse().ok()?))
}

/// The progress of every stream.
pub(super) fn read(transactions: &HashMap<String, i64>) -> HashMap<Stream, Progress> {
    let mut streams = HashMap::new();
    for (app_id, number) in transactions {
        note(&mut streams, app_id, *number);
    }
    streams
}

/// Takes what a transaction says now, whatever it said before.
pub(super) fn note(streams: &mut HashMap<Stream, Progress>, app_id: &str, number: i64) {
    if let Some((stream, field)) = late::named(app_id) {
        if let Some(stream) = stream.split_once('/').and_then(stream_of) {
            streams.entry(stream).or_default().late.set(field, number);
        }
        return;
    }
    let (name, is_open) = app_id.strip_prefix(OPEN).map_or((app_id, false), |rest| (rest, true));
    let mut parts = name.splitn(3, '/');
    let stream = parts.next().zip(parts.next()).and_then(stream_of);
    let (Some(stream), bounds) = (stream, parts.next()) else { return };
    let Some(bounds) = bounds else {
        if !is_open {
            streams.entry(stream).or_default().watermark = number;
        }
        return;
    };
    let Ok(bounds) = bounds.parse() else { return };
    let progress = streams.entry(stream).or_default();
    if !is_open {
        progress.filled.insert(bounds);
        return;
    }
    let set =
        |runs: &mut BTreeSet<Bounds>, is_in: bool| _ = if is_in { runs.insert(bounds) } else { runs.remove(&bounds) };
    set(&mut progress.open, number != Open::Closed as i64);
    set(&mut progress.holes, number == Open::Hole as i64);
}

/// All open runs of numbers, but for those from before a replay, which are nobody's trouble.
pub(super) fn open_runs(transactions: &HashMap<String, i64>) -> Vec<OpenRun> {
    let found = transactions.iter().filter_map(|(app_id, number)| {
        let mut parts = app_id.strip_prefix(OPEN)?.split('/');
        let (source, epoch, bounds) = (parts.next()?, parts.next()?, parts.next()?);
        if *number == Open::Closed as i64 || *number == Open::BeforeReplay as i64 {
            return None;
        }
        let (dropped, accepted) = (*number == Open::Gap as i64, *number == Open::Accepted as i64);
        Some(OpenRun {
            source: source.parse().ok()?,
            epoch: epoch.parse().ok()?,
            bounds: bounds.parse().ok()?,
            dropped,
            accepted,
        })
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_cached_key(|run| (run.source.to_string(), run.epoch.to_string(), run.bounds));
    found
}

/// When a gateway dropped readings last, by stream.
pub(super) fn dropped_last(transactions: &HashMap<String, i64>) -> HashMap<Stream, i64> {
    let found = transactions.iter().filter_map(|(app_id, at_us)| {
        let (source, epoch) = app_id.strip_prefix(DROPPED)?.split_once('/')?;
        Some(((source.parse().ok()?, epoch.parse().ok()?), *at_us))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_survives_the_log() {
        let stream: Stream = ("import:history".parse().expect("valid"), Epoch::from_bytes([3; 16]));
        let bounds = |first, last| Bounds::new(first, last).expect("in order");
        let transactions = HashMap::from([
            (INGEST.to_owned(), 7),
            ("fence/readings".to_owned(), 1),
            (watermark(&stream), 90),
            (open(&stream, bounds(3, 6)), Open::Hole as i64),
            (open(&stream, bounds(8, 9)), Open::Gap as i64),
            (open(&stream, bounds(3, 9)), Open::Closed as i64),
            (filled(&stream, bounds(7, 7)), 7),
            (closed(&stream), 90),
        ]);
        let finished: Vec<_> = transactions.keys().filter_map(|app_id| finished(app_id)).collect();
        assert_eq!(finished, std::slice::from_ref(&stream));
        let read = read(&transactions);
        let wanted = Progress {
            watermark: 90,
            open: [bounds(3, 6), bounds(8, 9)].into(),
            holes: [bounds(3, 6)].into(),
            filled: [bounds(7, 7)].into(),
            ..Progress::default()
        };
        assert_eq!(read, HashMap::from([(stream, wanted)]));
        let open: Vec<_> = open_runs(&transactions).into_iter().map(|run| (run.bounds, run.dropped)).collect();
        assert_eq!(open, [(bounds(3, 6), false), (bounds(8, 9), true)]);
    }
}
