//! What goes over the wire, byte by byte, seen by servers that are not the library's.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Buses, config, device, point, soon};
use tjern_readings::reading::Cause;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Mutex, mpsc};
use tokio_serial::{SerialPort, SerialStream};

/// How a server answers: the bytes after the header's length field, from unit and PDU.
type Answer = fn(unit: u8, pdu: &[u8]) -> Option<Vec<u8>>;

/// A Modbus TCP server that tells every request it gets.
async fn server(answer: Answer) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (requests, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let requests = requests.clone();
            tokio::spawn(async move {
                let mut header = [0_u8; 7];
                while stream.read_exact(&mut header).await.is_ok() {
                    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
                    let mut pdu = vec![0; length - 1];
                    stream.read_exact(&mut pdu).await.expect("the rest of the request");
                    let reply = answer(header[6], &pdu);
                    requests.send(pdu).expect("the test listens");
                    if let Some(body) = reply {
                        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
                        let frame = [&header[..4], &length, &body].concat();
                        stream.write_all(&frame).await.expect("the gateway listens");
                    }
                }
            });
        }
    });
    (address, received)
}

fn bus(address: std::net::SocketAddr) -> String {
    let every = "every = \"100ms\"";
    let points = [
        point("wire/coil", &format!("register = \"coil:1\"\ntype = \"bool\"\n{every}")),
        point("wire/discrete", &format!("register = \"discrete:2\"\ntype = \"bool\"\n{every}")),
        point("wire/holding", &format!("register = \"holding:3\"\ntype = \"u32\"\n{every}")),
        point("wire/input", &format!("register = \"input:4\"\ntype = \"i64\"\n{every}")),
        point("wire/near", &format!("register = \"input:9\"\ntype = \"u16\"\n{every}")),
    ];
    format!(
        "[[bus]]\nname = \"wire\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\ntimeout = \"50ms\"\n{}{}",
        device(1),
        points.concat()
    )
}

/// Whatever a device answers, nothing that could change it is ever sent.
#[tokio::test]
async fn only_the_four_reads_are_ever_sent() {
    let answers: [Answer; 4] = [
        |_, _| None,
        |unit, pdu| Some(vec![unit, pdu[0] | 0x80, 2]),
        |unit, _| Some(vec![unit, 0x10, 0, 0, 0, 1]),
        |_, _| Some(vec![0xff; 40]),
    ];
    for answer in answers {
        let (address, mut requests) = server(answer).await;
        let buses = Buses::start(&config(&bus(address)));
        for _ in 0..5 {
            let pdu = soon("a request", requests.recv()).await.expect("the server runs");
            assert!((1..=4).contains(&pdu[0]), "function {}", pdu[0]);
            assert_eq!(pdu.len(), 5, "a read has an address and a count");
        }
        buses.end().await;
    }
}

#[tokio::test]
async fn an_answer_with_too_few_registers_is_no_value() {
    let (address, _requests) = server(|unit, pdu| Some(vec![unit, pdu[0], 2, 0, 7])).await;
    let body = "register = \"input:4\"\ntype = \"u32\"\nevery = \"100ms\"";
    let text = format!(
        "[[bus]]\nname = \"wire\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{}{}",
        device(1),
        point("wire/input", body)
    );
    let mut buses = Buses::start(&config(&text));
    let reading = buses.first("a reading", |_| true).await;
    assert_eq!((reading.cause, reading.value), (Some(Cause::Malformed), None));
    buses.end().await;
}

#[tokio::test]
async fn an_answer_to_another_request_is_no_value() {
    // Unit 9 answers where unit 1 was asked.
    let (address, _requests) = server(|_, pdu| Some(vec![9, pdu[0], 2, 0, 7])).await;
    let body = "register = \"input:4\"\ntype = \"u16\"\nevery = \"100ms\"";
    let text = format!(
        "[[bus]]\nname = \"wire\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{}{}",
        device(1),
        point("wire/input", body)
    );
    let mut buses = Buses::start(&config(&text));
    let reading = buses.first("a reading", |_| true).await;
    assert_eq!((reading.cause, reading.value), (Some(Cause::Malformed), None));
    buses.end().await;
}

fn one_point(address: std::net::SocketAddr, every: &str) -> String {
    let body = format!("register = \"input:4\"\ntype = \"u16\"\nevery = \"{every}\"");
    format!(
        "[[bus]]\nname = \"wire\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\ndown_report = \"1ms\"\n{}{}",
        device(1),
        point("wire/input", &body)
    )
}

#[tokio::test]
async fn bytes_that_make_no_sense_are_malformed_and_not_an_absent_device() {
    let answers: [Answer; 4] = [
        // Says four bytes, has two; says three; says nothing; an exception without its code.
        |unit, pdu| Some(vec![unit, pdu[0], 4, 0, 7]),
        |unit, pdu| Some(vec![unit, pdu[0], 3, 0, 7, 0]),
        |unit, pdu| Some(vec![unit, pdu[0]]),
        |unit, pdu| Some(vec![unit, pdu[0] | 0x80]),
    ];
    for (index, answer) in answers.into_iter().enumerate() {
        let (address, _requests) = server(answer).await;
        let mut buses = Buses::start(&config(&one_point(address, "100ms")));
        let reading = buses.first("a reading", |_| true).await;
        assert_eq!((reading.cause, reading.value), (Some(Cause::Malformed), None), "answer {index}");
        buses.end().await;
    }
}

/// What was asked in vain may still be answered: the next request waits until that is over.
#[tokio::test]
async fn a_silent_server_is_left_alone_for_one_more_timeout() {
    let (address, mut requests) = server(|_, _| None).await;
    let text = one_point(address, "10ms").replace("down_report", "timeout = \"200ms\"\ndown_report");
    let buses = Buses::start(&config(&text));
    let mut asked = Vec::new();
    for _ in 0..3 {
        soon("a request", requests.recv()).await.expect("the server runs");
        asked.push(Instant::now());
    }
    // Two timeouts and two pauses; one timeout is left for a machine that looks late.
    let took = asked[2] - asked[0];
    assert!(took >= Duration::from_millis(600), "three requests in {took:?}");
    buses.end().await;
}

/// A server that accepts and closes was once connected to at every slot.
#[tokio::test]
async fn a_server_that_accepts_and_closes_is_not_hammered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut buses = Buses::start(&config(&one_point(address, "10ms")));
    for _ in 0..100 {
        let reading = buses.next().await;
        assert_eq!((reading.cause, reading.value), (Some(Cause::Unreachable), None));
    }
    let accepted = accepted.load(Ordering::Relaxed);
    assert!((1..=20).contains(&accepted), "{accepted} connections in 100 slots");
    buses.end().await;
}

/// So many requests go well at a converter before it stalls.
const BEFORE_STALL: usize = 4;

/// A converter from TCP to a serial line: requests of all connections wait in one queue, and each
/// answer goes to the newest connection, with the id that its request came with. Its first connection
/// ends after a while; then it holds what it is asked until it was asked for two registers.
async fn converter() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (requests, received) = mpsc::unbounded_channel::<[u8; 12]>();
    let newest = Arc::new(Mutex::new(None));
    tokio::spawn(answer_in_order(received, Arc::clone(&newest)));
    tokio::spawn(async move {
        let mut limit = BEFORE_STALL;
        while let Ok((stream, _)) = listener.accept().await {
            let (mut reads, writes) = stream.into_split();
            *newest.lock().await = Some(writes);
            let requests = requests.clone();
            tokio::spawn(async move {
                let mut request = [0_u8; 12];
                for _ in 0..limit {
                    if reads.read_exact(&mut request).await.is_err() || requests.send(request).is_err() {
                        break;
                    }
                }
            });
            limit = usize::MAX;
        }
    });
    address
}

async fn answer_in_order(mut received: mpsc::UnboundedReceiver<[u8; 12]>, newest: Arc<Mutex<Option<OwnedWriteHalf>>>) {
    let (mut served, mut held, mut stalls) = (0, Vec::<[u8; 12]>::new(), true);
    while let Some(request) = received.recv().await {
        held.push(request);
        stalls &= held.iter().all(|earlier| earlier[8..10] == request[8..10]) || served < BEFORE_STALL;
        if stalls && served >= BEFORE_STALL {
            continue;
        }
        let mut stream = newest.lock().await;
        for request in held.drain(..) {
            // The register at each address holds the address.
            let answer = [&request[..4], &[0, 5, request[6], request[7], 2], &request[8..10]].concat();
            if let Some(stream) = &mut *stream {
                // The connection may be gone already: then its answer is too.
                let _ = stream.write_all(&answer).await;
            }
            served += 1;
        }
        if served == BEFORE_STALL {
            *stream = None;
        }
    }
}

/// The late answer to a connection's request 0 once became that of the next connection's request 0.
#[tokio::test]
async fn a_converters_late_answer_never_becomes_another_registers_value() {
    let address = converter().await;
    let body = |register| format!("register = \"input:{register}\"\ntype = \"u16\"\nevery = \"100ms\"");
    let text = format!(
        "[[bus]]\nname = \"wire\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\ntimeout = \"50ms\"\ndown_report = \"1ms\"\n{}{}{}",
        // Two requests, as it was: near enough, they would share one.
        device(1) + "max_registers = 1\n",
        point("wire/eleven", &body(11)),
        point("wire/hundred", &body(100))
    );
    let mut buses = Buses::start(&config(&text));
    let (mut elevens, mut hundreds) = (0, 0);
    while elevens < 5 || hundreds < 5 {
        let reading = buses.next().await;
        match (reading.value, reading.sensor.as_str()) {
            (None, _) => {}
            (Some(value), "wire/eleven") => {
                assert_eq!(value, 11.0);
                elevens += 1;
            }
            (Some(value), _) => {
                assert_eq!(value, 100.0);
                hundreds += 1;
            }
        }
    }
    buses.end().await;
}

/// A device on a pseudo terminal that answers each request with these bytes.
fn rtu_device(answer: fn(&[u8]) -> Vec<u8>) -> (String, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    let (requests, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut request = [0_u8; 8];
        while ours.read_exact(&mut request).await.is_ok() {
            let reply = answer(&request);
            if requests.send(request.to_vec()).is_err() || ours.write_all(&reply).await.is_err() {
                break;
            }
        }
        drop(theirs);
    });
    (port, received)
}

fn rtu_bus(port: &str) -> String {
    let body = "register = \"holding:4\"\ntype = \"u16\"\nevery = \"200ms\"";
    let point = point("wire/holding", body);
    format!(
        "[[bus]]\nname = \"wire\"\nkind = \"modbus-rtu\"\nport = \"{port}\"\ntimeout = \"50ms\"\n{}{point}",
        device(1)
    )
}

/// CRC-16/MODBUS, from its definition: polynomial 0xA001, reflected, from 0xFFFF.
fn crc(bytes: &[u8]) -> [u8; 2] {
    let step = |crc: u16| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 };
    bytes.iter().fold(0xFFFF_u16, |crc, byte| (0..8).fold(crc ^ u16::from(*byte), |crc, _| step(crc))).to_le_bytes()
}

#[tokio::test]
async fn an_rtu_request_is_as_the_specification_has_it_and_so_is_its_answer() {
    let (port, mut requests) = rtu_device(|request| {
        // Register 4 holds 4; the probe after a failure may ask for more.
        let count = u16::from_be_bytes([request[4], request[5]]);
        let words = (0..count).flat_map(|index| (index + 4).to_be_bytes());
        let frame: Vec<u8> = [1, 3, u8::try_from(count * 2).expect("small")].into_iter().chain(words).collect();
        let crc = crc(&frame);
        [&frame[..], &crc].concat()
    });
    let mut buses = Buses::start(&config(&rtu_bus(&port)));
    // Of a line that it does not know the gateway first asks something else: see decision 28.
    for count in [19, 1] {
        let request = soon("a request", requests.recv()).await.expect("the device runs");
        assert_eq!(request[..6], [1, 3, 0, 4, 0, count]);
        assert_eq!(request[6..], crc(&request[..6]));
    }
    let reading = buses.first("a value", |reading| reading.value.is_some()).await;
    assert_eq!(reading.value, Some(4.0));
    buses.end().await;
}

#[tokio::test]
async fn a_damaged_rtu_answer_is_no_value_and_says_so() {
    let (port, mut requests) = rtu_device(|_| vec![1, 3, 2, 0, 7, 0xAA, 0xAA]);
    let mut buses = Buses::start(&config(&rtu_bus(&port)));
    let reading = buses.first("a reading", |_| true).await;
    assert_eq!((reading.cause, reading.value), (Some(Cause::Crc), None));
    for _ in 0..3 {
        let request = soon("a request", requests.recv()).await.expect("the device runs");
        assert_eq!(
            (request[1], &request[6..]),
            (3, &crc(&request[..6])[..]),
            "damage does not make the gateway send anything else"
        );
    }
    buses.end().await;
}
