//! Which files are merged: no I/O, no clock.
//!
//! Time is cut into windows that grow with age, in UTC: days in the month of the newest reading and
//! the one before and after it, months around these, years from two years on. A clock that is wrong by
//! years moves nothing: the newest reading is at most a day ahead of the clock here. A file without
//! statistics, which only others write, is left alone. All files that share a window are
//! merged together and cut at its borders, so that sealed files never overlap. A window is worth it
//! when it has several files, one that is not sorted, or one that reaches over a border. The newest
//! window will have more files all the time: there only the youngest are merged, those that are not
//! much bigger than what came after them, so that a row is written anew a number of times that grows
//! with the logarithm of the window's size.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tjern_lake::DataFile;

const DAY_US: i64 = 24 * 3_600_000_000;

/// How many files the newest window gathers before they are merged.
const OPEN_FILES_MIN: usize = 4;

/// A file of the newest window is merged with younger ones that have a share of its size together.
const OPEN_SHARE: i64 = 2;

/// A span of time, in microseconds: the start belongs to it, the end does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    pub(super) from_us: i64,
    pub(super) to_us: i64,
}

/// Files that are read together, and the windows that their rows are written to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Merge {
    pub(super) files: Vec<DataFile>,
    pub(super) windows: Vec<Window>,
}

/// What to merge.
pub(super) fn plan(files: &[DataFile], file_bytes_max: u64, now_us: i64) -> Vec<Merge> {
    let known = || files.iter().filter_map(|file| Some((file, file.time_us?)));
    let Some(newest_us) = known().map(|(_, (_, last))| last).max() else { return Vec::new() };
    let newest_us = newest_us.min(now_us.saturating_add(DAY_US));
    let mut merges: Vec<Merge> = Vec::new();
    for (file, (first, last)) in known() {
        let windows = windows_between(first, last, newest_us);
        join(&mut merges, Merge { files: vec![file.clone()], windows });
    }
    merges.into_iter().filter_map(|merge| worth_it(merge, newest_us, file_bytes_max)).collect()
}

/// Adds a merge, together with those that it shares a window with.
fn join(merges: &mut Vec<Merge>, mut new: Merge) {
    let (touched, mut rest): (Vec<_>, Vec<_>) =
        merges.drain(..).partition(|merge| merge.windows.iter().any(|window| new.windows.contains(window)));
    for merge in touched {
        new.files.extend(merge.files);
        new.windows.extend(merge.windows);
    }
    new.windows.sort_unstable();
    new.windows.dedup();
    rest.push(new);
    *merges = rest;
}

/// What of a merge is worth its work.
fn worth_it(merge: Merge, newest_us: i64, file_bytes_max: u64) -> Option<Merge> {
    if merge.files.iter().any(|file| !file.sorted) || merge.windows.len() > 1 {
        return Some(merge);
    }
    let is_newest = merge.windows.iter().any(|window| window.from_us <= newest_us && newest_us < window.to_us);
    if is_newest {
        let files = youngest(merge.files);
        return (files.len() >= OPEN_FILES_MIN).then_some(Merge { files, ..merge });
    }
    let small = |file: &DataFile| u64::try_from(file.size).unwrap_or(0) < file_bytes_max / 2;
    (merge.files.len() > 1 && merge.files.iter().any(small)).then_some(merge)
}

/// The youngest files, back to the first that is much bigger than all that came after it.
fn youngest(mut files: Vec<DataFile>) -> Vec<DataFile> {
    files.sort_by_key(|file| std::cmp::Reverse(file.time_us.map(|(_, last)| last)));
    let mut bytes = 0;
    let mut count = 0;
    for file in &files {
        if count >= OPEN_FILES_MIN && file.size > OPEN_SHARE * bytes {
            break;
        }
        bytes += file.size;
        count += 1;
    }
    files.truncate(count);
    files
}

/// The windows from the one of `first_us` to the one of `last_us`.
fn windows_between(first_us: i64, last_us: i64, newest_us: i64) -> Vec<Window> {
    let mut windows = vec![window_of(first_us, newest_us)];
    while let Some(next_us) = windows.last().map(|window| window.to_us).filter(|to_us| *to_us <= last_us) {
        windows.push(window_of(next_us, newest_us));
    }
    windows
}

/// The window that a moment lies in.
pub(super) fn window_of(time_us: i64, newest_us: i64) -> Window {
    let (date, newest) = (date_of(time_us), date_of(newest_us));
    let month = newest.first_of_month();
    let days_from = month.checked_sub(1.month()).unwrap_or(month);
    let months_from = newest.first_of_year().checked_sub(1.year()).unwrap_or(month);
    let days_to = month.checked_add(2.months()).unwrap_or(month);
    let months_to = newest.first_of_year().checked_add(2.years()).unwrap_or(days_to);
    let (from, to) = if (days_from..days_to).contains(&date) {
        (date, date.tomorrow())
    } else if (months_from..months_to).contains(&date) {
        (date.first_of_month(), date.first_of_month().checked_add(1.month()))
    } else {
        (date.first_of_year(), date.first_of_year().checked_add(1.year()))
    };
    Window { from_us: start_us(from).unwrap_or(i64::MIN), to_us: to.ok().and_then(start_us).unwrap_or(i64::MAX) }
}

fn date_of(time_us: i64) -> Date {
    let limit = if time_us < 0 { Timestamp::MIN } else { Timestamp::MAX };
    TimeZone::UTC.to_datetime(Timestamp::from_microsecond(time_us).unwrap_or(limit)).date()
}

fn start_us(date: Date) -> Option<i64> {
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_US: i64 = 3_600_000_000;

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
        }
    }

    fn now_us() -> i64 {
        "2026-07-15T12:00:00Z".parse::<Timestamp>().expect("valid").as_microsecond()
    }

    #[test]
    fn windows_grow_with_age() {
        let days = |time: &str| {
            let window = window_of(time.parse::<Timestamp>().expect("valid").as_microsecond(), now_us());
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

    #[test]
    fn a_sealed_window_is_left_alone() {
        let yesterday = now_us() - DAY_US;
        let files = [file("old", yesterday, yesterday), file("new", now_us(), now_us())];
        assert_eq!(plan(&files, 1_000, now_us()), []);
    }

    #[test]
    fn a_file_over_a_border_and_small_files_of_one_day_are_merged() {
        let yesterday = now_us() - DAY_US;
        let files = [file("a", yesterday, yesterday), file("b", yesterday, now_us()), file("c", now_us(), now_us())];
        let merges = plan(&files, 1_000, now_us());
        assert_eq!((merges.len(), merges[0].files.len(), merges[0].windows.len()), (1, 3, 2));
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
        assert_eq!(plan(&files, 1_000_000, now_us())[0].files.len(), 5);
        let files: Vec<_> = [at(9, 900)].into_iter().chain((0..5).map(|hour| at(hour, 100))).collect();
        assert_eq!(plan(&files, 1_000_000, now_us())[0].files.len(), 6);
    }

    proptest! {
        #[test]
        fn windows_tile_time(time_us in -100 * 365 * DAY_US..200 * 365 * DAY_US) {
            let window = window_of(time_us, now_us());
            prop_assert!(window.from_us <= time_us && time_us < window.to_us);
            prop_assert_eq!(window_of(window.from_us, now_us()), window);
            prop_assert_eq!(window_of(window.to_us, now_us()).from_us, window.to_us);
        }
    }
}
