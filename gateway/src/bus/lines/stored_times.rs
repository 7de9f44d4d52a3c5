//! Which of their own times devices on text lines have told: each logged interval is stored once.
//!
//! Within a run a bus that begins anew gets the times from the one before ([`DeviceTimes`]). Over a restart they lie in
//! `<spool dir>/learned/<bus>.times.toml`, as runs of equal steps, since loggers write at equal steps. Only times go there
//! of which the spool said that their readings are on disk (`times`). A time that is there and not in the file is stored a
//! second time, which costs a row; the other way round a reading would be lost. The spool's own
//! newest time of a sensor does not do: that a logger could not be reached is a reading too, and newer than what the
//! logger wrote meanwhile. Beside them lie the times of lines that came damaged: one that comes damaged again is not stored
//! again, and one that comes whole is.
//!
//! Limits: of more than [`RUNS_ON_DISK`] runs only between which times the oldest lay is known after a restart, as in
//! memory of many more (`remembered`); a reading that went from memory while the disk refused stays told within the run, and
//! from then on the file is not written: after the next start what was told since is stored. A file of an earlier version called all stored that was older than its runs, which was
//! not so: its `forgotten_to_us` is not read, so that what it hides is stored once more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::sensor::SensorId;

use super::remembered::{RANGES_MAX, RUNS_MAX, Run, StoredTimes};

/// How many runs of equal steps of a sensor are kept on disk: a card is written to each minute.
const RUNS_ON_DISK: usize = 64;

const VERSION: u32 = 1;

/// Which of their own times devices have told, kept for buses that begin anew: neither a reload nor a bus whose code
/// failed stores a logged interval a second time. And which readings on their way to the spool have such a time and cannot show it.
#[derive(Debug, Clone, Default)]
pub struct DeviceTimes {
    told: Arc<Mutex<HashMap<SensorId, ToldTimes>>>,
    /// Of readings without a value: the same could be said of a slot.
    on_their_way: Arc<Mutex<HashSet<(SensorId, i64, Cause)>>>,
}

/// Which of its own times a device told of a sensor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ToldTimes {
    /// With a value, or with the word that there is none.
    pub(super) stored: StoredTimes,
    /// Lines had no number: damaged on their way, they may come whole.
    pub(super) unread: StoredTimes,
}

impl ToldTimes {
    pub(super) fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.unread.is_empty()
    }

    /// Knows what another file says of the same sensor as well.
    pub(super) fn merge(&mut self, other: Self) {
        self.stored.merge(other.stored);
        self.unread.merge(other.unread);
    }
}

impl DeviceTimes {
    pub(super) fn take(&self, sensor: &SensorId) -> Option<ToldTimes> {
        self.all().remove(sensor)
    }

    pub(super) fn put(&self, sensor: &SensorId, times: ToldTimes) {
        if !times.is_empty() {
            self.all().insert(sensor.clone(), times);
        }
    }

    /// A reading whose time is its device's goes to whoever dates readings, and is asked for there once.
    pub(super) fn note_own(&self, reading: &Reading) {
        if let Some(cause) = reading.cause {
            locked(&self.on_their_way).insert((reading.sensor.clone(), reading.time_us, cause));
        }
    }

    /// Whether a reading came with its device's own time. It is there now, and is not asked for again.
    pub(crate) fn take_own(&self, reading: &Reading) -> bool {
        let own = reading.cause.map(|cause| (reading.sensor.clone(), reading.time_us, cause));
        own.is_some_and(|own| locked(&self.on_their_way).remove(&own))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SensorId, ToldTimes>> {
        locked(&self.told)
    }
}

/// Whoever panicked with it in hand had changed nothing by halves.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Serialize, Deserialize)]
struct TimesFile {
    version: u32,
    #[serde(default)]
    sensor: Vec<SensorFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SensorFile {
    sensor: String,
    #[serde(default)]
    run: Vec<RunFile>,
    #[serde(default)]
    forgotten: Vec<RangeFile>,
    /// Files of versions before this one have neither of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unread: Vec<RunFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unread_forgotten: Vec<RangeFile>,
}

/// So many times, each one step after the one before.
#[derive(Debug, Serialize, Deserialize)]
struct RunFile {
    first_us: i64,
    step_us: i64,
    count: i64,
}

/// Times between these were told, and are not remembered one by one.
#[derive(Debug, Serialize, Deserialize)]
struct RangeFile {
    first_us: i64,
    last_us: i64,
}

impl RunFile {
    const fn of(run: Run) -> Self {
        let steps = if run.step_us == 0 { 0 } else { (run.last_us - run.first_us) / run.step_us };
        Self { first_us: run.first_us, step_us: run.step_us, count: steps + 1 }
    }

    fn run(&self) -> Option<Run> {
        let steps = self.count.checked_sub(1).filter(|steps| *steps >= 0)?;
        if steps > 0 && self.step_us <= 0 {
            return None;
        }
        let step_us = if steps == 0 { 0 } else { self.step_us };
        let last_us = self.first_us.checked_add(steps.checked_mul(step_us)?)?;
        // Far more than any time that is believed, and little enough to reckon with.
        let is_time = |time_us: i64| time_us.unsigned_abs() < i64::MAX.unsigned_abs() / 4;
        (is_time(self.first_us) && is_time(last_us)).then_some(Run { first_us: self.first_us, last_us, step_us })
    }
}

/// The file's text.
pub(super) fn encode<'times>(times: impl Iterator<Item = (&'times SensorId, &'times ToldTimes)>) -> String {
    let sensor = |(sensor, times): (&SensorId, &ToldTimes)| {
        let (run, forgotten) = on_disk(&times.stored);
        let (unread, unread_forgotten) = on_disk(&times.unread);
        SensorFile { sensor: sensor.to_string(), run, forgotten, unread, unread_forgotten }
    };
    let file =
        TimesFile { version: VERSION, sensor: times.filter(|(_, times)| !times.is_empty()).map(sensor).collect() };
    let head = "# Written by the gateway: which of their own times the devices of this bus have told. Without it what they tell \
                again is stored again.\n";
    head.to_owned() + &toml::to_string(&file).unwrap_or_default()
}

fn on_disk(times: &StoredTimes) -> (Vec<RunFile>, Vec<RangeFile>) {
    let mut kept = times.clone();
    kept.keep(RUNS_ON_DISK);
    let range = |(first_us, last_us): &(i64, i64)| RangeFile { first_us: *first_us, last_us: *last_us };
    (kept.runs().map(RunFile::of).collect(), kept.forgotten().iter().map(range).collect())
}

/// What a file says.
pub(super) fn decode(text: &str) -> Result<HashMap<SensorId, ToldTimes>, String> {
    let file: TimesFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if file.version != VERSION {
        return Err(format!("its version is {}", file.version));
    }
    file.sensor.into_iter().map(SensorFile::times).collect()
}

impl SensorFile {
    fn times(self) -> Result<(SensorId, ToldTimes), String> {
        let sensor = self.sensor.parse().map_err(|_| format!("`{}` is no sensor", self.sensor))?;
        let wrong = || format!("the times of `{}` make no sense", self.sensor);
        let stored = in_memory(&self.run, &self.forgotten).ok_or_else(wrong)?;
        let unread = in_memory(&self.unread, &self.unread_forgotten).ok_or_else(wrong)?;
        Ok((sensor, ToldTimes { stored, unread }))
    }
}

/// What a file has of times, if it makes sense.
fn in_memory(runs: &[RunFile], forgotten: &[RangeFile]) -> Option<StoredTimes> {
    if runs.len() > RUNS_MAX || forgotten.len() > RANGES_MAX {
        return None;
    }
    let runs: Vec<Run> = runs.iter().map(RunFile::run).collect::<Option<_>>()?;
    let are_in_order = runs.is_sorted_by(|run, next| run.last_us < next.first_us);
    if !are_in_order || forgotten.iter().any(|range| range.first_us > range.last_us) {
        return None;
    }
    let forgotten = forgotten.iter().map(|range| (range.first_us, range.last_us));
    Some(StoredTimes::new(runs.into_iter(), forgotten))
}

#[cfg(test)]
mod tests {
    use super::super::remembered::Told;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sensor() -> SensorId {
        "mast/wind".parse().expect("an id")
    }

    fn times(all: impl IntoIterator<Item = i64>) -> StoredTimes {
        let mut stored = StoredTimes::default();
        for time_us in all {
            stored.insert(time_us);
        }
        stored
    }

    /// In the place of either: what is stored, and what could not be read.
    fn again(times: &StoredTimes) -> StoredTimes {
        let told = ToldTimes { stored: times.clone(), unread: times.clone() };
        let kept =
            decode(&encode([(&sensor(), &told)].into_iter())).expect("a file").remove(&sensor()).unwrap_or_default();
        assert_eq!(kept.stored, kept.unread);
        kept.stored
    }

    fn stored(times: StoredTimes) -> ToldTimes {
        ToldTimes { stored: times, ..ToldTimes::default() }
    }

    proptest! {
        /// Over a restart, too: nothing that was stored is new, and nothing that was not is known.
        #[test]
        fn what_was_stored_is_known_after_a_restart(all in prop::collection::vec(0_i64..4_000, 0..600), asked in 0_i64..4_000) {
            let seen: BTreeSet<i64> = all.iter().copied().collect();
            match again(&times(all)).insert(asked) {
                Told::New => prop_assert!(!seen.contains(&asked), "{} is stored twice", asked),
                Told::Repeated => prop_assert!(seen.contains(&asked), "{} is lost", asked),
                Told::Forgotten => prop_assert!(seen.first() <= Some(&asked) && seen.last() >= Some(&asked)),
            }
        }

        #[test]
        fn no_text_is_more_than_it_may_be(first_us: i64, step_us: i64, count: i64, asked: i64) {
            let text = format!("version = 1\n[[sensor]]\nsensor = \"a/b\"\n[[sensor.run]]\nfirst_us = {first_us}\nstep_us = {step_us}\ncount = {count}\n");
            if let Ok(mut times) = decode(&text) {
                // The bus asks only for times that are believed.
                for times in times.values_mut() {
                    let _ = times.stored.insert(asked / 4);
                }
            }
        }
    }

    /// A year of ten-minute values with a hole is two lines of text, and one more where a logger's times have no step.
    #[test]
    fn what_a_logger_wrote_at_equal_steps_is_short() {
        let year = times((0..52_560).rev().filter(|row| *row != 77).map(|row| row * 600_000_000));
        assert_eq!((year.runs().count(), again(&year)), (2, year));
        let uneven = times((0..1_000).map(|row| row * row));
        let kept = again(&uneven);
        assert!(!kept.forgotten().is_empty() && kept.newest_us() == uneven.newest_us());
    }

    /// What an earlier version had not remembered it called stored, though nobody had told it.
    #[test]
    fn what_an_earlier_version_called_stored_is_new() {
        let text = "version = 1\n[[sensor]]\nsensor = \"mast/wind\"\nforgotten_to_us = 50\n[[sensor.run]]\nfirst_us = 60\nstep_us = 10\ncount = 2\n";
        let mut told = decode(text).expect("it is read").remove(&sensor()).expect("it is there");
        assert_eq!(
            [40, 60, 70, 80].map(|time_us| told.stored.insert(time_us)),
            [Told::New, Told::Repeated, Told::Repeated, Told::New]
        );
    }

    #[test]
    fn what_cannot_be_understood_is_said_so() {
        let whole = encode([(&sensor(), &ToldTimes { unread: times([5]), ..stored(times([1, 2, 3, 7])) })].into_iter());
        for text in [
            whole.replace(
                "unread]]\nfirst_us = 5\nstep_us = 0\ncount = 1",
                "unread]]\nfirst_us = 5\nstep_us = 0\ncount = 2",
            ),
            whole.replace("version = 1", "version = 2"),
            whole.replace("count = 3", "count = 0"),
            whole.replace("count = 3", "count = 9"),
            whole.replace("step_us = 1", "step_us = 0"),
            whole.replace("mast/wind", "Mast//"),
            "\u{0}".to_owned(),
        ] {
            assert!(decode(&text).is_err(), "{text}");
        }
    }

    /// After a reload the same dump was stored again.
    #[test]
    fn what_a_bus_has_stored_its_successor_knows() {
        let (times, sensor) = (DeviceTimes::default(), sensor());
        let mut first = times.take(&sensor).unwrap_or_default();
        assert_eq!((first.stored.insert(7), first.unread.insert(9)), (Told::New, Told::New));
        times.put(&sensor, first);
        let mut second = times.take(&sensor).expect("they were put");
        assert_eq!((second.stored.insert(7), second.stored.insert(8)), (Told::Repeated, Told::New));
        assert_eq!((second.unread.insert(9), second.unread.newest_us()), (Told::Repeated, Some(9)));
    }

    /// What versions wrote before damaged lines were remembered, and since.
    #[test]
    fn the_golden_files_are_read() {
        let (before, since) = (
            include_str!("../../../tests/golden/times-1.toml"),
            include_str!("../../../tests/golden/times-1-unread.toml"),
        );
        let hour = || (0..6).map(|row| 1_796_083_200_000_000 + row * 600_000_000);
        let expected = stored(times(hour().chain([1_796_090_000_000_000])));
        let known = decode(before).expect("it is read");
        assert_eq!(known[&sensor()], expected);
        assert_eq!(
            encode([(&sensor(), &expected)].into_iter()),
            before,
            "and is still written so where nothing was damaged"
        );
        let mut expected = expected;
        expected.unread = times([1_796_087_400_000_000]);
        assert_eq!(decode(since).expect("it is read")[&sensor()], expected);
        assert_eq!(encode([(&sensor(), &expected)].into_iter()), since);
    }
}
