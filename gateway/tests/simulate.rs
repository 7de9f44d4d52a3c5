//! The command `simulate`, by the real binary: what it prints can be polled, and its faults cost readings and no truth.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{Buses, config, device, point};

/// What a simulated sensor may measure: see `simulate::Signal`.
const PLAUSIBLE: std::ops::Range<f64> = 3.0..28.0;

struct Simulate(Child);

impl Drop for Simulate {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn buses(places: &[String]) -> String {
    let [tcp, rtu] = places else { panic!("two places: {places:?}") };
    let body = "register = \"input:4\"\ntype = \"f32\"\norder = \"cdab\"\nevery = \"50ms\"";
    format!(
        "[[bus]]\nname = \"tcp\"\nkind = \"modbus-tcp\"\naddress = \"{tcp}\"\ntimeout = \"200ms\"\ndown_report = \"1ms\"\n{}{}\
         [[bus]]\nname = \"rtu\"\nkind = \"modbus-rtu\"\nport = \"{rtu}\"\nbaud = 115200\ntimeout = \"200ms\"\ndown_report = \"1ms\"\n{}{}",
        device(1),
        point("wire/tcp", body),
        device(2),
        point("wire/rtu", body)
    )
}

/// Starts it with these faults; the places that it printed.
fn start(folder: &std::path::Path, faults: &str) -> (Simulate, Vec<String>) {
    let file = folder.join("site.toml");
    let link = folder.join("line").to_string_lossy().into_owned();
    let head = "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n";
    let text = format!("{head}{}", buses(&["192.0.2.1:502".to_owned(), link]));
    std::fs::write(&file, text).expect("written");
    started(&file, &["--faults", faults, "--seed", "7"], 2)
}

/// The same with this file, which has so many buses.
fn started(file: &std::path::Path, more: &[&str], buses: usize) -> (Simulate, Vec<String>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"))
        .args(["simulate", "--config"])
        .arg(file)
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().take(buses);
    let places = lines.map(|line| line.expect("text").split('\t').nth(2).expect("a place").to_owned()).collect();
    (Simulate(child), places)
}

#[tokio::test]
async fn simulated_devices_answer_and_their_faults_make_no_wrong_value() {
    let folder = tempfile::tempdir().expect("a folder");
    let faults = "delay=0.1,split=0.2,duplicate=0.2,truncate=0.1,corrupt=0.1,drop=0.1,disconnect=0.02,longest=20ms";
    let (_simulate, places) = start(folder.path(), faults);
    assert_eq!(places[1], folder.path().join("line").to_string_lossy(), "the configured path is a link");
    let mut buses = Buses::start(&config(&buses(&places)));
    let mut seen = [[0; 2]; 2];
    while seen[0][0].min(seen[1][0]) < 20 || seen[0][1] + seen[1][1] == 0 {
        let reading = buses.next().await;
        let bus = usize::from(reading.sensor.as_str() == "wire/rtu");
        seen[bus][usize::from(reading.value.is_none())] += 1;
        if let Some(value) = reading.value {
            // Over TCP a corrupted header is refused; what is in a frame is not touched.
            assert!(PLAUSIBLE.contains(&value), "{reading:?}");
        }
    }
    buses.end().await;
}

/// The lines of a logger with a time of its own, asked by a poll, ended by a word or by their length: what `simulate`
/// printed instead nobody's configuration could read.
#[tokio::test]
async fn a_logger_is_played_as_the_configuration_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let bus = |name: &str, address: &str, framing: &str, device: &str, separator: &str| {
        format!(
            "[[bus]]\nname = \"{name}\"\nkind = \"text-lines\"\naddress = \"{address}\"\n{framing}\n[[bus.device]]\nname = \"l\"\n{device}\n{}",
            point(&format!("{name}/level"), &format!("column = 2\nseparator = \"{separator}\"\nevery = \"1s\""))
        )
    };
    let dated = "time_column = 1\ntime_format = \"%d.%m.%Y %H:%M:%S\"\ntime_zone = \"+01:00\"";
    let buses = |places: [&str; 3]| {
        [
            bus("polled", places[0], "poll = \"DUMP\\r\\n\"\nterminator = \"#\"", dated, ";"),
            bus("fixed", places[1], "length = 40", "time_column = 1\ntime_format = \"unix\"", ","),
            bus("plain", places[2], "", "time_column = 1\ntime_format = \"rfc3339\"", ";"),
        ]
        .concat()
    };
    let head = "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n";
    let file = folder.path().join("site.toml");
    std::fs::write(&file, format!("{head}{}", buses(["192.0.2.1:1"; 3]))).expect("written");
    let (_simulate, places) = started(&file, &[], 3);
    let mut buses = Buses::start(&config(&buses([&places[0], &places[1], &places[2]])));
    for name in ["polled", "fixed", "plain"] {
        let sensor = format!("{name}/level");
        let reading = buses.first(name, |got| got.sensor.as_str() == sensor && got.value.is_some()).await;
        assert_eq!(reading.cause, None, "its time is believed: {reading:?}");
        assert!(
            PLAUSIBLE.contains(&reading.value.expect("a value")) && reading.time_us % 1_000_000 == 0,
            "{reading:?}"
        );
    }
    buses.end().await;
}

/// `read` beside `run` on one simulated bus waited until the other one ended.
#[tokio::test]
async fn several_clients_are_served_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_simulate, places) = start(folder.path(), "");
    // This one is there all the time and asks nothing.
    let _silent = tokio::net::TcpStream::connect(&places[0]).await.expect("it listens");
    let both = buses(&places);
    let tcp = config(both.split("[[bus]]\nname = \"rtu\"").next().expect("a bus"));
    let (mut one, mut other) = (Buses::start(&tcp), Buses::start(&tcp));
    for _ in 0..5 {
        for client in [&mut one, &mut other] {
            client.first("a value over TCP", |got| got.sensor.as_str() == "wire/tcp" && got.value.is_some()).await;
        }
    }
    one.end().await;
    other.end().await;
}

#[test]
fn wrong_faults_are_refused_with_what_there_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"))
        .args(["simulate", "--config", "none.toml", "--faults", "dorp=0.1"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`dorp` is no fault") && said.contains("disconnect"), "{said}");
}

/// Otherwise a `run` with the same file talks to whoever has the place, and nobody knows why.
#[test]
fn a_place_that_is_taken_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("it listens");
    let address = taken.local_addr().expect("an address").to_string();
    let line = folder.path().join("line");
    std::fs::write(&line, "").expect("written");
    let line = line.to_string_lossy().into_owned();
    let head = "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n";
    let file = folder.path().join("site.toml");
    std::fs::write(&file, format!("{head}{}", buses(&[address.clone(), line.clone()]))).expect("written");
    let child = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"))
        .args(["simulate", "--config"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut simulate = Simulate(child);
    let lines = BufReader::new(simulate.0.stderr.take().expect("a pipe")).lines().take(2);
    let said: Vec<String> = lines.map(|line| line.expect("text")).collect();
    for (said, bus, place) in [(&said[0], "tcp", &address), (&said[1], "rtu", &line)] {
        let expected = format!("warning: bus `{bus}` cannot be played at `{place}`");
        assert!(said.starts_with(&expected), "{said}");
    }
}
