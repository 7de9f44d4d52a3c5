//! A life: batches of three sources land in a lake whose store fails, and jobs work on it in any order.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use jiff::tz::TimeZone;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tempfile::TempDir;
use tjern_lake::{Lake, Table};
use tjern_pipeline::compact::{CompactError, CompactOutcome, CompactSettings, LEASE, compact};
use tjern_pipeline::config::RegisterSection;
use tjern_pipeline::ingest::{IngestSettings, Ingester};
use tjern_pipeline::maintain::checkpoint;
use tjern_pipeline::quality::{ControlError, control};
use tjern_pipeline::register::{RegisterError, RegisterFiles, register};
use tjern_pipeline::rollup::rollup;
use tjern_pipeline::vacuum::vacuum;
use tjern_readings::batch::encode;
use tjern_readings::clock::Clock;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_testing::faults::Tally;
use tokio_util::sync::CancellationToken;

use crate::believer::Believer;
use crate::oracle::{self, Readings};
use crate::sky::Sky;

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// 2026-03-01T00:00:00Z.
const FIRST_TIME_US: i64 = 1_772_323_200_000_000;
const SOURCES: [&str; 3] = ["elva-01", "landfall-01", "import:history"];
const SETTINGS: IngestSettings =
    IngestSettings { hole_patience: Duration::from_secs(3_600), landing_grace: Duration::from_secs(2 * 3_600) };
/// How often somebody who uploads tries one object.
const UPLOADS_MAX: usize = 60;

/// Whose ingest is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ingesting {
    /// Ours.
    Real,
    /// One that takes an error to mean that nothing was committed. For the harness to catch.
    BelievesErrors,
}

/// An object that is to land.
#[derive(Debug, Clone)]
struct Landing {
    key: Path,
    bytes: Vec<u8>,
}

/// A lake, what is to land in it, and who works on it.
pub(crate) struct Life {
    random: Rng,
    clock: Clock,
    sky: Sky,
    /// The lake as the jobs see it.
    lake: Lake,
    /// The lake as it is.
    truth: Lake,
    /// The register's files.
    folder: TempDir,
    to_land: Vec<Landing>,
    landed: Vec<Landing>,
    readings: Readings,
    bad: BTreeMap<Path, Vec<u8>>,
    ingesting: Ingesting,
    /// Whether quality control is at work too: it is the dearest of the jobs, so it is in every fourth life.
    judges: bool,
    /// Two pipelines, which keep what they know.
    ingesters: [Option<Ingester>; 2],
    believer: Believer,
}

impl Life {
    /// Lives a life, and says what is wrong at its end.
    pub(crate) async fn live(seed: u64, sky: Sky, ingesting: Ingesting) -> Result<Tally, String> {
        let mut life = Self::new(seed, sky, ingesting);
        while Table::create_all(&life.lake).await.is_err() {}
        while ingesting == Ingesting::Real && life.register(40).await.is_err() {}
        life.plan();
        let steps = life.random.usize(18..30);
        for _ in 0..steps {
            life.step().await;
        }
        life.end().await?;
        Ok(life.sky.tally())
    }

    fn new(seed: u64, sky: Sky, ingesting: Ingesting) -> Self {
        // Later than any object's own time, so that patience and grace are lived through.
        let clock = Clock::manual(Clock::system().now_us() + HOUR_US);
        let lake = Lake::over(sky.store()).with_clock(clock.clone());
        let truth = Lake::over(sky.truth()).with_clock(clock.clone());
        Self {
            random: Rng::with_seed(seed),
            clock,
            sky,
            lake,
            truth,
            folder: tempfile::tempdir().expect("a folder"),
            to_land: Vec::new(),
            landed: Vec::new(),
            readings: Readings::new(),
            bad: BTreeMap::new(),
            ingesting,
            judges: seed.is_multiple_of(4),
            ingesters: [None, None],
            believer: Believer::default(),
        }
    }

    /// What is to land: batches in their order, some of them late, a gap, something that is no batch.
    fn plan(&mut self) {
        for (place, name) in SOURCES.into_iter().enumerate() {
            let source: SourceName = name.parse().expect("a source");
            let epoch = Epoch::from_bytes([u8::try_from(place).expect("small") + 1; 16]);
            let (batches, mut first) = (self.random.usize(2..6), 1);
            for batch in 0..batches {
                let last = first + self.random.i64(0..8);
                let bounds = Bounds::new(first, last).expect("in order");
                let landing = match self.random.u8(..10) {
                    0 if self.ingesting == Ingesting::Real => self.gap(&source, epoch, bounds),
                    1 if batch > 0 && self.ingesting == Ingesting::Real => self.rubbish(&source, epoch, bounds),
                    _ => self.batch(&source, epoch, bounds, place),
                };
                self.to_land.push(landing);
                first = last + 1;
            }
        }
        // Sources land at once, and now and then one object is overtaken by the next.
        for _ in 0..self.random.usize(..6) {
            let one = self.random.usize(..self.to_land.len());
            let other = self.random.usize(..self.to_land.len());
            self.to_land.swap(one, other);
        }
        self.to_land.reverse();
    }

    fn batch(&mut self, source: &SourceName, epoch: Epoch, bounds: Bounds, place: usize) -> Landing {
        let numbers = bounds.first..=bounds.last;
        let readings: Vec<Reading> = numbers.clone().map(|number| reading(place, number)).collect();
        for (number, reading) in numbers.zip(&readings) {
            let told = (reading.sensor.to_string(), reading.time_us, reading.value.map(f64::to_bits));
            self.readings.insert((source.to_string(), number), told);
        }
        let (bytes, _) = encode(source, epoch, bounds.first, &readings, None).expect("encoded");
        Landing { key: Landed::Batch(epoch, bounds).key(source), bytes: bytes.to_vec() }
    }

    fn gap(&mut self, source: &SourceName, epoch: Epoch, bounds: Bounds) -> Landing {
        Landing { key: Landed::Gap(epoch, bounds).key(source), bytes: b"{}".to_vec() }
    }

    fn rubbish(&mut self, source: &SourceName, epoch: Epoch, bounds: Bounds) -> Landing {
        let key = Landed::Batch(epoch, bounds).key(source);
        let bytes = format!("no batch at all: {bounds} of {source}").into_bytes();
        self.bad.insert(key.clone(), bytes.clone());
        Landing { key, bytes }
    }

    /// Something happens. What fails says so, and is tried again another time.
    async fn step(&mut self) {
        match self.random.u8(..20) {
            0..=3 => self.land().await,
            4..=6 => self.ingest(0).await,
            7..=8 => self.ingest(1).await,
            9 => self.ingesters[self.random.usize(..2)] = None,
            10 => drop(merged(&self.lake).await),
            11 => drop(rollup(&self.lake, &TimeZone::UTC).await),
            12 => drop(vacuum(&self.lake, DAY / 48, false).await),
            13 => self.all_at_once().await,
            14 => drop(judged(&self.lake, self.judges).await),
            15 => drop(checkpoint(&self.lake, false).await),
            16 if self.ingesting == Ingesting::Real => {
                let high = self.random.u8(2..6);
                drop(self.register(high).await);
            }
            17 => {
                let minutes = self.random.i64(1..300);
                self.pass(minutes * MINUTE_US);
            }
            _ => self.land_again().await,
        }
    }

    /// Says what the sensors are, and up to which value they are plausible: quality control has something to do then.
    async fn register(&self, high: u8) -> Result<(), RegisterError> {
        let section = RegisterSection::default();
        let files = RegisterFiles { required: true, ..section.files(self.folder.path(), &TimeZone::UTC) };
        let mut sensors = "id,site,quantity,unit,kind,class,low,high\n".to_owned();
        let mut sites = "site,name_nb\n".to_owned();
        for place in 0..SOURCES.len() {
            sites.push_str(&format!("site-{place},Sted {place}\n"));
            for (quantity, unit) in [("water_temperature", "Cel"), ("water_level", "m")] {
                sensors.push_str(&format!(
                    "site-{place}/{quantity},site-{place},{quantity},{unit},sample,public,-1,{high}\n"
                ));
            }
        }
        std::fs::write(&files.sites, sites).expect("written");
        std::fs::write(&files.sensors, sensors).expect("written");
        register(&self.lake, &files).await.map(drop)
    }

    /// Two pipelines and the maintenance of a third, between whose requests others' come.
    async fn all_at_once(&mut self) {
        if self.ingesting == Ingesting::BelievesErrors {
            return;
        }
        let run = async |ingester: &mut Option<Ingester>| match ingester {
            Some(ingester) => drop(ingester.run().await),
            None => *ingester = Ingester::open(&self.lake, SETTINGS).await.ok(),
        };
        let [one, other] = &mut self.ingesters;
        let utc = TimeZone::UTC;
        let judges = self.judges;
        let (compacting, rolling) = (Box::pin(merged(&self.lake)), Box::pin(rollup(&self.lake, &utc)));
        let flagging = Box::pin(judged(&self.lake, judges));
        let _ = tokio::join!(Box::pin(run(one)), Box::pin(run(other)), compacting, rolling, flagging);
    }

    fn pass(&self, time_us: i64) {
        self.clock.set_us(self.clock.now_us() + time_us);
    }

    /// The next object lands, as a gateway puts it: until it stands there as it is.
    async fn land(&mut self) {
        let Some(landing) = self.to_land.pop() else { return };
        self.upload(&landing).await;
        self.landed.push(landing);
    }

    /// A gateway that did not hear that its batch has landed sends it again, before and after its grace.
    async fn land_again(&mut self) {
        if self.landed.is_empty() {
            return;
        }
        let landing = self.landed[self.random.usize(..self.landed.len())].clone();
        // What is in quarantine would land there again: another test's story.
        if !self.bad.contains_key(&landing.key) {
            self.upload(&landing).await;
        }
    }

    async fn upload(&self, landing: &Landing) {
        let objects = self.lake.objects();
        for _ in 0..UPLOADS_MAX {
            let payload = PutPayload::from(landing.bytes.clone());
            match objects.put_opts(&landing.key, payload, PutMode::Create.into()).await {
                Ok(_) => return,
                Err(Error::AlreadyExists { .. }) => {
                    let there = async { objects.get(&landing.key).await?.bytes().await }.await;
                    if there.is_ok_and(|there| there == landing.bytes) {
                        return;
                    }
                }
                Err(_) => {}
            }
        }
        panic!("`{}` did not land in {UPLOADS_MAX} attempts", landing.key);
    }

    async fn ingest(&mut self, which: usize) {
        if self.ingesting == Ingesting::BelievesErrors {
            for landing in &self.landed {
                self.believer.take(&self.lake, &landing.key, &landing.bytes).await;
            }
            return;
        }
        let ingester = match &mut self.ingesters[which] {
            Some(ingester) => ingester,
            empty => match Ingester::open(&self.lake, SETTINGS).await {
                Ok(ingester) => empty.insert(ingester),
                Err(_) => return,
            },
        };
        if ingester.run().await.is_err() && self.random.bool() {
            self.ingesters[which] = None;
        }
    }

    /// The store is well again: everything is done to its end, and held against what landed.
    async fn end(&mut self) -> Result<(), String> {
        while !self.to_land.is_empty() {
            self.land().await;
        }
        self.sky.clear();
        let failed = |error: &dyn std::error::Error| format!("a job fails on a store that is well: {error}");
        // Patience for holes, and for the lease of somebody who was cut off.
        self.pass(2 * HOUR_US + i64::try_from(LEASE.as_micros()).expect("short"));
        for which in [0, 1] {
            self.ingest(which).await;
        }
        if self.ingesting == Ingesting::Real {
            let mut ingester = Ingester::open(&self.lake, SETTINGS).await.map_err(|error| failed(&error))?;
            ingester.run().await.map_err(|error| failed(&error))?;
        }
        oracle::holds_each_once(&self.truth, &self.readings).await?;
        merged(&self.lake).await.map_err(|error| failed(&error))?;
        judged(&self.lake, self.judges).await.map_err(|error| failed(&error))?;
        rollup(&self.lake, &TimeZone::UTC).await.map_err(|error| failed(&error))?;
        oracle::holds_each_once(&self.truth, &self.readings).await?;
        oracle::sums_up(&self.truth, &self.readings).await?;
        oracle::keeps_what_is_bad(&self.truth, &self.bad).await?;
        self.pass(3 * 24 * HOUR_US);
        vacuum(&self.lake, DAY, false).await.map_err(|error| failed(&error))?;
        oracle::holds_each_once(&self.truth, &self.readings).await?;
        oracle::left_nothing_behind(&self.truth).await
    }
}

/// Number `number` of a source: two sensors in turn, now and then without a value.
fn reading(place: usize, number: i64) -> Reading {
    let quantity = if number % 2 == 0 { "water_temperature" } else { "water_level" };
    let sensor = format!("site-{place}/{quantity}").parse().expect("a sensor");
    let time_us = FIRST_TIME_US + number * 17 * MINUTE_US;
    if number % 9 == 0 {
        return Reading::missing(sensor, time_us, Cause::Timeout);
    }
    Reading::of(sensor, time_us, (number * 7 % 40) as f64 / 8.0)
}

/// A compaction as the daemon makes it, without anybody who watches.
async fn merged(lake: &Lake) -> Result<CompactOutcome, CompactError> {
    compact(lake, &CompactSettings::default(), &CancellationToken::new(), &mut |_| ()).await
}

/// A run of quality control, where it is at work.
async fn judged(lake: &Lake, judges: bool) -> Result<(), ControlError> {
    if judges { control(lake).await.map(drop) } else { Ok(()) }
}
