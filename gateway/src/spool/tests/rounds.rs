//! A spool that is given rounds is in everything the spool that is given their readings.

use std::sync::Arc;

use proptest::prelude::*;
use tjern_readings::batch;
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::round::Round;
use tjern_readings::rows::Rows;
use tjern_readings::sensor::SensorId;

use super::super::core::Core;
use super::super::sealed::SealedKind;
use super::super::{Claim, locked};
use super::memory::{EIO, Memory, Plan};
use super::model::{open, sensor};

/// So few readings wait in memory here while the disk refuses them.
const PENDING_MAX: usize = 100;

#[derive(Debug, Clone, Copy)]
enum Step {
    Rounds(usize, i64),
    Reading(bool),
    Sync,
    Seal,
    LimitBatches(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_usize..8, 0_i64..100).prop_map(|(rounds, time_us)| Step::Rounds(rounds, time_us)),
        2 => any::<bool>().prop_map(Step::Reading),
        2 => Just(Step::Sync),
        1 => Just(Step::Seal),
        1 => (1_000_u64..20_000).prop_map(Step::LimitBatches),
    ];
    prop::collection::vec(step, 1..60)
}

/// All that a spool has, and says of itself, but for its epoch.
fn told(core: &Core) -> String {
    let of_file = |bytes: &[u8]| batch::decode(bytes).and_then(|batch| batch.readings()).expect("a batch");
    let sealed = core.shelf.objects.iter().map(|object| {
        let bytes = core.disk.read(&object.path()).ok();
        let readings = bytes.filter(|_| object.kind == SealedKind::Batch).map(|bytes| of_file(&bytes));
        (object.bounds, object.kind, readings, core.fresh.times_us(object))
    });
    let waiting: Vec<Reading> = core.pending.iter().collect();
    let newest: Vec<_> = (0..12).map(|number| locked(&core.known).newest_us(&sensor(number))).collect();
    let mut status = core.status();
    let nobodys = tjern_readings::sensor::Epoch::from_bytes([0; 16]);
    status.epoch = nobodys;
    status.claim = status.claim.map(|claim| Claim { epoch: nobodys, run: nobodys, ..claim });
    format!(
        "{:?} {waiting:?} {newest:?} {status:?} {:?}",
        sealed.collect::<Vec<_>>(),
        core.log.next_length(&mut locked(&core.known))
    )
}

fn unsealed(core: &Core) -> Vec<super::super::core::Piece> {
    core.unsealed.iter().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Also where the disk fails for a while, memory is full, and rounds are cut in two.
    #[test]
    fn rounds_are_kept_as_their_readings(steps in steps(), fails in (0_u64..60, 1_u64..40), restart: bool) {
        let list: Arc<[SensorId]> = (0..7).map(sensor).collect();
        let disks = [(); 2].map(|()| Memory::new(Plan::FailWith(fails.0, fails.1, EIO)));
        let mut cores = [open(&disks[0], 1 << 20), open(&disks[1], 1 << 20)];
        cores.iter_mut().for_each(|core| core.pending_max = PENDING_MAX);
        let mut number = 0;
        for step in steps {
            let mut rows = Rows::default();
            match step {
                Step::Rounds(rounds, time_us) => for _ in 0..rounds {
                    let values = (0..list.len()).map(|place| (number + place) as f64).collect();
                    rows.append(Round::new(Arc::clone(&list), time_us, values).expect("finite").into());
                    number += list.len();
                },
                Step::Reading(has_value) => {
                    rows.push(Reading::from_result(sensor(9), 5, if has_value { Ok(number as f64) } else { Err(Cause::Crc) }));
                    number += 1;
                }
                Step::Sync => prop_assert_eq!(cores[0].sync(), cores[1].sync()),
                Step::Seal => prop_assert_eq!(cores[0].seal(), cores[1].seal()),
                Step::LimitBatches(bytes) => cores.iter_mut().for_each(|core| core.batch_bytes = bytes),
            }
            cores.iter().for_each(|core| locked(&core.known).note_all_taken(rows.spans()));
            cores[1].append(rows.iter().collect::<Vec<_>>());
            cores[0].append(rows);
            prop_assert_eq!(told(&cores[0]), told(&cores[1]));
            prop_assert_eq!(unsealed(&cores[0]), unsealed(&cores[1]));
        }
        if restart {
            let [first, second] = disks.map(|disk| open(&disk.image(&mut fastrand::Rng::with_seed(1), Plan::Well), 1 << 20));
            prop_assert_eq!((told(&first), unsealed(&first)), (told(&second), unsealed(&second)));
        }
    }
}
