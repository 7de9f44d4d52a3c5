//! What a day costs at a store that bills each request: gateways, pipeline and the server that answers queries, together.
//!
//! A day is played by a clock of the test's own, with the intervals that a configuration has by itself. All the
//! pipeline's jobs are in the bill, the gateways' uploads, and a dashboard that asks the real server once a minute over
//! HTTP: in the pipeline's process, as `tjern up` runs it, or in one of its own.
//!
//! A dashboard's day takes minutes without optimisation, so seven hours are played and reckoned up (so long that everything
//! but vacuum is due); `TJERN_BILL_HOURS=24` plays the whole, `TJERN_GATEWAYS=100` more gateways (`just campaign`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::{Commit, Lake, Operation, Table, TableName};
use tjern_pipeline::compact::CompactSettings;
use tjern_pipeline::config::{
    CompactSection, EraseSection, IngestSection, QualitySection, RegisterSection, RetentionSection, RollupSection,
    VacuumSection, default_publications,
};
use tjern_pipeline::ingest::{IngestSettings, watermark};
use tjern_pipeline::jobs::once::once;
use tjern_pipeline::jobs::{Entry, JobSettings, Run, Schedule, Schedules, entries, record};
use tjern_pipeline::register::RegisterFiles;
use tjern_pipeline::watch::WatchSection;
use tjern_queries::{ServeConfig, Server, ServerSettings, Tokens};
use tjern_readings::batch::encode;
use tjern_readings::clock::Clock;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::{RequestCounts, Store};
use tjern_testing::simulated::Simulated;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3_600 * SECOND_US;

/// 2026-07-01T00:00:00Z.
const NOW_US: i64 = 1_782_864_000_000_000;

const EPOCH: Epoch = Epoch::from_bytes([9; 16]);

/// What a gateway has sent before the day begins.
const WEEK_H: i64 = 7 * 24;

/// A lake in a store of memory that bills as a cloud does.
struct Place {
    store: Arc<Simulated>,
    clock: Clock,
}

impl Place {
    fn new() -> Self {
        let clock = Clock::manual(NOW_US);
        Self { store: Arc::new(Simulated::new(clock.clone())), clock }
    }

    /// The lake as a new process finds it: with nothing known.
    fn lake(&self) -> Lake {
        let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&self.store);
        Lake::over(Store::over(objects, "s3://city/lake".parse().expect("a lake"))).with_clock(self.clock.clone())
    }

    async fn land(&self, source: &SourceName, first: i64, last: i64) {
        let readings: Vec<_> = (first..=last).map(|number| reading(source, number)).collect();
        let (bytes, batch) = encode(source, EPOCH, first, &readings, None).expect("encoded");
        self.put(&Landed::Batch(EPOCH, batch.header.bounds).key(source), bytes.to_vec()).await;
    }

    async fn put(&self, key: &object_store::path::Path, bytes: Vec<u8>) {
        self.store.inner().put(key, bytes.into()).await.expect("put");
        self.store.date(key);
    }
}

/// How much of the day is played.
fn hours() -> i64 {
    number_of("TJERN_BILL_HOURS", 7)
}

fn number_of(variable: &str, unless_said: i64) -> i64 {
    std::env::var(variable).ok().map_or(unless_said, |text| text.parse().expect("a number"))
}

fn gateway(number: i64) -> SourceName {
    format!("gateway-{number:03}").parse().expect("valid")
}

/// Six sensors, each once an hour.
fn reading(source: &SourceName, number: i64) -> Reading {
    let sensor = format!("{source}/q{}", number % 6).parse().expect("valid");
    Reading::of(sensor, NOW_US + ((number - 1) / 6 - WEEK_H) * HOUR_US, 10.0)
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

    /// Of a whole day.
    fn total(&self) -> u64 {
        self.0.values().map(RequestCounts::billed).sum::<u64>() * 24 / u64::try_from(hours()).expect("small")
    }

    fn print(&self, title: &str) {
        println!("{title}: {} requests a day; in {} hours", self.total(), hours());
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
fn jobs(files: RegisterFiles, folder: &Path, lake: &Lake) -> Vec<Due> {
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
        ingest: IngestSettings {
            hole_patience: Duration::from_secs(3_600),
            landing_grace: Duration::from_secs(7 * 24 * 3_600),
        },
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

fn files(folder: &Path) -> RegisterFiles {
    let files = RegisterFiles { required: true, ..RegisterSection::default().files(folder, &TimeZone::UTC) };
    std::fs::write(&files.sites, "site,name_nb\ngateway-000,Tjernet\n").expect("written");
    let lines = (0..6).map(|n| format!("gateway-000/q{n},gateway-000,q{n},Cel,sample,public\n"));
    let text = format!("id,site,quantity,unit,kind,class\n{}", lines.collect::<String>());
    std::fs::write(&files.sensors, text).expect("written");
    files
}

/// A week of hourly batches of each gateway that are in the table, as far as it says, and are listed and never read
/// again: their bytes do not matter.
async fn taken_long_ago(place: &Place, gateways: i64) {
    for hour in 0..WEEK_H {
        place.clock.set_us(NOW_US + (hour - WEEK_H) * HOUR_US);
        for number in 0..gateways {
            let bounds = Bounds::new(hour * 6 + 1, hour * 6 + 6).expect("in order");
            place.put(&Landed::Batch(EPOCH, bounds).key(&gateway(number)), vec![0]).await;
        }
    }
    let mut table = Table::open_or_create(&place.lake(), TableName::Readings).await.expect("created");
    let transactions = (0..gateways).map(|number| (format!("{}/{EPOCH}", gateway(number)), WEEK_H * 6)).collect();
    let (operation, notes) = (Operation::Ingest, BTreeMap::new());
    let commit = Commit { operation, add: Vec::new(), remove: Vec::new(), transactions, notes };
    table.commit(commit).await.expect("committed");
}

/// Where the server that answers queries runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    /// In the process of the pipeline.
    Together,
    /// In a process of its own.
    Apart,
}

/// A server, and a dashboard that asks it.
struct Dashboard {
    lake: Lake,
    address: SocketAddr,
}

impl Dashboard {
    async fn open(place: &Place, pipeline: &Lake, serving: Serving, stop: &CancellationToken) -> Self {
        let lake = if serving == Serving::Together { pipeline.clone() } else { place.lake() };
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let serve = ServeConfig { public: here, staff: here, ..ServeConfig::default() };
        let mut settings = ServerSettings::new(lake.clone(), TimeZone::UTC, &serve, Tokens::default());
        settings.shares_pipeline = serving == Serving::Together;
        let server = Server::bind(settings).await.expect("bound");
        let address = server.public_address();
        tokio::spawn(server.run(stop.clone()));
        Self { lake, address }
    }

    /// What the dashboard shows, and what it cost.
    async fn ask(&self) -> (String, RequestCounts) {
        let before = self.lake.store().requests();
        let mut stream = TcpStream::connect(self.address).await.expect("somebody listens");
        let request = format!("GET /api/latest HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("answered");
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        (reply, self.lake.store().requests().since(&before))
    }
}

/// Plays a day of gateways with six hourly sensors each, after a week of the same, with a dashboard that asks once a
/// minute.
async fn a_day(gateways: i64, serving: Serving) -> Bill {
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a folder");
    let files = files(folder.path());
    let lake = place.lake();
    Table::create_all(&lake).await.expect("created");
    if gateways == 1 {
        for hour in 0..WEEK_H {
            place.clock.set_us(NOW_US + (hour - WEEK_H) * HOUR_US);
            place.land(&gateway(0), hour * 6 + 1, hour * 6 + 6).await;
        }
    } else {
        taken_long_ago(&place, gateways).await;
    }
    place.clock.set_us(NOW_US);
    let mut jobs = jobs(files, folder.path(), &lake);
    let stop = CancellationToken::new();
    let dashboard = Dashboard::open(&place, &lake, serving, &stop).await;
    // What a start costs, with a week to take, is not of this day.
    for due in &mut jobs {
        run(&mut Bill::default(), &lake, due).await;
    }
    dashboard.ask().await;
    let mut bill = Bill::default();
    for second in (0..hours() * 3_600).step_by(2) {
        place.clock.set_us(NOW_US + second * SECOND_US);
        // Each gateway sends within a minute and a half of the hour.
        let (hour, past) = (WEEK_H + second / 3_600, second % 3_600);
        for number in (0..gateways).filter(|number| 30 + number * 90 / gateways / 2 * 2 == past) {
            place.land(&gateway(number), hour * 6 + 1, hour * 6 + 6).await;
            bill.add("gateways", RequestCounts { puts: 1, ..RequestCounts::default() });
        }
        for due in jobs.iter_mut().filter(|due| due.next_us <= place.clock.now_us()) {
            run(&mut bill, &lake, due).await;
        }
        if past % 60 == 50 {
            let (shown, cost) = dashboard.ask().await;
            bill.add("server", cost);
            // The first gateway's batch landed 30 s past the hour: within a minute it is shown.
            let newest = jiff::Timestamp::from_microsecond(NOW_US + (hour - WEEK_H) * HOUR_US).expect("a time");
            assert!(past < 90 || shown.contains(&newest.to_string()), "{past} s past the hour: {shown}");
        }
    }
    stop.cancel();
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

/// What so many gateways may make a day: 5,000 of one and 100,000 of a hundred, and evenly between.
fn allowed(gateways: i64) -> u64 {
    u64::try_from(5_000 + (gateways - 1) * 95_000 / 99).expect("one or more")
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
