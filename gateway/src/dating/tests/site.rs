//! The box and its site: a true time, a wall clock, grids that are polled as a bus polls them, and the check of what was stored.

use super::*;
use crate::spool::{SealedKind, is_gap_text};

pub(super) const MINUTE_US: i64 = 60 * SECOND_US;
pub(super) const HOUR_US: i64 = 60 * MINUTE_US;
/// 2026-12-01 00:03:20 UTC, on no slot.
pub(super) const START_US: i64 = 1_796_083_400 * SECOND_US;
pub(super) const EVERY: [(&str, u64); 2] = [("mast/air_temperature", 600), ("mast/wind_speed", 60)];

pub(super) struct Site {
    pub(super) folder: tempfile::TempDir,
    pub(super) machine: tempfile::TempDir,
    pub(super) true_us: i64,
    /// What was polled: its number, of which sensor, and when in truth.
    pub(super) polled: Vec<(f64, SensorId, i64)>,
    pub(super) patience_us: i64,
    /// The clock is right, whatever is said of it.
    pub(super) trusted: bool,
    /// Where the spool lies, if not in the folder.
    pub(super) disk: Option<Memory>,
}

/// How a box's clock begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    Right,
    Year1970,
    /// Where it was when the power went, as `fake-hwclock` has it.
    LastShutdown,
}

pub(super) struct Machine {
    pub(super) wall: Clock,
    pub(super) clock: Clock,
    pub(super) dater: Dater,
    pub(super) spool: Spool,
    pub(super) schedules: Vec<(SensorId, Schedule, Option<i64>)>,
}

pub(super) fn sensors() -> Sensors {
    let grids = EVERY.map(|(sensor, seconds)| {
        (sensor.parse().expect("valid"), Grid::new(Period::from_seconds(seconds), Duration::ZERO))
    });
    Sensors { buses: Vec::new(), grids: OnceLock::from(HashMap::from(grids)), own_time: HashSet::new(), sha256: None }
}

impl Site {
    pub(super) fn new() -> Self {
        let (folder, machine) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        Self {
            folder,
            machine,
            true_us: START_US,
            polled: Vec::new(),
            patience_us: 24 * HOUR_US,
            trusted: false,
            disk: None,
        }
    }

    /// The service that synchronises runs; the box has no battery.
    pub(super) fn with_time_service(self) -> Self {
        std::fs::create_dir_all(self.machine.path().join("run/systemd/timesync")).expect("created");
        self
    }

    pub(super) fn synchronise(&self, is_synchronised: bool) {
        if is_synchronised {
            self.touch(self.true_us);
        } else if self.mark().exists() {
            std::fs::remove_file(self.mark()).expect("removed");
        }
    }

    pub(super) fn mark(&self) -> std::path::PathBuf {
        self.machine.path().join("run/systemd/timesync/synchronized")
    }

    /// The time service says that it set the clock at this time.
    pub(super) fn touch(&self, touched_us: i64) {
        let touched = std::time::UNIX_EPOCH + Duration::from_micros(touched_us.unsigned_abs());
        std::fs::File::create(self.mark()).and_then(|file| file.set_modified(touched)).expect("touched");
    }

    pub(super) fn settings(&self) -> SpoolSettings {
        SpoolSettings {
            dir: self.folder.path().to_owned(),
            max_bytes: 64 << 20,
            sync_every: Duration::from_secs(5),
            source: "landfall-01".parse().expect("valid"),
            configuration: None,
        }
    }

    pub(super) fn open(&self, wall: Clock) -> Spool {
        match &self.disk {
            Some(disk) => Spool::over(Arc::new(disk.clone()), self.settings(), wall),
            None => Spool::open(self.settings(), wall).expect("it opens"),
        }
    }

    /// The box boots, after having been off for so long.
    pub(super) fn boot(&mut self, boot: Boot, off_us: i64) -> Machine {
        let wall_us = match boot {
            Boot::Right => self.true_us + off_us,
            Boot::Year1970 => 20 * SECOND_US,
            Boot::LastShutdown => self.true_us,
        };
        self.true_us += off_us;
        let wall = Clock::manual(wall_us);
        let spool = self.open(wall.clone());
        let policy = ClockPolicy {
            patience_us: self.patience_us,
            trusted: self.trusted,
            witness: Witness::at(self.machine.path()),
        };
        let (dater, clock) = Dater::begin(spool.clone(), self.settings(), &wall, sensors(), policy);
        let newest_of = dater.newest_of();
        let mut grids: Vec<_> = sensors().grids.into_inner().into_iter().flatten().collect();
        grids.sort_by(|one, other| one.0.cmp(&other.0));
        let schedules = grids.into_iter().map(|(sensor, grid)| {
            let newest_us = newest_of(&sensor);
            (sensor, Schedule::new(grid), newest_us)
        });
        Machine { schedules: schedules.collect(), wall, clock, dater, spool }
    }

    /// The box runs for so long.
    pub(super) async fn run(&mut self, on: &mut Machine, for_us: i64) {
        for _ in 0..for_us / SECOND_US {
            on.wall.advance_us(SECOND_US);
            self.true_us += SECOND_US;
            let mut readings = Vec::new();
            for (sensor, schedule, newest_us) in &mut on.schedules {
                let now_us = on.clock.now_us();
                schedule.follow_step_back(now_us);
                let Some(due) = schedule.due(now_us) else { continue };
                schedule.begin(due);
                // The first poll shows that the device lives; it is stored as a bus stores it.
                if due.first && (!schedule.grid().is_fresh(due.slot_us, now_us) || *newest_us >= Some(due.slot_us)) {
                    continue;
                }
                let number = f64::from(u32::try_from(self.polled.len()).expect("few"));
                self.polled.push((number, sensor.clone(), self.true_us));
                let lag_ms = schedule.grid().lag_ms(due.slot_us, now_us);
                readings.push(Reading::of(sensor.clone(), due.slot_us, number).with_lag_ms(lag_ms));
            }
            on.dater.take(readings).await;
        }
    }

    /// The time server answers.
    pub(super) fn set_clock(&self, on: &Machine) {
        on.wall.set_us(self.true_us);
        if self.machine.path().join("run").exists() {
            self.synchronise(true);
        }
    }

    pub(super) async fn power_off(&self, on: Machine) {
        on.dater.end().await;
        assert!(on.spool.sync().await);
        on.spool.close().await;
        self.synchronise(false);
    }

    /// Everything that ever entered the spool, in the order of the numbers. Where a power cut tore a record that was not synced, and left
    /// one behind it whole, a gap has its number: whether that may be lost is held against what was acknowledged.
    pub(super) async fn stored(&self) -> Vec<Reading> {
        let spool = self.open(Clock::manual(self.true_us));
        assert!(spool.seal().await);
        let mut readings = Vec::new();
        for object in spool.sealed().await {
            let bytes = spool.bytes(&object).await.expect("read");
            if object.kind == SealedKind::Gap {
                assert!(is_gap_text(&bytes, object.bounds), "{object:?}");
                continue;
            }
            readings.extend(batch::decode(&bytes).expect("a batch").readings().expect("readings"));
        }
        spool.close().await;
        readings
    }

    /// The slots that a poll may stand for: a value stands for the beginning of its slot and is polled up to a tenth
    /// of the period later, and where that slot was an estimate its beginning may lie in the true slot before.
    pub(super) fn slots_of(grid: Grid, true_us: i64) -> [i64; 2] {
        [grid.slot_of(true_us), grid.slot_of(true_us - grid.every_us() / 10)]
    }

    /// What must hold in every life, and does not.
    pub(super) fn faults(&self, stored: &[Reading]) -> Vec<String> {
        self.faults_but_for(stored, |_| false)
    }

    /// The same, where some may be lost.
    pub(super) fn faults_but_for(&self, stored: &[Reading], may_be_lost: impl Fn(f64) -> bool) -> Vec<String> {
        let mut faults = Vec::new();
        let mut note = |fault: bool, what: String| faults.extend(fault.then_some(what));
        let numbers: Vec<f64> = stored.iter().filter_map(|reading| reading.value).collect();
        note(!numbers.is_sorted_by(|one, other| one < other), format!("not in order, or twice: {numbers:?}"));
        let mut slots = HashSet::new();
        for reading in stored {
            let grid = sensors().grid(&reading.sensor).expect("known");
            let true_us = self.polled[reading.value.expect("a value") as usize].2;
            match reading.cause {
                None => {
                    let is_right = Self::slots_of(grid, true_us).contains(&reading.time_us);
                    note(!is_right, format!("{reading:?} was polled at {true_us}"));
                    let is_new = slots.insert((reading.sensor.clone(), reading.time_us));
                    note(!is_new, format!("{reading:?}: its slot twice"));
                }
                Some(cause) => note(cause != Cause::ClockEstimated, format!("{reading:?}")),
            }
        }
        for (number, sensor, true_us) in &self.polled {
            let of = Self::slots_of(sensors().grid(sensor).expect("known"), *true_us);
            let is_there = numbers.contains(number) || of.iter().any(|slot| slots.contains(&(sensor.clone(), *slot)));
            note(!is_there && !may_be_lost(*number), format!("{number}, polled at {true_us}, is lost"));
        }
        faults
    }

    #[track_caller]
    pub(super) fn check(&self, stored: &[Reading]) {
        assert_eq!(self.faults(stored), Vec::<String>::new());
    }
}

pub(super) fn marked(stored: &[Reading]) -> usize {
    stored.iter().filter(|reading| reading.cause == Some(Cause::ClockEstimated)).count()
}

impl Site {
    /// The machine says that it has been up for so long.
    pub(super) fn is_up(&self, boot: &str, up_us: i64) {
        let proc = self.machine.path().join("proc");
        std::fs::create_dir_all(proc.join("sys/kernel/random")).expect("created");
        std::fs::write(proc.join("sys/kernel/random/boot_id"), boot).expect("written");
        let (seconds, hundredths) = (up_us / SECOND_US, up_us % SECOND_US / 10_000);
        std::fs::write(proc.join("uptime"), format!("{seconds}.{hundredths:02} 0.00\n")).expect("written");
    }

    /// What somebody says at a terminal: the command knows the machine, and not the gateway.
    pub(super) fn begin_maintenance(&self, on: &Machine, sensors: &str, for_us: i64) {
        let now = Now { clock_us: on.wall.wall_us(), since_boot: SinceBoot::at(self.machine.path()) };
        let begun = maintenance::change(self.folder.path(), &now, |windows| {
            maintenance::begin(windows, sensors.parse().expect("a pattern"), &now, for_us);
            (true, ())
        });
        begun.expect("written");
    }

    /// What was truly measured within a time, and is not marked; and what is marked, and was measured at another.
    pub(super) fn wrongly_marked(&self, stored: &[Reading], within: std::ops::Range<i64>) -> Vec<Reading> {
        let mut wrong = stored.to_vec();
        wrong.retain(|reading| {
            let true_us = self.polled[reading.value.expect("a value") as usize].2;
            // A slot is marked by its beginning.
            let is_at_the_border =
                [within.start, within.end].iter().any(|end| (0..=MINUTE_US).contains(&(true_us - end)));
            let is_marked = (reading.quality, reading.cause) == (Quality::Fail, Some(Cause::Maintenance));
            !is_at_the_border && is_marked != within.contains(&true_us)
        });
        wrong
    }
}
