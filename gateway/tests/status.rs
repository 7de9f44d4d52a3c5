//! What a gateway tells of itself over HTTP, to those who ask nicely and to those who do not.

mod common;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use common::{PATIENCE, device, point, simulator, soon, unit, word};
use tjern_gateway::config::Config;
use tjern_gateway::run::{RunOptions, run};
use tjern_gateway::simulate::Simulation;
use tjern_gateway::status::client::{ClientError, StatusAddress, get_within, status};
use tjern_gateway::status::http::{CONNECTIONS_MAX, HEAD_MAX};
use tjern_gateway::status::report::HealthState;
use tjern_gateway::watch::Size;
use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_testing::ports::{KeptPort, SilentPort};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// A gateway that listens; what ends it, and its folder.
async fn listening() -> (KeptPort, CancellationToken, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let (unit, _) = unit(1, vec![word(0, 11)]);
    let device_address =
        Box::leak(Box::new(simulator(Simulation::ModbusTcp(vec![unit])).await)).address().expect("TCP");
    let port = KeptPort::take();
    let body = "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"";
    let bus = format!(
        "[[bus]]\nname = 'a \"bus\"'\nkind = \"modbus-tcp\"\naddress = \"{device_address}\"\n{}{}",
        device(1),
        point("tarn/level", body)
    );
    let stop = gateway(&folder, port.address(), &bus);
    let address = StatusAddress::Http(port.address().to_string());
    soon("a value", async {
        let mut looks = interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let read = status(&address).await;
            if read.is_ok_and(|status| status.buses.first().is_some_and(|bus| bus.devices[0].points[0].value.is_some()))
            {
                return;
            }
        }
    })
    .await;
    (port, stop, folder)
}

async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // It may answer, and close, before it has read all of it.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn get_and_head_are_answered_and_nothing_else() {
    let (port, stop, _folder) = listening().await;
    let address = port.address();
    let long = [b"GET /status HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; HEAD_MAX]].concat();
    for (request, first, last) in [
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), "HTTP/1.1 200 OK", "\"details\":[]}\n"),
        (b"GET /health?x=1 HTTP/1.0\n\n", "HTTP/1.1 200 OK", "\"details\":[]}\n"),
        (b"HEAD /status HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK", "Connection: close\r\n\r\n"),
        (b"POST /status HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed", "GET and HEAD only\n"),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found", "/health\n"),
        (b"\xff\xfe\r\n\r\n", "HTTP/1.1 400 Bad Request", "this is no request\n"),
        (b"GET / SPDY/3\r\n\r\n", "HTTP/1.1 505", "write HTTP/1.1\n"),
        (&long, "HTTP/1.1 431", "too long\n"),
    ] {
        let answer = exchange(address, request).await;
        assert!(answer.starts_with(first), "{first}: {answer}");
        assert!(answer.ends_with(last), "{last:?}: {answer:?}");
    }
    stop.cancel();
}

/// As many as are let in, and one more: it is answered once they are sent away.
#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out_for_long() {
    let (port, stop, _folder) = listening().await;
    let address = port.address();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /he").await.expect("it listens");
        silent.push(stream);
    }
    let before = exchange(address, b"GET /status HTTP/1.1\r\n\r\n").await;
    assert!(before.starts_with("HTTP/1.1 200"), "{before}");
    for mut stream in silent {
        let mut rest = Vec::new();
        // Reset or closed, with nothing said.
        let _ = soon("being sent away", stream.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
    }
    stop.cancel();
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let (port, stop, _folder) = listening().await;
    let address = port.address();
    let body = get_within(PATIENCE, &StatusAddress::Http(address.to_string()), "/metrics").await.expect("it answers");
    let samples = read_metrics(&String::from_utf8(body).expect("text"));
    let device = "{bus=\"a \\\"bus\\\"\",device=\"device-1\"";
    for name in [
        format!("tjern_gateway_device_round_trip_seconds{device}}}"),
        format!("tjern_gateway_device_timeouts_total{device}}}"),
        format!("tjern_gateway_device_exceptions_total{device}}}"),
        format!("tjern_gateway_device_broken_frames_total{device}}}"),
        format!("tjern_gateway_device_missed_slots_total{device}}}"),
        "tjern_gateway_spool_bytes".to_owned(),
        "tjern_gateway_spool_age_seconds".to_owned(),
        "tjern_gateway_upload_requests_total".to_owned(),
        "tjern_gateway_healthy".to_owned(),
    ] {
        assert!(samples.get(&name).is_some_and(|value| *value >= 0.0), "no {name} in {samples:?}");
    }
    let states = ["unknown", "healthy", "suspect", "down"];
    let state = |state: &str| samples[&format!("tjern_gateway_device_state{device},state=\"{state}\"}}")];
    assert_eq!(states.map(state), [0.0, 1.0, 0.0, 0.0]);
    stop.cancel();
}

/// What a device does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Answers,
    /// With exception 4.
    Refuses,
    /// With two registers where one was asked for.
    Babbles,
    IsSilent,
}

/// A device that does these things with its first requests, one after the other, and answers all others; it says when it is done
/// with them.
async fn scripted(script: Vec<Deed>) -> (SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (done, is_done) = oneshot::channel();
    tokio::spawn(async move {
        let (mut script, mut done) = (script.into_iter(), Some(done));
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0_u8; 12];
            while stream.read_exact(&mut request).await.is_ok() {
                let deed = script.next().unwrap_or_else(|| {
                    done.take().map(|done| done.send(()));
                    Deed::Answers
                });
                let body: &[u8] = match deed {
                    Deed::Answers => &[1, 4, 2, 0, 11],
                    Deed::Refuses => &[1, 0x84, 4],
                    Deed::Babbles => &[1, 4, 4, 0, 11, 0, 12],
                    Deed::IsSilent => continue,
                };
                let length = u16::try_from(body.len()).expect("short").to_be_bytes();
                // Whoever asked may have gone.
                if stream.write_all(&[&request[..4], &length, body].concat()).await.is_err() {
                    break;
                }
            }
        }
    });
    (address, is_done)
}

/// Counters that nobody set, or that counted something else, passed: each was only asked to be there.
#[tokio::test]
async fn each_fault_of_a_device_is_counted_once_and_under_its_name() {
    use Deed::{Answers, Babbles, IsSilent, Refuses};
    let script = vec![
        Answers, Refuses, Answers, Refuses, Refuses, Answers, Babbles, Answers, IsSilent, Answers, IsSilent, Answers,
        Refuses, Refuses, Answers,
    ];
    let counted = |deed: Deed| script.iter().filter(|other| **other == deed).count() as f64;
    let expected = [
        ("exceptions", counted(Refuses)),
        ("broken_frames", counted(Babbles)),
        ("timeouts", counted(IsSilent)),
        ("unreachable", 0.0),
    ];
    let (place, is_done) = scripted(script).await;
    let bus = format!(
        "[[bus]]\nname = \"b\"\nkind = \"modbus-tcp\"\naddress = \"{place}\"\ntimeout = \"300ms\"\n{}{}",
        device(1),
        point("tarn/level", "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"")
    );
    let (folder, port) = (tempfile::tempdir().expect("a folder"), KeptPort::take());
    let stop = gateway(&folder, port.address(), &bus);
    soon("the end of the script", is_done).await.expect("it is played");
    let address = StatusAddress::Http(port.address().to_string());
    let body = get_within(PATIENCE, &address, "/metrics").await.expect("it answers");
    let samples = read_metrics(&String::from_utf8(body).expect("text"));
    for (name, count) in expected {
        let series = format!("tjern_gateway_device_{name}_total{{bus=\"b\",device=\"device-1\"}}");
        assert_eq!(samples[&series], count, "{name}");
    }
    stop.cancel();
}

#[tokio::test]
async fn where_no_gateway_runs_that_is_said_with_what_to_do() {
    let nobody = SilentPort::take();
    let error = status(&StatusAddress::Http(nobody.address().to_string())).await.expect_err("nobody is there");
    assert!(
        matches!(error, ClientError::Silent { .. }) && error.to_string().contains("hint: is it running?"),
        "{error}"
    );
}

/// A meter that is switched off, a box that swallows packets, an adapter that is unplugged: each was `unknown` for
/// ever, with `/health` ok and no counter that grew.
#[tokio::test]
async fn what_cannot_be_reached_is_told() {
    let nobody = SilentPort::take();
    let refused = nobody.address();
    // A server that accepts nobody, with its queue full: a connection to it waits for ever.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let deaf = socket.listen(1).expect("it listens");
    let silent = deaf.local_addr().expect("an address");
    let _full: Vec<_> = (0..8).map(|_| tokio::spawn(TcpStream::connect(silent))).collect();
    let register = "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"";
    let modbus = |name: &str, kind: &str| {
        let sensor = format!("{name}/level");
        format!("[[bus]]\nname = \"{name}\"\n{kind}\n{}{}", device(1), point(&sensor, register))
    };
    let lines = format!(
        "[[bus]]\nname = \"lines\"\nkind = \"text-lines\"\naddress = \"{refused}\"\n[[bus.device]]\nname = \"device-1\"\n{}",
        point("lines/level", "column = 1\nevery = \"100ms\"")
    );
    let buses = [
        modbus("off", &format!("kind = \"modbus-tcp\"\naddress = \"{refused}\"")),
        modbus("silent", &format!("kind = \"modbus-tcp\"\naddress = \"{silent}\"\ntimeout = \"100ms\"")),
        modbus("unplugged", "kind = \"modbus-rtu\"\nport = \"/dev/serial/by-id/not-there\"\nbaud = 9600"),
        modbus("converter", &format!("kind = \"modbus-rtu-tcp\"\naddress = \"{refused}\"\nbaud = 9600")),
        lines,
    ];
    let (folder, port) = (tempfile::tempdir().expect("a folder"), KeptPort::take());
    let stop = gateway(&folder, port.address(), &buses.concat());
    let address = StatusAddress::Http(port.address().to_string());
    let names = ["off", "silent", "unplugged", "converter", "lines"];
    let told = soon("every bus is told", async {
        let mut looks = interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let Ok(status) = status(&address).await else { continue };
            if status.buses.iter().all(|bus| bus.devices[0].state == "down") {
                return status;
            }
        }
    })
    .await;
    for (name, bus) in names.iter().zip(&told.buses) {
        assert_eq!((bus.name.as_str(), bus.line_up), (*name, Some(false)));
        assert!(bus.devices[0].unreachable > 0, "{bus:?}");
        let warning = format!("bus `{name}` is not reachable: ");
        assert!(told.health.details.iter().any(|detail| detail.starts_with(&warning)), "{:?}", told.health);
    }
    assert_eq!((told.health.state, told.health.details.len()), (HealthState::Warning, names.len()));
    let body = get_within(PATIENCE, &address, "/metrics").await.expect("it answers");
    let samples = read_metrics(&String::from_utf8(body).expect("text"));
    for name in names {
        assert_eq!(samples[&format!("tjern_gateway_line_up{{bus=\"{name}\"}}")], 0.0);
        let labels = format!("{{bus=\"{name}\",device=\"device-1\"}}");
        assert!(samples[&format!("tjern_gateway_device_unreachable_total{labels}")] > 0.0, "{name}");
    }
    stop.cancel();
}

/// A wire that damages lines, or a device that writes others than it did: it was counted and shown nowhere.
#[tokio::test]
async fn what_is_wrong_with_text_lines_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = listener.local_addr().expect("an address");
    let text = format!(
        "[[bus]]\nname = \"mast\"\nkind = \"text-lines\"\naddress = \"{place}\"\n[[bus.device]]\nname = \"mast\"\n{}",
        point("mast/wind", "sentence = \"MWV\"\nfield = 3\nevery = \"100ms\"")
    );
    let (folder, port) = (tempfile::tempdir().expect("a folder"), KeptPort::take());
    let stop = gateway(&folder, port.address(), &text);
    let (mut logger, _) = soon("the gateway connects", listener.accept()).await.expect("a connection");
    let lines = b"$WIMWV,214.8,R,4.5,M,A*00\r\n$WIXDR,C,1,C,x*5A\r\nnonsense\r\n";
    logger.write_all(lines).await.expect("it listens");
    let address = StatusAddress::Http(port.address().to_string());
    let counts = soon("three lines", async {
        let mut looks = interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let Ok(status) = status(&address).await else { continue };
            if let Some(lines) = status.buses[0].lines.filter(|lines| lines.lines == 3) {
                assert!(
                    tjern_gateway::watch::table(&status, Size::UNBOUNDED).contains("lines on mast: 3  1 bad checksum")
                );
                return lines;
            }
        }
    })
    .await;
    assert_eq!((counts.bad_checksums, counts.unwanted), (1, 2), "{counts:?}");
    let body = get_within(PATIENCE, &address, "/metrics").await.expect("it answers");
    let samples = read_metrics(&String::from_utf8(body).expect("text"));
    for (kind, count) in [("whole", 3.0), ("bad_checksum", 1.0), ("unwanted", 2.0), ("dropped", 0.0)] {
        assert_eq!(samples[&format!("tjern_gateway_lines_total{{bus=\"mast\",kind=\"{kind}\"}}")], count, "{kind}");
    }
    assert_eq!(samples["tjern_gateway_line_up{bus=\"mast\"}"], 1.0);
    stop.cancel();
}

/// A gateway with these buses that tells how it is at an address; what ends it.
fn gateway(folder: &tempfile::TempDir, listen: SocketAddr, buses: &str) -> CancellationToken {
    let text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"memory:///\"\n[spool]\ndir = \"{}/spool\"\n[upload]\nevery = \"200ms\"\n\
        [status]\nlisten = \"{listen}\"\n{buses}",
        folder.path().display(),
    );
    let config = Config::parse(&ConfigText::new("test.toml", text)).unwrap_or_else(|error| panic!("{error}"));
    let stop = CancellationToken::new();
    tokio::spawn(run(config, RunOptions { clock: Clock::system(), stop: stop.clone(), store: None }));
    stop
}

/// Reads OpenMetrics text as strictly as its specification has it, as far as gauges and counters go.
fn read_metrics(text: &str) -> HashMap<String, f64> {
    let (mut samples, mut families, mut current) = (HashMap::new(), HashSet::new(), None);
    let text = text.strip_suffix("# EOF\n").expect("it ends with its mark");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.split_once(' ').is_some_and(|(_, help)| !help.is_empty()), "{line}");
            current = None;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(families.insert(name.to_owned()), "{name} is there twice");
            assert!(["gauge", "counter"].contains(&kind) && name.starts_with("tjern_gateway_"), "{line}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            current = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (family, kind) = current.as_ref().expect("a type comes first");
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let expected = if kind == "counter" { format!("{family}_total") } else { family.clone() };
            assert_eq!(name, expected, "{line}");
            let labels = series[name.len()..].strip_prefix('{').map(|labels| labels.strip_suffix('}').expect("closed"));
            read_labels(labels);
            let value = value.parse().unwrap_or_else(|_| panic!("{line}: no number"));
            assert_eq!(samples.insert(series.to_owned(), value), None, "{series} is there twice");
        }
    }
    samples
}

/// `name="value",name="value"`, where a quote in a value stands behind a backslash.
fn read_labels(labels: Option<&str>) {
    let mut rest = labels.unwrap_or_default();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").expect("a label");
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{rest}");
        let mut escaped = false;
        let end = value.find(|character| {
            let is_end = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            is_end
        });
        rest = &value[end.expect("a value ends with a quote") + 1..];
        assert!(rest.is_empty() || rest.starts_with(','), "{rest}");
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}
