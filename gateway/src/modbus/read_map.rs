//! What a unit may be asked that serves nobody: its points, whole, and how far a read may go beyond them.
//!
//! A device may stay silent where it is asked for what it does not have, and a register that is not there may damage the next
//! answer. So a probe (see `owed`) reads whole points without a hole if it can, then the begin of the request that it
//! goes before, and only then, where the configuration does not say how large a hole may be, past its end. Never more
//! than `max_registers` or `max_bits`. No I/O, no clock.

use std::collections::BTreeMap;

use super::transport::{ReadRequest, Table};
use crate::config::{ModbusDevice, ReadLimits};

/// The data of the longest answer.
const ANSWER_BYTES_MAX: u16 = 250;

/// Of a line that is not known the first probe past a request reads so many registers, or bytes of bits: more than any other
/// probe of the kind, whose length is the least that is neither owed nor the request's own.
pub(super) const STRANGE_PROBE: u16 = 19;
const _: () = assert!(STRANGE_PROBE as usize > super::owed::OWED_MAX + 2);

/// What is configured of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadMap {
    limits: ReadLimits,
    /// Whole points that adjoin, one read a table and length of answer, the shortest first.
    whole: Vec<ReadRequest>,
}

/// How many bytes a place of a table has: a byte of bits, or a register.
const fn step(table: Table) -> u16 {
    if table.is_bits() { 1 } else { 2 }
}

/// Whether the answer is as long as the probes past a request are on a line that is not known.
pub(super) const fn is_long(request: ReadRequest) -> bool {
    request.answer_bytes() >= STRANGE_PROBE * step(request.table())
}

impl ReadMap {
    /// That of a device.
    #[must_use]
    pub fn of(device: &ModbusDevice) -> Self {
        let spans = device.points.iter().map(|point| (point.table, point.address, point.kind.width()));
        Self::of_spans(device.reads, spans.collect())
    }

    /// That of points: table, first address, width.
    pub(super) fn of_spans(limits: ReadLimits, mut spans: Vec<(Table, u16, u16)>) -> Self {
        spans.sort_unstable();
        spans.dedup();
        let mut whole = BTreeMap::new();
        for (begin, (table, first, _)) in spans.iter().enumerate() {
            let mut end = u32::from(*first);
            for (other, address, width) in &spans[begin..] {
                if other != table || u32::from(*address) > end {
                    break;
                }
                end = end.max(u32::from(*address) + u32::from(*width));
                let count = u16::try_from(end - u32::from(*first)).unwrap_or(u16::MAX);
                let Some(read) = ReadRequest::new(*table, *first, count).filter(|_| count <= most(limits, *table))
                else {
                    break;
                };
                whole.entry((*table, read.answer_bytes())).or_insert(read);
            }
        }
        Self { limits, whole: whole.into_values().collect() }
    }

    fn may_go_beyond(&self) -> bool {
        self.limits.max_hole.is_none()
    }
}

fn most(limits: ReadLimits, table: Table) -> u16 {
    let most = if table.is_bits() { limits.max_bits } else { limits.max_registers };
    most.min(table.count_max())
}

/// What may be asked in a request's place, what is preferred first. Without a map nothing is known of the unit. On a line
/// that is not known long reads go first: who was there before asks short ones.
pub(super) fn candidates(map: Option<&ReadMap>, request: ReadRequest, is_strange: bool) -> Vec<ReadRequest> {
    let (table, own) = (request.table(), request.answer_bytes());
    let step = step(table);
    let most = table.answer_bytes(most(map.map_or_else(ReadLimits::default, |map| map.limits), table));
    let may_go_beyond = map.is_none_or(ReadMap::may_go_beyond);
    let of_length = |bytes: u16| request.with_answer_bytes(bytes).filter(|_| bytes <= most || bytes < own);
    let lengths = |from: u16, to: u16| (from..to).filter(move |bytes| bytes % step == 0).filter_map(of_length);
    let mut whole: Vec<ReadRequest> =
        map.into_iter().flat_map(|map| &map.whole).copied().filter(|read| read.table() == table).collect();
    let mut within: Vec<ReadRequest> = lengths(step, own).collect();
    let mut beyond: Vec<ReadRequest> = Vec::new();
    if may_go_beyond {
        beyond.extend(lengths(own + step, ANSWER_BYTES_MAX + 1));
    }
    if !is_strange {
        return [whole, within, beyond].concat();
    }
    whole.reverse();
    within.reverse();
    let long_first = |read: &ReadRequest| match is_long(*read) {
        true => (false, read.answer_bytes()),
        false => (true, ANSWER_BYTES_MAX - read.answer_bytes()),
    };
    if map.is_some() {
        beyond.sort_by_key(long_first);
        return [whole, within, beyond].concat();
    }
    let mut all = [within, beyond].concat();
    all.sort_by_key(long_first);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(max_registers: u16, max_hole: Option<u16>) -> ReadLimits {
        ReadLimits { max_registers, max_hole, ..ReadLimits::default() }
    }

    fn counts(reads: &[ReadRequest]) -> Vec<u16> {
        reads.iter().map(|read| read.count()).collect()
    }

    fn input(address: u16, count: u16) -> ReadRequest {
        ReadRequest::new(Table::Input, address, count).expect("within")
    }

    #[test]
    fn whole_points_go_first_then_the_begin_of_the_request() {
        // Two numbers of two registers, a hole, and a register.
        let spans = vec![(Table::Input, 0, 2), (Table::Input, 2, 2), (Table::Input, 6, 1)];
        let careful = ReadMap::of_spans(limits(125, Some(0)), spans.clone());
        assert_eq!(counts(&candidates(Some(&careful), input(0, 4), false)), [1, 2, 4, 1, 2, 3]);
        assert_eq!(counts(&candidates(Some(&careful), input(0, 4), true)), [4, 2, 1, 3, 2, 1]);
        let eight = ReadMap::of_spans(limits(8, None), spans);
        assert_eq!(counts(&candidates(Some(&eight), input(6, 1), true)), [4, 2, 1, 8, 7, 6, 5, 4, 3, 2]);
        assert_eq!(counts(&candidates(None, input(0, 1), false))[..3], [2, 3, 4]);
        assert_eq!(counts(&candidates(None, input(0, 1), true))[..3], [19, 20, 21]);
    }

    proptest! {
        /// A register that nobody has may damage the next answer; a request that is too long may go unanswered.
        #[test]
        fn no_probe_leaves_what_is_configured(
            points in prop::collection::vec((0_usize..4, 0_u16..60, prop::sample::select(vec![1_u16, 2, 4])), 1..20),
            most in 4_u16..125, of in 0_usize..20, is_strange in any::<bool>(),
        ) {
            let spans: Vec<_> = points.iter().map(|(table, address, width)| (Table::ALL[*table].1, *address, *width)).collect();
            let (table, address, width) = spans[of % spans.len()];
            let request = ReadRequest::new(table, address, width).expect("within");
            let map = ReadMap::of_spans(ReadLimits { max_registers: most, max_bits: most, max_hole: Some(0) }, spans.clone());
            for probe in candidates(Some(&map), request, is_strange) {
                prop_assert!(probe.count() <= most);
                prop_assert_eq!(probe.table(), table);
                for place in probe.address()..probe.address() + probe.count() {
                    let is_there = spans.iter().any(|(own, first, width)| *own == table && (*first..first + width).contains(&place));
                    prop_assert!(is_there, "{:?} reads {}", probe, place);
                }
            }
        }
    }
}
