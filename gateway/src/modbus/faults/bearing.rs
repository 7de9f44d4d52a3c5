//! What devices on an RTU line answer at all: any read, no probe, or what is configured of them.

use std::collections::HashMap;

use fastrand::Rng;

use super::UNITS;
use super::device::Habits;
use crate::config::ReadLimits;
use crate::modbus::read_map::ReadMap;
use crate::modbus::transport::{ReadRequest, Table};
use crate::simulate::bad_line::Framing;

/// What devices on an RTU line bear, by the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearing {
    /// Any read.
    Any,
    /// Reads of two registers, and no probe: they are silent to all others.
    Deaf,
    /// Reads of what is configured, whose places are [`BOUNDS`], and nothing past that.
    Mapped,
}

/// Where the points of a unit begin that is configured, and where the last ends.
static BOUNDS: [u16; 5] = [0, 1, 3, 4, 8];

impl Bearing {
    pub(super) const fn of(framing: Framing, seed: u64) -> Self {
        match (framing, seed % 4) {
            (Framing::Rtu, 1) => Self::Deaf,
            (Framing::Rtu, 3) => Self::Mapped,
            _ => Self::Any,
        }
    }

    pub(super) fn habits(self) -> Habits {
        let bears: fn(ReadRequest) -> bool = match self {
            Self::Any => |_| true,
            Self::Deaf => |request| request.count() == 2,
            Self::Mapped => |request| u32::from(request.address()) + u32::from(request.count()) <= 8,
        };
        Habits { bears, ..Habits::default() }
    }

    pub(super) fn maps(self) -> HashMap<u8, ReadMap> {
        if self != Self::Mapped {
            return HashMap::new();
        }
        let limits = ReadLimits { max_hole: Some(0), ..ReadLimits::default() };
        let spans = [Table::Holding, Table::Input]
            .into_iter()
            .flat_map(|table| BOUNDS.windows(2).map(move |bounds| (table, bounds[0], bounds[1] - bounds[0])));
        let map = ReadMap::of_spans(limits, spans.collect());
        (1..=UNITS).map(|unit| (unit, map.clone())).collect()
    }

    pub(super) fn any_request(self, rng: &mut Rng) -> ReadRequest {
        let request = match self {
            Self::Any => return any_request(rng),
            Self::Deaf => ReadRequest::new(Table::Holding, rng.u16(..8) * 16, 2),
            Self::Mapped => {
                let first = rng.usize(..BOUNDS.len() - 1);
                let end = rng.usize(first + 1..BOUNDS.len());
                let table = if rng.bool() { Table::Holding } else { Table::Input };
                ReadRequest::new(table, BOUNDS[first], BOUNDS[end] - BOUNDS[first])
            }
        };
        request.expect("within")
    }

    /// A gateway is started again, or its bus: most of all when something is wrong. Who hears no probe costs some polls
    /// after each start, and would do nothing else.
    pub(super) fn begins_anew(self, rng: &mut Rng, failed: bool) -> bool {
        rng.u8(..) < if failed && self != Self::Deaf { 32 } else { 2 }
    }
}

fn any_request(rng: &mut Rng) -> ReadRequest {
    loop {
        let table = Table::ALL[rng.usize(..Table::ALL.len())].1;
        // Small reads of a few places: requests that look alike are what late answers are mistaken for.
        let (address, count) = if rng.bool() {
            (rng.u16(..8) * 16, [1, 2, 8][rng.usize(..3)])
        } else {
            (rng.u16(..), rng.u16(1..=table.count_max()))
        };
        // A few bits are too few to say where they are from.
        let count = if table.is_bits() { count.max(64) } else { count };
        if let Some(request) = ReadRequest::new(table, address, count) {
            return request;
        }
    }
}
