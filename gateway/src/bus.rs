//! One actor a bus: nobody else on this machine touches its wire (a port, or a far line: `modbus::far_line`), and a bus whose devices are silent delays no other.
//!
//! An actor reads what is due, one transaction at a time: the device that used least of the bus first, and of its
//! points those that waited longest, so that none starves (`poll`, `device`); it never ends a transaction half way,
//! and looks whether it shall stop between them. What it read goes into one bounded queue.

pub(crate) mod cost;
mod device;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod hang_ups;
mod health;
mod in_hand;
mod learned;
mod line_news;
pub(crate) mod lines;
pub mod load;
mod modbus;
mod on_disk;
mod plan;
mod point;
mod poll;
mod refusal;
pub mod state;
mod together;
#[cfg(test)]
mod told;

use std::path::PathBuf;
use std::sync::Arc;

use tjern_readings::clock::Clock;
use tjern_readings::rows::Rows;
use tjern_readings::sensor::SensorId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Bus, BusKind};
use crate::modbus::Master;
use in_hand::InHand;
pub use in_hand::LeftBehind;
pub use lines::stored_times::DeviceTimes;
pub(crate) use on_disk::Asked;
pub use on_disk::OnDisk;
use state::BusStates;

/// How many transactions' readings may wait for the spool before the buses wait too.
pub const READINGS_QUEUE: usize = 1_024;

/// What an actor needs of its surroundings.
#[derive(Debug, Clone)]
pub struct BusContext {
    /// What time it is.
    pub clock: Clock,
    /// Where readings go.
    pub readings: mpsc::Sender<Rows>,
    /// Where those lie that a bus had in hand when it was given up.
    pub left: LeftBehind,
    /// What the spool has already.
    pub newest: Newest,
    /// Ends the actor after the transaction under way.
    pub stop: CancellationToken,
    /// What the actors tell of themselves.
    pub states: BusStates,
    /// The folder for what is learned about devices; without one it is learned anew at each start.
    pub learned: Option<PathBuf>,
    /// Which of their own times devices on text lines have told.
    pub device_times: DeviceTimes,
    /// Who says whether readings are on disk: what is remembered of them on disk waits for that.
    pub on_disk: OnDisk,
}

/// The newest time of a sensor that the spool has, so that no slot is stored twice across a restart.
#[derive(Clone)]
pub struct Newest(Arc<NewestOf>);

type NewestOf = dyn Fn(&SensorId) -> Option<i64> + Send + Sync;

impl Newest {
    /// Asks this for it.
    pub fn from_fn(newest_us: impl Fn(&SensorId) -> Option<i64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(newest_us))
    }
}

impl std::fmt::Debug for Newest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Newest")
    }
}

impl BusContext {
    /// Hands readings on; a receiver that is gone means that the gateway ends. A bus that is given up meanwhile
    /// leaves them behind.
    pub(crate) async fn store(&self, readings: impl Into<Rows>) {
        let readings = readings.into();
        if readings.is_empty() {
            return;
        }
        let in_hand = InHand::new(readings, &self.left);
        match self.readings.reserve().await {
            Ok(place) => place.send(in_hand.hand_on()),
            Err(_) => self.stop.cancel(),
        }
    }

    fn newest_us(&self, sensor: &SensorId) -> Option<i64> {
        (self.newest.0)(sensor)
    }
}

/// Reads a bus until it shall stop.
pub async fn run(bus: Arc<Bus>, context: BusContext) {
    let limits = point::Limits { timeout: bus.timeout, down_report: bus.down_report };
    match &bus.kind {
        BusKind::ModbusTcp { devices, .. }
        | BusKind::ModbusRtu { devices, .. }
        | BusKind::ModbusRtuTcp { devices, .. } => {
            let keeper = learned::Keeper::of_devices(context.learned.clone(), bus.name.clone());
            let memory = keeper.load(context.clock.now_us()).await;
            load::warn_of_too_much(&bus, &memory);
            let Some(master) = Master::of(&bus.kind, limits.timeout) else { return };
            let (wire, kind) = (cost::Wire::of(&bus.kind), bus.kind.word());
            let (name, policy, in_flight) = (bus.name.clone(), health::Policy::DEFAULT, bus.kind.in_flight());
            let setting = poll::Setting { name, kind, wire, limits, policy, in_flight };
            modbus::Actor::new(setting, master, devices, (keeper, memory), context).run().await;
        }
        BusKind::TextLines { place, poll, framing, points } => {
            let wire = (place.clone(), poll.clone(), framing.clone());
            let (learned, on_disk) = (context.learned.clone(), context.on_disk.clone());
            let times = lines::Times::load(learned, bus.name.clone(), points, on_disk).await;
            lines::Actor::new(bus.name.clone(), wire, (points.clone(), times), limits, context).run().await;
        }
    }
}
