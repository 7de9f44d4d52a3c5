//! What the spool remembers of lists of sensors whose rounds come again and again: where each sensor is among those that are
//! known, and its place in the segment that is written.
//!
//! A list is known again by its address, which nobody else can have while it is kept here. The times of whole rounds are noted
//! once for the list, and told to its sensors only when somebody asks for one. Lists that nobody else has are forgotten
//! now and then: a plan that is made anew makes new ones. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use tjern_readings::sensor::SensorId;

use crate::grid::Moment;

/// So many lists are kept before it is looked whether somebody still has them.
const LISTS_LEAST: usize = 64;

/// The lists that are known, by their addresses.
#[derive(Debug, Default)]
pub(super) struct KnownLists {
    lists: HashMap<usize, KnownList>,
    /// Whether times were noted that their sensors were not told.
    is_noted: bool,
    look_at: usize,
}

#[derive(Debug)]
pub(super) struct KnownList {
    list: Arc<[SensorId]>,
    /// Where its sensors are among those that are known.
    pub(super) entries: Box<[u32]>,
    places: Places,
    taken_us: Moment,
    /// Nobody estimates the times of a round.
    synced_us: Moment,
}

/// Where a list's sensors stand in the list of the segment that is written.
#[derive(Debug)]
enum Places {
    NotLooked,
    /// At least one of them is not in it.
    NotAll,
    All(Box<[u16]>),
}

fn address(list: &Arc<[SensorId]>) -> usize {
    Arc::as_ptr(list).cast::<SensorId>().addr()
}

impl KnownLists {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lists.len()
    }

    pub(super) fn get(&mut self, list: &Arc<[SensorId]>) -> Option<&mut KnownList> {
        self.lists.get_mut(&address(list))
    }

    /// Takes a new list. The times of those that are forgotten for it must have been told.
    pub(super) fn add(&mut self, list: &Arc<[SensorId]>, entries: Box<[u32]>) -> &mut KnownList {
        let (taken_us, synced_us) = (Moment::NONE, Moment::NONE);
        let known = KnownList { list: Arc::clone(list), entries, places: Places::NotLooked, taken_us, synced_us };
        self.lists.entry(address(list)).or_insert(known)
    }

    /// Whether it is time to forget those that nobody else has, before another is added.
    pub(super) fn are_many(&self) -> bool {
        self.lists.len() >= self.look_at.max(LISTS_LEAST)
    }

    /// Forgets those that nobody else has. Their times must have been told.
    pub(super) fn forget_unused(&mut self) {
        self.lists.retain(|_, known| Arc::strong_count(&known.list) > 1);
        self.look_at = 2 * self.lists.len();
    }

    /// Another segment is written.
    pub(super) fn forget_places(&mut self) {
        self.lists.values_mut().for_each(|known| known.places = Places::NotLooked);
    }

    pub(super) fn note_taken(&mut self, list: &Arc<[SensorId]>, time_us: i64) {
        self.is_noted = true;
        self.get(list).into_iter().for_each(|known| known.taken_us.raise(time_us));
    }

    pub(super) fn note_synced(&mut self, list: &Arc<[SensorId]>, time_us: i64) {
        self.is_noted = true;
        self.get(list).into_iter().for_each(|known| known.synced_us.raise(time_us));
    }

    /// Tells what was noted of whole lists: of each of their sensors what was taken, and what is on disk.
    pub(super) fn tell(&mut self, mut tell: impl FnMut(u32, Moment, Moment)) {
        if !std::mem::take(&mut self.is_noted) {
            return;
        }
        for known in self.lists.values_mut() {
            let taken_us = std::mem::replace(&mut known.taken_us, Moment::NONE);
            let synced_us = std::mem::replace(&mut known.synced_us, Moment::NONE);
            if (taken_us, synced_us) != (Moment::NONE, Moment::NONE) {
                known.entries.iter().for_each(|entry| tell(*entry, taken_us, synced_us));
            }
        }
    }
}

impl KnownList {
    /// The places of its sensors, where all have one; `place` says that of an entry.
    pub(super) fn places(&mut self, place: impl Fn(u32) -> Option<u16>) -> Option<&[u16]> {
        if matches!(self.places, Places::NotLooked) {
            let places: Option<Box<[u16]>> = self.entries.iter().map(|entry| place(*entry)).collect();
            self.places = places.map_or(Places::NotAll, Places::All);
        }
        match &self.places {
            Places::All(places) => Some(places),
            Places::NotAll | Places::NotLooked => None,
        }
    }
}
