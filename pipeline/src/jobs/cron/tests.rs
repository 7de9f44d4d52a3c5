//! The rules of crontab(5), both days on which clocks change, and a search minute by minute as judge.

use super::*;
use proptest::prelude::*;

fn oslo() -> TimeZone {
    TimeZone::get("Europe/Oslo").expect("known")
}

fn cron(text: &str) -> Cron {
    text.parse().expect("well formed")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The next moments, as UTC.
fn next(text: &str, after: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (cron(text), oslo());
    let first = cron.next_after(at(after), &zone);
    std::iter::successors(first, |last| cron.next_after(*last, &zone)).take(count).map(|t| t.to_string()).collect()
}

#[test]
fn a_nightly_job_runs_once_a_night_also_when_clocks_change() {
    // On 29 March 2026 clocks jump from 02:00 to 03:00: what is due at 02:30 is due when they do.
    assert_eq!(
        next("30 2 * * *", "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    // On 25 October 2026 the hour from 02:00 comes twice: the first of the two.
    assert_eq!(next("30 2 * * *", "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
}

#[test]
fn several_times_of_the_hour_that_is_left_out_are_one() {
    assert_eq!(
        next("15,45 2,3 * * *", "2026-03-28T12:00:00Z", 4),
        ["2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z", "2026-03-29T01:45:00Z", "2026-03-30T00:15:00Z"]
    );
}

#[test]
fn every_quarter_of_an_hour_goes_by_real_time() {
    assert_eq!(
        next("*/15 * * * *", "2026-03-29T00:40:00Z", 3),
        ["2026-03-29T00:45:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z"]
    );
    let fold = next("*/15 * * * *", "2026-10-25T00:00:00Z", 8);
    assert_eq!((fold[0].as_str(), fold[7].as_str()), ("2026-10-25T00:15:00Z", "2026-10-25T02:00:00Z"));
}

#[test]
fn days_of_the_month_and_of_the_week_are_as_crontab_has_them() {
    // Both named: either. 2026-11-13 is a Friday.
    assert_eq!(
        next("0 12 1 * fri", "2026-11-22T00:00:00Z", 3),
        ["2026-11-27T11:00:00Z", "2026-12-01T11:00:00Z", "2026-12-04T11:00:00Z"]
    );
    // One of them with a star: both.
    assert_eq!(next("0 12 * * 7", "2026-11-21T00:00:00Z", 1), ["2026-11-22T11:00:00Z"]);
    assert_eq!(next("0 0 29 2 *", "2026-11-22T00:00:00Z", 1), ["2028-02-28T23:00:00Z"]);
    assert_eq!(next("@monthly", "2026-11-22T00:00:00Z", 1), ["2026-11-30T23:00:00Z"]);
    assert_eq!(
        next("0 22 * Dec Mon-Wed/2", "2026-11-22T00:00:00Z", 2),
        ["2026-12-02T21:00:00Z", "2026-12-07T21:00:00Z"]
    );
}

#[test]
fn a_step_as_long_as_its_field_is_the_first_of_it() {
    for (text, same) in [("*/60 * * * *", "0 * * * *"), ("0 */24 * * *", "0 0 * * *"), ("0 0 * */12 *", "0 0 * 1 *")] {
        let [one, other] = [text, same].map(|text| next(text, "2026-11-22T00:00:00Z", 2));
        assert_eq!(one, other, "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    for (text, part) in [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("60 * * * *", "`60` is no minute: 0 to 59"),
        ("* 24 * * *", "no hour"),
        ("* * 0 * *", "no day of the month"),
        ("* * * 13 *", "no month"),
        ("* * * * 8", "no day of the week"),
        ("*/0 * * * *", "no minute"),
        ("*/61 * * * *", "`*/61` steps by 61, and there are 60 numbers for the minute"),
        ("0,5-30/90 * * * *", "steps by 90"),
        ("0 */25 * * *", "24 numbers for the hour"),
        ("0 0 */32 * *", "31 numbers for the day of the month"),
        ("0 0 1 */13 *", "12 numbers for the month"),
        ("0 0 * * */8", "7 numbers for the day of the week"),
        ("5-1 * * * *", "no minute"),
        ("+5 * * * *", "no minute"),
        ("1,,2 * * * *", "no minute"),
        ("0 0 31 2 *", "never due"),
        ("0 0 30 feb *", "never due"),
    ] {
        let error = text.parse::<Cron>().expect_err(text);
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

/// Minute by minute, by the words of crontab(5) alone; where hours are not named.
fn judged(cron: &Cron, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let first = after.as_second().div_euclid(60) + 1;
    (first..first + 3 * 24 * 60).map(|minute| Timestamp::from_second(minute * 60).expect("a time")).find(|moment| {
        let civil = zone.to_datetime(*moment);
        cron.minutes.has(civil.minute()) && cron.hours.has(civil.hour()) && cron.fits_day(civil.date())
    })
}

proptest! {
    #[test]
    fn a_search_minute_by_minute_finds_the_same(
        minute in 1..30_u8, hour in 0..24_u8, second in 1_700_000_000..1_900_000_000_i64, starred: bool
    ) {
        let zone = TimeZone::get("Europe/Oslo").expect("known");
        let text = if starred { format!("*/{minute} * * * *") } else { format!("{minute} {hour} * * *") };
        let cron: Cron = text.parse().expect("well formed");
        let after = Timestamp::from_second(second).expect("a time");
        let found = cron.next_after(after, &zone).expect("due");
        prop_assert!(found > after);
        let clocks_change = |moment: Timestamp| {
            let near = |hours| zone.to_offset(moment + Span::new().hours(hours));
            near(-26) != near(26)
        };
        if starred || !clocks_change(after) && !clocks_change(found) {
            prop_assert_eq!(Some(found), judged(&cron, after, &zone));
        }
    }

    #[test]
    fn a_daily_job_is_due_once_on_each_civil_day(minute in 0..60_u8, hour in 0..24_u8, day in 0..3_000_i64) {
        let zone = TimeZone::get("Europe/Oslo").expect("known");
        let cron: Cron = format!("{minute} {hour} * * *").parse().expect("well formed");
        let start = Date::constant(2024, 1, 1).checked_add(Span::new().days(day)).expect("a day");
        let first = start_of(start, &zone).expect("a moment");
        let before = first - Span::new().nanoseconds(1);
        let due = cron.next_after(before, &zone).expect("due");
        let next = cron.next_after(due, &zone).expect("due");
        prop_assert_eq!(zone.to_datetime(due).date(), start);
        prop_assert_eq!(zone.to_datetime(next).date(), start.tomorrow().expect("a day"));
    }
}
