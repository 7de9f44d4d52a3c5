//! What a device is asked for: learned from its refusals, kept over a restart, told beforehand by `plan`.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use common::{Buses, config, device, point, soon};
use tjern_readings::reading::Cause;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;

/// The address that the device does not have.
const BAD: u16 = 5;

/// A device whose registers hold their addresses. It refuses what touches [`BAD`], and tells each request's address
/// and count.
async fn picky() -> (SocketAddr, mpsc::UnboundedReceiver<(u16, u16)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (requests, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let requests = requests.clone();
            tokio::spawn(async move {
                let mut request = [0_u8; 12];
                while stream.read_exact(&mut request).await.is_ok() {
                    let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
                    let (first, count) = (word(8), word(10));
                    let words = (first..first + count).flat_map(u16::to_be_bytes);
                    let body: Vec<u8> = match (first..first + count).contains(&BAD) {
                        true => vec![request[6], request[7] | 0x80, 2],
                        false => [request[6], request[7], u8::try_from(count * 2).expect("small")]
                            .into_iter()
                            .chain(words)
                            .collect(),
                    };
                    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
                    let frame = [&request[..4], &length, &body].concat();
                    // Whoever asked may be gone, or the test be over.
                    if stream.write_all(&frame).await.is_err() || requests.send((first, count)).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, received)
}

fn bus(address: SocketAddr, registers: &[u16]) -> String {
    let body = |register| format!("register = \"input:{register}\"\ntype = \"u16\"\nevery = \"100ms\"");
    let points: String =
        registers.iter().map(|register| point(&format!("picky/r{register}"), &body(*register))).collect();
    format!("[[bus]]\nname = \"picky\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{}{points}", device(1))
}

/// Reads until a slot's requests have come as expected.
async fn asks(requests: &mut mpsc::UnboundedReceiver<(u16, u16)>, expected: &[(u16, u16)]) {
    let mut last = Vec::new();
    soon(&format!("{expected:?}"), async {
        while last.len() < expected.len() || last[last.len() - expected.len()..] != *expected {
            last.push(requests.recv().await.expect("the device runs"));
        }
    })
    .await;
}

/// A hole that a device does not have once made a gateway read all its points one by one, for ever.
#[tokio::test]
async fn a_hole_that_is_refused_is_found_remembered_and_read_round() {
    let folder = tempfile::tempdir().expect("a folder");
    let learned = folder.path().join("learned");
    let (address, mut requests) = picky().await;
    let config = config(&bus(address, &[0, 2, 4, 6, 8, 10]));
    let mut buses = Buses::start_with(&config, Some(learned.clone()));
    asks(&mut requests, &[(0, 5), (6, 5), (0, 5), (6, 5)]).await;
    for register in [0.0, 4.0, 6.0, 10.0] {
        let reading = buses.first("a value", |reading| reading.value == Some(register)).await;
        assert_eq!(reading.sensor.as_str(), format!("picky/r{register}"));
    }
    buses.end().await;
    let text = std::fs::read_to_string(learned.join("picky.toml")).expect("it is on disk");
    assert!(text.contains("first = 5\nend = 6"), "{text}");
    while requests.try_recv().is_ok() {}
    let buses = Buses::start_with(&config, Some(learned));
    let first = [requests.recv().await, requests.recv().await];
    assert_eq!(first, [Some((0, 5)), Some((6, 5))], "after a restart it is known from the first request on");
    buses.end().await;
}

#[tokio::test]
async fn a_point_that_is_refused_has_its_cause_and_the_others_their_values() {
    let (address, mut requests) = picky().await;
    let mut buses = Buses::start_with(&config(&bus(address, &[3, 4, 5, 6, 7])), None);
    asks(&mut requests, &[(3, 2), (6, 2), (3, 2), (6, 2)]).await;
    let refused = buses.first("the refused point", |reading| reading.sensor.as_str() == "picky/r5").await;
    assert_eq!((refused.cause, refused.value), (Some(Cause::Exception2), None));
    buses.end().await;
}

#[tokio::test]
async fn what_a_bus_says_of_itself_can_be_seen() {
    let (address, _requests) = picky().await;
    let mut buses = Buses::start_with(&config(&bus(address, &[0, 1, 5])), None);
    buses.first("a value", |reading| reading.value == Some(1.0)).await;
    buses.first("the refused point", |reading| reading.cause == Some(Cause::Exception2)).await;
    let shown = buses.states().snapshot().remove(0);
    assert_eq!((shown.bus.as_str(), shown.kind.as_str()), ("picky", "modbus-tcp"));
    assert!(shown.turns > 0);
    let device = &shown.devices[0];
    assert_eq!((device.unit_id, device.state), (Some(1), tjern_gateway::bus::state::DeviceState::Healthy));
    assert!(device.exceptions >= 1 && device.round_trip_us.is_some(), "{device:?}");
    assert_eq!((device.points[1].value, device.points[1].every_us), (Some(1.0), 100_000));
    assert_eq!(device.points[2].cause, Some(Cause::Exception2));
    buses.end().await;
}

async fn plan(folder: &Path, bus: &str) -> (Option<i32>, String, String) {
    let file = folder.join("gateway.toml");
    let head = format!(
        "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"{}/spool\"\n",
        folder.display()
    );
    std::fs::write(&file, head + bus).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.args(["plan", "--config"]).arg(&file).env("NO_COLOR", "1").stdin(Stdio::null());
    let Output { status, stdout, stderr } = soon("the plan", command.output()).await.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn the_plan_says_whether_a_bus_can_do_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let rtu = |every: &str| {
        let body = |register| format!("register = \"input:{register}\"\ntype = \"f32\"\nevery = \"{every}\"");
        let points: String = [0, 8, 500].map(|register| point(&format!("rtu/r{register}"), &body(register))).concat();
        format!(
            "[[bus]]\nname = \"line\"\nkind = \"modbus-rtu\"\nport = \"/dev/ttyUSB0\"\nbaud = 9600\n{}{points}",
            device(1)
        )
    };
    let (status, shown, told) = plan(folder.path(), &rtu("1s")).await;
    assert_eq!((status, told.as_str()), (Some(0), ""), "{shown}");
    for part in [
        "bus line",
        "input:0",
        "count 10 ",
        "points 2 ",
        "input:500",
        "load at least 7.3 %",
        "shortest period at least 73.3 ms",
    ] {
        assert!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
    let (status, _, told) = plan(folder.path(), &rtu("80ms")).await;
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("nearly full"), "{told}");
    let (status, shown, told) = plan(folder.path(), &rtu("50ms")).await;
    assert_eq!(status, Some(1), "{shown}");
    assert!(told.contains("more than it can do"), "{told}");
    let (status, shown, _) = plan(folder.path(), &bus("127.0.0.1:502".parse().expect("an address"), &[0])).await;
    assert_eq!(status, Some(0));
    assert!(shown.contains("load not known"), "nothing is guessed:\n{shown}");
    assert!(!folder.path().join("spool").exists(), "it looks and touches nothing");
}
