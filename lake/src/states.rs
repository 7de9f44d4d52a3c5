//! The newest known state of each table, shared by everything of one process that opens tables.
//!
//! A job that opens a table would else read its log from the last checkpoint on, up to fifty requests
//! that the job before it made a minute ago. What is kept is a state as it was read from the log, never what
//! somebody believes to have committed; whoever opens a table carries it forward first. It is as big as
//! the list of the table's active files.
//!
//! Who need not have the very newest version says how old a look may be ([`KnownStates::within`]): what was looked at
//! not longer ago costs no request, and what somebody else of this process committed or saw counts as a look. Older
//! than that, the log is probed with one get, and listed at least every [`LISTED`]: only a listing sees that a table was
//! made anew, or that commits were cleaned away. A look is as old as the lake's clock or the machine's own says, whichever
//! is more: one may be set back, or stand still, as that of a test does.
//!
//! Whoever was told of a version asks for the commits up to it and no further. At which version each table is by all that
//! was seen is told at once to those who wait for that ([`KnownStates::versions`]).
//!
//! Delta's own handle of a table, which commits are made on, is kept in the same way: a new one reads up to fifty
//! commits, and a job that commits once an hour would do so each time. One commit uses it at a time; another one
//! at the same time opens its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deltalake_core::DeltaTable;
use tokio::sync::watch;

use crate::log::LogState;
use crate::{Lake, LakeError, TableName, Version, Versions};

/// So long after a listing a log may be probed. No commit is cleaned away within this time.
const LISTED: Duration = Duration::from_secs(10 * 60);

/// What was read last, by table.
#[derive(Debug, Default)]
pub(crate) struct KnownStates {
    states: Mutex<HashMap<TableName, Known>>,
    /// The versions of these states, for those who wait for newer ones.
    versions: watch::Sender<Versions>,
    handles: Mutex<HashMap<TableName, Handle>>,
}

/// What the last look at a table found.
#[derive(Debug, Clone)]
struct Known {
    /// None: there was no table.
    state: Option<Arc<LogState>>,
    /// When that look began.
    looked: Moment,
    /// When the last one began that listed.
    listed: Moment,
}

/// A moment by the lake's clock, and by one that only goes forward.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    us: i64,
    instant: Instant,
}

impl Moment {
    pub(crate) fn now(lake: &Lake) -> Self {
        Self { us: lake.clock().now_us(), instant: Instant::now() }
    }

    /// Whether it is not longer ago. One that lies ahead was told by a clock that was set back since.
    fn is_within(self, now_us: i64, age: Duration) -> bool {
        let is_by_clock = u128::try_from(now_us.saturating_sub(self.us)).is_ok_and(|age_us| age_us < age.as_micros());
        is_by_clock && self.instant.elapsed() < age
    }
}

/// Delta's view of a table.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) delta: DeltaTable,
    /// How many commits were made on it.
    pub(crate) commits: u32,
}

impl KnownStates {
    /// The newest state; `None` where there is no table.
    pub(crate) async fn newest(&self, lake: &Lake, table: TableName) -> Result<Option<Arc<LogState>>, LakeError> {
        let looked = Moment::now(lake);
        let known = self.lock().get(&table).and_then(|known| known.state.clone());
        let known_version = known.as_deref().map(Version::of);
        let newest = match known {
            Some(mut state) => match LogState::refresh(&mut state, lake).await {
                Ok(_) => Some(state),
                // What is known does not go with what is there: whatever it is, it is read from the beginning.
                Err(LakeError::Log { .. }) => LogState::read(lake, table).await?.map(Arc::new),
                Err(error) => return Err(error),
            },
            None => LogState::read(lake, table).await?.map(Arc::new),
        };
        let is_another = |newest: &Arc<LogState>| {
            let newest = Version::of(newest);
            known_version.is_some_and(|known| known.version > newest.version || known.is_of_another(newest))
        };
        if newest.as_ref().is_none_or(is_another) {
            // The table is gone, or was made anew.
            self.take_handle(table);
        }
        self.note(lake, table, newest.clone(), looked, true);
        Ok(newest)
    }

    /// The state that a look found that is at most so old, or that somebody has seen since.
    pub(crate) async fn within(
        &self,
        lake: &Lake,
        table: TableName,
        age: Duration,
    ) -> Result<Option<Arc<LogState>>, LakeError> {
        let now = Moment::now(lake);
        let Some(known) = self.lock().get(&table).cloned() else { return self.newest(lake, table).await };
        if known.looked.is_within(now.us, age) {
            return Ok(known.state);
        }
        // A folder of this machine bills nothing, and a listing sees more.
        if lake.store().url().local_folder().is_none()
            && let Some(mut state) = known.state
            && known.listed.is_within(now.us, LISTED)
            && LogState::probe(&mut state, lake, None).await?
        {
            self.note(lake, table, Some(Arc::clone(&state)), now, false);
            return Ok(Some(state));
        }
        self.newest(lake, table).await
    }

    /// The state of this version, which somebody told of, or a newer one. Commits of a table that was made anew may follow upon
    /// those that are known: where another table is told of than is known, it is listed. Who does not tell of which table a
    /// version is (a daemon of before) leaves that to the next listing, ten minutes after the last one at most; until then such
    /// a table may be shown as both.
    pub(crate) async fn reaching(
        &self,
        lake: &Lake,
        table: TableName,
        told: Version,
    ) -> Result<Option<Arc<LogState>>, LakeError> {
        let now = Moment::now(lake);
        let known = self.lock().get(&table).cloned();
        // A folder of this machine bills nothing, and a listing sees more.
        if lake.store().url().local_folder().is_none()
            && let Some(Known { state: Some(mut state), listed, .. }) = known
            && state.version() < told.version
            && !Version::of(&state).is_of_another(told)
            && listed.is_within(now.us, LISTED)
            && LogState::probe(&mut state, lake, Some(told.version)).await?
            && Version::of(&state).is(told)
        {
            self.note(lake, table, Some(Arc::clone(&state)), now, false);
            return Ok(Some(state));
        }
        self.newest(lake, table).await
    }

    /// The versions of what is known.
    pub(crate) fn versions(&self) -> watch::Receiver<Versions> {
        self.versions.subscribe()
    }

    /// Takes note of what a look found that began at a moment.
    pub(crate) fn note(
        &self,
        lake: &Lake,
        table: TableName,
        state: Option<Arc<LogState>>,
        looked: Moment,
        is_listed: bool,
    ) {
        let version = |state: &Option<Arc<LogState>>| state.as_ref().map_or(-1, |state| state.version());
        let now_us = lake.clock().now_us();
        let mut states = self.lock();
        // What was looked at in the future was so by a clock that was set back.
        let known = states.get(&table).filter(|known| known.looked.us <= now_us);
        // Another look may have begun later, or at the same moment and seen more.
        if known.is_some_and(|known| (known.looked.us, version(&known.state)) > (looked.us, version(&state))) {
            return;
        }
        let listed = known.filter(|_| !is_listed).map_or(looked, |known| known.listed);
        let seen = state.as_deref().map(Version::of);
        states.insert(table, Known { state, looked, listed });
        // Under the lock, so that the last word is the last one here too.
        self.versions.send_if_modified(|versions| versions.set(table, seen));
    }

    /// The handle of a table, for one commit.
    pub(crate) fn take_handle(&self, table: TableName) -> Option<Handle> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(&table)
    }

    /// Gives a handle back on which a commit was made.
    pub(crate) fn keep_handle(&self, table: TableName, handle: Handle) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(table, handle);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TableName, Known>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
