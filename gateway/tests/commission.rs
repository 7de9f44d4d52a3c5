//! What a technician does with a new line, by the real program: `read`, `scan`, `sniff`.

mod common;

use std::process::{Output, Stdio};
use std::time::Duration;

use common::{register, simulator, soon, unit, word};
use tjern_gateway::config::{BusKind, Config};
use tjern_gateway::modbus::transport::Table;
use tjern_gateway::simulate::bad_line::crc;
use tjern_gateway::simulate::{Simulation, Simulator};
use tjern_gateway::value::{NumberType, Order, Scaling};
use tjern_readings::configuration::ConfigText;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_serial::{SerialPort, SerialStream};

fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.args(words).kill_on_drop(true).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

async fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = soon("the end", program(words).output()).await.expect("it starts");
    (status.code(), String::from_utf8_lossy(&stdout).into(), String::from_utf8_lossy(&stderr).into())
}

fn bath() -> Vec<tjern_gateway::simulate::SimulatedRegister> {
    vec![
        register(Table::Input, 0, NumberType::F32, Order::Cdab, Scaling::default(), 12.25),
        word(2, 7),
        register(Table::Coil, 3, NumberType::Bool, Order::Abcd, Scaling::default(), 1.0),
    ]
}

async fn rtu() -> Simulator {
    let (one, _) = unit(1, bath());
    let (four, _) = unit(4, vec![register(Table::Holding, 0, NumberType::U16, Order::Abcd, Scaling::default(), 44.0)]);
    simulator(Simulation::ModbusRtu(vec![one, four])).await
}

/// A float with its registers reversed: which order it is stands in one line of the table.
#[tokio::test]
async fn one_read_shows_a_value_in_every_order() {
    let simulator = rtu().await;
    let port = simulator.port().expect("a port");
    let words = ["read", "--port", port, "--baud", "19200", "--unit-id", "1", "input:0", "--count", "3"];
    let (code, stdout, stderr) = run(&words).await;
    assert_eq!(code, Some(0), "{stderr}");
    let float = stdout.lines().find(|line| line.starts_with("input:0  f32")).unwrap_or_else(|| panic!("{stdout}"));
    assert_eq!(float.split_whitespace().nth(3), Some("12.25"), "cdab is the second order: {stdout}");
    let (code, json, _) = run(&[&words[..], &["--format", "json"]].concat()).await;
    assert_eq!(code, Some(0));
    assert!(json.contains("{\"address\":0,\"type\":\"f32\",\"order\":\"cdab\",\"value\":12.25}"), "{json}");
}

#[tokio::test]
async fn a_bus_of_a_configuration_is_read_as_it_is_configured() {
    let (one, _) = unit(9, bath());
    let server = simulator(Simulation::ModbusTcp(vec![one])).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    let text = format!(
        "version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n[[bus]]\nname = \"pumphouse\"\nkind = \"modbus-tcp\"\naddress = \"{}\"\n{}{}",
        server.address().expect("TCP"),
        common::device(9),
        common::point("a/b", "register = \"input:2\"\ntype = \"u16\"\nevery = \"1h\"")
    );
    std::fs::write(&path, text).expect("written");
    let path = path.to_string_lossy();
    let csv = ["--unit-id", "9", "input:2", "--format", "csv"];
    let (code, stdout, stderr) = run(&[&["read", "--config", &path, "--bus", "pumphouse"], &csv[..]].concat()).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("\ninput,2,u16,abcd,7\n"), "{stdout}");
    let (code, _, stderr) = run(&[&["read", "--config", &path, "--bus", "mast"], &csv[..]].concat()).await;
    assert_eq!((code, stderr.contains("hint: there is `pumphouse`")), (Some(2), true), "{stderr}");
}

/// What goes wrong is one line and what to do; nothing goes to stdout.
#[tokio::test]
async fn a_read_without_a_value_says_why_and_fails() {
    let simulator = rtu().await;
    let port = simulator.port().expect("a port");
    let read = |unit: &'static str, register: &'static str| {
        let port = port.to_owned();
        async move { run(&["read", "--port", &port, "--timeout", "100ms", "--unit-id", unit, register]).await }
    };
    for (unit, register, said, hinted) in
        [("2", "input:0", "timeout", "unit id"), ("1", "input:77", "exception_2", "scan registers")]
    {
        let (code, stdout, stderr) = read(unit, register).await;
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains(said) && stderr.contains(hinted), "{stderr}");
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
    }
    let (code, _, stderr) = run(&["read", "--port", "/dev/serial/by-id/none", "--unit-id", "1", "input:0"]).await;
    assert_eq!((code, stderr.contains("hint: is it plugged in")), (Some(1), true), "{stderr}");
    let (code, _, stderr) = read("1", "input:65535-65535").await;
    assert_eq!(code, Some(1), "{stderr}");
    let (code, _, stderr) = run(&["read", "--tcp", "127.0.0.1:1", "--unit-id", "1", "input:0"]).await;
    assert_eq!((code, stderr.contains("hint: check the address")), (Some(1), true), "{stderr}");
    assert!(!stderr.contains("plug") && !stderr.contains("dialout"), "no port is meant: {stderr}");
    let (code, _, stderr) = read("1", "input:0-65535").await;
    assert_eq!((code, stderr.contains("cannot have")), (Some(2), true), "{stderr}");
    let (code, _, _) = run(&["read", "--unit-id", "1", "input:0"]).await;
    assert_eq!(code, Some(2), "it is not said which line");
}

#[tokio::test]
async fn a_scan_ends_with_a_configuration_that_is_taken() {
    let simulator = rtu().await;
    let port = simulator.port().expect("a port");
    let words =
        ["scan", "--port", port, "--units", "1-5", "--bauds", "9600", "--parities", "none", "--timeout", "150ms"];
    let (code, stdout, stderr) = run(&words).await;
    assert_eq!(code, Some(0), "{stderr}");
    let config = Config::parse(&ConfigText::new("found.toml", &stdout)).unwrap_or_else(|error| panic!("{error}"));
    let BusKind::ModbusRtu { serial, devices, .. } = &config.buses()[0].kind else { panic!("{stdout}") };
    assert_eq!((serial.port.as_str(), serial.baud), (port, 9_600));
    let found: Vec<(u8, Table, u16)> =
        devices.iter().map(|device| (device.unit_id, device.points[0].table, device.points[0].address)).collect();
    assert_eq!(found, [(1, Table::Input, 0), (4, Table::Holding, 0)], "{stdout}");
    let (code, stdout, stderr) = run(&[&words[..4], &["7-8"], &words[5..]].concat()).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
}

/// A block that reaches over a hole is refused as a whole: one by one, all that is there is found.
#[tokio::test]
async fn registers_are_found_one_by_one() {
    let simulator = rtu().await;
    let port = simulator.port().expect("a port");
    let words = ["scan", "registers", "--port", port, "--unit-id", "1", "--timeout", "5s"];
    let (code, stdout, stderr) = run(&[&words[..], &["input:0-9"]].concat()).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("# input:2  0007  7  7\n"), "{stdout}");
    let config = Config::parse(&ConfigText::new("found.toml", &stdout)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.sensors().count(), 3, "{stdout}");
    let (code, stdout, stderr) = run(&[&words[..], &["holding:0-3"]].concat()).await;
    assert_eq!((code, stdout.as_str(), stderr.contains("4 refused")), (Some(1), "", true), "{stderr}");
}

/// A sensor that has input registers 0 to 7, and is silent where it is asked for another: its unit id is 3.
fn silent_outside_its_map() -> String {
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    tokio::spawn(async move {
        let mut request = [0_u8; 8];
        while ours.read_exact(&mut request).await.is_ok() {
            let word = |index| u16::from_be_bytes([request[index], request[index + 1]]);
            let (first, count) = (word(2), word(4));
            if request[..2] != [3, 4] || u32::from(first) + u32::from(count) > 8 {
                continue;
            }
            let mut answer = vec![3, 4, u8::try_from(count * 2).expect("at most 16")];
            answer.extend((first..first + count).flat_map(|register| (700 + register).to_be_bytes()));
            let sum = crc(&answer);
            answer.extend(sum);
            ours.write_all(&answer).await.expect("room");
        }
        drop(theirs);
    });
    port
}

/// Many sensors are silent where others refuse. They were down for `scan` and for `read`: a probe of 19 registers went before
/// each first request.
#[tokio::test]
async fn a_sensor_that_is_silent_outside_its_map_is_found_and_read() {
    let port = silent_outside_its_map();
    let line = ["--port", &port, "--timeout", "300ms"];
    let scan = [&["scan"][..], &line[..], &["--units", "2-4", "--bauds", "19200", "--parities", "even"]].concat();
    let (code, stdout, stderr) = run(&scan).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("unit 3  input:0  a value"), "{stdout}");
    let config = Config::parse(&ConfigText::new("found.toml", &stdout)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.sensors().count(), 1, "{stdout}");
    for (register, count, value) in
        [("input:0", "8", "\ninput,7,u16,abcd,707\n"), ("input:7", "1", "\ninput,7,u16,abcd,707\n")]
    {
        let read =
            [&["read"][..], &line[..], &["--unit-id", "3", register, "--count", count, "--format", "csv"]].concat();
        let (code, stdout, stderr) = run(&read).await;
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains(value), "{stdout}");
    }
    let registers = [&["scan", "registers"][..], &line[..], &["--unit-id", "3", "input:5-12"]].concat();
    let (code, stdout, stderr) = run(&registers).await;
    assert_eq!(code, Some(0), "{stderr}");
    let config = Config::parse(&ConfigText::new("found.toml", &stdout)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.sensors().count(), 3, "{stdout}");
    assert!(stdout.contains("# input:12  timeout"), "it goes on to the end: {stdout}");
}

/// A converter that passes RTU frames on. Each connection is told, and each request is answered with a value that says its address.
async fn converter() -> (String, mpsc::UnboundedReceiver<u16>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (asked, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut request = [0; 8];
                while stream.read_exact(&mut request).await.is_ok() {
                    let (first, count) = (u16::from_be_bytes([request[2], request[3]]), request[5]);
                    let mut answer = vec![request[0], request[1], 2 * count];
                    answer.extend((0..u16::from(count)).flat_map(|place| (1_000 + first + place).to_be_bytes()));
                    answer.extend(crc(&answer));
                    // Whoever listened may have gone, and whoever asked too.
                    let _ = (asked.send(first), stream.write_all(&answer).await);
                }
            });
        }
    });
    (address, heard)
}

/// Many converters pass each answer on to all that are connected: of 345 readings of a gateway 33 were values of a register
/// that somebody read beside it, and 18 of 40 of those reads showed the gateway's.
#[tokio::test]
async fn nobody_asks_on_a_far_line_beside_a_gateway() {
    let (address, mut heard) = converter().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    let text = format!(
        "version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n[[bus]]\nname = \"far\"\nkind = \"modbus-rtu-tcp\"\naddress = \"{address}\"\n{}{}",
        common::device(1),
        common::point("a/b", "register = \"input:0\"\ntype = \"u16\"\nevery = \"200ms\"")
    );
    std::fs::write(&path, &text).expect("written");
    let config = Config::parse(&ConfigText::new("gateway.toml", &text)).expect("good");
    let mut buses = common::Buses::start(&config);
    buses.first("a value", |reading| reading.value == Some(1_000.0)).await;
    let (port, path) = (address.rsplit_once(':').expect("a port").1, path.to_string_lossy());
    let named = format!("localhost:{port}");
    let read = ["--unit-id", "1", "input:100", "--format", "csv"];
    for words in [
        [&["read", "--rtu-tcp", &address], &read[..]].concat(),
        [&["read", "--rtu-tcp", &named], &read[..]].concat(),
        [&["read", "--config", &path, "--bus", "far"], &read[..]].concat(),
        vec!["scan", "--rtu-tcp", &address, "--units", "1"],
        vec!["scan", "registers", "--rtu-tcp", &address, "--unit-id", "1", "input:100"],
    ] {
        let (code, stdout, stderr) = run(&words).await;
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{words:?}: {stderr}");
        assert!(stderr.contains("another process of this machine asks on this line"), "{stderr}");
        assert!(stderr.contains("hint: is it a gateway"), "{stderr}");
    }
    buses.end().await;
    let is_ours = |first: &u16| (100..200).contains(first);
    assert!(std::iter::from_fn(|| heard.try_recv().ok()).all(|first| !is_ours(&first)), "nothing was asked beside it");
    let (code, stdout, stderr) = run(&[&["read", "--rtu-tcp", &address], &read[..]].concat()).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("\ninput,100,u16,abcd,1100\n"), "{stdout}");
}

/// A server that answers each request under the id 0, which none of ours has twice.
async fn answering_under_another_id() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 12];
                while stream.read_exact(&mut request).await.is_ok() {
                    let id = [request[0], request[1] ^ 0x55];
                    let answer = [&id[..], &[0, 0, 0, 5, request[6], request[7], 2, 0, 7]].concat();
                    // Whoever asked may have gone.
                    let _ = stream.write_all(&answer).await;
                }
            });
        }
    });
    address
}

/// It was told as silent, with a hint at its unit id, while answers came to each request.
#[tokio::test]
async fn a_server_that_answers_under_another_id_is_told_as_that() {
    let address = answering_under_another_id().await;
    let line = ["--tcp", &address, "--timeout", "200ms"];
    let (code, stdout, stderr) = run(&[&["read"][..], &line, &["--unit-id", "1", "input:0"]].concat()).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("an answer with another transaction id came"), "{stderr}");
    assert!(stderr.contains("hint: something answers, with another transaction id"), "{stderr}");
    let (code, stdout, stderr) = run(&[&["scan"][..], &line, &["--units", "1-2"]].concat()).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(stdout.matches("another transaction id than it was asked with").count(), 2, "{stdout}");
}

/// Beside another master a scan saw its frames, and told of two devices with one unit id.
#[tokio::test]
async fn a_scan_beside_another_master_thinks_of_it() {
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    let garbage = async {
        let mut request = [0; 8];
        while ours.read_exact(&mut request).await.is_ok() {
            ours.write_all(&[9, 4, 2, 0, 7, 1, 2, 3, 4]).await.expect("room");
        }
        std::future::pending::<()>().await;
    };
    let words =
        ["scan", "--port", &port, "--units", "3", "--bauds", "9600", "--parities", "none", "--timeout", "200ms"];
    let (_, stdout, stderr) = tokio::select! {
        ended = run(&words) => ended,
        () = garbage => unreachable!("it waits for ever"),
    };
    assert!(stdout.contains("no other master asks on the line: `tjern-gateway sniff` shows"), "{stdout}\n{stderr}");
    drop(theirs);
}

/// A program whose stdout is a full disk, or has no reader: its status, and what it says on stderr.
async fn run_into(words: &[&str], stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let mut command = program(words);
    command.stdout(stdout).stderr(Stdio::piped());
    let output = soon("the end", command.spawn().expect("it starts").wait_with_output()).await.expect("it ran");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into())
}

fn nobody_reads() -> std::io::PipeWriter {
    std::io::pipe().expect("a pipe").1
}

/// `read … | head -1` failed, and into a full disk it failed without a word.
#[tokio::test]
async fn a_read_that_nobody_reads_is_none_that_failed() {
    let simulator = rtu().await;
    let port = simulator.port().expect("a port");
    let words = ["read", "--port", port, "--timeout", "5s", "--unit-id", "1", "input:0", "--count", "3"];
    assert_eq!(run_into(&words, nobody_reads()).await, (Some(0), String::new()));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
    let (code, stderr) = run_into(&words, full).await;
    assert_eq!((code, stderr.starts_with("error: cannot write to stdout: ")), (Some(1), true), "{stderr}");
}

/// `sniff | head` ended with "error: Broken pipe".
#[tokio::test]
async fn a_line_that_nobody_hears_of_any_more_is_let_go_of_quietly() {
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    let talk = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(60));
        loop {
            ticks.tick().await;
            ours.write_all(&[1, 4, 0, 0, 0, 1, 0x31, 0xCA, 1, 4, 2, 0, 7, 0xF8, 0xF2]).await.expect("room");
        }
    };
    let words = ["sniff", "--port", &port, "--baud", "9600"];
    let ended = tokio::select! {
        ended = run_into(&words, nobody_reads()) => ended,
        () = talk => unreachable!(),
    };
    assert_eq!(ended, (Some(0), String::new()));
    drop(theirs);
}

/// Requests and answers as they are on a line, with noise between: each is told, and the noise is counted.
#[tokio::test]
async fn a_line_is_listened_to() {
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    let child = program(&["sniff", "--port", &port, "--baud", "9600", "--frames", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // CRCs by hand, from the specification's polynomial: 01 04 0000 0001 and 01 04 02 0007.
    let exchange = [&[0xFF, 0xFF][..], &[1, 4, 0, 0, 0, 1, 0x31, 0xCA], &[1, 4, 2, 0, 7, 0xF8, 0xF2]].concat();
    let talk = async {
        // What is said before it listens is not heard.
        let mut ticks = tokio::time::interval(Duration::from_millis(60));
        loop {
            ticks.tick().await;
            ours.write_all(&exchange).await.expect("room");
        }
    };
    let output = tokio::select! {
        output = soon("the end", child.wait_with_output()) => output.expect("it ran"),
        () = talk => unreachable!(),
    };
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.contains("unit   1  function   4  request    address 0 count 1"), "{stdout}");
    assert!(stdout.contains("answer     address 0 count 1") && stdout.contains("[7]"), "{stdout}");
    assert!(stderr.contains("broken or foreign"), "{stderr}");
    drop(theirs);
}
