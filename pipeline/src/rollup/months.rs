//! Calendar months (UTC): what files of rollups are cut by. A window is of the month that it starts in.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tjern_lake::rollup::Selection;
use tjern_lake::rollup::windows::{DAY_US, Grid, Window};

/// The month that a moment is in.
pub(crate) fn month(time_us: i64) -> Window {
    let found = || {
        let zoned = Timestamp::from_microsecond(time_us).ok()?.to_zoned(TimeZone::UTC);
        let first = zoned.date().first_of_month();
        let start = first.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let next = first.last_of_month().tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
        Some(Window { start_us: start.as_microsecond(), end_us: next.as_microsecond() })
    };
    // Beyond the years that civil calendars are defined for.
    let start_us = time_us.saturating_sub(time_us.rem_euclid(30 * DAY_US));
    found().unwrap_or(Window { start_us, end_us: start_us.saturating_add(30 * DAY_US) })
}

/// The windows by the month that they start in.
pub(crate) fn by_month(selection: &Selection, grid: &Grid) -> BTreeMap<Window, Selection> {
    let mut months: BTreeMap<Window, Selection> = BTreeMap::new();
    for (sensor, ranges) in selection.iter() {
        for range in ranges {
            let mut start_us = range.start_us;
            while start_us < range.end_us {
                let month = month(start_us);
                // A day may reach into the month after.
                let end_us = grid.window(month.end_us.saturating_sub(1)).end_us.min(range.end_us);
                months.entry(month).or_default().insert(sensor, Window { start_us, end_us });
                start_us = end_us;
            }
        }
    }
    months
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_microsecond()
    }

    #[test]
    fn months_are_those_of_utc() {
        let month = month(us("2026-02-28T23:59:59Z"));
        assert_eq!((month.start_us, month.end_us), (us("2026-02-01T00:00:00Z"), us("2026-03-01T00:00:00Z")));
    }

    #[test]
    fn no_moment_is_without_a_month() {
        for time_us in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
            assert!(month(time_us).start_us <= time_us);
        }
    }

    /// The last civil day of March starts in March (UTC) and ends in April: it is March's.
    #[test]
    fn a_day_is_of_the_month_that_it_starts_in() {
        let oslo = Grid::Days(TimeZone::get("Europe/Oslo").expect("known"));
        let days = Window { start_us: us("2026-03-30T22:00:00Z"), end_us: us("2026-04-02T22:00:00Z") };
        let mut selection = Selection::default();
        selection.insert("a/b", days);
        let parted: Vec<_> = by_month(&selection, &oslo).into_values().map(|part| part.of("a/b").to_vec()).collect();
        let border = us("2026-04-01T22:00:00Z");
        assert_eq!(parted, [vec![Window { end_us: border, ..days }], vec![Window { start_us: border, ..days }]]);
    }

    proptest! {
        #[test]
        fn every_moment_is_in_its_month(time_us in -3_000_000_000_000_000_i64..5_000_000_000_000_000) {
            prop_assert!(month(time_us).contains(time_us));
        }
    }
}
