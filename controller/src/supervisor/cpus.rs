//! Which cores the workers are pinned to.

use std::collections::BTreeSet;
use std::fs;

/// From so many cores on the first is left to the controller.
const RESERVE_FROM: usize = 5;

/// Orders cores so that hyper-thread siblings of an earlier one come last.
///
/// `sibling` gives the first core that shares the execution units of a core.
pub(crate) fn order(allowed: &[usize], sibling: impl Fn(usize) -> usize) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for &cpu in allowed {
        match seen.insert(sibling(cpu)) {
            true => first.push(cpu),
            false => later.push(cpu),
        }
    }
    first.extend(later);
    first
}

/// The core of each worker.
pub(crate) fn assign(ordered: &[usize], num_workers: Option<usize>) -> Vec<usize> {
    let usable = match ordered.len() {
        RESERVE_FROM.. => &ordered[1..],
        _ => ordered,
    };
    let count = num_workers.unwrap_or(usable.len());
    usable.iter().copied().cycle().take(count).collect()
}

/// The first hyper-thread of a core, read from the kernel; the core itself if that is not known.
pub(crate) fn first_sibling(cpu: usize) -> usize {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    let list = fs::read_to_string(path).unwrap_or_default();
    let first = list.split(['-', ',', '\n']).next();
    first.and_then(|first| first.parse().ok()).unwrap_or(cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_come_last() {
        assert_eq!(order(&[0, 1, 2, 3], |cpu| cpu), [0, 1, 2, 3]);
        assert_eq!(order(&[0, 1, 2, 3], |cpu| cpu & !1), [0, 2, 1, 3]);
        assert_eq!(order(&[0, 1, 2, 3], |cpu| cpu % 2), [0, 1, 2, 3]);
        assert_eq!(order(&[2, 3], |cpu| cpu & !1), [2, 3]);
    }

    #[test]
    fn every_worker_gets_a_core() {
        let rows: [(&[usize], Option<usize>, &[usize]); 5] = [
            (&[0, 1], None, &[0, 1]),
            (&[0, 1], Some(3), &[0, 1, 0]),
            (&[4, 6, 5, 7], None, &[4, 6, 5, 7]),
            (&[0, 1, 2, 3, 4], None, &[1, 2, 3, 4]),
            (&[0, 1, 2, 3, 4], Some(2), &[1, 2]),
        ];
        for (ordered, num_workers, expected) in rows {
            assert_eq!(
                assign(ordered, num_workers),
                expected,
                "{ordered:?} {num_workers:?}"
            );
        }
    }
}
