//! The checksum of a batch's rows: SHA-256 over their values in one fixed form, so that it stays the
//! same however Arrow lays the rows out. The form is in `docs/batch-format.md`, section "Checksum".

use sha2::{Digest, Sha256};

use crate::reading::Quality;
use crate::round::RoundSpan;

/// Takes rows one by one.
#[derive(Debug, Default)]
pub(super) struct RowDigest {
    sha256: Sha256,
    form: Vec<u8>,
}

/// The values of one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) sensor: &'a str,
    pub(super) time_us: i64,
    pub(super) value: Option<f64>,
    pub(super) quality: i8,
    pub(super) cause: Option<&'a str>,
    pub(super) lag_ms: Option<i32>,
    pub(super) seq: i64,
}

/// How much is gathered before it is hashed: fewer, longer calls.
const FORM_LENGTH: usize = 16 << 10;

/// Time, a value that is there, quality, no cause, no lag, number.
const PLAIN_LENGTH: usize = 8 + 9 + 1 + 1 + 1 + 8;

/// Where in those the value is, and the number.
const VALUE_AT: usize = 9;
const SEQ_AT: usize = PLAIN_LENGTH - 8;

/// Those bytes but for the value and the number: neither a cause, whose length is 0, nor a lag.
fn plain_form(time_us: i64, quality: i8) -> [u8; PLAIN_LENGTH] {
    let mut form = [0; PLAIN_LENGTH];
    form[..8].copy_from_slice(&time_us.to_le_bytes());
    form[8] = 1;
    form[17] = quality.to_le_bytes()[0];
    form
}

impl RowDigest {
    pub(super) fn add(&mut self, row: &Row<'_>) {
        self.text(row.sensor);
        match row {
            Row { value: Some(value), cause: None, lag_ms: None, .. } => self.plain(row, *value),
            _ => self.any(row),
        }
        if self.form.len() >= FORM_LENGTH {
            self.flush();
        }
    }

    /// The rows of a round, numbered from `first_seq` on.
    pub(super) fn add_round(&mut self, round: &RoundSpan<'_>, first_seq: i64) {
        let mut form = plain_form(round.time_us, Quality::NotEvaluated.code());
        for ((sensor, value), seq) in round.sensors().iter().zip(round.values).zip(first_seq..) {
            self.text(sensor.as_str());
            form[VALUE_AT..VALUE_AT + 8].copy_from_slice(&value.to_bits().to_le_bytes());
            form[SEQ_AT..].copy_from_slice(&seq.to_le_bytes());
            self.form.extend_from_slice(&form);
            if self.form.len() >= FORM_LENGTH {
                self.flush();
            }
        }
    }

    /// What stands behind the sensor of a row as most are, put there as a whole.
    fn plain(&mut self, row: &Row<'_>, value: f64) {
        let mut form = plain_form(row.time_us, row.quality);
        form[VALUE_AT..VALUE_AT + 8].copy_from_slice(&value.to_bits().to_le_bytes());
        form[SEQ_AT..].copy_from_slice(&row.seq.to_le_bytes());
        self.form.extend_from_slice(&form);
    }

    fn any(&mut self, row: &Row<'_>) {
        self.form.extend_from_slice(&row.time_us.to_le_bytes());
        self.optional(row.value.map(|value| value.to_bits().to_le_bytes()));
        self.form.push(row.quality.to_le_bytes()[0]);
        self.text(row.cause.unwrap_or_default());
        self.optional(row.lag_ms.map(i32::to_le_bytes));
        self.form.extend_from_slice(&row.seq.to_le_bytes());
    }

    pub(super) fn hex(mut self) -> String {
        self.flush();
        self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn flush(&mut self) {
        self.sha256.update(&self.form);
        self.form.clear();
    }

    /// A byte of length, then the text. Sensors have at most 159 bytes.
    fn text(&mut self, text: &str) {
        self.form.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.form.extend_from_slice(text.as_bytes());
    }

    fn optional<const N: usize>(&mut self, bytes: Option<[u8; N]>) {
        self.form.push(u8::from(bytes.is_some()));
        self.form.extend_from_slice(bytes.as_ref().map_or(&[], |bytes| bytes.as_slice()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Batches of one and the same reading had two checksums, and the lake would have taken neither for the other.
        #[test]
        fn a_plain_row_has_the_form_of_any_other(time_us: i64, value: f64, quality: i8, seq: i64) {
            let row = Row { sensor: "mast/wind", time_us, value: Some(value), quality, cause: None, lag_ms: None, seq };
            let (mut plain, mut any) = (RowDigest::default(), RowDigest::default());
            plain.plain(&row, value);
            any.any(&row);
            prop_assert_eq!(plain.form, any.form);
        }
    }
}
