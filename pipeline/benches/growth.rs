//! What a step of each job costs as history grows: requests and milliseconds of ingest, quality control, rollup, compaction,
//! and of asking for the newest of each sensor.
//!
//!     cargo bench -p tjern -p tjern-pipeline --bench growth -- [--days 10,100,1000] [--sensors 40] [--steps 12] [--folder DIR]
//!
//! A lake has so many days of readings, every ten minutes, which all jobs have seen: compacted, flagged, summed up. Then ten
//! minutes pass again and again: each source sends a batch, and each job runs once. What is printed a step is the mean of the
//! requests, which do not depend on the machine, and the median of the times. Compaction has nothing to do in most steps: its
//! line is of those in which it has. The lake is in memory; with `--folder` it is on that disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use object_store::ObjectStoreExt;
use tjern_lake::{Access, Commit, FileWriter, Lake, Operation, SessionSettings, Table, TableName, schema, session};
use tjern_pipeline::compact::{CompactSettings, compact};
use tjern_pipeline::ingest::{IngestSettings, Ingester, Polling};
use tjern_pipeline::quality::control;
use tjern_pipeline::register::{OptionalFile, RegisterFiles, register};
use tjern_pipeline::rollup::rollup;
use tjern_readings::batch::encode;
use tjern_readings::clock::Clock;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::{LakeUrl, RequestCounts};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

const EPOCH: Epoch = Epoch::from_bytes([9; 16]);
/// 2026-07-01T06:00:00Z: history ends here.
const NOW_US: i64 = 1_782_885_600_000_000;
const EVERY_US: i64 = 600_000_000;
const DAY_US: i64 = 86_400_000_000;
/// The sensors of one source.
const OF_SOURCE: i64 = 5;
const SETTINGS: IngestSettings =
    IngestSettings { hole_patience: Duration::from_secs(3_600), landing_grace: Duration::from_secs(7 * 24 * 3_600) };

struct Arguments {
    days: Vec<i64>,
    sensors: i64,
    steps: i64,
    folder: Option<PathBuf>,
}

impl Arguments {
    fn read() -> Result<Self, Failure> {
        let mut arguments = Self { days: vec![10, 100, 1_000], sensors: 40, steps: 12, folder: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--days" => arguments.days = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--sensors" => arguments.sensors = value()?.parse()?,
                "--steps" => arguments.steps = value()?.parse()?,
                "--folder" => arguments.folder = Some(std::path::absolute(value()?)?),
                // What cargo says to every benchmark.
                "--bench" => {}
                other => return Err(format!("{other} is not known; hint: the head of this file says what is").into()),
            }
        }
        Ok(arguments)
    }
}

fn source(number: i64) -> SourceName {
    format!("gateway-{number:04}").parse().expect("valid")
}

fn sensor(number: i64) -> String {
    format!("tarn-{:03}/position-{}/water_temperature", number / OF_SOURCE, number % OF_SOURCE)
}

/// What a sensor shows at a slot: a year's and a day's wave, and hundredths of noise.
fn value(number: i64, slot: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let (place, day) = (number as f64, slot as f64 / 144.0);
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let noise = ((slot * 7_919 + number * 104_729).rem_euclid(11)) as f64;
    let degrees = 10.0 + place / 100.0 + 6.0 * (day / 58.1).sin() + 0.5 * (day * std::f64::consts::TAU).sin();
    (degrees * 100.0 + noise).round() / 100.0
}

/// A lake that has been at work for so many days.
struct Place {
    lake: Lake,
    clock: Clock,
    folder: tempfile::TempDir,
    sensors: i64,
    compact: CompactSettings,
}

impl Place {
    async fn new(arguments: &Arguments, days: i64) -> Result<Self, Failure> {
        let folder = match &arguments.folder {
            Some(folder) => tempfile::tempdir_in(folder)?,
            None => tempfile::tempdir()?,
        };
        let url: LakeUrl = match &arguments.folder {
            Some(_) => LakeUrl::folder(folder.path())?,
            None => "memory:///".parse()?,
        };
        let clock = Clock::manual(NOW_US);
        let lake = Lake::open(&url)?.with_clock(clock.clone());
        let compact = CompactSettings { spill_folder: folder.path().to_owned(), ..CompactSettings::default() };
        let place = Self { lake, clock, folder, sensors: arguments.sensors, compact };
        Table::create_all(&place.lake).await?;
        register(&place.lake, &place.files()?).await?;
        place.history(days).await?;
        control(&place.lake).await?;
        place.compact().await?;
        rollup(&place.lake, &TimeZone::UTC).await?;
        Ok(place)
    }

    fn files(&self) -> Result<RegisterFiles, Failure> {
        let path = |name: &str| self.folder.path().join(name);
        let mut sites = "site,name_nb\n".to_owned();
        let mut sensors = "id,site,quantity,unit,kind,class,interval,low,high\n".to_owned();
        for number in 0..self.sensors {
            if number % OF_SOURCE == 0 {
                sites += &format!("tarn-{:03},Tjern {number}\n", number / OF_SOURCE);
            }
            let site = number / OF_SOURCE;
            sensors += &format!("{},tarn-{site:03},water_temperature,Cel,sample,public,10min,-1,35\n", sensor(number));
        }
        std::fs::write(path("sites.csv"), sites)?;
        std::fs::write(path("sensors.csv"), sensors)?;
        let optional = |name: &str| OptionalFile { path: path(name), required: false };
        Ok(RegisterFiles {
            sites: path("sites.csv"),
            sensors: path("sensors.csv"),
            required: true,
            installations: optional("installations.csv"),
            events: optional("events.csv"),
            rules: optional("quality.csv"),
            timezone: TimeZone::UTC,
            may_end_all: false,
        })
    }

    /// Commits the readings of so many days, a file a day.
    async fn history(&self, days: i64) -> Result<(), Failure> {
        let mut add = Vec::new();
        for day in 0..days {
            let from = (NOW_US - (days - day) * DAY_US) / EVERY_US;
            let mut writer = FileWriter::new(TableName::Readings)?;
            for number in 0..self.sensors {
                writer.write(&rows(number, from, from + DAY_US / EVERY_US)?)?;
            }
            add.push(writer.finish(&self.lake).await?);
        }
        let mut table = Table::open_or_create(&self.lake, TableName::Readings).await?;
        let transactions = (0..self.sensors / OF_SOURCE).map(|number| (format!("{}/{EPOCH}", source(number)), 0));
        let transactions = transactions.collect();
        let commit = Commit { operation: Operation::Ingest, add, remove: vec![], transactions, notes: BTreeMap::new() };
        table.commit(commit).await?;
        Ok(())
    }

    /// Ten minutes pass: each source sends a batch.
    async fn pass(&self, step: i64) -> Result<(), Failure> {
        self.clock.set_us(NOW_US + (step + 1) * EVERY_US);
        let slot = NOW_US / EVERY_US + step;
        for number in 0..self.sensors / OF_SOURCE {
            let reading = |place: i64| -> Result<Reading, Failure> {
                let number = number * OF_SOURCE + place;
                Ok(Reading::of(sensor(number).parse()?, slot * EVERY_US, value(number, slot)))
            };
            let readings = (0..OF_SOURCE).map(reading).collect::<Result<Vec<_>, _>>()?;
            let (first, last) = (step * OF_SOURCE + 1, (step + 1) * OF_SOURCE);
            let (bytes, _) = encode(&source(number), EPOCH, first, &readings, None)?;
            let bounds = Bounds::new(first, last).ok_or("numbers from 1 on")?;
            self.lake.objects().put(&Landed::Batch(EPOCH, bounds).key(&source(number)), bytes.into()).await?;
        }
        Ok(())
    }

    async fn compact(&self) -> Result<bool, Failure> {
        let outcome = compact(&self.lake, &self.compact, &CancellationToken::new(), &mut |_| ()).await?;
        Ok(outcome.removed > 0)
    }

    /// As the server asks each time that a page is too old.
    async fn latest(&self) -> Result<usize, Failure> {
        let settings = SessionSettings { access: Access::Public, timezone: TimeZone::UTC, memory_bytes: 512 << 20 };
        let session = session(&self.lake, &settings).await?;
        let batches =
            session.sql("SELECT sensor, time, value FROM latest WHERE time IS NOT NULL").await?.collect().await?;
        Ok(batches.iter().map(|batch| batch.num_rows()).sum())
    }
}

/// The rows of one sensor from one slot to another, as ingest stores them.
fn rows(number: i64, from: i64, to: i64) -> Result<arrow::array::RecordBatch, Failure> {
    use arrow::array::{
        ArrayRef, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use std::sync::Arc;
    let count = usize::try_from(to - from)?;
    let text = |text: String| -> ArrayRef { Arc::new(StringArray::from(vec![text; count])) };
    let times = |after_us: i64| -> ArrayRef {
        let times = (from..to).map(|slot| slot * EVERY_US + after_us);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        text(sensor(number)),
        times(0),
        Arc::new(Float64Array::from_iter_values((from..to).map(|slot| value(number, slot)))),
        Arc::new(Int8Array::from(vec![2; count])),
        Arc::new(StringArray::new_null(count)),
        Arc::new(Int32Array::new_null(count)),
        text(source(number / OF_SOURCE).to_string()),
        text("0123456789abcdef0123456789abcdef".to_owned()),
        Arc::new(Int64Array::from_iter_values((from..to).map(|slot| slot * OF_SOURCE + number % OF_SOURCE))),
        Arc::new(Int16Array::from(vec![0; count])),
        Arc::new(Int8Array::from(vec![0; count])),
        Arc::new(Int32Array::new_null(count)),
        times(5_000_000),
    ];
    Ok(arrow::array::RecordBatch::try_new(schema::arrow(TableName::Readings), columns)?)
}

/// What the steps of one job took.
#[derive(Default)]
struct Taken {
    times_ms: Vec<f64>,
    lists: u64,
    gets: u64,
    puts: u64,
}

impl Taken {
    async fn take<T>(
        &mut self,
        lake: &Lake,
        work: impl Future<Output = Result<T, Failure>>,
        counts: impl Fn(&T) -> bool,
    ) -> Result<T, Failure> {
        let (before, began) = (lake.store().requests(), Instant::now());
        let done = work.await?;
        let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
        if counts(&done) {
            let spent: RequestCounts = lake.store().requests().since(&before);
            self.times_ms.push(took_ms);
            self.lists += spent.lists;
            self.gets += spent.gets;
            self.puts += spent.puts;
        }
        Ok(done)
    }

    fn print(mut self, days: i64, rows: i64, job: &str) {
        self.times_ms.sort_by(f64::total_cmp);
        let steps = u64::try_from(self.times_ms.len().max(1)).unwrap_or(1);
        let median = self.times_ms.get(self.times_ms.len() / 2).copied().unwrap_or(f64::NAN);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let mean = |count: u64| count as f64 / steps as f64;
        println!(
            "| {job} | {days} | {rows} | {:.1} | {:.1} | {:.1} | {median:.1} |",
            mean(self.lists),
            mean(self.gets),
            mean(self.puts)
        );
    }
}

async fn grown(arguments: &Arguments, days: i64) -> Result<(), Failure> {
    let place = Place::new(arguments, days).await?;
    let lake = &place.lake;
    let mut ingester = Ingester::open(lake, SETTINGS).await?.with_polling(Polling { every_us: 0, idle_us: 0 });
    let mut taken: [Taken; 5] = Default::default();
    // The first two are not counted: what was never asked before is read from the store once.
    for step in 0..arguments.steps + 2 {
        place.pass(step).await?;
        let counts = step >= 2;
        let [ingest, quality, sums, merges, newest] = &mut taken;
        let batches = ingest.take(lake, async { Ok(ingester.run().await?.batches) }, |_| counts).await?;
        if i64::try_from(batches)? != place.sensors / OF_SOURCE {
            return Err(format!("{batches} batches were taken").into());
        }
        quality.take(lake, async { Ok(control(lake).await?) }, |_| counts).await?;
        sums.take(lake, async { Ok(rollup(lake, &TimeZone::UTC).await?) }, |_| counts).await?;
        Box::pin(merges.take(lake, place.compact(), |merged| counts && *merged)).await?;
        let shown = newest.take(lake, place.latest(), |_| counts).await?;
        if i64::try_from(shown)? != place.sensors {
            return Err(format!("{shown} of {} sensors are shown", place.sensors).into());
        }
    }
    let rows = place.sensors * days * DAY_US / EVERY_US;
    for (taken, job) in taken.into_iter().zip(["ingest", "quality", "rollup", "compact", "latest"]) {
        taken.print(days, rows, job);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read()?;
    let place = |folder: &Option<PathBuf>| {
        folder.as_deref().map_or("memory".into(), |folder: &Path| folder.display().to_string())
    };
    println!(
        "{} sensors every ten minutes, {} steps; the lake is in {}",
        arguments.sensors,
        arguments.steps,
        place(&arguments.folder)
    );
    println!("\n| job | days of history | readings | lists | gets | puts | ms a step |\n|---|---|---|---|---|---|---|");
    for days in &arguments.days {
        Box::pin(grown(&arguments, *days)).await?;
    }
    Ok(())
}
