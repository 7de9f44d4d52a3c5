//! What a line with noise, strangers and echoes brings, and what must come out of it.

use super::*;
use proptest::prelude::*;

fn framed(body: &[u8]) -> Vec<u8> {
    [body, &crc(body).to_le_bytes()].concat()
}

fn read(unit: u8, function: u8, address: u16, count: u16) -> Vec<u8> {
    let ([a, b], [c, d]) = (address.to_be_bytes(), count.to_be_bytes());
    framed(&[unit, function, a, b, c, d])
}

fn answer(unit: u8, function: u8, data: &[u8]) -> Vec<u8> {
    framed(&[&[unit, function, u8::try_from(data.len()).expect("short")], data].concat())
}

/// As the specification's example has it: function 7 to unit 2 ends in 41 12.
#[test]
fn the_crc_is_that_of_the_specification() {
    assert_eq!(framed(&[0x02, 0x07]), [0x02, 0x07, 0x41, 0x12]);
    assert_eq!(crc(b"123456789"), 0x4B37);
}

/// A library's bug, or ours, ends here: such bytes have no answer, and are not sent.
#[test]
fn nothing_but_a_read_has_an_answer() {
    for function in 0..=255 {
        let request = read(1, function, 4, 2);
        assert_eq!(Expected::to(&request).is_some(), (1..=4).contains(&function), "function {function}");
    }
    assert_eq!(Expected::to(&framed(&[1, 16, 0, 0, 0, 1, 2, 0, 1])), None);
}

proptest! {
    /// Whatever comes before it, and in however many pieces: the answer is found whole, and nothing else is.
    #[test]
    fn the_answer_is_found_among_noise_strangers_and_echoes(
        before in prop::collection::vec(prop_oneof![
            prop::collection::vec(0xC0_u8.., 1..20),
            (50_u8..100, prop::collection::vec(any::<u8>(), 2..40)).prop_map(|(unit, data)| answer(unit, 3, &data)),
            Just(read(120, 3, 4, 3)),
            prop::collection::vec(any::<u8>(), 8..9).prop_map(|data| answer(120, 3, &data)),
        ], 0..5),
        data in prop::collection::vec(any::<u8>(), 6..7), pieces in 1_usize..40,
    ) {
        let expected = Expected::to(&read(120, 3, 4, 3)).expect("a read");
        let own = answer(120, 3, &data);
        let bytes = [before.concat(), own.clone()].concat();
        let (mut received, mut passed, mut found) = (Vec::new(), Passed::default(), Vec::new());
        for piece in bytes.chunks(pieces) {
            received.extend_from_slice(piece);
            found.extend(expected.take(&mut received, &mut passed));
        }
        prop_assert_eq!(found, vec![own]);
        prop_assert!(received.is_empty());
    }

    #[test]
    fn no_bytes_make_the_search_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let expected = Expected::to(&read(1, 4, 0, 2)).expect("a read");
        let mut received = bytes.clone();
        let mut passed = Passed::default();
        if let Some(frame) = expected.take(&mut received, &mut passed) {
            prop_assert!(is_whole(&frame));
        }
        prop_assert!(received.len() <= bytes.len());
    }

    #[test]
    fn a_flipped_bit_is_no_answer(data in prop::collection::vec(any::<u8>(), 6..7), bit in 0_usize..88) {
        let expected = Expected::to(&read(1, 3, 4, 3)).expect("a read");
        let mut received = answer(1, 3, &data);
        received[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(expected.take(&mut received, &mut Passed::default()), None);
    }
}

/// The echo of a read of 24 coils at 0x0300 has the shape of its own answer, CRC and all.
#[test]
fn an_echo_is_never_an_answer() {
    let request = read(1, 1, 0x0305, 24);
    let expected = Expected::to(&request).expect("a read");
    let own = answer(1, 1, &[7, 8, 9]);
    assert_eq!(request.len(), own.len());
    let (mut received, mut passed) = ([request, own.clone()].concat(), Passed::default());
    assert_eq!(expected.take(&mut received, &mut passed), Some(own));
    assert_eq!((passed.echoes, received.len()), (1, 0));
}

#[test]
fn an_exception_is_an_answer_and_another_length_is_not() {
    let expected = Expected::to(&read(1, 3, 4, 3)).expect("a read");
    let mut passed = Passed::default();
    let exception = framed(&[1, 0x83, 2]);
    assert_eq!(expected.take(&mut exception.clone(), &mut passed), Some(exception));
    let mut other = answer(1, 3, &[0, 1]);
    assert_eq!(expected.take(&mut other, &mut passed), None);
    assert_eq!((passed.strangers, other.len()), (1, 0));
}
