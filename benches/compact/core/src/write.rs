//! A sealed file, by the lake's own encoder.

#[path = "../../../../lake/src/write/encode.rs"]
mod encode;
#[path = "../../../../lake/src/write/group.rs"]
mod group;
#[path = "../../../../lake/src/write/layout.rs"]
mod layout;
#[path = "../../../../lake/src/write/order.rs"]
mod order;
#[path = "../../../../lake/src/write/threads.rs"]
mod threads;

use arrow::array::RecordBatch;

use crate::{Failure, TableName};

pub struct Sealed(encode::EncodedFile);

pub fn sealed(threads: usize) -> Result<Sealed, Failure> {
    let mut file = encode::EncodedFile::new(TableName::Readings, layout::Purpose::Sealed)?;
    file.team = threads::Team::of(threads)?;
    Ok(Sealed(file))
}

impl Sealed {
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), Failure> {
        Ok(self.0.write(rows)?)
    }

    pub fn finish(self) -> Result<Vec<u8>, Failure> {
        let (bytes, order) = self.0.finish()?;
        assert!(order.sorted, "rows are in order");
        Ok(bytes)
    }
}
