//! Under which configuration each number of a stream was measured: known as long as its readings are,
//! and not only while its batch lies in the landing zone.
//!
//! It stands in the application transactions of `readings`, moved by the commit that brings the rows, as a
//! step function of the number: `:configuration/<source>/<epoch>/<first number>/<sha256>` holds from that
//! number on, up to the next step; `none` for batches that name no configuration. A step that
//! is set anew has a higher transaction version. So an epoch costs one transaction and one more for each change of its configuration,
//! however many batches it has. See `docs/decisions/0009-…`.

use std::collections::{BTreeMap, HashMap};

use tjern_readings::keys::Bounds;

use super::landing::Stream;

/// What stands before steps. No source has such a name.
const PREFIX: &str = ":configuration/";

/// What stands for batches that name no configuration.
const NONE: &str = "none";

/// The steps of the streams that were asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Configurations {
    streams: Option<HashMap<String, Steps>>,
}

/// The steps of one stream: by the number from which each holds, its configuration and its version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Steps(BTreeMap<i64, (String, i64)>);

impl Configurations {
    /// The steps of a stream, which a first call reads from a table's transactions.
    pub(crate) fn of(&mut self, stream: &Stream, transactions: &HashMap<String, i64>) -> &mut Steps {
        let streams = self.streams.get_or_insert_with(|| read(transactions));
        streams.entry(name(stream)).or_default()
    }

    /// The steps of a stream for somebody who sets more of them, which may come to nothing; a first call takes those that are known.
    pub(super) fn over(&mut self, stream: &Stream, known: &Self) -> &mut Steps {
        let streams = self.streams.get_or_insert_with(HashMap::new);
        let of_known = |name: &String| known.streams.as_ref()?.get(name).cloned();
        streams.entry(name(stream)).or_insert_with_key(|name| of_known(name).unwrap_or_default())
    }

    /// Takes what a transaction says now.
    pub(super) fn note(&mut self, app_id: &str, version: i64) {
        note(self.streams.get_or_insert_with(HashMap::new), app_id, version);
    }
}

fn name((source, epoch): &Stream) -> String {
    format!("{source}/{epoch}")
}

fn read(transactions: &HashMap<String, i64>) -> HashMap<String, Steps> {
    let mut streams = HashMap::new();
    for (app_id, version) in transactions {
        note(&mut streams, app_id, *version);
    }
    streams
}

fn note(streams: &mut HashMap<String, Steps>, app_id: &str, version: i64) {
    let Some(rest) = app_id.strip_prefix(PREFIX) else { return };
    let [source, epoch, first, configuration] = rest.split('/').collect::<Vec<_>>()[..] else { return };
    let Ok(first) = first.parse::<i64>() else { return };
    let steps = &mut streams.entry(format!("{source}/{epoch}")).or_default().0;
    let known = steps.entry(first).or_insert((configuration.to_owned(), version));
    if known.1 < version {
        *known = (configuration.to_owned(), version);
    }
}

impl Steps {
    /// The configuration of a number; none where its batch named none, or came before this was remembered.
    pub(crate) fn at(&self, number: i64) -> Option<&str> {
        self.word_at(number).filter(|word| *word != NONE)
    }

    fn word_at(&self, number: i64) -> Option<&str> {
        self.0.range(..=number).next_back().map(|(_, (word, _))| word.as_str())
    }

    /// Sets the configuration of some numbers, and of no other that was taken: those after them were only
    /// where these come `late`. Returns the transactions that say so.
    pub(super) fn set(
        &mut self,
        stream: &Stream,
        bounds: Bounds,
        configuration: Option<&str>,
        late: bool,
    ) -> Vec<(String, i64)> {
        let word = configuration.unwrap_or(NONE);
        let inside: Vec<i64> = self.0.range(bounds.first + 1..bounds.last + 1).map(|(first, _)| *first).collect();
        let before = self.word_at(bounds.first).unwrap_or(NONE);
        if inside.is_empty() && before == word {
            return Vec::new();
        }
        let after = bounds.last + 1;
        let rest = self.word_at(after).unwrap_or(NONE).to_owned();
        let mut moved = vec![self.step(stream, bounds.first, word)];
        moved.extend(inside.into_iter().map(|first| self.step(stream, first, word)));
        if late && rest != word && !self.0.contains_key(&after) {
            moved.push(self.step(stream, after, &rest));
        }
        moved
    }

    fn step(&mut self, stream: &Stream, first: i64, word: &str) -> (String, i64) {
        let version = self.0.get(&first).map_or(1, |(_, version)| version + 1);
        self.0.insert(first, (word.to_owned(), version));
        (format!("{PREFIX}{}/{first:020}/{word}", name(stream)), version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tjern_readings::sensor::Epoch;

    fn stream() -> Stream {
        ("landfall-01".parse().expect("valid"), Epoch::from_bytes([7; 16]))
    }

    fn bounds(first: i64, last: i64) -> Bounds {
        Bounds::new(first, last).expect("in order")
    }

    #[test]
    fn batches_under_one_configuration_cost_one_transaction() {
        let mut steps = Steps::default();
        let first = steps.set(&stream(), bounds(1, 10), Some("aa"), false);
        assert_eq!(first, [(format!(":configuration/landfall-01/{}/{:020}/aa", stream().1, 1), 1)]);
        for batch in 1..100 {
            assert!(steps.set(&stream(), bounds(batch * 10 + 1, batch * 10 + 10), Some("aa"), false).is_empty());
        }
        assert_eq!(
            Steps::default().set(&stream(), bounds(1, 10), None, false),
            [],
            "an import without one costs nothing"
        );
    }

    proptest! {
        /// Whatever order batches come in (in turn, or late into what was passed): each number has the
        /// configuration of its own batch, also when it is read back from the table.
        #[test]
        fn each_number_keeps_its_own(
            cuts in prop::collection::btree_set(1_i64..60, 1..12),
            words in prop::collection::vec(prop::option::of(prop::sample::select(vec!["aa", "bb"])), 12),
            late in prop::collection::vec(any::<bool>(), 12),
        ) {
            let mut first = 1;
            let mut batches = Vec::new();
            for ((last, word), late) in cuts.iter().zip(words).zip(late) {
                batches.push((bounds(first, *last), word, late));
                first = last + 1;
            }
            let in_turn = batches.iter().filter(|(_, _, late)| !late);
            // The last ones to come fill what was passed, or follow all that is there.
            let filled = batches.iter().rev().filter(|(_, _, late)| *late);
            let mut transactions = HashMap::new();
            let mut taken: Vec<(Bounds, Option<&str>)> = Vec::new();
            for (bounds, word, late) in in_turn.chain(filled) {
                let mut known = Configurations::default();
                let moved = known.of(&stream(), &transactions).set(&stream(), *bounds, *word, *late);
                transactions.extend(moved);
                taken.push((*bounds, *word));
                let mut known = Configurations::default();
                let steps = known.of(&stream(), &transactions);
                for (bounds, word) in &taken {
                    for number in bounds.first..=bounds.last {
                        prop_assert_eq!(steps.at(number), *word, "number {}", number);
                    }
                }
            }
        }
    }
}
