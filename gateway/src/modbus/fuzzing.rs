//! Frames from anybody: see `crate::fuzzing`.

use std::time::Duration;

use futures::FutureExt;
use tokio::io::{Join, Sink, join, sink};

use super::frame::{Expected, Passed, crc, is_whole};
use super::mbap::{Connection, Stream, TransactionIds};
use super::transport::{Asked, ReadRequest, Table};

/// What came on an RTU line in answer to a read of two registers.
///
/// # Panics
/// Where something passes for an answer that is none.
pub fn rtu_frames(bytes: &[u8]) {
    let mut request = vec![1, 4, 0, 0, 0, 2];
    request.extend(crc(&request).to_le_bytes());
    let expected = Expected::to(&request).expect("a read has an answer");
    let mut received = bytes.to_vec();
    if let Some(answer) = expected.take(&mut received, &mut Passed::default()) {
        assert!(is_whole(&answer) && answer[0] == 1, "{answer:02x?}");
    }
}

impl Stream for Join<&[u8], Sink> {}

/// What came over TCP in answer to two requests that went out together.
///
/// # Panics
/// Where the requests have answers and their ids did not come.
pub fn tcp_frames(bytes: &[u8]) {
    accepted_over_tcp(bytes);
}

/// The same, and how many answers were accepted.
pub(crate) fn accepted_over_tcp(bytes: &[u8]) -> Option<usize> {
    let (ids, first) = drawn_ids();
    let asked =
        [0, 2].map(|address| Asked { unit: 1, request: ReadRequest::new(Table::Input, address, 2).expect("within") });
    let mut connection = Connection::new(join(bytes, sink()), ids);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _within = runtime.enter();
    // All of it is there already: it ends at once, one way or the other.
    let replies = connection.exchange(&asked, Duration::from_secs(1)).now_or_never()?.ok()?;
    let came = |id: u16| bytes.windows(2).any(|window| window == id.to_be_bytes());
    assert!(replies.len() == 2 && came(first.wrapping_add(1)) && came(first.wrapping_add(2)), "{replies:?}");
    Some(replies.len())
}

/// The ids on the wire are drawn: here always the same. With the one before the first.
fn drawn_ids() -> (TransactionIds, u16) {
    fastrand::seed(1);
    let ids = TransactionIds::new();
    let first = ids.next();
    (ids, first)
}

/// The right answers to these two requests.
#[cfg(test)]
pub(crate) fn answers_over_tcp() -> Vec<u8> {
    let (_, first) = drawn_ids();
    let answer = |after: u16| {
        let [high, low] = first.wrapping_add(after).to_be_bytes();
        [high, low, 0, 0, 0, 7, 1, 4, 4, 1, 2, 3, 4]
    };
    [1, 2].map(answer).concat()
}
