//! Files and blocks that cannot be read: each costs what was in it, and a gap says so.

use super::*;

/// A folder that cannot be listed ended the gateway, and a watchdog started it again and again: nothing was polled.
#[test]
fn a_folder_that_cannot_be_listed_is_read_later_and_polling_goes_on() {
    let (disk, _) = with_records(&[3, 2]);
    disk.make_unlistable(Path::new(""));
    let mut core = open(&disk, 1 << 20);
    assert!(core.in_trouble() && core.status().is_unread);
    // The slot that was read before the restart is read again after it.
    core.append(readings(4, 6));
    assert!(!core.sync() && !core.seal() && core.offered().is_empty());
    disk.heal();
    assert!(core.sync(), "{:?}", core.status());
    assert!(!core.status().is_unread && core.status().next_seq == 11);
    drop(core);
    let (values, missing, status) = all_of(&disk);
    assert_eq!((values, missing, status.bad_records), ((0..10).collect(), 0, 0));
}

/// It can never be listed again: what is in it waits for a person, and everything else goes on under numbers past it.
#[test]
fn a_folder_of_sealed_files_that_can_never_be_listed_is_moved_aside() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(0, 10));
    assert!(core.seal());
    core.append(readings(10, 5));
    assert!(core.sync());
    let (epoch, folder) = (core.log.epoch, super::super::sealed::folder(core.log.epoch));
    drop(core);
    disk.make_unlistable(&folder);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(15, 5));
    let tries = (0..ATTEMPTS_MAX + 2).take_while(|_| !core.sync()).count();
    assert_eq!(tries as u32, ATTEMPTS_MAX - 1, "a disk that is away for a moment is waited for");
    assert!(core.seal(), "{:?}", core.status());
    let status = core.status();
    assert_eq!((status.epoch, status.bad_records, status.next_seq), (epoch, 1, 21));
    let offered: Vec<Bounds> = core.offered().iter().map(|object| object.bounds).collect();
    assert_eq!(offered, [Bounds { first: 11, last: 15 }, Bounds { first: 16, last: 20 }]);
    let aside = format!("{}.unreadable-", folder.display());
    let kept = disk.files().into_iter().filter(|file| file.display().to_string().starts_with(&aside)).count();
    assert_eq!(kept, 1, "{:?}", disk.files());
}

/// The newest segment's inode is damaged: which numbers it gave out nobody knows, so none of them is given again,
/// and the file stays for a person.
#[test]
fn a_segment_whose_inode_is_damaged_ends_the_epoch_and_stays() {
    let (disk, path) = with_records(&[3, 2]);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(5, 4));
    assert!(core.sync());
    let (epoch, newest) = (core.log.epoch, core.log.active.as_ref().expect("written").path.clone());
    assert_ne!(path, newest);
    drop(core);
    disk.damage_inode(&newest);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(9, 1));
    assert!(core.seal(), "{:?}", core.status());
    assert_ne!(core.log.epoch, epoch, "a number would be given twice");
    assert_eq!(core.status().bad_records, 1);
    assert!(disk.files().contains(&newest), "{:?}", disk.files());
}

/// One file of which the disk does not say what it is holds up no other.
#[test]
fn a_sealed_file_whose_inode_is_damaged_becomes_a_gap() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    for from in [0, 10, 20] {
        core.append(readings(from, 10));
        assert!(core.seal());
    }
    let damaged = core.offered()[1].clone();
    drop(core);
    disk.damage_inode(&damaged.path());
    let mut core = open(&disk, 1 << 20);
    let offered = core.offered();
    assert_eq!(offered.len(), 3);
    core.give_up(&offered[1]);
    let mut lake = Lake::default();
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, missing) = lake.values().expect("once");
    assert_eq!((values.len(), missing), (20, 10));
}

fn all_of(disk: &Memory) -> (Vec<u64>, i64, super::super::SpoolStatus) {
    let mut core = open(disk, 1 << 20);
    let status = core.status();
    let mut lake = Lake::default();
    assert!(core.seal());
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, missing) = lake.values().expect("once");
    (values.into_iter().collect(), missing, status)
}

/// A bad record in the middle costs its own readings and no other's, and a gap says so.
#[test]
fn a_bad_record_is_stepped_over_and_its_numbers_are_covered_by_a_gap() {
    let (disk, path) = with_records(&[3, 2, 4]);
    let first = super::super::record::encode_readings(1, readings(0, 3).iter()).len();
    disk.damage(&path, |bytes| bytes[segment::RECORDS_AT + first + 20] ^= 1);
    let (values, missing, status) = all_of(&disk);
    assert_eq!((values, missing), (vec![0, 1, 2, 5, 6, 7, 8], 2));
    assert_eq!((status.bad_records, status.next_seq), (1, 10));
    assert!(disk.files().iter().any(|file| file.starts_with("kept")), "{:?}", disk.files());
}

/// A block that cannot be read costs the readings in it, and not the whole segment; what could be read of the
/// damaged place is kept, and the rest is read once.
#[test]
fn an_unreadable_block_costs_its_own_readings_only() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    for from in (0..1_000).step_by(10) {
        core.append(readings(from, 10));
        assert!(core.sync());
    }
    let path = core.log.active.as_ref().expect("written").path.clone();
    drop(core);
    disk.make_unreadable(&path, segment::RECORDS_AT * 3 + 7);
    let (values, missing, status) = all_of(&disk);
    assert_eq!((values.len() as i64 + missing, status.bad_records), (1_000, 1));
    assert!((1..200).contains(&missing), "{missing} readings are lost");
    assert!(values.contains(&0) && values.contains(&999));
    assert!(disk.files().iter().any(|file| file.starts_with("kept")), "{:?}", disk.files());
}

/// The newest segment cut at any byte, with anything behind the cut: what is before it counts.
#[test]
fn a_torn_tail_with_anything_behind_it_is_cut() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let (whole, path) = with_records(&[3, 2, 4]);
    let ends: Vec<usize> = [(0, 3), (3, 2), (5, 4)]
        .iter()
        .scan(segment::RECORDS_AT, |at, (from, count)| {
            *at += super::super::record::encode_readings(1, readings(*from, *count).iter()).len();
            Some(*at)
        })
        .collect();
    for cut in (segment::RECORDS_AT..ends[2]).step_by(3) {
        let disk = whole.image(&mut random, Plan::Well);
        let garbage: Vec<u8> = (0..random.usize(..600)).map(|_| random.u8(..)).collect();
        disk.damage(&path, |bytes| {
            bytes.truncate(cut);
            bytes.extend(garbage);
        });
        let (values, missing, _) = all_of(&disk);
        let left = match ends.iter().filter(|end| **end <= cut).count() {
            0 => 0,
            1 => 3,
            _ => 5,
        };
        assert_eq!((values, missing), ((0..left).collect(), 0), "TJERN_SEED={seed}, cut at {cut}");
    }
}

/// A segment is left after an error, with records in it that were never synced and whose numbers went to
/// other readings in the next one. If the first of them is torn, those behind it must not count.
#[test]
fn records_behind_the_end_of_a_left_segment_do_not_count() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 26);
    core.append(readings(0, 5));
    assert!(core.sync());
    let path = core.log.active.as_ref().expect("written").path.clone();
    // Three records that are written and not synced; then the segment is left, and they are written anew.
    for from in [5, 7, 9] {
        core.append(readings(from, 2));
    }
    core.log.leave(core.synced_seq);
    core.written = 0;
    assert!(core.sync());
    drop(core);
    let synced = super::super::record::encode_readings(1, readings(0, 5).iter()).len();
    disk.damage(&path, |bytes| bytes[segment::RECORDS_AT + synced + 20] ^= 1);
    let (values, missing, _) = all_of(&disk);
    assert_eq!((values, missing), ((0..11).collect(), 0));
}

/// A spool that no longer knows which numbers it gave out begins a new epoch; what it has goes out under
/// the old one, which is then finished.
#[test]
fn a_damaged_newest_header_ends_the_epoch() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 26);
    core.append(readings(0, 5));
    assert!(core.sync());
    drop(core);
    let mut core = open(&disk, 1 << 26);
    core.append(readings(5, 5));
    assert!(core.sync());
    let (former, path) = (core.log.epoch, core.log.active.as_ref().expect("written").path.clone());
    drop(core);
    disk.damage(&path, |bytes| bytes[40] ^= 1);
    let mut core = open(&disk, 1 << 26);
    assert_ne!(core.log.epoch, former);
    core.append(readings(10, 5));
    let mut lake = Lake::default();
    assert!(core.seal());
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, _) = lake.values().expect("once");
    assert_eq!(values.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    let closed = lake.objects.iter().find(|((_, _, kind), _)| *kind == SealedKind::Closed);
    let ((epoch, _, _), (bounds, text)) = closed.expect("a word that the epoch is finished");
    assert_eq!((*epoch, *bounds, text.as_slice()), (former, Bounds { first: 5, last: 5 }, b"5\n".as_slice()));
}

/// Nothing but garbage in the folder: the spool starts.
#[test]
fn a_folder_full_of_garbage_starts_a_new_epoch() {
    let (disk, path) = with_records(&[3]);
    disk.damage(&path, |bytes| bytes.iter_mut().for_each(|byte| *byte = 0xff));
    let (values, missing, status) = all_of(&disk);
    assert_eq!((values, missing, status.next_seq), (vec![], 0, 1));
}

/// A batch that turns out to be damaged is replaced by a gap; the rest goes on.
#[test]
fn a_damaged_batch_becomes_a_gap() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(0, 5));
    assert!(core.seal());
    let object = core.offered().remove(0);
    disk.damage(&object.path(), |bytes| bytes[200] ^= 1);
    core.give_up(&object);
    let gap = core.offered().remove(0);
    assert_eq!((gap.kind, gap.bounds), (SealedKind::Gap, object.bounds));
}

/// A batch of which a block cannot be read was tried again for ever, and what came behind it waited for the hole to be
/// given up. It is damaged like any other, and what can be read of it is kept.
#[test]
fn a_batch_with_an_unreadable_block_becomes_a_gap() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(0, 5));
    assert!(core.seal());
    let object = core.offered().remove(0);
    disk.make_unreadable(&object.path(), 100);
    let bytes = super::super::sealed::read(&disk, &object).expect("what can be read");
    assert!(bytes.len() as u64 == object.length && batch::decode(&bytes).is_err());
    // A disk that failed for a moment: the batch is well when it is looked at again.
    let well = disk.image(&mut fastrand::Rng::with_seed(1), Plan::Well);
    well.heal();
    let mut spared = open(&well, 1 << 20);
    spared.give_up(&object);
    assert_eq!(spared.offered()[0].kind, SealedKind::Batch);
    core.give_up(&object);
    let gap = core.offered().remove(0);
    assert_eq!((gap.kind, gap.bounds), (SealedKind::Gap, object.bounds));
    assert!(disk.files().iter().any(|file| file.starts_with("kept")), "{:?}", disk.files());
}
