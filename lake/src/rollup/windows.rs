//! Windows of time: hours of UTC, civil days of the city's time zone; which window a reading is in.
//!
//! A window is named by its start, in microseconds since 1970 UTC; it goes up to and without its end.
//! Hours are those of UTC whatever the time zone. A civil day goes from midnight to midnight as the
//! city's clocks show it, so in most zones one day of the year has 23 hours and one has 25. Nothing
//! here does I/O or reads a clock.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use super::nature::Kind;

/// An hour, in microseconds.
pub const HOUR_US: i64 = 3_600_000_000;
/// A day of 24 hours, in microseconds.
pub const DAY_US: i64 = 24 * HOUR_US;

/// A way to cut time into windows.
#[derive(Debug, Clone)]
pub enum Grid {
    /// Hours of UTC.
    Hours,
    /// Civil days of a time zone.
    Days(TimeZone),
}

/// From its start up to and without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Its first moment, in microseconds since 1970 UTC.
    pub start_us: i64,
    /// The first moment after it.
    pub end_us: i64,
}

impl Window {
    /// Whether a moment is in it.
    #[must_use]
    pub const fn contains(&self, time_us: i64) -> bool {
        self.start_us <= time_us && time_us < self.end_us
    }

    const fn of_length(time_us: i64, length_us: i64) -> Self {
        let start_us = time_us.saturating_sub(time_us.rem_euclid(length_us));
        Self { start_us, end_us: start_us.saturating_add(length_us) }
    }
}

impl Grid {
    /// The window that a moment is in.
    #[must_use]
    pub fn window(&self, time_us: i64) -> Window {
        match self {
            Self::Hours => Window::of_length(time_us, HOUR_US),
            // Beyond the years that civil calendars are defined for, a day is 24 hours of UTC.
            Self::Days(zone) => civil_day(zone, time_us).unwrap_or(Window::of_length(time_us, DAY_US)),
        }
    }

    /// A number that tells the days of time zones apart; hours have none. A rollup's commit carries it.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        let Self::Days(zone) = self else { return None };
        let name = zone.iana_name().map_or_else(|| format!("{zone:?}"), str::to_owned);
        let digest = Sha256::digest(name.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        Some(i64::from_be_bytes(bytes) & i64::MAX)
    }
}

fn civil_day(zone: &TimeZone, time_us: i64) -> Option<Window> {
    let start = Timestamp::from_microsecond(time_us).ok()?.to_zoned(zone.clone()).start_of_day().ok()?;
    let end = start.tomorrow().ok()?.start_of_day().ok()?;
    Some(Window { start_us: start.timestamp().as_microsecond(), end_us: end.timestamp().as_microsecond() })
}

/// Finds the windows of one reading after the other; neighbours are most often in the same one.
#[derive(Debug)]
pub struct Finder<'a> {
    grid: &'a Grid,
    last: Option<Window>,
}

impl<'a> Finder<'a> {
    /// A finder that has found nothing yet.
    #[must_use]
    pub const fn new(grid: &'a Grid) -> Self {
        Self { grid, last: None }
    }

    /// The window that a reading belongs to. The reading of an interval carries the interval's end,
    /// so one at a border belongs to the window that ends there.
    pub fn window_of(&mut self, time_us: i64, kind: Kind) -> Window {
        let moment = if kind.is_interval() { time_us.saturating_sub(1) } else { time_us };
        match self.last {
            Some(window) if window.contains(moment) => window,
            _ => *self.last.insert(self.grid.window(moment)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn oslo() -> Grid {
        Grid::Days(TimeZone::get("Europe/Oslo").expect("in the data base"))
    }

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_microsecond()
    }

    #[test]
    fn civil_days_have_23_24_or_25_hours() {
        for (noon, start, hours) in [
            ("2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", 23),
            ("2026-07-01T12:00:00Z", "2026-06-30T22:00:00Z", 24),
            ("2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", 25),
        ] {
            let day = oslo().window(us(noon));
            assert_eq!((day.start_us, day.end_us - day.start_us), (us(start), hours * HOUR_US), "{noon}");
        }
    }

    #[test]
    fn an_interval_belongs_to_the_window_that_it_lies_in() {
        let (grid, border) = (Grid::Hours, us("2026-01-01T06:00:00Z"));
        let mut finder = Finder::new(&grid);
        assert_eq!(finder.window_of(border, Kind::Sample).start_us, border);
        assert_eq!(finder.window_of(border, Kind::IntervalMean).start_us, border - HOUR_US);
        assert_eq!(finder.window_of(border, Kind::IntervalSum).start_us, border - HOUR_US);
        assert_eq!(finder.window_of(border, Kind::Counter).start_us, border);
    }

    #[test]
    fn no_moment_is_without_a_window() {
        for time_us in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
            for grid in [Grid::Hours, oslo()] {
                assert!(grid.window(time_us).start_us <= time_us);
            }
        }
    }

    proptest! {
        #[test]
        fn windows_follow_one_another_without_a_hole(time_us in -3_000_000_000_000_000_i64..5_000_000_000_000_000) {
            for grid in [Grid::Hours, oslo()] {
                let window = grid.window(time_us);
                prop_assert!(window.contains(time_us));
                prop_assert_eq!(grid.window(window.end_us).start_us, window.end_us);
                prop_assert_eq!(grid.window(window.end_us - 1), window);
            }
        }
    }
}
