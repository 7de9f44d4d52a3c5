//! Lines as they are: lumps, noise, broken frames, devices that do not answer.

use super::*;
use crate::modbus::frame::crc;
use proptest::prelude::*;

fn framed(body: &[u8]) -> Vec<u8> {
    [body, &crc(body).to_le_bytes()].concat()
}

fn request(unit: u8, function: u8, address: u16, count: u16) -> Vec<u8> {
    let ([a, b], [c, d]) = (address.to_be_bytes(), count.to_be_bytes());
    framed(&[unit, function, a, b, c, d])
}

fn answer(unit: u8, function: u8, data: &[u8]) -> Vec<u8> {
    framed(&[&[unit, function, u8::try_from(data.len()).expect("short")], data].concat())
}

/// Units of the tests, and noise: neither can be taken for a function, so that nothing is a frame by chance.
const UNITS: std::ops::Range<u8> = 100..120;
const NOISE: std::ops::RangeFrom<u8> = 0xC0..;

fn exchanges() -> impl Strategy<Value = Vec<(u8, u8, u16, u16, Vec<u8>)>> {
    let exchange = (UNITS, 1_u8..=4, any::<u16>(), 1_u16..=100, prop::collection::vec(NOISE, 0..12));
    prop::collection::vec(exchange, 1..12)
}

proptest! {
    /// However the bytes are handed over, and whatever noise lies between: every frame is heard once, and paired.
    #[test]
    fn every_frame_is_heard_and_paired(exchanges in exchanges(), lumps in prop::collection::vec(1_usize..60, 1..20)) {
        let (mut line, mut noise, mut expected) = (Vec::new(), 0, Vec::new());
        for (unit, function, address, count, garbage) in &exchanges {
            let asked = request(*unit, *function, *address, *count);
            let bytes = if *function <= 2 { usize::from(*count).div_ceil(8) } else { usize::from(*count) * 2 };
            let answered = answer(*unit, *function, &vec![0x5A; bytes]);
            noise += garbage.len() as u64;
            line.extend([garbage.clone(), asked.clone(), answered.clone()].concat());
            expected.extend([asked, answered]);
        }
        let (mut sniffer, start, mut heard) = (Sniffer::default(), Instant::now(), Vec::new());
        let (mut rest, mut at) = (&line[..], start);
        for lump in lumps.iter().cycle() {
            let (now, later) = rest.split_at((*lump).min(rest.len()));
            at += Duration::from_millis(16);
            heard.extend(sniffer.feed(now, at));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        heard.extend(sniffer.end());
        let frames: Vec<Vec<u8>> = heard.iter().map(|heard| heard.frame.clone()).collect();
        prop_assert_eq!(frames, expected);
        for pair in heard.chunks(2) {
            prop_assert_eq!(pair[0].what, What::Request);
            let What::Answer { turnaround: Some(_), asked: answered } = pair[1].what else {
                panic!("{:?}", pair[1])
            };
            prop_assert_eq!(answered, asked(&pair[0].frame));
        }
        let tally = sniffer.tally();
        let count = exchanges.len() as u64;
        prop_assert_eq!((tally.requests, tally.answers, tally.foreign_bytes), (count, count, noise));
        prop_assert_eq!((tally.unanswered, tally.unasked), (0, 0));
    }

    /// Every byte is in a frame or counted, whatever comes.
    #[test]
    fn no_byte_is_lost_and_none_makes_it_panic(lumps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..80), 0_u64..100), 0..20)) {
        let (mut sniffer, mut at, mut heard) = (Sniffer::default(), Instant::now(), 0);
        for (bytes, pause_ms) in &lumps {
            at += Duration::from_millis(*pause_ms);
            heard += sniffer.feed(bytes, at).iter().map(|heard| heard.frame.len()).sum::<usize>();
        }
        heard += sniffer.end().iter().map(|heard| heard.frame.len()).sum::<usize>();
        let all: usize = lumps.iter().map(|(bytes, _)| bytes.len()).sum();
        prop_assert_eq!(heard as u64 + sniffer.tally().foreign_bytes, all as u64);
    }
}

/// A frame that breaks off holds up nothing that comes after a pause.
#[test]
fn half_a_frame_is_over_after_a_pause() {
    let (mut sniffer, start) = (Sniffer::default(), Instant::now());
    assert_eq!(sniffer.feed(&answer(100, 3, &[0; 200])[..20], start), []);
    let heard = sniffer.feed(&request(101, 3, 0, 1), start + PAUSE * 2);
    assert_eq!(heard.len(), 1);
    assert_eq!((sniffer.tally().foreign_bytes, sniffer.tally().broken), (20, 1));
}

#[test]
fn turnaround_gap_exception_and_silence_are_told() {
    let (mut sniffer, start) = (Sniffer::default(), Instant::now());
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    assert_eq!(sniffer.feed(&request(100, 4, 7, 1), at(0))[0].what, What::Request);
    let exception = &sniffer.feed(&framed(&[100, 0x84, 2]), at(12))[0];
    assert_eq!(exception.what, What::Exception { turnaround: Some(Duration::from_millis(12)), code: 2 });
    let unanswered = &sniffer.feed(&request(101, 4, 7, 1), at(30))[0];
    assert_eq!(unanswered.gap, Some(Duration::from_millis(18)));
    sniffer.feed(&request(100, 4, 7, 1), at(400));
    // Somebody else's answer: to nothing that was heard.
    sniffer.feed(&answer(109, 4, &[0, 1]), at(420));
    sniffer.end();
    let tally = sniffer.tally();
    assert_eq!((tally.requests, tally.exceptions, tally.unanswered, tally.unasked), (3, 1, 2, 1));
}

/// Three bytes of bits at an address that begins with 3: request, echo and answer have one shape.
#[test]
fn an_echo_is_told_from_an_answer_of_the_same_shape() {
    let (mut sniffer, at) = (Sniffer::default(), Instant::now());
    let asked = request(100, 1, 0x0305, 24);
    let heard = sniffer.feed(&[asked.clone(), asked, answer(100, 1, &[1, 2, 3])].concat(), at);
    let what: Vec<What> = heard.iter().map(|heard| heard.what).collect();
    let answered = What::Answer { turnaround: Some(Duration::ZERO), asked: Some((0x0305, 24)) };
    assert_eq!(what, [What::Request, What::Echo, answered]);
}

/// A master that writes is heard as well: function 16 and its short answer.
#[test]
fn a_write_and_its_answer_are_heard() {
    let (mut sniffer, at) = (Sniffer::default(), Instant::now());
    let write = framed(&[100, 16, 0, 4, 0, 1, 2, 0, 9]);
    let done = framed(&[100, 16, 0, 4, 0, 1]);
    let heard = sniffer.feed(&[write, done].concat(), at);
    assert_eq!(heard.len(), 2);
    assert!(matches!(heard[1].what, What::Answer { asked: Some((4, 1)), .. }));
}
