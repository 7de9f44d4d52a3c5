//! Registers that two points of one device take for different things.
//!
//! That is no error: a status word may be read whole and by its bits. But two numbers that share a part
//! of their registers are most often an address that was mistyped, and their values look real.

use std::ops::Range;

use super::ModbusPoint;
use super::checker::Checker;
use super::file::PointFile;
use crate::modbus::transport::Table;
use crate::value::{NumberType, Order};

/// A point and where its register is written.
pub(super) struct Placed {
    span: Range<usize>,
    table: Table,
    address: u32,
    kind: NumberType,
    order: Order,
}

impl Placed {
    pub(super) fn new(file: &PointFile, point: &ModbusPoint) -> Self {
        Self {
            span: file.register.as_ref().unwrap_or(&file.sensor).span(),
            table: point.table,
            address: u32::from(point.address),
            kind: point.kind,
            order: point.order,
        }
    }

    fn end(&self) -> u32 {
        self.address + u32::from(self.kind.width())
    }
}

/// Warns of each point that shares registers with one before it, if not as the same number.
pub(super) fn check(checker: &mut Checker<'_>, mut placed: Vec<Placed>) {
    placed.retain(|point| !point.table.is_bits() && !point.kind.is_part_of_register());
    placed.sort_by_key(|point| (point.table, point.address, point.span.start));
    let mut furthest: Option<&Placed> = None;
    for point in &placed {
        let shares = |other: &&Placed| other.table == point.table && point.address < other.end();
        if let Some(other) = furthest.filter(shares).filter(|other| !is_same(other, point)) {
            let (later, first) = if point.span.start > other.span.start { (point, other) } else { (other, point) };
            checker.warn(
                later.span.clone(),
                "this point reads registers that another one reads as something else",
                "check the address and the type of both",
                vec![(first.span.clone(), "the other one".to_owned())],
            );
        }
        let reaches_further = furthest.is_none_or(|other| other.table != point.table || other.end() < point.end());
        if reaches_further {
            furthest = Some(point);
        }
    }
}

fn is_same(one: &Placed, other: &Placed) -> bool {
    (one.address, one.kind, one.order) == (other.address, other.kind, other.order)
}
