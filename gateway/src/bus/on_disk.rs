//! The question whether what a bus handed on is on disk.
//!
//! What a bus remembers of readings over a restart must not be ahead of them: after a power cut they would be taken for
//! stored, and be lost. It is asked on the way that the readings went, behind them, and makes nothing faster: a disk that
//! refuses, or that is synced once an hour, answers late. An answer that never comes means that it is not known.

use tokio::sync::{mpsc, oneshot};

/// How many questions may wait for the task that fills the spool: each bus asks once at a time, and asks again later where
/// there is no room.
pub(crate) const ON_DISK_QUEUE: usize = 256;

/// Asks whether readings are on disk. Clones ask the same task.
#[derive(Debug, Clone, Default)]
pub struct OnDisk(Way);

#[derive(Debug, Clone, Default)]
enum Way {
    /// Nobody knows: there is no answer.
    #[default]
    Unknown,
    /// Whoever takes readings keeps them.
    Kept,
    Ask(mpsc::Sender<Asked>),
}

/// A question: it is answered once all that was handed on before it is on disk, or dropped.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Somebody waits: what is in memory is synced at once.
    pub(crate) at_once: bool,
    pub(crate) reply: oneshot::Sender<()>,
}

impl OnDisk {
    /// Asks whoever takes them from the other end.
    pub(crate) fn asked() -> (Self, mpsc::Receiver<Asked>) {
        let (questions, asked) = mpsc::channel(ON_DISK_QUEUE);
        (Self(Way::Ask(questions)), asked)
    }

    /// For one whose readings are kept by whoever takes them.
    #[must_use]
    pub const fn kept() -> Self {
        Self(Way::Kept)
    }

    /// Asks about all that was handed on so far. Waits for nothing.
    pub(super) fn ask(&self, at_once: bool) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        // Where there is no room, or nobody any more, the reply is dropped.
        match &self.0 {
            Way::Unknown => drop(reply),
            Way::Kept => drop(reply.send(())),
            Way::Ask(questions) => drop(questions.try_send(Asked { at_once, reply })),
        }
        answer
    }
}
