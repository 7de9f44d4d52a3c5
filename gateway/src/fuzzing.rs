//! What is fuzzed: a function a format, which takes any bytes and must not panic.
//!
//! The targets in `fuzz/` (cargo-fuzz) and the property tests below call the same functions, so that what one finds
//! the other keeps. Each also asserts what must hold of what was understood. No stable interface.

use std::sync::LazyLock;

use regex::Regex;
use tjern_readings::batch;
use tjern_readings::configuration::ConfigText;

use crate::config::{Config, LineField};
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

/// Lines of text, as every kind of field finds its number in them.
///
/// # Panics
/// Where a number that is none is understood.
pub fn text_lines(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        for field in FIELDS.iter() {
            if let Some(Ok(value)) = lines::read(field, &mut Notation::default(), line) {
                assert!(value.is_finite(), "{value} from {line:?}");
            }
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
            vec![0, 1, 0, 0, 0, 7, 1, 4, 4, 1, 2, 3, 4],
            b"$IIMTW,12.3,C*1A\r\n2024;12,5;T=7.25\n".to_vec(),
            include_bytes!("../tests/golden/segment-1").to_vec(),
            include_bytes!("../../readings/tests/golden/batch-1.arrow").to_vec(),
            CONFIGURATION.as_bytes().to_vec(),
        ]
    }

    const TARGETS: [fn(&[u8]); 6] = [rtu_frames, tcp_frames, text_lines, spool_segment, batch_file, configuration];

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
