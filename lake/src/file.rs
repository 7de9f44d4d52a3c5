//! A data file of a table, as an entry of the log describes it: where it is, how big, what its
//! statistics promise, and what our own tags say about its order.

use std::collections::HashMap;

use deltalake_core::kernel::{Add, Remove};
use serde::Deserialize;
use serde_json::{Value, json};

/// Our tag on files whose rows are sorted by the table's sort columns.
pub(crate) const TAG_SORTED: &str = "tjern.sorted";
/// Our tag on files of `readings` in which `(sensor, time)` is unique.
pub(crate) const TAG_UNIQUE: &str = "tjern.unique";

/// Our tag with the SHA-256 of a file's bytes, in hex: what `sha256sum` says of it.
pub(crate) const TAG_SHA256: &str = "tjern.sha256";

/// A data file of a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataFile {
    /// Relative to the table's folder.
    pub path: String,
    /// In bytes.
    pub size: i64,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: i64,
    /// How many rows it has, where the log says so.
    pub rows: Option<i64>,
    /// The least and the greatest text in its first sort column (`sensor`), where known.
    pub sensor: Option<(String, String)>,
    /// The least and the greatest of its second sort column (`time`), in microseconds, where known.
    pub time_us: Option<(i64, i64)>,
    /// Whether its rows are sorted.
    pub sorted: bool,
    /// Whether `(sensor, time)` is unique in it.
    pub unique: bool,
    /// The SHA-256 of its bytes, where the log says so: files of earlier versions and of other writers have none.
    pub sha256: Option<[u8; 32]>,
}

/// What an entry of the log says of a file, in JSON and in checkpoints.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddEntry {
    pub(crate) path: String,
    pub(crate) size: i64,
    #[serde(default)]
    pub(crate) modification_time: i64,
    #[serde(default)]
    pub(crate) stats: Option<String>,
    #[serde(default)]
    pub(crate) tags: Option<HashMap<String, Option<String>>>,
    #[serde(default)]
    pub(crate) deletion_vector: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    num_records: Option<i64>,
    min_values: HashMap<String, Value>,
    max_values: HashMap<String, Value>,
}

impl DataFile {
    /// The file that an entry describes. Statistics that cannot be read are unknown, never wrong.
    pub(crate) fn from_entry(entry: AddEntry, columns: [&str; 2]) -> Self {
        let stats: Stats = entry.stats.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let tags = entry.tags.unwrap_or_default();
        let tagged = |tag: &str| tags.get(tag).is_some_and(Option::is_some);
        let ours = tagged(TAG_SORTED);
        let text = |values: &HashMap<String, Value>| values.get(columns[0])?.as_str().map(str::to_owned);
        let time = |values: &HashMap<String, Value>, last| time_us(values.get(columns[1])?.as_str()?, last && !ours);
        Self {
            path: decode_path(&entry.path),
            size: entry.size,
            modified_ms: entry.modification_time,
            rows: stats.num_records,
            sensor: text(&stats.min_values).zip(text(&stats.max_values)),
            time_us: time(&stats.min_values, false).zip(time(&stats.max_values, true)),
            sorted: ours,
            unique: tagged(TAG_UNIQUE),
            sha256: tags.get(TAG_SHA256).and_then(|text| from_hex(text.as_deref()?)),
        }
    }

    pub(crate) fn to_add(&self, columns: [&str; 2]) -> Add {
        Add {
            path: self.path.clone(),
            partition_values: HashMap::new(),
            size: self.size,
            modification_time: self.modified_ms,
            data_change: true,
            stats: Some(self.stats(columns)),
            tags: Some(self.tags(columns)),
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }
    }

    /// The removal of this file. It always says `dataChange`: delta-rs overlooks concurrent removals
    /// that do not.
    pub(crate) fn to_remove(&self, now_ms: i64) -> Remove {
        Remove {
            path: self.path.clone(),
            data_change: true,
            deletion_timestamp: Some(now_ms),
            extended_file_metadata: None,
            partition_values: None,
            size: Some(self.size),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
        }
    }

    fn stats(&self, [text, time]: [&str; 2]) -> String {
        let mut stats = json!({ "numRecords": self.rows, "minValues": {}, "maxValues": {}, "nullCount": {} });
        if let Some((least, greatest)) = &self.sensor {
            stats["minValues"][text] = json!(least);
            stats["maxValues"][text] = json!(greatest);
            stats["nullCount"][text] = json!(0);
        }
        let written = self.time_us.and_then(|(least, greatest)| rfc3339(least).zip(rfc3339(greatest)));
        // What cannot be written is left out: unknown, never wrong.
        if let Some((least, greatest)) = written {
            stats["minValues"][time] = json!(least);
            stats["maxValues"][time] = json!(greatest);
            stats["nullCount"][time] = json!(0);
        }
        stats.to_string()
    }

    fn tags(&self, columns: [&str; 2]) -> HashMap<String, Option<String>> {
        let mut tags = HashMap::new();
        if self.sorted {
            tags.insert(TAG_SORTED.to_owned(), Some(columns.join(",")));
        }
        if self.unique {
            tags.insert(TAG_UNIQUE.to_owned(), Some("true".to_owned()));
        }
        if let Some(sha256) = &self.sha256 {
            tags.insert(TAG_SHA256.to_owned(), Some(sha256.iter().map(|byte| format!("{byte:02x}")).collect()));
        }
        tags
    }
}

/// A SHA-256 in hex; none where the text is none.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The log writes paths as parts of a URL (Delta protocol, "Add File and Remove File").
pub(crate) fn decode_path(path: &str) -> String {
    object_store::path::Path::from_url_path(path).map_or_else(|_| path.to_owned(), |decoded| decoded.to_string())
}

/// A moment as text with microseconds; none beyond the years that can be written.
fn rfc3339(time_us: i64) -> Option<String> {
    jiff::Timestamp::from_microsecond(time_us).ok().map(|time| format!("{time:.6}"))
}

/// Other writers cut the greatest time to milliseconds, so theirs may be almost one too early (Delta
/// protocol, "Per-file Statistics").
fn time_us(text: &str, widen: bool) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_microsecond() + if widen { 999 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 2] = ["sensor", "time"];

    fn file() -> DataFile {
        DataFile {
            path: "a.parquet".to_owned(),
            size: 10,
            modified_ms: 5,
            rows: Some(3),
            sensor: Some(("a/b".to_owned(), "c/d".to_owned())),
            time_us: Some((-1, 1_767_225_600_123_456)),
            sorted: true,
            unique: true,
            sha256: Some([0xA5; 32]),
        }
    }

    #[test]
    fn a_file_survives_the_log() {
        let add = serde_json::to_value(file().to_add(COLUMNS)).expect("JSON");
        let entry: AddEntry = serde_json::from_value(add).expect("an entry");
        assert_eq!(DataFile::from_entry(entry, COLUMNS), file());
    }

    /// Taking a foreign writer's greatest time at its word would hide the readings of its last
    /// millisecond from a query.
    #[test]
    fn a_foreign_greatest_time_is_widened() {
        let stats = r#"{"numRecords":1,"minValues":{"time":"2026-01-01T00:00:00.123Z"},"maxValues":{"time":"2026-01-01T00:00:00.123Z"}}"#;
        let entry = AddEntry {
            path: "x".into(),
            size: 1,
            modification_time: 0,
            stats: Some(stats.into()),
            tags: None,
            deletion_vector: None,
        };
        let (least, greatest) = DataFile::from_entry(entry, COLUMNS).time_us.expect("known");
        assert_eq!(greatest - least, 999);
    }
}
