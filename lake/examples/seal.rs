//! Writes a Parquet file that has the columns of `readings` as compaction would, and says how big it becomes.
//!
//!     cargo run -p tjern-lake --example seal -- FILE.parquet...
//!
//! Prints a line per file: its path, rows, bytes, bytes a reading, and the seconds that writing took.

use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tjern_lake::{FileWriter, Lake, TableName, schema};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let lake = Lake::open(&"memory:///".parse()?)?;
        let mut writer = FileWriter::sealed(TableName::Readings)?;
        let mut seconds = 0.0;
        for batch in ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path)?)?.build()? {
            let rows = as_readings(&batch?)?;
            let began = Instant::now();
            writer.write(&rows)?;
            seconds += began.elapsed().as_secs_f64();
        }
        let began = Instant::now();
        let file = writer.finish(&lake).await?;
        seconds += began.elapsed().as_secs_f64();
        let rows = file.rows.unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "shown to three decimals")]
        let each = file.size as f64 / rows as f64;
        println!("{path}\t{rows}\t{}\t{each:.3}\t{seconds:.3}", file.size);
    }
    Ok(())
}

/// The columns in the table's order and types.
fn as_readings(batch: &RecordBatch) -> Result<RecordBatch, Box<dyn std::error::Error>> {
    let schema = schema::arrow(TableName::Readings);
    let columns = schema.fields().iter().map(|field| {
        let column = batch.column_by_name(field.name()).ok_or_else(|| format!("no column `{}`", field.name()))?;
        Ok::<_, Box<dyn std::error::Error>>(cast(column, field.data_type())?)
    });
    let columns = columns.collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}
