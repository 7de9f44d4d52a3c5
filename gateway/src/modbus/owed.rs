//! What the units of an RTU line may still answer, and what is asked before an answer is believed again.
//!
//! An RTU answer does not say what it answers, but it has a length, and devices answer in order. So while a unit may
//! owe an answer, it is asked something whose answer no owed one can pass for: a request whose own length is
//! owed waits for a **probe**, a read near the same place of another length. Once that one's answer is there, nothing
//! earlier is to come. An exception has no length of its own: so many must come as answers are owed, and one more.
//!
//! Who begins on a line knows nothing of what was asked there before: by an earlier run, by a bus that a reload ended, by
//! a task that failed. Every unit and table is taken to owe one answer of an unknown length until it was probed.
//! A probe's answer may then be that one, and the probe's own still to come; the request after it, of another
//! length, can be neither. Those probes are longer than any of a master that knows its line: what a device that was slow for long
//! still has to say to the probes of the one before is not mistaken for their answers. No I/O, no clock.
//!
//! Limits: of more than [`OWED_MAX`] answers the oldest is forgotten. Of what was asked before its time a unit may owe
//! more than one only if it sends it while a new master still listens (see `rtu`).

use std::collections::{HashMap, VecDeque};

use super::transport::{ReadRequest, Table};

/// How many owed answers are remembered for a unit and table.
pub(super) const OWED_MAX: usize = 16;

/// Of a line that is not known the first probe reads so many registers, or bytes of bits: more than any other probe, whose
/// length is the least that is neither owed nor the request's own.
const STRANGE_PROBE: u16 = 19;
const _: () = assert!(STRANGE_PROBE as usize > OWED_MAX + 2);

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

    /// What is to be asked before this request: a read near the same place that no owed answer can pass for. `None`
    /// where the request itself is one.
    pub(super) fn probe(&self, unit: u8, request: ReadRequest) -> Option<ReadRequest> {
        #[cfg(test)]
        if self.careless {
            return None;
        }
        let owed = self.owed(unit, request.table());
        if owed.unknown == 0 && !owed.lengths.contains(&request.answer_bytes()) {
            return None;
        }
        let step = if request.table().is_bits() { 1 } else { 2 };
        let first = if owed.unknown > 0 { STRANGE_PROBE } else { 1 };
        let lengths = (first..).map(|count| count * step).take_while(|bytes| *bytes <= 250);
        let free = |bytes: &u16| !owed.lengths.contains(bytes) && *bytes != request.answer_bytes();
        lengths.filter(free).find_map(|bytes| request.with_answer_bytes(bytes))
    }

    /// A request was sent, and no answer to it came, or none that could be read.
    pub(super) fn lost(&mut self, unit: u8, request: ReadRequest) {
        self.owed_mut(unit, request.table()).push(request);
    }

    /// An answer of the request's length came, and none of that length was known to be owed.
    pub(super) fn answered(&mut self, unit: u8, request: ReadRequest) {
        let owed = self.owed_mut(unit, request.table());
        owed.exceptions = 0;
        if owed.unknown == 0 {
            owed.lengths.clear();
        } else {
            // It may be one of those, and the request's own still to come.
            owed.unknown -= 1;
            owed.push(request);
        }
    }

    /// An exception came, to a probe or to the request itself. Whether it is certainly to that one.
    pub(super) fn refused(&mut self, unit: u8, request: ReadRequest, is_probe: bool) -> bool {
        let owed = self.owed_mut(unit, request.table());
        if owed.count() == 0 {
            return true;
        }
        owed.exceptions += 1;
        if owed.exceptions > owed.count() {
            *owed = Owed::default();
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
                match debts.probe(1, request) {
                    Some(probe) => {
                        prop_assert!(!recent.contains(&probe.answer_bytes()));
                        prop_assert_ne!(probe.answer_bytes(), request.answer_bytes());
                        prop_assert_eq!(probe.table(), request.table());
                    }
                    None => prop_assert!(!recent.contains(&request.answer_bytes())),
                }
                debts.lost(1, request);
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
        let probe = debts.probe(1, request).expect("nothing is known of the unit");
        debts.answered(1, probe);
        assert_eq!((debts.count(1, Table::Holding), debts.probe(1, request)), (1, None));
        debts.answered(1, request);
        assert_eq!((debts.count(1, Table::Holding), debts.probe(1, request)), (0, None));
        assert!(debts.probe(1, ReadRequest::new(Table::Input, 7, 3).expect("within")).is_some(), "another table");
        assert!(debts.probe(2, request).is_some(), "another unit");
    }

    /// A device that was slow for long has answers to a row of probes under way, each longer than the one before: the probes
    /// of who comes after were the same ones, and two late answers in a row passed for a probe's and a value.
    #[test]
    fn the_probes_of_a_strange_line_are_none_of_a_line_that_is_known() {
        let (mut before, after) = (Debts::of_a_fresh_line(), Debts::of_a_strange_line());
        let request = holding(7, 8);
        let mut probes = 0;
        before.lost(1, request);
        for _ in 0..3 * OWED_MAX {
            // What is owed for the longest is forgotten in the end, the request itself too: then it is asked again.
            let Some(probe) = before.probe(1, request) else {
                before.lost(1, request);
                continue;
            };
            probes += 1;
            for count in 1..=REGISTERS_MAX {
                let strange = after.probe(1, holding(7, count)).expect("nothing is known of the unit");
                assert!(strange.answer_bytes() > probe.answer_bytes(), "{strange:?}, {probe:?}");
            }
            before.lost(1, probe);
        }
        assert!(probes > 2 * OWED_MAX, "{probes}");
    }

    /// The probe's answer was not in time: it must not pass for the next probe's.
    #[test]
    fn what_a_strange_line_owes_besides_is_remembered() {
        let mut debts = Debts::of_a_strange_line();
        let request = holding(7, 3);
        let probe = debts.probe(1, request).expect("nothing is known of the unit");
        debts.lost(1, probe);
        let next = debts.probe(1, request).expect("still nothing");
        assert_ne!(next.answer_bytes(), probe.answer_bytes());
        debts.answered(1, next);
        debts.lost(1, request);
        let last = debts.probe(1, request).expect("the request itself is owed");
        assert!(![probe, next, request].map(ReadRequest::answer_bytes).contains(&last.answer_bytes()));
    }

    #[test]
    fn as_many_exceptions_as_are_owed_and_one_more() {
        let mut debts = Debts::of_a_fresh_line();
        let (request, probe) = (holding(7, 3), holding(7, 1));
        assert!(debts.refused(1, request, false), "nothing was owed: it is the request's own");
        debts.lost(1, request);
        debts.lost(1, probe);
        for left in [2, 2, 0] {
            assert!(!debts.refused(1, holding(7, 2), true));
            assert_eq!(debts.count(1, Table::Holding), left);
        }
    }
}
