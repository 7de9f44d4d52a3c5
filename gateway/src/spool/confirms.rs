//! Who waits for the word that readings are on disk, without having them synced any sooner.
//!
//! Readings leave memory in the order in which they came: what came before a question is on disk once as many have left.
//! Where some left because memory was full, nobody knows which: from then on nobody is told anything in this run.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// The most that wait: each bus asks once at a time.
const WAITING_MAX: usize = 256;

/// Questions that are open. Dropped without an answer, one is to be asked again.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    /// How many readings came.
    taken: u64,
    /// Who waits until so many have left memory.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    has_lost: bool,
}

impl Confirms {
    /// So many readings came.
    pub(crate) const fn take(&mut self, readings: usize) {
        self.taken += readings as u64;
    }

    /// Answers once all that came so far is on disk.
    pub(crate) fn ask(&mut self, reply: oneshot::Sender<()>) {
        self.waiting.retain(|(_, waiting)| !waiting.is_closed());
        if !self.has_lost && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((self.taken, reply));
        }
    }

    /// All but so many readings are on disk.
    pub(crate) fn answer(&mut self, in_memory: usize) {
        let on_disk = self.taken.saturating_sub(in_memory as u64);
        while let Some((_, reply)) = self.waiting.pop_front_if(|(taken, _)| *taken <= on_disk) {
            // Whoever asked may have gone.
            let _ = reply.send(());
        }
    }

    /// Readings were dropped from memory.
    pub(crate) fn lose(&mut self) {
        self.has_lost = true;
        self.waiting.clear();
    }

    /// The order in memory is another one, of so many readings: whoever waits asks again.
    pub(crate) fn begin_anew(&mut self, in_memory: usize) {
        self.taken = in_memory as u64;
        self.waiting.clear();
    }
}
