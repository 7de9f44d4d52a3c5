//! Clocks that run ahead, fall back, and are set right, while the gateway runs and between its starts.

use super::*;

/// For some minutes the clock was a day ahead. It was believed again where it came back, and after a restart it was not: nothing was sent
/// for a day, and with the restart after that readings were stored a day ahead.
#[tokio::test]
async fn a_clock_that_was_ahead_and_came_back_is_believed_by_the_next_starts() {
    for has_service in [false, true] {
        let mut site = Site::new();
        if has_service {
            site = site.with_time_service();
            site.touch(START_US);
        }
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, 20 * MINUTE_US).await;
        on.wall.set_us(site.true_us + 24 * HOUR_US);
        site.run(&mut on, 3 * MINUTE_US).await;
        on.wall.set_us(site.true_us);
        if has_service {
            site.touch(site.true_us);
        }
        site.run(&mut on, 10 * MINUTE_US).await;
        assert!(on.clock.is_set() && on.clock.doubt().is_none());
        site.power_off(on).await;
        let back_us = site.true_us;
        for start in 1..=3 {
            if has_service {
                site.touch(site.true_us);
            }
            let mut on = site.boot(Boot::Right, 0);
            assert!(on.clock.is_set(), "start {start} does not believe a clock that is right");
            site.run(&mut on, 10 * MINUTE_US).await;
            site.power_off(on).await;
        }
        let stored = site.stored().await;
        let is_later = |reading: &&Reading| site.polled[reading.value.expect("a value") as usize].2 > back_us;
        let later: Vec<&Reading> = stored.iter().filter(is_later).collect();
        assert!(later.len() > 20, "{}", later.len());
        assert!(later.iter().all(|reading| reading.time_us <= site.true_us), "a day ahead: {later:?}");
    }
}

/// A clock was an hour ahead for two minutes, and nobody says whether it is synchronised (chrony): the next start did not believe
/// the right one, and each start after it took the estimates of the one before for what is known, for ever.
#[tokio::test]
async fn a_clock_that_was_once_ahead_is_believed_again() {
    let mut site = Site::new();
    site.patience_us = MINUTE_US;
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, 10 * MINUTE_US).await;
    on.wall.set_us(site.true_us + HOUR_US);
    site.run(&mut on, 2 * MINUTE_US).await;
    on.wall.set_us(site.true_us);
    site.power_off(on).await;
    let mut believed = Vec::new();
    for _ in 0..4 {
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, 20 * MINUTE_US).await;
        believed.push(on.clock.is_set());
        site.power_off(on).await;
    }
    assert_eq!(believed, [false, false, true, true], "from fifteen minutes before what it once said");
    assert!(marked(&site.stored().await) > 40);
}

const YEAR_1998_US: i64 = 883_612_800 * SECOND_US;

/// A battery clock was read again while the gateway ran: two hours of readings were dated 1998 as if that were sure, and the way
/// back counted 900 million slots as missed. The canary is a gateway that follows.
#[tokio::test]
async fn a_clock_that_falls_back_while_it_runs_dates_nothing_by_it() {
    for follows in [false, true] {
        let mut site = Site { trusted: follows, ..Site::new() };
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, HOUR_US).await;
        on.wall.set_us(YEAR_1998_US);
        site.run(&mut on, 2 * HOUR_US).await;
        assert_eq!((on.clock.doubt().is_none(), on.dater.is_waiting()), (follows, !follows));
        site.set_clock(&on);
        site.run(&mut on, HOUR_US).await;
        assert_eq!((on.clock.doubt(), on.clock.falls()), (None, u64::from(!follows)));
        site.power_off(on).await;
        let stored = site.stored().await;
        let faults = site.faults(&stored);
        assert_eq!(faults.is_empty(), !follows, "{faults:?}");
        if follows {
            continue;
        }
        assert!((130..=134).contains(&marked(&stored)), "two hours: {}", marked(&stored));
        for reading in stored {
            let true_us = site.polled[reading.value.expect("a value") as usize].2;
            let grid = sensors().grid(&reading.sensor).expect("known");
            assert!(Site::slots_of(grid, true_us).contains(&reading.time_us), "{reading:?}, marked or not");
        }
    }
}

/// An estimate began with a logger's time that was ahead, and ended backwards; when the clock fell later in the same run, each
/// value was stored minutes early, on slots that were stored already, and nothing said so.
#[tokio::test]
async fn a_clock_that_falls_after_an_estimate_that_was_ahead_marks_what_it_dates() {
    let mut site = Site::new().with_time_service();
    let logger: SensorId = "mast/logger".parse().expect("valid");
    let spool = Spool::open(site.settings(), Clock::manual(START_US)).expect("it opens");
    spool.append(vec![Reading::of(logger.clone(), START_US + 5 * MINUTE_US, 0.0)]).await;
    assert!(spool.sync().await);
    spool.close().await;
    let mut on = site.boot(Boot::LastShutdown, 40 * SECOND_US);
    assert!(!on.clock.is_set());
    site.run(&mut on, 10 * SECOND_US).await;
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    assert_eq!(on.clock.offset_us(), Some(-260 * SECOND_US), "the estimate was ahead");
    on.wall.set_us(YEAR_1998_US);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let mut stored = site.stored().await;
    stored.retain(|reading| reading.sensor != logger);
    site.check(&stored);
    assert!((64..=68).contains(&marked(&stored)), "an hour: {}", marked(&stored));
}

/// A battery clock was two hours ahead, and the time server corrected it after the start: that is no fall. Where somebody else
/// did it nobody knows, unless it is where it was before it sprang forward.
#[tokio::test]
async fn a_clock_that_was_ahead_and_is_set_right_is_followed() {
    for (by_service, sprang, is_followed) in
        [(true, false, true), (false, false, false), (false, true, true), (true, true, true)]
    {
        let mut site = Site::new();
        if !sprang {
            site.true_us += 2 * HOUR_US;
        }
        if by_service {
            let battery = site.machine.path().join("sys/class/rtc/rtc0");
            std::fs::create_dir_all(&battery).expect("created");
            std::fs::write(battery.join("since_epoch"), (site.true_us / SECOND_US).to_string()).expect("written");
            site = site.with_time_service();
        }
        let mut on = site.boot(Boot::Right, 0);
        assert!(on.clock.is_set());
        if sprang {
            site.run(&mut on, 10 * MINUTE_US).await;
            on.wall.set_us(site.true_us + 2 * HOUR_US);
        } else {
            site.true_us -= 2 * HOUR_US;
        }
        site.run(&mut on, 10 * MINUTE_US).await;
        assert_eq!(on.clock.falls(), 0);
        site.set_clock(&on);
        site.run(&mut on, 10 * MINUTE_US).await;
        let case = (by_service, sprang);
        assert_eq!((on.clock.falls(), on.clock.doubt().is_none()), (1, is_followed), "{case:?}");
        site.power_off(on).await;
        let stored = site.stored().await;
        let last: Vec<&Reading> = stored.iter().rev().take(5).collect();
        for reading in last {
            let true_us = site.polled[reading.value.expect("a value") as usize].2;
            let slots = Site::slots_of(sensors().grid(&reading.sensor).expect("known"), true_us);
            let is_estimate = reading.cause == Some(Cause::ClockEstimated);
            assert_eq!(
                (slots.contains(&reading.time_us), is_estimate),
                (is_followed, !is_followed),
                "{case:?}: {reading:?}"
            );
        }
    }
}

/// Somebody set the clock back an hour at a site without a time server. Once it had come to the time of its last synchronisation
/// again, that counted as one since: readings were an hour wrong, unmarked, on slots that were stored already.
#[tokio::test]
async fn what_the_time_service_set_before_a_fall_is_no_word_about_it() {
    for minutes in [20, 60] {
        let mut site = Site::new().with_time_service();
        site.synchronise(true);
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, minutes * MINUTE_US).await;
        on.wall.set_us(site.true_us - HOUR_US);
        site.run(&mut on, 3 * HOUR_US).await;
        assert!(on.clock.doubt().is_some(), "{minutes} min after it was synchronised");
        let so_far = site.polled.len();
        // The service says that this is the time.
        site.touch(on.wall.wall_us());
        site.run(&mut on, 2 * SECOND_US).await;
        assert_eq!(on.clock.doubt(), None);
        site.power_off(on).await;
        // What comes by that time is none of this.
        let mut stored = site.stored().await;
        stored.retain(|reading| reading.value.is_some_and(|number| (number as usize) < so_far));
        site.polled.truncate(so_far);
        site.check(&stored);
        assert!((196..=202).contains(&marked(&stored)), "three hours: {}", marked(&stored));
    }
}

/// What a logger on a line says of the time is no word about the box's clock: it may be a year ahead.
#[tokio::test]
async fn a_device_that_is_ahead_does_not_make_the_clock_unknown() {
    let site = Site::new();
    let logger: SensorId = "mast/logger".parse().expect("valid");
    let spool = Spool::open(site.settings(), Clock::manual(START_US)).expect("it opens");
    spool.append(vec![Reading::of(logger.clone(), START_US + 240 * HOUR_US, 1.0)]).await;
    assert!(spool.sync().await);
    let is_set = |sensors: Sensors| {
        let policy = ClockPolicy { patience_us: 0, trusted: false, witness: Witness::at(site.machine.path()) };
        let wall = Clock::manual(START_US);
        Dater::begin(spool.clone(), site.settings(), &wall, sensors, policy).1.is_set()
    };
    assert!(is_set(Sensors { own_time: HashSet::from([logger]), ..sensors() }));
    assert!(!is_set(sensors()), "of a sensor that the box dates itself it is");
    spool.close().await;
}

/// A clock was set back by five minutes and followed: each slot of those five minutes had two values, both as good as any, and one
/// of them was hidden for good.
#[tokio::test]
async fn what_comes_twice_after_a_small_step_back_says_so() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, HOUR_US).await;
    for _ in 0..2 {
        on.wall.set_us(on.wall.wall_us() - 5 * MINUTE_US);
        site.run(&mut on, 20 * MINUTE_US).await;
        assert!(on.clock.doubt().is_none(), "it is followed");
    }
    site.power_off(on).await;
    let stored = site.stored().await;
    let mut sure = HashSet::new();
    for reading in stored.iter().filter(|reading| reading.cause.is_none()) {
        assert!(sure.insert((&reading.sensor, reading.time_us)), "two that are sure: {reading:?}");
    }
    assert!((8..=12).contains(&marked(&stored)), "only until it has come to that time again: {}", marked(&stored));
}
