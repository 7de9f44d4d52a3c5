//! A converter that sends each answer once more by itself, a while after it.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::super::wire::now;
use super::super::{Manners, RtuMaster, RtuPlace};
use super::{PATIENCE, serial, truth, words};
use crate::modbus::faults::{Broken, Dial, FarEnd, with_broken};

/// A converter that sends each answer once more, alone, so long after it.
async fn repeater(mut line: FarEnd, after: Duration) {
    let mut due: VecDeque<(tokio::time::Instant, Vec<u8>)> = VecDeque::new();
    loop {
        let next = due.front().map_or_else(|| tokio::time::Instant::now() + PATIENCE, |(at, _)| *at);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(next) => {
                if let Some((_, frame)) = due.pop_front() {
                    line.write(&frame).await;
                }
            }
            request = line.read::<8>() => {
                let answered_at = tokio::time::Instant::now() + Duration::from_millis(5);
                due.push_back((answered_at, truth(&request)));
                due.push_back((answered_at + after, truth(&request)));
                due.make_contiguous().sort_by_key(|(at, _)| *at);
            }
        }
    }
}

/// How many values are right and how many are not, of twenty rounds of eight registers, and how long a round takes at the end.
fn rounds_before_a_repeater(after: Duration) -> (usize, usize, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (dial, mut far_ends) = Dial::to_a_story();
        let mut master = RtuMaster::new(RtuPlace::Port(serial("in memory", 19_200)), Manners::patient_for(PATIENCE / 60));
        master.dial = Some(dial);
        let rounds = async {
            let (mut right, mut wrong, mut took) = (0, 0, Duration::ZERO);
            for _ in 0..20 {
                let began = now();
                for address in [11, 100, 200, 300, 400, 500, 600, 700] {
                    let (request, expected) = words(address, 1);
                    match master.read(1, request).await {
                        Ok(answer) if answer == expected => right += 1,
                        Ok(_) => wrong += 1,
                        Err(_) => {}
                    }
                }
                took = now() - began;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            (right, wrong, took)
        };
        tokio::select! {
            result = rounds => result,
            () = async { repeater(far_ends.recv().await.expect("it opens"), after).await } => unreachable!("it goes on for ever"),
        }
    })
}

/// A converter that sends each answer once more, when the next register is asked for already: its value was that of the one before.
#[test]
fn a_copy_of_an_answer_that_comes_alone_is_no_value() {
    for after_ms in [4, 12, 30, 70] {
        let after = Duration::from_millis(after_ms);
        let (right, wrong, took) = rounds_before_a_repeater(after);
        assert_eq!(wrong, 0, "{after:?}: {right} are right");
        assert!(right >= 158, "{after:?}: what is not believed is one answer, and asked again: {right}");
        assert!(
            took < (after + Duration::from_millis(60)) * 8,
            "{after:?}: no more is waited than for the copies: {took:?}"
        );
    }
    for after_ms in [4, 12] {
        let after = Duration::from_millis(after_ms);
        let (right, wrong, _) = with_broken(Broken::Copies, || rounds_before_a_repeater(after));
        assert!(wrong > 0, "{after:?}: who does not notice them takes them for values, and {right} are right");
    }
}
