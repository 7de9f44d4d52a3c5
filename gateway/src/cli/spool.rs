//! `tjern-gateway spool`: what waits on a box, while its gateway runs or without one.
//!
//! `ls`, `cat`, `verify` and `export` change nothing, and take no lock. stdout is for what was asked for.

use std::fs;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

use super::{FAILED, WRONG, shown_error};
use crate::config::Config;
use crate::run;
use crate::say;
use crate::spool::{LOCK, SealedKind, Spool, SpoolError, SpoolLook};

/// `spool …`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway spool ls --config landfall-01.toml\n  tjern-gateway spool cat --spool /var/lib/tjern/spool --format json | head\n  tjern-gateway spool verify --spool /media/card/spool\n  tjern-gateway spool export rescued --config landfall-01.toml\n\n\
    A running gateway is not disturbed.\n\
    Exit status: 0 when it was done, 1 when it failed or `verify` found something wrong, 2 for a wrong configuration."
)]
pub struct SpoolArguments {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// Lists epochs, segments, sealed batches and gaps, with their numbers, bytes and ages
    Ls {
        #[command(flatten)]
        place: Place,
    },
    /// Prints every reading that waits, in the order of its numbers
    Cat {
        #[command(flatten)]
        place: Place,
        /// How
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
    },
    /// Checks every byte, and tells what is wrong with file and offset
    Verify {
        #[command(flatten)]
        place: Place,
    },
    /// Copies sealed batches and gaps into a folder, under the names that they have in a lake
    Export {
        #[command(flatten)]
        place: Place,
        /// Where to; it can be ingested as a lake of its own, or its `landing` be copied into one
        #[arg(value_name = "DIR")]
        target: PathBuf,
        /// Seal what is not sealed first: only with --config, and while no gateway runs
        #[arg(long)]
        seal: bool,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The gateway's configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The spool's folder
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Comma separated, with a header
    Csv,
    /// One JSON object a line
    Json,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Configuration(String),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("cannot write to stdout: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write `{path}`: {source}; hint: is there room, and the right to?")]
    Export { path: PathBuf, source: io::Error },
    #[error("`{path}` is there with other contents; hint: export into an empty folder")]
    Other { path: PathBuf },
    #[error("`{0}` is no folder; hint: name a folder, or one that is not there yet")]
    NoFolder(PathBuf),
    #[error("nothing here says whose batches these are; hint: use --config")]
    Nobody,
    #[error("the spool could not be sealed; hint: the lines before say why")]
    Unsealed,
    #[error("`--seal` needs `--config`, which says whose readings these are and how they are sealed")]
    SealWithoutConfig,
    #[error(
        "`{0}` is no spool: it has neither segments nor sealed batches, nor a spool's lock; hint: the spool is the folder that `[spool] dir` names"
    )]
    NoSpool(PathBuf),
}

/// Does what was asked; everything that goes wrong was told on stderr when this returns.
pub async fn execute(arguments: SpoolArguments) -> ExitCode {
    let done = match arguments.command {
        SpoolCommand::Ls { place } => look(&place).and_then(|(look, _)| list(&look, &mut output())),
        SpoolCommand::Cat { place, format } => look(&place).and_then(|(look, _)| print(&look, format, &mut output())),
        SpoolCommand::Verify { place } => look(&place).and_then(|(look, _)| verify(&look, &mut output())),
        SpoolCommand::Export { place, target, seal } => export(&place, &target, seal).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        // Whoever read it has seen enough.
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Configuration(error)) => {
            say!("{error}");
            ExitCode::from(WRONG)
        }
        Err(error @ Failure::SealWithoutConfig) => {
            say!("error: {error}");
            ExitCode::from(WRONG)
        }
        Err(error) => {
            say!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn output() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

fn load(place: &Place) -> Result<Option<Config>, Failure> {
    let load = |path: &PathBuf| Config::load(path).map_err(|error| Failure::Configuration(shown_error(&error)));
    place.config.as_ref().map(load).transpose()
}

fn look(place: &Place) -> Result<(SpoolLook, Option<SourceName>), Failure> {
    let config = load(place)?;
    let dir = config.as_ref().map(|config| config.spool().dir.clone()).or_else(|| place.spool.clone());
    let dir = dir.unwrap_or_default();
    let look = SpoolLook::at(&dir)?;
    if look.is_empty() && !dir.join(LOCK).exists() {
        // Whoever named the folder above it must not believe that nothing is damaged, or that nothing waits.
        return Err(Failure::NoSpool(dir));
    }
    Ok((look, config.map(|config| config.gateway().clone())))
}

fn list(look: &SpoolLook, out: &mut impl Write) -> Result<bool, Failure> {
    let now_us = Clock::system().now_us();
    writeln!(
        out,
        "{:<8} {:<32} {:>20} {:>20} {:>10} {:>12} {:>9}  note",
        "what", "epoch", "first", "last", "readings", "bytes", "age"
    )?;
    let mut line = |what: &str, epoch: &str, numbers: [i64; 2], readings: i64, bytes: u64, age: &str, note: &str| {
        let [first, last] = numbers;
        let text = format!("{what:<8} {epoch:<32} {first:>20} {last:>20} {readings:>10} {bytes:>12} {age:>9}  {note}");
        writeln!(out, "{}", text.trim_end())
    };
    for (object, modified_us) in look.sealed() {
        let (what, readings) = match object.kind {
            SealedKind::Batch => ("batch", object.bounds.count()),
            SealedKind::Gap => ("gap", 0),
            SealedKind::Closed => ("closed", 0),
        };
        let note = if object.epoch == look.epoch() { "" } else { "former epoch" };
        let numbers = [object.bounds.first, object.bounds.last];
        line(what, &object.epoch.to_string(), numbers, readings, object.length, &age(now_us, modified_us), note)?;
    }
    for segment in look.segments() {
        let epoch = segment.epoch.map_or_else(|| "damaged".to_owned(), |epoch| epoch.to_string());
        let count = i64::try_from(segment.readings).unwrap_or(i64::MAX);
        let mut notes = Vec::new();
        if segment.bad_records > 0 {
            notes.push(format!("{} bad records", segment.bad_records));
        }
        if segment.has_torn_tail {
            notes.push("torn tail".to_owned());
        }
        let numbers = [segment.first_seq, segment.first_seq + count - 1];
        line("segment", &epoch, numbers, count, segment.length, &age(now_us, segment.modified_us), &notes.join(", "))?;
    }
    let (unsealed, bounds) = look.unsealed();
    if let Some(bounds) = bounds {
        let numbers = [bounds.first, bounds.last];
        line(
            "unsealed",
            &look.epoch().to_string(),
            numbers,
            i64::try_from(unsealed).unwrap_or(i64::MAX),
            0,
            "",
            "in the segments",
        )?;
    }
    for lost in look.lost() {
        line(
            "lost",
            &look.epoch().to_string(),
            [lost.first, lost.last],
            0,
            0,
            "",
            "damaged: the next start covers it by a gap",
        )?;
    }
    out.flush()?;
    Ok(true)
}

/// How long ago, in the largest unit that it has two of.
fn age(now_us: i64, then_us: Option<i64>) -> String {
    let Some(then_us) = then_us else { return String::new() };
    let seconds = now_us.saturating_sub(then_us).max(0) / 1_000_000;
    let units = [("d", 86_400), ("h", 3_600), ("min", 60)];
    let unit = units.iter().find(|(_, length)| seconds >= 2 * length);
    unit.map_or_else(|| format!("{seconds} s"), |(name, length)| format!("{} {name}", seconds / length))
}

fn print(look: &SpoolLook, format: Format, out: &mut impl Write) -> Result<bool, Failure> {
    if matches!(format, Format::Csv) {
        writeln!(out, "epoch,seq,sensor,time,value,quality,cause,lag_ms")?;
    }
    let left_out = look.each_reading(|epoch, seq, reading| match format {
        Format::Csv => writeln!(out, "{}", csv(epoch, seq, reading)),
        Format::Json => writeln!(out, "{}", json(epoch, seq, reading)),
    })?;
    out.flush()?;
    for finding in &left_out {
        say!("left out: {}: {}; hint: `spool verify` checks everything", finding.path.display(), finding.what);
    }
    Ok(left_out.is_empty())
}

fn csv(epoch: Epoch, seq: i64, reading: &Reading) -> String {
    let text = |value: Option<String>| value.unwrap_or_default();
    format!(
        "{epoch},{seq},{},{},{},{},{},{}",
        reading.sensor.as_str(),
        utc(reading.time_us),
        text(reading.value.map(|value| value.to_string())),
        reading.quality.code(),
        text(reading.cause.map(|cause| cause.word().to_owned())),
        text(reading.lag_ms.map(|lag_ms| lag_ms.to_string())),
    )
}

/// None of the texts has a character that JSON escapes, and no value is infinite.
fn json(epoch: Epoch, seq: i64, reading: &Reading) -> String {
    let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
    format!(
        "{{\"epoch\":\"{epoch}\",\"seq\":{seq},\"sensor\":\"{}\",\"time\":\"{}\",\"value\":{},\"quality\":{},\"cause\":{},\"lag_ms\":{}}}",
        reading.sensor.as_str(),
        utc(reading.time_us),
        or_null(reading.value.map(|value| value.to_string())),
        reading.quality.code(),
        or_null(reading.cause.map(|cause| format!("\"{}\"", cause.word()))),
        or_null(reading.lag_ms.map(|lag_ms| lag_ms.to_string())),
    )
}

/// A time as RFC 3339 has it. The date: a year that begins in March has its leap day at its end, and 400 such
/// years have 146,097 days.
fn utc(time_us: i64) -> String {
    let (days, day_us) = (time_us.div_euclid(86_400_000_000), time_us.rem_euclid(86_400_000_000));
    let from_march = days + 719_468;
    let (cycle, day) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year_of_cycle = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
    let (seconds, micros) = (day_us / 1_000_000, day_us % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

fn verify(look: &SpoolLook, out: &mut impl Write) -> Result<bool, Failure> {
    let (findings, bytes) = look.verify();
    for finding in &findings {
        let word = if finding.is_wrong { "wrong" } else { "note" };
        writeln!(out, "{word}: {} at {}: {}", finding.path.display(), finding.offset, finding.what)?;
    }
    let wrong = findings.iter().filter(|finding| finding.is_wrong).count();
    writeln!(out, "{bytes} bytes were checked, {wrong} places are wrong")?;
    out.flush()?;
    Ok(wrong == 0)
}

async fn export(place: &Place, target: &Path, seal: bool) -> Result<bool, Failure> {
    // Also where nothing waits: whoever named a file must not believe that something lies there.
    if target.exists() && !target.is_dir() {
        return Err(Failure::NoFolder(target.to_owned()));
    }
    if seal {
        let config = load(place)?.ok_or(Failure::SealWithoutConfig)?;
        let spool = Spool::open(run::spool_settings(&config), Clock::system())?;
        let sealed = spool.seal().await;
        spool.close().await;
        if !sealed {
            return Err(Failure::Unsealed);
        }
    }
    let (look, source) = look(place)?;
    let mut copied = 0;
    for (object, _) in look.sealed() {
        let Some(bytes) = look.bytes(&object)? else { continue };
        let source = source.clone().or_else(|| look.source()).ok_or(Failure::Nobody)?;
        let path = target.join(object.landed().key(&source).as_ref());
        put(&path, &bytes)?;
        copied += 1;
    }
    let (unsealed, _) = look.unsealed();
    say!("{copied} files were copied to `{}`; nothing was taken out of the spool", target.display());
    if unsealed > 0 {
        say!("{unsealed} readings are not sealed yet; hint: --seal seals them, while no gateway runs");
    }
    Ok(true)
}

/// A file that is there whole, or not at all; one that is the same is left.
fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |source| Failure::Export { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(there) if there == bytes => return Ok(()),
        Ok(_) => return Err(Failure::Other { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    let staged = path.with_extension("new");
    let written = fs::File::create(&staged).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&staged, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_751_360_400_000_001, "2025-07-01T09:00:00.000001Z"),
            (4_107_542_399_000_000, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
            (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        ];
        for (time_us, text) in cases {
            assert_eq!(utc(time_us), text);
        }
    }

    #[test]
    fn an_age_is_told_in_a_unit_that_it_has_two_of() {
        let ages = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|seconds| age(seconds * 1_000_000, Some(0)));
        assert_eq!(ages, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
