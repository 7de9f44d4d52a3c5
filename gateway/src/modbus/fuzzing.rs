//! Frames from anybody: see `crate::fuzzing`.

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, join, sink};

use super::frame::{Expected, Passed, crc, is_whole};
use super::mbap::{Guarded, TransactionIds};

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

/// What came over TCP in answer to a request.
///
/// # Panics
/// Where a frame with another id gets through.
pub fn tcp_frames(bytes: &[u8]) {
    // The id on the wire is drawn: here always the same.
    fastrand::seed(1);
    let ids = TransactionIds::new();
    let mut guarded = Guarded::new(join(bytes, sink()), ids);
    let mut received = Vec::new();
    let read = async {
        guarded.write_all(&[0, 0, 0, 0, 0, 6, 1, 4, 0, 0, 0, 2]).await?;
        guarded.flush().await?;
        guarded.read_to_end(&mut received).await
    };
    // All of it is there already: it ends at once, one way or the other.
    let _ = read.now_or_never();
    assert!(received.is_empty() || received.starts_with(&[0; 4]), "{received:02x?}");
}
