//! History of the register's tables: which row was valid from when to when.
//!
//! A changed row closes the old one and opens a new one; a row that is gone from the file is closed;
//! what is unchanged stays untouched. For one key no two rows are valid at the same moment. No I/O.

use std::collections::{HashMap, HashSet};

/// A row, and when it was valid: from `valid_from_us` on, up to and without `valid_to_us`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Versioned<T> {
    pub(crate) row: T,
    pub(crate) valid_from_us: i64,
    pub(crate) valid_to_us: Option<i64>,
}

/// How many rows of a table were opened and closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// New keys.
    pub added: usize,
    /// Keys whose row is another now.
    pub changed: usize,
    /// Keys that are gone from the file.
    pub closed: usize,
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added + self.changed + self.closed == 0
    }
}

/// The history with the file's rows applied at `now_us`. The clock may have been set back: times
/// of the history never go back, so `now_us` is moved behind every one of them.
pub(crate) fn apply<T: Clone + PartialEq>(
    history: &[Versioned<T>],
    rows: &[T],
    key: impl Fn(&T) -> &str,
    now_us: i64,
) -> (Vec<Versioned<T>>, Changes) {
    let newest = history.iter().map(|old| old.valid_from_us.max(old.valid_to_us.unwrap_or(i64::MIN))).max();
    let now_us = newest.map_or(now_us, |newest| now_us.max(newest.saturating_add(1)));
    let wanted: HashMap<&str, &T> = rows.iter().map(|row| (key(row), row)).collect();
    let mut changes = Changes::default();
    let mut unchanged = HashSet::new();
    let mut open = HashSet::new();
    let mut result = history.to_vec();
    for old in result.iter_mut().filter(|old| old.valid_to_us.is_none()) {
        let (name, found) =
            wanted.get_key_value(key(&old.row)).map_or((None, None), |(name, row)| (Some(*name), Some(*row)));
        open.extend(name);
        if found.is_some_and(|row| *row == old.row) {
            unchanged.extend(name);
            continue;
        }
        old.valid_to_us = Some(now_us);
        if found.is_some() {
            changes.changed += 1;
        } else {
            changes.closed += 1;
        }
    }
    for row in rows.iter().filter(|row| !unchanged.contains(key(row))) {
        changes.added += usize::from(!open.contains(key(row)));
        result.push(Versioned { row: row.clone(), valid_from_us: now_us, valid_to_us: None });
    }
    result.sort_by(|one, other| (key(&one.row), one.valid_from_us).cmp(&(key(&other.row), other.valid_from_us)));
    (result, changes)
}

/// The newest row of each key, valid or not.
pub(crate) fn newest<T>(history: &[Versioned<T>], key: impl Fn(&T) -> &str) -> HashMap<&str, &Versioned<T>> {
    let mut newest: HashMap<&str, &Versioned<T>> = HashMap::new();
    for row in history {
        let known = newest.entry(key(&row.row)).or_insert(row);
        if known.valid_from_us < row.valid_from_us {
            *known = row;
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    type Row = (String, u8);

    fn key(row: &Row) -> &str {
        &row.0
    }

    fn row(name: &str, value: u8) -> Row {
        (name.to_owned(), value)
    }

    #[test]
    fn a_changed_row_closes_the_old_one() {
        let (first, changes) = apply(&[], &[row("a", 1), row("b", 1)], key, 10);
        assert_eq!(changes, Changes { added: 2, changed: 0, closed: 0 });
        let (second, changes) = apply(&first, &[row("a", 2)], key, 20);
        assert_eq!(changes, Changes { added: 0, changed: 1, closed: 1 });
        let told: Vec<_> = second.iter().map(|old| (old.row.clone(), old.valid_from_us, old.valid_to_us)).collect();
        assert_eq!(told, [(row("a", 1), 10, Some(20)), (row("a", 2), 20, None), (row("b", 1), 10, Some(20))]);
        assert_eq!(newest(&second, key)["b"].row, row("b", 1));
    }

    /// A clock that jumped back once would leave a row that ends before it begins.
    #[test]
    fn history_never_goes_back() {
        let (first, _) = apply(&[], &[row("a", 1)], key, 100);
        let (second, _) = apply(&first, &[row("a", 2)], key, 5);
        assert_eq!(second.iter().map(|old| old.valid_from_us).collect::<Vec<_>>(), [100, 101]);
    }

    proptest! {
        #[test]
        fn what_is_valid_now_is_the_file(files in vec(btree_map("[a-d]", 0_u8..3, 0..5), 1..8)) {
            let mut history = Vec::new();
            for (step, file) in files.iter().enumerate() {
                let rows: Vec<Row> = file.iter().map(|(name, value)| (name.clone(), *value)).collect();
                let (after, changes) = apply(&history, &rows, key, i64::try_from(step).expect("few"));
                let now: Vec<Row> = after.iter().filter(|row| row.valid_to_us.is_none()).map(|row| row.row.clone()).collect();
                prop_assert_eq!(&now, &rows);
                prop_assert_eq!(changes.is_empty(), after == history);
                prop_assert!(after.len() >= history.len(), "history was forgotten");
                for pair in after.windows(2).filter(|pair| pair[0].row.0 == pair[1].row.0) {
                    prop_assert!(pair[0].valid_to_us.is_some_and(|end| end <= pair[1].valid_from_us));
                }
                history = after;
            }
        }
    }
}
