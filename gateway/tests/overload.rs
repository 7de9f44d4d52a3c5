//! A bus that is asked for more than its wire carries: `run` says so, and polls what it can.

mod common;

use std::process::Stdio;

use common::{device, point, soon};
use tjern_gateway::spool::SpoolLook;
use tjern_readings::reading::Reading;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;

/// So many answers show that it goes on.
const ANSWERS: usize = 12;

/// A converter to a serial line whose devices hold 7 everywhere; tells of each answer.
async fn converter() -> (String, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (answered, answers) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0_u8; 8];
            while stream.read_exact(&mut request).await.is_ok() {
                let count = u16::from_be_bytes([request[4], request[5]]);
                let mut answer = vec![request[0], request[1], u8::try_from(count * 2).expect("small")];
                answer.extend((0..count).flat_map(|_| 7_u16.to_be_bytes()));
                let sum = tjern_gateway::simulate::bad_line::crc(&answer);
                answer.extend(sum);
                // Whoever asked may be gone, or the test be over.
                if stream.write_all(&answer).await.is_err() || answered.send(()).is_err() {
                    break;
                }
            }
        }
    });
    (address, answers)
}

/// Nobody looked at it: a line that was planned for 264 % missed slots, and its technician looked for the fault in the meters.
#[tokio::test]
async fn a_bus_that_is_asked_for_too_much_is_told_and_polled_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (address, mut answers) = converter().await;
    // At 1,200 baud each takes a quarter of a second at least.
    let body = |register| format!("register = \"input:{register}\"\ntype = \"u16\"\nevery = \"500ms\"");
    let points: String = [0, 1_000, 2_000, 3_000]
        .map(|register| point(&format!("tarn/depth-{register}m/water_temperature"), &body(register)))
        .concat();
    let text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"file:///proc/no-lake-here\"\n[spool]\ndir = \"{0}/spool\"\nsync_every = \"50ms\"\n\
         [[bus]]\nname = \"slow\"\nkind = \"modbus-rtu-tcp\"\naddress = \"{address}\"\nbaud = 1200\n{1}{points}",
        folder.path().display(),
        device(1),
    );
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.args(["run", "--config"]).arg(&config).env("NO_COLOR", "1").env_remove("RUST_LOG").kill_on_drop(true);
    let mut gateway = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = BufReader::new(gateway.stderr.take().expect("piped")).lines();
    let warning = soon("the warning", async {
        loop {
            let line = log.next_line().await.expect("read").expect("it goes on");
            if line.contains("asked for more than it can do") {
                return line;
            }
        }
    })
    .await;
    assert!(warning.contains("slow") && warning.contains("slots will be missed"), "{warning}");
    let percent = warning.split_once("load_percent=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a load").0;
    assert!(percent.parse::<u32>().expect("a number") > 100, "{warning}");
    for _ in 0..ANSWERS {
        soon("an answer", answers.recv()).await.expect("it is asked");
    }
    let id = gateway.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().await.expect("kill runs").success());
    soon("the rest of its log", async { while let Ok(Some(_)) = log.next_line().await {} }).await;
    assert!(soon("the end", gateway.wait()).await.expect("a status").success());
    let mut values = Vec::new();
    let each = |_, _, reading: &Reading| {
        values.extend(reading.value);
        Ok::<(), std::convert::Infallible>(())
    };
    SpoolLook::at(&folder.path().join("spool")).expect("there").each_reading(each).expect("nothing stops it");
    assert!(!values.is_empty() && values.iter().all(|value| *value == 7.0), "{values:?}");
}
