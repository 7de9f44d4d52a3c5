//! What is told of a bus's line: how it is now is always shown, and the log has a line for each new reason for which it cannot be
//! used.
//!
//! Reasons may change places with every attempt, and hold numbers that differ each time: while a line cannot be used each reason is
//! told once, whatever its numbers, and [`REASONS_MAX`] at most. Once it could be used again, all are new. No I/O.

use super::state::LineState;

/// So many reasons are told while a line cannot be used: a server may have a new word for each attempt.
const REASONS_MAX: usize = 8;

/// How a line is, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct LineNews {
    now: Option<LineState>,
    told: Vec<String>,
}

/// What is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    Nothing,
    /// A reason that was told before.
    Known,
    /// It can be used, and could not; or it cannot, and did so far.
    Changed,
    /// It cannot be used as before, for another reason.
    OtherReason,
}

impl LineNews {
    /// Whether it could not be used when it was last needed.
    pub(super) const fn is_away(&self) -> bool {
        matches!(self.now, Some(LineState::Missing(_) | LineState::Babbles(_)))
    }

    /// The line was needed, and was found like this.
    pub(super) fn note(&mut self, line: &LineState) -> News {
        if self.now.as_ref() == Some(line) {
            return News::Nothing;
        }
        let was_away = self.is_away();
        self.now = Some(line.clone());
        let Some(reason) = reason(line) else {
            self.told.clear();
            return News::Changed;
        };
        if self.told.contains(&reason) || self.told.len() >= REASONS_MAX {
            return News::Known;
        }
        self.told.push(reason);
        if was_away { News::OtherReason } else { News::Changed }
    }
}

/// A reason without its numbers, which may be others each time.
fn reason(line: &LineState) -> Option<String> {
    let (kind, why) = match line {
        LineState::Up => return None,
        LineState::Missing(why) => ('m', why),
        LineState::Babbles(why) => ('b', why),
    };
    Some(std::iter::once(kind).chain(why.chars().filter(|character| !character.is_ascii_digit())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(why: &str) -> LineState {
        LineState::Missing(why.to_owned())
    }

    #[test]
    fn each_reason_is_told_once_while_the_line_is_away() {
        let mut news = LineNews::default();
        let (refused, reset) = (missing("refused (os error 111)"), missing("reset by peer (os error 104)"));
        let told: Vec<News> = [&refused, &refused, &reset, &refused, &reset, &LineState::Up, &LineState::Up, &reset]
            .map(|line| news.note(line))
            .to_vec();
        use News::{Changed, Known, Nothing, OtherReason};
        assert_eq!(told, [Changed, Nothing, OtherReason, Known, Known, Changed, Nothing, Changed]);
        assert!(news.is_away());
    }

    /// A line that babbles says another count of bytes each time: a line a slot.
    #[test]
    fn reasons_that_differ_in_their_numbers_or_have_no_end_do_not_flood_the_log() {
        let mut news = LineNews::default();
        let counted = (0..1_000).map(|bytes| LineState::Babbles(format!("{bytes} bytes without a pause")));
        assert_eq!(counted.filter(|line| news.note(line) != News::Known).count(), 1);
        let endless = (0..1_000).map(|word| missing(&"x".repeat(word)));
        assert!(endless.filter(|line| news.note(line) == News::OtherReason).count() < REASONS_MAX);
    }
}
