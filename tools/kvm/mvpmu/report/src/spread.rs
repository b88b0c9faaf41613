// SPDX-License-Identifier: GPL-2.0

//! Of numbers that are not the same each time: the middle, and how far apart they are.

use serde::Deserialize;
use serde::Serialize;

/// The five numbers that say most of many.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// The smallest.
    pub least: f64,
    /// A quarter of them is not above it.
    pub lower: f64,
    /// Half of them is not above it.
    pub median: f64,
    /// A quarter of them is not below it.
    pub upper: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of these numbers; none, if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        // Between two of them: on the line from one to the other.
        let quantile = |share: f64| {
            let place = share * last as f64;
            let below = place.floor() as usize;
            let above = (below + 1).min(last);
            let value = values[below] + (values[above] - values[below]) * place.fract();
            (value * 10.0).round() / 10.0
        };
        Some(Spread {
            count: values.len(),
            least: quantile(0.0),
            lower: quantile(0.25),
            median: quantile(0.5),
            upper: quantile(0.75),
            most: quantile(1.0),
        })
    }

    /// Whether half of the numbers of one, those in its middle, are apart from those of the other.
    pub fn is_apart(&self, other: &Spread) -> bool {
        self.lower > other.upper || other.lower > self.upper
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen to fail when the numbers are not sorted, and when places are rounded down.
    #[test]
    fn quartiles_lie_between_the_numbers() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).expect("there are numbers");
        let Spread {
            least,
            lower,
            median,
            upper,
            most,
            count,
        } = spread;
        assert_eq!((least, lower, median), (1.0, 1.8, 2.5));
        assert_eq!((upper, most, count), (3.3, 4.0, 4));
        let one = Spread::of(vec![7.0]).expect("there is one");
        assert_eq!((one.least, one.median, one.most), (7.0, 7.0, 7.0));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn spreads_that_overlap_are_not_apart() {
        let of = |values: [f64; 3]| Spread::of(values.to_vec()).expect("there are numbers");
        let (low, middle, high) = (
            of([1.0, 2.0, 3.0]),
            of([2.0, 3.0, 4.0]),
            of([7.0, 8.0, 9.0]),
        );
        assert!(!low.is_apart(&middle));
        assert!(low.is_apart(&high) && high.is_apart(&low));
    }
}
