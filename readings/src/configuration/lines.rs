//! Where the lines of a text begin, found once, so that a place's line is looked up.

use super::strings::work;

/// The lines of a text, the empty one behind its last newline too.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    starts: Vec<usize>,
    text_bytes: usize,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        work::looked_at(text.len());
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(place, _)| place + 1)).collect();
        Self { starts, text_bytes: text.len() }
    }

    /// In which line a place lies, from 1.
    pub(super) fn number(&self, place: usize) -> usize {
        self.starts.partition_point(|start| *start <= place)
    }

    /// Where that line begins.
    pub(super) fn start(&self, number: usize) -> usize {
        self.starts.get(number.saturating_sub(1)).copied().unwrap_or(self.text_bytes)
    }

    /// Where that line ends, its newline included.
    pub(super) fn end(&self, number: usize) -> usize {
        self.starts.get(number).copied().unwrap_or(self.text_bytes)
    }
}
