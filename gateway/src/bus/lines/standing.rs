//! Whether a device that talks says anything new, and of today: where its lines have times of their own, one that prints one
//! line again and again, or whose clock is days off, answers as well as any other.
//!
//! Both are judged over three periods of the point and a minute, or three times as long as the last new reading took to come, if that
//! is longer: who is asked more often than it measures is not stuck ([`Standing::patience`]). A time is off where every row of such a
//! stretch is more than a day behind the gateway's clock (or three periods, if that is more), or farther ahead than is believed, and all are
//! about equally far: a memory that is printed has rows of all distances. No I/O; the caller says what time it is.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::lines::time::{FUTURE_MAX_US, Moments};

/// Periods without anything new.
const PERIODS: u32 = 3;

/// And a minute, however short the period.
const PATIENCE_MIN: Duration = Duration::from_secs(60);

/// A time that is so far behind is not today's.
const BEHIND_US: i64 = 86_400 * 1_000_000;

/// What a device has said of late.
#[derive(Debug)]
pub(super) struct Standing {
    every: Duration,
    /// When something new came last, or it was told why nothing comes.
    new_at: Instant,
    /// How long that took to come.
    rhythm: Duration,
    /// A stretch of rows whose times are far off: since when, and the least and the greatest distance.
    since: Instant,
    far_us: Option<(i64, i64)>,
    ahead_us: Option<i64>,
}

/// How it stands with a device's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stands {
    /// It talks, and nothing new came for so long.
    pub(crate) nothing_new: Option<Duration>,
    /// Its time is so far ahead of the gateway's; less than 0: behind it.
    pub(crate) ahead_us: Option<i64>,
}

impl Standing {
    pub(super) const fn new(every: Duration, now: Instant) -> Self {
        Self { every, new_at: now, rhythm: Duration::ZERO, since: now, far_us: None, ahead_us: None }
    }

    fn patience(&self) -> Duration {
        let of_rhythm = self.rhythm.saturating_mul(PERIODS);
        self.every.saturating_mul(PERIODS).saturating_add(PATIENCE_MIN).max(of_rhythm)
    }

    /// There is a new reading, with a value or with the reason why there is none.
    pub(super) fn is_new(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.new_at);
        // Rows that are printed at once are one word, and one that was stuck for long has no rhythm of that.
        if passed >= self.every && passed < self.patience().saturating_mul(PERIODS) {
            self.rhythm = passed;
        }
        self.new_at = now;
    }

    /// A row came, new or not, that says this time, at this moment of the gateway's clock.
    pub(super) fn row(&mut self, moments: Moments, now_us: i64, now: Instant) {
        let ahead_us = [moments.early_us(), moments.late_us()].map(|time_us| time_us.saturating_sub(now_us));
        let ahead_us = nearest(ahead_us[0], ahead_us[1]);
        if self.is_near(ahead_us) {
            (self.since, self.far_us, self.ahead_us) = (now, None, None);
            return;
        }
        if now.saturating_duration_since(self.since) >= self.patience() {
            self.ahead_us =
                self.far_us.filter(|far_us| self.is_narrow(*far_us)).map(|(least, most)| nearest(least, most));
            (self.since, self.far_us) = (now, None);
        }
        let (least_us, most_us) = self.far_us.unwrap_or((ahead_us, ahead_us));
        self.far_us = Some((least_us.min(ahead_us), most_us.max(ahead_us)));
    }

    fn is_near(&self, ahead_us: i64) -> bool {
        let periods_us = micros(self.every.saturating_mul(PERIODS));
        (-BEHIND_US.max(periods_us)..=FUTURE_MAX_US).contains(&ahead_us)
    }

    fn is_narrow(&self, (least_us, most_us): (i64, i64)) -> bool {
        most_us.saturating_sub(least_us) <= micros(self.patience())
    }

    /// How it stands at the end of a slot.
    pub(super) fn stands(&self, now: Instant) -> Stands {
        let waited = now.saturating_duration_since(self.new_at);
        Stands { nothing_new: (waited >= self.patience()).then_some(waited), ahead_us: self.ahead_us }
    }
}

/// The one nearer to 0.
fn nearest(one_us: i64, other_us: i64) -> i64 {
    if one_us.unsigned_abs() <= other_us.unsigned_abs() { one_us } else { other_us }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// How far a time is off, for people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Off(pub(crate) i64);

impl fmt::Display for Off {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.unsigned_abs() / 60_000_000;
        match minutes {
            2_880.. => write!(formatter, "{} days", minutes / 1_440)?,
            120.. => write!(formatter, "{} h", minutes / 60)?,
            _ => write!(formatter, "{minutes} min")?,
        }
        formatter.write_str(if self.0 < 0 { " behind" } else { " ahead of" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::time::{DeviceTime, TimeFormat, TimePlace, read_zone};

    const NOW_US: i64 = 1_796_000_000_000_000;
    const DAY_S: i64 = 86_400;

    fn moments(time_us: i64) -> Moments {
        let place = TimePlace::Column { column: 1, separator: ";".to_owned() };
        let format = TimeFormat::new("unix").expect("a format");
        let time = DeviceTime { place, format, zone: read_zone("UTC").expect("a zone") };
        time.read(&(time_us / 1_000_000).to_string()).expect("a time")
    }

    /// Rows at these seconds, each with a time so many seconds ahead; what is said at the end.
    fn told(every_s: u64, rows: impl Iterator<Item = (u64, i64)>) -> Option<i64> {
        let start = Instant::now();
        let mut standing = Standing::new(Duration::from_secs(every_s), start);
        for (at_s, ahead_s) in rows {
            let now_us = NOW_US + i64::try_from(at_s).expect("short") * 1_000_000;
            standing.row(moments(now_us + ahead_s * 1_000_000), now_us, start + Duration::from_secs(at_s));
        }
        standing.ahead_us
    }

    #[test]
    fn a_clock_that_is_days_off_is_told_with_how_far() {
        let off = |ahead_s: i64| told(1, (0..200).map(move |at_s| (at_s, ahead_s))).map(|us| us / 1_000_000);
        assert_eq!(off(-400 * DAY_S), Some(-400 * DAY_S));
        assert_eq!(off(3_600), Some(3_600));
        for near in [0, 300, -7_200, -DAY_S + 10] {
            assert_eq!(off(near), None, "{near}");
        }
        // One that prints each day what it measured the day before.
        assert_eq!(told(86_400, (0..30).map(|day| (day * 86_400, -2 * DAY_S))), None);
        assert_eq!(told(1, (0..200).map(|at_s| (at_s, if at_s < 190 { -DAY_S * 9 } else { 0 }))), None, "it was set");
    }

    /// At each start a month of rows comes, for half an hour: that is no wrong clock.
    #[test]
    fn a_memory_that_is_printed_is_no_wrong_clock() {
        let oldest_first = (0..1_800).map(|at_s| (at_s, (i64::try_from(at_s).unwrap_or(0) - 1_800) * 1_440));
        assert_eq!(told(60, oldest_first), None);
        let newest_first = (0..1_800).map(|at_s| (at_s, i64::try_from(at_s).unwrap_or(0) * -1_440));
        assert_eq!(told(60, newest_first), None);
    }

    #[test]
    fn how_far_is_said_in_a_unit_that_people_use() {
        let said = [-400 * DAY_S, DAY_S, 5 * 3_600, 700].map(|off_s| Off(off_s * 1_000_000).to_string());
        assert_eq!(said, ["400 days behind", "24 h ahead of", "5 h ahead of", "11 min ahead of"]);
    }
}
