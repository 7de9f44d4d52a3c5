//! A look at a spool from the side: how it is, and whether its task still answers. It holds nothing, so
//! that the spool ends, and its folder is free, whoever still looks.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use super::actor::Command;
use super::{SpoolStatus, locked};

/// A look at a spool.
#[derive(Debug, Clone)]
pub(crate) struct SpoolProbe {
    commands: mpsc::WeakSender<Command>,
    status: Arc<Mutex<SpoolStatus>>,
}

impl SpoolProbe {
    pub(super) const fn new(commands: mpsc::WeakSender<Command>, status: Arc<Mutex<SpoolStatus>>) -> Self {
        Self { commands, status }
    }

    /// How the spool is, or was last.
    pub(crate) fn status(&self) -> SpoolStatus {
        locked(&self.status).clone()
    }

    /// Whether the spool's task answers; waits until it does. Not once it has ended.
    pub(crate) async fn answers(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        // Not held while it waits: the last sender that goes ends the spool.
        let sent = match self.commands.upgrade() {
            Some(commands) => commands.send(Command::Ping(reply)).await.is_ok(),
            None => false,
        };
        sent && answer.await.is_ok()
    }
}
