//! Devices that refuse, asked as a bus would ask them.

use std::time::Duration;

use super::*;
use crate::bus::cost::{Costs, Wire};
use crate::bus::plan::{Rules, plan};
use crate::config::ReadLimits;
use proptest::prelude::*;

/// A device that refuses what touches a bad address or is too long.
struct Picky {
    bad: Vec<u32>,
    count_max: u16,
    asked: usize,
}

impl Picky {
    fn answers(&mut self, request: ReadRequest) -> bool {
        self.asked += 1;
        let read = span(request);
        request.count() <= self.count_max && !self.bad.iter().any(|bad| (read.first..read.end).contains(bad))
    }
}

fn wanted(point: usize, address: u16, width: u16) -> Wanted {
    Wanted { point, table: Table::Input, address, width, alone: false }
}

/// One slot: everything is asked for until it is answered or refused by itself. The requests that were answered.
fn slot(refusals: &mut Refusals, points: &[Wanted], device: &mut Picky) -> Vec<Group> {
    let costs = Costs::new(Wire::TCP, ReadLimits::default(), Some(Duration::from_millis(5)));
    let mut open = points.to_vec();
    let mut answered = Vec::new();
    for _ in 0..1_000 {
        let due = open.iter().map(|one| Wanted { alone: refusals.is_refused(one), ..*one }).collect();
        let barriers = refusals.barriers();
        let count_max = |table| refusals.count_max(table);
        let groups = plan(due, &Rules { costs, barriers: &barriers, count_max: &count_max });
        let Some(group) = groups.into_iter().next() else { break };
        let verdict = if device.answers(group.request) {
            refusals.answered(group.request);
            None
        } else {
            Some(refusals.refused(&group, 0))
        };
        if verdict == Some(Verdict::Split) {
            continue;
        }
        assert_ne!(verdict, Some(Verdict::Apart), "these do not overlap");
        open.retain(|one| !group.members.iter().any(|member| member.point == one.point));
        answered.extend(verdict.is_none().then_some(group));
    }
    assert!(open.is_empty(), "never asked for: {open:?}");
    if let Some(proof) = refusals.proof() {
        let was_refused = !device.answers(proof);
        refusals.proved(proof, was_refused, 0);
    }
    answered
}

fn slots(count: usize, points: &[Wanted], device: &mut Picky) -> (Vec<Group>, Refusals) {
    let (mut refusals, mut last) = (Refusals::default(), Vec::new());
    for _ in 0..count {
        last = slot(&mut refusals, points, device);
    }
    (last, refusals)
}

#[test]
fn one_bad_hole_is_found_and_the_others_are_still_read_over() {
    // Ten points of two registers, each followed by a hole of two.
    let points: Vec<Wanted> = (0..10).map(|index| wanted(usize::from(index), index * 4, 2)).collect();
    let mut device = Picky { bad: vec![15], count_max: 125, asked: 0 };
    let (groups, refusals) = slots(6, &points, &mut device);
    assert_eq!(refusals.learned().holes.len(), 1);
    assert_eq!(refusals.learned().holes[0].place, Barrier { table: Table::Input, first: 14, end: 16 });
    assert_eq!(groups.iter().map(|group| group.members.len()).collect::<Vec<_>>(), [4, 6]);
    assert!(device.asked < 24, "{} requests for six slots", device.asked);
}

#[test]
fn one_refused_point_costs_the_others_nothing() {
    let points: Vec<Wanted> = (0..10).map(|index| wanted(usize::from(index), index * 2, 2)).collect();
    let mut device = Picky { bad: vec![9], count_max: 125, asked: 0 };
    let (groups, refusals) = slots(6, &points, &mut device);
    assert_eq!(refusals.learned().points.len(), 1);
    assert_eq!(groups.iter().map(|group| group.members.len()).collect::<Vec<_>>(), [4, 5]);
    assert!(refusals.is_refused(&points[4]));
}

#[test]
fn a_device_that_allows_less_at_once_gets_what_it_allows() {
    let points: Vec<Wanted> = (0..100).map(|index| wanted(usize::from(index), index, 1)).collect();
    let mut device = Picky { bad: Vec::new(), count_max: 29, asked: 0 };
    let (groups, refusals) = slots(12, &points, &mut device);
    assert!((25..=29).contains(&refusals.count_max(Table::Input)), "{}", refusals.count_max(Table::Input));
    assert_eq!(groups.len(), 4, "100 registers in four requests of at most 29");
    assert!(refusals.learned().holes.is_empty(), "no address is bad");
}

#[test]
fn what_is_repaired_is_shared_again() {
    let points: Vec<Wanted> = (0..4).map(|index| wanted(usize::from(index), index, 1)).collect();
    let mut device = Picky { bad: vec![2], count_max: 125, asked: 0 };
    let mut refusals = Refusals::default();
    (0..4).for_each(|_| drop(slot(&mut refusals, &points, &mut device)));
    assert!(refusals.is_refused(&points[2]));
    device.bad.clear();
    (0..3).for_each(|_| drop(slot(&mut refusals, &points, &mut device)));
    assert_eq!(slot(&mut refusals, &points, &mut device).len(), 1);
    let mut learned = Learned {
        holes: vec![Found { place: span(ReadRequest::new(Table::Coil, 1, 1).expect("within")), found_us: 5 }],
        ..Learned::default()
    };
    assert!(!learned.expire(FORGET_US), "it is believed for 30 days");
    assert!(learned.expire(FORGET_US + 5) && learned == Learned::default());
}

proptest! {
    #[test]
    fn whatever_is_bad_every_good_point_is_read(
        gaps in prop::collection::vec((0_u16..6, prop::sample::select(vec![1_u16, 2, 4])), 1..30),
        bad in prop::collection::vec(0_u32..200, 0..4), count_max in 8_u16..=125,
    ) {
        let mut address = 0;
        let points: Vec<Wanted> = gaps.iter().enumerate().map(|(point, (gap, width))| {
            address += gap;
            let one = wanted(point, address, *width);
            address += width;
            one
        }).collect();
        let mut device = Picky { bad: bad.clone(), count_max, asked: 0 };
        let (groups, _) = slots(40, &points, &mut device);
        let good = |one: &&Wanted| !bad.iter().any(|bad| (one.first()..one.end()).contains(bad));
        let read: usize = groups.iter().map(|group| group.members.len()).sum();
        prop_assert_eq!(read, points.iter().filter(good).count(), "in the end nothing good is refused");
        prop_assert!(device.asked < 40 * (points.len() + 1), "it costs no more than reading one by one: {}", device.asked);
    }
}
