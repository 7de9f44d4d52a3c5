//! Compaction's own work: reads files, sorts within a bound on memory, counts and hashes, encodes a sealed file.
//!
//!     tjern-compact-core FOLDER FILE MEMORY_BYTES [THREADS]
//!
//! The modules are the pipeline's and the lake's own, from their sources. What is not here is what costs the same however many rows
//! there are: opening a table, the lease, the commit. Reading is by the same decoder, of files that are in memory as a whole.
//! The threads do what they do in the pipeline (`pipeline/src/compact/rewrite.rs`); there are as many as cores.
#![allow(dead_code, reason = "the modules have more than is needed here")]

// Where the modules look for their crates' own things.
extern crate self as tjern_readings;

#[path = "../../../../pipeline/src/compact/gathered.rs"]
mod gathered;
#[path = "../../../../pipeline/src/compact/merge.rs"]
mod merge;
#[path = "../../../../pipeline/src/compact/multiset.rs"]
mod multiset;
mod read;
#[path = "../../../../pipeline/src/compact/run.rs"]
mod run;
mod schema;
#[path = "../../../../pipeline/src/compact/sort.rs"]
mod sort;
#[path = "../../../../pipeline/src/compact/spill.rs"]
mod spill;
#[path = "../../../../pipeline/src/compact/texts.rs"]
mod texts;
mod windows;
mod write;

pub use schema::TableName;

/// As `tjern-readings` has it.
pub mod batch {
    /// Who writes a file.
    pub const SOFTWARE: &str = "tjern-compact-core";
}

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::RecordBatch;
use multiset::Multiset;
use sort::{SortCost, SortLimits, Sorter, with_texts};
use windows::Window;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Batches that wait between two parts of the work, as in the pipeline.
const QUEUE: usize = 2;

enum Output {
    Rows(RecordBatch),
    End(Multiset, Multiset, SortCost),
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (required, more) = arguments.split_at(arguments.len().min(3));
    let ([folder, file, memory], [] | [_]) = (required, more) else {
        return Err("usage: tjern-compact-core FOLDER FILE MEMORY_BYTES [THREADS]".into());
    };
    let threads = match more {
        [threads, ..] => threads.parse()?,
        [] => std::thread::available_parallelism()?.get(),
    };
    let file = PathBuf::from(file);
    let spill = file.parent().map_or_else(std::env::temp_dir, Path::to_owned);
    // Half of the memory is for the rows that are gathered.
    let limits = SortLimits { memory_bytes: memory.parse::<usize>()? / 2, folder: spill, threads };
    let (to_sorter, input) = sync_channel(QUEUE);
    let (output, from_sorter) = sync_channel(QUEUE);
    let sorting = std::thread::spawn(move || sort(limits, input, &output));
    for path in read::files(Path::new(folder))? {
        for rows in read::rows(&path)? {
            to_sorter.send(rows?)?;
        }
    }
    drop(to_sorter);
    let mut encoded = write::sealed(threads)?;
    let mut end = None;
    for output in from_sorter {
        match output {
            Output::Rows(rows) => encoded.write(&rows)?,
            Output::End(read, written, cost) => end = Some((read, written, cost)),
        }
    }
    sorting.join().map_err(|_| "the sorter panicked")??;
    let (read, written, cost) = end.ok_or("the sorter ended early")?;
    assert_eq!(read, written, "no row changed");
    println!("{} rows, {} runs of {} bytes", read.rows, cost.runs, cost.bytes);
    Ok(std::fs::write(file, encoded.finish()?)?)
}

fn sort(limits: SortLimits, input: Receiver<RecordBatch>, output: &SyncSender<Output>) -> Result<(), Failure> {
    let wanted = schema::arrow(TableName::Readings);
    let windows = vec![Window { from_us: i64::MIN, to_us: i64::MAX }];
    let mut sorter = Sorter::new(limits, windows, &schema::with_dictionaries(&wanted));
    for rows in input {
        sorter.push(&rows)?;
    }
    let mut handed_out = Multiset::default();
    let (read, cost) = sorter.finish(&mut |_, rows, texts| {
        handed_out.add(&rows, |_| texts.hashes());
        let rows = with_texts(&rows, texts, &wanted)?;
        output.send(Output::Rows(rows)).map_err(|_| sort::SortError::Stopped)
    })?;
    Ok(output.send(Output::End(read, handed_out, cost)).map_err(|_| "nobody takes the rows")?)
}
