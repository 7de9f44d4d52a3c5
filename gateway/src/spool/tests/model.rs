//! What must hold whatever happens: a workload over lives of a spool, and a lake that checks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::keys::Bounds;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SensorId};

use super::super::SpoolSettings;
use super::super::core::Core;
use super::super::recovery::recover;
use super::super::sealed::{SealedKind, SealedObject};
use super::memory::Memory;

pub(super) fn settings(max_bytes: u64) -> SpoolSettings {
    SpoolSettings {
        dir: PathBuf::from("spool"),
        max_bytes,
        sync_every: Duration::from_secs(5),
        source: "landfall-01".parse().expect("valid"),
        configuration: None,
    }
}

pub(super) fn open(disk: &Memory, max_bytes: u64) -> Core {
    recover(Arc::new(disk.clone()), settings(max_bytes), Clock::manual(0))
}

/// The same, where the configuration's file is this one.
pub(super) fn open_under(disk: &Memory, max_bytes: u64, configuration: &str) -> Core {
    let settings = SpoolSettings { configuration: Some(configuration.to_owned()), ..settings(max_bytes) };
    recover(Arc::new(disk.clone()), settings, Clock::manual(0))
}

pub(super) fn sensor(number: u64) -> SensorId {
    format!("tjern-{}/water_temperature", number % 3).parse().expect("valid")
}

/// Readings that can be told apart: the value counts up.
pub(super) fn readings(from: u64, count: u64) -> Vec<Reading> {
    (from..from + count).map(|number| Reading::of(sensor(number), number as i64, number as f64)).collect()
}

/// A lake that takes each key once.
#[derive(Debug, Default)]
pub(super) struct Lake {
    pub(super) objects: BTreeMap<(Epoch, i64, SealedKind), (Bounds, Vec<u8>)>,
    /// Epochs that were left to another spool, which may have sent more of them.
    left: BTreeSet<Epoch>,
}

impl Lake {
    /// Takes an object, or compares it with the one that it has.
    pub(super) fn put(&mut self, object: &SealedObject, bytes: Vec<u8>) -> Result<(), String> {
        let key = (object.epoch, object.bounds.first, object.kind);
        match self.objects.get(&key) {
            Some((bounds, there)) if *bounds == object.bounds && *there == bytes => Ok(()),
            Some(_) => Err(format!("{} has other contents in the lake", object.bounds)),
            None => {
                self.objects.insert(key, (object.bounds, bytes));
                Ok(())
            }
        }
    }

    /// Each epoch's numbers from 1 on, without an overlap, and without a hole where it was not left to another.
    pub(super) fn check_cover(&self) -> Result<(), String> {
        let mut next = HashMap::new();
        for ((epoch, _, kind), (bounds, _)) in &self.objects {
            let next = next.entry(*epoch).or_insert(1);
            if *kind == SealedKind::Closed {
                continue;
            }
            if bounds.first != *next && !(bounds.first > *next && self.left.contains(epoch)) {
                return Err(format!("{epoch}: {bounds} where {next} comes next"));
            }
            *next = bounds.last + 1;
        }
        Ok(())
    }

    /// The numbers told by values, each at most once; and how many numbers gaps cover.
    pub(super) fn values(&self) -> Result<(BTreeSet<u64>, i64), String> {
        let (mut values, mut missing) = (BTreeSet::new(), 0);
        for ((_, _, kind), (bounds, bytes)) in &self.objects {
            match kind {
                SealedKind::Batch => {}
                SealedKind::Gap => missing += bounds.count(),
                SealedKind::Closed => continue,
            }
            if *kind == SealedKind::Batch {
                let batch = batch::decode(bytes).map_err(|error| error.to_string())?;
                for reading in batch.readings().map_err(|error| error.to_string())? {
                    let value = reading.value.ok_or("a reading without a value")? as u64;
                    if !values.insert(value) {
                        return Err(format!("reading {value} is there twice"));
                    }
                }
            }
        }
        Ok((values, missing))
    }
}

/// Sends what is offered; some stays in the spool although the lake has it, as when a reply is lost.
pub(super) fn upload(core: &mut Core, lake: &mut Lake, forget: impl Fn(&SealedObject) -> bool) -> Result<(), String> {
    for object in core.offered() {
        let Ok(bytes) = core.disk.read(&object.path()) else { continue };
        lake.put(&object, bytes)?;
        if !forget(&object) {
            core.shelf.remove(&object);
        }
    }
    Ok(())
}

/// What was done over all lives.
#[derive(Debug, Default)]
pub(super) struct History {
    appended: u64,
    acknowledged: BTreeSet<u64>,
    /// From which reading on which configuration was in force.
    measured: BTreeMap<u64, String>,
    /// A record of the log was bad at a start: what is behind it may name no configuration.
    has_bad_records: bool,
    pub(super) lake: Lake,
}

impl History {
    /// Another configuration, for what is read from now on.
    fn another(&mut self, random: &mut fastrand::Rng) -> String {
        let configuration = format!("{:064x}", random.u8(..4));
        self.measured.insert(self.appended, configuration.clone());
        configuration
    }

    /// A start, perhaps with another file than the one before.
    fn open_under_another(&mut self, disk: &Memory, random: &mut fastrand::Rng) -> Core {
        let core = open_under(disk, 1 << 20, &self.another(random));
        self.has_bad_records |= core.bad_records > 0;
        core
    }

    /// Each batch names the configuration that its readings were measured under: by another one wrong values are right.
    fn check_configurations(&self) -> Result<(), String> {
        for ((_, _, kind), (bounds, bytes)) in &self.lake.objects {
            if *kind != SealedKind::Batch {
                continue;
            }
            let batch = batch::decode(bytes).map_err(|error| error.to_string())?;
            for reading in batch.readings().map_err(|error| error.to_string())? {
                let number = reading.value.ok_or("a reading without a value")? as u64;
                let measured = self.measured.range(..=number).next_back().map(|(_, configuration)| configuration);
                let named = batch.header.configuration.as_ref();
                if named != measured && !(named.is_none() && self.has_bad_records) {
                    return Err(format!("{bounds}: reading {number} is under {named:?}, and was under {measured:?}"));
                }
            }
        }
        Ok(())
    }
}

/// A life of a spool: random steps until they are done or the power is cut. What was not acknowledged may
/// be lost, as a process loses what it had in memory.
pub(super) fn live(disk: &Memory, steps: u64, random: &mut fastrand::Rng, history: &mut History) -> Result<(), String> {
    let mut core = history.open_under_another(disk, random);
    // What the disk did not let it read it reads later, and begins with what came meanwhile.
    let mut is_read = core.recovery_due.is_none();
    if is_read && !disk.is_cut() {
        check_newest(&core, history)?;
    }
    let mut since = history.appended;
    for _ in 0..steps {
        if disk.is_cut() {
            break;
        }
        match random.u8(..42) {
            0..20 => {
                let count = random.u64(1..200);
                core.append(readings(history.appended, count));
                history.appended += count;
            }
            20..30 => {
                if core.sync() {
                    if !std::mem::replace(&mut is_read, true) {
                        check_newest(&core, history)?;
                    }
                    history.acknowledged.extend(since..history.appended);
                    since = history.appended;
                }
            }
            30..34 => drop(core.seal()),
            34..39 => {
                let lost = random.bool();
                upload(&mut core, &mut history.lake, |object| lost && object.bounds.first % 2 == 0)?;
            }
            39..41 => {
                // As a reload does it.
                core.seal();
                core.set_configuration(history.another(random));
            }
            _ => {
                // What the lake has leaves first; where that cannot be read, the uploader begins no epoch.
                upload(&mut core, &mut history.lake, |_| false)?;
                if core.offered().is_empty() {
                    history.lake.left.insert(core.log.epoch);
                    core.renew(&HashMap::new());
                }
            }
        }
    }
    Ok(())
}

/// The last life: everything goes out, and is counted.
pub(super) fn settle(disk: &Memory, history: &mut History) -> Result<(), String> {
    let mut core = history.open_under_another(disk, &mut fastrand::Rng::with_seed(0));
    if core.recovery_due.is_some() {
        return Err("a disk that is well was not read at once".to_owned());
    }
    check_newest(&core, history)?;
    if !core.seal() {
        return Err("the spool did not seal".to_owned());
    }
    upload(&mut core, &mut history.lake, |_| false)?;
    history.lake.check_cover()?;
    let (values, _) = history.lake.values()?;
    history.check_configurations()?;
    match history.acknowledged.difference(&values).next() {
        Some(lost) => Err(format!("reading {lost} was acknowledged and is lost")),
        None => Ok(()),
    }
}

/// A slot that was acknowledged is known, or a restart within it would give it twice.
fn check_newest(core: &Core, history: &History) -> Result<(), String> {
    for number in history.acknowledged.iter().rev().take(3) {
        if super::super::locked(&core.known).newest_us(&sensor(*number)).is_none_or(|time_us| time_us < *number as i64)
        {
            return Err(format!("the slot of reading {number} is forgotten"));
        }
    }
    Ok(())
}
