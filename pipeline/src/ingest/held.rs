//! Sources that are held back because something of theirs cannot be read: each keeps itself only.
//!
//! A batch, a configuration or the end of an epoch that the store refuses holds back its stream; a folder that a
//! listing could not read holds back what lies in it. Of what is held back no step is planned and nothing is
//! removed, since from what was not seen nothing follows. It is tried again after 5 s, 10 s, … up to a minute,
//! so that it costs little, and is told until it is over.

use std::collections::BTreeMap;

use object_store::Error;
use tjern_readings::clock::SECOND_US;
use tjern_readings::keys;
use tjern_readings::store::local::Unreadable;

use super::check::Subject;
use super::landing::{Stream, Zone};

/// The pause after the first failure; each further one is twice as long.
const PAUSE_US: i64 = 5 * SECOND_US;

/// The longest pause.
const PAUSE_MAX_US: i64 = 60 * SECOND_US;

/// The pause after a check that failed doubles so often: up to about an hour.
const UNCHECKED_DOUBLINGS: u32 = 6;

/// What is held back, and why.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    streams: BTreeMap<Stream, Held>,
    /// Folders that the last listing of them could not read.
    folders: BTreeMap<String, String>,
    /// Why something that was taken, and whose grace is over, is still there.
    remains: Option<String>,
    /// What came after its readings, and what those could not be held against.
    unchecked: BTreeMap<Subject, Held>,
}

#[derive(Debug)]
struct Held {
    why: String,
    failures: u32,
    next_us: i64,
}

impl HeldBack {
    /// A stream's step could not be done.
    pub(super) fn add(&mut self, stream: &Stream, why: String, now_us: i64) {
        let failures = self.streams.get(stream).map_or(0, |held| held.failures) + 1;
        if failures == 1 {
            tracing::warn!(source = %stream.0, why, "a source is held back; the others are taken");
        }
        let pause_us = PAUSE_US.saturating_mul(1 << (failures - 1).min(8)).min(PAUSE_MAX_US);
        self.streams.insert(stream.clone(), Held { why, failures, next_us: now_us.saturating_add(pause_us) });
    }

    /// A listing of everything says which folders it could not read.
    pub(super) fn unreadable(&mut self, folders: BTreeMap<String, String>) {
        for (folder, why) in &folders {
            if !self.folders.contains_key(folder) {
                tracing::warn!(folder, why, "a source's folder cannot be read; the others are taken");
            }
        }
        self.folders = folders;
        self.remains = None;
    }

    /// What may go could not be removed, where that is so.
    pub(super) fn remains(&mut self, why: Option<String>) {
        self.remains = self.remains.take().or(why);
    }

    /// Readings could not be held against what came after them.
    pub(super) fn check_failed(&mut self, subject: &Subject, why: String, now_us: i64) {
        // Each attempt may write files that nobody takes.
        let failures = self.unchecked.get(subject).map_or(0, |held| held.failures).saturating_add(1);
        let pause_us = PAUSE_MAX_US << (failures - 1).min(UNCHECKED_DOUBLINGS);
        self.unchecked.insert(subject.clone(), Held { why, failures, next_us: now_us.saturating_add(pause_us) });
    }

    /// They were, or a part of them.
    pub(super) fn checked(&mut self, subject: &Subject) {
        self.unchecked.remove(subject);
    }

    /// Only against these something is to be held.
    pub(super) fn still_unchecked(&mut self, is_unchecked: impl Fn(&Subject) -> bool) {
        self.unchecked.retain(|subject, _| is_unchecked(subject));
    }

    /// Whether the pause after a failure is not over.
    pub(super) fn check_rests(&self, subject: &Subject, now_us: i64) -> bool {
        let longest_us = PAUSE_MAX_US << UNCHECKED_DOUBLINGS;
        self.unchecked.get(subject).is_some_and(|held| (now_us..=now_us + longest_us).contains(&(held.next_us - 1)))
    }

    /// The same of a part of the landing zone.
    pub(super) fn also_unreadable(&mut self, folders: BTreeMap<String, String>) {
        self.folders.extend(folders);
    }

    /// Leaves out of `zone` what must not be touched: streams in folders that were not read whole, and, unless
    /// everything is tried, those whose pause is not over.
    pub(super) fn sift(&self, zone: &mut Zone, now_us: i64, tries_all: bool) {
        zone.retain(|stream, _| !self.is_hidden(stream) && (tries_all || !self.rests(stream, now_us)));
    }

    /// Whether a stream's pause is not over.
    pub(super) fn rests(&self, stream: &Stream, now_us: i64) -> bool {
        // A clock that was set back ends each pause.
        self.streams.get(stream).is_some_and(|held| (now_us..=now_us + PAUSE_MAX_US).contains(&(held.next_us - 1)))
    }

    /// The streams whose pause is over.
    pub(super) fn due(&self, now_us: i64) -> impl Iterator<Item = &Stream> {
        self.streams.keys().filter(move |stream| !self.rests(stream, now_us))
    }

    /// What was tried just now and did not fail again is held back no more.
    pub(super) fn release<'a>(&mut self, tried: impl Iterator<Item = &'a Stream>, failed: impl Fn(&Stream) -> bool) {
        for stream in tried.filter(|stream| !failed(stream)) {
            if self.streams.remove(stream).is_some() {
                tracing::info!(source = %stream.0, "a source is held back no more");
            }
        }
    }

    /// How much is held back, and why the first of it is; `None` where nothing is. Streams count once they failed
    /// more often than `hiccups`.
    pub(super) fn told(&self, hiccups: u32) -> Option<(usize, String)> {
        let streams = self.streams.values().filter(|held| held.failures > hiccups).map(|held| &held.why);
        let unchecked = self.unchecked.values().map(|held| &held.why);
        let all: Vec<&String> = self.folders.values().chain(streams).chain(&self.remains).chain(unchecked).collect();
        all.first().map(|first| (all.len(), (*first).clone()))
    }

    fn is_hidden(&self, stream: &Stream) -> bool {
        self.folders.keys().any(|hidden| hides(hidden, stream))
    }
}

/// Whether what a listing of the landing zone could not read hides something of a stream.
pub(crate) fn hides(hidden: &str, (source, epoch): &Stream) -> bool {
    let folder = format!("{}/", keys::epoch_folder(source, *epoch));
    // `landing/<source>/<epoch>/<object>` hides its stream too: it is not seen whole.
    folder.starts_with(hidden) || hidden.starts_with(&folder)
}

/// The folder or the object that a listing of `zone` could not read, if it is one source's, so that the others' can be
/// taken.
pub(crate) fn unreadable_of<'a>(zone: &str, error: &'a Error) -> Option<&'a str> {
    Unreadable::of(error).filter(|key| is_of_one_source(zone, key))
}

fn is_of_one_source(zone: &str, key: &str) -> bool {
    let rest = key.strip_prefix(zone).and_then(|rest| rest.strip_prefix('/'));
    rest.is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::landing::LandedEpoch;
    use super::*;
    use tjern_readings::sensor::Epoch;

    fn stream(name: &str, epoch: u8) -> Stream {
        (name.parse().expect("valid"), Epoch::from_bytes([epoch; 16]))
    }

    fn left(held: &HeldBack, now_us: i64, tries_all: bool) -> Vec<Stream> {
        let streams = [stream("a", 1), stream("a", 2), stream("ab", 1)];
        let mut zone: Zone = streams.into_iter().map(|stream| (stream, LandedEpoch::default())).collect();
        held.sift(&mut zone, now_us, tries_all);
        zone.into_keys().collect()
    }

    #[test]
    fn a_folder_that_was_not_read_hides_its_own_streams_and_no_others() {
        let mut held = HeldBack::default();
        held.unreadable([("landing/a/".to_owned(), "no right".to_owned())].into());
        assert_eq!(left(&held, 0, true), [stream("ab", 1)], "a name that begins the same is another's");
        let epoch = Epoch::from_bytes([2; 16]);
        for hidden in [format!("landing/a/{epoch}/"), format!("landing/a/{epoch}/00.arrow")] {
            held.unreadable([(hidden, "no right".to_owned())].into());
            assert_eq!(left(&held, 0, true), [stream("a", 1), stream("ab", 1)]);
        }
        let is_of_one_source = |key| is_of_one_source("landing", key);
        assert!(is_of_one_source("landing/a/") && !is_of_one_source("landing/") && !is_of_one_source("landing"));
    }

    /// A source that stays unreadable for a year must not be asked for every two seconds.
    #[test]
    fn what_is_held_back_is_tried_again_ever_more_seldom() {
        let mut held = HeldBack::default();
        let mut tries = 0;
        for now_us in (0..3_600 * SECOND_US).step_by(2_000_000) {
            if tries == 0 || held.due(now_us).next().is_some() {
                held.add(&stream("a", 1), "403".to_owned(), now_us);
                tries += 1;
            }
            assert_eq!(left(&held, now_us, false).len(), 2);
            assert_eq!(left(&held, now_us, true).len(), 3);
        }
        assert!((60..=65).contains(&tries), "{tries} in an hour");
        assert_eq!(held.told(2), Some((1, "403".to_owned())));
        held.release([stream("a", 1)].iter(), |_| false);
        assert_eq!(held.told(0), None);
    }
}
