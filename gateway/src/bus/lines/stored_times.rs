//! Which of their own times devices on text lines have told: each logged interval is stored once.
//!
//! Within a run a bus that begins anew gets the times from the one before ([`DeviceTimes`]). Over a restart they lie in
//! `<spool dir>/learned/<bus>.times.toml`, as runs of equal steps, since loggers write at equal steps. Only times go there
//! that are a while old: what is called stored has to be in the spool by then, on disk. A time that is there and not
//! in the file is stored a second time, which costs a row; the other way round a reading would be lost. The spool's own
//! newest time of a sensor does not do: that a logger could not be reached is a reading too, and newer than what the
//! logger wrote meanwhile.
//!
//! Limits: what is older than [`TIMES_MAX`] times or [`RUNS_MAX`] runs counts as stored; a power cut in the moment
//! between the end of a bus and the spool's next sync may lose what came right before.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tjern_readings::sensor::SensorId;

/// How many of a sensor's newest times are remembered: what is older counts as stored.
pub(super) const TIMES_MAX: usize = 4_096;

/// How many runs of equal steps of them are kept on disk.
const RUNS_MAX: usize = 64;

const VERSION: u32 = 1;

/// Which of their own times devices have told, kept for buses that begin anew: neither a reload nor a bus whose code
/// failed stores a logged interval a second time.
#[derive(Debug, Clone, Default)]
pub struct DeviceTimes(Arc<Mutex<HashMap<SensorId, StoredTimes>>>);

impl DeviceTimes {
    pub(super) fn take(&self, sensor: &SensorId) -> Option<StoredTimes> {
        self.all().remove(sensor)
    }

    pub(super) fn put(&self, sensor: &SensorId, times: StoredTimes) {
        if !times.is_empty() {
            self.all().insert(sensor.clone(), times);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SensorId, StoredTimes>> {
        // Whoever panicked with it in hand had changed nothing by halves.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The times of one sensor that were stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredTimes {
    newest: BTreeSet<i64>,
    forgotten_to_us: Option<i64>,
}

impl StoredTimes {
    fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.forgotten_to_us.is_none()
    }

    pub(super) fn newest_us(&self) -> Option<i64> {
        self.newest.last().copied().max(self.forgotten_to_us)
    }

    /// Whether the time is new.
    pub(super) fn insert(&mut self, time_us: i64) -> bool {
        if self.forgotten_to_us >= Some(time_us) || !self.newest.insert(time_us) {
            return false;
        }
        if self.newest.len() > TIMES_MAX {
            self.forgotten_to_us = self.newest.pop_first();
        }
        true
    }
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
    forgotten_to_us: Option<i64>,
    #[serde(default)]
    run: Vec<Run>,
}

/// So many times, each one step after the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    first_us: i64,
    step_us: i64,
    count: usize,
}

impl Run {
    fn times(self) -> impl Iterator<Item = i64> {
        (0..self.count).map_while(move |index| {
            self.step_us.checked_mul(i64::try_from(index).ok()?).and_then(|after| self.first_us.checked_add(after))
        })
    }

    fn last_us(self) -> Option<i64> {
        self.times().last()
    }
}

fn runs(times: &BTreeSet<i64>) -> Vec<Run> {
    let (mut runs, mut last_us) = (Vec::<Run>::new(), 0);
    for time_us in times.iter().copied() {
        match runs.last_mut() {
            Some(run) if run.count == 1 => (run.step_us, run.count) = (time_us - run.first_us, 2),
            Some(run) if time_us - last_us == run.step_us => run.count += 1,
            _ => runs.push(Run { first_us: time_us, step_us: 0, count: 1 }),
        }
        last_us = time_us;
    }
    runs
}

/// The file's text.
pub(super) fn encode<'times>(times: impl Iterator<Item = (&'times SensorId, &'times StoredTimes)>) -> String {
    let sensor = |(sensor, times): (&SensorId, &StoredTimes)| {
        let mut run = runs(&times.newest);
        let surplus = run.len().saturating_sub(RUNS_MAX);
        let forgotten = run.drain(..surplus).next_back().and_then(Run::last_us);
        SensorFile { sensor: sensor.to_string(), forgotten_to_us: forgotten.max(times.forgotten_to_us), run }
    };
    let file =
        TimesFile { version: VERSION, sensor: times.filter(|(_, times)| !times.is_empty()).map(sensor).collect() };
    let head = "# Written by the gateway: which of their own times the devices of this bus have told. Without it what they tell \
                again is stored again.\n";
    head.to_owned() + &toml::to_string(&file).unwrap_or_default()
}

/// What a file says.
pub(super) fn decode(text: &str) -> Result<HashMap<SensorId, StoredTimes>, String> {
    let file: TimesFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if file.version != VERSION {
        return Err(format!("its version is {}", file.version));
    }
    let times = |file: SensorFile| {
        let count = file.run.iter().fold(0_usize, |count, run| count.saturating_add(run.count));
        if count > TIMES_MAX || file.run.iter().any(|run| run.count > 1 && run.step_us <= 0) {
            return Err(format!("{count} times of `{}`", file.sensor));
        }
        let newest = file.run.iter().copied().flat_map(Run::times).collect();
        let sensor = file.sensor.parse().map_err(|_| format!("`{}` is no sensor", file.sensor))?;
        Ok((sensor, StoredTimes { newest, forgotten_to_us: file.forgotten_to_us }))
    };
    file.sensor.into_iter().map(times).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    fn again(stored: &StoredTimes) -> StoredTimes {
        decode(&encode([(&sensor(), stored)].into_iter())).expect("a file").remove(&sensor()).unwrap_or_default()
    }

    proptest! {
        #[test]
        fn a_time_is_stored_once(times in prop::collection::vec(0_i64..20, 0..60)) {
            let (mut stored, mut seen) = (StoredTimes::default(), std::collections::HashSet::new());
            for time_us in times {
                prop_assert_eq!(stored.insert(time_us), seen.insert(time_us));
            }
        }

        /// Over a restart, too: nothing that was stored is new, and whatever was not and is no older than all runs is.
        #[test]
        fn what_was_stored_is_known_after_a_restart(all in prop::collection::vec(0_i64..400, 0..300), asked in 0_i64..400) {
            let stored = times(all.iter().copied());
            let mut after = again(&stored);
            let is_new = after.insert(asked);
            prop_assert!(!(is_new && all.contains(&asked)), "{} is stored twice", asked);
            prop_assert!(is_new || all.contains(&asked) || again(&stored).forgotten_to_us >= Some(asked));
        }

        #[test]
        fn no_text_is_more_than_it_may_be(first_us: i64, step_us: i64, count in 0_usize..=TIMES_MAX) {
            let text = format!("version = 1\n[[sensor]]\nsensor = \"a/b\"\n[[sensor.run]]\nfirst_us = {first_us}\nstep_us = {step_us}\ncount = {count}\n");
            if let Ok(times) = decode(&text) {
                prop_assert!(times.values().all(|times| times.newest.len() <= TIMES_MAX));
            }
        }
    }

    /// A year of ten-minute values with a hole is two lines of text.
    #[test]
    fn what_a_logger_wrote_at_equal_steps_is_short() {
        let stored = times((0..4_000).filter(|row| *row != 77).map(|row| row * 600_000_000));
        assert_eq!((runs(&stored.newest).len(), again(&stored)), (2, stored));
        let uneven = times((0..1_000).map(|row| row * row));
        let kept = again(&uneven);
        assert!(kept.forgotten_to_us.is_some() && kept.newest_us() == uneven.newest_us());
    }

    #[test]
    fn what_cannot_be_understood_is_said_so() {
        let whole = encode([(&sensor(), &times([1, 2, 3]))].into_iter());
        for text in [
            whole.replace("version = 1", "version = 2"),
            whole.replace("count = 3", "count = 5000"),
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
        assert!(first.insert(7));
        times.put(&sensor, first);
        let mut second = times.take(&sensor).expect("they were put");
        assert!(!second.insert(7) && second.insert(8));
    }

    /// A logger that prints its whole memory at every poll fills neither memory nor the lake.
    #[test]
    fn what_is_forgotten_counts_as_stored() {
        let mut stored = StoredTimes::default();
        let times = 0..3 * i64::try_from(TIMES_MAX).expect("small");
        assert!(times.clone().all(|time_us| stored.insert(time_us)));
        assert!(times.clone().all(|time_us| !stored.insert(time_us)));
        assert!(stored.insert(times.end) && stored.newest.len() == TIMES_MAX);
    }
}
