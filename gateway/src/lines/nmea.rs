//! NMEA 0183: `$YXMTW,12.3,C*1A`.
//!
//! The address is a talker of two letters and a sentence of three (`$P…` is a maker's own). The
//! checksum is the exclusive or of what stands between `$` and `*`; where a sentence brings one, it
//! has to be right.

use tjern_readings::reading::Cause;

use super::number;

/// The number in a field of a sentence, counted from 1 after the address; `None` for other
/// sentences. `wanted` is the sentence's name (of any talker) or the whole address.
#[must_use]
pub fn read(wanted: &str, field: usize, line: &str) -> Option<Result<f64, Cause>> {
    // Noise may stand before the start; a sentence has one start.
    let body = &line[line.rfind(['$', '!'])? + 1..];
    let (body, checksum) = match body.split_once('*') {
        Some((body, checksum)) => (body, Some(checksum.trim_end())),
        None => (body, None),
    };
    let mut fields = body.split(',');
    let address = fields.next()?;
    if address != wanted && address.get(2..) != Some(wanted) {
        return None;
    }
    if checksum.is_some_and(|checksum| !is_right(body, checksum)) {
        return Some(Err(Cause::Crc));
    }
    let text = field.checked_sub(1).and_then(|skipped| fields.nth(skipped));
    Some(text.map_or(Err(Cause::NoMatch), |text| number(text, false)))
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
