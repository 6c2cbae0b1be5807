//! Sets of ids as ranges: those that a checkpoint took, in the text of PostgreSQL's `int8multirange`.

use std::fmt;
use thiserror::Error;

/// A set of ids, as ascending ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdRanges {
    /// First and last id of each, both in it.
    ranges: Vec<(i64, i64)>,
}

/// The text is not that of an `int8multirange` as PostgreSQL writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a multirange of ids in PostgreSQL's form, like {{[1,4),[6,7)}}")]
pub struct IdRangesError;

impl IdRanges {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The ids from one to another, both in it. None if there is no such id.
    pub fn from_range(from: i64, to: i64) -> Self {
        IdRanges { ranges: if from <= to { vec![(from, to)] } else { Vec::new() } }
    }

    /// Reads PostgreSQL's text: `{[1,4),[6,7)}`. Only its own spelling, with ranges in order that do not touch, is accepted.
    pub fn parse(text: &str) -> Result<Self, IdRangesError> {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(IdRangesError)?;
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        let mut rest = inner;
        while !rest.is_empty() {
            let (range, after) = rest.strip_prefix('[').and_then(|rest| rest.split_once(')')).ok_or(IdRangesError)?;
            let (from, to) = range.split_once(',').ok_or(IdRangesError)?;
            let (from, to) = (integer(from).ok_or(IdRangesError)?, integer(to).ok_or(IdRangesError)?);
            // Ranges that touch would be one.
            if from >= to || ranges.last().is_some_and(|&(_, last)| from <= last + 1) {
                return Err(IdRangesError);
            }
            ranges.push((from, to - 1));
            rest = match after.strip_prefix(',') {
                Some(next) if !next.is_empty() => next,
                Some(_) => return Err(IdRangesError),
                None if after.is_empty() => after,
                None => return Err(IdRangesError),
            };
        }
        Ok(IdRanges { ranges })
    }

    /// First and last id of each range.
    pub fn ranges(&self) -> &[(i64, i64)] {
        &self.ranges
    }

    /// Whether it has no id.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ids it has.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|&(from, to)| to.abs_diff(from).saturating_add(1)).fold(0, u64::saturating_add)
    }

    /// Whether it has this id.
    pub fn contains(&self, id: i64) -> bool {
        let after = self.ranges.partition_point(|&(from, _)| from <= id);
        after > 0 && id <= self.ranges[after - 1].1
    }

    /// How many of its ids are lower than this one, if it has this one.
    pub fn rank(&self, id: i64) -> Option<u64> {
        let after = self.ranges.partition_point(|&(from, _)| from <= id);
        let (earlier, own) = self.ranges.split_at(after.checked_sub(1)?);
        let &(from, to) = own.first()?;
        let before = earlier.iter().map(|&(from, to)| to.abs_diff(from).saturating_add(1)).fold(0, u64::saturating_add);
        (id <= to).then(|| before.saturating_add(id.abs_diff(from)))
    }

    /// Its ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        self.ranges.iter().flat_map(|&(from, to)| from..=to)
    }

    /// Adds an id. False if it was in the set.
    pub fn insert(&mut self, id: i64) -> bool {
        self.insert_range(id, id)
    }

    /// Adds a range of ids that are not in the set. False, and nothing is added, if one of them is.
    pub fn insert_range(&mut self, from: i64, to: i64) -> bool {
        let at = self.ranges.partition_point(|&(other, _)| other <= from);
        let left = at.checked_sub(1).map(|left| self.ranges[left]);
        let right = self.ranges.get(at).copied();
        if left.is_some_and(|(_, last)| last >= from) || right.is_some_and(|(first, _)| first <= to) {
            return false;
        }
        let joins_left = left.is_some_and(|(_, last)| last.checked_add(1) == Some(from));
        let joins_right = right.is_some_and(|(first, _)| to.checked_add(1) == Some(first));
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = to,
            (false, true) => self.ranges[at].0 = from,
            (false, false) => self.ranges.insert(at, (from, to)),
        }
        true
    }

    /// The ids of this set that are not in another, as ranges.
    pub fn without(&self, other: &IdRanges) -> IdRanges {
        let mut left = Vec::new();
        let mut others = other.ranges.iter().copied().peekable();
        for &(from, to) in &self.ranges {
            let mut next = Some(from);
            while let (Some(start), Some(&(first, last))) = (next, others.peek()) {
                if last < start {
                    others.next();
                } else if first > to {
                    break;
                } else {
                    if start < first {
                        left.push((start, first - 1));
                    }
                    next = last.checked_add(1).filter(|&after| after <= to);
                }
            }
            if let Some(start) = next {
                left.push((start, to));
            }
        }
        IdRanges { ranges: left }
    }

    /// The ids that are in neither of its ranges, from the lowest to the highest there can be.
    pub fn gaps(&self) -> Self {
        let mut gaps = Vec::new();
        let mut next = Some(i64::MIN);
        for &(from, to) in &self.ranges {
            if let Some(start) = next
                && start < from
            {
                gaps.push((start, from - 1));
            }
            next = to.checked_add(1);
        }
        if let Some(start) = next {
            gaps.push((start, i64::MAX));
        }
        IdRanges { ranges: gaps }
    }

    /// Adds every id of another set.
    pub fn extend(&mut self, other: &IdRanges) {
        let mut all = std::mem::take(&mut self.ranges);
        all.extend_from_slice(&other.ranges);
        all.sort_unstable();
        for (from, to) in all {
            match self.ranges.last_mut() {
                Some((_, last)) if from <= last.saturating_add(1) => *last = to.max(*last),
                _ => self.ranges.push((from, to)),
            }
        }
    }
}

impl fmt::Display for IdRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, &(from, to)) in self.ranges.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}[{from},{})", i128::from(to) + 1)?;
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

/// An integer in its one spelling.
pub(crate) fn integer<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
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

    proptest! {
        #[test]
        fn as_a_set(
            ids in prop::collection::vec(prop_oneof![-20..20i64, Just(i64::MAX - 1), Just(i64::MIN)], 0..30),
            other in prop::collection::vec(-20..20i64, 0..9), probe in -25..25i64,
        ) {
            let set: BTreeSet<i64> = ids.iter().copied().collect();
            let mut ranges = IdRanges::new();
            let mut seen = BTreeSet::new();
            for &id in &ids {
                prop_assert_eq!(ranges.insert(id), seen.insert(id));
            }
            prop_assert_eq!(ranges.count(), set.len() as u64);
            prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.contains(probe), set.contains(&probe));
            let rank = set.contains(&probe).then(|| set.range(..probe).count() as u64);
            prop_assert_eq!(ranges.rank(probe), rank);
            prop_assert_eq!(ranges.gaps().contains(probe), !set.contains(&probe));
            prop_assert_eq!(IdRanges::parse(&ranges.to_string()), Ok(ranges.clone()));
            let others: IdRanges = other.iter().copied().collect();
            let without: Vec<_> = set.iter().copied().filter(|id| !other.contains(id)).collect();
            let less = ranges.without(&others);
            prop_assert_eq!(less.iter().collect::<Vec<_>>(), without);
            if let (Some(&from), Some(&to)) = (set.first(), set.last()) {
                let overlaps = other.iter().any(|&id| (from..=to).contains(&id));
                let mut extended = others.clone();
                prop_assert_eq!(extended.insert_range(from, to), !overlaps);
                prop_assert!(overlaps || extended.contains(from) && extended.contains(to) && others.iter().all(|id| extended.contains(id)));
            }
            let both: BTreeSet<i64> = ids.iter().chain(&other).copied().collect();
            ranges.extend(&others);
            prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), both.into_iter().collect::<Vec<_>>());
        }
    }
}
