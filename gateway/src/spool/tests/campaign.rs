//! The campaign: every boundary of a workload is a crash image, and of each image everything is asked that a
//! spool promises.
//!
//! A workload of [`STEPS`] steps (append, sync, seal, upload and remove with replies that get lost, a process that is
//! killed, a power cut, a disk that refuses, a folder that is away for a while, a bound that is lowered, a takeover, a new epoch for what is new) runs on a disk that hands out its state
//! before every write, sync, rename and unlink. Of each state [`CRASHES`] are images. On each, the spool
//! must start, read each byte of the log at most once, have everything that was acknowledged, and have each
//! number once: what the lake has, what is sealed and what is not cover each epoch from 1 on without a hole or an
//! overlap, what the lake has is never offered under other bounds, and the word that an epoch is finished names its last
//! number, and never that of the one that goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tjern_readings::batch;
use tjern_readings::keys::Bounds;
use tjern_readings::sensor::Epoch;

use super::super::core::{Core, Piece};
use super::super::sealed::{SealedKind, SealedObject};
use super::super::segment::RECORDS_AT;
use super::memory::{Batches, Crash, EIO, ENOSPC, Lie, Memory, Plan, Snapshot};
use super::model::{open_under, readings};

/// Steps of one workload.
const STEPS: u64 = 200;

/// What is looked at of each boundary.
const CRASHES: [Crash; 6] = [Crash::Nothing, Crash::All, Crash::Torn, Crash::Torn, Crash::Sectors, Crash::Sectors];

/// The most workloads that are run to reach each rare branch.
const WORKLOADS_MAX: u64 = 8;

/// Room for everything, and for a segment and little else.
const ROOMY: u64 = 1 << 20;
const TIGHT: u64 = 140 << 10;

/// So few readings wait in memory here, so that the ring is reached.
const RING: usize = 40;

/// So few gaps wait side by side, so that one is widened.
const GAPS: usize = 1;

/// Readings that are appended to an image have values from here on.
const AFTERWARDS: u64 = 1_000_000;

/// What is broken: a campaign that does not find that out is worth nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Variant {
    pub(super) lie: Lie,
    /// A restart begins with a number that was given.
    pub(super) reuses_numbers: bool,
}

/// The epoch and the numbers that `<epoch>/<first>-<last>` names.
fn named(name: &str) -> Option<(Epoch, Bounds)> {
    let (epoch, bounds) = name.split_once('/')?;
    let (first, last) = bounds.split_once('-')?;
    Some((epoch.parse().ok()?, Bounds { first: first.parse().ok()?, last: last.parse().ok()? }))
}

/// How often each rare branch was reached.
#[derive(Debug, Default)]
pub(super) struct Reached {
    pub(super) images: AtomicU64,
    pub(super) torn_tail: AtomicU64,
    pub(super) bad_record: AtomicU64,
    pub(super) resync: AtomicU64,
    pub(super) unreadable_block: AtomicU64,
    pub(super) gap: AtomicU64,
    pub(super) widened_gap: AtomicU64,
    pub(super) full_spool: AtomicU64,
    pub(super) full_disk: AtomicU64,
    pub(super) ring: AtomicU64,
    pub(super) folder_away: AtomicU64,
    pub(super) takeover: AtomicU64,
    pub(super) live_epoch: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) lost_reply: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) other_configuration: AtomicU64,
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// What is known outside of the spool, in the order in which it came about.
#[derive(Debug, Clone)]
enum Event {
    Acknowledged(std::ops::Range<u64>),
    Landed(SealedObject, Arc<Vec<u8>>),
    Left(Epoch),
}

/// The values of a batch.
type Values = Arc<Vec<u64>>;

/// What the lake has. Of a batch two with one first number are two spools' word.
type InLake = HashMap<Key, (SealedObject, Arc<Vec<u8>>)>;

/// Epoch, first number, last number of a gap, and kind. An epoch has one word of its end, whatever number stands in it.
type Key = (Epoch, i64, i64, SealedKind);

fn key_of(object: &SealedObject) -> Key {
    let Bounds { first, last } = object.bounds;
    match object.kind {
        SealedKind::Batch => (object.epoch, first, 0, SealedKind::Batch),
        SealedKind::Gap => (object.epoch, first, last, SealedKind::Gap),
        SealedKind::Closed => (object.epoch, 0, 0, SealedKind::Closed),
    }
}

/// The events, and how many there are, for the disk's snapshots.
#[derive(Debug, Default)]
struct Log {
    events: Mutex<Vec<Event>>,
    marks: Arc<Mutex<usize>>,
    values: Mutex<HashMap<(Epoch, Bounds, u32), Values>>,
    /// From which values on another configuration was in force, which is named by that value.
    measured: Mutex<BTreeSet<u64>>,
}

/// The configuration that is in force from this value on.
fn configuration_from(value: u64) -> String {
    format!("{value:064x}")
}

impl Log {
    fn note(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
        *self.marks.lock().unwrap_or_else(PoisonError::into_inner) = events.len();
    }

    /// From this value on it is this configuration.
    fn measure(&self, value: u64) -> String {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).insert(value);
        configuration_from(value)
    }

    /// Whether a value was measured under the configuration that is named; nothing is said where none is.
    fn check_measured(&self, value: u64, named: Option<&str>) -> Result<(), String> {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let right = measured.range(..=value).next_back().map(|from| configuration_from(*from));
        match named {
            Some(named) if right.as_deref() != Some(named) => {
                Err(format!("{value} is under {named}, and was under {right:?}"))
            }
            _ => Ok(()),
        }
    }

    /// The values in a batch, which are the same whenever it is asked for.
    fn values(&self, epoch: Epoch, bounds: Bounds, bytes: &[u8]) -> Result<Values, String> {
        let key = (epoch, bounds, crc32c::crc32c(bytes));
        let known = self.values.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(values) = known {
            return Ok(values);
        }
        let batch = batch::decode(bytes).map_err(|error| format!("{epoch} {bounds}: {error}"))?;
        let readings = batch.readings().map_err(|error| error.to_string())?;
        let values: Values =
            Arc::new(readings.iter().filter_map(|reading| reading.value).map(|value| value as u64).collect());
        let named = batch.header.configuration.as_deref();
        values.iter().try_for_each(|value| self.check_measured(*value, named))?;
        self.values.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&values));
        Ok(values)
    }
}

impl Reached {
    /// Whether there was none that was not reached.
    pub(super) fn all(&self) -> bool {
        let Self { torn_tail, bad_record, resync, unreadable_block, gap, full_spool, full_disk, ring, .. } = self;
        let rare = [torn_tail, bad_record, resync, unreadable_block, gap, full_spool, full_disk, ring];
        let rare = rare.into_iter().chain([&self.takeover, &self.live_epoch, &self.closed, &self.widened_gap]);
        let rare = rare.chain([&self.lost_reply, &self.bytes_read, &self.folder_away, &self.other_configuration]);
        rare.into_iter().all(|counter| counter.load(Ordering::Relaxed) > 0)
    }
}

/// Runs workloads from this seed on until so many images were looked at, and each rare branch was reached.
pub(super) fn run(seed: u64, images: u64, variant: Variant, reached: &Reached) -> Result<(), String> {
    for seed in (0..WORKLOADS_MAX).map(|more| seed.wrapping_add(more)) {
        one(seed, variant, reached).map_err(|error| format!("TJERN_SEED={seed}: {error}"))?;
        if reached.images.load(Ordering::Relaxed) >= images && reached.all() {
            break;
        }
    }
    Ok(())
}

fn one(seed: u64, variant: Variant, reached: &Reached) -> Result<(), String> {
    let log = Log::default();
    let (snapshots, received) = sync_channel(64);
    let disk = Memory::new(Plan::Well).telling(variant.lie).watched(snapshots, Arc::clone(&log.marks));
    let checker =
        Checker { log: &log, batches: Arc::clone(&disk.batches), variant, reached, failed: AtomicBool::new(false) };
    let received = Mutex::new(received);
    std::thread::scope(|scope| {
        let checkers = [seed, !seed].map(|seed| {
            scope.spawn({
                let (checker, received) = (&checker, &received);
                move || checker.all(received, seed)
            })
        });
        let worked = Workload::new(&disk, seed, &checker).and_then(Workload::run);
        // The last sender: the checkers end once they have looked at everything.
        drop(disk);
        let checked = checkers.map(|checker| checker.join().unwrap_or_else(|_| Err("a check panicked".to_owned())));
        worked.and(checked.into_iter().collect())
    })
}

fn start(disk: &Memory, max_bytes: u64, variant: Variant, configuration: &str) -> Result<Core, String> {
    let mut core = open_under(disk, max_bytes, configuration);
    if core.recovery_due.is_some() {
        return Err("the spool did not start: its folder was not read".to_owned());
    }
    (core.pending_max, core.shelf.gaps_max) = (RING, GAPS);
    if variant.reuses_numbers && core.synced_seq > core.sealed_to {
        core.synced_seq -= 1;
    }
    Ok(core)
}

/// What is done to a spool.
struct Workload<'a> {
    disk: Memory,
    checker: &'a Checker<'a>,
    random: fastrand::Rng,
    core: Core,
    appended: u64,
    /// From here on nothing was acknowledged.
    since: u64,
    /// Readings that the spool says it lost, as of the last sync.
    dropped: u64,
    landed: BTreeSet<Key>,
}

impl<'a> Workload<'a> {
    fn new(disk: &Memory, seed: u64, checker: &'a Checker<'a>) -> Result<Self, String> {
        let core = start(disk, ROOMY, checker.variant, &checker.log.measure(0))?;
        let random = fastrand::Rng::with_seed(seed);
        Ok(Self {
            disk: disk.clone(),
            checker,
            random,
            core,
            appended: 0,
            since: 0,
            dropped: 0,
            landed: BTreeSet::new(),
        })
    }

    fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
            if self.checker.failed.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.u8(..100) {
            0..38 => self.append(),
            38..40 => self.be_away()?,
            40..58 => self.sync(),
            58..68 => {
                self.core.seal();
            }
            68..82 => self.upload(true)?,
            82..86 => self.restart(ROOMY)?,
            86..89 => {
                let crash = [Crash::Torn, Crash::Sectors][self.random.usize(..2)];
                self.disk.cut_power(crash, &mut self.random);
                self.restart(ROOMY)?;
            }
            89..93 => self.fill()?,
            93..96 => self.refuse(),
            96..98 => self.turn(),
            _ => self.take_over()?,
        }
        Ok(())
    }

    fn append(&mut self) {
        let count = self.random.u64(1..12);
        if self.random.u8(..10) == 0 {
            // As a reload does it, also one whose disk refuses to seal.
            if self.random.bool() {
                self.core.seal();
            }
            let configuration = self.checker.log.measure(self.appended);
            self.core.set_configuration(configuration);
        }
        self.core.append(readings(self.appended, count));
        self.appended += count;
    }

    fn sync(&mut self) {
        if self.core.sync() {
            self.acknowledge();
        }
    }

    /// All that was appended is on disk.
    fn acknowledge(&mut self) {
        // Where the ring overflowed, which of them went is not known here.
        if self.core.dropped_readings == self.dropped {
            self.checker.log.note(Event::Acknowledged(self.since..self.appended));
        }
        (self.since, self.dropped) = (self.appended, self.core.dropped_readings);
    }

    /// What the lake has leaves the spool, but for some whose reply is lost.
    fn upload(&mut self, loses_replies: bool) -> Result<(), String> {
        for object in self.core.offered() {
            let Ok(bytes) = self.core.disk.read(&object.path()) else { continue };
            if self.landed.insert(key_of(&object)) {
                self.checker.log.note(Event::Landed(object.clone(), Arc::new(bytes)));
            }
            if loses_replies && self.random.u8(..4) == 0 {
                count(&self.checker.reached.lost_reply, 1);
            } else {
                self.core.remove(&object);
            }
        }
        Ok(())
    }

    /// The process is killed: what it had in memory is gone.
    fn restart(&mut self, max_bytes: u64) -> Result<(), String> {
        self.since = self.appended;
        let configuration = self.checker.log.measure(self.appended);
        self.core = start(&self.disk, max_bytes, self.checker.variant, &configuration)?;
        self.dropped = self.core.dropped_readings;
        Ok(())
    }

    /// A bound that leaves no room for what is there: the oldest batches go.
    fn fill(&mut self) -> Result<(), String> {
        self.core.seal();
        self.restart(TIGHT)?;
        for _ in 0..4 {
            self.append();
            self.sync();
            self.core.seal();
        }
        let reached = self.checker.reached;
        count(&reached.full_spool, self.core.dropped_batches);
        let widened = self.core.shelf.objects.iter().filter(|object| self.checker.is_widened(object));
        count(&reached.widened_gap, widened.count() as u64);
        self.restart(ROOMY)
    }

    /// A disk that refuses for a while, and readings that come all the same.
    fn refuse(&mut self) {
        let error = if self.random.bool() { EIO } else { ENOSPC };
        self.disk.refuse(self.random.u64(1..40), error);
        let dropped = self.core.dropped_readings;
        let reached = self.checker.reached;
        for _ in 0..20 {
            self.append();
            self.sync();
            count(&reached.full_disk, u64::from(error == ENOSPC && self.core.in_trouble()));
        }
        while self.core.in_trouble() {
            self.core.sync();
        }
        count(&reached.ring, u64::from(self.core.dropped_readings > dropped));
    }

    /// The folder is away for a while, and nothing that waits in it is found.
    fn be_away(&mut self) -> Result<(), String> {
        let before = self.core.offered();
        self.disk.take_away();
        for _ in 0..self.random.u8(1..8) {
            self.append();
            if self.core.sync() || self.core.seal() {
                return Err("readings were acknowledged in a folder of another".to_owned());
            }
            before.iter().for_each(|object| self.core.give_up(object));
        }
        self.disk.give_back();
        if self.core.offered() != before {
            return Err(format!("{before:?} became {:?} while the folder was away", self.core.offered()));
        }
        while self.core.in_trouble() {
            self.core.sync();
        }
        count(&self.checker.reached.folder_away, before.len() as u64);
        Ok(())
    }

    /// What waits drains under its epoch, and what is new has another. Mostly something waits.
    fn turn(&mut self) {
        if self.random.u8(..4) > 0 {
            self.append();
        }
        if self.core.begin_live_epoch() {
            self.acknowledge();
            count(&self.checker.reached.live_epoch, 1);
        }
    }

    /// Another spool was found under these numbers.
    fn take_over(&mut self) -> Result<(), String> {
        self.upload(false)?;
        if self.core.offered().is_empty() {
            self.checker.log.note(Event::Left(self.core.log.epoch));
            if self.core.renew(&HashMap::new()) {
                count(&self.checker.reached.takeover, 1);
            }
        }
        Ok(())
    }
}

/// What is asked of an image.
struct Checker<'a> {
    log: &'a Log,
    batches: Batches,
    variant: Variant,
    reached: &'a Reached,
    failed: AtomicBool,
}

/// Who tells of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Gap,
    /// A batch in the lake: a gap may tell of its numbers too, whose spool did not hear that it had landed.
    Lake,
    Spool,
}

/// Numbers and values as they are told by the lake and the spool together.
#[derive(Default)]
struct Told {
    spans: BTreeMap<Epoch, Vec<(Bounds, By)>>,
    values: HashSet<u64>,
    /// The last numbers of epochs that are said to be finished, in the lake and in the spool.
    closed_in_lake: HashMap<Epoch, i64>,
    closed_in_spool: HashMap<Epoch, i64>,
}

impl Told {
    fn add(&mut self, by: By, epoch: Epoch, bounds: Bounds, values: &[u64]) -> Result<(), String> {
        self.spans.entry(epoch).or_default().push((bounds, by));
        match values.iter().find(|value| !self.values.insert(**value)) {
            Some(value) => Err(format!("reading {value} is there twice, the second time in {bounds} of {epoch}")),
            None => Ok(()),
        }
    }

    /// Whether a gap tells of all these numbers.
    fn has_gap(&self, epoch: Epoch, numbers: Bounds) -> bool {
        let spans = self.spans.get(&epoch).into_iter().flatten();
        spans.into_iter().any(|(bounds, by)| *by == By::Gap && bounds.contains(numbers))
    }

    /// The last number of an epoch.
    fn end(&self, epoch: Epoch) -> i64 {
        self.spans.get(&epoch).into_iter().flatten().map(|(bounds, _)| bounds.last).max().unwrap_or(0)
    }

    /// Whoever is told that an epoch is finished waits for nothing behind its last number, and for all before it.
    fn check_closed(&self, current: Epoch) -> Result<(), String> {
        for (epoch, last) in self.closed_in_lake.iter().chain(&self.closed_in_spool) {
            let ends = self.end(*epoch);
            // A file that came back after a cut is closed behind itself: the lake has the true word already, and keeps it.
            let is_known = self.closed_in_lake.get(epoch) == Some(&ends) && *last < ends;
            if *epoch == current || (*last != ends && !is_known) {
                return Err(format!("{epoch} is closed behind {last}, and ends with {ends}"));
            }
        }
        Ok(())
    }

    /// Each epoch's numbers from 1 on, without a hole where it was not left to another. No two batches have numbers in
    /// common, and no gap and a batch that waits: a gap may lie in a wider one, or tell of what has landed all the same.
    fn check_cover(&mut self, left: &HashSet<Epoch>) -> Result<(), String> {
        for (epoch, spans) in &mut self.spans {
            spans.sort();
            let (gaps, batches): (Vec<_>, Vec<_>) = spans.iter().partition(|(_, by)| *by == By::Gap);
            overlap(&batches).map_err(|what| format!("{epoch}: {what}"))?;
            let waits = |gap: &Bounds| batches.iter().find(|(batch, by)| *by == By::Spool && batch.overlaps(*gap));
            if let Some((gap, (batch, _))) = gaps.iter().find_map(|(gap, _)| Some((gap, waits(gap)?))) {
                return Err(format!("{epoch}: the gap {gap} tells of {batch}, which waits"));
            }
            let mut next = 1;
            for (bounds, _) in spans {
                if bounds.first > next && !left.contains(epoch) {
                    return Err(format!("{epoch}: {bounds} where {next} comes next"));
                }
                next = next.max(bounds.last + 1);
            }
        }
        Ok(())
    }
}

/// Says which of these, which are sorted, have numbers in common.
fn overlap(spans: &[(Bounds, By)]) -> Result<(), String> {
    match spans.windows(2).find(|pair| pair[0].0.overlaps(pair[1].0)) {
        Some(pair) => Err(format!("{} overlaps {}", pair[0].0, pair[1].0)),
        None => Ok(()),
    }
}

impl Checker<'_> {
    fn all(&self, received: &Mutex<Receiver<Snapshot>>, seed: u64) -> Result<(), String> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut result = Ok(());
        loop {
            let next = received.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(snapshot) = next else { return result };
            // After a failure the rest is only taken, so that nobody waits for ever.
            if result.is_ok() && !self.failed.load(Ordering::Relaxed) {
                result = self.boundary(&snapshot, &mut random);
                self.failed.fetch_or(result.is_err(), Ordering::Relaxed);
            }
        }
    }

    fn boundary(&self, (marks, state): &Snapshot, random: &mut fastrand::Rng) -> Result<(), String> {
        for crash in CRASHES {
            let image = Memory::image_of(state, crash, random);
            self.image(&image, *marks).map_err(|error| format!("{crash:?}: {error}"))?;
            count(&self.reached.images, 1);
        }
        if random.u8(..5) == 0 {
            let image = Memory::image_of(state, Crash::All, random);
            self.worn(&image, random).map_err(|error| format!("on a worn disk: {error}"))?;
        }
        Ok(())
    }

    fn image(&self, image: &Memory, marks: usize) -> Result<(), String> {
        let lengths = image.lengths();
        let mut core = start(image, ROOMY, self.variant, &self.log.measure(AFTERWARDS))?;
        self.check_reads(image, &lengths)?;
        count(
            &self.reached.other_configuration,
            u64::from(core.measured.alike(core.sealed_to + 1) < core.unsealed_rows()),
        );
        core.append(readings(AFTERWARDS, 3));
        if !core.sync() {
            return Err("it does not write".to_owned());
        }
        count(&self.reached.torn_tail, core.torn_tails);
        let (mut told, mut left, mut acknowledged) = (Told::default(), HashSet::new(), Vec::new());
        acknowledged.push(AFTERWARDS..AFTERWARDS + 3);
        let mut landed = HashMap::new();
        for event in &self.log.events.lock().unwrap_or_else(PoisonError::into_inner)[..marks] {
            match event {
                Event::Acknowledged(range) => acknowledged.push(range.clone()),
                Event::Left(epoch) => drop(left.insert(*epoch)),
                Event::Landed(object, bytes) => {
                    drop(landed.insert(key_of(object), (object.clone(), Arc::clone(bytes))));
                }
            }
        }
        for (object, bytes) in landed.values() {
            self.tell(&mut told, By::Lake, object, bytes)?;
        }
        self.tell_spool(&core, &mut told, &landed)?;
        told.check_cover(&left)?;
        told.check_closed(core.log.epoch)?;
        count(&self.reached.closed, told.closed_in_lake.len() as u64);
        let last = told.end(core.log.epoch);
        if last != core.synced_seq {
            return Err(format!("the next number is {} behind {last}", core.synced_seq + 1));
        }
        let given_up = self.given_up(image, &told)?;
        let is_lost = |value: &u64| !told.values.contains(value) && !given_up.contains(value);
        let lost: Vec<u64> = acknowledged.into_iter().flatten().filter(is_lost).collect();
        match lost.first() {
            None => Ok(()),
            Some(_) => Err(format!(
                "readings {lost:?} were acknowledged and are lost; the next number is {}, there are {:?}",
                core.synced_seq + 1,
                told.spans
            )),
        }
    }

    /// Recovery reads each byte of the log at most once, and no sealed file.
    fn check_reads(&self, image: &Memory, lengths: &BTreeMap<std::path::PathBuf, u64>) -> Result<(), String> {
        for (path, read) in &image.state().reads {
            let most =
                if path.extension().is_some_and(|kind| kind == "segment") { lengths.get(path).copied() } else { None };
            if *read > most.unwrap_or(0) {
                return Err(format!("{} bytes of {} were read, of {most:?}", read, path.display()));
            }
            count(&self.reached.bytes_read, *read);
        }
        Ok(())
    }

    /// What an object tells.
    fn tell(&self, told: &mut Told, by: By, object: &SealedObject, bytes: &[u8]) -> Result<(), String> {
        let (epoch, bounds) = (object.epoch, object.bounds);
        match object.kind {
            SealedKind::Batch => told.add(by, epoch, bounds, &self.log.values(epoch, bounds, bytes)?),
            SealedKind::Gap => told.add(By::Gap, epoch, bounds, &[]),
            SealedKind::Closed => {
                told.closed_in_lake.insert(epoch, bounds.last);
                Ok(())
            }
        }
    }

    /// What waits in the spool and is not in the lake. What is in both has to be the same, and what waits tells nothing
    /// twice.
    fn tell_spool(&self, core: &Core, told: &mut Told, landed: &InLake) -> Result<(), String> {
        let mut shelf: BTreeMap<Epoch, Vec<(Bounds, By)>> = BTreeMap::new();
        for object in &core.shelf.objects {
            if object.kind == SealedKind::Closed {
                told.closed_in_spool.insert(object.epoch, object.bounds.last);
                continue;
            }
            shelf.entry(object.epoch).or_default().push((object.bounds, By::Spool));
            let bytes =
                core.disk.read(&object.path()).map_err(|error| format!("{}: {error}", object.path().display()))?;
            match landed.get(&key_of(object)) {
                Some((there, in_lake)) if there.bounds == object.bounds && **in_lake == bytes => {}
                Some(_) => return Err(format!("{} has other contents in the lake", object.bounds)),
                None => self.tell(told, By::Spool, object, &bytes)?,
            }
            count(&self.reached.gap, u64::from(object.kind == SealedKind::Gap));
        }
        for spans in shelf.values_mut() {
            spans.sort();
            overlap(spans)?;
        }
        for piece in &core.unsealed {
            match piece {
                Piece::Gap(bounds) => told.add(By::Gap, core.log.epoch, *bounds, &[])?,
                Piece::Readings { first_seq, readings } => {
                    let values: Vec<u64> =
                        readings.iter().filter_map(|reading| reading.value).map(|value| value as u64).collect();
                    for (seq, value) in (*first_seq..).zip(&values) {
                        let named = core.measured.at(seq);
                        if named.is_none() && core.bad_records == 0 {
                            return Err(format!("nobody knows under which configuration {value} was measured"));
                        }
                        self.log.check_measured(*value, named)?;
                    }
                    let last = first_seq + i64::try_from(readings.len()).map_err(|error| error.to_string())? - 1;
                    told.add(By::Spool, core.log.epoch, Bounds { first: *first_seq, last }, &values)?;
                }
            }
        }
        Ok(())
    }

    /// The readings of batches for which a gap was begun, because the spool was full, and of which a gap tells. One that was
    /// begun and never got its name excuses nothing: its batch has to be there.
    fn given_up(&self, image: &Memory, told: &Told) -> Result<HashSet<u64>, String> {
        let dropped = image.state().dropped.clone();
        let gaps: Vec<(Epoch, Bounds)> = dropped.iter().filter_map(|name| named(name)).collect();
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut values = HashSet::new();
        for (name, bytes) in &batches {
            let (epoch, bounds) = named(name).ok_or("a batch without a name")?;
            let is_begun = gaps.iter().any(|(of, gap)| *of == epoch && gap.contains(bounds));
            if is_begun && told.has_gap(epoch, bounds) {
                values.extend(self.log.values(epoch, bounds, bytes)?.iter().copied());
            }
        }
        Ok(values)
    }

    /// Whether a gap tells of more than one batch.
    fn is_widened(&self, object: &SealedObject) -> bool {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = batches.keys().filter_map(|name| named(name));
        let inside = inside.filter(|(epoch, bounds)| *epoch == object.epoch && object.bounds.contains(*bounds));
        object.kind == SealedKind::Gap && inside.count() > 1
    }

    /// A byte that flipped, or a block that cannot be read, in the log: the spool starts, nothing is there twice, and
    /// what is lost has a gap.
    fn worn(&self, image: &Memory, random: &mut fastrand::Rng) -> Result<(), String> {
        let segments: Vec<_> =
            image.files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "segment")).collect();
        let Some(path) = segments.get(random.usize(..segments.len().max(1))) else { return Ok(()) };
        let unreadable = random.bool();
        if unreadable {
            image.make_unreadable(path, RECORDS_AT * random.usize(1..3) + random.usize(..RECORDS_AT));
        } else {
            image.damage(path, |bytes| {
                let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(RECORDS_AT).max(RECORDS_AT);
                bytes[random.usize(RECORDS_AT..=end)] ^= 1 << random.u8(..8);
            });
        }
        let mut core = start(image, ROOMY, Variant::default(), &self.log.measure(AFTERWARDS))?;
        count(if unreadable { &self.reached.unreadable_block } else { &self.reached.bad_record }, core.bad_records);
        let gap = core.unsealed.iter().position(|piece| matches!(piece, Piece::Gap(_)));
        count(&self.reached.resync, u64::from(gap.is_some_and(|place| place + 1 < core.unsealed.len())));
        core.append(readings(AFTERWARDS, 3));
        if !core.seal() {
            return Err("it does not seal".to_owned());
        }
        let mut told = Told::default();
        self.tell_spool(&core, &mut told, &HashMap::new())?;
        for spans in told.spans.values_mut() {
            spans.sort();
            overlap(spans)?;
        }
        Ok(())
    }
}
