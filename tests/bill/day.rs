//! What a day costs. A day is played with the intervals that a configuration has by itself. All the pipeline's jobs are in
//! the bill, a dashboard that asks the server once a minute, and each gateway with as much as its own test allows it.
//!
//! A dashboard's day takes minutes without optimisation, so seven hours are played and reckoned up (so long that everything
//! but vacuum is due); `TJERN_BILL_HOURS=24` plays the whole, `TJERN_GATEWAYS=100` more gateways (`just campaign`).

use std::collections::{BTreeMap, BTreeSet};

use tjern_lake::{Table, TableName};
use tjern_pipeline::ingest::watermark;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::SourceName;
use tjern_readings::store::RequestCounts;

use crate::dashboard::{Dashboard, Serving};
use crate::jobs::{jobs, run};
use crate::place::{EPOCH, HOUR_US, NOW_US, Place, SECOND_US, files, gateway};

/// What a gateway with six hourly sensors may ask of a cloud in a day, batches, listings, proofs and all the rest: its own test holds
/// the whole of it to that (`gateway/tests/requests.rs`).
const GATEWAY_A_DAY: u64 = 60;

/// What a whole day has beside seven of its hours, reckoned up: vacuum, checkpoints and what they make others read anew. Both were
/// played: 4,971 and 4,688.
const ONCE_A_DAY: u64 = 283;

/// What a gateway has sent before the day begins.
const WEEK_H: i64 = 7 * 24;

/// How much of the day is played.
fn hours() -> i64 {
    number_of("TJERN_BILL_HOURS", 7)
}

fn number_of(variable: &str, unless_said: i64) -> i64 {
    std::env::var(variable).ok().map_or(unless_said, |text| text.parse().expect("a number"))
}

/// Six sensors, each once an hour.
fn reading(source: &SourceName, number: i64) -> Reading {
    let sensor = format!("{source}/q{}", number % 6).parse().expect("valid");
    Reading::of(sensor, NOW_US + ((number - 1) / 6 - WEEK_H) * HOUR_US, 10.0)
}

/// Lands what a gateway measured in an hour.
async fn land(place: &Place, source: &SourceName, hour: i64) {
    let readings: Vec<_> = (hour * 6 + 1..=hour * 6 + 6).map(|number| reading(source, number)).collect();
    place.land(source, hour * 6 + 1, &readings).await;
}

/// The bill of a day, by who made the requests.
#[derive(Debug)]
struct Bill {
    gateways: u64,
    /// Of the pipeline and the server, in the hours that are played.
    played: BTreeMap<String, RequestCounts>,
}

impl Bill {
    fn of(gateways: i64) -> Self {
        Self { gateways: u64::try_from(gateways).expect("some"), played: BTreeMap::new() }
    }

    fn add(&mut self, who: &str, counts: RequestCounts) {
        let sum = self.played.entry(who.to_owned()).or_default();
        sum.puts += counts.puts;
        sum.gets += counts.gets;
        sum.lists += counts.lists;
        sum.deletes += counts.deletes;
    }

    /// Of a whole day.
    fn total(&self) -> u64 {
        let played: u64 = self.played.values().map(RequestCounts::billed).sum();
        played * 24 / u64::try_from(hours()).expect("small") + self.gateways * GATEWAY_A_DAY
    }

    fn print(&self, title: &str) {
        println!("{title}: {} requests a day", self.total());
        println!("  gateways, a day          {:>6}", self.gateways * GATEWAY_A_DAY);
        println!("  in {} hours:", hours());
        for (who, counts) in &self.played {
            println!("  {who:<24} {:>6}: {counts}", counts.billed());
        }
    }
}

/// Plays a day of gateways with six hourly sensors each, after a week of the same, with a dashboard that asks once a
/// minute.
async fn a_day(gateways: i64, serving: Serving) -> Bill {
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a folder");
    let files = files(folder.path(), gateways);
    let lake = place.lake();
    Table::create_all(&lake).await.expect("created");
    for hour in 0..WEEK_H {
        place.clock.set_us(NOW_US + (hour - WEEK_H) * HOUR_US);
        for number in 0..gateways {
            land(&place, &gateway(number), hour).await;
        }
    }
    place.clock.set_us(NOW_US);
    let mut jobs = jobs(files, folder.path(), &lake);
    let mut dashboard = Dashboard::open(&place, &lake, serving).await;
    // What a start costs, with a week to take, is not of this day.
    for due in &mut jobs {
        run(&lake, due).await;
    }
    let versions = lake.versions().borrow().clone();
    dashboard.hears(&versions).await;
    dashboard.ask().await;
    let mut bill = Bill::of(gateways);
    for second in (0..hours() * 3_600).step_by(2) {
        place.clock.set_us(NOW_US + second * SECOND_US);
        // Each gateway sends within a minute and a half of the hour.
        let (hour, past) = (WEEK_H + second / 3_600, second % 3_600);
        for number in (0..gateways).filter(|number| 30 + number * 90 / gateways / 2 * 2 == past) {
            land(&place, &gateway(number), hour).await;
        }
        for due in jobs.iter_mut().filter(|due| due.next_us <= place.clock.now_us()) {
            run(&lake, due).await.into_iter().for_each(|(who, cost)| bill.add(&who, cost));
        }
        if past % 60 == 50 {
            let versions = lake.versions().borrow().clone();
            dashboard.hears(&versions).await;
            let (shown, cost) = dashboard.ask().await;
            bill.add("server", cost);
            // The first gateway's batch landed 30 s past the hour: within a minute it is shown.
            let newest = jiff::Timestamp::from_microsecond(NOW_US + (hour - WEEK_H) * HOUR_US).expect("a time");
            assert!(past < 90 || shown.contains(&newest.to_string()), "{past} s past the hour: {shown}");
        }
    }
    let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    let taken: BTreeSet<_> = (0..gateways).map(|number| watermark(&table, &gateway(number), EPOCH)).collect();
    assert_eq!(taken, BTreeSet::from([Some((WEEK_H + hours()) * 6)]), "a bill of work that was not done is none");
    bill
}

/// A small city on one box: `tjern up`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gateway_and_a_server_that_is_asked_every_minute_make_at_most_5000_requests_a_day() {
    let bill = a_day(1, Serving::Together).await;
    bill.print("one gateway, six hourly sensors, a server that is asked once a minute");
    assert!(bill.total() <= allowed(1), "{} of {}", bill.total(), allowed(1));
}

/// A server on a machine of its own, beside `tjern pipeline run`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gateway_and_a_server_of_its_own_that_is_told_make_at_most_5000_requests_a_day() {
    let bill = a_day(1, Serving::Told).await;
    bill.print("one gateway, six hourly sensors, a server of its own that is told and asked once a minute");
    assert!(bill.total() <= allowed(1), "{} of {}", bill.total(), allowed(1));
}

/// What so many gateways may make a day: 5,000 of one and 100,000 of a hundred, and evenly between. A part of a day has to leave
/// room for what the part does not have.
fn allowed(gateways: i64) -> u64 {
    let whole = u64::try_from(5_000 + (gateways - 1) * 95_000 / 99).expect("one or more");
    if hours() < 24 { whole - ONCE_A_DAY } else { whole }
}

/// Ten are played here, and a hundred for a whole day where that is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_gateways_and_a_server_apart_make_at_most_100000_requests_a_day_per_hundred() {
    let gateways = number_of("TJERN_GATEWAYS", 10);
    let bill = a_day(gateways, Serving::Apart).await;
    bill.print(&format!(
        "{gateways} gateways, six hourly sensors each, a server of its own that is asked once a minute"
    ));
    assert!(bill.total() <= allowed(gateways), "{} of {}", bill.total(), allowed(gateways));
}
