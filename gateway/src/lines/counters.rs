//! What a bus of text lines counts: damage on a wire shows in numbers before it shows in values.

use std::sync::atomic::{AtomicU64, Ordering};

use super::time::Moments;

/// The counts of one bus since its start, shared with whoever shows them.
#[derive(Debug, Default)]
pub struct LineCounters {
    lines: AtomicU64,
    dropped: AtomicU64,
    bad_checksums: AtomicU64,
    unparsed: AtomicU64,
    unwanted: AtomicU64,
    bad_times: AtomicU64,
    repeated: AtomicU64,
    forgotten: AtomicU64,
    undecided: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Whole lines that came.
    pub lines: u64,
    /// Lines that were too long, ended before their length, or began where nobody listened.
    pub dropped: u64,
    /// Sentences whose checksum was wrong, or is missing where the device sent one before.
    pub bad_checksums: u64,
    /// Lines in which a point found its place, and no number there.
    pub unparsed: u64,
    /// Lines that were for no point.
    pub unwanted: u64,
    /// Lines whose time could not be read or believed.
    pub bad_times: u64,
    /// Values of a time that was stored already.
    pub repeated: u64,
    /// Values of a time among those too many to be remembered one by one: stored already, or lost.
    pub forgotten: u64,
    /// Values of a time that comes twice when summer ends, of which nothing told which it is: not stored.
    pub undecided: u64,
}

/// What happened to a line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LineFate {
    pub(crate) wanted: bool,
    pub(crate) bad_checksum: bool,
    pub(crate) unparsed: bool,
    pub(crate) bad_time: bool,
    pub(crate) repeated: u64,
    pub(crate) forgotten: u64,
    pub(crate) undecided: u64,
    /// The last of the undecided.
    pub(crate) undecided_at: Option<Moments>,
    /// Its time is one that its zone leaves out.
    pub(crate) skipped_hour: bool,
}

impl LineCounters {
    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> LineCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LineCounts {
            lines: count(&self.lines),
            dropped: count(&self.dropped),
            bad_checksums: count(&self.bad_checksums),
            unparsed: count(&self.unparsed),
            unwanted: count(&self.unwanted),
            bad_times: count(&self.bad_times),
            repeated: count(&self.repeated),
            forgotten: count(&self.forgotten),
            undecided: count(&self.undecided),
        }
    }

    pub(crate) fn note(&self, fate: LineFate) {
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.lines, 1);
        add(&self.bad_checksums, u64::from(fate.bad_checksum));
        add(&self.unparsed, u64::from(fate.unparsed));
        add(&self.unwanted, u64::from(!fate.wanted));
        add(&self.bad_times, u64::from(fate.bad_time));
        self.note_values(fate);
    }

    /// What became of values whose lines were counted when they came.
    pub(crate) fn note_values(&self, fate: LineFate) {
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.repeated, fate.repeated);
        add(&self.forgotten, fate.forgotten);
        add(&self.undecided, fate.undecided);
    }

    pub(crate) fn set_dropped(&self, dropped: u64) {
        self.dropped.store(dropped, Ordering::Relaxed);
    }
}
