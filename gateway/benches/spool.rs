//! What the spool writes and how fast it starts: figures for `docs/measurements.md`.
//!
//! `cargo bench -p tjern-gateway --bench spool`, in a folder of the file system that is to be measured: with
//! `TJERN_BENCH_DIR`, or the system's one for temporary files. Bytes and blocks are counted where the spool hands them to the
//! system; the file system's own book-keeping (names, times, its journal) comes on top. How long a start takes is told by the
//! clock and as time on a processor (`/proc/thread-self/schedstat`): others at work, and a slow disk, are in the first only.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tjern_gateway::spool::{Spool, SpoolSettings, Written};
use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::SensorId;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const DAY_S: f64 = 86_400.0;
const BLOCK: f64 = 4_096.0;

/// How much log is read for the time that a start takes.
const LOG_BYTES: u64 = 100_000_000;

/// Fewer than the spool holds unsealed while sealing fails.
const UNSEALED: i64 = 190_000;

fn main() -> Result<()> {
    let root = std::env::var_os("TJERN_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let place = tempfile::tempdir_in(root)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        fast(&place.path().join("fast")).await?;
        slow(&place.path().join("slow")).await?;
        recovery(place.path()).await
    })
}

fn open(dir: &Path) -> Result<Spool> {
    let settings = SpoolSettings {
        dir: dir.to_owned(),
        max_bytes: 1 << 32,
        // The groups are closed by hand, so that an hour takes no hour.
        sync_every: Duration::from_secs(1_000_000),
        source: "landfall-01".parse()?,
        configuration: None,
    };
    Ok(Spool::open(settings, Clock::manual(0))?)
}

fn sensors(count: usize) -> Result<Vec<SensorId>> {
    let name = |number: usize| format!("landfalltjern/depth-{}m/sensor-{:03}", number % 50, number).parse();
    Ok((0..count).map(name).collect::<std::result::Result<_, _>>()?)
}

/// Values of two decimals that wander, as those of a real sensor do.
struct Wander {
    random: fastrand::Rng,
    values: Vec<i64>,
}

impl Wander {
    fn new(sensors: usize) -> Self {
        Self { random: fastrand::Rng::with_seed(7), values: vec![1_500; sensors] }
    }

    fn next(&mut self, sensor: usize) -> f64 {
        self.values[sensor] += self.random.i64(-3..=3);
        self.values[sensor] as f64 / 100.0
    }
}

async fn seal_and_send(spool: &Spool) {
    spool.seal().await;
    for object in spool.sealed().await {
        spool.remove(&object).await;
    }
}

fn tell(what: &str, before: Written, after: Written, readings: f64, days: f64) {
    let (bytes, blocks, syncs) = (
        (after.bytes - before.bytes) as f64,
        (after.blocks - before.blocks) as f64,
        (after.syncs - before.syncs) as f64,
    );
    println!(
        "{what}: {:.1} bytes a reading handed over, {:.1} in whole blocks; {:.2} blocks a sync; a day: {:.1} MB in {:.0} syncs",
        bytes / readings,
        blocks * BLOCK / readings,
        blocks / syncs,
        blocks * BLOCK / days / 1e6,
        syncs / days
    );
}

/// 500 points a second from 50 devices, a sync every 5 s, a batch a minute, for 20 minutes, after one of the same
/// in which the sensors become known.
async fn fast(dir: &Path) -> Result<()> {
    let (sensors, mut values) = (sensors(500)?, Wander::new(500));
    let spool = open(dir)?;
    let mut before = Written::default();
    for second in 0..40 * 60_i64 {
        if second == 20 * 60 {
            before = spool.status().written;
        }
        for device in 0..50 {
            let readings = (device * 10..device * 10 + 10)
                .map(|sensor| Reading::of(sensors[sensor].clone(), second * 1_000_000, values.next(sensor)));
            spool.append(readings.collect::<Vec<_>>()).await;
        }
        if second % 5 == 4 {
            spool.sync().await;
        }
        if second % 60 == 59 {
            seal_and_send(&spool).await;
        }
    }
    tell("500 points a second", before, spool.status().written, 500.0 * 20.0 * 60.0, 20.0 * 60.0 / DAY_S);
    spool.close().await;
    Ok(())
}

/// Six hourly sensors on two devices: each answer is synced at once, each hour's six go out together.
async fn slow(dir: &Path) -> Result<()> {
    let (sensors, mut values) = (sensors(6)?, Wander::new(6));
    let spool = open(dir)?;
    let mut before = Written::default();
    for hour in 0..120_i64 {
        if hour == 24 {
            before = spool.status().written;
        }
        for device in 0..2 {
            let readings = (device * 3..device * 3 + 3)
                .map(|sensor| Reading::of(sensors[sensor].clone(), hour * 3_600_000_000, values.next(sensor)));
            spool.append(readings.collect::<Vec<_>>()).await;
            spool.sync().await;
        }
        seal_and_send(&spool).await;
    }
    tell("six hourly sensors", before, spool.status().written, 6.0 * 96.0, 4.0);
    spool.close().await;
    Ok(())
}

/// A log is this long only where sealing fails for long; copies of one make up the 100 MB.
async fn recovery(root: &Path) -> Result<()> {
    let (sensors, mut values) = (sensors(500)?, Wander::new(500));
    let source = root.join("log");
    let spool = open(&source)?;
    // A file where the folder of sealed files belongs: nothing can be sealed.
    std::fs::create_dir_all(source.join("sealed"))?;
    std::fs::write(source.join("sealed").join(spool.epoch().to_string()), "")?;
    for number in 0..UNSEALED / 10 {
        let readings = (0..10).map(|point| {
            let sensor = usize::try_from(number * 10 + point).unwrap_or(0) % 500;
            Reading::of(sensors[sensor].clone(), number * 1_000_000, values.next(sensor))
        });
        spool.append(readings.collect::<Vec<_>>()).await;
    }
    spool.sync().await;
    spool.close().await;
    let nothing = root.join("nothing");
    open(&nothing)?.close().await;
    let (mut bytes, mut readings) = (0, 0);
    let (mut full, mut empty) = (Starts::default(), Starts::default());
    while bytes < LOG_BYTES {
        let copy = root.join(format!("copy-{}", full.count));
        bytes += copy_log(&source, &copy)?;
        let spool = full.measure(&copy)?;
        readings += spool.status().unsealed_readings;
        spool.close().await;
        std::fs::remove_dir_all(&copy)?;
        // What a start takes that has nothing to read: the lock, the next segment, and their syncs.
        copy_log(&nothing, &copy)?;
        empty.measure(&copy)?.close().await;
        std::fs::remove_dir_all(&copy)?;
    }
    let per_100_mb = |time: Duration| time.as_secs_f64() * LOG_BYTES as f64 / bytes as f64;
    println!(
        "recovery: {:.2} s per 100 MB of log, {:.2} s more than as many starts with nothing to read; {:.2} s on a processor ({} starts, {readings} readings)",
        per_100_mb(full.took),
        per_100_mb(full.took.saturating_sub(empty.took)),
        per_100_mb(full.worked),
        full.count,
    );
    Ok(())
}

/// Starts of spools, and how long they took.
#[derive(Default)]
struct Starts {
    count: u32,
    took: Duration,
    worked: Duration,
}

impl Starts {
    fn measure(&mut self, dir: &Path) -> Result<Spool> {
        let (began, before) = (Instant::now(), on_processor());
        let spool = open(dir)?;
        self.took += began.elapsed();
        self.worked += on_processor().saturating_sub(before);
        self.count += 1;
        Ok(spool)
    }
}

/// How long this thread was at work, in user and system mode (proc(5)); nothing where the kernel does not say.
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0))
}

/// Copies a log, and says how many bytes it has.
fn copy_log(from: &Path, to: &Path) -> Result<u64> {
    std::fs::create_dir_all(to)?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|kind| kind == "segment") {
            bytes += std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(bytes)
}
