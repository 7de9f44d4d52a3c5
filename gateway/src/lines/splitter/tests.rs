//! What the splitter makes of bytes, of pauses, and of lines whose beginning nobody heard.

use super::*;
use proptest::prelude::*;

fn lines_until(terminator: &str) -> LineSplitter {
    LineSplitter::new(Framing::Terminator { text: terminator.to_owned(), max: LINE_MAX })
}

#[test]
fn a_line_that_never_ends_costs_no_memory_and_no_later_line() {
    let mut splitter = lines_until("\n");
    for _ in 0..1_000 {
        assert!(splitter.feed(&[b'x'; LINE_MAX]).is_empty());
        assert!(splitter.buffer.len() <= LINE_MAX + 2);
    }
    assert!(splitter.buffer.capacity() <= 4 * LINE_MAX, "{}", splitter.buffer.capacity());
    assert_eq!(splitter.feed(b"tail\n12.5\r\n"), ["12.5"]);
    assert_eq!(splitter.dropped(), 1);
}

#[test]
fn the_longest_line_is_as_long_as_was_said() {
    let mut splitter = LineSplitter::new(Framing::Terminator { text: "\r\n".to_owned(), max: 4 });
    assert_eq!(splitter.feed(b"1234\r\n12345\r\n123456789\r\n12\r\n"), ["1234", "12"]);
    assert_eq!(splitter.dropped(), 2);
}

#[test]
fn what_is_no_utf_8_is_read_as_iso_8859_1() {
    let mut splitter = lines_until("\n");
    assert_eq!(splitter.feed(b"T=12.3\xB0C\nT=12.3\xC2\xB0C\n"), ["T=12.3°C", "T=12.3°C"]);
}

#[test]
fn a_line_of_a_fixed_length_that_lost_bytes_does_not_shift_those_after_it() {
    let mut splitter = LineSplitter::new(Framing::Length(8));
    assert_eq!(splitter.feed(b"T=12.5\r\nT=1"), ["T=12.5"]);
    assert!(splitter.pause().is_empty());
    assert!(splitter.feed(b"T=13.5\r\n").is_empty(), "the pause may have been the wire's");
    assert_eq!((splitter.pause(), splitter.dropped()), (vec!["T=13.5".to_owned()], 1));
    assert!(splitter.pause().is_empty());
    assert_eq!(splitter.dropped(), 1, "nothing had begun");
    assert!(splitter.feed(b"1T=14.5\r\n").is_empty(), "nor are those that came with noise");
    assert_eq!((splitter.pause(), splitter.dropped()), (Vec::new(), 3));
}

/// The wire stalled within a line, and the line's rest came together with the next one: they made a line of two halves.
#[test]
fn a_stall_of_the_wire_makes_no_line_of_two_halves() {
    let mut splitter = LineSplitter::new(Framing::Length(8));
    assert!(splitter.feed(b"T=12").is_empty());
    splitter.pause();
    assert!(splitter.feed(b".5\r\nT=13.5\r\n").is_empty());
    assert_eq!((splitter.pause(), splitter.dropped()), (Vec::new(), 3));
    assert!(splitter.feed(b"T=14.5\r\n").is_empty());
    assert_eq!(splitter.pause(), ["T=14.5"]);
}

#[test]
fn a_line_of_a_fixed_length_that_nobody_heard_begin_is_none() {
    let mut splitter = LineSplitter::new(Framing::Length(4));
    splitter.begin_anew();
    splitter.begin_in_the_middle();
    for _ in 0..100 {
        assert!(splitter.feed(b"2341").is_empty());
    }
    assert!(splitter.pause().is_empty());
    assert_eq!(splitter.dropped(), 100, "what is never understood shows in a count");
    assert!(splitter.feed(b"12341234").is_empty());
    assert_eq!(splitter.pause(), ["1234", "1234"]);
    splitter.begin_anew();
    for _ in 0..HELD_MAX {
        assert!(splitter.feed(b"2341").is_empty());
        assert!(splitter.buffer.len() <= HELD_MAX + 5);
    }
}

/// Sixteen bytes of which the configuration counts fourteen: the line's end is no other line, and costs none.
#[test]
fn the_end_of_a_line_that_was_not_counted_costs_no_line() {
    let mut splitter = LineSplitter::new(Framing::Length(4));
    splitter.begin_anew();
    for _ in 0..3 {
        assert!(splitter.feed(b"1234\r\n").is_empty());
        assert_eq!(splitter.pause(), ["1234"]);
    }
    assert_eq!(splitter.dropped(), 0);
}

/// What came of a late answer, and the whole one after it: "12" and "34.5" made 1234.5.
#[test]
fn a_line_that_was_given_up_is_part_of_no_other() {
    let mut splitter = lines_until("\n");
    assert!(splitter.feed(b"12").is_empty() && splitter.has_begun());
    splitter.give_up(false);
    assert_eq!((splitter.feed(b"34.5\n"), splitter.dropped()), (vec!["34.5".to_owned()], 1));
    assert!(splitter.feed(b"12").is_empty());
    splitter.give_up(true);
    assert_eq!((splitter.feed(b"34.5\n5\n"), splitter.dropped()), (vec!["5".to_owned()], 2));
    let mut splitter = LineSplitter::new(Framing::Length(4));
    assert!(splitter.feed(b"12").is_empty());
    splitter.give_up(true);
    assert_eq!((splitter.feed(b"34.5"), splitter.dropped()), (vec!["34.5".to_owned()], 1));
}

#[test]
fn half_a_line_at_the_beginning_is_none() {
    let mut splitter = lines_until("\n");
    splitter.begin_in_the_middle();
    assert_eq!((splitter.feed(b"45.5\n12345.5\n"), splitter.dropped()), (vec!["12345.5".to_owned()], 1));
}

#[test]
fn what_is_left_of_an_end_begins_no_line() {
    let mut splitter = lines_until("\r");
    assert_eq!(splitter.feed(b"12\r\n"), ["12"]);
    assert!(!splitter.has_begun());
    splitter.give_up(true);
    assert_eq!((splitter.feed(b"13\r"), splitter.dropped()), (vec!["13".to_owned()], 0));
}

/// The bytes in the pieces that the cuts make of them.
fn pieces<'bytes>(bytes: &'bytes [u8], cuts: &[usize]) -> Vec<&'bytes [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect()
}

fn framing() -> impl Strategy<Value = Framing> {
    let terminator = prop::sample::select(vec!["\n", "\r\n", "#", "\r", "END", "aab"]);
    prop_oneof![
        (terminator, 1_usize..60).prop_map(|(text, max)| Framing::Terminator { text: text.to_owned(), max }),
        (1_usize..40).prop_map(Framing::Length),
    ]
}

proptest! {
    #[test]
    fn the_lines_are_those_that_were_written(
        lines in prop::collection::vec("[a-z0-9.;°]{0,40}", 0..10),
        cuts in prop::collection::vec(0_usize..400, 0..10),
        terminator in prop::sample::select(vec!["\n", "\r\n", "#", "\r", "END"]),
    ) {
        let text: String = lines.iter().map(|line| format!("{line}{terminator}")).collect();
        let mut splitter = lines_until(terminator);
        let got: Vec<String> = pieces(text.as_bytes(), &cuts).into_iter().flat_map(|piece| splitter.feed(piece)).collect();
        prop_assert_eq!(got, lines);
    }

    #[test]
    fn any_bytes_give_the_same_lines_however_they_are_cut(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n#ENDab".to_vec())], 0..400),
        cuts in prop::collection::vec(0_usize..400, 0..20),
        framing in framing(),
    ) {
        let (mut whole, mut cut) = (LineSplitter::new(framing.clone()), LineSplitter::new(framing));
        let expected = whole.feed(&bytes);
        let got: Vec<String> = pieces(&bytes, &cuts).into_iter().flat_map(|piece| cut.feed(piece)).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(cut.dropped(), whole.dropped());
        prop_assert!(cut.buffer.len() <= 80, "{} bytes are kept", cut.buffer.len());
    }

    /// Lines with a pause after each, of which any lose bytes, on a connection that was made in the middle of one: what is
    /// handed out are lines that were written, and of those that are whole none is lost but the first after the start.
    #[test]
    fn lines_of_a_fixed_length_with_pauses_are_never_shifted(
        losses in prop::collection::vec(prop::option::weighted(0.3, 0_usize..8), 1..30), begins in 0_usize..8,
    ) {
        let mut splitter = LineSplitter::new(Framing::Length(8));
        splitter.begin_anew();
        splitter.begin_in_the_middle();
        let mut got = splitter.feed(&b"00000000"[begins..]);
        got.extend(splitter.pause());
        let mut expected = Vec::new();
        for (number, lost) in losses.into_iter().enumerate() {
            let mut line = format!("{number:08}").into_bytes();
            match lost {
                Some(place) => {
                    line.remove(place);
                }
                None => expected.push(format!("{number:08}")),
            }
            got.extend(splitter.feed(&line));
            got.extend(splitter.pause());
        }
        prop_assert_eq!(got, expected);
    }
}
