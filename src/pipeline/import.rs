//! `tjern pipeline import`: history, and what people read off, from CSV and Parquet.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use tjern_gateway::cli::progress::{Progress, duration};
use tjern_lake::{Lake, Table, TableName};
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::import::{
    BadLine, CheckedMap, ColumnMap, Decimal, Encoding, ImportError, ImportMap, ImportOutcome, ImportProgress, Listener,
    MapError, check, import,
};
use tjern_pipeline::ingest::{IngestError, IngestOutcome, ingest_within, is_taken};
use tjern_pipeline::jobs::JobError;
use tjern_pipeline::jobs::list::register_before_ingest;
use tjern_pipeline::register::load;
use tjern_readings::configuration::ConfigText;

use super::change::{self, LakeArguments, quoted, utc};
use super::job::Workplace;
use crate::failure::Failure;
use tjern_gateway::say;

/// Between two lines that say how far it is, where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What `import` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern pipeline import history.parquet --source import:history --config tjern.toml\n  \
    tjern pipeline import 2025.csv.gz --source import:old-logger --time Tidspunkt --time-format '%d.%m.%Y %H:%M' --separator ';' \\\n      \
    --decimal-comma --column 'Vanntemp=landfalltjern/water_temperature Cel' --config tjern.toml\n  \
    tjern pipeline import *.csv --map old-logger.toml --config tjern.toml\n  \
    tjern pipeline import july.csv --source manual:lifeguard --dry-run --config tjern.toml\n\n\
    Without --column each line names its sensor: columns `time`, `sensor`, `value`. The same file under the same map is\n\
    imported once, however often this is run; an import that was broken off goes on. Lines that cannot be read are\n\
    written to stdout as CSV (file, line, reason), and the others are taken. docs/configuration.md has the map.\n\n\
    Exit status: 0 all lines were taken (stderr tells where another source is held back), 1 failed or some lines were\n\
    not, 2 wrong usage, configuration or map."
)]
pub(crate) struct ImportArguments {
    /// The files: CSV (also packed with gzip) or Parquet
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How the files are to be read, a TOML file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "time", "column", "timezone", "time_format", "separator", "decimal_comma", "encoding", "skip_lines", "no_value"])]
    map: Option<PathBuf>,
    /// Whose readings these are: `import:…`, or `manual:…` for what somebody read off
    #[arg(long, value_name = "NAME", required_unless_present = "map")]
    source: Option<String>,
    /// The column of times
    #[arg(long, value_name = "COLUMN", default_value = "time")]
    time: String,
    /// A column, whose it is, and its unit: 'COLUMN=SENSOR UNIT'; may be given several times
    #[arg(long, value_name = "COLUMN=SENSOR")]
    column: Vec<String>,
    /// The clock of times without an offset: a name, or an offset like +01:00 [default: the city's]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// How times are written: `iso`, `unix`, `unix_ms`, or fields like '%d.%m.%Y %H:%M'
    #[arg(long, value_name = "FORMAT", default_value = "iso")]
    time_format: String,
    /// What stands between columns
    #[arg(long, value_name = "CHARACTER", default_value = ",")]
    separator: String,
    /// Decimals stand after a comma
    #[arg(long)]
    decimal_comma: bool,
    /// How letters are written: `utf-8` or `iso-8859-1`
    #[arg(long, value_name = "NAME", default_value = "utf-8", value_parser = ["utf-8", "iso-8859-1"])]
    encoding: String,
    /// How many lines stand before the one that names the columns
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    skip_lines: u64,
    /// A word that stands for no value; may be given several times
    #[arg(long, value_name = "WORD")]
    no_value: Vec<String>,
    /// Only read the files and say what would be imported
    #[arg(long)]
    dry_run: bool,
    /// Leave it to the server to take the readings from the landing zone
    #[arg(long)]
    land_only: bool,
    #[command(flatten)]
    lake: LakeArguments,
}

/// Imports files, one after the other.
pub(crate) async fn execute(arguments: &ImportArguments) -> Result<(), Failure> {
    let mut map = arguments.map()?;
    let Workplace { city, lake, stop } = change::open_or_look(&arguments.lake, arguments.dry_run).await?;
    if map.time_zone.is_none() {
        let name = city.timezone.iana_name().map(str::to_owned);
        map.time_zone = Some(name.unwrap_or_else(|| crate::config::TIMEZONE.to_owned()));
    }
    let map = map.check(crate::config::TIMEZONE).map_err(Failure::wrong)?;
    if !arguments.dry_run && !arguments.land_only {
        // What the register forbids comes into no table, by an import as little as by `ingest`.
        register_before_ingest(&lake, &city.jobs.register).await.map_err(refused_by_register)?;
    }
    warn_of_what_fails(&lake, &map).await?;
    let working = Box::pin(import_all(arguments, &map, &lake));
    let Some(done) = stop.run_until_cancelled(working).await else {
        return Err(Failure::failed("interrupted; hint: run it again, and it goes on where it was"));
    };
    let outcomes = done?;
    if !arguments.dry_run && !arguments.land_only {
        let bounds = Bounds::from(&city.jobs.compact);
        let taking = Box::pin(ingest_within(&lake, &city.jobs.ingest, bounds));
        let Some(taken) = stop.run_until_cancelled(taking).await else {
            return Err(Failure::failed("interrupted; what has landed is taken by the next ingest"));
        };
        tell_taken(&lake, taken, &outcomes).await?;
    }
    let bad: usize = outcomes.iter().map(|outcome| outcome.bad).sum();
    if bad > 0 {
        return Err(Failure::failed(format!("{bad} lines were not taken; hint: stdout has them, with the reasons")));
    }
    Ok(())
}

fn refused_by_register(error: JobError) -> Failure {
    if let JobError::Wrong(_) = error { Failure::wrong(error) } else { Failure::failed(error) }
}

/// Says what ingest did. That another source is held back is not this import's failure, once all of it is in the table.
async fn tell_taken(
    lake: &Lake,
    taken: Result<IngestOutcome, IngestError>,
    outcomes: &[ImportOutcome],
) -> Result<(), Failure> {
    let (taken, held) = match taken {
        Ok(taken) => (taken, None),
        Err(error) => {
            let IngestError::HeldBack { outcome, .. } = &error else { return Err(Failure::failed(error)) };
            (**outcome, Some(error))
        }
    };
    say!("ingest: {} readings of {} batches{}", taken.rows, taken.batches, taken.left_out());
    let Some(held) = held else { return Ok(()) };
    let readings = Table::open(lake, TableName::Readings).await.map_err(Failure::failed)?;
    let is_here = |outcome: &ImportOutcome| {
        let last = i64::try_from(outcome.readings).unwrap_or(i64::MAX);
        readings.as_ref().is_some_and(|readings| is_taken(readings, &outcome.source, outcome.epoch, last))
    };
    if !outcomes.iter().all(is_here) {
        return Err(Failure::failed(held));
    }
    say!("warning: {held}; what was imported here is in the tables");
    Ok(())
}

/// Imports one file after the other. Each is opened before anything of the first lands: a name that is wrong is status 2, and
/// then nothing was done. What fails after that is status 1.
async fn import_all(arguments: &ImportArguments, map: &CheckedMap, lake: &Lake) -> Result<Vec<ImportOutcome>, Failure> {
    let refused = |error| match error {
        ImportError::Unreadable { .. } | ImportError::Refused { .. } => Failure::wrong(error),
        error => Failure::failed(error),
    };
    for path in &arguments.files {
        check(lake, path, map).await.map_err(refused)?;
    }
    let mut outcomes = Vec::new();
    for path in &arguments.files {
        let mut told = Told::new(path);
        let outcome = import(lake, path, map, arguments.dry_run, &mut told).await;
        told.end()?;
        let outcome =
            outcome.map_err(|error| if arguments.dry_run { refused(error) } else { Failure::failed(error) })?;
        say!("import: {}: {}", path.display(), said(&outcome, arguments.dry_run));
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn said(outcome: &ImportOutcome, dry_run: bool) -> String {
    let ImportOutcome { source, epoch, lines, readings, empty, bad, landed, batches, times_us } = outcome;
    let times = times_us.map(|(first, last)| format!(", {} to {}", utc(first), utc(last))).unwrap_or_default();
    let done = if dry_run {
        "nothing was landed".to_owned()
    } else {
        format!("{landed} of {batches} batches have landed now, the others were known")
    };
    format!(
        "{readings} readings of {lines} lines{times}, {empty} empty fields, {bad} that cannot be read; {done} ({source}, epoch {epoch})"
    )
}

async fn warn_of_what_fails(lake: &Lake, map: &CheckedMap) -> Result<(), Failure> {
    let register = load(lake).await.map_err(Failure::failed)?;
    for sensor in map.sensors() {
        match register.get(sensor.as_str()) {
            None => say!("warning: `{sensor}` is not in the register: its readings are kept, and internal"),
            Some(row) if !row.accepts(map.source().as_str()) => say!(
                "warning: `{}` is not among the sources of `{sensor}`: its readings are kept, and fail as `not_assigned`; \
                 hint: add it to `sources` in sensors.csv, register, and only then import",
                map.source()
            ),
            Some(_) => {}
        }
    }
    Ok(())
}

impl ImportArguments {
    fn map(&self) -> Result<ImportMap, Failure> {
        if let Some(path) = &self.map {
            let text = ConfigText::read(path).map_err(Failure::wrong)?;
            return ImportMap::read(&text).map_err(|error: MapError| Failure::wrong(error));
        }
        let columns = self.column.iter().map(|text| column(text)).collect::<Result<_, _>>()?;
        Ok(ImportMap {
            time_zone: self.timezone.clone(),
            time_format: self.time_format.clone(),
            separator: if self.separator == "\\t" { "\t".to_owned() } else { self.separator.clone() },
            decimal: if self.decimal_comma { Decimal::Comma } else { Decimal::Point },
            encoding: if self.encoding == "utf-8" { Encoding::Utf8 } else { Encoding::Latin1 },
            skip_lines: self.skip_lines,
            no_value: self.no_value.clone(),
            time: self.time.clone(),
            column: columns,
            ..ImportMap::of(self.source.as_deref().unwrap_or_default())
        })
    }
}

/// `COLUMN=SENSOR`, or `COLUMN=SENSOR UNIT`.
fn column(text: &str) -> Result<ColumnMap, Failure> {
    let refused = || {
        Failure::wrong(format!(
            "--column: `{text}` is not COLUMN=SENSOR, like 'Temp=landfalltjern/water_temperature Cel'"
        ))
    };
    let (name, rest) = text.rsplit_once('=').ok_or_else(refused)?;
    let (sensor, unit) = rest.split_once(' ').map_or((rest, None), |(sensor, unit)| (sensor, Some(unit.trim())));
    let unit = unit.filter(|unit| !unit.is_empty()).map(str::to_owned);
    Ok(ColumnMap { name: name.to_owned(), sensor: sensor.to_owned(), unit, scale: 1.0, offset: 0.0 })
}

/// What people see of one file: a bar in a terminal, lines elsewhere; bad lines on stdout.
struct Told {
    file: String,
    begun: Instant,
    last_told: Instant,
    bar: Option<Progress>,
    bad: usize,
    failure: Option<std::io::Error>,
}

impl Told {
    fn new(path: &std::path::Path) -> Self {
        let now = Instant::now();
        Self { file: path.display().to_string(), begun: now, last_told: now, bar: None, bad: 0, failure: None }
    }

    fn end(self) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
        self.failure.map_or(Ok(()), |error| Err(Failure::failed(format!("cannot write the bad lines: {error}"))))
    }

    fn write(&mut self, line: &BadLine) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        if self.bad == 1 {
            writeln!(stdout, "file,line,reason")?;
        }
        writeln!(stdout, "{},{},{}", quoted(&self.file), line.line, quoted(&line.reason))
    }
}

impl Listener for Told {
    fn bad(&mut self, line: &BadLine) {
        self.bad += 1;
        if let Some(bar) = &self.bar {
            bar.clear();
        }
        if let Err(error) = self.write(line) {
            self.failure.get_or_insert(error);
        }
    }

    fn progress(&mut self, progress: ImportProgress) {
        let ImportProgress { bytes, total_bytes, readings } = progress;
        let what = format!("{readings} readings  {}", self.file);
        self.bar.get_or_insert_with(|| Progress::new(total_bytes)).show(bytes.min(total_bytes), &what);
        let now = Instant::now();
        if now.duration_since(self.last_told) < TELL_EVERY || std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            return;
        }
        self.last_told = now;
        let percent = (bytes.min(total_bytes) * 100).checked_div(total_bytes).unwrap_or(100);
        let left = u32::try_from(percent).ok().filter(|percent| *percent > 0);
        let left = left.map(|percent| (now - self.begun) * (100 - percent.min(100)) / percent);
        let left = left.map_or_else(|| "estimating".to_owned(), |left| format!("{} left", duration(left)));
        say!("import: {}: {percent} %, {readings} readings, {left}", self.file);
    }
}
