//! The checksum of a batch's rows: SHA-256 over their values in one fixed form, so that it stays the
//! same however Arrow lays the rows out. The form is in `docs/batch-format.md`, section "Checksum".

use sha2::{Digest, Sha256};

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

impl RowDigest {
    pub(super) fn add(&mut self, row: &Row<'_>) {
        self.text(row.sensor);
        self.form.extend_from_slice(&row.time_us.to_le_bytes());
        self.optional(row.value.map(|value| value.to_bits().to_le_bytes()));
        self.form.push(row.quality.to_le_bytes()[0]);
        self.text(row.cause.unwrap_or_default());
        self.optional(row.lag_ms.map(i32::to_le_bytes));
        self.form.extend_from_slice(&row.seq.to_le_bytes());
        if self.form.len() >= FORM_LENGTH {
            self.flush();
        }
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
