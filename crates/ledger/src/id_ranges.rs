//! Implements sets of ids, stored as ranges. The text form of a set is that of PostgreSQL's
//! `int8multirange`. A checkpoint names its entries by a set of ids.

use crate::decimal::parse_integer;
use std::fmt;
use thiserror::Error;

/// A range of consecutive ids that includes both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdRange {
    /// The lowest id in the range.
    pub first: i64,
    /// The highest id in the range.
    pub last: i64,
}

impl IdRange {
    /// Returns the range that contains only `id`.
    pub fn of(id: i64) -> Self {
        IdRange { first: id, last: id }
    }

    /// Returns the number of ids in the range.
    pub fn count(self) -> u64 {
        self.last.abs_diff(self.first).saturating_add(1)
    }
}

/// A set of ids, stored as ranges in ascending order. Between two successive ranges, at least one
/// id is not in the set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdRanges {
    ranges: Vec<IdRange>,
}

/// The error for a text that is not an `int8multirange` as PostgreSQL writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a multirange of ids in PostgreSQL's form, like {{[1,4),[6,7)}}")]
pub struct IdRangesError;

impl IdRanges {
    /// Returns the empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the set of ids from `first` to `last`, both included. The set is empty if `first` is
    /// above `last`.
    pub fn from_range(first: i64, last: i64) -> Self {
        IdRanges { ranges: if first <= last { vec![IdRange { first, last }] } else { Vec::new() } }
    }

    /// Parses the text of a PostgreSQL multirange, such as `{[1,4),[6,7)}`. Accepts only the text
    /// that PostgreSQL itself writes: ranges in ascending order that are not adjacent.
    pub fn parse(text: &str) -> Result<Self, IdRangesError> {
        let inner =
            text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(IdRangesError)?;
        let mut ranges: Vec<IdRange> = Vec::new();
        let mut rest = inner;
        while !rest.is_empty() {
            let (range, after) = rest
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(')'))
                .ok_or(IdRangesError)?;
            let (first, end) = range.split_once(',').ok_or(IdRangesError)?;
            let (first, end): (i64, i64) = (
                parse_integer(first).ok_or(IdRangesError)?,
                parse_integer(end).ok_or(IdRangesError)?,
            );
            // PostgreSQL merges adjacent ranges, so PostgreSQL never writes a text with adjacent
            // ranges.
            if first >= end || ranges.last().is_some_and(|range| first <= range.last + 1) {
                return Err(IdRangesError);
            }
            ranges.push(IdRange { first, last: end - 1 });
            rest = match after.strip_prefix(',') {
                Some(next) if !next.is_empty() => next,
                Some(_) => return Err(IdRangesError),
                None if after.is_empty() => after,
                None => return Err(IdRangesError),
            };
        }
        Ok(IdRanges { ranges })
    }

    /// Returns the ranges of the set, in ascending order.
    pub fn ranges(&self) -> &[IdRange] {
        &self.ranges
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the number of ids in the set.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|range| range.count()).fold(0, u64::saturating_add)
    }

    /// Returns whether the set contains `id`.
    pub fn contains(&self, id: i64) -> bool {
        let after = self.ranges.partition_point(|range| range.first <= id);
        after > 0 && id <= self.ranges[after - 1].last
    }

    /// Returns the number of ids of the set that are below `id`. Returns None if the set does not
    /// contain `id`.
    pub fn rank(&self, id: i64) -> Option<u64> {
        let after = self.ranges.partition_point(|range| range.first <= id);
        let (earlier, own) = self.ranges.split_at(after.checked_sub(1)?);
        let own = own.first()?;
        let before = earlier.iter().map(|range| range.count()).fold(0, u64::saturating_add);
        (id <= own.last).then(|| before.saturating_add(id.abs_diff(own.first)))
    }

    /// Iterates over the ids of the set in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        self.ranges.iter().flat_map(|range| range.first..=range.last)
    }

    /// Adds `id`. Returns false if the set already contains `id`.
    pub fn insert(&mut self, id: i64) -> bool {
        self.insert_range(id, id)
    }

    /// Adds the ids from `first` to `last`. Returns false and adds nothing if the set already
    /// contains any id of this range.
    pub fn insert_range(&mut self, first: i64, last: i64) -> bool {
        let at = self.ranges.partition_point(|other| other.first <= first);
        let left = at.checked_sub(1).map(|left| self.ranges[left]);
        let right = self.ranges.get(at).copied();
        if left.is_some_and(|left| left.last >= first)
            || right.is_some_and(|right| right.first <= last)
        {
            return false;
        }
        let joins_left = left.is_some_and(|left| left.last.checked_add(1) == Some(first));
        let joins_right = right.is_some_and(|right| last.checked_add(1) == Some(right.first));
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].last = self.ranges[at].last;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].last = last,
            (false, true) => self.ranges[at].first = first,
            (false, false) => self.ranges.insert(at, IdRange { first, last }),
        }
        true
    }

    /// Adds an id, which must be above all ids of the set.
    pub fn push(&mut self, id: i64) {
        self.push_range(IdRange::of(id));
    }

    /// Adds a range, which must be above all ids of the set. Adds nothing if the range is empty.
    pub fn push_range(&mut self, range: IdRange) {
        if range.first > range.last {
            return;
        }
        match self.ranges.last_mut() {
            Some(end) if end.last.checked_add(1) == Some(range.first) => end.last = range.last,
            _ => self.ranges.push(range),
        }
    }

    /// Returns the highest id of the set. Returns None if the set is empty.
    pub fn last(&self) -> Option<i64> {
        self.ranges.last().map(|range| range.last)
    }

    /// Returns the ids of this set that `other` does not contain.
    pub fn without(&self, other: &IdRanges) -> IdRanges {
        let mut left = Vec::new();
        let mut others = other.ranges.iter().copied().peekable();
        for &IdRange { first, last } in &self.ranges {
            let mut next = Some(first);
            while let (Some(start), Some(other)) = (next, others.peek()) {
                if other.last < start {
                    others.next();
                } else if other.first > last {
                    break;
                } else {
                    if start < other.first {
                        left.push(IdRange { first: start, last: other.first - 1 });
                    }
                    next = other.last.checked_add(1).filter(|&after| after <= last);
                }
            }
            if let Some(first) = next {
                left.push(IdRange { first, last });
            }
        }
        IdRanges { ranges: left }
    }

    /// Returns the set of all bigint values that this set does not contain.
    pub fn complement(&self) -> Self {
        IdRanges::from_range(i64::MIN, i64::MAX).without(self)
    }

    /// Adds every id of `other`.
    pub fn extend(&mut self, other: &IdRanges) {
        let mut all = std::mem::take(&mut self.ranges);
        all.extend_from_slice(&other.ranges);
        all.sort_unstable();
        for range in all {
            match self.ranges.last_mut() {
                Some(end) if range.first <= end.last.saturating_add(1) => {
                    end.last = range.last.max(end.last)
                }
                _ => self.ranges.push(range),
            }
        }
    }
}

impl fmt::Display for IdRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, &IdRange { first, last }) in self.ranges.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match last.checked_add(1) {
                Some(end) => write!(f, "{comma}[{first},{end})")?,
                // A range that contains the largest bigint has no exclusive end, because no larger
                // bigint exists.
                None => write!(f, "{comma}[{first},{last}]")?,
            }
        }
        f.write_str("}")
    }
}

impl FromIterator<i64> for IdRanges {
    fn from_iter<I: IntoIterator<Item = i64>>(ids: I) -> Self {
        let mut set = IdRanges::new();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn texts_of_postgresql() {
        for text in ["{}", "{[1,4)}", "{[1,4),[6,7)}", "{[-3,0)}", "{[1,9223372036854775807)}"] {
            assert_eq!(IdRanges::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "{",
            "{[1,4)",
            "[1,4)",
            "{[1,4],}",
            "{[4,1)}",
            "{[1,1)}",
            "{[1,4),}",
            "{[1,4)[6,7)}",
            "{[1,4),[4,7)}",
            "{[6,7),[1,4)}",
            "{[1,4), [6,7)}",
            "{[01,4)}",
            "{[+1,4)}",
            "{(0,4)}",
            "{[1,)}",
            "{[1,9223372036854775808)}",
            "{empty}",
        ] {
            assert_eq!(IdRanges::parse(text), Err(IdRangesError), "{text}");
        }
    }

    #[test]
    fn ids_in_ascending_order() {
        let mut ranges = IdRanges::new();
        [-1, 0, 1, 5, 7, 8].into_iter().for_each(|id| ranges.push(id));
        ranges.push_range(IdRange { first: 10, last: 9 });
        assert_eq!((ranges.to_string().as_str(), ranges.last()), ("{[-1,2),[5,6),[7,9)}", Some(8)));
        ranges.push_range(IdRange { first: 9, last: i64::MAX });
        assert_eq!(ranges.to_string(), "{[-1,2),[5,6),[7,9223372036854775807]}");
    }

    proptest! {
        #[test]
        fn as_a_set(
            ids in prop::collection::vec(
                prop_oneof![-20..20i64, Just(i64::MAX - 1), Just(i64::MIN)],
                0..30,
            ),
            other in prop::collection::vec(-20..20i64, 0..9), probe in -25..25i64,
        ) {
            let set: BTreeSet<i64> = ids.iter().copied().collect();
            let mut ranges = IdRanges::new();
            let mut seen = BTreeSet::new();
            for &id in &ids {
                prop_assert_eq!(ranges.insert(id), seen.insert(id));
            }
            prop_assert_eq!(ranges.count(), set.len() as u64);
            let sorted: Vec<_> = set.iter().copied().collect();
            prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), sorted);
            prop_assert_eq!(ranges.contains(probe), set.contains(&probe));
            let rank = set.contains(&probe).then(|| set.range(..probe).count() as u64);
            prop_assert_eq!(ranges.rank(probe), rank);
            prop_assert_eq!(ranges.complement().contains(probe), !set.contains(&probe));
            prop_assert_eq!(IdRanges::parse(&ranges.to_string()), Ok(ranges.clone()));
            let others: IdRanges = other.iter().copied().collect();
            let without: Vec<_> = set.iter().copied().filter(|id| !other.contains(id)).collect();
            let less = ranges.without(&others);
            prop_assert_eq!(less.iter().collect::<Vec<_>>(), without);
            if let (Some(&from), Some(&to)) = (set.first(), set.last()) {
                let overlaps = other.iter().any(|&id| (from..=to).contains(&id));
                let mut extended = others.clone();
                prop_assert_eq!(extended.insert_range(from, to), !overlaps);
                if !overlaps {
                    prop_assert!(extended.contains(from) && extended.contains(to));
                    prop_assert!(others.iter().all(|id| extended.contains(id)));
                }
            }
            let both: BTreeSet<i64> = ids.iter().chain(&other).copied().collect();
            ranges.extend(&others);
            let sorted: Vec<_> = both.into_iter().collect();
            prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), sorted);
        }
    }
}
