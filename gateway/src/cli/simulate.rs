//! `simulate`: the devices that a configuration names, played here, as good or as bad as is wished.
//!
//! Every bus of a gateway's configuration gets a wire: where its address is on loopback, that address; where its
//! port's path is free, a pseudo terminal under that name; otherwise any. So the same file mostly serves `simulate` and
//! `run` at once. Each place is printed on stdout: bus, kind, place, parted by tabs.
//!
//! Lines of text are as the configuration has them: their ends or their length, the device's own time, printed
//! each second or, where the bus has a `poll`, when they are asked for.
//!
//! Limits: values swing around 15 whatever a sensor measures; a point or a time that is found by a pattern cannot be
//! played, and is told, as is a line that is longer than its bus allows.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::clock::Clock;
use tjern_readings::sensor::SensorId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal as listen_for};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{FAILED, WRONG, stop_on_signals, tell};
use crate::config::{Bus, BusKind, Config, LineField, LinePlace, LinePoint, ModbusDevice};
use crate::lines;
use crate::lines::nmea::checksum;
use crate::lines::time::TimePlace;
use crate::say;
use crate::simulate::bad_devices::{BadDevices, Lines, answer_lines, print_lines, serve_each};
use crate::simulate::bad_line::{BadLine, Framing, LineFaults};
use crate::simulate::{Signal, SimulatedRegister, SimulatedUnit, Terminal};

/// A logger prints its lines so often.
const LINES_EVERY: Duration = Duration::from_secs(1);

/// What `simulate` is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway simulate --config landfall-01.toml\n  tjern-gateway simulate --config landfall-01.toml \
    --faults delay=0.1,drop=0.05,corrupt=0.01 --seed 7\n\n\
    Prints a line a bus: its name, its kind, and where it is, parted by tabs. An address on loopback is listened on;\n\
    a port whose path is free becomes a link to a pseudo terminal. Where the place is taken, another is, with a warning.\n\
    A TCP bus serves up to 16 clients at once, so that `read` works beside `run`.\n\
    Faults, each with a probability per answer from 0 to 1: delay, split, merge, duplicate, repeat, truncate, swap, corrupt,\n\
    drop, disconnect, hang_up; and longest=300ms, how late an answer may be. The same seed gives the same faults.\n\
    Exit status: 0 when told to end, 1 when it failed, 2 for a wrong configuration or wrong faults."
)]
pub struct SimulateArguments {
    /// A gateway's configuration, a TOML file: whose devices are played
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What goes wrong, and how often
    #[arg(long, value_name = "FAULT=PROBABILITY,…", default_value = "")]
    faults: LineFaults,
    /// From which the faults follow; without it a new one is drawn, and told
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// Plays devices until it is told to end.
pub(super) async fn execute(arguments: SimulateArguments) -> ExitCode {
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            say!("{error}");
            return ExitCode::from(WRONG);
        }
    };
    let stop = CancellationToken::new();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    if arguments.faults != LineFaults::default() {
        say!("faults from --seed {seed}");
    }
    let mut played = Played { tasks: JoinSet::new(), links: Vec::new(), faults: arguments.faults, seed };
    // A terminal that is closed ends it as well, or its links would stay.
    let result = match stop_on_signals(&stop).and_then(|()| stop_on_hang_up(&stop)) {
        Ok(()) => played.start(config.buses()).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        say!("error: cannot simulate: {error}");
        return ExitCode::from(FAILED);
    }
    stop.cancelled().await;
    ExitCode::SUCCESS
}

fn stop_on_hang_up(stop: &CancellationToken) -> io::Result<()> {
    let mut hang_up = listen_for(SignalKind::hangup())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        hang_up.recv().await;
        stop.cancel();
    });
    Ok(())
}

/// What runs, and the links that go with it.
struct Played {
    tasks: JoinSet<()>,
    links: Vec<PathBuf>,
    faults: LineFaults,
    seed: u64,
}

impl Drop for Played {
    fn drop(&mut self) {
        for link in &self.links {
            if let Err(error) = std::fs::remove_file(link) {
                warn!(link = %link.display(), "the link stays: {error}");
            }
        }
    }
}

impl Played {
    async fn start(&mut self, buses: &[Arc<Bus>]) -> io::Result<()> {
        for (number, bus) in (0..).zip(buses) {
            let seed = self.seed.wrapping_add(number);
            let place = match &bus.kind {
                BusKind::ModbusTcp { address, devices, .. } => {
                    self.serve_tcp((&bus.name, address), self.devices(devices, Framing::Tcp, seed)).await?
                }
                BusKind::ModbusRtuTcp { address, devices, .. } => {
                    self.serve_tcp((&bus.name, address), self.devices(devices, Framing::Rtu, seed)).await?
                }
                BusKind::ModbusRtu { serial, devices, .. } => {
                    let (port, serve) = self.devices(devices, Framing::Rtu, seed).open_terminal()?;
                    self.tasks.spawn(serve);
                    self.link(&bus.name, &serial.port, port)
                }
                BusKind::TextLines { place, poll, framing, points } => {
                    let logger =
                        Logger { poll: poll.clone(), lines: lines_of(points, framing), clock: Clock::system() };
                    self.print((&bus.name, place), logger, seed).await?
                }
            };
            tell(&format!("{}\t{}\t{place}\n", bus.name, bus.kind.word()))?;
        }
        Ok(())
    }

    fn devices(&self, devices: &[ModbusDevice], framing: Framing, seed: u64) -> BadDevices {
        let units = devices.iter().map(unit).collect();
        BadDevices { units, framing, faults: self.faults, seed, clock: Clock::system() }
    }

    async fn serve_tcp(&mut self, (bus, address): (&str, &str), devices: BadDevices) -> io::Result<String> {
        let listener = listen(bus, address).await?;
        let place = listener.local_addr()?.to_string();
        self.tasks.spawn(devices.serve_tcp(listener));
        Ok(place)
    }

    async fn print(&mut self, (bus, place): (&str, &LinePlace), logger: Logger, seed: u64) -> io::Result<String> {
        let (logger, faults) = (Arc::new(logger), self.faults);
        match place {
            LinePlace::Serial(serial) => {
                let Terminal { mut ours, theirs, port } = Terminal::open()?;
                let mut line = BadLine::new(faults, Framing::Lines, seed);
                self.tasks.spawn(async move {
                    // Told to disconnect, it goes on: there is nothing to unplug.
                    while logger.serve(&mut ours, &mut line).await.is_ok() {}
                    drop(theirs);
                });
                Ok(self.link(bus, &serial.port, port))
            }
            LinePlace::Tcp(address) => {
                let listener = listen(bus, address).await?;
                let place = listener.local_addr()?.to_string();
                self.tasks.spawn(async move {
                    serve_each(&listener, (faults, Framing::Lines, seed), |mut stream, mut line| {
                        let logger = Arc::clone(&logger);
                        async move {
                            // It ended, one way or the other.
                            let _ = logger.serve(&mut stream, &mut line).await;
                        }
                    })
                    .await;
                });
                Ok(place)
            }
        }
    }

    /// The configured path, if it may be made a link to the terminal; otherwise the terminal's own.
    fn link(&mut self, bus: &str, wanted: &str, port: String) -> String {
        take_away_dead(Path::new(wanted));
        if let Err(error) = std::os::unix::fs::symlink(&port, Path::new(wanted)) {
            warn_of_taken(bus, wanted, &error);
            return port;
        }
        self.links.push(PathBuf::from(wanted));
        wanted.to_owned()
    }
}

/// A link that was left behind, to a pseudo terminal that is gone: nobody else has use for it.
fn take_away_dead(path: &Path) {
    let is_dead = std::fs::read_link(path).is_ok_and(|to| to.starts_with("/dev/pts") && !to.exists());
    if is_dead {
        // Where that cannot be, the place is taken, and told.
        let _ = std::fs::remove_file(path);
    }
}

/// On the address itself where it is on loopback and free, on any port of loopback otherwise.
async fn listen(bus: &str, address: &str) -> io::Result<TcpListener> {
    if let Ok(place) = address.parse::<SocketAddr>()
        && place.ip().is_loopback()
    {
        match TcpListener::bind(place).await {
            Ok(listener) => return Ok(listener),
            Err(error) => warn_of_taken(bus, address, &error),
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// A `run` with the same file would talk to whoever has the place.
fn warn_of_taken(bus: &str, place: &str, error: &io::Error) {
    say!("warning: bus `{bus}` cannot be played at `{place}`, and is elsewhere: {error}");
}

fn unit(device: &ModbusDevice) -> SimulatedUnit {
    let register = |point: &crate::config::ModbusPoint| SimulatedRegister {
        table: point.table,
        address: point.address,
        kind: point.kind,
        order: point.order,
        scaling: point.common.terms.scaling,
        signal: signal(&point.common.sensor),
    };
    SimulatedUnit {
        unit_id: device.unit_id,
        registers: device.points.iter().map(register).collect(),
        faults: Arc::default(),
    }
}

fn signal(sensor: &SensorId) -> Signal {
    let seed = sensor.as_str().bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    Signal { mean: 15.0, yearly_amplitude: 8.0, daily_amplitude: 2.0, noise: 0.5, seed }
}

/// A logger as a bus wants it.
struct Logger {
    /// It prints when it is asked this, or by itself.
    poll: Option<String>,
    lines: Lines,
    clock: Clock,
}

impl Logger {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, line: &mut BadLine) -> io::Result<()> {
        match &self.poll {
            Some(question) => answer_lines(stream, line, (question, &self.lines), &self.clock).await,
            None => print_lines(stream, line, (LINES_EVERY, &self.lines), &self.clock).await,
        }
    }
}

/// A line with its end, or as long as it has to be; `None` where it is longer.
fn framed(line: String, framing: &lines::Framing) -> Option<String> {
    match framing {
        lines::Framing::Terminator { max, .. } if line.len() > *max => None,
        // A carriage return before it is no part of the line.
        lines::Framing::Terminator { text, .. } if text == "\n" => Some(line + "\r\n"),
        lines::Framing::Terminator { text, .. } => Some(line + text),
        lines::Framing::Length(length) => (line.len() <= *length).then(|| format!("{line:<length$}")),
    }
}

/// The lines of a logger whose fields these points want: one a sentence, one a separator.
fn lines_of(points: &[LinePoint], framing: &lines::Framing) -> Lines {
    let framing = framing.clone();
    let (mut sentences, mut rows): (BTreeMap<String, Fields>, BTreeMap<String, Fields>) = Default::default();
    for point in points {
        let (signal, scaling) = (signal(&point.common.sensor), point.common.terms.scaling);
        let (fields, place) = match &point.field {
            LineField::Nmea { sentence, field } => (sentences.entry(sentence.clone()).or_default(), *field),
            LineField::Column { column, separator } => (rows.entry(separator.clone()).or_default(), *column),
            _ => {
                warn!(sensor = point.common.sensor.as_str(), "a pattern cannot be played");
                continue;
            }
        };
        fields.insert(place, Box::new(move |now_us| format!("{:.2}", scaling.undo(signal.at(now_us)))));
        let Some(time) = point.time.clone() else { continue };
        match time.place {
            TimePlace::Field(place) | TimePlace::Column { column: place, .. } => {
                fields.insert(place, Box::new(move |now_us| time.write(now_us)));
            }
            TimePlace::Pattern(_) => {
                warn!(sensor = point.common.sensor.as_str(), "a time that is found by a pattern cannot be played");
            }
        }
    }
    Box::new(move |now_us| {
        let sentence = |(name, fields): (&String, &Fields)| {
            // Three letters are those of any talker: ours is an integrated instrument's.
            let talker = if name.len() == 3 { "II" } else { "" };
            let body = format!("{talker}{name},{}", joined(fields, ",", now_us, ""));
            format!("${body}*{:02X}", checksum(&body))
        };
        let row = |(separator, fields): (&String, &Fields)| {
            let separator = if separator == "whitespace" { " " } else { separator };
            joined(fields, separator, now_us, "0")
        };
        let lines = sentences.iter().map(sentence).chain(rows.iter().map(row));
        let framed = |line: String| {
            let told = line.clone();
            let framed = framed(line, &framing);
            if framed.is_none() {
                warn!(line = told, "longer than a line of its bus may be: it is not played");
            }
            framed
        };
        lines.filter_map(framed).collect()
    })
}

/// Values by their places, from 1 on.
type Fields = BTreeMap<usize, Box<dyn Fn(i64) -> String + Send + Sync>>;

fn joined(fields: &Fields, separator: &str, now_us: i64, filler: &str) -> String {
    let last = fields.keys().next_back().copied().unwrap_or(0);
    let value = |place| fields.get(&place).map_or_else(|| filler.to_owned(), |value| value(now_us));
    (1..=last).map(value).collect::<Vec<_>>().join(separator)
}
