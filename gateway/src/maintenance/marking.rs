//! What a running gateway makes of the file: readings that were taken during maintenance are marked.
//!
//! Invariants: a file that cannot be read changes nothing and is told once; no reading passes before it was looked whether the
//! file has changed, so that what is measured after a command has ended is marked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tjern_readings::clock::Clock;
use tjern_readings::reading::{Cause, Quality, Reading};
use tracing::{info, warn};

use super::since_boot::PRECISION_US;
use super::{FILE, MaintenanceError, SensorPattern, SinceBoot, Window, read};

/// So many names stand in a line of the log.
const LISTED_MAX: usize = 5;

/// What a running gateway knows of maintenance.
#[derive(Debug)]
pub(crate) struct Maintenance {
    spool_dir: PathBuf,
    /// Of the machine that says how long it has been up.
    root: PathBuf,
    reckoned: Reckoned,
    /// How the gateway's time lay to the machine's boot when the file was looked at last: what was on its way then was dated so.
    looked_us: i64,
    /// What the file looked like.
    seen: Option<Seen>,
    told: MaintenanceTold,
}

/// Windows, and what is needed to find them in the gateway's own time. That is another one than the machine's while its clock is
/// not believed, and is set anew once it is: windows of this boot go with it.
#[derive(Debug, Clone, Default)]
struct Reckoned {
    windows: Vec<Window>,
    clock: Clock,
    /// This boot, and how far the time since it is before the monotonic clock.
    boot: Option<(String, i64)>,
}

impl Reckoned {
    /// How far the gateway's time is before the time since the machine's boot now.
    fn ahead_us(&self) -> i64 {
        let boot_us = self.boot.as_ref().map_or(0, |(_, ahead_us)| *ahead_us);
        self.clock.now_us().saturating_sub(self.clock.monotonic_us()).saturating_sub(boot_us)
    }

    /// The windows from when until when, in a time that is so far ahead.
    fn spans(&self, ahead_us: i64) -> impl Iterator<Item = (i64, i64, &SensorPattern)> {
        self.windows.iter().map(move |window| {
            let (from_us, until_us) = self.of_boot(window, ahead_us).unwrap_or((window.from_us, window.until_us));
            (from_us, until_us, &window.sensors)
        })
    }

    /// Those of them that were opened since the machine's boot, and hold whatever its clock says.
    fn spans_of_boot(&self, ahead_us: i64) -> impl Iterator<Item = (i64, i64, &SensorPattern)> {
        self.windows.iter().filter_map(move |window| {
            let (from_us, until_us) = self.of_boot(window, ahead_us)?;
            Some((from_us, until_us, &window.sensors))
        })
    }

    fn of_boot(&self, window: &Window, ahead_us: i64) -> Option<(i64, i64)> {
        let (boot, _) = self.boot.as_ref()?;
        let span = window.since_boot.as_ref().filter(|span| span.boot == *boot)?;
        let from_us = span.from_us.saturating_add(ahead_us).saturating_sub(PRECISION_US);
        Some((from_us, span.until_us.saturating_add(ahead_us).saturating_add(PRECISION_US)))
    }
}

/// What is under maintenance, and why the file cannot be gone by, for whoever tells it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MaintenanceTold(Arc<Mutex<(Reckoned, Option<String>)>>);

impl MaintenanceTold {
    /// Why the file cannot be gone by; `None` where all is well.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().1.clone()
    }

    /// What is under maintenance at a time.
    pub(crate) fn at(&self, time_us: i64) -> Vec<SensorPattern> {
        let told = self.lock();
        let spans = told.0.spans(told.0.ahead_us());
        let under_way = spans.filter(|(from_us, until_us, _)| (*from_us..*until_us).contains(&time_us));
        under_way.map(|(_, _, sensors)| sensors.clone()).collect()
    }

    fn set_windows(&self, reckoned: Reckoned) {
        *self.lock() = (reckoned, None);
    }

    /// Says whether that is news.
    fn set_trouble(&self, trouble: String) -> bool {
        let mut told = self.lock();
        let is_news = told.1.as_ref() != Some(&trouble);
        told.1 = Some(trouble);
        is_news
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn lock(&self) -> MutexGuard<'_, (Reckoned, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maintenance {
    /// What the file in this folder says, from the first readings on, which are dated by this clock of the machine there.
    pub(crate) fn of(spool_dir: PathBuf, clock: Clock, root: PathBuf) -> Self {
        let reckoned = Reckoned { windows: Vec::new(), clock, boot: None };
        Self { spool_dir, root, looked_us: reckoned.ahead_us(), reckoned, seen: None, told: MaintenanceTold::default() }
    }

    /// What others may tell of it.
    pub(crate) fn told(&self) -> MaintenanceTold {
        self.told.clone()
    }

    /// Looks whether the file has changed, on a thread that nobody else waits for. What is found in another folder than the
    /// spool's own, or in none, is no word about it: whether that is at hand is asked where something changed.
    pub(crate) async fn look(&mut self, is_at_hand: impl Future<Output = bool>) {
        let (dir, root, seen) = (self.spool_dir.clone(), self.root.clone(), self.seen);
        let clock = self.reckoned.clock.clone();
        // The task fails only where the runtime ends.
        if let Ok(Some((seen, read, boot))) = tokio::task::spawn_blocking(move || look(&dir, &root, seen, &clock)).await
            && is_at_hand.await
        {
            self.reckoned.boot = boot.or(self.reckoned.boot.take());
            self.take(seen, read);
        }
        self.looked_us = self.reckoned.ahead_us();
    }

    /// The windows in the gateway's time, as it is now and as it was at the last look.
    fn spans(&self) -> impl Iterator<Item = (i64, i64, &SensorPattern)> {
        self.reckoned.spans(self.reckoned.ahead_us()).chain(self.reckoned.spans(self.looked_us))
    }

    /// Whether a window holds any moment from the oldest to the newest.
    pub(crate) fn is_under_way(&self, oldest_us: i64, newest_us: i64) -> bool {
        self.spans().any(|(from_us, until_us, _)| from_us <= newest_us && oldest_us < until_us)
    }

    /// Marks those that were measured during maintenance, by what the file said when it was last looked at.
    pub(crate) fn mark(&self, readings: &mut [Reading]) {
        mark(self.spans().collect(), readings);
    }

    /// The same of those whose times are not known yet: a window of an earlier boot, or one that was said by a clock alone, is held
    /// against the time that they get, and not against what is estimated now.
    pub(crate) fn mark_held(&self, readings: &mut [Reading]) {
        let reckoned = &self.reckoned;
        mark(
            reckoned.spans_of_boot(reckoned.ahead_us()).chain(reckoned.spans_of_boot(self.looked_us)).collect(),
            readings,
        );
    }

    fn take(&mut self, seen: Option<Seen>, read: Result<Vec<Window>, MaintenanceError>) {
        self.seen = seen;
        match read {
            Ok(windows) => {
                if windows.is_empty() {
                    info!("maintenance: nothing is marked any more");
                } else {
                    info!(
                        windows = windows.len(),
                        sensors = listed(&windows),
                        "maintenance: what is measured in these windows is marked"
                    );
                }
                if self.reckoned.boot.is_none() && windows.iter().any(|window| window.since_boot.is_some()) {
                    warn!(
                        "maintenance: this process does not see how long the machine has been up: while the clock is not known, nothing is marked; hint: `ProcSubset=pid` in a unit hides /proc/uptime"
                    );
                }
                self.reckoned.windows = windows;
                self.told.set_windows(self.reckoned.clone());
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

/// What a file looks like now, if there is one, what is in it, and which boot this is, with how far the time since it is before the
/// monotonic clock.
type Looked = (Option<Seen>, Result<Vec<Window>, MaintenanceError>, Option<(String, i64)>);

/// Marks those that lie in one of these spans.
fn mark(spans: Vec<(i64, i64, &SensorPattern)>, readings: &mut [Reading]) {
    if spans.is_empty() {
        return;
    }
    for reading in readings.iter_mut().filter(|reading| reading.value.is_some()) {
        let holds = |(from_us, until_us, sensors): &(i64, i64, &SensorPattern)| {
            (*from_us..*until_us).contains(&reading.time_us) && sensors.matches(&reading.sensor)
        };
        if spans.iter().any(holds) {
            (reading.quality, reading.cause) = (Quality::Fail, Some(Cause::Maintenance));
        }
    }
}

/// Reads the file of a folder, if it looks other than before.
fn look(dir: &Path, root: &Path, seen: Option<Seen>, clock: &Clock) -> Option<Looked> {
    let found = fs::metadata(dir.join(FILE)).ok();
    let found = found.map(|file| (file.mtime(), file.mtime_nsec(), file.ino(), file.len()));
    (found != seen).then(|| (found, read(dir), ahead_since_boot(root, clock)))
}

/// Both clocks are read at once: what else is looked at may take as long as a disk hangs.
fn ahead_since_boot(root: &Path, clock: &Clock) -> Option<(String, i64)> {
    let SinceBoot { boot, up_us } = SinceBoot::at(root)?;
    Some((boot, up_us - clock.monotonic_us()))
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
    use super::super::file::write;
    use super::super::testing::{HOUR_US, NOW_US, at, pattern};
    use super::super::{Now, begin};
    use super::*;

    /// On a machine that does not say how long it has been up.
    fn of(spool_dir: &Path) -> Maintenance {
        Maintenance::of(spool_dir.to_owned(), Clock::manual(NOW_US), spool_dir.join("no machine"))
    }

    fn reading(sensor: &str, time_us: i64) -> Reading {
        Reading::of(sensor.parse().expect("a sensor"), time_us, 4.0)
    }

    async fn marked(maintenance: &mut Maintenance, reading: Reading) -> bool {
        let mut readings = [reading];
        maintenance.look(std::future::ready(true)).await;
        maintenance.mark(&mut readings);
        let [reading] = readings;
        assert_eq!(reading.value, Some(4.0), "the value stays");
        (reading.quality, reading.cause) == (Quality::Fail, Some(Cause::Maintenance))
    }

    /// 36 °C was the highest bathing temperature of the year: the technician had held the sensor.
    #[tokio::test(start_paused = true)]
    async fn what_a_technician_measures_by_hand_is_not_weather() {
        let spool = tempfile::tempdir().expect("a folder");
        let mut maintenance = of(spool.path());
        assert!(!marked(&mut maintenance, reading("tarn/water_temperature", NOW_US)).await);
        let mut windows = Vec::new();
        begin(&mut windows, pattern("tarn/*"), &at(NOW_US), HOUR_US);
        write(spool.path(), &windows, &at(NOW_US)).expect("written");
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
        let mut again = of(spool.path());
        assert!(marked(&mut again, reading("tarn/water_temperature", NOW_US)).await, "a restart forgets nothing");
    }

    /// The disk with the spool was unplugged while somebody worked: what the sensors measured by hand went to the lake as weather.
    #[tokio::test(start_paused = true)]
    async fn maintenance_goes_on_while_the_spools_folder_is_away() {
        let spool = tempfile::tempdir().expect("a folder");
        let window = Window { sensors: pattern("a/b"), from_us: 0, until_us: NOW_US, since_boot: None };
        write(spool.path(), &[window], &at(0)).expect("written");
        let mut maintenance = of(spool.path());
        assert!(marked(&mut maintenance, reading("a/b", 1)).await);
        fs::remove_file(spool.path().join(FILE)).expect("removed");
        maintenance.look(std::future::ready(false)).await;
        let mut readings = [reading("a/b", 2)];
        maintenance.mark(&mut readings);
        assert_eq!(readings[0].cause, Some(Cause::Maintenance));
        assert!(!marked(&mut maintenance, reading("a/b", 2)).await, "the folder is there, and the file is not");
    }

    /// The card hung for a minute while it was asked whether the folder is its own: every window lay a minute early, and the last minute
    /// of what was measured by hand went to the lake as weather.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_moves_no_window() {
        let (spool, machine) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let proc = machine.path().join("proc");
        fs::create_dir_all(proc.join("sys/kernel/random")).expect("created");
        fs::write(proc.join("sys/kernel/random/boot_id"), "a boot\n").expect("written");
        fs::write(proc.join("uptime"), "1000.00 0.00\n").expect("written");
        let clock = Clock::manual(NOW_US);
        let now = Now { clock_us: NOW_US, since_boot: SinceBoot::at(machine.path()) };
        let mut windows = Vec::new();
        begin(&mut windows, pattern("a/b"), &now, HOUR_US);
        write(spool.path(), &windows, &now).expect("written");
        let mut maintenance = Maintenance::of(spool.path().to_owned(), clock.clone(), machine.path().to_owned());
        let hangs = async {
            clock.advance_us(HOUR_US / 60);
            true
        };
        maintenance.look(hangs).await;
        let mut readings = [reading("a/b", NOW_US + HOUR_US - 1), reading("a/b", NOW_US - HOUR_US / 60)];
        maintenance.mark(&mut readings);
        assert_eq!(readings.map(|reading| reading.cause), [Some(Cause::Maintenance), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_without_a_value_keeps_its_own_cause() {
        let spool = tempfile::tempdir().expect("a folder");
        let window = Window { sensors: pattern("a/b"), from_us: 0, until_us: NOW_US, since_boot: None };
        write(spool.path(), &[window], &at(0)).expect("written");
        let missing = Reading::missing("a/b".parse().expect("a sensor"), 1, Cause::Timeout);
        let mut readings = [missing.clone()];
        let mut maintenance = of(spool.path());
        maintenance.look(std::future::ready(true)).await;
        maintenance.mark(&mut readings);
        assert_eq!(readings, [missing]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_file_changes_nothing() {
        let spool = tempfile::tempdir().expect("a folder");
        let window = Window { sensors: pattern("a/b"), from_us: 0, until_us: NOW_US, since_boot: None };
        write(spool.path(), &[window], &at(0)).expect("written");
        let mut maintenance = of(spool.path());
        assert!(marked(&mut maintenance, reading("a/b", 1)).await);
        fs::write(spool.path().join(FILE), "version = 1\n[[maintenance]]\nsensor = 5\n").expect("written");
        assert!(marked(&mut maintenance, reading("a/b", 1)).await);
        fs::remove_file(spool.path().join(FILE)).expect("removed");
        assert!(!marked(&mut maintenance, reading("a/b", 1)).await);
    }

    /// A folder in the file's place cannot be read as one.
    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_is_told_once_and_in_the_health() {
        let spool = tempfile::tempdir().expect("a folder");
        fs::create_dir(spool.path().join(FILE)).expect("created");
        let mut maintenance = of(spool.path());
        let told = maintenance.told();
        maintenance.look(std::future::ready(true)).await;
        assert!(told.trouble().is_some_and(|trouble| trouble.contains(FILE)));
        let again = told.trouble().expect("it is told");
        assert!(!told.set_trouble(again), "the same is no news");
        fs::remove_dir(spool.path().join(FILE)).expect("removed");
        write(spool.path(), &[], &at(NOW_US)).expect("written");
        maintenance.look(std::future::ready(true)).await;
        assert_eq!(told.trouble(), None);
    }

    #[test]
    fn the_log_names_whose_maintenance_it_is() {
        let windows = |names: &[&str]| -> Vec<Window> {
            names
                .iter()
                .map(|name| Window { sensors: pattern(name), from_us: 0, until_us: 1, since_boot: None })
                .collect()
        };
        assert_eq!(listed(&windows(&["tarn/*", "a/b", "tarn/*"])), "a/b, tarn/*");
        assert_eq!(
            listed(&windows(&["a/1", "a/2", "a/3", "a/4", "a/5", "a/6", "a/7"])),
            "a/1, a/2, a/3, a/4, a/5 and 2 more"
        );
    }
}
