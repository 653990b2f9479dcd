//! Which worker gets the next room. Pure.

/// What is known of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its place.
    pub(crate) idx: usize,
    /// Share of the last second it was not asleep, 0…1.
    pub(crate) busy: f64,
    /// Peers, producers and consumers of its rooms.
    pub(crate) weight: usize,
    /// Its rooms.
    pub(crate) rooms: usize,
}

/// The least loaded of the candidates.
///
/// Measured load decides where it differs by a tenth of a core. It lags behind, so what was just
/// placed counts next.
pub(crate) fn least_loaded(candidates: impl IntoIterator<Item = Candidate>) -> Option<usize> {
    let key = |c: &Candidate| ((c.busy * 10.0) as u32, c.weight, c.rooms, c.idx);
    let least = candidates.into_iter().min_by_key(key)?;
    Some(least.idx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_decides_then_what_is_there_then_the_order() {
        type Row<'a> = (&'a [(f64, usize, usize)], Option<usize>);
        let rows: [Row<'_>; 6] = [
            (&[], None),
            (&[(0.0, 0, 0), (0.0, 0, 0)], Some(0)),
            (&[(0.0, 0, 1), (0.0, 0, 0)], Some(1)),
            (&[(0.0, 9, 1), (0.0, 4, 2)], Some(1)),
            (&[(0.05, 9, 1), (0.01, 10, 2)], Some(0)),
            (&[(0.9, 1, 1), (0.2, 50, 9)], Some(1)),
        ];
        for (workers, expected) in rows {
            let candidates = workers
                .iter()
                .enumerate()
                .map(|(idx, &(busy, weight, rooms))| Candidate {
                    idx,
                    busy,
                    weight,
                    rooms,
                });
            assert_eq!(least_loaded(candidates), expected, "{workers:?}");
        }
    }
}
