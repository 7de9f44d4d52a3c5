//! The newest known state of each table, shared by everything of one process that opens tables.
//!
//! A job that opens a table would else read its log from the last checkpoint on, up to fifty requests
//! that the job before it made a minute ago. What is kept is a state as it was read from the log, never what
//! somebody believes to have committed; whoever opens a table carries it forward first. It is as big as
//! the list of the table's active files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::LogState;
use crate::{Lake, LakeError, TableName};

/// What was read last, by table.
#[derive(Debug, Default)]
pub(crate) struct KnownStates(Mutex<HashMap<TableName, Arc<LogState>>>);

impl KnownStates {
    /// The newest state; `None` where there is no table.
    pub(crate) async fn newest(&self, lake: &Lake, table: TableName) -> Result<Option<Arc<LogState>>, LakeError> {
        let known = self.lock().get(&table).cloned();
        let newest = match known {
            Some(mut state) => match LogState::refresh(&mut state, lake).await {
                Ok(_) => Some(state),
                // What is known does not go with what is there: whatever it is, it is read from the beginning.
                Err(LakeError::Log { .. }) => LogState::read(lake, table).await?.map(Arc::new),
                Err(error) => return Err(error),
            },
            None => LogState::read(lake, table).await?.map(Arc::new),
        };
        match &newest {
            Some(state) => drop(self.lock().insert(table, Arc::clone(state))),
            None => drop(self.lock().remove(&table)),
        }
        Ok(newest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TableName, Arc<LogState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
