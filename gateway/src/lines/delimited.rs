//! Columns: `2026-08-21;12.3;45`.

use tjern_readings::reading::Cause;

use super::number;

/// The number in a column, counted from 1.
///
/// # Errors
/// [`Cause::NoMatch`] where the column is missing or no number, [`Cause::NotAvailable`] where it is
/// empty.
pub fn read(column: usize, separator: &str, line: &str) -> Result<f64, Cause> {
    let text = column.checked_sub(1).and_then(|skipped| line.split(separator).nth(skipped)).ok_or(Cause::NoMatch)?;
    number(text, separator != ",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_from_one() {
        let line = "2026-08-21; 12,3;;x";
        assert_eq!(read(2, ";", line), Ok(12.3));
        assert_eq!(read(3, ";", line), Err(Cause::NotAvailable));
        assert_eq!(read(4, ";", line), Err(Cause::NoMatch));
        assert_eq!(read(5, ";", line), Err(Cause::NoMatch));
        assert_eq!(read(2, ",", "1,2,3"), Ok(2.0));
        assert_eq!(read(2, "\t", "a\t-7"), Ok(-7.0));
    }
}
