//! Writes the rows of a merge's files anew: sorted, a window after the other, in files of the target size.
//!
//! Data goes one way, through two short queues: this task reads and decodes, a thread of its own gathers and merges
//! (and others sort and write what is gathered, [`super::spill`]), and this task encodes, with other threads' help, and puts.
//! Where it is dropped, both queues close and the threads end.
//!
//! In the end the new files are read back, as a query will: their rows have to be those that were read, in order, or nothing
//! is handed out. So a fault of what sorts, cuts or encodes is found before the old files are removed. It holds a row group and a batch.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use futures::StreamExt;
use tjern_lake::read::with_dictionaries;
use tjern_lake::{DataFile, FileReader, FileWriter, LakeError, Table, TableName, schema};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::gathered::BATCH_ROWS;
use super::multiset::Multiset;
use super::sort::{SortCost, SortError, SortLimits, Sorter, with_texts};
use super::windows::{Merge, Window};
use super::{CompactError, CompactSettings, Step};

/// Batches that wait between two parts of the work.
const QUEUE: usize = 2;

/// A merge's new files, and what they cost.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) files: Vec<DataFile>,
    pub(super) rows: i64,
    pub(super) cost: SortCost,
}

/// What goes to the thread that sorts.
enum Input {
    Rows(RecordBatch),
    /// All rows were sent. Without it whoever sent them has gone.
    End,
}

/// What comes from it.
enum Output {
    /// Rows of a window, in order.
    Rows(usize, RecordBatch),
    /// All rows were sent: what was read, what was handed out, and what that took.
    End(Multiset, Multiset, SortCost),
}

/// How rows are put into a file.
type Encode = fn(&mut FileWriter, &RecordBatch) -> Result<(), LakeError>;

/// Writes the rows of a merge's files into new files, which nobody names yet.
pub(super) async fn rewrite(
    table: &Table,
    merge: &Merge,
    settings: &CompactSettings,
    told: &mut (dyn FnMut(Step) + Send),
) -> Result<Rewritten, CompactError> {
    rewrite_by(table, merge, settings, told, FileWriter::write).await
}

/// The same with another encoder, so that a test can see what becomes of a broken one.
async fn rewrite_by(
    table: &Table,
    merge: &Merge,
    settings: &CompactSettings,
    told: &mut (dyn FnMut(Step) + Send),
    encode: Encode,
) -> Result<Rewritten, CompactError> {
    let memory_bytes = usize::try_from(settings.memory_bytes / 2).unwrap_or(usize::MAX);
    let limits = SortLimits { memory_bytes, folder: settings.spill_folder.clone(), threads: settings.threads };
    let (to_sorter, input) = channel(QUEUE);
    let (output, from_sorter) = channel(QUEUE);
    let windows = merge.windows.clone();
    let sorting = tokio::task::spawn_blocking(move || sort(limits, windows, input, &output));
    let read = read(table, &merge.files, &to_sorter, told).await;
    let written = match read {
        Ok(()) => {
            let _ = to_sorter.send(Input::End).await;
            write(table, from_sorter, settings, told, encode).await
        }
        Err(error) => Err(error),
    };
    // Closes what is left of both queues, so that the thread ends.
    drop(to_sorter);
    match sorting.await.map_err(|error| CompactError::Sort(error.to_string()))? {
        Ok(()) | Err(SortError::Stopped) => written?.ok_or_else(|| CompactError::Sort("it ended early".to_owned())),
        Err(SortError::Spill { folder, source }) => Err(CompactError::Spill { folder, source }),
        Err(SortError::Arrow(error)) => Err(CompactError::Sort(error.to_string())),
    }
}

/// Reads all files. Ends early where the sorter has gone, which then says why.
async fn read(
    table: &Table,
    files: &[DataFile],
    to_sorter: &Sender<Input>,
    told: &mut (dyn FnMut(Step) + Send),
) -> Result<(), CompactError> {
    for file in files {
        let rows = FileReader::open_unaltered(table.lake(), TableName::Readings, file).await?;
        let mut rows = rows.rows(BATCH_ROWS)?;
        while let Some(batch) = rows.next().await {
            if to_sorter.send(Input::Rows(batch?)).await.is_err() {
                return Ok(());
            }
        }
        told(Step::Read { bytes: u64::try_from(file.size).unwrap_or(0) });
    }
    Ok(())
}

fn sort(
    limits: SortLimits,
    windows: Vec<Window>,
    mut input: Receiver<Input>,
    output: &Sender<Output>,
) -> Result<(), SortError> {
    let mut sorter = Sorter::new(limits, windows, &with_dictionaries(TableName::Readings));
    loop {
        match input.blocking_recv() {
            Some(Input::Rows(rows)) => sorter.push(&rows)?,
            Some(Input::End) => break,
            None => return Err(SortError::Stopped),
        }
    }
    let wanted = schema::arrow(TableName::Readings);
    let mut handed_out = Multiset::default();
    let (read, cost) = sorter.finish(&mut |window, rows, texts| {
        handed_out.add(&rows, |_| texts.hashes());
        let rows = with_texts(&rows, texts, &wanted)?;
        output.blocking_send(Output::Rows(window, rows)).map_err(|_| SortError::Stopped)
    })?;
    output.blocking_send(Output::End(read, handed_out, cost)).map_err(|_| SortError::Stopped)
}

/// Writes what comes. Returns nothing where the sorter ended early.
async fn write(
    table: &Table,
    mut from_sorter: Receiver<Output>,
    settings: &CompactSettings,
    told: &mut (dyn FnMut(Step) + Send),
    encode: Encode,
) -> Result<Option<Rewritten>, CompactError> {
    let (bytes_max, memory_bytes) = (settings.file_bytes(), settings.memory_bytes / 4);
    let threads = settings.threads;
    let mut cutter = Cutter { table, bytes_max, memory_bytes, threads, encode, open: None, files: Vec::new() };
    while let Some(output) = from_sorter.recv().await {
        match output {
            Output::Rows(window, rows) => {
                cutter.put(window, &rows).await?;
                told(Step::Written { rows: u64::try_from(rows.num_rows()).unwrap_or(0) });
                // Encoding waits for nothing, and others share this thread.
                tokio::task::yield_now().await;
            }
            Output::End(read, handed_out, cost) => {
                let files = cutter.finish().await?;
                let written = read_back(table, &files).await?;
                if read != handed_out
                    || read != written
                    || files.iter().filter_map(|file| file.rows).sum::<i64>() != read.rows
                {
                    return Err(CompactError::Changed { read: read.rows, written: written.rows });
                }
                return Ok(Some(Rewritten { files, rows: read.rows, cost }));
            }
        }
    }
    Ok(None)
}

/// The rows of new files, as everybody will read them from now on.
async fn read_back(table: &Table, files: &[DataFile]) -> Result<Multiset, CompactError> {
    let mut written = Multiset::default();
    for file in files {
        let mut places = Places::default();
        let mut rows = FileReader::open(table.lake(), TableName::Readings, file).await?.rows(BATCH_ROWS)?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            if !places.follow(&batch) {
                return Err(CompactError::Unsorted { path: file.path.clone() });
            }
            written.add_dictionaries(&batch);
            // Decoding waits for nothing, and others share this thread.
            tokio::task::yield_now().await;
        }
    }
    Ok(written)
}

/// The sensor and time of the last row that was seen.
#[derive(Debug, Default)]
struct Places(Option<(String, i64)>);

impl Places {
    /// Takes rows. Returns whether each is at the place of the one before it or behind it.
    fn follow(&mut self, rows: &RecordBatch) -> bool {
        let sensors = rows.column(0).as_dictionary::<Int32Type>();
        let names = sensors.values().as_string::<i32>();
        let times = rows.column(1).as_primitive::<TimestampMicrosecondType>().values();
        let mut key_before = None;
        for (key, time_us) in sensors.keys().values().iter().zip(times) {
            // Most rows are of the sensor of the row before: its name is not looked at.
            let name =
                if key_before == Some(*key) { None } else { usize::try_from(*key).ok().map(|key| names.value(key)) };
            key_before = Some(*key);
            let follows = self.0.as_ref().is_none_or(|(sensor, before_us)| match name {
                Some(name) => (sensor.as_str(), *before_us) <= (name, *time_us),
                None => before_us <= time_us,
            });
            if !follows {
                return false;
            }
            match (&mut self.0, name) {
                (Some((_, before_us)), None) => *before_us = *time_us,
                (place, name) => *place = Some((name.unwrap_or_default().to_owned(), *time_us)),
            }
        }
        true
    }
}

/// Rows into files: a file is of one window and of about the target size, and ends, where that can be, with a sensor,
/// so that the files of a window do not share one.
struct Cutter<'a> {
    table: &'a Table,
    bytes_max: u64,
    /// What a row group under way may take.
    memory_bytes: u64,
    threads: usize,
    encode: Encode,
    open: Option<Open>,
    files: Vec<DataFile>,
}

struct Open {
    window: usize,
    writer: FileWriter,
    sensor: String,
}

impl Open {
    /// Whether it has so many quarters of the target size.
    fn is_filled(&self, bytes_max: u64, quarters: u64) -> bool {
        u64::try_from(self.writer.bytes()).unwrap_or(u64::MAX) >= bytes_max / 4 * quarters
    }
}

impl Cutter<'_> {
    async fn put(&mut self, window: usize, rows: &RecordBatch) -> Result<(), CompactError> {
        let mut rows = rows.clone();
        if self.open.as_ref().is_some_and(|open| open.window != window || open.is_filled(self.bytes_max, 4)) {
            self.end_file().await?;
        }
        if let Some(open) = &mut self.open
            && open.is_filled(self.bytes_max, 3)
            && let Some(border) = first_other(&rows, &open.sensor)
        {
            if border > 0 {
                (self.encode)(&mut open.writer, &rows.slice(0, border))?;
            }
            self.end_file().await?;
            rows = rows.slice(border, rows.num_rows() - border);
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let writer = FileWriter::sealed_within(TableName::Readings, self.memory_bytes)?;
                let writer = writer.with_threads(self.threads)?;
                self.open.insert(Open { window, writer, sensor: String::new() })
            }
        };
        (self.encode)(&mut open.writer, &rows)?;
        if let Some(last) = rows.num_rows().checked_sub(1) {
            rows.column(0).as_string::<i32>().value(last).clone_into(&mut open.sensor);
        }
        Ok(())
    }

    async fn end_file(&mut self) -> Result<(), CompactError> {
        if let Some(Open { writer, .. }) = self.open.take() {
            self.files.push(writer.finish(self.table.lake()).await?);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<DataFile>, CompactError> {
        self.end_file().await?;
        Ok(self.files)
    }
}

/// The first row of another sensor.
fn first_other(rows: &RecordBatch, sensor: &str) -> Option<usize> {
    let sensors = rows.column(0).as_string::<i32>();
    (0..rows.num_rows()).find(|row| sensors.value(*row) != sensor)
}

#[cfg(test)]
mod tests;
