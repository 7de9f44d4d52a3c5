//! What the query engine says where it fails, for people: its own words, and where it stumbled over a data file the way to find out which.

use std::error::Error;
use std::fmt;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;

/// An error of the query engine as it is shown. The engine names no file that it cannot decode.
#[derive(Debug)]
pub struct Said<'a>(pub &'a DataFusionError);

impl fmt::Display for Said<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the query engine failed: {}", self.0)?;
        if is_of_a_file(self.0) {
            formatter.write_str(
                "; hint: a data file may be damaged: `tjern pipeline verify` names it, and \"A damaged data file\" in docs/backup.md says what brings it back",
            )?;
        }
        Ok(())
    }
}

fn is_of_a_file(error: &DataFusionError) -> bool {
    let mut inner: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = inner {
        let is_missing = matches!(error.downcast_ref(), Some(object_store::Error::NotFound { .. }));
        let is_broken = matches!(error.downcast_ref(), Some(ArrowError::ParquetError(_)));
        if is_missing || is_broken || error.is::<ParquetError>() {
            return true;
        }
        inner = error.source();
    }
    false
}
