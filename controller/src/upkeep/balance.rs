//! Which room is to be moved because one worker has much more to do than another. Pure: loads in,
//! decisions out.

use std::collections::HashMap;

use broth_ipc::RouterId;

use crate::settings::Rebalance;

/// For so many looks a room that was moved stays where it is, and a worker that got one gives none
/// away: what a move brings shows only later.
const REST_LOOKS: u64 = 60;

/// A room is worth moving if that takes away this part of the difference.
const WORTH: f64 = 0.25;

/// What is known of a worker.
#[derive(Clone, Debug)]
pub(crate) struct PlaceLoad {
    pub(crate) idx: usize,
    /// CPU time per time, 0…1.
    pub(crate) cpu: f64,
    /// Its rooms, each with how many things it has.
    pub(crate) rooms: Vec<(RouterId, usize)>,
}

/// A room that is to be moved, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relocation {
    pub(crate) room: RouterId,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Looks at the loads again and again.
#[derive(Debug)]
pub(crate) struct Balancer {
    settings: Rebalance,
    /// Looks so far.
    looks: u64,
    /// Who had too much in the last looks, and in how many in a row.
    streak: (usize, u32),
    /// When a room was moved.
    moved: HashMap<RouterId, u64>,
    /// When a worker got a room.
    got: HashMap<usize, u64>,
}

impl Balancer {
    pub(crate) fn new(settings: Rebalance) -> Self {
        Self {
            settings,
            looks: 0,
            streak: (0, 0),
            moved: HashMap::new(),
            got: HashMap::new(),
        }
    }

    /// Looks once; at most one room is to be moved.
    pub(crate) fn look(&mut self, places: &[PlaceLoad]) -> Option<Relocation> {
        self.looks += 1;
        let looks = self.looks;
        self.moved.retain(|_, at| looks - *at <= REST_LOOKS);
        self.got.retain(|_, at| looks - *at <= REST_LOOKS);
        let by_cpu = |a: &&PlaceLoad, b: &&PlaceLoad| a.cpu.total_cmp(&b.cpu);
        let busiest = places.iter().max_by(by_cpu)?;
        let idlest = places.iter().min_by(by_cpu)?;
        let difference = busiest.cpu - idlest.cpu;
        if difference <= self.settings.difference {
            self.streak = (busiest.idx, 0);
            return None;
        }
        let before = match self.streak {
            (idx, count) if idx == busiest.idx => count,
            _ => 0,
        };
        self.streak = (busiest.idx, before + 1);
        if self.streak.1 < self.settings.looks || self.got.contains_key(&busiest.idx) {
            return None;
        }
        let room = self.choose(busiest, difference)?;
        self.streak = (busiest.idx, 0);
        self.moved.insert(room, looks);
        self.got.insert(idlest.idx, looks);
        Some(Relocation {
            room,
            from: busiest.idx,
            to: idlest.idx,
        })
    }

    /// The smallest room that is worth it, else the largest of those that are not; none whose move
    /// would turn the difference round.
    fn choose(&self, place: &PlaceLoad, difference: f64) -> Option<RouterId> {
        let total: usize = place.rooms.iter().map(|(_, weight)| weight).sum();
        // What a move takes away from the difference is twice what the room costs.
        let effect = |weight: usize| 2.0 * place.cpu * weight as f64 / total.max(1) as f64;
        let mut rooms: Vec<_> = place.rooms.clone();
        rooms.retain(|(room, weight)| {
            *weight > 0 && effect(*weight) <= difference && !self.moved.contains_key(room)
        });
        rooms.sort_by_key(|(room, weight)| (*weight, *room));
        let is_worth_it = |(_, weight): &&(RouterId, usize)| effect(*weight) >= WORTH * difference;
        let chosen = rooms.iter().find(is_worth_it).or_else(|| rooms.last());
        chosen.map(|(room, _)| *room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer() -> Balancer {
        Balancer::new(Rebalance {
            difference: 0.3,
            looks: 3,
        })
    }

    /// Workers with their CPU time and the weights of their rooms, whose ids count from 1.
    fn places(given: &[(f64, &[usize])]) -> Vec<PlaceLoad> {
        let mut id = 0;
        let places = given
            .iter()
            .enumerate()
            .map(|(idx, (cpu, weights))| PlaceLoad {
                idx,
                cpu: *cpu,
                rooms: weights
                    .iter()
                    .map(|weight| {
                        id += 1;
                        (RouterId(id), *weight)
                    })
                    .collect(),
            });
        places.collect()
    }

    /// What is moved in so many looks at the same loads.
    fn looks(balancer: &mut Balancer, count: usize, places: &[PlaceLoad]) -> Vec<(u32, usize)> {
        let moves = (0..count).filter_map(|_| balancer.look(places));
        moves.map(|moved| (moved.room.0, moved.to)).collect()
    }

    #[test]
    fn the_smallest_room_that_is_worth_it_goes_to_the_idlest() {
        type Row<'a> = (&'a str, &'a [(f64, &'a [usize])], Option<(u32, usize)>);
        let rows: [Row<'_>; 8] = [
            ("nobody", &[], None),
            ("alone", &[(1.0, &[9, 9])], None),
            (
                "not much of a difference",
                &[(0.9, &[9, 9]), (0.6, &[9])],
                None,
            ),
            (
                "the smaller of two",
                &[(0.8, &[70, 30]), (0.1, &[])],
                Some((2, 1)),
            ),
            (
                "the idlest of three",
                &[(0.3, &[]), (0.8, &[30, 70]), (0.1, &[])],
                Some((1, 2)),
            ),
            (
                "one that would only swap the roles",
                &[(0.8, &[50]), (0.1, &[])],
                None,
            ),
            (
                "one too small to matter is passed over",
                &[(0.8, &[1, 20, 79]), (0.1, &[])],
                Some((2, 1)),
            ),
            (
                "unless there are only such",
                &[(0.8, &[1, 2, 97]), (0.1, &[])],
                Some((2, 1)),
            ),
        ];
        for (name, given, expected) in rows {
            let moved = looks(&mut balancer(), 3, &places(given));
            assert_eq!(moved, Vec::from_iter(expected), "{name}");
        }
    }

    #[test]
    fn a_difference_counts_when_it_lasts() {
        let mut balancer = balancer();
        let (uneven, even) = (
            places(&[(0.8, &[30, 70]), (0.1, &[])]),
            places(&[(0.4, &[30, 70]), (0.4, &[])]),
        );
        for _ in 0..5 {
            assert_eq!(looks(&mut balancer, 2, &uneven), []);
            assert_eq!(looks(&mut balancer, 1, &even), []);
        }
        assert_eq!(looks(&mut balancer, 3, &uneven), [(1, 1)]);
    }

    #[test]
    fn what_was_moved_does_not_come_back() {
        let mut balancer = balancer();
        let before = places(&[(0.8, &[30, 70]), (0.1, &[])]);
        assert_eq!(looks(&mut balancer, 3, &before), [(1, 1)]);
        // The room was more work than it seemed.
        let after = [
            PlaceLoad {
                idx: 0,
                cpu: 0.1,
                rooms: vec![(RouterId(2), 70)],
            },
            PlaceLoad {
                idx: 1,
                cpu: 0.8,
                rooms: vec![(RouterId(1), 30), (RouterId(3), 40)],
            },
        ];
        assert_eq!(looks(&mut balancer, REST_LOOKS as usize - 1, &after), []);
        assert_eq!(looks(&mut balancer, 4, &after).len(), 1);
    }

    #[test]
    fn loads_that_follow_the_rooms_come_to_rest() {
        let mut balancer = balancer();
        let mut homes = [
            vec![],
            vec![],
            (1..=30).map(|id| (RouterId(id), 1)).collect(),
        ];
        let mut moves = 0;
        for _ in 0..2000 {
            let loads: Vec<_> = homes
                .iter()
                .enumerate()
                .map(|(idx, rooms): (usize, &Vec<_>)| PlaceLoad {
                    idx,
                    cpu: rooms.len() as f64 / 30.0,
                    rooms: rooms.clone(),
                })
                .collect();
            if let Some(Relocation { room, from, to }) = balancer.look(&loads) {
                moves += 1;
                let at = homes[from].iter().position(|(id, _)| *id == room).unwrap();
                let moved = homes[from].swap_remove(at);
                homes[to].push(moved);
            }
        }
        let most = homes.iter().map(Vec::len).max().unwrap();
        let least = homes.iter().map(Vec::len).min().unwrap();
        assert!(most - least <= 9, "{most} {least}");
        assert!(moves <= 20, "{moves}");
    }
}
