//! The places of the demo city, their sensors, and what their simulated devices hold.

use std::sync::Arc;

use tjern_gateway::modbus::transport::Table;
use tjern_gateway::simulate::{Faults, Signal, SimulatedLine, SimulatedRegister, SimulatedUnit};
use tjern_gateway::value::{NumberType, Order, Scaling};

/// How a place's logger is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// Modbus TCP, a server of its own.
    Tcp,
    /// Modbus RTU, on the one bus of the city.
    Rtu,
    /// Lines of text, on a port of its own.
    Lines,
}

impl Device {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Tcp => "a Modbus TCP logger",
            Self::Rtu => "a Modbus RTU bus",
            Self::Lines => "a logger that prints lines",
        }
    }

    pub(super) const fn bus_name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Rtu => "rs485",
            Self::Lines => "serial",
        }
    }
}

/// How a number lies in a device's registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Register {
    pub(super) table: Table,
    pub(super) address: u16,
    pub(super) kind: NumberType,
    pub(super) order: Order,
    pub(super) scale: f64,
}

/// A sensor of the demo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sensor {
    pub(super) quantity: &'static str,
    pub(super) names: [&'static str; 3],
    pub(super) unit: &'static str,
    pub(super) kind: &'static str,
    pub(super) class: &'static str,
    pub(super) range: (f64, f64),
    pub(super) every_s: u32,
    pub(super) register: Register,
    pub(super) signal: Signal,
}

/// A place of the demo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) site: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    pub(super) device: Device,
    pub(super) unit_id: u8,
    pub(super) sensors: &'static [Sensor],
}

impl Place {
    /// The id of one of its sensors.
    pub(super) fn id(&self, sensor: &Sensor) -> String {
        format!("{}/{}", self.site, sensor.quantity)
    }
}

const fn register(table: Table, address: u16, kind: NumberType, order: Order, scale: f64) -> Register {
    Register { table, address, kind, order, scale }
}

/// The temperature of a small lake: warm at the end of July, never far below freezing.
const fn water(register: Register, mean: f64, seed: u64) -> Sensor {
    Sensor {
        quantity: "water_temperature",
        names: ["Badetemperatur", "Badetemperatur", "Bathing temperature"],
        unit: "Cel",
        kind: "sample",
        class: "public",
        range: (-1.0, 35.0),
        every_s: 3,
        register,
        signal: Signal { mean, yearly_amplitude: 8.5, daily_amplitude: 0.7, noise: 0.05, seed },
    }
}

const fn weather(
    quantity: &'static str,
    names: [&'static str; 3],
    unit: &'static str,
    kind: &'static str,
    range: (f64, f64),
    address: u16,
    signal: Signal,
) -> Sensor {
    let register = register(Table::Input, address, NumberType::I16, Order::Abcd, 0.1);
    Sensor { quantity, names, unit, kind, class: "internal", range, every_s: 10, register, signal }
}

const MAST: [Sensor; 3] = [
    weather(
        "air_temperature",
        ["Lufttemperatur", "Lufttemperatur", "Air temperature"],
        "Cel",
        "sample",
        (-40.0, 45.0),
        0,
        Signal { mean: 6.5, yearly_amplitude: 11.0, daily_amplitude: 4.0, noise: 0.4, seed: 61 },
    ),
    weather(
        "wind_speed",
        ["Vindstyrke", "Vindstyrke", "Wind speed"],
        "m/s",
        "sample",
        (0.0, 60.0),
        1,
        Signal { mean: 5.0, yearly_amplitude: 0.5, daily_amplitude: 1.5, noise: 1.5, seed: 62 },
    ),
    weather(
        "wind_direction",
        ["Vindretning", "Vindretning", "Wind direction"],
        "deg",
        "angle",
        (0.0, 360.0),
        2,
        Signal { mean: 180.0, yearly_amplitude: 20.0, daily_amplitude: 60.0, noise: 60.0, seed: 63 },
    ),
];

/// The city.
pub(super) const PLACES: [Place; 7] = [
    Place {
        site: "landfalltjern",
        name: "Landfalltjern",
        kind: "tarn",
        latitude: 59.7640,
        longitude: 10.2310,
        device: Device::Tcp,
        unit_id: 1,
        sensors: &[water(register(Table::Input, 0, NumberType::F32, Order::Cdab, 1.0), 10.4, 1)],
    },
    Place {
        site: "klopptjern",
        name: "Klopptjern",
        kind: "tarn",
        latitude: 59.7690,
        longitude: 10.1930,
        device: Device::Tcp,
        unit_id: 1,
        sensors: &[water(register(Table::Holding, 10, NumberType::I16, Order::Abcd, 0.1), 10.0, 2)],
    },
    Place {
        site: "damtjern",
        name: "Damtjern",
        kind: "tarn",
        latitude: 59.8120,
        longitude: 10.1650,
        device: Device::Tcp,
        unit_id: 1,
        sensors: &[water(register(Table::Input, 100, NumberType::I32, Order::Abcd, 0.001), 9.6, 3)],
    },
    Place {
        site: "rundtjern",
        name: "Rundtjern",
        kind: "tarn",
        latitude: 59.7080,
        longitude: 10.1440,
        device: Device::Rtu,
        unit_id: 1,
        sensors: &[water(register(Table::Input, 0, NumberType::F32, Order::Abcd, 1.0), 10.8, 4)],
    },
    Place {
        site: "blektjern",
        name: "Blektjern",
        kind: "tarn",
        latitude: 59.7010,
        longitude: 10.1610,
        device: Device::Rtu,
        unit_id: 2,
        sensors: &[water(register(Table::Holding, 4, NumberType::I16, Order::Abcd, 0.01), 10.2, 5)],
    },
    Place {
        site: "drammenselva",
        name: "Drammenselva",
        kind: "river",
        latitude: 59.7440,
        longitude: 10.2020,
        device: Device::Lines,
        unit_id: 0,
        sensors: &[water(register(Table::Input, 0, NumberType::F32, Order::Abcd, 1.0), 9.0, 6)],
    },
    Place {
        site: "vaermast",
        name: "Værmasten",
        kind: "mast",
        latitude: 59.7450,
        longitude: 10.2040,
        device: Device::Tcp,
        unit_id: 1,
        sensors: &MAST,
    },
];

/// The devices of a Modbus bus.
pub(super) fn units(places: &[&Place]) -> Vec<SimulatedUnit> {
    let unit = |place: &&Place| SimulatedUnit {
        unit_id: place.unit_id,
        registers: place.sensors.iter().map(simulated).collect(),
        faults: Arc::new(Faults::default()),
    };
    places.iter().map(unit).collect()
}

fn simulated(sensor: &Sensor) -> SimulatedRegister {
    let Register { table, address, kind, order, scale } = sensor.register;
    SimulatedRegister { table, address, kind, order, scaling: Scaling::new(scale, 0.0), signal: sensor.signal }
}

/// The lines of a logger that prints.
pub(super) fn lines(places: &[&Place]) -> Vec<SimulatedLine> {
    let sensors = places.iter().flat_map(|place| place.sensors);
    let line = |sensor: &Sensor| SimulatedLine::Nmea {
        address: "YXMTW".to_owned(),
        rest: "C".to_owned(),
        signal: sensor.signal,
    };
    sensors.map(line).collect()
}

/// The places' names, for a line on stdout.
pub(super) fn names(places: &[&Place]) -> String {
    places.iter().map(|place| place.name).collect::<Vec<_>>().join(", ")
}
