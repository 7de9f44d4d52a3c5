//! The newest known state of each table, shared by everything of one process that opens tables.
//!
//! A job that opens a table would else read its log from the last checkpoint on, up to fifty requests
//! that the job before it made a minute ago. What is kept is a state as it was read from the log, never what
//! somebody believes to have committed; whoever opens a table carries it forward first. It is as big as
//! the list of the table's active files.
//!
//! Delta's own handle of a table, which commits are made on, is kept in the same way: a new one reads up to fifty
//! commits, and a job that commits once an hour would do so each time. One commit uses it at a time; another one
//! at the same time opens its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use deltalake_core::DeltaTable;

use crate::log::LogState;
use crate::{Lake, LakeError, TableName};

/// What was read last, by table.
#[derive(Debug, Default)]
pub(crate) struct KnownStates {
    states: Mutex<HashMap<TableName, Arc<LogState>>>,
    handles: Mutex<HashMap<TableName, Handle>>,
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
        let known = self.lock().get(&table).cloned();
        let known_version = known.as_ref().map_or(-1, |state| state.version());
        let newest = match known {
            Some(mut state) => match LogState::refresh(&mut state, lake).await {
                Ok(_) => Some(state),
                // What is known does not go with what is there: whatever it is, it is read from the beginning.
                Err(LakeError::Log { .. }) => LogState::read(lake, table).await?.map(Arc::new),
                Err(error) => return Err(error),
            },
            None => LogState::read(lake, table).await?.map(Arc::new),
        };
        if newest.as_ref().is_none_or(|newest| known_version > newest.version()) {
            // The table is gone, or was made anew.
            self.take_handle(table);
        }
        match &newest {
            Some(state) => drop(self.lock().insert(table, Arc::clone(state))),
            None => drop(self.lock().remove(&table)),
        }
        Ok(newest)
    }

    /// The handle of a table, for one commit.
    pub(crate) fn take_handle(&self, table: TableName) -> Option<Handle> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(&table)
    }

    /// Gives a handle back on which a commit was made.
    pub(crate) fn keep_handle(&self, table: TableName, handle: Handle) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(table, handle);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TableName, Arc<LogState>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
