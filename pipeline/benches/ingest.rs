//! What ingest costs: readings a second and core, and what one step takes as history grows.
//!
//!     cargo bench -p tjern-pipeline --bench ingest -- [--batches 10,1000,100000] [--versions 100,100000]
//!         [--sources 10,1000] [--epochs 0,10000,100000] [--readings 2000000] [--folder DIR]
//!
//! Each table shows the same step, one new batch (or one of each source) taken by an ingester that has been running,
//! with ever more behind it: requests by kind, which do not depend on the machine, and milliseconds, the median of
//! [`STEPS`] steps. The lake is in memory, in a store that lists as a cloud does (`tjern_testing::indexed`); with
//! `--folder` it is on that disk. Batches of history are put there by hand, as they would lie there; versions are
//! commits like any others, with their checkpoints.

use std::sync::Arc;
use std::time::Instant;

use object_store::ObjectStoreExt;
use tjern_lake::{Lake, Table, TableName};
use tjern_pipeline::ingest::{IngestSettings, Ingester, Polling, ingest};
use tjern_readings::batch::encode;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::{LakeUrl, RequestCounts, Store};
use tjern_testing::indexed::Indexed;

type Failure = Box<dyn std::error::Error>;

/// So many steps are measured.
const STEPS: usize = 11;
const EPOCH: Epoch = Epoch::from_bytes([7; 16]);
const SETTINGS: IngestSettings = IngestSettings {
    hole_patience: std::time::Duration::from_secs(3_600),
    landing_grace: std::time::Duration::from_secs(7 * 24 * 3_600),
};

struct Arguments {
    batches: Vec<i64>,
    versions: Vec<i64>,
    sources: Vec<i64>,
    epochs: Vec<i64>,
    readings: i64,
    folder: Option<std::path::PathBuf>,
}

impl Arguments {
    fn read() -> Result<Self, Failure> {
        let mut arguments = Self {
            batches: vec![10, 1_000, 100_000],
            versions: vec![100, 100_000],
            sources: vec![10, 1_000],
            epochs: vec![0, 10_000, 100_000],
            readings: 2_000_000,
            folder: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            let numbers = |text: String| -> Result<Vec<i64>, Failure> {
                text.split(',').filter(|part| !part.is_empty()).map(|part| Ok(part.parse()?)).collect()
            };
            match word.as_str() {
                "--batches" => arguments.batches = numbers(value()?)?,
                "--versions" => arguments.versions = numbers(value()?)?,
                "--sources" => arguments.sources = numbers(value()?)?,
                "--epochs" => arguments.epochs = numbers(value()?)?,
                "--readings" => arguments.readings = value()?.parse()?,
                "--folder" => arguments.folder = Some(std::path::absolute(value()?)?),
                // What cargo says to every benchmark.
                "--bench" => {}
                other => return Err(format!("{other} is not known; hint: the head of this file says what is").into()),
            }
        }
        Ok(arguments)
    }

    /// A new lake, and what removes it again.
    fn lake(&self) -> Result<(Lake, Option<tempfile::TempDir>), Failure> {
        let Some(folder) = &self.folder else {
            return Ok((Lake::over(Store::over(Arc::new(Indexed::default()), "memory:///".parse()?)), None));
        };
        let folder = tempfile::tempdir_in(folder)?;
        Ok((Lake::open(&LakeUrl::folder(folder.path())?)?, Some(folder)))
    }
}

fn name(source: i64) -> SourceName {
    format!("gateway-{source:04}").parse().expect("valid")
}

fn readings(first: i64, last: i64) -> Vec<Reading> {
    let of = |number: i64| {
        let sensor = format!("tarn-{:02}/water_temperature", number % 40).parse().expect("valid");
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let value = 4.0 + (number % 977) as f64 / 100.0;
        Reading::of(sensor, number / 40 * 10_000_000 + 1_700_000_000_000_000, value)
    };
    (first..=last).map(of).collect()
}

async fn land(lake: &Lake, source: i64, first: i64, last: i64) -> Result<(), Failure> {
    let (bytes, batch) = encode(&name(source), EPOCH, first, &readings(first, last), None)?;
    let key = Landed::Batch(EPOCH, batch.header.bounds).key(&name(source));
    lake.objects().put(&key, bytes.into()).await?;
    Ok(())
}

/// Puts batches there that were taken long ago: nobody opens them again.
async fn history(lake: &Lake, source: i64, batches: i64) -> Result<(), Failure> {
    for number in 1..=batches {
        let bounds = Bounds::new(number, number).ok_or("numbers from 1 on")?;
        lake.objects().put(&Landed::Batch(EPOCH, bounds).key(&name(source)), vec![0_u8].into()).await?;
    }
    Ok(())
}

/// An ingester that is at work, on a table that says that so much was taken of each source.
async fn ingester(lake: &Lake, sources: i64, taken: i64) -> Result<Ingester, Failure> {
    let mut table = Table::open_or_create(lake, TableName::Readings).await?;
    let transactions = (0..sources).map(|source| (format!("{}/{EPOCH}", name(source)), taken)).collect();
    let commit = tjern_lake::Commit {
        operation: tjern_lake::Operation::Ingest,
        add: Vec::new(),
        remove: Vec::new(),
        transactions,
        notes: std::collections::BTreeMap::new(),
    };
    table.commit(commit).await?;
    // Everything is due at each look.
    let mut ingester = Ingester::open(lake, SETTINGS).await?.with_polling(Polling { every_us: 0, idle_us: 0 });
    ingester.run().await?;
    Ok(ingester)
}

/// One line: the step's requests and its median time.
async fn steps(lake: &Lake, ingester: &mut Ingester, sources: i64, taken: i64, title: &str) -> Result<(), Failure> {
    let mut times_ms = Vec::new();
    let mut spent = RequestCounts::default();
    for step in 0..STEPS {
        let number = taken + i64::try_from(step)? + 1;
        for source in 0..sources {
            land(lake, source, number, number).await?;
        }
        let (before, began) = (lake.store().requests(), Instant::now());
        let outcome = ingester.run().await?;
        times_ms.push(began.elapsed().as_secs_f64() * 1_000.0);
        spent = lake.store().requests().since(&before);
        if i64::try_from(outcome.batches)? != sources {
            return Err(format!("{title}: {} batches were taken instead of {sources}", outcome.batches).into());
        }
    }
    times_ms.sort_by(f64::total_cmp);
    println!("| {title} | {} | {} | {} | {:.1} |", spent.lists, spent.gets, spent.puts, times_ms[STEPS / 2]);
    Ok(())
}

fn heading(what: &str) {
    println!("\n| {what} | lists | gets | puts | ms a step |\n|---|---|---|---|---|");
}

async fn landed_batches(arguments: &Arguments) -> Result<(), Failure> {
    heading("batches that landing keeps, of one source");
    for batches in &arguments.batches {
        let (lake, _folder) = arguments.lake()?;
        history(&lake, 0, *batches).await?;
        let mut ingester = ingester(&lake, 1, *batches).await?;
        steps(&lake, &mut ingester, 1, *batches, &batches.to_string()).await?;
    }
    Ok(())
}

async fn many_sources(arguments: &Arguments) -> Result<(), Failure> {
    heading("sources with 20 batches each; one new batch of each");
    for sources in &arguments.sources {
        let (lake, _folder) = arguments.lake()?;
        for source in 0..*sources {
            history(&lake, source, 20).await?;
        }
        let mut ingester = ingester(&lake, *sources, 20).await?;
        steps(&lake, &mut ingester, *sources, 20, &sources.to_string()).await?;
    }
    Ok(())
}

async fn versions(arguments: &Arguments) -> Result<(), Failure> {
    heading("versions of the table");
    for versions in &arguments.versions {
        let (lake, _folder) = arguments.lake()?;
        let mut table = Table::open_or_create(&lake, TableName::Readings).await?;
        let began = Instant::now();
        for version in table.version() + 1..*versions {
            let commit = tjern_lake::Commit {
                operation: tjern_lake::Operation::Ingest,
                add: Vec::new(),
                remove: Vec::new(),
                transactions: vec![("history".to_owned(), version)],
                notes: std::collections::BTreeMap::new(),
            };
            table.commit(commit).await?;
        }
        eprintln!("{versions} versions were committed in {:.0} s", began.elapsed().as_secs_f64());
        // As far as the next checkpoint: a lake has one every fifty commits.
        let mut ingester = ingester(&lake, 1, 0).await?;
        let mut number = 0;
        for _ in 0..51 {
            number += 1;
            land(&lake, 0, number, number).await?;
            ingester.run().await?;
        }
        steps(&lake, &mut ingester, 1, number, &versions.to_string()).await?;
        let fresh = Lake::over(Store::over(lake.objects(), lake.store().url().clone()));
        let began = Instant::now();
        Table::open(&fresh, TableName::Readings).await?;
        let spent = fresh.store().requests();
        let took_ms = began.elapsed().as_secs_f64() * 1_000.0;
        println!(
            "| {versions}, opened by a new process | {} | {} | {} | {took_ms:.1} |",
            spent.lists, spent.gets, spent.puts
        );
    }
    Ok(())
}

/// Epochs that their gateways have finished: each has left its words in the table, which keeps them for ever.
async fn finished_epochs(arguments: &Arguments) -> Result<(), Failure> {
    /// A commit of ingest moves no more than this.
    const OF_A_COMMIT: i64 = 1_000;
    heading("epochs that are finished");
    for epochs in &arguments.epochs {
        let (lake, _folder) = arguments.lake()?;
        let mut table = Table::open_or_create(&lake, TableName::Readings).await?;
        for first in (0..*epochs).step_by(usize::try_from(OF_A_COMMIT)?) {
            let words = |number: i64| {
                let stream = format!("{}/{}", name(number % 100), Epoch::from_bytes(i128::from(number).to_be_bytes()));
                let configuration = format!(":configuration/{stream}/{:020}/none", 1);
                [(stream.clone(), 100), (format!(":closed/{stream}"), 100), (configuration, 1)]
            };
            let commit = tjern_lake::Commit {
                operation: tjern_lake::Operation::Ingest,
                add: Vec::new(),
                remove: Vec::new(),
                transactions: (first..(first + OF_A_COMMIT).min(*epochs)).flat_map(words).collect(),
                notes: std::collections::BTreeMap::new(),
            };
            table.commit(commit).await?;
        }
        let mut ingester = ingester(&lake, 1, 0).await?;
        let read = ingester.transactions_read();
        steps(&lake, &mut ingester, 1, 0, &epochs.to_string()).await?;
        println!("| {epochs}: words of them read for these steps | | | {} | |", ingester.transactions_read() - read);
    }
    Ok(())
}

/// A handle that lives for a thousand commits is no slower at the end: it is opened again every fifty.
async fn long_life(arguments: &Arguments) -> Result<(), Failure> {
    let (lake, _folder) = arguments.lake()?;
    let mut ingester = ingester(&lake, 1, 0).await?;
    println!("\n| commits by one ingester | ms a commit |\n|---|---|");
    let mut number = 0;
    for hundred in 1..=10 {
        let began = Instant::now();
        for _ in 0..100 {
            number += 1;
            land(&lake, 0, number, number).await?;
            ingester.run().await?;
        }
        println!("| to {} | {:.1} |", hundred * 100, began.elapsed().as_secs_f64() * 10.0);
    }
    Ok(())
}

/// The processor time of this process, all its threads, in seconds.
fn processor_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    // The unit of `/proc` is a hundredth of a second on every Linux (proc_pid_stat(5), USER_HZ).
    Some(f64::from(ticks) / 100.0)
}

async fn throughput(arguments: &Arguments) -> Result<(), Failure> {
    const BATCH: i64 = 10_000;
    let (lake, _folder) = arguments.lake()?;
    let count = arguments.readings / BATCH;
    for batch in 0..count {
        land(&lake, batch % 20, batch / 20 * BATCH + 1, (batch / 20 + 1) * BATCH).await?;
    }
    let (began, before_s) = (Instant::now(), processor_s());
    let outcome = ingest(&lake, &SETTINGS).await?;
    let wall_s = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rows = outcome.rows as f64;
    println!("\n{} readings in batches of {BATCH} from 20 sources: {:.0} a second", outcome.rows, rows / wall_s);
    if let Some(spent_s) = processor_s().zip(before_s).map(|(after_s, before_s)| after_s - before_s) {
        println!("{spent_s:.2} s of processor time: {:.0} readings a second and core", rows / spent_s);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read()?;
    landed_batches(&arguments).await?;
    many_sources(&arguments).await?;
    finished_epochs(&arguments).await?;
    versions(&arguments).await?;
    long_life(&arguments).await?;
    throughput(&arguments).await
}
