//! `scan` by the real program before converters that hang up, and on a port with several settings. Which of them a device
//! is heard at is played in `cli/scan/units.rs`: a pseudo terminal has no speed.

mod common;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{simulator, unit, word};
use tjern_gateway::config::{BusKind, Config};
use tjern_gateway::simulate::Simulation;
use tjern_readings::configuration::ConfigText;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);

async fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.args(words).kill_on_drop(true).stdin(Stdio::null()).env_remove("RUST_LOG");
    let output = timeout(PATIENCE, command.output()).await.expect("it ends in time");
    let Output { status, stdout, stderr } = output.expect("it starts");
    (status.code(), String::from_utf8_lossy(&stdout).into(), String::from_utf8_lossy(&stderr).into())
}

fn found(stdout: &str) -> Config {
    Config::parse(&ConfigText::new("found.toml", stdout)).unwrap_or_else(|error| panic!("{error}"))
}

/// What was found goes into a file, as a technician does it, and `check` has to take it.
async fn check(folder: &Path, stdout: &str) {
    let file = folder.join("found.toml");
    std::fs::write(&file, stdout).expect("written");
    let (code, _, stderr) = run(&["check", "--config", &file.to_string_lossy()]).await;
    assert_eq!(code, Some(0), "{stderr}");
}

/// What a converter does on a request.
#[derive(Debug, Clone, Copy)]
enum Does {
    Answers,
    Refuses,
    HangsUp,
    /// Hangs up, and does not listen any more.
    GoesAway,
}

/// A converter that does this for each unit; its address.
async fn converter(does: fn(u8) -> Does) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if serve(&mut stream, does).await.is_none() {
                // Before the connection: whoever sees that closed finds nobody.
                drop(listener);
                return;
            }
        }
    });
    address
}

/// Serves a connection; nothing where it shall be the last one.
async fn serve(stream: &mut TcpStream, does: fn(u8) -> Does) -> Option<()> {
    let mut request = [0_u8; 12];
    while stream.read_exact(&mut request).await.is_ok() {
        let [id_high, id_low, .., unit, function, _, _, _, _] = request;
        match does(unit) {
            Does::Answers => {
                let answer = [id_high, id_low, 0, 0, 0, 5, unit, function, 2, 0, 77];
                // It may have gone.
                let _ = stream.write_all(&answer).await;
            }
            Does::Refuses => {
                // It may have gone.
                let _ = stream.write_all(&[id_high, id_low, 0, 0, 0, 3, unit, function | 0x80, 2]).await;
            }
            Does::HangsUp => return Some(()),
            Does::GoesAway => return None,
        }
    }
    Some(())
}

/// The scan ended with the first unit that was not there, and said that the line could not be reached.
#[tokio::test]
async fn a_converter_that_hangs_up_on_who_is_not_there_is_scanned_to_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = converter(|unit| if [5, 7].contains(&unit) { Does::Answers } else { Does::HangsUp }).await;
    let (code, stdout, stderr) = run(&["scan", "--tcp", &address, "--units", "1-9", "--timeout", "5s"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let config = found(&stdout);
    let BusKind::ModbusTcp { devices, .. } = &config.buses()[0].kind else { panic!("{stdout}") };
    assert_eq!(devices.iter().map(|device| device.unit_id).collect::<Vec<_>>(), [5, 7], "{stdout}");
    check(folder.path(), &stdout).await;
}

/// The file that was ready to run polled a register that the scan had seen refused.
#[tokio::test]
async fn what_a_scan_saw_refused_is_not_polled() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = converter(|unit| if unit == 9 { Does::Refuses } else { Does::Answers }).await;
    let command = format!("#   tjern-gateway scan registers --tcp {address} --unit-id 9 input:0-200");
    for (units, expected) in [("8-9", vec![8]), ("9", vec![])] {
        let (code, stdout, stderr) = run(&["scan", "--tcp", &address, "--units", units, "--timeout", "5s"]).await;
        assert_eq!(code, Some(0), "{stderr}");
        let config = found(&stdout);
        let polled: Vec<u8> = config
            .buses()
            .iter()
            .flat_map(|bus| match &bus.kind {
                BusKind::ModbusTcp { devices, .. } => devices.iter().map(|device| device.unit_id).collect(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(polled, expected, "{stdout}");
        assert!(stdout.contains(&command), "{stdout}");
        check(folder.path(), &stdout).await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_on_everybody_is_told_of() {
    let address = converter(|_| Does::HangsUp).await;
    let (code, stdout, stderr) = run(&["scan", "--tcp", &address, "--units", "1-20", "--timeout", "5s"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("the connection was closed on 20 unit ids"), "{stderr}");
    assert!(stderr.contains("hint: the server is there"), "{stderr}");
}

/// Where nobody can be reached any more the scan ends, and does not ask for 247 units one by one.
#[tokio::test]
async fn a_scan_ends_where_nobody_can_be_reached_any_more() {
    let address = converter(|unit| if unit < 3 { Does::HangsUp } else { Does::GoesAway }).await;
    let (code, stdout, stderr) = run(&["scan", "--tcp", &address, "--timeout", "5s"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    // A program that another test starts in this very moment holds the port for some milliseconds more.
    let is_last = |unit: u8| stderr.contains(&format!("unit {unit}, the line: unreachable: cannot connect to"));
    assert!((4..=20).any(is_last), "{stderr}");
}

/// A converter hangs up where its device is silent: the registers behind are found all the same.
#[tokio::test]
async fn registers_behind_a_converter_that_hangs_up_are_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0_u8; 12];
            while stream.read_exact(&mut request).await.is_ok() {
                let register = u16::from_be_bytes([request[8], request[9]]);
                if ![2, 4, 5].contains(&register) {
                    break;
                }
                let answer = [request[0], request[1], 0, 0, 0, 5, request[6], request[7], 2, 0, 77];
                // It may have gone.
                let _ = stream.write_all(&answer).await;
            }
        }
    });
    let words = ["scan", "registers", "--tcp", &address, "--unit-id", "1", "--timeout", "5s", "input:2-6"];
    let (code, stdout, stderr) = run(&words).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(found(&stdout).sensors().count(), 3, "{stdout}");
}

/// Each setting opens the port anew. The scan ended at the second one: the thread that had written at the one before still had
/// the port.
#[tokio::test]
async fn a_port_is_scanned_at_each_of_its_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let (there, _) = unit(5, vec![word(0, 77)]);
    let device = simulator(Simulation::ModbusRtu(vec![there])).await;
    let port = device.port().expect("a port");
    let settings = ["--bauds", "9600,19200,38400", "--parities", "even,none"];
    let words = [&["scan", "--port", port, "--units", "5", "--timeout", "5s"][..], &settings].concat();
    let (code, stdout, stderr) = run(&words).await;
    assert_eq!(code, Some(0), "{stderr}");
    for setting in ["9600 8E1", "9600 8N1", "19200 8E1", "19200 8N1", "38400 8E1", "38400 8N1"] {
        assert!(stdout.contains(&format!("# {setting}  unit 5  input:0  a value")), "nobody at {setting}: {stdout}");
    }
    let config = found(&stdout);
    let BusKind::ModbusRtu { serial, devices, .. } = &config.buses()[0].kind else { panic!("{stdout}") };
    assert_eq!((serial.baud, devices.len(), devices[0].unit_id), (9_600, 1, 5), "{stdout}");
    check(folder.path(), &stdout).await;
}
