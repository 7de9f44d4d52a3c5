//! Servers that answer late, over whatever connection there is, and devices that serve one client.

use std::collections::HashMap;
use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::config::Connection as Kept;
use crate::modbus::transport::Table;

const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// A request's answer: the register at each address holds the address.
fn truth(request: &[u8; 12]) -> Vec<u8> {
    [&request[..4], &[0, 5, request[6], request[7], 2], &request[8..10]].concat()
}

/// Tells of each connection how many requests came, and how long after it the first.
async fn server(one_behind: bool) -> (String, mpsc::UnboundedReceiver<(usize, Duration)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (told, ends) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut last = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (accepted, mut served, mut first) = (Instant::now(), 0, Duration::ZERO);
            let mut request = [0; 12];
            while stream.read_exact(&mut request).await.is_ok() {
                if served == 0 {
                    first = accepted.elapsed();
                }
                served += 1;
                let answer = if one_behind { std::mem::replace(&mut last, truth(&request)) } else { truth(&request) };
                if stream.write_all(&answer).await.is_err() {
                    break;
                }
            }
            let _ = told.send((served, first));
        }
    });
    (address, ends)
}

async fn wrong_values(master: &mut TcpMaster) -> usize {
    let mut wrong = 0;
    for turn in 0..6 {
        let address = if turn % 2 == 0 { 11 } else { 100 };
        let request = ReadRequest::new(Table::Input, address, 1).expect("within");
        let answer = master.read(1, request).await;
        wrong += usize::from(answer.is_ok_and(|answer| answer != Answer::Registers(vec![address])));
    }
    wrong
}

/// With ids that begin at 0 on each connection, a late answer is the next one's: this test
/// would notice.
#[tokio::test]
async fn a_late_answer_never_becomes_a_value() {
    for is_careless in [false, true] {
        let (address, _ends) = server(true).await;
        let mut master = TcpMaster::new(address, Manners::patient_for(Duration::from_millis(60)));
        master.careless = is_careless;
        assert_eq!(wrong_values(&mut master).await > 0, is_careless);
    }
}

/// What else it has to say to earlier requests ends with its connection.
#[tokio::test]
async fn a_connection_over_which_an_old_answer_came_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (told, mut served) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let (mut request, mut requests) = ([0; 12], 0);
            while stream.read_exact(&mut request).await.is_ok() {
                requests += 1;
                let mut old = truth(&request);
                old[0] ^= 0x80;
                let answers =
                    if connection == 0 && requests == 2 { vec![old, truth(&request)] } else { vec![truth(&request)] };
                stream.write_all(&answers.concat()).await.expect("the master listens");
            }
            if told.send(requests).is_err() {
                break;
            }
        }
    });
    let mut master = TcpMaster::new(address, Manners::patient_for(PATIENCE));
    for address in 1..=5 {
        let request = ReadRequest::new(Table::Input, address, 1).expect("within");
        assert_eq!(master.read(1, request).await, Ok(Answer::Registers(vec![address])));
    }
    assert_eq!(master.strangers().count(), 1);
    drop(master);
    let mut connections = Vec::new();
    for _ in 0..2 {
        connections.push(soon("the end of a connection", served.recv()).await.expect("it runs"));
    }
    assert_eq!(connections, [2, 3]);
}

#[tokio::test]
async fn a_device_that_serves_one_client_is_left_to_others_when_idle() {
    let (address, mut ends) = server(false).await;
    let pause = Duration::from_millis(50);
    let connection = Kept { pause, idle_close: Some(Duration::from_millis(20)), ..Kept::default() };
    let mut master = TcpMaster::new(address, Manners { connection, ..Manners::patient_for(PATIENCE) });
    for _ in 0..2 {
        assert_eq!(wrong_values(&mut master).await, 0);
        let mut served = 0;
        while served < 6 {
            let (requests, first) = soon("the end of an idle connection", ends.recv()).await.expect("it runs");
            // The accepting side's clock starts a little later than ours.
            assert!(first >= pause / 2, "the first byte came {first:?} after the connection");
            served += requests;
        }
    }
}

#[tokio::test]
async fn a_devices_gap_is_kept() {
    let (address, _ends) = server(false).await;
    let gap = Duration::from_millis(40);
    let gaps = HashMap::from([(2, gap)]);
    let mut master = TcpMaster::new(address, Manners { gaps, ..Manners::patient_for(PATIENCE) });
    let request = ReadRequest::new(Table::Input, 7, 1).expect("within");
    assert!(master.read(1, request).await.is_ok());
    for unit in [2, 1] {
        let before = Instant::now();
        assert!(master.read(unit, request).await.is_ok());
        // From the answer before, a little earlier than the clock here.
        assert!(before.elapsed() >= gap / 2, "unit {unit}");
    }
}

/// With a timeout of ten seconds each dead device cost all that were asked together with it ten seconds more than it cost alone.
#[tokio::test(start_paused = true)]
async fn for_one_of_several_a_second_is_waited_and_it_is_told_who_was_silent() {
    let (dial, mut far_ends) = super::super::faults::Dial::to_a_story();
    let patient = Duration::from_secs(10);
    let mut master = TcpMaster::new("in memory".into(), Manners::patient_for(patient));
    master.dial = Some(dial);
    let request = ReadRequest::new(Table::Input, 7, 1).expect("within");
    let asked = [1, 2, 3].map(|unit| Asked { unit, request });
    let story = async {
        let mut wire = far_ends.recv().await.expect("it connects");
        let requests: [u8; 36] = wire.read().await;
        for request in requests.as_chunks::<12>().0.iter().filter(|request| request[6] != 2) {
            wire.write(&truth(request)).await;
        }
        wire
    };
    let began = Instant::now();
    let (result, _wire) = tokio::join!(master.read_together(&asked), story);
    let failure = result.expect_err("one is missing");
    assert_eq!((failure.cause, failure.silent()), (Cause::Timeout, &[2][..]));
    assert_eq!(began.elapsed().as_secs(), TOGETHER_PATIENCE_MAX.as_secs(), "{:?}", began.elapsed());
    let failure = master.read(2, request).await.expect_err("nobody answers");
    assert_eq!((failure.cause, failure.silent()), (Cause::Timeout, &[][..]));
    assert!(began.elapsed() >= patient, "alone it has its time: {:?}", began.elapsed());
}
