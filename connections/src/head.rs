//! Where the head of a request ends, told from the bytes that pass by.

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// For the first byte of a request.
    Quiet,
    /// For the rest of a head. `text`: a line of it has come; `blank`: nothing of the newest line has.
    Head { text: bool, blank: bool },
    /// For the answer, or the rest of the body.
    Told,
}

/// Follows the heads of a connection's requests.
#[derive(Debug)]
pub(super) struct Heads(Stage);

impl Heads {
    /// A new connection owes a head.
    pub(super) const fn new() -> Self {
        Self(Stage::Head { text: false, blank: true })
    }

    /// Whether a head has begun and not ended.
    pub(super) const fn is_owed(&self) -> bool {
        matches!(self.0, Stage::Head { .. })
    }

    /// Bytes came. Whether a head began with them.
    pub(super) fn came(&mut self, bytes: &[u8]) -> bool {
        let began = self.0 == Stage::Quiet && !bytes.is_empty();
        if began {
            *self = Self::new();
        }
        let Stage::Head { mut text, mut blank } = self.0 else { return began };
        for byte in bytes {
            match byte {
                // Empty lines before a request are no end of it.
                b'\n' if blank && text => {
                    self.0 = Stage::Told;
                    return began;
                }
                b'\n' => blank = true,
                b'\r' => {}
                _ => (text, blank) = (true, false),
            }
        }
        self.0 = Stage::Head { text, blank };
        began
    }

    /// An answer goes out: what comes next is another request.
    pub(super) const fn answered(&mut self) {
        self.0 = Stage::Quiet;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line_after_a_text() {
        for whole in [
            "GET / HTTP/1.1\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\n\n",
            "POST / HTTP/1.1\r\n\r\nbody",
        ] {
            let mut heads = Heads::new();
            heads.came(whole.as_bytes());
            assert!(!heads.is_owed(), "{whole:?}");
        }
        for half in ["", "\r\n\r\n\r\n", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\n\r"] {
            let mut heads = Heads::new();
            heads.came(half.as_bytes());
            assert!(heads.is_owed(), "{half:?}");
        }
    }

    #[test]
    fn after_an_answer_the_next_head_is_owed_from_its_first_byte() {
        let mut heads = Heads::new();
        heads.came(b"GET / HTTP/1.1\r\n\r\n");
        assert!(!heads.came(b"the body"));
        heads.answered();
        assert!(!heads.is_owed(), "it may stay quiet");
        assert!(heads.came(b"GET") && heads.is_owed());
        assert!(!heads.came(b" / HTTP/1.1\r\n\r\n") && !heads.is_owed());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_bytes_come(text in "[\r\nab]{0,40}", at in 0_usize..40) {
            let (first, second) = text.split_at(at.min(text.len()));
            let (mut pieces, mut whole) = (Heads::new(), Heads::new());
            pieces.came(first.as_bytes());
            pieces.came(second.as_bytes());
            whole.came(text.as_bytes());
            prop_assert_eq!(pieces.is_owed(), whole.is_owed());
        }
    }
}
