//! Cron expressions: five fields as crontab(5) has them, in a time zone.
//!
//! `minute hour day-of-month month day-of-week`, each `*`, a number, a range `a-b`, a list `a,b`, with steps
//! `/n`; months and days of the week also by the first three letters of their English names; Sunday is 0 and
//! 7. `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly` are short for the usual. Where neither day field begins with `*`,
//! a day that fits one of the two fits (crontab(5), "The day of a command's execution").
//!
//! On the days on which clocks change (cron(8), "Daylight saving time"): an expression whose hour begins with
//! `*` goes by real time, so that `*/15 * * * *` is due every 15 minutes of it. One that names hours is due once
//! for each time of its civil day: what falls into the hour that is left out is due when clocks jump, what falls
//! into the hour that comes twice at its first.
//!
//! Pure: nothing here reads a clock.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Deserializer};

/// How far ahead a day is looked for: the 29th of February may be eight years away (1896, 2096).
const DAYS_MAX: usize = 366 * 8 + 3;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// A cron expression.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

/// The numbers that fit a field, as bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// It begins with `*`.
    starred: bool,
}

/// What is wrong with a cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields.
    #[error(
        "`{0}` has not five fields; hint: write minute, hour, day of the month, month and day of the week, like \"30 3 * * *\""
    )]
    Fields(String),
    /// A field that makes no sense.
    #[error("`{text}` is no {field}: {low} to {high}, `*`, a list `a,b`, a range `a-b`, a step `*/n`")]
    Field {
        /// Which field.
        field: &'static str,
        /// What stands there.
        text: String,
        /// The lowest number.
        low: u8,
        /// The highest number.
        high: u8,
    },
    /// A step that leads out of the field at once.
    #[error(
        "`{text}` steps by {step}, and there are {count} numbers for the {field}: it would be due at the first alone; hint: a step is at most {count}"
    )]
    Step {
        /// Which field.
        field: &'static str,
        /// What stands there.
        text: String,
        /// The step.
        step: u8,
        /// How many numbers the field has.
        count: u8,
    },
    /// A day that no month has.
    #[error("`{0}` is never due; hint: no such day is in these months")]
    Never(String),
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field may hold.
struct Kind {
    name: &'static str,
    low: u8,
    high: u8,
    /// How many different ones there are.
    count: u8,
    names: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    Kind { name: "minute", low: 0, high: 59, count: 60, names: &[] },
    Kind { name: "hour", low: 0, high: 23, count: 24, names: &[] },
    Kind { name: "day of the month", low: 1, high: 31, count: 31, names: &[] },
    Kind { name: "month", low: 1, high: 12, count: 12, names: &MONTHS },
    // Sunday has two numbers.
    Kind { name: "day of the week", low: 0, high: 7, count: 7, names: &WEEKDAYS },
];

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let long = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            long => long,
        };
        let words: Vec<&str> = long.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = words[..] else {
            return Err(CronError::Fields(text.to_owned()));
        };
        let [minute, hour, day, month, weekday] = &KINDS;
        let mut weekdays = weekday.read(weekdays)?;
        // Sunday has two numbers.
        weekdays.bits |= weekdays.bits >> 7 & 1;
        let cron = Self {
            text: text.trim().to_owned(),
            minutes: minute.read(minutes)?,
            hours: hour.read(hours)?,
            days: day.read(days)?,
            months: month.read(months)?,
            weekdays,
        };
        if cron.is_ever_due() { Ok(cron) } else { Err(CronError::Never(text.to_owned())) }
    }
}

impl Kind {
    fn read(&self, text: &str) -> Result<Field, CronError> {
        let wrong = || CronError::Field { field: self.name, text: text.to_owned(), low: self.low, high: self.high };
        let parts = text.split(',').map(|part| self.part(part));
        let bits = parts.collect::<Option<Vec<u64>>>().ok_or_else(wrong)?.into_iter().fold(0, |all, bits| all | bits);
        let steps = text.split(',').filter_map(|part| digits(part.split_once('/')?.1));
        if let Some(step) = steps.max().filter(|step| *step > self.count) {
            return Err(CronError::Step { field: self.name, text: text.to_owned(), step, count: self.count });
        }
        Ok(Field { bits, starred: text.starts_with('*') })
    }

    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, digits(step).filter(|step| *step > 0)?),
            None => (text, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            // `5/10` is from 5 on.
            None if text.contains('/') => (self.number(range)?, self.high),
            None => (self.number(range)?, self.number(range)?),
        };
        let numbers = (first..=last).step_by(usize::from(step));
        (first <= last).then(|| numbers.fold(0, |bits, number| bits | 1 << number))
    }

    fn number(&self, text: &str) -> Option<u8> {
        let name = text.to_ascii_lowercase();
        let named = self.names.iter().position(|known| *known == name).and_then(|place| u8::try_from(place).ok());
        let number = named.map(|place| place + self.low).or_else(|| digits(text))?;
        (self.low..=self.high).contains(&number).then_some(number)
    }
}

/// Digits only: no sign, no blank.
fn digits(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl Field {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits >> number & 1 == 1)
    }
}

impl Cron {
    /// The first moment after `after` at which it is due; `None` where the calendar ends before.
    #[must_use]
    pub fn next_after(&self, after: Timestamp, timezone: &TimeZone) -> Option<Timestamp> {
        if self.hours.starred { self.next_by_real_time(after, timezone) } else { self.next_by_day(after, timezone) }
    }

    /// Minute by minute on the days that fit.
    fn next_by_real_time(&self, after: Timestamp, timezone: &TimeZone) -> Option<Timestamp> {
        let mut moment =
            Timestamp::from_second(after.as_second().div_euclid(60) * 60).ok()?.checked_add(MINUTE).ok()?;
        for _ in 0..DAYS_MAX {
            let date = timezone.to_datetime(moment).date();
            let tomorrow = start_of(date.tomorrow().ok()?, timezone)?;
            if self.fits_day(date) {
                while moment < tomorrow {
                    let civil = timezone.to_datetime(moment);
                    if self.minutes.has(civil.minute()) && self.hours.has(civil.hour()) {
                        return Some(moment);
                    }
                    moment = moment.checked_add(MINUTE).ok()?;
                }
            }
            moment = tomorrow;
        }
        None
    }

    /// Each time of a civil day once.
    fn next_by_day(&self, after: Timestamp, timezone: &TimeZone) -> Option<Timestamp> {
        // What is due when clocks jump may belong to the day before.
        let mut date = timezone.to_datetime(after).date().yesterday().ok()?;
        for _ in 0..DAYS_MAX {
            if self.fits_day(date) {
                let times = (0..24).filter(|hour| self.hours.has(*hour));
                let times = times.flat_map(|hour| (0..60).filter(|m| self.minutes.has(*m)).map(move |m| (hour, m)));
                let moments = times.filter_map(|(hour, minute)| moment_of(date.at(hour, minute, 0, 0), timezone));
                if let Some(due) = moments.into_iter().find(|moment| *moment > after) {
                    return Some(due);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn fits_day(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        let (day, weekday) = (self.days.has(date.day()), self.weekdays.has(weekday));
        let either = !self.days.starred && !self.weekdays.starred;
        self.months.has(date.month()) && if either { day || weekday } else { day && weekday }
    }

    fn is_ever_due(&self) -> bool {
        // 2000 to 2003 have every date that there is, and all that repeats with the week.
        let first = Date::constant(2000, 1, 1);
        first.series(Span::new().days(1)).take(366 + 3 * 365).any(|date| self.fits_day(date))
            || first
                .series(Span::new().years(4))
                .take(7)
                .any(|year| Date::new(year.year(), 2, 29).is_ok_and(|leap| self.fits_day(leap)))
    }
}

fn start_of(date: Date, timezone: &TimeZone) -> Option<Timestamp> {
    moment_of(DateTime::from_parts(date, Time::midnight()), timezone)
}

/// When a civil time is: its first, where it comes twice; when clocks jump, where it does not come.
fn moment_of(civil: DateTime, timezone: &TimeZone) -> Option<Timestamp> {
    match timezone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            let behind = before.to_timestamp(civil).ok()?.checked_add(Span::new().nanoseconds(1)).ok()?;
            timezone.preceding(behind).next().map(|transition| transition.timestamp())
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Cron({})", self.text)
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
