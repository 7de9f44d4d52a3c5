//! Which points are read with one request.
//!
//! Points of one device that are due together become the requests that take the least time of all that serve them
//! ([`Costs`]): a hole is read over where that is cheaper than another request, and where the device allows it. A
//! value is never cut in two. What is known of the device bounds it: a [`Barrier`] is crossed by no request, and a
//! point that is to be alone shares with nobody. The plan is optimal: among points in the order of their addresses
//! the best requests hold neighbours, so the best cuts of the list are found by dynamic programming. No I/O.

use crate::modbus::transport::{ReadRequest, Table};

use super::cost::Costs;

/// What a point wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Which of the device's points.
    pub(crate) point: usize,
    pub(crate) table: Table,
    pub(crate) address: u16,
    pub(crate) width: u16,
    /// It is to have a request of its own.
    pub(crate) alone: bool,
}

/// Addresses from `first` to before `end` that no request reads across: one that begins before `first` ends by
/// `end`. Where both are equal it is a border between two neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Barrier {
    pub(crate) table: Table,
    pub(crate) first: u32,
    pub(crate) end: u32,
}

/// What bounds a plan.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'rules> {
    pub(crate) costs: Costs,
    pub(crate) barriers: &'rules [Barrier],
    /// So much of a table a request may hold, from what the device was found to refuse.
    pub(crate) count_max: &'rules dyn Fn(Table) -> u16,
}

/// A request, and whom its answer serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) request: ReadRequest,
    pub(crate) members: Vec<Wanted>,
}

impl Wanted {
    pub(crate) fn first(&self) -> u32 {
        u32::from(self.address)
    }

    pub(crate) fn end(&self) -> u32 {
        self.first() + u32::from(self.width)
    }
}

impl Group {
    /// One request for these, or `None` where they are too far apart.
    pub(crate) fn of(members: &[Wanted]) -> Option<Self> {
        let lowest = members.iter().min_by_key(|member| member.address)?;
        let end = members.iter().map(Wanted::end).max()?;
        let count = u16::try_from(end - lowest.first()).ok()?;
        let request = ReadRequest::new(lowest.table, lowest.address, count)?;
        Some(Self { request, members: members.to_vec() })
    }
}

/// The requests that serve all that is wanted, in the order of the addresses.
pub(crate) fn plan(mut wanted: Vec<Wanted>, rules: &Rules<'_>) -> Vec<Group> {
    wanted.sort_by_key(|one| (one.table, one.address, one.width, one.point));
    let (alone, shared): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|one| one.alone);
    let mut groups: Vec<Group> = alone.iter().filter_map(|one| Group::of(&[*one])).collect();
    for table in shared.chunk_by(|one, other| one.table == other.table) {
        groups.extend(cuts(table, rules).into_iter().filter_map(|members| Group::of(members)));
    }
    groups.sort_by_key(|group| (group.request.table(), group.request.address()));
    groups
}

/// The cheapest way to cut a sorted list of one table's points into requests.
fn cuts<'wanted>(wanted: &'wanted [Wanted], rules: &Rules<'_>) -> Vec<&'wanted [Wanted]> {
    // `best[index]`: the least that it costs to serve the first `index` points, and where their last request begins.
    let mut best = vec![(u64::MAX, 0); wanted.len() + 1];
    best[0] = (0, 0);
    for begin in 0..wanted.len() {
        let before = best[begin].0;
        relax(wanted, begin, rules, |end, cost| {
            let cost = before.saturating_add(cost);
            if cost < best[end].0 {
                best[end] = (cost, begin);
            }
        });
    }
    let mut groups = Vec::new();
    let mut end = wanted.len();
    while end > 0 {
        let begin = best[end].1;
        groups.push(&wanted[begin..end]);
        end = begin;
    }
    groups.reverse();
    groups
}

/// Every request that may begin with a point: where it ends in the list, and what it costs.
fn relax(wanted: &[Wanted], begin: usize, rules: &Rules<'_>, mut found: impl FnMut(usize, u64)) {
    let (table, first) = (wanted[begin].table, wanted[begin].first());
    let crossed = rules.barriers.iter().filter(|barrier| barrier.table == table && barrier.first > first);
    let end_max = crossed.map(|barrier| barrier.end).min().unwrap_or(u32::MAX);
    let count_max = u32::from(rules.costs.count_max(table).min((rules.count_max)(table)));
    let hole_max = u32::from(rules.costs.hole_max(table));
    let mut end = first;
    for (index, one) in wanted.iter().enumerate().skip(begin) {
        let hole = one.first().saturating_sub(end);
        end = end.max(one.end());
        let count = end - first;
        // A single point is read whole, whatever was found out: it cannot be had with less.
        if index > begin && (hole > hole_max || count > count_max || end > end_max) {
            return;
        }
        let Ok(count) = u16::try_from(count) else { return };
        found(index + 1, rules.costs.request_ns(table, count));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bus::cost::Wire;
    use crate::config::ReadLimits;
    use crate::modbus::timing::Line;
    use proptest::prelude::*;

    const WHOLE: &dyn Fn(Table) -> u16 = &|table| table.count_max();

    fn wanted(point: usize, table: Table, address: u16, width: u16) -> Wanted {
        Wanted { point, table, address, width, alone: false }
    }

    fn line(baud: u32) -> Wire {
        Wire::line(Line::rtu(baud))
    }

    fn costs(baud: u32, limits: ReadLimits) -> Costs {
        Costs::new(line(baud), limits, Some(Duration::from_millis(5)))
    }

    fn cost(groups: &[Group], costs: &Costs) -> u64 {
        groups.iter().map(|group| costs.request_ns(group.request.table(), group.request.count())).sum()
    }

    fn is_allowed(group: &Group, rules: &Rules<'_>) -> bool {
        let (table, first) = (group.request.table(), u32::from(group.request.address()));
        let end = first + u32::from(group.request.count());
        let mut reached = first;
        let near = group.members.iter().all(|member| {
            let near = member.first() <= reached + u32::from(rules.costs.hole_max(table));
            reached = reached.max(member.end());
            near
        });
        let crosses = |barrier: &Barrier| barrier.table == table && first < barrier.first && end > barrier.end;
        let shares = group.members.len() > 1;
        let count_max = rules.costs.count_max(table).min((rules.count_max)(table));
        !shares
            || near
                && group.request.count() <= count_max
                && !rules.barriers.iter().any(crosses)
                && !group.members.iter().any(|member| member.alone)
    }

    /// Every way to cut a list into requests, and what the cheapest costs.
    fn cheapest_of_all(wanted: &[Wanted], rules: &Rules<'_>) -> u64 {
        let cuts = 1_u32 << (wanted.len() - 1);
        let way = |mask: u32| {
            let mut groups = Vec::new();
            let mut begin = 0;
            for end in 1..=wanted.len() {
                if end == wanted.len() || mask >> (end - 1) & 1 == 1 {
                    groups.push(Group::of(&wanted[begin..end])?);
                    begin = end;
                }
            }
            groups.iter().all(|group| is_allowed(group, rules)).then(|| cost(&groups, &rules.costs))
        };
        (0..cuts).filter_map(way).min().expect("each apart is always allowed")
    }

    fn limits() -> impl Strategy<Value = ReadLimits> {
        (4_u16..=125, 1_u16..=2_000, prop::option::of(0_u16..60))
            .prop_map(|(max_registers, max_bits, max_hole)| ReadLimits { max_registers, max_bits, max_hole })
    }

    proptest! {
        #[test]
        fn every_point_is_served_whole_and_once_within_the_limits(
            points in prop::collection::vec((0_usize..4, 0_u16..400, prop::sample::select(vec![1_u16, 2, 4]), any::<bool>()), 0..60),
            limits in limits(), holes in prop::collection::vec((0_usize..4, 0_u32..400, 0_u32..5), 0..4), learned in 1_u16..200,
        ) {
            let make = |(point, (table, address, width, alone)): (usize, &(usize, u16, u16, bool))| {
                Wanted { alone: *alone, ..wanted(point, Table::ALL[*table].1, *address, *width) }
            };
            let all: Vec<Wanted> = points.iter().enumerate().map(make).collect();
            let barriers: Vec<Barrier> = holes.iter().map(|(table, first, count)| Barrier { table: Table::ALL[*table].1, first: *first, end: first + count }).collect();
            let rules = Rules { costs: costs(9_600, limits), barriers: &barriers, count_max: &|_| learned };
            let groups = plan(all.clone(), &rules);
            let mut served: Vec<usize> = groups.iter().flat_map(|group| &group.members).map(|member| member.point).collect();
            served.sort_unstable();
            prop_assert_eq!(served, (0..all.len()).collect::<Vec<_>>());
            for group in &groups {
                let (start, end) = (u32::from(group.request.address()), u32::from(group.request.address()) + u32::from(group.request.count()));
                prop_assert!(group.members.iter().all(|member| member.table == group.request.table() && start <= member.first() && member.end() <= end));
                prop_assert!(is_allowed(group, &rules), "{group:?}");
            }
            let apart: Vec<Group> = all.iter().filter_map(|one| Group::of(&[*one])).collect();
            prop_assert!(cost(&groups, &rules.costs) <= cost(&apart, &rules.costs), "dearer than no plan at all");
        }

        #[test]
        fn no_plan_is_cheaper(
            points in prop::collection::vec((0_u16..150, prop::sample::select(vec![1_u16, 2, 4])), 1..9),
            limits in limits(), baud in prop::sample::select(vec![1_200_u32, 9_600, 19_200, 115_200]),
            hole in 0_u32..150,
        ) {
            let mut all: Vec<Wanted> = points.iter().enumerate().map(|(point, (address, width))| wanted(point, Table::Input, *address, *width)).collect();
            all.sort_by_key(|one| (one.table, one.address, one.width, one.point));
            let barriers = [Barrier { table: Table::Input, first: hole, end: hole + 3 }];
            let rules = Rules { costs: costs(baud, limits), barriers: &barriers, count_max: WHOLE };
            let groups = plan(all.clone(), &rules);
            prop_assert_eq!(cost(&groups, &rules.costs), cheapest_of_all(&all, &rules));
        }
    }

    fn counts(wanted: Vec<Wanted>, costs: Costs) -> Vec<u16> {
        let rules = Rules { costs, barriers: &[], count_max: WHOLE };
        plan(wanted, &rules).iter().map(|group| group.request.count()).collect()
    }

    #[test]
    fn a_hole_is_read_over_where_that_is_cheaper() {
        let pair = |hole: u16| vec![wanted(0, Table::Input, 0, 1), wanted(1, Table::Input, 1 + hole, 1)];
        let default = ReadLimits::default();
        // 12 registers pay at 9600 baud and 5 ms, 13 do not.
        assert_eq!(counts(pair(12), costs(9_600, default)), [14]);
        assert_eq!(counts(pair(13), costs(9_600, default)), [1, 1]);
        let tcp = |limits| Costs::new(Wire::TCP, limits, None);
        assert_eq!(counts(pair(100), tcp(default)), [102]);
        assert_eq!(counts(pair(101), tcp(default)), [1, 1]);
        assert_eq!(counts(pair(1), tcp(ReadLimits { max_hole: Some(0), ..default })), [1, 1]);
    }

    #[test]
    fn no_value_is_cut_in_two() {
        let many: Vec<Wanted> = (0..200).map(|index| wanted(usize::from(index), Table::Input, index * 2, 2)).collect();
        let tcp = |limits| Costs::new(Wire::TCP, limits, None);
        let whole = counts(many.clone(), tcp(ReadLimits::default()));
        assert_eq!((whole.len(), whole.iter().sum::<u16>()), (4, 400));
        assert!(whole.iter().all(|count| count % 2 == 0 && *count <= 124), "{whole:?}");
        let few = counts(many, tcp(ReadLimits { max_registers: 5, ..ReadLimits::default() }));
        assert_eq!(few, vec![4; 100]);
    }
}
