//! What a day costs at a store that bills each request, and how soon what landed can be queried.
//!
//! A day is played by a clock of the test's own, with the intervals that a configuration has by itself. All the
//! pipeline's jobs are in the bill, and the gateways' uploads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::{EPOCH, HOUR_US, NOW_US, Place, SECOND_US, SETTINGS, bounds, source};
use jiff::tz::TimeZone;
use tjern_lake::{Commit, Lake, Operation, Table, TableName};
use tjern_pipeline::compact::CompactSettings;
use tjern_pipeline::config::{
    CompactSection, EraseSection, IngestSection, QualitySection, RegisterSection, RetentionSection, RollupSection,
    VacuumSection, default_publications,
};
use tjern_pipeline::ingest::{Ingester, Polling, watermark};
use tjern_pipeline::jobs::once::once;
use tjern_pipeline::jobs::{Entry, JobSettings, Run, Schedule, Schedules, entries, record};
use tjern_pipeline::register::RegisterFiles;
use tjern_pipeline::watch::WatchSection;
use tjern_readings::keys::Landed;
use tjern_readings::store::RequestCounts;
use tokio_util::sync::CancellationToken;

const DAY_S: i64 = 86_400;

/// As a cloud is polled: what a configuration has by itself.
fn polling() -> Polling {
    Polling::of(&"s3://city/lake".parse().expect("a lake"))
}

/// The bill of a day, by who made the requests.
#[derive(Debug, Default)]
struct Bill(BTreeMap<String, RequestCounts>);

impl Bill {
    fn add(&mut self, who: &str, counts: RequestCounts) {
        let sum = self.0.entry(who.to_owned()).or_default();
        sum.puts += counts.puts;
        sum.gets += counts.gets;
        sum.lists += counts.lists;
        sum.deletes += counts.deletes;
    }

    fn total(&self) -> u64 {
        self.0.values().map(RequestCounts::billed).sum()
    }

    fn print(&self, title: &str) {
        println!("{title}: {} requests a day", self.total());
        for (who, counts) in &self.0 {
            println!("  {who:<24} {:>6}: {counts}", counts.billed());
        }
    }
}

/// A job and when it is due next, as the daemon keeps them.
struct Due {
    entry: Entry,
    every_us: i64,
    next_us: i64,
    last: Option<Run>,
    written: Option<Run>,
}

/// All jobs, with the intervals of a configuration that says nothing of them.
fn jobs(files: RegisterFiles, folder: &std::path::Path, lake: &Lake) -> Vec<Due> {
    let every = |section: tjern_readings::configuration::Period| Schedule::from(section);
    let settings = JobSettings {
        when: Schedules {
            ingest: every(IngestSection::default().every),
            register: Schedule::Every(Duration::from_secs(60)),
            quality: every(QualitySection::default().every),
            rollup: every(RollupSection::default().every),
            compact: every(CompactSection::default().every),
            erase: every(EraseSection::default().every),
            vacuum: every(VacuumSection::default().every),
            watch: every(WatchSection::default().every),
            checkpoint: Schedule::Every(Duration::from_secs(6 * 3_600)),
            retention: every(RetentionSection::default().every),
        },
        cron: BTreeMap::new(),
        off: BTreeSet::new(),
        jitter: Duration::ZERO,
        listen: None,
        watch: WatchSection::default().settings(folder, lake.store().url(), &TimeZone::UTC).expect("no secrets"),
        ingest: SETTINGS,
        compact: CompactSettings::default(),
        keep: None,
        retention: Duration::from_secs(86_400),
        register: files,
        publish: default_publications(),
        timezone: TimeZone::UTC,
    };
    let due = |entry: Entry| {
        let Schedule::Every(every) = entry.schedule else { unreachable!("no cron expression is given") };
        let every_us = i64::try_from(every.as_micros()).expect("small");
        Due { entry, every_us, next_us: NOW_US, last: None, written: None }
    };
    entries(&settings).into_iter().map(due).collect()
}

/// Runs a job as the daemon does, and writes down how it went.
async fn run(bill: &mut Bill, lake: &Lake, due: &mut Due) {
    let before = lake.store().requests();
    let never = CancellationToken::new();
    let done = Box::pin(once(&due.entry.name, due.entry.job.as_mut(), lake, due.last.as_ref(), &never)).await;
    assert!(done.error.is_none(), "{}: {:?}", due.entry.name, done.error);
    bill.add(&due.entry.name, lake.store().requests().since(&before));
    let before = lake.store().requests();
    if done.run.is_news(due.written.as_ref()) {
        record::write(lake, &done.run).await.expect("written");
        due.written = Some(done.run.clone());
    }
    bill.add("records of jobs", lake.store().requests().since(&before));
    due.last = Some(done.run);
    due.next_us += due.every_us;
}

fn files(folder: &std::path::Path) -> RegisterFiles {
    let files = RegisterFiles { required: true, ..RegisterSection::default().files(folder, &TimeZone::UTC) };
    std::fs::write(&files.sites, "site,name_nb\ngateway-000,Tjernet\n").expect("written");
    let lines = (0..6).map(|n| format!("gateway-000/q{n},gateway-000,q{n},Cel,sample,public\n"));
    let text = format!("id,site,quantity,unit,kind,class\n{}", lines.collect::<String>());
    std::fs::write(&files.sensors, text).expect("written");
    files
}

/// A week of hourly batches of each source that are in the table, as far as it says, and are listed and never read
/// again: their bytes do not matter.
async fn taken_long_ago(place: &Place, sources: Vec<String>, hours: i64) {
    for hour in 0..hours {
        place.clock.set_us(NOW_US + (hour - hours) * HOUR_US);
        for name in &sources {
            let numbers = Landed::Batch(EPOCH, bounds(hour * 6 + 1, hour * 6 + 6));
            place.put(&numbers.key(&source(name)), vec![0]).await;
        }
    }
    let mut table = Table::open_or_create(&place.lake(), TableName::Readings).await.expect("created");
    let transactions = sources.iter().map(|name| (format!("{name}/{EPOCH}"), hours * 6)).collect();
    let (operation, notes) = (Operation::Ingest, BTreeMap::new());
    let commit = Commit { operation, add: Vec::new(), remove: Vec::new(), transactions, notes };
    table.commit(commit).await.expect("committed");
}

/// Plays a day of gateways with six hourly sensors each, after a week of the same.
async fn a_day(gateways: i64) -> Bill {
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a folder");
    let files = files(folder.path());
    let lake = place.lake();
    Table::create_all(&lake).await.expect("created");
    let name = |gateway: i64| format!("gateway-{gateway:03}");
    let week_h = 7 * 24;
    if gateways == 1 {
        for hour in 0..week_h {
            place.clock.set_us(NOW_US + (hour - week_h) * HOUR_US);
            place.land(&name(0), hour * 6 + 1, hour * 6 + 6).await;
        }
    } else {
        taken_long_ago(&place, (0..gateways).map(name).collect(), week_h).await;
    }
    place.clock.set_us(NOW_US);
    let mut jobs = jobs(files, folder.path(), &lake);
    // What a start costs, with a week to take, is not of this day.
    for due in &mut jobs {
        run(&mut Bill::default(), &lake, due).await;
    }
    let mut bill = Bill::default();
    for second in (0..DAY_S).step_by(2) {
        place.clock.set_us(NOW_US + second * SECOND_US);
        // Each gateway sends within a minute and a half of the hour.
        let (hour, past) = (week_h + second / 3_600, second % 3_600);
        for gateway in (0..gateways).filter(|gateway| 30 + gateway * 90 / gateways / 2 * 2 == past) {
            place.land(&name(gateway), hour * 6 + 1, hour * 6 + 6).await;
            bill.add("gateways", RequestCounts { puts: 1, ..RequestCounts::default() });
        }
        for due in jobs.iter_mut().filter(|due| due.next_us <= place.clock.now_us()) {
            run(&mut bill, &lake, due).await;
        }
    }
    let rows = place.ask("SELECT count(*), max(seq) FROM readings").await;
    let hours = if gateways == 1 { week_h + 24 } else { 24 * gateways };
    assert_eq!(rows, format!("{} {}", hours * 6, (week_h + 24) * 6), "a bill of work that was not done is none");
    bill
}

#[tokio::test]
async fn one_gateway_with_six_hourly_sensors_makes_at_most_5000_requests_a_day() {
    let bill = a_day(1).await;
    bill.print("one gateway, six hourly sensors");
    assert!(bill.total() <= 5_000, "{}", bill.total());
}

/// A thousand requests a gateway and day: a hundred make at most 100,000. Ten are played here, since a day of a hundred takes
/// minutes without optimisation; `TJERN_GATEWAYS=100` plays the whole (`just campaign`).
#[tokio::test]
async fn many_gateways_make_at_most_a_thousand_requests_each_a_day() {
    let gateways = std::env::var("TJERN_GATEWAYS").ok().map_or(10, |text| text.parse().expect("a number"));
    let bill = a_day(gateways).await;
    bill.print(&format!("{gateways} gateways, six hourly sensors each"));
    assert!(bill.total() <= u64::try_from(gateways).expect("small") * 1_000, "{}", bill.total());
}

/// How long after it landed each batch could be queried, in microseconds.
async fn latencies(place: &Place, sources: i64, every_s: i64, minutes: i64) -> Vec<i64> {
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling());
    let mut random = fastrand::Rng::with_seed(7);
    let mut due: Vec<(i64, i64)> = Vec::new();
    for source in 0..sources {
        let phase_us = random.i64(0..every_s * SECOND_US);
        due.extend(
            (0..minutes * 60 / every_s)
                .map(|n| (NOW_US + phase_us + n * every_s * SECOND_US + random.i64(0..2 * SECOND_US), source)),
        );
    }
    due.sort_unstable();
    let mut numbers = vec![0; usize::try_from(sources).expect("small")];
    let mut underway: Vec<(i64, i64, i64)> = Vec::new();
    let mut late_us = Vec::new();
    let mut due = due.into_iter().peekable();
    while due.peek().is_some() || !underway.is_empty() {
        tokio::time::sleep(Duration::from_secs(2)).await;
        place.store.tick();
        while let Some((landed_us, source)) = due.next_if(|(landed_us, _)| *landed_us <= place.clock.now_us()) {
            let number = &mut numbers[usize::try_from(source).expect("small")];
            *number += 1;
            let now_us = place.clock.now_us();
            place.clock.set_us(landed_us);
            place.land(&format!("gateway-{source:03}"), *number, *number).await;
            place.clock.set_us(now_us);
            underway.push((landed_us, source, *number));
        }
        let outcome = ingester.run().await.expect("ingested");
        if outcome.batches == 0 {
            continue;
        }
        place.store.tick();
        let now_us = place.clock.now_us();
        let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
        underway.retain(|(landed_us, gateway, number)| {
            let taken = watermark(&table, &source(&format!("gateway-{gateway:03}")), crate::support::EPOCH);
            let is_there = taken.is_some_and(|taken| taken >= *number);
            if is_there {
                late_us.push(now_us - landed_us);
            }
            !is_there
        });
    }
    late_us
}

fn percentile(values: &mut [i64], hundredths: usize) -> i64 {
    values.sort_unstable();
    values[(values.len() - 1) * hundredths / 100]
}

/// By tokio's paused clock: nothing here is timed by the machine. A look is made every 2 s, as the daemon does.
#[tokio::test(start_paused = true)]
async fn what_a_source_sends_every_minute_is_queryable_within_five_seconds() {
    for (latency_ms, sources, minutes) in [(0, 1, 40), (50, 1, 40), (50, 20, 12)] {
        let place = Place::new();
        place.store.take(Duration::from_millis(latency_ms));
        let mut late_us = latencies(&place, sources, 60, minutes).await;
        let settled = &mut late_us[usize::try_from(sources).expect("small") * 3..];
        let (median, high) = (percentile(settled, 50), percentile(settled, 99));
        println!(
            "{sources} sources, {latency_ms} ms a request: median {} ms, 99th percentile {} ms",
            median / 1_000,
            high / 1_000
        );
        assert!(high < 5 * SECOND_US, "{sources} sources, {latency_ms} ms a request: {high} us");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_source_sends_every_half_hour_is_queryable_within_a_minute() {
    let place = Place::new();
    place.store.take(Duration::from_millis(50));
    let mut late_us = latencies(&place, 5, 1_800, 24 * 60).await;
    let worst = percentile(&mut late_us, 100);
    println!("half-hourly sources: at worst {} ms", worst / 1_000);
    assert!(worst < 60 * SECOND_US, "{worst} us");
}
