//! Percentiles and medians. Pure.

/// The value that `permille` of a thousand of the sorted values do not exceed; 0 without values.
pub(crate) fn percentile(sorted: &[u32], permille: usize) -> u32 {
    let rank = (sorted.len() * permille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The middle of the values, or between the two in the middle; `None` without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<u32> = (1..=100).collect();
        let rows: [(&[u32], usize, u32); 8] = [
            (&[], 500, 0),
            (&[7], 0, 7),
            (&[7], 999, 7),
            (&[1, 2, 3], 500, 2),
            (&[1, 2, 3, 4], 500, 2),
            (&hundred, 990, 99),
            (&hundred, 999, 100),
            (&hundred, 1000, 100),
        ];
        for (sorted, permille, expected) in rows {
            assert_eq!(percentile(sorted, permille), expected, "{permille}");
        }
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([3.0, 1.0]), Some(2.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
    }
}
