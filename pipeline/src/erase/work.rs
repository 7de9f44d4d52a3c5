//! The work: which erasures are due, and one step after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt;
use object_store::path::Path;
use tjern_lake::{Lake, Lease, Table, TableName};
use tjern_readings::keys::OPEN;
use tjern_readings::sensor::SensorId;

use super::known::{COUNT, Erasures};
use super::landed::{Zone, settle};
use super::leftovers::{self, mark, mark_of};
use super::released::{Which, Withdrawn};
use super::sources::Tainted;
use super::unseen::{self, Reasons, Unseen};
use super::{
    EraseError, EraseOutcome, EraseSettings, Erasure, Found, JOB, LEASE, Mark, Request, Wait, doomed, quarantined,
    released, rows, told,
};
use crate::bounds::Bounds;
use crate::compact;
use crate::correct::CORRECTIONS;
use crate::ingest::{INGEST, IngestError, ingest};
use crate::jobs::list::register_before_ingest;
use crate::quality;
use crate::register::load;
use crate::rollup::{self, Again, rollup_again, rows_of_spans};

/// Who else writes files of rows that it has read, and for how long its lease lasts.
const WRITERS: [(&str, Duration); 3] =
    [(compact::JOB, compact::LEASE), (quality::JOB, quality::LEASE), (rollup::JOB, rollup::LEASE)];

/// The tables in which readings are, or what was made of them; `readings` is marked last.
const TABLES: [TableName; 3] = [TableName::Hourly, TableName::Daily, TableName::Readings];

/// From the year 1 to the year 9999, in microseconds since 1970: whenever a reading may be of.
pub(crate) const ALWAYS_US: (i64, i64) = (-62_135_596_800_000_000, 253_370_764_800_000_000);

/// Remembers an erasure and does all that can be done now.
///
/// # Errors
/// [`EraseError`]. Once the record is written it is remembered, and [`go_on`] goes on.
pub async fn erase(
    lake: &Lake,
    settings: &EraseSettings,
    request: &Request,
) -> Result<(Erasure, EraseOutcome), EraseError> {
    let Remembered { erasure, .. } = remember(lake, settings, request).await?;
    let outcome = go_on(lake, settings, false).await?;
    Ok((erasure, outcome))
}

/// An erasure that the lake remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its record.
    pub erasure: Erasure,
    /// Whether it was remembered before, and is not complete: the same readings were asked for again.
    pub was_there: bool,
}

/// Remembers an erasure. One of the same readings that is not complete is that erasure: whoever asks again, since it failed or
/// was interrupted, asks for no second one.
///
/// # Errors
/// [`EraseError`]; nothing is remembered then, but where it is [`EraseError::Open`].
pub async fn remember(lake: &Lake, settings: &EraseSettings, request: &Request) -> Result<Remembered, EraseError> {
    // Once the erasure is known, its sensor cannot become `personal` before it is complete.
    register_first(lake, settings).await?;
    let known = Erasures::load(lake).await?;
    let is_same = |erasure: &&Erasure| {
        erasure.sensor == request.sensor && (erasure.from.0, erasure.to.0) == (request.from_us, request.to_us)
    };
    if let Some(erasure) = known.all().iter().find(|erasure| is_same(erasure) && !known.is_done(erasure)) {
        return Ok(Remembered { erasure: erasure.clone(), was_there: true });
    }
    let erasure = Erasure::new(lake, request);
    if let Err(source) = erasure.write(lake).await {
        // It may have been written, and the reply lost.
        match erasure.is_written(lake).await {
            Ok(true) => {}
            Ok(false) => return Err(EraseError::NotRemembered { source }),
            Err(_) => return Err(EraseError::Open { id: erasure.id, source: Box::new(source) }),
        }
    }
    Ok(Remembered { erasure, was_there: false })
}

/// Nothing that has landed is ingested before there is a register, by an erasure as little as by `ingest`.
async fn register_first(lake: &Lake, settings: &EraseSettings) -> Result<(), EraseError> {
    let Some(files) = &settings.register else { return Ok(()) };
    let registered = register_before_ingest(lake, files).boxed().await;
    registered.map_err(|error| EraseError::Unregistered(error.to_string()))
}

/// What an erasure would remove. Nothing is changed.
///
/// # Errors
/// [`EraseError`].
pub async fn find(lake: &Lake, request: &Request) -> Result<Vec<Found>, EraseError> {
    Ok(look(lake, &Erasures::of([Erasure::new(lake, request)])).await?.0)
}

/// Whether anything knows a sensor: the register, a table, what has landed, an erasure of it. What cannot be looked at may know
/// it.
///
/// # Errors
/// [`EraseError`].
pub async fn is_known(lake: &Lake, sensor: &SensorId) -> Result<bool, EraseError> {
    let is_registered = load(lake).await?.get(sensor.as_str()).is_some();
    if is_registered || Erasures::load(lake).await?.all().iter().any(|erasure| erasure.sensor == *sensor) {
        return Ok(true);
    }
    let (from_us, to_us) = ALWAYS_US;
    let request = Request { sensor: sensor.clone(), from_us, to_us, reason: String::new(), by: String::new() };
    let (found, tainted) = look(lake, &Erasures::of([Erasure::new(lake, &request)])).await?;
    Ok(!found.is_empty() || !tainted.is_empty())
}

/// What holds readings that these cover, and which sources may have written their sensors.
async fn look(lake: &Lake, erasures: &Erasures) -> Result<(Vec<Found>, Tainted), EraseError> {
    let readings = Table::open(lake, TableName::Readings).await?;
    let zone = Zone::list(lake).await?;
    let (register, known) = (load(lake).await?, Erasures::load(lake).await?);
    let mut tainted = Tainted::find(lake, readings.as_ref(), &register, &zone.configurations, erasures).await?;
    let mut found = Vec::new();
    if let Some(readings) = &readings {
        found.extend(rows::find(readings, erasures).await?);
    }
    for (what, name) in [("rows of hourly", TableName::Hourly), ("rows of daily", TableName::Daily)] {
        let Some(table) = Table::open(lake, name).await? else { continue };
        let left = known.not_erased_in(&table, erasures.periods());
        let rows = if left.is_empty() { 0 } else { rows_of_spans(&table, &left, &register).await?.len() };
        if rows > 0 {
            found.push(Found::new(what, tjern_readings::keys::table(name.as_str()), Some(rows)));
        }
    }
    let (holding, unread) = zone.holding(lake, erasures, &mut tainted).await;
    found.extend(holding.iter().map(super::landed::Holding::found));
    let (set_aside, hidden) = quarantined::find(lake, erasures, &tainted).await?;
    found.extend(quarantined::told(&set_aside));
    let (releases, unread_releases) = released::find(lake, erasures).await?;
    let unseen =
        [&zone.unseen, &tainted.unseen, &unread, &hidden, &unread_releases].into_iter().flat_map(Reasons::keys);
    found.extend(unseen.map(|key| Found::unseen(key)));
    found.extend(told::find(lake, erasures).await?.iter().map(told::Record::found));
    found.extend(releases.iter().map(released::Tainted::found));
    Ok((found, tainted))
}

/// Goes on with what is not done, until nothing is left or what is left has to wait. With `again` everything is
/// looked at as if nothing had been done: after something else than a table was restored.
///
/// # Errors
/// [`EraseError`]; the next run goes on.
pub async fn go_on(lake: &Lake, settings: &EraseSettings, again: bool) -> Result<EraseOutcome, EraseError> {
    let known = Erasures::load(lake).await?;
    let due = due(lake, &known, again).await?;
    if due.all.is_empty() {
        return Ok(EraseOutcome::default());
    }
    let Some(lease) = Lease::take(lake, JOB, LEASE).await? else {
        return Ok(EraseOutcome { held_elsewhere: true, ..EraseOutcome::default() });
    };
    let lease = lease.keep();
    let (left, outcome) = (Reasons::new(), EraseOutcome::default());
    let mut work = Work { lake, settings, known, is_first: false, left, outcome };
    let result = Box::pin(work.run(&due)).await;
    lease.give_back().await?;
    result.map(|()| work.outcome)
}

/// Whether nothing is left to be done, as far as `readings` and the notes say: for who asks often.
#[must_use]
pub fn is_settled(readings: &Table, known: &Erasures) -> bool {
    known.all().iter().all(|erasure| known.is_done(erasure) && mark_of(readings, erasure) >= Mark::Gone as i64)
}

/// Erasures that have something left.
struct Due {
    /// Those that are not done.
    all: Vec<Erasure>,
    /// Those of them of which more is left than landed batches that wait.
    whole: Vec<Erasure>,
    /// Those for which the landing zone and quarantine have to be looked at: the whole ones, and those for which something
    /// of it could not be.
    looks: Vec<Erasure>,
}

async fn due(lake: &Lake, known: &Erasures, again: bool) -> Result<Due, EraseError> {
    let mut tables = Vec::new();
    if !known.is_empty() {
        for name in TABLES {
            tables.extend(Table::open(lake, name).await?);
        }
    }
    let is_whole = |erasure: &&Erasure| {
        again || tables.is_empty() || tables.iter().any(|table| mark_of(table, erasure) < Mark::Gone as i64)
    };
    let whole: Vec<_> = known.all().iter().filter(is_whole).cloned().collect();
    let is_due = |erasure: &&Erasure| !known.is_done(erasure) || whole.contains(erasure);
    let looks = |erasure: &&Erasure| known.unseen.erasures.contains(&erasure.id) || whole.contains(erasure);
    let looks = known.all().iter().filter(looks).cloned().collect();
    Ok(Due { all: known.all().iter().filter(is_due).cloned().collect(), whole, looks })
}

/// A run under way.
struct Work<'a> {
    lake: &'a Lake,
    settings: &'a EraseSettings,
    known: Erasures,
    /// Whether no run before this one, which may have been killed, did anything for the erasures that are due.
    is_first: bool,
    /// What of the releases could not be looked at or removed, and why.
    left: Reasons,
    outcome: EraseOutcome,
}

impl Work<'_> {
    async fn run(&mut self, due: &Due) -> Result<(), EraseError> {
        if !due.whole.is_empty() {
            if !self.remove(due).await? {
                return Ok(());
            }
        } else if !due.looks.is_empty() {
            Box::pin(self.look_again(due)).await?;
        }
        let readings = Table::open_or_create(self.lake, TableName::Readings).await?;
        // What was doomed by others since is known by their notes.
        let known = Erasures::load(self.lake).await?;
        let zone = Zone::list(self.lake).await?;
        let (gone, waits) = settle(self.lake, &zone, &readings, &known).await;
        self.outcome.landed += gone;
        waits.into_iter().for_each(|wait| self.wait(wait));
        self.outcome.waits.extend(told::forget_alerts(self.lake, &Erasures::of(due.all.clone())).await?);
        let waits = |erasure: &&Erasure| {
            let for_it = |wait: &Wait| wait.erasures.as_ref().is_none_or(|ids| ids.contains(&erasure.id));
            self.outcome.waits.iter().any(for_it)
        };
        let done: Vec<Erasure> = due.all.iter().filter(|erasure| !waits(erasure)).cloned().collect();
        for erasure in done {
            erasure.write_done(self.lake).await?;
            self.outcome.done.push(erasure.id);
        }
        doomed::tidy(self.lake).await?;
        Ok(())
    }

    /// Everything but what waits in the landing zone. Returns false where others' work has to end first.
    async fn remove(&mut self, due: &Due) -> Result<bool, EraseError> {
        let mut readings = Table::open_or_create(self.lake, TableName::Readings).await?;
        // Others write files of rows that they have read: what they leave behind is looked for after them.
        let mut held = Vec::new();
        for (job, lasts) in WRITERS {
            match Lease::take(self.lake, job, lasts).await? {
                Some(lease) => held.push(lease.keep()),
                None => {
                    let also = if job == quality::JOB { " (or validates, or checks units that came late)" } else { "" };
                    let why = format!("another process does `{job}`{also}, or was killed at it");
                    self.outcome.waits.push(Wait { what: "the tables".to_owned(), why, erasures: None });
                }
            }
        }
        let is_alone = held.len() == WRITERS.len();
        let result = if is_alone { Box::pin(self.remove_alone(due, &mut readings)).await } else { Ok(()) };
        self.outcome.held_elsewhere = !is_alone;
        for lease in held {
            lease.give_back().await?;
        }
        result.map(|()| is_alone)
    }

    async fn remove_alone(&mut self, due: &Due, readings: &mut Table) -> Result<(), EraseError> {
        let lake = self.lake;
        // A run that had to wait for others has done nothing, and left no mark.
        self.is_first = due.whole.iter().all(|erasure| mark_of(readings, erasure) == 0);
        mark(readings, &self.known, Mark::Told, told_to_writers).await?;
        let erasures = Erasures::of(due.whole.clone());
        Box::pin(self.landed(readings, &due.looks)).await?;
        let done = rows::rewrite(readings, &self.settings.compact, &erasures).await?;
        (self.outcome.rows, self.outcome.files) = (done.rows, done.files);
        mark(readings, &erasures, Mark::Erased, |_| Vec::new()).await?;
        let mut untouched = BTreeSet::new();
        if self.is_first && done.rows == 0 {
            untouched.insert(TableName::Readings.as_str());
            let register = load(lake).await?;
            for name in [TableName::Hourly, TableName::Daily] {
                let Some(table) = Table::open(lake, name).await? else { continue };
                if rows_of_spans(&table, &erasures.periods(), &register).await?.is_empty() {
                    untouched.insert(name.as_str());
                }
            }
        }
        let marks = due.whole.iter().map(|erasure| (erasure.mark(), Mark::Erased as i64)).collect();
        let again = Again { spans: erasures.periods(), marks };
        let summed =
            Box::pin(rollup_again(lake, &self.settings.timezone, &again, &Bounds::from(&self.settings.compact)))
                .await?;
        self.outcome.summed = summed.hourly.rows_computed + summed.daily.rows_computed;
        self.outcome.records = told::change(lake, told::find(lake, &erasures).await?).await?;
        self.withdraw(&erasures, Which::All).await?;
        if !self.left.is_empty() {
            let ids = due.whole.iter().map(|erasure| erasure.id.clone()).collect();
            let unseen = Unseen { keys: self.left.clone(), erasures: ids, ..Unseen::default() };
            unseen.write(lake).await?;
            self.wait_for(&unseen);
        }
        for name in TABLES {
            let gone = leftovers::remove(lake, name, &erasures, untouched.contains(name.as_str())).await?;
            self.outcome.leftovers += gone.files;
            self.outcome.log += gone.log;
        }
        Ok(())
    }

    /// Withdraws releases that hold erased readings. What keeps one of them keeps no other, and nothing else from being erased.
    async fn withdraw(&mut self, erasures: &Erasures, which: Which<'_>) -> Result<(), EraseError> {
        let withdrawn = released::withdraw(self.lake, self.settings, erasures, which, released::ERASED).await?;
        let Withdrawn { releases, made, unmade, unreadable, stays } = withdrawn;
        self.outcome.withdrawn += releases;
        self.outcome.released.extend(made);
        self.outcome.unmade.extend(unmade);
        self.left = unreadable;
        self.left.extend(stays);
        Ok(())
    }

    /// Ingests, without what is erased and by what the register's files say. A source that is held back keeps its own.
    async fn ingest(&self) -> Result<(), EraseError> {
        register_first(self.lake, self.settings).await?;
        // Its type is forgotten here: the compiler loses itself in what is around it otherwise.
        match ingest(self.lake, &self.settings.ingest).boxed().await {
            Ok(_) => Ok(()),
            Err(IngestError::HeldBack { why, .. }) => {
                tracing::warn!(why, "a source is held back; what the others have is erased");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at what could not be looked at before; at everything, where some of it can be now.
    async fn look_again(&mut self, due: &Due) -> Result<(), EraseError> {
        let before = self.known.unseen.clone();
        let kept: Vec<_> = before.stays.keys().map(|key| Path::from(key.as_str())).collect();
        let stays = unseen::remove(self.lake, kept).await;
        let is_gone = |key: &&String| !stays.contains_key(*key) && !key.ends_with(".reason.json");
        self.outcome.quarantined += before.stays.keys().filter(is_gone).count();
        let erasures = Erasures::of(due.looks.clone());
        let (releases, keys): (Reasons, Reasons) = before.keys.into_iter().partition(|(key, _)| is_of_a_release(key));
        if !releases.is_empty() {
            self.withdraw(&erasures, Which::Of(&releases)).await?;
        }
        let mut before = Unseen { keys, ..before };
        let mut keys = before.still(self.lake, &erasures).await;
        if keys.len() < before.keys.len() {
            let mut readings = Table::open_or_create(self.lake, TableName::Readings).await?;
            return Box::pin(self.landed(&mut readings, &due.looks)).await;
        }
        keys.extend(self.left.clone());
        let unseen = Unseen { keys, stays, ..before };
        let known = &self.known.unseen;
        let is_other = unseen.stays.len() < known.stays.len() || unseen.read != known.read;
        if is_other || !self.left.keys().eq(releases.keys()) {
            unseen.write(self.lake).await?;
        }
        self.wait_for(&unseen);
        Ok(())
    }

    /// Ingests, and looks at every landed batch and at quarantine. What holds erased rows is remembered first and goes
    /// then; what cannot be looked at is remembered too, and waited for.
    async fn landed(&mut self, readings: &mut Table, looks: &[Erasure]) -> Result<(), EraseError> {
        let lake = self.lake;
        self.ingest().await?;
        readings.refresh().await?;
        // Ingest has just remembered what it met.
        let mut erasures = Erasures::of(looks.to_vec()).with_landed_of(&Erasures::load(lake).await?);
        let zone = Zone::list(lake).await?;
        let register = load(lake).await?;
        let mut tainted = Tainted::find(lake, Some(&*readings), &register, &zone.configurations, &erasures).await?;
        let (holding, unread) = zone.holding(lake, &erasures, &mut tainted).await;
        erasures.doom(lake, holding.into_iter().map(super::landed::Holding::doomed)).await?;
        self.outcome.landed += settle(lake, &zone, readings, &erasures).await.0;
        let (found, hidden) = quarantined::find(lake, &erasures, &tainted).await?;
        let stays = quarantined::remove(lake, &found).await;
        self.outcome.quarantined +=
            found.iter().filter(|(kept, _)| !stays.contains_key(&kept.key().to_string())).count();
        let mut keys = zone.unseen;
        keys.extend(self.left.clone());
        keys.extend([std::mem::take(&mut tainted.unseen), unread, hidden].into_iter().flatten());
        let ids = looks.iter().map(|erasure| erasure.id.clone()).collect();
        let (sources, notes) = (tainted.into_sources(), std::mem::take(&mut erasures.unseen.notes));
        let unseen = Unseen { keys, stays, erasures: ids, sources, notes, ..Unseen::default() };
        unseen.write(lake).await?;
        self.wait_for(&unseen);
        Ok(())
    }

    fn wait_for(&mut self, unseen: &Unseen) {
        for (key, why) in &unseen.keys {
            let ids = unseen.erasures.clone();
            self.wait(if unseen::is_strange(key) || is_of_a_release(key) {
                Wait { what: key.clone(), why: why.clone(), erasures: Some(ids) }
            } else {
                Wait::unseen(key, why, ids)
            });
        }
        for (key, why) in &unseen.stays {
            let why = format!("it cannot be removed: {why}");
            self.wait(Wait { what: key.clone(), why, erasures: Some(unseen.erasures.clone()) });
        }
    }

    /// Adds to what waits; what is there already waits for more erasures.
    fn wait(&mut self, wait: Wait) {
        let Some(there) = self.outcome.waits.iter_mut().find(|there| there.what == wait.what) else {
            self.outcome.waits.push(wait);
            return;
        };
        there.erasures = there.erasures.take().zip(wait.erasures).map(|(mut all, more)| {
            all.extend(more);
            all
        });
    }
}

fn is_of_a_release(key: &str) -> bool {
    key.strip_prefix(OPEN).is_some_and(|rest| rest.starts_with('/'))
}

/// What makes those look again who prepare rows without knowing of an erasure: it stands in their commits too.
fn told_to_writers(readings: &Table) -> Vec<(String, i64)> {
    [COUNT, INGEST, CORRECTIONS].map(|name| (name.to_owned(), readings.transaction(name).unwrap_or(0) + 1)).to_vec()
}
