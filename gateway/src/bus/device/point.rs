//! A point of a Modbus device: where it stands, when in its slot it is asked for, and how long it is left alone where its
//! device refuses it.

use std::time::Duration;

use tjern_readings::reading::Cause;
use tokio::time::Instant;

use super::super::BusContext;
use super::super::plan::Wanted;
use super::super::point::{Ended, Limits, PointState};
use super::super::state::Latest;
use crate::config::ModbusPoint;
use crate::grid::Due;
use crate::modbus::transport::{Answer, Table};
use crate::value::{NumberType, Order};

/// A point that its device refuses is asked for after pauses that double, from and to this.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(1);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(300);

/// A bus begins the rounds of its devices at so many moments of the spread: each costs a timer, and a hundred devices
/// that are asked one after the other anyway need no moment each.
const SPREAD_STEPS: f64 = 4.0;

/// Where in the spread a device's requests lie, from 0 to 1: by its name, so that a restart changes nothing.
pub(super) fn share(bus: &str, device: &str) -> f64 {
    let share = f64::from(crc32c::crc32c(format!("{bus}\n{device}").as_bytes())) / (f64::from(u32::MAX) + 1.0);
    (share * SPREAD_STEPS).floor() / SPREAD_STEPS
}

/// A point, and how its device treats it.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) state: PointState,
    table: Table,
    address: u16,
    kind: NumberType,
    order: Order,
    /// How long after its slot its poll begins.
    pub(super) spread_us: i64,
    /// It overlaps another, and gets a request of its own.
    pub(super) alone: bool,
    /// It is not asked for, since its device refuses it.
    pub(super) refused: Option<Box<Refused>>,
    /// The turn of the bus that ended its last slot; 0 for none.
    pub(super) served: u64,
}

/// A point that its device refuses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused {
    pub(super) until: Instant,
    times: u32,
    cause: Cause,
}

impl Point {
    pub(super) fn new(point: &ModbusPoint, share: f64, limits: Limits, context: &BusContext) -> Self {
        Self {
            spread_us: point.common.terms.grid.spread_us(share),
            state: PointState::new(&point.common, limits, context),
            table: point.table,
            address: point.address,
            kind: point.kind,
            order: point.order,
            alone: false,
            refused: None,
            served: 0,
        }
    }

    pub(super) const fn wanted(&self, index: usize) -> Wanted {
        Wanted { point: index, table: self.table, address: self.address, width: self.kind.width(), alone: self.alone }
    }

    #[inline]
    pub(super) fn resting(&self, now: Instant) -> Option<(Instant, Cause)> {
        self.refused.as_deref().filter(|refused| refused.until > now).map(|refused| (refused.until, refused.cause))
    }

    pub(super) fn refuse(&mut self, now: Instant, cause: Cause) {
        let times = self.refused.as_deref().map_or(0, |refused| refused.times + 1);
        let pause = (REFUSED_PAUSE_MIN * 2_u32.saturating_pow(times.min(16))).min(REFUSED_PAUSE_MAX);
        self.refused = Some(Box::new(Refused { until: now + pause, times, cause }));
    }

    /// Ends a slot that was asked for and answered at these moments.
    #[inline]
    pub(super) fn end(
        &mut self,
        due: Due,
        raw: Result<f64, Cause>,
        times_us: (i64, i64),
        turn: u64,
        latest: &mut Latest,
    ) -> Option<Ended> {
        self.served = turn;
        self.state.conclude(due, raw, times_us, latest)
    }

    #[inline]
    pub(super) fn decode(&self, answer: &Answer, first: u16) -> Result<f64, Cause> {
        let start = usize::from(self.address.checked_sub(first).ok_or(Cause::Malformed)?);
        match answer {
            Answer::Bits(bits) => bits.get(start).map(|bit| f64::from(u8::from(*bit))).ok_or(Cause::Malformed),
            Answer::Registers(registers) => {
                let own = registers.get(start..start + usize::from(self.kind.width())).ok_or(Cause::Malformed)?;
                self.state.no_value().decode(self.kind, self.order, own)
            }
        }
    }
}
