//! What the units of an RTU line may still answer, and what is asked before an answer is believed again.
//!
//! An RTU answer does not say what it answers, but it has a length, and devices answer in order. So while a unit may
//! owe an answer, it is asked something whose answer no owed one can pass for: a request whose own length is
//! owed waits for a **probe**, a read of another length that the unit bears (`read_map`). Once that one's answer is there, nothing
//! earlier is to come. An exception has no length of its own: so many must come as answers are owed, and one more.
//!
//! Who begins on a line knows nothing of what was asked there before: by an earlier run, by a bus that a reload ended, by
//! a task that failed. Every unit and table is taken to owe one answer of an unknown length until it was probed.
//! A probe's answer may then be that one, and the probe's own still to come; the request after it, of another
//! length, can be neither. A long probe is longer than any of a master that knows its line: what a device that was slow for long
//! still has to say to the probes of the one before is not mistaken for its answer. Of shorter ones two are answered.
//!
//! A unit may be **deaf** to probes: silent where it is asked for what it does not have. After [`SILENT_PROBES`] to which
//! nothing came, or where no probe is allowed, the request itself is asked: its answer is not believed, but shows that
//! somebody is there. If then nothing more comes, neither to one more probe nor until an answer's longest time is over
//! twice, nothing is owed (`rtu`). No I/O, no clock.
//!
//! Limits: of more than [`OWED_MAX`] answers the oldest is forgotten. Of what was asked before its time a unit may owe
//! more than one only if it sends it while a new master still listens (see `rtu`).

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::read_map::{ReadMap, candidates, is_long};
use super::transport::{ReadRequest, Table};

/// How many owed answers are remembered for a unit and table.
pub(super) const OWED_MAX: usize = 16;

/// After so many probes in a row to which nothing came, a unit is taken to be deaf to them.
const SILENT_PROBES: u8 = 2;

/// How many requests a read takes at least before it is given up: a probe that is refused, until that is certain.
const REQUESTS_MIN: usize = 6;

/// What the units of a line owe.
#[derive(Debug)]
pub(super) struct Debts {
    units: HashMap<(u8, Table), Owed>,
    /// What a unit owes that was never asked.
    strange: Owed,
    #[cfg(test)]
    pub(super) careless: bool,
}

/// What a unit may still answer from a table.
#[derive(Debug, Clone, Default)]
struct Owed {
    /// Of lengths that nobody knows.
    unknown: usize,
    lengths: VecDeque<u16>,
    exceptions: usize,
    /// One short probe was answered while a length was unknown.
    half_known: bool,
    /// Probes in a row to which nothing came.
    silences: u8,
    /// When the last request was given up.
    lost_at: Option<Instant>,
}

/// What is asked in a request's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// Nothing: no owed answer passes for the request's.
    NotNeeded,
    /// This.
    Ask(ReadRequest),
    /// There would have to be one, and the unit bears none.
    NoneFits,
}

impl Owed {
    fn count(&self) -> usize {
        self.unknown + self.lengths.len()
    }

    fn push(&mut self, request: ReadRequest) {
        self.lengths.push_back(request.answer_bytes());
        if self.lengths.len() > OWED_MAX {
            self.lengths.pop_front();
        }
    }
}

impl Debts {
    /// Those of a line of which nothing is known.
    pub(super) fn of_a_strange_line() -> Self {
        Self {
            units: HashMap::new(),
            strange: Owed { unknown: 1, ..Owed::default() },
            #[cfg(test)]
            careless: false,
        }
    }

    /// The same where every unit is taken to be deaf: one that is not there costs one request, and none is asked more than
    /// what it is asked for before it has answered.
    pub(super) fn asking_first(mut self) -> Self {
        self.strange.silences = SILENT_PROBES;
        self
    }

    /// Those of a line on which nothing was asked before.
    #[cfg(test)]
    pub(super) fn of_a_fresh_line() -> Self {
        Self { strange: Owed::default(), ..Self::of_a_strange_line() }
    }

    fn owed(&self, unit: u8, table: Table) -> &Owed {
        self.units.get(&(unit, table)).unwrap_or(&self.strange)
    }

    fn owed_mut(&mut self, unit: u8, table: Table) -> &mut Owed {
        self.units.entry((unit, table)).or_insert_with(|| self.strange.clone())
    }

    /// How many answers a unit owes from a table.
    pub(super) fn count(&self, unit: u8, table: Table) -> usize {
        self.owed(unit, table).count()
    }

    /// How many requests a read may take: each that is owed may be an exception, and the probes' own after them.
    pub(super) fn requests_max(&self, unit: u8, table: Table) -> usize {
        REQUESTS_MIN.max(2 * self.count(unit, table) + 2)
    }

    /// What is to be asked before this request: a read that no owed answer can pass for.
    pub(super) fn probe(&self, unit: u8, request: ReadRequest, map: Option<&ReadMap>) -> Probe {
        #[cfg(test)]
        if self.careless {
            return Probe::NotNeeded;
        }
        let owed = self.owed(unit, request.table());
        if owed.unknown == 0 && !owed.lengths.contains(&request.answer_bytes()) {
            return Probe::NotNeeded;
        }
        let is_free = |probe: &ReadRequest| {
            let bytes = probe.answer_bytes();
            bytes != request.answer_bytes() && !owed.lengths.contains(&bytes)
        };
        candidates(map, request, owed.unknown > 0).into_iter().find(is_free).map_or(Probe::NoneFits, Probe::Ask)
    }

    /// Whether the unit answers no probes, as far as is known.
    pub(super) fn is_deaf(&self, unit: u8, table: Table) -> bool {
        self.owed(unit, table).silences >= SILENT_PROBES
    }

    /// When it last was not answered.
    pub(super) fn lost_at(&self, unit: u8, table: Table) -> Option<Instant> {
        self.owed(unit, table).lost_at
    }

    /// A request was sent, and no answer to it came, or none that could be read; whether nothing came at all.
    pub(super) fn lost(&mut self, unit: u8, request: ReadRequest, (was_silent, now): (bool, Instant)) {
        let owed = self.owed_mut(unit, request.table());
        // What is asked first says nothing about probes; who is deaf is not cured by noise.
        if was_silent && owed.count() > 0 {
            owed.silences = owed.silences.saturating_add(1);
        } else if owed.silences < SILENT_PROBES {
            owed.silences = 0;
        }
        owed.lost_at = Some(now);
        owed.push(request);
    }

    /// An answer of the request's length came, and none of that length was known to be owed.
    pub(super) fn answered(&mut self, unit: u8, request: ReadRequest) {
        let owed = self.owed_mut(unit, request.table());
        owed.exceptions = 0;
        if owed.unknown == 0 {
            owed.lengths.clear();
            return;
        }
        // It may be one of those, and the request's own still to come.
        owed.push(request);
        if is_long(request) || owed.half_known {
            (owed.unknown, owed.half_known) = (0, false);
        } else {
            owed.half_known = true;
        }
    }

    /// A probe was answered, if only with an exception.
    pub(super) fn hears(&mut self, unit: u8, table: Table) {
        self.owed_mut(unit, table).silences = 0;
    }

    /// The request itself was answered, though what is owed may pass for that.
    pub(super) fn knocked(&mut self, unit: u8, request: ReadRequest) {
        let owed = self.owed_mut(unit, request.table());
        owed.exceptions = 0;
        (owed.unknown, owed.half_known) = (0, false);
        if !owed.lengths.contains(&request.answer_bytes()) {
            owed.push(request);
        }
    }

    /// After that nothing came any more for as long as an answer may take: nothing is owed.
    pub(super) fn fell_silent(&mut self, unit: u8, table: Table) {
        let owed = self.owed_mut(unit, table);
        *owed = Owed { silences: owed.silences, ..Owed::default() };
    }

    /// An exception came, to a probe or to the request itself. Whether it is certainly to that one.
    pub(super) fn refused(&mut self, unit: u8, request: ReadRequest, is_probe: bool) -> bool {
        let owed = self.owed_mut(unit, request.table());
        if owed.count() == 0 {
            return true;
        }
        owed.exceptions += 1;
        if owed.exceptions > owed.count() {
            *owed = Owed { silences: owed.silences, ..Owed::default() };
        } else if !is_probe {
            owed.push(request);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modbus::transport::REGISTERS_MAX;
    use proptest::prelude::*;

    fn holding(address: u16, count: u16) -> ReadRequest {
        ReadRequest::new(Table::Holding, address, count).expect("within")
    }

    /// Of a unit of which nothing is configured.
    fn probe_of(debts: &Debts, request: ReadRequest) -> Option<ReadRequest> {
        match debts.probe(1, request, None) {
            Probe::Ask(probe) => Some(probe),
            Probe::NotNeeded => None,
            Probe::NoneFits => panic!("there is always one"),
        }
    }

    fn lost(debts: &mut Debts, request: ReadRequest) {
        debts.lost(1, request, (false, Instant::now()));
    }

    proptest! {
        #[test]
        fn no_owed_answer_passes_for_a_probes(
            table in prop::sample::select(Table::ALL),
            asked in prop::collection::vec((any::<u16>(), 1_u16..=125), 1..40),
        ) {
            let mut debts = Debts::of_a_fresh_line();
            let mut owed = Vec::new();
            for (address, count) in asked {
                let Some(request) = ReadRequest::new(table.1, address, count) else { continue };
                let recent: Vec<u16> = owed.iter().rev().take(OWED_MAX).copied().collect();
                match probe_of(&debts, request) {
                    Some(probe) => {
                        prop_assert!(!recent.contains(&probe.answer_bytes()));
                        prop_assert_ne!(probe.answer_bytes(), request.answer_bytes());
                        prop_assert_eq!(probe.table(), request.table());
                    }
                    None => prop_assert!(!recent.contains(&request.answer_bytes())),
                }
                lost(&mut debts, request);
                owed.push(request.answer_bytes());
            }
            debts.answered(1, ReadRequest::new(table.1, 0, 1).expect("within"));
            prop_assert_eq!(debts.count(1, table.1), 0);
        }
    }

    /// One answer is owed that nobody here asked for, of any length.
    #[test]
    fn of_a_strange_line_the_second_answer_is_believed() {
        let mut debts = Debts::of_a_strange_line();
        let request = holding(7, 3);
        let probe = probe_of(&debts, request).expect("nothing is known of the unit");
        debts.answered(1, probe);
        assert_eq!((debts.count(1, Table::Holding), probe_of(&debts, request)), (1, None));
        debts.answered(1, request);
        assert_eq!((debts.count(1, Table::Holding), probe_of(&debts, request)), (0, None));
        assert!(probe_of(&debts, ReadRequest::new(Table::Input, 7, 3).expect("within")).is_some(), "another table");
        assert!(debts.probe(2, request, None) != Probe::NotNeeded, "another unit");
    }

    /// A device that was slow for long has answers to a row of probes under way, each longer than the one before: the probes
    /// of who comes after were the same ones, and two late answers in a row passed for a probe's and a value.
    #[test]
    fn the_probes_of_a_strange_line_are_none_of_a_line_that_is_known() {
        let (mut before, after) = (Debts::of_a_fresh_line(), Debts::of_a_strange_line());
        let request = holding(7, 8);
        let mut probes = 0;
        lost(&mut before, request);
        for _ in 0..3 * OWED_MAX {
            // What is owed for the longest is forgotten in the end, the request itself too: then it is asked again.
            let Some(probe) = probe_of(&before, request) else {
                lost(&mut before, request);
                continue;
            };
            probes += 1;
            for count in 1..=REGISTERS_MAX {
                let strange = probe_of(&after, holding(7, count)).expect("nothing is known of the unit");
                assert!(strange.answer_bytes() > probe.answer_bytes(), "{strange:?}, {probe:?}");
            }
            lost(&mut before, probe);
        }
        assert!(probes > 2 * OWED_MAX, "{probes}");
    }

    /// The probe's answer was not in time: it must not pass for the next probe's.
    #[test]
    fn what_a_strange_line_owes_besides_is_remembered() {
        let mut debts = Debts::of_a_strange_line();
        let request = holding(7, 3);
        let probe = probe_of(&debts, request).expect("nothing is known of the unit");
        lost(&mut debts, probe);
        let next = probe_of(&debts, request).expect("still nothing");
        assert_ne!(next.answer_bytes(), probe.answer_bytes());
        debts.answered(1, next);
        lost(&mut debts, request);
        let last = probe_of(&debts, request).expect("the request itself is owed");
        assert!(![probe, next, request].map(ReadRequest::answer_bytes).contains(&last.answer_bytes()));
    }

    #[test]
    fn as_many_exceptions_as_are_owed_and_one_more() {
        let mut debts = Debts::of_a_fresh_line();
        let (request, probe) = (holding(7, 3), holding(7, 1));
        assert!(debts.refused(1, request, false), "nothing was owed: it is the request's own");
        lost(&mut debts, request);
        lost(&mut debts, probe);
        for left in [2, 2, 0] {
            assert!(!debts.refused(1, holding(7, 2), true));
            assert_eq!(debts.count(1, Table::Holding), left);
        }
    }

    /// Two short answers may be to a row of what was asked before; it takes two probes to be past the first of them.
    #[test]
    fn of_short_probes_two_are_answered() {
        let map =
            ReadMap::of_spans(crate::config::ReadLimits::default(), (0..8).map(|at| (Table::Holding, at, 1)).collect());
        let (mut debts, request) = (Debts::of_a_strange_line(), holding(0, 8));
        for count in [7, 6] {
            let Probe::Ask(probe) = debts.probe(1, request, Some(&map)) else { panic!("it has shorter reads") };
            assert_eq!(probe.count(), count);
            debts.answered(1, probe);
        }
        assert_eq!(debts.probe(1, request, Some(&map)), Probe::NotNeeded);
    }

    #[test]
    fn a_unit_is_deaf_after_two_silent_probes_and_until_it_answers_one() {
        let (mut debts, request, now) = (Debts::of_a_fresh_line(), holding(7, 3), Instant::now());
        let is_deaf = |debts: &Debts| debts.is_deaf(1, Table::Holding);
        debts.lost(1, request, (true, now));
        debts.lost(1, holding(7, 1), (true, now));
        // A late answer to another request is no silence.
        debts.lost(1, holding(7, 2), (false, now));
        debts.lost(1, holding(7, 4), (true, now));
        assert!(!is_deaf(&debts));
        debts.lost(1, holding(7, 5), (true, now));
        assert!(is_deaf(&debts) && debts.lost_at(1, Table::Holding) == Some(now));
        debts.knocked(1, request);
        assert!(probe_of(&debts, request).is_some(), "its answer may be the one that was owed");
        debts.fell_silent(1, Table::Holding);
        assert!(is_deaf(&debts) && probe_of(&debts, request).is_none());
        debts.hears(1, Table::Holding);
        assert!(!is_deaf(&debts));
    }
}
