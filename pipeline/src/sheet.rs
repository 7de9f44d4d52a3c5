//! Tables of text as spreadsheets and loggers write them: separators, decimal commas, old encodings,
//! compressed or not. One line at a time.
//!
//! Numbers are read strictly: a point where commas are decimal is refused and never taken for a
//! separator of thousands, since 12.5 would become 125.

mod written;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::ByteRecord;
use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use written::{Raw, Tape, Taped, Written};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) separator: u8,
    pub(crate) decimal: Decimal,
    pub(crate) encoding: Encoding,
    /// How many lines stand before the one that names the columns.
    pub(crate) skip_lines: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self { separator: b',', decimal: Decimal::Point, encoding: Encoding::Utf8, skip_lines: 0 }
    }
}

/// What stands before the decimals of a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decimal {
    /// `12.5`.
    #[default]
    Point,
    /// `12,5`.
    Comma,
}

/// How letters are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1.
    #[serde(rename = "iso-8859-1")]
    Latin1,
}

/// How far a file has been read, in its own bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Counted<R> {
    inner: R,
    read: BytesRead,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.read.0.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Refuses what cannot be read twice: of a pipe the first bytes are gone once somebody has looked what it is.
pub(crate) fn can_be_read_twice(path: &Path) -> io::Result<()> {
    let kind = std::fs::metadata(path)?;
    if kind.is_file() {
        return Ok(());
    }
    Err(io::Error::other(
        "it is no file, and what comes through a pipe cannot be read twice; hint: write it into a file first",
    ))
}

/// The bytes of a file, unpacked where it is compressed with gzip.
pub(crate) fn open(path: &Path) -> io::Result<(Box<dyn BufRead + Send>, BytesRead)> {
    let read = BytesRead::default();
    let mut file = BufReader::new(Counted { inner: File::open(path)?, read: read.clone() });
    let is_packed = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    if is_packed {
        return Ok((Box::new(BufReader::new(MultiGzDecoder::new(file))), read));
    }
    Ok((Box::new(file), read))
}

/// A table of text that is being read.
pub(crate) struct Sheet {
    reader: csv::Reader<Taped<Box<dyn BufRead + Send>>>,
    written: Written,
    header: Vec<String>,
    layout: Layout,
}

/// A line of it, from 1 for the file's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    /// The fields, trimmed; or what is wrong with the whole line.
    pub(crate) fields: Result<Vec<String>, String>,
}

impl Sheet {
    /// Reads up to the names of the columns.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(mut bytes: Box<dyn BufRead + Send>, layout: Layout) -> Result<Self, String> {
        for skipped in 0..layout.skip_lines {
            if !skip_line(&mut bytes).map_err(|error| error.to_string())? {
                return Err(format!("it has only {skipped} lines, and {} are to be skipped", layout.skip_lines));
            }
        }
        let tape = Tape::default();
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(layout.separator)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(Taped { inner: bytes, tape: tape.clone() });
        let mut written = Written::new(tape);
        let header = reader.byte_headers().map_err(|error| error.to_string())?.clone();
        let mut header = fields_of(&header, layout.encoding)?;
        if let Some(first) = header.first_mut() {
            // Spreadsheets write a byte order mark, and it may stand before a quote.
            let plain = first.strip_prefix('\u{feff}').map(|rest| rest.trim_matches('"').to_owned());
            *first = plain.unwrap_or_else(|| std::mem::take(first));
        }
        if header.iter().all(String::is_empty) {
            return Err("it has no line that names its columns".to_owned());
        }
        written.record(reader.position().byte());
        Ok(Self { reader, written, header, layout })
    }

    /// The names of the columns.
    pub(crate) fn header(&self) -> &[String] {
        &self.header
    }

    /// Where a column stands.
    ///
    /// # Errors
    /// That it is not there, or more than once; and which there are.
    pub(crate) fn place(&self, column: &str) -> Result<usize, String> {
        let mut places = self.header.iter().enumerate().filter(|(_, name)| *name == column).map(|(place, _)| place);
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(place),
            (Some(_), Some(_)) => Err(format!("there are two columns `{column}`; hint: give them names of their own")),
            (None, _) => {
                let names: Vec<_> = self.header.iter().map(|name| format!("`{name}`")).collect();
                let many = names.len() == 1 && self.header[0].contains([';', '\t', ',']);
                let hint = if many { "; hint: is the separator right?" } else { "" };
                Err(format!("there is no column `{column}`, there are {}{hint}", names.join(", ")))
            }
        }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// That the file cannot be read on.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, String> {
        let mut record = ByteRecord::new();
        if !self.reader.read_byte_record(&mut record).map_err(|error| error.to_string())? {
            return Ok(None);
        }
        let raw = self.written.record(self.reader.position().byte());
        let number = raw.line + self.layout.skip_lines;
        let fields = if let Some(reason) = self.runs_on(&record, &raw) {
            Err(reason.to_owned())
        } else if record.len() == self.header.len() {
            fields_of(&record, self.layout.encoding)
        } else {
            Err(format!("it has {} fields, and there are {} columns", record.len(), self.header.len()))
        };
        Ok(Some(Line { number, fields }))
    }

    /// Why a record is none, where a text of it goes on over several lines. A text may; but a quote that is not closed takes the
    /// lines after it for its text, to the next quote or the end of the file.
    fn runs_on(&self, record: &ByteRecord, raw: &Raw) -> Option<&'static str> {
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let texts = || record.iter().filter(|field| field.iter().any(is_end));
        texts().next()?;
        if !raw.is_quoted_well(self.layout.separator) {
            return Some(
                "a quote in it is not closed on this line, and the lines up to the next quote were taken for its text; \
                 hint: write a quote in a text twice",
            );
        }
        let separators = |line: &[u8]| line.iter().filter(|byte| **byte == self.layout.separator).count();
        let is_of_the_table = |line: &[u8]| separators(line) + 1 >= self.header.len();
        texts().any(|field| field.split(is_end).skip(1).any(is_of_the_table)).then_some(
            "a text in it goes on over several lines, and these look like lines of the table; hint: is a quote missing? \
             Else take the column out",
        )
    }
}

/// Passes a line, however it ends (a line feed, a carriage return, both), in memory that does not grow with it. Returns
/// whether there was one.
fn skip_line(bytes: &mut dyn BufRead) -> io::Result<bool> {
    let mut is_there = false;
    loop {
        let piece = bytes.fill_buf()?;
        if piece.is_empty() {
            return Ok(is_there);
        }
        is_there = true;
        let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            let length = piece.len();
            bytes.consume(length);
            continue;
        };
        let is_return = piece[end] == b'\r';
        bytes.consume(end + 1);
        if is_return && bytes.fill_buf()?.first() == Some(&b'\n') {
            bytes.consume(1);
        }
        return Ok(true);
    }
}

fn fields_of(record: &ByteRecord, encoding: Encoding) -> Result<Vec<String>, String> {
    let fields = record.iter().map(|field| match encoding {
        Encoding::Latin1 => Ok(field.iter().map(|byte| char::from(*byte)).collect()),
        Encoding::Utf8 => {
            let text = std::str::from_utf8(field);
            text.map(str::to_owned).map_err(|_| "a character in it is not UTF-8; hint: is it ISO 8859-1?".to_owned())
        }
    });
    fields.collect()
}

/// The greatest whole number up to which a 64-bit float has every one.
const WHOLE_MAX: i128 = 1 << 53;

/// A number as it is written.
///
/// # Errors
/// That it is none.
pub(crate) fn number(text: &str, decimal: Decimal) -> Result<f64, String> {
    let refused = || format!("`{text}` is not a number");
    let plain = text.replace('\u{2212}', "-");
    let plain = match decimal {
        Decimal::Point => plain,
        Decimal::Comma if plain.contains('.') => {
            return Err(format!("`{text}` has a point, and commas are decimal here"));
        }
        Decimal::Comma => plain.replacen(',', ".", 1),
    };
    let is_plain = plain.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let number: f64 = plain.parse().ok().filter(|_| is_plain).ok_or_else(refused)?;
    if !number.is_finite() {
        return Err(format!("`{text}` is more than a number can be"));
    }
    let is_whole = plain.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-'));
    if is_whole && plain.parse::<i128>().map_or(true, |whole| whole.abs() > WHOLE_MAX) {
        return Err(format!(
            "`{text}` is a whole number beyond 2^53, which a reading cannot hold exactly; hint: scale it to a larger unit first"
        ));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(bytes: &[u8], layout: Layout) -> Sheet {
        Sheet::new(Box::new(io::Cursor::new(bytes.to_vec())), layout).expect("a header")
    }

    fn lines(mut sheet: Sheet) -> Vec<(u64, Result<Vec<String>, String>)> {
        std::iter::from_fn(|| sheet.next().expect("readable")).map(|line| (line.number, line.fields)).collect()
    }

    #[test]
    fn lines_are_read_as_spreadsheets_write_them() {
        let layout = Layout { separator: b';', encoding: Encoding::Latin1, skip_lines: 2, ..Layout::default() };
        let sheet = sheet(b"Export\nfrom a logger\ntid;m\xe5lt\n2026-07-01 ;\"1,5\"\n2026-07-02\n", layout);
        assert_eq!(sheet.header(), ["tid", "målt"]);
        let found = lines(sheet);
        assert_eq!(found[0], (4, Ok(vec!["2026-07-01".to_owned(), "1,5".to_owned()])));
        assert_eq!((found[1].0, found[1].1.is_err()), (5, true), "{found:?}");
    }

    /// One stray quote took all lines after it for a text, and nobody was told.
    #[test]
    fn a_quote_that_is_not_closed_is_told() {
        let found =
            lines(sheet(b"time,value,note\n2026-07-01,5,\"hm\n2026-07-02,6,\n2026-07-03,7,\n", Layout::default()));
        assert!(found[0].1.as_ref().is_err_and(|error| error.contains("quote")), "{found:?}");
    }

    /// The same in a file of carriage returns: two of its four lines were dropped without a word.
    #[test]
    fn a_quote_that_is_not_closed_is_told_whatever_ends_the_lines() {
        for end in ["\n", "\r", "\r\n"] {
            let text = ["time,value,note", "2026-07-01,5,\"hm", "2026-07-02,6,", "2026-07-03,7,\"", "2026-07-04,8,"];
            let found = lines(sheet(text.join(end).as_bytes(), Layout::default()));
            let wrong = found[0].1.as_ref().expect_err("it holds three lines");
            assert!(wrong.contains("quote") && found.len() == 2, "{end:?}: {found:?}");
        }
    }

    /// A note of two lines kept its reading out, in a column that nobody asked for.
    #[test]
    fn a_text_may_go_on_over_several_lines() {
        let text = "time,value,note\r\n2026-07-01,5,\"a \"\"quoted\"\"\r\nnewline, x\"\r\n2026-07-02,6,\r\n";
        let found = lines(sheet(text.as_bytes(), Layout::default()));
        let fields = |texts: [&str; 3]| Ok(texts.map(str::to_owned).to_vec());
        let first = (2, fields(["2026-07-01", "5", "a \"quoted\"\r\nnewline, x"]));
        assert_eq!(found, [first, (4, fields(["2026-07-02", "6", ""]))]);
    }

    /// Two quotes that were not closed, with lines between them: by its fields it would be a line, with another's value.
    #[test]
    fn what_two_stray_quotes_take_is_no_text() {
        for text in [
            "time,value,note\nt1,\"5,a\nt2,\"6,b\n",
            "time,value,note\nt1,5,\"a\nt2,6,b\nt3,7,\"\n",
            "time;value;note\nt1;5;\"a\nt2;6;b\"\n",
        ] {
            let separator = if text.contains(';') { b';' } else { b',' };
            let found = lines(sheet(text.as_bytes(), Layout { separator, ..Layout::default() }));
            assert!(found[0].1.is_err() && found[0].0 == 2, "{text:?}: {found:?}");
        }
    }

    /// In files with carriage returns it named the line before, where nothing was wrong.
    #[test]
    fn a_line_has_the_number_that_an_editor_gives_it() {
        for end in ["\n", "\r", "\r\n"] {
            for mark in ["", "\u{feff}"] {
                let text = ["an export", "time,v", "1,1", "", "", "2,2", "\"3\",3", "4,4,4", "5,5"].join(end);
                let text = format!("{mark}{text}");
                let found = lines(sheet(text.as_bytes(), Layout { skip_lines: 1, ..Layout::default() }));
                let numbers: Vec<_> = found.iter().map(|(number, fields)| (*number, fields.is_ok())).collect();
                assert_eq!(numbers, [(3, true), (6, true), (7, true), (8, false), (9, true)], "{end:?} {mark:?}");
            }
        }
    }

    /// It went on skipping at the end of the file, deaf to signals, for as long as somebody let it.
    #[test]
    fn more_lines_to_skip_than_there_are_is_told() {
        for end in ["\n", "\r", "\r\n"] {
            let text = ["an export", "of a logger", "time,value", "2026-07-01,5"].join(end);
            let opened = |skip_lines| {
                let bytes = Box::new(io::Cursor::new(text.clone().into_bytes()));
                Sheet::new(bytes, Layout { skip_lines, ..Layout::default() })
            };
            assert_eq!(opened(2).expect("a header").header(), ["time", "value"], "{end:?}");
            let refused = opened(u64::MAX).map(drop).expect_err("it ends");
            assert!(refused.starts_with("it has only 4 lines"), "{end:?}: {refused}");
        }
    }

    #[test]
    fn a_wrong_column_says_which_there_are() {
        let sheet = sheet("\u{feff}\"tid\",a,a\n".as_bytes(), Layout::default());
        assert_eq!(sheet.place("tid"), Ok(0));
        assert!(sheet.place("a").is_err_and(|error| error.contains("two columns")));
        assert!(sheet.place("b").is_err_and(|error| error.contains("`tid`, `a`")));
        let one = super::tests::sheet(b"tid;a\n", Layout::default());
        assert!(one.place("tid").is_err_and(|error| error.contains("separator")));
    }

    #[test]
    fn numbers_are_read_strictly() {
        assert_eq!(number("12.5", Decimal::Point), Ok(12.5));
        assert_eq!(number("-12,5", Decimal::Comma), Ok(-12.5));
        assert_eq!(number("\u{2212}0,5", Decimal::Comma), Ok(-0.5));
        assert_eq!(number("1e3", Decimal::Point), Ok(1000.0));
        assert_eq!(number("9007199254740991", Decimal::Point), Ok(9_007_199_254_740_991.0));
        assert_eq!(number("9007199254740992", Decimal::Point), Ok(9_007_199_254_740_992.0));
        for (text, decimal) in [
            ("12,5", Decimal::Point),
            ("12.5", Decimal::Comma),
            ("1.234,5", Decimal::Comma),
            ("1,2,3", Decimal::Comma),
            ("nan", Decimal::Point),
            ("inf", Decimal::Point),
            ("1e999", Decimal::Point),
            ("0x10", Decimal::Point),
            ("", Decimal::Point),
            ("12 m", Decimal::Point),
            ("9007199254740993", Decimal::Point),
            ("-18446744073709551615", Decimal::Comma),
        ] {
            assert!(number(text, decimal).is_err(), "{text:?} was read as {:?}", number(text, decimal));
        }
    }
}
