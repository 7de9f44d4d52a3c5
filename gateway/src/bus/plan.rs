//! Which points are read with one request.
//!
//! Points of one device and one table that are due in the same slot share a request where they lie
//! close together: a hole costs two bytes an address, a request of its own at least thirteen and two
//! silences. A value is never cut in two. No I/O.

use crate::modbus::transport::{ReadRequest, Table};

/// So many addresses that nobody asked for may lie between two points of a request.
pub(super) const HOLE_MAX: u32 = 8;

/// What a point wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which of the device's points.
    pub(super) point: usize,
    pub(super) table: Table,
    pub(super) address: u16,
    pub(super) width: u16,
    /// It is to have a request of its own.
    pub(super) alone: bool,
}

/// A request, and whom its answer serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) request: ReadRequest,
    pub(super) members: Vec<Wanted>,
}

/// The requests that serve all that is wanted, in the order of the addresses.
pub(super) fn plan(mut wanted: Vec<Wanted>) -> Vec<Group> {
    wanted.sort_by_key(|one| (one.table, one.address, one.width, one.point));
    let mut groups: Vec<Group> = Vec::new();
    for one in wanted {
        match groups.last_mut().and_then(|group| group.joined(one)) {
            Some(request) => {
                if let Some(group) = groups.last_mut() {
                    group.request = request;
                    group.members.push(one);
                }
            }
            None => {
                let request = ReadRequest::new(one.table, one.address, one.width);
                groups.extend(request.map(|request| Group { request, members: vec![one] }));
            }
        }
    }
    groups
}

impl Group {
    /// The request that serves one more, if there may be one.
    fn joined(&self, one: Wanted) -> Option<ReadRequest> {
        let alone = one.alone || self.members.iter().any(|member| member.alone);
        let (start, end) =
            (u32::from(self.request.address()), u32::from(self.request.address()) + u32::from(self.request.count()));
        let near = one.table == self.request.table() && u32::from(one.address) <= end + HOLE_MAX;
        if alone || !near {
            return None;
        }
        let count = end.max(u32::from(one.address) + u32::from(one.width)) - start;
        ReadRequest::new(one.table, self.request.address(), u16::try_from(count).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(point: usize, table: Table, address: u16, width: u16) -> Wanted {
        Wanted { point, table, address, width, alone: false }
    }

    proptest! {
        #[test]
        fn every_point_is_served_whole_and_once(
            points in prop::collection::vec((0_usize..4, 0_u16..400, prop::sample::select(vec![1_u16, 2, 4]), any::<bool>()), 0..60),
        ) {
            let all: Vec<Wanted> = points
                .iter()
                .enumerate()
                .map(|(point, (table, address, width, alone))| Wanted {
                    alone: *alone, ..wanted(point, Table::ALL[*table].1, *address, *width)
                })
                .collect();
            let groups = plan(all.clone());
            let mut served: Vec<usize> = groups.iter().flat_map(|group| &group.members).map(|member| member.point).collect();
            served.sort_unstable();
            prop_assert_eq!(served, (0..all.len()).collect::<Vec<_>>());
            for group in &groups {
                let (start, end) = (group.request.address(), group.request.address() + group.request.count());
                for member in &group.members {
                    prop_assert_eq!(member.table, group.request.table());
                    prop_assert!(start <= member.address && member.address + member.width <= end);
                    prop_assert!(!member.alone || group.members.len() == 1);
                }
            }
        }
    }

    #[test]
    fn neighbours_share_a_request_and_strangers_do_not() {
        let near = [wanted(0, Table::Input, 0, 2), wanted(1, Table::Input, 2, 2), wanted(2, Table::Input, 12, 1)];
        assert_eq!(plan(near.to_vec()).len(), 1);
        let far = [wanted(0, Table::Input, 0, 2), wanted(1, Table::Input, 11, 1), wanted(2, Table::Holding, 2, 1)];
        assert_eq!(plan(far.to_vec()).len(), 3);
        let many: Vec<Wanted> = (0..200).map(|index| wanted(usize::from(index), Table::Input, index * 2, 2)).collect();
        let counts: Vec<u16> = plan(many).iter().map(|group| group.request.count()).collect();
        assert_eq!(counts, [124, 124, 124, 28], "no value is cut in two");
    }
}
