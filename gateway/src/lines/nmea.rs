//! NMEA 0183: `$YXMTW,12.3,C*1A`.
//!
//! The address is a talker of two letters and a sentence of three (`$P…` is a maker's own). The
//! checksum is the exclusive or of what stands between `$` and `*`; where a sentence brings one, it
//! has to be right. A sentence that says of itself that it is not valid has no values.

use tjern_readings::reading::Cause;

use super::Notation;

/// The number in a field of a sentence, counted from 1 after the address; `None` for other
/// sentences. `wanted` is the sentence's name (of any talker) or the whole address; a maker's own
/// sentences have no talker, and are wanted by their whole address only.
#[must_use]
pub fn read((wanted, field): (&str, usize), notation: &mut Notation, line: &str) -> Option<Result<f64, Cause>> {
    let sentence = Sentence::of(line)?;
    let address = sentence.fields().next()?;
    let of_a_talker = !address.starts_with('P') && address.get(2..) == Some(wanted);
    if address != wanted && !of_a_talker {
        return None;
    }
    if sentence.checksum.is_some_and(|checksum| !is_right(sentence.body, checksum)) {
        return Some(Err(Cause::Crc));
    }
    if name_of(address).is_some_and(|name| sentence.is_void(name, field)) {
        return Some(Err(Cause::NotAvailable));
    }
    let text = field.checked_sub(1).and_then(|skipped| sentence.fields().nth(skipped + 1));
    Some(text.map_or(Err(Cause::NoMatch), |text| notation.read(text, false)))
}

/// The name of a talker's sentence.
fn name_of(address: &str) -> Option<&str> {
    address.get(2..).filter(|_| !address.starts_with('P'))
}

/// Where a sentence says whether a field is valid (`V`: it is not), counted from 1 after the address: the sentences of IEC 61162-1
/// that a site may have. `THS` says it as the last of its modes.
fn status_place(name: &str, field: usize) -> Option<usize> {
    match name {
        "RMB" | "APB" | "XTE" => Some(1),
        "RMC" | "ROT" | "THS" | "OSD" => Some(2),
        "MWV" | "RPM" => Some(5),
        "GLL" | "GGA" => Some(6),
        // Through the water and over the ground.
        "VBW" => Some(if field <= 3 { 3 } else { 6 }),
        // Starboard and port rudder have one each.
        "RSA" => Some(if field <= 2 { 2 } else { 4 }),
        _ => None,
    }
}

/// Where a sentence says in which mode its receiver is (`N`: the data are not valid), counted from 1 after the address: of version
/// 2.3 and later, behind all else. Source: the interface descriptions of GNSS receivers (Garmin GPS 18, 190-00307; JRC JSS-2250).
fn mode_place(name: &str) -> Option<usize> {
    match name {
        "GLL" => Some(7),
        "VTG" => Some(9),
        "RMC" => Some(12),
        _ => None,
    }
}

/// The text of a field, counted from 1 after the address. The checksum is not looked at.
#[must_use]
pub fn field(line: &str, field: usize) -> Option<&str> {
    Sentence::of(line)?.fields().nth(field.max(1))
}

/// Whether the sentence brings a checksum, right or wrong.
#[must_use]
pub fn has_checksum(line: &str) -> bool {
    Sentence::of(line).is_some_and(|sentence| sentence.checksum.is_some())
}

struct Sentence<'line> {
    body: &'line str,
    checksum: Option<&'line str>,
}

impl<'line> Sentence<'line> {
    /// Noise may stand before the start; a sentence has one start.
    fn of(line: &'line str) -> Option<Self> {
        let body = &line[line.rfind(['$', '!'])? + 1..];
        Some(match body.split_once('*') {
            Some((body, checksum)) => Self { body, checksum: Some(checksum.trim_end()) },
            None => Self { body, checksum: None },
        })
    }

    /// Whether it says that the field is not valid; the status and the mode themselves are what they are.
    fn is_void(&self, name: &str, field: usize) -> bool {
        let says = |place: Option<usize>, word: &str| {
            place.is_some_and(|place| place != field && self.fields().nth(place) == Some(word))
        };
        // A fix has a kind in its place, and 0 for none.
        says(status_place(name, field), if name == "GGA" { "0" } else { "V" }) || says(mode_place(name), "N")
    }

    fn fields(&self) -> impl Iterator<Item = &'line str> {
        self.body.split(',')
    }
}

/// The checksum of what stands between `$` and `*`.
#[must_use]
pub fn checksum(body: &str) -> u8 {
    body.bytes().fold(0, |sum, byte| sum ^ byte)
}

fn is_right(body: &str, hex: &str) -> bool {
    hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok_and(|sum| sum == checksum(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(wanted: &str, field: usize, line: &str) -> Option<Result<f64, Cause>> {
        super::read((wanted, field), &mut Notation::default(), line)
    }

    #[test]
    fn sentences_of_the_standard_are_read() {
        // From the standard's own examples of other makers' logs: checksums that are not ours.
        assert_eq!(
            read("GGA", 9, "$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47"),
            Some(Ok(545.4))
        );
        assert_eq!(read("MTW", 1, "$YXMTW,12.3,C"), Some(Ok(12.3)), "a checksum may be missing");
        assert_eq!(read("YXMTW", 1, "$IIMTW,12.3,C"), None);
        assert_eq!(read("MTW", 1, "$YXMTW,,C"), Some(Err(Cause::NotAvailable)));
        assert_eq!(read("MTW", 3, "$YXMTW,12.3,C"), Some(Err(Cause::NoMatch)));
        assert_eq!(read("MTW", 1, "garbage"), None);
        assert_eq!(field("$GPZDA,100000.00,21,08,2026,00,00*6C", 4), Some("2026"));
        assert!(has_checksum("$YXMTW,12.3,C*") && !has_checksum("$YXMTW,12.3,C"));
    }

    /// A wind that its own device called void was stored as good.
    #[test]
    fn a_sentence_that_is_not_valid_has_no_values() {
        for (wanted, field, line) in [
            ("MWV", 3, "$WIMWV,214.8,R,9.9,M,V"),
            ("WIMWV", 1, "$WIMWV,214.8,R,9.9,M,V"),
            ("RMC", 7, "$GPRMC,081836,V,3751.65,S,14507.36,E,000.0,360.0,130998,011.3,E"),
            ("GLL", 1, "$GPGLL,4916.45,N,12311.12,W,225444,V"),
            ("GGA", 9, "$GPGGA,123519,,,,,0,00,,545.4,M,46.9,M,,"),
            ("RSA", 1, "$IIRSA,10.5,V,11.5,A"),
            ("ROT", 1, "$HEROT,-12.5,V"),
            ("VBW", 4, "$VDVBW,1.5,0.1,A,1.7,0.2,V"),
            ("VTG", 7, "$GPVTG,054.7,T,034.4,M,005.5,N,010.2,K,N"),
            ("RMC", 7, "$GPRMC,081836,A,3751.65,S,14507.36,E,000.0,360.0,130998,011.3,E,N"),
            ("RMC", 8, "$GNRMC,081836,A,3751.65,S,14507.36,E,000.0,360.0,130998,011.3,E,N,V"),
            ("GLL", 1, "$GPGLL,4916.45,N,12311.12,W,225444,A,N"),
        ] {
            assert_eq!(read(wanted, field, line), Some(Err(Cause::NotAvailable)), "{line}");
        }
        for (wanted, field, line, value) in [
            ("MWV", 3, "$WIMWV,214.8,R,9.9,M,A", 9.9),
            ("MWV", 3, "$WIMWV,214.8,R,9.9,M", 9.9),
            ("RSA", 3, "$IIRSA,10.5,V,11.5,A", 11.5),
            ("VBW", 1, "$VDVBW,1.5,0.1,A,1.7,0.2,V", 1.5),
            ("GGA", 6, "$GPGGA,123519,,,,,0,00,,,M,,M,,", 0.0),
            ("MTW", 1, "$YXMTW,12.3,C,V,V,V,V", 12.3),
            // `N` is knots, and north; a receiver of before version 2.3 has no mode.
            ("VTG", 7, "$GPVTG,054.7,T,034.4,M,005.5,N,010.2,K,A", 10.2),
            ("VTG", 5, "$GPVTG,054.7,T,034.4,M,005.5,N,010.2,K", 5.5),
            ("RMC", 7, "$GPRMC,081836,A,3751.65,N,14507.36,E,001.5,360.0,130998,011.3,E,E", 1.5),
            ("GLL", 1, "$GPGLL,4916.45,N,12311.12,W,225444,A,D", 4916.45),
        ] {
            assert_eq!(read(wanted, field, line), Some(Ok(value)), "{line}");
        }
    }

    /// `PXMTW` was once taken for a talker's `MTW`: `P` is a maker's own, and what follows is the maker.
    #[test]
    fn a_makers_own_sentence_is_read_by_its_whole_name() {
        assert_eq!(read("PGRMZ", 1, "$PGRMZ,246,f,3*1B"), Some(Ok(246.0)));
        assert_eq!(read("RMZ", 1, "$PGRMZ,246,f,3"), None);
        assert_eq!(read("MTW", 1, "$PXMTW,12.3,C"), None);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(value in 0.0_f64..40.0, place in 7_usize..11, bit in 0_u32..7) {
            let body = format!("YXMTW,{value:.2},C");
            let line = format!("${body}*{:02X}", checksum(&body));
            let shown: f64 = format!("{value:.2}").parse().expect("a number");
            prop_assert_eq!(read("MTW", 1, &line), Some(Ok(shown)));
            let mut bytes = line.into_bytes();
            bytes[place] ^= 1 << bit;
            let damaged = String::from_utf8(bytes).expect("still ASCII");
            let result = read("MTW", 1, &damaged);
            prop_assert!(!matches!(result, Some(Ok(_))) || damaged.matches('*').count() != 1, "{damaged} gave {result:?}");
        }
    }
}
