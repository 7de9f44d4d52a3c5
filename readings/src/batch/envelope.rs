//! The sizes that a batch file claims, held against the file before anything is allocated.
//!
//! Arrow's reader believes the lengths that stand in a file and allocates what they ask for: one
//! flipped bit could end the whole process for want of exabytes. Here every message, body and buffer
//! is held against the bytes that are there, and every length after decompression against a bound, each by itself and all
//! together: a small file may have very many columns, each no larger than a column may be.
//! The layout is that of the Arrow columnar format, "Encapsulated message format" and "Compressed
//! buffers" (Message.fbs, `BodyCompression`).

use arrow_ipc::{Message, MessageHeader, RecordBatch, root_as_message};

use super::BatchError;

/// The most bytes that a buffer of a batch may have: the widest column of the most rows, and as much
/// again for texts.
const BUFFER_BYTES_MAX: i64 = super::ROWS_MAX * 16;

/// The most bytes that all buffers of a batch may have together. The columns of the contract have 37 bytes a row and their
/// validity, which are 76 MB for the most rows, and their dictionaries; columns of later versions have room beside them.
pub(super) const DECODED_BYTES_MAX: u64 = 300_000_000;

/// The most bytes that its dictionaries may have together: a reader decompresses those of columns too that it does not
/// know. The words of one column are a buffer at the most.
const DICTIONARY_BYTES_MAX: u64 = 2 * BUFFER_BYTES_MAX.unsigned_abs();

/// The most columns, those within columns counted too.
const COLUMNS_MAX: usize = 256;

/// What stands before each message of a stream (since Arrow 0.15).
const CONTINUATION: [u8; 4] = [0xff; 4];

/// How many bytes the file's buffers have once they are decompressed, if everything that it claims can be true.
pub(super) fn check(file: &[u8]) -> Result<u64, BatchError> {
    let mut rest = file;
    let (mut bytes, mut words) = (0_u64, 0_u64);
    while let Some(message) = next_message(&mut rest)? {
        let body = take(&mut rest, message.bodyLength(), "the body of a message")?;
        let described = match message.header_type() {
            MessageHeader::RecordBatch => message.header_as_record_batch(),
            MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|batch| batch.data()),
            MessageHeader::Schema => {
                let fields = message.header_as_schema().and_then(|schema| schema.fields());
                if fields.into_iter().flatten().map(columns_in).sum::<usize>() > COLUMNS_MAX {
                    return Err(BatchError::Size { what: format!("more than {COLUMNS_MAX} columns") });
                }
                continue;
            }
            _ => continue,
        };
        let added = check_buffers(described, body)?;
        bytes = bytes.saturating_add(added);
        if message.header_type() == MessageHeader::DictionaryBatch {
            words = words.saturating_add(added);
        }
        for (bytes, most, what) in
            [(bytes, DECODED_BYTES_MAX, "columns"), (words, DICTIONARY_BYTES_MAX, "dictionaries")]
        {
            if bytes > most {
                return Err(BatchError::Size {
                    what: format!("{what} that would take more than {most} bytes in memory"),
                });
            }
        }
    }
    Ok(bytes)
}

/// How many columns a field is.
fn columns_in(field: arrow_ipc::Field<'_>) -> usize {
    1 + field.children().into_iter().flatten().map(columns_in).sum::<usize>()
}

/// The next message's description; `None` at the end of the stream.
fn next_message<'a>(rest: &mut &'a [u8]) -> Result<Option<Message<'a>>, BatchError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let mut length = take(rest, 4, "a length")?;
    if length == CONTINUATION {
        length = take(rest, 4, "a length")?;
    }
    let length = length.try_into().map_or(0, i32::from_le_bytes);
    if length == 0 {
        return Ok(None);
    }
    let described = take(rest, length.into(), "the description of a message")?;
    root_as_message(described).map(Some).map_err(|error| BatchError::Size { what: format!("a message: {error}") })
}

/// Returns how many bytes the buffers have once they are decompressed.
fn check_buffers(batch: Option<RecordBatch<'_>>, body: &[u8]) -> Result<u64, BatchError> {
    let refused = |what: &str| BatchError::Size { what: what.to_owned() };
    let batch = batch.ok_or_else(|| refused("rows without a description"))?;
    if !(0..=super::ROWS_MAX).contains(&batch.length()) {
        return Err(refused("more rows than a batch may have"));
    }
    let nodes = batch.nodes().into_iter().flatten();
    if nodes.into_iter().any(|node| node.length() < 0 || node.length() > super::ROWS_MAX || node.null_count() < 0) {
        return Err(refused("a column with more rows than a batch may have"));
    }
    let mut all = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let mut rest = body;
        take(&mut rest, buffer.offset(), "a buffer's place")?;
        let mut bytes = take(&mut rest, buffer.length(), "a buffer")?;
        if batch.compression().is_none() || bytes.is_empty() {
            all = all.saturating_add(bytes.len() as u64);
            continue;
        }
        let length = take(&mut bytes, 8, "a compressed buffer")?.try_into().map_or(0, i64::from_le_bytes);
        // -1: this buffer is not compressed after all.
        if !(-1..=BUFFER_BYTES_MAX).contains(&length) {
            return Err(refused("a buffer that would be larger than a batch may be"));
        }
        all = all.saturating_add(u64::try_from(length).unwrap_or(bytes.len() as u64));
    }
    Ok(all)
}

/// Takes `length` bytes from the front.
fn take<'a>(rest: &mut &'a [u8], length: i64, what: &str) -> Result<&'a [u8], BatchError> {
    let cut = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) = cut.ok_or_else(|| BatchError::Size { what: format!("{what} beyond the end of the file") })?;
    *rest = left;
    Ok(taken)
}
