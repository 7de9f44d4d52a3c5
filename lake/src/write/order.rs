//! Whether the rows of a file are sorted and unique, and from where to where they reach: found out while
//! they pass and never claimed by whoever writes them, since queries are planned on it.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;

use crate::TableName;

/// What is found out about the rows while they pass.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) rows: i64,
    pub(super) text: Option<(String, String)>,
    pub(super) time_us: Option<(i64, i64)>,
    last: Option<(String, i64)>,
    pub(super) sorted: bool,
    pub(super) unique: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { rows: 0, text: None, time_us: None, last: None, sorted: true, unique: true }
    }
}

impl Order {
    /// The sensor of the newest row.
    pub(super) fn last_text(&self) -> Option<&str> {
        self.last.as_ref().map(|(text, _)| text.as_str())
    }

    pub(super) fn take(&mut self, batch: &RecordBatch, table: TableName) {
        let columns = table.sort_columns().map(|name| batch.column_by_name(name).expect("sort columns are columns"));
        let texts = columns[0].as_string::<i32>();
        let times = columns[1].as_primitive::<TimestampMicrosecondType>();
        self.rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        for row in 0..batch.num_rows() {
            self.step(texts.value(row), times.value(row));
        }
    }

    fn step(&mut self, text: &str, time_us: i64) {
        match &mut self.last {
            Some((last, last_us)) if last == text => {
                self.sorted &= *last_us <= time_us;
                self.unique &= *last_us != time_us;
                *last_us = time_us;
            }
            last => {
                self.sorted &= last.as_ref().is_none_or(|(last, _)| last.as_str() < text);
                *last = Some((text.to_owned(), time_us));
                let (least, greatest) = self.text.get_or_insert_with(|| (text.to_owned(), text.to_owned()));
                if text < least.as_str() {
                    text.clone_into(least);
                }
                if text > greatest.as_str() {
                    text.clone_into(greatest);
                }
            }
        }
        let (least, greatest) = self.time_us.get_or_insert((time_us, time_us));
        *least = time_us.min(*least);
        *greatest = time_us.max(*greatest);
    }
}
