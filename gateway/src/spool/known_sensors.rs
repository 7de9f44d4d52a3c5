//! What the spool knows of each sensor: its newest time, and its place in the list of the segment that is written.
//!
//! It is asked for every reading, so it is found without a hash where readings come in the order of the last round: a
//! plan asks a device for the same points round after round, so what follows a sensor's reading is nearly always the
//! one that followed it before. Each entry remembers that one; it is looked at first, and confirmed by comparing ids,
//! which for clones of one id is comparing addresses. A wrong guess costs a hash. Of a round the whole list is known again
//! (`known_lists`), and its time noted once. There is one table for a spool: its handles note what was taken, its core
//! what is on disk. No I/O.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::rows::{Span, Spans};
use tjern_readings::sensor::SensorId;

use super::known_lists::KnownLists;
use crate::grid::Moment;

/// What is known of the sensors that a spool ever had readings of, as far as its log tells.
#[derive(Debug, Default)]
pub(crate) struct KnownSensors {
    entries: Vec<Entry>,
    /// Where each is, by the hash of its id, which stands in the entry and not here a second time.
    places: HashTable<u32>,
    hasher: RandomState,
    /// The entry that was found last.
    last: u32,
    /// The bytes of all names.
    names_bytes: usize,
    lists: KnownLists,
}

#[derive(Debug)]
struct Entry {
    sensor: SensorId,
    /// The entry that was asked for after this one.
    next: u32,
    /// In the list of the segment that is written.
    listed: Option<u16>,
    /// The newest time that was taken.
    taken_us: Moment,
    /// The newest time that is on disk, or was.
    synced_us: Moment,
    /// The same of readings whose time nobody estimated.
    sure_us: Moment,
}

impl Entry {
    fn newest_us(&self) -> Option<i64> {
        self.taken_us.get().max(self.synced_us.get())
    }
}

/// Whether a reading says itself that its time is none that was estimated: one without a value cannot say it, nor one that was
/// measured during maintenance, whose cause says that.
#[inline]
fn is_sure(reading: &Reading) -> bool {
    reading.value.is_some() && !matches!(reading.cause, Some(Cause::ClockEstimated | Cause::Maintenance))
}

impl KnownSensors {
    /// The place of a sensor in the list of the segment that is written.
    #[inline]
    pub(crate) fn listed(&mut self, sensor: &SensorId) -> Option<u16> {
        self.follow(sensor)?.listed
    }

    /// The places of a list's sensors in the list of the segment that is written, where all are in it.
    pub(crate) fn places(&mut self, list: &Arc<[SensorId]>) -> Option<&[u16]> {
        self.learn(list);
        let Self { lists, entries, .. } = self;
        lists.get(list)?.places(|entry| entries[entry as usize].listed)
    }

    /// The list of the segment that is written is this one from now on.
    pub(crate) fn list(&mut self, sensors: &[SensorId]) {
        self.lists.forget_places();
        self.entries.iter_mut().for_each(|entry| entry.listed = None);
        for (sensor, place) in sensors.iter().zip(0..=u16::MAX) {
            // Not followed: the list has an order of its own.
            let known = self.place(sensor).map(|known| known as usize);
            match known.and_then(|known| self.entries.get_mut(known)) {
                Some(entry) => entry.listed = Some(place),
                None => self.add(sensor).listed = Some(place),
            }
        }
    }

    /// Readings were taken.
    pub(crate) fn note_all_taken(&mut self, readings: Spans<'_>) {
        for span in readings {
            match span {
                Span::Round(round) if round.is_whole() => {
                    self.learn(round.list);
                    self.lists.note_taken(round.list, round.time_us);
                }
                Span::Round(round) => {
                    round.sensors().iter().for_each(|sensor| self.note_taken(sensor, round.time_us));
                }
                Span::Readings(readings) => {
                    readings.iter().for_each(|reading| self.note_taken(&reading.sensor, reading.time_us));
                }
            }
        }
    }

    /// Readings are on disk, or were.
    pub(crate) fn note_all_synced(&mut self, readings: Spans<'_>) {
        for span in readings {
            match span {
                Span::Round(round) if round.is_whole() => {
                    self.learn(round.list);
                    self.lists.note_synced(round.list, round.time_us);
                }
                Span::Round(round) => {
                    round.sensors().iter().for_each(|sensor| self.note_newest(sensor, round.time_us));
                }
                Span::Readings(readings) => readings.iter().for_each(|reading| self.note_synced(reading)),
            }
        }
    }

    /// A reading was taken.
    #[inline]
    pub(crate) fn note_taken(&mut self, sensor: &SensorId, time_us: i64) {
        self.follow_or_add(sensor).taken_us.raise(time_us);
    }

    /// A reading is on disk, or was.
    #[inline]
    pub(crate) fn note_synced(&mut self, reading: &Reading) {
        let is_sure = is_sure(reading);
        let entry = self.follow_or_add(&reading.sensor);
        entry.synced_us.raise(reading.time_us);
        if is_sure {
            entry.sure_us.raise(reading.time_us);
        }
    }

    /// A sensor's newest reading that is on disk, or was, had this time, which nobody estimated.
    pub(crate) fn note_newest(&mut self, sensor: &SensorId, time_us: i64) {
        let entry = self.follow_or_add(sensor);
        entry.synced_us.raise(time_us);
        entry.sure_us.raise(time_us);
    }

    /// Of what was noted of a sensor so far this is the newest time that nobody estimated; `None` where all were.
    pub(crate) fn note_sure(&mut self, sensor: &SensorId, time_us: Option<i64>) {
        self.settle();
        self.follow_or_add(sensor).sure_us = Moment::of(time_us);
    }

    /// The newest time that was taken of a sensor, on disk or on its way there.
    pub(crate) fn newest_us(&mut self, sensor: &SensorId) -> Option<i64> {
        self.settle();
        let entry = &self.entries[self.place(sensor)? as usize];
        entry.newest_us()
    }

    /// The newest times that were taken, on disk or on their way there.
    pub(crate) fn newest(&mut self) -> impl Iterator<Item = (&SensorId, i64)> {
        self.settle();
        self.entries.iter().filter_map(|entry| Some((&entry.sensor, entry.newest_us()?)))
    }

    /// The newest times that are on disk, or were.
    pub(crate) fn synced(&mut self) -> impl Iterator<Item = (&SensorId, i64)> {
        self.settle();
        self.entries.iter().filter_map(|entry| Some((&entry.sensor, entry.synced_us.get()?)))
    }

    /// Those of the newest times on disk that were estimated, each with the newest that was not.
    pub(crate) fn estimated(&mut self) -> impl Iterator<Item = (&SensorId, Option<i64>)> {
        self.settle();
        let estimated = self.entries.iter().filter(|entry| entry.sure_us != entry.synced_us);
        estimated.map(|entry| (&entry.sensor, entry.sure_us.get()))
    }

    /// The newest time on disk that nobody estimated, of these sensors.
    pub(crate) fn sure_us(&mut self, of: impl Fn(&SensorId) -> bool) -> Option<i64> {
        self.settle();
        self.entries.iter().filter(|entry| of(&entry.sensor)).filter_map(|entry| entry.sure_us.get()).max()
    }

    /// Times after this one are none that are sure any more. Whether there were any.
    pub(crate) fn distrust(&mut self, after_us: i64) -> bool {
        self.settle();
        let mut distrusted = self.entries.iter_mut().filter(|entry| entry.sure_us.get() > Some(after_us)).peekable();
        let is_any = distrusted.peek().is_some();
        distrusted.for_each(|entry| entry.sure_us = Moment::of(Some(after_us)));
        is_any
    }

    /// About how many bytes a segment begins with, to say all this: each name three times, and a time.
    pub(crate) fn snapshot_bytes(&mut self) -> usize {
        let estimated = self.estimated().map(|(sensor, _)| sensor.as_str().len() + 9).sum::<usize>();
        3 * self.names_bytes + 11 * self.entries.len() + estimated
    }

    /// Knows a list again from now on.
    fn learn(&mut self, list: &Arc<[SensorId]>) {
        if self.lists.get(list).is_some() {
            return;
        }
        if self.lists.are_many() {
            self.settle();
            self.lists.forget_unused();
        }
        let entry = |sensor: &SensorId| {
            self.follow_or_add(sensor);
            self.last
        };
        let entries = list.iter().map(entry).collect();
        self.lists.add(list, entries);
    }

    /// Tells each sensor what was noted of its list.
    fn settle(&mut self) {
        let Self { entries, lists, .. } = self;
        lists.tell(|entry, taken_us, synced_us| {
            let entry = &mut entries[entry as usize];
            taken_us.get().into_iter().for_each(|time_us| entry.taken_us.raise(time_us));
            if let Some(time_us) = synced_us.get() {
                entry.synced_us.raise(time_us);
                entry.sure_us.raise(time_us);
            }
        });
    }

    #[inline]
    fn follow(&mut self, sensor: &SensorId) -> Option<&mut Entry> {
        let guess = self.entries.get(self.last as usize).map_or(0, |last| last.next);
        let is_right = self.entries.get(guess as usize).is_some_and(|entry| entry.sensor == *sensor);
        let found = if is_right { guess } else { self.place(sensor)? };
        if let (false, Some(last)) = (is_right, self.entries.get_mut(self.last as usize)) {
            last.next = found;
        }
        self.last = found;
        self.entries.get_mut(found as usize)
    }

    #[inline]
    fn follow_or_add(&mut self, sensor: &SensorId) -> &mut Entry {
        if self.follow(sensor).is_none() {
            return self.add(sensor);
        }
        &mut self.entries[self.last as usize]
    }

    fn add(&mut self, sensor: &SensorId) -> &mut Entry {
        let place = u32::try_from(self.entries.len()).expect("a gateway has fewer than 2³² sensors");
        let (sensor, next) = (sensor.clone(), place.wrapping_add(1));
        self.names_bytes += sensor.as_str().len();
        self.last = place;
        if self.entries.len() == self.entries.capacity() {
            // By an eighth and not to twice as many: it is kept as long as the gateway runs.
            self.entries.reserve_exact(self.entries.len() / 8 + 64);
        }
        let none = Moment::NONE;
        self.entries.push(Entry { sensor, next, listed: None, taken_us: none, synced_us: none, sure_us: none });
        let Self { entries, places, hasher, .. } = self;
        let hash = |place: &u32| hasher.hash_one(&entries[*place as usize].sensor);
        places.insert_unique(hash(&place), place, hash);
        &mut self.entries[place as usize]
    }

    fn place(&self, sensor: &SensorId) -> Option<u32> {
        let is_it = |place: &u32| self.entries[*place as usize].sensor == *sensor;
        self.places.find(self.hasher.hash_one(sensor), is_it).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tjern_readings::round::Round;
    use tjern_readings::rows::Rows;

    use super::*;

    /// An estimate that ran ahead was taken for the newest moment that is known, and no clock that was right was believed.
    #[test]
    fn an_estimate_is_no_moment_that_is_known() {
        let sensor: SensorId = "mast/gust".parse().expect("valid");
        let logger: SensorId = "mast/logger".parse().expect("valid");
        let mut known = KnownSensors::default();
        let estimated = Reading { cause: Some(Cause::ClockEstimated), ..Reading::of(sensor.clone(), 90, 1.0) };
        known.note_synced(&estimated);
        assert_eq!((known.newest_us(&sensor), known.sure_us(|_| true)), (Some(90), None));
        known.note_synced(&Reading::of(sensor.clone(), 10, 1.0));
        known.note_synced(&Reading::missing(sensor.clone(), 95, Cause::Timeout));
        known.note_synced(&Reading { cause: Some(Cause::Maintenance), ..Reading::of(sensor.clone(), 92, 1.0) });
        known.note_synced(&Reading::of(logger.clone(), 70, 1.0));
        assert_eq!((known.newest_us(&sensor), known.sure_us(|_| true)), (Some(95), Some(70)));
        assert_eq!(known.sure_us(|one| *one != logger), Some(10));
        assert_eq!(known.estimated().collect::<Vec<_>>(), [(&sensor, Some(10))]);
    }

    proptest! {
        /// Of whole rounds, parts of them, and readings one by one the same is known, also once lists were made anew.
        #[test]
        fn of_rounds_is_known_what_their_readings_say(
            told in prop::collection::vec((0_usize..200, any::<i64>(), 0_usize..4, any::<bool>(), any::<bool>()), 0..300),
            listed in prop::collection::btree_set(0_usize..8, 0..8),
        ) {
            let sensors: Vec<SensorId> = (0..8).map(|number| format!("mast/number-{number}").parse().expect("valid")).collect();
            // More lists than are kept without a look whether somebody has them.
            let mut lists: Vec<Arc<[SensorId]>> =
                (0..200).map(|number| (0..3).map(|place| sensors[(number + place * number / 7) % 8].clone()).collect()).collect();
            let (mut known, mut plain) = (KnownSensors::default(), KnownSensors::default());
            for (number, time_us, cut, is_synced, is_made_anew) in told {
                let list = &mut lists[number];
                if is_made_anew {
                    *list = list.to_vec().into();
                }
                let mut rows = Rows::from(Round::new(Arc::clone(list), time_us, vec![1.0; 3]).expect("finite"));
                drop(rows.take_first(cut));
                let readings: Vec<Reading> = rows.iter().collect();
                if is_synced {
                    known.note_all_synced(rows.spans());
                    readings.iter().for_each(|reading| plain.note_synced(reading));
                } else {
                    known.note_all_taken(rows.spans());
                    readings.iter().for_each(|reading| plain.note_taken(&reading.sensor, reading.time_us));
                }
                prop_assert!(known.lists.len() <= 200 + 64, "{} lists", known.lists.len());
            }
            let times = |known: &mut KnownSensors| {
                let mut synced: Vec<_> = known.synced().map(|(sensor, time_us)| (sensor.clone(), time_us)).collect();
                synced.sort();
                (sensors.iter().map(|sensor| known.newest_us(sensor)).collect::<Vec<_>>(), synced, known.sure_us(|_| true))
            };
            prop_assert_eq!(times(&mut known), times(&mut plain));
            prop_assert_eq!(known.estimated().count(), 0);
            let listed: Vec<SensorId> = listed.into_iter().map(|number| sensors[number].clone()).collect();
            for segment in [&listed[..listed.len() / 2], &listed] {
                known.list(segment);
                for list in &lists {
                    let place = |sensor: &SensorId| segment.iter().position(|listed| listed == sensor);
                    let places: Option<Vec<usize>> = list.iter().map(place).collect();
                    let found = known.places(list).map(|places| places.iter().map(|place| usize::from(*place)).collect());
                    prop_assert_eq!(found, places);
                }
            }
        }

        /// Whatever the order, and whether ids are clones or only equal: what is known of each is what plain maps say.
        #[test]
        fn a_guess_is_never_believed(
            asked in prop::collection::vec((0_u8..12, any::<i64>(), any::<bool>(), any::<bool>()), 0..200),
            listed in prop::collection::btree_set(0_u8..14, 0..14),
        ) {
            let sensor = |number: u8| -> SensorId { format!("mast/number-{number}").parse().expect("valid") };
            let clones: Vec<SensorId> = (0..12).map(sensor).collect();
            let (mut known, mut taken, mut synced) = (KnownSensors::default(), HashMap::new(), HashMap::new());
            for (number, time_us, is_clone, is_synced) in asked {
                let asked = if is_clone { clones[usize::from(number)].clone() } else { sensor(number) };
                let plain: &mut HashMap<u8, i64> = if is_synced { &mut synced } else { &mut taken };
                plain.entry(number).and_modify(|newest_us| *newest_us = time_us.max(*newest_us)).or_insert(time_us);
                if is_synced { known.note_newest(&asked, time_us) } else { known.note_taken(&asked, time_us) }
                prop_assert_eq!(known.newest_us(&asked), taken.get(&number).copied().max(synced.get(&number).copied()));
            }
            let on_disk: HashMap<_, _> = known.synced().map(|(sensor, time_us)| (sensor.clone(), time_us)).collect();
            prop_assert_eq!(on_disk, synced.iter().map(|(number, time_us)| (sensor(*number), *time_us)).collect());
            let list: Vec<SensorId> = listed.iter().map(|number| sensor(*number)).collect();
            known.list(&[sensor(13)]);
            known.list(&list);
            for number in 0..14 {
                let place = list.iter().position(|listed| *listed == sensor(number));
                prop_assert_eq!(known.listed(&sensor(number)).map(usize::from), place);
            }
        }
    }
}
