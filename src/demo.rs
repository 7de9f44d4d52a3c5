//! The demo city: five tarns, Drammenselva and a weather mast, with devices that are simulated but
//! speak the real protocols.
//!
//! It prepares what a real city has already: devices to poll, a configuration that names them, a
//! register, and a past. From there on it is a city like any other. The past goes through the landing
//! zone as one batch of a source of its own, `import:history`, in an epoch that never changes: it is
//! created once, whole or not at all, so no start can bring it twice.

mod city;
mod history;
mod texts;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tjern_gateway::simulate::{Simulation, Simulator};
use tjern_lake::Lake;
use tjern_readings::clock::Clock;
use tjern_readings::store::LakeUrl;

use crate::failure::Failure;
use crate::up::say;
use city::{Device, PLACES, Place};

/// How often the logger that prints lines prints them.
const LINES_EVERY: Duration = Duration::from_secs(1);

/// A demo city, ready to be run. Its devices live as long as it does.
#[derive(Debug)]
pub(crate) struct Demo {
    config: PathBuf,
    /// Held while it runs.
    _lock: File,
    _simulators: Vec<Simulator>,
}

impl Demo {
    /// Starts the devices, and writes the configuration and the register that name them into
    /// `<data>/demo`.
    pub(crate) async fn prepare(data: &Path) -> Result<Self, Failure> {
        let folder = data.join("demo");
        let failed = |path: &Path, error: std::io::Error| {
            Failure::failed(format!("cannot write the demo into `{}`: {error}", path.display()))
        };
        std::fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        // Whoever runs this demo reads what is written below: another's devices are none of its own.
        let lock = folder.join("lock");
        let lock = File::create(&lock).map_err(|error| failed(&lock, error))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let running =
                format!("the demo in `{}` is running already; hint: name another folder with `--data`", data.display());
            return Err(Failure::failed(running));
        }
        let data = data.canonicalize().map_err(|error| failed(data, error))?;
        let lake = LakeUrl::folder(&data.join("lake")).map_err(Failure::wrong)?;
        let (simulators, buses) = start_devices().await?;
        let files = [
            ("sites.csv", texts::sites(&PLACES)),
            ("sensors.csv", texts::sensors(&PLACES)),
            ("gateway.toml", texts::gateway(&lake, &data.join("spool"), &buses)),
            ("tjern.toml", texts::tjern(&lake)),
        ];
        for (name, text) in files {
            let path = data.join("demo").join(name);
            std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
        }
        Ok(Self { config: data.join("demo/tjern.toml"), _lock: lock, _simulators: simulators })
    }

    /// The city's configuration.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Puts 30 days of hourly readings into the landing zone, unless they were brought before.
    pub(crate) async fn land_history(&self, lake: &Lake) -> Result<(), Failure> {
        history::land(lake, &PLACES).await
    }
}

/// A bus of the demo, and where its devices can be reached.
#[derive(Debug)]
struct Bus<'a> {
    name: String,
    device: Device,
    at: String,
    places: Vec<&'a Place>,
}

/// Starts every simulated device: a Modbus TCP logger for each place that has one, one Modbus RTU bus
/// for those on it, a logger that prints lines.
async fn start_devices() -> Result<(Vec<Simulator>, Vec<Bus<'static>>), Failure> {
    let mut simulators = Vec::new();
    let mut buses = Vec::new();
    let mut groups: Vec<(String, Device, Vec<&'static Place>)> = Vec::new();
    for place in &PLACES {
        match place.device {
            Device::Tcp => groups.push((place.site.to_owned(), Device::Tcp, vec![place])),
            shared => match groups.iter_mut().find(|(_, device, _)| *device == shared) {
                Some((.., places)) => places.push(place),
                None => groups.push((shared.bus_name().to_owned(), shared, vec![place])),
            },
        }
    }
    for (name, device, places) in groups {
        let simulation = match device {
            Device::Tcp => Simulation::ModbusTcp(city::units(&places)),
            Device::Rtu => Simulation::ModbusRtu(city::units(&places)),
            Device::Lines => Simulation::TextLines { every: LINES_EVERY, lines: city::lines(&places) },
        };
        let simulator = Simulator::start(simulation, Clock::system())
            .await
            .map_err(|error| Failure::failed(format!("cannot simulate the devices of bus `{name}`: {error}")))?;
        let address = simulator.address().map(|address| address.to_string());
        let at = address.or_else(|| simulator.port().map(str::to_owned)).unwrap_or_default();
        say(&format!("simulated: {} at {at}, for {}", device.words(), city::names(&places)));
        simulators.push(simulator);
        buses.push(Bus { name, device, at, places });
    }
    Ok((simulators, buses))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second `tjern up` wrote its own devices into the configuration of the first, and then failed at the port.
    #[tokio::test]
    async fn a_demo_that_runs_keeps_its_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let running = Demo::prepare(folder.path()).await.expect("prepared");
        let gateway = || std::fs::read_to_string(folder.path().join("demo/gateway.toml")).expect("written");
        let before = gateway();
        assert!(Demo::prepare(folder.path()).await.is_err(), "it runs");
        assert_eq!(gateway(), before);
        drop(running);
        Demo::prepare(folder.path()).await.expect("it has ended");
    }
}
