//! Told once, told when it is over, and never lost on the way.

use super::*;
use proptest::prelude::*;

const MINUTE_US: i64 = 60_000_000;

fn hot(subject: &str) -> Condition {
    Condition { kind: Kind::Limit, subject: subject.to_owned(), text: format!("{subject} is 31 °C") }
}

fn told(state: &State, way: &str) -> Vec<(Change, String)> {
    let events = state.queues.get(way).map(|queue| queue.events.iter());
    events.into_iter().flatten().map(|event| (event.change, event.subject.clone())).collect()
}

#[test]
fn what_lasts_is_told_once_and_once_when_it_is_over() {
    let mut state = State::new(0);
    for minute in 0..30 {
        state.update(&[hot("a")], &["mail"], minute * MINUTE_US);
    }
    assert_eq!(told(&state, "mail"), [(Change::Begun, "a".to_owned())]);
    for minute in 30..60 {
        state.update(&[], &["mail"], minute * MINUTE_US);
    }
    assert_eq!(told(&state, "mail"), [(Change::Begun, "a".to_owned()), (Change::Ended, "a".to_owned())]);
    let ended = &state.queues["mail"].events[1];
    assert_eq!((ended.since, ended.until), (Moment(0), Some(Moment(30 * MINUTE_US))));
    assert!(state.alerts.is_empty());
    assert_ne!(state.queues["mail"].events[0].id, ended.id);
}

#[test]
fn a_value_that_swings_about_its_limit_is_one_alert() {
    let mut state = State::new(0);
    for minute in 0..120 {
        let conditions = if minute % 10 < 5 { vec![hot("a")] } else { vec![] };
        state.update(&conditions, &["mail"], minute * MINUTE_US);
    }
    assert_eq!(told(&state, "mail").len(), 1);
}

#[test]
fn a_clock_that_was_set_back_ends_nothing_early_and_nothing_never() {
    let mut state = State::new(0);
    state.update(&[hot("a")], &["mail"], 1_000 * MINUTE_US);
    state.update(&[], &["mail"], 1_000 * MINUTE_US);
    state.update(&[], &["mail"], MINUTE_US);
    assert_eq!(state.alerts.len(), 1);
    state.update(&[], &["mail"], 12 * MINUTE_US);
    assert!(state.alerts.is_empty());
}

#[test]
fn a_queue_that_nobody_empties_is_bounded_and_says_what_went() {
    let mut state = State::new(0);
    let conditions: Vec<_> = (0..QUEUE_MAX + 7).map(|number| hot(&format!("site/{number}"))).collect();
    state.update(&conditions, &["mail"], 0);
    assert_eq!((state.queues["mail"].events.len(), state.queues["mail"].dropped), (QUEUE_MAX, 7));
}

#[test]
fn a_way_that_is_taken_out_of_the_configuration_is_forgotten() {
    let mut state = State::new(0);
    state.update(&[hot("a")], &["mail", "webhook"], 0);
    state.update(&[hot("a")], &["webhook"], MINUTE_US);
    assert_eq!(state.queues.keys().collect::<Vec<_>>(), ["webhook"]);
}

/// Somebody saw in the log that much was wrong, and configured a mail: it never told of what was wrong already.
#[test]
fn a_way_that_comes_later_is_told_what_is_wrong_already_and_once() {
    let mut state = State::new(0);
    state.update(&[hot("b")], &["webhook"], 0);
    state.update(&[hot("a"), hot("b")], &["webhook"], MINUTE_US);
    for minute in 2..20 {
        state.update(&[hot("a"), hot("b")], &["mail", "webhook"], minute * MINUTE_US);
    }
    let begun = |subject: &str| (Change::Begun, subject.to_owned());
    assert_eq!(told(&state, "mail"), [begun("b"), begun("a")], "as they began");
    assert_eq!(told(&state, "webhook"), [begun("b"), begun("a")], "and nobody twice");
    assert_eq!(state.queues["mail"].events, state.queues["webhook"].events, "they are the same events");
    for minute in 20..40 {
        state.update(&[hot("b")], &["mail", "webhook"], minute * MINUTE_US);
    }
    assert_eq!(told(&state, "mail").last(), Some(&(Change::Ended, "a".to_owned())));
    // A watch that never told anybody, as an earlier version wrote it down.
    let mut state = State::new(0);
    state.update(&[hot("a")], &[], 0);
    state.update(&[hot("a")], &["mail"], MINUTE_US);
    assert_eq!(told(&state, "mail"), [begun("a")]);
}

#[test]
fn sources_are_remembered_to_the_hour_and_forgotten_after_a_month() {
    let mut state = State::new(0);
    state.heard([("landfall-01".to_owned(), 0)], 0);
    state.heard([("landfall-01".to_owned(), 10 * MINUTE_US)], 10 * MINUTE_US);
    assert_eq!(state.sources["landfall-01"], Moment(0), "a write a minute would be billed");
    state.heard([("landfall-01".to_owned(), 70 * MINUTE_US)], 70 * MINUTE_US);
    assert_eq!(state.sources["landfall-01"], Moment(70 * MINUTE_US));
    state.heard([], 70 * MINUTE_US + SOURCE_FORGOTTEN_US);
    assert!(state.sources.is_empty());
}

/// A gateway that was taken down a month ago is no source any more. That it "sends again" would be a lie.
#[test]
fn a_source_that_is_forgotten_is_not_said_to_be_back() {
    let mut state = State::new(0);
    let silent = Condition {
        kind: Kind::SourceSilent,
        subject: "landfall-01".to_owned(),
        text: "landfall-01 has sent nothing".to_owned(),
    };
    state.heard([("landfall-01".to_owned(), 0)], 0);
    state.update(&[silent, hot("a")], &["mail"], 60 * MINUTE_US);
    let alert = state.alerts["source_silent:landfall-01"].clone();
    assert!(!state.has_forgotten(&alert));
    for minute in 0..30 {
        let now_us = SOURCE_FORGOTTEN_US + minute * MINUTE_US;
        state.heard([], now_us);
        state.update(&[], &["mail"], now_us);
    }
    assert!(state.has_forgotten(&alert) && state.alerts.is_empty());
    let ended: Vec<_> = told(&state, "mail").into_iter().filter(|(change, _)| *change == Change::Ended).collect();
    assert_eq!(ended, [(Change::Ended, "a".to_owned())], "the other one is over");
}

proptest! {
    /// Whatever begins and ends, and whenever the process is restarted: the events of a subject take turns,
    /// begun first, and a state that was written down goes on as one that was not.
    #[test]
    fn events_take_turns(rounds in prop::collection::vec((0..8_u8, 0..20_i64, any::<bool>()), 1..60)) {
        let (mut state, mut kept) = (State::new(0), State::new(0));
        let mut now_us = 0;
        for (mask, minutes, restart) in rounds {
            now_us += minutes * MINUTE_US;
            let conditions: Vec<_> =
                (0..3).filter(|bit| mask >> bit & 1 == 1).map(|bit| hot(&format!("s{bit}"))).collect();
            state.update(&conditions, &["mail"], now_us);
            kept.update(&conditions, &["mail"], now_us);
            if restart {
                let bytes = serde_json::to_vec(&state).expect("written");
                state = serde_json::from_slice(&bytes).expect("read");
            }
        }
        prop_assert_eq!(&state, &kept);
        for subject in ["s0", "s1", "s2"] {
            let changes: Vec<_> =
                told(&state, "mail").into_iter().filter(|(_, told)| told == subject).map(|(change, _)| change).collect();
            for (place, change) in changes.iter().enumerate() {
                prop_assert_eq!(*change == Change::Begun, place % 2 == 0);
            }
            let open = state.alerts.contains_key(&format!("limit:{subject}"));
            prop_assert_eq!(open, changes.len() % 2 == 1);
        }
    }
}
