//! Which windows a rollup has to compute again: those that new readings touched.
//!
//! A reading touches the window that it is in. For counters it also touches the next window that has
//! a good value, since the step into that one starts from it. A sensor that was registered after
//! its readings came, as something else than what is assumed of unknown ones, touches all its windows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tjern_lake::DataFile;

use super::RollupError;
use super::compute::Nature;
use super::read::Source;
use super::windows::{Finder, Grid, Window, month};
use crate::register::{Kind, SensorRow, Versioned, newest};

/// Windows of some sensors.
pub(crate) type Windows = HashMap<String, BTreeSet<Window>>;

/// What has to be computed again.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Every window there is.
    Everything,
    /// These windows, by the month (UTC) that they start in.
    Touched(BTreeMap<Window, Windows>),
}

/// What is known of sensors, registered now or once: kinds do not change, so what was closed counts.
#[derive(Debug, Default)]
pub(crate) struct Natures {
    natures: HashMap<String, Nature>,
    first_registered_us: HashMap<String, i64>,
    /// The newest row that is taken into account.
    pub(crate) newest_us: i64,
}

impl Natures {
    pub(crate) fn of(history: &[Versioned<SensorRow>]) -> Self {
        let mut known = Self::default();
        for (id, row) in newest(history, |row| row.id.as_str()) {
            known.natures.insert(id.to_owned(), Nature { kind: row.row.kind, radians: row.row.unit == "rad" });
        }
        for row in history {
            let first = known.first_registered_us.entry(row.row.id.as_str().to_owned()).or_insert(i64::MAX);
            *first = row.valid_from_us.min(*first);
            known.newest_us = known.newest_us.max(row.valid_from_us);
        }
        known
    }

    pub(crate) fn get(&self, sensor: &str) -> Nature {
        self.natures.get(sensor).copied().unwrap_or(Nature::UNKNOWN)
    }

    pub(crate) fn is_counter(&self, sensor: &str) -> bool {
        self.get(sensor).kind == Kind::Counter
    }

    /// The sensors that were first registered after a moment as what unknown ones are not.
    fn new_since(&self, seen_us: i64) -> BTreeSet<String> {
        let new =
            self.first_registered_us.iter().filter(|(id, first)| **first > seen_us && self.get(id) != Nature::UNKNOWN);
        new.map(|(id, _)| id.clone()).collect()
    }
}

/// The windows that the rows of `added` touch, and those of sensors registered after
/// `register_seen_us`.
pub(crate) async fn touched(
    source: &Source,
    added: Vec<DataFile>,
    natures: &Natures,
    register_seen_us: i64,
    grid: &Grid,
) -> Result<Scope, RollupError> {
    let mut windows = Windows::new();
    let mut finder = Finder::new(grid);
    let mut touch = |sensor: &str, time_us: i64, kind: Kind| {
        let window = finder.window_of(time_us, kind);
        match windows.get_mut(sensor) {
            Some(known) => _ = known.insert(window),
            None => _ = windows.insert(sensor.to_owned(), BTreeSet::from([window])),
        }
    };
    source.each_row(added, None, |sensor, time_us| touch(sensor, time_us, natures.get(sensor).kind)).await?;
    let new = natures.new_since(register_seen_us);
    if !new.is_empty() {
        let take = |sensor: &str, time_us: i64| {
            if new.contains(sensor) {
                touch(sensor, time_us, natures.get(sensor).kind);
                // Where it was counted while nobody had registered it.
                touch(sensor, time_us, Nature::UNKNOWN.kind);
            }
        };
        source.each_row(source.table().files(), Some(&new), take).await?;
    }
    follow_counters(source, natures, grid, &mut windows).await?;
    Ok(Scope::Touched(by_month(windows)))
}

/// What is touched, and these windows, with those that follow them for counters.
pub(crate) async fn and_windows(
    scope: Scope,
    source: &Source,
    mut windows: Windows,
    natures: &Natures,
    grid: &Grid,
) -> Result<Scope, RollupError> {
    follow_counters(source, natures, grid, &mut windows).await?;
    let Scope::Touched(mut months) = scope else { return Ok(scope) };
    for (month, windows) in by_month(windows) {
        let known = months.entry(month).or_default();
        for (sensor, windows) in windows {
            known.entry(sensor).or_default().extend(windows);
        }
    }
    Ok(Scope::Touched(months))
}

/// Adds the window that each touched window of a counter is followed by.
async fn follow_counters(
    source: &Source,
    natures: &Natures,
    grid: &Grid,
    windows: &mut Windows,
) -> Result<(), RollupError> {
    let counters = windows.iter().filter(|(sensor, _)| natures.is_counter(sensor));
    let ends = counters.map(|(sensor, windows)| (sensor.clone(), windows.iter().map(|window| window.end_us).collect()));
    let ends: HashMap<String, BTreeSet<i64>> = ends.collect();
    if ends.is_empty() {
        return Ok(());
    }
    let mut finder = Finder::new(grid);
    for (sensor, time_us) in source.first_after(&ends).await? {
        let window = finder.window_of(time_us, Kind::Counter);
        windows.entry(sensor).or_default().insert(window);
    }
    Ok(())
}

fn by_month(windows: Windows) -> BTreeMap<Window, Windows> {
    let mut months: BTreeMap<Window, Windows> = BTreeMap::new();
    for (sensor, windows) in windows {
        for window in windows {
            let month = months.entry(month(window.start_us)).or_default();
            match month.get_mut(&sensor) {
                Some(known) => _ = known.insert(window),
                None => _ = month.insert(sensor.clone(), BTreeSet::from([window])),
            }
        }
    }
    months
}
