//! What a file says of its two sort columns, row group by row group and page by page, held against its rows.
//!
//! Queries leave out row groups and pages by these words, so a wrong one is an answer in which rows are missing. A least
//! or greatest value may be wider than the rows (texts are cut short), unless the file calls it exact, as which readers
//! take those of a row group's times in any case; a count of rows without a value has to be right. What a file does not say
//! is not asked for.
//!
//! Limit: which rows a page has is believed of the file's own offset index. Times are held against where they are in
//! microseconds, as Delta wants them.

use std::borrow::Borrow;
use std::cmp::Ordering;

use parquet::basic::{ConvertedType, LogicalType, TimeUnit};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

/// What a file says of its two sort columns, and what was seen of them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    text: Column<Vec<u8>>,
    time: Column<i64>,
}

/// A column, divided by row groups, and by pages.
#[derive(Debug)]
struct Column<V> {
    name: &'static str,
    groups: Parts<V>,
    pages: Parts<V>,
    /// What makes no sense by itself.
    wrong: Vec<String>,
}

/// Parts of a column in the order of its rows.
#[derive(Debug)]
struct Parts<V> {
    parts: Vec<Part<V>>,
    now: usize,
}

#[derive(Debug)]
struct Part<V> {
    group: usize,
    page: Option<usize>,
    rows: u64,
    claim: Claim<V>,
    seen: Seen<V>,
}

/// What is said of a part; none where nothing is.
#[derive(Debug)]
struct Claim<V> {
    low: Option<V>,
    high: Option<V>,
    is_low_exact: bool,
    is_high_exact: bool,
    nulls: Option<u64>,
    /// Whether no row has a value.
    is_null: bool,
}

#[derive(Debug)]
struct Seen<V> {
    rows: u64,
    nulls: u64,
    ends: Option<(V, V)>,
}

impl<V> Default for Column<V> {
    fn default() -> Self {
        let parts = || Parts { parts: Vec::new(), now: 0 };
        Self { name: "", groups: parts(), pages: parts(), wrong: Vec::new() }
    }
}

impl<V> Default for Claim<V> {
    fn default() -> Self {
        Self { low: None, high: None, is_low_exact: false, is_high_exact: false, nulls: None, is_null: false }
    }
}

impl Claims {
    /// What a footer with its page index says of these columns.
    pub(super) fn of(metadata: &ParquetMetaData, [text, time]: [&'static str; 2]) -> Self {
        let columns = metadata.file_metadata().schema_descr();
        let place =
            |name: &str| (0..columns.num_columns()).find(|index| columns.column(*index).path().string() == name);
        let is_in_micros = |index: &usize| {
            let column = columns.column(*index);
            let is_micros =
                |kind: &LogicalType| matches!(kind, LogicalType::Timestamp(kind) if kind.unit == TimeUnit::MICROS);
            column.converted_type() == ConvertedType::TIMESTAMP_MICROS
                || column.logical_type_ref().is_some_and(is_micros)
        };
        Self {
            text: place(text).map_or_else(Column::default, |place| Column::of(metadata, text, place)),
            time: place(time)
                .filter(is_in_micros)
                .map_or_else(Column::default, |place| Column::of(metadata, time, place)),
        }
    }

    /// The next row.
    pub(super) fn take(&mut self, text: Option<&str>, time_us: Option<i64>) {
        self.text.take(text.map(str::as_bytes));
        self.time.take(time_us.as_ref());
    }

    /// What does not go with the rows: of each row group and column the first of the row group and of its pages.
    pub(super) fn wrong(&self) -> Vec<String> {
        let text = |value: &Vec<u8>| format!("`{}`", String::from_utf8_lossy(value));
        let time = |time_us: &i64| super::shown(*time_us);
        self.text.wrong(text).into_iter().chain(self.time.wrong(time)).collect()
    }
}

/// A value as statistics have it.
trait Stated: Ord + Clone {
    /// Of a row group, where its order is the column's.
    fn of_group(statistics: &Statistics) -> (Option<Self>, Option<Self>);
    /// Of a page.
    fn of_page(index: &ColumnIndexMetaData, page: usize) -> (Option<Self>, Option<Self>);
}

impl Stated for i64 {
    fn of_group(statistics: &Statistics) -> (Option<Self>, Option<Self>) {
        let Statistics::Int64(found) = statistics else { return (None, None) };
        (found.min_opt().copied(), found.max_opt().copied())
    }

    fn of_page(index: &ColumnIndexMetaData, page: usize) -> (Option<Self>, Option<Self>) {
        let ColumnIndexMetaData::INT64(index) = index else { return (None, None) };
        (index.min_value(page).copied(), index.max_value(page).copied())
    }
}

impl Stated for Vec<u8> {
    fn of_group(statistics: &Statistics) -> (Option<Self>, Option<Self>) {
        // The old fields were in the order of signed bytes, which nobody goes by.
        let Statistics::ByteArray(found) = statistics else { return (None, None) };
        if statistics.is_min_max_deprecated() {
            return (None, None);
        }
        (found.min_bytes_opt().map(<[u8]>::to_vec), found.max_bytes_opt().map(<[u8]>::to_vec))
    }

    fn of_page(index: &ColumnIndexMetaData, page: usize) -> (Option<Self>, Option<Self>) {
        let ColumnIndexMetaData::BYTE_ARRAY(index) = index else { return (None, None) };
        (index.min_value(page).map(<[u8]>::to_vec), index.max_value(page).map(<[u8]>::to_vec))
    }
}

impl<V: Stated> Column<V> {
    fn of(metadata: &ParquetMetaData, name: &'static str, place: usize) -> Self {
        let mut column = Self { name, ..Self::default() };
        for (group, found) in metadata.row_groups().iter().enumerate() {
            let rows = u64::try_from(found.num_rows()).unwrap_or(0);
            column.groups.parts.push(Part::new(group, None, rows, Claim::of_group(found, place)));
            let index = metadata.column_index().and_then(|groups| groups.get(group)?.get(place));
            let offsets = metadata.offset_index().and_then(|groups| groups.get(group)?.get(place));
            let pages = match (index, offsets) {
                (Some(ColumnIndexMetaData::NONE) | None, _) | (_, None) => Some(Vec::new()),
                (Some(index), Some(offsets)) => {
                    let first: Vec<i64> = offsets.page_locations().iter().map(|page| page.first_row_index).collect();
                    pages(group, rows, index, &first)
                }
            };
            match pages {
                // Nothing is said of its pages.
                Some(pages) if pages.is_empty() => {
                    column.pages.parts.push(Part::new(group, None, rows, Claim::default()))
                }
                Some(pages) => column.pages.parts.extend(pages),
                None => {
                    let what =
                        format!("row group {group}, column `{name}`: its page index and its pages do not go together");
                    column.wrong.push(what);
                    column.pages.parts.push(Part::new(group, None, rows, Claim::default()));
                }
            }
        }
        column
    }

    fn take<Q: Ord + ToOwned<Owned = V> + ?Sized>(&mut self, value: Option<&Q>)
    where
        V: Borrow<Q>,
    {
        self.groups.take(value);
        self.pages.take(value);
    }

    fn wrong(&self, shown: impl Fn(&V) -> String) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        for parts in [&self.groups, &self.pages] {
            let mut last = None;
            for part in &parts.parts {
                if last != Some(part.group)
                    && let Some(what) = part.wrong(&shown)
                {
                    let page = part.page.map(|page| format!(", page {page}")).unwrap_or_default();
                    wrong.push(format!("row group {}, column `{}`{page}: {what}", part.group, self.name));
                    last = Some(part.group);
                }
            }
        }
        wrong
    }
}

/// The pages of a row group; none where what is said of them makes no sense.
fn pages<V: Stated>(group: usize, rows: u64, index: &ColumnIndexMetaData, first: &[i64]) -> Option<Vec<Part<V>>> {
    if first.first() != Some(&0) || index.num_pages() != u64::try_from(first.len()).ok()? {
        return None;
    }
    let ends = first.iter().skip(1).copied().chain([i64::try_from(rows).ok()?]);
    let parts = first.iter().zip(ends).enumerate().map(|(page, (first, end))| {
        let rows = u64::try_from(end - first).ok()?;
        Some(Part::new(group, Some(page), rows, Claim::of_page(index, page)))
    });
    parts.collect()
}

impl<V: Stated> Claim<V> {
    fn of_group(group: &RowGroupMetaData, place: usize) -> Self {
        let Some(statistics) = group.column(place).statistics() else { return Self::default() };
        let (low, high) = V::of_group(statistics);
        let (is_low_exact, is_high_exact) = (statistics.min_is_exact(), statistics.max_is_exact());
        Self { low, high, is_low_exact, is_high_exact, nulls: statistics.null_count_opt(), is_null: false }
    }

    fn of_page(index: &ColumnIndexMetaData, page: usize) -> Self {
        let (low, high) = V::of_page(index, page);
        let nulls = index.null_count(page).and_then(|nulls| u64::try_from(nulls).ok());
        Self { low, high, nulls, is_null: index.is_null_page(page), ..Self::default() }
    }
}

impl<V> Parts<V> {
    fn take<Q: Ord + ToOwned<Owned = V> + ?Sized>(&mut self, value: Option<&Q>)
    where
        V: Borrow<Q>,
    {
        while self.parts.get(self.now).is_some_and(|part| part.seen.rows >= part.rows) {
            self.now += 1;
        }
        let Some(part) = self.parts.get_mut(self.now) else { return };
        part.seen.rows += 1;
        let Some(value) = value else {
            part.seen.nulls += 1;
            return;
        };
        let Some((least, greatest)) = &mut part.seen.ends else {
            part.seen.ends = Some((value.to_owned(), value.to_owned()));
            return;
        };
        match value.cmp((*greatest).borrow()) {
            // In a sorted file most rows are here.
            Ordering::Equal => {}
            Ordering::Greater => *greatest = value.to_owned(),
            Ordering::Less if value < (*least).borrow() => *least = value.to_owned(),
            Ordering::Less => {}
        }
    }
}

impl<V: Stated> Part<V> {
    const fn new(group: usize, page: Option<usize>, rows: u64, claim: Claim<V>) -> Self {
        Self { group, page, rows, claim, seen: Seen { rows: 0, nulls: 0, ends: None } }
    }

    fn wrong(&self, shown: impl Fn(&V) -> String) -> Option<String> {
        let (claim, seen) = (&self.claim, &self.seen);
        let said = if self.page.is_some() { "the page index says" } else { "its statistics say" };
        if let Some(nulls) = claim.nulls.filter(|nulls| *nulls != seen.nulls) {
            return Some(format!("{} rows have no value, and {said} {nulls}", seen.nulls));
        }
        let (least, greatest) = seen.ends.as_ref()?;
        if claim.is_null {
            return Some(format!("it holds {} to {}, and {said} that it holds nothing", shown(least), shown(greatest)));
        }
        let is_low_wrong = |low: &V| low > least || (claim.is_low_exact && low != least);
        let is_high_wrong = |high: &V| high < greatest || (claim.is_high_exact && high != greatest);
        let is_wrong = claim.low.as_ref().is_some_and(is_low_wrong) || claim.high.as_ref().is_some_and(is_high_wrong);
        let word = |value: &Option<V>| value.as_ref().map_or_else(|| "nothing".to_owned(), &shown);
        is_wrong.then(|| {
            let (least, greatest) = (shown(least), shown(greatest));
            format!("it holds {least} to {greatest}, and {said} {} to {}", word(&claim.low), word(&claim.high))
        })
    }
}
