//! Maintenance: readings of sensors that somebody is working on are marked, so that nobody takes them
//! for weather.
//!
//! A thermometer in a technician's hand measures the hand. `tjern-gateway maintenance on` writes into
//! `maintenance.toml` in the spool's folder which sensors that holds for, from when until when; a gateway
//! reads the file when it starts and when it has changed, and gives readings whose *time* lies within the
//! quality 4 and the cause `maintenance`. The value stays: it is what came. A reading without a value
//! keeps its own cause. Since the file says from when until when, it does not matter when it is read, and
//! the command works without a gateway too.
//!
//! Invariants: the file is replaced whole and never written into; a file that cannot be read changes
//! nothing and is told once; no reading passes before it was looked whether the file has changed, so that what is measured after
//! a command has ended is marked.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use tjern_readings::configuration::ConfigText;
use tjern_readings::reading::{Cause, Quality, Reading};
use tjern_readings::sensor::{SensorId, is_part};
use tracing::{info, warn};

/// The file, in the spool's folder.
pub const FILE: &str = "maintenance.toml";

/// Everybody may read the file.
const FILE_MODE: u32 = 0o644;

/// So many names stand in a line of the log.
const LISTED_MAX: usize = 5;

/// What has been over for so long is forgotten at the next change.
const KEPT_US: i64 = 7 * 86_400_000_000;

/// Which sensors: one by its id, or all of a place, `place/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorPattern(String);

/// A text that names no sensors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no sensors: write an id, like `landfalltjern/water_temperature`, or all of a place, like `landfalltjern/*`"
)]
pub struct UnknownPattern(String);

impl SensorPattern {
    /// Whether a sensor is one of these.
    #[must_use]
    pub fn matches(&self, sensor: &SensorId) -> bool {
        match self.0.strip_suffix('*') {
            Some(place) => sensor.as_str().starts_with(place),
            None => sensor.as_str() == self.0,
        }
    }
}

impl FromStr for SensorPattern {
    type Err = UnknownPattern;

    fn from_str(text: &str) -> Result<Self, UnknownPattern> {
        let is_place = |place: &str| place.split('/').all(is_part) && place.split('/').count() <= 4;
        let is_pattern = match text.strip_suffix("/*") {
            Some(place) => is_place(place),
            None => text.parse::<SensorId>().is_ok_and(|sensor| !sensor.is_system()),
        };
        if is_pattern { Ok(Self(text.to_owned())) } else { Err(UnknownPattern(text.to_owned())) }
    }
}

impl fmt::Display for SensorPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A time of maintenance: the end is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Whose.
    pub sensors: SensorPattern,
    /// From when, in microseconds since 1970 UTC.
    pub from_us: i64,
    /// Until when.
    pub until_us: i64,
}

impl Window {
    fn holds(&self, reading: &Reading) -> bool {
        (self.from_us..self.until_us).contains(&reading.time_us) && self.sensors.matches(&reading.sensor)
    }
}

/// Why a file of maintenance is of no use.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// It cannot be read.
    #[error("cannot read `{path}`: {source}; hint: this needs the gateway's user, or root")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "cannot write `{path}`: {source}; hint: this needs the gateway's user, or root, and the folder above the spool's"
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says something else.
    #[error("`{path}` is no file of maintenance: {reason}; hint: remove it, and say again what is under maintenance")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsFile {
    version: i64,
    #[serde(default)]
    maintenance: Vec<WindowFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowFile {
    sensor: String,
    from_us: i64,
    until_us: i64,
}

/// What is written down in a spool's folder; nothing where there is no file.
///
/// # Errors
/// [`MaintenanceError`] where the file cannot be read, or says something else.
pub fn read(spool_dir: &Path) -> Result<Vec<Window>, MaintenanceError> {
    let path = spool_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(MaintenanceError::Unreadable { path, source }),
    };
    let wrong = |reason: String| MaintenanceError::Wrong { path: path.clone(), reason };
    let file: WindowsFile = ConfigText::new(&path, text).parse().map_err(|error| wrong(error.to_string()))?;
    if file.version != 1 {
        return Err(wrong(format!("version {} is not known to this software", file.version)));
    }
    let window = |file: WindowFile| {
        let sensors = file.sensor.parse().map_err(|error: UnknownPattern| wrong(error.to_string()))?;
        Ok(Window { sensors, from_us: file.from_us, until_us: file.until_us })
    };
    file.maintenance.into_iter().map(window).collect()
}

/// Changes what is written down in a spool's folder, one command after the other: `change` says whether it did. On disk when this
/// returns, without what was over long ago.
///
/// # Errors
/// As [`read`], and [`MaintenanceError::Unwritable`].
pub fn change<T>(
    spool_dir: &Path,
    now_us: i64,
    change: impl FnOnce(&mut Vec<Window>) -> (bool, T),
) -> Result<T, MaintenanceError> {
    let unwritable = |source| MaintenanceError::Unwritable { path: spool_dir.join(FILE), source };
    // Held until this returns: of two commands at once each changes what the other left.
    let folder = make_folder(spool_dir).and_then(|()| File::open(spool_dir)).map_err(unwritable)?;
    folder.lock().map_err(unwritable)?;
    let mut windows = read(spool_dir)?;
    let (is_changed, done) = change(&mut windows);
    if is_changed {
        write(spool_dir, &windows, now_us)?;
    }
    Ok(done)
}

/// Makes the spool's folder where the gateway has never run. Root gives it to whom the folder above belongs: the gateway could
/// not begin in one that is root's.
fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            let owner = fs::metadata(above)?;
            // Only root may, and only then is it needed.
            let _ = lchown(folder, Some(owner.uid()), Some(owner.gid()));
            Ok(())
        }
    }
}

fn write(spool_dir: &Path, windows: &[Window], now_us: i64) -> Result<(), MaintenanceError> {
    let path = spool_dir.join(FILE);
    let mut text =
        "# Written by `tjern-gateway maintenance`. Times are microseconds since 1970 UTC.\nversion = 1\n".to_owned();
    for window in windows.iter().filter(|window| window.until_us > now_us - KEPT_US) {
        let Window { sensors, from_us, until_us } = window;
        text += &format!("\n[[maintenance]]\nsensor = \"{sensors}\"\nfrom_us = {from_us}\nuntil_us = {until_us}\n");
    }
    replace(&path, text.as_bytes()).map_err(|source| MaintenanceError::Unwritable { path, source })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let unfinished = path.with_extension(format!("toml.{}.new", std::process::id()));
    let written = (|| {
        let mut file = File::create(&unfinished)?;
        // Root writes it, under a narrow umask perhaps, and the gateway's own user reads it. It has no secrets.
        file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        if let Ok(owner) = fs::metadata(folder) {
            // Only root may, and only then is it needed.
            let _ = chown(&unfinished, Some(owner.uid()), Some(owner.gid()));
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // What is left of it helps nobody, and may not be there.
        drop(fs::remove_file(&unfinished));
    }
    written
}

/// Begins maintenance of some sensors, or makes one that is under way longer.
pub fn begin(windows: &mut Vec<Window>, sensors: SensorPattern, now_us: i64, until_us: i64) {
    let under_way = windows
        .iter_mut()
        .find(|window| window.sensors == sensors && window.from_us <= now_us && now_us < window.until_us);
    match under_way {
        Some(window) => window.until_us = until_us,
        None => windows.push(Window { sensors, from_us: now_us, until_us }),
    }
}

/// Ends what is under way or to come: of these sensors, or all of it. How many times of maintenance that were.
pub fn end(windows: &mut Vec<Window>, sensors: Option<&SensorPattern>, now_us: i64) -> usize {
    let ends =
        |window: &&mut Window| window.until_us > now_us && sensors.is_none_or(|sensors| *sensors == window.sensors);
    let ended = windows.iter_mut().filter(ends).map(|window| window.until_us = now_us).count();
    windows.retain(|window| window.from_us < window.until_us);
    ended
}

/// What a running gateway knows of maintenance.
#[derive(Debug)]
pub(crate) struct Maintenance {
    spool_dir: PathBuf,
    windows: Vec<Window>,
    /// What the file looked like.
    seen: Option<Seen>,
    told: MaintenanceTold,
}

/// What is under maintenance, and why the file cannot be gone by, for whoever tells it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MaintenanceTold(Arc<Mutex<(Vec<Window>, Option<String>)>>);

impl MaintenanceTold {
    /// Why the file cannot be gone by; `None` where all is well.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().1.clone()
    }

    /// What is under maintenance at a time.
    pub(crate) fn at(&self, time_us: i64) -> Vec<SensorPattern> {
        let is_under_way = |window: &&Window| (window.from_us..window.until_us).contains(&time_us);
        self.lock().0.iter().filter(is_under_way).map(|window| window.sensors.clone()).collect()
    }

    fn set_windows(&self, windows: Vec<Window>) {
        *self.lock() = (windows, None);
    }

    /// Says whether that is news.
    fn set_trouble(&self, trouble: String) -> bool {
        let mut told = self.lock();
        let is_news = told.1.as_ref() != Some(&trouble);
        told.1 = Some(trouble);
        is_news
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn lock(&self) -> MutexGuard<'_, (Vec<Window>, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maintenance {
    /// What the file in this folder says, from the first readings on.
    pub(crate) fn of(spool_dir: PathBuf) -> Self {
        Self { spool_dir, windows: Vec::new(), seen: None, told: MaintenanceTold::default() }
    }

    /// What others may tell of it.
    pub(crate) fn told(&self) -> MaintenanceTold {
        self.told.clone()
    }

    /// Looks whether the file has changed, on a thread that nobody else waits for.
    pub(crate) async fn look(&mut self) {
        let (dir, seen) = (self.spool_dir.clone(), self.seen);
        // The task fails only where the runtime ends.
        if let Ok(Some((seen, read))) = tokio::task::spawn_blocking(move || look(&dir, seen)).await {
            self.take(seen, read);
        }
    }

    /// Whether a window holds any moment from the oldest to the newest.
    pub(crate) fn is_under_way(&self, oldest_us: i64, newest_us: i64) -> bool {
        self.windows.iter().any(|window| window.from_us <= newest_us && oldest_us < window.until_us)
    }

    /// Marks those that were measured during maintenance, by what the file said when it was last looked at.
    pub(crate) fn mark(&self, readings: &mut [Reading]) {
        for reading in readings.iter_mut().filter(|reading| reading.value.is_some()) {
            if self.windows.iter().any(|window| window.holds(reading)) {
                (reading.quality, reading.cause) = (Quality::Fail, Some(Cause::Maintenance));
            }
        }
    }

    fn take(&mut self, seen: Option<Seen>, read: Result<Vec<Window>, MaintenanceError>) {
        self.seen = seen;
        match read {
            Ok(windows) => {
                self.told.set_windows(windows.clone());
                if windows.is_empty() {
                    info!("maintenance: nothing is marked any more");
                } else {
                    info!(
                        windows = windows.len(),
                        sensors = listed(&windows),
                        "maintenance: what is measured in these windows is marked"
                    );
                }
                self.windows = windows;
            }
            Err(error) => {
                // A disk that failed for a moment is asked again; a file that is wrong stays so until it changes.
                if matches!(error, MaintenanceError::Unreadable { .. }) {
                    self.seen = None;
                }
                if self.told.set_trouble(error.to_string()) {
                    warn!("what is under maintenance stays as it was: {error}");
                }
            }
        }
    }
}

/// What a file looks like: when it was changed, its number on the disk, its length.
type Seen = (i64, i64, u64, u64);

/// What a file looks like now, if there is one, and what is in it.
type Looked = (Option<Seen>, Result<Vec<Window>, MaintenanceError>);

/// Reads the file of a folder, if it looks other than before.
fn look(dir: &Path, seen: Option<Seen>) -> Option<Looked> {
    let found = fs::metadata(dir.join(FILE)).ok();
    let found = found.map(|file| (file.mtime(), file.mtime_nsec(), file.ino(), file.len()));
    (found != seen).then(|| (found, read(dir)))
}

/// Whose windows these are, as a line of the log has room for it.
fn listed(windows: &[Window]) -> String {
    let mut names: Vec<String> = windows.iter().map(|window| window.sensors.to_string()).collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    let listed = names.join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tjern_readings::clock::SECOND_US;

    const NOW_US: i64 = 1_790_000_000 * SECOND_US;
    const HOUR_US: i64 = 3_600 * SECOND_US;

    fn pattern(text: &str) -> SensorPattern {
        text.parse().expect("a pattern")
    }

    fn reading(sensor: &str, time_us: i64) -> Reading {
        Reading::of(sensor.parse().expect("a sensor"), time_us, 4.0)
    }

    async fn marked(maintenance: &mut Maintenance, reading: Reading) -> bool {
        let mut readings = [reading];
        maintenance.look().await;
        maintenance.mark(&mut readings);
        let [reading] = readings;
        assert_eq!(reading.value, Some(4.0), "the value stays");
        (reading.quality, reading.cause) == (Quality::Fail, Some(Cause::Maintenance))
    }

    /// Of fourteen at once two were written down, and all said that it was done.
    #[test]
    fn commands_at_once_lose_nothing() {
        let above = tempfile::tempdir().expect("a folder");
        let spool = above.path().join("spool");
        let begun: Vec<_> = (0..16)
            .map(|number| {
                let spool = spool.clone();
                std::thread::spawn(move || {
                    let sensors = pattern(&format!("tarn/number-{number}"));
                    change(&spool, NOW_US, |windows| {
                        begin(windows, sensors, NOW_US, NOW_US + HOUR_US);
                        (true, ())
                    })
                })
            })
            .collect();
        begun.into_iter().for_each(|begun| begun.join().expect("no panic").expect("written"));
        assert_eq!(read(&spool).expect("read").len(), 16);
    }

    /// 36 °C was the highest bathing temperature of the year: the technician had held the sensor.
    #[tokio::test(start_paused = true)]
    async fn what_a_technician_measures_by_hand_is_not_weather() {
        let spool = tempfile::tempdir().expect("a folder");
        let mut maintenance = Maintenance::of(spool.path().to_owned());
        assert!(!marked(&mut maintenance, reading("tarn/water_temperature", NOW_US)).await);
        let mut windows = Vec::new();
        begin(&mut windows, pattern("tarn/*"), NOW_US, NOW_US + HOUR_US);
        write(spool.path(), &windows, NOW_US).expect("written");
        assert!(marked(&mut maintenance, reading("tarn/water_temperature", NOW_US)).await, "the first one after it");
        let told = maintenance.told();
        assert_eq!([NOW_US - 1, NOW_US, NOW_US + HOUR_US].map(|at_us| told.at(at_us).len()), [0, 1, 0]);
        assert!(marked(&mut maintenance, reading("tarn/depth-2m/water_temperature", NOW_US + HOUR_US - 1)).await);
        for other in [
            reading("tarn/water_temperature", NOW_US - 1),
            reading("tarn/water_temperature", NOW_US + HOUR_US),
            reading("tarnet/water_temperature", NOW_US),
        ] {
            assert!(!marked(&mut maintenance, other.clone()).await, "{other:?}");
        }
        let mut again = Maintenance::of(spool.path().to_owned());
        assert!(marked(&mut again, reading("tarn/water_temperature", NOW_US)).await, "a restart forgets nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_without_a_value_keeps_its_own_cause() {
        let spool = tempfile::tempdir().expect("a folder");
        let window = Window { sensors: pattern("a/b"), from_us: 0, until_us: NOW_US };
        write(spool.path(), &[window], 0).expect("written");
        let missing = Reading::missing("a/b".parse().expect("a sensor"), 1, Cause::Timeout);
        let mut readings = [missing.clone()];
        let mut maintenance = Maintenance::of(spool.path().to_owned());
        maintenance.look().await;
        maintenance.mark(&mut readings);
        assert_eq!(readings, [missing]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_file_changes_nothing() {
        let spool = tempfile::tempdir().expect("a folder");
        let window = Window { sensors: pattern("a/b"), from_us: 0, until_us: NOW_US };
        write(spool.path(), &[window], 0).expect("written");
        let mut maintenance = Maintenance::of(spool.path().to_owned());
        assert!(marked(&mut maintenance, reading("a/b", 1)).await);
        fs::write(spool.path().join(FILE), "version = 1\n[[maintenance]]\nsensor = 5\n").expect("written");
        assert!(marked(&mut maintenance, reading("a/b", 1)).await);
        fs::remove_file(spool.path().join(FILE)).expect("removed");
        assert!(!marked(&mut maintenance, reading("a/b", 1)).await);
    }

    /// Root writes it under a umask of 077, and the gateway's user could not read it: nothing was marked, the log had
    /// a line a second, and the command had said that it was done.
    #[test]
    fn the_gateways_own_user_can_read_what_root_wrote() {
        let spool = tempfile::tempdir().expect("a folder");
        // As a narrow umask makes it: a file that is there keeps its mode.
        let unfinished = spool.path().join(FILE).with_extension(format!("toml.{}.new", std::process::id()));
        fs::write(&unfinished, "").expect("written");
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600)).expect("set");
        write(spool.path(), &[], NOW_US).expect("written");
        let mode = fs::metadata(spool.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
    }

    /// A folder in the file's place cannot be read as one.
    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_is_told_once_and_in_the_health() {
        let spool = tempfile::tempdir().expect("a folder");
        fs::create_dir(spool.path().join(FILE)).expect("created");
        let mut maintenance = Maintenance::of(spool.path().to_owned());
        let told = maintenance.told();
        maintenance.look().await;
        assert!(told.trouble().is_some_and(|trouble| trouble.contains(FILE)));
        let again = told.trouble().expect("it is told");
        assert!(!told.set_trouble(again), "the same is no news");
        fs::remove_dir(spool.path().join(FILE)).expect("removed");
        write(spool.path(), &[], NOW_US).expect("written");
        maintenance.look().await;
        assert_eq!(told.trouble(), None);
    }

    #[test]
    fn what_was_said_is_read_again() {
        let spool = tempfile::tempdir().expect("a folder");
        let mut windows = Vec::new();
        begin(&mut windows, pattern("a/b"), NOW_US, NOW_US + HOUR_US);
        begin(&mut windows, pattern("c/*"), NOW_US, NOW_US + HOUR_US);
        begin(&mut windows, pattern("a/b"), NOW_US + 1, NOW_US + 2 * HOUR_US);
        assert_eq!(windows.len(), 2, "what is under way is made longer");
        assert_eq!((windows[0].from_us, windows[0].until_us), (NOW_US, NOW_US + 2 * HOUR_US));
        write(spool.path(), &windows, NOW_US).expect("written");
        assert_eq!(read(spool.path()).expect("read"), windows);
        assert_eq!(end(&mut windows, Some(&pattern("a/b")), NOW_US + 5), 1);
        assert_eq!(windows[0].until_us, NOW_US + 5, "what was measured before stays marked");
        assert_eq!(end(&mut windows, None, NOW_US + 5), 1);
        write(spool.path(), &windows, NOW_US + KEPT_US + HOUR_US).expect("written");
        assert_eq!(read(spool.path()).expect("read"), [], "what was over long ago is forgotten");
        let names: Vec<_> =
            fs::read_dir(spool.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, [FILE], "nothing unfinished is left");
    }

    #[test]
    fn the_log_names_whose_maintenance_it_is() {
        let windows = |names: &[&str]| -> Vec<Window> {
            names.iter().map(|name| Window { sensors: pattern(name), from_us: 0, until_us: 1 }).collect()
        };
        assert_eq!(listed(&windows(&["tarn/*", "a/b", "tarn/*"])), "a/b, tarn/*");
        assert_eq!(
            listed(&windows(&["a/1", "a/2", "a/3", "a/4", "a/5", "a/6", "a/7"])),
            "a/1, a/2, a/3, a/4, a/5 and 2 more"
        );
    }

    #[test]
    fn patterns_name_sensors() {
        for good in ["a/b", "a/b/c", "a/*", "a/b/c/d/*"] {
            assert!(good.parse::<SensorPattern>().is_ok(), "{good}");
        }
        for bad in ["", "a", "*", "/*", "a*", "a/*/b", "A/b", "_system/x", "_system/*", "a/b/c/d/e/*"] {
            assert!(bad.parse::<SensorPattern>().is_err(), "{bad}");
        }
    }
}
