//! What was measured during maintenance is marked, whatever the clock says.

use super::*;

/// After a power cut somebody changed the sensor: the box came up in 1970, `maintenance on` said that it was done, and what the hand
/// had warmed went to the lake as weather. The gateway is started anew meanwhile, and what it held is dated twice.
#[tokio::test]
async fn maintenance_marks_what_is_measured_while_the_clock_is_not_known() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.is_up("first", 0);
    site.run(&mut on, 20 * MINUTE_US).await;
    site.is_up("first", 20 * MINUTE_US);
    site.begin_maintenance(&on, "mast/*", 40 * MINUTE_US);
    let from_us = site.true_us;
    site.run(&mut on, 10 * MINUTE_US).await;
    let told = on.dater.maintenance_told();
    assert_eq!(told.at(on.clock.now_us()).len(), 1, "the status says so too");
    site.set_clock(&on);
    site.run(&mut on, 10 * MINUTE_US).await;
    assert_eq!(told.at(on.clock.now_us()).len(), 1, "and after the clock has come");
    site.power_off(on).await;
    let mut on = site.boot(Boot::Right, 0);
    site.is_up("first", 40 * MINUTE_US);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    assert_eq!(site.wrongly_marked(&stored, from_us..from_us + 40 * MINUTE_US), []);
    assert!(stored.iter().filter(|reading| reading.cause == Some(Cause::Maintenance)).count() > 35);
    assert_eq!(marked(&stored), 0);
}

/// The power went before the clock came: the estimate is all that is known of these times, and the mark stays.
#[tokio::test]
async fn what_was_measured_during_maintenance_stays_marked_where_its_time_never_comes() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.is_up("first", 50 * MINUTE_US);
    site.begin_maintenance(&on, "mast/*", HOUR_US);
    let from_us = site.true_us;
    site.run(&mut on, 10 * MINUTE_US).await;
    site.power_off(on).await;
    let to_us = site.true_us;
    site.is_up("second", 0);
    let mut on = site.boot(Boot::Right, 5 * HOUR_US);
    site.run(&mut on, 10 * MINUTE_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    assert_eq!(site.wrongly_marked(&stored, from_us..to_us), []);
    assert!(stored.iter().any(|reading| reading.cause == Some(Cause::Maintenance)));
}

/// The same while the clock has fallen back: the gateway goes on by the time that passed, two hours from the machine's.
#[tokio::test]
async fn maintenance_marks_what_is_measured_while_the_clock_has_fallen_back() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, 10 * MINUTE_US).await;
    on.wall.set_us(site.true_us - 2 * HOUR_US);
    site.run(&mut on, 5 * MINUTE_US).await;
    site.is_up("first", 9 * MINUTE_US);
    site.begin_maintenance(&on, "mast/*", 20 * MINUTE_US);
    let from_us = site.true_us;
    site.run(&mut on, 10 * MINUTE_US).await;
    on.wall.set_us(site.true_us);
    site.run(&mut on, 30 * MINUTE_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    assert_eq!(site.wrongly_marked(&stored, from_us..from_us + 20 * MINUTE_US), []);
    assert!(stored.iter().filter(|reading| reading.cause == Some(Cause::Maintenance)).count() > 18);
}
