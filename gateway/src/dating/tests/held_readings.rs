//! What waits for the clock on disk: its way into the spool, cut off at any step, and disks that refuse.

use super::*;

/// A power cut between any two steps of the move: the decision is there, and so many of the readings.
#[tokio::test]
async fn a_move_that_was_cut_off_is_gone_on_with() {
    for moved in [0, 1, 17, usize::MAX] {
        let mut site = Site::new();
        let mut on = site.boot(Boot::Year1970, 0);
        site.run(&mut on, HOUR_US).await;
        let offset_us = site.true_us - on.clock.now_us();
        let epoch = on.spool.epoch();
        on.dater.end().await;
        let dir = site.folder.path().join("undated");
        let held = Spool::open(SpoolSettings { dir: dir.clone(), ..site.settings() }, Clock::manual(0));
        let held = held.expect("it opens");
        assert!(held.seal().await);
        let bytes = held.bytes(&held.sealed().await[0]).await.expect("read");
        held.close().await;
        let readings = batch::decode(&bytes).expect("a batch").readings().expect("readings");
        std::fs::write(dir.join("decision"), format!("1 {epoch} 0 {offset_us}\n")).expect("written");
        let dated = readings.iter().take(moved).map(|reading| sensors().date(Some(offset_us), reading.clone()));
        on.spool.append(dated.collect::<Vec<_>>()).await;
        assert!(on.spool.sync().await);
        on.spool.close().await;
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, HOUR_US).await;
        site.power_off(on).await;
        let stored = site.stored().await;
        site.check(&stored);
        assert_eq!(marked(&stored), 0, "the decision was to date them");
    }
}

/// One folder that could not be written, and nothing was polled any more; no signal ended the gateway.
#[tokio::test]
async fn a_disk_that_does_not_take_the_decision_stops_neither_polling_nor_the_end() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US + 30 * SECOND_US).await;
    let blocked = site.folder.path().join("undated/decision.new");
    std::fs::create_dir_all(&blocked).expect("created");
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    assert!(on.clock.is_set() && on.dater.is_waiting());
    assert!(on.spool.status().next_seq > 60, "what was polled since is in the spool: {:?}", on.spool.status());
    let Machine { dater, spool, wall, clock, schedules } = on;
    let (appender, readings, ..) = Appender::start(dater);
    let stop = CancellationToken::new();
    appender.flush(sensors(), &stop).await;
    drop(readings);
    assert!(appender.finish().await, "it ends");
    assert!(spool.sync().await);
    spool.close().await;
    drop((wall, clock, schedules));

    // The next start has room again: they are dated as well as anybody can by then.
    std::fs::remove_dir(&blocked).expect("removed");
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, MINUTE_US).await;
    assert!(!on.dater.is_waiting());
    site.power_off(on).await;
    let mut stored = site.stored().await;
    stored.sort_by(|one, other| one.value.partial_cmp(&other.value).expect("numbers"));
    // Of the slot in which the clock came, one reading is held already: no other one is taken.
    let twice_polled: Vec<String> =
        site.faults(&stored).into_iter().filter(|fault| fault.ends_with("is lost")).collect();
    assert!(twice_polled.len() <= EVERY.len(), "{twice_polled:?}");
    assert_eq!(site.faults(&stored), twice_polled);
    assert!(marked(&stored) > 60);
}

/// What buses had in hand when they were given up is in the spool as well.
#[tokio::test]
async fn what_was_left_behind_reaches_the_spool() {
    let site = Site::new();
    let wall = Clock::manual(START_US);
    let spool = Spool::open(site.settings(), wall.clone()).expect("it opens");
    let policy = ClockPolicy { patience_us: 0, trusted: true, witness: Witness::at(site.machine.path()) };
    let (dater, clock) = Dater::begin(spool.clone(), site.settings(), &wall, sensors(), policy);
    let (appender, readings, left, on_disk) = Appender::start(dater);
    let of = |value: f64| vec![Reading::of("mast/humidity".parse().expect("a sensor"), START_US + value as i64, value)];
    readings.send(of(1.0).into()).await.expect("taken");
    // A bus whose readings find no place, and which is given up.
    let (full, _kept) = tokio::sync::mpsc::channel(1);
    full.try_send(Rows::default()).expect("room for one");
    let (stop, newest) = (CancellationToken::new(), Newest::from_fn(|_| None));
    let (states, device_times) = (BusStates::new(), DeviceTimes::default());
    let context =
        BusContext { clock, readings: full, left, newest, stop, states, learned: None, device_times, on_disk };
    assert!(futures::FutureExt::now_or_never(context.store(of(2.0))).is_none());
    drop((readings, context));
    assert!(appender.finish().await, "it ends");
    spool.close().await;
    let values: Vec<_> = site.stored().await.into_iter().filter_map(|reading| reading.value).collect();
    assert_eq!(values, [1.0, 2.0]);
}

/// What is polled meanwhile comes first, but for the slot in which the clock came: that is held.
#[tokio::test]
async fn a_disk_that_takes_the_decision_later_dates_all_the_same() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US).await;
    let blocked = site.folder.path().join("undated/decision.new");
    std::fs::create_dir_all(&blocked).expect("created");
    site.set_clock(&on);
    site.run(&mut on, 10 * MINUTE_US).await;
    std::fs::remove_dir(&blocked).expect("removed");
    site.run(&mut on, MINUTE_US).await;
    assert!(!on.dater.is_waiting());
    site.power_off(on).await;
    let mut stored = site.stored().await;
    stored.sort_by(|one, other| one.value.partial_cmp(&other.value).expect("numbers"));
    site.check(&stored);
    assert_eq!(marked(&stored), 0);
}

/// The spool's numbers say how many have moved: another reading among them was once taken for one of them.
#[tokio::test]
async fn nothing_passes_a_move_that_was_decided_and_is_stuck() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US).await;
    let (offset_us, epoch) = (site.true_us - on.clock.now_us(), on.spool.epoch());
    site.power_off(on).await;
    let undated = site.folder.path().join("undated");
    std::fs::write(undated.join("decision"), format!("1 {epoch} 0 {offset_us}\n")).expect("written");
    let mut on = site.boot(Boot::Right, 0);
    // Nothing can be sealed there.
    let sealed = undated.join("sealed");
    if sealed.exists() {
        std::fs::remove_dir_all(&sealed).expect("removed");
    }
    std::fs::write(&sealed, "").expect("written");
    site.run(&mut on, 10 * MINUTE_US).await;
    assert_eq!(on.spool.status().next_seq, 1, "a power cut here costs nothing that was held");
    assert!(on.dater.behind.len() > 8, "{}", on.dater.behind.len());
    std::fs::remove_file(&sealed).expect("removed");
    site.run(&mut on, 10 * MINUTE_US).await;
    assert!(!on.dater.is_waiting());
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    assert_eq!(marked(&stored), 0, "the decision was to date them");
}

/// A folder that could not be renamed away was used again with its old decision, and as many readings were
/// skipped as had come since.
#[tokio::test]
async fn a_folder_with_an_old_decision_takes_no_new_readings() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let mut on = site.boot(Boot::Year1970, 0);
    // A folder that is not empty takes no other one's name.
    let moved = site.folder.path().join("undated.moved");
    std::fs::create_dir_all(moved.join("in the way")).expect("created");
    site.run(&mut on, HOUR_US).await;
    assert!(site.folder.path().join("undated/decision").exists(), "it is still there");
    // Of devices that know the time themselves.
    let sensor: SensorId = EVERY[1].0.parse().expect("valid");
    for minutes in 0..5 {
        let number = f64::from(u32::try_from(site.polled.len()).expect("few"));
        let time_us = sensors().grid(&sensor).expect("known").slot_of(START_US + 240 * HOUR_US) + minutes * MINUTE_US;
        site.polled.push((number, sensor.clone(), time_us));
        on.spool.append(vec![Reading::of(sensor.clone(), time_us, number)]).await;
    }
    site.run(&mut on, HOUR_US).await;
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
}

/// A bus that a reload begins anew asks what the newest slot is, and those that are held count.
#[tokio::test]
async fn what_is_held_is_known_to_a_bus_that_begins_anew() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    let newest_of = on.dater.newest_of();
    let sensor: SensorId = EVERY[1].0.parse().expect("valid");
    assert_eq!(newest_of(&sensor), None);
    site.run(&mut on, 10 * MINUTE_US).await;
    assert_eq!(newest_of(&sensor), Some(sensors().grid(&sensor).expect("known").slot_of(on.clock.now_us())));
    site.set_clock(&on);
    site.run(&mut on, SECOND_US).await;
    let newest_us = newest_of(&sensor).expect("some");
    assert!((0..2 * MINUTE_US).contains(&(site.true_us - newest_us)), "{newest_us} at {}", site.true_us);
    site.power_off(on).await;
}

/// A scale was wrong while readings waited for the clock, and mended by a reload before it came: all were sent under the mended
/// one, up to a day of them, and nobody could say which were wrong.
#[tokio::test]
async fn what_waits_for_the_clock_keeps_the_configuration_that_it_was_measured_under() {
    let names = ["1", "2", "3"].map(|digit| digit.repeat(64));
    for restarts in [false, true] {
        let mut site = Site::new();
        let mut on = site.boot(Boot::Year1970, HOUR_US);
        let mut changed = Vec::new();
        for name in &names {
            changed.push(site.true_us);
            on.dater.set_sensors(Sensors { sha256: Some(name.clone()), ..sensors() }).await;
            on.spool.set_configuration(name.clone()).await;
            site.run(&mut on, 20 * MINUTE_US).await;
        }
        if restarts {
            site.power_off(on).await;
            on = site.boot(Boot::Year1970, HOUR_US);
        } else {
            site.set_clock(&on);
        }
        site.run(&mut on, 2 * MINUTE_US).await;
        assert!(on.spool.seal().await);
        let mut found = 0;
        for object in on.spool.sealed().await {
            let batch = batch::decode(&on.spool.bytes(&object).await.expect("read")).expect("a batch");
            for reading in batch.readings().expect("readings") {
                let polled_us = site.polled[reading.value.expect("a value") as usize].2;
                let under = changed.iter().rposition(|since_us| *since_us < polled_us).map(|at| &names[at]);
                if polled_us <= changed[2] + 20 * MINUTE_US {
                    assert_eq!(batch.header.configuration.as_ref(), under, "{reading:?}");
                    found += 1;
                }
            }
        }
        assert!(found > 60, "{found}");
        site.power_off(on).await;
    }
}
