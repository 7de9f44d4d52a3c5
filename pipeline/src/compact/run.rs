//! Sorted rows on disk, where they do not fit into memory: a run.
//!
//! A run is an Arrow stream in a file without a name, so that nothing stays behind whatever ends the
//! process. Its batches are in order, and each belongs to one window.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::sort::SortError;

/// A run that is written.
pub(super) struct RunWriter {
    stream: StreamWriter<BufWriter<File>>,
    windows: Vec<usize>,
    folder: PathBuf,
}

/// A run that was written.
pub(super) struct Run {
    file: File,
    windows: Vec<usize>,
    pub(super) bytes: u64,
}

/// A run that is read.
pub(super) struct RunReader {
    stream: StreamReader<BufReader<File>>,
    windows: std::vec::IntoIter<usize>,
}

impl RunWriter {
    /// A new run in a folder.
    pub(super) fn new(folder: &Path, schema: &Schema) -> Result<Self, SortError> {
        let file = tempfile::tempfile_in(folder).map_err(|source| failed(folder, source))?;
        let stream = StreamWriter::try_new(BufWriter::new(file), schema).map_err(|error| refused(folder, error))?;
        Ok(Self { stream, windows: Vec::new(), folder: folder.to_owned() })
    }

    /// Adds rows of a window, which come after all that were added before.
    pub(super) fn write(&mut self, window: usize, rows: &RecordBatch) -> Result<(), SortError> {
        self.windows.push(window);
        self.stream.write(rows).map_err(|error| refused(&self.folder, error))
    }

    /// Ends it.
    pub(super) fn finish(self) -> Result<Run, SortError> {
        let Self { stream, windows, folder } = self;
        let mut buffered = stream.into_inner().map_err(|error| refused(&folder, error))?;
        buffered.flush().map_err(|source| failed(&folder, source))?;
        let mut file = buffered.into_inner().map_err(|error| failed(&folder, error.into_error()))?;
        let bytes = file.stream_position().and_then(|bytes| file.rewind().map(|()| bytes));
        Ok(Run { bytes: bytes.map_err(|source| failed(&folder, source))?, file, windows })
    }
}

impl Run {
    /// Reads it from its beginning.
    pub(super) fn read(self) -> Result<RunReader, SortError> {
        let stream = StreamReader::try_new(BufReader::new(self.file), None)?;
        Ok(RunReader { stream, windows: self.windows.into_iter() })
    }
}

impl RunReader {
    /// The next rows, and their window.
    pub(super) fn next(&mut self) -> Result<Option<(usize, RecordBatch)>, SortError> {
        match (self.stream.next(), self.windows.next()) {
            (Some(rows), Some(window)) => Ok(Some((window, rows?))),
            (None, None) => Ok(None),
            (rows, _) => Err(SortError::Arrow(ArrowError::IpcError(format!(
                "a run {} rows than were written",
                if rows.is_some() { "has more" } else { "has fewer" }
            )))),
        }
    }
}

fn failed(folder: &Path, source: std::io::Error) -> SortError {
    SortError::Spill { folder: folder.to_owned(), source }
}

fn refused(folder: &Path, error: ArrowError) -> SortError {
    match error {
        ArrowError::IoError(_, source) => failed(folder, source),
        other => SortError::Arrow(other),
    }
}
