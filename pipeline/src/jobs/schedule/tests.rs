//! What a restart, a failure, a long outage and a clock that was set do to the next turn.

use super::*;

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
/// 2026-11-22T12:00:00Z, 13:00 in Oslo.
const NOON_US: i64 = 1_795_348_800_000_000;

fn nightly() -> Schedule {
    Schedule::Cron("30 3 * * *".parse().expect("well formed"))
}

fn hourly() -> Schedule {
    Schedule::Every(Duration::from_secs(3_600))
}

fn ran(began_us: i64, outcome: Outcome) -> Run {
    Run::new("job", began_us, began_us + 1, outcome)
}

fn turn(schedule: &Schedule, last: Option<&Run>, now_us: i64) -> Turn {
    let oslo = TimeZone::get("Europe/Oslo").expect("known");
    Turn::first("job", schedule, &oslo, Duration::ZERO, last, now_us)
}

#[test]
fn the_first_run_of_all_is_now_or_at_the_next_slot() {
    assert_eq!(turn(&hourly(), None, NOON_US).next_us(NOON_US), NOON_US);
    // 03:30 in Oslo is 02:30 UTC.
    let next_us = NOON_US + 14 * HOUR_US + 30 * MINUTE_US;
    assert_eq!(turn(&nightly(), None, NOON_US).next_us(NOON_US), next_us);
}

#[test]
fn a_restart_waits_for_the_slot_and_catches_up_once_what_it_missed() {
    let recent = ran(NOON_US - 10 * MINUTE_US, Outcome::Done);
    assert_eq!(turn(&hourly(), Some(&recent), NOON_US).next_us(NOON_US), NOON_US + 50 * MINUTE_US);
    // Off for four days: four nights were missed, one run makes up for them.
    let old = ran(NOON_US - 4 * 24 * HOUR_US, Outcome::Done);
    let mut turn = turn(&nightly(), Some(&old), NOON_US);
    assert_eq!(turn.next_us(NOON_US), NOON_US);
    turn.ran(&ran(NOON_US, Outcome::Done), NOON_US + MINUTE_US);
    assert_eq!(turn.next_us(NOON_US + MINUTE_US), NOON_US + 14 * HOUR_US + 30 * MINUTE_US);
}

#[test]
fn a_run_that_took_longer_than_its_period_is_followed_by_one_and_not_by_many() {
    let mut turn = turn(&hourly(), None, NOON_US);
    let late_us = NOON_US + 5 * HOUR_US;
    turn.ran(&ran(NOON_US, Outcome::Done), late_us);
    assert_eq!(turn.next_us(late_us), late_us);
    turn.ran(&ran(late_us, Outcome::Done), late_us + MINUTE_US);
    assert_eq!(turn.next_us(late_us + MINUTE_US), late_us + HOUR_US);
}

#[test]
fn a_failure_is_repeated_after_pauses_that_double_and_end() {
    let mut turn = turn(&nightly(), None, NOON_US);
    let mut before: Option<Run> = None;
    let pauses_s: Vec<_> = (0..9)
        .map(|_| {
            let run = ran(NOON_US, Outcome::Failed).after(before.as_ref());
            turn.ran(&run, NOON_US);
            before = Some(run);
            (turn.next_us(NOON_US) - NOON_US) / 1_000_000
        })
        .collect();
    assert_eq!(pauses_s, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
    // What is due every few seconds is not left for ten minutes.
    assert_eq!(Schedule::Every(Duration::from_secs(5)).pause(20), PAUSE_SHORT);
}

/// One source that cannot be read must not make the readings of all others a minute late.
#[test]
fn a_part_that_failed_does_not_put_off_the_rest() {
    let mut turn = turn(&hourly(), None, NOON_US);
    let run = Run { partly: true, ..ran(NOON_US, Outcome::Failed) };
    turn.ran(&run, NOON_US);
    assert_eq!(turn.next_us(NOON_US), NOON_US + HOUR_US);
}

#[test]
fn what_failed_before_a_restart_is_repeated_at_once() {
    let success = ran(NOON_US - 24 * HOUR_US, Outcome::Done);
    let failed = ran(NOON_US - MINUTE_US, Outcome::Failed).after(Some(&success));
    assert_eq!(failed.succeeded, success.succeeded);
    assert_eq!(turn(&nightly(), Some(&failed), NOON_US).next_us(NOON_US), NOON_US);
}

/// Stopped in its very first night: the next was waited for, though the documents say that a start does what was not done.
#[test]
fn what_was_told_to_stop_before_a_restart_is_done_at_once() {
    let interrupted = ran(NOON_US - MINUTE_US, Outcome::Interrupted);
    assert_eq!(interrupted.succeeded, None);
    for schedule in [nightly(), hourly()] {
        assert_eq!(turn(&schedule, Some(&interrupted), NOON_US).next_us(NOON_US), NOON_US);
    }
    let success = ran(NOON_US - 10 * MINUTE_US, Outcome::Done);
    let interrupted = interrupted.after(Some(&success));
    assert_eq!(turn(&nightly(), Some(&interrupted), NOON_US).next_us(NOON_US), NOON_US);
}

/// Killed in the night's run and restarted at once: the lease of who was killed was still held, that counted as a run, and
/// nothing was compacted before the next night.
#[test]
fn a_slot_is_not_done_because_another_process_holds_the_lease() {
    let slot_us = NOON_US - 9 * HOUR_US - 30 * MINUTE_US;
    let yesterday = ran(slot_us - 24 * HOUR_US, Outcome::Done);
    let mut now_us = slot_us + MINUTE_US + 5_000_000;
    let mut turn = turn(&nightly(), Some(&yesterday), now_us);
    assert_eq!(turn.next_us(now_us), now_us, "it is made up for");
    let mut before = yesterday;
    let pauses_s: Vec<_> = (0..9)
        .map(|_| {
            let run = ran(now_us, Outcome::HeldElsewhere).after(Some(&before));
            assert_eq!((run.failures, run.succeeded), (0, before.succeeded), "it neither failed nor was done");
            turn.ran(&run, now_us);
            let pause_us = turn.next_us(now_us) - now_us;
            (now_us, before) = (now_us + pause_us, run);
            pause_us / 1_000_000
        })
        .collect();
    assert_eq!(pauses_s, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
    turn.ran(&ran(now_us, Outcome::Done), now_us);
    assert_eq!(turn.next_us(now_us), slot_us + 24 * HOUR_US);
    turn.ran(&ran(now_us, Outcome::HeldElsewhere), now_us);
    assert_eq!(turn.next_us(now_us) - now_us, 5_000_000, "the next time it begins anew");
}

#[test]
fn a_clock_that_was_wrong_keeps_no_job_waiting() {
    let future = ran(NOON_US + 1_000 * HOUR_US, Outcome::Done);
    assert_eq!(turn(&hourly(), Some(&future), NOON_US).next_us(NOON_US), NOON_US);
    let mut turn = turn(&hourly(), None, NOON_US);
    turn.ran(&ran(NOON_US, Outcome::Done), NOON_US);
    let back_us = NOON_US - 500 * HOUR_US;
    assert_eq!(turn.next_us(back_us), back_us + HOUR_US);
}

#[test]
fn jitter_spreads_jobs_and_stays_the_same_for_a_slot() {
    let oslo = TimeZone::get("Europe/Oslo").expect("known");
    let jitter = Duration::from_secs(600);
    let first = |name: &str| Turn::first(name, &nightly(), &oslo, jitter, None, NOON_US).next_us(NOON_US);
    let slot_us = NOON_US + 14 * HOUR_US + 30 * MINUTE_US;
    let delays: Vec<_> = (0..50).map(|job| first(&format!("job-{job}")) - slot_us).collect();
    assert!(delays.iter().all(|delay_us| (0..=600_000_000).contains(delay_us)), "{delays:?}");
    assert!(delays.iter().min() < Some(&120_000_000) && delays.iter().max() > Some(&480_000_000), "{delays:?}");
    assert_eq!(first("job-7") - slot_us, delays[7]);
}
