//! A deadline for what is waited for again and again.
//!
//! The runtime's timers are cheap where they are rare: each new one that is due before all others wakes the thread that has
//! set it, and one that is set for a moment ago waits for the next millisecond. A connection asks hundreds of times a second
//! and is nearly always answered long before its timeout. So there is one timer for it, which is set anew when it rings
//! and not when the deadline moves. Limit: a task that is polled with this is woken once more, for nothing, after it is
//! done.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, Sleep, sleep_until};

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elapsed;

/// A timer that is kept.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// What a future brings until a deadline. What is ready counts, however late it is.
    pub(super) async fn until<F: Future>(&mut self, deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            // It rings before the deadline at most.
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            while timer.as_mut().poll(context).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(Err(Elapsed));
                }
                timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;

    /// Deadlines that come nearer, go farther and have passed: each is kept to the millisecond.
    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_kept() {
        let mut patience = Patience::default();
        for (wait_ms, answers) in
            [(500, true), (500, false), (40, false), (3_000, false), (0, false), (7, true), (20, false)]
        {
            let (began, wait) = (Instant::now(), Duration::from_millis(wait_ms));
            let waiting = async {
                match answers {
                    true => tokio::time::sleep(wait / 2).await,
                    false => pending().await,
                }
            };
            let result = patience.until(began + wait, waiting).await;
            let passed = began.elapsed();
            match answers {
                true => assert!(result == Ok(()) && passed < wait, "{wait_ms}: {passed:?}"),
                false => assert!(
                    result == Err(Elapsed) && passed >= wait && passed <= wait + Duration::from_millis(2),
                    "{wait_ms}: {passed:?}"
                ),
            }
        }
        let past = Instant::now() - Duration::from_secs(1);
        assert_eq!(patience.until(past, ready(7)).await, Ok(7), "what is there counts");
    }
}
