//! Devices on pseudo terminals and behind servers, that answer late, twice, in pieces, or talk over others.

use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_serial::{SerialPort, SerialStream};

use super::super::frame::crc;
use super::super::transport::Table;
use super::waiting::no_answer;
use super::*;
use crate::config::{Connection, Parity, ReadLimits, Serial};
use crate::modbus::ReadMap;
use crate::modbus::faults::{Dial, set_hardware};
use crate::modbus::ioctl::LineErrors;

#[path = "tests/copies.rs"]
mod copies;

const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

fn serial(port: &str, baud: u32) -> Serial {
    Serial { port: port.into(), baud, data_bits: 8, parity: Parity::None, stop_bits: 1, rs485: None }
}

fn master_at(port: &str, baud: u32, manners: Manners) -> RtuMaster {
    RtuMaster::new(RtuPlace::Port(serial(port, baud)), manners).on_a_fresh_line()
}

fn manners() -> Manners {
    Manners::patient_for(Duration::from_millis(60))
}

fn framed(body: &[u8]) -> Vec<u8> {
    [body, &crc(body).to_le_bytes()].concat()
}

/// The answer of a device whose registers hold their addresses, and whose bits are those of them.
fn truth(request: &[u8]) -> Vec<u8> {
    let word = |index| u16::from_be_bytes([request[index], request[index + 1]]);
    let (address, count) = (word(2), word(4));
    let data: Vec<u8> = if request[1] <= 2 {
        (0..count.div_ceil(8)).map(|index| (address + index).to_le_bytes()[0]).collect()
    } else {
        (0..count).flat_map(|index| (address + index).to_be_bytes()).collect()
    };
    framed(&[&[request[0], request[1], u8::try_from(data.len()).expect("short")], &data[..]].concat())
}

fn words(address: u16, count: u16) -> (ReadRequest, Answer) {
    let request = ReadRequest::new(Table::Holding, address, count).expect("within");
    (request, Answer::Registers((address..address + count).collect()))
}

/// A device on a pseudo terminal; for each request it writes these pieces.
fn device(mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> String {
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    tokio::spawn(async move {
        let mut request = [0_u8; 8];
        while ours.read_exact(&mut request).await.is_ok() {
            for piece in answer(&request) {
                ours.write_all(&piece).await.expect("room");
                tokio::task::yield_now().await;
            }
        }
        drop(theirs);
    });
    port
}

/// A device that answers each request when it gets the next one.
fn one_behind() -> String {
    let mut last = Vec::new();
    device(move |request| vec![std::mem::replace(&mut last, truth(request))])
}

async fn wrong_values(master: &mut RtuMaster) -> usize {
    let mut wrong = 0;
    for turn in 0..6 {
        let (request, expected) = words(if turn % 2 == 0 { 11 } else { 100 }, 1);
        wrong += usize::from(master.read(1, request).await.is_ok_and(|answer| answer != expected));
    }
    wrong
}

/// A device answers the first question after the time that it has for it: the gateway was told to read its configuration
/// again meanwhile, or was started again. The answer to the question before was taken for the next one's.
#[tokio::test]
async fn what_was_asked_before_the_start_is_no_answer_to_what_is_asked_after_it() {
    for is_careless in [false, true] {
        let (mut asked, mut late) = (0, Vec::new());
        let port = device(move |request| {
            asked += 1;
            match asked {
                1 => {
                    late = truth(request);
                    vec![]
                }
                // It comes when the next question is there.
                _ => vec![std::mem::take(&mut late), truth(request)],
            }
        });
        let before = master_at(&port, 115_200, manners()).read(1, words(11, 1).0).await;
        assert_eq!(before.expect_err("not in time").cause, Cause::Timeout);
        let mut master = RtuMaster::new(RtuPlace::Port(serial(&port, 115_200)), manners());
        if is_careless {
            master = master.on_a_fresh_line();
            // Both come at once: neither would be believed.
            master.careless.believes_any = true;
        }
        let (request, expected) = words(100, 1);
        let answer = master.read(1, request).await.expect("an answer");
        assert_eq!(answer == expected, !is_careless, "{answer:?}");
    }
}

/// The thread of the master before had the port for as long as its order took: whoever came next could not open it, and a bus
/// that begins anew lost its first slots.
#[tokio::test]
async fn a_port_is_free_with_the_end_of_its_master_whatever_its_thread_is_at() {
    let port = device(|request| vec![truth(request)]);
    let (request, expected) = words(11, 1);
    let gaps = HashMap::from([(1, PATIENCE)]);
    let mut before = master_at(&port, 115_200, Manners { gaps, ..manners() });
    // The thread sleeps until the unit has been left alone for long enough.
    let given_up = tokio::time::timeout(Duration::from_millis(20), before.read(1, request)).await;
    assert!(given_up.is_err(), "{given_up:?}");
    drop(before);
    let mut after = master_at(&port, 115_200, Manners::patient_for(PATIENCE));
    assert_eq!(soon("an answer", after.read(1, request)).await, Ok(expected));
}

/// Every answer of such a device is the one to the request before: an hour of it once was an hour of wrong
/// values. Without the probe it still would be, which shows that this test would notice.
#[tokio::test]
async fn a_late_answer_never_becomes_a_value() {
    let mut master = master_at(&one_behind(), 115_200, manners());
    assert_eq!(wrong_values(&mut master).await, 0);
    let mut canary = master_at(&one_behind(), 115_200, manners());
    canary.owed.careless = true;
    assert!(wrong_values(&mut canary).await > 0, "a master that does not probe takes late answers");
}

#[tokio::test]
async fn a_device_that_answers_in_time_again_is_believed_after_one_probe() {
    let silent = Arc::new(AtomicBool::new(true));
    let is_silent = Arc::clone(&silent);
    let port = device(move |request| if is_silent.load(Ordering::Relaxed) { vec![] } else { vec![truth(request)] });
    let mut master = master_at(&port, 115_200, manners());
    let (request, expected) = words(11, 2);
    assert_eq!(master.read(1, request).await.expect_err("nobody answers").cause, Cause::Timeout);
    silent.store(false, Ordering::Relaxed);
    assert_eq!(master.read(1, request).await, Ok(expected));
    assert_eq!(master.owed.count(1, Table::Holding), 0);
}

/// What a bus asks of a unit that has this configured.
fn mapped(limits: ReadLimits, spans: &[(u16, u16)]) -> Manners {
    let spans = spans.iter().map(|(address, width)| (Table::Holding, *address, *width)).collect();
    Manners { maps: HashMap::from([(1, ReadMap::of_spans(limits, spans))]), ..manners() }
}

/// First address and count of each request.
type Reads = Arc<Mutex<Vec<(u16, u16)>>>;

/// A device that has registers 0 to 7 and is silent where it is asked for another; while it is away, to all.
fn deaf(away: &Arc<AtomicBool>) -> (String, Reads) {
    let (away, asked) = (Arc::clone(away), Arc::new(Mutex::new(Vec::new())));
    let told = Arc::clone(&asked);
    let port = device(move |request| {
        let word = |index| u16::from_be_bytes([request[index], request[index + 1]]);
        told.lock().expect("no panic").push((word(2), word(4)));
        let has = u32::from(word(2)) + u32::from(word(4)) <= 8;
        if has && !away.load(Ordering::Relaxed) { vec![truth(request)] } else { vec![] }
    });
    (port, asked)
}

/// Such a sensor was down from each start on, for ever: the probe of 19 registers goes past its map, is not answered, and
/// no other request came after it.
#[tokio::test]
async fn a_device_that_is_silent_outside_its_map_is_polled_after_a_start() {
    let (any, eight) = (ReadLimits::default(), ReadLimits { max_registers: 8, ..ReadLimits::default() });
    let careful = ReadLimits { max_hole: Some(0), ..any };
    let whole: Vec<(u16, u16)> = (0..8).map(|address| (address, 1)).collect();
    // Its configuration, what is read, and after how many reads and requests the value is there.
    let cases = [
        (manners(), words(0, 8), 3, 5),
        (mapped(any, &whole), words(0, 8), 1, 3),
        (mapped(eight, &whole), words(0, 8), 1, 3),
        (mapped(eight, &[(0, 8)]), words(0, 8), 1, 3),
        (mapped(eight, &[(0, 1)]), words(0, 1), 1, 3),
        (mapped(any, &[(0, 1)]), words(0, 1), 3, 5),
        (mapped(careful, &[(0, 1)]), words(0, 1), 1, 2),
    ];
    for (index, (manners, (request, expected), reads, requests)) in cases.into_iter().enumerate() {
        let (port, asked) = deaf(&Arc::new(AtomicBool::new(false)));
        let mut master = RtuMaster::new(RtuPlace::Port(serial(&port, 115_200)), manners);
        for _ in 1..reads {
            let failure = master.read(1, request).await.expect_err("it hears no such probe");
            assert_eq!(failure.cause, Cause::Timeout, "case {index}");
        }
        assert_eq!(master.read(1, request).await, Ok(expected.clone()), "case {index}");
        let told = asked.lock().expect("no panic").clone();
        assert_eq!(told.len(), requests, "case {index}: {told:?}");
        assert_eq!(master.read(1, request).await, Ok(expected), "case {index}");
        assert_eq!(asked.lock().expect("no panic").len(), requests + 1, "case {index}: as any other from now on");
    }
}

/// While it was away, probes of sixteen lengths were asked in turn: it was believed when one came that it answers.
#[tokio::test]
async fn a_device_that_is_silent_outside_its_map_is_believed_as_soon_as_it_is_back() {
    for manners in [manners(), mapped(ReadLimits { max_hole: Some(0), ..ReadLimits::default() }, &[(6, 2)])] {
        let away = Arc::new(AtomicBool::new(false));
        let (port, _) = deaf(&away);
        let mut master = master_at(&port, 115_200, manners);
        let (request, expected) = words(6, 2);
        assert_eq!(master.read(1, request).await, Ok(expected.clone()));
        for deaths in [1, 9] {
            away.store(true, Ordering::Relaxed);
            for _ in 0..deaths {
                assert_eq!(master.read(1, request).await.expect_err("away").cause, Cause::Timeout);
            }
            away.store(false, Ordering::Relaxed);
            assert_eq!(master.read(1, request).await, Ok(expected.clone()), "after {deaths}");
        }
    }
}

/// An answer that is late by more than all that is waited for: the request itself is asked at last, and it comes then.
#[tokio::test]
async fn what_comes_when_a_deaf_device_is_knocked_at_is_no_value() {
    for is_hasty in [false, true] {
        let mut asked = 0;
        let port = device(move |request| {
            asked += 1;
            let is_own = u16::from_be_bytes([request[4], request[5]]) == 1;
            match (asked, is_own) {
                // What somebody asked of register 11, and the answer to this when its time is over.
                (3, true) => vec![framed(&[1, 3, 2, 0, 11])],
                (4, false) => vec![framed(&[1, 3, 2, 0, 100])],
                (_, true) => vec![truth(request)],
                (_, false) => vec![],
            }
        });
        let mut master = RtuMaster::new(RtuPlace::Port(serial(&port, 115_200)), manners());
        master.careless.hasty = is_hasty;
        let (request, expected) = words(100, 1);
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.extend(master.read(1, request).await);
        }
        assert_eq!(answers.iter().any(|answer| *answer != expected), is_hasty, "{answers:?}");
        assert!(answers.contains(&expected), "it is believed in the end");
    }
}

/// A register that nobody has damages the next answer: where the configuration says that no hole is read over, no probe does.
#[tokio::test]
async fn no_probe_reads_over_a_hole_that_the_configuration_forbids() {
    let is_silent = Arc::new(AtomicBool::new(true));
    let (silent, points) = (Arc::clone(&is_silent), [(0_u16, 2_u16), (4, 1), (9, 2)]);
    let holes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&holes);
    let port = device(move |request| {
        let word = |index| u16::from_be_bytes([request[index], request[index + 1]]);
        let is_there = |place: u16| points.iter().any(|(first, width)| (*first..first + width).contains(&place));
        if !(word(2)..word(2) + word(4)).all(is_there) {
            told.lock().expect("no panic").push((word(2), word(4)));
        }
        if silent.load(Ordering::Relaxed) { vec![] } else { vec![truth(request)] }
    });
    let limits = ReadLimits { max_hole: Some(0), ..ReadLimits::default() };
    let mut master = RtuMaster::new(RtuPlace::Port(serial(&port, 115_200)), mapped(limits, &points));
    for _ in 0..6 {
        for (address, width) in points {
            assert_eq!(master.read(1, words(address, width).0).await.expect_err("silent").cause, Cause::Timeout);
        }
    }
    is_silent.store(false, Ordering::Relaxed);
    for (address, width) in points {
        let (request, expected) = words(address, width);
        assert_eq!(master.read(1, request).await, Ok(expected));
    }
    assert_eq!(*holes.lock().expect("no panic"), []);
}

/// A device with a short map refuses the probes, which grow with each time that it did not answer. It was taken for
/// down for minutes after it was back, though it answered every request.
#[tokio::test]
async fn a_device_with_a_short_map_is_believed_as_soon_as_it_is_back() {
    let silent = Arc::new(AtomicBool::new(true));
    let is_silent = Arc::clone(&silent);
    let port = device(move |request| match u16::from_be_bytes([request[4], request[5]]) {
        _ if is_silent.load(Ordering::Relaxed) => vec![],
        1..=2 => vec![truth(request)],
        _ => vec![framed(&[request[0], request[1] | 0x80, 2])],
    });
    let mut master = master_at(&port, 115_200, manners());
    let (request, expected) = words(11, 2);
    for _ in 0..9 {
        assert_eq!(master.read(1, request).await.expect_err("nobody answers").cause, Cause::Timeout);
    }
    silent.store(false, Ordering::Relaxed);
    assert_eq!(master.read(1, request).await, Ok(expected));
}

/// The owed answer may be an exception too: one that comes early must not be taken for the probe's own, with the
/// next value still on its way.
#[tokio::test]
async fn a_late_exception_does_not_open_the_door_for_a_late_value() {
    let mut owed: VecDeque<Vec<u8>> = VecDeque::new();
    let mut seen = 0;
    let port = device(move |request| {
        seen += 1;
        owed.push_back(if seen == 1 { framed(&[1, 0x83, 11]) } else { truth(request) });
        // Two requests behind.
        if seen > 2 { owed.pop_front().into_iter().collect() } else { vec![] }
    });
    let mut master = master_at(&port, 115_200, manners());
    for turn in 0..8 {
        let (request, expected) = words(if turn % 2 == 0 { 11 } else { 100 }, 1);
        if let Ok(answer) = master.read(1, request).await {
            assert_eq!(answer, expected, "turn {turn}");
        }
    }
}

/// After the first request it talks for a while, a byte at a time. Whether somebody talked over it.
fn babbler(bytes: usize) -> (String, mpsc::UnboundedReceiver<bool>) {
    const SHORT: Duration = Duration::from_millis(60);
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    let (told, result) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        ours.read_exact(&mut [0; 8]).await.expect("a request");
        let (mut last, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(5)));
        let mut talked_over = false;
        for _ in 0..bytes {
            ticks.tick().await;
            if ours.try_read(&mut [0; 8]).is_ok() {
                talked_over |= last.elapsed() < SHORT;
            }
            ours.write_all(&[0xFF]).await.expect("room");
            last = Instant::now();
        }
        told.send(talked_over).expect("the test listens");
        ours.read_exact(&mut [0; 8]).await.expect("the next request");
        drop(theirs);
    });
    (port, result)
}

/// On RS-485, who sends while another talks destroys both. At 300 baud the silence is 128 ms.
#[tokio::test]
async fn nobody_is_talked_over() {
    for is_careless in [false, true] {
        let (port, mut talked_over) = babbler(300);
        let mut master = master_at(&port, 300, manners());
        master.careless.no_drain = is_careless;
        let (request, _) = words(11, 1);
        let reads = async {
            loop {
                let failure = master.read(1, request).await.expect_err("nothing answers");
                assert_ne!(failure.cause, Cause::Exception2);
            }
        };
        tokio::select! {
            result = soon("the end of the talk", talked_over.recv()) => assert_eq!(result, Some(is_careless)),
            () = reads => unreachable!(),
        }
    }
}

/// Another master's line, or one without termination: it was told as a port that is gone, opened again and again, and what
/// came was not counted.
#[tokio::test(start_paused = true)]
async fn a_line_that_never_falls_silent_is_told_as_that() {
    let (dial, mut line) = Dial::to_a_story();
    let mut master = master_at("in memory", 9_600, manners());
    master.dial = Some(dial);
    let story = tokio::spawn(async move {
        let mut far = line.recv().await.expect("it is opened");
        for _ in 0..400 {
            far.write(&[0xFF]).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let request: [u8; 8] = far.read().await;
        far.write(&truth(&request)).await;
        assert!(line.try_recv().is_err(), "the line is there, and opened once");
        far
    });
    let (request, expected) = words(11, 1);
    let mut babbles = 0;
    let answer = loop {
        match master.read(1, request).await {
            Ok(answer) => break answer,
            Err(failure) => {
                assert_eq!((failure.is_babble(), failure.is_of_line()), (true, true), "{failure}");
                // No device was asked, so that none is late (`timeout`), and none answered wrongly (`crc`).
                assert_eq!(failure.cause, Cause::Unreachable);
                let text = failure.to_string();
                assert!(
                    text.contains("never falls silent") && text.contains("termination") && !text.contains("gone"),
                    "{text}"
                );
                babbles += 1;
            }
        }
    };
    assert_eq!(answer, expected);
    story.await.expect("no panic");
    let counts = master.stats().counts();
    assert!(babbles >= 3 && counts.never_silent == babbles, "{babbles}: {counts:?}");
    assert!((300..=400).contains(&counts.noise), "{counts:?}");
}

#[tokio::test]
async fn the_silence_and_a_devices_gap_are_kept() {
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    let (told, mut gaps) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut request, mut answered) = ([0; 8], None::<Instant>);
        while ours.read_exact(&mut request).await.is_ok() {
            if let Some(answered) = answered {
                told.send((request[0], answered.elapsed())).expect("the test listens");
            }
            answered = Some(Instant::now());
            ours.write_all(&truth(&request)).await.expect("room");
        }
        drop(theirs);
    });
    let gap = Duration::from_millis(40);
    let mut master = master_at(&port, 300, Manners { gaps: HashMap::from([(2, gap * 5)]), ..manners() });
    let (request, expected) = words(3, 1);
    let silence = Duration::from_micros(Line::rtu(300).silence_us());
    for unit in [1, 1, 2, 1] {
        assert_eq!(master.read(unit, request).await, Ok(expected.clone()));
    }
    for least in [silence, gap * 5, gap * 5] {
        let (unit, got) = soon("a gap", gaps.recv()).await.expect("the device runs");
        assert!(got >= least, "unit {unit}: {got:?} and not {least:?}");
    }
}

/// A request's answer, in pieces.
type Pieces = fn(&[u8]) -> Vec<Vec<u8>>;

/// Lumps, noise, other units' answers, an echo with the shape of its own answer: the value is the device's.
#[tokio::test]
async fn what_else_is_on_the_line_is_passed_over() {
    let whole = |request: &[u8]| vec![truth(request)];
    let lumps = |request: &[u8]| truth(request).chunks(1).map(<[u8]>::to_vec).collect();
    let noise = |request: &[u8]| vec![vec![0xFF, 0], truth(request)];
    let stranger = |request: &[u8]| vec![framed(&[9, request[1], 2, 0, 7]), truth(request)];
    let shorter = |request: &[u8]| vec![framed(&[request[0], request[1], 1, 7]), truth(request)];
    let echo = |request: &[u8]| vec![request.to_vec(), truth(request)];
    let devices: [Pieces; 6] = [whole, lumps, noise, stranger, shorter, echo];
    let request = ReadRequest::new(Table::Coil, 0x0305, 24).expect("within");
    let bits: Vec<bool> = [5_u8, 6, 7].iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect();
    for (index, answer) in devices.into_iter().enumerate() {
        let mut master = master_at(&device(answer), 115_200, Manners::patient_for(PATIENCE));
        for _ in 0..2 {
            assert_eq!(master.read(1, request).await, Ok(Answer::Bits(bits.clone())), "device {index}");
        }
        let counts = master.stats().counts();
        assert_eq!((counts.opened, counts.echoes), (1, if index == 5 { 2 } else { 0 }), "device {index}");
    }
}

/// With a timeout of half a minute, damage is noticed when as many bytes as the answer has are there.
#[tokio::test]
async fn a_damaged_answer_is_not_waited_for_till_its_time_is_over() {
    let port = device(|request| {
        let mut answer = truth(request);
        answer[4] ^= 1;
        vec![answer]
    });
    let mut master = master_at(&port, 115_200, Manners::patient_for(PATIENCE * 10));
    let failure = soon("a failure", master.read(1, words(7, 4).0)).await.expect_err("damaged");
    assert_eq!(failure.cause, Cause::Crc);
}

/// A dead device costs its timeout, and not as long once more.
#[test]
fn the_drain_is_short_and_bounded() {
    let master = |timeout| master_at("/dev/null", 9_600, Manners::patient_for(timeout));
    let (one, many) = (words(0, 1).0, words(0, 125).0);
    let drains = |timeout| [one, many].map(|request| master(timeout).drain(request).as_millis());
    assert_eq!(drains(Duration::from_secs(20)), [27, 285]);
    assert_eq!(drains(Duration::from_millis(50)), [27, 50]);
}

fn open_descriptors(path: &str) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").expect("procfs").flatten();
    links.filter_map(|entry| std::fs::read_link(entry.path()).ok()).filter(|target| target.starts_with(path)).count()
}

fn plugged_in() -> (SerialStream, String) {
    let (mut ours, theirs) = SerialStream::pair().expect("a pseudo terminal");
    let port = theirs.name().expect("a name");
    ours.set_exclusive(false).expect("a lock less");
    (ours, port)
}

async fn serve(mut line: SerialStream) {
    let mut request = [0; 8];
    while line.read_exact(&mut request).await.is_ok() {
        line.write_all(&truth(&request)).await.expect("room");
    }
}

/// An adapter that is plugged in again has another name; the link in `/dev/serial/by-id` is the same.
#[tokio::test]
async fn an_unplugged_adapter_is_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("usb-adapter-port0");
    let (ours, first) = plugged_in();
    // Nobody else may hold the far end open: as with a real adapter, it is gone when it is gone.
    let keep = std::fs::File::open(&first).expect("it opens");
    symlink(&first, &link).expect("a link");
    let device = tokio::spawn(serve(ours));
    let mut master = master_at(&link.to_string_lossy(), 115_200, manners());
    let (request, expected) = words(5, 2);
    assert_eq!(master.read(1, request).await, Ok(expected.clone()));
    drop(keep);
    device.abort();
    let _ = device.await;
    std::fs::remove_file(&link).expect("removed");
    let failure = master.read(1, request).await.expect_err("unplugged");
    assert_eq!(failure.cause, Cause::Unreachable, "{failure}");
    soon("the old descriptor is closed", async {
        while open_descriptors(&first) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (ours, second) = plugged_in();
    let keep = std::fs::File::open(&second).expect("it opens");
    symlink(&second, &link).expect("a link");
    tokio::spawn(serve(ours));
    let again = soon("a value again", async {
        loop {
            match master.read(1, request).await {
                Ok(answer) => return answer,
                Err(failure) => assert!([Cause::Unreachable, Cause::Timeout].contains(&failure.cause), "{failure}"),
            }
            if let Some(until) = master.retry.until() {
                tokio::time::sleep_until(until).await;
            }
        }
    });
    assert_eq!(again.await, expected);
    assert_eq!(master.stats().counts().opened, 2);
    drop(keep);
}

/// A server that passes RTU frames on; it tells of each connection, how long after it the first byte came, and its end.
async fn converter(requests_each: usize) -> (String, mpsc::UnboundedReceiver<(usize, Duration)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (told, ends) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (accepted, mut served, mut first) = (Instant::now(), 0, Duration::ZERO);
            let mut request = [0; 8];
            while served < requests_each && stream.read_exact(&mut request).await.is_ok() {
                if served == 0 {
                    first = accepted.elapsed();
                }
                served += 1;
                for piece in truth(&request).chunks(3) {
                    stream.write_all(piece).await.expect("room");
                }
            }
            drop(stream);
            told.send((served, first)).expect("the test listens");
        }
    });
    (address, ends)
}

fn over_tcp(address: String, manners: Manners) -> RtuMaster {
    RtuMaster::new(RtuPlace::Server { address, line: Line::rtu(9_600) }, manners).on_a_fresh_line()
}

#[tokio::test]
async fn rtu_goes_over_tcp_and_a_converter_that_hangs_up_costs_nothing() {
    let (address, mut ends) = converter(2).await;
    let mut master = over_tcp(address, Manners::patient_for(PATIENCE));
    for turn in 0..6 {
        let (request, expected) = words(turn, 3);
        assert_eq!(master.read(1, request).await, Ok(expected));
    }
    drop(master);
    for _ in 0..3 {
        assert_eq!(soon("an end", ends.recv()).await.expect("it runs").0, 2);
    }
}

#[tokio::test]
async fn an_idle_connection_is_given_up_and_a_new_one_is_left_in_peace_first() {
    let (address, mut ends) = converter(100).await;
    let pause = Duration::from_millis(50);
    let connection = Connection { pause, idle_close: Some(Duration::from_millis(20)), ..Connection::default() };
    let mut master = over_tcp(address, Manners { connection, ..Manners::patient_for(PATIENCE) });
    for turn in 0..2 {
        let (request, expected) = words(turn, 3);
        assert_eq!(master.read(1, request).await, Ok(expected));
        let (served, first) = soon("the end of an idle connection", ends.recv()).await.expect("it runs");
        assert_eq!(served, 1);
        // The accepting side's clock starts a little later than ours.
        assert!(first >= pause / 2, "the first byte came {first:?} after the connection");
    }
}

/// A converter that hangs up has passed the request on: the far line's answer comes over the next connection, and that
/// to the second copy after it.
async fn hanging_up_once() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 8];
        for _ in 0..2 {
            stream.read_exact(&mut request).await.expect("a request");
            if u16::from_be_bytes([request[2], request[3]]) == 1 {
                stream.write_all(&truth(&request)).await.expect("room");
            }
        }
        drop(stream);
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut passed_on = VecDeque::from([truth(&request)]);
        while stream.read_exact(&mut request).await.is_ok() {
            passed_on.push_back(truth(&request));
            let late = passed_on.pop_front().expect("one is there");
            // As long as an answer of the same length is waited for, the one before is there in time.
            stream.write_all(&late).await.expect("room");
            if let Some(next) = passed_on.pop_front_if(|next| next.len() != late.len()) {
                stream.write_all(&next).await.expect("room");
            }
        }
    });
    address
}

#[tokio::test]
async fn what_a_converter_passed_on_before_it_hung_up_is_owed() {
    for is_careless in [false, true] {
        let mut master = over_tcp(hanging_up_once().await, manners());
        master.careless.forgets_sent = is_careless;
        let mut wrong = 0;
        for address in [1, 11, 100, 200] {
            let (request, expected) = words(address, 1);
            wrong += usize::from(master.read(1, request).await.is_ok_and(|answer| answer != expected));
        }
        assert_eq!(wrong > 0, is_careless);
    }
}

#[tokio::test]
async fn a_late_answer_over_tcp_never_becomes_a_value() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        // The far line's queue outlives a connection.
        let mut last = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8];
            while stream.read_exact(&mut request).await.is_ok() {
                let answer = std::mem::replace(&mut last, truth(&request));
                stream.write_all(&answer).await.expect("room");
            }
        }
    });
    let mut master = over_tcp(address.clone(), manners());
    assert_eq!(wrong_values(&mut master).await, 0);
    drop(master);
    let mut canary = over_tcp(address, manners());
    canary.owed.careless = true;
    assert!(wrong_values(&mut canary).await > 0, "a master that does not probe takes late answers");
}

#[test]
fn damage_is_told_from_silence() {
    let cause = |unread, is_sent: bool| {
        let now = Instant::now();
        let sent = is_sent.then_some(now);
        let progress = Progress {
            sent,
            active: now,
            unread,
            may_be_sent: is_sent,
            is_damaged: false,
            passed: Default::default(),
            babble: None,
            has_rival: false,
            strange: unread,
            copies_after: None,
            notices_copies: false,
        };
        no_answer(progress, Duration::ZERO).cause
    };
    assert_eq!([0, 3, 9].map(|unread| cause(unread, true)), [Cause::Timeout, Cause::Malformed, Cause::Crc]);
    assert_eq!(cause(0, false), Cause::Unreachable);
}

/// What the port's hardware counts was read by nobody's test: a loose shield shows there first.
#[tokio::test(start_paused = true)]
async fn what_the_hardware_counts_is_told_after_each_request() {
    let (dial, mut far_ends) = Dial::to_a_story();
    let mut master = master_at("in memory", 19_200, manners());
    master.dial = Some(dial);
    tokio::spawn(async move {
        let mut far_end = far_ends.recv().await.expect("it is opened");
        loop {
            let request = far_end.read::<8>().await;
            far_end.write(&truth(&request)).await;
        }
    });
    let says = |frame, overrun, parity, line_break, buffer_overrun| LineErrors {
        frame,
        overrun,
        parity,
        line_break,
        buffer_overrun,
    };
    for errors in [says(0, 0, 0, 0, 0), says(5, 4, 3, 2, 1), says(50, 4, 30, 2, 10)] {
        set_hardware(errors);
        let (request, expected) = words(11, 1);
        assert_eq!(master.read(1, request).await.expect("a good line"), expected);
        assert_eq!(master.stats().counts().hardware, errors);
    }
}

/// A converter over TCP that sends its last answer once more, in front of the new one or behind it: in 18 of 424 readings stood
/// the value of another register, as a good one. A copy of the answer itself says nothing else, and is believed. So is an answer with
/// a byte of noise behind it that is the unit's number: a driver that made one at each answer left its line without a value.
#[tokio::test]
async fn of_two_answers_neither_is_believed() {
    for (place, is_careless) in [
        ("front", false),
        ("behind", false),
        ("pieces", false),
        ("noise", false),
        ("copy", false),
        ("unit", false),
        ("front", true),
    ] {
        let (mut asked, mut last) = (0, Vec::new());
        let port = device(move |request| {
            asked += 1;
            let (own, before) = (truth(request), std::mem::replace(&mut last, truth(request)));
            match (asked, place) {
                (2, "front") => vec![[before, own].concat()],
                (2, "behind") => vec![[own, before].concat()],
                (2, "noise") => vec![[&[0x55; 6][..], &own].concat()],
                (2, "pieces") => vec![[&own, &before[..2]].concat(), before[2..].to_vec()],
                (2, "unit") => vec![[&own[..], &[1]].concat()],
                (2, "copy") => vec![[own.clone(), own].concat()],
                _ => vec![own],
            }
        });
        let mut master = master_at(&port, 115_200, Manners::patient_for(Duration::from_secs(2)));
        master.careless.believes_any = is_careless;
        let ((first, _), (second, right)) = (words(11, 1), words(100, 1));
        master.read(1, first).await.expect("an answer");
        let answer = master.read(1, second).await;
        match place {
            "copy" | "unit" => assert_eq!(answer.expect("nothing else is said"), right, "{place}"),
            _ if is_careless => assert_ne!(answer.expect("it believes"), right, "else this shows nothing"),
            _ => assert_eq!(answer.expect_err(place).cause, Cause::Malformed, "{place}"),
        }
        let is_believed = place == "copy" || place == "unit" || is_careless;
        assert_eq!(master.stats().counts().doubted, u64::from(!is_believed), "{place}");
        assert_eq!(master.read(1, second).await.expect("it is asked again"), right, "{place}");
    }
}
