//! A box without a battery, its power cuts, and the time server that comes or does not.
//!
//! A [`Site`] has a true time and a wall clock; its box polls on its grids as a bus does. Whatever happens,
//! what is in the spool in the end is what was polled: each once, in order, under the slot in which it was truly
//! polled, or marked as estimated.

mod campaign;
mod clock_moves;
mod held_readings;
mod maintenance_marks;
mod site;

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::time::Duration;

use proptest::prelude::*;
use tjern_readings::batch;
use tjern_readings::clock::SECOND_US;
use tjern_readings::configuration::{ConfigText, Period};
use tjern_readings::reading::Quality;
use tjern_readings::rows::Rows;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::bus::state::BusStates;
use crate::bus::{self, BusContext, DeviceTimes, Newest};
use crate::grid::Schedule;
use crate::maintenance::{self, Now, SinceBoot};
use crate::run::Appender;
use crate::spool::tests::memory::Memory;
use site::{Boot, EVERY, HOUR_US, MINUTE_US, Machine, START_US, Site, marked, sensors};

/// Readings were once dated 1970, and refused by everybody after that.
#[tokio::test]
async fn a_box_that_boots_in_1970_dates_its_readings_when_the_time_comes() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let before = site.stored().await.len();
    let mut on = site.boot(Boot::Year1970, 5 * HOUR_US);
    assert!(!on.clock.is_set());
    site.run(&mut on, 2 * HOUR_US).await;
    let unsealed = (on.spool.status().next_seq, before);
    assert_eq!(unsealed, (i64::try_from(before).expect("few") + 1, before), "nothing is in the spool yet");
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    assert!(on.clock.is_set());
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    assert_eq!(marked(&stored), 0, "a time that came out is none to warn of");
    assert!(stored.len() > before + 180, "{} after {before}", stored.len());
    assert!(!site.folder.path().join("undated").exists());
}

/// It was polled one second after its estimated slot began, and the true slot changed in that second: it stands for the
/// beginning, with how far behind it the answer came.
#[tokio::test]
async fn a_poll_beside_the_border_of_a_true_slot_keeps_its_moment() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 5_739 * SECOND_US);
    site.set_clock(&on);
    site.run(&mut on, MINUTE_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    let first = stored.iter().find(|reading| reading.sensor.as_str() == EVERY[1].0).expect("polled");
    let true_us = site.polled[first.value.expect("a value") as usize].2;
    assert_eq!((true_us % MINUTE_US, true_us - first.time_us), (0, MINUTE_US), "the true slot had just begun");
    assert_eq!(first.lag_ms, Some(59_000));
}

#[tokio::test]
async fn a_power_cut_before_the_time_came_leaves_estimates_that_say_so() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let before = site.stored().await;
    let newest_us = before.iter().map(|reading| reading.time_us).max().expect("some");
    let mut on = site.boot(Boot::Year1970, HOUR_US);
    site.run(&mut on, 2 * HOUR_US).await;
    site.power_off(on).await;
    let mut on = site.boot(Boot::Right, HOUR_US);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    let estimates: Vec<&Reading> = stored.iter().filter(|reading| reading.cause.is_some()).collect();
    assert!(estimates.len() > 120, "{}", estimates.len());
    for reading in estimates {
        let passed_us = reading.time_us - newest_us;
        assert!((0..=2 * HOUR_US).contains(&passed_us), "last known plus elapsed: {reading:?}");
    }
}

/// `fake-hwclock`: the clock is plausible, and hours behind; lafrech/oem_gateway#12, guysoft/OctoPi#606.
#[tokio::test]
async fn a_clock_that_begins_where_it_was_switched_off_is_waited_for() {
    let mut site = Site::new().with_time_service();
    site.synchronise(true);
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let mut on = site.boot(Boot::LastShutdown, 7 * HOUR_US + 1_234 * SECOND_US);
    assert!(!on.clock.is_set());
    site.run(&mut on, HOUR_US).await;
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    assert_eq!(marked(&stored), 0);
}

#[tokio::test]
async fn where_the_time_never_comes_readings_wait_no_longer_than_was_said() {
    let mut site = Site::new();
    site.patience_us = HOUR_US;
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US - MINUTE_US).await;
    assert_eq!(on.spool.status().next_seq, 1);
    site.run(&mut on, HOUR_US).await;
    assert!(on.spool.sync().await);
    assert!(on.spool.status().next_seq > 120, "{:?}", on.spool.status());
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    assert_eq!((marked(&stored), stored.len()), (site.polled.len(), site.polled.len()));
}

/// The gateway's own readings cost no record, no sync and no batch of their own.
#[tokio::test]
async fn what_the_gateway_says_of_itself_never_comes_alone() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    let source = "landfall-01".parse().expect("valid");
    let system = SystemReadings::new(&source, on.clock.clone(), crate::upload::UploadState::default(), || None);
    on.dater = on.dater.with_system(Some(system.expect("a gateway")));
    on.wall.advance_us(HOUR_US);
    on.dater.take(Rows::default()).await;
    assert_eq!(on.spool.status().next_seq, 1, "they wait for others");
    let own = |on: &Machine| on.spool.newest_time_us(&"_system/landfall-01/uptime_s".parse().expect("valid"));
    assert_eq!(own(&on), None);
    on.dater.take(vec![Reading::of("mast/humidity".parse().expect("valid"), on.clock.now_us(), 1.0)]).await;
    assert_eq!(own(&on), Some((START_US + HOUR_US) / HOUR_US * HOUR_US));
    site.power_off(on).await;
}

/// The second estimate begins with the newest slot of the first, which was then stored twice.
#[tokio::test]
async fn two_power_cuts_without_a_clock_store_no_slot_twice() {
    let mut site = Site::new();
    for _ in 0..3 {
        let mut on = site.boot(Boot::Year1970, HOUR_US);
        site.run(&mut on, 20 * MINUTE_US + 2 * SECOND_US).await;
        site.power_off(on).await;
    }
    let mut on = site.boot(Boot::Right, HOUR_US);
    site.run(&mut on, MINUTE_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    let mut slots = HashSet::new();
    for reading in &stored {
        assert!(slots.insert((reading.sensor.clone(), reading.time_us)), "twice: {reading:?}");
    }
}

/// Were the check blind, the tests here would prove nothing.
#[tokio::test]
async fn the_check_sees_what_must_not_be() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US).await;
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let right = site.stored().await;
    site.check(&right);
    let broken: [fn(&mut Vec<Reading>); 6] = [
        |readings| drop(readings.remove(20)),
        |readings| readings.insert(21, readings[20].clone()),
        |readings| readings.swap(20, 21),
        |readings| readings[20].time_us += HOUR_US,
        |readings| readings[20].time_us -= sensors().grid(&readings[20].sensor).expect("known").every_us(),
        |readings| readings[20].cause = Some(Cause::Timeout),
    ];
    for (number, breaks) in broken.iter().enumerate() {
        let mut stored = right.clone();
        breaks(&mut stored);
        assert!(!site.faults(&stored).is_empty(), "break {number} is not seen");
    }
}

/// Lives of a box: how it boots, how long it was off before, when the time comes, how long it stays on.
fn lives() -> impl Strategy<Value = Vec<(Boot, i64, Option<i64>, i64)>> {
    let boot = prop::sample::select(vec![Boot::Right, Boot::Year1970, Boot::LastShutdown]);
    prop::collection::vec((boot, 0..7_200_i64, prop::option::of(0..3_600_i64), 60..3_600_i64), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn no_reading_is_lost_or_stored_twice_whatever_the_clock_does(lives in lives(), patience_s in 600..86_400_i64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut site = Site::new().with_time_service();
            site.patience_us = patience_s * SECOND_US;
            for (boot, off_s, comes_s, on_s) in lives {
                site.synchronise(boot == Boot::Right);
                let mut on = site.boot(boot, off_s * SECOND_US);
                let comes_s = comes_s.unwrap_or(on_s).min(on_s);
                site.run(&mut on, comes_s * SECOND_US).await;
                if comes_s < on_s {
                    site.set_clock(&on);
                }
                site.run(&mut on, (on_s - comes_s) * SECOND_US).await;
                site.power_off(on).await;
            }
            site.synchronise(true);
            let mut on = site.boot(Boot::Right, 0);
            site.run(&mut on, SECOND_US).await;
            site.power_off(on).await;
            let stored = site.stored().await;
            site.check(&stored);
        });
    }
}

/// The same with a bus that really polls, a device's own clock beside it.
#[tokio::test]
async fn a_bus_polls_while_the_clock_is_not_known() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let text = format!(
        "version = 1\ngateway = \"landfall-01\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n\
        [[bus]]\nname = \"mast\"\nkind = \"text-lines\"\naddress = \"{}\"\npoll = \"?\\n\"\ntimeout = \"20s\"\n\
        [[bus.device]]\nname = \"logger\"\n\
        [[bus.device.point]]\nsensor = \"mast/air_temperature\"\npattern = 'T=(?<value>\\d+)'\nevery = \"1s\"\n\
        [[bus.device]]\nname = \"dated\"\ntime_pattern = 'at (?<time>\\d+)'\ntime_format = \"unix\"\n\
        [[bus.device.point]]\nsensor = \"mast/humidity\"\npattern = 'H=(?<value>\\d*)'\nevery = \"1s\"\n",
        listener.local_addr().expect("an address")
    );
    let config = Config::parse(&ConfigText::new("test.toml", text)).expect("good");
    let wall = Clock::manual(20 * SECOND_US);
    let spool = Spool::open(site.settings(), wall.clone()).expect("it opens");
    let policy = ClockPolicy { patience_us: i64::MAX, trusted: false, witness: Witness::at(site.machine.path()) };
    let (dater, clock) = Dater::begin(spool.clone(), site.settings(), &wall, Sensors::of(&config), policy);
    let device_times = DeviceTimes::default();
    let (appender, readings, left, on_disk) = Appender::start(dater.with_device_times(device_times.clone()));
    let (stop, newest) = (CancellationToken::new(), Newest::from_fn(|_| None));
    let context = BusContext {
        clock,
        readings,
        left,
        newest,
        stop: stop.clone(),
        states: BusStates::new(),
        learned: None,
        device_times,
        on_disk,
    };
    let bus = tokio::spawn(bus::run(std::sync::Arc::clone(&config.buses()[0]), context));

    let (stream, _) = listener.accept().await.expect("the gateway connects");
    let mut stream = BufReader::new(stream);
    let mut question = String::new();
    for number in 0..40_i64 {
        assert!(stream.read_line(&mut question).await.is_ok_and(|count| count > 0), "the gateway asks");
        let device_s = START_US / SECOND_US + number;
        // A logger's row without a value lies on the grid as slots do, and was dated as one of them is.
        let humidity = if number % 3 == 2 { String::new() } else { number.to_string() };
        stream.write_all(format!("T={number} H={humidity} at {device_s}\n").as_bytes()).await.expect("it listens");
        if number == 20 {
            wall.set_us(START_US + 20 * SECOND_US);
        }
        wall.advance_us(SECOND_US);
    }
    stop.cancel();
    bus.await.expect("it ends");
    assert!(appender.finish().await, "it ends");
    assert!(spool.sync().await);
    spool.close().await;

    let stored = site.stored().await;
    let of = |sensor: &str| stored.iter().filter(|reading| reading.sensor.as_str() == sensor).collect::<Vec<_>>();
    assert_eq!(marked(&stored), 0);
    let humidity: Vec<_> = of("mast/humidity")
        .iter()
        .filter_map(|reading| reading.value.map(|value| (value as i64, reading.time_us)))
        .collect();
    assert!(humidity.len() >= 26, "{humidity:?}");
    assert!(humidity.iter().all(|(number, time_us)| *time_us == START_US + number * SECOND_US), "{humidity:?}");
    let empty: Vec<i64> = of("mast/humidity")
        .iter()
        .filter(|reading| matches!(reading.cause, Some(Cause::NoMatch | Cause::NotANumber | Cause::NotAvailable)))
        .map(|reading| reading.time_us - START_US)
        .collect();
    assert!(empty.len() >= 3, "{empty:?}");
    assert!(empty.iter().all(|at_us| at_us % (3 * SECOND_US) == 2 * SECOND_US && *at_us < 40 * SECOND_US), "{empty:?}");
    let temperature = of("mast/air_temperature");
    assert!(temperature.len() >= 38, "{temperature:?}");
    assert!(temperature.is_sorted_by(|one, other| one.time_us < other.time_us), "no slot twice: {temperature:?}");
    let range = START_US - 2 * SECOND_US..=START_US + 42 * SECOND_US;
    assert!(temperature.iter().all(|reading| range.contains(&reading.time_us)), "{temperature:?}");
}
