//! What is fuzzed: a function a format, which takes any bytes and must not panic.
//!
//! The targets in `fuzz/` (cargo-fuzz) and the property tests below call the same functions, so that what one finds
//! the other keeps. Each also asserts what must hold of what was understood. No stable interface.

use std::sync::LazyLock;

use regex::Regex;
use tjern_readings::batch;
use tjern_readings::configuration::ConfigText;

use crate::config::{Config, LineField};
use crate::lines::splitter::{Framing, LINE_MAX, LineSplitter};
use crate::lines::time::{DeviceTime, TimeFormat, TimePlace, read_zone};
use crate::lines::{self, Notation};
pub use crate::modbus::fuzzing::{rtu_frames, tcp_frames};
pub use crate::spool::fuzz_segment as spool_segment;

/// Made once, as a bus does it: to compile a pattern takes longer than to go over a thousand lines with it.
static FIELDS: LazyLock<Vec<LineField>> = LazyLock::new(|| {
    let pattern = Regex::new(r"T=(?<value>-?\d+(\.\d+)?)").expect("a pattern");
    let columns = [";", ",", " "].map(|separator| LineField::Column { column: 2, separator: separator.into() });
    let others = [LineField::Nmea { sentence: "MTW".into(), field: 1 }, LineField::Pattern(pattern)];
    columns.into_iter().chain(others).collect()
});

/// How lines may be framed: by one byte, by two, and by their length.
static FRAMINGS: LazyLock<Vec<Framing>> = LazyLock::new(|| {
    let ended = |text: &str, max| Framing::Terminator { text: text.into(), max };
    vec![ended("\n", 80), ended("\r\n", LINE_MAX), Framing::Length(7)]
});

/// How a device may write its own time.
static TIMES: LazyLock<Vec<DeviceTime>> = LazyLock::new(|| {
    let column = |column| TimePlace::Column { column, separator: ";".into() };
    let pattern = TimePlace::Pattern(Regex::new(r"at (?<time>\S+)").expect("a pattern"));
    let places = [
        (column(1), "unix", "UTC"),
        (column(1), "unix_ms", "UTC"),
        (column(2), "rfc3339", "+01:00"),
        (column(1), "%Y-%m-%d %H:%M:%S", "Europe/Oslo"),
        (TimePlace::Field(1), "%d%m%y%H%M%S", "UTC"),
        (pattern, "rfc3339", "Europe/Oslo"),
    ];
    let time = |(place, format, zone): (TimePlace, &str, &str)| DeviceTime {
        place,
        format: TimeFormat::new(format).expect("a format"),
        zone: read_zone(zone).expect("a zone"),
    };
    places.into_iter().map(time).collect()
});

/// Bytes cut to lines, as every framing does it, and what every kind of field and of time finds in them.
///
/// # Panics
/// Where the lines depend on how the bytes come, a line is longer than it may be, a number that is none is understood, or a
/// time whose moments are in the wrong order.
pub fn text_lines(bytes: &[u8]) {
    for framing in FRAMINGS.iter() {
        let mut at_once = LineSplitter::new(framing.clone());
        let lines = at_once.feed(bytes);
        let mut in_pieces = LineSplitter::new(framing.clone());
        let pieces: Vec<String> = bytes.chunks(3).flat_map(|piece| in_pieces.feed(piece)).collect();
        assert_eq!((&lines, at_once.dropped()), (&pieces, in_pieces.dropped()), "{framing:?}");
        let longest = match framing {
            Framing::Terminator { max, .. } => *max,
            Framing::Length(length) => *length,
        };
        for line in &lines {
            assert!(line.chars().count() <= longest, "{framing:?}: {line:?}");
            device_times(line);
        }
    }
    for line in String::from_utf8_lossy(bytes).lines() {
        device_times(line);
        for field in FIELDS.iter() {
            if let Some(Ok(value)) = lines::read(field, &mut Notation::default(), line) {
                assert!(value.is_finite(), "{value} from {line:?}");
            }
        }
    }
}

fn device_times(line: &str) {
    for time in TIMES.iter() {
        if let Some(moments) = time.read(line) {
            assert!(moments.early_us() <= moments.late_us(), "{moments:?} from {line:?}");
            assert!(moments.only_us().is_none_or(|only_us| only_us == moments.early_us()), "{moments:?} from {line:?}");
        }
    }
}

/// A batch file: it is refused, or is what encoding its readings gives again.
///
/// # Panics
/// Where it is not.
pub fn batch_file(bytes: &[u8]) {
    let Ok(batch) = batch::decode(bytes) else { return };
    let Ok(readings) = batch.readings() else { return };
    let header = &batch.header;
    let configuration = header.configuration.as_deref();
    let again = batch::encode(&header.source, header.epoch, header.bounds.first, &readings, configuration);
    let (bytes, _) = again.expect("what was read can be written");
    let again = batch::decode(&bytes).expect("what was written can be read");
    assert_eq!((again.header.bounds, &again.header.checksum), (header.bounds, &header.checksum));
    assert_eq!(again.readings().expect("readings"), readings);
}

/// A configuration: it makes sense, or all that is wrong with it can be told.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    if let Err(error) = Config::parse(&ConfigText::new("fuzz.toml", text)) {
        let _ = error.to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIGURATION: &str = "version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"s\"\n[[bus]]\nname = \"b\"\n\
        kind = \"modbus-tcp\"\naddress = \"127.0.0.1:502\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n[[bus.device.point]]\n\
        sensor = \"s/q\"\nregister = \"input:0\"\ntype = \"f32\"\nevery = \"1s\"\n";

    /// What each format looks like when it is right, for the damage to begin from.
    fn seeds() -> Vec<Vec<u8>> {
        let mut rtu = vec![1, 4, 4, 1, 2, 3, 4];
        rtu.extend(crate::simulate::bad_line::crc(&rtu));
        vec![
            rtu,
            crate::modbus::fuzzing::answers_over_tcp(),
            b"$IIMTW,12.3,C*1A\r\n2024;12,5;T=7.25\n2026-10-25 02:30:00;2026-11-22T13:46:00Z;at 2026-11-22T13:46:00\n"
                .to_vec(),
            include_bytes!("../tests/golden/segment-1").to_vec(),
            include_bytes!("../../readings/tests/golden/batch-1.arrow").to_vec(),
            CONFIGURATION.as_bytes().to_vec(),
        ]
    }

    const TARGETS: [fn(&[u8]); 6] = [rtu_frames, tcp_frames, text_lines, spool_segment, batch_file, configuration];

    /// Ids that are drawn anew are matched by nothing that was written down: what is behind them was looked at by nobody.
    #[test]
    fn answers_are_accepted_where_damage_begins() {
        assert_eq!(crate::modbus::fuzzing::accepted_over_tcp(&crate::modbus::fuzzing::answers_over_tcp()), Some(2));
    }

    /// Of a hundred damages to right answers some leave them right enough, and most do not.
    #[test]
    fn damaged_answers_are_accepted_and_refused() {
        let mut random = fastrand::Rng::with_seed(11);
        let accepted = (0..400).filter(|_| {
            let mut bytes = crate::modbus::fuzzing::answers_over_tcp();
            let place = random.usize(..bytes.len());
            bytes[place] ^= 1 << random.u8(..8);
            crate::modbus::fuzzing::accepted_over_tcp(&bytes).is_some()
        });
        let accepted = accepted.count();
        assert!((40..360).contains(&accepted), "{accepted} of 400");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_format_panic(bytes: Vec<u8>) {
            TARGETS.iter().for_each(|target| target(&bytes));
        }

        #[test]
        fn no_damage_makes_a_format_panic(
            which in 0_usize..6, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(), cuts: bool,
        ) {
            let mut bytes = seeds().swap_remove(which);
            for (place, byte) in flips {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            TARGETS.iter().for_each(|target| target(&bytes));
        }
    }
}
