//! Servers that answer in any order, twice, with the ids of others, or half: what becomes a value of it.

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::modbus::transport::{Answer, ReadRequest, Table};

impl Stream for DuplexStream {}

const PATIENCE: Duration = Duration::from_secs(1);
const REQUEST_BYTES: usize = 12;

/// An answer as far as it matters here: an id and a PDU of unit 1.
fn frame(id: u16, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).expect("short");
    [&id.to_be_bytes()[..], &[0, 0], &length.to_be_bytes(), &[1], pdu].concat()
}

/// The register at each address holds the address.
fn truth(id: u16, address: u16) -> Vec<u8> {
    let [high, low] = address.to_be_bytes();
    frame(id, &[4, 2, high, low])
}

fn asked(address: u16) -> Asked {
    Asked { unit: 1, request: ReadRequest::new(Table::Input, address, 1).expect("within") }
}

/// The ids and addresses of so many requests, as they arrive.
async fn requests(wire: &mut DuplexStream, count: usize) -> Vec<(u16, u16)> {
    let mut seen = vec![0; count * REQUEST_BYTES];
    wire.read_exact(&mut seen).await.expect("they arrive");
    let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    seen.chunks(REQUEST_BYTES).map(|bytes| (word(bytes, 0), word(bytes, 8))).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

/// Asks for these addresses together while a server sends what it makes of the requests, in pieces.
fn play(
    addresses: &[u16],
    pieces: usize,
    answer: impl Fn(Vec<(u16, u16)>) -> Vec<u8>,
) -> Result<Vec<Result<Answer, Failure>>, Failure> {
    let asked: Vec<Asked> = addresses.iter().map(|address| asked(*address)).collect();
    play_asked(&asked, pieces, answer)
}

fn play_asked(
    asked: &[Asked],
    pieces: usize,
    answer: impl Fn(Vec<(u16, u16)>) -> Vec<u8>,
) -> Result<Vec<Result<Answer, Failure>>, Failure> {
    runtime().block_on(async {
        let (ours, mut wire) = duplex(16_384);
        let mut connection = Connection::new(ours, TransactionIds::new());
        let server = async {
            let bytes = answer(requests(&mut wire, asked.len()).await);
            for piece in bytes.chunks(pieces) {
                wire.write_all(piece).await.expect("there is room");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            replies = connection.exchange(asked, PATIENCE) => {
                replies.map(|replies| replies.into_iter().map(|reply| reply.result).collect())
            }
            () = server => unreachable!("it waits for ever"),
        }
    })
}

/// A device that answers under the id 0 was silent as one that is switched off, and nothing said that it answers.
#[test]
fn answers_under_other_ids_are_counted_and_told() {
    let failure = play(&[7], 100, |requests| [truth(requests[0].0 ^ 1, 7), truth(requests[0].0 ^ 2, 7)].concat());
    let failure = failure.expect_err("none is to the request");
    assert_eq!((failure.cause, failure.has_strangers()), (Cause::Timeout, true));
    assert!(failure.detail.ends_with("2 answers with another transaction id came"), "{failure}");
    let silent = play(&[7], 100, |_| Vec::new()).expect_err("nobody answers");
    assert_eq!((silent.has_strangers(), silent.detail.as_str()), (false, "no answer within 1s"));
}

fn values(addresses: &[u16]) -> Vec<Result<Answer, Failure>> {
    addresses.iter().map(|address| Ok(Answer::Registers(vec![*address]))).collect()
}

#[test]
fn no_id_comes_twice_across_connections() {
    let ids = TransactionIds::new();
    let mut seen = Vec::new();
    runtime().block_on(async {
        for _ in 0..3 {
            let (ours, mut wire) = duplex(1_024);
            let mut connection = Connection::new(ours, ids.clone());
            assert!(connection.exchange(&[asked(1), asked(2)], PATIENCE).await.is_err(), "nobody answers");
            seen.extend(requests(&mut wire, 2).await);
        }
    });
    assert!(seen.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)), "{seen:?}");
}

proptest! {
    #[test]
    fn answers_in_any_order_and_between_strangers_find_their_requests(
        addresses in prop::collection::vec(any::<u16>(), 1..16), order: u64, pieces in 1_usize..60,
        strangers in prop::collection::vec((100_u16..60_000, prop::collection::vec(any::<u8>(), 1..250)), 0..5),
        twice: bool,
    ) {
        let replies = play(&addresses, pieces, |mut requests| {
            let first = requests[0].0;
            fastrand::Rng::with_seed(order).shuffle(&mut requests);
            let mut bytes: Vec<u8> =
                strangers.iter().flat_map(|(shift, pdu)| frame(first.wrapping_add(*shift), pdu)).collect();
            for (id, address) in requests {
                bytes.extend(truth(id, address));
                bytes.extend(if twice { truth(id, address ^ 1) } else { Vec::new() });
            }
            bytes
        });
        prop_assert_eq!(replies, Ok(values(&addresses)));
    }
}

/// A server with one place for the id, which a second request overwrites before the first is answered.
#[test]
fn a_server_that_mixes_ids_up_gives_no_value() {
    let replies = play(&[10, 20, 30], 9, |requests| {
        let newest = requests[2].0;
        requests.into_iter().flat_map(|(_, address)| truth(newest, address)).collect()
    });
    assert_eq!(replies.expect_err("two requests have no answer").cause, Cause::Timeout);
}

/// Where one request of several is not answered, the others may have each other's answers.
#[test]
fn of_several_requests_all_are_answered_or_none() {
    for lost in 0..3 {
        let replies = play(&[10, 20, 30], 100, |mut requests| {
            requests.remove(lost);
            requests.into_iter().flat_map(|(id, address)| truth(id, address)).collect()
        });
        assert_eq!(replies.expect_err("one is missing").cause, Cause::Timeout);
    }
    let replies =
        play(&[10, 20], 100, |requests| [frame(requests[0].0, &[0x84, 2]), truth(requests[1].0, 20)].concat());
    let replies = replies.expect("a refusal is an answer");
    assert_eq!(replies[0].as_ref().map_err(|failure| failure.cause), Err(Cause::Exception2));
    assert_eq!(replies[1], Ok(Answer::Registers(vec![20])));
}

/// An answer that ends too early is filled up by the next one, which comes a second time: all ids are there then.
#[test]
fn an_answer_within_another_is_no_value() {
    let eight = Asked { unit: 1, request: ReadRequest::new(Table::Input, 10, 8).expect("within") };
    for next_pdu in [&[4, 2, 0, 20][..], &[0x84, 2]] {
        let replies = play_asked(&[eight, asked(20)], 100, |requests| {
            let next = frame(requests[1].0, next_pdu);
            let mut cut = frame(requests[0].0, &[&[4, 16][..], &[7; 16]].concat());
            cut.truncate(cut.len() - next.len());
            [cut, next.clone(), next].concat()
        });
        assert_eq!(replies.expect_err("no value").cause, Cause::Malformed, "{next_pdu:02x?}");
    }
}

proptest! {
    /// Where an id says that its head would stand is where it stands: of the last requests each is found wherever it is,
    /// and nothing else is.
    #[test]
    fn the_heads_of_the_last_requests_are_found_anywhere(
        first: u16, count in 1_usize..80, which in 0_usize..80, exception: bool,
        before in prop::collection::vec(any::<u8>(), 0..40), behind in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut connection = Connection::new(duplex(1).0, TransactionIds::beginning_at(first));
        let opened: Vec<Open> = (0..count).map(|_| connection.open(asked(7))).collect();
        let which = which % count;
        let head = opened[which].heads()[usize::from(exception)].to_be_bytes();
        let is_recent = which + HEADS_MAX >= count;
        prop_assert_eq!(connection.holds_a_head(&[&before[..], &head, &behind].concat()), is_recent);
        prop_assert!(!connection.holds_a_head(&[&before[..], &head[..7]].concat()));
    }
}

/// A slow server that answers one request after the other is given its time for each.
#[test]
fn each_answer_has_its_time_from_the_one_before() {
    runtime().block_on(async {
        let (ours, mut wire) = duplex(1_024);
        let mut connection = Connection::new(ours, TransactionIds::new());
        let together = [asked(1), asked(2), asked(3)];
        let server = async {
            for (id, address) in requests(&mut wire, 3).await {
                tokio::time::sleep(PATIENCE * 9 / 10).await;
                wire.write_all(&truth(id, address)).await.expect("there is room");
            }
            std::future::pending::<()>().await;
        };
        let began = Instant::now();
        let replies = tokio::select! {
            replies = connection.exchange(&together, PATIENCE) => replies.expect("each is in time"),
            () = server => unreachable!("it waits for ever"),
        };
        let took: Vec<u128> = replies.iter().map(|reply| (reply.at - began).as_millis()).collect();
        assert_eq!(took, [900, 1_800, 2_700]);
    });
}

#[test]
fn half_an_answer_is_not_silence() {
    for (bytes, cause) in [(9, Cause::Malformed), (0, Cause::Unreachable)] {
        let failure = runtime().block_on(async {
            let (ours, mut wire) = duplex(1_024);
            let mut connection = Connection::new(ours, TransactionIds::new());
            let server = async move {
                let id = requests(&mut wire, 1).await[0].0;
                wire.write_all(&truth(id, 7)[..bytes]).await.expect("there is room");
            };
            let together = [asked(7)];
            tokio::join!(connection.exchange(&together, PATIENCE), server).0.expect_err("no whole answer")
        });
        assert_eq!(failure.cause, cause);
    }
}
