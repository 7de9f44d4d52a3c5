//! Which files are merged: no I/O, no clock.
//!
//! Time is cut into windows that grow with age, in UTC: days in the month of the newest reading and
//! the one before and after it, months around these, years from two years on. A window grows only while what lies
//! in it is about one file: a year of more than the target size stays months, a month days, a day hours, so that
//! late rows never cost more than a few files' rewriting. A clock that is wrong by
//! years moves nothing: the newest reading is at most a day ahead of the clock here. A file without
//! statistics, which only others write, is left alone.
//!
//! Files that reach over a border are cut at it first, and only they: one reading of long ago beside those of today
//! is one file of two readings' windows, and no reason to write anew what lies between. Then
//! all files of a window are merged together, so that sealed files never overlap. A window is worth it when it has
//! more files than its bytes need, files that overlap, or one that is not sorted. The newest window will have more files all the time, and so has a big one to which late
//! rows still come: there only the smallest are merged, those that are not much bigger than what is smaller
//! than they, so that a row is written anew a number of times that grows with the logarithm of the window's size.

use std::cell::RefCell;
use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tjern_lake::DataFile;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// How many files the newest window gathers before they are merged.
const OPEN_FILES_MIN: usize = 4;

/// A file of a window that still gets rows is merged with smaller ones that have a share of its size together.
const OPEN_SHARE: i64 = 2;

/// A file of this share of the target size is as good as nothing.
const VERY_SMALL: i64 = 128;

/// How long after its last file a window may still get late rows.
const LATE_MS: i64 = 3_600_000;

/// Late rows that are less than this share of a window wait for more.
const LATE_SHARE: i64 = 16;

/// A span of time, in microseconds: the start belongs to it, the end does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    pub(super) from_us: i64,
    pub(super) to_us: i64,
}

impl Window {
    pub(super) const fn contains(&self, time_us: i64) -> bool {
        self.from_us <= time_us && time_us < self.to_us
    }
}

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Length {
    Hour,
    Day,
    Month,
    Year,
}

/// Files that are read together, and the windows that their rows are written to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Merge {
    pub(super) files: Vec<DataFile>,
    pub(super) windows: Vec<Window>,
}

impl Merge {
    /// How many bytes its files have.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| u64::try_from(file.size).unwrap_or(0)).sum()
    }

    /// Whether its files are to be cut before they are merged with others.
    pub(super) fn reaches_over_a_border(&self) -> bool {
        self.windows.len() > 1
    }

    /// How many rows its files have, where the log says so.
    pub(super) fn rows(&self) -> u64 {
        self.files.iter().filter_map(|file| u64::try_from(file.rows?).ok()).sum()
    }
}

/// What to merge, oldest first.
pub(super) fn plan(files: &[DataFile], file_bytes: u64, now_us: i64) -> Vec<Merge> {
    let Some(layout) = Layout::of(files, file_bytes, now_us) else { return Vec::new() };
    let mut merges = layout.merges();
    merges.retain_mut(|merge| layout.is_worth_it(merge, now_us));
    merges
}

/// The oldest window that is not one sorted file, or as few as its bytes need: its start, in microseconds.
pub(super) fn oldest_unsealed_us(files: &[DataFile], file_bytes: u64, now_us: i64) -> Option<i64> {
    let layout = Layout::of(files, file_bytes, now_us)?;
    let unsealed = |merge: &Merge| merge.reaches_over_a_border() || !layout.is_sealed(merge);
    layout
        .merges()
        .iter()
        .filter(|merge| unsealed(merge))
        .filter_map(|merge| Some(merge.windows.first()?.from_us))
        .min()
}

/// How time is cut for these files.
struct Layout<'a> {
    files: Vec<(&'a DataFile, (i64, i64))>,
    newest_us: i64,
    file_bytes: i64,
    /// The windows that were looked at, by their starts.
    known: RefCell<BTreeMap<i64, Window>>,
}

impl<'a> Layout<'a> {
    fn of(files: &'a [DataFile], file_bytes: u64, now_us: i64) -> Option<Self> {
        let mut files: Vec<_> = files.iter().filter_map(|file| Some((file, file.time_us?))).collect();
        files.sort_by_key(|(_, times)| *times);
        let newest_us = files.iter().map(|(_, (_, last))| *last).max()?.min(now_us.saturating_add(DAY_US));
        let file_bytes = i64::try_from(file_bytes).unwrap_or(i64::MAX).max(1);
        Some(Self { files, newest_us, file_bytes, known: RefCell::default() })
    }

    /// Files with the windows that they lie in, oldest first. Those of one window are together; so are those that
    /// reach over a border and share a window, apart from the others: what they bring is cut before it is merged.
    fn merges(&self) -> Vec<Merge> {
        let alone = self.files.iter().map(|(file, (first, last))| Merge {
            files: vec![(*file).clone()],
            windows: self.windows_between(*first, *last),
        });
        let (wide, narrow): (Vec<_>, Vec<_>) = alone.partition(Merge::reaches_over_a_border);
        let mut merges = sharing(wide);
        merges.extend(sharing(narrow));
        merges.sort_by_key(|merge| merge.windows.first().copied());
        merges
    }

    /// Whether a merge is worth its work. What of it is not is taken out.
    fn is_worth_it(&self, merge: &mut Merge, now_us: i64) -> bool {
        if merge.files.iter().any(|file| !file.sorted) || merge.reaches_over_a_border() {
            return true;
        }
        if self.is_sealed(merge) {
            return false;
        }
        if self.is_newest(merge) || self.waits(merge, now_us) {
            smallest(&mut merge.files, self.file_bytes);
            return merge.files.len() >= OPEN_FILES_MIN;
        }
        true
    }

    fn is_newest(&self, merge: &Merge) -> bool {
        merge.windows.iter().any(|window| window.contains(self.newest_us))
    }

    /// Whether its files are as few as their bytes need, sorted, and one after the other.
    fn is_sealed(&self, merge: &Merge) -> bool {
        let bytes: i64 = merge.files.iter().map(|file| file.size).sum();
        // How large a file will be is not known exactly before it ends, and it ends with a sensor: a quarter of
        // the target is taken for good, rather than merging the same files for ever.
        let needed = usize::try_from(bytes / (self.file_bytes / 4).max(1)).unwrap_or(usize::MAX).saturating_add(1);
        let mut sensors: Vec<_> = merge.files.iter().map(|file| file.sensor.as_ref()).collect();
        sensors.sort();
        let follow = |pair: &[Option<&(String, String)>]| match pair {
            [Some((_, last)), Some((first, _))] => last <= first,
            _ => false,
        };
        merge.files.iter().all(|file| file.sorted) && merge.files.len() <= needed && sensors.windows(2).all(follow)
    }

    /// Whether late rows still come to a big window, and are few as yet.
    fn waits(&self, merge: &Merge, now_us: i64) -> bool {
        let bytes: i64 = merge.files.iter().map(|file| file.size).sum();
        let biggest = merge.files.iter().map(|file| file.size).max().unwrap_or(0);
        let youngest_ms = merge.files.iter().map(|file| file.modified_ms).max().unwrap_or(0);
        biggest > self.file_bytes / 4 && bytes - biggest < bytes / LATE_SHARE && now_us / 1_000 - youngest_ms < LATE_MS
    }

    /// The windows from the one of `first_us` to the one of `last_us`.
    fn windows_between(&self, first_us: i64, last_us: i64) -> Vec<Window> {
        let mut windows = vec![self.window_of(first_us)];
        while let Some(next_us) = windows.last().map(|window| window.to_us).filter(|to_us| *to_us <= last_us) {
            windows.push(self.window_of(next_us));
        }
        windows
    }

    /// The window that a moment lies in.
    fn window_of(&self, time_us: i64) -> Window {
        if let Some(known) = self.known.borrow().range(..=time_us).next_back().map(|(_, window)| *window)
            && known.contains(time_us)
        {
            return known;
        }
        let mut length = length_by_age(time_us, self.newest_us);
        let mut window = window_of(time_us, length);
        while length > Length::Hour && self.is_too_much(window, length) {
            length = length.shorter();
            window = window_of(time_us, length);
        }
        self.known.borrow_mut().insert(window.from_us, window);
        window
    }

    /// Whether what lies in a window is more than a file, or, where it was about one before, more than two.
    fn is_too_much(&self, window: Window, length: Length) -> bool {
        let mut bytes = 0.0;
        let mut files_max = 1.0;
        for (file, (first, last)) in &self.files {
            let share = share_of(*first, *last, window);
            if share <= 0.0 {
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let size = file.size as f64;
            bytes += size * share;
            let fills = file.size >= self.file_bytes / 2 && window.contains(*first) && window.contains(*last);
            if file.sorted && fills && !window_of(*first, length.shorter()).contains(*last) {
                files_max = 2.0;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let target = self.file_bytes as f64;
        bytes > target * files_max
    }
}

/// Puts together what shares a window. What comes is in the order of its beginning.
fn sharing(ordered: Vec<Merge>) -> Vec<Merge> {
    let mut merges: Vec<Merge> = Vec::new();
    for mut new in ordered {
        // Only the last ones can share a window with this one.
        while let Some(former) = merges.pop_if(|former| former.windows.last() >= new.windows.first()) {
            new.files.extend(former.files);
            new.windows.extend(former.windows);
        }
        new.windows.sort_unstable();
        new.windows.dedup();
        merges.push(new);
    }
    merges
}

/// What share of the time from `first` to `last` lies in a window.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn share_of(first: i64, last: i64, window: Window) -> f64 {
    let common = last.min(window.to_us - 1).saturating_sub(first.max(window.from_us)).saturating_add(1);
    if common <= 0 { 0.0 } else { common as f64 / last.saturating_sub(first).saturating_add(1).max(1) as f64 }
}

/// The smallest files, up to the first that is much bigger than all smaller ones together; what is very small
/// is always among them.
fn smallest(files: &mut Vec<DataFile>, file_bytes: i64) {
    files.sort_by_key(|file| file.size);
    let mut bytes = 0;
    let small = file_bytes / VERY_SMALL;
    let mut is_much = |file: &DataFile| {
        let is_much = bytes > 0 && file.size > OPEN_SHARE * small.max(bytes);
        bytes += file.size;
        is_much
    };
    let count = files.iter().position(&mut is_much).unwrap_or(files.len());
    files.truncate(count);
}

impl Length {
    const fn shorter(self) -> Self {
        match self {
            Self::Year => Self::Month,
            Self::Month => Self::Day,
            Self::Day | Self::Hour => Self::Hour,
        }
    }
}

/// How long a window may be at most that a moment lies in.
fn length_by_age(time_us: i64, newest_us: i64) -> Length {
    let (date, newest) = (date_of(time_us), date_of(newest_us));
    let month = newest.first_of_month();
    let days_from = month.checked_sub(1.month()).unwrap_or(month);
    let months_from = newest.first_of_year().checked_sub(1.year()).unwrap_or(month);
    let days_to = month.checked_add(2.months()).unwrap_or(month);
    let months_to = newest.first_of_year().checked_add(2.years()).unwrap_or(days_to);
    if (days_from..days_to).contains(&date) {
        Length::Day
    } else if (months_from..months_to).contains(&date) {
        Length::Month
    } else {
        Length::Year
    }
}

/// The window of this length that a moment lies in.
fn window_of(time_us: i64, length: Length) -> Window {
    let date = date_of(time_us);
    let (from, to) = match length {
        Length::Hour => {
            let from_us = time_us.div_euclid(HOUR_US).saturating_mul(HOUR_US);
            return Window { from_us, to_us: from_us.saturating_add(HOUR_US) };
        }
        Length::Day => (date, date.tomorrow()),
        Length::Month => (date.first_of_month(), date.first_of_month().checked_add(1.month())),
        Length::Year => (date.first_of_year(), date.first_of_year().checked_add(1.year())),
    };
    Window { from_us: start_us(from).unwrap_or(i64::MIN), to_us: to.ok().and_then(start_us).unwrap_or(i64::MAX) }
}

fn date_of(time_us: i64) -> Date {
    let limit = if time_us < 0 { Timestamp::MIN } else { Timestamp::MAX };
    TimeZone::UTC.to_datetime(Timestamp::from_microsecond(time_us).unwrap_or(limit)).date()
}

fn start_us(date: Date) -> Option<i64> {
    let midnight: DateTime = date.into();
    Some(TimeZone::UTC.to_timestamp(midnight).ok()?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, first_us: i64, last_us: i64) -> DataFile {
        DataFile {
            path: path.to_owned(),
            size: 100,
            modified_ms: 0,
            rows: Some(1),
            sensor: None,
            time_us: Some((first_us, last_us)),
            sorted: true,
            unique: true,
            sha256: None,
        }
    }

    fn now_us() -> i64 {
        "2026-07-15T12:00:00Z".parse::<Timestamp>().expect("valid").as_microsecond()
    }

    #[test]
    fn windows_grow_with_age() {
        let days = |time: &str| {
            let time_us = time.parse::<Timestamp>().expect("valid").as_microsecond();
            let window = window_of(time_us, length_by_age(time_us, now_us()));
            (window.to_us - window.from_us) / DAY_US
        };
        assert_eq!(days("2026-07-15T11:00:00Z"), 1);
        assert_eq!(days("2026-06-01T00:00:00Z"), 1);
        assert_eq!(days("2026-05-31T23:00:00Z"), 31);
        assert_eq!(days("2025-02-01T00:00:00Z"), 28);
        assert_eq!(days("2024-02-01T00:00:00Z"), 366);
    }

    /// One device with a wrong clock must not make all real data "old", and its window a lifetime.
    #[test]
    fn a_reading_of_the_far_future_changes_no_window() {
        let far = now_us() + 170 * 365 * DAY_US;
        let files = [file("far", far, far), file("new", now_us(), now_us()), file("over", now_us(), far)];
        let merges = plan(&files, 1_000, now_us());
        assert!(merges.iter().map(|merge| merge.windows.len()).sum::<usize>() < 300, "{merges:?}");
        assert_eq!(plan(&files[..2], 1_000, now_us()), [], "each is alone in its window");
    }

    /// A gateway that drains an outage of three weeks, or a device that believes in 1970, sends one file that reaches
    /// from then to now. Writing anew all that lies between would let one source stop the upkeep of the whole lake.
    #[test]
    fn a_late_reading_does_not_cost_the_years_between() {
        let sealed: Vec<_> = (1..67)
            .map(|age| {
                let day = now_us() - age * DAY_US;
                DataFile { size: 90, ..file(&format!("day-{age}"), day, day + HOUR_US) }
            })
            .collect();
        assert_eq!(plan(&sealed, 100, now_us()), []);
        for age_days in [21, 56 * 365] {
            let late = DataFile { size: 2, sorted: false, ..file("late", now_us() - age_days * DAY_US, now_us()) };
            let files: Vec<_> = sealed.iter().cloned().chain([late.clone()]).collect();
            let merges = plan(&files, 100, now_us());
            assert_eq!(merges.iter().map(|merge| merge.files.clone()).collect::<Vec<_>>(), [vec![late]]);
        }
    }

    #[test]
    fn a_sealed_window_is_left_alone() {
        let yesterday = now_us() - DAY_US;
        let files = [file("old", yesterday, yesterday), file("new", now_us(), now_us())];
        assert_eq!(plan(&files, 1_000, now_us()), []);
    }

    #[test]
    fn a_file_over_a_border_is_cut_and_small_files_of_one_day_are_merged() {
        let yesterday = now_us() - DAY_US;
        let files = [file("a", yesterday, yesterday), file("b", yesterday, now_us()), file("c", now_us(), now_us())];
        let merges = plan(&files, 1_000, now_us());
        assert_eq!((merges.len(), merges[0].files.len(), merges[0].windows.len()), (1, 1, 2));
        let cut = [&files[0], &file("b-0", yesterday, yesterday), &files[2], &file("b-1", now_us(), now_us())];
        let merges = plan(&cut.map(Clone::clone), 1_000, now_us());
        assert_eq!((merges.len(), merges[0].files.len(), merges[0].windows.len()), (1, 2, 1));
        let files: Vec<_> =
            (0..4).map(|hour| file("x", now_us() - hour * HOUR_US, now_us() - hour * HOUR_US)).collect();
        assert_eq!(plan(&files, 1_000, now_us()).len(), 1);
        assert_eq!(plan(&files[..3], 1_000, now_us()), [], "the newest window waits for more");
    }

    /// Rewriting the whole day for every few new files would write each row a thousand times.
    #[test]
    fn a_big_file_of_the_newest_window_is_left_until_it_is_worth_it() {
        let at = |hour: i64, size| DataFile { size, ..file("x", now_us() - hour * HOUR_US, now_us() - hour * HOUR_US) };
        let files: Vec<_> = [at(9, 10_000)].into_iter().chain((0..5).map(|hour| at(hour, 100))).collect();
        assert_eq!(plan(&files, 100_000, now_us())[0].files.len(), 5);
        let files: Vec<_> = [at(9, 900)].into_iter().chain((0..5).map(|hour| at(hour, 100))).collect();
        assert_eq!(plan(&files, 100_000, now_us())[0].files.len(), 6);
        let files: Vec<_> = (0..3).map(|hour| at(hour, 90_000)).chain([at(9, 100)]).collect();
        assert_eq!(plan(&files, 500_000, now_us()), [], "one small file is no reason to write big ones anew");
    }

    /// What a merge's files become: a window's bytes in files of at most the target size, a sensor after the other.
    fn merged(merge: &Merge, name: &str) -> Vec<DataFile> {
        let mut files = Vec::new();
        for (place, window) in merge.windows.iter().enumerate() {
            let inside: Vec<_> = merge
                .files
                .iter()
                .filter_map(|file| {
                    let (first, last) = file.time_us?;
                    let share = share_of(first, last, *window);
                    (share > 0.0)
                        .then(|| (first.max(window.from_us), last.min(window.to_us - 1), share * file.size as f64))
                })
                .collect();
            let Some(first) = inside.iter().map(|(first, ..)| *first).min() else { continue };
            let last = inside.iter().map(|(_, last, _)| *last).max().expect("some");
            let mut left = (inside.iter().map(|(.., bytes)| bytes).sum::<f64>().round() as i64).max(1);
            for part in 0.. {
                let sensor = format!("{}/t", char::from(b'a' + u8::try_from(part % 26).expect("small")));
                let file = file(&format!("{name}-{place}-{part}"), first, last);
                files.push(DataFile { size: left.min(90), sensor: Some((sensor.clone(), sensor)), ..file });
                left -= 90;
                if left <= 0 {
                    break;
                }
            }
        }
        files
    }

    /// A year of a big city would be one rewriting of a year for each late row.
    #[test]
    fn a_window_grows_only_while_it_is_about_one_file() {
        let at = |time: &str| time.parse::<Timestamp>().expect("valid").as_microsecond();
        let day = |month: i64, size| {
            let from = at("2023-01-10T00:00:00Z") + month * 31 * DAY_US;
            DataFile { size, ..file(&format!("{month}"), from, from + 5 * HOUR_US) }
        };
        let hours = |files: &[DataFile]| {
            let layout = Layout::of(files, 100, now_us()).expect("files");
            let window = layout.window_of(files[0].time_us.expect("known").0);
            (window.to_us - window.from_us) / HOUR_US
        };
        let year: Vec<_> = (0..10).map(|month| day(month, 9)).chain([file("new", now_us(), now_us())]).collect();
        assert_eq!(hours(&year), 365 * 24);
        let year: Vec<_> = (0..10).map(|month| day(month, 90)).chain([file("new", now_us(), now_us())]).collect();
        assert_eq!(hours(&year), 31 * 24);
        assert_eq!(hours(&[day(0, 190), file("new", now_us(), now_us())]), 24, "a sorted file of the day stays one");
        assert_eq!(hours(&[day(0, 290), file("new", now_us(), now_us())]), 1);
    }

    /// 300 MB of one day are three files, the last of which is small; merging them again would give the same.
    #[test]
    fn a_window_of_several_files_is_left_alone() {
        let old = now_us() - 3 * DAY_US;
        let part = |name: &str, size, sensors: (&str, &str)| DataFile {
            size,
            sensor: Some((sensors.0.to_owned(), sensors.1.to_owned())),
            ..file(name, old, old + HOUR_US / 2)
        };
        let mut files = vec![part("a", 128, ("a", "f")), part("b", 128, ("g", "m")), part("c", 30, ("n", "z"))];
        files.push(file("new", now_us(), now_us()));
        assert_eq!(plan(&files, 128, now_us()), []);
        files.push(part("late", 20, ("a", "z")));
        assert_eq!(plan(&files, 128, now_us())[0].files.len(), 4, "what overlaps is merged");
    }

    proptest! {
        #[test]
        fn windows_tile_time(time_us in -100 * 365 * DAY_US..200 * 365 * DAY_US) {
            let of = |time_us| window_of(time_us, length_by_age(time_us, now_us()));
            let window = of(time_us);
            prop_assert!(window.contains(time_us));
            prop_assert_eq!(of(window.from_us), window);
            prop_assert_eq!(of(window.to_us).from_us, window.to_us);
        }

        /// Compaction comes to an end, whatever lies there: a window that is merged again at each run is a disk
        /// worn out for nothing.
        #[test]
        fn compaction_comes_to_an_end(
            spans in prop::collection::vec((0..900_i64, 0..40_i64, 1..400_i64, any::<bool>()), 1..24),
        ) {
            let mut files: Vec<_> = spans.iter().enumerate().map(|(index, (age, days, size, sorted))| {
                let last = now_us() - age * DAY_US;
                DataFile {
                    size: *size,
                    sorted: *sorted,
                    sensor: Some(("a/t".to_owned(), "z/t".to_owned())),
                    ..file(&index.to_string(), last - days * DAY_US, last)
                }
            }).collect();
            for round in 0..12 {
                let merges = plan(&files, 100, now_us());
                if merges.is_empty() {
                    let layout = Layout::of(&files, 100, now_us()).expect("files");
                    let merges = layout.merges();
                    let sealed = |merge: &Merge| layout.is_newest(merge) || layout.is_sealed(merge);
                    prop_assert!(merges.iter().all(|merge| merge.windows.len() == 1 && sealed(merge)));
                    return Ok(());
                }
                for (index, merge) in merges.into_iter().enumerate() {
                    files.retain(|file| !merge.files.contains(file));
                    files.extend(merged(&merge, &format!("{round}-{index}")));
                }
            }
            prop_assert!(false, "there is always more to do: {:?}", plan(&files, 100, now_us()));
        }
    }
}
