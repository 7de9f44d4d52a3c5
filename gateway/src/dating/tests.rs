//! A box without a battery, its power cuts, and the time server that comes or does not.
//!
//! A [`Site`] has a true time and a wall clock; its box polls on its grids as a bus does. Whatever happens,
//! what is in the spool in the end is what was polled: each once, in order, under the slot in which it was truly
//! polled, or marked as estimated.

mod campaign;

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::time::Duration;

use proptest::prelude::*;
use tjern_readings::batch;
use tjern_readings::clock::SECOND_US;
use tjern_readings::configuration::{ConfigText, Period};
use tjern_readings::reading::Quality;
use tjern_readings::rows::Rows;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::bus::state::BusStates;
use crate::bus::{self, BusContext, DeviceTimes, Newest};
use crate::grid::Schedule;
use crate::maintenance::{self, Now, SinceBoot};
use crate::run::Appender;
use crate::spool::tests::memory::Memory;

const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
/// 2026-12-01 00:03:20 UTC, on no slot.
const START_US: i64 = 1_796_083_400 * SECOND_US;
const EVERY: [(&str, u64); 2] = [("mast/air_temperature", 600), ("mast/wind_speed", 60)];

struct Site {
    folder: tempfile::TempDir,
    machine: tempfile::TempDir,
    true_us: i64,
    /// What was polled: its number, of which sensor, and when in truth.
    polled: Vec<(f64, SensorId, i64)>,
    patience_us: i64,
    /// The clock is right, whatever is said of it.
    trusted: bool,
    /// Where the spool lies, if not in the folder.
    disk: Option<Memory>,
}

/// How a box's clock begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Boot {
    Right,
    Year1970,
    /// Where it was when the power went, as `fake-hwclock` has it.
    LastShutdown,
}

struct Machine {
    wall: Clock,
    clock: Clock,
    dater: Dater,
    spool: Spool,
    schedules: Vec<(SensorId, Schedule, Option<i64>)>,
}

fn sensors() -> Sensors {
    let grids = EVERY.map(|(sensor, seconds)| {
        (sensor.parse().expect("valid"), Grid::new(Period::from_seconds(seconds), Duration::ZERO))
    });
    Sensors { buses: Vec::new(), grids: OnceLock::from(HashMap::from(grids)), own_time: HashSet::new() }
}

impl Site {
    fn new() -> Self {
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
    fn with_time_service(self) -> Self {
        std::fs::create_dir_all(self.machine.path().join("run/systemd/timesync")).expect("created");
        self
    }

    fn synchronise(&self, is_synchronised: bool) {
        if is_synchronised {
            self.touch(self.true_us);
        } else if self.mark().exists() {
            std::fs::remove_file(self.mark()).expect("removed");
        }
    }

    fn mark(&self) -> std::path::PathBuf {
        self.machine.path().join("run/systemd/timesync/synchronized")
    }

    /// The time service says that it set the clock at this time.
    fn touch(&self, touched_us: i64) {
        let touched = std::time::UNIX_EPOCH + Duration::from_micros(touched_us.unsigned_abs());
        std::fs::File::create(self.mark()).and_then(|file| file.set_modified(touched)).expect("touched");
    }

    fn settings(&self) -> SpoolSettings {
        SpoolSettings {
            dir: self.folder.path().to_owned(),
            max_bytes: 64 << 20,
            sync_every: Duration::from_secs(5),
            source: "landfall-01".parse().expect("valid"),
            configuration: None,
        }
    }

    fn open(&self, wall: Clock) -> Spool {
        match &self.disk {
            Some(disk) => Spool::over(Arc::new(disk.clone()), self.settings(), wall),
            None => Spool::open(self.settings(), wall).expect("it opens"),
        }
    }

    /// The box boots, after having been off for so long.
    fn boot(&mut self, boot: Boot, off_us: i64) -> Machine {
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
    async fn run(&mut self, on: &mut Machine, for_us: i64) {
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
    fn set_clock(&self, on: &Machine) {
        on.wall.set_us(self.true_us);
        if self.machine.path().join("run").exists() {
            self.synchronise(true);
        }
    }

    async fn power_off(&self, on: Machine) {
        on.dater.end().await;
        assert!(on.spool.sync().await);
        on.spool.close().await;
        self.synchronise(false);
    }

    /// Everything that ever entered the spool, in the order of the numbers.
    async fn stored(&self) -> Vec<Reading> {
        let spool = self.open(Clock::manual(self.true_us));
        assert!(spool.seal().await);
        let mut readings = Vec::new();
        for object in spool.sealed().await {
            let bytes = spool.bytes(&object).await.expect("read");
            readings.extend(batch::decode(&bytes).expect("a batch").readings().expect("readings"));
        }
        spool.close().await;
        readings
    }

    /// The slots that a poll may stand for: a value stands for the beginning of its slot and is polled up to a tenth
    /// of the period later, and where that slot was an estimate its beginning may lie in the true slot before.
    fn slots_of(grid: Grid, true_us: i64) -> [i64; 2] {
        [grid.slot_of(true_us), grid.slot_of(true_us - grid.every_us() / 10)]
    }

    /// What must hold in every life, and does not.
    fn faults(&self, stored: &[Reading]) -> Vec<String> {
        self.faults_but_for(stored, |_| false)
    }

    /// The same, where some may be lost.
    fn faults_but_for(&self, stored: &[Reading], may_be_lost: impl Fn(f64) -> bool) -> Vec<String> {
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
    fn check(&self, stored: &[Reading]) {
        assert_eq!(self.faults(stored), Vec::<String>::new());
    }
}

fn marked(stored: &[Reading]) -> usize {
    stored.iter().filter(|reading| reading.cause == Some(Cause::ClockEstimated)).count()
}

impl Site {
    /// The machine says that it has been up for so long.
    fn is_up(&self, boot: &str, up_us: i64) {
        let proc = self.machine.path().join("proc");
        std::fs::create_dir_all(proc.join("sys/kernel/random")).expect("created");
        std::fs::write(proc.join("sys/kernel/random/boot_id"), boot).expect("written");
        let (seconds, hundredths) = (up_us / SECOND_US, up_us % SECOND_US / 10_000);
        std::fs::write(proc.join("uptime"), format!("{seconds}.{hundredths:02} 0.00\n")).expect("written");
    }

    /// What somebody says at a terminal: the command knows the machine, and not the gateway.
    fn begin_maintenance(&self, on: &Machine, sensors: &str, for_us: i64) {
        let now = Now { clock_us: on.wall.wall_us(), since_boot: SinceBoot::at(self.machine.path()) };
        let begun = maintenance::change(self.folder.path(), &now, |windows| {
            maintenance::begin(windows, sensors.parse().expect("a pattern"), &now, for_us);
            (true, ())
        });
        begun.expect("written");
    }

    /// What was truly measured within a time, and is not marked; and what is marked, and was measured at another.
    fn wrongly_marked(&self, stored: &[Reading], within: std::ops::Range<i64>) -> Vec<Reading> {
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

/// After a power cut somebody changed the sensor: the box came up in 1970, `maintenance on` said that it was done, and what the hand
/// had warmed went to the lake as weather. The gateway is started anew meanwhile, and what it held is dated twice.
#[tokio::test]
async fn maintenance_marks_what_is_measured_while_the_clock_is_not_known() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.is_up("first", 0);
    site.run(&mut on, 20 * MINUTE_US).await;
    site.is_up("first", 20 * MINUTE_US);
    site.begin_maintenance(&on, "mast/*", 40 * MINUTE_US);
    let from_us = site.true_us;
    site.run(&mut on, 10 * MINUTE_US).await;
    let told = on.dater.maintenance_told();
    assert_eq!(told.at(on.clock.now_us()).len(), 1, "the status says so too");
    site.set_clock(&on);
    site.run(&mut on, 10 * MINUTE_US).await;
    assert_eq!(told.at(on.clock.now_us()).len(), 1, "and after the clock has come");
    site.power_off(on).await;
    let mut on = site.boot(Boot::Right, 0);
    site.is_up("first", 40 * MINUTE_US);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    assert_eq!(site.wrongly_marked(&stored, from_us..from_us + 40 * MINUTE_US), []);
    assert!(stored.iter().filter(|reading| reading.cause == Some(Cause::Maintenance)).count() > 35);
    assert_eq!(marked(&stored), 0);
}

/// The power went before the clock came: the estimate is all that is known of these times, and the mark stays.
#[tokio::test]
async fn what_was_measured_during_maintenance_stays_marked_where_its_time_never_comes() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.is_up("first", 50 * MINUTE_US);
    site.begin_maintenance(&on, "mast/*", HOUR_US);
    let from_us = site.true_us;
    site.run(&mut on, 10 * MINUTE_US).await;
    site.power_off(on).await;
    let to_us = site.true_us;
    site.is_up("second", 0);
    let mut on = site.boot(Boot::Right, 5 * HOUR_US);
    site.run(&mut on, 10 * MINUTE_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    assert_eq!(site.wrongly_marked(&stored, from_us..to_us), []);
    assert!(stored.iter().any(|reading| reading.cause == Some(Cause::Maintenance)));
}

/// The same while the clock has fallen back: the gateway goes on by the time that passed, two hours from the machine's.
#[tokio::test]
async fn maintenance_marks_what_is_measured_while_the_clock_has_fallen_back() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, 10 * MINUTE_US).await;
    on.wall.set_us(site.true_us - 2 * HOUR_US);
    site.run(&mut on, 5 * MINUTE_US).await;
    site.is_up("first", 9 * MINUTE_US);
    site.begin_maintenance(&on, "mast/*", 20 * MINUTE_US);
    let from_us = site.true_us;
    site.run(&mut on, 10 * MINUTE_US).await;
    on.wall.set_us(site.true_us);
    site.run(&mut on, 30 * MINUTE_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    assert_eq!(site.wrongly_marked(&stored, from_us..from_us + 20 * MINUTE_US), []);
    assert!(stored.iter().filter(|reading| reading.cause == Some(Cause::Maintenance)).count() > 18);
}

/// For some minutes the clock was a day ahead. It was believed again where it came back, and after a restart it was not: nothing was sent
/// for a day, and with the restart after that readings were stored a day ahead.
#[tokio::test]
async fn a_clock_that_was_ahead_and_came_back_is_believed_by_the_next_starts() {
    for has_service in [false, true] {
        let mut site = Site::new();
        if has_service {
            site = site.with_time_service();
            site.touch(START_US);
        }
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, 20 * MINUTE_US).await;
        on.wall.set_us(site.true_us + 24 * HOUR_US);
        site.run(&mut on, 3 * MINUTE_US).await;
        on.wall.set_us(site.true_us);
        if has_service {
            site.touch(site.true_us);
        }
        site.run(&mut on, 10 * MINUTE_US).await;
        assert!(on.clock.is_set() && on.clock.doubt().is_none());
        site.power_off(on).await;
        let back_us = site.true_us;
        for start in 1..=3 {
            if has_service {
                site.touch(site.true_us);
            }
            let mut on = site.boot(Boot::Right, 0);
            assert!(on.clock.is_set(), "start {start} does not believe a clock that is right");
            site.run(&mut on, 10 * MINUTE_US).await;
            site.power_off(on).await;
        }
        let stored = site.stored().await;
        let is_later = |reading: &&Reading| site.polled[reading.value.expect("a value") as usize].2 > back_us;
        let later: Vec<&Reading> = stored.iter().filter(is_later).collect();
        assert!(later.len() > 20, "{}", later.len());
        assert!(later.iter().all(|reading| reading.time_us <= site.true_us), "a day ahead: {later:?}");
    }
}

/// Readings were once dated 1970, and refused by everybody after that.
#[tokio::test]
async fn a_box_that_boots_in_1970_dates_its_readings_when_the_time_comes() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let before = site.stored().await.len();
    let mut on = site.boot(Boot::Year1970, 5 * HOUR_US);
    assert!(!on.clock.is_set());
    site.run(&mut on, 2 * HOUR_US).await;
    let unsealed = (on.spool.status().next_seq, before);
    assert_eq!(unsealed, (i64::try_from(before).expect("few") + 1, before), "nothing is in the spool yet");
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    assert!(on.clock.is_set());
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    assert_eq!(marked(&stored), 0, "a time that came out is none to warn of");
    assert!(stored.len() > before + 180, "{} after {before}", stored.len());
    assert!(!site.folder.path().join("undated").exists());
}

/// It was polled one second after its estimated slot began, and the true slot changed in that second: it stands for the
/// beginning, with how far behind it the answer came.
#[tokio::test]
async fn a_poll_beside_the_border_of_a_true_slot_keeps_its_moment() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 5_739 * SECOND_US);
    site.set_clock(&on);
    site.run(&mut on, MINUTE_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    let first = stored.iter().find(|reading| reading.sensor.as_str() == EVERY[1].0).expect("polled");
    let true_us = site.polled[first.value.expect("a value") as usize].2;
    assert_eq!((true_us % MINUTE_US, true_us - first.time_us), (0, MINUTE_US), "the true slot had just begun");
    assert_eq!(first.lag_ms, Some(59_000));
}

#[tokio::test]
async fn a_power_cut_before_the_time_came_leaves_estimates_that_say_so() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let before = site.stored().await;
    let newest_us = before.iter().map(|reading| reading.time_us).max().expect("some");
    let mut on = site.boot(Boot::Year1970, HOUR_US);
    site.run(&mut on, 2 * HOUR_US).await;
    site.power_off(on).await;
    let mut on = site.boot(Boot::Right, HOUR_US);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    let estimates: Vec<&Reading> = stored.iter().filter(|reading| reading.cause.is_some()).collect();
    assert!(estimates.len() > 120, "{}", estimates.len());
    for reading in estimates {
        let passed_us = reading.time_us - newest_us;
        assert!((0..=2 * HOUR_US).contains(&passed_us), "last known plus elapsed: {reading:?}");
    }
}

/// `fake-hwclock`: the clock is plausible, and hours behind; lafrech/oem_gateway#12, guysoft/OctoPi#606.
#[tokio::test]
async fn a_clock_that_begins_where_it_was_switched_off_is_waited_for() {
    let mut site = Site::new().with_time_service();
    site.synchronise(true);
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let mut on = site.boot(Boot::LastShutdown, 7 * HOUR_US + 1_234 * SECOND_US);
    assert!(!on.clock.is_set());
    site.run(&mut on, HOUR_US).await;
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    assert_eq!(marked(&stored), 0);
}

/// A clock was an hour ahead for two minutes, and nobody says whether it is synchronised (chrony): the next start did not believe
/// the right one, and each start after it took the estimates of the one before for what is known, for ever.
#[tokio::test]
async fn a_clock_that_was_once_ahead_is_believed_again() {
    let mut site = Site::new();
    site.patience_us = MINUTE_US;
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, 10 * MINUTE_US).await;
    on.wall.set_us(site.true_us + HOUR_US);
    site.run(&mut on, 2 * MINUTE_US).await;
    on.wall.set_us(site.true_us);
    site.power_off(on).await;
    let mut believed = Vec::new();
    for _ in 0..4 {
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, 20 * MINUTE_US).await;
        believed.push(on.clock.is_set());
        site.power_off(on).await;
    }
    assert_eq!(believed, [false, false, true, true], "from fifteen minutes before what it once said");
    assert!(marked(&site.stored().await) > 40);
}

const YEAR_1998_US: i64 = 883_612_800 * SECOND_US;

/// A battery clock was read again while the gateway ran: two hours of readings were dated 1998 as if that were sure, and the way
/// back counted 900 million slots as missed. The canary is a gateway that follows.
#[tokio::test]
async fn a_clock_that_falls_back_while_it_runs_dates_nothing_by_it() {
    for follows in [false, true] {
        let mut site = Site { trusted: follows, ..Site::new() };
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, HOUR_US).await;
        on.wall.set_us(YEAR_1998_US);
        site.run(&mut on, 2 * HOUR_US).await;
        assert_eq!((on.clock.doubt().is_none(), on.dater.is_waiting()), (follows, !follows));
        site.set_clock(&on);
        site.run(&mut on, HOUR_US).await;
        assert_eq!((on.clock.doubt(), on.clock.falls()), (None, u64::from(!follows)));
        site.power_off(on).await;
        let stored = site.stored().await;
        let faults = site.faults(&stored);
        assert_eq!(faults.is_empty(), !follows, "{faults:?}");
        if follows {
            continue;
        }
        assert!((130..=134).contains(&marked(&stored)), "two hours: {}", marked(&stored));
        for reading in stored {
            let true_us = site.polled[reading.value.expect("a value") as usize].2;
            let grid = sensors().grid(&reading.sensor).expect("known");
            assert!(Site::slots_of(grid, true_us).contains(&reading.time_us), "{reading:?}, marked or not");
        }
    }
}

/// An estimate began with a logger's time that was ahead, and ended backwards; when the clock fell later in the same run, each
/// value was stored minutes early, on slots that were stored already, and nothing said so.
#[tokio::test]
async fn a_clock_that_falls_after_an_estimate_that_was_ahead_marks_what_it_dates() {
    let mut site = Site::new().with_time_service();
    let logger: SensorId = "mast/logger".parse().expect("valid");
    let spool = Spool::open(site.settings(), Clock::manual(START_US)).expect("it opens");
    spool.append(vec![Reading::of(logger.clone(), START_US + 5 * MINUTE_US, 0.0)]).await;
    assert!(spool.sync().await);
    spool.close().await;
    let mut on = site.boot(Boot::LastShutdown, 40 * SECOND_US);
    assert!(!on.clock.is_set());
    site.run(&mut on, 10 * SECOND_US).await;
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    assert_eq!(on.clock.offset_us(), Some(-260 * SECOND_US), "the estimate was ahead");
    on.wall.set_us(YEAR_1998_US);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let mut stored = site.stored().await;
    stored.retain(|reading| reading.sensor != logger);
    site.check(&stored);
    assert!((64..=68).contains(&marked(&stored)), "an hour: {}", marked(&stored));
}

/// A battery clock was two hours ahead, and the time server corrected it after the start: that is no fall. Where somebody else
/// did it nobody knows, unless it is where it was before it sprang forward.
#[tokio::test]
async fn a_clock_that_was_ahead_and_is_set_right_is_followed() {
    for (by_service, sprang, is_followed) in
        [(true, false, true), (false, false, false), (false, true, true), (true, true, true)]
    {
        let mut site = Site::new();
        if !sprang {
            site.true_us += 2 * HOUR_US;
        }
        if by_service {
            let battery = site.machine.path().join("sys/class/rtc/rtc0");
            std::fs::create_dir_all(&battery).expect("created");
            std::fs::write(battery.join("since_epoch"), (site.true_us / SECOND_US).to_string()).expect("written");
            site = site.with_time_service();
        }
        let mut on = site.boot(Boot::Right, 0);
        assert!(on.clock.is_set());
        if sprang {
            site.run(&mut on, 10 * MINUTE_US).await;
            on.wall.set_us(site.true_us + 2 * HOUR_US);
        } else {
            site.true_us -= 2 * HOUR_US;
        }
        site.run(&mut on, 10 * MINUTE_US).await;
        assert_eq!(on.clock.falls(), 0);
        site.set_clock(&on);
        site.run(&mut on, 10 * MINUTE_US).await;
        let case = (by_service, sprang);
        assert_eq!((on.clock.falls(), on.clock.doubt().is_none()), (1, is_followed), "{case:?}");
        site.power_off(on).await;
        let stored = site.stored().await;
        let last: Vec<&Reading> = stored.iter().rev().take(5).collect();
        for reading in last {
            let true_us = site.polled[reading.value.expect("a value") as usize].2;
            let slots = Site::slots_of(sensors().grid(&reading.sensor).expect("known"), true_us);
            let is_estimate = reading.cause == Some(Cause::ClockEstimated);
            assert_eq!(
                (slots.contains(&reading.time_us), is_estimate),
                (is_followed, !is_followed),
                "{case:?}: {reading:?}"
            );
        }
    }
}

/// Somebody set the clock back an hour at a site without a time server. Once it had come to the time of its last synchronisation
/// again, that counted as one since: readings were an hour wrong, unmarked, on slots that were stored already.
#[tokio::test]
async fn what_the_time_service_set_before_a_fall_is_no_word_about_it() {
    for minutes in [20, 60] {
        let mut site = Site::new().with_time_service();
        site.synchronise(true);
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, minutes * MINUTE_US).await;
        on.wall.set_us(site.true_us - HOUR_US);
        site.run(&mut on, 3 * HOUR_US).await;
        assert!(on.clock.doubt().is_some(), "{minutes} min after it was synchronised");
        let so_far = site.polled.len();
        // The service says that this is the time.
        site.touch(on.wall.wall_us());
        site.run(&mut on, 2 * SECOND_US).await;
        assert_eq!(on.clock.doubt(), None);
        site.power_off(on).await;
        // What comes by that time is none of this.
        let mut stored = site.stored().await;
        stored.retain(|reading| reading.value.is_some_and(|number| (number as usize) < so_far));
        site.polled.truncate(so_far);
        site.check(&stored);
        assert!((196..=202).contains(&marked(&stored)), "three hours: {}", marked(&stored));
    }
}

/// What a logger on a line says of the time is no word about the box's clock: it may be a year ahead.
#[tokio::test]
async fn a_device_that_is_ahead_does_not_make_the_clock_unknown() {
    let site = Site::new();
    let logger: SensorId = "mast/logger".parse().expect("valid");
    let spool = Spool::open(site.settings(), Clock::manual(START_US)).expect("it opens");
    spool.append(vec![Reading::of(logger.clone(), START_US + 240 * HOUR_US, 1.0)]).await;
    assert!(spool.sync().await);
    let is_set = |sensors: Sensors| {
        let policy = ClockPolicy { patience_us: 0, trusted: false, witness: Witness::at(site.machine.path()) };
        let wall = Clock::manual(START_US);
        Dater::begin(spool.clone(), site.settings(), &wall, sensors, policy).1.is_set()
    };
    assert!(is_set(Sensors { own_time: HashSet::from([logger]), ..sensors() }));
    assert!(!is_set(sensors()), "of a sensor that the box dates itself it is");
    spool.close().await;
}

#[tokio::test]
async fn where_the_time_never_comes_readings_wait_no_longer_than_was_said() {
    let mut site = Site::new();
    site.patience_us = HOUR_US;
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US - MINUTE_US).await;
    assert_eq!(on.spool.status().next_seq, 1);
    site.run(&mut on, HOUR_US).await;
    assert!(on.spool.sync().await);
    assert!(on.spool.status().next_seq > 120, "{:?}", on.spool.status());
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    assert_eq!((marked(&stored), stored.len()), (site.polled.len(), site.polled.len()));
}

/// A power cut between any two steps of the move: the decision is there, and so many of the readings.
#[tokio::test]
async fn a_move_that_was_cut_off_is_gone_on_with() {
    for moved in [0, 1, 17, usize::MAX] {
        let mut site = Site::new();
        let mut on = site.boot(Boot::Year1970, 0);
        site.run(&mut on, HOUR_US).await;
        let offset_us = site.true_us - on.clock.now_us();
        let epoch = on.spool.epoch();
        on.dater.end().await;
        let dir = site.folder.path().join("undated");
        let held = Spool::open(SpoolSettings { dir: dir.clone(), ..site.settings() }, Clock::manual(0));
        let held = held.expect("it opens");
        assert!(held.seal().await);
        let bytes = held.bytes(&held.sealed().await[0]).await.expect("read");
        held.close().await;
        let readings = batch::decode(&bytes).expect("a batch").readings().expect("readings");
        std::fs::write(dir.join("decision"), format!("1 {epoch} 0 {offset_us}\n")).expect("written");
        let dated = readings.iter().take(moved).map(|reading| sensors().date(Some(offset_us), reading.clone()));
        on.spool.append(dated.collect::<Vec<_>>()).await;
        assert!(on.spool.sync().await);
        on.spool.close().await;
        let mut on = site.boot(Boot::Right, 0);
        site.run(&mut on, HOUR_US).await;
        site.power_off(on).await;
        let stored = site.stored().await;
        site.check(&stored);
        assert_eq!(marked(&stored), 0, "the decision was to date them");
    }
}

/// One folder that could not be written, and nothing was polled any more; no signal ended the gateway.
#[tokio::test]
async fn a_disk_that_does_not_take_the_decision_stops_neither_polling_nor_the_end() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US + 30 * SECOND_US).await;
    let blocked = site.folder.path().join("undated/decision.new");
    std::fs::create_dir_all(&blocked).expect("created");
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    assert!(on.clock.is_set() && on.dater.is_waiting());
    assert!(on.spool.status().next_seq > 60, "what was polled since is in the spool: {:?}", on.spool.status());
    let Machine { dater, spool, wall, clock, schedules } = on;
    let (appender, readings, ..) = Appender::start(dater);
    let stop = CancellationToken::new();
    appender.flush(sensors(), &stop).await;
    drop(readings);
    assert!(appender.finish().await, "it ends");
    assert!(spool.sync().await);
    spool.close().await;
    drop((wall, clock, schedules));

    // The next start has room again: they are dated as well as anybody can by then.
    std::fs::remove_dir(&blocked).expect("removed");
    let mut on = site.boot(Boot::Right, 0);
    site.run(&mut on, MINUTE_US).await;
    assert!(!on.dater.is_waiting());
    site.power_off(on).await;
    let mut stored = site.stored().await;
    stored.sort_by(|one, other| one.value.partial_cmp(&other.value).expect("numbers"));
    // Of the slot in which the clock came, one reading is held already: no other one is taken.
    let twice_polled: Vec<String> =
        site.faults(&stored).into_iter().filter(|fault| fault.ends_with("is lost")).collect();
    assert!(twice_polled.len() <= EVERY.len(), "{twice_polled:?}");
    assert_eq!(site.faults(&stored), twice_polled);
    assert!(marked(&stored) > 60);
}

/// What buses had in hand when they were given up is in the spool as well.
#[tokio::test]
async fn what_was_left_behind_reaches_the_spool() {
    let site = Site::new();
    let wall = Clock::manual(START_US);
    let spool = Spool::open(site.settings(), wall.clone()).expect("it opens");
    let policy = ClockPolicy { patience_us: 0, trusted: true, witness: Witness::at(site.machine.path()) };
    let (dater, clock) = Dater::begin(spool.clone(), site.settings(), &wall, sensors(), policy);
    let (appender, readings, left, on_disk) = Appender::start(dater);
    let of = |value: f64| vec![Reading::of("mast/humidity".parse().expect("a sensor"), START_US + value as i64, value)];
    readings.send(of(1.0).into()).await.expect("taken");
    // A bus whose readings find no place, and which is given up.
    let (full, _kept) = tokio::sync::mpsc::channel(1);
    full.try_send(Rows::default()).expect("room for one");
    let (stop, newest) = (CancellationToken::new(), Newest::from_fn(|_| None));
    let (states, device_times) = (BusStates::new(), DeviceTimes::default());
    let context =
        BusContext { clock, readings: full, left, newest, stop, states, learned: None, device_times, on_disk };
    assert!(futures::FutureExt::now_or_never(context.store(of(2.0))).is_none());
    drop((readings, context));
    assert!(appender.finish().await, "it ends");
    spool.close().await;
    let values: Vec<_> = site.stored().await.into_iter().filter_map(|reading| reading.value).collect();
    assert_eq!(values, [1.0, 2.0]);
}

/// The gateway's own readings cost no record, no sync and no batch of their own.
#[tokio::test]
async fn what_the_gateway_says_of_itself_never_comes_alone() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Right, 0);
    let source = "landfall-01".parse().expect("valid");
    let system = SystemReadings::new(&source, on.clock.clone(), crate::upload::UploadState::default(), || None);
    on.dater = on.dater.with_system(Some(system.expect("a gateway")));
    on.wall.advance_us(HOUR_US);
    on.dater.take(Rows::default()).await;
    assert_eq!(on.spool.status().next_seq, 1, "they wait for others");
    let own = |on: &Machine| on.spool.newest_time_us(&"_system/landfall-01/uptime_s".parse().expect("valid"));
    assert_eq!(own(&on), None);
    on.dater.take(vec![Reading::of("mast/humidity".parse().expect("valid"), on.clock.now_us(), 1.0)]).await;
    assert_eq!(own(&on), Some((START_US + HOUR_US) / HOUR_US * HOUR_US));
    site.power_off(on).await;
}

/// What is polled meanwhile comes first, but for the slot in which the clock came: that is held.
#[tokio::test]
async fn a_disk_that_takes_the_decision_later_dates_all_the_same() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US).await;
    let blocked = site.folder.path().join("undated/decision.new");
    std::fs::create_dir_all(&blocked).expect("created");
    site.set_clock(&on);
    site.run(&mut on, 10 * MINUTE_US).await;
    std::fs::remove_dir(&blocked).expect("removed");
    site.run(&mut on, MINUTE_US).await;
    assert!(!on.dater.is_waiting());
    site.power_off(on).await;
    let mut stored = site.stored().await;
    stored.sort_by(|one, other| one.value.partial_cmp(&other.value).expect("numbers"));
    site.check(&stored);
    assert_eq!(marked(&stored), 0);
}

/// The spool's numbers say how many have moved: another reading among them was once taken for one of them.
#[tokio::test]
async fn nothing_passes_a_move_that_was_decided_and_is_stuck() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US).await;
    let (offset_us, epoch) = (site.true_us - on.clock.now_us(), on.spool.epoch());
    site.power_off(on).await;
    let undated = site.folder.path().join("undated");
    std::fs::write(undated.join("decision"), format!("1 {epoch} 0 {offset_us}\n")).expect("written");
    let mut on = site.boot(Boot::Right, 0);
    // Nothing can be sealed there.
    let sealed = undated.join("sealed");
    if sealed.exists() {
        std::fs::remove_dir_all(&sealed).expect("removed");
    }
    std::fs::write(&sealed, "").expect("written");
    site.run(&mut on, 10 * MINUTE_US).await;
    assert_eq!(on.spool.status().next_seq, 1, "a power cut here costs nothing that was held");
    assert!(on.dater.behind.len() > 8, "{}", on.dater.behind.len());
    std::fs::remove_file(&sealed).expect("removed");
    site.run(&mut on, 10 * MINUTE_US).await;
    assert!(!on.dater.is_waiting());
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    assert_eq!(marked(&stored), 0, "the decision was to date them");
}

/// A folder that could not be renamed away was used again with its old decision, and as many readings were
/// skipped as had come since.
#[tokio::test]
async fn a_folder_with_an_old_decision_takes_no_new_readings() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let mut on = site.boot(Boot::Year1970, 0);
    // A folder that is not empty takes no other one's name.
    let moved = site.folder.path().join("undated.moved");
    std::fs::create_dir_all(moved.join("in the way")).expect("created");
    site.run(&mut on, HOUR_US).await;
    assert!(site.folder.path().join("undated/decision").exists(), "it is still there");
    // Of devices that know the time themselves.
    let sensor: SensorId = EVERY[1].0.parse().expect("valid");
    for minutes in 0..5 {
        let number = f64::from(u32::try_from(site.polled.len()).expect("few"));
        let time_us = sensors().grid(&sensor).expect("known").slot_of(START_US + 240 * HOUR_US) + minutes * MINUTE_US;
        site.polled.push((number, sensor.clone(), time_us));
        on.spool.append(vec![Reading::of(sensor.clone(), time_us, number)]).await;
    }
    site.run(&mut on, HOUR_US).await;
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
}

/// The second estimate begins with the newest slot of the first, which was then stored twice.
#[tokio::test]
async fn two_power_cuts_without_a_clock_store_no_slot_twice() {
    let mut site = Site::new();
    for _ in 0..3 {
        let mut on = site.boot(Boot::Year1970, HOUR_US);
        site.run(&mut on, 20 * MINUTE_US + 2 * SECOND_US).await;
        site.power_off(on).await;
    }
    let mut on = site.boot(Boot::Right, HOUR_US);
    site.run(&mut on, MINUTE_US).await;
    site.power_off(on).await;
    let stored = site.stored().await;
    site.check(&stored);
    let mut slots = HashSet::new();
    for reading in &stored {
        assert!(slots.insert((reading.sensor.clone(), reading.time_us)), "twice: {reading:?}");
    }
}

/// A bus that a reload begins anew asks what the newest slot is, and those that are held count.
#[tokio::test]
async fn what_is_held_is_known_to_a_bus_that_begins_anew() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    let newest_of = on.dater.newest_of();
    let sensor: SensorId = EVERY[1].0.parse().expect("valid");
    assert_eq!(newest_of(&sensor), None);
    site.run(&mut on, 10 * MINUTE_US).await;
    assert_eq!(newest_of(&sensor), Some(sensors().grid(&sensor).expect("known").slot_of(on.clock.now_us())));
    site.set_clock(&on);
    site.run(&mut on, SECOND_US).await;
    let newest_us = newest_of(&sensor).expect("some");
    assert!((0..2 * MINUTE_US).contains(&(site.true_us - newest_us)), "{newest_us} at {}", site.true_us);
    site.power_off(on).await;
}

/// Were the check blind, the tests here would prove nothing.
#[tokio::test]
async fn the_check_sees_what_must_not_be() {
    let mut site = Site::new();
    let mut on = site.boot(Boot::Year1970, 0);
    site.run(&mut on, HOUR_US).await;
    site.set_clock(&on);
    site.run(&mut on, HOUR_US).await;
    site.power_off(on).await;
    let right = site.stored().await;
    site.check(&right);
    let broken: [fn(&mut Vec<Reading>); 6] = [
        |readings| drop(readings.remove(20)),
        |readings| readings.insert(21, readings[20].clone()),
        |readings| readings.swap(20, 21),
        |readings| readings[20].time_us += HOUR_US,
        |readings| readings[20].time_us -= sensors().grid(&readings[20].sensor).expect("known").every_us(),
        |readings| readings[20].cause = Some(Cause::Timeout),
    ];
    for (number, breaks) in broken.iter().enumerate() {
        let mut stored = right.clone();
        breaks(&mut stored);
        assert!(!site.faults(&stored).is_empty(), "break {number} is not seen");
    }
}

/// Lives of a box: how it boots, how long it was off before, when the time comes, how long it stays on.
fn lives() -> impl Strategy<Value = Vec<(Boot, i64, Option<i64>, i64)>> {
    let boot = prop::sample::select(vec![Boot::Right, Boot::Year1970, Boot::LastShutdown]);
    prop::collection::vec((boot, 0..7_200_i64, prop::option::of(0..3_600_i64), 60..3_600_i64), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn no_reading_is_lost_or_stored_twice_whatever_the_clock_does(lives in lives(), patience_s in 600..86_400_i64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut site = Site::new().with_time_service();
            site.patience_us = patience_s * SECOND_US;
            for (boot, off_s, comes_s, on_s) in lives {
                site.synchronise(boot == Boot::Right);
                let mut on = site.boot(boot, off_s * SECOND_US);
                let comes_s = comes_s.unwrap_or(on_s).min(on_s);
                site.run(&mut on, comes_s * SECOND_US).await;
                if comes_s < on_s {
                    site.set_clock(&on);
                }
                site.run(&mut on, (on_s - comes_s) * SECOND_US).await;
                site.power_off(on).await;
            }
            site.synchronise(true);
            let mut on = site.boot(Boot::Right, 0);
            site.run(&mut on, SECOND_US).await;
            site.power_off(on).await;
            let stored = site.stored().await;
            site.check(&stored);
        });
    }
}

/// The same with a bus that really polls, a device's own clock beside it.
#[tokio::test]
async fn a_bus_polls_while_the_clock_is_not_known() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let text = format!(
        "version = 1\ngateway = \"landfall-01\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n\
        [[bus]]\nname = \"mast\"\nkind = \"text-lines\"\naddress = \"{}\"\npoll = \"?\\n\"\ntimeout = \"20s\"\n\
        [[bus.device]]\nname = \"logger\"\n\
        [[bus.device.point]]\nsensor = \"mast/air_temperature\"\npattern = 'T=(?<value>\\d+)'\nevery = \"1s\"\n\
        [[bus.device]]\nname = \"dated\"\ntime_pattern = 'at (?<time>\\d+)'\ntime_format = \"unix\"\n\
        [[bus.device.point]]\nsensor = \"mast/humidity\"\npattern = 'H=(?<value>\\d*)'\nevery = \"1s\"\n",
        listener.local_addr().expect("an address")
    );
    let config = Config::parse(&ConfigText::new("test.toml", text)).expect("good");
    let wall = Clock::manual(20 * SECOND_US);
    let spool = Spool::open(site.settings(), wall.clone()).expect("it opens");
    let policy = ClockPolicy { patience_us: i64::MAX, trusted: false, witness: Witness::at(site.machine.path()) };
    let (dater, clock) = Dater::begin(spool.clone(), site.settings(), &wall, Sensors::of(&config), policy);
    let device_times = DeviceTimes::default();
    let (appender, readings, left, on_disk) = Appender::start(dater.with_device_times(device_times.clone()));
    let (stop, newest) = (CancellationToken::new(), Newest::from_fn(|_| None));
    let context = BusContext {
        clock,
        readings,
        left,
        newest,
        stop: stop.clone(),
        states: BusStates::new(),
        learned: None,
        device_times,
        on_disk,
    };
    let bus = tokio::spawn(bus::run(std::sync::Arc::clone(&config.buses()[0]), context));

    let (stream, _) = listener.accept().await.expect("the gateway connects");
    let mut stream = BufReader::new(stream);
    let mut question = String::new();
    for number in 0..40_i64 {
        assert!(stream.read_line(&mut question).await.is_ok_and(|count| count > 0), "the gateway asks");
        let device_s = START_US / SECOND_US + number;
        // A logger's row without a value lies on the grid as slots do, and was dated as one of them is.
        let humidity = if number % 3 == 2 { String::new() } else { number.to_string() };
        stream.write_all(format!("T={number} H={humidity} at {device_s}\n").as_bytes()).await.expect("it listens");
        if number == 20 {
            wall.set_us(START_US + 20 * SECOND_US);
        }
        wall.advance_us(SECOND_US);
    }
    stop.cancel();
    bus.await.expect("it ends");
    assert!(appender.finish().await, "it ends");
    assert!(spool.sync().await);
    spool.close().await;

    let stored = site.stored().await;
    let of = |sensor: &str| stored.iter().filter(|reading| reading.sensor.as_str() == sensor).collect::<Vec<_>>();
    assert_eq!(marked(&stored), 0);
    let humidity: Vec<_> = of("mast/humidity")
        .iter()
        .filter_map(|reading| reading.value.map(|value| (value as i64, reading.time_us)))
        .collect();
    assert!(humidity.len() >= 26, "{humidity:?}");
    assert!(humidity.iter().all(|(number, time_us)| *time_us == START_US + number * SECOND_US), "{humidity:?}");
    let empty: Vec<i64> = of("mast/humidity")
        .iter()
        .filter(|reading| matches!(reading.cause, Some(Cause::NoMatch | Cause::NotANumber | Cause::NotAvailable)))
        .map(|reading| reading.time_us - START_US)
        .collect();
    assert!(empty.len() >= 3, "{empty:?}");
    assert!(empty.iter().all(|at_us| at_us % (3 * SECOND_US) == 2 * SECOND_US && *at_us < 40 * SECOND_US), "{empty:?}");
    let temperature = of("mast/air_temperature");
    assert!(temperature.len() >= 38, "{temperature:?}");
    assert!(temperature.is_sorted_by(|one, other| one.time_us < other.time_us), "no slot twice: {temperature:?}");
    let range = START_US - 2 * SECOND_US..=START_US + 42 * SECOND_US;
    assert!(temperature.iter().all(|reading| range.contains(&reading.time_us)), "{temperature:?}");
}
