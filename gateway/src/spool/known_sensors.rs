//! What the spool knows of each sensor: its newest time, and its place in the list of the segment that is written.
//!
//! It is asked for every reading, so it is found without a hash where readings come in the order of the last round: a
//! plan asks a device for the same points round after round, so what follows a sensor's reading is nearly always the
//! one that followed it before. Each entry remembers that one; it is looked at first, and confirmed by comparing ids,
//! which for clones of one id is comparing addresses. A wrong guess costs a hash. There is one table for a spool: its
//! handles note what was taken, its core what is on disk. No I/O.

use std::collections::HashMap;

use tjern_readings::sensor::SensorId;

/// What is known of the sensors that a spool ever had readings of, as far as its log tells.
#[derive(Debug, Default)]
pub(crate) struct KnownSensors {
    entries: Vec<Entry>,
    places: HashMap<SensorId, u32>,
    /// The entry that was found last.
    last: u32,
    /// The bytes of all names.
    names_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    sensor: SensorId,
    /// The entry that was asked for after this one.
    next: u32,
    /// In the list of the segment that is written.
    listed: Option<u16>,
    /// The newest time that was taken.
    taken_us: Option<i64>,
    /// The newest time that is on disk, or was.
    synced_us: Option<i64>,
}

impl KnownSensors {
    /// The place of a sensor in the list of the segment that is written.
    pub(crate) fn listed(&mut self, sensor: &SensorId) -> Option<u16> {
        self.follow(sensor)?.listed
    }

    /// The list of the segment that is written is this one from now on.
    pub(crate) fn list(&mut self, sensors: &[SensorId]) {
        self.entries.iter_mut().for_each(|entry| entry.listed = None);
        for (sensor, place) in sensors.iter().zip(0..=u16::MAX) {
            // Not followed: the list has an order of its own.
            let known = self.places.get(sensor).map(|known| *known as usize);
            match known.and_then(|known| self.entries.get_mut(known)) {
                Some(entry) => entry.listed = Some(place),
                None => self.add(sensor).listed = Some(place),
            }
        }
    }

    /// A reading was taken.
    pub(crate) fn note_taken(&mut self, sensor: &SensorId, time_us: i64) {
        let taken_us = &mut self.follow_or_add(sensor).taken_us;
        *taken_us = Some(time_us).max(*taken_us);
    }

    /// A reading is on disk, or was.
    pub(crate) fn note_synced(&mut self, sensor: &SensorId, time_us: i64) {
        let synced_us = &mut self.follow_or_add(sensor).synced_us;
        *synced_us = Some(time_us).max(*synced_us);
    }

    /// The newest time that was taken of a sensor, on disk or on its way there.
    pub(crate) fn newest_us(&self, sensor: &SensorId) -> Option<i64> {
        let entry = &self.entries[*self.places.get(sensor)? as usize];
        entry.taken_us.max(entry.synced_us)
    }

    /// The newest times that were taken, on disk or on their way there.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (&SensorId, i64)> {
        self.entries.iter().filter_map(|entry| Some((&entry.sensor, entry.taken_us.max(entry.synced_us)?)))
    }

    /// The newest times that are on disk, or were.
    pub(crate) fn synced(&self) -> impl Iterator<Item = (&SensorId, i64)> {
        self.entries.iter().filter_map(|entry| Some((&entry.sensor, entry.synced_us?)))
    }

    /// About how many bytes a segment begins with, to say all this: each name three times, and a time.
    pub(crate) const fn snapshot_bytes(&self) -> usize {
        3 * self.names_bytes + 11 * self.entries.len()
    }

    fn follow(&mut self, sensor: &SensorId) -> Option<&mut Entry> {
        let guess = self.entries.get(self.last as usize).map_or(0, |last| last.next);
        let is_right = self.entries.get(guess as usize).is_some_and(|entry| entry.sensor == *sensor);
        let found = if is_right { guess } else { *self.places.get(sensor)? };
        if let (false, Some(last)) = (is_right, self.entries.get_mut(self.last as usize)) {
            last.next = found;
        }
        self.last = found;
        self.entries.get_mut(found as usize)
    }

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
        self.places.insert(sensor.clone(), place);
        self.last = place;
        if self.entries.len() == self.entries.capacity() {
            // By an eighth and not to twice as many: it is kept as long as the gateway runs.
            self.entries.reserve_exact(self.entries.len() / 8 + 64);
        }
        self.entries.push(Entry { sensor, next, listed: None, taken_us: None, synced_us: None });
        &mut self.entries[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
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
                if is_synced { known.note_synced(&asked, time_us) } else { known.note_taken(&asked, time_us) }
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
