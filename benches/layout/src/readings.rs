//! Seeded readings of five families and of a river: all columns of the table, sorted by sensor and time.
//!
//! What surrounds a value costs more than the value, so it is made as it comes about: a gateway numbers
//! its points in turn, a batch is sealed once a minute (or once a reading, where they come hourly), and
//! ingest stamps each batch with the moment of its commit. Nothing here does I/O.

use std::f64::consts::TAU;

/// 2025-01-01T00:00:00Z.
pub const START_US: i64 = 1_735_689_600_000_000;
const SECOND_US: i64 = 1_000_000;

/// How a sensor's values come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A tarn's temperature: hundredths of a degree, slow, once an hour.
    Tarn,
    /// A meter's watt-hours: whole numbers that grow, once a minute.
    Counter,
    /// A computed value that uses its whole mantissa, once a minute.
    Mantissa,
    /// A wind vane: tenths of a degree, restless, once a minute.
    Angle,
    /// A river's station: every ten seconds, with repeats, drift, noise, jitter, gaps and outliers.
    River,
}

/// The knobs of a river's points.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    /// How likely a value is the one before.
    pub repeats: f64,
    /// Drift in units a day.
    pub drift: f64,
    /// Noise in steps of the resolution.
    pub noise: f64,
    /// How far a device's own time is off its slot, in microseconds; 0: slots.
    pub jitter_us: i64,
    /// How likely a minute is missing.
    pub gaps: f64,
    /// How likely a value is far off.
    pub outliers: f64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { repeats: 0.5, drift: 0.02, noise: 2.0, jitter_us: 0, gaps: 0.0005, outliers: 0.0001 }
    }
}

/// The columns of some readings, of one length.
#[derive(Debug, Default, Clone)]
pub struct Columns {
    pub sensor: Vec<String>,
    pub time_us: Vec<i64>,
    pub value: Vec<Option<f64>>,
    pub quality: Vec<i8>,
    pub cause: Vec<Option<&'static str>>,
    pub lag_ms: Vec<Option<i32>>,
    pub source: Vec<String>,
    pub epoch: Vec<String>,
    pub seq: Vec<i64>,
    pub tests: Vec<i32>,
    pub received_us: Vec<i64>,
}

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub family: Family,
    /// Gateways, each with its own sensors.
    pub stations: usize,
    /// Sensors of one gateway.
    pub sensors: usize,
    pub days: f64,
    pub knobs: Knobs,
    pub seed: u64,
}

impl Family {
    pub const fn every_us(self) -> i64 {
        match self {
            Self::Tarn => 3_600 * SECOND_US,
            Self::Counter | Self::Mantissa | Self::Angle => 60 * SECOND_US,
            Self::River => 10 * SECOND_US,
        }
    }
}

/// Makes readings, station by station, sensor by sensor.
pub fn readings(wanted: Wanted) -> Columns {
    let mut columns = Columns::default();
    for station in 0..wanted.stations {
        let received = received(wanted, station);
        for sensor in 0..wanted.sensors {
            one(&mut columns, wanted, (station, sensor), &received);
        }
    }
    columns
}

/// When the batch of each slot was committed: a batch a minute or a reading, and ingest looks every five seconds.
pub fn received(wanted: Wanted, station: usize) -> Vec<i64> {
    let every_us = wanted.family.every_us();
    let slots = (wanted.days * 86_400.0 * SECOND_US as f64) as i64 / every_us;
    let batch_us = every_us.max(60 * SECOND_US);
    let mut random = fastrand::Rng::with_seed(wanted.seed ^ 0xC0FF_EE00 ^ station as u64);
    let mut received = Vec::with_capacity(slots as usize);
    let (mut last, mut moment) = (i64::MIN, 0);
    for slot in 0..slots {
        let batch = (START_US + slot * every_us) / batch_us;
        if batch != last {
            let sealed_us =
                (batch + 1) * batch_us.min(60 * SECOND_US) + batch * (batch_us - batch_us.min(60 * SECOND_US));
            moment = sealed_us + random.i64(0..5 * SECOND_US) + random.i64(50_000..400_000);
            last = batch;
        }
        received.push(moment);
    }
    received
}

/// Adds the readings of one sensor of a station, whose batches were committed at these moments.
pub fn one(columns: &mut Columns, wanted: Wanted, (station, sensor): (usize, usize), received: &[i64]) {
    let knobs = wanted.knobs;
    let random = &mut fastrand::Rng::with_seed(wanted.seed ^ ((station * 1_000 + sensor) as u64) << 20);
    let name = name(station, sensor);
    let (source, epoch) = (format!("gateway-{station:02}"), format!("{:032x}", 0x5eed_u128 * (station as u128 + 7)));
    let every_us = wanted.family.every_us();
    let river = wanted.family == Family::River;
    let mut state = State::new(random);
    let mut gap = 0;
    for (slot, received_us) in received.iter().enumerate() {
        if river && gap == 0 && random.f64() < knobs.gaps {
            gap = random.usize(1..60);
        }
        let value = state.next(wanted.family, slot, knobs, random);
        if gap > 0 {
            gap -= 1;
            continue;
        }
        let missing = random.f64() < 0.0005;
        let jitter_us = if river && knobs.jitter_us > 0 { random.i64(0..knobs.jitter_us) } else { 0 };
        columns.sensor.push(name.clone());
        columns.time_us.push(START_US + slot as i64 * every_us + jitter_us);
        columns.value.push((!missing).then_some(value));
        columns.quality.push(if missing { 9 } else { 1 });
        columns.cause.push(missing.then_some("timeout"));
        columns.lag_ms.push((random.f64() < 0.0002).then(|| random.i32(1_000..3_000)));
        columns.source.push(source.clone());
        columns.epoch.push(epoch.clone());
        columns.seq.push((slot * wanted.sensors + sensor) as i64);
        columns.tests.push(0b10_10_10_10);
        columns.received_us.push(*received_us);
    }
}

/// A sensor's id.
pub fn name(station: usize, sensor: usize) -> String {
    format!("station-{station:02}/position-{sensor:03}/quantity")
}

struct State {
    level: f64,
    last: f64,
    phase: f64,
    count: f64,
}

impl State {
    fn new(random: &mut fastrand::Rng) -> Self {
        Self { level: 0.0, last: 14.0, phase: random.f64() * TAU, count: random.u32(0..10_000_000).into() }
    }

    fn next(&mut self, family: Family, slot: usize, knobs: Knobs, random: &mut fastrand::Rng) -> f64 {
        let day = slot as f64 * family.every_us() as f64 / 86_400e6;
        let normal = (0..4).map(|_| random.f64()).sum::<f64>() - 2.0;
        match family {
            Family::Tarn => {
                self.level += normal * 0.05 - self.level * 0.002;
                hundredths(12.0 + 9.0 * (day / 365.25 * TAU + self.phase).sin() + (day * TAU).sin() + self.level)
            }
            Family::Counter => {
                let load = 20.0 + 15.0 * (day * TAU + self.phase).sin() + normal * 8.0;
                self.count += load.max(0.0).round();
                self.count
            }
            Family::Mantissa => (day * TAU + self.phase).sin() * 3.7 + normal * 0.013,
            Family::Angle => {
                self.level += normal * 12.0;
                (((self.level + self.phase * 57.0).rem_euclid(360.0)) * 10.0).round() / 10.0 % 360.0
            }
            Family::River => {
                if random.f64() < knobs.outliers {
                    return -327.68;
                }
                if random.f64() >= knobs.repeats {
                    self.last = hundredths(
                        7.0 + self.phase + knobs.drift * day + 0.8 * (day * TAU).sin() + knobs.noise * 0.01 * normal,
                    );
                }
                self.last
            }
        }
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
